-- Lesson 6: doing several things at once.
--
-- Every call waits, but only for the task that makes it. task.spawn starts another task; wait gives
-- what its function returned.
local sandbox = require "sandbox"

local sb <close> = sandbox.create { image = "host" }

local function slow(word)
  local r = sb:exec({ "sh", "-c", "sleep 0.2; echo $0", word }, { check = true })
  return (r.stdout:gsub("\n", ""))
end

local start = task.now()
local first = task.spawn(slow, "one")
local second = task.spawn(slow, "two")
local third = task.spawn(slow, "three")
print(first:wait(), second:wait(), third:wait())

-- Three waits of 0.2 seconds took about 0.2 seconds, not 0.6.
print("at once: " .. tostring(task.now() - start < 0.55))

-- An error in a task is raised where it is waited for.
local failing = task.spawn(function() error("lost in space", 0) end)
print(pcall(failing.wait, failing))

-- A task that is no longer wanted is cancelled; its command ends too.
local endless = task.spawn(function() sb:exec "sleep 1000" end)
task.sleep("50ms")
endless:cancel()
print "cancelled"

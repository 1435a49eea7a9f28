-- Lesson 7: many at once, but not too many.
--
-- task.map runs a function over a list, with a limit and a deadline, and keeps the order. A group
-- does the same for tasks that you start yourself.
local sandbox = require "sandbox"

local words = { "sand", "moon", "dust", "rock", "crater" }

local lengths = task.map(words, { limit = 2, deadline = "30s" }, function(word)
  local r = sandbox.run({ "printf", "%s", word }, { create = { image = "host" }, check = true })
  return #r.stdout
end)
for i, word in ipairs(words) do print(word, lengths[i]) end

-- The first error ends the others and is raised. With errors = "collect" all of them run.
local results, errors = task.map({ 0, 3, 0 }, { errors = "collect" }, function(code)
  local r = sandbox.run("exit " .. code, { create = { image = "host" }, check = true })
  return r.exit_code
end)
print(results[1], errors[2].code, results[3])

-- A group waits for its tasks where its block ends.
do
  local g <close> = task.group { limit = 2, deadline = "30s" }
  for i = 1, 4 do
    g:spawn(function() task.sleep(0.01 * i) end)
  end
end
print "the group is done"

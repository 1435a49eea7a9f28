-- Prints the KiB that each of many idle things takes of the machine.
-- Arguments: count, unused, unused, what: sandbox, open (a sandbox with a network), task.
local sandbox = require "sandbox"

local count, what = tonumber(arg[1]), arg[4]

-- The machine's own count, read inside a sandbox's command: it includes the kernel's share.
local probe = sandbox.create { timeout = 600 }
local function available()
  task.sleep(0.3)
  local r = probe:exec({ "awk", "/^MemAvailable/ { print $2 }", "/proc/meminfo" }):check()
  return tonumber(r.stdout)
end

local function make()
  if what == "task" then return task.spawn(function() task.sleep(30) end) end
  return sandbox.create { timeout = 600, network = what == "open" and "open" or "none" }
end

-- What is made once is not counted: the pool of slots, the helper of open networks.
local first = make()
available()
local before = available()
local kept = {}
for i = 1, count do kept[i] = make() end
print(string.format("%.1f", (before - available()) / count))
kept[#kept + 1] = first
for _, v in ipairs(kept) do
  if what == "task" then v:cancel() else v:terminate() end
end
probe:terminate()

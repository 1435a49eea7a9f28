-- Prints the KiB that each of many idle things takes of the machine.
-- Arguments: count, unused, unused, what.
local sandbox = require "sandbox"

local count, what = tonumber(arg[1]), arg[4]

-- The machine's own count, read inside a sandbox's command: it includes the kernel's share.
local probe = sandbox.create { timeout = 600 }
local function available()
  task.sleep(0.3)
  local r = probe:exec({ "awk", "/^MemAvailable/ { print $2 }", "/proc/meminfo" }):check()
  return tonumber(r.stdout)
end

available()
local before = available()
local kept = {}
for i = 1, count do
  if what == "sandbox" then
    kept[i] = sandbox.create { timeout = 600 }
  else
    kept[i] = task.spawn(function() task.sleep(30) end)
  end
end
print(string.format("%.1f", (before - available()) / count))
for i = 1, count do
  if what == "sandbox" then kept[i]:terminate() else kept[i]:cancel() end
end
probe:terminate()

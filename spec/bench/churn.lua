-- Prints the microseconds a sandbox (create, exec, terminate) costs.
-- Arguments: count, unused, how many at once, what asked.lua says.
local sandbox = require "sandbox"
local asked = require "asked"

local count, at_once = tonumber(arg[1]), tonumber(arg[3])
local list = {}
for i = 1, count do list[i] = i end
local begin = task.now()
task.map(list, { limit = at_once }, function()
  local sb = sandbox.create(asked.create)
  sb:exec({ "/usr/bin/true" }):check()
  sb:terminate()
end)
print(string.format("%.1f", (task.now() - begin) * 1e6 / count))

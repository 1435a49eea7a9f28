-- Prints the microseconds of each exec in one live sandbox.
-- Arguments: count, pause in ms before each, 1, what asked.lua says.
local sandbox = require "sandbox"
local asked = require "asked"

local count, pause = tonumber(arg[1]), tonumber(arg[2]) / 1000
local sb <close> = sandbox.create(asked.create)
sb:exec { "/usr/bin/true" }
for _ = 1, count do
  if pause > 0 then task.sleep(pause) end
  local begin = task.now()
  local r = sb:exec { "/usr/bin/true" }
  local took = (task.now() - begin) * 1e6
  r:check()
  print(string.format("%.1f", took))
end

-- Prints the microseconds of create, exec, terminate.
-- Arguments: count, pause in ms before each, 1, what asked.lua says.
local sandbox = require "sandbox"
local asked = require "asked"

local count, pause = tonumber(arg[1]), tonumber(arg[2]) / 1000
for i = 0, count do
  if pause > 0 then task.sleep(pause) end
  local begin = task.now()
  local sb = sandbox.create(asked.create)
  local r = sb:exec { "/usr/bin/true" }
  sb:terminate()
  local took = (task.now() - begin) * 1e6
  r:check()
  if i > 0 then print(string.format("%.1f", took)) end -- the first one pays for the engine's start
end

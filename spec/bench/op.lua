-- Prints the microseconds of each op that only asks and answers. Argument: count.
local sandbox = require "sandbox"

local count = tonumber(arg[1])
sandbox.price {}
for _ = 1, count do
  local begin = task.now()
  sandbox.price {}
  print(string.format("%.1f", (task.now() - begin) * 1e6))
end

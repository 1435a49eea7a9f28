-- Prints rows and samples, as results.lua describes: milliseconds of creating a sandbox from image
-- host and from two images of the store, in turns. Argument: how often.
local sandbox = require "sandbox"

local rows = {
  { "host", "host" },
  { "image of one layer", "bench/base:1" },
  { "image of twelve layers", "bench/many:1" },
}
local samples = {}
for i = 0, tonumber(arg[1]) do
  for k, row in ipairs(rows) do
    local begin = task.now()
    local sb = sandbox.create { image = row[2] }
    local took = (task.now() - begin) * 1e3
    sb:terminate()
    samples[k] = samples[k] or {}
    samples[k][i] = took -- the 0th pays for the engine's start
  end
end
for k, row in ipairs(rows) do
  print("row\t" .. row[1])
  for _, took in ipairs(samples[k]) do print(("sample\t%.4f"):format(took)) end
end

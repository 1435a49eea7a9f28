-- Many sandboxes alive at once, each of which read a file of its own. Prints, a line each, the
-- milliseconds of: a create among the first 500, one among the last 500, an exec in the last, the
-- end of all. Argument: count.
local sandbox = require "sandbox"

local count, piece = tonumber(arg[1]), 500

local files = {}
do
  local sb <close> = sandbox.create {}
  local r = sb:exec("find /usr/lib /usr/share -type f -size +3k -size -65k 2>/dev/null",
    { max_output = "16MiB" })
  for path in r.stdout:gmatch "[^\n]+" do files[#files + 1] = path end
end

local live = {}
local function create()
  local begin = task.now()
  for _ = 1, piece do live[#live + 1] = sandbox.create { timeout = 3600 } end
  local took = (task.now() - begin) * 1e3 / piece
  for i = #live - piece + 1, #live do
    live[i]:exec { "cksum", files[i % #files + 1] }
  end
  return took
end
local first, last = create(), nil
while #live < count do last = create() end
print(string.format("%.2f\n%.2f", first, last))

local begin = task.now()
live[#live]:exec({ "/usr/bin/true" }):check()
print(string.format("%.2f", (task.now() - begin) * 1e3))
begin = task.now()
task.map(live, { limit = #live }, function(sb) sb:terminate() end)
print(string.format("%.1f", (task.now() - begin) * 1e3))

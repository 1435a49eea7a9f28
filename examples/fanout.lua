-- Fan out: many pieces of work, each in a sandbox of its own, three at a time, all within a
-- deadline. task.map keeps the order of the list and ends the others when one piece fails.
local sandbox = require "sandbox"

local texts = {}
for i = 1, 8 do texts[i] = ("line %d\n"):format(i):rep(i * 100) end

local started, most = 0, 0
local results = task.map(texts, { limit = 3, deadline = "60s" }, function(text, i)
  started = started + 1
  most = math.max(most, started)
  local sb <close> = sandbox.create { image = "host", timeout = 60 }
  progress(i, #texts, "counted text " .. i)
  local lines = sb:exec({ "wc", "-l" }, { stdin = text, check = true })
  started = started - 1
  return tonumber(lines.stdout)
end)

for i, lines in ipairs(results) do print(("text %d has %d lines"):format(i, lines)) end
print("never more than 3 at once: " .. tostring(most <= 3))

-- A pipeline over several sandboxes: each stage has a machine of its own and sees nothing of the
-- others but the text that it is handed. The three are created at the same time.
local sandbox = require "sandbox"

local stages = {
  { name = "generate", command = "for i in 3 1 2 3 1 3; do echo item-$i; done" },
  { name = "count", command = "sort | uniq -c | sort -rn" },
  { name = "report", command = "while read -r n what; do echo \"$what: $n\"; done" },
}

local boxes = task.map(stages, { limit = 3, deadline = "30s" }, function(stage)
  return sandbox.create { image = "host", timeout = 60, tags = { stage = stage.name } }
end)

local text = ""
for i, stage in ipairs(stages) do
  local r = boxes[i]:exec(stage.command, { stdin = text, timeout = 10, check = true })
  text = r.stdout
  local _, lines = text:gsub("\n", "")
  print(("%-8s gave %d lines"):format(stage.name, lines))
end
io.write(text)

for _, sb in ipairs(boxes) do sb:terminate() end

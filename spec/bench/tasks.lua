-- Prints the milliseconds from the first spawn to the last join of 10,000 tasks that sleep 100 ms
-- each.
local begin = task.now()
local tasks = {}
for i = 1, 10000 do
  tasks[i] = task.spawn(function() task.sleep(0.1) end)
end
for i = 1, #tasks do tasks[i]:wait() end
print(string.format("%.1f", (task.now() - begin) * 1e3))

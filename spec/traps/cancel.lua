-- Scripts that try to survive a cancel. Each section runs beside an innocent script (test_traps.c).
-- Sections begin with: --## name [kill=MS] [force] [end=ok|error|timeout|limit|cancelled] [mem=MiB] [err=text…]
--> is a line that it has to print; nothing else may be printed.

--## pcall_around_sleep kill=30 end=timeout
while true do pcall(task.sleep, 10) end

--## pcall_around_computing kill=60 end=timeout
while true do pcall(function() while true do end end) end

--## pcall_in_pcall kill=60 end=timeout
local function deep(n) while true do pcall(n > 0 and deep or task.sleep, n - 1 > 0 and n - 1 or 1) end end
deep(20)

--## xpcall_handler_is_not_asked kill=40 end=timeout
while true do xpcall(task.sleep, function(e) print("handler", e) return "swallowed" end, 10) end

--## xpcall_handler_is_not_asked_from_the_hook kill=60 end=timeout
while true do xpcall(function() while true do end end, function(e) print("handler", e) end) end

--## xpcall_handler_that_loops end=limit err=50 ms
xpcall(error, function() while true do end end, "x")
print("not here")

--## xpcall_handler_that_loops_in_pcall end=limit err=50 ms
while true do pcall(xpcall, error, function() while true do pcall(function() while true do end end) end end) end

--## load_reader_that_loops kill=60 end=timeout
while true do load(function() while true do end end) end

--## load_reader_that_sleeps kill=40 end=timeout
while true do load(function() pcall(task.sleep, 10) return nil end) end

--## load_reader_without_end end=limit mem=16 err=memory
local n = 0
load(function() n = n + 1 return n .. (" "):rep(1024) end)

--## load_reader_in_c kill=60 end=timeout
while true do load(string.gmatch((" "):rep(200000), " ")) end

--## coroutines_that_loop kill=60 end=timeout
while true do
  coroutine.resume(coroutine.create(function() while true do end end))
end

--## coroutines_that_sleep kill=40 end=timeout
while true do
  print(coroutine.resume(coroutine.create(function() task.sleep(10) end)))
end

--## wrapped_coroutines_in_pcall kill=60 end=timeout
while true do
  pcall(coroutine.wrap(function() while true do pcall(coroutine.wrap(function() while true do end end)) end end))
end

--## a_coroutine_that_yields_at_each_step kill=60 end=timeout
local co = coroutine.wrap(function() while true do pcall(coroutine.yield) end end)
while true do pcall(co) end

--## inside_sort kill=60 end=timeout
while true do
  pcall(table.sort, { 3, 1, 2 }, function() while true do pcall(function() while true do end end) end end)
end

--## inside_sort_sleeping kill=40 end=timeout
while true do pcall(table.sort, { 3, 1, 2 }, function(a, b) task.sleep(10) return a < b end) end

--## inside_gsub kill=60 end=timeout
while true do
  pcall(string.gsub, "abc", ".", function() while true do pcall(function() while true do end end) end end)
end

--## inside_gsub_sleeping kill=40 end=timeout
while true do pcall(string.gsub, "abc", ".", function() task.sleep(10) end) end

--## inside_a_metamethod kill=60 end=timeout
local t = setmetatable({}, { __index = function() while true do pcall(function() while true do end end) end end })
while true do pcall(function() return t.x end) end

--## inside_tostring end=limit err=50 ms
local t = setmetatable({}, { __tostring = function() while true do pcall(function() while true do end end) end end })
while true do pcall(tostring, t) end

--## finalizers_are_refused end=ok
print(pcall(setmetatable, {}, { __gc = function() while true do end end }))
local mt = {}
setmetatable({}, mt)
mt.__gc = function() print("never") end
collectgarbage()
--> false	__gc is not available in scripts; use a <close> variable (__close), or on_exit

--## close_that_hangs kill=30 end=timeout
local x <close> = setmetatable({}, { __close = function() while true do end end })
task.sleep(10)

--## close_that_hangs_sleeping kill=30 end=timeout
local x <close> = setmetatable({}, { __close = function() while true do pcall(task.sleep, 1) end end })
task.sleep(10)

--## close_that_fails kill=30 end=timeout
local ok, e = pcall(function()
  local x <close> = setmetatable({}, { __close = function() error("replaced") end })
  task.sleep(10)
end)
print("swallowed", ok, e)

--## close_that_replaces_the_error_everywhere kill=30 end=timeout
local function nest(n)
  local x <close> = setmetatable({}, { __close = function() error("level " .. n, 0) end })
  if n == 0 then task.sleep(10) else pcall(nest, n - 1) end
  print("swallowed")
end
while true do pcall(nest, 10) end

--## many_closes_where_nothing_can_yield end=limit err=50 ms
local hang = { __close = function() while true do end end }
local function nest(n)
  local a <close> = setmetatable({}, hang)
  if n > 0 then nest(n - 1) else while true do end end
end
tostring(setmetatable({}, { __tostring = function() nest(100) end }))

--## cleanup_may_block_and_catch kill=30 end=timeout
local x <close> = setmetatable({}, { __close = function(_, e)
  print("cleanup", e.code, pcall(error, "own", 0))
  print(select(2, pcall(core.call, "test.slow", { chunks = 1, ms = 10 })).sent)
  print(task.spawn(function() task.sleep(0.01) return "child" end):wait())
end })
while true do pcall(task.sleep, 10) end
--> cleanup	timeout	false	own
--> 1
--> child

--## close_that_yields_on_error end=error err=first
local function closing(name)
  return setmetatable({}, { __close = function(_, e) task.sleep(0.005) print(name, (tostring(e):gsub("^.*: ", ""))) end })
end
print(pcall(function()
  local a <close> = closing "a"
  local b <close> = closing "b"
  error("caught", 0)
end))
local c <close> = closing "c"
coroutine.wrap(function()
  local d <close> = closing "d"
  coroutine.wrap(function()
    local e <close> = closing "e"
    error("first", 0)
  end)()
end)()
--> b	caught
--> a	caught
--> false	caught
--> e	first
--> d	first
--> c	first

--## close_that_yields_on_kill_in_nested_coroutines kill=30 end=timeout
local function closing(name)
  return setmetatable({}, { __close = function(_, e) task.sleep(0.005) print(name, e.code) end })
end
local c <close> = closing "c"
pcall(coroutine.wrap(function()
  local d <close> = closing "d"
  print(coroutine.resume(coroutine.create(function()
    local e <close> = closing "e"
    pcall(task.sleep, 10)
  end)))
end))
--> e	timeout
--> d	timeout
--> c	timeout

--## close_on_return_and_break_may_block end=ok
local function closing(name)
  return setmetatable({}, { __close = function() task.sleep(0.005) print(name) end })
end
local function f() local a <close> = closing "return" return "value" end
print(f())
while true do local b <close> = closing "break" break end
do local c <close> = closing "block" end
for _ in function(_, i) if not i then return 1 end end, nil, nil, closing "for" do end
--> return
--> value
--> break
--> block
--> for

--## suspended_coroutines_at_the_end end=ok
kept = {}
for i = 1, 100 do
  kept[i] = coroutine.wrap(function()
    local x <close> = setmetatable({}, { __close = function() while true do end end })
    coroutine.yield(i)
  end)
  kept[i]()
end
print(#kept)
--> 100

--## suspended_coroutines_at_a_kill kill=30 end=timeout
kept = coroutine.wrap(function()
  local x <close> = setmetatable({}, { __close = function() while true do end end })
  pcall(coroutine.yield)
end)
kept()
while true do pcall(task.sleep, 10) end

--## spawning_against_the_kill kill=40 end=timeout
local function hydra()
  while true do
    pcall(function() task.spawn(hydra) task.spawn(hydra) task.sleep(0.02) end)
  end
end
hydra()

--## cleanup_that_spawns_for_ever kill=30 end=timeout
local function hydra()
  local x <close> = setmetatable({}, { __close = function() task.spawn(hydra) task.sleep(0.01) end })
  task.sleep(10)
end
hydra()

--## on_exit_that_hangs kill=30 end=timeout
on_exit(function() while true do end end)
on_exit(function() while true do pcall(task.sleep, 10) end end)
task.sleep(10)

--## on_exit_in_reverse_and_blocking end=error err=in an on_exit function
on_exit(function(why) print("first", why.kind, why.error) end)
on_exit(function() task.sleep(0.005) print("second") error("in hook") end)
on_exit(function() print("third") on_exit(function() print("late") end) end)
print("main")
--> main
--> third
--> late
--> second
--> first	ok	nil

--## on_exit_after_an_error end=error err=boom
on_exit(function(why) print(why.kind, why.error.message) end)
error("boom", 0)
--> error	boom

--## a_forced_end_skips_cleanup kill=30 force end=timeout
on_exit(function() print("not here") end)
local x <close> = setmetatable({}, { __close = function() task.sleep(1) print("nor here") end })
while true do pcall(task.sleep, 10) end

--## a_forced_end_while_computing kill=30 force end=timeout
while true do pcall(function() while true do end end) end

--## an_op_is_cancelled_and_waited_for kill=30 end=timeout
local ok, e = pcall(core.call, "test.slow", { chunks = 1, ms = 100000 })
print("swallowed", ok, e)

--## a_chunk_callback_that_hangs kill=60 end=timeout
pcall(core.call, "test.slow", { chunks = 100, ms = 1 }, { on_chunk = function() while true do end end })
print("swallowed")

--## a_chunk_callback_that_sleeps kill=40 end=timeout
pcall(core.call, "test.slow", { chunks = 100, ms = 1 }, { on_chunk = function() pcall(task.sleep, 10) end })
print("swallowed")

--## the_main_task_cancels_itself end=cancelled
local x <close> = setmetatable({}, { __close = function() print("closed") end })
pcall(core.cancel, core.current())
print("swallowed")
--> closed

--## a_cancelled_child_is_no_error end=ok
local t = task.spawn(function()
  local x <close> = setmetatable({}, { __close = function() task.sleep(0.01) print("closed") end })
  while true do pcall(task.sleep, 10) end
end)
task.sleep(0.005)
t:cancel()
local ok, e = pcall(t.wait, t)
print(ok, e.code)
local u = task.spawn(function() print("never begins") end)
u:cancel()
--> closed
--> false	cancelled

--## a_cancel_passes_waits_groups_and_races kill=60 end=timeout
while true do
  pcall(function() task.spawn(function() while true do pcall(task.sleep, 10) end end):wait() end)
  pcall(task.map, { 1, 2, 3 }, function() while true do pcall(task.sleep, 10) end end)
  pcall(task.race, { function() while true do pcall(task.sleep, 10) end end })
end

--## a_group_close_under_cancel kill=30 end=timeout
do
  local g <close> = task.group()
  g:spawn(function()
    local x <close> = setmetatable({}, { __close = function() task.sleep(0.01) print("member") end })
    task.sleep(10)
  end)
  pcall(task.sleep, 10)
end
print("swallowed")
--> member

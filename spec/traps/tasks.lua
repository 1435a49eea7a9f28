-- Tasks, groups and what is built on them, as the API promises (test_traps.c runs the sections).

--## group_joins_at_block_end_and_holds_its_limit end=ok
local running, most = 0, 0
do
  local g <close> = task.group { limit = 2 }
  for i = 1, 6 do
    g:spawn(function()
      running = running + 1
      most = math.max(most, running)
      task.sleep(0.004)
      running = running - 1
    end)
  end
  print("spawned", running <= 2)
end
print(running, most)
--> spawned	true
--> 0	2

--## group_wait_gives_first_results_in_order end=ok
local g <close> = task.group()
for i = 1, 3 do g:spawn(function() task.sleep(0.004 * (4 - i)) if i ~= 2 then return i, "second" end end) end
print(g:wait())
local t = g:spawn(function() return "a", "b" end)
print(t:wait())
print(g:wait())
--> 1	nil	3
--> a	b
--> 1	nil	3	a

--## group_first_error_cancels_the_others_and_wins end=ok
print(pcall(function()
  local g <close> = task.group()
  g:spawn(function()
    local x <close> = setmetatable({}, { __close = function() task.sleep(0.01) print("cleaned up") end })
    task.sleep(10)
  end)
  g:spawn(function() task.sleep(0.01) error("second", 0) end)
  g:spawn(function() task.sleep(0.005) error("first", 0) end)
end))
--> cleaned up
--> false	first

--## group_error_in_the_block_cancels_the_tasks end=ok
print(pcall(function()
  local g <close> = task.group()
  g:spawn(function() task.sleep(10) print("not here") end)
  g:spawn(function() task.sleep(0.001) error("task", 0) end)
  task.sleep(0.01)
  error("block", 0)
end))
--> false	block

--## group_deadline end=ok
local began = task.now()
local ok, e = pcall(function()
  local g <close> = task.group { deadline = "20ms" }
  g:spawn(task.sleep, 10)
  g:spawn(function() return "fine" end)
end)
print(ok, e.code, task.now() - began < 5)
local ok, e = pcall(function()
  local g <close> = task.group { deadline = "20ms", limit = 1 }
  g:spawn(task.sleep, 10)
  g:spawn(print, "not here")
end)
print(ok, e.code)
do
  local g <close> = task.group { deadline = 10 }
  g:spawn(task.sleep, 0.001)
end
print(task.now() - began < 5)
--> false	timeout	true
--> false	timeout
--> true

--## group_error_before_the_deadline_wins end=ok
local ok, e = pcall(function()
  local g <close> = task.group { deadline = "60ms", limit = 1 }
  g:spawn(function() task.sleep(0.005) error("error first", 0) end)
  g:spawn(print, "not here")
end)
print(ok, e)
--> false	error first

--## group_without_close_belongs_to_its_task end=error err=left behind
local g = task.group()
g:spawn(function() task.sleep(0.01) print("was waited for") error("left behind", 0) end)
print("main is over")
--> main is over
--> was waited for

--## group_from_another_task end=ok
local g <close> = task.group { limit = 1 }
local child = task.spawn(function()
  for i = 1, 3 do g:spawn(function() task.sleep(0.001) io.write(i, " ") end) end
  return "spawned"
end)
print(child:wait())
g:wait()
print()
--> 1 2 spawned
--> 3 

--## map_keeps_order_and_marks_nil end=ok
print(table.concat(task.map({ 3, 1, 2 }, function(x, i) task.sleep(x * 0.003) return x * 10 + i end), " "))
print(task.map({ 1 }, {}, function() end)[1] == json.null, #task.map({}, print))
local running, most = 0, 0
task.map({ 1, 2, 3, 4, 5, 6 }, { limit = 3 }, function()
  running = running + 1
  most = math.max(most, running)
  task.sleep(0.003)
  running = running - 1
end)
print(most)
--> 31 12 23
--> true	0
--> 3

--## map_raises_the_first_error end=ok
print(pcall(task.map, { 3, 1, 2 }, function(x) task.sleep(x * 0.005) error("item " .. x, 0) end))
local ok, e = pcall(task.map, { 1, 2 }, { deadline = "10ms" }, function() task.sleep(10) end)
print(ok, e.code)
--> false	item 1
--> false	timeout

--## map_collects end=ok
local r, e = task.map({ 1, 2, 3 }, { errors = "collect", limit = 2 }, function(x)
  if x == 2 then error("bad", 0) end
  return x
end)
print(r[1], r[2] == json.null, r[3], e[1], e[2], e[3])
local r, e = task.map({ 1, 2, 3, 4 }, { errors = "collect", deadline = "30ms", limit = 2 }, function(x)
  task.sleep(x == 1 and 0.001 or 10)
  return x
end)
print(r[1], e[1], e[2].code, e[3].code, e[4].code)
--> 1	true	3	nil	bad	nil
--> 1	nil	timeout	timeout	timeout

--## race_first_to_return_wins end=ok
print(task.race {
  function()
    local x <close> = setmetatable({}, { __close = function() task.sleep(0.005) print("loser cleaned up") end })
    task.sleep(10)
  end,
  function() task.sleep(0.002) error("errors wait") end,
  function() task.sleep(0.01) return "winner", 2 end,
})
local ok, e = pcall(task.race, { function() error("a", 0) end, function() task.sleep(0.001) error("b", 0) end })
print(ok, e.code, e.errors[1], e.errors[2])
print(task.race { function() return nil end, function() task.sleep(10) end })
print(select("#", task.race { function() end }))
--> loser cleaned up
--> winner	2
--> false	all_failed	a	b
--> nil
--> 0

--## timeout_gives_results_or_raises end=ok
local ok, e = pcall(task.timeout, 0.01, function()
  local x <close> = setmetatable({}, { __close = function() task.sleep(0.005) print("cleaned up") end })
  while true do pcall(task.sleep, 10) end
end)
print(ok, e.code)
print(task.timeout("1s", function(...) return ... end, 1, nil, 3))
print(pcall(task.timeout, 1, error, "inner", 0))
local ok, e = pcall(task.timeout, 0.02, task.timeout, 10, task.sleep, 10)
print(ok, e.code)
local ok, e = pcall(task.timeout, 10, task.timeout, 0.02, task.sleep, 10)
print(ok, e.code)
--> cleaned up
--> false	timeout
--> 1	nil	3
--> false	inner
--> false	timeout
--> false	timeout

--## a_task_waits_for_its_children end=ok
local t = task.spawn(function()
  task.spawn(function() task.sleep(0.01) task.spawn(function() task.sleep(0.01) print("grandchild") end) print("child") end)
  print("parent")
  return "result"
end)
print(t:wait())
--> parent
--> child
--> grandchild
--> result

--## an_error_cancels_the_children end=ok
print(pcall(function()
  task.spawn(function()
    task.spawn(function()
      local x <close> = setmetatable({}, { __close = function(_, e) print("child of", e.code) end })
      task.sleep(10)
    end)
    task.sleep(0.005)
    error("parent", 0)
  end):wait()
end))
--> child of	cancelled
--> false	parent

--## an_unwaited_error_is_the_parents end=error err=nobody looked
task.spawn(function() error("nobody looked", 0) end)
task.spawn(function()
  local x <close> = setmetatable({}, { __close = function() print("sibling cancelled") end })
  task.sleep(10)
end)
task.sleep(0.01)
print("main ends")
--> main ends
--> sibling cancelled

--## a_waited_error_is_not end=ok
local t = task.spawn(function() error("looked at", 0) end)
print(pcall(t.wait, t))
print(pcall(t.wait, t))
local u = task.spawn(function() task.sleep(0.002) error("waited by a sibling", 0) end)
print(task.spawn(function() return pcall(u.wait, u) end):wait())
--> false	looked at
--> false	looked at
--> false	waited by a sibling

--## many_wait_for_one end=ok
local t = task.spawn(function() task.sleep(0.005) return "shared" end)
print(table.concat(task.map({ 1, 2, 3 }, function() return t:wait() end), " "))
--> shared shared shared

--## fair_turns end=ok
local order = {}
for _, name in ipairs { "a", "b", "c" } do
  task.spawn(function() for i = 1, 3 do order[#order + 1] = name .. i task.yield() end end)
end
task.sleep(0.01)
print(table.concat(order, " "))
--> a1 b1 c1 a2 b2 c2 a3 b3 c3

--## cancel_inside_join end=ok
local t = task.spawn(function()
  task.spawn(function()
    local x <close> = setmetatable({}, { __close = function() task.sleep(0.005) print("child cleaned up") end })
    task.sleep(10)
  end)
  return "body is over"
end)
task.sleep(0.005)
t:cancel()
local ok, e = pcall(t.wait, t)
print(ok, e.code)
--> child cleaned up
--> false	cancelled

--## a_cancelled_wait_leaves_the_other_alone end=ok
local t = task.spawn(function() task.sleep(0.02) return "alive" end)
local w = task.spawn(function() t:wait() print("not here") end)
task.sleep(0.005)
w:cancel()
print(t:wait())
--> alive

--## retry_repeats_what_is_worth_it end=ok
print(retry(function(n) if n < 3 then error { code = "capacity", retryable = true } end return n, "ok" end, { backoff = 0.001 }))
local tried = 0
print(pcall(retry, function() tried = tried + 1 error("no", 0) end, { backoff = 0.001 }))
print(tried)
print(retry(function(n) if n < 2 then error { code = "timeout" } end return n end, { backoff = "1ms", on = { "timeout" } }))
local ok, e = pcall(retry, function(n) error { code = "capacity", retryable = true, n = n } end, { max = 4, backoff = 0.001 })
print(ok, e.n)
--> 3	ok
--> false	no
--> 1
--> 2
--> false	4

--## bad_arguments_name_the_field end=ok
local function try(f, ...) local ok, e = pcall(f, ...) print(e.code, e.field, e.message) end
try(task.sleep, "soon")
try(task.sleep, -1)
try(task.sleep, 0 / 0)
try(task.sleep)
try(task.group, { limt = 2 })
try(task.group, { limit = 1.5 })
try(task.group, { deadline = 0 })
try(task.map, 5, print)
try(task.map, {}, { errors = "ignore" }, print)
try(task.race, {})
try(task.timeout, "1 day", print)
try(task.spawn, 5)
try(retry, print, { times = 5 })
--> invalid_argument	seconds	seconds: soon is no duration; give seconds as a number, or a string such as "250ms", "90s", "5m", "2h"
--> invalid_argument	seconds	seconds: -1 is no duration; give seconds as a number, or a string such as "250ms", "90s", "5m", "2h"
--> invalid_argument	seconds	seconds: -nan is no duration; give seconds as a number, or a string such as "250ms", "90s", "5m", "2h"
--> invalid_argument	seconds	seconds: nil is no duration; give seconds as a number, or a string such as "250ms", "90s", "5m", "2h"
--> invalid_argument	limt	task.group: unknown option 'limt'; known are limit and deadline
--> invalid_argument	limit	limit: 1.5 is not a whole number of at least 1
--> invalid_argument	deadline	deadline: it has to be longer than 0
--> invalid_argument	list	task.map: the first argument is a list, not a number value
--> invalid_argument	errors	errors: ignore is neither "raise" nor "collect"
--> invalid_argument	functions	task.race: a list of at least one function is needed
--> invalid_argument	seconds	seconds: 1 day is no duration; give seconds as a number, or a string such as "250ms", "90s", "5m", "2h"
--> invalid_argument	fn	fn: a function is needed, not a number value
--> invalid_argument	times	retry: unknown option 'times'; known are max, backoff and on

--## durations end=ok
for _, d in ipairs { "250ms", "90s", "5m", "2h", 1.5, "3", 0 } do io.write(core.duration(d, "d"), " ") end
print()
for _, d in ipairs { "", "ms", "1d", "0x10", "1e400", "+1", " 1", "inf", true, {} } do
  if pcall(core.duration, d, "d") then print("accepted", d) end
end
--> 0.25 90.0 300.0 7200.0 1.5 3.0 0.0 

--## chunks_come_in_order_and_with_back_pressure end=ok
local seen, streams = {}, {}
local r = core.call("test.slow", { chunks = 60, size = 60000 }, { on_chunk = function(stream, bytes)
  seen[#seen + 1] = bytes:sub(1, 1)
  streams[stream] = (streams[stream] or 0) + 1
  task.sleep(0.001)
end })
print(r.sent, table.concat(seen):sub(1, 30), streams.stdout, streams.stderr)
--> 60	abcdefghijklmnopqrstuvwxyzabcd	30	30

--## an_error_in_a_chunk_callback_ends_the_op end=ok
local n = 0
print(pcall(core.call, "test.slow", { chunks = 100 }, { on_chunk = function() n = n + 1 error("enough", 0) end }))
print(n)
--> false	enough
--> 1

--## calls_within_chunk_callbacks end=ok
local inner = 0
local r = core.call("test.slow", { chunks = 5 }, { on_chunk = function()
  inner = inner + core.call("test.slow", { chunks = 2 }, { on_chunk = function() task.yield() end }).sent
end })
print(r.sent, inner)
--> 5	10

--## op_deadlines end=ok
local ok, e = pcall(core.call, "test.slow", { ms = 10000 }, { timeout = 0.01 })
print(ok, e.code)
--> false	timeout

--## events_reach_a_daemon end=ok
core.daemon("events", function()
  core.call("test.events", { count = 3 }, { on_chunk = function(kind, event) print(kind, event.n, event.text) end })
  print("stream over")
end)
core.daemon("sleeper", function() task.sleep(100) print("not here") end)
task.sleep(0.05)
print("main over")
--> event	1	x
--> event	2	x
--> event	3	x
--> stream over
--> main over

--## json_round_trip end=ok
print(json.encode { a = { 1, 2.5, "x" } }, json.encode {}, json.encode(json.decode("[[],{},null]")))
local v = json.decode('{"a":null,"b":[1,null,2],"c":"\\u00e9","d":1e3,"e":12345678901}')
print(v.a == json.null, v.b[2] == json.null, v.c, v.d, v.e)
print(pcall(json.decode, "[1,"))
print((pcall(json.encode, { [1] = 1, x = 2 })))
--> {"a":[1,2.5,"x"]}	{}	[[],{},null]
--> true	true	é	1000	12345678901
--> false	invalid_argument: malformed JSON at byte 3
--> false

--## errors_have_shape end=ok
local e = core.error("not_found", "no such thing", { field = "path", extra = 1 })
print(e, e.code, e.status, e.message, e.field, e.extra, e.retryable, getmetatable(e).__name)
print(pcall(error, e))
--> not_found: no such thing	not_found	404	no such thing	path	1	false	error
--> false	not_found: no such thing

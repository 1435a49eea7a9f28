-- Scripts that look for a place where nobody can interrupt them.

--## an_empty_loop kill=100 end=timeout
while true do end

--## short_coroutines kill=100 end=timeout
while true do coroutine.wrap(function() end)() end

--## short_coroutines_of_c_functions kill=100 end=timeout
while true do coroutine.wrap(os.clock)() end

--## short_coroutines_that_work_in_c kill=100 end=timeout
while true do coroutine.wrap(string.rep)("x", 100000) end

--## coroutines_of_coroutines kill=100 end=timeout
local function deep(n)
  if n > 0 then return coroutine.wrap(deep)(n - 1) end
end
while true do deep(50) end

--## goto_loop kill=100 end=timeout
::again:: goto again

--## many_tasks_that_compute kill=100 end=timeout
for i = 1, 50 do task.spawn(function() while true do end end) end

--## many_tasks_that_yield kill=100 end=timeout
for i = 1, 50 do task.spawn(function() while true do task.yield() end end) end

--## a_task_that_spawns_tasks kill=100 end=timeout
while true do task.spawn(function() end):wait() end

--## pattern_bomb kill=150 end=timeout
string.find(("a"):rep(28), ("a?"):rep(28) .. ("a"):rep(28) .. "b")

--## pattern_bomb_in_gsub kill=150 end=timeout
string.gsub(("a"):rep(40), ("a?"):rep(40) .. ("a"):rep(41), "")

--## pattern_bomb_in_gmatch kill=150 end=timeout
for _ in string.gmatch(("a"):rep(40), ("a?"):rep(40) .. ("a"):rep(41)) do end

--## pattern_bomb_with_balance kill=150 end=timeout
local s = ("("):rep(20000)
while true do string.find(s, "%b()") end

--## table_move kill=150 end=timeout
table.move({}, 1, 1 << 40, 2)

--## table_move_metamethods kill=150 end=timeout
table.move(setmetatable({}, { __index = function() return 1 end }), 1, 1 << 40, 1,
  setmetatable({}, { __newindex = function() end }))

--## rep_of_nothing end=ok
print(#(""):rep(1 << 40), pcall(string.rep, "x", -1))
--> 0	true	

--## insert_with_a_false_len kill=150 end=timeout
table.insert(setmetatable({}, { __len = function() return 1 << 40 end }), 1, "x")

--## remove_with_a_false_len kill=150 end=timeout
table.remove(setmetatable({}, { __len = function() return 1 << 40 end }), 1)

--## sort_with_a_false_order kill=150 end=timeout
local t = {}
for i = 1, 200000 do t[i] = i % 7 end
while true do pcall(table.sort, t, function(a, b) return true end) end

--## concat_of_much kill=150 end=timeout
local t = {}
for i = 1, 100000 do t[i] = "x" end
while true do table.concat(t, ",") end

--## collecting_all_the_time kill=150 end=timeout
local t = {}
for i = 1, 100000 do t[i] = { i } end
while true do collectgarbage() end

--## compiling_much kill=150 end=timeout
local text = ("local x = 1\n"):rep(150) .. ("x = y + 1\n"):rep(50000)
while true do load(text) end

--## formatting_much kill=150 end=timeout
while true do string.format("%99d%99d%99d", 1, 2, 3) end

--## converting_much kill=150 end=timeout
local t = {}
for i = 1, 10000 do t[i] = { i } end
while true do json.decode(json.encode(t)) end

--## printing_much kill=100 end=timeout
local s = setmetatable({}, { __tostring = function() return "" end })
local p = print
while true do tostring(s) end

--## warnings_much kill=100 end=timeout
while true do warn("@x") end

--## errors_much kill=100 end=timeout
while true do pcall(error, {}) end

--## errors_in_handlers kill=100 end=timeout
while true do xpcall(error, function(e) error(e) end, "x") end

--## closing_chains kill=700 end=timeout
local function chain(n)
  local inner
  for i = 1, n do
    local before = inner
    inner = coroutine.create(function()
      local x <close> = setmetatable({}, { __close = function()
        if before then assert(coroutine.close(before)) end
      end })
      coroutine.yield()
    end)
    coroutine.resume(inner)
  end
  return inner
end
print(coroutine.close(chain(5)))
local ok, e = coroutine.close(chain(10000))
print(ok, tostring(e):match("C stack overflow"))
while true do coroutine.close(chain(100)) end
--> true
--> false	C stack overflow

--## depth mem=128 end=ok
local function down() return 1 + down() end
print(pcall(down) == false)
local function pdown(n) local ok, e = pcall(pdown, n + 1) if not ok then error(e, 0) end end
print(pcall(pdown, 1) == false)
local function cdown() return coroutine.wrap(cdown)() end
print((select(2, pcall(cdown)):match("C stack overflow")))
local t = setmetatable({}, {})
getmetatable(t).__index = t
print(pcall(function() return t.x end) == false)
getmetatable(t).__tostring = function(x) return tostring(x) end
print((select(2, pcall(tostring, t)):match("C stack overflow")))
local s = ("("):rep(100000)
print((load("return " .. s)))
print(pcall(string.rep, "x", 1 << 50))
print(pcall(json.encode, (function() local x = {} for i = 1, 100 do x = { x } end return x end)()))
--> true
--> true
--> C stack overflow
--> true
--> C stack overflow
--> nil
--> false	resulting string too large
--> false	invalid_argument: [1][1][1][1][1][1][1][1][1][1][1][1][1][1][1][1][1][1][1][1][1]: nested more than 32 deep

--## deep_tasks end=ok
local function down(n) if n > 0 then return task.spawn(down, n - 1):wait() end return "bottom" end
print(down(2000))
--> bottom

--## coroutine_of_a_task_is_not_for_scripts end=ok
local co
local t = task.spawn(function() co = coroutine.running() task.sleep(0.01) return "slept" end)
task.yield()
print(coroutine.status(co), coroutine.resume(co))
print(pcall(coroutine.close, co))
print(t:wait())
print(pcall(coroutine.yield))
print(coroutine.isyieldable(), select(2, coroutine.running()))
--> normal	false	cannot resume non-suspended coroutine
--> false	cannot close a normal coroutine
--> slept
--> false	attempt to yield from outside a coroutine (task.yield gives others a turn)
--> false	true

--## a_blocked_coroutine_belongs_to_its_task end=ok
local co = coroutine.create(function() task.sleep(0.02) coroutine.yield("own") return "end" end)
local t = task.spawn(function() return coroutine.resume(co) end)
task.sleep(0.005)
print(coroutine.status(co), coroutine.resume(co))
print(pcall(coroutine.close, co))
print(t:wait())
print(coroutine.status(co), coroutine.resume(co))
print(coroutine.status(co), coroutine.resume(co))
--> normal	false	cannot resume non-suspended coroutine
--> false	cannot close a normal coroutine
--> true	own
--> suspended	true	end
--> dead	false	cannot resume dead coroutine

--## a_host_yield_does_not_leak end=ok
local function inner() task.sleep(0.005) task.yield() return coroutine.yield("mine") end
local co = coroutine.create(function() return "out", coroutine.wrap(inner)() end)
print(coroutine.resume(co))
local w = coroutine.wrap(function() for i = 1, 3 do task.sleep(0.002) coroutine.yield(i) end end)
print(w(), w(), w())
for i = 1, 300000 do end
local n = 0
for v in coroutine.wrap(function() for i = 1, 200000 do coroutine.yield(i) end end) do n = n + v end
print(n)
--> true	out	mine
--> 1	2	3
--> 20000100000

-- Scripts that want more memory than they have.

--## table_bomb mem=16 end=limit err=memory
local t = {}
for i = 1, math.huge do t[i] = i end

--## table_bomb_in_pcall mem=16 end=limit err=memory
while true do pcall(function() kept = kept or {} while true do kept[#kept + 1] = {} end end) end

--## string_doubling mem=16 end=limit err=memory
local s = "x"
while true do s = s .. s end

--## string_doubling_in_pcall mem=16 end=limit err=memory
local s = "x"
while true do pcall(function() s = s .. s end) end

--## one_huge_string_is_an_ordinary_error mem=16 end=ok
print(pcall(string.rep, "x", 1 << 30) == false)
print(pcall(string.rep, "x", 1 << 30) == false)
local s = ("x"):rep(1 << 20)
print(#s)
--> true
--> true
--> 1048576

--## one_huge_concatenation_is_an_ordinary_error mem=16 end=ok
local s = ("x"):rep(4 << 20)
local code = "local s = ... return " .. ("s.."):rep(150) .. "s"
print(pcall(load(code), s))
print(#s)
--> false	not enough memory
--> 4194304

--## the_collector_cannot_be_stopped mem=16 end=ok
collectgarbage("stop")
collectgarbage("setpause", 1000000)
collectgarbage("generational")
for i = 1, 300000 do local t = { i, tostring(i) } end
print(collectgarbage("count") < 16 * 1024, collectgarbage("isrunning"))
--> true	true

--## garbage_is_no_crime mem=16 end=ok
for i = 1, 200 do local s = ("x"):rep(1 << 20) .. i end
for i = 1, 40 do local s = ("x"):rep(5 << 20) .. i end
print "fine"
--> fine

--## closures_and_coroutines mem=16 end=limit err=memory
local t = {}
while true do t[#t + 1] = coroutine.wrap(function() coroutine.yield() end) t[#t]() end

--## tasks mem=16 end=limit err=memory
while true do task.spawn(task.sleep, 10) end

--## many_string_keys mem=16 end=limit err=memory
local t = {}
for i = 1, math.huge do t["key " .. i] = true end

--## weak_keys_and_chained_metatables mem=16 end=limit err=memory
local top = setmetatable({}, { __mode = "k" })
local chain = {}
for i = 1, 1000 do
  local mt = setmetatable({}, { __mode = "k" })
  chain[i] = setmetatable({ [mt] = chain[i - 1] }, mt)
  top[chain[i]] = mt
end
local s = "x"
while true do
  pcall(function()
    s = s .. s .. s
    top[setmetatable({}, top)] = s .. "y"
  end)
end

--## memory_in_cleanup mem=16 end=limit err=memory
local x <close> = setmetatable({}, { __close = function() local t = {} for i = 1, math.huge do t[i] = i end end })
local t = {}
for i = 1, math.huge do t[i] = i end

--## cleanup_after_the_limit_works mem=16 end=limit err=memory
local x <close> = setmetatable({}, { __close = function(_, e) print("closing", e.code) task.sleep(0.005) print("closed") end })
on_exit(function(why) print("exit", why.kind) end)
local t = {}
for i = 1, math.huge do t[i] = i end
--> closing	limit
--> closed
--> exit	limit

--## in_a_place_that_cannot_yield mem=16 end=limit err=memory
tostring(setmetatable({}, { __tostring = function() local t = {} for i = 1, math.huge do t[i] = i end end }))

--## big_results mem=16 end=ok
local big = ("x"):rep(3 << 20)
for i = 1, 20 do assert(#core.call("test.echo", { data = big }).data == 3 << 20) end
print "fine"
--> fine

--## results_that_do_not_fit mem=16 end=ok
local big = ("x"):rep(6 << 20)
local ok, e = pcall(core.call, "test.echo", { a = big, b = big })
print(ok, (tostring(e):gsub(":.*", "")))
print(core.call("test.echo", { a = 1 }).a)
--> false	not enough memory
--> 1

--## buffers mem=16 end=ok
print((pcall(table.concat, (function() local t, s = {}, ("x"):rep(1 << 20) for i = 1, 100 do t[i] = s end return t end)())))
--> false

--## arguments_in_flight_count mem=16 end=limit err=memory
local big = ("x"):rep(1 << 20)
for i = 1, 100 do task.spawn(pcall, core.call, "test.slow", { ms = 100, data = big }) end
while true do task.sleep(0.01) kept = { kept, ("y"):rep(100000) } end

--## arguments_that_do_not_fit mem=16 end=ok
local big = ("x"):rep(6 << 20)
local ok, e = pcall(core.call, "test.echo", { big, big })
print(ok, (tostring(e):gsub(":.*", "")))
--> false	not enough memory

--## chunks_in_queues_count mem=16 end=limit err=memory
local stuck = {}
for i = 1, 200 do
  task.spawn(core.call, "test.slow", { chunks = 8, size = 65536 }, { on_chunk = function() task.sleep(100) end })
end

--## json_of_very_many_values mem=16 end=ok
print((pcall(json.decode, "[" .. ("0,"):rep(2 << 20) .. "0]")))
print(#json.decode("[" .. ("0,"):rep(50000) .. "0]"))
--> false
--> 50001

--## stopped_inside_a_chunk_callback mem=16 end=limit err=memory
local function bomb() local t = {} for i = 1, math.huge do t[i] = i end end
for _, op in ipairs { "test.events", "test.slow" } do
  task.spawn(pcall, core.call, op, { count = 3, chunks = 3 }, { on_chunk = function()
    tostring(setmetatable({}, { __tostring = function()
      local x <close> = setmetatable({}, { __close = bomb })
      bomb()
    end }))
  end })
end

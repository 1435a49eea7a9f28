-- What is not there, or not allowed, and says so.

--## bytecode end=ok
print(load("\27Lua"))
print(load("return 1", "x", "b"))
print(load(function() return nil end)())
print(pcall(string.dump, print))
print(load("return 1 +"))
print(load("return ...", "=name", "t", {})(5))
print(pcall(load, function() return {} end))
--> nil	attempt to load a binary chunk (scripts load text only)
--> nil	attempt to load a text chunk (mode is 'b')
--> 
--> false	unsupported: string.dump is not available in scripts (send source text, and load() it)
--> nil	[string "return 1 +"]:1: unexpected symbol near <eof>
--> 5
--> false	reader function must return a string

--## removed_names end=ok
for _, f in ipairs { io.popen, io.tmpfile, os.execute, os.exit, os.remove, os.rename, os.tmpname,
                     debug.getinfo, debug.traceback, debug.sethook, package.loadlib } do
  local ok, e = pcall(f)
  assert(not ok and e.code == "unsupported" and #e.hint > 10)
  print(e.message)
end
--> io.popen is not available in scripts
--> io.tmpfile is not available in scripts
--> os.execute is not available in scripts
--> os.exit is not available in scripts
--> os.remove is not available in scripts
--> os.rename is not available in scripts
--> os.tmpname is not available in scripts
--> debug.getinfo is not available in scripts
--> debug.traceback is not available in scripts
--> debug.sethook is not available in scripts
--> package.loadlib is not available in scripts

--## kept_names end=ok
for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawlen",
    "rawset", "require", "select", "setmetatable", "getmetatable", "tonumber", "tostring", "type", "warn",
    "xpcall", "load", "loadfile", "dofile", "collectgarbage", "print" } do
  if type(_G[name]) ~= "function" then print("lost", name) end
end
for lib, names in pairs {
  string = "byte char find format gmatch gsub len lower match pack packsize rep reverse sub unpack upper",
  table = "concat insert move pack remove sort unpack",
  math = "abs ceil floor fmod huge max min pi random sqrt tointeger type ult",
  utf8 = "char charpattern codepoint codes len offset",
  coroutine = "close create isyieldable resume running status wrap yield",
  os = "clock date difftime getenv time", io = "lines open read type write stdout stderr",
} do
  for name in names:gmatch("%S+") do
    if _G[lib][name] == nil then print("lost", lib, name) end
  end
end
print(_VERSION, math.type(os.time()), type(os.date()), os.getenv("HOME"), env("HOME"), os.getenv("GIVEN"))
--> Lua 5.4	integer	string	nil	nil	yes

--## globals_are_there end=ok
print(type(task), type(json), type(log), type(args), arg == args, type(retry), type(on_exit), type(progress), undefined_name)
print(require("task") == task, require("json") == json, package.loaded.task == nil)
print(pcall(require, "regolith.core"))
print(getmetatable(_G))
--> table	table	table	table	true	function	function	function	nil
--> true	true	true
--> false	not_found: module 'regolith.core' was not found (embedded modules are task, sandbox and json; others are looked for beside the script, as regolith.core.lua)
--> false

--## nothing_blocks_where_lua_cannot_yield end=ok
local g = task.group()
local sleeper = task.spawn(function() task.sleep(0.2) end)
local waited = task.spawn(function() task.sleep(0.2) end)
local full = task.group { limit = 1 }
full:spawn(task.sleep, 0.2)
g:spawn(task.sleep, 0.2)
local calls = {
  sleep = function() task.sleep(0.01) end,
  yield = function() task.yield() end,
  wait = function() waited:wait() end,
  call = function() core.call("test.slow", { ms = 1 }) end,
  group = function() g:wait() end,
  spawn = function() full:spawn(print) end,
  map = function() task.map({ 1 }, function() end) end,
  timeout = function() task.timeout(1, function() end) end,
}
local function suspended(f)
  local co = coroutine.create(function()
    local x <close> = setmetatable({}, { __close = f })
    coroutine.yield()
  end)
  coroutine.resume(co)
  return co
end
local places = {
  tostring = function(f) return tostring(setmetatable({}, { __tostring = f })) end,
  print = function(f) return print(setmetatable({}, { __tostring = f })) end,
  format = function(f) return string.format("%s", setmetatable({}, { __tostring = f })) end,
  handler = function(f)
    local seen
    xpcall(error, function() seen = select(2, pcall(f)) end, "x")
    error(seen, 0)
  end,
  close = function(f) local _, e = coroutine.close(suspended(f)) error(e, 0) end,
  nested = function(f)
    return tostring(setmetatable({}, { __tostring = function() return coroutine.wrap(f)() end }))
  end,
}
local bad = 0
for place, run in pairs(places) do
  for name, call in pairs(calls) do
    local ok, e = pcall(run, call)
    if ok or type(e) ~= "table" or e.code ~= "unsupported" or not e.message:find("cannot block here", 1, true) then
      print(place, name, ok, e)
      bad = bad + 1
    end
  end
end
print(bad, "went wrong")
--> 0	went wrong

--## blocking_works_everywhere_else end=ok
local function slow(v) task.sleep(0.002) return v end
local mt = setmetatable({}, {
  __index = function(_, k) return slow(k) end, __newindex = function() slow() end,
  __call = function(_, v) return slow(v) end, __add = function() return slow("add") end,
  __eq = function() return slow(true) end, __lt = function() return slow(true) end,
  __len = function() return slow(7) end, __concat = function() return slow("cat") end,
})
mt.x = 1
print(mt.key, mt("call"), mt + 1, mt == setmetatable({}, getmetatable(mt)), mt < mt, #mt, mt .. "")
local t = { 3, 1, 2 }
table.sort(t, function(a, b) return slow(a < b) end)
print(table.concat(t, " "), (("abc"):gsub(".", function(c) return slow(c:upper()) end)))
for i in function(_, i) return slow((i or 0) < 2 and (i or 0) + 1 or nil) end do io.write(i, " ") end
print(pcall(slow, "pcall"), xpcall(slow, print, "xpcall"))
print(load(coroutine.wrap(function() coroutine.yield("return ") coroutine.yield(slow("'loaded'")) end))())
print(select("#", table.unpack(task.map({ 1, 2 }, slow))))
--> key	call	add	true	true	7	cat
--> 1 2 3	ABC
--> 1 2 true	true	xpcall
--> loaded
--> 2

--## arguments_that_cannot_be_sent end=ok
local function try(v) local ok, e = pcall(core.call, "test.echo", v) print(e.code, e.field, e.message) end
local loop = {}
loop.self = { loop }
try { f = print }
try { a = { b = { 1, 2, { c = coroutine.create(print) } } } }
try { 1, 2, x = 3 }
try { [1] = 1, [3] = 3 }
try { [1.5] = 1 }
try { [true] = 1 }
try(loop)
try { ["a\0b"] = 1 }
try { list = { 1, nil, 3, [100] = 1 } }
--> invalid_argument	f	f: a function cannot be sent; strings, numbers, booleans and tables can
--> invalid_argument	a.b[3].c	a.b[3].c: a thread cannot be sent; strings, numbers, booleans and tables can
--> invalid_argument	nil	a list and named fields in one table
--> invalid_argument	nil	a list with holes (nil values in it)
--> invalid_argument	nil	keys have to be names, or 1, 2, 3 … for a list
--> invalid_argument	nil	keys have to be names, or 1, 2, 3 … for a list
--> invalid_argument	self[1]	self[1]: a table that contains itself
--> invalid_argument	nil	a name with a zero byte in it
--> invalid_argument	list	list: a list with holes (nil values in it)

--## files_need_a_grant end=ok
print(io.open("/etc/passwd"))
print(pcall(io.lines, "/etc/passwd"))
print(loadfile("/etc/passwd"))
print(pcall(dofile, "x.lua"))
print(io.open("../../etc/passwd", "w"))
--> nil	/etc/passwd: Permission denied: the script was not granted this folder	13
--> false	/etc/passwd: Permission denied: the script was not granted this folder
--> nil	/etc/passwd: Permission denied: the script was not granted this folder
--> false	x.lua: Permission denied: the script was not granted this folder
--> nil	../../etc/passwd: Permission denied: the script was not granted this folder	13

--## deadlock end=error err=deadlock
local a, b
a = task.spawn(function() task.yield() b:wait() end)
b = task.spawn(function() a:wait() end)
a:wait()

--## waiting_for_oneself end=ok
print(pcall(function() core.wait(core.current()) end))
local main = core.current()
local t = task.spawn(function() return select(2, pcall(core.wait, main)).message end)
print(t:wait())
--> false	invalid_argument: a task cannot wait for itself: it would wait forever
--> a task cannot wait for a task that waits for it in turn: it would wait forever

-- Scripts that mean harm, or merely never end, beside an innocent one with a real sandbox. The
-- innocent one must finish while the others still run, whatever they do; the others must end as
-- they deserve. All in workers, in process, and in the workers of an ordinary user.
--
-- How late the innocent one may ever be is bounded in processor time by spec/c/test_traps.c, and
-- relative to its time alone by fairness_spec. Here nothing is measured: the machine may be slow.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local users = require "spec.support.user"

-- Sleeps, creates and runs commands for a third of a second.
local INNOCENT = [[
local sandbox, task = require "sandbox", require "task"
local sb <close> = sandbox.create {}
for i = 1, 6 do
  task.sleep(0.05)
  if i % 3 == 0 then assert(sb:exec({ "echo", "x" }).stdout == "x\n") end
end
assert(("x"):rep(3) == "xxx" and ("abc"):upper() == "ABC" and #table.pack(1, 2) == 2)
print "finished"
log.warn "finished" -- where stdout is flooded
]]

local FINISHED = "innocent%S*| [%a: ]*finished"

local MODES = {
  { name = "in workers" },
  { name = "in process", trust = true },
  { name = "in workers of an ordinary user", user = true },
}
local mode, user -- those of the test that runs

-- Starts the sources, with the innocent script beside them unless `alone`.
local function start(sources, args, alone)
  local dir = files.dir "trap"
  local argv = { "run", table.unpack(args) }
  if mode.trust then table.insert(argv, 2, "--trust") end
  for i, text in ipairs(sources) do
    argv[#argv + 1] = files.write(("%s/trap%d.lua"):format(dir, i), text)
  end
  if not alone then argv[#argv + 1] = files.write(dir .. "/innocent.lua", INNOCENT) end
  if user then return user:start(argv) end
  return proc.cli_start(argv)
end

-- Runs the sources beside the innocent script to their own end, which it must reach, too. Returns
-- the result of the run.
local function beside(sources, args)
  local r = start(sources, args or {}):wait(120)
  if not (r.stdout:match(FINISHED) or r.stderr:match(FINISHED)) then
    local said = r.stdout:sub(-2000) .. r.stderr:sub(-2000)
    error("the innocent script did not finish:\n" .. said, 2)
  end
  return r
end

-- Runs the sources until the innocent script has finished and all of `said` has been said; then
-- they are told to end, which they must. Returns the result of the run.
local function outlast(sources, args, said)
  local p = start(sources, args or { "--grace", "100ms" })
  p:expect(FINISHED, 100)
  for _, pattern in ipairs(said or {}) do p:expect(pattern, 100) end
  p:kill "INT"
  local r = p:wait(60)
  assert.equal(130, r.status, r.stderr:sub(-2000))
  return r
end

-- Loops that swallow a kill wherever they can, by name.
local ENDLESS = {
  ["a plain loop"] = "while true do end",
  ["pcall in a loop"] = "while true do pcall(function() while true do end end) end",
  ["pcall of pcall"] = "while true do pcall(pcall, pcall, function() while true do end end) end",
  ["error objects that refuse to be looked at"] = [[
    local evil = setmetatable({}, { __index = error, __tostring = error, __eq = error })
    while true do pcall(function() while true do error(evil) end end) end]],
  ["an xpcall handler that loops"] = [[
    while true do xpcall(function() while true do end end, function() while true do end end) end]],
  ["an xpcall handler that fails"] = [[
    while true do xpcall(function() error "x" end, function() error "y" end) end]],
  ["a load reader"] = "while true do pcall(load, function() while true do end end) end",
  ["a load reader that feeds for ever"] = [[
    while true do pcall(load, function() return "x = 1 " end) end]],
  ["a loop in a coroutine"] = [[
    while true do pcall(coroutine.wrap(function() while true do pcall(function()
      while true do end end) end end)) end]],
  ["coroutines in coroutines"] = [[
    local function nest(n)
      return coroutine.wrap(function()
        if n == 0 then while true do end end
        while true do pcall(nest(n - 1)) end
      end)
    end
    while true do pcall(nest(20)) end]],
  ["a comparison function of sort"] = [[
    local t = {}
    for i = 1, 50 do t[i] = i end
    while true do pcall(table.sort, t, function() while true do end end) end]],
  ["pcall in a comparison function of sort"] = [[
    local t = {}
    for i = 1, 50 do t[i] = i end
    while true do pcall(table.sort, t, function(a, b)
      pcall(function() while true do end end) return a < b end) end]],
  ["a gsub callback"] = [[
    while true do pcall(string.gsub, ("x"):rep(100), "x", function() while true do end end) end]],
  ["pcall in a gsub callback"] = [[
    while true do pcall(string.gsub, ("x"):rep(100), "x", function()
      pcall(function() while true do end end) end) end]],
  ["short coroutines, none of which fills its slice"] = [[
    while true do
      local co = coroutine.wrap(function() for i = 1, 100 do coroutine.yield(i) end end)
      for i = 1, 100 do co() end
    end]],
  ["tasks that spawn tasks"] = [[
    local task = require "task"
    local function breed() task.spawn(breed) while true do pcall(task.yield) end end
    for _ = 1, 20 do task.spawn(function() while true do pcall(task.yield) end end) end
    while true do pcall(task.sleep, 0) end]],
  ["metamethods"] = [[
    local m = setmetatable({}, { __index = function() while true do end end,
      __lt = function() while true do end end, __concat = function() while true do end end })
    while true do pcall(function() return m.x end) pcall(function() return m < m end) end]],
  ["a pattern that backtracks"] = [[
    local s = ("a"):rep(28)
    while true do pcall(string.find, s, ("a?"):rep(28) .. s) end]],
  ["a pattern of many wild cards"] = [[
    local s = ("a"):rep(5000)
    while true do pcall(string.find, s, ".-.-.-.-.-b") end]],
  ["gmatch over nothing"] = [[
    while true do for _ in ("x"):rep(1000):gmatch "()" do end end]],
  ["table.move of a great range"] = [[
    while true do pcall(table.move, {}, 1, 1e8, 2) end]],
  ["table.move between proxies"] = [[
    local p = setmetatable({}, { __index = function() return 1 end, __newindex = function() end })
    while true do pcall(table.move, p, 1, math.maxinteger - 1, 1, p) end]],
  ["string.rep of nothing"] = [[
    while true do pcall(string.rep, "", 1e9) pcall(string.rep, "", math.maxinteger) end]],
  ["table.insert with a false length"] = [[
    local t = setmetatable({}, { __len = function() return 1e8 end })
    while true do pcall(table.insert, t, 1, "x") pcall(table.remove, t, 1) end]],
  ["table.concat and unpack with false lengths"] = [[
    local t = setmetatable({}, { __len = function() return 1e9 end,
      __index = function() return "" end })
    while true do pcall(table.concat, t) pcall(table.unpack, t, 1, 1e6) end]],
  ["a sort that is never in order"] = [[
    local t = {}
    for i = 1, 200000 do t[i] = i * 7919 % 200003 end
    while true do pcall(table.sort, t, function(a, b) return (a * b) % 3 == 1 end) end]],
  ["string building"] = [[
    local s = ("x"):rep(100000)
    while true do local _ = s:reverse():upper():lower() .. s:byte(1) .. s:sub(2) end]],
  ["utf8 and string.format"] = [[
    local s = ("ä"):rep(100000)
    while true do pcall(utf8.len, s) pcall(string.format, "%s%q", s, s) end]],
  ["json both ways"] = [[
    local json = require "json"
    local t = {}
    for i = 1, 20000 do t[i] = { i, tostring(i) } end
    while true do json.decode(json.encode(t)) end]],
  ["goto"] = "::top:: goto top",
  ["math"] = "local x = 0 while true do x = math.random(1 << 30) // 3 % 7 end",
  ["collectgarbage"] = "while true do collectgarbage() collectgarbage 'step' end",
  ["a closed-over for loop"] = [[
    for i = 1, math.huge do local f = function() return i end f() end]],
}

-- Where the innocent script's own words are hard to find.
local FLOODS = {
  "while true do print(('x'):rep(1000)) end",
  "while true do log.info(('x'):rep(1000)) end",
}

local names = {}
for name in pairs(ENDLESS) do names[#names + 1] = name end
table.sort(names)

-- fn(sources, names) for each `n` of ENDLESS.
local function in_parts(n, fn)
  for i = 1, #names, n do
    local some = table.move(names, i, math.min(i + n - 1, #names), 1, {})
    local sources = {}
    for k, name in ipairs(some) do sources[k] = ENDLESS[name] end
    fn(sources, table.concat(some, ", "))
  end
end

for _, each in ipairs(MODES) do
  describe("beside an innocent script, " .. each.name .. ",", function()
    local before
    setup(function()
      mode = each
      user = each.user and users.make(true)
      before = leftovers.before()
    end)
    teardown(function()
      if user then user:remove() end
      user = nil
      files.clean()
      leftovers.none_since(before, 5)
    end)

    local function test(name, fn)
      it(name, function()
        if each.user and not user then return pending(users.no_users) end
        fn()
      end)
    end

    in_parts(9, function(sources, called)
      test("it finishes while the others run: " .. called, function() outlast(sources) end)
    end)

    -- Some are found out before: by their memory, or by what they do where nothing can yield.
    in_parts(9, function(sources, called)
      test("the others end at their time-out: " .. called, function()
        local r = start(sources, { "--timeout", "700ms", "--grace", "200ms" }, true):wait(60)
        assert.is_true(r.status == 124 or r.status == 1, tostring(r.status))
        for i in ipairs(sources) do
          local why = r.stderr:match(("trap%d%%.lua[^\n]*: ([^\n]+)"):format(i))
          assert.is_truthy(why and (why:find "ran out of time" or why:find "MiB of memory"
            or why:find "50 ms"), ("trap %d: %s"):format(i, r.stderr:sub(-2000)))
        end
      end)
    end)

    test("floods of output end at their time-out", function()
      local r = start(FLOODS, { "--timeout", "1s" }, true):wait(60)
      assert.equal(124, r.status)
      local _, ended = r.stderr:gsub("trap%d%.lua: ran out of time", "")
      assert.equal(2, ended)
    end)

    test("cleanup that hangs gets the grace period and no more", function()
      local r = outlast({
        [[local c <close> = setmetatable({}, { __close = function() while true do end end })
          print "asleep"
          require("task").sleep(60)]],
        [[local c <close> = setmetatable({}, { __close = function()
            while true do pcall(require("task").sleep, 60) end end })
          require("task").sleep(60)]],
        [[on_exit(function() while true do pcall(function() while true do end end) end end)]],
        [[local task = require "task"
          on_exit(function() task.sleep(100) end)
          coroutine.wrap(function()
            local c <close> = setmetatable({}, { __close = function()
              coroutine.yield() while true do end end })
            task.sleep(60)
          end)()]],
      }, { "--grace", "1s" }, { "asleep" })
      assert.is_true(r.duration_ms >= 1000)
    end)

    test("__close that fails, or replaces the error, or yields, changes nothing but the error",
      function()
      local r = beside({ [[
        local task = require "task"
        local function closing(fn) return setmetatable({}, { __close = fn }) end
        print(pcall(function()
          local a <close> = closing(function() error("second", 0) end)
          error("first", 0)
        end))
        print(pcall(function()
          local a <close> = closing(function(_, e) task.sleep(0.01) error("seen " .. tostring(e),
            0) end)
          local b <close> = closing(function() task.sleep(0.01) error("inner", 0) end)
          error("first", 0)
        end))
        local co = coroutine.wrap(function()
          local a <close> = closing(function() task.sleep(0.01) coroutine.yield "from close" end)
          return "body"
        end)
        print(co())
        print(co())
      ]] })
      assert.equal(0, r.status)
      expect.contains(r.stdout, "false\tsecond")
      expect.contains(r.stdout, "false\tseen inner")
      expect.contains(r.stdout, "from close")
      expect.contains(r.stdout, "body")
    end)

    test("__close runs when a kill comes, in nested coroutines too, and may block", function()
      local r = outlast({ [[
        local task = require "task"
        local function closing(name)
          return setmetatable({}, { __close = function() task.sleep(0.02) print("closed "
            .. name) end })
        end
        local outer <close> = closing "outer"
        task.spawn(function()
          local inner <close> = closing "task"
          coroutine.wrap(function()
            local deep <close> = closing "coroutine"
            print "asleep"
            task.sleep(60)
          end)()
        end)
        task.sleep(60)
      ]] }, {}, { "asleep" })
      for _, name in ipairs { "outer", "task", "coroutine" } do
        expect.contains(r.stdout, "closed " .. name)
      end
    end)

    test("coroutines that are suspended at the end do not hold it up", function()
      local r = beside({ [[
        local all = {}
        for i = 1, 1000 do
          all[i] = coroutine.create(function()
            local c <close> = setmetatable({}, { __close = function() while true do end end })
            coroutine.yield()
          end)
          coroutine.resume(all[i])
        end
        print "end of script"
      ]] })
      assert.equal(0, r.status)
      expect.contains(r.stdout, "end of script")
    end)

    test("a blocking call inside coroutines blocks the task and never leaks its yield", function()
      local r = beside({ [[
        local task = require "task"
        local sandbox = require "sandbox"
        local sb <close> = sandbox.create {}
        local co = coroutine.create(function(a)
          task.sleep(0.01)
          local b = coroutine.yield(a + 1)
          local inner = coroutine.wrap(function()
            local out = sb:exec({ "echo", "hi" }).stdout
            coroutine.yield(out)
            task.sleep(0.01)
            return "inner end"
          end)
          local x = inner()
          local y = inner()
          return b, x, y
        end)
        print(coroutine.resume(co, 1))
        print(coroutine.status(co))
        print(coroutine.resume(co, "b"))
        print(coroutine.status(co))
      ]] })
      assert.equal(0, r.status)
      expect.contains(r.stdout, "true\t2\n")
      expect.contains(r.stdout, "true\tb\thi\n")
      expect.contains(r.stdout, "inner end")
      expect.contains(r.stdout, "dead")
    end)

    test("blocking where Lua cannot yield is an error, not a hang", function()
      local r = beside({ [[
        local task, sandbox = require "task", require "sandbox"
        local sb <close> = sandbox.create {}
        local calls = {
          sleep = function() task.sleep(0.01) end,
          exec = function() sb:exec { "true" } end,
          create = function() sandbox.create {} end,
          status = function() sb:status() end,
          wait = function() task.spawn(function() task.sleep(0.01) end):wait() end,
        }
        for name, call in pairs(calls) do
          local places = {
            tostring = function() tostring(setmetatable({},
              { __tostring = function() call() return "x"
              end })) end,
            handler = function() xpcall(error, function() call() end) end,
            reader = function()
              local f, e = load(function() call() end)
              if not f then error(e, 0) end
            end,
          }
          for place, fn in pairs(places) do
            local ok, e = pcall(fn)
            print(("%s in %s: %s"):format(name, place, ok and "returned" or tostring(e)))
          end
        end
        -- And where it can:
        local t = { 3, 1, 2 }
        table.sort(t, function(a, b) task.sleep(0.001) return a < b end)
        print(table.concat(t), (("abc"):gsub("%w",
          function(c) task.sleep(0.001) return c:upper() end)))
        local m = setmetatable({}, { __index = function(_, k) task.sleep(0.001) return k end })
        print(m.indexed)
      ]] })
      assert.equal(0, r.status)
      expect.contains(r.stdout, "123\tABC")
      expect.contains(r.stdout, "indexed")
      local n = 0
      for place, what in r.stdout:gmatch "in (%a+): ([^\n]+)" do
        n = n + 1
        if place == "tostring" then expect.contains(what, "cannot block here") end
      end
      assert.equal(15, n)
    end)

    test("depth of every kind is an error of that script alone", function()
      local r = beside({ [[
        local json = require "json"
        local function down(n) return 1 + down(n + 1) end
        print("recursion", (pcall(down, 1)))
        local function pdown() return pcall(pdown) end
        print("pcall", (pcall(pdown)))
        local function cdown() return coroutine.wrap(cdown)() end
        print("coroutine", (pcall(cdown)))
        print("gsub", pcall(function()
          local function g() return ("x"):gsub("x", g) end
          return g()
        end))
        print("brackets", load(("("):rep(100000)))
        print("pattern", pcall(string.find, "x", ("(x"):rep(1000)))
        local t = {}
        for _ = 1, 100000 do t = { t } end
        print("json", (pcall(json.encode, t)))
        print("json text", (pcall(json.decode, ("["):rep(100000))))
        local m = {}
        for _ = 1, 100000 do m = setmetatable({}, { __index = m }) end
        print("metatables", (pcall(function() return m.x end)))
        local s = setmetatable({}, {})
        getmetatable(s).__index = s
        print("self", (pcall(function() return s.x end)))
        print("concat", (pcall(function()
          local e = setmetatable({}, { __concat = function(a, b) return a .. b end })
          return e .. e
        end)))
        print "through"
      ]] })
      assert.equal(0, r.status)
      expect.contains(r.stdout, "through")
      expect.contains(r.stdout, "recursion\tfalse")
      expect.contains(r.stdout, "coroutine\tfalse")
      expect.contains(r.stdout, "json\tfalse")
      expect.contains(r.stdout, "json text\tfalse")
    end)

    test("30,000 coroutines that close one another end in an error, not in a crash", function()
      local r = beside({ [[
        local function make(i)
          local co = coroutine.create(function()
            local next_co = i > 0 and make(i - 1)
            local c <close> = setmetatable({}, { __close = function()
              if next_co then coroutine.close(next_co) end
            end })
            if next_co then coroutine.resume(next_co) end
            coroutine.yield()
          end)
          return co
        end
        print(pcall(function()
          local last
          for i = 1, 30000 do
            local inner = last
            last = coroutine.create(function()
              local c <close> = setmetatable({}, { __close = function()
                if inner then coroutine.close(inner) end
              end })
              coroutine.yield()
            end)
            coroutine.resume(last)
          end
          return coroutine.close(last)
        end))
        print "alive"
      ]] }, { "--memory", "256MiB" })
      expect.contains(r.stdout, "alive")
      assert.is_nil(r.signal)
    end)

    test("memory: over the cap the script ends, whatever it catches", function()
      local mortal, said = 6, {}
      local traps = {
        [[local t = {} while true do pcall(function() while true do t[#t + 1] = {} end end) end]],
        [[local t = {} while true do pcall(table.move, { 1 }, 1, 1, #t + 1, t) t[#t + 1] = #t end]],
        [[local function f(t) return setmetatable({ t }, { __mode = "k" }) end
          local t = {} while true do pcall(function() t = f(t) t[t] = t end) end]],
        [[local s = "x" while true do pcall(function() s = s .. s end) local t = { s:rep(3) } end]],
        [[local co = {} while true do pcall(function()
            co[#co + 1] = coroutine.create(function() end) end) end]],
        [[local t = {} while true do pcall(function() t = { t, setmetatable({}, { __mode = "k" }) }
            t[2][t] = t[1] end) end]],
        -- These two never pass it: what they ask for is refused, or collected.
        [[collectgarbage "stop" while true do local _ = { {}, {} } end]],
        [[local t = {} while true do pcall(function() t[#t + 1] = ("x"):rep(1e6) .. #t end) end]],
      }
      for i = 1, mortal do said[i] = ("trap%d%%.lua[^\n]*: [^\n]*MiB"):format(i) end
      local r = outlast(traps, { "--grace", "100ms", "--memory", "32MiB" }, said)
      assert.is_nil(r.signal)
    end)

    test("one huge allocation is an ordinary error", function()
      local r = beside({ [[
        print(pcall(string.rep, "x", 1e9))
        print(pcall(string.rep, "x", math.maxinteger))
        local y = ("y"):rep(1e7)
        print(pcall(table.concat, { y, y, y, y, y, y, y, y, y, y }))
        print "still here"
      ]] }, { "--memory", "64MiB" })
      assert.equal(0, r.status)
      expect.contains(r.stdout, "still here")
      expect.contains(r.stdout, "false\t")
    end)

    test("bytecode is refused by every way in", function()
      local code = string.dump(function() return "ran" end)
      local quoted = ("%q"):format(code)
      local r = beside({ ([[
        local code = %s
        print("load", load(code))
        print("mode b", load(code, "x", "b"))
        print("reader", load(function() local c = code code = nil return c end))
        print("dump", pcall(string.dump, print))
      ]]):format(quoted) })
      for line in r.stdout:gmatch "trap[^\n]*| ([^\n]+)" do
        assert.is_truthy(line:find "^%a+ ?%a?\tnil\t" or line:find "^dump\tfalse\t", line)
      end
      expect.contains(r.stdout, "load\t")
    end)

    test("__gc cannot be set", function()
      local r = beside({ [[
        print(pcall(setmetatable, {}, { __gc = function() while true do end end }))
        local mt = {}
        local t = setmetatable({}, mt)
        mt.__gc = function() print "finalised" while true do end end
        t = nil
        collectgarbage()
        collectgarbage()
        print "after"
      ]] })
      assert.equal(0, r.status)
      expect.contains(r.stdout, "false\t")
      expect.contains(r.stdout, "after")
      expect.lacks(r.stdout, "finalised")
    end)

    test("what one does to shared-looking tables is not seen by another", function()
      local r = beside({ [[
        local function try(fn) pcall(fn) end
        local function evil() return function() return "evil" end end
        try(function() getmetatable("").__index = evil end)
        try(function() string.rep = function() return "evil" end end)
        try(function() table.pack = function() return {} end end)
        try(function() require("task").sleep = function() end end)
        try(function() require("sandbox").create = function() error "evil" end end)
        try(function() _G.print = function() end end)
        try(function() math.max = function() return 1e9 end end)
        try(function() package.loaded.task = {} end)
        try(function() setmetatable(_G, { __index = error }) end)
        for _ = 1, 100 do require "task" end
      ]] })
      assert.is_truthy(r.status == 0 or r.status == 1)
    end)

    test("a thousand scripts' worth of tasks leaves room for one more", function()
      outlast({ [[
        local task = require "task"
        for i = 1, 5000 do task.spawn(function() while true do task.sleep(0.05) end end) end
        print "all asleep"
        task.sleep(60)
      ]] }, { "--memory", "128MiB" }, { "all asleep" })
    end)
  end)
end

-- Plugins: what they see and change of a script's sandboxes, what they cannot break, the tools they
-- bring, and the two that ship. Everything in both modes.
local json = require "json"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

-- Runs a script with plugins (name → text, in the order of names; or what --plugin takes).
local function run_with(mode, plugins, script, opts)
  opts = opts or {}
  local dir = files.dir "plugins"
  local args = { "run" }
  if mode == "trust" then args[2] = "--trust" end
  for _, plugin in ipairs(plugins) do
    args[#args + 1] = "--plugin"
    if type(plugin) == "table" then
      args[#args + 1] = files.write(("%s/%s.lua"):format(dir, plugin[1]), plugin[2])
        .. (plugin[3] and "=" .. plugin[3] or "")
    else
      args[#args + 1] = plugin
    end
  end
  for _, more in ipairs(opts.args or {}) do args[#args + 1] = more end
  args[#args + 1] = files.script("main.lua", script)
  for name, text in pairs(opts.beside or {}) do
    files.write(args[#args]:gsub("main%.lua$", name), text)
  end
  return proc.cli(args, { env = proc.env(opts.env), timeout = opts.timeout })
end

local function check_ok(r)
  assert.equal("", r.stderr)
  assert.equal(0, r.status)
  return r.stdout
end

local TRY = [[
local sandbox = require "sandbox"
local function try(opts)
  local ok, sb = pcall(sandbox.create, opts)
  if not ok then print(sb.code, sb.field, sb.message, sb.hint) return end
  print("made", sb.config.cpu, sb.tags.by, sb:exec("echo hi").stdout)
  sb:terminate()
end
]]

for _, mode in ipairs { "worker", "trust" } do
  describe("plugins, mode " .. mode, function()
    local before
    before_each(function() before = leftovers.before() end)
    after_each(function()
      files.clean()
      leftovers.none_since(before, 5)
    end)

    local function run(...) return run_with(mode, ...) end

    describe("before_create", function()
      it("sees the create as written and as understood, and changes it", function()
        local out = check_ok(run({ { "p", [[
          return { on = { before_create = function(opts, info)
            assert(opts.gpu == nil and opts.tags.by == "script" and opts.engine == nil)
            assert(info.script == "main.lua" and info.config.image == "host")
            assert(info.config.engine == "local" and info.config.cpu == 1)
            opts.cpu = 0.5
            opts.tags.by = opts.tags.by .. "+p"
          end } }]] }, { "q", [[
          return { on = { before_create = function(opts, info)
            assert(info.config.cpu == 0.5)
            return { cpu = 0.25, tags = { by = opts.tags.by .. "+q" } }
          end } }]] } }, TRY .. 'try { tags = { by = "script" } }'))
        assert.equal("made\t0.25\tscript+p+q\thi\n\n", out)
      end)

      it("refuses with any of our errors, which the script gets as it is", function()
        local out = check_ok(run({ { "p", [[
          return { on = { before_create = function(opts)
            if opts.cpu == 2 then
              error { code = "denied", message = "two are too many", field = "cpu", hint = "one" }
            end
            error { code = "capacity", message = "come back later" }
          end } }]] } }, TRY .. "try { cpu = 2 } try {}"))
        assert.equal("denied\tcpu\ttwo are too many\tone\n"
          .. "capacity\tnil\tcome back later\tnil\n", out)
      end)

      it("that fails refuses the create, and names the plugin", function()
        local out = check_ok(run({ { "policy", [[
          local n = 0
          return { on = { before_create = function()
            n = n + 1
            if n == 1 then local x = nil; return x.y end
            if n == 2 then return 7 end
            if n == 3 then return { env = print } end
            if n == 4 then error { code = "no such code", message = "m" } end
            if n == 5 then error(setmetatable({}, { __tostring = function() error "x" end })) end
            if n == 6 then return { cpus = 4 } end
          end } }]] } }, TRY .. "for _ = 1, 7 do try {} end"))
        local lines = {}
        for line in out:gmatch "[^\n]+" do lines[#lines + 1] = line end
        local prefix = "denied\tnil\tplugin policy failed, so no sandbox is made: "
        for i = 1, 5 do assert.equal(prefix, lines[i]:sub(1, #prefix)) end
        expect.contains(lines[1], "policy.lua:4: attempt to index a nil value")
        expect.contains(lines[2], "returned a number")
        expect.contains(lines[3], "not plain data")
        expect.contains(lines[4], ": m\t")
        -- What the plugin made of it is checked like what a script writes.
        assert.equal("invalid_argument\tcpus", lines[6]:match "^[^\t]+\t[^\t]+")
        assert.equal("made\t1\tnil\thi", lines[7])
      end)

      it("that hangs is ended in its time, whatever it does, and the plugin lives on", function()
        local r = run({ { "p", [[
          local n = 0
          return { timeout = "300ms", on = { before_create = function()
            n = n + 1
            if n == 1 then while true do pcall(function() while true do end end) end end
            if n == 2 then require("task").sleep(3600) end
          end } }]] } }, TRY .. "try {} try {} try {}")
        local out = check_ok(r)
        local _, refused = out:gsub("it took longer than 0.3 s", "")
        assert.equal(2, refused)
        expect.contains(out, "made\t1")
        assert.is_true(r.duration_ms < 5000)
      end)

      it("that cannot be ended ends its plugin; creates are refused from then on", function()
        local r = run({ { "p", [[
          return { timeout = "200ms", on = { before_create = function()
            local _ <close> = setmetatable({}, { __close = function() while true do end end })
            while true do end
          end } }]] } }, TRY .. "try {} try {}")
        assert.equal(0, r.status)
        expect.contains(r.stderr, "plugin p has ended")
        expect.contains(r.stdout, "before_create did not end")
        expect.contains(r.stdout, "plugin p has ended, so no sandbox is made")
      end)

      it("that eats all memory ends its plugin, not the run", function()
        local r = run({ { "p", [[
          return { on = { before_create = function()
            local t = {}
            for i = 1, 1e9 do t[i] = ("x"):rep(1000) .. i end
          end } }]] } }, TRY .. 'try {} try {} print "alive"')
        assert.equal(0, r.status)
        expect.contains(r.stderr, "plugin p has ended: ")
        local _, refused = r.stdout:gsub("denied\t", "")
        assert.equal(2, refused)
        expect.contains(r.stdout, "alive")
      end)

      it("is left behind when the script does not wait for it", function()
        local out = check_ok(run({ { "p", [[
          local task, asked = require "task", 0
          return { on = { before_create = function(opts)
            asked = asked + 1
            if asked == 1 then task.sleep(60) end
            opts.tags = { by = "call " .. asked }
          end } }]] } }, TRY .. [[
          local ok, e = pcall(require("task").timeout, 0.2, sandbox.create, {})
          print(e.code)
          try {}]]))
        assert.equal("timeout\nmade\t1\tcall 2\thi\n\n", out)
      end)

      it("is asked for many at once, and may make sandboxes of its own", function()
        local out = check_ok(run({ { "p", [[
          local sandbox, made = require "sandbox", 0
          return { on = { before_create = function(opts)
            made = made + 1
            if made == 1 then
              local sb <close> = sandbox.create {}
              opts.tags = { by = sb:exec("printf inner").stdout }
            end
          end } }]] } }, [[
          local sandbox, task = require "sandbox", require "task"
          local inner = 0
          task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, {}, function()
            local sb <close> = sandbox.create {}
            if sb.tags.by == "inner" then inner = inner + 1 end
          end)
          print(inner)]]))
        assert.equal("1\n", out)
      end)
    end)

    describe("observers", function()
      local WATCH = [[
        local _, path = ...
        local file
        local function note(word)
          return function(i)
            file:write(word, " ", i.script, " ", tostring(i.reason), " ", tostring(i.exit_code),
              " ", i.command and table.concat(i.command, "|") or "-", "\n")
          end
        end
        return {
          grants = { write = path },
          start = function() file = assert(io.open(path, "w")) end,
          on = {
            created = note "created", exec_done = note "exec", terminated = note "terminated",
          },
        }]]

      it("hear what happened, in order, to the last sandbox left behind", function()
        local path = files.dir "notes" .. "/notes"
        check_ok(run({ { "watch", WATCH, path } }, [[
          local sb = require("sandbox").create {}
          sb:exec { "sh", "-c", "exit 3" } ]]))
        assert.equal("created main.lua nil nil -\nexec main.lua exited 3 sh|-c|exit 3\n"
          .. "terminated main.lua terminated nil -\n", files.read(path))
      end)

      it("that fail, hang or shout are warnings; nothing of the script changes", function()
        local r = run({ { "loud", [[
          local function bad(i)
            for n = 1, 100000 do print(("x"):rep(100)) end
            error "broken"
          end
          return { timeout = "400ms", on = { created = bad, exec_done = function()
            while true do end
          end, terminated = function() local x; x() end } }]] } }, TRY .. "try {}",
          { args = { "--verbose" } })
        assert.equal(0, r.status)
        assert.equal("made\t1\tnil\thi\n\n", r.stdout)
        expect.contains(r.stderr, "plugin loud: exec_done: it took longer than 0.4 s")
        expect.contains(r.stderr, "plugin loud: terminated: ")
        expect.contains(r.stderr, "more lines were not shown")
        assert.is_true(#r.stderr < 400000, #r.stderr .. " bytes")
      end)

      it("have only what their plugin asked for", function()
        local dir = files.dir "secret"
        files.write(dir .. "/file", "x")
        local r = run({ { "p", ([[
          local sees = io.open(%q) ~= nil
          local writes = io.open(%q, "w") ~= nil
          return { start = function() log.warn(tostring(sees), tostring(writes),
            tostring(os.getenv "HOME")) end }]]):format(dir .. "/file", dir .. "/new") } },
          'print "ran"')
        assert.equal("ran\n", r.stdout)
        expect.contains(r.stderr, "plugin p: false false nil")
        assert.is_false(files.exists(dir .. "/new"))
      end)
    end)

    describe("tools", function()
      it("are functions that run in the plugin, with plain data both ways", function()
        local out = check_ok(run({ { "helper", [[
          local secret, calls = "s3cret", 0
          return { tools = {
            sign = function(text, ...)
              calls = calls + 1
              return #secret .. ":" .. text, select("#", ...), nil, { calls = calls }
            end,
            fail = function(kind)
              if kind == "code" then error { code = "not_found", message = "no such thing" } end
              if kind == "data" then return print end
              error "oops"
            end,
            none = function() end,
          } }]] } }, [[
          local helper = require "helper"
          local sign = require "helper.sign"
          print(sign == helper.sign, type(sign))
          local a, b, c, d = sign("x", nil, nil)
          print(a, b, c, d.calls)
          print(select("#", helper.none()))
          for _, kind in ipairs { "code", "plain", "data" } do
            local ok, e = pcall(helper.fail, kind)
            print(ok, e.code, (e.message:gsub("[^ ]*helper%.lua", "helper.lua")))
          end
          print(pcall(helper.sign, print))
          print(select(2, pcall(require, "helper.nothing")).code)]]))
        local want = "true\tfunction\n6:x\t2\tnil\t1\n0\nfalse\tnot_found\tno such thing\n"
          .. "false\tinternal\tplugin helper: fail: helper.lua:10: oops\n"
          .. "false\tinternal\tplugin helper: its answer is not plain data: "
        assert.equal(want, out:sub(1, #want))
        expect.contains(out, "a function cannot be sent")
        assert.equal("not_found", out:match "([^\n]*)\n$")
      end)

      it("are Lua files that run in the script, below the plugin's folder", function()
        local dir = files.dir "kit"
        files.write(dir .. "/words.lua", [[
          local name = ...
          return { name = name, upper = function(s, f) return f(s:upper()) end, env = _G }]])
        local path = files.write(dir .. "/kit.lua", 'return { tools = { words = "words.lua" } }')
        local out = check_ok(run({ path }, [[
          local words = require "kit.words"
          print(words.name, words.upper("a", function(s) return s .. s end), words.env == _G,
            require("kit").words == words)]]))
        assert.equal("kit.words\tAA\ttrue\ttrue\n", out)
        files.write(dir .. "/kit.lua", 'return { tools = { words = "../kit.lua" } }')
        local r = run({ path }, "print(1)")
        assert.equal(1, r.status)
        expect.contains(r.stderr, "tools.words: cannot read")
      end)

      it("stand behind the script's own modules, and end with the call", function()
        local r = run({ { "own", "return { tools = { a = function() end } }" }, { "slow", [[
          local task = require "task"
          return { tools = { sleep = function()
            local _ <close> = setmetatable({}, { __close = function() log.warn "ended" end })
            task.sleep(60)
          end } }]] } }, [[
          print(require "own", type(require "own.a"))
          print(select(2, pcall(require("task").timeout, 0.2, require "slow.sleep")).code)
          require("task").sleep(0.3)]], { beside = { ["own.lua"] = 'return "the script\'s"' } })
        assert.equal("the script's\tfunction\ntimeout\n", r.stdout)
        expect.contains(r.stderr, "plugin slow: ended")
      end)
    end)

    it("audit writes one line for each thing that happened, and only appends", function()
      local path = files.dir "audit" .. "/log.jsonl"
      files.write(path, "before\n")
      local script = [[
        local sb <close> = require("sandbox").create { name = "db" }
        sb:exec { "printf", "a\"b" }]]
      check_ok(run({ "audit=" .. path }, script))
      check_ok(run({ "audit=" .. path }, script))
      local text = files.read(path)
      assert.equal("before\n", text:sub(1, 7))
      local seen = {}
      for line in text:sub(8):gmatch "[^\n]+" do
        local e = json.decode(line)
        assert.is_truthy(e.time:match "^%d+%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$")
        assert.equal("main.lua", e.script)
        assert.is_truthy(e.sandbox_id:match "^sb_")
        seen[#seen + 1] = e.event
        if e.event == "create" then assert.equal("db", e.name) end
        if e.event == "exec" then
          assert.same({ "printf", 'a"b' }, e.command)
          assert.equal(0, e.exit_code)
        end
      end
      assert.equal("create exec terminate create exec terminate", table.concat(seen, " "))
    end)

    it("gpu-hours refuses GPUs outside its hours, and nothing else", function()
      local try = TRY .. 'try { gpu = { "t4" } } try { gpu = "A100:2" } try {}'
      local out = check_ok(run({ "gpu-hours=@2026-03-01T10:00" }, try)) -- a Sunday
      local _, refused = out:gsub("denied\tgpu\tno GPUs at 10:00: they are there mon%-fri", "")
      assert.equal(2, refused)
      expect.contains(out, "made\t1")
      -- In its hours the engine is asked, which has none here.
      out = check_ok(run({ "gpu-hours=@2026-03-02T10:00" }, try))
      assert.is_nil(out:find "denied")
      expect.contains(out, "has no GPU")
    end)
  end)
end

describe("plugins", function()
  after_each(files.clean)

  it("gpu-hours reads its hours", function()
    local cases = {
      { "2026-03-02T09:00 mon-fri 9-17", true }, { "2026-03-02T08:59 mon-fri 9-17", false },
      { "2026-03-02T17:00 mon-fri 9-17", false }, { "2026-03-06T16:59", true },
      { "2026-03-07T12:00", false }, { "2026-03-07T12:00 mon-fri 9-17, sat 10:30-14", true },
      { "2026-03-07T10:29 mon-fri 9-17, sat 10:30-14", false },
      { "2026-03-08T03:00 sat 22-6", true }, { "2026-03-09T03:00 sat 22-6", false },
      { "2026-03-07T23:00 SAT 22-6", true }, { "2026-03-01T12:00 sat-mon 0-24", true },
      { "2026-03-03T12:00 sat-mon 0-24", false }, { "2026-03-03T12:00 11-13", true },
    }
    for _, case in ipairs(cases) do
      local r = run_with("trust", { "gpu-hours=@" .. case[1] }, [[
        print(select(2, pcall(require("sandbox").create, { gpu = "T4" })).code)]])
      assert.equal(case[2] and "capacity\n" or "denied\n", r.stdout, case[1])
    end
    for _, bad in ipairs { "never", "mon-fry 9-17", "9-25", "9:61-10", "mon-fri", "," } do
      local r = run_with("trust", { "gpu-hours=" .. bad }, 'print "ran"')
      assert.equal(1, r.status)
      assert.equal("", r.stdout)
      expect.contains(r.stderr, "plugin gpu-hours: ")
      expect.contains(r.stderr, "is not a time such as")
    end
  end)

  it("are found by name, by path, and among one's own", function()
    local data = files.dir "data"
    require("lfs").mkdir(data .. "/regolith")
    require("lfs").mkdir(data .. "/regolith/plugins")
    require("lfs").mkdir(data .. "/regolith/plugins/two")
    files.write(data .. "/regolith/plugins/one.lua",
      'return { tools = { x = function() return 1 end } }')
    files.write(data .. "/regolith/plugins/two/init.lua", 'return { tools = { y = "y.lua" } }')
    files.write(data .. "/regolith/plugins/two/y.lua", "return 2")
    local r = run_with("worker", { "one", "two" }, 'print(require("one").x(), require "two.y")',
      { env = { XDG_DATA_HOME = data } })
    assert.equal("1\t2\n", r.stdout)
    r = run_with("worker", { "three" }, 'print "ran"', { env = { XDG_DATA_HOME = data } })
    assert.equal(1, r.status)
    expect.contains(r.stderr, 'there is no plugin "three"')
    expect.contains(r.stderr, "audit, gpu-hours")
  end)

  it("that do not load refuse the run before a script starts", function()
    local cases = {
      { "return {", "p.lua:1: " }, { "error 'no'", "p.lua:1: no" }, { "", "must be a table" },
      { "return { no = {} }", 'has no field "no"' },
      { "return { on = { befor_create = print } }", "did you mean" },
      { "return { on = { created = 1 } }", "on.created must be a function" },
      { "return { tools = { ['a-b'] = print } }", "tools.a-b" },
      { "return { name = 'q' }", 'it calls itself "q"' },
      { "return { timeout = 'soon' }", "timeout" },
      { "return { start = function() error('bad start', 0) end }", "bad start" },
      { "\27Lua", "binary" },
    }
    for _, case in ipairs(cases) do
      local r = run_with("worker", { { "p", case[1] } }, 'print "ran"')
      assert.equal(1, r.status, case[1])
      assert.equal("", r.stdout)
      expect.contains(r.stderr, "plugin p: ")
      expect.contains(r.stderr, case[2])
    end
    local r = run_with("worker", { "audit=/proc/nothing/here" }, 'print "ran"')
    assert.equal(1, r.status)
    assert.equal("", r.stdout)
    r = run_with("worker", { { "p", "return {}" }, "gpu-hours", "gpu-hours" }, 'print "ran"')
    assert.equal(1, r.status)
    expect.contains(r.stderr, "given twice")
  end)
end)

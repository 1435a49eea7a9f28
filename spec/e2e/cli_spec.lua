-- The binary as a user calls it: run, exec, doctor, check, api, help, install, and what each prints
-- and exits with.
local json = require "json"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local machine = require "spec.support.machine"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"

local script = files.script

-- stdout as a list of decoded events.
local function events(r)
  local list = {}
  for line in r.stdout:gmatch "([^\n]*)\n" do
    local ok, e = pcall(json.decode, line)
    if not ok then error("not JSON: " .. line, 2) end
    list[#list + 1] = e
  end
  return list
end

local function named(list, name)
  local found = {}
  for _, e in ipairs(list) do
    if e.event == name then found[#found + 1] = e end
  end
  return found
end

describe("the command line", function()
  local before
  before_each(function() before = leftovers.before() end)
  after_each(function()
    files.clean()
    leftovers.none_since(before, 5)
  end)

  describe("in general", function()
    it("prints its version", function()
      local r = proc.cli { "--version" }
      assert.equal(0, r.status)
      assert.is_truthy(r.stdout:match "^regolith %d+%.%d+%.%d+")
    end)

    it("explains itself, whole and command by command", function()
      local r = proc.cli { "--help" }
      assert.equal(0, r.status)
      for _, command in ipairs { "run", "exec", "doctor", "check", "api" } do
        expect.contains(r.stdout, command)
        local h = proc.cli { command, "--help" }
        assert.equal(0, h.status)
        expect.contains(h.stdout, "regolith " .. command)
        assert.equal("", h.stderr)
      end
    end)

    it("fails when its output does not arrive, and says nothing when nobody wants more", function()
      local program, hello = proc.regolith, script("hello.lua", "print 'hello'")
      for _, args in ipairs { "doctor", "api", "help", "version", "ps", "run " .. hello } do
        local r = proc.run { "sh", "-c", program .. " " .. args .. " >/dev/full" }
        assert.equal(1, r.status, args)
        expect.contains(r.stderr, "cannot write to standard output: No space left on device")
      end
      local exec = proc.run { "sh", "-c", program .. " exec -- echo hello >/dev/full" }
      assert.equal(125, exec.status)
      expect.contains(exec.stderr, "cannot write to standard output")
      local gone = proc.run { "sh", "-c", "{ " .. program .. " api; echo $? >&2; } | true" }
      assert.equal("141\n", gone.stderr)
    end)

    it("works with few descriptors, and says when there are too few", function()
      local hello = "exec " .. proc.regolith .. " exec -- echo hello"
      local r = proc.run { "sh", "-c", "ulimit -n 64; " .. hello }
      assert.equal("hello\n", r.stdout, r.stderr)
      r = proc.run { "sh", "-c", "ulimit -n 48; " .. hello }
      assert.equal(125, r.status)
      expect.contains(r.stderr, "this process may have 48 open files")
    end)

    it("tells of a file size limit, and does not die of it", function()
      local hello = script("hello.lua", "print 'hello'")
      local run = { proc.regolith, "run --report", hello .. ".json", hello }
      local r = proc.run { "sh", "-c", "ulimit -f 0; exec " .. table.concat(run, " ") }
      assert.equal(1, r.status, r.signal)
      expect.contains(r.stderr, "File too large")
    end)

    it("has a man page that knows every command and option, and no other", function()
      local page = files.read "docs/regolith.1"
      local function sorted(set)
        local list = {}
        for name in pairs(set) do list[#list + 1] = name end
        table.sort(list)
        return list
      end
      local function in_help(command)
        local set = {}
        local help = proc.cli({ command, "--help" }).stdout
        for name in help:gmatch "\n  [ -][%a ][, ] %-%-(%l[%w-]*)" do
          set[name] = true
        end
        assert.is_true(set.help, command)
        set.help = nil
        return sorted(set)
      end
      local function in_page(text)
        local set = {}
        for line in text:gmatch "\n%.It ([^\n]*)" do
          for name in line:gmatch "Fl %-([%w-]+)" do set[name] = true end
        end
        return sorted(set)
      end
      local function section(name)
        local text = page:match("\n%.Ss " .. name .. "\n(.-)\n%.S[sh] ")
        return text or error("no section about " .. name)
      end
      for command in proc.cli({ "help" }).stdout:gmatch "\n  (%l+) +%u" do
        expect.contains(page, "\n.Cm " .. command .. "\n")
        -- What grants something is explained with run; image, volume and key are commands too.
        local own = { repl = true, image = true, volume = true, key = true, version = true }
        if not own[command] then
          assert.same(in_help(command), in_page(section(command)), command)
        end
      end
    end)

    it("is a usage error without a command, on stderr", function()
      local r = proc.cli {}
      assert.equal(2, r.status)
      assert.equal("", r.stdout)
      expect.contains(r.stderr, "regolith")
    end)

    it("suggests the command and the option that were meant", function()
      local r = proc.cli { "rnu", "x.lua" }
      assert.equal(2, r.status)
      expect.contains(r.stderr, "rnu")
      expect.contains(r.stderr, "run")
      r = proc.cli { "run", "--timeuot", "5s", "x.lua" }
      assert.equal(2, r.status)
      expect.contains(r.stderr, "--timeuot")
      expect.contains(r.stderr, "--timeout")
    end)

    it("refuses option values by name", function()
      local path = script("ok.lua", "print 'x'")
      for _, case in ipairs {
        { "--timeout", "soon" }, { "--timeout", "-3s" }, { "--memory", "lots" },
          { "--memory", "-1" },
      } do
        local r = proc.cli { "run", case[1], case[2], path }
        assert.equal(2, r.status)
        expect.contains(r.stderr, case[1])
        expect.contains(r.stderr, case[2])
        assert.equal("", r.stdout)
      end
      local r = proc.cli { "run", "--timeout" }
      assert.equal(2, r.status)
      expect.contains(r.stderr, "--timeout")
    end)
  end)

  describe("run", function()
    it("sends print to stdout and logs to stderr", function()
      local r = proc.cli { "run", script("a.lua", [[
        print("one", 2, nil, true)
        io.write("three\n")
        log.info "a log line"
        progress(1, 2, "half way")
      ]]) }
      assert.equal(0, r.status)
      assert.equal("one\t2\tnil\ttrue\nthree\n", r.stdout)
      expect.contains(r.stderr, "a log line")
      expect.contains(r.stderr, "half way")
    end)

    it("keeps stderr to errors with --quiet", function()
      local r = proc.cli { "run", "--quiet", script("a.lua", [[
        log.info "hidden"; log.warn "hidden"; log.error "shown"; progress(1, 2, "hidden")
      ]]) }
      assert.equal(0, r.status)
      expect.lacks(r.stderr, "hidden")
      expect.contains(r.stderr, "shown")
    end)

    it("creates a sandbox, runs a command and ends it", function()
      local r = proc.cli { "run", script("a.lua", [[
        local sandbox = require "sandbox"
        local sb <close> = sandbox.create {}
        io.write(sb:exec({ "sh", "-c", "echo from $(id -u)" }).stdout)
        print(sb:status().status)
        sb:terminate()
        print(sb:status().status)
      ]]) }
      assert.equal("", r.stderr)
      assert.equal(0, r.status)
      assert.equal("from 0\nrunning\nterminated\n", r.stdout)
    end)

    it("gives a script its arguments", function()
      local path = script("a.lua", [[
        print(select("#", ...), ...)
        print(#arg, arg[1], arg[2])
        print(#args, args[1], args[2])
      ]])
      local r = proc.cli { "run", path, "--", "one", "two words" }
      assert.equal(0, r.status)
      assert.equal("2\tone\ttwo words\n2\tone\ttwo words\n2\tone\ttwo words\n", r.stdout)
      r = proc.cli { "run", path, "--", "--timeout", "--" }
      assert.equal("2\t--timeout\t--\n", r.stdout:match "^[^\n]*\n")
    end)

    it("runs several at once, each line led by its name", function()
      local dir = files.dir "many"
      for _, n in ipairs { "a", "b", "c" } do
        files.write(("%s/%s.lua"):format(dir, n), [[
          local task = require "task"
          for i = 1, 3 do print("line " .. i); task.sleep(0.3) end
          io.write("no newline")
        ]])
      end
      local r = proc.cli { "run", dir .. "/a.lua", dir .. "/b.lua", dir .. "/c.lua" }
      assert.equal(0, r.status)
      expect.between(850, 1700, r.duration_ms, "ms for all three")
      local count = {}
      for line in r.stdout:gmatch "([^\n]*)\n" do
        local name, text = line:match "^(%S+)| (.*)$"
        assert.is_truthy(name, "a line without a name: " .. line)
        assert.is_truthy(text == "no newline" or text:match "^line %d$", line)
        count[name] = (count[name] or 0) + 1
      end
      local names = {}
      for name, n in pairs(count) do
        assert.equal(4, n)
        names[#names + 1] = name
      end
      assert.equal(3, #names)
    end)

    it("fails when one of several fails, and the others still finish", function()
      local dir = files.dir "many"
      files.write(dir .. "/bad.lua", "error 'broken here'")
      files.write(dir .. "/good.lua", "require('task').sleep(0.2) print 'finished'")
      local r = proc.cli { "run", dir .. "/bad.lua", dir .. "/good.lua" }
      assert.equal(1, r.status)
      expect.contains(r.stdout, "finished")
      expect.contains(r.stderr, "broken here")
      expect.contains(r.stderr, "bad.lua:1")
    end)

    it("prints one JSON event per line with --json", function()
      local r = proc.cli { "run", "--json", script("a.lua", [[
        local sandbox = require "sandbox"
        print "bytes \255 and \"quotes\""
        local sb = sandbox.create { tags = { a = "b" } }
        sb:exec { "sh", "-c", "exit 3" }
        sb:exec({ "sleep", "9" }, { timeout = 0.1 })
        sb:terminate()
        local t = require("task").spawn(function() end)
        t:wait()
        log.warn "careful"
      ]]) }
      assert.equal(0, r.status)
      local all = events(r)
      for _, e in ipairs(all) do
        assert.equal("string", type(e.event))
      end
      local function one(name)
        local found = named(all, name)
        assert.is_true(#found >= 1, "no event " .. name .. " in:\n" .. r.stdout)
        return found[1], found
      end
      local id = one("sandbox_created").sandbox_id
      assert.is_truthy(id:find "^sb_")
      local _, execs = one "exec_done"
      assert.equal(2, #execs)
      assert.equal(id, execs[1].sandbox_id)
      assert.equal(3, execs[1].exit_code)
      assert.equal("exited", execs[1].reason)
      assert.equal("timeout", execs[2].reason)
      assert.is_nil(execs[2].exit_code)
      assert.equal("number", type(execs[1].duration_ms))
      assert.equal(id, one("sandbox_ended").sandbox_id)
      one "script_started"
      assert.equal("ok", one("script_ended").outcome)
      local _, started = one "task_started"
      local _, ended = one "task_ended"
      assert.equal(#started, #ended)
      local printed = false
      for _, e in ipairs(all) do
        for _, v in pairs(e) do
          if type(v) == "string" and v:find('and "quotes"', 1, true) then printed = true end
        end
      end
      assert.is_true(printed, "what the script printed is no event")
    end)

    it("exits with 1 for an error, and shows a traceback into the script", function()
      local r = proc.cli { "run", script("fail.lua", [[
local function inner() error "the reason" end
local function outer() inner() end
outer()
]]) }
      assert.equal(1, r.status)
      expect.contains(r.stderr, "the reason")
      expect.contains(r.stderr, "fail.lua:1")
      expect.contains(r.stderr, "fail.lua:2")
      expect.contains(r.stderr, "fail.lua:3")
      assert.equal("", r.stdout)
    end)

    it("exits with 1 for an error table of ours and says its message and hint", function()
      local r = proc.cli { "run", script("fail.lua",
        "require('sandbox').create { timout = 5 }") }
      assert.equal(1, r.status)
      expect.contains(r.stderr, "timout")
      expect.contains(r.stderr, "timeout")
      expect.contains(r.stderr, "fail.lua:1")
    end)

    it("exits with 124 when a script runs out of time", function()
      local path = script("slow.lua", [[
        local sandbox, task = require "sandbox", require "task"
        on_exit(function(why) print("why " .. why.kind) end)
        local sb <close> = sandbox.create {}
        sb:exec { "sleep", "60" }
      ]])
      local r = proc.cli { "run", "--timeout", "500ms", path }
      assert.equal(124, r.status)
      assert.equal("why timeout\n", r.stdout)
      expect.between(480, 3000, r.duration_ms, "ms")
    end)

    it("ends a script that takes too much memory", function()
      local r = proc.cli { "run", "--memory", "16MiB", script("big.lua", [[
        local t = {}
        while true do t[#t + 1] = ("x"):rep(1000) .. #t end
      ]]) }
      assert.equal(1, r.status)
      expect.contains(r.stderr:lower(), "memory")
    end)

    it("reads nothing of the host that was not granted", function()
      local r = proc.cli { "run", script("nosy.lua", [[
        print(os.getenv "HOME", os.getenv "PATH")
        local function try(what, fn, ...)
          local ok, v = pcall(fn, ...)
          print(what, ok and v and "GIVEN" or "refused")
        end
        try("io.open", function() return io.open "/etc/passwd" end)
        try("io.open w", function() return io.open("/tmp/regolith-nosy", "w") end)
        try("io.lines", function() return io.lines "/etc/passwd" end)
        try("io.popen", function() return io.popen "true" end)
        try("os.execute", function() return os.execute "true" end)
        try("os.remove", function() return os.remove "/tmp/regolith-nosy" end)
        try("os.rename", function() return os.rename("/tmp/a", "/tmp/b") end)
        try("os.exit", function() return os.exit and os.exit(9) end)
        try("require", function() return require "lfs" end)
        try("loadfile", function() return loadfile "/etc/passwd" end)
        try("dofile", function() return dofile "/etc/passwd" end)
        try("loadlib", function() return package.loadlib("libc.so.6", "*") end)
        try("cpath", function() return package.cpath end)
        try("debug", function() return debug.getregistry() end)
        try("dump", function() return string.dump(print) end)
      ]]) }
      assert.equal(0, r.status)
      assert.equal("nil\tnil", r.stdout:match "^[^\n]*")
      expect.lacks(r.stdout, "GIVEN")
      assert.equal(15, select(2, r.stdout:gsub("refused", "")))
    end)

    it("runs a script from a hash-bang line, from any directory", function()
      local path = script("tool", "#!" .. proc.regolith .. " run\nprint('banged', ...)\n")
      os.execute("chmod 755 '" .. path .. "'")
      local r = proc.run({ path }, { cwd = "/" })
      assert.equal(0, r.status)
      assert.equal("banged\n", r.stdout)
    end)

    it("does not wait for a reader that is gone", function()
      local r = proc.cli({ "run", script("a.lua", "for i = 1, 1e5 do print(i) end") },
        { close_stdout = true, timeout = 20 })
      assert.is_true(r.status ~= 0 or r.signal == nil)
    end)

    it("finds modules beside the script", function()
      local dir = files.dir "mods"
      files.write(dir .. "/mine.lua", "return { v = 'module value' }")
      files.write(dir .. "/main.lua", "print(require('mine').v)")
      local r = proc.cli({ "run", dir .. "/main.lua" }, { cwd = "/" })
      assert.equal(0, r.status)
      assert.equal("module value\n", r.stdout)
    end)
  end)

  describe("exec", function()
    it("passes stdin, stdout, stderr and the exit status through", function()
      local r = proc.cli({ "exec", "--", "sh", "-c", "cat; echo err >&2; exit 3" },
        { stdin = "in\0put\255" })
      assert.equal(3, r.status)
      assert.equal("in\0put\255", r.stdout)
      assert.equal("err\n", r.stderr)
    end)

    it("passes every exit status through", function()
      for _, code in ipairs { 0, 1, 2, 3, 63, 124, 125, 126, 127, 128, 137, 200, 255 } do
        assert.equal(code, proc.cli({ "exec", "--", "sh", "-c", "exit " .. code }).status)
      end
    end)

    it("is 128+n for a signal", function()
      assert.equal(128 + 15, proc.cli({ "exec", "--", "sh", "-c", "kill -TERM $$" }).status)
      assert.equal(128 + 11, proc.cli({ "exec", "--", "sh", "-c", "kill -SEGV $$" }).status)
    end)

    it("is 124 when out of time, and returns then", function()
      local r = proc.cli { "exec", "--timeout", "300ms", "--", "sh", "-c",
        "echo a; sleep 60 & sleep 60" }
      assert.equal(124, r.status)
      assert.equal("a\n", r.stdout)
      expect.between(280, 3000, r.duration_ms, "ms")
    end)

    it("is 137 when out of memory", function()
      if not machine.has_limits() then return pending(machine.no_limits) end
      local r = proc.cli { "exec", "--memory", "128", "--disk", "32MiB", "--", "tail", "/dev/zero" }
      assert.equal(137, r.status)
      expect.contains(r.stderr, "memory")
    end)

    it("is 127 and 126 for what cannot be run, and 125 for our own failure", function()
      assert.equal(127, proc.cli({ "exec", "--", "no-such-thing" }).status)
      assert.equal(126, proc.cli({ "exec", "--", "/etc" }).status)
      local r = proc.cli { "exec", "--image", "no-such:image", "--", "true" }
      assert.equal(125, r.status)
      expect.contains(r.stderr, "image")
    end)

    it("is a usage error without a command", function()
      local r = proc.cli { "exec" }
      assert.is_truthy(r.status == 2 or r.status == 125)
      assert.not_equal("", r.stderr)
    end)

    it("streams: output comes while the command runs, input goes in as it comes", function()
      local p = proc.cli_start({ "exec", "--", "sh", "-c",
        "echo ready; while read -r l; do echo got $l; done; echo end" },
        { stdin = true })
      p:expect "ready\n"
      p:write "one\n"
      p:expect "got one\n"
      p:write "two\n"
      p:expect "got two\n"
      p:close_stdin()
      local r = p:wait(10)
      assert.equal(0, r.status)
      assert.equal("ready\ngot one\ngot two\nend\n", r.stdout)
    end)

    it("moves a lot of data in both directions without keeping it", function()
      local p = proc.start({ "sh", "-c",
        ("head -c 300M /dev/zero | '%s' exec -- cat | wc -c"):format(proc.regolith) })
      local most = 0
      local task = require "task"
      while not p:ended() do
        for _, below in ipairs(sys.below(p.pid)) do
          if below.name:find "^regolith" then
            most = math.max(most, sys.status(below.pid, "VmHWM") or 0)
          end
        end
        task.sleep(0.05)
      end
      assert.equal(tostring(300 << 20), p:wait(60).stdout:match "%d+")
      expect.between(500, 48 * 1024 * proc.factor, most, "KiB of memory")
    end)

    it("never gives a command our own descriptors", function()
      local r = proc.cli { "exec", "--", "sh", "-c", "ls -l /proc/self/fd | grep -- '->'" }
      for target in r.stdout:gmatch "%-> ([^\n]+)" do
        assert.is_truthy(target:find "^pipe:" or target:find "^/proc/" or target == "/dev/null",
          target)
      end
    end)

    it("keeps the options behind -- for the command", function()
      assert.equal("--timeout 5\n", proc.cli({ "exec", "--", "echo", "--timeout", "5" }).stdout)
    end)
  end)

  describe("doctor", function()
    it("says one line per thing, with what it means", function()
      local r = proc.cli { "doctor" }
      assert.is_truthy(r.status == 0 or r.status == 3)
      local n = 0
      for line in r.stdout:gmatch "[^\n]+" do
        if line:find "%f[%w]ok%f[%W]" or line:find "degraded"
          or line:find "missing" then n = n + 1 end
      end
      assert.is_true(n >= 8, "only " .. n .. " lines say ok, degraded or missing:\n" .. r.stdout)
      for _, word in ipairs { "namespaces", "cgroup", "overlay", "seccomp", "landlock", "Lua" } do
        expect.contains(r.stdout:lower(), word:lower())
      end
    end)

    it("says the same as JSON", function()
      local r = proc.cli { "doctor", "--json" }
      local d = json.decode(r.stdout)
      local list = d.checks or d
      assert.is_true(#list >= 8)
      for _, c in ipairs(list) do
        assert.is_truthy(({ ok = 1, degraded = 1, missing = 1 })[c.status], r.stdout)
        assert.equal("string", type(c.name))
      end
    end)
  end)

  describe("check", function()
    it("is silent and 0 for a good script, which it does not run", function()
      local dir = files.dir "check"
      local path = files.write(dir .. "/good.lua", [[
        local sandbox = require "sandbox"
        print "running"
        local sb <close> = sandbox.create { timeout = 5 }
        print(sb:exec({ "true" }, { timeout = 1 }).ok)
      ]])
      local r = proc.cli { "check", path }
      assert.equal(0, r.status)
      expect.lacks(r.stdout, "running")
    end)

    it("finds a syntax error, with file and line", function()
      local r = proc.cli { "check", script("broken.lua", "local x = 1\nlocal = 2\n") }
      assert.equal(1, r.status)
      expect.contains(r.stdout .. r.stderr, "broken.lua:2")
    end)

    it("finds unknown globals and misuse of the API", function()
      local r = proc.cli { "check", script("odd.lua", [[
local sandbox = require "sandbox"
local sb = sandbox.create { timout = 5 }
pritn(sb)
sandbox.crate {}
]]) }
      assert.equal(1, r.status)
      local text = r.stdout .. r.stderr
      expect.contains(text, "odd.lua:3")
      expect.contains(text, "pritn")
      expect.contains(text, "timout")
      expect.contains(text, "crate")
    end)
  end)

  describe("api", function()
    it("shows a function on one screen", function()
      local r = proc.cli { "api", "sandbox.create" }
      assert.equal(0, r.status)
      for _, word in ipairs { "sandbox.create", "image", "timeout", "idle_timeout", "memory" } do
        expect.contains(r.stdout, word)
      end
      local lines = select(2, r.stdout:gsub("\n", ""))
      expect.between(5, 70, lines, "lines")
    end)

    it("knows every function of the modules, and lists them", function()
      local r = proc.cli { "api" }
      assert.equal(0, r.status)
      for _, name in ipairs { "sandbox.create", "sandbox.run", "task.spawn", "task.map",
        "retry" } do
        expect.contains(r.stdout, name)
        assert.equal(0, proc.cli({ "api", name }).status)
      end
    end)

    it("suggests what was meant", function()
      local r = proc.cli { "api", "sandbox.craete" }
      assert.is_true(r.status ~= 0)
      expect.contains(r.stderr .. r.stdout, "sandbox.create")
    end)
  end)
end)

describe("make install", function()
  after_each(files.clean)
  it("puts a working program under DESTDIR and PREFIX", function()
    local dir = files.dir "dest"
    local r = proc.run({ "make", "-s", "install", "DESTDIR=" .. dir, "PREFIX=/opt/rg" },
      { timeout = 120, env = proc.env { MAKEFLAGS = false, MAKELEVEL = false } })
    assert.equal(0, r.status, r.stderr)
    local bin = dir .. "/opt/rg/bin/regolith"
    assert.is_true(files.exists(bin))
    local path = script("hello.lua", "print 'installed'")
    local out = proc.run({ bin, "run", path }, { cwd = "/" })
    assert.equal("installed\n", out.stdout)
    assert.equal(0, out.status)
    out = proc.run({ bin, "exec", "--", "echo", "boxed" }, { cwd = "/" })
    assert.equal("boxed\n", out.stdout)
  end)
end)

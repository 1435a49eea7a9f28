-- How commands end, and that we say so honestly: real sandboxes of the local engine, in this
-- process.
local sandbox = require "sandbox"
local task = require "task"
local expect = require "spec.support.expect"
local machine = require "spec.support.machine"
local sys = require "spec.support.sys"

-- The names of the commands alive in a sandbox, its init excepted.
local function alive(sb)
  local r = sb:exec { "/bin/sh", "-c",
    "for f in /proc/[0-9]*/comm; do read -r c <$f && echo $c; done 2>/dev/null" }
  local names = {}
  for name in r.stdout:gmatch "[^\n]+" do
    if name ~= "sh" then names[name] = (names[name] or 0) + 1 end
  end
  return names
end

describe("an outcome", function()
  local sb
  setup(function() sb = sandbox.create { timeout = 280 } end)
  teardown(function() sb:terminate() end)

  it("has each exit code from 0 to 255", function()
    for code = 0, 255 do
      local r = sb:exec { "/bin/sh", "-c", "exit " .. code }
      assert.equal("exited", r.reason)
      assert.equal(code, r.exit_code)
      assert.equal(code == 0, r.ok)
      assert.is_nil(r.signal)
    end
  end)

  it("names the signal that ended the command, and never guesses an exit code", function()
    local names = {
      [1] = "SIGHUP", [2] = "SIGINT", [3] = "SIGQUIT", [4] = "SIGILL", [5] = "SIGTRAP",
      [6] = "SIGABRT", [7] = "SIGBUS", [8] = "SIGFPE", [9] = "SIGKILL", [10] = "SIGUSR1",
      [11] = "SIGSEGV", [12] = "SIGUSR2", [13] = "SIGPIPE", [14] = "SIGALRM", [15] = "SIGTERM",
      [16] = "SIGSTKFLT", [24] = "SIGXCPU",
      [25] = "SIGXFSZ", [26] = "SIGVTALRM", [27] = "SIGPROF", [31] = "SIGSYS",
    }
    for number, name in pairs(names) do
      local r = sb:exec { "/bin/sh", "-c", "kill -" .. number .. " $$; sleep 5" }
      assert.equal("signal", r.reason)
      assert.equal(name, r.signal)
      assert.is_nil(r.exit_code)
      assert.is_false(r.ok)
    end
  end)

  it("starts commands with default signal handling and nothing blocked", function()
    local r = sb:exec { "cat", "/proc/self/status" }
    assert.equal("0000000000000000", r.stdout:match "SigBlk:%s+(%x+)")
    assert.equal("0000000000000000", r.stdout:match "SigIgn:%s+(%x+)")
  end)

  it("tells a shell's 128+n from a signal", function()
    local r = sb:exec "sh -c 'kill -9 $$'; exit 137"
    assert.equal("exited", r.reason)
    assert.equal(137, r.exit_code)
  end)

  it("is 127 for a command that is not there, as argv and as string", function()
    for _, command in ipairs { { "no-such-command-here" }, { "/no/such/path" },
      "no-such-command-here" } do
      local r = sb:exec(command)
      assert.equal("exited", r.reason)
      assert.equal(127, r.exit_code)
      assert.not_equal("", r.stderr)
    end
  end)

  it("is 126 for what cannot be executed", function()
    assert.equal("exited", sb:exec("echo 'echo no' >/tmp/plain; chmod 644 /tmp/plain").reason)
    for _, command in ipairs { { "/tmp/plain" }, { "/tmp" }, "/tmp/plain" } do
      local r = sb:exec(command)
      assert.equal("exited", r.reason)
      assert.equal(126, r.exit_code)
    end
  end)

  it("is an error that names cwd when that is not a directory", function()
    expect.raises({ code = "invalid_argument", status = 400, field = "cwd", match = "/no/such" },
      sb.exec, sb, { "true", cwd = "/no/such" })
    expect.raises({ code = "invalid_argument", field = "cwd" }, sb.exec, sb,
      { "true", cwd = "/etc/passwd" })
  end)

  it("has NUL and invalid UTF-8 in output, byte by byte", function()
    local r = sb:exec { "printf", "a\\000b\\377\\376c\\n" }
    assert.equal("a\0b\255\254c\n", r.stdout)
    local all = {}
    for i = 0, 255 do all[#all + 1] = string.char(i) end
    local bytes = table.concat(all):rep(40)
    r = sb:exec({ "cat" }, { stdin = bytes })
    assert.is_true(r.stdout == bytes)
    r = sb:exec({ "sh", "-c", "cat >&2" }, { stdin = bytes })
    assert.is_true(r.stderr == bytes)
    assert.equal("", r.stdout)
  end)

  it("keeps the order within a stream and the streams apart", function()
    local r = sb:exec "for i in $(seq 2000); do echo o$i; echo e$i >&2; done"
    local want_o, want_e = {}, {}
    for i = 1, 2000 do want_o[i], want_e[i] = "o" .. i .. "\n", "e" .. i .. "\n" end
    assert.equal(table.concat(want_o), r.stdout)
    assert.equal(table.concat(want_e), r.stderr)
  end)

  it("takes 1 MiB of arguments", function()
    local arg = ("x"):rep(131071)
    local argv = { "sh", "-c", "echo $#; for a; do echo ${#a}; done", "sh" }
    for i = 1, 8 do argv[4 + i] = arg end
    local r = sb:exec(argv)
    assert.equal("8\n" .. ("131071\n"):rep(8), r.stdout)
    local many = { "sh", "-c", "echo $#", "sh" }
    for i = 1, 20000 do many[4 + i] = ("%050d"):format(i) end
    assert.equal("20000\n", sb:exec(many).stdout)
  end)

  it("refuses one argument of 128 KiB, which no kernel takes, and says so", function()
    assert.is_true(sb:exec({ "true", ("x"):rep(131071) }).ok)
    expect.raises({ code = "invalid_argument", status = 400 }, sb.exec, sb,
      { "true", ("x"):rep(131072) })
    expect.raises({ code = "invalid_argument" }, sb.exec, sb, "true " .. ("x"):rep(131072))
  end)

  it("takes 4 MiB on stdin and gives it back", function()
    local data = ("0123456789abcdef"):rep(4 * 65536)
    local r = sb:exec({ "cat" }, { stdin = data })
    assert.is_true(r.stdout == data)
    assert.equal(#data, r.stdout_bytes)
  end)

  it("does not fail when the command never reads its stdin", function()
    local r = sb:exec({ "true" }, { stdin = ("x"):rep(1 << 20) })
    assert.is_true(r.ok)
  end)

  it("closes stdin when there is none", function()
    local r = sb:exec({ "cat" }, { timeout = 5 })
    assert.is_true(r.ok)
    assert.equal("", r.stdout)
  end)

  it("gives a command pipes and nothing else", function()
    local r = sb:exec "ls -l /proc/self/fd | grep -o ' [0-9]* -> .*' | grep -v /proc/"
    for fd, what in r.stdout:gmatch "(%d+) %-> ([^\n]+)" do
      assert.is_true(tonumber(fd) <= 2, "descriptor " .. fd .. " is " .. what)
      assert.is_truthy(what:find "^pipe:" or what == "/dev/null",
        "descriptor " .. fd .. " is " .. what)
    end
  end)

  it("has usage that is plausible", function()
    local r = sb:exec { "sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done" }
    assert.is_true(r.ok)
    expect.between(10, 20000, r.usage.cpu_ms, "cpu_ms")
    expect.between(0.3, 200, r.usage.max_rss_mib, "max_rss_mib")
    expect.between(10, 20000, r.duration_ms, "duration_ms")
    assert.equal("integer", math.type(r.duration_ms))
    r = sb:exec { "sleep", "0.3" }
    expect.between(290, 3000, r.duration_ms, "duration_ms of a sleep")
    expect.between(0, 100, r.usage.cpu_ms, "cpu_ms of a sleep")
  end)
end)

describe("an exec time-out", function()
  local sb
  setup(function() sb = sandbox.create { timeout = 120 } end)
  teardown(function() sb:terminate() end)

  it("ends a grandchild that holds the pipes too, and keeps what was printed", function()
    local start = task.now()
    local r = sb:exec({ "sh", "-c", "echo early; echo oops >&2; sleep 100 & exec sleep 100" },
      { timeout = "300ms" })
    expect.between(0.28, 2, task.now() - start, "seconds until it returned")
    assert.equal("timeout", r.reason)
    assert.is_nil(r.exit_code)
    assert.is_false(r.ok)
    assert.equal("early\n", r.stdout)
    assert.equal("oops\n", r.stderr)
    expect.between(280, 2000, r.duration_ms)
    assert.is_nil(alive(sb).sleep)
  end)

  it("ends what fled: setsid, double fork, ignored signals, closed pipes", function()
    local r = sb:exec({ "sh", "-c", [[
      trap '' TERM INT HUP
      (setsid sh -c 'trap "" TERM HUP; sleep 101 & sleep 102' >/dev/null 2>&1 </dev/null &)
      (setsid setsid sleep 103 &)
      echo up
      sleep 104]] }, { timeout = "500ms" })
    assert.equal("timeout", r.reason)
    assert.equal("up\n", r.stdout)
    assert.is_nil(alive(sb).sleep)
  end)

  it("ends only what that command started", function()
    local other = task.spawn(function() return sb:exec({ "sh", "-c", "sleep 1.2; echo done" }) end)
    local r = sb:exec({ "sleep", "50" }, { timeout = 0.2 })
    assert.equal("timeout", r.reason)
    local o = other:wait()
    assert.is_true(o.ok)
    assert.equal("done\n", o.stdout)
  end)

  it("does not hit a command that ends in time", function()
    for _ = 1, 20 do assert.is_true(sb:exec({ "true" }, { timeout = 5 }).ok) end
  end)
end)

describe("children that outlive their command", function()
  local sb
  setup(function() sb = sandbox.create {} end)
  teardown(function() sb:terminate() end)

  it("do not hold the exec up, and live on", function()
    local start = task.now()
    local r = sb:exec { "sh", "-c", "sleep 30 & echo $!" }
    expect.between(0, 1.5, task.now() - start, "seconds until it returned")
    assert.equal("exited", r.reason)
    assert.equal(0, r.exit_code)
    local pid = r.stdout:match "^(%d+)\n$"
    assert.is_true(sb:exec({ "sh", "-c", "kill -0 " .. pid }).ok)
    assert.is_true(sb:exec({ "sh", "-c", "kill -9 " .. pid }).ok)
  end)

  it("find the files that earlier commands left, but not their variables", function()
    local home = sb:exec("pwd").stdout
    sb:exec "cd /tmp; X=1; export X; echo kept >/tmp/kept"
    local r = sb:exec "cat /tmp/kept; pwd; echo ${X:-unset}"
    assert.equal("kept\n" .. home .. "unset\n", r.stdout)
    assert.not_equal("/tmp\n", home)
  end)
end)

describe("running out of memory", function()
  it("fails inside the sandbox, whatever limits it", function()
    local sb <close> = sandbox.create { memory = 128, disk = "64MiB" }
    local r = sb:exec({ "sh", "-c", "exec tail /dev/zero" }, { timeout = 60 })
    assert.is_false(r.ok)
    assert.is_true(r.reason == "oom" or r.reason == "exited", r.reason)
    assert.is_true(sb:exec({ "true" }).ok)
  end)

  it("is oom, with no exit code, and the sandbox lives on", function()
    if not machine.has_limits() then return pending(machine.no_limits) end
    local sb <close> = sandbox.create { memory = 128, disk = "64MiB" }
    local r = sb:exec({ "sh", "-c", "echo before; exec tail /dev/zero" }, { timeout = 60 })
    assert.equal("oom", r.reason)
    assert.is_nil(r.exit_code)
    assert.is_false(r.ok)
    assert.equal("before\n", r.stdout)
    assert.is_true(sb:exec({ "true" }).ok)
  end)

  it("is not what a full disk is", function()
    local sb <close> = sandbox.create { memory = 128, disk = "32MiB" }
    local r = sb:exec "dd if=/dev/zero of=/tmp/fill bs=1M count=200 2>&1"
    assert.equal("exited", r.reason)
    assert.equal(1, r.exit_code)
    expect.contains(r.stdout, "No space left on device")
    assert.is_true(sb:exec("rm /tmp/fill && echo again >/tmp/x").ok)
  end)

  it("of a child is the command's own business", function()
    if not machine.has_limits() then return pending(machine.no_limits) end
    local sb <close> = sandbox.create { memory = 128, disk = "32MiB" }
    local r = sb:exec({ "sh", "-c", "(exec tail /dev/zero); echo child $?" }, { timeout = 60 })
    assert.equal("exited", r.reason)
    assert.equal("child 137\n", r.stdout)
  end)

  it("in one sandbox leaves its neighbour alone", function()
    if not machine.has_limits() then return pending(machine.no_limits) end
    local a <close> = sandbox.create { memory = 128, disk = "32MiB" }
    local b <close> = sandbox.create { memory = 128, disk = "32MiB" }
    local quiet = task.spawn(function() return b:exec { "sh", "-c", "sleep 1; echo fine" } end)
    assert.equal("oom", a:exec({ "tail", "/dev/zero" }).reason)
    assert.equal("fine\n", quiet:wait().stdout)
  end)
end)

describe("too many processes", function()
  it("fails inside the sandbox and nowhere else", function()
    local sb <close> = sandbox.create { pids = 32 }
    local r = sb:exec({ "sh", "-c", "for i in $(seq 60); do sleep 3 & done; echo survived" },
      { timeout = 20 })
    assert.not_equal("unknown", r.reason)
    expect.contains(r.stderr, "fork")
    task.sleep(0.1)
  end)
end)

describe("a flood of output", function()
  local sb
  setup(function() sb = sandbox.create { timeout = 200 } end)
  teardown(function() sb:terminate() end)

  it("is counted to the byte and kept within bounds", function()
    local before = sys.status(sys.self, "VmHWM")
    local r = sb:exec({ "head", "-c", "1G", "/dev/zero" }, { timeout = 100 })
    assert.is_true(r.ok)
    assert.equal(1 << 30, r.stdout_bytes)
    assert.is_true(r.truncated.stdout)
    assert.is_false(r.truncated.stderr)
    expect.between(1 << 20, 8 << 20, #r.stdout, "bytes kept")
    expect.between(0, 64 * 1024, sys.status(sys.self, "VmHWM") - before,
      "KiB that the host grew by")
  end)

  it("keeps the first and the last half", function()
    local r = sb:exec({ "sh", "-c",
      "echo first; head -c 200000 /dev/zero | tr '\\0' x; echo last" },
      { max_output = "4KiB" })
    assert.is_true(r.truncated.stdout)
    assert.equal("first\n", r.stdout:sub(1, 6))
    assert.equal("last\n", r.stdout:sub(-5))
    assert.equal(200011, r.stdout_bytes)
    expect.between(4000, 4096, #r.stdout, "bytes kept")
  end)

  it("of exactly max_output is not truncated", function()
    local r = sb:exec({ "head", "-c", "4096", "/dev/zero" }, { max_output = "4KiB" })
    assert.is_false(r.truncated.stdout)
    assert.equal(4096, #r.stdout)
    r = sb:exec({ "head", "-c", "4097", "/dev/zero" }, { max_output = "4KiB" })
    assert.is_true(r.truncated.stdout)
    assert.equal(4097, r.stdout_bytes)
  end)

  it("that never ends is ended by the time-out", function()
    local r = sb:exec({ "cat", "/dev/zero" }, { timeout = 1 })
    assert.equal("timeout", r.reason)
    assert.is_true(r.truncated.stdout)
    expect.between(900, 4000, r.duration_ms)
    assert.is_nil(alive(sb).cat)
  end)

  it("that nobody will see is read at leisure: its command mostly waits", function()
    local r = sb:exec({ "cat", "/dev/zero" }, { timeout = 1 })
    expect.between(0, r.duration_ms // 2, r.usage.cpu_ms, "ms of processor time")
    assert.is_true(r.stdout_bytes > #r.stdout)
    local p = sb:spawn({ "cat", "/dev/zero" }, { timeout = 1 })
    r = p:wait()
    assert.equal("timeout", r.reason)
    expect.between(0, r.duration_ms // 2, r.usage.cpu_ms, "ms of processor time")
  end)

  it("ends with output_limit where asked", function()
    local r = sb:exec({ "sh", "-c", "sleep 100 & cat /dev/zero" },
      { max_output = "1MiB", on_overflow = "kill" })
    assert.equal("output_limit", r.reason)
    assert.is_nil(r.exit_code)
    assert.is_true(r.truncated.stdout)
    assert.is_nil(alive(sb).sleep)
  end)

  it("on both streams at once is fine", function()
    local r = sb:exec({ "sh", "-c", "head -c 50M /dev/zero & head -c 50M /dev/zero >&2; wait" },
      { timeout = 60 })
    assert.is_true(r.ok)
    assert.equal(50 << 20, r.stdout_bytes)
    assert.equal(50 << 20, r.stderr_bytes)
  end)

  it("slows down to the pace of a slow callback", function()
    local seen, calls = 0, 0
    local before = sys.status(sys.self, "VmRSS")
    local r = sb:exec({ "head", "-c", "64M", "/dev/zero" }, {
      max_output = "1KiB",
      on_stdout = function(chunk)
        seen, calls = seen + #chunk, calls + 1
        if calls <= 10 then task.sleep(0.05) end
        if calls == 10 then
          expect.between(0, 32 * 1024, sys.status(sys.self, "VmRSS") - before,
            "KiB that the host grew by")
        end
      end,
    })
    assert.is_true(r.ok)
    assert.equal(64 << 20, seen)
  end)
end)

describe("terminate", function()
  it("races an exec, and one of the two honest answers comes", function()
    local seed = math.random(1e6)
    math.randomseed(seed)
    local seen = {}
    for i = 1, 40 do
      local sb = sandbox.create {}
      local t = task.spawn(function() return pcall(sb.exec, sb, { "sleep", "20" }) end)
      if i % 4 > 0 then task.sleep(math.random() * 0.008) end
      sb:terminate()
      local ok, r = t:wait()
      if ok then
        assert.equal("terminated", r.reason, "seed " .. seed)
        assert.is_nil(r.exit_code)
      else
        assert.equal("sandbox_terminated", r.code, "seed " .. seed)
        assert.equal(410, r.status)
      end
      seen[ok and "result" or "error"] = true
    end
    assert.is_true(seen.result, "no exec was ever under way")
  end)

  it("returns once the last process is dead", function()
    local mine = {}
    for _, p in ipairs(sys.below()) do mine[p.pid] = true end
    local sb = sandbox.create {}
    sb:exec "for i in 1 2 3 4 5 6 7 8; do setsid sleep 99 & done"
    local function sleeps()
      local n = 0
      for _, p in ipairs(sys.below()) do
        if p.name == "sleep" and not mine[p.pid] then n = n + 1 end
      end
      return n
    end
    assert.equal(8, sleeps())
    sb:terminate()
    assert.equal(0, sleeps())
  end)

  it("may be said twice, and at once", function()
    local sb = sandbox.create {}
    task.map({ 1, 2, 3, 4 }, {}, function() sb:terminate() end)
    sb:terminate()
    sandbox.terminate(sb.sandbox_id)
    assert.equal("terminated", sb:status().status)
    assert.equal("terminated", sb:status().reason)
  end)

  it("keeps what a running command had printed", function()
    local sb = sandbox.create {}
    local printed = false
    local t = task.spawn(function()
      return sb:exec({ "sh", "-c", "echo partial; sleep 50" },
        { on_stdout = function() printed = true end })
    end)
    expect.eventually(5, "the first output", function() return printed end)
    sb:terminate()
    local r = t:wait()
    assert.equal("terminated", r.reason)
    assert.equal("partial\n", r.stdout)
  end)
end)

describe("a sandbox that is gone", function()
  it("answers 410 to exec after terminate", function()
    local sb = sandbox.create {}
    sb:terminate()
    local want = { code = "sandbox_terminated", status = 410, sandbox_id = sb.sandbox_id,
      retryable = false }
    expect.raises(want, sb.exec, sb, { "true" })
    expect.raises({ code = "sandbox_terminated", status = 410 }, sandbox.exec, sb.sandbox_id,
      { "true" })
  end)

  it("answers 408 to exec after its life-time, and the command in flight is a result", function()
    local sb = sandbox.create { timeout = 1 }
    local r = sb:exec { "sh", "-c", "echo alive; sleep 60" }
    assert.equal("sandbox_timeout", r.reason)
    assert.is_nil(r.exit_code)
    assert.equal("alive\n", r.stdout)
    expect.between(700, 2500, r.duration_ms)
    expect.raises({ code = "sandbox_timeout", status = 408, sandbox_id = sb.sandbox_id }, sb.exec,
      sb, { "true" })
    local st = sb:status()
    assert.equal("terminated", st.status)
    assert.equal("sandbox_timeout", st.reason)
    sb:terminate()
  end)

  it("answers 404 to an id that never was", function()
    for _, id in ipairs { "sb_0000000000", "whatever", "sb_" .. ("z"):rep(50) } do
      expect.raises({ code = "sandbox_not_found", status = 404 }, sandbox.exec, id, { "true" })
      expect.raises({ code = "sandbox_not_found", status = 404 }, sandbox.status, id)
      expect.raises({ code = "sandbox_not_found", status = 404 }, sandbox.get, id)
      expect.raises({ code = "sandbox_not_found", status = 404 }, sandbox.terminate, id)
    end
  end)
end)

describe("many execs", function()
  it("200 at once in one sandbox each get their own answer", function()
    local sb <close> = sandbox.create { pids = 2048 }
    local numbers = {}
    for i = 1, 200 do numbers[i] = i end
    local out = task.map(numbers, { limit = 200, deadline = "60s" }, function(i)
      return sb:exec(("sleep 0.3; echo out%d; echo err%d >&2; exit %d"):format(i, i, i))
    end)
    for i = 1, 200 do
      assert.equal("exited", out[i].reason)
      assert.equal(i, out[i].exit_code)
      assert.equal("out" .. i .. "\n", out[i].stdout)
      assert.equal("err" .. i .. "\n", out[i].stderr)
    end
    assert.equal(200, sb:status().commands_executed)
  end)

  it("run beside each other, unqueued", function()
    local sb <close> = sandbox.create {}
    local start = task.now()
    task.map({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, {},
      function() return sb:exec { "sleep", "0.5" } end)
    expect.between(0.45, 2.5, task.now() - start, "seconds for ten sleeps of half a second")
  end)

  it("one after the other leave no descriptor behind", function()
    local sb <close> = sandbox.create {}
    sb:exec { "true" }
    local before = sys.fd_count(sys.self)
    for _ = 1, 100 do sb:exec { "true" } end
    assert.equal(before, sys.fd_count(sys.self))
  end)
end)

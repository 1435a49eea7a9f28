-- Spawned commands: their input, output, signals and ends.
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

local HEAD = [[
local sandbox = require "sandbox"
local task = require "task"
local function fails(fn, ...)
  local ok, e = pcall(fn, ...)
  assert(not ok, "it did not fail")
  return type(e) == "table" and e.code .. " " .. (e.field or "-") or tostring(e)
end
local function same(got, want)
  if got ~= want then error(("got %s, want %s"):format(got, want), 2) end
end
local sb <close> = sandbox.create { timeout = 60 }
]]

for _, mode in ipairs { "workers", "in process" } do
  describe("spawned commands (" .. mode .. ")", function()
    local before
    before_each(function() before = leftovers.before() end)
    after_each(function()
      files.clean()
      leftovers.none_since(before, 5)
    end)

    local function run(text, ...)
      local argv = { "run", ... }
      if mode == "in process" then argv[#argv + 1] = "--trust" end
      argv[#argv + 1] = files.script("s.lua", HEAD .. text)
      local r = proc.cli(argv, { timeout = 60 })
      assert.equal(0, r.status, r.stdout .. r.stderr)
      return r.stdout
    end

    it("are written to and read from while they run", function()
      run [[
        local p = sb:spawn "while read l; do echo \"<$l>\"; done; echo bye >&2; exit 4"
        assert(p.pid > 1)
        same(sb:exec({ "cat", ("/proc/%d/comm"):format(p.pid) }).stdout, "sh\n")
        local next_line = p:lines()
        for i = 1, 3 do
          p:write(i .. "\n")
          same(next_line(), ("<%d>"):format(i))
        end
        p:write "a\n\nb\nlast without an end"
        p:close_stdin()
        p:close_stdin()
        local rest = {}
        for line in p:lines() do rest[#rest + 1] = line end
        same(table.concat(rest, ","), "<a>,<>,<b>")
        local r = p:wait()
        same(r.reason .. r.exit_code .. r.stderr, "exited4bye\n")
        same(r.stdout, "<1>\n<2>\n<3>\n<a>\n<>\n<b>\n")
        assert(p:wait() == r and not r.ok)
        same(fails(p.write, p, "more"), "conflict -")
        same(p:lines()(), nil)
        same(p:lines "stderr"(), "bye")
        -- Input that was given is all there is.
        p = sb:spawn({ "cat" }, { stdin = "no newline" })
        same(fails(p.write, p, "x"), "conflict -")
        same(p:lines()(), "no newline")
        same(p:wait().stdout, "no newline")
      ]]
    end)

    it("take more input than anything holds at once", function()
      run [[
        local p = sb:spawn "sleep 0.2; wc -c"
        p:write(("x"):rep(9000000))
        p:close_stdin()
        same(p:wait().stdout, "9000000\n")
        p = sb:spawn { "sleep", "60" } -- never reads
        same(fails(task.timeout, 0.3, p.write, p, ("x"):rep(3000000)), "timeout -")
        p:kill()
        -- A reader that goes away swallows the rest.
        p = sb:spawn { "head", "-c", "3" }
        p:write "abcdefghi"
        same(p:wait().stdout, "abc")
      ]]
    end)

    it("get signals by name and number; without one all that they started ends", function()
      run [[
        local trap = "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo up; "
          .. "while :; do sleep 0.02; done"
        local p = sb:spawn(trap)
        local lines = p:lines()
        same(lines(), "up")
        p:kill "SIGUSR1"
        same(lines(), "usr1")
        p:kill(10)
        same(lines(), "usr1")
        p:kill "term"
        same(p:wait().exit_code, 3)
        p:kill "TERM"
        p:kill()
        for _, bad in ipairs { "TREM", "", 0, 99, -1, {} } do
          same(fails(p.kill, p, bad), "invalid_argument signal")
        end
        p = sb:spawn "setsid sleep 71 & sleep 72"
        task.sleep(0.1)
        p:kill()
        local r = p:wait()
        same(r.reason .. r.signal, "signalSIGKILL")
        same(sb:exec("pgrep sleep || echo none").stdout, "none\n")
        p = sb:spawn { "sleep", "73" }
        p:kill "KILL"
        same(p:wait().signal, "SIGKILL")
      ]]
    end)

    it("wait for a reader that is slow, and for none that is gone", function()
      run([[
        -- Slow: nothing is lost, and the command is held up.
        local p = sb:spawn({ "seq", "400000" }, { max_output = 1 })
        local n = 0
        for line in p:lines() do
          n = n + 1
          assert(line == tostring(n), line)
          if n % 100000 == 0 then task.sleep(0.2) end
        end
        same(n, 400000)
        local r = p:wait()
        assert(r.truncated.stdout and #r.stdout == 1 << 20 and r.stdout_bytes == 2688895)
        -- Gone, and nobody waits: it is held up.
        p = sb:spawn("seq 400000; echo end >&2; echo x >/tmp/done", { max_output = 1 })
        for _ in p:lines() do break end
        task.sleep(0.5)
        same(fails(sb.stat, sb, "/tmp/done"), "not_found path")
        -- Gone, and somebody waits: it goes on, and says what was lost.
        same(p:wait().stdout_bytes, 2688895)
        local code
        repeat
          local ok, e = pcall(function() for _ in p:lines() do n = n + 1 end end)
          code = not ok and e.code or code
        until ok
        same(code, "limit")
        -- Nobody reads at all: it never waits.
        p = sb:spawn { "seq", "400000" }
        same(p:wait().stdout_bytes, 2688895)
        p = sb:spawn({ "yes" }, { on_overflow = "kill", max_output = 1 })
        same(p:wait().reason, "output_limit")
      ]])
    end)

    it("end with their time-out and their sandbox, and say so afterwards", function()
      run [[
        local late = sb:spawn({ "sleep", "74" }, { timeout = 0.1 })
        same(late:wait().reason, "timeout")
        same(fails(sb.spawn, sb, { "true" }, { cwd = "/none" }), "invalid_argument cwd")
        same(fails(sb.spawn, sb, { "true" }, { user = "nosuch" }), "invalid_argument user")
        same(fails(sb.spawn, sb, { "true" }, { on_stdout = print }), "invalid_argument on_stdout")
        same(fails(sb.spawn, sb, { "true" }, { stream = true }), "invalid_argument stream")
        same(fails(sb.spawn, sb), "invalid_argument command")
        same(sb:spawn({ "no-such-thing" }):wait().exit_code, 127)
        same(fails(function() sb:spawn({ "false" }, { check = true }):wait() end),
          "command_failed -")
        local seen = {}
        sandbox.on("exec_done", function(_, r) seen[#seen + 1] = r.reason end)
        local p = sb:spawn { "sleep", "75" }
        local waits = {}
        for i = 1, 2 do waits[i] = task.spawn(function() return p:wait().reason end) end
        local reader = task.spawn(function() return p:lines()() or "end" end)
        task.sleep(0.05)
        same(sb:status().commands_executed, 6)
        sb:terminate()
        same(waits[1]:wait() .. waits[2]:wait() .. reader:wait(), "terminatedterminatedend")
        same(p:wait().reason, "terminated")
        same(table.concat(seen, " "), "terminated")
        same(fails(sb.spawn, sb, { "true" }), "sandbox_terminated -")
        p:kill()
      ]]
    end)

    it("go on while other things happen, and end with the script", function()
      run [[
        local server = sb:spawn { "sh", "-c", "echo ready; exec sleep 76" }
        same(server:lines()(), "ready")
        same(sb:exec("echo beside").stdout, "beside\n")
        local list = {}
        for i = 1, 40 do list[i] = sb:spawn { "sh", "-c", "read x; echo $x" } end
        for i, p in ipairs(list) do p:write(i .. "\n") end
        for i, p in ipairs(list) do same(p:wait().stdout, i .. "\n") end
        sb:spawn("setsid sleep 77 & exec sleep 78") -- nobody waits
      ]]
    end)

    it("are commands to whoever watches", function()
      local out = run([[
        local p = sb:spawn { "echo", "seen" }
        p:wait()
      ]], "--json")
      assert.is_truthy(out:find('"event":"exec_started"[^\n]*"echo"'), out)
      assert.is_truthy(out:find('"event":"exec_done"[^\n]*"reason":"exited"'), out)
    end)
  end)
end

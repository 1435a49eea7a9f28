-- However a run ends, nothing of it stays: no process, mount, cgroup, namespace or file. Each case
-- runs the real binary with creates, execs and terminates under way, and looks afterwards.
local task = require "task"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"

local seed = tonumber(os.getenv "REGOLITH_SEED") or os.time() % 1000000
local KILLS = tonumber(os.getenv "REGOLITH_KILLS") or 200

-- Sandboxes come and go; commands run, flee, time out and flood; some are idle.
local BUSY = [[
local sandbox, task = require "sandbox", require "task"
local g <close> = task.group {}
for i = 1, 3 do
  g:spawn(function()
    while true do
      local sb <close> = sandbox.create {}
      sb:exec "echo x >/tmp/file; setsid sleep 61 & echo started"
      sb:exec({ "sleep", "62" }, { timeout = 0.01 * i })
      sb:exec "true"
    end
  end)
end
g:spawn(function()
  local sb <close> = sandbox.create {}
  for i = 1, 4 do task.spawn(function() sb:exec { "sleep", "63" } end) end
  sb:exec { "sleep", "64" }
end)
g:spawn(function()
  local sb = sandbox.create { disk = "64MiB" }
  sb:exec({ "sh", "-c", "cat /dev/zero | head -c 1G" })
  sb:exec { "sleep", "65" }
end)
print "busy"
]]

-- Where no janitor was left the kernel ends the processes; groups go with the next start.
local function sweep() assert.equal(0, proc.cli({ "exec", "--", "true" }).status) end

-- The process of ours below `pid` that calls itself `title`.
local function find(pid, title)
  for _, p in ipairs(sys.below(pid)) do
    if sys.title(p.pid):find(title, 1, true) then return p.pid end
  end
end

describe("nothing is left after", function()
  local before
  before_each(function() before = leftovers.before() end)
  after_each(function()
    files.clean()
    leftovers.none_since(before, 5)
  end)

  -- Starts the busy script and gives it `after` seconds of work.
  local function busy(after, more)
    local p = proc.cli_start { "run", files.script("busy.lua", (more or "") .. BUSY) }
    p:expect("busy\n", 10)
    task.sleep(after or 0.2)
    return p
  end

  it("a normal end with sandboxes that nobody terminated", function()
    local r = proc.cli { "run", files.script("a.lua", [[
      local sandbox = require "sandbox"
      for i = 1, 5 do
        local sb = sandbox.create {}
        sb:exec "setsid sleep 66 & setsid sh -c 'trap \"\" TERM INT HUP; sleep 67' & echo up"
      end
    ]]) }
    assert.equal(0, r.status)
    leftovers.none_since(before, 0.5, "a normal end")
  end)

  it("many sandboxes that are ended at once, while others are made", function()
    local r = proc.cli { "run", files.script("a.lua", [[
      local sandbox, task = require "sandbox", require "task"
      local some, others = {}, {}
      for i = 1, 100 do some[i] = sandbox.create {} end
      task.spawn(function()
        for i = 1, 100 do others[i] = sandbox.create {} end
        others[100]:exec({ "true" }):check()
      end)
      task.map(some, { limit = 100 }, function(sb) sb:terminate() end)
      print "ended"
    ]]) }
    assert.equal(0, r.status, r.stderr)
    expect.contains(r.stdout, "ended")
    leftovers.none_since(before, 0.5, "the end of many")
  end)

  it("error()", function()
    local r = proc.cli { "run", files.script("a.lua", [[
      local sandbox, task = require "sandbox", require "task"
      task.spawn(function() sandbox.create {}:exec { "sleep", "68" } end)
      local sb = sandbox.create {}
      sb:exec "setsid sleep 69 &"
      error "over"
    ]]) }
    assert.equal(1, r.status)
    leftovers.none_since(before, 0.5, "error()")
  end)

  it("a script's time-out", function()
    local r = proc.cli { "run", "--timeout", "1s", files.script("a.lua", BUSY) }
    assert.equal(124, r.status)
    expect.between(900, 5000, r.duration_ms, "ms")
    leftovers.none_since(before, 0.5, "a time-out")
  end)

  it("Ctrl-C, with the script's own cleanup", function()
    local p = busy(0.2, [[
      on_exit(function(why)
        require("task").sleep(0.2)
        print("cleaned up after " .. why.kind)
      end)
    ]])
    p:kill("INT", true) -- as a terminal does: to the whole group
    local r = p:wait(12)
    assert.equal(130, r.status)
    expect.contains(r.stdout, "cleaned up after cancelled")
    leftovers.none_since(before, 0.5, "Ctrl-C")
  end)

  it("a second Ctrl-C, which skips the script's cleanup and not ours", function()
    local p = busy(0.2, [[
      on_exit(function()
        print "cleaning"
        require("task").sleep(8)
        print "never"
      end)
    ]])
    p:kill("INT", true)
    p:expect "cleaning\n"
    local start = task.now()
    p:kill("INT", true)
    local r = p:wait(12)
    expect.between(0, 3, task.now() - start, "seconds to the end")
    assert.equal(130, r.status)
    expect.lacks(r.stdout, "never")
    leftovers.none_since(before, 0.5, "a second Ctrl-C")
  end)

  it("SIGTERM and SIGHUP", function()
    for _, signal in ipairs { "TERM", "HUP" } do
      local p = busy()
      p:kill(signal)
      local r = p:wait(12)
      assert.is_true(r.status ~= 0, signal)
      leftovers.none_since(before, 0.5, signal)
    end
  end)

  it("Ctrl-C of a run of several scripts", function()
    local dir = files.dir "several"
    for _, n in ipairs { "a", "b", "c" } do files.write(dir .. "/" .. n .. ".lua", BUSY) end
    local p = proc.cli_start { "run", dir .. "/a.lua", dir .. "/b.lua", dir .. "/c.lua" }
    p:expect "busy"
    task.sleep(0.3)
    p:kill("INT", true)
    assert.equal(130, p:wait(15).status)
  end)

  it("Ctrl-C of an exec", function()
    local p = proc.cli_start { "exec", "--", "sh", "-c", "echo up; setsid sleep 70 & sleep 71" }
    p:expect "up"
    p:kill("INT", true)
    local r = p:wait(10)
    assert.is_true(r.status == 130 or r.signal == "SIGINT", tostring(r.status))
  end)

  it("kill -9 of an exec", function()
    local p = proc.cli_start { "exec", "--", "sh", "-c", "echo up; setsid sleep 72 & sleep 73" }
    p:expect "up"
    p:kill "KILL"
    assert.equal("SIGKILL", p:wait(5).signal)
  end)

  it("kill -9 of the warden alone: execs end as unknown, and work goes on", function()
    local p = proc.cli_start { "run", files.script("a.lua", [[
      local sandbox, task = require "sandbox", require "task"
      local sb = sandbox.create {}
      local t = task.spawn(function() return sb:exec "echo partial; sleep 74" end)
      task.sleep(0.3)
      print "ready"
      local r = t:wait()
      print("reason " .. r.reason, r.exit_code, #r.stdout)
      local ok, e = pcall(sb.exec, sb, { "true" })
      print("then", ok, e and e.code)
      local again <close> = sandbox.create {}
      io.write(again:exec({ "echo", "alive again" }).stdout)
    ]]) }
    p:expect("ready\n", 10)
    local warden = find(p.pid, "regolith: warden")
    assert.is_truthy(warden, "no process calls itself regolith: warden")
    proc.kill(warden, "KILL")
    local r = p:wait(15)
    expect.contains(r.stdout, "reason unknown\tnil")
    expect.contains(r.stdout, "then\tfalse")
    expect.contains(r.stdout, "alive again\n")
    assert.equal(0, r.status)
  end)

  it("kill -9 of the warden at random moments of busy work", function()
    for _ = 1, 10 do
      local p = busy(math.random() * 0.1)
      local warden = find(p.pid, "regolith: warden")
      if warden then proc.kill(warden, "KILL") end
      task.sleep(math.random() * 0.1)
      p:kill(math.random() < 0.5 and "KILL" or "TERM")
      p:wait(12)
    end
    sweep()
  end)

  it("kill -9 of runner and warden at once", function()
    for _ = 1, 5 do
      local p = busy(math.random() * 0.1)
      local warden = find(p.pid, "regolith: warden")
      proc.kill(p.pid, "KILL")
      if warden then proc.kill(warden, "KILL") end
      p:wait(5)
    end
    sweep()
  end)

  it("kill -9 of an agent: its sandbox ends, the others do not", function()
    local p = proc.cli_start { "run", files.script("a.lua", [[
      local sandbox, task = require "sandbox", require "task"
      local a, b = sandbox.create {}, sandbox.create {}
      print("id " .. a.sandbox_id)
      local r = a:exec "echo here; sleep 75"
      print("reason " .. r.reason, r.exit_code)
      io.write(b:exec({ "echo", "untouched" }).stdout)
    ]]) }
    local id = p:expect "id (sb_%w+)\n"
    local agent = expect.eventually(5, "the agent", function()
      return find(p.pid, "regolith: agent " .. id)
    end)
    task.sleep(0.2)
    proc.kill(agent, "KILL")
    local r = p:wait(10)
    assert.is_nil(r.stdout:match "reason %a+\t%d", "an exit code was guessed:\n" .. r.stdout)
    expect.contains(r.stdout, "untouched\n")
  end)

  it(("kill -9 of the runner at %d random moments (REGOLITH_SEED=%d)"):format(KILLS, seed),
    function()
    math.randomseed(seed)
    local path = files.script("busy.lua", BUSY)
    local rounds, alive = math.ceil(KILLS / 4), 0
    for round = 1, rounds do
      -- Four at a time: what one leaves must not be what another one removes.
      task.map({ 1, 2, 3, 4 }, {}, function()
        local p = proc.cli_start { "run", path }
        -- From before the first create to the middle of everything.
        task.sleep(math.random() ^ 2 * 0.15)
        for _, b in ipairs(sys.below(p.pid)) do
          if sys.title(b.pid):find("regolith: agent", 1, true) then
            alive = alive + 1
            break
          end
        end
        p:kill "KILL"
        local r = p:wait(10)
        assert.equal("SIGKILL", r.signal)
      end)
      leftovers.none_since(before, 5, ("round %d of %d, seed %d"):format(round, rounds, seed))
    end
    expect.between(KILLS / 3, KILLS, alive, "kills that met living sandboxes")
  end)

  it("a reader of its output that goes away", function()
    local p = proc.cli_start({ "run", files.script("a.lua", BUSY .. [[
      while true do print(("x"):rep(1000)) task.sleep(0.001) end
    ]]) }, { close_stdout = true })
    task.sleep(0.5)
    p:kill "TERM"
    p:wait(12)
  end)
end)

describe("a runner", function()
  after_each(files.clean)

  it("is recognisable from outside, with its helpers", function()
    local p = proc.cli_start { "run", files.script("a.lua", [[
      local sb <close> = require("sandbox").create {}
      print("id " .. sb.sandbox_id)
      sb:exec { "sleep", "76" }
    ]]) }
    local id = p:expect "id (sb_%w+)\n"
    assert.is_truthy(find(p.pid, "regolith: warden"))
    assert.is_truthy(find(p.pid, "regolith: agent " .. id))
    p:kill "INT"
    p:wait(10)
  end)

  it("shows a command in a sandbox no host process", function()
    local r = proc.cli { "exec", "--", "sh", "-c", "echo /proc/[0-9]*" }
    local n = select(2, r.stdout:gsub("/proc/%d+", ""))
    expect.between(1, 4, n, "processes seen inside")
  end)

  it("does not grow with the sandboxes it has had", function()
    local p = proc.cli_start { "run", files.script("a.lua", [[
      local sandbox, task = require "sandbox", require "task"
      local function round()
        for i = 1, 25 do
          local sb <close> = sandbox.create {}
          sb:exec "true"
        end
      end
      round()
      print "first"
      task.sleep(0.4)
      for i = 1, 4 do round() end
      print "last"
      task.sleep(5)
    ]]) }
    p:expect("first\n", 20)
    task.sleep(0.2)
    local fds = sys.fd_count(p.pid)
    local warden = find(p.pid, "regolith: warden")
    local warden_fds = warden and sys.fd_count(warden)
    p:expect("last\n", 30)
    task.sleep(0.3)
    expect.between(0, fds + 1, sys.fd_count(p.pid), "descriptors of the runner")
    if warden_fds then -- root alone may look
      expect.between(0, warden_fds + 2, sys.fd_count(warden), "descriptors of the warden")
    end
    p:kill "INT"
    p:wait(10)
  end)
end)

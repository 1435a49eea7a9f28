-- The sandbox module, field by field: what create takes and refuses, what a handle and a status
-- show, what list, get, run, tags, names, idle time-outs, extend and the events do.
local sandbox = require "sandbox"
local task = require "task"
local expect = require "spec.support.expect"
local machine = require "spec.support.machine"

local function invalid(field, opts, match)
  return expect.raises({ code = "invalid_argument", status = 400, field = field, match = match },
    sandbox.create, opts)
end

-- Seconds since the epoch of YYYY-MM-DDTHH:MM:SSZ; only differences are used.
local function seconds(iso)
  local y, mo, d, h, mi, s = iso:match "^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)Z$"
  assert(y, "not a time: " .. tostring(iso))
  return os.time { year = y, month = mo, day = d, hour = h, min = mi, sec = s }
end

describe("sandbox.create", function()
  it("shows the defaults of what was left out", function()
    local sb <close> = sandbox.create {}
    local c = sb.config
    assert.equal("host", c.image)
    assert.equal("none", c.network)
    assert.equal(1, c.cpu)
    assert.equal(1024, c.memory)
    assert.equal(1024, c.disk)
    assert.equal(300, c.timeout)
    assert.equal(0, c.idle_timeout)
    assert.equal("local", sb.engine)
    assert.equal("default", sb.app_id)
    assert.is_nil(sb.name)
  end)

  it("needs no argument at all", function()
    local sb <close> = sandbox.create()
    assert.equal("host", sb.config.image)
  end)

  it("gives a handle with its fields", function()
    local sb <close> = sandbox.create { tags = { run = "42", kind = "test" }, app_id = "mine",
      name = "db", timeout = 77 }
    assert.is_truthy(sb.sandbox_id:match "^sb_[0-9a-z]+$" and #sb.sandbox_id == 13, sb.sandbox_id)
    assert.equal("mine", sb.app_id)
    assert.equal("db", sb.name)
    assert.equal("42", sb.tags.run)
    assert.equal("test", sb.tags.kind)
    assert.equal(0, sb.cost)
    assert.equal(77, seconds(sb.expires_at) - seconds(sb.created_at))
    expect.between(-2, 2, seconds(os.date "!%Y-%m-%dT%H:%M:%SZ") - seconds(sb.created_at), "age")
  end)

  it("gives ids that are never the same", function()
    local seen = {}
    for _ = 1, 10 do
      local sb <close> = sandbox.create {}
      assert.is_nil(seen[sb.sandbox_id])
      seen[sb.sandbox_id] = true
    end
  end)

  it("takes durations and sizes in each form", function()
    local sb <close> = sandbox.create { timeout = "5m", idle_timeout = "90s", memory = "512MiB",
      disk = "2GiB", pids = 64 }
    assert.equal(300, sb.config.timeout)
    assert.equal(90, sb.config.idle_timeout)
    assert.equal(512, sb.config.memory)
    assert.equal(2048, sb.config.disk)
    local other <close> = sandbox.create { timeout = "120", memory = "256", cpu = "0.5" }
    assert.equal(120, other.config.timeout)
    assert.equal(256, other.config.memory)
    assert.equal(0.5, other.config.cpu)
  end)

  it("refuses values out of range, never clamps, and names field and value", function()
    invalid("timeout", { timeout = 0 }, "0")
    invalid("timeout", { timeout = 86401 }, "86401")
    invalid("timeout", { timeout = -1 })
    invalid("timeout", { timeout = 1.5 }, "1.5")
    invalid("timeout", { timeout = "250ms" }, "250ms")
    invalid("timeout", { timeout = "soon" }, "soon")
    invalid("timeout", { timeout = {} })
    invalid("timeout", { timeout = 0 / 0 })
    invalid("timeout", { timeout = math.huge })
    invalid("idle_timeout", { idle_timeout = -1 }, "-1")
    invalid("cpu", { cpu = 0.1 }, "0.1")
    invalid("cpu", { cpu = "lots" }, "lots")
    invalid("memory", { memory = 127 }, "127")
    invalid("memory", { memory = 128.5 }, "128.5")
    invalid("memory", { memory = "1KiB" }, "1KiB")
    invalid("disk", { disk = -5 })
    invalid("pids", { pids = 0 })
    invalid("image", { image = 7 })
    invalid("image", { image = "" })
    invalid("cwd", { cwd = {} })
    invalid("user", { user = true })
    invalid("name", { name = 5.5 })
    invalid("tags", { tags = "x" })
    invalid("env", { env = "A=1" })
    invalid("network", { network = "sometimes" }, "sometimes")
    invalid("entrypoint", { entrypoint = "one string" })
    invalid("unencrypted_ports", { unencrypted_ports = { 0 } })
    invalid("unencrypted_ports", { unencrypted_ports = { 65536 } }, "65536")
  end)

  it("accepts the ends of the ranges", function()
    local a <close> = sandbox.create { timeout = 1, memory = 128, cpu = 0.125 }
    local b <close> = sandbox.create { timeout = 86400, idle_timeout = 0 }
    assert.equal(1, a.config.timeout)
    assert.equal(0.125, a.config.cpu)
    assert.equal(86400, b.config.timeout)
  end)

  it("names a misspelt field and the one that was meant", function()
    invalid("timout", { timout = 5 }, "timeout")
    invalid("memroy", { memroy = 512 }, "memory")
    invalid("idle_timout", { idle_timout = 5 }, "idle_timeout")
    invalid("zzz", { zzz = 1 }, "zzz")
    expect.raises({ code = "invalid_argument" }, sandbox.create, { "positional" })
    expect.raises({ code = "invalid_argument" }, sandbox.create, "host")
  end)

  it("refuses environment and tags that cannot be", function()
    invalid("env", { env = { ["A=B"] = "1" } })
    invalid("env", { env = { [""] = "1" } })
    invalid("env", { env = { A = {} } })
    invalid("env", { env = { A = "nul\0byte" } })
    invalid("tags", { tags = { a = {} } })
  end)

  it("answers unsupported or capacity, by name, to what this engine cannot do", function()
    local function unsupported(opts, field)
      local ok, e = pcall(sandbox.create, opts)
      assert.is_false(ok)
      assert.equal("table", type(e))
      assert.is_truthy(e.code == "unsupported" or e.code == "capacity" or e.code == "denied",
        expect.show(e))
      assert.equal(field, e.field)
    end
    unsupported({ gpu = "T4" }, "gpu")
    unsupported({ gpu = "t4" }, "gpu")
    unsupported({ gpu = "A100:2" }, "gpu")
    unsupported({ gpu = { "A10G", "T4" } }, "gpu")
    unsupported({ encrypted_ports = { 8000 } }, "encrypted_ports")
    for _, bad in ipairs { { source = "a/b", target = "/d" }, { source = "a", target = "/proc/x" },
      { source = "a", target = "/dev" }, { source = "a", target = "d" },
      { source = "..", target = "/d" },
      { source = "a", target = "/x/.." }, { source = "a", target = "//" } } do
      invalid("volumes", { volumes = { bad } })
    end
    invalid("image", { image = "Not/A:Name:" })
    invalid("gpu", { gpu = "B52" }, "B52")
    invalid("gpu", { gpu = "T4:0" })
  end)

  it("names an engine that is not there", function()
    local e = expect.raises({ field = "engine" }, sandbox.create, { engine = "mainframe" })
    expect.contains(e.message, "mainframe")
  end)

  it("does not read an image directory that was not granted to the script", function()
    local ok, e = pcall(sandbox.create, { image = "dir:/" })
    if ok then e:terminate() end
    assert.is_false(ok)
    assert.equal("image", e.field)
    assert.is_truthy(e.code == "denied" or e.code == "invalid_argument", e.code)
  end)

  it("gives the environment, working directory and user asked for to every command", function()
    local sb <close> = sandbox.create { env = { A = "1", B = "two words" }, cwd = "/usr/bin",
      user = "nobody" }
    assert.equal("1/two words\n", sb:exec("echo $A/$B").stdout)
    assert.equal("/usr/bin\n", sb:exec("pwd").stdout)
    assert.equal("nobody\n", sb:exec("id -un").stdout)
    assert.equal("3/two words\n", sb:exec("echo $A/$B", { env = { A = "3" } }).stdout)
    assert.equal("/tmp\n", sb:exec("pwd", { cwd = "/tmp" }).stdout)
    assert.equal("0\n", sb:exec("id -u", { user = "root" }).stdout)
    assert.equal("1/two words\n", sb:exec("echo $A/$B").stdout)
  end)

  it("gives nothing of our own environment", function()
    local sb <close> = sandbox.create {}
    local r = sb:exec { "env" }
    for name in r.stdout:gmatch "([^=\n]+)=" do
      assert.is_truthy(({ PATH = 1, HOME = 1, PWD = 1, SHLVL = 1, _ = 1, LANG = 1, USER = 1,
        LOGNAME = 1, HOSTNAME = 1,
        TERM = 1, SHELL = 1, TMPDIR = 1 })[name], "unexpected variable " .. name)
    end
    expect.lacks(r.stdout, "REGOLITH_BUILD")
  end)

  it("limits the CPU as the config says", function()
    if not machine.has_limits() then return pending(machine.no_limits) end
    local sb <close> = sandbox.create { cpu = 0.25 }
    local r = sb:exec({ "timeout", "1", "sh", "-c", "while :; do :; done" })
    assert.equal(124, r.exit_code)
    expect.between(50, 600, r.usage.cpu_ms, "CPU time in one second at a quarter CPU")
  end)
end)

describe("status", function()
  it("has every field, and refreshes the handle", function()
    local sb <close> = sandbox.create { tags = { a = "b" }, timeout = 60 }
    for _ = 1, 3 do sb:exec { "true" } end
    sb:exec { "false" }
    pcall(sb.exec, sb, { "true", cwd = "/no/such" })
    local st = sb:status()
    assert.equal(sb.sandbox_id, st.sandbox_id)
    assert.equal("running", st.status)
    assert.is_truthy(st.state == "started" or st.state == "ready", tostring(st.state))
    assert.is_nil(st.reason)
    assert.equal(60, seconds(st.expires_at) - seconds(st.created_at))
    assert.equal("b", st.tags.a)
    assert.equal(60, st.config.timeout)
    assert.equal(0, st.cost)
    expect.between(4, 5, st.commands_executed, "commands_executed")
    assert.equal(st.state, sb.state)
    sb:terminate()
    assert.equal("terminated", sb.state)
  end)

  it("of an ended sandbox says terminated and why", function()
    local sb = sandbox.create {}
    sb:terminate()
    local st = sandbox.status(sb.sandbox_id)
    assert.equal("terminated", st.status)
    assert.equal("terminated", st.state)
    assert.equal("terminated", st.reason)
  end)

  it("counts an exec when it is accepted", function()
    local sb <close> = sandbox.create {}
    local t = task.spawn(function() return sb:exec { "sleep", "0.5" } end)
    task.sleep(0.1)
    assert.equal(1, sb:status().commands_executed)
    t:wait()
    assert.equal(1, sb:status().commands_executed)
  end)
end)

describe("a handle", function()
  it("is closed at the end of its block", function()
    local id
    do
      local sb <close> = sandbox.create {}
      id = sb.sandbox_id
    end
    assert.equal("terminated", sandbox.status(id).status)
  end)

  it("is closed by an error that leaves the block", function()
    local id
    local ok = pcall(function()
      local sb <close> = sandbox.create {}
      id = sb.sandbox_id
      error "out"
    end)
    assert.is_false(ok)
    assert.equal("terminated", sandbox.status(id).status)
  end)

  it("can be closed when it has been terminated already", function()
    local sb <close> = sandbox.create {}
    sb:terminate()
  end)

  it("names what it does not have", function()
    local sb <close> = sandbox.create {}
    local ok, e = pcall(function() return sb:exce { "true" } end)
    assert.is_false(ok)
    assert.equal("string", type(tostring(e)))
  end)

  it("shows its id when printed", function()
    local sb <close> = sandbox.create {}
    expect.contains(tostring(sb), sb.sandbox_id)
  end)
end)

describe("sandbox.get and the functions by id", function()
  it("find a sandbox of this script", function()
    local sb <close> = sandbox.create { tags = { x = "1" } }
    local other = sandbox.get(sb.sandbox_id)
    assert.equal(sb.sandbox_id, other.sandbox_id)
    assert.equal("1", other.tags.x)
    assert.equal("hi\n", other:exec({ "echo", "hi" }).stdout)
    assert.equal("ho\n", sandbox.exec(sb.sandbox_id, { "echo", "ho" }).stdout)
    assert.equal("he\n", sandbox.exec(sb.sandbox_id, "echo he", { timeout = 5 }).stdout)
    sandbox.terminate(sb.sandbox_id)
    assert.equal("terminated", sb:status().status)
  end)

  it("refuse what is no id", function()
    for _, id in ipairs { 5, true, {} } do
      local ok, e = pcall(sandbox.get, id)
      assert.is_false(ok)
      assert.is_truthy(e.code == "invalid_argument" or e.code == "sandbox_not_found")
    end
    expect.raises({ code = "invalid_argument" }, sandbox.get)
  end)
end)

describe("sandbox.list", function()
  it("filters by tags, app_id and state", function()
    local a <close> = sandbox.create { tags = { run = "7", kind = "x" }, app_id = "one" }
    local b <close> = sandbox.create { tags = { run = "7", kind = "y" }, app_id = "two" }
    local function ids(filter)
      local set, n = {}, 0
      for _, s in ipairs(sandbox.list(filter)) do set[s.sandbox_id], n = true, n + 1 end
      return set, n
    end
    local set, n = ids { tags = { run = "7" } }
    assert.equal(2, n)
    assert.is_true(set[a.sandbox_id] and set[b.sandbox_id])
    set, n = ids { tags = { run = "7", kind = "x" } }
    assert.equal(1, n)
    assert.is_true(set[a.sandbox_id])
    set, n = ids { app_id = "two" }
    assert.equal(1, n)
    assert.is_true(set[b.sandbox_id])
    n = select(2, ids { tags = { run = "8" } })
    assert.equal(0, n)
    b:terminate()
    set = ids { state = "terminated" }
    assert.is_true(set[b.sandbox_id])
    assert.is_nil(set[a.sandbox_id])
    set = ids {}
    assert.is_true(set[a.sandbox_id])
    set = ids()
    assert.is_true(set[a.sandbox_id])
    expect.raises({ code = "invalid_argument", field = "tag", match = "tags" }, sandbox.list,
      { tag = {} })
    expect.raises({ code = "invalid_argument", field = "state" }, sandbox.list,
      { state = "asleep" })
  end)
end)

describe("names", function()
  it("can be given again once the first is gone", function()
    local a = sandbox.create { name = "db" }
    a:terminate()
    local b <close> = sandbox.create { name = "db" }
    assert.equal("db", b.name)
  end)
end)

describe("life-time", function()
  it("ends an idle sandbox at its idle time-out, but not while an exec runs", function()
    local sb = sandbox.create { idle_timeout = 1 }
    local r = sb:exec { "sleep", "1.6" }
    assert.equal("exited", r.reason)
    for _ = 1, 4 do
      task.sleep(0.1)
      assert.equal("running", sb:status().status)
    end
    expect.eventually(3, "the idle time-out",
      function() return sb:status().status == "terminated" end)
    expect.raises({ code = "sandbox_timeout", status = 408 }, sb.exec, sb, { "true" })
    assert.equal("sandbox_timeout", sb:status().reason)
  end)

  it("is not prolonged by asking for the status", function()
    local sb = sandbox.create { idle_timeout = 1 }
    local start = task.now()
    while sb:status().status == "running" do
      task.sleep(0.1)
      assert.is_true(task.now() - start < 3)
    end
    expect.between(0.9, 2, task.now() - start, "seconds")
  end)

  it("ends at the time-out whatever runs", function()
    local sb = sandbox.create { timeout = 1 }
    local start = task.now()
    assert.equal("sandbox_timeout", sb:exec({ "sleep", "30" }).reason)
    expect.between(0.8, 2.5, task.now() - start, "seconds")
  end)

  it("is the default time-out of an exec", function()
    local sb = sandbox.create { timeout = 2 }
    local r = sb:exec({ "sleep", "30" }, { timeout = 1 })
    assert.equal("timeout", r.reason)
    sb:terminate()
  end)

  it("can be extended", function()
    local sb <close> = sandbox.create { timeout = 1 }
    local before = seconds(sb.expires_at)
    sb:extend(5)
    assert.equal(5, seconds(sb:status().expires_at) - before)
    assert.equal("exited", sb:exec({ "sleep", "1.5" }).reason)
    expect.raises({ code = "invalid_argument" }, sb.extend, sb, 0)
    expect.raises({ code = "invalid_argument" }, sb.extend, sb, 86400)
    expect.raises({ code = "invalid_argument" }, sb.extend, sb, "x")
    sb:terminate()
    expect.raises({ code = "sandbox_terminated", status = 410 }, sb.extend, sb, 5)
  end)
end)

describe("detach", function()
  it("is unsupported where sandboxes end with this process, and says what would help", function()
    local sb <close> = sandbox.create {}
    local e = expect.raises({ code = "unsupported", status = 501 }, sb.detach, sb)
    expect.contains(e.message .. (e.hint or ""), "serve")
    assert.is_true(sb:exec({ "true" }).ok)
  end)
end)

describe("sandbox.run", function()
  it("creates, runs and ends in one", function()
    local r = sandbox.run({ "sh", "-c", "echo $V; exit 3" },
      { create = { env = { V = "v" }, tags = { t = "run1" } } })
    assert.equal("v\n", r.stdout)
    assert.equal(3, r.exit_code)
    local left = sandbox.list { tags = { t = "run1" } }
    for _, s in ipairs(left) do assert.equal("terminated", s.status or s.state) end
    assert.equal("x\n", sandbox.run("echo x").stdout)
    assert.equal("timeout", sandbox.run({ "sleep", "9" }, { timeout = "200ms" }).reason)
  end)

  it("ends the sandbox when the command could not be started", function()
    expect.raises({ code = "invalid_argument", field = "cwd" }, sandbox.run, { "true" },
      { cwd = "/no", create = { tags = { t = "run2" } } })
    for _, s in ipairs(sandbox.list { tags = { t = "run2" } }) do
      assert.equal("terminated", s.status or s.state)
    end
  end)

  it("passes errors of create on", function()
    expect.raises({ code = "invalid_argument", field = "memroy" }, sandbox.run, "true",
      { create = { memroy = 1 } })
    expect.raises({ code = "invalid_argument", field = "tiemout" }, sandbox.run, "true",
      { tiemout = 1 })
  end)
end)

describe("sandbox.price", function()
  it("is nothing for the local engine and the published table for a priced one", function()
    assert.equal(0, sandbox.price {})
    assert.equal(0, sandbox.price { engine = "local", timeout = 3600 })
    expect.raises({ code = "invalid_argument", field = "gpu" }, sandbox.price, { gpu = "X9" })
    expect.raises({ code = "invalid_argument", field = "timeout" }, sandbox.price, { timeout = 0 })
  end)
end)

describe("sandbox.engines and sandbox.gpus", function()
  it("say what there is", function()
    local names = {}
    for _, e in ipairs(sandbox.engines()) do names[type(e) == "table" and e.name or e] = true end
    assert.is_true(names["local"])
    local gpus = sandbox.gpus()
    assert.equal("table", type(gpus))
  end)
end)

describe("sb:url", function()
  it("knows the ports that the sandbox was created with, and no other", function()
    local sb <close> = sandbox.create { unencrypted_ports = { 8000 } }
    expect.contains(sb:url(8000), "http://127.0.0.1:")
    expect.raises({ code = "invalid_argument", field = "port" }, function() return sb:url(1) end)
  end)
end)

describe("sandbox.on", function()
  it("tells of each step in order, with its data", function()
    local seen = {}
    sandbox.on("created", function(sb) seen[#seen + 1] = "created " .. sb.sandbox_id end)
    sandbox.on("exec_done", function(sb, r)
      seen[#seen + 1] = ("exec %s %s"):format(sb.sandbox_id, r.exit_code)
    end)
    sandbox.on("terminated", function(info) seen[#seen + 1] = "terminated " .. info.sandbox_id end)
    local sb = sandbox.create { tags = { on = "1" } }
    sb:exec { "sh", "-c", "exit 4" }
    sb:terminate()
    local id = sb.sandbox_id
    expect.eventually(2, "the last event", function() return #seen >= 3 end)
    assert.same({ "created " .. id, "exec " .. id .. " 4", "terminated " .. id }, seen)
    expect.raises({ code = "invalid_argument", match = "created" }, sandbox.on, "craeted",
      function() end)
    expect.raises({ code = "invalid_argument" }, sandbox.on, "created", "no function")
  end)

  it("lets before_create refuse", function()
    local refuse = true
    sandbox.on("before_create", function(opts)
      if refuse and opts.tags and opts.tags.forbidden then error "not this one" end
    end)
    local ok, e = pcall(sandbox.create, { tags = { forbidden = "1" } })
    if ok then e:terminate() end
    assert.is_false(ok)
    expect.contains(tostring(e), "not this one")
    refuse = false
    local sb <close> = sandbox.create { tags = { forbidden = "1" } }
    assert.equal("1", sb.tags.forbidden)
  end)
end)

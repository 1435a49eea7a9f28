-- The engine "remote": against our own server, and against one whose manners are not ours
-- (spec/serve/standin.py).
local json = require "json"
local lfs = require "lfs"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

local before

setup(function() before = leftovers.before() end)
teardown(function()
  files.clean()
  leftovers.none_since(before, 10)
end)

-- Runs source on the engine; url and key are what the environment says.
local function run(url, key, source, options, env)
  local path = files.write(files.dir "remote" .. "/remote.lua", source)
  local argv = { "run", table.unpack(options or { "--engine", "remote" }) }
  argv[#argv + 1] = path
  local vars = { REGOLITH_URL = url, REGOLITH_API_KEY = key, XDG_STATE_HOME = files.dir "state" }
  for k, v in pairs(env or {}) do vars[k] = v end
  return proc.cli(argv, { env = proc.env(vars), timeout = 60 * proc.factor })
end

describe("the engine remote, on our own server", function()
  local server, url, key, dir

  setup(function()
    dir = files.dir "state"
    local r = proc.cli { "key", "add", "me", "--credit", "100", "--state", dir }
    key = assert(r.stdout:match "sk%-%w+", r.stderr)
    server = proc.cli_start { "serve", "--listen", "127.0.0.1:0", "--state", dir,
      "--default-image", "host", "--default-network", "none" }
    url = server:expect("https?://[%d.]+:%d+", 20 * proc.factor)
  end)
  teardown(function()
    server:kill "TERM"
    server:wait(40)
  end)

  for name in lfs.dir "examples" do
    local expected = "examples/expected/" .. name:gsub("%.lua$", ".txt")
    local source = name:match "%.lua$" and files.read("examples/" .. name) or ""
    -- The API has no operations on files, and starts nothing that it does not wait for.
    local beyond = source:find ":write%(" or source:find ":spawn%("
    if lfs.attributes(expected) and source:find 'image = "host"' and not beyond then
      it("runs examples/" .. name .. " unchanged", function()
        local here = proc.cli { "run", "examples/" .. name }
        local there = proc.cli({ "run", "--engine", "remote", "examples/" .. name },
          { env = proc.env { REGOLITH_URL = url, REGOLITH_API_KEY = key } })
        assert.equal(here.status, there.status, there.stderr)
        assert.equal(here.stdout, there.stdout, there.stderr)
      end)
    end
  end

  it("says what a run has cost, in its reports and at its end", function()
    local out = files.dir "cost"
    local script = files.write(out .. "/cost.lua", [[
      local sandbox = require "sandbox"
      local sb <close> = sandbox.create { image = "host", timeout = 60 }
      sb:exec "true"
      print(sb:status().cost)]])
    local env = proc.env { REGOLITH_URL = url, REGOLITH_API_KEY = key }
    local function report(name, ...)
      local r = proc.cli({ "run", "--report", out .. name, ..., script }, { env = env })
      assert.equal(0, r.status, r.stderr)
      return files.read(out .. name), r
    end
    local text, r = report("/r.json", "--engine=remote")
    local told = {}
    for _, e in ipairs(json.decode(text).events) do told[e.event] = e end
    local cost = told.run_ended.cost
    assert.equal(cost, told.script_ended.cost)
    assert.equal(cost, told.sandbox_ended.cost)
    assert.is_true(cost > tonumber(r.stdout)) -- by its end
    expect.contains(r.stderr, ("the sandboxes cost $%.4f"):format(cost):sub(1, -2))
    text = report("/r.html", "--engine=remote")
    expect.contains(text, '"cost":')
    text, r = report("/free.json", "--quiet")
    expect.lacks(text, '"cost"')
    expect.lacks(r.stderr, "cost")
  end)

  it("knows what others did with a sandbox, when it asks", function()
    local script = files.write(files.dir "others" .. "/others.lua", [[
      local sb = require("sandbox").create { image = "host", timeout = 60 }
      local function tell()
        io.read()
        local st = sb:status()
        print(st.status, st.reason, st.commands_executed, st.expires_at == sb.expires_at)
      end
      sb:exec "true"
      print("id " .. sb.sandbox_id)
      tell()
      tell()
      print(select(2, pcall(sb.exec, sb, "true")).code)
      print(select(2, pcall(sb.extend, sb, 10)).code)
      local other <close> = require("sandbox").create { image = "host", timeout = 60 }
      print(select(2, pcall(other.extend, other, 10)).code)]])
    local p = proc.cli_start({ "run", "--engine", "remote", script },
      { env = proc.env { REGOLITH_URL = url, REGOLITH_API_KEY = key }, stdin = true })
    local id = p:expect "id (%S+)"
    local function call(op, more)
      local r = proc.run { "curl", "-sS", "-H", "Authorization: Bearer " .. key, "-d",
        ('{"sandbox_id":"%s"%s}'):format(id, more or ""), url .. "/v1/modal/sandbox/" .. op }
      assert.is_nil(json.decode(r.stdout).error, r.stdout)
    end
    call("exec", ',"command":"true"')
    p:write "\n"
    p:expect "running\tnil\t2\ttrue"
    call "terminate"
    p:write "\n"
    p:close_stdin()
    local r = p:wait()
    expect.contains(r.stdout, "terminated\tterminated\t2\ttrue\nsandbox_terminated\n" ..
      "sandbox_terminated\nunsupported\n")
  end)

  it("gives outcomes as the local engine does", function()
    local r = run(url, key, [[
      local sandbox = require "sandbox"
      local sb <close> = sandbox.create { image = "host", timeout = 60, tags = { a = "b" } }
      local function show(r)
        print(r.reason, r.exit_code, r.signal, r.ok, ("[%s][%s]"):format(r.stdout, r.stderr))
      end
      show(sb:exec "printf out; printf err >&2; exit 3")
      show(sb:exec "kill -9 $$")
      show(sb:exec { "printf", "%s|", "a b", "", "c" })
      show(sb:exec("printf part; sleep 60", { timeout = 1 }))
      show(sb:exec { "sh", "-c", "pwd; echo $A", cwd = "/tmp", env = { A = "1" } })
      local r = sb:exec({ "cat" }, { stdin = "h\0i\255" })
      print(r.stdout == "h\0i\255", r.stdout_bytes)
      r = sb:exec("head -c 3000000 /dev/zero", { max_output = "1MiB" })
      print(r.truncated.stdout, r.stdout_bytes, #r.stdout)
      r = sb:exec("yes", { max_output = "1MiB", on_overflow = "kill" })
      print(r.reason)
      local chunks = {}
      sb:exec("echo 1; sleep 0.3; echo 2", { on_stdout = function(s) chunks[#chunks + 1] = s end })
      print(#chunks, table.concat(chunks))
      print(sb:exec({ "no-such-program" }).exit_code)
      print(select(2, pcall(sb.exec, sb, { "true", cwd = "/no/where" })).code)
      print(sb:status().status, sb:status().commands_executed > 8, sb.engine, sb.cost > 0)
      sb:terminate()
      sb:terminate()
      print(sb:status().status, select(2, pcall(sb.exec, sb, "true")).code)
    ]])
    assert.equal(0, r.status, r.stderr)
    assert.equal([[
exited	3	nil	false	[out][err]
signal	nil	SIGKILL	false	[][]
exited	0	nil	true	[a b||c|][]
timeout	nil	nil	false	[part][]
exited	0	nil	true	[/tmp
1
][]
]], (r.stdout:match "^(.-)true\t4\n"))
    expect.contains(r.stdout, "true\t4\n")
    expect.contains(r.stdout, "true\t3000000\t1048576\n")
    expect.contains(r.stdout, "output_limit\n")
    expect.contains(r.stdout, "2\t1\n2\n")
    expect.contains(r.stdout, "127\ninvalid_argument\nrunning\ttrue\tremote\ttrue\n")
    expect.contains(r.stdout, "terminated\tsandbox_terminated\n")
    local costs = proc.cli { "cost", "--by", "tag", "--state", dir }.stdout
    expect.contains(costs, "a=b ")
    expect.lacks(costs, "regolith.create")
  end)

  -- What the server still has, as it says itself.
  local function alive()
    local r = proc.run { "curl", "-sS", "-H", "Authorization: Bearer " .. key,
      url .. "/v1/sandboxes?state=started" }
    return #json.decode(r.stdout).sandboxes
  end

  local function delete(id)
    return proc.run { "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "DELETE",
      "-H", "Authorization: Bearer " .. key, url .. "/v1/sandboxes/" .. id }.stdout
  end

  it("ends what a script leaves, however it ends", function()
    local leave = [[
      local sandbox = require "sandbox"
      local sb = sandbox.create { image = "host", timeout = 60 }
      print "up"
      %s
    ]]
    assert.equal(0, run(url, key, leave:format "").status)
    assert.equal(0, alive())
    assert.equal(1, run(url, key, leave:format "error 'x'").status)
    assert.equal(0, alive())
    local r = run(url, key, leave:format "sb:exec 'sleep 60'",
      { "--engine", "remote", "--timeout", "1s" })
    assert.equal(124, r.status)
    assert.equal(0, alive())
  end)

  it("leaves what was detached, under the id that the server gave", function()
    local r = run(url, key, [[
      local sandbox = require "sandbox"
      local sb = sandbox.create { image = "host", timeout = 60 }
      sb:detach()
      print(sb.sandbox_id)
    ]])
    assert.equal(0, r.status, r.stderr)
    assert.equal(1, alive())
    local id = r.stdout:match "%S+"

    local get = ([[
      local sandbox = require "sandbox"
      local sb = sandbox.get("%s"%s)
      local r = sb:exec "echo $((6 * 7))"
      print(sb.engine, sb.config.image, r.stdout, sb:status().commands_executed)
    ]]):format(id, "%s")
    for n = 1, 2 do
      r = run(url, key, get:format "")
      assert.equal(("remote\thost\t42\n\t%d\n"):format(n), r.stdout, r.stderr)
      assert.equal(1, alive()) -- whoever uses it leaves it
    end
    -- A command that is under way ends with the script, its sandbox does not.
    r = run(url, key, get:format "" .. "sb:exec 'sleep 60'",
      { "--engine", "remote", "--timeout", "1s" })
    assert.equal(124, r.status)
    assert.equal(1, alive())
    local home = files.dir "config"
    lfs.mkdir(home .. "/regolith")
    files.write(home .. "/regolith/config.lua", ([[return { engines = {
      there = { type = "remote", url = "%s", key_env = "REGOLITH_API_KEY" } } }]]):format(url))
    r = run(url, key, get:format ', { engine = "there" }', {}, { XDG_CONFIG_HOME = home })
    expect.contains(r.stderr, 'engine = "there" was not granted')
    r = run(url, key, get:format "" .. "sb:terminate()")
    assert.equal(0, r.status, r.stderr)
    assert.equal(0, alive())
    r = run(url, key, ([[
      for _, id in ipairs { "%s", "sb_0000000000" } do
        print(select(2, pcall(require("sandbox").get, id)).code)
      end
    ]]):format(id))
    assert.equal("sandbox_terminated\nsandbox_not_found\n", r.stdout, r.stderr)
  end)

  -- Runs source, with its state in home, and kills that once when(p) returns.
  local function kill_run(home, source, when)
    local p = proc.cli_start({ "run", "--engine", "remote",
      files.write(files.dir "killed" .. "/killed.lua", source) },
      { env = proc.env { REGOLITH_URL = url, REGOLITH_API_KEY = key, XDG_STATE_HOME = home } })
    when(p)
    p:kill "KILL"
    p:wait()
  end

  local function journals(home)
    local n, away = 0, home .. "/regolith/away"
    if not lfs.attributes(away) then return 0 end
    for name in lfs.dir(away) do n = n + (name:sub(1, 1) ~= "." and 1 or 0) end
    return n
  end

  -- Whether the server has been sent something that it has not read.
  local function unread()
    local port = (":%04X "):format(tonumber(url:match ":(%d+)$"))
    for line in io.lines "/proc/net/tcp" do
      local queued = line:find("^ *%d+: %x+" .. port) and line:match "^ *%d+: %S+ %S+ 01 %x+:(%x+)"
      if queued and tonumber(queued, 16) > 0 then return true end
    end
  end

  it("ends what a killed one has left there, and not what was detached", function()
    local home, detached = files.dir "home", nil
    kill_run(home, [[
      local sandbox, task = require "sandbox", require "task"
      local a = sandbox.create { image = "host", timeout = 60 }
      local b = sandbox.create { image = "host", timeout = 60 }
      b:detach()
      print("up " .. b.sandbox_id)
      task.sleep(60)]], function(p) detached = p:expect "up (%S+)" end)
    assert.equal(2, alive())
    assert.equal(1, journals(home))
    local r = run(url, key, "", nil, { XDG_STATE_HOME = home })
    assert.equal(0, r.status, r.stderr)
    expect.contains(r.stderr, "1 sandbox that an earlier regolith had left there was ended")
    assert.equal(1, alive())
    assert.equal(0, journals(home))
    r = run(url, key, "", nil, { XDG_STATE_HOME = home })
    assert.equal("", r.stderr)
    assert.equal("200", delete(detached))
  end)

  it("finds what a killed one had asked for and was not told of", function()
    local home = files.dir "home2"
    server:kill "STOP"
    kill_run(home, [[require("sandbox").create { image = "host", timeout = 60 }]], function()
      expect.eventually(10 * proc.factor, "it is asked for", unread)
    end)
    assert.equal(1, journals(home))
    server:kill "CONT"
    expect.eventually(10 * proc.factor, "it is made", function() return alive() == 1 end)
    local r = run(url, key, "", nil, { XDG_STATE_HOME = home })
    expect.contains(r.stderr, "1 sandbox that an earlier regolith had left there was ended")
    assert.equal(0, alive())
  end)

  it("sees an end that was not its own", function()
    local r = run(url, key, [[
      local sandbox, task = require "sandbox", require "task"
      local sb = sandbox.create { image = "host", timeout = 2 }
      print(sb:exec("printf x; sleep 60").reason)
      print(select(2, pcall(sb.exec, sb, "true")).code)
    ]])
    assert.equal("sandbox_timeout\nsandbox_timeout\n", r.stdout, r.stderr)
  end)

  it("says whose fault a wrong key is, and never the key", function()
    local r = run(url, "sk-secretsecret", [[require("sandbox").create { image = "host" }]])
    assert.equal(1, r.status)
    expect.contains(r.stderr, "there is no such API key")
    expect.contains(r.stderr, "REGOLITH_API_KEY")
    expect.lacks(r.stderr .. r.stdout, "secretsecret")
  end)

  it("is asked by doctor whether it is there and knows the key", function()
    local function line(k, home)
      local r = proc.cli({ "doctor", "--json" }, { env = proc.env { REGOLITH_URL = url,
        REGOLITH_API_KEY = k, XDG_CONFIG_HOME = home or files.dir "none" } })
      local lines = {}
      for _, check in ipairs(json.decode(r.stdout).checks) do
        if check.name == "engine elsewhere" then lines[#lines + 1] = check end
      end
      return lines[1], lines[2]
    end
    expect.contains(line(key).found, "remote answers within ")
    local bad = line "sk-secretsecret"
    assert.equal("missing", bad.status)
    expect.contains(bad.found, "there is no such API key")
    expect.lacks(json.encode(bad), "secretsecret")
    local home = files.dir "config"
    lfs.mkdir(home .. "/regolith")
    files.write(home .. "/regolith/config.lua",
      [[return { engines = { gone = { type = "remote", url = "http://127.0.0.1:1" } } }]])
    local named, preset = line(key, home)
    assert.equal("missing", named.status)
    expect.contains(named.found, "gone: ")
    assert.equal("ok", preset.status)
  end)

  it("is granted by being named, and by nothing less", function()
    local r = run(url, key, [[require("sandbox").create { engine = "remote", image = "host" }]], {})
    assert.equal(1, r.status)
    expect.contains(r.stderr, "engine")
  end)

  it("is one of several, by the name that the configuration gives it", function()
    local config = files.dir "config"
    local key_file = files.write(config .. "/key", key .. "\n")
    local path = files.write(config .. "/config.lua", ([[
      return {
        engines = {
          ["gpu-box"] = { type = "remote", url = %q, key_file = %q },
          other = { type = "remote", url = "https://192.0.2.1", key_env = "OTHER_KEY" },
        },
        allow_engine = { "gpu-box" },
      }]]):format(url, key_file))
    local function go(source)
      return run(nil, nil, source, { "--config", path }, { OTHER_KEY = "k" })
    end
    local r = go "require('sandbox').create { engine = 'gpu-box' }"
    assert.equal(2, r.status)
    expect.contains(r.stderr, "may be read by others")
    expect.contains(r.stderr, "chmod 600")
    os.execute("chmod 600 " .. key_file)
    r = go [[
      local sandbox = require "sandbox"
      local here <close> = sandbox.create {}
      local there <close> = sandbox.create { engine = "gpu-box", image = "host" }
      print(here.engine, there.engine, there:exec("echo $((6 * 7))").stdout)
      print(select(2, pcall(sandbox.create, { engine = "other" })).code)
    ]]
    assert.equal("local\tgpu-box\t42\n\ndenied\n", r.stdout, r.stderr)
    lfs.mkdir(config .. "/regolith")
    files.write(config .. "/regolith/config.lua", files.read(path))
    r = proc.cli({ "exec", "--engine", "gpu-box", "--image", "host", "--", "echo", "there" },
      { env = proc.env { XDG_CONFIG_HOME = config, OTHER_KEY = "k" } })
    assert.equal("there\n", r.stdout, r.stderr)

    -- A name that is known without a configuration means what the configuration says.
    local function exec_with(engines, name)
      files.write(config .. "/regolith/config.lua", "return { engines = " .. engines .. " }")
      return proc.cli({ "exec", "--engine", name, "--image", "host", "--", "echo", "there" },
        { env = proc.env { XDG_CONFIG_HOME = config } })
    end
    r = exec_with(("{ jarvisclaw = { type = 'remote', url = %q, key_file = %q } }"):format(url,
      key_file), "jarvisclaw")
    assert.equal("there\n", r.stdout, r.stderr)
    r = exec_with("'gpu-box'", "gpu-box")
    assert.equal(125, r.status)
    expect.contains(r.stderr, "engines must be")
    expect.contains(r.stderr, "config.lua")
    files.write(path, "return { engines = { ['local'] = { type = 'remote', url = 'https://x' } } }")
    r = run(nil, nil, "", { "--config", path })
    assert.equal(2, r.status)
    expect.contains(r.stderr, '"local" is this machine and no other')
  end)

  it("is not needed for prices: this machine has them where the configuration says so", function()
    local path = files.write(files.dir "priced" .. "/config.lua",
      "return { engines = { ['local'] = { type = 'local', priced = true } } }")
    local function go(source, ...) return run(nil, nil, source, { "--config", path, ... }) end
    local r = go([[
      local sandbox = require "sandbox"
      print(sandbox.price {}, sandbox.price { timeout = 3600, gpu = "T4" })
      local sb <close> = sandbox.create { image = "host" }
      sb:exec "true"
      print(sb:status().cost)
      print(select(2, pcall(sandbox.create, { image = "host" })).code)
    ]], "--max-cost", "0.0135")
    assert.equal("0.01\t1.5\n0.012\nbudget_exceeded\n", r.stdout, r.stderr)
    files.write(path, "return { engines = { ['local'] = { type = 'local', url = 'https://x' } } }")
    r = go ""
    assert.equal(2, r.status)
    expect.contains(r.stderr, "no address")
  end)
end)

describe("the engine remote, over TLS", function()
  it("believes who the configuration names, and nobody else", function()
    local dir = files.dir "tls"
    local function certify(name, subject)
      local r = proc.run { "openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2",
        "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=x", "-addext",
        "subjectAltName=" .. subject, "-keyout", dir .. "/" .. name .. ".key",
        "-out", dir .. "/" .. name .. ".pem" }
      assert.equal(0, r.status, r.stderr)
    end
    certify("server", "IP:127.0.0.1")
    certify("stranger", "IP:127.0.0.1")
    local r = proc.cli { "key", "add", "me", "--credit", "100", "--state", dir .. "/state" }
    local key = r.stdout:match "sk%-%w+"
    local server = proc.cli_start { "serve", "--listen", "127.0.0.1:0", "--state", dir .. "/state",
      "--default-image", "host", "--default-network", "none", "--tls-cert", dir .. "/server.pem",
      "--tls-key", dir .. "/server.key" }
    local url = server:expect("https://[%d.]+:%d+", 20 * proc.factor)
    local function go(address, ca)
      local config = files.write(dir .. "/config.lua", ([[
        return { engines = { box = { type = "remote", url = %q, key_env = "K", %s } } }]])
        :format(address, ca and ("ca_file = %q"):format(dir .. "/" .. ca) or ""))
      return run(nil, nil, [[
        local sb <close> = require("sandbox").create { image = "host" }
        print(sb:exec("printf x; exit 3").exit_code)]],
        { "--config", config, "--engine", "box" }, { K = key })
    end
    r = go(url, "server.pem")
    assert.equal("3\n", r.stdout, r.stderr)
    for _, ca in ipairs { "stranger.pem", false } do
      r = go(url, ca)
      assert.equal(1, r.status)
      expect.contains(r.stderr, "certificate")
      expect.contains(r.stderr, "ca_file")
      expect.lacks(r.stderr, "nobody knows") -- nothing was asked for
      expect.lacks(r.stderr, key)
    end
    -- The certificate is for the address, not for its name.
    r = go(url:gsub("127.0.0.1", "localhost"), "server.pem")
    assert.equal(1, r.status)
    expect.contains(r.stderr, "localhost")
    r = go(url, "nowhere.pem")
    assert.equal(2, r.status)
    expect.contains(r.stderr, "nowhere.pem")
    server:kill "TERM"
    assert.equal(0, server:wait(20 * proc.factor).status)
  end)
end)

describe("the engine remote, on a server with manners of its own", function()
  local server, root

  setup(function()
    server = proc.start { "python3", "spec/serve/standin.py" }
    root = "http://127.0.0.1:" .. server:expect("%d+\n", 20):match "%d+"
  end)
  teardown(function()
    server:kill "TERM"
    server:wait(10)
  end)

  local function seen(manner, op)
    local r = proc.run { "curl", "-sS", root .. "/seen/" .. manner }
    return json.decode(r.stdout)[op] or 0
  end

  -- Creates, runs one command, prints what came of it.
  local function try(manner, command)
    return run(root .. "/" .. manner, "k", ([[
      local sandbox = require "sandbox"
      local ok, sb = pcall(sandbox.create, { image = "python:3.11", timeout = 60 })
      if not ok then print(sb.code, sb.message) return end
      local ok, r = pcall(sb.exec, sb, %q)
      if ok then
        print(r.reason, r.exit_code, r.stdout, r.truncated.stdout, r.duration_ms)
      else
        print(r.code)
      end
      print(sb:status().status, sb.sandbox_id)
    ]]):format(command or "printf hi; exit 3"),
      { "--engine", "remote", "--allow-image", "*" })
  end

  it("reads either family of fields", function()
    local r = try "old"
    expect.matches("^exited\t3\thi\tfalse\t%d+\nrunning\ttheir%-%d+\n$", r.stdout)
    r = try "new"
    expect.matches("^exited\t3\thi\tfalse\t7\nrunning\ttheir%-%d+\n$", r.stdout)
    assert.equal(1, seen("new", "terminate"))
  end)

  it("asks how a sandbox is, and takes the server's word", function()
    local function status(manner, more)
      local r = run(root .. "/" .. manner, "k", [[
        local sandbox = require "sandbox"
        local sb = sandbox.create { image = "python:3.11", timeout = 60 }
        local ok, st = pcall(sb.status, sb)
        if not ok then print(st.code, st.sandbox_id == sb.sandbox_id, st.engine) return end
        print(st.status, st.state, st.reason, st.returncode, st.commands_executed)
        ]] .. (more or ""), { "--engine", "remote", "--allow-image", "*" })
      local rest = r.stderr:gsub("regolith: warning[^\n]*\n", "")
      assert.equal("", rest:gsub("regolith: the sandboxes cost[^\n]*\n", ""))
      return r.stdout
    end
    assert.equal("running\tstarted\tnil\tnil\t0\n", status "old")
    assert.equal("running\tstarted\tnil\tnil\t41\n2031-02-03T03:05:06Z\n",
      status("new", "print(st.expires_at)"))
    assert.equal("terminated\tfinished\texited\t7\t0\n", status "finished")
    assert.equal("terminated\tterminated\tsandbox_timeout\tnil\t0\nsandbox_timeout\n",
      status("expired", "print(select(2, pcall(sb.exec, sb, 'true')).code)"))
    expect.matches("^terminated\tterminated\t", status "vanished")
    assert.equal("engine_unavailable\ttrue\tremote\n", status "garbled")
  end)

  it("never guesses an exit code", function()
    expect.matches("^unknown\tnil\tx\t", try("null").stdout)
    expect.matches("^unknown\tnil\t\t", try("gateway").stdout)
    expect.matches("^unknown\tnil\t\t", try("huge").stdout)
    expect.matches("^unknown\tnil\thalf\t", try("halfstream").stdout)
    expect.matches("^unknown\tnil\t\t", try("badstream").stdout)
    expect.matches("^exited\t4\thi\t", try("oddstream").stdout)
    expect.matches("^exited\t0\tab\ttrue\t", try("cut").stdout)
    expect.matches("^exec_failed\n", try("failed").stdout)
  end)

  it("asks once where asking twice could do it twice", function()
    expect.matches("^unknown\tnil\t\t", try("lostexec").stdout)
    assert.equal(1, seen("lostexec", "exec"))
    local r = try "lostcreate"
    expect.matches("^engine_unavailable\t", r.stdout)
    assert.equal(1, seen("lostcreate", "create"))
  end)

  it("asks again where the server did not begin", function()
    expect.matches("^exited\t3\t", try("busy").stdout)
    assert.equal(3, seen("busy", "create"))
    expect.matches("^capacity\t", try("full").stdout)
    assert.equal(1, seen("full", "create"))
    expect.matches("^exited\t3\t", try("stubborn").stdout)
    assert.equal(3, seen("stubborn", "terminate"))
    assert.equal(0, try("forgot").status)
  end)

  it("takes no nonsense for a sandbox", function()
    for _, manner in ipairs { "html", "noid", "badid", "moved" } do
      local r = try(manner)
      expect.matches("^engine_unavailable\t", r.stdout)
      assert.equal(0, seen(manner, "terminate"))
    end
    local r = run(root .. "/same", "k", [[
      local sandbox = require "sandbox"
      local a = sandbox.create { timeout = 60 }
      print(a.sandbox_id, pcall(sandbox.create, { timeout = 60 }))
      print(a:status().status)
    ]])
    expect.matches("^always\tfalse\tengine_unavailable.*\nrunning\n$", r.stdout)
    assert.equal(1, seen("same", "terminate"))
  end)

  it("knows an end when it is told of one", function()
    expect.matches("^sandbox_terminated\nterminated\t", try("gone").stdout)
    expect.matches("^sandbox_timeout\tnil\tso far\t.*\nterminated\t", try("late").stdout)
  end)
end)

describe("the engine remote, alone,", function()
  local function refused(url, pattern, env)
    local r = run(url, "k", "print 'ran'", nil, env)
    assert.equal(2, r.status, r.stderr)
    expect.contains(r.stderr, pattern)
    expect.lacks(r.stdout, "ran")
  end

  it("says what it lacks", function()
    refused(false, "REGOLITH_URL")
    refused("ftp://x", "https://")
    refused("http://example.com", "in the clear")
    refused("http://127.0.0.1.example.com", "in the clear")
    refused("https://user:pw@example.com", "character")
    refused("https://", "no host")
    refused("https://example.com", "control character", { REGOLITH_API_KEY = "a b" })
    local r = proc.cli { "run", "--engine", "remot", "examples/hello.lua" }
    assert.equal(2, r.status)
    expect.contains(r.stderr, "did you mean \"remote\"")
  end)

  it("says that nobody is there", function()
    local r = run("http://127.0.0.1:1", "k", [[
      print(select(2, pcall(require("sandbox").create, {})).code)]])
    assert.equal("engine_unavailable\n", r.stdout, r.stderr)
  end)

  it("takes no key from the configuration itself", function()
    local path = files.write(files.dir "config" .. "/c.lua", [[
      return { engines = { box = { type = "remote", url = "https://x", key = "sk-1" } } }]])
    local r = run(nil, nil, "", { "--config", path })
    assert.equal(2, r.status)
    expect.contains(r.stderr, "key_file")
    expect.contains(r.stderr, "engines.box")
  end)
end)

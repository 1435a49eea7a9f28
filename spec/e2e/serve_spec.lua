-- regolith serve, asked by real clients: curl, and Python's requests through spec/serve/checks.py,
-- which holds every answer against the server's own /openapi.json.
local json = require "json"
local lfs = require "lfs"
local task = require "task"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"

local M = {}

local function lacks_python()
  local r = proc.run { "python3", "-c", "import requests, jsonschema" }
  return r.status ~= 0 and "skipped: python3-requests and python3-jsonschema are not installed"
end
local missing = lacks_python()

-- A state directory with keys, and a server on a free port of this machine.
function M.state(...)
  local dir, keys = files.dir "serve", {}
  for i, options in ipairs { ... } do
    local argv = { "key", "add", "tenant" .. i, "--state", dir }
    table.move(options, 1, #options, #argv + 1, argv)
    local r = proc.cli(argv)
    keys[i] = assert(r.stdout:match "sk%-%w+", r.stdout .. r.stderr)
  end
  return dir, keys
end

function M.serve(dir, ...)
  local server = proc.cli_start { "serve", "--listen", "127.0.0.1:0", "--state", dir,
    "--default-image", "host", "--default-network", "none", ... }
  local url = server:expect("https?://[%d.]+:%d+", 20 * proc.factor)
  return server, url
end

function M.stop(server)
  server:kill "TERM"
  local r = server:wait(40)
  return r
end

-- Runs checks by name; returns name → true, or what was otherwise.
local function check(url, keys, names)
  local env = proc.env { SERVE_URL = url, SERVE_KEYS = table.concat(keys, " "),
    PYTHONDONTWRITEBYTECODE = "1" }
  local r = proc.run({ "python3", "spec/serve/checks.py", table.unpack(names) },
    { timeout = 120 * proc.factor, env = env })
  local results = {}
  for name in r.stdout:gmatch "%f[^\n%z]ok ([%w_]+)\n" do results[name] = true end
  for _, name in ipairs(names) do
    results[name] = results[name] or
      r.stdout:match("failed " .. name .. ": (.-)\nok ") or r.stdout .. r.stderr
  end
  return results
end

local function curl(...)
  return proc.run({ "curl", "-sS", "-k", ... }, { timeout = 60 })
end

-- POST to one of the four operations.
local function post_argv(url, key, op, body)
  return { "curl", "-sS", "-k", url .. "/v1/modal/sandbox/" .. op, "-H",
    "Authorization: Bearer " .. key, "-d", type(body) == "table" and json.encode(body) or body }
end

local function post(...)
  local r = proc.run(post_argv(...), { timeout = 60 })
  return json.decode(r.stdout), r.stdout
end

local CREDIT = { "--credit", "1000" }

local CHECKS = {
  { "life_cycle", "creates, runs, looks and ends, with all names that clients read" },
  { "defaults", "needs nothing said" },
  { "exit_codes", "answers each outcome with an integer and a reason" },
  { "fields_of_exec", "takes stdin, env, cwd, bytes and arguments as they are" },
  { "error_matrix", "tells apart alive, ended, timed out and unknown" },
  { "in_flight", "answers a command whose sandbox ends with what it had printed" },
  { "wrong_arguments", "names the field at fault" },
  { "bad_json", "refuses what is no JSON object" },
  { "sizes", "takes bodies up to the limit and cuts answers to it" },
  { "lies", "refuses what two readers could read differently" },
  { "who_may", "asks for a key before anything else" },
  { "tenants", "shows nothing of one tenant to another" },
  { "lists", "lists by tag, app, name and state, in pages" },
  { "second_family", "serves the Modal schema" },
  { "ports", "tells where a sandbox's ports are reached, and when it is ready" },
  { "streams", "sends output as it is printed" },
  { "vanishing", "ends the command of a client that hangs up" },
  { "slow_readers", "is not held up by those who do not read" },
  { "open_paths", "tells how it is, and what it serves" },
  { "page_data", "remembers the last commands, and what was spent, for the page" },
  { "metrics", "counts for Prometheus" },
  { "connections", "keeps connections, also of old clients" },
  { "idempotency", "answers the same request once" },
  { "fuzz", "survives nonsense" },
  { "half_open", "serves beside ten thousand unfinished requests" },
}

describe("regolith serve", function()
  local before, server, url, dir, keys, results
  lazy_setup(function()
    before = leftovers.before()
    dir, keys = M.state(CREDIT, CREDIT)
    server, url = M.serve(dir, "--access-log", dir .. "/access.log",
      "--volume", "data=/usr/share:ro")
    local names = {}
    for i, c in ipairs(CHECKS) do names[i] = c[1] end
    results = missing and {} or check(url, keys, names)
  end)
  lazy_teardown(function()
    local r = M.stop(server)
    assert.equal(0, r.status, r.stderr)
    assert.equal("", r.stderr)
    files.clean()
    leftovers.none_since(before, 5)
  end)

  for _, c in ipairs(CHECKS) do
    it(c[2], function()
      if missing then return pending(missing) end
      assert.is_true(results[c[1]], results[c[1]])
    end)
  end

  it("gives an operator's volume by its name", function()
    local sb, text = post(url, keys[1], "create",
      { timeout = 60, volumes = { { source = "data", target = "/mnt/data" } } })
    assert.is_string(sb.sandbox_id, text)
    expect.lacks(text, "/usr/share")
    local r = post(url, keys[1], "exec",
      { sandbox_id = sb.sandbox_id, command = "ls /mnt/data; touch /mnt/data/x" })
    expect.contains(r.stdout, "doc\n")
    expect.contains(r.stderr, "Read-only")
    post(url, keys[1], "terminate", { sandbox_id = sb.sandbox_id })
  end)

  it("logs requests, and neither keys nor bodies", function()
    post(url, keys[1], "status?x=secretquery", '{"sandbox_id":"secretbody"}')
    task.sleep(0.4)
    local log = files.read(dir .. "/access.log")
    local last = json.decode(log:match "([^\n]*)\n$")
    assert.equal("/v1/modal/sandbox/status", last.path)
    assert.equal(400, last.status)
    assert.equal("tenant1", last.key)
    for _, secret in ipairs { keys[1], keys[2], "secretquery", "secretbody" } do
      expect.lacks(log, secret)
    end
  end)
end)

describe("regolith serve, from start to end", function()
  local before
  before_each(function() before = leftovers.before() end)
  after_each(function()
    files.clean()
    leftovers.none_since(before, 5)
  end)

  it("says how to make a key where there is none, and takes one that is made meanwhile", function()
    local dir = M.state()
    local server, url = M.serve(dir)
    server:expect "regolith key add NAME"
    local made = proc.cli { "key", "add", "late", "--credit", "1", "--state", dir }
    local key = made.stdout:match "sk%-%w+"
    local status
    for _ = 1, 100 do
      status = curl("-o", "/dev/null", "-w", "%{http_code}", url .. "/v1/sandboxes", "-H",
        "Authorization: Bearer " .. key).stdout
      if status == "200" then break end
      task.sleep(0.05)
    end
    assert.equal("200", status)
    assert.equal(0, M.stop(server).status)
  end)

  it("has a page to look and to click at, in a browser", function()
    if missing then return pending(missing) end
    if proc.run({ "sh", "-c", "command -v chromium" }).status ~= 0 then
      return pending "skipped: chromium is not installed"
    end
    local dir, keys = M.state(CREDIT, CREDIT)
    local server, url = M.serve(dir)
    local home = files.dir "browser"
    local r = proc.run({ "python3", "spec/serve/console.py", url, keys[1], keys[2],
      home .. "/page.png" }, { timeout = 120, env = proc.env { HOME = home, TMPDIR = home,
        XDG_RUNTIME_DIR = home, XDG_CONFIG_HOME = home, XDG_CACHE_HOME = home,
        PYTHONDONTWRITEBYTECODE = "1" } })
    assert.equal(0, M.stop(server).status)
    expect.lacks(r.stdout, "failed")
    expect.contains(r.stdout, "ok no_trouble\ndone\n")
    assert.equal("", r.stderr)
    assert.equal("\137PNG", files.read(home .. "/page.png"):sub(1, 4))
  end)

  it("has a bound for the output of all that runs", function()
    if missing then return pending(missing) end
    local dir, keys = M.state(CREDIT, CREDIT)
    local server, url = M.serve(dir, "--output-memory", "16MiB")
    local result = check(url, keys, { "output_memory" }).output_memory
    assert.is_true(result, result)
    assert.equal(0, M.stop(server).status)
  end)

  it("answers what was asked before it ends, and takes nothing more", function()
    local dir, keys = M.state(CREDIT)
    local server, url = M.serve(dir)
    local sb = post(url, keys[1], "create", "{}").sandbox_id
    local slow = proc.start(post_argv(url, keys[1], "exec",
      { sandbox_id = sb, command = "echo begun; sleep 1.5; echo done" }))
    task.sleep(0.4)
    server:kill "TERM"
    task.sleep(0.2)
    assert.are_not.equal(0, curl(url .. "/healthz").status)
    local r = slow:wait(10)
    assert.equal("begun\ndone\n", json.decode(r.stdout).stdout, r.stdout .. r.stderr)
    assert.equal(0, server:wait(20).status)
  end)

  it("does not wait beyond its time, nor after a second signal", function()
    for _, how in ipairs { "late", "twice" } do
      local dir, keys = M.state(CREDIT)
      local server, url = M.serve(dir, "--drain", how == "late" and "300ms" or "1h")
      local sb = post(url, keys[1], "create", "{}").sandbox_id
      local slow = proc.start(post_argv(url, keys[1], "exec",
        { sandbox_id = sb, command = "sleep 60" }))
      task.sleep(0.3)
      server:kill "TERM"
      if how == "twice" then
        task.sleep(0.1)
        server:kill "TERM"
      end
      assert.equal(0, server:wait(10).status)
      slow:wait(5)
    end
  end)

  it("speaks TLS, and takes a new certificate without a pause", function()
    if missing then return pending(missing) end
    local dir, keys = M.state(CREDIT, CREDIT)
    local function certify(name)
      local r = proc.run { "openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2",
        "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=" .. name,
        "-keyout", dir .. "/key.pem", "-out", dir .. "/cert.pem" }
      assert.equal(0, r.status, r.stderr)
    end
    certify "first"
    local server, url = M.serve(dir, "--tls-cert", dir .. "/cert.pem",
      "--tls-key", dir .. "/key.pem")
    assert.equal("https", url:match "^%a+")
    local function subject()
      return curl("-v", url .. "/healthz").stderr:match "subject: CN=(%w+)"
    end
    assert.equal("first", subject())
    assert.are_not.equal(0, curl("--tls-max", "1.1", url .. "/healthz").status)
    local names = { "life_cycle", "sizes", "streams", "vanishing", "connections" }
    local results = check(url, keys, names)
    for _, name in ipairs(names) do assert.is_true(results[name], results[name]) end
    certify "second"
    server:kill "HUP"
    for _ = 1, 50 do
      if subject() == "second" then break end
      task.sleep(0.02)
    end
    assert.equal("second", subject())
    assert.equal(0, M.stop(server).status)
  end)

  it("refuses to start where it cannot serve, and says why", function()
    local dir = M.state()
    local function refused(status, words, ...)
      local r = proc.cli { "serve", "--listen", "127.0.0.1:0", "--state", dir, ... }
      assert.equal(status, r.status, r.stderr)
      expect.contains(r.stderr, words)
      expect.lacks(r.stderr, "no key yet")
    end
    refused(2, "--tls-key", "--tls-cert", "x")
    refused(2, "certificate", "--tls-cert", "/nowhere", "--tls-key", "/nowhere")
    refused(2, "NAME=/DIR", "--volume", "/etc")
    refused(2, "none or open", "--default-network", "wide")
    refused(2, "nosuch", "--engine", "nosuch")
    refused(2, "operands", "operand")
    refused(2, "127.0.0.1", "--listen", "127.0.0.1")
    refused(2, "access log", "--access-log", "/nowhere/log")
    local first = M.serve(dir)
    local port = first:expect "127.0.0.1:(%d+)"
    local other = M.state()
    local r = proc.cli { "serve", "--listen", "127.0.0.1:" .. port, "--state", other }
    assert.equal(2, r.status)
    expect.contains(r.stderr, "in use")
    r = proc.cli { "serve", "--listen", "127.0.0.1:0", "--state", dir }
    assert.are_not.equal(0, r.status)
    assert.equal(0, M.stop(first).status)
  end)

  it("leaves nothing when it is killed", function()
    local dir, keys = M.state(CREDIT)
    local server, url = M.serve(dir)
    for _ = 1, 3 do
      post(url, keys[1], "create", '{"entrypoint":["sleep","1000"]}')
    end
    assert.is_true(#sys.below(server.pid) > 3)
    server:kill "KILL"
    server:wait(10)
  end)

  it("knows its sandboxes after it was killed, and answers for them", function()
    local dir, keys = M.state(CREDIT, CREDIT)
    local server, url = M.serve(dir)
    local function call(method, path, key, body, header)
      local r = curl("-X", method, "-w", "\n%{http_code}", url .. path, "-H",
        "Authorization: Bearer " .. key, "-H", header or "Accept: application/json",
        table.unpack(body and { "-d", json.encode(body) } or {}))
      local text, status = r.stdout:match "^(.*)\n(%d+)$"
      return tonumber(status), text ~= "" and json.decode(text) or nil, text
    end
    local function create(body, header)
      local status, sb, text = call("POST", "/v1/modal/sandbox/create", keys[1], body, header)
      assert.equal(200, status, text)
      return sb.sandbox_id, text
    end
    local function at(id) return { sandbox_id = id } end

    local ended = create { tags = { kind = "ended" } }
    local finished = create { entrypoint = { "sh", "-c", "exit 7" } }
    local late = create { timeout = 1 }
    local kept = "Idempotency-Key: k1"
    local alive, first = create({ timeout = 90, tags = { kind = "alive" }, name = "db" },
      kept)
    for _ = 1, 2 do
      assert.equal(200, (call("POST", "/v1/modal/sandbox/exec", keys[1],
        { sandbox_id = alive, command = "true" })))
    end
    assert.equal(200, (call("POST", "/v1/modal/sandbox/terminate", keys[1], at(ended))))
    for _, id in ipairs { finished, late } do
      for _ = 1, 200 do
        local _, sb = call("GET", "/v1/sandboxes/" .. id, keys[1])
        if sb.state == "terminated" or sb.state == "finished" then break end
        task.sleep(0.05)
      end
    end
    local _, was = call("POST", "/v1/modal/sandbox/status", keys[1], at(ended))

    -- What only a timer ended is on the disk by the time the answer to a later call is.
    for round = 1, 2 do
      server:kill "KILL"
      server:wait(10)
      server, url = M.serve(dir)
      local function status_of(id)
        local status, sb, text = call("POST", "/v1/modal/sandbox/status", keys[1], at(id))
        assert.equal(200, status, text)
        assert.equal("terminated", sb.status)
        return sb
      end
      local is = status_of(ended)
      assert.equal(string.format("%.6f", was.cost + 0.001), string.format("%.6f", is.cost))
      was.cost = is.cost
      assert.same(was, is, "round " .. round)
      assert.equal("sandbox_timeout", status_of(late).reason)
      local done = status_of(finished)
      assert.equal("exited", done.reason)
      assert.equal("finished", done.state)
      assert.equal(7, done.returncode)
      local crashed = status_of(alive)
      assert.equal("terminated", crashed.reason)
      assert.equal(2, crashed.commands_executed)
      assert.equal(90, crashed.config.timeout)
      assert.equal(json.decode(first).created_at, crashed.created_at)
      assert.equal(json.decode(first).expires_at, crashed.expires_at)

      for id, want in pairs { [ended] = 410, [finished] = 410, [late] = 408, [alive] = 410 } do
        assert.equal(want, (call("POST", "/v1/modal/sandbox/exec", keys[1],
          { sandbox_id = id, command = "true" })))
        assert.equal(want, (call("POST", "/v1/modal/sandbox/terminate", keys[1], at(id))))
        assert.equal(404, (call("POST", "/v1/modal/sandbox/status", keys[2], at(id))))
        assert.equal(200, (call("GET", "/v1/sandboxes/" .. id, keys[1])))
        assert.equal(404, (call("GET", "/v1/sandboxes/" .. id, keys[2])))
        assert.equal(200, (call("DELETE", "/v1/sandboxes/" .. id, keys[1])))
      end
      local _, list = call("GET", "/v1/sandboxes", keys[1])
      assert.same({}, list.sandboxes)
      _, list = call("GET", "/v1/sandboxes?state=terminated&tag=kind=alive", keys[1])
      assert.equal(1, #list.sandboxes)
      assert.equal(alive, list.sandboxes[1].sandbox_id)
      assert.equal("db", list.sandboxes[1].name)
      local _, again = create({ timeout = 90, tags = { kind = "alive" }, name = "db" },
        kept)
      assert.equal(first, again)
    end
    server:kill "KILL"
    server:wait(10)

    -- Past their retention they are nobody's.
    server, url = M.serve(dir, "--retain", "1ms")
    assert.equal(404, (call("POST", "/v1/modal/sandbox/status", keys[1], at(ended))))
    assert.equal(0, M.stop(server).status)
    server, url = M.serve(dir)
    assert.equal(404, (call("POST", "/v1/modal/sandbox/status", keys[1], at(ended))))
    assert.equal(0, M.stop(server).status)
  end)

  it("has its books right whenever it is killed under load", function()
    if missing then return pending(missing) end
    local PRICES = { create = 10000, exec = 1000, status = 1000, terminate = 1000 }
    local dir, keys = M.state(CREDIT)
    local sure, perhaps, ids = {}, {}, {} -- answered; asked in vain; each that was made
    local server, url = M.serve(dir)
    local function cli(argv)
      table.move({ "--json", "--state", dir }, 1, 3, #argv + 1, argv)
      local r = proc.cli(argv)
      assert.equal(0, r.status, r.stderr)
      return json.decode(r.stdout)
    end
    for round = 1, 4 do
      local load = proc.start({ "python3", "spec/serve/killed.py", tostring(round), "4" },
        { env = proc.env { SERVE_URL = url, SERVE_KEYS = keys[1] } })
      load:expect("begun", 60)
      task.sleep(math.random() * 0.3)
      server:kill "KILL"
      server:wait(10)
      local r = load:wait(70)
      local told = json.decode(r.stdout:match "({.*)$")
      assert.same({}, told.wrong)
      for op in pairs(PRICES) do
        sure[op] = (sure[op] or 0) + (told.answered[op] or 0)
        perhaps[op] = (perhaps[op] or 0) + (told.unanswered[op] or 0)
      end
      perhaps.create = #told.lost -- which are looked at below
      server, url = M.serve(dir)

      -- The statement: no gap, each balance the sum so far, each price the table's, and exactly
      -- what was answered, but for what the kill left without an answer.
      local counts, made, balance = {}, {}, 0
      for i, e in ipairs(cli { "cost", "--statement", "tenant1" }) do
        balance = balance + e.microusd
        assert.equal(i, e.seq)
        assert.equal(balance, e.balance_microusd)
        if e.op ~= "topup" then
          counts[e.op] = (counts[e.op] or 0) + 1
          assert.equal(-PRICES[e.op], e.microusd)
        end
        if e.op == "create" then
          assert.is_nil(made[e.sandbox_id], "charged twice")
          made[e.sandbox_id] = true
        end
      end
      for op in pairs(PRICES) do
        local n = counts[op] or 0
        assert.is_true(n >= sure[op] and n <= sure[op] + perhaps[op],
          ("%s: %d entries, %d answers, %d unanswered"):format(op, n, sure[op], perhaps[op]))
      end
      local account = cli({ "key", "ls" })[1]
      assert.equal(balance, account.balance_microusd)
      assert.equal(0, account.held_microusd)

      -- Each sandbox that was made or paid is known, and has ended.
      for _, sb in ipairs(told.creates) do
        ids[sb.id] = true
        assert.is_true(made[sb.id], "not charged")
      end
      for id in pairs(made) do ids[id] = true end
      local list = json.decode(curl(url .. "/v1/sandboxes?state=terminated", "-H",
        "Authorization: Bearer " .. keys[1]).stdout)
      local known = {}
      for _, sb in ipairs(list.sandboxes) do known[sb.sandbox_id] = true end
      assert.is_false(list.has_more)
      for id in pairs(ids) do assert.is_true(known[id], id .. " is lost") end

      -- The last answer that a client had is what it gets again; and what had no answer is made
      -- and paid once, whether that was before the kill or is now.
      local function again(request)
        return curl("-H", "Authorization: Bearer " .. keys[1], "-H",
          "Idempotency-Key: " .. request.key, "-d", request.request,
          url .. "/v1/modal/sandbox/create").stdout
      end
      local last = told.creates[#told.creates]
      assert.equal(last.answer, again(last))
      for _, request in ipairs(told.lost) do
        local sb = json.decode(again(request))
        assert.is_string(sb.sandbox_id, sb.error and sb.error.message)
        counts.create = (counts.create or 0) + (made[sb.sandbox_id] and 0 or 1)
        sure.create = sure.create + 1
      end
      assert.equal(sure.create, counts.create)
    end
    assert.equal(0, M.stop(server).status)
  end)

  it("tells a service manager when it is ready", function()
    local dir = M.state()
    local ready = dir .. "/ready"
    local manager = proc.start({ "python3", "-c", [[
import os, socket, subprocess, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
p = subprocess.Popen(sys.argv[2:], env={**os.environ, "NOTIFY_SOCKET": sys.argv[1]})
print(s.recv(100).decode(), flush=True)
p.terminate()
sys.exit(p.wait())
]], ready, proc.regolith, "serve", "--listen", "127.0.0.1:0", "--state", dir, "-q" })
    local r = manager:wait(30)
    assert.equal(0, r.status, r.stderr)
    assert.equal("READY=1\n", r.stdout)
    assert.equal("socket", lfs.attributes(ready, "mode"))
  end)
end)

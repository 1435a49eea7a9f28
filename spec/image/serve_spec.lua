-- The API's documentation, followed with curl and with Python's requests against a server whose
-- default image comes from a registry: the commands and programs as they are published, but for
-- host, key and sandbox.
local json = require "json"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local proc = require "spec.support.proc"
local sdk = require "spec.image.sdk"
local t = require "spec.image.support"

local PYTHON = [[
import requests

BASE = "@BASE@/sandbox"
HEADERS = {
    "Authorization": "Bearer @KEY@",
    "Content-Type": "application/json",
}

# Create a sandbox
resp = requests.post(f"{BASE}/create", headers=HEADERS, json={
    "timeout": 300,
})
sandbox_id = resp.json()["sandbox_id"]
print(f"Created sandbox: {sandbox_id}")

# Execute a command
resp = requests.post(f"{BASE}/exec", headers=HEADERS, json={
    "sandbox_id": sandbox_id,
    "command": "python -c \"import math; print(math.pi)\"",
})
print(resp.json()["stdout"])

# Check status
resp = requests.post(f"{BASE}/status", headers=HEADERS, json={
    "sandbox_id": sandbox_id,
})
print(resp.json()["status"])

# Terminate when done
requests.post(f"{BASE}/terminate", headers=HEADERS, json={
    "sandbox_id": sandbox_id,
})
]]

local function curl(op, body)
  return ([[curl -sS -X POST @BASE@/sandbox/%s \
    -H "Authorization: Bearer @KEY@" \
    -H "Content-Type: application/json" \
    -d '%s']]):format(op, body)
end

t.describe(_ENV, "the Compute API's documentation", function()
  local server, fill, dir

  before_each(function()
    if not t.name then return end
    t.env.REGOLITH_IMAGES_JSON = files.write(files.dir "conf" .. "/images.json", json.encode {
      registries = { [("127.0.0.1:%d"):format(t.port)] = { plain_http = true } } })
    dir = files.dir "serve"
    local made = proc.cli({ "key", "add", "reader", "--credit", "1", "--state", dir },
      { env = t.env })
    local key = assert(made.stdout:match "sk%-%w+", made.stderr)
    function fill(text) return (text:gsub("@BASE@", server.base):gsub("@KEY@", key)) end
  end)

  local function serve_image(tag, ...)
    server = proc.cli_start({ "serve", "--listen", "127.0.0.1:0", "--state", dir,
      "--default-image", t.name .. ":" .. tag, "--default-network", "none", ... }, { env = t.env })
    server.base = server:expect("http://[%d.:]+", 20) .. "/v1/marketplace/compute"
  end

  local function serve(...) serve_image("base", ...) end

  local function stop()
    if not server then return end
    server:kill "TERM"
    assert.equal(0, server:wait(40).status)
    server = nil
  end

  after_each(stop)

  local function run_raw(options, op, body)
    local r = proc.run({ "sh", "-c", fill(curl(op, body)) .. " " .. options }, { timeout = 60 })
    assert.equal(0, r.status, r.stderr)
    return r.stdout
  end

  local function run(op, body)
    local text = run_raw("", op, body)
    return json.decode(text), text
  end

  t.it("holds for its curl commands; the image is pulled by the first", function()
    serve()
    local sb, text = run("create", '{"timeout": 300}')
    assert.equal("running", sb.status, text)
    assert.matches("^sb_%w%w%w%w%w%w%w%w%w%w$", sb.sandbox_id)
    local id = ('"sandbox_id": "%s"'):format(sb.sandbox_id)
    local r = run("exec", ([[{%s, "command": "python -c \"print(2+2)\""}]]):format(id))
    assert.same({ 0, "4\n", "" }, { r.exit_code, r.stdout, r.stderr })
    r = run("exec", ([[{%s, "command": ["python", "-c", "import sys; print(sys.version)"]}]])
      :format(id))
    assert.matches("^3%.11%.", r.stdout)
    r = run("status", ("{%s}"):format(id))
    assert.same({ "running", 2, sb.created_at, sb.expires_at },
      { r.status, r.commands_executed, r.created_at, r.expires_at })
    assert.same({ sandbox_id = sb.sandbox_id, status = "terminated" },
      (run("terminate", ("{%s}"):format(id))))
    r = run("exec", ([[{%s, "command": "true"}]]):format(id))
    assert.equal("sandbox_terminated", r.error.code)
  end)

  t.it("holds for its Python program", function()
    if proc.run({ "python3", "-c", "import requests" }).status ~= 0 then
      return pending "skipped: python3-requests is not installed"
    end
    serve()
    local r = proc.run({ "python3", "-c", fill(PYTHON) }, { timeout = 60 })
    assert.equal(0, r.status, r.stderr)
    assert.matches("^Created sandbox: sb_%w+\n3%.141592653589793\n\nrunning\n$", r.stdout)
  end)

  t.it("holds for the flows of its SDK examples, pip install among them", function()
    serve_image "pip"
    sdk.flows(function(op, body)
      return (run(op, (json.encode(body):gsub("'", "'\\''"))))
    end, "1%.0")
  end)

  t.it("keeps the files of a sandbox as an image of its key alone", function()
    if proc.run({ "python3", "-c", "import requests, jsonschema" }).status ~= 0 then
      return pending "skipped: python3-requests and python3-jsonschema are not installed"
    end
    serve()
    local made = proc.cli({ "key", "add", "other", "--credit", "1", "--state", dir },
      { env = t.env })
    local r = proc.run({ "python3", "spec/serve/checks.py", "snapshot" }, { timeout = 60,
      env = proc.env { SERVE_URL = server.base:match "^http://[%d.:]+",
        SERVE_KEYS = fill "@KEY@" .. " " .. made.stdout, PYTHONDONTWRITEBYTECODE = "1" } })
    assert.equal("ok snapshot\n", r.stdout, r.stdout .. r.stderr)
  end)

  t.it("waits for nobody's image in vain: what there is not is said", function()
    serve()
    local r = run("create", ('{"image": "%s:nosuch"}'):format(t.name))
    assert.equal("image_not_found", r.error.code)
    r = run("create", '{"image": "host"}')
    assert.equal("denied", r.error.code)
  end)

  t.it("answers 503 when a pull takes longer than clients wait, and the pull goes on", function()
    serve("--pull-wait", "300ms")
    t.set { delay = 0.4 } -- each of a manifest, a configuration and twelve layers
    local function try(tag)
      local text = run_raw("-D -", "create", ('{"image": "%s:%s"}'):format(t.name, tag))
      return text:match "^HTTP/1.1 (%d+)", text
    end
    local status, text = try "many"
    assert.equal("503", status, text)
    expect.contains(text, "Retry-After: 1")
    assert.equal("engine_unavailable", json.decode(text:match "\r\n\r\n(.*)").error.code)
    local tries = 1
    while status == "503" and tries < 100 do
      status, text = try "many"
      tries = tries + 1
    end
    assert.equal("200", status, text)
    local asked = 0
    for _, q in ipairs(t.log()) do asked = asked + (q.path:find "manifests/many" and 1 or 0) end
    assert.equal(1, asked) -- all tries waited for one pull
    assert.equal("503", (try "zstd"))
    stop() -- ends the pull of an image that nobody waits for
    t.tidy()
    assert.equal(1, #t.listed())
    local function books(...)
      local args = { ... }
      for _, a in ipairs { "--json", "--state", dir } do args[#args + 1] = a end
      return json.decode(proc.cli(args).stdout)
    end
    assert.equal(0, books("key", "ls")[1].held_microusd)
    -- the credit, and the one create that succeeded
    assert.equal(2, #books("cost", "--statement", "reader"))
  end)
end)

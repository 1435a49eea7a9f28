-- The API's documentation, followed with curl and with Python's requests against a server whose
-- default image comes from a registry: the commands and programs as they are published, but for
-- host, key and sandbox.
local json = require "json"
local files = require "spec.support.files"
local proc = require "spec.support.proc"
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
  local server, fill

  before_each(function()
    if not t.name then return end
    t.env.REGOLITH_IMAGES_JSON = files.write(files.dir "conf" .. "/images.json", json.encode {
      registries = { [("127.0.0.1:%d"):format(t.port)] = { plain_http = true } } })
    local dir = files.dir "serve"
    local made = proc.cli({ "key", "add", "reader", "--credit", "1", "--state", dir },
      { env = t.env })
    local key = assert(made.stdout:match "sk%-%w+", made.stderr)
    server = proc.cli_start({ "serve", "--listen", "127.0.0.1:0", "--state", dir,
      "--default-image", t.name .. ":base", "--default-network", "none" }, { env = t.env })
    local base = server:expect("http://[%d.:]+", 20) .. "/v1/marketplace/compute"
    function fill(text) return (text:gsub("@BASE@", base):gsub("@KEY@", key)) end
  end)

  after_each(function()
    if not server then return end
    server:kill "TERM"
    assert.equal(0, server:wait(40).status)
    server = nil
  end)

  local function run(op, body)
    local r = proc.run({ "sh", "-c", fill(curl(op, body)) }, { timeout = 60 })
    assert.equal(0, r.status, r.stderr)
    return json.decode(r.stdout), r.stdout
  end

  t.it("holds for its curl commands; the image is pulled by the first", function()
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
    local r = proc.run({ "python3", "-c", fill(PYTHON) }, { timeout = 60 })
    assert.equal(0, r.status, r.stderr)
    assert.matches("^Created sandbox: sb_%w+\n3%.141592653589793\n\nrunning\n$", r.stdout)
  end)

  t.it("waits for nobody's image in vain: what there is not is said", function()
    local r = run("create", ('{"image": "%s:nosuch"}'):format(t.name))
    assert.equal("image_not_found", r.error.code)
    r = run("create", '{"image": "host"}')
    assert.equal("denied", r.error.code)
  end)
end)

-- Sandboxes that are servers: the entrypoint, when it is ready, how it ends, what it printed.
local sandbox = require "sandbox"
local task = require "task"
local expect = require "spec.support.expect"
local proc = require "spec.support.proc"

local has_python = proc.run({ "sh", "-c", "command -v /usr/bin/python3" }).status == 0

-- Listens on a port of an address after a while.
local SERVER <const> = [[
import socket, sys, time
print("starting", flush=True)
time.sleep(float(sys.argv[3]))
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
s.bind((sys.argv[1], int(sys.argv[2])))
s.listen()
while True:
    c = s.accept()[0]
    c.sendall(b"hello")
    c.close()
]]

local function server(address, port, delay)
  return { "python3", "-c", SERVER, address, tostring(port), tostring(delay) }
end

local function it_with_python(name, fn)
  it(name, function()
    if not has_python then pending "skipped: python3 is not in /usr/bin" end
    fn()
  end)
end

describe("a sandbox with an entrypoint", function()
  it_with_python("is ready once its port accepts connections, inside its own network", function()
    for _, address in ipairs { "127.0.0.1", "0.0.0.0", "::1" } do
      local start = task.now()
      local sb <close> = sandbox.create { entrypoint = server(address, 8123, 0.2),
        ready = { tcp = 8123 } }
      assert.equal("started", sb.state)
      sb:wait_ready "20s"
      assert.equal("ready", sb.state)
      assert.is_true(task.now() - start >= 0.2)
      assert.equal("ready", sb:status().state)
      assert.equal("starting\n", sb:status().entrypoint.stdout)
      assert.is_true(sb:status().entrypoint.running)
    end
  end)

  it_with_python("is not ready for a port that another sandbox has open", function()
    local one <close> = sandbox.create { entrypoint = server("0.0.0.0", 8124, 0),
      ready = { tcp = 8124 } }
    one:wait_ready "20s"
    local two <close> = sandbox.create { ready = { tcp = 8124 } }
    local e = expect.raises({ code = "timeout", match = "port 8124" }, two.wait_ready, two, 0.2)
    assert.equal(two.sandbox_id, e.sandbox_id)
  end)

  it("ends with it, and says how and what it printed last", function()
    local sb <close> = sandbox.create { ready = { tcp = 8000 },
      entrypoint = { "sh", "-c", "echo working; sleep 0.05; echo 'no such database' >&2; exit 3" } }
    expect.raises({ code = "sandbox_terminated", match = "no such database" }, sb.wait_ready, sb)
    local status = sb:status()
    assert.equal("finished", status.state)
    assert.equal("exited", status.reason)
    assert.equal(3, status.returncode)
    assert.equal("working\n", status.entrypoint.stdout)
    assert.equal("no such database\n", status.entrypoint.stderr)
    assert.is_false(status.entrypoint.running)
    expect.raises({ code = "sandbox_terminated", match = "it ended with 3" }, sb.exec, sb, "true")
  end)

  it("keeps the first and the last of what it prints, and no more", function()
    local sb <close> = sandbox.create {
      entrypoint = { "sh", "-c", "echo first; head -c 30000000 /dev/zero; echo last" } }
    while sb:status().state == "started" do task.sleep(0.01) end
    local out = sb:status().entrypoint
    assert.equal(8192, #out.stdout)
    assert.equal("first\n", out.stdout:sub(1, 6))
    assert.equal("last\n", out.stdout:sub(-5))
    assert.is_true(out.truncated)
  end)

  it("is ready at once when nothing is checked", function()
    local sb <close> = sandbox.create {}
    assert.equal("started", sb:wait_ready().state)
  end)
end)

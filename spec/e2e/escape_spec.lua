-- The containment suite: named steps out of a sandbox (spec/support/escapes.py), as root in one
-- with a network, each refused; and, as the control that proves that each can fail, the same steps
-- where nothing holds them, in a mount namespace that ends with them and against a process of ours.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"
local users = require "spec.support.user"

local STEPS = "spec/support/escapes.py"
-- A process of the machine with things to be found.
local VICTIM = [[
import os, socket, sys, time, ctypes
name, key = sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_UNIX); s.bind("\0" + name); s.listen()
open("/dev/shm/" + name, "w").close()
shm = ctypes.CDLL(None).shmget(key, 4096, 0o1600)
print("up", flush=True)
sys.stdin.read()
ctypes.CDLL(None).shmctl(shm, 0, None)
os.unlink("/dev/shm/" + name)
]]

local function facts(dir, pid, name, key, free)
  return ('{"dir":"%s","victim":%d,"socket":"%s","shm":%d,"free":%s}')
    :format(dir, pid, name, key, tostring(free))
end

-- What each step came to, in order.
local function read(text)
  local steps = {}
  for name, word in text:gmatch "([%w_]+) (%l+)[^\n]*\n" do
    steps[#steps + 1] = { name = name, word = word }
  end
  return steps
end

describe("a hostile command", function()
  local before, dir, victim, name, key
  setup(function()
    before = leftovers.before()
    dir = files.dir "canary"
    files.write(dir .. "/canary", "canary")
    name, key = "rgcanary" .. sys.self, 0x52470000 + sys.self % 65536
    victim = proc.start({ "sh", "-c", "exec python3 -c \"$0\" \"$@\" 9<canary", VICTIM, "canary",
      name, tostring(key) }, { cwd = dir, stdin = true })
    victim:expect "up"
  end)
  teardown(function()
    victim:close_stdin()
    victim:wait(10)
    files.clean()
    leftovers.none_since(before, 5)
  end)

  local function holds(r)
    local steps, out = read(r.stdout), {}
    assert.is_true(#steps >= 70, r.stdout .. r.stderr)
    for _, s in ipairs(steps) do
      if s.word ~= "refused" then out[#out + 1] = s.name .. " " .. s.word end
    end
    assert.equal("", table.concat(out, "\n"))
  end
  local function exec(network)
    return { "exec", "--network", network, "--", "python3", "-c", files.read(STEPS),
      facts(dir, victim.pid, name, key, false) }
  end

  it("gets nowhere by any known step", function()
    holds(proc.cli(exec(sys.root and "open" or "none")))
  end)

  for _, subids in ipairs { true, false } do
    it(("gets nowhere under an ordinary user %s subordinate ids")
      :format(subids and "with" or "without"), function()
      local user = users.make(subids)
      if not user then return pending(users.no_users) end
      local r = user:run(exec "none")
      user:remove()
      holds(r)
    end)
  end

  it("would get out by each of them without walls", function()
    if not sys.root then return pending "needs root" end
    local r = proc.run({ "sh", "-c", "exec 7</; exec unshare --mount --propagation private \"$@\"",
      "sh", "python3", STEPS, facts(dir, victim.pid, name, key, true) }, { timeout = 60 })
    local steps, held = read(r.stdout), {}
    for _, s in ipairs(steps) do
      if s.word == "refused" then held[#held + 1] = s.name end
    end
    assert.equal("", table.concat(held, "\n"), r.stdout .. r.stderr)
    expect.contains(r.stdout, "take_the_network_down done")
  end)
end)

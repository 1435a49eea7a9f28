-- Commands that take all they can get of one thing: each meets a limit of its own, is told of as it
-- was, leaves its sandbox in use, and a neighbour's commands work all the while.
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local machine = require "spec.support.machine"
local proc = require "spec.support.proc"

-- The bomb says "full" when there is nothing more to get, and holds what it has.
local SCRIPT = [[
local sandbox = require "sandbox"
local neighbour <close> = sandbox.create { memory = "128MiB", timeout = 60 }
local sb <close> = sandbox.create { memory = "128MiB", disk = "16MiB", pids = 64, timeout = 60 }
local function works()
  for i = 1, 5 do assert(neighbour:exec("echo " .. i).stdout == i .. "\n") end
end
local function hold(code)
  local p = sb:spawn { "python3", "-c", "import errno, os, sys, time\n" .. code ..
    "\nprint('full', e.strerror, flush=True)\ntime.sleep(50)" }
  local said = p:lines()()
  works()
  p:kill "KILL"
  p:wait()
  print(said, sb:exec("echo alive").stdout)
end
]]

local HOLDS = {
  { "disk", "No space left on device", [[
    hold("try:\n f = open('/tmp/f', 'wb', 0)\n while 1: f.write(bytes(1 << 20))\n" ..
      "except OSError as x: e = x")
    sb:remove "/tmp/f"]] },
  { "inodes", "No space left on device", [[
    hold("try:\n for i in range(1 << 30): open('/tmp/%d' % i, 'w').close()\n" ..
      "except OSError as x: e = x")]] },
  { "descriptors", "Too many open files", [[
    hold "try:\n a = []\n while 1: a.append(os.pipe())\nexcept OSError as x: e = x"]] },
  { "processes", "Resource temporarily unavailable", [[
    hold("try:\n while 1:\n  if os.fork() == 0: time.sleep(50); os._exit(0)\n" ..
      "except OSError as x: e = x")]] },
}

describe("a bomb of", function()
  local before
  before_each(function() before = leftovers.before() end)
  after_each(function()
    files.clean()
    leftovers.none_since(before, 5)
  end)

  local function test(name, fn)
    it(name, function()
      if not machine.has_limits() then return pending(machine.no_limits) end
      if proc.run({ "sh", "-c", "command -v python3" }).status ~= 0 then
        return pending "needs python3"
      end
      fn()
    end)
  end

  local function run(text)
    local r = proc.cli({ "run", files.script("bomb.lua", SCRIPT .. text) }, { timeout = 60 })
    assert.equal(0, r.status, r.stdout .. r.stderr)
    return r.stdout
  end

  for _, b in ipairs(HOLDS) do
    test(b[1] .. " is told by the kernel, and hurts nobody", function()
      assert.equal(("full %s\talive\n\n"):format(b[2]), run(b[3]))
    end)
  end

  test("memory ends as oom", function()
    assert.equal("oom\talive\n\n", run [[
      local p = sb:spawn { "python3", "-c", "a = []\nwhile 1: a.append(bytearray(1 << 20))" }
      works()
      local r = p:wait()
      print(r.reason, sb:exec("echo alive").stdout)]])
  end)

  test("signals to the agent, and of output, end when they are ended", function()
    run [[
      for _, code in ipairs { "while 1: os.kill(1, 9); os.kill(1, 10); os.kill(1, 17)",
          "while 1: print('y' * 99)" } do
        local p = sb:spawn { "python3", "-c", "import os\nprint('up', flush=True)\n" .. code }
        assert(p:lines()() == "up")
        works()
        assert(sb:exec("echo alive").stdout == "alive\n")
        p:kill "KILL"
        assert(p:wait().signal == "SIGKILL" or p:wait().reason ~= "exited")
      end]]
  end)
end)

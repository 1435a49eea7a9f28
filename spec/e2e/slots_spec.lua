-- Boxes are made ahead of the creates that take them: whichever create takes one gets what it asked
-- for, and nothing of anyone else's.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local rootfs = require "spec.support.rootfs"

describe("a box that was made ahead", function()
  local before
  before_each(function() before = leftovers.before() end)
  after_each(function()
    files.clean()
    leftovers.none_since(before, 5)
  end)

  local function run(script, ...)
    local args = { "run", ... }
    args[#args + 1] = files.script("a.lua", script)
    local r = proc.cli(args)
    assert.equal(0, r.status, r.stderr)
    return r.stdout
  end

  it("has the disk that its sandbox asked for, and nothing in it", function()
    local out = run [[
      local sandbox, task = require "sandbox", require "task"
      local sizes = { 64, 1024, 200, 32 }
      local function check(i)
        local mib = sizes[i % #sizes + 1]
        local sb <close> = sandbox.create { disk = mib .. "MiB" }
        local r = sb:exec([=[
          set -e
          df -k / | awk 'NR == 2 { print $2 }'
          df -k /dev/shm | awk 'NR == 2 { print $2 }'
          df -i / | awk 'NR == 2 { print $2 }'
          hostname
          ls -A /tmp /home /root /var/tmp /dev/shm | grep -v : | grep . || echo empty
          echo mine >/tmp/mark; echo mine >/dev/shm/mark; hostname mine 2>/dev/null || true
        ]=]):check()
        local lines = {}
        for line in r.stdout:gmatch "[^\n]+" do lines[#lines + 1] = line end
        assert(tonumber(lines[1]) == mib * 1024, "size of / is " .. tostring(lines[1]))
        assert(tonumber(lines[2]) == mib * 1024, "size of /dev/shm is " .. tostring(lines[2]))
        assert(tonumber(lines[3]) == math.max(mib * 128, 4096), "inodes are " .. tostring(lines[3]))
        assert(lines[4] == "sandbox", tostring(lines[4]))
        assert(lines[5] == "empty", tostring(lines[5]))
      end
      for i = 1, 12 do check(i) end
      local list = {}
      for i = 1, 24 do list[i] = i end
      task.map(list, { limit = 12 }, check)
      task.sleep(0.2)
      for i = 1, 12 do check(i) end
      print "all as asked for"
    ]]
    expect.contains(out, "all as asked for")
  end)

  it("fits its image, whatever the last one was", function()
    local image = rootfs.make()
    local dir = files.dir "shared"
    files.write(dir .. "/note", "of the volume")
    local out = run(string.format([[
      local sandbox = require "sandbox"
      local image = %q
      for i = 1, 6 do
        local plain <close> = sandbox.create {}
        local other <close> = sandbox.create { image = "dir:" .. image }
        local shared = { source = "shared", target = "/data" }
        local volume <close> = sandbox.create { volumes = { shared } }
        assert(plain:exec({ "cat", "/etc/hostname" }):check().stdout == "sandbox\n")
        assert(not plain:exec({ "ls", "/data" }).ok)
        assert(volume:exec({ "cat", "/data/note" }):check().stdout == "of the volume")
        local r = other:exec({ "/bin/sh", "-c", "echo from image" }):check()
        assert(r.stdout == "from image\n")
      end
      print "each its own"
    ]], image), "--allow-dir-image", image, "--volume", "shared=" .. dir)
    expect.contains(out, "each its own")
  end)
end)

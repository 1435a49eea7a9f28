-- The check for leftovers is only worth something if it finds them: each kind, planted.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"
local lfs = require "lfs"

describe("the check for leftovers finds", function()
  local before
  before_each(function() before = leftovers.before() end)
  after_each(function() leftovers.none_since(before, 3) end)

  local function finds(what)
    local ok, message = pcall(leftovers.none_since, before, 0.1)
    assert.is_false(ok)
    expect.contains(message, what)
  end

  it("an orphan in a session of its own", function()
    local r = proc.run({ "sh", "-c", "setsid sleep 91 >/dev/null 2>&1 & echo $!" })
    assert.equal(0, r.status)
    finds "sleep 91"
    for _, p in ipairs(sys.below(sys.self, before.processes)) do proc.kill(p.pid, "KILL") end
  end)

  it("a file in the scratch directories", function()
    local path = (os.getenv "TMPDIR" or "/tmp") .. "/planted"
    files.write(path, "x") -- not made by files.dir, so not ours
    finds(path)
    os.remove(path)
  end)

  it("a cgroup of a warden that is gone", function()
    local parent
    for base in pairs(leftovers.cgroup_bases()) do
      if base:find("/pids", 1, true) or not parent then parent = base .. "/regolith" end
    end
    local had_parent = files.exists(parent)
    if not had_parent and not lfs.mkdir(parent) then return pending "cannot make cgroups here" end
    local dir = parent .. "/w-0-4194304-planted"
    local ok, message
    -- Any warden that starts now takes it for stale, as it should, and removes it.
    for _ = 1, 5 do
      assert(lfs.mkdir(dir))
      ok, message = pcall(finds, dir)
      lfs.rmdir(dir)
      if ok then break end
    end
    if not had_parent then lfs.rmdir(parent) end
    assert.is_true(ok, message)
  end)

  it("a mount", function()
    if not sys.root then return pending "needs root" end
    local dir = files.dir "mount"
    local r = proc.run({ "mount", "-t", "tmpfs", "none", dir })
    if r.status ~= 0 then
      files.clean()
      return pending("cannot mount here: " .. r.stderr)
    end
    local ok, message = pcall(finds, dir)
    proc.run({ "umount", dir })
    files.clean()
    assert.is_true(ok, message)
  end)
end)

-- The same binary as an ordinary user, with and without subordinate ids. Needs root, to make users
-- that are removed again; where the suite itself runs as a user, all its other specs say the same.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"
local task = require "task"

local function sh(command)
  local r = proc.run({ "sh", "-c", command })
  if r.status ~= 0 then error(command .. ": " .. r.stderr, 2) end
  return r.stdout
end

local FAN = [[
local sandbox, task = require "sandbox", require "task"
local out = task.map({ 1, 2, 3, 4, 5, 6 }, { limit = 3 }, function(i)
  local sb <close> = sandbox.create { env = { I = tostring(i) } }
  sb:exec "echo $I >/tmp/f"
  local a = task.spawn(function() return sb:exec "cat /tmp/f" end)
  local b = task.spawn(function() return sb:exec({ "sleep", "9" }, { timeout = 0.2 }) end)
  return a:wait().stdout:match "%d" .. b:wait().reason
end)
print(table.concat(out, " "))
]]

local BUSY = [[
local sandbox, task = require "sandbox", require "task"
for i = 1, 3 do
  task.spawn(function()
    while true do
      local sb <close> = sandbox.create {}
      sb:exec "setsid sleep 84 & echo started"
      sb:exec({ "sleep", "85" }, { timeout = 0.02 })
    end
  end)
end
]]

-- A user with a copy of the binary and of the scripts.
local function make_user(name, subids)
  local user = { name = name, home = files.dir "home" }
  sh(("useradd -r -M -d '%s' -s /bin/sh %s"):format(user.home, name))
  if subids then
    local range = "2000000000-2000131071"
    sh(("usermod --add-subuids %s --add-subgids %s %s"):format(range, range, name))
  end
  user.uid = tonumber(sh("id -u " .. name))
  user.gid = tonumber(sh("id -g " .. name))
  user.bin = user.home .. "/regolith"
  -- The parts that the program opens on first use lie beside it.
  sh(("cp '%s' '%s'"):format(proc.regolith, user.bin))
  sh(("for f in '%s'/*.so; do [ ! -e $f ] || cp $f '%s'; done"):format(proc.build, user.home))
  sh(("chown -R %s '%s'"):format(name, user.home))
  files.write(user.home .. "/fan.lua", FAN)
  files.write(user.home .. "/busy.lua", BUSY)
  files.write(user.home .. "/secret", "secret")
  user.env = { HOME = user.home, PATH = os.getenv "PATH", USER = name, TMPDIR = os.getenv "TMPDIR",
    LC_ALL = "C.UTF-8" }
  return user
end

local function as(user, args, opts)
  opts = opts or {}
  opts.uid, opts.gid, opts.env, opts.cwd = user.uid, user.gid, user.env, "/"
  return proc.start({ user.bin, table.unpack(args) }, opts)
end

local function run(user, args, opts) return as(user, args, opts):wait(30) end

for _, subids in ipairs { true, false } do
  local what = subids and "with subordinate ids" or "without subordinate ids"
  describe("an ordinary user " .. what, function()
    local user, before
    setup(function()
      if not sys.root then return end
      user = make_user(("rgtest%d%s"):format(sys.self, subids and "s" or "n"), subids)
    end)
    teardown(function()
      if user then sh("userdel " .. user.name) end
      files.clean()
    end)
    before_each(function() before = leftovers.before() end)
    after_each(function() leftovers.none_since(before, 5) end)

    local function test(name, fn)
      it(name, function()
        if not user then return pending "needs root, to make a user" end
        fn()
      end)
    end

    test("is told by doctor what it has", function()
      local r = run(user, { "doctor" })
      assert.equal(0, r.status, r.stdout .. r.stderr)
      expect.contains(r.stdout, "subordinate")
      if not subids then expect.contains(r.stdout, "usermod") end
    end)

    test("runs commands, with honest ends", function()
      local r = run(user, { "exec", "--", "sh", "-c", "id -u; cat; echo err >&2; exit 3" },
        { stdin = "in" })
      assert.equal("0\nin", r.stdout)
      assert.equal("err\n", r.stderr)
      assert.equal(3, r.status)
      assert.equal(127, run(user, { "exec", "--", "no-such-thing" }).status)
      assert.equal(143, run(user, { "exec", "--", "sh", "-c", "kill $$" }).status)
    end)

    test("ends all that a command started at its time-out", function()
      local r = run(user, { "exec", "--timeout", "500ms", "--", "sh", "-c",
        "trap '' TERM; setsid sleep 81 & (setsid setsid sleep 82 &); echo up; sleep 83" })
      assert.equal(124, r.status)
      assert.equal("up\n", r.stdout)
      expect.between(450, 3500, r.duration_ms, "ms")
    end)

    test("runs scripts with several sandboxes, files and execs at once", function()
      local r = run(user, { "run", user.home .. "/fan.lua" })
      assert.equal("", r.stderr)
      assert.equal("1timeout 2timeout 3timeout 4timeout 5timeout 6timeout\n", r.stdout)
    end)

    test("cannot reach its own files, nor root's, from inside", function()
      local r = run(user, { "exec", "--", "sh", "-c", ([[
        cat '%s/secret'; ls -A /root; ls -A /home; cat /etc/shadow; touch /usr/x; echo done
      ]]):format(user.home) })
      assert.equal("done\n", r.stdout)
      assert.is_false(files.exists "/usr/x")
    end)

    test("leaves nothing after kill -9 at random moments", function()
      for round = 1, 10 do
        local p = as(user, { "run", user.home .. "/busy.lua" })
        task.sleep(math.random() * 0.2)
        p:kill "KILL"
        p:wait(10)
        leftovers.none_since(before, 5, "round " .. round)
      end
    end)

    test("ends well at Ctrl-C", function()
      local p = as(user, { "run", user.home .. "/busy.lua" })
      task.sleep(0.4)
      p:kill("INT", true)
      assert.equal(130, p:wait(15).status)
    end)
  end)
end

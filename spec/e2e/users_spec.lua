-- The same binary as an ordinary user, with and without subordinate ids. Needs root, to make users
-- that are removed again; where the suite itself runs as a user, all its other specs say the same.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local task = require "task"
local users = require "spec.support.user"

local FAN = [[
local sandbox, task = require "sandbox", require "task"
local out = task.map({ 1, 2, 3, 4, 5, 6 }, { limit = 3 }, function(i)
  local sb <close> = sandbox.create { env = { I = tostring(i) } }
  sb:write("/tmp/f", sb:exec("echo $I").stdout)
  local a = task.spawn(function() return sb:exec "cat /tmp/f" end)
  local b = task.spawn(function() return sb:exec({ "sleep", "9" }, { timeout = 0.2 }) end)
  assert(sb:read "/tmp/f" == i .. "\n" and sb:stat("/tmp/f").uid == 0)
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

-- A user with the scripts.
local function make_user(subids)
  local user = users.make(subids)
  if not user then return end
  files.write(user.home .. "/fan.lua", FAN)
  files.write(user.home .. "/busy.lua", BUSY)
  files.write(user.home .. "/secret", "secret")
  return user
end

for _, subids in ipairs { true, false } do
  local what = subids and "with subordinate ids" or "without subordinate ids"
  describe("an ordinary user " .. what, function()
    local user, before
    setup(function()
      user = make_user(subids)
    end)
    teardown(function()
      if user then user:remove() end
      files.clean()
    end)
    before_each(function() before = leftovers.before() end)
    after_each(function() leftovers.none_since(before, 5) end)

    local function test(name, fn)
      it(name, function()
        if not user then return pending(users.no_users) end
        fn()
      end)
    end

    test("is told by doctor what it has", function()
      local r = user:run({ "doctor" })
      assert.equal(0, r.status, r.stdout .. r.stderr)
      expect.contains(r.stdout, "subordinate")
      if not subids then expect.contains(r.stdout, "usermod") end
    end)

    test("runs commands, with honest ends", function()
      local r = user:run({ "exec", "--", "sh", "-c", "id -u; cat; echo err >&2; exit 3" },
        { stdin = "in" })
      assert.equal("0\nin", r.stdout)
      assert.equal("err\n", r.stderr)
      assert.equal(3, r.status)
      assert.equal(127, user:run({ "exec", "--", "no-such-thing" }).status)
      assert.equal(143, user:run({ "exec", "--", "sh", "-c", "kill $$" }).status)
    end)

    test("ends all that a command started at its time-out", function()
      local r = user:run({ "exec", "--timeout", "500ms", "--", "sh", "-c",
        "trap '' TERM; setsid sleep 81 & (setsid setsid sleep 82 &); echo up; sleep 83" })
      assert.equal(124, r.status)
      assert.equal("up\n", r.stdout)
      expect.between(450, 3500, r.duration_ms, "ms")
    end)

    test("runs scripts with several sandboxes, files and execs at once", function()
      local r = user:run({ "run", user.home .. "/fan.lua" })
      assert.equal("", r.stderr)
      assert.equal("1timeout 2timeout 3timeout 4timeout 5timeout 6timeout\n", r.stdout)
    end)

    test("cannot reach its own files, nor root's, from inside", function()
      local r = user:run({ "exec", "--", "sh", "-c", ([[
        cat '%s/secret'; ls -A /root; ls -A /home; cat /etc/shadow; touch /usr/x; echo done
      ]]):format(user.home) })
      assert.equal("done\n", r.stdout)
      assert.is_false(files.exists "/usr/x")
    end)

    test("cannot limit, reprioritize or trace the agent from inside", function()
      local r = user:run({ "exec", "--", "sh", "-c", [[
        prlimit --pid 1 --cpu=1:1; prlimit --pid 1 --nofile=1:1; prlimit --pid 1 --fsize
        renice 19 1; ionice -c 3 -p 1; chrt -i -p 0 1; taskset -p 1 1
        echo 1000 >/proc/1/oom_score_adj
        cat /proc/1/environ; ls /proc/1/fd; kill -9 1; kill -STOP 1
        prlimit --pid $$ --nofile=9:9 && echo own]] })
      assert.equal("own\n", r.stdout:gsub("pid 1's current[^\n]*\n", ""), r.stderr)
    end)

    test("leaves nothing after kill -9 at random moments", function()
      for round = 1, 10 do
        local p = user:start({ "run", user.home .. "/busy.lua" })
        task.sleep(math.random() * 0.2)
        p:kill "KILL"
        p:wait(10)
        leftovers.none_since(before, 5, "round " .. round)
      end
    end)

    test("has workers that hold what a hostile one tries", function()
      if subids then return end -- without it is the weaker of the two
      for _, name in ipairs { "test_worker", "test_worker_hostile" } do
        proc.run { "cp", proc.build .. "/spec/" .. name, user.home }
        local r = user:start_program({ user.home .. "/" .. name }):wait(60)
        assert.equal(0, r.status, r.stdout:sub(-2000) .. r.stderr:sub(-2000))
        expect.contains(r.stdout, " 0 failed")
      end
    end)

    test("ends well at Ctrl-C", function()
      local p = user:start({ "run", user.home .. "/busy.lua" })
      task.sleep(0.4)
      p:kill("INT", true)
      assert.equal(130, p:wait(15).status)
    end)
  end)
end

-- Sandboxes made of images.
local json = require "json"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local proc = require "spec.support.proc"
local t = require "spec.image.support"

t.describe(_ENV, "images", function()
  describe("as sandboxes", function()
    local function exec(tag, ...)
      return proc.cli({ "exec", "--image", t.name .. ":" .. tag, ... },
        { env = t.env, timeout = 60 })
    end

    before_each(function()
      if not t.name then return end
      t.env.REGOLITH_IMAGES_JSON = files.write(files.dir "conf" .. "/images.json", json.encode {
        registries = { [("127.0.0.1:%d"):format(t.port)] = { plain_http = true } } })
    end)

    t.it("are pulled when they are absent, and only then", function()
      local r = exec("base", "--", "python", "-c", "import ssl, sqlite3, json; print('runs')")
      assert.equal("runs\n", r.stdout, r.stderr)
      t.set {}
      r = exec("base", "--", "python", "-c", "print(2)")
      assert.equal("2\n", r.stdout, r.stderr)
      assert.same({}, t.log())
      t.env.REGOLITH_PULL = "always"
      assert.equal(0, exec("base", "--", "true").status)
      assert.is_true(#t.log() > 0)
      t.env.REGOLITH_PULL = "never"
      r = exec("app", "--", "true")
      assert.equal(125, r.status)
      expect.contains(r.stderr, "regolith image pull")
    end)

    t.it("bring environment, working directory and user, which options override", function()
      local r = exec("app", "--", "sh", "-c", "pwd; id; echo $APP $PYTHON_VERSION $HOME")
      assert.equal("/srv/app\nuid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n" ..
        "1 3.11 /srv/home\n", r.stdout, r.stderr)
      r = exec("app", "--user", "root", "--cwd", "/", "--env", "APP=2", "--", "sh", "-c",
        "pwd; id -u; echo $APP $PYTHON_VERSION")
      assert.equal("/\n0\n2 3.11\n", r.stdout, r.stderr)
    end)

    t.it("run what they t.name when no command is given", function()
      local r = exec "app"
      assert.equal("app /srv/app\n", r.stdout, r.stderr)
      r = proc.cli({ "exec", "--image", "host" }, { env = t.env })
      assert.equal(125, r.status)
      expect.contains(r.stderr, "no command")
    end)

    t.it("show whiteouts and t.keep what they write to themselves", function()
      local r = exec("app", "--user", "root", "--", "sh", "-c",
        "ls /usr/share/doc || ls /usr/bin/factor || rm /etc/hello && echo x >/etc/gone && echo ok")
      assert.equal("ok\n", r.stdout, r.stderr)
      r = exec("app", "--", "sh", "-c", "cat /etc/hello; test -e /etc/gone || echo clean")
      assert.equal("hello\nclean\n", r.stdout)
      assert.equal(0, t.image("verify").status)
    end)

    t.it("keep their files while they live, whatever is collected", function()
      t.pulled "many"
      local script = files.script("live.lua", ([[
        local sandbox = require "sandbox"
        local sb <close> = sandbox.create { image = "%s:many" }
        print "up"
        require "task".sleep(6)
        print(sb:exec("cat /layers/11 && python -c 'import json; print(json.dumps(1))'").stdout)
      ]]):format(t.name))
      local p = proc.cli_start({ "run", "--allow-image", "*", script }, { env = t.env })
      p:expect "up"
      assert.equal(0, t.image("rm", t.name .. ":many").status)
      assert.equal(0, t.image("gc", "--max-size", "1").status)
      assert.equal(12, t.count "layers")
      local r = p:wait(20)
      expect.contains(r.stdout, "11\n1\n")
      assert.equal(0, t.image("gc").status)
      assert.equal(0, t.count "layers")
      t.tidy()
    end)

    t.it("are pulled once for many creates at once, and not after the last is cancelled", function()
      t.set { delay = 0.2 }
      local script = files.script("many.lua", ([[
        local sandbox, task = require "sandbox", require "task"
        task.map({ 1, 2, 3, 4, 5 }, {}, function(i)
          local sb <close> = sandbox.create { image = "%s:app" }
          print(sb:exec("echo " .. i).stdout)
        end)
        local ok, e = pcall(task.timeout, 0.3, sandbox.create, { image = "%s:many" })
        print(ok, e.code)
      ]]):format(t.name, t.name))
      local r = proc.cli({ "run", "--allow-image", "*", script }, { env = t.env, timeout = 60 })
      assert.equal(0, r.status, r.stderr)
      expect.contains(r.stdout, "false\ttimeout")
      local manifests = 0
      for _, q in ipairs(t.log()) do
        manifests = manifests + (q.path:find "manifests/app" and 1 or 0)
      end
      assert.equal(1, manifests)
      t.tidy()
      assert.equal(1, #t.listed())
    end)

    t.it("serve an ordinary user, from a store of his own with his own ids", function()
      local sys = require "spec.support.sys"
      if not sys.root then return pending "needs root, to make a user" end
      local user = ("rgimg%d"):format(sys.self)
      local home = files.dir "home"
      t.sh(([[useradd -r -M -d %s %s && usermod --add-subuids 2000200000-2000331071 \
          --add-subgids 2000200000-2000331071 %s
        cp -r %s %s/parts %s && chown -R %s %s]])
        :format(home, user, user, proc.regolith, proc.build, home, user, home))
      local own = { HOME = home, USER = user, PATH = os.getenv "PATH", LC_ALL = "C.UTF-8",
        REGOLITH_IMAGES_JSON = t.env.REGOLITH_IMAGES_JSON, TMPDIR = os.getenv "TMPDIR" }
      local uid = tonumber(t.sh("id -u " .. user).stdout)
      local gid = tonumber(t.sh("id -g " .. user).stdout)
      local function as(...)
        return proc.run({ home .. "/regolith", ... },
          { env = own, uid = uid, gid = gid, cwd = "/", timeout = 60 })
      end
      local ok, why = pcall(function()
        local r = as("exec", "--image", t.name .. ":app", "--", "sh", "-c",
          "id -un; stat -c %u:%g /opt/*/ö*; test -e /usr/bin/factor || echo gone")
        assert.equal("app\n12345:54321\ngone\n", r.stdout, r.stderr)
        r = as("exec", "--user", "root", "--image", t.name .. ":app", "--", "sh", "-c",
          "rm -r /usr/lib/python3.11/json && id -u")
        assert.equal("0\n", r.stdout, r.stderr)
        assert.equal(0, as("image", "verify").status)
        assert.equal(0, as("image", "rm", t.name .. ":app").status)
        assert.equal("0\n", t.sh(("ls %s/.local/t.state/regolith/images/layers | wc -l")
          :format(home)).stdout)
      end)
      t.sh(("userdel %s; rm -rf %s/.local %s/regolith %s/parts"):format(user, home, home, home))
      assert(ok, why)
    end)

    t.it("that are absent without network are one clear error with the ways out", function()
      local script = files.script("absent.lua", [[
        local sandbox = require "sandbox"
        local ok, e = pcall(sandbox.create, { image = "no.such.host.invalid/python:3.11" })
        print(ok, e.code, e.field, e.hint)
      ]])
      local r = proc.cli({ "run", "--allow-image", "*", script }, { env = t.env, timeout = 60 })
      expect.contains(r.stdout, "false\tengine_unavailable\timage")
      expect.contains(r.stdout, "host")
      expect.contains(r.stdout, "image import")
    end)
  end)
end)

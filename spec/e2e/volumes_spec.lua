-- Volumes: directories of the machine, and volumes that regolith keeps, in sandboxes.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local json = require "json"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local rootfs = require "spec.support.rootfs"
local sys = require "spec.support.sys"
local users = require "spec.support.user"

local function sh(command, opts)
  local r = proc.run({ "sh", "-c", command }, opts)
  if r.status ~= 0 then error(command .. ": " .. r.stdout .. r.stderr, 2) end
  return r.stdout
end

describe("volumes", function()
  local before, dir, env
  before_each(function()
    before = leftovers.before()
    dir = files.dir "data"
    env = proc.env { XDG_STATE_HOME = files.dir "state" }
  end)
  after_each(function()
    files.clean()
    leftovers.none_since(before, 5)
  end)

  local function exec(options, script)
    local args = { "exec" }
    for _, o in ipairs(options) do args[#args + 1] = o end
    for _, a in ipairs { "--", "sh", "-c", script } do args[#args + 1] = a end
    return proc.cli(args, { env = env })
  end

  local function volume(...) return proc.cli({ "volume", ... }, { env = env }) end

  local function run(options, script)
    local args = { "run" }
    for _, o in ipairs(options) do args[#args + 1] = o end
    args[#args + 1] = files.script("v.lua", 'local sandbox = require "sandbox"\n' .. script)
    local r = proc.cli(args, { env = env })
    assert.equal(0, r.status, r.stderr)
    return r.stdout
  end

  it("show a directory of the machine, for writing or not", function()
    files.write(dir .. "/in", "in\n")
    local r = exec({ "-v", dir .. ":/srv/a/b", "-v", dir .. ":/mnt:ro" },
      "cat /srv/a/b/in /mnt/in; echo out >/srv/a/b/out; cat /mnt/out; echo no >/mnt/no")
    assert.equal("in\nin\nout\n", r.stdout, r.stderr)
    expect.contains(r.stderr, "Read-only file system")
    assert.equal("out\n", files.read(dir .. "/out"))
    assert.is_false(files.exists(dir .. "/no"))
  end)

  it("are for scripts by the names that were granted", function()
    files.write(dir .. "/in", "in")
    local out = run({ "--volume", "data=" .. dir .. ":ro", "--allow-volume", "cache" }, [[
      local sb <close> = sandbox.create { volumes = {
        { source = "data", target = "/data" }, { source = "cache", target = "/var/cache/c" } } }
      print(sb:exec("cat /data/in; touch /data/x || touch /var/cache/c/x && echo ok").stdout)
      print(sb.config.volumes[1].source, sb.config.volumes[1].readonly)
      for _, v in ipairs { { source = "data", readonly = false }, { source = "other" } } do
        v.target = "/d"
        local _, e = pcall(sandbox.create, { volumes = { v } })
        print(e.code, e.field, e.hint)
      end]])
    assert.equal("inok\n\ndata\ttrue\ndenied\tvolumes\t" ..
      "it was granted with :ro; leave readonly out, or run with --volume data=DIR\n" ..
      "denied\tvolumes\tregolith run --allow-volume other grants it, --volume other=DIR makes " ..
      "it a directory of this machine\n", out)
    assert.is_false(files.exists(dir .. "/x"))
  end)

  it("that regolith keeps outlive sandboxes, and are shared by them", function()
    assert.equal("", exec({ "-v", "one:/v" }, "echo kept >/v/f; mkdir /v/d; chmod 700 /v/d").stdout)
    assert.equal("kept\n", exec({ "-v", "one:/w:ro" }, "cat /w/f; touch /w/g").stdout)
    local list = json.decode(volume("ls", "--json").stdout)
    assert.equal(1, #list)
    assert.equal("one", list[1].name)
    assert.is_false(list[1].in_use)
    assert.equal(0, volume("create", "two", "one").status)
    expect.contains(volume("ls").stdout, "two")
    assert.equal(0, volume("rm", "one").status)
    local r = volume("rm", "one")
    assert.equal(1, r.status)
    expect.contains(r.stderr, "no volume one")
    assert.equal("", exec({ "-v", "one:/v" }, "ls -A /v").stdout)
    expect.contains(volume("rm", "../two").stderr, "no name for a volume")
    assert.equal("two\n", sh("ls -A " .. env.XDG_STATE_HOME .. "/regolith/volumes | grep -v one"))
  end)

  it("stay while a sandbox uses them, however it treats them", function()
    local p = proc.cli_start({ "exec", "-v", "one:/v", "--", "sh", "-c",
      "wait='echo up; until [ -e /v/stop ]; do sleep 0.02; done'; " ..
      "command -v flock >/dev/null && exec flock /v sh -c \"$wait\"; eval \"$wait\"" },
      { env = env })
    p:expect "up"
    assert.is_true(json.decode(volume("ls", "--json").stdout)[1].in_use)
    local r = volume("rm", "one")
    assert.equal(1, r.status)
    expect.contains(r.stderr, "in use")
    assert.equal("shared\n", exec({ "-v", "one:/v" }, "echo shared >/v/f; cat /v/f").stdout)
    files.write(env.XDG_STATE_HOME .. "/regolith/volumes/one/data/stop", "")
    assert.equal(0, p:wait(10).status)
    assert.equal(0, volume("rm", "one").status)
  end)

  it("give no set-user-id and no device to the sandbox", function()
    if not sys.root then return pending "needs root, to make a device node" end
    sh(("cd '%s' && cp /usr/bin/id suid && chmod 4755 suid && mknod null c 1 3"):format(dir))
    local r = exec({ "-v", dir .. ":/v", "--user", "nobody" },
      "/v/suid -u; cat /v/null; grep ' /v ' /proc/self/mountinfo")
    expect.contains(r.stdout, "65534\n")
    expect.contains(r.stderr, "/v/null: Permission denied")
    expect.contains(r.stdout, "nosuid,nodev")
  end)

  it("keep the owners of files, whatever ids the sandbox has outside", function()
    if not sys.root then return pending "needs root, to give files away" end
    sh(("cd '%s' && touch a b && chown 1000:1001 b"):format(dir))
    local r = exec({ "-v", dir .. ":/v" },
      "stat -c '%n %u:%g' /v/a /v/b; touch /v/c; chown 7:8 /v/c")
    assert.equal("/v/a 0:0\n/v/b 1000:1001\n", r.stdout, r.stderr)
    assert.equal("7:8\n", sh(("stat -c %%u:%%g '%s/c'"):format(dir)))
  end)

  it("find their targets within the sandbox's own root, whatever the image says", function()
    local root = rootfs.make()
    local outside = files.dir "outside"
    sh(([[cd '%s' && ln -s '%s' abs && ln -s ../../../../../..%s up && ln -s /proc toproc &&
      ln -s /nowhere dangling && ln -s loop loop && mkdir -p real && ln -s real rel && touch file]])
      :format(root, outside, outside))
    files.write(dir .. "/in", "in\n")
    local function at(target, script)
      return proc.cli({ "exec", "--image", "dir:" .. root, "-v", dir .. ":" .. target, "--",
        "/bin/sh", "-c", script or ("cat %s/in"):format(target) }, { env = env })
    end
    -- A link means what it says inside: the path is made there, and nothing outside is touched.
    for _, target in ipairs { "/rel", "/rel/x/y", "/new/deep//er" } do
      local r = at(target)
      assert.equal("in\n", r.stdout, target .. r.stderr)
    end
    for _, target in ipairs { "/abs", "/up", "/toproc/sys", "/toproc", "/dangling/x", "/loop",
      "/file", "/file/x" } do
      local r = at(target)
      assert.equal(125, r.status, target .. r.stdout)
      expect.contains(r.stderr, "cannot put a volume at " .. target)
    end
    assert.equal("", sh(("ls -A '%s'"):format(outside)))
    assert.equal("x\n", sh(("cd '%s' && ls -A real; ls -d nowhere 2>&-; echo x"):format(root)))
  end)

  it("do not lie in each other, nor over what is mounted read-only", function()
    for _, at in ipairs { { "/a", "/a/b" }, { "/a", "/a" }, { "/usr/share", "/b" } } do
      local r = exec({ "-v", dir .. ":" .. at[1], "-v", "one:" .. at[2] }, "true")
      assert.equal(125, r.status)
      expect.contains(r.stderr, "it lies in another volume, or in a part of the image")
    end
    assert.equal("", sh(("ls -A '%s'"):format(dir)))
  end)

  it("are refused when their path has become a link since it was granted", function()
    local a = files.dir "a"
    local secret = files.dir "secret"
    files.write(secret .. "/key", "secret")
    sh(("mkdir '%s/sub'"):format(a))
    local out = run({ "--volume", "a=" .. a, "--volume", "sub=" .. a .. "/sub" }, ([[
      local one <close> = sandbox.create { volumes = { { source = "a", target = "/a" } } }
      one:exec("rmdir /a/sub && ln -s %s /a/sub"):check()
      local _, e = pcall(sandbox.create, { volumes = { { source = "sub", target = "/s" } } })
      print(e.code, e.message)]]):format(secret))
    expect.contains(out, "invalid_argument\t")
    expect.contains(out, "symbolic link")
  end)

  it("may lie in the machine's own /etc", function()
    local r = exec({ "-v", "/etc/ssl:/mnt:ro" }, "ls /mnt | grep -c openssl.cnf")
    if not files.exists "/etc/ssl/openssl.cnf" then return pending "no openssl.cnf here" end
    assert.equal("1\n", r.stdout, r.stderr)
  end)

  it("are refused by name when the command line is wrong", function()
    for text, why in pairs { ["/no/such/dir:/v"] = "No such file", ["/etc/passwd:/v"] =
      "not a directory", ["x"] = "not SOURCE:TARGET", ["a:b"] = "not SOURCE:TARGET",
      ["a:/proc/1"] = "not in /proc" } do
      local r = exec({ "-v", text }, "true")
      assert.equal(125, r.status)
      expect.contains(r.stderr, why)
    end
  end)
end)

for _, subids in ipairs { true, false } do
  describe("volumes of an ordinary user " .. (subids and "with" or "without") .. " subordinate ids",
    function()
      local user, before
      setup(function()
        user = users.make(subids)
      end)
      teardown(function()
        if user then user:remove() end
        files.clean()
      end)
      before_each(function() before = leftovers.before() end)
      after_each(function() leftovers.none_since(before, 5) end)

      it("are the user's own files, before and after", function()
        if not user then return pending(users.no_users) end
        local dir = user.home .. "/data"
        sh(("mkdir '%s' && echo in >'%s/in' && chown -R %s '%s'"):format(dir, dir, user.name, dir))
        local r = user:run { "exec", "-v", dir .. ":/v", "-v", "kept:/k", "--", "sh", "-c",
          "cat /v/in; echo out >/v/out; stat -c %u /v/in; echo kept >/k/f" }
        assert.equal("in\n0\n", r.stdout, r.stderr)
        assert.equal(user.uid .. "\n", sh(("stat -c %%u '%s/out'"):format(dir)))
        r = user:run { "exec", "-v", dir .. ":/v:ro", "-v", "kept:/k", "--", "sh", "-c",
          "cat /k/f; touch /v/no; chown 1:1 /k/f && echo given" }
        assert.equal(subids and "kept\ngiven\n" or "kept\n", r.stdout, r.stderr)
        expect.contains(r.stderr, "Read-only file system")
        -- Another user's directory stays closed.
        local closed = files.dir "closed"
        sh(("chmod 700 '%s'"):format(closed))
        r = user:run { "exec", "-v", closed .. ":/v", "--", "ls", "/v" }
        assert.not_equal(0, r.status)
        r = user:run { "volume", "rm", "kept" }
        assert.equal(0, r.status, r.stderr)
        assert.equal("", sh(("ls -A '%s/.local/state/regolith/volumes'"):format(user.home)))
      end)
    end)
end

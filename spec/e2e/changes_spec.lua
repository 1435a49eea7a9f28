-- What sandboxes change: sb:diff, images of it (snapshot, commit), sandboxes made of those (fork).
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local json = require "json"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local rootfs = require "spec.support.rootfs"
local sys = require "spec.support.sys"
local users = require "spec.support.user"

local function sh(command)
  local r = proc.run({ "sh", "-c", command })
  if r.status ~= 0 then error(command .. ": " .. r.stdout .. r.stderr, 2) end
  return r.stdout
end

-- What the image has beside its programs.
local function furnish(root)
  sh(([[cd '%s' && mkdir -p srv/a/b srv/c && echo one >srv/a/one && echo two >srv/a/b/two &&
    echo kept >srv/kept && ln -s kept srv/link && echo x >srv/c/x && echo y >srv/c/y
  ]]):format(root))
end

local HEAD <const> = [[
local sandbox = require "sandbox"
local function make() return sandbox.create { image = "mini:1", env = { A = "1" } } end
local function show(list)
  for _, c in ipairs(list) do print(c.kind, c.type, (c.path:gsub("\n", "?"))) end
end
local function refused(...)
  local ok, e = pcall(...)
  print(ok, type(e) == "table" and e.code, type(e) == "table" and e.message)
end
]]

describe("what a sandbox changes", function()
  local before, state, env, root
  setup(function()
    root = rootfs.make "/usr/bin/stat /usr/bin/touch /usr/bin/truncate /usr/bin/mkfifo"
    furnish(root)
    state = files.dir "state"
    env = proc.env { XDG_STATE_HOME = state }
    local r = proc.cli({ "image", "import", "-q", "rootfs:" .. root, "mini:1" }, { env = env })
    assert.equal(0, r.status, r.stderr)
  end)
  teardown(files.clean)
  before_each(function() before = leftovers.before() end)
  after_each(function()
    -- All images without a name are gone, with their layers.
    local list = json.decode(proc.cli({ "image", "ls", "--json" }, { env = env }).stdout)
    for _, image in ipairs(list) do assert.is_string(image.name) end
    assert.equal("", sh(("ls -A '%s/regolith/images/tmp' '%s/regolith/images/leases' | grep -v :$ "
      .. "| grep . || true"):format(state, state)))
    leftovers.none_since(before, 5)
  end)

  local function run(script, options)
    local args = { "run", "--allow-image", "mini:1" }
    for _, o in ipairs(options or {}) do args[#args + 1] = o end
    args[#args + 1] = files.script("c.lua", HEAD .. script)
    local r = proc.cli(args, { env = env })
    assert.equal(0, r.status, r.stderr)
    return r.stdout
  end

  it("is told entry by entry, against the layers below", function()
    assert.equal([[
added	directory	/new
added	file	/new/file
added	special	/new/pipe
deleted	directory	/srv/a
added	directory	/srv/a2
added	directory	/srv/a2/b
added	file	/srv/a2/b/two
added	file	/srv/a2/one
deleted	file	/srv/c/x
modified	file	/srv/c/y
modified	file	/srv/kept
deleted	symlink	/srv/link
modified	directory	/usr
]], run [[
      local sb <close> = make()
      show(sb:diff())
      sb:exec("mkdir /new; echo 1 >/new/file; mkfifo /new/pipe; mv /srv/a /srv/a2; rm /srv/link;" ..
        "echo more >>/srv/kept; rm -r /srv/c; mkdir /srv/c; echo again >/srv/c/y;" ..
        "chmod 700 /usr; touch /srv/gone; rm /srv/gone; chmod 1777 /tmp"):check()
      show(sb:diff())]])
  end)

  it("makes an image, of which sandboxes start with the same files", function()
    local list = "cd /; stat -c '%n %f %u:%g %h' /new/* /srv /srv/* /srv/c/* /srv/a2/b/two; " ..
      "cat /new/file /srv/kept; echo $A"
    local out = run(([[
      local sb <close> = make()
      sb:exec("mkdir /new; echo 1 >/new/file; ln /new/file /new/hard; mkfifo -m 640 /new/pipe;" ..
        "ln -s /nowhere /new/link; mv /srv/a /srv/a2; rm /srv/link; rm -r /srv/c; mkdir /srv/c;" ..
        "echo again >/srv/c/y; chmod 4711 /new/file; : >'/new/odd \"\\ö\t'"):check()
      sb:exec "chown 12:34 /new/pipe; chown -h 5:6 /new/link"
      local list = %q
      local was = sb:exec(list).stdout
      print(#was > 150)
      local copy <close> = sandbox.create { image = sb:snapshot().image, env = { A = "1" } }
      local is = copy:exec(list).stdout
      if is ~= was then print(was, is) end
      show(copy:diff())
      -- Neither sees what the other does from here on.
      sb:exec "echo changed >/new/file"
      copy:exec "rm /srv/kept"
      print(copy:exec("cat /new/file").stdout, sb:exec("cat /srv/kept").stdout)
      show(copy:diff())
      -- And so on, upon each other.
      local third <close> = sandbox.create { image = copy:snapshot().image }
      print(third:exec("cat /new/file; cat /srv/kept || echo none").stdout)]]):format(list))
    assert.equal("true\n1\n\tkept\n\ndeleted\tfile\t/srv/kept\n1\nnone\n\n", out)
  end)

  it("keeps owners, whatever ids the sandbox has outside", function()
    if not sys.root then return pending "needs root, to have owners" end
    assert.equal("0:0\n1000:1001\n65533:65533\n", run [[
      local sb <close> = make()
      sb:exec("touch /a /b /c; chown 1000:1001 /b; chown 65533:65533 /c"):check()
      local copy <close> = sandbox.create { image = sb:snapshot().image }
      io.write(copy:exec("stat -c %u:%g /a /b /c").stdout)]])
  end)

  it("becomes an image with a name where that was granted, and such a one stays", function()
    local out = run([[
      local sb <close> = make()
      sb:exec("echo tools >/tools"):check()
      local image = sb:commit { name = "mine/tools:1" }
      print(image.name, #image.image)
      local copy <close> = sandbox.create { image = "mine/tools:1" }
      print(copy:exec("cat /tools").stdout)
      refused(sb.commit, sb, { name = "python:3.11" })
      refused(sb.commit, sb)
      refused(sb.snapshot, sb, { name = "Not A Name" })
      refused(sandbox.create, { image = "other:1" })]], { "--allow-commit", "mine/*" })
    assert.equal("mine/tools:1\t71\ntools\n\n" ..
      "false\tdenied\tkeeping an image as \"python:3.11\" was not granted\n" ..
      "false\tinvalid_argument\tname is missing: what the image is to be called\n" ..
      "false\tinvalid_argument\tname must be the name of an image (\"mine/tools:1\"), " ..
      "not \"Not A Name\"\n" ..
      "false\tdenied\timage = \"other:1\" was not granted\n", out)
    local r = proc.cli({ "exec", "--image", "mine/tools:1", "--", "cat", "/tools" }, { env = env })
    assert.equal("tools\n", r.stdout, r.stderr)
    assert.equal(0, proc.cli({ "image", "verify", "mine/tools:1" }, { env = env }).status)
    -- Out as a layout and in again it is the same.
    local layout = files.dir "layout"
    r = proc.cli({ "image", "export", "mine/tools:1", "oci:" .. layout }, { env = env })
    assert.equal(0, r.status, r.stderr)
    local elsewhere = proc.env { XDG_STATE_HOME = files.dir "state" }
    r = proc.cli({ "image", "import", "-q", "oci:" .. layout, "tools:1" }, { env = elsewhere })
    assert.equal(0, r.status, r.stderr)
    r = proc.cli({ "exec", "--image", "tools:1", "--", "sh", "-c", "cat /tools /srv/kept" },
      { env = elsewhere })
    assert.equal("tools\nkept\n", r.stdout, r.stderr)
    assert.equal(0, proc.cli({ "image", "rm", "mine/tools:1" }, { env = env }).status)
  end)

  it("is where forks start from, with the same options", function()
    assert.equal("3\n1 from 1 256 1\n2 from 1 256 2\n3 from 1 256 3\nfrom\n" ..
      "false\tinvalid_argument\tcount must be an integer from 1 to 1000, not 0\n", run [[
      local sb <close> = sandbox.create { image = "mini:1", env = { A = "1" }, memory = 256,
        name = "one", tags = { t = "1" } }
      sb:exec("echo from >/who"):check()
      local copies = sb:fork(3)
      print(#copies)
      for i, c in ipairs(copies) do
        c:exec("echo " .. i .. " >/mine")
        local said = c:exec("cat /who; echo $A").stdout:gsub("\n", " ")
        print(i .. " " .. said .. c.config.memory ..
          " " .. c:exec("cat /mine").stdout:sub(1, 1))
      end
      print(sb:exec("cat /who; cat /mine").stdout:sub(1, -2))
      refused(sb.fork, sb, 0)]])
  end)

  it("leaves no copy behind where one of them failed", function()
    assert.equal("false\tlimit\n1\n", run([[
      local sb <close> = make()
      local ok, e = pcall(sb.fork, sb, 3)
      print(ok, e.code)
      print(#sandbox.list())]], { "--max-sandboxes", "2" }))
  end)

  it("is kept without a name for a while only, and bounded", function()
    assert.equal("false\tlimit\tc.lua keeps 16 snapshots without a name, the most at once\n" ..
      "true\tfalse\tfalse\ntrue\tfalse\tfalse\nfalse\tdenied\n",
      run [[
      local sb <close> = make()
      local images = {}
      for i = 1, 16 do images[i] = sb:snapshot().image end
      refused(sb.snapshot, sb)
      refused(sandbox.forget, images[1])
      refused(function() sb:snapshot() end)
      print(pcall(sandbox.create, { image = images[1] }) and "made" or "false\tdenied")]])
  end)

  it("is not to be had of what is no image, and it says why", function()
    local out = run(([[
      local host <close> = sandbox.create {}
      refused(host.diff, host)
      refused(host.snapshot, host)
      refused(host.fork, host)
      local dir <close> = sandbox.create { image = "dir:%s" }
      dir:exec("rm /srv/kept; echo >/new"):check()
      show(dir:diff())
      refused(dir.snapshot, dir)]]):format(root), { "--allow-dir-image", root })
    local lines = {}
    for line in out:gmatch "[^\n]+" do lines[#lines + 1] = line end
    for i = 1, 3 do
      expect.contains(lines[i], 'unsupported\timage = "host" is this machine itself')
    end
    assert.equal("added\tfile\t/new", lines[4])
    assert.equal("deleted\tfile\t/srv/kept", lines[5])
    expect.contains(lines[6], "unsupported\ta folder (dir:PATH) is no image")
  end)

  it("may be hostile: too deep, too large, odd names, changed while it is read", function()
    local out = run([[
      local sb <close> = make()
      sb:exec "cd /tmp; i=0; while [ $i -lt 300 ]; do mkdir d && cd d || break; i=$((i+1)); done"
      refused(sb.diff, sb)
      refused(sb.snapshot, sb)
      sb:exec "rm -rf /tmp/d; truncate -s 8E /huge || truncate -s 4T /huge"
      refused(sb.snapshot, sb)
      sb:exec "rm /huge; : >'/a\nb'; mkfifo /fifo; ln -s /proc/self/root /r; ln -s / /loop"
      show(sb:diff())
      local p = task.spawn(function()
        sb:exec("cd /srv; while :; do mkdir q; echo 1 >q/f; ln -s /etc s; mv q s2; " ..
          "rm -rf s s2 q; ln -s /etc q; rm q; : >z; echo 123456 >z; rm z; mkfifo z; rm z; done",
          { timeout = 2 })
      end)
      for _ = 1, 6 do
        sb:diff()
        local copy <close> = sandbox.create { image = sb:snapshot().image }
        if copy:exec("cat /srv/kept").stdout ~= "kept\n" then print "lost" end
      end
      p:cancel()
      print "whole"]])
    local lines = {}
    for line in out:gmatch "[^\n]+" do lines[#lines + 1] = line end
    expect.contains(lines[1], "unsupported\tthe sandbox has folders nested deeper than 256")
    expect.contains(lines[2], "unsupported\tcannot pack folders nested deeper than 256")
    expect.contains(lines[3], "payload_too_large\tthe files are larger than")
    assert.equal("added\tfile\t/a?b", lines[4])
    assert.equal("whole", lines[#lines])
  end)

  it("is removed by the next collection when we are killed", function()
    local p = proc.cli_start({ "run", "--allow-image", "mini:1", files.script("k.lua", HEAD .. [[
      local sb = make()
      print(sb:snapshot().image)
      task.sleep(20)]]) }, { env = env })
    local image = p:expect "(sha256:%x+)"
    p:kill "KILL"
    p:wait(10)
    local function present()
      return proc.cli({ "image", "inspect", image }, { env = env }).status == 0
    end
    assert.is_true(present())
    expect.eventually(5, "the lease is gone", function()
      proc.cli({ "image", "gc" }, { env = env })
      return not present()
    end)
  end)
end)

for _, subids in ipairs { true, false } do
  describe("changes for an ordinary user " .. (subids and "with" or "without") ..
    " subordinate ids", function()
      local user, before
      setup(function() user = users.make(subids) end)
      teardown(function()
        if user then user:remove() end
        files.clean()
      end)
      before_each(function() before = leftovers.before() end)
      after_each(function() leftovers.none_since(before, 5) end)

      it("are told and kept as for root", function()
        if not user then return pending(users.no_users) end
        local root = rootfs.make "/usr/bin/stat /usr/bin/touch"
        furnish(root)
        sh(("chown -R %s: '%s'"):format(user.name, root))
        local r = user:run { "image", "import", "-q", "rootfs:" .. root, "mini:1" }
        assert.equal(0, r.status, r.stderr)
        files.write(user.home .. "/c.lua", HEAD .. [[
          local sb <close> = make()
          sb:exec("rm -r /srv/c; mkdir /srv/c; touch /srv/c/y; rm /srv/kept; chmod 600 /srv/c/y")
          sb:exec "touch /b; chown 3:4 /b && chmod 600 /b"
          show(sb:diff())
          local copy = sb:fork()[1]
          io.write(copy:exec("ls /srv /srv/c; stat -c '%u:%g %a' /b /srv/c/y").stdout)]])
        r = user:run { "run", "--allow-image", "mini:1", user.home .. "/c.lua" }
        assert.equal("added\tfile\t/b\ndeleted\tfile\t/srv/c/x\nmodified\tfile\t/srv/c/y\n" ..
          "deleted\tfile\t/srv/kept\n/srv:\na\nc\nlink\n\n/srv/c:\ny\n" ..
          (subids and "3:4 600\n" or "0:0 644\n") .. "0:0 600\n", r.stdout, r.stderr)
        assert.equal(0, user:run({ "image", "rm", "mini:1" }).status)
        assert.equal("", sh(("ls -A '%s/.local/state/regolith/images/layers'"):format(user.home)))
      end)
    end)
end

-- Images, with real parts: an OCI layout built from Debian packages by umoci and skopeo, served by
-- a registry that misbehaves on request (registry.py) and by Debian's docker-registry.
local json = require "json"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local proc = require "spec.support.proc"

local here = "spec/image"
local keep = (os.getenv "TMPDIR" or "/tmp") .. "/image-fixture." .. math.random(1e9)
local img = keep .. "/img"
local missing -- why nothing of this can run here

local function sh(script, opts)
  opts = opts or {}
  local r = proc.run({ "sh", "-c", script }, { env = opts.env, timeout = opts.timeout or 60 })
  if not opts.may_fail and r.status ~= 0 then
    error(("%s: status %s\n%s%s"):format(script, tostring(r.status), r.stdout, r.stderr), 2)
  end
  return r
end

local registry, port, name

-- Sends faults to the registry, or asks for its log.
local function set(faults)
  local body = next(faults) and json.encode(faults) or "{}"
  sh(("curl -sS -X POST -d '%s' http://127.0.0.1:%d/_set"):format(body, port))
end

local function log()
  return json.decode(sh(("curl -sS http://127.0.0.1:%d/_log"):format(port)).stdout)
end

-- A store of its own for each test.
local state, env

local function fresh(more)
  state = files.dir "state"
  env = proc.env { XDG_STATE_HOME = state, HOME = state, DOCKER_CONFIG = false,
    XDG_RUNTIME_DIR = false, REGOLITH_PULL = false }
  for k, v in pairs(more or {}) do env[k] = v or nil end
end

local function image(...) return proc.cli({ "image", ... }, { env = env, timeout = 60 }) end

local function pull(tag, ...)
  local args = { "pull", "--json", "--plain-http", ... }
  args[#args + 1] = name .. ":" .. tag
  return image(table.unpack(args))
end

local function pulled(tag, ...)
  local r = pull(tag, ...)
  if r.status ~= 0 then error(r.stdout .. r.stderr, 2) end
  return json.decode(r.stdout).digest
end

-- Pulls and expects the error with this code; returns its message.
local function refused(code, tag, ...)
  local r = pull(tag, ...)
  assert.are_not.equal(0, r.status)
  local e = json.decode(r.stdout).error
  assert.equal(code, e.code, r.stdout)
  return e.message, e
end

local function listed()
  return json.decode(image("ls", "--json").stdout)
end

local function count(path)
  return tonumber(sh(("ls -A %s/regolith/images/%s | wc -l"):format(state, path)).stdout)
end

-- Nothing half done is left, whatever happened.
local function tidy()
  assert.equal(0, count "tmp")
  assert.equal(0, count "leases")
end

local function layers(ref)
  return json.decode(image("inspect", ref).stdout).layers
end

-- Mounts what the store has and compares it with what umoci unpacks.
local function same_as_umoci(ref, tag)
  local paths = {}
  for _, l in ipairs(layers(ref)) do table.insert(paths, 1, l.path) end
  local dir = files.dir "umoci"
  local r = sh(([[
    umoci unpack --image %s:%s %s/u >/dev/null 2>&1 && mkdir %s/m %s/e &&
    mount -t overlay overlay -o ro,lowerdir=%s:%s/e %s/m || exit 3
    python3 %s/compare.py %s/u/rootfs %s/m; rc=$?
    umount %s/m; rm -rf %s/*; exit $rc]]):format(img, tag, dir, dir, dir,
    table.concat(paths, ":"), dir, dir, here, dir, dir, dir, dir), { may_fail = true })
  assert.equal(0, r.status, r.stdout .. r.stderr)
  expect.contains(r.stdout, " 0 differ")
end

describe("images", function()
  setup(function()
    sh("mkdir -p " .. keep)
    local r = sh(("sh %s/fixture.sh %s"):format(here, keep), { may_fail = true, timeout = 200 })
    if r.status == 77 then
      missing = r.stdout
      return
    end
    assert.equal(0, r.status, r.stdout .. r.stderr)
    registry = proc.start { "python3", here .. "/registry.py", img }
    port = tonumber(registry:expect "port (%d+)")
    name = ("127.0.0.1:%d/library/python"):format(port)
  end)

  teardown(function()
    if registry then
      registry:kill "TERM"
      registry:wait(10)
    end
    sh("rm -rf " .. keep)
  end)

  before_each(function()
    if missing then return end
    fresh()
    set {}
  end)

  after_each(function()
    if state then sh("rm -rf " .. state .. "/*") end
    files.clean()
  end)

  local function it_(what, fn)
    it(what, function()
      if missing then return pending(missing) end
      fn()
    end)
  end

  describe("that are pulled", function()
    for _, tag in ipairs { "base", "app", "many", "zstd" } do
      it_("are what umoci unpacks: " .. tag, function()
        pulled(tag)
        same_as_umoci(name .. ":" .. tag, tag == "zstd" and "app" or tag) -- umoci reads no zstd
        tidy()
        assert.equal(0, image("verify").status)
      end)
    end

    it_("come for this machine out of an index, by name and by digest", function()
      local digest = pulled "multi"
      assert.equal(digest, pulled "app")
      local r = image("pull", "-q", "--plain-http", name .. "@" .. digest)
      assert.equal(digest .. "\n", r.stdout)
      assert.equal("image_not_found",
        json.decode(pull("multi", "--platform", "linux/riscv64").stdout).error.code)
    end)

    it_("share layers, which are fetched once", function()
      pulled "base"
      set {}
      pulled "app"
      local blobs = 0
      for _, r in ipairs(log()) do blobs = blobs + (r.path:find "/blobs/" and 1 or 0) end
      assert.equal(2, blobs) -- the configuration and one layer
      assert.equal(2, count "layers")
    end)

    it_("come in Docker's schema 2 from Debian's docker-registry", function()
      local dir = files.dir "registry"
      files.write(dir .. "/config.yml", ([[
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s/data}}
http: {addr: 127.0.0.1:%d}
]]):format(dir, port + 1))
      local server = proc.start { "docker-registry", "serve", dir .. "/config.yml" }
      local ref = ("127.0.0.1:%d/a/b"):format(port + 1)
      local ok, why = pcall(function()
        sh(([[
          for i in 1 2 3 4 5 6 7 8 9; do
            curl -s -o /dev/null http://127.0.0.1:%d/v2/ && break
            sleep 0.1
          done
          copy() { skopeo --policy %s/policy.json copy -q --dest-tls-verify=false "$@"; }
          copy -f v2s2 oci:%s:app docker://%s:2 && copy oci:%s:many docker://%s:many]])
          :format(port + 1, keep, img, ref, img, ref))
        for _, tag in ipairs { "2", "many" } do
          local r = image("pull", "-q", "--plain-http", ref .. ":" .. tag)
          assert.equal(0, r.status, r.stderr)
        end
        same_as_umoci(ref .. ":2", "app")
        same_as_umoci(ref .. ":many", "many")
      end)
      server:kill "TERM"
      server:wait(10)
      sh("rm -rf " .. dir .. "/*")
      assert(ok, why)
    end)

    it_("show bars on a terminal and lines elsewhere", function()
      local r = sh(("TERM=xterm script -qec '%s image pull --plain-http %s:app' /dev/null")
        :format(proc.regolith, name), { env = env })
      expect.contains(r.stdout, "[####")
      expect.contains(r.stdout, "unpacked")
      assert.equal(0, image("rm", name .. ":app").status)
      r = image("pull", "--plain-http", name .. ":app")
      expect.contains(r.stderr, ": unpacked (")
      expect.lacks(r.stderr, "\27")
    end)
  end)

  describe("from a registry in trouble", function()
    it_("are resumed where the connection broke", function()
      set { cut = { 1000000, 5000, 9000000 } }
      pulled "base"
      local ranges = {}
      for _, r in ipairs(log()) do
        if r.range ~= nil and r.range ~= json.null then ranges[#ranges + 1] = r.range end
      end
      assert.same({ "bytes=1000000-", "bytes=1005000-", "bytes=10005000-" }, ranges)
      same_as_umoci(name .. ":base", "base")
    end)

    it_("are resumed from a server without ranges too", function()
      set { cut = { 3000000, 2000000 }, no_range = true }
      pulled "base"
      assert.equal(0, image("verify").status)
    end)

    it_("are not put together from wrong ranges", function()
      set { cut = { 1000000 }, bad_range = true }
      expect.contains(refused("engine_unavailable", "base"), "another range")
      assert.same({}, listed())
      tidy()
    end)

    it_("are tried again after 429 and 503, not before Retry-After", function()
      set { fail = { 429, 503 }, retry_after = 1 }
      local r = pull "base"
      assert.equal(0, r.status, r.stdout)
      expect.between(2000, 20000, r.duration_ms)
    end)

    it_("end in one error when it never works", function()
      set { fail = { 503, 503, 503, 503, 503, 503, 503 } }
      expect.contains(refused("engine_unavailable", "base"), "503")
      assert.same({}, listed())
      tidy()
    end)

    it_("are refused when what comes is not what was named", function()
      set { corrupt = true }
      refused("denied", "base")
      assert.same({}, listed())
      assert.equal(0, count "layers")
      set { longer = true }
      expect.contains(refused("denied", "base"), "more")
      set { lie_manifest = true }
      expect.contains(refused("denied", "multi"), "asked for")
      tidy()
    end)

    it_("say that there is no such image, no such registry", function()
      expect.contains(refused("image_not_found", "nothing"), "manifest unknown")
      local r = image("pull", "--json", "--plain-http", "127.0.0.1:1/x")
      assert.equal("engine_unavailable", json.decode(r.stdout).error.code)
      r = image("pull", "no.such.host.invalid/x:1")
      assert.equal(3, r.status)
      assert.is_true(r.duration_ms < 15000)
    end)

    it_("do not fall back to plain http by themselves", function()
      local r = image("pull", "--json", name .. ":base")
      assert.are_not.equal(0, r.status)
      assert.same({}, log())
    end)

    it_("are taken from the next mirror when one fails or lies", function()
      local liar = proc.start { "python3", here .. "/registry.py", img }
      local bad = tonumber(liar:expect "port (%d+)")
      sh(("curl -sS -X POST -d '{\"corrupt\":true}' http://127.0.0.1:%d/_set"):format(bad))
      env.REGOLITH_IMAGES_JSON = files.write(files.dir "conf" .. "/images.json", json.encode {
        registries = { ["example.test"] = { mirrors = { "http://127.0.0.1:1",
          ("http://127.0.0.1:%d/"):format(bad), ("http://127.0.0.1:%d"):format(port) } } } })
      local r = image("pull", "-q", "example.test/library/python:app")
      liar:kill "TERM"
      liar:wait(10)
      assert.equal(0, r.status, r.stderr)
      assert.equal(0, image("verify").status)
      assert.is_true(#log() > 0)
    end)

    it_("leave nothing when the pull is killed, and the next one cleans up", function()
      set { delay = 0.3 }
      for _, signal in ipairs { "KILL", "INT" } do
        local p = proc.cli_start({ "image", "pull", "-q", "--plain-http", name .. ":many" },
          { env = env })
        require "task".sleep(1.2)
        p:kill(signal)
        p:wait(10)
        assert.same({}, listed())
        if signal == "INT" then tidy() end
      end
      set {}
      pulled "many"
      tidy()
      assert.equal(0, image("verify").status)
    end)
  end)

  describe("behind a login", function()
    local function login(text)
      local dir = files.dir "docker"
      files.write(dir .. "/config.json", text)
      env.DOCKER_CONFIG = dir
      return dir
    end
    local auth = '{"auths":{"127.0.0.1:%d":{"auth":"dTpw"}}}' -- u:p

    it_("need one, and say how to get it", function()
      set { auth = "token" }
      local _, e = refused("unauthorized", "app")
      assert.is_truthy(e.message:find "login" or e.message:find "refuses")
      set { auth = "basic" }
      _, e = refused("unauthorized", "app")
      expect.contains(e.hint, "docker login")
    end)

    it_("come with a token, with a password, with an identity token", function()
      login(auth:format(port))
      set { auth = "token" }
      pulled "app"
      for _, r in ipairs(log()) do -- the password goes to the login server alone
        if r.authorization ~= json.null and r.authorization:find "^Basic" then
          expect.contains(r.path, "/token")
        end
      end
      fresh()
      login(auth:format(port))
      set { auth = "basic" }
      pulled "app"
      fresh()
      login(('{"auths":{"127.0.0.1:%d":{"identitytoken":"identity"}}}'):format(port))
      set { auth = "token" }
      pulled "app"
    end)

    it_("get a new token when one expires", function()
      login(auth:format(port))
      set { auth = "expire", delay = 0.2 }
      pulled "many"
      local logins = 0
      for _, q in ipairs(log()) do logins = logins + (q.path:find "^/token" and 1 or 0) end
      assert.is_true(logins > 1)
    end)

    it_("use a credential helper", function()
      local dir = login(('{"credHelpers":{"127.0.0.1:%d":"spec"}}'):format(port))
      files.write(dir .. "/docker-credential-spec", ([[#!/bin/sh
read -r host
[ "$1 $host" = "get 127.0.0.1:%d" ] && echo '{"ServerURL":"x","Username":"u","Secret":"p"}'
]]):format(port))
      sh("chmod +x " .. dir .. "/docker-credential-spec")
      env.PATH = dir .. ":" .. env.PATH
      set { auth = "token" }
      pulled "app"
    end)

    it_("send no credentials on to where a redirect leads", function()
      local other = proc.start { "python3", here .. "/registry.py", img }
      local to = tonumber(other:expect "port (%d+)")
      login(auth:format(port))
      set { auth = "basic", redirect = ("http://127.0.0.1:%d"):format(to) }
      local r = pull "app"
      local seen = json.decode(sh(("curl -sS http://127.0.0.1:%d/_log"):format(to)).stdout)
      other:kill "TERM"
      other:wait(10)
      assert.equal(0, r.status, r.stdout)
      assert.is_true(#seen >= 2)
      for _, q in ipairs(seen) do assert.equal(json.null, q.authorization) end
    end)

    it_("never show a secret", function()
      login(auth:format(port))
      set { auth = "token", fail = { 503, 503, 503, 503, 503, 503 } }
      local r = pull "app"
      expect.lacks(r.stdout .. r.stderr, "dTpw")
      expect.lacks(r.stdout .. r.stderr, "token-")
    end)
  end)

  it_("come over TLS from an authority of the user's, and only then", function()
    local server = proc.start { "python3", here .. "/registry.py", img, "--tls",
      keep .. "/cert.pem", keep .. "/key.pem" }
    local tls = tonumber(server:expect "port (%d+)")
    local ref = ("127.0.0.1:%d/x:app"):format(tls)
    local r = image("pull", "--json", ref)
    env.REGOLITH_IMAGES_JSON = files.write(files.dir "conf" .. "/images.json",
      json.encode { registries = { [("127.0.0.1:%d"):format(tls)] = { ca = keep .. "/ca.pem" } } })
    local good = image("pull", "-q", ref)
    server:kill "TERM"
    server:wait(10)
    assert.equal("denied", json.decode(r.stdout).error.code)
    assert.equal(0, good.status, good.stderr)
  end)

  describe("in the store", function()
    it_("are listed, inspected, removed", function()
      local digest = pulled "app"
      pulled "base"
      local list = listed()
      assert.equal(2, #list)
      assert.equal(name .. ":app", list[1].name)
      assert.equal(digest, list[1].digest)
      local i = json.decode(image("inspect", digest:sub(1, 20)).stdout)
      assert.equal("/srv/app", i.working_dir)
      assert.equal("app", i.user)
      assert.same({ "python3" }, i.entrypoint)
      assert.same({ "main.py" }, i.cmd)
      assert.same({ "8000/tcp" }, i.ports)
      assert.equal("SIGINT", i.stop_signal)
      assert.equal(0, image("rm", name .. ":app").status)
      assert.equal(1, #listed())
      assert.equal(1, count "layers")
      local r = image("rm", name .. ":app")
      assert.equal(1, r.status)
      expect.contains(r.stderr, "not in the store")
      assert.equal(0, image("rm", name .. ":base").status)
      assert.equal(0, count "layers")
      assert.equal(0, count "blobs")
      assert.equal(0, count "lists")
      assert.equal(0, count "refs")
    end)

    it_("go least recently used first when there is a limit", function()
      pulled "app"
      assert.equal(0, image("import", "-q", "rootfs:" .. keep .. "/root", "own:1").status)
      sh(("touch -d '2 hours ago' %s/regolith/images/images/*"):format(state))
      image("inspect", name .. ":app")
      local r = proc.cli({ "exec", "--image", name .. ":app", "--", "true" }, { env = env })
      assert.equal(0, r.status, r.stderr)
      assert.equal(0, image("gc", "--max-size", "70MiB").status)
      local list = listed()
      assert.equal(1, #list)
      assert.equal(name .. ":app", list[1].name)
    end)

    it_("are verified, file by file", function()
      pulled "app"
      local top = layers(name .. ":app")
      local dir, low = top[2].path, top[1].path
      local faults = {
        { "echo more >>" .. dir .. "/srv/app/main.py", "another size" },
        { "printf HELLO >" .. dir .. "/etc/hello; echo >>" .. dir .. "/etc/hello", "has changed" },
        { "chmod 4777 " .. low .. "/bin/dash", "another mode" },
        { "chown 7 " .. low .. "/etc/passwd", "another owner" },
        { "rm " .. low .. "/etc/group", "is missing" },
        { "ln -sf elsewhere " .. dir .. "/srv/link", "leads elsewhere" },
        { "touch " .. low .. "/usr/extra", "does not belong" },
        { "rm " .. low .. "/usr/bin/python; mkdir " .. low .. "/usr/bin/python", "another type" },
      }
      assert.equal(0, image("verify").status)
      for _, f in ipairs(faults) do
        sh(f[1])
        local r = image("verify", name .. ":app")
        assert.equal(1, r.status)
        expect.contains(r.stdout, f[2])
      end
      sh(("for b in %s/regolith/images/blobs/*; do printf x >>$b; done"):format(state))
      local r = image("verify")
      assert.equal(1, r.status)
      expect.contains(r.stdout, "is damaged")
    end)

    it_("survive a cut at any moment: unfinished layers of an earlier boot do not count", function()
      pulled "base"
      local id = layers(name .. ":base")[1].path:match "[^/]+$"
      local store = state .. "/regolith/images"
      -- what a power cut during the pull of another image would leave
      sh(([[cd %s && rm -r refs/* images/* && mv lists/%s lists/%s~0123456789abcdef &&
        rm -r layers/%s/usr && mkdir tmp/dead tmp/dead/tree && : >tmp/f-torn]])
        :format(store, id, id, id))
      assert.same({}, listed())
      pulled "base"
      same_as_umoci(name .. ":base", "base")
      assert.equal(0, image("gc").status)
      assert.equal(1, count "lists")
      tidy()
    end)

    it_("are pulled by many processes at once without harm", function()
      local running = {}
      for i = 1, 6 do
        local tag = ({ "app", "many", "zstd" })[i % 3 + 1]
        running[i] = proc.cli_start({ "image", "pull", "-q", "--plain-http", name .. ":" .. tag },
          { env = env })
      end
      for i = 7, 9 do running[i] = proc.cli_start({ "image", "gc" }, { env = env }) end
      for _, p in ipairs(running) do
        local r = p:wait(60)
        assert.equal(0, r.status, r.stderr)
      end
      assert.equal(3, #listed())
      assert.equal(0, image("verify").status)
      same_as_umoci(name .. ":many", "many")
      tidy()
    end)

    it_("say when there is no room", function()
      local dir = files.dir "small"
      sh("mount -t tmpfs -o size=20m none " .. dir)
      env.XDG_STATE_HOME = dir
      local ok, message, e = pcall(refused, "engine_unavailable", "base")
      local left = sh(("du -sm %s | cut -f1"):format(dir)).stdout
      sh("umount " .. dir)
      assert(ok, message)
      expect.contains(message, "No space left")
      expect.contains(e.hint, "image gc")
      assert.is_true(tonumber(left) <= 2)
    end)
  end)

  describe("from and to files", function()
    it_("round trip through an OCI layout", function()
      pulled "app"
      local out = files.dir "out"
      assert.equal(0, image("export", name .. ":app", "oci:" .. out .. "/x").status)
      local again = image("export", name .. ":app", "oci:" .. out .. "/y").stdout
      assert.equal(again, image("export", name .. ":app", "oci:" .. out .. "/x").stdout)
      local r = sh(([[umoci unpack --image %s:app %s/a >/dev/null 2>&1
        umoci unpack --image %s/x:app %s/b >/dev/null 2>&1
        python3 %s/compare.py %s/a/rootfs %s/b/rootfs; rc=$?; exit $rc]])
        :format(img, out, out, out, here, out, out), { may_fail = true })
      assert.equal(0, r.status, r.stdout)
      r = image("import", "oci:" .. out .. "/x:app", "copy:1")
      assert.equal(0, r.status, r.stderr)
      assert.equal(again, r.stdout)
      assert.equal(0, image("verify").status)
      sh("rm -rf " .. out .. "/*")
    end)

    it_("come from a docker archive, by the name inside", function()
      local dir = files.dir "archive"
      sh(("skopeo --policy %s/policy.json copy -q oci:%s:app docker-archive:%s/a.tar:some/name:7")
        :format(keep, img, dir))
      local r = image("import", "docker-archive:" .. dir .. "/a.tar")
      assert.equal(0, r.status, r.stderr)
      assert.equal("docker.io/some/name:7", listed()[1].name)
      same_as_umoci("some/name:7", "app")
    end)

    it_("come from a folder or a tar, and run", function()
      local dir = files.dir "tar"
      sh(("tar -C %s/root -cf %s/r.tar ."):format(keep, dir))
      for i, source in ipairs { keep .. "/root", dir .. "/r.tar" } do
        local r = image("import", "-q", "rootfs:" .. source, "own:" .. i)
        assert.equal(0, r.status, r.stderr)
        r = proc.cli({ "exec", "--image", "own:" .. i, "--", "python", "-c", "print(6*7)" },
          { env = env })
        assert.equal("42\n", r.stdout, r.stderr)
      end
      os.remove(dir .. "/r.tar")
    end)

    it_("are refused where they are damaged or unclear", function()
      local dir = files.dir "bad"
      sh(("cp -r %s %s/img"):format(img, dir))
      local r = image("import", "oci:" .. dir .. "/img", "x:1")
      assert.equal(1, r.status)
      expect.contains(r.stderr, "say which")
      sh(([[for b in $(find %s/img/blobs -size +1000k); do
        printf x | dd of=$b bs=1 seek=5000 conv=notrunc 2>/dev/null
      done]]):format(dir))
      r = image("import", "oci:" .. dir .. "/img:base", "x:1")
      assert.equal(1, r.status)
      assert.same({}, listed())
      tidy()
      assert.equal(1, image("import", "rootfs:/no/such/dir", "x:1").status)
      assert.equal(2, image("import", "zip:/x", "x:1").status)
      sh("rm -rf " .. dir .. "/*")
    end)
  end)

  describe("as sandboxes", function()
    local function exec(tag, ...)
      return proc.cli({ "exec", "--image", name .. ":" .. tag, ... }, { env = env, timeout = 60 })
    end

    before_each(function()
      if missing then return end
      env.REGOLITH_IMAGES_JSON = files.write(files.dir "conf" .. "/images.json", json.encode {
        registries = { [("127.0.0.1:%d"):format(port)] = { plain_http = true } } })
    end)

    it_("are pulled when they are absent, and only then", function()
      local r = exec("base", "--", "python", "-c", "import ssl, sqlite3, json; print('runs')")
      assert.equal("runs\n", r.stdout, r.stderr)
      set {}
      r = exec("base", "--", "python", "-c", "print(2)")
      assert.equal("2\n", r.stdout, r.stderr)
      assert.same({}, log())
      env.REGOLITH_PULL = "always"
      assert.equal(0, exec("base", "--", "true").status)
      assert.is_true(#log() > 0)
      env.REGOLITH_PULL = "never"
      r = exec("app", "--", "true")
      assert.equal(125, r.status)
      expect.contains(r.stderr, "regolith image pull")
    end)

    it_("bring environment, working directory and user, which options override", function()
      local r = exec("app", "--", "sh", "-c", "pwd; id; echo $APP $PYTHON_VERSION $HOME")
      assert.equal("/srv/app\nuid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n" ..
        "1 3.11 /srv/home\n", r.stdout, r.stderr)
      r = exec("app", "--user", "root", "--cwd", "/", "--env", "APP=2", "--", "sh", "-c",
        "pwd; id -u; echo $APP $PYTHON_VERSION")
      assert.equal("/\n0\n2 3.11\n", r.stdout, r.stderr)
    end)

    it_("run what they name when no command is given", function()
      local r = exec "app"
      assert.equal("app /srv/app\n", r.stdout, r.stderr)
      r = proc.cli({ "exec", "--image", "host" }, { env = env })
      assert.equal(125, r.status)
      expect.contains(r.stderr, "no command")
    end)

    it_("show whiteouts and keep what they write to themselves", function()
      local r = exec("app", "--user", "root", "--", "sh", "-c",
        "ls /usr/share/doc || ls /usr/bin/factor || rm /etc/hello && echo x >/etc/gone && echo ok")
      assert.equal("ok\n", r.stdout, r.stderr)
      r = exec("app", "--", "sh", "-c", "cat /etc/hello; test -e /etc/gone || echo clean")
      assert.equal("hello\nclean\n", r.stdout)
      assert.equal(0, image("verify").status)
    end)

    it_("keep their files while they live, whatever is collected", function()
      pulled "many"
      local script = files.script("live.lua", ([[
        local sandbox = require "sandbox"
        local sb <close> = sandbox.create { image = "%s:many" }
        print "up"
        require "task".sleep(6)
        print(sb:exec("cat /layers/11 && python -c 'import json; print(json.dumps(1))'").stdout)
      ]]):format(name))
      local p = proc.cli_start({ "run", script }, { env = env })
      p:expect "up"
      assert.equal(0, image("rm", name .. ":many").status)
      assert.equal(0, image("gc", "--max-size", "1").status)
      assert.equal(12, count "layers")
      local r = p:wait(20)
      expect.contains(r.stdout, "11\n1\n")
      assert.equal(0, image("gc").status)
      assert.equal(0, count "layers")
      tidy()
    end)

    it_("are pulled once for many creates at once, and not after the last is cancelled", function()
      set { delay = 0.2 }
      local script = files.script("many.lua", ([[
        local sandbox, task = require "sandbox", require "task"
        task.map({ 1, 2, 3, 4, 5 }, {}, function(i)
          local sb <close> = sandbox.create { image = "%s:app" }
          print(sb:exec("echo " .. i).stdout)
        end)
        local ok, e = pcall(task.timeout, 0.3, sandbox.create, { image = "%s:many" })
        print(ok, e.code)
      ]]):format(name, name))
      local r = proc.cli({ "run", script }, { env = env, timeout = 60 })
      assert.equal(0, r.status, r.stderr)
      expect.contains(r.stdout, "false\ttimeout")
      local manifests = 0
      for _, q in ipairs(log()) do
        manifests = manifests + (q.path:find "manifests/app" and 1 or 0)
      end
      assert.equal(1, manifests)
      tidy()
      assert.equal(1, #listed())
    end)

    it_("serve an ordinary user, from a store of his own with his own ids", function()
      local sys = require "spec.support.sys"
      if not sys.root then return pending "needs root, to make a user" end
      local user = ("rgimg%d"):format(sys.self)
      local home = files.dir "home"
      sh(([[useradd -r -M -d %s %s && usermod --add-subuids 2000200000-2000331071 \
          --add-subgids 2000200000-2000331071 %s
        cp -r %s %s/parts %s && chown -R %s %s]])
        :format(home, user, user, proc.regolith, proc.build, home, user, home))
      local own = { HOME = home, USER = user, PATH = os.getenv "PATH", LC_ALL = "C.UTF-8",
        REGOLITH_IMAGES_JSON = env.REGOLITH_IMAGES_JSON, TMPDIR = os.getenv "TMPDIR" }
      local uid = tonumber(sh("id -u " .. user).stdout)
      local gid = tonumber(sh("id -g " .. user).stdout)
      local function as(...)
        return proc.run({ home .. "/regolith", ... },
          { env = own, uid = uid, gid = gid, cwd = "/", timeout = 60 })
      end
      local ok, why = pcall(function()
        local r = as("exec", "--image", name .. ":app", "--", "sh", "-c",
          "id -un; stat -c %u:%g /opt/*/ö*; test -e /usr/bin/factor || echo gone")
        assert.equal("app\n12345:54321\ngone\n", r.stdout, r.stderr)
        r = as("exec", "--user", "root", "--image", name .. ":app", "--", "sh", "-c",
          "rm -r /usr/lib/python3.11/json && id -u")
        assert.equal("0\n", r.stdout, r.stderr)
        assert.equal(0, as("image", "verify").status)
        assert.equal(0, as("image", "rm", name .. ":app").status)
        assert.equal("0\n", sh(("ls %s/.local/state/regolith/images/layers | wc -l")
          :format(home)).stdout)
      end)
      sh(("userdel %s; rm -rf %s/.local %s/regolith %s/parts"):format(user, home, home, home))
      assert(ok, why)
    end)

    it_("that are absent without network are one clear error with the ways out", function()
      local script = files.script("absent.lua", [[
        local sandbox = require "sandbox"
        local ok, e = pcall(sandbox.create, { image = "no.such.host.invalid/python:3.11" })
        print(ok, e.code, e.field, e.hint)
      ]])
      local r = proc.cli({ "run", script }, { env = env, timeout = 60 })
      expect.contains(r.stdout, "false\tengine_unavailable\timage")
      expect.contains(r.stdout, "host")
      expect.contains(r.stdout, "image import")
    end)
  end)
end)

-- Images from registries: an OCI layout built from Debian packages by umoci and skopeo, served by a
-- registry that misbehaves on request (registry.py) and by Debian's docker-registry.
local json = require "json"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local proc = require "spec.support.proc"
local t = require "spec.image.support"

t.describe(_ENV, "images from registries", function()
  describe("that are pulled", function()
    for _, tag in ipairs { "base", "app", "many", "zstd" } do
      t.it("are what umoci unpacks: " .. tag, function()
        t.pulled(tag)
        t.same_as_umoci(t.name .. ":" .. tag, tag == "zstd" and "app" or tag) -- umoci reads no zstd
        t.tidy()
        assert.equal(0, t.image("verify").status)
      end)
    end

    t.it("come for this machine out of an index, by t.name and by digest", function()
      local digest = t.pulled "multi"
      t.same_as_umoci(t.name .. ":multi", "app") -- which is what the index says for this machine
      assert.equal(digest, t.pulled "app")
      local r = t.image("pull", "-q", "--plain-http", t.name .. "@" .. digest)
      assert.equal(digest .. "\n", r.stdout)
      assert.equal("image_not_found",
        json.decode(t.pull("multi", "--platform", "linux/riscv64").stdout).error.code)
    end)

    t.it("share layers, which are fetched once", function()
      t.pulled "base"
      t.set {}
      t.pulled "app"
      local blobs = 0
      for _, r in ipairs(t.log()) do blobs = blobs + (r.path:find "/blobs/" and 1 or 0) end
      assert.equal(2, blobs) -- the configuration and one layer
      assert.equal(2, t.count "layers")
    end)

    t.it("come in Docker's schema 2 from Debian's docker-registry", function()
      t.with_docker_registry(function(port)
        local ref = ("127.0.0.1:%d/a/b"):format(port)
        t.skopeo(("-f v2s2 oci:%s:app docker://%s:2"):format(t.img, ref))
        t.skopeo(("oci:%s:many docker://%s:many"):format(t.img, ref))
        for _, tag in ipairs { "2", "many" } do
          local r = t.image("pull", "-q", "--plain-http", ref .. ":" .. tag)
          assert.equal(0, r.status, r.stderr)
        end
        t.same_as_umoci(ref .. ":2", "app")
        t.same_as_umoci(ref .. ":many", "many")
      end)
    end)

    t.it("show bars on a terminal and lines elsewhere", function()
      local r = t.sh(("TERM=xterm script -qec '%s image pull --plain-http %s:app' /dev/null")
        :format(proc.regolith, t.name), { env = t.env })
      expect.contains(r.stdout, "[####")
      expect.contains(r.stdout, "unpacked")
      assert.equal(0, t.image("rm", t.name .. ":app").status)
      r = t.image("pull", "--plain-http", t.name .. ":app")
      expect.contains(r.stderr, ": unpacked (")
      expect.lacks(r.stderr, "\27")
    end)
  end)

  describe("from a registry in trouble", function()
    t.it("are resumed where the connection broke", function()
      t.set { cut = { 1000000, 5000, 9000000 } }
      t.pulled "base"
      local ranges = {}
      for _, r in ipairs(t.log()) do
        if r.range ~= nil and r.range ~= json.null then ranges[#ranges + 1] = r.range end
      end
      assert.same({ "bytes=1000000-", "bytes=1005000-", "bytes=10005000-" }, ranges)
      t.same_as_umoci(t.name .. ":base", "base")
    end)

    t.it("are resumed from a server without ranges too", function()
      t.set { cut = { 3000000, 2000000 }, no_range = true }
      t.pulled "base"
      t.same_as_umoci(t.name .. ":base", "base")
    end)

    t.it("are not put together from wrong ranges", function()
      t.set { cut = { 1000000 }, bad_range = true }
      expect.contains(t.refused("engine_unavailable", "base"), "another range")
      assert.same({}, t.listed())
      t.tidy()
    end)

    t.it("are tried again after 429 and 503, not before Retry-After", function()
      t.set { fail = { 429, 503 }, retry_after = 1 }
      local r = t.pull "base"
      assert.equal(0, r.status, r.stdout)
      expect.between(2000, 20000, r.duration_ms)
    end)

    t.it("end in one error when it never works, or one byte at a time", function()
      t.set { cut = { 1, 1, 1 }, fail = { 0, 0, 0, 503, 503 } }
      expect.contains(t.refused("engine_unavailable", "base"), "503")
      assert.same({}, t.listed())
      t.tidy()
    end)

    t.it("are refused when what comes is not what was named", function()
      t.set { corrupt = true }
      t.refused("denied", "base")
      assert.same({}, t.listed())
      assert.equal(0, t.count "layers")
      t.set { longer = true }
      expect.contains(t.refused("denied", "base"), "more")
      t.set { config_size = 5 }
      expect.contains(t.refused("denied", "base"), "says 5")
      t.set { lie_manifest = true }
      expect.contains(t.refused("denied", "multi"), "asked for")
      t.tidy()
    end)

    t.it("say that there is no such image, no such registry", function()
      expect.contains(t.refused("image_not_found", "nothing"), "manifest unknown")
      local r = t.image("pull", "--json", "--plain-http", "127.0.0.1:1/x")
      assert.equal("engine_unavailable", json.decode(r.stdout).error.code)
      r = t.image("pull", "no.such.host.invalid/x:1")
      assert.equal(3, r.status)
      expect.contains(r.stderr, "image import docker-archive:FILE no.such.host.invalid/x:1")
      assert.is_true(r.duration_ms < 15000)
    end)

    t.it("are not waited for to the end of what has none", function()
      t.set { endless = "error" }
      t.refused("image_not_found", "base")
      t.set { endless = "token", auth = "token" }
      expect.contains(t.refused("payload_too_large", "base"), "too long")
      -- and while a login takes its time, a pull can be interrupted
      t.set { hang = true, auth = "token" }
      local p = proc.cli_start({ "image", "pull", "-q", "--plain-http", t.name .. ":base" },
        { env = t.env })
      repeat
        require "task".sleep(0.05)
        local log = t.log()
      until #log > 0 and log[#log].path:find "^/token"
      p:kill "INT"
      expect.contains(p:wait(10).stderr, "interrupted")
      t.tidy()
    end)

    t.it("do not fall back to plain http by themselves", function()
      local r = t.image("pull", "--json", t.name .. ":base")
      assert.are_not.equal(0, r.status)
      assert.same({}, t.log())
    end)

    t.it("are taken from the next mirror when one fails or lies", function()
      local liar = proc.start { "python3", t.here .. "/registry.py", t.img }
      local bad = tonumber(liar:expect "port (%d+)")
      t.sh(("curl -sS -X POST -d '{\"corrupt\":true}' http://127.0.0.1:%d/_set"):format(bad))
      t.env.REGOLITH_IMAGES_JSON = files.write(files.dir "conf" .. "/images.json", json.encode {
        registries = { ["example.test"] = { mirrors = { "http://127.0.0.1:1",
          ("http://127.0.0.1:%d/"):format(bad), ("http://127.0.0.1:%d"):format(t.port) } } } })
      local r = t.image("pull", "-q", "example.test/library/python:app")
      liar:kill "TERM"
      liar:wait(10)
      assert.equal(0, r.status, r.stderr)
      assert.equal(0, t.image("verify").status)
      t.same_as_umoci("example.test/library/python:app", "app")
      assert.is_true(#t.log() > 0)
    end)

    t.it("leave nothing when the pull is killed, and the next one cleans up", function()
      t.set { delay = 0.3 }
      for _, signal in ipairs { "KILL", "INT" } do
        local p = proc.cli_start({ "image", "pull", "-q", "--plain-http", t.name .. ":many" },
          { env = t.env })
        require "task".sleep(1.2)
        p:kill(signal)
        p:wait(10)
        assert.same({}, t.listed())
        if signal == "INT" then t.tidy() end
      end
      t.set {}
      t.pulled "many"
      t.tidy()
      assert.equal(0, t.image("verify").status)
    end)
  end)

  describe("and to registries", function()
    local function push(tag, ...)
      return t.image("push", "--plain-http", ..., t.name .. ":" .. tag)
    end

    local function sent()
      local n = 0
      for _, r in ipairs(t.log()) do
        n = n + (r.method == "PUT" and r.path:find "digest=" and 1 or 0)
      end
      return n
    end

    t.it("are sent, and come back as they were; what is there is not sent again", function()
      assert.equal(0, t.image("import", "-q", "oci:" .. t.img .. ":app", "app:1").status)
      t.set {}
      local r = push("mine", "app:1")
      assert.equal(0, r.status, r.stderr)
      assert.equal(3, sent())
      expect.contains(r.stderr, ": sent (")
      t.set { fail_put = { 503 } } -- the manifest, once
      assert.equal(r.stdout, push("again", "app:1").stdout)
      assert.equal(0, sent())
      t.tidy()
      t.fresh()
      assert.equal(r.stdout:sub(1, -2), t.pulled "again")
      t.same_as_umoci(t.name .. ":again", "app")
    end)

    t.it("are refused by name when that cannot be", function()
      assert.equal(0, t.image("import", "-q", "rootfs:" .. t.here, "small:1").status)
      t.set { fail_put = { 400 } }
      local r = push("bad", "small:1")
      assert.not_equal(0, r.status)
      expect.contains(r.stderr, "answers 400")
      expect.contains(r.stderr, "told to")
      r = push("x@sha256:" .. ("0"):rep(64), "small:1")
      expect.contains(r.stderr, "to a tag, not to a digest")
      expect.contains(push("bad", "absent:1").stderr, "not in the store")
      t.tidy()
    end)

    t.it("go there with a login for writing, which nobody else sees", function()
      local dir = files.dir "docker"
      files.write(dir .. "/config.json", ('{"auths":{"127.0.0.1:%d":{"auth":"dTpw"}}}')
        :format(t.port))
      t.env.DOCKER_CONFIG = dir
      assert.equal(0, t.image("import", "-q", "rootfs:" .. t.here, "small:2").status)
      local other = proc.start { "python3", t.here .. "/registry.py", t.img }
      local to = tonumber(other:expect "port (%d+)")
      t.set { auth = "token", upload = ("http://127.0.0.1:%d"):format(to) }
      local r = push("elsewhere", "small:2")
      local log = json.decode(t.sh(("curl -sS http://127.0.0.1:%d/_log"):format(to)).stdout)
      other:kill "TERM"
      other:wait(10)
      -- The blobs are there and not here, which the registry notices.
      expect.contains(r.stderr, "manifest blob unknown")
      assert.equal(2, #log)
      for _, q in ipairs(log) do assert.equal(json.null, q.authorization) end
      t.set { auth = "token" }
      r = push("here", "small:2")
      assert.equal(0, r.status, r.stderr)
      for _, q in ipairs(t.log()) do
        if q.authorization ~= json.null and q.authorization:find "^Basic" then
          expect.contains(q.path, "/token")
        end
      end
    end)
  end)

  describe("behind a login", function()
    local function login(text)
      local dir = files.dir "docker"
      files.write(dir .. "/config.json", text)
      t.env.DOCKER_CONFIG = dir
      return dir
    end
    local auth = '{"auths":{"127.0.0.1:%d":{"auth":"dTpw"}}}' -- u:p

    t.it("need one, and say how to get it", function()
      t.set { auth = "token" }
      local _, e = t.refused("unauthorized", "app")
      assert.is_truthy(e.message:find "login" or e.message:find "refuses")
      t.set { auth = "basic" }
      _, e = t.refused("unauthorized", "app")
      expect.contains(e.hint, "docker login")
    end)

    t.it("come with a token, with a password, with an identity token", function()
      login(auth:format(t.port))
      t.set { auth = "token" }
      t.pulled "app"
      for _, r in ipairs(t.log()) do -- the password goes to the login server alone
        if r.authorization ~= json.null and r.authorization:find "^Basic" then
          expect.contains(r.path, "/token")
        end
      end
      t.fresh()
      login(auth:format(t.port))
      t.set { auth = "basic" }
      t.pulled "app"
      t.fresh()
      login(('{"auths":{"127.0.0.1:%d":{"identitytoken":"identity"}}}'):format(t.port))
      t.set { auth = "token" }
      t.pulled "app"
    end)

    t.it("get a new token when one expires", function()
      login(auth:format(t.port))
      t.set { auth = "expire" }
      t.pulled "many"
      local logins = 0
      for _, q in ipairs(t.log()) do logins = logins + (q.path:find "^/token" and 1 or 0) end
      assert.is_true(logins > 1)
    end)

    t.it("use a credential helper", function()
      local dir = login(('{"credHelpers":{"127.0.0.1:%d":"spec"}}'):format(t.port))
      files.write(dir .. "/docker-credential-spec", ([[#!/bin/sh
read -r host
[ "$1 $host" = "get 127.0.0.1:%d" ] && echo '{"ServerURL":"x","Username":"u","Secret":"p"}'
]]):format(t.port))
      t.sh("chmod +x " .. dir .. "/docker-credential-spec")
      t.env.PATH = dir .. ":" .. t.env.PATH
      t.set { auth = "token" }
      t.pulled "app"
    end)

    t.it("send no credentials on to where a redirect leads", function()
      local other = proc.start { "python3", t.here .. "/registry.py", t.img }
      local to = tonumber(other:expect "port (%d+)")
      login(auth:format(t.port))
      t.set { auth = "basic", redirect = ("http://127.0.0.1:%d"):format(to) }
      local r = t.pull "app"
      local seen = json.decode(t.sh(("curl -sS http://127.0.0.1:%d/_log"):format(to)).stdout)
      other:kill "TERM"
      other:wait(10)
      assert.equal(0, r.status, r.stdout)
      assert.is_true(#seen >= 2)
      for _, q in ipairs(seen) do assert.equal(json.null, q.authorization) end
    end)

    t.it("never show a secret", function()
      login(auth:format(t.port))
      t.set { auth = "token", fail = { 503, 503, 503, 503, 503, 503 } }
      local r = t.pull "app"
      expect.lacks(r.stdout .. r.stderr, "dTpw")
      expect.lacks(r.stdout .. r.stderr, "token-")
    end)
  end)

  t.it("come over TLS from an authority of the user's, and only then", function()
    local server = proc.start { "python3", t.here .. "/registry.py", t.img, "--tls",
      t.keep .. "/cert.pem", t.keep .. "/key.pem" }
    local tls = tonumber(server:expect "port (%d+)")
    local ref = ("127.0.0.1:%d/x:app"):format(tls)
    local r = t.image("pull", "--json", ref)
    t.env.REGOLITH_IMAGES_JSON = files.write(files.dir "conf" .. "/images.json",
      json.encode {
        registries = { [("127.0.0.1:%d"):format(tls)] = { ca = t.keep .. "/ca.pem" } } })
    local good = t.image("pull", "-q", ref)
    t.fresh { REGOLITH_IMAGES_JSON = t.env.REGOLITH_IMAGES_JSON }
    t.sh(("curl -ksS -X POST -d '{\"redirect\":\"http://127.0.0.1:%d\"}' https://127.0.0.1:%d/_set")
      :format(t.port, tls))
    local down = t.image("pull", "--json", ref) -- to what is no TLS
    server:kill "TERM"
    server:wait(10)
    assert.equal("denied", json.decode(r.stdout).error.code)
    assert.equal(0, good.status, good.stderr)
    assert.equal("denied", json.decode(down.stdout).error.code)
    assert.same({}, t.log())
  end)
end)

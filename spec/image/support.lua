-- What the image specs share: the fixture (fixture.sh), a registry that misbehaves on request
-- (registry.py), a store of its own for each test.
local assert = require "luassert"
local json = require "json"
local lfs = require "lfs"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local proc = require "spec.support.proc"

local M = {}

M.here = "spec/image"
local build = proc.build:sub(1, 1) == "/" and proc.build or lfs.currentdir() .. "/" .. proc.build
M.keep = build .. "/image-fixture" -- made once; nobody writes to it
M.img = M.keep .. "/img"
local missing -- why nothing of this can run here
local room, rooms = nil, 0 -- where stores and unpacked trees go: in memory, where that can be had

function M.sh(script, opts)
  opts = opts or {}
  local r = proc.run({ "sh", "-c", script }, { env = opts.env, timeout = opts.timeout or 60 })
  if not opts.may_fail and r.status ~= 0 then
    error(("%s: status %s\n%s%s"):format(script, tostring(r.status), r.stdout, r.stderr), 2)
  end
  return r
end

local registry

-- Sends faults to the registry, or asks for its log.
function M.set(faults)
  local body = next(faults) and json.encode(faults) or "{}"
  M.sh(("curl -sS -X POST -d '%s' http://127.0.0.1:%d/_set"):format(body, M.port))
end

function M.log()
  return json.decode(M.sh(("curl -sS http://127.0.0.1:%d/_log"):format(M.port)).stdout)
end

-- A fresh directory for much that is soon gone. The disk would be flushed for each image.
function M.room(name)
  rooms = rooms + 1
  local path = ("%s/%s.%d"):format(room, name, rooms)
  M.sh("mkdir " .. path)
  return path
end

local function make_room()
  room = files.dir "room"
  -- User attributes came to tmpfs with Linux 6.6.
  M.sh(([[mount -t tmpfs -o size=3g,mode=755 images %s || exit 0
    python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.x", b"1")' %s && exit 0
    umount %s]]):format(room, room, room))
end

-- A store of its own for each test: M.state is its folder, M.env the environment of the binary.

function M.fresh(more)
  M.state = M.room "state"
  M.env = proc.env { XDG_STATE_HOME = M.state, HOME = M.state, DOCKER_CONFIG = false,
    XDG_RUNTIME_DIR = false, REGOLITH_PULL = false }
  for k, v in pairs(more or {}) do M.env[k] = v or nil end
end

function M.image(...) return proc.cli({ "image", ... }, { env = M.env, timeout = 60 }) end

function M.pull(tag, ...)
  local args = { "pull", "--json", "--plain-http", ... }
  args[#args + 1] = M.name .. ":" .. tag
  return M.image(table.unpack(args))
end

function M.pulled(tag, ...)
  local r = M.pull(tag, ...)
  if r.status ~= 0 then error(r.stdout .. r.stderr, 2) end
  return json.decode(r.stdout).digest
end

-- Pulls and expects the error with this code; returns its message.
function M.refused(code, tag, ...)
  local r = M.pull(tag, ...)
  assert.are_not.equal(0, r.status)
  local e = json.decode(r.stdout).error
  assert.equal(code, e.code, r.stdout)
  return e.message, e
end

function M.listed()
  return json.decode(M.image("ls", "--json").stdout)
end

function M.count(path)
  return tonumber(M.sh(("ls -A %s/regolith/images/%s | wc -l"):format(M.state, path)).stdout)
end

-- Nothing half done is left, whatever happened.
function M.tidy()
  assert.equal(0, M.count "tmp")
  assert.equal(0, M.count "leases")
end

function M.layers(ref)
  return json.decode(M.image("inspect", ref).stdout).layers
end

-- Mounts what the store has and compares it with a tree that make (shell) makes in a folder.
local function same_as(ref, make, tree)
  local paths = {}
  for _, l in ipairs(M.layers(ref)) do table.insert(paths, 1, l.path) end
  local dir = M.room "same"
  local r = M.sh(([[
    cd %s && { %s; } >/dev/null 2>&1 && mkdir m e &&
    mount -t overlay overlay -o ro,lowerdir=%s:e m || exit 3
    python3 %s/%s/compare.py %s m; rc=$?
    umount m; rm -rf ./*; exit $rc]]):format(dir, make, table.concat(paths, ":"),
    lfs.currentdir(), M.here, tree), { may_fail = true })
  assert.equal(0, r.status, r.stdout .. r.stderr)
  expect.contains(r.stdout, " 0 differ")
end

-- The same tree as what umoci unpacks out of img, by default the fixture's?
function M.same_as_umoci(ref, tag, img)
  same_as(ref, ("umoci unpack --image %s:%s u"):format(img or M.img, tag), "u/rootfs")
end

function M.same_as_folder(ref, path) same_as(ref, "true", path) end

-- Runs fn(port) while Debian's docker-registry serves.
function M.with_docker_registry(fn)
  local dir = files.dir "registry"
  local port = tonumber(M.sh(
    "python3 -c 'import socket as s; p = s.create_server((str(), 0)); print(p.getsockname()[1])'")
    .stdout)
  files.write(dir .. "/config.yml", ([[
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s/data}}
http: {addr: 127.0.0.1:%d}
]]):format(dir, port))
  local server = proc.start { "docker-registry", "serve", dir .. "/config.yml" }
  local ok, why = pcall(function()
    M.sh(("curl -s -o /dev/null --retry 50 --retry-connrefused --retry-delay 1 %s:%d/v2/")
      :format("http://127.0.0.1", port))
    fn(port)
  end)
  server:kill "TERM"
  server:wait(10)
  M.sh("rm -rf " .. dir .. "/*")
  assert(ok, why)
end

-- skopeo between the places it is told, with the options before them.
function M.skopeo(words, timeout)
  M.sh(("skopeo --policy %s/policy.json copy -q --dest-tls-verify=false %s")
    :format(M.keep, words), { timeout = timeout })
end

--- Like busted's it, where the fixture could be built; else pending, saying why. busted's own
--- functions are globals of spec files only: M.describe is told them.
local busted

function M.it(what, fn)
  busted.it(what, function()
    if missing then return busted.pending(missing) end
    fn()
  end)
end

--- Like busted's describe, with fixture, registry and stores. env: the spec's _ENV.
function M.describe(env, what, fn)
  busted = env
  busted.describe(what, function()
    busted.setup(function()
      local r = M.sh(("sh %s/fixture.sh %s"):format(M.here, M.keep),
        { may_fail = true, timeout = 200 })
      if r.status == 77 then
        missing = r.stdout
        return
      end
      assert.equal(0, r.status, r.stdout .. r.stderr)
      registry = proc.start { "python3", M.here .. "/registry.py", M.img }
      make_room()
      M.port = tonumber(registry:expect "port (%d+)")
      M.name = ("127.0.0.1:%d/library/python"):format(M.port)
    end)

    busted.teardown(function()
      if registry then
        registry:kill "TERM"
        registry:wait(10)
      end
      if room then M.sh(("umount %s 2>/dev/null; rm -rf %s"):format(room, room)) end
      files.clean()
    end)

    busted.before_each(function()
      if missing then return end
      M.fresh()
      M.set {}
    end)

    busted.after_each(function()
      if room then M.sh(("rm -rf %s/*"):format(room)) end
    end)

    fn()
  end)
end

return M

-- GPUs: specifications of the container device interface over device nodes made here, which no
-- driver answers for: a node that was granted opens to "No such device or address", one that was
-- not is not there. A management library made here names the cards where a specification does not.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local json = require "json"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"
local users = require "spec.support.user"

--- A major number that no driver of this machine has.
local function free_major()
  local used = {}
  for n in sys.read("/proc/devices"):match("(.-)Block"):gmatch "(%d+) " do
    used[tonumber(n)] = true
  end
  for n = 233, 200, -1 do
    if not used[n] then return n end
  end
end
local MAJOR <const> = free_major()

local function sh(command)
  local r = proc.run { "sh", "-c", command }
  if r.status ~= 0 then error(command .. ": " .. r.stdout .. r.stderr, 2) end
  return r.stdout
end

--- Whether nodes can be made, and opened, here.
local function can_make_nodes()
  if not sys.root then return false, "needs root, to make device nodes" end
  local dir = files.dir "try"
  local r = proc.run { "sh", "-c", ("mknod '%s/n' c %d 0 && : <'%s/n'"):format(dir, MAJOR, dir) }
  if r.stderr:find "No such device or address" then return true end
  return false, "device nodes cannot be made or opened here: " .. r.stderr
end

--- A machine with cards: { product, ... }. Returns a table with its environment.
local function machine(products)
  local m = { dir = files.dir "gpus", cdi = files.dir "cdi" }
  m.env = { REGOLITH_CDI_DIRS = m.cdi, REGOLITH_NVML = "" }
  m.spec = { cdiVersion = "0.5.0", kind = "example.com/gpu", devices = {}, containerEdits = {
    env = { "NVIDIA_VISIBLE_DEVICES=void" },
    deviceNodes = { { path = "/dev/nvidiactl", hostPath = m.dir .. "/nvidiactl" } } } }
  sh(("mknod -m 666 '%s/nvidiactl' c %d 255"):format(m.dir, MAJOR))
  local all = {}
  for i, product in ipairs(products) do
    local node = { path = "/dev/nvidia" .. i - 1, hostPath = ("%s/nvidia%d"):format(m.dir, i - 1) }
    sh(("mknod -m 666 '%s' c %d %d"):format(node.hostPath, MAJOR, i - 1))
    all[i] = node
    m.spec.devices[i] = { name = tostring(i - 1), annotations = { ["regolith/product"] = product },
      containerEdits = { deviceNodes = { node } } }
  end
  m.spec.devices[#products + 1] = { name = "all", containerEdits = { deviceNodes = all } }
  function m.save() files.write(m.cdi .. "/example.json", json.encode(m.spec)) end
  m.save()
  return m
end

--- Where a hierarchy is mounted: cgroup2, or the one of version 1 with this controller.
local function mount_of(version, controller)
  for line in sys.read("/proc/self/mountinfo"):gmatch "[^\n]+" do
    local mount, kind, super = line:match "^%S+ %S+ %S+ / (%S+) .* %- (%S+) %S+ (%S+)$"
    local with = "," .. (super or "") .. ","
    if kind == version and (kind == "cgroup2" or with:find("," .. controller .. ",", 1, true)) then
      return mount
    end
  end
end

local HIDE_CGROUP2 <const> = { "unshare", "--mount", "--propagation", "private", "sh", "-c",
  [[umount "$(findmnt -nro TARGET -t cgroup2 | head -1)" && exec "$@"]], "sh" }

local HEAD <const> = [[
  local sandbox = require "sandbox"
  local function try(gpu, image)
    local ok, e = pcall(sandbox.create, { gpu = gpu, image = image })
    if ok then return e end
    print(e.code, e.field, e.message, e.hint)
  end
]]

describe("GPUs", function()
  local before, can, why
  setup(function() can, why = can_make_nodes() end)
  before_each(function() before = leftovers.before() end)
  after_each(function()
    files.clean()
    leftovers.none_since(before, 5)
  end)

  --- under: a program that runs it.
  local function start(m, script, options, under)
    local args = table.move(under or {}, 1, #(under or {}), 1, {})
    for _, a in ipairs { proc.regolith, "run", "--allow-gpu", "*" } do args[#args + 1] = a end
    for _, o in ipairs(options or {}) do args[#args + 1] = o end
    args[#args + 1] = files.script("gpu.lua", HEAD .. script)
    return proc.start(args, { env = proc.env(m.env), stdin = true })
  end

  local function run(m, script, options)
    local p = start(m, script, options)
    p:close_stdin()
    local r = p:wait()
    assert.equal(0, r.status, r.stderr)
    return r.stdout
  end

  it("give a sandbox the nodes and the environment of its card, and no others", function()
    if not can then return pending(why) end
    local out = run(machine { "Tesla T4", "NVIDIA A100-SXM4-40GB" }, [[
      local sb <close> = sandbox.create { gpu = "A100" }
      local r = sb:exec("cd /dev; echo nvidia*; echo $NVIDIA_VISIBLE_DEVICES")
      print(sb.config.gpu, r.stdout)
      for _, c in ipairs { ": </dev/nvidia1", ": </dev/nvidiactl", ": </dev/nvidia0",
        ": </dev/null", "mknod /tmp/n c 233 0", "mknod /tmp/b b 8 0", ": >/dev/new",
        "rm /dev/nvidia1" } do
        io.write(c, "\t", sb:exec(c).stderr, "\n")
      end
      local plain <close> = sandbox.create {}
      print(plain.config.gpu, plain:exec("cd /dev; echo nvidia*").stdout)]])
    expect.contains(out, "A100\tnvidia1 nvidiactl\nvoid\n")
    for _, want in ipairs { "nvidia1\t[^\n]*No such device or address",
      "nvidiactl\t[^\n]*No such device", "</dev/nvidia0\t[^\n]*No such file", "</dev/null\t\n",
      "c 233 0\t[^\n]*Operation not permitted", "b 8 0\t[^\n]*Operation not permitted",
      "new\t[^\n]*Read%-only", "rm /dev/nvidia1\t[^\n]*Read%-only", "nil\tnvidia%*" } do
      assert.is_truthy(out:find(want), want .. " in " .. out)
    end
  end)

  it("are counted, by tier or by their own name; the first free one of a list is taken", function()
    if not can then return pending(why) end
    local out = run(machine { "Tesla T4", "Tesla T4", "NVIDIA L40S", "GRID A100-10C" }, [[
      local function show()
        for _, t in ipairs(sandbox.gpus()) do
          if t.count then io.write(t.gpu, " ", t.free, "/", t.count, " ", t.engines[1], ";") end
        end
        print()
      end
      show()
      local a = try { "H100", "t4", "NVIDIA L40S" }
      local b = try { "T4:2", "T4" }
      print(a.config.gpu, b.config.gpu)
      show()
      local c = try { "T4", "nvidia l40s" }
      print(c.config.gpu)
      try "T4"
      try { "A100" }
      a:terminate()
      print(try("T4").config.gpu)]])
    assert.equal([[
T4 2/2 local;NVIDIA L40S 1/1 local;GRID A100-10C 1/1 local;
T4	T4
T4 0/2 local;NVIDIA L40S 1/1 local;GRID A100-10C 1/1 local;
nvidia l40s
]], out:match "^(.-)capacity")
    expect.contains(out, 'capacity\tgpu\tno GPU is free for gpu = "T4": '
      .. "this machine has 2 T4 (0 free), "
      .. "1 NVIDIA L40S (0 free), 1 GRID A100-10C (1 free)")
    expect.contains(out, 'no GPU is free for gpu = "A100"')
    assert.is_truthy(out:find "\nT4\n$", out)
  end)

  it("come in numbers, with what they share only once", function()
    if not can then return pending(why) end
    local out = run(machine { "Tesla T4", "Tesla T4", "Tesla T4" }, [[
      local sb <close> = sandbox.create { gpu = "T4:2" }
      print(sb.config.gpu, sb:exec("cd /dev; echo nvidia*").stdout)
      try "T4:2"]])
    expect.contains(out, "T4:2\tnvidia0 nvidia1 nvidiactl\n")
    expect.contains(out, 'for gpu = "T4:2": this machine has 3 T4 (1 free)')
  end)

  it("are had by one process of the machine at a time, however it ends", function()
    if not can then return pending(why) end
    local m = machine { "Tesla T4" }
    local first = start(m, [[
      local sb <close> = sandbox.create { gpu = "T4" }
      print "mine"
      io.read()]])
    first:expect "mine"
    local out = run(m, 'try "T4" print(sandbox.gpus()[1].free)')
    expect.contains(out, "this machine has 1 T4 (0 free)")
    expect.contains(out, "\n0\n")
    first:kill "KILL"
    first:wait()
    expect.eventually(5, "the card is free again", function()
      return run(m, 'local sb = try "T4" print(sb and sb.config.gpu)'):find "T4\n$"
    end)
  end)

  it("bring the driver's files into images, as links and read-only mounts", function()
    if not can then return pending(why) end
    local m = machine { "Tesla T4" }
    files.write(m.dir .. "/libcuda.so.1", "cuda\n")
    sh(("mkdir '%s/lib' && echo firmware >'%s/lib/fw'"):format(m.dir, m.dir))
    local edits = m.spec.containerEdits
    edits.mounts = {
      { hostPath = m.dir .. "/libcuda.so.1", containerPath = "/opt/driver/libcuda.so.1" },
      { hostPath = m.dir .. "/lib", containerPath = "/lib/firmware/x", options = { "ro" } },
      { hostPath = "/usr/bin/env", containerPath = "/usr/bin/env" } }
    edits.hooks = {
      { hookName = "createContainer", path = "/usr/bin/nvidia-cdi-hook",
        args = { "nvidia-cdi-hook", "create-symlinks", "--link",
          "libcuda.so.1::/opt/driver/libcuda.so" } },
      { hookName = "createContainer", path = "/usr/bin/nvidia-ctk",
        args = { "nvidia-ctk", "hook", "update-ldcache", "--folder=/opt/driver" } } }
    m.save()
    local root = files.dir "image"
    sh(([[cd '%s' && mkdir -p proc dev sys tmp etc bin opt
      for f in /bin/dash /bin/cat /bin/ls; do
        for l in $f $(ldd $f | grep -o '/[^ ]*'); do
          mkdir -p ".${l%%/*}" && cp -L "$l" ".$l"
        done
      done; ln -s dash bin/sh; ln -s /opt opt2]]):format(root))
    local out = run(m, ([==[
      local sb <close> = sandbox.create { gpu = "T4", image = "dir:%s" }
      local r = sb:exec [[cat /opt/driver/libcuda.so /lib/firmware/x/fw
        echo $LD_LIBRARY_PATH; echo >/opt/driver/libcuda.so.1]]
      print(r.stdout, r.stderr)]==]):format(root), { "--allow-dir-image", root })
    expect.contains(out, "cuda\nfirmware\n/opt/driver\n")
    expect.contains(out, "Read-only file system")
    assert.equal("cuda\n", files.read(m.dir .. "/libcuda.so.1"))
    assert.is_false(files.exists(root .. "/opt/driver"))
    -- Image host shows its own files already; where it is read-only nothing can be added.
    edits.mounts[2], edits.mounts[3] = edits.mounts[3], nil
    m.save()
    out = run(m, [[local sb <close> = sandbox.create { gpu = "T4" }
      print(sb:exec("cat /opt/driver/*.1").stdout)]])
    expect.contains(out, "cuda\n")
    edits.mounts[2].containerPath = "/usr/lib/no-such-driver-file"
    m.save()
    out = run(m, 'try "T4"')
    expect.contains(out, "unsupported\t")
    expect.contains(out, "/usr/lib/no-such-driver-file: Read-only file system")
  end)

  it("whose specification asks for what is not done here are refused, by name", function()
    if not can then return pending(why) end
    local m = machine { "Tesla T4" }
    local node = m.spec.devices[1].containerEdits
    local function refused(text)
      m.save()
      local out = run(m, 'try "T4"')
      expect.contains(out, "capacity\tgpu\t")
      expect.contains(out, text)
    end
    node.hooks = { { hookName = "createRuntime", path = "/bin/evil",
      args = { "evil", "own-the-host" } } }
    refused "runs a hook that regolith does not know: /bin/evil own-the-host"
    node.hooks = nil
    node.mounts = { { hostPath = "/no/such/file", containerPath = "/x" } }
    refused "its file /no/such/file is not there"
    node.mounts = { { hostPath = "/etc/passwd", containerPath = "/a/../../b" } }
    refused "its specification mounts"
    node.mounts = nil
    node.deviceNodes[1].hostPath = m.dir .. "/gone"
    refused "is not there, or no character device"
    node.deviceNodes[1] = { path = "/etc/nvidia0", hostPath = m.dir .. "/nvidia0" }
    refused "is not below /dev"
    node.deviceNodes[1] = { path = "/dev/nvidia0", hostPath = m.dir .. "/nvidia0" }
    node.intelRdt = { closID = "x" }
    refused "its specification wants intelRdt"
    files.write(m.cdi .. "/example.json", "{ not json")
    local r = proc.cli({ "doctor" }, { env = proc.env(m.env) })
    expect.contains(r.stdout, "example.json: ")
  end)

  it("are named by the driver's library, loaded by a helper that may fail", function()
    if not can then return pending(why) end
    local m = machine { "", "" }
    for i = 1, 2 do m.spec.devices[i].annotations = nil end
    m.spec.devices[2].name = "GPU-2222"
    m.save()
    local library, cards = m.dir .. "/libnvml.so", m.dir .. "/cards"
    sh(("cc -shared -fPIC -DCARDS='\"%s\"' -o '%s' spec/support/nvml.c"):format(cards, library))
    m.env.REGOLITH_NVML = library
    files.write(cards, "0 GPU-1111 NVIDIA H100 80GB HBM3\n7 GPU-2222 NVIDIA A10G\n"
      .. "9 GPU-3333 NVIDIA L4\n")
    local SHOW <const> = [[
      for _, t in ipairs(sandbox.gpus()) do
        if t.count then io.write(t.gpu, " ", t.free, ";") end
      end
      print()]]
    -- The last one has no node here: it is known, and cannot be had.
    local out = run(m, SHOW .. [[ try "L4"
      local a <close> = sandbox.create { gpu = "H100" }
      local b <close> = sandbox.create { gpu = "A10G" }
      print(a:exec("cd /dev; echo nvidia*").stdout, b:exec("cd /dev; echo nvidia*").stdout)]])
    expect.contains(out, "A10G 1;H100 1;\n")
    expect.contains(out, "its node /dev/nvidia9 is not there")
    expect.contains(out, "nvidia0 nvidiactl\n\tnvidia1 nvidiactl\n")
    -- A library that finds no driver: the cards go by their own names.
    os.remove(cards)
    expect.contains(run(m, SHOW), "example.com/gpu=0 1;example.com/gpu=GPU-2222 1;\n")
    files.write(cards, "0 x crashes\n")
    out = run(m, 'try "T4"')
    expect.contains(out, "engine_unavailable\tgpu\tcannot find out which GPUs this machine has")
  end)

  it("are granted by name and number", function()
    if not can then return pending(why) end
    local m = machine { "Tesla T4", "Tesla T4", "NVIDIA A100 80GB PCIe" }
    local function with(options, script)
      local args = { "run" }
      for _, o in ipairs(options) do args[#args + 1] = o end
      args[#args + 1] = files.script("gpu.lua", HEAD .. script)
      return proc.cli(args, { env = proc.env(m.env) }).stdout
    end
    local ALL <const> = 'for _, g in ipairs { "T4", "T4:2", "A100", { "A100", "T4" } } do ' ..
      "local sb = try(g) if sb then print(sb.config.gpu) sb:terminate() end end"
    expect.contains(with({}, 'try "T4"'),
      'denied\tgpu\tgpu = "T4" was not granted\tregolith run --allow-gpu T4 grants it')
    local out = with({ "--allow-gpu", "t4:1" }, ALL)
    assert.equal("T4\n", out:match "^(.-)denied")
    assert.equal(3, select(2, out:gsub("denied", "")))
    assert.equal("T4\nT4:2\nA100\nA100\n", with({ "--allow-gpu", "T4", "--allow-gpu", "A*" }, ALL))
    assert.equal("T4\nT4:2\nA100\nA100\n", with({ "--profile", "trusted" }, ALL))
  end)

  it("are shown by doctor", function()
    if not can then return pending(why) end
    local m = machine { "Tesla T4", "NVIDIA L40S" }
    local r = proc.cli({ "doctor" }, { env = proc.env(m.env) })
    expect.contains(r.stdout, "1 T4 (1 free), 1 NVIDIA L40S (1 free)")
    files.write(m.cdi .. "/other.yaml", "cdiVersion: 0.5.0\n")
    r = proc.cli({ "doctor" }, { env = proc.env(m.env) })
    expect.contains(r.stdout, "other.yaml is not read: only JSON is")
  end)

  it("that are not there are a capacity error", function()
    local out = proc.cli({ "run", files.script("gpu.lua", HEAD .. 'try "T4"') },
      { env = proc.env { REGOLITH_CDI_DIRS = files.dir "empty" } }).stdout
    expect.contains(out, "capacity\tgpu\t")
    expect.contains(out, "no GPU")
  end)

  -- By a program of cgroup2, or where that is not to be had by the devices hierarchy of version 1.
  for version, wall in ipairs { "devices hierarchy", "program" } do
    it("and all other devices end at a second wall, the control group's " .. wall, function()
      if not can then return pending(why) end
      local mount = mount_of(version == 2 and "cgroup2" or "cgroup", "devices")
      if not mount then return pending("no control groups of version " .. version .. " here") end
      local m = machine { "Tesla T4", "Tesla T4" }
      local p = start(m, [[
        local sb <close> = sandbox.create { gpu = "T4" }
        local plain <close> = sandbox.create {}
        print("ready " .. sb.sandbox_id .. " " .. plain.sandbox_id)
        io.read()]], nil, version == 1 and HIDE_CGROUP2 or nil)
      local gpu, plain = p:expect "ready (%S+)", p:expect "ready %S+ (%S+)"
      --- The control group directory of a sandbox's agent.
      local function group(id)
        local pid = sh(("pgrep -f 'regolith: agent %s'"):format(id)):match "%d+"
        local line = version == 2 and "\n0::(/[^\n]*)" or ":devices:(/[^\n]*)"
        local path = sh(("cat /proc/%s/cgroup"):format(pid)):match(line)
        assert.is_true(path and path ~= "/", "no group of its own: " .. id)
        return mount .. path
      end
      local function opens(dir, node)
        local script = "echo $$ >'%s/cgroup.procs' && cat <'%s'; mknod '%s/new' c 1 3"
        return proc.run({ "sh", "-c", script:format(dir, node, m.dir) }).stderr
      end
      -- With all of root's capabilities, and every node in reach.
      local walled, granted, other = group(gpu), m.dir .. "/nvidia0", m.dir .. "/nvidia1"
      expect.contains(opens(walled, granted), "No such device or address")
      expect.contains(opens(walled, other), "Operation not permitted")
      expect.contains(opens(walled, granted), "mknod: " .. m.dir .. "/new: Operation not permitted")
      expect.contains(opens(group(plain), granted), "Operation not permitted")
      assert.is_nil(opens(group(plain), "/dev/null"):find "null:")
      p:close_stdin()
      assert.equal(0, p:wait().status)
    end)
  end
end)

for _, subids in ipairs { true, false } do
  local with = subids and "with" or "without"
  describe("GPUs of an ordinary user " .. with .. " subordinate ids", function()
    it("are bound from the machine's own nodes", function()
      local can, why = can_make_nodes()
      if not can then return pending(why) end
      local user = users.make(subids)
      local before = leftovers.before()
      local m = machine { "Tesla T4", "NVIDIA A100-PCIE-40GB" }
      for k, v in pairs(m.env) do user.env[k] = v end
      local script = files.script("gpu.lua", HEAD .. [[
        local sb <close> = sandbox.create { gpu = "A100" }
        print(sb:exec("cd /dev; echo nvidia*").stdout, sb:exec(": </dev/nvidia1").stderr)]])
      local r = user:run { "run", "--allow-gpu", "*", script }
      user:remove()
      files.clean()
      leftovers.none_since(before, 5)
      assert.equal(0, r.status, r.stderr)
      expect.contains(r.stdout, "nvidia1 nvidiactl\n")
      expect.contains(r.stdout, "No such device or address")
    end)
  end)
end

-- What a script may do: grants on the command line, profiles, the configuration file.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

local TRY = [[
local sandbox = require "sandbox"
local function try(options)
  local ok, r = pcall(sandbox.create, options)
  if not ok then return print(r.code, r.field, r.message, r.hint) end
  print("ok", r.config.cpu, r.config.memory, r.config.disk, r.config.timeout)
  r:terminate()
end
]]

for _, mode in ipairs { "workers", "in process" } do
  describe("grants of scripts (" .. mode .. ")", function()
    local before
    before_each(function() before = leftovers.before() end)
    after_each(function()
      files.clean()
      leftovers.none_since(before, 5)
    end)

    local function run(options, text, opts)
      local argv = { "run", table.unpack(options) }
      if mode == "in process" then argv[#argv + 1] = "--trust" end
      argv[#argv + 1] = files.script("g.lua", TRY .. text)
      return proc.cli(argv, opts)
    end

    local function lines(r)
      assert.equal(0, r.status, r.stderr)
      local out = {}
      for line in r.stdout:gmatch "([^\n]*)\n" do out[#out + 1] = line end
      return out
    end

    it("are few by default, and a refusal names the option", function()
      local l = lines(run({}, [[
        try {}
        try { image = "python:3.11" }
        try { image = "dir:/tmp" }
        try { network = "open" }
        try { network = { allow = { "a.example.org:443" } } }
        try { volumes = { { source = "data", target = "/data" } } }
        print(env "HOME", (select(2, io.open "/etc/hostname")))
      ]], { env = proc.env { HOME = "/tmp" } }))
      expect.contains(l[1], "ok")
      for i, option in ipairs { "--allow-image python:3.11", "--allow-dir-image /tmp",
        "--allow-network open", "--allow-network a.example.org:443", "--allow-volume data" } do
        expect.contains(l[i + 1], "denied")
        expect.contains(l[i + 1], option)
      end
      expect.contains(l[7], "nil\t/etc/hostname: Permission denied")
    end)

    it("bound sizes: what is left open is lowered, what is asked for is refused", function()
      local l = lines(run({ "--max-cpu", "0.5", "--max-memory", "256MiB", "--max-disk", "64MiB",
        "--max-timeout", "20s" }, [[
        try {}
        try { memory = 257 }
        try { cpu = 1 }
        try { disk = "65MiB" }
        try { timeout = 21 }
        try { memory = 128, timeout = 20 }
        local sb = sandbox.create { timeout = 10 }
        print(pcall(sb.extend, sb, 11))
        sb:extend(10)
      ]]))
      assert.equal("ok\t0.5\t256\t64\t20", l[1])
      for i, option in ipairs { "--max-memory", "--max-cpu", "--max-disk", "--max-timeout" } do
        expect.contains(l[i + 1], "denied")
        expect.contains(l[i + 1], option)
      end
      assert.equal("ok\t0.5\t128\t64\t20", l[6])
      expect.contains(l[7], "not granted")
    end)

    it("bound how many sandboxes live at once, for each script", function()
      local l = lines(run({ "--max-sandboxes", "2" }, [[
        local a, b = sandbox.create {}, sandbox.create {}
        try {}
        a:terminate()
        try {}
      ]]))
      expect.contains(l[1], "limit")
      expect.contains(l[1], "--max-sandboxes")
      expect.contains(l[2], "ok")
    end)

    it("grant images by pattern, where a star ends at a slash", function()
      local l = lines(run({ "--allow-image", "python:*", "--allow-image", "reg.test/*/app" }, [[
        for _, image in ipairs { "python:5000/evil", "ruby:3", "xpython:3", "reg.test/a/b/app" } do
          try { image = image }
        end
      ]]))
      assert.equal(4, #l)
      for _, line in ipairs(l) do expect.contains(line, "denied") end
    end)

    it("grant directories as images below one, and not through links out of it", function()
      local dir = files.dir "images"
      assert(os.execute(("mkdir -p '%s/in' && ln -s / '%s/out'"):format(dir, dir)))
      local l = lines(run({ "--allow-dir-image", dir }, ([[
        try { image = "dir:%s/out" }
        try { image = "dir:%s/../.." }
        try { image = "dir:%s/in" }
      ]]):format(dir, dir, dir)))
      expect.contains(l[1], "denied")
      expect.contains(l[2], "denied")
      expect.lacks(l[3], "denied")
    end)

    it("come from a configuration file too; the command line goes over it", function()
      local config = files.write(files.dir "config" .. "/c.lua", [[
        local mib = 256
        return { max_memory = mib, max_timeout = "20s", env = { "A=1" }, max_sandboxes = 1 }
      ]])
      local l = lines(run({ "--config", config, "--max-timeout", "30s", "--env", "B=2" }, [[
        try {}
        print(env "A", env "B")
      ]]))
      assert.equal("ok\t1\t256\t1024\t30", l[1])
      assert.equal("1\t2", l[2])
      local home = files.dir "home"
      assert(os.execute(("mkdir -p '%s/regolith'"):format(home)))
      files.write(home .. "/regolith/config.lua", "return { max_memory = 128 }")
      l = lines(run({}, "try {}", { env = proc.env { XDG_CONFIG_HOME = home } }))
      assert.equal("ok\t1\t128\t1024\t300", l[1])
    end)

    it("of the profile trusted are what the user may do", function()
      local env = proc.env { MINE = "yes", XDG_STATE_HOME = files.dir "state" }
      local l = lines(run({ "--profile", "trusted" }, [[
        try { network = "open" }
        try { volumes = { { source = "data", target = "/data" } } }
        print(env "MINE", io.type(io.open "/etc/passwd"))
      ]], { env = env }))
      expect.lacks(l[1], "denied")
      expect.lacks(l[2], "denied")
      assert.equal("yes\tfile", l[3])
    end)

    it("bound what a script may spend by itself", function()
      local l = lines(run({}, [[
        budget { sandboxes = 2, seconds = 500 }
        try { timeout = 300 }
        try { timeout = 501 }
        try { timeout = 300 }
        try {}
        print(pcall(budget, { dollars = 1 }))
        print(pcall(budget, { usd = "lots" }))
        print(pcall(budget))
      ]]))
      expect.contains(l[1], "ok")
      expect.contains(l[2], "budget_exceeded\tseconds")
      expect.contains(l[3], "ok")
      expect.contains(l[4], "budget_exceeded\tsandboxes")
      for i = 5, 7 do expect.contains(l[i], "invalid_argument") end
    end)

    it("slow a script down that asks for more operations than it may", function()
      local r = run({ "--max-ops", "50/s" }, [[
        local task = require "task"
        local began = task.now()
        for i = 1, 100 do sandbox.engines() end
        print(task.now() - began > 0.9)
      ]])
      assert.equal("true\n", r.stdout)
    end)
  end)
end

describe("a configuration file with a mistake", function()
  after_each(files.clean)

  for _, case in ipairs {
    { 'return { max_memory = "big" }', "max_memory", "big" },
    { "return { max_memry = 1 }", "max_memry", "max_memory" },
    { "return 5", "table" },
    { "return { 1, 2 }", "named settings" },
    { "x.y = 1", ":1:" },
    { "syntax error", ":1:" },
    { 'return { allow_image = { "a", 5 } }', "allow_image[2]", "5" },
    { "while true do end", "too long" },
    { "return { env = function() end }", "env", "function" },
    { 'return { http_secret = { ["a.example.com"] = "NOT_SET" } }', "http_secret", "NOT_SET" },
    { 'return { profile = "god" }', "profile", "god" },
    { 'return { allow_read = "/does/not/exist" }', "allow_read", "/does/not/exist" },
    { 'return { allow_http = "http://a.example.com" }', "allow_http", "not a host" },
    { "local t = {} for i = 1, 1e9 do t[i] = { i } end", "" },
    { "os.exit(3)", "os" },
  } do
    it("is refused: " .. case[1], function()
      local path = files.write(files.dir "config" .. "/mine.lua", case[1])
      local r = proc.cli { "run", "--config", path, files.script("a.lua", "print 'ran'") }
      assert.equal(2, r.status)
      assert.equal("", r.stdout)
      expect.contains(r.stderr, "mine.lua")
      for i = 2, #case do expect.contains(r.stderr, case[i]) end
    end)
  end
end)

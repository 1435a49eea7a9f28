-- http.request against a real server on this machine, from both kinds of script.
local json = require "json"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

local TRY = [[
local port = args[1]
local base = "http://127.0.0.1:" .. port
local function try(t)
  local ok, r = pcall(http.request, t)
  print(ok and r.status or (r.code .. " " .. r.message .. " " .. (r.hint or "")))
  return r
end
]]

for _, mode in ipairs { "workers", "in process" } do
  describe("http.request of scripts (" .. mode .. ")", function()
    local before, server, port
    before_each(function()
      before = leftovers.before()
      server = proc.start({ "python3", "spec/support/server.py" }, { stdin = true })
      port = server:expect "(%d+)\n"
    end)
    after_each(function()
      server:close_stdin()
      server:wait(5)
      files.clean()
      leftovers.none_since(before, 5)
    end)

    local function run(options, text, opts)
      local argv = { "run", table.unpack(options) }
      if mode == "in process" then argv[#argv + 1] = "--trust" end
      table.move({ files.script("h.lua", TRY .. text), "--", port }, 1, 3, #argv + 1, argv)
      return proc.cli(argv, opts)
    end

    local function lines(r)
      assert.equal(0, r.status, r.stderr)
      local out = {}
      for line in r.stdout:gmatch "([^\n]*)\n" do out[#out + 1] = line end
      return out
    end

    it("sends method, headers and body, and gives status, headers and body", function()
      local l = lines(run({ "--allow-http", "127.0.0.1" }, [[
        local r = http.request { url = base .. "/echo?q=1", method = "post", body = "a\tb",
          headers = { ["X-One"] = "1", ["X-Empty"] = "" } }
        print(r.status, r.headers["content-type"])
        print(r.body)
        print(json.encode(http.request { url = base .. "/cookies" }.headers))
        print(http.request { url = base .. "/status/503" }.status)
        local h = http.request { url = base .. "/big?100", method = "HEAD" }
        print(h.status, h.headers["content-length"], #h.body)
      ]]))
      assert.equal("200\tapplication/json", l[1])
      local seen = json.decode(l[2])
      assert.equal("POST", seen.method)
      assert.equal("/echo?q=1", seen.path)
      assert.equal("a\tb", seen.body)
      assert.equal("1", seen.headers["x-one"])
      assert.equal("", seen.headers["x-empty"])
      assert.is_nil(seen.headers["content-type"])
      local h = json.decode(l[3])
      assert.equal("1, 2", h["x-many"])
      assert.equal("a=1, x\nb=2", h["set-cookie"])
      assert.equal("503", l[4])
      assert.equal("200\t100\t0", l[5])
    end)

    it("is denied without a grant, and says which option grants it", function()
      local l = lines(run({}, [[try { url = base .. "/echo" }]]))
      expect.contains(l[1], "denied")
      expect.contains(l[1], "--allow-http 127.0.0.1")
      l = lines(run({ "--allow-http", "*.example.com", "--allow-http", "127.0.0.1:1" }, [[
        try { url = base }
        try { url = "http://example.com/" }
        try { url = "http://evil-example.com/" }
        try { url = "http://example.com.evil.test/" }
      ]]))
      assert.equal(4, #l)
      for _, line in ipairs(l) do expect.contains(line, "denied") end
    end)

    it("does not let a granted name lead to this machine", function()
      local l = lines(run({ "--allow-http", "*" }, [[
        try { url = "http://localhost:" .. port .. "/echo" }
        try { url = base .. "/echo" }
        try { url = "http://2130706433:" .. port .. "/echo" }
        try { url = "http://0x7f.1:" .. port .. "/echo" }
        try { url = "http://[::ffff:127.0.0.1]:" .. port .. "/echo" }
      ]]))
      assert.equal(5, #l)
      for _, line in ipairs(l) do
        expect.contains(line, "denied")
        expect.contains(line, "--allow-http 127.0.0.1:" .. port)
      end
    end)

    it("follows redirects to granted hosts only", function()
      local l = lines(run({ "--allow-http", "127.0.0.1" }, [[
        local r = http.request { url = base .. "/to?/echo", method = "POST", body = "x",
          headers = { Authorization = "mine" } }
        print(r.body)
        print(http.request { url = base .. "/to307?/echo", method = "POST", body = "x" }.body)
        try { url = base .. "/to?http://127.0.0.2:" .. port .. "/echo" }
        try { url = base .. "/to?file:///etc/passwd" }
        try { url = base .. "/to?/to?/to?/to?/to?/to?/to?/to" }
      ]]))
      local seen = json.decode(l[1])
      assert.equal("GET", seen.method)
      assert.equal("", seen.body)
      assert.equal("mine", seen.headers.authorization)
      seen = json.decode(l[2])
      assert.equal("POST", seen.method)
      assert.equal("x", seen.body)
      expect.contains(l[3], "denied")
      expect.contains(l[3], "--allow-http 127.0.0.2")
      expect.contains(l[4], "http")
      expect.lacks(l[4], "root:")
    end)

    it("keeps a script's credentials from other hosts", function()
      local l = lines(run({ "--allow-http", "127.0.0.1", "--allow-http", "127.0.0.2" }, [[
        local there = base .. "/to?http://127.0.0.2:" .. port .. "/echo"
        local ok, r = pcall(http.request, { url = there,
          headers = { Authorization = "mine", Cookie = "c", ["X-Other"] = "stays" } })
        print(ok and r.body or r.code)
      ]]))
      -- The server listens on 127.0.0.1 alone: the second hop was allowed, and refused there.
      assert.equal("engine_unavailable", l[1])
    end)

    it("adds a secret that the script never sees", function()
      local r = run({ "--json", "--http-secret", "127.0.0.1=THE_TOKEN" }, [[
        print(tostring(env "THE_TOKEN") .. tostring(os.getenv "THE_TOKEN"))
        local got = http.request { url = base .. "/echo", headers = { Authorization = "mine" } }
        print(json.decode(got.body).headers.authorization == "Bearer " .. ("s3"):rep(4))
        try { url = base .. "/cut" }
        try { url = base .. "/big?17000000" }
        try { url = "http://127.0.0.2:1/" }
      ]], { env = proc.env { THE_TOKEN = "s3s3s3s3" } })
      assert.equal(0, r.status, r.stderr)
      expect.contains(r.stdout, "nilnil")
      expect.contains(r.stdout, "true")
      expect.lacks(r.stdout, "s3s3")
      expect.lacks(r.stderr, "s3s3")
    end)

    it("bounds answers, time and what may be asked", function()
      local l = lines(run({ "--allow-http", "127.0.0.1" }, [[
        try { url = base .. "/big?17000000" }
        try { url = base .. "/slow?5", timeout = "200ms" }
        try { url = base .. "/drip", timeout = 0.3 }
        try { url = base .. "/cut" }
        try { url = base, headers = { Host = "other" } }
        try { url = base, headers = { ["X-Y"] = "a\r\nb: c" } }
        try { url = base, headers = { ["X Y"] = "a" } }
        try { url = base, method = "CONNECT" }
        try { url = base, method = "GET / HTTP/1.1\r\n" }
        try { url = "ftp://127.0.0.1/" }
        try { url = "http://a:b@127.0.0.1/" }
        try { url = "nothing" }
        try {}
        try { url = base, metod = "x" }
        print(#http.request { url = base .. "/big?16777216" }.body)
      ]]))
      expect.contains(l[1], "payload_too_large")
      expect.contains(l[2], "timeout")
      expect.contains(l[3], "timeout")
      expect.contains(l[4], "engine_unavailable")
      for i = 5, 14 do expect.contains(l[i], "invalid_argument") end
      assert.equal("16777216", l[15])
    end)

    it("is cancelled with its task, and with its script", function()
      local l = lines(run({ "--allow-http", "127.0.0.1" }, [[
        local task = require "task"
        local began = task.now()
        local ok, e = pcall(task.timeout, 0.2, http.request, { url = base .. "/drip" })
        print(ok, e.code, task.now() - began < 2)
        print(http.request { url = base .. "/status/200" }.status)
        local t = task.spawn(http.request, { url = base .. "/drip" })
        task.sleep(0.1)
        t:cancel()
        print(pcall(t.wait, t))
      ]]))
      assert.equal("false\ttimeout\ttrue", l[1])
      assert.equal("200", l[2])
      expect.contains(l[3], "false")
      local r = run({ "--allow-http", "127.0.0.1", "--timeout", "300ms" },
        [[http.request { url = base .. "/drip" }]])
      assert.equal(124, r.status)
      assert.is_true(r.duration_ms < 4000)
    end)
  end)
end

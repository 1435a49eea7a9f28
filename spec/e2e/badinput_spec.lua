-- What is wrong gets one error that names the field, the value and the remedy, on stderr, with the
-- place in the script, and no internals of ours.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

-- A call, and what stderr must hold.
local CALLS = {
  { 'sandbox.create { timout = 5 }', "timout", "timeout" },
  { 'sandbox.create { memroy = "1GiB" }', "memroy", "memory" },
  { 'sandbox.create { Timeout = 5 }', "Timeout", "timeout" },
  { 'sandbox.create { timeout = "soon" }', "timeout", "soon" },
  { 'sandbox.create { timeout = 1.5 }', "timeout", "1.5", "whole" },
  { 'sandbox.create { timeout = 0 }', "timeout", "0", "86400" },
  { 'sandbox.create { timeout = 86401 }', "timeout", "86401", "86400" },
  { 'sandbox.create { timeout = {} }', "timeout", "table" },
  { 'sandbox.create { timeout = true }', "timeout", "true" },
  { 'sandbox.create { memory = 64 }', "memory", "64", "128" },
  { 'sandbox.create { memory = "64 bananas" }', "memory", "64 bananas" },
  { 'sandbox.create { cpu = 0 }', "cpu", "0", "0.125" },
  { 'sandbox.create { cpu = -1 }', "cpu", "-1" },
  { 'sandbox.create { idle_timeout = -5 }', "idle_timeout", "-5" },
  { 'sandbox.create { disk = "huge" }', "disk", "huge" },
  { 'sandbox.create { pids = 0 }', "pids", "0" },
  { 'sandbox.create { image = 7 }', "image", "7" },
  { 'sandbox.create { image = "no such:image" }', "image", "no such:image" },
  { 'sandbox.create { engine = "lcoal" }', "engine", "lcoal", "local" },
  { 'sandbox.create { gpu = "GTX" }', "gpu", "GTX", "T4" },
  { 'sandbox.create { gpu = "T4" }', "gpu", "T4" },
  { 'sandbox.create { network = "some" }', "network", "some", "none" },
  { 'sandbox.create { network = "open" }', "network", "open" },
  { 'sandbox.create { unencrypted_ports = { 70000 } }', "unencrypted_ports", "70000", "65535" },
  { 'sandbox.create { volumes = { { source = "a" } } }', "volumes" },
  { 'sandbox.create { tags = { 1, 2 } }', "tags" },
  { 'sandbox.create { tags = "x" }', "tags", "x" },
  { 'sandbox.create { env = { [1] = "x" } }', "env" },
  { 'sandbox.create { env = { ["A=B"] = "x" } }', "env", "A=B" },
  { 'sandbox.create { user = 1.5 }', "user", "1.5" },
  { 'sandbox.create "host"', "table" },
  { 'sandbox.create { "host" }', "named fields" },
  { 'sandbox.get "sb_nothinghere"', "sb_nothinghere" },
  { 'sandbox.get()', "id" },
  { 'sandbox.list { tag = {} }', "tag", "tags" },
  { 'sandbox.crate {}', "crate" },
  { 'sb:exec { "true", timout = 1 }', "timout", "timeout" },
  { 'sb:exec({ "true" }, { on_stdot = print })', "on_stdot", "on_stdout" },
  { 'sb:exec()', "command" },
  { 'sb:exec {}', "command" },
  { 'sb:exec { "a\\0b" }', "NUL" },
  { 'sb:exec { "true", cwd = "/not/there" }', "cwd", "/not/there" },
  { 'sb:exec { "true", user = "nobody-here" }', "user", "nobody-here" },
  { 'sb:exec { "true", timeout = -1 }', "timeout", "-1" },
  { 'sb:exec { "true", max_output = "many" }', "max_output", "many" },
  { 'sb:exec { "true", on_overflow = "burst" }', "on_overflow", "burst", "truncate" },
  { 'sb:exec { "true", env = "A=1" }', "env" },
  { 'sb:exce { "true" }', "exce" },
  { 'sb.exec { "true" }', "sb:exec" },
  { 'sb:extend "x"', "seconds", "x" },
  { 'task.sleep "soon"', "soon" },
  { 'task.sleep(-1)', "-1" },
  { 'task.spawn(5)', "function" },
  { 'task.map({}, { limt = 1 }, print)', "limt", "limit" },
  { 'task.map({}, { limit = 0 }, print)', "limit", "0" },
  { 'task.group { deadline = "x" }', "deadline", "x" },
  { 'task.race {}', "function" },
  { 'task.spwan(print)', "spwan" },
  { 'retry(print, { maks = 1 })', "maks", "max" },
  { 'retry(print, { max = 0 })', "max", "0" },
  { 'retry(5)', "function" },
  { 'on_exit "x"', "function" },
  { 'json.decode "{"', "JSON" },
  { 'json.encode(print)', "function" },
  { 'os.execute "ls"', "os.execute", "exec" },
  { 'io.popen "ls"', "io.popen", "sandbox" },
  { 'assert(io.open "/etc/passwd")', "/etc/passwd", "granted" },
  { 'debug.traceback()', "debug" },
  { 'assert(load("\\27Lua"))', "text" },
  { 'require "no.such.module"', "no.such.module" },
  { 'setmetatable({}, { __gc = print })', "__gc" },
}

describe("bad input in a script", function()
  local before
  setup(function() before = leftovers.before() end)
  teardown(function()
    files.clean()
    leftovers.none_since(before, 5)
  end)

  -- One run for all of them: each call is caught and printed with what a user would see of it.
  it("gets an error that names field, value and remedy, for each call", function()
    local text = { [[
      local sandbox, task, json = require "sandbox", require "task", require "json"
      local sb <close> = sandbox.create {}
      local function try(n, fn)
        local ok, e = pcall(fn)
        print(("@%d %s"):format(n, ok and "NO ERROR" or tostring(e)))
        if not ok and type(e) == "table" and e.hint then print(e.hint) end
      end
    ]] }
    for n, case in ipairs(CALLS) do
      text[#text + 1] = ("try(%d, function() return %s end)"):format(n, case[1])
    end
    local r = proc.cli { "run", files.script("bad.lua", table.concat(text, "\n")) }
    assert.equal("", r.stderr)
    assert.equal(0, r.status)
    local answers = {}
    for n, answer in (r.stdout
      .. "@"):gmatch "@(%d+) (.-)%f[@]" do answers[tonumber(n)] = answer end
    local faults = {}
    for n, case in ipairs(CALLS) do
      local answer = answers[n] or "nothing"
      if answer:find "^NO ERROR" then
        faults[#faults + 1] = case[1] .. " raised nothing"
      end
      for i = 2, #case do
        if not answer:find(case[i], 1, true) then
          faults[#faults + 1] = ("%s\n    lacks \"%s\": %s"):format(case[1], case[i], answer)
        end
      end
    end
    if #faults > 0 then error("\n" .. table.concat(faults, "\n"), 0) end
  end)

  it("that nobody catches is shown once, with its place, and the run fails", function()
    for _, case in ipairs { CALLS[1], CALLS[4], CALLS[10], CALLS[19] } do
      local r = proc.cli { "run", files.script("bad.lua",
        'local sandbox = require "sandbox"\n\n' .. case[1] .. "\n") }
      assert.equal(1, r.status)
      assert.equal("", r.stdout)
      for i = 2, #case do expect.contains(r.stderr, case[i]) end
      expect.contains(r.stderr, "bad.lua:3")
      expect.lacks(r.stderr, "[C]")
      local _, times = r.stderr:gsub("invalid_argument", "")
      assert.is_true(times <= 1, r.stderr)
    end
  end)
end)

describe("a script that cannot be run", function()
  after_each(files.clean)

  local function fails(status, args, ...)
    local r = proc.cli(args)
    assert.equal(status, r.status, r.stderr)
    assert.equal("", r.stdout)
    for _, part in ipairs { ... } do expect.contains(r.stderr, part) end
    local _, lines = r.stderr:gsub("\n", "")
    assert.is_true(lines <= 6, "too many words:\n" .. r.stderr)
    return r
  end

  it("is named when it is not there, is a directory or cannot be read", function()
    fails(2, { "run", "/no/such/script.lua" }, "/no/such/script.lua", "No such file")
    local dir = files.dir "adir"
    fails(2, { "run", dir }, dir, "directory")
  end)

  it("has its syntax error shown with file and line, before anything runs", function()
    local path = files.script("syn.lua", "print 'early'\nlocal x = = 5\n")
    fails(1, { "run", path }, "syn.lua:2", "'='")
    local other = files.script("good.lua", "print 'should not run'")
    local r = proc.cli { "run", other, path }
    assert.is_true(r.status ~= 0)
  end)

  it("is not taken for text when it is bytecode", function()
    local path = files.script("byte.lua", string.dump(function() print "ran" end))
    fails(1, { "run", path }, "text")
  end)

  it("may be empty, and may have a byte order mark or Windows line ends", function()
    assert.equal(0, proc.cli({ "run", files.script("empty.lua", "") }).status)
    local r = proc.cli { "run", files.script("bom.lua", "\239\187\191print 'bom'") }
    assert.equal("bom\n", r.stdout)
    r = proc.cli { "run", files.script("crlf.lua", "print 'a'\r\nprint 'b'\r\n") }
    assert.equal("a\nb\n", r.stdout)
  end)

  it("is a usage error when there is none", function()
    local r = proc.cli { "run" }
    assert.equal(2, r.status)
    expect.contains(r.stderr, "script")
  end)

  it("can come from a pipe", function()
    local r = proc.cli({ "run", "/dev/stdin" }, { stdin = "print 'piped'" })
    assert.equal("piped\n", r.stdout)
    assert.equal(0, r.status)
  end)
end)

describe("unknown options", function()
  it("are named with the one that was meant, by every command", function()
    for _, case in ipairs {
      { { "run", "--memroy", "1GiB", "x.lua" }, "--memroy", "--memory" },
      { { "exec", "--timout", "5s", "--", "true" }, "--timout", "--timeout" },
      { { "doctor", "--jsn" }, "--jsn", "--json" },
      { { "run", "-Z", "x.lua" }, "-Z" },
      { { "check", "--quite", "x.lua" }, "--quite" },
      { { "api", "--wat" }, "--wat" },
    } do
      local r = proc.cli(case[1])
      assert.is_truthy(r.status == 2 or r.status == 125, case[2] .. " gave " .. tostring(r.status))
      assert.equal("", r.stdout)
      for i = 2, #case do expect.contains(r.stderr, case[i]) end
    end
  end)
end)

-- regolith check: what it finds, where it says it is, and what it leaves alone.
local files = require "spec.support.files"
local proc = require "spec.support.proc"

describe("regolith check", function()
  local dir
  before_each(function() dir = files.dir "check" end)
  after_each(files.clean)

  --- Exit status and the findings without the file's name.
  local function check(text)
    local path = files.write(dir .. "/s.lua", text)
    local r = proc.cli { "check", path }
    assert.equal("", r.stderr)
    return r.status, (r.stdout:gsub(path:gsub("%p", "%%%0") .. ":", ""))
  end

  local function finds(text, want)
    local status, out = check(text)
    assert.equal(want:find "error" and 1 or 0, status, out)
    assert.equal(want .. "\n", out)
  end

  local function is_fine(text)
    local status, out = check(text)
    assert.equal("", out)
    assert.equal(0, status)
  end

  local HEAD <const> = 'local sandbox = require "sandbox"\n'

  for _, case in ipairs {
    { "local x = = 1", "1:11: error: an expression is expected near '='" },
    { "print('a\n')", "1:7: error: unfinished string" },
    { "print('\\q')", "1:7: error: invalid escape sequence in a string" },
    { "if true then\nprint(1)",
      "2:9: error: 'end' expected (to close 'if' at line 1) near end of the script" },
    { "goto nowhere", "1:1: error: no visible label 'nowhere' for goto at line 1" },
    { "local x <const> = 1\nx = 2", "2:1: error: attempt to assign to const variable 'x'" },
    { "return 1 print(2)", "1:10: error: 'end' expected near 'print'" },
    { "pritn(1)", '1:1: error: unknown global "pritn", did you mean "print"?' },
    { "print(os.exit)", "1:10: error: os.exit is not available in scripts: return from the "
      .. "script, or raise an error()" },
    { "debug.traceback()", "1:1: error: debug is not available in scripts: errors carry "
      .. "tracebacks; use log and print" },
    { "string.fnid('a', 'b')", '1:8: error: string has no "fnid", did you mean "find"?' },
    { "counter = 1", "1:1: warning: sets the global counter; local counter is probably meant" },
    { HEAD .. "sandbox.craete()", '2:9: error: sandbox has no "craete", did you mean "create"?' },
    { HEAD .. "sandbox.create { timout = 1 }",
      '2:18: error: unknown option "timout", did you mean "timeout"?' },
    { HEAD .. "sandbox.create { memory = 64 }",
      "2:27: error: memory must be at least 128, not 64" },
    { HEAD .. "sandbox.create { timeout = 1.5 }",
      "2:28: error: timeout must be a whole number, not 1.5" },
    { HEAD .. "sandbox.create { timeout = '2d' }", "2:28: error: timeout must be a duration "
      .. '(seconds, or "250ms", "90s", "5m", "2h"), not "2d"' },
    { HEAD .. "sandbox.create { network = 'opne' }",
      '2:28: error: network must be "none" or "open" or a table, not "opne"' },
    { HEAD .. "sandbox.create { env = { A = 1 } }",
      "2:30: error: env.A must be a string, not 1" },
    { HEAD .. "sandbox.create { ready = {} }", "2:26: error: tcp is missing" },
    { HEAD .. "sandbox.get()", "2:9: error: sandbox.get needs id" },
    { HEAD .. "local sb = sandbox.create()\nsb.exec('ls')",
      "3:4: error: call it with a colon: sb:exec(…)" },
    { HEAD .. "local sb = sandbox.create()\nsb:exce 'ls'",
      '3:4: error: a sandbox has no "exce", did you mean "exec"?' },
    { HEAD .. "local sb = sandbox.create()\nlocal r = sb:exec 'ls'\nprint(r.exitcode)",
      '4:9: error: a result has no "exitcode", did you mean "exit_code"?' },
    { HEAD .. "local function f()\n  local sb = sandbox.create()\n  sb:exec 'ls'\nend\nf()",
      "3:22: warning: the sandbox in sb lives until the script ends: local sb <close> = … ends "
      .. "it with the block" },
    { "task.sleep()", "1:6: error: task.sleep needs duration" },
    { "task.map({}, { limit = 0 }, print)", "1:24: error: limit must be at least 1, not 0" },
  } do
    it("finds: " .. case[2]:sub(1, 60), function() finds(case[1], case[2]) end)
  end

  for name, text in pairs {
    ["values that only differ in form"] =
      HEAD .. 'sandbox.create { timeout = "5m", memory = "2GiB", cpu = "0.5", gpu = "t4:2" }',
    ["options that are not literal"] = HEAD .. "local o = { x = 1 }\nsandbox.create(o)",
    ["all forms of exec"] = HEAD .. "local sb = sandbox.create()\nsb:exec 'ls'\nsb:exec { 'ls', 1,"
      .. " timeout = 5 }\nsb:exec({ 'ls' }, { check = true })\nprint(pcall(sb.exec, sb, 'ls'))",
    ["sandboxes that are handed on"] = HEAD .. "local function f()\n  local sb = "
      .. "sandbox.create()\n  return sb\nend\nlocal function g()\n  local sb = sandbox.create()\n"
      .. "  sb:terminate()\nend\nf()\ng()",
    ["locals that hide the API"] = "local task = { foo = 1 }\nprint(task.foo)",
    ["members that the script adds"] = HEAD .. "sandbox.mine = 1\nprint(sandbox.mine)",
    ["a first line for the shell"] = "#!/usr/bin/env -S regolith run\nprint(args[1])",
    ["every kind of token"] = "local a <const> = 0x1p4 + 1e3 // 2 ~ 3 >> 1\nlocal s = [==[ ]] ]==]"
      .. "\n--[[ long\n]] goto done\n::done:: print(a, s, 'x\\z  \n y\\x41\\u{7E}', ...)",
  } do
    it("leaves alone " .. name, function() is_fine(text) end)
  end

  it("gives JSON to programs", function()
    local path = files.write(dir .. "/s.lua", "pritn(1)")
    local r = proc.cli { "check", "--json", path }
    assert.equal(1, r.status)
    local list = json.decode(r.stdout)
    assert.equal(1, #list)
    assert.equal("error", list[1].kind)
    assert.equal(1, list[1].line)
    assert.equal(path, list[1].file)
  end)

  it("answers 2 for a file that is not there", function()
    local r = proc.cli { "check", dir .. "/none.lua" }
    assert.equal(2, r.status)
    assert.is_truthy(r.stderr:find("none.lua", 1, true))
  end)

  it("reads hostile text as an ordinary mistake, in little time", function()
    for _, text in ipairs {
      ("("):rep(100000), ("{"):rep(100000), "x = " .. ("not "):rep(100000) .. "1",
      ("f("):rep(5000), "local x = 1 " .. ("x = x "):rep(20000), ("do "):rep(100000),
    } do
      local path = files.write(dir .. "/s.lua", text)
      local r = proc.cli({ "check", path }, { timeout = 20 })
      assert.is_true(r.status == 0 or r.status == 1, r.stderr)
    end
  end)
end)

describe("regolith api", function()
  after_each(files.clean)

  it("has a page for everything it lists, none wider than a screen", function()
    local names = {}
    for name in proc.cli({ "api" }).stdout:gmatch "\n  ([%w_:%.]+)" do names[#names + 1] = name end
    assert.is_true(#names > 50)
    for _, name in ipairs(names) do
      local r = proc.cli { "api", name }
      assert.equal(0, r.status, name)
      for line in r.stdout:gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 100, line) end
    end
  end)

  it("says what sandbox really has, and nothing else", function()
    local listed = {}
    for name in proc.cli({ "api" }).stdout:gmatch "\n  sandbox%.([%w_]+)" do listed[name] = true end
    local path = files.script("names.lua", [[
      local sandbox = require "sandbox"
      for name in pairs(sandbox) do print(name) end
    ]])
    local r = proc.cli { "run", path }
    for name in r.stdout:gmatch "%S+" do
      assert.is_true(listed[name], name .. " is missing")
      listed[name] = nil
    end
    assert.is_nil(next(listed))
  end)
end)

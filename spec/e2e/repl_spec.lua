-- The repl: by -e, from a pipe, and on a real terminal (script(1) makes one), where lines are
-- edited, remembered, completed and interrupted.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

local function eval(...)
  local args = { "repl" }
  for _, code in ipairs { ... } do
    args[#args + 1] = "-e"
    args[#args + 1] = code
  end
  return proc.cli(args)
end

local function pipe(text, opts)
  opts = opts or {}
  opts.stdin = text
  return proc.cli({ "repl", table.unpack(opts.args or {}) }, opts)
end

describe("the repl", function()
  local before, running
  before_each(function() before = leftovers.before() end)
  after_each(function()
    if running and not running:ended() then running:kill("HUP", true) end
    running = nil
    files.clean()
    leftovers.none_since(before, 5)
  end)

  describe("shows values", function()
    local function shows(want, code)
      local r = eval(code)
      assert.equal("", r.stderr)
      assert.equal(0, r.status)
      assert.equal(want .. "\n", r.stdout)
    end

    it("as one would write them", function()
      shows("2", "1 + 1")
      shows('"a\\n\\"b\\"\\027\\\\"', [['a\n"b"\27\\']])
      shows('1\nnil\n"x"', '1, nil, "x"')
      shows('{ 1, 2, [2.5] = 0, a = { true }, ["end"] = 3, ["x y"] = 4, [true] = 1 }',
        '{ 1, 2, a = { true }, ["x y"] = 4, [2.5] = 0, [true] = 1, ["end"] = 3 }')
      shows("null", "json.null")
      shows("{}", "{}")
    end)

    it("in lines of their own when they are long, and cut when they are endless", function()
      shows('{\n  alpha = "' .. ("x"):rep(40) .. '",\n  beta = "' .. ("y"):rep(40) .. '"\n}',
        '{ alpha = ("x"):rep(40), beta = ("y"):rep(40) }')
      shows("{ me = (the same again) }", "(function() local t = {} t.me = t return t end)()")
      shows("{ { { { {…} } } } }", "{ { { { { 1 } } } } }")
      local r = eval "(function() local t = {} for i = 1, 1000 do t[i] = i end return t end)()"
      expect.contains(r.stdout, "… 900 more")
      r = eval '{ ("x"):rep(10000) }'
      assert.is_true(#r.stdout < 500)
      expect.contains(r.stdout, "(10000 bytes)")
    end)

    it("by their __tostring, with what is in them, and runs nothing else of theirs", function()
      shows("T { a = 1 }", 'setmetatable({ a = 1 }, { __tostring = function() return "T" end,'
        .. '__index = error, __pairs = error, __len = error })')
      shows("(its __tostring fails) { 1 }", "setmetatable({ 1 }, { __tostring = error })")
    end)

    it("of sandboxes and commands", function()
      local r = eval("sb = sandbox.create {}", "sb", 'sb:exec "echo hi; exit 3"',
        "task.map({ 1, 2 }, {}, function(i) task.sleep(0.01) return i * 2 end)")
      assert.equal("", r.stderr)
      expect.contains(r.stdout, "sandbox sb_")
      expect.contains(r.stdout, 'image = "host"')
      expect.contains(r.stdout, "command exited with 3 {")
      expect.contains(r.stdout, 'stdout = "hi\\n"')
      expect.contains(r.stdout, "\n{ 2, 4 }\n")
    end)
  end)

  describe("from a pipe", function()
    it("runs inputs of any number of lines; globals stay", function()
      local r = pipe [[
x = 20
function f(n)
  return n +
    1
end
-- a comment

f(x)
=f(x)
for i = 1, 2 do
  print(i)
end
s = [=[a
b]=]
s
local l = 1 return l
l
nil]]
      assert.equal('21\n21\n1\n2\n"a\\nb"\n1\n', r.stdout)
      assert.equal("", r.stderr)
      assert.equal(0, r.status)
    end)

    it("goes on after errors, which have a place and a hint, and exits with 1", function()
      local r = pipe [[
error { code = "denied", message = "not you", hint = "ask" }
local function inner() local x; return x.y end
local function outer() inner() end outer()
function global() error "deep" end
global()
sandbox.create { gpuu = 1 }
) bad
print "still here"
]]
      assert.equal(1, r.status)
      assert.equal("still here\n", r.stdout)
      expect.contains(r.stderr, "denied: not you\n(ask)\n")
      expect.contains(r.stderr, "stdin:1: deep")
      expect.contains(r.stderr, "in global 'global'")
      expect.contains(r.stderr, 'did you mean "gpu"')
      expect.contains(r.stderr, "unexpected symbol near ')'")
      assert.equal(0, pipe "1 + 1\n".status)
      assert.equal(1, pipe "for i = 1, 2 do".status)
      assert.equal(0, pipe "".status)
    end)

    it("shares standard input with what it runs", function()
      assert.equal("one\n3\n", pipe("print(io.read())\none\n1 + 2\n").stdout)
    end)

    it("finds modules in the current folder, and what plugins bring", function()
      local dir = files.dir "cwd"
      files.write(dir .. "/mod.lua", "return { n = 7 }")
      local plugin = files.write(files.dir "p" .. "/p.lua",
        "return { tools = { double = function(n) return 2 * n end } }")
      local r = pipe('require("mod").n\nrequire("p").double(21)\n',
        { cwd = dir, args = { "--plugin", plugin } })
      assert.equal("7\n42\n", r.stdout, r.stderr)
    end)

    it("ends all sandboxes, also when it is interrupted", function()
      local p = proc.cli_start({ "repl" }, { stdin = true })
      p:write "sb = sandbox.create {} sb:exec 'sleep 1000 &'\nprint 'up'\ntask.sleep(100)\n"
      p:expect "up"
      p:kill("INT")
      local r = p:wait(10)
      assert.equal(130, r.status)
      expect.contains(r.stderr, "interrupted by SIGINT")
    end)
  end)

  it("takes no files", function()
    local r = proc.cli { "repl", "x.lua" }
    assert.equal(2, r.status)
    expect.contains(r.stderr, "regolith run x.lua")
  end)

  describe("on a terminal", function()
    local UP, LEFT, HOME = "\27[A", "\27[D", "\1"
    local CTRL_C, CTRL_D = "\3", "\4"
    -- exec: a shell that waits would die of a Ctrl-C that the repl handled (dash does), with 130.
    local COMMAND = "exec '%s' repl"
    local home

    before_each(function() home = files.dir "home" end)

    local function start(binary)
      local env = proc.env { TERM = "xterm", XDG_STATE_HOME = home .. "/state", HOME = home }
      local command = COMMAND:format(binary or proc.regolith)
      local p = proc.start({ "script", "-qfec", command, "/dev/null" },
        { stdin = true, env = env })
      running = p
      p:expect "> "
      return p
    end

    -- Types text and waits for what it leads to.
    local function type_in(p, text, pattern)
      local seen = #p:output()
      p:write(text)
      return expect.eventually(10, "to see " .. pattern, function()
        -- Without the movements of the cursor.
        return p:output():sub(seen + 1):gsub("\27%[[%d;?]*%a", ""):gsub("\r", ""):match(pattern)
      end)
    end

    -- Ctrl-D says nothing while the terminal is not the editor's: until it is, it is typed again.
    local function leave(p)
      local tries = 0
      repeat
        p:write(CTRL_D)
        tries = tries + 1
        require("task").sleep(0.2)
      until p:ended() or tries == 50
      local r = p:wait(10)
      running = nil
      assert.equal(0, r.status)
    end

    it("greets, edits lines, asks for more, and leaves by Ctrl-D", function()
      local p = start()
      p:expect "Tab completes"
      type_in(p, "13" .. LEFT .. "+" .. HOME .. "x\127" .. "4\n", "\n44\n") -- 41+3
      type_in(p, "for i = 1, 2 do\n", ">> ")
      type_in(p, "print('line ' .. i)\n", ">> ")
      type_in(p, "end\n", "line 1\nline 2\n")
      type_in(p, "'h\u{e9}' .. #'h\u{e9}'\n", '"h\u{e9}3"')
      leave(p)
    end)

    it("remembers lines, also the next time, for their owner alone", function()
      local p = start()
      type_in(p, "6 * 7\n", "\n42\n")
      type_in(p, "'second'\n", '\n"second"')
      type_in(p, UP .. UP .. "\n", "\n42\n")
      leave(p)
      local path = home .. "/state/regolith/history"
      assert.equal("6 * 7\n'second'\n6 * 7\n", files.read(path))
      assert.equal("rw-------", require("lfs").attributes(path, "permissions"))
      p = start()
      type_in(p, UP .. "+ 1\n", "\n43\n")
      type_in(p, "\18sec\n", '\n"second"')
      leave(p)
    end)

    it("keeps a history of bounded length", function()
      for _, dir in ipairs { "/state", "/state/regolith" } do require("lfs").mkdir(home .. dir) end
      local lines = {}
      for i = 1, 5000 do lines[i] = tostring(i) end
      local path = home .. "/state/regolith/history"
      files.write(path, table.concat(lines, "\n") .. "\n")
      local p = start()
      type_in(p, UP .. "\n", "\n5000\n")
      leave(p)
      local _, n = files.read(path):gsub("\n", "")
      assert.equal(1001, n)
    end)

    it("completes globals, fields, methods, keywords and modules", function()
      local p = start()
      type_in(p, "string.rep\tx\b", "rep")
      p:write "\21"
      type_in(p, "task.sl\t(0) or 'slept'\n", '\n"slept"')
      type_in(p, "t = { alpha = 1, alpine = 2, beta = { gamma = 33 } }\n", "> $")
      type_in(p, "t.be\t.ga\t\n", "\n33\n")
      type_in(p, "t.al\t", "t%.alp")
      type_in(p, "\t", "alpha +alpine")
      type_in(p, "h\t + 41\n", "\n42\n")
      type_in(p, "('x'):up\t()\n", '\n"X"')
      type_in(p, "require 'sand\t' == sandbox\n", "\ntrue")
      type_in(p, "repe\t", "repeat")
      p:write "\21"
      type_in(p, "sb = sandbox.create {}\n", "> $")
      type_in(p, "sb:ter\t() or sb.eng\t\n", '\n"local"')
      leave(p)
    end)

    it("completes without running anything", function()
      local p = start()
      type_in(p, "ran = 0\n", "> $")
      type_in(p, "t = setmetatable({}, { __index = function() ran = ran + 1 end })\n", "> $")
      type_in(p, "t.x.y\t", "t.x.y")
      type_in(p, "\21ran\n", "\n0\n")
      leave(p)
    end)

    it("drops the line by Ctrl-C, and stops what runs", function()
      local p = start()
      type_in(p, "no such line" .. CTRL_C, "\n> ")
      type_in(p, "for i = 1, 2 do\n", ">> ")
      type_in(p, CTRL_C, "\n> ")
      type_in(p, "x = 'kept'\n", "> $")
      p:write "task.sleep(100)\n"
      require("task").sleep(0.3)
      type_in(p, CTRL_C, "interrupted")
      p:write "while true do pcall(error) end\n"
      require("task").sleep(0.3)
      type_in(p, CTRL_C, "interrupted")
      type_in(p, "x\n", '\n"kept"')
      p:write "sb = sandbox.create {} r = sb:exec 'echo started; sleep 1000'\n"
      require("task").sleep(0.5)
      type_in(p, CTRL_C, "interrupted")
      type_in(p, "sb:exec('echo alive').stdout\n", '"alive\\n"')
      assert.is_nil(files.read(home .. "/state/regolith/history"):find "no such line")
      leave(p)
    end)

    it("ends by the third Ctrl-C where cleanup hangs, and gives the terminal back", function()
      local p = start()
      type_in(p, "hang = setmetatable({}, { __close = function() while true do end end })\n", "> $")
      p:write "do local x <close> = hang task.sleep(100) end\n"
      require("task").sleep(0.3)
      p:write(CTRL_C)
      require("task").sleep(0.2)
      type_in(p, CTRL_C, "once more leaves")
      p:write(CTRL_C)
      require("task").sleep(0.2)
      p:write(CTRL_C)
      running = nil
      assert.equal(130, p:wait(10).status)
    end)

    it("keeps the time of sandboxes while nobody types", function()
      local p = start()
      type_in(p, "sb = sandbox.create { timeout = 1 }\n", "> $")
      p:write "sb:status()."
      require("task").sleep(1.6)
      type_in(p, "reason\n", '\n"sandbox_timeout"')
      leave(p)
    end)

    it("works without the editor, and says so", function()
      local dir = files.dir "bare"
      os.execute(("cp '%s' '%s/regolith'"):format(proc.regolith, dir))
      local env = proc.env { TERM = "xterm", XDG_STATE_HOME = home .. "/state", HOME = home }
      local p = proc.start({ "script", "-qfec", COMMAND:format(dir .. "/regolith"), "/dev/null" },
        { stdin = true, env = env })
      p:expect "no line editing: this installation lacks its part"
      type_in(p, "6 * 7\n", "\n42\n")
      leave(p)
    end)
  end)
end)

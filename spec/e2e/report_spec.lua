-- What a run leaves to look at: --report as JSON and as a page, seen in a real browser; and ps.
local json = require "json"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local task = require "task"

local FANOUT = [[
  local sandbox = require "sandbox"
  local list = {}
  for i = 1, 50 do list[i] = i end
  task.map(list, { limit = 10 }, function(i)
    local sb <close> = sandbox.create { timeout = 60 }
    sb:exec { "sh", "-c", "echo '</script><b>&'; exit " .. (i % 10 == 0 and 3 or 0) }
    if i == 7 then sb:exec({ "sleep", "60" }, { timeout = 0.1 }) end
  end)
]]

local function count(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

describe("a run", function()
  local before, dir
  before_each(function()
    before = leftovers.before()
    dir = files.dir()
  end)
  after_each(function()
    files.clean()
    leftovers.none_since(before, 5)
  end)

  for _, mode in ipairs { "--jobs=200", "--trust" } do
    it("keeps its events as JSON (" .. mode .. ")", function()
      files.write(dir .. "/fan.lua", FANOUT)
      local r = proc.cli { "run", mode, "--report", dir .. "/r.json", dir .. "/fan.lua" }
      assert.equal(0, r.status, r.stderr)
      local tally = {}
      for _, e in ipairs(json.decode(files.read(dir .. "/r.json")).events) do
        tally[e.event] = (tally[e.event] or 0) + 1
        assert.is_truthy(e.time:match "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$")
      end
      assert.equal(1, tally.script_started)
      assert.equal(1, tally.script_ended)
      assert.equal(50, tally.sandbox_created)
      assert.equal(50, tally.sandbox_ended)
      assert.equal(51, tally.exec_started)
      assert.equal(51, tally.exec_done)
      assert.equal(tally.task_started, tally.task_ended)
      assert.equal(1, tally.run_ended)
    end)
  end

  it("shows 50 sandboxes on a page, in a browser", function()
    if proc.run({ "sh", "-c", "command -v chromium" }).status ~= 0 then
      return pending "chromium is not installed"
    end
    files.write(dir .. "/fan.lua", FANOUT)
    local r = proc.cli { "run", "--report", dir .. "/r.html", dir .. "/fan.lua" }
    assert.equal(0, r.status, r.stderr)
    local browser = { "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
      "--disable-sync", "--disable-background-networking", "--disable-component-update",
      "--user-data-dir=" .. dir .. "/profile" }
    local page = "file://" .. dir .. "/r.html"
    local function look(...)
      local argv = { table.unpack(browser) }
      for _, a in ipairs { ... } do argv[#argv + 1] = a end
      argv[#argv + 1] = page
      local here = {}
      for _, name in ipairs { "HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME" } do
        here[name] = dir
      end
      return proc.run(argv, { timeout = 60, env = proc.env(here) })
    end
    local dom = look("--dump-dom").stdout
    expect.contains(dom, 'data-ready="true"')
    assert.equal(50, count(dom, 'data%-kind="sandbox"'))
    assert.equal(51, count(dom, 'data%-kind="exec"'))
    assert.equal(5, count(dom, 'class="bar bad"'))
    assert.equal(1, count(dom, 'class="bar cut"'))
    assert.equal(0, count(dom, "<b>&"), "what a command prints must not become markup")
    look("--window-size=1200,900", "--screenshot=" .. dir .. "/page.png")
    assert.equal("\137PNG", files.read(dir .. "/page.png"):sub(1, 4))
  end)

  it("says when the report cannot be written, and fails", function()
    files.write(dir .. "/x.lua", "print 'ran'")
    local r = proc.cli { "run", "--report", dir .. "/no/such/r.json", dir .. "/x.lua" }
    assert.equal(1, r.status)
    assert.equal("ran\n", r.stdout)
    expect.contains(r.stderr, "cannot write the report")
  end)

  it("is written into a pipe or through a link, which are never replaced", function()
    files.write(dir .. "/x.lua", "print 'ran'")
    files.write(dir .. "/old.json", "old")
    local r = proc.run({ "sh", "-c", [[
      ln -s old.json link.json && ln -s /dev/full full && mkfifo pipe || exit
      cat pipe >through & sleep 0.1
      "$0" run --report link.json x.lua && test -L link.json || exit
      "$0" run --report pipe x.lua && test -p pipe || exit
      wait
      "$0" run --report pipe x.lua; echo $?
      "$0" run --report full x.lua; echo $?; test -L full]], proc.regolith }, { cwd = dir })
    assert.equal(0, r.status, r.stderr)
    assert.equal("ran\nran\nran\n1\nran\n1\n", r.stdout)
    expect.contains(r.stderr, "No such device or address") -- nobody reads the pipe any more
    expect.contains(r.stderr, "No space left on device")
    assert.is_truthy(json.decode(files.read(dir .. "/old.json")).events)
    assert.is_truthy(json.decode(files.read(dir .. "/through")).events)
  end)

  it("can be watched with ps, and is gone from there when it ends", function()
    files.write(dir .. "/watched.lua", [[
      local sandbox = require "sandbox"
      local sb <close> = sandbox.create { timeout = 60, name = "seen" }
      sb:exec({ "sleep", "60" }, { timeout = 3 })
    ]])
    files.write(dir .. "/empty.lua", "")
    local p = proc.start { proc.regolith, "run", "--jobs", "1", dir .. "/empty.lua",
      dir .. "/watched.lua", dir .. "/empty.lua" }
    local seen
    for _ = 1, 40 do
      task.sleep(0.05)
      for line in proc.cli({ "ps", "--json" }).stdout:gmatch "[^\n]+" do
        local one = json.decode(line)
        local box = one.pid == p.pid and one.sandboxes[1]
        if box and box.commands[1] then seen = one end
      end
      if seen then break end
    end
    assert.is_truthy(seen)
    assert.equal("watched.lua", seen.scripts[2].name)
    assert.equal("running", seen.scripts[2].state)
    assert.same({ "sleep", "60" }, seen.sandboxes[1].commands[1].command)
    local text = proc.cli({ "ps" }).stdout
    expect.contains(text, "sleep 60")
    expect.contains(text, "and 1 that wait, 1 that have ended")
    expect.eventually(5, "its processor time and memory are shown", function()
      return proc.cli({ "ps" }).stdout:find "watched.lua .* s CPU  [%d.]+ MiB  1 task  1 sandbox"
    end)
    assert.equal(0, p:wait(20).status)
    assert.equal(0, count(proc.cli({ "ps", "--json" }).stdout, '"pid":' .. p.pid .. "[,}]"))
  end)
end)

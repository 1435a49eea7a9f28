-- Tasks as a script sees them: spawn and wait, structured joins, groups, map, race, time-outs,
-- retry. Sleeps stand for work; sandboxes appear where a cancel has to reach one.
local sandbox = require "sandbox"
local task = require "task"
local json = require "json"
local retry = require "retry"
local expect = require "spec.support.expect"

local function timed(fn)
  local start = task.now()
  local results = table.pack(pcall(fn))
  return task.now() - start, table.unpack(results, 1, results.n)
end

describe("task.spawn and wait", function()
  it("passes arguments in and all results out", function()
    local t = task.spawn(function(...) return select("#", ...), ... end, 1, nil, "x", nil)
    local r = table.pack(t:wait())
    assert.equal(5, r.n)
    assert.same({ 4, 1, nil, "x", n = 5 }, { r[1], r[2], r[3], r[4], n = r.n })
    assert.is_nil(r[5])
  end)

  it("runs tasks at the same time", function()
    local took = timed(function()
      local all = {}
      for i = 1, 20 do all[i] = task.spawn(task.sleep, 0.3) end
      for i = 1, 20 do all[i]:wait() end
    end)
    expect.between(0.29, 1.2, took, "seconds")
  end)

  it("raises the task's error, unchanged, at wait", function()
    local mark = {}
    local t = task.spawn(function() error(mark) end)
    local ok, e = pcall(t.wait, t)
    assert.is_false(ok)
    assert.equal(mark, e)
  end)

  it("may be waited for by several, and after the end", function()
    local t = task.spawn(function() task.sleep(0.05) return "v" end)
    local a = task.spawn(function() return t:wait() end)
    local b = task.spawn(function() return t:wait() end)
    assert.equal("v", a:wait())
    assert.equal("v", b:wait())
    assert.equal("v", t:wait())
  end)

  it("refuses what is no function", function()
    expect.raises({ code = "invalid_argument" }, task.spawn, 5)
    expect.raises({ code = "invalid_argument" }, task.spawn)
  end)

  it("waits for the children before a task ends", function()
    local done = false
    task.spawn(function()
      task.spawn(function() task.sleep(0.2) done = true end)
    end):wait()
    assert.is_true(done)
  end)

  it("raises an unwaited child's error in the parent", function()
    local t = task.spawn(function()
      task.spawn(function() error "child" end)
      task.sleep(0.2)
    end)
    local took, ok, e = timed(function() return t:wait() end)
    assert.is_false(ok)
    expect.contains(tostring(e), "child")
    expect.between(0, 2, took, "seconds")
  end)

  it("cancels the children when the parent fails", function()
    local state = "running"
    local t = task.spawn(function()
      task.spawn(function()
        local guard <close> = setmetatable({}, { __close = function() state = "cleaned" end })
        task.sleep(30)
        state = "survived"
        return guard
      end)
      task.sleep(0.05)
      error "parent"
    end)
    local took, ok, e = timed(function() return t:wait() end)
    assert.is_false(ok)
    expect.contains(tostring(e), "parent")
    assert.equal("cleaned", state)
    expect.between(0, 2, took, "seconds")
  end)
end)

describe("cancel", function()
  it("ends a sleeping task, and its wait raises cancelled", function()
    local t = task.spawn(task.sleep, 30)
    task.sleep(0.02)
    t:cancel()
    local took = timed(function() expect.raises({ code = "cancelled" }, t.wait, t) end)
    expect.between(0, 1, took, "seconds")
    t:cancel()
  end)

  it("of a task that has ended changes nothing", function()
    local t = task.spawn(function() return 5 end)
    assert.equal(5, t:wait())
    t:cancel()
    assert.equal(5, t:wait())
  end)

  it("before the task first ran keeps it from running", function()
    local ran = false
    local t = task.spawn(function() task.sleep(0) ran = true end)
    t:cancel()
    expect.raises({ code = "cancelled" }, t.wait, t)
    assert.is_false(ran)
  end)

  it("cannot be swallowed", function()
    local rounds = 0
    local t = task.spawn(function()
      while rounds < 100 do
        pcall(task.sleep, 10)
        rounds = rounds + 1
      end
    end)
    task.sleep(0.02)
    t:cancel()
    local took = timed(function() expect.raises({ code = "cancelled" }, t.wait, t) end)
    expect.between(0, 2, took, "seconds")
    assert.equal(0, rounds)
  end)

  it("during create leaves no sandbox", function()
    for i = 1, 20 do
      local t = task.spawn(sandbox.create, { tags = { cancelled = "yes" } })
      if i % 2 == 0 then task.yield() end
      t:cancel()
      pcall(t.wait, t)
      local s = { pcall(t.wait, t) }
      if s[1] then s[2]:terminate() end
    end
    expect.eventually(3, "the end of each sandbox", function()
      for _, s in ipairs(sandbox.list { tags = { cancelled = "yes" } }) do
        if (s.status or s.state) ~= "terminated" then return false end
      end
      return true
    end)
  end)
end)

describe("task.sleep, now and yield", function()
  it("sleeps as long as asked, in each form of a duration", function()
    for _, form in ipairs { 0.2, "200ms", "0.2s", "0.2" } do
      local took = timed(function() task.sleep(form) end)
      expect.between(0.195, 0.8, took, "seconds for " .. tostring(form))
    end
    assert.is_true(timed(function() task.sleep(0) end) < 0.3)
  end)

  it("refuses what is no duration", function()
    for _, bad in ipairs { -1, "soon", {}, 0 / 0, "1 fortnight", true } do
      expect.raises({ code = "invalid_argument" }, task.sleep, bad)
    end
    expect.raises({ code = "invalid_argument" }, task.sleep)
  end)

  it("lets the others run at a yield", function()
    local order = {}
    local t = task.spawn(function() order[#order + 1] = "child" end)
    for _ = 1, 3 do task.yield() end
    order[#order + 1] = "parent"
    t:wait()
    assert.same({ "child", "parent" }, order)
  end)

  it("has a clock that only goes forward", function()
    local last = task.now()
    for _ = 1, 1000 do
      local now = task.now()
      assert.is_true(now >= last)
      last = now
    end
  end)
end)

describe("task.timeout", function()
  it("gives the results of a function that is in time", function()
    assert.same({ 1, "x" }, { task.timeout(5, function(a) return a, "x" end, 1) })
  end)

  it("raises timeout, and the function's cleanup ran by then", function()
    local cleaned = false
    local took = timed(function()
      expect.raises({ code = "timeout" }, task.timeout, "200ms", function()
        local g <close> = setmetatable({}, { __close = function() cleaned = true end })
        task.sleep(30)
        return g
      end)
    end)
    assert.is_true(cleaned)
    expect.between(0.19, 1.5, took, "seconds")
  end)

  it("passes the function's own error on", function()
    local ok, e = pcall(task.timeout, 5, function() error "mine" end)
    assert.is_false(ok)
    expect.contains(tostring(e), "mine")
  end)

  it("nests, the shorter one winning", function()
    local ok, e = pcall(task.timeout, 5, function()
      task.timeout(0.1, function() task.sleep(20) end)
    end)
    assert.is_false(ok)
    assert.equal("timeout", e.code)
    local reached = false
    ok = pcall(task.timeout, 0.1, function()
      pcall(task.timeout, 5, function() task.sleep(20) end)
      reached = true
    end)
    assert.is_false(ok)
    assert.is_false(reached)
  end)
end)

describe("task.group", function()
  it("gives the first results in spawn order", function()
    local g <close> = task.group {}
    for i = 1, 5 do g:spawn(function() task.sleep((6 - i) * 0.02) return i, "second" end) end
    local r = { g:wait() }
    assert.same({ 1, 2, 3, 4, 5 }, type(r[1]) == "table" and r[1] or r)
  end)

  it("joins at the end of its block", function()
    local n = 0
    do
      local g <close> = task.group {}
      for _ = 1, 4 do g:spawn(function() task.sleep(0.1) n = n + 1 end) end
    end
    assert.equal(4, n)
  end)

  it("runs at most `limit` at once, and spawn blocks", function()
    local running, most = 0, 0
    local took = timed(function()
      local g <close> = task.group { limit = 3 }
      for _ = 1, 9 do
        g:spawn(function()
          running = running + 1
          most = math.max(most, running)
          task.sleep(0.1)
          running = running - 1
        end)
      end
    end)
    assert.equal(3, most)
    expect.between(0.29, 1.5, took, "seconds")
  end)

  it("cancels the siblings at the first error, which is raised", function()
    local ended = 0
    local took, ok, e = timed(function()
      local g <close> = task.group {}
      for _ = 1, 3 do
        g:spawn(function()
          local c <close> = setmetatable({}, { __close = function() ended = ended + 1 end })
          task.sleep(30)
          return c
        end)
      end
      g:spawn(function() task.sleep(0.05) error "first" end)
      g:wait()
    end)
    assert.is_false(ok)
    expect.contains(tostring(e), "first")
    assert.equal(3, ended)
    expect.between(0, 2, took, "seconds")
  end)

  it("raises timeout at its deadline", function()
    local took, ok, e = timed(function()
      local g <close> = task.group { deadline = "200ms" }
      g:spawn(task.sleep, 30)
      g:wait()
    end)
    assert.is_false(ok)
    assert.equal("timeout", e.code)
    expect.between(0.19, 1.5, took, "seconds")
  end)

  it("cancels its tasks when an error leaves the block", function()
    local took, ok, e = timed(function()
      local g <close> = task.group {}
      g:spawn(task.sleep, 30)
      error("left", 0)
    end)
    assert.is_false(ok)
    assert.equal("left", e)
    expect.between(0, 2, took, "seconds")
  end)

  it("names a misspelt or wrong option", function()
    expect.raises({ code = "invalid_argument", field = "limt", match = "limit" },
      task.group, { limt = 3 })
    expect.raises({ code = "invalid_argument", field = "limit" }, task.group, { limit = 0 })
    expect.raises({ code = "invalid_argument", field = "deadline" }, task.group, { deadline = -1 })
  end)
end)

describe("task.map", function()
  it("calls fn(item, i) and keeps the order", function()
    local out = task.map({ "c", "b", "a" }, {}, function(item, i)
      task.sleep((4 - i) * 0.03)
      return item .. i
    end)
    assert.same({ "c1", "b2", "a3" }, out)
    assert.same({}, task.map({}, {}, error))
  end)

  it("has json.null where fn returned nil", function()
    local out = task.map({ 1, 2, 3 }, {}, function(i) if i ~= 2 then return i end end)
    assert.equal(3, #out)
    assert.equal(json.null, out[2])
  end)

  it("respects its limit", function()
    local running, most = 0, 0
    task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, { limit = 2 }, function()
      running = running + 1
      most = math.max(most, running)
      task.sleep(0.03)
      running = running - 1
    end)
    assert.equal(2, most)
  end)

  it("raises the first error and cancels the rest", function()
    local took, ok, e = timed(function()
      task.map({ 30, 30, 0.05, 30 }, {}, function(s)
        task.sleep(s)
        error("at " .. s, 0)
      end)
    end)
    assert.is_false(ok)
    assert.equal("at 0.05", e)
    expect.between(0, 2, took, "seconds")
  end)

  it("collects errors where asked", function()
    local results, errors = task.map({ 1, 2, 3, 4 }, { errors = "collect" }, function(i)
      if i % 2 == 0 then error("even " .. i, 0) end
      return i * 10
    end)
    assert.equal(10, results[1])
    assert.equal(30, results[3])
    assert.equal("even 2", errors[2])
    assert.equal("even 4", errors[4])
    assert.is_nil(errors[1])
    assert.is_nil(errors[3])
  end)

  it("raises timeout at its deadline", function()
    local took, ok, e = timed(function()
      task.map({ 1, 2 }, { deadline = 0.2 }, function() task.sleep(30) end)
    end)
    assert.is_false(ok)
    assert.equal("timeout", e.code)
    expect.between(0.19, 1.5, took, "seconds")
  end)

  it("names a wrong option", function()
    expect.raises({ code = "invalid_argument", field = "errors" },
      task.map, { 1 }, { errors = "ignore" }, print)
    expect.raises({ code = "invalid_argument" }, task.map, { 1 }, {}, "no function")
    expect.raises({ code = "invalid_argument" }, task.map, 5, {}, print)
  end)
end)

describe("task.race", function()
  it("gives what the first to return returns, and the losers are cleaned up by then", function()
    local cleaned = 0
    local function loser()
      local c <close> = setmetatable({}, { __close = function()
        task.sleep(0.05)
        cleaned = cleaned + 1
      end })
      task.sleep(30)
      return c
    end
    local took, ok, v = timed(function()
      return task.race { loser, function() task.sleep(0.05) return "won" end, loser }
    end)
    assert.is_true(ok)
    assert.equal("won", v)
    assert.equal(2, cleaned)
    expect.between(0.05, 2, took, "seconds")
  end)

  it("lets errors wait for a winner", function()
    local v = task.race {
      function() error "early" end,
      function() task.sleep(0.1) return "late" end,
    }
    assert.equal("late", v)
  end)

  it("raises all_failed with every error", function()
    local e = expect.raises({ code = "all_failed" }, task.race, {
      function() error("one", 0) end,
      function() task.sleep(0.02) error("two", 0) end,
    })
    assert.equal("one", e.errors[1])
    assert.equal("two", e.errors[2])
  end)

  it("ends the losers' sandboxes", function()
    task.race {
      function()
        local sb <close> = sandbox.create { tags = { race = "loser" } }
        sb:exec { "sleep", "60" }
      end,
      function() task.sleep(0.3) return true end,
    }
    for _, s in ipairs(sandbox.list { tags = { race = "loser" } }) do
      assert.equal("terminated", s.status or s.state)
    end
  end)

  it("refuses an empty field", function()
    expect.raises({ code = "invalid_argument" }, task.race, {})
    expect.raises({ code = "invalid_argument" }, task.race, { 5 })
  end)
end)

describe("retry", function()
  it("repeats errors that may pass, and counts the attempts", function()
    local seen = {}
    local v = retry(function(attempt)
      seen[#seen + 1] = attempt
      if attempt < 3 then error { code = "capacity", message = "full", retryable = true } end
      return "ok"
    end, { max = 5, backoff = "10ms" })
    assert.equal("ok", v)
    assert.same({ 1, 2, 3 }, seen)
  end)

  it("gives up after max and raises the last error", function()
    local n = 0
    local ok, e = pcall(retry, function()
      n = n + 1
      error { code = "capacity", message = "full " .. n, retryable = true }
    end, { max = 3, backoff = "1ms" })
    assert.is_false(ok)
    assert.equal(3, n)
    assert.equal("full 3", e.message)
  end)

  it("does not repeat what would fail again", function()
    local n = 0
    local ok = pcall(retry, function()
      n = n + 1
      error "a bug"
    end, { max = 3, backoff = "1ms" })
    assert.is_false(ok)
    assert.equal(1, n)
  end)

  it("repeats a code that is named", function()
    local n = 0
    pcall(retry, function()
      n = n + 1
      error { code = "command_failed", message = "x" }
    end, { max = 2, backoff = "1ms", on = { "command_failed" } })
    assert.equal(2, n)
  end)

  it("waits longer each time", function()
    local took = timed(function()
      retry(function() error { code = "capacity", retryable = true } end,
        { max = 4, backoff = "50ms" })
    end)
    expect.between(0.15, 3, took, "seconds")
  end)

  it("names a wrong option", function()
    expect.raises({ code = "invalid_argument", field = "max" }, retry, print, { max = 0 })
    expect.raises({ code = "invalid_argument", field = "maks" }, retry, print, { maks = 2 })
  end)
end)

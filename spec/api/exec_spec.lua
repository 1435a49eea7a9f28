-- sb:exec, field by field: the ways to say a command, each option, the result, callbacks and check.
local sandbox = require "sandbox"
local task = require "task"
local expect = require "spec.support.expect"

describe("exec", function()
  local sb
  setup(function() sb = sandbox.create { timeout = 250 } end)
  teardown(function() sb:terminate() end)

  local function invalid(field, ...)
    return expect.raises({ code = "invalid_argument", status = 400, field = field }, sb.exec, sb,
      ...)
  end

  it("has every field of a result, and no other", function()
    local r = sb:exec { "sh", "-c", "echo out; echo err >&2" }
    local want = {
      ok = "boolean", reason = "string", exit_code = "number", stdout = "string", stderr = "string",
      truncated = "table", stdout_bytes = "number", stderr_bytes = "number",
      duration_ms = "number", usage = "table",
    }
    for k, kind in pairs(want) do assert.equal(kind, type(r[k]), "result." .. k) end
    for k in pairs(r) do
      assert.is_truthy(want[k] or k == "signal", "unexpected field " .. tostring(k))
    end
    assert.equal(4, r.stdout_bytes)
    assert.equal(4, r.stderr_bytes)
    assert.is_false(r.truncated.stdout)
    assert.is_false(r.truncated.stderr)
    assert.is_nil(r.signal)
    assert.equal("integer", math.type(r.exit_code))
  end)

  it("takes a table with options, a table and options, and a string", function()
    assert.equal("a b\n", sb:exec({ "echo", "a b" }).stdout)
    assert.equal("timeout", sb:exec({ "sleep", "9", timeout = 0.2 }).reason)
    assert.equal("timeout", sb:exec({ "sleep", "9" }, { timeout = "200ms" }).reason)
    assert.equal("6\n", sb:exec("echo hello | wc -c").stdout)
    assert.equal("7\n", sb:exec("echo $A", { env = { A = "7" } }).stdout)
    assert.equal("2\n", sb:exec({ "echo", 2 }).stdout)
  end)

  it("does not let the shell near an argv", function()
    assert.equal("$HOME; `id` 'x' \"y\" *\n", sb:exec({ "echo", "$HOME; `id` 'x' \"y\" *" }).stdout)
    assert.equal("\n", sb:exec({ "echo", "" }).stdout)
    assert.equal("a\nb\n", sb:exec({ "echo", "a\nb" }).stdout)
  end)

  it("refuses what is no command", function()
    expect.raises({ code = "invalid_argument" }, sb.exec, sb)
    expect.raises({ code = "invalid_argument" }, sb.exec, sb, {})
    expect.raises({ code = "invalid_argument" }, sb.exec, sb, 5)
    expect.raises({ code = "invalid_argument" }, sb.exec, sb, { {} })
    expect.raises({ code = "invalid_argument" }, sb.exec, sb, { "a\0b" })
    expect.raises({ code = "invalid_argument" }, sb.exec, sb, { "echo", nil, "x" })
  end)

  it("names a misspelt or wrong option", function()
    local e = invalid("timout", { "true", timout = 5 })
    expect.contains(e.message .. (e.hint or ""), "timeout")
    e = invalid("on_stdot", { "true" }, { on_stdot = print })
    expect.contains(e.message .. (e.hint or ""), "on_stdout")
    invalid("timeout", { "true", timeout = 0 })
    invalid("timeout", { "true", timeout = -2 })
    invalid("timeout", { "true", timeout = "later" })
    invalid("cwd", { "true", cwd = 5 })
    invalid("user", { "true", user = "no-such-user-here" })
    invalid("env", { "true", env = { [1] = "x" } })
    invalid("stdin", { "true", stdin = {} })
    invalid("max_output", { "true", max_output = -1 })
    invalid("on_overflow", { "true", on_overflow = "explode" })
    invalid("on_stdout", { "true", on_stdout = "print" })
    invalid("check", { "true", check = "yes please" })
  end)

  it("refuses an option that is given twice", function()
    invalid("timeout", { "sleep", "5", timeout = 60 }, { timeout = 0.2 })
  end)

  it("gives stdin, cwd, env and user to the command", function()
    assert.equal("from stdin", sb:exec({ "cat" }, { stdin = "from stdin" }).stdout)
    assert.equal("/usr\n", sb:exec({ "pwd", cwd = "/usr" }).stdout)
    assert.equal("x=y\n", sb:exec({ "sh", "-c", "echo $V", env = { V = "x=y" } }).stdout)
    assert.equal("65534\n", sb:exec({ "id", "-u", user = "nobody" }).stdout)
    assert.equal("65534\n", sb:exec({ "id", "-u", user = "65534" }).stdout)
  end)

  it("raises command_failed where asked, with the result", function()
    assert.is_true(sb:exec({ "true", check = true }).ok)
    local e = expect.raises({ code = "command_failed" }, sb.exec, sb,
      { "sh", "-c", "echo why >&2; exit 9" }, { check = true })
    assert.equal(9, e.result.exit_code)
    assert.equal("why\n", e.result.stderr)
    expect.contains(e.message, "9")
    local r = sb:exec { "sh", "-c", "exit 2" }
    assert.is_false(r.ok)
    e = expect.raises({ code = "command_failed" }, r.check, r)
    assert.equal(2, e.result.exit_code)
    local good = sb:exec { "true" }
    assert.equal(good, good:check())
    e = expect.raises({ code = "command_failed" }, sb.exec, sb,
      { "sleep", "9", timeout = 0.2, check = true })
    assert.equal("timeout", e.result.reason)
  end)

  describe("callbacks", function()
    it("get raw chunks in order, in the calling task", function()
      local out, err = {}, {}
      local here = coroutine.running()
      local same = true
      local r = sb:exec("for i in $(seq 200); do echo line$i; done; printf 'x\\000y' >&2", {
        on_stdout = function(c) out[#out + 1] = c; same = same and coroutine.running() == here end,
        on_stderr = function(c) err[#err + 1] = c end,
      })
      assert.is_true(r.ok)
      assert.is_true(same)
      assert.equal(r.stdout, table.concat(out))
      assert.equal("x\0y", table.concat(err))
    end)

    it("get what comes while the command still runs", function()
      local first
      local start = task.now()
      sb:exec("echo now; sleep 1", {
        on_stdout = function() first = first or task.now() - start end,
      })
      expect.between(0, 0.7, first, "seconds until the first chunk")
      expect.between(0.95, 3, task.now() - start, "seconds until the end")
    end)

    it("may block", function()
      local got = {}
      local r = sb:exec("for i in 1 2 3; do echo $i; sleep 0.05; done", {
        on_stdout = function(c)
          task.sleep(0.05)
          got[#got + 1] = sb:exec({ "cat" }, { stdin = c }).stdout
        end,
      })
      assert.is_true(r.ok)
      assert.equal("1\n2\n3\n", table.concat(got))
    end)

    it("that fail end the command, and the error is the caller's", function()
      local start = task.now()
      local ok, e = pcall(sb.exec, sb, "echo go; sleep 30",
        { on_stdout = function() error { mine = true } end })
      assert.is_false(ok)
      assert.is_true(type(e) == "table" and e.mine)
      expect.between(0, 5, task.now() - start, "seconds")
      local r = sb:exec "grep -l sleep /proc/[0-9]*/comm 2>/dev/null"
      assert.equal("", r.stdout)
    end)
  end)
end)

describe("a cancelled exec", function()
  it("ends its command", function()
    local sb <close> = sandbox.create {}
    local t = task.spawn(function() sb:exec { "sleep", "77" } end)
    task.sleep(0.1)
    t:cancel()
    expect.raises({ code = "cancelled" }, t.wait, t)
    expect.eventually(3, "the end of the command", function()
      return sb:exec("grep -l sleep /proc/[0-9]*/comm 2>/dev/null").stdout == ""
    end)
  end)

  it("by task.timeout raises timeout", function()
    local sb <close> = sandbox.create {}
    local start = task.now()
    expect.raises({ code = "timeout" }, task.timeout, 0.3,
      function() return sb:exec { "sleep", "30" } end)
    expect.between(0.28, 2, task.now() - start, "seconds")
  end)
end)

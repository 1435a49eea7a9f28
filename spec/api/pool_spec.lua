-- sandbox.pool: sandboxes ready beforehand, a fresh one for each use.
local sandbox = require "sandbox"
local task = require "task"
local expect = require "spec.support.expect"

local function alive() return #sandbox.list() end

describe("sandbox.pool", function()
  it("keeps size sandboxes ready and gives a fresh one to each use", function()
    local create = { timeout = 60, tags = { of = "pool" } }
    local pool <close> = sandbox.pool { size = 2, create = create }
    expect.eventually(5, "two are ready", function() return alive() == 2 end)
    local ids = {}
    for _ = 1, 4 do
      local a, b = pool:use(function(sb)
        assert.equal("pool", sb.tags.of)
        assert.is_nil(ids[sb.sandbox_id])
        ids[sb.sandbox_id] = true
        assert.is_true(sb:exec({ "sh", "-c", "test ! -e /tmp/mark && touch /tmp/mark" }).ok)
        return 1, nil
      end)
      assert.equal(1, a)
      assert.is_nil(b)
    end
    expect.eventually(5, "two are ready again", function() return alive() == 2 end)
    pool:close()
    assert.equal(0, alive())
    expect.raises({ code = "conflict" }, pool.use, pool, print)
  end)

  it("serves many uses at once", function()
    local pool <close> = sandbox.pool { size = 2 }
    local out = task.map({ 1, 2, 3, 4, 5, 6 }, { limit = 6 }, function(i)
      return pool:use(function(sb) return sb:exec({ "echo", tostring(i) }).stdout end)
    end)
    assert.same({ "1\n", "2\n", "3\n", "4\n", "5\n", "6\n" }, out)
  end)

  it("ends the sandbox of a use on every way out", function()
    do
      local pool <close> = sandbox.pool { size = 1 }
      local seen
      local ok, e = pcall(pool.use, pool, function(sb)
        seen = sb
        error("mine", 0)
      end)
      assert.is_false(ok)
      assert.equal("mine", e)
      assert.equal("terminated", seen:status().status)
      expect.raises({ code = "timeout" }, task.timeout, 0.2, pool.use, pool, function(sb)
        seen = sb
        task.sleep(60)
      end)
      assert.equal("terminated", seen:status().status)
      pool:use(function(sb) sb:terminate() end)
    end
    assert.equal(0, alive())
  end)

  it("keeps nothing when it is closed while sandboxes are being made", function()
    local pool = sandbox.pool { size = 3 }
    task.yield()
    pool:close()
    pool:close()
    assert.equal(0, alive())
  end)

  it("replaces what ended or grew old while it waited", function()
    local pool <close> = sandbox.pool { size = 1, create = { timeout = 60 } }
    expect.eventually(5, "one is ready", function() return alive() == 1 end)
    local id = sandbox.list()[1].sandbox_id
    sandbox.terminate(id)
    pool:use(function(sb)
      assert.are_not.equal(id, sb.sandbox_id)
      assert.is_true(sb:exec("true").ok)
    end)
  end)

  it("reuses sandboxes only when asked, and only after a use that went well", function()
    local pool <close> = sandbox.pool { size = 1, reuse = true }
    local first = pool:use(function(sb) return sb.sandbox_id end)
    assert.equal(first, pool:use(function(sb) return sb.sandbox_id end))
    pcall(pool.use, pool, function() error "no" end)
    assert.are_not.equal(first, pool:use(function(sb) return sb.sandbox_id end))
  end)

  it("raises at the use what is wrong now, not what was wrong before", function()
    local pool <close> = sandbox.pool { size = 1, create = { memory = 1 } }
    expect.raises({ code = "invalid_argument", field = "memory" }, pool.use, pool, print)
    expect.raises({ code = "invalid_argument", field = "size" }, sandbox.pool, { size = 0 })
    expect.raises({ code = "invalid_argument", field = "sizes" }, sandbox.pool, { sizes = 1 })
    expect.raises({ code = "invalid_argument", field = "create" }, sandbox.pool, { create = 1 })
    expect.raises({ code = "invalid_argument", field = "fn" }, pool.use, pool, 7)
  end)
end)

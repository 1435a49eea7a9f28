-- The terminal's side of a server's keys and money: key add, ls, topup, revoke, and cost.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local json = require "json"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

describe("keys and costs", function()
  local before, state
  setup(function() before = leftovers.before() end)
  before_each(function() state = files.dir("state") .. "/deep/inside" end)
  teardown(function()
    files.clean()
    leftovers.none_since(before)
  end)

  local function cli(...)
    local argv = { ... }
    local at = argv[1] == "key" and 3 or 2
    table.insert(argv, at, "--state=" .. state)
    return proc.cli(argv)
  end

  local function works(...)
    local r = cli(...)
    assert.equal(0, r.status, r.stderr)
    return r.stdout
  end

  local function fails(status, ...)
    local r = cli(...)
    assert.equal(status, r.status, r.stdout .. r.stderr)
    assert.equal("", r.stdout)
    return r.stderr
  end

  local function keys() return json.decode(works("key", "ls", "--json")) end

  it("makes keys that are shown once, and kept nowhere", function()
    local key =
      works("key", "add", "--credit", "5.00", "--rate", "10/s", "--max-sandboxes", "3", "alice")
    assert.matches("^sk%-[0-9a-z]+\n$", key)
    assert.equal(54, #key)
    key = key:sub(1, -2)
    local other = works("key", "add", "bob")
    assert.not_equal(key, other:sub(1, -2))
    local list = keys()
    assert.equal(2, #list)
    local alice = list[1]
    assert.same({ "alice", "10/s", 3 }, { alice.name, alice.rate, alice.max_sandboxes })
    assert.same({ 5000000, 0 }, { alice.balance_microusd, alice.held_microusd })
    assert.equal(key:sub(1, 7), alice.hint)
    expect.lacks(files.read(state .. "/regolith.db"), key)
    local r = proc.run { "stat", "-c", "%a", state, state .. "/regolith.db" }
    assert.equal("700\n600\n", r.stdout)
  end)

  it("adds and takes credit to the millionth, and shows each change", function()
    works("key", "add", "alice", "--credit", "0.10")
    expect.contains(works("key", "topup", "alice", "0.000001"), "0.100001")
    expect.contains(works("key", "topup", "--", "alice", "-0.1"), "0.000001")
    expect.contains(fails(2, "key", "topup", "--", "alice", "-0.1"), "0.000001")
    local lines = json.decode(works("cost", "--statement", "alice", "--json"))
    local sum = 0
    for i, line in ipairs(lines) do
      assert.equal(i, line.seq)
      sum = sum + line.microusd
      assert.equal(sum, line.balance_microusd)
    end
    assert.same({ 3, 1 }, { #lines, sum })
    assert.equal(1, keys()[1].balance_microusd)
    expect.contains(works("cost", "--by", "key,tier,tag"), "0 charges, 0.00")
    assert.same({}, json.decode(works("cost", "--by", "tag:run", "--since", "24h", "--json")))
  end)

  it("revokes for good", function()
    works("key", "add", "alice", "--credit", "1")
    works("key", "revoke", "alice")
    assert.truthy(keys()[1].revoked_at)
    expect.contains(works("key", "ls"), "revoked")
    expect.contains(fails(1, "key", "add", "alice"), "already")
    assert.equal(1, #json.decode(works("cost", "--statement", "alice", "--json")))
  end)

  it("says what is wrong", function()
    expect.contains(fails(1, "key", "ls"), "no database")
    expect.contains(fails(1, "cost", "--by", "key"), "no database")
    expect.contains(fails(2, "key", "add"), "name")
    expect.contains(fails(2, "key", "add", "a b"), "a b")
    expect.contains(fails(2, "key", "add", "a", "--credit", "1.0000001"), "1.0000001")
    expect.contains(fails(2, "key", "add", "a", "--credit", "-1"), "--credit")
    expect.contains(fails(2, "key", "add", "a", "--rate", "10"), "10/s")
    works("key", "add", "a")
    expect.contains(fails(1, "key", "topup", "b", "1"), "no key named")
    expect.contains(fails(1, "key", "revoke", "b"), "no key named")
    expect.contains(fails(1, "cost", "--statement", "b"), "no key named")
    expect.contains(fails(2, "cost", "--by", "tiers"), "tier")
    expect.contains(fails(2, "cost", "--by", "tag,tag:x"), "tag:NAME")
    expect.contains(fails(2, "cost", "--statement", "a", "--by", "key"), "contradict")
    expect.contains(proc.cli({ "key", "sell" }).stderr, "key sell")
  end)
end)

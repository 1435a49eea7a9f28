-- One script that floods slows down alone: an innocent one beside it keeps its pace. In workers it
-- hardly notices; in process, where one core runs all, it waits for a time slice of the other
-- whenever it wakes, and for no more.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"
local users = require "spec.support.user"

-- Small operations with pauses, two waits each: says in a file how long they took.
local ROUNDS <const> = 20
local SLICE <const> = 0.1 -- seconds on a busy machine; 10 ms of processor time
local INNOCENT = [[
local sandbox, task = require "sandbox", require "task"
local began = task.now()
for _ = 1, tonumber(args[2]) do
  sandbox.engines()
  task.sleep(0.005)
end
local f = assert(io.open(args[1] .. "/took", "w"))
f:write(task.now() - began)
f:close()
]]

local FLOODS = {
  ["of operations"] = [[
    local sandbox, task = require "sandbox", require "task"
    for _ = 1, 300 do task.spawn(function() while true do sandbox.engines() end end) end
  ]],
  ["of output"] = [[local line = ("x"):rep(4000) while true do print(line) end]],
  ["of log lines"] = [[while true do log.info(("x"):rep(500)) end]],
  ["of tasks"] = [[
    local task = require "task"
    while true do task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, {}, function() task.yield() end) end
  ]],
  ["of work"] = [[local n = 0 while true do n = n + 1 end]],
}

-- More endless loops than processors: all but as many are stopped, and every one has its turns.
local TURNS = [[
local n = 0
for round = 1, 3 do
  local began = os.clock()
  while os.clock() - began < 0.04 do n = n + 1 end
  print("round " .. round)
end
while true do n = n + 1 end
]]

describe("workers that only compute", function()
  local before, user
  before_each(function() before = leftovers.before() end)
  after_each(function()
    if user then user:remove() end
    user = nil
    files.clean()
    leftovers.none_since(before, 5)
  end)

  local function take_turns()
    local words = { "run", "--grace", "100ms" }
    local scripts = 4 + tonumber(proc.run({ "nproc" }).stdout)
    for _ = 1, scripts do words[#words + 1] = files.script("turns.lua", TURNS) end
    local p = user and user:start(words) or proc.cli_start(words)
    expect.eventually(20, "all but as many as there are processors are stopped", function()
      local stopped = 0
      for _, one in ipairs(sys.below(p.pid)) do
        if one.name == "regolith-worker" and one.state == "T" then stopped = stopped + 1 end
      end
      return stopped >= 3
    end)
    expect.eventually(20, "each has had its turns", function()
      return select(2, p:output():gsub("round 3", "")) == scripts
    end)
    p:kill "INT"
    assert.equal(130, p:wait(20).status)
  end

  it("take turns", take_turns)

  it("take turns, of an ordinary user", function()
    user = users.make()
    if not user then return pending(users.no_users) end
    take_turns()
  end)
end)

for _, mode in ipairs { "workers", "in process" } do
  describe("a flood (" .. mode .. ")", function()
    local before, dir
    before_each(function()
      before = leftovers.before()
      dir = files.dir "fair"
    end)
    after_each(function()
      files.clean()
      leftovers.none_since(before, 5)
    end)

    -- Seconds that the innocent one took. What is printed goes nowhere, quickly.
    local function took(floods)
      local words = { proc.regolith, "run", "--quiet", "--timeout", "9s", "--grace", "100ms",
        "--allow-write", dir, mode == "in process" and "--trust" or "--max-ops=100000",
        files.script("innocent.lua", INNOCENT) }
      for _, text in ipairs(floods) do words[#words + 1] = files.script("flood.lua", text) end
      words[#words + 1] = "--"
      words[#words + 1] = dir
      words[#words + 1] = tostring(ROUNDS)
      os.remove(dir .. "/took")
      local p = proc.start { "sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", table.unpack(words) }
      local seconds = expect.eventually(20, "the innocent script is done", function()
        return tonumber(files.read(dir .. "/took") or "")
      end)
      if not p:ended() then p:kill "INT" end
      p:wait(20)
      return seconds
    end

    for what, text in pairs(FLOODS) do
      it(what .. " slows nobody else down", function()
        local alone = took {}
        local beside = took { text }
        -- Twice its time and some: the machine is not ours alone.
        local bound = 2 * alone + 0.5
        if mode == "in process" then bound = bound + 2 * ROUNDS * SLICE end
        expect.between(0, bound, beside, "seconds beside a flood, alone " .. alone)
      end)
    end
  end)
end

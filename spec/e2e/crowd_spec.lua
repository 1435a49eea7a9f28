-- A crowd: hostile scripts of every kind, each in a worker process, and innocent ones after them,
-- which must finish with the right results. Here they are a few dozen, and nothing is timed; `make
-- crowd` sends 1,000 before 100 (CROWD=HOSTILE:INNOCENT) and prints what that costs the innocent,
-- each from its first line to its last, alone and beside the others, in turns.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local users = require "spec.support.user"

local HOSTILE <const>, INNOCENT <const>, TIMED <const> = (function()
  local hostile, innocent = (os.getenv "CROWD" or ""):match "^(%d+):(%d+)$"
  return tonumber(hostile) or 36, tonumber(innocent) or 6, hostile ~= nil
end)()
local ROUNDS <const> = TIMED and 2 or 1

-- Commands, pauses and a little computing, as agents do; half a second of it on an idle machine.
-- Leaves its sum and its seconds in a file.
local INNOCENT_SCRIPT = [[
local json, sandbox, task = require "json", require "sandbox", require "task"
local began, sum = task.now(), 0
local sb <close> = sandbox.create { timeout = 100 }
for i = 1, 8 do
  sum = sum + tonumber(sb:exec("echo $((" .. i .. " * 7))").stdout)
  local list = {}
  for k = 1, 500 do list[k] = { k, tostring(i) } end
  sum = sum + #json.decode(json.encode(list))
  task.sleep(0.03)
end
local f = assert(io.open(args[1] .. "/NUMBER", "w"))
f:write(sum, " ", task.now() - began, "\n")
f:close()
]]
local SUM <const> = 7 * (1 + 8) * 8 // 2 + 8 * 500

local KINDS = {
  "while true do end",
  "while true do pcall(function() while true do end end) end",
  "local t = {} while true do pcall(function() while true do t[#t + 1] = {} end end) end",
  "local s = 'x' while true do pcall(function() s = s .. s end) end",
  [[local sandbox, task = require "sandbox", require "task"
    for _ = 1, 300 do task.spawn(function() while true do sandbox.engines() end end) end]],
  "local line = ('x'):rep(4000) while true do print(line) end",
  "while true do log.info(('x'):rep(500)) end",
  "local s = ('a'):rep(5000) while true do pcall(string.find, s, '.-.-.-.-.-b') end",
  [[local task = require "task"
    while true do task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, {}, function() task.yield() end) end]],
  [[local last
    for _ = 1, 30000 do
      local inner = last
      last = coroutine.create(function()
        local c <close> = setmetatable({}, { __close = function()
          if inner then coroutine.close(inner) end
        end })
        coroutine.yield()
      end)
      coroutine.resume(last)
    end
    while true do pcall(coroutine.close, last) end]],
  [[local c <close> = setmetatable({}, { __close = function() while true do end end })
    while true do local x = {} x[1] = x end]],
  [[local task, n = require "task", 0
    while true do n = n + 1 if n % 100000 == 0 then task.sleep(0) end end]],
}

-- One folder: the scripts, and what the innocent ones found.
local function crowd(dir, hostile, innocent)
  local paths = {}
  for i = 1, hostile do
    paths[i] = files.write(("%s/hostile%d.lua"):format(dir, i), KINDS[i % #KINDS + 1])
  end
  for i = 1, innocent do
    paths[#paths + 1] = files.write(("%s/innocent%d.lua"):format(dir, i),
      (INNOCENT_SCRIPT:gsub("NUMBER", i)))
  end
  return paths
end

local function number(n) return ("%.2f"):format(n) end

-- Runs the crowd until all innocent ones are done: the seconds that each took, in order.
local function seconds_of(user, hostile)
  local dir = files.dir "crowd"
  proc.run { "chmod", "777", dir }
  local bin = user and user.bin or proc.regolith
  local argv = { "sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", bin, "run", "--quiet",
    "--timeout", "3m", "--grace", "100ms", "--jobs", "2000", "--memory", "32MiB",
    "--allow-write", dir }
  table.move(crowd(dir, hostile, INNOCENT), 1, hostile + INNOCENT, #argv + 1, argv)
  table.move({ "--", dir }, 1, 2, #argv + 1, argv)
  local p = user and user:start_program(argv) or proc.start(argv)
  local took = {}
  local done, why = pcall(function()
    for i = 1, INNOCENT do
      local what = ("innocent script %d of %d is done"):format(i, INNOCENT)
      local sum, seconds = expect.eventually(TIMED and 150 or 60, what, function()
        return (files.read(dir .. "/" .. i) or ""):match "^.+\n"
      end):match "^(%d+) (%S+)\n"
      assert.equal(SUM, tonumber(sum))
      took[i] = tonumber(seconds)
    end
  end)
  if not p:ended() then p:kill "INT" end
  p:wait(60)
  if not done then error(why, 0) end
  table.sort(took)
  return took
end

describe("a crowd of hostile scripts", function()
  local before, user
  before_each(function() before = leftovers.before() end)
  after_each(function()
    if user then user:remove() end
    user = nil
    files.clean()
    leftovers.none_since(before, 10)
  end)

  local function leaves_the_innocent_alone(who)
    local sum = { alone = {}, beside = {} }
    for _ = 1, ROUNDS do
      if TIMED then table.insert(sum.alone, seconds_of(user, 0)) end
      table.insert(sum.beside, seconds_of(user, HOSTILE))
    end
    if not TIMED then return end
    -- The middle one and the slowest, on average over the rounds.
    local function mean(rounds, place)
      local total = 0
      for _, took in ipairs(rounds) do total = total + took[math.ceil(place * #took)] end
      return total / #rounds
    end
    for name, place in pairs { median = 0.5, slowest = 1 } do
      local alone, beside = mean(sum.alone, place), mean(sum.beside, place)
      print(("crowd: %s, %d innocent ones, %s: %s s alone, %s s beside %d hostile: x %s"):format(
        who, INNOCENT, name, number(alone), number(beside), HOSTILE, number(beside / alone)))
    end
  end

  it("leaves the innocent alone", function() leaves_the_innocent_alone "as root" end)

  it("leaves the innocent alone, of an ordinary user", function()
    user = users.make(true)
    if not user then return pending(users.no_users) end
    leaves_the_innocent_alone "as an ordinary user"
  end)
end)

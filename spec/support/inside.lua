-- The words of busted for a spec that runs as an ordinary script of `regolith run`, in a worker or
-- in process: describe, it, setup, teardown, pending, and those assertions that such specs use.
-- Arguments: the module that is the spec, and "limits" where the machine has them.
--
-- A spec of spec/api or spec/e2e/outcomes_spec.lua says the same there as in regolith-spec. What
-- asks the host (spec.support.sys) is skipped here. spec/e2e/modes_spec.lua runs this.
-- luacheck: ignore 121
local SKIP = {}
local function new_group(name) return { name = name, setups = {}, teardowns = {} } end
local group = new_group "" -- the one whose body is being read

local function show(v)
  if type(v) ~= "table" then return tostring(v) end
  local parts = {}
  for k, item in pairs(v) do parts[#parts + 1] = ("[%s] = %s"):format(show(k), show(item)) end
  table.sort(parts)
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do if not same(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end

local function must(ok, want, got, note)
  if ok then return end
  error(("wanted %s, got %s %s"):format(show(want), show(got), note and show(note) or ""), 3)
end

assert = setmetatable({
  equal = function(want, got, note) must(want == got, want, got, note) end,
  same = function(want, got, note) must(same(want, got), want, got, note) end,
  is_true = function(v, note) must(v == true, true, v, note) end,
  is_false = function(v, note) must(v == false, false, v, note) end,
  is_nil = function(v, note) must(v == nil, nil, v, note) end,
  is_truthy = function(v, note) must(v, "something true", v, note) end,
  not_equal = function(a, b) must(a ~= b, "something else", b) end,
  are_not = { equal = function(a, b) must(a ~= b, "something else", b) end },
}, { __call = function(_, ok, message, ...)
  if not ok then error(message or "assertion failed!", 2) end
  return ok, message, ...
end })

function describe(name, fn)
  local outer = group
  group = new_group(outer.name .. name .. " ")
  table.insert(outer, group)
  fn()
  group = outer
end
function it(name, fn) table.insert(group, { name = group.name .. name, fn = fn }) end
function setup(fn) table.insert(group.setups, fn) end
function teardown(fn) table.insert(group.teardowns, fn) end
function pending() error(SKIP) end

-- Modules that a spec asks for and that have nothing to ask in here.
local limits = args[2] == "limits"
package.preload["spec.support.machine"] = function()
  return { has_limits = function() return limits end, no_limits = "" }
end
package.preload["spec.support.sys"] = function()
  return setmetatable({ self = 0 }, { __index = function() return pending end })
end

require(args[1])

local passed, failed, skipped = 0, 0, 0

local function run_test(t)
  local ok, e = pcall(t.fn)
  if ok then
    passed = passed + 1
  elseif e == SKIP then
    skipped = skipped + 1
  else
    failed = failed + 1
    print(("FAIL %s: %s"):format(t.name, tostring(e)))
  end
end

local function run_group(g)
  for _, fn in ipairs(g.setups) do fn() end
  for _, item in ipairs(g) do
    if item.fn then run_test(item) else run_group(item) end
  end
  for _, fn in ipairs(g.teardowns) do fn() end
end

run_group(group)
print(("%d passed, %d failed, %d skipped"):format(passed, failed, skipped))

-- task: structured concurrency. Groups, map, race and timeout are groups of the runtime (core) with
-- the checking of arguments and the gathering of results done here.

local core = require "regolith.core"

local M = {}

local function fail(field, message, ...)
  error(core.error("invalid_argument", message:format(...), { field = field }), 0)
end

local function check_function(value, field)
  if type(value) ~= "function" then
    fail(field, "%s: a function is needed, not a %s value", field, type(value))
  end
end

--- The options of a group, each checked; unknown ones are refused.
local function check_options(options, what, known)
  if options == nil then return {} end
  if type(options) ~= "table" then
    fail("options", "%s: the options are a table, not a %s value", what, type(options))
  end
  for key in pairs(options) do
    if not known[key] then
      fail(tostring(key), "%s: unknown option '%s'; known are %s", what, tostring(key), known[1])
    end
  end
  local limit = options.limit
  if limit ~= nil and (math.type(limit) ~= "integer" or limit < 1) then
    fail("limit", "limit: %s is not a whole number of at least 1", tostring(limit))
  end
  local deadline = options.deadline
  if deadline ~= nil then
    deadline = core.duration(deadline, "deadline")
    if deadline == 0 then fail("deadline", "deadline: it has to be longer than 0") end
  end
  return { limit = limit, deadline = deadline, errors = options.errors }
end

---Starts fn(...) as a child of this task.
---@param fn function
---@param ... any
---@return Task
function M.spawn(fn, ...)
  check_function(fn, "fn")
  return core.spawn("task", fn, ...)
end

---@param seconds number|string
function M.sleep(seconds)
  core.sleep(seconds)
end

---Gives the other tasks a turn.
function M.yield()
  core.yield()
end

---@return number seconds monotonic
function M.now()
  return core.now()
end

--- Groups -----------------------------------------------------------------------------------------

---@class TaskGroup
local Group = {}
Group.__index = Group
Group.__name = "task group"

--- Runs fn and keeps its first result for group:wait, all of them for task:wait.
local function keep(results, i, ...)
  results[i] = (...)
  return ...
end

local function member(results, i, fn, ...)
  return keep(results, i, fn(...))
end

---Starts fn(...) in the group; waits for a free place first, if the group has a limit.
---@return Task
function Group:spawn(fn, ...)
  check_function(fn, "fn")
  local i = self.count + 1
  self.count = i
  return core.group_spawn(self.handle, "task", member, self.results, i, fn, ...)
end

---Waits for all tasks of the group; returns their first results in the order of spawning.
function Group:wait()
  core.group_wait(self.handle)
  return table.unpack(self.results, 1, self.count)
end

function Group:__close(err)
  if err ~= nil then core.group_cancel(self.handle) end
  core.group_wait(self.handle, err ~= nil)
end

---@param options? { limit?: integer, deadline?: number|string }
---@return TaskGroup
function M.group(options)
  local o = check_options(options, "task.group",
    { "limit and deadline", limit = true, deadline = true })
  return setmetatable({
    handle = core.group_new("raise", o.limit, o.deadline), results = {}, count = 0,
  }, Group)
end

--- Ends what is left of a group that a function here made for itself.
local Guard = {
  __close = function(self, err)
    if err ~= nil then core.group_cancel(self.handle) end
    core.group_wait(self.handle, true)
  end,
}

--- Built on groups --------------------------------------------------------------------------------

---Calls fn(item, i) for each item, each in a task; results in the order of the list.
---@param list any[]
---@param options? { limit?: integer, deadline?: number|string, errors?: "raise"|"collect" }
---@param fn fun(item: any, i: integer): any
---@return any[] results
---@return any[]? errors
function M.map(list, options, fn)
  if fn == nil and type(options) == "function" then options, fn = nil, options end
  if type(list) ~= "table" then
    fail("list", "task.map: the first argument is a list, not a %s value", type(list))
  end
  check_function(fn, "fn")
  local o = check_options(options, "task.map", {
    "limit, deadline and errors", limit = true, deadline = true, errors = true,
  })
  local errors = o.errors or "raise"
  if errors ~= "raise" and errors ~= "collect" then
    fail("errors", "errors: %s is neither \"raise\" nor \"collect\"", tostring(errors))
  end
  if errors == "collect" then return M.collect(list, o, fn) end
  local handle = core.group_new("raise", o.limit, o.deadline)
  local _ <close> = setmetatable({ handle = handle }, Guard)
  local results, n = {}, #list
  for i = 1, n do core.group_spawn(handle, "map", member, results, i, fn, list[i], i) end
  core.group_wait(handle)
  for i = 1, n do
    if results[i] == nil then results[i] = core.null end
  end
  return results
end

local function gather(results, errors, i, outcome, value)
  if outcome == "ok" then
    results[i] = value == nil and core.null or value
  else
    results[i], errors[i] = core.null, value
  end
end

--- task.map where errors are data: all items are tried, unless the deadline comes first.
function M.collect(list, o, fn)
  local handle = core.group_new("collect", o.limit, o.deadline)
  local _ <close> = setmetatable({ handle = handle }, Guard)
  local results, errors, tasks, n = {}, {}, {}, #list
  local late
  for i = 1, n do
    local ok, t = pcall(core.group_spawn, handle, "map", fn, list[i], i)
    if ok then
      tasks[i] = t
    else
      late = t
      break
    end
  end
  local _, expired = core.group_wait(handle, true)
  if expired and not late then
    late = core.error("timeout", "the deadline passed before this item was done")
  end
  for i = 1, n do
    if tasks[i] then
      gather(results, errors, i, core.outcome(tasks[i]))
      if core.outcome(tasks[i]) == "cancelled" and late then errors[i] = late end
    else
      results[i], errors[i] = core.null, late
    end
  end
  return results, errors
end

---Runs the functions at once; what the first one to return gives. The others are cancelled, and
---cleaned up, before this returns.
---@param functions (fun(): any)[]
function M.race(functions)
  if type(functions) ~= "table" or #functions == 0 then
    fail("functions", "task.race: a list of at least one function is needed")
  end
  for i = 1, #functions do check_function(functions[i], ("functions[%d]"):format(i)) end
  local handle = core.group_new("race")
  local _ <close> = setmetatable({ handle = handle }, Guard)
  local tasks = {}
  for i = 1, #functions do tasks[i] = core.group_spawn(handle, "race", functions[i]) end
  local winner = core.group_wait(handle)
  if winner then return select(2, core.outcome(winner)) end
  local errors = {}
  for i = 1, #tasks do errors[i] = select(2, core.outcome(tasks[i])) end
  error(core.error("all_failed", ("all %d failed; the first error: %s"):format(#tasks,
    tostring(errors[1])), { errors = errors }), 0)
end

---fn(...)'s results, or raises timeout; what fn began is then cancelled and cleaned up.
---@param seconds number|string
---@param fn function
function M.timeout(seconds, fn, ...)
  local limit = core.duration(seconds, "seconds")
  check_function(fn, "fn")
  if limit == 0 then fail("seconds", "seconds: it has to be longer than 0") end
  local handle = core.group_new("collect", nil, limit)
  local _ <close> = setmetatable({ handle = handle }, Guard)
  local t = core.group_spawn(handle, "timeout", fn, ...)
  local _, expired = core.group_wait(handle, true)
  if expired and core.outcome(t) ~= "ok" then
    error(core.error("timeout", ("not done after %g s"):format(limit)), 0)
  end
  return core.wait(t)
end

return M

-- sandbox.pool: sandboxes that are ready before they are wanted.
--
-- Each place of the pool is a background task that makes one sandbox. A use takes the oldest place,
-- puts a new one behind, and waits for its own if it is not ready yet. A place that failed (a limit
-- that is full now may not be full later) or whose sandbox has ended or spent half its life waiting
-- is replaced at the time of use, so that what is raised is always about now.

local core = require "regolith.core"

local KNOWN <const> = { size = true, create = true, reuse = true }

local function fail(field, message, ...)
  error(core.error("invalid_argument", message:format(...), { field = field }), 0)
end

---@class sandbox.Pool
local Pool = {}
Pool.__index = Pool
Pool.__name = "sandbox.Pool"

local function check(self, method)
  if getmetatable(self) ~= Pool then
    fail("self", "%s must be called on a pool, with a colon: pool:%s(…)", method, method)
  end
  if self.closed then
    error(core.error("conflict", "the pool was closed"), 0)
  end
  return self
end

--- A place: { task = }, later { sb =, born = } of a sandbox that was given back.
local function new_place(self)
  local create, options = self.sandbox.create, self.create
  return {
    task = core.daemon("pool", function()
      local ok, sb = pcall(create, options)
      if ok and self.closed then sb:terminate() end
      return ok and sb or nil, core.now()
    end),
  }
end

local function fill(self)
  while not self.closed and #self.places < self.size do
    self.places[#self.places + 1] = new_place(self)
  end
end

local RUNNING <const> = { started = true, ready = true }

local function still_good(sb, born)
  if (core.now() - born) * 2 > sb.config.timeout then return false end
  local ok, status = pcall(sb.status, sb)
  return ok and RUNNING[status.state] == true
end

--- Puts a place back when the task that waited for it is cancelled.
local Waiting = {
  __close = function(self)
    if not self.done then table.insert(self.pool.places, 1, self.place) end
  end,
}

local function take(self)
  local place = table.remove(self.places, 1)
  fill(self)
  local sb, born
  do
    local waiting <close> = setmetatable({ pool = self, place = place }, Waiting)
    if place.task then
      sb, born = core.wait(place.task)
    else
      sb, born = place.sb, place.born
    end
    waiting.done = true
  end
  if sb and still_good(sb, born) then return sb, born end
  if sb then pcall(sb.terminate, sb) end
  return self.sandbox.create(self.create), core.now()
end

--- Ends a place and its sandbox, which may be about to be made.
local function drop(place)
  local sb = place.sb
  if place.task then
    local ok, made = pcall(core.wait, place.task)
    sb = ok and made or nil
  end
  if sb then pcall(sb.terminate, sb) end
end

--- Ends the sandbox of a use, or gives it back to the pool.
local Use = {
  __close = function(self, err)
    local pool, sb = self.pool, self.sb
    if pool.reuse and not pool.closed and err == nil and self.ok then
      table.insert(pool.places, 1, { sb = sb, born = self.born })
      -- One place more than there should be: the last, which is the least ready, goes.
      while #pool.places > pool.size do drop(table.remove(pool.places)) end
    else
      sb:terminate()
    end
  end,
}

---Calls fn with a sandbox that nobody used before (with `reuse`: maybe by an earlier use that went
---well), and ends it afterwards, however fn ends. Returns what fn returns.
---@param fn fun(sb: sandbox.Sandbox): any
---@return any ...
function Pool:use(fn)
  check(self, "use")
  if type(fn) ~= "function" then fail("fn", "fn must be a function, not a %s", type(fn)) end
  local sb, born = take(self)
  local use <close> = setmetatable({ pool = self, sb = sb, born = born }, Use)
  local results = table.pack(fn(sb))
  use.ok = true
  return table.unpack(results, 1, results.n)
end

---Ends the sandboxes that wait; those in use end with their use. Twice is fine.
function Pool:close()
  if getmetatable(self) ~= Pool then check(self, "close") end
  self.closed = true
  while #self.places > 0 do drop(table.remove(self.places)) end
end

Pool.__close = Pool.close

function Pool:__tostring()
  return ("sandbox pool of %d"):format(self.size)
end

---@param sandbox table the module
---@param options { size?: integer, create?: table, reuse?: boolean }
return function(sandbox, options)
  for key in pairs(options) do
    if not KNOWN[key] then
      fail(tostring(key), "sandbox.pool: unknown option '%s'; known are size, create and reuse",
        tostring(key))
    end
  end
  local size = options.size or 1
  if math.type(size) ~= "integer" or size < 1 or size > 1000 then
    fail("size", "size must be a whole number from 1 to 1000, not %s", tostring(size))
  end
  if options.create ~= nil and type(options.create) ~= "table" then
    fail("create", "create must be a table of options, not a %s", type(options.create))
  end
  local create = {}
  for key, value in pairs(options.create or {}) do create[key] = value end
  local self = setmetatable({ sandbox = sandbox, size = size, create = create,
    reuse = options.reuse == true, places = {}, closed = false }, Pool)
  fill(self)
  return self
end

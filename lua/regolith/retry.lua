-- retry(fn, options): calls fn(attempt) until it returns, as long as its errors are worth it.

local core = require "regolith.core"

local KNOWN <const> = { max = true, backoff = true, on = true }

local function fail(field, message, ...)
  error(core.error("invalid_argument", message:format(...), { field = field }), 0)
end

local function check(options)
  options = options or {}
  if type(options) ~= "table" then
    fail("options", "retry: the options are a table, not a %s value", type(options))
  end
  for key in pairs(options) do
    if not KNOWN[key] then
      fail(tostring(key), "retry: unknown option '%s'; known are max, backoff and on",
        tostring(key))
    end
  end
  local max, on = options.max or 3, {}
  if math.type(max) ~= "integer" or max < 1 then
    fail("max", "max: %s is not a whole number of at least 1", tostring(max))
  end
  local codes = options.on or {}
  if type(codes) == "string" then codes = { codes } end
  if type(codes) ~= "table" then fail("on", "on: a list of error codes is needed") end
  for i = 1, #codes do on[codes[i]] = true end
  return max, core.duration(options.backoff or 1, "backoff"), on
end

local function worth_it(err, on)
  return type(err) == "table" and (err.retryable == true or on[err.code] == true)
end

--- Waits backoff, 2 × backoff, 4 × … (at most a minute) between the attempts.
---@param fn fun(attempt: integer): any
---@param options? { max?: integer, backoff?: number|string, on?: string|string[] }
return function(fn, options)
  if type(fn) ~= "function" then
    fail("fn", "retry: a function is needed, not a %s value", type(fn))
  end
  local max, backoff, on = check(options)
  for attempt = 1, max - 1 do
    local result = table.pack(pcall(fn, attempt))
    if result[1] then return table.unpack(result, 2, result.n) end
    if not worth_it(result[2], on) then error(result[2], 0) end
    core.sleep(math.min(backoff * 2 ^ (attempt - 1), 60))
  end
  return fn(max)
end

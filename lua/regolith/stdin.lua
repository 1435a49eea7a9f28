-- io.read(...) over the op "stdin.read", which answers { data = bytes } or, at the end, nothing.

local core = require "regolith.core"

local buffer, ended = "", false

local function more()
  if ended then return false end
  local result = core.call("stdin.read", { max = 65536 })
  if not result or not result.data or result.data == "" then
    ended = true
    return false
  end
  buffer = buffer .. result.data
  return true
end

local function take(n)
  local text = buffer:sub(1, n)
  buffer = buffer:sub(n + 1)
  return text
end

local function line(keep_end)
  local from = 1
  while true do
    local at = buffer:find("\n", from, true)
    if at then
      local text = take(at)
      return keep_end and text or text:sub(1, -2)
    end
    from = #buffer + 1
    if not more() then return buffer ~= "" and take(#buffer) or nil end
  end
end

local function count(n)
  while #buffer < n and more() do end
  if n == 0 then return (#buffer > 0 or more()) and "" or nil end
  return buffer ~= "" and take(n) or nil
end

local function all()
  while more() do end
  return take(#buffer)
end

local function number()
  repeat
    buffer = buffer:gsub("^%s+", "")
  until buffer ~= "" or not more()
  while not buffer:find("%s") and #buffer < 200 and more() do end
  local text = buffer:match("^[%w%.%+%-]+") or ""
  take(#text)
  return tonumber(text)
end

local formats = {
  l = function() return line(false) end,
  L = function() return line(true) end,
  a = all,
  n = number,
}

local function read_one(format)
  if math.type(format) == "integer" and format >= 0 then return count(format) end
  local read = type(format) == "string" and formats[format:gsub("^%*", ""):sub(1, 1)]
  if not read then
    error(core.error("invalid_argument", "io.read: unknown format " .. tostring(format)), 0)
  end
  return read()
end

return function(...)
  local asked = table.pack(...)
  if asked.n == 0 then return (line()) end
  local results = {}
  for i = 1, asked.n do
    results[i] = read_one(asked[i])
    if results[i] == nil then return table.unpack(results, 1, i) end
  end
  return table.unpack(results, 1, asked.n)
end

-- Reading in Lua's formats ("l", "L", "n", "a", a count) from whatever gives bytes piece by piece.

local core = require "regolith.core"

local Reader = {}
Reader.__index = Reader

-- fetch() blocks and gives the next bytes, or nil at the end.
local function new(fetch)
  return setmetatable({ fetch = fetch, buffer = "", ended = false }, Reader)
end

function Reader:more()
  if self.ended then return false end
  local bytes = self.fetch()
  if not bytes or bytes == "" then
    self.ended = true
    return false
  end
  self.buffer = self.buffer .. bytes
  return true
end

-- Forgets what was read ahead; gives how many bytes that were.
function Reader:reset()
  local ahead = #self.buffer
  self.buffer, self.ended = "", false
  return ahead
end

function Reader:take(n)
  local text = self.buffer:sub(1, n)
  self.buffer = self.buffer:sub(n + 1)
  return text
end

function Reader:line(keep_end)
  local from = 1
  while true do
    local at = self.buffer:find("\n", from, true)
    if at then
      local text = self:take(at)
      return keep_end and text or text:sub(1, -2)
    end
    from = #self.buffer + 1
    if not self:more() then return self.buffer ~= "" and self:take(#self.buffer) or nil end
  end
end

function Reader:count(n)
  while #self.buffer < n and self:more() do end
  if n == 0 then return (#self.buffer > 0 or self:more()) and "" or nil end
  return self.buffer ~= "" and self:take(n) or nil
end

function Reader:all()
  local pieces = { self:take(#self.buffer) }
  while self:more() do pieces[#pieces + 1] = self:take(#self.buffer) end
  return table.concat(pieces)
end

function Reader:number()
  repeat
    self.buffer = self.buffer:gsub("^%s+", "")
  until self.buffer ~= "" or not self:more()
  while not self.buffer:find("%s") and #self.buffer < 200 and self:more() do end
  local text = self.buffer:match("^[+-]?0[xX][%x%.]+[pP]?[+-]?%d*")
    or self.buffer:match("^[+-]?[%d%.]+[eE]?[+-]?%d*") or ""
  self:take(#text)
  return tonumber(text)
end

local formats = {
  l = function(self) return self:line(false) end,
  L = function(self) return self:line(true) end,
  a = Reader.all,
  n = Reader.number,
}

local function read_one(self, format, what)
  if math.type(format) == "integer" and format >= 0 then return self:count(format) end
  local read = type(format) == "string" and formats[format:gsub("^%*", ""):sub(1, 1)]
  if not read then
    error(core.error("invalid_argument", what .. ": unknown format " .. tostring(format)), 0)
  end
  return read(self)
end

-- As file:read(...); what names the caller in errors.
function Reader:read(what, ...)
  local asked = table.pack(...)
  if asked.n == 0 then return (self:line(false)) end
  local results = {}
  for i = 1, asked.n do
    results[i] = read_one(self, asked[i], what)
    if results[i] == nil then return table.unpack(results, 1, i) end
  end
  return table.unpack(results, 1, asked.n)
end

return { new = new }

-- Values for people, as the repl prints them: strings quoted, tables with their keys in order, deep
-- and long ones cut short. Reads tables raw, so that looking at a value changes nothing; only
-- __tostring is asked, for what has one.

local M = {}

local WIDTH <const> = 80
local DEPTH <const> = 4
local ITEMS <const> = 100  -- of one table
local INNER <const> = 300  -- bytes of a string inside a table

local ESCAPES <const> = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\",
  ['"'] = '\\"' }

local function quote(text)
  return '"' .. text:gsub('[%c"\\]', function(c)
    return ESCAPES[c] or ("\\%03d"):format(c:byte())
  end) .. '"'
end

local function show_string(text, depth)
  if depth == 0 or #text <= INNER then return quote(text) end
  return ("%s… (%d bytes)"):format(quote(text:sub(1, INNER)), #text)
end

local RANK <const> = { number = 1, string = 2, boolean = 3 }

--- Numbers, then names in order, then the rest as they come.
local function before(a, b)
  local ta, tb = RANK[type(a)] or 4, RANK[type(b)] or 4
  if ta ~= tb then return ta < tb end
  if ta <= 2 then return a < b end
  return tostring(a) < tostring(b)
end

local KEYWORDS <const> = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat
  return then true until while]]):gmatch "%a+" do KEYWORDS[word] = true end

local show

local function show_key(key, depth, seen)
  if type(key) == "string" and key:find "^[%a_][%w_]*$" and not KEYWORDS[key] then return key end
  return "[" .. show(key, depth + 1, seen) .. "]"
end

local function join(parts, depth)
  local one = "{ " .. table.concat(parts, ", ") .. " }"
  if #one + 2 * depth <= WIDTH and not one:find "\n" then return one end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(parts, ",\n" .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

local function show_items(t, depth, seen)
  local parts, keys, n = {}, {}, rawlen(t)
  for i = 1, math.min(n, ITEMS) do parts[i] = show(rawget(t, i), depth + 1, seen) end
  for key in next, t do
    if math.type(key) ~= "integer" or key < 1 or key > n then keys[#keys + 1] = key end
  end
  table.sort(keys, before)
  for i = 1, math.min(#keys, ITEMS) do
    local key = keys[i]
    parts[#parts + 1] = show_key(key, depth, seen) .. " = " .. show(rawget(t, key), depth + 1, seen)
  end
  local left = math.max(n - ITEMS, 0) + math.max(#keys - ITEMS, 0)
  if left > 0 then parts[#parts + 1] = ("… %d more"):format(left) end
  return parts
end

--- The text of a value that has __tostring; what it raises is no reason to show nothing.
local function own_text(value)
  local mt = getmetatable(value)
  if type(mt) ~= "table" or rawget(mt, "__tostring") == nil then return nil end
  local ok, text = pcall(tostring, value)
  return ok and text or "(its __tostring fails)"
end

local function show_table(t, depth, seen)
  local text = own_text(t)
  if text and depth > 0 then return text end
  if seen[t] then return "(the same again)" end
  if next(t) == nil then return text or "{}" end
  if depth >= DEPTH then return "{…}" end
  seen[t] = true
  local items = join(show_items(t, depth, seen), depth)
  seen[t] = nil
  return text and text .. " " .. items or items
end

function show(value, depth, seen)
  if type(value) == "string" then return show_string(value, depth) end
  if type(value) == "table" then return show_table(value, depth, seen) end
  if value == json.null then return "null" end
  return own_text(value) or tostring(value)
end

---@param value any
---@return string
function M.show(value)
  return show(value, 0, {})
end

return M

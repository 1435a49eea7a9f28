-- What could stand at the end of a line of Lua: keywords, globals, fields, methods, modules.
--
-- Reads tables raw and follows only tables as __index, so that pressing Tab runs no code.

local M = {}

local KEYWORDS <const> = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
  "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
}
local LAZY <const> = { "task", "retry", "budget", "http" } -- globals that load when first used
local MODULES <const> = { "json", "sandbox", "task" }
local HANDLE <const> = { "cancel", "wait" } -- of tasks, the userdata that scripts have
local DEPTH <const> = 10 -- of __index chains

--- The table behind a value's __index, or nil.
local function index_of(value)
  if type(value) == "string" then return string end
  local mt = getmetatable(value)
  local index = type(mt) == "table" and rawget(mt, "__index") or nil
  return type(index) == "table" and index or nil
end

local function get(value, name)
  for _ = 1, DEPTH do
    local field = type(value) == "table" and rawget(value, name)
    if field ~= nil and field ~= false then return field end
    value = index_of(value)
    if value == nil then return nil end
  end
end

--- Adds the names of value's fields that begin with prefix; after a colon only functions.
local function add_fields(found, value, prefix, methods)
  if type(value) == "userdata" then
    for _, name in ipairs(HANDLE) do found[name] = true end
  end
  for _ = 1, DEPTH do
    if type(value) == "table" then
      for name, field in next, value do
        if type(name) == "string" and name:find "^[%a_][%w_]*$"
          and (not methods or type(field) == "function")
          and (name:sub(1, 1) ~= "_" or prefix:sub(1, 1) == "_") then
          found[name] = true
        end
      end
    end
    value = index_of(value)
    if value == nil then return end
  end
end

local function sorted(found, prefix)
  local list = {}
  for name in pairs(found) do
    if name:sub(1, #prefix) == prefix then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

local function complete_field(globals, path, mark, prefix)
  local value = globals
  for name in path:gmatch "[%a_][%w_]*" do
    local field = get(value, name)
    if field == nil and value == globals then
      for _, lazy in ipairs(LAZY) do
        if lazy == name then field = globals[name] end
      end
    end
    if field == nil then return {} end
    value = field
  end
  local found = {}
  add_fields(found, value, prefix, mark == ":")
  return sorted(found, prefix)
end

local function complete_global(globals, prefix)
  local found = {}
  add_fields(found, globals, prefix, false)
  for _, name in ipairs(KEYWORDS) do found[name] = true end
  for _, name in ipairs(LAZY) do found[name] = true end
  return sorted(found, prefix)
end

---The names that the last word of text could become, in order, and that word's beginning.
---@param globals table
---@param text string
---@return string[] names
---@return string word
function M.complete(globals, text)
  local module = text:match "require%s*%(?%s*[\"']([%w_.]*)$"
  if module then
    local found = {}
    for _, name in ipairs(MODULES) do found[name] = true end
    return sorted(found, module), module
  end
  local method = text:match "[\"']%s*%)?:([%w_]*)$"
  if method then
    local found = {}
    add_fields(found, string, method, true)
    return sorted(found, method), method
  end
  local path, mark, word = text:match "([%a_][%w_.]*)%s*([.:])%s*([%w_]*)$"
  if path then
    local rest = text:sub(1, #text - #word)
    if rest:find "%.%.$" then return complete_global(globals, word), word end
    return complete_field(globals, path, mark, word), word
  end
  word = text:match "[%w_]*$"
  local after_mark = text:sub(1, #text - #word):find "[.:]$"
  if word == "" or word:find "^%d" or after_mark then return {}, word end
  return complete_global(globals, word), word
end

return M

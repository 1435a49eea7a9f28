-- What literal values the types of the API take, and how to say what they should be: for
-- `regolith check`. Types are texts as in lua/types: "Duration", "string[]", "a|b".

local M = {}

--- Limits of numbers: least, most, and whether only whole ones will do.
M.RANGES = {
  ["sandbox.CreateOptions.cpu"] = { 0.125 },
  ["sandbox.CreateOptions.memory"] = { 128, nil, true },
  ["sandbox.CreateOptions.disk"] = { 1, nil, true },
  ["sandbox.CreateOptions.pids"] = { 1, nil, true },
  ["sandbox.CreateOptions.timeout"] = { 1, 86400, true },
  ["sandbox.CreateOptions.idle_timeout"] = { 0, 86400, true },
  ["sandbox.CreateOptions.unencrypted_ports"] = { 1, 65535, true },
  ["sandbox.CreateOptions.encrypted_ports"] = { 1, 65535, true },
  ["sandbox.Ready.tcp"] = { 1, 65535, true },
  ["sandbox.PriceOptions.timeout"] = { 1, 86400, true },
  ["task.GroupOptions.limit"] = { 1, nil, true },
  ["task.MapOptions.limit"] = { 1, nil, true },
  ["RetryOptions.max"] = { 1, nil, true },
}

local GPUS <const> = { "T4", "L4", "A10G", "A100", "H100" }
local UNITS <const> = { ms = 0.001, s = 1, m = 60, h = 3600 }

-- Values ----------------------------------------------------------------------------------------

function M.duration_seconds(text)
  local number, unit = text:match "^%s*(%d*%.?%d+)%s*(%a*)%s*$"
  if not number then return nil end
  if unit == "" then return tonumber(number) end
  return UNITS[unit] and tonumber(number) * UNITS[unit]
end

local function is_gpu(text)
  if text:find "[ /]" then return true end -- a card's own name
  local name, count = text:match "^(%w+):?(%d*)$"
  if not name or (text:find ":" and (tonumber(count) or 0) < 1) then return false end
  for _, gpu in ipairs(GPUS) do
    if gpu == name:upper() then return true end
  end
  return false
end

--- The alternatives of "a|b|c", brackets respected.
function M.alternatives(kind)
  local out, depth, from = {}, 0, 1
  for i = 1, #kind + 1 do
    local c = kind:sub(i, i)
    if c:find "[%(<{]" then depth = depth + 1 end
    if c:find "[%)>}]" then depth = depth - 1 end
    if depth == 0 and (c == "|" or c == "") then
      out[#out + 1] = kind:sub(from, i - 1)
      from = i + 1
    end
  end
  return out
end

--- By type: whether a literal can be a value of it.
local ACCEPTS <const> = {
  any = function() return true end,
  ["function"] = function(node) return node.kind == "function" end,
  string = function(node) return node.kind == "string" end,
  boolean = function(node) return node.kind == "boolean" end,
  Gpu = function(node) return node.kind == "string" and is_gpu(node.value) end,
  Duration = function(node)
    if node.kind == "number" then return node.value >= 0 end
    return node.kind == "string" and M.duration_seconds(node.value) ~= nil
  end,
  Size = function(node)
    if node.kind == "number" then return math.tointeger(node.value) ~= nil end
    return node.kind == "string" and node.value:find "^%s*%d+%s*%a*%s*$" ~= nil
  end,
  integer = function(node) return math.tointeger(tonumber(node.value)) ~= nil end,
  number = function(node) return tonumber(node.value) ~= nil end,
}

--- Whether a literal can be a value of one alternative of a type.
function M.accepts(node, kind)
  if kind:find '^"' then return node.kind == "string" and node.value == kind:sub(2, -2) end
  if kind:find "^fun" or kind:find "^%(fun" and not kind:find "%]$" then kind = "function" end
  if kind == "integer" or kind == "number" then
    return (node.kind == "number" or node.kind == "string") and ACCEPTS[kind](node)
  end
  if ACCEPTS[kind] then return ACCEPTS[kind](node) end
  return node.kind == "table"
end

M.LITERALS = {
  string = true, number = true, boolean = true, table = true, ["function"] = true,
}

function M.describe(node)
  if node.kind == "string" then return ("%q"):format(node.value) end
  if node.kind == "number" or node.kind == "boolean" then return tostring(node.value) end
  return "a " .. node.kind
end

local EXPLAINED <const> = {
  Duration = 'a duration (seconds, or "250ms", "90s", "5m", "2h")',
  Size = 'a size (MiB as an integer, or "512MiB", "2GiB")',
  Gpu = "a GPU (T4, L4, A10G, A100, H100, or several as \"A100:2\")",
}

function M.explain(kind)
  local out = {}
  for i, one in ipairs(M.alternatives(kind)) do
    out[i] = EXPLAINED[one] or one:find '^"' and one
      or one:find "^fun" and "a function" or one:find "%[%]$" and "a list"
      or one:find "[<{%.]" and "a table" or one
  end
  return table.concat(out, " or ")
end

return M

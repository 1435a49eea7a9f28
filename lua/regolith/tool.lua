-- What `regolith api` and `regolith check` run, each in a Lua state of its own that is the
-- program's and not a script's. Each function takes the operands and options and returns the exit
-- status and the lines for standard output and standard error.

local host = ...

local M = {}

--- JSON text: keys in order, lists where keys are 1…n.
local function to_json(value)
  if type(value) == "string" then
    return '"' .. value:gsub('[%c"\\]', function(c)
      local short = { ["\n"] = "\\n", ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" }
      return short[c] or ("\\u%04x"):format(c:byte())
    end) .. '"'
  end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  if #value > 0 or next(value) == nil then
    for i, item in ipairs(value) do parts[i] = to_json(item) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do parts[i] = to_json(key) .. ":" .. to_json(value[key]) end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function read_types()
  local names, texts = {}, {}
  for name in pairs(host.files) do
    if name:find "^types/" then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do texts[i] = host.files[name] end
  return require("regolith.api").read(texts)
end

function M.api(operands, json)
  local api = require "regolith.api"
  local model = read_types()
  local name = operands[1]
  if json then
    local data, message = api.data(model, name)
    if not data then return 1, {}, { "regolith: " .. message } end
    return 0, { to_json(data) }, {}
  end
  if not name then return 0, api.overview(model), {} end
  local lines, message = api.page(model, name)
  if lines then return 0, lines, {} end
  return 1, {}, { "regolith: " .. message, "(regolith api lists all names)" }
end

local function read_file(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text, failure = file:read "a"
  file:close()
  return text, failure and (path .. ": " .. failure)
end

function M.check(operands, json)
  local check = require "regolith.check"
  local model = read_types()
  local out, status = {}, 0
  for _, path in ipairs(operands) do
    local text, message = read_file(path)
    if not text then return 2, {}, { "regolith: cannot read " .. message } end
    for _, finding in ipairs(check.run(text, path, model)) do
      if finding.kind == "error" then status = 1 end
      out[#out + 1] = json and finding
        or ("%s:%d:%d: %s: %s"):format(path, finding.line, finding.column, finding.kind,
          finding.message)
    end
  end
  if json then out = { to_json(out) } end
  return status, out, {}
end

return M

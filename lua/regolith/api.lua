-- The reference of the scripting API, read from the comments in lua/types: for `regolith api`, and
-- for `regolith check`, which holds scripts against it.
--
-- Read are the forms of LuaCATS that those files use: ---@class, ---@field, ---@alias, ---@param,
-- ---@return, ---@type, text, ```lua examples, and the declaration behind a comment.

local suggest = require "regolith.suggest"

local M = {}

--- What a handle is called where people read about it.
local HANDLES <const> = { Sandbox = "sb", Result = "r", Process = "p", Task = "t", Group = "g" }
local WIDTH <const> = 100

-- Reading ---------------------------------------------------------------------------------------

--- Splits "type description": the type ends at a blank outside of brackets that does not follow
--- ":", "," or "|".
local function split_type(text)
  local depth, quoted = 0, false
  for i = 1, #text do
    local c = text:sub(i, i)
    if c == '"' then quoted = not quoted end
    if not quoted then
      if c:find "[%(<{%[]" then depth = depth + 1 end
      if c:find "[%)>}%]]" then depth = depth - 1 end
      if c == " " and depth == 0 and not text:sub(i - 1, i - 1):find "[:,|]" then
        return text:sub(1, i - 1), text:sub(i + 1)
      end
    end
  end
  return text, ""
end

--- The comment lines of one block, taken apart.
local function read_block(lines)
  local block = { text = {}, fields = {}, params = {}, returns = {} }
  local example
  for _, line in ipairs(lines) do
    local tag, rest = line:match "^@(%a+)%s*(.*)$"
    if line:find "^```" then
      if example then
        block.example, example = table.concat(example, "\n"), nil
      else
        example = {}
      end
    elseif example then
      example[#example + 1] = line
    elseif not tag then
      block.text[#block.text + 1] = (line:gsub("^ (%S)", "%1"))
    elseif tag == "field" or tag == "param" then
      local name, optional, after = rest:match "^([%w_%.]+)(%??)%s+(.*)$"
      local kind, description = split_type(after)
      local list = tag == "field" and block.fields or block.params
      list[#list + 1] = {
        name = name, optional = optional == "?", type = kind, text = description,
      }
    elseif tag == "return" then
      local kind, after = split_type(rest)
      local name, description = after:match "^(%S+)%s*(.*)$"
      block.returns[#block.returns + 1] = { type = kind, name = name, text = description }
    elseif tag == "class" then
      block.class, block.parent = rest:match "^([%w_%.]+):?%s*([%w_%.]*)"
    elseif tag == "alias" then
      block.alias, block.type = rest:match "^(%S+)%s+(.*)$"
    elseif tag == "type" then
      block.type = rest
    end
  end
  return block
end

--- Text lines as paragraphs; the one that begins with "Errors" apart.
local function read_text(block)
  local paragraphs, current = {}, {}
  local function flush()
    local text = table.concat(current, " ")
    if text:find "^Errors" then
      block.errors = text
    elseif text ~= "" then
      paragraphs[#paragraphs + 1] = text
    end
    current = {}
  end
  for _, line in ipairs(block.text) do
    if line == "" then flush() else current[#current + 1] = line end
  end
  flush()
  block.text = paragraphs
  block.summary = (paragraphs[1] or ""):match "^(.-%.)%s" or paragraphs[1] or ""
  return block
end

local function add_function(model, block, name)
  local owner, method = name:match "^(%a+):([%w_]+)$"
  block.name = name
  if owner then
    block.class = model.locals[owner] or owner
    block.method = method
    block.display = (HANDLES[owner] or owner) .. ":" .. method
  else
    block.module = name:match "^(%w+)%." or ""
    block.display = name
  end
  model.functions[#model.functions + 1] = block
  model.by_name[name] = block
  model.by_name[block.display] = block
end

--- What a comment block is about, from its tags and the line behind it.
local function add_block(model, lines, code)
  local block = read_text(read_block(lines))
  if block.class then
    block.name = block.class
    model.classes[block.class] = block
    local variable = code:match "^local (%w+)%s*=" or code:match "^(%w+)%s*="
    if variable then model.locals[variable] = block.class end
  elseif block.alias then
    block.name = block.alias
    model.aliases[block.alias] = block
  elseif code:find "^function " then
    add_function(model, block, code:match "^function ([%w_%.:]+)")
  elseif block.type and code:match "^([%w_%.]+)%s*=" then
    block.name = code:match "^([%w_%.]+)%s*="
    block.display = block.name
    block.module = block.name:match "^(%w+)%." or ""
    model.values[#model.values + 1] = block
    model.by_name[block.name] = block
  end
end

---Reads the type files: a list of texts.
---@param texts string[]
---@return table model
function M.read(texts)
  local model = {
    functions = {}, values = {}, by_name = {}, classes = {}, aliases = {}, locals = {},
  }
  for _, text in ipairs(texts) do
    local lines = {}
    for line in (text .. "\n"):gmatch "([^\n]*)\n" do
      local comment = line:match "^%-%-%-(.*)$"
      if comment then
        lines[#lines + 1] = comment
      else
        if #lines > 0 then add_block(model, lines, line) end
        lines = {}
      end
    end
  end
  return model
end

---The fields of a class, those of its parents included.
---@param model table
---@param name string
---@return table[]
function M.fields(model, name)
  local out, class = {}, model.classes[name]
  while class do
    for _, field in ipairs(class.fields) do out[#out + 1] = field end
    class = model.classes[class.parent]
  end
  return out
end

--- The table class in a type: "string|string[]|sandbox.ExecOptions" has one.
function M.class_in(model, kind)
  for part in kind:gmatch "[%w_%.]+" do
    if model.classes[part] and #M.fields(model, part) > 0 then return part end
  end
  return nil
end

-- Showing ---------------------------------------------------------------------------------------

--- Display width: bytes that are not the tail of a UTF-8 sequence.
local function width(text)
  return #text:gsub("[\x80-\xbf]", "")
end

local function wrap(out, text, indent, hanging)
  local line, fresh = indent, true
  for word in text:gmatch "%S+" do
    if not fresh and width(line) + 1 + width(word) > WIDTH then
      out[#out + 1] = line
      line, fresh = hanging or indent, true
    end
    line = line .. (fresh and "" or " ") .. word
    fresh = false
  end
  if not fresh then out[#out + 1] = line end
end

local function pad(text, to)
  return text .. (" "):rep(to - width(text))
end

local function show_fields(out, fields, indent)
  local names, types = 0, 0
  for _, field in ipairs(fields) do
    names = math.max(names, #field.name + 1)
    if width(field.type) <= 28 then types = math.max(types, width(field.type)) end
  end
  for _, field in ipairs(fields) do
    local head = indent .. pad(field.name .. (field.optional and "?" or ""), names) .. "  "
    local column = width(head) + types + 2
    if width(field.type) > types then
      wrap(out, field.type, head)
      if field.text ~= "" then wrap(out, field.text, (" "):rep(column)) end
    else
      head = head .. pad(field.type, types) .. "  "
      if field.text == "" then
        out[#out + 1] = (head:gsub("%s+$", ""))
      else
        wrap(out, field.text, head, (" "):rep(column))
      end
    end
  end
end

local function signature(block)
  local names, results = {}, {}
  for i, param in ipairs(block.params) do
    names[i] = param.name .. (param.optional and "?" or "")
  end
  for i, result in ipairs(block.returns) do
    results[i] = result.name == "..." and "…" or result.type
  end
  return block.display .. "(" .. table.concat(names, ", ") .. ")"
    .. (#results > 0 and " → " .. table.concat(results, ", ") or "")
end

local function show_example(out, block)
  if not block.example then return end
  out[#out + 1] = ""
  for line in (block.example .. "\n"):gmatch "([^\n]*)\n" do out[#out + 1] = "    " .. line end
end

local function show_text(out, block)
  for i, paragraph in ipairs(block.text) do
    if i > 1 then out[#out + 1] = "" end
    wrap(out, paragraph, "")
  end
end

--- Classes that are worth a list under a function: its options and what it returns.
local function show_class(out, model, name, shown, depth)
  if shown[name] then return end
  shown[name] = true
  local fields = M.fields(model, name)
  out[#out + 1] = ""
  out[#out + 1] = name
  show_fields(out, fields, "  ")
  if depth > 0 then return end
  for _, field in ipairs(fields) do
    local inner = M.class_in(model, field.type)
    if inner then show_class(out, model, inner, shown, depth + 1) end
  end
end

local function show_function(model, block)
  local out, shown = { signature(block), "" }, {}
  show_text(out, block)
  if block.errors then
    out[#out + 1] = ""
    wrap(out, block.errors, "", "  ")
  end
  show_example(out, block)
  if #block.params > 0 then
    out[#out + 1] = ""
    show_fields(out, block.params, "  ")
  end
  for _, param in ipairs(block.params) do
    local class = M.class_in(model, param.type)
    if class then show_class(out, model, class, shown, 0) end
  end
  for _, result in ipairs(block.returns) do
    local class = M.class_in(model, result.type)
    if class and class ~= "sandbox.Sandbox" then show_class(out, model, class, shown, 1) end
  end
  return out
end

local function list_functions(out, blocks)
  local most = 0
  for _, block in ipairs(blocks) do most = math.max(most, width(block.display)) end
  for _, block in ipairs(blocks) do
    local head = "  " .. pad(block.display, most) .. "  "
    local line = head .. block.summary
    if width(line) > WIDTH then
      line = line:sub(1, utf8.offset(line, WIDTH) - 1):gsub("%s+%S*$", "") .. " …"
    end
    out[#out + 1] = line
  end
end

local function select_blocks(model, keep)
  local out = {}
  for _, list in ipairs { model.functions, model.values } do
    for _, block in ipairs(list) do
      if keep(block) then out[#out + 1] = block end
    end
  end
  return out
end

local function show_group(out, model, title, keep)
  local blocks = select_blocks(model, keep)
  if #blocks == 0 then return end
  out[#out + 1] = title
  list_functions(out, blocks)
  out[#out + 1] = ""
end

---Everything, a line each.
---@return string[] lines
function M.overview(model)
  local out = {}
  local function of_class(name)
    return function(block) return block.class == name end
  end
  local function of_module(name)
    return function(block) return not block.class and block.module == name end
  end
  show_group(out, model, 'Sandboxes: local sandbox = require "sandbox"', of_module "sandbox")
  show_group(out, model, "A sandbox: local sb <close> = sandbox.create { … }",
    of_class "sandbox.Sandbox")
  show_group(out, model, "What a command gave: local r = sb:exec { … }", of_class "sandbox.Result")
  show_group(out, model, "A running command: local p = sb:spawn { … }",
    of_class "sandbox.Process")
  show_group(out, model, "Several things at once", of_module "task")
  show_group(out, model, "A task: local t = task.spawn(fn)", of_class "task.Task")
  show_group(out, model, "A group: local g <close> = task.group { … }", of_class "task.Group")
  show_group(out, model, "The script", of_module "")
  for _, module in ipairs { "log", "json", "http" } do
    show_group(out, model, module, of_module(module))
  end
  out[#out + 1] = "regolith api NAME shows one of them, a type (sandbox.CreateOptions, Error, "
    .. "Duration) or a"
  out[#out + 1] = "module (task); --json gives the same to programs."
  return out
end

local function show_named_class(model, class)
  local out = { class.name, "" }
  show_text(out, class)
  show_example(out, class)
  if #class.fields > 0 or class.parent ~= "" then
    if #class.text > 0 then out[#out + 1] = "" end
    show_fields(out, M.fields(model, class.name), "  ")
  end
  local methods = select_blocks(model, function(block)
    return block.class == class.name or not block.class and block.module == class.name
  end)
  if #methods > 0 then
    out[#out + 1] = ""
    list_functions(out, methods)
  end
  return out
end

--- Functions by the last part of their name: "exec" finds sandbox.exec and sb:exec.
local function find_short(model, name)
  return select_blocks(model, function(block)
    return block.display:match "[%w_]+$" == name
  end)
end

local function all_names(model)
  local names = {}
  for _, block in ipairs(select_blocks(model, function() return true end)) do
    names[#names + 1] = block.display
  end
  for name in pairs(model.classes) do names[#names + 1] = name end
  for name in pairs(model.aliases) do names[#names + 1] = name end
  table.sort(names)
  return names
end

---The page of one name; nil and a message where there is none.
---@return string[]? lines
---@return string? message
function M.page(model, name)
  local block = model.by_name[name]
  if block and block.params and not (block.type and #block.params == 0) then
    return show_function(model, block)
  end
  if block then
    local out = { block.display .. ": " .. block.type, "" }
    show_text(out, block)
    show_example(out, block)
    return out
  end
  if model.classes[name] then return show_named_class(model, model.classes[name]) end
  if model.aliases[name] then
    local alias = model.aliases[name]
    local out = {}
    wrap(out, name .. " = " .. alias.type:gsub("|", " | "), "", "  ")
    out[#out + 1] = ""
    show_text(out, alias)
    return out
  end
  local short = find_short(model, name)
  if #short == 1 then return M.page(model, short[1].display) end
  if #short > 1 then
    local out = {}
    list_functions(out, short)
    return out
  end
  return nil, ('the API has no "%s"%s'):format(name, suggest.phrase(name, all_names(model)))
end

-- For programs ----------------------------------------------------------------------------------

local function plain_list(list)
  local out = {}
  for i, item in ipairs(list) do
    out[i] = {
      name = item.name, type = item.type, optional = item.optional,
      description = item.text ~= "" and item.text or nil,
    }
  end
  return out
end

local function plain_function(block)
  return {
    name = block.display,
    signature = block.params and signature(block) or nil,
    summary = block.summary,
    description = table.concat(block.text, "\n\n"),
    errors = block.errors,
    example = block.example,
    type = block.type,
    parameters = block.params and plain_list(block.params),
    returns = block.returns and plain_list(block.returns),
  }
end

local function plain_class(model, class)
  return {
    name = class.name,
    description = table.concat(class.text, "\n\n"),
    fields = plain_list(M.fields(model, class.name)),
  }
end

---The whole reference, or one name of it, as plain data.
function M.data(model, name)
  if name then
    local class = model.classes[name]
    local block = model.by_name[name]
    if not block and not class then
      local short = find_short(model, name)
      block = #short == 1 and short[1] or nil
    end
    if block then
      local out = plain_function(block)
      out.types = {}
      for _, list in ipairs { block.params, block.returns } do
        for _, item in ipairs(list) do
          local inner = M.class_in(model, item.type)
          if inner then out.types[#out.types + 1] = plain_class(model, model.classes[inner]) end
        end
      end
      return out
    end
    if class then return plain_class(model, class) end
    return nil, select(2, M.page(model, name)) or "there is no JSON for a list of names"
  end
  local out = { functions = {}, types = {}, aliases = {} }
  for i, block in ipairs(select_blocks(model, function() return true end)) do
    out.functions[i] = plain_function(block)
  end
  local classes = {}
  for class_name in pairs(model.classes) do classes[#classes + 1] = class_name end
  table.sort(classes)
  for i, class_name in ipairs(classes) do
    out.types[i] = plain_class(model, model.classes[class_name])
  end
  for alias, block in pairs(model.aliases) do
    out.aliases[alias] = { type = block.type, description = table.concat(block.text, " ") }
  end
  return out
end

return M

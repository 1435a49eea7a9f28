-- What is wrong with a script, found without running it: for `regolith check`.
--
-- One pass of a parser (check_parser.lua) with scopes. Expressions become small nodes, of which
-- just enough is kept to know what a call is about: locals carry the API type of what they were
-- given ("sandbox.Sandbox"), and calls are held against the reference (api.lua): unknown
-- functions, fields and options, and literal values that an option does not take. What cannot be
-- known is not complained about.

local api = require "regolith.api"
local lexer = require "regolith.lexer"
local suggest = require "regolith.suggest"
local values = require "regolith.check_values"

local M = {}

--- What scripts do not have, and what to use instead.
local REMOVED <const> = {
  ["debug"] = "errors carry tracebacks; use log and print",
  ["string.dump"] = "send source text, and load() it",
  ["package.loadlib"] = "scripts are Lua alone",
  ["io.popen"] = "run programs in a sandbox: sandbox.run(command)",
  ["io.tmpfile"] = "keep data in a variable, or in a file of a sandbox",
  ["io.input"] = "use io.open(path), and file:read",
  ["io.output"] = 'use io.open(path, "w"), and file:write',
  ["io.close"] = "use file:close()",
  ["os.execute"] = "run programs in a sandbox: sandbox.run(command)",
  ["os.exit"] = "return from the script, or raise an error()",
  ["os.remove"] = 'files of a sandbox: sb:exec { "rm", path }',
  ["os.rename"] = 'files of a sandbox: sb:exec { "mv", from, to }',
  ["os.tmpname"] = "keep data in a variable, or in a file of a sandbox",
  ["os.setlocale"] = "text is bytes, in the C locale",
}

local LIBRARIES <const> = {
  "string", "table", "math", "utf8", "coroutine", "io", "os",
}

-- The checker -----------------------------------------------------------------------------------

local Checker = {}
Checker.__index = Checker

function Checker:find(kind, at, message)
  self.findings[#self.findings + 1] = {
    kind = kind, file = self.file, line = at.line, column = at.column, message = message,
  }
end

--- Functions, values and fields that a module or class has.
function Checker:members(kind)
  local out = self.member_cache[kind]
  if out then return out end
  out = {}
  if kind:find "^lib:" then
    for name in pairs(_G[kind:sub(5)]) do out[name] = true end
  else
    for _, list in ipairs { self.model.functions, self.model.values } do
      for _, block in ipairs(list) do
        if block.method and block.class == kind then
          out[block.method] = block
        elseif not block.method and block.module == kind and kind ~= "" then
          out[block.name:match "[%w_]+$"] = block
        end
      end
    end
    if self.model.classes[kind] then
      for _, field in ipairs(api.fields(self.model, kind)) do out[field.name] = field end
    end
    if kind == "sandbox.Sandbox" then out.detached = true end
  end
  self.member_cache[kind] = out
  return out
end

local function names_of(set)
  local out = {}
  for name in pairs(set) do out[#out + 1] = name end
  table.sort(out)
  return out
end

local DISPLAY <const> = {
  ["sandbox.Sandbox"] = "a sandbox", ["sandbox.Result"] = "a result", ["task.Task"] = "a task",
  ["task.Group"] = "a group", ["sandbox.Status"] = "a status",
}

--- The type of an expression, as far as it is known: once per node, where it stands.
function Checker:infer(node)
  if node.inferred == nil then node.inferred = self:infer_now(node) or false end
  return node.inferred or nil
end

function Checker:infer_now(node)
  if node.kind == "paren" then return self:infer(node.inner) end
  if node.kind == "name" then
    if node.binding then return node.binding.type end
    if self.modules[node.name] then return node.name end
    if self.libraries[node.name] then return "lib:" .. node.name end
  elseif node.kind == "call" then
    if node.callee.kind == "name" and node.callee.name == "require" and not node.callee.binding
      and node.args[1] and node.args[1].kind == "string" then
      return self.modules[node.args[1].value] and node.args[1].value or nil
    end
    local block = self:resolve(node)
    local first = block and block.returns and block.returns[1]
    return first and self.model.classes[first.type] and first.type or nil
  end
  return nil
end

--- The function of the API that a call calls.
function Checker:resolve(node)
  local callee = node.callee
  local block
  if node.method then
    local kind = self:infer(callee)
    block = kind and self:members(kind)[node.method]
  elseif callee.kind == "index" and callee.name then
    local kind = self:infer(callee.object)
    block = kind and self:members(kind)[callee.name]
  elseif callee.kind == "name" and not callee.binding then
    block = self.model.by_name[callee.name]
  end
  return type(block) == "table" and block.params and block.returns and block or nil
end

--- x.name or x:name
function Checker:check_member(object, name, at)
  local kind = self:infer(object)
  if not kind then return end
  local path = kind:gsub("^lib:", "") .. "." .. name
  if REMOVED[path] then
    self:find("error", at, path .. " is not available in scripts: " .. REMOVED[path])
    return
  end
  local members = self:members(kind)
  if members[name] ~= nil or next(members) == nil then return end
  self:find("error", at, ("%s has no %q%s"):format(DISPLAY[kind] or kind:gsub("^lib:", ""), name,
    suggest.phrase(name, names_of(members))))
end

function Checker:check_range(node, path)
  local range = values.RANGES[path]
  if not range then return end
  local value = node.value
  if node.kind == "string" then value = values.duration_seconds(value) end
  if type(value) ~= "number" then return end
  local name = path:match "[%w_]+$"
  if range[3] and value ~= math.floor(value) then
    self:find("error", node, ("%s must be a whole number, not %s"):format(name,
      values.describe(node)))
  elseif value < range[1] then
    self:find("error", node, ("%s must be at least %s, not %s"):format(name, range[1],
      values.describe(node)))
  elseif range[2] and value > range[2] then
    self:find("error", node, ("%s must be at most %s, not %s"):format(name, range[2],
      values.describe(node)))
  end
end

--- The keys and values of a literal table against a class.
function Checker:check_table(node, class, has_items)
  local known, names = {}, {}
  for _, field in ipairs(api.fields(self.model, class)) do
    known[field.name] = field
    names[#names + 1] = field.name
  end
  local given = {}
  for _, item in ipairs(node.fields) do
    local field = item.name and known[item.name]
    if field then
      given[item.name] = true
      self:check_value(item.value, field.type, class .. "." .. field.name)
    elseif item.name and not (has_items and item.name == "command") then
      self:find("error", item, ("unknown option %q%s"):format(item.name,
        suggest.phrase(item.name, names)))
    end
  end
  if #node.items > 0 and not has_items then
    self:find("error", node.items[1], "options have names: { " .. names[1] .. " = … }")
  end
  for _, field in ipairs(api.fields(self.model, class)) do
    if not field.optional and not given[field.name] and not node.computed then
      self:find("error", node, field.name .. " is missing")
    end
  end
end

--- A value against a type; path names what it is for ("sandbox.CreateOptions.timeout").
function Checker:check_value(node, kind, path)
  if node.kind == "paren" then return self:check_value(node.inner, kind, path) end
  if not values.LITERALS[node.kind] then return end
  local class = api.class_in(self.model, kind)
  local accepted, list = false, nil
  for _, one in ipairs(values.alternatives(kind)) do
    accepted = accepted or values.accepts(node, one)
    list = list or one:match "^(.*)%[%]$"
  end
  if not accepted then
    self:find("error", node, ("%s must be %s, not %s"):format(path:match "[%w_]+$",
      values.explain(kind), values.describe(node)))
    return
  end
  if node.kind ~= "table" then return self:check_range(node, path) end
  if list then
    for _, item in ipairs(node.items) do
      if item.kind ~= "number" or list ~= "string" then self:check_value(item, list, path) end
    end
  end
  if class and list ~= class then self:check_table(node, class, list ~= nil) end
  if kind == "table<string, string>" then
    for _, field in ipairs(node.fields) do
      if values.LITERALS[field.value.kind] and field.value.kind ~= "string" then
        self:find("error", field.value, ("%s.%s must be a string, not %s"):format(
          path:match "[%w_]+$", field.name or "…", values.describe(field.value)))
      end
    end
  end
end

function Checker:check_args(node, block)
  local args, last = node.args, node.args[#node.args]
  local open = last and (last.kind == "call" or last.kind == "vararg")
  local swapped = block.name == "task.map" and #args == 2 and args[2].kind == "function"
  for i, param in ipairs(block.params) do
    local arg = args[i]
    if swapped then break end
    if arg then
      self:check_value(arg, param.type, param.name)
    elseif not param.optional and param.name ~= "..." and not open then
      self:find("error", node, ("%s needs %s"):format(block.display, param.name))
      return
    end
  end
end

function Checker:check_call(node)
  local block = self:resolve(node)
  if not block then return end
  local callee = node.callee
  if block.method and not node.method then
    local first = node.args[1]
    local object = callee.object
    if not (first and first.kind == "name" and object.kind == "name"
      and first.name == object.name) then
      self:find("error", node, ("call it with a colon: %s:%s(…)"):format(
        object.kind == "name" and object.name or "sb", block.method))
    end
    return
  end
  if not block.method and node.method then
    self:find("error", node, ("call it with a dot: %s(…)"):format(block.name))
    return
  end
  self:check_args(node, block)
end

-- Scopes ----------------------------------------------------------------------------------------

function Checker:open_scope(nested)
  self.scope = { outer = self.scope, names = {}, all = {}, nesting = self.nesting }
  if nested then self.nesting = self.nesting + 1 end
end

function Checker:close_scope()
  for _, binding in ipairs(self.scope.all) do
    if binding.created and not binding.released then
      self:find("warning", binding.created, ("the sandbox in %s lives until the script ends: "
        .. "local %s <close> = … ends it with the block"):format(binding.name, binding.name))
    end
  end
  self.nesting = self.scope.nesting
  self.scope = self.scope.outer
end

function Checker:declare(name, binding)
  binding = binding or {}
  binding.name = name
  self.scope.names[name] = binding
  table.insert(self.scope.all, binding)
  return binding
end

function Checker:lookup(name)
  local scope = self.scope
  while scope do
    if scope.names[name] then return scope.names[name] end
    scope = scope.outer
  end
  return nil
end

function Checker:set_global(node)
  if not self.writes[node.name] then
    self.writes[node.name] = true
    if not self.known[node.name] and node.name ~= "_ENV" then
      self:find("warning", node, ("sets the global %s; local %s is probably meant"):format(
        node.name, node.name))
    end
  end
end

--- x.name = …: from here on x has it.
function Checker:add_member(target)
  local kind = target.name and self:infer(target.object)
  if not kind then return end
  self:members(kind)[target.name] = true
  for i = #self.findings, 1, -1 do
    local found = self.findings[i]
    if found.line == target.line and found.column == target.column then
      table.remove(self.findings, i)
    end
  end
end

function Checker:check_globals()
  if self.writes._ENV then return end
  for _, node in ipairs(self.reads) do
    local name = node.name
    if REMOVED[name] then
      self:find("error", node, name .. " is not available in scripts: " .. REMOVED[name])
    elseif not self.known[name] and not self.writes[name] then
      self:find("error", node, ("unknown global %q%s"):format(name,
        suggest.phrase(name, names_of(self.known))))
    end
  end
end

require "regolith.check_parser"(Checker)

local function new_checker(file, model)
  local self = setmetatable({
    file = file, model = model, findings = {}, reads = {}, writes = {}, known = { _ENV = true },
    modules = {}, libraries = {}, member_cache = {}, at = 1, depth = 0, nesting = 0,
    vararg = true,
  }, Checker)
  for name in pairs(_G) do self.known[name] = not REMOVED[name] or nil end
  for _, list in ipairs { model.functions, model.values } do
    for _, block in ipairs(list) do
      if not block.method then
        self.known[block.module ~= "" and block.module or block.name] = true
        if block.module ~= "" then self.modules[block.module] = true end
      end
    end
  end
  for _, name in ipairs(LIBRARIES) do self.libraries[name] = true end
  return self
end

--- What the real compiler says, for what this parser lets pass (labels, limits).
local function compile(self, text)
  local chunk, message = load(text:gsub("^#[^\n]*", ""), "=script", "t")
  if chunk then return end
  local line, said = message:match "^script:(%d+): (.*)$"
  local plain = (said or message):gsub("<goto>", "goto")
  self:find("error", { line = tonumber(line) or 1, column = 1 }, plain)
end

---Checks one script. Findings are { kind = "error" | "warning", file, line, column, message }, in
---the order of the text.
---@param text string
---@param file string its name, for the findings
---@param model table of regolith.api
---@return table[] findings
function M.run(text, file, model)
  local self = new_checker(file, model)
  local ok, failure = pcall(function()
    self.tokens = lexer.read(text)
    self:open_scope(false)
    self:block()
    if self.tokens[self.at].kind ~= "eof" then self:fail "a statement is expected" end
    self:close_scope()
    self:check_globals()
  end)
  if ok then
    compile(self, text)
  elseif type(failure) == "table" then
    self.findings = {}
    self:find("error", failure, failure.message)
  else
    error(failure, 0)
  end
  table.sort(self.findings, function(a, b)
    if a.line ~= b.line then return a.line < b.line end
    if a.column ~= b.column then return a.column < b.column end
    return a.message < b.message
  end)
  return self.findings
end

return M

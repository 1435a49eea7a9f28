-- What is wrong with a script, found without running it: for `regolith check`.
--
-- One pass of a recursive-descent parser with scopes. Expressions become small nodes, of which just
-- enough is kept to know what a call is about: locals carry the API type of what they were given
-- ("sandbox.Sandbox"), and calls are held against the reference (lua/regolith/api.lua): unknown
-- functions, fields and options, and literal values that an option does not take. What cannot be
-- known is not complained about.

local api = require "regolith.api"
local lexer = require "regolith.lexer"
local suggest = require "regolith.suggest"

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

--- Limits of numbers: least, most, and whether only whole ones will do.
local RANGES <const> = {
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

local function duration_seconds(text)
  local number, unit = text:match "^%s*(%d*%.?%d+)%s*(%a*)%s*$"
  if not number then return nil end
  if unit == "" then return tonumber(number) end
  return UNITS[unit] and tonumber(number) * UNITS[unit]
end

local function is_gpu(text)
  local name, count = text:match "^(%w+):?(%d*)$"
  if not name or (text:find ":" and (tonumber(count) or 0) < 1) then return false end
  for _, gpu in ipairs(GPUS) do
    if gpu == name:upper() then return true end
  end
  return false
end

--- The alternatives of "a|b|c", brackets respected.
local function alternatives(kind)
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
    return node.kind == "string" and duration_seconds(node.value) ~= nil
  end,
  Size = function(node)
    if node.kind == "number" then return math.tointeger(node.value) ~= nil end
    return node.kind == "string" and node.value:find "^%s*%d+%s*%a*%s*$" ~= nil
  end,
  integer = function(node) return math.tointeger(tonumber(node.value)) ~= nil end,
  number = function(node) return tonumber(node.value) ~= nil end,
}

--- Whether a literal can be a value of one alternative of a type.
local function accepts(node, kind)
  if kind:find '^"' then return node.kind == "string" and node.value == kind:sub(2, -2) end
  if kind:find "^fun" or kind:find "^%(fun" and not kind:find "%]$" then kind = "function" end
  if kind == "integer" or kind == "number" then
    return (node.kind == "number" or node.kind == "string") and ACCEPTS[kind](node)
  end
  if ACCEPTS[kind] then return ACCEPTS[kind](node) end
  return node.kind == "table"
end

local LITERALS <const> = {
  string = true, number = true, boolean = true, table = true, ["function"] = true,
}

local function describe(node)
  if node.kind == "string" then return ("%q"):format(node.value) end
  if node.kind == "number" or node.kind == "boolean" then return tostring(node.value) end
  return "a " .. node.kind
end

local EXPLAINED <const> = {
  Duration = 'a duration (seconds, or "250ms", "90s", "5m", "2h")',
  Size = 'a size (MiB as an integer, or "512MiB", "2GiB")',
  Gpu = "a GPU (T4, L4, A10G, A100, H100, or several as \"A100:2\")",
}

local function explain(kind)
  local out = {}
  for i, one in ipairs(alternatives(kind)) do
    out[i] = EXPLAINED[one] or one:find '^"' and one
      or one:find "^fun" and "a function" or one:find "%[%]$" and "a list"
      or one:find "[<{%.]" and "a table" or one
  end
  return table.concat(out, " or ")
end

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
  local range = RANGES[path]
  if not range then return end
  local value = node.value
  if node.kind == "string" then value = duration_seconds(value) end
  if type(value) ~= "number" then return end
  local name = path:match "[%w_]+$"
  if range[3] and value ~= math.floor(value) then
    self:find("error", node, ("%s must be a whole number, not %s"):format(name, describe(node)))
  elseif value < range[1] then
    self:find("error", node, ("%s must be at least %s, not %s"):format(name, range[1],
      describe(node)))
  elseif range[2] and value > range[2] then
    self:find("error", node, ("%s must be at most %s, not %s"):format(name, range[2],
      describe(node)))
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
  if not LITERALS[node.kind] then return end
  local class = api.class_in(self.model, kind)
  local accepted, list = false, nil
  for _, one in ipairs(alternatives(kind)) do
    accepted = accepted or accepts(node, one)
    list = list or one:match "^(.*)%[%]$"
  end
  if not accepted then
    self:find("error", node, ("%s must be %s, not %s"):format(path:match "[%w_]+$", explain(kind),
      describe(node)))
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
      if LITERALS[field.value.kind] and field.value.kind ~= "string" then
        self:find("error", field.value, ("%s.%s must be a string, not %s"):format(
          path:match "[%w_]+$", field.name or "…", describe(field.value)))
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

-- The parser ------------------------------------------------------------------------------------

function Checker:peek(value)
  local token = self.tokens[self.at]
  return token.value == value and (token.kind == "op" or token.kind == "keyword")
end

function Checker:advance()
  self.at = self.at + 1
  return self.tokens[self.at - 1]
end

function Checker:accept(value)
  return self:peek(value) and self:advance() or nil
end

function Checker:fail(message)
  local token = self.tokens[self.at]
  local near = token.kind == "eof" and token.value or "'" .. tostring(token.value) .. "'"
  error({ line = token.line, column = token.column, message = message .. " near " .. near }, 0)
end

function Checker:expect(value, opener)
  if self:peek(value) then return self:advance() end
  if opener and opener.line ~= self.tokens[self.at].line then
    self:fail(("'%s' expected (to close '%s' at line %d)"):format(value, opener.value,
      opener.line))
  end
  self:fail("'" .. value .. "' expected")
end

function Checker:expect_name()
  if self.tokens[self.at].kind ~= "name" then self:fail "a name is expected" end
  return self:advance()
end

local BINARY <const> = {
  ["or"] = { 1, 1 }, ["and"] = { 2, 2 },
  ["<"] = { 3, 3 }, [">"] = { 3, 3 }, ["<="] = { 3, 3 }, [">="] = { 3, 3 }, ["~="] = { 3, 3 },
  ["=="] = { 3, 3 }, ["|"] = { 4, 4 }, ["~"] = { 5, 5 }, ["&"] = { 6, 6 }, ["<<"] = { 7, 7 },
  [">>"] = { 7, 7 }, [".."] = { 9, 8 }, ["+"] = { 10, 10 }, ["-"] = { 10, 10 },
  ["*"] = { 11, 11 }, ["/"] = { 11, 11 }, ["//"] = { 11, 11 }, ["%"] = { 11, 11 },
  ["^"] = { 14, 13 },
}
local UNARY_PRIORITY <const> = 12
local MAX_DEPTH <const> = 190 -- as deep as Lua itself reads

--- Nesting of statements and expressions, bounded so that hostile text is an ordinary error.
function Checker:enter()
  self.depth = self.depth + 1
  if self.depth > MAX_DEPTH then self:fail "too many nested blocks or expressions" end
end

function Checker:leave()
  self.depth = self.depth - 1
end

--- The value of a name leaves the place that checks it: who gets it may end the sandbox.
local function release(node)
  while node.kind == "paren" do node = node.inner end
  if node.kind == "name" and node.binding then node.binding.released = true end
end

function Checker:value()
  local node = self:expression(0)
  release(node)
  return node
end

function Checker:values()
  local list = { self:value() }
  while self:accept "," do list[#list + 1] = self:value() end
  return list
end

function Checker:table_literal()
  local opener = self:expect "{"
  local node = { kind = "table", items = {}, fields = {}, line = opener.line,
    column = opener.column }
  while not self:peek "}" do
    local token, after = self.tokens[self.at], self.tokens[self.at + 1]
    if token.kind == "name" and after.kind == "op" and after.value == "=" then
      self.at = self.at + 2
      node.fields[#node.fields + 1] = { name = token.value, value = self:value(),
        line = token.line, column = token.column }
    elseif self:accept "[" then
      local key = self:value()
      self:expect "]"
      self:expect "="
      if key.kind ~= "string" then node.computed = true end
      node.fields[#node.fields + 1] = { name = key.kind == "string" and key.value or nil,
        value = self:value(), line = token.line, column = token.column }
    else
      node.items[#node.items + 1] = self:value()
    end
    if not self:accept "," and not self:accept ";" then break end
  end
  self:expect("}", opener)
  return node
end

function Checker:function_body(at, is_method)
  self:open_scope(true)
  local outer_vararg = self.vararg
  self.vararg = false
  if is_method then self:declare "self" end
  self:expect "("
  if not self:peek ")" then
    repeat
      if self:accept "..." then
        self.vararg = true
        break
      end
      self:declare(self:expect_name().value)
    until not self:accept ","
  end
  self:expect ")"
  self:block()
  self:expect("end", at)
  self.vararg = outer_vararg
  self:close_scope()
  return { kind = "function", line = at.line, column = at.column }
end

function Checker:name_node(token)
  local binding = self:lookup(token.value)
  local node = { kind = "name", name = token.value, binding = binding, line = token.line,
    column = token.column }
  if not binding then self.reads[#self.reads + 1] = node end
  return node
end

function Checker:arguments()
  local token = self.tokens[self.at]
  if token.kind == "string" then
    self.at = self.at + 1
    return { { kind = "string", value = token.value, line = token.line, column = token.column } }
  end
  if self:peek "{" then return { self:table_literal() } end
  if not self:peek "(" then self:fail "arguments are expected" end
  local opener = self:advance()
  local args = self:peek ")" and {} or self:values()
  self:expect(")", opener)
  return args
end

local ENDS <const> = { terminate = true, detach = true }

function Checker:call(callee, method, at)
  local node = { kind = "call", callee = callee, method = method, args = self:arguments(),
    line = at.line, column = at.column }
  if method and ENDS[method] then release(callee) end
  self:check_call(node)
  return node
end

--- A name or a value in brackets, and what hangs on it.
function Checker:suffixed()
  local token = self.tokens[self.at]
  local node
  if self:accept "(" then
    node = { kind = "paren", inner = self:expression(0), line = token.line,
      column = token.column }
    self:expect(")", token)
  else
    node = self:name_node(self:expect_name())
  end
  while true do
    local at = self.tokens[self.at]
    if self:accept "." then
      local name = self:expect_name()
      node = { kind = "index", object = node, name = name.value, line = name.line,
        column = name.column }
      if not self:peek "=" then self:check_member(node.object, name.value, name) end
    elseif self:accept "[" then
      local key = self:value()
      self:expect("]", at)
      node = { kind = "index", object = node, line = at.line, column = at.column,
        name = key.kind == "string" and key.value or nil }
    elseif self:accept ":" then
      local name = self:expect_name()
      self:check_member(node, name.value, name)
      node = self:call(node, name.value, name)
    elseif self:peek "(" or self:peek "{" or at.kind == "string" then
      node = self:call(node, nil, { line = node.line, column = node.column })
    else
      return node
    end
  end
end

function Checker:simple()
  local token = self.tokens[self.at]
  local function literal(kind, value)
    self.at = self.at + 1
    return { kind = kind, value = value, line = token.line, column = token.column }
  end
  if token.kind == "string" or token.kind == "number" then
    return literal(token.kind, token.value)
  end
  if self:peek "nil" then return literal("nil") end
  if self:peek "true" or self:peek "false" then return literal("boolean", token.value == "true") end
  if self:peek "..." then
    if not self.vararg then self:fail "cannot use '...' outside a vararg function" end
    return literal "vararg"
  end
  if self:peek "{" then return self:table_literal() end
  if self:accept "function" then return self:function_body(token) end
  if token.kind ~= "name" and not self:peek "(" then self:fail "an expression is expected" end
  return self:suffixed()
end

function Checker:unary()
  local token = self.tokens[self.at]
  for _, op in ipairs { "not", "-", "#", "~" } do
    if self:accept(op) then
      local inner = self:expression(UNARY_PRIORITY)
      if op == "-" and inner.kind == "number" then
        return { kind = "number", value = -inner.value, line = token.line, column = token.column }
      end
      return { kind = "unary", line = token.line, column = token.column }
    end
  end
  return self:simple()
end

function Checker:expression(limit)
  self:enter()
  local left = self:unary()
  while true do
    local token = self.tokens[self.at]
    local priority = (token.kind == "op" or token.kind == "keyword") and BINARY[token.value]
    if not priority or priority[1] <= limit then break end
    self.at = self.at + 1
    release(left)
    release(self:expression(priority[2]))
    left = { kind = "binary", line = left.line, column = left.column }
  end
  self:leave()
  return left
end

local Statements = {}

function Checker:loop_block(at)
  self:open_scope(true)
  self:block()
  self:expect("end", at)
  self:close_scope()
end

Statements["if"] = function(self, at)
  self:value()
  self:expect "then"
  self:scoped_block()
  while self:accept "elseif" do
    self:value()
    self:expect "then"
    self:scoped_block()
  end
  if self:accept "else" then self:scoped_block() end
  self:expect("end", at)
end

Statements["while"] = function(self, at)
  self:value()
  self:expect "do"
  self:loop_block(at)
end

Statements["do"] = function(self, at)
  self:scoped_block()
  self:expect("end", at)
end

Statements["for"] = function(self, at)
  local names = { self:expect_name() }
  if self:accept "=" then
    self:values()
  else
    while self:accept "," do names[#names + 1] = self:expect_name() end
    self:expect "in"
    self:values()
  end
  self:expect "do"
  self:open_scope(true)
  for _, name in ipairs(names) do self:declare(name.value) end
  self:block()
  self:expect("end", at)
  self:close_scope()
end

Statements["repeat"] = function(self, at)
  self:open_scope(true)
  self:block()
  self:expect("until", at)
  self:value()
  self:close_scope()
end

Statements["function"] = function(self, at)
  local name = self:expect_name()
  local node = { kind = "name", name = name.value, line = name.line, column = name.column }
  local simple, is_method = true, false
  if self:peek "." or self:peek ":" then
    node = self:name_node(name)
    simple = false
  end
  while self:accept "." do self:expect_name() end
  if self:accept ":" then
    self:expect_name()
    is_method = true
  end
  if simple then
    local binding = self:lookup(name.value)
    if binding then binding.type = nil else self:set_global(node) end
  end
  self:function_body(at, is_method)
end

--- Gives a local what is known about its value.
function Checker:assign_local(binding, value)
  binding.type = value and self:infer(value) or nil
  if value and value.kind == "call" and binding.type == "sandbox.Sandbox" and self.nesting > 0
    and not binding.closed then
    binding.created = { line = value.line, column = value.column }
  end
end

Statements["local"] = function(self)
  local at = self.tokens[self.at]
  if self:accept "function" then
    self:declare(self:expect_name().value)
    return self:function_body(at)
  end
  local bindings = {}
  repeat
    local binding = { name = self:expect_name().value }
    if self:accept "<" then
      local attribute = self:expect_name().value
      if attribute ~= "close" and attribute ~= "const" then
        self:fail(("unknown attribute '%s'"):format(attribute))
      end
      binding.closed = attribute == "close"
      self:expect ">"
    end
    bindings[#bindings + 1] = binding
  until not self:accept ","
  local values = self:accept "=" and self:values() or {}
  for i, binding in ipairs(bindings) do
    self:declare(binding.name, binding)
    self:assign_local(binding, values[i])
  end
end

Statements["return"] = function(self)
  local token = self.tokens[self.at]
  local last = token.kind == "eof" or self:peek "end" or self:peek "else" or self:peek "elseif"
    or self:peek "until" or self:peek ";"
  if not last then self:values() end
  self:accept ";"
  token = self.tokens[self.at]
  if not (token.kind == "eof" or self:peek "end" or self:peek "else" or self:peek "elseif"
    or self:peek "until") then
    self:fail "'end' expected"
  end
end

Statements["break"] = function() end
Statements["goto"] = function(self) self:expect_name() end
Statements["::"] = function(self)
  self:expect_name()
  self:expect "::"
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

--- A call, or an assignment to one or several places.
function Checker:expression_statement()
  local first = self.at
  local reads = #self.reads
  local node = self:suffixed()
  if not self:peek "=" and not self:peek "," then
    if node.kind ~= "call" then
      self.at = first
      self:fail "a statement is expected"
    end
    return
  end
  local targets = { node }
  while self:accept "," do targets[#targets + 1] = self:suffixed() end
  for _, target in ipairs(targets) do
    if target.kind ~= "name" and target.kind ~= "index" then self:fail "cannot assign to this" end
  end
  for i = #self.reads, reads + 1, -1 do -- a place that is set is not read
    for _, target in ipairs(targets) do
      if self.reads[i] == target then
        table.remove(self.reads, i)
        break
      end
    end
  end
  self:expect "="
  local values = self:values()
  for i, target in ipairs(targets) do
    if target.kind == "index" then
      self:add_member(target)
    elseif target.kind == "name" then
      if target.binding then
        target.binding.type = values[i] and self:infer(values[i]) or nil
      else
        self:set_global(target)
      end
    end
  end
end

function Checker:statement()
  local token = self.tokens[self.at]
  self:enter()
  local handler = (token.kind == "keyword" or token.value == "::" and token.kind == "op")
    and Statements[token.value]
  if handler then
    self.at = self.at + 1
    handler(self, token)
  elseif token.kind == "op" and token.value == ";" then
    self.at = self.at + 1
  else
    self:expression_statement()
  end
  self:leave()
  return token.kind == "keyword" and token.value == "return"
end

function Checker:block()
  while true do
    local token = self.tokens[self.at]
    if token.kind == "eof" or self:peek "end" or self:peek "else" or self:peek "elseif"
      or self:peek "until" then
      return
    end
    if self:statement() then return end
  end
end

function Checker:scoped_block()
  self:open_scope(false)
  self:block()
  self:close_scope()
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

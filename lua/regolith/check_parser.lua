-- The parser of `regolith check`: recursive descent over the tokens of one script. It adds its
-- methods to the class of the checker, which it tells what it meets: names, members, calls,
-- assignments. A mistake in the syntax raises { line, column, message }.

---@param Checker table the class
return function(Checker)
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
    if self:peek "true" or self:peek "false" then
      return literal("boolean", token.value == "true")
    end
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
end

-- Lua source as a list of tokens, for `regolith check`. A token is
--   { kind = "name" | "keyword" | "string" | "number" | "op" | "eof", value, line, column }
-- where value is the text, or for strings what they stand for. A mistake raises
-- { line, column, message }.

local M = {}

local KEYWORDS = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat "
  .. "return then true until while"):gmatch "%a+" do
  KEYWORDS[word] = true
end

local OPERATORS <const> = {
  "...", "..", "==", "~=", "<=", ">=", "//", "::", "<<", ">>", "+", "-", "*", "/", "%", "^", "#",
  "&", "~", "|", "<", ">", "=", "(", ")", "{", "}", "[", "]", ";", ":", ",", ".",
}

local function fail(at, message)
  error({ line = at.line, column = at.column, message = message }, 0)
end

---@param text string
---@return table[] tokens
function M.read(text)
  local tokens, pos, line, line_start = {}, 1, 1, 1

  local function here()
    return { line = line, column = pos - line_start + 1 }
  end

  --- Steps over text[pos, to], counting lines.
  local function advance(to)
    local piece = text:sub(pos, to)
    for after in piece:gmatch "\n()" do
      line, line_start = line + 1, pos + after - 1
    end
    pos = to + 1
  end

  --- The end of a long bracket that begins at pos, and its content.
  local function long_bracket(at, what)
    local level = text:match("^%[(=*)%[", pos)
    if not level then return nil end
    local first = pos + #level + 2
    local close, last = text:find("]" .. level .. "]", first, true)
    if not close then fail(at, "unfinished " .. what) end
    return last, text:sub(first, close - 1):gsub("^\r?\n", "")
  end

  local function skip_blanks()
    while true do
      local _, last = text:find("^%s+", pos)
      if last then
        advance(last)
      elseif text:find("^%-%-", pos) then
        local at = here()
        pos = pos + 2
        last = long_bracket(at, "long comment")
        advance(last or (text:find("\n", pos, true) or #text + 1) - 1)
      else
        return
      end
    end
  end

  local function add(at, kind, value, last)
    tokens[#tokens + 1] = { kind = kind, value = value, line = at.line, column = at.column }
    advance(last)
  end

  local function short_string(at, quote)
    local i = pos + 1
    while true do
      local c = text:sub(i, i)
      if c == "" or c == "\n" then fail(at, "unfinished string") end
      if c == quote then break end
      if c == "\\" then
        i = i + 1
        if text:sub(i, i) == "z" then i = text:match("^z%s*()", i) - 1 end
      end
      i = i + 1
    end
    local value = load("return " .. text:sub(pos, i), "=string", "t", {})
    if not value then fail(at, "invalid escape sequence in a string") end
    add(at, "string", value(), i)
  end

  local function number(at)
    local hex = text:find("^0[xX]", pos)
    local last = select(2, text:find(hex and "^0[xX][%x%.]*" or "^[%d%.]*", pos))
    local _, exponent = text:find(hex and "^[pP][+-]?%d*" or "^[eE][+-]?%d*", last + 1)
    last = select(2, text:find("^[%w_]*", (exponent or last) + 1)) or last
    local value = tonumber(text:sub(pos, last))
    if not value then fail(at, "malformed number " .. text:sub(pos, last)) end
    add(at, "number", value, last)
  end

  local function operator(at)
    for _, op in ipairs(OPERATORS) do
      if text:sub(pos, pos + #op - 1) == op then return add(at, "op", op, pos + #op - 1) end
    end
    fail(at, ("unexpected character %q"):format(text:match(utf8.charpattern, pos) or "?"))
  end

  if text:find "^#" then advance((text:find("\n", 1, true) or #text + 1) - 1) end
  while true do
    skip_blanks()
    local at = here()
    if pos > #text then
      tokens[#tokens + 1] = { kind = "eof", value = "end of the script", line = at.line,
        column = at.column }
      return tokens
    end
    local c = text:sub(pos, pos)
    local word = text:match("^[%a_][%w_]*", pos)
    if word then
      add(at, KEYWORDS[word] and "keyword" or "name", word, pos + #word - 1)
    elseif c == '"' or c == "'" then
      short_string(at, c)
    elseif text:find("^%.?%d", pos) then
      number(at)
    else
      local last, value = long_bracket(at, "long string")
      if last then add(at, "string", value, last) else operator(at) end
    end
  end
end

return M

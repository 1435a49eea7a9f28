-- Expectations that the specs share. Each fails with what it saw.
local M = {}

local function show(e)
  if type(e) ~= "table" then return tostring(e) end
  local parts = {}
  for k, v in pairs(e) do parts[#parts + 1] = ("%s = %s"):format(tostring(k), tostring(v)) end
  table.sort(parts)
  return "{ " .. table.concat(parts, ", ") .. " }"
end
M.show = show

local NAMED = { "code", "status", "field", "sandbox_id", "engine", "retryable" }

--- Calls fn, which must raise one of our errors, and compares the fields named in want. `match` is
--- a plain text, or a list of them, that message and hint together must hold.
function M.raises(want, fn, ...)
  local ok, e = pcall(fn, ...)
  if ok then error("expected the error " .. show(want) .. ", but none was raised", 2) end
  if type(e) ~= "table" then error("expected an error table, got: " .. tostring(e), 2) end
  for _, key in ipairs(NAMED) do
    -- A field may be named more precisely: tags.run for tags, command[2] for command.
    local same = e[key] == want[key] or key == "field" and want.field ~= nil
      and tostring(e.field):match "^[^.%[]+" == want.field
    if want[key] ~= nil and not same then
      error(("expected %s = %s in %s"):format(key, tostring(want[key]), show(e)), 2)
    end
  end
  if type(e.message) ~= "string" or e.message == "" then
    error("an error without a message: " .. show(e), 2)
  end
  if not tostring(e):find(e.message, 1, true) then
    error("__tostring hides the message: " .. tostring(e), 2)
  end
  local text = e.message .. " " .. (e.hint or "")
  local match = type(want.match) == "string" and { want.match } or want.match or {}
  for _, m in ipairs(match) do
    if not text:find(m, 1, true) then error(("expected \"%s\" in: %s"):format(m, text), 2) end
  end
  return e
end

--- Asks until fn returns something true, for at most `seconds`. Returns it.
function M.eventually(seconds, what, fn)
  local task = require "task"
  local deadline = task.now() + seconds
  while true do
    local v = fn()
    if v then return v end
    if task.now() > deadline then error(("not within %.1f s: %s"):format(seconds, what), 2) end
    task.sleep(0.02)
  end
end

function M.between(low, high, value, what)
  if type(value) ~= "number" or value < low or value > high then
    error(("%s is %s, want %g to %g"):format(what or "value", tostring(value), low, high), 2)
  end
  return value
end

function M.contains(text, part)
  if type(text) ~= "string" or not text:find(part, 1, true) then
    error(("expected \"%s\" in:\n%s"):format(part, tostring(text)), 2)
  end
end

function M.matches(pattern, text)
  if not text:match(pattern) then
    error(("expected a match of %q in:\n%s"):format(pattern, text), 2)
  end
end

function M.lacks(text, part)
  if text:find(part, 1, true) then
    error(("did not expect \"%s\" in:\n%s"):format(part, text), 2)
  end
end

return M

-- The repl: reads Lua, runs it, prints what it gives.
--
-- Each input runs in a task of its own, which may block, and which Ctrl-C cancels; the input is
-- over when the tasks that it started are. Globals stay. On a terminal lines come from the editor
-- of the host (the op repl.read), else from standard input.

local core = require "regolith.core"
local complete = require "regolith.complete"
local file = require "regolith.file"
local show = require "regolith.show"

local globals = load "return _G" ()
local running -- the task of the input that runs

local function tell(text)
  core.call("repl.tell", { text = text .. "\n" })
end

-- Input -----------------------------------------------------------------------------------------

--- One line, or nil at the end, or false when Ctrl-C took it away.
local function read_line(interactive, prompt)
  if not interactive then return file.read "l" end
  local r = core.call("repl.read", { prompt = prompt })
  while r.complete do
    local names, word = complete.complete(globals, r.complete)
    r = core.call("repl.read", { names = names, word = word })
  end
  if r.interrupted then return false end
  return r.line
end

--- The text as a function: as an expression first, so that its value can be shown. It is not a
--- tail call, which would leave nothing for a traceback: what it is called with hands values on.
--- nil, message, whether more text could help.
local function compile(text)
  if load("return " .. text, "=stdin") then
    return load("return (...)(" .. text .. "\n)", "=stdin")
  end
  local chunk, message = load(text, "=stdin")
  return chunk, message, not chunk and message:find "<eof>$" ~= nil
end

local function hand_on(...)
  return ...
end

--- A whole input: lines until they make sense, or cannot. nil at the end; false: taken away.
local function read_input(interactive)
  local text
  while true do
    local line = read_line(interactive, text and ">> " or "> ")
    if line == false then return false end
    if line == nil then return text, text and select(2, compile(text)) end
    text = text and text .. "\n" .. line or line:gsub("^=", "return ", 1):gsub("^#!.*", "", 1)
    local chunk, message, more = compile(text)
    if chunk or not more then return chunk or text, message end
  end
end

-- Running ---------------------------------------------------------------------------------------

local function describe(err)
  if type(err) == "table" and type(err.message) == "string" then
    local text = (err.code and tostring(err.code) .. ": " or "") .. err.message
    return err.hint and text .. "\n(" .. tostring(err.hint) .. ")" or text
  end
  if type(err) == "string" then return err end
  return show.show(err)
end

local function run(chunk)
  local t = core.spawn("input", function() return chunk(hand_on) end)
  running = t
  local results = table.pack(pcall(core.wait, t))
  running = nil
  if results[1] then
    for i = 2, results.n do
      if results.n > 2 or results[2] ~= nil then core.output(show.show(results[i]) .. "\n") end
    end
    return true
  end
  local outcome, err, traceback = core.outcome(t)
  if outcome == "cancelled" then
    tell "interrupted"
  else
    tell(describe(err))
    if traceback and traceback ~= "" then tell(traceback) end
  end
  return false
end

local function evaluate(chunk, message)
  if type(chunk) == "function" then return run(chunk) end
  tell(message)
  return false
end

local function take_interrupts()
  while true do
    core.call("repl.interrupted", {})
    if running then core.cancel(running) end
  end
end

local given = core.call("repl.start", {})
local ok = true
globals.sandbox = require "regolith.sandbox"
core.daemon("interrupts", take_interrupts)

if given.code then
  for _, text in ipairs(given.code) do
    local chunk, message = compile(text)
    ok = evaluate(chunk, message) and ok
  end
else
  if given.banner then core.output(given.banner .. "\n") end
  while true do
    local chunk, message = read_input(given.interactive)
    if chunk == nil then break end
    if chunk then ok = evaluate(chunk, message) and ok end
  end
end
core.call("repl.stop", { ok = ok or given.interactive })

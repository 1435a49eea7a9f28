-- The output of busted as tools/test.sh reads it: nothing for what passes but its slowness, all
-- that helps for what does not, and last one line "N passed, N failed[, N skipped]".
local busted = require "busted"
local base = require "busted.outputHandlers.base"

local SLOW_S = 2 -- a test that takes longer is named

local function text_of(message)
  if type(message) == "string" then return message end
  if type(message) == "table" and rawget(message, "message") and message.code then
    return ("%s: %s"):format(message.code, message.message)
  end
  return tostring(message)
end

return function()
  local handler = base()
  local trouble = 0

  local function report(word, element, message, trace)
    local name = handler.getFullName(element)
    local where = "?"
    if trace and trace.short_src then
      where = ("%s:%s"):format(trace.short_src, trace.currentline)
    end
    io.write(("%s: %s (%s)\n"):format(word, name, where))
    io.write("  ", (text_of(message):gsub("\n", "\n  ")), "\n")
    if trace and trace.traceback then io.write("  ", (trace.traceback:gsub("\n", "\n  ")), "\n") end
    io.flush()
  end

  function handler.testEnd(element)
    local took = (element.endtick or 0) - (element.starttick or 0)
    if took >= SLOW_S then
      io.write(("  %.1f s: %s\n"):format(took, handler.getFullName(element)))
      io.flush()
    end
    return nil, true
  end

  function handler.onFailure(element, _, message, trace)
    report("not ok", element, message, trace)
    return nil, true
  end

  function handler.onError(element, _, message, trace)
    trouble = trouble + (element.descriptor ~= "it" and 1 or 0)
    report("error", element, message, trace)
    return nil, true
  end

  function handler.onPending(element, _, message)
    io.write(("skip: %s%s\n"):format(handler.getFullName(element),
      message and (": " .. text_of(message)) or ""))
    return nil, true
  end

  function handler.suiteEnd()
    local failed = handler.failuresCount + handler.errorsCount
    if failed == 0 and trouble > 0 then failed = trouble end
    local line = ("%d passed, %d failed"):format(handler.successesCount, failed)
    if handler.pendingsCount > 0 then
      line = ("%s, %d skipped"):format(line, handler.pendingsCount)
    end
    io.write(line, "\n")
    io.flush()
    return nil, true
  end

  busted.subscribe({ "test", "end" }, handler.testEnd)
  busted.subscribe({ "failure" }, handler.onFailure)
  busted.subscribe({ "error" }, handler.onError)
  busted.subscribe({ "pending" }, handler.onPending)
  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  return handler
end

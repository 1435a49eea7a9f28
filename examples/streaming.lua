-- Streaming: see what a command prints while it runs. Callbacks get raw chunks, which end where the
-- pipe happened to, so lines are put together here.
local sandbox = require "sandbox"

local function by_line(fn)
  local rest = ""
  return function(chunk)
    rest = (rest .. chunk):gsub("([^\n]*)\n", function(line)
      fn(line)
      return ""
    end)
  end
end

local sb <close> = sandbox.create { image = "host", timeout = 60 }
local seen = 0
local r = sb:exec({
  "sh", "-c", "for i in 1 2 3 4; do echo step $i; sleep 0.05; done; echo all done >&2",
}, {
  timeout = 30,
  on_stdout = by_line(function(line)
    seen = seen + 1
    print("stdout: " .. line)
    progress(seen, 4, line)
  end),
  on_stderr = by_line(function(line) print("stderr: " .. line) end),
})
print("the result has it too: " .. r.stdout_bytes .. " bytes, " .. r.reason)

-- An error in a callback ends the command: here after the first line of an endless one.
local ok, err = pcall(function()
  sb:exec("while :; do echo again; sleep 0.01; done", {
    on_stdout = function() error("enough", 0) end,
  })
end)
print("ended by its reader: " .. tostring(not ok) .. ", " .. tostring(err))

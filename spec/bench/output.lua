-- Prints the MiB/s at which a command's output reaches on_stdout. Argument: MiB to send.
local sandbox = require "sandbox"

local mib = tonumber(arg[1])
local sb <close> = sandbox.create { timeout = 300 }
local got = 0
local begin = task.now()
sb:exec({ "head", "-c", tostring(mib * 1024 * 1024), "/dev/zero" }, {
  max_output = "1MiB",
  on_stdout = function(chunk) got = got + #chunk end,
}):check()
local took = task.now() - begin
assert(got == mib * 1024 * 1024, "bytes were lost: " .. got)
print(string.format("%.1f", mib / took))

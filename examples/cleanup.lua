-- Cleanup: what is guaranteed, and what a script can add to it. Whatever happens to a script, its
-- sandboxes end with it. <close> ties one to a block, and on_exit hooks run at the very end, last
-- in first out, however the script ends.
local sandbox = require "sandbox"

on_exit(function(why)
  print("on_exit, registered first, runs last; the script ended: " .. why.kind)
end)

local shared = sandbox.create { image = "host", timeout = 60, name = "shared" }
on_exit(function()
  local r = shared:exec "cat /tmp/journal"
  io.write("on_exit may still use sandboxes; the journal says:\n", r.stdout)
end)

local function risky()
  local sb <close> = sandbox.create { image = "host", timeout = 60 }
  shared:exec "echo risky began >> /tmp/journal"
  sb:exec({ "sh", "-c", "exit 1" }, { check = true }) -- raises command_failed
  shared:exec "echo never written >> /tmp/journal"
end

local ok, err = pcall(risky)
print("risky worked: " .. tostring(ok) .. "; its error is " .. err.code)
print("its sandbox is gone: " .. tostring(#sandbox.list() == 1))
shared:exec "echo main goes on >> /tmp/journal"

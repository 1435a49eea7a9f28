-- The first thing that regolith-spec runs: makes busted at home in our runtime, then hands over.
-- os.exit ends script and process cleanly; modules of the specs are found from the top.
local host = require "spec.support.host"

package.path = "./?.lua;" .. package.path

-- busted takes the globals' metatable off and on again; the runtime's guards its own.
debug.setmetatable(_G, nil)

function os.exit(code) -- luacheck: ignore 122
  if code == nil or code == true then code = 0 elseif code == false then code = 1 end
  io.stdout:flush()
  host.call("test.exit", { code = code })
end

_G.arg = { [0] = "busted", "--output=spec/support/output.lua", "--lpath=./?.lua", ... }
require "busted.runner" { standalone = false }
os.exit(0)

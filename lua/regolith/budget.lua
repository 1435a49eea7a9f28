-- budget(limits): from here on this script may use so much and no more. Kept and enforced where the
-- sandboxes are made, so that it holds whatever the script does afterwards.

local core = require "regolith.core"

---@param limits { usd?: number, seconds?: number|string, sandboxes?: integer }
return function(limits)
  if type(limits) ~= "table" then
    local message = "budget: the limits are a table, not a " .. type(limits) .. " value"
    error(core.error("invalid_argument", message, {
      field = "limits", hint = "budget { usd = 0.50, seconds = 600, sandboxes = 20 }",
    }), 0)
  end
  core.call("budget.set", limits)
end

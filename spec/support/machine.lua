-- What this machine offers, as `regolith doctor` says it: for specs of what not every machine has.
local json = require "json"
local proc = require "spec.support.proc"

local M = {}
local checks

--- "ok", "degraded" or "missing" for a check of doctor.
function M.status(name)
  if not checks then
    checks = {}
    for _, c in ipairs(json.decode(proc.cli({ "doctor", "--json" }).stdout).checks) do
      checks[c.name] = c.status
    end
  end
  return checks[name] or error("doctor has no check called " .. name)
end

--- Are memory, CPU and processes limited per sandbox, not only per process?
function M.has_limits() return M.status "control groups" ~= "missing" end

M.no_limits = "no control groups that this user may use"

return M

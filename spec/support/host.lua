-- The way from a spec to the ops that regolith-spec registers for it.
local core = require "regolith.core"

local M = {}

--- Runs an op and blocks the calling task until it is answered; raises its error.
function M.call(name, args) return core.call(name, args) end

--- What our own log has said since last asked: a spec that provokes a warning takes it away.
function M.take_log() return M.call("test.log", {}).text end

return M

-- What a row asks of its script in the fourth argument: nothing, "open" (sandboxes have a network)
-- or "heavy" (the program holds 500 MiB meanwhile).
local M = {}

M.create = { timeout = 600, network = arg[4] == "open" and "open" or nil }
M.ballast = arg[4] == "heavy" and ("x"):rep(500 * 1024 * 1024) or nil

return M

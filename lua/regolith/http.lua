-- http: requests to the hosts that were granted by name. The host makes them; scripts have no
-- network of their own.

local core = require "regolith.core"

local M = {}

---Makes a request and waits for the answer, whatever its status.
---@param request { url: string, method?: string, headers?: table, body?: string, timeout?: any }
---@return { status: integer, headers: table<string, string>, body: string }
function M.request(request)
  if type(request) ~= "table" then
    error(core.error("invalid_argument", "http.request: the request is a table, not a "
      .. type(request) .. " value", { field = "request",
      hint = 'http.request { url = "https://api.example.com/" }' }), 0)
  end
  return core.call("http.request", request)
end

return M

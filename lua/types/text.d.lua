---@meta

---Lines for people, on standard error.
---@class log
log = {}

---Says something that only matters when looking for a fault.
---```lua
---log.debug("trying again")
---```
---@param ... any joined with tabs, as print does
function log.debug(...) end

---Says something worth knowing.
---```lua
---log.info("uploaded", n, "files")
---```
---@param ... any
function log.info(...) end

---Says that something is not as it should be.
---```lua
---log.warn("slow answer")
---```
---@param ... any
function log.warn(...) end

---Says that something failed.
---```lua
---log.error("no answer")
---```
---@param ... any
function log.error(...) end

---JSON.
---@class json
json = {}

---The null of JSON, which differs from nil: it can be a value in a table.
---@type userdata
json.null = nil

---A value as JSON text. A table whose keys are 1…n is a list, any other an object; an empty one is an object.
---
---Errors: `invalid_argument` for functions, cycles, mixed keys.
---```lua
---print(json.encode { ok = true, items = { 1, 2 } })
---```
---@param value any
---@return string text
function json.encode(value) end

---A JSON text as a value.
---
---Errors: `invalid_argument` with the place of the mistake.
---```lua
---local config = json.decode(sb:exec("cat config.json").stdout)
---```
---@param text string
---@return any value
function json.decode(text) end

---Requests to hosts that were granted by name.
---@class http
http = {}

---@class http.Request
---@field url string "https://" or "http://"
---@field method? string default "GET"
---@field headers? table<string, string>
---@field body? string any bytes, at most 16 MiB
---@field timeout? Duration for all of it, default 30

---@class http.Response
---@field status integer
---@field headers table<string, string> names in lower case; several of one name are joined by ", ", cookies by a line break
---@field body string

---Makes an HTTP request and waits for the answer, whatever its status. Redirects are followed, to granted hosts.
---Addresses of this machine or its network have to be granted by themselves (`--allow-http 127.0.0.1`).
---
---Errors: `denied` (the host was not granted), `timeout`, `payload_too_large` (more than 16 MiB), `engine_unavailable`
---(no answer came).
---```lua
---local r = http.request { url = "https://example.org/" }
---```
---@param request http.Request
---@return http.Response response
function http.request(request) end

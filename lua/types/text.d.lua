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
---@field url string
---@field method? string default "GET"
---@field headers? table<string, string>
---@field body? string
---@field timeout? Duration default 30

---@class http.Response
---@field status integer
---@field headers table<string, string> names in lower case
---@field body string

---Makes an HTTP request and waits for the answer.
---
---Errors: `denied` (the host was not granted), `timeout`, `unsupported` where there is no client.
---```lua
---local r = http.request { url = "https://example.org/" }
---```
---@param request http.Request
---@return http.Response response
function http.request(request) end

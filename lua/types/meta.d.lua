---@meta
--- Types of the scripting API, for editors (lua-language-server) and for `regolith api`, which prints
--- its pages from these comments. Point your editor here:
---
---     // .luarc.json
---     { "runtime.version": "Lua 5.4", "workspace.library": ["PREFIX/share/regolith/types"] }

---A length of time: seconds as a number, or a text: `"250ms"`, `"90s"`, `"5m"`, `"2h"`.
---@alias Duration number|string

---An amount of memory or disk: MiB as an integer, or a text: `"512MiB"`, `"2GiB"`.
---@alias Size integer|string

---A GPU: `"T4"`, `"L4"`, `"A10G"`, `"A100"`, `"H100"`, several as `"A100:2"`; another card by the name that
---`sandbox.gpus()` shows.
---@alias Gpu string

---What failed calls raise. `tostring` gives "code: message (hint)".
---
---From the API: `sandbox_not_found` 404, `sandbox_terminated` 410, `sandbox_timeout` 408, `exec_failed` 500
---(the machinery failed before the command started). Ours: `invalid_argument` 400, `unauthorized` 401,
---`payment_required` 402, `budget_exceeded` 402, `denied` 403, `image_not_found` 404, `not_found` 404 (files),
---`conflict` 409, `payload_too_large` 413, `rate_limited` 429, `unsupported` 501, `engine_unavailable` 503,
---`capacity` 503, `internal` 500. In scripts only: `command_failed`, `timeout`, `limit`, `all_failed`,
---`cancelled` (which cannot be caught).
---```lua
---local ok, err = pcall(sandbox.create, { image = "no such" })
---if not ok and err.code == "image_not_found" then print(err.message) end
---```
---@class Error
---@field code string what went wrong, for the script
---@field status? integer the HTTP status of the same error; nil for errors of scripts alone
---@field message string one sentence for people
---@field field? string the argument at fault
---@field sandbox_id? string the sandbox concerned
---@field engine? string the engine concerned
---@field retryable boolean the same request may work later
---@field hint? string a way out
---@field result? sandbox.Result with `command_failed`: how the command ended
---@field errors? Error[] with `all_failed`: the error of each function of the race

---The script's arguments: what follows `--` on the command line. `args`, `arg` and `...` are the same.
---```lua
---local name = args[1] or "moon"
---```
---@type string[]
args = {}

---The script's arguments, as in stock Lua; `arg[0]` is the script's path.
---@type string[]
arg = {}

---A granted variable of the environment, or nil. Nothing is granted unless `regolith run --env NAME` says so.
---```lua
---local token = env "API_TOKEN" or error "run me with --env API_TOKEN"
---```
---@param name string
---@return string? value
function env(name) end

-- Lesson 5: errors.
--
-- Errors are tables: code is for the script, message for people. Catch them with pcall.
local sandbox = require "sandbox"

-- A mistake in an argument names the field. Here the name of an option is misspelt.
local ok, err = pcall(function()
  local opts = { image = "host" }
  opts.memroy = 512
  return sandbox.create(opts)
end)
print(ok, err.code, err.field)

-- check = true turns a failed command into an error; the result is in the error.
local sb <close> = sandbox.create { image = "host" }
ok, err = pcall(sb.exec, sb, "echo oh no >&2; exit 7", { check = true })
print(ok, err.code, err.result.exit_code)

-- Some errors are worth another try, and say so.
print("worth another try: " .. tostring(err.retryable or false))

-- An ended sandbox runs nothing any more, but still answers for its status.
sb:terminate()
ok, err = pcall(sb.exec, sb, "true")
print(ok, err.code, err.status)
print(sb:status().status)

-- Time-outs and retries. A command that runs out of time is a result with what it printed until
-- then; a piece of script that runs out of time is an error; what may work later is tried again.
local sandbox = require "sandbox"

local sb <close> = sandbox.create { image = "host", timeout = 120 }

-- 1. A command with a time-out: everything that it started ends, in the background too.
local r = sb:exec("echo started; sleep 100 & sleep 100", { timeout = "300ms" })
print("reason: " .. r.reason .. ", exit code: " .. tostring(r.exit_code))
io.write("printed until then: ", r.stdout)

-- 2. Any stretch of script with a time-out; it may hold many commands.
local ok, err = pcall(task.timeout, "300ms", function()
  sb:exec "sleep 100"
end)
print("in time: " .. tostring(ok) .. ", error: " .. err.code)

-- 3. Something that works at the third attempt. What `on` names is tried again, the rest is not.
sb:exec "echo 0 > /tmp/attempts"
local flaky = "n=$(($(cat /tmp/attempts) + 1)); echo $n > /tmp/attempts; [ $n -ge 3 ]"
local attempts = retry(function(attempt)
  sb:exec(flaky, { check = true })
  return attempt
end, { max = 5, backoff = "50ms", on = { "command_failed" } })
print("worked at attempt " .. attempts)

-- What the Compute API's published examples do, in one script: create, run, look, end, pay less.
-- It is the same here and on a server, whose address and key the environment has:
--
--   regolith run examples/compute_api.lua
--   export REGOLITH_URL=https://… REGOLITH_API_KEY=sk-…
--   regolith run --engine remote examples/compute_api.lua
local sandbox = require "sandbox"

-- create: five minutes at most; it is ended before that, whatever happens below.
local sb <close> = sandbox.create { timeout = 300, image = "host", tags = { example = "compute" } }
print("create    " .. sb:status().status .. " for " .. sb.config.timeout .. " s")

-- exec: a text runs under a shell, a list is taken as it is.
print("exec      2 + 2 is " .. tonumber(sb:exec "expr 2 + 2".stdout))
local r = sb:exec { "sh", "-c", "echo \"$1 and $2\"", "sh", "an argument", "another" }
io.write("exec      ", r.stdout)

-- What would not end is ended, with what it had printed; nobody makes up an exit code.
r = sb:exec("echo begun; sleep 60", { timeout = 1 })
print(("exec      %s, exit code %s, after %q"):format(r.reason, r.exit_code, r.stdout:sub(1, -2)))

-- status
local st = sb:status()
print("status    " .. st.status .. ", " .. st.commands_executed .. " commands")

-- A GPU, the best that is free: an error says when there is none, and nothing was begun or paid.
local ok, gpu = pcall(sandbox.create, { timeout = 300, image = "host", gpu = { "H100", "T4" } })
if ok then gpu:terminate() end
local known = ok or gpu.code == "capacity" or gpu.code == "denied"
print("gpu       " .. (known and "asked for" or tostring(gpu)))

-- terminate; then the id is known, and says so.
sb:terminate()
ok, r = pcall(sb.exec, sb, "true")
print("terminate " .. sb:status().status .. "; exec after it is " .. tostring(not ok and r.code))

-- The first thing to run: one sandbox, three commands, its status, and its end.
local sandbox = require "sandbox"

local sb <close> = sandbox.create { image = "host", network = "none", timeout = 60 }
print("created   a sandbox: image " .. sb.config.image .. ", network " .. sb.config.network)

local r = sb:exec { "echo", "Hello from inside the sandbox." }
io.write("exec      ", r.stdout)

-- Files stay from one command to the next; nothing of this machine's home is there to see.
sb:exec("cat > /tmp/notes", { stdin = "one\ntwo\nthree\n" })
r = sb:exec "wc -l < /tmp/notes"
print("exec      the file written a moment ago has " .. tonumber(r.stdout) .. " lines")

-- A command that fails is an answer, not an error.
r = sb:exec "echo 'no such luck' >&2; exit 3"
local said = r.stderr:gsub("\n", "")
print(("exec      a failing command gives exit code %d and %q"):format(r.exit_code, said))

local st = sb:status()
print("status    " .. st.status .. ", " .. st.commands_executed .. " commands so far")

sb:terminate()
print("terminate " .. sb:status().status)

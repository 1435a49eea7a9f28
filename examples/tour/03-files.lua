-- Lesson 3: what stays and what does not.
--
-- Files stay in a sandbox from one command to the next. The working directory and shell variables
-- do not: each command starts afresh.
local sandbox = require "sandbox"

local sb <close> = sandbox.create { image = "host", env = { GREETING = "hi" } }

-- stdin is the text that the command reads.
sb:exec("cat > /tmp/poem", { stdin = "the moon\nis made\nof sand\n", check = true })
io.write(sb:exec("cat /tmp/poem").stdout)

-- Each of these is a command of its own: cd and COLOUR are forgotten at once.
sb:exec "cd /tmp; COLOUR=grey"
io.write("colour: ", sb:exec("echo ${COLOUR:-unknown}").stdout)

-- Say what you need with options instead: cwd and env. The sandbox's own env is always there.
local r = sb:exec({ "sh", "-c", "echo $GREETING from $PWD in $COLOUR" }, {
  cwd = "/tmp",
  env = { COLOUR = "grey" },
})
io.write(r.stdout)

-- Two sandboxes share nothing.
local other <close> = sandbox.create { image = "host" }
print("the other one has the poem: " .. tostring(other:exec({ "test", "-e", "/tmp/poem" }).ok))

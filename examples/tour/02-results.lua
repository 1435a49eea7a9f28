-- Lesson 2: what a command gives back.
--
-- exec returns a table that says how the command ended and what it printed. A command that fails is
-- not an error of the script: look at the result and decide.
local sandbox = require "sandbox"

-- <close> ends the sandbox when the block, here the whole script, is left.
local sb <close> = sandbox.create { image = "host" }

-- A string is run by the shell, so that pipes and variables work.
local r = sb:exec "printf 'b\\na\\nb\\n' | sort | uniq -c | wc -l"
print("different lines: " .. tonumber(r.stdout))

-- ok is true when the command ended by itself with exit code 0.
r = sb:exec "ls /no/such/folder"
print("ok: " .. tostring(r.ok) .. ", exit code: " .. r.exit_code)
print("it complained: " .. tostring(#r.stderr > 0))

-- Not every end is an exit: a command can be ended by a signal. Then there is no exit code.
r = sb:exec "kill -KILL $$"
print("reason: " .. r.reason .. ", signal: " .. r.signal)
print("exit code: " .. tostring(r.exit_code))

-- Where a failure should stop the script, ask for that: check raises an error.
r = sb:exec("echo fine", { check = true })
io.write("checked: ", r.stdout)

-- One of a thousand: sleeps, makes a sandbox, runs one command in it, gives it back.
local sandbox = require "sandbox"

task.sleep(0.1)
local sb <close> = sandbox.create { timeout = 300 }
sb:exec({ "/usr/bin/true" }):check()

-- Lesson 1: a sandbox and a command.
--
-- A sandbox is a small machine of its own: its own processes, files and network, with limits. This
-- script creates one, runs a command in it, and ends it.
--
-- Run it:  regolith run examples/tour/01-hello.lua
local sandbox = require "sandbox"

-- "host" is an image made of this machine's own programs, so nothing needs to be downloaded.
local sb = sandbox.create { image = "host" }

-- The command is a list: the program, then its arguments. exec waits until it has ended.
local r = sb:exec { "echo", "hello, moon" }
print("it printed: " .. r.stdout)

-- What is no longer needed is given back. (At the end of the script this happens by itself.)
sb:terminate()
print "done"

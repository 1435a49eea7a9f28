-- Lesson 4: limits.
--
-- Every sandbox has limits: processors, memory, disk, number of processes and life-time. What you
-- do not say has a default, and config shows what counts.
local sandbox = require "sandbox"

local sb <close> = sandbox.create {
  image = "host",
  memory = "256MiB", -- or 256: sizes are MiB
  disk = 64,
  timeout = "2m", -- the sandbox's life-time; or 120: durations are seconds
}
print("memory " .. sb.config.memory .. " MiB, life-time " .. sb.config.timeout .. " s")

-- A full disk is an error inside, as on any machine.
local r = sb:exec "head -c 100000000 /dev/zero > /tmp/big"
print("100 MB on a disk of 64 MiB: ok " .. tostring(r.ok))

-- A command can have a time-out of its own. What it printed until then is kept.
r = sb:exec("echo working; sleep 60", { timeout = 0.3 })
print("reason: " .. r.reason)
io.write("printed: ", r.stdout)

-- There is no network unless it is asked for.
print("network: " .. sb.config.network)

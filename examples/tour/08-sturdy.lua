-- Lesson 8: a sturdy script.
--
-- Time-outs, retries, races and cleanup together: what a script needs when the world is not kind.
local sandbox = require "sandbox"

-- Hooks run at the end of the script, however it ends: by itself, by an error, by Ctrl-C.
on_exit(function(why) print("the end: " .. why.kind) end)

local sb <close> = sandbox.create { image = "host", timeout = "5m" }

-- retry repeats what may work later, with growing pauses.
local tries = 0
local answer = retry(function()
  tries = tries + 1
  local r = sb:exec("test -e /tmp/ready && echo go || { touch /tmp/ready; exit 1; }")
  r:check()
  return (r.stdout:gsub("\n", ""))
end, { max = 3, backoff = "20ms", on = { "command_failed" } })
print(answer .. " after " .. tries .. " tries")

-- A race: the first to return wins, the others are cancelled and cleaned up.
local winner = task.race {
  function() sb:exec "sleep 30" return "the tortoise" end,
  function() sb:exec "sleep 0.05" return "the hare" end,
}
print("won by " .. winner)

-- A time-out around anything.
local ok, err = pcall(task.timeout, "100ms", task.sleep, "1h")
print(ok, err.code)

-- Results for a program rather than for people.
print(json.encode { answer, tries })

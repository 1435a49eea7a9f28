-- Best of three: three candidate fixes of a broken program are tried at once, each in a sandbox of
-- its own. The first that passes the tests wins; the others are ended at once.
local sandbox = require "sandbox"

-- The program should print the larger of two numbers. As it is, it compares them as text.
local candidates = {
  { name = "swap the branches", program = '[ "$1" \\< "$2" ] && echo "$1" || echo "$2"' },
  { name = "compare as numbers", program = '[ "$1" -gt "$2" ] && echo "$1" || echo "$2"' },
  { name = "sort, slowly", program = 'sleep 5; printf "%s\\n" "$@" | sort -n | tail -n 1' },
}

local tests = [[
set -e
[ "$(sh /tmp/max 1 2)" = 2 ]
[ "$(sh /tmp/max 7 5)" = 7 ]
[ "$(sh /tmp/max 9 10)" = 10 ]
[ "$(sh /tmp/max 4 4)" = 4 ]
]]

local function try(candidate)
  local sb <close> = sandbox.create { image = "host", timeout = 60 }
  sb:exec({ "sh", "-c", "cat > /tmp/max" }, { stdin = candidate.program, check = true })
  sb:exec({ "sh" }, { stdin = tests, timeout = "30s", check = true }) -- raises when a test fails
  return candidate
end

-- Which candidates fail does not matter, as long as one passes: errors wait until all have failed.
local attempts = {}
for i, candidate in ipairs(candidates) do
  attempts[i] = function() return try(candidate) end
end

local winner = task.race(attempts)
print("the winner: " .. winner.name)
print(winner.program)
print("sandboxes left: " .. #sandbox.list())

-- A server in the background: sb:spawn starts it and goes on, p:lines() tells when it is up, other
-- commands of the sandbox talk to it, and a signal ends it. It would end with the sandbox anyway.
local sandbox = require "sandbox"

local sb <close> = sandbox.create { image = "host", timeout = 60 }

-- A server as small as they come: reads requests from one pipe, answers into another.
sb:write("/srv/server.sh", [[
trap 'echo "got TERM, served $n"; exit 0' TERM
n=0
mkfifo request answer
exec 3<>request
echo "ready"
while read -r name <&3; do
  n=$((n + 1))
  echo "request $n: $name"
  echo "hello $name" >answer
done
]])
local server = sb:spawn({ "sh", "server.sh" }, { cwd = "/srv" })

local log = server:lines()
print("the server says: " .. log())
for _, name in ipairs { "moon", "sand" } do
  local r = sb:exec("echo " .. name .. " >request; cat answer", { cwd = "/srv", timeout = 10 })
  io.write("the client got: ", r.stdout)
  print("the server says: " .. log())
end

server:kill "SIGTERM"
local r = server:wait()
print(("it %s with %d and printed %d lines"):format(r.reason, r.exit_code,
  select(2, r.stdout:gsub("\n", ""))))

-- A filter: what it reads is written while it runs.
local sort = sb:spawn { "sort", "-n" }
for _, n in ipairs { 30, 4, 100 } do sort:write(n .. "\n") end
sort:close_stdin()
for line in sort:lines() do print("sorted: " .. line) end
print(sort:wait().exit_code)

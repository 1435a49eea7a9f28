-- Prints the microseconds of each exec in a live sandbox, while a bomb goes off in another one.
-- Arguments: count, pause in ms before each, 1, the bomb.
local sandbox = require "sandbox"

local count, pause, bomb = tonumber(arg[1]), tonumber(arg[2]) / 1000, arg[4]

local BOMBS = {
  quiet = "sleep 600",
  output = "yes",
  -- Each begins anew as soon as it has hit its limit.
  fork = "bomb() { bomb | bomb & }; while :; do bomb; done",
  memory = "while :; do head -c 1G /dev/zero | tail -c 1G; done",
  disk = "while :; do head -c 1G /dev/zero >/tmp/f; done",
  inodes = "i=0; while :; do : >/tmp/$((i += 1)) || { rm -rf /tmp/*; i=0; }; done",
  -- Each datagram is looked at, refused, answered and told.
  network = [[exec python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try: s.sendto(b'x', ('169.254.1.1', 9))
    except OSError: pass"]],
}

local sb <close> = sandbox.create { timeout = 600 }
local other <close> = sandbox.create {
  timeout = 600, memory = "128MiB", disk = "16MiB", pids = 64, cpu = 1,
  network = bomb == "network" and "open" or "none",
}
sb:exec { "/usr/bin/true" }
local p = bomb == "quiet" and other:spawn { "sleep", "600" }
  or task.spawn(function() return other:exec({ "sh", "-c", BOMBS[bomb] .. " 2>/dev/null" }) end)
task.sleep(0.5)
for _ = 1, count do
  if pause > 0 then task.sleep(pause) end
  local begin = task.now()
  local r = sb:exec { "/usr/bin/true" }
  local took = (task.now() - begin) * 1e6
  r:check()
  print(string.format("%.1f", took))
end
other:terminate()
if bomb ~= "quiet" then pcall(p.wait, p) end

-- Files: into a sandbox, out of it, and what lies there. Nothing of the image is needed for that,
-- and big files go in pieces. To copy whole folders from and to this machine there are sb:upload
-- and sb:download; whoever starts the script grants those folders (--allow-read, --allow-write).
local sandbox = require "sandbox"

local sb <close> = sandbox.create { image = "host", disk = "64MiB" }

sb:mkdir "/srv/job/out"
sb:write("/srv/job/run.sh", [[
#!/bin/sh
sort -u words >out/sorted
wc -l <out/sorted | tr -d ' ' >out/count
]], { mode = "0755" })
sb:write("/srv/job/words", "sand\ndust\nmoon\nsand\n")
sb:exec({ "./run.sh" }, { cwd = "/srv/job", check = true })

for _, entry in ipairs(sb:list "/srv/job") do
  print(entry.type, entry.mode, entry.name)
end
io.write(sb:read "/srv/job/out/sorted")
print("words: " .. sb:read "/srv/job/out/count":match "%d+")

-- A function is asked for more until it gives nil, and on_data gets what comes: neither side ever
-- holds it all.
local sent, got = 0, 0
sb:write("/srv/job/big", function()
  if sent == 8 << 20 then return nil end
  sent = sent + (1 << 20)
  return ("x"):rep(1 << 20)
end)
sb:read("/srv/job/big", { on_data = function(bytes) got = got + #bytes end })
print(("sent %d MiB, got %d MiB"):format(sent >> 20, got >> 20))

-- What fails says why, as a code.
local function try(what, ...)
  local ok, err = pcall(sb[what], sb, ...)
  print(what, ok and "fine" or err.code .. ": " .. err.message)
end
try("read", "/srv/job/nothing")
try("read", "/srv/job")
try("write", "/usr/bin/tool", "x")
-- Too much for the disk: the file that was there stays.
try("write", "/srv/job/big", function() return ("y"):rep(1 << 20) end)
print("still " .. (sb:stat("/srv/job/big").size >> 20) .. " MiB")
try("remove", "/srv/job")
try("stat", "/srv/job")

-- A small root file system out of this machine's own programs, and images of it.
local files = require "spec.support.files"
local proc = require "spec.support.proc"

local M = {}

local function sh(command)
  local r = proc.run({ "sh", "-c", command })
  if r.status ~= 0 then error(command .. ": " .. r.stdout .. r.stderr, 3) end
  return r.stdout
end

--- The path of a fresh one; `more` are further programs, by their paths.
function M.make(more)
  local root = files.dir "root"
  sh(([[cd '%s' && mkdir -p proc dev sys tmp usr etc bin && chmod 1777 tmp
    for f in /bin/dash /bin/ls /bin/cat /bin/mkdir /bin/ln /bin/rm /bin/mv /bin/chmod /bin/chown %s
    do
      for l in $f $(ldd $f | grep -o '/[^ ]*'); do mkdir -p ".${l%%/*}" && cp -L "$l" ".$l"; done
    done
    ln -sf dash bin/sh
    printf 'root:x:0:0:root:/:/bin/sh\n' >etc/passwd; printf 'root:x:0:\n' >etc/group]])
    :format(root, more or ""))
  return root
end

return M

-- Scratch files of a spec, all under one directory of the run, removed by M.clean().
local lfs = require "lfs"

local M = {}
local made = {}
local n = 0

local base = os.getenv "TMPDIR" or "/tmp"

--- A fresh directory that any user may enter.
function M.dir(name)
  n = n + 1
  local path = ("%s/%s.%d.%d"):format(base, name or "dir", math.random(1e9), n)
  assert(lfs.mkdir(path))
  os.execute(("chmod 755 '%s'"):format(path))
  made[#made + 1] = path
  return path
end

function M.write(path, text)
  local f = assert(io.open(path, "wb"))
  assert(f:write(text))
  f:close()
  return path
end

--- Writes a script into a directory of its own and returns its path.
function M.script(name, text)
  return M.write(M.dir("script") .. "/" .. name, text)
end

function M.read(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text = f:read "a"
  f:close()
  return text
end

--- Is it below a directory that was made here?
function M.is_ours(path)
  for _, dir in ipairs(made) do
    if path:sub(1, #dir + 1) == dir .. "/" then return true end
  end
  return false
end

function M.exists(path) return lfs.symlinkattributes(path) ~= nil end

local function remove(path)
  if lfs.symlinkattributes(path, "mode") == "directory" then
    for name in lfs.dir(path) do
      if name ~= "." and name ~= ".." then remove(path .. "/" .. name) end
    end
    return lfs.rmdir(path)
  end
  return os.remove(path)
end
M.remove = remove

--- Removes all that was made here. Every spec that makes something calls it at its end.
function M.clean()
  for i = #made, 1, -1 do
    remove(made[i])
    made[i] = nil
  end
end

return M

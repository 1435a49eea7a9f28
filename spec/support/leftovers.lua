-- What runs of the binary left behind. Processes are known by descent (see sys.lua), cgroups by the
-- warden's pid in their names, files by the scratch directories that are private to a test run.
local lfs = require "lfs"
local files = require "spec.support.files"
local host = require "spec.support.host"
local sys = require "spec.support.sys"

local M = {}

local function dirs_named(path, pattern, out)
  local ok, iter, data = pcall(lfs.dir, path)
  if not ok then return out end
  for name in iter, data do
    if name ~= "." and name ~= ".." and name:find(pattern) then out[path .. "/" .. name] = true end
  end
  return out
end

-- The hierarchies, and our own group in each: BASE of what we start.
function M.cgroup_bases()
  local bases, own = {}, {}
  for _, controllers, path in sys.read("/proc/self/cgroup"):gmatch "(%d+):([^:]*):([^\n]*)" do
    for c in (controllers == "" and "unified" or controllers):gmatch "[^,]+" do own[c] = path end
  end
  for line in sys.read("/proc/self/mountinfo"):gmatch "[^\n]+" do
    local mount, kind, super = line:match "^%S+ %S+ %S+ %S+ (%S+) .- %- (%S+) %S+ (%S+)"
    if kind == "cgroup2" then
      bases[(mount .. (own.unified or "")):gsub("/$", "")] = true
    elseif kind == "cgroup" then
      for c in super:gmatch "[^,]+" do
        if own[c] then bases[(mount .. own[c]):gsub("/$", "")] = true end
      end
    end
  end
  return bases
end

local function cgroups()
  local found = {}
  for base in pairs(M.cgroup_bases()) do dirs_named(base .. "/regolith", "^w%-", found) end
  return found
end

local function files_below(path, out)
  local ok, iter, data = pcall(lfs.dir, path)
  if not ok then return out end
  for name in iter, data do
    if name ~= "." and name ~= ".." then
      local full = path .. "/" .. name
      if lfs.symlinkattributes(full, "mode") == "directory" then
        files_below(full, out)
      else
        out[full] = true
      end
    end
  end
  return out
end

local function scratch_files()
  local found = {}
  local dirs = os.getenv "REGOLITH_SCRATCH" or os.getenv "TMPDIR" or ""
  for dir in dirs:gmatch "[^:]+" do files_below(dir, found) end
  for _, dir in ipairs { "/run/regolith", "/var/lib/regolith" } do files_below(dir, found) end
  return dirs_named("/dev/shm", "^regolith", found)
end

local function mounts()
  local found = {}
  for line in sys.read("/proc/self/mountinfo"):gmatch "[^\n]+" do
    found[line:match "^%S+ %S+ %S+ (%S+ %S+)"] = true
  end
  return found
end

--- What is there now, to compare with later.
function M.before()
  local except = {}
  for _, p in ipairs(sys.below()) do except[p.pid] = true end
  return { processes = except, cgroups = cgroups(), files = scratch_files(), mounts = mounts() }
end

local function new(list, kind, now, before)
  for k in pairs(now) do
    if not before[k] then list[#list + 1] = kind .. " " .. k end
  end
end

-- A warden that lives and is not below us is somebody else's, as are its directories and, while
-- there is one, the file in which user ids are locked.
local function foreign(path)
  if path == "/run/regolith/ids" then
    for _, p in pairs(sys.processes()) do
      if p.name:find "^regolith%-warden" then return true end
    end
    return false
  end
  local pid = path:match "/w%-%d+%-(%d+)%-"
  local comm = pid and sys.read(("/proc/%s/comm"):format(pid))
  return comm ~= nil and comm:find "^regolith" ~= nil
end

-- The store of images is kept on purpose, and scripts that a spec wrote go with files.clean.
local function kept(path)
  return path:find("/regolith/images/", 1, true) ~= nil or files.is_ours(path)
end

local function left(before)
  local list = {}
  for _, p in ipairs(sys.below(sys.self, before.processes)) do
    list[#list + 1] = ("process %d (%s) %s"):format(p.pid, p.name, sys.title(p.pid))
  end
  local busy = #list > 0
  local groups = cgroups()
  for path in pairs(groups) do
    if not busy and foreign(path) then groups[path] = nil end
  end
  new(list, "cgroup", groups, before.cgroups)
  local found = scratch_files()
  for path in pairs(found) do
    if kept(path) or not busy and foreign(path) then found[path] = nil end
  end
  new(list, "file", found, before.files)
  new(list, "mount", mounts(), before.mounts)
  table.sort(list)
  return list
end

--- Fails unless all that came since `before` is gone within `seconds` (default 3).
function M.none_since(before, seconds, what)
  local task = require "task"
  local deadline = task.now() + (seconds or 3)
  local list
  repeat
    host.call("test.reap", {})
    list = left(before)
    if #list == 0 then return end
    task.sleep(0.02)
  until task.now() > deadline
  error(("left over%s:\n  %s"):format(what and " after " .. what or "",
    table.concat(list, "\n  ")), 2)
end

return M

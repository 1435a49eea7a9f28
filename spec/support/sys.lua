-- What the kernel says about our processes. The program that runs the specs is a child subreaper:
-- whatever it started, however deep and orphaned, is below it, and nothing else is.
local lfs = require "lfs"

local M = {}

local function read(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text = f:read "a"
  f:close()
  return text
end
M.read = read

M.self = tonumber(read("/proc/self/stat"):match "^%d+")
M.root = read("/proc/self/status"):match "\nUid:%s+(%d+)" == "0"

--- pid → { pid, parent, state, name } of every process there is.
function M.processes()
  local all = {}
  for name in lfs.dir "/proc" do
    local pid = tonumber(name)
    local stat = pid and read("/proc/" .. name .. "/stat")
    if stat then
      local comm, state, parent = stat:match "%((.*)%) (%S) (%d+)"
      if state then
        all[pid] = { pid = pid, parent = tonumber(parent), state = state, name = comm }
      end
    end
  end
  return all
end

--- The live processes below `top` (this process), without those in the set `except` and what is
--- below them.
function M.below(top, except)
  local all = M.processes()
  top, except = top or M.self, except or {}
  local known = { [top] = true }
  local function is_below(p, depth)
    if known[p.pid] ~= nil then return known[p.pid] end
    local parent = all[p.parent]
    local yes = not except[p.pid] and parent ~= nil and depth < 200 and is_below(parent, depth + 1)
    known[p.pid] = yes
    return yes
  end
  local found = {}
  for pid, p in pairs(all) do
    local dead = p.state == "Z" or p.state == "X"
    if pid ~= top and not dead and is_below(p, 0) then found[#found + 1] = p end
  end
  table.sort(found, function(a, b) return a.pid < b.pid end)
  return found
end

--- What a process calls itself, for messages.
function M.title(pid)
  local text = read("/proc/" .. pid .. "/cmdline") or ""
  return (text:gsub("%z+$", ""):gsub("%z", " "))
end

--- A field of /proc/PID/status as a number: M.status(pid, "VmHWM") in KiB. Nil when the process is
--- gone.
function M.status(pid, field)
  local text = read(("/proc/%s/status"):format(pid))
  return text and tonumber(text:match("\n" .. field .. ":%s+(%d+)"))
end

function M.fd_count(pid)
  local n = 0
  local ok = pcall(function()
    for name in lfs.dir(("/proc/%d/fd"):format(pid)) do
      if name ~= "." and name ~= ".." then n = n + 1 end
    end
  end)
  return ok and n or nil
end

return M

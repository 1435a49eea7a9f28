-- Writes a bundle with Docker's system call filter beside one without: FOLDER/filtered/config.json
-- and its root, out of FOLDER/config.json. Arguments: the profile, FOLDER, the machine.
local profile_path, folder, machine = arg[1], arg[2], arg[3]

local ARCH = { x86_64 = "amd64", aarch64 = "arm64" }
-- Of the capabilities that the profile asks about, those that Docker gives.
local GIVEN = { CAP_SYS_CHROOT = true, CAP_AUDIT_WRITE = true }

local function read_json(path)
  local f = assert(io.open(path, "r"))
  local v = json.decode(f:read "a")
  f:close()
  return v
end

local function any(list, has)
  for _, v in ipairs(list or {}) do
    if has[v] then return true end
  end
  return false
end

local function holds(entry)
  local only, but = entry.includes or {}, entry.excludes or {}
  local here = { [ARCH[machine] or machine] = true }
  return not (only.arches and not any(only.arches, here))
    and not (only.caps and not any(only.caps, GIVEN))
    and not any(but.arches, here) and not any(but.caps, GIVEN)
end

local profile, config = read_json(profile_path), read_json(folder .. "/config.json")
local calls = {}
for _, e in ipairs(profile.syscalls) do
  if holds(e) then
    local args = type(e.args) == "table" and e.args[1] and e.args or nil
    calls[#calls + 1] = { names = e.names, action = e.action, errnoRet = e.errnoRet, args = args }
  end
end
config.linux.seccomp = {
  defaultAction = profile.defaultAction,
  defaultErrnoRet = profile.defaultErrnoRet,
  syscalls = calls,
}
config.root.path = folder .. "/rootfs"
local f = assert(io.open(folder .. "/filtered/config.json", "w"))
f:write(json.encode(config))
f:close()

-- Checks every #include of src/ against tools/includes.txt: which part may include which, that a
-- header includes only base, that an x_internal.h stays inside its folder, and which parts may
-- include which library. Usage:
--
--
--   lua5.4 tools/includes.lua [ROOT]      ROOT holds src/ and tools/includes.txt; default "."
local root = arg[1] or "."
local parts, exceptions, libraries = {}, {}, {}
local faults = 0

local function fault(where, fmt, ...)
  faults = faults + 1
  io.stderr:write(where, ": ", fmt:format(...), "\n")
end

local function set(words)
  local s = {}
  for w in words:gmatch "%S+" do s[w] = true end
  return s
end

local function read_rules(path)
  for line in io.lines(path) do
    local kind, name, rest = line:match "^(%a+)%s+(%S+)%s*(.*)$"
    if kind == "part" then
      parts[name] = set(rest)
    elseif kind == "header" then
      exceptions[name] = set(rest)
    elseif kind == "library" then
      libraries[name] = set(rest)
    elseif line:find "^%s*[^#%s]" then
      error(path .. ": cannot read the line: " .. line)
    end
  end
end

-- "engine/local/agent.c" → "engine/local"; "engine/engine.h" → "engine"
local function part_of(file)
  local dir = file:match "^(.*)/[^/]+$"
  while dir do
    if parts[dir] then return dir end
    dir = dir:match "^(.*)/[^/]+$"
  end
end

local function exists(path)
  local f = io.open(path)
  if f then f:close() end
  return f ~= nil
end

local function check_own(file, where, part, target)
  local to = part_of(target)
  if not target:find "/" then
    -- Made at build time, under build/gen, or local to the folder; paths start at src.
    local dir = file:match "^(.*)/"
    if exists(root .. "/src/" .. dir .. "/" .. target) then
      fault(where, "include paths start at src/: write \"%s/%s\"", dir, target)
    end
    return
  end
  if not to then return fault(where, "\"%s\" belongs to no part of tools/includes.txt", target) end
  if target:find "internal%.h$" and target:match "^(.*)/" ~= file:match "^(.*)/" then
    fault(where, "\"%s\" is internal to its folder", target)
  end
  local may = parts[part]
  if not (to == "base" or to == part or may[to] or may["*"]) then
    fault(where, "%s may not include %s (\"%s\")", part, to, target)
  end
  local internal = file:find "internal%.h$"
  if file:find "%.h$" and to ~= "base" and not internal then
    local allowed = exceptions[file]
    if not (allowed and allowed[target]) then
      fault(where, "a header includes only base/; forward-declare what \"%s\" has", target)
    end
  end
end

local function check_file(file)
  local part = part_of(file)
  if not part then return fault("src/" .. file, "belongs to no part of tools/includes.txt") end
  local n = 0
  for line in io.lines(root .. "/src/" .. file) do
    n = n + 1
    local where = ("src/%s:%d"):format(file, n)
    local own = line:match '^%s*#%s*include%s*"([^"]+)"'
    local lib = line:match "^%s*#%s*include%s*<([^>]+)>"
    if own then check_own(file, where, part, own) end
    if lib and libraries[lib] and not libraries[lib][part] then
      fault(where, "%s may not include <%s>", part, lib)
    end
  end
end

read_rules(root .. "/tools/includes.txt")
local list = assert(io.popen("cd '" .. root .. "/src' && find . -name '*.[ch]' | LC_ALL=C sort"))
local checked = 0
for name in list:lines() do
  check_file((name:gsub("^%./", "")))
  checked = checked + 1
end
list:close()
if checked == 0 then fault("src", "no C file found") end
if faults > 0 then os.exit(1) end
print(checked .. " files")

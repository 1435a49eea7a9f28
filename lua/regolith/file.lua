-- Files of the host, as far as granted, and standard input: what io, loadfile and dofile do.
--
-- The files themselves are opened, read and written by the host, which knows the grants; here are
-- handles with the methods of Lua's own. A write is on its way when it returns.

local core = require "regolith.core"
local reader = require "regolith.reader"

local M = {}

local PIECE = 65536 -- bytes asked for at a time
local EACCES, ENOENT, EINVAL = 13, 2, 22
local errnos = { denied = EACCES, not_found = ENOENT }

local File = {}
local File_mt = { __index = File, __name = "FILE*", __metatable = "FILE*" }
local STATE = {} -- the key of a handle's { id =, reader = }; nothing there: closed

function File_mt:__tostring()
  return rawget(self, STATE) and ("file (%d)"):format(rawget(self, STATE).id) or "file (closed)"
end

local function open_state(self, what)
  if getmetatable(self) ~= "FILE*" then
    error(("bad argument #1 to '%s' (FILE* expected, got %s)"):format(what, type(self)), 3)
  end
  return rawget(self, STATE) or error("attempt to use a closed file", 3)
end

-- nil, message, number: how io says that something failed.
local function failure(err)
  if type(err) ~= "table" or not err.code then error(err, 0) end
  return nil, err.message, errnos[err.code] or EINVAL
end

local function open(path, mode)
  local ok, r = pcall(core.call, "file.open", { path = path, mode = mode })
  if not ok then return failure(r) end
  local handle = setmetatable({}, File_mt)
  local id = r.file
  local function fetch() return core.call("file.read", { file = id, max = PIECE }).data end
  handle[STATE] = {
    id = id,
    reader = reader.new(fetch),
  }
  return handle
end

function M.open(path, mode)
  mode = mode or "r"
  if type(path) ~= "string" then
    error(("bad argument #1 to 'open' (string expected, got %s)"):format(type(path)), 2)
  end
  if type(mode) ~= "string" or not mode:find("^[rwa]%+?b?$") then
    error("bad argument #2 to 'open' (invalid mode)", 2)
  end
  return open(path, mode)
end

function M.type(value)
  if getmetatable(value) ~= "FILE*" then return nil end
  return rawget(value, STATE) and "file" or "closed file"
end

function File:close()
  local s = open_state(self, "close")
  self[STATE] = nil
  local ok, err = pcall(core.call, "file.close", { file = s.id })
  if not ok then return failure(err) end
  return true
end

function File:read(...)
  return open_state(self, "read").reader:read("file:read", ...)
end

function File:lines(...)
  local s, formats = open_state(self, "lines"), table.pack(...)
  return function()
    if not rawget(self, STATE) then error("file is already closed", 2) end
    return s.reader:read("file:lines", table.unpack(formats, 1, formats.n))
  end
end

-- What was read ahead is behind the place where the script thinks it is.
local function settle(s)
  local ahead = s.reader:reset()
  if ahead > 0 then core.call("file.seek", { file = s.id, whence = "cur", offset = -ahead }) end
end

function File:write(...)
  local s, pieces = open_state(self, "write"), table.pack(...)
  for i = 1, pieces.n do
    if type(pieces[i]) == "number" then pieces[i] = tostring(pieces[i]) end
    if type(pieces[i]) ~= "string" then
      error(("bad argument #%d to 'write' (string expected, got %s)"):format(i, type(pieces[i])), 2)
    end
  end
  settle(s)
  local ok, err = pcall(core.call, "file.write", { file = s.id, data = table.concat(pieces) })
  if not ok then return failure(err) end
  return self
end

function File:seek(whence, offset)
  local s = open_state(self, "seek")
  whence, offset = whence or "cur", offset or 0
  settle(s)
  local ok, r = pcall(core.call, "file.seek", { file = s.id, whence = whence, offset = offset })
  if not ok then return failure(r) end
  return r.position
end

function File:flush() return open_state(self, "flush") and self end
function File:setvbuf() return open_state(self, "setvbuf") and true end

function File_mt:__close()
  if rawget(self, STATE) then self:close() end
end

function M.lines(path, ...)
  local handle, message = open(path, "r")
  if not handle then error(message, 2) end
  local formats = table.pack(...)
  return function()
    if not handle[STATE] then return nil end
    local results = table.pack(handle:read(table.unpack(formats, 1, formats.n)))
    if results[1] == nil then handle:close() end
    return table.unpack(results, 1, results.n)
  end
end

local stdin = reader.new(function() return core.call("stdin.read", { max = PIECE }).data end)

function M.read(...)
  return stdin:read("io.read", ...)
end

local function read_source(path)
  local handle, message, number = open(path, "r")
  if not handle then return nil, message, number end
  local text = handle:read "a"
  handle:close()
  -- A first line for the shell goes; its end stays, to keep line numbers.
  return (text:gsub("^#[^\n]*", "", 1))
end

function M.loadfile(path, mode, ...)
  local text, message = read_source(path)
  if not text then return nil, message end
  return load(text, "@" .. path, mode, ...)
end

function M.dofile(path)
  local chunk, message = M.loadfile(path)
  if not chunk then error(message, 0) end
  return chunk()
end

-- A function of a plugin, called across: plain data goes there and comes back.
local function tool_caller(plugin, tool)
  return function(...)
    local args = table.pack(...)
    for i = 1, args.n do
      if args[i] == nil then args[i] = core.null end
    end
    args.n = nil
    local values = core.call("plugin.call", { plugin = plugin, tool = tool, args = args }).values
    for i = 1, #values do
      if values[i] == core.null then values[i] = nil end
    end
    return table.unpack(values, 1, #values)
  end
end

-- The text of a module and its chunk name, or what loading it gives, or nil: what require asks.
function M.module(name)
  local ok, r = pcall(core.call, "script.module", { name = name })
  if ok and r.plugin then
    local caller = tool_caller(r.plugin, r.tool)
    return function() return caller end
  end
  if ok then return (r.text:gsub("^#[^\n]*", "", 1)), "@" .. r.path end
  if type(r) == "table" and (r.code == "not_found" or r.code == "unsupported") then return nil end
  error(r, 0)
end

return M

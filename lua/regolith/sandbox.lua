-- The module `sandbox`: handles and results over the ops of the supervisor.
--
-- Arguments are checked where the ops are answered, so that a script and an HTTP client get the
-- same messages; here only what never leaves the script is looked at (callbacks, check, the forms
-- of a command). A handle's fields are the last known values; only calls ask the engine.

local core = require "regolith.core"
local suggest = require "regolith.suggest"

local M = {}

local FIELDS <const> = {
  "sandbox_id", "app_id", "name", "engine", "state", "created_at", "expires_at", "config", "tags",
  "cost", "tunnels",
}
local CALLBACKS <const> = { "on_stdout", "on_stderr" }
local EVENTS <const> = {
  "before_create", "created", "exec_done", "connection_refused", "terminated",
}

local function bad_argument(field, message, hint)
  error(core.error("invalid_argument", message, { field = field, hint = hint }), 0)
end

local function check_table(value, field)
  if value == nil then return {} end
  if type(value) ~= "table" then
    bad_argument(field, field .. " must be a table, not a " .. type(value))
  end
  return value
end

local function copy(t)
  local out = {}
  for k, v in pairs(t) do out[k] = v end
  return out
end

-- Event hooks -----------------------------------------------------------------------------------

local hooks = {}
for _, event in ipairs(EVENTS) do hooks[event] = {} end

local function fire(event, ...)
  for _, fn in ipairs(copy(hooks[event])) do fn(...) end
end

---Calls fn at each event of this script's sandboxes. Returns a function that takes it back.
---@param event "before_create"|"created"|"exec_done"|"connection_refused"|"terminated"
---@param fn function
---@return fun()
function M.on(event, fn)
  local list = hooks[event]
  if not list then
    bad_argument("event", ("there is no event %q%s"):format(tostring(event),
      type(event) == "string" and suggest.phrase(event, EVENTS) or ""),
      "the events are " .. table.concat(EVENTS, ", "))
  end
  if type(fn) ~= "function" then
    bad_argument("fn", "fn must be a function, not a " .. type(fn))
  end
  list[#list + 1] = fn
  return function()
    for i = #list, 1, -1 do
      if list[i] == fn then
        table.remove(list, i)
        return
      end
    end
  end
end

-- Results ---------------------------------------------------------------------------------------

---@class sandbox.Result
local Result = {}
Result.__index = Result
Result.__name = "sandbox.Result"

local function describe_end(r)
  if r.reason == "exited" then return "exited with " .. r.exit_code end
  if r.reason == "signal" then return "was ended by " .. (r.signal or "a signal") end
  if r.reason == "timeout" then return "ran out of time" end
  if r.reason == "oom" then return "ran out of memory" end
  if r.reason == "output_limit" then return "printed more than it may" end
  return "ended as " .. r.reason
end

--- The last line that says something, shortened.
local function last_line(text)
  local line = text:match("([^\n]*%S[^\n]*)%s*$")
  return line and #line > 200 and line:sub(1, 200) .. "…" or line
end

function Result:__tostring()
  return "command " .. describe_end(self)
end

---Returns the result when the command ended with 0; raises `command_failed` otherwise.
---@return sandbox.Result
function Result:check()
  if self.ok then return self end
  local said = last_line(self.stderr) or last_line(self.stdout)
  local message = "the command " .. describe_end(self) .. (said and (": " .. said) or "")
  local err = core.error("command_failed", message)
  err.result = self
  error(err, 0)
end

-- Commands --------------------------------------------------------------------------------------

--- Moves the array part of t to a list of its own; holes and what is no text are errors.
local function take_argv(t)
  local argv, n = {}, 0
  for key in pairs(t) do
    if type(key) == "number" then n = n + 1 end
  end
  for i = 1, n do
    local item = t[i]
    if type(item) == "number" then item = tostring(item) end
    if type(item) ~= "string" then
      bad_argument(("command[%d]"):format(i),
        ("command[%d] must be a string, not %s"):format(i, item == nil and "nil" or
          "a " .. type(item)))
    end
    argv[i] = item
  end
  return argv
end

local function named_part(t)
  local out = {}
  for key, value in pairs(t) do
    if type(key) ~= "number" then out[key] = value end
  end
  return out
end

--- One table of options with `command` in it, from any of the forms of exec.
local function read_command(command, opts)
  if opts ~= nil and type(opts) ~= "table" then
    bad_argument("options", "the options must be a table, not a " .. type(opts))
  end
  if type(command) == "string" then
    local args = copy(opts or {})
    args.command = command
    return args
  end
  if type(command) ~= "table" then
    bad_argument("command", "command must be a text for /bin/sh or a list of arguments, not "
      .. (command == nil and "nil" or "a " .. type(command)), 'for example { "ls", "-l" }')
  end
  local args = named_part(command)
  for key, value in pairs(opts or {}) do
    if args[key] ~= nil then
      bad_argument(tostring(key), tostring(key) .. " is given twice: beside the command and in the "
        .. "options")
    end
    args[key] = value
  end
  if args.command == nil or command[1] ~= nil then args.command = take_argv(command) end
  return args
end

local function check_callback(value, field)
  if value == nil or type(value) == "function" then return value end
  local mt = getmetatable(value)
  if type(mt) == "table" and mt.__call then return value end
  bad_argument(field, field .. " must be a function, not a " .. type(value))
end

--- What the script keeps for itself: callbacks and check. The rest of args goes to the engine.
local function take_local_options(args)
  local on_stdout = check_callback(args.on_stdout, "on_stdout")
  local on_stderr = check_callback(args.on_stderr, "on_stderr")
  local check = args.check
  if check ~= nil and type(check) ~= "boolean" then
    bad_argument("check", "check must be true or false, not a " .. type(check))
  end
  args.on_stdout, args.on_stderr, args.check = nil, nil, nil
  for key, value in pairs(args) do
    if type(value) == "function" then
      bad_argument(tostring(key), ("there is no callback %q%s"):format(tostring(key),
        suggest.phrase(tostring(key), CALLBACKS)))
    end
  end
  if not on_stdout and not on_stderr then return nil, check end
  args.stream = true
  return function(stream, data)
    local fn = stream == "stdout" and on_stdout or stream == "stderr" and on_stderr
    if fn then fn(data) end
  end, check
end

--- target is a handle or an id.
local function run_command(target, command, opts)
  local args = read_command(command, opts)
  local on_chunk, check = take_local_options(args)
  args.sandbox_id = type(target) == "table" and target.sandbox_id or target
  local r = setmetatable(core.call("sandbox.exec", args, { on_chunk = on_chunk }), Result)
  for _, refused in ipairs(r.refused or {}) do fire("connection_refused", target, refused) end
  fire("exec_done", target, r)
  if check then r:check() end
  return r
end

-- Handles ---------------------------------------------------------------------------------------

---@class sandbox.Sandbox
local Sandbox = {}
Sandbox.__index = Sandbox
Sandbox.__name = "sandbox.Sandbox"

local function refresh(self, view)
  for _, field in ipairs(FIELDS) do self[field] = view[field] end
  return view
end

local function new_handle(view)
  local self = setmetatable({}, Sandbox)
  refresh(self, view)
  return self
end

local function check_handle(self, method)
  if getmetatable(self) ~= Sandbox then
    bad_argument("self", ("%s must be called on a sandbox, with a colon: sb:%s(…)"):format(method,
      method))
  end
  return self
end

local function check_id(id)
  if getmetatable(id) == Sandbox then return id.sandbox_id end
  if type(id) ~= "string" then
    bad_argument("sandbox_id", "sandbox_id must be a string, not "
      .. (id == nil and "nil" or "a " .. type(id)))
  end
  return id
end

local ENDED <const> = { sandbox_terminated = true, sandbox_timeout = true }

--- Ends the sandbox; one that has ended already is as good.
local function terminate(id)
  local ok, result = pcall(core.call, "sandbox.terminate", { sandbox_id = id })
  if ok then
    fire("terminated", result)
    return result
  end
  if type(result) ~= "table" or not ENDED[result.code] then error(result, 0) end
  return nil
end

function Sandbox:__tostring()
  return ("sandbox %s (%s)"):format(tostring(self.sandbox_id), tostring(self.state))
end

function Sandbox:__close(err)
  if self.detached then return end
  local ok, failure = pcall(terminate, self.sandbox_id)
  if ok then
    self.state = "terminated"
  elseif err == nil and not (type(failure) == "table" and failure.code == "sandbox_not_found") then
    error(failure, 0)
  end
end

---Runs a command and waits for its end.
---@param command string|table
---@param opts? table
---@return sandbox.Result
function Sandbox:exec(command, opts)
  return run_command(check_handle(self, "exec"), command, opts)
end

---Asks the engine how the sandbox is, and refreshes the handle's fields.
---@return table
function Sandbox:status()
  check_handle(self, "status")
  return refresh(self, core.call("sandbox.status", { sandbox_id = self.sandbox_id }))
end

---Ends the sandbox; returns when its last process is dead.
function Sandbox:terminate()
  check_handle(self, "terminate")
  local view = terminate(self.sandbox_id)
  if type(view) == "table" and view.state then
    refresh(self, view)
  else
    self.state = "terminated"
  end
end

---The address under which a port of the sandbox is reached, of those that it was created with.
---@param port integer
---@return string
function Sandbox:url(port)
  check_handle(self, "url")
  for _, tunnel in ipairs(self.tunnels or {}) do
    if tunnel.port == port then return tunnel.url end
  end
  local name = tostring(port)
  bad_argument("port", ("port %s of the sandbox is not reached from outside"):format(name),
    "it was to be created with unencrypted_ports = { " .. name .. " }")
end

---Lets the sandbox outlive the script.
function Sandbox:detach()
  check_handle(self, "detach")
  core.call("sandbox.detach", { sandbox_id = self.sandbox_id })
  self.detached = true
end

---Adds to the life-time.
---@param seconds number|string
---@return table
function Sandbox:extend(seconds)
  check_handle(self, "extend")
  return refresh(self, core.call("sandbox.extend", {
    sandbox_id = self.sandbox_id, seconds = seconds,
  }))
end

---Waits until the port of `ready` accepts connections.
---@param timeout? number|string
---@return table
function Sandbox:wait_ready(timeout)
  check_handle(self, "wait_ready")
  return refresh(self, core.call("sandbox.wait_ready", {
    sandbox_id = self.sandbox_id, timeout = timeout,
  }))
end

-- Files -----------------------------------------------------------------------------------------

local PIECE <const> = 256 * 1024 -- of what is written, at a time

--- The op's arguments: the method's parameters over its table of options.
local function file_args(self, method, opts, parameters)
  check_handle(self, method)
  local args = copy(check_table(opts, "options"))
  for name, value in pairs(parameters) do args[name] = value end
  args.sandbox_id = self.sandbox_id
  return args
end

---The bytes of a file; with on_data, gives them to that in pieces and returns how many there were.
---@param path string
---@param opts? table
---@return string|integer
function Sandbox:read(path, opts)
  local args = file_args(self, "read", opts, { path = path })
  local on_data = check_callback(args.on_data, "on_data")
  args.on_data = nil
  local pieces = {}
  if on_data and args.max == nil then args.max = "1TiB" end -- it is kept nowhere
  local result = core.call("sandbox.read", args, {
    on_chunk = function(_, bytes)
      if on_data then on_data(bytes) else pieces[#pieces + 1] = bytes end
    end,
  })
  return on_data and result.bytes or table.concat(pieces)
end

--- Gives a string in pieces, so that no message is too long and nobody is flooded.
local function in_pieces(data)
  local at = 1
  return function()
    if at > #data then return nil end
    local piece = data:sub(at, at + PIECE - 1)
    at = at + PIECE
    return piece
  end
end

---Writes a file: a string, or what a function gives until it gives nil.
---@param path string
---@param data string|fun(): string?
---@param opts? table
function Sandbox:write(path, data, opts)
  local args = file_args(self, "write", opts, { path = path })
  if type(data) ~= "string" and type(data) ~= "function" then
    bad_argument("data", "data must be a string, or a function that gives strings and then nil, "
      .. "not " .. (data == nil and "nil" or "a " .. type(data)))
  end
  if type(data) == "string" then data = in_pieces(data) end
  core.call("sandbox.write", args, { input = data })
end

--- The operations whose arguments go to the engine as they are; names are of the parameters.
local PLAIN <const> = {
  list = { "path" },
  stat = { "path" },
  mkdir = { "path" },
  remove = { "path" },
  upload = { "source", "target" },
  download = { "source", "target" },
  diff = {},
  snapshot = {},
  commit = {},
}

for method, parameters in pairs(PLAIN) do
  Sandbox[method] = function(self, ...)
    check_handle(self, method)
    local opts = select(#parameters + 1, ...)
    local args = type(opts) == "table" and copy(opts) or {}
    for i, parameter in ipairs(parameters) do args[parameter] = (select(i, ...)) end
    args.sandbox_id = self.sandbox_id
    return core.call("sandbox." .. (method == "list" and "list_files" or method), args)
  end
end

--- Each of them, whatever becomes of the others.
local function terminate_all(list)
  for _, sb in pairs(list) do pcall(terminate, sb.sandbox_id) end
end

---Makes n sandboxes with the same options that start from this one's files.
---@param n? integer
---@return sandbox.Sandbox[]
function Sandbox:fork(n)
  check_handle(self, "fork")
  n = n == nil and 1 or n
  if math.type(n) ~= "integer" or n < 1 or n > 1000 then
    bad_argument("count", ("count must be an integer from 1 to 1000, not %s"):format(tostring(n)))
  end
  local image = core.call("sandbox.snapshot", { sandbox_id = self.sandbox_id }).image
  local copies, numbers = {}, {}
  for i = 1, n do numbers[i] = i end
  local ok, failure = pcall(require "task".map, numbers, { limit = 8 }, function(i)
    copies[i] = new_handle(core.call("sandbox.fork", {
      sandbox_id = self.sandbox_id, image = image,
    }))
    fire("created", copies[i])
  end)
  -- Those that are there go on using it.
  core.call("sandbox.forget", { image = image })
  if ok then return copies end
  terminate_all(copies)
  error(failure, 0)
end

-- Spawned commands ------------------------------------------------------------------------------

---@class sandbox.Process
local Process = {}
Process.__index = Process
Process.__name = "sandbox.Process"

--- The key of what is no script's business: sandbox, check, result; by stream rest, at, ended.
local PRIVATE <const> = {}

local function check_process(self, method)
  local private = getmetatable(self) == Process and rawget(self, PRIVATE)
  if not private then
    bad_argument("self", ("%s must be called on a process, with a colon: p:%s(…)"):format(method,
      method))
  end
  return private
end

local function ask(self, op, args, opts)
  args.sandbox_id, args.exec = self.sandbox_id, self.exec
  return core.call("sandbox." .. op, args, opts)
end

---Starts a command and does not wait for it.
---@param command string|table
---@param opts? table
---@return sandbox.Process
function Sandbox:spawn(command, opts)
  check_handle(self, "spawn")
  local args = read_command(command, opts)
  for _, field in ipairs(CALLBACKS) do
    if args[field] ~= nil then
      bad_argument(field, field .. " is for sb:exec: of a spawned command read p:lines()")
    end
  end
  local _, check = take_local_options(args)
  args.sandbox_id = self.sandbox_id
  local started = core.call("sandbox.spawn", args)
  return setmetatable({
    sandbox_id = started.sandbox_id, exec = started.exec, pid = started.pid,
    [PRIVATE] = { sandbox = self, check = check, rest = {}, at = {}, ended = {} },
  }, Process)
end

function Process:__tostring()
  return ("command %d of sandbox %s"):format(self.exec, self.sandbox_id)
end

---Waits for the end; asked again, it gives the same result.
---@return sandbox.Result
function Process:wait()
  local private = check_process(self, "wait")
  if not private.result then
    local r = setmetatable(ask(self, "wait", {}), Result)
    if not private.result then -- another task may have been quicker
      private.result = r
      fire("exec_done", private.sandbox, r)
    end
  end
  if private.check then private.result:check() end
  return private.result
end

---Sends a signal to the command; without one, ends it with all that it started.
---@param signal? string|integer
function Process:kill(signal)
  check_process(self, "kill")
  ask(self, "kill", { signal = signal })
end

---Writes to its standard input; returns when that has room again.
---@param data string
function Process:write(data)
  check_process(self, "write")
  if type(data) ~= "string" then
    bad_argument("data", "data must be a string, not " .. (data == nil and "nil" or "a "
      .. type(data)))
  end
  ask(self, "input", {}, { input = in_pieces(data) })
end

---Ends its standard input.
function Process:close_stdin()
  check_process(self, "close_stdin")
  ask(self, "input", { close = true }, { input = "" })
end

--- More of what it prints, or nil at the end.
local function read_more(self, private, stream)
  if private.ended[stream] then return nil end
  local r = ask(self, "output", { stream = stream })
  private.ended[stream] = not r.data
  if r.lost then
    private.rest[stream] = r.data or ""
    error(core.error("limit", ("%d bytes of its %s were not read in time and are gone"):format(
      r.lost, stream), { hint = "read sooner, or give it a larger max_output; "
      .. "lines() goes on behind them" }), 0)
  end
  return r.data
end

---Iterates over the lines that it prints, as they come.
---@param stream? "stdout"|"stderr"
---@return fun(): string?
function Process:lines(stream)
  local private = check_process(self, "lines")
  stream = stream or "stdout"
  if stream ~= "stdout" and stream ~= "stderr" then
    bad_argument("stream", ('stream must be "stdout" or "stderr", not %s'):format(
      tostring(stream)))
  end
  return function()
    local parts = {}
    while true do
      local text, at = private.rest[stream] or "", private.at[stream] or 1
      local stop = text:find("\n", at, true)
      parts[#parts + 1] = text:sub(at, (stop or 0) - 1)
      if stop then
        private.at[stream] = stop + 1
        return table.concat(parts)
      end
      private.rest[stream], private.at[stream] = nil, nil
      local more = read_more(self, private, stream)
      if not more then
        local last = table.concat(parts)
        return last ~= "" and last or nil
      end
      private.rest[stream] = more
    end
  end
end

-- The module ------------------------------------------------------------------------------------

---Creates a sandbox and waits until it runs.
---@param opts? table
---@return sandbox.Sandbox
function M.create(opts)
  local args = copy(check_table(opts, "options"))
  fire("before_create", args)
  local sb = new_handle(core.call("sandbox.create", args))
  fire("created", sb)
  return sb
end

---A handle for a sandbox of this script by id.
---@param id string
---@param opts? { engine: string? }
---@return sandbox.Sandbox
function M.get(id, opts)
  local args = copy(check_table(opts, "options"))
  args.sandbox_id = check_id(id)
  return new_handle(core.call("sandbox.get", args))
end

---Handles of this script's sandboxes, all or those that match.
---@param filter? table
---@return sandbox.Sandbox[]
function M.list(filter)
  local out = {}
  for i, view in ipairs(core.call("sandbox.list", check_table(filter, "filter"))) do
    out[i] = new_handle(view)
  end
  return out
end

---@param id string
---@param command string|table
---@param opts? table
---@return sandbox.Result
function M.exec(id, command, opts)
  return run_command(getmetatable(id) == Sandbox and id or check_id(id), command, opts)
end

---@param id string
---@return table
function M.status(id)
  if getmetatable(id) == Sandbox then return id:status() end
  return core.call("sandbox.status", { sandbox_id = check_id(id) })
end

---@param id string
function M.terminate(id)
  if getmetatable(id) == Sandbox then return id:terminate() end
  terminate(check_id(id))
end

---Creates a sandbox, runs one command in it and ends it.
---@param command string|table
---@param opts? table
---@return sandbox.Result
function M.run(command, opts)
  local args = read_command(command, opts)
  local create = args.create
  args.create = nil
  local line = args.command
  args.command = nil
  local sb <close> = M.create(create)
  return run_command(sb, line, args)
end

---What a create with these options would cost.
---@param opts? table
---@return number usd
function M.price(opts)
  return core.call("sandbox.price", check_table(opts, "options")).usd
end

---Lets go of an image without a name that a snapshot made.
---@param image string
function M.forget(image)
  core.call("sandbox.forget", { image = image })
end

---@return table[]
function M.gpus()
  return core.call("sandbox.gpus", {})
end

---@return table[]
function M.engines()
  return core.call("sandbox.engines", {})
end

---Sandboxes made beforehand, one for each use.
---@param opts? { size?: integer, create?: table, reuse?: boolean }
---@return sandbox.Pool
function M.pool(opts)
  return require "regolith.pool"(M, check_table(opts, "options"))
end

return M

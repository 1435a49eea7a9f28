-- What a plugin's state runs: reads the plugin's table, then calls its functions for the host.
--
-- Two queues come from the host. Calls (before_create, tools) are answered each in a task of its
-- own, by its id. Events (created, exec_done, terminated) are handed over one after the other, in
-- the order of things; the last one says that the run is over. Every hook has its time; one that is
-- out of it is cancelled, and that is its error.

local core = require "regolith.core"
local suggest = require "regolith.suggest"
local task = require "regolith.task"

local FIELDS <const> = { "name", "on", "tools", "grants", "start", "timeout" }
local LONGEST <const> = 300 -- seconds a hook may have
local HOOKS <const> = { "before_create", "created", "exec_done", "terminated" }
local GRANTS <const> = { "read", "write" }

local given = core.call("plugin.load", {})
local limit = 5 -- seconds a hook has

local function fail(message, ...)
  error(core.error("invalid_argument", message:format(...)), 0)
end

local function describe(err)
  if type(err) ~= "table" then return tostring(err) end
  if type(err.message) ~= "string" then return "an error that is a table without a message" end
  return err.message
end

-- The plugin's table ----------------------------------------------------------------------------

local function check_fields(t, what, known)
  if type(t) ~= "table" then fail("%s must be a table, not a %s", what, type(t)) end
  for key in pairs(t) do
    local is_known = false
    for _, name in ipairs(known) do is_known = is_known or name == key end
    if not is_known then
      fail("%s has no field %q%s", what, tostring(key),
        type(key) == "string" and suggest.phrase(key, known) or "")
    end
  end
end

local function check_names(list, what)
  if type(list) == "string" then list = { list } end
  if type(list) ~= "table" then fail("%s must be a list of paths, not a %s", what, type(list)) end
  for _, item in ipairs(list) do
    if type(item) ~= "string" then fail("%s must be a list of paths", what) end
  end
  return list
end

local function check_hooks(on)
  check_fields(on, "on", HOOKS)
  local there = {}
  for name, fn in pairs(on) do
    if type(fn) ~= "function" then fail("on.%s must be a function, not a %s", name, type(fn)) end
    there[name] = true
  end
  return there
end

local function check_tools(tools)
  if type(tools) ~= "table" then fail("tools must be a table, not a %s", type(tools)) end
  local there = {}
  for name, tool in pairs(tools) do
    if type(name) ~= "string" or not name:find "^[%a_][%w_]*$" then
      fail("tools.%s: a tool's name is made of letters, digits and _", tostring(name))
    end
    if type(tool) ~= "function" and type(tool) ~= "string" then
      fail("tools.%s must be a function, or the path of a Lua file, not a %s", name, type(tool))
    end
    there[name] = type(tool) == "string" and tool or true
  end
  return there
end

local function load_plugin()
  local chunk_name = given.path and "@" .. given.path or "=[plugin " .. given.name .. "]"
  local chunk, message = load((given.text:gsub("^#[^\n]*", "", 1)), chunk_name, "t")
  if not chunk then error(message, 0) end
  local plugin = chunk(given.name, given.option)
  check_fields(plugin, "what a plugin returns", FIELDS)
  if plugin.name ~= nil and plugin.name ~= given.name then
    fail("it calls itself %q: name its file so too", tostring(plugin.name))
  end
  if plugin.timeout ~= nil then limit = core.duration(plugin.timeout, "timeout") end
  if limit <= 0 or limit > LONGEST then fail("timeout must be above 0 and at most 5 minutes") end
  local grants = plugin.grants or {}
  check_fields(grants, "grants", GRANTS)
  core.call("plugin.declare", {
    limit = limit,
    hooks = check_hooks(plugin.on or {}),
    tools = check_tools(plugin.tools or {}),
    read = check_names(grants.read or {}, "grants.read"),
    write = check_names(grants.write or {}, "grants.write"),
  })
  if plugin.start ~= nil then
    if type(plugin.start) ~= "function" then
      fail("start must be a function, not a %s", type(plugin.start))
    end
    plugin.start()
  end
  return plugin
end

-- Calls -----------------------------------------------------------------------------------------

--- Runs fn in its time: true and its first result, or false and the error, or nil and a text when
--- the time was over.
local function run(fn, ...)
  local in_time, ok, value = pcall(task.timeout, limit, pcall, fn, ...)
  if in_time then return ok, value end
  return nil, ("it took longer than %g s"):format(limit)
end

--- An error that a script should see as it is: one with a code that errors have.
local function is_refusal(err)
  return type(err) == "table" and type(err.code) == "string" and type(err.message) == "string"
    and core.error(err.code, "").code == err.code
end

local function plain_error(err)
  local out = {}
  for _, key in ipairs { "code", "message", "field", "hint" } do
    if type(err[key]) == "string" then out[key] = err[key] end
  end
  return out
end

local function reply(id, fields)
  fields.id = id
  local ok, err = pcall(core.call, "plugin.reply", fields)
  if not ok then
    core.call("plugin.reply", { id = id, failure = "its answer is not plain data: "
      .. describe(err) })
  end
end

local function reply_error(id, what, err)
  if is_refusal(err) then
    reply(id, { error = plain_error(err) })
  else
    reply(id, { failure = what .. describe(err) })
  end
end

--- The options of a create: what the hook returned, or those it was given, changed or not.
local function before_create(plugin, m)
  local ok, value = run(plugin.on.before_create, m.opts, m.info)
  if ok == nil then return reply(m.id, { failure = "before_create: " .. value }) end
  if not ok then return reply_error(m.id, "before_create: ", value) end
  if value == nil then value = m.opts end
  if type(value) ~= "table" then
    return reply(m.id, { failure = ("before_create returned a %s"):format(type(value)) })
  end
  reply(m.id, { value = value })
end

--- Tools have no deadline: the script that waits for one has.
local function call_tool(plugin, m)
  local args = m.args or {}
  local n = #args
  for i = 1, n do
    if args[i] == core.null then args[i] = nil end
  end
  local results = table.pack(pcall(plugin.tools[m.tool], table.unpack(args, 1, n)))
  if not results[1] then return reply_error(m.id, m.tool .. ": ", results[2]) end
  local values = {}
  for i = 2, results.n do values[i - 1] = results[i] == nil and core.null or results[i] end
  reply(m.id, { value = values })
end

local function answer(running, plugin, m)
  local ok, err = pcall(m.kind == "tool" and call_tool or before_create, plugin, m)
  running[m.id] = nil
  if not ok then reply(m.id, { failure = describe(err) }) end
end

local function take_calls(plugin)
  local running = {}
  while true do
    for _, m in ipairs(core.call("plugin.next", { queue = "calls" })) do
      if m.cancel then
        local t = running[m.cancel]
        running[m.cancel] = nil
        if t then core.cancel(t) end
      else
        running[m.id] = core.daemon(m.kind, answer, running, plugin, m)
      end
    end
  end
end

-- Events ----------------------------------------------------------------------------------------

local function take_events(plugin)
  while true do
    for _, m in ipairs(core.call("plugin.next", { queue = "events" })) do
      if m.kind == "end" then return end
      local ok, err = run(plugin.on[m.kind], m.info)
      if not ok then core.log("warn", m.kind .. ": " .. describe(err)) end
    end
  end
end

local plugin = load_plugin()
core.daemon("calls", take_calls, plugin)
take_events(plugin)

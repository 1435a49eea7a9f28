---@meta

---What a plugin returns: the Lua file behind `regolith run --plugin FILE`. Its main chunk gets its name and what stood
---behind "=" in the option.
---```lua
---local name, option = ...
---return {
---  on = { before_create = function(opts, info)
---    if info.config.memory > 4096 then error { code = "denied", message = "4 GiB are enough" } end
---  end },
---}
---```
---@class Plugin
---@field name? string the name it is known by; default that of its file
---@field on? Plugin.Hooks functions that are called for what scripts do; default none
---@field tools? table<string, function|string> modules for scripts: functions that run here, or paths of Lua files; default none
---@field grants? Plugin.Grants files it may open; default none
---@field start? fun() called once, before the first script starts; an error refuses the run
---@field timeout? Duration the time of each hook, at most 5 minutes; default 5

---@class Plugin.Hooks
---@field before_create? fun(opts: table, info: Plugin.CreateInfo): table? may change opts, return others, or raise an error such as { code = "denied", message = "…" }
---@field created? fun(info: Plugin.Event) a sandbox was made
---@field exec_done? fun(info: Plugin.Event) a command ended
---@field terminated? fun(info: Plugin.Event) a sandbox ended

---@class Plugin.CreateInfo
---@field script string the name of the script
---@field config table the create as it is understood, with defaults filled in

---@class Plugin.Event
---@field script string the name of the script
---@field sandbox_id string
---@field engine string
---@field name? string created: the sandbox's name
---@field image? string created
---@field timeout? integer created: its life-time in seconds
---@field exec? integer exec_done: the number of the command in its sandbox
---@field command? string[] exec_done: its arguments
---@field reason? string exec_done, terminated: how it ended
---@field exit_code? integer exec_done: when it exited
---@field signal? string exec_done: when a signal ended it
---@field duration_ms? integer exec_done, terminated
---@field commands_executed? integer terminated

---@class Plugin.Grants
---@field read? string|string[] folders, or single files, that it may read; default none
---@field write? string|string[] the same for writing; default none

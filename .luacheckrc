-- Settings of luacheck, for the Lua that the binary embeds, the examples, the specs and the tools.
std = "lua54"
max_line_length = 100
max_cyclomatic_complexity = 25
codes = true
exclude_files = { "lua/types" } -- annotations for people and editors, never run

-- What a script sees besides the standard library.
local script_globals = {
  "task", "retry", "on_exit", "budget", "progress", "log", "json", "http", "args", "env",
}
files["examples"] = { read_globals = script_globals }
files["lua/regolith"] = {
  ignore = { "211/guard" }, -- closed at the end of its block
  read_globals = script_globals }
files["lua/plugins"] = { read_globals = script_globals }
files["spec"] = {
  std = "+busted",
  read_globals = script_globals,
}
files["spec/bench"] = { read_globals = script_globals }
-- Scripts that are bad on purpose.
files["spec/traps"] = { only = { "0" } }

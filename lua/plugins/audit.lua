-- audit: one line of JSON for each sandbox made, command run and sandbox ended.
--
--     regolith run --plugin audit=/var/log/regolith.jsonl script.lua
--
-- Without a file it writes to regolith-audit.jsonl in the working directory.
-- The file is only appended to, each line by one write, so that several runs can share it. A file
-- that cannot be opened refuses the run before a script starts.

local name, path = ...
path = path or "regolith-audit.jsonl"

local file

local KEEP <const> = {
  "script", "sandbox_id", "engine", "name", "image", "timeout", "exec", "command", "reason",
  "exit_code", "signal", "error", "message", "stdout_bytes", "stderr_bytes", "commands_executed",
  "duration_ms",
}

--- Keys in a fixed order, so that lines can be read, and compared, as text.
local function line_of(event, info)
  local parts = {
    ('"time":%q'):format(os.date "!%Y-%m-%dT%H:%M:%SZ"), ('"event":%q'):format(event),
  }
  for _, key in ipairs(KEEP) do
    if info[key] ~= nil then
      parts[#parts + 1] = ('"%s":%s'):format(key, json.encode(info[key]))
    end
  end
  return "{" .. table.concat(parts, ",") .. "}\n"
end

local function write(event)
  return function(info)
    local ok, message = file:write(line_of(event, info))
    if not ok then error(("cannot write to %s: %s"):format(path, message), 0) end
  end
end

return {
  name = name,
  grants = { write = path },
  start = function()
    local message
    file, message = io.open(path, "a")
    if not file then error(message, 0) end
  end,
  on = { created = write "create", exec_done = write "exec", terminated = write "terminate" },
}

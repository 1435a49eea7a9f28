-- Runs programs, the real binary above all: with captured output, input, signals and a time limit.
-- Every call blocks the calling task only.
local host = require "spec.support.host"
local sys = require "spec.support.sys"

local M = {}

M.build = os.getenv "REGOLITH_BUILD" or "build"
M.regolith = M.build .. "/regolith"
-- Sanitizers take several times the memory and the time.
M.factor = M.build:find "/[at]san$" and 6 or 1

local Process = {}
Process.__index = Process

--- Starts argv (an array). Options: stdin (a string, or true for a pipe that p:write fills), env (a
--- map: the whole environment; default: ours), cwd, uid and gid (as another user). The program gets
--- a session and process group of its own.
function M.start(argv, opts)
  opts = opts or {}
  local env
  if opts.env then
    env = {}
    for k, v in pairs(opts.env) do env[#env + 1] = k .. "=" .. v end
  end
  local r = host.call("test.proc.start", {
    argv = argv,
    env = env,
    cwd = opts.cwd,
    uid = opts.uid,
    gid = opts.gid,
    stdin = type(opts.stdin) == "string" and opts.stdin or nil,
    stdin_open = opts.stdin == true or nil,
    close_stdout = opts.close_stdout,
  })
  return setmetatable({ id = r.id, pid = r.pid }, Process)
end

--- Waits for the end, of the program and of its output; after `seconds` (default 30) the program is
--- killed with all of its session and an error raised. Returns { status, signal, stdout, stderr,
--- duration_ms }: status is nil when a signal ended it.
function Process:wait(seconds)
  seconds = seconds or 30
  local r = host.call("test.proc.wait", { id = self.id, timeout_ms = math.floor(seconds * 1000) })
  if not r.done then
    self:kill("KILL", true)
    local rest = host.call("test.proc.wait", { id = self.id, timeout_ms = 5000 })
    error(("still running after %g s:\n%s\n%s"):format(seconds, rest.stdout, rest.stderr), 2)
  end
  host.call("test.proc.free", { id = self.id })
  return r
end

--- Has the program itself ended? (Its output may still be held open by others.)
function Process:ended() return host.call("test.proc.peek", { id = self.id }).exited end

--- stdout and stderr so far.
function Process:output()
  local r = host.call("test.proc.peek", { id = self.id })
  return r.stdout, r.stderr
end

--- Waits until stdout (or stderr) matches a pattern; raises after `seconds` (default 10), or when
--- the program ended first.
function Process:expect(pattern, seconds)
  local task = require "task"
  local deadline = task.now() + (seconds or 10)
  while true do
    local r = host.call("test.proc.peek", { id = self.id })
    local found = r.stdout:match(pattern) or r.stderr:match(pattern)
    if found then return found end
    if r.exited or task.now() > deadline then
      error(("%s without \"%s\":\n%s\n%s"):format(r.exited and "ended" or "out of time", pattern,
        r.stdout, r.stderr), 2)
    end
    task.sleep(0.005)
  end
end

local NUMBER = { HUP = 1, INT = 2, QUIT = 3, KILL = 9, USR1 = 10, PIPE = 13, TERM = 15, CONT = 18,
  STOP = 19 }

--- Sends a signal by name to the program, or with group = true to its whole process group, as a
--- terminal does for Ctrl-C.
function Process:kill(signal, group) M.kill(group and -self.pid or self.pid, signal) end

--- Sends a signal to any process below this one.
function M.kill(pid, signal)
  host.call("test.kill", { pid = pid, signal = NUMBER[signal] or error("signal " .. signal) })
end

function Process:write(text) host.call("test.proc.write", { id = self.id, data = text }) end
function Process:close_stdin() host.call("test.proc.write", { id = self.id, data = "" }) end

--- Starts and waits. Option besides those of start: timeout (seconds, default 30).
function M.run(argv, opts)
  return M.start(argv, opts):wait(opts and opts.timeout)
end

--- The binary: M.cli({ "run", path }, opts).
function M.cli(args, opts) return M.run(M.cli_argv(args), opts) end
function M.cli_start(args, opts) return M.start(M.cli_argv(args), opts) end
function M.cli_argv(args)
  return table.move(args, 1, #args, 2, { M.regolith })
end

--- Our environment as a map, with the entries of `more` added (false removes one).
function M.env(more)
  local env = {}
  for entry in sys.read("/proc/self/environ"):gmatch "[^%z]+" do
    local k, v = entry:match "^(.-)=(.*)$"
    if k then env[k] = v end
  end
  for k, v in pairs(more or {}) do env[k] = v or nil end
  return env
end

return M

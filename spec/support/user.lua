-- Ordinary users of this machine, each with a copy of the binary. Needs root; a spec says otherwise
-- M.no_users and passes on: where the whole suite runs as a user, all specs are about users.
local files = require "spec.support.files"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"

local M = {}
local User = {}
User.__index = User
local made = 0

M.no_users = "needs root, to make a user"

local function sh(command)
  local r = proc.run({ "sh", "-c", command })
  if r.status ~= 0 then error(command .. ": " .. r.stderr, 2) end
  return r.stdout
end

--- A new user with a home directory, with subordinate ids or without; nil where we may not make
--- one. tools/leftovers.sh knows its name.
function M.make(subids)
  if not sys.root then return end
  made = made + 1
  local user = setmetatable({ name = ("rgtest%dn%d"):format(sys.self, made) }, User)
  user.home = files.dir "home"
  sh(("useradd -r -M -d '%s' -s /bin/sh %s"):format(user.home, user.name))
  if subids then
    local range = "2000000000-2000131071"
    sh(("usermod --add-subuids %s --add-subgids %s %s"):format(range, range, user.name))
  end
  user.uid = tonumber(sh("id -u " .. user.name))
  user.gid = tonumber(sh("id -g " .. user.name))
  user.bin = user.home .. "/regolith"
  sh(("cp -r '%s' '%s/parts' '%s'"):format(proc.regolith, proc.build, user.home))
  sh(("chown -R %s '%s'"):format(user.name, user.home))
  user.env = { HOME = user.home, PATH = os.getenv "PATH", USER = user.name,
    TMPDIR = os.getenv "TMPDIR", LC_ALL = "C.UTF-8" }
  return user
end

function User:remove() sh("userdel " .. self.name) end

--- Starts any program as this user. Options as for proc.start.
function User:start_program(argv, opts)
  local as = { uid = self.uid, gid = self.gid, env = self.env, cwd = "/" }
  for k, v in pairs(opts or {}) do as[k] = v end
  return proc.start(argv, as)
end

--- Starts the binary; run waits for it, too.
function User:start(args, opts)
  return self:start_program({ self.bin, table.unpack(args) }, opts)
end

function User:run(args, opts) return self:start(args, opts):wait(opts and opts.timeout) end

return M

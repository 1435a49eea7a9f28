-- What a sandbox can see of the machine. A word that nobody else uses is planted wherever a run
-- leaves traces: host name, mount, paths, environment, a descriptor. Then everything readable in a
-- sandbox is searched for it. The control: the same search outside finds each of them.
local lfs = require "lfs"

local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"
local users = require "spec.support.user"

local WORD = "rgplanted" .. sys.self

local REGOLITH = proc.regolith:find "^/" and proc.regolith
  or lfs.currentdir() .. "/" .. proc.regolith

-- Names each place with the word in it. The pattern comes from a file, so that no argument has it.
local SEARCH = [[
p=$(mktemp) && printf '%s\n' "]] .. WORD:sub(1, 4) .. [[""]] .. WORD:sub(5) .. [[" >"$p"
tell() { grep -qaF -f "$p" && echo "$1"; }
hostname | tell hostname
cat /proc/sys/kernel/hostname | tell kernel.hostname
cat /proc/self/mountinfo /proc/1/mountinfo 2>/dev/null | tell mountinfo
cat /proc/self/cgroup /proc/1/cgroup 2>/dev/null | tell cgroup
env | tell environment
pwd | tell directory
cat /proc/[0-9]*/environ 2>/dev/null | tell environ
cat /proc/[0-9]*/cmdline 2>/dev/null | tell arguments
(cd /proc && ls -l [0-9]*/fd [0-9]*/cwd [0-9]*/root [0-9]*/exe) 2>/dev/null | tell links
cat /proc/net/unix 2>/dev/null | tell sockets
[ -n "$ALL" ] && find /proc /sys /dev /etc /run /var /root /home /mnt /opt -xdev -type f -readable \
  ! -name kallsyms ! -name config.gz ! -name kmsg ! -name mem ! -name pagemap \
  ! -path "*/task/*" -print0 2>/dev/null |
  xargs -0 head -v -c 65536 2>/dev/null | grep -aF -f "$p"
rm "$p"
echo done]]

-- Starts $0 with its arguments in such surroundings.
local SURROUND = [[set -e
mkdir -p "$PLACE"; cd "$PLACE"; echo "$PLACE" >file; exec 9<file; export PLANTED="$PLACE"
if [ "$(id -u)" = 0 ]; then
  exec unshare -u -m sh -e -c 'hostname "$WORD"; mkdir -p mnt
    mount -t tmpfs "$WORD" mnt; exec "$0" "$@"' "$0" "$@"
fi
exec "$0" "$@"]]

local function lines(text)
  local set = {}
  for line in text:gmatch "[^\n]+" do set[line] = true end
  return set
end

describe("a sandbox sees of the machine", function()
  local before
  before_each(function() before = leftovers.before() end)
  after_each(function() leftovers.none_since(before, 5) end)
  teardown(files.clean)

  local function surrounded(argv, more)
    local dir = files.dir "planted"
    local env = { WORD = WORD, PLACE = dir .. "/" .. WORD, TMPDIR = false }
    for k, v in pairs(more or {}) do env[k] = v end
    return { "sh", "-c", SURROUND, table.unpack(argv) }, env
  end

  it("no name, path, mount, process, variable or descriptor", function()
    local argv, env = surrounded { "sh", "-c", SEARCH }
    local outside = lines(proc.run(argv, { env = proc.env(env) }).stdout)
    local must = { "environment", "directory", "environ", "links" }
    if sys.root then table.move({ "hostname", "mountinfo" }, 1, 2, #must + 1, must) end
    for _, place in ipairs(must) do
      assert.is_true(outside[place], "the search does not find what is planted: " .. place)
    end

    argv, env = surrounded { REGOLITH, "exec", "--", "env", "ALL=1", "sh", "-c", SEARCH }
    local r = proc.run(argv, { env = proc.env(env) })
    local own = proc.cli { "exec", "--", "env", "ALL=1", "sh", "-c",
      ("echo a %s >/root/note; exec >/root/found; %s; cat /root/found >&2"):format(WORD, SEARCH) }
    local found = "\n" .. own.stderr
    assert.is_truthy(found:find("\na " .. WORD .. "\n", 1, true), "the search does not find a file")
    assert.equal("done\n", r.stdout, r.stderr)
  end)

  it("no more where an ordinary user makes it", function()
    if not sys.root then return pending(users.no_users) end
    local user = users.make(true)
    local env = { WORD = WORD, PLACE = user.home .. "/" .. WORD }
    for k, v in pairs(user.env) do env[k] = v end
    local r = user:start_program({ "sh", "-c", SURROUND, user.bin, "exec", "--", "env", "ALL=1",
      "sh", "-c", SEARCH }, { env = env }):wait()
    user:remove()
    assert.equal("done\n", r.stdout, r.stderr)
  end)

  -- What is left are facts that the kernel keeps once. Whoever meets a new one here decides:
  -- mask it in rootfs.c, or tell of it in the threat model.
  it("only those facts of its kernel that the threat model lists", function()
    local text = assert(sys.read "docs/threat-model.md")
    local section = text:match "\n### What it sees of the kernel\n(.-)\n### "
    assert.is_truthy(section, "docs/threat-model.md has no such section")
    local known = {}
    for name in section:gmatch "`([%w._-]+)`" do known[name] = true end
    local r = proc.cli { "exec", "--", "sh", "-c", [[cd /proc; for f in *; do
      case $f in [0-9]*) continue ;; esac
      if [ -d $f ]; then set -- $(ls -A $f 2>/dev/null)
      else set -- $(head -c 1 $f 2>/dev/null | od -An -c); fi
      [ $# = 0 ] || echo $f; done]] }
    assert.is_truthy(r.stdout:find "cpuinfo", r.stderr)
    local unknown = {}
    for name in r.stdout:gmatch "[^\n]+" do
      if not known[name] then unknown[#unknown + 1] = name end
    end
    assert.equal("", table.concat(unknown, " "))
  end)
end)

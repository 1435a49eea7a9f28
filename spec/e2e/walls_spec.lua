-- The walls from inside: what a hostile command and a hostile image try, and what they get. Each
-- try is a real one; where it could also fail for another reason, a control shows that it works.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"

local function sh(command, opts)
  local r = proc.run({ "sh", "-c", command }, opts)
  return r.stdout .. r.stderr, r.status
end

local function has(program) return select(2, sh("command -v " .. program)) == 0 end

-- Runs a shell script in a sandbox.
local function inside(script, options)
  local args = { "exec" }
  for _, o in ipairs(options or {}) do args[#args + 1] = o end
  for _, a in ipairs { "--", "sh", "-c", script } do args[#args + 1] = a end
  return proc.cli(args)
end

local function says(want, script, options)
  local r = inside(script, options)
  assert.equal(want, r.stdout, "stderr: " .. r.stderr)
end

describe("a hostile command", function()
  local before
  before_each(function() before = leftovers.before() end)
  after_each(function() leftovers.none_since(before, 5) end)
  teardown(files.clean)

  it("finds no network but its own loopback, and no way to make one", function()
    says("lo\n", "tail -n +3 /proc/net/dev | sed 's/ *//; s/:.*//'")
    says("", "tail -n +2 /proc/net/route")
    if has "ip" then
      says("no\n", "ip link add dummy0 type dummy 2>/dev/null && echo yes || echo no")
    end
  end)

  -- A process may have 16 rulesets: the one of the sandbox leaves room for 15 of its own.
  it("lives under a Landlock ruleset of its sandbox's", function()
    local layers = [[python3 -c '
import ctypes
call = ctypes.CDLL(None, use_errno=True).syscall
if call(444, 0, 0, 1) < 2: raise SystemExit("none")
handled = ctypes.c_uint64(1)
ruleset, n = call(444, ctypes.byref(handled), 8, 0), 0
assert ruleset >= 0
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
while call(446, ruleset, 0) == 0: n += 1
print(n)']]
    if not has "python3" then return pending "no python3" end
    local on_host, status = sh(layers)
    if status ~= 0 then return pending("no Landlock here: " .. on_host) end
    assert.equal("16\n", on_host)
    says("15\n", layers)
  end)

  it("cannot touch process 1", function()
    says("alive\n", "kill -9 1; kill -STOP 1; kill -TERM -1 2>/dev/null; sleep 0.05; echo alive")
    says("", "cat /proc/1/environ /proc/1/maps /proc/1/mem 2>/dev/null | head -c 10")
    says("no\n", "ls /proc/1/fd /proc/1/cwd/ 2>/dev/null && echo yes || echo no")
    if has "prlimit" then
      says("no\n", "prlimit --pid 1 --nofile=1:1 2>/dev/null && echo yes || echo no")
      says("yes\n", "prlimit --pid $$ --nofile=9:9 2>/dev/null && echo yes || echo no")
    end
    if has "nsenter" then
      says("no\n", "nsenter -t 1 -m true 2>/dev/null && echo yes || echo no")
    end
    if has "strace" then
      says("no\n", "timeout 2 strace -p 1 2>/dev/null && echo yes || echo no")
    end
  end)

  it("sees no process, host name or path of the machine", function()
    local r = inside "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; hostname; cat /proc/self/mountinfo"
    expect.lacks(r.stdout, "regolith-spec")
    expect.lacks(r.stdout, (sh "hostname"):gsub("%s", "") .. "\n")
    expect.lacks(r.stdout, os.getenv "TMPDIR" or "/tmp/regolith")
  end)

  it("gets no privileges from set-uid programs", function()
    -- The control: as root inside, the same copy runs.
    says("0\n0\n", [[cp "$(command -v id)" /tmp/id; chmod 4755 /tmp/id; id -u; /tmp/id -u]])
    local r = inside([[cp "$(command -v id)" /tmp/id; chmod 4755 /tmp/id; ls -l /tmp/id | cut -c1-4;
      if command -v setpriv >/dev/null; then setpriv --reuid 1 --clear-groups /tmp/id -u; fi]])
    expect.lacks(r.stdout, "\n0\n")
  end)

  it("makes no namespaces, mounts or devices", function()
    says("no\n", "unshare -U true 2>/dev/null && echo yes || echo no")
    says("no\n", "unshare -n true 2>/dev/null && echo yes || echo no")
    says("no\n", "mount -t tmpfs x /mnt 2>/dev/null && echo yes || echo no")
    says("no\n", "umount /proc/sys 2>/dev/null && echo yes || echo no")
    says("no\n", "mount -o remount,rw / /usr 2>/dev/null && echo yes || echo no")
    says("no\n", "mknod /tmp/sda b 8 0 2>/dev/null && echo yes || echo no")
    says("fifo\n", "mkfifo /tmp/p && test -p /tmp/p && echo fifo")
  end)

  it("makes none by clone3 either, whose flags no filter sees", function()
    if not has "python3" then return pending "needs python3" end
    -- struct clone_args with CLONE_NEWUSER, then CLONE_NEWNET, and without flags as the control.
    says("-1 -1 child\n", [[python3 -c '
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def clone3(flags):
    args = struct.pack("=11Q", flags, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    pid = libc.syscall(435, args, len(args))
    if pid == 0:
        os.write(1, b"child\n" if not flags else b"escaped ")
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return pid
os.write(1, b"%d " % clone3(0x10000000))
os.write(1, b"%d " % clone3(0x40000000))
clone3(0)']])
  end)

  it("cannot leave its root by chroot", function()
    if not has "python3" then return pending "needs python3" end
    local marker = files.write(files.dir "outside" .. "/marker", "outside")
    -- Climb out of a chroot below by way of a directory held open above it: that works, and ends at
    -- the sandbox's own root.
    local r = inside(([[python3 -c '
import os
os.mkdir("/tmp/jail")
above = os.open("/", os.O_RDONLY)
os.chroot("/tmp/jail")
os.fchdir(above)
for _ in range(64): os.chdir("..")
os.chroot(".")
print(open("/etc/hostname").read().strip(), os.path.exists("%s"))']]):format(marker))
    assert.equal("sandbox False\n", r.stdout, r.stderr)
  end)

  it("finds what it may know of the kernel, and no more", function()
    says("", "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | head -c 1")
    says("", "cat /proc/cmdline /proc/interrupts /proc/locks")
    says("", "ls /sys /proc/acpi /proc/scsi 2>/dev/null | grep -v :$ | tr -d '\\n'")
    says("no\n", "echo 0 2>/dev/null >/proc/sys/kernel/randomize_va_space && echo yes || echo no")
    says("no\n", "echo c 2>/dev/null >/proc/sysrq-trigger && echo yes || echo no")
    says("no\n", "dmesg >/dev/null 2>&1 && echo yes || echo no")
  end)

  it("leaves nothing for the sandbox after it", function()
    says("", "echo secret >/tmp/a; echo secret >/dev/shm/a; echo secret >/root/a")
    says("", "cat /tmp/a /dev/shm/a /root/a 2>/dev/null")
  end)
end)

describe("a hostile image", function()
  local before, dir, victim
  before_each(function()
    before = leftovers.before()
    dir, victim = files.dir "image", files.dir "victim"
    files.write(victim .. "/precious", "as it was")
    sh(([[set -e; cd '%s'; mkdir -p bin etc
      for p in sh cat ls id touch; do
        p=$(command -v $p); cp -L $p bin/
        for l in $(ldd $p | grep -o '/[^ ]*'); do mkdir -p .${l%%/*}; cp -L $l .$l; done
      done
      echo root:x:0:0::/:/bin/sh >etc/passwd]]):format(dir))
  end)
  after_each(function()
    sh(("rm -rf '%s' '%s'"):format(dir, victim))
    leftovers.none_since(before, 5)
  end)
  teardown(files.clean)

  -- Whatever happened: the victim is as it was, and nothing lies in it.
  local function unharmed()
    assert.equal("precious\n", (sh(("ls -A '%s'"):format(victim))))
    assert.equal("as it was", files.read(victim .. "/precious"))
  end

  local function image() return { "--image", "dir:" .. dir } end

  it("works as long as it is not hostile", function()
    says("in\n", "echo in >/f; cat /f", image())
    assert.is_false(files.exists(dir .. "/f"))
  end)

  for _, name in ipairs { "dev", "proc", "tmp", "sys" } do
    it("cannot lead the engine out by a link at /" .. name, function()
      sh(("ln -s '%s' '%s/%s'"):format(victim, dir, name))
      local r = inside(("ls -A /%s/; touch /%s/x"):format(name, name), image())
      expect.lacks(r.stdout, "precious")
      unharmed()
      local link = ("%s/%s"):format(dir, name)
      sh(("rm '%s'; ln -s ../../../../../../../../..%s '%s'"):format(link, victim, link))
      r = inside(("ls -A /%s/; touch /%s/x"):format(name, name), image())
      expect.lacks(r.stdout, "precious")
      unharmed()
    end)
  end

  it("cannot lead it out by the working directory", function()
    sh(("ln -s '%s' '%s/work'"):format(victim, dir))
    local options = image()
    options[3], options[4] = "--cwd", "/work"
    local r = inside("ls -A; touch x", options)
    expect.lacks(r.stdout, "precious")
    assert.not_equal(0, r.status)
    unharmed()
  end)

  it("cannot have users looked up in files of the host", function()
    files.write(victim .. "/precious", "as it was")
    sh(("rm '%s/etc/passwd'; ln -s /etc/shadow '%s/etc/passwd'"):format(dir, dir))
    local options = image()
    options[3], options[4] = "--user", "root"
    expect.lacks(inside("cat /etc/passwd", options).stdout, "$")
    options[4] = "daemon"
    assert.not_equal(0, inside("id", options).status)
  end)

  it("brings no set-uid programs and no devices", function()
    sh(("chmod 4755 '%s/bin/id'"):format(dir))
    says("nosuid\nnosuid\n", [[while read a b c d where options rest; do
      case $where in /|/dev)
        case $options in *nosuid*) echo nosuid;; *) echo $where $options;; esac;;
      esac
      done </proc/self/mountinfo]], image())
    if not sys.root then return end
    sh(("mknod '%s/null' c 1 3; chmod 666 '%s/null'"):format(dir, dir))
    if not files.exists(dir .. "/null") then return end
    says("no\n", "(echo x >/null) 2>/dev/null && echo yes || echo no", image())
    says("yes\n", "(echo x >/dev/null) 2>/dev/null && echo yes || echo no", image())
  end)
end)

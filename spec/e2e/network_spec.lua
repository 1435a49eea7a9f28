-- Networks of sandboxes: a real outside (spec/support/outside.py) in a network namespace of its
-- own, joined to this machine by a pair of veth. The machine's servers for names are that
-- outside's, in a mount namespace that only the runs under test see.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"
local users = require "spec.support.user"

local HERE, THERE, THERE6 = "10.77.249.1", "10.77.249.2", "fd77:249::2"
local before, outside, netns, resolv, veth
local has_ipv6 = files.exists "/proc/net/if_inet6"

-- What keeps the specs from it, or nil.
local function missing()
  if not sys.root then return "needs root, to make an outside" end
  if proc.run({ "sh", "-c", "command -v ip && command -v curl && test -c /dev/net/tun" }).status
      ~= 0 then
    return "needs ip, curl and /dev/net/tun"
  end
end
local why_not = missing()

-- Texts say 10.77.249 (and fd77:249, and ports 1843x); what runs has numbers of this process's own,
-- so that two checkouts can be tested on one machine.
local OWN = tostring(sys.self % 200 + 10)
local function real(text)
  text = text:gsub("10%.77%.249%.", "10.77." .. OWN .. "."):gsub("1843", 1800 + sys.self % 1000)
  return (text:gsub("fd77:249:", "fd77:" .. OWN .. ":"))
end
local function as_written(r)
  r.stdout = r.stdout:gsub("10%.77%." .. OWN .. "%.", "10.77.249.")
  return r
end

local function sh(command)
  local r = proc.run { "sh", "-c", real(command) }
  if r.status ~= 0 then error(command .. ": " .. r.stderr, 2) end
  return r.stdout
end

setup(function()
  before = leftovers.before()
  if why_not then return end
  -- A namespace that lives as long as a process of ours.
  netns = proc.start { "unshare", "--net", "sh", "-c",
    "ip link set lo up; echo up; exec sleep 600" }
  netns:expect "up"
  veth = "rg" .. sys.self
  sh(("ip link add %s type veth peer name eth0 netns %d"):format(veth, netns.pid))
  sh(("ip addr add %s/24 dev %s && ip link set %s up"):format(HERE, veth, veth))
  local inside = "nsenter --net=/proc/" .. netns.pid .. "/ns/net "
  sh(inside .. "ip addr add " .. THERE .. "/24 dev eth0 && " .. inside .. "ip link set eth0 up")
  if has_ipv6 then
    sh(("ip -6 addr add fd77:249::1/64 dev %s nodad"):format(veth))
    sh(inside .. "ip -6 addr add " .. THERE6 .. "/64 dev eth0 nodad")
  end
  outside = proc.start { "nsenter", "--net=/proc/" .. netns.pid .. "/ns/net", "python3",
    "spec/support/outside.py", real(THERE), real(HERE), has_ipv6 and real(THERE6) or nil }
  outside:expect("ready", 20)
  resolv = files.write(files.dir "etc" .. "/resolv.conf", real("nameserver " .. THERE .. "\n"))
end)

teardown(function()
  for _, p in ipairs { outside, netns } do
    p:kill("KILL", true)
    p:wait(10)
  end
  files.clean()
  leftovers.none_since(before, 10)
end)

-- Starts the binary where names are asked of the outside, or of the servers in a file.
local function start(argv, servers)
  for i, arg in ipairs(argv) do argv[i] = real(arg) end
  return proc.start { "unshare", "--mount", "sh", "-c",
    ("mount --bind '%s' \"$(readlink -f /etc/resolv.conf)\" && exec \"$@\"")
      :format(servers or resolv), "sh", table.unpack(proc.cli_argv(argv)) }
end

local function run(argv) return as_written(start(argv):wait(60 * proc.factor)) end

local function start_script(source)
  return start { "run", "--allow-network", "open",
    files.write(files.dir "net" .. "/net.lua", real(source)) }
end

local function script(source)
  return as_written(start_script(source):wait(60 * proc.factor))
end

local function it_needs(name, fn)
  it(name, function()
    if why_not then return pending(why_not) end
    fn()
  end)
end

-- Prints what curl makes of each URL: the body, or "no".
local CURL = [[
  local sandbox = require "sandbox"
  local function try(sb, url)
    local r = sb:exec { "curl", "-sS", "-m", "5", url }
    return r.ok and r.stdout or "no"
  end
]]

describe("network = \"open\"", function()
  it_needs("reaches the outside by TCP, UDP and name", function()
    local r = run { "exec", "--network", "open", "--", "sh", "-c", ([[
      curl -sS -m 10 http://%s:8000/a; echo
      curl -sS -m 10 http://outside.test:8443/b; echo
      head -c 3000000 /dev/zero |
        curl -sS -m 10 --data-binary @- http://www.outside.test:8000/; echo
      curl -sS -m 10 http://outside.test:8000/bytes/5000000 | wc -c
      python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.sendto(b"datagram", ("outside.test", 9000))
print(s.recv(100).decode())
try: socket.getaddrinfo("no-such-name.test", 80)
except socket.gaierror: print("no such name")
print(len(socket.gethostbyname_ex("many.test")[2]))
'
    ]]):format(THERE) }
    assert.equal("got /a\ngot /b\n3000000\n5000000\ndatagram\nno such name\n100\n", r.stdout,
      r.stderr)
  end)

  it_needs("reaches nothing of this machine, nor what is special", function()
    local listener = proc.start { "python3", "-c",
      real "import socket\ns = socket.create_server(('0.0.0.0', 18431))\n" ..
      "print('up', flush=True)\n" ..
      "while True: s.accept()[0].sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nMACHINE')" }
    listener:expect "up"
    local r = run { "exec", "--network", "open", "--", "sh", "-c", ([[
      for host in 127.0.0.1 127.1.2.3 0.0.0.0 %s 192.0.0.1 192.0.0.3 169.254.169.254 \
          rebind.test machine.test metadata.test 224.0.0.1 255.255.255.255 10.77.249.255 \
          localhost; do
        curl -sS -m 3 "http://$host:18431/" 2>/dev/null && echo "reached $host"
      done
      curl -sS -m 3 -g 'http://[::1]:18431/' 2>/dev/null && echo reached v6
      cat /proc/net/route | wc -l
      python3 -c '
import socket
for host in ("%s", "127.0.0.1", "169.254.169.254"):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(0.3)
    try:
        s.connect((host, 53)); s.send(b"x"); s.recv(10); print("answer")
    except OSError: pass
'
      echo end
    ]]):format(HERE, HERE) }
    listener:kill "KILL"
    listener:wait(10)
    assert.equal("3\nend\n", r.stdout)
  end)

  it_needs("reaches no address of this machine, of whatever kind and in whatever way", function()
    local listener = proc.start { "python3", "-c", real [[
import os, select, socket
v6, l = os.path.exists("/proc/net/if_inet6"), []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind)
    if s.family == socket.AF_INET6: s.setsockopt(41, 26, 0)
    s.bind(("", 18432))
    if kind == socket.SOCK_STREAM: s.listen()
    l.append(s)
print("up", flush=True)
while True:
    for s in select.select(l, [], [])[0]:
        print("REACHED", s.type, flush=True)
        l.remove(s)
]] }
    listener:expect "up"
    local own = sh "ip -o addr | awk '{ split($4, a, \"/\"); print a[1] }' | tr '\\n' ' '"
    local r = run { "exec", "--network", "open", "--", "python3", "-c", [[
import socket, sys
def attempt(family, kind, where, proto=0, options=()):
    try:
        with socket.socket(family, kind, proto) as s:
            s.settimeout(0.1)
            for o in options: s.setsockopt(*o)
            s.connect(where)
            s.send(b"x" * 8)
            s.recv(8)
            print("answer", where)
    except OSError: pass
extra = "127.0.0.1 0.0.0.0 ::1 :: 255.255.255.255 10.77.249.255 224.0.0.1 ff02::1%eth0 " \
    "ff02::1%lo ::ffff:10.77.249.1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::"
for host in sys.argv[1].split() + extra.split():
    try: found = socket.getaddrinfo(host, 18432, type=socket.SOCK_STREAM)
    except OSError: continue
    for family, _, _, _, where in found:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            attempt(family, kind, where, 0, [(1, 6, 1)])  # SO_BROADCAST
        if family == socket.AF_INET:
            attempt(family, socket.SOCK_DGRAM, where, 1)  # ICMP as programs may send it
            attempt(family, socket.SOCK_DGRAM, where, 136)  # UDP-Lite
            record_route = (0, 4, b"\7\7\4\0\0\0\0\0")
            attempt(family, socket.SOCK_DGRAM, where, 0, [record_route])
print("end")
]], own }
    assert.equal("end\n", r.stdout, r.stderr)
    -- The control: it hears who is not in a sandbox.
    local heard = (listener:output())
    assert.equal("up\n", heard)
    sh(("python3 -c 'import socket; socket.create_connection((\"%s\", 18432))'"):format(HERE))
    listener:expect "REACHED 1"
    listener:kill "KILL"
    listener:wait(10)
  end)

  it_needs("takes nothing from root in the sandbox that is no plain frame", function()
    local r = run { "exec", "--network", "open", "--", "python3", "-c", ([[
import socket, struct, time
made = 0
for kind in (socket.SOCK_RAW,):
    for proto in (socket.IPPROTO_ICMP, socket.IPPROTO_RAW, socket.IPPROTO_TCP):
        try: socket.socket(socket.AF_INET, kind, proto); made += 1
        except OSError: pass
    try: socket.socket(socket.AF_PACKET, kind, 3); made += 1
    except (OSError, AttributeError): pass
print("raw sockets", made)
# Datagrams that have to be cut: a way around filters that look at ports.
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.setsockopt(socket.IPPROTO_IP, 10, 0)
s.connect(("%s", 9000))
s.send(b"x" * 8000)
print("whole", len(s.recv(65536)))
]]):format(THERE) }
    assert.equal("raw sockets 0\nwhole 8000\n", r.stdout, r.stderr)
  end)

  it_needs("takes datagrams only from whom it has sent to", function()
    local p = start { "exec", "--network", "open", "--", "python3", "-c", ([[
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
there = ("%s", 9000)
s.sendto(b"stranger", there)
print(s.recv(100).decode(), flush=True)
s.settimeout(1)
try:
    while True: print("came in:", s.recv(100).decode())
except TimeoutError: pass
s.sendto(b"last", there)
print(s.recv(100).decode())
]]):format(THERE) }
    local port = p:expect "port (%d+)"
    sh(([[python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for host in ("127.0.0.1", "%s"): s.sendto(b"MACHINE", (host, %s))
']]):format(HERE, port))
    local r = p:wait()
    assert.equal("port " .. port .. "\nlast\n", r.stdout, r.stderr)
  end)

  it_needs("has no way in, and none to its neighbour", function()
    local r = script([[
      local sandbox = require "sandbox"
      local a <close> = sandbox.create { network = "open" }
      local b <close> = sandbox.create { network = "open" }
      a:exec "python3 -m http.server 8000 >/dev/null 2>&1 & sleep 0.5"
      print(a:exec("curl -sS -m 5 http://127.0.0.1:8000/ | head -c 9").stdout)
      for _, host in ipairs { "192.0.0.2", "127.0.0.1" } do
        print(b:exec({ "curl", "-sS", "-m", "2", "http://" .. host .. ":8000/" }).ok)
      end
    ]])
    assert.equal("<!DOCTYPE\nfalse\nfalse\n", r.stdout, r.stderr)
  end)

  it_needs("answers names over TCP, whole where a datagram is too short", function()
    local r = run { "exec", "--network", "open", "--", "sh", "-c", [[
      RES_OPTIONS=use-vc getent ahostsv4 outside.test | grep -c STREAM
      python3 -c '
import socket
print(len(socket.gethostbyname_ex("more.test")[2]))
def ask(*names):
    s = socket.create_connection(("192.0.0.3", 53), timeout=5)
    for name in names:
        q = b"\0\7\1\0\0\1\0\0\0\0\0\0" + b"".join(
            bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0\0\1\0\1"
        for byte in len(q).to_bytes(2, "big") + q: s.send(bytes([byte]))
    s.shutdown(socket.SHUT_WR)
    with s.makefile("rb") as f:
        for name in names:
            a = f.read(int.from_bytes(f.read(2), "big"))
            print(name, a[:2] == b"\0\7", a[3] & 15, int.from_bytes(a[6:8], "big"))
        print("end", f.read())
ask("outside.test", "most.test", "no-such.test", "many.test")
held = []
for i in range(9):
    try: held.append(socket.create_connection(("192.0.0.3", 53), timeout=5))
    except ConnectionRefusedError: print("held", i)
s = held.pop(); s.send(b"\xff\xff")
print("too long", s.recv(10))
s.close()
ask("outside.test")
'
    ]] }
    assert.equal([[
1
300
outside.test True 0 1
most.test True 0 4000
no-such.test True 3 0
many.test True 0 100
end b''
held 8
too long b''
outside.test True 0 1
end b''
]], r.stdout, r.stderr)
  end)

  it_needs("asks a server for names that has an IPv6 address only", function()
    if not has_ipv6 then return pending "needs IPv6" end
    local servers = files.write(files.dir "etc6" .. "/resolv.conf",
      real("nameserver " .. THERE6 .. "\n"))
    local r = start({ "exec", "--network", "open", "--", "sh", "-c",
      "curl -sS -m 10 http://outside.test:8000/a && " ..
        "python3 -c 'import socket; print(len(socket.gethostbyname_ex(\"more.test\")[2]))'" },
      servers):wait(30)
    assert.equal("got /a300\n", r.stdout, r.stderr)
  end)

  it_needs("serves many sandboxes and connections by one process", function()
    local p = start_script(([[
      local sandbox = require "sandbox"
      local list = {}
      for i = 1, 12 do list[i] = i end
      local out = task.map(list, {}, function()
        local sb <close> = sandbox.create { network = "open" }
        return sb:exec([=[for i in 1 2 3 4 5 6 7 8; do
          curl -sS -m 20 http://%s:8000/bytes/20000 | wc -c &
        done; wait]=]).stdout
      end)
      local all = table.concat(out)
      print(select(2, all:gsub("20000\n", "")))
      print "done"
      task.sleep(2)
    ]]):format(THERE))
    p:expect("done", 60)
    -- As one of this runner: in its session there is nobody else.
    local count = sh(("pgrep -c -P %d -f 'regolith: network' || true"):format(p.pid))
    local r = p:wait(30)
    assert.equal("96\ndone\n", r.stdout, r.stderr)
    assert.equal("1\n", count)
  end)
end)

describe("network = { allow = … }", function()
  it_needs("opens names, networks and ports, and nothing else", function()
    local r = script(CURL .. ([[
      local function with(allow, ...)
        local sb <close> = sandbox.create { network = { allow = allow } }
        local said = {}
        for i, url in ipairs { ... } do said[i] = try(sb, url) end
        print(table.concat(said, " | "))
      end
      local ip = "http://%s:"
      with({ "outside.test" }, "http://outside.test:8000/a", "http://www.outside.test:8000/",
        "http://other.test:8000/")
      with({ "*.outside.test" }, "http://outside.test:8000/", "http://www.outside.test:8000/b")
      with({ "outside.test:8443" }, "http://outside.test:8443/c", "http://outside.test:8000/")
      with({ "10.77.249.0/24:8000" }, ip .. "8000/d", ip .. "8443/", "http://outside.test:8000/")
      with({ "10.77.249.2" }, ip .. "8443/e")
      with({ "10.0.0.0/16" }, ip .. "8000/")
      with({ "rebind.test", "machine.test", "metadata.test", "127.0.0.0/8" },
        "http://rebind.test:18431/", "http://machine.test:22/", "http://metadata.test/")
    ]]):format(THERE))
    assert.equal([[
got /a | no | no
no | got /b
got /c | no
got /d | no | no
got /e
no
no | no | no
]], r.stdout, r.stderr)
  end)

  it_needs("tells the script what was refused", function()
    local r = script(([[
      local sandbox = require "sandbox"
      sandbox.on("connection_refused", function(sb, what)
        print("event", sb.sandbox_id ~= nil, what.protocol, what.address or what.name, what.port)
      end)
      local sb <close> = sandbox.create { network = { allow = { "10.77.249.2:8000" } } }
      local function ask(url)
        local refused, tries = nil, 0
        repeat -- it comes by another way than the result
          refused = sb:exec({ "curl", "-sS", "-m", "5", url }).refused
          tries = tries + 1
        until refused or tries == 50
        print(refused and #refused > 0)
        task.sleep(0.3)
        sb:exec "true"
      end
      ask "http://%s:8443/"
      ask "http://www.other.test/"
      print("counted", sb:status().refused_connections >= 2)
    ]]):format(THERE))
    expect.contains(r.stdout, "event\ttrue\ttcp\t10.77.249.2\t8443\n")
    expect.contains(r.stdout, "event\ttrue\tdns\twww.other.test\tnil\n")
    expect.contains(r.stdout, "counted\ttrue\n")
  end)

  it_needs("tells of each of many refusals, and of the last at once", function()
    local r = script [[
      local sandbox = require "sandbox"
      local sb <close> = sandbox.create { network = { allow = { "outside.test" } } }
      local function refused(fn)
        local got, until_ = {}, 30
        repeat
          local r = sb:exec(fn or "true")
          fn = nil
          for _, x in ipairs(r.refused or {}) do
            got[#got + 1] = ("%s:%s*%d"):format(x.address or x.name, x.port or x.protocol, x.times)
          end
          until_ = until_ - 1
          task.sleep(0.05)
        until until_ == 0
        table.sort(got)
        print(table.concat(got, " "))
      end
      refused { "python3", "-c", [=[
import socket
for port in (1, 2, 3, 3, 3, 4):
    try: socket.create_connection(("10.77.249.2", port), timeout=5)
    except ConnectionRefusedError: pass
s = socket.create_connection(("192.0.0.3", 53), timeout=5)
q = b"\0\7\1\0\0\1\0\0\0\0\0\0\5other\4test\0\0\1\0\1"
s.send(len(q).to_bytes(2, "big") + q)
assert s.recv(100)[5] & 15 == 5
]=] }
    ]]
    assert.equal("10.77.249.2:1*1 10.77.249.2:2*1 10.77.249.2:3*3 10.77.249.2:4*1 " ..
      "other.test:dns*1\n", r.stdout, r.stderr)
  end)

  it_needs("asks nobody after a name that is not allowed", function()
    local secret = "secret" .. sys.self .. ".test"
    script(CURL .. ([[
      local sb <close> = sandbox.create { network = { allow = { "outside.test" } } }
      try(sb, "http://%s/")
    ]]):format(secret))
    local r = run { "exec", "--network", "open", "--", "curl", "-sS",
      "http://" .. THERE .. ":8000/asked" }
    expect.contains(r.stdout, "outside.test")
    expect.lacks(r.stdout, secret)
  end)

  it_needs("says which rule is none", function()
    local r = script [[
      print(pcall(require("sandbox").create, { network = { allow = { "ok.test", "no good" } } }))]]
    expect.contains(r.stdout, "no good")
    expect.contains(r.stdout, "invalid_argument")
  end)
end)

describe("ports", function()
  local SERVER = [[
    local sandbox = require "sandbox"
    local sb <close> = sandbox.create {
      unencrypted_ports = { 8000, 8001 },
      entrypoint = { "python3", "-m", "http.server", "8000", "--directory", "/usr/share/doc" },
      ready = { tcp = 8000 }, timeout = 60,
    }
    sb:wait_ready "20s"
    print(sb:url(8000), sb:url(8001))
  ]]
  local function start_server(rest, options)
    local argv = { "run", table.unpack(options or { "--allow-port", "*" }) }
    argv[#argv + 1] = files.write(files.dir "port" .. "/port.lua", SERVER .. rest)
    return proc.cli_start(argv)
  end

  it("are reached on this machine's loopback, by many at once, while the sandbox lives", function()
    local p = start_server [[
      print(sb:status().tunnels[2].port, sb:exec("cat /proc/net/dev").stdout:find "eth0")
      print(select(2, pcall(sb.url, sb, 9000)).code)
      task.sleep(50)
    ]]
    local url = p:expect "(http://127.0.0.1:%d+)\thttp://127.0.0.1:%d+\n8001\tnil\n"
    local other = p:output():match "\t(http://%S+)"
    local r = proc.run({ "sh", "-c", ([[
      for i in 1 2 3 4 5 6 7 8 9 10 11 12; do curl -sS -m 20 %s/ | grep -c DOCTYPE & done; wait
    ]]):format(url) }, { timeout = 60 })
    assert.equal(("1\n"):rep(12), r.stdout, r.stderr)
    -- Where nobody listens inside, as where nobody listens.
    assert.is_not.equal(0, proc.run({ "curl", "-sS", "-m", "5", other }).status)
    p:kill "INT"
    p:wait(20)
    assert.equal(7, proc.run({ "curl", "-sS", "-m", "5", url }).status)
  end)

  it("carry what is large, both ways, and an end that comes from one side", function()
    local path = files.write(files.dir "port" .. "/echo.lua", [[
      local sandbox = require "sandbox"
      local sb <close> = sandbox.create {
        unencrypted_ports = { 7 }, timeout = 60, ready = { tcp = 7 },
        entrypoint = { "python3", "-c", [=[
import socket
s = socket.create_server(('127.0.0.1', 7))
while True:
    c, data = s.accept()[0], b''
    while True:
        more = c.recv(65536)
        if not more: break
        data += more
    c.sendall(data[::-1])
    c.close()
]=] },
      }
      sb:wait_ready "20s"
      print(sb:url(7))
      task.sleep(40)
    ]])
    local p = proc.cli_start { "run", "--allow-port", "7", path }
    local port = p:expect "127.0.0.1:(%d+)"
    local r = proc.run({ "python3", "-c", ([[
import socket
s = socket.create_connection(("127.0.0.1", %s))
sent = bytes(i * 7 %% 251 for i in range(3000000))
s.sendall(sent)
s.shutdown(socket.SHUT_WR)
got = b""
while True:
    more = s.recv(65536)
    if not more: break
    got += more
print(got == sent[::-1])
]]):format(port) }, { timeout = 60 })
    assert.equal("True\n", r.stdout, r.stderr)
    p:kill "INT"
    p:wait(20)
  end)

  it("need a grant", function()
    local p = start_server("", {})
    local r = p:wait(20)
    assert.equal(1, r.status)
    expect.contains(r.stderr, "--allow-port 8000")
  end)
end)

describe("the network helper", function()
  it_needs("has an id of its own, nothing to see, and no privilege", function()
    local p = start_script [[
      local sandbox = require "sandbox"
      local sb <close> = sandbox.create { network = "open" }
      print "up"
      task.sleep(60)
    ]]
    p:expect "up"
    local pid = sh(("pgrep -P %d -f 'regolith: network'"):format(p.pid)):match "%d+"
    local status = files.read("/proc/" .. pid .. "/status")
    local uid = tonumber(status:match "\nUid:\t(%d+)")
    assert.is_true(uid >= 0x7ffd0000 and uid < 0x7ffe0000, tostring(uid))
    expect.contains(status, "CapEff:\t0000000000000000")
    expect.contains(status, "NoNewPrivs:\t1")
    expect.contains(status, "Seccomp:\t2")
    assert.equal("", sh("ls -A /proc/" .. pid .. "/root/"))
    p:kill "INT"
    p:wait(20)
  end)

  it_needs("bounds what a box has of it, and goes first when memory runs out", function()
    local p = start_script(([[
      local sandbox = require "sandbox"
      local a <close> = sandbox.create { network = "open" }
      local b <close> = sandbox.create { network = "open" }
      local greedy = a:spawn { "python3", "-c", [=[
import resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
held = []
try:
    while True: held.append(socket.create_connection(("%s", 8000), timeout=5))
except ConnectionRefusedError: print(len(held), flush=True)
time.sleep(60)]=] }
      print(greedy:lines()())
      print(b:exec({ "curl", "-sS", "-m", "10", "http://%s:8000/a" }).stdout)
      print "up"
      task.sleep(60)
    ]]):format(THERE, THERE))
    p:expect("up", 30)
    local pid = sh(("pgrep -P %d -f 'regolith: network'"):format(p.pid)):match "%d+"
    assert.equal("900\n", files.read("/proc/" .. pid .. "/oom_score_adj"))
    p:kill "INT"
    assert.equal("1024\ngot /a\nup\n", p:wait(20).stdout)
  end)

  it_needs("that is killed takes the network with it and nothing else", function()
    local p = start_script(CURL .. ([[
      local url = "http://%s:8000/a"
      local sb <close> = sandbox.create { network = "open" }
      print(try(sb, url))
      while sb:exec("test -e /sys/class/net/eth0 || grep -q eth0 /proc/net/dev").ok do
        task.sleep(0.05)
      end
      print(try(sb, url), sb:exec("echo alive").stdout)
      local other <close> = sandbox.create { network = "open" }
      print(try(other, url))
    ]]):format(THERE))
    p:expect "got /a"
    sh(("pkill -KILL -P %d -f 'regolith: network'"):format(p.pid))
    local r = p:wait(60)
    assert.equal("got /a\nno\talive\n\ngot /a\n", r.stdout, r.stderr)
    expect.contains(r.stderr, "network helper ended")
  end)
end)

describe("an ordinary user", function()
  -- Runs the binary as a user for whom /dev/net/tun has this mode, and names are the outside's.
  local function run_as(user, mode, argv)
    local dir = files.dir "tun"
    for i, arg in ipairs(argv) do argv[i] = real(arg) end
    return proc.start({ "unshare", "--mount", "sh", "-c", ([[
      mknod '%s/tun' c 10 200 && chmod %s '%s/tun' &&
        mount --bind '%s/tun' /dev/net/tun &&
        mount --bind '%s' "$(readlink -f /etc/resolv.conf)" && cd / &&
        exec setpriv --reuid %d --regid %d --clear-groups "$@"]])
      :format(dir, mode, dir, dir, resolv, user.uid, user.gid), "sh", user.bin,
      table.unpack(argv) }, { env = user.env }):wait(30)
  end

  for _, subids in ipairs { true, false } do
    it_needs(("has the network %s subordinate ids"):format(subids and "with" or "without"),
      function()
        local user = users.make(subids)
        local r = run_as(user, "666", { "exec", "--network", "open", "--", "sh", "-c", ([[
          curl -sS -m 10 http://outside.test:8000/a; echo
          curl -sS -m 5 http://%s:22/ 2>/dev/null || curl -sS -m 5 http://127.0.0.1/ 2>/dev/null
          echo end]]):format(HERE) })
        local doctor = run_as(user, "666", { "doctor" })
        user:remove()
        assert.equal("got /a\nend\n", r.stdout, r.stderr)
        expect.contains(doctor.stdout, "libslirp, /dev/net/tun\n")
      end)
  end

  it_needs("is told where /dev/net/tun is not for everybody", function()
    local user = users.make(true)
    local r = run_as(user, "600", { "exec", "--network", "open", "--", "true" })
    local none = run_as(user, "600", { "exec", "--", "true" })
    local doctor = run_as(user, "600", { "doctor" })
    user:remove()
    assert.equal(125, r.status, r.stderr)
    expect.contains(r.stderr, "/dev/net/tun")
    expect.contains(r.stderr, "regolith doctor")
    assert.equal(0, none.status, none.stderr)
    expect.contains(doctor.stdout, "/dev/net/tun is not for you")
    expect.contains(doctor.stdout, "chmod 666 /dev/net/tun")
  end)
end)

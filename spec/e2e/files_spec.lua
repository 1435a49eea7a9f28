-- Files of sandboxes, and copies between them and this machine.
local lfs = require "lfs"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

local HEAD = [[
local sandbox = require "sandbox"
local task = require "task"
local function fails(fn, ...)
  local ok, e = pcall(fn, ...)
  assert(not ok, "it did not fail")
  return type(e) == "table" and e.code .. " " .. (e.field or "-") or tostring(e)
end
local function same(got, want)
  if got ~= want then error(("got %s, want %s"):format(got, want), 2) end
end
]]

for _, mode in ipairs { "workers", "in process" } do
  describe("files of sandboxes (" .. mode .. ")", function()
    local before
    before_each(function() before = leftovers.before() end)
    after_each(function()
      files.clean()
      leftovers.none_since(before, 5)
    end)

    --- Runs a script that has `sb`, and raises what it raises.
    local function run(text, options, create)
      local argv = { "run", table.unpack(options or {}) }
      if mode == "in process" then argv[#argv + 1] = "--trust" end
      argv[#argv + 1] = files.script("f.lua", HEAD .. "local sb <close> = sandbox.create "
        .. (create or "{}") .. "\n" .. text)
      local r = proc.cli(argv, { timeout = 60 })
      assert.equal(0, r.status, r.stdout .. r.stderr)
      return r.stdout
    end

    it("are written and read, whatever bytes and however many", function()
      run [[
        for _, n in ipairs { 0, 1, 65535, 65536, 262144, 262145, 3000000 } do
          local text = ("\0\xff\r\n\27x"):rep(n // 6 + 1):sub(1, n)
          sb:write("/tmp/f", text)
          local back = sb:read "/tmp/f"
          assert(back == text, n)
          same(sb:stat("/tmp/f").size, n)
          same(sb:exec("wc -c </tmp/f").stdout, n .. "\n")
        end
        sb:write("rel", "in the working directory")
        same(sb:exec({ "cat", "/root/rel" }).stdout, "in the working directory")
        same(sb:read "rel", "in the working directory")
        sb:exec { "sh", "-c", "printf odd >'/tmp/a\nb'; printf x >/tmp/-rf" }
        same(sb:read "/tmp/a\nb", "odd")
        same(sb:read "/tmp/-rf", "x")
      ]]
    end)

    it("are written and read in pieces, without being held as a whole", function()
      run [[
        local piece, n = ("x"):rep(1 << 20), 0
        sb:write("/tmp/big", function()
          n = n + 1
          return n <= 20 and piece or nil
        end)
        local got = 0
        local function count(data) got = got + #data end
        same(sb:read("/tmp/big", { on_data = count }), 20 << 20)
        same(got, 20 << 20)
        same(fails(sb.read, sb, "/tmp/big"), "payload_too_large path")
        same(fails(sb.read, sb, "/tmp/big", { max = 19 }), "payload_too_large path")
        same(#sb:read("/tmp/big", { max = 20 }), 20 << 20)
        same(fails(sb.read, sb, "/tmp/big", { on_data = function() error("enough", 0) end }),
          "enough")
        same(fails(sb.write, sb, "/tmp/new", function() error("no more", 0) end), "no more")
        same(fails(sb.write, sb, "/tmp/new", function() return {} end), "invalid_argument data")
        same(#sb:list "/tmp", 1)
      ]]
    end)

    it("are replaced as a whole, or not at all", function()
      run([[
        sb:exec "printf old >/srv/f; chmod 604 /srv/f; chown 3:4 /srv/f; ln -s f /srv/link"
        sb:write("/srv/link", "new") -- what the link leads to
        local st = sb:stat("/srv/link", { follow = false })
        same(st.type .. " " .. st.target, "link f")
        st = sb:stat "/srv/f"
        same(("%s %s %d %d %d"):format(st.type, st.mode, st.uid, st.gid, st.size),
          "file 0604 3 4 3")
        sb:write("/srv/f", "newer", { mode = "0751" })
        same(sb:stat("/srv/f").mode, "0751")
        -- Time runs out in the middle of a write: nothing of it is left.
        same(fails(task.timeout, 0.3, function()
          sb:write("/srv/f", function()
            task.sleep(0.05)
            return "piece"
          end)
        end), "timeout -")
        -- The disk is full in the middle of another.
        local ok, e = pcall(sb.write, sb, "/srv/f", ("x"):rep(20 << 20))
        same(ok, false)
        same(e.code .. " " .. e.field, "payload_too_large path")
        assert(e.message:find "No space left" and e.hint:find "disk = 16 MiB", e)
        same(sb:read "/srv/f", "newer")
        same(#sb:list "/srv", 2)
        same(sb:exec("echo alive").stdout, "alive\n")
      ]], nil, "{ disk = 16 }")
    end)

    it("are listed, looked at, made and removed", function()
      run [[
        sb:mkdir "/srv/a/b/c"
        sb:mkdir "/srv/a/b/c"
        sb:mkdir("/srv/private", { mode = "0700" })
        sb:exec "cd /srv; ln -s a z; mkfifo p; printf hello >f; touch -d @1000000000 f"
        sb:exec "chmod 4755 /srv/f"
        local names = {}
        for i, e in ipairs(sb:list "/srv") do
          local size = e.type == "file" and e.size or 0
          names[i] = ("%s=%s:%s:%d"):format(e.name, e.type, e.mode, size)
        end
        same(table.concat(names, " "), "a=directory:0755:0 f=file:4755:5 p=fifo:0644:0 "
          .. "private=directory:0700:0 z=link:0777:0")
        same(sb:stat("/srv/f").mtime, 1000000000)
        same(sb:stat("/srv/z").type, "directory")
        same(sb:stat("/").name, "/")
        same(#sb:list "/srv/private", 0)
        same(fails(sb.mkdir, sb, "/srv/f"), "conflict path")
        same(fails(sb.mkdir, sb, "/srv/f/x"), "conflict path")
        same(fails(sb.list, sb, "/srv/f"), "conflict path")
        same(fails(sb.list, sb, "/srv/none"), "not_found path")
        same(fails(sb.read, sb, "/srv/a"), "conflict path")
        same(fails(sb.write, sb, "/srv/a", "x"), "conflict path")
        same(fails(sb.write, sb, "/srv/none/f", "x"), "not_found path")
        same(fails(sb.remove, sb, "/srv/none"), "not_found path")
        same(fails(sb.remove, sb, "/"), "conflict path")
        same(fails(sb.remove, sb, "/usr"), "conflict path")
        same(fails(sb.write, sb, "/usr/f", "x"), "denied path")
        sb:remove "/srv/z" -- the link
        sb:remove "/srv/f"
        sb:remove "/srv/p"
        sb:exec "cd /srv/a; for i in $(seq 300); do mkdir d && cd d; done; touch /srv/a/b/c/x"
        sb:remove "/srv/a" -- deeper than any number of open directories
        sb:remove "/srv/private/"
        same(#sb:list "/srv", 0)
        for _, bad in ipairs { "", "a\0b", ("x"):rep(5000) } do
          same(fails(sb.read, sb, bad), "invalid_argument path")
        end
        same(fails(sb.read, sb), "invalid_argument path")
        same(fails(sb.read, sb, "/etc/passwd", { maks = 1 }), "invalid_argument maks")
        same(fails(sb.write, sb, "/tmp/f"), "invalid_argument data")
        same(fails(sb.write, sb, "/tmp/f", "x", { mode = "0999" }), "invalid_argument mode")
        same(fails(sb.write, sb, "/tmp/f", "x", { mode = 4095 }), "invalid_argument mode")
      ]]
    end)

    it("are those of the sandbox's user, or of the one that is named", function()
      run([[
        same(fails(sb.write, sb, "/srv/f", "x"), "denied path")
        same(fails(sb.list, sb, "/root"), "denied path")
        same(fails(sb.remove, sb, "/etc/passwd"), "denied path")
        sb:write("/tmp/f", "mine", { mode = "0600" })
        same(sb:stat("/tmp/f").uid, 65534)
        sb:write("/srv/f", "root's", { user = "root", mode = "0600" })
        same(fails(sb.read, sb, "/srv/f"), "denied path")
        same(sb:read("/srv/f", { user = 0 }), "root's")
        same(fails(sb.read, sb, "/srv/f", { user = "1:1" }), "denied path")
        same(fails(sb.read, sb, "/srv/f", { user = "nosuch" }), "invalid_argument user")
      ]], nil, '{ user = "nobody" }')
    end)

    it("lead nowhere, whatever the sandbox makes of them", function()
      local src = files.dir "src"
      run(("local SRC = %q\n"):format(src) .. [[
        sb:exec "cd /srv; mkfifo pipe; ln -s /proc/self/fd/0 stdin; ln -s loop loop"
        sb:exec "ln -s /dev/zero /srv/endless"
        local server = task.spawn(function() sb:exec "exec 3<>/srv/pipe; sleep 9" end)
        for _, path in ipairs { "/srv/pipe", "/dev/zero", "/srv/endless", "/dev/tty" } do
          local code = fails(sb.read, sb, path)
          assert(code == "invalid_argument path", path .. ": " .. code)
        end
        same(fails(sb.write, sb, "/srv/pipe", "x"), "invalid_argument path")
        same(fails(sb.write, sb, "/dev/null", "x"), "invalid_argument path")
        same(fails(sb.upload, sb, SRC, "/srv/pipe"), "conflict target")
        for _, path in ipairs { "/proc/self/fd/0", "/srv/stdin", "/proc/self/root/etc/passwd",
          "/proc/self/cwd", "/proc/self/exe", "/srv/loop" } do
          local code = fails(sb.read, sb, path)
          assert(code == "conflict path", path .. ": " .. code)
        end
        for _, path in ipairs { "/proc/1/root/etc/passwd", "/proc/1/mem", "/proc/self/mem",
          "/proc/1/environ", "/proc/1/fd", "/proc/kcore" } do
          local ok, r = pcall(sb.read, sb, path)
          assert(not ok or #r == 0, path .. " was read")
        end
        same(fails(sb.list, sb, "/proc/1/fd"), "denied path")
        -- What it is, as the sandbox's own processes see it.
        local status = sb:read "/proc/self/status"
        same(status:match "Uid:\t(%d+)", "0")
        same(status:match "NoNewPrivs:\t(%d)", "1")
        same(status:match "Seccomp:\t(%d)", "2")
        same(status:match "CapEff:\t(%x+)", sb:exec("grep CapEff /proc/self/status").stdout
          :match "(%x+)\n")
        same(sb:read("/proc/self/status", { user = "nobody" }):match "CapEff:\t0+(%d)\n", "0")
        -- A directory that never ends is a list that does.
        sb:exec "mkdir /srv/many && cd /srv/many && seq 3000 | xargs touch"
        same(#sb:list "/srv/many", 3000)
        server:cancel()
      ]], { "--allow-read", src })
    end)

    it("need no program of the image", function()
      local image, src, out = files.dir "image", files.dir "src", files.dir "out"
      files.write(src .. "/a", "A")
      run(([[
        same(fails(sb.read, sb, "/bin/sh"), "not_found path")
        same(sb:exec({ "/bin/sh" }).exit_code, 127)
        sb:mkdir "/x/y"
        sb:write("/x/y/f", "scratch")
        same(sb:read "/x/y/f", "scratch")
        same(sb:upload(%q, "/x/up").files, 1)
        same(#sb:list "/x", 2)
        same(sb:download("/x", %q).files, 2)
        sb:remove "/x"
      ]]):format(src, out .. "/got"), { "--allow-dir-image", image, "--allow-read", src,
        "--allow-write", out }, ("{ image = 'dir:%s' }"):format(image))
      assert.equal("scratch", files.read(out .. "/got/y/f"))
      assert.equal("A", files.read(out .. "/got/up/a"))
    end)

    it("are copied in and out as trees, under granted directories only", function()
      local src, out = files.dir "src", files.dir "out"
      lfs.mkdir(src .. "/sub")
      files.write(src .. "/sub/tool", "#!/bin/sh\necho ran\n")
      files.write(src .. "/big", ("0123456789abcdef"):rep(100000))
      os.execute(("chmod 755 '%s/sub/tool'; ln -s sub/tool '%s/link'; mkfifo '%s/fifo'")
        :format(src, src, src))
      files.write(out .. "/old", "old")
      run(([[
        local SRC, OUT = %q, %q
        local r = sb:upload(SRC, "/srv/tree")
        same(("%%d %%d %%d %%d"):format(r.files, r.directories, r.links, r.bytes), "2 2 1 1600019")
        same(r.skipped_total .. r.skipped[1].type .. r.skipped[1].path, "1fifofifo")
        same(sb:exec("/srv/tree/link").stdout, "ran\n")
        sb:upload(SRC .. "/big", "/srv/big")
        same(sb:exec("cmp /srv/big /srv/tree/big").exit_code, 0)
        sb:exec "cd /srv/tree; rm big; printf new >old; chmod 6777 old; ln -s /etc/passwd out"
        sb:exec "cd /srv/tree; ln -s ../.. sub/out; ln -s .. sub/in"
        r = sb:download("/srv/tree", OUT)
        same(("%%d %%d %%d"):format(r.files, r.directories, r.links), "2 2 2")
        same(r.skipped_total, 2)
        same(r.skipped[1].type, "link")
        r = sb:download("/srv/big", OUT .. "/big")
        same(r.bytes, 1600000)
        -- What is not granted, not there, or in the way.
        same(fails(sb.upload, sb, "/etc/passwd", "/srv/p"), "denied source")
        same(fails(sb.upload, sb, SRC .. "/../x", "/srv/p"), "denied source")
        same(fails(sb.upload, sb, SRC .. "/fifo", "/srv/p"), "invalid_argument source")
        same(fails(sb.upload, sb, SRC .. "/none", "/srv/p"), "not_found source")
        same(fails(sb.upload, sb, SRC, "/srv/none/p"), "not_found target")
        same(fails(sb.upload, sb, SRC, "/srv/big"), "conflict target")
        same(fails(sb.upload, sb, SRC, "/usr/p"), "denied target")
        same(fails(sb.download, sb, "/srv/big", SRC .. "/p"), "denied target")
        same(fails(sb.download, sb, "/srv/none", OUT .. "/p"), "not_found source")
        same(fails(sb.download, sb, "/srv/big", OUT .. "/none/p"), "not_found target")
        same(fails(sb.download, sb, "/srv/big", OUT), "conflict target")
        same(fails(sb.download, sb, "/srv/tree", OUT .. "/old"), "conflict target")
        same(fails(sb.download, sb, "/srv/big", OUT .. "/b", { max = 1 }),
          "payload_too_large target")
        sb:exec "truncate -s 1T /srv/sparse"
        same(fails(sb.download, sb, "/srv/sparse", OUT .. "/s"), "payload_too_large target")
        local ok, e = pcall(sb.upload, sb, "/etc", "/srv/etc")
        assert(not ok and e.hint:find("--allow-read", 1, true), e)
      ]]):format(src, out), { "--allow-read", src, "--allow-write", out })
      assert.equal("new", files.read(out .. "/old"))
      assert.equal("rwxr-xr-x", lfs.attributes(out .. "/old", "permissions"))
      assert.equal(("0123456789abcdef"):rep(100000), files.read(out .. "/big"))
      assert.equal("sub/tool", lfs.symlinkattributes(out .. "/link", "target"))
      assert.equal("..", lfs.symlinkattributes(out .. "/sub/in", "target"))
      for _, name in ipairs { "out", "sub/out", "p", "b", "s" } do
        assert.is_false(files.exists(out .. "/" .. name), name)
      end
    end)

    it("never reach through links of this machine that lead out of what was granted", function()
      local out, other = files.dir "out", files.dir "other"
      files.write(other .. "/secret", "secret")
      os.execute(("ln -s '%s' '%s/dir'"):format(other, out))
      os.execute(("ln -s '%s/secret' '%s/file'"):format(other, out))
      run(([[
        local OUT = %q
        sb:exec "mkdir -p /srv/t/dir; printf evil >/srv/t/dir/secret; printf evil >/srv/t/file"
        same(fails(sb.download, sb, "/srv/t", OUT), "conflict target")
        same(fails(sb.download, sb, "/srv/t/file", OUT .. "/dir/secret"), "conflict target")
        sb:download("/srv/t/file", OUT .. "/file") -- in place of the link
        same(fails(sb.upload, sb, OUT .. "/dir/secret", "/srv/s"), "conflict source")
        sb:upload(OUT, "/srv/back")
        same(sb:stat("/srv/back/dir", { follow = false }).type, "link")
      ]]):format(out), { "--allow-write", out })
      assert.equal("secret", files.read(other .. "/secret"))
      assert.equal("evil", files.read(out .. "/file"))
    end)

    it("may change while they are copied", function()
      local out = files.dir "out"
      run(([[
        sb:exec "mkdir -p /srv/t/a; seq 9 | xargs -I@ cp /etc/passwd /srv/t/a/@"
        local busy = task.spawn(function()
          sb:exec "cd /srv/t; while :; do mv a b; ln -s /etc a; rm a; mv b a; rm a/1; >a/1; done"
        end)
        local fine = 0
        for i = 1, 30 do
          local ok, e = pcall(sb.download, sb, "/srv/t", %q .. "/" .. i)
          assert(ok or e.code == "not_found" or e.code == "conflict", e)
          fine = fine + (ok and 1 or 0)
        end
        assert(fine > 0)
        busy:cancel()
      ]]):format(out), { "--allow-write", out })
    end)

    it("lead nowhere while a sandbox swaps a directory that both have for a link", function()
      local out, other = files.dir "shared", files.dir "other"
      files.write(other .. "/f", "secret")
      run(([[
        local OUT, OTHER = %q, %q
        sb:exec "mkdir /v/d; printf mine >/v/d/f; printf evil >/srv/f"
        local busy = sb:spawn { "python3", "-c", [=[
import ctypes, os, sys
os.symlink(sys.argv[1], "/v/l")
swap = ctypes.CDLL(None).renameat2
print("up", flush=True)
while True: swap(-100, b"/v/d", -100, b"/v/l", 2)]=], OTHER }
        assert(busy:lines()() == "up")
        local refused, fine = 0, 0
        local function try(fn, ...)
          local ok, e = pcall(fn, ...)
          assert(ok or e.code == "conflict" or e.code == "not_found", e)
          if ok then fine = fine + 1 else refused = refused + 1 end
        end
        for i = 1, 400 do
          if i > 40 and fine > 0 and refused > 0 then break end
          try(sb.download, sb, "/srv/f", OUT .. "/d/f")
          try(sb.upload, sb, OUT .. "/d/f", "/srv/g")
          local ok, got = pcall(sb.read, sb, "/srv/g")
          assert(not ok or got == "mine" or got == "evil", got)
        end
        assert(fine > 0 and refused > 0, fine .. " fine, " .. refused .. " refused")
        busy:kill()
      ]]):format(out, other), { "--allow-write", out, "--volume", "v=" .. out },
        "{ volumes = { { source = 'v', target = '/v' } } }")
      assert.equal("secret", files.read(other .. "/f"))
    end)

    it("end with their sandbox, and at once with their task", function()
      run [[
        sb:exec "head -c 30M /dev/zero >/tmp/f"
        local pieces = 0
        local slow = task.spawn(function()
          return fails(sb.read, sb, "/tmp/f", { on_data = function()
            pieces = pieces + 1
            task.sleep(0.05)
          end })
        end)
        local stuck = task.spawn(function()
          return fails(sb.write, sb, "/tmp/g", function() task.sleep(0.05) return "x" end)
        end)
        task.sleep(0.2)
        same(fails(sb.write, sb, "/tmp/h", function()
          task.sleep(0.3)
          return "x"
        end, { timeout = 0.1 }), "timeout -")
        sb:terminate()
        same(stuck:wait(), "sandbox_terminated -")
        same(slow:wait(), "sandbox_terminated -")
        assert(pieces < 100, "whoever reads slowly slows nobody down") -- of 480 and more
        same(fails(sb.read, sb, "/tmp/f"), "sandbox_terminated -")
        same(sandbox.get(sb.sandbox_id):status().commands_executed, 1)
      ]]
    end)
  end)
end

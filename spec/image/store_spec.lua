-- The image store, and images from and to files.
local json = require "json"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local proc = require "spec.support.proc"
local t = require "spec.image.support"

t.describe(_ENV, "images", function()
  describe("in the store", function()
    t.it("are listed, inspected, removed", function()
      local digest = t.pulled "app"
      t.pulled "base"
      local list = t.listed()
      assert.equal(2, #list)
      assert.equal(t.name .. ":app", list[1].name)
      assert.equal(digest, list[1].digest)
      local i = json.decode(t.image("inspect", digest:sub(1, 20)).stdout)
      assert.equal("/srv/app", i.working_dir)
      assert.equal("app", i.user)
      assert.same({ "python3" }, i.entrypoint)
      assert.same({ "main.py" }, i.cmd)
      assert.same({ "8000/tcp" }, i.ports)
      assert.equal("SIGINT", i.stop_signal)
      assert.equal(0, t.image("rm", t.name .. ":app").status)
      assert.equal(1, #t.listed())
      assert.equal(1, t.count "layers")
      local r = t.image("rm", t.name .. ":app", t.name .. ":base") -- what can go goes
      assert.equal(1, r.status)
      expect.contains(r.stderr, "not in the store")
      expect.contains(r.stdout, "removed 1 image")
      assert.equal(0, t.count "layers")
      assert.equal(0, t.count "blobs")
      assert.equal(0, t.count "lists")
      assert.equal(0, t.count "refs")
    end)

    t.it("go least recently used first when there is a limit", function()
      t.pulled "app"
      assert.equal(0, t.image("import", "-q", "rootfs:" .. t.keep .. "/root", "own:1").status)
      t.sh(("touch -d '2 hours ago' %s/regolith/images/images/*"):format(t.state))
      t.image("inspect", t.name .. ":app")
      local r = proc.cli({ "exec", "--image", t.name .. ":app", "--", "true" }, { env = t.env })
      assert.equal(0, r.status, r.stderr)
      assert.equal(0, t.image("gc", "--max-size", "70MiB").status)
      local list = t.listed()
      assert.equal(1, #list)
      assert.equal(t.name .. ":app", list[1].name)
    end)

    t.it("are not even unpacked when they are larger than the limit", function()
      t.env.REGOLITH_IMAGES_JSON = files.write(files.dir "conf" .. "/images.json",
        '{"max_size":"20MiB"}')
      local message = t.refused("payload_too_large", "base")
      expect.contains(message, "bytes")
      assert.same({}, t.listed())
      t.tidy()
    end)

    t.it("are verified, file by file", function()
      t.pulled "app"
      local top = t.layers(t.name .. ":app")
      local dir, low = top[2].path, top[1].path
      local faults = {
        { "echo more >>" .. dir .. "/srv/app/main.py", "another size" },
        { "printf HELLO >" .. dir .. "/etc/hello; echo >>" .. dir .. "/etc/hello", "has changed" },
        { "chmod 4777 " .. low .. "/bin/dash", "another mode" },
        { "chown 7 " .. low .. "/etc/passwd", "another owner" },
        { "rm " .. low .. "/etc/group", "is missing" },
        { "ln -sf elsewhere " .. dir .. "/srv/link", "leads elsewhere" },
        { "touch " .. low .. "/usr/extra", "does not belong" },
        { "rm " .. low .. "/usr/bin/python; mkdir " .. low .. "/usr/bin/python", "another type" },
      }
      assert.equal(0, t.image("verify").status)
      for _, f in ipairs(faults) do
        t.sh(f[1])
        local r = t.image("verify", t.name .. ":app")
        assert.equal(1, r.status)
        expect.contains(r.stdout, f[2])
      end
      t.sh(("for b in %s/regolith/images/blobs/*; do printf x >>$b; done"):format(t.state))
      local r = t.image("verify")
      assert.equal(1, r.status)
      expect.contains(r.stdout, "is damaged")
    end)

    t.it("show what strangers wrote as plain text", function()
      local dir = files.dir "escape"
      local esc, csi = "\27[2J", "\u{9b}2J"
      t.sh(([[mkdir %s/root && touch %s/root/%s%s && cd %s && python3 - <<'X'
import tarfile
t = tarfile.open("out.tar", "w")
t.addfile(tarfile.TarInfo("../%s\n%s"))
t.close()
X]]):format(dir, dir, esc, csi, dir, esc, csi))
      local r = t.image("import", "-q", "rootfs:" .. dir .. "/out.tar", "x:1")
      assert.equal('regolith: the layer is refused: "../?[2J???2J" leads out of it\n', r.stderr)
      assert.equal(0, t.image("import", "-q", "rootfs:" .. dir .. "/root", "x:1").status)
      t.sh("rm " .. t.layers "x:1"[1].path .. "/*")
      expect.contains(t.image("verify").stdout, "/?[2J??2J: is missing")
    end)

    t.it("survive a power cut: unfinished layers of an earlier boot do not count", function()
      t.pulled "base"
      local id = t.layers(t.name .. ":base")[1].path:match "[^/]+$"
      local store = t.state .. "/regolith/images"
      -- what a power cut during the pull of another image would leave
      t.sh(([[cd %s && rm -r refs/* images/* && mv lists/%s lists/%s~0123456789abcdef &&
        rm -r layers/%s/usr && mkdir tmp/dead tmp/dead/tree && : >tmp/f-torn]])
        :format(store, id, id, id))
      assert.same({}, t.listed())
      t.pulled "base"
      t.same_as_umoci(t.name .. ":base", "base")
      assert.equal(0, t.image("gc").status)
      assert.equal(1, t.count "lists")
      t.tidy()
    end)

    t.it("are pulled by many processes at once without harm", function()
      local running = {}
      for i = 1, 6 do
        local tag = ({ "app", "many", "zstd" })[i % 3 + 1]
        running[i] = proc.cli_start({ "image", "pull", "-q", "--plain-http", t.name .. ":" .. tag },
          { env = t.env })
      end
      for i = 7, 9 do running[i] = proc.cli_start({ "image", "gc" }, { env = t.env }) end
      for _, p in ipairs(running) do
        local r = p:wait(60)
        assert.equal(0, r.status, r.stderr)
      end
      assert.equal(3, #t.listed())
      assert.equal(0, t.image("verify").status)
      t.same_as_umoci(t.name .. ":many", "many")
      t.tidy()
    end)

    t.it("say when there is no room", function()
      local dir = files.dir "small"
      t.sh("mount -t tmpfs -o size=20m none " .. dir)
      t.env.XDG_STATE_HOME = dir
      local ok, message, e = pcall(t.refused, "engine_unavailable", "base")
      local left = t.sh(("du -sm %s | cut -f1"):format(dir)).stdout
      t.sh("umount " .. dir)
      assert(ok, message)
      expect.contains(message, "No space left")
      expect.contains(e.hint, "image gc")
      assert.is_true(tonumber(left) <= 2)
    end)

    t.it("make room where there is none for another file", function()
      local dir = files.dir "full"
      t.sh("mount -t tmpfs -o size=20m,nr_inodes=300 none " .. dir)
      t.env.XDG_STATE_HOME = dir
      local ok, why = pcall(function()
        assert.equal(0, t.image("import", "-q", "rootfs:" .. t.here, "small:1").status)
        t.sh(("mkdir %s/regolith/images/tmp/dead; i=0; while touch %s/$i; do i=$((i+1)); done")
          :format(dir, dir))
        local r = t.image "gc"
        assert.equal(0, r.status, r.stderr)
        assert.equal("0", t.sh(("ls %s/regolith/images/tmp | wc -l"):format(dir)).stdout:sub(1, 1))
        t.sh(("while touch %s/more$i; do i=$((i+1)); done"):format(dir))
        r = t.image("rm", "small:1")
        assert.equal(0, r.status, r.stderr)
        expect.contains(r.stdout, "removed 1 image and 1 layer")
      end)
      t.sh("umount " .. dir)
      assert(ok, why)
    end)
  end)

  describe("from and to files", function()
    t.it("round trip through an OCI layout", function()
      t.pulled "app"
      local out = files.dir "out"
      assert.equal(0, t.image("export", t.name .. ":app", "oci:" .. out .. "/x").status)
      local again = t.image("export", t.name .. ":app", "oci:" .. out .. "/y").stdout
      assert.equal(again, t.image("export", t.name .. ":app", "oci:" .. out .. "/x").stdout)
      local r = t.sh(([[umoci unpack --image %s:app %s/a >/dev/null 2>&1
        umoci unpack --image %s/x:app %s/b >/dev/null 2>&1
        python3 %s/compare.py %s/a/rootfs %s/b/rootfs; rc=$?; exit $rc]])
        :format(t.img, out, out, out, t.here, out, out), { may_fail = true })
      assert.equal(0, r.status, r.stdout)
      r = t.image("import", "oci:" .. out .. "/x:app", "copy:1")
      assert.equal(0, r.status, r.stderr)
      assert.equal(again, r.stdout)
      t.same_as_umoci("copy:1", "app")
      assert.equal(0, t.image("verify").status)
      t.sh("rm -rf " .. out .. "/*")
    end)

    t.it("come from a docker archive, by the t.name inside", function()
      local dir = files.dir "archive"
      t.sh(("skopeo --policy %s/policy.json copy -q oci:%s:app docker-archive:%s/a.tar:some/name:7")
        :format(t.keep, t.img, dir))
      local r = t.image("import", "docker-archive:" .. dir .. "/a.tar")
      assert.equal(0, r.status, r.stderr)
      assert.equal("docker.io/some/name:7", t.listed()[1].name)
      t.same_as_umoci("some/name:7", "app")
    end)

    t.it("come from a folder or a tar, and run", function()
      local dir = files.dir "tar"
      t.sh(("tar -C %s/root -cf %s/r.tar ."):format(t.keep, dir))
      for i, source in ipairs { t.keep .. "/root", dir .. "/r.tar" } do
        local r = t.image("import", "-q", "rootfs:" .. source, "own:" .. i)
        assert.equal(0, r.status, r.stderr)
        r = proc.cli({ "exec", "--image", "own:" .. i, "--", "python", "-c", "print(6*7)" },
          { env = t.env })
        assert.equal("42\n", r.stdout, r.stderr)
        t.same_as_folder("own:" .. i, t.keep .. "/root")
      end
      os.remove(dir .. "/r.tar")
    end)

    t.it("are refused where they are damaged or unclear", function()
      local dir = files.dir "bad"
      t.sh(("cp -r %s %s/img"):format(t.img, dir))
      local r = t.image("import", "oci:" .. dir .. "/img", "x:1")
      assert.equal(1, r.status)
      expect.contains(r.stderr, "say which")
      t.sh(([[for b in $(find %s/img/blobs -size +1000k); do
        printf x | dd of=$b bs=1 seek=5000 conv=notrunc 2>/dev/null
      done]]):format(dir))
      r = t.image("import", "oci:" .. dir .. "/img:base", "x:1")
      assert.equal(1, r.status)
      assert.same({}, t.listed())
      t.tidy()
      -- A fifo in a document's place would keep its reader waiting.
      t.sh(("cd %s && mkfifo manifest.json && tar -cf fifo.tar manifest.json"):format(dir))
      r = t.image("import", "docker-archive:" .. dir .. "/fifo.tar", "x:1")
      assert.equal(1, r.status)
      expect.contains(r.stderr, "no regular file")
      assert.equal(1, t.image("import", "rootfs:/no/such/dir", "x:1").status)
      r = t.image("import", "-q", "rootfs:" .. t.here)
      assert.equal(0, r.status)
      expect.contains(r.stderr, "has no name")
      assert.equal(2, t.image("import", "zip:/x", "x:1").status)
      t.sh("rm -rf " .. dir .. "/*")
    end)
  end)
end)

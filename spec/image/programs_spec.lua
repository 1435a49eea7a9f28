-- Real programs in an image: what people run in theirs, as Debian packages it (programs.sh).
-- Too much to build and to fetch for every `make test`: `make test-images`.
local files = require "spec.support.files"
local json = require "json"
local proc = require "spec.support.proc"
local sdk = require "spec.image.sdk"
local t = require "spec.image.support"

-- Built by hand, so that nothing is fetched: a module and a command, as any wheel has them.
local WHEEL = [[
import zipfile
info = "moonsand-1.0.dist-info/"
about = "Wheel-Version: 1.0\nGenerator: spec\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
with zipfile.ZipFile("/tmp/moonsand-1.0-py3-none-any.whl", "w") as z:
    z.writestr("moonsand.py", "def main():\n    print('sand')\n")
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: moonsand\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", about)
    z.writestr(info + "entry_points.txt", "[console_scripts]\nmoonsand = moonsand:main\n")
    z.writestr(info + "RECORD", "")
]]

local C = [[
#include <math.h>
#include <pthread.h>
#include <stdio.h>

static void *half(void *arg) { *(double *)arg /= 2; return NULL; }

int main(void)
{
  double x = 84;
  pthread_t thread;
  pthread_create(&thread, NULL, half, &x);
  pthread_join(thread, NULL);
  printf("%.0f %.3f\n", x, sqrt(2.0));
}
]]

local NODE = [[
const { createHash } = require("crypto");
const http = require("http");
const server = http.createServer((q, r) => r.end(q.url)).listen(0, "127.0.0.1", async () => {
  const r = await fetch(`http://127.0.0.1:${server.address().port}/moon`);
  console.log(await r.text(), createHash("sha256").update("x").digest("hex").slice(0, 8));
  server.close();
});
]]

t.describe(_ENV, "real programs", function()
  t.it("run in an image: Python, pip, git, gcc, Node", function()
    local keep = t.keep:gsub("image%-fixture$", "image-programs")
    t.sh(("sh %s/programs.sh %s %s"):format(t.here, t.keep, keep), { timeout = 400 })
    t.with_docker_registry(function(port)
      local ref = ("127.0.0.1:%d/library/programs:1"):format(port)
      t.skopeo(("oci:%s/img:programs docker://%s"):format(keep, ref), 200)
      local r = proc.cli({ "image", "pull", "-q", "--plain-http", ref },
        { env = t.env, timeout = 200 })
      assert.equal(0, r.status, r.stderr)
      t.same_as_umoci(ref, "programs", keep .. "/img")

      local function run(script, env)
        local args = { "exec", "--image", ref }
        for k, v in pairs(env or {}) do
          args[#args + 1] = "--env"
          args[#args + 1] = k .. "=" .. v
        end
        for _, a in ipairs { "--", "sh", "-ec", script } do args[#args + 1] = a end
        local x = proc.cli(args, { env = t.env, timeout = 100 })
        assert.equal(0, x.status, x.stderr)
        return x.stdout
      end

      assert.equal("1.4142135623730951 b'\\x1f\\x8b'\n", run(
        [[python -c "import gzip, math, sqlite3, ssl, lzma, ctypes
print(math.sqrt(2), gzip.compress(b'')[:2])"]]))
      assert.equal("sand\nsand\ngone\n", run([[
        python -c "$WHEEL"
        python -m pip install -q --no-index --no-cache-dir --break-system-packages \
          --root-user-action ignore /tmp/moonsand-1.0-py3-none-any.whl
        moonsand
        python -c 'import moonsand; moonsand.main()'
        python -m pip uninstall -qy --break-system-packages --root-user-action ignore moonsand
        python -c 'import moonsand' 2>/dev/null || echo gone]],
        { WHEEL = WHEEL }))
      assert.equal("two\n2 commits\none\n", run [[
        cd /tmp && git init -q -b main a && cd a
        git config user.name Moon && git config user.email moon@example.org
        echo one >f && git add f && git commit -qm one
        git checkout -qb other && echo two >f && git commit -qam two && git checkout -q main
        git merge -q other && cd .. && git clone -q a b && cat b/f
        echo $(git -C b log --oneline | wc -l) commits
        git -C b show HEAD^:f]])
      assert.equal("42 1.414\n", run([[
        cd /tmp && printf '%s' "$C" >x.c && gcc -O2 -Wall -Werror -pthread -o x x.c -lm && ./x]],
        { C = C }))
      assert.equal("/moon 2d711642\n", run([[node -e "$NODE"]], { NODE = NODE }))
      assert.equal(0, t.image("verify").status)

      -- The same image behind a server: the SDK examples' commands, with the real numpy.
      local state = files.dir "state"
      local key = assert(proc.cli({ "key", "add", "a", "--credit", "1", "--state", state },
        { env = t.env }).stdout:match "sk%-%w+")
      local server = proc.cli_start({ "serve", "--listen", "127.0.0.1:0", "--state", state,
        "--default-image", ref, "--default-network", "none" }, { env = t.env })
      local url = server:expect("http://[%d.:]+", 20)
      local ok, why = pcall(sdk.flows, function(op, body)
        return json.decode(proc.run({ "curl", "-sS", "-H", "Authorization: Bearer " .. key,
          url .. "/v1/marketplace/compute/sandbox/" .. op, "-d", json.encode(body) }).stdout)
      end, "1%.2%d%.%d")
      server:kill "TERM"
      assert.equal(0, server:wait(40).status)
      assert(ok, why)
    end)
  end)
end)

-- A state directory that cannot be used: refused at the start, once and clearly, and left as it is;
-- or full while serving, which costs nobody anything and passes by itself.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local json = require "json"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"
local sys = require "spec.support.sys"
local task = require "task"

describe("a state directory", function()
  local before, dir, mounts, running
  setup(function() before = leftovers.before() end)
  before_each(function()
    dir, mounts = files.dir "state", {}
  end)
  after_each(function()
    if running then running:kill "KILL" end -- of a test that failed
    for i = #mounts, 1, -1 do proc.run { "umount", mounts[i] } end
    files.clean()
    leftovers.none_since(before, 5)
  end)

  local function mount(...)
    local argv = { "mount", ... }
    local r = sys.root and proc.run(argv) or { status = 1, stderr = "not root" }
    if r.status ~= 0 then return false, "skipped: cannot mount here: " .. r.stderr end
    mounts[#mounts + 1] = argv[#argv]
    return true
  end

  local function key(name)
    local r = proc.cli { "key", "add", name, "--credit", "1", "--state", dir }
    return assert(r.stdout:match "sk%-%w+", r.stderr)
  end

  local SERVE = { "--listen", "127.0.0.1:0", "--default-image", "host",
    "--default-network", "none" }
  local function serve(...)
    local argv = { "serve", "--state", dir, table.unpack(SERVE) }
    running = proc.cli_start(table.move({ ... }, 1, select("#", ...), #argv + 1, argv))
    return running
  end

  local function address(server) return server:expect("http://[%d.:]+", 20 * proc.factor) end

  local function stop(server)
    server:kill "TERM"
    local r = server:wait(40)
    running = nil
    assert.equal(0, r.status, r.stderr)
    return r
  end

  -- One error that says what is wrong with which file, and nothing else.
  local function refused(words)
    local r = serve():wait(20 * proc.factor)
    running = nil
    assert.are_not.equal(0, r.status)
    assert.equal("", r.stdout)
    assert.matches("^regolith: [^\n]+\n", r.stderr)
    expect.lacks(r.stderr:gsub("^[^\n]+\n", ""), "regolith:")
    expect.contains(r.stderr, words)
    expect.contains(r.stderr, dir)
  end

  local function works()
    local server = serve()
    address(server)
    stop(server)
  end

  it("of a newer version is refused and left alone", function()
    key "a"
    local db = dir .. "/regolith.db"
    -- The version is at byte 60 of the file, in four bytes.
    local text = files.read(db)
    local newer = text:sub(1, 60) .. "\0\0\0\99" .. text:sub(65)
    files.write(db, newer)
    refused "newer regolith"
    expect.contains(proc.cli({ "key", "ls", "--state", dir }).stderr, "newer regolith")
    assert.is_true(files.read(db) == newer, "it was changed")
    files.write(db, text)
    works()
  end)

  it("that is something else is refused and left alone", function()
    local db = dir .. "/regolith.db"
    files.write(db, ("no database "):rep(1000))
    refused "not a database"
    assert.equal(12000, #files.read(db))
    dir = db
    refused "Not a directory"
  end)

  it("that cannot be written is refused", function()
    key "a"
    local ok, why = mount("--bind", dir, dir)
    if not ok then return pending(why) end
    assert(mount("-o", "remount,ro,bind", dir))
    refused "Read-only"
    dir = dir .. "/new"
    refused "Read-only"
    dir = dir:gsub("/new$", "")
    proc.run { "umount", dir }
    works()
  end)

  it("on a full disk is refused, and taken when there is room", function()
    local ok, why = mount("-t", "tmpfs", "-o", "size=16k", "none", dir)
    if not ok then return pending(why) end
    refused "No space left on device"
    local r = proc.cli { "key", "add", "a", "--state", dir }
    assert.are_not.equal(0, r.status)
    assert.equal("", r.stdout)
    expect.contains(r.stderr, "No space left on device")
    assert(mount("-o", "remount,size=4m", dir))
    works()
  end)

  it("that fills up loses nothing: 503 until there is room", function()
    local ok, why = mount("-t", "tmpfs", "-o", "size=2m", "none", dir)
    if not ok then return pending(why) end
    local bearer = "Authorization: Bearer " .. key "a"
    local server = serve("--access-log", dir .. "/access.log")
    local url = address(server)
    local function ask(path, body, header)
      local r = proc.run({ "curl", "-sS", "-w", "\n%{http_code}", "-H", bearer, "-H",
        header or "Accept: */*", url .. path, table.unpack(body and { "-d", json.encode(body) }
          or {}) }, { timeout = 20 })
      local text, status = r.stdout:match "^(.*)\n(%d+)$"
      return tonumber(status), json.decode(text), text
    end
    local function post(op, body, header) return ask("/v1/modal/sandbox/" .. op, body, header) end
    local spent = 0
    local function paid(price, status, answer, text)
      assert.equal(200, status, text)
      spent = spent + price
      return answer, text
    end
    local function create(body, header) return paid(10000, post("create", body, header)) end
    local function status_of(sb)
      return paid(1000, post("status", { sandbox_id = sb.sandbox_id }))
    end

    local lives, late = create {}, create { timeout = 2 }
    local once = "Idempotency-Key: once"
    local _, first = create({ timeout = 60 }, once)
    local filler = assert(io.open(dir .. "/filler", "wb"))
    while filler:write(("x"):rep(4096)) and filler:flush() do end
    filler:close()

    -- What room the log of the database had is used up first.
    local status, answer
    for _ = 1, 1000 do
      status, answer = post("status", { sandbox_id = lives.sandbox_id })
      if status ~= 200 then break end
      spent = spent + 1000
    end
    assert.equal(503, status)
    assert.equal("engine_unavailable", answer.error.code)
    expect.contains(answer.error.message, "No space left on device")
    local marker = { "sh", "-c", "echo ran >>/tmp/marker" }
    local exec = { sandbox_id = lives.sandbox_id, command = marker }
    assert.equal(503, (post("exec", exec)))
    assert.equal(503, (post("create", {})))
    assert.equal(503, (post("create", { timeout = 61 }, "Idempotency-Key: new")))
    assert.equal(503, (ask "/readyz"))
    assert.equal(200, (ask "/healthz"))
    -- A sandbox whose time is over ends all the same.
    local gone
    for _ = 1, 200 do
      _, gone = ask("/v1/sandboxes/" .. late.sandbox_id)
      if gone.state == "terminated" then break end
      task.sleep(0.05)
    end
    assert.equal("terminated", gone.state)

    os.remove(dir .. "/filler")
    for _ = 1, 200 do -- without any request that would try
      status = ask "/readyz"
      if status == 200 then break end
      task.sleep(0.05)
    end
    assert.equal(200, status)
    exec.command = "cat /tmp/marker; echo on"
    assert.equal("on\n", paid(1000, post("exec", exec)).stdout)
    assert.equal("running", status_of(lives).status)
    local _, again = post("create", { timeout = 60 }, once)
    assert.equal(json.decode(first).sandbox_id, again.sandbox_id)
    create({ timeout = 61 }, "Idempotency-Key: new")
    local log = stop(server)
    expect.contains(log.stderr, "the books cannot be written")
    expect.contains(log.stderr, "the books can be written again")

    -- Also for the next server: what had ended, how, and what was paid.
    server = serve()
    url = address(server)
    assert.equal("sandbox_timeout", status_of(late).reason)
    assert.equal(408, (post("exec", { sandbox_id = late.sandbox_id, command = "true" })))
    stop(server)
    local lines = json.decode(
      proc.cli({ "cost", "--statement", "a", "--json", "--state", dir }).stdout)
    assert.equal(1000000 - spent, lines[#lines].balance_microusd)
    local ls = json.decode(proc.cli({ "key", "ls", "--json", "--state", dir }).stdout)
    assert.equal(1000000 - spent, ls[1].balance_microusd)
    assert.equal(0, ls[1].held_microusd)
  end)
end)

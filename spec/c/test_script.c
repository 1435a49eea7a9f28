/* script: scripts from strings, on a loop, with small ops of their own to call. */
#include "script_run.h"

#include <sys/stat.h>

static void prints(void)
{
  expect("print('hello', 1, nil, ...)", "hello\t1\tnil\tone\ttwo\n");
  expect("io.write('a', 1, 2.5, '\\n'):write('b\\n')", "a12.5\nb\n");
  expect("#!/usr/bin/env -S regolith run\nprint(args[1], arg[2], #args)", "one\ttwo\t2\n");
}

static void sleeps_and_spawns(void)
{
  expect("local t = task.now()\n"
         "local a = task.spawn(function(x) task.sleep('20ms') print('a', x) return 1, nil, 3 end, "
         "'x')\n"
         "local b = task.spawn(function() task.sleep(0.005) print('b') end)\n"
         "print('main')\n"
         "print(a:wait())\n"
         "b:wait()\n"
         "print(task.now() - t >= 0.02)\n",
         "main\nb\na\tx\n1\tnil\t3\ntrue\n");
}

static void ops_answer(void)
{
  expect(
      "local r = core.call('test.echo', { a = 1, list = { 1, 'x', true }, deep = { s = '\\0' } })\n"
      "print(r.a, #r.list, r.list[2], #r.deep.s)\n"
      "local ok, e = pcall(core.call, 'test.echo', { fail = true })\n"
      "print(ok, e.code, e.status, e.retryable, e.message, tostring(e))\n"
      "ok, e = pcall(core.call, 'test.nowhere')\n"
      "print(ok, e.code)\n",
      "1\t3\tx\t1\n"
      "false\tcapacity\t503\ttrue\tthe machine is full\tcapacity: the machine is full (wait)\n"
      "false\tunsupported\n");
}

static void cancel_runs_cleanup(void)
{
  struct run r;
  set_up();
  CHECK(begin(&r, "local x <close> = setmetatable({}, { __close = function(_, e)\n"
                  "  print('closing', e.code) task.sleep(0.01) print('closed') end })\n"
                  "on_exit(function(why) print('exit', why.kind, why.error.message) end)\n"
                  "while true do pcall(task.sleep, 10) end\n"));
  kill_after(&r, 20, SCRIPT_TIMEOUT, false);
  loop_run(loop);
  CHECK_STR(r.out.data, "closing\ttimeout\nclosed\nexit\ttimeout\ttime to go\n");
  CHECK_INT(r.end, SCRIPT_TIMEOUT);
  finish(&r);
  tear_down();
}

/* Every moment of a busy script is a moment at which it can be cancelled. */
static const char busy_source[] =
    "on_exit(function() core.call('test.slow', { ms = 1 }) print('exit') end)\n"
    "local function busy(depth)\n"
    "  local x <close> = setmetatable({}, { __close = function() task.sleep(0.001) end })\n"
    "  while true do\n"
    "    pcall(core.call, 'test.echo', { a = 1 })\n"
    "    pcall(core.call, 'test.slow', { chunks = 3, ms = 2 }, { on_chunk = function() "
    "task.yield() end })\n"
    "    pcall(task.timeout, 0.003, task.sleep, 1)\n"
    "    pcall(task.race, { function() task.sleep(0.002) end, function() task.sleep(1) end })\n"
    "    if depth > 0 then\n"
    "      local t = task.spawn(busy, depth - 1)\n"
    "      task.sleep(0.002) t:cancel() pcall(t.wait, t)\n"
    "    end\n"
    "    for i = 1, 20000 do end\n"
    "  end\n"
    "end\n"
    "busy(2)\n";

static void cancel_at_any_moment(void)
{
  for (unsigned ms = 4; ms < 44; ms++) {
    struct run r;
    set_up();
    CHECK(begin(&r, busy_source));
    kill_after(&r, ms, SCRIPT_CANCELLED, false);
    loop_run(loop);
    CHECK_INT(r.end, SCRIPT_CANCELLED);
    CHECK_STR(r.out.data, "exit\n");
    CHECK_INT(r.stats.tasks, 0);
    finish(&r);
    tear_down();
  }
}

static void force_at_any_moment(void)
{
  for (unsigned ms = 0; ms < 20; ms++) {
    struct run r;
    set_up();
    CHECK(begin(&r, busy_source));
    kill_after(&r, ms, SCRIPT_CANCELLED, true);
    loop_run(loop);
    CHECK_INT(r.end, SCRIPT_CANCELLED);
    finish(&r);
    tear_down();
  }
}

/* An op that is done at the very moment the cancel comes is not lost, and not reported twice. */
static void cancel_races_completion(void)
{
  for (unsigned ms = 0; ms < 8; ms++) {
    struct run r;
    set_up();
    CHECK(begin(&r,
                "while true do core.call('test.slow', { ms = 3 }) core.call('test.echo', {}) end"));
    kill_after(&r, ms, SCRIPT_CANCELLED, false);
    loop_run(loop);
    CHECK_INT(r.end, SCRIPT_CANCELLED);
    finish(&r);
    tear_down();
  }
}

static unsigned outputs_left;
static bool output_force;

static void cancel_at_output(struct run *r)
{
  if (outputs_left-- == 0) script_cancel(r->script, SCRIPT_CANCELLED, NULL, output_force);
}

/* script_cancel from inside a slice, at each place where the script prints. */
static void cancel_from_a_hook(void)
{
  static const char source[] =
      "on_exit(function() print('exit') end)\n"
      "local show = setmetatable({}, { __tostring = function() io.write('t') return '' end })\n"
      "local x <close> = setmetatable({}, { __close = function() print('close') end })\n"
      "for _, op in ipairs { 'test.events', 'test.slow' } do\n"
      "  core.call(op, { count = 2, chunks = 2 }, { on_chunk = function() print(1) pcall(tostring, "
      "show) end })\n"
      "end\n"
      "local co = coroutine.wrap(function() print(2) coroutine.yield(tostring(show)) print(3) "
      "end)\n"
      "co() co()\n"
      "task.spawn(print, 4)\n"
      "task.spawn(function() print(5) task.sleep(0.01) end):wait()\n";
  output_action = cancel_at_output;
  for (unsigned n = 0; n < 30; n++) {
    struct run r;
    outputs_left = n / 2;
    output_force = n % 2;
    set_up();
    CHECK(begin(&r, source));
    loop_run(loop);
    if (n < 20) CHECK_INT(r.end, SCRIPT_CANCELLED);
    finish(&r);
    tear_down();
  }
  output_action = NULL;
}

static void hooks_that_take_too_long(void)
{
  struct run r;
  set_up();
  grace_ms = 30;
  CHECK(begin(&r, "on_exit(function() print('begun') task.sleep(10) print('not here') end)"));
  loop_run(loop);
  CHECK_INT(r.end, SCRIPT_ERROR);
  CHECK_STR(r.err.msg, "the on_exit functions took longer than 0.03 s");
  CHECK_STR(r.out.data, "begun\n");
  finish(&r);
  tear_down();
}

static void fails_before_it_runs(void)
{
  struct run r;
  set_up();
  CHECK(!begin(&r, "print('a'\nlocal = 5"));
  CHECK_INT(r.err.kind, ERR_INVALID_ARGUMENT);
  CHECK_STR(r.err.msg, "test:2: ')' expected (to close '(' at line 1) near 'local'");
  CHECK(!begin(&r, "\x1bLuaT"));
  CHECK_STR(r.err.msg, "test is compiled Lua; scripts are text");
  tear_down();
}

static void never_started(void)
{
  struct script *s;
  struct script_conf conf = {.name = "x", .source = "", .source_len = 0};
  set_up();
  conf.loop = loop;
  conf.ops = ops;
  CHECK_INT(script_new(&s, &conf, NULL), 0);
  script_cancel(s, SCRIPT_CANCELLED, NULL, true);
  script_free(s);
  tear_down();
}

static void cancelled_before_start(void)
{
  struct run r;
  struct script_conf conf = {.name = "x", .source = "print 'no'", .source_len = 10};
  set_up();
  memset(&r, 0, sizeof r);
  conf.loop = loop;
  conf.ops = ops;
  conf.hooks = &hooks;
  conf.hooks_data = &r;
  CHECK_INT(script_new(&r.script, &conf, NULL), 0);
  script_cancel(r.script, SCRIPT_TIMEOUT, NULL, false);
  script_start(r.script);
  CHECK(!r.done);
  loop_run(loop);
  CHECK_INT(r.end, SCRIPT_TIMEOUT);
  CHECK(r.out.len == 0);
  finish(&r);
  tear_down();
}

static void check_traceback(const char *source, const char *message, const char *traceback)
{
  struct run r;
  set_up();
  CHECK(begin(&r, source));
  loop_run(loop);
  CHECK_INT(r.end, SCRIPT_ERROR);
  CHECK_STR(r.err.msg, message);
  CHECK_STR(r.traceback, traceback);
  finish(&r);
  tear_down();
}

static void tracebacks_point_into_the_script(void)
{
  check_traceback(
      "local function inner()\n  error('boom')\nend\nlocal function outer()\n  inner()\nend\n"
      "outer()\n",
      "test:2: boom",
      "  test:2: in upvalue 'inner'\n  test:5: in local 'outer'\n"
      "  test:7: in the main chunk");
  check_traceback(
      "local function work()\n  local t = nil\n  return t.x\nend\n"
      "local t = task.spawn(function()\n  task.sleep(0.001)\n  work()\nend)\nt:wait()\n",
      "test:3: attempt to index a nil value (local 't')",
      "  test:3: in upvalue 'work'\n  test:7: in a function (line 5)\n"
      "  -- raised again --\n  test:9: in the main chunk");
  check_traceback("local co = coroutine.wrap(function()\n  error('deep', 0)\nend)\nco()\n",
                  "test:4: deep",
                  "  test:2: in a function (line 1)\n  -- raised again --\n"
                  "  test:4: in the main chunk");
  check_traceback("core.call('test.echo', { fail = true })", "the machine is full",
                  "  test:1: in the main chunk");
  check_traceback(
      "task.map({ 1 }, function()\n  error { code = 'denied', message = 'mine' }\nend)\n", "mine",
      "  test:2: in a function (line 1)\n  -- raised again --\n"
      "  test:1: in the main chunk");
}

static void errors_of_any_type(void)
{
  check_traceback("error()", "an error that is a nil value", "  test:1: in the main chunk");
  check_traceback("error(setmetatable({}, { __tostring = function() return 'as text' end }))",
                  "as text", "  test:1: in the main chunk");
  check_traceback("error({})", "an error that is a table without a message",
                  "  test:1: in the main chunk");
}

static void error_keeps_its_kind(void)
{
  struct run r;
  set_up();
  CHECK(begin(&r, "core.call('test.echo', { fail = true })"));
  loop_run(loop);
  CHECK_INT(r.err.kind, ERR_CAPACITY);
  CHECK_STR(r.err.hint, "wait");
  finish(&r);
  tear_down();
}

static void task_events(void)
{
  struct run r;
  set_up();
  CHECK(begin(&r, "local a = task.spawn(function() task.sleep(0.001) end)\n"
                  "local b = task.spawn(function() task.sleep(1) end) b:cancel()\n"
                  "local c = task.spawn(error, 'x') pcall(c.wait, c)\n"
                  "log.warn('careful', 1) progress(1, 3, 'step')"));
  loop_run(loop);
  CHECK_INT(r.end, SCRIPT_OK);
  CHECK_STR(r.tasks, "1+ 2+ 3+ 4+ 3cancelled 4error 2ok 1ok ");
  CHECK_STR(r.log.data, "warn:careful 1\nprogress:1/3:step\n");
  finish(&r);
  tear_down();
}

/* What one script does to its own world, another does not see. */
static void worlds_apart(void)
{
  struct run vandal, other;
  set_up();
  CHECK(begin_named(&vandal, "vandal",
                    "getmetatable('').__index = function() return 'tampered' end\n"
                    "string.upper = nil string.format = error table.concat = nil\n"
                    "task.sleep = nil json.encode = nil pcall = nil _G.leak = 'leak'\n"
                    "package.loaded.json = nil\n"
                    "print(('x').anything, require('task').sleep)\n"
                    "task.yield()"));
  CHECK(begin_named(
      &other, "other",
      "task.sleep(0.01)\n"
      "print(('x'):upper(), ('%d'):format(5), table.concat({ 1, 2 }), leak, type(pcall))"));
  loop_run(loop);
  CHECK_STR(vandal.out.data, "tampered\tnil\n");
  CHECK_STR(other.out.data, "X\t5\t12\tnil\tfunction\n");
  CHECK_INT(other.end, SCRIPT_OK);
  finish(&vandal);
  finish(&other);
  tear_down();
}

/* Embedded modules keep working in a world whose globals were taken away. */
static void embedded_modules_are_sealed(void)
{
  expect("for k in pairs(_G) do if k ~= 'print' and k ~= 'task' and k ~= '_G' then _G[k] = nil end "
         "end\n"
         "print(task.map({ 1, 2 }, function(x) return x * 2 end)[2])\n",
         "4\n");
}

static void write_file(const char *dir, const char *name, const char *text)
{
  char path[512];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "w");
  if (!f) abort();
  fputs(text, f);
  fclose(f);
}

static char scratch[64];

static void make_scratch(void)
{
  char path[128];
  snprintf(scratch, sizeof scratch, "/tmp/regolith-spec-XXXXXX");
  if (!mkdtemp(scratch)) abort();
  snprintf(path, sizeof path, "%s/granted", scratch);
  mkdir(path, 0700);
  snprintf(path, sizeof path, "%s/granted/deep", scratch);
  mkdir(path, 0700);
  write_file(scratch, "secret", "secret\n");
  write_file(scratch, "granted/plain", "one\ntwo\nthree\n");
  write_file(scratch, "granted/mod.lua", "task.sleep(0.001) return { name = ..., n = 1 }");
  write_file(scratch, "granted/deep/init.lua", "return 'deep one'");
  write_file(scratch, "granted/deep/two.lua", "return 'deep two'");
  write_file(scratch, "granted/broken.lua", "local x = = 1");
  write_file(scratch, "granted/raises.lua", "error('while loading')");
  write_file(scratch, "granted/loop.lua", "return require 'loop'");
  snprintf(path, sizeof path, "%s/granted/out", scratch);
  if (symlink("../secret", path) < 0) abort();
  snprintf(path, sizeof path, "%s/granted/abs.lua", scratch);
  if (symlink("/etc/passwd", path) < 0) abort();
  snprintf(path, sizeof path, "%s/granted/in", scratch);
  if (symlink("plain", path) < 0) abort();
  snprintf(path, sizeof path, "%s/granted/fifo", scratch);
  if (mkfifo(path, 0600) < 0) abort();
}

static void remove_scratch(void)
{
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", scratch);
  if (system(command) != 0) abort();
}

static void files_beneath_grants(void)
{
  char dir[128];
  make_scratch();
  snprintf(dir, sizeof dir, "%s/granted", scratch);
  strv_add(&granted_dirs, dir);
  char source[2048];
  snprintf(
      source, sizeof source,
      "local dir = '%s'\n"
      "local function try(...) local f, e = io.open(...) if f then print('opened', f:read('l')) "
      "f:close() "
      "else print((e:gsub('^.*: ', ''))) end end\n"
      "try(dir .. '/plain') try(dir .. '/in') try(dir .. '/deep/../plain')\n"
      "try(dir .. '/out') try(dir .. '/abs.lua') try(dir .. '/../secret') try(dir .. '/fifo')\n"
      "try(dir) try(dir .. '/deep') try(dir .. '/none') try(dir .. '/../granted-not/x')\n"
      "local f = assert(io.open(dir .. '/new', 'w')) f:write('a', 1, '\\n', 'b') f:close()\n"
      "for l in io.lines(dir .. '/new') do io.write(l, ' ') end print(io.type(f), pcall(f.read, "
      "f))\n"
      "print(loadfile(dir .. '/deep/two.lua')(), dofile(dir .. '/deep/init.lua'))\n"
      "print(pcall(io.open, dir .. '/new', 'rwx'))\n",
      dir);
  expect(source, "opened\tone\nopened\tone\nopened\tone\n"
                 "Invalid cross-device link\nInvalid cross-device link\n"
                 "the script was not granted this folder\nPermission denied\n"
                 "Is a directory\nIs a directory\nNo such file or directory\n"
                 "the script was not granted this folder\n"
                 "a1 b closed file\tfalse\tattempt to use a closed file\n"
                 "deep two\tdeep one\n"
                 "false\tbad argument #2 to 'open' (invalid mode)\n");
  strv_free(&granted_dirs);
  granted_dirs = (struct strv){0};
  remove_scratch();
}

static void modules_beside_the_script(void)
{
  char dir[128];
  make_scratch();
  snprintf(dir, sizeof dir, "%s/granted", scratch);
  module_dir = dir;
  expect("local m = require 'mod' print(m.name, m.n, require 'mod' == m)\n"
         "print(require 'deep', require 'deep.two')\n"
         "for _, name in ipairs { 'none', 'broken', 'raises', 'loop', 'abs', '../secret', "
         "'deep/two', '' } do\n"
         "  local ok, e = pcall(require, name) print(ok, (tostring(e):gsub('/tmp/[^/]*/', "
         "''):gsub(' %(.*', '')))\n"
         "end\n"
         "package.preload.mine = function(n) return n .. '!' end print(require 'mine')\n"
         "print(package.loaded.io == io, require 'string' == string, require 'coroutine' == "
         "coroutine)\n",
         "mod\t1\ttrue\n"
         "deep one\tdeep two\n"
         "false\tnot_found: module 'none' was not found\n"
         "false\tgranted/broken.lua:1: unexpected symbol near '='\n"
         "false\tgranted/raises.lua:1: while loading\n"
         "false\tgranted/loop.lua:1: module 'loop' is being loaded already\n"
         "false\tnot_found: module 'abs' was not found\n"
         "false\tnot_found: module '../secret' was not found\n"
         "false\tnot_found: module 'deep/two' was not found\n"
         "false\tnot_found: module '' was not found\n"
         "mine!\n"
         "true\ttrue\ttrue\n");
  module_dir = NULL;
  remove_scratch();
}

/* Three scripts that only compute get a third each. */
static void computing_scripts_share(void)
{
  struct run r[3];
  uint64_t least = UINT64_MAX, most = 0;
  set_up();
  for (int i = 0; i < 3; i++) {
    CHECK(begin(&r[i], "while true do end"));
    kill_after(&r[i], 400, SCRIPT_TIMEOUT, false);
  }
  loop_run(loop);
  for (int i = 0; i < 3; i++) {
    if (r[i].stats.cpu_ns < least) least = r[i].stats.cpu_ns;
    if (r[i].stats.cpu_ns > most) most = r[i].stats.cpu_ns;
    CHECK(r[i].stats.preempts > 2);
    finish(&r[i]);
  }
  CHECK(most < least * 2);
  tear_down();
}

static void ten_thousand_sleepers(void)
{
  struct run r;
  set_up();
  CHECK(begin(&r, "for i = 1, 10000 do task.spawn(task.sleep, 0.1) end "
                  "print(collectgarbage('count') < 24000)"));
  loop_run(loop);
  CHECK_INT(r.end, SCRIPT_OK);
  CHECK_STR(r.out.data, "true\n");
  CHECK(r.stats.cpu_ns < 2000000000u);
  finish(&r);
  tear_down();
}

static void a_thousand_scripts(void)
{
  enum { COUNT = 1000 };
  struct run *r = xcalloc(COUNT, sizeof *r);
  size_t mem = 0;
  set_up();
  for (int i = 0; i < COUNT; i++) {
    CHECK(begin(&r[i], "task.sleep(0.05) core.call('test.slow', { ms = 5 }) "
                       "print(core.call('test.echo', { n = 7 }).n)"));
    script_stats(r[i].script, &r[i].stats);
    mem += r[i].stats.mem_bytes;
  }
  loop_run(loop);
  for (int i = 0; i < COUNT; i++) {
    CHECK_INT(r[i].end, SCRIPT_OK);
    CHECK_STR(r[i].out.data, "7\n");
    finish(&r[i]);
  }
  CHECK(mem / COUNT < 60000);
  free(r);
  tear_down();
}

static void input_streams(void)
{
  input_bytes = 0;
  input_ended = false;
  expect("local left = 3\n"
         "core.call('test.slow', { ms = 300 }, { input = function()\n"
         "  task.sleep(0.001) left = left - 1 if left >= 0 then return 'abc' end end })\n"
         "print(pcall(core.call, 'test.slow', { ms = 1000 }, { input = function() error('no more', "
         "0) end }))\n"
         "print(select(2, pcall(core.call, 'test.events', {}, { input = 'x' })))\n",
         "false\tno more\nnil\n");
  CHECK_INT(input_bytes, 9);
  CHECK(input_ended);
}

const struct test_case test_cases[] = {
    {"prints", prints},
    {"sleeps_and_spawns", sleeps_and_spawns},
    {"ops_answer", ops_answer},
    {"cancel_runs_cleanup", cancel_runs_cleanup},
    {"cancel_at_any_moment", cancel_at_any_moment},
    {"force_at_any_moment", force_at_any_moment},
    {"cancel_races_completion", cancel_races_completion},
    {"cancel_from_a_hook", cancel_from_a_hook},
    {"hooks_that_take_too_long", hooks_that_take_too_long},
    {"fails_before_it_runs", fails_before_it_runs},
    {"never_started", never_started},
    {"cancelled_before_start", cancelled_before_start},
    {"tracebacks_point_into_the_script", tracebacks_point_into_the_script},
    {"errors_of_any_type", errors_of_any_type},
    {"error_keeps_its_kind", error_keeps_its_kind},
    {"task_events", task_events},
    {"worlds_apart", worlds_apart},
    {"embedded_modules_are_sealed", embedded_modules_are_sealed},
    {"files_beneath_grants", files_beneath_grants},
    {"modules_beside_the_script", modules_beside_the_script},
    {"computing_scripts_share", computing_scripts_share},
    {"ten_thousand_sleepers", ten_thousand_sleepers},
    {"a_thousand_scripts", a_thousand_scripts},
    {"input_streams", input_streams},
    {0}};

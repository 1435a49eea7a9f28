/* script: scripts from strings, on a loop, with small ops of their own to call. */
#include "test.h"

#include <errno.h>
#include <lauxlib.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "core/loop.h"
#include "core/op.h"
#include "script/script.h"
#include "script/script_internal.h"
#include "wire/op.h"

/* --- What a run leaves behind --- */

struct run {
  struct script *script;
  struct buf out, log;
  char tasks[512];     /* "1+ 2+ 2ok 1ok " */
  bool done;
  enum script_end end;
  struct err err;
  char traceback[4096];
  uint64_t started_ms, took_ms;
  struct script_stats stats;
  struct timer kill;    /* cancels it */
  enum script_end kill_as;
  bool kill_force;
};

static struct loop *loop;
static struct ops *ops;
static struct strv granted_dirs, granted_env;
static size_t mem_bytes;
static uint64_t grace_ms;

static void on_output(void *data, const char *text, size_t len)
{
  struct run *r = data;
  buf_append(&r->out, text, len);
}

static void on_log(void *data, enum log_level level, const char *text, size_t len)
{
  struct run *r = data;
  buf_printf(&r->log, "%s:", log_level_name(level));
  buf_append(&r->log, text, len);
  buf_putc(&r->log, '\n');
}

static void on_progress(void *data, double done, double total, const char *text)
{
  struct run *r = data;
  buf_printf(&r->log, "progress:%g/%g:%s\n", done, total, text);
}

static void on_task(void *data, uint64_t task, uint64_t parent, const char *name,
                    const char *outcome)
{
  struct run *r = data;
  (void)parent, (void)name;
  size_t len = strlen(r->tasks);
  snprintf(r->tasks + len, sizeof r->tasks - len, "%d%s ", (int)task, outcome ? outcome : "+");
}

static void on_done(void *data, const struct script_result *result)
{
  struct run *r = data;
  r->done = true;
  r->end = result->end;
  r->err = result->err;
  r->took_ms = clock_mono_ms() - r->started_ms;
  snprintf(r->traceback, sizeof r->traceback, "%s", result->traceback ? result->traceback : "");
  script_stats(r->script, &r->stats);
  timer_stop(loop, &r->kill);
}

static const struct script_hooks hooks = {.on_output = on_output,
                                          .on_log = on_log,
                                          .on_progress = on_progress,
                                          .on_task = on_task,
                                          .on_done = on_done};

/* --- Ops --- */

struct slow_op {
  struct timer timer;
  struct op *op;
  int left;  /* chunks to send */
  int sent;
  bool paused;
};

static size_t slow_ops, paused_times, input_bytes;
static bool input_ended;

static int echo_start(struct op *op, void *ctx, struct err *err)
{
  (void)ctx;
  if (val_get_bool(&op->args, "fail", false)) {
    err_set(err, ERR_CAPACITY, 0, "the machine is full");
    err_hint(err, "wait");
    return -EAGAIN;
  }
  op->result = op->args;
  op->args = (struct val){0};
  op_finish(op, NULL);
  return 0;
}

static void slow_end(struct slow_op *slow, const struct err *err)
{
  timer_stop(loop, &slow->timer);
  if (!err) {
    slow->op->result = val_map();
    val_set(&slow->op->result, "sent", val_int(slow->sent));
  }
  op_finish(slow->op, err);
  slow_ops--;
  free(slow);
}

static void slow_tick(struct timer *timer)
{
  struct slow_op *slow = timer->data;
  char chunk[65536];
  memset(chunk, 'x', sizeof chunk);
  for (int i = 0; i < 8 && slow->left > 0 && !slow->paused; i++, slow->left--, slow->sent++) {
    chunk[0] = (char)('a' + slow->sent % 26);
    op_chunk(slow->op, slow->sent % 2 ? OP_STDERR : OP_STDOUT, chunk,
             (size_t)val_get_int(&slow->op->args, "size", 3));
  }
  if (slow->left > 0)
    timer_start(loop, &slow->timer, 1);
  else
    slow_end(slow, NULL);
}

static int slow_start(struct op *op, void *ctx, struct err *err)
{
  (void)ctx, (void)err;
  struct slow_op *slow = xcalloc(1, sizeof *slow);
  slow->op = op;
  slow->left = (int)val_get_int(&op->args, "chunks", 0);
  slow->timer = (struct timer){.cb = slow_tick, .data = slow};
  timer_start(loop, &slow->timer, (uint64_t)val_get_int(&op->args, "ms", 1));
  op->handler_data = slow;
  slow_ops++;
  return 0;
}

static void slow_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct err err = {0};
  err_set(&err, op->cancel_why, 0, "cancelled under way");
  slow_end(op->handler_data, &err);
}

static void slow_flow(struct op *op, void *ctx, bool paused)
{
  (void)ctx;
  struct slow_op *slow = op->handler_data;
  slow->paused = paused;
  paused_times += paused;
}

static void slow_input(struct op *op, void *ctx, const void *data, size_t len)
{
  (void)op, (void)ctx, (void)data;
  input_bytes += len;
  if (len == 0) input_ended = true;
}

static const struct op_handler echo = {.name = "test.echo", .start = echo_start};
static const struct op_handler slow = {.name = "test.slow",
                                       .start = slow_start,
                                       .cancel = slow_cancel,
                                       .flow = slow_flow,
                                       .input = slow_input};

/* --- Running --- */

static void set_up(void)
{
  loop_new(&loop, NULL);
  ops = ops_new(loop);
  ops_register(ops, &echo, NULL);
  ops_register(ops, &slow, NULL);
  mem_bytes = 0;
  grace_ms = 500;
}

static void tear_down(void)
{
  CHECK_INT(ops_in_flight(ops), 0);
  CHECK_INT(slow_ops, 0);
  ops_free(ops);
  loop_free(loop);
}

/* What scripts cannot do, tests can: the primitives as the global `core`. */
static void give_core(struct script *s)
{
  lua_rawgetp(s->L, LUA_REGISTRYINDEX, &script_key_core);
  lua_setglobal(s->L, "core");
}

static bool begin_named(struct run *r, const char *name, const char *source)
{
  *r = (struct run){.started_ms = clock_mono_ms()};
  struct strv args = {0};
  strv_add(&args, "one");
  strv_add(&args, "two");
  struct script_conf conf = {.name = name,
                             .source = source,
                             .source_len = strlen(source),
                             .args = &args,
                             .env = &granted_env,
                             .read_dirs = &granted_dirs,
                             .write_dirs = &granted_dirs,
                             .mem_bytes = mem_bytes,
                             .grace_ms = grace_ms,
                             .loop = loop,
                             .ops = ops,
                             .hooks = &hooks,
                             .hooks_data = r};
  int rc = script_new(&r->script, &conf, &r->err);
  strv_free(&args);
  if (rc < 0) return false;
  give_core(r->script);
  script_start(r->script);
  return true;
}

static bool begin(struct run *r, const char *source)
{
  return begin_named(r, "test", source);
}

static void finish(struct run *r)
{
  CHECK(r->done);
  if (r->done) script_free(r->script);
  buf_free(&r->out);
  buf_free(&r->log);
}

static void on_kill(struct timer *timer)
{
  struct run *r = timer->data;
  struct err err = {0};
  err_set(&err, r->kill_as == SCRIPT_TIMEOUT ? ERR_TIMEOUT : ERR_CANCELLED, 0, "time to go");
  script_cancel(r->script, r->kill_as, &err, r->kill_force);
}

static void kill_after(struct run *r, uint64_t ms, enum script_end as, bool force)
{
  r->kill = (struct timer){.cb = on_kill, .data = r};
  r->kill_as = as;
  r->kill_force = force;
  timer_start(loop, &r->kill, ms);
}

/* Runs a script that has to end well, and compares what it printed. */
static void expect(const char *source, const char *output)
{
  struct run r;
  set_up();
  if (!begin(&r, source)) {
    fprintf(stderr, "does not load: %s\n", r.err.msg);
    CHECK(false);
  } else {
    loop_run(loop);
    CHECK(r.done);
    CHECK_STR(script_end_name(r.end), "ok");
    if (r.end != SCRIPT_OK) fprintf(stderr, "  %s\n%s\n", r.err.msg, r.traceback);
    CHECK_STR(r.out.data ? r.out.data : "", output);
    finish(&r);
  }
  tear_down();
}

static void prints(void)
{
  expect("print('hello', 1, nil, ...)", "hello\t1\tnil\tone\ttwo\n");
  expect("io.write('a', 1, 2.5, '\\n'):write('b\\n')", "a12.5\nb\n");
  expect("#!/usr/bin/env -S regolith run\nprint(args[1], arg[2], #args)", "one\ttwo\t2\n");
}

static void sleeps_and_spawns(void)
{
  expect("local t = task.now()\n"
         "local a = task.spawn(function(x) task.sleep('20ms') print('a', x) return 1, nil, 3 end, 'x')\n"
         "local b = task.spawn(function() task.sleep(0.005) print('b') end)\n"
         "print('main')\n"
         "print(a:wait())\n"
         "b:wait()\n"
         "print(task.now() - t >= 0.02)\n",
         "main\nb\na\tx\n1\tnil\t3\ntrue\n");
}

static void ops_answer(void)
{
  expect("local r = core.call('test.echo', { a = 1, list = { 1, 'x', true }, deep = { s = '\\0' } })\n"
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

const struct test_case test_cases[] = {{"prints", prints},
                                       {"sleeps_and_spawns", sleeps_and_spawns},
                                       {"ops_answer", ops_answer},
                                       {"cancel_runs_cleanup", cancel_runs_cleanup},
                                       {0}};

#ifndef REGOLITH_SPEC_SCRIPT_RUN_H
#define REGOLITH_SPEC_SCRIPT_RUN_H

/* Scripts from strings on a loop, for the tests of the runtime: what a run leaves behind, small ops
 * to call, expectations. */

#include "test.h"

#include <errno.h>
#include <lauxlib.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "core/loop.h"
#include "core/op.h"
#include "host/files.h"
#include "script/script.h"
#include "script/script_internal.h"
#include "wire/codec.h"
#include "wire/op.h"

/* --- What a run leaves behind --- */

struct run {
  struct script *script;
  struct buf out, log;
  char tasks[512]; /* "1+ 2+ 2ok 1ok " */
  bool done;
  enum script_end end;
  struct err err;
  char traceback[4096];
  uint64_t started_ms, took_ms;
  struct script_stats stats;
  struct timer kill; /* cancels it */
  enum script_end kill_as;
  bool kill_force;
  struct timer second_kill;
};

static struct loop *loop;
static struct ops *ops;
static struct strv granted_env;
static struct files *files;
static size_t mem_bytes;
static uint64_t grace_ms;

static void (*output_action)(struct run *r); /* done at each output, or NULL */

static inline void on_output(void *data, const char *text, size_t len)
{
  struct run *r = data;
  buf_append(&r->out, text, len);
  if (output_action) output_action(r);
}

static inline void on_log(void *data, enum log_level level, const char *text, size_t len)
{
  struct run *r = data;
  buf_printf(&r->log, "%s:", log_level_name(level));
  buf_append(&r->log, text, len);
  buf_putc(&r->log, '\n');
}

static inline void on_progress(void *data, double done, double total, const char *text)
{
  struct run *r = data;
  buf_printf(&r->log, "progress:%g/%g:%s\n", done, total, text);
}

static inline void on_task(void *data, uint64_t task, uint64_t parent, const char *name,
                           const char *outcome)
{
  struct run *r = data;
  (void)parent, (void)name;
  size_t len = strlen(r->tasks);
  snprintf(r->tasks + len, sizeof r->tasks - len, "%d%s ", (int)task, outcome ? outcome : "+");
}

static inline void on_done(void *data, const struct script_result *result)
{
  struct run *r = data;
  r->done = true;
  r->end = result->end;
  r->err = result->err;
  r->took_ms = clock_mono_ms() - r->started_ms;
  snprintf(r->traceback, sizeof r->traceback, "%s", result->traceback ? result->traceback : "");
  script_stats(r->script, &r->stats);
  timer_stop(loop, &r->kill);
  timer_stop(loop, &r->second_kill);
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
  int left; /* chunks to send */
  int sent;
  bool paused;
};

static size_t slow_ops, paused_times, input_bytes;
static bool input_ended;

static inline int echo_start(struct op *op, void *ctx, struct err *err)
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

static inline void slow_end(struct slow_op *slow, const struct err *err)
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

static inline void slow_tick(struct timer *timer)
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

static inline int slow_start(struct op *op, void *ctx, struct err *err)
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

static inline void slow_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct err err = {0};
  err_set(&err, op->cancel_why, 0, "cancelled under way");
  slow_end(op->handler_data, &err);
}

static inline void slow_flow(struct op *op, void *ctx, bool paused)
{
  (void)ctx;
  struct slow_op *slow = op->handler_data;
  slow->paused = paused;
  paused_times += paused;
}

static inline void slow_input(struct op *op, void *ctx, const void *data, size_t len)
{
  (void)op, (void)ctx, (void)data;
  input_bytes += len;
  if (len == 0) input_ended = true;
}

/* count events, at once. */
static inline int events_start(struct op *op, void *ctx, struct err *err)
{
  (void)ctx;
  for (int64_t i = 1; i <= val_get_int(&op->args, "count", 0); i++) {
    struct buf bytes = {0};
    struct val event = val_map();
    val_set(&event, "n", val_int(i));
    val_set(&event, "text", val_str("x"));
    int rc = codec_encode(&bytes, &event, err);
    if (rc == 0) op_chunk(op, OP_EVENT, bytes.data, bytes.len);
    val_free(&event);
    buf_free(&bytes);
  }
  op_finish(op, NULL);
  return 0;
}

static const struct op_handler events = {.name = "test.events", .start = events_start};
static const struct op_handler echo = {.name = "test.echo", .start = echo_start};
static const struct op_handler slow = {.name = "test.slow",
                                       .start = slow_start,
                                       .cancel = slow_cancel,
                                       .flow = slow_flow,
                                       .input = slow_input};

/* --- Running --- */

static const char *module_dir;   /* of the next scripts, NULL = none */
static struct strv granted_dirs; /* to read and write */

static inline bool grant(void *data, uint64_t owner, struct files_grants *ret)
{
  (void)data, (void)owner;
  *ret = (struct files_grants){module_dir, &granted_dirs, &granted_dirs};
  return true;
}

static inline void set_up(void)
{
  loop_new(&loop, NULL);
  ops = ops_new(loop);
  ops_register(ops, &echo, NULL);
  ops_register(ops, &slow, NULL);
  ops_register(ops, &events, NULL);
  files = files_new(ops, grant, NULL);
  mem_bytes = 0;
  grace_ms = 500;
}

static inline void tear_down(void)
{
  CHECK_INT(ops_in_flight(ops), 0);
  CHECK_INT(slow_ops, 0);
  files_free(files);
  ops_free(ops);
  loop_free(loop);
}

/* What scripts cannot do, tests can: the primitives as the global `core`. */
static inline void give_core(struct script *s)
{
  lua_rawgetp(s->L, LUA_REGISTRYINDEX, &script_key_core);
  lua_setglobal(s->L, "core");
}

static inline bool begin_named(struct run *r, const char *name, const char *source)
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

static inline bool begin(struct run *r, const char *source)
{
  return begin_named(r, "test", source);
}

static inline void finish(struct run *r)
{
  CHECK(r->done);
  if (r->done) script_free(r->script);
  buf_free(&r->out);
  buf_free(&r->log);
}

static inline void on_kill(struct timer *timer)
{
  struct run *r = timer->data;
  struct err err = {0};
  err_set(&err, r->kill_as == SCRIPT_TIMEOUT ? ERR_TIMEOUT : ERR_CANCELLED, 0, "time to go");
  script_cancel(r->script, r->kill_as, &err, r->kill_force);
}

static inline void kill_after(struct run *r, uint64_t ms, enum script_end as, bool force)
{
  r->kill = (struct timer){.cb = on_kill, .data = r};
  r->kill_as = as;
  r->kill_force = force;
  timer_start(loop, &r->kill, ms);
}

/* A second time, forced; the kill timer has to have fired by then. */
static inline void on_second_kill(struct timer *timer)
{
  struct run *r = timer->data;
  script_cancel(r->script, SCRIPT_CANCELLED, NULL, true);
}

static inline void kill_again(struct run *r, uint64_t ms)
{
  r->second_kill = (struct timer){.cb = on_second_kill, .data = r};
  timer_start(loop, &r->second_kill, ms);
}

/* Runs a script that has to end well, and compares what it printed. */
static inline void expect(const char *source, const char *output)
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

#endif

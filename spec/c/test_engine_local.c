/* engine/local: boxes and execs through the vtable, and nothing left afterwards. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/id.h"
#include "core/loop.h"
#include "engine/engine.h"
#include "engine/local/local.h"
#include "wire/op.h"

/* --- straight-line calls over the loop ---------------------------------------------------------
 */

static struct loop *loop;
static struct engine *engine;
static int waiting; /* callbacks still to come */

struct box {
  struct create_op op;
  struct create_args args;
  char id[ID_SIZE];
  struct err err;
  bool done, ended;
  enum box_end why;
};

struct run {
  struct exec_op op;
  struct exec_args args;
  struct err err;
  struct buf out, errout;
  uint64_t bytes;
  bool done, count_only;
};

struct kill {
  struct kill_op op;
  bool done;
};

static void on_alarm(struct timer *t)
{
  (void)t;
  fprintf(stderr, "the test hangs\n");
  abort();
}

static void step(void)
{
  struct timer alarm = {.cb = on_alarm};
  timer_start(loop, &alarm, 20000);
  loop_run(loop);
  timer_stop(loop, &alarm);
}

static void wait_for(const bool *flag)
{
  while (!*flag) step();
}

static void on_tick(struct timer *t)
{
  *(bool *)t->data = true;
  loop_stop(loop);
}

__attribute__((unused)) static void wait_ms(uint64_t ms)
{
  bool over = false;
  struct timer t = {.cb = on_tick, .data = &over};
  timer_start(loop, &t, ms);
  wait_for(&over);
}

static void on_created(struct create_op *op, const struct err *err)
{
  struct box *b = op->data;
  if (err) b->err = *err;
  b->done = true;
  waiting--;
  loop_stop(loop);
}

static void on_end(void *data, enum box_end why)
{
  struct box *b = data;
  b->ended = true;
  b->why = why;
  loop_stop(loop);
}

static void box_args(struct box *b, const char *image)
{
  *b = (struct box){0};
  id_sandbox(b->id);
  b->args = (struct create_args){.engine = xstrdup("local"),
                                 .image = xstrdup(image),
                                 .cpu_milli = 1000,
                                 .mem_mib = 256,
                                 .disk_mib = 64,
                                 .pids = 256,
                                 .timeout_s = 300,
                                 .app_id = xstrdup("default")};
}

static int box_start(struct box *b)
{
  b->op = (struct create_op){
      .sandbox_id = b->id, .args = &b->args, .on_done = on_created, .on_end = on_end, .data = b};
  int rc = engine->ops->create(engine, &b->op, &b->err);
  if (rc == 0) waiting++;
  return rc;
}

static bool box_up(struct box *b)
{
  if (box_start(b) == 0) wait_for(&b->done);
  create_args_free(&b->args);
  if (b->err.kind != ERR_NONE) fprintf(stderr, "create: %s\n", b->err.msg);
  return b->err.kind == ERR_NONE;
}

static void on_killed(struct kill_op *op, const struct err *err)
{
  struct kill *k = op->data;
  CHECK(err == NULL);
  k->done = true;
  loop_stop(loop);
}

static void kill_start(struct kill *k, struct engine_box *box, struct exec_op *exec)
{
  *k = (struct kill){.op = {.box = box, .exec = exec, .on_done = on_killed, .data = k}};
  struct err err = {0};
  CHECK_INT(engine->ops->kill(engine, &k->op, &err), 0);
}

static void box_down(struct box *b)
{
  struct kill k;
  kill_start(&k, b->op.ret_box, NULL);
  wait_for(&k.done);
}

static void on_chunk(struct exec_op *op, enum exec_stream stream, const void *data, size_t len)
{
  struct run *r = op->data;
  r->bytes += len;
  if (!r->count_only) buf_append(stream == EXEC_STDOUT ? &r->out : &r->errout, data, len);
}

static void on_exec_done(struct exec_op *op, const struct err *err)
{
  struct run *r = op->data;
  if (err) r->err = *err;
  r->done = true;
  loop_stop(loop);
}

static void run_args(struct run *r, const char *const *argv)
{
  *r = (struct run){0};
  for (; *argv; argv++) strv_add(&r->args.argv, *argv);
}

static int run_start(struct box *b, struct run *r)
{
  r->op = (struct exec_op){.box = b->op.ret_box,
                           .args = &r->args,
                           .on_chunk = on_chunk,
                           .on_done = on_exec_done,
                           .data = r};
  int rc = engine->ops->exec(engine, &r->op, &r->err);
  if (rc < 0) r->done = true;
  return rc;
}

static void run_free(struct run *r)
{
  exec_args_free(&r->args);
  buf_free(&r->out);
  buf_free(&r->errout);
}

/* Runs a shell command to its end; the caller frees r. */
static void sh_as(struct box *b, struct run *r, const char *user, const char *script)
{
  run_args(r, (const char *const[]){"/bin/sh", "-c", script, NULL});
  if (user) r->args.user = xstrdup(user);
  if (run_start(b, r) == 0) wait_for(&r->done);
  if (r->err.kind != ERR_NONE) fprintf(stderr, "exec: %s\n", r->err.msg);
}

static void sh(struct box *b, struct run *r, const char *script)
{
  sh_as(b, r, NULL, script);
}

static const char *text(const struct buf *b)
{
  return b->data ? b->data : "";
}

#define CHECK_SH(box, script, want)                                                                \
  do {                                                                                             \
    struct run r_;                                                                                 \
    sh(box, &r_, script);                                                                          \
    CHECK_STR(text(&r_.out), want);                                                                \
    CHECK_STR(text(&r_.errout), "");                                                               \
    run_free(&r_);                                                                                 \
  } while (0)

static void on_closed(void *data)
{
  *(bool *)data = true;
  loop_stop(loop);
}

static void begin(void)
{
  struct err err = {0};
  CHECK_INT(local_engine_prefork(&err), 0);
  loop_new(&loop, NULL);
  CHECK_INT(
      local_engine_ops.open(&engine, &(struct engine_conf){.name = "local", .loop = loop}, &err),
      0);
}

static void end(void)
{
  bool closed = false;
  engine->ops->close(engine, on_closed, &closed);
  wait_for(&closed);
  loop_free(loop);
}

/* --- cases -------------------------------------------------------------------------------------
 */

static void create_exec_kill(void)
{
  struct box b;
  begin();
  box_args(&b, "host");
  if (box_up(&b)) {
    struct run r;
    sh(&b, &r, "echo out; echo err >&2; exit 7");
    CHECK_STR(text(&r.out), "out\n");
    CHECK_STR(text(&r.errout), "err\n");
    CHECK_INT(r.op.ret_end, EXEC_END_EXITED);
    CHECK_INT(r.op.ret_code, 7);
    run_free(&r);
    box_down(&b);
  }
  end();
}

const struct test_case test_cases[] = {{"create_exec_kill", create_exec_kill}, {0}};

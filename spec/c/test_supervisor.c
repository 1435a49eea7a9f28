/* sandbox/supervisor over an engine in memory that can delay, fail, and answer in any order.
 *
 * Commands of the fake engine: { "exit", CODE, MS }, { "hang" }, { "print", BYTES, CODE },
 * { "signal", N }, { "oom" }, { "lost" }, { "badcwd" }. The last cases run random schedules:
 * whatever happens in whatever order, every op finishes exactly once and nothing is left. The seed
 * is printed on failure; TEST_SEED repeats it, TEST_ROUNDS runs more. */
#include "test.h"

#include <time.h>

#include "base/buf.h"
#include "base/json.h"
#include "core/loop.h"
#include "core/op.h"
#include "engine/engine.h"
#include "sandbox/supervisor.h"
#include "wire/codec.h"
#include "wire/op.h"

/* ---- the engine ---- */

struct fbox {
  struct list node;
  struct create_op *create;
  struct list execs;
  struct timer end; /* a random end by itself */
  enum box_end end_why;
  bool ended, has_ended;
  int failed_kills;
};

struct fexec {
  struct list node; /* box.execs */
  struct exec_op *op;
  struct timer timer;
  bool paused, finished;
  size_t print_left;
};

struct fwork { /* something to answer later */
  struct timer timer;
  struct create_op *create;
  struct kill_op *kill;
  bool succeed;
};

static struct fake {
  struct engine base;
  struct list boxes, creating; /* fwork of creates is found by create->engine_data */
  unsigned create_ms, kill_ms, kill_exec_ms;
  bool fail_create, refuse_create, refuse_exec, ignore_cancel, kill_first, never_kill;
  int fail_kills; /* that many kills fail */
  size_t boxes_n, execs_n, kills, inputs;
  size_t flows_paused, flows_resumed;
  bool random, closed, late_create_after_cancel;
  unsigned end_chance; /* percent of boxes that end by themselves, in random runs */
} fake;

static struct loop *loop;
static struct ops *ops;
static struct supervisor *sup;
static uint64_t owner;
static unsigned seed;

static unsigned rnd(unsigned n)
{
  seed = seed * 1103515245u + 12345u;
  return n ? (seed >> 16) % n : 0;
}

static unsigned delay(unsigned fixed)
{
  return fake.random ? rnd(6) : fixed;
}

static void fexec_finish(struct fexec *x, int end, int code)
{
  if (x->finished) return;
  x->finished = true;
  timer_stop(loop, &x->timer);
  list_remove(&x->node);
  fake.execs_n--;
  x->op->ret_end = end;
  x->op->ret_code = code;
  x->op->ret_duration_us = 1500;
  x->op->ret_cpu_us = 1000;
  x->op->ret_max_rss_kib = 2000;
  x->op->engine_data = NULL;
  x->op->on_done(x->op, NULL);
  free(x);
}

static void on_box_timer(struct timer *t)
{
  struct fbox *b = t->data;
  if (b->ended) return;
  b->has_ended = true;
  b->create->on_end(b->create->data, b->end_why);
  /* The box is still there until it is killed; its commands finish now. */
  while (!list_empty(&b->execs))
    fexec_finish(list_entry(b->execs.next, struct fexec, node), EXEC_END_LOST, 0);
}

static void finish_create(struct timer *t)
{
  struct fwork *w = t->data;
  struct create_op *create = w->create;
  bool ok = w->succeed;
  create->engine_data = NULL;
  free(w);
  if (!ok) {
    struct err e = {0};
    err_set(&e, ERR_CAPACITY, 0, "no room in the fake engine");
    create->on_done(create, &e);
    return;
  }
  struct fbox *b = xcalloc(1, sizeof *b);
  b->create = create;
  b->end = (struct timer){.cb = on_box_timer, .data = b};
  list_init(&b->execs);
  list_append(&fake.boxes, &b->node);
  fake.boxes_n++;
  create->ret_box = (struct engine_box *)b;
  if (fake.random && rnd(100) < fake.end_chance) {
    b->end_why = rnd(2) ? BOX_END_OOM : BOX_END_LOST;
    timer_start(loop, &b->end, rnd(20));
  }
  create->on_done(create, NULL);
}

static int fake_create(struct engine *e, struct create_op *op, struct err *err)
{
  (void)e;
  if (fake.refuse_create) return err_set(err, ERR_UNSUPPORTED, 0, "the fake engine refuses");
  struct fwork *w = xcalloc(1, sizeof *w);
  *w = (struct fwork){.timer = {.cb = finish_create, .data = w},
                      .create = op,
                      .succeed = !fake.fail_create && !(fake.random && rnd(8) == 0)};
  op->engine_data = w;
  timer_start(loop, &w->timer, delay(fake.create_ms));
  return 0;
}

static void on_exec_timer(struct timer *t)
{
  struct fexec *x = t->data;
  const struct strv *argv = &x->op->args->argv;
  const char *what = argv->v[0];
  if (strcmp(what, "exit") == 0) {
    fexec_finish(x, EXEC_END_EXITED, atoi(argv->v[1]));
  } else if (strcmp(what, "signal") == 0) {
    fexec_finish(x, EXEC_END_SIGNAL, atoi(argv->v[1]));
  } else if (strcmp(what, "oom") == 0) {
    fexec_finish(x, EXEC_END_OOM, 9);
  } else if (strcmp(what, "lost") == 0) {
    fexec_finish(x, EXEC_END_LOST, 0);
  } else if (strcmp(what, "badcwd") == 0) {
    struct err e = {0};
    err_arg(&e, "cwd", "cwd /nope is not there");
    x->finished = true;
    list_remove(&x->node);
    fake.execs_n--;
    x->op->engine_data = NULL;
    x->op->on_done(x->op, &e);
    free(x);
  } else if (strcmp(what, "print") == 0) {
    static const char text[101] =
        "0123456789abcdefghijABCDEFGHIJ!@#$%^&*()0123456789abcdefghijABCDEFGHIJ"
        "!@#$%^&*()0123456789abcdefghij";
    size_t n = x->print_left < 100 ? x->print_left : 100;
    if (x->paused || n == 0) n = 0;
    x->print_left -= n;
    timer_start(loop, &x->timer, 0);
    if (n > 0)
      x->op->on_chunk(x->op, rnd(2) ? EXEC_STDOUT : EXEC_STDERR, text, n);
    else if (x->print_left == 0)
      fexec_finish(x, EXEC_END_EXITED, argv->n > 2 ? atoi(argv->v[2]) : 0);
    else
      timer_stop(loop, &x->timer); /* paused: resumed by flow */
  }
}

static int fake_exec(struct engine *e, struct exec_op *op, struct err *err)
{
  (void)e;
  if (fake.refuse_exec) return err_set(err, ERR_EXEC_FAILED, 0, "the fake engine refuses");
  struct fbox *b = (struct fbox *)op->box;
  struct fexec *x = xcalloc(1, sizeof *x);
  *x = (struct fexec){.op = op, .timer = {.cb = on_exec_timer, .data = x}};
  const struct strv *argv = &op->args->argv;
  if (strcmp(argv->v[0], "print") == 0) x->print_left = (size_t)atoi(argv->v[1]);
  list_append(&b->execs, &x->node);
  fake.execs_n++;
  op->engine_data = x;
  unsigned ms = argv->n > 2 && strcmp(argv->v[0], "exit") == 0 ? (unsigned)atoi(argv->v[2]) : 1;
  if (b->has_ended) x->timer.cb = on_exec_timer, ms = 0;
  if (strcmp(argv->v[0], "hang") != 0) timer_start(loop, &x->timer, delay(ms));
  return 0;
}

static void kill_box(struct fbox *b, struct kill_op *op)
{
  b->ended = true;
  timer_stop(loop, &b->end);
  struct list execs;
  list_init(&execs);
  while (!list_empty(&b->execs)) {
    struct list *n = b->execs.next;
    list_remove(n);
    list_append(&execs, n);
  }
  list_remove(&b->node);
  fake.boxes_n--;
  free(b);
  bool first = fake.kill_first || (fake.random && rnd(2));
  if (first) op->on_done(op, NULL);
  while (!list_empty(&execs)) {
    struct fexec *x = list_entry(execs.next, struct fexec, node);
    bool lost = fake.random && rnd(3) == 0;
    fexec_finish(x, lost ? EXEC_END_LOST : EXEC_END_SIGNAL, lost ? 0 : 9);
  }
  if (!first) op->on_done(op, NULL);
}

/* In random runs: now and then, but never so often that the supervisor has to give up. */
static bool may_fail(const struct kill_op *op, unsigned one_in)
{
  if (!fake.random || op->create || rnd(one_in)) return false;
  return op->exec || ((struct fbox *)op->box)->failed_kills++ < 3;
}

static void finish_kill(struct timer *t)
{
  struct fwork *w = t->data;
  struct kill_op *op = w->kill;
  fake.kills++;
  free(w);
  if (fake.fail_kills > 0 || may_fail(op, 10)) {
    if (fake.fail_kills > 0) fake.fail_kills--;
    struct err e = {0};
    err_set(&e, ERR_ENGINE_UNAVAILABLE, 0, "the fake engine cannot kill now");
    op->on_done(op, &e);
  } else if (op->create) {
    struct fwork *c = op->create->engine_data;
    bool first = rnd(2);
    if (first) op->on_done(op, NULL);
    if (c && !fake.ignore_cancel && !(fake.random && rnd(3) == 0)) {
      struct create_op *create = op->create;
      timer_stop(loop, &c->timer);
      free(c);
      create->engine_data = NULL;
      struct err e = {0};
      err_set(&e, ERR_CANCELLED, 0, "cancelled");
      create->on_done(create, &e);
    }
    if (!first) op->on_done(op, NULL);
  } else if (op->exec) {
    struct fexec *x = op->exec->engine_data;
    bool first = fake.kill_first || (fake.random && rnd(2));
    if (first) op->on_done(op, NULL);
    if (x) fexec_finish(x, EXEC_END_SIGNAL, 9);
    if (!first) op->on_done(op, NULL);
  } else {
    kill_box((struct fbox *)op->box, op);
  }
}

static int fake_kill(struct engine *e, struct kill_op *op, struct err *err)
{
  (void)e;
  if (may_fail(op, 12))
    return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "the fake engine cannot kill now");
  struct fwork *w = xcalloc(1, sizeof *w);
  *w = (struct fwork){.timer = {.cb = finish_kill, .data = w}, .kill = op};
  if (fake.never_kill) {
    w->timer.cb = NULL;
    free(w);
    return 0;
  }
  timer_start(loop, &w->timer, delay(op->exec ? fake.kill_exec_ms : fake.kill_ms));
  return 0;
}

static void fake_input(struct engine *e, struct exec_op *op, const void *data, size_t len)
{
  (void)e, (void)op, (void)data;
  fake.inputs += len;
  /* The end of input ends the command. */
  if (len == 0 && op->engine_data) timer_start(loop, &((struct fexec *)op->engine_data)->timer, 0);
}

static void fake_flow(struct engine *e, struct exec_op *op, bool paused)
{
  (void)e;
  struct fexec *x = op->engine_data;
  if (!x) return;
  if (x->paused && !paused) timer_start(loop, &x->timer, 0);
  if (paused)
    fake.flows_paused++;
  else
    fake.flows_resumed++;
  x->paused = paused;
}

static void fake_close(struct engine *e, void (*done)(void *), void *data)
{
  (void)e;
  fake.closed = true;
  done(data);
}

static struct engine_ops fake_ops = {.name = "fake",
                                     .create = fake_create,
                                     .exec = fake_exec,
                                     .kill = fake_kill,
                                     .exec_input = fake_input,
                                     .exec_flow = fake_flow,
                                     .close = fake_close};

/* ---- the client ---- */

struct call {
  int done; /* times on_done came */
  bool ok;
  struct err err;
  struct val result;
  size_t chunk_bytes, chunks, pause_after;
  struct op *op;
  void (*then)(struct call *c);
};

static size_t calls_open;
static unsigned fake_caps; /* of the engine of the next set_up */

static void on_chunk(struct op *op, enum op_stream stream, const void *data, size_t len)
{
  (void)stream, (void)data;
  struct call *c = op->client_data;
  c->chunk_bytes += len;
  c->chunks++;
  if (c->pause_after && c->chunks == c->pause_after) op_flow(op, true);
}

static void on_done(struct op *op, const struct err *err)
{
  struct call *c = op->client_data;
  c->done++;
  c->ok = !err;
  if (err) c->err = *err;
  c->result = op->result;
  op->result = (struct val){0};
  c->op = NULL;
  calls_open--;
  op_free(op);
  if (c->then) c->then(c);
}

static const struct op_client client = {.on_chunk = on_chunk, .on_done = on_done};

static void call_clear(struct call *c)
{
  val_free(&c->result);
  *c = (struct call){0};
}

/* Submits; false: refused at once, and c->err says why. */
static bool submit_as(struct call *c, uint64_t who, const char *name, const char *json)
{
  val_free(&c->result);
  *c = (struct call){.then = c->then, .pause_after = c->pause_after};
  struct op *op = op_new(name);
  struct err e = {0};
  if (json_parse(&op->args, json, strlen(json), &e) < 0) {
    fprintf(stderr, "bad test JSON: %s: %s\n", json, e.msg);
    abort();
  }
  op->owner = who;
  op->client = &client;
  op->client_data = c;
  c->op = op;
  calls_open++;
  if (op_submit(ops, op, &c->err) == 0) return true;
  op_free(op);
  c->op = NULL;
  calls_open--;
  c->done = 1;
  return false;
}

__attribute__((format(printf, 3, 4))) static bool submit(struct call *c, const char *name,
                                                         const char *fmt, ...)
{
  struct buf b = {0};
  va_list ap;
  va_start(ap, fmt);
  char text[2048];
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  buf_free(&b);
  return submit_as(c, owner, name, text);
}

static void on_stop(struct timer *t)
{
  loop_stop(t->data);
}

/* Runs the loop for a while; returns early when nothing can happen any more. */
static void run_ms(unsigned ms)
{
  struct timer t = {.cb = on_stop, .data = loop};
  timer_start(loop, &t, ms);
  loop_run(loop);
  timer_stop(loop, &t);
}

static void on_finished(struct call *c)
{
  (void)c;
  loop_stop(loop);
}

static void finish(struct call *c)
{
  c->then = on_finished;
  for (int i = 0; i < 50 && !c->done; i++) run_ms(100);
  c->then = NULL;
  CHECK_INT(c->done, 1);
}

__attribute__((format(printf, 3, 4))) static bool call(struct call *c, const char *name,
                                                       const char *fmt, ...)
{
  char text[2048];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (submit_as(c, owner, name, text)) finish(c);
  return c->ok;
}

static const char *code(const struct call *c)
{
  return c->ok ? "ok" : err_info(c->err.kind)->code;
}

static const char *reason(const struct call *c)
{
  return c->ok ? val_get_str(&c->result, "reason", "none") : code(c);
}

static char id[64];

static const char *create(const char *json)
{
  struct call c = {0};
  call(&c, "sandbox.create", "%s", json);
  if (!c.ok) fprintf(stderr, "create failed: %s\n", c.err.msg);
  CHECK(c.ok);
  snprintf(id, sizeof id, "%s", val_get_str(&c.result, "sandbox_id", "?"));
  call_clear(&c);
  return id;
}

static void count_done(void *data)
{
  ++*(int *)data;
}

static void on_closed(void *data, const struct err *err)
{
  struct err *out = data;
  if (err) *out = *err;
  loop_stop(loop);
}

static void set_up(const struct supervisor_conf *more)
{
  fake = (struct fake){.base = {.ops = &fake_ops, .name = "local"}, .create_ms = 1, .kill_ms = 1};
  list_init(&fake.boxes);
  fake_ops.caps = fake_caps;
  calls_open = 0;
  seed = 1;
  loop_new(&loop, NULL);
  ops = ops_new(loop);
  ops_set_check(ops, codec_check);
  struct supervisor_conf conf = more ? *more : (struct supervisor_conf){0};
  conf.loop = loop;
  conf.ops = ops;
  sup = supervisor_new(&conf);
  supervisor_add_engine(sup, &fake.base);
  owner = supervisor_owner_new(sup, &(struct owner_conf){.name = "script"});
}

/* Shuts down and checks that nothing is left. */
static void tear_down(void)
{
  struct err e = {0};
  supervisor_shutdown(sup, 5000, on_closed, &e);
  loop_run(loop);
  if (e.kind != ERR_NONE) fprintf(stderr, "shutdown: %s\n", e.msg);
  CHECK_INT(e.kind, ERR_NONE);
  struct supervisor_stats st;
  supervisor_stats(sup, &st);
  CHECK_INT(st.live, 0);
  CHECK_INT(st.execs, 0);
  CHECK_INT(st.created, st.ended);
  CHECK_INT(ops_in_flight(ops), 0);
  CHECK_INT(calls_open, 0);
  CHECK_INT(fake.boxes_n, 0);
  CHECK_INT(fake.execs_n, 0);
  CHECK(fake.closed);
  supervisor_free(sup);
  ops_free(ops);
  loop_free(loop);
}

/* ---- cases ---- */

static void create_exec_terminate(void)
{
  set_up(NULL);
  struct call c = {0};
  CHECK(call(&c, "sandbox.create", "{\"tags\":{\"run\":\"42\"},\"name\":\"db\",\"timeout\":60}"));
  snprintf(id, sizeof id, "%s", val_get_str(&c.result, "sandbox_id", "?"));
  CHECK_INT(strlen(id), 13);
  CHECK_STR(val_get_str(&c.result, "status", ""), "running");
  CHECK_STR(val_get_str(&c.result, "state", ""), "started");
  CHECK_STR(val_get_str(&c.result, "name", ""), "db");
  CHECK_STR(val_get_str(&c.result, "app_id", ""), "default");
  CHECK_STR(val_get_str(val_get(&c.result, "tags"), "run", ""), "42");
  CHECK_INT(val_get_int(val_get(&c.result, "config"), "timeout", 0), 60);
  CHECK(val_get_num(&c.result, "cost", -1) == 0);
  CHECK_INT(strlen(val_get_str(&c.result, "created_at", "")), 20);
  CHECK(strcmp(val_get_str(&c.result, "created_at", ""), val_get_str(&c.result, "expires_at", "")) <
        0);

  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"3\",\"1\"]}", id));
  CHECK_STR(reason(&c), "exited");
  CHECK_INT(val_get_int(&c.result, "exit_code", -1), 3);
  CHECK(!val_get_bool(&c.result, "ok", true));
  CHECK_INT(val_get_int(&c.result, "duration_ms", -1), 1);
  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"signal\",\"11\"]}", id));
  CHECK_STR(val_get_str(&c.result, "signal", ""), "SIGSEGV");
  CHECK(val_get(&c.result, "exit_code") == NULL);
  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"oom\"]}", id));
  CHECK_STR(reason(&c), "oom");
  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"lost\"]}", id));
  CHECK_STR(reason(&c), "unknown");
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"badcwd\"]}", id));
  CHECK_STR(c.err.field, "cwd");

  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_INT(val_get_int(&c.result, "commands_executed", -1), 5);
  CHECK(val_get(&c.result, "reason") == NULL);
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "status", ""), "terminated");
  CHECK_INT(fake.boxes_n, 0);
  CHECK(!call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&c), "sandbox_terminated");
  CHECK_STR(c.err.sandbox_id, id);
  CHECK_STR(c.err.engine, "local");
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
  CHECK_STR(code(&c), "sandbox_terminated");
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "status", ""), "terminated");
  CHECK_STR(val_get_str(&c.result, "reason", ""), "terminated");
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"sb_nope\",\"command\":\"x\"}"));
  CHECK_STR(code(&c), "sandbox_not_found");
  call_clear(&c);
  tear_down();
}

static void ops_of_others_are_not_found(void)
{
  set_up(NULL);
  create("{}");
  uint64_t other = supervisor_owner_new(sup, &(struct owner_conf){.name = "other"});
  static const char *const names[] = {"sandbox.status", "sandbox.terminate", "sandbox.get",
                                      "sandbox.detach"};
  struct call c = {0};
  char json[128];
  snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\"}", id);
  for (size_t i = 0; i < 4; i++) {
    CHECK(!submit_as(&c, other, names[i], json));
    CHECK_STR(code(&c), "sandbox_not_found");
  }
  CHECK(!submit_as(&c, 0, "sandbox.status", json));
  CHECK(!submit_as(&c, 12345, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "cancelled");
  submit_as(&c, other, "sandbox.list", "{}");
  finish(&c);
  CHECK_INT(c.result.list.n, 0);
  call_clear(&c);
  tear_down();
}

static void clocks_end_sandboxes(void)
{
  set_up(NULL);
  struct call c = {0}, x = {0};
  create("{\"timeout\":1}");
  CHECK(submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id));
  finish(&x);
  CHECK_STR(reason(&x), "sandbox_timeout");
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
  CHECK_STR(code(&c), "sandbox_timeout");
  CHECK(!call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&c), "sandbox_timeout");
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(reason(&c), "sandbox_timeout");

  /* A running command keeps it busy, a status does not. */
  create("{\"idle_timeout\":1}");
  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"0\",\"1300\"]}",
             id));
  CHECK_STR(reason(&c), "exited");
  run_ms(600);
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "status", ""), "running");
  run_ms(600);
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
  CHECK_STR(code(&c), "sandbox_timeout");
  CHECK(strstr(c.err.msg, "idle") != NULL);
  call_clear(&c);
  call_clear(&x);
  tear_down();
}

static void exec_time_outs(void)
{
  set_up(NULL);
  struct call c = {0};
  create("{}");
  fake.kill_first = false;
  for (int order = 0; order < 2; order++) {
    fake.kill_first = order;
    CHECK(call(&c, "sandbox.exec",
               "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"],\"timeout\":\"20ms\"}", id));
    CHECK_STR(reason(&c), "timeout");
  }
  /* It exits while the kill is on its way: it exited. */
  fake.kill_exec_ms = 60;
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"7\",\"30\"],\"timeout\":\"10ms\"}",
             id));
  CHECK_STR(reason(&c), "exited");
  CHECK_INT(val_get_int(&c.result, "exit_code", -1), 7);
  /* A kill that fails is tried again. */
  fake.kill_exec_ms = 1;
  fake.fail_kills = 1;
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"],\"timeout\":\"10ms\"}", id));
  CHECK_STR(reason(&c), "timeout");
  call_clear(&c);
  tear_down();
}

static void output_is_bounded(void)
{
  set_up(NULL);
  struct call c = {0};
  create("{}");
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"5000\"],\"max_output\":\"1000B\"}",
             id));
  CHECK_STR(reason(&c), "exited");
  const struct val *out = val_get(&c.result, "stdout"), *err = val_get(&c.result, "stderr");
  CHECK(out->s.len == 1000 && err->s.len == 1000);
  CHECK_INT(val_get_int(&c.result, "stdout_bytes", 0) + val_get_int(&c.result, "stderr_bytes", 0),
            5000);
  CHECK(val_get_bool(val_get(&c.result, "truncated"), "stdout", false));
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"100000\"],\"max_output\":\"1KiB\","
             "\"on_overflow\":\"kill\"}",
             id));
  CHECK_STR(reason(&c), "output_limit");
  CHECK(val_get_int(&c.result, "stdout_bytes", 0) < 50000);
  /* What exits on its own beyond its limit has broken it all the same. */
  fake.kill_exec_ms = 100;
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"3000\"],\"max_output\":\"1KiB\","
             "\"on_overflow\":\"kill\"}",
             id));
  CHECK_STR(reason(&c), "output_limit");
  call_clear(&c);
  tear_down();
}

static void streams_flow_and_input(void)
{
  set_up(NULL);
  struct call c = {.pause_after = 3};
  create("{}");
  submit(&c, "sandbox.exec",
         "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"2000\"],\"stream\":true}", id);
  run_ms(50);
  CHECK_INT(c.done, 0);
  CHECK_INT(c.chunks, 3);
  CHECK_INT(fake.flows_paused, 1);
  op_flow(c.op, false);
  finish(&c);
  CHECK_INT(c.chunk_bytes, 2000);
  CHECK_STR(reason(&c), "exited");

  /* Ending a paused command lets its output flow. */
  c.pause_after = 2;
  submit(&c, "sandbox.exec",
         "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"2000\"],\"stream\":true}", id);
  run_ms(30);
  CHECK_INT(c.done, 0);
  op_cancel(c.op, ERR_CANCELLED);
  finish(&c);
  CHECK(fake.flows_resumed >= 2);

  c.pause_after = 0;
  submit(&c, "sandbox.exec",
         "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"0\",\"5000\"],\"stdin_stream\":true}", id);
  run_ms(10);
  struct err e = {0};
  CHECK_INT(op_input(c.op, "hello", 5, &e), 0);
  CHECK_INT(op_input(c.op, "", 0, &e), 0);
  finish(&c);
  CHECK_INT(fake.inputs, 5);
  CHECK_STR(reason(&c), "exited");
  call_clear(&c);
  tear_down();
}

static void exec_races_terminate(void)
{
  for (int order = 0; order < 2; order++) {
    set_up(NULL);
    struct call c = {0}, x = {0}, y = {0}, late = {0};
    create("{}");
    fake.kill_first = order;
    fake.kill_ms = 20;
    submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
    submit(&y, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"5\",\"8\"]}", id);
    submit(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
    /* From here on nothing new starts. */
    CHECK(!submit(&late, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
    CHECK_STR(code(&late), "sandbox_terminated");
    finish(&c);
    CHECK(c.ok && x.done == 1 && y.done == 1);
    CHECK_STR(reason(&x), "terminated");
    CHECK_STR(reason(&y), "exited");
    call_clear(&c);
    call_clear(&x);
    call_clear(&y);
    tear_down();
  }
}

static void terminate_twice_at_once(void)
{
  set_up(NULL);
  struct call a = {0}, b = {0}, gone = {0};
  create("{}");
  fake.kill_ms = 30;
  submit(&a, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  submit(&b, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  submit(&gone, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  run_ms(5);
  CHECK(!a.done && !b.done); /* both wait for the last process */
  op_cancel(gone.op, ERR_CANCELLED);
  run_ms(5);
  CHECK_INT(gone.done, 1);
  CHECK_STR(code(&gone), "cancelled");
  finish(&a);
  CHECK(a.ok && b.done == 1);
  CHECK_STR(code(&b), "sandbox_terminated");
  CHECK_INT(fake.kills, 1);
  call_clear(&a);
  call_clear(&b);
  tear_down();
}

static void boxes_that_end_by_themselves(void)
{
  static const struct {
    enum box_end why;
    const char *reason, *status;
  } ends[] = {{BOX_END_OOM, "oom", "oom"}, {BOX_END_LOST, "unknown", "unknown"}};
  for (size_t i = 0; i < 2; i++) {
    set_up(NULL);
    struct call c = {0}, x = {0};
    create("{}");
    submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
    struct fbox *b = list_entry(fake.boxes.next, struct fbox, node);
    b->end_why = ends[i].why;
    timer_start(loop, &b->end, 5);
    finish(&x);
    CHECK_STR(reason(&x), ends[i].reason);
    run_ms(20);
    CHECK_INT(fake.boxes_n, 0);
    CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
    CHECK_STR(val_get_str(&c.result, "status", ""), "terminated");
    CHECK_STR(reason(&c), ends[i].status);
    CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
    CHECK_STR(code(&c), "sandbox_terminated");
    call_clear(&c);
    call_clear(&x);
    tear_down();
  }
}

static void creates_fail_and_are_cancelled(void)
{
  set_up(NULL);
  struct call c = {0};
  fake.refuse_create = true;
  CHECK(!submit(&c, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "unsupported");
  fake.refuse_create = false;
  fake.fail_create = true;
  CHECK(!call(&c, "sandbox.create", "{\"name\":\"a\"}"));
  CHECK_STR(code(&c), "capacity");
  CHECK_STR(c.err.engine, "local");
  fake.fail_create = false;

  /* The cancel is heard … */
  fake.create_ms = 50;
  submit(&c, "sandbox.create", "{\"name\":\"a\"}");
  run_ms(5);
  op_cancel(c.op, ERR_CANCELLED);
  finish(&c);
  CHECK_STR(code(&c), "cancelled");
  CHECK_INT(fake.boxes_n, 0);
  /* … or not: the box is made, and killed. */
  fake.ignore_cancel = true;
  submit(&c, "sandbox.create", "{\"name\":\"a\"}");
  run_ms(5);
  op_cancel(c.op, ERR_TIMEOUT);
  finish(&c);
  CHECK_STR(code(&c), "timeout");
  CHECK_INT(fake.boxes_n, 0);
  CHECK_INT(fake.kills, 3);
  /* Nothing of it is left: not the name, not the count. */
  fake.create_ms = 1;
  create("{\"name\":\"a\"}");
  call_clear(&c);
  tear_down();
}

static void caps_and_names(void)
{
  set_up(&(struct supervisor_conf){.max_sandboxes = 3});
  struct call c = {0};
  uint64_t small =
      supervisor_owner_new(sup, &(struct owner_conf){.name = "small.lua", .max_sandboxes = 1});
  submit_as(&c, small, "sandbox.create", "{\"name\":\"db\"}");
  finish(&c);
  CHECK(c.ok);
  CHECK(!submit_as(&c, small, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "limit");
  CHECK(strstr(c.err.msg, "small.lua may have 1 sandboxes") != NULL);
  create("{\"name\":\"db\"}"); /* unique per owner only */
  CHECK(!submit(&c, "sandbox.create", "{\"name\":\"db\"}"));
  CHECK_STR(code(&c), "conflict");
  CHECK_STR(c.err.field, "name");
  CHECK_STR(c.err.sandbox_id, id);
  submit(&c, "sandbox.create", "{}");
  finish(&c);
  CHECK(!submit(&c, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "capacity");
  CHECK(strstr(c.err.msg, "3 sandboxes") != NULL);
  call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  create("{\"name\":\"db\"}");
  call_clear(&c);
  tear_down();
}

static void nothing_asked_is_ignored(void)
{
  set_up(NULL);
  static const struct {
    const char *json, *code, *field;
  } r[] = {
      {"{\"network\":\"open\"}", "unsupported", "network"},
      {"{\"network\":{\"allow\":[\"a.org\"]}}", "unsupported", "network"},
      {"{\"volumes\":[{\"source\":\"d\",\"target\":\"/d\"}]}", "unsupported", "volumes"},
      {"{\"unencrypted_ports\":[80]}", "unsupported", "unencrypted_ports"},
      {"{\"encrypted_ports\":[80]}", "unsupported", "encrypted_ports"},
      {"{\"ready\":{\"tcp\":80}}", "unsupported", "ready"},
      {"{\"gpu\":\"T4\"}", "capacity", "gpu"},
      {"{\"engine\":\"locla\"}", "invalid_argument", "engine"},
      {"{\"image\":\"dir:/srv\"}", "denied", "image"},
      {"{\"timeout\":1.5}", "invalid_argument", "timeout"},
  };
  struct call c = {0};
  for (size_t i = 0; i < sizeof r / sizeof *r; i++) {
    CHECK(!submit(&c, "sandbox.create", "%s", r[i].json));
    CHECK_STR(code(&c), r[i].code);
    CHECK_STR(c.err.field, r[i].field);
  }
  CHECK(!submit(&c, "sandbox.create", "{\"engine\":\"locla\"}"));
  CHECK(strstr(c.err.msg, "did you mean \"local\"") != NULL);
  CHECK_STR(c.err.hint, "engines here: \"local\"");
  submit_as(&c, 0, "sandbox.create", "{\"image\":\"dir:/srv\"}"); /* the host itself may */
  finish(&c);
  CHECK(c.ok);
  call_clear(&c);
  tear_down();
}

static void owners_take_theirs_along(void)
{
  set_up(NULL);
  struct call c[4] = {{0}};
  create("{}");
  submit(&c[0], "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  create("{}");
  fake.create_ms = 30;
  submit(&c[1], "sandbox.create", "{}");
  run_ms(5);
  int ended = 0;
  fake.ignore_cancel = true;
  supervisor_owner_end(sup, owner, count_done, &ended);
  CHECK_INT(ended, 0);
  CHECK(!submit(&c[2], "sandbox.create", "{}"));
  CHECK_STR(code(&c[2]), "cancelled");
  for (int i = 0; i < 20 && !ended; i++) run_ms(10);
  CHECK_INT(ended, 1);
  CHECK_INT(fake.boxes_n, 0);
  CHECK_STR(reason(&c[0]), "terminated");
  CHECK_STR(code(&c[1]), "cancelled");
  /* One without anything ends too, later than the call. */
  uint64_t empty = supervisor_owner_new(sup, &(struct owner_conf){0});
  supervisor_owner_end(sup, empty, count_done, &ended);
  CHECK_INT(ended, 1);
  run_ms(5);
  CHECK_INT(ended, 2);
  for (size_t i = 0; i < 4; i++) call_clear(&c[i]);
  tear_down();
}

static void kills_that_fail(void)
{
  set_up(NULL);
  struct call c = {0};
  create("{}");
  fake.fail_kills = 2;
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_INT(fake.kills, 3);
  call_clear(&c);
  tear_down();
}

static void shutdown_gives_up(void)
{
  set_up(NULL);
  struct call c = {0}, x = {0}, t = {0};
  create("{}");
  submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  fake.never_kill = true;
  submit(&t, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  struct err e = {0};
  supervisor_shutdown(sup, 30, on_closed, &e);
  CHECK(!submit(&c, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "engine_unavailable");
  loop_run(loop);
  CHECK_INT(e.kind, ERR_ENGINE_UNAVAILABLE);
  CHECK(strstr(e.msg, "1 sandboxes have not ended") != NULL);
  CHECK_INT(x.done, 1);
  CHECK_INT(t.done, 1);
  CHECK_STR(code(&x), "engine_unavailable");
  CHECK_INT(ops_in_flight(ops), 0);
  supervisor_free(sup);
  ops_free(ops);
  loop_free(loop);
}

static void lists_and_extends(void)
{
  set_up(NULL);
  struct call c = {0};
  create("{\"tags\":{\"a\":\"1\",\"b\":\"2\"},\"app_id\":\"x\"}");
  create("{\"tags\":{\"a\":\"1\"},\"timeout\":60}");
  static const struct {
    const char *json;
    size_t n;
  } lists[] = {{"{}", 2},
               {"{\"tags\":{\"a\":\"1\"}}", 2},
               {"{\"tags\":{\"a\":\"1\",\"b\":\"2\"}}", 1},
               {"{\"tags\":{\"a\":\"2\"}}", 0},
               {"{\"app_id\":\"x\"}", 1},
               {"{\"state\":\"running\"}", 2},
               {"{\"state\":\"started\"}", 2},
               {"{\"state\":\"pending\"}", 0},
               {"{\"state\":\"terminated\"}", 0},
               {"{\"engine\":\"local\"}", 2}};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    CHECK(call(&c, "sandbox.list", "%s", lists[i].json));
    CHECK_INT(c.result.list.n, lists[i].n);
  }
  CHECK(call(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":\"5m\"}", id));
  CHECK_INT(val_get_int(val_get(&c.result, "config"), "timeout", 0), 360);
  CHECK(!call(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":86041}", id));
  CHECK_STR(c.err.field, "seconds");
  CHECK(strstr(c.err.msg, "86040 more at most") != NULL);
  CHECK(call(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":86040}", id));
  CHECK(!call(&c, "sandbox.detach", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&c), "unsupported");
  CHECK(strstr(c.err.hint, "serve") != NULL);
  CHECK(call(&c, "sandbox.get", "{\"sandbox_id\":\"%s\",\"engine\":\"local\"}", id));
  CHECK(!call(&c, "sandbox.get", "{\"sandbox_id\":\"%s\",\"engine\":\"other\"}", id));
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK(call(&c, "sandbox.list", "{\"state\":\"terminated\"}"));
  CHECK_INT(c.result.list.n, 1);
  CHECK(call(&c, "sandbox.list", "{}"));
  CHECK_INT(c.result.list.n, 1);

  CHECK(call(&c, "sandbox.engines", "{}"));
  CHECK_STR(val_get_str(&c.result.list.v[0], "name", ""), "local");
  CHECK(call(&c, "sandbox.gpus", "{}"));
  CHECK_INT(c.result.list.n, 5);
  CHECK(call(&c, "sandbox.price", "{\"gpu\":\"T4\",\"timeout\":\"90m\"}"));
  CHECK_INT(val_get_int(&c.result, "microusd", -1), 0);
  supervisor_set_priced(sup, "local", true);
  CHECK(call(&c, "sandbox.price", "{\"gpu\":\"T4\",\"timeout\":\"90m\"}"));
  CHECK_INT(val_get_int(&c.result, "microusd", -1), 2250000);
  create("{}");
  CHECK(call(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":3300}", id));
  CHECK(val_get_num(&c.result, "cost", 0) == 0.1);
  call_clear(&c);
  tear_down();
}

static void ended_ids_are_kept_for_a_while(void)
{
  set_up(&(struct supervisor_conf){.retain_ms = 40});
  struct call c = {0};
  create("{}");
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  run_ms(60);
  CHECK(!call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&c), "sandbox_not_found");
  call_clear(&c);
  tear_down();
}

static void entrypoints(void)
{
  set_up(NULL);
  struct call c = {0}, x = {0};
  /* It is no activity, no counted command, and ends the sandbox when it ends. */
  create("{\"entrypoint\":[\"exit\",\"4\",\"60\"]}");
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_INT(val_get_int(&c.result, "commands_executed", -1), 0);
  CHECK(val_get(val_get(&c.result, "config"), "entrypoint") != NULL);
  submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  finish(&x);
  CHECK_STR(reason(&x), "terminated");
  run_ms(20);
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "state", ""), "finished");
  CHECK_STR(val_get_str(&c.result, "status", ""), "terminated");
  CHECK_INT(val_get_int(&c.result, "returncode", -1), 4);
  CHECK(call(&c, "sandbox.list", "{\"state\":\"finished\"}"));
  CHECK_INT(c.result.list.n, 1);

  create("{\"entrypoint\":[\"hang\"],\"idle_timeout\":1}");
  run_ms(1100);
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(reason(&c), "sandbox_timeout");

  fake.refuse_exec = true;
  CHECK(!call(&c, "sandbox.create", "{\"entrypoint\":[\"hang\"]}"));
  CHECK_STR(code(&c), "exec_failed");
  fake.refuse_exec = false;
  create("{\"entrypoint\":[\"badcwd\"]}");
  run_ms(20);
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
  CHECK_STR(code(&c), "sandbox_terminated");
  CHECK(strstr(c.err.msg, "entrypoint could not be started") != NULL);
  call_clear(&c);
  call_clear(&x);
  tear_down();
}

static void detached_sandboxes_live_on(void)
{
  fake_caps = ENGINE_CAP_OUTLIVES_HOST | ENGINE_CAP_ENTRYPOINT;
  set_up(NULL);
  struct call c = {0}, x = {0};
  create("{\"entrypoint\":[\"hang\"]}");
  CHECK_INT(fake.execs_n, 0); /* this engine runs entrypoints itself */
  uint64_t other = supervisor_owner_new(sup, &(struct owner_conf){.name = "other"});
  submit_as(&x, other, "sandbox.create", "{}");
  finish(&x);
  CHECK(call(&c, "sandbox.detach", "{\"sandbox_id\":\"%s\"}", id));
  CHECK(!call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id)); /* no longer its own */
  int ended = 0;
  supervisor_owner_end(sup, owner, count_done, &ended);
  run_ms(5);
  CHECK_INT(ended, 1);
  CHECK_INT(fake.boxes_n, 2);
  char json[128];
  snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  submit_as(&x, 0, "sandbox.exec", json);
  struct err e = {0};
  supervisor_shutdown(sup, 5000, on_closed, &e);
  loop_run(loop);
  CHECK_INT(e.kind, ERR_NONE);
  CHECK_STR(reason(&x), "terminated");
  CHECK_INT(fake.boxes_n, 1); /* the other's was ended, this one was not */
  supervisor_free(sup);
  free(list_entry(fake.boxes.next, struct fbox, node));
  ops_free(ops);
  loop_free(loop);
  call_clear(&c);
  call_clear(&x);
  fake_caps = 0;
}

static struct buf events;

static void on_event(void *data, uint64_t who, const struct val *v)
{
  CHECK(data == &events && who == owner);
  CHECK_STR(val_get_str(v, "owner", ""), "script");
  buf_printf(&events, "%s:%s ", val_get_str(v, "event", "?"), val_get_str(v, "reason", ""));
}

static void events_come_in_order(void)
{
  set_up(NULL);
  struct call c = {0};
  supervisor_subscribe(sup, on_event, &events);
  create("{}");
  call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"0\"]}", id);
  submit(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  struct call t = {0};
  call(&t, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  CHECK_STR(events.data, "sandbox_created: exec_started: exec_done:exited exec_started: "
                         "exec_done:terminated sandbox_ended:terminated ");
  supervisor_unsubscribe(sup, on_event, &events);
  create("{}");
  CHECK(strlen(events.data) < 200);
  buf_free(&events);
  call_clear(&c);
  call_clear(&t);
  tear_down();
}

/* ---- random schedules ---- */

enum { SLOTS = 64 };

static struct call slots[SLOTS];
static char ids[SLOTS][16];
static size_t ids_n;
static int owners_ended;

static void keep_id(struct call *c)
{
  if (c->ok && val_get_str(&c->result, "sandbox_id", NULL) && ids_n < SLOTS)
    snprintf(ids[ids_n++], sizeof ids[0], "%s", val_get_str(&c->result, "sandbox_id", ""));
}

static void random_step(uint64_t *owners, size_t n)
{
  static const char *const commands[] = {
      "\"command\":[\"exit\",\"1\",\"3\"]",
      "\"command\":[\"hang\"]",
      "\"command\":[\"hang\"],\"timeout\":\"3ms\"",
      "\"command\":[\"print\",\"900\"],\"max_output\":\"300B\",\"on_overflow\":\"kill\"",
      "\"command\":[\"print\",\"500\"],\"stream\":true",
      "\"command\":[\"signal\",\"6\"]",
      "\"command\":[\"lost\"]",
      "\"command\":[\"badcwd\"]"};
  struct call *c = &slots[rnd(SLOTS)];
  size_t o = rnd((unsigned)n);
  const char *sb = ids_n ? ids[rnd((unsigned)ids_n)] : "sb_none";
  char json[2048];
  switch (rnd(9)) {
  case 0:
  case 1:
    if (c->op) break;
    c->then = keep_id;
    submit_as(c, owners[o], "sandbox.create",
              rnd(4) ? "{\"timeout\":1}" : "{\"timeout\":1,\"idle_timeout\":1}");
    break;
  case 2:
  case 3:
  case 4:
    if (c->op) break;
    c->then = NULL;
    c->pause_after = rnd(4) == 0 ? 2 : 0;
    snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\",%s}", sb, commands[rnd(8)]);
    submit_as(c, owners[o], "sandbox.exec", json);
    break;
  case 5:
    if (c->op) break;
    c->then = NULL;
    snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\"}", sb);
    submit_as(c, owners[o], rnd(3) ? "sandbox.terminate" : "sandbox.status", json);
    break;
  case 6:
    if (c->op) op_cancel(c->op, rnd(2) ? ERR_CANCELLED : ERR_TIMEOUT);
    break;
  case 7:
    if (c->op) op_flow(c->op, rnd(2));
    break;
  case 8:
    if (rnd(10) == 0) {
      supervisor_owner_end(sup, owners[o], count_done, &owners_ended);
      owners[o] = supervisor_owner_new(sup, &(struct owner_conf){.name = "again"});
    }
    break;
  }
}

static void random_round(unsigned round_seed)
{
  set_up(NULL);
  seed = round_seed;
  fake.random = true;
  fake.end_chance = rnd(40);
  ids_n = 0;
  owners_ended = 0;
  uint64_t owners[3];
  for (size_t i = 0; i < 3; i++)
    owners[i] = supervisor_owner_new(sup, &(struct owner_conf){.name = "many"});
  unsigned steps = 50 + rnd(150);
  for (unsigned i = 0; i < steps; i++) {
    random_step(owners, 3);
    if (rnd(3) == 0) run_ms(rnd(4));
  }
  for (size_t i = 0; i < SLOTS; i++) /* nobody reads any more */
    if (slots[i].op) op_flow(slots[i].op, false);
  tear_down();
  for (size_t i = 0; i < SLOTS; i++) {
    CHECK(slots[i].done <= 1 && !slots[i].op);
    call_clear(&slots[i]);
  }
}

static void random_schedules(void)
{
  const char *fixed = getenv("TEST_SEED"), *rounds = getenv("TEST_ROUNDS");
  unsigned first = fixed ? (unsigned)strtoul(fixed, NULL, 10) : (unsigned)time(NULL);
  int n = fixed ? 1 : rounds ? atoi(rounds) : 12;
  for (int i = 0; i < n && !test_failed_checks; i++) {
    random_round(first + (unsigned)i * 7919u);
    if (test_failed_checks) fprintf(stderr, "TEST_SEED=%u\n", first + (unsigned)i * 7919u);
  }
}

const struct test_case test_cases[] = {
    {"create_exec_terminate", create_exec_terminate},
    {"ops_of_others_are_not_found", ops_of_others_are_not_found},
    {"clocks_end_sandboxes", clocks_end_sandboxes},
    {"exec_time_outs", exec_time_outs},
    {"output_is_bounded", output_is_bounded},
    {"streams_flow_and_input", streams_flow_and_input},
    {"exec_races_terminate", exec_races_terminate},
    {"terminate_twice_at_once", terminate_twice_at_once},
    {"boxes_that_end_by_themselves", boxes_that_end_by_themselves},
    {"creates_fail_and_are_cancelled", creates_fail_and_are_cancelled},
    {"caps_and_names", caps_and_names},
    {"nothing_asked_is_ignored", nothing_asked_is_ignored},
    {"owners_take_theirs_along", owners_take_theirs_along},
    {"kills_that_fail", kills_that_fail},
    {"shutdown_gives_up", shutdown_gives_up},
    {"lists_and_extends", lists_and_extends},
    {"ended_ids_are_kept_for_a_while", ended_ids_are_kept_for_a_while},
    {"entrypoints", entrypoints},
    {"detached_sandboxes_live_on", detached_sandboxes_live_on},
    {"events_come_in_order", events_come_in_order},
    {"random_schedules", random_schedules},
    {0}};

#ifndef REGOLITH_SPEC_SUPERVISOR_WORLD_H
#define REGOLITH_SPEC_SUPERVISOR_WORLD_H

/* A supervisor over the engine in memory, and a client of it: what the tests of the supervisor
 * share. */

#include <stdarg.h>

#include "test.h"

#include "base/json.h"
#include "base/log.h"
#include "core/op.h"
#include "fake_engine.h"
#include "sandbox/supervisor.h"
#include "wire/codec.h"

static struct ops *ops;
static struct supervisor *sup;
static uint64_t owner; /* "script" */

#define MAYBE_UNUSED __attribute__((unused))

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

MAYBE_UNUSED static void call_clear(struct call *c)
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

__attribute__((format(printf, 3, 4))) MAYBE_UNUSED static bool submit(struct call *c,
                                                                      const char *name,
                                                                      const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  char text[2048];
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
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

MAYBE_UNUSED static void finish(struct call *c)
{
  c->then = on_finished;
  for (int i = 0; i < 50 && !c->done; i++) run_ms(100);
  c->then = NULL;
  CHECK_INT(c->done, 1);
}

__attribute__((format(printf, 3, 4))) MAYBE_UNUSED static bool call(struct call *c,
                                                                    const char *name,
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

MAYBE_UNUSED static const char *code(const struct call *c)
{
  return c->ok ? "ok" : err_info(c->err.kind)->code;
}

MAYBE_UNUSED static const char *reason(const struct call *c)
{
  return c->ok ? val_get_str(&c->result, "reason", "none") : code(c);
}

static char id[64];

MAYBE_UNUSED static const char *create(const char *json)
{
  struct call c = {0};
  call(&c, "sandbox.create", "%s", json);
  if (!c.ok) fprintf(stderr, "create failed: %s\n", c.err.msg);
  CHECK(c.ok);
  snprintf(id, sizeof id, "%s", val_get_str(&c.result, "sandbox_id", "?"));
  call_clear(&c);
  return id;
}

MAYBE_UNUSED static void count_done(void *data)
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
  log_set_level(LOG_ERROR); /* kills that fail are warned of, and these do */
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
MAYBE_UNUSED static void tear_down(void)
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

#endif

/* Is a sandbox ready? It is once the port that it was created with accepts connections.
 *
 * The engine is asked again and again, with growing pauses, from the start of the sandbox until the
 * answer is yes or the sandbox ends; yes is for good. Those who wait are answered once: ready, not
 * within their time, or not at all because the sandbox ends. A sandbox that was created without a
 * check is ready as soon as it runs.
 *
 * off → (pause ⇄ probing) → ready or stopped */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "core/op.h"
#include "sandbox/supervisor_internal.h"

#define FIRST_WAIT_MS 5
#define MOST_WAIT_MS  250

struct ready_wait {
  struct list node; /* readiness.waiters */
  struct sandbox *sb;
  struct op *op;
  struct timer late;
  uint64_t timeout_ms;
};

/* ---- those who wait ---- */

static void answer(struct ready_wait *w, const struct err *err)
{
  struct op *op = w->op;
  timer_stop(w->sb->sup->loop, &w->late);
  list_remove(&w->node);
  op->handler_data = NULL;
  if (!err) op->result = sandbox_view(w->sb);
  free(w);
  op_finish(op, err);
}

static void answer_all(struct sandbox *sb, const struct err *err)
{
  struct list *waiters = &sb->readiness.waiters;
  while (!list_empty(waiters)) answer(list_entry(waiters->next, struct ready_wait, node), err);
}

static void not_ready(const struct sandbox *sb, enum err_kind kind, const char *when,
                      struct err *err)
{
  err_set(err, kind, 0, "sandbox %s is not ready%s: nothing in it accepts connections on port %u",
          sb->id, when, (unsigned)sb->args.ready_tcp);
  strcpy(err->sandbox_id, sb->id);
  strcpy(err->engine, sb->engine->name);
  if (sb->args.entrypoint.n > 0) err_hint(err, "sb:status().entrypoint has what it printed");
}

static void on_late(struct timer *t)
{
  struct ready_wait *w = t->data;
  struct err err = {0};
  char when[48];
  snprintf(when, sizeof when, " after %.10g s", (double)w->timeout_ms / 1000);
  not_ready(w->sb, ERR_TIMEOUT, when, &err);
  answer(w, &err);
}

int ready_wait(struct sandbox *sb, struct op *op, uint64_t timeout_ms, struct err *err)
{
  (void)err;
  if (sb->args.ready_tcp == 0 || sb->readiness.ready) {
    op->result = sandbox_view(sb);
    op_finish(op, NULL);
    return 0;
  }
  struct ready_wait *w = xcalloc(1, sizeof *w);
  *w = (struct ready_wait){.sb = sb, .op = op, .timeout_ms = timeout_ms};
  w->late = (struct timer){.cb = on_late, .data = w};
  op->handler_data = w;
  list_append(&sb->readiness.waiters, &w->node);
  if (timeout_ms) timer_start(sb->sup->loop, &w->late, timeout_ms);
  return 0;
}

void ready_wait_cancel(struct op *op)
{
  struct ready_wait *w = op->handler_data;
  struct err err = {0};
  if (!w) return;
  not_ready(w->sb, op->cancel_why, " yet", &err);
  answer(w, &err);
}

/* ---- asking ---- */

static void emit_ready(const struct sandbox *sb)
{
  if (!supervisor_listened(sb->sup)) return;
  struct val v = val_map();
  val_add(&v, "event", val_str("sandbox_ready"));
  val_add(&v, "sandbox_id", val_str(sb->id));
  val_add(&v, "owner", val_str(sb->owner->name));
  val_add(&v, "engine", val_str(sb->engine->name));
  val_add(&v, "duration_ms", val_int((int64_t)(loop_now_ms(sb->sup->loop) - sb->started_ms)));
  supervisor_emit(sb->sup, sb->owner->id, &v);
}

static void ask_later(struct sandbox *sb)
{
  struct readiness *r = &sb->readiness;
  timer_start(sb->sup->loop, &r->again, r->wait_ms);
  r->wait_ms = r->wait_ms * 2 < MOST_WAIT_MS ? r->wait_ms * 2 : MOST_WAIT_MS;
}

static void on_probed(struct probe_op *op, bool open)
{
  struct sandbox *sb = op->data;
  sb->readiness.probing = false;
  if (sb->state != SANDBOX_STARTED) return;
  if (!open) {
    ask_later(sb);
    return;
  }
  sb->readiness.ready = true;
  emit_ready(sb);
  answer_all(sb, NULL);
}

static void ask(struct timer *t)
{
  struct sandbox *sb = t->data;
  struct engine *e = sb->engine->engine;
  struct err err = {0};
  sb->readiness.probe = (struct probe_op){
      .box = sb->create.ret_box, .port = sb->args.ready_tcp, .on_done = on_probed, .data = sb};
  sb->readiness.probing = true;
  if (e->ops->probe(e, &sb->readiness.probe, &err) == 0) return;
  sb->readiness.probing = false;
  log_debug("sandbox %s: asking whether it is ready: %s", sb->id, err.msg);
  ask_later(sb);
}

void ready_init(struct sandbox *sb)
{
  sb->readiness = (struct readiness){.wait_ms = FIRST_WAIT_MS};
  sb->readiness.again = (struct timer){.cb = ask, .data = sb};
  list_init(&sb->readiness.waiters);
}

void ready_start(struct sandbox *sb)
{
  if (sb->args.ready_tcp) ask_later(sb);
}

void ready_stop(struct sandbox *sb)
{
  struct err err = {0};
  timer_stop(sb->sup->loop, &sb->readiness.again);
  if (list_empty(&sb->readiness.waiters)) return;
  if (sb->end != END_NONE)
    sandbox_ended_err(sb, &err);
  else
    err_set(&err, ERR_CANCELLED, 0, "this process is shutting down");
  answer_all(sb, &err);
}

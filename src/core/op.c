/* The op router: names to handlers, deadlines, cancel, and the promise that on_done comes once.
 *
 * Owns the table of handlers and admission hooks; ops belong to their clients and are only linked
 * here while in flight. An op that its handler finishes inside start, or that is finished from the
 * client's own call, completes on the next turn of the loop, so that on_done never comes before
 * op_submit returned and never re-enters a client.
 *
 * new → starting → running → finishing (→ an interposer's on_end → op_end) → done */
#include "core/op.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct op_entry {
  const struct op_handler *handler;
  void *ctx;
  struct op_entry *behind; /* owned; that it was put in front of, or NULL */
};

struct op_admission {
  int (*admit)(struct op *op, void *ctx, struct err *err);
  void *ctx;
};

struct ops {
  struct loop *loop;
  struct op_entry *entries[64]; /* owned; sorted by nothing, few */
  size_t entries_n;
  struct op_entry fallback; /* handler NULL: none */
  struct op_admission admissions[8];
  size_t admissions_n;
  int (*check)(const struct val *v, struct err *err);
  struct list in_flight; /* struct op.node */
  size_t in_flight_n;
  uint64_t next_id;
};

struct ops *ops_new(struct loop *loop)
{
  struct ops *ops = xcalloc(1, sizeof *ops);
  ops->loop = loop;
  ops->next_id = 1;
  list_init(&ops->in_flight);
  return ops;
}

void ops_free(struct ops *ops)
{
  if (!ops) return;
  assert(ops->in_flight_n == 0);
  for (size_t i = 0; i < ops->entries_n; i++)
    for (struct op_entry *e = ops->entries[i], *behind; e; e = behind) {
      behind = e->behind;
      free(e);
    }
  free(ops);
}

void ops_set_check(struct ops *ops, int (*check)(const struct val *, struct err *))
{
  ops->check = check;
}

static const struct op_entry *find(const struct ops *ops, const char *name)
{
  for (size_t i = 0; i < ops->entries_n; i++)
    if (strcmp(ops->entries[i]->handler->name, name) == 0) return ops->entries[i];
  return NULL;
}

void ops_register(struct ops *ops, const struct op_handler *handler, void *ctx)
{
  if (find(ops, handler->name) || ops->entries_n == sizeof ops->entries / sizeof *ops->entries)
    abort();
  struct op_entry *e = xcalloc(1, sizeof *e);
  *e = (struct op_entry){handler, ctx, NULL};
  ops->entries[ops->entries_n++] = e;
}

void ops_interpose(struct ops *ops, const struct op_handler *handler, void *ctx)
{
  size_t i = 0;
  while (i < ops->entries_n && strcmp(ops->entries[i]->handler->name, handler->name) != 0) i++;
  if (i == ops->entries_n) abort();
  struct op_entry *e = xcalloc(1, sizeof *e);
  *e = (struct op_entry){handler, ctx, ops->entries[i]};
  ops->entries[i] = e;
}

void ops_set_fallback(struct ops *ops, const struct op_handler *handler, void *ctx)
{
  ops->fallback = (struct op_entry){handler, ctx, NULL};
}

bool ops_has(const struct ops *ops, const char *name)
{
  return find(ops, name) != NULL;
}

size_t ops_in_flight(const struct ops *ops)
{
  return ops->in_flight_n;
}

void ops_add_admission(struct ops *ops, int (*admit)(struct op *, void *, struct err *), void *ctx)
{
  if (ops->admissions_n == sizeof ops->admissions / sizeof *ops->admissions) abort();
  ops->admissions[ops->admissions_n++] = (struct op_admission){admit, ctx};
}

struct op *op_new(const char *name)
{
  struct op *op = xcalloc(1, sizeof *op);
  snprintf(op->name, sizeof op->name, "%s", name);
  return op;
}

void op_free(struct op *op)
{
  if (!op) return;
  assert(op->state == OP_NEW || op->state == OP_DONE);
  val_free(&op->args);
  val_free(&op->result);
  free(op);
}

static const struct err *end_of(const struct op *op)
{
  return op->finish_err.kind == ERR_NONE ? NULL : &op->finish_err;
}

static void complete(struct defer *d)
{
  struct op *op = d->data;
  struct ops *ops = op->ops;
  timer_stop(ops->loop, &op->deadline);
  op_end_fn *on_end = op->on_end;
  if (on_end) {
    op->on_end = NULL;
    on_end(op, &op->finish_err, op->on_end_data);
    if (op->client->on_ending) op->client->on_ending(op, end_of(op));
    return;
  }
  list_remove(&op->node);
  ops->in_flight_n--;
  op->state = OP_DONE;
  if (ops->check && op->finish_err.kind == ERR_NONE) ops->check(&op->result, &op->finish_err);
  op->client->on_done(op, end_of(op));
}

void op_finish(struct op *op, const struct err *err)
{
  assert(op->state == OP_STARTING || op->state == OP_RUNNING);
  if (err) op->finish_err = *err;
  op->state = OP_FINISHING;
  loop_defer(op->ops->loop, &op->finish);
}

void op_on_end(struct op *op, op_end_fn *fn, void *data)
{
  assert(!op->on_end);
  op->on_end = fn;
  op->on_end_data = data;
}

void op_end(struct op *op)
{
  assert(op->state == OP_FINISHING && !op->on_end);
  loop_defer(op->ops->loop, &op->finish);
}

void op_pass(struct op *op)
{
  assert(op->state == OP_STARTING || op->state == OP_RUNNING);
  struct err err = {0};
  op->entry = op->entry->behind;
  assert(op->entry);
  op->handler_data = NULL;
  int rc = 0;
  if (op->cancel_why != ERR_NONE)
    rc = err_set(&err, op->cancel_why, 0, "%s was cancelled before it started", op->name);
  if (rc == 0) rc = op->entry->handler->start(op, op->entry->ctx, &err);
  if (rc < 0) op_finish(op, &err);
}

static void on_deadline(struct timer *t)
{
  op_cancel(t->data, ERR_TIMEOUT);
}

static int admit(struct ops *ops, struct op *op, struct err *err)
{
  for (size_t i = 0; i < ops->admissions_n; i++) {
    int rc = ops->admissions[i].admit(op, ops->admissions[i].ctx, err);
    if (rc < 0) return rc;
  }
  return 0;
}

int op_submit(struct ops *ops, struct op *op, struct err *err)
{
  assert(op->state == OP_NEW && op->client && op->client->on_done);
  const struct op_entry *entry = find(ops, op->name);
  if (!entry && ops->fallback.handler) entry = &ops->fallback;
  if (!entry) return err_set(err, ERR_UNSUPPORTED, 0, "nothing here answers \"%s\"", op->name);
  int rc = ops->check ? ops->check(&op->args, err) : 0;
  if (rc == 0) rc = admit(ops, op, err);
  if (rc < 0) return rc;
  op->ops = ops;
  op->entry = entry;
  op->id = ops->next_id++;
  op->state = OP_STARTING;
  op->deadline = (struct timer){.cb = on_deadline, .data = op};
  op->finish = (struct defer){.cb = complete, .data = op};
  list_append(&ops->in_flight, &op->node);
  ops->in_flight_n++;
  rc = entry->handler->start(op, entry->ctx, err);
  if (rc < 0) {
    assert(op->state == OP_STARTING);
    list_remove(&op->node);
    ops->in_flight_n--;
    op->state = OP_NEW;
    return rc;
  }
  if (op->state == OP_STARTING) op->state = OP_RUNNING;
  if (op->timeout_ms && op->state == OP_RUNNING)
    timer_start(ops->loop, &op->deadline, op->timeout_ms);
  return 0;
}

void op_cancel(struct op *op, enum err_kind why)
{
  if (op->state != OP_RUNNING || op->cancel_why != ERR_NONE) return;
  op->cancel_why = why;
  if (op->entry->handler->cancel) op->entry->handler->cancel(op, op->entry->ctx);
}

int op_input(struct op *op, const void *data, size_t len, struct err *err)
{
  if (op->state != OP_RUNNING) return err_set(err, ERR_CONFLICT, 0, "%s has ended", op->name);
  if (!op->entry->handler->input)
    return err_set(err, ERR_UNSUPPORTED, 0, "%s takes no input", op->name);
  op->entry->handler->input(op, op->entry->ctx, data, len);
  return 0;
}

void op_flow(struct op *op, bool paused)
{
  if (op->state == OP_RUNNING && op->entry->handler->flow)
    op->entry->handler->flow(op, op->entry->ctx, paused);
}

void op_chunk(struct op *op, enum op_stream stream, const void *data, size_t len)
{
  assert(op->state == OP_STARTING || op->state == OP_RUNNING);
  if (op->client->on_chunk) op->client->on_chunk(op, stream, data, len);
}

void op_input_full(struct op *op, bool full)
{
  if (op->state == OP_RUNNING && op->client->on_input_full) op->client->on_input_full(op, full);
}

/* What the engine says of a sandbox that lives elsewhere.
 *
 * A status of one asks the engine: it may have been ended there, or used by others. While a
 * question is under way, whoever asks again waits for the same answer. What cannot be asked is an
 * error, never what was known before; a sandbox that turns out to have ended is an answer.
 *
 * idle ⇄ asking */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "core/op.h"
#include "sandbox/supervisor_internal.h"

struct look_wait {
  struct list node; /* looking.waiters */
  struct sandbox *sb;
  struct op *op;
};

static void answer(struct look_wait *w, const struct err *err)
{
  struct op *op = w->op;
  list_remove(&w->node);
  op->handler_data = NULL;
  if (!err) op->result = sandbox_view(w->sb);
  free(w);
  op_finish(op, err);
}

static void on_looked(struct look_op *look, const struct err *err)
{
  struct sandbox *sb = look->data;
  struct looking *l = &sb->looking;
  struct err why = {0};
  l->asking = false;
  if (!err) {
    l->expires_s = look->ret_expires_s;
    int64_t more = look->ret_commands - (int64_t)sb->commands;
    l->others = more > 0 ? (uint64_t)more : 0;
  }
  if (err && sb->end == END_NONE) {
    why = *err;
    strcpy(why.sandbox_id, sb->id);
    strcpy(why.engine, sb->engine->name);
  }
  while (!list_empty(&l->waiters))
    answer(list_entry(l->waiters.next, struct look_wait, node), why.kind == ERR_NONE ? NULL : &why);
}

bool look_wanted(const struct sandbox *sb)
{
  return sb->engine->engine->ops->look && sb->state == SANDBOX_STARTED && sb->end == END_NONE;
}

int look_wait(struct sandbox *sb, struct op *op, struct err *err)
{
  struct looking *l = &sb->looking;
  struct engine *e = sb->engine->engine;
  if (!l->asking) {
    l->op = (struct look_op){.box = sb->create.ret_box, .on_done = on_looked, .data = sb};
    int rc = e->ops->look(e, &l->op, err);
    if (rc < 0) return rc;
    l->asking = true;
  }
  struct look_wait *w = xcalloc(1, sizeof *w);
  *w = (struct look_wait){.sb = sb, .op = op};
  op->handler_data = w;
  list_append(&l->waiters, &w->node);
  return 0;
}

void look_wait_cancel(struct op *op)
{
  struct look_wait *w = op->handler_data;
  struct err err = {0};
  if (!w) return;
  err_set(&err, op->cancel_why, 0, "engine \"%s\" has not said how sandbox %s is",
          w->sb->engine->name, w->sb->id);
  answer(w, &err);
}

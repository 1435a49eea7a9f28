/* Sandboxes of the server: made, ended, and known by the ids that it gives them.
 *
 * A create that was cancelled is waited for all the same, because only its answer has the id to end
 * the sandbox by; it carries an Idempotency-Key, so that a lost answer can be asked for again where
 * the server honours it. One that was there before us is asked after instead, and nothing of it is
 * ended but what we run in it. What the caller left open is left open to the server, whose answer
 * says what it took. An id is opaque: text of up to 63 printable characters.
 *
 * creating → alive → ending → gone */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "engine/remote/remote_internal.h"
#include "wire/compute.h"
#include "wire/op.h"

enum {
  CREATE_MS = 600 * 1000, /* all tries: a server that pulls an image says when to come back */
  STALL_MS = 90 * 1000,   /* it waits for 55 s at most */
  STATUS_MS = 20 * 1000,
  CHECK_MS = 10 * 1000,
  LEAVE_MS = 3000, /* for the server's word about what ran in a sandbox that is gone */
  TERMINATE_MS = 20 * 1000
};

void remote_look_drop(struct engine_box *b)
{
  if (b->looking) b->looking->conf.data = NULL;
  b->look = NULL;
  b->looking = NULL;
}

static void end_look(struct engine_box *b)
{
  struct look_op *op = b->look;
  struct err why = {0};
  if (!op) return;
  err_set(&why, ERR_CANCELLED, ECANCELED, "sandbox %s has ended", b->id);
  remote_call_abort(b->looking, &why);
  remote_look_drop(b);
  op->on_done(op, &why);
}

void remote_box_free(struct engine_box *b)
{
  end_look(b);
  remote_runs_leave(b, LEAVE_MS);
  loop_defer_cancel(b->e->loop, &b->leaving);
  loop_defer_cancel(b->e->loop, &b->cancelled);
  list_remove(&b->node);
  free(b);
}

bool remote_box_gone(struct engine_box *b, int status)
{
  if (status != 404 && status != 408 && status != 410) return false;
  if (b->over || b->kill) return true;
  b->over = true;
  b->create->on_end(b->create->data, status == 408   ? BOX_END_LIFE
                                     : status == 410 ? BOX_END_TERMINATED
                                                     : BOX_END_LOST);
  return true;
}

/* ---- create ---- */

static bool good_id(const char *id)
{
  size_t len = strlen(id);
  for (const char *p = id; *p; p++)
    if (*p <= ' ' || *p > '~') return false;
  return len > 0 && len < REMOTE_ID_SIZE;
}

/* What nobody asked for, and nothing lowered, is the server's to choose; but never how long it
 * lives and, where the server has a say in it, what it may connect to. */
static void leave_open(const struct remote *e, struct val *body, const struct val *asked)
{
  struct create_args none;
  struct val empty = val_map();
  if (!asked || create_args_parse(&empty, &(struct create_defaults){0}, &none, NULL) < 0) return;
  struct val plain = compute_create_body(&none);
  for (size_t i = 0; i < plain.map.n; i++) {
    const struct val_pair *p = &plain.map.v[i];
    const struct val *said = val_get(body, p->key);
    bool network = strcmp(p->key, "network") == 0 && !e->few_fields;
    if (network || strcmp(p->key, "timeout") == 0) continue;
    if (!val_get(asked, p->key) && said && val_equal(said, &p->val)) val_remove(body, p->key);
  }
  val_free(&plain);
  create_args_free(&none);
}

/* A server that gives an id twice must not make us end the other sandbox. */
static bool id_is_known(const struct remote *e, const char *id)
{
  LIST_FOREACH (it, &e->boxes)
    if (strcmp(list_entry(it, struct engine_box, node)->id, id) == 0) return true;
  return false;
}

static void fail_create(struct engine_box *b, const struct err *why)
{
  struct create_op *op = b->create;
  remote_box_free(b);
  op->on_done(op, why);
}

static void on_created(struct remote_call *c, const struct err *err, int status,
                       const struct val *answer)
{
  struct engine_box *b = c->conf.data;
  struct create_op *op = b->create;
  const char *id = val_get_str(answer, "sandbox_id", "");
  struct err why = {0};
  b->creating = NULL;
  if (err) {
    why = *err;
    if (status == 0 && c->sent) {
      remote_orphans_add(b->e, b->idem);
      err_hint(&why, "nobody knows whether it was made; if so, it ends after %u s by itself",
               op->args->timeout_s);
    } else {
      remote_journal_over(b->e, b->idem);
    }
  } else if (!good_id(id) || id_is_known(b->e, id)) {
    err_set(&why, ERR_ENGINE_UNAVAILABLE, EPROTO,
            "the server's answer to create has no sandbox_id of its own");
  }
  if (why.kind != ERR_NONE) {
    fail_create(b, &why);
    return;
  }
  strcpy(b->id, id);
  strcpy(op->ret_id, id);
  remote_journal_made(b->e, b->idem, id);
  op->ret_config = val_get(answer, "config");
  op->ret_box = b;
  op->on_done(op, NULL);
  op->ret_config = NULL;
}

/* A server that takes few fields has no list to find it in. */
static void add_tag(const struct remote *e, struct val *body, const char *key)
{
  if (e->few_fields) return;
  if (!val_get(body, "tags")) val_add(body, "tags", val_map());
  val_set(val_get_mut(body, "tags"), REMOTE_TAG, val_str(key));
}

static struct engine_box *box_new(struct remote *e, struct create_op *op)
{
  struct engine_box *b = xcalloc(1, sizeof *b);
  b->e = e;
  b->create = op;
  list_init(&b->runs);
  list_init(&b->node);
  return b;
}

static int start_create(struct engine_box *b, struct err *err)
{
  struct remote *e = b->e;
  const struct create_op *op = b->create;
  id_random(b->idem, sizeof b->idem - 1);
  struct val body = compute_create_body(op->args);
  leave_open(e, &body, op->asked);
  add_tag(e, &body, b->idem);
  remote_journal_begin(e, b->idem, op->args->timeout_s);
  int rc = remote_call_start(e,
                             &(struct remote_call_conf){.op = "create",
                                                        .body = &body,
                                                        .idem = b->idem,
                                                        .again = REMOTE_REPLAY,
                                                        .total_ms = CREATE_MS,
                                                        .stall_ms = STALL_MS,
                                                        .on_done = on_created,
                                                        .data = b},
                             &b->creating, err);
  val_free(&body);
  if (rc < 0) remote_journal_over(e, b->idem);
  return rc;
}

/* ---- one that is there ---- */

/* An answer may say that it is not. */
static bool has_ended(const struct val *answer)
{
  const char *status = val_get_str(answer, "status", ""), *state = val_get_str(answer, "state", "");
  return strcmp(status, "terminated") == 0 || strcmp(state, "terminated") == 0 ||
         strcmp(state, "finished") == 0;
}

static void on_adopted(struct remote_call *c, const struct err *err, int status,
                       const struct val *answer)
{
  struct engine_box *b = c->conf.data;
  struct create_op *op = b->create;
  struct err why = {0};
  (void)status;
  b->creating = NULL;
  if (!err && has_ended(answer)) {
    err_set(&why, ERR_SANDBOX_TERMINATED, 0, "sandbox %s has ended", b->id);
    err = &why;
  }
  if (err) {
    fail_create(b, err);
    return;
  }
  op->ret_box = b;
  op->ret_config = val_get(answer, "config");
  op->ret_created_s = compute_read_time(val_get_str(answer, "created_at", ""));
  op->ret_expires_s = compute_read_time(val_get_str(answer, "expires_at", ""));
  op->ret_commands = val_get_int(answer, "commands_executed", -1);
  op->on_done(op, NULL);
  op->ret_config = NULL;
}

static int ask_status(struct engine_box *b,
                      void (*on_done)(struct remote_call *c, const struct err *err, int status,
                                      const struct val *answer),
                      struct remote_call **ret, struct err *err)
{
  struct remote_call_conf conf = {
      .op = "status", .again = REMOTE_SAFE, .total_ms = STATUS_MS, .on_done = on_done, .data = b};
  return remote_call_about(b->e, b->id, conf, ret, err);
}

static int start_adopt(struct engine_box *b, struct err *err)
{
  const char *id = b->create->sandbox_id;
  if (!good_id(id)) return err_set(err, ERR_SANDBOX_NOT_FOUND, 0, "there is no such sandbox");
  strcpy(b->id, id);
  return ask_status(b, on_adopted, &b->creating, err);
}

int remote_create(struct remote *e, struct create_op *op, struct err *err)
{
  struct engine_box *b = box_new(e, op);
  int rc = op->adopt ? start_adopt(b, err) : start_create(b, err);
  if (rc < 0) {
    free(b);
    return rc;
  }
  op->engine_data = b;
  list_append(&e->boxes, &b->node);
  return 0;
}

static void on_cancelled(struct defer *d)
{
  struct engine_box *b = d->data;
  struct kill_op *op = take_ptr(&b->cancel);
  struct remote_call *c = b->creating;
  struct err why = {0};
  bool adopt = b->create->adopt;
  op->on_done(op, NULL);
  err_set(&why, ERR_CANCELLED, ECANCELED, "the create was cancelled");
  if (c && adopt) remote_call_abort(c, &why); /* there is nothing of it to end */
  if (c && !adopt) remote_call_last(c, &why);
}

int remote_cancel(struct create_op *create, struct kill_op *op, struct err *err)
{
  struct engine_box *b = create->engine_data;
  (void)err;
  b->cancel = op;
  b->cancelled = (struct defer){.cb = on_cancelled, .data = b};
  loop_defer(b->e->loop, &b->cancelled);
  return 0;
}

/* ---- how it is ---- */

static bool tell_end(struct engine_box *b, const struct val *answer)
{
  const char *state = val_get_str(answer, "state", ""), *reason = val_get_str(answer, "reason", "");
  if (!has_ended(answer)) return false;
  if (strcmp(state, "finished") == 0 && !b->over) {
    b->over = true;
    b->create->ret_entry_code = (int)val_get_int(answer, "returncode", -1);
    b->create->on_end(b->create->data, BOX_END_ENTRYPOINT);
    return true;
  }
  return remote_box_gone(b, strcmp(reason, "sandbox_timeout") == 0 ? 408 : 410);
}

static void on_looked(struct remote_call *c, const struct err *err, int status,
                      const struct val *answer)
{
  struct engine_box *b = c->conf.data;
  struct err ended = {0};
  if (!b) return;
  struct look_op *op = take_ptr(&b->look);
  b->looking = NULL;
  if (err) {
    remote_box_gone(b, status);
  } else if (tell_end(b, answer)) {
    err_set(&ended, ERR_SANDBOX_TERMINATED, 0, "sandbox %s has ended", b->id);
    err = &ended;
  } else {
    op->ret_expires_s = compute_read_time(val_get_str(answer, "expires_at", ""));
    op->ret_commands = val_get_int(answer, "commands_executed", -1);
  }
  op->on_done(op, err);
}

int remote_look(struct engine_box *b, struct look_op *op, struct err *err)
{
  int rc = ask_status(b, on_looked, &b->looking, err);
  if (rc == 0) b->look = op;
  return rc;
}

/* ---- whether the server is there ---- */

static void on_checked(struct remote_call *c, const struct err *err, int status,
                       const struct val *answer)
{
  struct check_op *op = c->conf.data;
  (void)answer;
  op->on_done(op, status == 404 ? NULL : err);
}

/* Its list of sandboxes costs nothing; where there is none, it is asked about a sandbox that it
 * does not have, and says so. */
int remote_check(struct remote *e, struct check_op *op, struct err *err)
{
  cleanup_free char *list = remote_list_url(e);
  struct remote_call *c;
  struct remote_call_conf conf = {.op = list ? list : "status",
                                  .again = REMOTE_SAFE,
                                  .total_ms = CHECK_MS,
                                  .on_done = on_checked,
                                  .data = op};
  return list ? remote_call_start(e, &conf, &c, err)
              : remote_call_about(e, "sb_0000000000", conf, &c, err);
}

/* ---- the end ---- */

static void on_terminated(struct remote_call *c, const struct err *err, int status,
                          const struct val *answer)
{
  struct engine_box *b = c->conf.data;
  struct kill_op *op = b->kill;
  (void)answer;
  if (err && !remote_box_gone(b, status)) {
    b->kill = NULL;
    op->on_done(op, err);
    return;
  }
  remote_journal_over(b->e, b->idem);
  remote_box_free(b);
  op->on_done(op, NULL);
}

int remote_terminate(struct engine_box *b, struct kill_op *op, struct err *err)
{
  struct remote_call *c;
  struct remote_call_conf conf = {.op = "terminate",
                                  .again = REMOTE_SAFE,
                                  .total_ms = TERMINATE_MS,
                                  .on_done = on_terminated,
                                  .data = b};
  int rc = remote_call_about(b->e, b->id, conf, &c, err);
  if (rc == 0) b->kill = op;
  return rc;
}

static void on_left(struct defer *d)
{
  struct engine_box *b = d->data;
  struct kill_op *op = b->kill;
  remote_runs_leave(b, 0);
  remote_box_free(b);
  op->on_done(op, NULL);
}

int remote_leave(struct engine_box *b, struct kill_op *op, struct err *err)
{
  (void)err;
  b->kill = op;
  b->leaving = (struct defer){.cb = on_left, .data = b};
  loop_defer(b->e->loop, &b->leaving);
  return 0;
}

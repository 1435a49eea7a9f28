/* One command in a sandbox of the server.
 *
 * Its output is asked for as a stream, and exact; a server that answers at once with all of it is
 * as welcome. The connection is the command's life: whoever leaves cancels it (our own server does
 * so, and waits for its end). A time-out is the server's to keep, since it was told; only when its
 * answer does not come is the connection closed. An answer that was lost after the request had left
 * is an outcome nobody knows, never an exit code.
 *
 * running → (leaving) → done */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/remote/remote_internal.h"
#include "wire/compute.h"
#include "wire/op.h"

enum {
  LATE_MS = 5000,             /* how long the server's own word about a time-out is waited for */
  STALL_MS = 90 * 1000 * 1000 /* a server without a stream says nothing until the command ends */
};

struct run {
  struct list node;       /* engine_box.runs */
  struct engine_box *box; /* NULL: gone */
  struct remote *e;
  struct exec_op *op;
  struct remote_call *call;
  struct kill_op *kill; /* to be answered with the end */
  struct timer patience;
  uint64_t started_ms;
  bool ran;         /* the server has told something of it */
  bool told;        /* … how it ended: outcome or err is set */
  struct outcome o; /* owned */
  struct err err;
  int status; /* the HTTP status that err stands for */
};

/* ---- how it ended ---- */

static void pass_on(struct exec_op *op, enum exec_stream which, const char *text, size_t len)
{
  if (text && len > 0) op->on_chunk(op, which, text, len);
}

static uint64_t left_out(uint64_t total, size_t kept, bool truncated)
{
  uint64_t n = total > kept ? total - kept : 0;
  return truncated && n == 0 ? 1 : truncated ? n : 0;
}

static void fill(struct exec_op *op, const struct outcome *o)
{
  op->ret_duration_us = o->duration_ms * 1000;
  op->ret_cpu_us = o->cpu_ms * 1000;
  op->ret_max_rss_kib = (uint64_t)o->max_rss_mib * 1024;
  op->ret_left_out[0] = left_out(o->out_bytes, o->out_len, o->out_truncated);
  op->ret_left_out[1] = left_out(o->err_bytes, o->err_len, o->err_truncated);
  op->ret_end = EXEC_END_LOST;
  switch (o->reason) {
  case REASON_EXITED:
    op->ret_end = EXEC_END_EXITED;
    op->ret_code = o->exit_code;
    break;
  case REASON_SIGNAL:
    op->ret_end = o->signal ? EXEC_END_SIGNAL : EXEC_END_LOST;
    op->ret_code = o->signal;
    break;
  case REASON_TIMEOUT: op->ret_end = EXEC_END_TIMEOUT; break;
  case REASON_OOM: op->ret_end = EXEC_END_OOM; break;
  case REASON_OUTPUT_LIMIT:
  case REASON_TERMINATED:
  case REASON_SANDBOX_TIMEOUT:
  case REASON_CANCELLED:
  case REASON_UNKNOWN: break;
  }
}

/* A command that its sandbox's end has ended is how we learn of that end. */
static void tell_end(const struct run *r)
{
  if (r->box && r->o.reason == REASON_SANDBOX_TIMEOUT) remote_box_gone(r->box, 408);
  if (r->box && r->o.reason == REASON_TERMINATED) remote_box_gone(r->box, 410);
}

static void finish(struct run *r, const struct err *err)
{
  struct exec_op *op = r->op;
  struct kill_op *kill = r->kill;
  timer_stop(r->e->loop, &r->patience);
  if (!err) tell_end(r);
  list_remove(&r->node);
  if (!err) fill(op, &r->o);
  outcome_free(&r->o);
  free(r);
  op->on_done(op, err);
  if (kill) kill->on_done(kill, NULL);
}

/* Whether the command may have run, by what the request came to. */
static bool may_have_run(const struct run *r, const struct remote_call *c, int status)
{
  if (r->ran) return true;
  if (status == 0) return c->sent;
  return status < 400 || status == 502 || status == 504 || status > 504;
}

/* It ran, and how it ended is not known: what was printed so far stays. */
static void finish_unknown(struct run *r, const struct err *why)
{
  if (!r->kill && r->box && !r->box->over && !r->box->kill)
    log_warn("sandbox %s: how a command ended is not known: %s", r->box->id, why->msg);
  r->o.reason = REASON_UNKNOWN;
  r->o.duration_ms = loop_now_ms(r->e->loop) - r->started_ms;
  finish(r, NULL);
}

/* An error's answer may carry what the command had printed when its sandbox ended. */
static bool read_partial(struct run *r, const struct val *answer)
{
  outcome_free(&r->o);
  if (!val_get(answer, "reason") && !val_get(answer, "duration_ms")) return false;
  uint64_t ms = loop_now_ms(r->e->loop) - r->started_ms;
  return compute_read_exec(answer, ms, &r->o, NULL) == 0;
}

static void tell_output(const struct run *r)
{
  pass_on(r->op, EXEC_STDOUT, r->o.out, r->o.out_len);
  pass_on(r->op, EXEC_STDERR, r->o.err, r->o.err_len);
}

static void on_failed(struct run *r, const struct remote_call *c, const struct err *err, int status,
                      const struct val *answer)
{
  bool partial = read_partial(r, answer);
  bool gone = r->box && remote_box_gone(r->box, status);
  if (partial) {
    tell_output(r);
    finish(r, NULL);
  } else if (gone && !r->ran) {
    finish(r, err);
  } else if (may_have_run(r, c, status)) {
    finish_unknown(r, err);
  } else {
    finish(r, err);
  }
}

static void on_done(struct remote_call *c, const struct err *err, int status,
                    const struct val *answer)
{
  struct run *r = c->conf.data;
  struct err own = {0};
  r->call = NULL;
  if (c->is_events && r->told) {
    if (r->err.kind != ERR_NONE)
      on_failed(r, c, &r->err, r->status, answer);
    else
      finish(r, NULL);
  } else if (c->is_events) {
    err_set(&own, ERR_ENGINE_UNAVAILABLE, EPROTO, "the server's stream ended early");
    finish_unknown(r, err ? err : &own);
  } else if (err) {
    on_failed(r, c, err, status, answer);
  } else if (compute_read_exec(answer, loop_now_ms(r->e->loop) - r->started_ms, &r->o, &own) < 0) {
    finish_unknown(r, &own);
  } else {
    tell_output(r);
    finish(r, NULL);
  }
}

/* ---- as it runs ---- */

static void bad_event(struct run *r)
{
  struct err err = {0};
  err_set(&err, ERR_ENGINE_UNAVAILABLE, EPROTO, "the server's stream is not what it should be");
  remote_call_abort(r->call, &err);
}

static void on_output(struct run *r, enum exec_stream which, const struct val *data)
{
  const struct val *text = val_get(data, "data");
  struct buf bytes = {0};
  if (text && text->type == VAL_STR && base64_decode(&bytes, text->s.p, text->s.len))
    pass_on(r->op, which, bytes.data, bytes.len);
  else
    bad_event(r);
  buf_free(&bytes);
}

static void on_event(struct remote_call *c, const char *name, const struct val *data)
{
  struct run *r = c->conf.data;
  r->ran = true;
  if (r->told || c->aborted) return;
  if (strcmp(name, "stdout") == 0) {
    on_output(r, EXEC_STDOUT, data);
  } else if (strcmp(name, "stderr") == 0) {
    on_output(r, EXEC_STDERR, data);
  } else if (strcmp(name, "exit") == 0) {
    r->told = true;
    if (compute_read_exec(data, loop_now_ms(r->e->loop) - r->started_ms, &r->o, NULL) < 0)
      r->o = (struct outcome){.reason = REASON_UNKNOWN};
    r->o.out_truncated = r->o.err_truncated = false; /* all of it was sent */
  } else if (strcmp(name, "error") == 0) {
    r->told = true;
    compute_read_error(500, data, &r->err);
    r->status = err_info(r->err.kind)->http_status;
  }
}

int remote_exec(struct engine_box *b, struct exec_op *op, struct err *err)
{
  struct run *r = xcalloc(1, sizeof *r);
  *r = (struct run){.box = b, .e = b->e, .op = op, .started_ms = loop_now_ms(b->e->loop)};
  list_init(&r->node);
  struct val body = compute_exec_body(b->id, op->args);
  int rc = remote_call_start(b->e,
                             &(struct remote_call_conf){.op = "exec",
                                                        .body = &body,
                                                        .again = REMOTE_ONCE,
                                                        .stall_ms = STALL_MS,
                                                        .events = true,
                                                        .on_event = on_event,
                                                        .on_done = on_done,
                                                        .data = r},
                             &r->call, err);
  val_free(&body);
  if (rc < 0) {
    free(r);
    return rc;
  }
  op->engine_data = r;
  list_append(&b->runs, &r->node);
  return 0;
}

void remote_exec_flow(struct exec_op *x, bool paused)
{
  struct run *r = x->engine_data;
  if (r->call) remote_call_pause(r->call, paused);
}

/* ---- leaving it ---- */

static void on_impatient(struct timer *t)
{
  struct run *r = t->data;
  struct err err = {0};
  err_set(&err, ERR_CANCELLED, ECANCELED, "the command was left");
  remote_call_abort(r->call, &err);
}

static void leave_in(struct run *r, uint64_t ms)
{
  r->patience.cb = on_impatient;
  r->patience.data = r;
  timer_start(r->e->loop, &r->patience, ms);
}

int remote_exec_kill(struct exec_op *x, struct kill_op *op, struct err *err)
{
  struct run *r = x->engine_data;
  uint64_t ran_ms = loop_now_ms(r->e->loop) - r->started_ms;
  bool late = x->args->timeout_ms && ran_ms + 50 >= x->args->timeout_ms;
  if (op->signal)
    return err_set(err, ERR_UNSUPPORTED, 0, "the API has no signals for a running command");
  r->kill = op;
  remote_call_pause(r->call, false);
  leave_in(r, late ? LATE_MS : 0);
  return 0;
}

void remote_runs_leave(struct engine_box *b, uint64_t ms)
{
  LIST_FOREACH_SAFE (it, &b->runs) {
    struct run *r = list_entry(it, struct run, node);
    list_remove(&r->node);
    r->box = NULL;
    leave_in(r, ms);
  }
}

void remote_runs_drop(struct engine_box *b)
{
  LIST_FOREACH_SAFE (it, &b->runs) {
    struct run *r = list_entry(it, struct run, node);
    timer_stop(r->e->loop, &r->patience);
    list_remove(&r->node);
    outcome_free(&r->o);
    free(r);
  }
}

/* The host's side of one worker process: a script that runs elsewhere, seen as if it ran here.
 *
 * Owns the socket to the worker, the map from the worker's op ids to ops of this process, and the
 * decision when it is over. What the worker says is hostile: an unknown frame, an op id used twice
 * or an oversized frame ends it at once. Nothing it says can name another script's ops or
 * sandboxes, because the owner is set here.
 *
 * The end has three parts that come in any order: its last words (END, if it is well), its exit, as
 * the nursery reports it, and the completion of the ops it left behind, which are cancelled.
 * on_done follows when all are in. A cancelled worker has its grace period plus a second; then it
 * is killed, whatever it is doing.
 *
 * idle → running → ending (END read, or socket closed, or killed) → done */
#include "host/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/idmap.h"
#include "base/val.h"
#include "core/channel.h"
#include "core/loop.h"
#include "core/op.h"
#include "host/nursery.h"
#include "host/runner.h"
#include "wire/frame.h"
#include "wire/op.h"

enum {
  MAX_FRAME = 64 << 20,  /* bytes a worker may send at once: an exec with a long stdin */
  MAX_BACKLOG = 1 << 20, /* bytes waiting for the worker before its streams pause */
  DEFAULT_IN_FLIGHT = 20000,
  DEFAULT_ANSWER_MS = 30000,
  KILL_SLACK_MS = 1000, /* beyond the grace period, for the last words */
  DEFAULT_GRACE_MS = 10000
};

struct worker {
  struct script_conf conf; /* strings copied; loop, ops and hooks are the caller's */
  struct runner_limits limits;
  struct val start; /* the START frame's body, until it is sent */
  struct nursery_child child;
  struct channel *channel; /* NULL once closed */
  struct idmap ops;        /* the worker's id → struct op, in flight here */
  bool started, ended, said_end, exited, channel_closed, done;
  struct nursery_exit how; /* valid once exited */
  bool killed;             /* by us: its signal is no crash */
  bool streams_paused;     /* its backlog is over MAX_BACKLOG */
  bool held;
  struct timer kill_timer;
  struct timer ping_timer;
  uint64_t heard_ms; /* monotonic: when it last said anything, or could not */
  char where[300];   /* file:line where it last was seen computing */
  struct script_result result;
  struct script_stats stats;
  char *traceback; /* owned; result.traceback points here */
  struct defer finish;
};

static int send_frame(struct worker *w, const struct frame *f, struct err *err)
{
  if (!w->channel) return 0;
  struct buf out = {0};
  int rc = frame_encode(&out, f, err);
  if (rc == 0) channel_send(w->channel, out.data, out.len);
  buf_free(&out);
  return rc;
}

/* ---- the end ---- */

static void maybe_finish(struct worker *w)
{
  if (w->done || !w->ended || !w->exited || w->ops.n > 0 || !w->channel_closed) return;
  w->done = true;
  loop_defer(w->conf.loop, &w->finish);
}

static void on_finish(struct defer *d)
{
  struct worker *w = d->data;
  timer_stop(w->conf.loop, &w->kill_timer);
  timer_stop(w->conf.loop, &w->ping_timer);
  w->conf.hooks->on_done(w->conf.hooks_data, &w->result);
}

static void on_channel_closed(void *data)
{
  struct worker *w = data;
  w->channel_closed = true;
  maybe_finish(w);
}

/* From here on nothing of the worker counts any more; what it had under way is cancelled. */
static void end(struct worker *w)
{
  if (w->ended) return;
  w->ended = true;
  size_t at = 0;
  for (struct op *op; (op = idmap_next(&w->ops, &at));) op_cancel(op, ERR_CANCELLED);
}

static void close_channel(struct worker *w)
{
  struct channel *c = w->channel;
  w->channel = NULL;
  channel_close(c, on_channel_closed, w);
}

static void set_result(struct worker *w, enum script_end why, const struct err *err)
{
  w->result.end = why;
  if (err) w->result.err = *err;
}

/* Ends a worker that broke the rules or does not obey. */
static void kill_worker(struct worker *w, enum script_end why, const char *reason)
{
  if (w->ended) return;
  struct err e = {0};
  err_set(&e, why == SCRIPT_TIMEOUT ? ERR_TIMEOUT : ERR_LIMIT, 0, "%s: %s%s%s", w->conf.name,
          reason, w->where[0] ? ", last seen at " : "", w->where);
  if (w->result.err.kind == ERR_NONE) set_result(w, why, &e);
  w->killed = true;
  nursery_kill(&w->child);
  end(w);
}

static void on_kill_timer(struct timer *t)
{
  struct worker *w = t->data;
  if (w->ended) {
    nursery_kill(&w->child); /* said its last words and lingers */
    return;
  }
  kill_worker(w, w->result.end == SCRIPT_OK ? SCRIPT_LIMIT : w->result.end,
              "did not stop when told to");
}

/* The more of them there are, the longer it may take until a busy one has the processor again. */
static uint64_t patience_ms(const struct worker *w)
{
  return w->limits.answer_ms * (100 + nursery_population(w->child.nursery)) / 100;
}

/* It is asked soon enough for ps to have something to show, and seldom where there are thousands.
 */
static void ask_again(struct worker *w)
{
  uint64_t ms = 1000 + 5 * nursery_population(w->child.nursery), most = w->limits.answer_ms / 3;
  timer_start(w->conf.loop, &w->ping_timer, ms < most ? ms : most);
}

/* A worker answers between two slices of its script, however busy that is. One that does not for so
 * long is stopped, or stuck where no slice ends. While we do not read what it says, silence says
 * nothing. */
static void on_ping_timer(struct timer *t)
{
  struct worker *w = t->data;
  if (w->ended || !w->channel) return;
  uint64_t now = clock_mono_ms();
  if (w->held) w->heard_ms = now;
  if (now - w->heard_ms >= patience_ms(w)) {
    kill_worker(w, SCRIPT_LIMIT, "its process does not answer any more");
    return;
  }
  struct frame f = {.kind = FRAME_PING};
  send_frame(w, &f, NULL);
  ask_again(w);
}

/* What the kernel's way of ending it says about the limit that it met. */
static void describe_death(struct worker *w, const struct nursery_exit *how)
{
  const char *seen = w->where[0] ? ", last seen at " : "";
  struct err e = {0};
  if (how->signal == SIGXCPU || (how->signal == SIGKILL && w->limits.cpu_s &&
                                 how->cpu_us >= (uint64_t)w->limits.cpu_s * 1000000))
    err_set(&e, ERR_LIMIT, 0, "%s: used its %" PRIu32 " s of processor time (--cpu-time)%s%s",
            w->conf.name, w->limits.cpu_s, seen, w->where);
  else if (how->signal == SIGSYS)
    err_set(&e, ERR_LIMIT, 0, "%s: made a system call that no script makes%s%s", w->conf.name, seen,
            w->where);
  else if (how->signal)
    err_set(&e, ERR_LIMIT, 0, "%s: its process was ended by SIG%s%s%s", w->conf.name,
            sigabbrev_np(how->signal) ? sigabbrev_np(how->signal) : "?", seen, w->where);
  else if (how->code == NURSERY_NO_WALLS) {
    err_set(&e, ERR_ENGINE_UNAVAILABLE, 0,
            "this machine does not let a script's process be walled in");
    err_hint(&e, "regolith doctor says what is missing; --trust runs a script of your own without");
  } else
    err_set(&e, ERR_INTERNAL, 0, "%s: its process ended without a word (exit %d)%s%s", w->conf.name,
            how->code, seen, w->where);
  set_result(w, SCRIPT_LIMIT, &e);
}

/* Both its exit and the end of what it sent are in: now its story is whole. */
static void conclude(struct worker *w)
{
  if (!w->exited || w->channel) return;
  if (!w->said_end && !w->killed && w->result.err.kind == ERR_NONE) describe_death(w, &w->how);
  end(w);
  maybe_finish(w);
}

static void on_start_of_child(struct nursery_child *child)
{
  struct worker *w = child->data;
  w->heard_ms = clock_mono_ms();
  if (!w->ended) ask_again(w);
}

static void on_exit_of_child(struct nursery_child *child, const struct nursery_exit *how)
{
  struct worker *w = child->data;
  w->exited = true;
  w->how = *how;
  w->stats.cpu_ns = how->cpu_us * 1000;
  w->held = false;
  if (w->channel) channel_pause(w->channel, false); /* what it said before still counts */
  conclude(w);
}

/* ---- ops ---- */

struct remote_op {
  struct worker *worker;
  uint64_t id; /* the worker's */
  bool paused; /* by the script; what our backlog pauses comes on top */
};

static void apply_flow(struct op *op)
{
  const struct remote_op *r = op->client_data;
  op_flow(op, r->paused || r->worker->streams_paused);
}

static void pause_streams(struct worker *w, bool paused)
{
  if (w->streams_paused == paused) return;
  w->streams_paused = paused;
  size_t at = 0;
  for (struct op *op; (op = idmap_next(&w->ops, &at));) apply_flow(op);
}

static void take_flow(struct op *op, bool paused)
{
  struct remote_op *r = op->client_data;
  r->paused = paused;
  apply_flow(op);
}

static void on_op_chunk(struct op *op, enum op_stream stream, const void *data, size_t len)
{
  struct remote_op *r = op->client_data;
  struct worker *w = r->worker;
  if (w->ended || !w->channel) return;
  struct buf out = {0};
  frame_encode_bytes(&out, FRAME_CHUNK, r->id, stream, data, len);
  channel_send(w->channel, out.data, out.len);
  buf_free(&out);
  if (channel_backlog(w->channel) > MAX_BACKLOG) pause_streams(w, true);
}

static void send_done(struct worker *w, uint64_t id, const struct err *err,
                      const struct val *result)
{
  struct val failure = frame_err_val(err);
  const struct val *body = err ? &failure : result;
  // cppcheck-suppress nullPointer  ; there is an error or a result
  struct frame f = {.kind = FRAME_DONE, .id = id, .num = err != NULL, .body = *body};
  struct err unsendable = {0};
  if (send_frame(w, &f, &unsendable) < 0) send_done(w, id, &unsendable, NULL);
  val_free(&failure);
}

static void on_op_done(struct op *op, const struct err *err)
{
  struct remote_op *r = op->client_data;
  struct worker *w = r->worker;
  idmap_remove(&w->ops, r->id);
  if (!w->ended) send_done(w, r->id, err, &op->result);
  free(r);
  op_free(op);
  maybe_finish(w);
}

static void on_op_input_full(struct op *op, bool full)
{
  struct remote_op *r = op->client_data;
  struct frame f = {.kind = FRAME_FULL, .id = r->id, .num = full};
  send_frame(r->worker, &f, NULL);
}

static const struct op_client op_client = {
    .on_chunk = on_op_chunk, .on_input_full = on_op_input_full, .on_done = on_op_done};

static void refuse_op(struct worker *w, uint64_t id, const struct err *err)
{
  send_done(w, id, err, NULL);
}

static void start_op(struct worker *w, struct frame *f)
{
  struct err e = {0};
  if (w->ops.n >= w->limits.max_in_flight) {
    err_set(&e, ERR_LIMIT, 0, "%zu operations are under way, which is the most a script may have",
            w->ops.n);
    refuse_op(w, f->id, &e);
    return;
  }
  struct op *op = op_new(f->name);
  op->args = f->body;
  f->body = (struct val){0};
  op->owner = w->conf.owner;
  op->timeout_ms = f->num > 0 ? (uint64_t)f->num : 0;
  op->client = &op_client;
  struct remote_op *r = xmalloc(sizeof *r);
  *r = (struct remote_op){.worker = w, .id = f->id};
  op->client_data = r;
  if (op_submit(w->conf.ops, op, &e) < 0) {
    free(r);
    op_free(op);
    refuse_op(w, f->id, &e);
    return;
  }
  idmap_set(&w->ops, f->id, op);
  if (w->streams_paused) op_flow(op, true);
}

/* ---- what the worker says ---- */

static void take_stats(struct worker *w, const struct val *stats)
{
  w->stats = (struct script_stats){
      .mem_bytes = (size_t)val_get_int(stats, "mem_bytes", 0),
      .mem_peak_bytes = (size_t)val_get_int(stats, "mem_peak_bytes", 0),
      .tasks = (size_t)val_get_int(stats, "tasks", 0),
      .cpu_ns = (uint64_t)val_get_int(stats, "cpu_ns", 0),
      .preempts = (uint64_t)val_get_int(stats, "preempts", 0),
  };
}

static void take_end(struct worker *w, const struct frame *f)
{
  w->said_end = true;
  const struct val *failure = val_get(&f->body, "error");
  bool told = w->result.err.kind != ERR_NONE; /* we ended it: our reason stands */
  if (!told)
    w->result.end =
        f->num >= SCRIPT_OK && f->num <= SCRIPT_LIMIT ? (enum script_end)f->num : SCRIPT_ERROR;
  if (!told && failure && failure->type == VAL_MAP) frame_err_read(failure, &w->result.err);
  take_stats(w, val_get(&f->body, "stats"));
  const char *traceback = val_get_str(&f->body, "traceback", NULL);
  if (traceback) w->result.traceback = w->traceback = xstrdup(traceback);
  end(w);
  timer_start(w->conf.loop, &w->kill_timer, KILL_SLACK_MS);
}

static void take_log(struct worker *w, const struct frame *f)
{
  if (f->body.type != VAL_STR || f->num < LOG_DEBUG || f->num > LOG_ERROR) return;
  if (w->conf.hooks->on_log)
    w->conf.hooks->on_log(w->conf.hooks_data, (enum log_level)f->num, f->body.s.p, f->body.s.len);
}

static void take_progress(struct worker *w, const struct frame *f)
{
  if (!w->conf.hooks->on_progress) return;
  w->conf.hooks->on_progress(w->conf.hooks_data, val_get_num(&f->body, "done", 0),
                             val_get_num(&f->body, "total", -1), val_get_str(&f->body, "text", ""));
}

static void take_task(struct worker *w, const struct frame *f)
{
  if (!w->conf.hooks->on_task) return;
  const char *outcome = f->body.type == VAL_STR ? f->body.s.p : NULL;
  w->conf.hooks->on_task(w->conf.hooks_data, f->id, (uint64_t)f->num, f->name, outcome);
}

static void take_where(struct worker *w, const struct frame *f)
{
  if (f->body.type == VAL_STR) snprintf(w->where, sizeof w->where, "%s", f->body.s.p);
}

static void take_input(struct op *op, const struct frame *f)
{
  bool bytes = f->body.type == VAL_STR;
  op_input(op, bytes ? f->body.s.p : NULL, bytes ? f->body.s.len : 0, NULL);
}

/* False: no worker of ours says this. */
static bool take(struct worker *w, struct frame *f)
{
  struct op *op = idmap_get(&w->ops, f->id);
  switch (f->kind) {
  case FRAME_OP:
    if (op || f->id == 0) return false;
    start_op(w, f);
    return true;
  case FRAME_CANCEL:
    if (op) op_cancel(op, f->num == ERR_TIMEOUT ? ERR_TIMEOUT : ERR_CANCELLED);
    return true;
  case FRAME_INPUT:
    if (op) take_input(op, f);
    return true;
  case FRAME_FLOW:
    if (op) take_flow(op, f->num != 0);
    return true;
  case FRAME_OUTPUT:
    if (f->body.type == VAL_STR)
      w->conf.hooks->on_output(w->conf.hooks_data, f->body.s.p, f->body.s.len);
    return f->body.type == VAL_STR;
  case FRAME_LOG: take_log(w, f); return true;
  case FRAME_PROGRESS: take_progress(w, f); return true;
  case FRAME_TASK: take_task(w, f); return true;
  case FRAME_WHERE: take_where(w, f); return true;
  case FRAME_PONG: take_stats(w, &f->body); return true;
  case FRAME_END: take_end(w, f); return true;
  case FRAME_START:
  case FRAME_CHUNK:
  case FRAME_FULL:
  case FRAME_PING:
  case FRAME_DONE:
  case FRAME_STOP:
  case FRAME_KIND_END: return false;
  }
  return false;
}

static void on_frame(void *data, const char *bytes, size_t len)
{
  struct worker *w = data;
  w->heard_ms = clock_mono_ms();
  if (w->ended) return;
  struct frame f;
  struct err e = {0};
  bool fine = frame_decode(&f, bytes, len, &e) == 0;
  fine = fine && take(w, &f);
  frame_done(&f);
  if (!fine) kill_worker(w, SCRIPT_LIMIT, "its process sent what no script can send");
}

static void on_channel_end(void *data, const struct err *err)
{
  struct worker *w = data;
  bool lied = err && (err->sys_errno == EMSGSIZE || err->sys_errno == EPROTO);
  if (lied) kill_worker(w, SCRIPT_LIMIT, err->msg);
  nursery_kill(&w->child); /* without its socket it has nothing left to do */
  close_channel(w);
  conclude(w);
}

static void on_drain(void *data)
{
  pause_streams(data, false);
}

static const struct channel_events channel_events = {
    .on_frame = on_frame, .on_end = on_channel_end, .on_drain = on_drain};

/* ---- life ---- */

static struct val list_of(const struct strv *s)
{
  struct val v = val_list();
  for (size_t i = 0; s && i < s->n; i++) val_push(&v, val_str(s->v[i]));
  return v;
}

static struct val start_body(const struct script_conf *conf)
{
  struct val v = val_map();
  val_add(&v, "name", val_str(conf->name));
  val_add(&v, "path", val_str(conf->path));
  val_add(&v, "source", val_bytes(conf->source, conf->source_len));
  val_add(&v, "args", list_of(conf->args));
  val_add(&v, "env", list_of(conf->env));
  val_add(&v, "mem_bytes", val_int((int64_t)conf->mem_bytes));
  val_add(&v, "grace_ms", val_int((int64_t)conf->grace_ms));
  return v;
}

int worker_new(struct worker **ret, struct nursery *nursery, const struct script_conf *conf,
               const struct runner_limits *limits, struct err *err)
{
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
    return err_set(err, ERR_INTERNAL, errno, "cannot make a socket pair for %s: %s", conf->name,
                   strerror(errno));
  struct worker *w = xcalloc(1, sizeof *w);
  w->conf = *conf;
  w->conf.name = xstrdup(conf->name);
  w->limits = *limits;
  if (!w->limits.max_in_flight) w->limits.max_in_flight = DEFAULT_IN_FLIGHT;
  w->start = start_body(conf);
  if (!w->limits.answer_ms) w->limits.answer_ms = DEFAULT_ANSWER_MS;
  w->ping_timer = (struct timer){.cb = on_ping_timer, .data = w};
  w->kill_timer = (struct timer){.cb = on_kill_timer, .data = w};
  w->finish = (struct defer){.cb = on_finish, .data = w};
  w->child =
      (struct nursery_child){.on_start = on_start_of_child, .on_exit = on_exit_of_child, .data = w};
  struct nursery_limits process = {.mem_bytes = conf->mem_bytes, .cpu_s = limits->cpu_s};
  int rc = channel_new(&w->channel, conf->loop, fds[0], MAX_FRAME, &channel_events, w, err);
  if (rc < 0) close(fds[1]);
  if (rc == 0) rc = nursery_spawn(nursery, &w->child, fds[1], conf->name, &process, err);
  if (rc < 0) {
    channel_close(w->channel, NULL, NULL);
    worker_free(w);
    return rc;
  }
  *ret = w;
  return 0;
}

void worker_start(struct worker *w)
{
  w->started = true;
  struct frame f = {.kind = FRAME_START, .name = w->conf.name, .body = w->start};
  send_frame(w, &f, NULL);
  val_free(&w->start);
}

void worker_cancel(struct worker *w, enum script_end why, const struct err *err, bool force)
{
  if (w->ended) return;
  if (w->result.err.kind == ERR_NONE) set_result(w, why, err);
  struct val body = frame_err_val(err);
  struct frame f = {.kind = FRAME_STOP, .id = force, .num = why, .body = body};
  send_frame(w, &f, NULL);
  val_free(&body);
  uint64_t grace = w->conf.grace_ms ? w->conf.grace_ms : DEFAULT_GRACE_MS;
  if (force || !timer_running(&w->kill_timer))
    timer_start(w->conf.loop, &w->kill_timer, (force ? 0 : grace) + KILL_SLACK_MS);
}

void worker_hold(struct worker *w, bool hold)
{
  w->held = hold;
  if (w->channel) channel_pause(w->channel, hold);
}

void worker_stats(const struct worker *w, struct script_stats *ret)
{
  *ret = w->stats;
}

void worker_free(struct worker *w)
{
  if (!w) return;
  val_free(&w->start);
  idmap_free(&w->ops);
  free(w->traceback);
  free((char *)(uintptr_t)w->conf.name);
  free(w);
}

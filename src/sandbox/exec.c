/* One command: its output, its time-out, and an honest account of how it ended.
 *
 * The engine reports how the command ended; the supervisor knows whether it asked for that end, and
 * why. The rule that joins the two: a command that exited by itself has exited, whatever was asked
 * meanwhile, except that one which broke its output limit is always output_limit; one that ended by
 * a signal, or that the engine lost, ended for the reason it was asked to, if there was one.
 *
 * An exec that was killed is answered when both the end and the kill have been reported, so that
 * everything it started is gone by then.
 *
 * running → (killing) → done → buried */
#include <stdlib.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "core/op.h"
#include "sandbox/supervisor_internal.h"
#include "wire/price.h"

#define KILL_AGAIN_MS 1000

static void exec_free(struct dying *d)
{
  struct exec *x = list_entry(d, struct exec, dying);
  stream_free(&x->out);
  stream_free(&x->err);
  buf_free(&x->rows);
  exec_args_free(&x->args);
  file_args_free(&x->file);
  free(x);
}

enum outcome_reason exec_reason(const struct exec *x)
{
  bool asked = x->why != REASON_EXITED;
  bool over = x->sb->end != END_NONE;
  if (x->why == REASON_OUTPUT_LIMIT) return x->why;
  switch (x->run.ret_end) {
  case EXEC_END_EXITED: return REASON_EXITED;
  case EXEC_END_OOM: return REASON_OOM;
  case EXEC_END_TIMEOUT: return asked ? x->why : REASON_TIMEOUT;
  case EXEC_END_SIGNAL: return asked ? x->why : over ? sandbox_outcome(x->sb) : REASON_SIGNAL;
  case EXEC_END_LOST: return asked ? x->why : over ? sandbox_outcome(x->sb) : REASON_UNKNOWN;
  }
  return REASON_UNKNOWN;
}

void exec_fill_outcome(const struct exec *x, struct outcome *o)
{
  *o = (struct outcome){
      .reason = exec_reason(x),
      .out_bytes = x->out.total + x->run.ret_left_out[0],
      .err_bytes = x->err.total + x->run.ret_left_out[1],
      .out_truncated = stream_truncated(&x->out) || x->run.ret_left_out[0] > 0,
      .err_truncated = stream_truncated(&x->err) || x->run.ret_left_out[1] > 0,
      .duration_ms = x->run.ret_duration_us / 1000,
      .cpu_ms = x->run.ret_cpu_us / 1000,
      .max_rss_mib = (uint32_t)((x->run.ret_max_rss_kib + 1023) / 1024),
  };
  if (o->reason == REASON_EXITED) o->exit_code = x->run.ret_code;
  if (o->reason == REASON_SIGNAL) o->signal = x->run.ret_code;
}

static struct val event_fields(const struct exec *x, const char *event)
{
  struct val v = val_map();
  val_add(&v, "event", val_str(event));
  val_add(&v, "sandbox_id", val_str(x->sb->id));
  val_add(&v, "owner", val_str(x->sb->owner->name));
  val_add(&v, "engine", val_str(x->sb->engine->name));
  val_add(&v, "exec", val_int((int64_t)x->number));
  return v;
}

static struct val command_of(const struct exec *x)
{
  struct val command = val_list();
  for (size_t i = 0; i < x->args.argv.n; i++) val_push(&command, val_str(x->args.argv.v[i]));
  return command;
}

void exec_emit_started(const struct exec *x)
{
  struct supervisor *sup = x->sb->sup;
  if (!supervisor_listened(sup)) return;
  struct val v = event_fields(x, "exec_started");
  val_add(&v, "command", command_of(x));
  supervisor_emit(sup, x->sb->owner->id, &v);
}

void exec_emit_done(const struct exec *x, const struct outcome *o)
{
  struct supervisor *sup = x->sb->sup;
  if (!supervisor_listened(sup)) return;
  struct val v = event_fields(x, "exec_done");
  val_add(&v, "command", command_of(x));
  if (o) {
    char name[24];
    val_add(&v, "reason", val_str(reason_name(o->reason)));
    if (o->reason == REASON_EXITED) val_add(&v, "exit_code", val_int(o->exit_code));
    if (o->reason == REASON_SIGNAL) val_add(&v, "signal", val_str(signal_name(o->signal, name)));
    val_add(&v, "stdout_bytes", val_int((int64_t)o->out_bytes));
    val_add(&v, "stderr_bytes", val_int((int64_t)o->err_bytes));
    val_add(&v, "duration_ms", val_int((int64_t)o->duration_ms));
  } else {
    val_add(&v, "error", val_str(err_info(x->done_err.kind)->code));
    val_add(&v, "message", val_str(x->done_err.msg));
  }
  supervisor_emit(sup, x->sb->owner->id, &v);
}

/* The sandbox ends with its entrypoint, unless it is ending anyway. */
static void entrypoint_ended(struct exec *x)
{
  struct sandbox *sb = x->sb;
  sb->entry = NULL;
  sb->exit_code = x->run.ret_code + (x->run.ret_end == EXEC_END_SIGNAL ? 128 : 0);
  if (sb->state != SANDBOX_STARTED) return;
  if (x->failed) {
    sb->end_err = x->done_err;
    sandbox_end(sb, END_FAILED);
  } else if (x->run.ret_end == EXEC_END_OOM) {
    sandbox_end(sb, END_OOM);
  } else {
    sandbox_end(sb, x->run.ret_end == EXEC_END_LOST ? END_LOST : END_FINISHED);
  }
}

/* ---- memory for output ---- */

static void count_captured(struct exec *x, size_t now)
{
  struct owner *o = x->sb->owner;
  o->captured += now - x->captured;
  x->sb->sup->captured += now - x->captured;
  x->captured = now;
}

/* Commands of one owner, or of all, that print much at once must not take the memory of the rest:
 * beyond the bound a stream takes no more than it has. */
static void capture(struct exec *x, struct stream *s, const void *data, size_t len)
{
  const struct supervisor *sup = x->sb->sup;
  size_t most = sup->output_max;
  if (most && (sup->captured >= most || x->sb->owner->captured >= most / SANDBOX_OUTPUT_SHARE))
    stream_freeze(s, SANDBOX_OUTPUT_LEAST);
  stream_write(s, data, len);
  count_captured(x, stream_memory(&x->out) + stream_memory(&x->err));
}

/* What this sandbox was refused since a command was last answered. */
static void tell_refused(struct sandbox *sb, struct val *result)
{
  if (sb->refused.type != VAL_LIST) return;
  val_add(result, "refused", sb->refused);
  sb->refused = (struct val){0};
}

static void answer(struct exec *x)
{
  struct op *op = x->op;
  struct outcome o = {0};
  if (!x->failed) {
    exec_fill_outcome(x, &o);
    o.out = stream_take(&x->out, &o.out_len);
    o.err = stream_take(&x->err, &o.err_len);
  }
  exec_emit_done(x, x->failed ? NULL : &o);
  if (op) {
    x->op = NULL;
    op->handler_data = NULL;
    if (!x->failed) op->result = outcome_print(&o);
    if (!x->failed) tell_refused(x->sb, &op->result);
    if (!x->failed && x->sb->engine->priced) sandbox_charge(x->sb, PRICE_CALL_MICROUSD);
    op_finish(op, x->failed ? &x->done_err : NULL);
  }
  if (x->sb->entry == x) {
    x->sb->entered = o;
    return;
  }
  outcome_free(&o);
}

/* Both the end and the kill, if there was one, are reported. */
static void finish(struct exec *x)
{
  struct sandbox *sb = x->sb;
  timer_stop(sb->sup->loop, &x->deadline);
  count_captured(x, 0); /* what it printed is the answer's from here on */
  x->job->answer(x);
  list_remove(&x->node);
  sb->execs_n--;
  sb->sup->execs_n--;
  supervisor_bury(sb->sup, &x->dying);
  if (sb->entry == x) entrypoint_ended(x);
  sandbox_touch(sb);
  if (sb->state == SANDBOX_DRAINING && sb->execs_n == 0) sandbox_event(sb, SANDBOX_EV_DRAINED);
}

static void on_done(struct exec_op *run, const struct err *err)
{
  struct exec *x = run->data;
  x->done = true;
  x->failed = err != NULL;
  if (err) x->done_err = *err;
  if (!x->killing) finish(x);
}

static void on_input_full(struct exec_op *run, bool full)
{
  struct exec *x = run->data;
  if (x->job->input_full)
    x->job->input_full(x, full);
  else if (x->op && !x->done)
    op_input_full(x->op, full);
}

static void on_chunk(struct exec_op *run, enum exec_stream which, const void *data, size_t len)
{
  struct exec *x = run->data;
  x->job->chunk(x, which, data, len);
}

static void command_chunk(struct exec *x, enum exec_stream which, const void *data, size_t len)
{
  struct stream *s = which == EXEC_STDOUT ? &x->out : &x->err;
  capture(x, s, data, len);
  if (x->op && x->args.stream)
    op_chunk(x->op, which == EXEC_STDOUT ? OP_STDOUT : OP_STDERR, data, len);
  else
    x->run.only_counted[which - 1] = stream_truncated(s);
  if (x->args.on_overflow == OVERFLOW_KILL && s->total > x->args.max_output)
    sandbox_exec_kill(x, REASON_OUTPUT_LIMIT);
}

static struct val text_of(const char *text, size_t len)
{
  return text ? val_bytes(text, len) : val_bytes("", 0);
}

struct val sandbox_entry_view(const struct sandbox *sb)
{
  struct val v = val_map();
  const struct exec *x = sb->entry;
  val_add(&v, "running", val_bool(x != NULL));
  if (x) {
    size_t out_len, err_len;
    cleanup_free char *out = stream_copy(&x->out, &out_len), *err = stream_copy(&x->err, &err_len);
    val_add(&v, "stdout", text_of(out, out_len));
    val_add(&v, "stderr", text_of(err, err_len));
    val_add(&v, "truncated", val_bool(stream_truncated(&x->out) || stream_truncated(&x->err)));
  } else {
    const struct outcome *o = &sb->entered;
    val_add(&v, "stdout", text_of(o->out, o->out_len));
    val_add(&v, "stderr", text_of(o->err, o->err_len));
    val_add(&v, "truncated", val_bool(o->out_truncated || o->err_truncated));
  }
  return v;
}

/* ---- ending it ---- */

static void start_kill(struct exec *x);

static void on_kill_again(struct timer *t)
{
  start_kill(t->data);
}

/* The command lives on, and its sandbox bounds its life: ask again until it ends. */
static void kill_failed(struct exec *x, const struct err *err)
{
  log_warn("a command in sandbox %s could not be ended yet: %s", x->sb->id, err->msg);
  x->deadline.cb = on_kill_again;
  timer_start(x->sb->sup->loop, &x->deadline, KILL_AGAIN_MS);
}

static void on_killed(struct kill_op *op, const struct err *err)
{
  struct exec *x = op->data;
  x->killing = false;
  if (x->done)
    finish(x);
  else if (err && x->sb->state == SANDBOX_STARTED)
    kill_failed(x, err);
}

static void start_kill(struct exec *x)
{
  struct err err = {0};
  struct engine *e = x->sb->engine->engine;
  x->kill = (struct kill_op){
      .box = x->sb->create.ret_box, .exec = &x->run, .on_done = on_killed, .data = x};
  x->killing = true;
  if (e->ops->kill(e, &x->kill, &err) == 0) return;
  x->killing = false;
  kill_failed(x, &err);
}

/* A command that is being ended is read to its end, whatever its reader says. */
static void resume_output(struct exec *x)
{
  struct engine *e = x->sb->engine->engine;
  if (e->ops->exec_flow) e->ops->exec_flow(e, &x->run, false);
}

void sandbox_exec_kill(struct exec *x, enum outcome_reason why)
{
  if (x->done || x->why != REASON_EXITED) return;
  x->why = why;
  timer_stop(x->sb->sup->loop, &x->deadline);
  if (x->sb->state != SANDBOX_STARTED) return; /* the whole box is on its way out */
  resume_output(x);
  start_kill(x);
}

void sandbox_exec_stop(struct exec *x)
{
  timer_stop(x->sb->sup->loop, &x->deadline);
  if (!x->done) resume_output(x);
}

static void on_deadline(struct timer *t)
{
  sandbox_exec_kill(t->data, REASON_TIMEOUT);
}

/* ---- starting it ---- */

void sandbox_exec_flow(struct exec *x, bool paused)
{
  struct engine *e = x->sb->engine->engine;
  bool ending = x->why != REASON_EXITED || x->sb->state != SANDBOX_STARTED;
  if (!x->done && !ending && e->ops->exec_flow) e->ops->exec_flow(e, &x->run, paused);
}

void sandbox_exec_input(struct exec *x, const void *data, size_t len)
{
  struct engine *e = x->sb->engine->engine;
  if (!x->done) e->ops->exec_input(e, &x->run, data, len);
}

struct exec *exec_new(struct sandbox *sb, struct op *op, const struct exec_job *job)
{
  struct exec *x = xcalloc(1, sizeof *x);
  *x = (struct exec){.sb = sb, .job = job, .op = op};
  x->dying.free = exec_free;
  list_init(&x->node);
  list_init(&x->dying.node);
  x->deadline = (struct timer){.cb = on_deadline, .data = x};
  x->run = (struct exec_op){.box = sb->create.ret_box,
                            .on_chunk = on_chunk,
                            .on_input_full = on_input_full,
                            .on_done = on_done,
                            .data = x};
  return x;
}

int exec_launch(struct exec *x, uint64_t timeout_ms, struct err *err)
{
  struct sandbox *sb = x->sb;
  struct engine *e = sb->engine->engine;
  int rc = e->ops->exec(e, &x->run, err);
  if (rc < 0) {
    exec_free(&x->dying);
    return rc;
  }
  if (x->op) x->op->handler_data = x;
  list_append(&sb->execs, &x->node);
  sb->execs_n++;
  sb->sup->execs_n++;
  if (timeout_ms) timer_start(sb->sup->loop, &x->deadline, timeout_ms);
  return 0;
}

static const struct exec_job command_job = {.chunk = command_chunk, .answer = answer};

int sandbox_exec_start(struct sandbox *sb, struct op *op, struct exec_args *args, struct err *err)
{
  struct exec *x = exec_new(sb, op, &command_job);
  x->number = op ? sb->commands + 1 : 0;
  x->args = *args;
  *args = (struct exec_args){0};
  x->run.args = &x->args;
  stream_init(&x->out, x->args.max_output);
  stream_init(&x->err, x->args.max_output);
  int rc = exec_launch(x, x->args.timeout_ms, err);
  if (rc < 0) return rc;
  if (op)
    sb->commands++;
  else
    sb->entry = x;
  sandbox_touch(sb);
  exec_emit_started(x);
  return 0;
}

void sandbox_exec_abandon(struct exec *x, const struct err *err)
{
  timer_stop(x->sb->sup->loop, &x->deadline);
  if (x->job->abandon) x->job->abandon(x, err);
  struct op *op = x->op;
  x->op = NULL;
  if (op) op_finish(op, err);
}

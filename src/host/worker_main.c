/* Inside a worker process: one script runtime, and a socket where its ops used to be.
 *
 * Owns a loop, an op router whose only handler forwards every op to the host, and the script. It
 * holds no grant of its own: what the script may do is decided by the host for each op. The host's
 * frames are trusted; the host does not trust ours.
 *
 * What the script prints and asks is sent at once. When the host does not keep up, the script is
 * held until it has, so a worker needs bounded memory whatever its script does.
 *
 * waiting for START → running → END sent → drained → gone */
#include "host/worker_main.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/val.h"
#include "core/channel.h"
#include "core/loop.h"
#include "core/op.h"
#include "script/script.h"
#include "wire/frame.h"
#include "wire/op.h"

enum { MAX_BACKLOG = 1 << 20, MAX_FRAME = 1 << 30 };

struct worker_process {
  struct loop *loop;
  struct ops *ops;
  struct channel *channel; /* NULL once closing */
  struct script *script;   /* NULL before START and after its end */
  struct idmap in_flight;  /* op id → struct op */
  bool held;               /* the host does not keep up */
};

static void send_bytes(struct worker_process *p, enum frame_kind kind, uint64_t id, int64_t num,
                       const void *data, size_t len)
{
  if (!p->channel) return;
  struct buf out = {0};
  frame_encode_bytes(&out, kind, id, num, data, len);
  channel_send(p->channel, out.data, out.len);
  buf_free(&out);
  if (!p->held && p->script && channel_backlog(p->channel) > MAX_BACKLOG) {
    p->held = true;
    script_hold(p->script, true);
  }
}

static int send_frame(struct worker_process *p, const struct frame *f, struct err *err)
{
  if (!p->channel) return 0;
  struct buf out = {0};
  int rc = frame_encode(&out, f, err);
  if (rc == 0) channel_send(p->channel, out.data, out.len);
  buf_free(&out);
  return rc;
}

/* ---- ops go out ---- */

static int forward_start(struct op *op, void *ctx, struct err *err)
{
  struct worker_process *p = ctx;
  struct frame f = {.kind = FRAME_OP,
                    .id = op->id,
                    .num = (int64_t)op->timeout_ms,
                    .name = op->name,
                    .body = op->args};
  op->timeout_ms = 0; /* the host keeps the deadline */
  int rc = send_frame(p, &f, err);
  if (rc == 0) idmap_set(&p->in_flight, op->id, op);
  val_free(&op->args);
  return rc;
}

static void forward_cancel(struct op *op, void *ctx)
{
  struct frame f = {.kind = FRAME_CANCEL, .id = op->id, .num = (int64_t)op->cancel_why};
  send_frame(ctx, &f, NULL);
}

static void forward_input(struct op *op, void *ctx, const void *data, size_t len)
{
  send_bytes(ctx, FRAME_INPUT, op->id, 0, data, len);
}

static void forward_flow(struct op *op, void *ctx, bool paused)
{
  struct frame f = {.kind = FRAME_FLOW, .id = op->id, .num = paused};
  send_frame(ctx, &f, NULL);
}

static const struct op_handler forward = {.name = "*",
                                          .start = forward_start,
                                          .cancel = forward_cancel,
                                          .input = forward_input,
                                          .flow = forward_flow};

/* ---- what the script says ---- */

static void on_output(void *data, const char *text, size_t len)
{
  send_bytes(data, FRAME_OUTPUT, 0, 0, text, len);
}

static void on_log(void *data, enum log_level level, const char *text, size_t len)
{
  send_bytes(data, FRAME_LOG, 0, (int64_t)level, text, len);
}

static void on_where(void *data, const char *where)
{
  send_bytes(data, FRAME_WHERE, 0, 0, where, strlen(where));
}

static void on_progress(void *data, double done, double total, const char *text)
{
  struct val body = val_map();
  val_add(&body, "done", val_num(done));
  val_add(&body, "total", val_num(total));
  val_add(&body, "text", val_str(text));
  struct frame f = {.kind = FRAME_PROGRESS, .body = body};
  send_frame(data, &f, NULL);
  val_free(&body);
}

static void on_task(void *data, uint64_t task, uint64_t parent, const char *name,
                    const char *outcome)
{
  struct val body = val_str(outcome);
  struct frame f = {
      .kind = FRAME_TASK, .id = task, .num = (int64_t)parent, .name = name, .body = body};
  send_frame(data, &f, NULL);
  val_free(&body);
}

static void leave(struct worker_process *p)
{
  if (!p->channel) return;
  struct channel *c = p->channel;
  p->channel = NULL;
  channel_close(c, NULL, NULL);
  loop_stop(p->loop);
}

static struct val stats_of(const struct script *script)
{
  struct script_stats stats;
  script_stats(script, &stats);
  struct val v = val_map();
  val_add(&v, "mem_bytes", val_int((int64_t)stats.mem_bytes));
  val_add(&v, "mem_peak_bytes", val_int((int64_t)stats.mem_peak_bytes));
  val_add(&v, "tasks", val_int((int64_t)stats.tasks));
  val_add(&v, "cpu_ns", val_int((int64_t)stats.cpu_ns));
  val_add(&v, "preempts", val_int((int64_t)stats.preempts));
  return v;
}

static void on_done(void *data, const struct script_result *result)
{
  struct worker_process *p = data;
  struct val body = val_map();
  val_add(&body, "error", frame_err_val(&result->err));
  val_add(&body, "traceback", val_str(result->traceback));
  if (p->script) val_add(&body, "stats", stats_of(p->script));
  struct frame f = {.kind = FRAME_END, .num = (int64_t)result->end, .body = body};
  send_frame(p, &f, NULL);
  val_free(&body);
  script_free(p->script);
  p->script = NULL;
  if (p->channel && channel_backlog(p->channel) == 0) leave(p);
}

static const struct script_hooks hooks = {.on_output = on_output,
                                          .on_log = on_log,
                                          .on_where = on_where,
                                          .on_progress = on_progress,
                                          .on_task = on_task,
                                          .on_done = on_done};

/* ---- what the host says ---- */

static struct strv read_list(const struct val *body, const char *key)
{
  struct strv s = {0};
  const struct val *v = val_get(body, key);
  for (size_t i = 0; v && v->type == VAL_LIST && i < v->list.n; i++)
    if (v->list.v[i].type == VAL_STR) strv_add(&s, v->list.v[i].s.p);
  return s;
}

static void fail_to_start(struct worker_process *p, const struct err *err)
{
  struct script_result result = {.end = SCRIPT_ERROR, .err = *err};
  on_done(p, &result);
}

static void take_start(struct worker_process *p, const struct frame *f)
{
  const struct val *source = val_get(&f->body, "source");
  struct strv args = read_list(&f->body, "args"), env = read_list(&f->body, "env");
  struct script_conf conf = {.name = f->name,
                             .path = val_get_str(&f->body, "path", NULL),
                             .source = source->s.p,
                             .source_len = source->s.len,
                             .args = &args,
                             .env = &env,
                             .mem_bytes = (size_t)val_get_int(&f->body, "mem_bytes", 0),
                             .grace_ms = (uint64_t)val_get_int(&f->body, "grace_ms", 0),
                             .loop = p->loop,
                             .ops = p->ops,
                             .hooks = &hooks,
                             .hooks_data = p};
  struct err e = {0};
  if (script_new(&p->script, &conf, &e) < 0)
    fail_to_start(p, &e);
  else
    script_start(p->script);
  strv_free(&args);
  strv_free(&env);
}

static void take_chunk(struct worker_process *p, const struct frame *f)
{
  struct op *op = idmap_get(&p->in_flight, f->id);
  if (op && f->body.type == VAL_STR)
    op_chunk(op, (enum op_stream)f->num, f->body.s.p, f->body.s.len);
}

static void take_full(struct worker_process *p, const struct frame *f)
{
  struct op *op = idmap_get(&p->in_flight, f->id);
  if (op) op_input_full(op, f->num != 0);
}

static void on_ended(struct op *op, const struct err *err)
{
  (void)err;
  op_free(op);
}

/* The script gave the create up before it heard of its success: the sandbox has nobody. */
static void end_unwanted(struct worker_process *p, const struct op *create)
{
  static const struct op_client client = {.on_done = on_ended};
  struct op *op = op_new("sandbox.terminate");
  op->args = val_map();
  val_add(&op->args, "sandbox_id", val_str(val_get_str(&create->result, "sandbox_id", "")));
  op->client = &client;
  if (op_submit(p->ops, op, NULL) < 0) op_free(op);
}

static void take_done(struct worker_process *p, struct frame *f)
{
  struct op *op = idmap_remove(&p->in_flight, f->id);
  if (!op) return;
  struct err e = {0};
  if (f->num) {
    frame_err_read(&f->body, &e);
  } else {
    op->result = f->body;
    f->body = (struct val){0};
  }
  if (!f->num && op->cancel_why != ERR_NONE && strcmp(op->name, "sandbox.create") == 0) {
    end_unwanted(p, op);
    err_set(&e, op->cancel_why, 0, "sandbox.create was cancelled");
  }
  op_finish(op, f->num || e.kind != ERR_NONE ? &e : NULL);
}

static void take_stop(struct worker_process *p, const struct frame *f)
{
  struct err e = {0};
  if (f->body.type == VAL_MAP) frame_err_read(&f->body, &e);
  if (p->script) script_cancel(p->script, (enum script_end)f->num, &e, f->id != 0);
}

static void take_ping(struct worker_process *p)
{
  struct val body = p->script ? stats_of(p->script) : (struct val){0};
  struct frame f = {.kind = FRAME_PONG, .body = body};
  send_frame(p, &f, NULL);
  val_free(&body);
}

static void on_frame(void *data, const char *bytes, size_t len)
{
  struct worker_process *p = data;
  struct frame f;
  struct err e = {0};
  if (frame_decode(&f, bytes, len, &e) < 0) abort(); /* the host and we are one program */
  if (f.kind == FRAME_START)
    take_start(p, &f);
  else if (f.kind == FRAME_CHUNK)
    take_chunk(p, &f);
  else if (f.kind == FRAME_FULL)
    take_full(p, &f);
  else if (f.kind == FRAME_DONE)
    take_done(p, &f);
  else if (f.kind == FRAME_STOP)
    take_stop(p, &f);
  else if (f.kind == FRAME_PING)
    take_ping(p);
  frame_done(&f);
}

/* Without its host a worker has no reason to be: the supervisor has ended its sandboxes already. */
static void on_end(void *data, const struct err *err)
{
  (void)data, (void)err;
  _Exit(1);
}

static void on_drain(void *data)
{
  struct worker_process *p = data;
  if (p->held && p->script) {
    p->held = false;
    script_hold(p->script, false);
  }
  if (!p->script) leave(p);
}

static const struct channel_events events = {
    .on_frame = on_frame, .on_end = on_end, .on_drain = on_drain};

int worker_main(int fd)
{
  struct worker_process p = {0};
  struct err e = {0};
  if (loop_new(&p.loop, &e) < 0) return 1;
  p.ops = ops_new(p.loop);
  ops_set_fallback(p.ops, &forward, &p);
  if (channel_new(&p.channel, p.loop, fd, MAX_FRAME, &events, &p, &e) < 0) return 1;
  loop_run(p.loop);
  return 0; /* the process ends here: freeing what the kernel takes back anyway would only cost time
             */
}

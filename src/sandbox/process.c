/* Spawned commands: sandbox.spawn answers when the command runs, and wait, kill, output and input
 * are asked for it later, by its number.
 *
 * A command keeps its record when it has ended, so that it can be waited for when its sandbox is
 * gone too. How many are kept of an owner, and how much of their output, has limits: then those
 * that ended first are forgotten, and where nothing has ended no more are started.
 *
 * Output is kept as that of an exec, first and last half of max_output; what is less than KEEP_MIN
 * is cut only when it is handed out. Whoever reads it (output) has a place in all that was written.
 * While nobody reads, nothing holds the command up. A reader's lag beyond LAG_HIGH pauses it;
 * unless somebody waits for the end and the reader has not asked for GONE_MS: it will not come
 * back, and the command goes on. What is then no longer kept when it does come back is counted as
 * lost.
 *
 *   launched → started → ended → forgotten */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "core/op.h"
#include "sandbox/supervisor_internal.h"

#define KEEP_MIN      ((size_t)1 << 20)
#define LAG_HIGH      ((uint64_t)256 << 10)
#define LAG_LOW       ((uint64_t)64 << 10)
#define GONE_MS       1000
#define PROCESSES_MAX 1024                /* kept of one owner */
#define OUTPUT_MAX    ((size_t)256 << 20) /* bytes of theirs kept of one owner */

struct ask {
  struct list node; /* process.asks */
  enum { ASK_WAIT, ASK_KILL, ASK_OUTPUT, ASK_INPUT } kind;
  struct process *p;
  struct op *op;
  int stream; /* OUTPUT */
  size_t max; /* OUTPUT: bytes */
  bool close; /* INPUT: the command's stdin ends with it */
  bool fed;   /* INPUT: all of it has come */
};

/* ---- records ---- */

static void process_free(struct dying *d)
{
  struct process *p = list_entry(d, struct process, dying);
  stream_free(&p->streams[0]);
  stream_free(&p->streams[1]);
  free(p);
}

static struct process *process_new(struct sandbox *sb)
{
  struct process *p = xcalloc(1, sizeof *p);
  p->sb = sb;
  p->dying.free = process_free;
  list_init(&p->dying.node);
  list_init(&p->asks);
  list_append(&sb->processes, &p->node);
  list_append(&sb->sup->processes, &p->by_age);
  return p;
}

static void forget(struct process *p)
{
  timer_stop(p->sb->sup->loop, &p->gone);
  list_remove(&p->node);
  list_remove(&p->by_age);
  supervisor_bury(p->sb->sup, &p->dying);
}

static struct stream *stream_of(struct process *p, int which)
{
  if (!p->x) return &p->streams[which];
  return which ? &p->x->err : &p->x->out;
}

static size_t kept(struct process *p)
{
  return stream_memory(stream_of(p, 0)) + stream_memory(stream_of(p, 1));
}

/* Makes room for one more of this owner: those that were waited for go first, then the oldest. */
static int make_room(const struct sandbox *sb, struct err *err)
{
  struct supervisor *sup = sb->sup;
  size_t n = 0, bytes = 0;
  LIST_FOREACH (it, &sup->processes) {
    struct process *p = list_entry(it, struct process, by_age);
    if (p->sb->owner != sb->owner) continue;
    n++;
    bytes += kept(p);
  }
  for (int all = 0; all < 2; all++)
    LIST_FOREACH_SAFE (it, &sup->processes) {
      struct process *p = list_entry(it, struct process, by_age);
      if (n < PROCESSES_MAX && bytes < OUTPUT_MAX) return 0;
      if (p->sb->owner != sb->owner || p->x || (!all && !p->asked)) continue;
      n--;
      bytes -= kept(p);
      forget(p);
    }
  if (n < PROCESSES_MAX && bytes < OUTPUT_MAX) return 0;
  int rc = err_set(err, ERR_LIMIT, 0,
                   "%zu spawned commands run, and %zu MiB of their output are kept: the most are "
                   "%d, and %zu MiB",
                   n, bytes >> 20, PROCESSES_MAX, OUTPUT_MAX >> 20);
  err_hint(err, "end some first, or give them a smaller max_output");
  return rc;
}

/* ---- answers ---- */

static void finish_ask(struct ask *a, const struct err *err)
{
  struct op *op = a->op;
  list_remove(&a->node);
  free(a);
  op->handler_data = NULL;
  op_finish(op, err);
}

static void answer_empty(struct ask *a)
{
  a->op->result = val_map();
  finish_ask(a, NULL);
}

/* What is kept is cut to what was asked for: its first half begins where that begins, its last
 * ends where that ends. */
static char *cut(const struct stream *s, size_t max, size_t *ret_len)
{
  char *text = stream_copy(s, ret_len);
  if (*ret_len <= max) return text;
  size_t tail = max / 2;
  memmove(text + (max - tail), text + (*ret_len - tail), tail);
  *ret_len = max;
  text[max] = '\0';
  return text;
}

static void answer_wait(struct ask *a)
{
  struct process *p = a->p;
  struct outcome o = p->outcome;
  o.out = cut(&p->streams[0], p->max_output, &o.out_len);
  o.err = cut(&p->streams[1], p->max_output, &o.err_len);
  o.out_truncated = o.out_bytes > p->max_output;
  o.err_truncated = o.err_bytes > p->max_output;
  a->op->result = outcome_print(&o);
  outcome_free(&o);
  p->asked = true;
  finish_ask(a, NULL);
}

/* False: there is nothing to give yet. */
static bool answer_output(struct ask *a)
{
  struct process *p = a->p;
  struct reader *r = &p->readers[a->stream];
  const struct stream *s = stream_of(p, a->stream);
  if (r->at >= s->total && p->x) return false;
  uint64_t lost = 0;
  char *data = xmalloc(a->max + 1);
  size_t n = stream_read(s, &r->at, data, a->max, &lost);
  data[n] = '\0';
  a->op->result = val_map();
  if (lost) val_add(&a->op->result, "lost", val_int((int64_t)lost));
  if (n)
    val_add(&a->op->result, "data", val_take_bytes(data, n));
  else
    free(data);
  finish_ask(a, NULL);
  return true;
}

static bool is_waited_for(const struct process *p)
{
  LIST_FOREACH (it, &p->asks)
    if (list_entry(it, struct ask, node)->kind == ASK_WAIT) return true;
  return false;
}

/* ---- the reader's lag ---- */

static void update_flow(struct process *p)
{
  struct loop *loop = p->sb->sup->loop;
  uint64_t lag = 0;
  if (!p->x) return;
  for (int i = 0; i < 2; i++) {
    uint64_t behind = stream_of(p, i)->total - p->readers[i].at;
    if (p->readers[i].attached && behind > lag) lag = behind;
  }
  bool waited = is_waited_for(p);
  bool pause = (p->paused ? lag >= LAG_LOW : lag > LAG_HIGH) && !(p->ignored && waited);
  if (pause != p->paused) sandbox_exec_flow(p->x, pause);
  p->paused = pause;
  timer_stop(loop, &p->gone);
  if (pause && waited) timer_start(loop, &p->gone, GONE_MS);
}

static void on_gone(struct timer *t)
{
  struct process *p = t->data;
  p->ignored = true;
  update_flow(p);
}

/* ---- the command ---- */

static void process_chunk(struct exec *x, enum exec_stream which, const void *data, size_t len)
{
  struct process *p = x->process;
  struct stream *s = which == EXEC_STDOUT ? &x->out : &x->err;
  stream_write(s, data, len);
  x->run.only_counted[which - 1] = stream_truncated(s) && !p->readers[which - 1].attached;
  if (x->args.on_overflow == OVERFLOW_KILL && s->total > p->max_output)
    sandbox_exec_kill(x, REASON_OUTPUT_LIMIT);
  LIST_FOREACH_SAFE (it, &p->asks) {
    struct ask *a = list_entry(it, struct ask, node);
    if (a->kind == ASK_OUTPUT) answer_output(a);
  }
  update_flow(p);
}

static void process_input_full(struct exec *x, bool full)
{
  struct process *p = x->process;
  p->input_full = full;
  LIST_FOREACH_SAFE (it, &p->asks) {
    struct ask *a = list_entry(it, struct ask, node);
    if (a->kind != ASK_INPUT) continue;
    if (!a->fed)
      op_input_full(a->op, full);
    else if (!full)
      answer_empty(a);
  }
}

static void answer_spawn(struct process *p)
{
  struct op *op = p->spawn_op;
  p->spawn_op = NULL;
  op->handler_data = NULL;
  op->result = val_map();
  val_add(&op->result, "sandbox_id", val_str(p->sb->id));
  val_add(&op->result, "exec", val_int((int64_t)p->number));
  if (p->pid) val_add(&op->result, "pid", val_int(p->pid));
  op_finish(op, NULL);
}

static void on_started(struct exec_op *run, int64_t pid)
{
  struct process *p = ((struct exec *)run->data)->process;
  p->pid = pid;
  /* One that was cancelled meanwhile is answered when the command has ended. */
  if (p->spawn_op && p->spawn_op->cancel_why == ERR_NONE) answer_spawn(p);
}

/* It did not start, or whoever asked for it has gone: nobody was told its number, but it may have
 * been guessed. */
static void fail_spawn(struct process *p, const struct err *err)
{
  struct op *op = p->spawn_op;
  p->spawn_op = NULL;
  op->handler_data = NULL;
  op_finish(op, err);
  LIST_FOREACH_SAFE (it, &p->asks) finish_ask(list_entry(it, struct ask, node), err);
  forget(p);
}

static void answer_asks(struct process *p)
{
  LIST_FOREACH_SAFE (it, &p->asks) {
    struct ask *a = list_entry(it, struct ask, node);
    switch (a->kind) {
    case ASK_WAIT: answer_wait(a); break;
    case ASK_OUTPUT: answer_output(a); break;
    case ASK_KILL:
    case ASK_INPUT: answer_empty(a); break;
    }
  }
}

static void process_answer(struct exec *x)
{
  struct process *p = x->process;
  struct err err = x->done_err;
  p->outcome = (struct outcome){.reason = REASON_UNKNOWN};
  if (!x->failed) exec_fill_outcome(x, &p->outcome);
  exec_emit_done(x, x->failed ? NULL : &p->outcome);
  p->streams[0] = x->out;
  p->streams[1] = x->err;
  x->out = x->err = (struct stream){0};
  p->x = NULL;
  timer_stop(p->sb->sup->loop, &p->gone);
  if (p->spawn_op && (x->failed || p->spawn_op->cancel_why != ERR_NONE)) {
    if (!x->failed)
      err_set(&err, p->spawn_op->cancel_why, 0,
              "sandbox.spawn was cancelled, and the command ended");
    fail_spawn(p, &err);
    return;
  }
  if (p->spawn_op) answer_spawn(p);
  answer_asks(p);
}

static void process_abandon(struct exec *x, const struct err *err)
{
  struct process *p = x->process;
  timer_stop(p->sb->sup->loop, &p->gone);
  if (p->spawn_op) {
    p->spawn_op->handler_data = NULL;
    op_finish(p->spawn_op, err);
    p->spawn_op = NULL;
  }
  LIST_FOREACH_SAFE (it, &p->asks) finish_ask(list_entry(it, struct ask, node), err);
}

static const struct exec_job process_job = {.chunk = process_chunk,
                                            .answer = process_answer,
                                            .input_full = process_input_full,
                                            .abandon = process_abandon};

int process_spawn(struct sandbox *sb, struct op *op, struct exec_args *args, struct err *err)
{
  int rc = make_room(sb, err);
  if (rc < 0) return rc;
  struct exec *x = exec_new(sb, NULL, &process_job);
  struct process *p = process_new(sb);
  x->process = p;
  x->number = p->number = sb->commands + 1;
  x->args = *args;
  *args = (struct exec_args){0};
  x->run.args = &x->args;
  x->run.on_started = on_started;
  p->max_output = x->args.max_output;
  p->input_ended = !x->args.stdin_stream;
  p->gone = (struct timer){.cb = on_gone, .data = p};
  size_t keep = p->max_output > KEEP_MIN ? p->max_output : KEEP_MIN;
  stream_init(&x->out, keep);
  stream_init(&x->err, keep);
  rc = exec_launch(x, x->args.timeout_ms, err);
  if (rc < 0) {
    forget(p);
    return rc;
  }
  p->x = x;
  p->spawn_op = op;
  op->handler_data = p;
  sb->commands++;
  sandbox_touch(sb);
  exec_emit_started(x);
  return 0;
}

void process_spawn_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct process *p = op->handler_data;
  if (p && p->x)
    sandbox_exec_kill(p->x, op->cancel_why == ERR_TIMEOUT ? REASON_TIMEOUT : REASON_CANCELLED);
}

void processes_forget(struct sandbox *sb)
{
  struct err err = {0};
  err_set(&err, ERR_CANCELLED, 0, "the sandbox was forgotten");
  LIST_FOREACH_SAFE (it, &sb->processes) {
    struct process *p = list_entry(it, struct process, node);
    LIST_FOREACH_SAFE (a, &p->asks) finish_ask(list_entry(a, struct ask, node), &err);
    forget(p);
  }
}

/* ---- the ops ---- */

static struct process *find(struct supervisor *sup, const struct op *op, enum process_op kind,
                            struct process_args *ret, struct err *err)
{
  if (process_args_parse(kind, &op->args, ret, err) < 0) return NULL;
  struct sandbox *sb = sandbox_find(sup, op->owner, ret->sandbox_id, err);
  process_args_free(ret);
  if (!sb) return NULL;
  LIST_FOREACH (it, &sb->processes) {
    struct process *p = list_entry(it, struct process, node);
    if (p->number == ret->exec) return p;
  }
  err_set(err, ERR_NOT_FOUND, ESRCH, "sandbox %s knows of no spawned command %u", sb->id,
          ret->exec);
  if (err) {
    strcpy(err->field, "exec");
    strcpy(err->sandbox_id, sb->id);
  }
  return NULL;
}

static struct ask *ask(struct process *p, struct op *op, int kind)
{
  struct ask *a = xcalloc(1, sizeof *a);
  a->kind = kind;
  a->p = p;
  a->op = op;
  op->handler_data = a;
  list_append(&p->asks, &a->node);
  return a;
}

static void ask_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct ask *a = op->handler_data;
  if (!a) return;
  struct process *p = a->p;
  struct err err = {0};
  err_set(&err, op->cancel_why, 0, "nobody waits any more for %s; the command goes on", op->name);
  finish_ask(a, &err);
  update_flow(p);
}

static int wait_start(struct op *op, void *ctx, struct err *err)
{
  struct err own = {0};
  struct process_args args;
  struct process *p = find(ctx, op, PROCESS_WAIT, &args, err ? err : &own);
  if (!p) return err_errno(err ? err : &own);
  struct ask *a = ask(p, op, ASK_WAIT);
  if (p->x)
    update_flow(p);
  else
    answer_wait(a);
  return 0;
}

static void on_signalled(struct kill_op *kill, const struct err *err)
{
  (void)err; /* it has ended, or its sandbox has */
  free(kill);
}

static int send_signal(struct process *p, int signal, struct err *err)
{
  struct engine *e = p->sb->engine->engine;
  struct kill_op *kill = xcalloc(1, sizeof *kill);
  *kill = (struct kill_op){
      .box = p->sb->create.ret_box, .exec = &p->x->run, .signal = signal, .on_done = on_signalled};
  int rc = e->ops->kill(e, kill, err);
  if (rc < 0) free(kill);
  return rc;
}

/* One that has ended has nothing against it. */
static int kill_start(struct op *op, void *ctx, struct err *err)
{
  struct err own = {0};
  struct process_args args;
  struct process *p = find(ctx, op, PROCESS_KILL, &args, err ? err : &own);
  if (!p) return err_errno(err ? err : &own);
  bool over = !p->x || p->sb->end != END_NONE;
  int rc = args.signal && !over ? send_signal(p, args.signal, err) : 0;
  if (rc < 0) return rc;
  struct ask *a = ask(p, op, ASK_KILL);
  if (args.signal || !p->x)
    answer_empty(a);
  else
    sandbox_exec_kill(p->x, REASON_SIGNAL);
  return 0;
}

static int output_start(struct op *op, void *ctx, struct err *err)
{
  struct err own = {0};
  struct process_args args;
  struct process *p = find(ctx, op, PROCESS_OUTPUT, &args, err ? err : &own);
  if (!p) return err_errno(err ? err : &own);
  LIST_FOREACH (it, &p->asks) {
    const struct ask *other = list_entry(it, struct ask, node);
    if (other->kind == ASK_OUTPUT && other->stream == args.stream)
      return err_set(err, ERR_CONFLICT, EBUSY, "somebody else reads this output already");
  }
  struct ask *a = ask(p, op, ASK_OUTPUT);
  a->stream = args.stream;
  a->max = args.max;
  p->readers[args.stream].attached = true;
  p->ignored = false;
  answer_output(a);
  update_flow(p);
  return 0;
}

static int input_start(struct op *op, void *ctx, struct err *err)
{
  struct err own = {0};
  struct process_args args;
  struct process *p = find(ctx, op, PROCESS_INPUT, &args, err ? err : &own);
  if (!p) return err_errno(err ? err : &own);
  bool over = !p->x || p->input_ended;
  if (over && !args.close)
    return err_set(err, ERR_CONFLICT, EPIPE,
                   p->x ? "the command's input is closed" : "the command has ended");
  struct ask *a = ask(p, op, ASK_INPUT);
  a->close = args.close;
  if (over) answer_empty(a);
  return 0;
}

static void input_come(struct op *op, void *ctx, const void *data, size_t len)
{
  (void)ctx;
  struct ask *a = op->handler_data;
  struct process *p = a ? a->p : NULL;
  if (!p || !p->x || a->fed) return;
  if (len > 0 && !p->input_ended) {
    sandbox_exec_input(p->x, data, len);
    if (p->input_full) op_input_full(op, true);
    return;
  }
  a->fed = len == 0;
  if (!a->fed) return;
  if (a->close && !p->input_ended) {
    p->input_ended = true;
    sandbox_exec_input(p->x, NULL, 0);
  }
  if (a->close || !p->input_full) answer_empty(a);
}

static const struct op_handler handlers[] = {
    {.name = "sandbox.wait", .start = wait_start, .cancel = ask_cancel},
    {.name = "sandbox.kill", .start = kill_start, .cancel = ask_cancel},
    {.name = "sandbox.output", .start = output_start, .cancel = ask_cancel},
    {.name = "sandbox.input", .start = input_start, .cancel = ask_cancel, .input = input_come},
};

void process_handlers_register(struct supervisor *sup)
{
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    ops_register(sup->ops, &handlers[i], sup);
}

/* Programs that specs run: started by uv_spawn in sessions of their own, output captured whole,
 * waited for by op.
 *
 * Owns every struct child from test.proc.start to test.proc.free. A child is done when it has
 * exited and both of its output streams have ended, which tells a spec whether somebody else still
 * holds them. Waits are ops that finish when their child is done or their time is over. Of a
 * stream with a lot of output the first and the last MiBs are kept.
 *
 *   running → exited → done (streams ended too) → freed (handles closed) */
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/list.h"
#include "core/loop.h"
#include "core/op.h"

enum { MAX_HELPERS = 64, KEEP_MAX = 64 << 20, KEEP_END = 8 << 20 };

struct proc_ops {
  struct loop *loop;
  struct list children;       /* struct child.node */
  int64_t next_id;            /* of the next child */
  pid_t helpers[MAX_HELPERS]; /* children of this process that others wait for */
  size_t helpers_n;
  void (*done)(void *data); /* of the close under way, or NULL */
  void *data;
};

struct capture {
  uv_pipe_t pipe;
  struct buf text; /* all that came */
  bool ended;
  struct child *child;
};

struct child {
  struct proc_ops *owner;
  struct list node;    /* proc_ops.children */
  struct list waiters; /* struct waiter.node */
  int64_t id;
  uv_process_t process;
  uv_pipe_t in;
  struct capture out, err;
  bool has_in;    /* `in` was opened */
  bool in_over;   /* it closes once its writes are through */
  bool exited;    /* status and signal are set */
  bool freed;     /* asked to go: closing */
  int handles;    /* open or closing; freed with the last one */
  int64_t status; /* exit code */
  int signal;     /* number, 0 = none */
  uint64_t start_ms, end_ms;
};

struct waiter {
  struct op *op;
  struct list node; /* child.waiters */
  struct timer limit;
};

static const struct val *arg_list(const struct op *op, const char *key)
{
  const struct val *v = val_get(&op->args, key);
  return v && v->type == VAL_LIST ? v : NULL;
}

static struct child *find(struct proc_ops *p, const struct op *op, struct err *err)
{
  int64_t id = val_get_int(&op->args, "id", 0);
  LIST_FOREACH (it, &p->children) {
    struct child *c = list_entry(it, struct child, node);
    if (c->id == id && !c->freed) return c;
  }
  err_arg(err, "id", "there is no program %lld", (long long)id);
  return NULL;
}

static bool is_done(const struct child *c)
{
  return c->exited && c->out.ended && c->err.ended;
}

static struct val describe(const struct child *c)
{
  struct val r = val_map();
  val_set(&r, "done", val_bool(is_done(c)));
  val_set(&r, "exited", val_bool(c->exited));
  if (c->exited && !c->signal) val_set(&r, "status", val_int(c->status));
  if (c->exited && c->signal) {
    const char *name = sigabbrev_np(c->signal);
    struct buf b = {0};
    buf_printf(&b, "SIG%s", name ? name : "?");
    val_set(&r, "signal", val_str(b.data));
    buf_free(&b);
  }
  val_set(&r, "stdout", val_bytes(c->out.text.data, c->out.text.len));
  val_set(&r, "stderr", val_bytes(c->err.text.data, c->err.text.len));
  uint64_t end = c->exited ? c->end_ms : clock_mono_ms();
  val_set(&r, "duration_ms", val_int((int64_t)(end - c->start_ms)));
  return r;
}

static void waiter_finish(struct waiter *w, const struct child *c, const struct err *err)
{
  list_remove(&w->node);
  timer_stop(c->owner->loop, &w->limit);
  if (!err) w->op->result = describe(c);
  op_finish(w->op, err);
  free(w);
}

static void check_done(struct child *c)
{
  if (!is_done(c)) return;
  LIST_FOREACH_SAFE (it, &c->waiters) {
    waiter_finish(list_entry(it, struct waiter, node), c, NULL);
  }
}

/* --- handles ---------------------------------------------------------------------------------- */

static void child_release(struct child *c)
{
  struct proc_ops *p = c->owner;
  list_remove(&c->node);
  buf_free(&c->out.text);
  buf_free(&c->err.text);
  free(c);
  if (p->done && list_empty(&p->children)) {
    p->done(p->data);
    free(p);
  }
}

static void on_closed(uv_handle_t *h)
{
  struct child *c = h->data;
  if (--c->handles == 0) child_release(c);
}

static void close_handle(uv_handle_t *h)
{
  if (!uv_is_closing(h)) uv_close(h, on_closed);
}

static void child_free(struct child *c)
{
  c->freed = true;
  if (!c->exited) kill(-c->process.pid, SIGKILL);
  if (c->has_in) close_handle((uv_handle_t *)&c->in);
  close_handle((uv_handle_t *)&c->out.pipe);
  close_handle((uv_handle_t *)&c->err.pipe);
  close_handle((uv_handle_t *)&c->process);
}

static void on_ended(uv_process_t *process, int64_t status, int sig)
{
  struct child *c = process->data;
  c->exited = true;
  c->status = status;
  c->signal = sig;
  c->end_ms = clock_mono_ms();
  check_done(c);
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *ret)
{
  (void)h, (void)hint;
  static char room[65536];
  *ret = uv_buf_init(room, sizeof room);
}

static void cut_middle(struct buf *b)
{
  memmove(b->data + KEEP_END, b->data + b->len - KEEP_END, KEEP_END);
  b->len = 2 * KEEP_END;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
  struct child *c = stream->data;
  struct capture *cap = (uv_pipe_t *)stream == &c->out.pipe ? &c->out : &c->err;
  if (n > 0) {
    buf_append(&cap->text, buf->base, (size_t)n);
    if (cap->text.len > KEEP_MAX) cut_middle(&cap->text);
  } else if (n < 0) {
    cap->ended = true;
    uv_read_stop(stream);
    check_done(c);
  }
}

/* --- start ------------------------------------------------------------------------------------ */

/* A NULL-terminated array that points into v; the caller frees the array. NULL for no list. */
static char **strings(const struct val *v)
{
  if (!v) return NULL;
  char **out = xcalloc(v->list.n + 1, sizeof *out);
  for (size_t i = 0; i < v->list.n; i++)
    out[i] = v->list.v[i].type == VAL_STR ? v->list.v[i].s.p : (char *)"";
  return out;
}

struct write_req {
  uv_write_t req;
  char *data; /* owned */
};

/* Closes stdin once nothing waits to be written any more. */
static void in_drained(struct child *c)
{
  if (c->in_over && uv_stream_get_write_queue_size((uv_stream_t *)&c->in) == 0)
    close_handle((uv_handle_t *)&c->in);
}

static void on_written(uv_write_t *req, int status)
{
  struct write_req *w = (struct write_req *)req;
  struct child *c = req->handle->data;
  free(w->data);
  free(w);
  if (status < 0) c->in_over = true; /* a reader that is gone is the spec's business */
  in_drained(c);
}

static void write_in(struct child *c, const struct val *data)
{
  if (!c->has_in || c->in_over || !data || data->type != VAL_STR || data->s.len == 0) return;
  struct write_req *w = xcalloc(1, sizeof *w);
  w->data = xmemdup(data->s.p, data->s.len);
  uv_buf_t b = uv_buf_init(w->data, (unsigned)data->s.len);
  if (uv_write(&w->req, (uv_stream_t *)&c->in, &b, 1, on_written) < 0) abort();
}

/* Closes stdin behind what is still being written. */
static void shut_in(struct child *c)
{
  if (!c->has_in) return;
  c->in_over = true;
  in_drained(c);
}

/* A real pipe, as a shell makes it (libuv's own are sockets). Returns the program's end. */
static int pipe_open(struct child *c, uv_pipe_t *pipe, bool write)
{
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) abort();
  uv_pipe_init(loop_uv(c->owner->loop), pipe, 0);
  uv_pipe_open(pipe, fds[write ? 1 : 0]);
  pipe->data = c;
  c->handles++;
  return fds[write ? 0 : 1];
}

static struct child *child_new(struct proc_ops *p, bool has_in)
{
  struct child *c = xcalloc(1, sizeof *c);
  c->owner = p;
  c->id = ++p->next_id;
  c->has_in = has_in;
  c->process.data = c;
  c->start_ms = clock_mono_ms();
  list_init(&c->waiters);
  list_append(&p->children, &c->node);
  return c;
}

static int spawn(struct child *c, const struct op *op)
{
  char **argv = strings(arg_list(op, "argv")), **env = strings(arg_list(op, "env"));
  int in = c->has_in ? pipe_open(c, &c->in, true) : -1;
  cleanup_close int in_end = in, out_end = pipe_open(c, &c->out.pipe, false);
  cleanup_close int err_end = pipe_open(c, &c->err.pipe, false);
  uv_stdio_container_t stdio[3] = {
      {.flags = c->has_in ? UV_INHERIT_FD : UV_IGNORE, .data.fd = in_end},
      {.flags = UV_INHERIT_FD, .data.fd = out_end},
      {.flags = UV_INHERIT_FD, .data.fd = err_end}};
  int64_t uid = val_get_int(&op->args, "uid", -1), gid = val_get_int(&op->args, "gid", uid);
  uv_process_options_t o = {.exit_cb = on_ended,
                            .file = argv && argv[0] ? argv[0] : "",
                            .args = argv,
                            .env = env,
                            .cwd = val_get_str(&op->args, "cwd", NULL),
                            .flags = UV_PROCESS_DETACHED,
                            .stdio_count = 3,
                            .stdio = stdio};
  if (uid >= 0) {
    o.flags |= UV_PROCESS_SETUID | UV_PROCESS_SETGID;
    o.uid = (uv_uid_t)uid;
    o.gid = (uv_gid_t)gid;
  }
  int rc = uv_spawn(loop_uv(c->owner->loop), &c->process, &o);
  c->handles++;
  free(argv);
  free(env);
  return rc;
}

static int proc_start(struct op *op, void *ctx, struct err *err)
{
  struct proc_ops *p = ctx;
  const struct val *text = val_get(&op->args, "stdin");
  struct child *c = child_new(p, text || val_get_bool(&op->args, "stdin_open", false));
  int rc = spawn(c, op);
  if (rc < 0) {
    c->exited = true;
    child_free(c);
    return err_arg(err, "argv", "cannot start the program: %s", uv_strerror(rc));
  }
  write_in(c, text);
  if (text) shut_in(c);
  uv_read_start((uv_stream_t *)&c->err.pipe, on_alloc, on_read);
  if (val_get_bool(&op->args, "close_stdout", false)) {
    c->out.ended = true;
    close_handle((uv_handle_t *)&c->out.pipe);
  } else {
    uv_read_start((uv_stream_t *)&c->out.pipe, on_alloc, on_read);
  }
  op->result = val_map();
  val_set(&op->result, "id", val_int(c->id));
  val_set(&op->result, "pid", val_int(c->process.pid));
  op_finish(op, NULL);
  return 0;
}

/* --- the other ops ---------------------------------------------------------------------------- */

static void on_limit(struct timer *t)
{
  struct waiter *w = t->data;
  struct child *c = w->op->handler_data;
  waiter_finish(w, c, NULL);
}

static int proc_wait(struct op *op, void *ctx, struct err *err)
{
  struct proc_ops *p = ctx;
  struct child *c = find(p, op, err);
  if (!c) return err_errno(err);
  struct waiter *w = xcalloc(1, sizeof *w);
  w->op = op;
  w->limit = (struct timer){.cb = on_limit, .data = w};
  op->handler_data = c;
  list_append(&c->waiters, &w->node);
  timer_start(p->loop, &w->limit, (uint64_t)val_get_int(&op->args, "timeout_ms", 30000));
  check_done(c);
  return 0;
}

static void proc_wait_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct child *c = op->handler_data;
  LIST_FOREACH_SAFE (it, &c->waiters) {
    struct waiter *w = list_entry(it, struct waiter, node);
    struct err e = {0};
    err_set(&e, op->cancel_why, 0, "no longer waiting for the program");
    if (w->op == op) waiter_finish(w, c, &e);
  }
}

static int proc_peek(struct op *op, void *ctx, struct err *err)
{
  struct child *c = find(ctx, op, err);
  if (!c) return err_errno(err);
  op->result = describe(c);
  op_finish(op, NULL);
  return 0;
}

static int proc_write(struct op *op, void *ctx, struct err *err)
{
  struct child *c = find(ctx, op, err);
  if (!c) return err_errno(err);
  const struct val *data = val_get(&op->args, "data");
  if (data && data->type == VAL_STR && data->s.len)
    write_in(c, data);
  else
    shut_in(c);
  op_finish(op, NULL);
  return 0;
}

static int proc_free(struct op *op, void *ctx, struct err *err)
{
  struct child *c = find(ctx, op, err);
  if (!c) return err_errno(err);
  child_free(c);
  op_finish(op, NULL);
  return 0;
}

static int do_kill(struct op *op, void *ctx, struct err *err)
{
  (void)ctx;
  pid_t pid = (pid_t)val_get_int(&op->args, "pid", 0);
  if (pid == 0 || pid == 1 || pid == -1) return err_arg(err, "pid", "not %d", (int)pid);
  op->result = val_bool(kill(pid, (int)val_get_int(&op->args, "signal", 0)) == 0);
  op_finish(op, NULL);
  return 0;
}

/* Calls fn for each child of this process. */
static void each_child(struct proc_ops *p, void (*fn)(struct proc_ops *p, pid_t pid, char state))
{
  DIR *d = opendir("/proc");
  if (!d) return;
  for (struct dirent *e; (e = readdir(d));) {
    char path[300], text[512], state;
    int parent;
    if (atoi(e->d_name) <= 0) continue;
    snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
    FILE *f = fopen(path, "re");
    if (!f) continue;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    const char *rest = strrchr(text, ')');
    if (rest && sscanf(rest + 1, " %c %d", &state, &parent) == 2 && parent == getpid())
      fn(p, atoi(e->d_name), state);
  }
  closedir(d);
}

static void note_helper(struct proc_ops *p, pid_t pid, char state)
{
  (void)state;
  if (p->helpers_n < MAX_HELPERS) p->helpers[p->helpers_n++] = pid;
}

/* libuv waits for its own children, by pid; whoever started a helper waits for that. */
static void reap_orphan(struct proc_ops *p, pid_t pid, char state)
{
  if (state != 'Z') return;
  for (size_t i = 0; i < p->helpers_n; i++)
    if (p->helpers[i] == pid) return;
  LIST_FOREACH (it, &p->children) {
    if (list_entry(it, struct child, node)->process.pid == pid) return;
  }
  waitpid(pid, NULL, WNOHANG);
}

static int do_reap(struct op *op, void *ctx, struct err *err)
{
  (void)err;
  each_child(ctx, reap_orphan);
  op_finish(op, NULL);
  return 0;
}

static const struct op_handler handlers[] = {
    {.name = "test.proc.start", .start = proc_start},
    {.name = "test.proc.wait", .start = proc_wait, .cancel = proc_wait_cancel},
    {.name = "test.proc.peek", .start = proc_peek},
    {.name = "test.proc.write", .start = proc_write},
    {.name = "test.proc.free", .start = proc_free},
    {.name = "test.kill", .start = do_kill},
    {.name = "test.reap", .start = do_reap},
};

struct proc_ops *proc_ops_new(struct loop *loop, struct ops *ops)
{
  struct proc_ops *p = xcalloc(1, sizeof *p);
  p->loop = loop;
  list_init(&p->children);
  each_child(p, note_helper);
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    ops_register(ops, &handlers[i], p);
  return p;
}

void proc_ops_close(struct proc_ops *p, void (*done)(void *data), void *data)
{
  if (list_empty(&p->children)) {
    free(p);
    done(data);
    return;
  }
  p->done = done;
  p->data = data;
  LIST_FOREACH_SAFE (it, &p->children) {
    struct child *c = list_entry(it, struct child, node);
    if (!c->freed) child_free(c);
  }
}

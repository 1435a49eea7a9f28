/* A command as the host sees it: three pipes, a report, and the rules for when it is over.
 *
 *   started ──report──▶ draining ──(both pipes at their end, or 100 ms)──▶ done
 *      └──refused──────────────────────────────────────────────────────▶ done
 *
 * Output goes to the caller in pieces as it comes and is never kept here. A caller that cannot keep
 * up pauses it: then the pipes fill and the command waits. What is only counted is read a burst at
 * a time with rests between: a flood that nobody will see must not keep this thread, which serves
 * all sandboxes, and the command's processor busy as fast as the two can. A kill of all that the
 * command started is over when the agent reports; an agent that does not within KILL_WAIT_MS has
 * lost its box.
 *
 * Whatever comes from the agent is checked here: unknown ids and impossible values end the box. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/local_internal.h"
#include "wire/file.h"

#define DRAIN_MS      100
#define KILL_WAIT_MS  5000
#define READS_A_TURN  4
#define READS_AT_END  16
#define REST_MS       1 /* after a burst of what is only counted */
#define PIPE_BIG      (256 * 1024)
#define ARG_MAX_LEN   (128 * 1024 - 1) /* the kernel's MAX_ARG_STRLEN, less the NUL */
#define TEXT_MAX_LEN  (8 * 1024 * 1024)
#define INPUT_FULL    (256 * 1024)
#define INPUT_LOW     (64 * 1024)
#define EXIT_CODE_MAX 255
#define SIGNAL_MAX    64

struct exec;

struct stream {
  struct exec *exec;
  enum exec_stream which;
  int fd; /* -1: at its end */
  bool big;
  struct watch watch;
  struct timer rest; /* runs: watch does not, until it is over */
};

struct exec {
  struct list node;
  struct engine_box *box;
  struct exec_op *op;
  uint64_t id;
  struct stream out[2];
  int in; /* write end of stdin; -1 = none, or closed */
  struct watch in_watch;
  struct buf input; /* not yet written */
  bool input_ended; /* close stdin once it is */
  bool input_full;  /* the caller was told so */
  bool paused, started, exited;
  uint64_t start_ms; /* of the request */
  bool kill_sent;
  struct proto_exited report; /* once exited */
  struct list kills;          /* struct kill_req.node */
  struct timer drain, kill_wait;
  struct defer tell_full; /* input_full changed inside the caller's call */
};

/* --- end -------------------------------------------------------------------------------------- */

static void close_stream(struct stream *s)
{
  if (s->fd < 0) return;
  watch_stop(s->exec->box->engine->watcher, &s->watch);
  timer_stop(s->exec->box->engine->loop, &s->rest);
  close(s->fd);
  s->fd = -1;
}

static void close_input(struct exec *x)
{
  if (x->in < 0) return;
  watch_stop(x->box->engine->watcher, &x->in_watch);
  close(x->in);
  x->in = -1;
  buf_free(&x->input);
}

static void fill_result(struct exec_op *op, const struct proto_exited *r)
{
  op->ret_end = r->how == EXITED_CODE     ? EXEC_END_EXITED
                : r->how == EXITED_SIGNAL ? EXEC_END_SIGNAL
                                          : EXEC_END_OOM;
  op->ret_code = r->code;
  op->ret_duration_us = r->duration_us;
  op->ret_cpu_us = r->cpu_us;
  op->ret_max_rss_kib = r->max_rss_kib;
}

static void finish(struct exec *x, const struct err *err)
{
  struct local *e = x->box->engine;
  struct exec_op *op = x->op;
  for (int i = 0; i < 2; i++) close_stream(&x->out[i]);
  close_input(x);
  timer_stop(e->loop, &x->drain);
  timer_stop(e->loop, &x->kill_wait);
  loop_defer_cancel(e->loop, &x->tell_full);
  list_remove(&x->node);
  while (!list_empty(&x->kills)) {
    struct kill_req *k = list_entry(x->kills.next, struct kill_req, node);
    list_remove(&k->node);
    kill_done_later(e, k->op, NULL);
    free(k);
  }
  if (!err && x->exited) fill_result(op, &x->report);
  free(x);
  op->engine_data = NULL;
  op->on_done(op, err);
}

/* --- output ----------------------------------------------------------------------------------- */

/* One read, given to the caller. Returns how much, 0 when there is nothing more (for now or ever).
 */
static size_t read_stream(struct stream *s)
{
  struct exec *x = s->exec;
  char *chunk = x->box->engine->chunk;
  ssize_t n = s->fd < 0 ? 0 : read(s->fd, chunk, LOCAL_CHUNK);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (n <= 0) {
    close_stream(s);
    return 0;
  }
  if (n == LOCAL_CHUNK && !s->big) {
    s->big = true; /* a refusal (the user's share of pipe memory is used up) costs only speed */
    fcntl(s->fd, F_SETPIPE_SZ, PIPE_BIG);
  }
  x->op->on_chunk(x->op, s->which, chunk, (size_t)n);
  return (size_t)n;
}

/* All that is in the pipe now, and no more than that: a child of the command may write for ever. */
static void empty_stream(struct stream *s)
{
  int left = 0;
  if (s->fd < 0 || ioctl(s->fd, FIONREAD, &left) < 0) return;
  while (left > 0) {
    size_t n = read_stream(s);
    if (n == 0) return;
    left -= (int)n;
  }
}

static bool drained(const struct exec *x)
{
  return x->out[0].fd < 0 && x->out[1].fd < 0;
}

/* Waits for output, or does not: as the pause, and a rest that has not ended, want it. */
static void watch_stream(struct stream *s)
{
  struct watcher *w = s->exec->box->engine->watcher;
  if (s->fd < 0) return;
  if (s->exec->paused || timer_running(&s->rest))
    watch_stop(w, &s->watch);
  else
    watch_set(w, &s->watch, s->fd, EPOLLIN);
}

static void watch_streams(struct exec *x)
{
  for (int i = 0; i < 2; i++) watch_stream(&x->out[i]);
}

static void on_rested(struct timer *t)
{
  watch_stream(t->data);
}

static void on_output(struct watch *watch, uint32_t events)
{
  struct stream *s = watch->data;
  struct exec *x = s->exec;
  (void)events;
  for (int i = 0; i < READS_A_TURN && !x->paused; i++)
    if (read_stream(s) < LOCAL_CHUNK) break;
  if (x->exited && drained(x)) {
    finish(x, NULL);
  } else if (x->op->only_counted[s->which - 1] && !x->exited && s->fd >= 0) {
    timer_start(x->box->engine->loop, &s->rest, REST_MS);
    watch_stream(s);
  }
}

static void finish_drained(struct exec *x)
{
  for (int i = 0; i < 2; i++) empty_stream(&x->out[i]);
  finish(x, NULL);
}

static void on_drain(struct timer *t)
{
  finish_drained(t->data);
}

/* The command has ended. Usually its pipes have too; whoever still holds them gets 100 ms. */
static void drain(struct exec *x)
{
  if (x->kill_sent) {
    finish_drained(x);
    return;
  }
  for (int i = 0; i < 2; i++)
    for (int k = 0; k < READS_AT_END && !x->paused; k++)
      if (read_stream(&x->out[i]) < LOCAL_CHUNK) break;
  /* A pipe that is empty says so only at the next read: ask once more for its end. */
  for (int i = 0; i < 2 && !x->paused; i++) read_stream(&x->out[i]);
  if (drained(x))
    finish(x, NULL);
  else if (!x->paused)
    timer_start(x->box->engine->loop, &x->drain, DRAIN_MS);
}

void run_flow(struct exec_op *op, bool paused)
{
  struct exec *x = op->engine_data;
  if (!x || x->paused == paused) return;
  x->paused = paused;
  watch_streams(x);
  if (!x->exited) return;
  if (paused)
    timer_stop(x->box->engine->loop, &x->drain);
  else
    timer_start(x->box->engine->loop, &x->drain, DRAIN_MS);
}

/* --- input ------------------------------------------------------------------------------------ */

static void say_input_full(struct exec *x)
{
  bool full = x->input_full ? x->input.len >= INPUT_LOW : x->input.len > INPUT_FULL;
  if (full == x->input_full) return;
  x->input_full = full;
  if (x->op->on_input_full) x->op->on_input_full(x->op, full);
}

/* Writes what the pipe takes; what is left waits for room. A reader that is gone swallows it. */
static void write_input(struct exec *x)
{
  size_t done = 0;
  while (done < x->input.len) {
    ssize_t n = write(x->in, x->input.data + done, x->input.len - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) {
      close_input(x);
      return;
    }
    done += (size_t)n;
  }
  buf_consume(&x->input, done);
  if (x->input.len > 0) {
    watch_set(x->box->engine->watcher, &x->in_watch, x->in, EPOLLOUT);
  } else {
    watch_stop(x->box->engine->watcher, &x->in_watch);
    if (x->input_ended) close_input(x);
  }
}

static void on_input(struct watch *watch, uint32_t events)
{
  struct exec *x = watch->data;
  (void)events;
  write_input(x);
  say_input_full(x);
}

static void on_tell_full(struct defer *d)
{
  say_input_full(d->data);
}

void run_input(struct exec_op *op, const void *data, size_t len)
{
  struct exec *x = op->engine_data;
  if (!x || x->in < 0 || x->input_ended) return;
  if (len == 0)
    x->input_ended = true;
  else
    buf_append(&x->input, data, len);
  write_input(x);
  loop_defer(x->box->engine->loop, &x->tell_full); /* never from inside the caller's own call */
}

/* --- the agent's reports ---------------------------------------------------------------------- */

static struct exec *find(struct engine_box *b, uint64_t id)
{
  LIST_FOREACH (it, &b->execs) {
    struct exec *x = list_entry(it, struct exec, node);
    if (x->id == id) return x;
  }
  return NULL;
}

static const char *user_of(const struct exec *x)
{
  const char *own = x->op->file ? x->op->file->user : x->op->args->user;
  return own ? own : x->box->user;
}

static void refused_error(const struct exec *x, const struct proto_refused *msg, struct err *err)
{
  const char *cwd = x->op->args && x->op->args->cwd ? x->op->args->cwd : x->box->cwd;
  const char *user = user_of(x);
  const char *why = strerror(msg->error);
  switch ((enum refused_why)msg->why) {
  case REFUSED_CWD: err_arg(err, "cwd", "cwd: cannot enter \"%s\": %s", cwd ? cwd : "", why); break;
  case REFUSED_USER:
    err_arg(err, "user", "there is no user \"%s\" in this sandbox", user ? user : "");
    break;
  case REFUSED_ARGS:
    err_arg(err, "command", "arguments and environment are too long together: %s", why);
    break;
  case REFUSED_PIDS:
    err_set(err, ERR_EXEC_FAILED, msg->error, "the sandbox's limit of processes is reached");
    err_hint(err, "create it with a larger pids");
    break;
  case REFUSED_OTHER:
  case REFUSED_COUNT:
    err_set(err, ERR_EXEC_FAILED, msg->error, "the command could not be started: %s", why);
    break;
  }
}

bool run_on_refused(struct engine_box *b, const struct proto_refused *msg)
{
  struct exec *x = find(b, msg->exec);
  if (!x || x->exited || msg->why >= REFUSED_COUNT || msg->error < 0) return false;
  struct err err = {0};
  refused_error(x, msg, &err);
  finish(x, &err);
  return true;
}

bool run_on_started(struct engine_box *b, const struct proto_started *msg)
{
  struct exec *x = find(b, msg->exec);
  if (!x || x->exited || x->started || !x->op->on_started || msg->pid < 1) return false;
  x->started = true;
  x->op->on_started(x->op, msg->pid);
  return true;
}

bool run_on_exited(struct engine_box *b, const struct proto_exited *msg)
{
  struct exec *x = find(b, msg->exec);
  if (!x || x->exited || msg->how >= EXITED_COUNT) return false;
  int max = msg->how == EXITED_CODE ? EXIT_CODE_MAX : SIGNAL_MAX;
  if (msg->code < 0 || msg->code > max) return false;
  x->exited = true;
  x->report = *msg;
  for (int i = 0; i < 2; i++) timer_stop(b->engine->loop, &x->out[i].rest);
  watch_streams(x);
  timer_stop(b->engine->loop, &x->kill_wait);
  drain(x);
  return true;
}

void run_end_all(struct engine_box *b, bool oom)
{
  while (!list_empty(&b->execs)) {
    struct exec *x = list_entry(b->execs.next, struct exec, node);
    if (!x->exited) {
      x->op->ret_end = oom ? EXEC_END_OOM : EXEC_END_LOST;
      x->op->ret_code = 0;
      x->op->ret_duration_us = (loop_now_ms(b->engine->loop) - x->start_ms) * 1000;
    }
    finish_drained(x);
  }
}

/* --- kill ------------------------------------------------------------------------------------- */

static void on_kill_wait(struct timer *t)
{
  struct exec *x = t->data;
  box_lose(x->box);
}

static int send_exec_kill(struct exec *x, int signo)
{
  struct proto_exec_kill msg = {.type = PROTO_EXEC_KILL, .signal = signo, .exec = x->id};
  struct proto_piece piece = {&msg, sizeof msg};
  return x->box->sock < 0 ? 0 : box_send(x->box, &piece, 1, NULL, 0);
}

int run_kill(struct engine_box *b, struct exec_op *op, struct kill_op *kill, struct err *err)
{
  struct exec *x = op->engine_data;
  if (!x || b->state == BOX_DEAD) {
    kill_done_later(b->engine, kill, NULL);
    return 0;
  }
  if (kill->signal < 0 || kill->signal > SIGNAL_MAX)
    return err_arg(err, "signal", "%d is no signal", kill->signal);
  if (kill->signal) {
    send_exec_kill(x, kill->signal);
    kill_done_later(b->engine, kill, NULL);
    return 0;
  }
  struct kill_req *k = xcalloc(1, sizeof *k);
  k->op = kill;
  list_append(&x->kills, &k->node);
  if (x->exited) {
    timer_start(b->engine->loop, &x->drain,
                0); /* it only waits for others to let go of its pipes */
  } else if (!x->kill_sent) {
    x->kill_sent = true;
    send_exec_kill(x, 0);
    timer_start(b->engine->loop, &x->kill_wait, KILL_WAIT_MS);
  }
  return 0;
}

/* --- start ------------------------------------------------------------------------------------ */

static int check_args(const struct exec_args *a, struct err *err)
{
  if (a->argv.n == 0 || !a->argv.v[0][0]) return err_arg(err, "command", "must not be empty");
  for (size_t i = 0; i < a->argv.n; i++)
    if (strlen(a->argv.v[i]) > ARG_MAX_LEN)
      return err_arg(err, "command",
                     "argument %zu is %zu bytes long; the kernel takes at most %d in one", i + 1,
                     strlen(a->argv.v[i]), ARG_MAX_LEN);
  for (size_t i = 0; i < a->env.n; i++)
    if (strlen(a->env.v[i]) > ARG_MAX_LEN)
      return err_arg(err, "env", "%.*s is too long; the kernel takes at most %d bytes",
                     (int)strcspn(a->env.v[i], "="), a->env.v[i], ARG_MAX_LEN);
  return 0;
}

static void put_string(struct buf *text, const char *s)
{
  buf_append(text, s ? s : "", s ? strlen(s) + 1 : 1);
}

static bool overrides(const struct strv *env, const char *entry)
{
  size_t n = strcspn(entry, "=") + 1;
  for (size_t i = 0; i < env->n; i++)
    if (strncmp(env->v[i], entry, n) == 0) return true;
  return false;
}

/* An operation on files, as agent_file reads it. */
static void write_file_text(const struct exec *x, struct buf *text, struct proto_exec *head)
{
  const struct file_args *f = x->op->file;
  put_string(text, x->box->cwd);
  put_string(text, user_of(x));
  buf_printf(text, "%d", f->kind);
  buf_putc(text, '\0');
  put_string(text, f->path);
  buf_printf(text, "%u", f->mode);
  buf_putc(text, '\0');
  buf_printf(text, "%llu", (unsigned long long)f->max);
  buf_putc(text, '\0');
  put_string(text, f->follow ? "1" : "0");
  head->flags |= EXEC_FILE;
  head->argc = EXEC_FILE_ARGC;
  head->len = (uint32_t)text->len;
}

/* The strings of the request (proto.h), with the box's defaults filled in. */
static void write_text(const struct engine_box *b, const struct exec_args *a, struct buf *text,
                       struct proto_exec *head)
{
  put_string(text, a->cwd ? a->cwd : b->cwd);
  put_string(text, a->user ? a->user : b->user);
  for (size_t i = 0; i < a->argv.n; i++) put_string(text, a->argv.v[i]);
  head->argc = (uint32_t)a->argv.n;
  for (size_t i = 0; i < b->env.n; i++) {
    if (overrides(&a->env, b->env.v[i])) continue;
    put_string(text, b->env.v[i]);
    head->envc++;
  }
  for (size_t i = 0; i < a->env.n; i++) put_string(text, a->env.v[i]);
  head->envc += (uint32_t)a->env.n;
  head->len = (uint32_t)text->len;
}

static int make_memfd(const struct buf *text)
{
  cleanup_close int fd = memfd_create("regolith-exec", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  for (size_t at = 0; at < text->len;) {
    ssize_t n = write(fd, text->data + at, text->len - at);
    if (n < 0) return -1;
    at += (size_t)n;
  }
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
    return -1;
  return take_fd(&fd);
}

/* A pipe whose end ours does not block and whose inode anyone who has it may open again: a command
 * that writes to /dev/stderr does just that, as a user that does not own it. */
static int make_pipe(int fds[2], int ours)
{
  if (pipe2(fds, O_CLOEXEC) < 0) return -1;
  fcntl(fds[ours], F_SETFL, O_NONBLOCK);
  fchmod(fds[0], 0666);
  return 0;
}

struct ends {
  int fds[4]; /* for the agent, in the order of proto.h */
  size_t n;
};

static void close_ends(struct ends *ends)
{
  while (ends->n > 0) close(ends->fds[--ends->n]);
}

/* Does input follow, by exec_input? */
static bool takes_input(const struct exec_op *op)
{
  return op->file ? op->file->kind == FILE_UNPACK : op->args->stdin_stream;
}

static int open_pipes(struct exec *x, const struct buf *text, bool in_memfd, struct ends *ends)
{
  int p[2];
  if (in_memfd) {
    if ((p[0] = make_memfd(text)) < 0) return -1;
    ends->fds[ends->n++] = p[0];
  }
  if (takes_input(x->op) || (x->op->args && x->op->args->stdin_len > 0)) {
    if (make_pipe(p, 1) < 0) return -1;
    x->in = p[1];
    ends->fds[ends->n++] = p[0];
  }
  for (int i = 0; i < 2; i++) {
    if (make_pipe(p, 0) < 0) return -1;
    x->out[i].fd = p[0];
    ends->fds[ends->n++] = p[1];
  }
  return 0;
}

static struct exec *new_exec(struct engine_box *b, struct exec_op *op)
{
  struct exec *x = xcalloc(1, sizeof *x);
  x->box = b;
  x->op = op;
  x->id = b->engine->next_id++;
  x->in = -1;
  x->in_watch = (struct watch){.cb = on_input, .data = x};
  x->drain = (struct timer){.cb = on_drain, .data = x};
  x->kill_wait = (struct timer){.cb = on_kill_wait, .data = x};
  x->tell_full = (struct defer){.cb = on_tell_full, .data = x};
  x->start_ms = loop_now_ms(b->engine->loop);
  list_init(&x->kills);
  for (int i = 0; i < 2; i++) {
    x->out[i] = (struct stream){
        .exec = x, .which = i ? EXEC_STDERR : EXEC_STDOUT, .fd = -1, .watch = {.cb = on_output}};
    x->out[i].watch.data = &x->out[i];
    x->out[i].rest = (struct timer){.cb = on_rested, .data = &x->out[i]};
  }
  list_append(&b->execs, &x->node);
  return x;
}

static void drop_exec(struct exec *x)
{
  for (int i = 0; i < 2; i++) close_stream(&x->out[i]);
  close_input(x);
  list_remove(&x->node);
  free(x);
}

static int send_request(struct exec *x, struct err *err)
{
  struct proto_exec head = {.type = PROTO_EXEC, .exec = x->id};
  struct buf text = {0};
  struct ends ends = {.n = 0};
  if (x->op->file)
    write_file_text(x, &text, &head);
  else
    write_text(x->box, x->op->args, &text, &head);
  head.in_memfd = text.len > PROTO_INLINE_MAX;
  int rc = 0;
  if (text.len > TEXT_MAX_LEN)
    rc = err_arg(err, "command", "arguments and environment are %zu bytes long together", text.len);
  else if (open_pipes(x, &text, head.in_memfd, &ends) < 0)
    rc = err_set(err, ERR_CAPACITY, errno, "cannot make pipes: %s", strerror(errno));
  if (rc == 0) {
    if (x->in >= 0) head.flags |= EXEC_HAS_STDIN;
    if (x->op->on_started) head.flags |= EXEC_TELL;
    struct proto_piece pieces[2] = {{&head, sizeof head}, {text.data, text.len}};
    rc = box_send(x->box, pieces, head.in_memfd ? 1 : 2, ends.fds, ends.n);
    ends.n = 0;
    if (rc < 0) err_set(err, ERR_EXEC_FAILED, -rc, "the sandbox is ending");
  }
  close_ends(&ends);
  buf_free(&text);
  return rc < 0 ? rc : 0;
}

int run_start(struct engine_box *b, struct exec_op *op, struct err *err)
{
  if (b->state != BOX_RUNNING || b->kill_sent || b->sock < 0)
    return err_set(err, ERR_SANDBOX_TERMINATED, ESRCH, "the sandbox has ended");
  int rc = op->file ? 0 : check_args(op->args, err);
  if (rc < 0) return rc;
  struct exec *x = new_exec(b, op);
  rc = send_request(x, err);
  if (rc < 0) {
    drop_exec(x);
    return rc;
  }
  op->engine_data = x;
  op->ret_duration_us = op->ret_cpu_us = op->ret_max_rss_kib = 0;
  watch_streams(x);
  if (takes_input(op)) return 0;
  x->input_ended = true;
  if (x->in < 0) return 0;
  buf_append(&x->input, op->args->stdin_data, op->args->stdin_len);
  write_input(x);
  return 0;
}

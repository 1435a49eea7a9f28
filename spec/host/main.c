/* regolith-spec [BUSTED ARGUMENT...]: runs busted, and the specs it loads, as one script of our own
 * runtime.
 *
 * Wires loop, ops, supervisor and the local engine as `regolith run` does, so that a spec can say
 * `require "sandbox"` and block in a straight line. Unlike a user's script it has the whole
 * standard library, and the ops test.* : test.exit { code }  ends the script and then this process,
 * cleanly; os.exit is made of it test.log  {}        → { text }: what our own log has said since
 * last asked, which a spec thereby expects test.proc.* test.kill test.reap: see proc.h As a child
 * subreaper this process is the ancestor of all that its specs start (spec/support/sys.lua).
 *
 * Fails when busted does, when a sandbox is alive at the end, and when the log holds a warning
 * nobody asked for. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "cli/session.h"
#include "core/loop.h"
#include "core/op.h"
#include "engine/local/local.h"
#include "host/host.h"
#include "proc.h"
#include "wire/op.h"

#define BOOT "spec/support/boot.lua"

struct spec {
  struct host *host;
  struct proc_ops *procs;
  int status;       /* of this process; -1: test.exit was not called */
  size_t live;      /* sandboxes created and not ended */
  struct buf log;   /* warnings and errors nobody asked for yet */
  struct defer end; /* ends the script at the next turn */
};

/* --- the ops ---------------------------------------------------------------------------------- */

static void on_end_turn(struct defer *end)
{
  struct spec *s = end->data;
  struct err why = {0};
  err_set(&why, ERR_CANCELLED, 0, "the specs are over");
  host_cancel(s->host, &why, true);
}

static int test_exit(struct op *op, void *ctx, struct err *err)
{
  struct spec *s = ctx;
  (void)err;
  s->status = (int)val_get_int(&op->args, "code", 1);
  if (s->live > 0) {
    fprintf(stderr, "left over: %zu sandboxes live at the end of the specs\n", s->live);
    s->status = 1;
  }
  s->end.cb = on_end_turn;
  s->end.data = s;
  loop_defer(host_loop(s->host), &s->end);
  return 0;
}

static void test_exit_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct err e = {0};
  err_set(&e, op->cancel_why, 0, "the specs are over");
  op_finish(op, &e);
}

static int test_log(struct op *op, void *ctx, struct err *err)
{
  struct spec *s = ctx;
  (void)err;
  op->result = val_map();
  val_set(&op->result, "text", val_bytes(s->log.data, s->log.len));
  buf_free(&s->log);
  op_finish(op, NULL);
  return 0;
}

static const struct op_handler exit_handler = {
    .name = "test.exit", .start = test_exit, .cancel = test_exit_cancel};
static const struct op_handler log_handler = {.name = "test.log", .start = test_log};

/* --- hooks of the host ------------------------------------------------------------------------ */

static void on_output(void *data, size_t script, const char *text, size_t len)
{
  (void)data, (void)script;
  fwrite(text, 1, len, stdout);
  fflush(stdout);
}

static void on_script_log(void *data, size_t script, enum log_level level, const char *text,
                          size_t len)
{
  (void)data, (void)script;
  fprintf(stderr, "%s: %.*s\n", log_level_name(level), (int)len, text);
}

static void on_sandbox(void *data, size_t script, const struct val *fields)
{
  struct spec *s = data;
  (void)script;
  const char *event = val_get_str(fields, "event", "");
  if (strcmp(event, "sandbox_created") == 0) s->live++;
  if (strcmp(event, "sandbox_ended") == 0) s->live--;
}

static void on_end(void *data, size_t script, const struct host_result *result)
{
  struct spec *s = data;
  (void)script;
  if (s->status >= 0) return;
  fprintf(stderr, "the specs ended by themselves: %s\n%s\n", result->err.msg,
          result->traceback ? result->traceback : "");
  s->status = 1;
}

static void on_start(void *data, size_t script)
{
  (void)data, (void)script;
}

static void on_progress(void *data, size_t script, double done, double total, const char *text)
{
  (void)data, (void)script, (void)done, (void)total, (void)text;
}

static void on_task(void *data, size_t script, uint64_t task, uint64_t parent, const char *name,
                    const char *outcome)
{
  (void)data, (void)script, (void)task, (void)parent, (void)name, (void)outcome;
}

static const struct host_hooks hooks = {
    .on_start = on_start,
    .on_output = on_output,
    .on_log = on_script_log,
    .on_progress = on_progress,
    .on_task = on_task,
    .on_sandbox = on_sandbox,
    .on_end = on_end,
};

static void on_own_log(enum log_level level, const char *text, void *data)
{
  struct spec *s = data;
  fprintf(stderr, "regolith-spec: %s: %s\n", log_level_name(level), text);
  if (level >= LOG_WARN) buf_printf(&s->log, "%s: %s\n", log_level_name(level), text);
}

static void on_procs_closed(void *data)
{
  struct spec *s = data;
  host_stop(s->host);
}

static void on_idle(void *data, const struct err *err)
{
  struct spec *s = data;
  if (err) {
    fprintf(stderr, "left over: %s\n", err->msg);
    s->status = 1;
  }
  proc_ops_close(s->procs, on_procs_closed, s);
}

static void on_interrupt(void *data, int sig, int times)
{
  struct spec *s = data;
  (void)sig, (void)times;
  s->status = 130;
}

/* --- start ------------------------------------------------------------------------------------ */

static int read_file(const char *path, struct buf *ret)
{
  FILE *f = fopen(path, "re");
  if (!f) return -errno;
  char room[4096];
  for (size_t n; (n = fread(room, 1, sizeof room, f)) > 0;) buf_append(ret, room, n);
  fclose(f);
  return 0;
}

static int fail(const struct err *err)
{
  fprintf(stderr, "regolith-spec: %s%s%s\n", err->msg, err->hint[0] ? "; " : "", err->hint);
  return 1;
}

static int add_script(struct spec *s, int argc, char **argv, struct err *err)
{
  struct buf source = {0};
  int rc = read_file(BOOT, &source);
  if (rc < 0)
    return err_set(err, ERR_NOT_FOUND, -rc, "cannot read " BOOT " (run it from the repository): %s",
                   strerror(-rc));
  struct strv args = {0};
  for (int i = 1; i < argc; i++) strv_add(&args, argv[i]);
  rc = host_add_script(s->host,
                       &(struct host_script_conf){.name = "boot.lua",
                                                  .path = BOOT,
                                                  .source = source.data,
                                                  .source_len = source.len,
                                                  .args = &args,
                                                  .mem_bytes = (size_t)2 << 30,
                                                  .grace_ms = 2000,
                                                  .full_stdlib = true},
                       err);
  strv_free(&args);
  buf_free(&source);
  return rc;
}

int main(int argc, char **argv)
{
  struct err err = {0};
  if (local_engine_prefork(&err) < 0) return fail(&err);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  signal(SIGPIPE, SIG_IGN);
  struct spec s = {.status = -1};
  log_set_sink(on_own_log, &s);
  struct host_conf conf = {
      .trust = true, .on_interrupt = on_interrupt, .on_idle = on_idle, .data = &s};
  if (session_open(&s.host, NULL, NULL, &conf, &err) < 0) return fail(&err);
  host_add_hooks(s.host, &hooks, &s);
  ops_register(host_ops(s.host), &exit_handler, &s);
  ops_register(host_ops(s.host), &log_handler, &s);
  s.procs = proc_ops_new(host_loop(s.host), host_ops(s.host));
  if (add_script(&s, argc, argv, &err) < 0) return fail(&err);
  host_run(s.host);
  host_free(s.host);
  if (s.log.len) {
    fprintf(stderr, "left over: the log holds\n%s", s.log.data);
    s.status = s.status ? s.status : 1;
  }
  buf_free(&s.log);
  return s.status < 0 ? 1 : s.status;
}

/* regolith repl: Lua read from a terminal (or a pipe, or -e), run at once, with sandboxes.
 *
 * A script in this process, lua/regolith/repl.lua, reads, runs and prints; this file answers the
 * ops it does so with: repl.start, read, interrupted, tell and stop. On a terminal lines come from
 * the part "edit"; where that cannot be opened, and from a pipe, the script reads standard input
 * itself. Output is written before the next prompt, and nothing here blocks the loop, so that
 * sandboxes keep their time while somebody types.
 *
 * Ctrl-C while a line is typed drops the line; while an input runs it cancels that, and the third
 * time (its cleanup hangs) it ends the repl, as it ends a run. Ctrl-D ends it with all sandboxes.
 */
#include <errno.h>
#include <lua.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/dirs.h"
#include "base/cleanup.h"
#include "base/embedded.h"
#include "base/val.h"
#include "cli/cli.h"
#include "cli/edit.h"
#include "cli/plugin.h"
#include "cli/session.h"
#include "core/loop.h"
#include "core/op.h"
#include "host/grants.h"
#include "host/host.h"
#include "host/out.h"
#include "wire/op.h"

enum { DRAIN_MS = 5, WATCHED = 2, TRIES = 3 };

struct repl_options {
  struct cli_list code, plugins;
  struct cli_list grants; /* as grants.def has them: name, value, name, … */
  const char *profile, *config;
  bool quiet;
};

#define AT(member) offsetof(struct repl_options, member)
static const struct cli_option options[] = {
    {"eval", 'e', CLI_LIST, AT(code), "CODE", "Run this instead of reading; may be repeated"},
    {"profile", 0, CLI_STR, AT(profile), "NAME",
     "agent: local sandboxes and nothing of the host; trusted: all that you may do (the default)"},
    {"config", 0, CLI_STR, AT(config), "FILE",
     "Settings as Lua, in place of ~/.config/regolith/config.lua"},
    {"plugin", 0, CLI_LIST, AT(plugins), "NAME|FILE[=OPTION]",
     "Lua of your own that is asked and told about sandboxes; may be repeated"},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "No greeting"},
/* -e is --eval here. */
#define G(title) {title, 0, CLI_HEADING, 0, NULL, NULL},
#define X(member, kind, option, letter, value, min, max, help)                                     \
  {option, (letter) == 'e' ? 0 : (letter), CLI_CHOICE, AT(grants), value, help},
#include "host/grants.def"
#undef X
#undef G
    {0},
};
#undef AT

struct repl {
  struct repl_options opt;
  struct grants *grants; /* owned */
  struct host *host;
  struct out *out, *err; /* owned */
  int outs_open;
  bool one_terminal; /* both are the one that lines are typed on */

  const struct edit_part *part; /* NULL: no editor */
  struct edit *edit;            /* owned */
  char *history;                /* owned path, or NULL */
  uv_async_t notified;
  uv_signal_t watched[WATCHED]; /* SIGWINCH, SIGCONT */
  bool handles_open;
  struct timer drain; /* until output is written, before a prompt */
  struct op *reading; /* repl.read, or NULL */
  bool typing;        /* the editor reads a line */

  struct op *waiting; /* repl.interrupted, or NULL */
  int interrupts;     /* since the input began to run */
  bool ok;            /* all inputs went well */
  bool interrupted, leftovers;
};

/* --- Output --------------------------------------------------------------------------------------
 */

static void on_output(void *data, size_t script, const char *text, size_t len)
{
  struct repl *r = data;
  (void)script;
  out_append(r->out, text, len);
}

/* On one terminal both streams go one way, so that their order is kept. */
static void say(struct repl *r, const char *text, size_t len)
{
  struct out *to = r->one_terminal ? r->out : r->err;
  if (to != r->out) out_flush(r->out);
  out_append(to, text, len);
  if (len == 0 || text[len - 1] != '\n') out_append(to, "\n", 1);
}

static void on_log(void *data, size_t script, enum log_level level, const char *text, size_t len)
{
  (void)script;
  struct buf line = {0};
  buf_printf(&line, "%s: %.*s", log_level_name(level), (int)len, text);
  say(data, line.data, line.len);
  buf_free(&line);
}

static void on_progress(void *data, size_t script, double done, double total, const char *text)
{
  (void)script;
  struct buf line = {0};
  if (total >= 0)
    buf_printf(&line, "progress: %g/%g %s", done, total, text);
  else
    buf_printf(&line, "progress: %g %s", done, text);
  say(data, line.data, line.len);
  buf_free(&line);
}

static void on_process_log(enum log_level level, const char *text, void *data)
{
  on_log(data, 0, level, text, strlen(text));
}

/* How it ended matters only where it did not end by itself. */
static void on_end(void *data, size_t script, const struct host_result *result)
{
  struct repl *r = data;
  (void)script;
  if (result->ok) return;
  r->ok = false;
  struct buf line = {0};
  buf_printf(&line, "regolith: %s", result->err.msg);
  if (result->err.hint[0]) buf_printf(&line, "\n(%s)", result->err.hint);
  say(r, line.data, line.len);
  buf_free(&line);
}

static const struct host_hooks hooks = {
    .on_output = on_output, .on_log = on_log, .on_progress = on_progress, .on_end = on_end};

/* --- Reading lines -------------------------------------------------------------------------------
 */

static void finish_reading(struct repl *r, const char *key, struct val v)
{
  struct op *op = take_ptr(&r->reading);
  op->result = val_map();
  if (key)
    val_add(&op->result, key, v);
  else
    val_free(&v);
  op_finish(op, NULL);
}

static void on_notified(uv_async_t *async)
{
  struct repl *r = async->data;
  char *text = NULL;
  enum edit_event event = r->part->take(r->edit, &text);
  struct val said = text && event != EDIT_INTERRUPTED ? val_str(text) : (struct val){0};
  free(text);
  if (event != EDIT_COMPLETE && event != EDIT_NOTHING) r->typing = false;
  if (!r->reading || event == EDIT_NOTHING) {
    val_free(&said);
    if (event == EDIT_COMPLETE) r->part->answer(r->edit, "", NULL, 0);
    return;
  }
  r->interrupts = 0;
  switch (event) {
  case EDIT_LINE: finish_reading(r, "line", said); break;
  case EDIT_COMPLETE: finish_reading(r, "complete", said); break;
  case EDIT_INTERRUPTED: finish_reading(r, "interrupted", val_bool(true)); break;
  case EDIT_END: out_append(r->out, "\n", 1); /* fall through */
  case EDIT_NOTHING: finish_reading(r, NULL, said); break;
  }
}

/* Everything that was printed stands on the terminal before the prompt does. */
static void start_typing(struct repl *r)
{
  out_flush(r->out);
  out_flush(r->err);
  if (out_queued(r->out) + out_queued(r->err) > 0) {
    timer_start(host_loop(r->host), &r->drain, DRAIN_MS);
    return;
  }
  r->typing = true;
  r->part->read(r->edit, val_get_str(&r->reading->args, "prompt", "> "));
}

static void on_drain(struct timer *t)
{
  struct repl *r = t->data;
  if (r->reading) start_typing(r);
}

static void give_names(struct repl *r, const struct val *args)
{
  const struct val *list = val_get(args, "names");
  size_t n = list && list->type == VAL_LIST ? list->list.n : 0;
  const char **names = xcalloc(n + 1, sizeof *names);
  for (size_t i = 0; i < n; i++)
    names[i] = list->list.v[i].type == VAL_STR ? list->list.v[i].s.p : "";
  r->part->answer(r->edit, val_get_str(args, "word", ""), names, n);
  free(names);
}

/* { prompt } begins a line; { names, word } goes on with one, after { complete }. */
static int read_start(struct op *op, void *ctx, struct err *err)
{
  struct repl *r = ctx;
  if (!r->edit || r->reading) return err_set(err, ERR_CONFLICT, 0, "nothing to read lines with");
  r->reading = op;
  if (val_get(&op->args, "names"))
    give_names(r, &op->args);
  else
    start_typing(r);
  return 0;
}

static void finish_cancelled(struct op *op)
{
  struct err err = {0};
  err_set(&err, op->cancel_why, 0, "the repl is ending");
  op_finish(op, &err);
}

static void read_cancel(struct op *op, void *ctx)
{
  struct repl *r = ctx;
  r->reading = NULL;
  timer_stop(host_loop(r->host), &r->drain);
  if (r->typing) r->part->interrupt(r->edit);
  finish_cancelled(op);
}

/* --- The other ops -------------------------------------------------------------------------------
 */

static struct val banner(void)
{
  struct buf b = {0};
  size_t len;
  buf_printf(&b,
             "regolith %s, %s: Tab completes, Ctrl-C stops what runs, Ctrl-D leaves and ends all "
             "sandboxes",
             REGOLITH_VERSION, LUA_VERSION);
  char *text = buf_take(&b, &len);
  return val_take_bytes(text, len);
}

static int start_start(struct op *op, void *ctx, struct err *err)
{
  const struct repl *r = ctx;
  (void)err;
  op->result = val_map();
  val_add(&op->result, "interactive", val_bool(r->edit != NULL));
  if (r->edit && !r->opt.quiet) val_add(&op->result, "banner", banner());
  if (r->opt.code.n > 0) {
    struct val code = val_list();
    for (size_t i = 0; i < r->opt.code.n; i++) val_push(&code, val_str(r->opt.code.v[i]));
    val_add(&op->result, "code", code);
  }
  op_finish(op, NULL);
  return 0;
}

static int interrupted_start(struct op *op, void *ctx, struct err *err)
{
  struct repl *r = ctx;
  if (r->waiting) return err_set(err, ERR_CONFLICT, 0, "somebody waits already");
  r->waiting = op;
  return 0;
}

static void interrupted_cancel(struct op *op, void *ctx)
{
  struct repl *r = ctx;
  r->waiting = NULL;
  finish_cancelled(op);
}

static int tell_start(struct op *op, void *ctx, struct err *err)
{
  (void)err;
  const struct val *text = val_get(&op->args, "text");
  if (text && text->type == VAL_STR) say(ctx, text->s.p, text->s.len);
  op_finish(op, NULL);
  return 0;
}

static int stop_start(struct op *op, void *ctx, struct err *err)
{
  struct repl *r = ctx;
  (void)err;
  r->ok = val_get_bool(&op->args, "ok", false);
  op_finish(op, NULL);
  return 0;
}

static const struct op_handler handlers[] = {
    {.name = "repl.start", .start = start_start},
    {.name = "repl.read", .start = read_start, .cancel = read_cancel},
    {.name = "repl.interrupted", .start = interrupted_start, .cancel = interrupted_cancel},
    {.name = "repl.tell", .start = tell_start},
    {.name = "repl.stop", .start = stop_start}};

/* --- Signals -------------------------------------------------------------------------------------
 */

/* Ctrl-C: true = it was for the line or the input, and the repl goes on. */
static bool take_interrupt(void *data)
{
  struct repl *r = data;
  if (r->typing) {
    r->part->interrupt(r->edit);
    return true;
  }
  if (!r->edit || ++r->interrupts >= TRIES) return false;
  if (r->interrupts == TRIES - 1) {
    static const char more[] = "still cleaning up; once more leaves the repl";
    say(r, more, sizeof more - 1);
  }
  if (r->waiting) {
    struct op *op = take_ptr(&r->waiting);
    op->result = val_map();
    op_finish(op, NULL);
  }
  return true;
}

static void on_interrupt(void *data, int signal, int times)
{
  struct repl *r = data;
  (void)signal;
  r->interrupted = true;
  if (times < 3) return;
  if (r->edit) r->part->restore(r->edit);
  _exit(CLI_EXIT_INTERRUPTED);
}

static void on_watched(uv_signal_t *handle, int signal)
{
  (void)signal;
  const struct repl *r = handle->data;
  r->part->redraw(r->edit);
}

/* --- The editor ----------------------------------------------------------------------------------
 */

static char *history_path(void)
{
  struct buf b = {0};
  const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  if (state && *state == '/')
    buf_printf(&b, "%s/regolith/history", state);
  else if (home && *home == '/')
    buf_printf(&b, "%s/.local/state/regolith/history", home);
  if (b.len == 0) return NULL;
  char *path = buf_take(&b, NULL);
  dirs_make_parents(path, 0700);
  return path;
}

static void notify(void *data)
{
  uv_async_send(data);
}

static void open_handles(struct repl *r)
{
  static const int signals[WATCHED] = {SIGWINCH, SIGCONT};
  uv_loop_t *uv = loop_uv(host_loop(r->host));
  uv_async_init(uv, &r->notified, on_notified);
  r->notified.data = r;
  for (int i = 0; i < WATCHED; i++) {
    uv_signal_init(uv, &r->watched[i]);
    r->watched[i].data = r;
    uv_signal_start(&r->watched[i], on_watched, signals[i]);
    uv_unref((uv_handle_t *)&r->watched[i]);
  }
  r->handles_open = true;
}

/* Only on a terminal. Without libedit lines are read as they are, and that is said once. */
static void open_editor(struct repl *r)
{
  struct err err = {0};
  const struct part_head *head;
  if (r->opt.code.n > 0 || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return;
  int rc = part_open("edit", sizeof(struct edit_part), &head, &err);
  if (rc == 0) {
    r->part = (const struct edit_part *)head;
    r->history = history_path();
    open_handles(r);
    rc = r->part->open(
        &r->edit,
        &(struct edit_conf){.history = r->history, .notify = notify, .data = &r->notified}, &err);
  }
  r->one_terminal = rc == 0 && isatty(STDERR_FILENO);
  if (rc < 0) log_warn("no line editing: %s", err.msg);
}

static void close_editor(struct repl *r)
{
  if (r->part) r->part->close(take_ptr(&r->edit));
  if (!r->handles_open) return;
  uv_close((uv_handle_t *)&r->notified, NULL);
  for (int i = 0; i < WATCHED; i++) uv_close((uv_handle_t *)&r->watched[i], NULL);
  r->handles_open = false;
}

/* --- The whole -----------------------------------------------------------------------------------
 */

static void on_out_closed(void *data)
{
  struct repl *r = data;
  if (--r->outs_open == 0) host_stop(r->host);
}

static void on_idle(void *data, const struct err *err)
{
  struct repl *r = data;
  r->leftovers = err != NULL;
  if (err) say(r, err->msg, strlen(err->msg));
  log_set_sink(NULL, NULL);
  close_editor(r);
  out_close(r->out, on_out_closed, r);
  out_close(r->err, on_out_closed, r);
}

static void on_broken(void *data, int sys_errno)
{
  struct repl *r = data;
  struct err why;
  err_set(&why, ERR_CANCELLED, sys_errno, "cannot write: %s", strerror(sys_errno));
  r->ok = false;
  host_cancel(r->host, &why, false);
}

/* Whoever prints waits for the reader. */
static void on_full(void *data, bool full)
{
  const struct repl *r = data;
  host_hold(r->host, full ? HOST_HOLD_ALL : HOST_HOLD_NONE);
}

static void open_outs(struct repl *r)
{
  struct out_conf conf = {.loop = host_loop(r->host),
                          .fd = STDOUT_FILENO,
                          .on_full = on_full,
                          .on_broken = on_broken,
                          .data = r};
  r->out = out_new(&conf);
  conf.fd = STDERR_FILENO;
  conf.on_full = NULL;
  conf.on_broken = NULL;
  r->err = out_new(&conf);
  r->outs_open = 2;
  log_set_sink(on_process_log, r);
}

static int read_grants(struct repl *r, struct err *err)
{
  const struct cli_list *list = &r->opt.grants;
  size_t n = list->n / 2;
  struct grant_choice *choices = xcalloc(n + 1, sizeof *choices);
  for (size_t i = 0; i < n; i++)
    choices[i] = (struct grant_choice){list->v[2 * i], list->v[2 * i + 1]};
  const char *profile = r->opt.profile ? r->opt.profile : "trusted";
  int rc = grants_new(&r->grants, profile, r->opt.config, choices, n, err);
  free(choices);
  return rc;
}

static const struct embedded_file *find_driver(void)
{
  for (const struct embedded_file *f = embedded_files; f->name; f++)
    if (strcmp(f->name, "regolith/repl.lua") == 0) return f;
  return NULL;
}

/* Modules are looked for in the current folder. */
static int add_script(struct repl *r, struct err *err)
{
  const struct embedded_file *driver = find_driver();
  struct grant_bounds b;
  grants_bounds(r->grants, &b);
  return host_add_script(r->host,
                         &(struct host_script_conf){.name = "repl",
                                                    .path = "repl",
                                                    .source = driver->data,
                                                    .source_len = driver->len,
                                                    .embedded = true,
                                                    .grants = r->grants,
                                                    .mem_bytes = b.mem_bytes,
                                                    .timeout_ms = b.timeout_ms,
                                                    .grace_ms = b.grace_ms},
                         err);
}

static int exit_status(const struct repl *r)
{
  if (r->interrupted) return CLI_EXIT_INTERRUPTED;
  return r->ok && !r->leftovers ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

static int run_repl(struct repl *r)
{
  struct err err = {0};
  struct host_conf conf = {.default_image = grants_image(r->grants),
                           .trust = true,
                           .take_interrupt = take_interrupt,
                           .on_interrupt = on_interrupt,
                           .on_idle = on_idle,
                           .data = r};
  if (session_open(&r->host, grants_engine(r->grants), grants_engines(r->grants), &conf, &err) <
      0) {
    cli_print_err(&err);
    return session_exit_status(&err);
  }
  open_outs(r);
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    ops_register(host_ops(r->host), &handlers[i], r);
  host_add_hooks(r->host, &hooks, r);
  if (plugin_add_all(r->host, &r->opt.plugins, &err) < 0 || add_script(r, &err) < 0) {
    say(r, err.msg, strlen(err.msg));
    host_shutdown(r->host);
  } else {
    open_editor(r);
  }
  host_run(r->host);
  out_free(r->out);
  out_free(r->err);
  int status = exit_status(r);
  host_free(r->host);
  return status;
}

static int run(int argc, char **argv)
{
  struct repl r = {0};
  struct err err = {0};
  int first, dashes;
  r.drain = (struct timer){.cb = on_drain, .data = &r};
  int status = cli_parse(&cmd_repl, argc, argv, &r.opt, &first, &dashes);
  if (status == CLI_GO_ON && first < argc) {
    err_arg(&err, "", "\"%s\": the repl takes no files", argv[first]);
    err_hint(&err, "to run one: regolith run %.200s; in the repl: dofile \"%.40s\"", argv[first],
             argv[first]);
    status = cli_usage_err(&cmd_repl, &err);
  }
  if (status == CLI_GO_ON && read_grants(&r, &err) < 0) status = cli_usage_err(&cmd_repl, &err);
  if (status == CLI_GO_ON) status = run_repl(&r);
  grants_free(r.grants);
  cli_list_free(&r.opt.grants);
  cli_list_free(&r.opt.code);
  cli_list_free(&r.opt.plugins);
  free(r.history);
  return status;
}

const struct cli_command cmd_repl = {
    .name = "repl",
    .summary = "Try Lua and sandboxes line by line",
    .usage = "",
    .details =
        "Each input runs at once and its values are printed; calls block as in a script.\n"
        "Globals stay, `local` ends with its input; an input is over when the tasks that it\n"
        "started are. Lines are kept in ~/.local/state/regolith/history. Without a terminal\n"
        "Lua is read from standard input.\n"
        "\n"
        "exit status: 0; with -e or from a pipe 1 when an input failed\n",
    .options = options,
    .flags = CLI_MAKES_SANDBOXES,
    .run = run,
};

/* regolith exec: one sandbox, one command, its input, output and exit status passed through.
 *
 * No Lua here, and nothing is read or opened before the create is on its way. The command always
 * has pipes of its own: a descriptor or terminal of ours never enters a sandbox. A slow reader of
 * our stdout slows the command, a command that does not read its stdin stops us reading ours.
 *
 * creating → running → ending → (sandbox dead, all output written) → exit */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/cmd_image.h"
#include "cli/engines.h"
#include "cli/session.h"
#include "core/loop.h"
#include "core/op.h"
#include "host/host.h"
#include "host/out.h"
#include "sandbox/supervisor.h"
#include "wire/op.h"

enum { INPUT_CHUNK = 64 << 10, LIFE_MARGIN_S = 60, LIFE_MAX_S = 86400 };

struct exec_options {
  uint64_t timeout_ms;
  const char *image, *engine, *cpu, *memory, *disk, *pids, *cwd, *user, *network;
  struct cli_list env, volumes;
  bool json, quiet;
};

#define AT(member) offsetof(struct exec_options, member)
static const struct cli_option options[] = {
    {"timeout", 't', CLI_DURATION, AT(timeout_ms), "DURATION",
     "End the command after this time, e.g. 5s (default: 24h)"},
    {"image", 'i', CLI_STR, AT(image), "IMAGE", "python:3.11, host or dir:PATH (default: host)"},
    {"cpu", 0, CLI_STR, AT(cpu), "N", "CPUs it may use, e.g. 0.5 (default: 1)"},
    {"memory", 'm', CLI_STR, AT(memory), "SIZE", "Memory it may use (default: 1GiB)"},
    {"disk", 0, CLI_STR, AT(disk), "SIZE", "What it may write (default: 1GiB)"},
    {"pids", 0, CLI_STR, AT(pids), "N", "Processes and threads it may have (default: 512)"},
    {"env", 'e', CLI_LIST, AT(env), "NAME[=VALUE]",
     "Set a variable, or pass on ours; may be repeated"},
    {"cwd", 'C', CLI_STR, AT(cwd), "DIR", "Where it starts (default: the image's)"},
    {"user", 'u', CLI_STR, AT(user), "USER", "Who it runs as (default: the image's)"},
    {"volume", 'v', CLI_LIST, AT(volumes), "SOURCE:TARGET[:ro]",
     "Mount a directory (/data, ./data), or a volume that regolith keeps, by its name"},
    {"network", 0, CLI_STR, AT(network), "MODE", "none or open (default: none)"},
    {"engine", 0, CLI_STR, AT(engine), "NAME", "Who makes the sandbox (default: local)"},
    {"json", 'j', CLI_FLAG, AT(json), NULL, "Print one JSON object with outcome and output"},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "Do not explain on stderr how the command ended"},
    {0},
};
#undef AT

struct exec {
  struct exec_options opt;
  char **argv;          /* the command, NULL-terminated; empty: what the image runs by default */
  struct strv defaults; /* that, once the image is there */
  struct strv env;
  struct volume_spec *volumes; /* owned, as many as opt.volumes; path: a directory of ours */
  size_t volumes_n;
  struct host *host;
  uint64_t owner;
  char sandbox_id[64];
  struct op *op; /* in flight, or NULL */
  struct out *out, *err;
  unsigned outs_open;
  bool interrupted;
  int broken; /* errno of our stdout, once it takes nothing any more */
  bool ended; /* nothing runs in the sandbox any more, or there is none */
  int status;

  uv_poll_t input_poll; /* standard input, where epoll takes it */
  bool input_polls, input_open, input_paused;
  struct defer input_next; /* where it does not: a file */
};

/* --- messages -----------------------------------------------------------------------------------
 */

static void say(struct exec *x, const struct err *err)
{
  struct buf b = {0};
  buf_printf(&b, "regolith: %s\n", err->msg);
  if (err->hint[0]) buf_printf(&b, "  hint: %s\n", err->hint);
  out_append(x->err, b.data, b.len);
  buf_free(&b);
}

static void fail(struct exec *x, const struct err *err)
{
  x->status = x->interrupted ? CLI_EXIT_INTERRUPTED : CLI_EXIT_OWN_FAILURE;
  if (!x->interrupted) say(x, err);
}

/* --- the end ------------------------------------------------------------------------------------
 */

static void stop_if_done(struct exec *x)
{
  if (x->outs_open == 0 && x->ended) host_stop(x->host);
}

static void on_out_closed(void *data)
{
  struct exec *x = data;
  x->outs_open--;
  stop_if_done(x);
}

static void on_terminate_done(struct op *op, const struct err *err)
{
  struct exec *x = op->client_data;
  if (err) log_warn("%s", err->msg);
  op_free(op);
  x->ended = true;
  stop_if_done(x);
}

static const struct op_client terminate_client = {.on_done = on_terminate_done};

static bool start_terminate(struct exec *x)
{
  if (!x->sandbox_id[0]) return false;
  struct op *op = op_new("sandbox.terminate");
  op->args = val_map();
  val_set(&op->args, "sandbox_id", val_str(x->sandbox_id));
  op->owner = x->owner;
  op->client = &terminate_client;
  op->client_data = x;
  if (op_submit(host_ops(x->host), op, NULL) == 0) return true;
  op_free(op);
  return false;
}

/* Output is written while the sandbox ends. */
static void finish(struct exec *x)
{
  x->ended = !start_terminate(x);
  out_close(x->out, on_out_closed, x);
  out_close(x->err, on_out_closed, x);
}

/* --- standard input -----------------------------------------------------------------------------
 */

static void stop_input(struct exec *x)
{
  if (!x->input_open) return;
  x->input_open = false;
  loop_defer_cancel(host_loop(x->host), &x->input_next);
  if (x->input_polls) uv_close((uv_handle_t *)&x->input_poll, NULL);
}

static void read_input(struct exec *x)
{
  static char chunk[INPUT_CHUNK];
  ssize_t n = read(STDIN_FILENO, chunk, sizeof chunk);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  struct op *op = x->op;
  if (n <= 0) stop_input(x);
  /* It fails only when the command has ended, which on_exec_done tells. */
  op_input(op, chunk, n > 0 ? (size_t)n : 0, NULL);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
  (void)status;
  (void)events;
  read_input(poll->data);
}

static void on_input_next(struct defer *d)
{
  struct exec *x = d->data;
  read_input(x);
  if (x->input_open && !x->input_paused) loop_defer(host_loop(x->host), &x->input_next);
}

static void flow_input(struct exec *x, bool paused)
{
  x->input_paused = paused;
  if (!x->input_open) return;
  if (!x->input_polls && !paused)
    loop_defer(host_loop(x->host), &x->input_next);
  else if (x->input_polls && paused)
    uv_poll_stop(&x->input_poll);
  else if (x->input_polls)
    uv_poll_start(&x->input_poll, UV_READABLE, on_readable);
}

static bool has_input(void)
{
  struct stat st;
  bool null = fstat(STDIN_FILENO, &st) == 0 && S_ISCHR(st.st_mode) && major(st.st_rdev) == 1 &&
              minor(st.st_rdev) == 3;
  return !null;
}

static void start_input(struct exec *x)
{
  x->input_open = true;
  x->input_next = (struct defer){.cb = on_input_next, .data = x};
  int flags = fcntl(STDIN_FILENO, F_GETFL);
  x->input_polls = uv_poll_init(loop_uv(host_loop(x->host)), &x->input_poll, STDIN_FILENO) == 0;
  if (flags >= 0)
    fcntl(STDIN_FILENO, F_SETFL, flags); /* libuv made it non-blocking, also for the shell */
  x->input_poll.data = x;
  flow_input(x, false);
}

static void on_input_full(struct op *op, bool full)
{
  flow_input(op->client_data, full);
}

/* --- the command --------------------------------------------------------------------------------
 */

static int signal_number(const char *name)
{
  char buf[24];
  for (int n = 1; n <= 64; n++)
    if (strcmp(signal_name(n, buf), name) == 0) return n;
  return 0;
}

/* The exit status for a result, and a sentence for what the status alone does not tell. */
static int result_status(const struct exec *x, const struct val *r, struct err *why)
{
  const char *reason = val_get_str(r, "reason", "unknown");
  if (strcmp(reason, "exited") == 0) return (int)val_get_int(r, "exit_code", CLI_EXIT_OWN_FAILURE);
  if (strcmp(reason, "signal") == 0) return 128 + signal_number(val_get_str(r, "signal", ""));
  if (strcmp(reason, "timeout") == 0 || strcmp(reason, "sandbox_timeout") == 0) {
    err_set(why, ERR_TIMEOUT, 0, "the command ran out of time");
    err_hint(why, "--timeout allows up to 24h");
    return CLI_EXIT_TIMEOUT;
  }
  if (strcmp(reason, "oom") == 0) {
    err_set(why, ERR_LIMIT, 0, "the command ran out of memory");
    err_hint(why, "--memory allows more than %s", x->opt.memory ? x->opt.memory : "1GiB");
    return 137;
  }
  if (x->interrupted) return CLI_EXIT_INTERRUPTED;
  err_set(why, ERR_EXEC_FAILED, 0, "how the command ended is unknown (%s)", reason);
  return CLI_EXIT_OWN_FAILURE;
}

static void print_json(struct exec *x, struct val *result)
{
  struct buf b = {0};
  val_set(result, "sandbox_id", val_str(x->sandbox_id));
  json_print(&b, result);
  buf_putc(&b, '\n');
  out_append(x->out, b.data, b.len);
  buf_free(&b);
}

static void on_exec_done(struct op *op, const struct err *err)
{
  struct exec *x = op->client_data;
  struct err why = {0};
  x->op = NULL;
  stop_input(x);
  if (err) {
    fail(x, err);
  } else {
    x->status = result_status(x, &op->result, &why);
    if (x->opt.json) print_json(x, &op->result);
    if (why.msg[0] && !x->opt.quiet && !x->broken) say(x, &why);
  }
  op_free(op);
  finish(x);
}

static void on_chunk(struct op *op, enum op_stream stream, const void *data, size_t len)
{
  struct exec *x = op->client_data;
  if (x->opt.json || stream == OP_EVENT) return;
  out_append(stream == OP_STDOUT ? x->out : x->err, data, len);
}

static const struct op_client exec_client = {
    .on_chunk = on_chunk, .on_input_full = on_input_full, .on_done = on_exec_done};

static struct val env_map(const struct strv *env)
{
  struct val map = val_map();
  for (size_t i = 0; i < env->n; i++) {
    char *name = strndup(env->v[i], strcspn(env->v[i], "="));
    val_set(&map, name, val_str(strchr(env->v[i], '=') + 1));
    free(name);
  }
  return map;
}

static void set_text(struct val *map, const char *key, const char *text)
{
  if (text) val_set(map, key, val_str(text));
}

static struct val exec_args(const struct exec *x)
{
  struct val args = val_map(), command = val_list();
  for (char **arg = x->argv; *arg; arg++) val_push(&command, val_str(*arg));
  for (size_t i = 0; i < x->defaults.n; i++) val_push(&command, val_str(x->defaults.v[i]));
  val_set(&args, "sandbox_id", val_str(x->sandbox_id));
  val_set(&args, "command", command);
  if (x->opt.timeout_ms) {
    char text[32];
    snprintf(text, sizeof text, "%llums", (unsigned long long)x->opt.timeout_ms);
    val_set(&args, "timeout", val_str(text));
  }
  set_text(&args, "cwd", x->opt.cwd);
  set_text(&args, "user", x->opt.user);
  if (x->env.n > 0) val_set(&args, "env", env_map(&x->env));
  if (has_input()) val_set(&args, "stdin_stream", val_bool(true));
  if (!x->opt.json) {
    val_set(&args, "stream", val_bool(true));
    val_set(&args, "max_output", val_int(0));
  }
  return args;
}

/* Submits op, whose failure is ours. */
static bool submit(struct exec *x, struct op *op, const struct op_client *client)
{
  struct err err = {0};
  op->owner = x->owner;
  op->client = client;
  op->client_data = x;
  if (op_submit(host_ops(x->host), op, &err) == 0) {
    x->op = op;
    return true;
  }
  op_free(op);
  fail(x, &err);
  finish(x);
  return false;
}

static void on_create_done(struct op *op, const struct err *err)
{
  struct exec *x = op->client_data;
  x->op = NULL;
  if (err || x->interrupted) {
    if (err) fail(x, err);
    if (x->interrupted) x->status = CLI_EXIT_INTERRUPTED;
    op_free(op);
    finish(x);
    return;
  }
  snprintf(x->sandbox_id, sizeof x->sandbox_id, "%s", val_get_str(&op->result, "sandbox_id", ""));
  op_free(op);
  struct err none = {0};
  if (!*x->argv && image_default_command(x->opt.image, &x->defaults, &none) < 0) {
    fail(x, &none);
    finish(x);
    return;
  }
  struct op *exec = op_new("sandbox.exec");
  exec->args = exec_args(x);
  bool streams = val_get_bool(&exec->args, "stdin_stream", false);
  if (submit(x, exec, &exec_client) && streams) start_input(x);
}

static const struct op_client create_client = {.on_done = on_create_done};

/* The sandbox outlives its only command by a margin, so that the command's own time-out is the one
 * that is reported. */
static uint64_t life_s(const struct exec *x)
{
  uint64_t s = (x->opt.timeout_ms + 999) / 1000 + LIFE_MARGIN_S;
  return x->opt.timeout_ms && s < LIFE_MAX_S ? s : LIFE_MAX_S;
}

/* SOURCE:TARGET[:ro]. A source with a slash is a directory. */
static int read_volume(const char *text, struct volume_spec *ret, struct err *err)
{
  cleanup_free char *source = strndup(text, strcspn(text, ":"));
  const char *target = text + strcspn(text, ":");
  size_t len = strlen(target);
  bool readonly = len > 3 && strcmp(target + len - 3, ":ro") == 0;
  bool writable = len > 3 && strcmp(target + len - 3, ":rw") == 0;
  if (!source || !*source || len < 2 || target[1] != '/')
    return err_arg(err, "--volume", "--volume: \"%.200s\" is not SOURCE:TARGET or SOURCE:TARGET:ro",
                   text);
  ret->target = strndup(target + 1, len - 1 - (readonly || writable ? 3 : 0));
  ret->readonly = readonly;
  ret->source = take_ptr(&source);
  if (!strchr(ret->source, '/')) return 0;
  ret->path = realpath(ret->source, NULL);
  struct stat st;
  if (!ret->path || stat(ret->path, &st) < 0)
    return err_arg(err, "--volume", "--volume: %s: %s", ret->source, strerror(errno));
  if (!S_ISDIR(st.st_mode))
    return err_arg(err, "--volume", "--volume: %s is not a directory", ret->source);
  return 0;
}

static int read_volumes(struct exec *x, struct err *err)
{
  int rc = 0;
  x->volumes = xcalloc(x->opt.volumes.n, sizeof *x->volumes);
  for (size_t i = 0; i < x->opt.volumes.n && rc == 0; i++)
    rc = read_volume(x->opt.volumes.v[i], &x->volumes[x->volumes_n++], err);
  return rc;
}

static void free_volumes(struct exec *x)
{
  for (size_t i = 0; i < x->volumes_n; i++) {
    free(x->volumes[i].source);
    free(x->volumes[i].target);
    free(x->volumes[i].path);
  }
  free(x->volumes);
}

/* Whoever types the command may name any directory. */
static int admit_create(void *data, const struct val *asked, struct create_args *args,
                        struct err *err)
{
  (void)asked, (void)err;
  const struct exec *x = data;
  for (size_t i = 0; i < args->volumes_n; i++)
    if (x->volumes[i].path) args->volumes[i].path = xstrdup(x->volumes[i].path);
  return 0;
}

/* Directories go by numbers: what they are called is no name for a volume. */
static struct val volumes_list(const struct exec *x)
{
  struct val list = val_list();
  for (size_t i = 0; i < x->volumes_n; i++) {
    char number[24];
    const struct volume_spec *v = &x->volumes[i];
    snprintf(number, sizeof number, "%zu", i + 1);
    struct val one = val_map();
    val_add(&one, "source", val_str(v->path ? number : v->source));
    val_add(&one, "target", val_str(v->target));
    val_add(&one, "readonly", val_bool(v->readonly));
    val_push(&list, one);
  }
  return list;
}

static struct val create_args(const struct exec *x)
{
  struct val args = val_map();
  if (x->volumes_n > 0) val_set(&args, "volumes", volumes_list(x));
  set_text(&args, "image", x->opt.image);
  set_text(&args, "engine", x->opt.engine);
  set_text(&args, "cpu", x->opt.cpu);
  set_text(&args, "memory", x->opt.memory);
  set_text(&args, "disk", x->opt.disk);
  set_text(&args, "pids", x->opt.pids);
  set_text(&args, "network", x->opt.network);
  val_set(&args, "timeout", val_int((int64_t)life_s(x)));
  return args;
}

/* --- the run ------------------------------------------------------------------------------------
 */

static void on_full(void *data, bool full)
{
  (void)full;
  struct exec *x = data;
  if (x->op) op_flow(x->op, out_is_full(x->out) || out_is_full(x->err));
}

/* The reader of our stdout is the reader of the command's: without it the command would have died
 * of SIGPIPE. A full disk behind our stdout is our failure. */
static void on_broken(void *data, int sys_errno)
{
  struct exec *x = data;
  x->broken = sys_errno;
  if (sys_errno != EPIPE) log_error("cannot write to standard output: %s", strerror(sys_errno));
  if (x->op) op_cancel(x->op, ERR_CANCELLED);
}

static void on_interrupt(void *data, int signal, int times)
{
  (void)signal;
  struct exec *x = data;
  if (times > 1) _exit(CLI_EXIT_INTERRUPTED);
  x->interrupted = true;
  if (x->op) {
    op_cancel(x->op, ERR_CANCELLED);
  } else {
    x->status = CLI_EXIT_INTERRUPTED;
    out_abandon(x->out);
    out_abandon(x->err);
  }
}

/* Returns only where there is no session. */
static int run_exec(struct exec *x)
{
  struct err err = {0};
  struct host_conf conf = {.default_image = x->opt.image, .on_interrupt = on_interrupt, .data = x};
  struct val named;
  int rc = engines_configured(&named, x->opt.engine, &err);
  if (rc == 0) rc = session_open(&x->host, x->opt.engine, &named, &conf, &err);
  val_free(&named);
  if (rc < 0) {
    cli_print_err(&err);
    return CLI_EXIT_OWN_FAILURE;
  }
  struct loop *loop = host_loop(x->host);
  x->owner = host_owner_new(
      x->host, &(struct owner_conf){.name = "exec", .admit = admit_create, .admit_data = x});
  x->out = out_new(&(struct out_conf){loop, STDOUT_FILENO, on_full, on_broken, x});
  x->err = out_new(&(struct out_conf){loop, STDERR_FILENO, on_full, NULL, x});
  x->outs_open = 2;
  struct op *op = op_new("sandbox.create");
  op->args = create_args(x);
  submit(x, op, &create_client);
  host_run(x->host);
  /* All that ran is dead and all output is written. What is left is for the warden, which sees us
   * go: empty control groups, and itself. Waiting for that would cost a third of the whole run. */
  if (x->broken && !x->interrupted)
    x->status = x->broken == EPIPE ? CLI_EXIT_READER_GONE : CLI_EXIT_OWN_FAILURE;
  _exit(x->status);
}

/* Images of registries say what they run by default. */
static bool brings_command(const char *image)
{
  return image && strcmp(image, "host") != 0 && strncmp(image, "dir:", 4) != 0;
}

/* Every failure of ours is 125, a wrong option too: 1 and 2 are the command's. */
static int run(int argc, char **argv)
{
  struct exec x = {0};
  struct err err = {0};
  int first, dashes, status = cli_parse(&cmd_exec, argc, argv, &x.opt, &first, &dashes);
  if (status == CLI_GO_ON && first == argc && !brings_command(x.opt.image)) {
    err_arg(&err, "", "no command to run");
    err_hint(&err, "regolith exec -- COMMAND ARGUMENT...");
    status = cli_usage_err(&cmd_exec, &err);
  } else if (status == CLI_GO_ON &&
             (session_read_env(&x.opt.env, &x.env, &err) < 0 || read_volumes(&x, &err) < 0)) {
    status = cli_usage_err(&cmd_exec, &err);
  }
  x.argv = argv + first;
  if (status == CLI_GO_ON)
    status = run_exec(&x);
  else if (status == CLI_EXIT_USAGE)
    status = CLI_EXIT_OWN_FAILURE;
  strv_free(&x.env);
  cli_list_free(&x.opt.env);
  cli_list_free(&x.opt.volumes);
  free_volumes(&x);
  return status;
}

const struct cli_command cmd_exec = {
    .name = "exec",
    .summary = "Run one command in a sandbox of its own",
    .usage = "[--] COMMAND [ARG]...",
    .details = "Input, output and exit status are the command's, through pipes, never through a "
               "terminal.\n"
               "\n"
               "exit status: the command's; 126 it cannot be executed, 127 it was not found, 128+n "
               "it died\n"
               "of signal n, 124 it ran out of time, 137 it ran out of memory (or was killed), 125 "
               "regolith\n"
               "itself failed, 130 interrupted, 141 nobody reads its output any more\n",
    .options = options,
    .flags = CLI_MAKES_SANDBOXES | CLI_STOPS_AT_OPERAND,
    .run = run,
};

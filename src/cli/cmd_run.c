/* regolith run: scripts from files (or standard input), all at once, on one loop.
 *
 * Reads and loads every script before any starts, so that a misspelt file name or a syntax error in
 * the third script costs nothing. Then the host runs them and the report shows them; this file
 * decides the exit status and what interrupts, a slow reader and a closed stdout lead to. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/plugin.h"
#include "cli/session.h"
#include "host/grants.h"
#include "host/host.h"
#include "host/events.h"
#include "host/record.h"
#include "host/report.h"
#include "host/status.h"
#include "host/tally.h"
#include "script/script.h"
#include "wire/op.h"

enum { DEFAULT_JOBS = 200 }; /* worker processes at once */

struct run_options {
  uint32_t jobs;
  bool trust, json, quiet, verbose;
  const char *profile, *config, *report;
  struct cli_list grants; /* as grants.def has them: name, value, name, … */
  struct cli_list plugins;
};

#define AT(member) offsetof(struct run_options, member)
static const struct cli_option options[] = {
    {"profile", 0, CLI_STR, AT(profile), "NAME",
     "agent: local sandboxes and nothing of the host (the default); trusted: all that you may do"},
    {"config", 0, CLI_STR, AT(config), "FILE",
     "Settings as Lua, in place of ~/.config/regolith/config.lua"},
    {"trust", 0, CLI_FLAG, AT(trust), NULL,
     "Run the scripts in this process, not in workers: for scripts of your own"},
    {"jobs", 0, CLI_UINT, AT(jobs), "N",
     "Scripts that run at once; the others wait their turn (default: 200, with --trust all)"},
    {"plugin", 0, CLI_LIST, AT(plugins), "NAME|FILE[=OPTION]",
     "Lua of your own that is asked and told about sandboxes: audit=FILE, gpu-hours; may be "
     "repeated"},
    {"json", 'j', CLI_FLAG, AT(json), NULL, "Print one JSON event per line on stdout"},
    {"report", 0, CLI_STR, AT(report), "FILE",
     "Write what happened to FILE at the end: a page to look at (.html), or JSON"},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "Only errors on stderr"},
    {"verbose", 'v', CLI_FLAG, AT(verbose), NULL,
     "Tell on stderr what happens to tasks and sandboxes"},
#define G(title) {title, 0, CLI_HEADING, 0, NULL, NULL},
#define X(member, kind, option, letter, value, min, max, help)                                     \
  {option, letter, CLI_CHOICE, AT(grants), value, help},
#include "host/grants.def"
#undef X
#undef G
    {0},
};
#undef AT

struct source {
  const char *path; /* as given */
  char *name;       /* for people, owned */
  char *text;       /* owned */
  size_t len;
};

struct run {
  struct run_options opt;
  struct source *sources; /* owned */
  size_t sources_n;
  struct strv args;
  struct grants *grants; /* owned */
  struct host *host;
  struct report *report;
  struct record *record; /* with --report */
  struct tally *tally;
  struct status_server *status;
  bool interrupted, unloadable, leftovers, unreported, closing;
  int broken; /* errno of our stdout, once it takes nothing any more */
};

/* --- the command line ---------------------------------------------------------------------------
 */

static int read_all(int fd, struct buf *ret)
{
  for (;;) {
    buf_reserve(ret, 64 << 10);
    ssize_t n = read(fd, ret->data + ret->len, ret->cap - ret->len - 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? -errno : 0;
    ret->len += (size_t)n;
    ret->data[ret->len] = '\0';
  }
}

/* By its other name too: what is no file or pipe (a socket) cannot be opened there. */
static bool is_standard_input(const char *path)
{
  return strcmp(path, "-") == 0 || strcmp(path, "/dev/stdin") == 0;
}

static int read_source(struct source *s, struct err *err)
{
  bool standard_input = is_standard_input(s->path);
  cleanup_close int opened = -1;
  if (!standard_input && (opened = open(s->path, O_RDONLY | O_CLOEXEC)) < 0)
    return err_set(err, ERR_INVALID_ARGUMENT, errno, "cannot read %s: %s", s->path,
                   strerror(errno));
  struct buf text = {0};
  int rc = read_all(standard_input ? STDIN_FILENO : opened, &text);
  if (rc < 0) {
    buf_free(&text);
    return err_set(err, ERR_INVALID_ARGUMENT, -rc, "cannot read %s: %s", s->path, strerror(-rc));
  }
  /* Editors on other systems put a byte order mark in front. */
  if (text.len >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0) buf_consume(&text, 3);
  s->text = buf_take(&text, &s->len);
  return 0;
}

static void name_sources(struct run *r)
{
  const char **paths = xcalloc(r->sources_n, sizeof *paths);
  char **names = xcalloc(r->sources_n, sizeof *names);
  for (size_t i = 0; i < r->sources_n; i++)
    paths[i] = is_standard_input(r->sources[i].path) ? "stdin" : r->sources[i].path;
  report_names(paths, r->sources_n, names);
  for (size_t i = 0; i < r->sources_n; i++) r->sources[i].name = names[i];
  free(paths);
  free(names);
}

/* Reports every script that cannot be read, not only the first. */
static int read_sources(struct run *r, char **paths, size_t n)
{
  r->sources = xcalloc(n, sizeof *r->sources);
  r->sources_n = n;
  int failed = 0;
  for (size_t i = 0; i < n; i++) {
    struct err err;
    r->sources[i].path = paths[i];
    if (read_source(&r->sources[i], &err) == 0) continue;
    if (failed++ == 0)
      err_hint(&err, "arguments for scripts go behind \"--\"; in a #! line: regolith run --");
    cli_print_err(&err);
  }
  name_sources(r);
  return failed ? CLI_EXIT_USAGE : CLI_GO_ON;
}

static int read_grants(struct run *r, struct err *err)
{
  const struct cli_list *list = &r->opt.grants;
  size_t n = list->n / 2;
  struct grant_choice *choices = xcalloc(n + 1, sizeof *choices);
  for (size_t i = 0; i < n; i++)
    choices[i] = (struct grant_choice){list->v[2 * i], list->v[2 * i + 1]};
  int rc = grants_new(&r->grants, r->opt.profile, r->opt.config, choices, n, err);
  free(choices);
  return rc;
}

/* Without a script in front of "--" the first word behind it is the script, and the rest its
 * arguments: what a "#!" line with `regolith run --` leads to. */
/* What is asked for and cannot be had is said, not left out. */
static int check_bounds(const struct run *r, struct err *err)
{
  struct grant_bounds b;
  grants_bounds(r->grants, &b);
  if (b.cpu_ms % 1000 != 0)
    return err_arg(err, "--cpu-time", "--cpu-time takes whole seconds: %g s is none",
                   (double)b.cpu_ms / 1000);
  if (b.cpu_ms == 0 || !r->opt.trust) return 0;
  err_arg(err, "--cpu-time",
          "--cpu-time bounds a worker process, and --trust runs scripts without one");
  err_hint(err, "leave out --trust, or bound the time with --timeout");
  return -EINVAL;
}

static int read_command_line(struct run *r, int argc, char **argv)
{
  int first, dashes, status = cli_parse(&cmd_run, argc, argv, &r->opt, &first, &dashes);
  if (status != CLI_GO_ON) return status;
  if (first == dashes && dashes < argc) dashes++;
  for (int i = dashes; i < argc; i++) strv_add(&r->args, argv[i]);
  struct err err = {0};
  if (first == dashes) {
    err_arg(&err, "", "no script to run");
    err_hint(&err, "regolith run SCRIPT.lua, or regolith run - to read one from standard input");
    return cli_usage_err(&cmd_run, &err);
  }
  if (r->opt.quiet && r->opt.verbose) {
    err_arg(&err, "--quiet", "--quiet and --verbose contradict each other");
    return cli_usage_err(&cmd_run, &err);
  }
  if (read_grants(r, &err) < 0 || check_bounds(r, &err) < 0) return cli_usage_err(&cmd_run, &err);
  return read_sources(r, argv + first, (size_t)(dashes - first));
}

/* --- the run ------------------------------------------------------------------------------------
 */

/* Events of sandboxes and tasks are output too where they are shown; else only printing scripts
 * wait for the reader, and the others go on. */
static void on_full(void *data, bool full)
{
  struct run *r = data;
  bool all = r->opt.json || r->opt.verbose;
  host_hold(r->host, !full ? HOST_HOLD_NONE : all ? HOST_HOLD_ALL : HOST_HOLD_WRITERS);
}

static void on_broken(void *data, int sys_errno)
{
  struct run *r = data;
  r->broken = sys_errno;
  struct err why, ours;
  err_set(&ours, ERR_INTERNAL, sys_errno, "cannot write to standard output: %s",
          strerror(sys_errno));
  if (sys_errno != EPIPE) report_err(r->report, &ours);
  err_set(&why, ERR_CANCELLED, sys_errno, "cancelled: nobody reads standard output");
  host_cancel(r->host, &why, false);
}

static void on_interrupt(void *data, int signal, int times)
{
  (void)signal;
  struct run *r = data;
  if (times > 2) _exit(CLI_EXIT_INTERRUPTED);
  r->interrupted = true;
  if (r->closing)
    report_abandon(r->report);
  else
    report_interrupt(r->report, times);
}

static int script_status(const struct host_result *result)
{
  if (result->ok) return CLI_EXIT_OK;
  if (result->timed_out) return CLI_EXIT_TIMEOUT;
  return result->err.kind == ERR_ENGINE_UNAVAILABLE ? CLI_EXIT_NO_SANDBOXES : CLI_EXIT_FAILED;
}

/* Of several failures the one that says most: interrupted, no sandboxes here, failed, out of time.
 */
static int exit_status(const struct run *r)
{
  static const int order[] = {CLI_EXIT_NO_SANDBOXES, CLI_EXIT_FAILED, CLI_EXIT_TIMEOUT};
  if (r->interrupted) return CLI_EXIT_INTERRUPTED;
  if (r->broken == EPIPE) return CLI_EXIT_READER_GONE;
  if (r->unloadable || r->broken || r->leftovers || r->unreported) return CLI_EXIT_FAILED;
  for (size_t o = 0; o < sizeof order / sizeof *order; o++)
    for (size_t i = 0; i < host_script_count(r->host); i++)
      if (script_status(host_script_result(r->host, i)) == order[o]) return order[o];
  return CLI_EXIT_OK;
}

static void on_report_closed(void *data)
{
  struct run *r = data;
  r->report = NULL;
  host_stop(r->host);
}

static void write_record(struct run *r)
{
  struct err err = {0};
  if (!r->record) return;
  events_run_end(record_events(r->record), exit_status(r));
  if (record_write(r->record, r->opt.report, &err) == 0) return;
  r->unreported = true;
  report_err(r->report, &err);
}

static void on_idle(void *data, const struct err *err)
{
  struct run *r = data;
  if (err) {
    r->leftovers = true;
    report_err(r->report, err);
  }
  r->closing = true;
  report_run_end(r->report, exit_status(r));
  write_record(r);
  log_set_sink(NULL, NULL);
  report_close(r->report, on_report_closed, r);
}

static void on_process_log(enum log_level level, const char *text, void *data)
{
  report_log(data, level, text);
}

static void open_report(struct run *r)
{
  const char **names = xcalloc(r->sources_n, sizeof *names);
  for (size_t i = 0; i < r->sources_n; i++) names[i] = r->sources[i].name;
  const char *term = getenv("TERM");
  r->tally = tally_new(names, r->sources_n);
  host_add_hooks(r->host, &tally_hooks, r->tally);
  if (r->opt.report) {
    r->record = record_new(names, r->sources_n);
    host_add_hooks(r->host, &events_hooks, record_events(r->record));
  }
  r->report = report_new(&(struct report_conf){
      .loop = host_loop(r->host),
      .out_fd = STDOUT_FILENO,
      .err_fd = STDERR_FILENO,
      .json = r->opt.json,
      .quiet = r->opt.quiet,
      .verbose = r->opt.verbose,
      .tty = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0,
      .live = r->tally,
      .names = names,
      .names_n = r->sources_n,
      .on_full = on_full,
      .on_broken = on_broken,
      .data = r,
  });
  free(names);
  host_add_hooks(r->host, &report_hooks, r->report);
  log_set_level(r->opt.quiet ? LOG_ERROR : r->opt.verbose ? LOG_INFO : LOG_WARN);
  log_set_sink(on_process_log, r->report);
}

/* Reports every script that does not load, not only the first. */
static bool add_scripts(struct run *r)
{
  struct grant_bounds b;
  grants_bounds(r->grants, &b);
  for (size_t i = 0; i < r->sources_n; i++) {
    const struct source *s = &r->sources[i];
    struct err err = {0};
    int rc = host_add_script(r->host,
                             &(struct host_script_conf){
                                 .name = s->name,
                                 .path = is_standard_input(s->path) ? NULL : s->path,
                                 .source = s->text,
                                 .source_len = s->len,
                                 .args = &r->args,
                                 .grants = r->grants,
                                 .mem_bytes = b.mem_bytes,
                                 .timeout_ms = b.timeout_ms,
                                 .grace_ms = b.grace_ms,
                                 .cpu_s = (uint32_t)((b.cpu_ms + 999) / 1000),
                             },
                             &err);
    if (rc == 0) continue;
    r->unloadable = true;
    report_err(r->report, &err);
  }
  return !r->unloadable;
}

static bool add_plugins(struct run *r)
{
  struct err err = {0};
  if (plugin_add_all(r->host, &r->opt.plugins, &err) == 0) return true;
  r->unloadable = true;
  report_err(r->report, &err);
  return false;
}

static void run_free(struct run *r)
{
  for (size_t i = 0; i < r->sources_n; i++) {
    free(r->sources[i].name);
    free(r->sources[i].text);
  }
  free(r->sources);
  strv_free(&r->args);
  grants_free(r->grants);
  cli_list_free(&r->opt.grants);
  cli_list_free(&r->opt.plugins);
}

static struct val snapshot(void *data)
{
  const struct run *r = data;
  struct val v = tally_snapshot(r->tally);
  const struct val *scripts = val_get(&v, "scripts");
  for (size_t i = 0; i < scripts->list.n; i++) {
    struct script_stats stats;
    host_script_stats(r->host, i, &stats);
    val_add(&scripts->list.v[i], "cpu_seconds", val_num((double)stats.cpu_ns / 1e9));
    val_add(&scripts->list.v[i], "mem_bytes", val_int((int64_t)stats.mem_bytes));
  }
  return v;
}

static int run_scripts(struct run *r)
{
  struct err err = {0};
  struct host_conf conf = {
      .default_image = grants_image(r->grants),
      .trust = r->opt.trust,
      .jobs = r->opt.jobs    ? r->opt.jobs
              : r->opt.trust ? 0
                             : DEFAULT_JOBS,
      .on_interrupt = on_interrupt,
      .on_idle = on_idle,
      .data = r,
  };
  if (session_open(&r->host, grants_engine(r->grants), grants_engines(r->grants), &conf, &err) <
      0) {
    cli_print_err(&err);
    return session_exit_status(&err);
  }
  open_report(r);
  if (!add_plugins(r) || !add_scripts(r)) host_shutdown(r->host);
  /* Without it only `regolith ps` does not see us. */
  if (status_serve(&r->status, host_loop(r->host), snapshot, r, &err) < 0) log_info("%s", err.msg);
  host_run(r->host);
  int status = exit_status(r);
  status_close(r->status, NULL, NULL);
  host_free(r->host);
  record_free(r->record);
  tally_free(r->tally);
  return status;
}

static int run(int argc, char **argv)
{
  struct run r = {0};
  int status = read_command_line(&r, argc, argv);
  if (status == CLI_GO_ON) status = run_scripts(&r);
  run_free(&r);
  return status;
}

const struct cli_command cmd_run = {
    .name = "run",
    .summary = "Run Lua workflow scripts, all at once",
    .usage = "SCRIPT.lua... [-- ARG...]",
    .details =
        "What scripts print goes to stdout (with several scripts each line is led by its script's\n"
        "name), logs and progress to stderr. \"-\" reads a script from standard input. Arguments\n"
        "behind \"--\" go to every script as `arg` and `...`; in a script's first line write\n"
        "#!/usr/bin/env -S regolith run --\n"
        "\n"
        "exit status: 0 all went well, 1 a script failed, 2 wrong usage, 3 this machine cannot "
        "make\n"
        "sandboxes (see regolith doctor), 124 a script ran out of time, 130 interrupted,\n"
        "141 nobody reads its output any more\n",
    .options = options,
    .flags = CLI_MAKES_SANDBOXES | CLI_RUNS_SCRIPTS,
    .run = run,
};

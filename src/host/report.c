/* What a run shows, common part: the two queues, splitting into lines, failures, names.
 *
 * A report turns the host's hooks into text for people (report_text.c) or JSON events
 * (events.c); this file forwards to the one that was chosen. Both write through struct out, so
 * that a slow reader delays scripts (on_full) and never the loop. */
#include "host/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/val.h"
#include "host/events.h"
#include "host/host.h"
#include "host/report_internal.h"
#include "wire/price.h"

/* The hooks that were chosen, and their data. */
static const struct host_hooks *format(struct report *r)
{
  return r->events ? &events_hooks : &report_text_hooks;
}

static void *format_data(struct report *r)
{
  return r->events ? (void *)r->events : (void *)r;
}

static void print_event(void *data, const struct val *event)
{
  struct report *r = data;
  struct buf b = {0};
  json_print(&b, event);
  buf_putc(&b, '\n');
  out_append(r->out, b.data, b.len);
  buf_free(&b);
}

static void on_full(void *data, bool full)
{
  (void)full;
  struct report *r = data;
  if (r->conf.on_full) r->conf.on_full(r->conf.data, report_is_full(r));
}

static void on_out_broken(void *data, int sys_errno)
{
  struct report *r = data;
  if (r->conf.on_broken) r->conf.on_broken(r->conf.data, sys_errno);
}

static bool is_same_file(int a, int b)
{
  struct stat sa, sb;
  return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
         sa.st_ino == sb.st_ino;
}

struct report *report_new(const struct report_conf *conf)
{
  struct report *r = xcalloc(1, sizeof *r);
  r->conf = *conf;
  r->many = conf->names_n > 1;
  r->scripts = xcalloc(conf->names_n ? conf->names_n : 1, sizeof *r->scripts);
  for (size_t i = 0; i < conf->names_n; i++) {
    r->scripts[i].name = conf->names[i];
    r->scripts[i].shown_percent = -1;
  }
  r->start_ms = clock_mono_ms();
  if (conf->json)
    r->events = events_new(&(struct events_conf){conf->names, conf->names_n, true, print_event, r});
  r->status_script = HOST_NO_SCRIPT;
  r->redraw = (struct timer){.cb = report_draw_status, .data = r};
  r->out = out_new(&(struct out_conf){conf->loop, conf->out_fd, on_full, on_out_broken, r});
  /* On one terminal both go through one queue, so that what takes the progress line away stays in
   * front of what comes next. Nobody reading stderr is no reason to end a run. */
  if (conf->tty && is_same_file(conf->out_fd, conf->err_fd))
    r->err = r->out;
  else
    r->err = out_new(&(struct out_conf){conf->loop, conf->err_fd, on_full, NULL, r});
  return r;
}

bool report_is_full(const struct report *r)
{
  return out_is_full(r->out) || out_is_full(r->err);
}

static void on_out_closed(void *data)
{
  struct report *r = data;
  if (--r->open_outs > 0) return;
  for (size_t i = 0; i < r->conf.names_n; i++) {
    buf_free(&r->scripts[i].lines.partial);
    free(r->scripts[i].text);
  }
  free(r->scripts);
  events_free(r->events);
  if (r->err != r->out) out_free(r->err);
  out_free(r->out);
  void (*done)(void *) = r->on_closed;
  void *done_data = r->closed_data;
  free(r);
  done(done_data);
}

void report_close(struct report *r, void (*done)(void *data), void *data)
{
  report_hide_status(r);
  timer_stop(r->conf.loop, &r->redraw);
  r->on_closed = done;
  r->closed_data = data;
  r->open_outs = r->err == r->out ? 1 : 2;
  out_close(r->out, on_out_closed, r);
  if (r->err != r->out) out_close(r->err, on_out_closed, r);
}

void report_abandon(struct report *r)
{
  out_abandon(r->out);
  out_abandon(r->err);
}

/* Each line of text with two blanks in front, where it has none; "\n" at the end of the last. */
static void append_indented(struct buf *b, const char *text)
{
  while (*text) {
    size_t n = strcspn(text, "\n");
    buf_printf(b, "%s%.*s\n", *text == ' ' ? "" : "  ", (int)n, text);
    text += n + (text[n] == '\n');
  }
}

/* An error with a place in the script begins with its path, which ends with its name. */
static bool names_itself(const struct err *err, const char *name)
{
  const char *at = strstr(err->msg, name);
  if (!at || at[strlen(name)] != ':') return false;
  return at == err->msg || (at[-1] == '/' && !memchr(err->msg, ':', (size_t)(at - err->msg)));
}

void report_failure(struct report *r, const char *name, const struct err *err,
                    const char *traceback)
{
  struct buf b = {0};
  buf_puts(&b, "regolith: ");
  if (name && !names_itself(err, name)) buf_printf(&b, "%s: ", name);
  buf_printf(&b, "%s\n", err->msg);
  if (traceback) append_indented(&b, traceback);
  if (err->hint[0]) buf_printf(&b, "  hint: %s\n", err->hint);
  report_hide_status(r);
  out_append(r->err, b.data, b.len);
  buf_free(&b);
}

void report_err(struct report *r, const struct err *err)
{
  report_failure(r, NULL, err, NULL);
}

/* Where nothing has a price nothing is said. */
static void put_cost(struct report *r)
{
  char usd[PRICE_TEXT_SIZE];
  struct buf b = {0};
  buf_printf(&b, "regolith: the sandboxes cost $%s\n", price_print(r->cost_microusd, usd));
  report_hide_status(r);
  out_append(r->err, b.data, b.len);
  buf_free(&b);
}

void report_run_end(struct report *r, int exit_status)
{
  if (r->events)
    events_run_end(r->events, exit_status);
  else if (r->cost_microusd > 0 && !r->conf.quiet)
    put_cost(r);
}

static const char *base_name(const char *path)
{
  const char *slash = strrchr(path, '/');
  return slash && slash[1] ? slash + 1 : path;
}

/* How many of names[0..n) equal name. */
static size_t count_equal(char *const *names, size_t n, const char *name)
{
  size_t equal = 0;
  for (size_t i = 0; i < n; i++) equal += strcmp(names[i], name) == 0;
  return equal;
}

void report_names(const char *const *paths, size_t n, char **ret_names)
{
  char **base = xcalloc(n ? n : 1, sizeof *base), **full = xcalloc(n ? n : 1, sizeof *full);
  for (size_t i = 0; i < n; i++) base[i] = xstrdup(base_name(paths[i]));
  for (size_t i = 0; i < n; i++)
    full[i] = xstrdup(count_equal(base, n, base[i]) > 1 ? paths[i] : base[i]);
  for (size_t i = 0; i < n; i++) {
    size_t before = count_equal(full, i, full[i]);
    struct buf name = {0};
    buf_puts(&name, full[i]);
    if (before > 0) buf_printf(&name, "#%zu", before + 1);
    ret_names[i] = buf_take(&name, NULL);
  }
  for (size_t i = 0; i < n; i++) {
    free(base[i]);
    free(full[i]);
  }
  free(base);
  free(full);
}

static void fwd_start(void *data, size_t script)
{
  format(data)->on_start(format_data(data), script);
}

static void fwd_output(void *data, size_t script, const char *text, size_t len)
{
  format(data)->on_output(format_data(data), script, text, len);
}

static void fwd_log(void *data, size_t script, enum log_level level, const char *text, size_t len)
{
  struct report *r = data;
  enum log_level least = r->conf.quiet ? LOG_ERROR : r->conf.verbose ? LOG_DEBUG : LOG_INFO;
  if (r->conf.json || level >= least) format(r)->on_log(format_data(r), script, level, text, len);
}

static void fwd_progress(void *data, size_t script, double done, double total, const char *text)
{
  format(data)->on_progress(format_data(data), script, done, total, text);
}

static void fwd_task(void *data, size_t script, uint64_t task, uint64_t parent, const char *name,
                     const char *outcome)
{
  format(data)->on_task(format_data(data), script, task, parent, name, outcome);
}

static void fwd_sandbox(void *data, size_t script, const struct val *fields)
{
  format(data)->on_sandbox(format_data(data), script, fields);
}

static void fwd_end(void *data, size_t script, const struct host_result *result)
{
  struct report *r = data;
  r->ended_n++;
  format(r)->on_end(format_data(r), script, result);
  if (!result->ok) report_failure(r, r->scripts[script].name, &result->err, result->traceback);
}

void report_interrupt(struct report *r, int times)
{
  if (r->conf.quiet || times > 2) return;
  struct err err;
  err_set(&err, ERR_CANCELLED, 0, "%s",
          times == 1 ? "interrupted: cleaning up, then the sandboxes end"
                     : "interrupted again: the sandboxes end now");
  if (times == 1) err_hint(&err, "interrupt again to skip the scripts' own cleanup");
  report_err(r, &err);
}

void report_log(struct report *r, enum log_level level, const char *text)
{
  struct buf b = {0};
  buf_printf(&b, "regolith: %s: %s\n", log_level_name(level), text);
  report_hide_status(r);
  out_append(r->err, b.data, b.len);
  buf_free(&b);
}

const struct host_hooks report_hooks = {
    .on_start = fwd_start,
    .on_output = fwd_output,
    .on_log = fwd_log,
    .on_progress = fwd_progress,
    .on_task = fwd_task,
    .on_sandbox = fwd_sandbox,
    .on_end = fwd_end,
};

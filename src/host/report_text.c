/* A run as people see it. stdout: what scripts print, line by line, each led by "name| " when
 * several scripts run; a single script's bytes pass unchanged. stderr: log lines, progress, and (on
 * request) what happens to tasks and sandboxes. On a terminal progress is one last line, taken away
 * before anything else is written and drawn again a moment later. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/json.h"
#include "base/val.h"
#include "host/host.h"
#include "host/report_internal.h"
#include "host/tally.h"

enum { REDRAW_MS = 80, TEXT_MAX = 200 };

struct line_ctx {
  struct report *r;
  struct report_script *s;
};

void report_hide_status(struct report *r)
{
  if (!r->status_shown) return;
  r->status_shown = false;
  out_append(r->err, "\r\033[K", 4);
  out_flush(r->err);
  report_show_status_soon(r);
}

void report_show_status_soon(struct report *r)
{
  if (!timer_running(&r->redraw)) timer_start(r->conf.loop, &r->redraw, REDRAW_MS);
}

static void append_lead(struct buf *b, const struct report *r, const struct report_script *s)
{
  if (r->many) buf_printf(b, "%s| ", s->name);
}

static void emit_line(void *ctx, const char *line, size_t len)
{
  struct line_ctx *c = ctx;
  struct buf b = {0};
  append_lead(&b, c->r, c->s);
  buf_append(&b, line, len);
  if (line[len - 1] != '\n') buf_putc(&b, '\n');
  out_append(c->r->out, b.data, b.len);
  buf_free(&b);
}

static void on_output(void *data, size_t script, const char *text, size_t len)
{
  struct report *r = data;
  report_hide_status(r);
  if (!r->many) {
    out_append(r->out, text, len);
    return;
  }
  struct line_ctx ctx = {r, &r->scripts[script]};
  lines_split(&ctx.s->lines, text, len, emit_line, &ctx);
}

/* One or more lines to stderr, each led by the script's name and the label. */
static void note(struct report *r, size_t script, const char *label, const char *text, size_t len)
{
  struct buf b = {0};
  do {
    const char *nl = memchr(text, '\n', len);
    size_t n = nl ? (size_t)(nl - text) : len;
    if (script != HOST_NO_SCRIPT) append_lead(&b, r, &r->scripts[script]);
    buf_printf(&b, "%s: ", label);
    buf_append(&b, text, n);
    buf_putc(&b, '\n');
    size_t used = nl ? n + 1 : n;
    text += used;
    len -= used;
  } while (len > 0);
  report_hide_status(r);
  out_append(r->err, b.data, b.len);
  buf_free(&b);
}

static void on_log(void *data, size_t script, enum log_level level, const char *text, size_t len)
{
  note(data, script, log_level_name(level), text, len);
}

/* "3/10", "3", "0.5/1" */
static void append_amount(struct buf *b, double done, double total)
{
  buf_printf(b, "%.10g", done);
  if (total >= 0) buf_printf(b, "/%.10g", total);
}

static int percent(double done, double total)
{
  if (!(total > 0) || !isfinite(done)) return -1;
  double p = done / total * 100;
  return p < 0 ? 0 : p > 100 ? 100 : (int)p;
}

/* A line for each whole percent, so that a tight loop does not fill a log file. */
static void plain_progress(struct report *r, size_t script, bool new_text)
{
  struct report_script *s = &r->scripts[script];
  int p = percent(s->done, s->total);
  if (p >= 0 && p == s->shown_percent && !new_text) return;
  s->shown_percent = p;
  struct buf b = {0};
  append_amount(&b, s->done, s->total);
  if (s->text) buf_printf(&b, " %s", s->text);
  note(r, script, "progress", b.data, b.len);
  buf_free(&b);
}

static void on_progress(void *data, size_t script, double done, double total, const char *text)
{
  struct report *r = data;
  struct report_script *s = &r->scripts[script];
  if (r->conf.quiet) return;
  bool new_text = !s->has_progress || strcmp(s->text ? s->text : "", text ? text : "") != 0;
  s->has_progress = true;
  s->done = done;
  s->total = total;
  free(s->text);
  s->text = text && *text ? xstrdup(text) : NULL;
  r->status_script = script;
  if (r->conf.tty)
    report_show_status_soon(r);
  else
    plain_progress(r, script, new_text);
}

static size_t terminal_columns(const struct report *r)
{
  struct winsize size;
  if (ioctl(r->conf.err_fd, TIOCGWINSZ, &size) < 0 || size.ws_col < 20) return 80;
  return size.ws_col;
}

/* Cuts at a column count, one per code point, and blanks what would move the cursor. */
static void fit(struct buf *b, size_t columns)
{
  size_t used = 0, i = 0;
  for (; i < b->len; i++) {
    unsigned char c = (unsigned char)b->data[i];
    if (c < 0x20 || c == 0x7f) b->data[i] = ' ';
    if ((c & 0xC0) != 0x80 && ++used > columns) break;
  }
  if (i < b->len) b->data[b->len = i] = '\0';
}

static void append_bar(struct buf *b, int p)
{
  enum { CELLS = 20 };
  buf_putc(b, '[');
  for (int i = 0; i < CELLS; i++) buf_putc(b, i * 100 < p * CELLS ? '#' : '-');
  buf_puts(b, "] ");
}

static void append_progress(struct buf *b, const struct report *r, const struct report_script *s)
{
  if (r->many) buf_printf(b, "%zu/%zu scripts done, %s ", r->ended_n, r->conf.names_n, s->name);
  int p = percent(s->done, s->total);
  if (p >= 0) append_bar(b, p);
  append_amount(b, s->done, s->total);
  if (s->text) buf_printf(b, " %.*s", TEXT_MAX, s->text);
}

/* The last progress that a script told, and behind it what is going on. */
void report_draw_status(struct timer *t)
{
  struct report *r = t->data;
  struct buf b = {0};
  bool told = r->status_script != HOST_NO_SCRIPT && r->scripts[r->status_script].has_progress;
  if (told) append_progress(&b, r, &r->scripts[r->status_script]);
  if (r->conf.live) {
    size_t before = b.len;
    if (told) buf_puts(&b, "  | ");
    size_t separated = b.len;
    tally_line(r->conf.live, &b, terminal_columns(r));
    if (b.len == separated) b.len = before;
  }
  if (b.len > 0) {
    fit(&b, terminal_columns(r) - 1);
    out_append(r->err, "\r", 1);
    out_append(r->err, b.data, b.len);
    out_append(r->err, "\033[K", 3);
    r->status_shown = true;
  }
  buf_free(&b);
}

/* On a terminal what is going on has a line of its own. */
static void live(struct report *r)
{
  if (r->conf.live && r->conf.tty && !r->conf.quiet) report_show_status_soon(r);
}

static void on_start(void *data, size_t script)
{
  struct report *r = data;
  if (r->conf.verbose) note(r, script, "debug", "script started", 14);
}

static void on_task(void *data, size_t script, uint64_t task, uint64_t parent, const char *name,
                    const char *outcome)
{
  struct report *r = data;
  live(r);
  if (!r->conf.verbose) return;
  struct buf b = {0};
  buf_printf(&b, "task %llu", (unsigned long long)task);
  if (name && *name) buf_printf(&b, " (%s)", name);
  if (outcome)
    buf_printf(&b, " ended: %s", outcome);
  else
    buf_printf(&b, " started by task %llu", (unsigned long long)parent);
  note(r, script, "debug", b.data, b.len);
  buf_free(&b);
}

static void append_field(struct buf *b, const struct val_pair *p)
{
  buf_printf(b, " %s=", p->key);
  if (p->val.type == VAL_STR && !memchr(p->val.s.p, ' ', p->val.s.len))
    buf_append(b, p->val.s.p, p->val.s.len);
  else
    json_print(b, &p->val);
}

static void on_sandbox(void *data, size_t script, const struct val *fields)
{
  struct report *r = data;
  live(r);
  if (!r->conf.verbose) return;
  struct buf b = {0};
  buf_puts(&b, val_get_str(fields, "event", "event"));
  for (size_t i = 0; i < fields->map.n; i++) {
    const struct val_pair *p = &fields->map.v[i];
    if (strcmp(p->key, "event") != 0 && strcmp(p->key, "owner") != 0) append_field(&b, p);
  }
  note(r, script, "debug", b.data, b.len);
  buf_free(&b);
}

static void on_end(void *data, size_t script, const struct host_result *result)
{
  struct report *r = data;
  struct line_ctx ctx = {r, &r->scripts[script]};
  report_hide_status(r);
  lines_end(&ctx.s->lines, emit_line, &ctx);
  ctx.s->has_progress = false;
  r->cost_microusd += result->cost_microusd;
  if (!r->conf.verbose) return;
  struct buf b = {0};
  buf_printf(&b, "script ended: %s after %llu ms", result->outcome,
             (unsigned long long)result->duration_ms);
  note(r, script, "debug", b.data, b.len);
  buf_free(&b);
}

const struct host_hooks report_text_hooks = {
    .on_start = on_start,
    .on_output = on_output,
    .on_log = on_log,
    .on_progress = on_progress,
    .on_task = on_task,
    .on_sandbox = on_sandbox,
    .on_end = on_end,
};

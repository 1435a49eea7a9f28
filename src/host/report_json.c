/* A run as programs see it: one JSON object per line on stdout. Every event has "event", "time"
 * (UTC, milliseconds) and, when it belongs to one, "script". The events and their fields are
 * documented in docs/regolith.1; fields are added, never renamed. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/val.h"
#include "host/host.h"
#include "host/report_internal.h"

static struct val event_new(const struct report *r, size_t script, const char *event)
{
  char date[CLOCK_ISO_SIZE], time_text[CLOCK_ISO_SIZE + 8];
  int64_t now_ms = clock_wall_ms();
  clock_format_iso(now_ms / 1000, date);
  snprintf(time_text, sizeof time_text, "%.19s.%03dZ", date, (int)(now_ms % 1000));
  struct val v = val_map();
  val_add(&v, "event", val_str(event));
  val_add(&v, "time", val_str(time_text));
  if (script != HOST_NO_SCRIPT) val_add(&v, "script", val_str(r->scripts[script].name));
  return v;
}

static void emit(struct report *r, struct val v)
{
  struct buf b = {0};
  json_print(&b, &v);
  buf_putc(&b, '\n');
  out_append(r->out, b.data, b.len);
  buf_free(&b);
  val_free(&v);
}

static void on_start(void *data, size_t script)
{
  emit(data, event_new(data, script, "script_started"));
}

struct line_ctx {
  struct report *r;
  size_t script;
};

static void emit_line(void *ctx, const char *line, size_t len)
{
  const struct line_ctx *c = ctx;
  struct val v = event_new(c->r, c->script, "output");
  val_add(&v, "text", val_bytes(line, len));
  emit(c->r, v);
}

static void on_output(void *data, size_t script, const char *text, size_t len)
{
  struct report *r = data;
  struct line_ctx ctx = {r, script};
  report_split(&r->scripts[script], text, len, emit_line, &ctx);
}

static void on_log(void *data, size_t script, enum log_level level, const char *text, size_t len)
{
  struct val v = event_new(data, script, "log");
  val_add(&v, "level", val_str(log_level_name(level)));
  val_add(&v, "text", val_bytes(text, len));
  emit(data, v);
}

/* 3, not 3.0: most progress counts things. */
static struct val number(double n)
{
  bool whole = n >= -1e15 && n <= 1e15 && n == (double)(int64_t)n;
  return whole ? val_int((int64_t)n) : val_num(n);
}

static void on_progress(void *data, size_t script, double done, double total, const char *text)
{
  struct val v = event_new(data, script, "progress");
  val_add(&v, "done", number(done));
  if (total >= 0) val_add(&v, "total", number(total));
  if (text && *text) val_add(&v, "text", val_str(text));
  emit(data, v);
}

static void on_task(void *data, size_t script, uint64_t task, uint64_t parent, const char *name,
                    const char *outcome)
{
  struct val v = event_new(data, script, outcome ? "task_ended" : "task_started");
  val_add(&v, "task", val_int((int64_t)task));
  if (!outcome) val_add(&v, "parent", val_int((int64_t)parent));
  if (name && *name) val_add(&v, "name", val_str(name));
  if (outcome) val_add(&v, "outcome", val_str(outcome));
  emit(data, v);
}

static void on_sandbox(void *data, size_t script, const struct val *fields)
{
  struct val v = event_new(data, script, val_get_str(fields, "event", "event"));
  for (size_t i = 0; i < fields->map.n; i++) {
    const struct val_pair *p = &fields->map.v[i];
    if (strcmp(p->key, "owner") == 0 || val_get(&v, p->key)) continue;
    val_add(&v, p->key, val_copy(&p->val));
  }
  emit(data, v);
}

static void add_text(struct val *map, const char *key, const char *text)
{
  if (text && *text) val_add(map, key, val_str(text));
}

static struct val error_val(const struct err *err, const char *traceback)
{
  struct val v = val_map();
  val_add(&v, "code", val_str(err_info(err->kind)->code));
  val_add(&v, "message", val_str(err->msg));
  add_text(&v, "field", err->field);
  add_text(&v, "sandbox_id", err->sandbox_id);
  add_text(&v, "engine", err->engine);
  add_text(&v, "hint", err->hint);
  add_text(&v, "traceback", traceback);
  return v;
}

static void on_end(void *data, size_t script, const struct host_result *result)
{
  struct report *r = data;
  struct line_ctx ctx = {r, script};
  report_split_end(&r->scripts[script], emit_line, &ctx);
  struct val v = event_new(r, script, "script_ended");
  val_add(&v, "outcome", val_str(result->outcome));
  val_add(&v, "duration_ms", val_int((int64_t)result->duration_ms));
  val_add(&v, "cpu_ms", val_int((int64_t)result->cpu_ms));
  val_add(&v, "mem_peak_bytes", val_int((int64_t)result->mem_peak_bytes));
  if (!result->ok) val_add(&v, "error", error_val(&result->err, result->traceback));
  emit(r, v);
}

void report_json_run_end(struct report *r, int exit_status)
{
  struct val v = event_new(r, HOST_NO_SCRIPT, "run_ended");
  val_add(&v, "scripts", val_int((int64_t)r->conf.names_n));
  val_add(&v, "exit_status", val_int(exit_status));
  val_add(&v, "duration_ms", val_int((int64_t)(clock_mono_ms() - r->start_ms)));
  emit(r, v);
}

const struct host_hooks report_json_hooks = {
    .on_start = on_start,
    .on_output = on_output,
    .on_log = on_log,
    .on_progress = on_progress,
    .on_task = on_task,
    .on_sandbox = on_sandbox,
    .on_end = on_end,
};

/* What happens in a run, as plain data (see events.h).
 *
 * Owns the unfinished line of each script and the list of names (not the names). Stands between the
 * host's hooks and whoever keeps or prints events: --json prints each as it comes, --report keeps
 * them to the end. */
#include "host/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/val.h"
#include "host/host.h"
#include "host/lines.h"
#include "wire/price.h"

struct events {
  struct events_conf conf;
  struct lines *lines; /* owned; one a script */
  uint64_t start_ms;
  int64_t cost_microusd; /* of the scripts that have ended */
};

struct events *events_new(const struct events_conf *conf)
{
  struct events *e = xcalloc(1, sizeof *e);
  e->conf = *conf;
  e->conf.names = xmemdup(conf->names, conf->names_n * sizeof *conf->names);
  e->lines = xcalloc(conf->names_n ? conf->names_n : 1, sizeof *e->lines);
  e->start_ms = clock_mono_ms();
  return e;
}

void events_free(struct events *e)
{
  if (!e) return;
  for (size_t i = 0; i < e->conf.names_n; i++) buf_free(&e->lines[i].partial);
  free((void *)(uintptr_t)e->conf.names);
  free(e->lines);
  free(e);
}

static struct val event_new(const struct events *e, size_t script, const char *event)
{
  char date[CLOCK_ISO_SIZE], time_text[CLOCK_ISO_SIZE + 8];
  int64_t now_ms = clock_wall_ms();
  clock_format_iso(now_ms / 1000, date);
  snprintf(time_text, sizeof time_text, "%.19s.%03dZ", date, (int)(now_ms % 1000));
  struct val v = val_map();
  val_add(&v, "event", val_str(event));
  val_add(&v, "time", val_str(time_text));
  if (script != HOST_NO_SCRIPT) val_add(&v, "script", val_str(e->conf.names[script]));
  return v;
}

static void emit(const struct events *e, struct val v)
{
  e->conf.emit(e->conf.data, &v);
  val_free(&v);
}

static void on_start(void *data, size_t script)
{
  emit(data, event_new(data, script, "script_started"));
}

struct line_ctx {
  struct events *e;
  size_t script;
};

static void emit_line(void *ctx, const char *line, size_t len)
{
  const struct line_ctx *c = ctx;
  struct val v = event_new(c->e, c->script, "output");
  val_add(&v, "text", val_bytes(line, len));
  emit(c->e, v);
}

static void on_output(void *data, size_t script, const char *text, size_t len)
{
  struct events *e = data;
  struct line_ctx ctx = {e, script};
  if (!e->conf.output) return;
  lines_split(&e->lines[script], text, len, emit_line, &ctx);
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

/* In US dollars; where nothing has a price nothing is said. */
static void add_cost(struct val *map, int64_t microusd)
{
  if (microusd > 0) val_add(map, "cost", val_num(price_usd(microusd)));
}

static void on_end(void *data, size_t script, const struct host_result *result)
{
  struct events *e = data;
  struct line_ctx ctx = {e, script};
  lines_end(&e->lines[script], emit_line, &ctx);
  struct val v = event_new(e, script, "script_ended");
  val_add(&v, "outcome", val_str(result->outcome));
  val_add(&v, "duration_ms", val_int((int64_t)result->duration_ms));
  val_add(&v, "cpu_ms", val_int((int64_t)result->cpu_ms));
  val_add(&v, "mem_peak_bytes", val_int((int64_t)result->mem_peak_bytes));
  add_cost(&v, result->cost_microusd);
  e->cost_microusd += result->cost_microusd;
  if (!result->ok) val_add(&v, "error", error_val(&result->err, result->traceback));
  emit(e, v);
}

void events_run_end(struct events *e, int exit_status)
{
  struct val v = event_new(e, HOST_NO_SCRIPT, "run_ended");
  val_add(&v, "scripts", val_int((int64_t)e->conf.names_n));
  val_add(&v, "exit_status", val_int(exit_status));
  val_add(&v, "duration_ms", val_int((int64_t)(clock_mono_ms() - e->start_ms)));
  add_cost(&v, e->cost_microusd);
  emit(e, v);
}

const struct host_hooks events_hooks = {
    .on_start = on_start,
    .on_output = on_output,
    .on_log = on_log,
    .on_progress = on_progress,
    .on_task = on_task,
    .on_sandbox = on_sandbox,
    .on_end = on_end,
};

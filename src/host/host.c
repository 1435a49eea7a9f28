/* One run: the loop, the op router, the supervisor, and the scripts on them.
 *
 * Owns the three and every script. A script's end is not the end of its story: its owner at the
 * supervisor is ended next, which ends every sandbox it still has, and only then on_end is called.
 * After the last script the supervisor shuts down, and on_idle hands over to the caller, who writes
 * what is left and stops the loop. Signals are counted: the first cancels with cleanup, the second
 * without, the third leaves at once (the warden ends what is left). A script runs in this process
 * (trust) or in a worker, which costs one descriptor while it runs; the runner knows which.
 *
 * a script: loaded → running → ending (its owner) → ended
 * the host: idle → running → shutting down → stopped */
#include "host/host.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/val.h"
#include "core/loop.h"
#include "core/op.h"
#include "host/files.h"
#include "host/grants.h"
#include "host/http.h"
#include "host/input.h"
#include "host/nursery.h"
#include "host/plugins.h"
#include "host/runner.h"
#include "host/transfer.h"
#include "sandbox/supervisor.h"
#include "script/script.h"
#include "wire/codec.h"
#include "wire/op.h"

enum { SHUTDOWN_MS = 30 * 1000, SIGNALS = 3, MAX_LISTENERS = 4 };

struct host_script {
  struct host *host;
  size_t index;                /* in host->scripts */
  struct script_conf conf;     /* its strings are the caller's */
  struct files_grants files;   /* likewise, but for dir */
  const struct grants *grants; /* the caller's; NULL = see host_script_conf */
  char *dir;                   /* owned; of the file, where require looks; NULL = none */
  struct runner_limits limits; /* of its process */
  struct runner *runner; /* owned; NULL once it has ended, and in a worker's case before it began */
  uint64_t owner;        /* at the supervisor */
  uint64_t timeout_ms;   /* 0 = none */
  struct timer deadline;
  uint64_t start_ms;
  struct host_result result;
  char *traceback;      /* owned */
  bool held;            /* by host->hold */
  uint32_t ops_per_s;   /* 0 = no bound */
  bool cancelled;       /* told to end: nothing slows its cleanup */
  bool over_rate;       /* held until rate_timer */
  uint64_t rate_due_us; /* when the ops it has asked for were all due, one by one */
  struct timer rate_timer;
};

struct host {
  struct loop *loop;
  struct ops *ops;
  struct supervisor *sup;
  struct files *files;
  struct transfers *transfers;
  struct input *input;
  struct http *http;
  struct plugins *plugins; /* NULL: there are none */
  struct host_conf conf;   /* the callbacks in it */
  struct {
    const struct host_hooks *hooks;
    void *data;
  } listeners[MAX_LISTENERS];
  size_t listeners_n;
  struct host_script **scripts; /* owned; owners ascend */
  size_t scripts_n, scripts_cap;
  size_t alive_n;          /* scripts that have not ended */
  size_t next;             /* the first script that was not started */
  size_t running_n;        /* started and not ended; at most conf.jobs */
  struct nursery *nursery; /* where workers come from; NULL: scripts run in this process */
  enum host_hold hold;
  bool closing; /* the supervisor was told to shut down */
  uv_signal_t signals[SIGNALS];
  bool signals_open;
  int interrupts;
  struct err leftovers; /* what the supervisor's shutdown said */
  bool shut_down;       /* the supervisor has answered, and the plugins have ended */
};

static void on_sandbox(void *data, uint64_t owner, const struct val *fields);
static void hold_script(struct host_script *s, bool hold);
static bool grants_of(void *data, uint64_t owner, struct files_grants *ret);
static int count_op(struct op *op, void *data, struct err *err);
static const struct grants *http_grants_of(void *data, uint64_t owner);

int host_new(struct host **ret, const struct host_conf *conf, struct err *err)
{
  struct host *h = xcalloc(1, sizeof *h);
  h->conf = *conf;
  int rc = loop_new(&h->loop, err);
  if (rc < 0) {
    free(h);
    return rc;
  }
  h->ops = ops_new(h->loop);
  ops_add_admission(h->ops, count_op, h);
  h->files = files_new(h->ops, grants_of, h);
  h->transfers = transfers_new(h->loop, h->ops, h->files);
  h->http = http_new(h->loop, h->ops, http_grants_of, h);
  h->input = input_new(h->loop, h->ops, STDIN_FILENO);
#ifdef REGOLITH_DEBUG
  ops_set_check(h->ops, codec_check);
#endif
  h->sup = supervisor_new(&(struct supervisor_conf){
      .loop = h->loop,
      .ops = h->ops,
      .default_engine = conf->default_engine,
      .default_image = conf->default_image,
      .max_sandboxes = conf->max_sandboxes,
  });
  *ret = h;
  return 0;
}

struct loop *host_loop(struct host *h)
{
  return h->loop;
}

struct ops *host_ops(struct host *h)
{
  return h->ops;
}

void host_add_hooks(struct host *h, const struct host_hooks *hooks, void *data)
{
  if (h->listeners_n == MAX_LISTENERS) abort();
  if (h->listeners_n == 0) supervisor_subscribe(h->sup, on_sandbox, h);
  h->listeners[h->listeners_n].hooks = hooks;
  h->listeners[h->listeners_n++].data = data;
}

/* Calls one function of every set that has it. */
#define TELL(h, function, ...)                                                                     \
  do {                                                                                             \
    for (size_t l_ = 0; l_ < (h)->listeners_n; l_++)                                               \
      if ((h)->listeners[l_].hooks->function)                                                      \
        (h)->listeners[l_].hooks->function((h)->listeners[l_].data, __VA_ARGS__);                  \
  } while (0)

uint64_t host_owner_new(struct host *h, const struct owner_conf *conf)
{
  return supervisor_owner_new(h->sup, conf);
}

void host_add_engine(struct host *h, struct engine *engine)
{
  supervisor_add_engine(h->sup, engine);
}

void host_set_priced(struct host *h, const char *engine, bool priced)
{
  supervisor_set_priced(h->sup, engine, priced);
}

/* --- scripts -----------------------------------------------------------------------------------
 */

static size_t index_of_owner(const struct host *h, uint64_t owner)
{
  size_t low = 0, high = h->scripts_n;
  while (low < high) {
    size_t mid = (low + high) / 2;
    if (h->scripts[mid]->owner < owner)
      low = mid + 1;
    else
      high = mid;
  }
  return low < h->scripts_n && h->scripts[low]->owner == owner ? low : HOST_NO_SCRIPT;
}

static void on_sandbox(void *data, uint64_t owner, const struct val *fields)
{
  struct host *h = data;
  size_t i = index_of_owner(h, owner);
  if (i != HOST_NO_SCRIPT) TELL(h, on_sandbox, i, fields);
}

/* It wrote: its next slice waits until the reader has caught up. */
static void has_written(struct host_script *s)
{
  if (s->host->hold == HOST_HOLD_WRITERS && !s->held) hold_script(s, true);
}

static void on_output(void *data, const char *text, size_t len)
{
  struct host_script *s = data;
  TELL(s->host, on_output, s->index, text, len);
  has_written(s);
}

static void on_log(void *data, enum log_level level, const char *text, size_t len)
{
  struct host_script *s = data;
  TELL(s->host, on_log, s->index, level, text, len);
  has_written(s);
}

static void on_progress(void *data, double done, double total, const char *text)
{
  struct host_script *s = data;
  TELL(s->host, on_progress, s->index, done, total, text);
  has_written(s);
}

static void on_task(void *data, uint64_t task, uint64_t parent, const char *name,
                    const char *outcome)
{
  struct host_script *s = data;
  TELL(s->host, on_task, s->index, task, parent, name, outcome);
}

static void on_script_done(void *data, const struct script_result *result);

static const struct script_hooks script_hooks = {
    .on_output = on_output,
    .on_log = on_log,
    .on_progress = on_progress,
    .on_task = on_task,
    .on_done = on_script_done,
};

/* ---- rates ---- */

static void on_rate_timer(struct timer *t)
{
  struct host_script *s = t->data;
  s->over_rate = false;
  hold_script(s, s->held);
}

/* Each op is due some time after the one before; a second's worth may come at once. A script that
 * is ahead of that waits, and nobody else does: no op is refused. */
static int count_op(struct op *op, void *data, struct err *err)
{
  struct host *h = data;
  (void)err;
  size_t i = index_of_owner(h, op->owner);
  struct host_script *s = i == HOST_NO_SCRIPT ? NULL : h->scripts[i];
  if (!s || s->ops_per_s == 0 || s->cancelled) return 0;
  uint64_t now = clock_mono_ns() / 1000, floor = now - 1000000;
  s->rate_due_us = (s->rate_due_us > floor ? s->rate_due_us : floor) + 1000000 / s->ops_per_s;
  if (s->rate_due_us <= now || s->over_rate) return 0;
  s->over_rate = true;
  hold_script(s, s->held);
  timer_start(h->loop, &s->rate_timer, (s->rate_due_us - now + 999) / 1000);
  return 0;
}

static void cancel_script(struct host_script *s, enum script_end end, const struct err *why,
                          bool force)
{
  s->cancelled = true;
  timer_stop(s->host->loop, &s->rate_timer);
  if (s->over_rate) on_rate_timer(&s->rate_timer);
  runner_cancel(s->runner, end, why, force);
}

static void on_deadline(struct timer *t)
{
  struct host_script *s = t->data;
  struct err err;
  err_set(&err, ERR_TIMEOUT, 0, "ran out of time (%g s)", (double)s->timeout_ms / 1000);
  err_hint(&err, "a longer --timeout, or none, gives it more");
  cancel_script(s, SCRIPT_TIMEOUT, &err, false);
}

static void script_slot_free(struct host_script *s)
{
  timer_stop(s->host->loop, &s->deadline);
  timer_stop(s->host->loop, &s->rate_timer);
  runner_free(s->runner);
  free(s->traceback);
  free(s->dir);
  free(s);
}

static char *folder_of(const char *path)
{
  if (!path) return NULL;
  const char *slash = strrchr(path, '/');
  if (!slash) return xstrdup(".");
  char *dir = xstrdup(path);
  dir[slash == path ? 1 : slash - path] = '\0';
  return dir;
}

static bool grants_of(void *data, uint64_t owner, struct files_grants *ret)
{
  struct host *h = data;
  size_t i = index_of_owner(h, owner);
  if (i == HOST_NO_SCRIPT) return h->plugins && plugins_grants(h->plugins, owner, ret);
  *ret = h->scripts[i]->files;
  return true;
}

static const char *owner_name(void *data, uint64_t owner)
{
  const struct host *h = data;
  size_t i = index_of_owner(h, owner);
  return i == HOST_NO_SCRIPT ? NULL : h->scripts[i]->conf.name;
}

int host_add_plugin(struct host *h, const struct plugin_conf *conf, struct err *err)
{
  if (!h->plugins) {
    h->plugins = plugins_new(&(struct plugins_conf){.loop = h->loop,
                                                    .ops = h->ops,
                                                    .sup = h->sup,
                                                    .default_engine = h->conf.default_engine,
                                                    .default_image = h->conf.default_image,
                                                    .owner_name = owner_name,
                                                    .data = h});
    files_set_modules(h->files, plugins_module, h->plugins);
  }
  return plugins_add(h->plugins, conf, err);
}

int host_load_plugins(struct host *h, struct err *err)
{
  return h->plugins ? plugins_load(h->plugins, err) : 0;
}

static const struct grants *http_grants_of(void *data, uint64_t owner)
{
  struct host *h = data;
  size_t i = index_of_owner(h, owner);
  return i == HOST_NO_SCRIPT ? NULL : h->scripts[i]->grants;
}

static uint64_t owner_of_script(struct host *h, const struct host_script_conf *conf)
{
  struct owner_conf owner = {.name = conf->name, .may_adopt = true};
  struct grant_bounds b = {0};
  if (conf->grants) {
    grants_bounds(conf->grants, &b);
    owner.admit = grants_admit_create;
    owner.admit_name = grants_admit_name;
    owner.admit_data = (void *)(uintptr_t)conf->grants;
  }
  owner.max_sandboxes = b.max_sandboxes;
  owner.max_life_s = b.max_timeout_s;
  owner.cost_capped = b.cost_capped;
  owner.max_microusd = b.max_microusd;
  return supervisor_owner_new(h->sup, &owner);
}

static void take_grants(struct host_script *s, const struct grants *g)
{
  struct grant_bounds b;
  s->grants = g;
  s->files = (struct files_grants){.dir = s->dir};
  if (!g) return;
  grants_bounds(g, &b);
  s->ops_per_s = b.ops_per_s;
  s->conf.env = grants_env(g);
  s->files.read_dirs = grants_read_dirs(g);
  s->files.write_dirs = grants_write_dirs(g);
}

int host_add_script(struct host *h, const struct host_script_conf *conf, struct err *err)
{
  struct host_script *s = xcalloc(1, sizeof *s);
  s->host = h;
  s->timeout_ms = conf->timeout_ms;
  s->deadline = (struct timer){.cb = on_deadline, .data = s};
  s->rate_timer = (struct timer){.cb = on_rate_timer, .data = s};
  s->owner = owner_of_script(h, conf);
  s->limits = (struct runner_limits){.cpu_s = conf->cpu_s};
  s->dir = folder_of(conf->path);
  s->conf = (struct script_conf){
      .name = conf->name,
      .path = conf->path,
      .source = conf->source,
      .source_len = conf->source_len,
      .args = conf->args,
      .mem_bytes = conf->mem_bytes,
      .grace_ms = conf->grace_ms,
      .embedded = conf->embedded,
      .full_stdlib = conf->full_stdlib,
      .loop = h->loop,
      .ops = h->ops,
      .owner = s->owner,
      .hooks = &script_hooks,
      .hooks_data = s,
  };
  take_grants(s, conf->grants);
  int rc = 0;
  if (h->conf.trust)
    rc = runner_new(&s->runner, NULL, &s->conf, &s->limits, err);
  else if (!h->nursery)
    rc = nursery_open(&h->nursery, h->loop, err);
  if (rc < 0) {
    free(s);
    return rc;
  }
  if (h->scripts_n == h->scripts_cap) {
    h->scripts_cap = h->scripts_cap ? h->scripts_cap * 2 : 16;
    h->scripts = xrealloc(h->scripts, h->scripts_cap * sizeof(struct host_script *));
  }
  s->index = h->scripts_n;
  h->scripts[h->scripts_n++] = s;
  return 0;
}

size_t host_script_count(const struct host *h)
{
  return h->scripts_n;
}

const struct host_result *host_script_result(const struct host *h, size_t script)
{
  return &h->scripts[script]->result;
}

void host_script_stats(const struct host *h, size_t script, struct script_stats *ret)
{
  const struct host_script *s = h->scripts[script];
  *ret = (struct script_stats){.cpu_ns = s->result.cpu_ms * 1000000};
  if (s->runner) runner_stats(s->runner, ret);
}

/* --- the way to the end ------------------------------------------------------------------------
 */

static void on_plugins_closed(void *data)
{
  struct host *h = data;
  h->shut_down = true;
  if (h->conf.on_idle)
    h->conf.on_idle(h->conf.data, h->leftovers.kind == ERR_NONE ? NULL : &h->leftovers);
  else
    loop_stop(h->loop);
}

/* Nothing happens any more that plugins have to hear of. */
static void on_shut_down(void *data, const struct err *err)
{
  struct host *h = data;
  if (err) h->leftovers = *err;
  if (h->plugins)
    plugins_close(h->plugins, on_plugins_closed, h);
  else
    on_plugins_closed(h);
}

void host_shutdown(struct host *h)
{
  if (h->closing) return;
  h->closing = true;
  supervisor_shutdown(h->sup, SHUTDOWN_MS, on_shut_down, h);
}

static void tell_end(struct host_script *s)
{
  struct host *h = s->host;
  TELL(h, on_end, s->index, &s->result);
  if (--h->alive_n == 0) host_shutdown(h);
}

static void start_waiting(struct host *h);

static void on_owner_ended(void *data)
{
  struct host_script *s = data;
  struct host *h = s->host;
  s->result.duration_ms = clock_mono_ms() - s->start_ms;
  s->result.cost_microusd = supervisor_owner_spent(h->sup, s->owner);
  h->running_n--;
  tell_end(s);
  start_waiting(h);
}

static void on_http_ended(void *data)
{
  struct host_script *s = data;
  supervisor_owner_end(s->host->sup, s->owner, on_owner_ended, s);
}

static void on_script_done(void *data, const struct script_result *result)
{
  struct host_script *s = data;
  struct script_stats stats;
  runner_stats(s->runner, &stats);
  timer_stop(s->host->loop, &s->deadline);
  timer_stop(s->host->loop, &s->rate_timer);
  s->traceback = result->traceback ? xstrdup(result->traceback) : NULL;
  s->result = (struct host_result){
      .outcome = script_end_name(result->end),
      .ok = result->end == SCRIPT_OK,
      .timed_out = result->end == SCRIPT_TIMEOUT,
      .err = result->err,
      .traceback = s->traceback,
      .cpu_ms = stats.cpu_ns / 1000000,
      .mem_peak_bytes = stats.mem_peak_bytes,
  };
  runner_free(take_ptr(&s->runner));
  files_end_owner(s->host->files, s->owner);
  http_end_owner(s->host->http, s->owner, on_http_ended, s);
}

static void hold_script(struct host_script *s, bool hold)
{
  s->held = hold;
  if (s->runner) runner_hold(s->runner, hold || s->over_rate);
}

void host_hold(struct host *h, enum host_hold hold)
{
  h->hold = hold;
  for (size_t i = 0; i < h->scripts_n; i++) {
    struct host_script *s = h->scripts[i];
    if (hold == HOST_HOLD_ALL || (hold == HOST_HOLD_NONE && s->held))
      hold_script(s, hold == HOST_HOLD_ALL);
  }
}

/* A script that had not begun ends without having run. */
static void end_unstarted(struct host_script *s, enum script_end end, const struct err *why)
{
  s->result = (struct host_result){.outcome = script_end_name(end), .err = *why};
  runner_free(take_ptr(&s->runner));
  tell_end(s);
}

void host_cancel(struct host *h, const struct err *why, bool force)
{
  size_t started = h->next;
  for (size_t i = 0; i < started; i++)
    if (h->scripts[i]->runner) cancel_script(h->scripts[i], SCRIPT_CANCELLED, why, force);
  for (h->next = h->scripts_n; started < h->scripts_n; started++)
    end_unstarted(h->scripts[started], SCRIPT_CANCELLED, why);
}

static void on_signal(uv_signal_t *handle, int signal)
{
  struct host *h = handle->data;
  if (signal == SIGINT && h->conf.take_interrupt && h->conf.take_interrupt(h->conf.data)) return;
  int times = ++h->interrupts;
  if (h->conf.on_interrupt) h->conf.on_interrupt(h->conf.data, signal, times);
  struct err why;
  char name[24];
  err_set(&why, ERR_CANCELLED, EINTR, "interrupted by %s", signal_name(signal, name));
  host_cancel(h, &why, times > 1);
}

static void open_signals(struct host *h)
{
  static const int numbers[SIGNALS] = {SIGINT, SIGTERM, SIGHUP};
  for (int i = 0; i < SIGNALS; i++) {
    uv_signal_init(loop_uv(h->loop), &h->signals[i]);
    h->signals[i].data = h;
    uv_signal_start(&h->signals[i], on_signal, numbers[i]);
    uv_unref((uv_handle_t *)&h->signals[i]);
  }
  h->signals_open = true;
}

static void start_script(struct host_script *s)
{
  struct host *h = s->host;
  struct err err = {0};
  s->start_ms = clock_mono_ms();
  TELL(h, on_start, s->index);
  if (!s->runner && runner_new(&s->runner, h->nursery, &s->conf, &s->limits, &err) < 0) {
    end_unstarted(s, SCRIPT_ERROR, &err);
    return;
  }
  h->running_n++;
  runner_start(s->runner);
  if (s->timeout_ms) timer_start(h->loop, &s->deadline, s->timeout_ms);
}

static void start_waiting(struct host *h)
{
  while (h->next < h->scripts_n && !h->closing && (!h->conf.jobs || h->running_n < h->conf.jobs))
    start_script(h->scripts[h->next++]);
}

void host_run(struct host *h)
{
  if (!h->signals_open) open_signals(h);
  h->alive_n = h->closing ? 0 : h->scripts_n;
  start_waiting(h);
  loop_run(h->loop);
}

void host_stop(struct host *h)
{
  loop_stop(h->loop);
}

void host_free(struct host *h)
{
  if (!h) return;
  if (!h->shut_down) {
    h->conf.on_idle = NULL;
    host_shutdown(h);
    loop_run(h->loop);
  }
  if (h->listeners_n > 0) supervisor_unsubscribe(h->sup, on_sandbox, h);
  plugins_free(h->plugins);
  supervisor_free(h->sup);
  for (size_t i = 0; i < h->scripts_n; i++) script_slot_free(h->scripts[i]);
  free(h->scripts);
  transfers_free(h->transfers);
  files_free(h->files);
  http_free(h->http);
  input_free(h->input);
  ops_free(h->ops);
  if (h->signals_open)
    for (int i = 0; i < SIGNALS; i++) uv_close((uv_handle_t *)&h->signals[i], NULL);
  nursery_close(h->nursery, NULL, NULL);
  loop_free(h->loop);
  free(h);
}

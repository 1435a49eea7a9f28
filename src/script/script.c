/* The life of one script, from its text to on_done.
 *
 *   new → main → hooks → stopped → done
 *
 * main: the main task and all below it run. hooks: the on_exit functions run, last in first out, as
 * one task. stopped: no Lua of it runs any more; ops in flight are ending. done: Lua is closed, the
 * host was told. A cancel (the host's, or a limit's) is remembered once, cancels the main task, and
 * starts the grace timer; when that fires, or the cancel is forced, the script goes to stopped from
 * wherever it is. Lua is only closed from a deferred call, never from inside of a slice. */
#include "script/script_internal.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "script/task_internal.h"

#define DEFAULT_MEM   ((size_t)64 << 20)
#define DEFAULT_GRACE 10000

static const char key_chunk, key_hooks;

const char *script_end_name(enum script_end end)
{
  static const char *const names[] = {"ok", "error", "timeout", "cancelled", "limit"};
  return names[end];
}

/* --- Birth --- */

static void copy_strv(struct strv *to, const struct strv *from)
{
  for (size_t i = 0; from && i < from->n; i++) strv_add(to, from->v[i]);
}

static void on_grace(struct timer *timer);
static void on_settle(struct defer *settle);

static struct script *script_alloc(const struct script_conf *conf)
{
  struct script *s = xcalloc(1, sizeof *s);
  s->name = xstrdup(conf->name);
  s->path = conf->path ? xstrdup(conf->path) : NULL;
  copy_strv(&s->args, conf->args);
  copy_strv(&s->env, conf->env);
  s->full_stdlib = conf->full_stdlib;
  s->loop = conf->loop;
  s->ops = conf->ops;
  s->owner = conf->owner;
  s->grace_ms = conf->grace_ms ? conf->grace_ms : DEFAULT_GRACE;
  if (conf->hooks) s->hooks = *conf->hooks;
  s->hooks_data = conf->hooks_data;
  s->mem_soft = conf->mem_bytes ? conf->mem_bytes : DEFAULT_MEM;
  list_init(&s->ready);
  list_init(&s->all_tasks);
  list_init(&s->calls);
  list_init(&s->run_node);
  s->grace = (struct timer){.cb = on_grace, .data = s};
  s->settle = (struct defer){.cb = on_settle, .data = s};
  return s;
}

static void script_destroy(struct script *s)
{
  state_close(s);
  sched_detach(s);
  strv_free(&s->args);
  strv_free(&s->env);
  free(s->name);
  free(s->path);
  free(s->traceback);
  free(s);
}

struct source {
  const char *text;
  size_t len;
  const char *chunk_name;
  bool embedded;
};

/* What Lua itself skips in files: a byte order mark, and a first line that begins with #, which is
 * for the shell; its newline stays, to keep line numbers. */
static struct source skip_preamble(const struct script_conf *conf)
{
  struct source src = {conf->source, conf->source_len, NULL, conf->embedded};
  if (src.len >= 3 && memcmp(src.text, "\xEF\xBB\xBF", 3) == 0) {
    src.text += 3;
    src.len -= 3;
  }
  if (src.len && *src.text == '#') {
    const char *end = memchr(src.text, '\n', src.len);
    size_t skip = end ? (size_t)(end - src.text) : src.len;
    src.text += skip;
    src.len -= skip;
  }
  return src;
}

static int load_chunk(lua_State *L)
{
  const struct source *src = lua_touserdata(L, 1);
  if (script_load_text(L, src->text, src->len, src->chunk_name) != LUA_OK) return lua_error(L);
  if (src->embedded) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &script_key_embedded_env);
    lua_setupvalue(L, -2, 1);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key_chunk);
  return 0;
}

static int load_source(struct script *s, const struct script_conf *conf, struct err *err)
{
  struct source src = skip_preamble(conf);
  if (src.len && *src.text == LUA_SIGNATURE[0])
    return err_set(err, ERR_INVALID_ARGUMENT, 0, "%s is compiled Lua; scripts are text",
                   conf->path ? conf->path : conf->name);
  struct buf name = {0};
  if (conf->embedded)
    buf_printf(&name, "=[regolith.%s]", conf->name);
  else
    buf_printf(&name, "%s%s", conf->path ? "@" : "=", conf->path ? conf->path : conf->name);
  src.chunk_name = name.data;
  lua_pushcfunction(s->L, load_chunk);
  lua_pushlightuserdata(s->L, &src);
  int status = lua_pcall(s->L, 1, 0, 0);
  buf_free(&name);
  if (status == LUA_OK) return 0;
  const char *message = lua_tostring(s->L, -1);
  return err_set(err, ERR_INVALID_ARGUMENT, 0, "%s", message ? message : "cannot be loaded");
}

int script_new(struct script **ret_script, const struct script_conf *conf, struct err *err)
{
  struct script *s = script_alloc(conf);
  int rc = sched_attach(s, err);
  if (rc == 0) rc = state_new(s, err);
  if (rc == 0) rc = load_source(s, conf, err);
  if (rc < 0) {
    script_destroy(s);
    return rc;
  }
  *ret_script = s;
  return 0;
}

void script_free(struct script *s)
{
  if (!s) return;
  loop_defer_cancel(s->loop, &s->settle);
  timer_stop(s->loop, &s->grace);
  script_destroy(s);
}

static int start_main(lua_State *L)
{
  struct script *s = script_of(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &key_chunk);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key_chunk);
  luaL_checkstack(L, (int)s->args.n + 4, "too many arguments");
  for (size_t i = 0; i < s->args.n; i++) lua_pushstring(L, s->args.v[i]);
  s->main = task_new(L, (int)s->args.n, NULL, "main");
  return 0;
}

void script_start(struct script *s)
{
  if (s->stage != STAGE_NEW) return;
  s->stage = STAGE_MAIN;
  lua_pushcfunction(s->L, start_main);
  if (!s->cancelled && lua_pcall(s->L, 0, 0, 0) == LUA_OK) return;
  struct err err = {0};
  err_set(&err, ERR_LIMIT, 0, "no memory to start the script");
  script_fail(s, SCRIPT_LIMIT, &err);
  script_stop(s);
}

/* --- The way down --- */

static void start_grace(struct script *s)
{
  if (!timer_running(&s->grace)) timer_start(s->loop, &s->grace, s->grace_ms);
}

static void on_grace(struct timer *timer)
{
  struct script *s = timer->data;
  if (s->end == SCRIPT_OK) {
    s->end = SCRIPT_ERROR;
    err_set(&s->end_err, ERR_TIMEOUT, 0, "the on_exit functions took longer than %g s",
            (double)s->grace_ms / 1000);
  }
  script_stop(s);
}

/* Where the script stands that is about to be ended by a limit. */
static void save_place(struct script *s)
{
  if (!s->running || s->traceback) return;
  script_push_traceback(s->running, s->running, 0);
  s->traceback = xstrdup(lua_tostring(s->running, -1));
  lua_pop(s->running, 1);
}

/* The first reason stays. */
void script_fail(struct script *s, enum script_end end, const struct err *err)
{
  if (s->cancelled) return;
  if (end == SCRIPT_LIMIT) save_place(s);
  s->cancelled = true;
  s->end = end;
  if (err) s->end_err = *err;
  if (s->end_err.kind == ERR_NONE)
    err_set(&s->end_err,
            end == SCRIPT_TIMEOUT ? ERR_TIMEOUT
            : end == SCRIPT_LIMIT ? ERR_LIMIT
                                  : ERR_CANCELLED,
            0, "the script was cancelled");
  if (s->stage == STAGE_NEW) return;
  start_grace(s);
  if (s->stage == STAGE_MAIN && s->main) task_cancel(s->main, s->end_err.kind);
}

void script_cancel(struct script *s, enum script_end why, const struct err *err, bool force)
{
  if (s->stage == STAGE_STOPPED || s->stage == STAGE_DONE) return;
  script_fail(s, why, err);
  script_hold(s, false);
  if (force && s->stage != STAGE_NEW) script_stop(s);
}

void script_over_memory(struct script *s)
{
  lua_gc(s->running, LUA_GCCOLLECT);
  if (s->mem <= s->mem_soft - s->mem_soft / 16) return;
  if (s->mem_cut) {
    script_stop(s);
    return;
  }
  struct err err = {0};
  err_set(&err, ERR_LIMIT, 0, "the script holds %zu MiB of memory; its limit is %zu MiB",
          s->mem >> 20, s->mem_soft >> 20);
  s->mem_cut = true;
  s->mem_soft += s->mem_soft / 4;
  script_fail(s, SCRIPT_LIMIT, &err);
}

static void save_traceback(struct script *s, const struct task *t)
{
  task_push_error(s->L, t);
  const char *text = lua_tostring(s->L, -1);
  if (text && *text && !s->traceback) s->traceback = xstrdup(text);
  lua_pop(s->L, 2);
}

static int run_hooks(lua_State *L);

static int start_hooks(lua_State *L)
{
  struct script *s = script_of(L);
  lua_pushcfunction(L, run_hooks);
  s->hooks_task = task_new(L, 0, NULL, "on_exit");
  return 0;
}

static bool has_hooks(struct script *s)
{
  lua_rawgetp(s->L, LUA_REGISTRYINDEX, &key_hooks);
  bool any = lua_istable(s->L, -1) && lua_rawlen(s->L, -1) > 0;
  lua_pop(s->L, 1);
  return any;
}

/* From the scheduler: the main task and all below it have ended. */
void script_main_ended(struct script *s)
{
  struct task *main = s->main;
  s->main = NULL;
  if (s->stage != STAGE_MAIN) return;
  if (!s->cancelled && main->outcome == OUTCOME_ERROR) {
    s->end = SCRIPT_ERROR;
    task_push_error(s->L, main);
    task_push_text(s->L, main);
    script_err_from(s->L, -3, lua_tostring(s->L, -1), &s->end_err);
    lua_pop(s->L, 3);
    save_traceback(s, main);
  } else if (!s->cancelled && main->outcome == OUTCOME_CANCELLED) {
    s->end = SCRIPT_CANCELLED;
    err_set(&s->end_err, ERR_CANCELLED, 0, "the script cancelled its main task");
  }
  if (!has_hooks(s)) {
    script_stop(s);
    return;
  }
  s->stage = STAGE_HOOKS;
  start_grace(s);
  lua_pushcfunction(s->L, start_hooks);
  if (lua_pcall(s->L, 0, 0, 0) == LUA_OK) return;
  lua_pop(s->L, 1);
  script_stop(s);
}

void script_hooks_ended(struct script *s)
{
  script_stop(s);
}

/* The task is left where it stands: Lua frees it, and its __close does not run any more. */
void script_stop_task(struct task *t)
{
  struct script *s = t->script;
  timer_stop(s->loop, &t->timer);
  list_remove(&t->ready);
  list_remove(&t->waiting);
  call_drop_all(t);
  LIST_FOREACH (it, &t->groups) {
    timer_stop(s->loop, &list_entry(it, struct group, node)->deadline);
  }
  script_settle(s);
}

/* The task that is running now, if any, has C frames that hold its calls: it is stopped when the
 * scheduler has the processor back, which the hook sees to. */
void script_stop(struct script *s)
{
  if (s->stage == STAGE_STOPPED || s->stage == STAGE_DONE) return;
  s->stage = STAGE_STOPPED;
  timer_stop(s->loop, &s->grace);
  LIST_FOREACH (it, &s->all_tasks) {
    struct task *t = list_entry(it, struct task, all);
    if (t != s->current) script_stop_task(t);
  }
  if (s->running) sched_attend(s, ATTENTION_SLICE);
  script_settle(s);
}

void script_settle(struct script *s)
{
  if (s->stage == STAGE_STOPPED && list_empty(&s->calls)) loop_defer(s->loop, &s->settle);
}

static void on_settle(struct defer *settle)
{
  struct script *s = settle->data;
  if (!list_empty(&s->calls)) return;
  s->stage = STAGE_DONE;
  s->running = NULL;
  state_close(s);
  list_remove(&s->run_node);
  if (!s->hooks.on_done) return;
  struct script_result result = {.end = s->end, .err = s->end_err, .traceback = s->traceback};
  s->hooks.on_done(s->hooks_data, &result);
}

/* All tasks wait for each other: nothing will ever happen. */
void script_check_idle(struct script *s)
{
  bool alive = s->stage == STAGE_MAIN || s->stage == STAGE_HOOKS;
  if (!alive || !list_empty(&s->ready) || s->outside > 0 || s->tasks == 0) return;
  struct err err = {0};
  err_set(&err, ERR_CONFLICT, 0, "deadlock: every task of the script waits for another one");
  if (s->cancelled || s->stage == STAGE_HOOKS)
    script_stop(s);
  else
    script_fail(s, SCRIPT_ERROR, &err);
}

void script_stats(const struct script *s, struct script_stats *ret)
{
  *ret = (struct script_stats){.mem_bytes = s->mem,
                               .mem_peak_bytes = s->mem_peak,
                               .tasks = s->tasks,
                               .cpu_ns = s->cpu_ns,
                               .preempts = s->preempts};
}

/* --- on_exit --- */

/* The stack: why, the hook's error. The next hook, until none is left. */
static int next_hook(lua_State *L, int status, lua_KContext ctx);

static void hook_failed(lua_State *L, struct script *s)
{
  struct err err;
  script_err_from(L, -1, NULL, &err);
  err_wrap(&err, "in an on_exit function");
  if (s->end == SCRIPT_OK) {
    s->end = SCRIPT_ERROR;
    s->end_err = err;
  } else if (s->hooks.on_log) {
    s->hooks.on_log(s->hooks_data, LOG_ERROR, err.msg, strlen(err.msg));
  }
}

static int hook_ended(lua_State *L, int status, lua_KContext ctx)
{
  if (status != LUA_OK && status != LUA_YIELD) hook_failed(L, script_of(L));
  lua_settop(L, 1);
  return next_hook(L, LUA_OK, ctx);
}

static int next_hook(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  for (;;) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &key_hooks);
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    if (n == 0) return 0;
    lua_rawgeti(L, -1, n);
    lua_pushnil(L);
    lua_rawseti(L, -3, n);
    lua_remove(L, -2);
    lua_pushvalue(L, 1);
    int rc = lua_pcallk(L, 1, 0, 0, ctx, hook_ended);
    if (rc != LUA_OK) hook_failed(L, script_of(L));
    lua_settop(L, 1);
  }
}

static int run_hooks(lua_State *L)
{
  struct script *s = script_of(L);
  lua_settop(L, 0);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, script_end_name(s->end));
  lua_setfield(L, 1, "kind");
  if (s->end != SCRIPT_OK) {
    script_push_err(L, &s->end_err);
    lua_setfield(L, 1, "error");
  }
  return next_hook(L, LUA_OK, 0);
}

/* on_exit(fn) */
int script_on_exit(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &key_hooks) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &key_hooks);
  }
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  return 0;
}

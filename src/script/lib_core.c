/* regolith.core: what embedded Lua builds on. Scripts cannot require it.
 *
 *   call(op, args, opts)      blocks until the op ends: its result, or raises its error. opts:
 *                             timeout = seconds; input = a string, or a function asked for more
 *                             until it gives nil; on_chunk = function(stream, bytes), called in
 *                             this task, in order, stream "stdout", "stderr", or "event" with a
 *                             table in place of bytes; an error in it ends the op and is raised
 *   spawn(name, fn, …) → task        a child of the current task
 *   daemon(name, fn, …) → task       a child of the main task that nobody waits for; it is
 *                                    cancelled when the script's other tasks are done
 *   wait(task) → …                   what fn returned, or raises its error
 *   outcome(task) → nil while it lives; "ok", …; "error" or "cancelled", err, traceback or nil
 *   cancel(task)  current()  id(task)
 *   group_new(mode, limit, deadline) group_spawn(g, name, fn, …) group_wait(g, quiet)
 *   group_cancel(g)                  group.c
 *   sleep(seconds)  yield()  now()   monotonic seconds
 *   duration(value, field)           seconds, or raises invalid_argument
 *   error(code, message, fields)     an error table; fields: field hint sandbox_id engine …
 *   output(text)  log(level, text)  progress(done, total, text)
 *   args()  env(name)  on_exit(fn)  null */
#include "script/task_internal.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* --- Tasks --- */

static struct task *spawn(lua_State *L, struct task *parent)
{
  luaL_checktype(L, 2, LUA_TFUNCTION);
  return task_new(L, lua_gettop(L) - 2, parent, luaL_optstring(L, 1, "task"));
}

static int core_spawn(lua_State *L)
{
  struct task *t = task_current(L);
  if (!t) return luaL_error(L, "tasks start inside of tasks");
  spawn(L, t);
  return 1;
}

static int core_daemon(lua_State *L)
{
  struct task *top = task_current(L);
  if (!top) return luaL_error(L, "tasks start inside of tasks");
  while (top->parent) top = top->parent;
  struct task *t = spawn(L, top);
  t->daemon = true;
  top->live_daemons++;
  return 1;
}

static int wait_again(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  struct task *t = task_check(L, 1);
  task_check_cancel(L);
  if (t->state != TASK_ENDED) {
    list_append(&t->waiters, &task_current(L)->waiting);
    return task_block(L, UINT64_MAX, false, 0, wait_again);
  }
  t->observed = true;
  if (!list_empty(&t->sibling)) task_forget(L, t);
  return t->outcome == OUTCOME_OK ? task_push_results(L, 1) : task_raise_from(L, 1);
}

static int core_wait(lua_State *L)
{
  const struct task *t = task_check(L, 1);
  lua_settop(L, 1);
  if (t->state == TASK_ENDED) return wait_again(L, LUA_OK, 0);
  task_check_blocking(L, "task:wait");
  for (const struct task *up = task_current(L); up; up = up->parent)
    if (up == t)
      return script_raise_arg(L, "task", "a task cannot wait for %s: it would wait forever",
                              up == task_current(L) ? "itself"
                                                    : "a task that waits for it in turn");
  return wait_again(L, LUA_OK, 0);
}

static int core_cancel(lua_State *L)
{
  task_cancel(task_check(L, 1), ERR_CANCELLED);
  task_check_cancel(L);
  return 0;
}

static int core_outcome(lua_State *L)
{
  const struct task *t = task_check(L, 1);
  lua_settop(L, 1);
  if (t->state != TASK_ENDED) return 0;
  if (t->outcome == OUTCOME_OK) {
    int n = task_push_results(L, 1); /* leaves more than the results below them */
    lua_pushliteral(L, "ok");
    lua_insert(L, -1 - n);
    return 1 + n;
  }
  lua_pushstring(L, t->outcome == OUTCOME_ERROR ? "error" : "cancelled");
  lua_getiuservalue(L, 1, 2);
  lua_getiuservalue(L, 1, 3);
  return 3;
}

static int core_current(lua_State *L)
{
  task_push(L, task_current(L));
  return 1;
}

static int core_id(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)task_check(L, 1)->id);
  return 1;
}

static int slept(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  task_check_cancel(L);
  return 0;
}

static int core_sleep(lua_State *L)
{
  double seconds = script_check_duration(L, 1, "seconds");
  task_check_blocking(L, "task.sleep");
  return task_block(L, (uint64_t)(seconds * 1000 + 0.999), true, 0, slept);
}

static int core_yield(lua_State *L)
{
  task_check_blocking(L, "task.yield");
  return task_yield(L, 0, slept);
}

static int core_now(lua_State *L)
{
  lua_pushnumber(L, (double)clock_mono_ns() / 1e9);
  return 1;
}

/* --- The rest --- */

static int core_duration(lua_State *L)
{
  lua_pushnumber(L, script_check_duration(L, 1, luaL_optstring(L, 2, "duration")));
  return 1;
}

static int core_error(lua_State *L)
{
  struct err err = {0};
  err_set(&err, err_kind_from_code(luaL_checkstring(L, 1)), 0, "%s", luaL_checkstring(L, 2));
  script_push_err(L, &err);
  if (!lua_istable(L, 3)) return 1;
  for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, -5);
  }
  return 1;
}

static int core_output(lua_State *L)
{
  const struct script *s = script_of(L);
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  if (s->hooks.on_output) s->hooks.on_output(s->hooks_data, text, len);
  return 0;
}

static int core_log(lua_State *L)
{
  static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
  const struct script *s = script_of(L);
  int level = luaL_checkoption(L, 1, NULL, levels);
  size_t len;
  const char *text = luaL_checklstring(L, 2, &len);
  if (s->hooks.on_log) s->hooks.on_log(s->hooks_data, (enum log_level)level, text, len);
  return 0;
}

void lib_core_open(lua_State *L)
{
  static const luaL_Reg functions[] = {{"call", call_start},        {"spawn", core_spawn},
                                       {"daemon", core_daemon},     {"wait", core_wait},
                                       {"outcome", core_outcome},   {"cancel", core_cancel},
                                       {"current", core_current},   {"id", core_id},
                                       {"sleep", core_sleep},       {"yield", core_yield},
                                       {"now", core_now},           {"duration", core_duration},
                                       {"error", core_error},       {"output", core_output},
                                       {"log", core_log},           {"progress", script_progress},
                                       {"args", script_args},       {"env", script_getenv},
                                       {"on_exit", script_on_exit}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"wait", core_wait}, {"cancel", core_cancel}, {NULL, NULL}};
  luaL_newmetatable(L, TASK_META);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "task");
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
  group_open(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &script_key_core);
}

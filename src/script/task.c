/* Tasks: the tree, blocking, cancel, the join at the end.
 *
 * A task lives in a userdata, which is also its handle in Lua, and which the registry anchors while
 * the task is alive. Its thread runs task_main: the body under lua_pcallk, then the join.
 * Invariants: a task is in the ready queue exactly while READY; a BLOCKED one has a timer running,
 * waits in a list, or has a call in flight; a task ends only when its children have.
 *
 *   ready ⇄ running ⇄ blocked, running → joining (blocked until no child lives) → ended
 *
 * Cancel: task_cancel marks the whole tree below and wakes what is blocked; the error is raised
 * once in each, where it blocked, or from the hook (sched.c). From then on the task is as any
 * other: its cleanup may block, and nothing raises a second time.
 *
 * A child's error belongs to whoever waits for the child; if nobody did, it becomes the parent's
 * own error when the parent joins its children. */
#include "script/task_internal.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

enum { UV_THREAD = 1, UV_RESULT, UV_TRACEBACK, UV_TEXT, UV_COUNT = UV_TEXT };

struct task *task_current(lua_State *L)
{
  return script_of(L)->current;
}

struct task *task_check(lua_State *L, int arg)
{
  return luaL_checkudata(L, arg, TASK_META);
}

void task_push(lua_State *L, const struct task *t)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &script_key_tasks);
  lua_rawgetp(L, -1, t);
  lua_remove(L, -2);
}

static void anchor(lua_State *L, const void *key, int idx)
{
  idx = lua_absindex(L, idx);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &script_key_tasks);
  lua_pushvalue(L, idx);
  lua_rawsetp(L, -2, key);
  lua_pop(L, 1);
}

/* --- Blocking --- */

bool task_must_raise(const struct task *t)
{
  return t && t->cancelled && !t->raised;
}

bool task_moved(lua_State *L, uint64_t epoch)
{
  const struct task *t = task_current(L);
  return t && t->raised_at > epoch;
}

static void push_cancel(lua_State *L, const struct task *t)
{
  struct err err = {0};
  if (t->script->cancelled && t->script->end_err.kind != ERR_NONE)
    err = t->script->end_err;
  else
    err_set(&err, t->why == ERR_NONE ? ERR_CANCELLED : t->why, 0, "the task was cancelled");
  script_push_err(L, &err);
}

int task_raise_cancel(lua_State *L)
{
  struct task *t = task_current(L);
  t->raised = true;
  t->raised_at = ++t->script->epoch;
  push_cancel(L, t);
  return lua_error(L);
}

void task_check_cancel(lua_State *L)
{
  if (task_must_raise(task_current(L))) task_raise_cancel(L);
}

void task_check_blocking(lua_State *L, const char *what)
{
  struct err err = {0};
  if (!task_current(L)) {
    err_set(&err, ERR_UNSUPPORTED, 0, "%s cannot block here: no task is running", what);
    script_raise(L, &err);
  }
  if (coro_can_yield(L)) {
    if (script_of(L)->stage == STAGE_STOPPED) task_raise_cancel(L); /* the hook will have it */
    task_check_cancel(L);
    return;
  }
  err_set(&err, ERR_UNSUPPORTED, 0,
          "%s cannot block here: a function of Lua that is written in C is waiting for the answer",
          what);
  err_hint(&err, "inside __tostring and other metamethods called from C, message handlers of "
                 "xpcall, and coroutine.close nothing can block");
  script_raise(L, &err);
}

static void on_timer(struct timer *timer)
{
  struct task *t = timer->data;
  task_wake(t);
}

int task_block(lua_State *L, uint64_t timeout_ms, bool outside, lua_KContext ctx, lua_KFunction k)
{
  struct task *t = task_current(L);
  struct script *s = t->script;
  t->state = TASK_BLOCKED;
  t->counted = outside || timeout_ms != UINT64_MAX;
  s->outside += t->counted;
  if (timeout_ms != UINT64_MAX) timer_start(s->loop, &t->timer, timeout_ms);
  s->host_yield = true;
  return lua_yieldk(L, 0, ctx, k);
}

int task_yield(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
  struct task *t = task_current(L);
  sched_ready(t);
  t->script->host_yield = true;
  return lua_yieldk(L, 0, ctx, k);
}

/* Takes a blocked task out of whatever would wake it. */
static void unblock(struct task *t)
{
  timer_stop(t->script->loop, &t->timer);
  list_remove(&t->waiting);
  t->blocked_on = NULL;
  if (t->counted) t->script->outside--;
  t->counted = false;
}

void task_wake(struct task *t)
{
  if (t->state != TASK_BLOCKED) return;
  unblock(t);
  sched_ready(t);
}

void task_wake_all(struct list *waiters)
{
  while (!list_empty(waiters)) task_wake(list_entry(waiters->next, struct task, waiting));
}

/* --- Cancel --- */

static bool cancel_one(struct task *t, enum err_kind why)
{
  if (t->state == TASK_ENDED || t->cancelled) return false;
  t->cancelled = true;
  t->why = why;
  if (t == t->script->current)
    sched_attend(t->script, ATTENTION_CANCEL);
  else if (t->state == TASK_BLOCKED && t->blocked_on)
    call_cancel(t->blocked_on, why); /* it ends soon, and wakes the task */
  else
    task_wake(t);
  return true;
}

/* The task after t in the tree below top; skips what is below t unless descend. */
static struct task *next_in_tree(struct task *top, struct task *t, bool descend)
{
  if (descend && !list_empty(&t->children))
    return list_entry(t->children.next, struct task, sibling);
  for (; t != top; t = t->parent)
    if (t->sibling.next != &t->parent->children)
      return list_entry(t->sibling.next, struct task, sibling);
  return NULL;
}

/* What was cancelled before is left alone with all below it: its cleanup may have children. */
void task_cancel(struct task *top, enum err_kind why)
{
  for (struct task *t = top; t;) {
    bool fresh = cancel_one(t, why);
    t = next_in_tree(top, t, fresh);
  }
}

static void cancel_children(struct task *t, bool daemons)
{
  LIST_FOREACH (it, &t->children) {
    struct task *child = list_entry(it, struct task, sibling);
    if (child->daemon == daemons) task_cancel(child, ERR_CANCELLED);
  }
}

/* --- The body and the join --- */

static int to_text(lua_State *L)
{
  luaL_tolstring(L, 1, NULL);
  return 1;
}

/* The text of an error object with __tostring, for people. Runs here, where the script still runs.
 */
static void keep_text(lua_State *L)
{
  if (!lua_istable(L, 1) || !luaL_getmetafield(L, 1, "__tostring")) return;
  lua_pop(L, 1);
  task_push(L, task_current(L));
  lua_pushcfunction(L, to_text);
  lua_pushvalue(L, 1);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) lua_setiuservalue(L, -2, UV_TEXT);
  lua_settop(L, 1);
}

static int handler(lua_State *L)
{
  if (!task_moved(L, 0)) {
    keep_text(L);
    script_push_full_traceback(L, 1, 1);
    task_push(L, task_current(L));
    lua_insert(L, -2);
    lua_setiuservalue(L, -2, UV_TRACEBACK);
  }
  lua_settop(L, 1);
  return 1;
}

/* Takes the value on top as the result (or the error) of t. */
static void keep_result(lua_State *L, struct task *t, enum task_outcome outcome)
{
  task_push(L, t);
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, UV_RESULT);
  lua_pop(L, 1);
  t->outcome = outcome;
}

/* The n results on top, as a table if there are any. */
static void keep_results(lua_State *L, struct task *t, int n)
{
  t->outcome = OUTCOME_OK;
  if (n == 0) return;
  lua_createtable(L, n, 1);
  lua_insert(L, -(n + 1));
  int list = lua_gettop(L) - n;
  lua_pushinteger(L, n);
  lua_setfield(L, list, "n");
  for (int i = n; i > 0; i--) lua_rawseti(L, list, i);
  keep_result(L, t, OUTCOME_OK);
}

static void keep_cancel(lua_State *L, struct task *t)
{
  push_cancel(L, t);
  keep_result(L, t, OUTCOME_CANCELLED);
}

/* The error of src becomes the error of t. */
static void inherit_error(lua_State *L, struct task *t, int err_idx, int trace_idx)
{
  lua_pushvalue(L, trace_idx);
  lua_pushvalue(L, err_idx < 0 ? err_idx - 1 : err_idx);
  keep_result(L, t, OUTCOME_ERROR);
  task_push(L, t);
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, UV_TRACEBACK);
  lua_pop(L, 1);
}

/* An error that nobody took, of a child or of a group: pushes it and its traceback. */
static bool take_lost_error(lua_State *L, struct task *t)
{
  LIST_FOREACH (it, &t->children) {
    struct task *child = list_entry(it, struct task, sibling);
    if (child->state != TASK_ENDED) continue;
    child->observed = true;
    task_push_error(L, child);
    task_forget(L, child);
    return true;
  }
  LIST_FOREACH (it, &t->groups) {
    struct group *g = list_entry(it, struct group, node);
    if (g->observed || !(g->failed || g->expired)) continue;
    g->observed = true;
    group_push_error(L, g);
    return true;
  }
  return false;
}

/* Until nobody below lives. Runs again at each wake-up. */
static int join(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  struct task *t = task_current(L);
  if (task_must_raise(t)) {
    t->raised = true;
    t->raised_at = ++t->script->epoch;
    keep_cancel(L, t);
  }
  while (take_lost_error(L, t)) {
    if (t->outcome == OUTCOME_OK) {
      inherit_error(L, t, -2, -1);
      cancel_children(t, false);
    }
    lua_pop(L, 2);
  }
  if (t->live_children == t->live_daemons) cancel_children(t, true);
  if (t->live_children > 0) return task_block(L, UINT64_MAX, false, 0, join);
  group_disown_all(L, t);
  return 0;
}

static int body_ended(lua_State *L, int status, lua_KContext ctx)
{
  (void)ctx;
  struct task *t = task_current(L);
  t->joining = true;
  if (t->raised) {
    keep_cancel(L, t);
  } else if (status != LUA_OK && status != LUA_YIELD) {
    keep_result(L, t, OUTCOME_ERROR);
  } else {
    keep_results(L, t, lua_gettop(L) - 1);
  }
  lua_settop(L, 0);
  if (t->outcome != OUTCOME_OK) cancel_children(t, false);
  return join(L, LUA_OK, 0);
}

/* The first thing in the protected call: a task that was cancelled before it began does not begin.
 */
static int body(lua_State *L)
{
  task_check_cancel(L);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, task_results);
  return lua_gettop(L);
}

int task_results(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  return lua_gettop(L);
}

static int task_main(lua_State *L)
{
  lua_pushcfunction(L, handler);
  lua_insert(L, 1);
  lua_pushcfunction(L, body);
  lua_insert(L, 2);
  return body_ended(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, body_ended), 0);
}

/* --- Beginning and end --- */

static void init(struct task *t, struct script *s, struct task *parent, const char *name)
{
  memset(t, 0, sizeof *t);
  t->script = s;
  t->parent = parent;
  t->timer = (struct timer){.cb = on_timer, .data = t};
  list_init(&t->children);
  list_init(&t->sibling);
  list_init(&t->member);
  list_init(&t->ready);
  list_init(&t->waiters);
  list_init(&t->waiting);
  list_init(&t->all);
  list_init(&t->groups);
  list_init(&t->calls);
  snprintf(t->name, sizeof t->name, "%s", name);
}

/* Takes the function and its nargs arguments from the stack, pushes the handle. */
struct task *task_new(lua_State *L, int nargs, struct task *parent, const char *name)
{
  struct script *s = script_of(L);
  int base = lua_gettop(L) - nargs;
  struct task *t = lua_newuserdatauv(L, sizeof *t, UV_COUNT);
  init(t, s, parent, name);
  luaL_setmetatable(L, TASK_META);
  lua_State *co = lua_newthread(L);
  lua_setiuservalue(L, -2, UV_THREAD);
  luaL_checkstack(co, nargs + 2, "too many arguments");
  anchor(L, t, -1);
  lua_insert(L, base);
  lua_pushcfunction(co, task_main);
  lua_xmove(L, co, nargs + 1);
  thread_set_flags(co, THREAD_TASK | THREAD_HELD);

  t->co = co;
  t->id = ++s->next_task;
  list_append(&s->all_tasks, &t->all);
  s->tasks++;
  if (parent) {
    list_append(&parent->children, &t->sibling);
    parent->live_children++;
  }
  if (s->hooks.on_task)
    s->hooks.on_task(s->hooks_data, t->id, parent ? parent->id : 0, t->name, NULL);
  sched_ready(t);
  return t;
}

static const char *outcome_name(enum task_outcome outcome)
{
  return outcome == OUTCOME_OK ? "ok" : outcome == OUTCOME_ERROR ? "error" : "cancelled";
}

void task_forget(lua_State *L, struct task *t)
{
  list_remove(&t->sibling);
  lua_pushnil(L);
  anchor(L, t, -1);
  lua_pop(L, 1);
}

/* From the scheduler, outside of Lua: nothing here allocates in the state. */
void task_end(struct task *t, enum task_outcome outcome)
{
  struct script *s = t->script;
  struct task *parent = t->parent;
  t->outcome = outcome;
  t->state = TASK_ENDED;
  list_remove(&t->all);
  s->tasks--;
  call_drop_all(t);
  if (s->hooks.on_task)
    s->hooks.on_task(s->hooks_data, t->id, parent ? parent->id : 0, t->name, outcome_name(outcome));
  if (!list_empty(&t->waiters)) t->observed = true;
  task_wake_all(&t->waiters);
  if (t == s->main) script_main_ended(s);
  task_push(s->L, t);
  lua_pushnil(s->L);
  lua_setiuservalue(s->L, -2, UV_THREAD);
  t->co = NULL;
  if (t->group) group_task_ended(t);
  lua_pop(s->L, 1);
  bool lost = parent && outcome == OUTCOME_ERROR && !t->observed && !t->group;
  if (!lost) task_forget(s->L, t);
  if (parent) {
    parent->live_children--;
    parent->live_daemons -= t->daemon;
    if (parent->joining) task_wake(parent);
  }
  if (t == s->hooks_task) script_hooks_ended(s);
}

/* An error left task_main itself: memory ran out at a bad moment. */
void task_died(struct task *t, int status)
{
  struct script *s = t->script;
  (void)status;
  task_push(s->L, t);
  lua_xmove(t->co, s->L, 1);
  lua_setiuservalue(s->L, -2, UV_RESULT);
  lua_pop(s->L, 1);
  struct task *child;
  cancel_children(t, false);
  cancel_children(t, true);
  while (!list_empty(&t->children)) {
    child = list_entry(t->children.next, struct task, sibling);
    list_remove(&child->sibling);
    child->parent = NULL;
  }
  group_orphan_all(s->L, t);
  task_end(t, t->raised ? OUTCOME_CANCELLED : OUTCOME_ERROR);
}

/* --- What others see of a task --- */

int task_push_results(lua_State *L, int handle)
{
  handle = lua_absindex(L, handle);
  lua_getiuservalue(L, handle, UV_RESULT);
  if (!lua_istable(L, -1)) return 0;
  int list = lua_gettop(L);
  lua_getfield(L, list, "n");
  int n = (int)lua_tointeger(L, -1);
  luaL_checkstack(L, n, "too many results");
  for (int i = 1; i <= n; i++) lua_rawgeti(L, list, i);
  return n;
}

int task_raise_from(lua_State *L, int handle)
{
  handle = lua_absindex(L, handle);
  lua_getiuservalue(L, handle, UV_RESULT);
  lua_getiuservalue(L, handle, UV_TRACEBACK);
  if (lua_isstring(L, -1)) script_carry(L, -2, -1);
  lua_pop(L, 1);
  return lua_error(L);
}

void task_push_text(lua_State *L, const struct task *t)
{
  task_push(L, t);
  lua_getiuservalue(L, -1, UV_TEXT);
  lua_remove(L, -2);
}

/* Pushes the error and its traceback (a string or nil) of a task that is anchored. */
void task_push_error(lua_State *L, const struct task *t)
{
  task_push(L, t);
  lua_getiuservalue(L, -1, UV_RESULT);
  lua_getiuservalue(L, -2, UV_TRACEBACK);
  lua_remove(L, -3);
}

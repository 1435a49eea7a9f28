/* Groups of tasks: one limit, one deadline, one fate.
 *
 * A group lives in a userdata, anchored while its owner, the task that made it, has it in its list.
 * Its tasks are children of the owner, so that the tree's rules hold whatever becomes of the group;
 * their errors are the group's. Modes: RAISE, the first error cancels the others; COLLECT, errors
 * are left to whoever looks at the tasks; RACE, the first task to return cancels the others.
 *
 * open → (failed | expired | decided) → waited for, at the latest by the owner's join */
#include "script/task_internal.h"

#include <lauxlib.h>

enum { UV_ERROR = 1, UV_TRACE, UV_WINNER, UV_OWNER };

static struct group *check_group(lua_State *L, int arg)
{
  return luaL_checkudata(L, arg, GROUP_META);
}

static void push_group(lua_State *L, const struct group *g)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &script_key_tasks);
  lua_rawgetp(L, -1, g);
  lua_remove(L, -2);
}

/* Anchors the userdata on top under g, or takes the anchor away where nil is on top. */
static void anchor_top(lua_State *L, const struct group *g)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &script_key_tasks);
  lua_pushvalue(L, -2);
  lua_rawsetp(L, -2, g);
  lua_pop(L, 1);
}

static void stop_deadline(struct group *g)
{
  if (!timer_running(&g->deadline)) return;
  timer_stop(g->script->loop, &g->deadline);
  g->script->outside--;
}

static void disown(lua_State *L, struct group *g)
{
  stop_deadline(g);
  list_remove(&g->node);
  lua_pushnil(L);
  anchor_top(L, g);
  lua_pop(L, 1);
}

void group_disown_all(lua_State *L, struct task *owner)
{
  while (!list_empty(&owner->groups)) disown(L, list_entry(owner->groups.next, struct group, node));
}

void group_orphan_all(lua_State *L, struct task *owner)
{
  LIST_FOREACH (it, &owner->groups) {
    struct group *g = list_entry(it, struct group, node);
    while (!list_empty(&g->members)) {
      struct task *t = list_entry(g->members.next, struct task, member);
      list_remove(&t->member);
      t->group = NULL;
    }
  }
  group_disown_all(L, owner);
}

static void cancel_members(struct group *g)
{
  LIST_FOREACH_SAFE (it, &g->members) {
    task_cancel(list_entry(it, struct task, member), ERR_CANCELLED);
  }
}

static void on_deadline(struct timer *timer)
{
  struct group *g = timer->data;
  g->script->outside--;
  g->past = true;
  g->expired = g->live > 0;
  cancel_members(g);
  task_wake_all(&g->queue);
  task_wake_all(&g->waiters);
}

/* core.group_new(mode, limit, deadline_s): limit and deadline 0 = none */
static int group_new(lua_State *L)
{
  static const char *const modes[] = {"raise", "collect", "race", NULL};
  struct task *owner = task_current(L);
  if (!owner) return luaL_error(L, "a group needs a task around it");
  int mode = luaL_checkoption(L, 1, "raise", modes);
  lua_Integer limit = luaL_optinteger(L, 2, 0);
  double deadline = luaL_optnumber(L, 3, 0);
  struct group *g = lua_newuserdatauv(L, sizeof *g, 4);
  *g = (struct group){.script = script_of(L), .owner = owner, .mode = (enum group_mode)mode};
  g->limit = (size_t)limit;
  g->deadline = (struct timer){.cb = on_deadline, .data = g};
  list_init(&g->members);
  list_init(&g->queue);
  list_init(&g->waiters);
  list_init(&g->node);
  luaL_setmetatable(L, GROUP_META);
  task_push(L, owner);
  lua_setiuservalue(L, -2, UV_OWNER);
  anchor_top(L, g);
  list_append(&owner->groups, &g->node);
  if (deadline > 0) {
    timer_start(g->script->loop, &g->deadline, (uint64_t)(deadline * 1000 + 0.5));
    g->script->outside++;
  }
  return 1;
}

/* From the scheduler, outside of Lua: allocates nothing in the state. */
void group_task_ended(struct task *t)
{
  struct group *g = t->group;
  lua_State *L = t->script->L;
  list_remove(&t->member);
  g->live--;
  if (t->outcome == OUTCOME_ERROR && g->mode == GROUP_RAISE && !g->failed) {
    g->failed = true;
    push_group(L, g);
    task_push_error(L, t);
    lua_setiuservalue(L, -3, UV_TRACE);
    lua_setiuservalue(L, -2, UV_ERROR);
    lua_pop(L, 1);
    cancel_members(g);
  } else if (t->outcome == OUTCOME_OK && g->mode == GROUP_RACE && !g->decided) {
    g->decided = true;
    push_group(L, g);
    task_push(L, t);
    lua_setiuservalue(L, -2, UV_WINNER);
    lua_pop(L, 1);
    cancel_members(g);
  }
  if (g->failed)
    task_wake_all(&g->queue);
  else if (!list_empty(&g->queue))
    task_wake(list_entry(g->queue.next, struct task, waiting));
  if (g->live == 0) task_wake_all(&g->waiters);
}

/* Pushes the userdata of g, which may have lost its anchor while a function still has it at idx. */
static void push_timeout(lua_State *L)
{
  struct err err = {0};
  err_set(&err, ERR_TIMEOUT, 0, "the deadline passed before all tasks were done");
  script_push_err(L, &err);
}

void group_push_error(lua_State *L, struct group *g)
{
  if (g->failed) {
    push_group(L, g);
    lua_getiuservalue(L, -1, UV_ERROR);
    lua_getiuservalue(L, -2, UV_TRACE);
    lua_remove(L, -3);
    return;
  }
  push_timeout(L);
  lua_pushnil(L);
}

static int raise_failure(lua_State *L, struct group *g)
{
  g->observed = true;
  if (!g->failed) {
    push_timeout(L);
    return lua_error(L);
  }
  lua_getiuservalue(L, 1, UV_ERROR);
  lua_getiuservalue(L, 1, UV_TRACE);
  if (lua_isstring(L, -1)) script_carry(L, -2, -1);
  lua_pop(L, 1);
  return lua_error(L);
}

/* The stack: group, name, function, arguments. Waits for a place first. */
static int spawn_when_free(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  struct group *g = check_group(L, 1);
  task_check_cancel(L);
  if (g->failed || g->past) return raise_failure(L, g);
  if (g->owner->state == TASK_ENDED)
    return luaL_error(L, "the task that made this group has ended");
  if (g->limit && g->live >= g->limit) {
    task_check_blocking(L, "group:spawn at its limit");
    list_append(&g->queue, &task_current(L)->waiting);
    return task_block(L, UINT64_MAX, false, 0, spawn_when_free);
  }
  if (list_empty(&g->node)) { /* it was waited for: from here on it is its owner's again */
    list_append(&g->owner->groups, &g->node);
    lua_pushvalue(L, 1);
    anchor_top(L, g);
    lua_pop(L, 1);
  }
  struct task *t = task_new(L, lua_gettop(L) - 3, g->owner, luaL_optstring(L, 2, "task"));
  t->group = g;
  list_append(&g->members, &t->member);
  g->live++;
  return 1;
}

static int group_spawn(lua_State *L)
{
  check_group(L, 1);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  return spawn_when_free(L, LUA_OK, 0);
}

/* Until no member lives. ctx 1: raise what went wrong; gives the winner of a race. */
static int wait_end(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  struct group *g = check_group(L, 1);
  task_check_cancel(L);
  if (g->live > 0) {
    list_append(&g->waiters, &task_current(L)->waiting);
    return task_block(L, UINT64_MAX, false, ctx, wait_end);
  }
  disown(L, g);
  if (ctx && (g->failed || g->expired)) return raise_failure(L, g);
  g->observed = true;
  lua_getiuservalue(L, 1, UV_WINNER);
  lua_pushboolean(L, g->expired);
  return 2;
}

static void check_not_member(lua_State *L, const struct group *g, const char *what)
{
  for (const struct task *t = task_current(L); t; t = t->parent)
    if (t->group == g)
      script_raise_arg(L, "group", "%s inside of a task of the same group would wait for itself",
                       what);
}

/* core.group_wait(g, quiet): winner, expired; raises the first error unless quiet */
static int group_wait(lua_State *L)
{
  const struct group *g = check_group(L, 1);
  if (g->live > 0) task_check_blocking(L, "group:wait");
  check_not_member(L, g, "waiting");
  return wait_end(L, LUA_OK, !lua_toboolean(L, 2));
}

static int group_cancel(lua_State *L)
{
  cancel_members(check_group(L, 1));
  task_check_cancel(L);
  return 0;
}

void group_open(lua_State *L)
{
  static const luaL_Reg functions[] = {{"group_new", group_new},
                                       {"group_spawn", group_spawn},
                                       {"group_wait", group_wait},
                                       {"group_cancel", group_cancel},
                                       {NULL, NULL}};
  luaL_newmetatable(L, GROUP_META);
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}

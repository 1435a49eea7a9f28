/* coroutine.*, pcall and xpcall, replaced.
 *
 * A task is a coroutine, and a script may run coroutines of its own inside it. Two kinds of yield
 * meet here: the script's, which goes to whoever resumed the coroutine, and the runtime's (a
 * blocking call, a slice that is over), which passes through every coroutine down to the scheduler:
 * resume sees script.host_yield, yields in turn, and when the task goes on its continuation resumes
 * the inner coroutine again. Between the two moments the inner one is HELD: nobody else may resume
 * or close it.
 *
 * A cancel is an error that is raised once. pcall, xpcall and resume remember script.epoch; if the
 * current task was told to end since, they pass the error on instead of giving it to the script.
 * Calls that begin after it (in cleanup code) work as ever.
 *
 * Every coroutine has a C function at its root that calls the body by lua_pcallk: so __close runs
 * for errors that leave the body, and may block there. coroutine.close on a suspended coroutine
 * cannot yield (Lua 5.4 offers no way), and its depth is limited, because Lua does not. */
#include "script/script_internal.h"

#include <lauxlib.h>

#define MAX_CLOSE_DEPTH 10

bool coro_can_yield(lua_State *L)
{
  return script_of(L)->walls == 0 && lua_isyieldable(L);
}

static int raise_if_moved(lua_State *L, uint64_t epoch)
{
  if (task_moved(L, epoch)) return lua_error(L);
  return 0;
}

/* --- pcall, xpcall --- */

/* Lua counts nested C calls, but anew after each yield, and slices end anywhere: so we count too.
 * (Unwinding is quadratic in the depth, and no hook runs meanwhile.) */
#define MAX_PCALL_DEPTH 190

/* What a continuation has to know: the epoch at the start, and the depth around the call. */
static lua_KContext begin_pcall(lua_State *L)
{
  unsigned depth = thread_depth(L);
  if (depth >= MAX_PCALL_DEPTH) luaL_error(L, "C stack overflow");
  thread_set_depth(L, depth + 1);
  return (lua_KContext)(script_of(L)->epoch << 8 | depth);
}

/* below: how many values lie below the results. */
static int call_ended(lua_State *L, int status, lua_KContext ctx, int below)
{
  thread_set_depth(L, ctx & 0xff);
  if (status == LUA_OK || status == LUA_YIELD) return lua_gettop(L) - below;
  raise_if_moved(L, (uint64_t)ctx >> 8);
  lua_pushboolean(L, false);
  lua_insert(L, -2);
  return 2;
}

static int pcall_ended(lua_State *L, int status, lua_KContext ctx)
{
  return call_ended(L, status, ctx, 0);
}

static int coro_pcall(lua_State *L)
{
  luaL_checkany(L, 1);
  lua_KContext ctx = begin_pcall(L);
  lua_pushboolean(L, true);
  lua_insert(L, 1);
  int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, ctx, pcall_ended);
  return pcall_ended(L, status, ctx);
}

/* Stands before the script's own message handler: an error that carries a cancel is not for it.
 * Upvalues: the handler, the epoch. */
static int xpcall_handler(lua_State *L)
{
  lua_settop(L, 1);
  if (task_moved(L, (uint64_t)lua_tointeger(L, lua_upvalueindex(2)))) return 1;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

static int xpcall_ended(lua_State *L, int status, lua_KContext ctx)
{
  return call_ended(L, status, ctx, 2);
}

/* The stack becomes: handler, function, true, function, arguments. */
static int coro_xpcall(lua_State *L)
{
  int n = lua_gettop(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_KContext ctx = begin_pcall(L);
  lua_pushvalue(L, 2);
  lua_pushinteger(L, ctx >> 8);
  lua_pushcclosure(L, xpcall_handler, 2);
  lua_replace(L, 2);
  lua_pushboolean(L, true);
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2);
  int status = lua_pcallk(L, n - 2, LUA_MULTRET, 2, ctx, xpcall_ended);
  return xpcall_ended(L, status, ctx);
}

/* --- coroutines --- */

static lua_State *check_thread(lua_State *L, int arg)
{
  lua_State *co = lua_tothread(L, arg);
  luaL_argexpected(L, co, arg, "coroutine");
  return co;
}

/* Remembers where in the coroutine an error arose, for the traceback of the task. */
static int root_handler(lua_State *L)
{
  script_push_traceback(L, L, 1);
  script_carry(L, 1, 2);
  lua_settop(L, 1);
  return 1;
}

/* The stack: handler, results or error. An error leaves the coroutine only now, with all closed. */
static int root_ended(lua_State *L, int status, lua_KContext ctx)
{
  (void)ctx;
  if (status != LUA_OK && status != LUA_YIELD) return lua_error(L);
  return lua_gettop(L) - 1;
}

static int root(lua_State *L)
{
  lua_pushcfunction(L, root_handler);
  lua_insert(L, 1);
  return root_ended(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, root_ended), 0);
}

static int coro_create(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushcfunction(co, root);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  return 1;
}

enum { RESUME_PASS = -1, RESUME_ERROR = -2 };

static const char *status_of(lua_State *L, lua_State *co)
{
  if (L == co) return "running";
  if (thread_flags(co) & THREAD_HELD) return "normal";
  lua_Debug ar;
  switch (lua_status(co)) {
  case LUA_YIELD: return "suspended";
  case LUA_OK:
    if (lua_getstack(co, 0, &ar)) return "normal";
    return lua_gettop(co) == 0 ? "dead" : "suspended";
  default: return "dead";
  }
}

/* Runs co until it yields, ends or fails. RESUME_PASS: the runtime yields; L has to as well. */
static int run(lua_State *L, lua_State *co, int nargs, int *ret_n)
{
  struct script *s = script_of(L);
  bool wall = !lua_isyieldable(L);
  unsigned flags = thread_flags(co);
  if (lua_status(co) == LUA_OK) nargs++; /* the body, for root */
  s->walls += wall;
  thread_set_flags(co, flags | THREAD_HELD);
  sched_set_running(s, co);
  int status = lua_resume(co, L, nargs, ret_n);
  sched_set_running(s, L);
  s->walls -= wall;
  if (status == LUA_YIELD && s->host_yield) return RESUME_PASS;
  thread_set_flags(co, flags & ~(unsigned)THREAD_HELD);
  return status == LUA_OK || status == LUA_YIELD ? *ret_n : RESUME_ERROR;
}

/* What came of it: n results moved to L, or RESUME_PASS, or RESUME_ERROR with the error on L. */
static int run_and_move(lua_State *L, lua_State *co, int nargs)
{
  int n = 0, result = run(L, co, nargs, &n);
  if (result == RESUME_PASS) return result;
  if (result == RESUME_ERROR) {
    lua_xmove(co, L, 1);
    return result;
  }
  if (!lua_checkstack(L, n + 1)) {
    lua_pop(co, n);
    lua_pushliteral(L, "too many results to resume");
    return RESUME_ERROR;
  }
  lua_xmove(co, L, n);
  return n;
}

static int start(lua_State *L, lua_State *co, int nargs)
{
  const char *status = status_of(L, co);
  if (*status != 's') {
    lua_pushfstring(L, "cannot resume %s coroutine", *status == 'd' ? "dead" : "non-suspended");
    return RESUME_ERROR;
  }
  if (!lua_checkstack(co, nargs + 2)) {
    lua_pushliteral(L, "too many arguments to resume");
    return RESUME_ERROR;
  }
  lua_xmove(L, co, nargs);
  return run_and_move(L, co, nargs);
}

static int resume_ended(lua_State *L, int result, uint64_t epoch);

static int resume_again(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return resume_ended(L, run_and_move(L, lua_tothread(L, 1), 0), (uint64_t)ctx);
}

static int resume_ended(lua_State *L, int result, uint64_t epoch)
{
  if (result == RESUME_PASS) return lua_yieldk(L, 0, (lua_KContext)epoch, resume_again);
  if (result == RESUME_ERROR) raise_if_moved(L, epoch);
  lua_pushboolean(L, result != RESUME_ERROR);
  int n = result == RESUME_ERROR ? 1 : result;
  lua_insert(L, -(n + 1));
  return n + 1;
}

static int coro_resume(lua_State *L)
{
  lua_State *co = check_thread(L, 1);
  uint64_t epoch = script_of(L)->epoch;
  return resume_ended(L, start(L, co, lua_gettop(L) - 1), epoch);
}

static int wrap_ended(lua_State *L, int result);

static int wrap_again(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  return wrap_ended(L, run_and_move(L, lua_tothread(L, lua_upvalueindex(1)), 0));
}

/* Text of errors gets the place of the call in front, as in the stock function. */
static int wrap_ended(lua_State *L, int result)
{
  if (result == RESUME_PASS) return lua_yieldk(L, 0, 0, wrap_again);
  if (result != RESUME_ERROR) return result;
  if (lua_type(L, -1) == LUA_TSTRING) {
    bool carried = script_carries(L, -1);
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
    if (carried) script_carry_as(L, -1);
  }
  return lua_error(L);
}

static int wrap_call(lua_State *L)
{
  return wrap_ended(L, start(L, lua_tothread(L, lua_upvalueindex(1)), lua_gettop(L)));
}

static int coro_wrap(lua_State *L)
{
  coro_create(L);
  lua_pushcclosure(L, wrap_call, 1);
  return 1;
}

static int coro_yield(lua_State *L)
{
  if (thread_flags(L) & THREAD_TASK)
    return luaL_error(L, "attempt to yield from outside a coroutine (task.yield gives others a "
                         "turn)");
  return lua_yield(L, lua_gettop(L));
}

static int coro_isyieldable(lua_State *L)
{
  lua_State *co = lua_isnone(L, 1) ? L : check_thread(L, 1);
  lua_pushboolean(L, !(thread_flags(co) & THREAD_TASK) && lua_isyieldable(co));
  return 1;
}

static int coro_running(lua_State *L)
{
  lua_pushthread(L);
  lua_pushboolean(L, (thread_flags(L) & THREAD_TASK) != 0);
  return 2;
}

static int coro_status(lua_State *L)
{
  lua_pushstring(L, status_of(L, check_thread(L, 1)));
  return 1;
}

static int coro_close(lua_State *L)
{
  struct script *s = script_of(L);
  lua_State *co = check_thread(L, 1);
  const char *name = status_of(L, co);
  if (*name != 's' && *name != 'd') return luaL_error(L, "cannot close a %s coroutine", name);
  if (s->close_depth >= MAX_CLOSE_DEPTH)
    return luaL_error(L, "C stack overflow (coroutine.close inside of __close, %d deep)",
                      MAX_CLOSE_DEPTH);
  uint64_t epoch = s->epoch;
  bool wall = !lua_isyieldable(L);
  unsigned flags = thread_flags(co);
  s->walls += wall;
  s->close_depth++;
  thread_set_flags(co, flags | THREAD_HELD);
  sched_set_running(s, co);
  int status = lua_resetthread(co);
  sched_set_running(s, L);
  thread_set_flags(co, flags);
  s->close_depth--;
  s->walls -= wall;
  lua_pushboolean(L, status == LUA_OK);
  if (status == LUA_OK) return 1;
  lua_xmove(co, L, 1);
  raise_if_moved(L, epoch);
  return 2;
}

void coro_open(lua_State *L)
{
  static const luaL_Reg functions[] = {
      {"create", coro_create},           {"resume", coro_resume}, {"running", coro_running},
      {"status", coro_status},           {"wrap", coro_wrap},     {"yield", coro_yield},
      {"isyieldable", coro_isyieldable}, {"close", coro_close},   {NULL, NULL}};
  luaL_newlib(L, functions);
  script_set_lib(L, "coroutine");
  lua_register(L, "pcall", coro_pcall);
  lua_register(L, "xpcall", coro_xpcall);
}

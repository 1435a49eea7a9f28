/* The basic functions that differ from the stock ones: print, load, loadfile, dofile, setmetatable,
 * collectgarbage; and those that scripts do not have, which say what to use instead.
 *
 * load calls its reader in the task (so that it may block and be preempted), and then compiles the
 * text, of at most 1 MiB (a tenth of a second) because nothing interrupts the compiler. Bytecode is
 * refused: it can crash Lua. setmetatable refuses __gc: no hook runs in
 * a finalizer, so it could not be stopped. collectgarbage works in steps, and what would stop the
 * collector is accepted and does nothing, because the memory cap counts on it. */
#include "script/script_internal.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* --- Removed names --- */

static int removed(lua_State *L)
{
  const struct removed_name *gone = lua_touserdata(L, lua_upvalueindex(1));
  struct err err = {0};
  err_set(&err, ERR_UNSUPPORTED, 0, "%s is not available in scripts", gone->name);
  err_hint(&err, "%s", gone->instead);
  return script_raise(L, &err);
}

void script_set_removed(lua_State *L, const struct removed_name *list)
{
  for (; list->key; list++) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)list);
    lua_pushcclosure(L, removed, 1);
    lua_setfield(L, -2, list->key);
  }
}

/* --- print --- */

static int base_print(lua_State *L)
{
  struct script *s = script_of(L);
  int n = lua_gettop(L);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 1; i <= n; i++) {
    if (i > 1) luaL_addchar(&b, '\t');
    luaL_tolstring(L, i, NULL);
    luaL_addvalue(&b);
  }
  luaL_addchar(&b, '\n');
  luaL_pushresult(&b);
  size_t len;
  const char *text = lua_tolstring(L, -1, &len);
  if (s->hooks.on_output) s->hooks.on_output(s->hooks_data, text, len);
  return 0;
}

/* --- load --- */

#define MAX_TEXT ((size_t)1 << 20)

struct text_source {
  const char *text;
  size_t len;
};

static const char *read_text(lua_State *L, void *data, size_t *ret_len)
{
  struct text_source *src = data;
  (void)L;
  *ret_len = src->len;
  src->len = 0;
  return src->text;
}

int script_load_text(lua_State *L, const char *text, size_t len, const char *chunk_name)
{
  struct text_source src = {text, len};
  if (len > MAX_TEXT) {
    lua_pushfstring(L, "%s: more than 1 MiB of program text", chunk_name + 1);
    return LUA_ERRSYNTAX;
  }
  if (len > 0 && *text == LUA_SIGNATURE[0]) {
    lua_pushfstring(L, "%s: compiled Lua cannot be run; scripts are program text", chunk_name + 1);
    return LUA_ERRSYNTAX;
  }
  return lua_load(L, read_text, &src, chunk_name, "t");
}

enum { LOAD_CHUNK = 1, LOAD_NAME, LOAD_MODE, LOAD_ENV, LOAD_PIECES };

/* The stack: chunk, name, mode, env as given (nargs of them), the text on top. */
static int load_text(lua_State *L, bool has_env)
{
  size_t len;
  const char *text = lua_tolstring(L, -1, &len);
  const char *name =
      luaL_optstring(L, LOAD_NAME, lua_type(L, LOAD_CHUNK) == LUA_TSTRING ? text : "=(load)");
  if (len > 0 && *text == LUA_SIGNATURE[0]) {
    lua_pushnil(L);
    lua_pushliteral(L, "attempt to load a binary chunk (scripts load text only)");
    return 2;
  }
  if (!strchr(luaL_optstring(L, LOAD_MODE, "t"), 't')) {
    lua_pushnil(L);
    lua_pushfstring(L, "attempt to load a text chunk (mode is '%s')", lua_tostring(L, LOAD_MODE));
    return 2;
  }
  if (script_load_text(L, text, len, name) != LUA_OK) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  if (has_env) {
    lua_pushvalue(L, LOAD_ENV);
    if (!lua_setupvalue(L, -2, 1)) lua_pop(L, 1);
  }
  return 1;
}

/* ctx: the number of pieces so far, and bit 0 for the environment. */
static int load_next(lua_State *L, int status, lua_KContext ctx);

static int load_pieces(lua_State *L, lua_Integer n, bool has_env)
{
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, LOAD_PIECES, i);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  return load_text(L, has_env);
}

/* The reader's answer is on top. */
static int load_piece(lua_State *L, int status, lua_KContext ctx)
{
  size_t len = 0;
  if (!lua_isnil(L, -1) && !lua_tolstring(L, -1, &len))
    return luaL_error(L, "reader function must return a string");
  if (len == 0) {
    lua_settop(L, LOAD_PIECES);
    return load_pieces(L, ctx >> 1, ctx & 1);
  }
  lua_rawseti(L, LOAD_PIECES, (ctx >> 1) + 1);
  return load_next(L, status, ctx + 2);
}

/* At most 2^18 pieces: joining them has to be quick. */
static int load_next(lua_State *L, int status, lua_KContext ctx)
{
  for (;;) {
    script_pause(L, ctx, load_next);
    if (ctx >> 1 > 1 << 18) return luaL_error(L, "the reader gives too many pieces");
    lua_settop(L, LOAD_PIECES);
    lua_pushvalue(L, LOAD_CHUNK);
    lua_callk(L, 0, 1, ctx, load_piece);
    size_t len = 0;
    if (lua_type(L, -1) != LUA_TSTRING || (lua_tolstring(L, -1, &len), len == 0))
      return load_piece(L, status, ctx);
    lua_rawseti(L, LOAD_PIECES, (ctx >> 1) + 1);
    ctx += 2;
  }
}

static int base_load(lua_State *L)
{
  bool has_env = !lua_isnone(L, LOAD_ENV);
  lua_settop(L, LOAD_ENV);
  if (lua_isstring(L, LOAD_CHUNK)) {
    lua_pushvalue(L, LOAD_CHUNK);
    return load_text(L, has_env);
  }
  luaL_checktype(L, LOAD_CHUNK, LUA_TFUNCTION);
  lua_newtable(L);
  return load_next(L, LUA_OK, has_env);
}

/* --- setmetatable --- */

static int base_setmetatable(lua_State *L)
{
  int type = lua_type(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
    return luaL_error(L, "cannot change a protected metatable");
  lua_settop(L, 2);
  if (type == LUA_TTABLE) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, 2) != LUA_TNIL)
      return luaL_error(L, "__gc is not available in scripts; use a <close> variable (__close), or "
                           "on_exit");
    lua_pop(L, 1);
  }
  lua_setmetatable(L, 1);
  return 1;
}

/* --- collectgarbage --- */

/* ctx: cycles to finish. A cycle that was under way may have passed what is garbage now. */
static int collect(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  while (ctx > 0) {
    if (lua_gc(L, LUA_GCSTEP, 0)) ctx--;
    script_pause(L, ctx, collect);
  }
  lua_pushinteger(L, 0);
  return 1;
}

static int base_collectgarbage(lua_State *L)
{
  static const char *const options[] = {"collect",      "count",       "step",     "isrunning",
                                        "stop",         "restart",     "setpause", "setstepmul",
                                        "generational", "incremental", NULL};
  switch (luaL_checkoption(L, 1, "collect", options)) {
  case 0: return collect(L, LUA_OK, 2);
  case 1: lua_pushnumber(L, lua_gc(L, LUA_GCCOUNT) + lua_gc(L, LUA_GCCOUNTB) / 1024.0); return 1;
  case 2: lua_pushboolean(L, lua_gc(L, LUA_GCSTEP, 0)); return 1;
  case 3: lua_pushboolean(L, true); return 1;
  case 8:
  case 9: lua_pushliteral(L, "incremental"); return 1;
  default: lua_pushinteger(L, 0); return 1;
  }
}

#define DEBUG_NAME(name)                                                                           \
  {                                                                                                \
#name, "debug." #name,                                                                         \
        "errors that end a script carry a traceback by themselves; error() and pcall() are there"  \
  }

static void remove_names(lua_State *L)
{
  static const struct removed_name debug_names[] = {
      DEBUG_NAME(debug),        DEBUG_NAME(gethook),        DEBUG_NAME(getinfo),
      DEBUG_NAME(getlocal),     DEBUG_NAME(getmetatable),   DEBUG_NAME(getregistry),
      DEBUG_NAME(getupvalue),   DEBUG_NAME(getuservalue),   DEBUG_NAME(sethook),
      DEBUG_NAME(setlocal),     DEBUG_NAME(setmetatable),   DEBUG_NAME(setupvalue),
      DEBUG_NAME(setuservalue), DEBUG_NAME(traceback),      DEBUG_NAME(upvalueid),
      DEBUG_NAME(upvaluejoin),  DEBUG_NAME(setcstacklimit), {0}};
  static const struct removed_name string_names[] = {
      {"dump", "string.dump", "send source text, and load() it"}, {0}};
  lua_createtable(L, 0, sizeof debug_names / sizeof *debug_names);
  script_set_removed(L, debug_names);
  lua_setglobal(L, "debug");
  lua_getglobal(L, "string");
  script_set_removed(L, string_names);
  lua_pop(L, 1);
}

void lib_base_open(lua_State *L)
{
  static const luaL_Reg functions[] = {{"print", base_print},
                                       {"load", base_load},
                                       {"setmetatable", base_setmetatable},
                                       {"collectgarbage", base_collectgarbage},
                                       {NULL, NULL}};
  lua_pushglobaltable(L);
  luaL_setfuncs(L, functions, 0);
  lib_push_forward(L, "file", "loadfile");
  lua_setfield(L, -2, "loadfile");
  lib_push_forward(L, "file", "dofile");
  lua_setfield(L, -2, "dofile");
  lua_pop(L, 1);
  remove_names(L);
}

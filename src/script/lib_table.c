/* table.insert remove move concat unpack and sort. The checks and the short ways (no metatable, one
 * element) are here; what loops or calls back is embedded Lua (lua/regolith/stdlib.lua), where the
 * runtime can take turns. A table's length is never trusted: __len can say anything, and even
 * without one # can be 2^62 in a table of 63 elements.
 *
 * Upvalue 1 of every function here: the Lua half, a table of functions. */
#include "script/lib.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#define CONCAT_AT_ONCE 16384 /* elements joined in one go, a millisecond or so */

enum table_use { USE_READ = 1, USE_WRITE = 2, USE_LENGTH = 4 };

static bool has_metamethod(lua_State *L, int arg, const char *name)
{
  if (luaL_getmetafield(L, arg, name) == LUA_TNIL) return false;
  lua_pop(L, 1);
  return true;
}

/* The argument is a table, or acts like one as far as `use` needs. */
static void check_table(lua_State *L, int arg, unsigned use)
{
  if (lua_istable(L, arg)) return;
  if ((use & USE_READ && !has_metamethod(L, arg, "__index")) ||
      (use & USE_WRITE && !has_metamethod(L, arg, "__newindex")) ||
      (use & USE_LENGTH && !has_metamethod(L, arg, "__len")) || !lua_getmetatable(L, arg)) {
    luaL_checktype(L, arg, LUA_TTABLE); /* raises */
  }
  lua_pop(L, 1);
}

static lua_Integer check_length(lua_State *L, int arg, unsigned use)
{
  check_table(L, arg, use | USE_LENGTH);
  return luaL_len(L, arg);
}

static bool is_raw(lua_State *L, int arg)
{
  if (!lua_istable(L, arg)) return false;
  if (!lua_getmetatable(L, arg)) return true;
  lua_pop(L, 1);
  return false;
}

/* After the Lua half, whose result is one value. */
static int give_one(lua_State *L, int status, lua_KContext ctx)
{
  (void)L, (void)status, (void)ctx;
  return 1;
}

/* ctx results (0 or 1); nil stands for an error whose text comes second. */
static int give_or_raise(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  if (lua_isnil(L, -2)) return luaL_error(L, "%s", lua_tostring(L, -1));
  lua_pop(L, 1);
  return (int)ctx;
}

static void push_half(lua_State *L, const char *name)
{
  lua_getfield(L, lua_upvalueindex(1), name);
}

static int no_result(lua_State *L, int status, lua_KContext ctx)
{
  (void)L, (void)status, (void)ctx;
  return 0;
}

static int table_insert(lua_State *L)
{
  lua_Integer end = luaL_intop(+, check_length(L, 1, USE_READ | USE_WRITE), 1);
  int top = lua_gettop(L);
  if (top == 2) {
    lua_seti(L, 1, end);
    return 0;
  }
  if (top != 3) return luaL_error(L, "wrong number of arguments to 'insert'");
  lua_Integer pos = luaL_checkinteger(L, 2);
  luaL_argcheck(L, (lua_Unsigned)pos - 1u < (lua_Unsigned)end, 2, "position out of bounds");
  push_half(L, "insert");
  lua_pushvalue(L, 1);
  lua_pushinteger(L, pos);
  lua_pushinteger(L, end);
  lua_pushvalue(L, 3);
  lua_callk(L, 4, 0, 0, no_result);
  return 0;
}

static int table_remove(lua_State *L)
{
  lua_Integer size = check_length(L, 1, USE_READ | USE_WRITE);
  lua_Integer pos = luaL_optinteger(L, 2, size);
  if (pos != size) {
    luaL_argcheck(L, (lua_Unsigned)pos - 1u <= (lua_Unsigned)size, 2, "position out of bounds");
  }
  if (pos >= size) {
    lua_geti(L, 1, pos);
    lua_pushnil(L);
    lua_seti(L, 1, pos);
    return 1;
  }
  push_half(L, "remove");
  lua_pushvalue(L, 1);
  lua_pushinteger(L, pos);
  lua_pushinteger(L, size);
  lua_callk(L, 3, 1, 0, give_one);
  return 1;
}

static int table_move(lua_State *L)
{
  lua_Integer from = luaL_checkinteger(L, 2);
  lua_Integer last = luaL_checkinteger(L, 3);
  lua_Integer to = luaL_checkinteger(L, 4);
  int target = lua_isnoneornil(L, 5) ? 1 : 5;
  check_table(L, 1, USE_READ);
  check_table(L, target, USE_WRITE);
  if (last >= from) {
    luaL_argcheck(L, from > 0 || last < LUA_MAXINTEGER + from, 3, "too many elements to move");
    luaL_argcheck(L, to <= LUA_MAXINTEGER - (last - from + 1) + 1, 4, "destination wrap around");
  }
  push_half(L, "move");
  lua_pushvalue(L, 1);
  lua_pushinteger(L, from);
  lua_pushinteger(L, last);
  lua_pushinteger(L, to);
  lua_pushvalue(L, target);
  lua_callk(L, 5, 1, 0, give_one);
  return 1;
}

/* Joins t[i..last] of the raw table at index 1. */
static int concat_raw(lua_State *L, lua_Integer i, lua_Integer last, const char *sep,
                      size_t sep_len)
{
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (; i <= last; i++) {
    lua_rawgeti(L, 1, i);
    if (!lua_isstring(L, -1)) {
      return luaL_error(L, "invalid value (%s) at index %I in table for 'concat'",
                        luaL_typename(L, -1), (LUAI_UACINT)i);
    }
    luaL_addvalue(&b);
    if (i == last) break; /* i + 1 might not exist */
    luaL_addlstring(&b, sep, sep_len);
  }
  luaL_pushresult(&b);
  return 1;
}

static int table_concat(lua_State *L)
{
  lua_Integer last = check_length(L, 1, USE_READ);
  size_t sep_len;
  const char *sep = luaL_optlstring(L, 2, "", &sep_len);
  lua_Integer first = luaL_optinteger(L, 3, 1);
  last = luaL_optinteger(L, 4, last);
  if (is_raw(L, 1) && (last < first || (lua_Unsigned)last - (lua_Unsigned)first < CONCAT_AT_ONCE)) {
    return concat_raw(L, first, last, sep, sep_len);
  }
  push_half(L, "concat");
  lua_pushvalue(L, 1);
  lua_pushlstring(L, sep, sep_len);
  lua_pushinteger(L, first);
  lua_pushinteger(L, last);
  lua_callk(L, 4, 2, 1, give_or_raise);
  return give_or_raise(L, LUA_OK, 1);
}

/* The values 1..n of the table on top. */
static int unpack_gathered(lua_State *L, int status, lua_KContext n)
{
  (void)status;
  int from = lua_gettop(L);
  if (!lua_checkstack(L, (int)n)) return luaL_error(L, "too many results to unpack");
  for (lua_Integer i = 1; i <= n; i++) lua_rawgeti(L, from, i);
  return (int)n;
}

static int table_unpack(lua_State *L)
{
  lua_Integer first = luaL_optinteger(L, 2, 1);
  lua_Integer last = luaL_opt(L, luaL_checkinteger, 3, luaL_len(L, 1));
  if (first > last) return 0;
  lua_Unsigned n = (lua_Unsigned)last - (lua_Unsigned)first;
  if (n >= INT_MAX || !lua_checkstack(L, (int)++n)) {
    return luaL_error(L, "too many results to unpack");
  }
  if (is_raw(L, 1)) {
    for (; first < last; first++) lua_rawgeti(L, 1, first);
    lua_rawgeti(L, 1, last);
    return (int)n;
  }
  if (!lua_istable(L, 1) && !has_metamethod(L, 1, "__index")) lua_geti(L, 1, first); /* raises */
  push_half(L, "gather");
  lua_pushvalue(L, 1);
  lua_pushinteger(L, first);
  lua_pushinteger(L, last);
  lua_callk(L, 3, 1, (lua_KContext)n, unpack_gathered);
  return unpack_gathered(L, LUA_OK, (lua_KContext)n);
}

static int table_sort(lua_State *L)
{
  lua_Integer n = check_length(L, 1, USE_READ | USE_WRITE);
  if (n <= 1) return 0;
  luaL_argcheck(L, n < INT_MAX, 1, "array too big");
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  push_half(L, "sort");
  lua_pushvalue(L, 1);
  lua_pushinteger(L, n);
  lua_pushvalue(L, 2);
  lua_callk(L, 3, 2, 0, give_or_raise);
  return give_or_raise(L, LUA_OK, 0);
}

/* a < b without a place in the message when it cannot be told: as the stock sort compares. */
static int less_than(lua_State *L)
{
  lua_pushboolean(L, lua_compare(L, 1, 2, LUA_OPLT));
  return 1;
}

void lib_push_stdlib(lua_State *L)
{
  static const char key;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &key) != LUA_TNIL) return;
  lua_pop(L, 1);
  lua_pushcfunction(L, luaopen_table);
  lua_call(L, 0, 1);
  lua_getfield(L, -1, "concat"); /* the stock one, for tables that the Lua half made itself */
  lua_remove(L, -2);
  lua_pushcfunction(L, less_than);
  lib_push_embedded(L, "regolith/stdlib.lua", 2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
}

void lib_table_open(lua_State *L)
{
  static const luaL_Reg functions[] = {
      {"insert", table_insert},
      {"remove", table_remove},
      {"move", table_move},
      {"concat", table_concat},
      {"unpack", table_unpack},
      {"sort", table_sort},
      {NULL, NULL},
  };
  luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 1);
  lib_push_stdlib(L);
  luaL_setfuncs(L, functions, 1);
  lua_pop(L, 1);
}

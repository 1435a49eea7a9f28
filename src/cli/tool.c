/* Commands that are written in Lua: `api` and `check`. They run in a fresh state with the whole
 * standard library, which never runs a user's script; `require` finds the embedded modules
 * ("regolith.check" is lua/regolith/check.lua). */
#include "cli/tool.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

#include "base/embedded.h"
#include "cli/cli.h"

static int load_embedded(lua_State *L, const char *path)
{
  for (const struct embedded_file *f = embedded_files; f->name; f++) {
    if (strcmp(f->name, path) != 0) continue;
    if (luaL_loadbufferx(L, f->data, f->len, path, "t") != LUA_OK) return lua_error(L);
    return 1;
  }
  return luaL_error(L, "this program carries no %s", path);
}

/* package.searchers entry: "regolith.x" → regolith/x.lua. */
static int search_embedded(lua_State *L)
{
  const char *path = luaL_gsub(L, luaL_checkstring(L, 1), ".", "/");
  return load_embedded(L, lua_pushfstring(L, "%s.lua", path));
}

static void push_files(lua_State *L)
{
  lua_newtable(L);
  for (const struct embedded_file *f = embedded_files; f->name; f++) {
    lua_pushlstring(L, f->data, f->len);
    lua_setfield(L, -2, f->name);
  }
}

static void print_lines(lua_State *L, int idx, FILE *to)
{
  for (lua_Integer i = 1; lua_geti(L, idx, i) == LUA_TSTRING; i++) {
    size_t len;
    const char *line = lua_tolstring(L, -1, &len);
    fwrite(line, 1, len, to);
    putc('\n', to);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

struct call {
  const char *function;
  char **operands;
  int n;
  bool json;
};

static int run_protected(lua_State *L)
{
  const struct call *call = lua_touserdata(L, 1);
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_createtable(L, 1, 0);
  lua_pushcfunction(L, search_embedded);
  lua_rawseti(L, -2, 1);
  lua_setfield(L, -2, "searchers");
  load_embedded(L, "regolith/tool.lua");
  lua_createtable(L, 0, 1);
  push_files(L);
  lua_setfield(L, -2, "files");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, call->function);
  lua_createtable(L, call->n, 0);
  for (int i = 0; i < call->n; i++) {
    lua_pushstring(L, call->operands[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushboolean(L, call->json);
  lua_call(L, 2, 3);
  int top = lua_gettop(L);
  print_lines(L, top - 1, stdout);
  print_lines(L, top, stderr);
  lua_pushvalue(L, top - 2);
  return 1;
}

int cli_run_tool(const char *function, char **operands, int n, bool json)
{
  struct call call = {function, operands, n, json};
  lua_State *L = luaL_newstate();
  if (!L) return CLI_EXIT_FAILED;
  lua_pushcfunction(L, run_protected);
  lua_pushlightuserdata(L, &call);
  int status = CLI_EXIT_FAILED;
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    status = (int)lua_tointeger(L, -1);
  } else {
    struct err err;
    err_set(&err, ERR_INTERNAL, 0, "%s", luaL_tolstring(L, -1, NULL));
    cli_print_err(&err);
  }
  lua_close(L);
  return status;
}

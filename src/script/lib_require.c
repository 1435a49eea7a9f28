/* require and package.
 *
 * Looks for embedded modules first, then, by way of the host, in the folder of the script. Embedded
 * modules run in an environment of their own, filled when the state is opened: what a script does
 * to its globals does not reach them, and their require knows two kinds of names more,
 * regolith.core and the private modules. The public ones are also globals, loaded when first used.
 * A module's main chunk runs in the task that requires it, and may block. */
#include "script/script_internal.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "script/lib.h"

static const char key_embedded_loaded;

static const char *const public_modules[] = {"task", "sandbox", "retry", "budget", "http"};

static const struct embedded_file *find_embedded(const char *name)
{
  char path[128];
  snprintf(path, sizeof path, "regolith/%s.lua", name);
  return lib_find_embedded(path);
}

static bool is_public(const char *name)
{
  for (size_t i = 0; i < sizeof public_modules / sizeof *public_modules; i++)
    if (strcmp(name, public_modules[i]) == 0) return true;
  return false;
}

/* Pushes the loaded main chunk of an embedded module; raises where it does not compile. */
static void push_embedded_chunk(lua_State *L, const struct embedded_file *f, const char *name)
{
  char chunk_name[96];
  snprintf(chunk_name, sizeof chunk_name, "=[regolith.%s]", name);
  lib_push_embedded_chunk(L, f, chunk_name);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &script_key_embedded_env);
  lua_setupvalue(L, -2, 1);
}

/* The stack of require: name, the table of loaded modules, main chunk and arguments. */
enum { REQ_NAME = 1, REQ_LOADED, REQ_TOP };

static int loaded(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushvalue(L, REQ_NAME);
    if (lua_rawget(L, REQ_LOADED) == LUA_TLIGHTUSERDATA) {
      lua_pop(L, 1);
      lua_pushboolean(L, true);
    }
  }
  lua_pushvalue(L, REQ_NAME);
  lua_pushvalue(L, -2);
  lua_rawset(L, REQ_LOADED);
  return 1;
}

/* An error while it loads: the name is free again, so that a second try shows the same error. */
static int load_ended(lua_State *L, int status, lua_KContext ctx)
{
  if (status == LUA_OK || status == LUA_YIELD) return loaded(L, status, ctx);
  lua_pushvalue(L, REQ_NAME);
  lua_pushnil(L);
  lua_rawset(L, REQ_LOADED);
  return lua_error(L);
}

/* Runs the main chunk on top; while it runs, the name is marked. */
static int run_chunk(lua_State *L)
{
  lua_pushvalue(L, REQ_NAME);
  lua_pushlightuserdata(L, (void *)&key_embedded_loaded);
  lua_rawset(L, REQ_LOADED);
  lua_pushvalue(L, REQ_NAME);
  return load_ended(L, lua_pcallk(L, 1, 1, 0, 0, load_ended), 0);
}

static bool push_loaded(lua_State *L, const char *name)
{
  lua_pushvalue(L, REQ_NAME);
  int type = lua_rawget(L, REQ_LOADED);
  if (type == LUA_TLIGHTUSERDATA && lua_touserdata(L, -1) == (const void *)&key_embedded_loaded)
    luaL_error(L, "module '%s' is being loaded already (a loop of requires, or another task)",
               name);
  if (type != LUA_TNIL) return true;
  lua_pop(L, 1);
  return false;
}

/* require of embedded modules, and of public ones for scripts. */
static int require_embedded(lua_State *L, const struct embedded_file *f, const char *name)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &key_embedded_loaded);
  lua_replace(L, REQ_LOADED);
  if (push_loaded(L, name)) return 1;
  push_embedded_chunk(L, f, name);
  return run_chunk(L);
}

static int raise_missing(lua_State *L, const char *name)
{
  struct err err = {0};
  err_set(&err, ERR_NOT_FOUND, 0, "module '%s' was not found", name);
  err_hint(&err,
           "embedded modules are task, sandbox and json; others are looked for beside the "
           "script, as %s.lua",
           name);
  return script_raise(L, &err);
}

/* On the stack: the text and the chunk name of a module, or a function in its place, or nil. */
static int module_asked(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  if (lua_isfunction(L, REQ_TOP)) {
    lua_settop(L, REQ_TOP);
    return run_chunk(L);
  }
  size_t len;
  const char *text = lua_tolstring(L, REQ_TOP, &len);
  if (!text) return raise_missing(L, lua_tostring(L, REQ_NAME));
  if (script_load_text(L, text, len, lua_tostring(L, REQ_TOP + 1)) != LUA_OK) return lua_error(L);
  lua_replace(L, REQ_TOP);
  lua_settop(L, REQ_TOP);
  return run_chunk(L);
}

/* Upvalue: true in the environment of embedded modules. */
static int base_require(lua_State *L)
{
  const char *name = luaL_checkstring(L, REQ_NAME);
  bool inside = lua_toboolean(L, lua_upvalueindex(1));
  lua_settop(L, REQ_NAME);
  if (inside && strcmp(name, "regolith.core") == 0) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &script_key_core);
    return 1;
  }
  if (inside && strncmp(name, "regolith.", 9) == 0) {
    lua_pushstring(L, name + 9);
    lua_replace(L, REQ_NAME);
    name = lua_tostring(L, REQ_NAME);
  }
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (!inside && push_loaded(L, name)) return 1;
  const struct embedded_file *f = inside || is_public(name) ? find_embedded(name) : NULL;
  if (f) return require_embedded(L, f, name);
  if (push_loaded(L, name)) return 1;
  if (luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE) &&
      lua_getfield(L, -1, name) != LUA_TNIL)
    return run_chunk(L);
  lua_settop(L, REQ_LOADED);
  if (inside) return raise_missing(L, name);
  lib_push_forward(L, "file", "module");
  lua_pushvalue(L, REQ_NAME);
  lua_callk(L, 1, 2, 0, module_asked);
  return module_asked(L, LUA_OK, 0);
}

static int forwarded(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  return lua_gettop(L);
}

/* Upvalues: embedded module, name of a function in it. */
static int forward(lua_State *L)
{
  lib_require(L, lua_tostring(L, lua_upvalueindex(1)));
  lua_getfield(L, -1, lua_tostring(L, lua_upvalueindex(2)));
  lua_replace(L, -2);
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, forwarded);
  return lua_gettop(L);
}

void lib_push_forward(lua_State *L, const char *module, const char *name)
{
  lua_pushfstring(L, "regolith.%s", module);
  lua_pushstring(L, name);
  lua_pushcclosure(L, forward, 2);
}

void lib_require(lua_State *L, const char *name)
{
  lua_pushboolean(L, true);
  lua_pushcclosure(L, base_require, 1);
  lua_pushstring(L, name);
  lua_call(L, 1, 1);
}

/* A global that is not there (yet): the public modules load when first used. */
static int missing_global(lua_State *L)
{
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  const char *name = lua_tostring(L, 2);
  if (!is_public(name) || strcmp(name, "sandbox") == 0 || !find_embedded(name)) return 0;
  lua_pushcfunction(L, base_require);
  lua_pushvalue(L, 2);
  lua_call(L, 1, 1);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, 1);
  return 1;
}

/* full_stdlib: the stock require finds embedded modules by this searcher. */
static int search_embedded(lua_State *L)
{
  const char *name = luaL_checkstring(L, 1);
  bool known = strcmp(name, "regolith.core") == 0 || is_public(name) ||
               (strncmp(name, "regolith.", 9) == 0 && find_embedded(name + 9));
  if (!known || (is_public(name) && !find_embedded(name))) {
    lua_pushfstring(L, "no embedded module '%s'", name);
    return 1;
  }
  lua_pushboolean(L, true);
  lua_pushcclosure(L, base_require, 1);
  return 1;
}

static void add_searcher(lua_State *L)
{
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "searchers");
  for (lua_Integer i = (lua_Integer)lua_rawlen(L, -1); i >= 2; i--) {
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushcfunction(L, search_embedded);
  lua_rawseti(L, -2, 2);
  lua_pop(L, 2);
}

static void open_package(lua_State *L)
{
  static const struct removed_name gone[] = {
      {"loadlib", "package.loadlib",
       "modules are Lua files beside the script; programs run in a sandbox"},
      {0}};
  lua_createtable(L, 0, 4);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_setfield(L, -2, "loaded");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_setfield(L, -2, "preload");
  lua_pushliteral(L, "/\n;\n?\n!\n-\n");
  lua_setfield(L, -2, "config");
  script_set_removed(L, gone);
  script_set_lib(L, "package");
  lua_pushcfunction(L, base_require);
  lua_setglobal(L, "require");
}

/* After all other libraries: copies the globals. */
void lib_require_seal(lua_State *L)
{
  lua_createtable(L, 0, 48);
  lua_pushglobaltable(L);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, -6);
  }
  lua_pop(L, 1);
  lua_pushboolean(L, true);
  lua_pushcclosure(L, base_require, 1);
  lua_setfield(L, -2, "require");
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "_G");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &script_key_embedded_env);
  lua_pushglobaltable(L);
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, missing_global);
  lua_setfield(L, -2, "__index");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
}

void lib_require_open(lua_State *L)
{
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key_embedded_loaded);
  if (script_of(L)->full_stdlib)
    add_searcher(L);
  else
    open_package(L);
}

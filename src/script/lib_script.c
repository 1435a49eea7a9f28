/* What scripts find as globals beside the standard library: args, arg, env, log, progress, on_exit,
 * json. */
#include "script/script_internal.h"

#include <lauxlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"

#define MAX_JSON ((size_t)16 << 20)

/* --- log and progress --- */

/* log.info(…): the values as print shows them. Upvalue: the level. */
static int log_values(lua_State *L)
{
  const struct script *s = script_of(L);
  int n = lua_gettop(L);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 1; i <= n; i++) {
    if (i > 1) luaL_addchar(&b, ' ');
    luaL_tolstring(L, i, NULL);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  size_t len;
  const char *text = lua_tolstring(L, -1, &len);
  enum log_level level = (enum log_level)lua_tointeger(L, lua_upvalueindex(1));
  if (s->hooks.on_log) s->hooks.on_log(s->hooks_data, level, text, len);
  return 0;
}

/* progress(done, total, text) */
int script_progress(lua_State *L)
{
  const struct script *s = script_of(L);
  double done = luaL_checknumber(L, 1), total = luaL_optnumber(L, 2, -1);
  const char *text = luaL_optstring(L, 3, "");
  if (s->hooks.on_progress) s->hooks.on_progress(s->hooks_data, done, total, text);
  return 0;
}

/* --- json --- */

struct json_text {
  struct buf out;
};

#define JSON_META "regolith.json"

static int text_free(lua_State *L)
{
  struct json_text *text = lua_touserdata(L, 1);
  buf_free(&text->out);
  return 0;
}

static int json_encode(lua_State *L)
{
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  struct err err = {0};
  struct val *v = script_push_scratch(L);
  struct json_text *text = lua_newuserdatauv(L, sizeof *text, 0);
  *text = (struct json_text){0};
  luaL_setmetatable(L, JSON_META);
  if (script_to_val(L, 1, v, &err) < 0) return script_raise(L, &err);
  json_print(&text->out, v);
  script_check_memory(L, text->out.len);
  lua_pushlstring(L, text->out.data, text->out.len);
  val_free(v);
  buf_free(&text->out);
  return 1;
}

/* No more values than that are in the text, but for one. */
static size_t count_values(const char *text, size_t len)
{
  size_t n = 0;
  for (size_t i = 0; i < len; i++)
    n += text[i] == ',' || text[i] == ':' || text[i] == '[' || text[i] == '{';
  return n;
}

static int json_decode(lua_State *L)
{
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  struct err err = {0};
  if (len > MAX_JSON) {
    err_set(&err, ERR_PAYLOAD_TOO_LARGE, 0, "json.decode takes at most 16 MiB");
    return script_raise(L, &err);
  }
  script_check_memory(L, len + 2 * sizeof(struct val) * count_values(text, len));
  struct val *v = script_push_scratch(L);
  if (json_parse(v, text, len, &err) < 0) return script_raise(L, &err);
  script_push_val(L, v, NULL_MARK);
  val_free(v);
  return 1;
}

void lib_json_open(lua_State *L)
{
  static const luaL_Reg functions[] = {
      {"encode", json_encode}, {"decode", json_decode}, {NULL, NULL}};
  luaL_newmetatable(L, JSON_META);
  lua_pushcfunction(L, text_free);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
  script_set_lib(L, "json");
}

/* --- The others --- */

int script_args(lua_State *L)
{
  const struct script *s = script_of(L);
  lua_createtable(L, (int)s->args.n, 1);
  for (size_t i = 0; i < s->args.n; i++) {
    lua_pushstring(L, s->args.v[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_pushstring(L, s->path ? s->path : s->name);
  lua_rawseti(L, -2, 0);
  return 1;
}

void lib_script_open(lua_State *L)
{
  static const char *const levels[] = {"debug", "info", "warn", "error"};
  lua_createtable(L, 0, 4);
  for (int i = 0; i < 4; i++) {
    lua_pushinteger(L, LOG_DEBUG + i);
    lua_pushcclosure(L, log_values, 1);
    lua_setfield(L, -2, levels[i]);
  }
  lua_setglobal(L, "log");
  lua_register(L, "progress", script_progress);
  lua_register(L, "on_exit", script_on_exit);
  lua_register(L, "env", script_getenv);
  script_args(L);
  lua_pushvalue(L, -1);
  lua_setglobal(L, "args");
  lua_setglobal(L, "arg");
  lib_require_seal(L);
}

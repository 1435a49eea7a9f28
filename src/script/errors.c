/* struct err ↔ the error tables that scripts see, and tracebacks that point into the script.
 *
 * An error table has { code, status, message, field, sandbox_id, engine, retryable, hint }, absent
 * where empty, and one shared metatable with __tostring. Scripts raise what they like; whatever it
 * is, script_err_from makes a struct err of it without running Lua. */
#include "script/script_internal.h"

#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set_text(lua_State *L, const char *key, const char *text)
{
  if (!*text) return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, key);
}

void script_push_err(lua_State *L, const struct err *err)
{
  const struct err_info *info = err_info(err->kind);
  luaL_checkstack(L, 4, NULL);
  lua_createtable(L, 0, 6);
  set_text(L, "code", info->code);
  set_text(L, "message", err->msg);
  set_text(L, "field", err->field);
  set_text(L, "sandbox_id", err->sandbox_id);
  set_text(L, "engine", err->engine);
  set_text(L, "hint", err->hint);
  if (info->http_status) {
    lua_pushinteger(L, info->http_status);
    lua_setfield(L, -2, "status");
  }
  lua_pushboolean(L, info->retryable);
  lua_setfield(L, -2, "retryable");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &script_key_error_mt);
  lua_setmetatable(L, -2);
}

int script_raise(lua_State *L, const struct err *err)
{
  script_push_err(L, err);
  return lua_error(L);
}

int script_raise_arg(lua_State *L, const char *field, const char *fmt, ...)
{
  struct err err = {0};
  va_list ap;
  va_start(ap, fmt);
  err_vset(&err, ERR_INVALID_ARGUMENT, 0, fmt, ap);
  va_end(ap);
  snprintf(err.field, sizeof err.field, "%s", field);
  return script_raise(L, &err);
}

/* "code: message (hint)" */
static int error_tostring(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_getfield(L, 1, "code");
  lua_getfield(L, 1, "message");
  lua_getfield(L, 1, "hint");
  const char *code = lua_tostring(L, 2), *message = lua_tostring(L, 3), *hint = lua_tostring(L, 4);
  if (hint)
    lua_pushfstring(L, "%s: %s (%s)", code ? code : "error", message ? message : "", hint);
  else
    lua_pushfstring(L, "%s: %s", code ? code : "error", message ? message : "");
  return 1;
}

void errors_open(lua_State *L)
{
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, error_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "error");
  lua_setfield(L, -2, "__name");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &script_key_error_mt);
}

/* A text field of the table at idx, read raw, into a fixed array. */
static void get_text(lua_State *L, int idx, const char *key, char *out, size_t size)
{
  lua_pushstring(L, key);
  lua_rawget(L, idx);
  if (lua_type(L, -1) == LUA_TSTRING) snprintf(out, size, "%s", lua_tostring(L, -1));
  lua_pop(L, 1);
}

static void err_from_table(lua_State *L, int idx, const char *text, struct err *err)
{
  char code[64] = "", message[sizeof err->msg] = "";
  get_text(L, idx, "code", code, sizeof code);
  get_text(L, idx, "message", message, sizeof message);
  if (!*message) {
    err_set(err, ERR_INTERNAL, 0, "%s", text ? text : "an error that is a table without a message");
    return;
  }
  err_set(err, *code ? err_kind_from_code(code) : ERR_INTERNAL, 0, "%s", message);
  get_text(L, idx, "field", err->field, sizeof err->field);
  get_text(L, idx, "sandbox_id", err->sandbox_id, sizeof err->sandbox_id);
  get_text(L, idx, "engine", err->engine, sizeof err->engine);
  get_text(L, idx, "hint", err->hint, sizeof err->hint);
}

void script_err_from(lua_State *L, int idx, const char *text, struct err *err)
{
  idx = lua_absindex(L, idx);
  *err = (struct err){0};
  if (lua_type(L, idx) == LUA_TSTRING)
    err_set(err, ERR_INTERNAL, 0, "%s", lua_tostring(L, idx));
  else if (lua_istable(L, idx))
    err_from_table(L, idx, text, err);
  else
    err_set(err, ERR_INTERNAL, 0, "an error that is a %s value", luaL_typename(L, idx));
}

/* --- Tracebacks --- */

#define TRACEBACK_LINES  20
#define TRACEBACK_FRAMES 200 /* lua_getstack walks from the top */

static bool is_ours(const lua_Debug *ar)
{
  return *ar->what == 'C' || strncmp(ar->source, "=[regolith", 10) == 0;
}

/* A name is what the caller calls it: of use where the caller is the script. */
static bool has_name(lua_State *of, const lua_Debug *ar, int level)
{
  lua_Debug up;
  if (!ar->name || !lua_getstack(of, level + 1, &up)) return false;
  lua_getinfo(of, "S", &up);
  return !is_ours(&up);
}

/* One line of `out`; 0 where the frame is not the script's. */
static int format_frame(lua_State *of, lua_Debug *ar, int level, char *out, size_t size)
{
  lua_getinfo(of, "Sln", ar);
  if (is_ours(ar)) return 0;
  if (strcmp(ar->what, "main") == 0)
    return snprintf(out, size, "\n  %s:%d: in the main chunk", ar->short_src, ar->currentline);
  if (has_name(of, ar, level))
    return snprintf(out, size, "\n  %s:%d: in %s '%s'", ar->short_src, ar->currentline,
                    *ar->namewhat ? ar->namewhat : "function", ar->name);
  return snprintf(out, size, "\n  %s:%d: in a function (line %d)", ar->short_src, ar->currentline,
                  ar->linedefined);
}

struct traceback {
  char text[4096];
  size_t len;
  int lines;
  unsigned repeats; /* of the last line */
  char last[256];
};

static void add_line(struct traceback *tb, const char *line)
{
  size_t n = strlen(line);
  if (tb->len + n >= sizeof tb->text) return;
  memcpy(tb->text + tb->len, line, n);
  tb->len += n;
  tb->lines++;
}

static void end_repeats(struct traceback *tb)
{
  char line[64];
  if (tb->repeats == 0) return;
  snprintf(line, sizeof line, "\n  … the same %u more times", tb->repeats);
  add_line(tb, line);
  tb->repeats = 0;
}

/* A recursion is one line. Looks at a bounded number of frames. */
void script_push_traceback(lua_State *L, lua_State *of, int level)
{
  struct traceback tb = {.len = 0};
  lua_Debug ar;
  int end = level + TRACEBACK_FRAMES;
  for (; tb.lines < TRACEBACK_LINES && level < end && lua_getstack(of, level, &ar); level++) {
    char line[256];
    if (format_frame(of, &ar, level, line, sizeof line) <= 0) continue;
    if (strcmp(line, tb.last) == 0) {
      tb.repeats++;
      continue;
    }
    end_repeats(&tb);
    add_line(&tb, line);
    memcpy(tb.last, line, sizeof line);
  }
  end_repeats(&tb);
  if (lua_getstack(of, level, &ar)) add_line(&tb, "\n  …");
  lua_pushlstring(L, tb.len ? tb.text + 1 : tb.text, tb.len ? tb.len - 1 : 0);
}

/* --- The traceback of where an error first arose --- */

/* One pair per script, in two registry slots: the error last carried over the edge of a coroutine
 * or a task, and its traceback there. */
static const char key_carried, key_carried_from;

void script_carry(lua_State *L, int err_idx, int text_idx)
{
  lua_pushvalue(L, text_idx);
  lua_pushvalue(L, err_idx < 0 ? err_idx - 1 : err_idx);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key_carried);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key_carried_from);
}

bool script_carries(lua_State *L, int idx)
{
  idx = lua_absindex(L, idx);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &key_carried);
  bool same = !lua_isnil(L, -1) && lua_rawequal(L, idx, -1);
  lua_pop(L, 1);
  return same;
}

void script_carry_as(lua_State *L, int idx)
{
  lua_pushvalue(L, idx);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key_carried);
}

void script_push_full_traceback(lua_State *L, int err_idx, int level)
{
  err_idx = lua_absindex(L, err_idx);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  if (script_carries(L, err_idx)) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &key_carried_from);
    size_t len = lua_rawlen(L, -1);
    luaL_addvalue(&b);
    if (len) luaL_addstring(&b, "\n  -- raised again --\n");
  }
  script_push_traceback(L, L, level);
  luaL_addvalue(&b);
  luaL_pushresult(&b);
}

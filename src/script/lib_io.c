/* io and os, as far as scripts have them: nothing of the host that was not granted.
 *
 * io.write goes where print goes. Files and standard input are the host's: io.open, io.lines,
 * io.read and io.type, loadfile and dofile are lua/regolith/file.lua, which asks for them by ops.
 */
#include "script/script_internal.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

static void check_pieces(lua_State *L, int from)
{
  for (int i = from; i <= lua_gettop(L); i++) luaL_checklstring(L, i, NULL);
}

static void write_pieces(lua_State *L, int from, bool to_log)
{
  const struct script *s = script_of(L);
  for (int i = from; i <= lua_gettop(L); i++) {
    size_t len;
    const char *text = lua_tolstring(L, i, &len);
    if (to_log && len && text[len - 1] == '\n') len--;
    if (to_log && s->hooks.on_log) s->hooks.on_log(s->hooks_data, LOG_INFO, text, len);
    if (!to_log && s->hooks.on_output) s->hooks.on_output(s->hooks_data, text, len);
  }
}

/* Upvalue: io.stdout, which it gives back as the stock function does. */
static int io_write(lua_State *L)
{
  check_pieces(L, 1);
  write_pieces(L, 1, false);
  lua_pushvalue(L, lua_upvalueindex(1));
  return 1;
}

/* Methods of io.stdout and io.stderr. Upvalue: true for the log. */
static int stream_write(lua_State *L)
{
  check_pieces(L, 2);
  write_pieces(L, 2, lua_toboolean(L, lua_upvalueindex(1)));
  lua_settop(L, 1);
  return 1;
}

static int stream_nothing(lua_State *L)
{
  lua_settop(L, 1);
  return 1;
}

static void push_stream(lua_State *L, bool log)
{
  lua_createtable(L, 0, 3);
  lua_pushboolean(L, log);
  lua_pushcclosure(L, stream_write, 1);
  lua_setfield(L, -2, "write");
  lua_pushcfunction(L, stream_nothing);
  lua_setfield(L, -2, "flush");
  lua_pushcfunction(L, stream_nothing);
  lua_setfield(L, -2, "setvbuf");
}

static void open_io(lua_State *L)
{
  static const char *const of_file[] = {"open", "lines", "type", "read"};
  static const struct removed_name gone[] = {
      {"popen", "io.popen", "run programs in a sandbox: sandbox.run(command)"},
      {"tmpfile", "io.tmpfile", "keep data in a variable, or in a file of a sandbox"},
      {"input", "io.input", "io.open(path), and file:read"},
      {"output", "io.output", "io.open(path, \"w\"), and file:write"},
      {"close", "io.close", "file:close()"},
      {0}};
  lua_createtable(L, 0, 12);
  for (size_t i = 0; i < sizeof of_file / sizeof *of_file; i++) {
    lib_push_forward(L, "file", of_file[i]);
    lua_setfield(L, -2, of_file[i]);
  }
  script_set_removed(L, gone);
  push_stream(L, true);
  lua_setfield(L, -2, "stderr");
  push_stream(L, false);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "stdout");
  lua_pushcclosure(L, io_write, 1);
  lua_setfield(L, -2, "write");
  script_set_lib(L, "io");
}

/* --- os --- */

int script_getenv(lua_State *L)
{
  const char *value = strv_map_get(&script_of(L)->env, luaL_checkstring(L, 1));
  lua_pushstring(L, value);
  return 1;
}

static void open_os(lua_State *L)
{
  static const char *const kept[] = {"time", "date", "clock", "difftime"};
  static const struct removed_name gone[] = {
      {"execute", "os.execute", "run programs in a sandbox: sandbox.run(command)"},
      {"exit", "os.exit", "return from the script, or raise an error()"},
      {"remove", "os.remove", "files of a sandbox: sb:exec { \"rm\", path }"},
      {"rename", "os.rename", "files of a sandbox: sb:exec { \"mv\", from, to }"},
      {"tmpname", "os.tmpname", "keep data in a variable, or in a file of a sandbox"},
      {"setlocale", "os.setlocale", "text is bytes, in the C locale"},
      {0}};
  lua_createtable(L, 0, 12);
  lua_pushcfunction(L, luaopen_os);
  lua_call(L, 0, 1);
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    lua_getfield(L, -1, kept[i]);
    lua_setfield(L, -3, kept[i]);
  }
  lua_pop(L, 1);
  script_set_removed(L, gone);
  lua_pushcfunction(L, script_getenv);
  lua_setfield(L, -2, "getenv");
  script_set_lib(L, "os");
}

void lib_io_open(lua_State *L)
{
  open_io(L);
  open_os(L);
}

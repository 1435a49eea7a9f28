/* The Lua files that the binary carries, as main chunks.
 *
 * Compiling them takes longer than all else that making a state does, so what the first state of
 * the thread compiled is kept as bytecode, for the life of the process, and loaded by the others.
 * That bytecode never leaves this file; scripts can load none. */
#include "script/lib.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/embedded.h"

struct compiled {
  struct compiled *next;
  const struct embedded_file *file;
  struct buf code;
};

static __thread struct compiled *compiled;

const struct embedded_file *lib_find_embedded(const char *name)
{
  for (const struct embedded_file *f = embedded_files; f->name; f++)
    if (strcmp(f->name, name) == 0) return f;
  return NULL;
}

static int keep_code(lua_State *L, const void *data, size_t len, void *buf)
{
  (void)L;
  buf_append(buf, data, len);
  return 0;
}

/* The chunk on top of the stack is that of the file. */
static void keep(lua_State *L, const struct embedded_file *file)
{
  struct compiled *c = xcalloc(1, sizeof *c);
  lua_dump(L, keep_code, &c->code, 0);
  c->file = file;
  c->next = compiled;
  compiled = c;
}

void lib_push_embedded_chunk(lua_State *L, const struct embedded_file *file, const char *chunk_name)
{
  for (const struct compiled *c = compiled; c; c = c->next) {
    if (c->file != file) continue;
    if (luaL_loadbufferx(L, c->code.data, c->code.len, chunk_name, "b") != LUA_OK) lua_error(L);
    return;
  }
  if (luaL_loadbufferx(L, file->data, file->len, chunk_name, "t") != LUA_OK) lua_error(L);
  keep(L, file);
}

void lib_push_embedded(lua_State *L, const char *name, int nargs)
{
  char chunk_name[96];
  const struct embedded_file *file = lib_find_embedded(name);
  if (!file) luaL_error(L, "this program carries no '%s'", name);
  snprintf(chunk_name, sizeof chunk_name, "=[%s]", name);
  lib_push_embedded_chunk(L, file, chunk_name);
  lua_insert(L, -1 - nargs);
  lua_call(L, nargs, 1);
}

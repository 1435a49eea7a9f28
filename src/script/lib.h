#ifndef REGOLITH_SCRIPT_LIB_H
#define REGOLITH_SCRIPT_LIB_H

#include <lua.h>
#include <stddef.h>

/* The parts of Lua's standard library that a loop could hide in, replaced by ones that take turns.
 * They stand by themselves: a plain state can use them. */

/* What the libraries ask of the runtime. Members may be NULL. */
struct lib_host {
  /* Called by a long C loop every half millisecond or so. It returns to let the loop go on, raises
   * an error, or yields with lua_yieldk(L, 0, ctx, k). */
  void (*pause)(lua_State *L, lua_KContext ctx, lua_KFunction k);
  /* Raises an ordinary error unless so many bytes more may be used. */
  void (*check_memory)(lua_State *L, size_t bytes);
};

/* Open the library, with the replacements in it, and set the global of its name. The host outlives
 * the state; NULL: there is none. What a script must not have (string.dump) is for the caller to
 * take out. */
void lib_string_open(lua_State *L, const struct lib_host *host);
void lib_table_open(lua_State *L);

/* Pushes the value that the embedded file ("regolith/stdlib.lua") returns when it is run with the
 * nargs values on top of the stack, which it takes away. Raises. */
void lib_push_embedded(lua_State *L, const char *name, int nargs);

/* Pushes what regolith/stdlib.lua returns, the same for each caller; the string library is open. */
void lib_push_stdlib(lua_State *L);

struct embedded_file;

/* The embedded file "regolith/x.lua", or NULL. */
const struct embedded_file *lib_find_embedded(const char *name);

/* Pushes its main chunk; raises. Each file has always the same chunk name. */
void lib_push_embedded_chunk(lua_State *L, const struct embedded_file *file,
                             const char *chunk_name);

#endif

#ifndef REGOLITH_SCRIPT_LIB_H
#define REGOLITH_SCRIPT_LIB_H

#include <lua.h>

/* The parts of Lua's standard library that a loop could hide in, replaced by ones that take turns.
 * They stand by themselves: a plain state can use them. */

/* What a long C loop calls every millisecond or so, at most. It returns to let the loop go on,
 * raises an error, or yields with lua_yieldk(L, 0, ctx, k). */
typedef void lib_pause_fn(lua_State *L, lua_KContext ctx, lua_KFunction k);

/* Open the library, with the replacements in it, and set the global of its name. pause NULL: loops
 * run to their end. string.dump and what else a script must not have is for the caller to take
 * out. */
void lib_string_open(lua_State *L, lib_pause_fn *pause);
void lib_table_open(lua_State *L);

/* Pushes the value that the embedded file ("regolith/stdlib.lua") returns when it is run with the
 * nargs values on top of the stack, which it takes away. Raises. */
void lib_push_embedded(lua_State *L, const char *name, int nargs);

#endif

/* One lua_State per script: its memory, its libraries.
 *
 * Memory has a soft cap, which ends the script as `limit`, and a hard one far above it. A block
 * that passes the soft cap is granted and noted (ATTENTION_MEMORY): the hook then collects, and
 * ends the script if that did not help. The allocator does not answer NULL below the hard cap,
 * because Lua answers NULL with an emergency collection, and in Lua before 5.4.8 that can be made a
 * use-after-free. Above the hard cap a fresh big block is refused by raising an error from the
 * allocator: Lua lets every such allocation raise, and no collection is tried. Big means bigger
 * than the largest block Lua allocates where it counts on NULL (a stack being shrunk, 16 MiB).
 *
 * The extra space of each thread holds the script's address, and beside it flags and the number of
 * nested pcalls (coro.c). */
#include "script/script_internal.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "script/lib.h"

#define BIG_BLOCK ((size_t)17 << 20)
#define HARD_MORE ((size_t)64 << 20)

const char script_key_tasks, script_key_core, script_key_error_mt, script_key_embedded_env;
static const char key_no_memory;

/* The extra space: depth in the top 16 bits, address, flags in the low 3. User space addresses have
 * 47 bits on every machine we run on; script_new checks. */
#define FLAG_BITS   ((uintptr_t)7)
#define DEPTH_SHIFT 48
#define DEPTH_BITS  ((uintptr_t)0xffff << DEPTH_SHIFT)

static uintptr_t *extra(lua_State *L)
{
  return lua_getextraspace(L);
}

struct script *script_of(lua_State *L)
{
  return (struct script *)(*extra(L) & ~(FLAG_BITS | DEPTH_BITS));
}

unsigned thread_flags(lua_State *L)
{
  return (unsigned)(*extra(L) & FLAG_BITS);
}

void thread_set_flags(lua_State *L, unsigned flags)
{
  *extra(L) = (*extra(L) & ~FLAG_BITS) | flags;
}

unsigned thread_depth(lua_State *L)
{
  return (unsigned)(*extra(L) >> DEPTH_SHIFT);
}

void thread_set_depth(lua_State *L, unsigned depth)
{
  *extra(L) = (*extra(L) & ~DEPTH_BITS) | (uintptr_t)depth << DEPTH_SHIFT;
}

/* The error that one allocation beyond all bounds raises; an ordinary one. Allocates nothing. */
static void raise_no_memory(struct script *s)
{
  lua_rawgetp(s->running, LUA_REGISTRYINDEX, &key_no_memory);
  lua_error(s->running);
}

/* The block would pass the soft cap. */
static bool grant(struct script *s, bool fresh, size_t old, size_t size)
{
  if (s->stage == STAGE_DONE) return true;
  if (s->mem - old + size <= s->mem_hard) {
    sched_attend(s, ATTENTION_MEMORY);
    return true;
  }
  if (fresh && size > BIG_BLOCK && s->running) raise_no_memory(s);
  sched_attend(s, ATTENTION_MEMORY);
  return false;
}

static void *allocate(void *ud, void *block, size_t old, size_t size)
{
  struct script *s = ud;
  if (!block) old = 0; /* it says the type of the object instead */
  if (size == 0) {
    free(block);
    s->mem -= old;
    return NULL;
  }
  if (size > old && s->mem - old + size > s->mem_soft && !grant(s, !block, old, size)) return NULL;
  void *p = realloc(block, size);
  if (!p) return NULL;
  s->mem = s->mem - old + size;
  if (s->mem > s->mem_peak) s->mem_peak = s->mem;
  return p;
}

bool script_memory_fits(lua_State *L, size_t bytes)
{
  struct script *s = script_of(L);
  if (s->full_stdlib) return true;
  if (bytes > s->mem_soft) return false;
  if (s->mem <= s->mem_soft - bytes) return true;
  lua_gc(L, LUA_GCCOLLECT);
  return s->mem <= s->mem_soft - bytes;
}

void script_check_memory(lua_State *L, size_t bytes)
{
  const struct script *s = script_of(L);
  if (!script_memory_fits(L, bytes))
    luaL_error(L, "not enough memory: %d MiB asked for, %d of %d MiB in use", (int)(bytes >> 20),
               (int)(s->mem >> 20), (int)(s->mem_soft >> 20));
}

void script_charge(struct script *s, size_t bytes)
{
  s->mem += bytes;
  if (s->mem > s->mem_peak) s->mem_peak = s->mem;
  if (s->mem > s->mem_soft) sched_attend(s, ATTENTION_MEMORY);
}

void script_refund(struct script *s, size_t bytes)
{
  s->mem -= bytes;
}

static int on_panic(lua_State *L)
{
  log_error("Lua raised an error outside of any protected call: %s", lua_tostring(L, -1));
  abort();
}

/* warn() pieces a message together from several calls; each piece is a line of the log here. */
static void on_warn(void *ud, const char *text, int more)
{
  struct script *s = ud;
  (void)more;
  if (*text != '@' && s->hooks.on_log) s->hooks.on_log(s->hooks_data, LOG_WARN, text, strlen(text));
}

void script_set_lib(lua_State *L, const char *name)
{
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
  lua_setglobal(L, name);
}

static void add_lib(lua_State *L, const char *name, lua_CFunction open)
{
  luaL_requiref(L, name, open, 1);
  lua_pop(L, 1);
}

static const struct lib_host lib_host = {.pause = script_pause,
                                         .check_memory = script_check_memory};

/* What scripts have. Where a library comes in two parts, the second replaces what the first put. */
static void open_for_script(lua_State *L)
{
  add_lib(L, LUA_GNAME, luaopen_base);
  add_lib(L, LUA_MATHLIBNAME, luaopen_math);
  add_lib(L, LUA_UTF8LIBNAME, luaopen_utf8);
  lib_string_open(L, &lib_host);
  lib_table_open(L);
  coro_open(L);
  lib_base_open(L);
  lib_require_open(L);
  lib_io_open(L);
}

int state_open_libs(lua_State *L)
{
  struct script *s = script_of(L);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &script_key_tasks);
  lua_pushliteral(L, "not enough memory");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key_no_memory);
  errors_open(L);
  convert_open(L);
  if (s->full_stdlib) {
    luaL_openlibs(L);
    coro_open(L);
    lib_require_open(L);
  } else {
    open_for_script(L);
  }
  lib_json_open(L);
  lib_core_open(L);
  lib_script_open(L);
  return 0;
}

int state_new(struct script *s, struct err *err)
{
  s->mem_hard = s->mem_soft + (s->mem_soft > HARD_MORE ? s->mem_soft : HARD_MORE);
  lua_State *L = lua_newstate(allocate, s);
  if (!L) return err_set(err, ERR_CAPACITY, ENOMEM, "no memory for another script");
  s->L = L;
  if ((uintptr_t)s & (FLAG_BITS | DEPTH_BITS)) abort();
  *extra(L) = (uintptr_t)s;
  lua_atpanic(L, on_panic);
  lua_setwarnf(L, on_warn, s);
  lua_gc(L, LUA_GCINC, 150, 0, 0);
  lua_pushcfunction(L, state_open_libs);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK)
    return err_set(err, ERR_INTERNAL, 0, "cannot open the Lua libraries: %s", lua_tostring(L, -1));
  return 0;
}

void state_close(struct script *s)
{
  if (s->L) lua_close(s->L);
  s->L = NULL;
}

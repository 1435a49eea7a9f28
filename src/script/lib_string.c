/* string.find match gmatch gsub and rep, over our own matcher (script/pattern.h); the rest of the
 * string library is the stock one, whose functions take time in proportion to their text at most.
 *
 * A search that takes long calls the host's pause, which may yield: then the machine's state
 * moves from the C stack into a userdata on the Lua stack, and the continuation goes on with it.
 * gsub with a function or a table is embedded Lua (lua/regolith/stdlib.lua), so that what it calls
 * can yield.
 *
 * Upvalues of every function here: 1 the pause function (light userdata), 2 the Lua half of gsub.
 */
#include "script/lib.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "script/pattern.h"

#define STEPS_PER_PAUSE 100000            /* half a millisecond or so */
#define BIG_RESULT      ((size_t)1 << 20) /* bytes */

static const struct lib_host *host_of(lua_State *L)
{
  static const struct lib_host none;
  const struct lib_host *host = lua_touserdata(L, lua_upvalueindex(1));
  return host ? host : &none;
}

static void pause_loop(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
  const struct lib_host *host = host_of(L);
  if (host->pause) host->pause(L, ctx, k);
}

/* Big results only: asking is not free. */
static void check_memory(lua_State *L, size_t bytes)
{
  const struct lib_host *host = host_of(L);
  if (bytes > BIG_RESULT && host->check_memory) host->check_memory(L, bytes);
}

/* Moves the state from the C stack to a userdata at the top of the Lua stack. */
static void *keep_state(lua_State *L, const void *state, size_t size)
{
  return memcpy(lua_newuserdatauv(L, size, 0), state, size);
}

/* 1-based position from one that may count from the end; 0 and what is too small become 1. */
static size_t start_position(lua_Integer pos, size_t len)
{
  if (pos > 0) return (size_t)pos;
  if (pos == 0 || pos < -(lua_Integer)len) return 1;
  return len + (size_t)pos + 1;
}

/* Raises with the place of the function at this level; 1 is who called us. */
static int raise_at(lua_State *L, int level, const char *fmt, int arg)
{
  luaL_where(L, level);
  lua_pushfstring(L, fmt, arg);
  lua_concat(L, 2);
  return lua_error(L);
}

static void push_capture(lua_State *L, const struct pattern *m, int i, int level)
{
  if (i >= m->captures) {
    if (i != 0) raise_at(L, level, "invalid capture index %%%d", i + 1);
    lua_pushlstring(L, (const char *)m->match_start, (size_t)(m->match_end - m->match_start));
  } else if (m->capture[i].len == PATTERN_CAP_POSITION) {
    lua_pushinteger(L, m->capture[i].start - m->subject + 1);
  } else if (m->capture[i].len == PATTERN_CAP_OPEN) {
    raise_at(L, level, "unfinished capture", 0);
  } else {
    lua_pushlstring(L, (const char *)m->capture[i].start, (size_t)m->capture[i].len);
  }
}

/* All captures; the whole match where there are none and whole is set. Returns how many. */
static int push_captures(lua_State *L, const struct pattern *m, bool whole, int level)
{
  int n = m->captures == 0 && whole ? 1 : m->captures;
  luaL_checkstack(L, n, "too many captures");
  for (int i = 0; i < n; i++) push_capture(L, m, i, level);
  return n;
}

/* What a match pushes: find gives the bounds first, match the captures alone. */
enum search_mode { SEARCH_FIND, SEARCH_MATCH };

static int search_continue(lua_State *L, int status, lua_KContext ctx);

/* Stack: subject, pattern, then the state once it is kept. */
static int search_run(lua_State *L, struct pattern *m, enum search_mode mode)
{
  for (;;) {
    int64_t budget = STEPS_PER_PAUSE;
    switch (pattern_next(m, &budget)) {
    case PATTERN_YES: {
      if (mode == SEARCH_MATCH) return push_captures(L, m, true, 1);
      lua_pushinteger(L, m->match_start - m->subject + 1);
      lua_pushinteger(L, m->match_end - m->subject);
      return 2 + push_captures(L, m, false, 1);
    }
    case PATTERN_NO: luaL_pushfail(L); return 1;
    case PATTERN_ERROR: return raise_at(L, 1, m->error, m->error_arg);
    case PATTERN_MORE:
      if (lua_gettop(L) < 3) m = keep_state(L, m, sizeof *m);
      pause_loop(L, mode, search_continue);
    }
  }
}

static int search_continue(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  lua_settop(L, 3);
  return search_run(L, lua_touserdata(L, 3), (enum search_mode)ctx);
}

static int search(lua_State *L, enum search_mode mode)
{
  size_t len, pattern_len;
  const char *subject = luaL_checklstring(L, 1, &len);
  const char *pattern = luaL_checklstring(L, 2, &pattern_len);
  size_t offset = start_position(luaL_optinteger(L, 3, 1), len) - 1;
  if (offset > len) {
    luaL_pushfail(L);
    return 1;
  }
  if (mode == SEARCH_FIND && (lua_toboolean(L, 4) || pattern_is_plain(pattern, pattern_len))) {
    const char *found = memmem(subject + offset, len - offset, pattern, pattern_len);
    if (!found) {
      luaL_pushfail(L);
      return 1;
    }
    lua_pushinteger(L, found - subject + 1);
    lua_pushinteger(L, found - subject + (lua_Integer)pattern_len);
    return 2;
  }
  lua_settop(L, 2);
  struct pattern m;
  pattern_init(&m, subject, len, offset, pattern, pattern_len, true);
  return search_run(L, &m, mode);
}

static int string_find(lua_State *L)
{
  return search(L, SEARCH_FIND);
}
static int string_match(lua_State *L)
{
  return search(L, SEARCH_MATCH);
}

/* An iterator over matches. Upvalues 3 subject, 4 pattern, 5 struct iteration. */
struct iteration {
  size_t at;       /* offset of the next attempt */
  size_t last_end; /* end of the match before, SIZE_MAX = none */
  bool caret;      /* a leading ^ is an anchor */
  bool bounds;     /* give the bounds in front of the captures */
  bool first_only; /* give the first capture alone */
};

enum { GSUB_CALLER = 3 }; /* level seen from gsub's iterator: the Lua half, gsub, its caller */

static int iterate_continue(lua_State *L, int status, lua_KContext ctx);

static int iterate_run(lua_State *L, struct pattern *m)
{
  struct iteration *it = lua_touserdata(L, lua_upvalueindex(5));
  for (;;) {
    int64_t budget = STEPS_PER_PAUSE;
    switch (pattern_next(m, &budget)) {
    case PATTERN_YES:
      it->at = it->last_end = (size_t)(m->match_end - m->subject);
      if (m->ended) it->at = SIZE_MAX;
      if (!it->bounds) return push_captures(L, m, true, 1);
      lua_pushinteger(L, m->match_start - m->subject + 1);
      lua_pushinteger(L, m->match_end - m->subject);
      if (!it->first_only) return 2 + push_captures(L, m, true, GSUB_CALLER);
      push_capture(L, m, 0, GSUB_CALLER);
      return 3;
    case PATTERN_NO: it->at = SIZE_MAX; return 0;
    case PATTERN_ERROR: return raise_at(L, it->bounds ? GSUB_CALLER : 1, m->error, m->error_arg);
    case PATTERN_MORE:
      if (lua_gettop(L) < 1) m = keep_state(L, m, sizeof *m);
      pause_loop(L, 0, iterate_continue);
    }
  }
}

static int iterate_continue(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  lua_settop(L, 1);
  return iterate_run(L, lua_touserdata(L, 1));
}

static int iterate(lua_State *L)
{
  const struct iteration *it = lua_touserdata(L, lua_upvalueindex(5));
  size_t len, pattern_len;
  const char *subject = lua_tolstring(L, lua_upvalueindex(3), &len);
  const char *pattern = lua_tolstring(L, lua_upvalueindex(4), &pattern_len);
  lua_settop(L, 0);
  if (it->at > len) return 0;
  struct pattern m;
  pattern_init(&m, subject, len, it->at, pattern, pattern_len, it->caret);
  if (it->last_end != SIZE_MAX) m.last_end = m.subject + it->last_end;
  return iterate_run(L, &m);
}

/* Pushes an iterator over the subject at index 1 and the pattern at index 2. */
static void push_iterator(lua_State *L, struct iteration start)
{
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushnil(L);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  *(struct iteration *)lua_newuserdatauv(L, sizeof start, 0) = start;
  lua_pushcclosure(L, iterate, 5);
}

static int string_gmatch(lua_State *L)
{
  size_t len;
  luaL_checklstring(L, 1, &len);
  luaL_checkstring(L, 2);
  size_t offset = start_position(luaL_optinteger(L, 3, 1), len) - 1;
  lua_settop(L, 2);
  push_iterator(L, (struct iteration){.at = offset, .last_end = SIZE_MAX});
  return 1;
}

/* gsub with a string. Stack: subject, pattern, replacement, limit, spilled output or nil, then the
 * state once it is kept. */
struct gsub {
  struct pattern m;
  const unsigned char *copied; /* the subject is in the output up to here */
  char *out;                   /* small, or the userdata at index 5 */
  size_t len, cap;
  lua_Integer count, limit; /* matches done, and wanted at most */
  char small[512];
};

enum { GSUB_REPLACEMENT = 3, GSUB_SPILL = 5, GSUB_STATE = 6 };

static void gsub_append(lua_State *L, struct gsub *g, const void *data, size_t len)
{
  if (g->cap - g->len < len) {
    size_t cap = g->cap * 2;
    if (len > SIZE_MAX / 4) luaL_error(L, "resulting string too large");
    while (cap - g->len < len) cap *= 2;
    check_memory(L, cap);
    char *bigger = lua_newuserdatauv(L, cap, 0);
    memcpy(bigger, g->out, g->len);
    lua_replace(L, GSUB_SPILL);
    g->out = bigger;
    g->cap = cap;
  }
  if (len > 0) memcpy(g->out + g->len, data, len);
  g->len += len;
}

static void gsub_append_capture(lua_State *L, struct gsub *g, int i)
{
  size_t len;
  push_capture(L, &g->m, i, 1);
  const char *text = lua_tolstring(L, -1, &len);
  gsub_append(L, g, text, len);
  lua_pop(L, 1);
}

/* The replacement with its %0 … %9 and %% filled in. */
static void gsub_replace(lua_State *L, struct gsub *g)
{
  size_t len;
  const char *p = lua_tolstring(L, GSUB_REPLACEMENT, &len), *end = p + len;
  for (const char *esc; (esc = memchr(p, '%', (size_t)(end - p))); p = esc + 2) {
    gsub_append(L, g, p, (size_t)(esc - p));
    if (esc[1] == '%') {
      gsub_append(L, g, "%", 1);
    } else if (esc[1] == '0') {
      gsub_append(L, g, g->m.match_start, (size_t)(g->m.match_end - g->m.match_start));
    } else if (esc[1] > '0' && esc[1] <= '9') {
      gsub_append_capture(L, g, esc[1] - '1');
    } else {
      luaL_error(L, "invalid use of '%%' in replacement string");
    }
  }
  gsub_append(L, g, p, (size_t)(end - p));
}

static int gsub_finish(lua_State *L, struct gsub *g)
{
  if (g->count == 0) {
    lua_pushvalue(L, 1);
  } else {
    gsub_append(L, g, g->copied, (size_t)(g->m.subject_end - g->copied));
    lua_pushlstring(L, g->out, g->len);
  }
  lua_pushinteger(L, g->count);
  return 2;
}

static int gsub_continue(lua_State *L, int status, lua_KContext ctx);

static struct gsub *gsub_keep(lua_State *L, struct gsub *g)
{
  if (lua_gettop(L) >= GSUB_STATE) return g;
  struct gsub *kept = keep_state(L, g, sizeof *g);
  if (g->out == g->small) kept->out = kept->small;
  return kept;
}

static int gsub_run(lua_State *L, struct gsub *g)
{
  int64_t budget = STEPS_PER_PAUSE;
  while (g->count < g->limit) {
    enum pattern_result result = budget > 0 ? pattern_next(&g->m, &budget) : PATTERN_MORE;
    if (result == PATTERN_NO) break;
    if (result == PATTERN_ERROR) return raise_at(L, 1, g->m.error, g->m.error_arg);
    if (result == PATTERN_MORE) {
      g = gsub_keep(L, g);
      pause_loop(L, 0, gsub_continue);
      budget = STEPS_PER_PAUSE;
      continue;
    }
    size_t before = g->len;
    g->count++;
    gsub_append(L, g, g->copied, (size_t)(g->m.match_start - g->copied));
    gsub_replace(L, g);
    g->copied = g->m.match_end;
    budget -= 8 + (int64_t)((g->len - before) >> 4);
  }
  return gsub_finish(L, g);
}

static int gsub_continue(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  lua_settop(L, GSUB_STATE);
  return gsub_run(L, lua_touserdata(L, GSUB_STATE));
}

/* After the Lua half: text and count, or nil and what is wrong. */
static int gsub_called(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  if (lua_isnil(L, -2)) return luaL_error(L, "%s", lua_tostring(L, -1));
  return 2;
}

static int string_gsub(lua_State *L)
{
  size_t len, pattern_len;
  const char *subject = luaL_checklstring(L, 1, &len);
  const char *pattern = luaL_checklstring(L, 2, &pattern_len);
  int type = lua_type(L, 3);
  lua_Integer limit = luaL_optinteger(L, 4, (lua_Integer)len + 1);
  luaL_argexpected(
      L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE,
      3, "string/function/table");
  lua_settop(L, 3);
  if (type == LUA_TFUNCTION || type == LUA_TTABLE) {
    lua_pushvalue(L, lua_upvalueindex(2));
    push_iterator(L, (struct iteration){.last_end = SIZE_MAX,
                                        .caret = true,
                                        .bounds = true,
                                        .first_only = type == LUA_TTABLE});
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 3);
    lua_pushinteger(L, limit);
    lua_callk(L, 4, 2, 0, gsub_called);
    return gsub_called(L, LUA_OK, 0);
  }
  lua_tostring(L, 3); /* a number becomes its text, in place */
  lua_settop(L, GSUB_SPILL);
  struct gsub g;
  pattern_init(&g.m, subject, len, 0, pattern, pattern_len, true);
  g.copied = g.m.subject;
  g.out = g.small;
  g.len = g.count = 0;
  g.cap = sizeof g.small;
  g.limit = limit;
  return gsub_run(L, &g);
}

static int string_rep(lua_State *L)
{
  size_t len, sep_len;
  const char *s = luaL_checklstring(L, 1, &len);
  lua_Integer n = luaL_checkinteger(L, 2);
  const char *sep = luaL_optlstring(L, 3, "", &sep_len);
  if (n <= 0 || len + sep_len == 0) {
    lua_pushliteral(L, "");
    return 1;
  }
  if (len + sep_len > INT_MAX || (lua_Unsigned)n > INT_MAX / (len + sep_len)) {
    return luaL_error(L, "resulting string too large");
  }
  size_t unit = len + sep_len, total = (size_t)n * unit - sep_len;
  check_memory(L, 2 * total); /* in the buffer and as a string */
  luaL_Buffer b;
  char *out = luaL_buffinitsize(L, &b, total);
  memcpy(out, s, len);
  if (n > 1) memcpy(out + len, sep, sep_len);
  for (size_t done = unit; done < total;) { /* doubles what is there */
    size_t more = done < total - done ? done : total - done;
    memcpy(out + done, out, more);
    done += more;
  }
  luaL_pushresultsize(&b, total);
  return 1;
}

void lib_string_open(lua_State *L, const struct lib_host *host)
{
  static const luaL_Reg functions[] = {
      {"find", string_find}, {"match", string_match}, {"gmatch", string_gmatch},
      {"gsub", string_gsub}, {"rep", string_rep},     {NULL, NULL},
  };
  luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
  lua_pushlightuserdata(L, (void *)(uintptr_t)host);
  lib_push_stdlib(L);
  lua_getfield(L, -1, "gsub");
  lua_remove(L, -2);
  luaL_setfuncs(L, functions, 2);
  lua_pop(L, 1);
}

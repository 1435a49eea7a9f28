/* Lua values ↔ plain data.
 *
 * To plain data: nil, booleans, numbers, strings, json.null, and tables that are lists (keys 1..n)
 * or maps (string keys). What plain data cannot say (functions, other keys, a mix, holes, a table
 * inside itself) is an invalid_argument that names the path of the field. An empty table is a map,
 * unless it was read from an empty JSON list. Reads tables raw, and raises nothing, so that what
 * was built can be freed; depth, number of values and bytes are bounded.
 *
 * From plain data: the caller keeps the val in something that survives an error. */
#include "script/script_internal.h"

#include <lauxlib.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define MAX_DEPTH  32
#define MAX_VALUES 200000
#define MAX_BYTES  ((size_t)32 << 20)

static const char key_list_mt;

struct conversion {
  struct err *err;
  const void *above[MAX_DEPTH]; /* the tables around the current value */
  char path[64];                /* of the current value, "" at the top */
  size_t path_len;
  int depth;
  size_t values, bytes;
};

static int fail(struct conversion *c, enum err_kind kind, const char *problem)
{
  err_set(c->err, kind, 0, "%s%s%s", c->path_len ? c->path : "", c->path_len ? ": " : "", problem);
  snprintf(c->err->field, sizeof c->err->field, "%s", c->path);
  return -EINVAL;
}

static int fail_arg(struct conversion *c, const char *problem)
{
  return fail(c, ERR_INVALID_ARGUMENT, problem);
}

/* Appends ".key" or "[3]"; gives the length to go back to. */
static size_t enter_field(struct conversion *c, const char *key, lua_Integer index)
{
  size_t before = c->path_len;
  char *at = c->path + before;
  size_t room = sizeof c->path - before;
  int n = key ? snprintf(at, room, "%s%s", before ? "." : "", key)
              : snprintf(at, room, "[%lld]", (long long)index);
  c->path_len = before + ((size_t)n < room ? (size_t)n : room - 1);
  return before;
}

static void leave_field(struct conversion *c, size_t before)
{
  c->path_len = before;
  c->path[before] = '\0';
}

enum shape { SHAPE_MAP, SHAPE_LIST, SHAPE_BAD };

/* What the keys of the table at idx make it. */
static enum shape shape_of(lua_State *L, int idx, struct conversion *c, size_t *ret_n)
{
  size_t integers = 0, strings = 0, others = 0;
  lua_Integer max = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_isinteger(L, -2) && lua_tointeger(L, -2) > 0) {
      integers++;
      if (lua_tointeger(L, -2) > max) max = lua_tointeger(L, -2);
    } else if (lua_type(L, -2) == LUA_TSTRING) {
      strings++;
    } else {
      others++;
    }
  }
  *ret_n = integers;
  if (others)
    fail_arg(c, "keys have to be names, or 1, 2, 3 … for a list");
  else if (integers && strings)
    fail_arg(c, "a list and named fields in one table");
  else if (integers && (size_t)max != integers)
    fail_arg(c, "a list with holes (nil values in it)");
  else
    return integers ? SHAPE_LIST : SHAPE_MAP;
  return SHAPE_BAD;
}

static bool was_empty_list(lua_State *L, int idx)
{
  if (!lua_getmetatable(L, idx)) return false;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &key_list_mt);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

static int convert(lua_State *L, int idx, struct val *ret, struct conversion *c);

static int convert_list(lua_State *L, int idx, size_t n, struct val *ret, struct conversion *c)
{
  *ret = val_list();
  for (lua_Integer i = 1; i <= (lua_Integer)n; i++) {
    size_t before = enter_field(c, NULL, i);
    struct val item = {0};
    lua_rawgeti(L, idx, i);
    int rc = convert(L, lua_gettop(L), &item, c);
    lua_pop(L, 1);
    if (rc < 0) return rc;
    val_push(ret, item);
    leave_field(c, before);
  }
  return 0;
}

static int convert_map(lua_State *L, int idx, struct val *ret, struct conversion *c)
{
  *ret = val_map();
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    size_t len;
    const char *key = lua_tolstring(L, -2, &len);
    if (strlen(key) != len) {
      lua_pop(L, 2);
      return fail_arg(c, "a name with a zero byte in it");
    }
    size_t before = enter_field(c, key, 0);
    struct val item = {0};
    int rc = convert(L, lua_gettop(L), &item, c);
    if (rc < 0) {
      lua_pop(L, 2);
      return rc;
    }
    val_add(ret, key, item);
    leave_field(c, before);
  }
  return 0;
}

static int convert_table(lua_State *L, int idx, struct val *ret, struct conversion *c)
{
  const void *self = lua_topointer(L, idx);
  for (int i = 0; i < c->depth; i++)
    if (c->above[i] == self) return fail_arg(c, "a table that contains itself");
  if (c->depth == MAX_DEPTH) return fail_arg(c, "nested more than 32 deep");
  if (!lua_checkstack(L, 4)) return fail(c, ERR_LIMIT, "the Lua stack is full");
  size_t n = 0;
  enum shape shape = shape_of(L, idx, c, &n);
  if (shape == SHAPE_BAD) return -EINVAL;
  if (shape == SHAPE_MAP && was_empty_list(L, idx)) {
    lua_pushnil(L);
    if (!lua_next(L, idx))
      shape = SHAPE_LIST;
    else
      lua_pop(L, 2);
  }
  c->above[c->depth++] = self;
  int rc = shape == SHAPE_LIST ? convert_list(L, idx, n, ret, c) : convert_map(L, idx, ret, c);
  c->depth--;
  if (rc < 0) val_free(ret);
  return rc;
}

static int convert_string(lua_State *L, int idx, struct val *ret, struct conversion *c)
{
  size_t len;
  const char *text = lua_tolstring(L, idx, &len);
  c->bytes += len;
  if (c->bytes > MAX_BYTES) return fail(c, ERR_PAYLOAD_TOO_LARGE, "more than 32 MiB of data");
  *ret = val_bytes(text, len);
  return 0;
}

static int convert(lua_State *L, int idx, struct val *ret, struct conversion *c)
{
  char problem[96];
  if (++c->values > MAX_VALUES) return fail(c, ERR_PAYLOAD_TOO_LARGE, "more than 200,000 values");
  switch (lua_type(L, idx)) {
  case LUA_TNIL: return 0;
  case LUA_TBOOLEAN: *ret = val_bool(lua_toboolean(L, idx)); return 0;
  case LUA_TNUMBER:
    *ret = lua_isinteger(L, idx) ? val_int(lua_tointeger(L, idx)) : val_num(lua_tonumber(L, idx));
    return 0;
  case LUA_TSTRING: return convert_string(L, idx, ret, c);
  case LUA_TTABLE: return convert_table(L, idx, ret, c);
  case LUA_TLIGHTUSERDATA:
    if (!lua_touserdata(L, idx)) return 0; /* json.null */
    break;
  default: break;
  }
  snprintf(problem, sizeof problem,
           "a %s cannot be sent; strings, numbers, booleans and tables can", luaL_typename(L, idx));
  return fail_arg(c, problem);
}

int script_to_val(lua_State *L, int idx, struct val *ret, struct err *err)
{
  struct conversion c = {.err = err};
  *ret = (struct val){0};
  if (!lua_checkstack(L, 8)) return err_set(err, ERR_LIMIT, 0, "the Lua stack is full");
  return convert(L, lua_absindex(L, idx), ret, &c);
}

/* --- The other way --- */

static void push(lua_State *L, const struct val *v, enum val_null nulls);

static void push_list(lua_State *L, const struct val *v, enum val_null nulls)
{
  lua_createtable(L, v->list.n < 65536 ? (int)v->list.n : 65536, 0);
  for (size_t i = 0; i < v->list.n; i++) {
    push(L, &v->list.v[i], NULL_MARK);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
    (void)nulls;
  }
  if (v->list.n > 0) return;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &key_list_mt);
  lua_setmetatable(L, -2);
}

static void push_map(lua_State *L, const struct val *v, enum val_null nulls)
{
  lua_createtable(L, 0, v->map.n < 65536 ? (int)v->map.n : 65536);
  for (size_t i = 0; i < v->map.n; i++) {
    if (v->map.v[i].val.type == VAL_NIL && nulls == NULL_SKIP) continue;
    lua_pushstring(L, v->map.v[i].key);
    push(L, &v->map.v[i].val, nulls);
    lua_rawset(L, -3);
  }
}

static void push(lua_State *L, const struct val *v, enum val_null nulls)
{
  luaL_checkstack(L, 4, NULL);
  switch (v->type) {
  case VAL_NIL:
    if (nulls == NULL_MARK)
      lua_pushlightuserdata(L, NULL);
    else
      lua_pushnil(L);
    return;
  case VAL_BOOL: lua_pushboolean(L, v->b); return;
  case VAL_INT: lua_pushinteger(L, v->i); return;
  case VAL_NUM: lua_pushnumber(L, v->n); return;
  case VAL_STR: lua_pushlstring(L, v->s.p, v->s.len); return;
  case VAL_LIST: push_list(L, v, nulls); return;
  case VAL_MAP: push_map(L, v, nulls); return;
  }
}

size_t script_val_bytes(const struct val *v)
{
  size_t sum = sizeof *v;
  if (v->type == VAL_STR) sum += v->s.len;
  if (v->type == VAL_LIST)
    for (size_t i = 0; i < v->list.n; i++) sum += script_val_bytes(&v->list.v[i]);
  if (v->type == VAL_MAP)
    for (size_t i = 0; i < v->map.n; i++)
      sum += strlen(v->map.v[i].key) + script_val_bytes(&v->map.v[i].val);
  return sum;
}

void script_push_val(lua_State *L, const struct val *v, enum val_null nulls)
{
  size_t bytes = script_val_bytes(v);
  if (bytes > 65536) script_check_memory(L, bytes);
  push(L, v, nulls);
}

/* --- The scratch val --- */

#define SCRATCH_META "regolith.scratch"

static int scratch_free(lua_State *L)
{
  val_free(lua_touserdata(L, 1));
  return 0;
}

struct val *script_push_scratch(lua_State *L)
{
  struct val *v = lua_newuserdatauv(L, sizeof *v, 0);
  *v = (struct val){0};
  luaL_setmetatable(L, SCRATCH_META);
  return v;
}

void convert_open(lua_State *L)
{
  luaL_newmetatable(L, SCRATCH_META);
  lua_pushcfunction(L, scratch_free);
  lua_setfield(L, -2, "__gc");
  lua_newtable(L);
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key_list_mt);
  lua_pop(L, 1);
}

/* --- Durations --- */

static double unit_seconds(const char *unit)
{
  static const struct {
    const char *name;
    double seconds;
  } units[] = {{"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}};
  for (size_t i = 0; i < sizeof units / sizeof *units; i++)
    if (strcmp(unit, units[i].name) == 0) return units[i].seconds;
  return -1;
}

/* "1.5h" in seconds; negative where it is none. */
static double parse_duration(const char *text)
{
  size_t digits = strspn(text, "0123456789.");
  char *end;
  double number = strtod(text, &end);
  if (digits == 0 || end != text + digits) return -1;
  return *end ? number * unit_seconds(end) : number;
}

double script_check_duration(lua_State *L, int idx, const char *field)
{
  double seconds = -1;
  if (lua_type(L, idx) == LUA_TNUMBER)
    seconds = lua_tonumber(L, idx);
  else if (lua_type(L, idx) == LUA_TSTRING)
    seconds = parse_duration(lua_tostring(L, idx));
  if (seconds >= 0 && seconds <= 1e9) return seconds;
  script_raise_arg(L, field,
                   "%s: %.40s is no duration; give seconds as a number, or a string such as "
                   "\"250ms\", \"90s\", \"5m\", \"2h\"",
                   field, luaL_tolstring(L, idx, NULL));
  return 0;
}

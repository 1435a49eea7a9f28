/* The configuration file: Lua as data.
 *
 * The chunk runs in a state that has no library and no globals, with a bound on its memory and its
 * steps, so that a file from elsewhere can hang or reach nothing. What it returns becomes plain
 * data here; what the settings mean is for grants.c. Any error names the file and the line. */
#include "host/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/val.h"

enum { MAX_FILE = 1 << 20, MAX_MEMORY = 16 << 20, MAX_STEPS = 1000000, MAX_DEPTH = 4 };

struct allowance {
  size_t used; /* bytes of the state */
};

static void *allocate(void *data, void *p, size_t old, size_t size)
{
  struct allowance *a = data;
  if (!p) old = 0;
  if (size == 0) {
    free(p);
    a->used -= old;
    return NULL;
  }
  if (size > old && a->used + (size - old) > MAX_MEMORY) return NULL;
  void *grown = realloc(p, size);
  if (grown) a->used += size - old;
  return grown;
}

static void too_long(lua_State *L, lua_Debug *ar)
{
  (void)ar;
  luaL_error(L, "it runs for too long: settings are data");
}

static int to_val(lua_State *L, int at, int depth, struct val *ret, struct err *err);

/* A list where keys are 1…n, else a map with text keys. */
static int table_to_val(lua_State *L, int at, int depth, struct val *ret, struct err *err)
{
  lua_Unsigned n = lua_rawlen(L, at);
  int rc = 0;
  if (depth == MAX_DEPTH) return err_arg(err, "", "tables are nested too deeply");
  *ret = n > 0 ? val_list() : val_map();
  for (lua_pushnil(L); rc == 0 && lua_next(L, at); lua_pop(L, 1)) {
    bool index = lua_isinteger(L, -2);
    struct val item = {0};
    if (index != (n > 0) || (!index && lua_type(L, -2) != LUA_TSTRING)) {
      lua_pop(L, 2);
      return err_arg(err, "", "a table is either a list or has names, not both");
    }
    if (index) continue;
    rc = to_val(L, lua_gettop(L), depth + 1, &item, err);
    if (rc == 0) val_set(ret, lua_tostring(L, -2), item);
    if (rc < 0) err_wrap(err, "%s", lua_tostring(L, -2));
  }
  for (lua_Unsigned i = 1; i <= n && rc == 0; i++) {
    struct val item = {0};
    lua_rawgeti(L, at, (lua_Integer)i);
    rc = to_val(L, lua_gettop(L), depth + 1, &item, err);
    if (rc == 0) val_push(ret, item);
    lua_pop(L, 1);
  }
  if (rc < 0) lua_settop(L, at);
  return rc;
}

static int to_val(lua_State *L, int at, int depth, struct val *ret, struct err *err)
{
  size_t len;
  const char *text;
  switch (lua_type(L, at)) {
  case LUA_TBOOLEAN: *ret = val_bool(lua_toboolean(L, at)); return 0;
  case LUA_TNUMBER:
    *ret = lua_isinteger(L, at) ? val_int(lua_tointeger(L, at)) : val_num(lua_tonumber(L, at));
    return 0;
  case LUA_TSTRING:
    text = lua_tolstring(L, at, &len);
    *ret = val_bytes(text, len);
    return 0;
  case LUA_TTABLE: return table_to_val(L, at, depth, ret, err);
  default: return err_arg(err, "", "a %s is no setting", luaL_typename(L, at));
  }
}

static int explain(lua_State *L, const char *file, struct err *err)
{
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "it raised an error";
  int rc = err_arg(err, "--config", "%s", text);
  if (!strstr(text, file)) err_wrap(err, "%s", file);
  err_hint(err,
           "a configuration is: return { max_sandboxes = 10, allow_image = { \"python:*\" } }");
  return rc;
}

struct job {
  const char *file, *chunk_name, *text;
  size_t len;
  struct val *ret;
  struct err *err;
  int rc;
};

/* All that may allocate happens in here, where running out of memory is an error. */
static int run(lua_State *L)
{
  struct job *job = lua_touserdata(L, 1);
  if (luaL_loadbufferx(L, job->text, job->len, job->chunk_name, "t") != LUA_OK) lua_error(L);
  lua_newtable(L); /* its globals: none */
  lua_setupvalue(L, -2, 1);
  lua_sethook(L, too_long, LUA_MASKCOUNT, MAX_STEPS);
  lua_call(L, 0, 1);
  if (!lua_istable(L, -1))
    luaL_error(L, "%s: it has to return a table, not %s", job->file, luaL_typename(L, -1));
  job->rc = to_val(L, lua_gettop(L), 0, job->ret, job->err);
  if (job->rc < 0) err_wrap(job->err, "%s", job->file);
  return 0;
}

static int run_chunk(lua_State *L, const char *file, const struct buf *text, struct val *ret,
                     struct err *err)
{
  struct buf name = {0};
  buf_printf(&name, "@%s", file);
  struct job job = {.file = file,
                    .chunk_name = name.data,
                    .text = text->data ? text->data : "",
                    .len = text->len,
                    .ret = ret,
                    .err = err};
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, &job);
  int status = lua_pcall(L, 1, 0, 0);
  int rc = status != LUA_OK ? explain(L, file, err) : job.rc;
  if (rc == 0 && ret->type == VAL_LIST)
    rc = err_arg(err, "", "%s: it has to return named settings, not a list", file);
  if (rc < 0) val_free(ret);
  buf_free(&name);
  return rc;
}

static int read_file(int fd, const char *file, struct buf *ret, struct err *err)
{
  struct stat st;
  if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > MAX_FILE)
    return err_arg(err, "--config", "%s is not a file of at most 1 MiB", file);
  buf_reserve(ret, (size_t)st.st_size + 1);
  ssize_t n;
  while (ret->len < MAX_FILE && (n = read(fd, ret->data + ret->len, ret->cap - ret->len - 1)) > 0) {
    ret->len += (size_t)n;
    buf_reserve(ret, 4096);
  }
  return 0;
}

static char *own_path(void)
{
  const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
  struct buf path = {0};
  if (config && *config == '/')
    buf_printf(&path, "%s/regolith/config.lua", config);
  else if (home && *home == '/')
    buf_printf(&path, "%s/.config/regolith/config.lua", home);
  else
    return NULL;
  return buf_take(&path, NULL);
}

int settings_load(struct val *ret, const char *path, char **ret_file, struct err *err)
{
  cleanup_free char *file = path ? xstrdup(path) : own_path();
  *ret = (struct val){0};
  *ret_file = NULL;
  if (!file) return 0;
  cleanup_close int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0 && !path && (errno == ENOENT || errno == ENOTDIR)) return 0;
  if (fd < 0) return err_arg(err, "--config", "cannot read %s: %s", file, strerror(errno));
  struct buf text = {0};
  struct allowance allowance = {0};
  int rc = read_file(fd, file, &text, err);
  lua_State *L = rc == 0 ? lua_newstate(allocate, &allowance) : NULL;
  if (rc == 0 && !L) rc = err_set(err, ERR_INTERNAL, ENOMEM, "cannot start Lua for %s", file);
  if (rc == 0) rc = run_chunk(L, file, &text, ret, err);
  if (L) lua_close(L);
  buf_free(&text);
  if (rc == 0) *ret_file = take_ptr(&file);
  return rc;
}

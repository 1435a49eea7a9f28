/* io and os, as far as scripts have them: nothing of the host that was not granted.
 *
 * Files open beneath a granted directory only, by openat2 with RESOLVE_BENEATH, so that neither
 * ".." nor a symbolic link leads out; where the kernel lacks it, component by component without
 * following links. Only regular files. An open file is Lua's own file handle: its methods are the
 * stock ones. io.write goes where print goes. io.read asks for the op "stdin.read". */
#include "script/script_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <linux/openat2.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define MAX_SOURCE ((off_t)16 << 20)

/* --- Opening beneath a directory --- */

static int walk_beneath(int dir, const char *path, int flags, mode_t mode)
{
  cleanup_free char *copy = xstrdup(path);
  cleanup_close int at = dup(dir);
  char *rest = copy;
  for (char *slash; at >= 0 && (slash = strchr(rest, '/')); rest = slash + 1) {
    *slash = '\0';
    if (!*rest || strcmp(rest, ".") == 0) continue;
    if (strcmp(rest, "..") == 0) {
      errno = EXDEV;
      return -1;
    }
    int next = openat(at, rest, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    close(at);
    at = next;
  }
  if (at < 0 || strcmp(rest, "..") == 0) return -1;
  return openat(at, rest, flags | O_NOFOLLOW | O_CLOEXEC, mode);
}

int script_open_beneath(int dir, const char *path, int flags, unsigned mode)
{
  struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY),
                         .mode = flags & O_CREAT ? mode : 0,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
  int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
  if (fd < 0 && (errno == ENOSYS || errno == EPERM))
    fd = walk_beneath(dir, path, flags | O_NONBLOCK | O_NOCTTY, mode);
  return fd;
}

/* path without "." and ".." and doubled slashes, absolute; NULL where it climbs too high. Text
 * only: what the links in it mean is for the kernel to say. */
static char *normalise(const char *path)
{
  char cwd[4096];
  struct buf b = {0};
  if (*path != '/' && getcwd(cwd, sizeof cwd)) buf_printf(&b, "%s/", cwd);
  buf_puts(&b, path);
  cleanup_free char *full = buf_take(&b, NULL);
  char *out = xmalloc(strlen(full) + 2);
  size_t n = 0;
  for (char *save = NULL, *part = strtok_r(full, "/", &save); part;
       part = strtok_r(NULL, "/", &save)) {
    if (strcmp(part, ".") == 0) continue;
    if (strcmp(part, "..") == 0) {
      while (n > 0 && out[--n] != '/') continue;
      continue;
    }
    out[n++] = '/';
    memcpy(out + n, part, strlen(part));
    n += strlen(part);
  }
  if (n == 0) out[n++] = '/';
  out[n] = '\0';
  return out;
}

/* The part of path below dir, or NULL. */
static const char *below(const char *path, const char *dir)
{
  size_t n = strlen(dir);
  while (n > 0 && dir[n - 1] == '/') n--;
  if (strncmp(path, dir, n) != 0) return NULL;
  if (path[n] == '/') return path + n + 1;
  return NULL;
}

static int open_in(const struct strv *dirs, const char *path, int flags, bool *ret_granted)
{
  for (size_t i = 0; i < dirs->n; i++) {
    cleanup_free char *dir_path = normalise(dirs->v[i]);
    const char *rest = below(path, dir_path);
    if (!rest || !*rest) continue;
    *ret_granted = true;
    cleanup_close int dir = open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) continue;
    int fd = script_open_beneath(dir, rest, flags, 0666);
    if (fd >= 0 || errno != ENOENT) return fd;
  }
  return -1;
}

/* fopen's modes; -1 for what is none. */
static int mode_flags(const char *mode)
{
  int flags;
  switch (*mode) {
  case 'r': flags = O_RDONLY; break;
  case 'w': flags = O_WRONLY | O_CREAT | O_TRUNC; break;
  case 'a': flags = O_WRONLY | O_CREAT | O_APPEND; break;
  default: return -1;
  }
  if (mode[1] == '+') flags = (flags & ~O_ACCMODE) | O_RDWR;
  return flags;
}

int script_open_granted(struct script *s, const char *path, const char *mode, struct err *err)
{
  int flags = mode_flags(mode);
  bool writes = (flags & O_ACCMODE) != O_RDONLY, granted = false;
  cleanup_free char *full = normalise(path);
  int fd = -1;
  errno = ENOENT;
  if (!writes) fd = open_in(&s->read_dirs, full, flags, &granted);
  if (fd < 0) fd = open_in(&s->write_dirs, full, flags, &granted);
  int saved = errno;
  if (!granted) {
    err_set(err, ERR_DENIED, EACCES,
            "%s: Permission denied: the script was not granted this folder", path);
    err_hint(err, "run it with --%s %s", writes ? "write" : "read", "DIR");
    return -EACCES;
  }
  struct stat st;
  if (fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) {
    close(fd);
    fd = -1;
    saved = S_ISDIR(st.st_mode) ? EISDIR : EACCES;
  }
  if (fd < 0)
    return err_set(err, saved == ENOENT ? ERR_NOT_FOUND : ERR_DENIED, saved, "%s: %s", path,
                   strerror(saved));
  return fd;
}

bool script_push_file(lua_State *L, int fd_given, struct err *err)
{
  cleanup_close int fd = fd_given;
  struct stat st;
  if (fstat(fd, &st) < 0 || st.st_size > MAX_SOURCE) {
    err_set(err, ERR_PAYLOAD_TOO_LARGE, EFBIG, "a source file of more than 16 MiB");
    return false;
  }
  cleanup_free char *text = xmalloc((size_t)st.st_size + 1);
  size_t len = 0;
  for (ssize_t n; len < (size_t)st.st_size; len += (size_t)n) {
    n = read(fd, text + len, (size_t)st.st_size - len);
    if (n <= 0) break;
  }
  size_t skip = 0;
  if (len && *text == '#') {
    const char *end = memchr(text, '\n', len);
    skip = end ? (size_t)(end - text) : len;
  }
  struct script *s = script_of(L);
  if (s->mem + len > s->mem_soft) {
    err_set(err, ERR_LIMIT, ENOMEM, "not enough memory for a source file");
    return false;
  }
  lua_pushlstring(L, text + skip, len - skip);
  return true;
}

/* --- io --- */

static int close_file(lua_State *L)
{
  luaL_Stream *p = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  return luaL_fileresult(L, fclose(p->f) == 0, NULL);
}

/* The handle comes first, marked as closed: nothing is open while an error may be raised. */
static int open_file(lua_State *L, const char *path, const char *mode)
{
  struct err err = {0};
  luaL_Stream *p = lua_newuserdatauv(L, sizeof *p, 0);
  p->closef = NULL;
  p->f = NULL;
  luaL_setmetatable(L, LUA_FILEHANDLE);
  int fd = script_open_granted(script_of(L), path, mode, &err);
  if (fd >= 0) {
    p->f = fdopen(fd, mode);
    p->closef = close_file;
    if (p->f) return 1;
    close(fd);
    p->closef = NULL;
    err_set(&err, ERR_INTERNAL, errno, "%s: %s", path, strerror(errno));
  }
  lua_pushnil(L);
  lua_pushstring(L, err.msg);
  lua_pushinteger(L, err.sys_errno);
  return 3;
}

static const char *check_mode(lua_State *L, int arg)
{
  const char *mode = luaL_optstring(L, arg, "r");
  const char *m = mode;
  bool good = *m && strchr("rwa", *m++);
  if (*m == '+') m++;
  if (*m == 'b') m++;
  luaL_argcheck(L, good && !*m, arg, "invalid mode");
  return mode;
}

static int io_open(lua_State *L)
{
  return open_file(L, luaL_checkstring(L, 1), check_mode(L, 2));
}

/* No closing value, unlike the stock one: the collector closes the file. */
static int io_lines(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1);
  int n = lua_gettop(L);
  if (open_file(L, path, "r") != 1) return luaL_error(L, "%s", lua_tostring(L, -2));
  lua_getfield(L, -1, "lines");
  lua_replace(L, 1);
  lua_insert(L, 2);
  lua_call(L, n, 1);
  return 1;
}

static int io_type(lua_State *L)
{
  luaL_checkany(L, 1);
  const luaL_Stream *p = luaL_testudata(L, 1, LUA_FILEHANDLE);
  if (p)
    lua_pushstring(L, p->closef ? "file" : "closed file");
  else
    lua_pushnil(L);
  return 1;
}

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

static int read_ended(lua_State *L, int status, lua_KContext ctx)
{
  (void)status, (void)ctx;
  return lua_gettop(L);
}

/* io.read(…) is lua/regolith/stdin.lua. */
static int io_read(lua_State *L)
{
  lib_require(L, "regolith.stdin");
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, read_ended);
  return lua_gettop(L);
}

static void open_io(lua_State *L)
{
  static const luaL_Reg functions[] = {
      {"open", io_open}, {"lines", io_lines}, {"type", io_type}, {"read", io_read}, {NULL, NULL}};
  static const char *const gone[][2] = {
      {"popen", "run programs in a sandbox: sandbox.run(command)"},
      {"tmpfile", "keep data in a variable, or in a file of a sandbox"},
      {"input", "io.open(path), and file:read"},
      {"output", "io.open(path, \"w\"), and file:write"},
      {"close", "file:close()"}};
  lua_pushcfunction(L, luaopen_io); /* for the metatable of files */
  lua_call(L, 0, 0);
  luaL_newlib(L, functions);
  for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
    char name[32];
    snprintf(name, sizeof name, "io.%s", gone[i][0]);
    script_push_removed(L, name, gone[i][1]);
    lua_setfield(L, -2, gone[i][0]);
  }
  push_stream(L, true);
  lua_setfield(L, -2, "stderr");
  push_stream(L, false);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "stdout");
  lua_pushcclosure(L, io_write, 1);
  lua_setfield(L, -2, "write");
  lua_setglobal(L, "io");
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
  static const char *const gone[][2] = {
      {"execute", "run programs in a sandbox: sandbox.run(command)"},
      {"exit", "return from the script, or raise an error()"},
      {"remove", "files of a sandbox: sb:exec { \"rm\", path }"},
      {"rename", "files of a sandbox: sb:exec { \"mv\", from, to }"},
      {"tmpname", "keep data in a variable, or in a file of a sandbox"},
      {"setlocale", "text is bytes, in the C locale"}};
  lua_createtable(L, 0, 12);
  lua_pushcfunction(L, luaopen_os);
  lua_call(L, 0, 1);
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    lua_getfield(L, -1, kept[i]);
    lua_setfield(L, -3, kept[i]);
  }
  lua_pop(L, 1);
  for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
    char name[32];
    snprintf(name, sizeof name, "os.%s", gone[i][0]);
    script_push_removed(L, name, gone[i][1]);
    lua_setfield(L, -2, gone[i][0]);
  }
  lua_pushcfunction(L, script_getenv);
  lua_setfield(L, -2, "getenv");
  lua_setglobal(L, "os");
}

void lib_io_open(lua_State *L)
{
  open_io(L);
  open_os(L);
}

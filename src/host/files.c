/* Files of this machine for scripts, by grant.
 *
 * Owns the files that scripts have open, each known to its owner by a number that is nobody else's.
 * Files open beneath a granted directory only, by openat2 with RESOLVE_BENEATH, so that neither
 * ".." nor a symbolic link leads out; where the kernel lacks it, component by component without
 * following links. Only regular files, so that no read here can block for long.
 *
 * Everything answers at once, on the loop. */
#include "host/files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/val.h"
#include "core/op.h"
#include "wire/file.h"
#include "wire/op.h"

enum {
  MAX_OPEN = 64 /* files an owner may have open */,
  MAX_READ = 1 << 20,
  MAX_MODULE = 16 << 20
};

struct open_file {
  uint64_t id;
  uint64_t owner;
  int fd; /* owned */
};

struct files {
  struct idmap open; /* id → struct open_file, owned */
  uint64_t next_id;
  bool (*grants)(void *data, uint64_t owner, struct files_grants *ret);
  void *data;
  int (*module)(void *data, const char *name, struct val *ret, struct err *err); /* or NULL */
  void *module_data;
};

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

int files_open_beneath(int dir, const char *path, int flags, unsigned mode)
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
  for (size_t i = 0; dirs && i < dirs->n; i++) {
    cleanup_free char *dir_path = normalise(dirs->v[i]);
    bool is_file = strcmp(path, dir_path) == 0; /* granted by itself */
    if (is_file) strrchr(dir_path, '/')[1] = '\0';
    const char *rest = below(path, dir_path);
    if (!rest || !*rest) continue;
    *ret_granted = true;
    cleanup_close int dir = open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) continue;
    int fd = files_open_beneath(dir, rest, flags, 0666);
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

static int open_granted(const struct files_grants *g, const char *path, const char *mode,
                        struct err *err)
{
  int flags = mode_flags(mode);
  if (flags < 0)
    return err_arg(err, "mode", "\"%s\" is none of r, w, a, with + behind it or not", mode);
  bool writes = (flags & O_ACCMODE) != O_RDONLY, granted = false;
  cleanup_free char *full = normalise(path);
  int fd = -1;
  errno = ENOENT;
  if (!writes) fd = open_in(g->read_dirs, full, flags, &granted);
  if (fd < 0) fd = open_in(g->write_dirs, full, flags, &granted);
  int saved = errno;
  if (!granted) {
    err_set(err, ERR_DENIED, EACCES,
            "%s: Permission denied: the script was not granted this folder", path);
    err_hint(err, "run it with --allow-%s DIR", writes ? "write" : "read");
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

/* --- Ops --- */

static struct files_grants grants_of(const struct files *f, uint64_t owner)
{
  struct files_grants g = {0};
  if (!f->grants(f->data, owner, &g)) g = (struct files_grants){0};
  return g;
}

static size_t count_open(const struct files *f, uint64_t owner)
{
  size_t at = 0, n = 0;
  for (struct open_file *o; (o = idmap_next(&f->open, &at));) n += o->owner == owner;
  return n;
}

static int start_open(struct op *op, void *ctx, struct err *err)
{
  struct files *f = ctx;
  struct files_grants g = grants_of(f, op->owner);
  if (count_open(f, op->owner) >= MAX_OPEN)
    return err_set(err, ERR_LIMIT, EMFILE, "%d files are open already: close some", MAX_OPEN);
  int fd = open_granted(&g, val_get_str(&op->args, "path", ""), val_get_str(&op->args, "mode", "r"),
                        err);
  if (fd < 0) return fd;
  struct open_file *o = xmalloc(sizeof *o);
  *o = (struct open_file){.id = ++f->next_id, .owner = op->owner, .fd = fd};
  idmap_set(&f->open, o->id, o);
  op->result = val_map();
  val_add(&op->result, "file", val_int((int64_t)o->id));
  op_finish(op, NULL);
  return 0;
}

static struct open_file *file_of(const struct files *f, const struct op *op, struct err *err)
{
  struct open_file *o = idmap_get(&f->open, (uint64_t)val_get_int(&op->args, "file", 0));
  if (o && o->owner == op->owner) return o;
  err_set(err, ERR_NOT_FOUND, EBADF, "no such open file");
  return NULL;
}

static int fail(struct err *err, const char *what)
{
  return err_set(err, ERR_DENIED, errno, "%s: %s", what, strerror(errno));
}

static int start_read(struct op *op, void *ctx, struct err *err)
{
  const struct open_file *o = file_of(ctx, op, err);
  if (!o) return err_errno(err);
  int64_t max = val_get_int(&op->args, "max", MAX_READ);
  if (max < 1 || max > MAX_READ) max = MAX_READ;
  char *bytes = xmalloc((size_t)max + 1);
  ssize_t n = read(o->fd, bytes, (size_t)max);
  if (n < 0) {
    free(bytes);
    return fail(err, "cannot read");
  }
  bytes[n] = '\0';
  op->result = val_map();
  if (n > 0)
    val_add(&op->result, "data", val_take_bytes(bytes, (size_t)n));
  else
    free(bytes);
  op_finish(op, NULL);
  return 0;
}

static int start_write(struct op *op, void *ctx, struct err *err)
{
  const struct open_file *o = file_of(ctx, op, err);
  const struct val *data = val_get(&op->args, "data");
  if (!o) return err_errno(err);
  if (!data || data->type != VAL_STR) return err_arg(err, "data", "data must be a string");
  for (size_t at = 0; at < data->s.len;) {
    ssize_t n = write(o->fd, data->s.p + at, data->s.len - at);
    if (n < 0) return fail(err, "cannot write");
    at += (size_t)n;
  }
  op->result = val_map();
  op_finish(op, NULL);
  return 0;
}

static int start_seek(struct op *op, void *ctx, struct err *err)
{
  static const struct {
    const char *name;
    int whence;
  } ways[] = {{"set", SEEK_SET}, {"cur", SEEK_CUR}, {"end", SEEK_END}};
  const struct open_file *o = file_of(ctx, op, err);
  if (!o) return err_errno(err);
  const char *name = val_get_str(&op->args, "whence", "cur");
  for (size_t i = 0; i < 3; i++) {
    if (strcmp(ways[i].name, name) != 0) continue;
    off_t at = lseek(o->fd, val_get_int(&op->args, "offset", 0), ways[i].whence);
    if (at < 0) return fail(err, "cannot seek");
    op->result = val_map();
    val_add(&op->result, "position", val_int(at));
    op_finish(op, NULL);
    return 0;
  }
  return err_arg(err, "whence", "\"%s\" is none of set, cur, end", name);
}

static void close_file(struct files *f, struct open_file *o)
{
  idmap_remove(&f->open, o->id);
  close(o->fd);
  free(o);
}

static int start_close(struct op *op, void *ctx, struct err *err)
{
  struct open_file *o = file_of(ctx, op, err);
  if (!o) return err_errno(err);
  close_file(ctx, o);
  op->result = val_map();
  op_finish(op, NULL);
  return 0;
}

/* --- Trees --- */

static int not_granted(struct err *err, const char *field, const char *path, bool writes)
{
  err_set(err, ERR_DENIED, EACCES, "%.300s: the script was not granted this folder", path);
  if (err) snprintf(err->field, sizeof err->field, "%s", field);
  err_hint(err, "run it with --allow-%s DIR", writes ? "write" : "read");
  return -EACCES;
}

/* The directory that grants the path, and the path from there ("" = itself); NULL where none does.
 * at: from which grant on to look. */
static char *granting_dir(const struct strv *dirs, const char *path, size_t *at, const char **ret)
{
  for (; dirs && *at < dirs->n; ++*at) {
    char *dir = normalise(dirs->v[*at]);
    *ret = strcmp(path, dir) == 0 ? "" : below(path, dir);
    if (*ret) return dir;
    free(dir);
  }
  return NULL;
}

static int open_below(const char *dir_path, const char *rest, int flags)
{
  cleanup_close int dir = open(dir_path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (dir < 0 || !*rest) return take_fd(&dir);
  return files_open_beneath(dir, rest, flags, 0);
}

int files_open_source(const struct files *f, uint64_t owner, const char *path, struct err *err)
{
  struct files_grants g = grants_of(f, owner);
  cleanup_free char *full = normalise(path);
  const struct strv *lists[] = {g.read_dirs, g.write_dirs};
  bool granted = false;
  int fd = -1, saved = ENOENT;
  for (size_t i = 0; i < 2; i++) {
    const char *rest;
    size_t at = 0;
    for (char *dir; fd < 0 && (dir = granting_dir(lists[i], full, &at, &rest)); at++) {
      granted = true;
      fd = open_below(dir, rest, O_RDONLY);
      if (fd < 0) saved = errno;
      free(dir);
    }
  }
  if (!granted) return not_granted(err, "source", path, false);
  return fd >= 0 ? fd : file_error(err, "source", "read", path, saved);
}

int files_open_target(const struct files *f, uint64_t owner, const char *path, char **ret_name,
                      struct err *err)
{
  struct files_grants g = grants_of(f, owner);
  cleanup_free char *full = normalise(path);
  const char *rest;
  size_t at = 0;
  *ret_name = NULL;
  cleanup_free char *dir = granting_dir(g.write_dirs, full, &at, &rest);
  if (!dir) return not_granted(err, "target", path, true);
  cleanup_free char *parent = xstrdup(rest);
  char *slash = strrchr(parent, '/'), *name = slash ? slash + 1 : parent;
  cleanup_free char *copy = xstrdup(name);
  *name = '\0';
  if (slash) *slash = '\0';
  int fd = open_below(dir, parent, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return file_error(err, "target", "write", path, errno);
  if (*copy) *ret_name = take_ptr(&copy);
  return fd;
}

/* --- Modules --- */

/* "a.b" as a path, where the name is made of plain words. */
static bool name_to_path(const char *name, char *out, size_t size)
{
  size_t len = strlen(name);
  if (len == 0 || len + 10 > size || *name == '.' || name[len - 1] == '.' || strstr(name, ".."))
    return false;
  for (size_t i = 0; i <= len; i++) {
    char c = name[i];
    bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                c == '_' || c == '-' || c == '\0';
    if (!word && c != '.') return false;
    out[i] = c == '.' ? '/' : c;
  }
  return true;
}

static int read_module(int fd, struct val *ret, struct err *err)
{
  struct stat st;
  if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > MAX_MODULE)
    return err_set(err, ERR_PAYLOAD_TOO_LARGE, EFBIG, "a module is a file of at most %d MiB",
                   MAX_MODULE >> 20);
  char *text = xmalloc((size_t)st.st_size + 1);
  ssize_t n = read(fd, text, (size_t)st.st_size);
  if (n < 0) {
    free(text);
    return fail(err, "cannot read the module");
  }
  text[n] = '\0';
  *ret = val_take_bytes(text, (size_t)n);
  return 0;
}

int files_read_text(const char *dir, const char *path, struct val *ret, struct err *err)
{
  cleanup_close int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
  cleanup_close int fd = at < 0 ? -1 : files_open_beneath(at, path, O_RDONLY, 0);
  if (fd < 0)
    return err_set(err, ERR_NOT_FOUND, errno, "cannot read %s/%s: %s", dir, path, strerror(errno));
  return read_module(fd, ret, err);
}

void files_set_modules(struct files *f,
                       int (*module)(void *, const char *, struct val *, struct err *), void *data)
{
  f->module = module;
  f->module_data = data;
}

static int start_module(struct op *op, void *ctx, struct err *err)
{
  static const char *const ends[] = {".lua", "/init.lua"};
  const struct files *f = ctx;
  struct files_grants g = grants_of(f, op->owner);
  const char *name = val_get_str(&op->args, "name", "");
  char base[200], path[256];
  cleanup_close int dir = g.dir ? open(g.dir, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
  bool fine = dir >= 0 && name_to_path(name, base, sizeof base);
  for (size_t i = 0; fine && i < 2; i++) {
    snprintf(path, sizeof path, "%s%s", base, ends[i]);
    cleanup_close int fd = files_open_beneath(dir, path, O_RDONLY, 0);
    if (fd < 0) continue;
    struct val text;
    int rc = read_module(fd, &text, err);
    if (rc < 0) return rc;
    bool here = strcmp(g.dir, ".") == 0;
    struct buf full = {0};
    buf_printf(&full, "%s%s%s", here ? "" : g.dir, here ? "" : "/", path);
    op->result = val_map();
    val_add(&op->result, "text", text);
    val_add(&op->result, "path", val_bytes(full.data, full.len));
    buf_free(&full);
    op_finish(op, NULL);
    return 0;
  }
  if (f->module && f->module(f->module_data, name, &op->result, err) == 0) {
    op_finish(op, NULL);
    return 0;
  }
  return err_set(err, ERR_NOT_FOUND, ENOENT, "there is no module \"%s\" beside the script", name);
}

static const struct op_handler handlers[] = {
    {.name = "file.open", .start = start_open},   {.name = "file.read", .start = start_read},
    {.name = "file.write", .start = start_write}, {.name = "file.seek", .start = start_seek},
    {.name = "file.close", .start = start_close}, {.name = "script.module", .start = start_module}};

struct files *files_new(struct ops *ops, bool (*grants)(void *, uint64_t, struct files_grants *),
                        void *data)
{
  struct files *f = xcalloc(1, sizeof *f);
  f->grants = grants;
  f->data = data;
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    ops_register(ops, &handlers[i], f);
  return f;
}

void files_end_owner(struct files *f, uint64_t owner)
{
  size_t at = 0;
  for (struct open_file *o; (o = idmap_next(&f->open, &at));) {
    if (o->owner != owner) continue;
    close_file(f, o);
    at = 0; /* removal moves entries */
  }
}

void files_free(struct files *f)
{
  if (!f) return;
  size_t at = 0;
  for (struct open_file *o; (o = idmap_next(&f->open, &at)); at = 0) close_file(f, o);
  idmap_free(&f->open);
  free(f);
}

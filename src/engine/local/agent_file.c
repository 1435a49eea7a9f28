/* Operations on the files of a box, in a process of their own.
 *
 * It is a copy of the agent that has become a command: the user of the sandbox, in a group of its
 * own, behind the same walls, without a descriptor but its three pipes, and it executes nothing. So
 * whatever a path leads to is what it would be for a command of the box; an image without a shell
 * serves as well as any; and a file that hangs, or a directory without end, holds up nobody but who
 * asked: the process is ended like a command.
 *
 * The tree it works on is its enemy's. Nothing is opened through the links of /proc, nothing is
 * waited for (a pipe, a device), other file systems are not entered, and what there may be much of
 * is passed on in pieces.
 *
 * What it has to say goes to its stdout, in the forms of wire/file.h; its exit code is 0 or the
 * errno of what failed, the name of that, below the path that was given, on its stderr. */
#include "engine/local/agent_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "core/tree.h"
#include "wire/file.h"

#define LINKS_MAX    40
#define SAME_FLAGS   (O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
#define REMOVE_DEPTH 200

static int open_at(int dir, const char *path, int flags)
{
  struct open_how how = {.flags = (uint64_t)(flags | SAME_FLAGS), .resolve = RESOLVE_NO_MAGICLINKS};
  if (flags & O_PATH) how.flags &= ~(uint64_t)(O_NOCTTY | O_NONBLOCK);
  int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  return openat(dir, path, (int)how.flags);
}

static int write_all(int fd, const char *data, size_t len)
{
  while (len > 0) {
    ssize_t n = write(fd, data, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    data += n;
    len -= (size_t)n;
  }
  return 0;
}

static int flush(struct buf *out)
{
  int rc = write_all(1, out->data ? out->data : "", out->len);
  out->len = 0;
  return rc;
}

/* Says where it failed; the exit code says why. */
static int failed_at(const char *path, int rc)
{
  if (rc < 0 && *path) write_all(2, path, strlen(path));
  return rc;
}

/* ---- read ---- */

static int read_file(const char *path, uint64_t max)
{
  static char piece[TREE_PIECE];
  struct stat st;
  cleanup_close int fd = open_at(AT_FDCWD, path, O_RDONLY);
  if (fd < 0 || fstat(fd, &st) < 0) return -errno;
  if (S_ISDIR(st.st_mode)) return -EISDIR;
  if (!S_ISREG(st.st_mode)) return -ENXIO;
  if ((uint64_t)st.st_size > max) return -EFBIG;
  for (uint64_t sum = 0;;) {
    ssize_t n = read(fd, piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? -errno : 0;
    sum += (uint64_t)n;
    if (sum > max) return -EFBIG;
    int rc = write_all(1, piece, (size_t)n);
    if (rc < 0) return rc;
  }
}

/* ---- list and stat ---- */

/* fd and name as readlinkat takes them. */
static void put_row(struct buf *out, const struct stat *st, const char *shown, int fd,
                    const char *name)
{
  char target[PATH_MAX];
  ssize_t n = S_ISLNK(st->st_mode) ? readlinkat(fd, name, target, sizeof target - 1) : 0;
  struct file_row row = {.mode = st->st_mode,
                         .uid = st->st_uid,
                         .gid = st->st_gid,
                         .name_len = (uint32_t)strlen(shown),
                         .target_len = n > 0 ? (uint32_t)n : 0,
                         .size = (uint64_t)st->st_size,
                         .mtime = st->st_mtim.tv_sec};
  buf_append(out, &row, sizeof row);
  buf_append(out, shown, row.name_len);
  buf_append(out, target, row.target_len);
}

static int stat_path(const char *path, bool follow)
{
  struct stat st;
  struct buf out = {0};
  cleanup_close int fd = open_at(AT_FDCWD, path, O_PATH | (follow ? 0 : O_NOFOLLOW));
  if (fd < 0 || fstat(fd, &st) < 0) return -errno;
  const char *slash = strrchr(path, '/');
  put_row(&out, &st, slash && slash[1] ? slash + 1 : path, fd, "");
  return flush(&out);
}

static int list_dir(const char *path)
{
  struct buf out = {0};
  int fd = open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  if (!d) return -errno;
  for (size_t n = 0;;) {
    struct stat st;
    errno = 0;
    const struct dirent *e = readdir(d);
    if (!e) return errno ? -errno : flush(&out);
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) continue; /* it is gone */
    if (n++ == FILE_LIST_MAX) return -EFBIG;
    put_row(&out, &st, e->d_name, fd, e->d_name);
    int rc = out.len > TREE_PIECE ? flush(&out) : 0;
    if (rc < 0) return rc;
  }
}

/* ---- mkdir ---- */

static int make_dirs(char *path, uint32_t mode)
{
  struct stat st;
  for (char *p = path + strspn(path, "/"); (p = strchr(p, '/')); p += strspn(p, "/")) {
    *p = '\0';
    int rc = mkdir(path, 0755);
    if (rc < 0 && errno != EEXIST) return -errno;
    *p = '/';
  }
  if (mkdir(path, 0755) == 0) return mode != FILE_MODE_KEEP && chmod(path, mode) < 0 ? -errno : 0;
  if (errno != EEXIST && errno != EISDIR) return -errno;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : -EEXIST;
}

/* ---- remove ---- */

/* Deeper than this, directories are moved to the top of what is being removed, and removed there:
 * no tree is too deep, and few descriptors are open. */
static int empty_dir(int fd, int top, unsigned depth);

static int remove_entry(int dir, const char *name, int top, unsigned depth)
{
  static unsigned moved;
  char aside[40];
  if (unlinkat(dir, name, 0) == 0 || errno == ENOENT) return 0;
  if (errno != EISDIR && errno != EPERM) return -errno;
  int saved = errno;
  int fd = tree_open_dir(dir, name);
  if (fd < 0)
    return errno == ENOENT ? 0 : errno == EXDEV ? -EBUSY : errno == ENOTDIR ? -saved : -errno;
  if (depth == REMOVE_DEPTH) {
    close(fd);
    snprintf(aside, sizeof aside, ".regolith-%d-r%u", (int)getpid(), moved++);
    return renameat(dir, name, top, aside) < 0 ? -errno : 0;
  }
  int rc = empty_dir(fd, depth == 0 ? fd : top, depth + 1);
  if (rc < 0) return rc;
  return unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

/* Takes fd. */
static int empty_dir(int fd, int top, unsigned depth)
{
  DIR *d = fdopendir(fd);
  int rc = d ? 0 : -errno;
  if (!d) close(fd);
  for (bool seen = true; rc == 0 && seen;) {
    const struct dirent *e;
    seen = false;
    rewinddir(d);
    for (errno = 0; rc == 0 && (e = readdir(d)); errno = 0) {
      if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
      seen = true;
      rc = remove_entry(fd, e->d_name, top, depth);
    }
  }
  if (d) closedir(d);
  return rc;
}

/* ---- where a path ends ---- */

static void trim_slashes(char *path)
{
  for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) path[n - 1] = '\0';
}

/* The directory that path lies in, and its name there; "" for a path that names a directory by
 * "/", "." or "..": dir is then that one. follow: what a link at the end leads to. */
static int split(const char *path, bool follow, int *ret_dir, char ret_name[PATH_MAX])
{
  char at[PATH_MAX];
  cleanup_close int dir = -1;
  if (strlen(path) >= sizeof at) return -ENAMETOOLONG;
  strcpy(at, path);
  for (int i = 0; i < LINKS_MAX; i++) {
    struct stat st;
    trim_slashes(at);
    char *slash = strrchr(at, '/'), *name = slash ? slash + 1 : at;
    bool whole = !*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
    strcpy(ret_name, whole ? "" : name);
    if (slash && !whole) slash[slash == at] = '\0'; /* keeps the root's own */
    const char *parent = whole || slash ? at : ".";
    int next = open_at(dir >= 0 ? dir : AT_FDCWD, parent, O_PATH | O_DIRECTORY);
    if (next < 0) return -errno;
    if (dir >= 0) close(dir);
    dir = next;
    ssize_t n = -1;
    if (follow && !whole && fstatat(dir, ret_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISLNK(st.st_mode))
      n = readlinkat(dir, ret_name, at, sizeof at - 1);
    if (n < 0) {
      *ret_dir = take_fd(&dir);
      return 0;
    }
    at[n] = '\0';
  }
  return -ELOOP;
}

static int remove_path(const char *path)
{
  char name[PATH_MAX];
  cleanup_close int dir = -1;
  struct stat st;
  int rc = split(path, false, &dir, name);
  if (rc == 0 && !*name) return -EBUSY;
  if (rc == 0 && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) rc = -errno;
  return rc < 0 ? rc : remove_entry(dir, name, -1, 0);
}

/* ---- trees ---- */

static int pack(const char *path)
{
  struct buf out = {0};
  int fd = open_at(AT_FDCWD, path, O_RDONLY);
  if (fd < 0) return -errno;
  struct tree_source *s = tree_source_new(fd);
  if (!s) return -errno;
  for (int rc = 1;;) {
    rc = tree_source_read(s, &out);
    if (rc < 0) return failed_at(tree_source_path(s), rc);
    int sent = flush(&out);
    if (sent < 0 || rc == 0) return sent;
  }
}

static int unpack(const char *path)
{
  static char piece[TREE_PIECE];
  char name[PATH_MAX];
  struct tree_sink_conf conf = {.dir = -1};
  int rc = split(path, true, &conf.dir, name);
  if (rc < 0) return rc;
  if (*name) conf.name = name;
  struct tree_sink *s = tree_sink_new(&conf);
  while (rc == 0) {
    ssize_t n = read(0, piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) rc = -errno;
    if (n == 0) rc = tree_sink_ended(s) ? 1 : -ECANCELED;
    if (n > 0) rc = tree_sink_write(s, piece, (size_t)n);
  }
  failed_at(tree_sink_path(s), rc);
  tree_sink_free(s);
  return rc == 1 ? 0 : rc;
}

/* ---- which ---- */

/* argv: kind, path, mode, max, follow (agent_file_text). */
int agent_file(char **argv)
{
  uint32_t mode = (uint32_t)strtoul(argv[2], NULL, 10);
  uint64_t max = strtoull(argv[3], NULL, 10);
  char *path = argv[1];
  int rc = -ENOSYS;
  prctl(PR_SET_NAME, "regolith-file", 0, 0, 0);
  umask(022);
  switch ((enum file_kind)atoi(argv[0])) {
  case FILE_READ: rc = read_file(path, max); break;
  case FILE_LIST: rc = list_dir(path); break;
  case FILE_STAT: rc = stat_path(path, *argv[4] == '1'); break;
  case FILE_MKDIR: rc = make_dirs(path, mode); break;
  case FILE_REMOVE: rc = remove_path(path); break;
  case FILE_PACK: rc = pack(path); break;
  case FILE_UNPACK: rc = unpack(path); break;
  case FILE_WRITE:
  case FILE_KINDS: break;
  }
  return -rc;
}

/* Control groups: reading and writing their files.
 *
 * Every group is a directory descriptor and a name, so that nothing depends on where a hierarchy is
 * mounted or on a cgroup namespace. Values are one short line each way. All of this runs in the
 * agent and between clone and exec too: no malloc, no stdio, nothing that is not async-signal-safe
 * (readdir allocates, hence getdents64 by hand). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/cgroup_internal.h"

int cg_write_at(int dirfd, const char *path, const char *text)
{
  cleanup_close int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  size_t len = strlen(text);
  ssize_t n = write(fd, text, len);
  if (n < 0) return -errno;
  return (size_t)n == len ? 0 : -EIO;
}

int cg_write_u64_at(int dirfd, const char *path, uint64_t value)
{
  char digits[24];
  char *p = digits + sizeof digits;
  *--p = 0;
  do {
    *--p = (char)('0' + value % 10);
    value /= 10;
  } while (value);
  return cg_write_at(dirfd, path, p);
}

int cg_read_at(int dirfd, const char *path, char *out, size_t size)
{
  cleanup_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  size_t len = 0;
  while (len + 1 < size) {
    ssize_t n = read(fd, out + len, size - 1 - len);
    if (n < 0) return -errno;
    if (n == 0) break;
    len += (size_t)n;
  }
  out[len] = 0;
  return (int)len;
}

static int64_t parse_number(const char *s)
{
  if (*s < '0' || *s > '9') return -1;
  uint64_t v = 0;
  for (; *s >= '0' && *s <= '9'; s++) v = v * 10 + (uint64_t)(*s - '0');
  return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

int64_t cg_find_key(const char *text, const char *key)
{
  size_t len = strlen(key);
  for (const char *line = text; *line;) {
    if (strncmp(line, key, len) == 0 && line[len] == ' ') return parse_number(line + len + 1);
    const char *end = strchr(line, '\n');
    if (!end) break;
    line = end + 1;
  }
  return -1;
}

int64_t cg_read_u64_at(int dirfd, const char *path)
{
  char text[64];
  int n = cg_read_at(dirfd, path, text, sizeof text);
  return n < 0 ? -1 : parse_number(text);
}

/* The kernel's directory entry; glibc has no declaration for it. */
struct linux_dirent {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
  char name[];
};

/* Calls fn for each directory in dirfd until it returns non-zero. */
static int each_group(int dirfd, int (*fn)(int dirfd, const char *name, void *data), void *data)
{
  cleanup_close int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  char buf[4096] __attribute__((aligned(8)));
  for (;;) {
    long n = syscall(SYS_getdents64, fd, buf, sizeof buf);
    if (n < 0) return -errno;
    if (n == 0) return 0;
    for (long at = 0; at < n;) {
      struct linux_dirent *d = (struct linux_dirent *)(buf + at);
      at += d->reclen;
      if (d->type != DT_DIR || d->name[0] == '.') continue;
      int r = fn(dirfd, d->name, data);
      if (r) return r;
    }
  }
}

static int kill_group_below(int dirfd, const char *name, void *data)
{
  cleanup_close int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) *(int *)data += cg_kill_procs(fd);
  return 0;
}

/* Pids of other pid namespaces read as 0: killing those would hit our own process group. */
static int kill_listed(int fd)
{
  char buf[4096];
  int killed = 0;
  long pid = 0;
  for (ssize_t n; (n = read(fd, buf, sizeof buf)) > 0;) {
    for (ssize_t i = 0; i < n; i++) {
      if (buf[i] >= '0' && buf[i] <= '9') {
        pid = pid * 10 + (buf[i] - '0');
        continue;
      }
      if (pid > 1 && pid != getpid() && kill((pid_t)pid, SIGKILL) == 0) killed++;
      pid = 0;
    }
  }
  return killed;
}

int cg_kill_procs(int dirfd)
{
  int killed = 0;
  cleanup_close int fd = openat(dirfd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
  if (fd >= 0) killed = kill_listed(fd);
  each_group(dirfd, kill_group_below, &killed);
  return killed;
}

static int remove_below(int dirfd, const char *name, void *data)
{
  (void)data;
  return cg_remove_at(dirfd, name);
}

int cg_remove_at(int dirfd, const char *name)
{
  if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return 0;
  if (errno != EBUSY) return -errno; /* it has processes, or groups below it */
  cleanup_close int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? 0 : -errno;
  int r = each_group(fd, remove_below, NULL);
  if (r < 0) return r;
  if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return 0;
  return -errno;
}

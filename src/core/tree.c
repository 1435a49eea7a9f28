/* What both sides of a tree share: records, reports, and how a directory is entered. */
#include "core/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/tree_internal.h"

void tree_put(struct buf *out, struct tree_head head, const char *name, const void *data)
{
  head.name_len = (uint32_t)strlen(name);
  buf_append(out, &head, sizeof head);
  buf_append(out, name, head.name_len);
  if (data) buf_append(out, data, head.len);
}

void tree_note_skipped(struct tree_report *r, const char *what, const char *path)
{
  if (r->skipped_n++ >= TREE_SKIPPED_MAX) return;
  buf_printf(&r->skipped, "%s %s", what, path);
  buf_putc(&r->skipped, '\0');
}

void tree_path_push(struct buf *path, const char *name)
{
  if (path->len) buf_putc(path, '/');
  buf_puts(path, name);
}

void tree_path_pop(struct buf *path)
{
  const char *slash = path->len ? memrchr(path->data, '/', path->len) : NULL;
  path->len = slash ? (size_t)(slash - path->data) : 0;
  if (path->data) path->data[path->len] = '\0';
}

int tree_open_dir(int dir, const char *name)
{
  struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
                         .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS};
  int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  struct stat here, there;
  fd = openat(dir, name, (int)how.flags);
  if (fd < 0 || fstat(dir, &here) < 0 || fstat(fd, &there) < 0 || here.st_dev == there.st_dev)
    return fd;
  close(fd);
  errno = EXDEV;
  return -1;
}

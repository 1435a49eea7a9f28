/* Volumes that regolith keeps, below the state folder:
 *
 *   volumes/NAME/        locked (shared) by each process that uses it, and alone to be removed
 *   volumes/NAME/data/   what sandboxes see: never the folder that carries the lock, which they
 * could otherwise take themselves volumes/.gone-NAME-N one that is being removed, no matter by whom
 *
 * The folder is its owner's alone: what sandboxes put into volumes, set-user-id files among it, is
 * out of reach for other users of the machine. A volume is gone when its folder is renamed; whoever
 * opened it before looks again. Killed processes lose their locks. */
#include "engine/local/volumes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "image/store.h"

#define GONE ".gone-"

int volume_check_name(const char *name, struct err *err)
{
  static const char alnum[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  size_t len = strlen(name);
  bool ok = len > 0 && len <= 64 && strchr(alnum, name[0]);
  for (size_t i = 0; ok && i < len; i++) ok = strchr(alnum, name[i]) || strchr("._-", name[i]);
  if (ok) return 0;
  return err_arg(err, "volumes",
                 "\"%.100s\" is no name for a volume: up to 64 letters, digits, \".\", \"_\" and "
                 "\"-\", a letter or digit first",
                 name);
}

static int fail(struct err *err, const char *what, const char *name)
{
  int e = errno;
  return err_set(err, ERR_INTERNAL, e, "cannot %s volume %s: %s", what, name, strerror(e));
}

/* The folder of all volumes, made where missing; its path is appended to path. */
static int open_folder(struct buf *path, struct err *err)
{
  int rc = image_state_folder(path, err);
  if (rc < 0) return rc;
  for (char *slash = strchr(path->data + 1, '/');; slash = strchr(slash + 1, '/')) {
    if (slash) *slash = '\0';
    int made = mkdir(path->data, 0755);
    int e = errno;
    if (made < 0 && e != EEXIST)
      return err_set(err, ERR_INTERNAL, e, "cannot make %s: %s", path->data, strerror(e));
    if (!slash) break;
    *slash = '/';
  }
  buf_printf(path, "/volumes");
  if (mkdir(path->data, 0700) < 0 && errno != EEXIST) return fail(err, "make the folder of", "any");
  int fd = open(path->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return fd < 0 ? fail(err, "open the folder of", "any") : fd;
}

/* Is what fd has open still the folder of this name? */
static bool is_current(int all, const char *name, int fd)
{
  struct stat named, open_one;
  return fstatat(all, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &open_one) == 0 &&
         named.st_ino == open_one.st_ino && named.st_dev == open_one.st_dev;
}

static int make_dir(int at, const char *name, mode_t mode)
{
  return mkdirat(at, name, mode) == 0 || errno == EEXIST ? 0 : -1;
}

int volume_acquire(const char *name, struct volume_use *ret, struct err *err)
{
  struct buf path = {0};
  *ret = (struct volume_use){.lock_fd = -1};
  int rc = volume_check_name(name, err);
  cleanup_close int all = rc < 0 ? -1 : open_folder(&path, err);
  rc = all < 0 ? err_errno(err) : 0;
  while (rc == 0 && ret->lock_fd < 0) {
    cleanup_close int fd = -1;
    if (make_dir(all, name, 0700) < 0 ||
        (fd = openat(all, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0) {
      if (errno != ENOENT) rc = fail(err, "make", name);
    } else if (flock(fd, LOCK_SH | LOCK_NB) < 0) {
      /* Being removed: it is about to lose its name. */
      if (errno == EWOULDBLOCK && is_current(all, name, fd)) usleep(1000);
    } else if (is_current(all, name, fd)) {
      rc = make_dir(fd, "data", 0755) < 0 ? fail(err, "make", name) : 0;
      if (rc == 0) ret->lock_fd = take_fd(&fd);
    }
  }
  if (rc == 0) {
    buf_printf(&path, "/%s/data", name);
    ret->path = realpath(path.data, NULL);
    if (!ret->path) rc = fail(err, "find", name);
  }
  buf_free(&path);
  if (rc < 0) volume_release(ret);
  return rc;
}

void volume_release(struct volume_use *use)
{
  if (use->lock_fd >= 0) close(use->lock_fd);
  free(use->path);
  *use = (struct volume_use){.lock_fd = -1};
}

static bool is_locked(int all, const char *name)
{
  cleanup_close int fd = openat(all, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
}

int volume_each(int (*fn)(void *data, const struct volume_info *info, struct err *err), void *data,
                struct err *err)
{
  struct buf path = {0};
  cleanup_close int all = open_folder(&path, err);
  buf_free(&path);
  if (all < 0) return all;
  DIR *d = fdopendir(dup(all));
  if (!d) return fail(err, "list", "any");
  int rc = 0;
  for (struct dirent *e; rc == 0 && (e = readdir(d));) {
    struct stat st;
    if (e->d_name[0] == '.' || fstatat(all, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
    struct volume_info info = {
        .name = e->d_name, .in_use = is_locked(all, e->d_name), .created_at = st.st_ctim.tv_sec};
    if (S_ISDIR(st.st_mode)) rc = fn(data, &info, err);
  }
  closedir(d);
  return rc;
}

/* What is called so is nobody's; a removal that was interrupted is finished by the next one. */
static int remove_gone(int all, struct err *err)
{
  DIR *d = fdopendir(dup(all));
  int rc = 0;
  if (!d) return fail(err, "list", "any");
  rewinddir(d);
  for (struct dirent *e; rc == 0 && (e = readdir(d));)
    if (strncmp(e->d_name, GONE, strlen(GONE)) == 0) rc = image_tree_remove(all, e->d_name, err);
  closedir(d);
  return rc;
}

int volume_remove(const char *name, struct err *err)
{
  struct buf path = {0};
  int rc = volume_check_name(name, err);
  if (rc < 0) return rc;
  cleanup_close int all = open_folder(&path, err);
  buf_free(&path);
  if (all < 0) return all;
  cleanup_close int fd = openat(all, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return err_set(err, ERR_NOT_FOUND, errno, "there is no volume %s", name);
  if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
    rc = err_set(err, ERR_CONFLICT, errno, "the volume %s is in use", name);
    err_hint(err, "a sandbox has it; `regolith ps` shows what runs");
    return rc;
  }
  char gone[128];
  snprintf(gone, sizeof gone, GONE "%s-%d", name, (int)getpid());
  if (renameat(all, name, all, gone) < 0) return fail(err, "remove", name);
  return remove_gone(all, err);
}

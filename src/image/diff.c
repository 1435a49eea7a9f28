/* What a sandbox changed: the upper folder of its overlay against the layers below.
 *
 * The upper folder is a hostile tree that changes while it is read: nothing in it is opened but
 * folders, no link is followed, what vanishes is left out. Each of its entries is looked up in the
 * layers, from the top: a whiteout, or a folder that is opaque or no folder any more, hides what
 * lower layers have. Layers are not followed out of either. */
#include "image/diff.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"

#define DEPTH_MAX 256

struct diff {
  const struct diff_conf *conf;
  char path[PATH_MAX]; /* of the entry at hand, without the first slash; "" is the root */
  unsigned depth;
};

static int open_in(int layer, const char *path, uint64_t flags)
{
  struct open_how how = {.flags = flags | O_CLOEXEC,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
  return (int)syscall(SYS_openat2, layer, *path ? path : ".", &how, sizeof how);
}

static bool is_whiteout(const struct stat *st)
{
  return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

static bool is_opaque(const struct diff_conf *c, int fd)
{
  char value;
  const char *name = c->user_xattrs ? "user.overlay.opaque" : "trusted.overlay.opaque";
  return fgetxattr(fd, name, &value, 1) == 1 && value == 'y';
}

/* --- the layers --- */

/* Does the layer hide what those below it have at path, which it does not have itself? */
static bool hides(const struct diff_conf *c, int layer, const char *path)
{
  char part[PATH_MAX];
  for (size_t end = 0;; end++) {
    struct stat st;
    end += strcspn(path + end, "/");
    snprintf(part, sizeof part, "%.*s", (int)end, path);
    cleanup_close int fd = open_in(layer, part, O_PATH | O_NOFOLLOW);
    if (fd < 0) return false; /* the last one that is there hides nothing */
    if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode)) return true;
    cleanup_close int dir = open_in(layer, part, O_RDONLY | O_DIRECTORY);
    if (dir < 0 || is_opaque(c, dir)) return true;
    if (path[end] == '\0') return false;
  }
}

/* The index of the layer that shows something at path, and that; or -1. */
static int find_below(const struct diff_conf *c, const char *path, struct stat *ret)
{
  for (size_t i = 0; i < c->lower_n; i++) {
    cleanup_close int fd = open_in(c->lower[i], path, O_PATH | O_NOFOLLOW);
    if (fd >= 0 && fstat(fd, ret) == 0) return is_whiteout(ret) ? -1 : (int)i;
    if (hides(c, c->lower[i], path)) return -1;
  }
  return -1;
}

/* --- changes --- */

static char type_of(mode_t mode)
{
  return S_ISDIR(mode)    ? 'd'
         : S_ISLNK(mode)  ? 'l'
         : S_ISREG(mode)  ? '-'
         : S_ISFIFO(mode) ? 'p'
         : S_ISSOCK(mode) ? 's'
         : S_ISCHR(mode)  ? 'c'
                          : 'b';
}

static int tell(struct diff *d, enum diff_kind kind, mode_t mode, struct err *err)
{
  char path[PATH_MAX + 1];
  snprintf(path, sizeof path, "/%s", d->path);
  return d->conf->on_change(d->conf->data, kind, type_of(mode), path, err);
}

static bool same_folder(const struct diff_conf *c, const struct stat *upper,
                        const struct stat *lower)
{
  return upper->st_mode == lower->st_mode && upper->st_uid - c->root_owner == lower->st_uid &&
         upper->st_gid - c->root_owner == lower->st_gid;
}

static int no_dots(const struct dirent *e)
{
  return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
  return strcmp((*a)->d_name, (*b)->d_name);
}

/* Calls fn for each name in the folder, with the path of the entry set. */
static int each_name(struct diff *d, int fd,
                     int (*fn)(struct diff *d, int fd, const char *name, void *data,
                               struct err *err),
                     void *data, struct err *err)
{
  struct dirent **names;
  size_t len = strlen(d->path);
  int n = scandirat(fd, ".", &names, no_dots, by_name), rc = 0;
  for (int i = 0; i < n; i++) {
    int made =
        snprintf(d->path + len, sizeof d->path - len, "%s%s", len ? "/" : "", names[i]->d_name);
    if (rc == 0 && made > 0 && (size_t)made < sizeof d->path - len)
      rc = fn(d, fd, names[i]->d_name, data, err);
    free(names[i]);
  }
  if (n >= 0) free(names);
  d->path[len] = '\0';
  return rc;
}

/* A folder that hides all below it: what was there and is not any more. */
struct hidden {
  int upper; /* the folder */
  int layer; /* whose names are being looked at */
};

static int tell_hidden(struct diff *d, int fd, const char *name, void *data, struct err *err)
{
  (void)fd;
  const struct hidden *h = data;
  struct stat st;
  if (fstatat(h->upper, name, &st, AT_SYMLINK_NOFOLLOW) == 0) return 0;
  if (find_below(d->conf, d->path, &st) != h->layer) return 0; /* told with another, or gone */
  return tell(d, DIFF_DELETED, st.st_mode, err);
}

static int walk_hidden(struct diff *d, int upper, struct err *err)
{
  const struct diff_conf *c = d->conf;
  int rc = 0;
  for (size_t i = 0; rc == 0 && i < c->lower_n; i++) {
    cleanup_close int dir = open_in(c->lower[i], d->path, O_RDONLY | O_DIRECTORY);
    struct hidden h = {upper, (int)i};
    if (dir >= 0) rc = each_name(d, dir, tell_hidden, &h, err);
    if (hides(c, c->lower[i], d->path)) break;
  }
  return rc;
}

static int walk_entry(struct diff *d, int dir, const char *name, void *data, struct err *err);

static int walk_folder(struct diff *d, int dir, const char *name, const struct stat *lower,
                       struct err *err)
{
  cleanup_close int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return 0; /* gone since */
  if (d->depth == DEPTH_MAX)
    return err_set(err, ERR_UNSUPPORTED, ENAMETOOLONG,
                   "the sandbox has folders nested deeper than %d", DEPTH_MAX);
  int rc = lower && S_ISDIR(lower->st_mode) && is_opaque(d->conf, fd) ? walk_hidden(d, fd, err) : 0;
  d->depth++;
  if (rc == 0) rc = each_name(d, fd, walk_entry, NULL, err);
  d->depth--;
  return rc;
}

/* The engine makes them where the image lacks them, and mounts on them. */
static bool is_mount_point(const char *path)
{
  return strcmp(path, "dev") == 0 || strcmp(path, "proc") == 0 || strcmp(path, "sys") == 0;
}

static int walk_entry(struct diff *d, int dir, const char *name, void *data, struct err *err)
{
  (void)data;
  struct stat st, lower;
  if (is_mount_point(d->path)) return 0;
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return 0;
  bool below = find_below(d->conf, d->path, &lower) >= 0;
  if (is_whiteout(&st)) return below ? tell(d, DIFF_DELETED, lower.st_mode, err) : 0;
  bool folder = S_ISDIR(st.st_mode);
  bool quiet = folder && below && same_folder(d->conf, &st, &lower);
  int rc = quiet ? 0 : tell(d, below ? DIFF_MODIFIED : DIFF_ADDED, st.st_mode, err);
  return rc == 0 && folder ? walk_folder(d, dir, name, below ? &lower : NULL, err) : rc;
}

int image_diff(const struct diff_conf *conf, struct err *err)
{
  struct diff d = {.conf = conf};
  return each_name(&d, conf->upper_fd, walk_entry, NULL, err);
}

/* Writing a layer's files from what a stranger's archive says.
 *
 * Owns a descriptor of the folder written to last. Every path is resolved by the kernel with
 * openat2(RESOLVE_IN_ROOT): absolute links and ".." inside the layer lead nowhere but to its own
 * root. The last part of a path is never followed: files are made with O_EXCL after what was there
 * is removed. Device nodes are never made, except the whiteout (a character device 0:0), which
 * means to an overlay "nothing here".
 *
 * Entries of one layer replace each other in order; a whiteout concerns lower layers only, so next
 * to an entry of the same layer it makes a folder opaque and is void for anything else. Folders
 * that an archive does not mention are made with mode 0755; folders.c later gives them what the
 * layers below say.
 *
 * Overlay marks (trusted.overlay.*, user.overlay.*) from archives are dropped: one of them,
 * "redirect", would let a layer show a folder of another layer under its own name. */
#include "image/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "image/store.h"

#define DEPTH_MAX 256 /* parts of a path; store_gc.c relies on it */
#define LINKS_MAX 40  /* links followed on the way to a folder, as the kernel does */

struct tree {
  struct tree_conf conf;
  char parent[PATH_MAX]; /* path of parent_fd */
  int parent_fd;         /* -1 = none yet */
};

struct tree *tree_new(const struct tree_conf *conf)
{
  struct tree *t = xcalloc(1, sizeof *t);
  t->conf = *conf;
  t->parent_fd = -1;
  return t;
}

static void forget_parent(struct tree *t)
{
  if (t->parent_fd >= 0) close(t->parent_fd);
  t->parent_fd = -1;
}

void tree_free(struct tree *t)
{
  if (!t) return;
  forget_parent(t);
  free(t);
}

static int failed(struct err *err, const char *path, const char *what)
{
  int saved = errno;
  int rc = err_set(err, ERR_ENGINE_UNAVAILABLE, saved, "cannot %s \"%.200s\" of the layer: %s",
                   what, path, strerror(saved));
  if (saved == ENOSPC || saved == EDQUOT)
    err_hint(err, "make room: regolith image gc, or regolith image rm NAME");
  return rc;
}

static int refused(struct err *err, const char *path, const char *why)
{
  return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG, "the layer is refused: \"%.200s\" %s", path,
                 why);
}

int tree_path(const char *path, char *out, struct err *err)
{
  size_t at = 0, parts = 0;
  for (const char *p = path; *p;) {
    size_t len = strcspn(p, "/");
    const char *part = p;
    p += len + (p[len] == '/');
    if (len == 0 || (len == 1 && part[0] == '.')) continue;
    if (len == 2 && part[0] == '.' && part[1] == '.') return refused(err, path, "leads out of it");
    if (len > NAME_MAX || at + len + 2 > PATH_MAX || ++parts > DEPTH_MAX)
      return refused(err, path, "is too long");
    if (at > 0) out[at++] = '/';
    memcpy(out + at, part, len);
    at += len;
  }
  out[at] = '\0';
  return 0;
}

static int open_in_root(const struct tree *t, const char *path, uint64_t flags)
{
  struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
  int fd;
  do fd = (int)syscall(SYS_openat2, t->conf.root_fd, *path ? path : ".", &how, sizeof how);
  while (fd < 0 && (errno == EAGAIN || errno == EINTR));
  return fd;
}

static bool is_whiteout(const struct stat *st)
{
  return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

static int set_opaque(const struct tree *t, int dir_fd)
{
  return fsetxattr(dir_fd, t->conf.user_xattrs ? "user.overlay.opaque" : "trusted.overlay.opaque",
                   "y", 1, 0);
}

/* Opens dir_fd/name as a folder for real use (an O_PATH descriptor cannot carry attributes). */
static int open_folder_at(int dir_fd, const char *name)
{
  return openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int make_folder(const struct tree *t, int dir_fd, const char *name, bool opaque)
{
  if (mkdirat(dir_fd, name, 0755) < 0) return -1;
  cleanup_close int fd = open_folder_at(dir_fd, name);
  if (fd < 0 || fchmod(fd, 0755) < 0) return -1;
  return opaque ? set_opaque(t, fd) : 0;
}

static int open_folder(struct tree *t, const char *path, int links, int *ret_fd, struct err *err);

/* The path of the folder a link leads to, read lexically: it did not exist, so that no link inside
 * it can mean anything else. */
static int link_target(const char *path, const char *target, char *out, struct err *err)
{
  char full[2 * PATH_MAX];
  const char *slash = strrchr(path, '/');
  int stem = target[0] == '/' || !slash ? 0 : (int)(slash - path);
  snprintf(full, sizeof full, "%.*s/%s", stem, path, target);
  size_t at = 0;
  out[0] = '\0';
  for (char *save = NULL, *part = strtok_r(full, "/", &save); part;
       part = strtok_r(NULL, "/", &save)) {
    if (strcmp(part, ".") == 0) continue;
    if (strcmp(part, "..") == 0) {
      while (at > 0 && out[--at] != '/') continue;
      out[at] = '\0';
      continue;
    }
    int n = snprintf(out + at, PATH_MAX - at, "%s%s", at ? "/" : "", part);
    at += (size_t)n;
    if (at >= PATH_MAX) return refused(err, path, "is a link that is too long");
  }
  return 0;
}

/* The folder `path` does not exist, or is no folder: makes it, or follows a link to where it will
 * be. dir_fd/name is its last part. */
static int make_missing(struct tree *t, const char *path, int dir_fd, const char *name, int links,
                        int *ret_fd, struct err *err)
{
  struct stat st;
  bool whiteout = false;
  if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
    if (S_ISLNK(st.st_mode)) {
      char target[PATH_MAX], to[PATH_MAX];
      ssize_t n = readlinkat(dir_fd, name, target, sizeof target - 1);
      if (n < 0) return failed(err, path, "read");
      target[n] = '\0';
      if (links >= LINKS_MAX) return refused(err, path, "is a link in a loop");
      int rc = link_target(path, target, to, err);
      return rc < 0 ? rc : open_folder(t, to, links + 1, ret_fd, err);
    }
    whiteout = is_whiteout(&st);
    if (!whiteout) return refused(err, path, "is used as a folder and is none");
    if (unlinkat(dir_fd, name, 0) < 0) return failed(err, path, "replace");
  }
  if (make_folder(t, dir_fd, name, whiteout) < 0) return failed(err, path, "make the folder");
  int rc = t->conf.on_implied && !whiteout ? t->conf.on_implied(t->conf.data, path, err) : 0;
  if (rc < 0) return rc;
  *ret_fd = open_folder_at(dir_fd, name);
  return *ret_fd < 0 ? failed(err, path, "open") : 0;
}

/* Opens a folder of the layer by its path, making what is missing. */
static int open_folder(struct tree *t, const char *path, int links, int *ret_fd, struct err *err)
{
  *ret_fd = open_in_root(t, path, O_RDONLY | O_DIRECTORY);
  if (*ret_fd >= 0) return 0;
  if (*path == '\0' || (errno != ENOENT && errno != ENOTDIR)) return failed(err, path, "open");
  char up[PATH_MAX];
  snprintf(up, sizeof up, "%s", path);
  char *slash = strrchr(up, '/');
  const char *name = slash ? path + (slash - up) + 1 : path;
  if (slash)
    *slash = '\0';
  else
    up[0] = '\0';
  cleanup_close int dir_fd = -1;
  int rc = open_folder(t, up, links, &dir_fd, err);
  if (rc < 0) return rc;
  return make_missing(t, path, dir_fd, name, links, ret_fd, err);
}

/* The folder that holds path, and the last part of path. */
static int open_parent(struct tree *t, const char *path, int *ret_fd, const char **ret_name,
                       struct err *err)
{
  const char *slash = strrchr(path, '/');
  size_t len = slash ? (size_t)(slash - path) : 0;
  *ret_name = slash ? slash + 1 : path;
  if (t->parent_fd < 0 || strlen(t->parent) != len || memcmp(t->parent, path, len) != 0) {
    forget_parent(t);
    snprintf(t->parent, sizeof t->parent, "%.*s", (int)len, path);
    int rc = open_folder(t, t->parent, 0, &t->parent_fd, err);
    if (rc < 0) return rc;
  }
  *ret_fd = t->parent_fd;
  return 0;
}

/* Makes room for a new entry. ret_hides: a folder made here must hide what lower layers have. */
static int clear_place(const char *path, int dir_fd, const char *name, bool keep_folder,
                       bool *ret_kept, bool *ret_hides, struct err *err)
{
  struct stat st;
  *ret_kept = *ret_hides = false;
  if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return errno == ENOENT ? 0 : failed(err, path, "look at");
  if (S_ISDIR(st.st_mode)) {
    if (keep_folder) {
      *ret_kept = true;
      return 0;
    }
    int rc = image_tree_remove(dir_fd, name, err);
    if (rc < 0) return rc;
  } else if (unlinkat(dir_fd, name, 0) < 0) {
    return failed(err, path, "replace");
  }
  *ret_hides = true;
  return 0;
}

/* Owner first: changing it clears set-id bits. */
static int set_attributes(const struct tree *t, const struct tree_entry *e, int fd, struct err *err)
{
  if (t->conf.chown && fchown(fd, e->uid, e->gid) < 0)
    return failed(err, e->path, "set the owner of");
  if (fchmod(fd, e->mode & 07777) < 0) return failed(err, e->path, "set the mode of");
  struct timespec times[2] = {e->mtime, e->mtime};
  if (futimens(fd, times) < 0) return failed(err, e->path, "set the time of");
  return 0;
}

/* The same for what cannot be opened: links and fifos. */
static int set_attributes_at(const struct tree *t, const struct tree_entry *e, int dir_fd,
                             const char *name, struct err *err)
{
  if (t->conf.chown && fchownat(dir_fd, name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0)
    return failed(err, e->path, "set the owner of");
  if (!S_ISLNK(e->mode) && fchmodat(dir_fd, name, e->mode & 07777, 0) < 0)
    return failed(err, e->path, "set the mode of");
  struct timespec times[2] = {e->mtime, e->mtime};
  if (utimensat(dir_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
    return failed(err, e->path, "set the time of");
  return 0;
}

int tree_folder(struct tree *t, const struct tree_entry *e, struct err *err)
{
  if (*e->path == '\0') return set_attributes(t, e, t->conf.root_fd, err);
  int dir_fd;
  const char *name;
  bool kept, hides;
  int rc = open_parent(t, e->path, &dir_fd, &name, err);
  if (rc == 0) rc = clear_place(e->path, dir_fd, name, true, &kept, &hides, err);
  if (rc < 0) return rc;
  if (!kept && make_folder(t, dir_fd, name, hides) < 0)
    return failed(err, e->path, "make the folder");
  cleanup_close int fd = open_folder_at(dir_fd, name);
  if (fd < 0) return failed(err, e->path, "open");
  return set_attributes(t, e, fd, err);
}

/* Common to all that is no folder. */
static int prepare(struct tree *t, const struct tree_entry *e, int *ret_fd, const char **ret_name,
                   struct err *err)
{
  bool kept, hides;
  if (*e->path == '\0') return refused(err, "/", "is not a folder");
  int rc = open_parent(t, e->path, ret_fd, ret_name, err);
  return rc < 0 ? rc : clear_place(e->path, *ret_fd, *ret_name, false, &kept, &hides, err);
}

int tree_symlink(struct tree *t, const struct tree_entry *e, struct err *err)
{
  int dir_fd;
  const char *name;
  if (!e->link || !*e->link) return refused(err, e->path, "is a link to nothing");
  int rc = prepare(t, e, &dir_fd, &name, err);
  if (rc < 0) return rc;
  if (symlinkat(e->link, dir_fd, name) < 0) return failed(err, e->path, "make the link");
  return set_attributes_at(t, e, dir_fd, name, err);
}

int tree_hardlink(struct tree *t, const struct tree_entry *e, struct err *err)
{
  char target[PATH_MAX];
  int dir_fd;
  const char *name;
  if (!e->link) return refused(err, e->path, "is a link to nothing");
  int rc = tree_path(e->link, target, err);
  if (rc < 0) return rc;
  if (strcmp(target, e->path) == 0) return 0; /* to itself: nothing to do */
  const char *slash = strrchr(target, '/');
  char folder[PATH_MAX];
  snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - target) : 0, target);
  const char *target_name = slash ? slash + 1 : target;
  struct stat st;
  cleanup_close int target_fd = open_in_root(t, folder, O_RDONLY | O_DIRECTORY);
  if (target_fd < 0 || fstatat(target_fd, target_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
      is_whiteout(&st))
    return refused(err, e->path, "is a hard link to what the layer does not have");
  if (S_ISDIR(st.st_mode)) return refused(err, e->path, "is a hard link to a folder");
  rc = prepare(t, e, &dir_fd, &name, err);
  if (rc < 0) return rc;
  if (linkat(target_fd, target_name, dir_fd, name, 0) < 0)
    return failed(err, e->path, "make the hard link");
  return 0;
}

int tree_fifo(struct tree *t, const struct tree_entry *e, struct err *err)
{
  int dir_fd;
  const char *name;
  int rc = prepare(t, e, &dir_fd, &name, err);
  if (rc < 0) return rc;
  if (mkfifoat(dir_fd, name, 0600) < 0) return failed(err, e->path, "make the fifo");
  return set_attributes_at(t, e, dir_fd, name, err);
}

int tree_file(struct tree *t, const struct tree_entry *e, int *ret_fd, struct err *err)
{
  int dir_fd;
  const char *name;
  int rc = prepare(t, e, &dir_fd, &name, err);
  if (rc < 0) return rc;
  *ret_fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  return *ret_fd < 0 ? failed(err, e->path, "write") : 0;
}

int tree_file_end(struct tree *t, const struct tree_entry *e, int fd, struct err *err)
{
  return set_attributes(t, e, fd, err);
}

int tree_whiteout(struct tree *t, const char *path, struct err *err)
{
  int dir_fd;
  const char *name;
  struct stat st;
  int rc = open_parent(t, path, &dir_fd, &name, err);
  if (rc < 0) return rc;
  if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
    return S_ISDIR(st.st_mode) ? tree_opaque(t, path, err) : 0;
  if (mknodat(dir_fd, name, S_IFCHR, makedev(0, 0)) < 0)
    return failed(err, path, "make the whiteout of");
  return 0;
}

int tree_opaque(struct tree *t, const char *path, struct err *err)
{
  cleanup_close int fd = -1;
  int rc = open_folder(t, path, 0, &fd, err);
  if (rc < 0) return rc;
  return set_opaque(t, fd) < 0 ? failed(err, path, "mark") : 0;
}

static bool xattr_kept(const char *name)
{
  if (strncmp(name, "user.", 5) == 0) return strncmp(name, "user.overlay.", 13) != 0;
  return strcmp(name, "security.capability") == 0 || strcmp(name, "system.posix_acl_access") == 0 ||
         strcmp(name, "system.posix_acl_default") == 0;
}

int tree_xattr(struct tree *t, const char *path, const char *name, const void *value, size_t len,
               struct err *err)
{
  if (!xattr_kept(name)) return 0;
  int dir_fd;
  const char *last;
  int rc = open_parent(t, path, &dir_fd, &last, err);
  if (rc < 0) return rc;
  struct stat st;
  if (fstatat(dir_fd, *last ? last : ".", &st, AT_SYMLINK_NOFOLLOW) < 0)
    return failed(err, path, "look at");
  if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return 0;
  cleanup_close int fd =
      openat(dir_fd, *last ? last : ".", O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return failed(err, path, "open");
  if (fsetxattr(fd, name, value, len, 0) == 0) return 0;
  /* File systems without them, and values the kernel finds malformed, are no reason to fail. */
  if (errno == ENOTSUP || errno == EINVAL || errno == ERANGE || errno == E2BIG) return 0;
  return failed(err, path, "set an attribute of");
}

int tree_folder_time(struct tree *t, const char *path, const struct timespec *mtime,
                     struct err *err)
{
  cleanup_close int fd = open_in_root(t, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0)
    return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
               ? 0
               : failed(err, path, "open"); /* replaced later in the archive */
  struct timespec times[2] = {*mtime, *mtime};
  return futimens(fd, times) < 0 ? failed(err, path, "set the time of") : 0;
}

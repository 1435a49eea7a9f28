/* Writing a layer's files from what a stranger's archive says.
 *
 * Owns a descriptor of the folder written to last. Every path is resolved by the kernel with
 * openat2(RESOLVE_IN_ROOT): absolute links and ".." inside the layer lead nowhere but to its own
 * root. The last part of a path is never followed: files are made with O_EXCL after what was there
 * is removed. Where a folder really is, and so how deep, is asked of the kernel once it is open.
 * Device nodes are never made, except the whiteout (a character device 0:0), which means to an
 * overlay "nothing here".
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
  size_t root_len;       /* of the path that the kernel has for the root */
  char parent[PATH_MAX]; /* path of parent_fd, free of links */
  int parent_fd;         /* -1 = none yet */
};

struct tree *tree_new(const struct tree_conf *conf)
{
  struct tree *t = xcalloc(1, sizeof *t);
  char link[32], root[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", conf->root_fd);
  ssize_t n = readlink(link, root, sizeof root);
  t->conf = *conf;
  t->root_len = n < 0 ? 0 : (size_t)n;
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

/* Where the kernel has a folder: below the root, by no link. */
static int real_path(const struct tree *t, int fd, char out[PATH_MAX], struct err *err)
{
  char link[32], full[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, full, sizeof full - 1);
  if (n < 0 && errno == ENAMETOOLONG) return refused(err, t->parent, "is too long");
  if (n < 0) return failed(err, t->parent, "find");
  full[n] = '\0';
  return tree_path(full + t->root_len, out, err);
}

/* What the target of a link at path means, read lexically: it does not exist, so that no link
 * inside it can mean anything else. */
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

/* What is in the place of the missing folder dir_fd/name, out of the way. A link: 1, its target in
 * link. A whiteout: the folder has to be opaque. */
static int clear_missing(const char *path, int dir_fd, const char *name, char link[PATH_MAX],
                         bool *ret_opaque, struct err *err)
{
  struct stat st;
  *ret_opaque = false;
  if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return 0;
  if (S_ISLNK(st.st_mode)) {
    ssize_t n = readlinkat(dir_fd, name, link, PATH_MAX - 1);
    if (n < 0) return failed(err, path, "read");
    link[n] = '\0';
    return 1;
  }
  *ret_opaque = is_whiteout(&st);
  if (!*ret_opaque) return refused(err, path, "is used as a folder and is none");
  return unlinkat(dir_fd, name, 0) < 0 ? failed(err, path, "replace") : 0;
}

/* Makes the folder path, called name in the folder *fd, and moves *fd to it. A link: as above. */
static int make_missing(struct tree *t, const char *path, const char *name, int *fd,
                        char link[PATH_MAX], struct err *err)
{
  bool opaque;
  int rc = clear_missing(path, *fd, name, link, &opaque, err);
  if (rc != 0) return rc;
  if (make_folder(t, *fd, name, opaque) < 0) return failed(err, path, "make the folder");
  if (t->conf.on_implied && !opaque) rc = t->conf.on_implied(t->conf.data, path, err);
  if (rc < 0) return rc;
  int next = open_folder_at(*fd, name);
  if (next < 0) return failed(err, path, "open");
  close(*fd);
  *fd = next;
  return 0;
}

/* Opens the longest beginning of path that is a folder by now. */
static int open_beginning(const struct tree *t, const char *path, size_t *ret_len)
{
  char part[PATH_MAX];
  snprintf(part, sizeof part, "%s", path);
  for (;;) {
    int fd = open_in_root(t, part, O_RDONLY | O_DIRECTORY);
    *ret_len = strlen(part);
    if (fd >= 0 || *part == '\0' || (errno != ENOENT && errno != ENOTDIR)) return fd;
    char *slash = strrchr(part, '/');
    *(slash ? slash : part) = '\0';
  }
}

/* One path out of two; with the bounds of tree_path. */
static int join(const char *stem, const char *rest, char out[PATH_MAX], struct err *err)
{
  char whole[2 * PATH_MAX];
  snprintf(whole, sizeof whole, "%s/%s", stem, rest);
  return tree_path(whole, out, err);
}

/* Makes what of the path is missing in the folder *fd, which is what its first `have` characters
 * mean, and moves *fd to the last. Where a link leads to nothing yet: 1, and path is then where the
 * folder has to be. How deep that is the kernel has to say: behind a link it is deeper than its
 * name. */
static int make_rest(struct tree *t, char path[PATH_MAX], size_t have, int *fd, struct err *err)
{
  char real[PATH_MAX], to[PATH_MAX], link[PATH_MAX];
  int rc = real_path(t, *fd, real, err);
  if (rc == 0) rc = join(real, path + have, to, err);
  if (rc < 0) return rc;
  for (char *name = to + strlen(real) + (*real != '\0'), *end; *name; name = end) {
    end = name + strcspn(name, "/");
    char after = *end;
    *end = '\0';
    rc = make_missing(t, to, name, fd, link, err);
    if (rc == 1) rc = link_target(to, link, real, err) < 0 ? -EBADMSG : 1;
    *end = after;
    if (rc == 1) rc = join(real, end, path, err) < 0 ? -EBADMSG : 1;
    if (rc != 0) return rc;
    end += after == '/';
  }
  return 0;
}

/* Opens a folder of the layer by its path, making what is missing. */
static int open_folder(struct tree *t, const char *path, int *ret_fd, struct err *err)
{
  char to[PATH_MAX];
  snprintf(to, sizeof to, "%s", path);
  for (int links = 0; links <= LINKS_MAX; links++) {
    size_t have;
    cleanup_close int fd = open_beginning(t, to, &have);
    if (fd < 0) return failed(err, path, "open");
    int rc = to[have] ? make_rest(t, to, have, &fd, err) : 0;
    if (rc == 0) *ret_fd = take_fd(&fd);
    if (rc <= 0) return rc;
  }
  return refused(err, path, "is a link in a loop");
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
    int rc = open_folder(t, t->parent, &t->parent_fd, err);
    if (rc == 0) rc = real_path(t, t->parent_fd, t->parent, err);
    if (rc < 0) {
      forget_parent(t);
      return rc;
    }
  }
  *ret_fd = t->parent_fd;
  return 0;
}

int tree_resolve(struct tree *t, const char *path, char out[PATH_MAX], struct err *err)
{
  const char *name;
  int fd, rc = open_parent(t, path, &fd, &name, err);
  return rc < 0 ? rc : join(t->parent, name, out, err);
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

int tree_hardlink(struct tree *t, const struct tree_entry *e, char ret_target[PATH_MAX],
                  struct err *err)
{
  char target[PATH_MAX], real[PATH_MAX];
  int dir_fd;
  const char *name;
  if (!e->link) return refused(err, e->path, "is a link to nothing");
  int rc = tree_path(e->link, target, err);
  if (rc < 0) return rc;
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
  rc = real_path(t, target_fd, real, err);
  if (rc == 0) rc = join(real, target_name, ret_target, err);
  if (rc < 0 || strcmp(ret_target, e->path) == 0) return rc; /* to itself: nothing to do */
  rc = prepare(t, e, &dir_fd, &name, err);
  if (rc < 0) return rc;
  return linkat(target_fd, target_name, dir_fd, name, 0) < 0
             ? failed(err, e->path, "make the hard link")
             : 0;
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
  int rc = open_folder(t, path, &fd, err);
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

/* Folders that a layer implies.
 *
 * A layer may hold usr/bin/tool without saying anything about usr and usr/bin. Applied on top of
 * the layers below those keep what they had; in an overlay the upper folder's owner, mode and time
 * win. So such folders (lines "i" of the layer's list) take over what the next layer below says
 * about the same path. They have time 0 until then, which is how a folder that was settled already,
 * for another image with the same layer, is known: it is left alone. Layers are built on one stack
 * of parents, so what it took over then is right now. The same goes for what a layer hides whose
 * root is opaque. */
#include "image/folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/config.h"
#include "image/list.h"
#include "image/store.h"

enum found { FOUND_NOTHING, FOUND_FOLDER, FOUND_END };

struct settling {
  struct image_store *store;
  const struct image_record *record;
  size_t layer;                 /* index of the layer at hand */
  struct image_strings implied; /* its paths */
  struct image_strings said;    /* paths of folders that entries describe */
};

static int note(void *data, const struct list_line *line, struct err *err)
{
  (void)err;
  struct settling *s = data;
  if (line->type == 'i') image_strings_add(&s->implied, line->path);
  if (line->type == 'd') image_strings_add(&s->said, line->path);
  return 0;
}

static int compare(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A stranger says how many there are: nothing here may take the square of that. */
static bool is_said(const struct image_strings *said, const char *path)
{
  return said->n && bsearch(&path, said->v, said->n, sizeof *said->v, compare);
}

/* Opens a folder of a layer without following any link. */
static int open_path(int layer_fd, const char *path)
{
  struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
  return (int)syscall(SYS_openat2, layer_fd, *path ? path : ".", &how, sizeof how);
}

static const char *opaque_name(const struct image_store *store)
{
  return image_store_user_xattrs(store) ? "user.overlay.opaque" : "trusted.overlay.opaque";
}

static bool is_opaque(int fd, const struct image_store *store)
{
  char value;
  return fgetxattr(fd, opaque_name(store), &value, 1) == 1 && value == 'y';
}

/* What a layer says about path: its folder, nothing, or that lower layers do not count. */
static enum found look(int layer_fd, const char *path, const struct image_store *store, int *ret_fd)
{
  char part[PATH_MAX];
  for (const char *end = path;; end++) {
    end += strcspn(end, "/");
    snprintf(part, sizeof part, "%.*s", (int)(end - path), path);
    cleanup_close int fd = open_path(layer_fd, part);
    if (fd < 0) return errno == ENOENT ? FOUND_NOTHING : FOUND_END;
    if (*end == '\0') {
      *ret_fd = take_fd(&fd);
      return FOUND_FOLDER;
    }
    if (is_opaque(fd, store)) {
      cleanup_close int last = open_path(layer_fd, path);
      *ret_fd = take_fd(&last);
      return *ret_fd < 0 ? FOUND_END : FOUND_FOLDER;
    }
  }
}

static int copy_attributes(int from, int to, const char *path, struct err *err)
{
  struct stat st;
  if (fstat(from, &st) < 0 || fchown(to, st.st_uid, st.st_gid) < 0 ||
      fchmod(to, st.st_mode & 07777) < 0)
    return err_set(err, ERR_ENGINE_UNAVAILABLE, errno,
                   "cannot set the attributes of \"%.200s\": %s", path, strerror(errno));
  static const char *const names[] = {"system.posix_acl_access", "system.posix_acl_default"};
  char value[4096];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    ssize_t n = fgetxattr(from, names[i], value, sizeof value);
    if (n > 0) fsetxattr(to, names[i], value, (size_t)n, 0);
  }
  struct timespec times[2] = {st.st_atim, st.st_mtim};
  return futimens(to, times) < 0 ? -errno : 0;
}

static int settle_folder(struct settling *s, int layer_fd, const char *path, struct err *err)
{
  struct stat st;
  cleanup_close int fd = open_path(layer_fd, path);
  if (fd < 0 || fstat(fd, &st) < 0 || st.st_mtim.tv_sec != 0) return 0; /* replaced, or settled */
  if (is_opaque(fd, s->store)) return 0;
  for (size_t i = s->layer; i-- > 0;) {
    cleanup_close int lower = image_store_open_layer(s->store, s->record->layers[i], err);
    cleanup_close int found = -1;
    if (lower < 0) return lower;
    enum found what = look(lower, path, s->store, &found);
    if (what == FOUND_FOLDER) return copy_attributes(found, fd, path, err);
    if (what == FOUND_END) return 0;
  }
  return 0;
}

static int hide_name(const struct settling *s, int layer_fd, const char *name)
{
  struct stat st;
  if (fstatat(layer_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return mknodat(layer_fd, name, S_IFCHR, 0) < 0 && errno != EEXIST ? -errno : 0;
  cleanup_close int fd = S_ISDIR(st.st_mode) ? open_path(layer_fd, name) : -1;
  return fd < 0 ? 0 : fsetxattr(fd, opaque_name(s->store), "y", 1, 0);
}

static int hide_names(const struct settling *s, int layer_fd, int lower_fd)
{
  int own = openat(lower_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = own < 0 ? NULL : fdopendir(own);
  if (!d) return -errno;
  int rc = 0;
  for (struct dirent *e; rc == 0 && (e = readdir(d));)
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
      rc = hide_name(s, layer_fd, e->d_name);
  closedir(d);
  return rc;
}

/* An overlay does not ask whether the root of a layer is opaque: such a layer hides by name. */
static int hide_below(struct settling *s, int layer_fd, struct err *err)
{
  struct stat st;
  if (!is_opaque(layer_fd, s->store) || fstat(layer_fd, &st) < 0) return 0;
  int rc = 0;
  for (size_t i = 0; rc == 0 && i < s->layer; i++) {
    cleanup_close int lower = image_store_open_layer(s->store, s->record->layers[i], err);
    if (lower < 0) return lower;
    rc = hide_names(s, layer_fd, lower);
  }
  struct timespec times[2] = {st.st_atim, st.st_mtim};
  if (rc == 0 && futimens(layer_fd, times) < 0) rc = -errno;
  return rc == 0 ? 0
                 : err_set(err, ERR_ENGINE_UNAVAILABLE, -rc,
                           "cannot hide what is below a layer: %s", strerror(-rc));
}

int image_folders_settle(struct image_store *store, const struct image_record *r, struct err *err)
{
  int rc = 0;
  for (size_t i = 1; rc == 0 && i < r->layers_n; i++) {
    struct settling s = {.store = store, .record = r, .layer = i};
    cleanup_close int list_fd = image_store_open_list(store, r->layers[i], err);
    cleanup_close int layer_fd = image_store_open_layer(store, r->layers[i], err);
    if (list_fd < 0 || layer_fd < 0) return -ENOENT;
    rc = hide_below(&s, layer_fd, err);
    if (rc == 0) rc = list_read(list_fd, note, &s, err);
    if (s.said.n) qsort(s.said.v, s.said.n, sizeof *s.said.v, compare);
    for (size_t k = 0; rc == 0 && k < s.implied.n; k++)
      if (!is_said(&s.said, s.implied.v[k])) rc = settle_folder(&s, layer_fd, s.implied.v[k], err);
    image_strings_free(&s.implied);
    image_strings_free(&s.said);
  }
  return rc;
}

/* Verifying the store: every layer of an image against the list that was written when it was
 * unpacked, every document against its digest.
 *
 * The list's last line of a path says what must be there; entries that no line accounts for are
 * faults too. Whiteouts and overlay marks are made by us from names the list does not hold, so a
 * character device 0:0 is never a fault. Faults are reported one by one and counted; only what
 * keeps us from looking is an error. */
#include "image/verify.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "image/digest.h"
#include "image/list.h"
#include "image/part.h"
#include "image/store.h"

#define READ_BYTES (256 * 1024)

struct expected {
  char *path; /* owned; first: compared by the tree */
  char *link; /* owned */
  char type;
  unsigned mode, uid, gid;
  uint64_t size;
  struct timespec mtime;
  char digest[IMAGE_DIGEST_SIZE];
  bool seen;
};

struct verifying {
  const struct image_verify_conf *conf;
  const char *layer; /* its diff_id */
  int layer_fd;
  void *entries; /* tsearch tree of struct expected, owned */
  struct image_digest *digest;
  char *chunk; /* READ_BYTES, owned */
};

static void fault(struct verifying *v, const char *path, const char *what)
{
  struct buf text = {0};
  buf_printf(&text, "layer %.12s: /%s: %s", v->layer + 7, path, what);
  (*v->conf->ret_faults)++;
  if (v->conf->on_fault) v->conf->on_fault(v->conf->data, text.data);
  buf_free(&text);
}

static int by_path(const void *a, const void *b)
{
  return strcmp(((const struct expected *)a)->path, ((const struct expected *)b)->path);
}

static void free_expected(void *item)
{
  struct expected *e = item;
  free(e->path);
  free(e->link);
  free(e);
}

/* A hard link is what its target is. */
static void copy_target(const struct verifying *v, struct expected *e, const char *target)
{
  while (*target == '/' || (target[0] == '.' && target[1] == '/')) target += *target == '/' ? 1 : 2;
  struct expected key = {.path = (char *)(uintptr_t)target};
  struct expected *const *found = tfind(&key, &v->entries, by_path);
  if (!found) return;
  char *path = e->path;
  *e = **found;
  e->path = path;
  e->link = (*found)->link ? xstrdup((*found)->link) : NULL;
}

static int note(void *data, const struct list_line *line, struct err *err)
{
  (void)err;
  struct verifying *v = data;
  if (line->type == '-') return 0;
  struct expected *e = xcalloc(1, sizeof *e);
  *e = (struct expected){.path = xstrdup(line->path),
                         .link = xstrdup(line->link),
                         .type = line->type,
                         .mode = line->mode,
                         .uid = line->uid,
                         .gid = line->gid,
                         .size = line->size,
                         .mtime = line->mtime};
  memcpy(e->digest, line->digest, sizeof e->digest);
  struct expected **slot = tsearch(e, &v->entries, by_path);
  if (!slot) abort();
  if (line->type == 'h') {
    free(e->link);
    e->link = NULL;
    copy_target(v, e, line->link);
  }
  if (*slot != e) {
    free_expected(*slot);
    *slot = e;
  }
  return 0;
}

static char type_of(mode_t mode)
{
  return S_ISDIR(mode)    ? 'd'
         : S_ISLNK(mode)  ? 'l'
         : S_ISREG(mode)  ? 'f'
         : S_ISFIFO(mode) ? 'p'
                          : '?';
}

static int check_content(struct verifying *v, int dir_fd, const char *name,
                         const struct expected *e, struct err *err)
{
  cleanup_close int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : 1;
  while (n > 0) {
    n = read(fd, v->chunk, READ_BYTES);
    if (n > 0) image_digest_add(v->digest, v->chunk, (size_t)n);
  }
  char digest[IMAGE_DIGEST_SIZE];
  image_digest_end(v->digest, digest);
  if (n < 0 && errno == EIO)
    fault(v, e->path, "cannot be read from the disk");
  else if (n < 0)
    return err_set(err, ERR_INTERNAL, errno, "cannot read %s: %s", e->path, strerror(errno));
  else if (strcmp(digest, e->digest) != 0)
    fault(v, e->path, "its content has changed");
  return 0;
}

static int check_link(struct verifying *v, int dir_fd, const char *name, const struct expected *e)
{
  char target[PATH_MAX];
  ssize_t n = readlinkat(dir_fd, name, target, sizeof target - 1);
  target[n < 0 ? 0 : n] = '\0';
  if (n < 0 || strcmp(target, e->link ? e->link : "") != 0)
    fault(v, e->path, "the link leads elsewhere");
  return 0;
}

static int check_entry(struct verifying *v, int dir_fd, const char *name, const char *path,
                       const struct stat *st, struct err *err)
{
  struct expected key = {.path = (char *)(uintptr_t)path};
  struct expected *const *found = tfind(&key, &v->entries, by_path);
  if (S_ISCHR(st->st_mode) && st->st_rdev == 0) return 0;
  if (!found) {
    fault(v, path, "does not belong here");
    return 0;
  }
  struct expected *e = *found;
  e->seen = true;
  if (e->type == 'i') {
    if (!S_ISDIR(st->st_mode)) fault(v, path, "is no folder any more");
    return 0;
  }
  if (type_of(st->st_mode) != e->type) {
    fault(v, path, "is of another type");
    return 0;
  }
  if (st->st_uid != e->uid || st->st_gid != e->gid) fault(v, path, "has another owner");
  if (e->type != 'l' && (st->st_mode & 07777) != e->mode) fault(v, path, "has another mode");
  if (st->st_mtim.tv_sec != e->mtime.tv_sec) fault(v, path, "has another time");
  if (e->type == 'l') return check_link(v, dir_fd, name, e);
  if (e->type != 'f') return 0;
  if ((uint64_t)st->st_size == e->size) return check_content(v, dir_fd, name, e, err);
  fault(v, path, "has another size");
  return 0;
}

static int walk(struct verifying *v, int dir_fd, const char *path, struct err *err)
{
  int own = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = own < 0 ? NULL : fdopendir(own);
  if (!d) {
    if (own >= 0) close(own);
    return err_set(err, ERR_INTERNAL, errno, "cannot read /%s: %s", path, strerror(errno));
  }
  int rc = 0;
  for (struct dirent *e; rc == 0 && (e = readdir(d));) {
    struct stat st;
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    struct buf below = {0};
    buf_printf(&below, "%s%s%s", path, *path ? "/" : "", e->d_name);
    if (fstatat(own, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
      rc = err_set(err, ERR_INTERNAL, errno, "cannot look at %s", below.data);
    if (rc == 0) rc = check_entry(v, own, e->d_name, below.data, &st, err);
    if (rc == 0 && S_ISDIR(st.st_mode)) {
      cleanup_close int fd =
          openat(own, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      rc = fd < 0 ? err_set(err, ERR_INTERNAL, errno, "cannot open %s", below.data)
                  : walk(v, fd, below.data, err);
    }
    buf_free(&below);
  }
  closedir(d);
  return rc;
}

static void report_missing(const void *node, VISIT visit, void *data)
{
  const struct expected *e = *(struct expected *const *)node;
  if ((visit == postorder || visit == leaf) && !e->seen) fault(data, e->path, "is missing");
}

static int verify_layer(struct verifying *v, struct err *err)
{
  struct image_store *store = v->conf->store;
  cleanup_close int list_fd = image_store_open_list(store, v->layer, err);
  cleanup_close int layer_fd = image_store_open_layer(store, v->layer, err);
  if (list_fd < 0 || layer_fd < 0) {
    (*v->conf->ret_faults)++;
    if (v->conf->on_fault) v->conf->on_fault(v->conf->data, err->msg);
    return 0;
  }
  struct stat st;
  int rc = list_read(list_fd, note, v, err);
  if (rc == 0 && fstat(layer_fd, &st) < 0) rc = -errno;
  if (rc == 0) rc = check_entry(v, layer_fd, ".", "", &st, err);
  if (rc == 0) rc = walk(v, layer_fd, "", err);
  if (rc == 0) twalk_r(v->entries, report_missing, v);
  tdestroy(v->entries, free_expected);
  v->entries = NULL;
  return rc;
}

static int verify_blob(struct verifying *v, const char *digest, struct err *err)
{
  struct buf text = {0};
  char now[IMAGE_DIGEST_SIZE] = "";
  int rc = image_store_get_blob(v->conf->store, digest, &text, err);
  if (rc == 0) image_digest_of(text.data, text.len, now);
  if (strcmp(now, digest) != 0) {
    struct buf line = {0};
    buf_printf(&line, "document %s is %s", digest, rc == 0 ? "damaged" : "missing");
    (*v->conf->ret_faults)++;
    if (v->conf->on_fault) v->conf->on_fault(v->conf->data, line.data);
    buf_free(&line);
  }
  buf_free(&text);
  return 0;
}

int image_verify(const struct image_verify_conf *conf, struct err *err)
{
  struct verifying v = {.conf = conf, .digest = image_digest_new(), .chunk = xmalloc(READ_BYTES)};
  int rc = verify_blob(&v, conf->record->digest, err);
  if (rc == 0) rc = verify_blob(&v, conf->record->config, err);
  for (size_t i = 0; rc == 0 && i < conf->record->layers_n; i++) {
    v.layer = conf->record->layers[i];
    rc = verify_layer(&v, err);
  }
  image_digest_free(v.digest);
  free(v.chunk);
  return rc;
}

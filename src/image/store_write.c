/* The image store: adding.
 *
 * A layer is unpacked in a stage (tmp/NAME, locked by its process), then renamed into place: first
 * its list as ID~BOOT, which counts only until the next boot, then its tree. When the image is
 * added one syncfs puts all its layers on disk; only then do the lists get their lasting names, and
 * after them come the image's record and its reference. So after a power cut a layer either counts
 * nowhere or is whole, and a reference never names what is not there. All of it happens under the
 * shared lock, so that the collector never sees a thing between two of its names. */
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
#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/val.h"
#include "image/store_internal.h"

static int failed(struct image_store *s, struct err *err, const char *what)
{
  int rc = err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot %s in %s: %s", what, s->root,
                   strerror(errno));
  if (rc == -ENOSPC || rc == -EDQUOT)
    err_hint(err, "make room: regolith image gc, or regolith image rm NAME");
  return rc;
}

static int write_all(int fd, const void *data, size_t len)
{
  const char *p = data;
  while (len > 0) {
    ssize_t n = write(fd, p, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    p += n;
    len -= (size_t)n;
  }
  return 0;
}

int store_fsync_dir(struct image_store *s, const char *path, struct err *err)
{
  cleanup_close int fd = openat(s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) < 0) return failed(s, err, "flush a folder");
  return 0;
}

int store_write(struct image_store *s, const char *path, const void *data, size_t len,
                struct err *err)
{
  char tmp[64] = "tmp/f-", folder[PATH_MAX];
  id_random(tmp + strlen(tmp), 16);
  cleanup_close int fd = openat(s->fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return failed(s, err, "write");
  if (write_all(fd, data, len) < 0 || fsync(fd) < 0 || renameat(s->fd, tmp, s->fd, path) < 0) {
    int rc = failed(s, err, "write");
    unlinkat(s->fd, tmp, 0);
    return rc;
  }
  snprintf(folder, sizeof folder, "%s", path);
  char *slash = strrchr(folder, '/');
  if (slash)
    *slash = '\0';
  else
    strcpy(folder, ".");
  return store_fsync_dir(s, folder, err);
}

int image_store_put_blob(struct image_store *s, const char *digest, const void *data, size_t len,
                         struct err *err)
{
  char path[128];
  snprintf(path, sizeof path, "blobs/%.64s", digest + 7);
  cleanup_close int lock = store_lock(s, LOCK_SH, err);
  if (lock < 0) return lock;
  struct stat st;
  if (fstatat(s->fd, path, &st, 0) == 0 && (size_t)st.st_size == len) return 0;
  return store_write(s, path, data, len, err);
}

int image_stage_new(struct image_store *s, struct image_stage *ret, struct err *err)
{
  *ret = (struct image_stage){.dir_fd = -1, .tree_fd = -1, .list_fd = -1};
  cleanup_close int lock = store_lock(s, LOCK_SH, err);
  if (lock < 0) return lock;
  id_random(ret->name, 16);
  char path[64];
  snprintf(path, sizeof path, "tmp/%s", ret->name);
  if (mkdirat(s->fd, path, 0700) < 0) return failed(s, err, "unpack");
  ret->dir_fd = openat(s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (ret->dir_fd < 0 || flock(ret->dir_fd, LOCK_EX | LOCK_NB) < 0 ||
      mkdirat(ret->dir_fd, "tree", 0755) < 0 ||
      (ret->tree_fd = openat(ret->dir_fd, "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
      (ret->list_fd = openat(ret->dir_fd, "list", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) <
          0 ||
      fchmod(ret->tree_fd, 0755) < 0) {
    int rc = failed(s, err, "unpack");
    image_stage_drop(s, ret);
    return rc;
  }
  return 0;
}

void image_stage_drop(struct image_store *s, struct image_stage *stage)
{
  if (stage->tree_fd >= 0) close(stage->tree_fd);
  if (stage->list_fd >= 0) close(stage->list_fd);
  if (stage->name[0]) {
    char path[64];
    snprintf(path, sizeof path, "tmp/%s", stage->name);
    image_tree_remove(s->fd, path, NULL); /* what stays is removed by the next collection */
  }
  if (stage->dir_fd >= 0) close(stage->dir_fd);
  *stage = (struct image_stage){.dir_fd = -1, .tree_fd = -1, .list_fd = -1};
}

static int write_head(struct image_store *s, struct image_stage *stage, const char *diff_id,
                      uint64_t bytes, uint64_t entries, struct err *err)
{
  char head[IMAGE_LIST_HEAD];
  memset(head, ' ', sizeof head);
  int n = snprintf(head, sizeof head, "#layer 1 %s bytes=%llu entries=%llu", diff_id,
                   (unsigned long long)bytes, (unsigned long long)entries);
  head[n] = ' ';
  head[sizeof head - 1] = '\n';
  if (pwrite(stage->list_fd, head, sizeof head, 0) != (ssize_t)sizeof head)
    return failed(s, err, "store a layer");
  return 0;
}

static int put_layer(struct image_store *s, struct image_stage *stage, const char *diff_id,
                     struct err *err)
{
  char id[IMAGE_LAYER_ID_SIZE], list[128], tree[128];
  image_layer_id(diff_id, id);
  snprintf(list, sizeof list, "lists/%s~%s", id, s->boot);
  snprintf(tree, sizeof tree, "layers/%s", id);
  cleanup_close int one = store_lock_file(s, "commit", LOCK_EX, err);
  if (one < 0) return one;
  if (store_has_layer(s, diff_id)) return 0;
  /* What lies there without a list that counts is of an earlier boot, or half removed. */
  if (renameat(s->fd, tree, stage->dir_fd, "stale") < 0 && errno != ENOENT)
    return failed(s, err, "replace a layer");
  if (renameat(stage->dir_fd, "tree", s->fd, tree) < 0 ||
      renameat(stage->dir_fd, "list", s->fd, list) < 0)
    return failed(s, err, "store a layer");
  return 0;
}

int image_stage_commit(struct image_store *s, struct image_stage *stage, const char *diff_id,
                       uint64_t bytes, uint64_t entries, struct err *err)
{
  cleanup_close int lock = store_lock(s, LOCK_SH, err);
  if (lock < 0) return lock;
  int rc = write_head(s, stage, diff_id, bytes, entries, err);
  if (rc == 0) rc = put_layer(s, stage, diff_id, err);
  image_stage_drop(s, stage);
  return rc;
}

/* Everything the image needs is on disk now: its layers count for good. */
static int settle_layers(struct image_store *s, const struct image_record *r, struct err *err)
{
  if (syncfs(s->fd) < 0) return failed(s, err, "flush");
  for (size_t i = 0; i < r->layers_n; i++) {
    char id[IMAGE_LAYER_ID_SIZE], from[128], to[128];
    image_layer_id(r->layers[i], id);
    if (!store_has_layer(s, r->layers[i]))
      return err_set(err, ERR_CONFLICT, ENOENT, "layer %s vanished while the image was added", id);
    snprintf(from, sizeof from, "lists/%s~%s", id, s->boot);
    snprintf(to, sizeof to, "lists/%s", id);
    if (renameat(s->fd, from, s->fd, to) < 0 && errno != ENOENT)
      return failed(s, err, "store a layer");
  }
  return store_fsync_dir(s, "lists", err);
}

static int write_record(struct image_store *s, const struct image_record *r, struct err *err)
{
  struct val v = val_map(), layers = val_list();
  for (size_t i = 0; i < r->layers_n; i++) val_push(&layers, val_str(r->layers[i]));
  val_add(&v, "digest", val_str(r->digest));
  val_add(&v, "config", val_str(r->config));
  val_add(&v, "platform", val_str(r->platform));
  val_add(&v, "added_at", val_int(r->added_at ? r->added_at : clock_wall_s()));
  val_add(&v, "layers", layers);
  struct buf text = {0};
  json_print(&text, &v);
  val_free(&v);
  char path[128];
  snprintf(path, sizeof path, "images/%s", r->digest + 7);
  int rc = store_write(s, path, text.data, text.len, err);
  buf_free(&text);
  return rc;
}

static int make_ref_folders(struct image_store *s, const char *path, struct err *err)
{
  char copy[PATH_MAX];
  snprintf(copy, sizeof copy, "%s", path);
  for (char *p = copy; *p; p++) {
    if (*p != '/') continue;
    *p = '\0';
    if (mkdirat(s->fd, copy, 0700) < 0 && errno != EEXIST) return failed(s, err, "name an image");
    *p = '/';
  }
  return 0;
}

static int write_ref(struct image_store *s, const struct image_ref *ref, const char *digest,
                     struct err *err)
{
  char path[PATH_MAX], line[IMAGE_DIGEST_SIZE + 1];
  int rc = store_ref_path(ref, path, err);
  if (rc < 0) return rc;
  int n = snprintf(line, sizeof line, "%s\n", digest);
  /* rm takes away folders that got empty: once more when one vanished under us */
  for (int attempt = 0; attempt < 3; attempt++) {
    rc = make_ref_folders(s, path, err);
    if (rc == 0) rc = store_write(s, path, line, (size_t)n, err);
    if (rc != -ENOENT) break;
  }
  return rc;
}

int image_store_tag(struct image_store *s, const struct image_ref *ref, const char *digest,
                    struct err *err)
{
  cleanup_close int lock = store_lock(s, LOCK_SH, err);
  return lock < 0 ? lock : write_ref(s, ref, digest, err);
}

int image_store_add(struct image_store *s, const struct image_record *r,
                    const struct image_ref *ref, struct err *err)
{
  cleanup_close int lock = store_lock(s, LOCK_SH, err);
  if (lock < 0) return lock;
  int rc = settle_layers(s, r, err);
  if (rc == 0) rc = write_record(s, r, err);
  if (rc == 0 && ref) rc = write_ref(s, ref, r->digest, err);
  return rc;
}

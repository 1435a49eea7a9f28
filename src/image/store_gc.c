/* The image store: removing.
 *
 * Deciding happens under the exclusive lock and is short: references and records of doomed images
 * are unlinked, doomed trees are renamed into a stage of this process. The long part, removing the
 * trees, comes after the lock is released. On a disk that is too full for a stage they are removed
 * where they are, under the lock: that is when room is needed most. The order is reference, record,
 * layer, so that after a crash in between only unnamed things are left, which the next collection
 * takes. What a lease names stays; a lease whose lock can be had is of a dead process and goes. */
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
#include "image/config.h"
#include "image/store_internal.h"

#define TREE_DEPTH_MAX 300

struct collection {
  struct image_store *store;
  struct image_gc_result *result;
  struct image_record *images; /* owned: all of the store */
  bool *doomed;                /* owned: per image */
  size_t images_n;
  struct image_strings leased;       /* digests of images and layers */
  struct image_strings refs, ref_to; /* names and what they stand for, side by side */
  struct image_stage stage;          /* where doomed trees go; without a name: there is none */
  size_t moved;                      /* trees in it */
};

static bool contains(const struct image_strings *set, const char *s)
{
  for (size_t i = 0; i < set->n; i++)
    if (strcmp(set->v[i], s) == 0) return true;
  return false;
}

/* Calls fn for every entry of a folder below the root. */
static int each_entry(struct collection *c, const char *folder,
                      int (*fn)(struct collection *c, const char *name, struct err *err),
                      struct err *err)
{
  int fd = openat(c->store->fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    if (fd >= 0) close(fd);
    return err_set(err, ERR_INTERNAL, errno, "cannot read %s/%s", c->store->root, folder);
  }
  int rc = 0;
  for (struct dirent *e; rc == 0 && (e = readdir(d));)
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) rc = fn(c, e->d_name, err);
  closedir(d);
  return rc;
}

static int read_lease(struct collection *c, const char *name, struct err *err)
{
  char path[300];
  snprintf(path, sizeof path, "leases/%s", name);
  cleanup_close int fd = openat(c->store->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return 0;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
    unlinkat(c->store->fd, path, 0);
    return 0;
  }
  struct buf text = {0};
  int rc = store_read(c->store, path, &text, err);
  for (char *save = NULL, *line = rc == 0 ? strtok_r(text.data, "\n", &save) : NULL; line;
       line = strtok_r(NULL, "\n", &save)) {
    const char *digest = strchr(line, ' ');
    if (digest) image_strings_add(&c->leased, digest + 1);
  }
  buf_free(&text);
  return rc == -ENOENT ? 0 : rc;
}

static int note_image(void *data, const struct image_record *r, struct err *err)
{
  (void)err;
  struct collection *c = data;
  c->images = xrealloc(c->images, (c->images_n + 1) * sizeof *c->images);
  c->doomed = xrealloc(c->doomed, (c->images_n + 1) * sizeof *c->doomed);
  struct image_record *copy = &c->images[c->images_n];
  *copy = *r;
  copy->layers = xmemdup(r->layers, (r->layers_n + 1) * sizeof *r->layers);
  c->doomed[c->images_n++] = false;
  return 0;
}

static int note_ref(void *data, const char *ref, const char *digest, struct err *err)
{
  (void)err;
  struct collection *c = data;
  image_strings_add(&c->refs, ref);
  image_strings_add(&c->ref_to, digest);
  return 0;
}

static int survey(struct collection *c, struct err *err)
{
  int rc = each_entry(c, "leases", read_lease, err);
  if (rc == 0) rc = image_store_each(c->store, note_image, c, err);
  if (rc == 0) rc = image_store_each_ref(c->store, note_ref, c, err);
  return rc;
}

/* Removes the file of a name, and folders that are empty now. */
static void remove_ref(struct collection *c, const char *ref)
{
  char path[PATH_MAX];
  const char *at = strrchr(ref, '@');
  const char *mark = at ? at : strrchr(ref, ':');
  if (!mark) return;
  snprintf(path, sizeof path, "refs/%.*s/%s", (int)(mark - ref), ref, mark);
  if (unlinkat(c->store->fd, path, 0) < 0) return;
  for (char *slash; (slash = strrchr(path, '/')) && slash != path + 4;) {
    *slash = '\0';
    if (unlinkat(c->store->fd, path, AT_REMOVEDIR) < 0) break;
  }
}

static void doom(struct collection *c, size_t i)
{
  const struct image_record *r = &c->images[i];
  for (size_t k = 0; k < c->refs.n; k++)
    if (strcmp(c->ref_to.v[k], r->digest) == 0) remove_ref(c, c->refs.v[k]);
  char path[128];
  snprintf(path, sizeof path, "images/%s", r->digest + 7);
  unlinkat(c->store->fd, path, 0);
  c->doomed[i] = true;
  c->result->images++;
}

static bool layer_wanted(const struct collection *c, const char *id)
{
  char other[IMAGE_LAYER_ID_SIZE];
  for (size_t i = 0; i < c->leased.n; i++) {
    image_layer_id(c->leased.v[i], other);
    if (strcmp(id, other) == 0) return true;
  }
  for (size_t i = 0; i < c->images_n; i++)
    for (size_t k = 0; !c->doomed[i] && k < c->images[i].layers_n; k++) {
      image_layer_id(c->images[i].layers[k], other);
      if (strcmp(id, other) == 0) return true;
    }
  return false;
}

static int take_away(struct collection *c, const char *path, struct err *err)
{
  char to[32];
  if (!c->stage.name[0]) return image_tree_remove(c->store->fd, path, err);
  snprintf(to, sizeof to, "%zu", c->moved++);
  if (renameat(c->store->fd, path, c->stage.dir_fd, to) == 0) return 0;
  return err_set(err, ERR_INTERNAL, errno, "cannot remove %s/%s: %s", c->store->root, path,
                 strerror(errno));
}

static int sweep_layer(struct collection *c, const char *name, struct err *err)
{
  if (layer_wanted(c, name)) return 0;
  char list[300], tree[300];
  uint64_t bytes = 0;
  char diff_id[IMAGE_DIGEST_SIZE];
  snprintf(diff_id, sizeof diff_id, "sha256:%.60s", name);
  image_store_layer_size(c->store, diff_id, &bytes, NULL);
  snprintf(list, sizeof list, "lists/%s", name);
  snprintf(tree, sizeof tree, "layers/%s", name);
  unlinkat(c->store->fd, list, 0);
  int rc = take_away(c, tree, err);
  if (rc < 0) return rc;
  c->result->layers++;
  c->result->bytes += bytes;
  return 0;
}

/* Lists that have no tree (a tree went to the stage), or are of another boot. */
static int sweep_list(struct collection *c, const char *name, struct err *err)
{
  (void)err;
  char tree[300], list[300];
  const char *mark = strchr(name, '~');
  snprintf(tree, sizeof tree, "layers/%.*s", mark ? (int)(mark - name) : 255, name);
  snprintf(list, sizeof list, "lists/%s", name);
  bool old = mark && strcmp(mark + 1, c->store->boot) != 0;
  if (old || faccessat(c->store->fd, tree, F_OK, 0) < 0) unlinkat(c->store->fd, list, 0);
  return 0;
}

static int sweep_blob(struct collection *c, const char *name, struct err *err)
{
  (void)err;
  for (size_t i = 0; i < c->images_n; i++)
    if (!c->doomed[i] &&
        (strcmp(c->images[i].digest + 7, name) == 0 || strcmp(c->images[i].config + 7, name) == 0))
      return 0;
  char digest[IMAGE_DIGEST_SIZE], path[300];
  snprintf(digest, sizeof digest, "sha256:%.64s", name);
  if (contains(&c->leased, digest)) return 0;
  snprintf(path, sizeof path, "blobs/%s", name);
  unlinkat(c->store->fd, path, 0);
  return 0;
}

/* Stages and files of processes that are gone. */
static int sweep_tmp(struct collection *c, const char *name, struct err *err)
{
  (void)err;
  char path[300];
  snprintf(path, sizeof path, "tmp/%s", name);
  if (strncmp(name, "f-", 2) == 0) { /* written under the lock, which we have */
    unlinkat(c->store->fd, path, 0);
    return 0;
  }
  cleanup_close int fd = openat(c->store->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) return 0;
  take_away(c, path, NULL);
  return 0;
}

static int sweep(struct collection *c, struct err *err)
{
  int rc = store_fsync_dir(c->store, "images", err);
  if (rc == 0) rc = each_entry(c, "layers", sweep_layer, err);
  if (rc == 0) rc = each_entry(c, "lists", sweep_list, err);
  if (rc == 0) rc = each_entry(c, "blobs", sweep_blob, err);
  if (rc == 0) rc = each_entry(c, "tmp", sweep_tmp, err);
  return rc;
}

static bool has_ref(const struct collection *c, const struct image_record *r)
{
  return contains(&c->ref_to, r->digest);
}

static void doom_unnamed(struct collection *c)
{
  for (size_t i = 0; i < c->images_n; i++)
    if (!has_ref(c, &c->images[i]) && !contains(&c->leased, c->images[i].digest)) doom(c, i);
}

/* The layers of all images that stay, each counted once. */
static uint64_t total_bytes(const struct collection *c)
{
  struct image_strings seen = {0};
  uint64_t total = 0;
  for (size_t i = 0; i < c->images_n; i++)
    for (size_t k = 0; !c->doomed[i] && k < c->images[i].layers_n; k++) {
      const char *id = c->images[i].layers[k];
      if (contains(&seen, id)) continue;
      uint64_t bytes;
      image_store_layer_size(c->store, id, &bytes, NULL);
      image_strings_add(&seen, id);
      total += bytes;
    }
  image_strings_free(&seen);
  return total;
}

static void doom_oldest(struct collection *c, uint64_t max_bytes)
{
  while (total_bytes(c) > max_bytes) {
    size_t oldest = c->images_n;
    for (size_t i = 0; i < c->images_n; i++)
      if (!c->doomed[i] && !contains(&c->leased, c->images[i].digest) &&
          (oldest == c->images_n || c->images[i].used_at < c->images[oldest].used_at))
        oldest = i;
    if (oldest == c->images_n) {
      c->result->in_use = true;
      return;
    }
    doom(c, oldest);
  }
}

static void collection_done(struct collection *c)
{
  if (c->stage.name[0]) image_stage_drop(c->store, &c->stage);
  for (size_t i = 0; i < c->images_n; i++) image_record_free(&c->images[i]);
  free(c->images);
  free(c->doomed);
  image_strings_free(&c->leased);
  image_strings_free(&c->refs);
  image_strings_free(&c->ref_to);
}

static int new_stage(struct collection *c, struct err *err)
{
  int rc = image_stage_new(c->store, &c->stage, err);
  if (rc != -ENOSPC && rc != -EDQUOT) return rc;
  c->stage.name[0] = '\0';
  if (err) *err = (struct err){0};
  return 0;
}

int image_store_tidy(struct image_store *s, struct err *err)
{
  struct image_gc_result unused = {0};
  struct collection c = {.store = s, .result = &unused};
  int rc = new_stage(&c, err);
  if (rc == 0) {
    cleanup_close int lock = store_lock(s, LOCK_EX, err);
    rc = lock < 0 ? lock : each_entry(&c, "leases", read_lease, err);
    if (rc == 0) rc = each_entry(&c, "tmp", sweep_tmp, err);
  }
  collection_done(&c);
  return rc;
}

/* Runs decide() and the sweep under the exclusive lock, then removes what was doomed. */
static int collect(struct image_store *s, struct image_gc_result *result,
                   int (*decide)(struct collection *c, const void *how, struct err *err),
                   const void *how, struct err *err)
{
  struct image_gc_result unused = {0};
  struct collection c = {.store = s, .result = result ? result : &unused};
  *c.result = (struct image_gc_result){0};
  int rc = new_stage(&c, err);
  if (rc == 0) {
    cleanup_close int lock = store_lock(s, LOCK_EX, err);
    rc = lock < 0 ? lock : survey(&c, err);
    if (rc == 0) rc = decide(&c, how, err);
    if (rc == 0) rc = sweep(&c, err);
  }
  collection_done(&c);
  return rc;
}

static int decide_gc(struct collection *c, const void *how, struct err *err)
{
  (void)err;
  uint64_t max_bytes = *(const uint64_t *)how;
  doom_unnamed(c);
  if (max_bytes > 0) doom_oldest(c, max_bytes);
  return 0;
}

int image_store_gc(struct image_store *s, uint64_t max_bytes, struct image_gc_result *ret,
                   struct err *err)
{
  return collect(s, ret, decide_gc, &max_bytes, err);
}

static size_t refs_to(const struct collection *c, const char *digest)
{
  size_t n = 0;
  for (size_t i = 0; i < c->ref_to.n; i++) n += strcmp(c->ref_to.v[i], digest) == 0;
  return n;
}

static int decide_rm(struct collection *c, const void *how, struct err *err)
{
  const char *name = how;
  struct image_record r;
  int rc = store_find(c->store, name, &r, err);
  if (rc < 0) return rc;
  struct image_ref ref = {0};
  char path[PATH_MAX];
  bool by_name = image_ref_parse(&ref, name, NULL) == 0 && store_ref_path(&ref, path, NULL) == 0 &&
                 faccessat(c->store->fd, path, F_OK, 0) == 0;
  struct buf full = {0};
  if (by_name) {
    struct image_ref shown = ref;
    if (ref.digest) shown.tag = NULL;
    image_ref_print(&full, &shown);
    remove_ref(c, full.data);
  }
  bool last = !by_name || refs_to(c, r.digest) <= 1;
  bool leased = contains(&c->leased, r.digest);
  c->result->in_use = last && leased;
  for (size_t i = 0; i < c->images_n; i++) {
    if (!last || strcmp(c->images[i].digest, r.digest) != 0) continue;
    if (!leased) {
      doom(c, i);
      continue;
    }
    for (size_t k = 0; k < c->refs.n; k++)
      if (strcmp(c->ref_to.v[k], r.digest) == 0) remove_ref(c, c->refs.v[k]);
  }
  buf_free(&full);
  image_ref_free(&ref);
  image_record_free(&r);
  return 0;
}

int image_store_rm(struct image_store *s, const char *name, struct image_gc_result *ret,
                   struct err *err)
{
  return collect(s, ret, decide_rm, name, err);
}

/* One level of a tree. One descriptor per level: unpacking admits 256 levels, no more. */
static int remove_at(int dir_fd, const char *name, int depth)
{
  if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT) return 0;
  if (errno != EISDIR && errno != EPERM) return -errno;
  if (unlinkat(dir_fd, name, AT_REMOVEDIR) == 0) return 0;
  if (errno == EACCES || errno == EPERM) return -errno;
  int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno == EACCES && fchmodat(dir_fd, name, 0700, 0) == 0)
    fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    int rc = -errno;
    if (fd >= 0) close(fd);
    return rc;
  }
  fchmod(fd, 0700);
  int rc = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    int one = depth < TREE_DEPTH_MAX ? remove_at(fd, e->d_name, depth + 1) : -ELOOP;
    if (one < 0) rc = one;
  }
  closedir(d);
  if (rc < 0) return rc;
  return unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

int image_tree_remove(int dir_fd, const char *name, struct err *err)
{
  int rc = remove_at(dir_fd, name, 0);
  return rc == 0 ? 0 : err_set(err, ERR_INTERNAL, -rc, "cannot remove %s: %s", name, strerror(-rc));
}

/* The image store: where things are, finding images, leases.
 *
 *   format                 what this folder is; written first
 *   lock                   shared: adding and finding; exclusive: deciding what to remove
 *   commit                 lock: one layer at a time is put into its place
 *   layers/ID/             one unpacked layer, ready to be a lower directory of an overlay
 *   lists/ID               its entries with their digests; the layer counts only once this exists.
 *                          ID~BOOT: unpacked in that boot and not yet known to be on disk
 *   blobs/HEX              manifests and configurations
 *   images/HEX             one image: its record as JSON; the time of the file is its last use
 *   refs/DOMAIN/PATH/:TAG  a name: the digest of its image (@DIGEST for names by digest)
 *   leases/NAME            layers in use by the process that holds the lock of the file
 *   tmp/NAME               work in progress of the process that holds the lock of the folder
 *
 * ID is the first 28 digits of the digest of the uncompressed layer: short, so that 127 lower
 * directories fit the kernel's one page of mount options; the list names the digest in full.
 * Everything that has a name of its own arrives there by rename, after its content is on disk. This
 * file only reads and leases; store_write.c adds, store_gc.c removes. */
#include "image/store.h"

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
#include "base/id.h"
#include "base/json.h"
#include "base/val.h"
#include "image/config.h"
#include "image/ids.h"
#include "image/store_internal.h"

#define FORMAT_TEXT  "regolith image store 1\n"
#define DOCUMENT_MAX (4 * 1024 * 1024)

static const char *const folders[] = {"layers", "lists",  "blobs", "images",
                                      "refs",   "leases", "tmp"};

int image_state_folder(struct buf *out, struct err *err)
{
  const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  if (state && state[0] == '/')
    buf_printf(out, "%s/regolith", state);
  else if (geteuid() == 0 && image_ids_first())
    buf_puts(out, "/var/lib/regolith");
  else if (home && home[0] == '/')
    buf_printf(out, "%s/.local/state/regolith", home);
  else
    return err_set(err, ERR_ENGINE_UNAVAILABLE, ENOENT,
                   "no place for images: neither XDG_STATE_HOME nor HOME is set");
  return 0;
}

static int make_folders(const char *path, struct err *err)
{
  cleanup_free char *copy = xstrdup(path);
  for (char *p = copy + 1;; p++) {
    if (*p != '/' && *p != '\0') continue;
    char saved = *p;
    *p = '\0';
    if (mkdir(copy, 0700) < 0 && errno != EEXIST)
      return err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot make %s: %s", copy,
                     strerror(errno));
    *p = saved;
    if (saved == '\0') return 0;
  }
}

static void read_boot_id(char out[17])
{
  char text[64] = "";
  cleanup_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
  size_t at = 0;
  for (ssize_t i = 0; i < n && at < 16; i++)
    if (text[i] != '-' && text[i] != '\n') out[at++] = text[i];
  out[at] = '\0';
}

static int check_format(struct image_store *s, struct err *err)
{
  struct buf text = {0};
  int rc = store_read(s, "format", &text, err);
  if (rc == 0 && strcmp(text.data ? text.data : "", FORMAT_TEXT) != 0)
    rc = err_set(err, ERR_CONFLICT, EINVAL, "%s was made by another version of regolith", s->root);
  buf_free(&text);
  return rc;
}

static int prepare(struct image_store *s, struct err *err)
{
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
    if (mkdirat(s->fd, folders[i], 0700) < 0 && errno != EEXIST)
      return err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot write to %s: %s", s->root,
                     strerror(errno));
  if (faccessat(s->fd, "format", F_OK, 0) == 0) return check_format(s, err);
  cleanup_close int lock = store_lock(s, LOCK_SH, err);
  return lock < 0 ? lock : store_write(s, "format", FORMAT_TEXT, strlen(FORMAT_TEXT), err);
}

int image_store_open(struct image_store **ret, const char *root, struct err *err)
{
  struct buf path = {0};
  int rc = 0;
  if (root)
    buf_puts(&path, root);
  else
    rc = image_state_folder(&path, err);
  if (rc == 0 && !root) buf_puts(&path, "/images");
  if (rc == 0) rc = make_folders(path.data, err);
  if (rc < 0) {
    buf_free(&path);
    return rc;
  }
  struct image_store *s = xcalloc(1, sizeof *s);
  s->root = buf_take(&path, NULL);
  s->fd = open(s->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  s->user_xattrs = !(geteuid() == 0 && image_ids_first());
  read_boot_id(s->boot);
  rc = s->fd >= 0 ? prepare(s, err)
                  : err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot open %s: %s", s->root,
                            strerror(errno));
  if (rc < 0)
    image_store_close(s);
  else
    *ret = s;
  return rc;
}

void image_store_close(struct image_store *s)
{
  if (!s) return;
  if (s->fd >= 0) close(s->fd);
  free(s->root);
  free(s);
}

const char *image_store_root(const struct image_store *s)
{
  return s->root;
}

int image_store_fd(const struct image_store *s)
{
  return s->fd;
}

bool image_store_user_xattrs(const struct image_store *s)
{
  return s->user_xattrs;
}

void image_layer_id(const char *diff_id, char out[IMAGE_LAYER_ID_SIZE])
{
  snprintf(out, IMAGE_LAYER_ID_SIZE, "%s", diff_id + strlen("sha256:"));
}

int store_lock(struct image_store *s, int how, struct err *err)
{
  return store_lock_file(s, "lock", how, err);
}

int store_lock_file(struct image_store *s, const char *name, int how, struct err *err)
{
  int fd = openat(s->fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  int rc = fd < 0 ? -1 : flock(fd, how);
  while (fd >= 0 && rc < 0 && errno == EINTR) rc = flock(fd, how);
  if (rc == 0) return fd;
  int saved = errno;
  if (fd >= 0) close(fd);
  return err_set(err, ERR_ENGINE_UNAVAILABLE, saved, "cannot lock the image store %s: %s", s->root,
                 strerror(saved));
}

int store_read(struct image_store *s, const char *path, struct buf *out, struct err *err)
{
  cleanup_close int fd = openat(s->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  ssize_t n = fd < 0 ? -1 : 1;
  while (n > 0) {
    buf_reserve(out, 16384);
    n = read(fd, out->data + out->len, 16384);
    if (n > 0) out->len += (size_t)n;
    if (out->len > DOCUMENT_MAX) {
      errno = EFBIG;
      n = -1;
    }
  }
  if (n < 0)
    return err_set(err, errno == ENOENT ? ERR_IMAGE_NOT_FOUND : ERR_INTERNAL, errno,
                   "cannot read %s/%s: %s", s->root, path, strerror(errno));
  buf_reserve(out, 1);
  out->data[out->len] = '\0';
  return 0;
}

int store_ref_path(const struct image_ref *ref, char out[PATH_MAX], struct err *err)
{
  int n = ref->digest
              ? snprintf(out, PATH_MAX, "refs/%s/%s/@%s", ref->domain, ref->path, ref->digest)
              : snprintf(out, PATH_MAX, "refs/%s/%s/:%s", ref->domain, ref->path, ref->tag);
  if (n < 0 || n >= PATH_MAX) return err_arg(err, "image", "the image name is too long");
  return 0;
}

static bool take_digest(char out[IMAGE_DIGEST_SIZE], const struct val *map, const char *key)
{
  const char *s = val_get_str(map, key, "");
  if (!image_digest_valid(s)) return false;
  snprintf(out, IMAGE_DIGEST_SIZE, "%s", s);
  return true;
}

static int parse_record(struct image_record *ret, const struct val *v)
{
  const struct val *layers = val_get(v, "layers");
  if (!take_digest(ret->digest, v, "digest") || !take_digest(ret->config, v, "config") || !layers ||
      layers->type != VAL_LIST)
    return -EINVAL;
  snprintf(ret->platform, sizeof ret->platform, "%s", val_get_str(v, "platform", ""));
  ret->added_at = val_get_int(v, "added_at", 0);
  ret->layers = xcalloc(layers->list.n + 1, sizeof *ret->layers);
  for (size_t i = 0; i < layers->list.n; i++) {
    const struct val *id = &layers->list.v[i];
    if (id->type != VAL_STR || !image_digest_valid(id->s.p)) return -EINVAL;
    snprintf(ret->layers[ret->layers_n++], IMAGE_DIGEST_SIZE, "%s", id->s.p);
  }
  return 0;
}

void image_record_free(struct image_record *r)
{
  free(r->layers);
  *r = (struct image_record){0};
}

static int read_record(struct image_store *s, const char *hex, struct image_record *ret,
                       struct err *err)
{
  *ret = (struct image_record){0};
  char path[128];
  snprintf(path, sizeof path, "images/%s", hex);
  struct buf text = {0};
  struct val v = {0};
  int rc = store_read(s, path, &text, err);
  if (rc == 0) rc = json_parse(&v, text.data, text.len, err);
  if (rc == 0 && (parse_record(ret, &v) < 0 || strcmp(ret->digest + 7, hex) != 0)) {
    image_record_free(ret);
    rc = err_set(err, ERR_INTERNAL, EINVAL, "%s/%s is damaged", s->root, path);
    err_hint(err, "remove the file and pull the image again");
  }
  struct stat st;
  if (rc == 0 && fstatat(s->fd, path, &st, 0) == 0) ret->used_at = st.st_mtim.tv_sec;
  val_free(&v);
  buf_free(&text);
  return rc;
}

static int read_ref(struct image_store *s, const char *path, char out[IMAGE_DIGEST_SIZE],
                    struct err *err)
{
  struct buf text = {0};
  int rc = store_read(s, path, &text, err);
  if (rc == 0) {
    text.data[strcspn(text.data, "\n")] = '\0';
    if (image_digest_valid(text.data))
      snprintf(out, IMAGE_DIGEST_SIZE, "%s", text.data);
    else
      rc = err_set(err, ERR_INTERNAL, EINVAL, "%s/%s is damaged", s->root, path);
  }
  buf_free(&text);
  return rc;
}

/* The one image whose digest begins with hex. */
static int find_by_prefix(struct image_store *s, const char *hex, char out[65], struct err *err)
{
  int fd = openat(s->fd, "images", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    if (fd >= 0) close(fd);
    return err_set(err, ERR_INTERNAL, errno, "cannot read %s/images", s->root);
  }
  size_t found = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (strlen(e->d_name) != 64 || strncmp(e->d_name, hex, strlen(hex)) != 0) continue;
    snprintf(out, 65, "%.64s", e->d_name);
    found++;
  }
  closedir(d);
  if (found == 1) return 0;
  return found == 0 ? -ENOENT : err_arg(err, "image", "more than one image begins with %s", hex);
}

int store_find(struct image_store *s, const char *name, struct image_record *ret, struct err *err)
{
  *ret = (struct image_record){0};
  struct image_ref ref;
  struct err parse_err = {0};
  char path[PATH_MAX], digest[IMAGE_DIGEST_SIZE] = "";
  int rc = image_ref_parse(&ref, name, &parse_err);
  if (rc == 0) {
    rc = store_ref_path(&ref, path, err);
    struct stat st;
    if (rc == 0 && fstatat(s->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
      rc = read_ref(s, path, digest, err);
    image_ref_free(&ref);
    if (rc < 0) return rc;
    if (digest[0]) return read_record(s, digest + 7, ret, err);
  }
  const char *prefix;
  char hex[65];
  if (image_digest_prefix(name, &prefix)) {
    int found = find_by_prefix(s, prefix, hex, err);
    if (found == 0) return read_record(s, hex, ret, err);
    if (found != -ENOENT) return found;
  } else if (rc < 0) {
    if (err) *err = parse_err;
    return rc;
  }
  return err_set(err, ERR_IMAGE_NOT_FOUND, ENOENT, "the image \"%s\" is not in the store", name);
}

int image_store_find(struct image_store *s, const char *name, struct image_record *ret,
                     struct err *err)
{
  cleanup_close int lock = store_lock(s, LOCK_SH, err);
  return lock < 0 ? lock : store_find(s, name, ret, err);
}

int image_store_each(struct image_store *s,
                     int (*fn)(void *data, const struct image_record *r, struct err *err),
                     void *data, struct err *err)
{
  int fd = openat(s->fd, "images", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    if (fd >= 0) close(fd);
    return err_set(err, ERR_INTERNAL, errno, "cannot read %s/images", s->root);
  }
  int rc = 0;
  for (struct dirent *e; rc == 0 && (e = readdir(d));) {
    if (strlen(e->d_name) != 64) continue;
    struct image_record r;
    rc = read_record(s, e->d_name, &r, err);
    if (rc == -ENOENT)
      rc = 0; /* removed by another process meanwhile */
    else if (rc == 0)
      rc = fn(data, &r, err);
    image_record_free(&r);
  }
  closedir(d);
  return rc;
}

struct ref_walk {
  struct image_store *store;
  int (*fn)(void *data, const char *ref, const char *digest, struct err *err);
  void *data;
};

/* One folder below refs/; path is what lies between. */
static int walk_refs(const struct ref_walk *w, const char *path, int depth, struct err *err)
{
  char full[PATH_MAX], below[PATH_MAX], digest[IMAGE_DIGEST_SIZE];
  snprintf(full, sizeof full, "refs/%.3000s", path);
  int fd = openat(w->store->fd, full, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    if (fd >= 0) close(fd);
    return errno == ENOENT ? 0 : err_set(err, ERR_INTERNAL, errno, "cannot read %s", full);
  }
  int rc = 0;
  for (struct dirent *e; rc == 0 && (e = readdir(d));) {
    const char *name = e->d_name;
    if (name[0] == '.') continue;
    if (name[0] == ':' || name[0] == '@') {
      snprintf(below, sizeof below, "refs/%.3000s/%s", path, name);
      rc = read_ref(w->store, below, digest, err);
      snprintf(below, sizeof below, "%.3000s%s", path, name);
      if (rc == 0) rc = w->fn(w->data, below, digest, err);
      if (rc == -ENOENT) rc = 0;
    } else if (depth < 130) { /* a name of 255 characters has fewer parts */
      snprintf(below, sizeof below, "%.3000s%s%s", path, *path ? "/" : "", name);
      rc = walk_refs(w, below, depth + 1, err);
    }
  }
  closedir(d);
  return rc;
}

int image_store_each_ref(struct image_store *s,
                         int (*fn)(void *data, const char *ref, const char *digest,
                                   struct err *err),
                         void *data, struct err *err)
{
  return walk_refs(&(struct ref_walk){.store = s, .fn = fn, .data = data}, "", 0, err);
}

int image_store_get_blob(struct image_store *s, const char *digest, struct buf *out,
                         struct err *err)
{
  char path[128];
  snprintf(path, sizeof path, "blobs/%.64s", digest + 7);
  return store_read(s, path, out, err);
}

int image_store_config(struct image_store *s, const struct image_record *r,
                       struct image_config *ret, struct err *err)
{
  struct buf text = {0};
  int rc = image_store_get_blob(s, r->config, &text, err);
  if (rc == 0) rc = image_config_parse(ret, text.data, text.len, err);
  buf_free(&text);
  return rc;
}

bool store_has_layer(struct image_store *s, const char *diff_id)
{
  char id[IMAGE_LAYER_ID_SIZE], path[128];
  image_layer_id(diff_id, id);
  snprintf(path, sizeof path, "layers/%s", id);
  if (faccessat(s->fd, path, F_OK, 0) < 0) return false;
  int fd = image_store_open_list(s, diff_id, NULL);
  if (fd < 0) return false;
  char head[IMAGE_LIST_HEAD] = "";
  ssize_t n = pread(fd, head, sizeof head - 1, 0);
  close(fd);
  return n > 0 && strstr(head, diff_id);
}

/* A list goes from the name of this boot to the lasting one, while others may be looking: asked for
 * in this order, the second name is there when the first was gone already. */
int image_store_open_list(struct image_store *s, const char *diff_id, struct err *err)
{
  char id[IMAGE_LAYER_ID_SIZE], path[128];
  image_layer_id(diff_id, id);
  snprintf(path, sizeof path, "lists/%s~%s", id, s->boot);
  int fd = openat(s->fd, path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) return fd;
  snprintf(path, sizeof path, "lists/%s", id);
  fd = openat(s->fd, path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) return fd;
  return err_set(err, ERR_IMAGE_NOT_FOUND, errno, "the store lacks the list of layer %s", id);
}

int image_store_open_layer(struct image_store *s, const char *diff_id, struct err *err)
{
  char id[IMAGE_LAYER_ID_SIZE], path[128];
  image_layer_id(diff_id, id);
  snprintf(path, sizeof path, "layers/%s", id);
  int fd = openat(s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd >= 0) return fd;
  return err_set(err, ERR_IMAGE_NOT_FOUND, errno, "the store lacks layer %s", id);
}

void image_store_layer_size(struct image_store *s, const char *diff_id, uint64_t *ret_bytes,
                            uint64_t *ret_entries)
{
  unsigned long long bytes = 0, entries = 0;
  char head[IMAGE_LIST_HEAD] = "";
  cleanup_close int fd = image_store_open_list(s, diff_id, NULL);
  if (fd >= 0 && pread(fd, head, sizeof head - 1, 0) > 0) {
    const char *at = strstr(head, " bytes=");
    if (at) sscanf(at, " bytes=%llu entries=%llu", &bytes, &entries);
  }
  *ret_bytes = bytes;
  if (ret_entries) *ret_entries = entries;
}

int store_lease_new(struct image_store *s, struct image_lease **ret, struct err *err)
{
  struct image_lease *l = xcalloc(1, sizeof *l);
  l->store = s;
  char path[64];
  id_random(l->name, 16);
  snprintf(path, sizeof path, "leases/%s", l->name);
  l->fd = openat(s->fd, path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  if (l->fd < 0 || flock(l->fd, LOCK_EX | LOCK_NB) < 0) {
    int rc = err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot write to %s/leases: %s", s->root,
                     strerror(errno));
    if (l->fd >= 0) close(l->fd);
    free(l);
    return rc;
  }
  *ret = l;
  return 0;
}

int image_lease_new(struct image_store *s, struct image_lease **ret, struct err *err)
{
  cleanup_close int lock = store_lock(s, LOCK_SH, err);
  return lock < 0 ? lock : store_lease_new(s, ret, err);
}

void image_lease_free(struct image_lease *l)
{
  if (!l) return;
  char path[64];
  snprintf(path, sizeof path, "leases/%s", l->name);
  unlinkat(l->store->fd, path, 0);
  close(l->fd);
  free(l);
}

static int lease_write(struct image_lease *l, const struct buf *lines, struct err *err)
{
  if (write(l->fd, lines->data, lines->len) != (ssize_t)lines->len)
    return err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot write to %s/leases: %s",
                   l->store->root, strerror(errno));
  return 0;
}

int image_lease_layer(struct image_lease *l, const char *diff_id, bool *ret_present,
                      struct err *err)
{
  cleanup_close int lock = store_lock(l->store, LOCK_SH, err);
  if (lock < 0) return lock;
  *ret_present = store_has_layer(l->store, diff_id);
  struct buf line = {0};
  buf_printf(&line, "layer %s\n", diff_id);
  int rc = lease_write(l, &line, err);
  buf_free(&line);
  return rc;
}

/* The record of an image is written after its layers have settled, so that they are there is all
 * there is to see. */
static int lease_image(struct image_store *s, const struct image_record *r, struct image_lease *l,
                       struct err *err)
{
  struct buf lines = {0};
  char path[64] = "layers/";
  int rc = 0;
  buf_printf(&lines, "image %s\n", r->digest);
  for (size_t i = 0; rc == 0 && i < r->layers_n; i++) {
    buf_printf(&lines, "layer %s\n", r->layers[i]);
    image_layer_id(r->layers[i], path + strlen("layers/"));
    if (faccessat(s->fd, path, F_OK, 0) == 0) continue;
    rc = err_set(err, ERR_IMAGE_NOT_FOUND, ENOENT, "a layer of image %s is gone from the store",
                 r->digest);
    err_hint(err, "pull the image again: regolith image pull");
  }
  if (rc == 0) rc = lease_write(l, &lines, err);
  buf_free(&lines);
  return rc;
}

int image_store_acquire(struct image_store *s, const char *name, struct image_record *ret,
                        struct image_lease **ret_lease, struct err *err)
{
  cleanup_close int lock = store_lock(s, LOCK_SH, err);
  if (lock < 0) return lock;
  struct image_lease *l = NULL;
  int rc = store_find(s, name, ret, err);
  if (rc == 0) rc = store_lease_new(s, &l, err);
  if (rc == 0) rc = lease_image(s, ret, l, err);
  if (rc < 0) {
    image_lease_free(l);
    image_record_free(ret);
    return rc;
  }
  char path[128];
  snprintf(path, sizeof path, "images/%s", ret->digest + 7);
  utimensat(s->fd, path, NULL, 0); /* its last use; a failure costs nothing but the order */
  *ret_lease = l;
  return 0;
}

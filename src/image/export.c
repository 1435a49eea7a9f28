/* Exporting an image as an OCI layout.
 *
 * The store keeps layers unpacked, not the archives they came as, so layers are packed anew: the
 * content is the same, the digests of layers, configuration and manifest are others. Packing is
 * deterministic: exporting the same image twice gives the same blobs. A layout that is there is
 * added to; its index.json is replaced at the end, by rename. */
#include "image/export.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/val.h"
#include "image/digest.h"
#include "image/manifest.h"
#include "image/pack.h"
#include "image/part.h"
#include "image/store.h"

struct export
{
  const struct image_export_conf *conf;
  int dir_fd; /* the layout */
  struct val layers, diff_ids;
};

static int failed(struct err *err, const char *what)
{
  return err_set(err, ERR_INTERNAL, errno, "cannot %s: %s", what, strerror(errno));
}

static int make_dir(int dir_fd, const char *path, struct err *err)
{
  return mkdirat(dir_fd, path, 0755) < 0 && errno != EEXIST ? failed(err, path) : 0;
}

static int open_layout(struct export *e, struct err *err)
{
  const char *dir = e->conf->target;
  if (strncmp(dir, "oci:", 4) != 0 || !dir[4])
    return err_arg(err, "target", "\"%.200s\" is not oci:DIR", dir);
  dir += 4;
  if (mkdir(dir, 0755) < 0 && errno != EEXIST) return failed(err, "make the folder");
  e->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (e->dir_fd < 0) return failed(err, "open the folder");
  int rc = make_dir(e->dir_fd, "blobs", err);
  return rc < 0 ? rc : make_dir(e->dir_fd, "blobs/sha256", err);
}

static struct val descriptor(const char *type, const char *digest, uint64_t size)
{
  struct val d = val_map();
  val_add(&d, "mediaType", val_str(type));
  val_add(&d, "digest", val_str(digest));
  val_add(&d, "size", val_int((int64_t)size));
  return d;
}

#define PARTIAL "blobs/sha256/.partial"

static int name_blob(struct export *e, const char *digest, struct err *err)
{
  char path[96];
  snprintf(path, sizeof path, "blobs/sha256/%.64s", digest + 7);
  return renameat(e->dir_fd, PARTIAL, e->dir_fd, path) < 0 ? failed(err, "name a blob") : 0;
}

static int open_partial(struct export *e, struct err *err)
{
  int fd = openat(e->dir_fd, PARTIAL, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  return fd < 0 ? failed(err, "write to the layout") : fd;
}

static int write_text(int fd, const struct buf *text)
{
  size_t done = 0;
  while (done < text->len) {
    ssize_t n = write(fd, text->data + done, text->len - done);
    if (n < 0 && errno != EINTR) return -1;
    if (n > 0) done += (size_t)n;
  }
  return fsync(fd);
}

static int put_document(struct export *e, const struct buf *text, char digest[IMAGE_DIGEST_SIZE],
                        struct err *err)
{
  cleanup_close int fd = open_partial(e, err);
  if (fd < 0) return fd;
  if (write_text(fd, text) < 0) return failed(err, "write to the layout");
  image_digest_of(text->data, text->len, digest);
  return name_blob(e, digest, err);
}

static int put_layer(struct export *e, const char *diff_id, struct err *err)
{
  struct pack_result result;
  cleanup_close int tree = image_store_open_layer(e->conf->store, diff_id, err);
  if (tree < 0) return tree;
  cleanup_close int fd = open_partial(e, err);
  if (fd < 0) return fd;
  struct pack_conf pack = {.tree_fd = tree,
                           .overlay = true,
                           .user_xattrs = image_store_user_xattrs(e->conf->store),
                           .out_fd = fd,
                           .gzip = true};
  int rc = image_pack(&pack, &result, err);
  if (rc == 0) rc = name_blob(e, result.blob, err);
  if (rc < 0) return rc;
  val_push(&e->layers, descriptor(IMAGE_TYPE_OCI_LAYER "+gzip", result.blob, result.blob_bytes));
  val_push(&e->diff_ids, val_str(result.diff_id));
  return 0;
}

/* The image's configuration with the layers' new digests; all else as it was. */
static int put_config(struct export *e, struct val *ret_desc, struct err *err)
{
  struct buf text = {0};
  struct val v = {0};
  char digest[IMAGE_DIGEST_SIZE];
  int rc = image_store_get_blob(e->conf->store, e->conf->record->config, &text, err);
  if (rc == 0) rc = json_parse(&v, text.data, text.len, err);
  if (rc == 0) {
    struct val rootfs = val_map();
    val_add(&rootfs, "type", val_str("layers"));
    val_add(&rootfs, "diff_ids", e->diff_ids);
    e->diff_ids = (struct val){0};
    val_set(&v, "rootfs", rootfs);
    text.len = 0;
    json_print(&text, &v);
    rc = put_document(e, &text, digest, err);
  }
  if (rc == 0) *ret_desc = descriptor(IMAGE_TYPE_OCI_CONFIG, digest, text.len);
  val_free(&v);
  buf_free(&text);
  return rc;
}

static int put_manifest(struct export *e, struct val config, char digest[IMAGE_DIGEST_SIZE],
                        uint64_t *ret_size, struct err *err)
{
  struct val m = val_map();
  struct buf text = {0};
  val_add(&m, "schemaVersion", val_int(2));
  val_add(&m, "mediaType", val_str(IMAGE_TYPE_OCI_MANIFEST));
  val_add(&m, "config", config);
  val_add(&m, "layers", e->layers);
  e->layers = (struct val){0};
  json_print(&text, &m);
  val_free(&m);
  *ret_size = text.len;
  int rc = put_document(e, &text, digest, err);
  buf_free(&text);
  return rc;
}

/* index.json as it is, or a new one. */
static struct val read_index(struct export *e)
{
  struct buf text = {0};
  struct val v = {0};
  struct err ignored;
  cleanup_close int fd = openat(e->dir_fd, "index.json", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : 1;
  while (n > 0 && text.len < 4u << 20) {
    buf_reserve(&text, 65536);
    n = read(fd, text.data + text.len, 65536);
    if (n > 0) text.len += (size_t)n;
  }
  const struct val *list = text.len && json_parse(&v, text.data, text.len, &ignored) == 0
                               ? val_get(&v, "manifests")
                               : NULL;
  buf_free(&text);
  if (list && list->type == VAL_LIST) return v;
  val_free(&v);
  v = val_map();
  val_add(&v, "schemaVersion", val_int(2));
  val_add(&v, "manifests", val_list());
  return v;
}

static bool is_tagged(const struct val *entry, const char *tag)
{
  const struct val *notes = val_get(entry, "annotations");
  return tag && notes &&
         strcmp(val_get_str(notes, "org.opencontainers.image.ref.name", ""), tag) == 0;
}

static int put_index(struct export *e, const char *digest, uint64_t size, struct err *err)
{
  struct val index = read_index(e), list = val_list(), entry, notes = val_map();
  const struct val *old = val_get(&index, "manifests");
  for (size_t i = 0; i < old->list.n; i++)
    if (!is_tagged(&old->list.v[i], e->conf->tag) &&
        strcmp(val_get_str(&old->list.v[i], "digest", ""), digest) != 0)
      val_push(&list, val_copy(&old->list.v[i]));
  entry = descriptor(IMAGE_TYPE_OCI_MANIFEST, digest, size);
  if (e->conf->tag) val_add(&notes, "org.opencontainers.image.ref.name", val_str(e->conf->tag));
  val_add(&entry, "annotations", notes);
  val_push(&list, entry);
  val_set(&index, "manifests", list);
  struct buf text = {0};
  json_print(&text, &index);
  val_free(&index);
  cleanup_close int fd = open_partial(e, err);
  int rc = fd < 0 ? fd : write_text(fd, &text) < 0 ? failed(err, "write to the layout") : 0;
  buf_free(&text);
  if (rc == 0 && renameat(e->dir_fd, PARTIAL, e->dir_fd, "index.json") < 0)
    rc = failed(err, "write index.json");
  return rc;
}

static int put_mark(struct export *e, struct err *err)
{
  static const char text[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
  cleanup_close int fd =
      openat(e->dir_fd, "oci-layout", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0 || write(fd, text, sizeof text - 1) != sizeof text - 1)
    return failed(err, "write to the layout");
  return 0;
}

int image_export(const struct image_export_conf *conf, char *ret_digest, struct err *err)
{
  struct export e = {.conf = conf, .dir_fd = -1, .layers = val_list(), .diff_ids = val_list()};
  struct val config = {0};
  uint64_t size = 0;
  int rc = open_layout(&e, err);
  for (size_t i = 0; rc == 0 && i < conf->record->layers_n; i++)
    rc = put_layer(&e, conf->record->layers[i], err);
  if (rc == 0) rc = put_config(&e, &config, err);
  if (rc == 0) rc = put_manifest(&e, config, ret_digest, &size, err);
  if (rc == 0) rc = put_mark(&e, err);
  if (rc == 0) rc = put_index(&e, ret_digest, size, err);
  if (rc < 0 && e.dir_fd >= 0) unlinkat(e.dir_fd, PARTIAL, 0);
  val_free(&e.layers);
  val_free(&e.diff_ids);
  if (e.dir_fd >= 0) close(e.dir_fd);
  return rc;
}

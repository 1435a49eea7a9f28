/* Importing images from files, and making them of what a sandbox changed.
 *
 *   oci:DIR[:TAG]         an OCI layout, as skopeo, umoci and buildah write
 *   docker-archive:FILE   what `docker save` and `podman save` write
 *   rootfs:DIR or :FILE   a root file system, as a folder or a tar: an image of one layer
 *
 * Documents and layers are held against their digests as those from a registry are. A Docker
 * archive is unpacked into a stage first, because its members come in any order; whatever its links
 * say, nothing outside the stage is read. A folder is packed on a thread and unpacked here, through
 * a pipe: so that its layer has a digest, and is the same layer when it is imported again. A commit
 * does the same with the upper folder of an overlay, whose whiteouts go through the archive as
 * those of any layer, and puts the layer above those of another image. */
#include "image/import.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/val.h"
#include "image/config.h"
#include "image/digest.h"
#include "image/document.h"
#include "image/folders.h"
#include "image/ids.h"
#include "image/manifest.h"
#include "image/pack.h"
#include "image/part.h"
#include "image/store.h"
#include "image/unpack.h"

#define DOCUMENT_MAX (4 * 1024 * 1024)
#define READ_BYTES   (256 * 1024)

struct import {
  struct image_store *store;
  void (*on_layer)(void *data, const char *diff_id); /* may be NULL */
  void *data;
  const struct image_import_conf *conf; /* NULL: a commit */
  struct image_lease *lease;
  struct image_ref ref;
  bool named; /* ref is set */
  struct buf manifest_text, config_text;
  struct image_config config;
  char digest[IMAGE_DIGEST_SIZE]; /* of the manifest */
  char config_digest[IMAGE_DIGEST_SIZE];
};

/* --- layers --- */

struct file_source {
  int fd; /* the caller's */
  char *chunk;
};

static ssize_t read_file(void *source, const void **ret, struct err *err)
{
  struct file_source *s = source;
  ssize_t n;
  do n = read(s->fd, s->chunk, READ_BYTES);
  while (n < 0 && errno == EINTR);
  if (n < 0) return err_set(err, ERR_INTERNAL, errno, "cannot read the layer: %s", strerror(errno));
  *ret = s->chunk;
  return n;
}

static int unpack_into(struct import *im, struct image_stage *stage, int fd,
                       struct unpack_result *ret, struct err *err)
{
  struct file_source source = {.fd = fd, .chunk = xmalloc(READ_BYTES)};
  struct unpack_conf conf = {.read = read_file,
                             .source = &source,
                             .tree_fd = stage->tree_fd,
                             .list_fd = stage->list_fd,
                             .user_xattrs = image_store_user_xattrs(im->store),
                             .chown = image_ids_many(),
                             .limits = {UNPACK_MAX_BYTES, UNPACK_MAX_ENTRIES}};
  int rc = image_unpack(&conf, ret, err);
  free(source.chunk);
  return rc;
}

/* One layer from a descriptor. blob and diff_id NULL: whatever they are. */
static int add_layer(struct import *im, int fd, const char *blob, const char *diff_id,
                     struct unpack_result *ret, struct err *err)
{
  struct image_store *store = im->store;
  bool present = false;
  int rc = diff_id ? image_lease_layer(im->lease, diff_id, &present, err) : 0;
  if (rc < 0 || present) return rc;
  struct image_stage stage;
  rc = image_stage_new(store, &stage, err);
  if (rc < 0) return rc;
  rc = unpack_into(im, &stage, fd, ret, err);
  if (rc == 0 &&
      ((blob && strcmp(blob, ret->blob) != 0) || (diff_id && strcmp(diff_id, ret->diff_id) != 0)))
    rc = err_set(err, ERR_DENIED, EBADMSG, "a layer's content is not what its digest says");
  if (rc == 0) rc = image_lease_layer(im->lease, ret->diff_id, &present, err);
  if (rc < 0) {
    image_stage_drop(store, &stage);
    return rc;
  }
  rc = image_stage_commit(store, &stage, ret->diff_id, ret->bytes, ret->entries, err);
  if (rc == 0 && im->on_layer) im->on_layer(im->data, ret->diff_id);
  return rc;
}

/* --- files of a layout or an archive --- */

/* Opens a file below dir_fd; links lead nowhere but below it. A fifo would keep us waiting. */
static int open_inside(int dir_fd, const char *path, struct err *err)
{
  struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_IN_ROOT};
  struct stat st;
  cleanup_close int fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
  if (fd < 0 || fstat(fd, &st) < 0)
    return err_set(err, ERR_NOT_FOUND, errno, "the image lacks %.200s: %s", path, strerror(errno));
  if (!S_ISREG(st.st_mode))
    return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG, "%.200s is no regular file", path);
  return take_fd(&fd);
}

static int read_inside(int dir_fd, const char *path, struct buf *out, struct err *err)
{
  cleanup_close int fd = open_inside(dir_fd, path, err);
  ssize_t n = fd < 0 ? -1 : 1;
  if (fd < 0) return fd;
  while (n > 0 && out->len <= DOCUMENT_MAX) {
    buf_reserve(out, 65536);
    n = read(fd, out->data + out->len, 65536);
    if (n > 0) out->len += (size_t)n;
  }
  if (n < 0) return err_set(err, ERR_INTERNAL, errno, "cannot read %.200s", path);
  if (out->len > DOCUMENT_MAX)
    return err_set(err, ERR_PAYLOAD_TOO_LARGE, EFBIG, "%.200s is over 4 MiB", path);
  buf_puts(out, "");
  return 0;
}

static void blob_path(const char *digest, char out[96])
{
  snprintf(out, 96, "blobs/sha256/%.64s", digest + 7);
}

/* size: what the descriptor says, -1 = it was not asked. */
static int read_blob(int dir_fd, const char *digest, int64_t size, struct buf *out, struct err *err)
{
  char path[96], now[IMAGE_DIGEST_SIZE];
  blob_path(digest, path);
  int rc = read_inside(dir_fd, path, out, err);
  if (rc < 0) return rc;
  image_digest_of(out->data, out->len, now);
  if (strcmp(now, digest) == 0 && (size < 0 || (size_t)size == out->len)) return 0;
  return err_set(err, ERR_DENIED, EBADMSG, "%s is not what its digest says", path);
}

/* --- the image as a whole --- */

static int read_config(struct import *im, struct err *err)
{
  image_digest_of(im->config_text.data, im->config_text.len, im->config_digest);
  return image_config_parse(&im->config, im->config_text.data, im->config_text.len, err);
}

static int add_image(struct import *im, struct err *err)
{
  struct image_store *store = im->store;
  struct image_record r = {.layers_n = im->config.diff_ids.n};
  memcpy(r.digest, im->digest, sizeof r.digest);
  memcpy(r.config, im->config_digest, sizeof r.config);
  snprintf(r.platform, sizeof r.platform, "%.20s/%.20s", im->config.os ? im->config.os : "linux",
           im->config.architecture ? im->config.architecture : "unknown");
  r.layers = xcalloc(r.layers_n + 1, sizeof *r.layers);
  for (size_t i = 0; i < r.layers_n; i++)
    snprintf(r.layers[i], IMAGE_DIGEST_SIZE, "%s", im->config.diff_ids.v[i]);
  int rc =
      image_store_put_blob(store, r.digest, im->manifest_text.data, im->manifest_text.len, err);
  if (rc == 0)
    rc = image_store_put_blob(store, r.config, im->config_text.data, im->config_text.len, err);
  if (rc == 0) rc = image_folders_settle(store, &r, err);
  if (rc == 0) rc = image_store_add(store, &r, im->named ? &im->ref : NULL, err);
  image_record_free(&r);
  return rc;
}

static struct val descriptor(const char *type, const char *digest, uint64_t size)
{
  struct val d = val_map();
  val_add(&d, "mediaType", val_str(type));
  val_add(&d, "digest", val_str(digest));
  val_add(&d, "size", val_int((int64_t)size));
  return d;
}

/* The manifest of an image that came without one: its layers are named as they are unpacked. */
static void make_manifest(struct import *im, const uint64_t *sizes)
{
  struct val m = val_map(), layers = val_list();
  val_add(&m, "schemaVersion", val_int(2));
  val_add(&m, "mediaType", val_str(IMAGE_TYPE_OCI_MANIFEST));
  val_add(&m, "config", descriptor(IMAGE_TYPE_OCI_CONFIG, im->config_digest, im->config_text.len));
  for (size_t i = 0; i < im->config.diff_ids.n; i++)
    val_push(&layers, descriptor(IMAGE_TYPE_OCI_LAYER, im->config.diff_ids.v[i], sizes[i]));
  val_add(&m, "layers", layers);
  json_print(&im->manifest_text, &m);
  val_free(&m);
  image_digest_of(im->manifest_text.data, im->manifest_text.len, im->digest);
}

/* --- oci:DIR[:TAG] --- */

static int split_oci(const char *text, char *ret_dir, const char **ret_tag, struct err *err)
{
  struct stat st;
  *ret_tag = NULL;
  snprintf(ret_dir, PATH_MAX, "%s", text);
  char *colon = strrchr(ret_dir, ':');
  if (stat(ret_dir, &st) < 0 && colon) {
    *colon = '\0';
    *ret_tag = text + (colon - ret_dir) + 1;
  }
  if (stat(ret_dir, &st) == 0 && S_ISDIR(st.st_mode)) return 0;
  return err_set(err, ERR_NOT_FOUND, ENOENT, "there is no folder %s", ret_dir);
}

static bool has_tag(const struct val *entry, const char *tag)
{
  const struct val *notes = val_get(entry, "annotations");
  const char *name = notes ? val_get_str(notes, "org.opencontainers.image.ref.name", "") : "";
  return strcmp(name, tag) == 0;
}

/* The digest that index.json names: by tag, for this platform, or the only one. */
static int choose(const struct buf *text, const char *tag, char out[IMAGE_DIGEST_SIZE],
                  struct err *err)
{
  struct val v = {0};
  struct image_manifest index;
  int rc = image_document_parse(&v, text->data, text->len, "the layout's index", err);
  if (rc == 0) rc = image_manifest_parse(&index, text->data, text->len, IMAGE_TYPE_OCI_INDEX, err);
  if (rc < 0) {
    val_free(&v);
    return rc;
  }
  const struct val *list = val_get(&v, "manifests");
  struct image_platform here;
  image_platform_host(&here);
  const struct image_desc *found = tag ? NULL : image_manifest_select(&index, &here);
  if (!tag && !found && index.entries_n == 1) found = &index.entries[0];
  for (size_t i = 0; tag && i < index.entries_n; i++)
    if (has_tag(&list->list.v[i], tag)) found = &index.entries[i];
  if (found)
    snprintf(out, IMAGE_DIGEST_SIZE, "%s", found->digest);
  else
    rc = err_set(err, ERR_IMAGE_NOT_FOUND, ENOENT,
                 tag ? "the layout has no image \"%s\"" : "the layout has several images%s",
                 tag ? tag : ": say which, oci:DIR:TAG");
  image_manifest_free(&index);
  val_free(&v);
  return rc;
}

static int read_manifest(struct import *im, int dir_fd, struct image_manifest *m, struct err *err)
{
  for (int depth = 0; depth < 3; depth++) {
    im->manifest_text.len = 0;
    int rc = read_blob(dir_fd, im->digest, -1, &im->manifest_text, err);
    if (rc == 0)
      rc = image_manifest_parse(m, im->manifest_text.data, im->manifest_text.len, NULL, err);
    if (rc < 0 || !m->is_index) return rc;
    image_manifest_free(m);
    rc = choose(&im->manifest_text, NULL, im->digest, err);
    if (rc < 0) return rc;
  }
  return err_set(err, ERR_UNSUPPORTED, ELOOP, "the layout nests indexes too deep");
}

static int import_layout_layers(struct import *im, int dir_fd, const struct image_manifest *m,
                                struct err *err)
{
  if (im->config.diff_ids.n != m->entries_n)
    return err_set(err, ERR_INVALID_ARGUMENT, 0,
                   "the image is malformed: the manifest has %zu layers, the configuration %zu",
                   m->entries_n, im->config.diff_ids.n);
  int rc = 0;
  for (size_t i = 0; rc == 0 && i < m->entries_n; i++) {
    char path[96];
    struct unpack_result result;
    blob_path(m->entries[i].digest, path);
    cleanup_close int fd = open_inside(dir_fd, path, err);
    if (fd < 0) return fd;
    rc = add_layer(im, fd, m->entries[i].digest, im->config.diff_ids.v[i], &result, err);
  }
  return rc;
}

static int import_oci(struct import *im, const char *where, struct err *err)
{
  char dir[PATH_MAX];
  const char *tag;
  struct buf index = {0};
  struct image_manifest m = {0};
  int rc = split_oci(where, dir, &tag, err);
  if (rc < 0) return rc;
  cleanup_close int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir_fd < 0) return err_set(err, ERR_NOT_FOUND, errno, "cannot open %s", dir);
  rc = read_inside(dir_fd, "index.json", &index, err);
  if (rc == 0) rc = choose(&index, tag, im->digest, err);
  if (rc == 0) rc = read_manifest(im, dir_fd, &m, err);
  if (rc == 0) rc = read_blob(dir_fd, m.config.digest, m.config.size, &im->config_text, err);
  if (rc == 0) rc = read_config(im, err);
  if (rc == 0) rc = import_layout_layers(im, dir_fd, &m, err);
  image_manifest_free(&m);
  buf_free(&index);
  return rc;
}

/* --- docker-archive:FILE --- */

static const struct val *first_image(const struct val *v)
{
  return v->type == VAL_LIST && v->list.n > 0 && v->list.v[0].type == VAL_MAP ? &v->list.v[0]
                                                                              : NULL;
}

static int take_repo_tag(struct import *im, const struct val *image, struct err *err)
{
  const struct val *tags = val_get(image, "RepoTags");
  if (im->named || !tags || tags->type != VAL_LIST || tags->list.n == 0 ||
      tags->list.v[0].type != VAL_STR)
    return 0;
  int rc = image_ref_parse(&im->ref, tags->list.v[0].s.p, err);
  im->named = rc == 0;
  return rc;
}

static int import_archive_image(struct import *im, int dir_fd, const struct val *image,
                                struct err *err)
{
  const struct val *layers = val_get(image, "Layers");
  int rc = read_inside(dir_fd, val_get_str(image, "Config", ""), &im->config_text, err);
  if (rc == 0) rc = read_config(im, err);
  if (rc == 0) rc = take_repo_tag(im, image, err);
  if (rc < 0) return rc;
  size_t n = im->config.diff_ids.n;
  if (!layers || layers->type != VAL_LIST || layers->list.n != n)
    return err_set(err, ERR_INVALID_ARGUMENT, 0,
                   "the archive is malformed: manifest.json and configuration disagree on layers");
  uint64_t *sizes = xcalloc(n + 1, sizeof *sizes);
  for (size_t i = 0; rc == 0 && i < n; i++) {
    struct unpack_result result;
    struct stat st = {0};
    const struct val *path = &layers->list.v[i];
    cleanup_close int fd = open_inside(dir_fd, path->type == VAL_STR ? path->s.p : "", err);
    if (fd < 0) rc = fd;
    if (rc == 0) rc = add_layer(im, fd, NULL, im->config.diff_ids.v[i], &result, err);
    if (rc == 0 && fstat(fd, &st) == 0) sizes[i] = (uint64_t)st.st_size;
  }
  if (rc == 0) make_manifest(im, sizes);
  free(sizes);
  return rc;
}

static int import_archive(struct import *im, const char *file, struct err *err)
{
  struct image_stage stage;
  struct unpack_result result;
  struct buf text = {0};
  struct val v = {0};
  cleanup_close int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return err_set(err, ERR_NOT_FOUND, errno, "cannot open %s: %s", file, strerror(errno));
  int rc = image_stage_new(im->store, &stage, err);
  if (rc < 0) return rc;
  rc = unpack_into(im, &stage, fd, &result, err);
  if (rc == 0) rc = read_inside(stage.tree_fd, "manifest.json", &text, err);
  if (rc == 0)
    rc = image_document_parse(&v, text.data, text.len, "the archive's manifest.json", err);
  if (rc == 0) {
    const struct val *image = first_image(&v);
    rc = image ? import_archive_image(im, stage.tree_fd, image, err)
               : err_set(err, ERR_INVALID_ARGUMENT, 0, "%s: manifest.json names no image", file);
  }
  val_free(&v);
  buf_free(&text);
  image_stage_drop(im->store, &stage);
  return rc;
}

/* --- rootfs:DIR, rootfs:FILE --- */

struct packing {
  struct pack_conf conf;
  struct pack_result result;
  struct err err;
};

static void *pack_on_thread(void *data)
{
  struct packing *p = data;
  image_pack(&p->conf, &p->result, &p->err);
  close(p->conf.out_fd);
  return NULL;
}

static int add_folder(struct import *im, const struct pack_conf *conf, struct unpack_result *ret,
                      struct err *err)
{
  int ends[2];
  pthread_t thread;
  if (pipe2(ends, O_CLOEXEC) < 0) return err_set(err, ERR_CAPACITY, errno, "cannot make a pipe");
  struct packing p = {.conf = *conf};
  p.conf.out_fd = ends[1];
  int rc = pthread_create(&thread, NULL, pack_on_thread, &p);
  if (rc != 0) {
    close(ends[0]);
    close(ends[1]);
    return err_set(err, ERR_CAPACITY, rc, "cannot start a thread");
  }
  rc = add_layer(im, ends[0], NULL, NULL, ret, err);
  close(ends[0]);
  pthread_join(thread, NULL);
  /* A folder that could not be read is why the layer was cut short. */
  if (p.err.kind != ERR_NONE && p.err.sys_errno != EPIPE) {
    if (err) *err = p.err;
    return err_errno(&p.err);
  }
  return rc;
}

static void make_config(struct import *im, const char *diff_id)
{
  struct image_platform here;
  image_platform_host(&here);
  struct val c = val_map(), rootfs = val_map(), ids = val_list();
  val_push(&ids, val_str(diff_id));
  val_add(&rootfs, "type", val_str("layers"));
  val_add(&rootfs, "diff_ids", ids);
  val_add(&c, "architecture", val_str(here.architecture));
  val_add(&c, "os", val_str(here.os));
  val_add(&c, "config", val_map());
  val_add(&c, "rootfs", rootfs);
  json_print(&im->config_text, &c);
  val_free(&c);
}

static int import_rootfs(struct import *im, const char *path, struct err *err)
{
  struct unpack_result result = {0};
  struct stat st;
  cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) < 0)
    return err_set(err, ERR_NOT_FOUND, errno, "cannot open %s: %s", path, strerror(errno));
  int rc = S_ISDIR(st.st_mode) ? add_folder(im, &(struct pack_conf){.tree_fd = fd}, &result, err)
                               : add_layer(im, fd, NULL, NULL, &result, err);
  if (rc < 0) return rc;
  make_config(im, result.diff_id);
  rc = read_config(im, err);
  if (rc == 0) make_manifest(im, &result.archive_bytes);
  return rc;
}

/* --- commit --- */

static int lease_base(struct import *im, const struct image_record *base, struct err *err)
{
  int rc = 0;
  for (size_t i = 0; rc == 0 && i < base->layers_n; i++) {
    bool present;
    rc = image_lease_layer(im->lease, base->layers[i], &present, err);
    if (rc == 0 && !present)
      rc = err_set(err, ERR_IMAGE_NOT_FOUND, ENOENT, "the image's layers are not in the store");
  }
  return rc;
}

/* The same list with one more item; of what is no list only that. */
static struct val longer(const struct val *map, const char *key, struct val item)
{
  const struct val *old = map ? val_get(map, key) : NULL;
  struct val list = old && old->type == VAL_LIST ? val_copy(old) : val_list();
  val_push(&list, item);
  return list;
}

static int commit_config(struct import *im, const struct image_commit_conf *conf,
                         const char *diff_id, struct err *err)
{
  struct buf text = {0};
  struct val v = {0};
  int rc = image_store_get_blob(im->store, conf->base->config, &text, err);
  if (rc == 0) rc = image_document_parse(&v, text.data, text.len, "the image configuration", err);
  buf_free(&text);
  if (rc < 0) return rc;
  char now[CLOCK_ISO_SIZE];
  clock_format_iso(clock_wall_s(), now);
  struct val rootfs = val_map(), step = val_map();
  val_add(&rootfs, "type", val_str("layers"));
  val_add(&rootfs, "diff_ids", longer(val_get(&v, "rootfs"), "diff_ids", val_str(diff_id)));
  val_add(&step, "created", val_str(now));
  val_add(&step, "created_by", val_str(conf->note ? conf->note : "regolith commit"));
  struct val history = longer(&v, "history", step);
  val_set(&v, "rootfs", rootfs);
  val_set(&v, "history", history);
  val_set(&v, "created", val_str(now));
  json_print(&im->config_text, &v);
  val_free(&v);
  return read_config(im, err);
}

/* Docker's names of layers, in OCI's words. */
static const char *layer_type(const char *type)
{
  if (strstr(type, "zstd")) return IMAGE_TYPE_OCI_LAYER "+zstd";
  return strstr(type, "gzip") ? IMAGE_TYPE_OCI_LAYER "+gzip" : IMAGE_TYPE_OCI_LAYER;
}

/* The layers of the base as its manifest names them, and the new one as it is unpacked. */
static int commit_manifest(struct import *im, const struct image_commit_conf *conf,
                           const struct unpack_result *layer, struct err *err)
{
  struct buf text = {0};
  struct image_manifest base;
  int rc = image_store_get_blob(im->store, conf->base->digest, &text, err);
  if (rc == 0) rc = image_manifest_parse(&base, text.data, text.len, NULL, err);
  buf_free(&text);
  if (rc < 0) return rc;
  struct val m = val_map(), layers = val_list();
  for (size_t i = 0; i < base.entries_n; i++)
    val_push(&layers,
             descriptor(layer_type(base.entries[i].media_type ? base.entries[i].media_type : ""),
                        base.entries[i].digest, (uint64_t)base.entries[i].size));
  val_push(&layers, descriptor(IMAGE_TYPE_OCI_LAYER, layer->diff_id, layer->archive_bytes));
  val_add(&m, "schemaVersion", val_int(2));
  val_add(&m, "mediaType", val_str(IMAGE_TYPE_OCI_MANIFEST));
  val_add(&m, "config", descriptor(IMAGE_TYPE_OCI_CONFIG, im->config_digest, im->config_text.len));
  val_add(&m, "layers", layers);
  json_print(&im->manifest_text, &m);
  image_digest_of(im->manifest_text.data, im->manifest_text.len, im->digest);
  val_free(&m);
  image_manifest_free(&base);
  return 0;
}

static int commit_upper(struct import *im, const struct image_commit_conf *conf, struct err *err)
{
  struct unpack_result result = {0};
  struct pack_ids ids = {conf->first, conf->rest};
  struct pack_conf pack = {.tree_fd = conf->upper_fd,
                           .overlay = true,
                           .user_xattrs = image_store_user_xattrs(im->store),
                           .live = true,
                           .max_bytes = conf->max_bytes,
                           .ids = &ids};
  int rc = lease_base(im, conf->base, err);
  if (rc == 0) rc = add_folder(im, &pack, &result, err);
  if (rc == 0) rc = commit_config(im, conf, result.diff_id, err);
  if (rc == 0) rc = commit_manifest(im, conf, &result, err);
  return rc;
}

/* --- */

static const char *behind(const char *text, const char *prefix)
{
  size_t n = strlen(prefix);
  return strncmp(text, prefix, n) == 0 && text[n] ? text + n : NULL;
}

static int import_source(struct import *im, struct err *err)
{
  const char *source = im->conf->source, *where;
  if ((where = behind(source, "oci:"))) return import_oci(im, where, err);
  if ((where = behind(source, "docker-archive:"))) return import_archive(im, where, err);
  if ((where = behind(source, "rootfs:"))) return import_rootfs(im, where, err);
  return err_arg(err, "source",
                 "\"%.200s\" is none of oci:DIR[:TAG], docker-archive:FILE, rootfs:DIR-or-TAR",
                 source);
}

static int take_name(struct import *im, const char *name, struct err *err)
{
  int rc = name ? image_ref_parse(&im->ref, name, err) : 0;
  im->named = rc == 0 && name;
  if (im->named && im->ref.digest)
    rc = err_arg(err, "name", "an image of ours gets a name and a tag, not a digest");
  return rc;
}

static void import_done(struct import *im)
{
  image_lease_free(im->lease);
  if (im->named) image_ref_free(&im->ref);
  image_config_free(&im->config);
  buf_free(&im->manifest_text);
  buf_free(&im->config_text);
}

int image_import(const struct image_import_conf *conf, char *ret_digest, struct err *err)
{
  struct import im = {
      .store = conf->store, .on_layer = conf->on_layer, .data = conf->data, .conf = conf};
  int rc = take_name(&im, conf->name, err);
  if (rc == 0) rc = image_lease_new(conf->store, &im.lease, err);
  if (rc == 0) rc = import_source(&im, err);
  if (rc == 0) rc = add_image(&im, err);
  if (rc == 0) snprintf(ret_digest, IMAGE_DIGEST_SIZE, "%s", im.digest);
  import_done(&im);
  return rc;
}

int image_commit(const struct image_commit_conf *conf, char *ret_digest, struct err *err)
{
  struct import im = {.store = conf->store};
  int rc = take_name(&im, conf->name, err);
  if (rc == 0) rc = image_lease_new(conf->store, &im.lease, err);
  if (rc == 0) rc = commit_upper(&im, conf, err);
  if (rc == 0) rc = add_image(&im, err);
  if (rc == 0) snprintf(ret_digest, IMAGE_DIGEST_SIZE, "%s", im.digest);
  import_done(&im);
  return rc;
}

/* Pushing an image: store → OCI layout → registry.
 *
 * Layers are packed anew, as for an export and by it, into a layout in a stage of the store; the
 * same image gives the same blobs each time, so what the registry has from an earlier push is not
 * sent again. Blobs go one after another, mapped and not read into memory, configuration last, then
 * the manifest, which makes them an image. What is only half sent the registry forgets by itself.
 * Mirrors are for reading: all of it goes to the registry itself.
 *
 * packing → each blob: (looking → beginning → sending) → naming → closing → done */
#include "image/push.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "core/loop.h"
#include "image/export.h"
#include "image/fetch.h"
#include "image/manifest.h"
#include "image/part.h"
#include "image/ref.h"
#include "image/settings.h"
#include "image/store.h"
#include "net/httpc.h"
#include "net/url.h"

#define ANSWER_MAX 65536

enum step { LOOKING, BEGINNING, SENDING, NAMING };

struct image_push {
  struct image_push_conf conf;
  struct image_ref ref;
  struct image_stage stage;
  struct httpc *http;
  struct registry *registry;
  struct image_manifest manifest;
  char digest[IMAGE_DIGEST_SIZE]; /* of the manifest */
  size_t at; /* the blob under way; behind the layers comes the configuration */
  enum step step;
  struct fetch fetch;
  bool fetching;
  char *url;       /* owned: of the upload */
  void *body;      /* mapped */
  size_t body_len; /* of the mapping */
  struct err err;  /* the first failure */
};

static const struct image_desc *blob_at(const struct image_push *p)
{
  return p->at < p->manifest.entries_n ? &p->manifest.entries[p->at] : &p->manifest.config;
}

static void report(struct image_push *p, const char *state)
{
  struct image_progress progress = {.layer = blob_at(p)->digest,
                                    .state = state,
                                    .layers = p->manifest.entries_n,
                                    .layers_done = p->at,
                                    .bytes = (uint64_t)blob_at(p)->size,
                                    .bytes_total = (uint64_t)blob_at(p)->size};
  if (p->conf.on_progress) p->conf.on_progress(p->conf.data, &progress);
}

static void unmap(struct image_push *p)
{
  if (p->body) munmap(p->body, p->body_len);
  p->body = NULL;
  p->body_len = 0;
}

/* --- the end --- */

static void on_http_closed(void *data)
{
  struct image_push *p = data;
  struct image_push_conf conf = p->conf;
  struct err err = p->err;
  char digest[IMAGE_DIGEST_SIZE];
  snprintf(digest, sizeof digest, "%s", p->digest);
  unmap(p);
  image_stage_drop(conf.store, &p->stage);
  image_manifest_free(&p->manifest);
  image_ref_free(&p->ref);
  buf_free(&p->fetch.body);
  free(p->fetch.location);
  free(p->url);
  free(p);
  conf.on_done(conf.data, err.kind == ERR_NONE ? digest : NULL, err.kind == ERR_NONE ? NULL : &err);
}

static void close_all(struct image_push *p)
{
  registry_free(p->registry);
  p->registry = NULL;
  httpc_close(p->http, on_http_closed, p);
}

static void fail(struct image_push *p, const struct err *err)
{
  if (p->err.kind == ERR_NONE) p->err = *err;
  if (p->fetching)
    fetch_abort(&p->fetch, err);
  else if (p->registry)
    close_all(p);
}

/* --- requests --- */

static void on_done(struct fetch *f, const struct err *err);

static void ask(struct image_push *p, enum step step, struct fetch what)
{
  struct err err = {0};
  buf_free(&p->fetch.body);
  free(p->fetch.location);
  p->step = step;
  p->fetch = what;
  p->fetch.size = -1;
  p->fetch.max = ANSWER_MAX;
  p->fetch.endpoint = registry_origin(p->registry);
  p->fetch.on_done = on_done;
  p->fetch.data = p;
  p->fetching = fetch_start(p->registry, &p->fetch, &err) == 0;
  if (!p->fetching) fail(p, &err);
}

/* A file of the layout as a body. */
static int map_blob(struct image_push *p, const char *digest, struct err *err)
{
  char path[96];
  struct stat st;
  unmap(p);
  snprintf(path, sizeof path, "blobs/sha256/%.64s", digest + 7);
  cleanup_close int fd = openat(p->stage.tree_fd, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
    return err_set(err, ERR_INTERNAL, errno, "cannot read %s", path);
  p->body = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (p->body == MAP_FAILED) {
    p->body = NULL;
    return err_set(err, ERR_CAPACITY, errno, "cannot map %s: %s", path, strerror(errno));
  }
  p->body_len = (size_t)st.st_size;
  return 0;
}

static void look(struct image_push *p)
{
  ask(p, LOOKING,
      (struct fetch){
          .kind = "blobs", .what = blob_at(p)->digest, .method = "HEAD", .may_lack = true});
}

static void begin(struct image_push *p)
{
  ask(p, BEGINNING,
      (struct fetch){.kind = "blobs", .what = "uploads/", .method = "POST", .send = ""});
}

static void send_blob(struct image_push *p)
{
  struct err err = {0};
  const char *to = p->fetch.location;
  struct buf url = {0};
  if (!to) {
    err_set(&err, ERR_ENGINE_UNAVAILABLE, EPROTO, "%s does not say where to send a blob to",
            p->ref.domain);
    fail(p, &err);
    return;
  }
  if (map_blob(p, blob_at(p)->digest, &err) < 0) {
    fail(p, &err);
    return;
  }
  buf_printf(&url, "%s%cdigest=%s", to, strchr(to, '?') ? '&' : '?', blob_at(p)->digest);
  free(p->url);
  p->url = buf_take(&url, NULL);
  ask(p, SENDING,
      (struct fetch){.what = blob_at(p)->digest,
                     .url = p->url,
                     .method = "PUT",
                     .send = p->body,
                     .send_len = p->body_len,
                     .send_type = "application/octet-stream"});
}

static void name_image(struct image_push *p)
{
  struct err err = {0};
  if (map_blob(p, p->digest, &err) < 0) {
    fail(p, &err);
    return;
  }
  ask(p, NAMING,
      (struct fetch){.kind = "manifests",
                     .what = p->ref.tag,
                     .method = "PUT",
                     .send = p->body,
                     .send_len = p->body_len,
                     .send_type = IMAGE_TYPE_OCI_MANIFEST});
}

static void next_blob(struct image_push *p, const char *state)
{
  report(p, state);
  p->at++;
  if (p->at <= p->manifest.entries_n)
    look(p);
  else
    name_image(p);
}

static void on_done(struct fetch *f, const struct err *err)
{
  struct image_push *p = f->data;
  p->fetching = false;
  if (err || p->err.kind != ERR_NONE) {
    fail(p, err ? err : &p->err);
    return;
  }
  switch (p->step) {
  case LOOKING:
    if (f->status == 404)
      begin(p);
    else
      next_blob(p, "present");
    return;
  case BEGINNING: send_blob(p); return;
  case SENDING: next_blob(p, "sent"); return;
  case NAMING: close_all(p); return;
  }
}

/* --- the beginning --- */

static int pack(struct image_push *p, struct err *err)
{
  struct buf target = {0};
  buf_printf(&target, "oci:%s/tmp/%s/tree", image_store_root(p->conf.store), p->stage.name);
  struct image_export_conf conf = {
      .store = p->conf.store, .record = p->conf.record, .target = target.data};
  int rc = image_export(&conf, p->digest, err);
  buf_free(&target);
  if (rc == 0) rc = map_blob(p, p->digest, err);
  if (rc == 0) rc = image_manifest_parse(&p->manifest, p->body, p->body_len, NULL, err);
  return rc;
}

static int parse_name(struct image_push *p, struct err *err)
{
  int rc = image_ref_parse(&p->ref, p->conf.name, err);
  if (rc == 0 && p->ref.digest) {
    rc = err_arg(err, "name", "an image is sent to a tag, not to a digest");
    image_ref_free(&p->ref);
  }
  return rc;
}

int image_push_start(struct image_push **ret, const struct image_push_conf *conf, struct err *err)
{
  struct image_push *p = xcalloc(1, sizeof *p);
  p->conf = *conf;
  int rc = parse_name(p, err);
  if (rc < 0) {
    free(p);
    return rc;
  }
  rc = image_stage_new(conf->store, &p->stage, err);
  if (rc == 0) rc = pack(p, err);
  if (rc == 0) rc = httpc_new(&p->http, conf->loop, err);
  if (rc < 0) {
    unmap(p);
    if (p->stage.name[0]) image_stage_drop(conf->store, &p->stage);
    image_manifest_free(&p->manifest);
    image_ref_free(&p->ref);
    free(p);
    return rc;
  }
  registry_new(&p->registry, conf->loop, p->http, &p->ref, conf->settings, conf->plain_http, err);
  *ret = p;
  look(p);
  return 0;
}

void image_push_cancel(struct image_push *p)
{
  struct err err = {0};
  err_set(&err, ERR_CANCELLED, ECANCELED, "the push was interrupted");
  fail(p, &err);
}

/* Pulling an image: name → (index →) manifest → configuration → layers → store.
 *
 * Owns the HTTP client, the registry with its tokens, a lease on every layer of the image from the
 * moment its digest is known, and up to four layers under way. Documents are verified against the
 * digest that named them before they are parsed; a manifest asked for by tag defines its digest.
 * Layers that the store has are not fetched. The image is added to the store, all or nothing, when
 * its last layer is in. The first failure ends the others.
 *
 * resolving → (selecting) → configuring → fetching layers → adding → closing → done */
#include "image/pull.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "core/loop.h"
#include "image/config.h"
#include "image/digest.h"
#include "image/fetch.h"
#include "image/folders.h"
#include "image/layer_internal.h"
#include "image/manifest.h"
#include "image/part.h"
#include "image/ref.h"
#include "image/settings.h"
#include "image/store.h"
#include "net/httpc.h"

#define DOCUMENT_MAX (4 * 1024 * 1024)
#define PARALLEL_MAX 4

struct image_pull {
  struct image_pull_conf conf;
  struct image_ref ref;
  char *platform_text; /* copy that platform points into */
  struct image_platform platform;
  struct httpc *http;
  struct registry *registry;
  struct image_lease *lease;
  struct fetch fetch; /* the document under way */
  bool fetching;
  char want[IMAGE_DIGEST_SIZE]; /* of the document under way, "" = whatever the tag means */
  int64_t want_size;            /* the same, -1 = what is asked for by name */
  struct buf manifest_text, config_text;
  struct image_manifest manifest;
  struct image_config config;
  char digest[IMAGE_DIGEST_SIZE]; /* of the manifest */
  struct layer_job *jobs;         /* one per layer; only those not present run */
  bool *present;
  size_t layers_n, next, running, ready;
  uint64_t bytes, bytes_total; /* of the layers that are fetched */
  uint64_t unpacked;           /* bytes of their files */
  bool from_index;
  struct err err; /* the first failure */
};

static void close_all(struct image_pull *p);
static void start_layers(struct image_pull *p);

static void report(struct image_pull *p, const char *layer, const char *state, uint64_t bytes,
                   uint64_t total)
{
  struct image_progress progress = {.layer = layer,
                                    .state = state,
                                    .layers = p->layers_n,
                                    .layers_done = p->ready,
                                    .bytes = bytes,
                                    .bytes_total = total};
  if (p->conf.on_progress) p->conf.on_progress(p->conf.data, &progress);
}

static void fail(struct image_pull *p, const struct err *err)
{
  if (p->err.kind == ERR_NONE) p->err = *err;
  if (p->fetching) fetch_abort(&p->fetch, &p->err);
  for (size_t i = 0; i < p->next; i++)
    if (!p->present[i]) layer_cancel(&p->jobs[i], &p->err);
  if (!p->fetching && p->running == 0) close_all(p);
}

static void on_document(struct fetch *f, const struct err *err);

static int fetch_document(struct image_pull *p, const char *kind, const char *what, int64_t size,
                          const char *accept)
{
  struct err err;
  size_t endpoint = p->fetch.endpoint;
  snprintf(p->want, sizeof p->want, "%s", image_digest_valid(what) ? what : "");
  p->want_size = size;
  p->fetch = (struct fetch){.kind = kind,
                            .what = what,
                            .accept = accept,
                            .size = -1,
                            .max = DOCUMENT_MAX,
                            .on_done = on_document,
                            .data = p,
                            .endpoint = endpoint};
  p->fetching = true;
  return fetch_start(p->registry, &p->fetch, &err);
}

static int select_platform(struct image_pull *p, struct err *err)
{
  if (p->from_index) return err_set(err, ERR_UNSUPPORTED, 0, "the index holds another index");
  const struct image_desc *d = image_manifest_select(&p->manifest, &p->platform);
  if (!d) {
    err_set(err, ERR_IMAGE_NOT_FOUND, 0, "%s has no image for %s/%s", p->conf.name, p->platform.os,
            p->platform.architecture);
    struct buf have = {0};
    for (size_t i = 0; i < p->manifest.entries_n && have.len < 150; i++)
      buf_printf(&have, "%s%s/%s", i ? ", " : "",
                 p->manifest.entries[i].os ? p->manifest.entries[i].os : "?",
                 p->manifest.entries[i].architecture ? p->manifest.entries[i].architecture : "?");
    err_hint(err, "it has: %s", have.data ? have.data : "nothing");
    buf_free(&have);
    return err_errno(err);
  }
  p->from_index = true;
  int64_t size = d->size;
  snprintf(p->digest, sizeof p->digest, "%s", d->digest);
  image_manifest_free(&p->manifest);
  return fetch_document(p, "manifests", p->digest, size, IMAGE_MANIFEST_ACCEPT);
}

static int on_manifest(struct image_pull *p, struct err *err)
{
  image_digest_of(p->fetch.body.data, p->fetch.body.len, p->digest);
  int rc = image_manifest_parse(&p->manifest, p->fetch.body.data, p->fetch.body.len,
                                p->fetch.content_type, err);
  if (rc < 0) return rc;
  if (p->manifest.is_index) {
    buf_free(&p->fetch.body);
    return select_platform(p, err);
  }
  p->manifest_text = p->fetch.body;
  p->fetch.body = (struct buf){0};
  return fetch_document(p, "blobs", p->manifest.config.digest, p->manifest.config.size, NULL);
}

static int check_platform(const struct image_pull *p, struct err *err)
{
  const char *os = p->config.os ? p->config.os : "linux";
  const char *arch = p->config.architecture ? p->config.architecture : p->platform.architecture;
  if (strcmp(os, p->platform.os) == 0 && strcmp(arch, p->platform.architecture) == 0) return 0;
  return err_set(err, ERR_IMAGE_NOT_FOUND, 0, "%s is an image for %s/%s, not for %s/%s",
                 p->conf.name, os, arch, p->platform.os, p->platform.architecture);
}

static int prepare_layers(struct image_pull *p, struct err *err)
{
  p->layers_n = p->manifest.entries_n;
  p->jobs = xcalloc(p->layers_n + 1, sizeof *p->jobs);
  p->present = xcalloc(p->layers_n + 1, sizeof *p->present);
  for (size_t i = 0; i < p->layers_n; i++) {
    const struct image_desc *d = &p->manifest.entries[i];
    const char *diff_id = p->config.diff_ids.v[i];
    int rc = image_lease_layer(p->lease, diff_id, &p->present[i], err);
    if (rc < 0) return rc;
    for (size_t k = 0; k < i; k++) /* the same layer twice, as empty ones are */
      if (strcmp(p->config.diff_ids.v[k], diff_id) == 0) p->present[i] = true;
    if (p->present[i]) {
      p->ready++;
      report(p, d->digest, "present", (uint64_t)d->size, (uint64_t)d->size);
    } else {
      p->bytes_total += (uint64_t)d->size;
    }
  }
  return 0;
}

static int on_config(struct image_pull *p, struct err *err)
{
  int rc = image_config_parse(&p->config, p->fetch.body.data, p->fetch.body.len, err);
  p->config_text = p->fetch.body;
  p->fetch.body = (struct buf){0};
  if (rc == 0) rc = check_platform(p, err);
  if (rc == 0 && p->config.diff_ids.n != p->manifest.entries_n)
    rc = err_set(err, ERR_INVALID_ARGUMENT, 0,
                 "%s is malformed: the manifest has %zu layers, the configuration %zu",
                 p->conf.name, p->manifest.entries_n, p->config.diff_ids.n);
  if (rc == 0) rc = prepare_layers(p, err);
  if (rc == 0) start_layers(p);
  return rc;
}

static void on_document(struct fetch *f, const struct err *failure)
{
  struct image_pull *p = f->data;
  struct err err = {0};
  p->fetching = false;
  if (failure) {
    buf_free(&f->body);
    fail(p, failure);
    return;
  }
  buf_puts(&f->body, ""); /* an empty answer has no data otherwise */
  bool config = strcmp(f->kind, "blobs") == 0;
  char digest[IMAGE_DIGEST_SIZE];
  image_digest_of(f->body.data, f->body.len, digest);
  if (p->want[0] && strcmp(p->want, digest) != 0)
    err_set(&err, ERR_DENIED, EBADMSG, "asked for %s, the registry sent %s", p->want, digest);
  else if (p->want_size >= 0 && (size_t)p->want_size != f->body.len)
    err_set(&err, ERR_DENIED, EBADMSG, "%s has %zu bytes, what names it says %lld", p->want,
            f->body.len, (long long)p->want_size);
  else if (config)
    on_config(p, &err);
  else
    on_manifest(p, &err);
  if (err.kind == ERR_NONE) return;
  buf_free(&f->body);
  fail(p, &err);
}

static void fill_record(const struct image_pull *p, struct image_record *r)
{
  *r = (struct image_record){.layers_n = p->layers_n};
  snprintf(r->digest, sizeof r->digest, "%s", p->digest);
  snprintf(r->config, sizeof r->config, "%s", p->manifest.config.digest);
  snprintf(r->platform, sizeof r->platform, "%.20s/%.20s%s%.20s",
           p->config.os ? p->config.os : "linux",
           p->config.architecture ? p->config.architecture : "unknown",
           p->config.variant ? "/" : "", p->config.variant ? p->config.variant : "");
  r->layers = xcalloc(p->layers_n + 1, sizeof *r->layers);
  for (size_t i = 0; i < p->layers_n; i++)
    snprintf(r->layers[i], IMAGE_DIGEST_SIZE, "%s", p->config.diff_ids.v[i]);
}

static void add_image(struct image_pull *p)
{
  struct err err = {0};
  struct image_record r;
  fill_record(p, &r);
  int rc = image_store_put_blob(p->conf.store, p->digest, p->manifest_text.data,
                                p->manifest_text.len, &err);
  if (rc == 0)
    rc = image_store_put_blob(p->conf.store, r.config, p->config_text.data, p->config_text.len,
                              &err);
  if (rc == 0) rc = image_folders_settle(p->conf.store, &r, &err);
  if (rc == 0) rc = image_store_add(p->conf.store, &r, &p->ref, &err);
  image_record_free(&r);
  if (rc < 0) p->err = err;
  if (rc == 0) report(p, NULL, "done", p->bytes, p->bytes_total);
  close_all(p);
}

/* What would not stay must not fill the disk either. */
static uint64_t bytes_max(const struct image_pull *p)
{
  uint64_t max = p->conf.settings->max_bytes;
  return max && max < UNPACK_MAX_BYTES ? max : UNPACK_MAX_BYTES;
}

static void on_layer_bytes(struct layer_job *job)
{
  struct image_pull *p = job->data;
  report(p, job->desc->digest, "fetching", job->fetched, (uint64_t)job->desc->size);
}

static void on_layer_done(struct layer_job *job, const struct err *err)
{
  struct image_pull *p = job->data;
  p->running--;
  p->present[job - p->jobs] = true;
  if (err) {
    fail(p, err);
    return;
  }
  if (p->err.kind != ERR_NONE) {
    if (p->running == 0) close_all(p);
    return;
  }
  p->unpacked += job->result.bytes;
  if (p->unpacked > bytes_max(p)) {
    struct err large = {0};
    err_set(&large, ERR_PAYLOAD_TOO_LARGE, EFBIG, "%s is larger than the store may be (max_size)",
            p->conf.name);
    fail(p, &large);
    return;
  }
  p->ready++;
  p->bytes += (uint64_t)job->desc->size;
  report(p, job->desc->digest, "unpacked", job->fetched, (uint64_t)job->desc->size);
  start_layers(p);
}

static int start_layer(struct image_pull *p, size_t i, struct err *err)
{
  p->jobs[i] = (struct layer_job){.loop = p->conf.loop,
                                  .registry = p->registry,
                                  .store = p->conf.store,
                                  .desc = &p->manifest.entries[i],
                                  .diff_id = p->config.diff_ids.v[i],
                                  .max_bytes = bytes_max(p) - p->unpacked,
                                  .on_bytes = on_layer_bytes,
                                  .on_done = on_layer_done,
                                  .data = p};
  p->jobs[i].fetch.endpoint = p->fetch.endpoint;
  return layer_start(&p->jobs[i], err);
}

static void start_layers(struct image_pull *p)
{
  struct err err = {0};
  while (p->next < p->layers_n && p->running < PARALLEL_MAX) {
    size_t i = p->next++;
    if (p->present[i]) continue;
    if (start_layer(p, i, &err) < 0) {
      p->present[i] = true;
      fail(p, &err);
      return;
    }
    p->running++;
  }
  if (p->ready == p->layers_n) add_image(p);
}

/* --- beginning and end --- */

static void on_http_closed(void *data)
{
  struct image_pull *p = data;
  struct image_pull_conf conf = p->conf;
  char digest[IMAGE_DIGEST_SIZE];
  snprintf(digest, sizeof digest, "%s", p->digest);
  struct err err = p->err;
  image_ref_free(&p->ref);
  free(p->platform_text);
  image_lease_free(p->lease);
  buf_free(&p->manifest_text);
  buf_free(&p->config_text);
  image_manifest_free(&p->manifest);
  image_config_free(&p->config);
  free(p->jobs);
  free(p->present);
  free(p);
  conf.on_done(conf.data, err.kind == ERR_NONE ? digest : NULL, err.kind == ERR_NONE ? NULL : &err);
}

static void close_all(struct image_pull *p)
{
  if (!p->registry) return; /* closing already */
  registry_free(p->registry);
  p->registry = NULL;
  httpc_close(p->http, on_http_closed, p);
}

static int parse_platform(struct image_pull *p, const char *text, struct err *err)
{
  image_platform_host(&p->platform);
  if (!text) return 0;
  p->platform_text = xstrdup(text);
  char *arch = strchr(p->platform_text, '/');
  if (!arch || !arch[1])
    return err_arg(err, "platform", "\"%.60s\" is no platform: say linux/amd64 or linux/arm/v7",
                   text);
  *arch++ = '\0';
  char *variant = strchr(arch, '/');
  if (variant) *variant++ = '\0';
  p->platform = (struct image_platform){p->platform_text, arch, variant};
  return 0;
}

int image_pull_start(struct image_pull **ret, const struct image_pull_conf *conf, struct err *err)
{
  struct image_pull *p = xcalloc(1, sizeof *p);
  p->conf = *conf;
  int rc = parse_platform(p, conf->platform, err);
  if (rc == 0) rc = image_ref_parse(&p->ref, conf->name, err);
  if (rc == 0) rc = image_lease_new(conf->store, &p->lease, err);
  if (rc == 0) rc = httpc_new(&p->http, conf->loop, err);
  if (rc < 0) {
    image_lease_free(p->lease);
    image_ref_free(&p->ref);
    free(p->platform_text);
    free(p);
    return rc;
  }
  registry_new(&p->registry, conf->loop, p->http, &p->ref, conf->settings, conf->plain_http, err);
  fetch_document(p, "manifests", image_ref_selector(&p->ref), -1, IMAGE_MANIFEST_ACCEPT);
  *ret = p;
  return 0;
}

void image_pull_cancel(struct image_pull *p)
{
  struct err err = {0};
  err_set(&err, ERR_CANCELLED, ECANCELED, "the pull was interrupted");
  fail(p, &err);
}

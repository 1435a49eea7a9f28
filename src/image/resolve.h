#ifndef REGOLITH_IMAGE_RESOLVE_H
#define REGOLITH_IMAGE_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/list.h"
#include "core/loop.h"
#include "image/config.h"
#include "image/store.h"

/* From the name of an image to its layers on disk: found in the store, or pulled first. Pulls run
 * in a process of their own (`regolith image pull`), so that this one never maps curl and
 * libarchive and never parses what strangers send. */

struct image_resolver; /* one per engine */

/* An image in use, shared by all who asked for it. Its layers stay where they are until the last
 * one gives it back. */
struct image_use {
  struct image_record record;
  struct image_config config;

  /* private */
  struct image_lease *lease;
  struct image_resolver *resolver;
  struct list node; /* in image_resolver.uses */
  unsigned refs;
};
void image_use_unref(struct image_use *use); /* NULL allowed */

/* One request. Zero-initialise, set on_done and data, keep in place until on_done. */
struct image_resolve {
  /* Once, from the loop. use is the caller's to give back; NULL when err is set. */
  void (*on_done)(struct image_resolve *req, struct image_use *use, const struct err *err);
  void *data;

  /* private */
  struct list node; /* in image_pulling.waiting, or unlinked */
  struct image_pulling *pulling;
  struct image_resolver *resolver;
  struct defer answer;
  struct image_use *use;
  struct err err;
};

/* linger: a pull goes on when nobody waits for it any more, for whoever asks next. */
struct image_resolver *image_resolver_new(struct loop *loop, bool linger);
/* No request may be in flight, no image in use; pulls that nobody waits for are ended. done is
 * called once nothing is left. */
void image_resolver_close(struct image_resolver *r, void (*done)(void *data), void *data);

/* Where the layers lie: "layers" in the store. Valid once a request succeeded. */
const char *image_resolver_layers(const struct image_resolver *r);

/* An image that is in the store already, at once. NULL: it is not. */
struct image_use *image_resolver_take(struct image_resolver *r, const char *name, struct err *err);
/* Like unref, but the lease goes with the last one. */
void image_use_drop(struct image_use *use);
bool image_use_shared(const struct image_use *use); /* others use it too */

/* The program for work on images: "regolith" beside this one, or this one. out has PATH_MAX bytes.
 */
void image_find_program(char *out);

int image_resolve_start(struct image_resolver *r, struct image_resolve *req, const char *name,
                        struct err *err);
/* on_done follows with CANCELLED. A pull that nobody waits for any more is ended, unless it may
 * linger. */
void image_resolve_cancel(struct image_resolve *req);

#endif

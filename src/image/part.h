#ifndef REGOLITH_IMAGE_PART_H
#define REGOLITH_IMAGE_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/part.h"

struct image_pull;
struct image_settings;
struct image_store;
struct image_strings;
struct loop;

/* The part "image": what needs curl, libarchive and libcrypto. Everything else about images (names,
 * the store, configurations) is in the program itself. */

/* How far a pull is. */
struct image_progress {
  const char *layer; /* its digest; NULL: about the image as a whole */
  const char *state; /* "resolving", "present", "fetching", "unpacked", "done" */
  size_t layers, layers_done;
  uint64_t bytes, bytes_total; /* of the layer, or of all layers */
};

struct image_pull_conf {
  struct loop *loop;
  struct image_store *store;
  const struct image_settings *settings;
  const char *name;     /* what the user wrote */
  const char *platform; /* "linux/arm64"; NULL = this machine's */
  bool plain_http;
  void (*on_progress)(void *data, const struct image_progress *p); /* may be NULL */
  /* Once. digest: of the image's manifest, in the store now. */
  void (*on_done)(void *data, const char *digest, const struct err *err);
  void *data;
};

struct image_record;

/* The calls that follow block, but for push. */
struct image_verify_conf {
  struct image_store *store;
  const struct image_record *record;
  void (*on_fault)(void *data, const char *text); /* one sentence; may be NULL */
  void *data;
  size_t *ret_faults; /* grows by those found */
};

/* source: oci:DIR[:TAG], docker-archive:FILE, rootfs:DIR or rootfs:FILE. name NULL: as the source
 * says. */
struct image_import_conf {
  struct image_store *store;
  const char *source, *name;
  void (*on_layer)(void *data, const char *diff_id); /* one is in; may be NULL */
  void *data;
};

/* A new image: the layers of base and, above them, what the upper folder of an overlay holds. */
struct image_commit_conf {
  struct image_store *store;
  const struct image_record *base;
  int upper_fd;         /* others may go on writing to it */
  uint32_t first, rest; /* owners in it: first is root, rest and what follows are 1 and up */
  uint64_t max_bytes;   /* of all its files, holes counted; 0 = any */
  const char *name;     /* NULL: none */
  const char *note;     /* for the history of the image */
};

/* target: oci:DIR, made or added to. */
struct image_export_conf {
  struct image_store *store;
  const struct image_record *record;
  const char *target, *tag; /* tag NULL: none */
};

/* Sends an image to a registry, under the name that it has there. */
struct image_push_conf {
  struct loop *loop;
  struct image_store *store;
  const struct image_settings *settings;
  const struct image_record *record;
  const char *name;
  bool plain_http;
  /* state: "present" or "sent"; layer is the digest that it has there. May be NULL. */
  void (*on_progress)(void *data, const struct image_progress *p);
  void (*on_done)(void *data, const char *digest, const struct err *err); /* once */
  void *data;
};
struct image_push;

struct image_part {
  struct part_head head;
  int (*pull)(struct image_pull **ret, const struct image_pull_conf *conf, struct err *err);
  void (*pull_cancel)(struct image_pull *pull); /* on_done follows */
  /* Blocks while it packs the layers, then goes on on the loop. */
  int (*push)(struct image_push **ret, const struct image_push_conf *conf, struct err *err);
  void (*push_cancel)(struct image_push *push); /* on_done follows */
  int (*verify)(const struct image_verify_conf *conf, struct err *err);
  /* ret_digest: IMAGE_DIGEST_SIZE bytes */
  int (*import)(const struct image_import_conf *conf, char *ret_digest, struct err *err);
  int (*commit)(const struct image_commit_conf *conf, char *ret_digest, struct err *err);
  int (*export)(const struct image_export_conf *conf, char *ret_digest, struct err *err);
};

#endif

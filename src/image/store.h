#ifndef REGOLITH_IMAGE_STORE_H
#define REGOLITH_IMAGE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/ref.h"

struct image_config;
struct image_lease;
struct image_store;
struct buf;

/* The local image store: unpacked layers shared by all images, small documents, names. Safe for any
 * number of processes at once; a crash or a power cut at any moment leaves the old or the new
 * state. Blocking calls, all short: trees are removed only by image_store_gc and image_store_rm. */

#define IMAGE_LAYER_ID_SIZE 29 /* 28 hex digits of the layer's digest + NUL */

/* Appends the folder that holds state: $XDG_STATE_HOME/regolith, /var/lib/regolith for root without
 * that variable, ~/.local/state/regolith otherwise. */
int image_state_folder(struct buf *out, struct err *err);

/* root NULL: "images" in the state folder. Missing folders are made. */
int image_store_open(struct image_store **ret, const char *root, struct err *err);
void image_store_close(struct image_store *store);
const char *image_store_root(const struct image_store *store);
int image_store_fd(const struct image_store *store); /* of the root folder; the store's */

/* Overlay marks are user.overlay.* instead of trusted.overlay.*: for mounts with "userxattr". */
bool image_store_user_xattrs(const struct image_store *store);

/* The folder of a layer below "layers/" in the root. */
void image_layer_id(const char *diff_id, char out[IMAGE_LAYER_ID_SIZE]);

/* One image in the store. */
struct image_record {
  char digest[IMAGE_DIGEST_SIZE];    /* of its manifest */
  char config[IMAGE_DIGEST_SIZE];    /* of its configuration, a blob of the store */
  char platform[64];                 /* "linux/amd64", "linux/arm/v7" */
  char (*layers)[IMAGE_DIGEST_SIZE]; /* owned: diff_ids, lowest first */
  size_t layers_n;
  int64_t added_at, used_at; /* seconds since the epoch */
};

void image_record_free(struct image_record *r);

/* By reference, digest, or the beginning of a digest. IMAGE_NOT_FOUND where there is none. */
int image_store_find(struct image_store *store, const char *name, struct image_record *ret,
                     struct err *err);

/* Every image. The records are the store's; valid during the call. */
int image_store_each(struct image_store *store,
                     int (*fn)(void *data, const struct image_record *r, struct err *err),
                     void *data, struct err *err);

/* Every name, with the digest it stands for. */
int image_store_each_ref(struct image_store *store,
                         int (*fn)(void *data, const char *ref, const char *digest,
                                   struct err *err),
                         void *data, struct err *err);

int image_store_config(struct image_store *store, const struct image_record *r,
                       struct image_config *ret, struct err *err);

/* What a layer takes unpacked, and how many entries it has; 0 where unknown. */
void image_store_layer_size(struct image_store *store, const char *diff_id, uint64_t *ret_bytes,
                            uint64_t *ret_entries);

/* A lease keeps layers from being collected while this process lives and holds it. */
int image_lease_new(struct image_store *store, struct image_lease **ret, struct err *err);
void image_lease_free(struct image_lease *lease);

/* Takes the layer into the lease, and says whether the store has it. */
int image_lease_layer(struct image_lease *lease, const char *diff_id, bool *ret_present,
                      struct err *err);

/* Finds the image and leases all it needs, in one step. */
int image_store_acquire(struct image_store *store, const char *name, struct image_record *ret,
                        struct image_lease **ret_lease, struct err *err);

/* A place to unpack a layer in. */
struct image_stage {
  char name[32]; /* below "tmp/" */
  int dir_fd;    /* locked while in use */
  int tree_fd;   /* the layer's root */
  int list_fd;   /* the layer's list of entries */
};
int image_stage_new(struct image_store *store, struct image_stage *ret, struct err *err);
/* The list begins with a line of this length, which commit fills in. */
#define IMAGE_LIST_HEAD 192

/* Makes it the layer diff_id (one that exists already wins) and ends the stage. bytes and entries
 * are for people: what it takes unpacked. */
int image_stage_commit(struct image_store *store, struct image_stage *stage, const char *diff_id,
                       uint64_t bytes, uint64_t entries, struct err *err);
void image_stage_drop(struct image_store *store, struct image_stage *stage);

/* Opens the list of entries of a layer for reading. */
int image_store_open_list(struct image_store *store, const char *diff_id, struct err *err);
/* Opens the root of a layer. */
int image_store_open_layer(struct image_store *store, const char *diff_id, struct err *err);

/* Small documents, by digest. The caller has verified data. */
int image_store_put_blob(struct image_store *store, const char *digest, const void *data,
                         size_t len, struct err *err);
int image_store_get_blob(struct image_store *store, const char *digest, struct buf *out,
                         struct err *err);

/* Makes the image known, once all its layers and blobs are in: flushes them to disk first. ref NULL
 * = no name. */
int image_store_add(struct image_store *store, const struct image_record *r,
                    const struct image_ref *ref, struct err *err);
int image_store_tag(struct image_store *store, const struct image_ref *ref, const char *digest,
                    struct err *err);

/* Removes the leavings of pulls whose process died. */
int image_store_tidy(struct image_store *store, struct err *err);

struct image_gc_result {
  size_t images, layers;
  uint64_t bytes;
  bool in_use; /* something asked for stays, because a live sandbox or a pull needs it */
};

/* Removes images without a name, layers without an image and the leavings of processes that died;
 * then, least recently used first, images until the layers take at most max_bytes (0 = any). Never
 * what a lease names. */
int image_store_gc(struct image_store *store, uint64_t max_bytes, struct image_gc_result *ret,
                   struct err *err);

/* Removes a name and, when it was the last of its image, the image; a digest: the image and all its
 * names. */
int image_store_rm(struct image_store *store, const char *name, struct image_gc_result *ret,
                   struct err *err);

/* Removes everything below and at name in dir_fd, not following links and not leaving the file
 * system. */
int image_tree_remove(int dir_fd, const char *name, struct err *err);

#endif

#ifndef REGOLITH_IMAGE_STORE_INTERNAL_H
#define REGOLITH_IMAGE_STORE_INTERNAL_H

#include <limits.h>

#include "base/list.h"
#include "image/store.h"

/* What store.c, store_write.c and store_gc.c share. */

struct image_store {
  char *root;       /* owned: absolute path */
  int fd;           /* the root folder */
  bool user_xattrs; /* see image_store_user_xattrs */
  char boot[17];    /* the first 16 digits of the boot id */
};

/* Takes the store's lock, LOCK_SH or LOCK_EX; the result is closed to release it. */
int store_lock(struct image_store *store, int how, struct err *err);

/* The same with another file: "commit" is held while one layer is put into its place. */
int store_lock_file(struct image_store *store, const char *name, int how, struct err *err);

/* The path of a reference below the root: refs/DOMAIN/PATH/:TAG or …/@DIGEST. */
int store_ref_path(const struct image_ref *ref, char out[PATH_MAX], struct err *err);

/* Reads a small file below the root. */
int store_read(struct image_store *store, const char *path, struct buf *out, struct err *err);

/* Writes a file below the root so that it is there whole or not at all. The lock is held. */
int store_write(struct image_store *store, const char *path, const void *data, size_t len,
                struct err *err);
int store_fsync_dir(struct image_store *store, const char *path, struct err *err);

bool store_has_layer(struct image_store *store, const char *diff_id);

/* store_find without the lock. */
int store_find(struct image_store *store, const char *name, struct image_record *ret,
               struct err *err);

struct image_lease {
  struct image_store *store;
  int fd;        /* locked */
  char name[32]; /* below "leases/" */
};

int store_lease_new(struct image_store *store, struct image_lease **ret, struct err *err);
#endif

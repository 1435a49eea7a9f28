#ifndef REGOLITH_IMAGE_UNPACK_H
#define REGOLITH_IMAGE_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/ref.h"

struct unpack_limits {
  uint64_t max_bytes;   /* of all files as they appear, holes included */
  uint64_t max_entries; /* in the archive */
};
#define UNPACK_MAX_BYTES   (UINT64_C(256) << 30)
#define UNPACK_MAX_ENTRIES UINT64_C(20000000)

struct unpack_conf {
  /* The compressed or plain archive, in pieces; *ret stays valid until the next call. Returns its
   * length, 0 at the end, or a negative errno with err set. Blocks. */
  ssize_t (*read)(void *source, const void **ret, struct err *err);
  void *source;
  int tree_fd;      /* an empty folder: the layer's root */
  int list_fd;      /* gets the list of entries from IMAGE_LIST_HEAD on; -1 = none */
  bool user_xattrs; /* marks of overlays are user.overlay.*, not trusted.overlay.* */
  bool chown;       /* give files the owners the archive says */
  struct unpack_limits limits;
};

struct unpack_result {
  char blob[IMAGE_DIGEST_SIZE];    /* of what was read */
  char diff_id[IMAGE_DIGEST_SIZE]; /* of the uncompressed archive */
  uint64_t blob_bytes, archive_bytes;
  uint64_t bytes, entries; /* on disk */
  uint64_t devices;        /* left out */
};

/* Unpacks one layer (tar; plain, gzip or zstd) into overlay form, while it arrives. On failure the
 * folder holds part of it. The caller compares the digests before it uses anything. */
int image_unpack(const struct unpack_conf *conf, struct unpack_result *ret, struct err *err);

#endif

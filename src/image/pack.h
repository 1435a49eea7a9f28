#ifndef REGOLITH_IMAGE_PACK_H
#define REGOLITH_IMAGE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* How owners are to be read: first is 0, rest and what follows are 1 and what follows. */
struct pack_ids {
  uint32_t first, rest;
};

struct pack_conf {
  int tree_fd;      /* the folder */
  bool overlay;     /* it is a layer of the store: whiteouts and opaque folders become entries */
  bool user_xattrs; /* see unpack_conf */
  int out_fd;       /* gets the archive */
  bool gzip;
  /* Somebody goes on writing to it: what vanishes is left out, what shrinks is filled with zeros.
   */
  bool live;
  uint64_t max_bytes;         /* of all files, holes counted; 0 = any */
  const struct pack_ids *ids; /* NULL: owners are as they are */
};

struct pack_result {
  char blob[72], diff_id[72]; /* digests of what was written, and of it before compression */
  uint64_t blob_bytes;
};

/* Writes a folder as a tar archive, in the order of its names: the same folder gives the same
 * bytes. Blocks. */
int image_pack(const struct pack_conf *conf, struct pack_result *ret, struct err *err);

#endif

#ifndef REGOLITH_IMAGE_PACK_H
#define REGOLITH_IMAGE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pack_conf {
  int tree_fd;      /* the folder */
  bool overlay;     /* it is a layer of the store: whiteouts and opaque folders become entries */
  bool user_xattrs; /* see unpack_conf */
  int out_fd;       /* gets the archive */
  bool gzip;
};

struct pack_result {
  char blob[72], diff_id[72]; /* digests of what was written, and of it before compression */
  uint64_t blob_bytes;
};

/* Writes a folder as a tar archive, in the order of its names: the same folder gives the same
 * bytes. Blocks. */
int image_pack(const struct pack_conf *conf, struct pack_result *ret, struct err *err);

#endif

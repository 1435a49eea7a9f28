#ifndef REGOLITH_IMAGE_MANIFEST_H
#define REGOLITH_IMAGE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define IMAGE_TYPE_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define IMAGE_TYPE_OCI_INDEX    "application/vnd.oci.image.index.v1+json"
#define IMAGE_TYPE_OCI_CONFIG   "application/vnd.oci.image.config.v1+json"
#define IMAGE_TYPE_OCI_LAYER    "application/vnd.oci.image.layer.v1.tar"
#define IMAGE_TYPE_V2_MANIFEST  "application/vnd.docker.distribution.manifest.v2+json"
#define IMAGE_TYPE_V2_LIST      "application/vnd.docker.distribution.manifest.list.v2+json"

/* What we can read, as an Accept header. */
#define IMAGE_MANIFEST_ACCEPT                                                                      \
  IMAGE_TYPE_OCI_MANIFEST ", " IMAGE_TYPE_V2_MANIFEST ", " IMAGE_TYPE_OCI_INDEX                    \
                          ", " IMAGE_TYPE_V2_LIST

/* A blob, as a manifest names it. */
struct image_desc {
  char *media_type;                  /* owned, may be NULL */
  char *digest;                      /* owned, valid sha256 */
  int64_t size;                      /* bytes, >= 0 */
  char *os, *architecture, *variant; /* owned, of an index entry; NULL = not said */
};

/* A manifest, or an index of manifests. */
struct image_manifest {
  bool is_index;
  struct image_desc config;   /* of a manifest */
  struct image_desc *entries; /* owned: layers, lowest first, or the manifests of an index */
  size_t entries_n;
};

/* Parses both OCI and Docker schema 2. content_type is what the server said, or NULL. Refuses what
 * is no container image, and says which of the known other things it is. */
int image_manifest_parse(struct image_manifest *ret, const char *text, size_t len,
                         const char *content_type, struct err *err);
void image_manifest_free(struct image_manifest *m);

struct image_platform {
  const char *os, *architecture, *variant; /* variant may be NULL */
};

/* This machine's. */
void image_platform_host(struct image_platform *ret);

/* The index entry for the platform: the same variant first, then any. NULL: none. */
const struct image_desc *image_manifest_select(const struct image_manifest *index,
                                               const struct image_platform *platform);

#endif

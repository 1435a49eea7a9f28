#ifndef REGOLITH_IMAGE_DIGEST_H
#define REGOLITH_IMAGE_DIGEST_H

#include <stddef.h>

#include "image/ref.h"

/* SHA-256, streamed. */
struct image_digest;
struct image_digest *image_digest_new(void);
void image_digest_add(struct image_digest *d, const void *data, size_t len);
/* Writes "sha256:…" and starts anew. */
void image_digest_end(struct image_digest *d, char out[IMAGE_DIGEST_SIZE]);
void image_digest_free(struct image_digest *d);

/* Of one piece of memory. */
void image_digest_of(const void *data, size_t len, char out[IMAGE_DIGEST_SIZE]);

#endif

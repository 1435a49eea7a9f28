/* SHA-256 by libcrypto, which curl brings along anyway and which uses the processor's own
 * instructions for it. Failure of any call means that libcrypto is unusable: there is nothing a
 * caller could do but die, so that no digest is ever taken for verified by accident. */
#include "image/digest.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct image_digest {
  EVP_MD_CTX *ctx;
};

static void must(int ok)
{
  if (ok == 1) return;
  fputs("regolith: libcrypto cannot compute SHA-256\n", stderr);
  abort();
}

struct image_digest *image_digest_new(void)
{
  struct image_digest *d = malloc(sizeof *d);
  must(d != NULL);
  d->ctx = EVP_MD_CTX_new();
  must(d->ctx != NULL);
  must(EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL));
  return d;
}

void image_digest_add(struct image_digest *d, const void *data, size_t len)
{
  must(EVP_DigestUpdate(d->ctx, data, len));
}

void image_digest_end(struct image_digest *d, char out[IMAGE_DIGEST_SIZE])
{
  unsigned char raw[32];
  unsigned len = 0;
  must(EVP_DigestFinal_ex(d->ctx, raw, &len));
  must(len == sizeof raw);
  must(EVP_DigestInit_ex(d->ctx, NULL, NULL));
  static const char hex[] = "0123456789abcdef";
  memcpy(out, "sha256:", 7);
  for (size_t i = 0; i < sizeof raw; i++) {
    out[7 + 2 * i] = hex[raw[i] >> 4];
    out[8 + 2 * i] = hex[raw[i] & 15];
  }
  out[IMAGE_DIGEST_SIZE - 1] = '\0';
}

void image_digest_free(struct image_digest *d)
{
  if (!d) return;
  EVP_MD_CTX_free(d->ctx);
  free(d);
}

void image_digest_of(const void *data, size_t len, char out[IMAGE_DIGEST_SIZE])
{
  struct image_digest *d = image_digest_new();
  image_digest_add(d, data, len);
  image_digest_end(d, out);
  image_digest_free(d);
}

#ifndef REGOLITH_IMAGE_REF_H
#define REGOLITH_IMAGE_REF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct buf;

#define IMAGE_DIGEST_SIZE 72 /* "sha256:" + 64 + NUL */

/* The name of an image in a registry, in full: defaults are filled in. All strings owned. */
struct image_ref {
  char *domain; /* "docker.io", "127.0.0.1:5000" */
  char *path;   /* "library/python" */
  char *tag;    /* "3.11"; NULL when only a digest was given */
  char *digest; /* "sha256:…", NULL = none; it decides where both are given */
};

/* Parses what people write. "python" is docker.io/library/python:latest. */
int image_ref_parse(struct image_ref *ret, const char *text, struct err *err);
void image_ref_free(struct image_ref *ref);
void image_ref_copy(struct image_ref *ret, const struct image_ref *ref);

/* Appends the full form: docker.io/library/python:3.11[@sha256:…]. */
void image_ref_print(struct buf *out, const struct image_ref *ref);

/* The tag or digest that names the manifest in a request. */
const char *image_ref_selector(const struct image_ref *ref);

/* sha256: and 64 lower-case hex digits. */
bool image_digest_valid(const char *digest);

/* Whether text could be a digest or the first (at least 6) hex digits of one, with or without
 * "sha256:". ret_hex points behind the prefix. */
bool image_digest_prefix(const char *text, const char **ret_hex);

#endif

#ifndef REGOLITH_IMAGE_CONFIG_H
#define REGOLITH_IMAGE_CONFIG_H

#include <stddef.h>

#include "base/err.h"

/* An array of owned strings. */
struct image_strings {
  char **v;
  size_t n;
};

void image_strings_add(struct image_strings *s, const char *item); /* copies */
void image_strings_free(struct image_strings *s);

/* What an image says about how to run it (the OCI image configuration, which is Docker's too).
 * Strings are owned; NULL and empty lists where the image says nothing. */
struct image_config {
  char *os, *architecture, *variant;
  char *created;            /* as written, RFC 3339 */
  struct image_strings env; /* KEY=VALUE */
  struct image_strings entrypoint, cmd;
  char *working_dir, *user, *stop_signal;
  struct image_strings ports;    /* "8000/tcp" */
  struct image_strings labels;   /* KEY=VALUE */
  struct image_strings diff_ids; /* digests of the uncompressed layers, lowest first */
};

int image_config_parse(struct image_config *ret, const char *text, size_t len, struct err *err);
void image_config_free(struct image_config *config);

#endif

#ifndef REGOLITH_IMAGE_SETTINGS_H
#define REGOLITH_IMAGE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/config.h"

/* What the user's images.json says about one registry. */
struct image_registry {
  char *domain;                 /* owned: "docker.io", "127.0.0.1:5000" */
  struct image_strings mirrors; /* base URLs, tried in order before the registry itself */
  bool plain_http;              /* http:// instead of https:// */
  char *ca;                     /* owned: file of the authorities to trust; NULL = the system's */
};

/* When an image is fetched that a sandbox asks for. */
enum image_policy { IMAGE_PULL_MISSING, IMAGE_PULL_ALWAYS, IMAGE_PULL_NEVER };

struct image_settings {
  struct image_registry *registries; /* owned */
  size_t registries_n;
  enum image_policy policy;
  uint64_t max_bytes; /* of all layers; past it the least recently used images go; 0 = no limit */
};

/* Reads $REGOLITH_IMAGES_JSON, else regolith/images.json in $XDG_CONFIG_HOME or ~/.config, else
 * /etc/regolith/images.json. No file at all is fine. $REGOLITH_PULL goes before the file's "pull".
 */
int image_settings_load(struct image_settings *ret, struct err *err);
int image_settings_parse(struct image_settings *ret, const char *text, size_t len, struct err *err);
void image_settings_free(struct image_settings *s);
const struct image_registry *image_settings_find(const struct image_settings *s,
                                                 const char *domain);

/* "missing", "always", "never". */
int image_policy_parse(const char *text, enum image_policy *ret, struct err *err);

/* "20GiB", "500MiB", "1000000": bytes. */
int image_size_parse(const char *text, uint64_t *ret, struct err *err);

#endif

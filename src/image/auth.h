#ifndef REGOLITH_IMAGE_AUTH_H
#define REGOLITH_IMAGE_AUTH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* What the user has for a registry. All owned; all NULL = nothing: anonymous. */
struct image_credential {
  char *user, *password;
  char *identity_token; /* instead of both: an OAuth2 refresh token */
};

/* Looks where Docker and podman keep them: the auth.json of containers, then Docker's config.json
 * with its credential helpers. Blocks while a helper runs. No entry is no error. */
int image_credential_find(const char *domain, struct image_credential *ret, struct err *err);
/* The same with the text of one such file. ret_helper: the helper to ask, or NULL; the caller's. */
int image_credential_parse(const char *text, size_t len, const char *domain,
                           struct image_credential *ret, char **ret_helper, struct err *err);
void image_credential_free(struct image_credential *c);

/* What a WWW-Authenticate header asks for. All owned. */
struct image_challenge {
  bool bearer, basic;
  char *realm, *service, *scope; /* of Bearer */
};
void image_challenge_parse(const char *header, struct image_challenge *ret);
void image_challenge_free(struct image_challenge *c);

#endif

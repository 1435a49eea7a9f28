/* libFuzzer harness for all that images parse from text of strangers: references, manifests,
 * configurations, settings, credential files, login challenges. What is accepted must hold what the
 * rest relies on. The first byte says which parser.
 *
 *   make fuzz FUZZ_SECONDS=60 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "image/auth.h"
#include "image/config.h"
#include "image/manifest.h"
#include "image/ref.h"
#include "image/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A reference becomes a path of the store and part of a URL, and reads back as itself. */
static void try_ref(const char *text)
{
  struct image_ref ref, again;
  struct buf full = {0}, twice = {0};
  if (image_ref_parse(&ref, text, NULL) < 0) return;
  image_ref_print(&full, &ref);
  if (strstr(full.data, "/.") || strpbrk(full.data, " \n\t?#%\\\"'") || full.data[0] == '/')
    abort();
  if (image_ref_parse(&again, full.data, NULL) < 0) abort();
  image_ref_print(&twice, &again);
  if (strcmp(full.data, twice.data) != 0) abort();
  image_ref_free(&ref);
  image_ref_free(&again);
  buf_free(&full);
  buf_free(&twice);
}

static void try_manifest(const char *text, size_t len)
{
  struct image_manifest m;
  struct image_platform here;
  if (image_manifest_parse(&m, text, len, NULL, NULL) < 0) return;
  image_platform_host(&here);
  for (size_t i = 0; i < m.entries_n; i++)
    if (!image_digest_valid(m.entries[i].digest) || m.entries[i].size < 0) abort();
  if (!m.is_index && !image_digest_valid(m.config.digest)) abort();
  if (m.is_index) image_manifest_select(&m, &here);
  image_manifest_free(&m);
}

static void try_config(const char *text, size_t len)
{
  struct image_config c;
  if (image_config_parse(&c, text, len, NULL) < 0) return;
  for (size_t i = 0; i < c.diff_ids.n; i++)
    if (!image_digest_valid(c.diff_ids.v[i])) abort();
  for (size_t i = 0; i < c.env.n; i++)
    if (!strchr(c.env.v[i], '=') || c.env.v[i][0] == '=') abort();
  image_config_free(&c);
}

static void try_rest(uint8_t which, const char *text, size_t len)
{
  struct image_settings settings;
  struct image_credential credential;
  struct image_challenge challenge;
  char *helper = NULL;
  if (which == 3 && image_settings_parse(&settings, text, len, NULL) == 0)
    image_settings_free(&settings);
  if (which == 4 &&
      image_credential_parse(text, len, "docker.io", &credential, &helper, NULL) == 0) {
    image_credential_free(&credential);
    free(helper);
  }
  if (which == 5) {
    image_challenge_parse(text, &challenge);
    image_challenge_free(&challenge);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
  if (len == 0) return 0;
  char *text = malloc(len);
  if (!text) return 0;
  memcpy(text, data + 1, len - 1);
  text[len - 1] = '\0';
  uint8_t which = data[0] % 6;
  if (which == 0) try_ref(text);
  if (which == 1) try_manifest(text, len - 1);
  if (which == 2) try_config(text, len - 1);
  try_rest(which, text, len - 1);
  free(text);
  return 0;
}

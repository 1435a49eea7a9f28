/* The tiers as data. Prices are integer millionths of a dollar everywhere; only what is shown to
 * people is divided. */
#include "wire/tier.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "wire/schema.h"

#define VCPU(n) ((n)*1000u)
#define GIB(n)  ((n)*1024u)
#define USD(n)  ((int64_t)((n)*1000000.0 + 0.5))

static const struct tier tiers[] = {
    {"CPU", VCPU(1), GIB(1), USD(0.01), USD(0.10)},
    {"T4", VCPU(8), GIB(32), USD(0.05), USD(1.50)},
    {"L4", VCPU(8), GIB(32), USD(0.08), USD(2.00)},
    {"A10G", VCPU(8), GIB(32), USD(0.10), USD(2.50)},
    {"A100", VCPU(8), GIB(32), USD(0.20), USD(4.00)},
    {"H100", VCPU(8), GIB(32), USD(0.40), USD(8.00)},
};
#define TIERS (sizeof tiers / sizeof *tiers)

static const struct tier further = {"further", VCPU(8), GIB(32), USD(0.40), USD(8.00)};

const struct tier *tier_further(void)
{
  return &further;
}

size_t tier_count(void)
{
  return TIERS;
}

const struct tier *tier_at(size_t i)
{
  return i < TIERS ? &tiers[i] : NULL;
}

const struct tier *tier_cpu(void)
{
  return &tiers[0];
}

static const struct tier *find_gpu(const char *name, size_t len)
{
  for (size_t i = 1; i < TIERS; i++)
    if (strlen(tiers[i].name) == len && strncasecmp(tiers[i].name, name, len) == 0)
      return &tiers[i];
  return NULL;
}

const struct tier *tier_find_gpu(const char *name)
{
  return find_gpu(name, strlen(name));
}

int tier_parse_gpu(const char *text, const char *path, const struct tier **ret_tier,
                   unsigned *ret_units, struct err *err)
{
  const char *colon = strrchr(text, ':');
  size_t len = colon ? (size_t)(colon - text) : strlen(text);
  const struct tier *tier = find_gpu(text, len);
  const char *inner = strpbrk(text, " /");
  if (!tier && len <= TIER_NAME_MAX && inner && inner > text && inner + 1 < text + len)
    tier = &further;
  /* One digit: TIER_MAX_UNITS is below ten. */
  unsigned units = 1;
  if (colon) units = colon[1] && !colon[2] ? (unsigned)(colon[1] - '0') : 0;
  if (!tier || units < 1 || units > TIER_MAX_UNITS) {
    struct val shown = val_str(text);
    int rc =
        field_wrong(err, path, &shown,
                    "one of T4, L4, A10G, A100, H100 (or the name that sandbox.gpus() shows of "
                    "another card), with a count up to %d if more than one is wanted "
                    "(\"A100:2\")",
                    TIER_MAX_UNITS);
    val_free(&shown);
    return rc;
  }
  *ret_tier = tier;
  *ret_units = units;
  return 0;
}

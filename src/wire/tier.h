#ifndef REGOLITH_WIRE_TIER_H
#define REGOLITH_WIRE_TIER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* What a sandbox can run on, and what that costs: CPU, or a GPU class. */
struct tier {
  const char *name;          /* "CPU", "T4", … */
  uint32_t cpu_milli;        /* the envelope of one unit */
  uint32_t mem_mib;          /* likewise */
  int64_t burst_microusd;    /* per create with a timeout up to TIER_BURST_S */
  int64_t per_hour_microusd; /* of requested timeout, beyond that */
};

#define TIER_BURST_S   300
#define TIER_MAX_UNITS 8
#define TIER_NAME_MAX  80

size_t tier_count(void);
const struct tier *tier_at(size_t i); /* 0 is CPU, then the GPU classes, cheapest first */
const struct tier *tier_cpu(void);
const struct tier *tier_find_gpu(const char *name); /* any case; NULL: unknown */

/* Any other card, by its product's own name ("NVIDIA L40S"): what is priced costs what the dearest
 * tier costs. */
const struct tier *tier_further(void);

/* Reads "T4", "t4", "A100:2", or a product's own name, which has a space or a slash. Fails with
 * INVALID_ARGUMENT naming path. */
int tier_parse_gpu(const char *text, const char *path, const struct tier **ret_tier,
                   unsigned *ret_units, struct err *err);

#endif

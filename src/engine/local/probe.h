#ifndef REGOLITH_ENGINE_LOCAL_PROBE_H
#define REGOLITH_ENGINE_LOCAL_PROBE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* What this machine offers the local engine. Everything that can be tried is tried, in a child
 * process, rather than concluded from versions; nothing is left behind. Takes some 20 ms. */

enum probe_state { PROBE_OK, PROBE_DEGRADED, PROBE_MISSING };

struct probe_item {
  const char *name; /* static: "user namespaces" */
  enum probe_state state;
  bool required;   /* without it there are no sandboxes */
  char found[200]; /* what is there, or why not */
  char lost[200];  /* what does not work for want of it, "" = nothing */
  char mend[256];  /* the command or setting that mends it, "" = none needed or known */
};

#define PROBE_ITEMS_MAX 64

struct probe {
  size_t n;
  struct probe_item items[PROBE_ITEMS_MAX];
};

void probe_machine(struct probe *ret);

/* The first thing without which there are no sandboxes; NULL: they can be made. */
const struct probe_item *probe_blocker(const struct probe *probe);

/* For a failure to make sandboxes: looks at the machine and, when it finds the reason there, makes
 * it the error (engine_unavailable, with the way out and `regolith doctor` as hint). Returns true
 * when it did. */
bool probe_explain(struct err *err);

const char *probe_state_name(enum probe_state state); /* "ok", "degraded", "missing" */

#endif

#ifndef REGOLITH_HOST_GRANTS_H
#define REGOLITH_HOST_GRANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct create_args;
struct strv;
struct val;

/* What scripts may do, and how much of it. Everything is refused that is not granted here.
 * grants.def lists what there is: one line drives the option, the setting in the configuration
 * file, the help text and the reading of the value; grants_check.c enforces it. */
struct grants; /* the members are in host/grants_internal.h */

/* One choice on the command line, in its order. */
struct grant_choice {
  const char *option; /* without dashes: "allow-engine" */
  const char *value;
};

/* Profile first, then the configuration, then the choices: lists grow, all else is replaced.
 *   profile  NULL: the configuration's, else "agent": the local engine and image, nothing of the
 *            host. "trusted": what whoever starts it may do.
 *   config   a Lua file that returns a table of settings; NULL: the user's own, where there is one
 * INVALID_ARGUMENT names the option, or the file and the setting. */
int grants_new(struct grants **ret, const char *profile, const char *config,
               const struct grant_choice *choices, size_t choices_n, struct err *err);
void grants_free(struct grants *grants);

/* What the host and the command line read of it. */
const char *grants_engine(const struct grants *grants); /* default ones; NULL = not chosen */
const char *grants_image(const struct grants *grants);
const struct val *grants_engines(const struct grants *grants); /* `engines` of the configuration */
const struct strv *grants_env(const struct grants *grants);
const struct strv *grants_read_dirs(const struct grants *grants);
const struct strv *grants_write_dirs(const struct grants *grants);

/* Bounds; 0 = none. */
struct grant_bounds {
  uint32_t max_sandboxes; /* alive at once */
  uint32_t max_timeout_s; /* of one sandbox, extends included */
  uint32_t ops_per_s;
  bool cost_capped;
  int64_t max_microusd;
  uint64_t mem_bytes, timeout_ms, grace_ms, cpu_ms; /* of the script itself */
};
void grants_bounds(const struct grants *grants, struct grant_bounds *ret);

/* As owner_conf.admit of sandbox/supervisor.h, with the grants as data. */
int grants_admit_create(void *grants, const struct val *asked, struct create_args *args,
                        struct err *err);

/* As owner_conf.admit_name. */
int grants_admit_name(void *grants, const char *name, struct err *err);

/* Whether a request to this host (a name or an address, as in the URL) may be made. DENIED. */
int grants_admit_http(const struct grants *grants, const char *host, uint16_t port,
                      struct err *err);
/* Whether a connection to this address may be opened for it: public ones may, others only where
 * they are granted by their own name. */
struct sockaddr;
bool grants_admit_address(const struct grants *grants, const struct sockaddr *addr, uint16_t port);
/* The token that is added to requests to this host; NULL = none. */
const char *grants_secret(const struct grants *grants, const char *host, uint16_t port);

/* Reads NAME=VALUE, or NAME for a variable of our own environment, into ret; label leads the
 * message. */
int grants_read_env(struct strv *ret, const char *entry, const char *label, struct err *err);

#endif

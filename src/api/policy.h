#ifndef REGOLITH_API_POLICY_H
#define REGOLITH_API_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct create_args;
struct strv;
struct val;

/* What tenants may ask of the machine that serves them. */
struct policy {
  const struct strv *volumes; /* "NAME=/DIR" or "NAME=/DIR:ro" by the operator; NULL = none */
  bool host_image;            /* image = "host" may be asked for */
  uint32_t machine_cpu_milli, machine_mem_mib; /* of the local engine; 0 = unknown */
};

/* The operator's volume entry, NAME=/DIR[:ro]. */
int policy_check_volume(const char *entry, struct err *err);

/* As owner_conf.admit and admit_name of sandbox/supervisor.h, with the policy as data: refuses what
 * only the operator may name, fills in the tier's envelope, and bounds by it. */
int policy_admit(void *policy, const struct val *asked, struct create_args *args, struct err *err);
int policy_admit_name(void *policy, const char *name, struct err *err);

#endif

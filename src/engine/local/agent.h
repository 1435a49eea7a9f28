#ifndef REGOLITH_ENGINE_LOCAL_AGENT_H
#define REGOLITH_ENGINE_LOCAL_AGENT_H

#include <stdbool.h>

/* What the warden's clone starts with. */
struct agent_boot {
  int sync_fd; /* gives PROTO_GO */
  bool into;   /* cloned with CLONE_INTO_CGROUP */
};

/* Process 1 of a box; runs in the process that the warden has just cloned. */
void agent_main(const struct agent_boot *boot) __attribute__((noreturn));

#endif

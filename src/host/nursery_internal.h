#ifndef REGOLITH_HOST_NURSERY_INTERNAL_H
#define REGOLITH_HOST_NURSERY_INTERNAL_H

#include <stdint.h>

/* What host and nursery say to each other: one struct a SOCK_SEQPACKET message, both sides being
 * this program. SPAWN carries the worker's end of its socket pair by SCM_RIGHTS. */
enum nursery_verb { NURSERY_SPAWN = 1, NURSERY_KILL, NURSERY_STARTED, NURSERY_EXITED };

struct nursery_message {
  uint32_t verb;
  int32_t code, signal;  /* EXITED; code is a positive errno where start_failed */
  uint32_t start_failed; /* EXITED: it never ran */
  uint64_t token;
  uint64_t mem_bytes; /* SPAWN */
  uint32_t cpu_s;     /* SPAWN */
  uint32_t pad;
  uint64_t cpu_us, max_rss_kib; /* EXITED */
  char name[48];                /* SPAWN: for ps */
};

int nursery_process_main(int sock);

/* Puts the calling process where a script may run: no privilege, no file system, no network, and a
 * handful of system calls. fd is moved to descriptor 3 and is the only one left. Returns 0, or a
 * negative errno where a wall did not go up. */
int worker_walls(int fd, uint64_t token, const struct nursery_message *request);

#endif

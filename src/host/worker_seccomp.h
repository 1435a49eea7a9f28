#ifndef REGOLITH_HOST_WORKER_SECCOMP_H
#define REGOLITH_HOST_WORKER_SECCOMP_H

/* The system calls of a worker process: those that a Lua state and an event loop on one socket
 * make. */
int worker_seccomp_load(void);

#endif

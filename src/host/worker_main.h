#ifndef REGOLITH_HOST_WORKER_MAIN_H
#define REGOLITH_HOST_WORKER_MAIN_H

/* What runs in a worker process, once its walls are up: one script, whose ops go over fd to the
 * host. Returns the exit status of the process. */
int worker_main(int fd);

#endif

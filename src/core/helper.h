#ifndef REGOLITH_CORE_HELPER_H
#define REGOLITH_CORE_HELPER_H

#include <sys/types.h>

#include "base/err.h"

/* Helper processes: started with an empty environment and none of our descriptors, titled
 * "regolith: NAME", tied to us by one SOCK_SEQPACKET socket and nothing else. A helper learns that
 * we are gone from end-of-file there. */

struct helper {
  pid_t pid; /* our child; whoever started it reaps it */
  int fd;    /* our end of the socket, close-on-exec; -1 = none */
};

/* What a helper runs; its return value is the exit status. sock is blocking and close-on-exec. */
typedef int helper_main_fn(int sock);

/* Forks. Cheap only while this process is small: before configuration and libraries are loaded. */
int helper_fork(const char *name, helper_main_fn *main_fn, struct helper *ret, struct err *err);

/* Starts this program anew instead of forking (45 µs per MiB of a big process): its main must call
 * helper_enter with the same name. */
int helper_respawn(const char *name, struct helper *ret, struct err *err);

/* In main, before anything else: returns at once, unless this process was started by helper_respawn
 * with this name: then runs main_fn and does not return. */
void helper_enter(const char *name, helper_main_fn *main_fn);

/* Inside a helper, or a child of one: what ps shows, and the short name (15 bytes) beside it.
 * Async-signal-safe. */
void helper_set_title(const char *title, const char *comm);

#endif

#ifndef REGOLITH_ENGINE_LOCAL_WALLS_H
#define REGOLITH_ENGINE_LOCAL_WALLS_H

#include <stdbool.h>
#include <stdint.h>

/* What stands between a command and the kernel, beside namespaces and groups. Two moments:
 *
 *   walls_close_agent    once, in the agent, after its last mount and its last change of ids,
 * before its first command. Every command inherits it; the agent itself keeps the capabilities it
 * holds, but lives under the filter too. walls_close_command  for each command, in the vfork child,
 * after the change to the command's user, right before execve.
 *
 * Everything here is async-signal-safe, keeps no state and allocates nothing. */

/* How far it came, for the error message. */
enum walls_step {
  WALLS_DONE,
  WALLS_SIGNALS,
  WALLS_AMBIENT,
  WALLS_BOUNDING,
  WALLS_DUMPABLE,
  WALLS_NO_NEW_PRIVS,
  WALLS_LANDLOCK,
  WALLS_SECCOMP,
  WALLS_RLIMIT,
};
const char *walls_step_name(enum walls_step step); /* "the seccomp filter", … */

struct walls_agent_conf {
  /* Directories that this process opened before: the root it lives in, and its control group, which
   * it works from outside that root. -1 = none. Landlock leaves files beneath them and no others;
   * without a root there is no such wall. */
  int root_fd, group_fd;
  bool no_seccomp; /* the machine has no filters: doctor says so, the caller decided to go on */
};

/* In this order: default signal actions; ambient set emptied and bounding set reduced (needs
 * CAP_SETPCAP in the user namespace); no core dumps, 8 MiB of locked memory, 8 MiB of stack, for
 * commands too; not dumpable; no_new_privs; Landlock; seccomp, which comes
 * last because it forbids some of what comes before. Returns 0, or a negative errno with *ret_step.
 */
int walls_close_agent(const struct walls_agent_conf *conf, enum walls_step *ret_step);

struct walls_limits {
  uint32_t nofile;      /* open files; 0 = 1,024, which programs may raise to 524,288; always within
                           what this process is allowed */
  uint32_t nproc;       /* only where there is no pids group; 0 = untouched */
  uint64_t as_bytes;    /* address space, only where there is no memory group; 0 = untouched */
  uint64_t fsize_bytes; /* only where the disk has no quota; 0 = untouched */
};

/* The limits above; SIGPIPE as usual; no signal blocked. Returns 0, or a negative errno with
 * *ret_step. */
int walls_close_command(const struct walls_limits *limits, enum walls_step *ret_step);

/* The capabilities a command's root may have, as bits by number: Docker's default set without
 * CAP_MKNOD, CAP_NET_RAW and CAP_AUDIT_WRITE. */
#define WALLS_CAPABILITIES                                                                         \
  (1ull << 0 /* CHOWN */ | 1ull << 1 /* DAC_OVERRIDE */ | 1ull << 3 /* FOWNER */ |                 \
   1ull << 4 /* FSETID */ | 1ull << 5 /* KILL */ | 1ull << 6 /* SETGID */ |                        \
   1ull << 7 /* SETUID */ | 1ull << 8 /* SETPCAP */ | 1ull << 10 /* NET_BIND_SERVICE */ |          \
   1ull << 18 /* SYS_CHROOT */ | 1ull << 31 /* SETFCAP */)

/* The filter alone, for tests and probes; sets nothing else. Needs no_new_privs, or CAP_SYS_ADMIN
 * in the user namespace. Returns 0 or a negative errno. */
int walls_load_seccomp(void);

#endif

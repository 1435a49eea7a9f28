#ifndef REGOLITH_ENGINE_LOCAL_CGROUP_H
#define REGOLITH_ENGINE_LOCAL_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Control groups v1, v2 and hybrid (v1 controllers beside a cgroup2 tree without any) behind one
 * interface. The directories, in every hierarchy in use:
 *
 *   BASE/regolith/WARDEN/BOX          one box: limits, accounting
 *   BASE/regolith/WARDEN/BOX/agent    v2 only: the agent (so that leaves can have a memory counter)
 *   BASE/regolith/WARDEN/BOX/eN       cgroup2 only: one exec each, made and owned by the agent
 *   BASE/regolith/WARDEN/host         v2 only: the host and the warden, where BASE was their own
 *
 * BASE is the group the warden runs in, or a delegated one. WARDEN is w-UID-PID-BOOT-RANDOM; its
 * directories are locked (flock) as long as the warden lives, which is how a later start knows what
 * is stale, whatever happened to pids.
 *
 * Nothing here keeps a descriptor per box. Three kinds of callers:
 *   warden   struct cgroups and all functions that take it
 *   child    cgroup_entry_join, between clone and anything else
 *   agent    struct cgroup_leaves and all functions that take it or a leaf: no malloc, no stdio,
 *            async-signal-safe */

struct cgroups;

enum cgroup_mode { CGROUP_NONE, CGROUP_V1, CGROUP_HYBRID, CGROUP_V2 };

/* What can be had on this machine by this user. */
enum cgroup_cap {
  CGROUP_CAP_CPU = 1 << 0,      /* cpu_milli is enforced */
  CGROUP_CAP_MEMORY = 1 << 1,   /* mem_bytes is enforced, OOM kills are counted */
  CGROUP_CAP_SWAP = 1 << 2,     /* swap is limited to nothing (or the machine has none) */
  CGROUP_CAP_PIDS = 1 << 3,     /* pids is enforced */
  CGROUP_CAP_LEAVES = 1 << 4,   /* execs get leaves of their own, with cgroup.kill */
  CGROUP_CAP_LEAF_OOM = 1 << 5, /* OOM kills are counted per leaf, not only per box */
  CGROUP_CAP_INTO = 1 << 6,     /* clone3(CLONE_INTO_CGROUP) works */
  CGROUP_CAP_DEVICES = 1 << 7,  /* only granted device nodes open: root's second wall */
};

struct cgroup_info {
  enum cgroup_mode mode;
  unsigned caps;  /* enum cgroup_cap */
  char base[256]; /* the path of BASE in the hierarchy that matters most, "" if none */
  char why[256];  /* what is missing and why, one sentence; "" when nothing is */
  char mend[256]; /* a command or setting that mends it; "" when none is needed or known */
};

/* What would cgroup_open offer? Looks only, in a child: makes nothing, moves nobody. */
void cgroup_probe(struct cgroup_info *ret_info);

struct cgroup_conf {
  pid_t host_pid; /* moved to a leaf together with the caller where v2 asks for it; 0 = none */
};

/* Finds what there is, and opens what boxes are born in: cgroup2. A machine without usable groups
 * is not an error but caps = 0. Once per warden, before it makes its first box. Fails only for want
 * of descriptors or memory. */
int cgroup_open(struct cgroups **ret, const struct cgroup_conf *conf, struct err *err);
/* And the rest: the hierarchies of version 1, and the wall around devices. It takes longer: a clone
 * may be under way meanwhile. Until then cgroup_info knows only whether one can be cloned into a
 * group. Once is enough. */
void cgroup_open_rest(struct cgroups *cg);
const struct cgroup_info *cgroup_info(const struct cgroups *cg);

/* Removes this warden's directories (boxes still there are killed first; waits at most wait_ms) and
 * BASE/regolith if it was the last. Returns 0, or -EBUSY when something stayed. NULL allowed. */
int cgroup_close(struct cgroups *cg, unsigned wait_ms);

/* Removes what dead wardens of the same user left (root: of every user), kills what still runs in
 * it. Off the request path: walks the trees. Returns the number of wardens swept. */
int cgroup_sweep(struct cgroups *cg);

/* Limits of a box; 0 = none. */
struct cgroup_limits {
  uint32_t cpu_milli; /* thousandths of one CPU */
  uint64_t mem_bytes; /* memory and disk together: tmpfs pages count */
  uint32_t pids;      /* processes and threads, the agent among them */
};

#define CGROUP_V1_TREES 5

/* The way into a box: descriptors, close-on-exec, given back with cgroup_entry_done right after the
 * clone. */
struct cgroup_entry {
  int into_fd; /* for clone_args.cgroup with CLONE_INTO_CGROUP; -1: do without the flag */
  int v1_tasks_fd[CGROUP_V1_TREES]; /* private */
  int box_fd; /* the box's cgroup2 directory, for cgroup_leaves_init; -1 if none */
  int oom_fd; /* v1: memory.oom_control of the box, for cgroup_leaves_init; -1 if none */
  /* The agent keeps out of a cgroup namespace and gives each exec one instead. It does not live in
   * the box's own group then, and a machine with nsdelegate would let it enter nothing outside of
   * what it takes for the root. */
  bool ns_per_exec;
};

/* Makes the group that a box is born in, named by its id (no '/'). The agent's host uid and gid
 * become the owners of what it needs for its leaves. Nothing is left when it fails. Without any
 * groups it succeeds and all descriptors are -1. */
int cgroup_box_make(struct cgroups *cg, const char *box, uid_t agent_uid, gid_t agent_gid,
                    struct cgroup_entry *ret_entry, struct err *err);
/* And those that it joins (cgroup_entry_join). What a failure leaves, cgroup_box_remove takes. */
int cgroup_box_make_rest(struct cgroups *cg, const char *box, struct cgroup_entry *entry,
                         struct err *err);
/* Sets or changes limits, also of a box that runs. Fails with -EBUSY below what is in use. */
int cgroup_box_limit(struct cgroups *cg, const char *box, const struct cgroup_limits *limits,
                     struct err *err);
/* Character devices that may be opened in a box: the usual ones (null, zero, full, random, urandom,
 * tty, terminals) and these. Without CGROUP_CAP_DEVICES it does nothing. Before the box is joined.
 */
struct cgroup_device {
  uint32_t major, minor;
};
int cgroup_box_devices(struct cgroups *cg, const char *box, const struct cgroup_device *extra,
                       size_t n, struct cgroup_entry *entry, struct err *err);

void cgroup_entry_done(struct cgroup_entry *entry);

/* In the new single-threaded process, before it unshares the cgroup namespace (if it does). into =
 * it was cloned with CLONE_INTO_CGROUP and into_fd. Async-signal-safe. Returns 0 or a negative
 * errno. */
int cgroup_entry_join(const struct cgroup_entry *entry, bool into);

struct cgroup_usage {
  uint64_t cpu_us;         /* user and system, of all that ever ran in the box */
  uint64_t mem_bytes;      /* now */
  uint64_t mem_peak_bytes; /* 0: unknown */
  uint64_t oom_kills;
  uint32_t pids; /* now */
};
/* What is unknown is 0. */
void cgroup_box_usage(struct cgroups *cg, const char *box, struct cgroup_usage *ret_usage);

/* usage.oom_kills alone, quickly. */
uint64_t cgroup_box_oom_kills(struct cgroups *cg, const char *box);

/* SIGKILL to all that is in the box, the agent included. Returns 0, -ENOENT when there is no such
 * box, -EOPNOTSUPP without groups. */
int cgroup_box_kill(struct cgroups *cg, const char *box);

/* Removes the box's directories without sleeping: 0 (also when gone already) or -EBUSY while a
 * process is still dying in it: call again later. Memory that page cache still holds is reclaimed
 * first, which can take milliseconds: not for the request path. */
int cgroup_box_remove(struct cgroups *cg, const char *box);

/* --- the agent's side ------------------------------------------------------------------------ */

#define CGROUP_LEAF_MAX  1024
#define CGROUP_LEAF_IDLE 8

/* One exec's group. fd goes into clone_args.cgroup with CLONE_INTO_CGROUP. */
struct cgroup_leaf {
  int fd;            /* its directory, close-on-exec; -1: no leaf */
  uint16_t n;        /* its number: the directory eN */
  uint64_t oom_seen; /* OOM kills counted before this exec */
  bool spent;        /* was killed once: not to be used again */
};

/* The pool, by value in the agent. Idle leaves stay open; a leaf whose exec left processes behind
 * lingers and is taken again once they are gone. */
struct cgroup_leaves {
  int box_fd;                                /* owned; -1: no leaves */
  int oom_fd;                                /* owned; v1 memory.oom_control of the box; -1 */
  bool leaf_oom;                             /* leaves have memory.events.local */
  bool no_leaf_oom;                          /* they never have */
  uint8_t state[CGROUP_LEAF_MAX];            /* private: unmade, in use, idle, lingering */
  uint16_t hunt;                             /* private: where to look for lingering ones next */
  uint16_t idle_n;                           /* private */
  struct cgroup_leaf idle[CGROUP_LEAF_IDLE]; /* private */
};

/* Takes both descriptors (-1 allowed: then there are no leaves or no box counter). */
void cgroup_leaves_init(struct cgroup_leaves *pool, int box_fd, int oom_fd);
/* Makes up to n idle leaves ahead of time. */
void cgroup_leaves_fill(struct cgroup_leaves *pool, unsigned n);

/* An empty leaf. -EOPNOTSUPP without leaves, -EAGAIN when all are taken: the caller then marks the
 * exec in another way. */
int cgroup_leaf_take(struct cgroup_leaves *pool, struct cgroup_leaf *ret_leaf);
/* Back to the pool; also with processes still in it. */
void cgroup_leaf_give(struct cgroup_leaves *pool, struct cgroup_leaf *leaf);

/* SIGKILL to all in the leaf, once; what they fork meanwhile is killed too. The leaf is spent:
 * since 6.14 (and the same fix in older series) a kernel also kills what is cloned, later, into a
 * group that has been killed more often than the caller's own. */
int cgroup_leaf_kill(struct cgroup_leaf *leaf);
/* 1: a live process is in it (zombies do not count), 0: none, or a negative errno. */
int cgroup_leaf_populated(const struct cgroup_leaf *leaf);

/* OOM kills since the leaf was taken: its own where they are counted per leaf, else -EOPNOTSUPP. */
int64_t cgroup_leaf_oom_kills(const struct cgroup_leaves *pool, const struct cgroup_leaf *leaf);
/* OOM kills in the whole box since it was made, or -EOPNOTSUPP. */
int64_t cgroup_leaves_box_oom_kills(const struct cgroup_leaves *pool);

#endif

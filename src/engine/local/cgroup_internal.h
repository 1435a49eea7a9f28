#ifndef REGOLITH_ENGINE_LOCAL_CGROUP_INTERNAL_H
#define REGOLITH_ENGINE_LOCAL_CGROUP_INTERNAL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "engine/local/cgroup.h"

/* Shared by the cgroup*.c files; nobody else includes this. */

/* CG_DEVICES limits no resource. In v1 it is a hierarchy where boxes share one group, unless they
 * have devices of their own; in v2 it is a program that the kernel asks. */
enum cg_ctl {
  CG_CPU = 1 << 0,
  CG_MEMORY = 1 << 1,
  CG_PIDS = 1 << 2,
  CG_CPUACCT = 1 << 3,
  CG_DEVICES = 1 << 4
};

#define CG_PATH      1024
#define CG_TREES_MAX 8

/* One hierarchy that we use. */
struct cg_tree {
  bool v2;
  unsigned ctl;        /* enum cg_ctl: what it limits or counts for us */
  bool has_kill;       /* cgroup.kill exists (kernel 5.14) */
  bool move;           /* v2: BASE is our own group: host and warden go to a leaf of it */
  char mount[CG_PATH]; /* where it is mounted */
  char own[CG_PATH];   /* directory of the group we run in */
  char base[CG_PATH];  /* directory under which we make ours */
  int warden_fd;       /* BASE/regolith/WARDEN, locked; -1 before open */
  int plain_fd;        /* CG_DEVICES, v1: the tasks file of the shared group; v2: the program; -1 */
};

struct cgroups {
  struct cgroup_info info;
  char warden[96];  /* name of our directories */
  pid_t host_pid;   /* 0: none */
  bool root;        /* were we when they were opened? An ordinary user becomes one of his own */
  bool swap;        /* is limited */
  size_t n;         /* trees in use: cgroup2's, then the others */
  size_t at, found; /* of tree: those not opened yet */
  bool rest_open;
  struct cg_tree tree[CG_TREES_MAX];
};

/* cgroup_file.c: async-signal-safe; all return a negative errno on failure. */
int cg_write_at(int dirfd, const char *path, const char *text);
int cg_write_u64_at(int dirfd, const char *path, uint64_t value);
/* Reads a whole small file, NUL-terminated; returns its length. */
int cg_read_at(int dirfd, const char *path, char *out, size_t size);
/* The number behind "key " at the start of a line; -1 if there is none. */
int64_t cg_find_key(const char *text, const char *key);
/* The number that is the file; -1 when it cannot be read ("max" is -1 too). */
int64_t cg_read_u64_at(int dirfd, const char *path);
/* Kills every process in the directory's cgroup.procs, and below it, once. Returns how many. */
int cg_kill_procs(int dirfd);
/* Removes a group and the groups in it: 0 or a negative errno; gone already is 0. */
int cg_remove_at(int dirfd, const char *name);

/* cgroup_find.c: what is mounted, where we are in it, and where our directories can go. */
size_t cg_find_trees(struct cg_tree trees[CG_TREES_MAX], pid_t host_pid, struct cgroup_info *info);
/* Would a group of our own, if we got one, be better than what was found? */
bool cg_wants_scope(const struct cg_tree *trees, size_t n);
unsigned cg_parse_controllers(const char *list, char separator);
bool cg_machine_has_swap(void);

/* cgroup_scope.c: has systemd move the caller and host_pid (0: none) to a delegated scope; waits
 * for it. 0, or a negative errno when there is no systemd, or it does not want to. */
int cg_scope_take(pid_t host_pid);

/* cgroup_v1.c, cgroup_v2.c: one box (its directory) in one tree. */
int cg_v1_limit(const struct cg_tree *t, int boxfd, const struct cgroup_limits *limits,
                struct err *err);
void cg_v1_usage(const struct cg_tree *t, int boxfd, struct cgroup_usage *usage);
void cg_v1_reclaim(const struct cg_tree *t, int boxfd);
int cg_v2_limit(const struct cg_tree *t, int boxfd, const struct cgroup_limits *limits,
                struct err *err);
void cg_v2_usage(const struct cg_tree *t, int boxfd, struct cgroup_usage *usage);
void cg_v2_reclaim(const struct cg_tree *t, int boxfd);
/* cgroup_devices.c. Opens what boxes share in a tree (plain_fd); a negative errno: there is no
 * wall. */
int cg_devices_open(struct cg_tree *t);
/* Would version 2 take our program? */
bool cg_devices_can_load(void);
/* v1: a group of the box's own; returns its tasks file. v2: attaches to the box's group; 0. */
int cg_devices_box(const struct cg_tree *t, const char *box, const struct cgroup_device *extra,
                   size_t n);
/* Turns the controllers on for the groups below dirfd; returns those that are on. */
unsigned cg_v2_enable(int dirfd, unsigned ctl);

#endif

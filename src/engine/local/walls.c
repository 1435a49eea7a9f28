/* Walls: what a sandbox's processes lose for good before the first command runs.
 *
 * Each wall is one that cannot be taken down again from inside: the bounding set only shrinks,
 * no_new_privs and filters are inherited and stay, Landlock rulesets only add up. What a command
 * gets on top (its user, its directory, its descriptors) is the agent's work; what it may reach is
 * decided by namespaces and mounts before.
 *
 * The filter comes from seccomp_table.def by way of a header made at build time; the program does
 * not link libseccomp. It is loaded with SECCOMP_FILTER_FLAG_SPEC_ALLOW: without it kernels before
 * 5.16 slow every filtered process down by turning store bypass off, which guards against other
 * code in the same process, not in others.
 *
 * Runs in the agent (a fork without exec) and in vfork children: system calls only. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/local/walls.h"
#include "seccomp_program.h"

#define NOFILE_SOFT 1024
#define NOFILE_HARD 524288
#define MIB         (1024ull * 1024)

/* Landlock by number: the headers of the build may be older than the kernel. The rights to files
 * are the low bits of a mask, a few more with each version of the interface. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#define SYS_landlock_restrict_self  446
#endif
#define LANDLOCK_VERSION      1u /* flag of create_ruleset: which version is it? */
#define LANDLOCK_BENEATH      1  /* type of rule: files beneath a directory */
#define LANDLOCK_ABI_REFER    2  /* before it, renames between directories are always refused */
#define LANDLOCK_ABI_TRUNCATE 3
#define LANDLOCK_ABI_IOCTL    5
#define LANDLOCK_ABI_SCOPES   6
#define LANDLOCK_FS_BASE      0x3fffull /* execute … refer */
#define LANDLOCK_FS_TRUNCATE  (1ull << 14)
#define LANDLOCK_FS_IOCTL_DEV (1ull << 15)
#define LANDLOCK_FS_DEVICES   (1ull << 6 | 1ull << 11) /* making character and block devices */
#define LANDLOCK_SCOPES       3ull /* abstract sockets and signals end at the domain */

struct landlock_ruleset {
  uint64_t fs, net, scoped;
};

struct landlock_beneath {
  uint64_t allowed;
  int32_t parent_fd;
} __attribute__((packed));

const char *walls_step_name(enum walls_step step)
{
  static const char *const names[] = {
      [WALLS_DONE] = "nothing",
      [WALLS_SIGNALS] = "the signal actions",
      [WALLS_AMBIENT] = "the ambient capabilities",
      [WALLS_BOUNDING] = "the capability bounding set",
      [WALLS_DUMPABLE] = "the dumpable flag",
      [WALLS_NO_NEW_PRIVS] = "no_new_privs",
      [WALLS_LANDLOCK] = "the Landlock ruleset",
      [WALLS_SECCOMP] = "the seccomp filter",
      [WALLS_RLIMIT] = "the resource limits",
  };
  return (unsigned)step < sizeof names / sizeof *names ? names[step] : "?";
}

/* exec resets handlers but keeps what is ignored, and the host may have been started with SIGINT or
 * SIGHUP ignored. libc keeps two numbers to itself and refuses to touch them, yet programs that
 * posix_spawn starts (make is one) are born with both ignored: so the kernel is asked. Numbers that
 * cannot be set (KILL, STOP) stay as they are. */
static void default_signals(void)
{
  for (int sig = 1; sig < NSIG; sig++) {
    unsigned long now[4] = {0},
                  preset[4] = {
                      0}; /* the kernel's struct sigaction; its first word is the handler */
    if (syscall(SYS_rt_sigaction, sig, NULL, now, 8) < 0 || now[0] != (unsigned long)SIG_IGN)
      continue;
    syscall(SYS_rt_sigaction, sig, preset, NULL, 8);
  }
}

static int reduce_bounding_set(void)
{
  for (unsigned long cap = 0; cap < 64; cap++) {
    int have = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
    if (have < 0) break; /* past the last one this kernel knows */
    if (have == 0 || (WALLS_CAPABILITIES & 1ull << cap)) continue;
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) return -errno;
  }
  return 0;
}

int walls_load_seccomp(void)
{
  struct sock_fprog program = {
      .len = sizeof seccomp_program / sizeof *seccomp_program,
      .filter = (struct sock_filter *)(uintptr_t)seccomp_program,
  };
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) == 0)
    return 0;
  if (errno != EINVAL) return -errno; /* before 4.17 there is no such flag */
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0 ? 0 : -errno;
}

static int landlock_allow(int ruleset, uint64_t rights, int dir)
{
  struct landlock_beneath rule = {rights, dir};
  if (dir < 0) return 0;
  return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_BENEATH, &rule, 0) < 0 ? -errno : 0;
}

/* The second wall around files: a process that got hold of a directory outside its root, or left
 * that root, opens nothing there. A kernel without Landlock, or with one that is too old to let
 * ordinary renames through, has one wall less, and doctor says so. */
static int load_landlock(const struct walls_agent_conf *conf)
{
  long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION);
  if (conf->root_fd < 0 || abi < LANDLOCK_ABI_REFER) return 0;
  struct landlock_ruleset all = {
      .fs = LANDLOCK_FS_BASE | (abi >= LANDLOCK_ABI_TRUNCATE ? LANDLOCK_FS_TRUNCATE : 0) |
            (abi >= LANDLOCK_ABI_IOCTL ? LANDLOCK_FS_IOCTL_DEV : 0),
      .scoped = abi >= LANDLOCK_ABI_SCOPES ? LANDLOCK_SCOPES : 0,
  };
  size_t size = abi >= LANDLOCK_ABI_SCOPES ? sizeof all : sizeof all.fs;
  int ruleset = (int)syscall(SYS_landlock_create_ruleset, &all, size, 0);
  if (ruleset < 0) return -errno;
  int r = landlock_allow(ruleset, all.fs & ~LANDLOCK_FS_DEVICES, conf->root_fd);
  if (r == 0) r = landlock_allow(ruleset, all.fs & ~LANDLOCK_FS_DEVICES, conf->group_fd);
  if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0) r = -errno;
  close(ruleset);
  return r;
}

/* Within what this process may have: without CAP_SYS_RESOURCE the hard limit cannot rise. */
static int set_limit(int resource, rlim_t soft, rlim_t hard)
{
  struct rlimit now;
  if (getrlimit((unsigned)resource, &now) < 0) return -errno;
  if (hard > now.rlim_max) hard = now.rlim_max;
  if (soft > hard) soft = hard;
  struct rlimit want = {soft, hard};
  return setrlimit((unsigned)resource, &want) < 0 ? -errno : 0;
}

/* Those that do not keep the agent from its own work: its commands inherit them. */
static int set_inherited_limits(void)
{
  int r = set_limit(RLIMIT_CORE, 0, 0);
  if (r == 0) r = set_limit(RLIMIT_MEMLOCK, 8 * MIB, 8 * MIB);
  return r < 0 ? r : set_limit(RLIMIT_STACK, 8 * MIB, RLIM_INFINITY);
}

int walls_close_agent(const struct walls_agent_conf *conf, enum walls_step *ret_step)
{
  default_signals();
  *ret_step = WALLS_AMBIENT;
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) return -errno;
  *ret_step = WALLS_BOUNDING;
  int r = reduce_bounding_set();
  if (r < 0) return r;
  *ret_step = WALLS_RLIMIT;
  if ((r = set_inherited_limits()) < 0) return r;
  *ret_step = WALLS_DUMPABLE;
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) return -errno;
  *ret_step = WALLS_NO_NEW_PRIVS;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
  *ret_step = WALLS_LANDLOCK;
  if ((r = load_landlock(conf)) < 0) return r;
  *ret_step = WALLS_SECCOMP;
  if (!conf->no_seccomp && (r = walls_load_seccomp()) < 0) return r;
  *ret_step = WALLS_DONE;
  return 0;
}

static int set_limits(const struct walls_limits *l)
{
  int r = set_limit(RLIMIT_NOFILE, l->nofile ? l->nofile : NOFILE_SOFT,
                    l->nofile ? l->nofile : NOFILE_HARD);
  if (r == 0 && l->nproc) r = set_limit(RLIMIT_NPROC, l->nproc, l->nproc);
  if (r == 0 && l->as_bytes) r = set_limit(RLIMIT_AS, l->as_bytes, l->as_bytes);
  if (r == 0 && l->fsize_bytes) r = set_limit(RLIMIT_FSIZE, l->fsize_bytes, l->fsize_bytes);
  return r;
}

int walls_close_command(const struct walls_limits *limits, enum walls_step *ret_step)
{
  *ret_step = WALLS_RLIMIT;
  int r = set_limits(limits);
  if (r < 0) return r;
  *ret_step = WALLS_SIGNALS;
  sigset_t none;
  sigemptyset(&none);
  if (signal(SIGPIPE, SIG_DFL) == SIG_ERR || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
    return -errno;
  *ret_step = WALLS_DONE;
  return 0;
}

/* What stands between a script's process and everything else.
 *
 * Runs in a child of the nursery, which already has an empty root and namespaces of its own. In
 * this order, each step needing what the next takes away: descriptors, user, capabilities, limits,
 * no_new_privs, death with the parent (a change of user clears it), the system call filter.
 *
 * As root each worker gets a user id of its own from a range that nobody else uses, so that workers
 * cannot signal or trace each other even without the filter. As an ordinary user the filter and the
 * user namespace do that. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/nursery_internal.h"
#include "host/worker_seccomp.h"

enum {
  NICE = 5, /* the host, the warden and the nursery serve all: they come first */
  WORKER_FD = 3,
  WORKER_UIDS = 65536,
  SPARE_DESCRIPTORS = 12 /* the loop's: epoll, eventfd, and a few of libuv's making */
};
#define WORKER_UID_BASE                                                                            \
  2147352576u /* 0x7ffe0000: beyond system, login, subordinate and service ranges */
#define WORKER_SPARE_BYTES (256u << 20) /* libraries, stack and arenas: mapped rather than used */

static int keep_only(int fd)
{
  if (fd != WORKER_FD && dup3(fd, WORKER_FD, O_CLOEXEC) < 0) return -errno;
  if (syscall(SYS_close_range, 0, WORKER_FD - 1, 0) < 0) return -errno;
  return syscall(SYS_close_range, WORKER_FD + 1, ~0u, 0) < 0 ? -errno : 0;
}

static int drop_user(uint64_t token)
{
  if (geteuid() != 0) return 0;
  uid_t id = WORKER_UID_BASE + (uid_t)(token % WORKER_UIDS);
  /* Root of a user namespace (a container) that does not have these ids, or may not set groups, is
   * an ordinary user as far as this machine is concerned. */
  if (setgroups(0, NULL) < 0 && errno != EPERM) return -errno;
  if (setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0) return errno == EINVAL ? 0 : -errno;
  return 0;
}

/* Fails only for who has no privilege in the first place. */
static void drop_bounding_set(void)
{
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
    prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

static int drop_capabilities(void)
{
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  return syscall(SYS_capset, &head, none) < 0 ? -errno : 0;
}

static int limit(int resource, rlim_t value)
{
  struct rlimit old;
  if (getrlimit(resource, &old) < 0) return -errno;
  if (old.rlim_max < value) value = old.rlim_max;
  struct rlimit r = {value, value};
  return setrlimit(resource, &r) < 0 ? -errno : 0;
}

/* Sanitizers reserve terabytes of addresses for their shadow, and map more as they go. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BOUNDS_ADDRESSES false
#else
#define BOUNDS_ADDRESSES true
#endif

static int set_limits(const struct nursery_message *m)
{
  int rc = limit(RLIMIT_CORE, 0);
  if (rc == 0) rc = limit(RLIMIT_FSIZE, 0);
  if (rc == 0) rc = limit(RLIMIT_NPROC, 0);
  if (rc == 0) rc = limit(RLIMIT_MEMLOCK, 0);
  if (rc == 0) rc = limit(RLIMIT_NOFILE, WORKER_FD + 1 + SPARE_DESCRIPTORS);
  if (rc == 0 && BOUNDS_ADDRESSES) rc = limit(RLIMIT_AS, WORKER_SPARE_BYTES + 4 * m->mem_bytes);
  if (rc == 0 && m->cpu_s) {
    struct rlimit cpu = {m->cpu_s, m->cpu_s + 1}; /* SIGXCPU, then SIGKILL */
    if (setrlimit(RLIMIT_CPU, &cpu) < 0) rc = -errno;
  }
  return rc;
}

int worker_walls(int fd, uint64_t token, const struct nursery_message *request)
{
  pid_t parent = getppid();
  int rc = keep_only(fd);
  if (rc == 0) rc = set_limits(request);
  setpriority(PRIO_PROCESS, 0, NICE);
  drop_bounding_set();
  if (rc == 0) rc = drop_user(token);
  if (rc == 0) rc = drop_capabilities();
  if (rc < 0) return rc;
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) return -errno;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) return -errno;
  if (getppid() != parent) return -ESRCH;
  return worker_seccomp_load();
}

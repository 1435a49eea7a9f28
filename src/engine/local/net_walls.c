/* What stands between the network helper and everything else: an empty root, an id of its own, no
 * capabilities, and a filter that knows sockets of the internet, and memory. It can connect; there
 * is no file, no process and no other kind of socket that it could name. */
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "core/seccomp.h"
#include "engine/local/net.h"

static const struct sock_filter program[] = {
    SECCOMP_BEGIN,
    ALLOW(read),
    ALLOW(write),
    ALLOW(recvfrom),
    ALLOW(sendto),
    ALLOW(recvmsg),
    ALLOW(sendmsg),
    ALLOW(close),
#ifdef __NR_poll
    ALLOW(poll),
#endif
    ALLOW(ppoll),
    ALLOW(epoll_ctl),
    ALLOW(epoll_pwait),
#ifdef __NR_epoll_wait
    ALLOW(epoll_wait),
#endif
    ALLOW_WITH_2(socket, 0, AF_INET, AF_INET6),
    ALLOW(connect),
    ALLOW(bind),
    ALLOW(shutdown),
    ALLOW(getsockname),
    ALLOW(getpeername),
    ALLOW(getsockopt),
    ALLOW(setsockopt),
    ALLOW_WITH_2(ioctl, 1, FIONBIO, FIONREAD),
    ALLOW_WITH_2(fcntl, 1, F_GETFL, F_SETFL),
    ALLOW(clock_gettime),
    ALLOW(gettimeofday),
    ALLOW(restart_syscall),
    ALLOW(brk),
    ALLOW(munmap),
    ALLOW(mremap),
    ALLOW(madvise),
    ALLOW(futex),
    ALLOW(getrandom),
    ALLOW(getpid),
    ALLOW(gettid),
    ALLOW(rt_sigprocmask),
    ALLOW(rt_sigreturn),
    ALLOW_UNLESS_EXEC(mmap),
    ALLOW_UNLESS_EXEC(mprotect),
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    ALLOW(sigaltstack),
    ALLOW(sched_yield),
#endif
    ALLOW(exit_group),
    ALLOW(exit),
    /* what libraries try and do without */
    RETURN(SECCOMP_RET_ERRNO | ENOSYS),
};

static int fail(struct err *err, const char *what)
{
  return err_set(err, ERR_INTERNAL, errno, "the network helper cannot %s: %s", what,
                 strerror(errno));
}

static int write_file(const char *path, const char *text)
{
  cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
  return fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0;
}

/* An ordinary user has the right to it in a user namespace. */
static int own_namespaces(struct err *err)
{
  char map[48];
  uid_t uid = geteuid();
  gid_t gid = getegid();
  if (uid == 0) return unshare(CLONE_NEWNS) < 0 ? fail(err, "make a mount namespace") : 0;
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) return fail(err, "make namespaces");
  snprintf(map, sizeof map, "0 %u 1", uid);
  if (write_file("/proc/self/uid_map", map) < 0) return fail(err, "map its user");
  snprintf(map, sizeof map, "0 %u 1", gid);
  if (write_file("/proc/self/setgroups", "deny") < 0 || write_file("/proc/self/gid_map", map) < 0)
    return fail(err, "map its group");
  return 0;
}

static int empty_root(struct err *err)
{
  unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return fail(err, "part its mounts");
  if (mount("empty", "/proc", "tmpfs", flags, "size=4k,nr_inodes=2,mode=0555") < 0 ||
      chdir("/proc") < 0)
    return fail(err, "mount an empty root");
  if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
    return fail(err, "move into an empty root");
  return mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | flags, NULL) < 0
             ? fail(err, "make its root read-only")
             : 0;
}

static void limit(int resource, rlim_t value)
{
  struct rlimit r = {value, value};
  setrlimit(resource, &r);
}

/* Connections of all its boxes are descriptors of its own. */
static void set_limits(void)
{
  struct rlimit r;
  if (getrlimit(RLIMIT_NOFILE, &r) == 0) limit(RLIMIT_NOFILE, r.rlim_max);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_FSIZE, 0);
  limit(RLIMIT_NPROC, 0);
  limit(RLIMIT_MEMLOCK, 0);
}

static int drop_privileges(uint32_t uid, struct err *err)
{
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
    prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
  if (uid && ((setgroups(0, NULL) < 0 && errno != EPERM) ||
              ((setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0) && errno != EINVAL)))
    return fail(err, "drop its user");
  if (syscall(SYS_capset, &head, none) < 0) return fail(err, "drop its capabilities");
  return 0;
}

int net_close_walls(uint32_t uid, struct err *err)
{
  pid_t parent = getppid();
  bool root = geteuid() == 0;
  /* What boxes let it hold is in none of their limits: when memory runs out, it goes before others.
   */
  write_file("/proc/self/oom_score_adj", "900");
  int rc = own_namespaces(err);
  if (rc == 0) rc = empty_root(err);
  if (rc == 0) set_limits();
  if (rc == 0) rc = drop_privileges(root ? uid : 0, err);
  if (rc < 0) return rc;
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
      prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
    return fail(err, "be tied to its host");
  if (getppid() != parent) return err_set(err, ERR_CANCELLED, ESRCH, "the host is gone");
  rc = seccomp_load(program, sizeof program / sizeof *program);
  errno = -rc;
  return rc < 0 ? fail(err, "load its filter") : 0;
}

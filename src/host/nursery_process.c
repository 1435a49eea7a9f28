/* The nursery: where worker processes are forked.
 *
 * A helper process, forked from the host while that is small. It gives itself an empty root and
 * namespaces of its own once (a network namespace costs 0.4 ms, too much per script), then waits.
 * For each request it forks a child, which takes off what privilege is left and becomes the script
 * (worker_walls.c, worker_main.c). Fork is cheap here: the process is small and single-threaded.
 *
 * It also reaps its children, says how each ended, and watches their appetite: a worker that burned
 * 100 ms without once waiting goes to SCHED_IDLE until it does, so that those who mostly wait run
 * first. Without the privilege to come back from there (an ordinary user) it leaves them alone.
 *
 * When the host's socket closes it kills what is left and exits. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/idmap.h"
#include "base/list.h"
#include "core/helper.h"
#include "host/nursery.h"
#include "host/nursery_internal.h"
#include "host/worker_main.h"

enum { TICK_MS = 100, GREEDY_US = 100000 };

struct child {
  pid_t pid;
  uint64_t token;
  uint64_t cpu_mark_us; /* processor time when it was last seen to have waited */
  long waits;           /* voluntary context switches then */
  bool idle;            /* runs under SCHED_IDLE */
};

struct nursery_process {
  int sock;
  struct idmap by_token; /* struct child, owned */
  struct idmap by_pid;
  bool can_demote; /* has the privilege to bring a worker back from SCHED_IDLE */
};

/* ---- the empty room ---- */

static bool write_text(const char *path, const char *text)
{
  FILE *f = fopen(path, "we");
  if (!f) return false;
  bool fine = fputs(text, f) >= 0;
  return fclose(f) == 0 && fine;
}

/* As an ordinary user the namespaces need a user namespace, in which we stay who we are. */
static int enter_namespaces(void)
{
  int flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
  uid_t uid = geteuid();
  gid_t gid = getegid();
  if (uid == 0 && unshare(flags) == 0) return 0;
  if (unshare(flags | CLONE_NEWUSER) < 0) return -errno;
  char map[64];
  write_text("/proc/self/setgroups", "deny");
  snprintf(map, sizeof map, "%u %u 1", uid, uid);
  if (!write_text("/proc/self/uid_map", map)) return -EPERM;
  snprintf(map, sizeof map, "%u %u 1", gid, gid);
  return write_text("/proc/self/gid_map", map) ? 0 : -EPERM;
}

/* Nothing but an empty, read-only directory is left of the file system. */
static int empty_root(void)
{
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -errno;
  if (mount("regolith", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
            "size=4k,nr_inodes=2,mode=555") < 0)
    return -errno;
  if (chdir("/tmp") < 0 || syscall(SYS_pivot_root, ".", ".") < 0) return -errno;
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) return -errno;
  return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
               NULL) < 0
             ? -errno
             : 0;
}

/* ---- children ---- */

static void report(struct nursery_process *n, const struct nursery_message *m)
{
  while (send(n->sock, m, sizeof *m, MSG_NOSIGNAL) < 0 && errno == EINTR) {}
}

static void become_worker(int fd, const struct nursery_message *m) __attribute__((noreturn));
static void become_worker(int fd, const struct nursery_message *m)
{
  char title[80];
  snprintf(title, sizeof title, "regolith: worker %s", m->name);
  helper_set_title(title, "regolith-worker");
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  int rc = worker_walls(fd, m->token, m);
  if (rc < 0) _exit(NURSERY_NO_WALLS); /* a script without its walls must not run */
  _exit(worker_main(3));
}

static void spawn(struct nursery_process *n, int fd, const struct nursery_message *m)
{
  pid_t pid = fork();
  if (pid == 0) become_worker(fd, m);
  int e = errno;
  close(fd);
  if (pid < 0) {
    struct nursery_message failed = {
        .verb = NURSERY_EXITED, .token = m->token, .start_failed = 1, .code = e};
    report(n, &failed);
    return;
  }
  struct child *c = xcalloc(1, sizeof *c);
  *c = (struct child){.pid = pid, .token = m->token};
  idmap_set(&n->by_token, c->token, c);
  idmap_set(&n->by_pid, (uint64_t)pid, c);
}

static void reap(struct nursery_process *n)
{
  int status;
  struct rusage use;
  for (pid_t pid; (pid = wait4(-1, &status, WNOHANG, &use)) > 0;) {
    struct child *c = idmap_remove(&n->by_pid, (uint64_t)pid);
    if (!c) continue;
    idmap_remove(&n->by_token, c->token);
    struct nursery_message m = {.verb = NURSERY_EXITED, .token = c->token};
    if (WIFSIGNALED(status))
      m.signal = WTERMSIG(status);
    else
      m.code = WEXITSTATUS(status);
    m.cpu_us = (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000u +
               (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
    m.max_rss_kib = (uint64_t)use.ru_maxrss;
    report(n, &m);
    free(c);
  }
}

/* ---- appetite ---- */

static uint64_t cpu_us_of(pid_t pid)
{
  clockid_t clock;
  struct timespec ts;
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ts) < 0) return 0;
  return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/* Voluntary context switches: how often it has waited. The kernel tells through a /proc that our
 * empty root lacks, so the descriptor of the host's was kept. */
static int proc_dir = -1;

static long waits_of(pid_t pid)
{
  char path[32], text[4096];
  snprintf(path, sizeof path, "%d/status", pid);
  cleanup_close int fd = openat(proc_dir, path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (n <= 0) return -1;
  text[n] = '\0';
  const char *line = strstr(text, "\nvoluntary_ctxt_switches:");
  return line ? strtol(line + 25, NULL, 10) : -1;
}

static void set_policy(struct child *c, int policy)
{
  struct sched_param none = {0};
  if (sched_setscheduler(c->pid, policy, &none) == 0) c->idle = policy == SCHED_IDLE;
}

static void weigh(struct child *c)
{
  uint64_t cpu = cpu_us_of(c->pid);
  if (!c->idle && cpu - c->cpu_mark_us < GREEDY_US) return;
  long waits = waits_of(c->pid);
  bool waited = waits != c->waits;
  if (waited == c->idle) set_policy(c, waited ? SCHED_OTHER : SCHED_IDLE);
  if (waited) {
    c->waits = waits;
    c->cpu_mark_us = cpu;
  }
}

static void weigh_all(struct nursery_process *n)
{
  size_t at = 0;
  for (struct child *c; (c = idmap_next(&n->by_pid, &at));) weigh(c);
}

/* Demoting oneself is always allowed; coming back is what needs privilege. */
static bool may_demote(void)
{
  struct sched_param none = {0};
  pid_t pid = fork();
  if (pid == 0)
    _exit(sched_setscheduler(0, SCHED_IDLE, &none) == 0 &&
                  sched_setscheduler(0, SCHED_OTHER, &none) == 0
              ? 0
              : 1);
  int status = 1;
  return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

/* ---- the loop ---- */

/* 1: a request, 0: the host is gone. */
static int receive(struct nursery_process *n, struct nursery_message *ret, int *ret_fd)
{
  struct iovec iov = {ret, sizeof *ret};
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct msghdr msg = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t got;
  while ((got = recvmsg(n->sock, &msg, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {}
  *ret_fd = -1;
  if (got != (ssize_t)sizeof *ret) return 0;
  struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
  if (c && c->cmsg_type == SCM_RIGHTS) memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
  return 1;
}

static bool serve(struct nursery_process *n)
{
  struct nursery_message m;
  int fd;
  if (!receive(n, &m, &fd)) return false;
  if (m.verb == NURSERY_SPAWN && fd >= 0) {
    spawn(n, fd, &m);
    return true;
  }
  struct child *c = idmap_get(&n->by_token, m.token);
  if (m.verb == NURSERY_KILL && c) kill(c->pid, SIGKILL);
  if (fd >= 0) close(fd);
  return true;
}

static void kill_all(struct nursery_process *n)
{
  size_t at = 0;
  for (struct child *c; (c = idmap_next(&n->by_pid, &at));) kill(c->pid, SIGKILL);
}

int nursery_process_main(int sock)
{
  struct nursery_process n = {.sock = sock};
  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_ended, NULL);
  tzset(); /* os.date needs the zone's file, which the empty root lacks */
  proc_dir = open("/proc", O_DIRECTORY | O_PATH | O_CLOEXEC);
  n.can_demote = proc_dir >= 0 && may_demote();
  if (enter_namespaces() < 0 || empty_root() < 0) return NURSERY_NO_WALLS;
  struct pollfd fds[2] = {
      {.fd = sock, .events = POLLIN},
      {.fd = signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN}};
  for (;;) {
    bool watch = n.can_demote && n.by_pid.n > 0;
    int ready = poll(fds, 2, watch ? TICK_MS : -1);
    if (ready == 0) weigh_all(&n);
    if (fds[1].revents & POLLIN) {
      struct signalfd_siginfo info;
      while (read(fds[1].fd, &info, sizeof info) > 0) {}
      reap(&n);
    }
    if (fds[0].revents && !serve(&n)) break;
  }
  kill_all(&n);
  return 0;
}

/* The nursery: where worker processes are forked.
 *
 * A helper process, forked from the host while that is small. It gives itself an empty root and
 * namespaces of its own once (a network namespace costs 0.4 ms, too much per script), then waits.
 * For each request it forks a child, which takes off what privilege is left and becomes the script
 * (worker_walls.c, worker_main.c). Fork is cheap here: the process is small and single-threaded.
 *
 * It also reaps its children, says how each ended, and lets those that only compute take turns
 * (turns.c), so that those who mostly wait run first.
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
#include "base/clock.h"
#include "base/idmap.h"
#include "base/list.h"
#include "core/helper.h"
#include "host/nursery.h"
#include "host/nursery_internal.h"
#include "host/turns.h"
#include "host/worker_main.h"

struct child {
  pid_t pid;
  uint64_t token;
  struct taker taker;
};

struct nursery_process {
  int sock;
  struct idmap by_token; /* struct child, owned */
  struct idmap by_pid;
  struct turns turns;
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
  turns_add(&n->turns, &c->taker, pid);
  report(n, &(struct nursery_message){.verb = NURSERY_STARTED, .token = c->token});
}

static void reap(struct nursery_process *n)
{
  int status;
  struct rusage use;
  for (pid_t pid; (pid = wait4(-1, &status, WNOHANG, &use)) > 0;) {
    struct child *c = idmap_remove(&n->by_pid, (uint64_t)pid);
    if (!c) continue;
    idmap_remove(&n->by_token, c->token);
    turns_remove(&n->turns, &c->taker);
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

/* A child's end is news, that it was stopped is not. */
static int watch_children(void)
{
  struct sigaction ends_only = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP};
  sigaction(SIGCHLD, &ends_only, NULL);
  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_ended, NULL);
  return signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ms from now, not less than 0; -1: never. */
static int until(int64_t due_ms)
{
  int64_t now = (int64_t)clock_mono_ms();
  return due_ms < 0 ? -1 : due_ms > now ? (int)(due_ms - now) : 0;
}

int nursery_process_main(int sock)
{
  struct nursery_process n = {.sock = sock};
  struct pollfd fds[2] = {{.fd = sock, .events = POLLIN},
                          {.fd = watch_children(), .events = POLLIN}};
  tzset(); /* os.date needs the zone's file, which the empty root lacks */
  turns_init(&n.turns);
  if (enter_namespaces() < 0 || empty_root() < 0) return NURSERY_NO_WALLS;
  int64_t due_ms = -1;
  for (;;) {
    fds[0].events = turns_have_room(&n.turns) ? POLLIN : 0;
    poll(fds, 2, until(due_ms));
    if (fds[1].revents & POLLIN) {
      struct signalfd_siginfo info;
      while (read(fds[1].fd, &info, sizeof info) > 0) {}
      reap(&n);
    }
    if (fds[0].revents && !serve(&n)) break;
    if (until(due_ms) > 0 && turns_have_room(&n.turns)) continue;
    int in_ms = turns_tick(&n.turns);
    due_ms = in_ms < 0 ? -1 : (int64_t)clock_mono_ms() + in_ms;
  }
  kill_all(&n);
  return 0;
}

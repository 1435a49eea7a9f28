/* Starts helper processes and gives them their title.
 *
 * A helper is a fork of this process while it is small, or this program started anew when it is
 * big: posix_spawn does not copy page tables. Both ways it ends up the same: session of its own (a
 * Ctrl-C at the terminal is for the host alone), empty environment, "/" as directory, default
 * signals, /dev/null on 0 to 2, and one socket; every other descriptor is closed before its main
 * runs.
 *
 * The title is written over the memory that holds argv and the environment, which is what ps reads.
 * That also removes the environment from /proc/PID/environ. */
#include "core/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#define HELPER_FD 3

/* Where the kernel looks for the command line; 0 until found. */
static char *title_start, *title_end;

static void find_title_area(void)
{
  char text[2048];
  cleanup_close int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (n <= 0) return;
  text[n] = '\0';
  /* Fields are counted behind the name, which may hold anything: 48 arg_start, 51 env_end. */
  char *p = strrchr(text, ')');
  unsigned long field[4] = {0};
  for (int i = 2; p && i < 52; i++) {
    if (i >= 48) field[i - 48] = strtoul(p, NULL, 10);
    p = strchr(p + 1, ' ');
    if (p) p++;
  }
  if (!field[0] || field[1] <= field[0]) return;
  title_start = (char *)field[0];
  title_end = (char *)(field[3] > field[1] && field[2] == field[1] ? field[3] : field[1]);
}

void helper_set_title(const char *title, const char *comm)
{
  prctl(PR_SET_NAME, comm, 0, 0, 0);
  if (!title_start) return;
  size_t room = (size_t)(title_end - title_start), n = strlen(title);
  if (n >= room) n = room - 1;
  memset(title_start, 0, room);
  memcpy(title_start, title, n);
}

static void default_signals(void)
{
  struct sigaction sa = {.sa_handler = SIG_DFL};
  for (int sig = 1; sig < NSIG; sig++) sigaction(sig, &sa, NULL);
  signal(SIGXFSZ, SIG_IGN); /* ulimit -f: an error that can be told */
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Leaves open: /dev/null on 0 to 2, and the socket. */
static int keep_only(int sock)
{
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return -1;
  for (int fd = 0; fd < 3; fd++)
    if (null != fd) dup2(null, fd);
  if (sock != HELPER_FD && dup2(sock, HELPER_FD) < 0) return -1;
  fcntl(HELPER_FD, F_SETFD, FD_CLOEXEC);
  return (int)syscall(SYS_close_range, HELPER_FD + 1, ~0U, 0);
}

static void run(const char *name, helper_main_fn *main_fn, int sock) __attribute__((noreturn));
static void run(const char *name, helper_main_fn *main_fn, int sock)
{
  default_signals();
  if (keep_only(sock) < 0 || chdir("/") < 0) _exit(125);
  /* Real-time scheduling is for the host alone; such processes cannot join groups either. */
  sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
  setsid(); /* fails only for who leads a session already */
  umask(022);
  clearenv();
  find_title_area();
  char title[64], comm[16];
  snprintf(title, sizeof title, "regolith: %s", name);
  snprintf(comm, sizeof comm, "regolith-%s", name);
  helper_set_title(title, comm);
  _exit(main_fn(HELPER_FD));
}

static int make_pair(int pair[2], struct err *err)
{
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return err_set(err, ERR_INTERNAL, errno, "cannot make a socket pair: %s", strerror(errno));
  /* The helper takes the place of descriptor 3: our end must not be there. */
  for (int i = 0; i < 2; i++) {
    int fd = fcntl(pair[i], F_DUPFD_CLOEXEC, HELPER_FD + 1);
    if (fd >= 0) {
      close(pair[i]);
      pair[i] = fd;
    }
  }
  return 0;
}

int helper_fork(const char *name, helper_main_fn *main_fn, struct helper *ret, struct err *err)
{
  int pair[2];
  int rc = make_pair(pair, err);
  if (rc < 0) return rc;
  pid_t pid =
      _Fork(); /* what libraries do at fork is not for a process that keeps nothing of them */
  if (pid == 0) run(name, main_fn, pair[1]);
  int e = errno;
  close(pair[1]);
  if (pid < 0) {
    close(pair[0]);
    return err_set(err, ERR_INTERNAL, e, "cannot start the %s: %s", name, strerror(e));
  }
  *ret = (struct helper){pid, pair[0]};
  return 0;
}

int helper_respawn(const char *name, struct helper *ret, struct err *err)
{
  int pair[2];
  int rc = make_pair(pair, err);
  if (rc < 0) return rc;
  char title[64], room[97];
  snprintf(title, sizeof title, "regolith: %s", name);
  memset(room, ' ', sizeof room - 1); /* room for a longer title */
  room[sizeof room - 1] = '\0';
  char *argv[] = {title, room, NULL}, *envp[] = {NULL};
  posix_spawn_file_actions_t fa;
  posix_spawn_file_actions_init(&fa);
  posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
  posix_spawn_file_actions_adddup2(&fa, 0, 1);
  posix_spawn_file_actions_adddup2(&fa, 0, 2);
  posix_spawn_file_actions_adddup2(&fa, pair[1], HELPER_FD);
  pid_t pid = -1;
  rc = posix_spawn(&pid, "/proc/self/exe", &fa, NULL, argv, envp);
  posix_spawn_file_actions_destroy(&fa);
  close(pair[1]);
  if (rc != 0) {
    close(pair[0]);
    return err_set(err, ERR_INTERNAL, rc, "cannot start the %s: %s", name, strerror(rc));
  }
  *ret = (struct helper){pid, pair[0]};
  return 0;
}

void helper_enter(const char *name, helper_main_fn *main_fn)
{
  char title[64];
  snprintf(title, sizeof title, "regolith: %s", name);
  if (strcmp(program_invocation_name, title) != 0) return;
  run(name, main_fn, HELPER_FD);
}

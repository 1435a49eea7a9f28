/* The agent: process 1 of a box.
 *
 * It is a clone of the warden that never executes anything itself. It moves into its namespaces and
 * its file system, closes the door behind it (walls.h), and then waits for the host's requests on
 * one socket: start a command, end one. It reaps everything, and reports how commands ended.
 *
 * Everything beside it in the box is hostile. It holds a user id that does not exist inside, cannot
 * be traced or dumped, cannot be signalled by those inside (it is process 1 and catches nothing),
 * opens no path of the box without bounds, and holds no descriptor of the host but its socket. It
 * ends when the host closes that socket or when the warden dies; the kernel then ends the box.
 *
 * A run (one command) lives until its report is sent: as soon as the command itself has ended; or,
 * once it was asked to end it with all that it started, when the last of these is dead.
 *
 * boot → blank → (DRESS) dressed → (JOIN) counted → (GO) serving */
#include "engine/local/agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "core/helper.h"
#include "engine/local/agent_internal.h"
#include "engine/local/rootfs.h"

#define EXEC_TEXT_MAX (8u * 1024 * 1024)
#define EXEC_ARGS_MAX 131072u
#define KILL_POLL_MS  2

struct run {
  uint64_t exec;
  pid_t pid;        /* 0: reaped */
  bool killed;      /* asked to end all of it */
  bool was_sigkill; /* we sent the command itself a SIGKILL */
  struct cgroup_leaf leaf;
  uint64_t mark;    /* UTS namespace inode, where there is no leaf; 0 = none */
  int64_t oom_seen; /* the box's counter at the start, -1 = there is none */
  uint64_t start_ns;
  struct proto_exited report; /* complete once pid is 0 */
};

static struct agent {
  int sock;    /* to the host */
  int signals; /* signalfd: SIGCHLD */
  int null;    /* the box's /dev/null */
  int proc;    /* the box's /proc, for marks */
  bool cgroup_ns_per_exec;
  int oom_adj; /* own oom_score_adj; -1 = none */
  uint32_t mapped;
  struct walls_limits limits;
  struct cgroup_leaves leaves;
  struct run *runs; /* owned; in no order */
  size_t runs_n, runs_cap;
  size_t killing; /* runs that are killed and not yet reported */
  bool has_run;   /* a command has been started */
} agent;

static void die(void) __attribute__((noreturn));
static void die(void)
{
  _exit(1);
}

/* --- runs ------------------------------------------------------------------------------------- */

static struct run *find_run(uint64_t exec)
{
  for (size_t i = 0; i < agent.runs_n; i++)
    if (agent.runs[i].exec == exec) return &agent.runs[i];
  return NULL;
}

static struct run *add_run(void)
{
  if (agent.runs_n == agent.runs_cap) {
    agent.runs_cap = agent.runs_cap ? agent.runs_cap * 2 : 16;
    agent.runs = xrealloc(agent.runs, agent.runs_cap * sizeof *agent.runs);
  }
  struct run *r = &agent.runs[agent.runs_n++];
  *r = (struct run){.leaf = {.fd = -1}};
  return r;
}

static void remove_run(struct run *r)
{
  if (r->killed) agent.killing--;
  if (r->leaf.fd >= 0) cgroup_leaf_give(&agent.leaves, &r->leaf);
  *r = agent.runs[--agent.runs_n];
}

static void say(const void *msg, size_t len)
{
  if (proto_send_one(agent.sock, msg, len, -1) < 0) die(); /* the host is gone */
}

static void refuse(uint64_t exec, enum refused_why why, int error)
{
  struct proto_refused r = {
      .type = PROTO_REFUSED, .why = (uint32_t)why, .exec = exec, .error = error};
  say(&r, sizeof r);
}

/* --- ends ------------------------------------------------------------------------------------- */

/* Has the kernel killed for want of memory since the run began? */
static bool memory_ran_out(const struct run *r)
{
  int64_t kills = r->leaf.fd >= 0 ? cgroup_leaf_oom_kills(&agent.leaves, &r->leaf) : -1;
  if (kills >= 0) return kills > 0;
  return r->oom_seen >= 0 && cgroup_leaves_box_oom_kills(&agent.leaves) > r->oom_seen;
}

static uint64_t usec(struct timeval tv)
{
  return (uint64_t)tv.tv_sec * 1000000u + (uint64_t)tv.tv_usec;
}

/* 137 is how a shell says that its command died of a SIGKILL. */
static void fill_report(struct run *r, int status, const struct rusage *ru)
{
  bool signalled = WIFSIGNALED(status);
  int code = signalled ? WTERMSIG(status) : WEXITSTATUS(status);
  bool sigkill = signalled ? code == SIGKILL && !r->was_sigkill : code == 128 + SIGKILL;
  r->pid = 0;
  r->report = (struct proto_exited){
      .type = PROTO_EXITED,
      .how = signalled ? EXITED_SIGNAL : EXITED_CODE,
      .exec = r->exec,
      .code = code,
      .duration_us = (clock_mono_ns() - r->start_ns) / 1000,
      .cpu_us = usec(ru->ru_utime) + usec(ru->ru_stime),
      .max_rss_kib = (uint64_t)ru->ru_maxrss,
  };
  if (sigkill && !r->killed && memory_ran_out(r)) {
    r->report.how = EXITED_OOM;
    r->report.code = SIGKILL;
  }
}

/* The UTS namespace of a process tells whose descendant it is. What hides it (a program that may
 * not be read) is taken for one: better one too many in a box without groups than one left. */
static bool bears_mark(pid_t pid, uint64_t mark)
{
  char path[64];
  struct stat st;
  snprintf(path, sizeof path, "%d/ns/uts", (int)pid);
  if (fstatat(agent.proc, path, &st, 0) == 0) return st.st_ino == mark;
  return errno == EACCES || errno == EPERM;
}

/* SIGKILL to all that bear the mark; returns how many did and were alive. */
static size_t kill_marked(uint64_t mark)
{
  size_t n = 0;
  DIR *d = fdopendir(openat(agent.proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (struct dirent *e; d && (e = readdir(d));) {
    pid_t pid = (pid_t)atoi(e->d_name);
    if (pid > 1 && bears_mark(pid, mark) && kill(pid, SIGKILL) == 0) n++;
  }
  if (d) closedir(d);
  return n;
}

/* Is all of a killed run dead? Zombies do not count. */
static bool is_over(struct run *r)
{
  if (r->pid) return false;
  if (r->leaf.fd >= 0) return cgroup_leaf_populated(&r->leaf) != 1;
  return r->mark == 0 || kill_marked(r->mark) == 0;
}

static void report_over(void)
{
  for (size_t i = agent.runs_n; i-- > 0;) {
    struct run *r = &agent.runs[i];
    if (r->pid || (r->killed && !is_over(r))) continue;
    say(&r->report, sizeof r->report);
    remove_run(r);
  }
}

static void reap(void)
{
  struct signalfd_siginfo info;
  if (read(agent.signals, &info, sizeof info) < 0 && errno != EAGAIN) die();
  int status;
  struct rusage ru;
  for (pid_t pid; (pid = wait4(-1, &status, WNOHANG | __WALL, &ru)) > 0;)
    for (size_t i = 0; i < agent.runs_n; i++)
      if (agent.runs[i].pid == pid) fill_report(&agent.runs[i], status, &ru);
  report_over();
}

static void on_exec_kill(const struct proto_exec_kill *k)
{
  struct run *r = find_run(k->exec);
  if (!r) return; /* its report is under way */
  if (k->signal) {
    if (k->signal == SIGKILL) r->was_sigkill = true;
    if (r->pid && k->signal > 0 && k->signal < NSIG) kill(r->pid, k->signal);
    return;
  }
  if (r->killed) return;
  r->killed = r->was_sigkill = true;
  agent.killing++;
  if (r->leaf.fd < 0 || cgroup_leaf_kill(&r->leaf) < 0) {
    if (r->pid) kill(r->pid, SIGKILL);
    if (r->mark) kill_marked(r->mark);
  }
}

/* --- starts ----------------------------------------------------------------------------------- */

/* The strings of an exec request: behind the struct, or in the memfd. Returns owned text. */
static char *take_text(const struct proto_exec *x, const char *inline_text, size_t inline_len,
                       int memfd)
{
  if (x->len == 0 || x->len > EXEC_TEXT_MAX) return NULL;
  char *text = malloc(x->len);
  if (!text) return NULL;
  bool ok = x->in_memfd ? pread(memfd, text, x->len, 0) == (ssize_t)x->len : inline_len == x->len;
  if (ok && !x->in_memfd) memcpy(text, inline_text, x->len);
  if (ok && text[x->len - 1] == '\0') return text;
  free(text);
  return NULL;
}

/* Points n entries of ret, and a NULL, at the strings from *at on. */
static bool take_strings(char **ret, size_t n, char **at, const char *end)
{
  for (size_t i = 0; i < n; i++) {
    if (*at >= end) return false;
    ret[i] = *at;
    *at += strlen(*at) + 1;
  }
  ret[n] = NULL;
  return true;
}

static void answer_launch(struct run *r, const struct agent_launch *l)
{
  if (l->ret_refused >= 0) {
    refuse(r->exec, (enum refused_why)l->ret_refused, l->ret_errno);
    remove_run(r);
  } else if (l->ret_exit_code >= 0) {
    struct rusage none = {0};
    fill_report(r, l->ret_exit_code << 8, &none);
    say(&r->report, sizeof r->report);
    remove_run(r);
  } else {
    struct proto_started started = {.type = PROTO_STARTED, .pid = l->ret_pid, .exec = r->exec};
    r->pid = l->ret_pid;
    r->mark = l->ret_mark;
    if (l->tell) say(&started, sizeof started);
    agent.has_run = true;
  }
}

static void start(const struct proto_exec *x, struct agent_launch *l, const char *user)
{
  int rc = agent_user_find(user, agent.mapped, &l->user);
  if (rc < 0) {
    refuse(x->exec, REFUSED_USER, -rc);
    return;
  }
  struct run *r = add_run();
  r->exec = x->exec;
  if (cgroup_leaf_take(&agent.leaves, &r->leaf) < 0) r->leaf.fd = -1;
  r->oom_seen = cgroup_leaves_box_oom_kills(&agent.leaves);
  l->cgroup_fd = r->leaf.fd;
  l->cgroup_ns = agent.cgroup_ns_per_exec;
  l->limits = &agent.limits;
  l->oom_adj_fd = agent.oom_adj;
  r->start_ns = clock_mono_ns();
  agent_launch(l);
  answer_launch(r, l);
}

static void on_exec(const struct proto_exec *x, const char *inline_text, size_t inline_len,
                    const int *fds, size_t fds_n)
{
  size_t want = 2 + (x->in_memfd ? 1 : 0) + (x->flags & EXEC_HAS_STDIN ? 1 : 0), at = 0;
  bool file = x->flags & EXEC_FILE;
  if (fds_n != want || x->argc == 0 || (file && x->argc != EXEC_FILE_ARGC) ||
      x->argc > EXEC_ARGS_MAX || x->envc > EXEC_ARGS_MAX) {
    refuse(x->exec, REFUSED_OTHER, EPROTO);
    return;
  }
  struct agent_launch l = {.envc = x->envc, .file = file, .tell = x->flags & EXEC_TELL};
  int memfd = x->in_memfd ? fds[at++] : -1;
  l.fds[0] = x->flags & EXEC_HAS_STDIN ? fds[at++] : agent.null;
  l.fds[1] = fds[at++];
  l.fds[2] = fds[at];
  cleanup_free char *text = take_text(x, inline_text, inline_len, memfd);
  cleanup_free char **argv = calloc(x->argc + 1, sizeof *argv);
  cleanup_free char **envp = calloc(x->envc + 3, sizeof *envp);
  char *p = text, *head[3];
  const char *end = text ? text + x->len : NULL;
  if (!text || !argv || !envp || !take_strings(head, 2, &p, end) ||
      !take_strings(argv, x->argc, &p, end) || !take_strings(envp, x->envc, &p, end)) {
    refuse(x->exec, REFUSED_OTHER, EPROTO);
    return;
  }
  l.cwd = head[0];
  l.argv = argv;
  l.envp = envp;
  start(x, &l, head[1]);
}

/* --- probes ----------------------------------------------------------------------------------- */

static void on_probe(const struct proto_probe *p)
{
  struct proto_probe answer = {.type = PROTO_PROBED, .port = p->port};
  answer.open = agent_port_open((uint16_t)p->port);
  say(&answer, sizeof answer);
}

static void on_connect(const struct proto_connect *c)
{
  struct proto_connect answer = *c;
  cleanup_close int fd = agent_port_connect((uint16_t)c->port);
  if (proto_send_one(agent.sock, &answer, sizeof answer, fd) < 0) die();
}

/* --- serving ---------------------------------------------------------------------------------- */

static char message[PROTO_INLINE_MAX + sizeof(struct proto_exec)];

static void dispatch(size_t len, const int *fds, size_t fds_n)
{
  uint32_t type;
  if (len < sizeof type) die();
  memcpy(&type, message, sizeof type);
  if (type == PROTO_EXEC && len >= sizeof(struct proto_exec)) {
    struct proto_exec x;
    memcpy(&x, message, sizeof x);
    on_exec(&x, message + sizeof x, len - sizeof x, fds, fds_n);
  } else if (type == PROTO_EXEC_KILL && len == sizeof(struct proto_exec_kill)) {
    struct proto_exec_kill k;
    memcpy(&k, message, sizeof k);
    on_exec_kill(&k);
  } else if (type == PROTO_PROBE && len == sizeof(struct proto_probe)) {
    struct proto_probe p;
    memcpy(&p, message, sizeof p);
    on_probe(&p);
  } else if (type == PROTO_CONNECT && len == sizeof(struct proto_connect)) {
    struct proto_connect c;
    memcpy(&c, message, sizeof c);
    on_connect(&c);
  } else {
    die();
  }
}

/* Some requests, so that ends are reported meanwhile. */
static void take_requests(void)
{
  for (int i = 0; i < 16; i++) {
    int fds[PROTO_FDS_MAX];
    size_t fds_n = 0;
    ssize_t n = proto_recv(agent.sock, message, sizeof message, fds, &fds_n, false);
    if (n == -EAGAIN) return;
    if (n <= 0) die();
    dispatch((size_t)n, fds, fds_n);
    for (size_t f = 0; f < fds_n; f++) close(fds[f]);
  }
}

static void serve(void) __attribute__((noreturn));
static void serve(void)
{
  struct pollfd p[2] = {{.fd = agent.sock, .events = POLLIN},
                        {.fd = agent.signals, .events = POLLIN}};
  for (;;) {
    if (poll(p, 2, agent.killing ? KILL_POLL_MS : -1) < 0) die();
    if (p[1].revents) reap();
    if (p[0].revents) take_requests();
    if (agent.killing) report_over();
  }
}

/* --- moving in -------------------------------------------------------------------------------- */

static int boot_fail(struct err *err, const char *what, int e)
{
  return err_set(err, ERR_INTERNAL, e, "cannot %s: %s", what, strerror(e));
}

/* Closes all but the two descriptors, which move to 3 and 4 (-1: there is none). */
static void keep_two(int *a, int *b)
{
  int moved = fcntl(*a, F_DUPFD_CLOEXEC, 5);
  int other = *b < 0 ? -1 : fcntl(*b, F_DUPFD_CLOEXEC, 5);
  *a = dup3(moved, 3, O_CLOEXEC);
  *b = other < 0 ? -1 : dup3(other, 4, O_CLOEXEC);
  if (*b < 0) close(4);
  syscall(SYS_close_range, 5, ~0U, 0);
}

/* What can be done before anything is known about the box. The network namespace takes longest:
 * made here, and not by the clone, it costs no time of the warden's. */
static int be_blank(struct err *err)
{
  /* Only what can be dumped may open its own files in /proc, and only such a one's id maps may an
   * ordinary user's warden write. Nobody else is here until GO. */
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  agent.oom_adj = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (agent.oom_adj < 0) return boot_fail(err, "open oom_score_adj", errno);
  if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0) {
    int e = errno;
    if (e == ENOSPC || e == ENOMEM)
      return err_set(err, ERR_CAPACITY, e, "no room for another network namespace: %s",
                     strerror(e));
    return boot_fail(err, "make network, ipc and uts namespaces", e);
  }
  if (sethostname("sandbox", 7) < 0) return boot_fail(err, "set the host name", errno);
  cleanup_close int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  if (s < 0 || ioctl(s, SIOCSIFFLAGS, &lo) < 0) return boot_fail(err, "bring loopback up", errno);
  return 0;
}

static int catch_children(struct err *err)
{
  sigset_t all, child;
  sigfillset(&all);
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  if (sigprocmask(SIG_SETMASK, &all, NULL) < 0) return boot_fail(err, "block signals", errno);
  agent.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  return agent.signals < 0 ? boot_fail(err, "make a signalfd", errno) : 0;
}

/* Files that the agent makes are root's, and opens count as root's; all its other ids stay what
 * nobody inside has. */
static int own_files_as_root(void)
{
  syscall(SYS_setgroups, 0, NULL); /* denied with a single id, which has no groups to lose */
  syscall(SYS_setfsgid, 0);
  syscall(SYS_setfsuid, 0);
  return syscall(SYS_setfsuid, -1) == 0 ? 0 : -EPERM;
}

static int close_walls(struct err *err)
{
  cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct walls_agent_conf conf = {.root_fd = root, .group_fd = agent.leaves.box_fd};
  enum walls_step step;
  if (root < 0) return boot_fail(err, "open the root", errno);
  int rc = walls_close_agent(&conf, &step);
  if (rc < 0)
    return err_set(err, ERR_INTERNAL, -rc, "cannot set up %s: %s", walls_step_name(step),
                   strerror(-rc));
  /* After the last change of ids, which clears it. Of ids only: what walls set stays. */
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
    return boot_fail(err, "tie the box to its warden", errno);
  return 0;
}

/* The descriptors that came with DRESS, by their names. */
struct arrival {
  const int *mounts;
  size_t mounts_n;
  int dev; /* a /dev of the box's own; -1 = the usual one */
  struct rootfs_volume volumes[PROTO_BINDS_MAX];
};

static bool unpack(const struct proto_dress *d, const int *fds, size_t n, struct arrival *ret)
{
  if (n != d->mounts_n + d->has_dev) return false;
  ret->mounts = fds;
  ret->mounts_n = d->mounts_n;
  ret->dev = d->has_dev ? fds[d->mounts_n] : -1;
  return true;
}

static bool take_volumes(int sync, const struct proto_dress *d, struct rootfs_volume *ret)
{
  static struct proto_volume msg;
  if (d->volumes_n > PROTO_BINDS_MAX) return false;
  for (uint32_t i = 0; i < d->volumes_n; i++) {
    int fds[PROTO_FDS_MAX];
    size_t n = 0;
    ssize_t len = proto_recv(sync, &msg, sizeof msg, fds, &n, true);
    bool link = msg.kind == BIND_LINK;
    if (len <= 0 || msg.type != PROTO_VOLUME || n != (link ? 0 : 1)) return false;
    ret[i] = (struct rootfs_volume){.kind = msg.kind,
                                    .target = xstrdup(msg.target),
                                    .link = link ? xstrdup(msg.path) : NULL,
                                    .fd = link ? -1 : fds[0]};
  }
  return true;
}

/* Before anything of the box runs: all that it will do is counted. The cgroup namespace begins
 * where we then are. */
static int join_groups(struct cgroup_entry *entry, bool into, struct err *err)
{
  int rc = cgroup_entry_join(entry, into);
  if (rc < 0) return boot_fail(err, "join the box's control group", -rc);
  agent.cgroup_ns_per_exec = entry->ns_per_exec;
  if (!agent.cgroup_ns_per_exec && unshare(CLONE_NEWCGROUP) < 0)
    return boot_fail(err, "make a cgroup namespace", errno);
  cgroup_leaves_init(&agent.leaves, entry->box_fd, entry->oom_fd);
  cgroup_leaves_fill(&agent.leaves, 1);
  entry->box_fd = entry->oom_fd = -1;
  cgroup_entry_done(entry);
  return 0;
}

static void on_join(const struct proto_join *j, const int *fds, size_t n, bool into,
                    struct err *err)
{
  struct cgroup_entry entry;
  size_t want = 0u + j->has_into + j->tasks_n + j->has_box + j->has_oom;
  if (n != want || j->tasks_n > CGROUP_V1_TREES) die();
  entry.into_fd = j->has_into ? *fds++ : -1;
  for (int i = 0; i < CGROUP_V1_TREES; i++) entry.v1_tasks_fd[i] = i < j->tasks_n ? *fds++ : -1;
  entry.box_fd = j->has_box ? *fds++ : -1;
  entry.oom_fd = j->has_oom ? *fds++ : -1;
  entry.ns_per_exec = j->ns_per_exec;
  if (err->kind == ERR_NONE) join_groups(&entry, into, err);
}

/* The box as its image makes it, whoever it will belong to. */
static int move_in(const struct proto_dress *d, struct arrival *a, struct err *err)
{
  agent.mapped = d->mapped;
  int rc = own_files_as_root();
  if (rc < 0) return boot_fail(err, "become root of the box", -rc);
  rc = rootfs_enter(d, a->mounts, a->mounts_n, a->dev, a->volumes, err);
  for (uint32_t i = 0; i < d->volumes_n; i++) {
    free(a->volumes[i].target);
    free(a->volumes[i].link);
  }
  if (rc < 0) return rc;
  umask(022);
  agent.null = open("/dev/null", O_RDWR | O_CLOEXEC);
  agent.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (agent.null < 0 || agent.proc < 0) return boot_fail(err, "open /dev/null and /proc", errno);
  for (int fd = 0; fd < 3; fd++) dup2(agent.null, fd);
  return 0;
}

static void on_dress(const struct proto_dress *d, const int *fds, size_t fds_n,
                     const struct agent_boot *boot, struct err *err)
{
  static struct arrival arrival;
  if (!unpack(d, fds, fds_n, &arrival) || !take_volumes(boot->sync_fd, d, &arrival.volumes[0]))
    die();
  if (err->kind == ERR_NONE) move_in(d, &arrival, err);
  /* Changes of ids take this away; until GO the warden may still look at the namespaces. */
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/* Nothing is said to the warden unasked: what it has not read when it closes its end would cost the
 * agent GO. */
static void on_blank(int sync, bool blank)
{
  struct proto_blank answer = {.type = PROTO_BLANK, .ok = blank};
  if (proto_send_one(sync, &answer, sizeof answer, -1) < 0) die();
}

/* What the warden says, until GO: long before it, or all at once. */
static void wait_go(const struct agent_boot *boot, struct proto_dress *ret_dress,
                    struct proto_go *ret, struct err *err)
{
  static union {
    uint32_t type;
    struct proto_blank blank;
    struct proto_dress dress;
    struct proto_join join;
    struct proto_go go;
  } msg;
  bool blank = err->kind == ERR_NONE;
  for (;;) {
    int fds[PROTO_FDS_MAX];
    size_t n = 0;
    ssize_t len = proto_recv(boot->sync_fd, &msg, sizeof msg, fds, &n, true);
    if (len == sizeof msg.blank && msg.type == PROTO_BLANK) {
      on_blank(boot->sync_fd, blank);
    } else if (len == sizeof msg.dress && msg.type == PROTO_DRESS) {
      *ret_dress = msg.dress;
      on_dress(ret_dress, fds, n, boot, err);
    } else if (len == sizeof msg.join && msg.type == PROTO_JOIN) {
      on_join(&msg.join, fds, n, boot->into, err);
    } else if (len == sizeof msg.go && msg.type == PROTO_GO && n == 1) {
      agent.sock = fds[0];
      *ret = msg.go;
      return;
    } else {
      die();
    }
  }
}

/* What only its owner decides. Then the walls: nobody has been in the box before. */
static int settle(const struct proto_dress *d, const struct proto_go *go, struct err *err)
{
  int rc = 0;
  agent.limits = (struct walls_limits){.nproc = go->nproc, .as_bytes = go->as_bytes};
  if (d->image == IMAGE_HOST && (go->disk_bytes != d->disk_bytes || go->inodes != d->inodes))
    rc = rootfs_resize(go->disk_bytes, go->inodes, err);
  if (rc == 0 && go->network) rc = rootfs_name_server(err);
  return rc < 0 ? rc : close_walls(err);
}

static void announce(const struct err *err)
{
  struct proto_ready ready = {.type = PROTO_READY};
  struct proto_failed failed = {.type = PROTO_FAILED, .err = *err};
  if (err->kind == ERR_NONE) {
    say(&ready, sizeof ready);
    return;
  }
  say(&failed, sizeof failed);
  die();
}

void agent_main(const struct agent_boot *boot)
{
  struct err err = {0};
  struct proto_dress dress = {0};
  struct proto_go go;
  struct agent_boot own = *boot;
  agent.oom_adj = -1;
  helper_set_title("regolith: agent", "regolith-agent");
  keep_two(&own.sync_fd,
           &agent.oom_adj); /* at once: among them may be what another box has alone */
  int rc = be_blank(&err);
  keep_two(&own.sync_fd, &agent.oom_adj);
  if (rc == 0) catch_children(&err);
  wait_go(&own, &dress, &go, &err);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  close(own.sync_fd);
  char title[96];
  snprintf(title, sizeof title, "regolith: agent %.63s", go.sandbox_id);
  helper_set_title(title, "regolith-agent");
  if (err.kind == ERR_NONE) settle(&dress, &go, &err);
  announce(&err);
  serve();
}

/* engine/local/walls and its filter: every refused call fails with the errno the table says, and
 * does something else without the filter; ordinary programs notice nothing; a command has the
 * capabilities, limits and signals it should have. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/local/probe_internal.h"
#include "engine/local/walls.h"

#define BAD ((long)1) /* no address */

/* Calls that the kernel turns down for their arguments, with nothing happening. */
static const struct call {
  const char *name;
  long nr;
  long a[6];
} refused[] = {
#define CALL(name, ...)                                                                            \
  {                                                                                                \
#name, SYS_##name,                                                                             \
    {                                                                                              \
      __VA_ARGS__                                                                                  \
    }                                                                                              \
  }
    CALL(mount, BAD, BAD, BAD, 0, BAD),
    CALL(umount2, BAD, ~0),
    CALL(pivot_root, BAD, BAD),
    CALL(open_tree, -1, BAD, ~0),
    CALL(move_mount, -1, BAD, -1, BAD, ~0),
    CALL(fsopen, BAD, ~0),
    CALL(fsconfig, -1, ~0, BAD, BAD, -1),
    CALL(fsmount, -1, ~0, ~0),
    CALL(fspick, -1, BAD, ~0),
    CALL(mount_setattr, -1, BAD, ~0, BAD, 0),
    CALL(swapon, BAD, ~0),
    CALL(swapoff, BAD),
    CALL(quotactl, ~0, BAD, 0, BAD),
    CALL(quotactl_fd, -1, ~0, 0, BAD),
    CALL(unshare, 1),
    CALL(setns, -1, 0),
    CALL(sethostname, BAD, -1),
    CALL(setdomainname, BAD, -1),
    CALL(init_module, BAD, 0, BAD),
    CALL(finit_module, -1, BAD, ~0),
    CALL(delete_module, BAD, 0),
    CALL(kexec_load, 0, ~0, 0, ~0),
    CALL(kexec_file_load, -1, -1, 0, 0, ~0),
    CALL(reboot, 0, 0, 0, 0),
    CALL(syslog, ~0, 0, 0),
    CALL(acct, BAD),
    CALL(vhangup, 0), /* of a session without a terminal */
    CALL(bpf, ~0, BAD, 0),
    CALL(perf_event_open, BAD, 0, 0, -1, ~0),
    CALL(userfaultfd, ~0),
    CALL(io_uring_setup, 0, BAD),
    CALL(io_uring_enter, -1, 0, 0, ~0, 0, 0),
    CALL(io_uring_register, -1, ~0, 0, 0),
    CALL(add_key, BAD, BAD, BAD, 1, 0),
    CALL(request_key, BAD, BAD, BAD, 0),
    CALL(keyctl, ~0),
    CALL(open_by_handle_at, -1, BAD, 0),
    CALL(fanotify_init, ~0, 0),
    CALL(kcmp, 0, 0, ~0, 0, 0),
    CALL(pidfd_getfd, -1, 0, ~0),
    CALL(process_madvise, -1, BAD, 1, 0, ~0),
    CALL(mbind, 0, 1, ~0, 0, 0, ~0),
    CALL(set_mempolicy, ~0, 0, 0),
    CALL(get_mempolicy, 0, 0, 0, 0, ~0),
    CALL(set_mempolicy_home_node, 0, 0, ~0, ~0),
    CALL(migrate_pages, -1, 0, 0, 0),
    CALL(move_pages, -1, 0, 0, 0, 0, ~0),
    CALL(settimeofday, BAD, 0),
    CALL(clock_settime, ~0, BAD),
#ifdef __x86_64__
    CALL(create_module, 0),
    CALL(get_kernel_syms, 0),
    CALL(query_module, 0),
    CALL(nfsservctl, 0),
    CALL(_sysctl, BAD),
    CALL(sysfs, ~0),
    CALL(ustat, ~0, BAD),
    CALL(uselib, BAD),
    CALL(lookup_dcookie, 0, BAD, 0),
    CALL(iopl, 77),
    CALL(ioperm, ~0, 1, 1),
    CALL(modify_ldt, ~0),
#endif
};
#define REFUSED_N (sizeof refused / sizeof *refused)

static long make_call(const struct call *c)
{
  errno = 0;
  long r = syscall(c->nr, c->a[0], c->a[1], c->a[2], c->a[3], c->a[4], c->a[5]);
  return r < 0 ? errno : 0;
}

/* Runs fn(data) in a child, under the filter or without; gives what it wrote, up to size bytes, and
 * the wait status. */
static int in_child(bool filtered, void (*fn)(int out, void *data), void *data, void *ret,
                    size_t size)
{
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) abort();
  pid_t pid = fork();
  if (pid == 0) {
    close(fds[0]);
    setsid();
    if (filtered && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || walls_load_seccomp() < 0))
      _exit(98);
    fn(fds[1], data);
    _exit(0);
  }
  close(fds[1]);
  size_t got = 0;
  ssize_t n;
  while (got < size && (n = read(fds[0], (char *)ret + got, size - got)) > 0) got += (size_t)n;
  close(fds[0]);
  int status = -1;
  waitpid(pid, &status, 0);
  return status;
}

static void say(int out, const void *p, size_t n)
{
  if (write(out, p, n) != (ssize_t)n) _exit(97);
}

static void all_refused(int out, void *data)
{
  (void)data;
  for (size_t i = 0; i < REFUSED_N; i++) {
    long e = make_call(&refused[i]);
    say(out, &e, sizeof e);
  }
}

static void refused_calls_fail_with_eperm(void)
{
  long with[REFUSED_N] = {0}, without[REFUSED_N] = {0};
  CHECK_INT(in_child(true, all_refused, NULL, with, sizeof with), 0);
  CHECK_INT(in_child(false, all_refused, NULL, without, sizeof without), 0);
  for (size_t i = 0; i < REFUSED_N; i++) {
    if (with[i] != EPERM)
      fprintf(stderr, "%s: errno %ld under the filter\n", refused[i].name, with[i]);
    CHECK_INT(with[i], EPERM);
    if (geteuid() == 0 && without[i] == EPERM)
      fprintf(stderr, "%s: EPERM without the filter too\n", refused[i].name);
    if (geteuid() == 0) CHECK(without[i] != EPERM);
  }
  if (geteuid() != 0) puts("skipped: without root most of the controls would fail by themselves");
}

static void every_refusal_of_the_table_is_tested(void)
{
  static const char *const listed[] = {
#define ALLOW(name)
#define ALLOW_NR(name, nr)
#define ALLOW_NR_X86(name, nr)
#define CHECK_ARGS(name, check)
#define REFUSE(name) #name,
#include "engine/local/seccomp_table.def"
  };
#ifdef __x86_64__ /* where all names exist */
  for (size_t i = 0; i < sizeof listed / sizeof *listed; i++) {
    bool found = false;
    for (size_t k = 0; k < REFUSED_N; k++)
      if (strcmp(refused[k].name, listed[i]) == 0) found = true;
    if (!found) fprintf(stderr, "%s is refused but not tested\n", listed[i]);
    CHECK(found);
  }
#endif
  CHECK(sizeof listed / sizeof *listed > 50);
}

/* --- Docker's profile ----------------------------------------------------------------------------
 */

/* What Docker's default profile refuses to a container with its default capabilities. Of these
 * clone3 alone is let through; docs/limits.md says why that is no hole. */
static const char *const docker_refuses[] = {"_sysctl",
                                             "acct",
                                             "add_key",
                                             "bpf",
                                             "clock_settime",
                                             "create_module",
                                             "delete_module",
                                             "fanotify_init",
                                             "finit_module",
                                             "fsconfig",
                                             "fsmount",
                                             "fsopen",
                                             "fspick",
                                             "get_kernel_syms",
                                             "get_mempolicy",
                                             "init_module",
                                             "io_uring_enter",
                                             "io_uring_register",
                                             "io_uring_setup",
                                             "ioperm",
                                             "iopl",
                                             "kcmp",
                                             "kexec_file_load",
                                             "kexec_load",
                                             "keyctl",
                                             "listmount",
                                             "lookup_dcookie",
                                             "mbind",
                                             "migrate_pages",
                                             "mount",
                                             "mount_setattr",
                                             "move_mount",
                                             "move_pages",
                                             "nfsservctl",
                                             "open_by_handle_at",
                                             "open_tree",
                                             "open_tree_attr",
                                             "perf_event_open",
                                             "pidfd_getfd",
                                             "pivot_root",
                                             "process_madvise",
                                             "query_module",
                                             "quotactl",
                                             "quotactl_fd",
                                             "reboot",
                                             "request_key",
                                             "set_mempolicy",
                                             "set_mempolicy_home_node",
                                             "setdomainname",
                                             "sethostname",
                                             "setns",
                                             "settimeofday",
                                             "statmount",
                                             "stime",
                                             "swapoff",
                                             "swapon",
                                             "sysfs",
                                             "syslog",
                                             "umount",
                                             "umount2",
                                             "unshare",
                                             "uselib",
                                             "userfaultfd",
                                             "ustat",
                                             "vhangup",
                                             "vm86",
                                             "vm86old"};

static void docker_refuses_no_more(void)
{
  static const char *const allowed[] = {
#undef ALLOW
#undef ALLOW_NR
#undef ALLOW_NR_X86
#undef CHECK_ARGS
#undef REFUSE
#define ALLOW(name)             #name,
#define ALLOW_NR(name, nr)      #name,
#define ALLOW_NR_X86(name, nr)  #name,
#define CHECK_ARGS(name, check) #name,
#define REFUSE(name)
#include "engine/local/seccomp_table.def"
  };
  for (size_t i = 0; i < sizeof docker_refuses / sizeof *docker_refuses; i++)
    for (size_t k = 0; k < sizeof allowed / sizeof *allowed; k++) {
      bool same = strcmp(docker_refuses[i], allowed[k]) == 0;
      if (same) fprintf(stderr, "Docker refuses %s\n", allowed[k]);
      CHECK(!same);
    }
  CHECK(sizeof allowed / sizeof *allowed > 250);
}

/* --- calls that depend on their arguments ----------------------------------------------------- */

static const struct {
  const char *what;
  struct call call;
  long want, plain; /* errno with and without the filter; -1: anything but `want` */
} by_argument[] = {
    {"AF_UNIX", CALL(socket, AF_UNIX, SOCK_STREAM, 0), 0, 0},
    {"AF_INET", CALL(socket, AF_INET, SOCK_STREAM, 0), 0, 0},
    {"AF_INET udp", CALL(socket, AF_INET, SOCK_DGRAM, 17), 0, 0},
    {"AF_NETLINK route", CALL(socket, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), 0, 0},
    {"AF_NETLINK netfilter", CALL(socket, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER), EPROTONOSUPPORT,
     -2},
    {"AF_NETLINK kernel crypto", CALL(socket, AF_NETLINK, SOCK_RAW, NETLINK_CRYPTO),
     EPROTONOSUPPORT, -2},
    {"SCTP", CALL(socket, AF_INET, SOCK_STREAM, 132), EPROTONOSUPPORT, -2},
    {"AF_VSOCK", CALL(socket, AF_VSOCK, SOCK_STREAM, 0), EAFNOSUPPORT, -2},
    {"AF_ALG", CALL(socket, AF_ALG, SOCK_SEQPACKET, 0), EAFNOSUPPORT, -2},
    {"AF_PACKET", CALL(socket, AF_PACKET, SOCK_RAW, 0), EAFNOSUPPORT, -1},
    {"AF_PACKET, other high bits", CALL(socket, (long)0xdead00000011, SOCK_RAW, 0), EAFNOSUPPORT,
     -1},
    {"socketpair AF_INET", CALL(socketpair, AF_INET, SOCK_STREAM, 0, BAD), EAFNOSUPPORT, -1},
    {"TIOCSTI", CALL(ioctl, -1, TIOCSTI, BAD), EPERM, EBADF},
    {"TIOCLINUX", CALL(ioctl, -1, TIOCLINUX, BAD), EPERM, EBADF},
    {"TIOCSETD", CALL(ioctl, -1, TIOCSETD, BAD), EPERM, EBADF},
    {"TIOCSTI, other high bits", CALL(ioctl, -1, (long)0x100005412, BAD), EPERM, EBADF},
    {"TCGETS", CALL(ioctl, -1, TCGETS, BAD), EBADF, EBADF},
    {"personality PER_LINUX", CALL(personality, PER_LINUX), 0, 0},
    {"personality query", CALL(personality, 0xffffffff), 0, 0},
    {"personality ADDR_NO_RANDOMIZE", CALL(personality, 0x0040000), EPERM, 0},
    {"prlimit of the agent", CALL(prlimit64, 1, 99, 0, 0), EPERM, -2},
    {"prlimit of others", CALL(prlimit64, 0, 99, 0, 0), EINVAL, EINVAL},
    {"personality READ_IMPLIES_EXEC", CALL(personality, 0x0400000), EPERM, 0},
    {"clone NEWUSER", CALL(clone, CLONE_NEWUSER | CLONE_THREAD), EPERM, EINVAL},
    {"clone NEWNS", CALL(clone, CLONE_NEWNS | CLONE_FS), EPERM, EINVAL},
    {"clone NEWNET, no signal hand", CALL(clone, CLONE_NEWNET | CLONE_THREAD), EPERM, EINVAL},
    {"clone without namespaces", CALL(clone, CLONE_THREAD), EINVAL, EINVAL},
    {"a call of the future", {"?", 1000, {0}}, ENOSYS, ENOSYS},
    {"statmount: newer than the table", {"?", 457, {-1, BAD, 0, ~0}}, ENOSYS, -2},
#ifdef __x86_64__
    {"x32", {"?", 0x40000000 | 39, {0}}, ENOSYS, -2},
#endif
    {"mknod of a FIFO", CALL(mknodat, -1, BAD, 0010000), EFAULT, EFAULT},
    {"mknod of a character device", CALL(mknodat, -1, BAD, 0020666), EPERM, EFAULT},
    {"mknod of a block device", CALL(mknodat, -1, BAD, 0060666), EPERM, EFAULT},
};
#define BY_ARGUMENT_N (sizeof by_argument / sizeof *by_argument)

static void all_by_argument(int out, void *data)
{
  (void)data;
  for (size_t i = 0; i < BY_ARGUMENT_N; i++) {
    long e = make_call(&by_argument[i].call);
    say(out, &e, sizeof e);
  }
}

static void arguments_decide(void)
{
  long with[BY_ARGUMENT_N] = {0}, without[BY_ARGUMENT_N] = {0};
  CHECK_INT(in_child(true, all_by_argument, NULL, with, sizeof with), 0);
  CHECK_INT(in_child(false, all_by_argument, NULL, without, sizeof without), 0);
  for (size_t i = 0; i < BY_ARGUMENT_N; i++) {
    if (with[i] != by_argument[i].want)
      fprintf(stderr, "%s: errno %ld, want %ld\n", by_argument[i].what, with[i],
              by_argument[i].want);
    CHECK_INT(with[i], by_argument[i].want);
    long plain = by_argument[i].plain; /* -2: depends on the kernel's configuration */
    if (plain == -2) continue;
    if (plain == -1 ? without[i] == by_argument[i].want : without[i] != plain)
      fprintf(stderr, "%s: errno %ld without the filter\n", by_argument[i].what, without[i]);
    CHECK(plain == -1 ? without[i] != by_argument[i].want : without[i] == plain);
  }
}

#ifdef __x86_64__
static void call_as_i386(int out, void *data)
{
  (void)data;
  int pid;
  __asm__ volatile("int $0x80"
                   : "=a"(pid)
                   : "a"(20 /* getpid */)
                   : "memory", "r8", "r9", "r10", "r11");
  say(out, &pid, sizeof pid);
}
#endif

static void foreign_calls_kill(void)
{
#ifdef __x86_64__
  int pid = 0;
  int status = in_child(false, call_as_i386, NULL, &pid, sizeof pid);
  if (status != 0) {
    puts("skipped: this kernel has no 32-bit calls");
    return;
  }
  CHECK(pid > 0);
  pid = 0;
  status = in_child(true, call_as_i386, NULL, &pid, sizeof pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
  CHECK_INT(pid, 0);
#endif
}

/* --- cost ------------------------------------------------------------------------------------- */

static void time_loading(int out, void *data)
{
  (void)data;
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  uint64_t start = clock_mono_ns();
  if (walls_load_seccomp() < 0) _exit(1);
  uint64_t ns = clock_mono_ns() - start;
  say(out, &ns, sizeof ns);
}

static void do_nothing(int out, void *data)
{
  (void)out, (void)data;
}

/* Cheap is a tenth of a millisecond, or, where everything is slow (an emulated machine,
 * sanitizers), less than making a process. */
static void loading_is_cheap(void)
{
  uint64_t best = UINT64_MAX, process = UINT64_MAX;
  for (int i = 0; i < 25; i++) {
    uint64_t ns = UINT64_MAX, start;
    char none;
    CHECK_INT(in_child(false, time_loading, NULL, &ns, sizeof ns), 0);
    if (ns < best) best = ns;
    start = clock_mono_ns();
    in_child(false, do_nothing, NULL, &none, sizeof none);
    if ((ns = clock_mono_ns() - start) < process) process = ns;
  }
  printf("the filter loads in %.1f us at best, a process takes %.1f\n", (double)best / 1000,
         (double)process / 1000);
  CHECK(best < 100000 || best < process);
}

/* --- programs --------------------------------------------------------------------------------- */

static bool write_file(const char *path, const char *text)
{
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  if (fd >= 0) close(fd);
  return ok;
}

/* As an ordinary user: root of a user namespace of one's own, as every sandbox is. */
static bool become_root(void)
{
  char uids[64], gids[64];
  if (geteuid() == 0) return true;
  snprintf(uids, sizeof uids, "0 %u 1", (unsigned)geteuid());
  snprintf(gids, sizeof gids, "0 %u 1", (unsigned)getegid());
  return unshare(CLONE_NEWUSER) == 0 && write_file("/proc/self/setgroups", "deny") &&
         write_file("/proc/self/uid_map", uids) && write_file("/proc/self/gid_map", gids);
}

static void try_root(int out, void *data)
{
  (void)data;
  bool ok = become_root();
  say(out, &ok, sizeof ok);
}

static bool can_become_root(void)
{
  bool ok = false;
  in_child(false, try_root, NULL, &ok, sizeof ok);
  if (!ok) puts("skipped: not root, and no user namespaces");
  return ok;
}

static void run_shell(int out, void *data)
{
  become_root();
  struct walls_agent_conf conf = {.root_fd = -1, .group_fd = -1};
  struct walls_limits limits = {0};
  enum walls_step step;
  dup2(out, 1);
  dup2(out, 2);
  if (walls_close_agent(&conf, &step) < 0 || walls_close_command(&limits, &step) < 0) {
    dprintf(2, "at %s: errno %d\n", walls_step_name(step), errno);
    _exit(96);
  }
  execl("/bin/sh", "sh", "-c", (const char *)data, (char *)NULL);
  _exit(95);
}

static int shell(const char *script, char *ret_text, size_t size)
{
  memset(ret_text, 0, size);
  return in_child(false, run_shell, (void *)(uintptr_t)script, ret_text, size - 1);
}

static void ordinary_programs_notice_nothing(void)
{
  static const struct {
    const char *program, *script, *want;
  } runs[] = {
      {"sh", "echo a b | tr ' ' '\\n' | sort -r | head -1; (sleep 0.01 & wait); umask",
       "b\n0022\n"},
      {"python3",
       "python3 -c 'import subprocess, threading, multiprocessing, socket, tempfile, asyncio, "
       "mmap\n"
       "t = threading.Thread(target=lambda: None); t.start(); t.join()\n"
       "assert subprocess.run([\"true\"]).returncode == 0\n"
       "p = multiprocessing.get_context(\"fork\").Process(target=lambda: None); p.start(); "
       "p.join()\n"
       "assert p.exitcode == 0\n"
       "a, b = socket.socketpair(); a.send(b\"x\"); assert b.recv(1) == b\"x\"\n"
       "s = socket.create_server((\"127.0.0.1\", 0)); s.close()\n"
       "tempfile.TemporaryFile().write(b\"x\"); mmap.mmap(-1, 4096).close()\n"
       "async def main():\n"
       "  p = await asyncio.create_subprocess_exec(\"echo\", \"deep\", stdout=-1)\n"
       "  return (await p.communicate())[0]\n"
       "print(asyncio.run(main()).decode().strip())'",
       "deep\n"},
      {"gcc",
       "d=$(mktemp -d) && cd $d && printf '#include <stdio.h>\\nint main(void){puts(\"built\");}' "
       ">a.c"
       " && gcc -O1 -pthread a.c && ./a.out; rm -rf $d",
       "built\n"},
      {"git",
       "d=$(mktemp -d) && cd $d && git init -q . && git -c user.name=a -c user.email=a@b commit -q "
       "--allow-empty -m x && git log --format=%s; rm -rf $d",
       "x\n"},
      {"node",
       "node -e 'require(\"child_process\").exec(\"echo from node\", (e, o) => "
       "process.stdout.write(o))'",
       "from node\n"},
      {"perl", "perl -e 'print `echo from perl`'", "from perl\n"},
      {"apt-cache", "apt-cache --version | cut -d' ' -f1", "apt\n"},
      {"tar", "tar c /etc/passwd 2>/dev/null | tar t", "etc/passwd\n"},
      {"strace", "strace -o /dev/null echo traced", "traced\n"},
  };
  if (!can_become_root()) return;
  for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
    char which[128], text[4096];
    snprintf(which, sizeof which, "command -v %s >/dev/null", runs[i].program);
    if (system(which) != 0) {
      printf("skipped: %s is not installed\n", runs[i].program);
      continue;
    }
    int status = shell(runs[i].script, text, sizeof text);
    CHECK_INT(status, 0);
    if (strcmp(text, runs[i].want) != 0) fprintf(stderr, "with %s:\n", runs[i].program);
    CHECK_STR(text, runs[i].want);
  }
}

/* --- the other walls -------------------------------------------------------------------------- */

static uint64_t status_hex(const char *text, const char *key)
{
  const char *p = strstr(text, key);
  return p ? strtoull(p + strlen(key), NULL, 16) : ~0ull;
}

static uint64_t own_bounding_set(void)
{
  uint64_t have = 0;
  for (unsigned long cap = 0; cap < 64; cap++)
    if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1) have |= 1ull << cap;
  return have;
}

static void commands_get_walls(void)
{
  if (!can_become_root()) return;
  char text[8192];
  signal(SIGHUP, SIG_IGN); /* as under nohup */
  int status = shell("cat /proc/self/status; ulimit -Sc; ulimit -Hc; ulimit -n; ulimit -l", text,
                     sizeof text);
  signal(SIGHUP, SIG_DFL);
  CHECK_INT(status, 0);
  uint64_t want = own_bounding_set() & WALLS_CAPABILITIES;
  CHECK(want != own_bounding_set());
  CHECK_INT(status_hex(text, "CapBnd:\t"), want);
  CHECK_INT(status_hex(text, "CapPrm:\t"), want);
  CHECK_INT(status_hex(text, "CapAmb:\t"), 0);
  CHECK_INT(status_hex(text, "NoNewPrivs:\t"), 1);
  CHECK_INT(status_hex(text, "Seccomp:\t"), 2);
  CHECK_INT(status_hex(text, "SigIgn:\t"), 0);
  CHECK_INT(status_hex(text, "SigBlk:\t"), 0);
  CHECK(strstr(text, "\n0\n0\n1024\n8192\n"));
}

/* What a process that holds a directory outside its root can still do there, and what it can do
 * inside. `in` and `out` are directories with a file "f" each. */
struct landlock_try {
  const char *in, *out;
  bool walled;
};

struct landlock_seen {
  int outside_open, outside_make, inside_open, inside_rename, pipe_again, mkfifo;
};

static int errno_of(long result)
{
  return result < 0 ? errno : 0;
}

static void try_landlock(int out, void *data)
{
  const struct landlock_try *t = data;
  become_root();
  int in = open(t->in, O_PATH | O_DIRECTORY), outside = open(t->out, O_PATH | O_DIRECTORY);
  int proc = open("/proc/self/fd", O_PATH | O_DIRECTORY), pipes[2];
  char again[16];
  struct walls_agent_conf conf = {.root_fd = t->walled ? in : -1, .group_fd = -1};
  enum walls_step step;
  if (in < 0 || outside < 0 || proc < 0 || pipe(pipes) < 0 || walls_close_agent(&conf, &step) < 0)
    _exit(96);
  snprintf(again, sizeof again, "%d", pipes[1]);
  struct landlock_seen seen = {
      .outside_open = errno_of(openat(outside, "f", O_RDONLY)),
      .outside_make = errno_of(mkdirat(outside, "made", 0700)),
      .inside_open = errno_of(openat(in, "f", O_RDWR | O_TRUNC)),
      .inside_rename = errno_of(renameat(in, "f", in, "d/f")),
      .pipe_again = errno_of(openat(proc, again, O_WRONLY)),
      .mkfifo = errno_of(mknodat(in, "fifo", S_IFIFO | 0600, 0)),
  };
  say(out, &seen, sizeof seen);
}

static void make_try_dir(char *dir)
{
  char path[64];
  CHECK(mkdtemp(dir) != NULL);
  snprintf(path, sizeof path, "%s/d", dir);
  CHECK_INT(mkdir(path, 0755), 0);
  snprintf(path, sizeof path, "%s/f", dir);
  int fd = open(path, O_CREAT | O_WRONLY, 0644);
  CHECK(fd >= 0);
  close(fd);
}

static void files_end_at_the_root(void)
{
  if (!can_become_root()) return;
  if (probe_landlock_abi() < 2) {
    puts("skipped: this kernel has no Landlock of version 2 or later");
    return;
  }
  for (int walled = 0; walled < 2; walled++) {
    char in[] = "/tmp/rg-in-XXXXXX", out[] = "/tmp/rg-out-XXXXXX", command[128];
    make_try_dir(in);
    make_try_dir(out);
    struct landlock_try t = {in, out, walled};
    struct landlock_seen seen = {-1, -1, -1, -1, -1, -1};
    CHECK_INT(in_child(false, try_landlock, &t, &seen, sizeof seen), 0);
    CHECK_INT(seen.outside_open, walled ? EACCES : 0);
    CHECK_INT(seen.outside_make, walled ? EACCES : 0);
    CHECK_INT(seen.inside_open, 0);
    CHECK_INT(seen.inside_rename, 0);
    CHECK_INT(seen.pipe_again, 0);
    CHECK_INT(seen.mkfifo, 0);
    snprintf(command, sizeof command, "rm -rf %s %s", in, out);
    CHECK_INT(system(command), 0);
  }
}

const struct test_case test_cases[] = {
    {"refused calls fail with EPERM", refused_calls_fail_with_eperm},
    {"every refusal of the table is tested", every_refusal_of_the_table_is_tested},
    {"Docker refuses no more", docker_refuses_no_more},
    {"arguments decide", arguments_decide},
    {"foreign calls kill", foreign_calls_kill},
    {"loading is cheap", loading_is_cheap},
    {"ordinary programs notice nothing", ordinary_programs_notice_nothing},
    {"commands get walls", commands_get_walls},
    {"files end at the root", files_end_at_the_root},
    {0},
};

/* A worker process that has broken out of Lua: it says what it likes and calls what it likes. The
 * worker_main of this file takes the place of the real one, so everything else is what runs for
 * real. */
#include "worker_bed.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "host/nursery_internal.h"
#include "host/worker_main.h"
#include "wire/frame.h"

static void put(int fd, const void *bytes, size_t len)
{
  const char *p = bytes;
  while (len > 0) {
    ssize_t n = write(fd, p, len);
    if (n <= 0) return;
    p += n;
    len -= (size_t)n;
  }
}

static void put_frame(int fd, const struct frame *f)
{
  struct buf out = {0};
  frame_encode(&out, f, NULL);
  unsigned char head[4] = {(unsigned char)out.len, (unsigned char)(out.len >> 8),
                           (unsigned char)(out.len >> 16), (unsigned char)(out.len >> 24)};
  put(fd, head, 4);
  put(fd, out.data, out.len);
  buf_free(&out);
}

static void put_op(int fd, uint64_t id, const char *name)
{
  struct val args = val_map();
  struct frame f = {.kind = FRAME_OP, .id = id, .name = name, .body = args};
  put_frame(fd, &f);
}

static void put_end(int fd)
{
  struct frame f = {.kind = FRAME_END};
  put_frame(fd, &f);
}

/* The socket does not block, and waiting for it takes calls that are not at hand: ask again. */
static ssize_t take(int fd, char *into, size_t len)
{
  ssize_t n;
  while ((n = read(fd, into, len)) < 0 && errno == EAGAIN) {}
  return n;
}

/* Reads until the host goes. */
static void linger(int fd)
{
  char piece[4096];
  while (take(fd, piece, sizeof piece) > 0) {}
}

static void noise(int fd)
{
  unsigned seed = 12345;
  unsigned char bytes[4096];
  for (int i = 0; i < 64; i++) {
    for (size_t k = 0; k < sizeof bytes; k++) {
      seed = seed * 1103515245 + 12345;
      bytes[k] = (unsigned char)(seed >> 16);
    }
    put(fd, bytes, sizeof bytes);
  }
}

/* What the script asks for is its first line. */
int worker_main(int fd)
{
  char start[4096];
  ssize_t n = take(fd, start, sizeof start - 1);
  if (n <= 0) return 1;
  for (ssize_t i = 0; i < n; i++)
    if (start[i] == 0) start[i] = ' ';
  start[n] = '\0';
#define ASKED(what) (strstr(start, what) != NULL)
  if (ASKED("do:noise")) noise(fd);
  if (ASKED("do:huge")) put(fd, "\xff\xff\xff\x7f", 4);
  if (ASKED("do:cut")) put(fd, "\x40\0\0\0abc", 7);
  if (ASKED("do:twice")) put_op(fd, 1, "test.hang"), put_op(fd, 1, "test.hang");
  if (ASKED("do:host-frame")) put_frame(fd, &(struct frame){.kind = FRAME_DONE, .id = 1});
  if (ASKED("do:zero-id")) put_op(fd, 0, "test.echo");
  if (ASKED("do:replay")) {
    put_op(fd, 1, "test.echo");
    put_end(fd);
    put_op(fd, 2, "test.hang");
    put_end(fd);
  }
  if (ASKED("do:many"))
    for (uint64_t id = 1; id <= 40; id++) put_op(fd, id, "test.hang");
  if (ASKED("do:strangers")) {
    put_frame(fd, &(struct frame){.kind = FRAME_CANCEL, .id = 99});
    put_frame(fd, &(struct frame){.kind = FRAME_FLOW, .id = 99, .num = 1});
    put_frame(fd, &(struct frame){.kind = FRAME_INPUT, .id = 99});
    put_end(fd);
  }
  if (ASKED("do:silence")) {
    for (;;) {}
  }
  if (ASKED("do:leave")) return 0;
  linger(fd);
  return 0;
}

static struct bed_run run;

static void expect_refused(const char *what)
{
  bed_run(&run, what);
  if (run.end != SCRIPT_LIMIT) fprintf(stderr, "%s ended as %d: %s\n", what, run.end, run.message);
  CHECK_INT(run.end, SCRIPT_LIMIT);
  CHECK(run.message[0] != '\0');
  CHECK_INT(ops_in_flight(bed_ops), 0);
  buf_free(&run.output);
}

static void nonsense_ends_it(void)
{
  static const char *const ways[] = {"do:noise", "do:huge",       "do:cut do:leave",
                                     "do:twice", "do:host-frame", "do:zero-id"};
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) expect_refused(ways[i]);
}

static void leaving_without_a_word_is_told(void)
{
  bed_run(&run, "do:leave");
  CHECK_INT(run.end, SCRIPT_LIMIT);
  CHECK(strstr(run.message, "without a word") != NULL);
}

static void nothing_counts_after_the_end(void)
{
  bed_run(&run, "do:replay");
  CHECK_INT(run.end, SCRIPT_OK);
  CHECK_INT(ops_in_flight(bed_ops), 0);
}

static void ids_of_nobody_are_ignored(void)
{
  bed_run(&run, "do:strangers");
  CHECK_INT(run.end, SCRIPT_OK);
}

static void time_out(struct timer *t)
{
  (void)t;
  struct err e = {0};
  err_set(&e, ERR_TIMEOUT, 0, "ran out of time");
  worker_cancel(run.worker, SCRIPT_TIMEOUT, &e, false);
}

static void ops_in_flight_are_bounded_and_cancelled(void)
{
  struct runner_limits limits = {.max_in_flight = 10};
  bed_cancels = 0;
  bed_start(&run, "many", "do:many", &limits);
  struct timer t = {.cb = time_out};
  timer_start(bed_loop, &t, 100);
  bed_finish(&run);
  timer_stop(bed_loop, &t);
  CHECK_STR(run.message, "ran out of time");
  CHECK_INT(run.end, SCRIPT_TIMEOUT);
  CHECK_INT(bed_cancels, 10);
  CHECK_INT(ops_in_flight(bed_ops), 0);
}

static void silence_is_killed(void)
{
  bed_start(&run, "silence", "do:silence", NULL);
  struct timer t = {.cb = time_out};
  timer_start(bed_loop, &t, 50);
  bed_finish(&run);
  timer_stop(bed_loop, &t);
  CHECK_STR(run.message, "ran out of time");
  CHECK_INT(run.end, SCRIPT_TIMEOUT);
}

/* ---- system calls ---- */

static long call_fork(void)
{
  return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}
static long call_open(void)
{
  return syscall(SYS_open, "/etc/passwd", O_RDONLY);
}
static long call_openat2(void)
{
  return syscall(SYS_openat2, AT_FDCWD, "/", NULL, 0);
}
static long call_socket(void)
{
  return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
}
static long call_kill(void)
{
  return syscall(SYS_kill, getppid(), 0);
}
static long call_ptrace(void)
{
  return syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0);
}
static long call_execve(void)
{
  return syscall(SYS_execve, "/bin/true", NULL, NULL);
}
static long call_mount(void)
{
  return syscall(SYS_mount, "x", "/", "tmpfs", 0, NULL);
}
static long call_unshare(void)
{
  return syscall(SYS_unshare, CLONE_NEWUSER);
}
static long call_setuid(void)
{
  return syscall(SYS_setuid, 0);
}
static long call_process_vm(void)
{
  return syscall(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0);
}
static long call_bpf(void)
{
  return syscall(SYS_bpf, 0, NULL, 0);
}
static long call_memfd(void)
{
  return syscall(SYS_memfd_create, "x", 0);
}
static long call_exec_memory(void)
{
  void *p =
      mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED && errno == EACCES ? -1 : 0;
}
static long call_exec_protect(void)
{
  void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return mprotect(p, 4096, PROT_READ | PROT_EXEC) < 0 && errno == EACCES ? -1 : 0;
}

static const struct {
  const char *name;
  long (*call)(void);
  bool survives; /* refused with an errno instead of death */
} calls[] = {{"fork", call_fork, false},
             {"open", call_open, false},
             {"openat2", call_openat2, false},
             {"socket", call_socket, false},
             {"kill", call_kill, false},
             {"ptrace", call_ptrace, false},
             {"execve", call_execve, false},
             {"mount", call_mount, false},
             {"unshare", call_unshare, false},
             {"setuid", call_setuid, false},
             {"process_vm_readv", call_process_vm, false},
             {"bpf", call_bpf, false},
             {"memfd_create", call_memfd, false},
             {"executable mmap", call_exec_memory, true},
             {"executable mprotect", call_exec_protect, true}};

/* The walls alone, around a child of this test. */
static int status_behind_walls(long (*call)(void))
{
  int fds[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  pid_t pid = fork();
  if (pid == 0) {
    struct nursery_message request = {.mem_bytes = 16 << 20};
    if (worker_walls(fds[1], 1, &request) < 0) syscall(SYS_exit_group, 99);
    syscall(SYS_exit_group, call() < 0 ? 1 : 0);
  }
  close(fds[0]);
  close(fds[1]);
  int status = 0;
  waitpid(pid, &status, 0);
  return status;
}

static long call_nothing(void)
{
  return 0;
}

static void system_calls_are_refused(void)
{
  int status = status_behind_walls(call_nothing); /* control: the walls alone kill nobody */
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    status = status_behind_walls(calls[i].call);
    bool refused = calls[i].survives ? WIFEXITED(status) && WEXITSTATUS(status) == 1
                                     : WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
    if (!refused) fprintf(stderr, "%s: status %x\n", calls[i].name, (unsigned)status);
    CHECK(refused);
  }
}

const struct test_case test_cases[] = {
    {"nonsense_ends_it", nonsense_ends_it},
    {"leaving_without_a_word_is_told", leaving_without_a_word_is_told},
    {"nothing_counts_after_the_end", nothing_counts_after_the_end},
    {"ids_of_nobody_are_ignored", ids_of_nobody_are_ignored},
    {"ops_in_flight_are_bounded_and_cancelled", ops_in_flight_are_bounded_and_cancelled},
    {"silence_is_killed", silence_is_killed},
    {"system_calls_are_refused", system_calls_are_refused},
    {"close", bed_close},
    {0}};

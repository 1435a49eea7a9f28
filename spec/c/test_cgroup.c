/* engine/local/cgroup: groups are made, entered, limit, kill, count, and leave nothing behind, on
 * whatever kind of hierarchy this machine has. What it lacks is skipped aloud. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/local/cgroup.h"

#define MIB (1024u * 1024u)

/* The program itself plays the host; wardens are it or its children. */
static pid_t host;

/* Only root can give directories to somebody else. */
static uid_t agent_id(void)
{
  return geteuid() == 0 ? 54321 : geteuid();
}

#define SKIP(...)                                                                                  \
  do {                                                                                             \
    printf("skipped: ");                                                                           \
    printf(__VA_ARGS__);                                                                           \
    puts("");                                                                                      \
    return;                                                                                        \
  } while (0)

static struct cgroups *open_groups(void)
{
  struct cgroups *cg = NULL;
  struct err err = {0};
  if (!host) host = getpid();
  pid_t host_pid = host == getpid() ? 0 : host;
  CHECK_INT(cgroup_open(&cg, &(struct cgroup_conf){.host_pid = host_pid}, &err), 0);
  cgroup_open_rest(cg);
  return cg;
}

static int make_box(struct cgroups *cg, const char *box, struct cgroup_entry *ret_entry,
                    struct err *err)
{
  int rc = cgroup_box_make(cg, box, agent_id(), agent_id(), ret_entry, err);
  return rc < 0 ? rc : cgroup_box_make_rest(cg, box, ret_entry, err);
}

/* fork, into the group when the kernel can. */
static pid_t fork_into(int fd)
{
  struct clone_args args = {.exit_signal = SIGCHLD};
  if (fd >= 0) {
    args.flags = CLONE_INTO_CGROUP;
    args.cgroup = (unsigned)fd;
  }
  pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
  if (pid == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
  return pid;
}

/* Runs fn in the box; gives the wait status. */
static int run_in(struct cgroups *cg, const char *box, int (*fn)(void))
{
  struct cgroup_entry e;
  struct err err = {0};
  if (make_box(cg, box, &e, &err) < 0) {
    fprintf(stderr, "%s\n", err.msg);
    return -1;
  }
  bool into = cgroup_info(cg)->caps & CGROUP_CAP_INTO;
  pid_t pid = fork_into(into ? e.into_fd : -1);
  if (pid == 0) _exit(cgroup_entry_join(&e, into) < 0 ? 99 : fn());
  cgroup_entry_done(&e);
  int status = -1;
  waitpid(pid, &status, 0);
  return status;
}

/* Removing may have to wait for a process that is still dying. */
static int remove_box(struct cgroups *cg, const char *box)
{
  int r = -EBUSY;
  for (int i = 0; i < 500 && r == -EBUSY; i++) {
    r = cgroup_box_remove(cg, box);
    if (r) nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  return r;
}

/* How many directories whose name holds `part` there are below /sys/fs/cgroup. */
static int count_dirs(const char *dir, const char *part)
{
  DIR *d = opendir(dir);
  if (!d) return 0;
  int n = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_type != DT_DIR || e->d_name[0] == '.') continue;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
    n += strstr(e->d_name, part) != NULL;
    n += count_dirs(path, part);
  }
  closedir(d);
  return n;
}

static int my_dirs(void)
{
  char part[64];
  snprintf(part, sizeof part, "w-%u-%d-", (unsigned)geteuid(), (int)getpid());
  return count_dirs("/sys/fs/cgroup", part);
}

static bool is_zombie(pid_t pid)
{
  char path[64], state = 'Z';
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *f = fopen(path, "re");
  if (!f) return true;
  if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1) state = 'Z';
  fclose(f);
  return state == 'Z' || state == 'X';
}

static bool dead_within(pid_t pid, int ms)
{
  for (int i = 0; i < ms / 2 && !is_zombie(pid); i++)
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  return is_zombie(pid);
}

static void probe_agrees_with_open(void)
{
  struct cgroup_info seen;
  cgroup_probe(&seen);
  struct cgroups *cg = open_groups();
  const struct cgroup_info *got = cgroup_info(cg);
  CHECK_INT(got->mode, seen.mode);
  CHECK_INT(got->caps, seen.caps);
  printf("mode %d, caps %#x, base %s%s%s\n", got->mode, got->caps, got->base,
         got->why[0] ? ", " : "", got->why);
  if (got->mode != CGROUP_NONE) CHECK(my_dirs() > 0);
  CHECK_INT(cgroup_close(cg, 100), 0);
  CHECK_INT(my_dirs(), 0);
}

static int in_box(void)
{
  char line[512];
  FILE *f = fopen("/proc/self/cgroup", "re");
  int n = 0;
  while (f && fgets(line, sizeof line, f)) n += strstr(line, "/sb_join") != NULL;
  if (f) fclose(f);
  return n;
}

static void join_enters_every_tree(void)
{
  struct cgroups *cg = open_groups();
  const struct cgroup_info *info = cgroup_info(cg);
  CHECK_INT(in_box(), 0);
  int status = run_in(cg, "sb_join", in_box);
  int want = 0;
  if (info->mode == CGROUP_V2)
    want = 1;
  else if (info->mode != CGROUP_NONE)
    want = !!(info->caps & CGROUP_CAP_CPU) + !!(info->caps & CGROUP_CAP_MEMORY) +
           !!(info->caps & CGROUP_CAP_PIDS) + (info->mode == CGROUP_HYBRID);
  if (want) CHECK(WEXITSTATUS(status) >= (want > 2 ? want - 1 : want)); /* controllers may share */
  CHECK_INT(remove_box(cg, "sb_join"), 0);
  CHECK_INT(cgroup_close(cg, 100), 0);
}

static int fork_many(void)
{
  int n = 0;
  pid_t pids[64];
  for (; n < 64; n++) {
    pids[n] = fork();
    if (pids[n] < 0) break;
    if (pids[n] == 0) {
      pause();
      _exit(0);
    }
  }
  for (int i = 0; i < n; i++) {
    kill(pids[i], SIGKILL);
    waitpid(pids[i], NULL, 0);
  }
  return n;
}

static void limit(struct cgroups *cg, const char *box, struct cgroup_limits limits)
{
  struct err err = {0};
  CHECK_INT(cgroup_box_limit(cg, box, &limits, &err), 0);
  if (err.msg[0]) fprintf(stderr, "%s\n", err.msg);
}

static struct cgroup_limits limits_now;
static struct cgroups *limits_cg;

/* The limit is set from inside, by name, while the box runs: what a blank slot needs. */
static int limited_forks(void)
{
  limit(limits_cg, "sb_pids", limits_now);
  return fork_many();
}

static void pids_are_limited(void)
{
  struct cgroups *cg = limits_cg = open_groups();
  if (!(cgroup_info(cg)->caps & CGROUP_CAP_PIDS)) {
    cgroup_close(cg, 0);
    SKIP("no pids controller");
  }
  limits_now = (struct cgroup_limits){.pids = 10};
  CHECK_INT(WEXITSTATUS(run_in(cg, "sb_pids", limited_forks)), 9);
  CHECK_INT(remove_box(cg, "sb_pids"), 0);
  limits_now = (struct cgroup_limits){0};
  CHECK_INT(WEXITSTATUS(run_in(cg, "sb_pids", limited_forks)), 64); /* control */
  CHECK_INT(remove_box(cg, "sb_pids"), 0);
  CHECK_INT(cgroup_close(cg, 100), 0);
}

static int eat_memory(void)
{
  limit(limits_cg, "sb_mem", limits_now);
  char *p = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(p, 1, 64 * MIB);
  return 7;
}

static void memory_is_limited_and_kills_are_counted(void)
{
  struct cgroups *cg = limits_cg = open_groups();
  if (!(cgroup_info(cg)->caps & CGROUP_CAP_MEMORY)) {
    cgroup_close(cg, 0);
    SKIP("no memory controller");
  }
  struct cgroup_usage u;
  limits_now = (struct cgroup_limits){.mem_bytes = 16 * MIB};
  int status = run_in(cg, "sb_mem", eat_memory);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  cgroup_box_usage(cg, "sb_mem", &u);
  CHECK_INT(u.oom_kills, 1);
  CHECK(u.mem_peak_bytes == 0 || (u.mem_peak_bytes > 8 * MIB && u.mem_peak_bytes <= 16 * MIB));
  CHECK_INT(remove_box(cg, "sb_mem"), 0);

  limits_now = (struct cgroup_limits){.mem_bytes = 128 * MIB};
  CHECK_INT(WEXITSTATUS(run_in(cg, "sb_mem", eat_memory)), 7); /* control */
  cgroup_box_usage(cg, "sb_mem", &u);
  CHECK_INT(u.oom_kills, 0);
  CHECK_INT(remove_box(cg, "sb_mem"), 0);
  CHECK_INT(cgroup_close(cg, 100), 0);
}

static int new_file; /* of 1 MiB */

/* How many of its pages are cached. */
static int resident(void)
{
  unsigned char page[MIB / 4096];
  int n = 0;
  char *p = mmap(NULL, MIB, PROT_READ, MAP_SHARED, new_file, 0);
  CHECK_INT(mincore(p, MIB, page), 0);
  for (int i = 0; i < (int)(MIB / 4096); i++) n += page[i] & 1;
  munmap(p, MIB);
  return n;
}

/* false: no page of it can leave the cache, as in a file system that is all memory. */
static bool make_uncached_file(void)
{
  static char data[MIB];
  const char *dir = getenv("TMPDIR");
  char path[4096];
  snprintf(path, sizeof path, "%s/rgt-cgroup-XXXXXX", dir ? dir : "/tmp");
  new_file = mkstemp(path);
  if (new_file < 0) return false;
  unlink(path);
  return write(new_file, data, MIB) == MIB && fsync(new_file) == 0 &&
         posix_fadvise(new_file, 0, 0, POSIX_FADV_DONTNEED) == 0 && resident() == 0;
}

static int read_file(void)
{
  static char data[MIB];
  return pread(new_file, data, MIB, 0) == MIB ? 0 : 1;
}

/* Pages of files that a removed group still answers for would keep its record in memory. */
static void page_cache_goes_with_its_box(void)
{
  struct cgroups *cg = open_groups();
  if (!(cgroup_info(cg)->caps & CGROUP_CAP_MEMORY)) {
    cgroup_close(cg, 0);
    SKIP("no memory controller");
  }
  if (make_uncached_file()) {
    CHECK_INT(run_in(cg, "sb_cache", read_file), 0);
    CHECK(resident() > 0);
    CHECK_INT(remove_box(cg, "sb_cache"), 0);
    CHECK_INT(resident(), 0);

    CHECK_INT(read_file(), 0); /* control: what is somebody else's stays */
    CHECK_INT(run_in(cg, "sb_cache", read_file), 0);
    CHECK_INT(remove_box(cg, "sb_cache"), 0);
    CHECK(resident() > 0);
  } else {
    printf("skipped: no file here leaves the page cache\n");
  }
  if (new_file >= 0) close(new_file);
  CHECK_INT(cgroup_close(cg, 100), 0);
}

static int spin(void)
{
  limit(limits_cg, "sb_cpu", limits_now);
  uint64_t end = clock_mono_ms() + 600;
  while (clock_mono_ms() < end) {}
  return 0;
}

static void cpu_is_limited_and_counted(void)
{
  struct cgroups *cg = limits_cg = open_groups();
  if (!(cgroup_info(cg)->caps & CGROUP_CAP_CPU)) {
    cgroup_close(cg, 0);
    SKIP("no cpu controller");
  }
  struct cgroup_usage u;
  limits_now = (struct cgroup_limits){.cpu_milli = 125};
  CHECK_INT(run_in(cg, "sb_cpu", spin), 0);
  cgroup_box_usage(cg, "sb_cpu", &u);
  CHECK(u.cpu_us > 10000);
  CHECK(u.cpu_us < 200000); /* 75 ms, a period more, and the slack of a busy machine */
  CHECK_INT(remove_box(cg, "sb_cpu"), 0);
  CHECK_INT(cgroup_close(cg, 100), 0);
}

/* --- leaves ----------------------------------------------------------------------------------- */

/* An exec that does what it can to get away: a grandchild in a session of its own. Its pid comes
 * through the pipe. */
static void run_away(int out)
{
  if (fork() == 0) {
    setsid();
    if (fork() == 0) {
      pid_t me = getpid();
      if (write(out, &me, sizeof me) != sizeof me) _exit(1);
      for (;;) pause();
    }
    _exit(0);
  }
  _exit(0);
}

/* The agent: an unprivileged user that owns the box's directory. 0 = all held. */
static int agent_main(struct cgroup_entry *e)
{
  int held = 0;
#define HOLD(n, cond)                                                                              \
  do {                                                                                             \
    if (!(cond)) {                                                                                 \
      fprintf(stderr, "agent: line %d: %s failed, errno %d\n", __LINE__, #cond, errno);            \
      held = n;                                                                                    \
    }                                                                                              \
  } while (0)
  static struct cgroup_leaves pool;
  uid_t id = agent_id();
  if (setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0) return 1;
  cgroup_leaves_init(&pool, dup(e->box_fd), dup(e->oom_fd));
  cgroup_leaves_fill(&pool, 3);
  HOLD(2, pool.idle_n == 3);
  struct cgroup_leaf a, b;
  HOLD(3, cgroup_leaf_take(&pool, &a) == 0 && cgroup_leaf_take(&pool, &b) == 0);
  HOLD(4, a.n != b.n);
  int pipe_fd[2];
  if (pipe(pipe_fd) < 0) return 5;
  pid_t first = fork_into(a.fd);
  if (first == 0) run_away(pipe_fd[1]);
  pid_t away = 0;
  HOLD(6, first > 0 && read(pipe_fd[0], &away, sizeof away) == sizeof away);
  waitpid(first, NULL, 0);
  HOLD(7, cgroup_leaf_populated(&a) == 1);
  HOLD(8, cgroup_leaf_populated(&b) == 0);

  uint16_t a_n = a.n;
  struct cgroup_leaf again = a;
  again.fd = dup(a.fd);
  cgroup_leaf_give(&pool, &a); /* lingers: it is not empty */
  HOLD(9, pool.idle_n == 1);
  kill(away, SIGKILL);
  HOLD(10, dead_within(away, 2000));
  for (int i = 0; i < 500 && cgroup_leaf_populated(&again); i++) poll(NULL, 0, 2);
  HOLD(11, cgroup_leaf_populated(&again) == 0);
  close(again.fd);
  struct cgroup_leaf c, d;
  HOLD(12, cgroup_leaf_take(&pool, &c) == 0 && cgroup_leaf_take(&pool, &d) == 0);
  HOLD(13, c.n == a_n || d.n == a_n); /* the lingering one came back */
  return held;
}

/* Takes leaves until each number up to max has had a turn; in each a process must run to its end.
 */
static bool all_leaves_work(struct cgroup_leaves *pool, uint16_t max)
{
  struct cgroup_leaf leaf[CGROUP_LEAF_IDLE * 2];
  uint16_t n = 0, highest = 0;
  bool ok = true;
  while (n < CGROUP_LEAF_IDLE * 2 && (n == 0 || highest < max)) {
    if (cgroup_leaf_take(pool, &leaf[n]) < 0) return false;
    if (leaf[n].n > highest) highest = leaf[n].n;
    pid_t pid = fork_into(leaf[n].fd);
    if (pid == 0) _exit(42);
    int status = 0;
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 42) ok = false;
    n++;
  }
  while (n) cgroup_leaf_give(pool, &leaf[--n]);
  return ok;
}

/* The agent once more: a kill takes all, and does not spoil the number for later execs. */
static int killing_agent(struct cgroup_entry *e)
{
  int held = 0;
  static struct cgroup_leaves pool;
  uid_t id = agent_id();
  if (setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0) return 1;
  cgroup_leaves_init(&pool, dup(e->box_fd), dup(e->oom_fd));
  for (int round = 0; round < 20; round++) {
    struct cgroup_leaf leaf;
    int pipe_fd[2];
    pid_t away = 0;
    HOLD(2, cgroup_leaf_take(&pool, &leaf) == 0 && pipe(pipe_fd) == 0);
    pid_t first = fork_into(leaf.fd);
    if (first == 0) run_away(pipe_fd[1]);
    close(pipe_fd[1]); /* or the read would wait for one that was killed before it wrote */
    HOLD(3, first > 0 && read(pipe_fd[0], &away, sizeof away) == sizeof away);
    HOLD(4, cgroup_leaf_kill(&leaf) == 0);
    waitpid(first, NULL, 0);
    HOLD(5, dead_within(away, 2000));
    for (int i = 0; i < 500 && cgroup_leaf_populated(&leaf); i++) poll(NULL, 0, 2);
    HOLD(6, cgroup_leaf_populated(&leaf) == 0);
    cgroup_leaf_give(&pool, &leaf);
    close(pipe_fd[0]);
  }
  HOLD(7, all_leaves_work(&pool, 3));
  return held;
}

/* Makes a box, and in it an agent that runs fn. */
static void check_agent(const char *box, int (*fn)(struct cgroup_entry *e))
{
  struct cgroups *cg = open_groups();
  if (!(cgroup_info(cg)->caps & CGROUP_CAP_LEAVES)) {
    cgroup_close(cg, 0);
    SKIP("no leaves");
  }
  struct cgroup_entry e;
  struct err err = {0};
  CHECK_INT(make_box(cg, box, &e, &err), 0);
  pid_t pid = fork_into(e.into_fd);
  if (pid == 0) _exit(cgroup_entry_join(&e, true) < 0 ? 99 : fn(&e));
  cgroup_entry_done(&e);
  int status = -1;
  waitpid(pid, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK_INT(WEXITSTATUS(status), 0);
  CHECK_INT(remove_box(cg, box), 0);
  CHECK_INT(cgroup_close(cg, 100), 0);
}

static void killed_leaves_do_not_spoil_later_ones(void)
{
  check_agent("sb_killed", killing_agent);
}

static void leaves_hold_what_runs_away(void)
{
  check_agent("sb_leaf", agent_main);
}

/* Runs a memory hog in the leaf; true: it was killed. */
static bool hog_in(const struct cgroup_leaf *leaf, size_t bytes)
{
  pid_t pid = fork_into(leaf->fd);
  if (pid == 0) {
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, bytes);
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* The agent again: it can tell which exec ran out of memory, or at least that one did. */
static int oom_agent(struct cgroup_entry *e)
{
  int held = 0;
  static struct cgroup_leaves pool;
  uid_t id = agent_id();
  if (setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0) return 1;
  cgroup_leaves_init(&pool, dup(e->box_fd), dup(e->oom_fd));
  struct cgroup_leaf a, b, c;
  HOLD(2, cgroup_leaf_take(&pool, &a) == 0 && cgroup_leaf_take(&pool, &b) == 0);
  int64_t box = cgroup_leaves_box_oom_kills(&pool);
  HOLD(3, hog_in(&a, 64 * MIB));
  HOLD(4, !hog_in(&b, 4 * MIB));
  if (pool.leaf_oom) {
    HOLD(5, cgroup_leaf_oom_kills(&pool, &a) == 1);
    HOLD(6, cgroup_leaf_oom_kills(&pool, &b) == 0);
    uint16_t a_n = a.n;
    cgroup_leaf_give(&pool, &a);
    HOLD(7, cgroup_leaf_take(&pool, &c) == 0 && c.n == a_n);
    HOLD(8, cgroup_leaf_oom_kills(&pool, &c) == 0); /* earlier kills are not this exec's */
  } else {
    HOLD(9, box == 0 && cgroup_leaves_box_oom_kills(&pool) == 1);
    HOLD(10, cgroup_leaf_oom_kills(&pool, &a) == -EOPNOTSUPP);
  }
  return held;
}

static void leaves_know_who_ran_out_of_memory(void)
{
  struct cgroups *cg = open_groups();
  unsigned need = CGROUP_CAP_LEAVES | CGROUP_CAP_MEMORY, caps = cgroup_info(cg)->caps;
  if ((caps & need) != need) {
    cgroup_close(cg, 0);
    SKIP("no leaves, or no memory controller");
  }
  struct cgroup_entry e;
  struct err err = {0};
  CHECK_INT(make_box(cg, "sb_oom", &e, &err), 0);
  limit(cg, "sb_oom", (struct cgroup_limits){.mem_bytes = 24 * MIB});
  pid_t pid = fork_into(e.into_fd);
  if (pid == 0) _exit(cgroup_entry_join(&e, true) < 0 ? 99 : oom_agent(&e));
  cgroup_entry_done(&e);
  int status = -1;
  waitpid(pid, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK_INT(WEXITSTATUS(status), 0);
  struct cgroup_usage u;
  cgroup_box_usage(cg, "sb_oom", &u);
  CHECK_INT(u.oom_kills, 1);
  CHECK_INT(remove_box(cg, "sb_oom"), 0);
  CHECK_INT(cgroup_close(cg, 100), 0);
}

static _Noreturn int sleep_on(void)
{
  for (;;) pause();
}

static void kill_ends_the_box(void)
{
  struct cgroups *cg = open_groups();
  if (cgroup_info(cg)->mode == CGROUP_NONE) {
    cgroup_close(cg, 0);
    SKIP("no groups");
  }
  struct cgroup_entry e;
  struct err err = {0};
  CHECK_INT(make_box(cg, "sb_kill", &e, &err), 0);
  CHECK(make_box(cg, "sb_kill", &(struct cgroup_entry){0}, &err) < 0);
  bool into = cgroup_info(cg)->caps & CGROUP_CAP_INTO;
  pid_t pid = fork_into(into ? e.into_fd : -1);
  if (pid == 0) _exit(cgroup_entry_join(&e, into) < 0 ? 99 : sleep_on());
  cgroup_entry_done(&e);
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* let it join */
  CHECK_INT(cgroup_box_remove(cg, "sb_kill"), -EBUSY);
  CHECK_INT(cgroup_box_kill(cg, "sb_kill"), 0);
  int status = 0;
  waitpid(pid, &status, 0);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  CHECK_INT(remove_box(cg, "sb_kill"), 0);
  CHECK_INT(cgroup_box_kill(cg, "sb_kill"), -ENOENT);
  CHECK_INT(cgroup_box_remove(cg, "sb_kill"), 0);
  CHECK_INT(cgroup_close(cg, 100), 0);
}

/* --- sweeping --------------------------------------------------------------------------------- */

/* A warden with a busy box that is killed, box and all left behind; ret_box is the process in it.
 */
static pid_t warden_dies(pid_t *ret_box)
{
  int pipe_fd[2];
  if (pipe(pipe_fd) < 0) abort();
  pid_t warden = fork();
  if (warden == 0) {
    struct cgroups *cg = open_groups();
    struct cgroup_entry e;
    struct err err = {0};
    if (make_box(cg, "sb_left", &e, &err) < 0) _exit(1);
    pid_t box = fork();
    if (box == 0) {
      if (cgroup_entry_join(&e, false) < 0) _exit(99);
      /* As an agent does, so that the lock is the warden's alone. */
      if (dup2(pipe_fd[1], 0) < 0 || syscall(SYS_close_range, 1u, ~0u, 0u) < 0) _exit(1);
      pid_t me = getpid();
      if (write(0, &me, sizeof me) != sizeof me) _exit(1);
      sleep_on();
    }
    sleep_on();
  }
  close(pipe_fd[1]);
  if (read(pipe_fd[0], ret_box, sizeof *ret_box) != sizeof *ret_box) *ret_box = 0;
  close(pipe_fd[0]);
  return warden;
}

static void sweep_takes_only_the_dead(void)
{
  struct cgroup_info info;
  cgroup_probe(&info);
  if (info.mode == CGROUP_NONE) SKIP("no groups");
  char part[64];
  host = getpid();
  pid_t box = 0, warden = warden_dies(&box);
  struct cgroups *cg = open_groups();
  CHECK(box > 0);
  snprintf(part, sizeof part, "w-%u-%d-", (unsigned)geteuid(), (int)warden);
  CHECK(count_dirs("/sys/fs/cgroup", part) > 0);
  cgroup_sweep(cg);
  CHECK(count_dirs("/sys/fs/cgroup", part) > 0); /* it lives */
  CHECK(!is_zombie(box));
  kill(warden, SIGKILL);
  waitpid(warden, NULL, 0);
  CHECK(cgroup_sweep(cg) >= 1);
  CHECK_INT(count_dirs("/sys/fs/cgroup", part), 0);
  CHECK(dead_within(box, 1000));
  CHECK(my_dirs() > 0); /* not its own */
  CHECK_INT(cgroup_close(cg, 100), 0);
  CHECK_INT(my_dirs(), 0);
}

const struct test_case test_cases[] = {
    {"probe agrees with open", probe_agrees_with_open},
    {"join enters every tree", join_enters_every_tree},
    {"pids are limited", pids_are_limited},
    {"memory is limited and kills are counted", memory_is_limited_and_kills_are_counted},
    {"page cache goes with its box", page_cache_goes_with_its_box},
    {"cpu is limited and counted", cpu_is_limited_and_counted},
    {"leaves hold what runs away", leaves_hold_what_runs_away},
    {"killed leaves do not spoil later ones", killed_leaves_do_not_spoil_later_ones},
    {"leaves know who ran out of memory", leaves_know_who_ran_out_of_memory},
    {"kill ends the box", kill_ends_the_box},
    {"sweep takes only the dead", sweep_takes_only_the_dead},
    {0},
};

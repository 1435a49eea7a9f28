/* make bench: regolith beside named peers, in one interleaved run.
 *
 *   bench REGOLITH_BINARY LUA_FOLDER --list
 *   bench REGOLITH_BINARY LUA_FOLDER [--rounds N] GROUP FILE
 *
 * Every row is a way to do the same thing; rows of a group take turns, a batch each per round, so
 * that a machine that drifts drifts for all. Samples are microseconds per piece of work unless the
 * group says otherwise; they go to FILE as results.lua describes, which counts and compares them.
 * Peers that are not installed are left out, and said to be. All peers run the host's
 * /usr/bin/true from a read-only /usr. Benchmarks are no tests: nothing here can fail on a time. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define MAX_SAMPLES 20000

struct row {
  const char *name;
  void (*run)(struct row *row); /* takes one batch of samples */
  const char *const *argv;      /* what a spawning row starts */
  const char *script, *arg;     /* what a Lua row runs */
  const char *mode;             /* NULL: worker processes; "--trust": in process */
  const char *grant;            /* what its script needs besides, an option of `regolith run` */
  int batch;                    /* pieces of work a round */
  int pause_ms;                 /* idle before each piece: what one call sees */
  int parallel;        /* pieces in flight at once; the sample is then the mean time per piece */
  bool peer;           /* not regolith: what the others are held against */
  const char *missing; /* why there is nothing to see, or NULL */
  double *samples;
  size_t n;
};

struct group {
  const char *name, *title, *unit;
  struct row *rows;
  size_t n;
  int most_rounds; /* 0: as many as asked for */
};

static const char *regolith, *lua_folder;
static char bundle[64]; /* crun's; bundle/filtered is one with a filter */
static char filtered[80];

static double now_us(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void add(struct row *row, double sample)
{
  if (!row->samples) row->samples = malloc(MAX_SAMPLES * sizeof *row->samples);
  if (row->samples && row->n < MAX_SAMPLES) row->samples[row->n++] = sample;
}

/* Starts argv with stdout and stderr on a pipe; returns the pid, or -1. */
static pid_t start(const char *const *argv, int *ret_fd)
{
  int p[2];
  if (pipe2(p, O_CLOEXEC) < 0) return -1;
  posix_spawn_file_actions_t fa;
  posix_spawn_file_actions_init(&fa);
  posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&fa, p[1], 1);
  posix_spawn_file_actions_adddup2(&fa, p[1], 2);
  pid_t pid;
  int rc = posix_spawnp(&pid, argv[0], &fa, NULL, (char *const *)argv, environ);
  posix_spawn_file_actions_destroy(&fa);
  close(p[1]);
  *ret_fd = p[0];
  if (rc == 0) return pid;
  close(p[0]);
  return -1;
}

/* Reads to the end and reaps; true where the program exited with 0. Output goes to out (NULL:
 * thrown away). */
static bool finish(pid_t pid, int fd, FILE *out)
{
  char chunk[65536];
  ssize_t n;
  while ((n = read(fd, chunk, sizeof chunk)) > 0)
    if (out) fwrite(chunk, 1, (size_t)n, out);
  close(fd);
  int status;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool run_once(const char *const *argv)
{
  int fd;
  pid_t pid = start(argv, &fd);
  return pid > 0 && finish(pid, fd, NULL);
}

static const char failed[] = "the program is not installed, or failed";

static void pause_ms(int ms)
{
  if (ms) usleep((useconds_t)ms * 1000);
}

static void run_spawn(struct row *row)
{
  for (int i = 0; i < row->batch && !row->missing; i++) {
    pause_ms(row->pause_ms);
    double begin = now_us();
    if (!run_once(row->argv))
      row->missing = failed;
    else
      add(row, now_us() - begin);
  }
}

/* Keeps row->parallel programs running until the batch is through; one sample: time per program. */
static void run_spawn_parallel(struct row *row)
{
  enum { MOST = 64 };
  pid_t pids[MOST];
  struct pollfd fds[MOST];
  int live = 0, started = 0, done = 0;
  double begin = now_us();
  for (int i = 0; i < MOST; i++) fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
  while (done < row->batch && !row->missing) {
    for (int i = 0; i < row->parallel && started < row->batch; i++) {
      if (fds[i].fd >= 0) continue;
      pids[i] = start(row->argv, &fds[i].fd);
      if (pids[i] < 0) row->missing = failed;
      started++, live++;
    }
    if (poll(fds, (nfds_t)row->parallel, -1) < 0 && errno != EINTR) break;
    for (int i = 0; i < row->parallel; i++) {
      if (fds[i].fd < 0 || !fds[i].revents) continue;
      if (!finish(pids[i], fds[i].fd, NULL)) row->missing = failed;
      fds[i].fd = -1;
      live--, done++;
    }
  }
  for (int i = 0; i < row->parallel; i++)
    if (fds[i].fd >= 0) finish(pids[i], fds[i].fd, NULL);
  if (!row->missing) add(row, (now_us() - begin) / row->batch);
}

/* Runs a row's script to its end; returns what it printed, owned, or NULL. */
static char *lua_output(struct row *row)
{
  char script[512], batch[16], pause[16], parallel[16];
  snprintf(script, sizeof script, "%s/%s", lua_folder, row->script);
  snprintf(batch, sizeof batch, "%d", row->batch);
  snprintf(pause, sizeof pause, "%d", row->pause_ms);
  snprintf(parallel, sizeof parallel, "%d", row->parallel ? row->parallel : 1);
  const char *argv[16] = {regolith, "run", row->mode ? row->mode : "--jobs=200", "--timeout=10m"};
  size_t n = 4;
  if (row->grant) argv[n++] = row->grant;
  const char *const rest[] = {script, "--", batch, pause, parallel, row->arg};
  memcpy(argv + n, rest, sizeof rest);
  char *text = NULL;
  size_t len = 0;
  FILE *out = open_memstream(&text, &len);
  int fd;
  pid_t pid = start(argv, &fd);
  bool ok = pid > 0 && finish(pid, fd, out);
  fclose(out);
  if (ok) return text;
  row->missing = failed;
  fprintf(stderr, "%s:\n%s\n", row->name, text);
  free(text);
  return NULL;
}

/* A script that prints one number a line: the row's samples. */
static void run_lua(struct row *row)
{
  char *text = lua_output(row);
  for (char *line = text ? strtok(text, "\n") : NULL; line; line = strtok(NULL, "\n")) {
    char *end;
    double v = strtod(line, &end);
    if (end != line) add(row, v);
  }
  free(text);
}

/* Memory cgroups that the kernel keeps, removed ones that it cannot let go of included. */
static double memory_cgroups(void)
{
  char line[256];
  double n = 0;
  FILE *f = fopen("/proc/cgroups", "re");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "memory %*d %lf", &n) == 1) break;
  if (f) fclose(f);
  return n;
}

/* The first of MANY rows has a script that prints a number for each; the last is what is left of
 * its memory cgroups 5 s after it. */
enum { MANY = 5 };
static void run_many(struct row *row)
{
  double before = memory_cgroups();
  char *text = lua_output(row), *line = text ? strtok(text, "\n") : NULL;
  for (int i = 0; i < MANY - 1 && line; i++, line = strtok(NULL, "\n"))
    add(&row[i], strtod(line, NULL));
  free(text);
  if (row->missing) return;
  sleep(5);
  double left = memory_cgroups() - before;
  add(&row[MANY - 1], left > 0 ? left : 0);
}

/* Many scripts at once: arg names a script started `parallel` times in one process; a sample is
 * microseconds a script. */
static void run_scripts(struct row *row)
{
  int n = row->parallel;
  const char **argv = calloc((size_t)n + 8, sizeof *argv);
  char script[512];
  snprintf(script, sizeof script, "%s/%s", lua_folder, row->script);
  int a = 0;
  argv[a++] = regolith;
  argv[a++] = "run";
  argv[a++] = "--quiet";
  argv[a++] = row->mode ? row->mode : "--jobs=1000";
  for (int i = 0; i < n; i++) argv[a++] = script;
  double begin = now_us();
  if (run_once(argv))
    add(row, (now_us() - begin) / n);
  else
    row->missing = failed;
  free(argv);
}

static const char *const true_argv[] = {"/usr/bin/true", NULL};
static const char *const bwrap_argv[] = {"bwrap",
                                         "--unshare-all",
                                         "--ro-bind",
                                         "/usr",
                                         "/usr",
                                         "--symlink",
                                         "usr/bin",
                                         "/bin",
                                         "--symlink",
                                         "usr/lib",
                                         "/lib",
                                         "--symlink",
                                         "usr/lib64",
                                         "/lib64",
                                         "--proc",
                                         "/proc",
                                         "--dev",
                                         "/dev",
                                         "--tmpfs",
                                         "/tmp",
                                         "--die-with-parent",
                                         "/usr/bin/true",
                                         NULL};
static const char *crun_argv[] = {"crun", "run", "--bundle", bundle, "regolith-bench", NULL};
static const char *crun_filter_argv[] = {"crun",           "run", "--bundle", filtered,
                                         "regolith-bench", NULL};
static const char *regolith_argv[] = {NULL, "exec", "--", "/usr/bin/true", NULL};

static void run_crun_parallel(struct row *row)
{
  /* Container names must differ, so the parallel rows give crun a wrapper that names each by its
   * pid. */
  char command[256];
  snprintf(command, sizeof command, "exec crun run --bundle %s regolith-bench-$$", row->argv[3]);
  const char *const argv[] = {"sh", "-c", command, NULL};
  row->argv = argv;
  run_spawn_parallel(row);
}

/* crun 1.8 refuses a machine that has cgroup v1 and v2 side by side ("hybrid mode not supported"),
 * so its batches run in a process whose mount namespace shows v1 alone. */
static void run_crun(struct row *row)
{
  int p[2];
  if (pipe2(p, O_CLOEXEC) < 0) return;
  pid_t pid = fork();
  if (pid == 0) {
    struct row mine = *row;
    mine.samples = NULL;
    mine.n = 0;
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
      umount2("/sys/fs/cgroup/unified", MNT_DETACH);
    if (row->parallel)
      run_crun_parallel(&mine);
    else
      run_spawn(&mine);
    size_t bytes = mine.n * sizeof *mine.samples;
    if (!mine.missing && write(p[1], mine.samples, bytes) == (ssize_t)bytes) _exit(0);
    _exit(1);
  }
  close(p[1]);
  double v;
  while (read(p[0], &v, sizeof v) == (ssize_t)sizeof v) add(row, v);
  close(p[0]);
  int status;
  waitpid(pid, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) row->missing = failed;
}

/* lua5.4 itself, for what the host adds to a loop that only computes. The script prints
 * milliseconds. */
static void run_stock_lua(struct row *row)
{
  char script[512];
  snprintf(script, sizeof script, "%s/%s", lua_folder, row->script);
  const char *const argv[] = {"lua5.4", script, "1", "0", "1", NULL};
  char *text = NULL;
  size_t len = 0;
  FILE *out = open_memstream(&text, &len);
  int fd;
  pid_t pid = start(argv, &fd);
  if (pid < 0 || !finish(pid, fd, out)) row->missing = failed;
  fclose(out);
  if (!row->missing) add(row, strtod(text, NULL));
  free(text);
}

#define SPAWN(text, argv_, ...)                                                                    \
  {                                                                                                \
    .name = text, .run = run_spawn, .argv = argv_, __VA_ARGS__                                     \
  }
#define CRUN(text, argv_, ...)                                                                     \
  {                                                                                                \
    .name = text, .run = run_crun, .argv = argv_, .peer = true, __VA_ARGS__                        \
  }
#define LUA(text, file, ...)                                                                       \
  {                                                                                                \
    .name = text, .run = run_lua, .script = file, __VA_ARGS__                                      \
  }

#define ONESHOT(ours, theirs, pause)                                                               \
  SPAWN("bwrap --unshare-all", bwrap_argv, .peer = true, .batch = ours, .pause_ms = pause),        \
      SPAWN("posix_spawn, no isolation", true_argv, .peer = true, .batch = ours,                   \
            .pause_ms = pause),                                                                    \
      CRUN("crun run", crun_argv, .batch = theirs, .pause_ms = pause),                             \
      CRUN("crun run, Docker's filter", crun_filter_argv, .batch = theirs, .pause_ms = pause),     \
      SPAWN("regolith exec", regolith_argv, .batch = ours, .pause_ms = pause)
static struct row oneshot_cold[] = {ONESHOT(10, 4, 50)};
static struct row oneshot_warm[] = {ONESHOT(40, 8, 0)};

/* The same from a script, in both modes. */
#define MODES(text, file, ...)                                                                     \
  LUA(text ", worker", file, __VA_ARGS__),                                                         \
      LUA(text ", in process", file, .mode = "--trust", __VA_ARGS__)
#define BESIDE_SPAWN(spawns, pause, ...)                                                           \
  SPAWN("posix_spawn + capture", true_argv, .peer = true, .batch = spawns, .pause_ms = pause),     \
      __VA_ARGS__
#define OPEN .grant = "--allow-network=open", .arg = "open"
static struct row exec_cold[] = {
    BESIDE_SPAWN(20, 50, MODES("sb:exec", "exec.lua", .batch = 20, .pause_ms = 50))};
static struct row exec_warm[] = {BESIDE_SPAWN(100, 0, MODES("sb:exec", "exec.lua", .batch = 100))};
static struct row life_cold[] = {BESIDE_SPAWN(
    20, 50, MODES("create, exec, terminate", "life.lua", .batch = 20, .pause_ms = 50))};
static struct row life_warm[] = {BESIDE_SPAWN(
    100, 0, MODES("create, exec, terminate", "life.lua", .batch = 50),
    LUA("the same, network open, in process", "life.lua", .mode = "--trust", .batch = 20, OPEN))};

/* The same program with 500 MiB more in it: forking it would copy its page tables. */
#define HEAVY .mode = "--trust", .grant = "--memory=1GiB"
static struct row heavy[] = {
    LUA("sb:exec", "exec.lua", .batch = 100, HEAVY),
    LUA("sb:exec, 500 MiB", "exec.lua", .batch = 100, HEAVY, .arg = "heavy"),
    LUA("create, exec, terminate", "life.lua", .batch = 50, HEAVY),
    LUA("create, exec, terminate, 500 MiB", "life.lua", .batch = 50, HEAVY, .arg = "heavy")};

#define AT_ONCE(bwraps, cruns, ours, at_once)                                                      \
  {.name = "bwrap",                                                                                \
   .run = run_spawn_parallel,                                                                      \
   .argv = bwrap_argv,                                                                             \
   .peer = true,                                                                                   \
   .batch = bwraps,                                                                                \
   .parallel = at_once},                                                                           \
      CRUN("crun", crun_argv, .batch = cruns, .parallel = at_once),                                \
      CRUN("crun, Docker's filter", crun_filter_argv, .batch = cruns, .parallel = at_once),        \
      LUA("regolith", "churn.lua", .batch = ours, .parallel = at_once),                            \
      LUA("regolith, network open", "churn.lua", .batch = ours / 2, .parallel = at_once, OPEN)
static struct row churn1[] = {AT_ONCE(50, 10, 100, 1)};
static struct row churn16[] = {AT_ONCE(100, 20, 200, 16)};
static struct row churn64[] = {AT_ONCE(200, 64, 400, 64)};
static struct row memory[] = {LUA("idle sandbox", "memory.lua", .arg = "sandbox", .batch = 200),
                              LUA("idle sandbox, network open", "memory.lua",
                                  .grant = "--allow-network=open", .arg = "open", .batch = 200),
                              LUA("sleeping task", "memory.lua", .arg = "task", .batch = 10000)};
static struct row many[MANY] = {{.name = "create, the first 500 (ms each)",
                                 .run = run_many,
                                 .script = "many.lua",
                                 .batch = 5000},
                                {.name = "create, the last 500 (ms each)"},
                                {.name = "exec in the last of them (ms)"},
                                {.name = "all ended (ms)"},
                                {.name = "memory cgroups left 5 s later"}};
#define SCRIPTS(text, file, n)                                                                     \
  {.name = text ", in process",                                                                    \
   .run = run_scripts,                                                                             \
   .script = file,                                                                                 \
   .mode = "--trust",                                                                              \
   .parallel = n},                                                                                 \
  {                                                                                                \
    .name = text ", workers", .run = run_scripts, .script = file, .parallel = n                    \
  }
static struct row scripts[] = {SCRIPTS("empty, 1", "empty.lua", 1),
                               {.name = "empty, 1,000 one after another, workers",
                                .run = run_scripts,
                                .script = "empty.lua",
                                .mode = "--jobs=1",
                                .parallel = 1000},
                               SCRIPTS("empty, 1,000", "empty.lua", 1000),
                               SCRIPTS("empty, 10,000", "empty.lua", 10000),
                               SCRIPTS("sleep, create, exec; 1,000", "sleeper.lua", 1000)};
static struct row ops[] = {
    {.name = "in process", .run = run_lua, .script = "op.lua", .mode = "--trust", .batch = 2000},
    {.name = "worker", .run = run_lua, .script = "op.lua", .batch = 2000}};
static struct row cores[] = {
    {.name = "1 script that computes", .run = run_scripts, .script = "burn.lua", .parallel = 1},
    {.name = "2 scripts, in process",
     .run = run_scripts,
     .script = "burn.lua",
     .mode = "--trust",
     .parallel = 2},
    {.name = "2 scripts, workers", .run = run_scripts, .script = "burn.lua", .parallel = 2}};
static struct row tasks[] = {
    {.name = "10,000 tasks that sleep 100 ms", .run = run_lua, .script = "tasks.lua", .batch = 1}};
static struct row preempt[] = {
    {.name = "lua5.4, a loop that computes",
     .run = run_stock_lua,
     .script = "spin.lua",
     .peer = true},
    {.name = "regolith run, the same loop", .run = run_lua, .script = "spin.lua", .batch = 1}};
static struct row output[] = {
    {.name = "to a callback, in process",
     .run = run_lua,
     .script = "output.lua",
     .mode = "--trust",
     .batch = 256},
    {.name = "to a callback, worker", .run = run_lua, .script = "output.lua", .batch = 256}};

#define BOMB(kind, ...)                                                                            \
  {                                                                                                \
    .name = kind, .run = run_lua, .script = "bombs.lua", .batch = 100, .arg = kind, __VA_ARGS__    \
  }
static struct row bombs[] = {BOMB("quiet"),
                             BOMB("output"),
                             BOMB("fork"),
                             BOMB("memory"),
                             BOMB("disk"),
                             BOMB("inodes"),
                             BOMB("network", .grant = "--allow-network=open")};

#define GROUP(id, text, unit_, ...)                                                                \
  {                                                                                                \
    .name = #id, .title = text, .unit = unit_, .rows = id, .n = sizeof id / sizeof *id,            \
    __VA_ARGS__                                                                                    \
  }
static struct group groups[] = {
    GROUP(oneshot_cold, "One-shot /usr/bin/true, after 50 ms of idling", "us"),
    GROUP(oneshot_warm, "One-shot /usr/bin/true, back to back", "us"),
    GROUP(exec_cold, "Exec in a live sandbox, after 50 ms of idling", "us"),
    GROUP(exec_warm, "Exec in a live sandbox, back to back", "us"),
    GROUP(life_cold, "Create, exec, terminate from Lua, after 50 ms of idling", "us"),
    GROUP(life_warm, "Create, exec, terminate from Lua, back to back", "us"),
    GROUP(heavy, "The same from a program that holds 500 MiB", "us"),
    GROUP(churn1, "Sandboxes with one exec, one at a time", "us each"),
    GROUP(churn16, "Sandboxes with one exec, 16 at a time", "us each"),
    GROUP(churn64, "Sandboxes with one exec, 64 at a time", "us each"),
    GROUP(memory, "Memory, kernel's included (fall of MemAvailable)", "KiB each"),
    GROUP(many, "5,000 sandboxes alive at once, each of which read a file of its own", "",
          .most_rounds = 1),
    GROUP(scripts, "Scripts run at once, start to end of the program", "us each"),
    GROUP(ops, "One op, there and back", "us"),
    GROUP(cores, "Scripts that compute, over the cores", "us each"),
    GROUP(tasks, "Concurrent tasks, start to end", "ms"),
    GROUP(preempt, "What preemption costs a loop that only computes", "ms"),
    GROUP(output, "Output streamed to on_stdout (more is better)", "MiB/s"),
    GROUP(bombs, "Exec in a live sandbox, beside a bomb in another", "us")};
#define GROUPS (sizeof groups / sizeof *groups)

/* A bundle whose root has nothing but mount points: /usr is bound read-only, as for bwrap. And one
 * with the filter that Docker has, as Debian ships it for podman. */
static void make_bundles(const char **ret_crun, const char **ret_filter)
{
  static const char profile[] = "/usr/share/containers/seccomp.json";
  char command[2048];
  snprintf(bundle, sizeof bundle, "/tmp/regolith-bench-XXXXXX");
  *ret_crun = *ret_filter = failed;
  if (!mkdtemp(bundle)) return;
  snprintf(filtered, sizeof filtered, "%s/filtered", bundle);
  snprintf(command, sizeof command,
           "command -v crun >/dev/null && cd %s && mkdir -p rootfs/usr rootfs/proc rootfs/dev "
           "rootfs/tmp rootfs/sys && "
           "ln -s usr/bin rootfs/bin && ln -s usr/lib rootfs/lib && ln -s usr/lib64 rootfs/lib64 "
           "&& crun spec && "
           "sed -i -e 's/\"terminal\": true/\"terminal\": false/' -e "
           "'s/\"sh\"/\"\\/usr\\/bin\\/true\"/' "
           "-e '0,/\"mounts\": \\[/s//\"mounts\": "
           "[{\"destination\":\"\\/usr\",\"type\":\"bind\",\"source\":\"\\/usr\","
           "\"options\":[\"rbind\",\"ro\"]},/' config.json && mkdir filtered",
           bundle);
  if (system(command) == 0) *ret_crun = NULL;
  if (*ret_crun) return;
  if (access(profile, R_OK) < 0) {
    *ret_filter = "Docker's filter is not there (golang-github-containers-common has it)";
    return;
  }
  snprintf(command, sizeof command,
           "%s run --quiet --trust --allow-read /usr/share/containers --allow-write %s "
           "%s/filter.lua -- %s %s $(uname -m)",
           regolith, bundle, lua_folder, profile, bundle);
  if (system(command) == 0) *ret_filter = NULL;
}

/* As results.lua describes. */
static bool write_group(const struct group *g, const char *path)
{
  FILE *f = fopen(path, "we");
  if (!f) return false;
  fprintf(f, "group\t%s\t%s\t%s\n", g->name, g->title, g->unit);
  const char *missing = NULL; /* also of rows that the one above them fills */
  for (size_t i = 0; i < g->n; i++) {
    const struct row *row = &g->rows[i];
    if (row->run) missing = row->missing;
    fprintf(f, "%s\t%s\n", row->peer ? "peer" : "row", row->name);
    if (missing) fprintf(f, "skipped\t%s\n", missing);
    for (size_t k = 0; k < row->n && !missing; k++) fprintf(f, "sample\t%.2f\n", row->samples[k]);
  }
  return fclose(f) == 0;
}

/* What goes on, for who looks at a terminal. */
static void show_round(const struct group *g, int round, int rounds)
{
  if (!isatty(STDERR_FILENO)) return;
  if (round < rounds)
    fprintf(stderr, "\r%-14s round %d of %d ", g->name, round + 1, rounds);
  else
    fprintf(stderr, "\r%40s\r", "");
}

static void run_group(struct group *g, int rounds)
{
  if (g->most_rounds && rounds > g->most_rounds) rounds = g->most_rounds;
  for (int r = 0; r < rounds; r++) {
    show_round(g, r, rounds);
    for (size_t i = 0; i < g->n; i++)
      if (g->rows[i].run && !g->rows[i].missing) g->rows[i].run(&g->rows[i]);
  }
  show_round(g, rounds, rounds);
}

static struct group *find_group(const char *name)
{
  for (size_t g = 0; g < GROUPS; g++)
    if (strcmp(groups[g].name, name) == 0) return &groups[g];
  return NULL;
}

int main(int argc, char **argv)
{
  int rounds = 5, a = 3;
  if (argc == 4 && strcmp(argv[3], "--list") == 0) {
    for (size_t g = 0; g < GROUPS; g++) puts(groups[g].name);
    return 0;
  }
  if (argc > 5 && strcmp(argv[3], "--rounds") == 0) rounds = atoi(argv[4]), a = 5;
  struct group *group = argc == a + 2 ? find_group(argv[a]) : NULL;
  if (!group) {
    fprintf(stderr, "usage: bench REGOLITH_BINARY LUA_FOLDER --list\n"
                    "       bench REGOLITH_BINARY LUA_FOLDER [--rounds N] GROUP FILE\n");
    return 2;
  }
  regolith = regolith_argv[0] = argv[1];
  lua_folder = argv[2];
  const char *no_crun, *no_filter;
  make_bundles(&no_crun, &no_filter);
  for (size_t i = 0; i < group->n; i++) {
    struct row *row = &group->rows[i];
    if (row->argv == crun_argv) row->missing = no_crun;
    if (row->argv == crun_filter_argv) row->missing = no_filter;
  }
  run_group(group, rounds);
  bool ok = write_group(group, argv[a + 1]);
  if (!ok) perror(argv[a + 1]);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", bundle);
  return system(command) == 0 && ok ? 0 : 1;
}

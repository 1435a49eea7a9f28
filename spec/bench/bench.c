/* make bench: regolith beside named peers, in one interleaved run.
 *
 *   bench REGOLITH_BINARY LUA_FOLDER [--rounds N] [--json FILE] [GROUP…]
 *
 * Every row is a way to do the same thing; rows of a group take turns, a batch each per round, so
 * that a machine that drifts drifts for all. Samples are microseconds per piece of work unless the
 * group says otherwise. Printed are median, 90th and 99th percentile and the ratio of medians to
 * the group's first row. Peers that are not installed are left out, and said to be. All peers run
 * the host's /usr/bin/true from a read-only /usr. Benchmarks are no tests: nothing here can fail on
 * a time. */
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
  int batch;                    /* pieces of work a round */
  int pause_ms;                 /* idle before each piece: what one call sees */
  int parallel; /* pieces in flight at once; the sample is then the mean time per piece */
  bool missing;
  double *samples;
  size_t n;
};

struct group {
  const char *name, *title, *unit;
  struct row *rows;
  size_t n;
  double sign; /* +1: less is better */
};

static const char *regolith, *lua_folder;
static char bundle[64];

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
      row->missing = true;
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
      if (pids[i] < 0) row->missing = true;
      started++, live++;
    }
    if (poll(fds, (nfds_t)row->parallel, -1) < 0 && errno != EINTR) break;
    for (int i = 0; i < row->parallel; i++) {
      if (fds[i].fd < 0 || !fds[i].revents) continue;
      if (!finish(pids[i], fds[i].fd, NULL)) row->missing = true;
      fds[i].fd = -1;
      live--, done++;
    }
  }
  for (int i = 0; i < row->parallel; i++)
    if (fds[i].fd >= 0) finish(pids[i], fds[i].fd, NULL);
  if (!row->missing) add(row, (now_us() - begin) / row->batch);
}

/* A Lua script that prints one number a line: its samples. */
static void run_lua(struct row *row)
{
  char script[512], batch[16], pause[16], parallel[16];
  snprintf(script, sizeof script, "%s/%s", lua_folder, row->script);
  snprintf(batch, sizeof batch, "%d", row->batch);
  snprintf(pause, sizeof pause, "%d", row->pause_ms);
  snprintf(parallel, sizeof parallel, "%d", row->parallel ? row->parallel : 1);
  const char *const argv[] = {regolith,    "run",    row->mode ? row->mode : "--jobs=200",
                              "--timeout", "10m",    script,
                              "--",        batch,    pause,
                              parallel,    row->arg, NULL};
  char *text = NULL;
  size_t len = 0;
  FILE *out = open_memstream(&text, &len);
  int fd;
  pid_t pid = start(argv, &fd);
  bool ok = pid > 0 && finish(pid, fd, out);
  fclose(out);
  if (!ok) {
    row->missing = true;
    fprintf(stderr, "%s:\n%s\n", row->name, text);
  }
  for (char *line = strtok(text, "\n"); ok && line; line = strtok(NULL, "\n")) {
    char *end;
    double v = strtod(line, &end);
    if (end != line) add(row, v);
  }
  free(text);
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
    row->missing = true;
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
static const char *regolith_argv[] = {NULL, "exec", "--", "/usr/bin/true", NULL};

static void run_crun_parallel(struct row *row)
{
  /* Container names must differ, so the parallel rows give crun a wrapper that names each by its
   * pid. */
  char command[256];
  snprintf(command, sizeof command, "exec crun run --bundle %s regolith-bench-$$", bundle);
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
  row->missing = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
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
  row->missing = pid < 0 || !finish(pid, fd, out);
  fclose(out);
  if (!row->missing) add(row, strtod(text, NULL));
  free(text);
}

static struct row oneshot_cold[] = {
    {.name = "bwrap --unshare-all",
     .run = run_spawn,
     .argv = bwrap_argv,
     .batch = 10,
     .pause_ms = 50},
    {.name = "posix_spawn, no isolation",
     .run = run_spawn,
     .argv = true_argv,
     .batch = 10,
     .pause_ms = 50},
    {.name = "crun run", .run = run_crun, .argv = crun_argv, .batch = 4, .pause_ms = 50},
    {.name = "regolith exec",
     .run = run_spawn,
     .argv = regolith_argv,
     .batch = 10,
     .pause_ms = 50}};
static struct row oneshot_warm[] = {
    {.name = "bwrap --unshare-all", .run = run_spawn, .argv = bwrap_argv, .batch = 40},
    {.name = "posix_spawn, no isolation", .run = run_spawn, .argv = true_argv, .batch = 40},
    {.name = "crun run", .run = run_crun, .argv = crun_argv, .batch = 8},
    {.name = "regolith exec", .run = run_spawn, .argv = regolith_argv, .batch = 40}};
static struct row exec_warm[] = {
    {.name = "posix_spawn + capture", .run = run_spawn, .argv = true_argv, .batch = 100},
    {.name = "sb:exec, worker", .run = run_lua, .script = "exec.lua", .batch = 100},
    {.name = "sb:exec, in process",
     .run = run_lua,
     .mode = "--trust",
     .script = "exec.lua",
     .batch = 100}};
static struct row exec_cold[] = {
    {.name = "posix_spawn + capture",
     .run = run_spawn,
     .argv = true_argv,
     .batch = 20,
     .pause_ms = 50},
    {.name = "sb:exec, worker", .run = run_lua, .script = "exec.lua", .batch = 20, .pause_ms = 50},
    {.name = "sb:exec, in process",
     .run = run_lua,
     .mode = "--trust",
     .script = "exec.lua",
     .batch = 20,
     .pause_ms = 50}};
static struct row life_warm[] = {
    {.name = "posix_spawn + capture", .run = run_spawn, .argv = true_argv, .batch = 100},
    {.name = "create, exec, terminate, worker", .run = run_lua, .script = "life.lua", .batch = 50},
    {.name = "create, exec, terminate, in process",
     .run = run_lua,
     .mode = "--trust",
     .script = "life.lua",
     .batch = 50}};
static struct row life_cold[] = {{.name = "posix_spawn + capture",
                                  .run = run_spawn,
                                  .argv = true_argv,
                                  .batch = 20,
                                  .pause_ms = 50},
                                 {.name = "create, exec, terminate, worker",
                                  .run = run_lua,
                                  .script = "life.lua",
                                  .batch = 20,
                                  .pause_ms = 50},
                                 {.name = "create, exec, terminate, in process",
                                  .run = run_lua,
                                  .mode = "--trust",
                                  .script = "life.lua",
                                  .batch = 20,
                                  .pause_ms = 50}};
static struct row churn1[] = {
    {.name = "bwrap, 1 at a time",
     .run = run_spawn_parallel,
     .argv = bwrap_argv,
     .batch = 50,
     .parallel = 1},
    {.name = "crun, 1 at a time", .run = run_crun, .batch = 10, .parallel = 1},
    {.name = "regolith, 1 at a time",
     .run = run_lua,
     .script = "churn.lua",
     .batch = 100,
     .parallel = 1}};
static struct row churn16[] = {
    {.name = "bwrap, 16 at a time",
     .run = run_spawn_parallel,
     .argv = bwrap_argv,
     .batch = 100,
     .parallel = 16},
    {.name = "crun, 16 at a time", .run = run_crun, .batch = 20, .parallel = 16},
    {.name = "regolith, 16 at a time",
     .run = run_lua,
     .script = "churn.lua",
     .batch = 200,
     .parallel = 16}};
static struct row churn64[] = {
    {.name = "bwrap, 64 at a time",
     .run = run_spawn_parallel,
     .argv = bwrap_argv,
     .batch = 200,
     .parallel = 64},
    {.name = "crun, 64 at a time", .run = run_crun, .batch = 64, .parallel = 64},
    {.name = "regolith, 64 at a time",
     .run = run_lua,
     .script = "churn.lua",
     .batch = 400,
     .parallel = 64}};
static struct row memory[] = {{.name = "idle sandbox",
                               .run = run_lua,
                               .script = "memory.lua",
                               .arg = "sandbox",
                               .batch = 200},
                              {.name = "sleeping task",
                               .run = run_lua,
                               .script = "memory.lua",
                               .arg = "task",
                               .batch = 10000}};
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
    {.name = "lua5.4, a loop that computes", .run = run_stock_lua, .script = "spin.lua"},
    {.name = "regolith run, the same loop", .run = run_lua, .script = "spin.lua", .batch = 1}};
static struct row output[] = {
    {.name = "to a callback, in process",
     .run = run_lua,
     .script = "output.lua",
     .mode = "--trust",
     .batch = 256},
    {.name = "to a callback, worker", .run = run_lua, .script = "output.lua", .batch = 256}};

#define BOMB(kind)                                                                                 \
  {                                                                                                \
    .name = kind, .run = run_lua, .script = "bombs.lua", .batch = 100, .arg = kind                 \
  }
static struct row bombs[] = {BOMB("quiet"),  BOMB("output"), BOMB("fork"),
                             BOMB("memory"), BOMB("disk"),   BOMB("inodes")};

#define GROUP(id, text, unit_, sign_)                                                              \
  {                                                                                                \
#id, text, unit_, id, sizeof id / sizeof *id, sign_                                            \
  }
static struct group groups[] = {
    GROUP(oneshot_cold, "one-shot /usr/bin/true, after 50 ms of idling", "us", 1),
    GROUP(oneshot_warm, "one-shot /usr/bin/true, back to back", "us", 1),
    GROUP(exec_cold, "exec in a live sandbox, after 50 ms of idling", "us", 1),
    GROUP(exec_warm, "exec in a live sandbox, back to back", "us", 1),
    GROUP(life_cold, "create, exec, terminate from Lua, after 50 ms of idling", "us", 1),
    GROUP(life_warm, "create, exec, terminate from Lua, back to back", "us", 1),
    GROUP(churn1, "sandboxes, each with one exec", "us each", 1),
    GROUP(churn16, "sandboxes, each with one exec", "us each", 1),
    GROUP(churn64, "sandboxes, each with one exec", "us each", 1),
    GROUP(memory, "memory, kernel's included (fall of MemAvailable)", "KiB each", 1),
    GROUP(scripts, "scripts run at once, start to end of the program", "us each", 1),
    GROUP(ops, "one op, there and back", "us", 1),
    GROUP(cores, "scripts that compute, over the cores", "us each", 1),
    GROUP(tasks, "concurrent tasks, start to end", "ms", 1),
    GROUP(preempt, "what preemption costs a loop that only computes", "ms", 1),
    GROUP(output, "output streamed to on_stdout", "MiB/s", -1),
    GROUP(bombs, "exec in a live sandbox, beside a bomb in another", "us", 1)};
#define GROUPS (sizeof groups / sizeof *groups)

/* A bundle whose root has nothing but mount points: /usr is bound read-only, as for bwrap. */
static bool make_bundle(void)
{
  snprintf(bundle, sizeof bundle, "/tmp/regolith-bench-XXXXXX");
  if (!mkdtemp(bundle)) return false;
  char command[2048];
  snprintf(command, sizeof command,
           "command -v crun >/dev/null && cd %s && mkdir -p rootfs/usr rootfs/proc rootfs/dev "
           "rootfs/tmp rootfs/sys && "
           "ln -s usr/bin rootfs/bin && ln -s usr/lib rootfs/lib && ln -s usr/lib64 rootfs/lib64 "
           "&& crun spec && "
           "sed -i -e 's/\"terminal\": true/\"terminal\": false/' -e "
           "'s/\"sh\"/\"\\/usr\\/bin\\/true\"/' "
           "-e '0,/\"mounts\": \\[/s//\"mounts\": "
           "[{\"destination\":\"\\/usr\",\"type\":\"bind\",\"source\":\"\\/usr\","
           "\"options\":[\"rbind\",\"ro\"]},/' config.json",
           bundle);
  return system(command) == 0;
}

static int by_value(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double at(const struct row *row, double q)
{
  size_t i = (size_t)(q * (double)(row->n - 1) + 0.5);
  return row->samples[i];
}

static void print_group(struct group *g, FILE *json, bool first)
{
  printf("\n%s (%s)\n", g->title, g->unit);
  printf("  %-34s %10s %10s %10s %8s %7s\n", "", "median", "p90", "p99", "ratio", "n");
  for (size_t i = 0; i < g->n; i++) {
    struct row *r = &g->rows[i];
    if (r->n) qsort(r->samples, r->n, sizeof *r->samples, by_value);
    if (!r->n || r->missing) {
      printf("  %-34s not measured: the program is missing or failed\n", r->name);
      continue;
    }
    const struct row *base = &g->rows[0];
    bool has_base = i > 0 && base->n && !base->missing;
    double ratio = has_base ? at(r, 0.5) / at(base, 0.5) : 1.0;
    printf("  %-34s %10.1f %10.1f %10.1f ", r->name, at(r, 0.5), at(r, 0.9), at(r, 0.99));
    if (has_base)
      printf("%8.2f", ratio);
    else
      printf("%8s", "");
    printf(" %7zu\n", r->n);
    if (json)
      fprintf(
          json,
          "%s\n {\"group\":\"%s\",\"title\":\"%s\",\"unit\":\"%s\",\"row\":\"%s\",\"median\":%.2f,"
          "\"p90\":%.2f,\"p99\":%.2f,\"ratio\":%.3f,\"n\":%zu}",
          first && i == 0 ? "" : ",", g->name, g->title, g->unit, r->name, at(r, 0.5), at(r, 0.9),
          at(r, 0.99), ratio, r->n);
  }
}

static bool wanted(const char *name, char **names, int n)
{
  for (int i = 0; i < n; i++)
    if (strncmp(name, names[i], strlen(names[i])) == 0) return true;
  return n == 0;
}

int main(int argc, char **argv)
{
  int rounds = 5, a = 3;
  const char *json_path = NULL;
  if (argc < 3) {
    fprintf(stderr,
            "usage: bench REGOLITH_BINARY LUA_FOLDER [--rounds N] [--json FILE] [GROUP...]\n");
    return 2;
  }
  regolith = regolith_argv[0] = argv[1];
  lua_folder = argv[2];
  for (; a + 1 < argc && argv[a][0] == '-'; a += 2) {
    if (strcmp(argv[a], "--rounds") == 0)
      rounds = atoi(argv[a + 1]);
    else if (strcmp(argv[a], "--json") == 0)
      json_path = argv[a + 1];
  }
  bool have_crun = make_bundle();
  for (size_t g = 0; g < GROUPS; g++)
    for (size_t i = 0; i < groups[g].n; i++)
      if (strncmp(groups[g].rows[i].name, "crun", 4) == 0) groups[g].rows[i].missing = !have_crun;
  FILE *json = json_path ? fopen(json_path, "w") : NULL;
  if (json) fputc('[', json);
  bool first = true;
  for (size_t g = 0; g < GROUPS; g++) {
    if (!wanted(groups[g].name, argv + a, argc - a)) continue;
    for (int r = 0; r < rounds; r++) {
      for (size_t i = 0; i < groups[g].n; i++)
        if (!groups[g].rows[i].missing) groups[g].rows[i].run(&groups[g].rows[i]);
      fprintf(stderr, "\r%-14s round %d of %d ", groups[g].name, r + 1, rounds);
    }
    fprintf(stderr, "\r%40s\r", "");
    print_group(&groups[g], json, first);
    fflush(stdout);
    first = false;
  }
  if (json) {
    fputs("\n]\n", json);
    fclose(json);
  }
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", bundle);
  return system(command) == 0 ? 0 : 1;
}

/* engine/local: boxes and execs through the vtable, and nothing left afterwards. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/id.h"
#include "core/loop.h"
#include "engine/engine.h"
#include "engine/local/cgroup.h"
#include "engine/local/local.h"
#include "wire/file.h"
#include "wire/op.h"

/* --- straight-line calls over the loop -------------------------------------------------------- */

static struct loop *loop;
static struct engine *engine;
static int waiting; /* callbacks still to come */

struct box {
  struct create_op op;
  struct create_args args;
  char id[ID_SIZE];
  struct err err;
  bool done, ended;
  enum box_end why;
};

struct run {
  struct exec_op op;
  struct exec_args args;
  struct err err;
  struct buf out, errout;
  uint64_t bytes;
  bool done, count_only;
};

struct kill {
  struct kill_op op;
  bool done;
};

static void on_alarm(struct timer *t)
{
  (void)t;
  fprintf(stderr, "the test hangs\n");
  abort();
}

static void step(void)
{
  struct timer alarm = {.cb = on_alarm};
  timer_start(loop, &alarm, 20000);
  loop_run(loop);
  timer_stop(loop, &alarm);
}

static void wait_for(const bool *flag)
{
  while (!*flag) step();
}

static void on_tick(struct timer *t)
{
  *(bool *)t->data = true;
  loop_stop(loop);
}

static void wait_ms(uint64_t ms)
{
  bool over = false;
  struct timer t = {.cb = on_tick, .data = &over};
  timer_start(loop, &t, ms);
  wait_for(&over);
}

static void on_created(struct create_op *op, const struct err *err)
{
  struct box *b = op->data;
  if (err) b->err = *err;
  b->done = true;
  waiting--;
  loop_stop(loop);
}

static void on_end(void *data, enum box_end why)
{
  struct box *b = data;
  b->ended = true;
  b->why = why;
  loop_stop(loop);
}

static void note_id(const char *id);

static void box_args(struct box *b, const char *image)
{
  *b = (struct box){0};
  id_sandbox(b->id);
  note_id(b->id);
  b->args = (struct create_args){.engine = xstrdup("local"),
                                 .image = xstrdup(image),
                                 .cpu_milli = 1000,
                                 .mem_mib = 256,
                                 .disk_mib = 64,
                                 .pids = 256,
                                 .timeout_s = 300,
                                 .app_id = xstrdup("default")};
}

static int box_start(struct box *b)
{
  b->op = (struct create_op){
      .sandbox_id = b->id, .args = &b->args, .on_done = on_created, .on_end = on_end, .data = b};
  int rc = engine->ops->create(engine, &b->op, &b->err);
  if (rc == 0) waiting++;
  return rc;
}

/* A machine that can make no sandboxes skips the case, aloud; any other failure is one. */
static bool box_up(struct box *b)
{
  if (box_start(b) == 0) wait_for(&b->done);
  create_args_free(&b->args);
  if (b->err.kind == ERR_ENGINE_UNAVAILABLE)
    fprintf(stderr, "SKIPPED, no sandboxes here: %s\n", b->err.msg);
  else
    CHECK_STR(b->err.msg, "");
  return b->err.kind == ERR_NONE;
}

static bool has(enum cgroup_cap cap)
{
  struct cgroup_info info;
  cgroup_probe(&info);
  return info.caps & cap;
}

/* Can this machine, as this user, do that with control groups? If not, says so. */
static bool can(enum cgroup_cap cap)
{
  if (!has(cap)) fprintf(stderr, "skipped for want of control groups\n");
  return has(cap);
}

static void on_killed(struct kill_op *op, const struct err *err)
{
  struct kill *k = op->data;
  CHECK(err == NULL);
  k->done = true;
  loop_stop(loop);
}

static void kill_start(struct kill *k, struct engine_box *box, struct exec_op *exec)
{
  *k = (struct kill){.op = {.box = box, .exec = exec, .on_done = on_killed, .data = k}};
  struct err err = {0};
  CHECK_INT(engine->ops->kill(engine, &k->op, &err), 0);
}

static void box_down(struct box *b)
{
  struct kill k;
  kill_start(&k, b->op.ret_box, NULL);
  wait_for(&k.done);
}

static void on_chunk(struct exec_op *op, enum exec_stream stream, const void *data, size_t len)
{
  struct run *r = op->data;
  r->bytes += len;
  if (!r->count_only) buf_append(stream == EXEC_STDOUT ? &r->out : &r->errout, data, len);
}

static void on_exec_done(struct exec_op *op, const struct err *err)
{
  struct run *r = op->data;
  if (err) r->err = *err;
  r->done = true;
  loop_stop(loop);
}

static void run_args(struct run *r, const char *const *argv)
{
  *r = (struct run){0};
  for (; *argv; argv++) strv_add(&r->args.argv, *argv);
}

static int run_start(struct box *b, struct run *r)
{
  r->op = (struct exec_op){.box = b->op.ret_box,
                           .args = &r->args,
                           .on_chunk = on_chunk,
                           .on_done = on_exec_done,
                           .data = r};
  int rc = engine->ops->exec(engine, &r->op, &r->err);
  if (rc < 0) r->done = true;
  return rc;
}

static void run_free(struct run *r)
{
  exec_args_free(&r->args);
  buf_free(&r->out);
  buf_free(&r->errout);
}

static void wait_output(const struct run *r, size_t len)
{
  while (r->out.len < len && !r->done) wait_ms(5);
  CHECK(r->out.len >= len);
  if (r->done) fprintf(stderr, "ended early: %s\n", r->err.msg);
}

/* Runs a shell command to its end; the caller frees r. */
static void sh_as(struct box *b, struct run *r, const char *user, const char *script)
{
  run_args(r, (const char *const[]){"/bin/sh", "-c", script, NULL});
  if (user) r->args.user = xstrdup(user);
  if (run_start(b, r) == 0) wait_for(&r->done);
  if (r->err.kind != ERR_NONE) fprintf(stderr, "exec: %s\n", r->err.msg);
}

static void sh(struct box *b, struct run *r, const char *script)
{
  sh_as(b, r, NULL, script);
}

static const char *text(const struct buf *b)
{
  return b->data ? b->data : "";
}

#define CHECK_SH(box, script, want)                                                                \
  do {                                                                                             \
    struct run r_;                                                                                 \
    sh(box, &r_, script);                                                                          \
    CHECK_STR(text(&r_.out), want);                                                                \
    CHECK_STR(text(&r_.errout), "");                                                               \
    run_free(&r_);                                                                                 \
  } while (0)

static void on_closed(void *data)
{
  *(bool *)data = true;
  loop_stop(loop);
}

/* Before main reads its arguments: this program is also what a new warden is started from. */
__attribute__((constructor)) static void early(void)
{
  local_engine_prefork(NULL);
}

static pid_t child_titled(const char *title)
{
  char path[64], list[4096] = {0}, line[256];
  snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
  int fd = open(path, O_RDONLY);
  if (fd < 0 || read(fd, list, sizeof list - 1) < 0) return 0;
  close(fd);
  for (char *save, *p = strtok_r(list, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
    snprintf(path, sizeof path, "/proc/%s/cmdline", p);
    memset(line, 0, sizeof line);
    fd = open(path, O_RDONLY);
    if (fd >= 0 && read(fd, line, sizeof line - 1) > 0 &&
        strncmp(line, title, strlen(title)) == 0) {
      close(fd);
      return atoi(p);
    }
    if (fd >= 0) close(fd);
  }
  return 0;
}

static pid_t wardens[4]; /* of a case */
static size_t wardens_n;

/* The warden there is now; waits until it calls itself one. */
static void note_warden(void)
{
  pid_t pid = 0;
  for (int i = 0; i < 500 && !(pid = child_titled("regolith: warden")); i++) usleep(2000);
  CHECK(pid > 0);
  if (wardens_n < sizeof wardens / sizeof *wardens) wardens[wardens_n++] = pid;
}

static void begin(void)
{
  struct err err = {0};
  CHECK_INT(local_engine_prefork(&err), 0);
  loop_new(&loop, NULL);
  CHECK_INT(
      local_engine_ops.open(&engine, &(struct engine_conf){.name = "local", .loop = loop}, &err),
      0);
  note_warden();
}

static void end(void)
{
  bool closed = false;
  engine->ops->close(engine, on_closed, &closed);
  wait_for(&closed);
  loop_free(loop);
}

/* --- nothing is left -------------------------------------------------------------------------- */

static char ids[256][ID_SIZE]; /* of all boxes of a case */
static size_t ids_n;

static void note_id(const char *id)
{
  if (ids_n < sizeof ids / sizeof *ids) memcpy(ids[ids_n++], id, ID_SIZE);
}

static bool is_ours(const char *text)
{
  for (size_t i = 0; i < ids_n; i++)
    if (strstr(text, ids[i])) return true;
  return false;
}

static int on_cgroup(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
  (void)st, (void)ftw;
  for (size_t i = 0; i < wardens_n && type == FTW_D; i++) {
    char part[64];
    snprintf(part, sizeof part, "/w-%d-%d-", (int)geteuid(), (int)wardens[i]);
    if (!strstr(path, part)) continue;
    fprintf(stderr, "left: %s\n", path);
    test_failed_checks++;
  }
  return 0;
}

/* Where the warden stages its mounts, in a namespace of its own: none may show here. */
static int mounts(void)
{
  int n = 0;
  char line[1024];
  FILE *f = fopen("/proc/self/mountinfo", "re");
  while (f && fgets(line, sizeof line, f)) n += strstr(line, " /dev") != NULL;
  if (f) fclose(f);
  return n;
}

static void check_processes(void)
{
  DIR *d = opendir("/proc");
  for (struct dirent *e; d && (e = readdir(d));) {
    char path[300], line[256] = {0};
    snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
    int fd = atoi(e->d_name) > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) continue;
    if (read(fd, line, sizeof line - 1) > 0 && is_ours(line)) {
      fprintf(stderr, "left: process %s: %s\n", e->d_name, line);
      test_failed_checks++;
    }
    close(fd);
  }
  if (d) closedir(d);
}

static void check_nothing_left(int mounts_before)
{
  CHECK_INT(mounts(), mounts_before);
  CHECK(waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD);
  check_processes();
  nftw("/sys/fs/cgroup", on_cgroup, 16, FTW_PHYS);
  ids_n = wardens_n = 0;
}

/* --- cases ------------------------------------------------------------------------------------ */

static void create_exec_kill(void)
{
  struct box b;
  struct run r;
  box_args(&b, "host");
  if (!box_up(&b)) return;
  sh(&b, &r, "echo out; echo err >&2; exit 7");
  CHECK_STR(text(&r.out), "out\n");
  CHECK_STR(text(&r.errout), "err\n");
  CHECK_INT(r.op.ret_end, EXEC_END_EXITED);
  CHECK_INT(r.op.ret_code, 7);
  CHECK(r.op.ret_duration_us > 0 && r.op.ret_duration_us < 5000000);
  CHECK(r.op.ret_max_rss_kib > 0);
  run_free(&r);
  box_down(&b);
}

static void check_end(struct box *b, const char *script, int how, int code)
{
  struct run r;
  sh(b, &r, script);
  CHECK_INT(r.err.kind, ERR_NONE);
  CHECK_INT(r.op.ret_end, how);
  CHECK_INT(r.op.ret_code, code);
  if (r.op.ret_end != (unsigned)how) fprintf(stderr, "%s: %s\n", script, text(&r.errout));
  run_free(&r);
}

static void outcomes(void)
{
  struct box b;
  struct run r;
  box_args(&b, "host");
  if (!box_up(&b)) return;
  static const int codes[] = {0, 1, 2, 126, 127, 128, 137, 254, 255};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    char script[32];
    snprintf(script, sizeof script, "exit %d", codes[i]);
    check_end(&b, script, EXEC_END_EXITED, codes[i]);
  }
  check_end(&b, "kill -TERM $$", EXEC_END_SIGNAL, SIGTERM);
  check_end(&b, "kill -KILL $$", EXEC_END_SIGNAL, SIGKILL);

  run_args(&r, (const char *const[]){"no-such-command", NULL});
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_INT(r.op.ret_end, EXEC_END_EXITED);
  CHECK_INT(r.op.ret_code, 127);
  CHECK_STR(text(&r.errout), "regolith: no-such-command: command not found\n");
  run_free(&r);

  run_args(&r, (const char *const[]){"/etc/passwd", NULL});
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_INT(r.op.ret_code, 126);
  CHECK_STR(text(&r.errout), "regolith: /etc/passwd: Permission denied\n");
  run_free(&r);

  CHECK_SH(&b, "printf 'echo \"$1\"' >/tmp/x; chmod +x /tmp/x; printf ''", "");
  run_args(&r, (const char *const[]){"/tmp/x", "text without #!", NULL});
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_STR(text(&r.out), "text without #!\n");
  run_free(&r);

  sh(&b, &r, "printf 'a\\000\\377z'");
  CHECK_INT(r.out.len, 4);
  CHECK(memcmp(text(&r.out), "a\0\xFFz", 4) == 0);
  run_free(&r);
  box_down(&b);
}

static void arguments(void)
{
  struct box b;
  struct run r;
  box_args(&b, "host");
  strv_add(&b.args.env, "A=box");
  strv_add(&b.args.env, "B=box");
  b.args.cwd = xstrdup("/usr");
  if (!box_up(&b)) return;
  run_args(&r, (const char *const[]){"/bin/sh", "-c", "echo $A $B $HOME; pwd; id -u", NULL});
  strv_add(&r.args.env, "A=exec");
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_STR(text(&r.out), "exec box /root\n/usr\n0\n");
  run_free(&r);

  run_args(&r, (const char *const[]){"/bin/pwd", NULL});
  r.args.cwd = xstrdup("/no/such");
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_INT(r.err.kind, ERR_INVALID_ARGUMENT);
  CHECK_STR(r.err.field, "cwd");
  run_free(&r);

  run_args(&r, (const char *const[]){"/bin/pwd", NULL});
  r.args.user = xstrdup("who");
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_INT(r.err.kind, ERR_INVALID_ARGUMENT);
  CHECK_STR(r.err.field, "user");
  run_free(&r);

  /* One argument of 128 KiB is refused; 1 MiB in many is fine, and so is one of a byte less. */
  char *big = xmalloc(128 * 1024 + 1);
  memset(big, 'x', 128 * 1024);
  big[128 * 1024] = '\0';
  run_args(&r, (const char *const[]){"/bin/echo", big, NULL});
  CHECK(run_start(&b, &r) < 0);
  CHECK_INT(r.err.kind, ERR_INVALID_ARGUMENT);
  CHECK_STR(r.err.field, "command");
  run_free(&r);
  big[128 * 1024 - 1] = '\0';
  run_args(&r, (const char *const[]){"/bin/sh", "-c", "echo $# ${#1}", "sh", NULL});
  for (int i = 0; i < 8; i++) strv_add(&r.args.argv, big);
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_STR(text(&r.out), "8 131071\n");
  run_free(&r);
  run_args(&r, (const char *const[]){"/bin/true", NULL});
  for (int i = 0; i < 24; i++) strv_add(&r.args.argv, big);
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_INT(r.err.kind, ERR_INVALID_ARGUMENT);
  run_free(&r);
  free(big);
  box_down(&b);
}

static void users(void)
{
  struct box b;
  struct run r;
  box_args(&b, "host");
  if (!box_up(&b)) return;
  sh_as(&b, &r, "nobody", "id -u; id -g; grep CapEff /proc/self/status; echo x >/dev/stderr");
  if (r.err.kind == ERR_NONE) { /* with a single id there is only root */
    CHECK_STR(text(&r.out), "65534\n65534\nCapEff:\t0000000000000000\n");
    CHECK_STR(text(&r.errout), "x\n");
  }
  run_free(&r);
  sh_as(&b, &r, "12:34", "id -u; id -g; id -G");
  if (r.err.kind == ERR_NONE) CHECK_STR(text(&r.out), "12\n34\n34\n");
  run_free(&r);
  box_down(&b);
}

static void standard_input(void)
{
  struct box b;
  struct run r;
  box_args(&b, "host");
  if (!box_up(&b)) return;
  run_args(&r, (const char *const[]){"/usr/bin/wc", "-c", NULL});
  r.args.stdin_len = 1 << 20;
  r.args.stdin_data = xcalloc(1, r.args.stdin_len);
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_STR(text(&r.out), "1048576\n");
  run_free(&r);

  run_args(&r, (const char *const[]){"/bin/cat", NULL}); /* no input is an empty one */
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_INT(r.out.len, 0);
  run_free(&r);

  run_args(&r, (const char *const[]){"/bin/cat", NULL});
  r.args.stdin_stream = true;
  if (run_start(&b, &r) == 0) {
    engine->ops->exec_input(engine, &r.op, "one ", 4);
    wait_ms(20);
    CHECK_STR(text(&r.out), "one ");
    engine->ops->exec_input(engine, &r.op, "two", 3);
    engine->ops->exec_input(engine, &r.op, NULL, 0);
    wait_for(&r.done);
  }
  CHECK_STR(text(&r.out), "one two");
  run_free(&r);

  run_args(&r, (const char *const[]){"/bin/true", NULL}); /* a reader that is not interested */
  r.args.stdin_len = 1 << 20;
  r.args.stdin_data = xcalloc(1, r.args.stdin_len);
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_INT(r.op.ret_code, 0);
  run_free(&r);
  box_down(&b);
}

/* The number of processes inside that are neither the agent nor those of this very question. */
static int others(struct box *b)
{
  struct run r;
  sh(b, &r,
     "n=0; for p in /proc/[0-9]*; do p=${p#/proc/}; "
     "[ $p = 1 ] || [ $p = $$ ] || n=$((n+1)); done; echo $n");
  int n = atoi(text(&r.out));
  run_free(&r);
  return n;
}

static void kill_takes_all(void)
{
  struct box b;
  struct run r;
  struct kill k, again;
  box_args(&b, "host");
  if (!box_up(&b)) return;
  run_args(&r, (const char *const[]){"/bin/sh", "-c",
                                     "echo begun; trap '' TERM; (setsid sleep 100 &); "
                                     "sh -c 'setsid sleep 100 & sleep 100' & sleep 100",
                                     NULL});
  if (run_start(&b, &r) == 0) {
    wait_output(&r, 6);
    wait_ms(50);
    CHECK(others(&b) >= 4);
    uint64_t from = clock_mono_ms();
    kill_start(&k, b.op.ret_box, &r.op);
    kill_start(&again, b.op.ret_box, &r.op);
    wait_for(&again.done);
    CHECK(k.done && r.done);
    CHECK(clock_mono_ms() - from < 1000);
    CHECK_INT(r.op.ret_end, EXEC_END_SIGNAL);
    CHECK_INT(r.op.ret_code, SIGKILL);
    CHECK_STR(text(&r.out), "begun\n");
    CHECK_INT(others(&b), 0);
  }
  run_free(&r);

  run_args(&r, (const char *const[]){"/bin/sh", "-c",
                                     "trap 'echo got; exit 3' TERM; echo on; "
                                     "while :; do sleep 0.01; done",
                                     NULL});
  if (run_start(&b, &r) == 0) {
    wait_output(&r, 3);
    k = (struct kill){.op = {.box = b.op.ret_box,
                             .exec = &r.op,
                             .signal = SIGTERM,
                             .on_done = on_killed,
                             .data = &k}};
    CHECK_INT(engine->ops->kill(engine, &k.op, NULL), 0);
    wait_for(&k.done);
    wait_for(&r.done);
  }
  CHECK_STR(text(&r.out), "on\ngot\n");
  CHECK_INT(r.op.ret_code, 3);
  run_free(&r);
  box_down(&b);
}

static void children_live_on(void)
{
  struct box b;
  struct run r;
  box_args(&b, "host");
  if (!box_up(&b)) return;
  uint64_t from = clock_mono_ms();
  sh(&b, &r, "sleep 100 & echo said");
  uint64_t took = clock_mono_ms() - from;
  CHECK(took >= 90 && took < 2000);
  CHECK_STR(text(&r.out), "said\n");
  CHECK_INT(r.op.ret_code, 0);
  run_free(&r);
  CHECK_INT(others(&b), 1);
  box_down(&b);
}

static void flood(void)
{
  struct box b;
  struct run r;
  box_args(&b, "host");
  if (!box_up(&b)) return;
  run_args(&r, (const char *const[]){"/usr/bin/head", "-c", "300000000", "/dev/zero", NULL});
  r.count_only = true;
  if (run_start(&b, &r) == 0) {
    wait_ms(5);
    engine->ops->exec_flow(engine, &r.op, true);
    wait_ms(20);
    uint64_t at = r.bytes;
    wait_ms(50);
    CHECK_INT(r.bytes, at);
    CHECK(!r.done);
    engine->ops->exec_flow(engine, &r.op, false);
    wait_for(&r.done);
  }
  CHECK_INT(r.bytes, 300000000);
  CHECK_INT(r.op.ret_code, 0);
  run_free(&r);

  /* One that ends while it is paused loses nothing. */
  run_args(&r, (const char *const[]){"/bin/echo", "kept", NULL});
  if (run_start(&b, &r) == 0) {
    engine->ops->exec_flow(engine, &r.op, true);
    wait_ms(150);
    CHECK(!r.done);
    engine->ops->exec_flow(engine, &r.op, false);
    wait_for(&r.done);
  }
  CHECK_STR(text(&r.out), "kept\n");
  run_free(&r);
  box_down(&b);
}

static void limits(void)
{
  struct box b;
  struct run r;
  box_args(&b, "host");
  b.args.mem_mib = 128;
  b.args.disk_mib = 32;
  b.args.pids = 50;
  if (!box_up(&b)) return;
  sh(&b, &r, "head -c 64000000 /dev/zero >/tmp/big");
  CHECK_INT(r.op.ret_code, 1);
  CHECK(strstr(text(&r.errout), "No space left") != NULL);
  run_free(&r);
  CHECK_SH(&b,
           "rm /tmp/big; cd /tmp; i=0; while true >f$i; do i=$((i+1)); done 2>/dev/null; "
           "[ $i -lt 5000 ] && echo limited; rm -f f*",
           "limited\n");
  if (can(CGROUP_CAP_PIDS)) {
    sh(&b, &r, "for i in $(seq 100); do sleep 100 & done");
    CHECK(strstr(text(&r.errout), "fork") != NULL);
    run_free(&r);
    struct run last; /* takes the place that the shell left */
    run_args(&last, (const char *const[]){"/bin/sleep", "100", NULL});
    CHECK_INT(run_start(&b, &last), 0);
    run_args(&r, (const char *const[]){"/bin/true", NULL});
    if (run_start(&b, &r) == 0) wait_for(&r.done);
    CHECK_INT(r.err.kind, ERR_EXEC_FAILED);
    run_free(&r);
    box_down(&b);
    CHECK(last.done);
    run_free(&last);
  } else {
    box_down(&b);
  }
  if (!can(CGROUP_CAP_MEMORY)) return;
  box_args(&b, "host");
  b.args.mem_mib = 128;
  b.args.disk_mib = 32;
  if (!box_up(&b)) return;
  run_args(&r, (const char *const[]){"/usr/bin/tail", "/dev/zero", NULL});
  if (run_start(&b, &r) == 0) wait_for(&r.done);
  CHECK_INT(r.op.ret_end, EXEC_END_OOM);
  run_free(&r);
  check_end(&b, "tail /dev/zero; exit $?", EXEC_END_OOM, SIGKILL);
  check_end(&b, "kill -KILL $$", EXEC_END_SIGNAL, SIGKILL);
  CHECK_SH(&b, "echo still here", "still here\n");
  box_down(&b);
}

static void many_at_once(void)
{
  enum { N = 200 };
  struct box b;
  static struct run r[N];
  box_args(&b, "host");
  b.args.pids = 1000;
  if (!box_up(&b)) return;
  for (int i = 0; i < N; i++) {
    char script[64];
    snprintf(script, sizeof script, "sleep 0.3; exit %d", i);
    run_args(&r[i], (const char *const[]){"/bin/sh", "-c", script, NULL});
    CHECK_INT(run_start(&b, &r[i]), 0);
  }
  for (int i = 0; i < N; i++) {
    wait_for(&r[i].done);
    CHECK_INT(r[i].err.kind, ERR_NONE);
    CHECK_INT(r[i].op.ret_code, i);
    run_free(&r[i]);
  }
  box_down(&b);
}

static void kills_race(void)
{
  struct box b;
  struct run r;
  struct kill k, again;
  /* with a command under way, twice */
  box_args(&b, "host");
  if (!box_up(&b)) return;
  run_args(&r, (const char *const[]){"/bin/sleep", "100", NULL});
  if (run_start(&b, &r) == 0) {
    kill_start(&k, b.op.ret_box, NULL);
    kill_start(&again, b.op.ret_box, NULL);
    struct run late;
    run_args(&late, (const char *const[]){"/bin/true", NULL});
    CHECK(run_start(&b, &late) < 0);
    CHECK_INT(late.err.kind, ERR_SANDBOX_TERMINATED);
    run_free(&late);
    wait_for(&again.done);
    CHECK(k.done && r.done);
    CHECK_INT(r.op.ret_end, EXEC_END_LOST);
    CHECK(!b.ended);
  }
  run_free(&r);
  /* a create in flight, at several moments */
  for (int ms = 0; ms < 6; ms++) {
    box_args(&b, "host");
    if (box_start(&b) < 0) return;
    if (ms > 0) wait_ms((uint64_t)ms - 1);
    k = (struct kill){.op = {.on_done = on_killed, .data = &k}};
    if (b.done)
      k.op.box = b.op.ret_box;
    else
      k.op.create = &b.op;
    bool was_done = b.done;
    CHECK_INT(engine->ops->kill(engine, &k.op, NULL), 0);
    wait_for(&k.done);
    CHECK(b.done);
    CHECK_INT(b.err.kind, was_done ? ERR_NONE : ERR_CANCELLED);
    create_args_free(&b.args);
  }
}

/* Processes whose title begins so. */
static int titled(const char *title, pid_t *ret_pid)
{
  int n = 0;
  DIR *d = opendir("/proc");
  for (struct dirent *e; d && (e = readdir(d));) {
    char path[300], line[256] = {0};
    snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
    int fd = atoi(e->d_name) > 0 ? open(path, O_RDONLY) : -1;
    if (fd < 0) continue;
    if (read(fd, line, sizeof line - 1) > 0 && strncmp(line, title, strlen(title)) == 0) {
      *ret_pid = atoi(e->d_name);
      n++;
    }
    close(fd);
  }
  if (d) closedir(d);
  return n;
}

static void agent_dies(void)
{
  struct box b;
  struct run r;
  char title[64];
  pid_t pid = 0;
  box_args(&b, "host");
  if (!box_up(&b)) return;
  snprintf(title, sizeof title, "regolith: agent %s", b.id);
  CHECK_INT(titled(title, &pid), 1);
  run_args(&r, (const char *const[]){"/bin/sh", "-c", "echo before; sleep 100", NULL});
  if (run_start(&b, &r) == 0) {
    wait_output(&r, 7);
    kill(pid, SIGKILL);
    wait_for(&b.ended);
    CHECK_INT(b.why, BOX_END_LOST);
    CHECK(r.done);
    CHECK_INT(r.op.ret_end, EXEC_END_LOST);
    CHECK_STR(text(&r.out), "before\n");
  }
  run_free(&r);
  struct run late;
  run_args(&late, (const char *const[]){"/bin/true", NULL});
  CHECK(run_start(&b, &late) < 0);
  run_free(&late);
  box_down(&b);
}

static void warden_dies(void)
{
  struct box b[3];
  struct run r;
  for (int i = 0; i < 3; i++) {
    box_args(&b[i], "host");
    if (!box_up(&b[i])) return;
  }
  run_args(&r, (const char *const[]){"/bin/sleep", "100", NULL});
  CHECK_INT(run_start(&b[0], &r), 0);
  pid_t warden = wardens[0];
  kill(warden, SIGKILL);
  for (int i = 0; i < 3; i++) {
    wait_for(&b[i].ended);
    CHECK_INT(b[i].why, BOX_END_LOST);
  }
  CHECK(r.done);
  CHECK_INT(r.op.ret_end, EXEC_END_LOST);
  run_free(&r);
  for (int i = 0; i < 3; i++) box_down(&b[i]);
  box_args(&b[0], "host");
  if (!box_up(&b[0])) return;
  CHECK_SH(&b[0], "echo again", "again\n");
  note_warden();
  box_down(&b[0]);
}

static void inside(void)
{
  struct box b;
  struct run r;
  box_args(&b, "host");
  setenv("REGOLITH_TEST_SECRET", "1", 1);
  if (!box_up(&b)) return;
  CHECK_SH(&b, "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 ");
  CHECK_SH(&b, "env | grep -e ^HOME= -e ^PATH= -e SECRET | sort",
           "HOME=/root\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
  CHECK_SH(&b, "hostname; cat /etc/hostname", "sandbox\nsandbox\n");
  CHECK_SH(&b, "ls -A /home /root /var/lib /run | grep -v : | tr -d '\\n'", "");
  CHECK_SH(&b,
           "grep -c SECRET /proc/1/environ 2>/dev/null; ls -l /proc/1/exe 2>&1 >/dev/null | "
           "grep -c -i denied",
           "1\n");
  CHECK_SH(&b, "awk '{print $4}' /proc/self/mountinfo | grep -e regolith -e ^/tmp; :", "");
  CHECK_SH(&b, "touch /usr/x 2>&1 | grep -c 'Read-only'; touch /dev/x 2>&1 | grep -c 'Read-only'",
           "1\n1\n");
  CHECK_SH(&b, "grep -e NoNewPrivs -e Seccomp: /proc/self/status", "NoNewPrivs:\t1\nSeccomp:\t2\n");
  CHECK_SH(&b,
           "unshare -U true 2>/dev/null && echo yes; mount -t tmpfs x /mnt 2>/dev/null && "
           "echo yes; cat /proc/sys/user/max_user_namespaces",
           "0\n");
  CHECK_SH(&b,
           "echo x >/dev/null; head -c 4 /dev/zero | wc -c; echo a >/tmp/a; cat /tmp/a; "
           "echo b >/dev/shm/b; cat /dev/shm/b; rm /tmp/a",
           "4\na\nb\n");
  CHECK_SH(&b,
           "cat /proc/keys /proc/timer_list /proc/kcore 2>/dev/null | wc -c; "
           "echo 1 2>/dev/null >/proc/sys/kernel/sysrq && echo yes; :",
           "0\n");
  CHECK_SH(&b, "cat /proc/self/oom_score_adj", "1000\n");
  if (has(CGROUP_CAP_LEAF_OOM)) /* a cgroup namespace per exec */
    CHECK_SH(&b, "cat /proc/self/cgroup", "0::/\n");
  else if (has(CGROUP_CAP_LEAVES) && has(CGROUP_CAP_INTO))
    CHECK_SH(&b, "grep -o '^0::/e' /proc/self/cgroup; grep -c -v -e ':/$' /proc/self/cgroup",
             "0::/e\n1\n");
  sh(&b, &r, "kill -9 1; kill -TERM 1; kill -STOP 1; sleep 0.05; echo alive");
  CHECK_STR(text(&r.out), "alive\n");
  run_free(&r);
  CHECK_SH(&b, "ip link show lo 2>/dev/null | grep -c LOOPBACK,UP || echo 1", "1\n");
  box_down(&b);
}

/* A root file system of what sh, cat and ls need, copied from this machine. */
static bool make_image(char *dir)
{
  char script[2000];
  if (!mkdtemp(dir)) return false;
  snprintf(
      script, sizeof script,
      "set -e; cd %s; chmod 755 .; mkdir -p bin etc data; echo below >data/a; echo x >data/b; "
      "for p in /bin/sh /bin/cat /bin/ls /bin/rm /bin/mkdir; do cp $p bin/; "
      "for l in $(ldd $p | grep -o '/[^ ]*'); do mkdir -p .${l%%/*}; cp -L $l .$l; done; done; "
      "echo root:x:0:0:::/bin/sh >etc/passwd",
      dir);
  return system(script) == 0;
}

static void directory_image(void)
{
  char dir[] = "/var/tmp/regolith-test-XXXXXX", image[64], script[200];
  struct box b;
  struct run r;
  CHECK(make_image(dir));
  snprintf(image, sizeof image, "dir:%s", dir);
  box_args(&b, image);
  if (box_up(&b)) {
    CHECK_SH(&b,
             "cat /data/a; echo above >/data/a; cat /data/a; rm /data/b; mkdir /new; "
             "rm -r /data; ls / | cat",
             "below\nabove\nbin\ndev\netc\nlib\nlib64\nnew\nproc\nsys\ntmp\n");
    CHECK_SH(&b, "ls -ldn /etc/passwd | { read a b u g rest; echo $u $g; }", "0 0\n");
    sh(&b, &r,
       "while read a b c d e f; do case $d in *regolith*) echo $d;; esac; "
       "done </proc/self/mountinfo");
    run_free(&r);
    box_down(&b);
  }
  snprintf(script, sizeof script, "cat %s/data/a | grep -q below && test -f %s/data/b", dir, dir);
  CHECK_INT(system(script), 0);
  snprintf(script, sizeof script, "rm -rf %s", dir);
  CHECK_INT(system(script), 0);
  box_args(&b, "dir:/no/such/image");
  if (box_start(&b) == 0) wait_for(&b.done);
  CHECK_INT(b.err.kind, ERR_IMAGE_NOT_FOUND);
  CHECK_STR(b.err.field, "image");
  create_args_free(&b.args);
}

/* An operation on files; path is the caller's. */
static void file_start(struct box *b, struct run *r, struct file_args *f)
{
  *r = (struct run){.op = {.box = b->op.ret_box,
                           .file = f,
                           .on_chunk = on_chunk,
                           .on_done = on_exec_done,
                           .data = r}};
  CHECK_INT(engine->ops->exec(engine, &r->op, &r->err), 0);
}

static void check_file(struct box *b, enum file_kind kind, char *path, int code, const char *out)
{
  struct file_args f = {.kind = kind, .path = path, .mode = FILE_MODE_KEEP, .max = 1 << 20};
  struct run r;
  file_start(b, &r, &f);
  wait_for(&r.done);
  CHECK_STR(r.err.msg, "");
  CHECK_INT(r.op.ret_end, EXEC_END_EXITED);
  CHECK_INT(r.op.ret_code, code);
  if (out) CHECK_STR(text(&r.out), out);
  run_free(&r);
}

static void files(void)
{
  struct box b;
  struct run r, other;
  struct kill k;
  char fifo[] = "/tmp/fifo", name[] = "/tmp/f", nobody[] = "nobody";
  box_args(&b, "host");
  if (!box_up(&b)) return;
  CHECK_SH(&b, "mkfifo /tmp/fifo; printf text >/tmp/f; chmod 600 /tmp/f", "");
  check_file(&b, FILE_READ, name, 0, "text");
  check_file(&b, FILE_READ, fifo, ENXIO, "");
  check_file(&b, FILE_LIST, name, ENOTDIR, "");
  check_file(&b, FILE_MKDIR, (char[]){"/tmp/a/b"}, 0, "");
  check_file(&b, FILE_REMOVE, (char[]){"/tmp/a"}, 0, "");
  check_file(&b, FILE_REMOVE, (char[]){"/tmp/a"}, ENOENT, "");
  /* Not root of the box: no capability is left to it. */
  struct file_args f = {.kind = FILE_READ, .path = name, .user = nobody, .max = 100};
  file_start(&b, &r, &f);
  wait_for(&r.done);
  CHECK_INT(r.op.ret_code, EACCES);
  run_free(&r);
  /* It waits for input, is a process like any, and is ended like one; the box does not mind. */
  f = (struct file_args){.kind = FILE_UNPACK, .path = name};
  file_start(&b, &r, &f);
  wait_ms(50);
  CHECK_SH(&b, "grep -l regolith-file /proc/[0-9]*/comm | wc -l", "1\n");
  CHECK_SH(&b,
           "for p in /proc/[0-9]*; do grep -q regolith-file $p/comm && ls $p/fd $p/root/etc 2>&1;"
           "done | grep -v 'cannot\\|^$'",
           "");
  kill_start(&k, b.op.ret_box, &r.op);
  wait_for(&k.done);
  CHECK(r.done);
  CHECK_INT(r.op.ret_end, EXEC_END_SIGNAL);
  run_free(&r);
  check_file(&b, FILE_READ, name, 0, "text");
  file_start(&b, &r, &f);
  run_args(&other, (const char *const[]){"/bin/sleep", "100", NULL});
  CHECK_INT(run_start(&b, &other), 0);
  box_down(&b);
  CHECK(r.done && other.done);
  CHECK_INT(r.op.ret_end, EXEC_END_LOST);
  run_free(&r);
  run_free(&other);
}

static void unsupported(void)
{
  struct box b;
  setenv("XDG_STATE_HOME", "/tmp/regolith-test-no-images", 1);
  setenv("REGOLITH_PULL", "never", 1);
  box_args(&b, "python:3.11");
  CHECK(box_start(&b) < 0);
  CHECK_INT(b.err.kind, ERR_IMAGE_NOT_FOUND);
  CHECK_STR(b.err.field, "image");
  create_args_free(&b.args);
  box_args(&b, "Not/A:Name:");
  CHECK(box_start(&b) < 0);
  CHECK_INT(b.err.kind, ERR_INVALID_ARGUMENT);
  CHECK_STR(b.err.field, "image");
  create_args_free(&b.args);
  CHECK_INT(system("rm -rf /tmp/regolith-test-no-images"), 0);
  box_args(&b, "host");
  strv_add(&b.args.gpu, "NVIDIA none such");
  if (box_start(&b) == 0) wait_for(&b.done);
  CHECK_INT(b.err.kind, ERR_CAPACITY);
  CHECK_STR(b.err.field, "gpu");
  create_args_free(&b.args);
  box_args(&b, "host");
  b.args.encrypted_ports = xcalloc(1, sizeof *b.args.encrypted_ports);
  b.args.encrypted_ports_n = 1;
  CHECK(box_start(&b) < 0);
  CHECK_INT(b.err.kind, ERR_UNSUPPORTED);
  CHECK_STR(b.err.field, "encrypted_ports");
  create_args_free(&b.args);
}

/* Closing ends boxes that nobody ended, and creates in flight. */
static void close_ends_all(void)
{
  struct box up, coming;
  struct run r;
  box_args(&up, "host");
  if (!box_up(&up)) return;
  run_args(&r, (const char *const[]){"/bin/sleep", "100", NULL});
  CHECK_INT(run_start(&up, &r), 0);
  box_args(&coming, "host");
  CHECK_INT(box_start(&coming), 0);
  end();
  CHECK(r.done);
  CHECK(coming.done);
  CHECK_INT(coming.err.kind, ERR_CANCELLED);
  create_args_free(&coming.args);
  run_free(&r);
  begin();
}

static void with_engine(void (*run)(void))
{
  int before = mounts();
  begin();
  run();
  end();
  check_nothing_left(before);
}

#define CASES(X)                                                                                   \
  X(create_exec_kill)                                                                              \
  X(outcomes)                                                                                      \
  X(arguments)                                                                                     \
  X(users)                                                                                         \
  X(standard_input)                                                                                \
  X(kill_takes_all)                                                                                \
  X(children_live_on)                                                                              \
  X(flood)                                                                                         \
  X(limits)                                                                                        \
  X(many_at_once)                                                                                  \
  X(kills_race)                                                                                    \
  X(agent_dies)                                                                                    \
  X(warden_dies)                                                                                   \
  X(inside)                                                                                        \
  X(directory_image)                                                                               \
  X(files)                                                                                         \
  X(unsupported)                                                                                   \
  X(close_ends_all)
#define X(name)                                                                                    \
  static void case_##name(void)                                                                    \
  {                                                                                                \
    with_engine(name);                                                                             \
  }
CASES(X)
#undef X

const struct test_case test_cases[] = {
#define X(name) {#name, case_##name},
    CASES(X)
#undef X
        {0}};

/* host/worker: scripts in processes of their own, seen from the host. */
#include "worker_bed.h"

#include <dirent.h>
#include <signal.h>

static struct bed_run run;

static void a_script_prints_and_ends(void)
{
  bed_run(&run, "print('hello', 1, 2.5)\nio.write('raw')");
  CHECK_INT(run.end, SCRIPT_OK);
  CHECK_STR(run.message, "");
  bed_check_output(&run, "hello\t1\t2.5\nraw");
}

static void an_error_points_into_the_script(void)
{
  bed_run(&run, "local function f()\n  error('boom')\nend\nf()");
  CHECK_INT(run.end, SCRIPT_ERROR);
  CHECK(strstr(run.message, "boom") != NULL);
  CHECK(strstr(run.traceback, ":2:") != NULL);
  buf_free(&run.output);
}

static void a_syntax_error_names_its_line(void)
{
  bed_run(&run, "local x = = 1");
  CHECK_INT(run.end, SCRIPT_ERROR);
  CHECK(strstr(run.message, ":1:") != NULL);
}

static void many_tasks_sleep(void)
{
  bed_run(&run,
          "local t = {}\n"
          "for i = 1, 1000 do t[i] = task.spawn(function() task.sleep(0.02) return i end) end\n"
          "local sum = 0\n"
          "for i = 1, 1000 do sum = sum + t[i]:wait() end\n"
          "print(sum)");
  CHECK_INT(run.end, SCRIPT_OK);
  bed_check_output(&run, "500500\n");
}

static struct timer timer;
static void (*timer_action)(void);

static void on_timer(struct timer *t)
{
  (void)t;
  timer_action();
}

static void after(uint64_t ms, void (*action)(void))
{
  timer_action = action;
  timer = (struct timer){.cb = on_timer};
  timer_start(bed_loop, &timer, ms);
}

static void time_out(void)
{
  struct err e = {0};
  err_set(&e, ERR_TIMEOUT, 0, "ran out of time");
  worker_cancel(run.worker, SCRIPT_TIMEOUT, &e, false);
}

/* What a loop that makes no calls does not feel there. */
static bool signals_wait(void)
{
#ifdef __SANITIZE_THREAD__
  fprintf(stderr, "skipped: ThreadSanitizer hands a signal over at the next call\n");
  return true;
#else
  return false;
#endif
}

static void a_busy_script_is_cancelled(void)
{
  if (signals_wait()) return;
  bed_start(&run, "busy",
            "on_exit(function(why) print(why.kind) end)\nwhile true do pcall(function() while true "
            "do end end) end",
            NULL);
  after(50, time_out);
  bed_finish(&run);
  CHECK_INT(run.end, SCRIPT_TIMEOUT);
  CHECK_STR(run.message, "ran out of time");
  bed_check_output(&run, "timeout\n");
}

/* Parent and short name of a process, from /proc; false where it is gone. */
static bool read_stat(pid_t pid, pid_t *ret_parent, char name[32])
{
  char path[64], stat[256];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *f = fopen(path, "r");
  bool fine = f && fgets(stat, sizeof stat, f) &&
              sscanf(stat, "%*d (%31[^)]) %*c %d", name, ret_parent) == 2;
  if (f) fclose(f);
  return fine;
}

/* The pid of the only worker: a child of our nursery, not of some other regolith's. */
static pid_t find_worker(void)
{
  DIR *d = opendir("/proc");
  pid_t found = 0, parent, grandparent;
  char name[32], of_parent[32];
  for (struct dirent *e; (e = readdir(d));) {
    pid_t pid = (pid_t)atoi(e->d_name);
    if (pid <= 0 || !read_stat(pid, &parent, name) || strcmp(name, "regolith-worker") != 0)
      continue;
    if (read_stat(parent, &grandparent, of_parent) && grandparent == getpid()) found = pid;
  }
  closedir(d);
  return found;
}

static void stop_then_time_out(void)
{
  kill(find_worker(), SIGSTOP);
  time_out();
}

static void a_stopped_worker_is_killed(void)
{
  bed_start(&run, "stopped", "task.sleep(60)", NULL);
  after(100, stop_then_time_out);
  bed_finish(&run);
  CHECK_INT(run.end, SCRIPT_TIMEOUT);
  buf_free(&run.output);
}

static void stop_only(void)
{
  kill(find_worker(), SIGSTOP);
}

static void silence_ends_a_worker(void)
{
  struct runner_limits limits = {.answer_ms = 300};
  bed_start(&run, "silent", "task.sleep(60)", &limits);
  after(100, stop_only);
  bed_finish(&run);
  CHECK_INT(run.end, SCRIPT_LIMIT);
  CHECK(strstr(run.message, "does not answer") != NULL);
  buf_free(&run.output);
  bed_start(&run, "busy", "local e = task.now() + 1 while task.now() < e do end", &limits);
  bed_finish(&run);
  CHECK_INT(run.end, SCRIPT_OK); /* control: to be busy is not to be silent */
}

static void kill_worker(void)
{
  kill(find_worker(), SIGKILL);
}

static void a_killed_worker_is_reported(void)
{
  bed_start(&run, "killed", "print('up') task.sleep(60)", NULL);
  after(100, kill_worker);
  bed_finish(&run);
  CHECK_INT(run.end, SCRIPT_LIMIT);
  CHECK(strstr(run.message, "SIGKILL") != NULL);
  bed_check_output(&run, "up\n");
}

static void memory_is_bounded(void)
{
  bed_run(&run, "local t = {}\nwhile true do t[#t + 1] = ('x'):rep(100000) .. #t end");
  CHECK_INT(run.end, SCRIPT_LIMIT);
  CHECK(strstr(run.message, "memory") != NULL);
  buf_free(&run.output);
}

static void processor_time_is_bounded(void)
{
  if (signals_wait()) return;
  struct runner_limits limits = {.cpu_s = 1};
  bed_start(&run, "spinner", "local n = 0\nwhile true do\nn = n + 1 end", &limits);
  bed_finish(&run);
  CHECK_INT(run.end, SCRIPT_LIMIT);
  CHECK(strstr(run.message, "last seen at") != NULL); /* … where in the script */
  CHECK(strstr(run.message, "processor time") != NULL);
  buf_free(&run.output);
}

static void stop_loop(void)
{
  loop_stop(bed_loop);
}

static void a_worker_sees_nothing(void)
{
  /* Asked from outside, while the script sleeps: the kernel's own account of the process, which it
   * gives of one that is not dumpable to root alone. */
  if (geteuid() != 0) {
    fprintf(stderr, "skipped: needs root\n");
    return;
  }
  bed_start(&run, "naked", "task.sleep(0.5)", NULL);
  after(150, stop_loop);
  loop_run(bed_loop);
  pid_t pid = find_worker();
  char path[64], line[256];
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  FILE *f = fopen(path, "r");
  CHECK(f != NULL);
  int seen = 0;
  while (f && fgets(line, sizeof line, f)) {
    if (strncmp(line, "Uid:", 4) == 0 && geteuid() == 0) {
      CHECK(atoi(line + 4) >= 2147352576);
      seen++;
    }
    if (strncmp(line, "CapEff:", 7) == 0) {
      CHECK_STR(line, "CapEff:\t0000000000000000\n");
      seen++;
    }
    if (strncmp(line, "CapBnd:", 7) == 0 && geteuid() == 0) {
      CHECK_STR(line, "CapBnd:\t0000000000000000\n");
      seen++;
    }
    if (strncmp(line, "NoNewPrivs:", 11) == 0) {
      CHECK_STR(line, "NoNewPrivs:\t1\n");
      seen++;
    }
    if (strncmp(line, "Seccomp:", 8) == 0) {
      CHECK_STR(line, "Seccomp:\t2\n");
      seen++;
    }
  }
  CHECK_INT(seen, geteuid() == 0 ? 5 : 3);
  if (f) fclose(f);
  snprintf(path, sizeof path, "/proc/%d/root", pid);
  DIR *root = opendir(path);
  CHECK(root != NULL);
  for (struct dirent *e; root && (e = readdir(root));) CHECK(e->d_name[0] == '.');
  if (root) closedir(root);
  snprintf(path, sizeof path, "/proc/%d/fd", pid);
  DIR *fds = opendir(path);
  int sockets = 0;
  for (struct dirent *e; fds && (e = readdir(fds));) {
    char link[400], target[128];
    snprintf(link, sizeof link, "%s/%s", path, e->d_name);
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n <= 0) continue;
    target[n] = '\0';
    sockets += strncmp(target, "socket:", 7) == 0;
    /* its socket, and what its event loop made for itself: nothing that leads anywhere */
    CHECK(strncmp(target, "socket:", 7) == 0 || strncmp(target, "anon_inode:", 11) == 0 ||
          strncmp(target, "pipe:", 5) == 0);
  }
  if (fds) closedir(fds);
  CHECK_INT(sockets, 1);
  bed_finish(&run);
  buf_free(&run.output);
}

static void a_flood_of_output_is_taken_in_turns(void)
{
  bed_run(&run, "local s = ('x'):rep(1000)\nfor i = 1, 20000 do print(s) end");
  CHECK_INT(run.end, SCRIPT_OK);
  CHECK(run.output.len >= 1 << 20);
  buf_free(&run.output);
}

static void hundreds_run_at_once(void)
{
  enum { N = 300 };
  static struct bed_run runs[N];
  for (int i = 0; i < N; i++) bed_start(&runs[i], "one", "task.sleep(0.05) print('x')", NULL);
  for (int i = 0; i < N; i++) {
    bed_finish(&runs[i]);
    CHECK_STR(runs[i].message, "");
    bed_check_output(&runs[i], "x\n");
  }
}

const struct test_case test_cases[] = {
    {"a_script_prints_and_ends", a_script_prints_and_ends},
    {"an_error_points_into_the_script", an_error_points_into_the_script},
    {"a_syntax_error_names_its_line", a_syntax_error_names_its_line},
    {"many_tasks_sleep", many_tasks_sleep},
    {"a_busy_script_is_cancelled", a_busy_script_is_cancelled},
    {"a_stopped_worker_is_killed", a_stopped_worker_is_killed},
    {"silence_ends_a_worker", silence_ends_a_worker},
    {"a_killed_worker_is_reported", a_killed_worker_is_reported},
    {"memory_is_bounded", memory_is_bounded},
    {"processor_time_is_bounded", processor_time_is_bounded},
    {"a_worker_sees_nothing", a_worker_sees_nothing},
    {"a_flood_of_output_is_taken_in_turns", a_flood_of_output_is_taken_in_turns},
    {"hundreds_run_at_once", hundreds_run_at_once},
    {"close", bed_close},
    {0}};

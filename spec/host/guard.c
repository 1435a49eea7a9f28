/* regolith-guard [-g GRACE_MS] [-t SECONDS] COMMAND...: runs a command and sees to it that nothing
 * of it stays behind.
 *
 * Owns every process that the command starts, however deep and however orphaned: as a child
 * subreaper it becomes the parent of what lost its own, so that "left over" is exactly "still below
 * me in the process tree". Nothing is looked for by name, and nothing that somebody else started is
 * ever touched. A zombie counts as ended.
 *
 * Ends with the command's exit status (128+n for signal n), with 124 when it ran out of time, and
 * with 99 when the command ended and processes of it were still there GRACE_MS later; those are
 * listed on stderr and killed. INT, TERM and HUP are passed on to the command.
 *
 *   running → (command ended) → grace → done | listed and killed */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_TIMEOUT = 124, STATUS_LEFT_OVER = 99, STATUS_USAGE = 2, MAX_PROCS = 65536 };

struct proc {
  pid_t pid, parent;
  char state; /* as in /proc/PID/stat */
  bool below; /* descends from this process */
};

static struct proc procs[MAX_PROCS];
static size_t procs_n;

static int64_t now_ms(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The name in /proc/PID/stat may hold anything; what counts follows the last ')'. */
static bool read_proc(pid_t pid, struct proc *ret)
{
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *f = fopen(path, "re");
  if (!f) return false;
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  text[n] = '\0';
  const char *p = strrchr(text, ')');
  int parent = 0;
  if (!p || sscanf(p + 1, " %c %d", &ret->state, &parent) != 2) return false;
  ret->pid = pid;
  ret->parent = parent;
  ret->below = false;
  return true;
}

/* Reads the process table and marks what is below this process. Returns how many live ones. */
static size_t scan(void)
{
  procs_n = 0;
  DIR *d = opendir("/proc");
  if (!d) return 0;
  for (struct dirent *e; (e = readdir(d)) && procs_n < MAX_PROCS;) {
    pid_t pid = atoi(e->d_name);
    if (pid > 0 && read_proc(pid, &procs[procs_n])) procs_n++;
  }
  closedir(d);
  size_t live = 0;
  for (bool more = true; more;) {
    more = false;
    for (size_t i = 0; i < procs_n; i++) {
      bool below = procs[i].parent == getpid();
      for (size_t k = 0; k < procs_n && !below && !procs[i].below; k++)
        below = procs[k].below && procs[k].pid == procs[i].parent;
      if (!below || procs[i].below) continue;
      procs[i].below = more = true;
      if (procs[i].state != 'Z' && procs[i].state != 'X') live++;
    }
  }
  return live;
}

static void print_proc(const struct proc *p)
{
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/%d/cmdline", (int)p->pid);
  FILE *f = fopen(path, "re");
  size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
  if (f) fclose(f);
  for (size_t i = 0; i < n; i++)
    if (text[i] == '\0') text[i] = ' ';
  text[n] = '\0';
  fprintf(stderr, "left over: process %d (parent %d, state %c): %s\n", (int)p->pid, (int)p->parent,
          p->state, text);
}

static void kill_all(void)
{
  for (int round = 0; round < 100 && scan() > 0; round++) {
    for (size_t i = 0; i < procs_n; i++)
      if (procs[i].below && procs[i].state != 'Z') kill(procs[i].pid, SIGKILL);
    usleep(20000);
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
  }
}

/* Reaps what has ended; true once the command itself is among it. */
static bool reap(pid_t command, int *ret_status)
{
  int status;
  bool ended = false;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != command || WIFSTOPPED(status)) continue;
    *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    ended = true;
  }
  return ended;
}

static pid_t start(char **argv, const sigset_t *old)
{
  pid_t pid = fork();
  if (pid != 0) return pid;
  sigprocmask(SIG_SETMASK, old, NULL);
  execvp(argv[0], argv);
  fprintf(stderr, "regolith-guard: cannot run %s: %s\n", argv[0], strerror(errno));
  _exit(127);
}

/* Until the command ends or its time is over. Returns its status. */
static int wait_command(pid_t command, const sigset_t *set, int64_t deadline_ms)
{
  int status = 0;
  while (!reap(command, &status)) {
    int64_t left = deadline_ms ? deadline_ms - now_ms() : 1000;
    if (left <= 0) {
      fprintf(stderr, "regolith-guard: out of time, ending it\n");
      kill_all();
      return STATUS_TIMEOUT;
    }
    if (left > 1000) left = 1000;
    struct timespec t = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
    int sig = sigtimedwait(set, NULL, &t);
    if (sig > 0 && sig != SIGCHLD) kill(command, sig);
  }
  return status;
}

static int wait_rest(int64_t grace_ms)
{
  for (int64_t end = now_ms() + grace_ms; scan() > 0; usleep(10000)) {
    int status;
    reap(-2, &status);
    if (now_ms() < end) continue;
    for (size_t i = 0; i < procs_n; i++)
      if (procs[i].below && procs[i].state != 'Z') print_proc(&procs[i]);
    kill_all();
    return STATUS_LEFT_OVER;
  }
  return 0;
}

int main(int argc, char **argv)
{
  int64_t grace_ms = 3000, seconds = 0;
  for (int opt; (opt = getopt(argc, argv, "+g:t:")) != -1;) {
    if (opt == 'g')
      grace_ms = atoll(optarg);
    else if (opt == 't')
      seconds = atoll(optarg);
    else
      return STATUS_USAGE;
  }
  if (optind >= argc) {
    fprintf(stderr, "usage: regolith-guard [-g GRACE_MS] [-t SECONDS] COMMAND...\n");
    return STATUS_USAGE;
  }
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGHUP);
  sigprocmask(SIG_BLOCK, &set, &old);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  pid_t command = start(argv + optind, &old);
  if (command < 0) {
    perror("regolith-guard: fork");
    return STATUS_USAGE;
  }
  int status = wait_command(command, &set, seconds ? now_ms() + seconds * 1000 : 0);
  int rest = wait_rest(grace_ms);
  return status ? status : rest;
}

/* Turns at the processors: a worker that mostly waits runs whenever it likes, those that compute
 * and compute take turns with one another.
 *
 * What a worker burns is counted, and each ms that it waited pays for a quarter of one that it
 * burned. Whoever owes 5 ms is hungry. While there are more of them than processors, all but as
 * many are stopped (SIGSTOP), and the others' turns end after 10 ms of processor time. The next is
 * who owes least, so that a short piece of work is not queued behind long ones; from 100 ms on they
 * are alike, and the first come is the first served. So a thousand endless loops weigh on the rest
 * as two of them would. Time in the queue for a processor, or stopped, is no waiting: a crowd that
 * holds one another up gets nothing for it.
 *
 * Beyond 100 ms one that did not wait at all also goes to SCHED_IDLE until it does, where that can
 * be taken back again: an ordinary user may not.
 *
 * Nobody knows what a new one will be. So that a thousand of them do not crowd out those who are at
 * work, only some are new at a time: until one has waited, or is hungry, or 100 ms have passed.
 *
 * Looking costs a system call a worker, and a read of /proc for those who used something; it takes
 * at most a twentieth of the time. Without /proc/PID/schedstat everybody runs.
 *
 * patient → running ⇄ stopped, and back to patient from running */
#include "host/turns.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

enum {
  TURN_US = 10 * 1000,
  HUNGRY_US = 5 * 1000,
  WAIT_PAYS = 4,
  GREEDY_US = 100 * 1000,
  FAST_MS = 10,  /* between two looks while somebody is stopped */
  SLOW_MS = 100, /* else */
  FRESH_MS = 100,
  FRESH_A_SEAT = 8,
  SCAN_SHARE = 20
};

/* ---- what the kernel knows ---- */

static uint64_t cpu_us_of(pid_t pid)
{
  clockid_t clock;
  struct timespec ts;
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ts) < 0) return 0;
  return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static uint64_t now_us(void)
{
  return clock_mono_ns() / 1000;
}

static uint64_t own_cpu_us(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/* How long it has been ready to run, and was not: behind others, or stopped by us. */
static bool queued_us_of(const struct turns *ts, const struct taker *t, uint64_t *ret_us)
{
  char path[32], text[128];
  snprintf(path, sizeof path, "%d/schedstat", t->pid);
  cleanup_close int fd = openat(ts->proc_dir, path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (n <= 0) return false;
  text[n] = '\0';
  const char *delay = strchr(text, ' ');
  *ret_us = (delay ? strtoull(delay, NULL, 10) / 1000 : 0) + t->stopped_us;
  return true;
}

/* Demoting oneself is always allowed; coming back is what needs privilege. */
static bool may_demote(void)
{
  struct sched_param none = {0};
  pid_t pid = fork();
  if (pid == 0)
    _exit(sched_setscheduler(0, SCHED_IDLE, &none) == 0 &&
                  sched_setscheduler(0, SCHED_OTHER, &none) == 0
              ? 0
              : 1);
  int status = 1;
  return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

static unsigned processors(void)
{
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return (unsigned)CPU_COUNT(&set);
  long n = sysconf(_SC_NPROCESSORS_ONLN); /* more than a set of the usual size holds */
  return n > 0 ? (unsigned)n : 1;
}

/* ---- places ---- */

static void move(struct turns *ts, struct taker *t, struct list *to)
{
  if (t->in == &ts->running) ts->running_n--;
  list_remove(&t->node);
  list_append(to, &t->node);
  t->in = to;
  if (to == &ts->running) ts->running_n++;
}

static void set_idle(const struct turns *ts, struct taker *t, bool idle)
{
  struct sched_param none = {0};
  if (idle == t->idle || !ts->can_demote) return;
  if (sched_setscheduler(t->pid, idle ? SCHED_IDLE : SCHED_OTHER, &none) == 0) t->idle = idle;
}

/* Brings its account up to date. */
static void count(const struct turns *ts, struct taker *t)
{
  uint64_t cpu = cpu_us_of(t->pid), queued;
  if (!queued_us_of(ts, t, &queued)) return;
  uint64_t busy = cpu + queued, alive = now_us() - t->born_us;
  uint64_t waited = alive > busy ? alive - busy : 0;
  t->pause_us = waited > t->waited_us ? waited - t->waited_us : 0;
  uint64_t owed = t->owed_us + (cpu - t->cpu_us), paid = t->pause_us / WAIT_PAYS;
  t->owed_us = owed <= paid ? 0 : owed - paid < GREEDY_US ? owed - paid : GREEDY_US;
  t->cpu_us = cpu;
  t->waited_us += t->pause_us;
}

static bool is_hungry(const struct taker *t)
{
  return t->owed_us >= HUNGRY_US;
}

static void begin_turn(struct turns *ts, struct taker *t)
{
  t->stopped_us += now_us() - t->stop_us;
  t->turn_us = cpu_us_of(t->pid);
  kill(t->pid, SIGCONT);
  move(ts, t, &ts->running);
}

static void end_turn(struct turns *ts, struct taker *t)
{
  t->stop_us = now_us();
  kill(t->pid, SIGSTOP);
  move(ts, t, &ts->stopped);
}

/* ---- looking ---- */

static void no_longer_fresh(struct turns *ts, struct taker *t)
{
  if (t->fresh_until_us) ts->fresh_n--;
  t->fresh_until_us = 0;
}

static void look_at(struct turns *ts, struct taker *t, uint64_t now)
{
  if (!t->fresh_until_us && cpu_us_of(t->pid) - t->cpu_us < HUNGRY_US) return;
  count(ts, t);
  if (is_hungry(t) || t->pause_us > 0 || now > t->fresh_until_us) no_longer_fresh(ts, t);
  if (!is_hungry(t)) return;
  t->turn_us = t->cpu_us;
  move(ts, t, &ts->running);
}

static void look_at_patient(struct turns *ts)
{
  uint64_t now = now_us(), began = own_cpu_us();
  if (now < ts->scan_us) return;
  LIST_FOREACH_SAFE (node, &ts->patient) look_at(ts, list_entry(node, struct taker, node), now);
  ts->scan_us = now + (own_cpu_us() - began) * SCAN_SHARE;
}

static void look_at_running(struct turns *ts)
{
  LIST_FOREACH_SAFE (node, &ts->running) {
    struct taker *t = list_entry(node, struct taker, node);
    count(ts, t);
    set_idle(ts, t, t->owed_us >= GREEDY_US && t->pause_us == 0);
    bool over = !list_empty(&ts->stopped) && t->cpu_us - t->turn_us >= TURN_US;
    if (!is_hungry(t))
      move(ts, t, &ts->patient);
    else if (over || ts->running_n > ts->seats)
      end_turn(ts, t);
  }
}

static struct taker *next_of(struct turns *ts)
{
  struct taker *least = NULL;
  LIST_FOREACH (node, &ts->stopped) {
    struct taker *t = list_entry(node, struct taker, node);
    if (!least || t->owed_us < least->owed_us) least = t;
  }
  return least;
}

bool turns_have_room(const struct turns *ts)
{
  return ts->fresh_n < FRESH_A_SEAT * ts->seats;
}

int turns_tick(struct turns *ts)
{
  look_at_patient(ts);
  look_at_running(ts);
  for (struct taker *t; ts->running_n < ts->seats && (t = next_of(ts));) begin_turn(ts, t);
  if (!list_empty(&ts->stopped) || !turns_have_room(ts)) return FAST_MS;
  return list_empty(&ts->patient) && list_empty(&ts->running) ? -1 : SLOW_MS;
}

/* ---- who there is ---- */

void turns_init(struct turns *ts)
{
  *ts = (struct turns){.seats = processors()};
  list_init(&ts->patient);
  list_init(&ts->running);
  list_init(&ts->stopped);
  ts->proc_dir = open("/proc", O_DIRECTORY | O_PATH | O_CLOEXEC);
  ts->can_demote = may_demote();
}

void turns_add(struct turns *ts, struct taker *t, pid_t pid)
{
  *t = (struct taker){.pid = pid, .in = &ts->patient, .born_us = now_us()};
  t->fresh_until_us = t->born_us + FRESH_MS * 1000;
  ts->fresh_n++;
  list_append(&ts->patient, &t->node);
}

void turns_remove(struct turns *ts, struct taker *t)
{
  no_longer_fresh(ts, t);
  if (t->in == &ts->running) ts->running_n--;
  list_remove(&t->node);
}

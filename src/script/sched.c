/* Turns: which script runs, which of its tasks, and for how long.
 *
 * One scheduler per loop. Each turn of the loop runs the scripts that have ready tasks, one slice
 * each, until 10 ms are used; then I/O has its turn. A slice ends when no task is ready or when the
 * script used 10 ms of CPU.
 *
 * Preemption: a timer on the thread's CPU clock sends a signal every few milliseconds of work
 * (none while the loop sleeps). Its handler looks at the script whose slice is under way and, when
 * the slice is over, arms a count hook on the coroutine now running, and only there; whoever makes
 * another coroutine the running one arms it again while struct script.attention asks for it, so
 * that a script of many short coroutines does not slip through. The hook yields to here. Where it
 * cannot yield (walls, see coro.c) it lets the code go on, up to 50 ms, and then ends the script.
 *
 * The handler touches: slice_of, and of that script attention, running, and the hook fields of that
 * coroutine through lua_sethook, which Lua allows in a signal handler. */
#include "script/task_internal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

#define SLICE_NS    10000000u
#define STRETCH_NS  50000000u
#define TICK_NS     4000000
#define TURN_MS     10
#define TICK_SIGNAL SIGVTALRM

struct sched {
  struct sched *next; /* of this thread */
  struct loop *loop;
  struct list runnable; /* struct script.run_node, in turn */
  struct defer turn;
  timer_t ticker;
  unsigned scripts;
};

static __thread struct sched *scheds;
static __thread struct script *volatile slice_of; /* for the handler */

static uint64_t thread_cpu_ns(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static unsigned attention_of(const struct script *s)
{
  return __atomic_load_n(&s->attention, __ATOMIC_RELAXED);
}

static void forget(struct script *s, unsigned why)
{
  __atomic_fetch_and(&s->attention, ~why, __ATOMIC_RELAXED);
}

/* --- The hook --- */

static int raise_stretch(lua_State *L, struct script *s)
{
  struct err err = {0};
  err_set(&err, ERR_LIMIT, 0, "50 ms of computing where the script cannot be paused");
  err_hint(&err, "callbacks of Lua's C functions, metamethods such as __tostring, and message "
                 "handlers have to be short");
  script_fail(s, SCRIPT_LIMIT, &err);
  /* What closes on the way out does not get 50 ms again. */
  return task_raise_cancel(L);
}

enum {
  WHERE_MS = 100,
  WHERE_LEVELS = 20
}; /* how often a place is told, how deep it is looked for */

static void on_hook(lua_State *L, lua_Debug *ar);

/* Lua marks each frame of the coroutine, which takes milliseconds for very deep ones: the handler
 * must not do it again and again while C code keeps the hook from running. */
static void arm(lua_State *L, struct script *s, int count)
{
  lua_sethook(L, on_hook, LUA_MASKCOUNT, count);
  s->armed = L;
}

/* The slice is over inside of a call that cannot yield. The code that made the call can, and may be
 * back in another such call before the next tick: look again soon, and not always at the same place
 * of its loop. */
static void look_again(lua_State *L, struct script *s)
{
  s->jitter = s->jitter * 1103515245u + 12345u;
  arm(L, s, 20 + (int)(s->jitter >> 16 & 63));
}

/* Raises what has to be raised; true when the code has to give up the processor, and can. */
static bool must_leave(lua_State *L, struct script *s)
{
  unsigned attention = attention_of(s);
  if (attention & ATTENTION_MEMORY) {
    forget(s, ATTENTION_MEMORY);
    script_over_memory(s);
  }
  bool can_yield = coro_can_yield(L);
  if (s->stage == STAGE_STOPPED && can_yield) return true;
  if (task_must_raise(s->current)) task_raise_cancel(L);
  if (can_yield) return attention & ATTENTION_SLICE;
  if (attention & ATTENTION_STRETCH || s->stage == STAGE_STOPPED) {
    arm(L, s, 1000);
    if (s->stage == STAGE_STOPPED) task_raise_cancel(L);
    raise_stretch(L, s);
  }
  if (attention & ATTENTION_SLICE) look_again(L, s);
  return false;
}

static void leave(struct script *s)
{
  s->preempts++;
  s->host_yield = true;
}

/* So that whoever has to end a script that computes can say where that was. */
static void tell_where(lua_State *L, struct script *s)
{
  uint64_t now = clock_mono_ms();
  if (!s->hooks.on_where || now - s->told_where_ms < WHERE_MS) return;
  s->told_where_ms = now;
  lua_Debug at;
  for (int level = 0; level < WHERE_LEVELS && lua_getstack(L, level, &at); level++) {
    lua_getinfo(L, "Sl", &at);
    if (at.currentline <= 0 || strncmp(at.source, "=[regolith", 10) == 0) continue;
    char where[LUA_IDSIZE + 16];
    snprintf(where, sizeof where, "%s:%d", at.short_src, at.currentline);
    s->hooks.on_where(s->hooks_data, where);
    return;
  }
}

static void on_hook(lua_State *L, lua_Debug *ar)
{
  (void)ar;
  struct script *s = script_of(L);
  lua_sethook(L, NULL, 0, 0);
  s->armed = NULL;
  if (attention_of(s) & ATTENTION_SLICE) tell_where(L, s);
  if (!attention_of(s) || !s->current || !must_leave(L, s)) return;
  leave(s);
  lua_yield(L, 0);
}

void script_pause(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
  struct script *s = script_of(L);
  if (!attention_of(s) || !s->current || !must_leave(L, s) || !k) return;
  leave(s);
  lua_yieldk(L, 0, ctx, k);
}

bool script_must_pause(lua_State *L)
{
  return attention_of(script_of(L)) != 0;
}

void sched_set_running(struct script *s, lua_State *L)
{
  s->running = L;
  s->armed = NULL;
  if (L && attention_of(s)) arm(L, s, 1);
}

void sched_attend(struct script *s, unsigned why)
{
  __atomic_fetch_or(&s->attention, why, __ATOMIC_RELAXED);
  lua_State *L = s->running;
  if (L && s->armed != L) arm(L, s, 1);
}

/* --- The tick --- */

static void on_tick(int sig)
{
  (void)sig;
  struct script *s = slice_of;
  if (!s) return;
  int saved = errno;
  uint64_t used = thread_cpu_ns() - s->slice_start_ns;
  errno = saved;
  if (used < SLICE_NS) return;
  /* What our own specs may compute inside of C functions has no such limit. */
  bool stretch = used >= SLICE_NS + STRETCH_NS && !s->full_stdlib;
  sched_attend(s, stretch ? ATTENTION_SLICE | ATTENTION_STRETCH : ATTENTION_SLICE);
}

static int start_ticker(struct sched *sched, struct err *err)
{
  struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
  sigaction(TICK_SIGNAL, &action, NULL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, TICK_SIGNAL);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TICK_SIGNAL};
  ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
  struct itimerspec every = {{0, TICK_NS}, {0, TICK_NS}};
  if (timer_create(CLOCK_THREAD_CPUTIME_ID, &ev, &sched->ticker) < 0)
    return err_set(err, ERR_INTERNAL, errno, "cannot create the timer of the time slices");
  timer_settime(sched->ticker, 0, &every, NULL);
  return 0;
}

/* --- Slices --- */

/* The task runs until it blocks, ends, or is made to leave. */
static void resume(struct script *s, struct task *t)
{
  sched_unready(t);
  t->state = TASK_RUNNING;
  s->current = t;
  if (task_must_raise(t))
    __atomic_fetch_or(&s->attention, ATTENTION_CANCEL, __ATOMIC_RELAXED);
  else
    forget(s, ATTENTION_CANCEL);
  lua_State *co = t->co;
  int nargs = lua_status(co) == LUA_OK ? lua_gettop(co) - 1 : 0, n;
  sched_set_running(s, co);
  int status = lua_resume(co, NULL, nargs, &n);
  sched_set_running(s, NULL);
  s->host_yield = false;
  s->current = NULL;
  if (s->stage == STAGE_STOPPED)
    script_stop_task(t);
  else if (status == LUA_OK)
    task_end(t, t->outcome);
  else if (status != LUA_YIELD)
    task_died(t, status);
  else if (t->state == TASK_RUNNING)
    sched_ready(t);
}

static void run_slice(struct script *s)
{
  forget(s, ATTENTION_SLICE | ATTENTION_STRETCH);
  s->slice_start_ns = thread_cpu_ns();
  slice_of = s;
  while (s->stage != STAGE_STOPPED && !list_empty(&s->ready) &&
         !(attention_of(s) & ATTENTION_SLICE))
    resume(s, list_entry(s->ready.next, struct task, ready));
  slice_of = NULL;
  s->cpu_ns += thread_cpu_ns() - s->slice_start_ns;
  script_check_idle(s);
}

static void on_turn(struct defer *turn)
{
  struct sched *sched = turn->data;
  uint64_t start = clock_mono_ms();
  while (!list_empty(&sched->runnable) && clock_mono_ms() - start < TURN_MS) {
    struct script *s = list_entry(sched->runnable.next, struct script, run_node);
    list_remove(&s->run_node);
    s->runnable = false;
    run_slice(s);
    if (!list_empty(&s->ready)) sched_run_soon(s);
  }
  if (!list_empty(&sched->runnable)) loop_defer(sched->loop, &sched->turn);
}

void sched_run_soon(struct script *s)
{
  if (s->runnable || s->held) return;
  s->runnable = true;
  list_append(&s->sched->runnable, &s->run_node);
  loop_defer(s->loop, &s->sched->turn);
}

/* A script that is being ended is not held: what it still prints is bounded by the grace period. */
void script_hold(struct script *s, bool hold)
{
  s->held = hold && !s->cancelled && s->stage < STAGE_STOPPED;
  if (!s->held) {
    if (!list_empty(&s->ready)) sched_run_soon(s);
    return;
  }
  if (s->runnable) list_remove(&s->run_node);
  s->runnable = false;
  if (s == slice_of) sched_attend(s, ATTENTION_SLICE);
}

void sched_ready(struct task *t)
{
  t->state = TASK_READY;
  if (t->script->stage == STAGE_STOPPED) return;
  list_append(&t->script->ready, &t->ready);
  sched_run_soon(t->script);
}

void sched_unready(struct task *t)
{
  list_remove(&t->ready);
}

/* --- Which scripts there are --- */

int sched_attach(struct script *s, struct err *err)
{
  struct sched *sched = scheds;
  while (sched && sched->loop != s->loop) sched = sched->next;
  if (!sched) {
    sched = xcalloc(1, sizeof *sched);
    int rc = start_ticker(sched, err);
    if (rc < 0) {
      free(sched);
      return rc;
    }
    sched->loop = s->loop;
    sched->turn = (struct defer){.cb = on_turn, .data = sched};
    list_init(&sched->runnable);
    sched->next = scheds;
    scheds = sched;
  }
  sched->scripts++;
  s->sched = sched;
  return 0;
}

/* The turn under way may be this scheduler's: the script then has to be gone from its lists only.
 */
void sched_detach(struct script *s)
{
  struct sched *sched = s->sched;
  if (!sched) return;
  list_remove(&s->run_node);
  s->sched = NULL;
  if (--sched->scripts > 0) return;
  struct sched **at = &scheds;
  while (*at != sched) at = &(*at)->next;
  *at = sched->next;
  timer_delete(sched->ticker);
  loop_defer_cancel(sched->loop, &sched->turn);
  free(sched);
}

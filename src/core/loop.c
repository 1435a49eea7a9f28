/* The loop: libuv's, plus timers and deferred calls without asynchronous close.
 *
 * Owns one uv_loop_t, one uv_timer_t for all timers (a binary heap by due time), and one idle and
 * one check handle for deferred calls. Invariants: the uv timer is armed for the heap's top; the
 * idle handle, which keeps the loop from blocking, is active while deferred calls wait. A callback
 * may start, stop and free any timer and any deferred call, its own included. Timers keep the loop
 * alive while they run. */
#include "core/loop.h"

#include <stdlib.h>
#include <uv.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"

enum { LATE_NS = 1000 * 1000 };

struct loop {
  uv_loop_t uv;
  uv_timer_t clock;    /* fires at the top of the heap */
  uv_idle_t spin;      /* active while deferred calls wait: poll must not block */
  uv_check_t turn;     /* runs deferred calls */
  struct timer **heap; /* min-heap by due_ms; entries owned by their users */
  size_t heap_n, heap_cap;
  struct list deferred; /* struct defer.node */
  struct list late;     /* the same, after those */
};

static void heap_put(struct loop *l, size_t at, struct timer *t)
{
  l->heap[at] = t;
  t->slot = at + 1;
}

static void heap_up(struct loop *l, size_t at, struct timer *t)
{
  while (at > 0) {
    size_t parent = (at - 1) / 2;
    if (l->heap[parent]->due_ms <= t->due_ms) break;
    heap_put(l, at, l->heap[parent]);
    at = parent;
  }
  heap_put(l, at, t);
}

static void heap_down(struct loop *l, size_t at, struct timer *t)
{
  for (;;) {
    size_t child = at * 2 + 1;
    if (child >= l->heap_n) break;
    if (child + 1 < l->heap_n && l->heap[child + 1]->due_ms < l->heap[child]->due_ms) child++;
    if (t->due_ms <= l->heap[child]->due_ms) break;
    heap_put(l, at, l->heap[child]);
    at = child;
  }
  heap_put(l, at, t);
}

static void on_clock(uv_timer_t *clock);

static void arm(struct loop *l)
{
  if (l->heap_n == 0) {
    uv_timer_stop(&l->clock);
    return;
  }
  uint64_t now = clock_mono_ms();
  uint64_t due = l->heap[0]->due_ms;
  uv_update_time(&l->uv);
  uv_timer_start(&l->clock, on_clock, due > now ? due - now : 0, 0);
}

static void heap_remove(struct loop *l, struct timer *t)
{
  size_t at = t->slot - 1;
  struct timer *last = l->heap[--l->heap_n];
  t->slot = 0;
  if (last == t) return;
  if (at > 0 && l->heap[(at - 1) / 2]->due_ms > last->due_ms)
    heap_up(l, at, last);
  else
    heap_down(l, at, last);
}

static void on_clock(uv_timer_t *clock)
{
  struct loop *l = clock->data;
  uint64_t now = clock_mono_ms();
  while (l->heap_n > 0 && l->heap[0]->due_ms <= now) {
    struct timer *t = l->heap[0];
    heap_remove(l, t);
    t->cb(t);
  }
  arm(l);
}

void timer_start(struct loop *l, struct timer *t, uint64_t delay_ms)
{
  if (t->slot) heap_remove(l, t);
  t->due_ms = (clock_mono_ns() + 999999u) / 1000000u + delay_ms; /* rounded up: never early */
  if (l->heap_n == l->heap_cap) {
    l->heap_cap = l->heap_cap ? l->heap_cap * 2 : 64;
    l->heap = xrealloc(l->heap, l->heap_cap * sizeof(struct timer *));
  }
  heap_up(l, l->heap_n++, t);
  if (l->heap[0] == t) arm(l);
}

void timer_stop(struct loop *l, struct timer *t)
{
  if (!t->slot) return;
  heap_remove(l, t);
  if (l->heap_n == 0) arm(l);
}

bool timer_running(const struct timer *t)
{
  return t->slot != 0;
}

uint64_t timer_left_ms(const struct loop *l, const struct timer *t)
{
  (void)l;
  uint64_t now = clock_mono_ms();
  return t->slot && t->due_ms > now ? t->due_ms - now : 0;
}

uint64_t loop_now_ms(const struct loop *l)
{
  (void)l;
  return clock_mono_ms();
}

static void on_idle(uv_idle_t *idle)
{
  (void)idle;
}

static void run_first(struct list *list)
{
  struct defer *d = list_entry(list->next, struct defer, node);
  list_remove(&d->node);
  d->queued = false;
  d->cb(d);
}

static void run_late(struct loop *l)
{
  if (list_empty(&l->late)) return;
  uint64_t until = clock_mono_ns() + LATE_NS;
  const struct list *last = l->late.prev;
  for (bool more = true; more && !list_empty(&l->late) && clock_mono_ns() < until;) {
    more = l->late.next != last;
    run_first(&l->late);
  }
}

/* Runs the calls that were waiting when the turn began; those they defer wait for the next turn. */
static void on_turn(uv_check_t *turn)
{
  struct loop *l = turn->data;
  struct list batch;
  list_init(&batch);
  while (!list_empty(&l->deferred)) {
    struct list *node = l->deferred.next;
    list_remove(node);
    list_append(&batch, node);
  }
  while (!list_empty(&batch)) run_first(&batch);
  run_late(l);
  if (list_empty(&l->deferred) && list_empty(&l->late)) {
    uv_idle_stop(&l->spin);
    uv_check_stop(&l->turn);
  }
}

static void defer_to(struct loop *l, struct list *list, struct defer *d)
{
  if (d->queued) return;
  d->queued = true;
  list_append(list, &d->node);
  uv_idle_start(&l->spin, on_idle);
  uv_check_start(&l->turn, on_turn);
}

void loop_defer(struct loop *l, struct defer *d)
{
  defer_to(l, &l->deferred, d);
}

void loop_defer_late(struct loop *l, struct defer *d)
{
  defer_to(l, &l->late, d);
}

void loop_defer_cancel(struct loop *l, struct defer *d)
{
  (void)l;
  if (!d->queued) return;
  d->queued = false;
  list_remove(&d->node);
}

int loop_new(struct loop **ret, struct err *err)
{
  struct loop *l = xcalloc(1, sizeof *l);
  int rc = uv_loop_init(&l->uv);
  if (rc < 0) {
    free(l);
    return err_set(err, ERR_INTERNAL, -rc, "cannot start the event loop: %s", uv_strerror(rc));
  }
  uv_timer_init(&l->uv, &l->clock);
  uv_idle_init(&l->uv, &l->spin);
  uv_check_init(&l->uv, &l->turn);
  l->clock.data = l->turn.data = l;
  list_init(&l->deferred);
  list_init(&l->late);
  *ret = l;
  return 0;
}

void loop_free(struct loop *l)
{
  if (!l) return;
  uv_close((uv_handle_t *)&l->clock, NULL);
  uv_close((uv_handle_t *)&l->spin, NULL);
  uv_close((uv_handle_t *)&l->turn, NULL);
  uv_run(&l->uv, UV_RUN_DEFAULT);
  int rc = uv_loop_close(&l->uv);
  if (rc < 0) {
    /* A handle that outlives its loop is a bug of ours; show which before dying. */
    uv_print_all_handles(&l->uv, stderr);
    abort();
  }
  free(l->heap);
  free(l);
}

struct uv_loop_s *loop_uv(struct loop *l)
{
  return &l->uv;
}

void loop_run(struct loop *l)
{
  uv_run(&l->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *l)
{
  uv_stop(&l->uv);
}

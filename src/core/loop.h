#ifndef REGOLITH_CORE_LOOP_H
#define REGOLITH_CORE_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

struct err;
struct loop;
struct uv_loop_s;

/* The one event loop of a process: libuv's, with timers and deferred calls that live inside their
 * owner's memory and need no asynchronous close. One thread. */
int loop_new(struct loop **ret_loop, struct err *err);

/* All handles of others must be closed before; runs what is left of closing ones. */
void loop_free(struct loop *loop);
struct uv_loop_s *loop_uv(struct loop *loop);

/* Runs until loop_stop, or until nothing is left that could happen. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* Monotonic milliseconds, read anew at each call. */
uint64_t loop_now_ms(const struct loop *loop);

/* A timer. Zero-initialise, set cb and data; may be freed as soon as it is stopped. */
struct timer {
  void (*cb)(struct timer *timer);
  void *data;
  uint64_t due_ms; /* private: CLOCK_MONOTONIC */
  size_t slot;     /* private: place in the heap + 1, 0 = not running */
};

/* (Re)starts: cb runs once, from the loop, not before `delay_ms` have passed. */
void timer_start(struct loop *loop, struct timer *timer, uint64_t delay_ms);
void timer_stop(struct loop *loop, struct timer *timer); /* idempotent */
bool timer_running(const struct timer *timer);
uint64_t timer_left_ms(const struct loop *loop, const struct timer *timer); /* 0 when not running */

/* A call put off to the next turn of the loop. Zero-initialise, set cb and data. Running it twice
 * before its turn is running it once. */
struct defer {
  struct list node; /* private */
  bool queued;      /* private */
  void (*cb)(struct defer *defer);
  void *data;
};

void loop_defer(struct loop *loop, struct defer *defer);
void loop_defer_cancel(struct loop *loop, struct defer *defer);
/* The same, after all the rest; of very many only a millisecond's worth in a turn. For work of
 * those who ask for much, which the others need not wait for. */
void loop_defer_late(struct loop *loop, struct defer *defer);

#endif

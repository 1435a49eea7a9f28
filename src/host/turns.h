#ifndef REGOLITH_HOST_TURNS_H
#define REGOLITH_HOST_TURNS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"

/* Who among the workers computes when more of them want to than the machine has processors. */
struct turns {
  struct list patient; /* struct taker.node: mostly wait, and run whenever they like */
  struct list running; /* want to compute, and may */
  struct list stopped; /* want to compute, and wait for a turn; in order of their stops */
  unsigned running_n, fresh_n;
  unsigned seats;   /* how many may, while others wait for it */
  bool can_demote;  /* has the privilege to bring a worker back from SCHED_IDLE */
  int proc_dir;     /* of the host's /proc; -1 = none: everybody runs */
  uint64_t scan_us; /* monotonic: when the patient ones are looked at again */
};

struct taker {
  struct list node; /* in one list of struct turns */
  struct list *in;  /* which */
  pid_t pid;
  uint64_t born_us;        /* monotonic */
  uint64_t cpu_us;         /* processor time, when it was last looked at */
  uint64_t waited_us;      /* the time that it did not want to run, likewise */
  uint64_t pause_us;       /* what was new of that then */
  uint64_t owed_us;        /* burned and not paid for by waiting; at most GREEDY_US */
  uint64_t turn_us;        /* processor time when its turn began */
  uint64_t stop_us;        /* monotonic: when it was stopped, while it is */
  uint64_t stopped_us;     /* how long it was before, in all */
  uint64_t fresh_until_us; /* monotonic: till then it counts as new; 0 = it is known */
  bool idle;               /* runs under SCHED_IDLE */
};

void turns_init(struct turns *turns); /* while /proc is still in sight */
void turns_add(struct turns *turns, struct taker *taker, pid_t pid);
void turns_remove(struct turns *turns, struct taker *taker);

/* May one more be started? Asked again after the next tick. */
bool turns_have_room(const struct turns *turns);

/* Looks at who burned what, and says in how many ms to do that again; -1: there is nobody. */
int turns_tick(struct turns *turns);

#endif

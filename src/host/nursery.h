#ifndef REGOLITH_HOST_NURSERY_H
#define REGOLITH_HOST_NURSERY_H

#include <stdint.h>
#include <sys/types.h>

struct err;
struct loop;
struct nursery;

/* The helper process that worker processes are forked from: small, with Lua mapped, empty of
 * everything a script could want. Its children run one script each (host/worker_main.c). */

/* Forks the helper. Call it first thing, before anything is read or opened that a script must not
 * see. */
int nursery_prefork(struct err *err);

/* Watches the helper that nursery_prefork started. */
int nursery_open(struct nursery **ret_nursery, struct loop *loop, struct err *err);
void nursery_close(struct nursery *nursery, void (*closed)(void *data),
                   void *data); /* ends all workers */

/* What a worker may use before the kernel stops it. */
struct nursery_limits {
  uint64_t mem_bytes; /* address space on top of what every worker starts with */
  uint32_t cpu_s;     /* processor time; 0 = none */
};

/* The exit code of a worker or of the helper where its walls cannot be put up. */
enum { NURSERY_NO_WALLS = 200 };

/* How a worker process ended. */
struct nursery_exit {
  int signal, code; /* one of them; both 0: a clean exit */
  uint64_t cpu_us;
  uint64_t max_rss_kib;
};

/* Forks a worker that talks over fd (taken over, also on failure). on_exit comes once, from the
 * loop, unless this fails; token is the caller's name for the worker in nursery_kill. */
struct nursery_child {
  struct nursery *nursery;
  uint64_t token;                                /* set by nursery_spawn */
  void (*on_start)(struct nursery_child *child); /* it is there: many at once wait for that */
  void (*on_exit)(struct nursery_child *child, const struct nursery_exit *how);
  void *data;
};
int nursery_spawn(struct nursery *nursery, struct nursery_child *child, int fd, const char *name,
                  const struct nursery_limits *limits, struct err *err);
size_t nursery_population(const struct nursery *nursery);
void nursery_kill(struct nursery_child *child); /* SIGKILL; harmless when it is gone */

#endif

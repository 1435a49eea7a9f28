#ifndef REGOLITH_CORE_WORK_H
#define REGOLITH_CORE_WORK_H

#include "base/err.h"

struct loop;

/* One job on a thread of its own, for what would block the loop for long: decompression, hashing,
 * trees of files. The job shares nothing with the loop but what its owner hands over. */
struct work {
  void (*run)(struct work *work);     /* on the thread */
  void (*on_done)(struct work *work); /* from the loop, once, after run returned */
  void *data;
  struct work_thread *thread; /* private */
};

/* Zero-initialise, set run, on_done and data; keep it in place until on_done. */
int work_start(struct loop *loop, struct work *work, struct err *err);

#endif

#ifndef REGOLITH_HOST_WORKER_H
#define REGOLITH_HOST_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "script/script.h"

struct nursery;
struct runner_limits;
struct worker;

/* One script in a process of its own, with the face of script/script.h: the same conf, the same
 * hooks, the same promises. The script's ops go to conf->ops as if it ran here. */
int worker_new(struct worker **ret_worker, struct nursery *nursery, const struct script_conf *conf,
               const struct runner_limits *limits, struct err *err);
void worker_start(struct worker *worker);
void worker_cancel(struct worker *worker, enum script_end why, const struct err *err, bool force);
void worker_free(struct worker *worker); /* before start, or once on_done came */

/* As script_hold: reading what the worker says stops, and with it, soon, the worker. */
void worker_hold(struct worker *worker, bool hold);
/* Once it has ended: its own count of memory and tasks, and the kernel's of processor time. */
void worker_stats(const struct worker *worker, struct script_stats *ret_stats);

#endif

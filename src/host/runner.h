#ifndef REGOLITH_HOST_RUNNER_H
#define REGOLITH_HOST_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "script/script.h"

struct nursery;
struct runner;

/* A script that runs, wherever it does: in this process (script/script.h) or in a worker process
 * (host/worker.h). Same conf, same hooks, same promises; the rest of the host does not ask which.
 */
struct runner_limits {
  uint32_t cpu_s;         /* processor time; 0 = none. Workers only */
  uint32_t max_in_flight; /* ops at once; 0 = the default. Workers only */
  uint32_t answer_ms;     /* a worker silent for so long is ended; 0 = 30 s */
};

/* nursery NULL: in this process. */
int runner_new(struct runner **ret_runner, struct nursery *nursery, const struct script_conf *conf,
               const struct runner_limits *limits, struct err *err);
void runner_start(struct runner *runner);
void runner_cancel(struct runner *runner, enum script_end why, const struct err *err, bool force);
void runner_hold(struct runner *runner, bool hold);
void runner_stats(const struct runner *runner, struct script_stats *ret_stats);
void runner_free(struct runner *runner); /* NULL allowed; else as script_free */

#endif

/* Where a script runs: one question, asked here and nowhere else. Exactly one of the two pointers
 * is set. */
#include "host/runner.h"

#include <stdlib.h>

#include "base/buf.h"
#include "host/worker.h"

struct runner {
  struct script *script; /* owned; in this process */
  struct worker *worker; /* owned; in a process of its own */
};

int runner_new(struct runner **ret, struct nursery *nursery, const struct script_conf *conf,
               const struct runner_limits *limits, struct err *err)
{
  struct runner *r = xcalloc(1, sizeof *r);
  int rc = nursery ? worker_new(&r->worker, nursery, conf, limits, err)
                   : script_new(&r->script, conf, err);
  if (rc < 0) {
    free(r);
    return rc;
  }
  *ret = r;
  return 0;
}

void runner_start(struct runner *r)
{
  if (r->worker)
    worker_start(r->worker);
  else
    script_start(r->script);
}

void runner_cancel(struct runner *r, enum script_end why, const struct err *err, bool force)
{
  if (r->worker)
    worker_cancel(r->worker, why, err, force);
  else
    script_cancel(r->script, why, err, force);
}

void runner_hold(struct runner *r, bool hold)
{
  if (r->worker)
    worker_hold(r->worker, hold);
  else
    script_hold(r->script, hold);
}

void runner_stats(const struct runner *r, struct script_stats *ret)
{
  if (r->worker)
    worker_stats(r->worker, ret);
  else
    script_stats(r->script, ret);
}

void runner_free(struct runner *r)
{
  if (!r) return;
  worker_free(r->worker);
  script_free(r->script);
  free(r);
}

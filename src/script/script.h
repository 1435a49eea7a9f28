#ifndef REGOLITH_SCRIPT_SCRIPT_H
#define REGOLITH_SCRIPT_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

struct loop;
struct ops;
struct script; /* one workflow program: one lua_State, its tasks, its limits */
struct strv;

enum script_end { SCRIPT_OK, SCRIPT_ERROR, SCRIPT_TIMEOUT, SCRIPT_CANCELLED, SCRIPT_LIMIT };

/* "ok" "error" "timeout" "cancelled" "limit": what on_exit hooks see as why.kind. */
const char *script_end_name(enum script_end end);

struct script_result {
  enum script_end end;
  struct err err;        /* what ended it; zero for SCRIPT_OK */
  const char *traceback; /* lines that point into the script, or NULL; valid during the call */
};

/* Called from the loop or from inside a slice of the script; none may call back into the script,
 * but script_cancel is always allowed. */
struct script_hooks {
  void (*on_output)(void *data, const char *text, size_t len); /* print and io.write, raw bytes */
  void (*on_log)(void *data, enum log_level level, const char *text, size_t len);
  /* Now and then while it computes: "file:line" of the script. May be NULL. */
  void (*on_where)(void *data, const char *where);
  void (*on_progress)(void *data, double done, double total,
                      const char *text); /* total < 0: unknown */
  /* A task began (outcome NULL) or ended ("ok", "error", "cancelled"). parent 0: the main task. */
  void (*on_task)(void *data, uint64_t task, uint64_t parent, const char *name,
                  const char *outcome);
  /* Once, last: Lua is closed, no op of the script is in flight. The script may be freed inside. */
  void (*on_done)(void *data, const struct script_result *result);
};

struct script_conf {
  const char *name;   /* for people: "fanout.lua" */
  const char *path;   /* of the file, for the chunk name; NULL = none */
  const char *source; /* text, copied */
  size_t source_len;
  const struct strv *args; /* arg[1]… and …; NULL = none */
  const struct strv *env;  /* granted environment, KEY=VALUE; NULL = none */
  size_t mem_bytes;        /* soft cap; 0 = 64 MiB */
  uint64_t grace_ms;       /* for cleanup after a cancel; 0 = 10 s */
  bool full_stdlib;        /* the whole standard library: our own specs only */
  bool embedded;           /* the text is the program's own: it may require regolith.core */
  struct loop *loop;
  struct ops *ops;
  uint64_t owner; /* set on every op */
  const struct script_hooks *hooks;
  void *hooks_data;
};

/* Loads the text. Fails with INVALID_ARGUMENT (syntax error: file:line: message) before anything
 * ran. The conf's strings are copied; hooks, loop and ops must outlive the script. */
int script_new(struct script **ret_script, const struct script_conf *conf, struct err *err);
void script_start(struct script *script); /* runs from the next turn of the loop on */

/* Ends the script as `why`: its tasks are cancelled, cleanup gets the grace period, then nothing of
 * it runs any more. A second call with force skips what cleanup is left. err says what to report.
 */
void script_cancel(struct script *script, enum script_end why, const struct err *err, bool force);
/* While held no slice of the script starts: what it prints cannot be taken now. Its timers and ops
 * run on. script_cancel ends a hold. */
void script_hold(struct script *script, bool hold);
void script_free(struct script *script); /* only before start or once on_done came */

struct script_stats {
  size_t mem_bytes, mem_peak_bytes;
  size_t tasks;      /* alive */
  uint64_t cpu_ns;   /* spent in its slices */
  uint64_t preempts; /* slices that were cut */
};
void script_stats(const struct script *script, struct script_stats *ret_stats);

#endif

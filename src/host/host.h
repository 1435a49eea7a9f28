#ifndef REGOLITH_HOST_HOST_H
#define REGOLITH_HOST_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

struct engine;
struct grants;
struct host;
struct loop;
struct ops;
struct owner_conf;
struct plugin_conf;
struct strv;
struct supervisor;
struct val;

/* Runs scripts on one loop, each with an owner of its own at the supervisor, and sees to it that
 * nothing is left when they end. The caller brings the engines and the hooks. */

struct host_result {
  const char *outcome; /* "ok" "error" "timeout" "cancelled" "limit" */
  bool ok;
  bool timed_out;        /* its own time-out; not one that it let happen to a task */
  struct err err;        /* zero when ok */
  const char *traceback; /* or NULL; as long as the result */
  uint64_t duration_ms;  /* start of the script until the last of its sandboxes was gone */
  uint64_t cpu_ms;       /* of the script itself, not of its sandboxes */
  uint64_t mem_peak_bytes;
  int64_t cost_microusd; /* of its sandboxes */
};

/* script: the index host_add_script gave, or HOST_NO_SCRIPT. None may call host_add_script. */
#define HOST_NO_SCRIPT SIZE_MAX
struct host_hooks {
  void (*on_start)(void *data, size_t script);
  void (*on_output)(void *data, size_t script, const char *text, size_t len);
  void (*on_log)(void *data, size_t script, enum log_level level, const char *text, size_t len);
  void (*on_progress)(void *data, size_t script, double done, double total, const char *text);
  void (*on_task)(void *data, size_t script, uint64_t task, uint64_t parent, const char *name,
                  const char *outcome);
  void (*on_sandbox)(void *data, size_t script, const struct val *fields); /* supervisor events */
  void (*on_end)(void *data, size_t script, const struct host_result *result);
};

struct host_conf {
  const char *default_engine, *default_image; /* NULL: the supervisor's defaults */
  uint32_t max_sandboxes;                     /* live at once, all scripts together; 0 = no cap */
  bool trust;                                 /* scripts run in this process, not in workers */
  uint32_t jobs; /* scripts that run at once, the others wait; 0 = all */
  /* SIGINT, SIGTERM or SIGHUP came for the times-th time. The host cancels the scripts at the
   * first, without their own cleanup from the second on; all else is up to the caller. */
  void (*on_interrupt)(void *data, int signal, int times);
  /* SIGINT came: true = it was for something else, and nothing is cancelled. NULL: never. */
  bool (*take_interrupt)(void *data);
  /* The supervisor has shut down: nothing is left; err: an engine did not confirm that in time. The
   * loop runs on until host_stop, for what the caller still has to write. */
  void (*on_idle)(void *data, const struct err *err);
  void *data;
};

int host_new(struct host **ret, const struct host_conf *conf, struct err *err);
struct loop *host_loop(struct host *host);
struct ops *host_ops(struct host *host);
/* Before the first script is added, up to four sets, called in this order; they must outlive the
 * host. Any function in a set may be NULL. */
void host_add_hooks(struct host *host, const struct host_hooks *hooks, void *data);
void host_add_engine(struct host *host, struct engine *engine); /* takes it over */
/* Whether what is done there costs what wire/tier.h says. */
void host_set_priced(struct host *host, const char *engine, bool priced);
/* Plugins (host/plugins.h), asked and told in this order; before host_load_plugins. */
int host_add_plugin(struct host *host, const struct plugin_conf *conf, struct err *err);
/* Runs the loop until each is ready, or one has failed; before host_run. */
int host_load_plugins(struct host *host, struct err *err);
/* For ops of the caller's own. All that an owner still has ends at host_shutdown. */
uint64_t host_owner_new(struct host *host, const struct owner_conf *conf);

struct host_script_conf {
  const char *name, *path; /* path NULL = none (standard input) */
  const char *source;
  size_t source_len;
  const struct strv *args;     /* as in script_conf; NULL = none */
  const struct grants *grants; /* NULL: sandboxes as it likes, and nothing of the host */
  size_t mem_bytes;            /* 0 = the script's default */
  uint64_t timeout_ms;         /* 0 = none */
  uint64_t grace_ms;           /* 0 = the script's default */
  uint32_t cpu_s;              /* of a worker; 0 = none */
  bool embedded;               /* the program's own text; with trust */
  bool full_stdlib;            /* the whole standard library: our own specs only; with trust */
};

/* Nothing of it runs yet. Scripts are numbered from 0 in order. With trust the text is loaded here,
 * and fails here; else it is a stranger's, and is loaded where it runs. What conf points to must
 * stay until host_free. */
int host_add_script(struct host *host, const struct host_script_conf *conf, struct err *err);
size_t host_script_count(const struct host *host);
/* How a script ended; valid once on_end was called for it, until host_free. */
const struct host_result *host_script_result(const struct host *host, size_t script);

/* What it uses now; of a worker as it last told. Zero before it began. */
struct script_stats;
void host_script_stats(const struct host *host, size_t script, struct script_stats *ret_stats);

/* Starts every script (none after host_shutdown) and runs the loop until host_stop. */
void host_run(struct host *host);
void host_stop(struct host *host);

/* Ends every script that still runs: with its own cleanup, or (force) without. */
void host_cancel(struct host *host, const struct err *why, bool force);

/* Whoever takes the output cannot keep up: no slice starts of any script, or of those that write
 * something from now on. */
enum host_hold { HOST_HOLD_NONE, HOST_HOLD_WRITERS, HOST_HOLD_ALL };
void host_hold(struct host *host, enum host_hold hold);

/* Shuts the supervisor down; on_idle follows. Happens by itself when the last script has ended. */
void host_shutdown(struct host *host);

/* Ends what is left (scripts never started, sandboxes), then frees. Not from inside host_run. */
void host_free(struct host *host);

#endif

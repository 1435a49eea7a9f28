#ifndef REGOLITH_SANDBOX_SUPERVISOR_H
#define REGOLITH_SANDBOX_SUPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/val.h"

struct create_args;
struct engine;
struct loop;
struct ops;
struct supervisor;

/* Owns every sandbox of the process: life-cycle, deadlines, ownership, cleanup. Registers the ops
 * sandbox.create exec status terminate list get extend wait_ready detach diff snapshot commit fork
 * forget price engines gpus, and budget.set. */
struct supervisor_conf {
  struct loop *loop;
  struct ops *ops;
  const char *default_engine, *default_image, *default_network; /* NULL: "local", "host", "none" */
  uint32_t max_sandboxes; /* live at once in this process; 0 = no cap */
  uint64_t retain_ms;     /* how long ended ids still answer; 0 = 24 h */
  /* Bytes of output kept of all running execs, a quarter of it of one owner; beyond that each
   * keeps what it has, and its output is truncated. 0 = no bound. */
  size_t output_max;
  /* For a journal: what is to be known of a sandbox after this process, told when it has started
   * (before its create is answered), was extended, has ended, and costs something afterwards. A map
   * of sandbox_id, engine, created_s, ended_s (0: alive), end, exit_code, commands, microusd and
   * args; valid during the call. forget: its id does not answer any more. Both NULL: none. */
  void (*record)(void *data, uint64_t owner, const struct val *record);
  void (*forget)(void *data, uint64_t owner, const char *sandbox_id);
  void *journal_data;
};

struct supervisor *supervisor_new(const struct supervisor_conf *conf);

/* Takes the engine over; it is closed at shutdown. */
void supervisor_add_engine(struct supervisor *sup, struct engine *engine);

/* Whether sandboxes of this engine cost what wire/tier.h says; engines are free until told so. */
void supervisor_set_priced(struct supervisor *sup, const char *engine, bool priced);

/* Whoever owns sandboxes: a script, an API key, the host itself. Ids are never reused. */
struct owner_conf {
  const char *name;       /* shown in events */
  uint32_t max_sandboxes; /* live at once; 0 = no cap */
  bool allow_dir_images;  /* any image = "dir:PATH", not only the default one; without admit */
  bool may_adopt;         /* by its id, a sandbox of an engine that it was not made by here */
  uint32_t max_life_s;    /* of a sandbox, extends included; 0 = what any may have */
  bool cost_capped;       /* max_microusd counts */
  int64_t max_microusd;   /* all that it may spend */
  /* Whether the owner may create this; it may lower what `asked` leaves open. Called once per
   * create, before anything starts. NULL: it may. */
  int (*admit)(void *data, const struct val *asked, struct create_args *args, struct err *err);
  /* Whether the owner may give an image of a sandbox this name. NULL: it may. */
  int (*admit_name)(void *data, const char *name, struct err *err);
  void *admit_data; /* of both; must outlive the owner */
};
uint64_t supervisor_owner_new(struct supervisor *sup, const struct owner_conf *conf);

/* Ends all that the owner owns (creates in flight included), then calls done once, from the loop.
 */
void supervisor_owner_end(struct supervisor *sup, uint64_t owner, void (*done)(void *data),
                          void *data);

/* What the owner's sandboxes have cost so far, those that are gone included. */
int64_t supervisor_owner_spent(struct supervisor *sup, uint64_t owner);

/* Life-cycle events, in order, to any number of subscribers. fields: { event = "sandbox_created" |
 * "exec_started" | "exec_done" | "sandbox_ended", sandbox_id, owner, engine, and what the event has
 * (exec, command, reason, exit_code, duration_ms, cost, state …) }; valid during the call. */
typedef void supervisor_event_fn(void *data, uint64_t owner, const struct val *fields);
void supervisor_subscribe(struct supervisor *sup, supervisor_event_fn *fn, void *data);
void supervisor_unsubscribe(struct supervisor *sup, supervisor_event_fn *fn, void *data);

/* What extending the owner's sandbox by so many seconds costs on top of what was paid for its life;
 * 0 where that is not possible. */
int64_t supervisor_price_extend(struct supervisor *sup, uint64_t owner, const char *sandbox_id,
                                uint32_t seconds);

/* What a process before this one recorded: the id answers as that of an ended sandbox, and counts
 * towards retention from when it ended. One that was alive ended with that process, without its
 * doing, and is recorded so. Oldest end first; after the engines were added. */
int supervisor_restore(struct supervisor *sup, uint64_t owner, const struct val *record,
                       struct err *err);

struct supervisor_stats {
  size_t live, execs;
  size_t captured; /* bytes of output of running execs */
  uint64_t created, ended;
};
void supervisor_stats(const struct supervisor *sup, struct supervisor_stats *ret_stats);

/* Refuses new work, ends every sandbox, closes the engines, then calls done; after deadline_ms it
 * gives up on engines that do not answer and says so in err (NULL: all ended). */
void supervisor_shutdown(struct supervisor *sup, uint64_t deadline_ms,
                         void (*done)(void *data, const struct err *err), void *data);
void supervisor_free(struct supervisor *sup); /* after shutdown's done */

#endif

#ifndef REGOLITH_SANDBOX_SUPERVISOR_INTERNAL_H
#define REGOLITH_SANDBOX_SUPERVISOR_INTERNAL_H

/* What the files of this folder share: the records and how they call each other.
 *
 *   handlers.c  ops in, answers out          supervisor.c  owners, engines, events, shutdown
 *   sandbox.c   life-cycle of one sandbox    exec.c        one command
 *   ready.c     is it ready?                 changes.c     diff, snapshot, commit, fork
 *   file.c      operations on files, which are execs of a kind
 *   process.c   commands that nobody waits for at once: sandbox.spawn and what follows it
 *
 * A record in memory of which an engine may still hold a pointer is never freed from inside that
 * engine's callback: it goes to the dying list and is freed on the next turn of the loop. */

#include "base/buf.h"
#include "base/id.h"
#include "base/index.h"
#include "base/list.h"
#include "core/loop.h"
#include "core/stream.h"
#include "engine/engine.h"
#include "sandbox/budget.h"
#include "sandbox/state.h"
#include "sandbox/supervisor.h"
#include "wire/file.h"
#include "wire/op.h"

struct op;

#define SANDBOX_KILL_TRIES   5
#define SANDBOX_KILL_WAIT_MS 100 /* doubled with each try */
#define SANDBOX_RETAIN_MAX   10000
#define SANDBOX_DAY_S        86400u
#define SANDBOX_EXECS_MAX    4096        /* at once in one sandbox */
#define SANDBOX_CHANGES_MAX  (32u << 20) /* bytes of paths in the answer to a diff */
#define SANDBOX_IMAGES_KEPT  16          /* without a name, at once, of one owner */
#define SANDBOX_REFUSED_KEPT 32   /* refused connections that a script has not been told of */
#define SANDBOX_ENTRY_KEPT   8192 /* bytes of what an entrypoint prints, each stream */
#define SANDBOX_OUTPUT_LEAST 4096 /* of each half of a stream that are kept in any case, bytes */
#define SANDBOX_OUTPUT_SHARE 4    /* one owner has this part of output_max */

/* Why a sandbox ended; the first to ask decides. Journals have the numbers: they only grow. */
enum sandbox_end {
  END_NONE,
  END_FAILED,    /* the create failed */
  END_CANCELLED, /* the create was cancelled */
  END_TERMINATED,
  END_LIFE, /* life-time over */
  END_IDLE,
  END_OWNER,    /* its owner ended */
  END_SHUTDOWN, /* this process ends */
  END_OOM,
  END_LOST,
  END_FINISHED, /* its entrypoint ended */
  END_CRASHED,  /* with the process that had it, which was killed */
  END_LEFT,     /* it lives on without us */
  END_KINDS
};

struct dying {
  struct list node; /* supervisor.dying */
  void (*free)(struct dying *d);
};

struct engine_entry {
  struct engine *engine; /* owned until closed; NULL afterwards */
  char name[32];
  unsigned caps; /* enum engine_caps */
  bool priced;
  bool closing, closed;
  struct supervisor *sup;
};

struct owner {
  struct index_node by_id;
  uint64_t id;
  char *name; /* owned */
  uint32_t max_sandboxes;
  bool allow_dir_images, may_adopt;
  uint32_t max_life_s; /* 0 = none */
  int (*admit)(void *data, const struct val *asked, struct create_args *args, struct err *err);
  int (*admit_name)(void *data, const char *name, struct err *err);
  void *admit_data;
  struct list made; /* struct made.node, owned: images of its sandboxes */
  size_t kept_n;    /* those without a name, and those being made */
  struct budgets budgets;
  struct list live;  /* sandbox.by_owner, not ended */
  struct list ended; /* sandbox.by_owner, retained */
  size_t live_n;
  size_t captured;        /* bytes of output of running commands */
  int64_t spent_microusd; /* what its sandboxes have cost so far */
  bool ending;
  void (*on_ended)(void *data); /* once, when ending and nothing is live */
  void *on_ended_data;
  struct defer ended_defer;
  struct supervisor *sup;
};

/* Whether the port of args.ready_tcp accepts connections. */
struct readiness {
  bool ready;   /* stays so */
  bool probing; /* the engine has the probe */
  struct probe_op probe;
  struct timer again;  /* the next probe */
  unsigned wait_ms;    /* before it */
  struct list waiters; /* struct ready_wait.node */
};

/* What the engine has said of a sandbox that lives elsewhere. */
struct looking {
  bool asking; /* the engine has the question */
  struct look_op op;
  struct list waiters; /* struct look_wait.node */
  int64_t expires_s;   /* wall clock; 0 = as it is known here */
  uint64_t others;     /* commands that were not ours */
};

struct sandbox {
  struct supervisor *sup;
  struct index_node by_id;
  char id[ENGINE_ID_SIZE];
  struct owner *owner;
  struct engine_entry *engine;
  struct create_args args; /* owned */
  enum sandbox_state state;
  enum sandbox_end end;
  struct err end_err;      /* why the create failed, or what went wrong while ending */
  struct op *op;           /* the create op until it is answered */
  struct list waiters;     /* waiter.node: ops that wait for the end */
  struct create_op create; /* with the engine until on_done */
  struct kill_op cancel;   /* of the create */
  struct kill_op kill;     /* of the box */
  unsigned kill_tries;
  struct timer life; /* life-time while started, later the wait between two kills */
  struct timer idle;
  struct list execs;     /* exec.node */
  struct list processes; /* process.node, spawned here, ended or not */
  size_t execs_n;
  struct exec *entry;     /* the entrypoint while it runs, one of execs */
  struct outcome entered; /* how it ended and what it printed; owned */
  struct readiness readiness;
  struct looking looking;
  bool announced;         /* its creation was answered and told */
  bool detached;          /* outlives its owner and this process */
  bool adopted;           /* was there before; its life-time is not ours to end */
  uint64_t commands;      /* accepted so far */
  int64_t created_s;      /* wall clock: accepted, then started */
  int64_t ended_s;        /* wall clock */
  uint64_t started_ms;    /* monotonic, 0 = never */
  uint64_t ended_ms;      /* monotonic */
  int64_t life_microusd;  /* paid for its life so far */
  int64_t cost_microusd;  /* … and for its calls: all of it */
  struct holding holding; /* what the owner's budgets hold for it */
  int exit_code;          /* of the entrypoint, END_FINISHED */
  struct val refused;     /* owned: connections that were not allowed, not told to a script yet */
  uint64_t refusals;      /* all of them */
  struct list by_owner;   /* owner.live or owner.ended */
  struct list by_age;     /* supervisor.retained */
  struct dying dying;
};

/* An op that waits for the end of a sandbox. */
struct waiter {
  struct list node; /* sandbox.waiters */
  struct op *op;
  bool caused_it; /* its call is why the sandbox ends */
};

/* What an exec is for: who takes its output, and what its end means. */
struct exec;
struct exec_job {
  void (*chunk)(struct exec *x, enum exec_stream which, const void *data, size_t len);
  void (*answer)(struct exec *x); /* it has ended: x->failed, x->done_err, x->run.ret_… */
  void (*input_full)(struct exec *x, bool full);          /* NULL: its op is told */
  void (*abandon)(struct exec *x, const struct err *err); /* NULL: its op fails with that */
};

struct exec {
  struct sandbox *sb;
  const struct exec_job *job;
  struct list node;        /* sandbox.execs */
  struct op *op;           /* NULL: nobody waits for it (the entrypoint) */
  struct exec_args args;   /* owned; of a command */
  struct file_args file;   /* owned; of an operation on files */
  struct file_args asked;  /* the same as the engine gets it: not owned */
  struct process *process; /* of a spawned command */
  struct buf rows;         /* owned; of the same: what it answers so far */
  struct exec_op run;      /* with the engine until on_done */
  struct kill_op kill;
  struct stream out, err;
  size_t captured;         /* bytes of both that its owner and the supervisor count */
  struct timer deadline;   /* the time-out, later the wait before another kill */
  enum outcome_reason why; /* why we end it; REASON_EXITED: we do not */
  bool overflown;          /* an operation on files that answers more than it may */
  bool input_ended;        /* … whose input is complete */
  bool killing;            /* the engine has not answered the kill */
  bool done;               /* the engine has reported the end */
  bool failed;             /* … as an error: */
  struct err done_err;
  uint64_t number; /* from 1, within the sandbox */
  uint64_t started_ms;
  struct dying dying;
};

/* A spawned command, from its start until nobody can ask for it any more. */
struct process {
  struct list node;   /* sandbox.processes */
  struct list by_age; /* supervisor.processes, oldest first */
  struct sandbox *sb;
  uint64_t number;     /* as exec.number */
  struct exec *x;      /* while it runs */
  int64_t pid;         /* 0 = not known */
  struct op *spawn_op; /* until it has started */
  struct list asks;    /* struct ask.node: ops that wait for something of it */
  struct reader {
    uint64_t at;   /* bytes that were read */
    bool attached; /* somebody reads: its lag slows the command */
  } readers[2];    /* of stdout and stderr */
  bool paused;     /* by a reader's lag */
  bool ignored;    /* … which was for too long while somebody waits for the end */
  bool input_full, input_ended;
  bool asked; /* its outcome was told */
  struct timer gone;
  struct outcome outcome;   /* once ended, without the output */
  struct stream streams[2]; /* owned; what is kept of the output, once ended */
  size_t max_output;
  struct dying dying;
};

struct subscriber {
  supervisor_event_fn *fn; /* NULL: gone */
  void *data;
};

struct supervisor {
  struct loop *loop;
  struct ops *ops;
  struct create_defaults defaults; /* owned strings */
  uint32_t max_sandboxes;
  uint64_t retain_ms;
  void (*record)(void *data, uint64_t owner, const struct val *record);
  void (*forget)(void *data, uint64_t owner, const char *sandbox_id);
  void *journal_data;
  struct engine_entry *engines[16]; /* owned */
  size_t engines_n;
  struct index owners, sandboxes;
  uint64_t next_owner;
  struct list retained; /* sandbox.by_age, oldest first */
  size_t retained_n;
  size_t live_n, execs_n;
  size_t captured, output_max; /* bytes of output of running commands; 0 = no bound */
  uint64_t created, ended;
  struct list dying;
  struct list processes; /* process.by_age */
  struct defer reap;
  struct subscriber subscribers[16];
  size_t subscribers_n;
  bool closing, gave_up;
  void (*on_closed)(void *data, const struct err *err);
  void *on_closed_data;
  struct err close_err;
  struct timer close_deadline;
  struct defer closed_defer;
  struct supervisor *next_given_up;
};

/* supervisor.c */
struct owner *owner_find(struct supervisor *sup, uint64_t id);
void owner_check_ended(struct owner *o);
struct engine_entry *engine_entry_find(struct supervisor *sup, const char *name, const char *field,
                                       struct err *err);
void supervisor_check_closed(struct supervisor *sup);
void supervisor_bury(struct supervisor *sup, struct dying *d);
bool supervisor_listened(const struct supervisor *sup);
void supervisor_emit(struct supervisor *sup, uint64_t owner, struct val *fields); /* frees fields */
void handlers_register(struct supervisor *sup);

/* sandbox.c */
int sandbox_create(struct supervisor *sup, struct owner *o, struct op *op, struct create_args *args,
                   struct holding *holding, struct err *err); /* moves args and holding */
/* Uses one that the engine has already; the owner's end leaves it. */
int sandbox_adopt(struct supervisor *sup, struct owner *o, struct op *op, struct create_args *args,
                  const char *id, struct err *err); /* moves args */
struct sandbox *sandbox_find(struct supervisor *sup, uint64_t owner, const char *id,
                             struct err *err);
void sandbox_end(struct sandbox *sb, enum sandbox_end why);
void sandbox_event(struct sandbox *sb, enum sandbox_event ev);
void sandbox_charge(struct sandbox *sb, int64_t microusd);
void sandbox_touch(struct sandbox *sb); /* the idle clock follows what runs */
int64_t sandbox_extend_price(const struct sandbox *sb, uint32_t total_s);
int sandbox_extend(struct sandbox *sb, uint32_t seconds, struct err *err);
int sandbox_ended_err(const struct sandbox *sb, struct err *err);
enum outcome_reason sandbox_outcome(const struct sandbox *sb);
struct val sandbox_view(const struct sandbox *sb);
/* What a create with these arguments takes from the budgets of its owner. */
void sandbox_amounts(const struct engine_entry *e, const struct create_args *a,
                     int64_t ret_amounts[BUDGET_KINDS]);
void sandbox_detach(struct sandbox *sb, struct owner *to);
void sandbox_forget(struct sandbox *sb); /* a retained one */
void sandbox_prune(struct supervisor *sup);
void sandbox_record(const struct sandbox *sb); /* as it is now, to the journal */
int sandbox_restore(struct supervisor *sup, struct owner *o, const struct val *record,
                    struct err *err);
void sandbox_abandon(struct sandbox *sb, const struct err *err);

/* ready.c */
void ready_init(struct sandbox *sb);
void ready_start(struct sandbox *sb);
void ready_stop(struct sandbox *sb); /* it ends: nobody waits any more */
int ready_wait(struct sandbox *sb, struct op *op, uint64_t timeout_ms, struct err *err);
void ready_wait_cancel(struct op *op);

/* look.c */
bool look_wanted(const struct sandbox *sb);
int look_wait(struct sandbox *sb, struct op *op, struct err *err); /* ends the op with its view */
void look_wait_cancel(struct op *op);

/* changes.c */
bool made_has(const struct owner *o, const char *image);
void made_free(struct owner *o);
int changes_diff_start(struct sandbox *sb, struct op *op, struct err *err);
int changes_snapshot_start(struct sandbox *sb, struct op *op, const char *name, struct err *err);
void changes_op_cancel(struct op *op);
int changes_forget(struct owner *o, const char *image, struct err *err);
int changes_fork_start(struct sandbox *sb, struct op *op, const char *image, struct err *err);
void changes_fork_cancel(struct op *op);

/* exec.c */
int sandbox_exec_start(struct sandbox *sb, struct op *op, struct exec_args *args,
                       struct err *err); /* moves args; op NULL: the entrypoint */
void sandbox_exec_kill(struct exec *x, enum outcome_reason why);
void sandbox_exec_stop(struct exec *x); /* its sandbox ends */
void sandbox_exec_flow(struct exec *x, bool paused);
struct val sandbox_entry_view(const struct sandbox *sb); /* what its entrypoint printed */
void sandbox_exec_input(struct exec *x, const void *data, size_t len);
void sandbox_exec_abandon(struct exec *x, const struct err *err);
struct exec *exec_new(struct sandbox *sb, struct op *op, const struct exec_job *job);
int exec_launch(struct exec *x, uint64_t timeout_ms, struct err *err); /* frees x on failure */

/* handlers.c */
int handlers_check_alive(const struct sandbox *sb, struct err *err);
int handlers_check_room(const struct sandbox *sb, struct err *err); /* for another exec */
int handlers_lacks(const struct engine_entry *e, const char *field, const char *what,
                   struct err *err);
void exec_op_cancel(struct op *op, void *ctx);
void exec_op_flow(struct op *op, void *ctx, bool paused);

/* exec.c, for the jobs */
enum outcome_reason exec_reason(const struct exec *x);
void exec_fill_outcome(const struct exec *x, struct outcome *o); /* all but the output */
void exec_emit_started(const struct exec *x);
void exec_emit_done(const struct exec *x, const struct outcome *o); /* NULL: x->done_err */

/* process.c */
int process_spawn(struct sandbox *sb, struct op *op, struct exec_args *args, struct err *err);
void process_spawn_cancel(struct op *op, void *ctx);
void process_handlers_register(struct supervisor *sup);
void processes_forget(struct sandbox *sb);

/* file.c */
void file_handlers_register(struct supervisor *sup);

#endif

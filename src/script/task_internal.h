#ifndef REGOLITH_SCRIPT_TASK_INTERNAL_H
#define REGOLITH_SCRIPT_TASK_INTERNAL_H

/* Tasks and groups of tasks; calls of ops by tasks. Inside src/script only. */

#include "script/script_internal.h"

struct call;
struct group;

#define TASK_META  "task"
#define GROUP_META "task group"

/* --- A task ---------------------------------------------------------------------------------- */

enum task_state {
  TASK_READY,   /* in the ready queue */
  TASK_RUNNING, /* on the Lua stack now */
  TASK_BLOCKED, /* waits for a wake-up */
  TASK_ENDED
};
enum task_outcome { OUTCOME_NONE, OUTCOME_OK, OUTCOME_ERROR, OUTCOME_CANCELLED };

/* Lives in a Lua userdata (user values: thread, results or error, traceback) that the registry
 * anchors while the task is alive. */
struct task {
  struct script *script;
  lua_State *co; /* its thread, anchored by the userdata; NULL once ended */
  uint64_t id;   /* from 1 in its script; 1 is the main task */
  char name[24]; /* for people */
  enum task_state state;
  enum task_outcome outcome;
  struct list all;   /* struct script.all_tasks, while alive */
  struct list ready; /* struct script.ready */

  /* the tree */
  struct task *parent;  /* NULL for a root */
  struct list children; /* struct task.sibling: alive, or ended with an error nobody looked at */
  struct list sibling;
  size_t live_children; /* of them, not ended */
  size_t live_daemons;  /* of those, daemons */
  bool daemon;          /* nobody joins it; ends with the script */
  bool joining;         /* its body is over, it waits for its children */
  bool observed;        /* somebody waited for it: its error is theirs */
  struct list groups;   /* struct group.node: that it owns */
  struct group *group;  /* that it was spawned in, or NULL */
  struct list member;   /* struct group.members */

  /* what it waits for */
  struct list waiters;     /* struct task.waiting: who waits for its end */
  struct list waiting;     /* in the list of what it waits for */
  struct timer timer;      /* its sleep, or the limit of its wait */
  struct list calls;       /* struct call.node */
  struct call *blocked_on; /* the call whose next event it waits for, or NULL */
  bool counted;            /* while blocked: in struct script.outside */

  /* cancel */
  bool cancelled;     /* asked to end */
  bool raised;        /* … and the error was raised in it, so cleanup is running */
  enum err_kind why;  /* of the cancel */
  uint64_t raised_at; /* struct script.epoch at the last raise, 0 = never */
};

/* --- A group: tasks with one limit, one deadline and one fate --------------------------------- */

enum group_mode { GROUP_RAISE, GROUP_COLLECT, GROUP_RACE };

/* Lives in a userdata (user values: the first error, its traceback, the task that won, the owner).
 * Anchored while the owner has it in its list. */
struct group {
  struct script *script;
  struct task *owner; /* who made it and joins it; kept alive by the userdata */
  struct list node;   /* struct task.groups of its owner */
  enum group_mode mode;
  size_t live, limit;  /* tasks; limit 0 = none */
  struct list members; /* struct task.member, alive */
  struct list queue;   /* struct task.waiting: for a free place */
  struct list waiters; /* struct task.waiting: for the end */
  struct timer deadline;
  bool failed;   /* the first error is set */
  bool observed; /* somebody took the first error */
  bool past;     /* the deadline passed */
  bool expired;  /* … while tasks were alive, and ended them */
  bool decided;  /* a race was won */
};

/* --- The tree ----------------------------------------------------------------------------------
 */

/* From nargs arguments on the stack with the function below them; leaves the handle instead. */
struct task *task_new(lua_State *L, int nargs, struct task *parent, const char *name);
void task_cancel(struct task *t, enum err_kind why); /* with all below it */
void task_end(struct task *t, enum task_outcome outcome);
void task_died(struct task *t, int status); /* an error left its root */

struct task *task_current(lua_State *L);
struct task *task_check(lua_State *L, int arg);           /* a handle */
void task_push(lua_State *L, const struct task *t);       /* the handle of an anchored task */
void task_push_error(lua_State *L, const struct task *t); /* error, traceback or nil */
void task_push_text(lua_State *L, const struct task *t);  /* its error as text, or nil */
void task_forget(lua_State *L, struct task *t);           /* out of its parent and its anchor */
int task_push_results(lua_State *L, int handle);          /* what fn returned; how many */
int task_raise_from(lua_State *L, int handle);            /* its error, in the caller */

/* Continuation: gives what is on the stack. */
int task_results(lua_State *L, int status, lua_KContext ctx);

/* --- Blocking (task.c) ------------------------------------------------------------------------ */

/* Raises unless the current task can block here, and raises a pending cancel. what: for people. */
void task_check_blocking(lua_State *L, const char *what);
/* Gives up the processor until task_wake; to be returned from a C function: return task_block(…).
 * k begins with task_check_cancel, unless it has to clean up first. timeout_ms UINT64_MAX = none.
 */
int task_block(lua_State *L, uint64_t timeout_ms, bool outside, lua_KContext ctx, lua_KFunction k);
int task_yield(lua_State *L, lua_KContext ctx, lua_KFunction k);
void task_wake(struct task *t); /* of a blocked task; else nothing */
void task_check_cancel(lua_State *L);

void task_wake_all(struct list *waiters);

/* --- Calls: ops of a task (call.c) ------------------------------------------------------------ */

int call_start(lua_State *L); /* core.call */
void call_cancel(struct call *c, enum err_kind why);
void call_drop_all(struct task *t); /* the task will not come back */

/* --- Groups (group.c) --------------------------------------------------------------------------
 */

void group_task_ended(struct task *t);                /* from the scheduler */
void group_push_error(lua_State *L, struct group *g); /* error, traceback or nil */
void group_disown_all(lua_State *L, struct task *owner);
void group_orphan_all(lua_State *L, struct task *owner); /* … whose tasks may still live */
void group_open(lua_State *L); /* adds its functions to the table on top */

#endif

#ifndef REGOLITH_SCRIPT_INTERNAL_H
#define REGOLITH_SCRIPT_INTERNAL_H

/* Inside src/script only. Four parts: what library functions written in C use (first), the state of
 * a script and of a task, the scheduler, and who opens which library.
 *
 * For embedded Lua (lua/regolith/…) the way in is `require "regolith.core"`, which scripts cannot
 * name; its functions are described above lib_core.c. */

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/val.h"
#include "core/loop.h"
#include "core/op.h"
#include "script/script.h"
#include "wire/op.h"

struct task;

/* --- For library functions ------------------------------------------------------------------ */

struct script *script_of(lua_State *L);

/* A loop in C calls this every thousand steps or so. It returns while the loop may go on, and costs
 * next to nothing then. When the slice is over it yields by lua_yieldk(L, 0, ctx, k), so that the
 * loop goes on in k (k NULL: this loop cannot stop half-way); it raises where the script has been
 * cancelled or ran 50 ms where nothing can yield. */
void script_pause(lua_State *L, lua_KContext ctx, lua_KFunction k);

/* The same question for C that holds something a raised error would leak: true = stop soon, free
 * what you hold and call script_pause. */
bool script_must_pause(lua_State *L);

/* Raises an ordinary error unless `bytes` more fit below the soft cap (after a collection if need
 * be). For results whose size the caller chose. */
void script_check_memory(lua_State *L, size_t bytes);
bool script_memory_fits(lua_State *L, size_t bytes); /* the same without raising */

/* Memory outside of Lua that the script is to answer for. */
void script_charge(struct script *s, size_t bytes);
void script_refund(struct script *s, size_t bytes);
size_t script_val_bytes(const struct val *v); /* about what it takes */

/* Raises err as an error table { code, status, message, … } with __tostring. */
int script_raise(lua_State *L, const struct err *err);
int script_raise_arg(lua_State *L, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void script_push_err(lua_State *L, const struct err *err);

/* The other way: any error value as a struct err, for the host. Runs no Lua. text: what its
 * __tostring gave, or NULL; used where the value has no message. */
void script_err_from(lua_State *L, int idx, const char *text, struct err *ret_err);

/* Lua ↔ plain data. script_to_val raises nothing: it frees what it built, and err names the path of
 * the field at fault. script_push_val raises when memory is short. */
int script_to_val(lua_State *L, int idx, struct val *ret_val, struct err *err);
enum val_null { NULL_SKIP /* nil in maps is absent */, NULL_MARK /* json.null */ };
void script_push_val(lua_State *L, const struct val *v, enum val_null nulls);

/* Pushes a userdata that frees the val in it whatever error comes. */
struct val *script_push_scratch(lua_State *L);

/* Seconds from a number or "250ms" "90s" "5m" "2h"; raises invalid_argument naming the field. */
double script_check_duration(lua_State *L, int idx, const char *field);

/* Loads text only (never bytecode) in steps that keep to the time rules. As luaL_loadbuffer. */
int script_load_text(lua_State *L, const char *text, size_t len, const char *chunk_name);

/* --- A script --------------------------------------------------------------------------------- */

enum script_stage {
  STAGE_NEW,
  STAGE_MAIN,    /* the main task runs */
  STAGE_HOOKS,   /* on_exit hooks run */
  STAGE_STOPPED, /* no Lua runs any more; ops are ending */
  STAGE_DONE
};

/* struct script.attention: why the hook should look; set by the signal handler too. */
enum {
  ATTENTION_SLICE = 1,   /* the slice is over */
  ATTENTION_STRETCH = 2, /* … and 50 ms more */
  ATTENTION_MEMORY = 4,  /* over the soft cap, or nearly */
  ATTENTION_CANCEL = 8   /* the current task is to be cancelled */
};

struct script {
  /* given */
  char *name, *path; /* owned; path may be NULL */
  struct strv args, env;
  bool full_stdlib;
  struct loop *loop;
  struct ops *ops;
  uint64_t owner, grace_ms;
  struct script_hooks hooks;
  void *hooks_data;

  /* Lua */
  lua_State *L;                /* the main thread: holds what is anchored, runs no script code */
  lua_State *volatile running; /* the coroutine now running, NULL outside of a slice */
  lua_State *volatile armed;   /* the coroutine whose hook waits to run, if it is `running` */
  volatile unsigned attention; /* ATTENTION_… */
  unsigned walls;              /* C calls that cannot yield between the task and `running` */
  unsigned close_depth;        /* nested coroutine.close */
  bool host_yield;             /* the yield under way is the runtime's, not the script's */
  uint64_t epoch;              /* counts cancels that were raised */

  /* memory, bytes */
  size_t mem, mem_peak, mem_soft, mem_hard;
  bool mem_cut; /* the soft cap ended the script; cleanup has a little more */

  /* tasks */
  enum script_stage stage;
  struct task *current, *main, *hooks_task;
  struct list ready;     /* struct task.ready */
  struct list all_tasks; /* struct task.all: alive */
  struct list calls;     /* struct call.all: ops in flight */
  size_t calls_n;
  size_t tasks;   /* alive */
  size_t outside; /* blocked tasks that a timer or an op will wake, and deadlines */
  size_t daemons; /* alive */
  uint64_t next_task;
  uint64_t slice_start_ns; /* CPU of the thread */
  uint64_t cpu_ns, preempts;
  uint64_t told_where_ms; /* monotonic; of the last on_where */
  unsigned jitter;        /* random enough */

  /* the end */
  enum script_end end; /* SCRIPT_OK until something went wrong */
  struct err end_err;
  bool cancelled;  /* script_cancel was called, or a limit hit */
  char *traceback; /* owned, or NULL */
  struct timer grace;
  struct defer settle; /* moves the stage on from outside of Lua */
  struct sched *sched;
  struct list run_node; /* struct sched.runnable */
  bool runnable;
  bool held; /* script_hold: no slice starts */
};

/* --- Scheduler (sched.c) --------------------------------------------------------------------- */

int sched_attach(struct script *s, struct err *err);
void sched_detach(struct script *s);
void sched_ready(struct task *t); /* appends to the ready queue, wakes the script */
void sched_unready(struct task *t);
void sched_run_soon(struct script *s);
void sched_set_running(struct script *s, lua_State *L); /* arms the hook where attention asks */
void sched_attend(struct script *s, unsigned why);      /* from inside Lua or from the loop */

/* Lets an error that carries a cancel pass through what would catch it: true when the current task
 * was told to end since `epoch`. */
bool task_moved(lua_State *L, uint64_t epoch);
bool task_must_raise(const struct task *t); /* cancelled and not yet told */
int task_raise_cancel(lua_State *L);        /* never returns */

/* --- The script's life (script.c) --------------------------------------------------------------
 */

void script_main_ended(struct script *s);
void script_hooks_ended(struct script *s);
void script_stop(struct script *s);       /* from now on no Lua of it runs */
void script_stop_task(struct task *t);    /* of a stopped script */
void script_check_idle(struct script *s); /* after each slice */
void script_settle(struct script *s);     /* an op has ended */
void script_over_memory(struct script *s);
void script_fail(struct script *s, enum script_end end, const struct err *err);

/* --- Coroutines (coro.c) ------------------------------------------------------------------------
 */

/* Kept beside the script's address in each thread's extra space. */
enum { THREAD_HELD = 1 /* its task runs or blocks in it */, THREAD_TASK = 2 };
void thread_set_flags(lua_State *L, unsigned flags);
unsigned thread_flags(lua_State *L);
void thread_set_depth(lua_State *L, unsigned depth); /* nested pcalls; at most 65535 */
unsigned thread_depth(lua_State *L);
bool coro_can_yield(lua_State *L); /* to the scheduler */
void convert_open(lua_State *L);

/* Lines that point into the script, from the stack of a thread; pushes a string. */
void script_push_traceback(lua_State *L, lua_State *of, int level);
/* The same of L, led by where the error at err_idx first arose, if it was carried here. */
void script_push_full_traceback(lua_State *L, int err_idx, int level);
/* An error is about to be raised again elsewhere: where it arose is kept beside it. */
void script_carry(lua_State *L, int err_idx, int text_idx);
bool script_carries(lua_State *L, int idx);
void script_carry_as(lua_State *L, int idx); /* the same error under another value */
void errors_open(lua_State *L);

/* --- Libraries: each function leaves its library in place (globals, package.loaded) --------------
 */

void coro_open(lua_State *L);     /* coroutine, pcall, xpcall */
void lib_base_open(lua_State *L); /* print, load, setmetatable, collectgarbage, … */
void lib_require_open(lua_State *L);
void lib_io_open(lua_State *L);   /* io, os */
void lib_core_open(lua_State *L); /* regolith.core, for embedded modules */
void lib_json_open(lua_State *L);
void lib_script_open(lua_State *L); /* args, env, log, progress, on_exit */

/* After all others: lets embedded modules see the globals as they are now. */
void lib_require_seal(lua_State *L);
/* Pushes an embedded module, "regolith.x"; raises. */
void lib_require(lua_State *L, const char *name);
/* Names that scripts do not have. In the table on top each becomes a function that raises and says
 * what to use instead. The list ends with a NULL key, and is static. */
struct removed_name {
  const char *key, *name, *instead; /* "popen", "io.popen", … */
};
void script_set_removed(lua_State *L, const struct removed_name *list);

/* The table on top becomes the global `name` and what require gives for it; pops it. */
void script_set_lib(lua_State *L, const char *name);

/* Functions that are both globals and in regolith.core. */
int script_on_exit(lua_State *L);
int script_progress(lua_State *L);
int script_args(lua_State *L);
int script_getenv(lua_State *L);

/* Pushes a function that calls the function `name` of an embedded module, loaded when first used.
 */
void lib_push_forward(lua_State *L, const char *module, const char *name);

/* Opens everything for the state of s; runs in a protected call. */
int state_open_libs(lua_State *L);
int state_new(struct script *s, struct err *err);
void state_close(struct script *s);

/* Registry keys: addresses. */
extern const char script_key_tasks, script_key_core, script_key_error_mt, script_key_embedded_env;

#endif

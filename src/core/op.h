#ifndef REGOLITH_CORE_OP_H
#define REGOLITH_CORE_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/val.h"
#include "core/loop.h"

/* An op is one request that leaves the Lua world: a name, plain-data arguments, a deadline, a
 * stream of chunks, and one plain-data result. It comes from a script in this process, from a
 * worker process or from the HTTP API; who answers it is registered here by name.
 *
 *   new → submitted → (chunks) → finished → freed by its client */

struct op;
struct ops;

enum op_stream { OP_STDOUT = 1, OP_STDERR = 2, OP_EVENT = 3 /* an encoded val */ };

/* An interposer's look at how an op ended (end->kind is ERR_NONE: well, with op->result), before
 * its client is told; it may make another end of it. The client is told when op_end is called, at
 * once or later. */
typedef void op_end_fn(struct op *op, struct err *end, void *data);

/* Who asked. Both calls come from the loop, never from inside op_submit. */
struct op_client {
  /* 0 or more times, in order, before on_done; data is valid during the call only. May be NULL. */
  void (*on_chunk)(struct op *op, enum op_stream stream, const void *data, size_t len);
  /* Input is piling up before a reader that is slow (true): send no more until (false). May be
   * NULL. Like on_chunk it comes from the loop, before on_done. */
  void (*on_input_full)(struct op *op, bool full);
  /* Before on_done, when how the op ended is known and an interposer is still busy with it: what
   * the client writes now is written with what the interposer writes. err is NULL on success, and
   * op->result is set; on_done may yet bring a failure. May be NULL. */
  void (*on_ending)(struct op *op, const struct err *err);
  /* Once. err is NULL on success, and op->result is set. The client owns the op from here on. */
  void (*on_done)(struct op *op, const struct err *err);
};

struct op {
  /* the client's, set between op_new and op_submit */
  char name[48];
  struct val args;     /* moved in; the handler may move it out */
  uint64_t owner;      /* who pays and owns: an owner id of the supervisor, 0 = the host itself */
  uint64_t timeout_ms; /* 0 = none; past it the op is cancelled with ERR_TIMEOUT */
  const struct op_client *client;
  void *client_data;

  /* the router's */
  uint64_t id;                  /* unique in this process, from 1; never reused */
  struct val result;            /* set by the handler before op_finish */
  enum err_kind cancel_why;     /* ERR_NONE until cancelled */
  const struct op_entry *entry; /* private: the handler */
  struct ops *ops;              /* private */
  struct timer deadline;        /* private */
  struct defer finish;          /* private */
  struct err finish_err;        /* private */
  op_end_fn *on_end;            /* private */
  void *on_end_data;            /* private */
  struct list node;             /* private: all ops in flight */
  enum { OP_NEW, OP_STARTING, OP_RUNNING, OP_FINISHING, OP_DONE } state; /* private */

  /* the handler's */
  void *handler_data;
};

/* Who answers. start follows the asynchronous rule: on failure it never finishes the op; once it
 * has returned 0 the op is finished exactly once, also when cancelled. */
struct op_handler {
  const char *name;
  int (*start)(struct op *op, void *ctx, struct err *err);
  /* Hurry up: op_finish follows soon. op->cancel_why says why. NULL: runs to its end. */
  void (*cancel)(struct op *op, void *ctx);
  /* Input from the client; len 0 is the end of input. NULL: the op takes none. */
  void (*input)(struct op *op, void *ctx, const void *data, size_t len);
  /* The client cannot keep up (true) or can again (false). NULL: chunks are never many. */
  void (*flow)(struct op *op, void *ctx, bool paused);
};

struct ops *ops_new(struct loop *loop);
void ops_free(struct ops *ops); /* no op may be in flight */

/* Debug builds install a check that every op passes on its way in and out: encode, decode, compare.
 */
void ops_set_check(struct ops *ops, int (*check)(const struct val *v, struct err *err));

/* The handler table must outlive ops. A name registered twice is a bug (abort). */
void ops_register(struct ops *ops, const struct op_handler *handler, void *ctx);
/* Answers every name that nobody registered: in a worker process, by asking the host. */
void ops_set_fallback(struct ops *ops, const struct op_handler *handler, void *ctx);
bool ops_has(const struct ops *ops, const char *name);
/* Puts a handler in front of the one registered for its name: an op comes to it first, who answers
 * it or hands it on with op_pass, at once or later. The last one put in front is asked first. */
void ops_interpose(struct ops *ops, const struct op_handler *handler, void *ctx);
size_t ops_in_flight(const struct ops *ops);

/* Admission: asked before each op starts, in order of installation; the first failure refuses the
 * op. (Budgets, grants and rates hook in here.) */
void ops_add_admission(struct ops *ops, int (*admit)(struct op *op, void *ctx, struct err *err),
                       void *ctx);

struct op *op_new(const char *name);
void op_free(struct op *op); /* new or finished ops only; NULL allowed */

/* Fails with UNSUPPORTED where nobody answers the name, or with what admission or start said; the
 * op is then the caller's to free. Once it returned 0, on_done follows exactly once. */
int op_submit(struct ops *ops, struct op *op, struct err *err);

/* Asks an op in flight to end early; the first reason wins. on_done still follows. */
void op_cancel(struct op *op, enum err_kind why);
int op_input(struct op *op, const void *data, size_t len, struct err *err);
void op_flow(struct op *op, bool paused);

/* For handlers. */
/* The handler behind takes the op from here on, its arguments as they are now; an op that was
 * cancelled, or that is refused there, is finished instead. */
void op_pass(struct op *op);
/* From the start of an interposer, which then passes the op. One per op. */
void op_on_end(struct op *op, op_end_fn *fn, void *data);
void op_end(struct op *op);
void op_chunk(struct op *op, enum op_stream stream, const void *data, size_t len);
void op_input_full(struct op *op, bool full);
void op_finish(struct op *op, const struct err *err); /* err NULL: success with op->result */

#endif

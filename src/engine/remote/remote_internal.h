#ifndef REGOLITH_ENGINE_REMOTE_REMOTE_INTERNAL_H
#define REGOLITH_ENGINE_REMOTE_REMOTE_INTERNAL_H

/* What the files of this folder share.
 *
 *   remote.c   the vtable, options, the end    call.c     one request, until it is answered for
 * good box.c      create, list and end            run.c      one command journal.c  what is there,
 * noted here       orphans.c  what earlier processes left there events.c   server-sent events */

#include "base/buf.h"
#include "base/list.h"
#include "base/val.h"
#include "core/loop.h"
#include "engine/engine.h"
#include "engine/remote/events.h"
#include "net/httpc.h"
#include "net/part.h"

#define REMOTE_ID_SIZE  ENGINE_ID_SIZE
#define REMOTE_KEY_SIZE 32 /* of an Idempotency-Key */

/* Where the operations are, unless the address has a path of its own. */
#define REMOTE_OPERATIONS "/v1/marketplace/compute"

/* A tag of each sandbox, its value the Idempotency-Key of its create. */
#define REMOTE_TAG "regolith.create"

struct remote {
  struct engine base;
  struct loop *loop;
  struct httpc *http;       /* owned; NULL until the first request */
  char *base_url;           /* owned: of the four operations, without a slash at the end */
  char *key;                /* owned secret */
  char *ca_file;            /* owned, or NULL */
  bool plain_http;          /* url is http:// */
  bool few_fields;          /* it is known to take few: what nobody asked for is not sent */
  bool replays;             /* it was seen to honour Idempotency-Key */
  struct list calls;        /* struct remote_call.node */
  struct list boxes;        /* struct engine_box.node */
  char *state;              /* owned: the folder of journals; NULL = none is kept */
  char *journal_path;       /* owned: this process's folder in it … */
  int journal;              /* … and its descriptor, locked; -1 = not made yet */
  bool journal_failed;      /* and was said */
  struct list left_folders; /* struct left_folder.node: of processes that are gone */
  struct list orphans;      /* struct orphan.node: not asked about yet */
  unsigned orphans_asked, orphans_ended, orphans_kept;
  void (*on_closed)(void *e); /* not NULL: it is closing … */
  uint64_t closing_ms;        /* … since then */
  struct defer closed;
  void (*done)(void *data); /* of close */
  void *done_data;
};

/* How often a request may be made. */
enum remote_again {
  REMOTE_ONCE,   /* again only where the server has not begun with it: not reached, or refused */
  REMOTE_REPLAY, /* … or under its Idempotency-Key, where the server is known to honour it */
  REMOTE_SAFE,   /* as often as it takes: twice is the same as once */
};

struct remote_call;
struct remote_call_conf {
  const char *op;         /* "create": POST below the base; or a whole URL for a GET */
  const struct val *body; /* NULL: GET */
  const char *idem;       /* Idempotency-Key, NULL = none */
  enum remote_again again;
  uint64_t total_ms; /* for all tries; 0 = none: as long as the connection lives */
  uint64_t stall_ms; /* without one byte; 0 = total_ms */
  bool events;       /* an event stream is asked for; on_event gets it */
  bool lingers;      /* the end of the engine waits for it; total_ms must be short */
  void (*on_event)(struct remote_call *c, const char *name, const struct val *data);
  /* err NULL: answered with 2xx; answer is what its body said, nil for events. Else answer is the
   * error's body, where there was one, and status its status, 0 where none came. valid during the
   * call. */
  void (*on_done)(struct remote_call *c, const struct err *err, int status,
                  const struct val *answer);
  void *data;
};

struct remote_call {
  struct list node; /* remote.calls */
  struct remote *e;
  struct remote_call_conf conf;
  char *url, *body; /* owned */
  char *headers[4]; /* owned, NULL-terminated */
  size_t body_len;
  struct http_transfer *transfer; /* in flight, or NULL */
  struct buf answer;
  struct events events;
  bool is_events;    /* the answer is a stream of them */
  bool paused, held; /* nothing is taken now; something waits */
  bool sent;         /* the server may have begun with it */
  bool last;         /* what was not begun is not begun any more */
  bool aborted;
  struct err why; /* … */
  int status;
  unsigned tries;
  uint64_t deadline_ms; /* 0 = none */
  struct timer again;
};

/* call.c */
int remote_call_start(struct remote *e, const struct remote_call_conf *conf,
                      struct remote_call **ret, struct err *err);
/* … with the id of a sandbox as its body. */
int remote_call_about(struct remote *e, const char *id, struct remote_call_conf conf,
                      struct remote_call **ret, struct err *err);
/* Ends it, whatever the server makes of that; on_done follows, from the loop, with why. */
void remote_call_abort(struct remote_call *c, const struct err *why);
/* Ends it where the server has not begun with it; else its answer is waited for. */
void remote_call_last(struct remote_call *c, const struct err *why);
/* Ends all calls, none of which answers any more, waits for those that linger, and ends the client,
 * then calls done(e). */
void remote_calls_close(struct remote *e, void (*done)(void *e));
void remote_call_pause(struct remote_call *c, bool paused); /* of events */

struct engine_box {
  struct list node; /* remote.boxes */
  struct remote *e;
  char id[REMOTE_ID_SIZE];
  char idem[REMOTE_KEY_SIZE];   /* the create's Idempotency-Key */
  struct create_op *create;     /* until it is answered, then for on_end */
  struct remote_call *creating; /* in flight, or NULL */
  struct kill_op *kill;         /* its terminate is in flight, or it is being left */
  struct defer leaving;
  struct kill_op *cancel; /* of the create, to be answered */
  struct defer cancelled;
  struct look_op *look;        /* to be answered … */
  struct remote_call *looking; /* … by this */
  struct list runs;            /* struct run.node */
  bool over;                   /* the server said so; on_end was called */
};

/* remote.c */
/* The URL of the server's list of sandboxes, to which parameters can be added; owned by the caller.
 * NULL: it has none that we know of. */
char *remote_list_url(const struct remote *e);

/* box.c */
int remote_create(struct remote *e, struct create_op *op, struct err *err);
int remote_cancel(struct create_op *create, struct kill_op *op, struct err *err);
int remote_check(struct remote *e, struct check_op *op, struct err *err);
int remote_terminate(struct engine_box *b, struct kill_op *op, struct err *err);
int remote_leave(struct engine_box *b, struct kill_op *op, struct err *err);
int remote_look(struct engine_box *b, struct look_op *op, struct err *err);
void remote_box_free(struct engine_box *b);
/* Nobody listens any more; their calls are being ended. */
void remote_look_drop(struct engine_box *b);
/* Whether an answer about a box with this status says that it is gone: 404, 408 or 410. If it does,
 * the supervisor is told so, once. */
bool remote_box_gone(struct engine_box *b, int status);

/* journal.c: key is the Idempotency-Key of a create. */
void remote_journal_begin(struct remote *e, const char *key, unsigned timeout_s);
void remote_journal_made(struct remote *e, const char *key, const char *id);
void remote_journal_over(struct remote *e, const char *key);
void remote_journal_close(struct remote *e);

/* orphans.c */
void remote_orphans_start(struct remote *e);
/* The answer to this create of ours was lost. */
void remote_orphans_add(struct remote *e, const char *key);
void remote_orphans_free(struct remote *e);

/* run.c */
int remote_exec(struct engine_box *b, struct exec_op *op, struct err *err);
int remote_exec_kill(struct exec_op *x, struct kill_op *op, struct err *err);
void remote_exec_flow(struct exec_op *x, bool paused);
/* The box is gone, or (ms 0) is left: what is still said to run there is waited for no longer. */
void remote_runs_leave(struct engine_box *b, uint64_t ms);
/* Nobody listens any more; their calls are being ended. */
void remote_runs_drop(struct engine_box *b);

#endif

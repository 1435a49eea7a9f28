#ifndef REGOLITH_API_INTERNAL_H
#define REGOLITH_API_INTERNAL_H

/* What the files of this folder share.
 *
 *   server.c   requests to calls, calls to answers      routes.c   which path is whose
 *   calls.c    the operations                           feed.c     exec as it happens
 *   metrics.c  counters for /metrics                    access.c   the access log
 *   console.c  the page and what it asks for            history.c  the last commands
 *
 * A call is one request on its way: it lives from the request's head until the exchange has ended,
 * its op, if it has one, is done, and the store has answered, whichever comes last. */

#include "api/recent.h"
#include "api/server.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/val.h"
#include "core/loop.h"
#include "core/op.h"
#include "ledger/ledger.h"
#include "net/httpd.h"

struct call;
struct feed;

enum route_flags {
  ROUTE_OPEN = 1 << 0,  /* needs no key */
  ROUTE_JSON = 1 << 1,  /* takes a JSON object as body */
  ROUTE_QUERY = 1 << 2, /* takes query parameters */
  ROUTE_IDEM = 1 << 3,  /* honours Idempotency-Key */
};

struct route {
  const char *method;
  const char *path; /* "*" stands for one segment, the call's `segment` */
  const char *name; /* in metrics and logs: path with the aliases made one */
  unsigned flags;   /* enum route_flags */
  /* Answers, at once or later. body is the call's, empty without ROUTE_JSON. */
  void (*run)(struct call *c);
};

#define METRICS_BUCKETS 12
struct counters {
  uint64_t by_class[6];              /* answers 1xx … 5xx by the first digit, [0] without one */
  uint64_t buckets[METRICS_BUCKETS]; /* answers that took at most … */
  uint64_t duration_us;              /* of all together */
};

struct call {
  struct api *api;
  struct list node;         /* api.calls */
  struct httpd_exchange *x; /* NULL: ended */
  const struct route *route;
  char *segment; /* owned, decoded: what stands for "*" */
  bool has_account;
  struct ledger_account account; /* whose key it came with */
  struct buf headers;            /* to be sent along: whole lines */
  struct val body;               /* the request's */
  struct op *op;                 /* in flight, or NULL */
  void (*on_op)(struct call *c, struct op *op, const struct err *err);
  const struct val *result;  /* of the op, while on_op runs */
  unsigned waits;            /* answers of the store that are to come */
  char sandbox_id[64];       /* the one concerned, "" = none */
  bool base64;               /* of an exec */
  bool idem;                 /* its answer is kept: it goes on without its client */
  char *idem_key;            /* owned */
  bool early;                /* the answer was made before its op was done … */
  bool kept;                 /* … and waits for that, on the disk */
  bool stale;                /* … and is not the answer after all, once it is on the disk */
  int status;                /* of the answer while it is being kept */
  const char *type;          /* likewise */
  struct buf answer;         /* likewise */
  struct feed *feed;         /* owned; an exec as it happens */
  struct recent_exec *noted; /* of an exec that has not ended; its list's */
};

struct api {
  struct api_conf conf;
  struct loop *loop;
  struct ops *ops;
  struct httpd *httpd;
  struct list calls;
  bool closing, httpd_closed;
  struct defer closed;
  void (*on_closed)(void *data);
  void *on_closed_data;
  uint64_t started_ms;
  struct counters *counters; /* one per route and one for none; owned */
  struct recent *recent;     /* owned */
  struct buf log;            /* lines not written yet */
  struct timer log_timer;
};

/* routes.c */
extern const struct route routes[];
size_t routes_count(void);
/* The route, and what "*" stands for (the caller's). NULL: none; ret_allow lists the methods that
 * the path would take, "" = the path is unknown. */
const struct route *route_find(const char *method, const char *path, char **ret_segment,
                               struct buf *ret_allow);

/* server.c */
/* Each of these is the last thing done with a call whose op is done. */
void call_answer(struct call *c, int status, const char *type, struct buf *body);
void call_json(struct call *c, int status, const struct val *v);
void call_error(struct call *c, const struct err *err);
void call_error_with(struct call *c, const struct err *err, const struct val *result);
/* Runs the op with the key's owner; args move in. on_op follows, also when it cannot start. */
void call_op(struct call *c, const char *name, struct val args, uint64_t timeout_ms,
             void (*on_op)(struct call *c, struct op *op, const struct err *err));
void call_check_free(struct call *c);

/* calls.c */
void call_create(struct call *c);
void call_exec(struct call *c);
void call_status(struct call *c);
void call_terminate(struct call *c);
void call_list(struct call *c);
void call_create_modal(struct call *c);
void call_get_modal(struct call *c);
void call_delete_modal(struct call *c);
void call_snapshot(struct call *c);
void call_tunnels(struct call *c);
void call_gone(struct call *c); /* its client left */
void call_healthz(struct call *c);
void call_readyz(struct call *c);
void call_openapi(struct call *c);

/* An exec that was noted has ended: with this outcome, or NULL and why. */
void call_note_end(struct call *c, const struct val *outcome, const char *why);

/* console.c */
void call_page(struct call *c);
void call_console(struct call *c);
void call_execs(struct call *c);
void call_costs(struct call *c);

/* feed.c */
bool feed_wanted(const struct call *c);
void feed_start(struct call *c, struct val args);
void feed_chunk(struct call *c, enum op_stream which, const void *data, size_t len);
void feed_full(struct call *c, bool full);
void feed_gone(struct call *c);
void feed_free(struct feed *s);

/* metrics.c */
void call_metrics(struct call *c);
void metrics_count(struct api *api, const struct route *route, const struct httpd_record *record);

/* access.c */
void access_log(struct api *api, const struct call *c, struct httpd_exchange *x,
                const struct httpd_record *record);
void access_flush(struct api *api);

#endif

#ifndef REGOLITH_NET_HTTPD_INTERNAL_H
#define REGOLITH_NET_HTTPD_INTERNAL_H

/* What the server's two files share: httpd.c has listeners, limits and shutdown; httpd_conn.c has
 * one connection and the exchanges on it. */

#include <uv.h>

#include "base/buf.h"
#include "base/list.h"
#include "core/loop.h"
#include "net/http1.h"
#include "net/httpd.h"
#include "net/tls.h"

#define HTTPD_READ_BYTES (64u << 10) /* taken from a socket at once */

struct listener {
  uv_tcp_t tcp; /* first: freed through it */
  struct httpd *h;
  struct list node; /* httpd.listeners */
  bool waiting;     /* a connection waits for room */
};

struct httpd {
  struct httpd_conf conf; /* with every number filled in; its strings are owned */
  struct loop *loop;
  const struct tls_part *tls;
  struct tls_server *tls_server; /* owned; NULL = plain HTTP */
  struct list listeners;
  struct list conns;    /* conn.node: all of them */
  struct list idle;     /* conn.idle_node: without a request, the longest first */
  struct list flushing; /* conn.flush_node: whose answers wait to be taken, the longest first */
  size_t handles;       /* listeners and connections not yet closed */
  struct httpd_stats stats;
  char input[HTTPD_READ_BYTES]; /* what was just read, until it is looked at */
  struct buf head;              /* of the answer being made */
  struct buf plain, wire;       /* what TLS takes and gives */
  char date[40];                /* of the answers of this second */
  int64_t date_s;
  bool draining, closing;
  struct defer drained, closed;
  void (*on_drained)(void *data);
  void *on_drained_data;
  void (*on_closed)(void *data);
  void *on_closed_data;
};

enum conn_state {
  CONN_HEAD,   /* waits for a request head, or for the rest of one */
  CONN_BODY,   /* the head is there, the body arrives */
  CONN_ANSWER, /* the request is the handler's until it is answered */
  CONN_FLUSH,  /* the answer is complete and not all taken */
  CONN_LINGER, /* answered for good: what still comes is dropped, so that the answer is read */
  CONN_CLOSED
};

struct httpd_exchange {
  struct conn *conn;
  void *context; /* the handler's */
  struct http1_head head;
  struct http1_chunks chunks;
  struct buf body;
  uint64_t body_left; /* of a body with a length */
  uint64_t start_us;
  uint64_t received, sent;
  int status;    /* 0: not answered yet */
  bool asked;    /* on_request was called */
  bool begun;    /* an answer in pieces */
  bool chunked;  /* … in chunks; else it ends with the connection */
  bool no_body;  /* HEAD, 204, 304 */
  bool complete; /* nothing more of the answer comes */
  bool keep;     /* the connection goes on afterwards */
  bool full;     /* on_full(true) was said */
};

struct conn {
  uv_tcp_t tcp; /* first: freed through it */
  struct httpd *h;
  enum conn_state state;
  struct list node, idle_node, flush_node;
  struct httpd_exchange *x; /* owned; from CONN_BODY to CONN_FLUSH */
  struct tls *tls;          /* owned; NULL = plain */
  struct buf in;            /* arrived and not used yet */
  size_t scanned;           /* bytes of it without the end of a head */
  struct timer timer;
  uint64_t due_ms;      /* when this state has lasted too long, UINT64_MAX = never */
  uint64_t fires_ms;    /* of the timer, UINT64_MAX = it does not run */
  size_t held;          /* bytes that wait to be sent, counted in httpd.stats */
  uint64_t body_due_ms; /* of the body as a whole */
  uint64_t queued;      /* bytes given to libuv so far, beyond what the kernel took at once */
  int64_t moved;        /* of them, what the reader's kernel had when last looked at */
  bool reading, working;
};

/* httpd_conn.c */
void conn_open(struct httpd *h, struct listener *from);
void conn_close(struct conn *c);
void conn_drain(struct conn *c); /* closes it where it has no request */
void conn_cut(struct conn *c);   /* whatever it does; its handler is told */

/* httpd.c */
void httpd_conn_gone(struct httpd *h); /* one handle less */

#endif

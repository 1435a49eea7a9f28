#ifndef REGOLITH_NET_HTTPD_H
#define REGOLITH_NET_HTTPD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct buf;
struct httpd;          /* listeners and connections on one loop */
struct httpd_exchange; /* one request and its answer */
struct loop;

/* How an exchange went, for logs and counters. */
struct httpd_record {
  int status;           /* answered; 499: the client left before there was an answer */
  uint64_t received;    /* bytes of body */
  uint64_t sent;        /* bytes of the answer's body */
  uint64_t duration_us; /* from the request's head to the last byte handed to the kernel */
};

struct httpd_ops {
  /* The head is there, the body is not. Answering now refuses the request; NULL: all may come. */
  void (*on_head)(struct httpd_exchange *x);
  /* The request is whole. It is to be answered exactly once, now or later, unless on_gone comes. */
  void (*on_request)(struct httpd_exchange *x);
  /* The client left before the answer was complete: the exchange is gone when this returns. It may
   * come from inside httpd_begin and httpd_send, never from httpd_answer and httpd_end. */
  void (*on_gone)(struct httpd_exchange *x);
  /* What waits to be sent of an answer in pieces has passed HTTPD_FULL (true) or is below
   * HTTPD_FULL / 4 again (false). NULL: the pieces are never many. */
  void (*on_full)(struct httpd_exchange *x, bool full);
  /* The end of every exchange, however it ended, on_gone included. May be NULL. */
  void (*on_end)(struct httpd_exchange *x, const struct httpd_record *record);
  /* The body, as JSON, of an answer that the server gives by itself: to what is no request. */
  void (*print_fault)(void *data, int status, const char *text, struct buf *out);
};

#define HTTPD_FULL (256u << 10)

/* 0 takes the number in brackets. */
struct httpd_conf {
  struct loop *loop;
  const struct httpd_ops *ops;
  void *data;             /* httpd_data */
  size_t max_connections; /* [1024] past them the longest idle one makes room */
  size_t max_body;        /* [10 MiB] bytes */
  size_t max_held;        /* [256 MiB] bytes of bodies and answers held for all connections */
  uint64_t head_ms;       /* [15 s] for a whole head */
  uint64_t idle_ms;       /* [75 s] between two requests */
  uint64_t stall_ms;      /* [20 s] without a byte, in either direction */
  uint64_t body_ms;       /* [5 min] for a whole body */
  const char *tls_cert, *tls_key; /* PEM files; NULL = plain HTTP */
};

int httpd_new(struct httpd **ret, const struct httpd_conf *conf, struct err *err);

/* Listens on "HOST:PORT", "[V6]:PORT" or ":PORT"; port 0 takes a free one. May be called again for
 * further addresses. ret_port (NULL allowed) gets the port. */
int httpd_listen(struct httpd *h, const char *address, unsigned *ret_port, struct err *err);

/* Reads certificate and key anew; those in use stay when that fails. */
int httpd_reload(struct httpd *h, struct err *err);

/* No further connection is taken and no further request on the present ones; on_drained once the
 * last one is closed. */
void httpd_drain(struct httpd *h, void (*on_drained)(void *data), void *data);
/* Cuts what is left, then frees; done (NULL allowed) comes from the loop. */
void httpd_close(struct httpd *h, void (*done)(void *data), void *data);

struct httpd_stats {
  size_t connections;                           /* open now */
  size_t exchanges;                             /* being read or answered now */
  size_t held;                                  /* bytes of bodies and answers */
  uint64_t accepted, requests, faults, evicted; /* so far */
};
void httpd_stats(const struct httpd *h, struct httpd_stats *ret_stats);

/* ---- one exchange ---- */

void *httpd_data(const struct httpd_exchange *x);
void httpd_set_context(struct httpd_exchange *x, void *context);
void *httpd_context(const struct httpd_exchange *x); /* NULL at first */

const char *httpd_method(const struct httpd_exchange *x);
const char *httpd_path(const struct httpd_exchange *x);
const char *httpd_query(const struct httpd_exchange *x);                    /* "" = none */
const char *httpd_header(const struct httpd_exchange *x, const char *name); /* lower case name */
const char *httpd_body(const struct httpd_exchange *x, size_t *ret_len);
void httpd_peer(const struct httpd_exchange *x, char *out, size_t size); /* the client's address */
bool httpd_secure(const struct httpd_exchange *x);                       /* over TLS */

/* Answers. headers: whole lines "Name: value\r\n", NULL = none. body moves in (NULL = none) and is
 * sent as type. */
void httpd_answer(struct httpd_exchange *x, int status, const char *type, const char *headers,
                  struct buf *body);

/* An answer in pieces: begin, any number of sends, end. */
void httpd_begin(struct httpd_exchange *x, int status, const char *type, const char *headers);
void httpd_send(struct httpd_exchange *x, const void *data, size_t len);
void httpd_end(struct httpd_exchange *x);
/* Gives the client up: the connection is cut. on_end comes from inside, on_gone does not. */
void httpd_cut(struct httpd_exchange *x);

#endif

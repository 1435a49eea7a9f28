#ifndef REGOLITH_API_SERVER_H
#define REGOLITH_API_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct api;
struct buf;
struct ledger;
struct loop;
struct ops;
struct store;
struct supervisor;

/* The Compute API over HTTP: every request becomes ops with the owner of its key. */
struct api_conf {
  struct loop *loop;
  struct ops *ops;
  const struct supervisor *sup;   /* for /metrics */
  struct ledger *ledger;          /* who may ask, and how often */
  struct store *store;            /* where answers to requests with an Idempotency-Key are kept */
  const char *tls_cert, *tls_key; /* PEM files; NULL = plain HTTP */
  size_t max_connections;         /* 0 = the server's default */
  uint64_t create_ms;             /* how long a create waits, above all for its image; 0 = 55 s */
  int access_log;                 /* a descriptor, one line of JSON per request; -1 = none */
  /* More of /metrics, by whoever has it; NULL = none. */
  void (*metrics)(void *data, struct buf *out);
  /* Whether requests can be served now; err says why not. NULL: always. */
  int (*ready)(void *data, struct err *err);
  void *data;
};

int api_new(struct api **ret, const struct api_conf *conf, struct err *err);
int api_listen(struct api *api, const char *address, unsigned *ret_port, struct err *err);
/* From here on lines go to this descriptor; -1 = nowhere. */
void api_set_access_log(struct api *api, int fd);
/* Reads certificate and key anew. */
int api_reload(struct api *api, struct err *err);
/* Takes nothing new, answers what was asked, then calls done. */
void api_drain(struct api *api, void (*done)(void *data), void *data);
/* Cuts what is left, waits for its ops, then frees and calls done from the loop. */
void api_close(struct api *api, void (*done)(void *data), void *data);

#endif

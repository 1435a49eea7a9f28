#ifndef REGOLITH_NET_TLS_H
#define REGOLITH_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "core/part.h"

struct buf;
struct tls;        /* one connection */
struct tls_server; /* a certificate and its key */

/* The part "tls": the server's side of TLS 1.2 and 1.3, as a filter between bytes and bytes. */
struct tls_part {
  struct part_head head;
  int (*server_new)(struct tls_server **ret, const char *cert_file, const char *key_file,
                    struct err *err);
  void (*server_free)(struct tls_server *server); /* connections may still be open; NULL allowed */
  struct tls *(*open)(struct tls_server *server);
  void (*close)(struct tls *tls); /* NULL allowed */
  /* Takes what came from the wire; appends what it says to plain and what is to be sent to wire.
   * false: the connection is broken or over. */
  bool (*input)(struct tls *tls, const void *data, size_t len, struct buf *plain, struct buf *wire);
  /* Appends what says `data` to wire. */
  bool (*output)(struct tls *tls, const void *data, size_t len, struct buf *wire);
  void (*goodbye)(struct tls *tls, struct buf *wire);
};

#endif

#ifndef REGOLITH_NET_PART_H
#define REGOLITH_NET_PART_H

#include <stddef.h>

#include "base/err.h"
#include "core/part.h"

struct http_request;
struct http_transfer;
struct httpc;
struct loop;

/* The part "http": what needs curl and nothing else. The functions are those of net/httpc.h and
 * net/url.h. */
struct http_part {
  struct part_head head;
  int (*client_new)(struct httpc **ret, struct loop *loop, struct err *err);
  void (*client_close)(struct httpc *h, void (*done)(void *data), void *data);
  int (*start)(struct httpc *h, const struct http_request *req, struct http_transfer **ret,
               struct err *err);
  void *(*data)(const struct http_transfer *t);
  const char *(*header)(struct http_transfer *t, const char *name);
  void (*each_header)(struct http_transfer *t,
                      void (*fn)(void *data, const char *name, const char *value), void *data);
  void (*resume)(struct http_transfer *t);
  void (*abort)(struct http_transfer *t, const struct err *err);
  char *(*url_join)(const char *base, const char *ref);
  char *(*url_part)(const char *url, const char *what);
};

#endif

#ifndef REGOLITH_NET_HTTPC_H
#define REGOLITH_NET_HTTPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct sockaddr;
struct httpc;         /* all transfers of one loop */
struct http_transfer; /* one request and its answer */

/* What to ask for. Everything is copied but the body, which stays the caller's until on_done. */
struct http_request {
  const char *method; /* NULL = GET */
  const char *url;
  const char *const *headers; /* "Name: value", NULL-terminated; NULL = none. No secrets: these go
                                 to every host a redirect leads to */
  const char *bearer;         /* token for this host alone, NULL = none */
  const char *user_password;  /* "USER:PASSWORD" for this host alone, NULL = none */
  const void *body;
  size_t body_len;
  uint64_t from;       /* > 0: ask for the bytes from here on */
  const char *ca_file; /* who to trust instead of the system's, NULL = the system's */
  bool plain_http;     /* http:// may be used, also by a redirect */
  bool stay;           /* redirects are answers like others */
  bool direct;         /* no proxy, whatever the environment says */
  uint64_t connect_ms; /* to be connected; 0 = 15 s */
  uint64_t stall_ms;   /* without one byte; 0 = 30 s */
  uint64_t total_ms;   /* for all of it; 0 = none */

  /* Asked before each connection is opened; false: DENIED with EACCES. NULL: any may be. */
  bool (*may_connect)(struct http_transfer *t, const struct sockaddr *addr);
  /* The status and headers of the final answer are there. Once, before on_data and on_done; not
   * when none came. */
  void (*on_head)(struct http_transfer *t, int status);
  /* false: not taken, nothing more comes until http_resume, then the same again. */
  bool (*on_data)(struct http_transfer *t, const void *data, size_t len);
  /* Once, last. err NULL: the whole answer arrived, whatever its status. */
  void (*on_done)(struct http_transfer *t, const struct err *err);
  void *data;
};

int httpc_new(struct httpc **ret, struct loop *loop, struct err *err);
/* No transfer may be in flight. done (NULL allowed) is called from the loop. */
void httpc_close(struct httpc *h, void (*done)(void *data), void *data);

/* Callbacks come from the loop, never from inside http_start. */
int http_start(struct httpc *h, const struct http_request *req, struct http_transfer **ret,
               struct err *err);
void *http_data(const struct http_transfer *t);
int http_status(const struct http_transfer *t);                     /* 0 before on_head */
const char *http_header(struct http_transfer *t, const char *name); /* NULL = absent */
/* Every header of the final answer, in order. */
void http_each_header(struct http_transfer *t,
                      void (*fn)(void *data, const char *name, const char *value), void *data);
void http_resume(struct http_transfer *t);

/* Ends the transfer; on_done follows with err. Of kind ERR_NONE: enough was read, that is all
 * right. */
void http_abort(struct http_transfer *t, const struct err *err);

/* Ends the transfer at once; on_done does not follow. Not from its own callbacks. */
void http_drop(struct http_transfer *t);

#endif

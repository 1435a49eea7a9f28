#ifndef REGOLITH_HOST_HTTP_H
#define REGOLITH_HOST_HTTP_H

#include <stdint.h>

struct grants;
struct http;
struct loop;
struct ops;

/* HTTP requests for scripts: the op
 *   http.request { url, method, headers, body, timeout } → { status, headers, body }
 * to hosts that were granted by name. */

/* grants: of the owner of an op; NULL = none. */
struct http *http_new(struct loop *loop, struct ops *ops,
                      const struct grants *(*grants)(void *data, uint64_t owner), void *data);
/* Closes the connections of an owner that has no request under way, then calls done from the loop,
 * or at once where there is nothing to close. */
void http_end_owner(struct http *http, uint64_t owner, void (*done)(void *data), void *data);
void http_free(struct http *http); /* NULL allowed; every owner must have been ended */

#endif

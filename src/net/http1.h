#ifndef REGOLITH_NET_HTTP1_H
#define REGOLITH_NET_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

/* Requests of HTTP/1.1 (and 1.0) as bytes from anybody, read strictly: what two readers could take
 * for two different requests is refused. Pure: no I/O, no clock. */

#define HTTP1_HEAD_MAX   16384 /* bytes of request line and header fields */
#define HTTP1_TARGET_MAX 8192  /* bytes */
#define HTTP1_FIELDS_MAX 64

/* What is wrong with a request: the status to answer it with, and a sentence. */
struct http1_fault {
  int status;
  const char *text;
};

/* Where in the head's text both begin, which end in a NUL; the name is in lower case. */
struct http1_field {
  uint16_t name, value;
};

struct http1_head {
  const char *method; /* as sent */
  const char *path;   /* up to "?", as sent, begins with "/" */
  const char *query;  /* behind "?", "" = none */
  int minor;          /* of HTTP/1.x */
  bool keep_alive;    /* the client would send another request on this connection */
  bool chunked;       /* the body comes in chunks, else content_length says all */
  bool expects;       /* 100-continue */
  uint64_t content_length;
  size_t fields_n;
  struct http1_field fields[HTTP1_FIELDS_MAX];
  char *text; /* owned: what the above points into */
};

/* The length of a complete head at the front of the bytes, 0 = more is needed. `from` is how many
 * of them were there at the last call. Longer than HTTP1_HEAD_MAX: SIZE_MAX. */
size_t http1_head_length(const char *bytes, size_t len, size_t from);

/* Reads a head of that length. false: ret_fault says why, and nothing is to be freed. */
bool http1_head_parse(struct http1_head *ret, const char *bytes, size_t len,
                      struct http1_fault *ret_fault);
void http1_head_done(struct http1_head *head);

const char *http1_head_get(const struct http1_head *head, const char *name); /* NULL: absent */

/* The value of a query parameter, percent-decoded, the caller's to free. NULL: absent, or not
 * well-formed. It may hold any byte but NUL. */
char *http1_query_get(const char *query, const char *name);
/* Percent-decodes len bytes; "+" is a space where form says so. NULL: malformed, or a NUL inside.
 */
char *http1_decode(const char *text, size_t len, bool form);

/* A body in chunks. Zero-initialised stands before the first one. */
struct http1_chunks {
  enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER, CHUNK_DONE } state;
  uint64_t left;  /* of the chunk */
  size_t line;    /* bytes of the line so far */
  size_t extra;   /* bytes of extensions and trailers so far */
  bool digits;    /* the size line has one */
  bool extension; /* … and is past them */
  bool cr;        /* the last byte was a CR */
};

/* Appends the body's bytes to out, max of them in all. Returns how many bytes it used: less than
 * len once state is CHUNK_DONE. On a fault ret_fault->status is set. */
size_t http1_chunks_read(struct http1_chunks *c, const char *bytes, size_t len, struct buf *out,
                         size_t max, struct http1_fault *ret_fault);

const char *http1_reason(int status); /* "Not Found" */

#endif

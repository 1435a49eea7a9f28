#ifndef REGOLITH_IMAGE_FETCH_H
#define REGOLITH_IMAGE_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct fetch;
struct httpc;
struct image_ref;
struct image_settings;
struct loop;
struct registry; /* where one image comes from: mirrors, the registry, and what it takes to log in
                  */

/* settings and ref are only read here. plain_http: the user says http:// for this registry. */
int registry_new(struct registry **ret, struct loop *loop, struct httpc *http,
                 const struct image_ref *ref, const struct image_settings *settings,
                 bool plain_http, struct err *err);
void registry_free(struct registry *r); /* no fetch may be in flight */

/* The registry itself, behind all mirrors: where things are sent to. */
size_t registry_origin(const struct registry *r);

/* One document or blob, taken or sent. Zero-initialise, fill the first part, keep in place until
 * on_done. */
struct fetch {
  const char *kind;   /* "manifests" or "blobs" */
  const char *what;   /* tag or digest; the caller's until on_done */
  const char *accept; /* NULL = anything */
  /* To send something: to kind and what, or to url where the registry said so. */
  const char *method; /* NULL = GET */
  const char *url;    /* NULL = by kind and what */
  const void *send;   /* the caller's until on_done */
  size_t send_len;
  const char *send_type;
  bool may_lack; /* 404 is an answer, not an error */
  int64_t size;  /* what will come; -1 = not known */
  size_t max;    /* without on_data: the most that is collected in body */
  /* NULL: collected in body. false: not taken, comes again after fetch_resume. Bytes come in order
   * and once, over any number of broken connections. */
  bool (*on_data)(struct fetch *f, const void *data, size_t len);
  void (*on_done)(struct fetch *f, const struct err *err); /* once; f is the caller's again */
  void *data;

  struct buf body;        /* collected; the caller frees it */
  char content_type[128]; /* what the server said it is */
  int status;             /* of the answer */
  char *location;         /* owned by the caller: an absolute URL, where the server named one */
  size_t endpoint;        /* in: first to try; out: which one served */
  struct fetch_run *run;  /* private */
};

int fetch_start(struct registry *r, struct fetch *f, struct err *err);
void fetch_resume(struct fetch *f);
/* on_done follows with err. */
void fetch_abort(struct fetch *f, const struct err *err);
/* Whether there is another place to try after the one that served f. */
bool fetch_has_next(const struct registry *r, const struct fetch *f);

#endif

/* Fetching from a registry: one GET, until it succeeds or there is no hope.
 *
 * Owns the list of endpoints (mirrors first, then the registry itself), a token for each, and per
 * fetch the transfer now running or the timer until the next attempt. What can go wrong and what
 * follows: no connection, a broken one, 429 and 5xx are tried again, with growing pauses or as long
 * as Retry-After says, five times without progress; then comes the next endpoint. 401 gets a token
 * (or sends the user's name and password) and is tried again once per token. 404 goes to the next
 * endpoint at once. A blob continues where it broke off (Range); a server without ranges sends all
 * again, and what we have is skipped.
 *
 * fetch: sending → (waiting for a token | waiting to retry) → sending → done */
#include "image/fetch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/list.h"
#include "base/val.h"
#include "core/loop.h"
#include "image/auth.h"
#include "image/ref.h"
#include "image/settings.h"
#include "net/httpc.h"
#include "net/url.h"

#define ATTEMPTS_MAX       5
#define BACKOFF_FIRST_MS   300
#define BACKOFF_MAX_MS     10000
#define RETRY_AFTER_MAX_MS 120000
#define TOKEN_MAX_BYTES    (1024 * 1024)
#define ERROR_MAX_BYTES    4096
#define DOCUMENT_MS        120000
#define PROGRESS_MIN       65536 /* bytes in one attempt, for the next to be the first again */

struct endpoint {
  char *base;   /* "https://registry-1.docker.io" */
  char *domain; /* whose credentials are used */
  char *ca;     /* NULL = the system's */
  bool plain_http;
  char *token;                 /* bearer, NULL = none yet */
  bool basic;                  /* send user and password themselves */
  unsigned logins;             /* how often a token was asked for */
  struct http_transfer *login; /* asking for a token now */
  struct buf answer, form;     /* of the login */
  struct list waiting;         /* fetch_run.node: fetches that need the token */
};

struct registry {
  struct loop *loop;
  struct httpc *http;
  char *path; /* "library/python" */
  struct endpoint *endpoints;
  size_t endpoints_n;
};

struct fetch_run {
  struct registry *r;
  struct fetch *f;
  struct http_transfer *transfer; /* NULL = none running */
  struct timer retry;
  struct list node;      /* in endpoint.waiting */
  unsigned attempts;     /* since the last progress */
  unsigned login;        /* endpoint.logins when the request was sent */
  bool relogged;         /* a 401 was answered with a new token already */
  uint64_t taken;        /* bytes the user has */
  uint64_t skip;         /* bytes of this answer that the user has already */
  uint64_t taken_before; /* taken when this attempt began */
  struct buf text;       /* what the server says about a failure */
  struct err stopped;    /* what this attempt was ended for, by us */
  struct err aborted;    /* set by fetch_abort */
};

static void send_request(struct fetch_run *run);

static void add_endpoint(struct registry *r, char *base, const char *domain,
                         const struct image_registry *conf)
{
  r->endpoints = xrealloc(r->endpoints, (r->endpoints_n + 1) * sizeof *r->endpoints);
  r->endpoints[r->endpoints_n++] = (struct endpoint){
      .base = base,
      .domain = xstrdup(domain),
      .ca = conf && conf->ca ? xstrdup(conf->ca) : NULL,
      .plain_http = strncmp(base, "http://", 7) == 0,
  };
}

static char *host_and_port(const char *url)
{
  const char *host = strstr(url, "://") + 3;
  char *own = xstrdup(host);
  own[strcspn(own, "/")] = '\0';
  return own;
}

static void add_mirrors(struct registry *r, const struct image_settings *settings,
                        const struct image_registry *conf)
{
  for (size_t i = 0; conf && i < conf->mirrors.n; i++) {
    const char *url = conf->mirrors.v[i];
    size_t len = strlen(url);
    while (len > 0 && url[len - 1] == '/') len--;
    struct buf base = {0};
    buf_append(&base, url, len);
    char *domain = host_and_port(url);
    add_endpoint(r, buf_take(&base, NULL), domain, image_settings_find(settings, domain));
    free(domain);
  }
}

int registry_new(struct registry **ret, struct loop *loop, struct httpc *http,
                 const struct image_ref *ref, const struct image_settings *settings,
                 bool plain_http, struct err *err)
{
  (void)err;
  struct registry *r = xcalloc(1, sizeof *r);
  r->loop = loop;
  r->http = http;
  r->path = xstrdup(ref->path);
  const struct image_registry *conf = image_settings_find(settings, ref->domain);
  add_mirrors(r, settings, conf);
  const char *host = strcmp(ref->domain, "docker.io") == 0 ? "registry-1.docker.io" : ref->domain;
  struct buf base = {0};
  buf_printf(&base, "%s://%s", plain_http || (conf && conf->plain_http) ? "http" : "https", host);
  add_endpoint(r, buf_take(&base, NULL), ref->domain, conf);
  for (size_t i = 0; i < r->endpoints_n; i++) list_init(&r->endpoints[i].waiting);
  *ret = r;
  return 0;
}

static void wipe(char *secret)
{
  if (secret) explicit_bzero(secret, strlen(secret));
  free(secret);
}

void registry_free(struct registry *r)
{
  if (!r) return;
  for (size_t i = 0; i < r->endpoints_n; i++) {
    struct endpoint *e = &r->endpoints[i];
    if (e->login) http_drop(e->login);
    free(e->base);
    free(e->domain);
    free(e->ca);
    wipe(e->token);
    buf_free(&e->answer);
    buf_free(&e->form);
  }
  free(r->endpoints);
  free(r->path);
  free(r);
}

static struct endpoint *endpoint_of(const struct fetch_run *run)
{
  return &run->r->endpoints[run->f->endpoint];
}

static void finish(struct fetch_run *run, const struct err *err)
{
  struct fetch *f = run->f;
  struct err copy;
  if (err) copy = *err;
  timer_stop(run->r->loop, &run->retry);
  list_remove(&run->node);
  buf_free(&run->text);
  free(run);
  f->run = NULL;
  f->on_done(f, err ? &copy : NULL);
}

static void next_endpoint(struct fetch_run *run, const struct err *why)
{
  if (run->f->endpoint + 1 >= run->r->endpoints_n) {
    finish(run, why);
    return;
  }
  run->f->endpoint++;
  run->attempts = 0;
  run->relogged = false;
  send_request(run);
}

static void on_retry(struct timer *timer)
{
  send_request(timer->data);
}

/* An unknown host is no network, most often, and a server that speaks no TLS will not learn it. */
static unsigned attempts_for(const struct err *why)
{
  if (why->sys_errno == EHOSTUNREACH || why->sys_errno == EPROTO) return ATTEMPTS_MAX - 3;
  return why->sys_errno == ECONNREFUSED ? ATTEMPTS_MAX - 2 : ATTEMPTS_MAX;
}

static void try_again(struct fetch_run *run, const struct err *why, uint64_t wait_ms)
{
  if (run->taken - run->taken_before >= PROGRESS_MIN) run->attempts = 0;
  if (++run->attempts >= attempts_for(why)) {
    next_endpoint(run, why);
    return;
  }
  uint64_t pause = (uint64_t)BACKOFF_FIRST_MS << (run->attempts - 1);
  if (pause > BACKOFF_MAX_MS) pause = BACKOFF_MAX_MS;
  timer_start(run->r->loop, &run->retry, wait_ms > pause ? wait_ms : pause);
}

/* --- logging in --- */

static void release_waiting(struct endpoint *e, const struct err *err)
{
  struct list batch;
  list_init(&batch);
  while (!list_empty(&e->waiting)) {
    struct list *node = e->waiting.next;
    list_remove(node);
    list_append(&batch, node);
  }
  while (!list_empty(&batch)) {
    struct fetch_run *run = list_entry(batch.next, struct fetch_run, node);
    list_remove(&run->node);
    if (err)
      next_endpoint(run, err);
    else
      send_request(run);
  }
}

static bool on_login_data(struct http_transfer *t, const void *data, size_t len)
{
  struct endpoint *e = http_data(t);
  if (e->answer.len + len <= TOKEN_MAX_BYTES) {
    buf_append(&e->answer, data, len);
    return true;
  }
  struct err err = {0};
  err_set(&err, ERR_PAYLOAD_TOO_LARGE, EFBIG, "its answer is too long");
  http_abort(t, &err);
  return true;
}

static void take_token(struct endpoint *e, int status, struct err *err)
{
  struct val v = {0};
  struct err ignored;
  if (status == 200 &&
      json_parse(&v, e->answer.data ? e->answer.data : "", e->answer.len, &ignored) == 0) {
    const char *token = val_get_str(&v, "token", val_get_str(&v, "access_token", ""));
    wipe(e->token);
    e->token = *token ? xstrdup(token) : NULL;
  }
  val_free(&v);
  if (status == 401 || status == 403)
    err_set(err, ERR_UNAUTHORIZED, EACCES, "the login server of %s refuses the credentials",
            e->domain);
  else if (status != 200)
    err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "the login server of %s answers %d", e->domain, status);
  else if (!e->token)
    err_set(err, ERR_UNAUTHORIZED, 0, "the login server of %s gives no token", e->domain);
}

static void on_login_done(struct http_transfer *t, const struct err *failure)
{
  struct endpoint *e = http_data(t);
  struct err err = {0};
  e->login = NULL;
  if (failure) {
    err = *failure;
    err_wrap(&err, "the login server of %s", e->domain);
  } else {
    take_token(e, http_status(t), &err);
  }
  if (e->answer.data) explicit_bzero(e->answer.data, e->answer.len);
  if (e->form.data) explicit_bzero(e->form.data, e->form.len);
  buf_free(&e->answer);
  buf_free(&e->form);
  release_waiting(e, err.kind == ERR_NONE ? NULL : &err);
}

static void add_query(struct buf *out, char separator, const char *name, const char *value)
{
  char *escaped = url_escape(value);
  buf_printf(out, "%c%s=%s", separator, name, escaped ? escaped : "");
  wipe(escaped);
}

/* Asks the realm for a token: with GET, or, for an identity token, by OAuth2's POST. */
static int start_login(struct registry *r, struct endpoint *e, const struct image_challenge *c,
                       const struct image_credential *who, struct err *err)
{
  struct buf url = {0}, userpwd = {0}, scope = {0};
  buf_printf(&scope, "repository:%s:pull", r->path);
  const char *wanted = c->scope && *c->scope ? c->scope : scope.data;
  buf_puts(&url, c->realm);
  if (who->identity_token) {
    buf_puts(&e->form, "grant_type=refresh_token&client_id=regolith");
    add_query(&e->form, '&', "refresh_token", who->identity_token);
    if (c->service) add_query(&e->form, '&', "service", c->service);
    add_query(&e->form, '&', "scope", wanted);
  } else {
    char separator = strchr(c->realm, '?') ? '&' : '?';
    if (c->service) add_query(&url, separator, "service", c->service);
    add_query(&url, c->service ? '&' : separator, "scope", wanted);
    if (who->user) buf_printf(&userpwd, "%s:%s", who->user, who->password);
  }
  struct http_request req = {.url = url.data,
                             .method = e->form.len ? "POST" : NULL,
                             .body = e->form.data,
                             .body_len = e->form.len,
                             .user_password = userpwd.data,
                             .ca_file = e->ca,
                             .plain_http = e->plain_http,
                             .total_ms = 60000,
                             .on_data = on_login_data,
                             .on_done = on_login_done,
                             .data = e};
  int rc = http_start(r->http, &req, &e->login, err);
  if (userpwd.data) explicit_bzero(userpwd.data, userpwd.len);
  buf_free(&userpwd);
  buf_free(&url);
  buf_free(&scope);
  return rc;
}

static int log_in(struct registry *r, struct endpoint *e, const char *header, struct err *err)
{
  struct image_challenge c;
  struct image_credential who = {0};
  image_challenge_parse(header ? header : "", &c);
  int rc = image_credential_find(e->domain, &who, err);
  e->logins++;
  if (rc == 0 && c.bearer && c.realm) {
    /* The realm is the registry's choice; over plain http secrets go only where http was allowed.
     */
    char *scheme = url_scheme(c.realm);
    if (!scheme || (strcmp(scheme, "https") != 0 && !e->plain_http))
      rc = err_set(err, ERR_DENIED, EPROTO, "%s wants a login over plain http", e->domain);
    else
      rc = start_login(r, e, &c, &who, err);
    free(scheme);
  } else if (rc == 0 && c.basic && who.user) {
    wipe(e->token);
    struct buf pair = {0};
    buf_printf(&pair, "%s:%s", who.user, who.password);
    e->token = buf_take(&pair, NULL);
    e->basic = true;
  } else if (rc == 0) {
    rc = err_set(err, ERR_UNAUTHORIZED, EACCES, "%s wants a login", e->domain);
    err_hint(err, "log in with: docker login %s (or podman login); its file is read from there",
             e->domain);
  }
  image_challenge_free(&c);
  image_credential_free(&who);
  return rc;
}

/* The server said 401. */
static void get_token(struct fetch_run *run, const char *header)
{
  struct endpoint *e = endpoint_of(run);
  struct err err = {0};
  if (run->login != e->logins && !e->login) { /* another fetch has got a new one meanwhile */
    send_request(run);
    return;
  }
  if (run->relogged) {
    err_set(&err, ERR_UNAUTHORIZED, EACCES,
            "%s refuses %s: it does not exist, or not for this login", e->domain, run->r->path);
    err_hint(&err, "check the name; log in with: docker login %s", e->domain);
    next_endpoint(run, &err);
    return;
  }
  run->relogged = true;
  if (!e->login && log_in(run->r, e, header, &err) < 0) {
    next_endpoint(run, &err);
    return;
  }
  if (e->login)
    list_append(&e->waiting, &run->node);
  else
    send_request(run);
}

/* --- one attempt --- */

static uint64_t retry_after_ms(const char *value)
{
  if (!value) return 0;
  char *end;
  unsigned long seconds = strtoul(value, &end, 10);
  if (end == value) { /* a date */
    struct tm tm = {0};
    const char *rest = strptime(value, "%a, %d %b %Y %H:%M:%S", &tm);
    int64_t left = rest ? (int64_t)timegm(&tm) - clock_wall_s() : 0;
    seconds = left > 0 ? (unsigned long)left : 0;
  }
  return seconds > RETRY_AFTER_MAX_MS / 1000 ? RETRY_AFTER_MAX_MS : seconds * 1000;
}

static void stop(struct fetch_run *run, struct http_transfer *t, const struct err *err)
{
  run->stopped = *err;
  http_abort(t, err);
}

static bool succeeded(const struct fetch *f, int status)
{
  if (f->may_lack && status == 404) return true;
  return status == 200 || status == 206 || (f->method && (status == 201 || status == 202));
}

static void take_location(struct fetch_run *run, const char *value)
{
  free(run->f->location);
  run->f->location = value && run->f->method ? url_join(endpoint_of(run)->base, value) : NULL;
}

static void on_head(struct http_transfer *t, int status)
{
  struct fetch_run *run = http_data(t);
  run->skip = run->f->on_data && status == 200 ? run->taken : 0;
  if (succeeded(run->f, status)) run->relogged = false; /* tokens expire during long transfers */
  const char *type = http_header(t, "Content-Type");
  snprintf(run->f->content_type, sizeof run->f->content_type, "%s", type ? type : "");
  run->f->content_type[strcspn(run->f->content_type, "; ")] = '\0';
  run->f->status = status;
  take_location(run, http_header(t, "Location"));
  unsigned long long from;
  const char *range = http_header(t, "Content-Range");
  if (status == 206 && (!range || sscanf(range, "bytes %llu-", &from) != 1 || from != run->taken)) {
    struct err err = {0};
    err_set(&err, ERR_ENGINE_UNAVAILABLE, EPROTO, "%s answers with another range than asked for",
            endpoint_of(run)->domain);
    stop(run, t, &err);
  }
}

static bool collect(struct fetch_run *run, const void *data, size_t len)
{
  struct fetch *f = run->f;
  if (f->body.len + len > f->max) {
    struct err err = {0};
    err_set(&err, ERR_PAYLOAD_TOO_LARGE, EFBIG, "%s sends a document of over %zu bytes",
            endpoint_of(run)->domain, f->max);
    stop(run, run->transfer, &err);
    return true;
  }
  buf_append(&f->body, data, len);
  return true;
}

static bool on_data(struct http_transfer *t, const void *data, size_t len)
{
  struct fetch_run *run = http_data(t);
  struct fetch *f = run->f;
  if (!succeeded(f, http_status(t))) {
    if (run->text.len + len <= ERROR_MAX_BYTES)
      buf_append(&run->text, data, len);
    else
      http_abort(t, &(struct err){0}); /* it may never end */
    return true;
  }
  if (!f->on_data) return collect(run, data, len);
  size_t skip = run->skip < len ? (size_t)run->skip : len;
  if (len > skip) {
    if (f->size >= 0 && run->taken + (len - skip) > (uint64_t)f->size) {
      struct err err = {0};
      err_set(&err, ERR_DENIED, EPROTO, "%s sends more of %s than its manifest says",
              endpoint_of(run)->domain, f->what);
      stop(run, t, &err);
      return true;
    }
    if (!f->on_data(f, (const char *)data + skip, len - skip)) return false;
    run->taken += len - skip;
  }
  run->skip -= skip;
  return true;
}

/* The first message of an error document, if it is one. */
static void server_says(const struct fetch_run *run, struct buf *out)
{
  struct val v = {0};
  struct err ignored;
  if (run->text.len && json_parse(&v, run->text.data, run->text.len, &ignored) == 0) {
    const struct val *errors = val_get(&v, "errors");
    const struct val *first =
        errors && errors->type == VAL_LIST && errors->list.n > 0 ? &errors->list.v[0] : NULL;
    buf_printf(out, "%.200s", first ? val_get_str(first, "message", "") : "");
  }
  val_free(&v);
}

static void on_status(struct fetch_run *run, struct http_transfer *t)
{
  int status = http_status(t);
  struct endpoint *e = endpoint_of(run);
  struct err err = {0};
  if (status == 401) {
    get_token(run, http_header(t, "WWW-Authenticate"));
    return;
  }
  struct buf says = {0};
  buf_puts(&says, "");
  server_says(run, &says);
  const char *colon = says.len ? ": " : "";
  if (status == 404) {
    err_set(&err, ERR_IMAGE_NOT_FOUND, ENOENT, "%s has no %s/%s%s%s", e->domain, run->r->path,
            run->f->what, colon, says.data);
    next_endpoint(run, &err);
  } else if (status == 429 || status >= 500) {
    err_set(&err, status == 429 ? ERR_RATE_LIMITED : ERR_ENGINE_UNAVAILABLE, EAGAIN,
            "%s answers %d%s%s", e->domain, status, colon, says.data);
    try_again(run, &err, retry_after_ms(http_header(t, "Retry-After")));
  } else {
    err_set(&err, ERR_DENIED, EACCES, "%s answers %d for %s/%s%s%s", e->domain, status,
            run->r->path, run->f->what, colon, says.data);
    next_endpoint(run, &err);
  }
  buf_free(&says);
}

static void on_done(struct http_transfer *t, const struct err *failure)
{
  struct fetch_run *run = http_data(t);
  struct fetch *f = run->f;
  run->transfer = NULL;
  struct err err = {0};
  if (run->aborted.kind != ERR_NONE) {
    finish(run, &run->aborted);
  } else if (failure) {
    err = *failure;
    if (run->stopped.kind == ERR_NONE) err_wrap(&err, "%s", endpoint_of(run)->domain);
    if (err_info(err.kind)->retryable)
      try_again(run, &err, 0);
    else
      next_endpoint(run, &err);
  } else if (!succeeded(f, http_status(t))) {
    on_status(run, t);
  } else if (f->on_data && f->size >= 0 && run->taken < (uint64_t)f->size) {
    err_set(&err, ERR_ENGINE_UNAVAILABLE, EPIPE, "%s sent only %llu of %lld bytes of %s",
            endpoint_of(run)->domain, (unsigned long long)run->taken, (long long)f->size, f->what);
    try_again(run, &err, 0);
  } else {
    finish(run, NULL);
  }
}

static bool same_part(const char *a, const char *b, const char *what)
{
  char *x = url_part(a, what), *y = url_part(b, what);
  bool same = x && y && strcmp(x, y) == 0;
  free(x);
  free(y);
  return same;
}

/* A registry may have its uploads sent elsewhere; what it knows us by is not for there. */
static bool is_ours(const struct endpoint *e, const char *url)
{
  return same_part(e->base, url, "scheme") && same_part(e->base, url, "host") &&
         same_part(e->base, url, "port");
}

static void send_request(struct fetch_run *run)
{
  struct fetch *f = run->f;
  struct endpoint *e = endpoint_of(run);
  struct buf url = {0}, accept = {0}, type = {0};
  if (f->url)
    buf_puts(&url, f->url);
  else
    buf_printf(&url, "%s/v2/%s/%s/%s", e->base, run->r->path, f->kind, f->what);
  if (f->accept) buf_printf(&accept, "Accept: %s", f->accept);
  if (f->send_type) buf_printf(&type, "Content-Type: %s", f->send_type);
  const char *headers[4] = {NULL};
  size_t n = 0;
  if (f->accept) headers[n++] = accept.data;
  if (f->send_type) headers[n++] = type.data;
  if (f->send) headers[n++] = "Expect:"; /* no second of waiting for a 100 */
  bool ours = is_ours(e, url.data);
  run->login = e->logins;
  run->text.len = 0;
  run->stopped = (struct err){0};
  run->taken_before = run->taken;
  if (!f->on_data) f->body.len = 0;
  struct http_request req = {.url = url.data,
                             .headers = headers,
                             .method = f->method,
                             .body = f->send,
                             .body_len = f->send_len,
                             .bearer = e->basic || !ours ? NULL : e->token,
                             .user_password = e->basic && ours ? e->token : NULL,
                             .from = run->taken,
                             .ca_file = e->ca,
                             .plain_http = e->plain_http,
                             .total_ms = f->on_data || f->send ? 0 : DOCUMENT_MS,
                             .on_head = on_head,
                             .on_data = on_data,
                             .on_done = on_done,
                             .data = run};
  struct err err = {0};
  int rc = http_start(run->r->http, &req, &run->transfer, &err);
  buf_free(&url);
  buf_free(&accept);
  buf_free(&type);
  if (rc < 0) try_again(run, &err, 0);
}

int fetch_start(struct registry *r, struct fetch *f, struct err *err)
{
  (void)err;
  struct fetch_run *run = xcalloc(1, sizeof *run);
  run->r = r;
  run->f = f;
  run->retry = (struct timer){.cb = on_retry, .data = run};
  list_init(&run->node);
  f->run = run;
  /* from the loop, so that a failure at once does not call back from here */
  timer_start(r->loop, &run->retry, 0);
  return 0;
}

void fetch_resume(struct fetch *f)
{
  if (f->run && f->run->transfer) http_resume(f->run->transfer);
}

static void on_abort_turn(struct timer *timer)
{
  struct fetch_run *run = timer->data;
  finish(run, &run->aborted);
}

void fetch_abort(struct fetch *f, const struct err *err)
{
  struct fetch_run *run = f->run;
  if (!run || run->aborted.kind != ERR_NONE) return;
  run->aborted = *err;
  if (run->transfer) {
    http_abort(run->transfer, err);
    return;
  }
  list_remove(&run->node); /* it may wait for a token or for its next attempt */
  run->retry.cb = on_abort_turn;
  timer_start(run->r->loop, &run->retry, 0);
}

size_t registry_origin(const struct registry *r)
{
  return r->endpoints_n - 1;
}

bool fetch_has_next(const struct registry *r, const struct fetch *f)
{
  return f->endpoint + 1 < r->endpoints_n;
}

/* http.request: the host asks, by the script's grants.
 *
 * Owns one curl client per script that asks anything, so that connections, and what a server knows
 * of them, are never shared between scripts; it is closed when the script has ended. Every hop is
 * checked before it is made: the host of the URL, each redirect (followed here, not by curl), and
 * the address that a connection goes to, when it is opened, so that a granted name cannot lead to
 * this machine or its network. Proxies are not used: what they connect to could not be checked. A
 * secret is added here, for its own host alone, over TLS or to this machine itself; it is in no
 * argument, answer, event or message.
 *
 * request: started → (redirected → started)* → answered      client: open → closing → gone */
#include "host/http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/val.h"
#include "core/loop.h"
#include "core/op.h"
#include "core/part.h"
#include "host/grants.h"
#include "net/httpc.h"
#include "net/part.h"
#include "wire/op.h"
#include "wire/schema.h"

enum {
  MAX_BODY = 16 << 20, /* bytes of an answer */
  MAX_REDIRECTS = 5,
  MAX_AT_ONCE = 64, /* requests of one script */
  CONNECT_MS = 15 * 1000
};

static const struct http_part *part; /* NULL until the first request; one per process */

struct http {
  struct loop *loop;
  const struct grants *(*grants)(void *data, uint64_t owner);
  void *data;
  struct list clients; /* client.node */
};

struct client {
  struct list node;
  struct http *http;
  uint64_t owner;
  struct httpc *curl;       /* owned */
  size_t active;            /* requests under way */
  void (*done)(void *data); /* of http_end_owner */
  void *done_data;
};

struct target {
  char *scheme, *host; /* owned; host as in the URL, brackets included */
  uint16_t port;
  bool tls;
};

struct request {
  struct client *client;
  struct op *op;
  struct http_args args; /* owned */
  char *url;             /* owned: where it goes now */
  char *method;          /* owned: a redirect may change it */
  struct target target;
  struct http_transfer *transfer; /* in flight, or NULL */
  char *location;                 /* owned: where the answer sends us */
  bool bodiless;                  /* a redirect took the body away */
  int status, hops;
  uint64_t deadline_ms;
  struct buf body;
  struct val headers; /* of the answer */
};

/* ---- URLs ---- */

static void target_done(struct target *t)
{
  free(t->scheme);
  free(t->host);
  *t = (struct target){0};
}

static int bad_url(struct err *err, const char *why)
{
  return err_arg(err, "url", "url %s", why);
}

static int target_parse(const char *url, struct target *ret, struct err *err)
{
  *ret =
      (struct target){.scheme = part->url_part(url, "scheme"), .host = part->url_part(url, "host")};
  cleanup_free char *port = part->url_part(url, "port"), *user = part->url_part(url, "user"),
                    *password = part->url_part(url, "password");
  if (!ret->scheme || !ret->host || !port) return bad_url(err, "is not a URL with a host in it");
  ret->tls = strcasecmp(ret->scheme, "https") == 0;
  ret->port = (uint16_t)strtoul(port, NULL, 10);
  if (!ret->tls && strcasecmp(ret->scheme, "http") != 0)
    return bad_url(err, "must begin with https:// or http://");
  if (user || password)
    return bad_url(err, "must not hold a user or password: send an Authorization header");
  for (const char *c = ret->host; *c; c++)
    if ((unsigned char)*c >= 0x80 || *c == '%')
      return bad_url(err, "has a host that is not plain ASCII: write it in its xn-- form");
  return 0;
}

static bool is_loopback(const char *host)
{
  return strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0 ||
         strcasecmp(host, "localhost") == 0;
}

static bool same_place(const struct target *a, const struct target *b)
{
  return a->port == b->port && a->tls == b->tls && strcasecmp(a->host, b->host) == 0;
}

/* ---- the end of a request ---- */

static void request_free(struct request *r)
{
  http_args_free(&r->args);
  target_done(&r->target);
  free(r->url);
  free(r->method);
  free(r->location);
  buf_free(&r->body);
  val_free(&r->headers);
  free(r);
}

static void answer(struct request *r, const struct err *err)
{
  struct op *op = r->op;
  r->client->active--;
  op->handler_data = NULL;
  if (!err) {
    size_t len;
    char *body = buf_take(&r->body, &len);
    op->result = val_map();
    val_add(&op->result, "status", val_int(r->status));
    val_add(&op->result, "headers", r->headers);
    val_add(&op->result, "body", body ? val_take_bytes(body, len) : val_str(""));
    r->headers = (struct val){0};
  }
  op_finish(op, err);
  request_free(r);
}

/* What curl says, in the words of this op. */
static void describe(const struct request *r, const struct err *why, struct err *ret)
{
  *ret = *why;
  if (r->op->cancel_why != ERR_NONE) {
    bool late = r->op->cancel_why == ERR_TIMEOUT;
    err_set(ret, r->op->cancel_why, 0,
            late ? "http.request ran out of time" : "http.request was cancelled");
    return;
  }
  if (why->sys_errno == ETIMEDOUT && loop_now_ms(r->client->http->loop) + 20 >= r->deadline_ms)
    err_set(ret, ERR_TIMEOUT, ETIMEDOUT, "no whole answer within %g s",
            (double)r->args.timeout_ms / 1000);
  ret->field[0] = ret->engine[0] = '\0';
  if (why->kind == ERR_DENIED && why->sys_errno == EACCES) {
    err_set(ret, ERR_DENIED, EACCES, "it leads to an address of this machine or its network");
    err_hint(ret,
             "an address that is not public is granted by itself: regolith run --allow-http "
             "127.0.0.1:%u",
             r->target.port);
  }
  err_wrap(ret, "http.request to %.200s", r->target.host);
}

/* ---- one hop ---- */

static int launch(struct request *r, struct err *err);

static bool is_redirect(int status)
{
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static void take_header(void *data, const char *name, const char *value)
{
  struct request *r = data;
  char key[256];
  size_t n = 0;
  for (; n < sizeof key - 1 && name[n]; n++) key[n] = (char)tolower((unsigned char)name[n]);
  key[n] = '\0';
  const char *before = val_get_str(&r->headers, key, NULL);
  if (!before) {
    val_add(&r->headers, key, val_str(value));
    return;
  }
  /* A cookie holds commas. */
  struct buf both = {0};
  buf_printf(&both, "%s%s%s", before, strcmp(key, "set-cookie") == 0 ? "\n" : ", ", value);
  val_set(&r->headers, key, val_str(both.data));
  buf_free(&both);
}

static void on_head(struct http_transfer *t, int status)
{
  struct request *r = part->data(t);
  const char *location = is_redirect(status) ? part->header(t, "Location") : NULL;
  r->status = status;
  if (location)
    r->location = part->url_join(r->url, location);
  else
    part->each_header(t, take_header, r);
}

static bool on_data(struct http_transfer *t, const void *data, size_t len)
{
  struct request *r = part->data(t);
  if (r->location) return true; /* what a redirect says beside is of no interest */
  if (r->body.len + len <= MAX_BODY) {
    buf_append(&r->body, data, len);
    return true;
  }
  struct err err;
  err_set(&err, ERR_PAYLOAD_TOO_LARGE, EFBIG, "the answer is longer than %d MiB", MAX_BODY >> 20);
  part->abort(t, &err);
  return true;
}

/* What a browser does: after 303, and after 301 and 302 to a POST, it is a GET without a body. */
static void change_method(struct request *r)
{
  bool post = strcmp(r->method, "POST") == 0, head = strcmp(r->method, "HEAD") == 0;
  if (r->status == 303 ? head : !(post && (r->status == 301 || r->status == 302))) return;
  free(r->method);
  r->method = xstrdup("GET");
  r->bodiless = true;
}

/* Credentials that the script sent along stay with the host that they were for. */
static void drop_credentials(struct strv *headers)
{
  size_t n = 0;
  for (size_t i = 0; i < headers->n; i++) {
    char *h = headers->v[i];
    bool secret = strncasecmp(h, "authorization=", 14) == 0 || strncasecmp(h, "cookie=", 7) == 0;
    if (secret)
      free(h);
    else
      headers->v[n++] = h;
  }
  headers->n = n;
}

static int redirect(struct request *r, struct err *err)
{
  struct target before = r->target;
  r->target = (struct target){0};
  free(r->url);
  r->url = take_ptr(&r->location);
  change_method(r);
  int rc = 0;
  if (++r->hops > MAX_REDIRECTS)
    rc = err_set(err, ERR_DENIED, ELOOP, "more than %d redirects", MAX_REDIRECTS);
  if (rc == 0) rc = target_parse(r->url, &r->target, err);
  if (rc == 0 && before.tls && !r->target.tls)
    rc = err_set(err, ERR_DENIED, 0, "a redirect from https to http");
  if (rc == 0 && !same_place(&before, &r->target)) drop_credentials(&r->args.headers);
  if (rc == 0) rc = launch(r, err);
  if (rc < 0) err_wrap(err, "http.request: redirected by %.150s", before.host);
  target_done(&before);
  return rc;
}

static void on_done(struct http_transfer *t, const struct err *err)
{
  struct request *r = part->data(t);
  struct err failure = {0};
  r->transfer = NULL;
  if (err || r->op->cancel_why != ERR_NONE) {
    describe(r, err ? err : &failure, &failure);
    answer(r, &failure);
  } else if (!r->location) {
    answer(r, NULL);
  } else if (redirect(r, &failure) < 0) {
    answer(r, &failure);
  }
}

static bool may_connect(struct http_transfer *t, const struct sockaddr *addr)
{
  const struct request *r = part->data(t);
  const struct http *h = r->client->http;
  return grants_admit_address(h->grants(h->data, r->client->owner), addr, r->target.port);
}

/* The header lines for curl, ended by NULL: a list to be freed with free_lines. */
static char **header_lines(const struct strv *headers, bool has_secret)
{
  char **lines = xcalloc(headers->n + 2, sizeof *lines);
  size_t n = 0;
  bool typed = false;
  for (size_t i = 0; i < headers->n; i++) {
    const char *h = headers->v[i], *value = strchr(h, '=') + 1;
    if (has_secret && strncasecmp(h, "authorization=", 14) == 0) continue;
    typed = typed || strncasecmp(h, "content-type=", 13) == 0;
    struct buf line = {0};
    buf_append(&line, h, (size_t)(value - 1 - h));
    buf_printf(&line, *value ? ": %s" : ";", value); /* curl's way to say an empty one */
    lines[n++] = buf_take(&line, NULL);
  }
  if (!typed) lines[n++] = xstrdup("Content-Type:"); /* none, instead of curl's guess */
  return lines;
}

static void free_lines(char **lines)
{
  for (char **l = lines; *l; l++) free(*l);
  free(lines);
}

static int find_secret(const struct request *r, const struct grants *g, const char **ret,
                       struct err *err)
{
  *ret = grants_secret(g, r->target.host, r->target.port);
  if (!*ret || r->target.tls || is_loopback(r->target.host)) return 0;
  int rc =
      err_set(err, ERR_DENIED, 0,
              "%.200s has a secret, which does not travel over http without TLS", r->target.host);
  err_hint(err, "use https://");
  return rc;
}

/* One hop: r->url, whose target was parsed. */
static int launch(struct request *r, struct err *err)
{
  struct http *h = r->client->http;
  const struct grants *g = h->grants(h->data, r->client->owner);
  const char *secret = NULL;
  int rc = grants_admit_http(g, r->target.host, r->target.port, err);
  if (rc == 0) rc = find_secret(r, g, &secret, err);
  if (rc < 0) return rc;
  uint64_t now = loop_now_ms(h->loop), left = r->deadline_ms > now ? r->deadline_ms - now : 1;
  char **lines = header_lines(&r->args.headers, secret != NULL);
  bool body = r->args.body && !r->bodiless;
  struct http_request req = {
      .method = strcmp(r->method, "GET") == 0 && !body ? NULL : r->method,
      .url = r->url,
      .headers = (const char *const *)lines,
      .bearer = secret,
      .body = body ? r->args.body : NULL,
      .body_len = body ? r->args.body_len : 0,
      .plain_http = true,
      .stay = true,
      .direct = true,
      .connect_ms = left < CONNECT_MS ? left : CONNECT_MS,
      .stall_ms = left + 1000,
      .total_ms = left,
      .may_connect = may_connect,
      .on_head = on_head,
      .on_data = on_data,
      .on_done = on_done,
      .data = r,
  };
  rc = part->start(r->client->curl, &req, &r->transfer, err);
  free_lines(lines);
  return rc;
}

/* ---- clients ---- */

static void on_client_closed(void *data)
{
  struct client *c = data;
  if (c->done) c->done(c->done_data);
  free(c);
}

static struct client *client_of(const struct http *h, uint64_t owner)
{
  LIST_FOREACH (it, &h->clients) {
    struct client *c = list_entry(it, struct client, node);
    if (c->owner == owner) return c;
  }
  return NULL;
}

static int client_open(struct http *h, uint64_t owner, struct client **ret, struct err *err)
{
  const struct part_head *head;
  int rc = part ? 0 : part_open("http", sizeof *part, &head, err);
  if (rc < 0) return rc;
  if (!part) part = (const struct http_part *)head;
  struct client *c = *ret = client_of(h, owner);
  if (c) return 0;
  c = xcalloc(1, sizeof *c);
  *c = (struct client){.http = h, .owner = owner};
  rc = part->client_new(&c->curl, h->loop, err);
  if (rc < 0) {
    free(c);
    return rc;
  }
  list_append(&h->clients, &c->node);
  *ret = c;
  return 0;
}

void http_end_owner(struct http *h, uint64_t owner, void (*done)(void *data), void *data)
{
  struct client *c = client_of(h, owner);
  if (!c) {
    done(data);
    return;
  }
  list_remove(&c->node);
  c->done = done;
  c->done_data = data;
  part->client_close(c->curl, on_client_closed, c);
}

/* ---- the op ---- */

static bool is_token(const char *s, size_t len)
{
  for (size_t i = 0; i < len; i++)
    if (!isalnum((unsigned char)s[i]) && !strchr("!#$%&'*+-.^_`|~", s[i])) return false;
  return len > 0;
}

static int check_headers(const struct strv *headers, struct err *err)
{
  /* What curl makes itself, and what would take a request past the host that was granted. */
  static const char *const ours[] = {"host",
                                     "content-length",
                                     "transfer-encoding",
                                     "connection",
                                     "proxy-connection",
                                     "proxy-authorization",
                                     "upgrade",
                                     "te",
                                     "trailer",
                                     "expect"};
  for (size_t i = 0; i < headers->n; i++) {
    const char *h = headers->v[i];
    size_t len = strcspn(h, "=");
    if (!is_token(h, len) || len > 128)
      return err_arg(err, "headers", "headers: name %zu is not the name of a header", i + 1);
    if (h[len + 1 + strcspn(h + len + 1, "\r\n")])
      return err_arg(err, "headers", "headers: %.*s must not hold a line break", (int)len, h);
    for (size_t k = 0; k < sizeof ours / sizeof *ours; k++)
      if (strlen(ours[k]) == len && strncasecmp(ours[k], h, len) == 0)
        return err_arg(err, "headers", "headers: %s is not for scripts to set", ours[k]);
  }
  return 0;
}

static int check_method(char *method, struct err *err)
{
  for (char *c = method; *c; c++) *c = (char)toupper((unsigned char)*c);
  if (is_token(method, strlen(method)) && strlen(method) <= 20 && strcmp(method, "CONNECT") != 0 &&
      strcmp(method, "TRACE") != 0)
    return 0;
  struct val shown = val_str(method);
  int rc = field_wrong(err, "method", &shown, "GET, HEAD, POST, PUT, PATCH, DELETE or the like");
  val_free(&shown);
  return rc;
}

static int begin(struct http *h, struct op *op, struct request *r, struct err *err)
{
  int rc = check_method(r->args.method, err);
  if (rc == 0) rc = check_headers(&r->args.headers, err);
  if (rc == 0) rc = client_open(h, op->owner, &r->client, err);
  if (rc == 0 && r->client->active == MAX_AT_ONCE)
    rc = err_set(err, ERR_LIMIT, 0,
                 "%d requests are under way, which is the most a script may have", MAX_AT_ONCE);
  if (rc == 0) rc = target_parse(r->args.url, &r->target, err);
  if (rc < 0) return rc;
  r->op = op;
  r->url = xstrdup(r->args.url);
  r->method = xstrdup(r->args.method);
  r->headers = val_map();
  r->deadline_ms = loop_now_ms(h->loop) + r->args.timeout_ms;
  return launch(r, err);
}

static int start(struct op *op, void *ctx, struct err *err)
{
  struct request *r = xcalloc(1, sizeof *r);
  int rc = http_args_parse(&op->args, &r->args, err);
  if (rc == 0) rc = begin(ctx, op, r, err);
  if (rc < 0) {
    request_free(r);
    return rc;
  }
  r->client->active++;
  op->handler_data = r;
  return 0;
}

static void cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct request *r = op->handler_data;
  struct err err;
  err_set(&err, op->cancel_why, 0, "cancelled");
  if (r && r->transfer) part->abort(r->transfer, &err);
}

static const struct op_handler handler = {.name = "http.request", .start = start, .cancel = cancel};

struct http *http_new(struct loop *loop, struct ops *ops,
                      const struct grants *(*grants)(void *data, uint64_t owner), void *data)
{
  struct http *h = xcalloc(1, sizeof *h);
  *h = (struct http){.loop = loop, .grants = grants, .data = data};
  list_init(&h->clients);
  ops_register(ops, &handler, h);
  return h;
}

void http_free(struct http *h)
{
  if (h && !list_empty(&h->clients)) abort();
  free(h);
}

/* The API's server: a request becomes a call, a call an answer.
 *
 * Whatever can be refused by a request's head is refused there, before a byte of its body is kept:
 * an unknown path, a wrong method, no key, too many requests. What is left is read as JSON and
 * handed to its route, which runs ops with the key's owner: one tenant cannot name what another
 * has, because the supervisor looks only among an owner's own. Errors have one shape, whoever says
 * them.
 *
 * a call: head → (body) → running (its op) → answered → freed */
#include "api/api_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "ledger/idem.h"
#include "wire/compute.h"

#define VALUES_MAX 262144 /* in one body: each takes some memory */
#define RETRY_S    1      /* where nobody knows better */

static const char json_type[] = "application/json";

/* ---- answers ---- */

static void forget(struct call *c)
{
  list_remove(&c->node);
  feed_free(c->feed);
  call_note_end(c, NULL, "cancelled");
  val_free(&c->body);
  buf_free(&c->headers);
  buf_free(&c->answer);
  free(c->segment);
  free(c->idem_key);
  struct api *api = c->api;
  free(c);
  if (api->closing && api->httpd_closed && list_empty(&api->calls))
    loop_defer(api->loop, &api->closed);
}

void call_check_free(struct call *c)
{
  if (!c->x && !c->op && c->waits == 0) forget(c);
}

static void send_answer(struct call *c, int status, const char *type, struct buf *body)
{
  if (c->x) {
    httpd_answer(c->x, status, type, c->headers.data, body);
  } else {
    buf_free(body);
    call_check_free(c);
  }
}

/* ---- answers that are kept ---- */

/* A failure that nothing came of is not: the next try with that key is a first one. */
static bool is_kept(int status)
{
  return status < 500 && status != 401 && status != 402 && status != 429;
}

static void send_kept(struct call *c)
{
  struct buf body = c->answer; /* the call may be gone before its answer is */
  if (c->op || !c->kept) return;
  c->answer = (struct buf){0};
  c->kept = false;
  send_answer(c, c->status, c->type, &body);
}

static void on_kept(void *data, const struct err *err)
{
  struct call *c = data;
  c->waits--;
  if (c->stale) {
    c->stale = false;
    call_check_free(c);
    return;
  }
  if (err) log_warn("an answer could not be kept under its Idempotency-Key: %s", err->msg);
  /* What was not charged may be asked for again. */
  if (err && !c->early) idem_forget(c->api->conf.store, c->account.id, c->idem_key, NULL, NULL);
  c->kept = true;
  send_kept(c);
}

void call_answer(struct call *c, int status, const char *type, struct buf *body)
{
  struct api *api = c->api;
  bool idem = c->idem;
  c->idem = false;
  if (idem && is_kept(status)) {
    c->status = status;
    c->type = type;
    c->answer = *body;
    *body = (struct buf){0};
    c->waits++;
    idem_finish(api->conf.store, c->account.id, c->idem_key, status, c->answer.data, c->answer.len,
                on_kept, c);
    return;
  }
  if (idem) idem_forget(api->conf.store, c->account.id, c->idem_key, NULL, NULL);
  send_answer(c, status, type, body);
}

void call_json(struct call *c, int status, const struct val *v)
{
  struct buf body = {0};
  json_print(&body, v);
  call_answer(c, status, json_type, &body);
}

void call_error_with(struct call *c, const struct err *err, const struct val *result)
{
  struct buf body = {0};
  int status = compute_status(err);
  compute_print_error(&body, err, status, c->sandbox_id, result, c->base64);
  if (status == 401) buf_puts(&c->headers, "WWW-Authenticate: Bearer\r\n");
  if (status == 503) buf_printf(&c->headers, "Retry-After: %d\r\n", RETRY_S);
  if (status == 429 && !(c->headers.data && strstr(c->headers.data, "Retry-After: ")))
    buf_printf(&c->headers, "Retry-After: %d\r\n", RETRY_S);
  call_answer(c, status, json_type, &body);
}

/* A bill that was not paid says what is missing. */
void call_error(struct call *c, const struct err *err)
{
  call_error_with(c, err, err->kind == ERR_PAYMENT_REQUIRED ? c->result : NULL);
}

/* An error whose status no kind has. */
static void call_refuse(struct call *c, int status, enum err_kind kind, const char *text,
                        const char *hint)
{
  struct err err = {0};
  struct buf body = {0};
  err_set(&err, kind, 0, "%s", text);
  if (hint) err_hint(&err, "%s", hint);
  compute_print_error(&body, &err, status, NULL, NULL, false);
  call_answer(c, status, json_type, &body);
}

static void print_fault(void *data, int status, const char *text, struct buf *out)
{
  (void)data;
  struct err err = {0};
  err_set(&err,
          status == 413   ? ERR_PAYLOAD_TOO_LARGE
          : status == 503 ? ERR_CAPACITY
                          : ERR_INVALID_ARGUMENT,
          0, "%s", text);
  compute_print_error(out, &err, status, NULL, NULL, false);
}

/* ---- ops ---- */

/* The answer is kept in the transaction that charges for it: a server that is killed has either
 * charged and can answer again, or has not charged. */
static void on_op_ending(struct op *op, const struct err *err)
{
  struct call *c = op->client_data;
  if (err || !c->idem) return;
  c->early = true;
  c->result = &op->result;
  c->on_op(c, op, NULL);
}

/* The charge failed: the answer that was made early is none. */
static void take_back_answer(struct call *c)
{
  buf_free(&c->answer);
  c->early = false;
  c->stale = !c->kept;
  c->kept = false;
  c->idem = true;
}

static void on_op_done(struct op *op, const struct err *err)
{
  struct call *c = op->client_data;
  c->op = NULL;
  c->result = &op->result;
  if (c->early && !err) {
    op_free(op);
    send_kept(c);
    return;
  }
  if (c->early) take_back_answer(c);
  c->on_op(c, op, err);
  op_free(op);
}

static void on_op_chunk(struct op *op, enum op_stream stream, const void *data, size_t len);

static const struct op_client op_client = {.on_ending = on_op_ending, .on_done = on_op_done};
static const struct op_client streaming_client = {.on_chunk = on_op_chunk, .on_done = on_op_done};

static void on_op_chunk(struct op *op, enum op_stream stream, const void *data, size_t len)
{
  feed_chunk(op->client_data, stream, data, len);
}

void call_op(struct call *c, const char *name, struct val args, uint64_t timeout_ms,
             void (*on_op)(struct call *c, struct op *op, const struct err *err))
{
  struct err err = {0};
  struct op *op = op_new(name);
  op->args = args;
  op->owner = c->account.owner;
  op->timeout_ms = timeout_ms;
  op->client = c->feed ? &streaming_client : &op_client;
  op->client_data = c;
  c->on_op = on_op;
  if (op_submit(c->api->ops, op, &err) == 0) {
    c->op = op;
    return;
  }
  c->result = &op->result;
  on_op(c, op, &err);
  op_free(op);
}

/* ---- keys ---- */

static int find_account(struct call *c, struct err *err)
{
  const char *auth = httpd_header(c->x, "authorization");
  if (!auth || strncasecmp(auth, "Bearer ", 7) != 0) {
    int rc = err_set(err, ERR_UNAUTHORIZED, 0, "the request has no key");
    err_hint(err, "send the header Authorization: Bearer sk-...");
    return rc;
  }
  auth += 7 + strspn(auth + 7, " ");
  int rc = ledger_authenticate(c->api->conf.ledger, auth, &c->account, err);
  c->has_account = rc == 0;
  return rc;
}

static int take_rate(struct call *c, struct err *err)
{
  struct ledger_rate rate = {0};
  int rc = ledger_rate_take(c->api->conf.ledger, c->account.id, &rate, err);
  if (rate.limit)
    buf_printf(&c->headers,
               "X-RateLimit-Limit: %u\r\nX-RateLimit-Remaining: %u\r\nX-RateLimit-Reset: %u\r\n",
               rate.limit, rate.remaining, rate.reset_s);
  if (rc < 0) buf_printf(&c->headers, "Retry-After: %u\r\n", rate.retry_after_s);
  return rc;
}

/* ---- requests ---- */

static void on_head(struct httpd_exchange *x)
{
  struct api *api = httpd_data(x);
  struct call *c = xcalloc(1, sizeof *c);
  struct buf allow = {0};
  struct err err = {0};
  *c = (struct call){.api = api, .x = x};
  list_append(&api->calls, &c->node);
  httpd_set_context(x, c);
  c->route = route_find(httpd_method(x), httpd_path(x), &c->segment, &allow);
  if (!c->route && allow.len > 0) {
    buf_printf(&c->headers, "Allow: %s\r\n", allow.data);
    call_refuse(c, 405, ERR_INVALID_ARGUMENT, "this path does not take this method", NULL);
  } else if (!c->route) {
    call_refuse(c, 404, ERR_NOT_FOUND, "there is no such path here",
                "GET /openapi.json says what there is");
  } else if (!(c->route->flags & ROUTE_OPEN) && find_account(c, &err) < 0) {
    call_error(c, &err);
  } else if (!(c->route->flags & ROUTE_OPEN) && take_rate(c, &err) < 0) {
    call_error(c, &err);
  } else if (httpd_header(x, "content-encoding")) {
    call_refuse(c, 415, ERR_INVALID_ARGUMENT, "bodies are taken as they are, without an encoding",
                NULL);
  }
  buf_free(&allow);
}

/* How many values the text can hold at most: JSON in memory is far larger than as text. */
static bool too_many_values(const char *text, size_t len)
{
  size_t n = 0;
  bool in_string = false;
  for (size_t i = 0; i < len; i++) {
    if (text[i] == '"') in_string = !in_string;
    if (in_string && text[i] == '\\') i++;
    if (!in_string && (text[i] == ',' || text[i] == '[' || text[i] == '{')) n++;
  }
  return n > VALUES_MAX;
}

static int read_body(struct call *c, struct err *err)
{
  size_t len;
  const char *text = httpd_body(c->x, &len);
  if (!(c->route->flags & ROUTE_JSON)) {
    if (len > 0) return err_set(err, ERR_INVALID_ARGUMENT, 0, "this request takes no body");
    return 0;
  }
  c->body = val_map();
  if (len == 0) return 0;
  if (too_many_values(text, len))
    return err_set(err, ERR_INVALID_ARGUMENT, 0, "the body has more than %d values", VALUES_MAX);
  val_free(&c->body);
  int rc = json_parse(&c->body, text, len, err);
  if (rc < 0) return rc;
  if (c->body.type == VAL_MAP) return 0;
  return err_set(err, ERR_INVALID_ARGUMENT, 0, "the body must be a JSON object, not %s",
                 val_type_name(c->body.type));
}

/* ---- requests that may come twice ---- */

static void on_idem(void *data, enum idem_state state, int status, const void *body, size_t len,
                    const struct err *err)
{
  struct call *c = data;
  struct err conflict = {0};
  struct buf answer = {0};
  c->waits--;
  if (err) {
    call_error(c, err);
    return;
  }
  switch (state) {
  case IDEM_NEW:
    c->idem = true;
    c->route->run(c);
    break;
  case IDEM_REPLAY:
    buf_puts(&c->headers, "Idempotency-Replayed: true\r\n");
    buf_append(&answer, body, len);
    call_answer(c, status, json_type, &answer);
    break;
  case IDEM_IN_FLIGHT:
    err_set(&conflict, ERR_CONFLICT, 0, "a request with this Idempotency-Key is being answered");
    call_error(c, &conflict);
    break;
  case IDEM_MISMATCH:
    err_set(&conflict, ERR_CONFLICT, 0, "this Idempotency-Key came with another request before");
    call_error(c, &conflict);
    break;
  }
}

static int check_idem(const struct call *c, struct err *err)
{
  if (!(c->route->flags & ROUTE_IDEM))
    return err_arg(err, "Idempotency-Key", "Idempotency-Key is taken by create and exec alone");
  if (feed_wanted(c))
    return err_arg(err, "Idempotency-Key",
                   "Idempotency-Key and Accept: text/event-stream exclude each other");
  return 0;
}

/* Asks the store what is known of the key; the route runs, or not, when it has answered. */
static int begin_idem(struct call *c, const char *key, struct err *err)
{
  size_t len;
  const char *body = httpd_body(c->x, &len);
  struct buf request = {0};
  int rc = check_idem(c, err);
  if (rc < 0) return rc;
  buf_printf(&request, "%s %s\n", c->route->method, c->route->name);
  buf_append(&request, body, len);
  c->idem_key = xstrdup(key);
  rc = idem_begin(c->api->conf.store,
                  &(struct idem_request){.account = c->account.id,
                                         .key = c->idem_key,
                                         .request = request.data,
                                         .request_len = request.len},
                  on_idem, c, err);
  if (rc == 0) c->waits++;
  buf_free(&request);
  return rc;
}

static void on_request(struct httpd_exchange *x)
{
  struct call *c = httpd_context(x);
  struct err err = {0};
  int rc = 0;
  const char *key = httpd_header(x, "idempotency-key");
  if (*httpd_query(x) && !(c->route->flags & ROUTE_QUERY))
    rc = err_set(&err, ERR_INVALID_ARGUMENT, 0, "this path takes no query parameters");
  if (rc == 0) rc = read_body(c, &err);
  if (rc == 0 && key) rc = begin_idem(c, key, &err);
  if (rc < 0)
    call_error(c, &err);
  else if (!key)
    c->route->run(c);
}

static void on_gone(struct httpd_exchange *x)
{
  struct call *c = httpd_context(x);
  call_gone(c);
}

static void on_full(struct httpd_exchange *x, bool full)
{
  feed_full(httpd_context(x), full);
}

static void on_end(struct httpd_exchange *x, const struct httpd_record *record)
{
  struct api *api = httpd_data(x);
  struct call *c = httpd_context(x); /* NULL: its head was no good */
  metrics_count(api, c ? c->route : NULL, record);
  access_log(api, c, x, record);
  if (!c) return;
  c->x = NULL;
  call_check_free(c);
}

static const struct httpd_ops httpd_ops = {.on_head = on_head,
                                           .on_request = on_request,
                                           .on_gone = on_gone,
                                           .on_full = on_full,
                                           .on_end = on_end,
                                           .print_fault = print_fault};

/* ---- life ---- */

static void on_closed(struct defer *d)
{
  struct api *api = d->data;
  void (*done)(void *) = api->on_closed;
  void *data = api->on_closed_data;
  access_flush(api);
  timer_stop(api->loop, &api->log_timer);
  buf_free(&api->log);
  free(api->counters);
  recent_free(api->recent);
  free(api);
  if (done) done(data);
}

static void on_log_timer(struct timer *t)
{
  access_flush(t->data);
}

int api_new(struct api **ret, const struct api_conf *conf, struct err *err)
{
  struct api *api = xcalloc(1, sizeof *api);
  *api = (struct api){.conf = *conf, .loop = conf->loop, .ops = conf->ops};
  list_init(&api->calls);
  api->closed = (struct defer){.cb = on_closed, .data = api};
  api->log_timer = (struct timer){.cb = on_log_timer, .data = api};
  api->started_ms = clock_mono_ms();
  api->counters = xcalloc(routes_count() + 1, sizeof *api->counters);
  api->recent = recent_new();
  int rc = httpd_new(&api->httpd,
                     &(struct httpd_conf){.loop = conf->loop,
                                          .ops = &httpd_ops,
                                          .data = api,
                                          .max_connections = conf->max_connections,
                                          .max_body = COMPUTE_BODY_MAX,
                                          .tls_cert = conf->tls_cert,
                                          .tls_key = conf->tls_key},
                     err);
  if (rc < 0) {
    on_closed(&api->closed);
    return rc;
  }
  *ret = api;
  return 0;
}

int api_listen(struct api *api, const char *address, unsigned *ret_port, struct err *err)
{
  return httpd_listen(api->httpd, address, ret_port, err);
}

void api_set_access_log(struct api *api, int fd)
{
  access_flush(api);
  api->conf.access_log = fd;
}

int api_reload(struct api *api, struct err *err)
{
  return httpd_reload(api->httpd, err);
}

void api_drain(struct api *api, void (*done)(void *data), void *data)
{
  httpd_drain(api->httpd, done, data);
}

static void on_httpd_closed(void *data)
{
  struct api *api = data;
  api->httpd_closed = true;
  if (list_empty(&api->calls)) loop_defer(api->loop, &api->closed);
}

void api_close(struct api *api, void (*done)(void *data), void *data)
{
  if (!api) return;
  api->closing = true;
  api->on_closed = done;
  api->on_closed_data = data;
  httpd_close(api->httpd, on_httpd_closed, api);
  LIST_FOREACH_SAFE (it, &api->calls) {
    struct call *c = list_entry(it, struct call, node);
    if (c->op) op_cancel(c->op, ERR_CANCELLED);
  }
}

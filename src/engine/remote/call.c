/* One request to the server, until it is answered for good.
 *
 * A request is made again only where that cannot make anything run twice: the server was not
 * reached, it refused to begin (429, or 503 with Retry-After), the request does the same when it is
 * repeated, or the server is known to honour the Idempotency-Key that it carries. Whatever the
 * server says is data to be judged: the size of an answer is bounded, what is no JSON is an error,
 * and nothing of ours but the key's header ever holds the key.
 *
 * waiting ⇄ in flight → done */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "engine/remote/remote_internal.h"
#include "wire/compute.h"

enum {
  ANSWER_MAX =
      16 << 20, /* bytes; twice what the API allows, because base64 and escapes take room */
  TRIES = 4,
  FIRST_WAIT_MS = 150, /* doubled with each try */
  REFUSED_TRIES = 20,  /* of a server that says when to come back */
  WAIT_MAX_S = 60
};

static const struct http_part *part; /* NULL until the first request; one per process */

static void call_free(struct remote_call *c)
{
  timer_stop(c->e->loop, &c->again);
  list_remove(&c->node);
  events_done(&c->events);
  buf_free(&c->answer);
  for (size_t i = 0; c->headers[i]; i++) free(c->headers[i]);
  free(c->url);
  free(c->body);
  free(c);
}

static void check_closed(struct remote *e);

static void finish(struct remote_call *c, const struct err *err, const struct val *answer)
{
  struct remote *e = c->e;
  struct err named = {0};
  static const struct val none = {0};
  if (err) {
    named = *err;
    snprintf(named.engine, sizeof named.engine, "%s", e->base.name);
  }
  timer_stop(e->loop, &c->again);
  c->conf.on_done(c, err ? &named : NULL, c->status, answer ? answer : &none);
  call_free(c);
  check_closed(e);
}

static int send(struct remote_call *c, struct err *err);

static void on_again(struct timer *t)
{
  struct remote_call *c = t->data;
  struct err err = c->why;
  if (c->aborted || send(c, &err) < 0) finish(c, &err, NULL);
}

/* false: there is no time or no try left. */
static bool try_again(struct remote_call *c, uint64_t wait_ms, unsigned tries)
{
  uint64_t now = loop_now_ms(c->e->loop);
  if (c->aborted || c->tries >= tries || (c->deadline_ms && now + wait_ms >= c->deadline_ms))
    return false;
  timer_start(c->e->loop, &c->again, wait_ms);
  return true;
}

static uint64_t backoff_ms(const struct remote_call *c)
{
  return (uint64_t)FIRST_WAIT_MS << (c->tries < 6 ? c->tries - 1 : 5);
}

static bool repeatable(const struct remote_call *c)
{
  return c->conf.again == REMOTE_SAFE || (c->conf.again == REMOTE_REPLAY && c->e->replays);
}

static bool is_stranger(const struct err *err)
{
  return err->sys_errno == EKEYREJECTED;
}

static bool not_reached(const struct err *err)
{
  return err->sys_errno == ECONNREFUSED || err->sys_errno == EHOSTUNREACH || is_stranger(err);
}

/* Of Retry-After, in ms; a date is taken as a second. 0: it says nothing. */
static uint64_t retry_after_ms(struct http_transfer *t)
{
  const char *text = part->header(t, "Retry-After");
  if (!text) return 0;
  char *end;
  unsigned long s = strtoul(text, &end, 10);
  if (end == text) return 1000;
  return (s == 0 ? 1 : s > WAIT_MAX_S ? WAIT_MAX_S : s) * 1000ull;
}

static void explain(const struct remote_call *c, struct err *err)
{
  err_wrap(err, "%s", c->e->base_url);
  if (is_stranger(err))
    err_hint(err, "a private authority is named by ca_file = PATH in the configuration of \"%s\"",
             c->e->base.name);
  else if (!err->hint[0] && not_reached(err))
    err_hint(err, "is the server up? its address is what the configuration or REGOLITH_URL says");
}

/* A transport error: nothing, or not all, was answered. */
static void on_lost(struct remote_call *c, const struct err *why)
{
  struct err err = *why;
  bool unseen = not_reached(&err) && !c->sent;
  c->sent = c->sent || !unseen;
  if (unseen ? !c->last && !is_stranger(&err) : repeatable(c))
    if (try_again(c, backoff_ms(c), TRIES)) return;
  if (!c->aborted) explain(c, &err);
  finish(c, &err, NULL);
}

static void on_answer(struct remote_call *c, struct http_transfer *t)
{
  struct err err = {0};
  struct val answer = {0};
  bool ok = c->status >= 200 && c->status < 300;
  uint64_t wait_ms = retry_after_ms(t);
  bool refused = (c->status == 429 || c->status == 503) && wait_ms > 0;
  if (refused) c->sent = false; /* it has not begun */
  if (c->conf.idem && part->header(t, "Idempotency-Replayed")) c->e->replays = true;
  if (refused && !c->last && try_again(c, wait_ms, REFUSED_TRIES)) return;
  if (!ok && !refused && c->status >= 500 && repeatable(c) && try_again(c, backoff_ms(c), TRIES))
    return;
  bool parsed = c->answer.len > 0 && json_parse(&answer, c->answer.data, c->answer.len, NULL) == 0;
  if (!ok) {
    compute_read_error(c->status, parsed ? &answer : NULL, &err);
    if (c->status < 400) err_set(&err, ERR_ENGINE_UNAVAILABLE, 0, "HTTP status %d", c->status);
    if (c->status == 401)
      err_hint(&err, "the key is what the configuration or REGOLITH_API_KEY says");
    if (!parsed) explain(c, &err);
  } else if (!parsed && !c->is_events) {
    err_set(&err, ERR_ENGINE_UNAVAILABLE, EPROTO, "the answer is no JSON");
    explain(c, &err);
  }
  finish(c, err.kind == ERR_NONE ? NULL : &err, &answer);
  val_free(&answer);
}

static void on_done(struct http_transfer *t, const struct err *err)
{
  struct remote_call *c = part->data(t);
  c->transfer = NULL;
  if (err)
    on_lost(c, err);
  else
    on_answer(c, t);
}

static void on_head(struct http_transfer *t, int status)
{
  struct remote_call *c = part->data(t);
  const char *type = part->header(t, "Content-Type");
  c->status = status;
  c->sent = true;
  c->is_events =
      status == 200 && c->conf.events && type && strncasecmp(type, "text/event-stream", 17) == 0;
}

static bool on_event(void *owner, const char *name, const char *data, size_t len)
{
  struct remote_call *c = owner;
  struct val v;
  if (json_parse(&v, data, len, NULL) < 0) return false;
  c->conf.on_event(c, name, &v);
  val_free(&v);
  return true;
}

static void too_much(struct http_transfer *t, const char *what)
{
  struct err err = {0};
  err_set(&err, ERR_ENGINE_UNAVAILABLE, EPROTO, "%s", what);
  part->abort(t, &err);
}

static bool on_data(struct http_transfer *t, const void *data, size_t len)
{
  struct remote_call *c = part->data(t);
  c->held = c->paused && c->is_events;
  if (c->held) return false;
  if (c->is_events) {
    if (!events_feed(&c->events, data, len))
      too_much(t, "the answer has an event that is too long, or no JSON");
  } else if (c->answer.len + len > ANSWER_MAX) {
    too_much(t, "the answer is longer than any that the API allows");
  } else {
    buf_append(&c->answer, data, len);
  }
  return true;
}

static int send(struct remote_call *c, struct err *err)
{
  const struct remote *e = c->e;
  uint64_t now = loop_now_ms(e->loop);
  uint64_t left = c->deadline_ms ? c->deadline_ms - now : 0;
  if (c->deadline_ms && now >= c->deadline_ms)
    return err_set(err, ERR_ENGINE_UNAVAILABLE, ETIMEDOUT, "%s does not answer in time",
                   e->base_url);
  c->tries++;
  c->status = 0;
  c->answer.len = 0;
  return part->start(e->http,
                     &(struct http_request){.method = c->body ? "POST" : NULL,
                                            .url = c->url,
                                            .headers = (const char *const *)c->headers,
                                            .bearer = e->key,
                                            .body = c->body,
                                            .body_len = c->body_len,
                                            .ca_file = e->ca_file,
                                            .plain_http = e->plain_http,
                                            .stay = true,
                                            .stall_ms = c->conf.stall_ms ? c->conf.stall_ms : left,
                                            .total_ms = left,
                                            .on_head = on_head,
                                            .on_data = on_data,
                                            .on_done = on_done,
                                            .data = c},
                     &c->transfer, err);
}

static char *header(const char *name, const char *value)
{
  struct buf b = {0};
  buf_printf(&b, "%s: %s", name, value);
  return buf_take(&b, NULL);
}

static void build(struct remote_call *c)
{
  const struct remote_call_conf *conf = &c->conf;
  struct buf b = {0};
  size_t n = 0;
  if (!conf->body) {
    c->url = xstrdup(conf->op);
  } else {
    buf_printf(&b, "%s/sandbox/%s", c->e->base_url, conf->op);
    c->url = buf_take(&b, NULL);
    json_print(&b, conf->body);
    c->body = buf_take(&b, &c->body_len);
    c->headers[n++] = header("Content-Type", "application/json");
  }
  c->headers[n++] =
      header("Accept", conf->events ? "text/event-stream, application/json" : "application/json");
  if (conf->idem) c->headers[n++] = header("Idempotency-Key", conf->idem);
  c->conf.body = NULL;
  c->conf.op = NULL;
}

static int open_client(struct remote *e, struct err *err)
{
  const struct part_head *head;
  int rc = part ? 0 : part_open("http", sizeof *part, &head, err);
  if (rc == 0 && !part) part = (const struct http_part *)head;
  return rc < 0 || e->http ? rc : part->client_new(&e->http, e->loop, err);
}

static void close_client(struct defer *d)
{
  struct remote *e = d->data;
  if (e->http)
    part->client_close(take_ptr(&e->http), e->on_closed, e);
  else
    e->on_closed(e);
}

/* Not from inside a callback of the client. */
static void check_closed(struct remote *e)
{
  if (!e->on_closed || !list_empty(&e->calls)) return;
  e->closed = (struct defer){.cb = close_client, .data = e};
  loop_defer(e->loop, &e->closed);
}

static void ignore(struct remote_call *c, const struct err *err, int status,
                   const struct val *answer)
{
  (void)c, (void)err, (void)status, (void)answer;
}

void remote_calls_close(struct remote *e, void (*done)(void *data))
{
  struct err why = {0};
  err_set(&why, ERR_CANCELLED, ECANCELED, "the engine is closing");
  e->on_closed = done;
  e->closing_ms = loop_now_ms(e->loop);
  LIST_FOREACH_SAFE (it, &e->calls) {
    struct remote_call *c = list_entry(it, struct remote_call, node);
    if (c->conf.lingers) continue;
    c->conf.on_done = ignore;
    remote_call_abort(c, &why);
  }
  check_closed(e);
}

int remote_call_start(struct remote *e, const struct remote_call_conf *conf,
                      struct remote_call **ret, struct err *err)
{
  int rc = open_client(e, err);
  if (rc < 0) return rc;
  struct remote_call *c = xcalloc(1, sizeof *c);
  c->e = e;
  c->conf = *conf;
  list_init(&c->node);
  c->again = (struct timer){.cb = on_again, .data = c};
  c->events = (struct events){.on_event = on_event, .owner = c};
  if (conf->total_ms) c->deadline_ms = loop_now_ms(e->loop) + conf->total_ms;
  build(c);
  if (c->body_len > COMPUTE_BODY_MAX)
    rc = err_set(err, ERR_PAYLOAD_TOO_LARGE, E2BIG,
                 "the request is %zu bytes of JSON, and the API takes %d at most", c->body_len,
                 COMPUTE_BODY_MAX);
  else
    rc = send(c, err);
  if (rc < 0) {
    call_free(c);
    return rc;
  }
  list_append(&e->calls, &c->node);
  *ret = c;
  return 0;
}

int remote_call_about(struct remote *e, const char *id, struct remote_call_conf conf,
                      struct remote_call **ret, struct err *err)
{
  struct val body = val_map();
  val_add(&body, "sandbox_id", val_str(id));
  conf.body = &body;
  int rc = remote_call_start(e, &conf, ret, err);
  val_free(&body);
  return rc;
}

void remote_call_abort(struct remote_call *c, const struct err *why)
{
  if (c->aborted) return;
  c->aborted = true;
  c->why = *why;
  if (c->transfer)
    part->abort(c->transfer, why);
  else
    timer_start(c->e->loop, &c->again, 0);
}

void remote_call_last(struct remote_call *c, const struct err *why)
{
  c->last = true;
  if (!c->transfer && !c->sent) remote_call_abort(c, why);
}

void remote_call_pause(struct remote_call *c, bool paused)
{
  c->paused = paused;
  if (paused || !c->held || !c->transfer) return;
  c->held = false;
  part->resume(c->transfer);
}

/* The HTTP client: libcurl's multi-socket interface on our loop.
 *
 * Owns one curl multi handle, one uv_poll_t per socket that curl wants watched, and every transfer
 * from http_start to its on_done. Invariants: curl is entered from the loop only (a timer, a
 * socket, a deferred resume), so that no callback comes from inside a call of the user; a transfer
 * is freed after its on_done. Redirects are followed, at most five, never from https to http unless
 * plain http was allowed, and credentials stay with the host they were given for (curl drops them
 * for any other). Proxies come from the environment, as curl has it. Nothing of a request is ever
 * logged.
 *
 * transfer: started → (paused ⇄ flowing) → done → freed */
#include "net/httpc.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

#include "base/buf.h"
#include "base/list.h"
#include "core/loop.h"

#define REDIRECTS_MAX      5L
#define RECEIVE_BYTES      (256L * 1024)
#define CONNECT_DEFAULT_MS 15000
#define STALL_DEFAULT_MS   30000

struct httpc {
  struct loop *loop; /* the caller's */
  CURLM *multi;
  struct timer timer;    /* when curl wants to be called next */
  struct defer closed;   /* calls done when no handle is left to close */
  struct list transfers; /* struct http_transfer.node */
  size_t polls;          /* handles not yet closed */
  bool closing;
  void (*done)(void *data);
  void *done_data;
};

struct poll {
  uv_poll_t uv; /* first: freed through it */
  struct httpc *h;
  curl_socket_t fd;
};

struct http_transfer {
  struct httpc *h;
  CURL *easy;
  struct curl_slist *headers;
  struct http_request req; /* callbacks and data; its strings are not kept */
  struct list node;
  struct defer kick;  /* a resume or an abort that waits for its turn */
  struct err why;     /* why it was aborted */
  int status;         /* of the final answer, 0 = none yet */
  size_t body_at;     /* bytes of the body that were sent */
  bool resume, abort; /* what kick is to do */
  bool refused;       /* may_connect said no */
  char text[CURL_ERROR_SIZE];
};

static void finish_transfers(struct httpc *h);

static void on_poll_closed(uv_handle_t *handle)
{
  struct poll *p = (struct poll *)handle;
  struct httpc *h = p->h;
  free(p);
  if (--h->polls == 0 && h->closing) loop_defer(h->loop, &h->closed);
}

static void on_poll(uv_poll_t *uv, int status, int events)
{
  struct poll *p = (struct poll *)uv;
  struct httpc *h = p->h;
  int what = (events & UV_READABLE ? CURL_CSELECT_IN : 0) |
             (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0) | (status < 0 ? CURL_CSELECT_ERR : 0);
  int running;
  curl_multi_socket_action(h->multi, p->fd, what, &running);
  finish_transfers(h);
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *data, void *socket_data)
{
  (void)easy;
  struct httpc *h = data;
  struct poll *p = socket_data;
  if (what == CURL_POLL_REMOVE) {
    if (p) {
      uv_poll_stop(&p->uv);
      uv_close((uv_handle_t *)&p->uv, on_poll_closed);
      curl_multi_assign(h->multi, fd, NULL);
    }
    return 0;
  }
  if (!p) {
    p = xcalloc(1, sizeof *p);
    p->h = h;
    p->fd = fd;
    if (uv_poll_init_socket(loop_uv(h->loop), &p->uv, fd) < 0) {
      free(p);
      return -1;
    }
    h->polls++;
    curl_multi_assign(h->multi, fd, p);
  }
  int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  return uv_poll_start(&p->uv, events, on_poll) < 0 ? -1 : 0;
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *data)
{
  (void)multi;
  struct httpc *h = data;
  if (timeout_ms < 0)
    timer_stop(h->loop, &h->timer);
  else
    timer_start(h->loop, &h->timer, (uint64_t)timeout_ms);
  return 0;
}

static void on_timer(struct timer *timer)
{
  struct httpc *h = timer->data;
  int running;
  curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  finish_transfers(h);
}

static void on_closed(struct defer *d)
{
  struct httpc *h = d->data;
  void (*done)(void *) = h->done;
  void *data = h->done_data;
  free(h);
  if (done) done(data);
}

int httpc_new(struct httpc **ret, struct loop *loop, struct err *err)
{
  static bool ready;
  if (!ready && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
    return err_set(err, ERR_INTERNAL, 0, "libcurl cannot start");
  ready = true;
  struct httpc *h = xcalloc(1, sizeof *h);
  h->loop = loop;
  h->timer = (struct timer){.cb = on_timer, .data = h};
  h->closed = (struct defer){.cb = on_closed, .data = h};
  list_init(&h->transfers);
  h->multi = curl_multi_init();
  if (!h->multi) {
    free(h);
    return err_set(err, ERR_INTERNAL, 0, "libcurl cannot start");
  }
  curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
  curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
  curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
  curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
  *ret = h;
  return 0;
}

void httpc_close(struct httpc *h, void (*done)(void *data), void *data)
{
  if (!list_empty(&h->transfers)) abort();
  h->closing = true;
  h->done = done;
  h->done_data = data;
  curl_multi_cleanup(h->multi);
  timer_stop(h->loop, &h->timer);
  if (h->polls == 0) loop_defer(h->loop, &h->closed);
}

static void note_head(struct http_transfer *t)
{
  if (t->status != 0) return;
  long code = 0;
  curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &code);
  t->status = (int)code;
  if (code != 0 && t->req.on_head) t->req.on_head(t, t->status);
}

static size_t on_curl_data(char *data, size_t size, size_t n, void *arg)
{
  struct http_transfer *t = arg;
  if (t->abort) return 0;
  note_head(t);
  if (t->abort) return 0;
  if (!t->req.on_data || t->req.on_data(t, data, size * n)) return t->abort ? 0 : size * n;
  return CURL_WRITEFUNC_PAUSE;
}

/* What curl's result means to a user. */
static void describe(const struct http_transfer *t, CURLcode rc, struct err *err)
{
  if (t->refused && rc == CURLE_COULDNT_CONNECT) {
    err_set(err, ERR_DENIED, EACCES, "its address may not be connected to");
    return;
  }
  const char *text = t->text[0] ? t->text : curl_easy_strerror(rc);
  switch ((int)rc) {
  case CURLE_OPERATION_TIMEDOUT: err_set(err, ERR_ENGINE_UNAVAILABLE, ETIMEDOUT, "%s", text); break;
  case CURLE_COULDNT_CONNECT: err_set(err, ERR_ENGINE_UNAVAILABLE, ECONNREFUSED, "%s", text); break;
  case CURLE_SSL_CONNECT_ERROR:
    err_set(err, ERR_ENGINE_UNAVAILABLE, EPROTO, "%s", text);
    err_hint(err, "a registry that speaks plain http has to be named: --plain-http, or "
                  "\"plain_http\" in the settings");
    break;
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_RESOLVE_PROXY:
    err_set(err, ERR_ENGINE_UNAVAILABLE, EHOSTUNREACH, "%s", text);
    break;
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CACERT_BADFILE:
    err_set(err, ERR_DENIED, EKEYREJECTED, "%s", text);
    err_hint(err, "a private authority is named in the settings: \"ca\" of the registry");
    break;
  case CURLE_UNSUPPORTED_PROTOCOL:
  case CURLE_URL_MALFORMAT:
  case CURLE_TOO_MANY_REDIRECTS: err_set(err, ERR_DENIED, EPROTO, "%s", text); break;
  default: err_set(err, ERR_ENGINE_UNAVAILABLE, ECONNRESET, "%s", text);
  }
}

static void transfer_free(struct http_transfer *t)
{
  curl_easy_cleanup(t->easy);
  curl_slist_free_all(t->headers);
  free(t);
}

void http_drop(struct http_transfer *t)
{
  loop_defer_cancel(t->h->loop, &t->kick);
  curl_multi_remove_handle(t->h->multi, t->easy);
  list_remove(&t->node);
  transfer_free(t);
}

static void finish(struct http_transfer *t, CURLcode rc)
{
  struct err err = {0};
  if (t->abort)
    err = t->why;
  else if (rc == CURLE_OK)
    note_head(t);
  else
    describe(t, rc, &err);
  if (t->abort) err = t->why; /* on_head may have had enough */
  loop_defer_cancel(t->h->loop, &t->kick);
  curl_multi_remove_handle(t->h->multi, t->easy);
  list_remove(&t->node);
  t->req.on_done(t, err.kind == ERR_NONE ? NULL : &err);
  transfer_free(t);
}

static void finish_transfers(struct httpc *h)
{
  CURLMsg *msg;
  int left;
  while ((msg = curl_multi_info_read(h->multi, &left))) {
    if (msg->msg != CURLMSG_DONE) continue;
    struct http_transfer *t;
    curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &t);
    finish(t, msg->data.result);
  }
}

static void on_kick(struct defer *d)
{
  struct http_transfer *t = d->data;
  struct httpc *h = t->h;
  if (t->abort) {
    finish(t, CURLE_OK);
    return;
  }
  if (!t->resume) return;
  t->resume = false;
  curl_easy_pause(t->easy, CURLPAUSE_CONT);
  int running;
  curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  finish_transfers(h);
}

static void set_auth(CURL *easy, const struct http_request *req)
{
  if (req->bearer) {
    curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
    curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, req->bearer);
  } else if (req->user_password) {
    curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
    curl_easy_setopt(easy, CURLOPT_USERPWD, req->user_password);
  }
}

static void set_limits(CURL *easy, const struct http_request *req)
{
  uint64_t stall = req->stall_ms ? req->stall_ms : STALL_DEFAULT_MS;
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                   (long)(req->connect_ms ? req->connect_ms : CONNECT_DEFAULT_MS));
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)((stall + 999) / 1000));
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)req->total_ms);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
  const char *protocols = req->plain_http ? "http,https" : "https";
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, protocols);
  curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, protocols);
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, req->stay ? 0L : 1L);
  if (req->direct) curl_easy_setopt(easy, CURLOPT_PROXY, "");
  curl_easy_setopt(easy, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "regolith/" REGOLITH_VERSION);
}

static curl_socket_t on_open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *a)
{
  struct http_transfer *t = data;
  (void)purpose;
  if (!t->req.may_connect(t, &a->addr)) {
    t->refused = true;
    return CURL_SOCKET_BAD;
  }
  return socket(a->family, a->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->protocol);
}

static size_t read_body(char *to, size_t size, size_t n, void *data)
{
  struct http_transfer *t = data;
  size_t left = t->req.body_len - t->body_at, take = size * n < left ? size * n : left;
  memcpy(to, (const char *)t->req.body + t->body_at, take);
  t->body_at += take;
  return take;
}

/* Methods that may not be repeated (RFC 9110, 9.2.2). */
static bool is_once(const char *method)
{
  return !method || strcmp(method, "POST") == 0 || strcmp(method, "PATCH") == 0;
}

/* curl sends a request again, by itself, when a kept connection turns out to be dead, also where
 * the server may have begun with it. A body that cannot be rewound keeps it from that. */
static void set_body(struct http_transfer *t)
{
  CURL *easy = t->easy;
  const struct http_request *req = &t->req;
  if (req->body) {
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body_len);
    if (is_once(req->method)) {
      curl_easy_setopt(easy, CURLOPT_READFUNCTION, read_body);
      curl_easy_setopt(easy, CURLOPT_READDATA, t);
    } else {
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, req->body);
    }
  }
  if (req->method && strcmp(req->method, "HEAD") == 0)
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  else if (req->method)
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, req->method);
  if (req->from > 0) {
    char range[32];
    snprintf(range, sizeof range, "%llu-", (unsigned long long)req->from);
    curl_easy_setopt(easy, CURLOPT_RANGE, range);
  }
}

int http_start(struct httpc *h, const struct http_request *req, struct http_transfer **ret,
               struct err *err)
{
  struct http_transfer *t = xcalloc(1, sizeof *t);
  t->h = h;
  t->req = *req;
  t->kick = (struct defer){.cb = on_kick, .data = t};
  t->easy = curl_easy_init();
  if (!t->easy) {
    free(t);
    return err_set(err, ERR_CAPACITY, ENOMEM, "libcurl cannot start a transfer");
  }
  for (size_t i = 0; req->headers && req->headers[i]; i++)
    t->headers = curl_slist_append(t->headers, req->headers[i]);
  CURLcode rc = curl_easy_setopt(t->easy, CURLOPT_URL, req->url);
  curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
  curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->text);
  curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
  curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_curl_data);
  curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
  if (req->ca_file) curl_easy_setopt(t->easy, CURLOPT_CAINFO, req->ca_file);
  if (req->may_connect) {
    curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETDATA, t);
  }
  set_limits(t->easy, req);
  set_auth(t->easy, req);
  set_body(t);
  list_append(&h->transfers, &t->node);
  if (rc != CURLE_OK || curl_multi_add_handle(h->multi, t->easy) != CURLM_OK) {
    list_remove(&t->node);
    transfer_free(t);
    return err_set(err, ERR_INVALID_ARGUMENT, EINVAL, "cannot start the transfer");
  }
  *ret = t;
  return 0;
}

void *http_data(const struct http_transfer *t)
{
  return t->req.data;
}

int http_status(const struct http_transfer *t)
{
  return t->status;
}

const char *http_header(struct http_transfer *t, const char *name)
{
  struct curl_header *found = NULL;
  if (curl_easy_header(t->easy, name, 0, CURLH_HEADER, -1, &found) != CURLHE_OK) return NULL;
  return found->value;
}

void http_each_header(struct http_transfer *t,
                      void (*fn)(void *data, const char *name, const char *value), void *data)
{
  struct curl_header *h = NULL;
  while ((h = curl_easy_nextheader(t->easy, CURLH_HEADER, -1, h))) fn(data, h->name, h->value);
}

void http_resume(struct http_transfer *t)
{
  t->resume = true;
  loop_defer(t->h->loop, &t->kick);
}

void http_abort(struct http_transfer *t, const struct err *err)
{
  if (t->abort) return;
  t->abort = true;
  t->why = *err;
  loop_defer(t->h->loop, &t->kick);
}

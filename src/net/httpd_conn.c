/* One connection: requests in, one at a time, and their answers out.
 *
 * What arrives is looked at where libuv put it and copied only when it is not whole yet. While a
 * request is answered the socket is still read, up to PIPELINE_MAX bytes ahead: that is how a
 * client that hangs up is noticed. An end of input counts as a hang-up as long as the answer is not
 * complete. Writes go to the kernel at once; what it does not take waits in libuv, owned by the
 * write, and is watched: a reader that takes less than it must is cut.
 *
 * Every state has a time limit of its own (due_ms); the timer behind it is only moved when it fires
 * too early, so that a request costs no timer.
 *
 * head → body → answer → flush → head | linger → closed */
#include "net/httpd_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

#define PIPELINE_MAX (64u << 10) /* bytes read ahead of an answer */
#define LINGER_MS    5000
#define UNREAD_MS    50         /* until what lies in the socket has been read */
#define SLOWEST      (16 << 10) /* bytes of a whole answer that must be taken per stall_ms */
#define NEVER        UINT64_MAX

struct write {
  uv_write_t uv; /* first */
  struct conn *c;
  char *data; /* owned */
  size_t len; /* bytes held */
};

static void work(struct conn *c);
static void end_exchange(struct conn *c);

/* ---- time ---- */

static uint64_t now_ms(const struct conn *c)
{
  return uv_now(c->tcp.loop);
}

static void set_due(struct conn *c, uint64_t delay_ms)
{
  c->due_ms = delay_ms == NEVER ? NEVER : now_ms(c) + delay_ms;
  if (c->due_ms >= c->fires_ms) return; /* soon enough: it looks again */
  c->fires_ms = c->due_ms;
  timer_start(c->h->loop, &c->timer, delay_ms);
}

static size_t waiting(const struct conn *c)
{
  return uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp);
}

/* Bytes that its kernel has not acknowledged: what ours took says nothing about the reader. */
static int unacknowledged(const struct conn *c)
{
  uv_os_fd_t fd;
  int n = 0;
  if (uv_fileno((const uv_handle_t *)&c->tcp, &fd) < 0 || ioctl(fd, SIOCOUTQ, &n) < 0) return 0;
  return n;
}

/* Has the reader taken enough since the last look? */
static bool reader_moves(struct conn *c)
{
  int64_t moved = (int64_t)(c->queued - waiting(c)) - unacknowledged(c);
  bool enough = moved - c->moved >= (c->state == CONN_FLUSH ? SLOWEST : 1);
  c->moved = moved;
  return enough;
}

static void hang_up(struct conn *c);
static void fault(struct conn *c, int status, const char *text);

static void on_due(struct conn *c)
{
  switch (c->state) {
  case CONN_HEAD:
    if (c->in.len > 0)
      fault(c, 408, "the request's head took too long to arrive");
    else
      conn_close(c);
    break;
  case CONN_BODY: fault(c, 408, "the request's body took too long to arrive"); break;
  case CONN_ANSWER:
  case CONN_FLUSH:
    if (waiting(c) > 0 && !reader_moves(c))
      conn_cut(c);
    else
      set_due(c, waiting(c) > 0 ? c->h->conf.stall_ms : NEVER);
    break;
  case CONN_LINGER: conn_close(c); break;
  case CONN_CLOSED: break;
  }
}

/* A loop that was held up, or a machine that stood still, sees that a time is over before it reads
 * what came in time. */
static bool has_unread(const struct conn *c)
{
  uv_os_fd_t fd;
  int n = 0;
  if (c->state != CONN_HEAD && c->state != CONN_BODY) return false;
  return uv_fileno((const uv_handle_t *)&c->tcp, &fd) == 0 && ioctl(fd, FIONREAD, &n) == 0 && n > 0;
}

static void on_timer(struct timer *t)
{
  struct conn *c = t->data;
  uint64_t now = now_ms(c);
  c->fires_ms = NEVER;
  if (c->due_ms != NEVER && c->due_ms > now)
    set_due(c, c->due_ms - now);
  else if (c->due_ms != NEVER && has_unread(c))
    set_due(c, UNREAD_MS);
  else if (c->due_ms != NEVER)
    on_due(c);
}

/* ---- closing ---- */

static void on_closed(uv_handle_t *handle)
{
  struct conn *c = (struct conn *)handle;
  struct httpd *h = c->h;
  free(c);
  httpd_conn_gone(h);
}

void conn_close(struct conn *c)
{
  struct httpd *h = c->h;
  if (c->state == CONN_CLOSED) return;
  c->state = CONN_CLOSED;
  timer_stop(h->loop, &c->timer);
  list_remove(&c->node);
  list_remove(&c->idle_node);
  list_remove(&c->flush_node);
  buf_free(&c->in);
  if (c->tls) h->tls->close(c->tls);
  c->tls = NULL;
  h->stats.held -= c->held;
  h->stats.connections--;
  uv_close((uv_handle_t *)&c->tcp, on_closed);
}

/* The end of an exchange, also of one whose client is gone (then before the close). */
static void drop_exchange(struct conn *c)
{
  struct httpd_exchange *x = c->x;
  struct httpd *h = c->h;
  if (!x) return;
  struct httpd_record record = {.status = x->status ? x->status : 499,
                                .received = x->received,
                                .sent = x->sent,
                                .duration_us = clock_mono_ns() / 1000 - x->start_us};
  if (h->conf.ops->on_end) h->conf.ops->on_end(x, &record);
  c->x = NULL;
  h->stats.exchanges--;
  h->stats.held -= x->body.len;
  buf_free(&x->body);
  http1_head_done(&x->head);
  free(x);
}

void conn_cut(struct conn *c)
{
  struct httpd_exchange *x = c->x;
  if (x && x->asked && !x->complete) {
    x->complete = true;
    c->h->conf.ops->on_gone(x);
  }
  drop_exchange(c);
  conn_close(c);
}

void conn_drain(struct conn *c)
{
  if (c->state == CONN_HEAD && c->in.len == 0) conn_close(c);
}

static void on_shut(uv_shutdown_t *req, int status)
{
  (void)status;
  free(req);
}

static void send_goodbye(struct conn *c);
static void read_on(struct conn *c);

/* What the client still sends is read and dropped: closing a socket with unread bytes resets it,
 * and may take the answer along. */
static void linger(struct conn *c)
{
  c->state = CONN_LINGER;
  buf_free(&c->in);
  send_goodbye(c);
  if (c->state == CONN_LINGER) read_on(c);
  if (c->state != CONN_LINGER) return;
  uv_shutdown_t *req = xmalloc(sizeof *req);
  if (uv_shutdown(req, (uv_stream_t *)&c->tcp, on_shut) < 0) {
    free(req);
    conn_close(c);
    return;
  }
  set_due(c, LINGER_MS);
}

/* The client is gone, or has said that it sends nothing more: a complete answer it may still read.
 */
static void hang_up(struct conn *c)
{
  if (c->state == CONN_FLUSH) {
    uv_read_stop((uv_stream_t *)&c->tcp);
    c->x->keep = false;
  } else {
    conn_cut(c);
  }
}

/* ---- writing ---- */

/* Counts what waits to be sent, until the connection closes. */
static void hold(struct conn *c, ptrdiff_t bytes)
{
  c->held += (size_t)bytes;
  c->h->stats.held += (size_t)bytes;
}

static void on_written(uv_write_t *req, int status)
{
  struct write *w = (struct write *)req;
  struct conn *c = w->c;
  size_t len = w->len;
  free(w->data);
  free(w);
  if (c->state == CONN_CLOSED) return;
  hold(c, -(ptrdiff_t)len);
  if (waiting(c) == 0) list_remove(&c->flush_node);
  if (status < 0) {
    conn_cut(c);
    return;
  }
  struct httpd_exchange *x = c->x;
  if (x && x->full && waiting(c) < HTTPD_FULL / 4) {
    x->full = false;
    if (!x->complete) c->h->conf.ops->on_full(x, false);
  }
  if (c->state == CONN_FLUSH && waiting(c) == 0) end_exchange(c);
}

/* More is held than may be: whoever has taken the longest over its answer is cut. */
static void bound_held(struct httpd *h, const struct conn *except)
{
  while (h->stats.held > h->conf.max_held && !list_empty(&h->flushing)) {
    struct conn *slowest = list_entry(h->flushing.next, struct conn, flush_node);
    if (slowest == except) return;
    h->stats.evicted++;
    conn_cut(slowest);
  }
}

/* Hands data, which is owned from here on, to libuv. */
static void queue(struct conn *c, char *data, size_t from, size_t len)
{
  struct write *w = xmalloc(sizeof *w);
  *w = (struct write){.c = c, .data = data, .len = len};
  uv_buf_t b = uv_buf_init(data + from, (unsigned)len);
  hold(c, (ptrdiff_t)len);
  if (waiting(c) == 0) {
    c->moved = (int64_t)c->queued - unacknowledged(c);
    set_due(c, c->h->conf.stall_ms);
    list_remove(&c->flush_node);
    list_append(&c->h->flushing, &c->flush_node);
  }
  c->queued += len;
  if (uv_write(&w->uv, (uv_stream_t *)&c->tcp, &b, 1, on_written) < 0) {
    hold(c, -(ptrdiff_t)len);
    free(w->data);
    free(w);
    conn_cut(c);
    return;
  }
  bound_held(c->h, c);
}

/* Sends head and then body, which moves in where it is not NULL. */
static void send_plain(struct conn *c, const char *head, size_t head_len, struct buf *body)
{
  uv_buf_t bufs[2] = {uv_buf_init((char *)(uintptr_t)head, (unsigned)head_len),
                      uv_buf_init(body ? body->data : NULL, body ? (unsigned)body->len : 0)};
  size_t total = head_len + bufs[1].len;
  int taken = 0;
  if (total == 0) return;
  if (waiting(c) == 0) taken = uv_try_write((uv_stream_t *)&c->tcp, bufs, bufs[1].len > 0 ? 2 : 1);
  if (taken < 0 && taken != UV_EAGAIN) {
    conn_cut(c);
    return;
  }
  size_t done = taken > 0 ? (size_t)taken : 0;
  if (done == total) return;
  if (body && done >= head_len) {
    size_t from = done - head_len, left = body->len - from;
    queue(c, buf_take(body, NULL), from, left);
    return;
  }
  struct buf rest = {0};
  buf_reserve(&rest, total - done);
  buf_append(&rest, head + done, head_len - done);
  if (body) buf_append(&rest, body->data, body->len);
  queue(c, rest.data, 0, rest.len);
}

/* Bytes that TLS has made. The buffer is kept for the next time unless it has grown. */
static void send_wire(struct conn *c)
{
  struct httpd *h = c->h;
  struct buf wire = h->wire;
  h->wire = (struct buf){0};
  if (wire.len > 0 && c->state != CONN_CLOSED) {
    if (wire.len > HTTPD_READ_BYTES)
      send_plain(c, "", 0, &wire);
    else
      send_plain(c, wire.data, wire.len, NULL);
  }
  if (wire.cap > 4 * HTTPD_READ_BYTES || h->wire.data) {
    buf_free(&wire);
  } else {
    wire.len = 0;
    h->wire = wire;
  }
}

static void send_goodbye(struct conn *c)
{
  if (!c->tls) return;
  c->h->tls->goodbye(c->tls, &c->h->wire);
  send_wire(c);
}

static void send_all(struct conn *c, const char *head, size_t head_len, struct buf *body)
{
  if (!c->tls) {
    send_plain(c, head, head_len, body);
    return;
  }
  const struct tls_part *tls = c->h->tls;
  bool ok = tls->output(c->tls, head, head_len, &c->h->wire);
  if (ok && body && body->len > 0) ok = tls->output(c->tls, body->data, body->len, &c->h->wire);
  send_wire(c);
  if (!ok && c->state != CONN_CLOSED) conn_cut(c);
}

/* ---- answers ---- */

/* After an answer: the connection takes the next request, or closes. */
static void next_request(struct conn *c, bool keep, bool unread)
{
  struct httpd *h = c->h;
  list_remove(&c->flush_node);
  if (!keep || h->draining) {
    if (unread || c->in.len > 0 || c->tls)
      linger(c);
    else
      conn_close(c);
    return;
  }
  c->state = CONN_HEAD;
  c->scanned = 0;
  list_append(&h->idle, &c->idle_node);
  set_due(c, h->conf.idle_ms);
  if (!c->working) work(c);
}

static void end_exchange(struct conn *c)
{
  bool keep = c->x->keep, unread = !c->x->asked;
  drop_exchange(c);
  next_request(c, keep, unread);
}

/* The answer is complete: it ends when the kernel has it. */
static void complete(struct httpd_exchange *x)
{
  struct conn *c = x->conn;
  c->state = CONN_FLUSH;
  list_remove(&c->idle_node);
  if (waiting(c) == 0) end_exchange(c);
}

static const char *date_now(struct httpd *h)
{
  int64_t now = clock_wall_s();
  if (now == h->date_s) return h->date;
  time_t t = (time_t)now;
  struct tm tm;
  gmtime_r(&t, &tm);
  strftime(h->date, sizeof h->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
  h->date_s = now;
  return h->date;
}

static void print_head(struct httpd_exchange *x, struct buf *out, int status, const char *type,
                       const char *headers)
{
  struct httpd *h = x->conn->h;
  x->keep = x->keep && !h->draining;
  char line[48];
  out->len = 0;
  int n = snprintf(line, sizeof line, "HTTP/1.1 %d ", status);
  buf_append(out, line, (size_t)n);
  buf_puts(out, http1_reason(status));
  buf_puts(out, "\r\nDate: ");
  buf_puts(out, date_now(h));
  if (type) {
    buf_puts(out, "\r\nContent-Type: ");
    buf_puts(out, type);
  }
  buf_puts(out, "\r\n");
  if (headers) buf_puts(out, headers);
  if (!x->keep)
    buf_puts(out, "Connection: close\r\n");
  else if (x->head.minor == 0)
    buf_puts(out, "Connection: keep-alive\r\n");
}

/* An answer before the body was read: what follows of it is no request. */
static void check_unread(struct httpd_exchange *x)
{
  if (!x->asked && (x->body_left > 0 || x->head.chunked)) x->keep = false;
}

static void answer(struct httpd_exchange *x, int status, const char *type, const char *headers,
                   struct buf *body)
{
  struct conn *c = x->conn;
  struct buf *head = &c->h->head;
  size_t len = body ? body->len : 0;
  char line[48];
  check_unread(x);
  x->status = status;
  x->no_body = strcmp(x->head.method, "HEAD") == 0 || status == 204 || status == 304;
  print_head(x, head, status, len > 0 ? type : NULL, headers);
  if (status != 204 && status != 304) {
    int n = snprintf(line, sizeof line, "Content-Length: %zu\r\n", len);
    buf_append(head, line, (size_t)n);
  }
  buf_puts(head, "\r\n");
  if (!x->no_body) x->sent = len;
  x->complete = true; /* a failure to send it is nobody's business any more */
  c->state = CONN_ANSWER;
  send_all(c, head->data, head->len, x->no_body ? NULL : body);
  if (c->state == CONN_ANSWER) complete(x);
}

void httpd_answer(struct httpd_exchange *x, int status, const char *type, const char *headers,
                  struct buf *body)
{
  answer(x, status, type, headers, body);
  if (body) buf_free(body);
}

void httpd_begin(struct httpd_exchange *x, int status, const char *type, const char *headers)
{
  struct conn *c = x->conn;
  struct buf *head = &c->h->head;
  check_unread(x);
  x->status = status;
  x->begun = true;
  x->no_body = strcmp(x->head.method, "HEAD") == 0;
  x->chunked = x->head.minor == 1;
  if (!x->chunked) x->keep = false;
  print_head(x, head, status, type, headers);
  if (x->chunked) buf_puts(head, "Transfer-Encoding: chunked\r\n");
  buf_puts(head, "\r\n");
  c->state = CONN_ANSWER;
  send_all(c, head->data, head->len, NULL);
}

void httpd_send(struct httpd_exchange *x, const void *data, size_t len)
{
  struct conn *c = x->conn;
  if (len == 0 || x->no_body) return;
  struct buf *piece = &c->h->head;
  char line[24];
  piece->len = 0;
  if (x->chunked) {
    int n = snprintf(line, sizeof line, "%zx\r\n", len);
    buf_append(piece, line, (size_t)n);
  }
  buf_append(piece, data, len);
  if (x->chunked) buf_puts(piece, "\r\n");
  x->sent += len;
  send_all(c, piece->data, piece->len, NULL);
  if (c->state != CONN_ANSWER || x->full || waiting(c) <= HTTPD_FULL || !c->h->conf.ops->on_full)
    return;
  x->full = true;
  c->h->conf.ops->on_full(x, true);
}

void httpd_end(struct httpd_exchange *x)
{
  struct conn *c = x->conn;
  x->complete = true;
  if (x->chunked && !x->no_body) send_all(c, "0\r\n\r\n", 5, NULL);
  if (c->state == CONN_ANSWER) complete(x);
}

void httpd_cut(struct httpd_exchange *x)
{
  x->complete = true; /* the handler knows */
  conn_cut(x->conn);
}

/* What is no request, or no longer one, is answered here. */
static void fault(struct conn *c, int status, const char *text)
{
  struct httpd *h = c->h;
  struct buf body = {0};
  h->stats.faults++;
  h->conf.ops->print_fault(h->conf.data, status, text, &body);
  if (c->x) {
    c->x->keep = false;
    httpd_answer(c->x, status, "application/json", NULL, &body);
    return;
  }
  struct buf whole = {0};
  buf_printf(&whole,
             "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: application/json\r\nConnection: close\r\n"
             "Content-Length: %zu\r\n\r\n",
             status, http1_reason(status), date_now(h), body.len);
  buf_append(&whole, body.data, body.len);
  buf_free(&body);
  list_remove(&c->idle_node);
  send_all(c, whole.data, whole.len, NULL);
  buf_free(&whole);
  if (c->state != CONN_CLOSED) linger(c);
}

/* ---- requests ---- */

static void request_is_whole(struct conn *c)
{
  c->state = CONN_ANSWER;
  c->x->asked = true;
  c->h->stats.requests++;
  set_due(c, NEVER);
  c->h->conf.ops->on_request(c->x);
}

/* The head was taken and nobody has refused it. */
static void begin_body(struct conn *c, bool has_more)
{
  struct httpd_exchange *x = c->x;
  if (!x->head.chunked && x->body_left == 0) {
    request_is_whole(c);
    return;
  }
  c->body_due_ms = now_ms(c) + c->h->conf.body_ms;
  set_due(c, c->h->conf.stall_ms);
  static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
  if (x->head.expects && !has_more) send_all(c, go_on, sizeof go_on - 1, NULL);
}

static void begin_exchange(struct conn *c, const struct http1_head *head, bool has_more)
{
  struct httpd *h = c->h;
  struct httpd_exchange *x = xmalloc(sizeof *x);
  *x = (struct httpd_exchange){.conn = c,
                               .body_left = head->content_length,
                               .start_us = clock_mono_ns() / 1000,
                               .keep = head->keep_alive};
  x->head = *head;
  c->x = x;
  c->state = CONN_BODY;
  list_remove(&c->idle_node);
  h->stats.exchanges++;
  if (x->body_left > h->conf.max_body) {
    fault(c, 413, "the request's body is too large");
    return;
  }
  if (h->conf.ops->on_head) h->conf.ops->on_head(x);
  if (c->state == CONN_BODY && c->x == x) begin_body(c, has_more);
}

static size_t take_head(struct conn *c, const char *bytes, size_t len)
{
  size_t blank = 0;
  while (c->scanned == 0 && blank + 1 < len && bytes[blank] == '\r' && bytes[blank + 1] == '\n')
    blank += 2; /* some clients end a body with a line too much */
  if (blank > 0) return blank;
  size_t n = http1_head_length(bytes, len, c->scanned);
  c->scanned = len;
  if (n == 0) return 0;
  struct http1_fault f;
  struct http1_head head;
  if (n == SIZE_MAX)
    fault(c, 431, "the request's head is too long");
  else if (!http1_head_parse(&head, bytes, n, &f))
    fault(c, f.status, f.text);
  else
    begin_exchange(c, &head, len > n);
  c->scanned = 0;
  return n == SIZE_MAX ? len : n;
}

static size_t take_body(struct conn *c, const char *bytes, size_t len)
{
  struct httpd *h = c->h;
  struct httpd_exchange *x = c->x;
  struct http1_fault f = {0};
  size_t had = x->body.len, used = len;
  if (x->head.chunked) {
    used = http1_chunks_read(&x->chunks, bytes, len, &x->body, h->conf.max_body, &f);
  } else {
    if (used > x->body_left) used = (size_t)x->body_left;
    buf_append(&x->body, bytes, used);
    x->body_left -= used;
  }
  x->received += used;
  h->stats.held += x->body.len - had;
  if (f.status) {
    fault(c, f.status, f.text);
  } else if (h->stats.held > h->conf.max_held) {
    fault(c, 503, "too many large requests are being read at this moment");
  } else if (x->head.chunked ? x->chunks.state == CHUNK_DONE : x->body_left == 0) {
    request_is_whole(c);
  } else {
    uint64_t now = now_ms(c);
    uint64_t left = c->body_due_ms > now ? c->body_due_ms - now : 0;
    set_due(c, left < h->conf.stall_ms ? left : h->conf.stall_ms);
  }
  return used;
}

/* Uses what it can of the bytes and says how many those were. */
static size_t use(struct conn *c, const char *bytes, size_t len)
{
  size_t at = 0;
  while (at < len) {
    size_t n = 0;
    if (c->state == CONN_HEAD)
      n = take_head(c, bytes + at, len - at);
    else if (c->state == CONN_BODY)
      n = take_body(c, bytes + at, len - at);
    if (n == 0) break;
    at += n;
  }
  return at;
}

/* Looks at what has arrived and was not used yet. */
static void work(struct conn *c)
{
  c->working = true;
  size_t used = use(c, c->in.data, c->in.len);
  if (c->state != CONN_CLOSED && c->state != CONN_LINGER && used > 0) buf_consume(&c->in, used);
  if (c->in.len == 0) buf_free(&c->in);
  if (c->state == CONN_HEAD && used > 0)
    set_due(c, c->in.len > 0 ? c->h->conf.head_ms : c->h->conf.idle_ms);
  c->working = false;
  if (c->state != CONN_CLOSED && c->in.len < PIPELINE_MAX) read_on(c);
}

static void take(struct conn *c, const char *bytes, size_t len)
{
  if (c->state == CONN_LINGER || c->state == CONN_CLOSED) return;
  if (c->in.len > 0) {
    buf_append(&c->in, bytes, len);
    work(c);
  } else {
    c->working = true;
    size_t used = use(c, bytes, len);
    c->working = false;
    if (c->state != CONN_CLOSED && c->state != CONN_LINGER && used < len) {
      buf_append(&c->in, bytes + used, len - used);
      if (c->state == CONN_HEAD) set_due(c, c->h->conf.head_ms);
    }
  }
  if (c->state == CONN_CLOSED || c->in.len < PIPELINE_MAX || c->state == CONN_BODY) return;
  uv_read_stop((uv_stream_t *)&c->tcp);
  c->reading = false;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
  (void)suggested;
  struct httpd *h = ((struct conn *)handle)->h;
  *buf = uv_buf_init(h->input, sizeof h->input);
}

static void take_tls(struct conn *c, const char *bytes, size_t len)
{
  struct httpd *h = c->h;
  struct buf plain = h->plain;
  h->plain = (struct buf){0};
  plain.len = 0;
  bool ok = h->tls->input(c->tls, bytes, len, &plain, &h->wire);
  send_wire(c);
  if (plain.len > 0) take(c, plain.data, plain.len);
  if (!ok && c->state != CONN_CLOSED) hang_up(c);
  if (h->plain.data)
    buf_free(&plain);
  else
    h->plain = plain;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
  struct conn *c = (struct conn *)stream;
  if (n == 0) return;
  if (n < 0)
    hang_up(c);
  else if (c->tls)
    take_tls(c, buf->base, (size_t)n);
  else
    take(c, buf->base, (size_t)n);
}

static void read_on(struct conn *c)
{
  if (c->reading) return;
  c->reading = uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) == 0;
  if (!c->reading) conn_cut(c);
}

void conn_open(struct httpd *h, struct listener *from)
{
  struct conn *c = xcalloc(1, sizeof *c);
  c->h = h;
  c->timer = (struct timer){.cb = on_timer, .data = c};
  list_init(&c->flush_node);
  uv_tcp_init(loop_uv(h->loop), &c->tcp);
  h->handles++;
  h->stats.connections++;
  list_append(&h->conns, &c->node);
  list_append(&h->idle, &c->idle_node);
  if (uv_accept((uv_stream_t *)&from->tcp, (uv_stream_t *)&c->tcp) < 0) {
    conn_close(c);
    return;
  }
  h->stats.accepted++;
  if (h->tls_server) c->tls = h->tls->open(h->tls_server);
  c->fires_ms = NEVER;
  set_due(c, h->conf.head_ms);
  read_on(c);
}

/* ---- what a handler may ask ---- */

void *httpd_data(const struct httpd_exchange *x)
{
  return x->conn->h->conf.data;
}

void httpd_set_context(struct httpd_exchange *x, void *context)
{
  x->context = context;
}

void *httpd_context(const struct httpd_exchange *x)
{
  return x->context;
}

const char *httpd_method(const struct httpd_exchange *x)
{
  return x->head.method;
}

const char *httpd_path(const struct httpd_exchange *x)
{
  return x->head.path;
}

const char *httpd_query(const struct httpd_exchange *x)
{
  return x->head.query;
}

const char *httpd_header(const struct httpd_exchange *x, const char *name)
{
  return http1_head_get(&x->head, name);
}

const char *httpd_body(const struct httpd_exchange *x, size_t *ret_len)
{
  *ret_len = x->body.len;
  return x->body.data ? x->body.data : "";
}

bool httpd_secure(const struct httpd_exchange *x)
{
  return x->conn->tls != NULL;
}

void httpd_peer(const struct httpd_exchange *x, char *out, size_t size)
{
  struct sockaddr_storage addr;
  int len = sizeof addr;
  *out = '\0';
  if (uv_tcp_getpeername(&x->conn->tcp, (struct sockaddr *)&addr, &len) < 0) return;
  if (addr.ss_family == AF_INET6)
    uv_ip6_name((struct sockaddr_in6 *)&addr, out, size);
  else
    uv_ip4_name((struct sockaddr_in *)&addr, out, size);
}

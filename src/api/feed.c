/* An exec as it happens: server-sent events.
 *
 * `stdout` and `stderr` carry {"data": …} in the order in which it was printed, `exit` the answer
 * that the plain call would give, less what was sent already, `error` an error. Until something is
 * printed, or BEGIN_MS have passed, an error is still an ordinary answer with its own status. What
 * is not UTF-8 becomes U+FFFD, but never because a chunk ended inside a character; base64 is exact.
 * A reader that is slow slows the command; a comment every PING_MS keeps proxies awake.
 *
 * waiting → begun → done */
#include "api/api_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "wire/compute.h"

#define BEGIN_MS 500
#define PING_MS  15000

struct feed {
  struct call *c;
  bool begun;
  struct timer timer; /* to begin, then to ping */
  char rest[2][4];    /* of each stream: the start of a character */
  size_t rest_len[2]; /* bytes of it */
  struct buf event;   /* being made */
};

bool feed_wanted(const struct call *c)
{
  const char *accept = c->x ? httpd_header(c->x, "accept") : NULL;
  return accept && strstr(accept, "text/event-stream");
}

void feed_free(struct feed *s)
{
  if (!s) return;
  timer_stop(s->c->api->loop, &s->timer);
  buf_free(&s->event);
  free(s);
}

/* Sending may end the call's exchange: whoever sends looks at c->x again. */
static void begin(struct feed *s)
{
  struct call *c = s->c;
  if (s->begun || !c->x) return;
  s->begun = true;
  buf_puts(&c->headers, "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n");
  timer_start(c->api->loop, &s->timer, PING_MS);
  httpd_begin(c->x, 200, "text/event-stream", c->headers.data);
}

static void on_timer(struct timer *t)
{
  struct feed *s = t->data;
  struct call *c = s->c;
  if (!s->begun) {
    begin(s);
    return;
  }
  timer_start(c->api->loop, &s->timer, PING_MS);
  if (c->x) httpd_send(c->x, ": \n\n", 4);
}

static void send_event(struct feed *s, const char *name, const struct val *v)
{
  if (!s->c->x) return;
  s->event.len = 0;
  buf_printf(&s->event, "event: %s\ndata: ", name);
  json_print(&s->event, v);
  buf_puts(&s->event, "\n\n");
  httpd_send(s->c->x, s->event.data, s->event.len);
}

/* How many bytes at the end begin a character and do not complete it. */
static size_t unfinished(const char *p, size_t len)
{
  for (size_t back = 1; back <= 3 && back <= len; back++) {
    unsigned char b = (unsigned char)p[len - back];
    size_t whole = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : b >= 0xc0 ? 2 : 1;
    if ((b & 0xc0) == 0x80) continue;
    return whole > back ? back : 0;
  }
  return 0;
}

static void send_output(struct feed *s, const char *name, const char *p, size_t len)
{
  struct val v = val_map();
  struct buf text = {0};
  if (s->c->base64) base64_encode(&text, p, len);
  val_add(&v, "data", s->c->base64 ? val_bytes(text.data, text.len) : val_bytes(p, len));
  send_event(s, name, &v);
  val_free(&v);
  buf_free(&text);
}

/* Puts what was left over in front, and leaves over what is not complete. */
static void send_text(struct feed *s, size_t which, const char *name, const char *p, size_t len)
{
  struct buf whole = {0};
  buf_append(&whole, s->rest[which], s->rest_len[which]);
  buf_append(&whole, p, len);
  size_t rest = s->c->base64 ? 0 : unfinished(whole.data, whole.len);
  memcpy(s->rest[which], whole.data + whole.len - rest, rest);
  s->rest_len[which] = rest;
  if (whole.len > rest) send_output(s, name, whole.data, whole.len - rest);
  buf_free(&whole);
}

void feed_chunk(struct call *c, enum op_stream which, const void *data, size_t len)
{
  struct feed *s = c->feed;
  if (which == OP_EVENT) return;
  if (c->noted) recent_output(c->noted, which == OP_STDERR, data, len);
  if (!c->x) return;
  begin(s);
  if (!c->x) return;
  bool err = which == OP_STDERR;
  send_text(s, err, err ? "stderr" : "stdout", data, len);
}

static void send_rest(struct feed *s)
{
  static const char *const names[] = {"stdout", "stderr"};
  for (size_t i = 0; i < 2; i++)
    if (s->rest_len[i] > 0) send_output(s, names[i], s->rest[i], s->rest_len[i]);
}

/* What the command was, without what it printed. */
static struct val outcome_of(const struct val *result, const char *sandbox_id)
{
  struct val v = val_copy(result);
  const char *reason = val_get_str(result, "reason", "unknown");
  int code = compute_exit_code(reason, val_get_int(result, "exit_code", 0),
                               val_get_str(result, "signal", NULL));
  static const char *const sent[] = {"ok", "stdout", "stderr", "truncated"};
  for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) val_remove(&v, sent[i]);
  val_set(&v, "sandbox_id", val_str(sandbox_id));
  val_set(&v, "exit_code", val_int(code));
  val_set(&v, "returncode", val_int(code));
  return v;
}

static void send_error(struct feed *s, const struct err *err)
{
  struct buf text = {0};
  struct val v;
  compute_print_error(&text, err, compute_status(err), s->c->sandbox_id, NULL, false);
  if (json_parse(&v, text.data, text.len, NULL) == 0) send_event(s, "error", &v);
  val_free(&v);
  buf_free(&text);
}

static void on_done(struct call *c, struct op *op, const struct err *err)
{
  struct feed *s = c->feed;
  timer_stop(c->api->loop, &s->timer);
  call_note_end(c, err ? NULL : &op->result, err ? err_info(err->kind)->code : NULL);
  if (!c->x) {
    call_check_free(c);
    return;
  }
  if (err && !s->begun) {
    call_error(c, err);
    return;
  }
  /* While this runs the call must not go: a client that leaves now finds an op in flight. */
  c->op = op;
  begin(s);
  send_rest(s);
  if (err) {
    send_error(s, err);
  } else {
    struct val v = outcome_of(&op->result, c->sandbox_id);
    send_event(s, "exit", &v);
    val_free(&v);
  }
  c->op = NULL;
  if (c->x)
    httpd_end(c->x);
  else
    call_check_free(c);
}

void feed_start(struct call *c, struct val args)
{
  struct feed *s = xcalloc(1, sizeof *s);
  s->c = c;
  s->timer = (struct timer){.cb = on_timer, .data = s};
  c->feed = s;
  val_set(&args, "stream", val_bool(true));
  if (!val_get(&args, "max_output")) val_set(&args, "max_output", val_int(0));
  timer_start(c->api->loop, &s->timer, BEGIN_MS);
  call_op(c, "sandbox.exec", args, 0, on_done);
}

void feed_full(struct call *c, bool full)
{
  if (c->op) op_flow(c->op, full);
}

void feed_gone(struct call *c)
{
  timer_stop(c->api->loop, &c->feed->timer);
}

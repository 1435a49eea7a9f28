/* Frames over a stream socket, for the pair between a worker process and its host.
 *
 * Owns the descriptor, one uv_poll_t and two buffers that exist only while they hold something.
 * In a turn of the loop a channel reads once (PIECE bytes at most) and delivers TURN_FRAMES frames.
 * One that had more to deliver is busy: its turns come when the others have had theirs, and those
 * of all busy ones together are short, so a peer that floods slows itself and nobody else. Writing
 * happens at once and queues only what the socket does not take. A frame longer than the limit, or
 * an end inside a frame, is a failure of the peer.
 *
 * Callbacks may pause or close the channel, so every loop here looks at its state again after each.
 *
 * open → (paused ⇄ open) → ended → closed */
#include "core/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "core/loop.h"

enum { HEADER = 4, PIECE = 64 * 1024, TURN_FRAMES = 32 };

struct channel {
  struct loop *loop;
  uv_poll_t poll;
  int fd;                              /* owned */
  size_t max_frame;                    /* bytes */
  const struct channel_events *events; /* the caller's */
  void *data;
  struct buf in;  /* bytes of frames not yet delivered */
  struct buf out; /* bytes queued; those before out_at are with the socket already */
  size_t out_at;
  int interest; /* UV_READABLE | UV_WRITABLE as the poll handle has it */
  bool paused, ended, closing;
  bool busy;           /* its last turn was too short */
  unsigned turn_left;  /* frames that may still be delivered in this turn */
  struct defer resume; /* its next turn: while frames wait in `in`, or when it is busy */
  void (*closed)(void *data);
  void *closed_data;
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void update_interest(struct channel *c)
{
  int want = 0;
  if (!c->paused && !c->ended) want |= UV_READABLE;
  if (channel_backlog(c) > 0 && !c->ended) want |= UV_WRITABLE;
  if (want == c->interest || c->closing) return;
  c->interest = want;
  if (want)
    uv_poll_start(&c->poll, want, on_poll);
  else
    uv_poll_stop(&c->poll);
}

static void end(struct channel *c, const struct err *err)
{
  if (c->ended || c->closing) return;
  c->ended = true;
  update_interest(c);
  c->events->on_end(c->data, err);
}

static void fail(struct channel *c, int sys_errno, const char *what)
{
  struct err e = {0};
  err_set(&e, ERR_INTERNAL, sys_errno, "%s", what);
  end(c, &e);
}

static uint32_t frame_len(const char *header)
{
  const unsigned char *h = (const unsigned char *)header;
  return (uint32_t)h[0] | (uint32_t)h[1] << 8 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 24;
}

/* Delivers the whole frames among the bytes, until a callback pauses or closes or the turn is over;
 * returns what it used. */
static size_t deliver(struct channel *c, const char *bytes, size_t n)
{
  size_t at = 0;
  while (!c->paused && !c->ended && !c->closing && c->turn_left > 0 && n - at >= HEADER) {
    size_t len = frame_len(bytes + at);
    if (len > c->max_frame) {
      fail(c, EMSGSIZE, "the peer sent a frame over the limit");
      break;
    }
    if (n - at - HEADER < len) break;
    at += HEADER + len;
    c->turn_left--;
    c->events->on_frame(c->data, bytes + at - len, len);
  }
  return at;
}

static void deliver_kept(struct channel *c)
{
  buf_consume(&c->in, deliver(c, c->in.data, c->in.len));
  if (c->in.len == 0) buf_free(&c->in); /* thousands of idle channels must not each keep a buffer */
}

static void take(struct channel *c, const char *bytes, size_t n)
{
  if (c->in.len > 0) {
    buf_append(&c->in, bytes, n);
    deliver_kept(c);
    return;
  }
  size_t used = deliver(c, bytes, n);
  if (used < n) buf_append(&c->in, bytes + used, n - used);
}

static void read_piece(struct channel *c)
{
  static char piece[PIECE]; /* one loop, one thread: shared by all channels */
  ssize_t n;
  while ((n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT)) < 0 && errno == EINTR) {}
  if (n < 0 && errno == EAGAIN) return;
  if (n < 0)
    fail(c, errno, "the socket failed");
  else if (n == 0 && c->in.len > 0)
    fail(c, EPROTO, "the peer ended inside a frame");
  else if (n == 0)
    end(c, NULL);
  else
    take(c, piece, (size_t)n);
}

static bool is_open(const struct channel *c)
{
  return !c->paused && !c->ended && !c->closing;
}

static void take_turn(struct channel *c)
{
  c->turn_left = TURN_FRAMES;
  if (c->in.len > 0) deliver_kept(c);
  if (c->turn_left > 0 && is_open(c)) read_piece(c);
  c->busy = c->turn_left == 0;
  if (c->busy && c->in.len > 0 && is_open(c)) loop_defer_late(c->loop, &c->resume);
}

static void on_readable(struct channel *c)
{
  if (c->resume.queued) return; /* what came before comes first */
  if (c->busy)
    loop_defer_late(c->loop, &c->resume);
  else
    take_turn(c);
}

static void write_turn(struct channel *c)
{
  while (channel_backlog(c) > 0) {
    ssize_t n =
        send(c->fd, c->out.data + c->out_at, channel_backlog(c), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    c->out_at =
        n < 0 ? c->out.len : c->out_at + (size_t)n; /* the reading side reports a dead peer */
  }
  if (channel_backlog(c) == 0) {
    buf_free(&c->out);
    c->out_at = 0;
  }
  update_interest(c);
  if (channel_backlog(c) == 0 && c->events->on_drain) c->events->on_drain(c->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
  struct channel *c = poll->data;
  if (status < 0) {
    fail(c, -status, "the socket failed");
    return;
  }
  if (events & UV_WRITABLE) write_turn(c);
  if ((events & UV_READABLE) && !c->closing) on_readable(c);
}

static void on_resume(struct defer *d)
{
  take_turn(d->data);
}

int channel_new(struct channel **ret, struct loop *loop, int fd, size_t max_frame,
                const struct channel_events *events, void *data, struct err *err)
{
  struct channel *c = xcalloc(1, sizeof *c);
  *c = (struct channel){
      .loop = loop, .fd = fd, .max_frame = max_frame, .events = events, .data = data};
  c->resume = (struct defer){.cb = on_resume, .data = c};
  int rc = uv_poll_init(loop_uv(loop), &c->poll, fd);
  if (rc < 0) {
    close(fd);
    free(c);
    return err_set(err, ERR_INTERNAL, -rc, "cannot watch a socket: %s", uv_strerror(rc));
  }
  c->poll.data = c;
  update_interest(c);
  *ret = c;
  return 0;
}

void channel_send(struct channel *c, const void *bytes, size_t len)
{
  if (c->ended || c->closing) return;
  char header[HEADER] = {(char)len, (char)(len >> 8), (char)(len >> 16), (char)(len >> 24)};
  size_t sent = 0;
  if (channel_backlog(c) == 0) {
    struct iovec iov[2] = {{header, HEADER}, {(void *)(uintptr_t)bytes, len}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent = (size_t)n;
    if (sent == HEADER + len) return;
  }
  if (sent < HEADER) buf_append(&c->out, header + sent, HEADER - sent);
  size_t body = sent > HEADER ? sent - HEADER : 0;
  buf_append(&c->out, (const char *)bytes + body, len - body);
  update_interest(c);
}

size_t channel_backlog(const struct channel *c)
{
  return c->out.len - c->out_at;
}

void channel_pause(struct channel *c, bool paused)
{
  if (c->paused == paused || c->closing) return;
  c->paused = paused;
  update_interest(c);
  if (!paused && c->in.len > 0) loop_defer(c->loop, &c->resume);
}

static void on_closed(uv_handle_t *handle)
{
  struct channel *c = handle->data;
  close(c->fd);
  buf_free(&c->in);
  buf_free(&c->out);
  if (c->closed) c->closed(c->closed_data);
  free(c);
}

void channel_close(struct channel *c, void (*closed)(void *data), void *data)
{
  if (!c || c->closing) return;
  c->closing = true;
  c->closed = closed;
  c->closed_data = data;
  loop_defer_cancel(c->loop, &c->resume);
  uv_close((uv_handle_t *)&c->poll, on_closed);
}

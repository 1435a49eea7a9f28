/* A queue in front of stdout or stderr.
 *
 * The descriptor is shared with whoever started us, so its O_NONBLOCK flag is not ours to set: a
 * pipe or terminal is opened anew through /proc, a socket is written with MSG_DONTWAIT, a regular
 * file never blocks for long, and what cannot be opened anew is written only when poll says so, at
 * most PIPE_BUF bytes at a time. When the reader is slow the rest waits here and on_full asks the
 * producers to wait; nothing is dropped while someone may still read.
 *
 *   idle → (append) → queued → (would block) → waiting → … → closing → closed */
#include "host/out.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "core/loop.h"

enum { OUT_HIGH = 1 << 20, OUT_LOW = 1 << 18 };

enum out_kind { OUT_FILE, OUT_SOCKET, OUT_NONBLOCK, OUT_POLLED };

struct out {
  struct out_conf conf;
  enum out_kind kind;
  int fd;           /* written to; ours when it differs from conf.fd */
  struct buf queue; /* bytes from `sent` on are still to be written */
  size_t sent;
  struct defer flush;
  uv_poll_t poll; /* wakes us when the reader has room */
  bool poll_open, waiting, full, broken, broken_told, closing, closed;
  void (*on_closed)(void *data);
  void *closed_data;
};

static void on_turn(struct defer *d);
static void close_if_done(struct out *o);

static void choose_kind(struct out *o)
{
  struct stat st;
  o->fd = o->conf.fd;
  o->kind = OUT_FILE;
  if (fstat(o->fd, &st) < 0 || S_ISREG(st.st_mode)) return;
  o->kind = OUT_SOCKET;
  if (S_ISSOCK(st.st_mode)) return;
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", o->fd);
  int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  o->kind = fd >= 0 ? OUT_NONBLOCK : OUT_POLLED;
  if (fd >= 0) o->fd = fd;
}

struct out *out_new(const struct out_conf *conf)
{
  struct out *o = xcalloc(1, sizeof *o);
  o->conf = *conf;
  o->flush = (struct defer){.cb = on_turn, .data = o};
  choose_kind(o);
  return o;
}

size_t out_queued(const struct out *o)
{
  return o->queue.len - o->sent;
}

bool out_is_full(const struct out *o)
{
  return o->full;
}

static ssize_t write_some(struct out *o, const char *data, size_t len)
{
  if (o->kind == OUT_SOCKET) return send(o->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (o->kind == OUT_POLLED) {
    struct pollfd p = {.fd = o->fd, .events = POLLOUT};
    if (poll(&p, 1, 0) == 0) {
      errno = EAGAIN;
      return -1;
    }
    if (len > PIPE_BUF) len = PIPE_BUF;
  }
  return write(o->fd, data, len);
}

static void on_writable(uv_poll_t *poll, int status, int events)
{
  (void)status;
  (void)events;
  struct out *o = poll->data;
  uv_poll_stop(&o->poll);
  o->waiting = false;
  out_flush(o);
  close_if_done(o);
}

/* A descriptor that epoll does not take never blocks; then the next turn tries again. */
static void wait_writable(struct out *o)
{
  if (!o->poll_open && uv_poll_init(loop_uv(o->conf.loop), &o->poll, o->fd) == 0) {
    o->poll_open = true;
    o->poll.data = o;
  }
  if (o->poll_open && uv_poll_start(&o->poll, UV_WRITABLE, on_writable) == 0)
    o->waiting = true;
  else
    loop_defer(o->conf.loop, &o->flush);
}

static void drop_queue(struct out *o)
{
  buf_free(&o->queue);
  o->sent = 0;
}

static void consume(struct out *o, size_t n)
{
  o->sent += n;
  if (o->sent == o->queue.len) {
    o->sent = 0;
    if (o->queue.cap > OUT_LOW)
      buf_free(&o->queue);
    else
      o->queue.len = 0;
  } else if (o->sent > o->queue.len / 2) {
    buf_consume(&o->queue, o->sent);
    o->sent = 0;
  }
}

static void tell_full(struct out *o)
{
  bool full = o->full ? out_queued(o) > OUT_LOW : out_queued(o) > OUT_HIGH;
  if (full == o->full) return;
  o->full = full;
  if (o->conf.on_full) o->conf.on_full(o->conf.data, full);
}

static void set_broken(struct out *o, int sys_errno)
{
  o->broken = true;
  drop_queue(o);
  if (o->broken_told) return;
  o->broken_told = true;
  if (o->conf.on_broken) o->conf.on_broken(o->conf.data, sys_errno);
}

void out_flush(struct out *o)
{
  while (!o->waiting && out_queued(o) > 0) {
    ssize_t n = write_some(o, o->queue.data + o->sent, out_queued(o));
    if (n >= 0) {
      consume(o, (size_t)n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      wait_writable(o);
      break;
    } else if (errno != EINTR) {
      set_broken(o, errno);
    }
  }
  tell_full(o);
}

static void on_turn(struct defer *d)
{
  struct out *o = d->data;
  out_flush(o);
  close_if_done(o);
}

void out_append(struct out *o, const void *data, size_t len)
{
  if (o->broken || len == 0) return;
  buf_append(&o->queue, data, len);
  if (!o->waiting) loop_defer(o->conf.loop, &o->flush);
  tell_full(o);
}

void out_abandon(struct out *o)
{
  o->broken = o->broken_told = true;
  drop_queue(o);
  if (o->closed) return;
  if (o->poll_open) uv_poll_stop(&o->poll);
  o->waiting = false;
  tell_full(o);
  loop_defer(o->conf.loop, &o->flush);
}

static void finish_close(struct out *o)
{
  if (o->fd != o->conf.fd) close(o->fd);
  o->fd = -1;
  o->closed = true;
  o->on_closed(o->closed_data);
}

static void on_poll_closed(uv_handle_t *handle)
{
  finish_close(handle->data);
}

static void close_if_done(struct out *o)
{
  if (!o->closing || out_queued(o) > 0) return;
  o->closing = false;
  loop_defer_cancel(o->conf.loop, &o->flush);
  if (o->poll_open)
    uv_close((uv_handle_t *)&o->poll, on_poll_closed);
  else
    finish_close(o);
}

void out_close(struct out *o, void (*done)(void *data), void *data)
{
  o->closing = true;
  o->on_closed = done;
  o->closed_data = data;
  if (!o->waiting) loop_defer(o->conf.loop, &o->flush);
}

void out_free(struct out *o)
{
  if (!o) return;
  buf_free(&o->queue);
  free(o);
}

/* Many descriptors behind one libuv handle (see watch.h).
 *
 * Owns an epoll instance and a uv_poll on it. Each turn it takes one batch of events and runs their
 * callbacks; a watch that is stopped meanwhile is struck from the batch, so that its memory may go
 * at once. What does not fit the batch is still ready in the next turn. */
#include "engine/local/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "core/loop.h"

#define BATCH 128

struct watcher {
  uv_poll_t poll;
  int epfd;
  struct epoll_event batch[BATCH];
  int batch_n, batch_at; /* events not yet delivered: batch[batch_at..batch_n) */
  void (*on_closed)(void *data);
  void *closed_data;
};

static void on_ready(uv_poll_t *poll, int status, int events)
{
  struct watcher *w = poll->data;
  (void)status, (void)events;
  int n = epoll_wait(w->epfd, w->batch, BATCH, 0);
  w->batch_n = n > 0 ? n : 0;
  for (w->batch_at = 0; w->batch_at < w->batch_n;) {
    struct epoll_event *e = &w->batch[w->batch_at++];
    struct watch *watch = e->data.ptr;
    if (watch) watch->cb(watch, e->events);
  }
  w->batch_n = w->batch_at = 0;
}

int watcher_new(struct watcher **ret, struct loop *loop, struct err *err)
{
  struct watcher *w = xcalloc(1, sizeof *w);
  w->epfd = epoll_create1(EPOLL_CLOEXEC);
  int rc = w->epfd < 0 ? -errno : uv_poll_init(loop_uv(loop), &w->poll, w->epfd);
  if (rc < 0) {
    if (w->epfd >= 0) close(w->epfd);
    free(w);
    return err_set(err, ERR_INTERNAL, -rc, "cannot watch descriptors: %s", strerror(-rc));
  }
  w->poll.data = w;
  uv_poll_start(&w->poll, UV_READABLE, on_ready);
  *ret = w;
  return 0;
}

static void on_closed(uv_handle_t *handle)
{
  struct watcher *w = handle->data;
  void (*done)(void *) = w->on_closed;
  void *data = w->closed_data;
  close(w->epfd);
  free(w);
  done(data);
}

void watcher_close(struct watcher *w, void (*done)(void *data), void *data)
{
  w->on_closed = done;
  w->closed_data = data;
  uv_close((uv_handle_t *)&w->poll, on_closed);
}

int watch_set(struct watcher *w, struct watch *watch, int fd, uint32_t events)
{
  int op = watch->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  struct epoll_event e = {.events = events, .data.ptr = watch};
  if (epoll_ctl(w->epfd, op, fd, &e) < 0) return -errno;
  watch->fd = fd;
  watch->events = events | EPOLLHUP;
  return 0;
}

void watch_stop(struct watcher *w, struct watch *watch)
{
  if (!watch->events) return;
  epoll_ctl(w->epfd, EPOLL_CTL_DEL, watch->fd, NULL);
  watch->events = 0;
  for (int i = w->batch_at; i < w->batch_n; i++)
    if (w->batch[i].data.ptr == watch) w->batch[i].data.ptr = NULL;
}

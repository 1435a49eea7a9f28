#ifndef REGOLITH_ENGINE_LOCAL_WATCH_H
#define REGOLITH_ENGINE_LOCAL_WATCH_H

#include <stdint.h>
#include <sys/epoll.h>

#include "base/err.h"

struct loop;

/* Descriptors watched without handles: one epoll instance of our own behind one uv_poll. A watch
 * lives inside its owner's memory and may be freed as soon as it is stopped, also from inside any
 * watch's callback; so thousands of short-lived pipes need neither allocation nor asynchronous
 * close. Level-triggered. */
struct watcher;

struct watch {
  void (*cb)(struct watch *watch, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR */
  void *data;
  int fd;          /* private: -1 or 0 and events 0 = not watched */
  uint32_t events; /* private: 0 = not watched; EPOLLHUP alone = errors and hang-ups only */
};

int watcher_new(struct watcher **ret, struct loop *loop, struct err *err);
/* All watches must be stopped. done comes from the loop. */
void watcher_close(struct watcher *w, void (*done)(void *data), void *data);

/* Starts, or changes what is waited for. */
int watch_set(struct watcher *w, struct watch *watch, int fd, uint32_t events);
void watch_stop(struct watcher *w, struct watch *watch); /* before its fd is closed; idempotent */

#endif

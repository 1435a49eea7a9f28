#ifndef REGOLITH_ENGINE_REMOTE_EVENTS_H
#define REGOLITH_ENGINE_REMOTE_EVENTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

#define EVENTS_MAX (16u << 20) /* bytes of one event */

/* Reads server-sent events (WHATWG HTML, "Server-sent events", the event stream format), of which
 * it keeps the name and the data. Zero-initialise, set on_event and owner. */
struct events {
  /* false: it has had enough; nothing more is read. data has a NUL behind len. */
  bool (*on_event)(void *owner, const char *name, const char *data, size_t len);
  void *owner;
  struct buf line, data; /* private */
  char name[24];         /* private */
  bool cr, had_data;     /* private */
};

/* false: an event is longer than EVENTS_MAX, or on_event had enough. */
bool events_feed(struct events *ev, const void *bytes, size_t len);
void events_done(struct events *ev);

#endif

/* Server-sent events, read as they come.
 *
 * Lines end with LF, CR or CRLF; an empty line ends the event. Fields other than event and data
 * (id, retry) say nothing to us, and comments keep proxies awake. An event that the stream's end
 * cuts off never was one. */
#include "engine/remote/events.h"

#include <stdio.h>
#include <string.h>

static bool dispatch(struct events *ev)
{
  bool go_on = true;
  if (ev->had_data) {
    if (ev->data.len > 0) ev->data.data[--ev->data.len] = '\0'; /* the last line's own LF */
    go_on = ev->on_event(ev->owner, ev->name[0] ? ev->name : "message",
                         ev->data.data ? ev->data.data : "", ev->data.len);
  }
  ev->data.len = 0;
  ev->name[0] = '\0';
  ev->had_data = false;
  return go_on;
}

static bool take_line(struct events *ev)
{
  const char *line = ev->line.data ? ev->line.data : "";
  size_t len = ev->line.len;
  if (len == 0) return dispatch(ev);
  const char *colon = memchr(line, ':', len);
  size_t name_len = colon ? (size_t)(colon - line) : len;
  const char *value = colon ? colon + 1 : line + len;
  size_t value_len = (size_t)(line + len - value);
  if (value_len > 0 && *value == ' ') value++, value_len--;
  if (name_len == 4 && memcmp(line, "data", 4) == 0) {
    buf_append(&ev->data, value, value_len);
    buf_putc(&ev->data, '\n');
    ev->had_data = true;
  } else if (name_len == 5 && memcmp(line, "event", 5) == 0) {
    snprintf(ev->name, sizeof ev->name, "%.*s", (int)(value_len < 24 ? value_len : 24), value);
  }
  ev->line.len = 0;
  return true;
}

bool events_feed(struct events *ev, const void *bytes, size_t len)
{
  const char *p = bytes, *end = p + len;
  while (p < end) {
    if (ev->cr && *p == '\n') p++; /* the rest of a CRLF */
    ev->cr = false;
    const char *stop = p;
    while (stop < end && *stop != '\n' && *stop != '\r') stop++;
    buf_append(&ev->line, p, (size_t)(stop - p));
    if (ev->line.len + ev->data.len > EVENTS_MAX) return false;
    if (stop == end) return true;
    ev->cr = *stop == '\r';
    p = stop + 1;
    if (!take_line(ev)) return false;
    ev->line.len = 0;
  }
  return true;
}

void events_done(struct events *ev)
{
  buf_free(&ev->line);
  buf_free(&ev->data);
}

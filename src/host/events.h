#ifndef REGOLITH_HOST_EVENTS_H
#define REGOLITH_HOST_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct events;
struct host_hooks;
struct val;

/* What happens in a run, as plain data: one table per event, with "event", "time" (UTC,
 * milliseconds) and, when it belongs to one, "script". docs/regolith.1 lists them; fields are
 * added, never renamed. */
struct events_conf {
  const char *const *names; /* of the scripts, in order; the strings outlive the events */
  size_t names_n;
  bool output;                                       /* also what scripts print, line by line */
  void (*emit)(void *data, const struct val *event); /* valid during the call */
  void *data;
};

struct events *events_new(const struct events_conf *conf);
extern const struct host_hooks events_hooks; /* with a struct events as data */
void events_run_end(struct events *events, int exit_status);
void events_free(struct events *events);

#endif

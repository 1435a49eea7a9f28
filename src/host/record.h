#ifndef REGOLITH_HOST_RECORD_H
#define REGOLITH_HOST_RECORD_H

#include <stddef.h>

struct err;
struct events;
struct record;

/* Keeps a run's events for a report at its end: JSON, or a page to look at. */
struct record *record_new(const char *const *names, size_t names_n);
struct events *record_events(struct record *record); /* for host_add_hooks, with events_hooks */

/* Writes the report to path: a self-contained HTML page where it ends in .html or .htm, else JSON:
 * { "events": [ … ] }. The file appears whole or not at all. */
int record_write(const struct record *record, const char *path, struct err *err);
void record_free(struct record *record);

#endif

#ifndef REGOLITH_HOST_TALLY_H
#define REGOLITH_HOST_TALLY_H

#include <stddef.h>

struct buf;
struct host_hooks;
struct tally;
struct val;

/* What is going on right now: scripts, tasks, sandboxes and running commands, counted from the
 * host's hooks. For `regolith ps` and for the live view on a terminal. */
struct tally *tally_new(const char *const *names, size_t names_n);
extern const struct host_hooks tally_hooks; /* with a struct tally as data */

/* { pid, started_at, scripts = { { name, state, tasks, sandboxes, commands, seconds } },
 *   sandboxes = { { sandbox_id, script, image, engine, seconds, commands = { { command, seconds } }
 * } } } */
struct val tally_snapshot(const struct tally *tally);

/* One line for people, of at most `width` columns: "3 scripts, 5 sandboxes, 2 commands: …". */
void tally_line(const struct tally *tally, struct buf *out, size_t width);
void tally_free(struct tally *tally);

#endif

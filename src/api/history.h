#ifndef REGOLITH_API_HISTORY_H
#define REGOLITH_API_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/val.h"

/* What was run lately, for whoever looks at the page: in memory, and bounded. */
#define HISTORY_EXECS   20         /* of one sandbox, those that have ended */
#define HISTORY_OUTPUT  8192       /* bytes kept of each stream: the first and the last half */
#define HISTORY_COMMAND 1024       /* bytes of a command as text */
#define HISTORY_MAX     (16 << 20) /* bytes of all together; the oldest go first */

struct history;
struct history_exec; /* one command; the history's */

struct history *history_new(void);
void history_free(struct history *h);

/* command is a text or a list of texts. Ends with history_end. */
struct history_exec *history_begin(struct history *h, int64_t account, const char *sandbox_id,
                                   const struct val *command);
void history_output(struct history_exec *x, bool is_stderr, const void *data, size_t len);
/* outcome is the op's result; NULL: it did not run, or nobody waited for its end, which `why` says
 * in a word. */
void history_end(struct history *h, struct history_exec *x, const struct val *outcome,
                 const char *why);

/* Newest first: { { command, started_at, running, reason, exit_code, signal, duration_ms, stdout,
 * stderr, truncated }, … }. */
struct val history_list(const struct history *h, int64_t account, const char *sandbox_id);

#endif

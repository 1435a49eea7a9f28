#ifndef REGOLITH_API_RECENT_H
#define REGOLITH_API_RECENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/val.h"

/* What was run lately, for whoever looks at the page: in memory, and bounded. */
#define RECENT_EXECS   20         /* of one sandbox, those that have ended */
#define RECENT_OUTPUT  8192       /* bytes kept of each stream: the first and the last half */
#define RECENT_COMMAND 1024       /* bytes of a command as text */
#define RECENT_MAX     (16 << 20) /* bytes of all together; the oldest go first */

struct recent;
struct recent_exec; /* one command; its list's */

struct recent *recent_new(void);
void recent_free(struct recent *h);

/* command is a text or a list of texts. Ends with recent_end. */
struct recent_exec *recent_begin(struct recent *h, int64_t account, const char *sandbox_id,
                                 const struct val *command);
void recent_output(struct recent_exec *x, bool is_stderr, const void *data, size_t len);
/* outcome is the op's result; NULL: it did not run, or nobody waited for its end, which `why` says
 * in a word. */
void recent_end(struct recent *h, struct recent_exec *x, const struct val *outcome,
                const char *why);

/* Newest first: { { command, started_at, running, reason, exit_code, signal, duration_ms, stdout,
 * stderr, truncated }, … }. */
struct val recent_list(const struct recent *h, int64_t account, const char *sandbox_id);

#endif

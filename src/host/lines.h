#ifndef REGOLITH_HOST_LINES_H
#define REGOLITH_HOST_LINES_H

#include <stddef.h>

#include "base/buf.h"

/* Bytes into lines. Zero-initialised is empty. */
struct lines {
  struct buf partial; /* behind the last newline */
};

typedef void lines_emit_fn(void *ctx, const char *line, size_t len);

/* Calls emit for each whole line (newline included) that text completes, and keeps the rest. A line
 * of more than 64 KiB comes in pieces: who prints no newline must not grow the buffer. */
void lines_split(struct lines *lines, const char *text, size_t len, lines_emit_fn *emit, void *ctx);
void lines_end(struct lines *lines, lines_emit_fn *emit, void *ctx); /* emits what was kept */

#endif

/* Bytes into lines, with a bounded memory of the unfinished one. */
#include "host/lines.h"

#include <string.h>

enum { LINE_MAX_BYTES = 64 << 10 };

void lines_split(struct lines *l, const char *text, size_t len, lines_emit_fn *emit, void *ctx)
{
  while (len > 0) {
    const char *nl = memchr(text, '\n', len);
    size_t n = nl ? (size_t)(nl - text) + 1 : len;
    if (nl && l->partial.len == 0) {
      emit(ctx, text, n);
    } else {
      buf_append(&l->partial, text, n);
      if (nl || l->partial.len >= LINE_MAX_BYTES) lines_end(l, emit, ctx);
    }
    text += n;
    len -= n;
  }
}

void lines_end(struct lines *l, lines_emit_fn *emit, void *ctx)
{
  if (l->partial.len == 0) return;
  emit(ctx, l->partial.data, l->partial.len);
  buf_free(&l->partial);
}

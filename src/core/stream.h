#ifndef REGOLITH_CORE_STREAM_H
#define REGOLITH_CORE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is kept of a command's output: the first and the last half of `max` bytes, the rest counted.
 * Memory follows what was written and never passes `max`. Zero-initialised keeps nothing. */
struct stream {
  size_t head_max, tail_max; /* bytes kept at most */
  uint64_t total;            /* bytes written, kept or not */
  char *head, *tail;         /* owned; tail is a ring once it is full */
  size_t head_len, head_cap; /* bytes */
  size_t tail_len, tail_cap; /* bytes */
  size_t tail_at;            /* oldest byte of the full ring */
};

void stream_init(struct stream *s, size_t max);
void stream_write(struct stream *s, const void *data, size_t len);

/* Where memory is short: no more of it is taken from now on, but for up to `least` bytes of each
 * half. What was kept stays; the last bytes take the room that there is. */
void stream_freeze(struct stream *s, size_t least);
size_t stream_memory(const struct stream *s); /* bytes taken */
bool stream_truncated(const struct stream *s);

/* A copy of what was kept so far, NUL-terminated behind ret_len (the caller frees). */
char *stream_copy(const struct stream *s, size_t *ret_len);

/* Copies what was kept from byte *at of all that was written on, up to size bytes of it, and moves
 * *at behind that; what is no longer kept is passed over and counted in *ret_lost. */
size_t stream_read(const struct stream *s, uint64_t *at, char *out, size_t size,
                   uint64_t *ret_lost);

/* Hands over what was kept, in order, NUL-terminated behind ret_len (the caller frees); the stream
 * is empty afterwards but remembers total. */
char *stream_take(struct stream *s, size_t *ret_len);
void stream_free(struct stream *s);

#endif

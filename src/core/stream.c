/* Bounded capture of output: a head that fills once, then a tail that turns into a ring.
 *
 * Invariants: head_len + tail_len = min(total, head_max + tail_max); the tail is a plain buffer
 * until it holds its half, from then on tail_at is both the oldest byte and the next to be
 * overwritten. Both grow by doubling, so that a thousand small commands do not cost a thousand
 * times `max`. */
#include "core/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

void stream_init(struct stream *s, size_t max)
{
  *s = (struct stream){.head_max = max - max / 2, .tail_max = max / 2};
}

static size_t min(size_t a, size_t b)
{
  return a < b ? a : b;
}

static void grow(char **p, size_t *cap, size_t need, size_t most)
{
  if (need <= *cap) return;
  size_t to = *cap ? *cap : 256;
  while (to < need) to *= 2;
  *cap = min(to, most);
  *p = xrealloc(*p, *cap);
}

static void ring_write(struct stream *s, const char *p, size_t len, size_t size)
{
  if (len > size) { /* only the end of it can stay */
    p += len - size;
    s->tail_at = (s->tail_at + (len - size)) % size;
    len = size;
  }
  size_t first = min(len, size - s->tail_at);
  memcpy(s->tail + s->tail_at, p, first);
  memcpy(s->tail, p + first, len - first);
  s->tail_at = (s->tail_at + len) % size;
}

void stream_write(struct stream *s, const void *data, size_t len)
{
  const char *p = data;
  s->total += len;
  size_t n = min(len, s->head_max - s->head_len);
  if (n > 0) {
    grow(&s->head, &s->head_cap, s->head_len + n, s->head_max);
    memcpy(s->head + s->head_len, p, n);
    s->head_len += n;
    p += n;
    len -= n;
  }
  size_t size = s->tail_max;
  n = min(len, size - s->tail_len);
  if (n > 0) {
    grow(&s->tail, &s->tail_cap, s->tail_len + n, size);
    memcpy(s->tail + s->tail_len, p, n);
    s->tail_len += n;
    p += n;
    len -= n;
  }
  if (len > 0 && size > 0) ring_write(s, p, len, size);
}

static size_t at_least(size_t cap, size_t least, size_t most)
{
  return cap > least ? cap : min(least, most);
}

void stream_freeze(struct stream *s, size_t least)
{
  s->head_max = at_least(s->head_cap, least, s->head_max);
  s->tail_max = at_least(s->tail_cap, least, s->tail_max);
}

size_t stream_memory(const struct stream *s)
{
  return s->head_cap + s->tail_cap;
}

bool stream_truncated(const struct stream *s)
{
  return s->total > s->head_len + s->tail_len;
}

/* The tail behind the head; all has room for both and a NUL. */
static void append_tail(const struct stream *s, char *all)
{
  size_t old = s->tail_len - s->tail_at;
  if (s->tail_len > 0) {
    memcpy(all + s->head_len, s->tail + s->tail_at, old);
    memcpy(all + s->head_len + old, s->tail, s->tail_at);
  }
  all[s->head_len + s->tail_len] = '\0';
}

char *stream_copy(const struct stream *s, size_t *ret_len)
{
  *ret_len = s->head_len + s->tail_len;
  char *all = xmalloc(*ret_len + 1);
  if (s->head_len > 0) memcpy(all, s->head, s->head_len);
  append_tail(s, all);
  return all;
}

static size_t read_tail(const struct stream *s, size_t from, char *out, size_t size)
{
  size_t done = 0;
  while (done < size && from < s->tail_len) {
    size_t at = (s->tail_at + from) % s->tail_len;
    size_t n = min(min(size - done, s->tail_len - from), s->tail_len - at);
    memcpy(out + done, s->tail + at, n);
    done += n;
    from += n;
  }
  return done;
}

size_t stream_read(const struct stream *s, uint64_t *at, char *out, size_t size, uint64_t *ret_lost)
{
  size_t done = 0;
  uint64_t tail_from = s->total - s->tail_len;
  *ret_lost = 0;
  if (*at < s->head_len) {
    done = min(size, s->head_len - (size_t)*at);
    memcpy(out, s->head + *at, done);
    *at += done;
    if (done > 0) return done;
  }
  if (*at < tail_from) {
    *ret_lost = tail_from - *at;
    *at = tail_from;
  }
  done = read_tail(s, (size_t)(*at - tail_from), out, size);
  *at += done;
  return done;
}

char *stream_take(struct stream *s, size_t *ret_len)
{
  *ret_len = s->head_len + s->tail_len;
  char *all = xrealloc(s->head, *ret_len + 1);
  append_tail(s, all);
  free(s->tail);
  *s = (struct stream){.total = s->total};
  return all;
}

void stream_free(struct stream *s)
{
  free(s->head);
  free(s->tail);
  *s = (struct stream){0};
}

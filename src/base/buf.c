/* Growing byte buffer and the allocations that abort.
 *
 * regolith's own bookkeeping is small and bounded; when even that cannot be had, carrying on would
 * mean guessing, so the process ends at once and the janitor cleans up after it. Memory whose size
 * a stranger chooses is never taken this way: it is bounded before it is asked for. */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p, size_t size)
{
  if (!p && size) {
    fprintf(stderr, "regolith: out of memory (%zu bytes)\n", size);
    abort();
  }
  return p;
}

void *xmalloc(size_t size)
{
  return checked(malloc(size ? size : 1), size);
}

void *xcalloc(size_t n, size_t size)
{
  return checked(calloc(n ? n : 1, size ? size : 1), n * size);
}

void *xrealloc(void *p, size_t size)
{
  return checked(realloc(p, size ? size : 1), size);
}

char *xstrdup(const char *s)
{
  return xmemdup(s, strlen(s) + 1);
}

void *xmemdup(const void *p, size_t len)
{
  void *copy = xmalloc(len);
  if (len) memcpy(copy, p, len);
  return copy;
}

void buf_reserve(struct buf *b, size_t more)
{
  size_t need = b->len + more + 1;
  if (need <= b->cap) return;
  size_t cap = b->cap ? b->cap : 64;
  while (cap < need) cap += cap / 2 + 64;
  b->data = xrealloc(b->data, cap);
  b->cap = cap;
}

void buf_append(struct buf *b, const void *data, size_t len)
{
  buf_reserve(b, len);
  if (len) memcpy(b->data + b->len, data, len);
  b->len += len;
  b->data[b->len] = '\0';
}

void buf_puts(struct buf *b, const char *s)
{
  buf_append(b, s, strlen(s));
}

void buf_putc(struct buf *b, char c)
{
  buf_append(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  if (n > 0) {
    buf_reserve(b, (size_t)n);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
    b->len += (size_t)n;
  }
  va_end(again);
}

void buf_consume(struct buf *b, size_t n)
{
  if (n >= b->len) {
    b->len = 0;
  } else {
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
  }
  if (b->data) b->data[b->len] = '\0';
}

char *buf_take(struct buf *b, size_t *ret_len)
{
  buf_reserve(b, 0);
  b->data[b->len] = '\0';
  char *data = b->data;
  if (ret_len) *ret_len = b->len;
  *b = (struct buf){0};
  return data;
}

void buf_free(struct buf *b)
{
  free(b->data);
  *b = (struct buf){0};
}

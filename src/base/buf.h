#ifndef REGOLITH_BASE_BUF_H
#define REGOLITH_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

/* A growing byte buffer. data is NUL-terminated behind len whenever it is not NULL.
 * Zero-initialised is empty and valid. Growth aborts the process when memory is gone. */
struct buf {
  char *data;
  size_t len, cap;
};

void buf_reserve(struct buf *b, size_t more);
void buf_append(struct buf *b, const void *data, size_t len);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Removes n bytes from the front. */
void buf_consume(struct buf *b, size_t n);

/* Hands the data (never NULL) to the caller, who frees it; the buffer is empty afterwards. */
char *buf_take(struct buf *b, size_t *ret_len);
void buf_free(struct buf *b);

/* Allocation that cannot fail for the sizes of our own bookkeeping: abort with a message when it
 * does. */
void *xmalloc(size_t size);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
void *xmemdup(const void *p, size_t len);

#endif

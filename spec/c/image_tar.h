#ifndef REGOLITH_SPEC_IMAGE_TAR_H
#define REGOLITH_SPEC_IMAGE_TAR_H

/* Tar archives written by hand, header by header, so that they can be wrong in any way. */

#include <stdio.h>
#include <string.h>

#include "base/buf.h"

struct tar_header {
  const char *name, *link;
  char type; /* '0' file, '1' hard link, '2' symlink, '3' char, '5' folder, '6' fifo … */
  unsigned mode, uid, gid;
  unsigned long long size; /* as the header says */
  long long mtime;
  unsigned major, minor;
};

static inline void tar_octal(char *field, size_t len, unsigned long long v)
{
  for (size_t i = len - 1; i-- > 0; v >>= 3) field[i] = (char)('0' + (v & 7));
  field[len - 1] = '\0';
}

static inline void tar_add(struct buf *out, const struct tar_header *h, const void *data,
                           size_t len)
{
  char b[512] = {0};
  memcpy(b, h->name, strlen(h->name) > 100 ? 100 : strlen(h->name));
  tar_octal(b + 100, 8, h->mode ? h->mode : h->type == '5' ? 0755 : 0644);
  tar_octal(b + 108, 8, h->uid);
  tar_octal(b + 116, 8, h->gid);
  tar_octal(b + 124, 12, h->size ? h->size : len);
  tar_octal(b + 136, 12, (unsigned long long)(h->mtime ? h->mtime : 1000000000));
  b[156] = h->type;
  if (h->link) memcpy(b + 157, h->link, strlen(h->link) > 100 ? 100 : strlen(h->link));
  memcpy(b + 257, "ustar\00000", 8);
  tar_octal(b + 329, 8, h->major);
  tar_octal(b + 337, 8, h->minor);
  memset(b + 148, ' ', 8);
  unsigned sum = 0;
  for (size_t i = 0; i < sizeof b; i++) sum += (unsigned char)b[i];
  tar_octal(b + 148, 7, sum);
  buf_append(out, b, sizeof b);
  buf_append(out, data, len);
  static const char zeros[512];
  buf_append(out, zeros, (512 - len % 512) % 512);
}

/* One record of a pax header. */
static inline void tar_pax_record(struct buf *records, const char *key, const void *value,
                                  size_t value_len)
{
  char number[24];
  size_t body = strlen(key) + value_len + 3, total = body;
  for (;;) {
    size_t digits = (size_t)snprintf(number, sizeof number, "%zu", total);
    if (body + digits == total) break;
    total = body + digits;
  }
  buf_printf(records, "%zu %s=", total, key);
  buf_append(records, value, value_len);
  buf_putc(records, '\n');
}

/* A pax header ("x") with these records, which are freed. */
static inline void tar_pax_add(struct buf *out, struct buf *records)
{
  tar_add(out, &(struct tar_header){.name = "pax", .type = 'x'}, records->data, records->len);
  buf_free(records);
}

static inline void tar_pax(struct buf *out, const char *key, const void *value, size_t value_len)
{
  struct buf records = {0};
  tar_pax_record(&records, key, value, value_len);
  tar_pax_add(out, &records);
}

static inline void tar_end(struct buf *out)
{
  static const char zeros[1024];
  buf_append(out, zeros, sizeof zeros);
}

#endif

/* engine/remote/events: any bytes as a stream of events; in pieces it says the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/remote/events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool on_event(void *owner, const char *name, const char *data, size_t len)
{
  struct buf *all = owner;
  if (data[len] != '\0') abort();
  buf_puts(all, name);
  buf_putc(all, '=');
  buf_append(all, data, len);
  return true;
}

static void feed(const uint8_t *data, size_t size, size_t step, struct buf *all)
{
  struct events ev = {.on_event = on_event, .owner = all};
  for (size_t at = 0; at < size; at += step)
    events_feed(&ev, data + at, size - at < step ? size - at : step);
  events_done(&ev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct buf whole = {0}, pieces = {0};
  if (size == 0) return 0;
  feed(data, size, size, &whole);
  feed(data, size, 1 + data[0] % 7, &pieces);
  if (whole.len != pieces.len || (whole.len && memcmp(whole.data, pieces.data, whole.len) != 0))
    abort();
  buf_free(&whole);
  buf_free(&pieces);
  return 0;
}

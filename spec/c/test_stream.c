/* core/stream: against the plain definition, for every small size and for random large writes. */
#include "test.h"

#include <time.h>

#include "base/buf.h"
#include "core/stream.h"

/* First and last halves of all, by the book. */
static void check_against(const char *all, size_t len, size_t max, struct stream *s)
{
  CHECK_INT(s->total, len);
  CHECK(stream_truncated(s) == (len > max));
  size_t got_len;
  char *got = stream_take(s, &got_len);
  if (len <= max) {
    CHECK(got_len == len && memcmp(got, all, len) == 0);
  } else {
    size_t tail = max / 2, head = max - tail;
    CHECK_INT(got_len, max);
    CHECK(memcmp(got, all, head) == 0 && memcmp(got + head, all + len - tail, tail) == 0);
  }
  CHECK_INT(got[got_len], 0);
  free(got);
  CHECK_INT(s->total, len);
  stream_free(s);
}

static void small_sizes(void)
{
  static const char all[] = "abcdefghijklmnopqrstuvwxyz";
  for (size_t max = 0; max < 12; max++)
    for (size_t len = 0; len < 26; len++)
      for (size_t step = 1; step < 9; step++) {
        struct stream s;
        stream_init(&s, max);
        for (size_t at = 0; at < len; at += step)
          stream_write(&s, all + at, step < len - at ? step : len - at);
        check_against(all, len, max, &s);
      }
}

/* Frozen at any moment it keeps a beginning and an end, in the memory it had, or in `least`. */
static void frozen(void)
{
  static char all[20000];
  for (size_t i = 0; i < sizeof all; i++) all[i] = (char)('a' + i * 7 % 23);
  for (size_t at = 0; at <= 12000; at += 500)
    for (size_t least = 0; least <= 200; least += 100) {
      struct stream s;
      stream_init(&s, 10000);
      for (size_t n = 0; n < at; n += 100) stream_write(&s, all + n, 100);
      size_t had = stream_memory(&s);
      stream_freeze(&s, least);
      for (size_t n = at; n < sizeof all; n += 100) stream_write(&s, all + n, 100);
      CHECK(stream_memory(&s) <= had + 2 * least);
      CHECK_INT(s.total, sizeof all);
      CHECK(stream_truncated(&s));
      size_t head = s.head_len, tail = s.tail_len, len;
      CHECK(head >= least && tail >= least && head + tail >= (at < 10000 ? at : 10000));
      char *got = stream_take(&s, &len);
      CHECK_INT(len, head + tail);
      CHECK(memcmp(got, all, head) == 0);
      CHECK(memcmp(got + head, all + sizeof all - tail, tail) == 0);
      free(got);
    }
}

static void random_writes(void)
{
  unsigned seed = (unsigned)time(NULL);
  srand(seed);
  char *all = xmalloc(300000);
  for (size_t i = 0; i < 300000; i++) all[i] = (char)rand();
  for (int round = 0; round < 200; round++) {
    struct stream s;
    size_t max = (size_t)rand() % 60000, len = (size_t)rand() % 300000;
    stream_init(&s, max);
    for (size_t at = 0; at < len;) {
      size_t n = (size_t)rand() % (rand() % 4 ? 5000 : 70000);
      if (n > len - at) n = len - at;
      stream_write(&s, all + at, n);
      at += n;
    }
    CHECK(s.head_cap + s.tail_cap <= max);
    check_against(all, len, max, &s);
  }
  if (test_failed_checks) fprintf(stderr, "seed %u\n", seed);
  free(all);
}

static void memory_follows_use(void)
{
  struct stream s;
  stream_init(&s, 8 << 20);
  stream_write(&s, "hello", 5);
  CHECK(s.head_cap <= 256 && s.tail_cap == 0);
  stream_free(&s);
}

/* Read in steps while it is written: what comes is what was written, and what is lost is counted.
 */
static void reading(void)
{
  static const char all[] = "abcdefghijklmnopqrstuvwxyz";
  for (size_t max = 0; max < 30; max++)
    for (size_t step = 1; step < 9; step++)
      for (size_t ahead = 0; ahead < 12; ahead++) {
        struct stream s;
        uint64_t at = 0, lost;
        stream_init(&s, max);
        for (size_t w = 0; w < 26 || at < 26;) {
          size_t n = w < 26 ? (step < 26 - w ? step : 26 - w) : 0;
          stream_write(&s, all + w, n);
          w += n;
          if (w < ahead && w < 26) continue;
          char out[4] = "";
          uint64_t from = at;
          size_t got = stream_read(&s, &at, out, 3, &lost);
          CHECK(at == from + lost + got);
          CHECK(memcmp(out, all + from + lost, got) == 0);
          if (max >= 26) CHECK_INT(lost, 0);
          if (w == 26 && got == 0 && lost == 0) break;
        }
        CHECK_INT(at, 26);
        stream_free(&s);
      }
}

const struct test_case test_cases[] = {{"small_sizes", small_sizes},
                                       {"frozen", frozen},
                                       {"random_writes", random_writes},
                                       {"memory_follows_use", memory_follows_use},
                                       {"reading", reading},
                                       {0}};

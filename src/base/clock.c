/* Time: monotonic for everything that is waited for, wall clock for everything that is shown. */
#include "base/clock.h"

#include <time.h>

uint64_t clock_mono_ns(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ms(void)
{
  return clock_mono_ns() / 1000000u;
}

int64_t clock_wall_ms(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_wall_s(void)
{
  return clock_wall_ms() / 1000;
}

void clock_format_iso(int64_t wall_s, char out[CLOCK_ISO_SIZE])
{
  time_t t = (time_t)wall_s;
  struct tm tm;
  gmtime_r(&t, &tm);
  strftime(out, CLOCK_ISO_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

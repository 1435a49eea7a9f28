#ifndef REGOLITH_BASE_CLOCK_H
#define REGOLITH_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

uint64_t clock_mono_ns(void); /* CLOCK_MONOTONIC, nanoseconds */
uint64_t clock_mono_ms(void); /* CLOCK_MONOTONIC, milliseconds */
int64_t clock_wall_s(void);   /* seconds since the epoch */
int64_t clock_wall_ms(void);  /* milliseconds since the epoch */

#define CLOCK_ISO_SIZE 32
/* Writes YYYY-MM-DDTHH:MM:SSZ (RFC 3339, UTC) of the seconds since the epoch. */
void clock_format_iso(int64_t wall_s, char out[CLOCK_ISO_SIZE]);

#endif

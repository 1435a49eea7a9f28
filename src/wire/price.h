#ifndef REGOLITH_WIRE_PRICE_H
#define REGOLITH_WIRE_PRICE_H

#include <stdint.h>

#include "base/err.h"

struct create_args;
struct tier;

/* exec, status and terminate, each. */
#define PRICE_CALL_MICROUSD 1000

/* One create of `units` of the tier for timeout_s seconds of life: the burst price up to
 * TIER_BURST_S, else the hourly rate for the requested time, rounded up to a millionth. */
int64_t price_create(const struct tier *tier, unsigned units, uint32_t timeout_s);

/* What extending from one total to another costs on top of what was paid; never negative. */
int64_t price_extend(const struct tier *tier, unsigned units, uint32_t new_total_s,
                     int64_t paid_microusd);

/* The dearest member of the preference list: what a reservation has to hold. */
int64_t price_reservation(const struct create_args *args);

double price_usd(int64_t microusd);

/* As people write and read amounts of US dollars: "5", "5.00", "-0.25", at most six places and a
 * billion dollars; "0.001000" with the places that are needed, two at least. */
#define PRICE_TEXT_SIZE 32
int price_parse(const char *text, const char *field, int64_t *ret_microusd, struct err *err);
const char *price_print(int64_t microusd, char out[PRICE_TEXT_SIZE]);

#endif

/* Prices: the arithmetic over the tiers. All of it in integers. */
#include "wire/price.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "wire/op.h"
#include "wire/tier.h"

int64_t price_create(const struct tier *tier, unsigned units, uint32_t timeout_s)
{
  int64_t one = timeout_s <= TIER_BURST_S
                    ? tier->burst_microusd
                    : (tier->per_hour_microusd * (int64_t)timeout_s + 3599) / 3600;
  return one * (int64_t)units;
}

int64_t price_extend(const struct tier *tier, unsigned units, uint32_t new_total_s,
                     int64_t paid_microusd)
{
  int64_t more = price_create(tier, units, new_total_s) - paid_microusd;
  return more > 0 ? more : 0;
}

int64_t price_reservation(const struct create_args *args)
{
  if (args->gpu.n == 0) return price_create(tier_cpu(), 1, args->timeout_s);
  int64_t dearest = 0;
  for (size_t i = 0; i < args->gpu.n; i++) {
    const struct tier *tier;
    unsigned units;
    if (tier_parse_gpu(args->gpu.v[i], "gpu", &tier, &units, NULL) < 0) continue;
    int64_t price = price_create(tier, units, args->timeout_s);
    if (price > dearest) dearest = price;
  }
  return dearest;
}

double price_usd(int64_t microusd)
{
  return (double)microusd / 1000000;
}

#define WHOLE_MAX INT64_C(1000000000)

/* Digits up to `end` as a number of so many places; -1 when there are others, too many, or none. */
static int64_t digits(const char *p, const char *end, int places)
{
  int64_t n = 0;
  if (p == end) return -1;
  for (; p < end; p++, places--) {
    if (!isdigit((unsigned char)*p) || places == 0) return -1;
    n = n * 10 + (*p - '0');
  }
  return n;
}

int price_parse(const char *text, const char *field, int64_t *ret, struct err *err)
{
  bool negative = text[0] == '-';
  const char *start = text + negative, *end = start + strlen(start), *dot = strchr(start, '.');
  int64_t whole = digits(start, dot ? dot : end, 10);
  int64_t micro = dot ? digits(dot + 1, end, 6) : 0;
  if (whole < 0 || micro < 0 || whole > WHOLE_MAX)
    return err_arg(err, field,
                   "%s: \"%s\" is no amount of US dollars: write 5 or 2.50, six places at most",
                   field, text);
  if (dot)
    for (const char *p = end; p < dot + 7; p++) micro *= 10;
  *ret = (whole * 1000000 + micro) * (negative ? -1 : 1);
  return 0;
}

const char *price_print(int64_t microusd, char out[PRICE_TEXT_SIZE])
{
  uint64_t n = microusd < 0 ? -(uint64_t)microusd : (uint64_t)microusd;
  snprintf(out, PRICE_TEXT_SIZE, "%s%" PRIu64 ".%06u", microusd < 0 ? "-" : "", n / 1000000,
           (unsigned)(n % 1000000));
  size_t len = strlen(out), least = len - 4;
  while (len > least && out[len - 1] == '0') out[--len] = '\0';
  return out;
}

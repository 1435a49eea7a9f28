/* Prices: the arithmetic over the tiers. All of it in integers. */
#include "wire/price.h"

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

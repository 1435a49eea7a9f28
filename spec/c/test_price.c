/* wire/tier and wire/price: the table of the HTTP page, to the millionth. */
#include "test.h"

#include "wire/op.h"
#include "wire/price.h"
#include "wire/tier.h"

static void the_table(void)
{
  static const struct {
    const char *name;
    uint32_t cpu, mem;
    int64_t burst, hour;
  } want[] = {
      {"CPU", 1000, 1024, 10000, 100000},     {"T4", 8000, 32768, 50000, 1500000},
      {"L4", 8000, 32768, 80000, 2000000},    {"A10G", 8000, 32768, 100000, 2500000},
      {"A100", 8000, 32768, 200000, 4000000}, {"H100", 8000, 32768, 400000, 8000000},
  };
  CHECK_INT(tier_count(), 6);
  for (size_t i = 0; i < 6; i++) {
    const struct tier *t = tier_at(i);
    CHECK_STR(t->name, want[i].name);
    CHECK_INT(t->cpu_milli, want[i].cpu);
    CHECK_INT(t->mem_mib, want[i].mem);
    CHECK_INT(price_create(t, 1, 1), want[i].burst);
    CHECK_INT(price_create(t, 1, 300), want[i].burst);
    CHECK_INT(price_create(t, 1, 3600), want[i].hour);
    CHECK_INT(price_create(t, 1, 86400), want[i].hour * 24);
  }
  CHECK(tier_at(6) == NULL);
}

static void rounding_is_up(void)
{
  const struct tier *cpu = tier_cpu(), *t4 = tier_find_gpu("t4");
  CHECK_INT(price_create(cpu, 1, 301), 8362); /* 8361.1…; long-lived has no minimum */
  CHECK_INT(price_create(t4, 1, 301), 125417);
  CHECK_INT(price_create(t4, 1, 5400), 2250000); /* 90 minutes of T4 */
  CHECK_INT(price_create(t4, 2, 301), 250834);   /* twice the price, not the price of twice */
  CHECK_INT(price_create(tier_find_gpu("A100"), 2, 300), 400000);
  /* Never less than exact, never a millionth more. */
  for (uint32_t s = 301; s <= 86400; s += 97) {
    int64_t p = price_create(t4, 1, s);
    CHECK(p * 3600 >= 1500000ll * s && (p - 1) * 3600 < 1500000ll * s);
  }
}

static void extends(void)
{
  const struct tier *t4 = tier_find_gpu("T4");
  CHECK_INT(price_extend(t4, 1, 600, 50000), 200000);
  CHECK_INT(price_extend(tier_cpu(), 1, 301, 10000), 0); /* cheaper than what was paid */
  CHECK_INT(price_extend(tier_cpu(), 1, 3600, 10000), 90000);
}

static void preferences_reserve_the_dearest(void)
{
  struct create_args a = {.timeout_s = 3600};
  CHECK_INT(price_reservation(&a), 100000);
  strv_add(&a.gpu, "T4");
  strv_add(&a.gpu, "A100:2");
  strv_add(&a.gpu, "L4");
  CHECK_INT(price_reservation(&a), 8000000);
  strv_free(&a.gpu);
}

static void gpu_names(void)
{
  const struct tier *t;
  unsigned n;
  struct err e = {0};
  CHECK_INT(tier_parse_gpu("a10g:8", "gpu", &t, &n, &e), 0);
  CHECK_STR(t->name, "A10G");
  CHECK_INT(n, 8);
  static const char *const bad[] = {"",      ":2",    "T4:", "T4:9", "T4:0",
                                    "T4:-1", "T4:22", "T4 ", "CPU"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK(tier_parse_gpu(bad[i], "gpu", &t, &n, &e) < 0 && e.kind == ERR_INVALID_ARGUMENT);
}

const struct test_case test_cases[] = {
    {"the_table", the_table}, {"rounding_is_up", rounding_is_up},
    {"extends", extends},     {"preferences_reserve_the_dearest", preferences_reserve_the_dearest},
    {"gpu_names", gpu_names}, {0}};

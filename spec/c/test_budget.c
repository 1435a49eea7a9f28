/* Budgets: the arithmetic by itself, and the supervisor that refuses by it, over the engine in
 * memory. */
#include "supervisor_world.h"

#include "sandbox/budget.h"
#include "wire/price.h"

#define NONE BUDGET_UNBOUND

static void a_later_budget_only_tightens(void)
{
  struct budgets b = {0};
  struct holding h = {0};
  struct err e = {0};
  CHECK_INT(budgets_add(&b, (int64_t[]){NONE, 1000, NONE}, false, &e), 0);
  CHECK_INT(budgets_take(&b, &h, (int64_t[]){7, 600, 1}, &e), 0);
  CHECK_INT(b.v[0].left[BUDGET_MS], 400);
  CHECK_INT(b.v[0].left[BUDGET_MICROUSD], NONE);
  /* A wider one changes nothing, a narrower one does. */
  budgets_add(&b, (int64_t[]){NONE, 5000, NONE}, false, &e);
  CHECK(budgets_take(&b, NULL, (int64_t[]){0, 401, 0}, &e) < 0);
  CHECK_INT(e.kind, ERR_BUDGET_EXCEEDED);
  CHECK_STR(e.field, "seconds");
  budgets_add(&b, (int64_t[]){NONE, 100, NONE}, false, &e);
  CHECK(budgets_take(&b, NULL, (int64_t[]){0, 101, 0}, &e) < 0);
  CHECK_INT(budgets_take(&b, NULL, (int64_t[]){0, 100, 0}, &e), 0);
  CHECK_INT(b.v[0].left[BUDGET_MS], 300);
  CHECK_INT(b.v[1].left[BUDGET_MS], 4900);
  CHECK_INT(b.v[2].left[BUDGET_MS], 0);
  /* What was taken before the second was set goes back to the first alone, and never more. */
  budgets_give(&b, &h, (int64_t[]){0, 500, 0});
  CHECK_INT(b.v[0].left[BUDGET_MS], 800);
  CHECK_INT(b.v[1].left[BUDGET_MS], 4900);
  CHECK_INT(b.v[2].left[BUDGET_MS], 0);
  budgets_give(&b, &h, (int64_t[]){0, 500, 0});
  CHECK_INT(b.v[0].left[BUDGET_MS], 900);
  holding_done(&h);
  budgets_done(&b);
}

static void a_refused_take_takes_nothing(void)
{
  struct budgets b = {0};
  struct err e = {0};
  budgets_add(&b, (int64_t[]){1000000, NONE, 3}, true, &e);
  budgets_add(&b, (int64_t[]){NONE, NONE, 1}, false, &e);
  CHECK(budgets_take(&b, NULL, (int64_t[]){5, 5, 2}, &e) < 0);
  CHECK_STR(e.field, "sandboxes");
  CHECK_STR(e.hint, "");
  CHECK_INT(b.v[0].left[BUDGET_MICROUSD], 1000000);
  CHECK_INT(b.v[0].left[BUDGET_CREATES], 3);
  CHECK(budgets_take(&b, NULL, (int64_t[]){1000001, 0, 0}, &e) < 0);
  CHECK(strstr(e.hint, "--max-cost") != NULL);
  budgets_drain(&b, (int64_t[]){999999, 1, 9});
  CHECK_INT(b.v[0].left[BUDGET_MICROUSD], 1);
  CHECK_INT(b.v[0].left[BUDGET_CREATES], 0);
  budgets_drain(&b, (int64_t[]){999999, 1, 9});
  CHECK_INT(b.v[0].left[BUDGET_MICROUSD], 0);
  budgets_done(&b);
}

static void budgets_are_bounded_in_number(void)
{
  struct budgets b = {0};
  struct err e = {0};
  for (int i = 0; i < BUDGETS_MAX; i++)
    CHECK_INT(budgets_add(&b, (int64_t[]){1, 1, 1}, false, &e), 0);
  CHECK(budgets_add(&b, (int64_t[]){1, 1, 1}, false, &e) < 0);
  CHECK_INT(e.kind, ERR_LIMIT);
  budgets_done(&b);
}

static bool budget(const char *json)
{
  struct call c = {0};
  bool ok = call(&c, "budget.set", "%s", json);
  if (!ok) fprintf(stderr, "budget: %s\n", c.err.msg);
  call_clear(&c);
  return ok;
}

static void creates_are_counted(void)
{
  set_up(NULL);
  struct call c = {0};
  create("{}"); /* before: not counted */
  CHECK(budget("{\"sandboxes\":2}"));
  create("{}");
  call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  fake.fail_create = true;
  CHECK(!call(&c, "sandbox.create", "{}")); /* came to nothing: not counted */
  fake.fail_create = false;
  create("{}");
  CHECK(!submit(&c, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "budget_exceeded");
  CHECK_STR(c.err.field, "sandboxes");
  CHECK_INT(fake.boxes_n, 2);
  /* Of this owner only. */
  submit_as(&c, 0, "sandbox.create", "{}");
  finish(&c);
  CHECK(c.ok);
  call_clear(&c);
  tear_down();
}

static void unlived_seconds_come_back(void)
{
  set_up(NULL);
  struct call c = {0};
  CHECK(budget("{\"seconds\":400}"));
  create("{\"timeout\":300}");
  CHECK(!submit(&c, "sandbox.create", "{\"timeout\":101}"));
  CHECK_STR(code(&c), "budget_exceeded");
  CHECK_STR(c.err.field, "seconds");
  CHECK(!submit(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":200}", id));
  CHECK_STR(code(&c), "budget_exceeded");
  CHECK(call(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":100}", id));
  CHECK(!submit(&c, "sandbox.create", "{\"timeout\":1}"));
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  create("{\"timeout\":399}"); /* it lived for less than a second */
  CHECK(!submit(&c, "sandbox.create", "{\"timeout\":2}"));
  /* The whole of a create that was cancelled comes back too. */
  call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  fake.create_ms = 60;
  CHECK(submit(&c, "sandbox.create", "{\"timeout\":399}"));
  op_cancel(c.op, ERR_CANCELLED);
  finish(&c);
  CHECK_STR(code(&c), "cancelled");
  fake.create_ms = 1;
  create("{\"timeout\":399}");
  call_clear(&c);
  tear_down();
}

static void money_is_counted_where_it_is_spent(void)
{
  set_up(NULL);
  struct call c = {0};
  CHECK(budget("{\"usd\":0.0105}"));
  create("{}"); /* free */
  supervisor_set_priced(sup, "local", true);
  create("{}"); /* 0.01 */
  CHECK(!submit(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"0\"]}", id));
  CHECK_STR(code(&c), "budget_exceeded"); /* an exec costs 0.001 */
  CHECK_STR(c.err.field, "usd");
  CHECK(!submit(&c, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "budget_exceeded");
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id)); /* never refused */
  call_clear(&c);
  tear_down();

  set_up(NULL);
  supervisor_set_priced(sup, "local", true);
  uint64_t capped = supervisor_owner_new(
      sup, &(struct owner_conf){.name = "capped", .cost_capped = true, .max_microusd = 12000});
  CHECK(submit_as(&c, capped, "sandbox.create", "{}"));
  finish(&c);
  snprintf(id, sizeof id, "%s", val_get_str(&c.result, "sandbox_id", "?"));
  char json[128];
  snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"0\"]}", id);
  for (int i = 0; i < 2; i++) {
    CHECK(submit_as(&c, capped, "sandbox.exec", json));
    finish(&c);
  }
  CHECK(!submit_as(&c, capped, "sandbox.exec", json));
  CHECK_STR(code(&c), "budget_exceeded");
  CHECK(strstr(c.err.hint, "--max-cost") != NULL);
  call_clear(&c);
  tear_down();
}

static void bad_budgets_are_refused(void)
{
  set_up(NULL);
  struct call c = {0};
  static const char *const bad[] = {"{}",
                                    "{\"usd\":-1}",
                                    "{\"usd\":\"much\"}",
                                    "{\"seconds\":-5}",
                                    "{\"sandboxes\":1.5}",
                                    "{\"sandboxes\":-1}",
                                    "{\"dollars\":1}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(!call(&c, "budget.set", "%s", bad[i]));
    CHECK_STR(code(&c), "invalid_argument");
  }
  create("{}");
  call_clear(&c);
  tear_down();
}

struct admitted {
  int asked;
  bool refuse;
};

static int admit(void *data, const struct val *asked, struct create_args *args, struct err *err)
{
  struct admitted *a = data;
  a->asked++;
  if (a->refuse) return err_set(err, ERR_DENIED, 0, "no");
  if (!val_get(asked, "memory")) args->mem_mib = 128;
  return 0;
}

static void creates_are_admitted(void)
{
  set_up(NULL);
  struct call c = {0};
  struct admitted a = {0};
  uint64_t who = supervisor_owner_new(
      sup, &(struct owner_conf){.name = "x", .admit = admit, .admit_data = &a});
  submit_as(&c, who, "sandbox.create", "{}");
  finish(&c);
  CHECK_INT(val_get_int(val_get(&c.result, "config"), "memory", 0), 128);
  submit_as(&c, who, "sandbox.create", "{\"memory\":256}");
  finish(&c);
  CHECK_INT(val_get_int(val_get(&c.result, "config"), "memory", 0), 256);
  a.refuse = true;
  size_t boxes = fake.boxes_n;
  CHECK(!submit_as(&c, who, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "denied");
  CHECK_INT(fake.boxes_n, boxes);
  CHECK_INT(a.asked, 3);
  call_clear(&c);
  tear_down();
}

const struct test_case test_cases[] = {
    {"a_later_budget_only_tightens", a_later_budget_only_tightens},
    {"a_refused_take_takes_nothing", a_refused_take_takes_nothing},
    {"budgets_are_bounded_in_number", budgets_are_bounded_in_number},
    {"creates_are_counted", creates_are_counted},
    {"unlived_seconds_come_back", unlived_seconds_come_back},
    {"money_is_counted_where_it_is_spent", money_is_counted_where_it_is_spent},
    {"bad_budgets_are_refused", bad_budgets_are_refused},
    {"creates_are_admitted", creates_are_admitted},
    {0}};

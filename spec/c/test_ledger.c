/* The ledger in front of a supervisor: prices, holds, refusals, and statements that add up. */
#include "ledger_world.h"

#include "ledger/entries.h"

static void what_it_costs(void)
{
  set_up_ledger(1000000);
  create("{\"timeout\": 300}");
  CHECK_INT(balance(), 990000);
  struct call c = {0};
  call(&c, "sandbox.exec", "{\"sandbox_id\": \"%s\", \"command\": [\"exit\", \"0\", \"1\"]}", id);
  CHECK_STR(code(&c), "ok");
  CHECK_INT(balance(), 989000);
  call(&c, "sandbox.exec", "{\"sandbox_id\": \"%s\", \"command\": [\"badcwd\"]}", id);
  CHECK(!c.ok);
  CHECK_INT(balance(), 989000);
  call(&c, "sandbox.status", "{\"sandbox_id\": \"%s\"}", id);
  CHECK_STR(code(&c), "ok");
  CHECK_INT(balance(), 988000);
  call(&c, "sandbox.status", "{\"sandbox_id\": \"sb_none000000\"}");
  CHECK_STR(code(&c), "sandbox_not_found");
  call(&c, "sandbox.list", "{}");
  CHECK_STR(code(&c), "ok");
  CHECK_INT(balance(), 988000);
  call(&c, "sandbox.terminate", "{\"sandbox_id\": \"%s\"}", id);
  CHECK_STR(code(&c), "ok");
  CHECK_INT(balance(), 987000);
  call(&c, "sandbox.terminate", "{\"sandbox_id\": \"%s\"}", id);
  CHECK_STR(code(&c), "sandbox_terminated");
  CHECK_INT(balance(), 987000);
  /* Ninety minutes of a CPU: 0.15. */
  create("{\"timeout\": 5400, \"tags\": {\"run\": \"42\"}}");
  CHECK_INT(balance(), 837000);
  call_clear(&c);
  struct store *s = open_beside();
  CHECK_INT(number(s, "SELECT count(*) FROM entries"), 6);
  CHECK_INT(number(s, "SELECT count(*) FROM holds"), 0);
  CHECK_INT(number(s, "SELECT count(*) FROM entries WHERE kind = 2 AND tier = 'CPU'"), 2);
  CHECK_INT(number(s, "SELECT count(*) FROM entries WHERE tags = '{\"run\":\"42\"}'"), 1);
  store_close(s, NULL, NULL);
  tear_down_ledger();
}

/* What ends a running command is charged; so is the command. */
static void the_end_of_a_sandbox_under_a_command(void)
{
  set_up_ledger(1000000);
  create("{\"timeout\": 300}");
  struct call hangs = {0}, c = {0};
  submit(&hangs, "sandbox.exec", "{\"sandbox_id\": \"%s\", \"command\": [\"hang\"]}", id);
  run_ms(5);
  CHECK_INT(held(), 1000);
  call(&c, "sandbox.terminate", "{\"sandbox_id\": \"%s\"}", id);
  finish(&hangs);
  CHECK_STR(reason(&hangs), "terminated");
  CHECK_INT(balance(), 1000000 - 10000 - 1000 - 1000);
  call_clear(&hangs);
  call_clear(&c);
  tear_down_ledger();
}

static void extends_pay_the_difference(void)
{
  set_up_ledger(1000000);
  create("{\"timeout\": 300}");
  struct call c = {0};
  call(&c, "sandbox.extend", "{\"sandbox_id\": \"%s\", \"seconds\": 60}", id);
  CHECK_STR(code(&c), "ok");
  CHECK_INT(balance(), 990000); /* 360 s of 0.10 an hour are 0.01, and they are paid */
  call(&c, "sandbox.extend", "{\"sandbox_id\": \"%s\", \"seconds\": 3240}", id);
  CHECK_STR(code(&c), "ok");
  CHECK_INT(balance(), 900000); /* an hour in all */
  call(&c, "sandbox.extend", "{\"sandbox_id\": \"%s\", \"seconds\": 36000}", id);
  CHECK_STR(code(&c), "payment_required");
  call(&c, "sandbox.extend", "{\"sandbox_id\": \"%s\", \"seconds\": 86400}", id);
  CHECK(!c.ok);
  CHECK_INT(balance(), 900000);
  /* Two at once pay once for each second. */
  struct call other = {0};
  submit(&c, "sandbox.extend", "{\"sandbox_id\": \"%s\", \"seconds\": 3600}", id);
  submit(&other, "sandbox.extend", "{\"sandbox_id\": \"%s\", \"seconds\": 3600}", id);
  finish(&c);
  if (!other.done) finish(&other);
  CHECK_STR(code(&other), "ok");
  CHECK_INT(balance(), 700000);
  call_clear(&c);
  call_clear(&other);
  tear_down_ledger();
}

static void without_credit(void)
{
  set_up_ledger(15500);
  struct call a = {0}, b = {0};
  submit(&a, "sandbox.create", "{\"timeout\": 300}");
  /* The first has its credit held before it is anywhere else. */
  CHECK(!submit(&b, "sandbox.create", "{\"timeout\": 300}"));
  CHECK_STR(code(&b), "payment_required");
  CHECK(strstr(b.err.msg, "0.004500 are missing") != NULL);
  finish(&a);
  CHECK_STR(code(&a), "ok");
  snprintf(id, sizeof id, "%s", val_get_str(&a.result, "sandbox_id", "?"));
  for (int i = 0; i < 5; i++) {
    call(&b, "sandbox.status", "{\"sandbox_id\": \"%s\"}", id);
    CHECK_STR(code(&b), "ok");
  }
  call(&b, "sandbox.status", "{\"sandbox_id\": \"%s\"}", id);
  CHECK_STR(code(&b), "payment_required");
  CHECK_INT(balance(), 500);
  call(&b, "sandbox.terminate", "{\"sandbox_id\": \"%s\"}", id); /* never refused */
  CHECK_STR(code(&b), "ok");
  CHECK_INT(balance(), -500);
  call_clear(&a);
  call_clear(&b);
  tear_down_ledger();
}

/* The client of a refused op finds the amounts as numbers. */
static void amounts_of_a_refusal(void)
{
  set_up_ledger(4000);
  struct op *op = op_new("sandbox.create");
  struct err e = {0};
  op->args = val_map();
  op->owner = owner;
  op->client = &client;
  CHECK(op_submit(ops, op, &e) < 0);
  CHECK_INT(e.kind, ERR_PAYMENT_REQUIRED);
  CHECK_INT(val_get_int(&op->result, "required_microusd", 0), 10000);
  CHECK_INT(val_get_int(&op->result, "available_microusd", 0), 4000);
  CHECK_INT(val_get_int(&op->result, "missing_microusd", 0), 6000);
  op_free(op);
  tear_down_ledger();
}

static void a_create_that_fails_is_free(void)
{
  set_up_ledger(1000000);
  struct call c = {0};
  fake.fail_create = true;
  call(&c, "sandbox.create", "{}");
  CHECK_STR(code(&c), "capacity");
  fake.fail_create = false;
  fake.create_ms = 1000;
  submit(&c, "sandbox.create", "{}");
  run_ms(20);
  CHECK_INT(held(), 10000);
  struct store *s = open_beside();
  CHECK_INT(number(s, "SELECT sum(amount) FROM holds"), 10000);
  op_cancel(c.op, ERR_CANCELLED);
  finish(&c);
  CHECK_STR(code(&c), "cancelled");
  CHECK_INT(number(s, "SELECT count(*) FROM holds"), 0);
  store_close(s, NULL, NULL);
  /* Cancelled before the hold is written: it never starts. */
  submit(&c, "sandbox.create", "{}");
  op_cancel(c.op, ERR_CANCELLED);
  finish(&c);
  CHECK_STR(code(&c), "cancelled");
  call(&c, "sandbox.create", "{\"timeout\": -1}");
  CHECK_STR(code(&c), "invalid_argument");
  CHECK_INT(balance(), 1000000);
  CHECK_INT(held(), 0);
  call_clear(&c);
  tear_down_ledger();
}

static void gpus_cost_what_was_granted(void)
{
  fake_caps = ENGINE_CAP_GPU;
  set_up_ledger(10000000);
  create("{\"gpu\": \"A100:2\", \"timeout\": 300}");
  CHECK_INT(balance(), 9600000);
  /* The dearest of the list is held, and what was granted is charged. */
  struct call c = {0};
  submit(&c, "sandbox.create", "{\"gpu\": [\"T4\", \"H100\"], \"timeout\": 5400}");
  run_ms(0);
  CHECK_INT(held(), 0);
  CHECK_STR(code(&c), "payment_required");
  submit(&c, "sandbox.create", "{\"gpu\": [\"T4\", \"H100\"], \"timeout\": 300}");
  CHECK_INT(held(), 400000);
  finish(&c);
  CHECK_STR(val_get_str(val_get(&c.result, "config"), "gpu", "?"), "T4");
  CHECK_INT(balance(), 9550000);
  CHECK_INT(held(), 0);
  fake_caps = 0;
  call_clear(&c);
  tear_down_ledger();
}

static void others_pass(void)
{
  set_up_ledger(0);
  owner = supervisor_owner_new(sup, &(struct owner_conf){.name = "a script"});
  create("{}");
  struct call c = {0};
  call(&c, "sandbox.terminate", "{\"sandbox_id\": \"%s\"}", id);
  CHECK_STR(code(&c), "ok");
  CHECK_INT(balance(), 0);
  call_clear(&c);
  tear_down_ledger();
}

/* ---- keys ---- */

static void who_a_key_is(void)
{
  set_up_ledger(0);
  struct ledger_account a;
  struct err e = {0};
  CHECK_STR(account.name, "alice");
  CHECK_INT(ledger_authenticate(ledger, key, &a, &e), 0);
  CHECK_INT(a.owner, account.owner);
  CHECK(ledger_authenticate(ledger, "", &a, &e) < 0);
  CHECK_INT(e.kind, ERR_UNAUTHORIZED);
  key[KEY_SIZE - 2] = key[KEY_SIZE - 2] == 'x' ? 'y' : 'x';
  CHECK(ledger_authenticate(ledger, key, &a, &e) < 0);
  CHECK_INT(e.kind, ERR_UNAUTHORIZED);
  tear_down_ledger();
}

static int revoked;

static void count_revoked(void *data, uint64_t who)
{
  (void)data;
  if (who == account.owner) revoked++;
}

/* Another process changes keys while this one serves. */
static void changes_from_outside(void)
{
  make_state_dir();
  set_up(NULL);
  add_key("alice", 5000, key);
  struct err e = {0};
  CHECK_INT(store_open(&store, &(struct store_conf){.dir = state_dir, .loop = loop}, &e), 0);
  CHECK_INT(ledger_open(&ledger,
                        &(struct ledger_conf){.loop = loop,
                                              .ops = ops,
                                              .store = store,
                                              .owner_new = owner_of,
                                              .on_revoked = count_revoked,
                                              .price_extend = price_extend_of},
                        &e),
            0);
  CHECK_INT(ledger_authenticate(ledger, key, &account, &e), 0);
  struct store *s = open_beside();
  int64_t after = 0;
  CHECK_INT(key_topup(s, "alice", 2500, &after, &e), 0);
  CHECK_INT(after, 7500);
  run_ms(600);
  CHECK_INT(balance(), 7500);
  /* A new key is known at once. */
  char other[KEY_SIZE];
  struct ledger_account a;
  CHECK_INT(key_add(s, &(struct key_conf){.name = "bob"}, other, &e), 0);
  run_ms(60);
  CHECK_INT(ledger_authenticate(ledger, other, &a, &e), 0);
  CHECK_STR(a.name, "bob");
  CHECK_INT(key_revoke(s, "alice", &e), 0);
  run_ms(600);
  CHECK(ledger_authenticate(ledger, key, &a, &e) < 0);
  CHECK(strstr(e.msg, "revoked") != NULL);
  CHECK_INT(revoked, 1);
  CHECK(key_revoke(s, "nobody", &e) < 0);
  CHECK_INT(e.kind, ERR_NOT_FOUND);
  store_close(s, NULL, NULL);
  tear_down_ledger();
}

static void names_and_amounts(void)
{
  make_state_dir();
  struct store *s = open_beside();
  char k[KEY_SIZE];
  struct err e = {0};
  static const char *const bad[] = {"", " a", "a b", "-x", "a\n", "\xc3\xa4"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(key_add(s, &(struct key_conf){.name = bad[i]}, k, &e) < 0);
    CHECK_INT(e.kind, ERR_INVALID_ARGUMENT);
  }
  CHECK_INT(key_add(s, &(struct key_conf){.name = "a.b-c_1"}, k, &e), 0);
  CHECK(strncmp(k, "sk-", 3) == 0 && strlen(k) == KEY_SIZE - 1);
  CHECK(key_add(s, &(struct key_conf){.name = "a.b-c_1"}, k, &e) < 0);
  CHECK_INT(e.kind, ERR_CONFLICT);
  CHECK(key_add(s, &(struct key_conf){.name = "debt", .credit_microusd = -1}, k, &e) < 0);
  int64_t after;
  CHECK_INT(key_topup(s, "a.b-c_1", 100, &after, &e), 0);
  CHECK(key_topup(s, "a.b-c_1", -101, &after, &e) < 0);
  CHECK_INT(key_topup(s, "a.b-c_1", -100, &after, &e), 0);
  CHECK_INT(after, 0);
  CHECK_INT(number(s, "SELECT count(*) FROM accounts"), 1);
  /* The key itself is nowhere. */
  CHECK_INT(number(s, "SELECT length(key_hash) FROM accounts"), 32);
  store_close(s, NULL, NULL);
  check_books();
  remove_state_dir();
}

static void rates(void)
{
  struct key_rate r;
  struct err e = {0};
  char text[32];
  CHECK_INT(key_rate_parse("600/m", &r, &e), 0);
  CHECK_INT(r.count, 600);
  CHECK_INT(r.period_ms, 60000);
  key_rate_print(&r, text);
  CHECK_STR(text, "600/m");
  static const char *const bad[] = {"",    "10", "0/s",   "-1/s",     "10/d",
                                    "10/", "/s", "1e3/s", "9999999/s"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(key_rate_parse(bad[i], &r, &e) < 0);
  make_state_dir();
  set_up(NULL);
  struct store *s = open_beside();
  CHECK_INT(key_add(s, &(struct key_conf){.name = "slow", .rate = {5, 1000}}, key, &e), 0);
  store_close(s, NULL, NULL);
  open_ledger();
  CHECK_INT(ledger_authenticate(ledger, key, &account, &e), 0);
  struct ledger_rate rate;
  for (uint32_t i = 0; i < 5; i++) {
    CHECK_INT(ledger_rate_take(ledger, account.id, &rate, &e), 0);
    CHECK_INT(rate.limit, 5);
    CHECK_INT(rate.remaining, 4 - i);
  }
  CHECK(ledger_rate_take(ledger, account.id, &rate, &e) < 0);
  CHECK_INT(e.kind, ERR_RATE_LIMITED);
  CHECK_INT(rate.retry_after_s, 1);
  CHECK_INT(rate.reset_s, 1);
  run_ms(230);
  CHECK_INT(ledger_rate_take(ledger, account.id, &rate, &e), 0);
  CHECK(ledger_rate_take(ledger, account.id, &rate, &e) < 0);
  tear_down_ledger();
}

const struct test_case test_cases[] = {
    {"what it costs", what_it_costs},
    {"the end of a sandbox under a command", the_end_of_a_sandbox_under_a_command},
    {"extends pay the difference", extends_pay_the_difference},
    {"without credit", without_credit},
    {"amounts of a refusal", amounts_of_a_refusal},
    {"a create that fails is free", a_create_that_fails_is_free},
    {"gpus cost what was granted", gpus_cost_what_was_granted},
    {"others pass", others_pass},
    {"who a key is", who_a_key_is},
    {"changes from outside", changes_from_outside},
    {"names and amounts", names_and_amounts},
    {"rates", rates},
    {NULL, NULL},
};

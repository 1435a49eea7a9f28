/* sandbox/supervisor under random schedules: whatever happens in whatever order, every op finishes
 * exactly once and nothing is left. The seed is printed on failure; TEST_SEED repeats it,
 * TEST_ROUNDS runs more. */
#include <time.h>

#include "supervisor_world.h"

enum { SLOTS = 64 };

static struct call slots[SLOTS];
static char ids[SLOTS][16];
static size_t ids_n;
static int owners_ended;

static void keep_id(struct call *c)
{
  if (c->ok && val_get_str(&c->result, "sandbox_id", NULL) && ids_n < SLOTS)
    snprintf(ids[ids_n++], sizeof ids[0], "%s", val_get_str(&c->result, "sandbox_id", ""));
}

static void random_step(uint64_t *owners, size_t n)
{
  static const char *const commands[] = {
      "\"command\":[\"exit\",\"1\",\"3\"]",
      "\"command\":[\"hang\"]",
      "\"command\":[\"hang\"],\"timeout\":\"3ms\"",
      "\"command\":[\"print\",\"900\"],\"max_output\":\"300B\",\"on_overflow\":\"kill\"",
      "\"command\":[\"print\",\"500\"],\"stream\":true",
      "\"command\":[\"signal\",\"6\"]",
      "\"command\":[\"lost\"]",
      "\"command\":[\"badcwd\"]"};
  static const char *const about[] = {"sandbox.terminate", "sandbox.terminate", "sandbox.status",
                                      "sandbox.wait_ready"};
  static const char *const creates[] = {
      "{\"timeout\":1}", "{\"timeout\":1}", "{\"timeout\":1,\"idle_timeout\":1}",
      "{\"timeout\":1,\"ready\":{\"tcp\":80}}",
      "{\"timeout\":1,\"ready\":{\"tcp\":80},\"entrypoint\":[\"exit\",\"1\",\"20\"]}"};
  struct call *c = &slots[rnd(SLOTS)];
  size_t o = rnd((unsigned)n);
  const char *sb = ids_n ? ids[rnd((unsigned)ids_n)] : "sb_none";
  char json[2048], name[32];
  static const char *const file_ops[] = {"read", "write", "list_files", "mkdir", "pack"};
  static const char *const process_ops[] = {"wait", "kill", "output", "input"};
  static const char *const paths[] = {"/0", "/2", "/28", "/hang"};
  switch (rnd(12)) {
  case 0:
  case 1:
    if (c->op) break;
    c->then = keep_id;
    submit_as(c, owners[o], "sandbox.create", creates[rnd(5)]);
    break;
  case 2:
  case 3:
  case 4:
    if (c->op) break;
    c->then = NULL;
    c->pause_after = rnd(4) == 0 ? 2 : 0;
    snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\",%s}", sb, commands[rnd(8)]);
    submit_as(c, owners[o], "sandbox.exec", json);
    break;
  case 5:
    if (c->op) break;
    c->then = NULL;
    snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\"}", sb);
    submit_as(c, owners[o], about[rnd(4)], json);
    break;
  case 6:
    if (c->op) op_cancel(c->op, rnd(2) ? ERR_CANCELLED : ERR_TIMEOUT);
    break;
  case 7:
    if (c->op) op_flow(c->op, rnd(2));
    break;
  case 8:
    if (c->op) break;
    c->then = NULL;
    snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\",\"path\":\"%s\",\"timeout\":\"9ms\"}", sb,
             paths[rnd(4)]);
    snprintf(name, sizeof name, "sandbox.%s", file_ops[rnd(5)]);
    submit_as(c, owners[o], name, json);
    if (c->op && rnd(2)) op_input(c->op, "x", rnd(2), NULL);
    break;
  case 10:
    if (c->op) break;
    c->then = NULL;
    snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\",%s}", sb, commands[rnd(8)]);
    if (!strstr(json, "stream")) submit_as(c, owners[o], "sandbox.spawn", json);
    break;
  case 11:
    if (c->op) break;
    c->then = NULL;
    snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\",\"exec\":%u}", sb, 1 + rnd(4));
    snprintf(name, sizeof name, "sandbox.%s", process_ops[rnd(4)]);
    submit_as(c, owners[o], name, json);
    if (c->op && rnd(2)) op_input(c->op, "x", rnd(2), NULL);
    break;
  case 9:
    if (rnd(10) == 0) {
      supervisor_owner_end(sup, owners[o], count_done, &owners_ended);
      owners[o] = supervisor_owner_new(sup, &(struct owner_conf){.name = "again"});
    }
    break;
  }
}

static void random_round(unsigned round_seed)
{
  fake_caps = ENGINE_CAP_FILES | ENGINE_CAP_SPAWN;
  set_up(NULL);
  seed = round_seed;
  fake.random = true;
  fake.end_chance = rnd(40);
  fake.open_after = (int)rnd(4) - 1;
  ids_n = 0;
  owners_ended = 0;
  uint64_t owners[3];
  for (size_t i = 0; i < 3; i++)
    owners[i] = supervisor_owner_new(sup, &(struct owner_conf){.name = "many"});
  unsigned steps = 50 + rnd(150);
  for (unsigned i = 0; i < steps; i++) {
    random_step(owners, 3);
    if (rnd(3) == 0) run_ms(rnd(4));
  }
  for (size_t i = 0; i < SLOTS; i++) /* nobody reads any more */
    if (slots[i].op) op_flow(slots[i].op, false);
  tear_down();
  for (size_t i = 0; i < SLOTS; i++) {
    CHECK(slots[i].done <= 1 && !slots[i].op);
    call_clear(&slots[i]);
  }
}

static void random_schedules(void)
{
  const char *fixed = getenv("TEST_SEED"), *rounds = getenv("TEST_ROUNDS");
  unsigned first = fixed ? (unsigned)strtoul(fixed, NULL, 10) : (unsigned)time(NULL);
  int n = fixed ? 1 : rounds ? atoi(rounds) : 12;
  for (int i = 0; i < n && !test_failed_checks; i++) {
    random_round(first + (unsigned)i * 7919u);
    if (test_failed_checks) fprintf(stderr, "TEST_SEED=%u\n", first + (unsigned)i * 7919u);
  }
}

const struct test_case test_cases[] = {{"random_schedules", random_schedules}, {0}};

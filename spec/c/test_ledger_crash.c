/* The books when their server is killed: a child works the ledger as fast as it can and is killed
 * at a random moment, most of which are inside a commit, while this process tops the account up.
 * After each death the statement adds up, every charge that was answered is in it, none is there
 * twice, and every top-up is; the next server finds nothing held. */
#include "ledger_world.h"

#include "base/clock.h"
#include "base/id.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { ROUNDS = 12, CALLS = 12, SANDBOXES = 16 };

/* What the child has seen happen, in memory that outlives it. */
struct witness {
  volatile int64_t answered_microusd; /* charges whose answer came */
  volatile uint64_t answered, started;
};

static struct witness *witness;
static struct call calls[CALLS];
static char ids[SANDBOXES][ID_SIZE];

static void next(struct call *c);

static int64_t cost_of(const char *name)
{
  return strcmp(name, "sandbox.create") == 0 ? 10000 : 1000;
}

static const char *names[CALLS];

static void on_answer(struct call *c)
{
  size_t i = (size_t)(c - calls);
  if (c->ok) {
    witness->answered_microusd += cost_of(names[i]);
    witness->answered++;
    const char *made = val_get_str(&c->result, "sandbox_id", NULL);
    if (strcmp(names[i], "sandbox.create") == 0 && made)
      snprintf(ids[rnd(SANDBOXES)], ID_SIZE, "%s", made);
  }
  next(c);
}

static void next(struct call *c)
{
  static const char *const all[] = {"sandbox.create", "sandbox.exec", "sandbox.status",
                                    "sandbox.terminate"};
  size_t i = (size_t)(c - calls);
  for (int tries = 0; tries < 100; tries++) {
    char args[160];
    const char *box = ids[rnd(SANDBOXES)];
    names[i] = box[0] ? all[rnd(4)] : all[0];
    if (strcmp(names[i], "sandbox.create") == 0)
      snprintf(args, sizeof args, "{\"timeout\": 300}");
    else if (strcmp(names[i], "sandbox.exec") == 0)
      snprintf(args, sizeof args, "{\"sandbox_id\": \"%s\", \"command\": [\"exit\", \"0\", \"0\"]}",
               box);
    else
      snprintf(args, sizeof args, "{\"sandbox_id\": \"%s\"}", box);
    c->then = on_answer;
    witness->started++;
    if (submit_as(c, owner, names[i], args)) return;
  }
  abort(); /* a hundred refusals in a row are no accident */
}

static void serve_until_killed(unsigned random_seed)
{
  set_up(NULL);
  seed = random_seed;
  supervisor_set_priced(sup, "local", true);
  open_ledger();
  struct err e = {0};
  if (ledger_authenticate(ledger, key, &account, &e) < 0) abort();
  owner = account.owner;
  for (size_t i = 0; i < CALLS; i++) next(&calls[i]);
  loop_run(loop);
  _exit(3);
}

/* Tops up beside the child until its time has come; what the answers said is added up. */
static int64_t top_up_for(unsigned ms)
{
  struct store *s = open_beside();
  int64_t total = 0, after;
  struct err e = {0};
  for (uint64_t end = clock_mono_ms() + ms; clock_mono_ms() < end; usleep(2000)) {
    if (key_topup(s, "alice", 7, &after, &e) == 0) total += 7;
  }
  store_close(s, NULL, NULL);
  return total;
}

static void killed_at_any_moment(void)
{
  make_state_dir();
  const int64_t credit = INT64_C(1000) * 1000000;
  add_key("alice", credit, key);
  int64_t topups = credit, charged_before = 0;
  seed = (unsigned)clock_mono_ms();
  printf("seed %u\n", seed);
  for (int round = 0; round < ROUNDS; round++) {
    *witness = (struct witness){0};
    unsigned child_seed = seed + (unsigned)round, ms = 15 + rnd(90);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) serve_until_killed(child_seed);
    topups += top_up_for(ms);
    kill(pid, SIGKILL);
    int status;
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    check_books();
    struct store *s = open_beside();
    int64_t charged = -number(s, "SELECT coalesce(sum(amount), 0) FROM entries WHERE kind != 1");
    int64_t charges = number(s, "SELECT count(*) FROM entries WHERE kind != 1");
    CHECK_INT(number(s, "SELECT sum(amount) FROM entries WHERE kind = 1"), topups);
    CHECK(number(s, "SELECT coalesce(sum(amount), 0) FROM holds") <= CALLS * INT64_C(10000));
    store_close(s, NULL, NULL);
    /* All that was answered, and of what was not no more than was in flight. */
    int64_t more = charged - charged_before - witness->answered_microusd;
    CHECK(more >= 0 && more <= CALLS * INT64_C(10000));
    charged_before = charged;
    if (round == ROUNDS - 1) CHECK(charges > ROUNDS);
  }
  /* The next server starts with everything that is not spent. */
  set_up(NULL);
  open_ledger();
  struct err e = {0};
  CHECK_INT(ledger_authenticate(ledger, key, &account, &e), 0);
  CHECK_INT(balance(), topups - charged_before);
  CHECK_INT(held(), 0);
  struct store *s = open_beside();
  CHECK_INT(number(s, "SELECT count(*) FROM holds"), 0);
  store_close(s, NULL, NULL);
  tear_down_ledger();
}

static void witnessed(void)
{
  witness = mmap(NULL, sizeof *witness, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (witness == MAP_FAILED) abort();
  killed_at_any_moment();
  munmap(witness, sizeof *witness);
}

const struct test_case test_cases[] = {{"killed at any moment", witnessed}, {NULL, NULL}};

#ifndef REGOLITH_SPEC_LEDGER_WORLD_H
#define REGOLITH_SPEC_LEDGER_WORLD_H

/* A supervisor over the engine in memory with a ledger in front of it, and a state directory. */

#include "supervisor_world.h"

#include <ftw.h>
#include <unistd.h>

#include "db/db.h"
#include "db/store.h"
#include "ledger/ledger.h"

static char state_dir[64];
static struct store *store;
static struct ledger *ledger;
static char key[KEY_SIZE];
static struct ledger_account account;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
  (void)st, (void)flag, (void)f;
  return remove(path);
}

static void make_state_dir(void)
{
  const char *tmp = getenv("TMPDIR");
  snprintf(state_dir, sizeof state_dir, "%.40s/ledger.XXXXXX", tmp ? tmp : "/tmp");
  if (!mkdtemp(state_dir)) abort();
}

MAYBE_UNUSED static void remove_state_dir(void)
{
  nftw(state_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* As a command of the terminal opens it. */
static struct store *open_beside(void)
{
  struct store *s = NULL;
  struct err e = {0};
  if (store_open(&s, &(struct store_conf){.dir = state_dir}, &e) < 0) {
    fprintf(stderr, "store_open: %s\n", e.msg);
    abort();
  }
  return s;
}

static uint64_t owner_of(void *data, const struct ledger_account *a)
{
  (void)data;
  return supervisor_owner_new(
      sup, &(struct owner_conf){.name = a->name, .max_sandboxes = a->max_sandboxes});
}

MAYBE_UNUSED static void add_key(const char *name, int64_t credit, char out[KEY_SIZE])
{
  struct store *s = open_beside();
  struct err e = {0};
  if (key_add(s, &(struct key_conf){.name = name, .credit_microusd = credit}, out, &e) < 0) {
    fprintf(stderr, "key_add: %s\n", e.msg);
    abort();
  }
  store_close(s, NULL, NULL);
}

static int64_t price_extend_of(void *data, uint64_t who, const char *sandbox_id, uint32_t seconds)
{
  (void)data;
  return supervisor_price_extend(sup, who, sandbox_id, seconds);
}

static void open_ledger(void)
{
  struct err e = {0};
  if (store_open(&store, &(struct store_conf){.dir = state_dir, .loop = loop, .server = true}, &e) <
          0 ||
      ledger_open(&ledger,
                  &(struct ledger_conf){.loop = loop,
                                        .ops = ops,
                                        .store = store,
                                        .owner_new = owner_of,
                                        .price_extend = price_extend_of},
                  &e) < 0) {
    fprintf(stderr, "open_ledger: %s\n", e.msg);
    abort();
  }
}

/* With a key "alice" of so much credit, who is the owner of what the test submits. */
MAYBE_UNUSED static void set_up_ledger(int64_t credit)
{
  make_state_dir();
  set_up(NULL);
  supervisor_set_priced(sup, "local", true);
  add_key("alice", credit, key);
  open_ledger();
  struct err e = {0};
  CHECK_INT(ledger_authenticate(ledger, key, &account, &e), 0);
  owner = account.owner;
}

static void on_part_closed(void *data)
{
  *(bool *)data = true;
  loop_stop(loop);
}

static void close_ledger(void)
{
  bool closed = false;
  ledger_close(ledger, on_part_closed, &closed);
  loop_run(loop);
  CHECK(closed);
  closed = false;
  store_close(store, on_part_closed, &closed);
  loop_run(loop);
  CHECK(closed);
}

static int64_t number(struct store *s, const char *sql)
{
  int64_t n = -1;
  struct err e = {0};
  if (db_get(store_db(s), &n, -1, &e, sql, "") < 0) fprintf(stderr, "%s: %s\n", sql, e.msg);
  return n;
}

/* The statement of every account adds up to its balance, at each of its lines. */
MAYBE_UNUSED static void check_books(void)
{
  struct store *s = open_beside();
  CHECK_INT(number(s, "SELECT count(*) FROM accounts a WHERE balance != (SELECT "
                      "coalesce(sum(amount), 0) FROM entries WHERE account = a.id)"),
            0);
  CHECK_INT(number(s, "SELECT count(*) FROM accounts a WHERE seq != (SELECT count(*) FROM entries "
                      "WHERE account = a.id)"),
            0);
  CHECK_INT(number(s,
                   "SELECT count(*) FROM (SELECT balance, sum(amount) OVER (PARTITION BY "
                   "account ORDER BY seq) AS total, seq, row_number() OVER (PARTITION BY "
                   "account ORDER BY seq) AS n FROM entries) WHERE balance != total OR seq != n"),
            0);
  store_close(s, NULL, NULL);
}

MAYBE_UNUSED static int64_t balance(void)
{
  struct ledger_balance b = {0};
  CHECK_INT(ledger_balance(ledger, account.id, &b, NULL), 0);
  return b.balance_microusd;
}

MAYBE_UNUSED static int64_t held(void)
{
  struct ledger_balance b = {0};
  CHECK_INT(ledger_balance(ledger, account.id, &b, NULL), 0);
  return b.held_microusd;
}

MAYBE_UNUSED static void tear_down_ledger(void)
{
  struct err e = {0};
  supervisor_shutdown(sup, 5000, on_closed, &e);
  loop_run(loop);
  CHECK_INT(e.kind, ERR_NONE);
  CHECK_INT(ops_in_flight(ops), 0);
  CHECK_INT(calls_open, 0);
  CHECK_INT(fake.boxes_n, 0);
  CHECK_INT(held(), 0);
  close_ledger();
  check_books();
  supervisor_free(sup);
  ops_free(ops);
  loop_free(loop);
  remove_state_dir();
}

#endif

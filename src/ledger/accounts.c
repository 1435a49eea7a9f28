/* The accounts in memory: looked up by key, by owner and by id.
 *
 * They are as the database has them, read again when its keys_version has grown, which a timer
 * looks at and a key that is not known: what the terminal changes takes effect while the server
 * runs. A position only ever moves forward, by its `seq`, because what the database thread reports
 * and what is read here may overtake each other. Accounts are never freed before the end: a revoked
 * one stays, and answers nobody. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "db/db.h"
#include "ledger/ledger_internal.h"

#define LOOK_MS       250 /* for what other processes changed */
#define LOOK_AGAIN_MS 50  /* at least between two looks because of unknown keys */

/* ---- finding ---- */

static uint64_t hash_head(const unsigned char *hash)
{
  uint64_t head;
  memcpy(&head, hash, sizeof head);
  return head;
}

struct account *account_by_owner(struct ledger *l, uint64_t owner)
{
  uint64_t hash = index_hash_u64(owner);
  if (owner == 0) return NULL;
  for (struct index_node *n = NULL; (n = index_next(&l->by_owner, hash, n));) {
    struct account *a = list_entry(n, struct account, by_owner);
    if (a->public.owner == owner) return a;
  }
  return NULL;
}

struct account *account_by_id(struct ledger *l, int64_t id)
{
  uint64_t hash = index_hash_u64((uint64_t)id);
  for (struct index_node *n = NULL; (n = index_next(&l->by_id, hash, n));) {
    struct account *a = list_entry(n, struct account, by_id);
    if (a->public.id == id) return a;
  }
  return NULL;
}

/* Takes as long for any difference. */
static bool same_hash(const unsigned char *a, const unsigned char *b)
{
  unsigned char differs = 0;
  for (size_t i = 0; i < SHA256_SIZE; i++) differs |= (unsigned char)(a[i] ^ b[i]);
  return differs == 0;
}

static struct account *by_hash(struct ledger *l, const unsigned char *hash)
{
  uint64_t head = hash_head(hash);
  for (struct index_node *n = NULL; (n = index_next(&l->by_hash, head, n));) {
    struct account *a = list_entry(n, struct account, by_hash);
    if (same_hash(a->hash, hash)) return a;
  }
  return NULL;
}

int64_t account_available(const struct account *a)
{
  return a->at.balance - a->held - a->owed;
}

/* ---- reading them ---- */

static struct account *add(struct ledger *l, int64_t id, const unsigned char *hash)
{
  struct account *a = xcalloc(1, sizeof *a);
  a->public.id = id;
  a->public.name = a->name;
  memcpy(a->hash, hash, sizeof a->hash);
  list_init(&a->dirty);
  index_add(&l->by_id, &a->by_id, index_hash_u64((uint64_t)id));
  index_add(&l->by_hash, &a->by_hash, hash_head(hash));
  if ((l->accounts_n & (l->accounts_n - 1)) == 0)
    l->accounts = xrealloc(l->accounts, (l->accounts_n ? l->accounts_n * 2 : 1) * sizeof a);
  l->accounts[l->accounts_n++] = a;
  return a;
}

static void revoke(struct ledger *l, struct account *a)
{
  a->revoked = true;
  if (a->public.owner && l->conf.on_revoked) l->conf.on_revoked(l->conf.data, a->public.owner);
}

static void take_row(struct ledger *l, struct db_rows *rows)
{
  size_t len;
  const unsigned char *hash = db_blob(rows, 2, &len);
  if (len != SHA256_SIZE) return; /* no key has this hash */
  struct account *a = account_by_id(l, db_int(rows, 0));
  if (!a) a = add(l, db_int(rows, 0), hash);
  const char *name = db_text(rows, 1);
  strncpy(a->name, name ? name : "", sizeof a->name - 1);
  a->public.rate = (struct key_rate){(uint32_t)db_int(rows, 4), (uint32_t)db_int(rows, 5)};
  a->public.max_sandboxes = (uint32_t)db_int(rows, 6);
  struct position at = {db_int(rows, 7), db_int(rows, 8)};
  if (at.seq >= a->at.seq) a->at = at;
  if (db_int(rows, 3) != 0 && !a->revoked) revoke(l, a);
}

static int read_all(struct ledger *l, struct err *err)
{
  struct db_rows *rows;
  int rc = db_query(store_db(l->store), &rows, err,
                    "SELECT id, name, key_hash, revoked_s, rate_count, rate_period_ms, "
                    "max_sandboxes, balance, seq FROM accounts",
                    "");
  if (rc < 0) return rc;
  while ((rc = db_step(rows, err)) > 0) take_row(l, rows);
  db_rows_end(rows);
  return rc;
}

/* The version is read first: a change in between is seen with the next look. */
static int look(struct ledger *l, struct err *err)
{
  int64_t version;
  l->looked_ms = loop_now_ms(l->loop);
  int rc = db_get(store_db(l->store), &version, 0, err,
                  "SELECT value FROM meta WHERE name = 'keys_version'", "");
  if (rc < 0 || version == l->keys_version) return rc;
  rc = read_all(l, err);
  if (rc == 0) l->keys_version = version;
  return rc;
}

static void on_look(struct timer *t)
{
  struct ledger *l = t->data;
  struct err err;
  bool failed = look(l, &err) < 0;
  if (failed && !l->blind) log_warn("the keys cannot be read: %s", err.msg);
  l->blind = failed;
  timer_start(l->loop, &l->look, LOOK_MS);
}

int accounts_load(struct ledger *l, struct err *err)
{
  int rc = look(l, err);
  if (rc < 0) return rc;
  l->look = (struct timer){.cb = on_look, .data = l};
  timer_start(l->loop, &l->look, LOOK_MS);
  return 0;
}

void accounts_free(struct ledger *l)
{
  timer_stop(l->loop, &l->look);
  for (size_t i = 0; i < l->accounts_n; i++) free(l->accounts[i]);
  free(l->accounts);
  index_free(&l->by_hash);
  index_free(&l->by_owner);
  index_free(&l->by_id);
}

/* ---- who it is ---- */

static struct account *find_key(struct ledger *l, const char *key)
{
  unsigned char hash[SHA256_SIZE];
  sha256(key, strlen(key), hash);
  struct account *a = by_hash(l, hash);
  if (a || loop_now_ms(l->loop) - l->looked_ms < LOOK_AGAIN_MS) return a;
  return look(l, NULL) < 0 ? NULL : by_hash(l, hash);
}

uint64_t account_owner(struct ledger *l, struct account *a)
{
  if (a->public.owner == 0) {
    a->public.owner = l->conf.owner_new(l->conf.data, &a->public);
    index_add(&l->by_owner, &a->by_owner, index_hash_u64(a->public.owner));
  }
  return a->public.owner;
}

int ledger_authenticate(struct ledger *l, const char *key, struct ledger_account *ret,
                        struct err *err)
{
  struct account *a = strlen(key) == KEY_SIZE - 1 ? find_key(l, key) : NULL;
  if (!a || a->revoked)
    return err_set(err, ERR_UNAUTHORIZED, 0,
                   a ? "this API key was revoked" : "there is no such API key");
  account_owner(l, a);
  *ret = a->public;
  return 0;
}

/* ---- rates ---- */

/* A bucket of `count` requests that fills in `period_ms`. A request is period_ms tokens, and each
 * millisecond brings `count` of them, so that nothing is rounded. */
int ledger_rate_take(struct ledger *l, int64_t account, struct ledger_rate *ret, struct err *err)
{
  struct account *a = account_by_id(l, account);
  *ret = (struct ledger_rate){0};
  if (!a || a->public.rate.count == 0) return 0;
  uint64_t count = a->public.rate.count, one = a->public.rate.period_ms, full = count * one;
  uint64_t now = loop_now_ms(l->loop), passed = now - a->tokens_ms;
  bool fills = !a->rate_begun || passed >= one || a->tokens + passed * count > full;
  a->tokens = fills ? full : a->tokens + passed * count;
  a->tokens_ms = now;
  a->rate_begun = true;
  bool ok = a->tokens >= one;
  if (ok) a->tokens -= one;
  ret->limit = (uint32_t)count;
  ret->remaining = (uint32_t)(a->tokens / one);
  ret->reset_s = (uint32_t)((full - a->tokens + count * 1000 - 1) / (count * 1000));
  if (ok) return 0;
  ret->retry_after_s = (uint32_t)((one - a->tokens + count * 1000 - 1) / (count * 1000));
  char rate[32];
  key_rate_print(&a->public.rate, rate);
  return err_set(err, ERR_RATE_LIMITED, 0,
                 "key %s may ask %s and has: the next request can be made in %u s", a->name, rate,
                 ret->retry_after_s);
}

int ledger_balance(struct ledger *l, int64_t account, struct ledger_balance *ret, struct err *err)
{
  const struct account *a = account_by_id(l, account);
  if (!a) return err_set(err, ERR_NOT_FOUND, 0, "there is no account %lld", (long long)account);
  *ret = (struct ledger_balance){a->at.balance - a->owed, a->held};
  return 0;
}

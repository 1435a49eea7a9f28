/* What the terminal does with keys: one transaction each, beside whatever server runs.
 *
 * A key is 50 characters of 36, more than 256 bits from the kernel's generator, so that a plain
 * SHA-256 of it cannot be searched, and the database holds nothing that could be presented. */
#include "ledger/keys.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/sha256.h"
#include "db/db.h"
#include "db/store.h"
#include "ledger/entries.h"

#define CREDIT_MAX (INT64_C(1000000000) * 1000000) /* a billion dollars at a time */

/* ---- rates ---- */

int key_rate_parse(const char *text, struct key_rate *ret, struct err *err)
{
  static const struct {
    const char *unit;
    uint32_t ms;
  } units[] = {{"/s", 1000}, {"/m", 60000}, {"/h", 3600000}};
  char *end;
  errno = 0;
  unsigned long n = isdigit((unsigned char)*text) ? strtoul(text, &end, 10) : 0;
  for (size_t i = 0; n > 0 && n <= 1000000 && errno == 0 && i < 3; i++)
    if (strcmp(end, units[i].unit) == 0) {
      *ret = (struct key_rate){(uint32_t)n, units[i].ms};
      return 0;
    }
  return err_arg(err, "--rate", "--rate: \"%s\" is not a rate: write 10/s, 600/m or 5000/h", text);
}

void key_rate_print(const struct key_rate *rate, char out[32])
{
  out[0] = '\0';
  if (rate->count == 0) return;
  const char *unit = rate->period_ms == 1000 ? "s" : rate->period_ms == 60000 ? "m" : "h";
  snprintf(out, 32, "%u/%s", rate->count, unit);
}

/* ---- one change, one transaction ---- */

struct change {
  struct store_job job;
  const char *name;
  const struct key_conf *conf; /* add */
  const char *key;             /* add */
  int64_t amount;              /* add, topup */
  int64_t ret_balance;
  struct err failed; /* filled by on_done */
};

static void on_done(struct store_job *job, const struct err *err)
{
  struct change *c = job->data;
  if (err) c->failed = *err;
}

static int run(struct store *store, struct change *c,
               int (*fn)(struct store_job *, struct db *, struct err *), struct err *err)
{
  c->job = (struct store_job){.run = fn, .on_done = on_done, .data = c};
  c->failed = (struct err){0};
  store_submit(store, &c->job);
  if (c->failed.kind == ERR_NONE) return 0;
  if (err) *err = c->failed;
  return err_errno(&c->failed);
}

/* A running server looks at this number. */
static int tell_servers(struct db *db, struct err *err)
{
  return db_run(db, err, "UPDATE meta SET value = value + 1 WHERE name = 'keys_version'", "");
}

static int find(struct db *db, const char *name, int64_t *ret_account, struct err *err)
{
  int rc = db_get(db, ret_account, 0, err, "SELECT id FROM accounts WHERE name = ?", "t", name);
  if (rc < 0 || *ret_account > 0) return rc;
  rc = err_set(err, ERR_NOT_FOUND, ENOENT, "there is no key named \"%s\"", name);
  err_hint(err, "regolith key ls shows them");
  return rc;
}

static int post_topup(struct db *db, int64_t account, int64_t amount, int64_t *ret_balance,
                      struct err *err)
{
  struct position at;
  struct entry e = {.kind = ENTRY_TOPUP, .amount = amount, .time_ms = clock_wall_ms()};
  int rc = position_read(db, account, &at, err);
  if (rc == 0 && at.balance + amount < 0 && amount < 0)
    return err_arg(err, "", "the balance is %.6f US dollars: no more can be taken away",
                   (double)at.balance / 1000000);
  if (rc == 0) rc = entry_post(db, account, &at, &e, err);
  if (rc == 0) rc = position_write(db, account, &at, err);
  *ret_balance = at.balance;
  return rc;
}

static int check_amount(int64_t amount, struct err *err)
{
  if (amount <= CREDIT_MAX && amount >= -CREDIT_MAX) return 0;
  return err_arg(err, "", "a billion US dollars at a time are the most");
}

/* ---- add ---- */

static int run_add(struct store_job *job, struct db *db, struct err *err)
{
  struct change *c = job->data;
  const struct key_conf *conf = c->conf;
  int64_t account;
  int rc = db_get(db, &account, 0, err, "SELECT id FROM accounts WHERE name = ?", "t", conf->name);
  if (rc < 0) return rc;
  if (account > 0) {
    rc = err_set(err, ERR_CONFLICT, EEXIST, "there is a key named \"%s\" already", conf->name);
    err_hint(err, "names are not used twice, so that statements stay clear; choose another");
    return rc;
  }
  unsigned char hash[SHA256_SIZE];
  char hint[12];
  sha256(c->key, strlen(c->key), hash);
  snprintf(hint, sizeof hint, "%.7s", c->key);
  rc = db_run(db, err,
              "INSERT INTO accounts (name, key_hash, key_hint, created_s, rate_count, "
              "rate_period_ms, max_sandboxes) VALUES (?, ?, ?, ?, ?, ?, ?)",
              "tbtiiii", conf->name, hash, sizeof hash, hint, clock_wall_s(),
              (int64_t)conf->rate.count, (int64_t)conf->rate.period_ms,
              (int64_t)conf->max_sandboxes);
  if (rc == 0) rc = find(db, conf->name, &account, err);
  if (rc == 0 && c->amount > 0) rc = post_topup(db, account, c->amount, &c->ret_balance, err);
  return rc < 0 ? rc : tell_servers(db, err);
}

static int check_name(const char *name, struct err *err)
{
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  size_t len = strlen(name);
  if (len > 0 && len < KEY_NAME_SIZE && strspn(name, letters) == len &&
      isalnum((unsigned char)name[0]))
    return 0;
  return err_arg(err, "name",
                 "\"%.80s\" is no name for a key: 1 to %d letters, digits, dots, dashes and "
                 "underscores, with a letter or digit in front",
                 name, KEY_NAME_SIZE - 1);
}

int key_add(struct store *store, const struct key_conf *conf, char ret_key[KEY_SIZE],
            struct err *err)
{
  int rc = check_name(conf->name, err);
  if (rc == 0) rc = check_amount(conf->credit_microusd, err);
  if (rc == 0 && conf->credit_microusd < 0)
    rc = err_arg(err, "--credit", "--credit: a key cannot begin with a debt");
  if (rc < 0) return rc;
  memcpy(ret_key, KEY_PREFIX, sizeof KEY_PREFIX - 1);
  id_random(ret_key + sizeof KEY_PREFIX - 1, KEY_SIZE - sizeof KEY_PREFIX);
  struct change c = {.conf = conf, .key = ret_key, .amount = conf->credit_microusd};
  return run(store, &c, run_add, err);
}

/* ---- revoke, topup ---- */

static int run_revoke(struct store_job *job, struct db *db, struct err *err)
{
  struct change *c = job->data;
  int64_t account;
  int rc = find(db, c->name, &account, err);
  if (rc == 0)
    rc = db_run(db, err, "UPDATE accounts SET revoked_s = ? WHERE id = ? AND revoked_s = 0", "ii",
                clock_wall_s(), account);
  return rc < 0 ? rc : tell_servers(db, err);
}

int key_revoke(struct store *store, const char *name, struct err *err)
{
  struct change c = {.name = name};
  return run(store, &c, run_revoke, err);
}

static int run_topup(struct store_job *job, struct db *db, struct err *err)
{
  struct change *c = job->data;
  int64_t account;
  int rc = find(db, c->name, &account, err);
  if (rc == 0) rc = post_topup(db, account, c->amount, &c->ret_balance, err);
  return rc < 0 ? rc : tell_servers(db, err);
}

int key_topup(struct store *store, const char *name, int64_t microusd, int64_t *ret_balance,
              struct err *err)
{
  struct change c = {.name = name, .amount = microusd};
  int rc = check_amount(microusd, err);
  if (rc == 0) rc = run(store, &c, run_topup, err);
  if (rc == 0) *ret_balance = c.ret_balance;
  return rc;
}

/* ---- ls ---- */

static void copy_text(char *out, size_t size, const char *text)
{
  snprintf(out, size, "%s", text ? text : "");
}

int key_list(struct store *store, void (*on_key)(void *data, const struct key_info *key),
             void *data, struct err *err)
{
  struct db_rows *rows;
  int rc = db_query(store_db(store), &rows, err,
                    "SELECT id, name, key_hint, created_s, revoked_s, balance, rate_count, "
                    "rate_period_ms, max_sandboxes, (SELECT coalesce(sum(amount), 0) FROM holds "
                    "WHERE account = accounts.id) FROM accounts ORDER BY name",
                    "");
  if (rc < 0) return rc;
  while ((rc = db_step(rows, err)) > 0) {
    struct key_info k = {.account = db_int(rows, 0),
                         .created_s = db_int(rows, 3),
                         .revoked_s = db_int(rows, 4),
                         .balance_microusd = db_int(rows, 5),
                         .rate = {(uint32_t)db_int(rows, 6), (uint32_t)db_int(rows, 7)},
                         .max_sandboxes = (uint32_t)db_int(rows, 8),
                         .held_microusd = db_int(rows, 9)};
    copy_text(k.name, sizeof k.name, db_text(rows, 1));
    copy_text(k.hint, sizeof k.hint, db_text(rows, 2));
    on_key(data, &k);
  }
  db_rows_end(rows);
  return rc;
}

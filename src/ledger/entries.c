/* The statements: one row for each change of a balance, numbered without a gap.
 *
 * An account's row says where its statement has come to; both are written in the same transaction,
 * so that the balance is the sum of the amounts at all times, and each row has the balance after
 * it. */
#include "ledger/entries.h"

#include "db/db.h"

const char *entry_kind_name(enum entry_kind kind)
{
  static const char *const names[ENTRY_KINDS] = {
      [ENTRY_TOPUP] = "topup", [ENTRY_CREATE] = "create", [ENTRY_EXTEND] = "extend",
      [ENTRY_EXEC] = "exec",   [ENTRY_STATUS] = "status", [ENTRY_TERMINATE] = "terminate"};
  return kind > 0 && kind < ENTRY_KINDS ? names[kind] : "?";
}

int position_read(struct db *db, int64_t account, struct position *ret, struct err *err)
{
  struct db_rows *rows;
  int rc = db_query(db, &rows, err, "SELECT balance, seq FROM accounts WHERE id = ?", "i", account);
  if (rc < 0) return rc;
  rc = db_step(rows, err);
  if (rc > 0) *ret = (struct position){db_int(rows, 0), db_int(rows, 1)};
  db_rows_end(rows);
  if (rc == 0) return err_set(err, ERR_INTERNAL, 0, "account %lld is gone", (long long)account);
  return rc < 0 ? rc : 0;
}

int entry_post(struct db *db, int64_t account, struct position *at, const struct entry *e,
               struct err *err)
{
  struct position next = {at->balance + e->amount, at->seq + 1};
  int rc =
      db_run(db, err,
             "INSERT INTO entries (account, seq, time_ms, kind, amount, balance, sandbox, tier, "
             "tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
             "iiiiiittt", account, next.seq, e->time_ms, (int64_t)e->kind, e->amount, next.balance,
             e->sandbox, e->tier, e->tags);
  if (rc == 0) *at = next;
  return rc;
}

int position_write(struct db *db, int64_t account, const struct position *at, struct err *err)
{
  return db_run(db, err, "UPDATE accounts SET balance = ?, seq = ? WHERE id = ?", "iii",
                at->balance, at->seq, account);
}

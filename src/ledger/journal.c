/* The journal of sandboxes: a row for each that a key has, or has had and may still ask for.
 *
 * Rows are written as the supervisor tells, whole each time, by lasting jobs of the database thread
 * that nobody waits for: the answer of a create waits for its entry in the books, which is
 * submitted later and so is not committed before. A row without an end, found at a start, is a
 * sandbox of a server that was killed. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/log.h"
#include "db/db.h"
#include "ledger/ledger_internal.h"

struct row {
  struct store_job job;
  int64_t account;
  char *id, *engine, *args; /* owned; args NULL: the row goes */
  int64_t created_s, ended_s, end, exit_code, commands, microusd;
};

static int run_write(struct store_job *job, struct db *db, struct err *err)
{
  const struct row *r = job->data;
  if (!r->args)
    return db_run(db, err, "DELETE FROM sandboxes WHERE id = ? AND account = ?", "ti", r->id,
                  r->account);
  return db_run(db, err,
                "INSERT OR REPLACE INTO sandboxes (id, account, engine, created_s, started, "
                "ended_s, end, exit_code, commands, cost, args) "
                "VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?)",
                "titiiiiiit", r->id, r->account, r->engine, r->created_s, r->ended_s, r->end,
                r->exit_code, r->commands, r->microusd, r->args);
}

static void on_written(struct store_job *job, const struct err *err)
{
  struct row *r = job->data;
  if (err) log_warn("sandbox %s could not be journalled: %s", r->id, err->msg);
  free(r->id);
  free(r->engine);
  free(r->args);
  free(r);
}

static void submit(struct ledger *l, struct row *r)
{
  r->job = (struct store_job){.run = run_write, .on_done = on_written, .data = r, .lasting = true};
  store_submit(l->store, &r->job);
}

static void forget_row(struct ledger *l, int64_t account, const char *id)
{
  struct row *r = xcalloc(1, sizeof *r);
  *r = (struct row){.account = account, .id = xstrdup(id)};
  submit(l, r);
}

void ledger_forget(struct ledger *l, uint64_t owner, const char *sandbox_id)
{
  const struct account *a = account_by_owner(l, owner);
  if (a) forget_row(l, a->public.id, sandbox_id);
}

void ledger_record(struct ledger *l, uint64_t owner, const struct val *record)
{
  const struct account *a = account_by_owner(l, owner);
  struct buf args = {0};
  if (!a) return;
  json_print(&args, val_get(record, "args"));
  struct row *r = xcalloc(1, sizeof *r);
  *r = (struct row){.account = a->public.id,
                    .id = xstrdup(val_get_str(record, "sandbox_id", "")),
                    .engine = xstrdup(val_get_str(record, "engine", "")),
                    .args = buf_take(&args, NULL),
                    .created_s = val_get_int(record, "created_s", 0),
                    .ended_s = val_get_int(record, "ended_s", 0),
                    .end = val_get_int(record, "end", 0),
                    .exit_code = val_get_int(record, "exit_code", 0),
                    .commands = val_get_int(record, "commands", 0),
                    .microusd = val_get_int(record, "microusd", 0)};
  submit(l, r);
}

/* ---- at the start ---- */

static struct val read_row(struct db_rows *rows)
{
  static const char *const numbers[] = {"created_s", "ended_s",  "end",
                                        "exit_code", "commands", "microusd"};
  const char *text = db_text(rows, 9);
  struct val v = val_map(), args = {0};
  val_add(&v, "sandbox_id", val_str(db_text(rows, 0)));
  val_add(&v, "engine", val_str(db_text(rows, 2)));
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    val_add(&v, numbers[i], val_int(db_int(rows, 3 + (int)i)));
  if (json_parse(&args, text, strlen(text), NULL) == 0) val_add(&v, "args", args);
  return v;
}

int ledger_restore(struct ledger *l,
                   int (*take)(void *data, uint64_t owner, const struct val *record,
                               struct err *err),
                   void *data, struct err *err)
{
  struct db_rows *rows;
  /* What a killed server had charged is read in one pass, and only where there is such a row. */
  int rc =
      db_query(store_db(l->store), &rows, err,
               "WITH paid AS (SELECT account, sandbox, sum(kind = ?) AS n, -sum(amount) AS cost"
               "  FROM entries WHERE EXISTS (SELECT 1 FROM sandboxes WHERE ended_s = 0)"
               "  AND sandbox IN (SELECT id FROM sandboxes WHERE ended_s = 0)"
               "  GROUP BY account, sandbox) "
               "SELECT s.id, s.account, s.engine, s.created_s, s.ended_s, s.end, s.exit_code,"
               "  coalesce(p.n, s.commands), coalesce(p.cost, s.cost), s.args "
               "FROM sandboxes s LEFT JOIN paid p ON p.account = s.account AND p.sandbox = s.id "
               "ORDER BY s.ended_s = 0, s.ended_s",
               "i", (int64_t)ENTRY_EXEC);
  if (rc < 0) return rc;
  while ((rc = db_step(rows, err)) > 0) {
    struct err why = {0};
    struct val record = read_row(rows);
    struct account *a = account_by_id(l, db_int(rows, 1));
    if (a && !a->revoked && take(data, account_owner(l, a), &record, &why) < 0)
      log_warn("sandbox %s of an earlier server is forgotten: %s", db_text(rows, 0), why.msg);
    if (!a || a->revoked || why.kind != ERR_NONE) forget_row(l, db_int(rows, 1), db_text(rows, 0));
    val_free(&record);
  }
  db_rows_end(rows);
  return rc;
}

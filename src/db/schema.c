/* The tables of the state directory, and how they came to be.
 *
 * One script per version, from an empty database on; none is ever changed once it was released. The
 * version is SQLite's user_version, written in the transaction of the scripts, so that a crash
 * leaves the old version or the new one. Money is integer micro-dollars, times are milliseconds (or
 * seconds, where the name says so) since the epoch, flags and kinds are numbers that only grow.
 *
 * Version 1: accounts (one per API key), entries (their statements: `seq` counts from 1 without a
 * gap, and `balance` is the sum of all amounts so far), holds (credit reserved for what is in
 * flight), answers (Idempotency-Key). `keys_version` in meta grows with each change of a key, which
 * is how a running server learns of it.
 * Version 2: sandboxes (the journal: what a server has, and has had). */
#include "db/schema.h"

#include <stddef.h>
#include <stdio.h>

#include "db/db.h"

static const char *const steps[] = {
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID, STRICT;"
    "INSERT INTO meta VALUES ('keys_version', 1);"
    "CREATE TABLE accounts ("
    "  id INTEGER PRIMARY KEY,"
    "  name TEXT NOT NULL UNIQUE,"
    "  key_hash BLOB NOT NULL UNIQUE,"
    "  key_hint TEXT NOT NULL,"
    "  created_s INTEGER NOT NULL,"
    "  revoked_s INTEGER NOT NULL DEFAULT 0,"
    "  rate_count INTEGER NOT NULL DEFAULT 0,"
    "  rate_period_ms INTEGER NOT NULL DEFAULT 0,"
    "  max_sandboxes INTEGER NOT NULL DEFAULT 0,"
    "  balance INTEGER NOT NULL DEFAULT 0,"
    "  seq INTEGER NOT NULL DEFAULT 0"
    ") STRICT;"
    "CREATE TABLE entries ("
    "  account INTEGER NOT NULL,"
    "  seq INTEGER NOT NULL,"
    "  time_ms INTEGER NOT NULL,"
    "  kind INTEGER NOT NULL,"
    "  amount INTEGER NOT NULL,"
    "  balance INTEGER NOT NULL,"
    "  sandbox TEXT,"
    "  tier TEXT,"
    "  tags TEXT,"
    "  PRIMARY KEY (account, seq)"
    ") WITHOUT ROWID, STRICT;"
    "CREATE INDEX entries_by_sandbox ON entries (sandbox) WHERE kind = 2;"
    "CREATE TABLE holds ("
    "  id INTEGER PRIMARY KEY,"
    "  account INTEGER NOT NULL,"
    "  amount INTEGER NOT NULL,"
    "  time_ms INTEGER NOT NULL"
    ") STRICT;"
    "CREATE TABLE answers ("
    "  account INTEGER NOT NULL,"
    "  key TEXT NOT NULL,"
    "  request BLOB NOT NULL,"
    "  time_s INTEGER NOT NULL,"
    "  status INTEGER NOT NULL DEFAULT 0,"
    "  body BLOB,"
    "  PRIMARY KEY (account, key)"
    ") STRICT;"
    "CREATE INDEX answers_by_time ON answers (time_s);",

    "CREATE TABLE sandboxes ("
    "  id TEXT PRIMARY KEY,"
    "  account INTEGER NOT NULL,"
    "  engine TEXT NOT NULL,"
    "  outlives INTEGER NOT NULL DEFAULT 0,"
    "  created_s INTEGER NOT NULL,"
    "  started INTEGER NOT NULL DEFAULT 0,"
    "  ended_s INTEGER NOT NULL DEFAULT 0,"
    "  end INTEGER NOT NULL DEFAULT 0,"
    "  exit_code INTEGER NOT NULL DEFAULT 0,"
    "  commands INTEGER NOT NULL DEFAULT 0,"
    "  cost INTEGER NOT NULL DEFAULT 0,"
    "  args TEXT NOT NULL"
    ") WITHOUT ROWID, STRICT;"
    "CREATE INDEX sandboxes_by_end ON sandboxes (ended_s);",
};

enum { VERSION = sizeof steps / sizeof *steps };

int schema_version(void)
{
  return VERSION;
}

const char *schema_step(int n)
{
  return n >= 1 && n <= VERSION ? steps[n - 1] : NULL;
}

int schema_is_old(struct db *db, bool *ret, struct err *err)
{
  int64_t have = 0;
  int rc = db_get(db, &have, 0, err, "PRAGMA user_version", "");
  *ret = have < VERSION;
  return rc;
}

static int refuse_newer(const char *path, int64_t version, struct err *err)
{
  int rc =
      err_set(err, ERR_CONFLICT, 0,
              "%s was written by a newer regolith: it has version %lld of the tables, and this "
              "program knows %d",
              path, (long long)version, VERSION);
  err_hint(err, "run the newer program, or name another state directory with --state");
  return rc;
}

static int step_up(struct db *db, const char *path, struct err *err)
{
  int64_t have;
  int rc = db_get(db, &have, 0, err, "PRAGMA user_version", "");
  if (rc == 0 && have > VERSION) rc = refuse_newer(path, have, err);
  for (; rc == 0 && have < VERSION; have++) {
    char version[48];
    snprintf(version, sizeof version, "PRAGMA user_version=%d", (int)have + 1);
    rc = db_script(db, steps[have], err);
    if (rc == 0) rc = db_script(db, version, err);
  }
  return rc;
}

int schema_bring(struct db *db, const char *path, struct err *err)
{
  int rc = db_script(db, "BEGIN IMMEDIATE", err);
  if (rc < 0) return rc;
  rc = step_up(db, path, err);
  if (rc == 0) return db_script(db, "COMMIT", err);
  if (db_in_transaction(db)) db_script(db, "ROLLBACK", NULL);
  return rc;
}

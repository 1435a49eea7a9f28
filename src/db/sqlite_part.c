/* SQLite behind the functions of db/db.h: the part "sqlite".
 *
 * A db owns its connection and the statements it has prepared, found by the address of their text:
 * every statement of ours is a literal. Serialisation is the caller's, so the connection has no
 * mutex of its own. What SQLite says becomes a sentence with the file in it; a disk that is full or
 * cannot be written, and a database that others hold for too long, are ENGINE_UNAVAILABLE: the same
 * request may succeed later. */
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "db/db.h"
#include "db/part.h"

#define STATEMENTS   64   /* a power of two, far more than we have */
#define BUSY_WAIT_MS 5000 /* for another process's transaction */

struct db_rows {
  const char *sql; /* as the caller has it: the key */
  sqlite3_stmt *stmt;
  struct db *db;
};

struct db {
  sqlite3 *conn;
  char *path;                            /* owned, for messages */
  struct db_rows statements[STATEMENTS]; /* open addressing by sql */
};

/* What the system said, where SQLite has kept it; 0: it is none of these failures. */
static int system_error(const struct db *db)
{
  int said = sqlite3_system_errno(db->conn);
  switch (sqlite3_errcode(db->conn) & 0xff) {
  case SQLITE_FULL: return ENOSPC;
  case SQLITE_READONLY: return EROFS;
  case SQLITE_BUSY: return EBUSY;
  case SQLITE_IOERR: return said ? said : EIO;
  case SQLITE_CANTOPEN: return said ? said : ENOENT;
  default: return 0;
  }
}

static int fail(const struct db *db, struct err *err)
{
  int sys = system_error(db);
  const char *said = sqlite3_errmsg(db->conn);
  if (sys == ENOSPC || sys == EDQUOT) said = strerror(sys);
  int rc = err_set(err, sys ? ERR_ENGINE_UNAVAILABLE : ERR_INTERNAL, sys, "%s: %s", db->path, said);
  if (sys == ENOSPC || sys == EDQUOT) err_hint(err, "make room on the disk of the state directory");
  return rc;
}

/* ---- opening ---- */

static void part_close(struct db *db)
{
  if (!db) return;
  for (size_t i = 0; i < STATEMENTS; i++) sqlite3_finalize(db->statements[i].stmt);
  sqlite3_close(db->conn);
  free(db->path);
  free(db);
}

static int part_script(struct db *db, const char *sql, struct err *err)
{
  return sqlite3_exec(db->conn, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(db, err);
}

static int part_open_db(struct db **ret, const char *path, struct err *err)
{
  struct db *db = xcalloc(1, sizeof *db);
  db->path = xstrdup(path);
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  int rc = sqlite3_open_v2(path, &db->conn, flags, NULL) == SQLITE_OK ? 0 : fail(db, err);
  if (rc == 0 && sqlite3_db_readonly(db->conn, "main") == 1)
    rc = err_set(err, ERR_ENGINE_UNAVAILABLE, EROFS,
                 "%s cannot be written: the file, or what it lies on, is read-only", path);
  if (rc == 0) {
    sqlite3_extended_result_codes(db->conn, 1);
    sqlite3_busy_timeout(db->conn, BUSY_WAIT_MS);
    rc = part_script(db,
                     "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
                     "PRAGMA trusted_schema=OFF;",
                     err);
  }
  if (rc < 0) {
    part_close(db);
    return rc;
  }
  *ret = db;
  return 0;
}

/* ---- statements ---- */

static int prepare(struct db *db, const char *sql, struct db_rows **ret, struct err *err)
{
  size_t at = ((uintptr_t)sql >> 3) & (STATEMENTS - 1);
  for (size_t n = 0; n < STATEMENTS; n++, at = (at + 1) & (STATEMENTS - 1)) {
    struct db_rows *r = &db->statements[at];
    *ret = r;
    if (r->sql == sql) return 0;
    if (r->sql) continue;
    if (sqlite3_prepare_v3(db->conn, sql, -1, SQLITE_PREPARE_PERSISTENT, &r->stmt, NULL) !=
        SQLITE_OK)
      return fail(db, err);
    r->sql = sql;
    r->db = db;
    return 0;
  }
  return err_set(err, ERR_INTERNAL, ENFILE, "too many statements are prepared");
}

/* Values stay the caller's: they live until the statement is reset. */
static int bind(struct db_rows *r, struct err *err, const char *types, va_list ap)
{
  int at = 1, rc = SQLITE_OK;
  for (; *types && rc == SQLITE_OK; types++, at++) {
    if (*types == 'i') {
      rc = sqlite3_bind_int64(r->stmt, at, va_arg(ap, int64_t));
    } else if (*types == 't') {
      rc = sqlite3_bind_text(r->stmt, at, va_arg(ap, const char *), -1, SQLITE_STATIC);
    } else if (*types == 'b') {
      const void *data = va_arg(ap, const void *);
      size_t len = va_arg(ap, size_t);
      rc = sqlite3_bind_blob64(r->stmt, at, data ? data : "", len, SQLITE_STATIC);
    } else {
      abort();
    }
  }
  if (rc == SQLITE_OK && sqlite3_bind_parameter_count(r->stmt) == at - 1) return 0;
  if (rc == SQLITE_OK) return err_set(err, ERR_INTERNAL, 0, "a statement lacks values: %s", r->sql);
  return fail(r->db, err);
}

static void part_rows_end(struct db_rows *r)
{
  sqlite3_reset(r->stmt);
  sqlite3_clear_bindings(r->stmt);
}

static int part_step(struct db_rows *r, struct err *err)
{
  int rc = sqlite3_step(r->stmt);
  if (rc == SQLITE_ROW) return 1;
  return rc == SQLITE_DONE ? 0 : fail(r->db, err);
}

static int part_query(struct db *db, struct db_rows **ret, struct err *err, const char *sql,
                      const char *types, va_list ap)
{
  int rc = prepare(db, sql, ret, err);
  if (rc < 0) return rc;
  rc = bind(*ret, err, types, ap);
  if (rc < 0) part_rows_end(*ret);
  return rc;
}

static int part_run(struct db *db, struct err *err, const char *sql, const char *types, va_list ap)
{
  struct db_rows *r;
  int rc = part_query(db, &r, err, sql, types, ap);
  if (rc < 0) return rc;
  rc = part_step(r, err);
  part_rows_end(r);
  return rc < 0 ? rc : 0;
}

static int64_t part_integer(struct db_rows *r, int column)
{
  return sqlite3_column_int64(r->stmt, column);
}

static const char *part_text(struct db_rows *r, int column)
{
  return (const char *)sqlite3_column_text(r->stmt, column);
}

static const void *part_blob(struct db_rows *r, int column, size_t *ret_len)
{
  const void *data = sqlite3_column_blob(r->stmt, column);
  *ret_len = (size_t)sqlite3_column_bytes(r->stmt, column);
  return data ? data : "";
}

static bool part_is_null(struct db_rows *r, int column)
{
  return sqlite3_column_type(r->stmt, column) == SQLITE_NULL;
}

static int64_t part_changes(struct db *db)
{
  return sqlite3_changes64(db->conn);
}

static bool part_in_transaction(struct db *db)
{
  return !sqlite3_get_autocommit(db->conn);
}

PART_EXPORT extern const struct sqlite_part regolith_part;

const struct sqlite_part regolith_part = {
    .head = {.name = "sqlite",
             .version = REGOLITH_VERSION,
             .size = sizeof(struct sqlite_part),
             .attach = part_attach_log},
    .open = part_open_db,
    .close = part_close,
    .run = part_run,
    .query = part_query,
    .step = part_step,
    .integer = part_integer,
    .text = part_text,
    .blob = part_blob,
    .is_null = part_is_null,
    .rows_end = part_rows_end,
    .changes = part_changes,
    .script = part_script,
    .in_transaction = part_in_transaction,
};

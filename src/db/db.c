/* The functions of db.h, answered by the part "sqlite".
 *
 * The part is opened with the first database, on the main thread; its table is read by any thread
 * from then on. */
#include "db/db.h"

#include "db/part.h"

static const struct sqlite_part *part;

int db_open(struct db **ret, const char *path, struct err *err)
{
  const struct part_head *head;
  int rc = part ? 0 : part_open("sqlite", sizeof *part, &head, err);
  if (rc < 0) return rc;
  if (!part) part = (const struct sqlite_part *)head;
  return part->open(ret, path, err);
}

void db_close(struct db *db)
{
  if (db) part->close(db);
}

int db_run(struct db *db, struct err *err, const char *sql, const char *types, ...)
{
  va_list ap;
  va_start(ap, types);
  int rc = part->run(db, err, sql, types, ap);
  va_end(ap);
  return rc;
}

int db_query(struct db *db, struct db_rows **ret, struct err *err, const char *sql,
             const char *types, ...)
{
  va_list ap;
  va_start(ap, types);
  int rc = part->query(db, ret, err, sql, types, ap);
  va_end(ap);
  return rc;
}

int db_get(struct db *db, int64_t *ret, int64_t fallback, struct err *err, const char *sql,
           const char *types, ...)
{
  struct db_rows *rows;
  va_list ap;
  va_start(ap, types);
  int rc = part->query(db, &rows, err, sql, types, ap);
  va_end(ap);
  if (rc < 0) return rc;
  rc = part->step(rows, err);
  *ret = rc > 0 ? part->integer(rows, 0) : fallback;
  part->rows_end(rows);
  return rc < 0 ? rc : 0;
}

int db_step(struct db_rows *rows, struct err *err)
{
  return part->step(rows, err);
}

int64_t db_int(struct db_rows *rows, int column)
{
  return part->integer(rows, column);
}

const char *db_text(struct db_rows *rows, int column)
{
  return part->text(rows, column);
}

const void *db_blob(struct db_rows *rows, int column, size_t *ret_len)
{
  return part->blob(rows, column, ret_len);
}

bool db_is_null(struct db_rows *rows, int column)
{
  return part->is_null(rows, column);
}

void db_rows_end(struct db_rows *rows)
{
  part->rows_end(rows);
}

int64_t db_changes(struct db *db)
{
  return part->changes(db);
}

int db_script(struct db *db, const char *sql, struct err *err)
{
  return part->script(db, sql, err);
}

bool db_in_transaction(struct db *db)
{
  return part->in_transaction(db);
}

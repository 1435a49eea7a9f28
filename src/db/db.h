#ifndef REGOLITH_DB_DB_H
#define REGOLITH_DB_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* One connection to an SQLite database, for one thread at a time. SQLite itself is in the part
 * "sqlite", opened with the first database. */
struct db;
struct db_rows;

int db_open(struct db **ret, const char *path, struct err *err);
void db_close(struct db *db); /* NULL allowed */

/* Statements are kept prepared under their text, which must be a literal or outlive the db. `types`
 * has one letter for each "?", in order, and the arguments follow: i int64_t, t const char * (NULL:
 * NULL), b const void * and size_t. */
int db_run(struct db *db, struct err *err, const char *sql, const char *types, ...);

/* Rows of a query: step gives 1 for a row, 0 at the end, or a negative errno; text and blob are
 * valid until the next step. db_rows_end may come early, and has to come. */
int db_query(struct db *db, struct db_rows **ret, struct err *err, const char *sql,
             const char *types, ...);
int db_step(struct db_rows *rows, struct err *err);
int64_t db_int(struct db_rows *rows, int column);
const char *db_text(struct db_rows *rows, int column); /* NULL: is NULL */
const void *db_blob(struct db_rows *rows, int column, size_t *ret_len);
bool db_is_null(struct db_rows *rows, int column);
void db_rows_end(struct db_rows *rows);

/* The first column of the first row, or `fallback` where there is no row. */
int db_get(struct db *db, int64_t *ret, int64_t fallback, struct err *err, const char *sql,
           const char *types, ...);

int64_t db_changes(struct db *db); /* rows that the last db_run wrote */

/* Several statements without arguments, run once. */
int db_script(struct db *db, const char *sql, struct err *err);

/* A failed statement may have undone the whole transaction: false then. */
bool db_in_transaction(struct db *db);

#endif

#ifndef REGOLITH_DB_PART_H
#define REGOLITH_DB_PART_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "core/part.h"

struct db;
struct db_rows;

/* The part "sqlite": the functions of db/db.h, those with "..." by their va_list. */
struct sqlite_part {
  struct part_head head;
  int (*open)(struct db **ret, const char *path, struct err *err);
  void (*close)(struct db *db);
  int (*run)(struct db *db, struct err *err, const char *sql, const char *types, va_list ap);
  int (*query)(struct db *db, struct db_rows **ret, struct err *err, const char *sql,
               const char *types, va_list ap);
  int (*step)(struct db_rows *rows, struct err *err);
  int64_t (*integer)(struct db_rows *rows, int column);
  const char *(*text)(struct db_rows *rows, int column);
  const void *(*blob)(struct db_rows *rows, int column, size_t *ret_len);
  bool (*is_null)(struct db_rows *rows, int column);
  void (*rows_end)(struct db_rows *rows);
  int64_t (*changes)(struct db *db);
  int (*script)(struct db *db, const char *sql, struct err *err);
  bool (*in_transaction)(struct db *db);
};

#endif

#ifndef REGOLITH_DB_SCHEMA_H
#define REGOLITH_DB_SCHEMA_H

#include <stdbool.h>

#include "base/err.h"

struct db;

/* Brings the database to this program's version, in one transaction. CONFLICT when it is of a newer
 * one. */
int schema_bring(struct db *db, const char *path, struct err *err);

/* Would it bring anything? */
int schema_is_old(struct db *db, bool *ret, struct err *err);

/* The version of this program; for tests: the script that leads from version n - 1 to n. */
int schema_version(void);
const char *schema_step(int n);

#endif

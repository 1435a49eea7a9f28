#ifndef REGOLITH_LEDGER_ENTRIES_H
#define REGOLITH_LEDGER_ENTRIES_H

#include <stdint.h>

#include "base/err.h"

struct db;

/* What changes a balance. The numbers are in databases: they only grow. */
enum entry_kind {
  ENTRY_TOPUP = 1,
  ENTRY_CREATE = 2,
  ENTRY_EXTEND = 3,
  ENTRY_EXEC = 4,
  ENTRY_STATUS = 5,
  ENTRY_TERMINATE = 6,
  ENTRY_KINDS
};

const char *entry_kind_name(enum entry_kind kind); /* "topup", … */

struct entry {
  enum entry_kind kind;
  int64_t amount; /* micro-dollars; a charge is negative */
  int64_t time_ms;
  const char *sandbox; /* NULL = none */
  const char *tier;    /* of a create: "CPU", "A100:2" */
  const char *tags;    /* of a create: its tags as JSON, NULL = none */
};

/* Where an account's statement has come to. */
struct position {
  int64_t balance, seq;
};

/* Within a transaction. entry_post moves the position on; position_write puts it on the disk. */
int position_read(struct db *db, int64_t account, struct position *ret, struct err *err);
int entry_post(struct db *db, int64_t account, struct position *at, const struct entry *entry,
               struct err *err);
int position_write(struct db *db, int64_t account, const struct position *at, struct err *err);

#endif

#ifndef REGOLITH_LEDGER_COSTS_H
#define REGOLITH_LEDGER_COSTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/val.h"

struct db;

/* What was charged, added up. Queries read every entry of the span: a server asks for spans that it
 * bounds itself. */
struct cost_query {
  int64_t account;            /* 0 = all */
  int64_t since_ms, until_ms; /* since ≤ time < until; until 0 = no end */
  /* What has a line of its own. */
  bool by_key, by_tier, by_op, by_tags;
  const char *by_tag; /* by the value of this tag, NULL = not */
  int64_t by_ms;      /* by the spans of so many milliseconds (an hour, a day), 0 = not */
};

/* "key,tier,op,tag,tag:NAME,hour,day"; the name of the tag points into `text`, which is changed. */
int cost_query_by(struct cost_query *q, char *text, struct err *err);

/* { { key, tier, op, tag, time (of the start of the span), calls, microusd, usd }, … } with what
 * was asked for, sorted by it. tag is "a=1 b=2"; what has none is "". */
int costs_sum(struct db *db, const struct cost_query *q, struct val *ret, struct err *err);

/* The lines of an account's statement from since_ms on, oldest first: { seq, time, op, sandbox_id,
 * tier, microusd, balance_microusd }. limit 0 = all, else the newest so many. */
int costs_statement(struct db *db, int64_t account, int64_t since_ms, int64_t limit,
                    void (*on_line)(void *data, const struct val *line), void *data,
                    struct err *err);

#endif

#ifndef REGOLITH_SANDBOX_BUDGET_H
#define REGOLITH_SANDBOX_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* What an owner may still spend. Budgets are added and never taken away, and every one of them has
 * to have room, so that a later one can only tighten. */
enum budget_kind {
  BUDGET_MICROUSD,
  BUDGET_MS,      /* life of sandboxes */
  BUDGET_CREATES, /* sandboxes made */
  BUDGET_KINDS
};

#define BUDGET_UNBOUND INT64_MAX
#define BUDGETS_MAX    64 /* of one owner */

struct budget {
  int64_t limit[BUDGET_KINDS]; /* as it was set; BUDGET_UNBOUND = none */
  int64_t left[BUDGET_KINDS];  /* of it */
  bool granted;                /* set from outside (--max-cost), not by the owner itself */
};

struct budgets {
  struct budget *v; /* owned */
  size_t n;
};

/* What the budgets of an owner hold for one sandbox: as many entries as there were budgets when it
 * last took something. */
struct holding {
  int64_t (*v)[BUDGET_KINDS]; /* owned */
  size_t n;
};

int budgets_add(struct budgets *b, const int64_t limit[BUDGET_KINDS], bool granted,
                struct err *err);
void budgets_done(struct budgets *b);

/* Takes the amounts from every budget, or nothing: BUDGET_EXCEEDED names the first that has no
 * room. h (NULL: spent for good) remembers what each gave. */
int budgets_take(struct budgets *b, struct holding *h, const int64_t amount[BUDGET_KINDS],
                 struct err *err);
/* As budgets_take for what cannot be refused: takes what is there. */
void budgets_drain(struct budgets *b, const int64_t amount[BUDGET_KINDS]);
/* Gives back up to the amounts, to each budget no more than it gave. */
void budgets_give(struct budgets *b, struct holding *h, const int64_t amount[BUDGET_KINDS]);
void holding_done(struct holding *h);

#endif

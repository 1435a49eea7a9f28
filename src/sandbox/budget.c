/* Budgets of one owner: pure arithmetic, in integers.
 *
 * A budget counts what is asked for after it was set. Life-time is reserved whole by a create and
 * by an extend; what the sandbox did not live is given back, to those budgets that gave it and to
 * no other, which is why each sandbox remembers what every budget holds for it. Nothing here knows
 * what a sandbox is or what it costs. */
#include "sandbox/budget.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"

static const char *const fields[BUDGET_KINDS] = {
    [BUDGET_MICROUSD] = "usd", [BUDGET_MS] = "seconds", [BUDGET_CREATES] = "sandboxes"};

int budgets_add(struct budgets *b, const int64_t limit[BUDGET_KINDS], bool granted, struct err *err)
{
  if (b->n == BUDGETS_MAX)
    return err_set(err, ERR_LIMIT, 0, "a script may set %d budgets, and this one has", BUDGETS_MAX);
  b->v = xrealloc(b->v, (b->n + 1) * sizeof *b->v);
  struct budget *new = &b->v[b->n++];
  *new = (struct budget){.granted = granted};
  for (int k = 0; k < BUDGET_KINDS; k++) new->limit[k] = new->left[k] = limit[k];
  return 0;
}

void budgets_done(struct budgets *b)
{
  free(b->v);
  *b = (struct budgets){0};
}

static void show(char out[64], enum budget_kind kind, int64_t amount)
{
  if (kind == BUDGET_MICROUSD)
    snprintf(out, 64, "%.6g US dollars", (double)amount / 1000000);
  else if (kind == BUDGET_MS)
    snprintf(out, 64, "%.10g s of sandbox life", (double)amount / 1000);
  else
    snprintf(out, 64, "%" PRId64 " sandbox%s", amount, amount == 1 ? "" : "es");
}

static int refuse(const struct budget *b, enum budget_kind kind, int64_t amount, struct err *err)
{
  char wanted[64], left[64], limit[64];
  show(wanted, kind, amount);
  show(left, kind, b->left[kind]);
  show(limit, kind, b->limit[kind]);
  int rc = err_set(err, ERR_BUDGET_EXCEEDED, 0,
                   "this needs %s: of the budget of %s there is left %s", wanted, limit, left);
  if (err) snprintf(err->field, sizeof err->field, "%s", fields[kind]);
  if (b->granted) err_hint(err, "a higher --max-cost grants it");
  return rc;
}

int budgets_take(struct budgets *b, struct holding *h, const int64_t amount[BUDGET_KINDS],
                 struct err *err)
{
  for (size_t i = 0; i < b->n; i++)
    for (enum budget_kind k = 0; k < BUDGET_KINDS; k++)
      if (amount[k] > b->v[i].left[k]) return refuse(&b->v[i], k, amount[k], err);
  if (h && h->n < b->n) {
    h->v = xrealloc(h->v, b->n * sizeof *h->v);
    for (; h->n < b->n; h->n++)
      for (int k = 0; k < BUDGET_KINDS; k++) h->v[h->n][k] = 0;
  }
  for (size_t i = 0; i < b->n; i++)
    for (int k = 0; k < BUDGET_KINDS; k++) {
      if (b->v[i].limit[k] == BUDGET_UNBOUND) continue;
      b->v[i].left[k] -= amount[k];
      if (h) h->v[i][k] += amount[k];
    }
  return 0;
}

void budgets_drain(struct budgets *b, const int64_t amount[BUDGET_KINDS])
{
  for (size_t i = 0; i < b->n; i++)
    for (int k = 0; k < BUDGET_KINDS; k++) {
      if (b->v[i].limit[k] == BUDGET_UNBOUND) continue;
      b->v[i].left[k] -= amount[k] < b->v[i].left[k] ? amount[k] : b->v[i].left[k];
    }
}

void budgets_give(struct budgets *b, struct holding *h, const int64_t amount[BUDGET_KINDS])
{
  for (size_t i = 0; i < h->n; i++)
    for (int k = 0; k < BUDGET_KINDS; k++) {
      int64_t back = amount[k] < h->v[i][k] ? amount[k] : h->v[i][k];
      h->v[i][k] -= back;
      b->v[i].left[k] += back;
    }
}

void holding_done(struct holding *h)
{
  free(h->v);
  *h = (struct holding){0};
}

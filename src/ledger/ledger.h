#ifndef REGOLITH_LEDGER_LEDGER_H
#define REGOLITH_LEDGER_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "ledger/keys.h"

struct create_defaults;
struct loop;
struct ops;
struct store;
struct val;
struct ledger;

/* Who may ask for what, and who pays: the accounts of the API keys, in memory as the database has
 * them, and the handler in front of the ops that cost something.
 *
 * An op whose owner is a key's is priced, its credit is held, it is passed on, and it is settled
 * when it ends; its on_done comes after the commit. An op that is refused for lack of credit ends
 * with PAYMENT_REQUIRED, its message has the missing amount, and op->result is { required_microusd,
 * available_microusd, missing_microusd } in spite of the error. When the books cannot be written it
 * ends with ENGINE_UNAVAILABLE, and is not charged. Ops of other owners pass untouched. */
struct ledger_account {
  int64_t id;       /* of the key, > 0; lasts */
  const char *name; /* valid until ledger_close */
  uint64_t owner;   /* of this process's supervisor */
  struct key_rate rate;
  uint32_t max_sandboxes;
};

struct ledger_conf {
  struct loop *loop;
  struct ops *ops;                        /* the sandbox ops are registered already */
  struct store *store;                    /* with the loop; outlives the ledger */
  const struct create_defaults *defaults; /* the supervisor's; copied. NULL = none */
  /* The supervisor's owner of a key, asked for when the key is first used (account->owner is 0). */
  uint64_t (*owner_new)(void *data, const struct ledger_account *account);
  /* What extending this sandbox by so many seconds costs on top of what was paid for it; 0 where
   * there is no such sandbox. */
  int64_t (*price_extend)(void *data, uint64_t owner, const char *sandbox_id, uint32_t seconds);
  /* The key was revoked: its owner should be ended. May be NULL. */
  void (*on_revoked)(void *data, uint64_t owner);
  void *data;
};

int ledger_open(struct ledger **ret, const struct ledger_conf *conf, struct err *err);
/* After the last op of a key has ended. done comes once, from the loop. */
void ledger_close(struct ledger *ledger, void (*done)(void *data), void *data);

/* The account of a presented key ("sk-…"), or UNAUTHORIZED. A look-up in memory. */
int ledger_authenticate(struct ledger *ledger, const char *key, struct ledger_account *ret,
                        struct err *err);

/* One request of the account against its rate. RATE_LIMITED once it is used up. limit 0: no rate,
 * and no headers. */
struct ledger_rate {
  uint32_t limit, remaining;
  uint32_t reset_s;       /* until `remaining` is `limit` again, rounded up */
  uint32_t retry_after_s; /* with RATE_LIMITED: at least 1 */
};
int ledger_rate_take(struct ledger *ledger, int64_t account, struct ledger_rate *ret,
                     struct err *err);

struct ledger_balance {
  int64_t balance_microusd;
  int64_t held_microusd; /* for what is in flight; what is left is balance - held */
};
int ledger_balance(struct ledger *ledger, int64_t account, struct ledger_balance *ret,
                   struct err *err);

/* The journal: what the supervisor tells of sandboxes (supervisor_conf), kept for those of keys. It
 * is written in the order told, and before the answer of any op that is charged afterwards. */
void ledger_record(struct ledger *ledger, uint64_t owner, const struct val *record);
void ledger_forget(struct ledger *ledger, uint64_t owner, const char *sandbox_id);
/* At the start, before anything else: gives back what the server before recorded, oldest end first;
 * of those that had not ended, commands and cost as the statement has them. What take refuses, or
 * is nobody's any more, is forgotten. */
int ledger_restore(struct ledger *ledger,
                   int (*take)(void *data, uint64_t owner, const struct val *record,
                               struct err *err),
                   void *data, struct err *err);

/* Totals of this process, for /metrics. */
struct ledger_stats {
  uint64_t charges, refusals; /* entries written; ops refused for lack of credit */
  int64_t charged_microusd, held_microusd;
  uint64_t failed_writes;
};
void ledger_stats(const struct ledger *ledger, struct ledger_stats *ret);

#endif

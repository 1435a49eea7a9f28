#ifndef REGOLITH_LEDGER_KEYS_H
#define REGOLITH_LEDGER_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct store;

/* API keys: "sk-" and 50 of [0-9a-z] from the kernel's generator, shown once and kept as their
 * SHA-256. Each has an account of its own: a balance, a quota, a rate. What the commands of the
 * terminal do with them; the server looks keys up in the ledger (ledger/ledger.h). All of these
 * work beside a running server, which sees the change within half a second. */
#define KEY_PREFIX    "sk-"
#define KEY_SIZE      54 /* "sk-" + 50 + NUL */
#define KEY_NAME_SIZE 65

/* So many requests in so long. */
struct key_rate {
  uint32_t count;     /* 0 = no limit */
  uint32_t period_ms; /* of `count` */
};

/* "10/s", "600/m", "5000/h". */
int key_rate_parse(const char *text, struct key_rate *ret, struct err *err);
void key_rate_print(const struct key_rate *rate, char out[32]); /* "" without one */

struct key_conf {
  const char *name; /* 1 to 64 letters, digits and . _ - */
  int64_t credit_microusd;
  struct key_rate rate;
  uint32_t max_sandboxes; /* alive at once; 0 = no cap */
};

/* The store is one without a loop. CONFLICT where the name is taken, by a revoked key too. */
int key_add(struct store *store, const struct key_conf *conf, char ret_key[KEY_SIZE],
            struct err *err);
int key_revoke(struct store *store, const char *name, struct err *err);
/* Negative takes credit away, down to an empty balance at most. */
int key_topup(struct store *store, const char *name, int64_t microusd, int64_t *ret_balance,
              struct err *err);

struct key_info {
  int64_t account;
  char name[KEY_NAME_SIZE];
  char hint[12]; /* how the key begins: "sk-4fz0…" without the rest */
  int64_t created_s;
  int64_t revoked_s;        /* 0 = it is valid */
  int64_t balance_microusd; /* of all entries */
  int64_t held_microusd;    /* of it, reserved for creates in flight */
  struct key_rate rate;
  uint32_t max_sandboxes;
};

int key_list(struct store *store, void (*on_key)(void *data, const struct key_info *key),
             void *data, struct err *err);

#endif

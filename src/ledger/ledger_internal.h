#ifndef REGOLITH_LEDGER_LEDGER_INTERNAL_H
#define REGOLITH_LEDGER_LEDGER_INTERNAL_H

/* What the files of this folder share: accounts.c has the accounts in memory, ledger.c the ops,
 * journal.c the sandboxes. */

#include "base/index.h"
#include "base/list.h"
#include "base/sha256.h"
#include "core/loop.h"
#include "db/store.h"
#include "ledger/entries.h"
#include "ledger/ledger.h"
#include "wire/op.h"

/* Credit that may be spent is balance - held - owed. The server is the only one that charges, so
 * what is decided here holds; other processes only add. */
struct account {
  struct index_node by_hash, by_owner, by_id;
  struct ledger_account public; /* name owned */
  char name[KEY_NAME_SIZE];
  unsigned char hash[SHA256_SIZE];
  bool revoked;
  struct position at; /* as committed, as far as this thread knows */
  int64_t held;       /* for ops that have not ended */
  int64_t owed;       /* charged, not committed */
  uint64_t tokens;    /* thousandths of a request × period: see rate_take */
  uint64_t tokens_ms; /* monotonic, when they were counted */
  bool rate_begun;

  /* The database thread's. */
  struct position writing; /* within the transaction number `batch` */
  uint64_t batch;
  struct list dirty; /* ledger.dirty */
};

struct ledger {
  struct loop *loop;
  struct ops *ops;
  struct store *store;
  struct create_defaults defaults; /* owned strings, NULL = none */
  struct ledger_conf conf;
  struct index by_hash, by_owner, by_id;
  struct account **accounts; /* owned */
  size_t accounts_n;
  int64_t keys_version;
  uint64_t looked_ms; /* when the database was asked for it */
  bool blind;         /* the last look failed, and that was said */
  struct timer look;

  size_t charges_open; /* ops between start and answer, and what is to be released */
  int64_t next_hold;
  struct ledger_stats stats;
  bool closing;
  void (*on_closed)(void *data);
  void *on_closed_data;
  struct defer closed;

  /* The database thread's. */
  uint64_t batch;
  struct list dirty; /* account.dirty */
};

/* accounts.c */
int accounts_load(struct ledger *l, struct err *err);
void accounts_free(struct ledger *l);
struct account *account_by_owner(struct ledger *l, uint64_t owner);
struct account *account_by_id(struct ledger *l, int64_t id);
uint64_t account_owner(struct ledger *l, struct account *a); /* made when it is first asked for */
int64_t account_available(const struct account *a);

#endif

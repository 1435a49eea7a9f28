#ifndef REGOLITH_LEDGER_IDEM_H
#define REGOLITH_LEDGER_IDEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct store;

/* What `Idempotency-Key` needs: the answer that a request got, kept for 24 h under the account and
 * the key it came with. A record is in the database before its request starts. After a crash those
 * in flight are forgotten: what they started was ended with the process that started it. Whoever
 * submits the end in the turn in which its charge is submitted has both or neither of them. */
#define IDEM_KEY_MAX  255
#define IDEM_KEEP_S   86400
#define IDEM_BODY_MAX (16u << 20)

enum idem_state {
  IDEM_NEW,       /* go on, and say how it ended with idem_finish or idem_forget */
  IDEM_REPLAY,    /* status and body are the answer, free of charge */
  IDEM_IN_FLIGHT, /* the first request with this key has not been answered: 409 */
  IDEM_MISMATCH   /* this key came with another request: 409 */
};

typedef void idem_begin_fn(void *data, enum idem_state state, int status, const void *body,
                           size_t len, const struct err *err);

struct idem_request {
  int64_t account;
  const char *key;     /* 1 to IDEM_KEY_MAX bytes */
  const void *request; /* what must be the same: method, path and body, one after the other */
  size_t request_len;
};

/* on_done comes once, from the loop; body is valid during the call. err: the database failed. A key
 * that is empty or too long is INVALID_ARGUMENT at once. */
int idem_begin(struct store *store, const struct idem_request *request, idem_begin_fn *on_done,
               void *data, struct err *err);

/* The answer, once it is known. on_done comes after the commit: the answer may go out then, and it
 * may when that failed: a request with this key is taken for in flight until the next start. */
void idem_finish(struct store *store, int64_t account, const char *key, int status,
                 const void *body, size_t len, void (*on_done)(void *data, const struct err *err),
                 void *data);

/* Nothing ran: the next request with this key is new, as soon as that can be written. on_done may
 * be NULL. */
void idem_forget(struct store *store, int64_t account, const char *key,
                 void (*on_done)(void *data, const struct err *err), void *data);

/* At the start of a server: forgets what was in flight, and what is older than IDEM_KEEP_S. */
int idem_recover(struct store *store, struct err *err);

#endif

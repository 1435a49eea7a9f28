/* Answers to be given again, by account and key.
 *
 * A record is written before its request starts, with status 0, and gets its answer in the end. The
 * database thread does all of it, in the order it is asked, so that two requests with one key
 * cannot both be new. */
#include "ledger/idem.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "db/db.h"
#include "db/store.h"

struct idem {
  struct store_job job;
  int64_t account;
  char *key; /* owned */
  unsigned char request[SHA256_SIZE];
  idem_begin_fn *on_begun;
  void (*on_ended)(void *data, const struct err *err); /* may be NULL */
  void *data;
  enum idem_state state;
  int status;
  char *body; /* owned */
  size_t len;
};

static struct idem *idem_new(int64_t account, const char *key, void *data)
{
  struct idem *i = xcalloc(1, sizeof *i);
  i->account = account;
  i->key = xstrdup(key);
  i->data = data;
  i->job.data = i;
  return i;
}

static void idem_free(struct idem *i)
{
  free(i->key);
  free(i->body);
  free(i);
}

/* ---- begin ---- */

static void take_record(struct idem *i, struct db_rows *rows)
{
  size_t len;
  const void *request = db_blob(rows, 0, &len);
  i->status = (int)db_int(rows, 1);
  if (len != SHA256_SIZE || memcmp(request, i->request, len) != 0) {
    i->state = IDEM_MISMATCH;
  } else if (i->status == 0) {
    i->state = IDEM_IN_FLIGHT;
  } else {
    const void *body = db_blob(rows, 2, &i->len);
    i->state = IDEM_REPLAY;
    i->body = xmalloc(i->len + 1);
    memcpy(i->body, body, i->len);
    i->body[i->len] = '\0';
  }
}

static int run_begin(struct store_job *job, struct db *db, struct err *err)
{
  struct idem *i = job->data;
  struct db_rows *rows;
  int64_t now = clock_wall_s();
  i->state = IDEM_NEW;
  int rc = db_run(db, err, "DELETE FROM answers WHERE account = ? AND key = ? AND time_s < ?",
                  "iti", i->account, i->key, now - IDEM_KEEP_S);
  if (rc == 0)
    rc = db_query(db, &rows, err,
                  "SELECT request, status, body FROM answers WHERE account = ? AND key = ?", "it",
                  i->account, i->key);
  if (rc < 0) return rc;
  rc = db_step(rows, err);
  if (rc > 0) take_record(i, rows);
  db_rows_end(rows);
  if (rc != 0) return rc < 0 ? rc : 0;
  return db_run(db, err, "INSERT INTO answers (account, key, request, time_s) VALUES (?, ?, ?, ?)",
                "itbi", i->account, i->key, i->request, sizeof i->request, now);
}

static void on_begun(struct store_job *job, const struct err *err)
{
  struct idem *i = job->data;
  i->on_begun(i->data, i->state, i->status, i->body, i->len, err);
  idem_free(i);
}

int idem_begin(struct store *store, const struct idem_request *r, idem_begin_fn *on_done,
               void *data, struct err *err)
{
  size_t len = strlen(r->key);
  if (len == 0 || len > IDEM_KEY_MAX)
    return err_arg(err, "Idempotency-Key", "Idempotency-Key has %zu bytes: 1 to %d are possible",
                   len, IDEM_KEY_MAX);
  struct idem *i = idem_new(r->account, r->key, data);
  sha256(r->request, r->request_len, i->request);
  i->on_begun = on_done;
  i->job.run = run_begin;
  i->job.on_done = on_begun;
  store_submit(store, &i->job);
  return 0;
}

/* ---- the end ---- */

static int run_forget(struct store_job *job, struct db *db, struct err *err)
{
  struct idem *i = job->data;
  return db_run(db, err, "DELETE FROM answers WHERE account = ? AND key = ?", "it", i->account,
                i->key);
}

static void on_ended(struct store_job *job, const struct err *err)
{
  struct idem *i = job->data;
  if (i->on_ended) i->on_ended(i->data, err);
  idem_free(i);
}

void idem_forget(struct store *store, int64_t account, const char *key,
                 void (*on_done)(void *data, const struct err *err), void *data)
{
  struct idem *i = idem_new(account, key, data);
  i->on_ended = on_done;
  i->job.lasting = true;
  i->job.run = run_forget;
  i->job.on_done = on_ended;
  store_submit(store, &i->job);
}

static int run_finish(struct store_job *job, struct db *db, struct err *err)
{
  struct idem *i = job->data;
  return db_run(db, err, "UPDATE answers SET status = ?, body = ? WHERE account = ? AND key = ?",
                "ibit", (int64_t)i->status, i->body, i->len, i->account, i->key);
}

void idem_finish(struct store *store, int64_t account, const char *key, int status,
                 const void *body, size_t len, void (*on_done)(void *data, const struct err *err),
                 void *data)
{
  struct idem *i = idem_new(account, key, data);
  i->status = status;
  i->body = xmalloc(len + 1);
  memcpy(i->body, body, len);
  i->len = len;
  i->on_ended = on_done;
  i->job.run = run_finish;
  i->job.on_done = on_ended;
  store_submit(store, &i->job);
}

int idem_recover(struct store *store, struct err *err)
{
  return db_run(store_db(store), err, "DELETE FROM answers WHERE status = 0 OR time_s < ?", "i",
                clock_wall_s() - IDEM_KEEP_S);
}

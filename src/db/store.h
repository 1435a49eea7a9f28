#ifndef REGOLITH_DB_STORE_H
#define REGOLITH_DB_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"

struct db;
struct loop;
struct store;

/* A state directory: its database, brought to this program's schema, and the one writer.
 *
 * With a loop, writes are jobs of a database thread: all jobs of one turn of the loop are one fully
 * synchronous transaction, and a job is answered after its commit. Without one (the commands of the
 * terminal) a job runs at once. Several processes may have the same directory open; one of them at
 * a time may be its server. */
struct store_conf {
  const char *dir;   /* made when it is not there; NULL: store_default_dir */
  struct loop *loop; /* NULL: jobs run at once */
  bool server;       /* CONFLICT when another process serves this directory */
  bool existing;     /* NOT_FOUND when there is no database yet */
};

int store_open(struct store **ret, const struct store_conf *conf, struct err *err);
/* Waits for the jobs in flight; done comes from the loop, once. Without a loop: at once, done may
 * be NULL. */
void store_close(struct store *store, void (*done)(void *data), void *data);

/* What lies in $XDG_STATE_HOME/regolith, or where it is without that, under this name; owned by the
 * caller. */
char *store_state_dir(const char *what);
char *store_default_dir(void); /* … of a store; owned by the caller */
const char *store_dir(const struct store *store);

/* For reading, on the caller's thread: sees what is committed. */
struct db *store_db(struct store *store);

struct store_job {
  /* On the database thread, within the transaction. A failure takes back what this job wrote and
   * nothing else. */
  int (*run)(struct store_job *job, struct db *db, struct err *err);
  /* From the loop, once, in the order of submission. err NULL: it is on the disk. */
  void (*on_done)(struct store_job *job, const struct err *err);
  void *data;
  /* With a loop: while the disk gives trouble the job is not answered but tried again, in its place
   * among the lasting ones. For what nobody waits for and must not be lost. */
  bool lasting;
  struct list node; /* private */
  struct err err;   /* private */
};

/* Zero-initialise, set run, on_done and data; keep it in place until on_done. */
void store_submit(struct store *store, struct store_job *job);
/* The end is near: lasting jobs are tried once more, and then are as others. */
void store_give_up(struct store *store);

/* At the end of each transaction, on the database thread, before its commit: for what jobs gather
 * in memory. begin comes before the first job. One owner per store. */
struct store_batch {
  void (*begin)(void *data);
  int (*end)(void *data, struct db *db, struct err *err);
  void *data;
};
void store_set_batch(struct store *store, const struct store_batch *batch);

/* Why writing failed last, while it does: NULL once something could be written. It is found out
 * without anybody asking. */
const struct err *store_trouble(const struct store *store);

#endif

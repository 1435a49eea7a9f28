/* The state directory: who may open it, and the thread that writes.
 *
 * Owns the directory's lock, two connections (one to read on the loop's thread, one that only the
 * database thread touches; without a loop they are the same), and the jobs between submission and
 * answer. Jobs of one turn of the loop wait in `turn` until its end; they and whatever else came
 * while the thread was busy are one transaction. What crosses threads is guarded by `mutex`: the
 * lists `waiting` and `finished`, `quit` and `outcome`. A job is on exactly one list at a time.
 *
 * A transaction that fails takes all of its jobs along, for the database is as it was before it; a
 * job that fails by itself is taken back alone, to its savepoint. Lasting jobs of a transaction
 * that failed are in the next one again, before whatever is newer. While writing fails the thread
 * tries by itself, so that a server that nobody asks anything learns that there is room again.
 *
 * turn → waiting → (thread, ↔ again) → finished → answered */
#include "db/store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/dirs.h"
#include "base/log.h"
#include "core/loop.h"
#include "db/db.h"
#include "db/schema.h"

#define THREAD_STACK_BYTES (512 * 1024)
#define AGAIN_S            1 /* between tries while writing fails */

struct store {
  char *dir, *path; /* owned; path: of the database */
  int lock_fd;      /* the server's lock, -1 = none */
  struct loop *loop;
  struct db *reader, *writer; /* owned; the same without a loop */
  struct store_batch batch;   /* functions NULL: none */
  struct list turn;           /* store_job.node: of this turn of the loop */
  struct defer turn_end;
  size_t in_flight; /* submitted, not answered */
  struct err trouble;

  pthread_mutex_t mutex;
  pthread_cond_t wake;
  struct list waiting, finished; /* store_job.node; guarded */
  bool quit, give_up;            /* guarded; give_up: lasting jobs are as others */
  struct err outcome;            /* of the last transaction; guarded */
  struct list again;             /* lasting jobs of transactions that failed; the thread's */

  pthread_t thread;
  uv_async_t ended;
  bool closing;
  void (*on_closed)(void *data);
  void *on_closed_data;
};

/* ---- the directory ---- */

char *store_state_dir(const char *what)
{
  const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  struct buf path = {0};
  if (state && *state == '/')
    buf_printf(&path, "%s/regolith/%s", state, what);
  else if (geteuid() == 0)
    buf_printf(&path, "/var/lib/regolith/%s", what);
  else
    buf_printf(&path, "%s/.local/state/regolith/%s", home && *home == '/' ? home : "", what);
  return buf_take(&path, NULL);
}

char *store_default_dir(void)
{
  return store_state_dir("serve");
}

static int make_dirs(const char *dir, struct err *err)
{
  dirs_make_parents(dir, 0755);
  if (mkdir(dir, 0700) < 0 && errno != EEXIST)
    return err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot make the state directory %s: %s",
                   dir, strerror(errno));
  return 0;
}

static int open_dir(const struct store *s, struct err *err)
{
  int fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) return fd;
  return err_set(err, ERR_NOT_FOUND, errno, "cannot open the state directory %s: %s", s->dir,
                 strerror(errno));
}

static int take_server_lock(struct store *s, int dir, struct err *err)
{
  s->lock_fd = openat(dir, "server.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (s->lock_fd < 0)
    return err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot write in the state directory %s: %s",
                   s->dir, strerror(errno));
  if (flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0) return 0;
  int rc =
      err_set(err, ERR_CONFLICT, EBUSY, "another regolith serves the state directory %s", s->dir);
  err_hint(err, "end it, or name another directory with --state");
  return rc;
}

static int check_there(const struct store *s, struct err *err)
{
  if (access(s->path, F_OK) == 0) return 0;
  int rc = err_set(err, ERR_NOT_FOUND, ENOENT, "there is no database in %s", s->dir);
  err_hint(err, "--state names the directory that `regolith serve --state` uses");
  return rc;
}

/* Tables are not changed under a server that knows the old ones. */
static int bring(struct store *s, int dir, struct err *err)
{
  bool old;
  int rc = schema_is_old(s->reader, &old, err);
  if (rc < 0 || !old || s->lock_fd >= 0) return rc < 0 ? rc : schema_bring(s->reader, s->path, err);
  rc = take_server_lock(s, dir, err);
  if (rc == -EBUSY) err_hint(err, "it is of an older version: end it, and serve with this one");
  if (rc == 0) rc = schema_bring(s->reader, s->path, err);
  if (s->lock_fd >= 0) close(s->lock_fd);
  s->lock_fd = -1;
  return rc;
}

/* The directory itself is locked meanwhile, so that two that start at once do not both make the
 * database. It holds money and hashes: nobody else's to read. */
static int open_database(struct store *s, int dir, struct err *err)
{
  mode_t mask = umask(0077);
  int rc = db_open(&s->reader, s->path, err);
  umask(mask);
  if (rc == 0) rc = bring(s, dir, err);
  if (rc == 0 && s->loop) rc = db_open(&s->writer, s->path, err);
  if (!s->loop) s->writer = s->reader;
  return rc;
}

static int open_all(struct store *s, const struct store_conf *conf, struct err *err)
{
  int rc = conf->existing ? check_there(s, err) : make_dirs(s->dir, err);
  if (rc < 0) return rc;
  cleanup_close int dir = open_dir(s, err);
  if (dir < 0) return dir;
  while (flock(dir, LOCK_EX) < 0 && errno == EINTR) {}
  if (conf->server) rc = take_server_lock(s, dir, err);
  return rc < 0 ? rc : open_database(s, dir, err);
}

static void store_free(struct store *s)
{
  if (s->writer != s->reader) db_close(s->writer);
  db_close(s->reader);
  if (s->lock_fd >= 0) close(s->lock_fd);
  free(s->dir);
  free(s->path);
  free(s);
}

/* ---- a transaction ---- */

/* False: the transaction is gone, and *err says why. */
static bool run_job(struct store *s, struct store_job *job, struct err *err)
{
  int rc = db_run(s->writer, err, "SAVEPOINT job", "");
  if (rc < 0) return false;
  rc = job->run(job, s->writer, &job->err);
  if (rc == 0 || db_in_transaction(s->writer)) {
    if (rc < 0) rc = db_run(s->writer, err, "ROLLBACK TO job", "");
    return rc == 0 && db_run(s->writer, err, "RELEASE job", "") == 0;
  }
  *err = job->err;
  return false;
}

/* Changes nothing, and needs room. */
static bool probe(struct store *s, struct err *err)
{
  return db_run(s->writer, err, "UPDATE meta SET value = value", "") == 0;
}

static void run_jobs(struct store *s, struct list *jobs, bool trouble, struct err *err)
{
  const struct store_batch *b = &s->batch;
  if (db_run(s->writer, err, "BEGIN IMMEDIATE", "") < 0) return;
  if (b->begin) b->begin(b->data);
  bool ok = !trouble || probe(s, err);
  LIST_FOREACH (it, jobs) {
    if (ok) ok = run_job(s, list_entry(it, struct store_job, node), err);
  }
  if (ok && b->end) ok = b->end(b->data, s->writer, err) == 0;
  if (ok) ok = db_run(s->writer, err, "COMMIT", "") == 0;
  if (!ok && db_in_transaction(s->writer)) db_run(s->writer, NULL, "ROLLBACK", "");
}

/* *err is how the transaction ended; each job has that too, or a failure of its own. */
static void transact(struct store *s, struct list *jobs, bool trouble, struct err *err)
{
  *err = (struct err){0};
  LIST_FOREACH (it, jobs) list_entry(it, struct store_job, node)->err = *err;
  run_jobs(s, jobs, trouble, err);
  if (err->kind == ERR_NONE) return;
  LIST_FOREACH (it, jobs) list_entry(it, struct store_job, node)->err = *err;
}

/* ---- the thread ---- */

static void move_all(struct list *from, struct list *to)
{
  while (!list_empty(from)) {
    struct list *node = from->next;
    list_remove(node);
    list_append(to, node);
  }
}

/* False: there is nothing more to do. mutex is held. */
static bool wait_for_work(struct store *s, bool trouble)
{
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += AGAIN_S;
  while (list_empty(&s->waiting) && !s->quit && !(s->give_up && !list_empty(&s->again))) {
    if (!trouble)
      pthread_cond_wait(&s->wake, &s->mutex);
    else if (pthread_cond_timedwait(&s->wake, &s->mutex, &until) == ETIMEDOUT)
      break;
  }
  return !s->quit;
}

static void keep_lasting(struct store *s, struct list *jobs)
{
  LIST_FOREACH_SAFE (it, jobs) {
    if (!list_entry(it, struct store_job, node)->lasting) continue;
    list_remove(it);
    list_append(&s->again, it);
  }
}

static void *thread_main(void *arg)
{
  struct store *s = arg;
  struct list batch;
  struct err err = {0};
  list_init(&batch);
  pthread_mutex_lock(&s->mutex);
  while (wait_for_work(s, err.kind != ERR_NONE)) {
    move_all(&s->again, &batch);
    move_all(&s->waiting, &batch);
    pthread_mutex_unlock(&s->mutex);
    transact(s, &batch, err.kind != ERR_NONE, &err);
    pthread_mutex_lock(&s->mutex);
    if (err.kind != ERR_NONE && !s->give_up) keep_lasting(s, &batch);
    move_all(&batch, &s->finished);
    s->outcome = err;
    uv_async_send(&s->ended);
  }
  pthread_mutex_unlock(&s->mutex);
  return NULL;
}

static void answer(struct store_job *job)
{
  struct err err = job->err;
  job->on_done(job, err.kind == ERR_NONE ? NULL : &err);
}

static void check_closed(struct store *s);

static void note_trouble(struct store *s, const struct err *outcome)
{
  if (outcome->kind != ERR_NONE && s->trouble.kind == ERR_NONE)
    log_error("the books cannot be written: %s", outcome->msg);
  if (outcome->kind == ERR_NONE && s->trouble.kind != ERR_NONE)
    log_warn("the books can be written again");
  s->trouble = *outcome;
}

static void on_ended(uv_async_t *async)
{
  struct store *s = async->data;
  struct list done;
  struct err outcome;
  list_init(&done);
  pthread_mutex_lock(&s->mutex);
  move_all(&s->finished, &done);
  outcome = s->outcome;
  pthread_mutex_unlock(&s->mutex);
  note_trouble(s, &outcome);
  while (!list_empty(&done)) {
    struct store_job *job = list_entry(done.next, struct store_job, node);
    list_remove(&job->node);
    s->in_flight--;
    answer(job);
  }
  if (s->in_flight == 0) uv_unref((uv_handle_t *)&s->ended);
  check_closed(s);
}

static void on_turn_end(struct defer *d)
{
  struct store *s = d->data;
  pthread_mutex_lock(&s->mutex);
  move_all(&s->turn, &s->waiting);
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&s->mutex);
}

void store_submit(struct store *s, struct store_job *job)
{
  job->err = (struct err){0};
  list_init(&job->node);
  if (!s->loop) {
    struct list alone;
    struct err err;
    list_init(&alone);
    list_append(&alone, &job->node);
    transact(s, &alone, false, &err);
    list_remove(&job->node);
    answer(job);
    return;
  }
  list_append(&s->turn, &job->node);
  if (s->in_flight++ == 0) uv_ref((uv_handle_t *)&s->ended);
  loop_defer(s->loop, &s->turn_end);
}

/* ---- opening and closing ---- */

static int spawn(struct store *s)
{
  pthread_attr_t attr;
  sigset_t all, before;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int rc = pthread_create(&s->thread, &attr, thread_main, s);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  return rc;
}

static void on_unused(uv_handle_t *handle)
{
  store_free(handle->data);
}

/* Takes s over when it fails. */
static int start_thread(struct store *s, struct err *err)
{
  int rc = uv_async_init(loop_uv(s->loop), &s->ended, on_ended);
  if (rc < 0) {
    store_free(s);
    return err_set(err, ERR_INTERNAL, -rc, "cannot start the database thread");
  }
  s->ended.data = s;
  uv_unref((uv_handle_t *)&s->ended);
  pthread_condattr_t attr;
  pthread_mutex_init(&s->mutex, NULL);
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&s->wake, &attr);
  pthread_condattr_destroy(&attr);
  rc = spawn(s);
  if (rc == 0) return 0;
  uv_close((uv_handle_t *)&s->ended, on_unused);
  return err_set(err, ERR_CAPACITY, rc, "cannot start the database thread");
}

int store_open(struct store **ret, const struct store_conf *conf, struct err *err)
{
  struct store *s = xcalloc(1, sizeof *s);
  s->dir = conf->dir ? xstrdup(conf->dir) : store_default_dir();
  s->lock_fd = -1;
  s->loop = conf->loop;
  struct buf path = {0};
  buf_printf(&path, "%s/regolith.db", s->dir);
  s->path = buf_take(&path, NULL);
  list_init(&s->turn);
  list_init(&s->waiting);
  list_init(&s->finished);
  list_init(&s->again);
  s->turn_end = (struct defer){.cb = on_turn_end, .data = s};
  int rc = open_all(s, conf, err);
  if (rc < 0) {
    store_free(s);
    return rc;
  }
  rc = s->loop ? start_thread(s, err) : 0;
  if (rc == 0) *ret = s;
  return rc;
}

static void on_async_closed(uv_handle_t *handle)
{
  struct store *s = handle->data;
  void (*done)(void *) = s->on_closed;
  void *data = s->on_closed_data;
  pthread_mutex_destroy(&s->mutex);
  pthread_cond_destroy(&s->wake);
  store_free(s);
  if (done) done(data);
}

static void check_closed(struct store *s)
{
  if (!s->closing || s->in_flight > 0) return;
  pthread_mutex_lock(&s->mutex);
  s->quit = true;
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&s->mutex);
  pthread_join(s->thread, NULL);
  loop_defer_cancel(s->loop, &s->turn_end);
  uv_close((uv_handle_t *)&s->ended, on_async_closed);
}

void store_give_up(struct store *s)
{
  if (!s->loop) return;
  pthread_mutex_lock(&s->mutex);
  s->give_up = true;
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&s->mutex);
}

void store_close(struct store *s, void (*done)(void *data), void *data)
{
  if (!s->loop) {
    store_free(s);
    if (done) done(data);
    return;
  }
  store_give_up(s);
  s->closing = true;
  s->on_closed = done;
  s->on_closed_data = data;
  check_closed(s);
}

const char *store_dir(const struct store *s)
{
  return s->dir;
}

struct db *store_db(struct store *s)
{
  return s->reader;
}

void store_set_batch(struct store *s, const struct store_batch *batch)
{
  s->batch = *batch;
}

const struct err *store_trouble(const struct store *s)
{
  return s->trouble.kind == ERR_NONE ? NULL : &s->trouble;
}

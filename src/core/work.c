/* Thread jobs: one thread per job, one completion on the loop.
 *
 * Owns a pthread and a uv_async_t per running job. The thread starts with every signal blocked, so
 * that the timer that preempts scripts and the signals of the program reach the loop's thread only.
 * The async handle keeps the loop alive while the job runs.
 *
 * idle → running → joined → closing → done (on_done) */
#include "core/work.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <uv.h>

#include "base/buf.h"
#include "core/loop.h"

struct work_thread {
  uv_async_t ended; /* first: freed through it */
  pthread_t id;
  struct work *work; /* the owner's */
};

#define WORK_STACK_BYTES (1024 * 1024)

static void *thread_main(void *arg)
{
  struct work_thread *t = arg;
  t->work->run(t->work);
  uv_async_send(&t->ended);
  return NULL;
}

static void on_closed(uv_handle_t *handle)
{
  struct work_thread *t = (struct work_thread *)handle;
  struct work *work = t->work;
  free(t);
  work->thread = NULL;
  work->on_done(work);
}

static void on_ended(uv_async_t *async)
{
  struct work_thread *t = (struct work_thread *)async;
  pthread_join(t->id, NULL);
  uv_close((uv_handle_t *)&t->ended, on_closed);
}

static void on_unused(uv_handle_t *handle)
{
  free(handle);
}

static int spawn(struct work_thread *t)
{
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, WORK_STACK_BYTES);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int rc = pthread_create(&t->id, &attr, thread_main, t);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  return rc;
}

int work_start(struct loop *loop, struct work *work, struct err *err)
{
  struct work_thread *t = xcalloc(1, sizeof *t);
  t->work = work;
  int rc = uv_async_init(loop_uv(loop), &t->ended, on_ended);
  if (rc < 0) {
    free(t);
    return err_set(err, ERR_INTERNAL, -rc, "cannot start a job: %s", uv_strerror(rc));
  }
  rc = spawn(t);
  if (rc > 0) {
    uv_close((uv_handle_t *)&t->ended, on_unused);
    return err_set(err, ERR_CAPACITY, rc, "cannot start a thread");
  }
  work->thread = t;
  return 0;
}

/* One layer on its way from a registry into the store.
 *
 * The loop writes what arrives into a pipe, the thread unpacks what it reads from it: the kernel is
 * the queue. When the pipe is full the transfer pauses, so memory is bounded by the pipe and one
 * receive buffer. Owns the fetch, the thread, both ends of the pipe and the stage. What came counts
 * only when both digests and the size are what manifest and configuration say; then the stage is
 * committed. A mirror that sends something else is left for the next place, from the start.
 *
 * idle → fetching + unpacking → (fetched) unpacking → checked → committed → done */
#include "image/layer_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#include <uv.h>

#include "image/ids.h"
#include "image/manifest.h"

#define PIPE_BYTES (1024 * 1024)
#define READ_BYTES (256 * 1024)

struct layer_poll {
  uv_poll_t uv; /* first: freed through it */
  struct layer_job *job;
};

static void end_if_over(struct layer_job *job);

static void on_poll_closed(uv_handle_t *handle)
{
  free(handle);
}

static void stop_poll(struct layer_job *job)
{
  if (!job->poll) return;
  uv_poll_stop(&job->poll->uv);
  uv_close((uv_handle_t *)&job->poll->uv, on_poll_closed);
  job->poll = NULL;
}

static void close_pipe(struct layer_job *job)
{
  stop_poll(job);
  if (job->pipe_in >= 0) close(job->pipe_in);
  job->pipe_in = -1;
}

/* The thread is gone: it has failed, and says why when it is joined. */
static void reader_gone(struct layer_job *job)
{
  struct err err = {0};
  err_set(&err, ERR_CANCELLED, EPIPE, "unpacking has failed");
  job->rest.len = 0;
  close_pipe(job);
  if (job->fetching) fetch_abort(&job->fetch, &err);
}

/* Writes what is left over; true when nothing is. */
static bool flush_rest(struct layer_job *job)
{
  while (job->rest.len > 0) {
    ssize_t n = write(job->pipe_in, job->rest.data, job->rest.len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return false;
    if (n < 0) {
      reader_gone(job);
      return false;
    }
    buf_consume(&job->rest, (size_t)n);
  }
  return true;
}

static void on_room(uv_poll_t *uv, int status, int events)
{
  (void)status, (void)events;
  struct layer_job *job = ((struct layer_poll *)uv)->job;
  if (!flush_rest(job)) return;
  stop_poll(job);
  if (job->fetching)
    fetch_resume(&job->fetch);
  else
    close_pipe(job);
}

static void wait_for_room(struct layer_job *job)
{
  if (job->poll) return;
  job->poll = xcalloc(1, sizeof *job->poll);
  job->poll->job = job;
  uv_poll_init(loop_uv(job->loop), &job->poll->uv, job->pipe_in);
  uv_poll_start(&job->poll->uv, UV_WRITABLE, on_room);
}

static bool on_fetch_data(struct fetch *f, const void *data, size_t len)
{
  struct layer_job *job = f->data;
  if (job->rest.len > 0) return false;
  if (job->pipe_in < 0) return true; /* being aborted */
  buf_append(&job->rest, data, len);
  job->fetched += len;
  if (!flush_rest(job) && job->pipe_in >= 0) wait_for_room(job);
  if (job->on_bytes) job->on_bytes(job);
  return true;
}

static void on_fetch_done(struct fetch *f, const struct err *err)
{
  struct layer_job *job = f->data;
  job->fetching = false;
  if (err) {
    job->fetch_err = *err;
    job->rest.len = 0;
  }
  if (job->pipe_in >= 0 && job->rest.len == 0) close_pipe(job);
  end_if_over(job);
}

/* --- the thread --- */

static ssize_t read_pipe(void *source, const void **ret, struct err *err)
{
  struct layer_job *job = source;
  ssize_t n;
  do n = read(job->pipe_out, job->read_buf, READ_BYTES);
  while (n < 0 && errno == EINTR);
  if (n < 0) return err_set(err, ERR_INTERNAL, errno, "cannot read the layer");
  *ret = job->read_buf;
  return n;
}

static void unpack_on_thread(struct work *work)
{
  struct layer_job *job = work->data;
  struct unpack_conf conf = {.read = read_pipe,
                             .source = job,
                             .tree_fd = job->stage.tree_fd,
                             .list_fd = job->stage.list_fd,
                             .user_xattrs = image_store_user_xattrs(job->store),
                             .chown = image_ids_many(),
                             .limits = {job->max_bytes, UNPACK_MAX_ENTRIES}};
  image_unpack(&conf, &job->result, &job->work_err);
  /* the writer learns of a failure by EPIPE */
  close(job->pipe_out);
  job->pipe_out = -1;
}

static void on_work_done(struct work *work)
{
  struct layer_job *job = work->data;
  job->working = false;
  if (job->fetching && job->work_err.kind != ERR_NONE) reader_gone(job);
  end_if_over(job);
}

/* --- the end --- */

static int check(const struct layer_job *job, struct err *err)
{
  if (strcmp(job->result.blob, job->desc->digest) != 0 ||
      job->result.blob_bytes != (uint64_t)job->desc->size)
    return err_set(err, ERR_DENIED, EBADMSG,
                   "layer %s: what arrived has another digest (%s, %llu bytes)", job->desc->digest,
                   job->result.blob, (unsigned long long)job->result.blob_bytes);
  if (strcmp(job->result.diff_id, job->diff_id) != 0)
    return err_set(err, ERR_DENIED, EBADMSG,
                   "layer %s: its content is %s, the image's configuration says %s",
                   job->desc->digest, job->result.diff_id, job->diff_id);
  return 0;
}

static void release(struct layer_job *job)
{
  close_pipe(job);
  if (job->pipe_out >= 0) close(job->pipe_out);
  job->pipe_out = -1;
  buf_free(&job->rest);
  free(job->read_buf);
  job->read_buf = NULL;
  image_stage_drop(job->store, &job->stage);
}

/* Whether the same layer may be had elsewhere: what came was whole, but wrong. */
static bool start_elsewhere(struct layer_job *job)
{
  if (!fetch_has_next(job->registry, &job->fetch)) return false;
  size_t endpoint = job->fetch.endpoint + 1;
  struct err err;
  release(job);
  job->fetch.endpoint = endpoint;
  return layer_start(job, &err) == 0;
}

static void end_if_over(struct layer_job *job)
{
  if (job->fetching || job->working) return;
  struct err err = {0};
  bool wrong = false;
  if (job->fetch_err.kind != ERR_NONE && job->fetch_err.kind != ERR_CANCELLED)
    err = job->fetch_err;
  else if (job->work_err.kind != ERR_NONE)
    err = job->work_err, wrong = job->work_err.kind == ERR_INVALID_ARGUMENT;
  else if (job->fetch_err.kind != ERR_NONE)
    err = job->fetch_err;
  else if (check(job, &err) < 0)
    wrong = true;
  if (wrong && start_elsewhere(job)) return;
  if (err.kind == ERR_NONE)
    image_stage_commit(job->store, &job->stage, job->diff_id, job->result.bytes,
                       job->result.entries, &err);
  release(job);
  job->on_done(job, err.kind == ERR_NONE ? NULL : &err);
}

static int make_pipe(struct layer_job *job, struct err *err)
{
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) return err_set(err, ERR_CAPACITY, errno, "cannot make a pipe");
  job->pipe_out = fds[0];
  job->pipe_in = fds[1];
  fcntl(fds[1], F_SETFL, O_NONBLOCK);
  fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES); /* smaller is slower, no more */
  return 0;
}

int layer_start(struct layer_job *job, struct err *err)
{
  size_t endpoint = job->fetch.endpoint;
  job->pipe_in = job->pipe_out = -1;
  job->fetched = 0;
  job->fetch_err = job->work_err = (struct err){0};
  job->rest = (struct buf){0};
  job->read_buf = xmalloc(READ_BYTES);
  job->fetch = (struct fetch){.kind = "blobs",
                              .what = job->desc->digest,
                              .size = job->desc->size,
                              .on_data = on_fetch_data,
                              .on_done = on_fetch_done,
                              .data = job,
                              .endpoint = endpoint};
  job->work = (struct work){.run = unpack_on_thread, .on_done = on_work_done, .data = job};
  int rc = image_stage_new(job->store, &job->stage, err);
  if (rc == 0) rc = make_pipe(job, err);
  if (rc == 0) rc = work_start(job->loop, &job->work, err);
  if (rc < 0) {
    release(job);
    return rc;
  }
  job->working = true;
  fetch_start(job->registry, &job->fetch, err);
  job->fetching = true;
  return 0;
}

void layer_cancel(struct layer_job *job, const struct err *err)
{
  if (job->fetching) fetch_abort(&job->fetch, err);
}

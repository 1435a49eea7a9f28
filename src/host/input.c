/* Standard input for scripts.
 *
 * Owns a poll handle on the descriptor while an op waits, and nothing between ops: what a script
 * does not ask for stays in the pipe, for whoever reads it next. A regular file cannot be polled
 * and is read at once. The descriptor stays blocking, because others share it; it is only read when
 * it is ready. */
#include "host/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/val.h"
#include "core/loop.h"
#include "core/op.h"

enum { MAX_READ = 64 << 10 };

struct input {
  struct loop *loop;
  int fd;          /* the caller's */
  struct op *op;   /* waits for bytes, or NULL */
  uv_poll_t *poll; /* owned; made when first needed */
  bool no_poll;    /* a regular file */
};

static void answer(struct input *in)
{
  struct op *op = in->op;
  int64_t max = val_get_int(&op->args, "max", MAX_READ);
  if (max < 1 || max > MAX_READ) max = MAX_READ;
  char *bytes = xmalloc((size_t)max + 1);
  ssize_t n = read(in->fd, bytes, (size_t)max);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    free(bytes);
    return;
  }
  in->op = NULL;
  if (in->poll) uv_poll_stop(in->poll);
  if (n <= 0) free(bytes);
  op->result = val_map();
  struct err err = {0};
  if (n < 0) err_set(&err, ERR_INTERNAL, errno, "cannot read standard input: %s", strerror(errno));
  if (n > 0) {
    bytes[n] = '\0';
    val_add(&op->result, "data", val_take_bytes(bytes, (size_t)n));
  }
  op_finish(op, n < 0 ? &err : NULL);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
  struct input *in = poll->data;
  (void)status, (void)events;
  if (in->op) answer(in);
}

static void open_poll(struct input *in)
{
  in->poll = xcalloc(1, sizeof *in->poll);
  int flags = fcntl(in->fd, F_GETFL);
  in->no_poll = uv_poll_init(loop_uv(in->loop), in->poll, in->fd) < 0;
  if (flags >= 0)
    fcntl(in->fd, F_SETFL, flags); /* libuv made it non-blocking, for all who share it */
  in->poll->data = in;
  if (!in->no_poll) return;
  free(in->poll);
  in->poll = NULL;
}

static int start_read(struct op *op, void *ctx, struct err *err)
{
  struct input *in = ctx;
  if (in->op)
    return err_set(err, ERR_CONFLICT, EBUSY, "standard input is being read by another task");
  if (!in->poll && !in->no_poll) open_poll(in);
  in->op = op;
  if (in->no_poll)
    answer(in);
  else
    uv_poll_start(in->poll, UV_READABLE, on_poll);
  return 0;
}

static void cancel_read(struct op *op, void *ctx)
{
  struct input *in = ctx;
  if (in->op != op) return;
  in->op = NULL;
  if (in->poll) uv_poll_stop(in->poll);
  struct err err = {0};
  err_set(&err, op->cancel_why, 0, "reading standard input was cancelled");
  op_finish(op, &err);
}

static const struct op_handler handler = {
    .name = "stdin.read", .start = start_read, .cancel = cancel_read};

struct input *input_new(struct loop *loop, struct ops *ops, int fd)
{
  struct input *in = xcalloc(1, sizeof *in);
  *in = (struct input){.loop = loop, .fd = fd};
  ops_register(ops, &handler, in);
  return in;
}

static void on_closed(uv_handle_t *handle)
{
  free(handle);
}

void input_free(struct input *in)
{
  if (!in) return;
  if (in->poll) uv_close((uv_handle_t *)in->poll, on_closed);
  free(in);
}

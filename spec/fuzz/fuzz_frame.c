/* libFuzzer harness for what a worker process that has broken out of Lua says to its host: any
 * bytes, through the real channel, the real frames and the real dispatch to operations. Whatever it
 * says, the script ends once, nothing of it is left in flight, and nothing is read or kept that
 * should not be (the sanitizers see to that).
 *
 * The first byte says how the rest is meant. Even: the stream itself, lengths and all. Odd: frames,
 * a byte of length before each, which get their headers here, so that the fuzzer need not find out
 * how to write one; bit 1 sends every frame twice (a replay), bit 2 leaves the last one cut.
 *
 *   make fuzz FUZZ_SECONDS=60 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/val.h"
#include "core/loop.h"
#include "core/op.h"
#include "host/nursery.h"
#include "host/runner.h"
#include "host/worker.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* ---- the nursery: this harness is the process ---- */

static struct loop *loop;
static struct ops *ops;
static struct nursery_child *child;
static int peer = -1;
static struct defer child_ended;

static void on_child_ended(struct defer *d)
{
  (void)d;
  struct nursery_exit how = {.cpu_us = 1000};
  struct nursery_child *gone = child;
  child = NULL;
  close(peer);
  peer = -1;
  gone->on_exit(gone, &how);
}

int nursery_spawn(struct nursery *n, struct nursery_child *c, int fd, const char *name,
                  const struct nursery_limits *limits, struct err *err)
{
  (void)n, (void)name, (void)limits, (void)err;
  child = c;
  peer = fd;
  return 0;
}

size_t nursery_population(const struct nursery *nursery)
{
  (void)nursery;
  return 1;
}

void nursery_kill(struct nursery_child *c)
{
  if (child == c) loop_defer(loop, &child_ended);
}

/* ---- operations of every kind ---- */

static int echo_start(struct op *op, void *ctx, struct err *err)
{
  (void)ctx;
  if (val_get_bool(&op->args, "fail", false)) return err_arg(err, "fail", "asked to");
  op->result = val_copy(&op->args);
  op_finish(op, NULL);
  return 0;
}

static int hang_start(struct op *op, void *ctx, struct err *err)
{
  (void)op, (void)ctx, (void)err;
  return 0;
}

static void hang_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct err e = {0};
  err_set(&e, op->cancel_why, 0, "cancelled");
  op_finish(op, &e);
}

/* Gives back what it is given; its end is the end. */
static void hang_input(struct op *op, void *ctx, const void *data, size_t len)
{
  (void)ctx;
  if (!data) {
    op_finish(op, NULL);
    return;
  }
  op_input_full(op, len % 2 == 1);
  op_chunk(op, len % 3 ? OP_STDOUT : OP_STDERR, data, len);
}

static void hang_flow(struct op *op, void *ctx, bool paused)
{
  (void)op, (void)ctx, (void)paused;
}

static const struct op_handler echo = {.name = "e", .start = echo_start};
static const struct op_handler hang = {.name = "h",
                                       .start = hang_start,
                                       .cancel = hang_cancel,
                                       .input = hang_input,
                                       .flow = hang_flow};

/* ---- the script ---- */

static unsigned dones;
static volatile size_t seen; /* reads every byte that a hook is given */

static void look_at(const char *text, size_t len)
{
  for (size_t i = 0; i < len; i++) seen += (unsigned char)text[i];
}

static void on_output(void *data, const char *text, size_t len)
{
  (void)data;
  look_at(text, len);
}

static void on_log(void *data, enum log_level level, const char *text, size_t len)
{
  (void)data, (void)level;
  look_at(text, len);
}

static void on_progress(void *data, double done, double total, const char *text)
{
  (void)data, (void)done, (void)total;
  look_at(text, strlen(text));
}

static void on_task(void *data, uint64_t task, uint64_t parent, const char *name,
                    const char *outcome)
{
  (void)data, (void)task, (void)parent;
  look_at(name, strlen(name));
  if (outcome) look_at(outcome, strlen(outcome));
}

static void on_done(void *data, const struct script_result *result)
{
  (void)data;
  if (result->end < SCRIPT_OK || result->end > SCRIPT_LIMIT) abort();
  look_at(result->err.msg, strlen(result->err.msg));
  if (result->traceback) look_at(result->traceback, strlen(result->traceback));
  dones++;
  loop_stop(loop);
}

static const struct script_hooks hooks = {.on_output = on_output,
                                          .on_log = on_log,
                                          .on_progress = on_progress,
                                          .on_task = on_task,
                                          .on_done = on_done};

/* ---- one run ---- */

static void add_frame(struct buf *out, const uint8_t *bytes, size_t claimed, size_t len)
{
  char header[4] = {(char)claimed, 0, 0, 0};
  buf_append(out, header, sizeof header);
  buf_append(out, bytes, len);
}

static void make_stream(struct buf *out, const uint8_t *data, size_t len)
{
  unsigned how = *data++;
  len--;
  if (how % 2 == 0) {
    buf_append(out, data, len);
    return;
  }
  while (len > 0) {
    size_t claimed = *data++;
    len--;
    size_t n = claimed < len ? claimed : len;
    size_t say = n == len && !(how & 4) ? n : claimed;
    for (int i = 0; i < (how & 2 ? 2 : 1); i++) add_frame(out, data, say, n);
    data += n;
    len -= n;
  }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
  (void)argc, (void)argv;
  if (loop_new(&loop, NULL) < 0) abort();
  ops = ops_new(loop);
  ops_register(ops, &echo, NULL);
  ops_register(ops, &hang, NULL);
  child_ended = (struct defer){.cb = on_child_ended};
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
  if (len == 0 || len > 32768) return 0; /* what a socket takes at once, twice over */
  struct script_conf conf = {
      .name = "fuzz", .source = "", .loop = loop, .ops = ops, .owner = 7, .hooks = &hooks};
  struct runner_limits limits = {.max_in_flight = 8};
  struct worker *w;
  struct buf stream = {0};
  struct err err = {0};
  if (worker_new(&w, NULL, &conf, &limits, &err) < 0) abort();
  worker_start(w);
  make_stream(&stream, data, len);
  if (write(peer, stream.data, stream.len) != (ssize_t)stream.len) abort();
  shutdown(peer, SHUT_WR);
  dones = 0;
  loop_run(loop);
  if (dones != 1 || child || ops_in_flight(ops) != 0) abort();
  worker_free(w);
  buf_free(&stream);
  return 0;
}

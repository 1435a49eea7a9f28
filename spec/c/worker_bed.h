#ifndef REGOLITH_SPEC_WORKER_BED_H
#define REGOLITH_SPEC_WORKER_BED_H

/* What the worker tests share: a loop, a nursery, two ops, and one script run at a time. */

#include "test.h"

#include <sys/types.h>
#include <unistd.h>

#include "base/buf.h"
#include "core/loop.h"
#include "core/op.h"
#include "host/nursery.h"
#include "host/runner.h"
#include "host/worker.h"
#include "script/script.h"

static struct loop *bed_loop;
static struct ops *bed_ops;
static struct nursery *bed_nursery;

/* The nursery is forked before main, as the program does before it reads anything. */
__attribute__((constructor)) static void bed_prefork(void)
{
  nursery_prefork(NULL);
}

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

static size_t bed_cancels;
static void hang_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  bed_cancels++;
  struct err e = {0};
  err_set(&e, op->cancel_why, 0, "cancelled");
  op_finish(op, &e);
}

static const struct op_handler echo = {.name = "test.echo", .start = echo_start};
static const struct op_handler hang = {
    .name = "test.hang", .start = hang_start, .cancel = hang_cancel};

struct bed_run {
  struct worker *worker;
  struct buf output;
  enum script_end end;
  char message[512], traceback[1024];
  bool done;
};

static void bed_on_output(void *data, const char *text, size_t len)
{
  struct bed_run *r = data;
  if (r->output.len < 1 << 20) buf_append(&r->output, text, len);
}

static void bed_on_done(void *data, const struct script_result *result)
{
  struct bed_run *r = data;
  r->done = true;
  r->end = result->end;
  snprintf(r->message, sizeof r->message, "%s", result->err.msg);
  snprintf(r->traceback, sizeof r->traceback, "%s", result->traceback ? result->traceback : "");
  worker_free(r->worker);
  loop_stop(bed_loop);
}

static const struct script_hooks bed_hooks = {.on_output = bed_on_output, .on_done = bed_on_done};

static void bed_open(void)
{
  if (bed_loop) return;
  CHECK(loop_new(&bed_loop, NULL) == 0);
  bed_ops = ops_new(bed_loop);
  ops_register(bed_ops, &echo, NULL);
  ops_register(bed_ops, &hang, NULL);
  CHECK(nursery_open(&bed_nursery, bed_loop, NULL) == 0);
}

static void bed_start(struct bed_run *r, const char *name, const char *source,
                      const struct runner_limits *limits)
{
  static const struct runner_limits none;
  bed_open();
  *r = (struct bed_run){0};
  struct script_conf conf = {.name = name,
                             .source = source,
                             .source_len = strlen(source),
                             .mem_bytes = 16u << 20,
                             .grace_ms = 300,
                             .loop = bed_loop,
                             .ops = bed_ops,
                             .owner = 7,
                             .hooks = &bed_hooks,
                             .hooks_data = r};
  struct err e = {0};
  if (worker_new(&r->worker, bed_nursery, &conf, limits ? limits : &none, &e) < 0) {
    fprintf(stderr, "worker_new: %s\n", e.msg);
    exit(1);
  }
  worker_start(r->worker);
}

static void bed_finish(struct bed_run *r)
{
  while (!r->done) loop_run(bed_loop);
}

static void bed_run(struct bed_run *r, const char *source)
{
  bed_start(r, "test", source, NULL);
  bed_finish(r);
}

__attribute__((unused)) static void bed_check_output(struct bed_run *r, const char *want)
{
  CHECK_STR(r->output.data ? r->output.data : "", want);
  buf_free(&r->output);
}

static void bed_closed(void *data)
{
  (void)data;
  loop_stop(bed_loop);
}

/* The last test of a file: nothing may be in flight, no child left. */
static void bed_close(void)
{
  CHECK_INT(ops_in_flight(bed_ops), 0);
  nursery_close(bed_nursery, bed_closed, NULL);
  loop_run(bed_loop);
  ops_free(bed_ops);
  loop_free(bed_loop);
}

#endif

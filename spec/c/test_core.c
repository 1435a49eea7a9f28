/* core: timers, deferred calls, the op router.
 * valgrind: yes */
#include "test.h"

#include "core/loop.h"
#include "core/op.h"

static struct loop *loop;
static char trace[256];

static void note(const char *s)
{
  strncat(trace, s, sizeof trace - strlen(trace) - 1);
}

static void on_timer(struct timer *t)
{
  note(t->data);
}

static void timers_fire_in_order(void)
{
  loop_new(&loop, NULL);
  trace[0] = '\0';
  static char names[] = "a\0b\0c\0d";
  struct timer a = {.cb = on_timer, .data = names + 0}, b = {.cb = on_timer, .data = names + 2},
               c = {.cb = on_timer, .data = names + 4}, d = {.cb = on_timer, .data = names + 6};
  timer_start(loop, &a, 450);
  timer_start(loop, &b, 150);
  timer_start(loop, &c, 300);
  timer_start(loop, &d, 5);
  timer_stop(loop, &d);
  loop_run(loop);
  CHECK_STR(trace, "bca");
  CHECK(!timer_running(&a));
  loop_free(loop);
}

static int start_now(struct op *op, void *ctx, struct err *err)
{
  (void)ctx;
  if (val_get_bool(&op->args, "fail", false)) return err_arg(err, "fail", "asked to");
  op->result = val_str("done");
  op_finish(op, NULL);
  return 0;
}

static int start_never(struct op *op, void *ctx, struct err *err)
{
  (void)op, (void)ctx, (void)err;
  return 0;
}

static void cancel_never(struct op *op, void *ctx)
{
  (void)ctx;
  struct err e = {0};
  err_set(&e, op->cancel_why, 0, "cancelled");
  op_finish(op, &e);
}

static const struct op_handler now = {.name = "test.now", .start = start_now};
static const struct op_handler never = {
    .name = "test.never", .start = start_never, .cancel = cancel_never};

static void on_done(struct op *op, const struct err *err)
{
  note(err ? err_info(err->kind)->code : op->result.s.p);
  note(";");
  op_free(op);
}

static const struct op_client client = {.on_done = on_done};

static void ops_finish_once(void)
{
  loop_new(&loop, NULL);
  trace[0] = '\0';
  struct ops *ops = ops_new(loop);
  ops_register(ops, &now, NULL);
  ops_register(ops, &never, NULL);
  struct err e = {0};

  struct op *op = op_new("test.now");
  op->client = &client;
  CHECK_INT(op_submit(ops, op, &e), 0);
  CHECK_STR(trace, "");

  struct op *slow = op_new("test.never");
  slow->client = &client;
  slow->timeout_ms = 5;
  CHECK_INT(op_submit(ops, slow, &e), 0);

  struct op *killed = op_new("test.never");
  killed->client = &client;
  CHECK_INT(op_submit(ops, killed, &e), 0);
  op_cancel(killed, ERR_CANCELLED);
  op_cancel(killed, ERR_TIMEOUT);
  loop_run(loop);
  CHECK_STR(trace, "done;cancelled;timeout;");
  CHECK_INT(ops_in_flight(ops), 0);

  struct op *bad = op_new("test.now");
  bad->client = &client;
  bad->args = val_map();
  val_set(&bad->args, "fail", val_bool(true));
  CHECK(op_submit(ops, bad, &e) < 0);
  CHECK_STR(e.field, "fail");
  op_free(bad);

  struct op *unknown = op_new("test.unknown");
  unknown->client = &client;
  CHECK(op_submit(ops, unknown, &e) < 0);
  CHECK_INT(e.kind, ERR_UNSUPPORTED);
  op_free(unknown);
  ops_free(ops);
  loop_free(loop);
}

static void on_front_done(struct op *op, const struct err *err)
{
  note(err ? err->msg : op->result.s.p);
  op_free(op);
}

static const struct op_client front_client = {.on_done = on_front_done};

/* In front of test.now: refuses, holds back, or hands on with changed arguments. */
static struct op *held;

static int start_in_front(struct op *op, void *ctx, struct err *err)
{
  (void)ctx;
  if (val_get_bool(&op->args, "refuse", false)) return err_arg(err, "refuse", "refused in front");
  if (val_get_bool(&op->args, "break", false)) val_set(&op->args, "fail", val_bool(true));
  if (val_get_bool(&op->args, "later", false))
    held = op;
  else
    op_pass(op);
  return 0;
}

static void handlers_in_front(void)
{
  static const struct op_handler front = {.name = "test.now", .start = start_in_front};
  loop_new(&loop, NULL);
  struct ops *ops = ops_new(loop);
  ops_register(ops, &now, NULL);
  ops_interpose(ops, &front, NULL);
  ops_interpose(ops, &front, NULL); /* any number of them */
  static const char *const fields[] = {"pass", "break", "refuse", "later", "later"};
  static const char *const want[] = {"done", "asked to", "refused in front", "done",
                                     "test.now was cancelled before it started"};
  for (size_t i = 0; i < 5; i++) {
    struct err err = {0};
    struct op *op = op_new("test.now");
    op->client = &front_client;
    op->args = val_map();
    val_set(&op->args, fields[i], val_bool(true));
    trace[0] = '\0';
    int rc = op_submit(ops, op, &err);
    if (rc < 0) {
      note(err.msg);
      op_free(op);
    }
    if (i == 4) op_cancel(op, ERR_CANCELLED);
    if (i >= 3) {
      CHECK_STR(trace, ""); /* held by the first, and then by the second */
      op_pass(held);
      if (i == 3) op_pass(held);
    }
    loop_run(loop);
    CHECK_STR(trace, want[i]);
    CHECK_INT(ops_in_flight(ops), 0);
  }
  ops_free(ops);
  loop_free(loop);
}

/* An interposer that takes its time at the end, and may make a failure of it. */
static void on_end_behind(struct op *op, struct err *end, void *data)
{
  note("settling;");
  if (data) err_set(end, ERR_INTERNAL, 0, "not settled");
  held = op;
}

static int start_settled(struct op *op, void *ctx, struct err *err)
{
  (void)err;
  op_on_end(op, on_end_behind, ctx);
  op_pass(op);
  return 0;
}

static void on_front_ending(struct op *op, const struct err *err)
{
  note(err ? "failing;" : op->result.s.p);
  note(";");
}

static void ends_are_told_before(void)
{
  static const struct op_handler settled = {.name = "test.now", .start = start_settled};
  static const struct op_client early = {.on_ending = on_front_ending, .on_done = on_front_done};
  static const char *const want[] = {"settling;done;", "settling;failing;;"};
  for (size_t i = 0; i < 2; i++) {
    loop_new(&loop, NULL);
    struct ops *ops = ops_new(loop);
    struct op *op = op_new("test.now");
    ops_register(ops, &now, NULL);
    ops_interpose(ops, &settled, i ? &loop : NULL);
    op->client = &early;
    op->args = val_map();
    trace[0] = '\0';
    CHECK_INT(op_submit(ops, op, NULL), 0);
    loop_run(loop);
    CHECK_STR(trace, want[i]);
    op_end(held);
    loop_run(loop);
    CHECK_STR(trace + strlen(want[i]), i ? "not settled" : "done");
    ops_free(ops);
    loop_free(loop);
  }
}

const struct test_case test_cases[] = {{"timers_fire_in_order", timers_fire_in_order},
                                       {"ops_finish_once", ops_finish_once},
                                       {"handlers_in_front", handlers_in_front},
                                       {"ends_are_told_before", ends_are_told_before},
                                       {0}};

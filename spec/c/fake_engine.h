#ifndef REGOLITH_SPEC_FAKE_ENGINE_H
#define REGOLITH_SPEC_FAKE_ENGINE_H

/* An engine in memory that can delay, fail, and answer in any order. One per test program.
 *
 * Operations on files: "/N" ends with the errno N, a read of it printed "data" before; "/hang" ends
 * with its input, or never.
 *
 * Commands: { "exit", CODE, MS }, { "hang" }, { "print", BYTES, CODE }, { "signal", N }, { "oom" },
 * { "lost" }, { "badcwd" }. With fake.random everything takes a random time, fails now and then,
 * and completions that may come in any order do. */

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "core/loop.h"
#include "engine/engine.h"
#include "wire/file.h"
#include "wire/op.h"

struct fbox {
  struct list node;
  struct create_op *create;
  struct list execs;
  struct timer end; /* a random end by itself */
  enum box_end end_why;
  bool ended, has_ended;
  int failed_kills;
  struct probe_op *probe; /* in flight */
  struct timer probed;
  int probes;
};

struct fexec {
  struct list node; /* box.execs */
  struct exec_op *op;
  struct timer timer, begun;
  bool paused, finished;
  size_t print_left;
};

struct fwork { /* something to answer later */
  struct timer timer;
  struct create_op *create;
  struct kill_op *kill;
  bool succeed;
};

static struct fake {
  struct engine base;
  struct list boxes; /* fbox.node */
  unsigned create_ms, kill_ms, kill_exec_ms;
  bool fail_create, refuse_create, refuse_exec, ignore_cancel, kill_first, never_kill;
  int fail_kills; /* that many kills fail */
  size_t boxes_n, execs_n, kills, inputs, left_n;
  size_t flows_paused, flows_resumed;
  struct changes_op *changes; /* in flight */
  struct timer changed;
  int snapshots, dropped;
  int open_after; /* so many probes find nothing; negative: all */
  bool random, closed;
  unsigned end_chance; /* percent of boxes that end by themselves, in random runs */
} fake;

static struct loop *loop;
static unsigned seed; /* of everything random */

static unsigned rnd(unsigned n)
{
  seed = seed * 1103515245u + 12345u;
  return n ? (seed >> 16) % n : 0;
}

static unsigned delay(unsigned fixed)
{
  return fake.random ? rnd(6) : fixed;
}

static void fexec_finish(struct fexec *x, int end, int code)
{
  if (x->finished) return;
  x->finished = true;
  timer_stop(loop, &x->timer);
  timer_stop(loop, &x->begun);
  list_remove(&x->node);
  fake.execs_n--;
  x->op->ret_end = end;
  x->op->ret_code = code;
  x->op->ret_duration_us = 1500;
  x->op->ret_cpu_us = 1000;
  x->op->ret_max_rss_kib = 2000;
  x->op->engine_data = NULL;
  x->op->on_done(x->op, NULL);
  free(x);
}

static void on_box_timer(struct timer *t)
{
  struct fbox *b = t->data;
  if (b->ended) return;
  b->has_ended = true;
  b->create->on_end(b->create->data, b->end_why);
  /* The box is still there until it is killed; its commands finish now. */
  while (!list_empty(&b->execs))
    fexec_finish(list_entry(b->execs.next, struct fexec, node), EXEC_END_LOST, 0);
}

static void finish_create(struct timer *t)
{
  struct fwork *w = t->data;
  struct create_op *create = w->create;
  bool ok = w->succeed;
  create->engine_data = NULL;
  free(w);
  if (!ok) {
    struct err e = {0};
    err_set(&e, ERR_CAPACITY, 0, "no room in the fake engine");
    create->on_done(create, &e);
    return;
  }
  struct fbox *b = xcalloc(1, sizeof *b);
  b->create = create;
  b->end = (struct timer){.cb = on_box_timer, .data = b};
  list_init(&b->execs);
  list_append(&fake.boxes, &b->node);
  fake.boxes_n++;
  create->ret_box = (struct engine_box *)b;
  if (fake.random && rnd(100) < fake.end_chance) {
    b->end_why = rnd(2) ? BOX_END_OOM : BOX_END_LOST;
    timer_start(loop, &b->end, rnd(20));
  }
  create->on_done(create, NULL);
}

static int fake_create(struct engine *e, struct create_op *op, struct err *err)
{
  (void)e;
  if (fake.refuse_create) return err_set(err, ERR_UNSUPPORTED, 0, "the fake engine refuses");
  struct fwork *w = xcalloc(1, sizeof *w);
  *w = (struct fwork){.timer = {.cb = finish_create, .data = w},
                      .create = op,
                      .succeed = !fake.fail_create && !(fake.random && rnd(8) == 0)};
  op->engine_data = w;
  timer_start(loop, &w->timer, delay(fake.create_ms));
  return 0;
}

static void finish_probe(struct fbox *b, bool open)
{
  struct probe_op *op = b->probe;
  timer_stop(loop, &b->probed);
  b->probe = NULL;
  if (op) op->on_done(op, open);
}

static void on_probed_timer(struct timer *t)
{
  struct fbox *b = t->data;
  finish_probe(b, fake.open_after >= 0 && ++b->probes > fake.open_after);
}

static int fake_probe(struct engine *e, struct probe_op *op, struct err *err)
{
  (void)e;
  struct fbox *b = (struct fbox *)op->box;
  if (b->probe) abort(); /* one at a time */
  if (fake.random && rnd(8) == 0) return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "no probe now");
  b->probe = op;
  b->probed = (struct timer){.cb = on_probed_timer, .data = b};
  timer_start(loop, &b->probed, delay(1));
  return 0;
}

/* One at a time: tells two changes, or makes "sha256:1", "sha256:2" and so on. */
static void finish_changes(struct timer *t)
{
  struct changes_op *op = t->data;
  fake.changes = NULL;
  if (op->on_change) {
    op->on_change(op, "added", '-', "/a");
    op->on_change(op, "deleted", 'd', "/b");
  } else {
    snprintf(op->ret_image, sizeof op->ret_image, "sha256:%d", ++fake.snapshots);
  }
  op->on_done(op, NULL);
}

static int fake_changes(struct engine *e, struct changes_op *op, struct err *err)
{
  (void)e;
  if (fake.changes) return err_set(err, ERR_CAPACITY, 0, "one at a time");
  fake.changes = op;
  fake.changed = (struct timer){.cb = finish_changes, .data = op};
  timer_start(loop, &fake.changed, delay(5));
  return 0;
}

static void fake_changes_cancel(struct engine *e, struct changes_op *op)
{
  (void)e;
  struct err err = {0};
  timer_stop(loop, &fake.changed);
  fake.changes = NULL;
  err_set(&err, ERR_CANCELLED, 0, "cancelled");
  op->on_done(op, &err);
}

static void fake_image_drop(struct engine *e, const char *image)
{
  (void)e, (void)image;
  fake.dropped++;
}

static void on_begun(struct timer *t)
{
  struct fexec *x = t->data;
  x->op->on_started(x->op, 7);
}

static void on_file_timer(struct fexec *x)
{
  const struct file_args *f = x->op->file;
  if (f->kind == FILE_READ) x->op->on_chunk(x->op, EXEC_STDOUT, "data", 4);
  fexec_finish(x, EXEC_END_EXITED, atoi(f->path + 1));
}

static void on_exec_timer(struct timer *t)
{
  struct fexec *x = t->data;
  if (x->op->file) {
    on_file_timer(x);
    return;
  }
  const struct strv *argv = &x->op->args->argv;
  const char *what = argv->v[0];
  if (strcmp(what, "exit") == 0) {
    fexec_finish(x, EXEC_END_EXITED, atoi(argv->v[1]));
  } else if (strcmp(what, "signal") == 0) {
    fexec_finish(x, EXEC_END_SIGNAL, atoi(argv->v[1]));
  } else if (strcmp(what, "oom") == 0) {
    fexec_finish(x, EXEC_END_OOM, 9);
  } else if (strcmp(what, "lost") == 0) {
    fexec_finish(x, EXEC_END_LOST, 0);
  } else if (strcmp(what, "badcwd") == 0) {
    struct err e = {0};
    err_arg(&e, "cwd", "cwd /nope is not there");
    x->finished = true;
    timer_stop(loop, &x->begun);
    list_remove(&x->node);
    fake.execs_n--;
    x->op->engine_data = NULL;
    x->op->on_done(x->op, &e);
    free(x);
  } else if (strcmp(what, "print") == 0) {
    static const char text[101] =
        "0123456789abcdefghijABCDEFGHIJ!@#$%^&*()0123456789abcdefghijABCDEFGHIJ"
        "!@#$%^&*()0123456789abcdefghij";
    size_t n = x->print_left < 100 ? x->print_left : 100;
    if (x->paused || n == 0) n = 0;
    x->print_left -= n;
    timer_start(loop, &x->timer, 0);
    if (n > 0)
      x->op->on_chunk(x->op, rnd(2) ? EXEC_STDOUT : EXEC_STDERR, text, n);
    else if (x->print_left == 0)
      fexec_finish(x, EXEC_END_EXITED, argv->n > 2 ? atoi(argv->v[2]) : 0);
    else
      timer_stop(loop, &x->timer); /* paused: resumed by flow */
  }
}

static int fake_exec(struct engine *e, struct exec_op *op, struct err *err)
{
  (void)e;
  if (fake.refuse_exec) return err_set(err, ERR_EXEC_FAILED, 0, "the fake engine refuses");
  struct fbox *b = (struct fbox *)op->box;
  struct fexec *x = xcalloc(1, sizeof *x);
  *x = (struct fexec){.op = op, .timer = {.cb = on_exec_timer, .data = x}};
  if (op->file) {
    list_append(&b->execs, &x->node);
    fake.execs_n++;
    op->engine_data = x;
    if (strcmp(op->file->path, "/hang") != 0) timer_start(loop, &x->timer, delay(1));
    return 0;
  }
  const struct strv *argv = &op->args->argv;
  if (strcmp(argv->v[0], "print") == 0) x->print_left = (size_t)atoi(argv->v[1]);
  list_append(&b->execs, &x->node);
  fake.execs_n++;
  op->engine_data = x;
  unsigned ms = argv->n > 2 && strcmp(argv->v[0], "exit") == 0 ? (unsigned)atoi(argv->v[2]) : 1;
  x->begun = (struct timer){.cb = on_begun, .data = x};
  if (op->on_started && strcmp(argv->v[0], "badcwd") != 0) timer_start(loop, &x->begun, 0);
  if (b->has_ended) x->timer.cb = on_exec_timer, ms = 0;
  if (strcmp(argv->v[0], "hang") != 0) timer_start(loop, &x->timer, delay(ms));
  return 0;
}

static void kill_box(struct fbox *b, struct kill_op *op)
{
  b->ended = true;
  fake.left_n += op->leave;
  timer_stop(loop, &b->end);
  finish_probe(b, false);
  struct list execs;
  list_init(&execs);
  while (!list_empty(&b->execs)) {
    struct list *n = b->execs.next;
    list_remove(n);
    list_append(&execs, n);
  }
  list_remove(&b->node);
  fake.boxes_n--;
  free(b);
  bool first = fake.kill_first || (fake.random && rnd(2));
  if (first) op->on_done(op, NULL);
  while (!list_empty(&execs)) {
    struct fexec *x = list_entry(execs.next, struct fexec, node);
    bool lost = fake.random && rnd(3) == 0;
    fexec_finish(x, lost ? EXEC_END_LOST : EXEC_END_SIGNAL, lost ? 0 : 9);
  }
  if (!first) op->on_done(op, NULL);
}

/* In random runs: now and then, but never so often that the supervisor has to give up. */
static bool may_fail(const struct kill_op *op, unsigned one_in)
{
  if (!fake.random || op->create || rnd(one_in)) return false;
  return op->exec || ((struct fbox *)op->box)->failed_kills++ < 3;
}

static void finish_kill(struct timer *t)
{
  struct fwork *w = t->data;
  struct kill_op *op = w->kill;
  fake.kills++;
  free(w);
  if (fake.fail_kills > 0 || may_fail(op, 10)) {
    if (fake.fail_kills > 0) fake.fail_kills--;
    struct err e = {0};
    err_set(&e, ERR_ENGINE_UNAVAILABLE, 0, "the fake engine cannot kill now");
    op->on_done(op, &e);
  } else if (op->create) {
    struct fwork *c = op->create->engine_data;
    bool first = rnd(2);
    if (first) op->on_done(op, NULL);
    if (c && !fake.ignore_cancel && !(fake.random && rnd(3) == 0)) {
      struct create_op *create = op->create;
      timer_stop(loop, &c->timer);
      free(c);
      create->engine_data = NULL;
      struct err e = {0};
      err_set(&e, ERR_CANCELLED, 0, "cancelled");
      create->on_done(create, &e);
    }
    if (!first) op->on_done(op, NULL);
  } else if (op->exec) {
    struct fexec *x = op->exec->engine_data;
    if (op->signal) { /* no command of ours minds one, but SIGKILL */
      if (x && op->signal == 9) fexec_finish(x, EXEC_END_SIGNAL, 9);
      op->on_done(op, NULL);
      return;
    }
    bool first = fake.kill_first || (fake.random && rnd(2));
    if (first) op->on_done(op, NULL);
    if (x) fexec_finish(x, EXEC_END_SIGNAL, 9);
    if (!first) op->on_done(op, NULL);
  } else {
    kill_box((struct fbox *)op->box, op);
  }
}

static int fake_kill(struct engine *e, struct kill_op *op, struct err *err)
{
  (void)e;
  if (may_fail(op, 12))
    return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "the fake engine cannot kill now");
  struct fwork *w = xcalloc(1, sizeof *w);
  *w = (struct fwork){.timer = {.cb = finish_kill, .data = w}, .kill = op};
  if (fake.never_kill) {
    w->timer.cb = NULL;
    free(w);
    return 0;
  }
  timer_start(loop, &w->timer, delay(op->exec ? fake.kill_exec_ms : fake.kill_ms));
  return 0;
}

static void fake_input(struct engine *e, struct exec_op *op, const void *data, size_t len)
{
  (void)e, (void)op, (void)data;
  fake.inputs += len;
  /* The end of input ends the command. */
  if (len == 0 && op->engine_data) timer_start(loop, &((struct fexec *)op->engine_data)->timer, 0);
}

static void fake_flow(struct engine *e, struct exec_op *op, bool paused)
{
  (void)e;
  struct fexec *x = op->engine_data;
  if (!x) return;
  if (x->paused && !paused) timer_start(loop, &x->timer, 0);
  if (paused)
    fake.flows_paused++;
  else
    fake.flows_resumed++;
  x->paused = paused;
}

static void fake_close(struct engine *e, void (*done)(void *), void *data)
{
  (void)e;
  fake.closed = true;
  done(data);
}

static struct engine_ops fake_ops = {.name = "fake",
                                     .create = fake_create,
                                     .exec = fake_exec,
                                     .kill = fake_kill,
                                     .exec_input = fake_input,
                                     .exec_flow = fake_flow,
                                     .probe = fake_probe,
                                     .diff = fake_changes,
                                     .snapshot = fake_changes,
                                     .changes_cancel = fake_changes_cancel,
                                     .image_drop = fake_image_drop,
                                     .close = fake_close};

#endif

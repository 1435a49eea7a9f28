/* The part of doctor about other machines: each engine that the configuration or the environment
 * names is asked, all at once, whether it is there and knows us. Nothing is made, ended or paid. */
#include "cli/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/engines.h"
#include "core/loop.h"
#include "engine/engine.h"
#include "engine/local/probe.h"

enum { ASKED_MAX = 32 };

struct asked {
  struct probe_item *it;
  struct engine *engine; /* owned, until it is closed */
  struct check_op op;
  struct loop *loop;
  char name[32];
  uint64_t start_ms;
};

static void fail(const struct asked *a, const struct err *err)
{
  struct probe_item *it = a->it;
  it->state = PROBE_MISSING;
  snprintf(it->found, sizeof it->found, "%s: %.160s", a->name, err->msg);
  snprintf(it->lost, sizeof it->lost, "sandboxes of engine \"%s\"", a->name);
  snprintf(it->mend, sizeof it->mend, "%.250s", err->hint);
}

static void on_closed(void *data)
{
  (void)data;
}

static void let_go(struct asked *a)
{
  struct engine *e = take_ptr(&a->engine);
  e->ops->close(e, on_closed, NULL);
}

static void on_checked(struct check_op *op, const struct err *err)
{
  struct asked *a = op->data;
  if (err)
    fail(a, err);
  else
    snprintf(a->it->found, sizeof a->it->found, "%s answers within %llu ms, and knows the key",
             a->name, (unsigned long long)(loop_now_ms(a->loop) - a->start_ms));
  let_go(a);
}

static int ask(struct asked *a, const struct val *named, struct err *err)
{
  struct engine_choice choice;
  int rc = engines_choose(&choice, a->name, named, "engine", err);
  if (rc < 0) return rc;
  val_remove(&choice.options, "state"); /* nothing is ended by looking */
  struct engine_conf conf = {.name = a->name, .loop = a->loop, .options = &choice.options};
  rc = choice.type->open(&a->engine, &conf, err);
  engine_choice_done(&choice);
  if (rc < 0) return rc;
  a->start_ms = loop_now_ms(a->loop);
  a->op = (struct check_op){.on_done = on_checked, .data = a};
  rc = a->engine->ops->check(a->engine, &a->op, err);
  if (rc < 0) let_go(a);
  return rc;
}

static void ask_all(struct probe *p, struct asked *all, const struct val *names,
                    const struct val *named, struct loop *loop)
{
  for (size_t i = 0; i < names->list.n && i < ASKED_MAX; i++) {
    struct asked *a = &all[i];
    struct err err = {0};
    a->it = doctor_add(p, "engine elsewhere");
    a->loop = loop;
    snprintf(a->name, sizeof a->name, "%s", names->list.v[i].s.p);
    if (ask(a, named, &err) < 0) fail(a, &err);
  }
  loop_run(loop);
}

void doctor_engines(struct probe *p)
{
  struct val names, named;
  struct err err = {0};
  struct loop *loop;
  struct asked all[ASKED_MAX] = {0};
  int rc = engines_elsewhere(&names, &named, &err);
  if (rc < 0 || (names.list.n > 0 && (rc = loop_new(&loop, &err)) < 0)) {
    struct asked a = {.it = doctor_add(p, "engine elsewhere"), .name = "configuration"};
    fail(&a, &err);
  } else if (names.list.n > 0) {
    ask_all(p, all, &names, &named, loop);
    loop_free(loop);
  }
  val_free(&names);
  val_free(&named);
}

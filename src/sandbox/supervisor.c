/* The supervisor as a whole: engines, owners, events, shutdown.
 *
 * Owns every record of this folder. Owners are never looked up by pointer from outside, only by id.
 * An owner that ends takes its sandboxes with it, and is told once the last of them is dead; the
 * shutdown is the same for all owners, followed by the closing of the engines. What was freed
 * inside a callback of somebody else waits on the dying list for the next turn of the loop.
 *
 * open → closing (ends everything) → closed */
#include "sandbox/supervisor.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/suggest.h"
#include "core/op.h"
#include "sandbox/supervisor_internal.h"

#define RETAIN_MS (24ull * 3600 * 1000)

static struct supervisor *given_up; /* never freed */

/* ---- records that die ---- */

static void on_reap(struct defer *d)
{
  struct supervisor *sup = d->data;
  while (!list_empty(&sup->dying)) {
    struct dying *dead = list_entry(sup->dying.next, struct dying, node);
    list_remove(&dead->node);
    dead->free(dead);
  }
}

void supervisor_bury(struct supervisor *sup, struct dying *d)
{
  list_append(&sup->dying, &d->node);
  loop_defer(sup->loop, &sup->reap);
}

/* ---- engines ---- */

static struct engine_entry *find_engine(struct supervisor *sup, const char *name)
{
  for (size_t i = 0; i < sup->engines_n; i++)
    if (strcmp(sup->engines[i]->name, name) == 0) return sup->engines[i];
  return NULL;
}

struct engine_entry *engine_entry_find(struct supervisor *sup, const char *name, const char *field,
                                       struct err *err)
{
  struct engine_entry *found = find_engine(sup, name);
  if (found) return found;
  const char *names[16];
  char all[256] = "";
  for (size_t i = 0, o = 0; i < sup->engines_n; i++) {
    names[i] = sup->engines[i]->name;
    o += (size_t)snprintf(all + o, sizeof all - o, "%s\"%s\"", i ? ", " : "", names[i]);
    if (o >= sizeof all) break;
  }
  const char *near = suggest_nearest(name, names, sup->engines_n);
  char mean[64] = "";
  if (near) snprintf(mean, sizeof mean, ": did you mean \"%s\"?", near);
  err_arg(err, field, "there is no engine \"%.31s\"%s", name, mean);
  err_hint(err, sup->engines_n ? "engines here: %s" : "no engine is open%s", all);
  return NULL;
}

void supervisor_add_engine(struct supervisor *sup, struct engine *engine)
{
  if (sup->engines_n == sizeof sup->engines / sizeof *sup->engines ||
      find_engine(sup, engine->name))
    abort();
  struct engine_entry *e = xcalloc(1, sizeof *e);
  *e =
      (struct engine_entry){.engine = engine, .caps = engine->ops->caps | engine->caps, .sup = sup};
  strcpy(e->name, engine->name);
  sup->engines[sup->engines_n++] = e;
}

void supervisor_set_priced(struct supervisor *sup, const char *engine, bool priced)
{
  struct engine_entry *e = find_engine(sup, engine);
  if (e) e->priced = priced;
}

/* ---- owners ---- */

struct owner *owner_find(struct supervisor *sup, uint64_t id)
{
  uint64_t hash = index_hash_u64(id);
  for (struct index_node *n = NULL; (n = index_next(&sup->owners, hash, n));) {
    struct owner *o = list_entry(n, struct owner, by_id);
    if (o->id == id) return o;
  }
  return NULL;
}

static void owner_free(struct owner *o)
{
  loop_defer_cancel(o->sup->loop, &o->ended_defer);
  index_remove(&o->sup->owners, &o->by_id);
  made_free(o);
  budgets_done(&o->budgets);
  free(o->name);
  free(o);
}

static void on_owner_ended(struct defer *d)
{
  struct owner *o = d->data;
  void (*done)(void *) = o->on_ended;
  void *data = o->on_ended_data;
  if (done) done(data); /* who may still ask what it spent */
  owner_free(o);
}

void owner_check_ended(struct owner *o)
{
  if (!o->ending || o->live_n > 0) return;
  while (!list_empty(&o->ended))
    sandbox_forget(list_entry(o->ended.next, struct sandbox, by_owner));
  loop_defer(o->sup->loop, &o->ended_defer);
}

static struct owner *owner_new(struct supervisor *sup, uint64_t id, const struct owner_conf *conf)
{
  struct owner *o = xcalloc(1, sizeof *o);
  *o = (struct owner){.sup = sup,
                      .id = id,
                      .name = xstrdup(conf->name ? conf->name : ""),
                      .max_sandboxes = conf->max_sandboxes,
                      .allow_dir_images = conf->allow_dir_images,
                      .may_adopt = conf->may_adopt,
                      .max_life_s = conf->max_life_s,
                      .admit = conf->admit,
                      .admit_name = conf->admit_name,
                      .admit_data = conf->admit_data};
  list_init(&o->made);
  if (conf->cost_capped)
    budgets_add(&o->budgets,
                (int64_t[BUDGET_KINDS]){conf->max_microusd, BUDGET_UNBOUND, BUDGET_UNBOUND}, true,
                NULL);
  list_init(&o->live);
  list_init(&o->ended);
  o->ended_defer = (struct defer){.cb = on_owner_ended, .data = o};
  index_add(&sup->owners, &o->by_id, index_hash_u64(id));
  return o;
}

uint64_t supervisor_owner_new(struct supervisor *sup, const struct owner_conf *conf)
{
  return owner_new(sup, sup->next_owner++, conf)->id;
}

/* Ending one may change the list: a copy is walked. Records outlive the walk, burial or not. */
static void end_all_of(struct owner *o, enum sandbox_end why)
{
  size_t n = 0;
  struct sandbox **all = xcalloc(o->live_n, sizeof(struct sandbox *));
  LIST_FOREACH (it, &o->live) all[n++] = list_entry(it, struct sandbox, by_owner);
  for (size_t i = 0; i < n; i++) {
    bool leave = all[i]->detached && all[i]->state == SANDBOX_STARTED;
    sandbox_end(all[i], leave ? END_LEFT : why);
  }
  free(all);
}

void supervisor_owner_end(struct supervisor *sup, uint64_t owner, void (*done)(void *data),
                          void *data)
{
  struct owner *o = owner_find(sup, owner);
  assert(o && !o->ending);
  o->ending = true;
  o->on_ended = done;
  o->on_ended_data = data;
  end_all_of(o, END_OWNER);
  owner_check_ended(o);
}

int64_t supervisor_owner_spent(struct supervisor *sup, uint64_t owner)
{
  const struct owner *o = owner_find(sup, owner);
  return o ? o->spent_microusd : 0;
}

int supervisor_restore(struct supervisor *sup, uint64_t owner, const struct val *record,
                       struct err *err)
{
  return sandbox_restore(sup, owner_find(sup, owner), record, err);
}

/* ---- events ---- */

void supervisor_subscribe(struct supervisor *sup, supervisor_event_fn *fn, void *data)
{
  size_t i = 0;
  while (i < sup->subscribers_n && sup->subscribers[i].fn) i++;
  if (i == sizeof sup->subscribers / sizeof *sup->subscribers) abort();
  sup->subscribers[i] = (struct subscriber){fn, data};
  if (i == sup->subscribers_n) sup->subscribers_n++;
}

void supervisor_unsubscribe(struct supervisor *sup, supervisor_event_fn *fn, void *data)
{
  for (size_t i = 0; i < sup->subscribers_n; i++)
    if (sup->subscribers[i].fn == fn && sup->subscribers[i].data == data)
      sup->subscribers[i] = (struct subscriber){0};
}

bool supervisor_listened(const struct supervisor *sup)
{
  for (size_t i = 0; i < sup->subscribers_n; i++)
    if (sup->subscribers[i].fn) return true;
  return false;
}

void supervisor_emit(struct supervisor *sup, uint64_t owner, struct val *fields)
{
  for (size_t i = 0; i < sup->subscribers_n; i++)
    if (sup->subscribers[i].fn) sup->subscribers[i].fn(sup->subscribers[i].data, owner, fields);
  val_free(fields);
}

void supervisor_stats(const struct supervisor *sup, struct supervisor_stats *ret)
{
  *ret = (struct supervisor_stats){
      .live = sup->live_n,
      .execs = sup->execs_n,
      .captured = sup->captured,
      .created = sup->created,
      .ended = sup->ended,
  };
}

/* ---- shutdown ---- */

static void on_closed(struct defer *d)
{
  struct supervisor *sup = d->data;
  sup->on_closed(sup->on_closed_data, sup->close_err.kind == ERR_NONE ? NULL : &sup->close_err);
}

static void on_engine_closed(void *data)
{
  struct engine_entry *e = data;
  e->closed = true;
  e->engine = NULL;
  supervisor_check_closed(e->sup);
}

/* Every step of the shutdown leads here; the last one ends it. */
void supervisor_check_closed(struct supervisor *sup)
{
  if (!sup->closing || sup->gave_up || sup->live_n > 0) return;
  bool all = true;
  for (size_t i = 0; i < sup->engines_n; i++) {
    struct engine_entry *e = sup->engines[i];
    if (!e->closing) {
      e->closing = true;
      e->engine->ops->close(e->engine, on_engine_closed, e);
    }
    all = all && e->closed;
  }
  if (!all) return;
  timer_stop(sup->loop, &sup->close_deadline);
  loop_defer(sup->loop, &sup->closed_defer);
}

static void abandon_all(struct supervisor *sup)
{
  for (size_t b = 0; b < sup->sandboxes.size; b++) {
    LIST_FOREACH (it, &sup->sandboxes.buckets[b]) {
      struct index_node *node = list_entry(it, struct index_node, node);
      struct sandbox *sb = list_entry(node, struct sandbox, by_id);
      if (sb->state != SANDBOX_ENDED) sandbox_abandon(sb, &sup->close_err);
    }
  }
}

static void on_close_deadline(struct timer *t)
{
  struct supervisor *sup = t->data;
  char names[128] = "";
  size_t o = 0;
  for (size_t i = 0; i < sup->engines_n && o < sizeof names; i++)
    if (!sup->engines[i]->closed)
      o += (size_t)snprintf(names + o, sizeof names - o, "%s%s", o ? ", " : "",
                            sup->engines[i]->name);
  sup->gave_up = true;
  err_set(&sup->close_err, ERR_ENGINE_UNAVAILABLE, ETIMEDOUT,
          "the shutdown took too long: %zu sandboxes have not ended (engine %s)", sup->live_n,
          names);
  abandon_all(sup);
  loop_defer(sup->loop, &sup->closed_defer);
}

void supervisor_shutdown(struct supervisor *sup, uint64_t deadline_ms,
                         void (*done)(void *data, const struct err *err), void *data)
{
  assert(!sup->closing);
  sup->closing = true;
  sup->on_closed = done;
  sup->on_closed_data = data;
  timer_start(sup->loop, &sup->close_deadline, deadline_ms);
  /* Owners may end while this walks: ids, not pointers. */
  size_t n = 0;
  uint64_t *ids = xcalloc(sup->owners.n, sizeof *ids);
  for (size_t b = 0; b < sup->owners.size; b++) {
    LIST_FOREACH (it, &sup->owners.buckets[b]) {
      struct index_node *node = list_entry(it, struct index_node, node);
      ids[n++] = list_entry(node, struct owner, by_id)->id;
    }
  }
  for (size_t i = 0; i < n; i++) end_all_of(owner_find(sup, ids[i]), END_SHUTDOWN);
  free(ids);
  supervisor_check_closed(sup);
}

struct supervisor *supervisor_new(const struct supervisor_conf *conf)
{
  struct supervisor *sup = xcalloc(1, sizeof *sup);
  const char *engine = conf->default_engine ? conf->default_engine : "local";
  const char *image = conf->default_image ? conf->default_image : "host";
  const char *network = conf->default_network ? conf->default_network : "none";
  *sup = (struct supervisor){
      .loop = conf->loop,
      .ops = conf->ops,
      .defaults = {xstrdup(engine), xstrdup(image), xstrdup(network)},
      .max_sandboxes = conf->max_sandboxes,
      .output_max = conf->output_max,
      .retain_ms = conf->retain_ms ? conf->retain_ms : RETAIN_MS,
      .record = conf->record,
      .forget = conf->forget,
      .journal_data = conf->journal_data,
      .next_owner = 1,
  };
  list_init(&sup->retained);
  list_init(&sup->dying);
  list_init(&sup->processes);
  sup->reap = (struct defer){.cb = on_reap, .data = sup};
  sup->closed_defer = (struct defer){.cb = on_closed, .data = sup};
  sup->close_deadline = (struct timer){.cb = on_close_deadline, .data = sup};
  owner_new(sup, 0, &(struct owner_conf){.name = "host", .allow_dir_images = true});
  handlers_register(sup);
  return sup;
}

void supervisor_free(struct supervisor *sup)
{
  if (!sup) return;
  loop_defer_cancel(sup->loop, &sup->reap);
  on_reap(&sup->reap);
  if (sup->gave_up) {
    /* An engine may still write to its records: they stay, findable, and the process ends soon. */
    sup->next_given_up = given_up;
    given_up = sup;
    return;
  }
  while (!list_empty(&sup->retained))
    sandbox_forget(list_entry(sup->retained.next, struct sandbox, by_age));
  for (size_t b = 0; b < sup->owners.size; b++) {
    while (!list_empty(&sup->owners.buckets[b])) {
      struct index_node *node = list_entry(sup->owners.buckets[b].next, struct index_node, node);
      struct owner *o = list_entry(node, struct owner, by_id);
      owner_free(o);
    }
  }
  loop_defer_cancel(sup->loop, &sup->reap);
  on_reap(&sup->reap);
  loop_defer_cancel(sup->loop, &sup->closed_defer);
  timer_stop(sup->loop, &sup->close_deadline);
  index_free(&sup->owners);
  index_free(&sup->sandboxes);
  for (size_t i = 0; i < sup->engines_n; i++) free(sup->engines[i]);
  free((char *)(uintptr_t)sup->defaults.engine);
  free((char *)(uintptr_t)sup->defaults.image);
  free((char *)(uintptr_t)sup->defaults.network);
  free(sup);
}

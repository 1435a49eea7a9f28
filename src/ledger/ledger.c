/* The handler in front of the ops that cost something: hold, pass, settle, answer.
 *
 * Owns a charge for each op of an account between its start and its answer. What a charge holds is
 * decided in memory, where the account's credit is exact, because this process is the only one that
 * spends it. The hold of a create is on the disk before the create starts: what it makes may
 * outlive us. The other holds live in memory alone, for a crash ends what they are for, unanswered
 * and so not charged; but while the disk gives trouble they are written too, so that nothing runs
 * that could not be charged afterwards. The start of a server forgets all holds of the one before,
 * which is the same as releasing them: nobody was answered.
 *
 * The answer of an op that is charged waits for the commit of its entry. If that fails the op fails
 * with ENGINE_UNAVAILABLE, is not charged, and a sandbox that its caller never hears of is ended.
 *
 * holding (disk) → running → settling (disk) → answered (→ releasing, a lasting job) */
#include "ledger/ledger.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "core/op.h"
#include "db/db.h"
#include "ledger/idem.h"
#include "ledger/ledger_internal.h"
#include "wire/price.h"
#include "wire/tier.h"

struct charge;

/* How one op is priced. */
struct tariff {
  enum entry_kind kind;
  bool on_disk; /* its hold is, always */
  bool forced;  /* never refused for lack of credit */
  /* The most that the op may cost. */
  int64_t (*most)(struct ledger *l, const struct op *op);
  /* What it cost, and what its entry says beside that; only where it went well. */
  int64_t (*cost)(struct charge *c);
};

struct charge {
  struct ledger *ledger;
  struct account *account;
  const struct tariff *tariff;
  struct op *op;
  int64_t held;    /* in account->held */
  int64_t hold_id; /* on the disk; 0 = not */
  bool drop_hold;  /* the row is to be deleted, in the transaction of the entry if there is one */
  int64_t amount;  /* to charge */
  int64_t time_ms;
  char *sandbox, *tier, *tags; /* of the entry; owned, NULL = none */
  struct position after;       /* the account's, once settled */
  struct err *end;             /* the op's, while settling */
  struct store_job job;
};

static void settle(struct op *op, struct err *end, void *data);

/* ---- tariffs ---- */

static int64_t call_most(struct ledger *l, const struct op *op)
{
  (void)l, (void)op;
  return PRICE_CALL_MICROUSD;
}

static int64_t call_cost(struct charge *c)
{
  const char *id = val_get_str(&c->op->args, "sandbox_id", NULL);
  if (id) c->sandbox = xstrdup(id);
  return PRICE_CALL_MICROUSD;
}

/* What cannot be read is refused by the handler behind, and costs nothing. */
static int64_t create_most(struct ledger *l, const struct op *op)
{
  struct create_args args;
  if (create_args_parse(&op->args, &l->defaults, &args, NULL) < 0) return 0;
  int64_t most = price_reservation(&args);
  create_args_free(&args);
  return most;
}

static char *tags_json(const struct val *tags)
{
  struct buf out = {0};
  if (!tags || tags->type != VAL_MAP || tags->map.n == 0) return NULL;
  json_print(&out, tags);
  return buf_take(&out, NULL);
}

/* By what was granted, which of several choices only the answer says. */
static int64_t create_cost(struct charge *c)
{
  const struct val *view = &c->op->result, *config = val_get(view, "config");
  const char *gpu = val_get_str(config, "gpu", NULL);
  const struct tier *tier = tier_cpu();
  unsigned units = 1;
  int64_t timeout = val_get_int(config, "timeout", 0);
  if (gpu && tier_parse_gpu(gpu, "gpu", &tier, &units, NULL) < 0) gpu = NULL;
  c->sandbox = xstrdup(val_get_str(view, "sandbox_id", ""));
  c->tier = xstrdup(gpu ? gpu : tier->name);
  c->tags = tags_json(val_get(view, "tags"));
  int64_t cost = price_create(tier, units, (uint32_t)timeout);
  return cost < c->held ? cost : c->held;
}

static int64_t extend_most(struct ledger *l, const struct op *op)
{
  struct extend_args a;
  if (extend_args_parse(&op->args, &a, NULL) < 0) return 0;
  int64_t most = l->conf.price_extend(l->conf.data, op->owner, a.sandbox_id, a.seconds);
  extend_args_free(&a);
  return most;
}

static int64_t extend_cost(struct charge *c)
{
  call_cost(c);
  return c->held;
}

static const struct tariff create_tariff = {ENTRY_CREATE, true, false, create_most, create_cost};
static const struct tariff extend_tariff = {ENTRY_EXTEND, false, false, extend_most, extend_cost};
static const struct tariff exec_tariff = {ENTRY_EXEC, false, false, call_most, call_cost};
static const struct tariff status_tariff = {ENTRY_STATUS, false, false, call_most, call_cost};
static const struct tariff terminate_tariff = {ENTRY_TERMINATE, false, true, call_most, call_cost};

static const struct tariff *tariff_of(const struct op *op)
{
  static const struct {
    const char *name;
    const struct tariff *tariff;
  } all[] = {{"sandbox.exec", &exec_tariff},
             {"sandbox.status", &status_tariff},
             {"sandbox.create", &create_tariff},
             {"sandbox.terminate", &terminate_tariff},
             {"sandbox.extend", &extend_tariff}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (strcmp(op->name, all[i].name) == 0) return all[i].tariff;
  abort();
}

/* ---- the end of a charge ---- */

static void check_closed(struct ledger *l)
{
  if (l->closing && l->charges_open == 0) loop_defer(l->loop, &l->closed);
}

static void let_go(struct charge *c)
{
  c->account->held -= c->held;
  c->ledger->stats.held_microusd -= c->held;
  c->held = 0;
}

static void charge_free(struct charge *c)
{
  struct ledger *l = c->ledger;
  let_go(c);
  free(c->sandbox);
  free(c->tier);
  free(c->tags);
  free(c);
  l->charges_open--;
  check_closed(l);
}

/* ---- on the database thread ---- */

static void on_begin(void *data)
{
  struct ledger *l = data;
  l->batch++;
  list_init(&l->dirty);
}

static int on_commit(void *data, struct db *db, struct err *err)
{
  struct ledger *l = data;
  int rc = 0;
  while (rc == 0 && !list_empty(&l->dirty)) {
    struct account *a = list_entry(l->dirty.next, struct account, dirty);
    list_remove(&a->dirty);
    rc = position_write(db, a->public.id, &a->writing, err);
  }
  return rc;
}

static int post(struct charge *c, struct db *db, struct err *err)
{
  struct ledger *l = c->ledger;
  struct account *a = c->account;
  int rc = 0;
  if (a->batch != l->batch) rc = position_read(db, a->public.id, &a->writing, err);
  if (rc < 0) return rc;
  if (a->batch != l->batch) {
    a->batch = l->batch;
    list_init(&a->dirty);
    list_append(&l->dirty, &a->dirty);
  }
  struct entry e = {.kind = c->tariff->kind,
                    .amount = -c->amount,
                    .time_ms = c->time_ms,
                    .sandbox = c->sandbox,
                    .tier = c->tier,
                    .tags = c->tags};
  rc = entry_post(db, a->public.id, &a->writing, &e, err);
  c->after = a->writing;
  return rc;
}

static int run_hold(struct store_job *job, struct db *db, struct err *err)
{
  struct charge *c = job->data;
  return db_run(db, err, "INSERT INTO holds (id, account, amount, time_ms) VALUES (?, ?, ?, ?)",
                "iiii", c->hold_id, c->account->public.id, c->held, c->time_ms);
}

static int run_settle(struct store_job *job, struct db *db, struct err *err)
{
  struct charge *c = job->data;
  int rc = 0;
  if (c->drop_hold) rc = db_run(db, err, "DELETE FROM holds WHERE id = ?", "i", c->hold_id);
  /* Last: a job that is taken back must not have moved the account's position. */
  if (rc == 0 && c->amount > 0) rc = post(c, db, err);
  return rc;
}

/* ---- releasing what could not be released at once ---- */

static void on_released(struct store_job *job, const struct err *err)
{
  (void)err; /* the next start forgets it */
  charge_free(job->data);
}

static void release(struct charge *c)
{
  c->amount = 0;
  c->job =
      (struct store_job){.run = run_settle, .on_done = on_released, .data = c, .lasting = true};
  store_submit(c->ledger->store, &c->job);
}

/* ---- a create that was made and cannot be charged ---- */

static void on_undone(struct op *op, const struct err *err)
{
  if (err) log_warn("a sandbox that was not charged: %s", err->msg);
  op_free(op);
}

static const struct op_client undo_client = {.on_done = on_undone};

static void undo_create(struct charge *c)
{
  struct err err = {0};
  struct op *op = op_new("sandbox.terminate");
  op->args = val_map();
  val_add(&op->args, "sandbox_id", val_str(c->sandbox));
  op->owner = c->op->owner;
  op->client = &undo_client;
  if (op_submit(c->ledger->ops, op, &err) == 0) return;
  log_warn("a sandbox that was not charged: %s", err.msg);
  op_free(op);
}

/* ---- settling ---- */

static void unwritten(struct err *end, const struct err *why)
{
  err_set(end, ERR_ENGINE_UNAVAILABLE, why->sys_errno, "the books cannot be written: %s", why->msg);
  err_hint(end, "nothing was charged");
}

static void on_settled(struct store_job *job, const struct err *err)
{
  struct charge *c = job->data;
  struct ledger *l = c->ledger;
  struct op *op = c->op;
  c->account->owed -= c->amount;
  if (err) {
    l->stats.failed_writes++;
    if (c->tariff->kind == ENTRY_CREATE && c->amount > 0) undo_create(c);
    if (c->amount > 0) {
      val_free(&op->result);
      unwritten(c->end, err);
    }
  } else if (c->amount > 0) {
    l->stats.charges++;
    l->stats.charged_microusd += c->amount;
    if (c->after.seq > c->account->at.seq) c->account->at = c->after;
  }
  op_end(op);
  if (err && c->drop_hold)
    release(c);
  else
    charge_free(c);
}

static void settle(struct op *op, struct err *end, void *data)
{
  struct charge *c = data;
  if (end->kind == ERR_NONE) c->amount = c->tariff->cost(c);
  c->drop_hold = c->hold_id != 0;
  let_go(c);
  if (c->amount == 0 && !c->drop_hold) {
    op_end(op);
    charge_free(c);
    return;
  }
  c->end = end;
  c->time_ms = clock_wall_ms();
  c->account->owed += c->amount;
  c->job = (struct store_job){.run = run_settle, .on_done = on_settled, .data = c};
  store_submit(c->ledger->store, &c->job);
}

/* ---- holding ---- */

static void on_held(struct store_job *job, const struct err *err)
{
  struct charge *c = job->data;
  struct op *op = c->op;
  if (!err) {
    op_on_end(op, settle, c);
    op_pass(op);
    return;
  }
  struct err end;
  c->ledger->stats.failed_writes++;
  unwritten(&end, err);
  op_finish(op, &end);
  charge_free(c);
}

static int refuse(struct ledger *l, const struct account *a, struct op *op, int64_t most,
                  struct err *err)
{
  int64_t available = account_available(a), missing = most - available;
  l->stats.refusals++;
  op->result = val_map();
  val_add(&op->result, "required_microusd", val_int(most));
  val_add(&op->result, "available_microusd", val_int(available));
  val_add(&op->result, "missing_microusd", val_int(missing));
  int rc = err_set(err, ERR_PAYMENT_REQUIRED, 0,
                   "%s needs %.6f US dollars and key %s has %.6f: %.6f are missing", op->name,
                   price_usd(most), a->name, price_usd(available), price_usd(missing));
  err_hint(err, "the operator of this server adds credit: regolith key topup %s", a->name);
  return rc;
}

static int start(struct op *op, void *ctx, struct err *err)
{
  struct ledger *l = ctx;
  struct account *a = op->client == &undo_client ? NULL : account_by_owner(l, op->owner);
  if (!a) {
    op_pass(op);
    return 0;
  }
  const struct tariff *tariff = tariff_of(op);
  int64_t most = tariff->most(l, op);
  if (most > account_available(a) && !tariff->forced) return refuse(l, a, op, most, err);
  struct charge *c = xcalloc(1, sizeof *c);
  *c = (struct charge){.ledger = l, .account = a, .tariff = tariff, .op = op, .held = most};
  a->held += most;
  l->stats.held_microusd += most;
  l->charges_open++;
  if (most == 0 || tariff->forced || (!tariff->on_disk && !store_trouble(l->store))) {
    op_on_end(op, settle, c);
    op_pass(op);
    return 0;
  }
  c->hold_id = l->next_hold++;
  c->time_ms = clock_wall_ms();
  c->job = (struct store_job){.run = run_hold, .on_done = on_held, .data = c};
  store_submit(l->store, &c->job);
  return 0;
}

static const struct op_handler handlers[] = {
    {.name = "sandbox.create", .start = start},    {.name = "sandbox.exec", .start = start},
    {.name = "sandbox.status", .start = start},    {.name = "sandbox.extend", .start = start},
    {.name = "sandbox.terminate", .start = start},
};

/* ---- opening and closing ---- */

static char *copy(const char *text)
{
  return text ? xstrdup(text) : NULL;
}

static void ledger_free(struct ledger *l)
{
  accounts_free(l);
  loop_defer_cancel(l->loop, &l->closed);
  free((char *)(uintptr_t)l->defaults.engine);
  free((char *)(uintptr_t)l->defaults.image);
  free((char *)(uintptr_t)l->defaults.network);
  free(l);
}

static void on_closed(struct defer *d)
{
  struct ledger *l = d->data;
  void (*done)(void *) = l->on_closed;
  void *data = l->on_closed_data;
  store_set_batch(l->store, &(struct store_batch){0});
  ledger_free(l);
  if (done) done(data);
}

/* Before the database thread has had work: this connection may write still. */
static int recover(struct ledger *l, struct err *err)
{
  int rc = db_run(store_db(l->store), err, "DELETE FROM holds", "");
  return rc < 0 ? rc : idem_recover(l->store, err);
}

int ledger_open(struct ledger **ret, const struct ledger_conf *conf, struct err *err)
{
  struct ledger *l = xcalloc(1, sizeof *l);
  l->loop = conf->loop;
  l->ops = conf->ops;
  l->store = conf->store;
  l->conf = *conf;
  l->next_hold = 1;
  l->closed = (struct defer){.cb = on_closed, .data = l};
  list_init(&l->dirty);
  if (conf->defaults) {
    l->defaults.engine = copy(conf->defaults->engine);
    l->defaults.image = copy(conf->defaults->image);
    l->defaults.network = copy(conf->defaults->network);
  }
  int rc = recover(l, err);
  if (rc == 0) rc = accounts_load(l, err);
  if (rc < 0) {
    ledger_free(l);
    return rc;
  }
  store_set_batch(l->store, &(struct store_batch){.begin = on_begin, .end = on_commit, .data = l});
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    ops_interpose(l->ops, &handlers[i], l);
  *ret = l;
  return 0;
}

void ledger_close(struct ledger *l, void (*done)(void *data), void *data)
{
  l->closing = true;
  l->on_closed = done;
  l->on_closed_data = data;
  timer_stop(l->loop, &l->look);
  store_give_up(l->store);
  check_closed(l);
}

void ledger_stats(const struct ledger *l, struct ledger_stats *ret)
{
  *ret = l->stats;
}

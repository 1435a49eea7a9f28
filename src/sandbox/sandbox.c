/* One sandbox: its state, its clocks, and how it ends.
 *
 * Every change goes through sandbox_event, which looks the transition up (sandbox/state.c) and
 * carries the actions out. Invariants: the engine sees at most one create, one cancel and one kill
 * of a sandbox at a time; what is counted live stays counted until its last process is dead and its
 * last command has reported; a sandbox that started stays in the index for the retention time after
 * its end, one that never started is forgotten at once, because nobody was told its id.
 *
 * States: state.c. Ends: end_infos below. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "core/op.h"
#include "sandbox/supervisor_internal.h"
#include "wire/price.h"
#include "wire/tier.h"

/* What an end means to those who ask later. */
static const struct end_info {
  const char *reason;          /* status.reason */
  enum outcome_reason outcome; /* of commands that were running */
  enum err_kind kind;          /* of calls that come too late */
  const char *sentence;        /* "sandbox sb_x …" */
} end_infos[END_KINDS] = {
    [END_NONE] = {NULL, REASON_UNKNOWN, ERR_INTERNAL, "is alive"},
    [END_FAILED] = {"unknown", REASON_TERMINATED, ERR_SANDBOX_TERMINATED,
                    "has ended: its entrypoint could not be started"},
    [END_CANCELLED] = {"cancelled", REASON_CANCELLED, ERR_CANCELLED, "was cancelled"},
    [END_TERMINATED] = {"terminated", REASON_TERMINATED, ERR_SANDBOX_TERMINATED, "was terminated"},
    [END_LIFE] = {"sandbox_timeout", REASON_SANDBOX_TIMEOUT, ERR_SANDBOX_TIMEOUT,
                  "has reached the end of its life-time"},
    [END_IDLE] = {"sandbox_timeout", REASON_SANDBOX_TIMEOUT, ERR_SANDBOX_TIMEOUT,
                  "was idle for too long and has been ended"},
    [END_OWNER] = {"terminated", REASON_TERMINATED, ERR_SANDBOX_TERMINATED, "ended with its owner"},
    [END_SHUTDOWN] = {"terminated", REASON_TERMINATED, ERR_SANDBOX_TERMINATED,
                      "was ended by the shutdown"},
    [END_OOM] = {"oom", REASON_OOM, ERR_SANDBOX_TERMINATED, "ran out of memory and has ended"},
    [END_LOST] = {"unknown", REASON_UNKNOWN, ERR_SANDBOX_TERMINATED,
                  "was lost: its engine no longer has it"},
    [END_FINISHED] = {"exited", REASON_TERMINATED, ERR_SANDBOX_TERMINATED,
                      "has ended with its entrypoint"},
    [END_CRASHED] = {"terminated", REASON_TERMINATED, ERR_SANDBOX_TERMINATED,
                     "ended when the process that had it was killed"},
    [END_LEFT] = {"left", REASON_CANCELLED, ERR_CANCELLED, "was left to live on"},
};

/* The last line that says something of a text, shortened. */
static int last_line(const char *text, size_t len, const char **ret)
{
  while (len > 0 && strchr("\r\n \t", text[len - 1])) len--;
  const char *start = memrchr(text, '\n', len);
  *ret = start ? start + 1 : text;
  len -= (size_t)(*ret - text);
  return len > 160 ? 160 : (int)len;
}

static void hint_last_words(const struct sandbox *sb, struct err *err)
{
  const struct outcome *o = &sb->entered;
  const char *line = "";
  int len = o->err_len > 0 ? last_line(o->err, o->err_len, &line) : 0;
  if (len == 0 && o->out_len > 0) len = last_line(o->out, o->out_len, &line);
  err_hint(err, len > 0 ? "it ended with %d; it printed last: %.*s" : "it ended with %d",
           sb->exit_code, len, line);
}

int sandbox_ended_err(const struct sandbox *sb, struct err *err)
{
  const struct end_info *info = &end_infos[sb->end];
  int rc = err_set(err, info->kind, 0, "sandbox %s %s", sb->id, info->sentence);
  if (!err) return rc;
  strcpy(err->sandbox_id, sb->id);
  strcpy(err->engine, sb->engine->name);
  if (sb->end == END_LIFE)
    err_hint(err, "it was created with timeout = %u; ask for more, or extend it in time",
             sb->args.timeout_s);
  if (sb->end == END_FINISHED) hint_last_words(sb, err);
  if (sb->end == END_IDLE)
    err_hint(err, "it was created with idle_timeout = %u", sb->args.idle_timeout_s);
  return rc;
}

enum outcome_reason sandbox_outcome(const struct sandbox *sb)
{
  return end_infos[sb->end].outcome;
}

/* ---- looking at it ---- */

struct sandbox *sandbox_find(struct supervisor *sup, uint64_t owner, const char *id,
                             struct err *err)
{
  sandbox_prune(sup);
  uint64_t hash = index_hash_text(id);
  for (struct index_node *n = NULL; (n = index_next(&sup->sandboxes, hash, n));) {
    struct sandbox *sb = list_entry(n, struct sandbox, by_id);
    if (strcmp(sb->id, id) == 0 && sb->owner->id == owner) return sb;
  }
  err_set(err, ERR_SANDBOX_NOT_FOUND, 0, "there is no sandbox %.63s", id);
  if (err) {
    strncpy(err->sandbox_id, id, sizeof err->sandbox_id - 1);
    err->sandbox_id[sizeof err->sandbox_id - 1] = '\0';
  }
  return NULL;
}

static struct val iso(int64_t wall_s)
{
  char text[CLOCK_ISO_SIZE];
  clock_format_iso(wall_s, text);
  return val_str(text);
}

static void add_tunnels(const struct sandbox *sb, struct val *v)
{
  struct val list = val_list();
  for (size_t i = 0; i < sb->args.unencrypted_ports_n && i < ENGINE_PORTS_MAX; i++) {
    struct val one = val_map();
    char url[40];
    if (!sb->create.ret_ports[i]) continue;
    snprintf(url, sizeof url, "http://127.0.0.1:%u", sb->create.ret_ports[i]);
    val_add(&one, "port", val_int(sb->args.unencrypted_ports[i]));
    val_add(&one, "url", val_str(url));
    val_add(&one, "encrypted", val_bool(false));
    val_push(&list, one);
  }
  if (list.list.n > 0)
    val_add(v, "tunnels", list);
  else
    val_free(&list);
}

struct val sandbox_view(const struct sandbox *sb)
{
  struct val v = val_map();
  bool over = sb->state > SANDBOX_STARTED || sb->end != END_NONE;
  val_add(&v, "sandbox_id", val_str(sb->id));
  val_add(&v, "status", val_str(over ? "terminated" : sandbox_state_status(sb->state)));
  val_add(&v, "state",
          val_str(sb->end == END_FINISHED ? "finished"
                  : over                  ? "terminated"
                  : sb->readiness.ready   ? "ready"
                                          : sandbox_state_name(sb->state)));
  if (over) val_add(&v, "reason", val_str(end_infos[sb->end].reason));
  if (sb->end == END_FINISHED && sb->exit_code >= 0)
    val_add(&v, "returncode", val_int(sb->exit_code));
  val_add(&v, "app_id", val_str(sb->args.app_id));
  if (sb->args.name) val_add(&v, "name", val_str(sb->args.name));
  val_add(&v, "engine", val_str(sb->engine->name));
  val_add(&v, "created_at", iso(sb->created_s));
  int64_t expires_s = sb->looking.expires_s;
  val_add(&v, "expires_at", iso(expires_s ? expires_s : sb->created_s + sb->args.timeout_s));
  val_add(&v, "commands_executed", val_int((int64_t)(sb->commands + sb->looking.others)));
  if (sb->refusals) val_add(&v, "refused_connections", val_int((int64_t)sb->refusals));
  val_add(&v, "config", create_args_config(&sb->args));
  val_add(&v, "tags", strv_to_map(&sb->args.tags));
  if (sb->announced && !over) add_tunnels(sb, &v);
  val_add(&v, "cost", val_num(price_usd(sb->cost_microusd)));
  return v;
}

void sandbox_charge(struct sandbox *sb, int64_t microusd)
{
  sb->cost_microusd += microusd;
  sb->owner->spent_microusd += microusd;
}

static struct val event_fields(const struct sandbox *sb, const char *event)
{
  struct val v = val_map();
  val_add(&v, "event", val_str(event));
  val_add(&v, "sandbox_id", val_str(sb->id));
  val_add(&v, "owner", val_str(sb->owner->name));
  val_add(&v, "engine", val_str(sb->engine->name));
  return v;
}

static void emit_created(struct sandbox *sb)
{
  if (!supervisor_listened(sb->sup)) return;
  struct val v = event_fields(sb, "sandbox_created");
  if (sb->args.name) val_add(&v, "name", val_str(sb->args.name));
  val_add(&v, "image", val_str(sb->args.image));
  val_add(&v, "timeout", val_int(sb->args.timeout_s));
  supervisor_emit(sb->sup, sb->owner->id, &v);
}

static void emit_ended(struct sandbox *sb)
{
  if (!supervisor_listened(sb->sup)) return;
  struct val v = event_fields(sb, "sandbox_ended");
  val_add(&v, "reason", val_str(end_infos[sb->end].reason));
  val_add(&v, "commands_executed", val_int((int64_t)sb->commands));
  val_add(&v, "duration_ms", val_int((int64_t)(loop_now_ms(sb->sup->loop) - sb->started_ms)));
  if (sb->engine->priced) val_add(&v, "cost", val_num(price_usd(sb->cost_microusd)));
  supervisor_emit(sb->sup, sb->owner->id, &v);
}

/* ---- the journal ---- */

void sandbox_record(const struct sandbox *sb)
{
  if (!sb->sup->record) return;
  struct val v = val_map(), args = create_args_config(&sb->args);
  val_set(&args, "engine", val_str(sb->engine->name));
  val_set(&args, "app_id", val_str(sb->args.app_id));
  val_set(&args, "tags", strv_to_map(&sb->args.tags));
  if (sb->args.name) val_set(&args, "name", val_str(sb->args.name));
  val_add(&v, "sandbox_id", val_str(sb->id));
  val_add(&v, "engine", val_str(sb->engine->name));
  val_add(&v, "created_s", val_int(sb->created_s));
  val_add(&v, "ended_s", val_int(sb->ended_s));
  val_add(&v, "end", val_int(sb->ended_s ? sb->end : END_NONE));
  val_add(&v, "exit_code", val_int(sb->exit_code));
  val_add(&v, "commands", val_int((int64_t)sb->commands));
  val_add(&v, "microusd", val_int(sb->cost_microusd));
  val_add(&v, "args", args);
  sb->sup->record(sb->sup->journal_data, sb->owner->id, &v);
  val_free(&v);
}

/* ---- clocks ---- */

static void on_life(struct timer *t)
{
  sandbox_end(t->data, END_LIFE);
}

static void on_idle(struct timer *t)
{
  sandbox_end(t->data, END_IDLE);
}

void sandbox_touch(struct sandbox *sb)
{
  if (sb->state != SANDBOX_STARTED || sb->args.idle_timeout_s == 0) return;
  if (sb->execs_n > (sb->entry ? 1 : 0)) /* the entrypoint is no activity */
    timer_stop(sb->sup->loop, &sb->idle);
  else
    timer_start(sb->sup->loop, &sb->idle, sb->args.idle_timeout_s * 1000ull);
}

int64_t sandbox_extend_price(const struct sandbox *sb, uint32_t total)
{
  if (!sb->engine->priced) return 0;
  const struct tier *tier = tier_cpu();
  unsigned units = 1;
  if (sb->args.gpu.n > 0) tier_parse_gpu(sb->args.gpu.v[0], "gpu", &tier, &units, NULL);
  return price_extend(tier, units, total, sb->life_microusd);
}

int sandbox_extend(struct sandbox *sb, uint32_t seconds, struct err *err)
{
  uint32_t total = sb->args.timeout_s + seconds;
  if (total > SANDBOX_DAY_S)
    return err_arg(err, "seconds",
                   "seconds must leave the life-time within %u s counted from creation: it is %u s "
                   "now, so %u more at most",
                   SANDBOX_DAY_S, sb->args.timeout_s, SANDBOX_DAY_S - sb->args.timeout_s);
  if (sb->owner->max_life_s && total > sb->owner->max_life_s) {
    int rc = err_set(err, ERR_DENIED, 0, "a life-time of %u s was not granted: at most %u s", total,
                     sb->owner->max_life_s);
    err_hint(err, "a higher regolith run --max-timeout grants it");
    return rc;
  }
  int64_t price = sandbox_extend_price(sb, total);
  int rc = budgets_take(&sb->owner->budgets, &sb->holding,
                        (int64_t[BUDGET_KINDS]){price, (int64_t)seconds * 1000, 0}, err);
  if (rc < 0) return rc;
  sb->life_microusd += price;
  sandbox_charge(sb, price);
  sb->args.timeout_s = total;
  uint64_t lived = loop_now_ms(sb->sup->loop) - sb->started_ms;
  uint64_t span = total * 1000ull;
  timer_start(sb->sup->loop, &sb->life, span > lived ? span - lived : 0);
  sandbox_record(sb);
  return 0;
}

/* ---- budgets ---- */

void sandbox_amounts(const struct engine_entry *e, const struct create_args *a,
                     int64_t ret[BUDGET_KINDS])
{
  ret[BUDGET_MICROUSD] = e->priced ? price_reservation(a) : 0;
  ret[BUDGET_MS] = a->timeout_s * INT64_C(1000);
  ret[BUDGET_CREATES] = 1;
}

/* What it did not live was not spent; one that never started cost nothing. */
static void give_back(struct sandbox *sb)
{
  int64_t amounts[BUDGET_KINDS];
  sandbox_amounts(sb->engine, &sb->args, amounts);
  if (sb->announced) {
    int64_t lived = (int64_t)(loop_now_ms(sb->sup->loop) - sb->started_ms);
    amounts[BUDGET_MICROUSD] = 0;
    amounts[BUDGET_MS] = lived < amounts[BUDGET_MS] ? amounts[BUDGET_MS] - lived : 0;
    amounts[BUDGET_CREATES] = 0;
  }
  budgets_give(&sb->owner->budgets, &sb->holding, amounts);
  holding_done(&sb->holding);
}

/* ---- actions ---- */

static int start_entrypoint(struct sandbox *sb)
{
  if (sb->args.entrypoint.n == 0 || (sb->engine->caps & ENGINE_CAP_ENTRYPOINT)) return 0;
  struct exec_args args = {.sandbox_id = xstrdup(sb->id), .max_output = SANDBOX_ENTRY_KEPT};
  for (size_t i = 0; i < sb->args.entrypoint.n; i++) strv_add(&args.argv, sb->args.entrypoint.v[i]);
  int rc = sandbox_exec_start(sb, NULL, &args, &sb->end_err);
  exec_args_free(&args);
  return rc;
}

/* Of several choices of a GPU, the one it got: what config shows and what it costs from here on. */
static void keep_granted(struct sandbox *sb)
{
  struct strv *gpu = &sb->args.gpu, one = {0};
  if (gpu->n < 2) return;
  int64_t held = sb->engine->priced ? price_reservation(&sb->args) : 0;
  strv_add(&one, gpu->v[sb->create.ret_gpu < gpu->n ? sb->create.ret_gpu : 0]);
  strv_free(gpu);
  *gpu = one;
  int64_t less = held - (sb->engine->priced ? price_reservation(&sb->args) : 0);
  budgets_give(&sb->owner->budgets, &sb->holding, (int64_t[BUDGET_KINDS]){less, 0, 0});
}

static void start_life(struct sandbox *sb)
{
  sb->created_s = clock_wall_s();
  keep_granted(sb);
  if (sb->engine->priced) sandbox_charge(sb, sb->life_microusd = price_reservation(&sb->args));
  timer_start(sb->sup->loop, &sb->life, sb->args.timeout_s * 1000ull);
}

static void do_start(struct sandbox *sb)
{
  struct supervisor *sup = sb->sup;
  sb->started_ms = loop_now_ms(sup->loop);
  if (!sb->adopted) start_life(sb);
  if (start_entrypoint(sb) < 0) {
    sandbox_end(sb, END_FAILED);
    return;
  }
  sandbox_touch(sb);
  sb->announced = true;
  sup->created++;
  sandbox_record(sb);
  emit_created(sb);
  ready_start(sb);
  if (!sb->op) return;
  struct op *op = sb->op;
  sb->op = NULL;
  op->handler_data = NULL;
  op->result = sandbox_view(sb);
  op_finish(op, NULL);
}

static void do_stop(struct sandbox *sb)
{
  timer_stop(sb->sup->loop, &sb->life);
  timer_stop(sb->sup->loop, &sb->idle);
  ready_stop(sb);
  LIST_FOREACH (it, &sb->execs) sandbox_exec_stop(list_entry(it, struct exec, node));
}

static void on_cancelled(struct kill_op *op, const struct err *err)
{
  struct sandbox *sb = op->data;
  if (err) log_debug("sandbox %s: cancelling its create: %s", sb->id, err->msg);
  sandbox_event(sb, SANDBOX_EV_CANCELLED);
}

static void do_cancel(struct sandbox *sb)
{
  struct err err = {0};
  struct engine *e = sb->engine->engine;
  sb->cancel = (struct kill_op){.create = &sb->create, .on_done = on_cancelled, .data = sb};
  if (e->ops->kill(e, &sb->cancel, &err) < 0) on_cancelled(&sb->cancel, &err);
}

static void do_kill(struct sandbox *sb);

static void on_kill_wait(struct timer *t)
{
  do_kill(t->data);
}

/* An engine that cannot kill now is asked again, with growing pauses; then the sandbox is given up
 * as lost, loudly: a record that can never end would block its owner and the shutdown. */
static void kill_failed(struct sandbox *sb, const struct err *err)
{
  if (sb->kill_tries < SANDBOX_KILL_TRIES) {
    sb->life.cb = on_kill_wait;
    timer_start(sb->sup->loop, &sb->life, (uint64_t)SANDBOX_KILL_WAIT_MS << sb->kill_tries);
    return;
  }
  log_error("sandbox %s could not be ended on engine %s: %s", sb->id, sb->engine->name, err->msg);
  sb->end_err = *err;
  sandbox_event(sb, SANDBOX_EV_KILLED);
}

static void on_killed(struct kill_op *op, const struct err *err)
{
  struct sandbox *sb = op->data;
  if (err)
    kill_failed(sb, err);
  else
    sandbox_event(sb, SANDBOX_EV_KILLED);
}

static void do_kill(struct sandbox *sb)
{
  struct err err = {0};
  struct engine *e = sb->engine->engine;
  sb->kill_tries++;
  sb->kill = (struct kill_op){
      .box = sb->create.ret_box, .leave = sb->end == END_LEFT, .on_done = on_killed, .data = sb};
  if (e->ops->kill(e, &sb->kill, &err) < 0) kill_failed(sb, &err);
}

/* ---- the end ---- */

static void create_error(const struct sandbox *sb, struct err *err)
{
  if (sb->end == END_FAILED) {
    *err = sb->end_err;
  } else if (sb->end == END_TERMINATED) {
    err_set(err, ERR_SANDBOX_TERMINATED, 0,
            "the sandbox was terminated while it was being created");
  } else {
    bool late = sb->op->cancel_why == ERR_TIMEOUT;
    err_set(err, late ? ERR_TIMEOUT : ERR_CANCELLED, 0,
            late ? "sandbox.create took too long and was cancelled"
                 : "sandbox.create was cancelled");
  }
  if (!err->engine[0]) strcpy(err->engine, sb->engine->name);
}

static void answer_waiter(struct sandbox *sb, struct waiter *w)
{
  struct err err = {0};
  struct op *op = w->op;
  if (!w->caused_it)
    sandbox_ended_err(sb, &err);
  else if (sb->end_err.kind != ERR_NONE)
    err = sb->end_err;
  list_remove(&w->node);
  free(w);
  op->handler_data = NULL;
  if (err.kind == ERR_NONE) {
    op->result = val_map();
    val_add(&op->result, "sandbox_id", val_str(sb->id));
    val_add(&op->result, "status", val_str("terminated"));
  }
  op_finish(op, err.kind == ERR_NONE ? NULL : &err);
}

static void answer_all(struct sandbox *sb)
{
  struct op *op = sb->op;
  if (op) {
    struct err err = {0};
    create_error(sb, &err);
    sb->op = NULL;
    op->handler_data = NULL;
    op_finish(op, &err);
  }
  while (!list_empty(&sb->waiters))
    answer_waiter(sb, list_entry(sb->waiters.next, struct waiter, node));
}

static void sandbox_free(struct dying *d)
{
  struct sandbox *sb = list_entry(d, struct sandbox, dying);
  create_args_free(&sb->args);
  val_free(&sb->refused);
  outcome_free(&sb->entered);
  holding_done(&sb->holding);
  free(sb);
}

void sandbox_detach(struct sandbox *sb, struct owner *to)
{
  const struct engine_ops *ops = sb->engine->engine->ops;
  sb->detached = true;
  if (ops->detached) ops->detached(sb->engine->engine, sb->create.ret_box);
  holding_done(&sb->holding); /* what it lives on is spent */
  list_remove(&sb->by_owner);
  sb->owner->live_n--;
  LIST_FOREACH (it, &sb->execs) {
    size_t captured = list_entry(it, struct exec, node)->captured;
    sb->owner->captured -= captured;
    to->captured += captured;
  }
  sb->owner = to;
  list_append(&to->live, &sb->by_owner);
  to->live_n++;
}

void sandbox_forget(struct sandbox *sb)
{
  struct supervisor *sup = sb->sup;
  if (!list_empty(&sb->by_age)) sup->retained_n--;
  list_remove(&sb->by_age);
  list_remove(&sb->by_owner);
  index_remove(&sup->sandboxes, &sb->by_id);
  processes_forget(sb);
  supervisor_bury(sup, &sb->dying);
}

void sandbox_prune(struct supervisor *sup)
{
  uint64_t now = loop_now_ms(sup->loop);
  while (!list_empty(&sup->retained)) {
    struct sandbox *sb = list_entry(sup->retained.next, struct sandbox, by_age);
    if (sup->retained_n <= SANDBOX_RETAIN_MAX && now - sb->ended_ms < sup->retain_ms) break;
    if (sup->forget) sup->forget(sup->journal_data, sb->owner->id, sb->id);
    sandbox_forget(sb);
  }
}

static void retain(struct sandbox *sb)
{
  struct supervisor *sup = sb->sup;
  sb->ended_ms = loop_now_ms(sup->loop);
  list_append(&sb->owner->ended, &sb->by_owner);
  list_append(&sup->retained, &sb->by_age);
  sup->retained_n++;
  sandbox_prune(sup);
}

static void do_bury(struct sandbox *sb)
{
  struct supervisor *sup = sb->sup;
  struct owner *o = sb->owner;
  if (sb->announced) {
    sup->ended++;
    sb->ended_s = clock_wall_s();
    sandbox_record(sb);
    emit_ended(sb);
  }
  give_back(sb);
  answer_all(sb);
  sup->live_n--;
  o->live_n--;
  list_remove(&sb->by_owner);
  if (sb->announced && !o->ending)
    retain(sb);
  else
    sandbox_forget(sb);
  owner_check_ended(o);
  supervisor_check_closed(sup);
}

/* ---- events ---- */

void sandbox_event(struct sandbox *sb, enum sandbox_event ev)
{
  struct sandbox_transition t = sandbox_state_next(sb->state, ev);
  if (t.actions & SANDBOX_DO_ABORT) {
    log_error("sandbox %s: event %d in state %s %d makes no sense", sb->id, (int)ev,
              sandbox_state_name(sb->state), (int)sb->state);
    assert(!"impossible sandbox event");
    return;
  }
  sb->state = t.next;
  if (t.actions & SANDBOX_DO_START) do_start(sb);
  if (t.actions & SANDBOX_DO_STOP) do_stop(sb);
  if (t.actions & SANDBOX_DO_CANCEL) do_cancel(sb);
  if (t.actions & SANDBOX_DO_KILL) do_kill(sb);
  if ((t.actions & SANDBOX_DO_DRAIN) && sb->execs_n == 0) sandbox_event(sb, SANDBOX_EV_DRAINED);
  if (t.actions & SANDBOX_DO_BURY) do_bury(sb);
}

void sandbox_end(struct sandbox *sb, enum sandbox_end why)
{
  if (sb->end == END_NONE) sb->end = why;
  sandbox_event(sb, SANDBOX_EV_END);
}

/* The engine's own id takes the place of ours, which nobody was told. */
static void take_id(struct sandbox *sb, const char *id)
{
  struct index *all = &sb->sup->sandboxes;
  index_remove(all, &sb->by_id);
  strcpy(sb->id, id);
  index_add(all, &sb->by_id, index_hash_text(id));
}

static void move_text(char **to, char **from)
{
  free(*to);
  *to = take_ptr(from);
}

/* What the engine took where the caller left it open. It comes from outside: what is no
 * configuration is no news. */
static void take_config(struct sandbox *sb, const struct val *config)
{
  static const char *const fields[] = {"image", "cpu", "memory", "gpu"};
  struct create_args taken, *a = &sb->args;
  struct err err = {0};
  struct val said = val_map();
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    const struct val *v = val_get(config, fields[i]);
    if (v && v->type != VAL_NIL) val_add(&said, fields[i], val_copy(v));
  }
  if (create_args_parse(&said, &sb->sup->defaults, &taken, &err) < 0) {
    log_debug("sandbox %s: its engine tells an odd configuration: %s", sb->id, err.msg);
  } else {
    if (val_get(&said, "image")) move_text(&a->image, &taken.image);
    if (val_get(&said, "cpu")) a->cpu_milli = taken.cpu_milli;
    if (val_get(&said, "memory")) a->mem_mib = taken.mem_mib;
    if (taken.gpu.n == 1 && a->gpu.n > 0) {
      strv_free(&a->gpu);
      a->gpu = taken.gpu;
      taken.gpu = (struct strv){0};
    }
    create_args_free(&taken);
  }
  val_free(&said);
}

static void take_life(struct sandbox *sb, const struct create_op *create)
{
  int64_t expires_s = create->ret_expires_s;
  if (create->ret_created_s > 0) sb->created_s = create->ret_created_s;
  if (expires_s > sb->created_s && expires_s - sb->created_s <= SANDBOX_DAY_S)
    sb->args.timeout_s = (uint32_t)(expires_s - sb->created_s);
  sb->looking.expires_s = expires_s;
  if (create->ret_commands > 0) sb->looking.others = (uint64_t)create->ret_commands;
}

static void on_create_done(struct create_op *create, const struct err *err)
{
  struct sandbox *sb = create->data;
  if (!err && create->ret_id[0]) take_id(sb, create->ret_id);
  if (!err && create->ret_config) take_config(sb, create->ret_config);
  if (!err && sb->adopted) take_life(sb, create);
  if (err && sb->end == END_NONE) {
    sb->end = END_FAILED;
    sb->end_err = *err;
  }
  sandbox_event(sb, err ? SANDBOX_EV_CREATE_FAILED : SANDBOX_EV_CREATED);
}

static void on_box_end(void *data, enum box_end why)
{
  static const enum sandbox_end ends[] = {
      [BOX_END_OOM] = END_OOM,
      [BOX_END_LOST] = END_LOST,
      [BOX_END_ENTRYPOINT] = END_FINISHED,
      [BOX_END_LIFE] = END_LIFE,
      [BOX_END_TERMINATED] = END_TERMINATED,
  };
  struct sandbox *sb = data;
  if (sb->end == END_NONE) sb->end = ends[why];
  if (why == BOX_END_ENTRYPOINT) sb->exit_code = sb->create.ret_entry_code;
  sandbox_event(sb, SANDBOX_EV_BOX_END);
}

/* Told at once to whoever listens, and to the script with its next command's result. */
static void on_refused(void *data, const struct connect_refused *r)
{
  struct sandbox *sb = data;
  struct val v = val_map();
  sb->refusals += r->times;
  if (r->name) val_add(&v, "name", val_str(r->name));
  if (r->address) val_add(&v, "address", val_str(r->address));
  if (r->address) val_add(&v, "port", val_int(r->port));
  val_add(&v, "protocol", val_str(r->name ? "dns" : r->udp ? "udp" : "tcp"));
  val_add(&v, "times", val_int(r->times));
  if (supervisor_listened(sb->sup)) {
    struct val event = event_fields(sb, "connection_refused");
    for (size_t i = 0; i < v.map.n; i++) val_add(&event, v.map.v[i].key, val_copy(&v.map.v[i].val));
    supervisor_emit(sb->sup, sb->owner->id, &event);
  }
  if (sb->refused.type != VAL_LIST) sb->refused = val_list();
  if (sb->refused.list.n < SANDBOX_REFUSED_KEPT)
    val_push(&sb->refused, v);
  else
    val_free(&v);
}

/* A record with nothing behind it yet. */
static struct sandbox *sandbox_new(struct supervisor *sup, struct owner *o,
                                   struct engine_entry *entry, struct create_args *args)
{
  struct sandbox *sb = xcalloc(1, sizeof *sb);
  *sb = (struct sandbox){.sup = sup, .owner = o, .engine = entry, .args = *args};
  *args = (struct create_args){0};
  sb->dying.free = sandbox_free;
  list_init(&sb->execs);
  list_init(&sb->processes);
  list_init(&sb->waiters);
  list_init(&sb->by_age);
  list_init(&sb->by_owner);
  list_init(&sb->dying.node);
  sb->life = (struct timer){.cb = on_life, .data = sb};
  sb->idle = (struct timer){.cb = on_idle, .data = sb};
  ready_init(sb);
  list_init(&sb->looking.waiters);
  sb->created_s = clock_wall_s();
  return sb;
}

static int start_create(struct sandbox *sb, struct op *op, struct err *err)
{
  struct supervisor *sup = sb->sup;
  struct owner *o = sb->owner;
  struct engine_entry *entry = sb->engine;
  sb->op = op;
  sb->create = (struct create_op){.sandbox_id = sb->id,
                                  .adopt = sb->adopted,
                                  .owner = o->id,
                                  .args = &sb->args,
                                  .asked = &op->args,
                                  .on_done = on_create_done,
                                  .on_end = on_box_end,
                                  .on_refused = on_refused,
                                  .data = sb};
  int rc = entry->engine->ops->create(entry->engine, &sb->create, err);
  if (rc < 0) {
    if (err && !err->engine[0]) strcpy(err->engine, entry->name);
    sandbox_free(&sb->dying);
    return rc;
  }
  op->handler_data = sb;
  index_add(&sup->sandboxes, &sb->by_id, index_hash_text(sb->id));
  list_append(&o->live, &sb->by_owner);
  o->live_n++;
  sup->live_n++;
  return 0;
}

int sandbox_create(struct supervisor *sup, struct owner *o, struct op *op, struct create_args *args,
                   struct holding *holding, struct err *err)
{
  struct engine_entry *entry = engine_entry_find(sup, args->engine, "engine", err);
  struct sandbox *sb = sandbox_new(sup, o, entry, args);
  id_sandbox(sb->id);
  int rc = start_create(sb, op, err);
  if (rc < 0) return rc;
  sb->holding = *holding;
  *holding = (struct holding){0};
  return 0;
}

int sandbox_adopt(struct supervisor *sup, struct owner *o, struct op *op, struct create_args *args,
                  const char *id, struct err *err)
{
  struct engine_entry *entry = engine_entry_find(sup, args->engine, "engine", err);
  struct sandbox *sb = sandbox_new(sup, o, entry, args);
  snprintf(sb->id, sizeof sb->id, "%s", id);
  sb->adopted = sb->detached = true;
  return start_create(sb, op, err);
}

/* What the numbers say, taken with care: they come from a file. */
static void take_record(struct sandbox *sb, const struct val *record, const char *id)
{
  int64_t end = val_get_int(record, "end", END_NONE), now = clock_wall_s();
  strcpy(sb->id, id);
  sb->created_s = val_get_int(record, "created_s", 0);
  sb->ended_s = val_get_int(record, "ended_s", 0);
  sb->exit_code = (int)val_get_int(record, "exit_code", 0);
  sb->commands = (uint64_t)val_get_int(record, "commands", 0);
  sb->cost_microusd = val_get_int(record, "microusd", 0);
  sb->end = end > END_NONE && end < END_KINDS ? (enum sandbox_end)end : END_LOST;
  sb->state = SANDBOX_ENDED;
  sb->announced = true;
  if (sb->ended_s == 0) {
    sb->end = END_CRASHED;
    sb->ended_s = now;
    sandbox_record(sb);
  }
  int64_t ago = now > sb->ended_s ? now - sb->ended_s : 0;
  sb->ended_ms = loop_now_ms(sb->sup->loop) - (uint64_t)ago * 1000;
}

int sandbox_restore(struct supervisor *sup, struct owner *o, const struct val *record,
                    struct err *err)
{
  struct create_args args;
  const char *id = val_get_str(record, "sandbox_id", "");
  const struct val *asked = val_get(record, "args");
  struct val none = val_map();
  if (!o || strlen(id) >= ENGINE_ID_SIZE)
    return err_set(err, ERR_INTERNAL, 0, "there is no owner for sandbox %.63s", id);
  struct engine_entry *entry =
      engine_entry_find(sup, val_get_str(record, "engine", ""), "engine", err);
  if (!entry) return -EINVAL;
  int rc = create_args_parse(asked ? asked : &none, &sup->defaults, &args, err);
  if (rc < 0) return rc;
  struct sandbox *sb = sandbox_new(sup, o, entry, &args);
  take_record(sb, record, id);
  index_add(&sup->sandboxes, &sb->by_id, index_hash_text(sb->id));
  list_append(&o->ended, &sb->by_owner);
  list_append(&sup->retained, &sb->by_age);
  sup->retained_n++;
  sandbox_prune(sup);
  return 0;
}

/* The engine does not answer and will not be waited for: whoever waits here is told so. The record
 * stays, because the engine may still write to it. */
void sandbox_abandon(struct sandbox *sb, const struct err *err)
{
  timer_stop(sb->sup->loop, &sb->life);
  timer_stop(sb->sup->loop, &sb->idle);
  ready_stop(sb);
  LIST_FOREACH (it, &sb->execs) sandbox_exec_abandon(list_entry(it, struct exec, node), err);
  if (sb->op) {
    struct op *op = sb->op;
    sb->op = NULL;
    op_finish(op, err);
  }
  while (!list_empty(&sb->waiters)) {
    struct waiter *w = list_entry(sb->waiters.next, struct waiter, node);
    list_remove(&w->node);
    op_finish(w->op, err);
    free(w);
  }
}

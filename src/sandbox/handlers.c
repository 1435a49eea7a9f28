/* The ops of the sandbox module: arguments in, rules, answers out.
 *
 * Each handler parses its arguments into the typed struct, finds what they name within the owner's
 * own sandboxes, and either answers at once or leaves the answer to sandbox.c and exec.c. What the
 * asked engine lacks is refused here, by field, before anything starts: nothing asked for is ever
 * silently ignored. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "core/op.h"
#include "sandbox/supervisor_internal.h"
#include "wire/price.h"
#include "wire/tier.h"

static int not_owner(struct err *err)
{
  return err_set(err, ERR_CANCELLED, 0, "whoever asks has ended");
}

static int refuse_closing(struct supervisor *sup, struct err *err)
{
  if (!sup->closing) return 0;
  return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "this process is shutting down");
}

/* ---- sandbox.create ---- */

int handlers_lacks(const struct engine_entry *e, const char *field, const char *what,
                   struct err *err)
{
  int rc = err_set(err, ERR_UNSUPPORTED, 0, "engine \"%s\" does not support %s", e->name, what);
  if (err) {
    strcpy(err->field, field);
    strcpy(err->engine, e->name);
  }
  return rc;
}

static int check_gpu(const struct engine_entry *e, const struct create_args *a, struct err *err)
{
  if (a->gpu.n == 0 || (e->caps & ENGINE_CAP_GPU)) return 0;
  int rc = err_set(err, ERR_CAPACITY, 0,
                   "engine \"%s\" has no GPU, so it cannot give gpu = \"%s\": it has CPUs only",
                   e->name, a->gpu.v[0]);
  if (err) {
    strcpy(err->field, "gpu");
    strcpy(err->engine, e->name);
  }
  return rc;
}

static int check_caps(const struct engine_entry *e, const struct create_args *a, struct err *err)
{
  if (a->network == NETWORK_OPEN && !(e->caps & ENGINE_CAP_NETWORK))
    return handlers_lacks(e, "network", "network = \"open\"", err);
  if (a->network == NETWORK_ALLOW && !(e->caps & ENGINE_CAP_NETWORK))
    return handlers_lacks(e, "network", "network = { allow = … }", err);
  if (a->volumes_n > 0 && !(e->caps & ENGINE_CAP_VOLUMES))
    return handlers_lacks(e, "volumes", "volumes", err);
  if (a->unencrypted_ports_n > 0 && !(e->caps & ENGINE_CAP_PORTS))
    return handlers_lacks(e, "unencrypted_ports", "unencrypted_ports", err);
  if (a->encrypted_ports_n > 0 && !(e->caps & ENGINE_CAP_PORTS))
    return handlers_lacks(e, "encrypted_ports", "encrypted_ports", err);
  if (a->ready_tcp && !e->engine->ops->probe) return handlers_lacks(e, "ready", "ready", err);
  return 0;
}

/* A directory of the host is read by whoever may, and by all when the operator named it as image.
 */
static int check_image(const struct supervisor *sup, const struct owner *o,
                       const struct create_args *a, struct err *err)
{
  if (strncmp(a->image, "dir:", 4) != 0 || o->allow_dir_images || o->admit) return 0;
  if (strcmp(a->image, sup->defaults.image) == 0) return 0;
  int rc = err_set(err, ERR_DENIED, 0, "image = \"%.200s\" was not granted", a->image);
  if (err) strcpy(err->field, "image");
  err_hint(err, "directories are granted by whoever runs this: regolith run --image dir:PATH");
  return rc;
}

static int check_name(const struct owner *o, const struct create_args *a, struct err *err)
{
  if (!a->name) return 0;
  LIST_FOREACH (it, &o->live) {
    const struct sandbox *sb = list_entry(it, struct sandbox, by_owner);
    if (!sb->args.name || strcmp(a->name, sb->args.name) != 0) continue;
    int rc = err_set(err, ERR_CONFLICT, 0, "a sandbox named \"%s\" is alive already (%s)", a->name,
                     sb->id);
    if (err) {
      strcpy(err->field, "name");
      strcpy(err->sandbox_id, sb->id);
    }
    return rc;
  }
  return 0;
}

static int check_room(const struct supervisor *sup, const struct owner *o, struct err *err)
{
  if (o->max_sandboxes && o->live_n >= o->max_sandboxes) {
    int rc = err_set(err, ERR_LIMIT, 0, "%s may have %u sandboxes alive at once, and has them",
                     o->name[0] ? o->name : "this owner", o->max_sandboxes);
    err_hint(err, "terminate one first, or raise the cap with --max-sandboxes");
    return rc;
  }
  if (sup->max_sandboxes && sup->live_n >= sup->max_sandboxes)
    return err_set(err, ERR_CAPACITY, 0, "this process may have %u sandboxes alive at once",
                   sup->max_sandboxes);
  return 0;
}

/* The budgets are asked last: whatever else refuses a create costs nothing. */
static int create_within_budget(struct supervisor *sup, struct owner *o,
                                const struct engine_entry *e, struct op *op,
                                struct create_args *args, struct err *err)
{
  struct holding holding = {0};
  int64_t amounts[BUDGET_KINDS];
  sandbox_amounts(e, args, amounts);
  int rc = budgets_take(&o->budgets, &holding, amounts, err);
  if (rc < 0) return rc;
  rc = sandbox_create(sup, o, op, args, &holding, err);
  if (rc < 0) budgets_give(&o->budgets, &holding, amounts);
  holding_done(&holding);
  return rc;
}

static int create_start(struct op *op, void *ctx, struct err *err)
{
  struct supervisor *sup = ctx;
  struct create_args args;
  struct owner *o = owner_find(sup, op->owner);
  if (!o || o->ending) return not_owner(err);
  int rc = create_args_parse(&op->args, &sup->defaults, &args, err);
  if (rc < 0) return rc;
  const struct engine_entry *e = engine_entry_find(sup, args.engine, "engine", err);
  args.image_made = made_has(o, args.image);
  rc = e ? refuse_closing(sup, err) : -EINVAL;
  if (rc == 0) rc = check_image(sup, o, &args, err);
  if (rc == 0) rc = check_gpu(e, &args, err); /* no grant would help */
  if (rc == 0 && o->admit) rc = o->admit(o->admit_data, &op->args, &args, err);
  if (rc == 0) rc = check_name(o, &args, err);
  if (rc == 0) rc = check_caps(e, &args, err);
  if (rc == 0) rc = check_room(sup, o, err);
  if (rc == 0) rc = create_within_budget(sup, o, e, op, &args, err);
  create_args_free(&args);
  return rc;
}

static void create_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  if (op->handler_data) sandbox_end(op->handler_data, END_CANCELLED);
}

/* ---- sandbox.exec ---- */

int handlers_check_alive(const struct sandbox *sb, struct err *err)
{
  if (sb->end != END_NONE) return sandbox_ended_err(sb, err);
  if (sb->state == SANDBOX_STARTED) return 0;
  int rc = err_set(err, ERR_CONFLICT, 0, "sandbox %s is still being created", sb->id);
  if (err) strcpy(err->sandbox_id, sb->id);
  return rc;
}

int handlers_check_room(const struct sandbox *sb, struct err *err)
{
  if (sb->execs_n < SANDBOX_EXECS_MAX) return 0;
  return err_set(err, ERR_CAPACITY, 0, "sandbox %s runs %d commands already, the most at once",
                 sb->id, SANDBOX_EXECS_MAX);
}

/* exec, status and terminate cost a little each where anything costs. */
static void call_amounts(const struct sandbox *sb, int64_t ret[BUDGET_KINDS])
{
  memset(ret, 0, BUDGET_KINDS * sizeof *ret);
  if (sb->engine->priced) ret[BUDGET_MICROUSD] = PRICE_CALL_MICROUSD;
}

static int exec_within_budget(struct sandbox *sb, struct op *op, struct exec_args *args,
                              int (*start)(struct sandbox *, struct op *, struct exec_args *,
                                           struct err *),
                              struct err *err)
{
  struct holding paid = {0};
  int64_t amounts[BUDGET_KINDS];
  call_amounts(sb, amounts);
  int rc = budgets_take(&sb->owner->budgets, &paid, amounts, err);
  if (rc == 0) {
    rc = start(sb, op, args, err);
    if (rc < 0) budgets_give(&sb->owner->budgets, &paid, amounts);
  }
  holding_done(&paid);
  return rc;
}

/* args are the callee's, and freed. */
static int start_command(struct supervisor *sup, struct op *op, bool spawn, struct exec_args *args,
                         struct err *err)
{
  struct sandbox *sb = sandbox_find(sup, op->owner, args->sandbox_id, err);
  int rc = sb ? handlers_check_alive(sb, err) : -ENOENT;
  if (rc == 0) rc = handlers_check_room(sb, err);
  if (rc == 0 && spawn && !(sb->engine->caps & ENGINE_CAP_SPAWN))
    rc = handlers_lacks(sb->engine, "engine", "spawn", err);
  if (rc == 0 && args->stdin_stream && !sb->engine->engine->ops->exec_input)
    rc = handlers_lacks(sb->engine, "stdin_stream", "input to a running command", err);
  if (rc == 0)
    rc = exec_within_budget(sb, op, args, spawn ? process_spawn : sandbox_exec_start, err);
  if (rc < 0 && sb && err) {
    strcpy(err->sandbox_id, sb->id);
    strcpy(err->engine, sb->engine->name);
  }
  exec_args_free(args);
  return rc;
}

static int exec_op_start(struct op *op, void *ctx, struct err *err)
{
  struct exec_args args;
  int rc = exec_args_parse(&op->args, &args, err);
  return rc < 0 ? rc : start_command(ctx, op, false, &args, err);
}

static int spawn_op_start(struct op *op, void *ctx, struct err *err)
{
  struct exec_args args;
  int rc = spawn_args_parse(&op->args, &args, err);
  return rc < 0 ? rc : start_command(ctx, op, true, &args, err);
}

void exec_op_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  if (op->handler_data)
    sandbox_exec_kill(op->handler_data,
                      op->cancel_why == ERR_TIMEOUT ? REASON_TIMEOUT : REASON_CANCELLED);
}

static void exec_op_input(struct op *op, void *ctx, const void *data, size_t len)
{
  (void)ctx;
  struct exec *x = op->handler_data;
  if (x && x->args.stdin_stream) sandbox_exec_input(x, data, len);
}

void exec_op_flow(struct op *op, void *ctx, bool paused)
{
  (void)ctx;
  if (op->handler_data) sandbox_exec_flow(op->handler_data, paused);
}

/* ---- ops about one sandbox ---- */

static struct sandbox *find_target(struct op *op, struct supervisor *sup, struct err *err)
{
  struct target_args t;
  if (target_args_parse(op->name, &op->args, &t, err) < 0) return NULL;
  struct sandbox *sb = sandbox_find(sup, op->owner, t.sandbox_id, err);
  if (sb && t.engine && strcmp(t.engine, sb->engine->name) != 0) {
    err_set(err, ERR_SANDBOX_NOT_FOUND, 0, "sandbox %s is not on engine \"%s\" but on \"%s\"",
            sb->id, t.engine, sb->engine->name);
    if (err) strcpy(err->sandbox_id, sb->id);
    sb = NULL;
  }
  target_args_free(&t);
  return sb;
}

static int terminate_start(struct op *op, void *ctx, struct err *err)
{
  struct err own = {0};
  if (!err) err = &own;
  struct sandbox *sb = find_target(op, ctx, err);
  if (!sb) return err_errno(err);
  if (sb->state == SANDBOX_ENDED) return sandbox_ended_err(sb, err);
  struct waiter *w = xcalloc(1, sizeof *w);
  *w = (struct waiter){.op = op, .caused_it = sb->end == END_NONE};
  list_append(&sb->waiters, &w->node);
  op->handler_data = w;
  int64_t amounts[BUDGET_KINDS];
  call_amounts(sb, amounts);
  budgets_drain(&sb->owner->budgets, amounts);
  if (w->caused_it) sandbox_charge(sb, amounts[BUDGET_MICROUSD]);
  sandbox_end(sb, END_TERMINATED);
  return 0;
}

/* Whoever asked stops waiting; the end that it asked for goes on. */
static void terminate_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct waiter *w = op->handler_data;
  if (!w) return;
  struct err err = {0};
  err_set(&err, op->cancel_why, 0, "nobody waits any more for the sandbox to end; it still does");
  list_remove(&w->node);
  free(w);
  op->handler_data = NULL;
  op_finish(op, &err);
}

static int status_start(struct op *op, void *ctx, struct err *err)
{
  struct err own = {0};
  if (!err) err = &own;
  struct sandbox *sb = find_target(op, ctx, err);
  if (!sb) return err_errno(err);
  int64_t amounts[BUDGET_KINDS] = {0};
  if (strcmp(op->name, "sandbox.status") == 0) call_amounts(sb, amounts);
  int rc = budgets_take(&sb->owner->budgets, NULL, amounts, err);
  if (rc < 0) return rc;
  sandbox_charge(sb, amounts[BUDGET_MICROUSD]);
  if (sb->state == SANDBOX_ENDED && amounts[BUDGET_MICROUSD] > 0) sandbox_record(sb);
  if (strcmp(op->name, "sandbox.status") == 0 && look_wanted(sb)) return look_wait(sb, op, err);
  op->result = sandbox_view(sb);
  if (sb->args.entrypoint.n > 0 && !(sb->engine->caps & ENGINE_CAP_ENTRYPOINT))
    val_add(&op->result, "entrypoint", sandbox_entry_view(sb));
  op_finish(op, NULL);
  return 0;
}

static void status_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  look_wait_cancel(op);
}

/* One that this process did not make, of an engine whose sandboxes outlive those who made them: it
 * is used under the same grants as one that is made, and left when its owner ends. */
static int adopt(struct supervisor *sup, struct owner *o, struct op *op,
                 const struct target_args *t, struct err *err)
{
  struct create_args args;
  struct val asked = val_map();
  if (t->engine) val_add(&asked, "engine", val_str(t->engine));
  int rc = create_args_parse(&asked, &sup->defaults, &args, err);
  if (rc == 0) rc = refuse_closing(sup, err);
  if (rc == 0 && o->admit) rc = o->admit(o->admit_data, &asked, &args, err);
  if (rc == 0) rc = check_room(sup, o, err);
  if (rc == 0) rc = sandbox_adopt(sup, o, op, &args, t->sandbox_id, err);
  create_args_free(&args);
  val_free(&asked);
  return rc;
}

static int get_start(struct op *op, void *ctx, struct err *err)
{
  struct supervisor *sup = ctx;
  struct owner *o = owner_find(sup, op->owner);
  struct target_args t;
  int rc = target_args_parse(op->name, &op->args, &t, err);
  if (rc < 0) return rc;
  const char *name = t.engine ? t.engine : sup->defaults.engine;
  const struct engine_entry *e = engine_entry_find(sup, name, "engine", err);
  bool known = sandbox_find(sup, op->owner, t.sandbox_id, NULL) != NULL;
  if (!e)
    rc = -EINVAL;
  else if (!known && o && o->may_adopt && !o->ending && (e->caps & ENGINE_CAP_OUTLIVES_HOST))
    rc = adopt(sup, o, op, &t, err);
  else
    rc = status_start(op, ctx, err);
  target_args_free(&t);
  return rc;
}

/* ---- what it changed ---- */

static void changes_cancel_op(struct op *op, void *ctx)
{
  (void)ctx;
  changes_op_cancel(op);
}

static int diff_start(struct op *op, void *ctx, struct err *err)
{
  struct err own = {0};
  if (!err) err = &own;
  struct sandbox *sb = find_target(op, ctx, err);
  if (!sb) return err_errno(err);
  int rc = handlers_check_alive(sb, err);
  if (rc == 0 && !sb->engine->engine->ops->diff)
    rc = handlers_lacks(sb->engine, "", "sandbox.diff: telling what a sandbox changed", err);
  return rc < 0 ? rc : changes_diff_start(sb, op, err);
}

static int check_new_name(const struct owner *o, const struct snapshot_args *a, const char *what,
                          struct err *err)
{
  if (!a->name && strcmp(what, "sandbox.commit") == 0)
    return err_arg(err, "name", "name is missing: what the image is to be called");
  return a->name && o->admit_name ? o->admit_name(o->admit_data, a->name, err) : 0;
}

static int snapshot_start(struct op *op, void *ctx, struct err *err)
{
  struct snapshot_args a;
  int rc = snapshot_args_parse(op->name, &op->args, &a, err);
  if (rc < 0) return rc;
  struct sandbox *sb = sandbox_find(ctx, op->owner, a.sandbox_id, err);
  rc = sb ? handlers_check_alive(sb, err) : -ENOENT;
  if (rc == 0 && !sb->engine->engine->ops->snapshot)
    rc = handlers_lacks(sb->engine, "", "sandbox.snapshot and commit: images of sandboxes", err);
  if (rc == 0) rc = check_new_name(sb->owner, &a, op->name, err);
  if (rc == 0) rc = changes_snapshot_start(sb, op, a.name, err);
  snapshot_args_free(&a);
  return rc;
}

static int fork_start(struct op *op, void *ctx, struct err *err)
{
  struct fork_args a;
  int rc = fork_args_parse(&op->args, &a, err);
  if (rc < 0) return rc;
  struct sandbox *sb = sandbox_find(ctx, op->owner, a.sandbox_id, err);
  rc = sb ? changes_fork_start(sb, op, a.image, err) : -ENOENT;
  fork_args_free(&a);
  return rc;
}

static void fork_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  changes_fork_cancel(op);
}

static int forget_start(struct op *op, void *ctx, struct err *err)
{
  struct fork_args a;
  struct owner *o = owner_find(ctx, op->owner);
  if (!o) return not_owner(err);
  int rc = forget_args_parse(&op->args, &a, err);
  if (rc < 0) return rc;
  rc = changes_forget(o, a.image, err);
  fork_args_free(&a);
  if (rc == 0) op_finish(op, NULL);
  return rc;
}

static int wait_ready_start(struct op *op, void *ctx, struct err *err)
{
  struct wait_args a;
  int rc = wait_args_parse(&op->args, &a, err);
  if (rc < 0) return rc;
  struct sandbox *sb = sandbox_find(ctx, op->owner, a.sandbox_id, err);
  rc = sb ? handlers_check_alive(sb, err) : -ENOENT;
  if (rc == 0) rc = ready_wait(sb, op, a.timeout_ms, err);
  wait_args_free(&a);
  return rc;
}

static void wait_ready_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  ready_wait_cancel(op);
}

static int extend_start(struct op *op, void *ctx, struct err *err)
{
  struct extend_args a;
  int rc = extend_args_parse(&op->args, &a, err);
  if (rc < 0) return rc;
  struct sandbox *sb = sandbox_find(ctx, op->owner, a.sandbox_id, err);
  rc = sb ? handlers_check_alive(sb, err) : -ENOENT;
  if (rc == 0 && sb->engine->caps & ENGINE_CAP_OUTLIVES_HOST) /* the life-time is its own to keep */
    rc = handlers_lacks(sb->engine, "", "sandbox.extend", err);
  if (rc == 0) rc = sandbox_extend(sb, a.seconds, err);
  extend_args_free(&a);
  if (rc < 0) return rc;
  op->result = sandbox_view(sb);
  op_finish(op, NULL);
  return 0;
}

int64_t supervisor_price_extend(struct supervisor *sup, uint64_t owner, const char *id,
                                uint32_t seconds)
{
  const struct sandbox *sb = sandbox_find(sup, owner, id, NULL);
  if (!sb || handlers_check_alive(sb, NULL) < 0 || seconds > SANDBOX_DAY_S - sb->args.timeout_s)
    return 0;
  return sandbox_extend_price(sb, sb->args.timeout_s + seconds);
}

/* From its script to the host, where only its own life-time ends it. */
static int detach_start(struct op *op, void *ctx, struct err *err)
{
  struct err own = {0};
  if (!err) err = &own;
  struct supervisor *sup = ctx;
  struct sandbox *sb = find_target(op, sup, err);
  if (!sb) return err_errno(err);
  int rc = handlers_check_alive(sb, err);
  if (rc < 0) return rc;
  if (!(sb->engine->caps & ENGINE_CAP_OUTLIVES_HOST)) {
    rc = err_set(err, ERR_UNSUPPORTED, 0,
                 "sandbox %s cannot outlive the script: engine \"%s\" ends with this process",
                 sb->id, sb->engine->name);
    strcpy(err->sandbox_id, sb->id);
    strcpy(err->engine, sb->engine->name);
    err_hint(err, "sandboxes of a running `regolith serve` outlive the scripts that use it");
    return rc;
  }
  sandbox_detach(sb, owner_find(sup, 0));
  op->result = sandbox_view(sb);
  op_finish(op, NULL);
  return 0;
}

/* ---- budget.set ---- */

static int budget_start(struct op *op, void *ctx, struct err *err)
{
  struct supervisor *sup = ctx;
  struct owner *o = owner_find(sup, op->owner);
  if (!o || o->ending) return not_owner(err);
  struct budget_args a;
  int rc = budget_args_parse(&op->args, &a, err);
  if (rc < 0) return rc;
  int64_t limits[BUDGET_KINDS] = {BUDGET_UNBOUND, BUDGET_UNBOUND, BUDGET_UNBOUND};
  if (a.has_usd) limits[BUDGET_MICROUSD] = a.microusd;
  if (a.has_seconds) limits[BUDGET_MS] = (int64_t)a.ms;
  if (a.has_sandboxes) limits[BUDGET_CREATES] = a.sandboxes;
  rc = budgets_add(&o->budgets, limits, false, err);
  if (rc == 0) op_finish(op, NULL);
  return rc;
}

/* ---- lists and prices ---- */

static bool has_tags(const struct sandbox *sb, const struct strv *tags)
{
  for (size_t i = 0; i < tags->n; i++) {
    bool found = false;
    for (size_t k = 0; k < sb->args.tags.n && !found; k++)
      found = strcmp(sb->args.tags.v[k], tags->v[i]) == 0;
    if (!found) return false;
  }
  return true;
}

static bool same(const char *want, const char *have)
{
  return !want || (have && strcmp(want, have) == 0);
}

static bool list_matches(const struct sandbox *sb, const struct list_args *a,
                         const struct val *view)
{
  return same(a->app_id, sb->args.app_id) && same(a->name, sb->args.name) &&
         same(a->engine, sb->engine->name) && has_tags(sb, &a->tags) &&
         (!a->state || same(a->state, val_get_str(view, "state", "")) ||
          same(a->state, val_get_str(view, "status", "")));
}

static void list_add(struct val *out, const struct list *all, const struct list_args *a)
{
  LIST_FOREACH (it, all) {
    const struct sandbox *sb = list_entry(it, struct sandbox, by_owner);
    struct val view = sandbox_view(sb);
    if (list_matches(sb, a, &view))
      val_push(out, view);
    else
      val_free(&view);
  }
}

static int list_start(struct op *op, void *ctx, struct err *err)
{
  struct supervisor *sup = ctx;
  struct list_args a;
  int rc = list_args_parse(&op->args, &a, err);
  if (rc < 0) return rc;
  sandbox_prune(sup);
  const struct owner *o = owner_find(sup, op->owner);
  op->result = val_list();
  if (o) list_add(&op->result, &o->live, &a);
  /* Ended ones only when asked for. */
  if (o && a.state && (strcmp(a.state, "terminated") == 0 || strcmp(a.state, "finished") == 0))
    list_add(&op->result, &o->ended, &a);
  list_args_free(&a);
  op_finish(op, NULL);
  return 0;
}

static int64_t price_of(const struct engine_entry *e, const struct price_args *a)
{
  if (!e->priced) return 0;
  struct create_args create = {.gpu = a->gpu, .timeout_s = a->timeout_s};
  return price_reservation(&create);
}

static int price_start(struct op *op, void *ctx, struct err *err)
{
  struct supervisor *sup = ctx;
  struct price_args a;
  int rc = price_args_parse(&op->args, &a, err);
  if (rc < 0) return rc;
  const struct engine_entry *e =
      engine_entry_find(sup, a.engine ? a.engine : sup->defaults.engine, "engine", err);
  int64_t micro = e ? price_of(e, &a) : 0;
  price_args_free(&a);
  if (!e) return -EINVAL;
  op->result = val_map();
  val_add(&op->result, "usd", val_num(price_usd(micro)));
  val_add(&op->result, "microusd", val_int(micro));
  op_finish(op, NULL);
  return 0;
}

static struct val caps_list(unsigned caps)
{
  static const struct {
    unsigned cap;
    const char *name;
  } names[] = {{ENGINE_CAP_GPU, "gpu"},
               {ENGINE_CAP_NETWORK, "network"},
               {ENGINE_CAP_OUTLIVES_HOST, "detach"},
               {ENGINE_CAP_SNAPSHOT, "snapshot"},
               {ENGINE_CAP_VOLUMES, "volumes"},
               {ENGINE_CAP_PORTS, "ports"},
               {ENGINE_CAP_FILES, "files"}};
  struct val list = val_list();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (caps & names[i].cap) val_push(&list, val_str(names[i].name));
  return list;
}

static int engines_start(struct op *op, void *ctx, struct err *err)
{
  struct supervisor *sup = ctx;
  int rc = no_args_parse(op->name, &op->args, err);
  if (rc < 0) return rc;
  op->result = val_list();
  for (size_t i = 0; i < sup->engines_n; i++) {
    const struct engine_entry *e = sup->engines[i];
    if (!e->engine) continue;
    struct val v = val_map();
    val_add(&v, "name", val_str(e->name));
    val_add(&v, "type", val_str(e->engine->ops->name));
    val_add(&v, "default", val_bool(strcmp(e->name, sup->defaults.engine) == 0));
    val_add(&v, "priced", val_bool(e->priced));
    val_add(&v, "features", caps_list(e->caps));
    val_push(&op->result, v);
  }
  op_finish(op, NULL);
  return 0;
}

/* ---- sandbox.gpus ---- */

/* Engines that know their cards are asked one after another. */
struct gpus_ask {
  struct gpus_op ask;
  struct supervisor *sup;
  struct op *op; /* NULL: cancelled */
  struct val list;
  size_t engine; /* which one is asked */
};

static struct val *tier_row(struct val *list, const char *name)
{
  for (size_t i = 0; i < list->list.n; i++)
    if (strcmp(val_get_str(&list->list.v[i], "gpu", ""), name) == 0) return &list->list.v[i];
  struct val v = val_map();
  const struct tier *t = tier_find_gpu(name);
  val_add(&v, "gpu", val_str(name));
  if (t) {
    val_add(&v, "cpu", val_int(t->cpu_milli / 1000));
    val_add(&v, "memory", val_int(t->mem_mib));
    val_add(&v, "usd_burst", val_num(price_usd(t->burst_microusd)));
    val_add(&v, "usd_per_hour", val_num(price_usd(t->per_hour_microusd)));
  }
  val_add(&v, "engines", val_list());
  val_push(list, v);
  return &list->list.v[list->list.n - 1];
}

static void on_gpu(struct gpus_op *ask, const char *name, unsigned count, unsigned free_n)
{
  struct gpus_ask *g = ask->data;
  struct val *row = tier_row(&g->list, name);
  if (count == 0) return;
  val_push(val_get_mut(row, "engines"), val_str(g->sup->engines[g->engine]->name));
  val_set(row, "count", val_int(val_get_int(row, "count", 0) + count));
  val_set(row, "free", val_int(val_get_int(row, "free", 0) + free_n));
}

static void ask_next(struct gpus_ask *g);

static void on_gpus(struct gpus_op *ask, const struct err *err)
{
  struct gpus_ask *g = ask->data;
  if (err) log_warn("%s", err->msg);
  g->engine++;
  ask_next(g);
}

/* Engines that do not know theirs may have any. */
static void ask_next(struct gpus_ask *g)
{
  for (; g->engine < g->sup->engines_n; g->engine++) {
    const struct engine_entry *e = g->sup->engines[g->engine];
    if (!e->engine || !(e->caps & ENGINE_CAP_GPU)) continue;
    g->ask = (struct gpus_op){.on_gpu = on_gpu, .on_done = on_gpus, .data = g};
    struct err err = {0};
    if (e->engine->ops->gpus && e->engine->ops->gpus(e->engine, &g->ask, &err) == 0) return;
    for (size_t i = 1; i < tier_count() && !e->engine->ops->gpus; i++)
      val_push(val_get_mut(tier_row(&g->list, tier_at(i)->name), "engines"), val_str(e->name));
  }
  struct op *op = g->op;
  if (op) {
    op->handler_data = NULL;
    op->result = g->list;
    op_finish(op, NULL);
  } else {
    val_free(&g->list);
  }
  free(g);
}

static int gpus_start(struct op *op, void *ctx, struct err *err)
{
  int rc = no_args_parse(op->name, &op->args, err);
  if (rc < 0) return rc;
  struct gpus_ask *g = xcalloc(1, sizeof *g);
  *g = (struct gpus_ask){.sup = ctx, .op = op, .list = val_list()};
  for (size_t i = 1; i < tier_count(); i++) tier_row(&g->list, tier_at(i)->name);
  op->handler_data = g;
  ask_next(g);
  return 0;
}

static void gpus_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct gpus_ask *g = op->handler_data;
  if (!g) return;
  g->op = NULL;
  op->handler_data = NULL;
  struct err err = {0};
  err_set(&err, ERR_CANCELLED, 0, "cancelled");
  op_finish(op, &err);
}

static const struct op_handler handlers[] = {
    {.name = "sandbox.create", .start = create_start, .cancel = create_cancel},
    {.name = "sandbox.exec",
     .start = exec_op_start,
     .cancel = exec_op_cancel,
     .input = exec_op_input,
     .flow = exec_op_flow},
    {.name = "sandbox.spawn", .start = spawn_op_start, .cancel = process_spawn_cancel},
    {.name = "sandbox.terminate", .start = terminate_start, .cancel = terminate_cancel},
    {.name = "sandbox.status", .start = status_start, .cancel = status_cancel},
    {.name = "sandbox.get", .start = get_start, .cancel = create_cancel},
    {.name = "sandbox.list", .start = list_start},
    {.name = "sandbox.extend", .start = extend_start},
    {.name = "sandbox.wait_ready", .start = wait_ready_start, .cancel = wait_ready_cancel},
    {.name = "sandbox.detach", .start = detach_start},
    {.name = "sandbox.diff", .start = diff_start, .cancel = changes_cancel_op},
    {.name = "sandbox.snapshot", .start = snapshot_start, .cancel = changes_cancel_op},
    {.name = "sandbox.commit", .start = snapshot_start, .cancel = changes_cancel_op},
    {.name = "sandbox.fork", .start = fork_start, .cancel = fork_cancel},
    {.name = "sandbox.forget", .start = forget_start},
    {.name = "sandbox.price", .start = price_start},
    {.name = "sandbox.engines", .start = engines_start},
    {.name = "sandbox.gpus", .start = gpus_start, .cancel = gpus_cancel},
    {.name = "budget.set", .start = budget_start},
};

void handlers_register(struct supervisor *sup)
{
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    ops_register(sup->ops, &handlers[i], sup);
  file_handlers_register(sup);
  process_handlers_register(sup);
}

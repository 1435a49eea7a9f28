/* What a sandbox changed: diff, snapshot and commit, and sandboxes made of that.
 *
 * The engine does the work and may go on with it when the sandbox ends, so a call has a record of
 * its own, which knows its owner by id only. An owner may use the images that it made, whatever
 * else it may use; those without a name are the engine's to keep until the owner forgets them or
 * ends. A fork is a create like any other, asked for anew with the options of its model, so that
 * plugins, grants and budgets see it.
 *
 * asked → (changes) → answered, gone */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "core/op.h"
#include "sandbox/supervisor_internal.h"

struct made {
  struct list node; /* owner.made */
  char *image;      /* owned: as a create says it */
  struct engine_entry *engine;
  bool kept; /* by the engine, until it is dropped */
};

/* ---- images of an owner ---- */

static struct made *find_made(const struct owner *o, const char *image)
{
  LIST_FOREACH (it, &o->made) {
    struct made *m = list_entry(it, struct made, node);
    if (strcmp(m->image, image) == 0) return m;
  }
  return NULL;
}

bool made_has(const struct owner *o, const char *image)
{
  return find_made(o, image) != NULL;
}

static void add_made(struct owner *o, const char *image, struct engine_entry *engine, bool kept)
{
  if (find_made(o, image)) return;
  struct made *m = xcalloc(1, sizeof *m);
  *m = (struct made){.image = xstrdup(image), .engine = engine, .kept = kept};
  list_append(&o->made, &m->node);
  if (kept) o->kept_n++;
}

static void drop_image(struct engine_entry *e, const char *image)
{
  if (e->engine) e->engine->ops->image_drop(e->engine, image);
}

static void remove_made(struct owner *o, struct made *m)
{
  if (m->kept) {
    o->kept_n--;
    drop_image(m->engine, m->image);
  }
  list_remove(&m->node);
  free(m->image);
  free(m);
}

void made_free(struct owner *o)
{
  while (!list_empty(&o->made)) remove_made(o, list_entry(o->made.next, struct made, node));
}

int changes_forget(struct owner *o, const char *image, struct err *err)
{
  struct made *m = find_made(o, image);
  if (!m)
    return err_set(err, ERR_IMAGE_NOT_FOUND, 0, "\"%.200s\" is no image of a sandbox of yours",
                   image);
  remove_made(o, m);
  return 0;
}

/* ---- calls ---- */

struct changes_call {
  struct supervisor *sup;
  struct engine_entry *engine;
  uint64_t owner;
  struct op *op;
  char *name; /* owned: of the image; NULL = none */
  struct changes_op run;
  struct val list; /* of a diff */
  size_t bytes;    /* of the paths in it */
  struct dying dying;
};

static void call_free(struct dying *d)
{
  struct changes_call *c = list_entry(d, struct changes_call, dying);
  val_free(&c->list);
  free(c->name);
  free(c);
}

static struct changes_call *call_new(struct sandbox *sb, struct op *op)
{
  struct changes_call *c = xcalloc(1, sizeof *c);
  *c = (struct changes_call){.sup = sb->sup, .engine = sb->engine, .owner = op->owner, .op = op};
  c->run = (struct changes_op){.box = sb->create.ret_box, .data = c};
  c->dying.free = call_free;
  list_init(&c->dying.node);
  return c;
}

static int call_start(struct changes_call *c, struct op *op,
                      int (*start)(struct engine *e, struct changes_op *op, struct err *err),
                      struct err *err)
{
  int rc = start(c->engine->engine, &c->run, err);
  if (rc < 0) {
    if (err && !err->engine[0]) strcpy(err->engine, c->engine->name);
    call_free(&c->dying);
    return rc;
  }
  op->handler_data = c;
  return 0;
}

static void call_finish(struct changes_call *c, const struct err *err)
{
  struct op *op = c->op;
  struct err own;
  if (err && !err->engine[0]) {
    own = *err;
    strcpy(own.engine, c->engine->name);
    err = &own;
  }
  c->op = NULL;
  op->handler_data = NULL;
  op_finish(op, err);
  supervisor_bury(c->sup, &c->dying);
}

void changes_op_cancel(struct op *op)
{
  struct changes_call *c = op->handler_data;
  if (c) c->engine->engine->ops->changes_cancel(c->engine->engine, &c->run);
}

/* ---- diff ---- */

static const char *type_name(char type)
{
  switch (type) {
  case 'd': return "directory";
  case 'l': return "symlink";
  case '-': return "file";
  default: return "special";
  }
}

static void on_change(struct changes_op *run, const char *kind, char type, const char *path)
{
  struct changes_call *c = run->data;
  c->bytes += strlen(path) + 64;
  if (c->bytes > SANDBOX_CHANGES_MAX) return;
  struct val v = val_map();
  val_add(&v, "path", val_str(path));
  val_add(&v, "kind", val_str(kind));
  val_add(&v, "type", val_str(type_name(type)));
  val_push(&c->list, v);
}

static void on_diff_done(struct changes_op *run, const struct err *err)
{
  struct changes_call *c = run->data;
  struct err own = {0};
  if (!err && c->bytes > SANDBOX_CHANGES_MAX) {
    err_set(&own, ERR_PAYLOAD_TOO_LARGE, 0, "there are more than %u MiB of changes",
            SANDBOX_CHANGES_MAX >> 20);
    err = &own;
  }
  if (!err) {
    c->op->result = c->list;
    c->list = (struct val){0};
  }
  call_finish(c, err);
}

int changes_diff_start(struct sandbox *sb, struct op *op, struct err *err)
{
  struct changes_call *c = call_new(sb, op);
  c->list = val_list();
  c->run.on_change = on_change;
  c->run.on_done = on_diff_done;
  return call_start(c, op, sb->engine->engine->ops->diff, err);
}

/* ---- snapshot, commit ---- */

static void on_snapshot_done(struct changes_op *run, const struct err *err)
{
  struct changes_call *c = run->data;
  struct owner *o = owner_find(c->sup, c->owner);
  const char *image = run->ret_image;
  if (o && !c->name) o->kept_n--; /* it was counted while it was being made */
  if (!err && o) {
    add_made(o, image, c->engine, !c->name);
    if (c->name) add_made(o, c->name, c->engine, false);
  } else if (!err && !c->name) {
    drop_image(c->engine, image);
  }
  if (!err) {
    c->op->result = val_map();
    val_add(&c->op->result, "image", val_str(image));
    if (c->name) val_add(&c->op->result, "name", val_str(c->name));
  }
  call_finish(c, err);
}

int changes_snapshot_start(struct sandbox *sb, struct op *op, const char *name, struct err *err)
{
  struct owner *o = sb->owner;
  if (!name && o->kept_n >= SANDBOX_IMAGES_KEPT) {
    int rc = err_set(err, ERR_LIMIT, 0, "%s keeps %d snapshots without a name, the most at once",
                     o->name[0] ? o->name : "this owner", SANDBOX_IMAGES_KEPT);
    err_hint(err, "give them names, or sandbox.forget those that are not needed any more");
    return rc;
  }
  struct changes_call *c = call_new(sb, op);
  c->name = name ? xstrdup(name) : NULL;
  c->run.name = c->name;
  c->run.on_done = on_snapshot_done;
  int rc = call_start(c, op, sb->engine->engine->ops->snapshot, err);
  if (rc == 0 && !name) o->kept_n++;
  return rc;
}

/* ---- fork ---- */

static void on_forked(struct op *inner, const struct err *err)
{
  struct op *op = inner->client_data;
  op->handler_data = NULL;
  op->result = inner->result;
  inner->result = (struct val){0};
  op_free(inner);
  op_finish(op, err);
}

int changes_fork_start(struct sandbox *sb, struct op *op, const char *image, struct err *err)
{
  static const struct op_client client = {.on_done = on_forked};
  struct op *inner = op_new("sandbox.create");
  inner->args = create_args_again(&sb->args);
  val_set(&inner->args, "image", val_str(image));
  inner->owner = op->owner;
  inner->client = &client;
  inner->client_data = op;
  int rc = op_submit(sb->sup->ops, inner, err);
  if (rc < 0)
    op_free(inner);
  else
    op->handler_data = inner;
  return rc;
}

void changes_fork_cancel(struct op *op)
{
  if (op->handler_data) op_cancel(op->handler_data, op->cancel_why);
}

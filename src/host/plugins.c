/* Plugins: the operator's own Lua, asked before a sandbox is made and told of what became of it.
 *
 * Owns each plugin's script, its two queues and the calls it has not answered. A plugin is a script
 * like any other, in this process, with an owner, a memory cap and file grants of its own; what it
 * runs is lua/regolith/plugin.lua, which takes calls and events from here (plugin.next) and answers
 * calls (plugin.reply). So a plugin can do nothing to a script but answer late, and there is a
 * deadline for that: its own runtime ends a hook that takes too long, and one that does not even
 * obey that is ended with all of the plugin. Whatever goes wrong with a plugin that has a
 * before_create, creates are refused from then on (a policy that is gone allows nothing); events
 * are dropped with a warning, and their queue is bounded.
 *
 * a plugin: loading → ready → ended
 * a create: asked of each plugin in turn → handed on to the supervisor, or refused */
#include "host/plugins.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/embedded.h"
#include "base/list.h"
#include "base/log.h"
#include "base/val.h"
#include "core/loop.h"
#include "core/op.h"
#include "host/files.h"
#include "sandbox/supervisor.h"
#include "script/script.h"
#include "wire/op.h"

enum {
  SLACK_MS = 1000, /* a hook past its time has so long to be ended by its own runtime */
  LOAD_MS = 10000,
  CLOSE_MS = 5000,
  MAX_EVENTS = 10000, /* that a plugin has not taken */
  MAX_CALLS = 10000,  /* that a plugin has not answered */
  TALK_MS = 1000,     /* what a plugin says is counted over so long */
  TALK_BYTES = 64 << 10
};

enum queue { QUEUE_CALLS, QUEUE_EVENTS, QUEUES };
enum hook { HOOK_BEFORE_CREATE, HOOK_CREATED, HOOK_EXEC_DONE, HOOK_TERMINATED, HOOKS };

static const char *const hook_names[HOOKS] = {"before_create", "created", "exec_done",
                                              "terminated"};
static const char *const queue_names[QUEUES] = {"calls", "events"};

struct tool {
  char *name;      /* owned */
  struct val text; /* of a file, for the script's own state; nil: a function of the plugin */
  char *path;      /* owned; of the file */
};

struct plugin {
  struct plugins *all;
  char *name, *path, *dir; /* owned; path and dir NULL where embedded */
  char *text, *option;     /* owned; option may be NULL */
  size_t len;
  uint64_t hook_ms;      /* the time each of its hooks has */
  uint64_t owner;        /* at the supervisor */
  struct script *script; /* owned; NULL once ended */
  enum { PLUGIN_LOADING, PLUGIN_READY, PLUGIN_ENDED } state;
  struct err ended; /* why */
  bool hooks[HOOKS];
  struct tool *tools; /* owned */
  size_t tools_n;
  struct strv read_dirs, write_dirs;
  struct {
    struct val pending; /* a list: not taken yet */
    struct op *waiting; /* plugin.next, or NULL */
  } queues[QUEUES];
  size_t dropped;    /* events */
  struct list calls; /* struct plugin_call.node */
  size_t calls_n;
  struct talk {
    uint64_t since_ms; /* the window now counted */
    size_t bytes, dropped;
  } talks[2]; /* what it says; its warnings and errors, so that noise does not hide them */
};

/* A create on its way through the plugins, or a tool that a script called. */
struct plugin_call {
  struct list node; /* struct plugin.calls: of the one that is asked */
  uint64_t id;
  struct plugin *plugin;
  size_t at; /* its place in order */
  struct op *op;
  bool is_tool;
  struct timer deadline; /* of a hook */
};

struct plugins {
  struct plugins_conf conf;
  struct plugin **v; /* owned, in order of registration */
  size_t n;
  uint64_t next_call;
  size_t loading;
  struct timer limit; /* of loading, and of closing */
  bool load_timed_out, closing;
  size_t alive; /* scripts that have not ended */
  struct defer closed;
  void (*on_closed)(void *data);
  void *on_closed_data;
};

static struct plugin *find_owner(const struct plugins *all, uint64_t owner)
{
  for (size_t i = 0; i < all->n; i++)
    if (all->v[i]->owner == owner) return all->v[i];
  return NULL;
}

static struct plugin *find_name(const struct plugins *all, const char *name, size_t len)
{
  for (size_t i = 0; i < all->n; i++)
    if (strncmp(all->v[i]->name, name, len) == 0 && !all->v[i]->name[len]) return all->v[i];
  return NULL;
}

/* --- What a plugin says --------------------------------------------------------------------------
 */

static void tell_dropped(const struct plugin *p, struct talk *t)
{
  if (t->dropped) log_warn("plugin %s: %zu more lines were not shown", p->name, t->dropped);
  t->bytes = t->dropped = 0;
}

/* A plugin that says more than people could read is cut short, and that is said once a second. */
static bool may_talk(const struct plugin *p, struct talk *t, size_t len)
{
  uint64_t now = loop_now_ms(p->all->conf.loop);
  if (now - t->since_ms >= TALK_MS) {
    tell_dropped(p, t);
    t->since_ms = now;
  }
  t->bytes += len;
  if (t->bytes <= TALK_BYTES) return true;
  t->dropped++;
  return false;
}

static void on_log(void *data, enum log_level level, const char *text, size_t len)
{
  struct plugin *p = data;
  while (len > 0 && text[len - 1] == '\n') len--;
  if (may_talk(p, &p->talks[level >= LOG_WARN], len))
    log_write(level, "plugin %s: %.*s", p->name, (int)len, text);
}

static void on_output(void *data, const char *text, size_t len)
{
  on_log(data, LOG_INFO, text, len);
}

static void on_progress(void *data, double done, double total, const char *text)
{
  (void)data, (void)done, (void)total, (void)text;
}

static void on_task(void *data, uint64_t task, uint64_t parent, const char *name,
                    const char *outcome)
{
  (void)data, (void)task, (void)parent, (void)name, (void)outcome;
}

static void on_done(void *data, const struct script_result *result);

static const struct script_hooks hooks = {.on_output = on_output,
                                          .on_log = on_log,
                                          .on_progress = on_progress,
                                          .on_task = on_task,
                                          .on_done = on_done};

/* --- Queues --------------------------------------------------------------------------------------
 */

static void give(struct plugin *p, enum queue q)
{
  struct op *op = p->queues[q].waiting;
  if (!op || p->queues[q].pending.list.n == 0) return;
  p->queues[q].waiting = NULL;
  op->result = p->queues[q].pending;
  p->queues[q].pending = val_list();
  op_finish(op, NULL);
}

static void tell(struct plugin *p, enum queue q, struct val message)
{
  val_push(&p->queues[q].pending, message);
  give(p, q);
}

static int next_start(struct op *op, void *ctx, struct err *err)
{
  struct plugin *p = find_owner(ctx, op->owner);
  const char *name = val_get_str(&op->args, "queue", "");
  enum queue q = strcmp(name, queue_names[QUEUE_CALLS]) == 0 ? QUEUE_CALLS : QUEUE_EVENTS;
  if (!p) return err_set(err, ERR_DENIED, 0, "plugin.next is for plugins");
  if (p->queues[q].waiting) return err_set(err, ERR_CONFLICT, 0, "somebody waits already");
  p->queues[q].waiting = op;
  op->handler_data = p;
  if (q == QUEUE_EVENTS && p->state == PLUGIN_LOADING) {
    p->state = PLUGIN_READY;
    if (--p->all->loading == 0) loop_stop(p->all->conf.loop);
  }
  give(p, q);
  return 0;
}

static void next_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct plugin *p = op->handler_data;
  for (int q = 0; q < QUEUES; q++)
    if (p->queues[q].waiting == op) p->queues[q].waiting = NULL;
  struct err err = {0};
  err_set(&err, op->cancel_why, 0, "nobody waits any more");
  op_finish(op, &err);
}

/* --- Calls ---------------------------------------------------------------------------------------
 */

static void ask_next(struct plugin_call *c);

static void leave_plugin(struct plugin_call *c)
{
  timer_stop(c->plugin->all->conf.loop, &c->deadline);
  list_remove(&c->node);
  c->plugin->calls_n--;
}

static void finish_call(struct plugin_call *c, const struct err *err)
{
  struct op *op = c->op;
  op->handler_data = NULL;
  free(c);
  op_finish(op, err);
}

/* The plugin gave no answer that says anything about this create: it is not made. */
static void refuse(struct plugin_call *c, const char *why)
{
  struct err err = {0};
  const char *name = c->plugin->name;
  err_set(&err, c->is_tool ? ERR_INTERNAL : ERR_DENIED, 0,
          c->is_tool ? "plugin %s: %s" : "plugin %s failed, so no sandbox is made: %s", name, why);
  if (!c->is_tool) err_hint(&err, "tell whoever runs this: regolith run --plugin %s", name);
  finish_call(c, &err);
}

static void end_plugin(struct plugin *p, const struct err *why)
{
  p->state = PLUGIN_ENDED;
  script_cancel(p->script, SCRIPT_LIMIT, why, true);
}

static void on_hook_deadline(struct timer *t)
{
  struct plugin_call *c = t->data;
  struct plugin *p = c->plugin;
  struct err why = {0};
  err_set(&why, ERR_TIMEOUT, 0, "before_create did not end when its time was over");
  leave_plugin(c);
  refuse(c, why.msg);
  p->ended = why;
  end_plugin(p, &why);
}

static struct val message_for(const struct plugin_call *c, const char *kind)
{
  struct val m = val_map();
  val_add(&m, "id", val_int((int64_t)c->id));
  val_add(&m, "kind", val_str(kind));
  const struct plugins_conf *conf = &c->plugin->all->conf;
  const char *script = conf->owner_name(conf->data, c->op->owner);
  struct val info = val_map();
  val_add(&info, "script", val_str(script ? script : ""));
  val_add(&m, "info", info);
  return m;
}

static int ask(struct plugin_call *c, struct plugin *p, struct val message, struct err *err)
{
  if (p->calls_n >= MAX_CALLS) {
    val_free(&message);
    return err_set(err, ERR_CAPACITY, 0, "plugin %s has %d calls to answer", p->name, MAX_CALLS);
  }
  list_append(&p->calls, &c->node);
  p->calls_n++;
  tell(p, QUEUE_CALLS, message);
  return 0;
}

static int describe_create(const struct plugins *all, const struct val *asked, struct val *ret,
                           struct err *err)
{
  struct create_args args;
  struct create_defaults defaults = {.engine = all->conf.default_engine,
                                     .image = all->conf.default_image};
  int rc = create_args_parse(asked, &defaults, &args, err);
  if (rc < 0) return rc;
  *ret = create_args_config(&args);
  create_args_free(&args);
  return 0;
}

static int ask_before_create(struct plugin_call *c, struct plugin *p, struct err *err)
{
  struct val config;
  c->plugin = p;
  if (p->state == PLUGIN_ENDED) {
    err_set(err, ERR_DENIED, 0, "plugin %s has ended, so no sandbox is made: %s", p->name,
            p->ended.msg);
    return -EACCES;
  }
  int rc = describe_create(p->all, &c->op->args, &config, err);
  if (rc < 0) return rc;
  c->id = ++p->all->next_call;
  struct val m = message_for(c, hook_names[HOOK_BEFORE_CREATE]);
  val_set(val_get_mut(&m, "info"), "config", config);
  val_add(&m, "opts", val_copy(&c->op->args));
  rc = ask(c, p, m, err);
  if (rc == 0) timer_start(p->all->conf.loop, &c->deadline, p->hook_ms + SLACK_MS);
  return rc;
}

/* The next plugin that wants to know; behind the last one comes the supervisor. */
static void ask_next(struct plugin_call *c)
{
  struct plugins *all = c->plugin->all;
  struct err err = {0};
  for (; c->at < all->n; c->at++) {
    struct plugin *p = all->v[c->at];
    if (!p->hooks[HOOK_BEFORE_CREATE]) continue;
    if (ask_before_create(c, p, &err) < 0) finish_call(c, &err);
    return;
  }
  struct op *op = c->op;
  free(c);
  op_pass(op);
}

static struct plugin_call *call_new(struct plugins *all, struct op *op, bool is_tool)
{
  struct plugin_call *c = xcalloc(1, sizeof *c);
  c->plugin = all->v[0];
  c->op = op;
  c->is_tool = is_tool;
  c->deadline = (struct timer){.cb = on_hook_deadline, .data = c};
  list_init(&c->node);
  op->handler_data = c;
  return c;
}

static int create_start(struct op *op, void *ctx, struct err *err)
{
  struct plugins *all = ctx;
  (void)err;
  if (!all->conf.owner_name(all->conf.data, op->owner))
    op_pass(op); /* a plugin's own, or the program's */
  else
    ask_next(call_new(all, op, false));
  return 0;
}

static void call_cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct plugin_call *c = op->handler_data;
  struct err err = {0};
  err_set(&err, op->cancel_why, 0, "%s was cancelled while plugin %s was asked", op->name,
          c->plugin->name);
  struct val m = val_map();
  val_add(&m, "cancel", val_int((int64_t)c->id));
  leave_plugin(c);
  tell(c->plugin, QUEUE_CALLS, m);
  finish_call(c, &err);
}

/* --- plugin.reply: { id, value } or { id, error = { code, message, … } } or { id, failure } ------
 */

static void read_error(const struct val *v, struct err *ret)
{
  enum err_kind kind = err_kind_from_code(val_get_str(v, "code", ""));
  err_set(ret, kind, 0, "%s", val_get_str(v, "message", "refused by a plugin"));
  snprintf(ret->field, sizeof ret->field, "%s", val_get_str(v, "field", ""));
  snprintf(ret->hint, sizeof ret->hint, "%s", val_get_str(v, "hint", ""));
}

static void take_value(struct plugin_call *c, struct val *reply)
{
  struct val *value = val_get_mut(reply, "value"), taken = {0};
  if (value) {
    taken = *value;
    *value = (struct val){0};
  }
  if (c->is_tool) {
    c->op->result = val_map();
    val_add(&c->op->result, "values", taken);
    finish_call(c, NULL);
    return;
  }
  val_free(&c->op->args);
  c->op->args = taken;
  c->at++;
  ask_next(c);
}

static int reply_start(struct op *op, void *ctx, struct err *err)
{
  struct plugin *p = find_owner(ctx, op->owner);
  if (!p) return err_set(err, ERR_DENIED, 0, "plugin.reply is for plugins");
  uint64_t id = (uint64_t)val_get_int(&op->args, "id", 0);
  LIST_FOREACH (it, &p->calls) {
    struct plugin_call *c = list_entry(it, struct plugin_call, node);
    if (c->id != id) continue;
    const struct val *error = val_get(&op->args, "error");
    const char *failure = val_get_str(&op->args, "failure", NULL);
    struct err said = {0};
    leave_plugin(c);
    if (error) {
      read_error(error, &said);
      finish_call(c, &said);
    } else if (failure) {
      refuse(c, failure);
    } else {
      take_value(c, &op->args);
    }
    break;
  }
  op_finish(op, NULL); /* of a call that was given up meanwhile: nobody listens */
  return 0;
}

/* --- Tools ---------------------------------------------------------------------------------------
 */

static struct tool *find_tool(const struct plugin *p, const char *name)
{
  for (size_t i = 0; i < p->tools_n; i++)
    if (strcmp(p->tools[i].name, name) == 0) return &p->tools[i];
  return NULL;
}

/* plugin.call { plugin, tool, args } → { values } */
static int tool_start(struct op *op, void *ctx, struct err *err)
{
  struct plugins *all = ctx;
  const char *name = val_get_str(&op->args, "plugin", "");
  const char *tool = val_get_str(&op->args, "tool", "");
  struct plugin *p = find_name(all, name, strlen(name));
  const struct tool *t = p ? find_tool(p, tool) : NULL;
  if (!t || t->text.type != VAL_NIL)
    return err_set(err, ERR_NOT_FOUND, 0, "there is no tool \"%s\" of a plugin \"%s\"", tool, name);
  if (p->state != PLUGIN_READY)
    return err_set(err, ERR_INTERNAL, 0, "plugin %s has ended: %s", name, p->ended.msg);
  struct val *args = val_get_mut(&op->args, "args");
  if (args && args->type != VAL_LIST && !(args->type == VAL_MAP && args->map.n == 0))
    return err_arg(err, "args", "args must be a list");
  struct plugin_call *c = call_new(all, op, true);
  c->plugin = p;
  c->id = ++all->next_call;
  struct val m = message_for(c, "tool");
  val_add(&m, "tool", val_str(tool));
  if (args) {
    val_add(&m, "args", *args);
    *args = (struct val){0};
  }
  int rc = ask(c, p, m, err);
  if (rc < 0) free(c);
  return rc;
}

/* What `require "NAME"` runs: a table of its tools. */
static struct val table_of_tools(const struct plugin *p)
{
  struct buf b = {0};
  size_t len;
  buf_puts(&b, "return {\n");
  for (size_t i = 0; i < p->tools_n; i++)
    buf_printf(&b, "  %s = require \"%s.%s\",\n", p->tools[i].name, p->name, p->tools[i].name);
  buf_puts(&b, "}\n");
  char *text = buf_take(&b, &len);
  return val_take_bytes(text, len);
}

int plugins_module(void *plugins, const char *name, struct val *ret, struct err *err)
{
  size_t len = strcspn(name, ".");
  const struct plugin *p = find_name(plugins, name, len);
  const struct tool *t = p && name[len] ? find_tool(p, name + len + 1) : NULL;
  if (!p || p->tools_n == 0 || (name[len] && !t))
    return err_set(err, ERR_NOT_FOUND, ENOENT, "no plugin has a module \"%s\"", name);
  *ret = val_map();
  if (t && t->text.type == VAL_NIL) {
    val_add(ret, "plugin", val_str(p->name));
    val_add(ret, "tool", val_str(t->name));
    return 0;
  }
  val_add(ret, "text", t ? val_copy(&t->text) : table_of_tools(p));
  val_add(ret, "path", val_str(t ? t->path : name));
  return 0;
}

/* --- plugin.load and plugin.declare --------------------------------------------------------------
 */

static int load_start(struct op *op, void *ctx, struct err *err)
{
  const struct plugin *p = find_owner(ctx, op->owner);
  if (!p) return err_set(err, ERR_DENIED, 0, "plugin.load is for plugins");
  op->result = val_map();
  val_add(&op->result, "name", val_str(p->name));
  val_add(&op->result, "option", val_str(p->option));
  val_add(&op->result, "text", val_bytes(p->text, p->len));
  val_add(&op->result, "path", val_str(p->path));
  op_finish(op, NULL);
  return 0;
}

static int read_tool(const struct plugin *p, const char *name, const struct val *file,
                     struct tool *ret, struct err *err)
{
  *ret = (struct tool){0};
  if (file->type == VAL_STR) {
    if (!p->dir)
      return err_set(err, ERR_UNSUPPORTED, 0, "tools of embedded plugins are functions, not files");
    int rc = files_read_text(p->dir, file->s.p, &ret->text, err);
    if (rc < 0) {
      err_wrap(err, "tools.%s", name);
      return rc;
    }
    struct buf path = {0};
    buf_printf(&path, "%s/%s", p->dir, file->s.p);
    ret->path = buf_take(&path, NULL);
  }
  ret->name = xstrdup(name);
  return 0;
}

static int read_tools(struct plugin *p, const struct val *tools, struct err *err)
{
  if (!tools || tools->type != VAL_MAP) return 0;
  p->tools = xcalloc(tools->map.n, sizeof *p->tools);
  for (size_t i = 0; i < tools->map.n; i++) {
    const struct val_pair *pair = &tools->map.v[i];
    int rc = read_tool(p, pair->key, &pair->val, &p->tools[p->tools_n], err);
    if (rc < 0) return rc;
    p->tools_n++;
  }
  return 0;
}

static void read_dirs(struct strv *ret, const struct val *list)
{
  for (size_t i = 0; list && list->type == VAL_LIST && i < list->list.n; i++)
    if (list->list.v[i].type == VAL_STR) strv_add(ret, list->list.v[i].s.p);
}

/* { limit = seconds, hooks = { NAME = true }, tools = { NAME = true | FILE }, read, write } */
static int declare_start(struct op *op, void *ctx, struct err *err)
{
  struct plugin *p = find_owner(ctx, op->owner);
  if (!p || p->state != PLUGIN_LOADING || p->tools)
    return err_set(err, ERR_DENIED, 0, "plugin.declare is for plugins, once");
  p->hook_ms = (uint64_t)(val_get_num(&op->args, "limit", 0) * 1000);
  const struct val *said = val_get(&op->args, "hooks");
  for (int h = 0; said && h < HOOKS; h++) p->hooks[h] = val_get_bool(said, hook_names[h], false);
  int rc = read_tools(p, val_get(&op->args, "tools"), err);
  if (rc < 0) return rc;
  read_dirs(&p->read_dirs, val_get(&op->args, "read"));
  read_dirs(&p->write_dirs, val_get(&op->args, "write"));
  op_finish(op, NULL);
  return 0;
}

/* --- Events --------------------------------------------------------------------------------------
 */

static enum hook hook_of_event(const char *event)
{
  static const char *const events[HOOKS] = {"", "sandbox_created", "exec_done", "sandbox_ended"};
  for (int h = HOOK_CREATED; h < HOOKS; h++)
    if (strcmp(events[h], event) == 0) return (enum hook)h;
  return HOOKS;
}

static void tell_event(struct plugin *p, enum hook h, const char *script, const struct val *fields)
{
  if (p->state != PLUGIN_READY || !p->hooks[h]) return;
  if (p->queues[QUEUE_EVENTS].pending.list.n >= MAX_EVENTS) {
    if (p->dropped++ == 0)
      log_warn("plugin %s does not keep up: it does not hear of everything", p->name);
    return;
  }
  struct val info = val_copy(fields), m = val_map();
  val_remove(&info, "event");
  val_remove(&info, "owner");
  val_set(&info, "script", val_str(script));
  val_add(&m, "kind", val_str(hook_names[h]));
  val_add(&m, "info", info);
  tell(p, QUEUE_EVENTS, m);
}

static void on_event(void *data, uint64_t owner, const struct val *fields)
{
  struct plugins *all = data;
  enum hook h = hook_of_event(val_get_str(fields, "event", ""));
  const char *script = h == HOOKS ? NULL : all->conf.owner_name(all->conf.data, owner);
  for (size_t i = 0; script && i < all->n; i++) tell_event(all->v[i], h, script, fields);
}

/* --- Life ----------------------------------------------------------------------------------------
 */

static const struct op_handler handlers[] = {
    {.name = "plugin.load", .start = load_start},
    {.name = "plugin.declare", .start = declare_start},
    {.name = "plugin.next", .start = next_start, .cancel = next_cancel},
    {.name = "plugin.reply", .start = reply_start},
    {.name = "plugin.call", .start = tool_start, .cancel = call_cancel}};
static const struct op_handler in_front = {
    .name = "sandbox.create", .start = create_start, .cancel = call_cancel};

static void on_limit(struct timer *t);
static void on_all_closed(struct defer *d);

struct plugins *plugins_new(const struct plugins_conf *conf)
{
  struct plugins *all = xcalloc(1, sizeof *all);
  all->conf = *conf;
  all->limit = (struct timer){.cb = on_limit, .data = all};
  all->closed = (struct defer){.cb = on_all_closed, .data = all};
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    ops_register(conf->ops, &handlers[i], all);
  ops_interpose(conf->ops, &in_front, all);
  supervisor_subscribe(conf->sup, on_event, all);
  return all;
}

static void plugin_free(struct plugin *p)
{
  script_free(p->script);
  for (size_t i = 0; i < p->tools_n; i++) {
    free(p->tools[i].name);
    free(p->tools[i].path);
    val_free(&p->tools[i].text);
  }
  free(p->tools);
  for (int q = 0; q < QUEUES; q++) val_free(&p->queues[q].pending);
  strv_free(&p->read_dirs);
  strv_free(&p->write_dirs);
  free(p->name);
  free(p->path);
  free(p->dir);
  free(p->text);
  free(p->option);
  free(p);
}

static int check_name(const struct plugins *all, const char *name, struct err *err)
{
  size_t len = strlen(name);
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  if (len == 0 || len > 64 || strspn(name, allowed) != len) {
    int rc = err_arg(err, "--plugin", "--plugin: \"%s\" is no name for a plugin", name);
    err_hint(err, "names are letters, digits, - and _; that of a file is its own without .lua");
    return rc;
  }
  if (find_name(all, name, len))
    return err_arg(err, "--plugin", "--plugin: %s is given twice", name);
  return 0;
}

static const struct embedded_file *find_driver(void)
{
  for (const struct embedded_file *f = embedded_files; f->name; f++)
    if (strcmp(f->name, "regolith/plugin.lua") == 0) return f;
  return NULL;
}

static int start_state(struct plugin *p, struct err *err)
{
  const struct embedded_file *driver = find_driver();
  const struct plugins_conf *conf = &p->all->conf;
  return script_new(&p->script,
                    &(struct script_conf){.name = "plugin",
                                          .source = driver->data,
                                          .source_len = driver->len,
                                          .embedded = true,
                                          .loop = conf->loop,
                                          .ops = conf->ops,
                                          .owner = p->owner,
                                          .hooks = &hooks,
                                          .hooks_data = p},
                    err);
}

static char *folder_of(const char *path)
{
  const char *slash = path ? strrchr(path, '/') : NULL;
  if (!path) return NULL;
  if (!slash) return xstrdup(".");
  char *dir = xstrdup(path);
  dir[slash == path ? 1 : slash - path] = '\0';
  return dir;
}

int plugins_add(struct plugins *all, const struct plugin_conf *conf, struct err *err)
{
  int rc = check_name(all, conf->name, err);
  if (rc < 0) return rc;
  struct plugin *p = xcalloc(1, sizeof *p);
  p->all = all;
  p->name = xstrdup(conf->name);
  p->path = conf->path ? xstrdup(conf->path) : NULL;
  p->dir = folder_of(conf->path);
  p->text = xmalloc(conf->len + 1);
  memcpy(p->text, conf->text, conf->len);
  p->text[conf->len] = '\0';
  p->len = conf->len;
  p->option = conf->option ? xstrdup(conf->option) : NULL;
  for (int q = 0; q < QUEUES; q++) p->queues[q].pending = val_list();
  list_init(&p->calls);
  p->owner = supervisor_owner_new(all->conf.sup, &(struct owner_conf){.name = p->name});
  rc = start_state(p, err);
  if (rc < 0) {
    plugin_free(p);
    return rc;
  }
  all->v = xrealloc(all->v, (all->n + 1) * sizeof(struct plugin *));
  all->v[all->n++] = p;
  all->alive++;
  return 0;
}

/* Whatever still waits for it is answered. */
static void abandon_calls(struct plugin *p)
{
  LIST_FOREACH_SAFE (it, &p->calls) {
    struct plugin_call *c = list_entry(it, struct plugin_call, node);
    leave_plugin(c);
    refuse(c, p->ended.msg);
  }
}

static void on_done(void *data, const struct script_result *result)
{
  struct plugin *p = data;
  struct plugins *all = p->all;
  bool was_loading = p->state == PLUGIN_LOADING;
  p->ended = result->err;
  if (result->end == SCRIPT_OK) err_set(&p->ended, ERR_INTERNAL, 0, "it has ended");
  p->state = PLUGIN_ENDED;
  script_free(take_ptr(&p->script));
  if (!all->closing && !was_loading) log_warn("plugin %s has ended: %s", p->name, p->ended.msg);
  for (size_t i = 0; i < 2; i++) tell_dropped(p, &p->talks[i]);
  size_t unheard = p->dropped + p->queues[QUEUE_EVENTS].pending.list.n;
  if (unheard) log_warn("plugin %s did not hear of %zu events", p->name, unheard);
  for (int q = 0; q < QUEUES; q++) {
    val_free(&p->queues[q].pending);
    p->queues[q].pending = val_list();
  }
  abandon_calls(p);
  all->alive--;
  if (was_loading) loop_stop(all->conf.loop);
  if (all->closing && all->alive == 0) loop_defer(all->conf.loop, &all->closed);
}

static void on_limit(struct timer *t)
{
  struct plugins *all = t->data;
  if (!all->closing) {
    all->load_timed_out = true;
    loop_stop(all->conf.loop);
    return;
  }
  struct err why = {0};
  err_set(&why, ERR_TIMEOUT, 0, "it did not end in time");
  for (size_t i = 0; i < all->n; i++)
    if (all->v[i]->script) end_plugin(all->v[i], &why);
}

int plugins_load(struct plugins *all, struct err *err)
{
  all->loading = all->n;
  for (size_t i = 0; i < all->n; i++) script_start(all->v[i]->script);
  timer_start(all->conf.loop, &all->limit, LOAD_MS);
  loop_run(all->conf.loop);
  timer_stop(all->conf.loop, &all->limit);
  for (size_t i = 0; i < all->n; i++) {
    const struct plugin *p = all->v[i];
    if (p->state == PLUGIN_READY) continue;
    if (p->state == PLUGIN_LOADING && !all->load_timed_out) continue; /* another one failed */
    if (p->state == PLUGIN_ENDED)
      *err = p->ended;
    else
      err_set(err, ERR_TIMEOUT, 0, "it does not get ready");
    err_wrap(err, "plugin %s", p->name);
    return -EINVAL;
  }
  return 0;
}

bool plugins_grants(const struct plugins *all, uint64_t owner, struct files_grants *ret)
{
  const struct plugin *p = find_owner(all, owner);
  if (p) *ret = (struct files_grants){p->dir, &p->read_dirs, &p->write_dirs};
  return p != NULL;
}

static void on_all_closed(struct defer *d)
{
  struct plugins *all = d->data;
  timer_stop(all->conf.loop, &all->limit);
  all->on_closed(all->on_closed_data);
}

void plugins_close(struct plugins *all, void (*done)(void *data), void *data)
{
  struct err why = {0};
  err_set(&why, ERR_CANCELLED, 0, "the run is over");
  all->closing = true;
  all->on_closed = done;
  all->on_closed_data = data;
  timer_start(all->conf.loop, &all->limit, CLOSE_MS);
  for (size_t i = 0; i < all->n; i++) {
    struct val m = val_map();
    val_add(&m, "kind", val_str("end"));
    if (all->v[i]->state == PLUGIN_READY)
      tell(all->v[i], QUEUE_EVENTS, m);
    else
      val_free(&m);
    if (all->v[i]->state == PLUGIN_LOADING)
      script_cancel(all->v[i]->script, SCRIPT_CANCELLED, &why, true);
  }
  if (all->alive == 0) loop_defer(all->conf.loop, &all->closed);
}

void plugins_free(struct plugins *all)
{
  if (!all) return;
  supervisor_unsubscribe(all->conf.sup, on_event, all);
  timer_stop(all->conf.loop, &all->limit);
  loop_defer_cancel(all->conf.loop, &all->closed);
  for (size_t i = 0; i < all->n; i++) plugin_free(all->v[i]);
  free(all->v);
  free(all);
}

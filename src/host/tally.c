/* What is going on right now, counted from the host's hooks.
 *
 * Owns one record a script and one a live sandbox, with its running commands; what ended is
 * forgotten (scripts keep their state), so memory follows what is alive. */
#include "host/tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/index.h"
#include "base/list.h"
#include "base/val.h"
#include "host/host.h"

struct command {
  struct list node; /* box.commands */
  int64_t number;   /* the supervisor's, within its sandbox */
  struct val argv;  /* owned */
  uint64_t start_ms;
};

struct box {
  struct list node;        /* tally.boxes */
  struct index_node by_id; /* tally.by_id */
  char id[64], image[128], engine[32];
  size_t script;
  uint64_t start_ms;
  struct list commands; /* struct command.node */
};

struct tally_script {
  const char *name;  /* the caller's */
  const char *state; /* "waiting" "running", later its outcome; static */
  size_t tasks, boxes, commands;
  uint64_t start_ms, end_ms;
};

struct tally {
  struct tally_script *scripts; /* owned */
  size_t scripts_n, running, tasks, boxes_n, commands;
  struct list boxes;  /* struct box.node, oldest first */
  struct index by_id; /* the same, by box.id */
  int64_t started_s;  /* wall clock */
};

struct tally *tally_new(const char *const *names, size_t names_n)
{
  struct tally *t = xcalloc(1, sizeof *t);
  t->scripts = xcalloc(names_n ? names_n : 1, sizeof *t->scripts);
  t->scripts_n = names_n;
  t->started_s = clock_wall_s();
  list_init(&t->boxes);
  for (size_t i = 0; i < names_n; i++)
    t->scripts[i] = (struct tally_script){.name = names[i], .state = "waiting"};
  return t;
}

/* ---- counting ---- */

static void on_start(void *data, size_t script)
{
  struct tally *t = data;
  t->running++;
  t->scripts[script].state = "running";
  t->scripts[script].start_ms = clock_mono_ms();
}

static const char *static_outcome(const char *outcome)
{
  static const char *const known[] = {"ok", "error", "timeout", "cancelled", "limit"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcmp(known[i], outcome) == 0) return known[i];
  return "ended";
}

static void on_end(void *data, size_t script, const struct host_result *result)
{
  struct tally *t = data;
  struct tally_script *s = &t->scripts[script];
  if (strcmp(s->state, "running") == 0) t->running--;
  s->state = static_outcome(result->outcome);
  s->end_ms = clock_mono_ms();
  t->tasks -= s->tasks;
  s->tasks = 0;
}

static void on_task(void *data, size_t script, uint64_t task, uint64_t parent, const char *name,
                    const char *outcome)
{
  struct tally *t = data;
  struct tally_script *s = &t->scripts[script];
  (void)task, (void)parent, (void)name;
  if (!outcome) {
    s->tasks++;
    t->tasks++;
  } else if (s->tasks > 0) { /* a worker that died says nothing more: on_end settles it */
    s->tasks--;
    t->tasks--;
  }
}

static struct box *find_box(const struct tally *t, const char *id)
{
  uint64_t hash = index_hash_text(id);
  for (struct index_node *at = NULL; (at = index_next(&t->by_id, hash, at));) {
    struct box *b = list_entry(at, struct box, by_id);
    if (strcmp(b->id, id) == 0) return b;
  }
  return NULL;
}

static void add_box(struct tally *t, size_t script, const struct val *fields)
{
  struct box *b = xcalloc(1, sizeof *b);
  snprintf(b->id, sizeof b->id, "%s", val_get_str(fields, "sandbox_id", "?"));
  snprintf(b->image, sizeof b->image, "%s", val_get_str(fields, "image", ""));
  snprintf(b->engine, sizeof b->engine, "%s", val_get_str(fields, "engine", ""));
  b->script = script;
  b->start_ms = clock_mono_ms();
  list_init(&b->commands);
  list_append(&t->boxes, &b->node);
  index_add(&t->by_id, &b->by_id, index_hash_text(b->id));
  t->boxes_n++;
  t->scripts[script].boxes++;
}

static void add_command(struct tally *t, struct box *b, const struct val *fields)
{
  const struct val *argv = val_get(fields, "command");
  struct command *c = xcalloc(1, sizeof *c);
  *c = (struct command){.number = val_get_int(fields, "exec", 0), .start_ms = clock_mono_ms()};
  if (argv) c->argv = val_copy(argv);
  list_append(&b->commands, &c->node);
  t->commands++;
  t->scripts[b->script].commands++;
}

static void remove_command(struct tally *t, struct box *b, struct command *c)
{
  list_remove(&c->node);
  val_free(&c->argv);
  free(c);
  t->commands--;
  t->scripts[b->script].commands--;
}

static void end_command(struct tally *t, struct box *b, int64_t number)
{
  LIST_FOREACH_SAFE (node, &b->commands) {
    struct command *c = list_entry(node, struct command, node);
    if (c->number == number) remove_command(t, b, c);
  }
}

static void remove_box(struct tally *t, struct box *b)
{
  LIST_FOREACH_SAFE (node, &b->commands)
    remove_command(t, b, list_entry(node, struct command, node));
  list_remove(&b->node);
  index_remove(&t->by_id, &b->by_id);
  t->boxes_n--;
  t->scripts[b->script].boxes--;
  free(b);
}

static void on_sandbox(void *data, size_t script, const struct val *fields)
{
  struct tally *t = data;
  const char *event = val_get_str(fields, "event", "");
  struct box *b = find_box(t, val_get_str(fields, "sandbox_id", ""));
  if (strcmp(event, "sandbox_created") == 0 && !b)
    add_box(t, script, fields);
  else if (strcmp(event, "exec_started") == 0 && b)
    add_command(t, b, fields);
  else if (strcmp(event, "exec_done") == 0 && b)
    end_command(t, b, val_get_int(fields, "exec", 0));
  else if (strcmp(event, "sandbox_ended") == 0 && b)
    remove_box(t, b);
}

const struct host_hooks tally_hooks = {
    .on_start = on_start, .on_task = on_task, .on_sandbox = on_sandbox, .on_end = on_end};

void tally_free(struct tally *t)
{
  if (!t) return;
  LIST_FOREACH_SAFE (node, &t->boxes) remove_box(t, list_entry(node, struct box, node));
  index_free(&t->by_id);
  free(t->scripts);
  free(t);
}

/* ---- telling ---- */

static struct val seconds_since(uint64_t start_ms, uint64_t now_ms)
{
  return val_num(start_ms ? (double)(now_ms - start_ms) / 1000 : 0);
}

static struct val script_val(const struct tally_script *s, uint64_t now)
{
  struct val v = val_map();
  val_add(&v, "name", val_str(s->name));
  val_add(&v, "state", val_str(s->state));
  val_add(&v, "tasks", val_int((int64_t)s->tasks));
  val_add(&v, "sandboxes", val_int((int64_t)s->boxes));
  val_add(&v, "commands", val_int((int64_t)s->commands));
  val_add(&v, "seconds", seconds_since(s->start_ms, s->end_ms ? s->end_ms : now));
  return v;
}

static struct val box_val(const struct tally *t, const struct box *b, uint64_t now)
{
  struct val v = val_map(), commands = val_list();
  val_add(&v, "sandbox_id", val_str(b->id));
  val_add(&v, "script", val_str(t->scripts[b->script].name));
  val_add(&v, "image", val_str(b->image));
  val_add(&v, "engine", val_str(b->engine));
  val_add(&v, "seconds", seconds_since(b->start_ms, now));
  LIST_FOREACH (node, &b->commands) {
    const struct command *c = list_entry(node, struct command, node);
    struct val one = val_map();
    val_add(&one, "command", val_copy(&c->argv));
    val_add(&one, "seconds", seconds_since(c->start_ms, now));
    val_push(&commands, one);
  }
  val_add(&v, "commands", commands);
  return v;
}

struct val tally_snapshot(const struct tally *t)
{
  uint64_t now = clock_mono_ms();
  char started[CLOCK_ISO_SIZE];
  clock_format_iso(t->started_s, started);
  struct val v = val_map(), scripts = val_list(), boxes = val_list();
  for (size_t i = 0; i < t->scripts_n; i++) val_push(&scripts, script_val(&t->scripts[i], now));
  LIST_FOREACH (node, &t->boxes)
    val_push(&boxes, box_val(t, list_entry(node, struct box, node), now));
  val_add(&v, "pid", val_int(getpid()));
  val_add(&v, "started_at", val_str(started));
  val_add(&v, "scripts", scripts);
  val_add(&v, "sandboxes", boxes);
  return v;
}

/* The words of a command, as far as they are text; control characters are no text. */
static void put_command(struct buf *out, const struct val *argv)
{
  for (size_t i = 0; argv->type == VAL_LIST && i < argv->list.n; i++) {
    const struct val *word = &argv->list.v[i];
    if (word->type != VAL_STR) continue;
    if (i) buf_putc(out, ' ');
    for (size_t k = 0; k < word->s.len; k++)
      buf_putc(out, (unsigned char)word->s.p[k] < 0x20 ? ' ' : word->s.p[k]);
  }
  if (argv->type == VAL_STR) buf_append(out, argv->s.p, argv->s.len);
}

static void put_count(struct buf *out, size_t n, const char *what)
{
  if (n > 0)
    buf_printf(out, "%s%zu %s%s", out->len ? ", " : "", n, what,
               n == 1                          ? ""
               : what[strlen(what) - 1] == 'x' ? "es"
                                               : "s");
}

void tally_line(const struct tally *t, struct buf *out, size_t width)
{
  struct buf line = {0};
  if (t->scripts_n > 1) put_count(&line, t->running, "script");
  put_count(&line, t->tasks > t->running ? t->tasks - t->running : 0, "task");
  put_count(&line, t->boxes_n, "sandbox");
  const struct command *oldest = NULL;
  LIST_FOREACH (node, &t->boxes) {
    const struct box *b = list_entry(node, struct box, node);
    if (!oldest && !list_empty(&b->commands))
      oldest = list_entry(b->commands.next, struct command, node);
  }
  if (oldest) {
    buf_puts(&line, ": ");
    put_command(&line, &oldest->argv);
    if (t->commands > 1) buf_printf(&line, " (and %zu more)", t->commands - 1);
  }
  size_t n = line.len < width ? line.len : width;
  while (n > 0 && n < line.len && ((unsigned char)line.data[n] & 0xC0) == 0x80) n--;
  if (line.data) buf_append(out, line.data, n);
  buf_free(&line);
}

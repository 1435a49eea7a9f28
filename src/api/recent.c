/* The last commands of each sandbox, as the page shows them. (Not "history": libedit has those
 * names, and a part that links it would find ours.)
 *
 * Records lie in one list by age; what each may keep is bounded, and so are all together, so that
 * neither output nor the number of sandboxes makes the server grow. Those that still run are never
 * dropped: their calls hold them.
 *
 * running → ended → dropped */
#include "api/recent.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "core/stream.h"

struct recent_exec {
  struct list node; /* recent.execs */
  int64_t account;
  char sandbox_id[64];
  char *command; /* owned */
  int64_t started_s;
  bool running;
  struct val outcome; /* owned: reason, exit_code, signal, duration_ms */
  struct stream out, err;
};

struct recent {
  struct list execs; /* oldest first, owned */
  size_t bytes;      /* of those that have ended */
};

struct recent *recent_new(void)
{
  struct recent *h = xcalloc(1, sizeof *h);
  list_init(&h->execs);
  return h;
}

static size_t size_of(const struct recent_exec *x)
{
  return sizeof *x + strlen(x->command) + x->out.head_cap + x->out.tail_cap + x->err.head_cap +
         x->err.tail_cap + 512;
}

static void exec_free(struct recent_exec *x)
{
  list_remove(&x->node);
  stream_free(&x->out);
  stream_free(&x->err);
  val_free(&x->outcome);
  free(x->command);
  free(x);
}

void recent_free(struct recent *h)
{
  if (!h) return;
  while (!list_empty(&h->execs)) exec_free(list_entry(h->execs.next, struct recent_exec, node));
  free(h);
}

static bool is_plain(const char *word)
{
  size_t n =
      strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-");
  return n > 0 && word[n] == '\0';
}

/* As a shell would read it back. */
static void add_word(struct buf *b, const char *word)
{
  if (b->len > 0) buf_putc(b, ' ');
  if (is_plain(word)) {
    buf_puts(b, word);
    return;
  }
  buf_putc(b, '\'');
  for (; *word; word++) {
    if (*word == '\'')
      buf_puts(b, "'\\''");
    else
      buf_putc(b, *word);
  }
  buf_putc(b, '\'');
}

static char *text_of(const struct val *command)
{
  struct buf b = {0};
  if (command && command->type == VAL_STR) buf_puts(&b, command->s.p);
  for (size_t i = 0; command && command->type == VAL_LIST && i < command->list.n; i++)
    if (command->list.v[i].type == VAL_STR && b.len < RECENT_COMMAND)
      add_word(&b, command->list.v[i].s.p);
  if (b.len > RECENT_COMMAND) {
    b.len = RECENT_COMMAND;
    buf_puts(&b, "…");
  }
  return buf_take(&b, NULL);
}

struct recent_exec *recent_begin(struct recent *h, int64_t account, const char *sandbox_id,
                                 const struct val *command)
{
  struct recent_exec *x = xcalloc(1, sizeof *x);
  *x = (struct recent_exec){.account = account,
                            .command = text_of(command),
                            .started_s = clock_wall_s(),
                            .running = true};
  strncpy(x->sandbox_id, sandbox_id, sizeof x->sandbox_id - 1);
  stream_init(&x->out, RECENT_OUTPUT);
  stream_init(&x->err, RECENT_OUTPUT);
  list_append(&h->execs, &x->node);
  return x;
}

void recent_output(struct recent_exec *x, bool is_stderr, const void *data, size_t len)
{
  stream_write(is_stderr ? &x->err : &x->out, data, len);
}

static bool same_sandbox(const struct recent_exec *x, int64_t account, const char *sandbox_id)
{
  return x->account == account && strcmp(x->sandbox_id, sandbox_id) == 0;
}

static void drop(struct recent *h, struct recent_exec *x)
{
  h->bytes -= size_of(x);
  exec_free(x);
}

static void make_room(struct recent *h, const struct recent_exec *newest)
{
  size_t n = 0;
  LIST_FOREACH (it, &h->execs) {
    const struct recent_exec *x = list_entry(it, struct recent_exec, node);
    n += !x->running && same_sandbox(x, newest->account, newest->sandbox_id);
  }
  LIST_FOREACH_SAFE (it, &h->execs) {
    struct recent_exec *x = list_entry(it, struct recent_exec, node);
    bool many = n > RECENT_EXECS && same_sandbox(x, newest->account, newest->sandbox_id);
    if (x->running || x == newest || (!many && h->bytes <= RECENT_MAX)) continue;
    n -= many;
    drop(h, x);
  }
}

static void copy_field(struct val *to, const struct val *from, const char *name)
{
  const struct val *v = val_get(from, name);
  if (v) val_add(to, name, val_copy(v));
}

void recent_end(struct recent *h, struct recent_exec *x, const struct val *outcome, const char *why)
{
  static const char *const fields[] = {"reason", "exit_code", "signal", "duration_ms"};
  x->running = false;
  x->outcome = val_map();
  for (size_t i = 0; outcome && i < sizeof fields / sizeof *fields; i++)
    copy_field(&x->outcome, outcome, fields[i]);
  if (!outcome) val_add(&x->outcome, "reason", val_str(why));
  h->bytes += size_of(x);
  make_room(h, x);
}

static struct val kept(const struct stream *s)
{
  size_t len;
  char *text = stream_copy(s, &len);
  return val_take_bytes(text, len);
}

static struct val show(const struct recent_exec *x)
{
  char started[CLOCK_ISO_SIZE];
  struct val v = x->running ? val_map() : val_copy(&x->outcome);
  clock_format_iso(x->started_s, started);
  val_add(&v, "command", val_str(x->command));
  val_add(&v, "started_at", val_str(started));
  val_add(&v, "running", val_bool(x->running));
  val_add(&v, "stdout", kept(&x->out));
  val_add(&v, "stderr", kept(&x->err));
  val_add(&v, "truncated", val_bool(stream_truncated(&x->out) || stream_truncated(&x->err)));
  return v;
}

struct val recent_list(const struct recent *h, int64_t account, const char *sandbox_id)
{
  struct val list = val_list();
  for (const struct list *it = h->execs.prev; it != &h->execs; it = it->prev) {
    const struct recent_exec *x = list_entry(it, struct recent_exec, node);
    if (same_sandbox(x, account, sandbox_id)) val_push(&list, show(x));
  }
  return list;
}

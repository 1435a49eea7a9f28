/* Reports over the entries: sums by whatever is asked for, and statements.
 *
 * An entry of a call says which sandbox it was for; tier and tags are in the entry of that
 * sandbox's create, once. Sums are made here, in integers, over the rows in the order they lie in;
 * groups are found by the text of what makes them one. */
#include "ledger/costs.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/index.h"
#include "base/json.h"
#include "base/list.h"
#include "base/suggest.h"
#include "db/db.h"
#include "ledger/entries.h"
#include "wire/price.h"

#define HOUR_MS INT64_C(3600000)

/* ---- by what ---- */

static int unknown(const char *word, struct err *err)
{
  static const char *const names[] = {"key", "tier", "op", "tag", "hour", "day"};
  const char *near = suggest_nearest(word, names, sizeof names / sizeof *names);
  int rc = err_arg(err, "--by", "--by: there is no \"%.40s\"", word);
  if (near)
    err_hint(err, "did you mean \"%s\"?", near);
  else
    err_hint(err, "it may be key, tier, op, tag, tag:NAME, hour or day");
  return rc;
}

int cost_query_by(struct cost_query *q, char *text, struct err *err)
{
  char *rest = NULL;
  for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
    if (strcmp(word, "key") == 0)
      q->by_key = true;
    else if (strcmp(word, "tier") == 0)
      q->by_tier = true;
    else if (strcmp(word, "op") == 0)
      q->by_op = true;
    else if (strcmp(word, "tag") == 0)
      q->by_tags = true;
    else if (strncmp(word, "tag:", 4) == 0 && word[4])
      q->by_tag = word + 4;
    else if (strcmp(word, "hour") == 0)
      q->by_ms = HOUR_MS;
    else if (strcmp(word, "day") == 0)
      q->by_ms = 24 * HOUR_MS;
    else
      return unknown(word, err);
  }
  if (q->by_tags && q->by_tag)
    return err_arg(err, "--by", "--by: either all tags (tag) or one of them (tag:NAME)");
  return 0;
}

/* ---- groups ---- */

struct group {
  struct index_node node;
  char *text;        /* owned; what makes it one group */
  struct val fields; /* what it is called */
  int64_t calls, microusd;
};

struct groups {
  const struct cost_query *q;
  struct index by_text;
  struct group **v; /* owned */
  size_t n;
};

/* Those of regolith's own (engine/remote) name one sandbox each: nothing to sum up by. */
static bool is_own(const char *key)
{
  return strncmp(key, "regolith.", 9) == 0;
}

static void print_tags(struct buf *out, const char *json, const char *only)
{
  struct val tags = {0};
  if (!json || json_parse(&tags, json, strlen(json), NULL) < 0) return;
  for (size_t i = 0; tags.type == VAL_MAP && i < tags.map.n; i++) {
    const struct val_pair *p = &tags.map.v[i];
    if (p->val.type != VAL_STR || (only ? strcmp(p->key, only) != 0 : is_own(p->key))) continue;
    if (only)
      buf_puts(out, p->val.s.p);
    else
      buf_printf(out, "%s%s=%s", out->len ? " " : "", p->key, p->val.s.p);
  }
  val_free(&tags);
}

static void add_text(struct val *fields, const char *name, const char *text)
{
  val_add(fields, name, val_str(text ? text : ""));
}

/* Columns: name of the key, time, kind, amount, tier, tags. */
static struct val name_group(const struct cost_query *q, struct db_rows *rows)
{
  struct val f = val_map();
  if (q->by_ms) {
    char when[CLOCK_ISO_SIZE];
    clock_format_iso(db_int(rows, 1) / q->by_ms * q->by_ms / 1000, when);
    add_text(&f, "time", when);
  }
  if (q->by_key) add_text(&f, "key", db_text(rows, 0));
  if (q->by_tier) add_text(&f, "tier", db_text(rows, 4));
  if (q->by_op) add_text(&f, "op", entry_kind_name((enum entry_kind)db_int(rows, 2)));
  if (q->by_tags || q->by_tag) {
    struct buf tags = {0};
    print_tags(&tags, db_text(rows, 5), q->by_tag);
    add_text(&f, "tag", tags.data);
    buf_free(&tags);
  }
  return f;
}

static struct group *find_group(struct groups *g, struct val *fields)
{
  struct buf text = {0};
  json_print(&text, fields);
  uint64_t hash = index_hash_text(text.data);
  for (struct index_node *n = NULL; (n = index_next(&g->by_text, hash, n));) {
    struct group *one = list_entry(n, struct group, node);
    if (strcmp(one->text, text.data) != 0) continue;
    val_free(fields);
    buf_free(&text);
    return one;
  }
  struct group *one = xcalloc(1, sizeof *one);
  *one = (struct group){.text = buf_take(&text, NULL), .fields = *fields};
  index_add(&g->by_text, &one->node, hash);
  g->v = xrealloc(g->v, (g->n + 1) * sizeof(struct group *));
  g->v[g->n++] = one;
  return one;
}

static int compare(const void *a, const void *b)
{
  const struct group *const *x = a, *const *y = b;
  return strcmp((*x)->text, (*y)->text);
}

static struct val take_groups(struct groups *g)
{
  struct val list = val_list();
  if (g->n) qsort(g->v, g->n, sizeof *g->v, compare);
  for (size_t i = 0; i < g->n; i++) {
    struct group *one = g->v[i];
    val_add(&one->fields, "calls", val_int(one->calls));
    val_add(&one->fields, "microusd", val_int(one->microusd));
    val_add(&one->fields, "usd", val_num(price_usd(one->microusd)));
    val_push(&list, one->fields);
    free(one->text);
    free(one);
  }
  free(g->v);
  index_free(&g->by_text);
  return list;
}

int costs_sum(struct db *db, const struct cost_query *q, struct val *ret, struct err *err)
{
  struct groups g = {.q = q};
  struct db_rows *rows;
  int64_t until = q->until_ms ? q->until_ms : INT64_MAX;
  int rc = db_query(db, &rows, err,
                    "SELECT a.name, e.time_ms, e.kind, e.amount, c.tier, c.tags FROM entries e "
                    "JOIN accounts a ON a.id = e.account LEFT JOIN entries c ON c.kind = 2 AND "
                    "c.sandbox = e.sandbox AND c.account = e.account WHERE e.kind != 1 AND "
                    "e.time_ms >= ? AND e.time_ms < ? AND (? = 0 OR e.account = ?)",
                    "iiii", q->since_ms, until, q->account, q->account);
  if (rc < 0) return rc;
  while ((rc = db_step(rows, err)) > 0) {
    struct val fields = name_group(q, rows);
    struct group *one = find_group(&g, &fields);
    one->calls++;
    one->microusd -= db_int(rows, 3);
  }
  db_rows_end(rows);
  *ret = take_groups(&g);
  if (rc < 0) val_free(ret);
  return rc;
}

/* ---- statements ---- */

static struct val line_of(struct db_rows *rows)
{
  char when[CLOCK_ISO_SIZE];
  struct val v = val_map();
  clock_format_iso(db_int(rows, 1) / 1000, when);
  val_add(&v, "seq", val_int(db_int(rows, 0)));
  val_add(&v, "time", val_str(when));
  val_add(&v, "op", val_str(entry_kind_name((enum entry_kind)db_int(rows, 2))));
  if (db_text(rows, 5)) val_add(&v, "sandbox_id", val_str(db_text(rows, 5)));
  if (db_text(rows, 6)) val_add(&v, "tier", val_str(db_text(rows, 6)));
  val_add(&v, "microusd", val_int(db_int(rows, 3)));
  val_add(&v, "balance_microusd", val_int(db_int(rows, 4)));
  return v;
}

int costs_statement(struct db *db, int64_t account, int64_t since_ms, int64_t limit,
                    void (*on_line)(void *data, const struct val *line), void *data,
                    struct err *err)
{
  struct db_rows *rows;
  int rc =
      db_query(db, &rows, err,
               "SELECT * FROM (SELECT seq, time_ms, kind, amount, balance, sandbox, tier FROM "
               "entries WHERE account = ? AND time_ms >= ? ORDER BY seq DESC LIMIT ?) ORDER BY "
               "seq",
               "iii", account, since_ms, limit > 0 ? limit : INT64_C(-1));
  if (rc < 0) return rc;
  while ((rc = db_step(rows, err)) > 0) {
    struct val line = line_of(rows);
    on_line(data, &line);
    val_free(&line);
  }
  db_rows_end(rows);
  return rc;
}

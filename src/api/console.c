/* What the page at / is made of, and asks for: the key's sandboxes with their cost, their last
 * commands, and what was spent over time. Free of charge, and by key like everything else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api_internal.h"
#include "base/clock.h"
#include "base/embedded.h"
#include "base/sha256.h"
#include "db/store.h"
#include "ledger/costs.h"
#include "net/http1.h"
#include "wire/compute.h"
#include "wire/price.h"

#define SANDBOXES_MAX 500       /* in one answer, the newest */
#define HOURS_MAX     (31 * 24) /* of costs in one answer */
#define HOUR_MS       INT64_C(3600000)

/* ---- the page ---- */

/* What lies between <tag> and </tag>, by its hash: nothing else runs there, whatever gets in. */
static void allow_element(struct buf *policy, const struct embedded_file *page, const char *tag)
{
  char open[16], close[16];
  snprintf(open, sizeof open, "<%s>", tag);
  snprintf(close, sizeof close, "</%s>", tag);
  const char *from = memmem(page->data, page->len, open, strlen(open));
  if (!from) return;
  from += strlen(open);
  size_t left = page->len - (size_t)(from - (const char *)page->data);
  const char *to = memmem(from, left, close, strlen(close));
  if (!to) return;
  uint8_t hash[32];
  sha256(from, (size_t)(to - from), hash);
  buf_printf(policy, " %s-src 'sha256-", tag);
  base64_encode(policy, hash, sizeof hash);
  buf_puts(policy, "';");
}

static const struct embedded_file *find_page(void)
{
  for (const struct embedded_file *f = embedded_files; f->name; f++)
    if (strcmp(f->name, "console.html") == 0) return f;
  return NULL;
}

void call_page(struct call *c)
{
  const struct embedded_file *page = find_page();
  struct buf body = {0};
  buf_puts(&c->headers, "Content-Security-Policy: default-src 'none';");
  allow_element(&c->headers, page, "script");
  allow_element(&c->headers, page, "style");
  buf_puts(&c->headers,
           " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
           "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
           "Cache-Control: no-cache\r\n");
  buf_append(&body, page->data, page->len);
  call_answer(c, 200, "text/html; charset=utf-8", &body);
}

/* ---- sandboxes ---- */

static void add_balance(const struct call *c, struct val *v)
{
  struct ledger_balance b = {0};
  if (ledger_balance(c->api->conf.ledger, c->account.id, &b, NULL) < 0) return;
  val_add(v, "balance_usd", val_num(price_usd(b.balance_microusd)));
  val_add(v, "held_usd", val_num(price_usd(b.held_microusd)));
}

static void on_list(struct call *c, struct op *op, const struct err *err)
{
  if (err) {
    call_error(c, err);
    return;
  }
  size_t n = op->result.list.n, from = n > SANDBOXES_MAX ? n - SANDBOXES_MAX : 0;
  struct val v = val_map(), list = val_list();
  char now[CLOCK_ISO_SIZE];
  clock_format_iso(clock_wall_s(), now);
  for (size_t i = n; i > from; i--) val_push(&list, val_copy(&op->result.list.v[i - 1]));
  val_add(&v, "key", val_str(c->account.name));
  val_add(&v, "now", val_str(now));
  add_balance(c, &v);
  val_add(&v, "sandboxes", list);
  val_add(&v, "live", val_int((int64_t)n));
  call_json(c, 200, &v);
  val_free(&v);
}

void call_console(struct call *c)
{
  call_op(c, "sandbox.list", val_map(), 0, on_list);
}

/* ---- commands ---- */

static void on_found(struct call *c, struct op *op, const struct err *err)
{
  (void)op;
  if (err) {
    call_error(c, err);
    return;
  }
  struct val v = val_map();
  val_add(&v, "sandbox_id", val_str(c->sandbox_id));
  val_add(&v, "execs", recent_list(c->api->recent, c->account.id, c->sandbox_id));
  call_json(c, 200, &v);
  val_free(&v);
}

void call_execs(struct call *c)
{
  struct val args = val_map();
  snprintf(c->sandbox_id, sizeof c->sandbox_id, "%s", c->segment);
  val_add(&args, "sandbox_id", val_str(c->segment));
  call_op(c, "sandbox.get", args, 0, on_found);
}

/* ---- costs ---- */

struct costs_job {
  struct store_job job;
  struct call *c;
  struct cost_query q;
  struct val rows;
};

static int run_costs(struct store_job *job, struct db *db, struct err *err)
{
  struct costs_job *j = job->data;
  return costs_sum(db, &j->q, &j->rows, err);
}

static void on_costs(struct store_job *job, const struct err *err)
{
  struct costs_job *j = job->data;
  struct call *c = j->c;
  struct val v = val_map();
  char since[CLOCK_ISO_SIZE];
  c->waits--;
  clock_format_iso(j->q.since_ms / 1000, since);
  val_add(&v, "since", val_str(since));
  val_add(&v, "costs", j->rows);
  free(j);
  if (err)
    call_error(c, err);
  else
    call_json(c, 200, &v);
  val_free(&v);
}

/* "hours=24" */
static int read_hours(const char *query, int64_t *ret, struct err *err)
{
  char *end = NULL;
  *ret = 24;
  if (!*query) return 0;
  if (strncmp(query, "hours=", 6) != 0)
    return err_arg(err, "query", "there is no parameter \"%.40s\": hours", query);
  *ret = strtol(query + 6, &end, 10);
  if (end == query + 6 || *end || *ret < 1 || *ret > HOURS_MAX)
    return err_arg(err, "hours", "hours must be 1 to %d, not \"%.40s\"", HOURS_MAX, query + 6);
  return 0;
}

void call_costs(struct call *c)
{
  struct err err = {0};
  int64_t hours, now = clock_wall_ms();
  if (read_hours(httpd_query(c->x), &hours, &err) < 0) {
    call_error(c, &err);
    return;
  }
  struct costs_job *j = xcalloc(1, sizeof *j);
  *j = (struct costs_job){.job = {.run = run_costs, .on_done = on_costs, .data = j},
                          .c = c,
                          .q = {.account = c->account.id,
                                .since_ms = (now / HOUR_MS - hours + 1) * HOUR_MS,
                                .by_tier = true,
                                .by_ms = HOUR_MS}};
  c->waits++;
  store_submit(c->api->conf.store, &j->job);
}

/* regolith cost: what was charged, added up, and the statement of one key. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/val.h"
#include "cli/cli.h"
#include "db/store.h"
#include "ledger/costs.h"
#include "ledger/keys.h"
#include "wire/price.h"

struct cost_options {
  const char *by, *state, *statement;
  uint64_t since_ms;
  bool json;
};

static const struct cli_option options[] = {
    {"by", 0, CLI_STR, offsetof(struct cost_options, by), "WHAT,...",
     "A line for each key, tier, op, tag (all tags), tag:NAME, hour, day (default: key)"},
    {"since", 0, CLI_DURATION, offsetof(struct cost_options, since_ms), "TIME",
     "Only the last so much time, as in 24h (default: all)"},
    {"statement", 0, CLI_STR, offsetof(struct cost_options, statement), "KEY",
     "Every change of the balance of this key, one line each"},
    {"json", 'j', CLI_FLAG, offsetof(struct cost_options, json), NULL, "Print JSON"},
    {"state", 0, CLI_STR, offsetof(struct cost_options, state), "DIR",
     "The state directory of the server (default: the one serve takes)"},
    {0},
};

static void print_json(const struct val *v)
{
  struct buf out = {0};
  json_print(&out, v);
  printf("%s\n", out.data);
  buf_free(&out);
}

/* --- sums --- */

static const char *const columns[] = {"time", "key", "tier", "op", "tag"};

static void print_sums(const struct val *sums)
{
  char text[PRICE_TEXT_SIZE];
  int64_t calls = 0, total = 0;
  for (size_t i = 0; i < sums->list.n; i++) {
    const struct val *one = &sums->list.v[i];
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
      const char *cell = val_get_str(one, columns[c], NULL);
      if (cell) printf("%-20s ", cell[0] ? cell : "-");
    }
    calls += val_get_int(one, "calls", 0);
    total += val_get_int(one, "microusd", 0);
    printf("%10lld %16s\n", (long long)val_get_int(one, "calls", 0),
           price_print(val_get_int(one, "microusd", 0), text));
  }
  printf("total: %lld charges, %s US dollars\n", (long long)calls, price_print(total, text));
}

static int show_sums(struct store *store, const struct cost_query *q, bool json, struct err *err)
{
  struct val sums;
  int rc = costs_sum(store_db(store), q, &sums, err);
  if (rc < 0) return rc;
  if (json)
    print_json(&sums);
  else
    print_sums(&sums);
  val_free(&sums);
  return 0;
}

/* --- a statement --- */

struct wanted {
  const char *name;
  struct key_info key; /* account 0: not found */
};

static void match(void *data, const struct key_info *key)
{
  struct wanted *w = data;
  if (strcmp(key->name, w->name) == 0) w->key = *key;
}

static void print_line(void *data, const struct val *line)
{
  char amount[PRICE_TEXT_SIZE], balance[PRICE_TEXT_SIZE];
  (void)data;
  printf("%6lld  %s  %-10s %-14s %-7s %14s %14s\n", (long long)val_get_int(line, "seq", 0),
         val_get_str(line, "time", ""), val_get_str(line, "op", ""),
         val_get_str(line, "sandbox_id", "-"), val_get_str(line, "tier", "-"),
         price_print(val_get_int(line, "microusd", 0), amount),
         price_print(val_get_int(line, "balance_microusd", 0), balance));
}

static void add_line(void *data, const struct val *line)
{
  val_push(data, val_copy(line));
}

static int show_statement(struct store *store, const struct cost_options *o, int64_t since_ms,
                          struct err *err)
{
  struct wanted w = {.name = o->statement};
  int rc = key_list(store, match, &w, err);
  if (rc < 0) return rc;
  if (!w.key.account) {
    rc = err_set(err, ERR_NOT_FOUND, 0, "there is no key named \"%s\"", o->statement);
    err_hint(err, "regolith key ls shows them");
    return rc;
  }
  struct db *db = store_db(store);
  if (!o->json) return costs_statement(db, w.key.account, since_ms, 0, print_line, NULL, err);
  struct val lines = val_list();
  rc = costs_statement(db, w.key.account, since_ms, 0, add_line, &lines, err);
  if (rc == 0) print_json(&lines);
  val_free(&lines);
  return rc;
}

static int run_cost(int argc, char **argv)
{
  struct cost_options o = {0};
  int first, dashes, rc = cli_parse(&cmd_cost, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  cleanup_free char *by = xstrdup(o.by ? o.by : "key");
  struct cost_query q = {.since_ms = o.since_ms ? clock_wall_ms() - (int64_t)o.since_ms : 0};
  rc = cost_query_by(&q, by, &err);
  if (rc == 0 && first < argc) rc = err_arg(&err, "", "cost takes no operands");
  if (rc == 0 && o.by && o.statement)
    rc = err_arg(&err, "--by", "--by and --statement contradict each other");
  if (rc < 0) return cli_usage_err(&cmd_cost, &err);
  struct store *store;
  rc = store_open(&store, &(struct store_conf){.dir = o.state, .existing = true}, &err);
  if (rc == 0) {
    rc = o.statement ? show_statement(store, &o, q.since_ms, &err)
                     : show_sums(store, &q, o.json, &err);
    store_close(store, NULL, NULL);
  }
  if (rc == 0) return CLI_EXIT_OK;
  cli_print_err(&err);
  return err_info(err.kind)->cli_exit;
}

const struct cli_command cmd_cost = {
    .name = "cost",
    .summary = "What was charged by a server, and the statements of its keys",
    .usage = "",
    .options = options,
    .run = run_cost,
};

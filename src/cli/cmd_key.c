/* regolith key: the API keys of a server's state directory, whether or not one runs. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/val.h"
#include "cli/cli.h"
#include "db/store.h"
#include "ledger/keys.h"
#include "wire/price.h"

static const struct cli_command cmd_key_add, cmd_key_ls, cmd_key_revoke, cmd_key_topup;

static const struct cli_command *const subcommands[] = {&cmd_key_add, &cmd_key_ls, &cmd_key_revoke,
                                                        &cmd_key_topup, NULL};

struct key_options {
  const char *state, *credit, *rate;
  uint32_t max_sandboxes;
  bool json;
};

#define STATE_OPTION                                                                               \
  {                                                                                                \
    "state", 0, CLI_STR, offsetof(struct key_options, state), "DIR",                               \
        "The state directory of the server (default: the one serve takes)"                         \
  }

static int fail(const struct err *err)
{
  cli_print_err(err);
  return err_info(err->kind)->cli_exit;
}

static int usage_of(const struct cli_command *cmd, int got, int want, struct err *err)
{
  if (got == want) return 0;
  return err_arg(err, "", "%s needs %s: regolith %s %s", cmd->name,
                 want == 1 ? "the name of one key" : "a name and an amount", cmd->name, cmd->usage);
}

static int open_state(const struct key_options *o, bool existing, struct store **ret,
                      struct err *err)
{
  return store_open(ret, &(struct store_conf){.dir = o->state, .existing = existing}, err);
}

/* --- add --- */

static const struct cli_option add_options[] = {
    {"credit", 0, CLI_STR, offsetof(struct key_options, credit), "USD",
     "What may be spent with the key, as in 5.00 (default: nothing)"},
    {"rate", 0, CLI_STR, offsetof(struct key_options, rate), "N/s",
     "Requests in a second (10/s), a minute (600/m) or an hour (default: no limit)"},
    {"max-sandboxes", 0, CLI_UINT, offsetof(struct key_options, max_sandboxes), "N",
     "Sandboxes alive at once (default: no limit)"},
    STATE_OPTION,
    {0},
};

static int run_add(int argc, char **argv)
{
  struct key_options o = {0};
  int first, dashes, rc = cli_parse(&cmd_key_add, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  struct key_conf conf = {.max_sandboxes = o.max_sandboxes};
  rc = usage_of(&cmd_key_add, argc - first, 1, &err);
  if (rc == 0 && o.credit) rc = price_parse(o.credit, "--credit", &conf.credit_microusd, &err);
  if (rc == 0 && o.rate) rc = key_rate_parse(o.rate, &conf.rate, &err);
  if (rc < 0) return cli_usage_err(&cmd_key_add, &err);
  conf.name = argv[first];
  struct store *store;
  char key[KEY_SIZE];
  rc = open_state(&o, false, &store, &err);
  if (rc < 0) return fail(&err);
  rc = key_add(store, &conf, key, &err);
  store_close(store, NULL, NULL);
  if (rc < 0) return fail(&err);
  printf("%s\n", key);
  fprintf(stderr, "regolith: this is the only time that the key is shown\n");
  return CLI_EXIT_OK;
}

static const struct cli_command cmd_key_add = {
    .name = "key add",
    .summary = "Make an API key with an account of its own, and print it",
    .usage = "NAME",
    .options = add_options,
    .run = run_add,
};

/* --- ls --- */

static const struct cli_option ls_options[] = {
    {"json", 'j', CLI_FLAG, offsetof(struct key_options, json), NULL, "Print JSON"},
    STATE_OPTION,
    {0},
};

static void print_line(void *data, const struct key_info *k)
{
  char balance[PRICE_TEXT_SIZE], rate[32], when[CLOCK_ISO_SIZE];
  (void)data;
  key_rate_print(&k->rate, rate);
  clock_format_iso(k->created_s, when);
  printf("%-20s %-9s %14s  %-8s %9u  %.10s%s\n", k->name, k->hint,
         price_print(k->balance_microusd, balance), rate[0] ? rate : "-", k->max_sandboxes, when,
         k->revoked_s ? "  revoked" : "");
}

static void add_json(void *data, const struct key_info *k)
{
  char text[CLOCK_ISO_SIZE];
  struct val v = val_map();
  val_add(&v, "name", val_str(k->name));
  val_add(&v, "hint", val_str(k->hint));
  val_add(&v, "balance_microusd", val_int(k->balance_microusd));
  val_add(&v, "held_microusd", val_int(k->held_microusd));
  key_rate_print(&k->rate, text);
  if (text[0]) val_add(&v, "rate", val_str(text));
  if (k->max_sandboxes) val_add(&v, "max_sandboxes", val_int(k->max_sandboxes));
  clock_format_iso(k->created_s, text);
  val_add(&v, "created_at", val_str(text));
  clock_format_iso(k->revoked_s, text);
  if (k->revoked_s) val_add(&v, "revoked_at", val_str(text));
  val_push(data, v);
}

static int list_json(struct store *store, struct err *err)
{
  struct val all = val_list();
  int rc = key_list(store, add_json, &all, err);
  struct buf out = {0};
  json_print(&out, &all);
  if (rc == 0) printf("%s\n", out.data);
  buf_free(&out);
  val_free(&all);
  return rc;
}

static int run_ls(int argc, char **argv)
{
  struct key_options o = {0};
  int first, dashes, rc = cli_parse(&cmd_key_ls, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  if (first < argc) {
    err_arg(&err, "", "key ls takes no operands");
    return cli_usage_err(&cmd_key_ls, &err);
  }
  struct store *store;
  if (open_state(&o, true, &store, &err) < 0) return fail(&err);
  if (o.json) {
    rc = list_json(store, &err);
  } else {
    printf("%-20s %-9s %14s  %-8s %9s  %s\n", "NAME", "KEY", "BALANCE", "RATE", "SANDBOXES",
           "CREATED");
    rc = key_list(store, print_line, NULL, &err);
  }
  store_close(store, NULL, NULL);
  return rc < 0 ? fail(&err) : CLI_EXIT_OK;
}

static const struct cli_command cmd_key_ls = {
    .name = "key ls",
    .summary = "List the keys, with what is left on their accounts",
    .usage = "",
    .options = ls_options,
    .run = run_ls,
};

/* --- revoke --- */

static const struct cli_option revoke_options[] = {STATE_OPTION, {0}};

static int run_revoke(int argc, char **argv)
{
  struct key_options o = {0};
  int first, dashes, rc = cli_parse(&cmd_key_revoke, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  if (usage_of(&cmd_key_revoke, argc - first, 1, &err) < 0)
    return cli_usage_err(&cmd_key_revoke, &err);
  struct store *store;
  if (open_state(&o, true, &store, &err) < 0) return fail(&err);
  rc = key_revoke(store, argv[first], &err);
  store_close(store, NULL, NULL);
  if (rc < 0) return fail(&err);
  printf("revoked %s\n", argv[first]);
  return CLI_EXIT_OK;
}

static const struct cli_command cmd_key_revoke = {
    .name = "key revoke",
    .summary = "Make a key worthless, and end the sandboxes that it has",
    .usage = "NAME",
    .options = revoke_options,
    .run = run_revoke,
};

/* --- topup --- */

static int run_topup(int argc, char **argv)
{
  struct key_options o = {0};
  int first, dashes, rc = cli_parse(&cmd_key_topup, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  int64_t amount, balance;
  rc = usage_of(&cmd_key_topup, argc - first, 2, &err);
  if (rc == 0) rc = price_parse(argv[first + 1], "USD", &amount, &err);
  if (rc < 0) return cli_usage_err(&cmd_key_topup, &err);
  struct store *store;
  if (open_state(&o, true, &store, &err) < 0) return fail(&err);
  rc = key_topup(store, argv[first], amount, &balance, &err);
  store_close(store, NULL, NULL);
  if (rc < 0) return fail(&err);
  char text[PRICE_TEXT_SIZE];
  printf("%s has %s US dollars\n", argv[first], price_print(balance, text));
  return CLI_EXIT_OK;
}

static const struct cli_command cmd_key_topup = {
    .name = "key topup",
    .summary = "Add credit to the account of a key (behind \"--\" a negative amount takes it away)",
    .usage = "NAME USD",
    .options = revoke_options,
    .run = run_topup,
};

/* --- the command itself --- */

static void print_overview(void)
{
  printf("usage: regolith key COMMAND [OPTION]... [OPERAND]...\n\n"
         "API keys of a server, each with an account of its own.\n\ncommands:\n");
  for (const struct cli_command *const *c = subcommands; *c; c++)
    printf("  %-10s %s\n", (*c)->name + strlen("key "), (*c)->summary);
  printf("\n`regolith key COMMAND --help` shows one command.\n");
}

static int run_key(int argc, char **argv)
{
  if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
    print_overview();
    return argc < 2 ? CLI_EXIT_USAGE : CLI_EXIT_OK;
  }
  for (const struct cli_command *const *c = subcommands; *c; c++)
    if (strcmp((*c)->name + strlen("key "), argv[1]) == 0) return (*c)->run(argc - 1, argv + 1);
  struct err err = {0};
  err_arg(&err, "", "there is no command \"key %s\"", argv[1]);
  return cli_usage_err(&cmd_key, &err);
}

const struct cli_command cmd_key = {
    .name = "key",
    .summary = "API keys of a server: add, ls, revoke, topup",
    .usage = "COMMAND",
    .run = run_key,
};

/* regolith check: what is wrong with a script, without running it. The work is done by
 * lua/regolith/check.lua. */
#include <stddef.h>

#include "cli/cli.h"
#include "cli/tool.h"

struct check_options {
  bool json;
};

static const struct cli_option options[] = {
    {"json", 'j', CLI_FLAG, offsetof(struct check_options, json), NULL,
     "Print one JSON list of findings"},
    {.name = NULL},
};

static int run(int argc, char **argv)
{
  struct check_options opt = {0};
  int first, dashes, rc = cli_parse(&cmd_check, argc, argv, &opt, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  if (first == argc) {
    struct err err;
    err_arg(&err, "", "no script to check");
    err_hint(&err, "regolith check SCRIPT.lua");
    return cli_usage_err(&cmd_check, &err);
  }
  return cli_run_tool("check", argv + first, argc - first, opt.json);
}

const struct cli_command cmd_check = {
    .name = "check",
    .summary = "Find mistakes in scripts without running them",
    .usage = "SCRIPT...",
    .details = "Findings are lines FILE:LINE:COLUMN: error|warning: MESSAGE: syntax, unknown "
               "globals, functions and\n"
               "options that the API does not have, values that it does not take, sandboxes that "
               "may pile up.\n"
               "\n"
               "exit status: 0 no errors, 1 errors found, 2 wrong usage\n",
    .options = options,
    .run = run,
};

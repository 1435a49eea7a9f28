/* regolith api: the reference of the scripting API on one screen, from the comments in lua/types.
 * The work is done by lua/regolith/api.lua. */
#include <stddef.h>

#include "cli/cli.h"
#include "cli/tool.h"

struct api_options {
  bool json;
};

static const struct cli_option options[] = {
    {"json", 'j', CLI_FLAG, offsetof(struct api_options, json), NULL,
     "Print JSON: everything, or the one name"},
    {.name = NULL},
};

static int run(int argc, char **argv)
{
  struct api_options opt = {0};
  int first, dashes, rc = cli_parse(&cmd_api, argc, argv, &opt, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  if (argc - first > 1) {
    struct err err;
    err_arg(&err, "", "one name at a time: \"%s\" is one too many", argv[first + 1]);
    return cli_usage_err(&cmd_api, &err);
  }
  return cli_run_tool("api", argv + first, argc - first, opt.json);
}

const struct cli_command cmd_api = {
    .name = "api",
    .summary = "Show what scripts can call, on one screen",
    .usage = "[NAME]",
    .details =
        "NAME is a function (sandbox.create, sb:exec, retry), a type (sandbox.CreateOptions, "
        "Error) or a\n"
        "module (task). Without one, everything is listed.\n",
    .options = options,
    .run = run,
};

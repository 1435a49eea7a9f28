/* Help text and the form of messages on the terminal: made from the command and option tables, so
 * that they cannot disagree with what is parsed. Holds cmd_help and cmd_version too, which are
 * nothing else. */
#include <stdio.h>
#include <string.h>

#include "base/suggest.h"
#include "cli/cli.h"

void cli_print_err(const struct err *err)
{
  fprintf(stderr, "regolith: %s\n", err->msg);
  if (err->hint[0]) fprintf(stderr, "  hint: %s\n", err->hint);
}

int cli_usage_err(const struct cli_command *cmd, struct err *err)
{
  if (!err->hint[0])
    err_hint(err, "regolith help%s%s shows what it takes", cmd ? " " : "", cmd ? cmd->name : "");
  cli_print_err(err);
  return CLI_EXIT_USAGE;
}

int cli_parse(const struct cli_command *cmd, int argc, char **argv, void *out, int *ret_first,
              int *ret_dashes)
{
  struct err err = {0};
  int rc = cli_parse_quiet(cmd, argc, argv, out, ret_first, ret_dashes, &err);
  if (rc < 0) return cli_usage_err(cmd, &err);
  if (rc == 0) return CLI_GO_ON;
  cli_print_help(cmd);
  return CLI_EXIT_OK;
}

static void print_option(const struct cli_option *o)
{
  char left[64], shorter[8] = "    ";
  if (o->letter) snprintf(shorter, sizeof shorter, "-%c, ", o->letter);
  snprintf(left, sizeof left, "%s--%s%s%s", shorter, o->name, o->value ? " " : "",
           o->value ? o->value : "");
  printf("  %-28s %s\n", left, o->help);
}

void cli_print_help(const struct cli_command *cmd)
{
  printf("usage: regolith %s%s%s%s\n\n%s.\n", cmd->name, cmd->options ? " [OPTION]..." : "",
         cmd->usage[0] ? " " : "", cmd->usage, cmd->summary);
  printf("\noptions:\n");
  for (const struct cli_option *o = cmd->options; o && o->name; o++)
    if (o->type == CLI_HEADING)
      printf("\n%s:\n", o->name);
    else
      print_option(o);
  static const struct cli_option help = {
      .name = "help", .letter = 'h', .type = CLI_FLAG, .help = "Show this text"};
  print_option(&help);
  if (cmd->details) printf("\n%s", cmd->details);
}

void cli_print_overview(FILE *out)
{
  fprintf(out, "usage: regolith COMMAND [OPTION]... [OPERAND]...\n\n"
               "Runs Lua workflow scripts that create, use and give back isolated sandboxes.\n\n"
               "commands:\n");
  for (const struct cli_command *const *c = cli_commands(); *c; c++)
    fprintf(out, "  %-10s %s\n", (*c)->name, (*c)->summary);
  fprintf(out, "\n`regolith help COMMAND` shows one command; `man regolith` has everything.\n"
               "To begin: regolith doctor, then regolith run examples/hello.lua\n");
}

static int run_help(int argc, char **argv)
{
  if (argc < 2) {
    cli_print_overview(stdout);
    return CLI_EXIT_OK;
  }
  const struct cli_command *cmd =
      strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ? &cmd_help : cli_find(argv[1]);
  if (!cmd) return CLI_EXIT_USAGE;
  cli_print_help(cmd);
  return CLI_EXIT_OK;
}

const struct cli_command cmd_help = {
    .name = "help",
    .summary = "Show how a command is used",
    .usage = "[COMMAND]",
    .run = run_help,
};

static int run_version(int argc, char **argv)
{
  int first, dashes, rc = cli_parse(&cmd_version, argc, argv, NULL, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  printf("regolith %s\n", REGOLITH_VERSION);
  return CLI_EXIT_OK;
}

const struct cli_command cmd_version = {
    .name = "version",
    .summary = "Show the version",
    .usage = "",
    .run = run_version,
};

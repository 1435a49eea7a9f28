#ifndef REGOLITH_CLI_CLI_H
#define REGOLITH_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

/* The command line: one file and one `const struct cli_command` per command, listed in main.c.
 * Parsing, help text, completions and "did you mean" all come from the option tables here. */

/* Exit statuses, beside those that a command of the user's passes through `exec`. */
enum cli_exit {
  CLI_EXIT_OK = 0,
  CLI_EXIT_FAILED = 1,        /* a script failed; the checked thing has faults */
  CLI_EXIT_USAGE = 2,         /* the command line is wrong */
  CLI_EXIT_NO_SANDBOXES = 3,  /* this machine cannot make sandboxes */
  CLI_EXIT_TIMEOUT = 124,     /* a script or command ran out of time */
  CLI_EXIT_OWN_FAILURE = 125, /* exec: we failed, not the command */
  CLI_EXIT_INTERRUPTED = 130, /* SIGINT or SIGTERM */
  CLI_EXIT_READER_GONE = 141, /* nobody reads our stdout, as if of SIGPIPE */
};

/* How an option's value is read and where it goes: a member of the command's own struct. Those
 * start out zeroed or hold the defaults. */
enum cli_type {
  CLI_FLAG,     /* bool */
  CLI_STR,      /* const char *, points into argv */
  CLI_LIST,     /* struct cli_list; may be given again and again */
  CLI_DURATION, /* uint64_t milliseconds: "250ms" "90s" "5m" "2h", bare numbers are seconds */
  CLI_SIZE,     /* uint64_t bytes: "512MiB" "2GiB" "64KiB", bare integers are MiB */
  CLI_UINT,     /* uint32_t */
  CLI_MILLI,    /* uint32_t thousandths: "0.5" is 500 */
  CLI_CHOICE,   /* struct cli_list: the option's name, then its value, for whoever reads them */
  CLI_HEADING,  /* no option: a line of the help text, in name */
};

struct cli_list {
  const char **v; /* owned array of strings that point into argv */
  size_t n;
};

struct cli_option {
  const char *name; /* long name without dashes; NULL ends the table */
  char letter;      /* its short form, 0 = none */
  enum cli_type type;
  size_t offset;     /* offsetof(struct x_options, member) */
  const char *value; /* what help calls the value, "DIR"; NULL for flags */
  const char *help;  /* one sentence, no full stop */
};

enum cli_flags {
  CLI_MAKES_SANDBOXES = 1 << 0, /* main forks the warden before anything is read */
  CLI_RUNS_SCRIPTS = 1 << 2,    /* … and the nursery */
  CLI_STOPS_AT_OPERAND = 1 << 1 /* what follows the first operand is not ours to parse */
};

struct cli_command {
  const char *name;
  const char *summary;              /* one line in `regolith help` */
  const char *usage;                /* operands, behind "regolith NAME [OPTION]…" */
  const char *details;              /* text below the options in help, NULL = none */
  const struct cli_option *options; /* NULL = only --help */
  unsigned flags;                   /* enum cli_flags */
  /* argv[0] is the command's name; returns the exit status. */
  int (*run)(int argc, char **argv);
};

extern const struct cli_command cmd_api, cmd_check, cmd_cost, cmd_doctor, cmd_exec, cmd_help,
    cmd_image, cmd_key, cmd_ps, cmd_repl, cmd_run, cmd_serve, cmd_version, cmd_volume;

/* All commands, in the order of help; ended by NULL. */
const struct cli_command *const *cli_commands(void);
const struct cli_command *cli_find(const char *name); /* NULL: said on stderr that there is none */

enum { CLI_GO_ON = -1 };

/* Parses the options in front of (or between) the operands into out. Returns CLI_GO_ON, with the
 * operands moved together at argv[*ret_first] to argv[argc-1] and *ret_dashes the index of the
 * first one that came behind a "--" (argc: none), or the exit status to leave with: --help was
 * answered on stdout, or a mistake was explained on stderr. */
int cli_parse(const struct cli_command *cmd, int argc, char **argv, void *out, int *ret_first,
              int *ret_dashes);

/* The same without printing: 0, 1 for --help, or a negative errno with err set. */
int cli_parse_quiet(const struct cli_command *cmd, int argc, char **argv, void *out, int *ret_first,
                    int *ret_dashes, struct err *err);

void cli_list_free(struct cli_list *list);

/* Value parsers: field names the option in messages. 0, or a negative errno with err set. */
int cli_read_duration(uint64_t *ret_ms, const char *text, const char *field, struct err *err);
int cli_read_size(uint64_t *ret_bytes, const char *text, const char *field, struct err *err);

/* "regolith: message" and, when there is one, the way out on a second line, to stderr. */
void cli_print_err(const struct err *err);
/* As cli_print_err for a mistake on the command line; names `regolith help CMD` when err has no
 * hint of its own. Returns CLI_EXIT_USAGE. */
int cli_usage_err(const struct cli_command *cmd, struct err *err);

void cli_print_help(const struct cli_command *cmd);
void cli_print_overview(FILE *out);

#endif

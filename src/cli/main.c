/* The program's entry: picks the command, forks the warden where one is needed, and runs it.
 *
 * The warden is forked before the environment, any configuration or any library is looked at: it
 * must hold no secret, and a fork copies the page tables of whatever was touched before it. The
 * order of things below is therefore part of the design and of the start-up time. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/suggest.h"
#include "cli/cli.h"
#include "cli/session.h"

static const struct cli_command *const commands[] = {
    &cmd_run,  &cmd_repl,  &cmd_ps,  &cmd_exec,   &cmd_image, &cmd_volume,  &cmd_serve, &cmd_key,
    &cmd_cost, &cmd_check, &cmd_api, &cmd_doctor, &cmd_help,  &cmd_version, NULL,
};

const struct cli_command *const *cli_commands(void)
{
  return commands;
}

static const struct cli_command *find(const char *name)
{
  for (const struct cli_command *const *c = commands; *c; c++)
    if (strcmp((*c)->name, name) == 0) return *c;
  return NULL;
}

/* Explains on stderr when there is no such command. */
const struct cli_command *cli_find(const char *name)
{
  const struct cli_command *cmd = find(name);
  if (cmd) return cmd;
  struct err err;
  err_arg(&err, "", "there is no command \"%s\"", name);
  const char *names[sizeof commands / sizeof *commands];
  size_t n = 0;
  for (; commands[n]; n++) names[n] = commands[n]->name;
  const char *near = suggest_nearest(name, names, n);
  size_t len = strlen(name);
  if (near)
    err_hint(&err, "did you mean regolith %s?", near);
  else if (len > 4 && strcmp(name + len - 4, ".lua") == 0)
    err_hint(&err, "to run a script: regolith run %s", name);
  cli_usage_err(NULL, &err);
  return NULL;
}

/* A closed 0, 1 or 2 would be taken by the next open, and then written to. */
static void hold_std_fds(void)
{
  for (int fd = 0; fd <= 2; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) < 0) _exit(125);
}

/* What was printed and did not arrive is a failure: nobody can take half an answer for a whole one.
 * A reader who has seen enough (head) is told nothing, as if we had died of SIGPIPE. */
static int end_output(int status)
{
  if (fflush(stdout) == 0 && !ferror(stdout)) return status;
  int why = errno;
  struct pollfd reader = {.fd = STDOUT_FILENO, .events = POLLOUT};
  if (poll(&reader, 1, 0) > 0 && (reader.revents & POLLERR)) return CLI_EXIT_READER_GONE;
  struct err err;
  err_set(&err, ERR_INTERNAL, why, "cannot write to standard output: %s", strerror(why));
  cli_print_err(&err);
  return status ? status : CLI_EXIT_FAILED;
}

int main(int argc, char **argv)
{
  hold_std_fds();
  const char *name = argc > 1 ? argv[1] : "help";
  if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
  if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) name = "version";
  const struct cli_command *cmd = find(name);
  unsigned flags = cmd ? cmd->flags : 0;
  session_prefork(argv[0], flags & CLI_MAKES_SANDBOXES, flags & CLI_RUNS_SCRIPTS);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN); /* ulimit -f: a write that fails, not our death */
  if (argc < 2) {
    cli_print_overview(stderr);
    return CLI_EXIT_USAGE;
  }
  if (!cmd) cmd = cli_find(name);
  return cmd ? end_output(cmd->run(argc - 1, argv + 1)) : CLI_EXIT_USAGE;
}

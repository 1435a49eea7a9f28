/* regolith volume: the volumes that regolith keeps for sandboxes. They are made by the first
 * sandbox that uses them, or here; they go only here. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/val.h"
#include "cli/cli.h"
#include "engine/local/volumes.h"
#include "image/ids.h"

static const struct cli_command cmd_volume_ls, cmd_volume_create, cmd_volume_rm;
static const struct cli_command *const subcommands[] = {&cmd_volume_ls, &cmd_volume_create,
                                                        &cmd_volume_rm, NULL};

static int fail(const struct err *err)
{
  cli_print_err(err);
  return err->kind == ERR_INVALID_ARGUMENT ? CLI_EXIT_USAGE : CLI_EXIT_FAILED;
}

/* --- ls --- */

struct list_options {
  bool json;
};

static int add_row(void *data, const struct volume_info *info, struct err *err)
{
  (void)err;
  char when[CLOCK_ISO_SIZE];
  struct val row = val_map();
  clock_format_iso(info->created_at, when);
  val_add(&row, "name", val_str(info->name));
  val_add(&row, "in_use", val_bool(info->in_use));
  val_add(&row, "created_at", val_str(when));
  val_push(data, row);
  return 0;
}

static int compare_rows(const void *a, const void *b)
{
  return strcmp(val_get_str(a, "name", ""), val_get_str(b, "name", ""));
}

static void print_rows(const struct val *rows)
{
  printf("%-40s %-8s %s\n", "NAME", "IN USE", "CREATED");
  for (size_t i = 0; i < rows->list.n; i++) {
    const struct val *row = &rows->list.v[i];
    printf("%-40s %-8s %s\n", val_get_str(row, "name", ""),
           val_get_bool(row, "in_use", false) ? "yes" : "no", val_get_str(row, "created_at", ""));
  }
}

static const struct cli_option list_table[] = {
    {"json", 'j', CLI_FLAG, offsetof(struct list_options, json), NULL, "Print one JSON array"},
    {0},
};

static int run_ls(int argc, char **argv)
{
  struct list_options o = {0};
  int first, dashes, rc = cli_parse(&cmd_volume_ls, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  struct val rows = val_list();
  rc = volume_each(add_row, &rows, &err);
  if (rc == 0 && rows.list.n) qsort(rows.list.v, rows.list.n, sizeof *rows.list.v, compare_rows);
  if (rc == 0 && o.json) {
    struct buf line = {0};
    json_print(&line, &rows);
    puts(line.data);
    buf_free(&line);
  } else if (rc == 0) {
    print_rows(&rows);
  }
  val_free(&rows);
  return rc == 0 ? CLI_EXIT_OK : fail(&err);
}

static const struct cli_command cmd_volume_ls = {
    .name = "volume ls",
    .summary = "List the volumes that regolith keeps",
    .usage = "",
    .options = list_table,
    .run = run_ls,
};

/* --- create, rm --- */

static int for_each_name(const struct cli_command *cmd, int argc, char **argv,
                         int (*fn)(const char *name, struct err *err))
{
  int first, dashes, rc = cli_parse(cmd, argc, argv, NULL, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  if (first >= argc) {
    err_arg(&err, "", "%s needs the names of volumes", cmd->name);
    return cli_usage_err(cmd, &err);
  }
  for (int i = first; i < argc; i++)
    if (fn(argv[i], &err) < 0) return fail(&err);
  return CLI_EXIT_OK;
}

static int create_one(const char *name, struct err *err)
{
  struct volume_use use;
  int rc = volume_acquire(name, &use, err);
  volume_release(&use);
  return rc;
}

static int run_create(int argc, char **argv)
{
  return for_each_name(&cmd_volume_create, argc, argv, create_one);
}

static const struct cli_command cmd_volume_create = {
    .name = "volume create",
    .summary = "Make volumes; those that are there stay as they are",
    .usage = "NAME...",
    .run = run_create,
};

static int remove_one(const char *name, struct err *err)
{
  return volume_remove(name, err);
}

/* What sandboxes of an ordinary user wrote belongs to subordinate ids too. */
static int run_rm(int argc, char **argv)
{
  struct err err = {0};
  if (image_ids_enter(&err) < 0) return fail(&err);
  return for_each_name(&cmd_volume_rm, argc, argv, remove_one);
}

static const struct cli_command cmd_volume_rm = {
    .name = "volume rm",
    .summary = "Remove volumes, with all that is in them",
    .usage = "NAME...",
    .run = run_rm,
};

/* --- the command itself --- */

static void print_overview(void)
{
  printf("usage: regolith volume COMMAND [OPTION]... [NAME]...\n\n"
         "Volumes that regolith keeps: directories that outlive the sandboxes that use them.\n\n"
         "commands:\n");
  for (const struct cli_command *const *c = subcommands; *c; c++)
    printf("  %-10s %s\n", (*c)->name + strlen("volume "), (*c)->summary);
  printf("\n`regolith volume COMMAND --help` shows one command.\n");
}

static int run_volume(int argc, char **argv)
{
  if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
    print_overview();
    return argc < 2 ? CLI_EXIT_USAGE : CLI_EXIT_OK;
  }
  for (const struct cli_command *const *c = subcommands; *c; c++)
    if (strcmp((*c)->name + strlen("volume "), argv[1]) == 0) return (*c)->run(argc - 1, argv + 1);
  struct err err = {0};
  err_arg(&err, "", "there is no command \"volume %s\"", argv[1]);
  return cli_usage_err(&cmd_volume, &err);
}

const struct cli_command cmd_volume = {
    .name = "volume",
    .summary = "List, make and remove the volumes of sandboxes",
    .usage = "COMMAND",
    .details = "commands: ls create rm; `regolith volume --help` says what they do\n",
    .run = run_volume,
};

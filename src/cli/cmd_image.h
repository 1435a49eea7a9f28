#ifndef REGOLITH_CLI_CMD_IMAGE_H
#define REGOLITH_CLI_CMD_IMAGE_H

#include <stdbool.h>

#include "base/err.h"

struct cli_command;
struct image_store;
struct strv;

/* The commands under `regolith image`, and what they share. */
extern const struct cli_command cmd_image_pull, cmd_image_push, cmd_image_ls, cmd_image_inspect,
    cmd_image_rm, cmd_image_gc, cmd_image_import, cmd_image_export, cmd_image_verify;
/* Not for people. */
extern const struct cli_command cmd_image_upper_diff, cmd_image_upper_commit;

/* Prints the error; returns the exit status for it. */
int image_fail(const struct err *err);

/* Errors about images quote what strangers wrote: in archives, manifests and answers. */
void image_err_plain(struct err *err);

/* What an image that is in the store runs by default: its Entrypoint and its Cmd. */
int image_default_command(const char *name, struct strv *ret, struct err *err);

/* Opens the user's store. writes: layers are written or removed. */
int image_open(struct image_store **ret, bool writes, struct err *err);

#endif

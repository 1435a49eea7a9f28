#ifndef REGOLITH_CLI_SESSION_H
#define REGOLITH_CLI_SESSION_H

#include <stdbool.h>

#include "base/err.h"

struct cli_list;
struct engine;
struct host;
struct host_conf;
struct loop;
struct strv;
struct val;

/* First thing in main: starts the helpers of the engines where `wanted`. Does not return in a
 * process that is such a helper, started anew under the name program. */
void session_prefork(const char *program, bool sandboxes, bool scripts);

/* Starts a host with the engine called `engine` (NULL: "local") as the default one, the local one,
 * and those of the configuration's `engines` (`named`, NULL = none; cli/engines.h).
 * ENGINE_UNAVAILABLE: this machine cannot make sandboxes. */
int session_open(struct host **ret, const char *engine, const struct val *named,
                 const struct host_conf *conf, struct err *err);

/* One engine alone, for whoever has a loop and a supervisor of its own. serves: see engine_conf. */
int session_open_engine(struct engine **ret, const char *name, const struct val *named,
                        struct loop *loop, bool serves, bool *ret_priced, struct err *err);

/* The exit status for a session that did not open. */
int session_exit_status(const struct err *err);

/* Reads --env options: NAME=VALUE, or NAME for a variable of our own environment. */
int session_read_env(const struct cli_list *list, struct strv *ret, struct err *err);

#endif

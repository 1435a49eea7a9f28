#ifndef REGOLITH_CLI_PLUGIN_H
#define REGOLITH_CLI_PLUGIN_H

#include "base/err.h"

struct cli_list;
struct host;

/* --plugin NAME|FILE[=OPTION]: finds each, adds it to the host, and waits until all are ready. */
int plugin_add_all(struct host *host, const struct cli_list *list, struct err *err);

#endif

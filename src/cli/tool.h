#ifndef REGOLITH_CLI_TOOL_H
#define REGOLITH_CLI_TOOL_H

#include <stdbool.h>

/* Runs a function of lua/regolith/tool.lua with the operands, and prints what it says. Returns its
 * exit status. */
int cli_run_tool(const char *function, char **operands, int n, bool json);

#endif

#ifndef REGOLITH_HOST_SETTINGS_H
#define REGOLITH_HOST_SETTINGS_H

#include "base/err.h"

struct val;

/* Reads the configuration: the file at path, or regolith/config.lua in $XDG_CONFIG_HOME or
 * ~/.config when path is NULL (then it may be missing: ret stays nil, ret_file NULL). It is Lua
 * without any library, and returns a table of plain data. ret and ret_file are the caller's. */
int settings_load(struct val *ret, const char *path, char **ret_file, struct err *err);

#endif

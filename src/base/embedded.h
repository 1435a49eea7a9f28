#ifndef REGOLITH_BASE_EMBEDDED_H
#define REGOLITH_BASE_EMBEDDED_H

#include <stddef.h>

/* The Lua files that the binary carries (made by tools/embed.sh): lua/regolith/task.lua is named
 * "regolith/task.lua". Ended by a NULL name. */
struct embedded_file {
  const char *name;
  const char *data; /* text, NUL behind len */
  size_t len;
};

extern const struct embedded_file embedded_files[] __attribute__((visibility("hidden")));

#endif

#ifndef REGOLITH_CORE_PART_H
#define REGOLITH_CORE_PART_H

#include <stddef.h>

#include "base/err.h"
#include "base/log.h"

/* A part: a shared object of ours that is opened on first use, because what it links (curl,
 * libarchive) is too dear to map in every start and every fork of the program. It lies beside the
 * binary, in parts/NAME.so, or where `make install` puts it, in ../lib/regolith/NAME.so (tests find
 * it in ../parts). */

/* What a part gets from the program when it is opened. */
struct part_host {
  enum log_level level;
  void (*log)(enum log_level level, const char *text, void *data);
};

/* First member of every part's own table of functions. */
struct part_head {
  const char *name;
  const char *version; /* of the build, must be the program's */
  size_t size;         /* of the whole table, in bytes */
  void (*attach)(const struct part_host *host);
};

/* The one symbol a part exports. */
#define PART_SYMBOL "regolith_part"
#define PART_EXPORT __attribute__((visibility("default")))

/* Opens the part once per process and returns its table, of `size` bytes. Main thread only. */
int part_open(const char *name, size_t size, const struct part_head **ret, struct err *err);

/* A part's attach: sends what its own copy of the log writes to the program's. */
void part_attach_log(const struct part_host *host);

#endif

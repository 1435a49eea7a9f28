#ifndef REGOLITH_IMAGE_DIFF_H
#define REGOLITH_IMAGE_DIFF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum diff_kind { DIFF_ADDED, DIFF_MODIFIED, DIFF_DELETED };

struct diff_conf {
  int upper_fd;     /* the upper folder of an overlay; others may go on writing to it */
  const int *lower; /* its lower folders, topmost first */
  size_t lower_n;
  bool user_xattrs;    /* marks are user.overlay.*, not trusted.overlay.* */
  unsigned root_owner; /* whose the files of root are in the upper folder */
  /* One change; path is absolute, type as in `ls -l` (of what is deleted: of what was there). */
  int (*on_change)(void *data, enum diff_kind kind, char type, const char *path, struct err *err);
  void *data;
};

/* What an overlay's upper folder changes, in the order of names, a folder before its content. A
 * folder is a change by itself only when it is new or has other permissions or another owner; of
 * one that is deleted only the top is told. Blocks. */
int image_diff(const struct diff_conf *conf, struct err *err);

#endif

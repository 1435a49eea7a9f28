#ifndef REGOLITH_ENGINE_LOCAL_VOLUMES_H
#define REGOLITH_ENGINE_LOCAL_VOLUMES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct buf;

/* Volumes that regolith keeps: directories with names, which outlive the sandboxes that use them.
 * Blocking calls, all short but for volume_remove. */

/* A volume in use: nobody removes it until volume_release. */
struct volume_use {
  int lock_fd; /* -1 = none */
  char *path;  /* owned: of the directory that sandboxes see */
};

/* Makes the volume where there is none. */
int volume_acquire(const char *name, struct volume_use *ret, struct err *err);
void volume_release(struct volume_use *use);

struct volume_info {
  const char *name;
  bool in_use;
  int64_t created_at; /* seconds since the epoch */
};
/* Every volume, in no order. */
int volume_each(int (*fn)(void *data, const struct volume_info *info, struct err *err), void *data,
                struct err *err);

/* NOT_FOUND; CONFLICT while a sandbox uses it. Files of subordinate ids need image_ids_enter first.
 */
int volume_remove(const char *name, struct err *err);

/* INVALID_ARGUMENT unless it is one. */
int volume_check_name(const char *name, struct err *err);

#endif

#ifndef REGOLITH_ENGINE_LOCAL_IDS_H
#define REGOLITH_ENGINE_LOCAL_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "engine/local/proto.h"

/* Which user ids a box is made of. Every number here is as the warden sees it. */
struct ids {
  enum ids_mode mode;
  uint32_t n;         /* IDS_SHARED: ids 0..n-1 exist in the warden's user namespace */
  int lock_fd;        /* IDS_BLOCKS: held locks are the blocks in use; -1 = not opened */
  uint32_t next;      /* IDS_BLOCKS: where to look first */
  uint8_t used[1024]; /* IDS_BLOCKS: bit set = taken by this warden */
  char why[256];      /* what is missing for something better, "" = nothing */
};

/* One box's share. Inside, 0 maps to first, 1..mapped-1 to rest, rest+1, …. */
struct ids_block {
  uint32_t block; /* IDS_BLOCKS: its number */
  uint32_t first, rest;
  uint32_t mapped;
  uint32_t agent; /* not mapped inside, except with IDS_SINGLE */
};

/* Once in the warden, before anything else is set up: as an ordinary user it enters a user
 * namespace of its own, with the subordinate ids where there are some. */
int ids_enter(struct ids *ret, struct err *err);

/* own_root: root inside is the user himself outside (his files are root's files inside); only
 * IDS_SHARED knows the difference. */
int ids_take(struct ids *ids, bool own_root, struct ids_block *ret, struct err *err);
void ids_give(struct ids *ids, const struct ids_block *block);

/* Writes the maps of the user namespace that pid has just been cloned into. */
int ids_map(const struct ids *ids, const struct ids_block *block, pid_t pid, struct err *err);

/* The caller becomes the box's agent id, keeping its capabilities; and back. */
int ids_become(const struct ids *ids, uint32_t id);

void ids_done(struct ids *ids);

#endif

#ifndef REGOLITH_BASE_IDMAP_H
#define REGOLITH_BASE_IDMAP_H

#include <stddef.h>
#include <stdint.h>

/* A map from non-zero 64-bit ids to pointers. Zero-initialised is empty and valid. */
struct idmap_slot {
  uint64_t id; /* 0 = free */
  void *value;
};

struct idmap {
  struct idmap_slot *slots; /* owned; cap is a power of two, or 0 */
  size_t n, cap;
};

void *idmap_get(const struct idmap *map, uint64_t id);       /* NULL: absent */
void idmap_set(struct idmap *map, uint64_t id, void *value); /* value not NULL; replaces */
void *idmap_remove(struct idmap *map, uint64_t id);          /* what was there, or NULL */
void *idmap_next(const struct idmap *map,
                 size_t *at);       /* iterate: *at starts at 0; NULL at the end */
void idmap_free(struct idmap *map); /* the values are the caller's */

#endif

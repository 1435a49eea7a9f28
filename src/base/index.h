#ifndef REGOLITH_BASE_INDEX_H
#define REGOLITH_BASE_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

/* An intrusive hash index. Zero-initialised is empty and valid; it owns its buckets only. */
struct index {
  struct list *buckets; /* owned; size is a power of two */
  size_t size, n;
};

struct index_node {
  struct list node;
  uint64_t hash;
};

uint64_t index_hash_text(const char *text);
uint64_t index_hash_u64(uint64_t n);

void index_add(struct index *ix, struct index_node *node, uint64_t hash);
void index_remove(struct index *ix, struct index_node *node);
void index_free(struct index *ix);

/* Walks the entries with this hash: start with at = NULL; NULL: no more. Equality is the caller's.
 */
struct index_node *index_next(const struct index *ix, uint64_t hash, struct index_node *at);

#endif

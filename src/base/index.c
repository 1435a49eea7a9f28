/* Intrusive hash index: buckets of lists, doubled when they average more than one entry. Keys are
 * ids that we issued ourselves, so that nobody can choose them to collide. */
#include "base/index.h"

#include <stdlib.h>

#include "base/buf.h"

uint64_t index_hash_u64(uint64_t n)
{
  n ^= n >> 32;
  n *= 0x9E3779B97F4A7C15u;
  return n ^ n >> 29;
}

uint64_t index_hash_text(const char *text)
{
  uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
  for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3u;
  return index_hash_u64(h);
}

static struct list *bucket(const struct index *ix, uint64_t hash)
{
  return &ix->buckets[hash & (ix->size - 1)];
}

static void grow(struct index *ix)
{
  struct index old = *ix;
  ix->size = old.size ? old.size * 2 : 16;
  ix->buckets = xcalloc(ix->size, sizeof *ix->buckets);
  for (size_t i = 0; i < ix->size; i++) list_init(&ix->buckets[i]);
  for (size_t i = 0; i < old.size; i++) {
    while (!list_empty(&old.buckets[i])) {
      struct list *node = old.buckets[i].next;
      list_remove(node);
      list_append(bucket(ix, list_entry(node, struct index_node, node)->hash), node);
    }
  }
  free(old.buckets);
}

void index_add(struct index *ix, struct index_node *node, uint64_t hash)
{
  if (ix->n == ix->size) grow(ix);
  node->hash = hash;
  list_append(bucket(ix, hash), &node->node);
  ix->n++;
}

void index_remove(struct index *ix, struct index_node *node)
{
  list_remove(&node->node);
  ix->n--;
}

void index_free(struct index *ix)
{
  free(ix->buckets);
  *ix = (struct index){0};
}

struct index_node *index_next(const struct index *ix, uint64_t hash, struct index_node *at)
{
  if (ix->size == 0) return NULL;
  struct list *head = bucket(ix, hash);
  for (struct list *it = at ? at->node.next : head->next; it != head; it = it->next) {
    struct index_node *node = list_entry(it, struct index_node, node);
    if (node->hash == hash) return node;
  }
  return NULL;
}

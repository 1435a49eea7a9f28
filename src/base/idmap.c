/* Ids to pointers: open addressing with linear probing and backward-shift deletion (Knuth, TAOCP 3,
 * 6.4, algorithm R), so that no tombstones gather. Ids may be chosen by an enemy, so they are mixed
 * with splitmix64's finaliser; the load stays at or below one half. */
#include "base/idmap.h"

#include <stdlib.h>

#include "base/buf.h"

static size_t home(const struct idmap *m, uint64_t id)
{
  id ^= id >> 30;
  id *= 0xbf58476d1ce4e5b9u;
  id ^= id >> 27;
  id *= 0x94d049bb133111ebu;
  return (size_t)(id ^ id >> 31) & (m->cap - 1);
}

static size_t find(const struct idmap *m, uint64_t id)
{
  size_t i = home(m, id);
  while (m->slots[i].id != 0 && m->slots[i].id != id) i = (i + 1) & (m->cap - 1);
  return i;
}

void *idmap_get(const struct idmap *m, uint64_t id)
{
  if (m->n == 0 || id == 0) return NULL;
  return m->slots[find(m, id)].value;
}

static void grow(struct idmap *m)
{
  struct idmap old = *m;
  m->cap = old.cap ? old.cap * 2 : 16;
  m->slots = xcalloc(m->cap, sizeof *m->slots);
  for (size_t i = 0; i < old.cap; i++)
    if (old.slots[i].id) m->slots[find(m, old.slots[i].id)] = old.slots[i];
  free(old.slots);
}

void idmap_set(struct idmap *m, uint64_t id, void *value)
{
  if ((m->n + 1) * 2 > m->cap) grow(m);
  struct idmap_slot *s = &m->slots[find(m, id)];
  if (s->id == 0) m->n++;
  *s = (struct idmap_slot){id, value};
}

void *idmap_remove(struct idmap *m, uint64_t id)
{
  if (!idmap_get(m, id)) return NULL;
  size_t hole = find(m, id);
  void *value = m->slots[hole].value;
  for (size_t i = (hole + 1) & (m->cap - 1); m->slots[i].id; i = (i + 1) & (m->cap - 1)) {
    size_t distance_home = (i - home(m, m->slots[i].id)) & (m->cap - 1);
    if (distance_home < ((i - hole) & (m->cap - 1))) continue;
    m->slots[hole] = m->slots[i];
    hole = i;
  }
  m->slots[hole] = (struct idmap_slot){0};
  m->n--;
  return value;
}

void *idmap_next(const struct idmap *m, size_t *at)
{
  while (*at < m->cap) {
    const struct idmap_slot *s = &m->slots[(*at)++];
    if (s->id) return s->value;
  }
  return NULL;
}

void idmap_free(struct idmap *m)
{
  free(m->slots);
  *m = (struct idmap){0};
}

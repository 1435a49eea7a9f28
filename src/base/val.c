/* Plain data trees (see val.h). Depth is bounded by whoever builds them from foreign bytes: the
 * recursion here follows it. */
#include "base/val.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

void val_free(struct val *v)
{
  if (!v) return;
  if (v->type == VAL_STR) free(v->s.p);
  if (v->type == VAL_LIST) {
    for (size_t i = 0; i < v->list.n; i++) val_free(&v->list.v[i]);
    free(v->list.v);
  }
  if (v->type == VAL_MAP) {
    for (size_t i = 0; i < v->map.n; i++) {
      free(v->map.v[i].key);
      val_free(&v->map.v[i].val);
    }
    free(v->map.v);
  }
  *v = (struct val){0};
}

static struct val list_copy(const struct val *v)
{
  struct val copy = val_list();
  for (size_t i = 0; i < v->list.n; i++) val_push(&copy, val_copy(&v->list.v[i]));
  return copy;
}

static struct val map_copy(const struct val *v)
{
  struct val copy = val_map();
  for (size_t i = 0; i < v->map.n; i++) val_add(&copy, v->map.v[i].key, val_copy(&v->map.v[i].val));
  return copy;
}

struct val val_copy(const struct val *v)
{
  if (v->type == VAL_STR) return val_bytes(v->s.p, v->s.len);
  if (v->type == VAL_LIST) return list_copy(v);
  if (v->type == VAL_MAP) return map_copy(v);
  return *v;
}

static bool map_equal(const struct val *a, const struct val *b)
{
  if (a->map.n != b->map.n) return false;
  for (size_t i = 0; i < a->map.n; i++) {
    const struct val *other = val_get(b, a->map.v[i].key);
    if (!other || !val_equal(&a->map.v[i].val, other)) return false;
  }
  return true;
}

static bool list_equal(const struct val *a, const struct val *b)
{
  if (a->list.n != b->list.n) return false;
  for (size_t i = 0; i < a->list.n; i++)
    if (!val_equal(&a->list.v[i], &b->list.v[i])) return false;
  return true;
}

bool val_equal(const struct val *a, const struct val *b)
{
  if (a->type != b->type) return false;
  switch (a->type) {
  case VAL_NIL: return true;
  case VAL_BOOL: return a->b == b->b;
  case VAL_INT: return a->i == b->i;
  case VAL_NUM: return memcmp(&a->n, &b->n, sizeof a->n) == 0;
  case VAL_STR: return a->s.len == b->s.len && memcmp(a->s.p, b->s.p, a->s.len) == 0;
  case VAL_LIST: return list_equal(a, b);
  case VAL_MAP: return map_equal(a, b);
  }
  return false;
}

const char *val_type_name(enum val_type type)
{
  static const char *const names[] = {"nil",    "boolean", "integer", "number",
                                      "string", "list",    "table"};
  return names[type];
}

struct val val_bool(bool b)
{
  return (struct val){.type = VAL_BOOL, .b = b};
}

struct val val_int(int64_t i)
{
  return (struct val){.type = VAL_INT, .i = i};
}

struct val val_num(double n)
{
  return (struct val){.type = VAL_NUM, .n = n};
}

struct val val_take_bytes(char *p, size_t len)
{
  return (struct val){.type = VAL_STR, .s = {p, len}};
}

struct val val_bytes(const void *p, size_t len)
{
  char *copy = xmalloc(len + 1);
  if (len) memcpy(copy, p, len);
  copy[len] = '\0';
  return val_take_bytes(copy, len);
}

struct val val_str(const char *s)
{
  return s ? val_bytes(s, strlen(s)) : (struct val){0};
}

struct val val_list(void)
{
  return (struct val){.type = VAL_LIST};
}

struct val val_map(void)
{
  return (struct val){.type = VAL_MAP};
}

void val_push(struct val *list, struct val v)
{
  if (list->list.n == list->list.cap) {
    list->list.cap = list->list.cap ? list->list.cap * 2 : 4;
    list->list.v = xrealloc(list->list.v, list->list.cap * sizeof *list->list.v);
  }
  list->list.v[list->list.n++] = v;
}

static struct val_pair *find(const struct val *map, const char *key)
{
  if (!map || map->type != VAL_MAP) return NULL;
  for (size_t i = 0; i < map->map.n; i++)
    if (strcmp(map->map.v[i].key, key) == 0) return &map->map.v[i];
  return NULL;
}

void val_add(struct val *map, const char *key, struct val v)
{
  if (map->map.n == map->map.cap) {
    map->map.cap = map->map.cap ? map->map.cap * 2 : 8;
    map->map.v = xrealloc(map->map.v, map->map.cap * sizeof *map->map.v);
  }
  map->map.v[map->map.n++] = (struct val_pair){xstrdup(key), v};
}

void val_set(struct val *map, const char *key, struct val v)
{
  struct val_pair *p = find(map, key);
  if (!p) {
    val_add(map, key, v);
    return;
  }
  val_free(&p->val);
  p->val = v;
}

const struct val *val_get(const struct val *map, const char *key)
{
  const struct val_pair *p = find(map, key);
  return p ? &p->val : NULL;
}

struct val *val_get_mut(struct val *map, const char *key)
{
  struct val_pair *p = find(map, key);
  return p ? &p->val : NULL;
}

bool val_remove(struct val *map, const char *key)
{
  struct val_pair *p = find(map, key);
  if (!p) return false;
  free(p->key);
  val_free(&p->val);
  size_t at = (size_t)(p - map->map.v);
  memmove(p, p + 1, (map->map.n - at - 1) * sizeof *p);
  map->map.n--;
  return true;
}

const char *val_get_str(const struct val *map, const char *key, const char *fallback)
{
  const struct val *v = val_get(map, key);
  return v && v->type == VAL_STR ? v->s.p : fallback;
}

int64_t val_get_int(const struct val *map, const char *key, int64_t fallback)
{
  const struct val *v = val_get(map, key);
  return v && v->type == VAL_INT ? v->i : fallback;
}

double val_get_num(const struct val *map, const char *key, double fallback)
{
  const struct val *v = val_get(map, key);
  if (v && v->type == VAL_INT) return (double)v->i;
  return v && v->type == VAL_NUM ? v->n : fallback;
}

bool val_get_bool(const struct val *map, const char *key, bool fallback)
{
  const struct val *v = val_get(map, key);
  return v && v->type == VAL_BOOL ? v->b : fallback;
}

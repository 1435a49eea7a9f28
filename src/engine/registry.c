/* The engines this program knows, by type name. cli registers them at start; nothing else does. */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

static const struct engine_ops *known[16];
static size_t known_n;

void engine_register(const struct engine_ops *ops)
{
  if (known_n == sizeof known / sizeof *known || engine_find(ops->name)) abort();
  known[known_n++] = ops;
}

const struct engine_ops *engine_find(const char *type)
{
  for (size_t i = 0; i < known_n; i++)
    if (strcmp(known[i]->name, type) == 0) return known[i];
  return NULL;
}

size_t engine_count(void)
{
  return known_n;
}

const struct engine_ops *engine_at(size_t i)
{
  return i < known_n ? known[i] : NULL;
}

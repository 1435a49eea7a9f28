/* "Did you mean": the one spelling helper behind options, commands and field names.
 *
 * Compares by the optimal string alignment distance (insert, delete, replace, swap neighbours),
 * ignoring case and treating '-' and '_' as one, so that "--idle_timeout" finds "idle-timeout". A
 * word that begins a name, with at least three characters, counts as near too. Long input is not
 * compared: nobody misspells a name of forty characters into one of ours. */
#include "base/suggest.h"

#include <ctype.h>
#include <string.h>

enum { SUGGEST_MAX = 40 };

static char fold(char c)
{
  return c == '_' ? '-' : (char)tolower((unsigned char)c);
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
  unsigned m = a < b ? a : b;
  return m < c ? m : c;
}

static unsigned distance(const char *a, size_t an, const char *b, size_t bn)
{
  unsigned rows[3][SUGGEST_MAX + 1];
  unsigned *older = rows[0], *old = rows[1], *row = rows[2];
  for (size_t j = 0; j <= bn; j++) old[j] = (unsigned)j;
  for (size_t i = 1; i <= an; i++) {
    row[0] = (unsigned)i;
    for (size_t j = 1; j <= bn; j++) {
      unsigned differs = fold(a[i - 1]) != fold(b[j - 1]);
      row[j] = min3(old[j] + 1, row[j - 1] + 1, old[j - 1] + differs);
      if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) && fold(a[i - 2]) == fold(b[j - 1]))
        row[j] = min3(row[j], older[j - 2] + 1, row[j]);
    }
    unsigned *spare = older;
    older = old;
    old = row;
    row = spare;
  }
  return old[bn];
}

const char *suggest_nearest(const char *word, const char *const *names, size_t n)
{
  size_t len = strlen(word);
  if (len == 0 || len > SUGGEST_MAX) return NULL;
  const char *best = NULL;
  unsigned best_distance = len < 3 ? 1 : (unsigned)(len + 2) / 3;
  for (size_t i = 0; i < n; i++) {
    size_t name_len = strlen(names[i]);
    if (name_len > SUGGEST_MAX) continue;
    unsigned d = distance(word, len, names[i], name_len);
    if (len >= 3 && name_len > len && strncasecmp(word, names[i], len) == 0) d = 1;
    if (d > best_distance || (best && d == best_distance)) continue;
    best = names[i];
    best_distance = d;
  }
  return best;
}

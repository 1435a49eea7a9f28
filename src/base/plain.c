/* A stranger's text on a line of ours: what would move the cursor, colour the screen or look like a
 * second line of ours becomes "?". Length stays as it is. */
#include "base/plain.h"

#include <stddef.h>

/* How many bytes of a character follow this one; -1: none begins with it. */
static int following(unsigned char c)
{
  if (c < 0x80) return 0;
  if (c >= 0xC2 && c < 0xE0) return 1;
  if (c >= 0xE0 && c < 0xF0) return 2;
  return c >= 0xF0 && c < 0xF5 ? 3 : -1;
}

/* The character at p: its length if it may be shown, else minus that. */
static int length(const unsigned char *p)
{
  int n = following(p[0]);
  if (n < 0) return -1;
  for (int i = 1; i <= n; i++)
    if ((p[i] & 0xC0) != 0x80) return -i; /* a NUL is none either */
  if (p[0] < 0x20 || p[0] == 0x7F) return -1;
  return p[0] == 0xC2 && p[1] < 0xA0 ? -2 : n + 1;
}

void plain(char *text)
{
  for (unsigned char *p = (unsigned char *)text; *p;) {
    int n = length(p);
    for (int i = 0; i < -n; i++) p[i] = '?';
    p += n < 0 ? -n : n;
  }
}

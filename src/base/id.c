/* Identifiers. The kernel's generator is the only source, so that ids cannot be guessed from
 * earlier ones; rejection sampling keeps every character equally likely. */
#include "base/id.h"

#include <string.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

void id_random(char *out, size_t len)
{
  static const char alphabet[] = "0123456789abcdefghijklmnopqrstuvwxyz";
  size_t have = 0;
  while (have < len) {
    unsigned char raw[32];
    ssize_t n = getrandom(raw, sizeof raw, 0);
    if (n < 0) {
      perror("regolith: getrandom");
      abort();
    }
    for (ssize_t i = 0; i < n && have < len; i++)
      if (raw[i] < 252) out[have++] = alphabet[raw[i] % 36];
  }
  out[len] = '\0';
}

void id_sandbox(char out[ID_SIZE])
{
  memcpy(out, "sb_", 3);
  id_random(out + 3, ID_SIZE - 4);
}

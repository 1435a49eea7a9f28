/* Destinations: names, networks and ports, as texts. Pure: nothing is looked up. */
#include "wire/destination.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static bool parse_number(const char *text, unsigned long most, unsigned long *ret)
{
  char *end;
  if (!isdigit((unsigned char)*text) || strlen(text) > 5) return false;
  *ret = strtoul(text, &end, 10);
  return !*end && *ret <= most;
}

/* Cuts ":PORT" off. A bare IPv6 address has colons and no port. */
static bool take_port(char *host, uint16_t *ret)
{
  char *bracket = strrchr(host, ']');
  char *colon = strchr(bracket ? bracket : host, ':');
  unsigned long n;
  *ret = 0;
  if (!colon || (!bracket && strchr(colon + 1, ':'))) return true;
  if (!parse_number(colon + 1, 65535, &n) || n == 0) return false;
  *colon = '\0';
  *ret = (uint16_t)n;
  return true;
}

/* "[ADDRESS]" to "ADDRESS", also before "/BITS". */
static bool take_brackets(char *host)
{
  if (*host != '[') return !strpbrk(host, "[]");
  char *close = strchr(host, ']');
  if (!close || strpbrk(close + 1, "[]") || strchr(host + 1, '[')) return false;
  memmove(close, close + 1, strlen(close + 1) + 1);
  memmove(host, host + 1, strlen(host));
  return strchr(host, ':') != NULL;
}

static void mask(uint8_t *addr, size_t size, unsigned bits)
{
  for (size_t i = 0; i < size; i++) {
    unsigned here = bits > i * 8 ? bits - (unsigned)i * 8 : 0;
    if (here < 8) addr[i] &= (uint8_t)(0xff00u >> here);
  }
}

static bool parse_network(struct destination *d, char *host)
{
  char *slash = strchr(host, '/');
  unsigned long bits;
  if (slash) *slash = '\0';
  if (inet_pton(AF_INET, host, d->addr) == 1)
    d->kind = DEST_NET4;
  else if (inet_pton(AF_INET6, host, d->addr) == 1)
    d->kind = DEST_NET6;
  else
    return false;
  unsigned most = d->kind == DEST_NET4 ? 32 : 128;
  if (slash && !parse_number(slash + 1, most, &bits)) return false;
  d->bits = slash ? (unsigned)bits : most;
  mask(d->addr, most / 8, d->bits);
  return true;
}

static bool parse_name(struct destination *d, const char *host)
{
  d->kind = DEST_NAME;
  d->below = strncmp(host, "*.", 2) == 0;
  if (d->below) host += 2;
  size_t len = strlen(host);
  if (len > 1 && host[len - 1] == '.') len--;
  if (len == 0 || len > 253 || host[0] == '-') return false;
  bool digits = true;
  for (size_t i = 0; i < len; i++) {
    if (!isalnum((unsigned char)host[i]) && !strchr("-_.", host[i])) return false;
    if (host[i] == '.' && (i == 0 || host[i - 1] == '.')) return false;
    digits &= isdigit((unsigned char)host[i]) || host[i] == '.';
    d->name[i] = (char)tolower((unsigned char)host[i]);
  }
  d->name[len] = '\0';
  return !digits; /* an address that is not quite one */
}

bool destination_parse(struct destination *d, const char *text)
{
  char host[300];
  *d = (struct destination){0};
  size_t len = strlen(text);
  if (len == 0 || len >= sizeof host) return false;
  memcpy(host, text, len + 1);
  if (!take_port(host, &d->port) || !take_brackets(host)) return false;
  bool network = strpbrk(host, ":/") != NULL;
  return parse_network(d, host) || (!network && parse_name(d, host));
}

bool destination_has_name(const struct destination *d, const char *name)
{
  if (d->kind != DEST_NAME) return false;
  size_t n = strlen(name), m = strlen(d->name);
  if (!d->below) return n == m && memcmp(name, d->name, n) == 0;
  return n > m + 1 && name[n - m - 1] == '.' && memcmp(name + n - m, d->name, m) == 0;
}

bool destination_has_addr4(const struct destination *d, uint32_t addr)
{
  uint8_t bytes[4] = {(uint8_t)(addr >> 24), (uint8_t)(addr >> 16), (uint8_t)(addr >> 8),
                      (uint8_t)addr};
  if (d->kind != DEST_NET4) return false;
  mask(bytes, 4, d->bits);
  return memcmp(bytes, d->addr, 4) == 0;
}

bool destination_covers(const struct destination *whole, const struct destination *part)
{
  if (whole->kind != part->kind || (whole->port && whole->port != part->port)) return false;
  if (whole->kind == DEST_NAME) {
    if (part->below && !whole->below) return false;
    return destination_has_name(whole, part->name) /* also *.a.b below *.b */ ||
           (part->below && strcmp(whole->name, part->name) == 0);
  }
  uint8_t bytes[16];
  memcpy(bytes, part->addr, sizeof bytes);
  size_t size = whole->kind == DEST_NET4 ? 4 : 16;
  mask(bytes, size, whole->bits);
  return part->bits >= whole->bits && memcmp(bytes, whole->addr, size) == 0;
}

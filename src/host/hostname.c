/* Names of hosts and addresses, as grants have them. Pure: nothing is looked up.
 *
 * What is public is decided by a list of what is not, from the registries of special addresses
 * (RFC 6890 and its successors); an IPv6 address that carries an IPv4 one (mapped, translated,
 * 6to4) is what that one is. */
#include "host/hostname.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool parse_port(const char *text, uint16_t *ret)
{
  char *end;
  if (!isdigit((unsigned char)*text)) return false;
  unsigned long n = strtoul(text, &end, 10);
  if (*end || n < 1 || n > 65535) return false;
  *ret = (uint16_t)n;
  return true;
}

static bool is_name(const char *s)
{
  if (!*s || *s == '.' || *s == '-') return false;
  for (const char *c = s; *c; c++) {
    if (!isalnum((unsigned char)*c) && !strchr("-._", *c)) return false;
    if (c[0] == '.' && c[1] == '.') return false;
  }
  return true;
}

/* Cuts text into host and port; the host without brackets. */
static bool split(const char *text, char host[256], bool *ret_bracketed, uint16_t *ret_port)
{
  const char *colon = strchr(text, ':');
  size_t len;
  *ret_bracketed = *text == '[';
  if (*ret_bracketed) {
    const char *close = strchr(text++, ']');
    if (!close || (close[1] && close[1] != ':')) return false;
    len = (size_t)(close - text);
    colon = close[1] ? close + 1 : NULL;
  } else if (colon && strchr(colon + 1, ':')) {
    *ret_bracketed = true; /* a bare IPv6 address */
    colon = NULL;
    len = strlen(text);
  } else {
    len = colon ? (size_t)(colon - text) : strlen(text);
  }
  if (len == 0 || len > 255) return false;
  for (size_t i = 0; i < len; i++) host[i] = (char)tolower((unsigned char)text[i]);
  host[len] = '\0';
  return !colon || parse_port(colon + 1, ret_port);
}

bool host_pattern_parse(struct host_pattern *p, const char *text)
{
  char host[256];
  bool bracketed;
  *p = (struct host_pattern){0};
  if (!split(text, host, &bracketed, &p->port)) return false;
  if (bracketed) {
    struct in6_addr six;
    if (inet_pton(AF_INET6, host, &six) != 1) return false;
    inet_ntop(AF_INET6, &six, p->name, sizeof p->name);
    return true;
  }
  if (strcmp(host, "*") == 0) {
    p->any = true;
    return true;
  }
  p->below = strncmp(host, "*.", 2) == 0;
  snprintf(p->name, sizeof p->name, "%s", host + (p->below ? 2 : 0));
  return is_name(p->name);
}

/* One spelling for an IPv6 address. */
static void canonical(const char *host, char out[256])
{
  struct in6_addr six;
  size_t len = strlen(host);
  if (host[0] == '[' && len > 2 && len < 255) {
    snprintf(out, 256, "%.*s", (int)(len - 2), host + 1);
    host = out;
  }
  if (inet_pton(AF_INET6, host, &six) == 1)
    inet_ntop(AF_INET6, &six, out, 256);
  else if (host != out)
    snprintf(out, 256, "%.255s", host);
}

bool host_pattern_matches(const struct host_pattern *p, const char *host, uint16_t port)
{
  if (p->port && p->port != port) return false;
  if (p->any) return true;
  char name[256];
  canonical(host, name);
  size_t n = strlen(name), m = strlen(p->name);
  if (!p->below) return strcasecmp(name, p->name) == 0;
  return n > m + 1 && name[n - m - 1] == '.' && strcasecmp(name + n - m, p->name) == 0;
}

/* ---- addresses ---- */

static bool in4(uint32_t a, uint32_t net, unsigned bits)
{
  return (a ^ net) >> (32 - bits) == 0;
}

static bool public4(uint32_t a)
{
  static const struct {
    uint32_t net;
    unsigned bits;
  } special[] = {
      {0x00000000, 8},  /* this network */
      {0x0a000000, 8},  /* private */
      {0x64400000, 10}, /* carrier's own */
      {0x7f000000, 8},  /* loopback */
      {0xa9fe0000, 16}, /* link-local: metadata services of clouds */
      {0xa83f8110, 32}, /* Azure's metadata */
      {0xac100000, 12}, /* private */
      {0xc0000000, 24}, /* protocol assignments */
      {0xc0000200, 24}, /* documentation */
      {0xc0586300, 24}, /* 6to4 relays */
      {0xc0a80000, 16}, /* private */
      {0xc6120000, 15}, /* benchmarks */
      {0xc6336400, 24}, /* documentation */
      {0xcb007100, 24}, /* documentation */
      {0xe0000000, 3},  /* multicast, reserved, broadcast */
  };
  for (size_t i = 0; i < sizeof special / sizeof *special; i++)
    if (in4(a, special[i].net, special[i].bits)) return false;
  return true;
}

static uint32_t be32(const unsigned char *b)
{
  return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static bool public6(const unsigned char b[16])
{
  static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
  static const unsigned char translated[12] = {0x00, 0x64, 0xff, 0x9b};
  if (memcmp(b, mapped, 12) == 0 || memcmp(b, translated, 12) == 0) return public4(be32(b + 12));
  if (b[0] == 0x20 && b[1] == 0x02) return public4(be32(b + 2)); /* 6to4 */
  if ((b[0] & 0xe0) != 0x20) return false;                       /* not global unicast 2000::/3 */
  if (be32(b) == 0x20010db8) return false;                       /* documentation */
  return !(b[0] == 0x20 && b[1] == 0x01 && b[2] < 0x02);         /* protocol assignments, Teredo */
}

bool address_is_public(const struct sockaddr *addr)
{
  if (addr->sa_family == AF_INET) {
    struct sockaddr_in in;
    memcpy(&in, addr, sizeof in);
    return public4(ntohl(in.sin_addr.s_addr));
  }
  if (addr->sa_family != AF_INET6) return false;
  struct sockaddr_in6 in6;
  memcpy(&in6, addr, sizeof in6);
  return public6(in6.sin6_addr.s6_addr);
}

bool host_pattern_is_address(const struct host_pattern *p, const struct sockaddr *addr)
{
  char text[INET6_ADDRSTRLEN];
  bool loopback;
  if (p->any || p->below) return false;
  if (addr->sa_family == AF_INET) {
    struct sockaddr_in in;
    memcpy(&in, addr, sizeof in);
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    loopback = in4(ntohl(in.sin_addr.s_addr), 0x7f000000, 8);
  } else if (addr->sa_family == AF_INET6) {
    struct sockaddr_in6 in6;
    memcpy(&in6, addr, sizeof in6);
    inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
    loopback = IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
  } else {
    return false;
  }
  return strcmp(p->name, text) == 0 || (loopback && strcmp(p->name, "localhost") == 0);
}

#ifndef REGOLITH_HOST_HOSTNAME_H
#define REGOLITH_HOST_HOSTNAME_H

#include <stdbool.h>
#include <stdint.h>

struct sockaddr;

/* Hosts as grants name them: "api.example.com", "*.example.com" (what is below it, not itself),
 * "127.0.0.1", "[::1]", "*"; each may have ":PORT". */
struct host_pattern {
  char name[256]; /* lower case, without brackets and "*."; "" for "*" */
  bool any;       /* "*" */
  bool below;     /* "*." was in front */
  uint16_t port;  /* 0 = any */
};

bool host_pattern_parse(struct host_pattern *ret, const char *text);

/* host: a name or address, with or without brackets; port 0 matches patterns without one only. */
bool host_pattern_matches(const struct host_pattern *p, const char *host, uint16_t port);

/* A public unicast address: none of this machine's, the local network's or the special ones. */
bool address_is_public(const struct sockaddr *addr);
/* Whether the pattern is this very address ("localhost": any of the loopback ones). */
bool host_pattern_is_address(const struct host_pattern *p, const struct sockaddr *addr);

#endif

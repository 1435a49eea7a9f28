#ifndef REGOLITH_ENGINE_LOCAL_NET_H
#define REGOLITH_ENGINE_LOCAL_NET_H

#include <stdint.h>

#include "base/err.h"

/* The network helper: a process that gives the boxes of one owner a way out, in user mode. It talks
 * to the host over one SOCK_SEQPACKET socket, in the messages below, and ends when that ends. It
 * works on what hostile boxes send, so the host checks its every word. */

#define NET_HELPER      "network"
#define NET_RULES_MAX   (60u * 1024) /* bytes of rules of one box */
#define NET_SERVERS_MAX 3
#define NET_UID_BASE    2147287040u /* 0x7ffd0000: below the workers' range, in use by nobody else */

enum net_message {
  NET_BOX = 1, /* host → helper; + its tap */
  NET_FORGET,  /* host → helper: the box is gone */
  NET_HELLO,   /* helper → host: ready, or why it is not */
  NET_REFUSED, /* helper → host: a box wanted to connect where it may not */
};

/* Who answers for names. An IPv4 address is written ::ffff:a.b.c.d; all zero = none. */
struct net_server {
  uint8_t addr[16];
  uint32_t scope; /* the interface, for link-local ones; else 0 */
};

struct net_box_message {
  uint32_t type;
  uint32_t open; /* anywhere; else where the rules say */
  uint64_t box;
  struct net_server servers[NET_SERVERS_MAX];
  uint32_t rules_len; /* bytes behind the struct: one destination a line, NUL */
};

struct net_forget_message {
  uint32_t type;
  uint32_t reserved;
  uint64_t box;
};

struct net_hello_message {
  uint32_t type;
  uint32_t reserved;
  struct err err; /* kind ERR_NONE: ready */
};

struct net_refused_message {
  uint32_t type;
  uint32_t addr; /* host order; 0: a name was refused */
  uint64_t box;
  uint16_t port;
  uint8_t udp, reserved;
  uint32_t times; /* since the last message about this box */
  char name[256]; /* that was asked for; lower case, no control characters */
};

/* What the helper runs; a helper_main_fn. */
int net_main(int sock);

/* net_walls.c: drops all that the helper does not need. netlink: a socket that stays. The error
 * names the step. */
int net_close_walls(uint32_t uid, struct err *err);

/* net_route.c: asks the kernel whether an address (host order) is one of this machine's own, or
 * goes to many. */
int net_route_open(void); /* a descriptor, or a negative errno */
int net_route_is_own(int fd, uint32_t addr);

#endif

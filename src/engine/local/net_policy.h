#ifndef REGOLITH_ENGINE_LOCAL_NET_POLICY_H
#define REGOLITH_ENGINE_LOCAL_NET_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where one box may connect to. What no box may reach, whatever is allowed, is decided before:
 * net_is_special here, and the addresses of this machine by who asks the kernel. */

struct destination;

#define NET_LEARNT_MAX 1024
/* A name's addresses stay open for as long, whatever its server says. */
#define NET_LEARNT_MIN_S 60

struct net_learnt {
  uint32_t addr;
  uint16_t port; /* 0 = any */
  uint64_t until_ms;
};

struct net_policy {
  bool open;                 /* anywhere */
  struct destination *rules; /* owned */
  size_t rules_n;
  struct net_learnt *learnt; /* owned: what answers have opened */
  size_t learnt_n;
};

/* text: one destination a line. false: one of them is none. */
bool net_policy_init(struct net_policy *p, bool open, const char *text);
void net_policy_done(struct net_policy *p);

/* May this name be asked for? In lower case. */
bool net_policy_knows(const struct net_policy *p, const char *name);
/* A server has said that the name, which may be asked for, has this address. */
void net_policy_learn(struct net_policy *p, const char *name, uint32_t addr, uint32_t ttl_s,
                      uint64_t now_ms);
/* May be connected to? What is used stays open for a while longer. */
bool net_policy_allows(struct net_policy *p, uint32_t addr, uint16_t port, uint64_t now_ms);

/* Loopback, link-local, the metadata services of clouds, multicast, broadcast, unspecified, and the
 * box's own little network. Host order. */
bool net_is_special(uint32_t addr);

/* May a box that has `own` of the `all` sockets that there are, of `max` at most, have another? A
 * few always; at most NET_SHARE_MAX, and never more than half of what is left, so that no box that
 * takes all it gets keeps the others from any. */
#define NET_SHARE_MAX 1024
#define NET_SHARE_FEW 8
bool net_share(size_t own, size_t all, size_t max);

#endif

#ifndef REGOLITH_ENGINE_LOCAL_NET_FLOWS_H
#define REGOLITH_ENGINE_LOCAL_NET_FLOWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_frame;

/* To whom a box has sent datagrams, so that answers come in and nothing else does. Pure. */

#define NET_FLOWS_MAX     1024           /* of one box, at once; more push out the oldest */
#define NET_FLOW_QUIET_MS (180 * 1000ul) /* an answer may come so long after the last datagram */

struct net_flows; /* NULL: none; made by the first datagram */

/* The box sends a datagram: f->kind is NET_UDP. */
void net_flows_sent(struct net_flows **flows, const struct net_frame *f, uint64_t now_ms);

/* May this whole frame go to the box? Datagrams only as answers, in one piece; the rest may. */
bool net_flows_lets_in(struct net_flows *flows, const uint8_t *frame, size_t len, uint64_t now_ms);

#endif

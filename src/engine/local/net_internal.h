#ifndef REGOLITH_ENGINE_LOCAL_NET_INTERNAL_H
#define REGOLITH_ENGINE_LOCAL_NET_INTERNAL_H

/* What the files of the network helper share.
 *
 *   net_main.c  the process: its socket, its loop     net_box.c   one box: frames in, frames out
 *   net_names.c questions after names                 net_streams.c  those over TCP
 *   net_told.c  refusals, on their way to the host    net_walls.c, net_route.c, and pure readers */

#include <poll.h>

#include "base/list.h"
#include "engine/local/net.h"
#include "engine/local/net_dns.h"
#include "engine/local/net_flows.h"
#include "engine/local/net_frame.h"
#include "engine/local/net_policy.h"
#include "engine/local/slirp_part.h"

#define NET_SOCKETS_MAX 4096 /* of all boxes, at once; net_policy.h says what one may have */
#define NET_ASKED_MAX   64   /* questions of one box, at once */
#define NET_STREAMS_MAX 8    /* connections to the name server of one box, at once */

struct net_box {
  struct list node;   /* net.boxes */
  struct list active; /* net.active: it has sockets or timers; unlinked: it has none */
  uint64_t id;
  int tap;
  struct net_policy policy;
  struct net_server servers[NET_SERVERS_MAX];
  Slirp *slirp;            /* owned; NULL while there is nothing to keep */
  struct net_flows *flows; /* owned: whose datagrams may come in; lives as long as slirp */
  size_t sockets;          /* that slirp has for it */
  size_t asked;            /* questions under way */
  bool busy;               /* slirp waits for something: set by net_box_fill */
  struct list streams;     /* struct net_stream.of_box */
  size_t streams_n;
  struct list untold;    /* net.untold; unlinked: the host knows of all refusals */
  struct net_told *told; /* owned; what it does not know; NULL: nothing */
  uint64_t told_ms;      /* when it was last told */
};

/* Descriptors to wait for: made anew each turn. */
struct net_polls {
  struct pollfd *v; /* owned */
  size_t n, cap;
};
size_t net_polls_add(struct net_polls *p, int fd, short events);

struct net {
  int host, epoll, route;
  const struct slirp_part *slirp;
  struct list boxes, active;
  size_t sockets, sockets_max; /* of all boxes */
  struct list asked;           /* struct question.node, oldest first */
  struct list streams;         /* struct net_stream.node, longest quiet first */
  struct list untold;          /* struct net_box.untold */
  struct net_polls polls;
  uint64_t now_ms;
};
extern struct net net;

/* net_box.c */
struct net_box *net_box_new(const struct net_box_message *msg, const char *rules, int tap);
void net_box_free(struct net_box *b);
void net_box_read(struct net_box *b); /* some frames from its tap */
void net_box_fill(struct net_box *b, uint32_t *timeout_ms);
void net_box_polled(struct net_box *b);
void net_box_send(struct net_box *b, const void *frame, size_t len);

/* net_told.c: a box wanted to go where it may not: addr, or a name. */
void net_told_refused(struct net_box *b, uint32_t addr, uint16_t port, bool udp, const char *name);
void net_told_fill(uint32_t *timeout_ms);
void net_told_polled(void);
void net_told_forget(struct net_box *b);

/* net_names.c: a question, in a datagram (frame) or over a connection (stream); the other is NULL.
 */
struct net_asker {
  struct net_box *box;
  const struct net_frame *frame;
  struct net_stream *stream;
};
void net_names_ask(const struct net_asker *by, const uint8_t *msg, size_t len);
void net_names_fill(uint32_t *timeout_ms);
void net_names_polled(void);
void net_names_forget(struct net_box *b, struct net_stream *s); /* s NULL: all of the box */

/* net_streams.c */
void net_streams_frame(struct net_box *b, const struct net_frame *f);
void net_streams_answer(struct net_stream *s, const void *msg, size_t len);
void net_streams_fill(uint32_t *timeout_ms);
void net_streams_polled(void);
void net_streams_forget(struct net_box *b);

#endif

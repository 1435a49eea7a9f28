#ifndef REGOLITH_ENGINE_LOCAL_NET_FRAME_H
#define REGOLITH_ENGINE_LOCAL_NET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a box sends, as Ethernet frames, and answers to it. Pure. */

/* Every box sees the same network of three: itself, the way out, and who answers for names. Taken
 * from 192.0.0.0/29, which is for such use inside one machine (RFC 7335) and is routed nowhere. */
#define NET_ADDR      0xc0000002u /* of the box */
#define NET_GATEWAY   0xc0000001u
#define NET_DNS       0xc0000003u
#define NET_MASK      0xfffffff8u
#define NET_MAC       "\x52\x54\x00\x00\x00\x02" /* of the box */
#define NET_MTU       65520
#define NET_FRAME_MAX (14 + NET_MTU)

enum net_kind {
  NET_BAD, /* malformed, a fragment, with options, of another sender, or of no protocol that we
              pass */
  NET_ARP, /* a question after the gateway or the name server */
  NET_TCP,
  NET_UDP,
  NET_OTHER, /* IPv4 of any other protocol */
};

enum { NET_TCP_FIN = 1, NET_TCP_SYN = 2, NET_TCP_RST = 4, NET_TCP_PSH = 8, NET_TCP_ACK = 16 };

/* A frame that was looked at; points into it. Addresses and ports in host order. */
struct net_frame {
  const uint8_t *data;
  size_t len; /* without padding */
  enum net_kind kind;
  uint32_t dst;
  uint16_t sport, dport;
  uint8_t tcp_flags;
  uint32_t tcp_seq, tcp_ack;
  uint16_t tcp_window;    /* not scaled */
  const uint8_t *payload; /* of TCP and UDP */
  size_t payload_len;
};

void net_frame_parse(struct net_frame *ret, const uint8_t *data, size_t len);

/* Answers to a frame, as whole frames: bytes written to out, which has NET_FRAME_MAX; 0 = there is
 * none. */
size_t net_frame_reset(const struct net_frame *f, uint8_t *out); /* NET_TCP */

/* What the other side of f's connection says. */
struct net_segment {
  uint32_t seq, ack;
  uint8_t flags;
  uint16_t window;
  const void *data; /* at most NET_SEGMENT_MAX */
  size_t len;
};
#define NET_SEGMENT_MAX 32000
size_t net_frame_segment(const struct net_frame *f, const struct net_segment *s, uint8_t *out);

enum { NET_ICMP_NO_NETWORK = 0, NET_ICMP_PROHIBITED = 13 };
size_t net_frame_unreachable(const struct net_frame *f, uint8_t code, uint8_t *out);
size_t net_frame_answer(const struct net_frame *f, const void *data, size_t len,
                        uint8_t *out); /* NET_UDP */

#endif

/* Ethernet frames of a box: what they are, and answers to them.
 *
 * Only what is understood whole is passed on: IPv4 without options and fragments, with the box's
 * own addresses as the sender, TCP and UDP whose lengths add up. Everything that decides about a
 * frame reads the fields that were checked here; bytes behind the packet are cut off. */
#include "engine/local/net_frame.h"

#include <string.h>

#define ETH_SIZE   14
#define ETH_IP     0x0800
#define ETH_ARP    0x0806
#define IP_SIZE    20
#define TCP_SIZE   20
#define UDP_SIZE   8
#define ICMP_SIZE  8
#define ARP_SIZE   28
#define PROTO_ICMP 1
#define PROTO_TCP  6
#define PROTO_UDP  17
#define TTL        64

static uint16_t get16(const uint8_t *p)
{
  return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put16(uint8_t *p, size_t n)
{
  p[0] = (uint8_t)(n >> 8);
  p[1] = (uint8_t)n;
}

static void put32(uint8_t *p, uint32_t n)
{
  put16(p, n >> 16);
  put16(p + 2, n & 0xffff);
}

/* ---- reading ---- */

static enum net_kind parse_arp(const uint8_t *p, size_t len)
{
  static const uint8_t request[8] = {0, 1, 8, 0, 6, 4, 0, 1};
  if (len < ARP_SIZE || memcmp(p, request, sizeof request) != 0) return NET_BAD;
  if (memcmp(p + 8, NET_MAC, 6) != 0 || get32(p + 14) != NET_ADDR) return NET_BAD;
  uint32_t target = get32(p + 24);
  return target == NET_GATEWAY || target == NET_DNS ? NET_ARP : NET_BAD;
}

static enum net_kind parse_tcp(struct net_frame *f, const uint8_t *p, size_t len)
{
  if (len < TCP_SIZE) return NET_BAD;
  size_t head = (size_t)(p[12] >> 4) * 4;
  if (head < TCP_SIZE || head > len) return NET_BAD;
  f->sport = get16(p);
  f->dport = get16(p + 2);
  f->tcp_seq = get32(p + 4);
  f->tcp_ack = get32(p + 8);
  f->tcp_flags = p[13];
  f->tcp_window = get16(p + 14);
  f->payload = p + head;
  f->payload_len = len - head;
  return NET_TCP;
}

static enum net_kind parse_udp(struct net_frame *f, const uint8_t *p, size_t len)
{
  if (len < UDP_SIZE) return NET_BAD;
  size_t all = get16(p + 4);
  if (all < UDP_SIZE || all > len) return NET_BAD;
  f->sport = get16(p);
  f->dport = get16(p + 2);
  f->payload = p + UDP_SIZE;
  f->payload_len = all - UDP_SIZE;
  return NET_UDP;
}

static enum net_kind parse_ip(struct net_frame *f, const uint8_t *p, size_t len)
{
  if (len < IP_SIZE || p[0] != 0x45) return NET_BAD; /* version 4, no options */
  size_t total = get16(p + 2);
  if (total < IP_SIZE || total > len) return NET_BAD;
  if (get16(p + 6) & 0x3fff) return NET_BAD; /* more fragments, or not the first */
  if (get32(p + 12) != NET_ADDR) return NET_BAD;
  f->dst = get32(p + 16);
  f->len = ETH_SIZE + total;
  if (p[9] == PROTO_TCP) return parse_tcp(f, p + IP_SIZE, total - IP_SIZE);
  if (p[9] == PROTO_UDP) return parse_udp(f, p + IP_SIZE, total - IP_SIZE);
  return NET_OTHER;
}

void net_frame_parse(struct net_frame *f, const uint8_t *data, size_t len)
{
  *f = (struct net_frame){.data = data, .len = len, .kind = NET_BAD};
  if (len < ETH_SIZE || len > NET_FRAME_MAX || memcmp(data + 6, NET_MAC, 6) != 0) return;
  uint16_t type = get16(data + 12);
  if (type == ETH_ARP) f->kind = parse_arp(data + ETH_SIZE, len - ETH_SIZE);
  if (type == ETH_IP) f->kind = parse_ip(f, data + ETH_SIZE, len - ETH_SIZE);
}

/* ---- writing ---- */

static uint32_t sum(uint32_t so_far, const uint8_t *p, size_t len)
{
  for (; len > 1; p += 2, len -= 2) so_far += get16(p);
  if (len) so_far += (uint32_t)*p << 8;
  while (so_far >> 16) so_far = (so_far & 0xffff) + (so_far >> 16);
  return so_far;
}

/* The packet in out has its payload: what is around it. Returns the length of the frame. */
static size_t finish_ip(const struct net_frame *f, uint8_t protocol, size_t len, uint8_t *out)
{
  uint8_t *ip = out + ETH_SIZE;
  memcpy(out, f->data + 6, 6);
  memcpy(out + 6, f->data, 6);
  out[6] &= 0xfe; /* never sent by a group */
  put16(out + 12, ETH_IP);
  memset(ip, 0, IP_SIZE);
  ip[0] = 0x45;
  put16(ip + 2, IP_SIZE + len);
  ip[6] = 0x40; /* not to be fragmented */
  ip[8] = TTL;
  ip[9] = protocol;
  put32(ip + 12, f->dst);
  put32(ip + 16, NET_ADDR);
  put16(ip + 10, ~sum(0, ip, IP_SIZE) & 0xffff);
  return ETH_SIZE + IP_SIZE + len;
}

static void put_checksum(const struct net_frame *f, uint8_t protocol, uint8_t *p, size_t len,
                         size_t at)
{
  uint8_t pseudo[12] = {0};
  put32(pseudo, f->dst);
  put32(pseudo + 4, NET_ADDR);
  pseudo[9] = protocol;
  put16(pseudo + 10, len);
  put16(p + at, 0);
  uint32_t checksum = ~sum(sum(0, pseudo, sizeof pseudo), p, len) & 0xffff;
  put16(p + at, checksum ? checksum : 0xffff);
}

size_t net_frame_segment(const struct net_frame *f, const struct net_segment *s, uint8_t *out)
{
  uint8_t *tcp = out + ETH_SIZE + IP_SIZE;
  if (s->len > NET_SEGMENT_MAX) return 0;
  memset(tcp, 0, TCP_SIZE);
  put16(tcp, f->dport);
  put16(tcp + 2, f->sport);
  put32(tcp + 4, s->seq);
  put32(tcp + 8, s->ack);
  tcp[12] = TCP_SIZE / 4 << 4;
  tcp[13] = s->flags;
  put16(tcp + 14, s->window);
  if (s->len) memcpy(tcp + TCP_SIZE, s->data, s->len);
  put_checksum(f, PROTO_TCP, tcp, TCP_SIZE + s->len, 16);
  return finish_ip(f, PROTO_TCP, TCP_SIZE + s->len, out);
}

size_t net_frame_reset(const struct net_frame *f, uint8_t *out)
{
  if (f->kind != NET_TCP || (f->tcp_flags & NET_TCP_RST)) return 0;
  if (f->tcp_flags & NET_TCP_ACK)
    return net_frame_segment(f, &(struct net_segment){.seq = f->tcp_ack, .flags = NET_TCP_RST},
                             out);
  uint32_t length = (uint32_t)f->payload_len + ((f->tcp_flags & NET_TCP_SYN) != 0) +
                    ((f->tcp_flags & NET_TCP_FIN) != 0);
  struct net_segment s = {.ack = f->tcp_seq + length, .flags = NET_TCP_RST | NET_TCP_ACK};
  return net_frame_segment(f, &s, out);
}

size_t net_frame_unreachable(const struct net_frame *f, uint8_t code, uint8_t *out)
{
  uint8_t *icmp = out + ETH_SIZE + IP_SIZE;
  if (f->kind != NET_TCP && f->kind != NET_UDP && f->kind != NET_OTHER) return 0;
  /* No errors about errors, nor to what went to many. */
  const uint8_t *ip = f->data + ETH_SIZE;
  size_t have = f->len - ETH_SIZE, quoted = have < IP_SIZE + 8 ? have : IP_SIZE + 8;
  bool echo = ip[9] == PROTO_ICMP && have > IP_SIZE && ip[IP_SIZE] == 8;
  if ((ip[9] == PROTO_ICMP && !echo) || f->dst >= 0xe0000000u || (f->data[0] & 1)) return 0;
  memset(icmp, 0, ICMP_SIZE);
  icmp[0] = 3;
  icmp[1] = code;
  memcpy(icmp + ICMP_SIZE, ip, quoted);
  put16(icmp + 2, ~sum(0, icmp, ICMP_SIZE + quoted) & 0xffff);
  return finish_ip(f, PROTO_ICMP, ICMP_SIZE + quoted, out);
}

size_t net_frame_answer(const struct net_frame *f, const void *data, size_t len, uint8_t *out)
{
  uint8_t *udp = out + ETH_SIZE + IP_SIZE;
  if (f->kind != NET_UDP || len > NET_MTU - IP_SIZE - UDP_SIZE) return 0;
  put16(udp, f->dport);
  put16(udp + 2, f->sport);
  put16(udp + 4, UDP_SIZE + len);
  memcpy(udp + UDP_SIZE, data, len);
  put_checksum(f, PROTO_UDP, udp, UDP_SIZE + len, 6);
  return finish_ip(f, PROTO_UDP, UDP_SIZE + len, out);
}

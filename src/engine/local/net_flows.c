/* The way in for datagrams: what a stateful firewall calls connection tracking.
 *
 * libslirp has one socket for each port that a box sends from, and passes on whatever reaches it,
 * from anybody. Here a datagram passes when the box has sent one from that port to that address and
 * port, not long ago. The table is a set of small rows; a full row gives up its oldest entry, which
 * is one of the same box. */
#include "engine/local/net_flows.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/buf.h"
#include "engine/local/net_frame.h"

enum { ROW = 8, ROWS = NET_FLOWS_MAX / ROW, ETHERNET = 14, UDP = 17 };

struct flow {
  uint64_t used_ms; /* 0 = free */
  uint32_t addr;    /* the other side's */
  uint16_t port, own_port;
};

struct net_flows {
  struct flow row[ROWS][ROW];
};

static struct flow *row_of(struct net_flows *flows, uint32_t addr, uint16_t port, uint16_t own_port)
{
  uint32_t h = (addr ^ (uint32_t)port << 16 ^ own_port) * 2654435761u; /* Knuth's multiplier */
  return flows->row[h >> 25];
}

static bool is(const struct flow *f, uint32_t addr, uint16_t port, uint16_t own_port)
{
  return f->used_ms && f->addr == addr && f->port == port && f->own_port == own_port;
}

void net_flows_sent(struct net_flows **flows, const struct net_frame *f, uint64_t now_ms)
{
  _Static_assert(ROWS == 1 << (32 - 25), "row_of takes the upper bits");
  if (!*flows) *flows = xcalloc(1, sizeof **flows);
  struct flow *row = row_of(*flows, f->dst, f->dport, f->sport), *place = row;
  for (size_t i = 0; i < ROW; i++) {
    if (is(&row[i], f->dst, f->dport, f->sport)) {
      place = &row[i];
      break;
    }
    if (row[i].used_ms < place->used_ms) place = &row[i];
  }
  *place = (struct flow){
      .used_ms = now_ms ? now_ms : 1, .addr = f->dst, .port = f->dport, .own_port = f->sport};
}

static uint16_t get16(const uint8_t *p)
{
  return (uint16_t)(p[0] << 8 | p[1]);
}

bool net_flows_lets_in(struct net_flows *flows, const uint8_t *frame, size_t len, uint64_t now_ms)
{
  if (len < ETHERNET + 20 || get16(frame + 12) != 0x0800) return true; /* ARP */
  const uint8_t *ip = frame + ETHERNET, *udp = ip + (ip[0] & 15) * 4;
  if (ip[9] != UDP) return true;
  bool whole = (get16(ip + 6) & 0x3fff) == 0 && udp >= ip + 20 && udp + 8 <= frame + len;
  if (!flows || !whole) return false;
  uint32_t addr = (uint32_t)get16(ip + 12) << 16 | get16(ip + 14);
  uint16_t port = get16(udp), own_port = get16(udp + 2);
  struct flow *row = row_of(flows, addr, port, own_port);
  for (size_t i = 0; i < ROW; i++) {
    if (!is(&row[i], addr, port, own_port)) continue;
    if (now_ms - row[i].used_ms > NET_FLOW_QUIET_MS) return false;
    row[i].used_ms = now_ms;
    return true;
  }
  return false;
}

/* One box's network: what it sends is looked at here before anything acts on it.
 *
 * A frame that is not plainly ARP for our two neighbours, or whole IPv4 of TCP or UDP from the
 * box's own address, goes no further. What would open a way (a SYN, any datagram) must be allowed:
 * to no address of this machine, none that is special, and by the box's rules. Only then libslirp
 * sees it, which makes it a socket of this process. A box has a stack only while it has something
 * to keep in it: one costs up to 2 MiB after traffic, and idle boxes are many.
 *
 * idle ⇄ active */
#include "engine/local/net_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "engine/local/proto.h"

enum {
  FRAMES_A_TURN = 64,
  OWN_KNOWN_MS = 2000 /* how long the kernel's word about an address holds */
};

/* ---- what libslirp asks of us ---- */

static ssize_t send_packet(const void *frame, size_t len, void *opaque)
{
  struct net_box *b = opaque;
  if (net_flows_lets_in(b->flows, frame, len, net.now_ms)) net_box_send(b, frame, len);
  return (ssize_t)len;
}

static void guest_error(const char *msg, void *opaque)
{
  (void)msg;
  (void)opaque;
}

static int64_t clock_get_ns(void *opaque)
{
  (void)opaque;
  return (int64_t)clock_mono_ns();
}

/* Its only timer is for router advertisements of IPv6, which is off. */
static void *timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
  (void)id, (void)cb_opaque;
  return opaque;
}

static void timer_free(void *timer, void *opaque)
{
  (void)timer, (void)opaque;
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
  (void)timer, (void)expire_ms, (void)opaque;
}

static void register_poll_fd(int fd, void *opaque)
{
  struct net_box *b = opaque;
  (void)fd;
  b->sockets++;
  net.sockets++;
}

static void unregister_poll_fd(int fd, void *opaque)
{
  struct net_box *b = opaque;
  (void)fd;
  if (b->sockets == 0) return;
  b->sockets--;
  net.sockets--;
}

static void notify(void *opaque)
{
  (void)opaque;
}

static const SlirpCb callbacks = {.send_packet = send_packet,
                                  .guest_error = guest_error,
                                  .clock_get_ns = clock_get_ns,
                                  .timer_new_opaque = timer_new,
                                  .timer_free = timer_free,
                                  .timer_mod = timer_mod,
                                  .register_poll_fd = register_poll_fd,
                                  .unregister_poll_fd = unregister_poll_fd,
                                  .notify = notify};

static struct in_addr in(uint32_t addr)
{
  return (struct in_addr){htonl(addr)};
}

static Slirp *new_stack(struct net_box *b)
{
  static SlirpConfig conf; /* libslirp copies it */
  conf = (SlirpConfig){
      .version = 4,
      .in_enabled = true,
      .vnetwork = in(NET_ADDR & NET_MASK),
      .vnetmask = in(NET_MASK),
      .vhost = in(NET_GATEWAY),
      .vdhcp_start = in(NET_ADDR),
      .vnameserver = in(NET_DNS),
      .if_mtu = NET_MTU,
      .if_mru = NET_MTU,
      .disable_host_loopback = true,
      .disable_dns = true,
      .disable_dhcp = true,
  };
  return net.slirp->make(&conf, &callbacks, b);
}

static void drop_stack(struct net_box *b)
{
  if (b->slirp) net.slirp->cleanup(b->slirp);
  net.sockets -= b->sockets;
  b->sockets = 0;
  b->slirp = NULL;
  free(b->flows);
  b->flows = NULL;
}

static bool has_room(const struct net_box *b)
{
  return net_share(b->sockets, net.sockets, net.sockets_max);
}

/* ---- frames ---- */

void net_box_send(struct net_box *b, const void *frame, size_t len)
{
  /* A box that takes nothing loses it, as on any wire. */
  if (len > 0 && write(b->tap, frame, len) < 0) return;
}

static void to_stack(struct net_box *b, const struct net_frame *f)
{
  if (!b->slirp) b->slirp = new_stack(b);
  if (!b->slirp) return;
  net.slirp->input(b->slirp, f->data, (int)f->len);
  if (list_empty(&b->active)) list_append(&net.active, &b->active);
}

static bool is_own(uint32_t addr)
{
  static struct {
    uint32_t addr;
    bool own;
    uint64_t until_ms;
  } known[256], *k;
  k = &known[(addr ^ addr >> 8 ^ addr >> 16) & 255];
  if (k->addr == addr && k->until_ms > net.now_ms) return k->own;
  int rc = net_route_is_own(net.route, addr);
  k->addr = addr;
  k->own = rc != 0; /* what cannot be asked is refused */
  k->until_ms = net.now_ms + OWN_KNOWN_MS;
  return k->own;
}

static bool may_reach(struct net_box *b, uint32_t addr, uint16_t port)
{
  return !net_is_special(addr) && !is_own(addr) &&
         net_policy_allows(&b->policy, addr, port, net.now_ms);
}

static uint8_t reply[NET_FRAME_MAX];

static void refuse(struct net_box *b, const struct net_frame *f)
{
  if (f->kind != NET_OTHER) net_told_refused(b, f->dst, f->dport, f->kind == NET_UDP, NULL);
  size_t n = f->kind == NET_TCP ? net_frame_reset(f, reply)
                                : net_frame_unreachable(f, NET_ICMP_PROHIBITED, reply);
  net_box_send(b, reply, n);
}

static void on_tcp(struct net_box *b, const struct net_frame *f)
{
  bool opens = (f->tcp_flags & (NET_TCP_SYN | NET_TCP_ACK)) == NET_TCP_SYN;
  if (f->dst == NET_DNS && f->dport == 53)
    net_streams_frame(b, f);
  else if (opens && !may_reach(b, f->dst, f->dport))
    refuse(b, f);
  else if (opens ? has_room(b) : b->slirp != NULL)
    to_stack(b, f);
  else
    net_box_send(b, reply, net_frame_reset(f, reply));
}

static void on_udp(struct net_box *b, const struct net_frame *f)
{
  if (f->dst == NET_DNS && f->dport == 53)
    net_names_ask(&(struct net_asker){b, f, NULL}, f->payload, f->payload_len);
  else if (!may_reach(b, f->dst, f->dport))
    refuse(b, f);
  else if (has_room(b)) {
    net_flows_sent(&b->flows, f, net.now_ms);
    to_stack(b, f);
  } else
    net_box_send(b, reply, net_frame_unreachable(f, NET_ICMP_PROHIBITED, reply));
}

static void on_frame(struct net_box *b, const uint8_t *data, size_t len)
{
  struct net_frame f;
  net_frame_parse(&f, data, len);
  switch (f.kind) {
  case NET_ARP: to_stack(b, &f); break;
  case NET_TCP: on_tcp(b, &f); break;
  case NET_UDP: on_udp(b, &f); break;
  case NET_OTHER: refuse(b, &f); break;
  case NET_BAD: break;
  }
}

void net_box_read(struct net_box *b)
{
  static uint8_t frame[NET_FRAME_MAX + 1];
  for (int i = 0; i < FRAMES_A_TURN; i++) {
    ssize_t n = read(b->tap, frame, sizeof frame);
    if (n <= 0) return;
    if (n <= NET_FRAME_MAX) on_frame(b, frame, (size_t)n);
  }
}

/* ---- waiting ---- */

static int add_poll(int fd, int events, void *opaque)
{
  struct net_box *b = opaque;
  short want = 0;
  if (events & SLIRP_POLL_IN) want |= POLLIN;
  if (events & SLIRP_POLL_OUT) want |= POLLOUT;
  if (events & SLIRP_POLL_PRI) want |= POLLPRI;
  b->busy = true;
  return (int)net_polls_add(&net.polls, fd, want);
}

static int get_revents(int idx, void *opaque)
{
  (void)opaque;
  short got = idx < 0 ? 0 : net.polls.v[idx].revents;
  int events = 0;
  if (got & POLLIN) events |= SLIRP_POLL_IN;
  if (got & POLLOUT) events |= SLIRP_POLL_OUT;
  if (got & POLLPRI) events |= SLIRP_POLL_PRI;
  if (got & POLLERR) events |= SLIRP_POLL_ERR;
  if (got & POLLHUP) events |= SLIRP_POLL_HUP;
  return events;
}

void net_box_fill(struct net_box *b, uint32_t *timeout_ms)
{
  uint32_t wait = UINT32_MAX;
  b->busy = false;
  net.slirp->poll_fill(b->slirp, &wait, add_poll, b);
  if (wait < UINT32_MAX) b->busy = true;
  if (wait < *timeout_ms) *timeout_ms = wait;
}

void net_box_polled(struct net_box *b)
{
  bool was_busy = b->busy;
  net.slirp->poll_done(b->slirp, 0, get_revents, b);
  if (was_busy || b->sockets > 0) return;
  list_remove(&b->active);
  drop_stack(b);
}

/* ---- its life ---- */

struct net_box *net_box_new(const struct net_box_message *msg, const char *rules, int tap)
{
  struct net_box *b = xcalloc(1, sizeof *b);
  b->id = msg->box;
  b->tap = tap;
  memcpy(b->servers, msg->servers, sizeof b->servers);
  list_init(&b->active);
  list_init(&b->streams);
  list_init(&b->untold);
  if (!net_policy_init(&b->policy, msg->open, rules)) {
    free(b);
    return NULL;
  }
  list_append(&net.boxes, &b->node);
  return b;
}

void net_box_free(struct net_box *b)
{
  /* Before its memory goes: others may hold the device, too, and epoll watches it as long. */
  epoll_ctl(net.epoll, EPOLL_CTL_DEL, b->tap, NULL);
  net_streams_forget(b);
  net_names_forget(b, NULL);
  net_told_forget(b);
  list_remove(&b->node);
  list_remove(&b->active);
  drop_stack(b);
  net_policy_done(&b->policy);
  close(b->tap);
  free(b);
}

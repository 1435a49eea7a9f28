/* The network helper: its socket to the host, and its loop.
 *
 * One thread. Taps wait in an epoll instance, so that boxes at rest cost nothing; the sockets of
 * those that are active are looked at by poll, made anew each turn, because libslirp opens and
 * closes them as it likes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "engine/local/net_internal.h"
#include "engine/local/proto.h"

enum { TAPS_A_TURN = 64, POLL_HOST = 0, POLL_TAPS = 1 };

struct net net;

size_t net_polls_add(struct net_polls *p, int fd, short events)
{
  if (p->n == p->cap) {
    p->cap = p->cap ? p->cap * 2 : 64;
    p->v = xrealloc(p->v, p->cap * sizeof *p->v);
  }
  p->v[p->n] = (struct pollfd){.fd = fd, .events = events};
  return p->n++;
}

static struct net_box *find(uint64_t id)
{
  LIST_FOREACH (it, &net.boxes) {
    struct net_box *b = list_entry(it, struct net_box, node);
    if (b->id == id) return b;
  }
  return NULL;
}

static void on_box(const struct net_box_message *msg, const char *rules, int tap)
{
  struct epoll_event ev = {.events = EPOLLIN};
  struct net_box *b = net_box_new(msg, rules, tap);
  ev.data.ptr = b;
  if (!b)
    close(tap);
  else if (epoll_ctl(net.epoll, EPOLL_CTL_ADD, tap, &ev) < 0)
    net_box_free(b);
}

static union {
  uint32_t type;
  struct net_box_message box;
  struct net_forget_message forget;
  char bytes[sizeof(struct net_box_message) + NET_RULES_MAX];
} from_host;

static bool is_box(size_t len, size_t fds_n)
{
  size_t head = sizeof from_host.box;
  return from_host.type == NET_BOX && fds_n == 1 && len > head &&
         from_host.box.rules_len == len - head && from_host.bytes[len - 1] == '\0';
}

static void on_host(void)
{
  int fds[PROTO_FDS_MAX];
  size_t fds_n = 0;
  ssize_t n = proto_recv(net.host, &from_host, sizeof from_host, fds, &fds_n, false);
  if (n == -EAGAIN) return;
  if (n <= 0) _exit(0);
  if (is_box((size_t)n, fds_n)) {
    on_box(&from_host.box, from_host.bytes + sizeof from_host.box, fds[0]);
    return;
  }
  for (size_t i = 0; i < fds_n; i++) close(fds[i]);
  struct net_box *b = from_host.type == NET_FORGET && n == sizeof from_host.forget
                          ? find(from_host.forget.box)
                          : NULL;
  if (b) net_box_free(b);
}

static void read_taps(void)
{
  struct epoll_event ev[TAPS_A_TURN];
  int n = epoll_wait(net.epoll, ev, TAPS_A_TURN, 0);
  for (int i = 0; i < n; i++) {
    struct net_box *b = ev[i].data.ptr;
    /* Its namespace is gone, and its device with it; the host will say so, too. */
    if (ev[i].events & (EPOLLERR | EPOLLHUP))
      epoll_ctl(net.epoll, EPOLL_CTL_DEL, b->tap, NULL);
    else
      net_box_read(b);
  }
}

static void turn(void)
{
  uint32_t timeout = UINT32_MAX;
  net.polls.n = 0;
  net_polls_add(&net.polls, net.host, POLLIN);
  net_polls_add(&net.polls, net.epoll, POLLIN);
  LIST_FOREACH (it, &net.active) net_box_fill(list_entry(it, struct net_box, active), &timeout);
  net_names_fill(&timeout);
  net_streams_fill(&timeout);
  net_told_fill(&timeout);
  int n = poll(net.polls.v, net.polls.n, timeout > INT32_MAX ? -1 : (int)timeout);
  if (n < 0 && errno != EINTR) _exit(1);
  net.now_ms = clock_mono_ms();
  if (n < 0) return;
  LIST_FOREACH_SAFE (it, &net.active) net_box_polled(list_entry(it, struct net_box, active));
  net_names_polled();
  net_streams_polled();
  net_told_polled();
  if (net.polls.v[POLL_TAPS].revents) read_taps();
  if (net.polls.v[POLL_HOST].revents) on_host();
}

static int set_up(struct err *err)
{
  const struct part_head *head;
  int rc = part_open("slirp", sizeof *net.slirp, &head, err);
  if (rc < 0) return rc;
  net.slirp = (const struct slirp_part *)head;
  struct rlimit files;
  net.sockets_max = NET_SOCKETS_MAX;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max < 2 * NET_SOCKETS_MAX)
    net.sockets_max = files.rlim_max / 2; /* the rest is for taps and names */
  fcntl(net.host, F_SETFL, O_NONBLOCK);   /* a slow host does not hold the boxes */
  net.epoll = epoll_create1(EPOLL_CLOEXEC);
  net.route = net_route_open();
  if (net.epoll < 0 || net.route < 0)
    return err_set(err, ERR_INTERNAL, errno, "the network helper has no descriptors left");
  return net_close_walls(NET_UID_BASE + (uint32_t)getpid() % 65536, err);
}

int net_main(int sock)
{
  struct net_hello_message hello = {.type = NET_HELLO};
  net.host = sock;
  net.now_ms = clock_mono_ms();
  list_init(&net.boxes);
  list_init(&net.active);
  list_init(&net.asked);
  list_init(&net.streams);
  list_init(&net.untold);
  set_up(&hello.err);
  if (proto_send_one(sock, &hello, sizeof hello, -1) < 0 || hello.err.kind != ERR_NONE) return 1;
  for (;;) turn();
}

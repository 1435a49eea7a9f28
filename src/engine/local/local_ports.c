/* Ports of boxes, on this machine's loopback.
 *
 * A box that was created with ports has a listener for each, on 127.0.0.1 and a port that the
 * kernel chose. Who connects there is joined to a connection that the agent makes inside, to the
 * box's own loopback, and hands out: so no network is needed, and nothing of the box's network is
 * opened. The agent's word is not trusted: what it hands out must be a TCP socket.
 *
 * A link: asked → joined → (one side has ended) → closed */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/local_internal.h"

enum { LINKS_MAX = 256, HALF_SIZE = 32 * 1024, BACKLOG = 64, ACCEPTS_A_TURN = 16 };

struct port {
  struct list node; /* engine_box.ports */
  struct engine_box *box;
  uint16_t inside;
  int fd;
  struct watch watch;
};

/* What one side said and the other has not taken yet. */
struct half {
  size_t len;
  bool ended, passed_on; /* it says no more; the other knows */
  char data[HALF_SIZE];
};

struct link {
  struct list node; /* engine_box.links */
  struct engine_box *box;
  uint32_t id;
  int fd[2]; /* who connected; inside, -1 = not there yet */
  struct watch watch[2];
  struct half *half[2]; /* owned: what fd[0] and fd[1] said */
};

/* ---- one link ---- */

static void link_close(struct link *l)
{
  for (int i = 0; i < 2; i++) {
    watch_stop(l->box->engine->watcher, &l->watch[i]);
    if (l->fd[i] >= 0) close(l->fd[i]);
    free(l->half[i]);
  }
  list_remove(&l->node);
  l->box->links_n--;
  free(l);
}

/* false: the link is broken. */
static bool move(struct link *l, int from)
{
  struct half *h = l->half[from];
  int to = l->fd[!from];
  if (!h->ended && h->len < sizeof h->data) {
    ssize_t n = recv(l->fd[from], h->data + h->len, sizeof h->data - h->len, MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (n == 0) h->ended = true;
    if (n > 0) h->len += (size_t)n;
  }
  if (h->len > 0) {
    ssize_t n = send(to, h->data, h->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (n > 0) {
      h->len -= (size_t)n;
      memmove(h->data, h->data + n, h->len);
    }
  }
  if (h->ended && h->len == 0 && !h->passed_on) {
    h->passed_on = true;
    shutdown(to, SHUT_WR);
  }
  return true;
}

static void wait_for_more(struct link *l)
{
  for (int i = 0; i < 2; i++) {
    const struct half *in = l->half[i], *out = l->half[!i];
    uint32_t events = 0;
    if (!in->ended && in->len < sizeof in->data) events |= EPOLLIN;
    if (out->len > 0) events |= EPOLLOUT;
    if (events == 0)
      watch_stop(l->box->engine->watcher, &l->watch[i]);
    else if (watch_set(l->box->engine->watcher, &l->watch[i], l->fd[i], events) < 0)
      l->half[0]->passed_on = l->half[1]->passed_on = true;
  }
}

static void on_link(struct watch *watch, uint32_t events)
{
  struct link *l = watch->data;
  (void)events;
  bool ok = move(l, 0) && move(l, 1);
  if (ok) wait_for_more(l);
  if (!ok || (l->half[0]->passed_on && l->half[1]->passed_on)) link_close(l);
}

static void link_new(struct port *p, int client)
{
  struct engine_box *b = p->box;
  struct link *l = xcalloc(1, sizeof *l);
  *l = (struct link){.box = b, .id = ++b->links_made, .fd = {client, -1}};
  list_append(&b->links, &l->node);
  b->links_n++;
  struct proto_connect msg = {.type = PROTO_CONNECT, .id = l->id, .port = p->inside};
  struct proto_piece piece = {&msg, sizeof msg};
  if (b->state != BOX_RUNNING || b->sock < 0 || box_send(b, &piece, 1, NULL, 0) < 0) link_close(l);
}

static bool is_tcp(int fd)
{
  int domain = 0, protocol = 0;
  socklen_t n = sizeof domain, m = sizeof protocol;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 &&
         getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &m) == 0 &&
         (domain == AF_INET || domain == AF_INET6) && protocol == IPPROTO_TCP;
}

bool ports_on_connected(struct engine_box *b, const struct proto_connect *msg, int fd)
{
  LIST_FOREACH (it, &b->links) {
    struct link *l = list_entry(it, struct link, node);
    if (l->id != msg->id || l->fd[1] >= 0) continue;
    if (fd >= 0 && !is_tcp(fd)) {
      close(fd);
      return false;
    }
    if (fd < 0) {
      link_close(l); /* nobody is there: as if nobody had listened */
      return true;
    }
    l->fd[1] = fd;
    for (int i = 0; i < 2; i++) {
      l->half[i] = xmalloc(sizeof *l->half[i]);
      l->half[i]->len = 0;
      l->half[i]->ended = l->half[i]->passed_on = false;
      l->watch[i] = (struct watch){.cb = on_link, .data = l};
    }
    wait_for_more(l);
    return true;
  }
  if (fd >= 0) close(fd); /* whoever asked has left */
  return msg->id <= b->links_made;
}

/* ---- listeners ---- */

static void on_port(struct watch *watch, uint32_t events)
{
  struct port *p = watch->data;
  (void)events;
  for (int i = 0; i < ACCEPTS_A_TURN; i++) {
    int fd = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    if (p->box->links_n < LINKS_MAX)
      link_new(p, fd);
    else
      close(fd);
  }
}

static int no_port(struct err *err, uint16_t inside)
{
  int rc = err_set(err, ERR_CAPACITY, errno, "cannot listen for port %u of the sandbox: %s", inside,
                   strerror(errno));
  if (err) snprintf(err->field, sizeof err->field, "unencrypted_ports");
  return rc;
}

static int listen_for(struct engine_box *b, uint16_t inside, uint16_t *ret_outside, struct err *err)
{
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t len = sizeof at;
  cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) < 0 || listen(fd, BACKLOG) < 0 ||
      getsockname(fd, (struct sockaddr *)&at, &len) < 0)
    return no_port(err, inside);
  struct port *p = xcalloc(1, sizeof *p);
  *p = (struct port){.box = b, .inside = inside, .fd = fd};
  p->watch = (struct watch){.cb = on_port, .data = p};
  list_append(&b->ports, &p->node);
  int rc = watch_set(b->engine->watcher, &p->watch, take_fd(&fd), EPOLLIN);
  *ret_outside = ntohs(at.sin_port);
  return rc < 0 ? err_set(err, ERR_INTERNAL, -rc, "cannot watch a socket: %s", strerror(-rc)) : 0;
}

int ports_open(struct engine_box *b, struct create_op *op, struct err *err)
{
  const struct create_args *a = op->args;
  int rc = 0;
  if (a->unencrypted_ports_n > ENGINE_PORTS_MAX)
    return err_arg(err, "unencrypted_ports", "unencrypted_ports has %zu entries, at most %d",
                   a->unencrypted_ports_n, ENGINE_PORTS_MAX);
  for (size_t i = 0; i < a->unencrypted_ports_n && rc == 0; i++)
    rc = listen_for(b, a->unencrypted_ports[i], &op->ret_ports[i], err);
  return rc;
}

void ports_close(struct engine_box *b)
{
  while (!list_empty(&b->links)) link_close(list_entry(b->links.next, struct link, node));
  while (!list_empty(&b->ports)) {
    struct port *p = list_entry(b->ports.next, struct port, node);
    watch_stop(b->engine->watcher, &p->watch);
    close(p->fd);
    list_remove(&p->node);
    free(p);
  }
}

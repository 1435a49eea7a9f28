/* The host's side of networks: helpers, one for each owner whose boxes have a way out, so that no
 * two tenants share a process that works on their frames.
 *
 * A helper starts with the first such box and goes a while after the last. A box is ready when its
 * tap is with a helper that has said that it is ready. When a helper dies its boxes go on without a
 * network (their device is gone with it); the next box gets a new helper.
 *
 * starting → ready → gone */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/local/local_internal.h"
#include "engine/local/net.h"

#define LINGER_MS  5000
#define RESOLVCONF "/etc/resolv.conf"

struct net_helper {
  struct list node; /* local.nets */
  struct local *e;
  uint64_t owner;
  struct helper helper;
  struct watch watch;
  struct outq out;
  bool ready;
  size_t boxes;
  struct timer linger;
};

/* ---- its life ---- */

static void helper_gone(struct net_helper *h, const struct err *why)
{
  struct local *e = h->e;
  timer_stop(e->loop, &h->linger);
  watch_stop(e->watcher, &h->watch);
  close(h->helper.fd);
  kill(h->helper.pid, SIGKILL);
  waitpid(h->helper.pid, NULL, __WALL);
  outq_drop(&h->out);
  list_remove(&h->node);
  LIST_FOREACH_SAFE (it, &e->boxes) {
    struct engine_box *b = list_entry(it, struct engine_box, node);
    if (b->net != h) continue;
    b->net = NULL;
    if (why) box_on_net(b, why);
  }
  free(h);
}

static void on_linger(struct timer *t)
{
  helper_gone(t->data, NULL);
}

void net_close_all(struct local *e)
{
  while (!list_empty(&e->nets))
    helper_gone(list_entry(e->nets.next, struct net_helper, node), NULL);
}

/* ---- boxes ---- */

/* An address as resolv.conf(5) has it, with the interface after a "%" if it is link-local. */
static bool read_address(char *text, struct net_server *ret)
{
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
  *ret = (struct net_server){0};
  char *scope = strchr(text, '%');
  if (scope) {
    *scope++ = '\0';
    ret->scope = if_nametoindex(scope);
  }
  memcpy(ret->addr, mapped, sizeof mapped);
  return inet_pton(AF_INET, text, ret->addr + sizeof mapped) == 1 ||
         inet_pton(AF_INET6, text, ret->addr) == 1;
}

/* This machine's servers for names. */
static void read_servers(struct net_server ret[NET_SERVERS_MAX])
{
  char line[512], text[80];
  size_t n = 0;
  FILE *f = fopen(RESOLVCONF, "re");
  while (f && n < NET_SERVERS_MAX && fgets(line, sizeof line, f))
    if (sscanf(line, "nameserver %79s", text) == 1 && read_address(text, &ret[n])) n++;
  if (f) fclose(f);
  if (n < NET_SERVERS_MAX) ret[n] = (struct net_server){0};
}

static char *rules_text(const struct create_args *a)
{
  struct buf b = {0};
  for (size_t i = 0; a->network == NETWORK_ALLOW && i < a->network_allow.n; i++)
    buf_printf(&b, "%s\n", a->network_allow.v[i]);
  return buf_take(&b, NULL);
}

static void send_box(struct net_helper *h, struct engine_box *b)
{
  const struct create_args *a = b->create->args;
  cleanup_free char *rules = rules_text(a);
  struct net_box_message msg = {.type = NET_BOX,
                                .open = a->network == NETWORK_OPEN,
                                .box = b->id,
                                .rules_len = (uint32_t)strlen(rules) + 1};
  read_servers(msg.servers);
  struct proto_piece pieces[] = {{&msg, sizeof msg}, {rules, msg.rules_len}};
  int tap = b->tap;
  b->tap = -1;
  int rc = outq_send(&h->out, h->helper.fd, pieces, 2, &tap, 1);
  if (rc == 1) watch_set(h->e->watcher, &h->watch, h->helper.fd, EPOLLIN | EPOLLOUT);
  box_on_net(b, NULL); /* a helper that is gone shows as such */
}

static void on_hello(struct net_helper *h, const struct net_hello_message *hello)
{
  struct local *e = h->e;
  struct err why = hello->err;
  if (why.kind != ERR_NONE) {
    if ((unsigned)why.kind >= ERR_KIND_COUNT) why.kind = ERR_INTERNAL;
    why.msg[sizeof why.msg - 1] = why.hint[sizeof why.hint - 1] = '\0';
    why.field[0] = why.sandbox_id[0] = why.engine[0] = '\0';
    helper_gone(h, &why);
    return;
  }
  h->ready = true;
  LIST_FOREACH_SAFE (it, &e->boxes) {
    struct engine_box *b = list_entry(it, struct engine_box, node);
    if (b->net == h && b->tap >= 0 && b->ready) send_box(h, b);
  }
}

static void on_refused(const struct net_helper *h, struct net_refused_message *msg)
{
  LIST_FOREACH (it, &h->e->boxes) {
    const struct engine_box *b = list_entry(it, struct engine_box, node);
    if (b->id != msg->box || b->net != h || !b->on_refused) continue;
    struct in_addr addr = {htonl(msg->addr)};
    char text[INET_ADDRSTRLEN];
    msg->name[sizeof msg->name - 1] = '\0';
    inet_ntop(AF_INET, &addr, text, sizeof text);
    struct connect_refused r = {.name = msg->name[0] ? msg->name : NULL,
                                .address = msg->addr ? text : NULL,
                                .port = msg->port,
                                .udp = msg->udp != 0,
                                .times = msg->times};
    b->on_refused(b->data, &r);
    return;
  }
}

static union {
  uint32_t type;
  struct net_hello_message hello;
  struct net_refused_message refused;
} from_helper;

static void on_helper(struct watch *watch, uint32_t events)
{
  struct net_helper *h = watch->data;
  if (events & EPOLLOUT && outq_flush(&h->out, h->helper.fd) == 0)
    watch_set(h->e->watcher, watch, h->helper.fd, EPOLLIN);
  if (!(events & ~(uint32_t)EPOLLOUT)) return;
  int fds[PROTO_FDS_MAX];
  size_t fds_n = 0;
  ssize_t n = proto_recv(h->helper.fd, &from_helper, sizeof from_helper, fds, &fds_n, false);
  if (n == -EAGAIN) return;
  for (size_t i = 0; i < fds_n; i++) close(fds[i]);
  if (n == sizeof from_helper.hello && from_helper.type == NET_HELLO && !h->ready) {
    on_hello(h, &from_helper.hello);
  } else if (n == sizeof from_helper.refused && from_helper.type == NET_REFUSED && h->ready) {
    on_refused(h, &from_helper.refused);
  } else {
    struct err why = {0};
    err_set(&why, ERR_ENGINE_UNAVAILABLE, 0, "the network helper ended unexpectedly");
    if (h->boxes > 0) log_warn("%s: %zu sandboxes go on without a network", why.msg, h->boxes);
    helper_gone(h, &why);
  }
}

static int start_helper(struct local *e, uint64_t owner, struct net_helper **ret, struct err *err)
{
  struct net_helper *h = xcalloc(1, sizeof *h);
  *h = (struct net_helper){.e = e, .owner = owner};
  int rc = helper_respawn(NET_HELPER, &h->helper, err);
  if (rc < 0) {
    free(h);
    return rc;
  }
  h->watch = (struct watch){.cb = on_helper, .data = h};
  h->linger = (struct timer){.cb = on_linger, .data = h};
  outq_init(&h->out);
  list_append(&e->nets, &h->node);
  fcntl(h->helper.fd, F_SETFL, fcntl(h->helper.fd, F_GETFL) | O_NONBLOCK);
  rc = watch_set(e->watcher, &h->watch, h->helper.fd, EPOLLIN);
  if (rc < 0) {
    helper_gone(h, NULL);
    return err_set(err, ERR_INTERNAL, -rc, "cannot watch the network helper: %s", strerror(-rc));
  }
  *ret = h;
  return 0;
}

static struct net_helper *find_helper(struct local *e, uint64_t owner)
{
  LIST_FOREACH (it, &e->nets) {
    struct net_helper *h = list_entry(it, struct net_helper, node);
    if (h->owner == owner) return h;
  }
  return NULL;
}

int net_join(struct engine_box *b, struct err *err)
{
  struct net_helper *h = find_helper(b->engine, b->owner);
  int rc = h ? 0 : start_helper(b->engine, b->owner, &h, err);
  if (rc < 0) return rc;
  timer_stop(b->engine->loop, &h->linger);
  h->boxes++;
  b->net = h;
  return 0;
}

void net_enter(struct engine_box *b)
{
  struct err lost = {0};
  err_set(&lost, ERR_ENGINE_UNAVAILABLE, 0, "the network helper ended unexpectedly");
  if (!b->net)
    box_on_net(b, &lost);
  else if (b->net->ready)
    send_box(b->net, b);
}

void net_leave(struct engine_box *b)
{
  struct net_helper *h = b->net;
  if (b->tap >= 0) close(b->tap);
  b->tap = -1;
  b->net = NULL;
  if (!h) return;
  struct net_forget_message msg = {.type = NET_FORGET, .box = b->id};
  struct proto_piece piece = {&msg, sizeof msg};
  if (outq_send(&h->out, h->helper.fd, &piece, 1, NULL, 0) == 1)
    watch_set(h->e->watcher, &h->watch, h->helper.fd, EPOLLIN | EPOLLOUT);
  if (--h->boxes == 0) timer_start(h->e->loop, &h->linger, LINGER_MS);
}

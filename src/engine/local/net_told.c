/* Refusals on their way to the host.
 *
 * The first is told at once. Those of the next moment are gathered, each destination once with how
 * many times, and told together: a box that knocks on every door costs the host little, and nothing
 * is lost. What the host does not take stays for the next moment.
 *
 * all is told ⇄ gathering */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "engine/local/net_internal.h"
#include "engine/local/proto.h"

enum { TELL_EVERY_MS = 100, KEPT = 8 };

/* The last one counts those that found no room. */
struct net_told {
  size_t n;
  struct net_refused_message v[KEPT];
};

static bool is_same(const struct net_refused_message *a, const struct net_refused_message *b)
{
  return a->addr == b->addr && a->port == b->port && a->udp == b->udp &&
         strcmp(a->name, b->name) == 0;
}

static void keep(struct net_told *t, const struct net_refused_message *msg)
{
  size_t i = 0;
  while (i < t->n && !is_same(&t->v[i], msg)) i++;
  if (i == KEPT) i--;
  if (i == t->n) t->v[t->n++] = *msg;
  t->v[i].times++;
}

void net_told_forget(struct net_box *b)
{
  list_remove(&b->untold);
  free(b->told);
  b->told = NULL;
}

static void tell(struct net_box *b)
{
  struct net_told *t = b->told;
  size_t sent = 0;
  while (sent < t->n && proto_send_one(net.host, &t->v[sent], sizeof *t->v, -1) == 0) sent++;
  b->told_ms = net.now_ms;
  t->n -= sent;
  memmove(t->v, t->v + sent, t->n * sizeof *t->v);
  if (t->n == 0) net_told_forget(b);
}

static uint64_t wait_of(const struct net_box *b)
{
  uint64_t at = b->told_ms + TELL_EVERY_MS;
  return at > net.now_ms ? at - net.now_ms : 0;
}

void net_told_refused(struct net_box *b, uint32_t addr, uint16_t port, bool udp, const char *name)
{
  struct net_refused_message msg = {
      .type = NET_REFUSED, .addr = addr, .box = b->id, .port = port, .udp = udp};
  if (name) memcpy(msg.name, name, strnlen(name, sizeof msg.name - 1));
  if (!b->told) {
    b->told = xcalloc(1, sizeof *b->told);
    list_append(&net.untold, &b->untold);
  }
  keep(b->told, &msg);
  if (wait_of(b) == 0) tell(b);
}

void net_told_fill(uint32_t *timeout_ms)
{
  LIST_FOREACH (it, &net.untold) {
    uint64_t left = wait_of(list_entry(it, struct net_box, untold));
    if (left < *timeout_ms) *timeout_ms = (uint32_t)left;
  }
}

void net_told_polled(void)
{
  LIST_FOREACH_SAFE (it, &net.untold) {
    struct net_box *b = list_entry(it, struct net_box, untold);
    if (wait_of(b) == 0) tell(b);
  }
}

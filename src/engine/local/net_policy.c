/* Where a box may connect to: rules, and what names have opened.
 *
 * A rule that is a network holds by itself. A rule that is a name holds for the addresses that a
 * server gave for the name, from the answer on and for as long as it holds, at least for
 * NET_LEARNT_MIN_S: programs keep addresses longer than they should. Another name at the same
 * address is open by that, too: nothing in a connection says which one is meant.
 *
 * Invariant: learnt_n <= NET_LEARNT_MAX; what is over time is reused first, then what ends first.
 */
#include "engine/local/net_policy.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "engine/local/net_frame.h"
#include "wire/destination.h"

#define TTL_MAX_S 86400u

bool net_policy_init(struct net_policy *p, bool open, const char *text)
{
  *p = (struct net_policy){.open = open};
  while (*text) {
    char line[300];
    size_t len = strcspn(text, "\n");
    p->rules = xrealloc(p->rules, (p->rules_n + 1) * sizeof *p->rules);
    bool fits = len < sizeof line;
    if (fits) {
      memcpy(line, text, len);
      line[len] = '\0';
    }
    if (!fits || !destination_parse(&p->rules[p->rules_n], line)) {
      net_policy_done(p);
      return false;
    }
    p->rules_n++;
    text += len + (text[len] == '\n');
  }
  return true;
}

void net_policy_done(struct net_policy *p)
{
  free(p->rules);
  free(p->learnt);
  *p = (struct net_policy){0};
}

bool net_policy_knows(const struct net_policy *p, const char *name)
{
  for (size_t i = 0; i < p->rules_n; i++)
    if (destination_has_name(&p->rules[i], name)) return true;
  return p->open;
}

/* Where to keep it: where it is already, where something is over, or where the least is lost. */
static struct net_learnt *place(struct net_policy *p, uint32_t addr, uint16_t port, uint64_t now_ms)
{
  struct net_learnt *best = NULL;
  for (size_t i = 0; i < p->learnt_n; i++) {
    struct net_learnt *l = &p->learnt[i];
    if (l->addr == addr && l->port == port) return l;
    if (!best || l->until_ms < best->until_ms) best = l;
  }
  if ((best && best->until_ms <= now_ms) || p->learnt_n == NET_LEARNT_MAX) {
    best->until_ms = 0;
    return best;
  }
  p->learnt = xrealloc(p->learnt, (p->learnt_n + 1) * sizeof *p->learnt);
  best = &p->learnt[p->learnt_n++];
  *best = (struct net_learnt){0};
  return best;
}

static void keep_until(struct net_learnt *l, uint64_t until_ms)
{
  if (until_ms > l->until_ms) l->until_ms = until_ms;
}

void net_policy_learn(struct net_policy *p, const char *name, uint32_t addr, uint32_t ttl_s,
                      uint64_t now_ms)
{
  if (ttl_s < NET_LEARNT_MIN_S) ttl_s = NET_LEARNT_MIN_S;
  if (ttl_s > TTL_MAX_S) ttl_s = TTL_MAX_S;
  for (size_t i = 0; i < p->rules_n; i++) {
    if (!destination_has_name(&p->rules[i], name)) continue;
    struct net_learnt *l = place(p, addr, p->rules[i].port, now_ms);
    l->addr = addr;
    l->port = p->rules[i].port;
    keep_until(l, now_ms + ttl_s * 1000ull);
  }
}

bool net_policy_allows(struct net_policy *p, uint32_t addr, uint16_t port, uint64_t now_ms)
{
  if (p->open) return true;
  for (size_t i = 0; i < p->rules_n; i++)
    if (destination_has_addr4(&p->rules[i], addr) &&
        (!p->rules[i].port || p->rules[i].port == port))
      return true;
  for (size_t i = 0; i < p->learnt_n; i++) {
    struct net_learnt *l = &p->learnt[i];
    if (l->addr != addr || l->until_ms <= now_ms || (l->port && l->port != port)) continue;
    keep_until(l, now_ms + NET_LEARNT_MIN_S * 1000ull);
    return true;
  }
  return false;
}

bool net_share(size_t own, size_t all, size_t max)
{
  size_t left = all < max ? max - all : 0;
  return own < NET_SHARE_FEW || (own < NET_SHARE_MAX && own < left / 2);
}

bool net_is_special(uint32_t addr)
{
  /* Metadata services that clouds have elsewhere than at 169.254.0.0/16: of Alibaba, Azure, Oracle.
   */
  static const uint32_t metadata[] = {0x646464c8, 0xa83f8110, 0xc00000c0};
  for (size_t i = 0; i < sizeof metadata / sizeof *metadata; i++)
    if (addr == metadata[i]) return true;
  uint32_t first = addr >> 24;
  return first == 0 || first == 127 || first >= 224 || addr >> 16 == 0xa9fe ||
         (addr & NET_MASK) == (NET_ADDR & NET_MASK);
}

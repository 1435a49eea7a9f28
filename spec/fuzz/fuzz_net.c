/* What a box sends and what name servers answer: frames, questions, answers. The first byte
 * chooses. Beyond not crashing: what is passed keeps its promises, and our answers parse. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/local/net_dns.h"
#include "engine/local/net_flows.h"
#include "engine/local/net_frame.h"
#include "engine/local/net_policy.h"
#include "wire/destination.h"

#define REQUIRE(cond)                                                                              \
  do {                                                                                             \
    if (!(cond)) abort();                                                                          \
  } while (0)

static void frame(const uint8_t *data, size_t len)
{
  static uint8_t out[NET_FRAME_MAX];
  static struct net_flows *flows;
  struct net_frame f = {.kind = NET_UDP, .dst = 0x01010101, .dport = 0x0101, .sport = 0x0101};
  net_flows_sent(&flows, &f, 1);
  net_flows_lets_in(flows, data, len, 2); /* the other way round */
  net_frame_parse(&f, data, len);
  if (f.kind == NET_BAD) return;
  REQUIRE(f.len <= len);
  if (f.kind == NET_ARP) return;
  REQUIRE((data[20] & 0x3f) == 0 && data[21] == 0);
  if (f.kind == NET_TCP || f.kind == NET_UDP) {
    REQUIRE(f.payload >= data && f.payload + f.payload_len <= data + f.len);
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < f.payload_len; i++) sum ^= f.payload[i];
  }
  REQUIRE(net_frame_reset(&f, out) <= 54);
  REQUIRE(net_frame_unreachable(&f, 13, out) <= 70);
  REQUIRE(net_frame_answer(&f, data, len < 100 ? len : 100, out) <= 142);
}

static void learn(void *data, uint32_t addr, uint32_t ttl_s)
{
  net_policy_learn(data, "a.b", addr, ttl_s, 1);
}

static void dns(const uint8_t *data, size_t len)
{
  uint8_t out[DNS_SIZE_MAX + 64];
  struct dns_question q, again;
  struct net_policy p;
  REQUIRE(net_policy_init(&p, false, "*.b\na.b:3"));
  if (dns_parse_question(&q, data, len)) {
    REQUIRE(strlen(q.name) < sizeof q.name && q.end <= len);
    net_policy_knows(&p, q.name);
    size_t n = dns_make_query(&q, data, len, 7, out, sizeof out);
    REQUIRE(n > 0 && dns_parse_question(&again, out, n) && again.id == 7);
    REQUIRE(strcmp(again.name, q.name) == 0);
    n = dns_make_empty(&q, data, DNS_REFUSED, out, sizeof out);
    REQUIRE(n == q.end && dns_is_answer(out, n, data, len));
  }
  dns_each_address(data, len, learn, &p);
  REQUIRE(p.learnt_n <= NET_LEARNT_MAX);
  net_policy_done(&p);
}

static void destination(const uint8_t *data, size_t len)
{
  char text[400];
  struct destination d;
  if (len >= sizeof text) return;
  memcpy(text, data, len);
  text[len] = '\0';
  if (destination_parse(&d, text)) REQUIRE(destination_covers(&d, &d));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
  if (len == 0) return 0;
  /* In memory of its own, so that reading past it shows. */
  uint8_t *copy = malloc(len - 1);
  memcpy(copy, data + 1, len - 1);
  if (data[0] % 3 == 0) frame(copy, len - 1);
  if (data[0] % 3 == 1) dns(copy, len - 1);
  if (data[0] % 3 == 2) destination(copy, len - 1);
  free(copy);
  return 0;
}

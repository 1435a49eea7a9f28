/* What a box sends and what name servers answer: frames, questions, answers, segments. The first
 * byte chooses. Beyond not crashing: what is passed keeps its promises, and our answers parse. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/local/net_dns.h"
#include "engine/local/net_flows.h"
#include "engine/local/net_frame.h"
#include "engine/local/net_internal.h"
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

/* ---- connections to the name server ---- */

struct net net;
static struct net_stream *asking; /* whose question is under way */
static uint32_t said[4];          /* what comes next of ours, by connection */

void net_box_send(struct net_box *b, const void *frame, size_t len)
{
  const uint8_t *p = frame;
  (void)b;
  REQUIRE(len == 0 || (len >= 54 && len <= NET_FRAME_MAX));
  if (len == 0) return;
  uint32_t seq = (uint32_t)p[38] << 24 | (uint32_t)p[39] << 16 | (uint32_t)p[40] << 8 | p[41];
  said[p[37] & 3] = seq + (uint32_t)(len - 54) + ((p[47] & (NET_TCP_SYN | NET_TCP_FIN)) != 0);
}

/* Answers at once, later or never, as the question says. */
void net_names_ask(const struct net_asker *by, const uint8_t *msg, size_t len)
{
  static uint8_t answer[UINT16_MAX];
  REQUIRE(by->stream && len <= DNS_SIZE_MAX);
  if (len > 0 && msg[0] & 1)
    net_streams_answer(by->stream, answer, (size_t)msg[0] << 8 | 7);
  else
    asking = by->stream;
}

void net_names_forget(struct net_box *b, struct net_stream *s)
{
  (void)b;
  if (asking == s) asking = NULL;
}

/* Each byte of the input moves something: a segment of a connection that knows what came before, or
 * is off by a little. */
static void streams(const uint8_t *data, size_t len)
{
  struct net_box box = {0};
  uint8_t frame[14 + 40 + 64] = {0x52, 0x55, 192, 0, 0, 3, 0x52, 0x54, 0, 0, 0, 2, 8};
  uint32_t seq[4] = {0}, timeout = UINT32_MAX;
  list_init(&box.streams);
  list_init(&net.streams);
  net.now_ms = 1;
  asking = NULL;
  for (; len >= 4; data += 4, len -= 4) {
    size_t who = data[0] & 3, size = data[1] & 63;
    struct net_frame f = {.data = frame,
                          .kind = NET_TCP,
                          .dst = NET_DNS,
                          .sport = (uint16_t)(who + 8u * (data[0] >> 4)),
                          .dport = 53,
                          .tcp_flags = data[2],
                          .tcp_seq = seq[who] + (data[1] >> 6),
                          .tcp_ack = said[who] - (data[3] >> 7),
                          .tcp_window = (uint16_t)(data[3] << (data[0] & 8)),
                          .payload = frame + 54,
                          .payload_len = size};
    memset(frame + 54, data[3] & 1, sizeof frame - 54);
    frame[55] = data[3];
    net_streams_frame(&box, &f);
    seq[who] += (uint32_t)size + (data[2] & 1) + (data[2] >> 1 & 1);
    REQUIRE(box.streams_n <= NET_STREAMS_MAX);
    if (asking && data[3] & 2) {
      struct net_stream *s = asking;
      asking = NULL;
      net_streams_answer(s, data, len > 1000 ? 1000 : len);
    }
    net.now_ms += data[3] & 4 ? 3000 : 1;
    net_streams_fill(&timeout);
    net_streams_polled();
  }
  net_streams_forget(&box);
  REQUIRE(box.streams_n == 0 && list_empty(&net.streams));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
  if (len == 0) return 0;
  /* In memory of its own, so that reading past it shows. */
  uint8_t *copy = malloc(len - 1);
  memcpy(copy, data + 1, len - 1);
  if (data[0] % 4 == 0) frame(copy, len - 1);
  if (data[0] % 4 == 1) dns(copy, len - 1);
  if (data[0] % 4 == 2) destination(copy, len - 1);
  if (data[0] % 4 == 3) streams(copy, len - 1);
  free(copy);
  return 0;
}

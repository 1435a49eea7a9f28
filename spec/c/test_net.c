/* The network's readers and rules: destinations, frames, names, policies. */
#include <stdlib.h>
#include <string.h>

#include "engine/local/net_dns.h"
#include "engine/local/net_flows.h"
#include "engine/local/net_frame.h"
#include "engine/local/net_policy.h"
#include "test.h"
#include "wire/destination.h"

/* ---- destinations ---- */

static bool parses(const char *text)
{
  struct destination d;
  return destination_parse(&d, text);
}

static void test_destinations(void)
{
  static const char *const good[] = {"api.example.com", "*.example.org",  "10.1.2.0/24",
                                     "example.net:443", "10.0.0.0/8:443", "1.2.3.4",
                                     "1.2.3.4:80",      "[2001:db8::1]",  "[2001:db8::1]:80",
                                     "2001:db8::1",     "[fd00::/8]:22",  "1.2.3.4.example.com",
                                     "localhost",       "EXAMPLE.com.",   "a_b-c.d"};
  static const char *const bad[] = {
      "",     "*",         "a*.b",         "*.*.b",    "a..b",    ".a",        "-a",
      "a:0",  "a:65536",   "a:x",          "10.0.0/8", "10.1/16", "1.2.3.4.5", "10.0.0.0/33",
      "a/8",  "[1.2.3.4]", "[a]",          "http://a", "a b",     "a:1:2",     "[::1",
      "::1]", "*.",        "10.0.0.0/8:0", "1.2.3.4:"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    if (!parses(good[i])) fprintf(stderr, "refused: %s\n", good[i]);
    CHECK(parses(good[i]));
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    if (parses(bad[i])) fprintf(stderr, "taken: %s\n", bad[i]);
    CHECK(!parses(bad[i]));
  }
  struct destination d;
  CHECK(destination_parse(&d, "10.1.2.3/8:443"));
  CHECK_INT(d.kind, DEST_NET4);
  CHECK_INT(d.bits, 8);
  CHECK_INT(d.port, 443);
  CHECK(destination_has_addr4(&d, 0x0affffff));
  CHECK(!destination_has_addr4(&d, 0x0b000000));
  CHECK(destination_parse(&d, "*.Example.org"));
  CHECK(destination_has_name(&d, "a.b.example.org"));
  CHECK(!destination_has_name(&d, "example.org"));
  CHECK(!destination_has_name(&d, "badexample.org"));
}

static bool covers(const char *whole, const char *part)
{
  struct destination w, p;
  return destination_parse(&w, whole) && destination_parse(&p, part) && destination_covers(&w, &p);
}

static void test_covers(void)
{
  CHECK(covers("example.org", "example.org:443"));
  CHECK(!covers("example.org:443", "example.org"));
  CHECK(covers("*.example.org", "a.example.org:80"));
  CHECK(covers("*.example.org", "*.a.example.org"));
  CHECK(covers("*.example.org", "*.example.org"));
  CHECK(!covers("*.example.org", "example.org"));
  CHECK(!covers("example.org", "*.example.org"));
  CHECK(!covers("a.example.org", "*.a.example.org"));
  CHECK(covers("10.0.0.0/8", "10.1.2.0/24:443"));
  CHECK(covers("10.0.0.0/8", "10.1.2.3"));
  CHECK(!covers("10.1.0.0/16", "10.0.0.0/8"));
  CHECK(!covers("10.1.0.0/16", "10.2.0.0/24"));
  CHECK(covers("0.0.0.0/0", "10.0.0.0/8"));
  CHECK(!covers("10.0.0.0/8", "example.org"));
}

/* ---- frames ---- */

static const uint8_t head[] = {0x52, 0x55, 192, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 8, 0};

/* An IPv4 packet from the box to 203.0.113.5. */
static size_t make(uint8_t *out, uint8_t protocol, const void *body, size_t len)
{
  uint8_t ip[20] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 0, 0, 2, 203, 0, 113, 5};
  ip[2] = (uint8_t)((20 + len) >> 8);
  ip[3] = (uint8_t)(20 + len);
  memcpy(out, head, 14);
  memcpy(out + 14, ip, 20);
  memcpy(out + 34, body, len);
  return 34 + len;
}

static enum net_kind kind_of(const uint8_t *data, size_t len)
{
  struct net_frame f;
  net_frame_parse(&f, data, len);
  return f.kind;
}

static const uint8_t syn[20] = {0x9c, 0x40, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff};
static const uint8_t udp[12] = {0x9c, 0x40, 0, 53, 0, 12, 0, 0, 'a', 'b', 'c', 'd'};

static void test_frames(void)
{
  uint8_t buf[256];
  struct net_frame f;
  size_t n = make(buf, 6, syn, sizeof syn);
  net_frame_parse(&f, buf, n + 10); /* padding */
  CHECK_INT(f.kind, NET_TCP);
  CHECK_INT(f.len, n);
  CHECK_INT(f.dst, 0xcb007105);
  CHECK_INT(f.sport, 40000);
  CHECK_INT(f.dport, 80);
  CHECK_INT(f.tcp_seq, 9);
  CHECK_INT(f.tcp_flags, NET_TCP_SYN);
  CHECK_INT(f.payload_len, 0);
  for (size_t cut = 0; cut < n; cut++) CHECK_INT(kind_of(buf, cut), NET_BAD);
  n = make(buf, 17, udp, sizeof udp);
  net_frame_parse(&f, buf, n);
  CHECK_INT(f.kind, NET_UDP);
  CHECK_INT(f.payload_len, 4);
  n = make(buf, 1, "\x08\0\0\0", 4);
  CHECK_INT(kind_of(buf, n), NET_OTHER);
}

/* One byte changed makes it one that is not passed. */
static void test_bad_frames(void)
{
  static const struct {
    size_t at;
    uint8_t value;
  } changes[] = {{6, 2} /* another sender */,
                 {12, 0x86} /* another protocol */,
                 {14, 0x46} /* options */,
                 {14, 0x65} /* version 6 */,
                 {17, 19} /* shorter */,
                 {17, 200} /* longer than the frame */,
                 {20, 0x20} /* fragments */,
                 {21, 1} /* not the first */,
                 {26, 10} /* another source */,
                 {46, 0x40} /* a short TCP header */,
                 {46, 0xf0} /* a long one */};
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    uint8_t buf[256];
    size_t n = make(buf, 6, syn, sizeof syn);
    buf[changes[i].at] = changes[i].value;
    CHECK_INT(kind_of(buf, n), NET_BAD);
  }
  uint8_t buf[256];
  size_t n = make(buf, 17, udp, sizeof udp);
  buf[39] = 7;
  CHECK_INT(kind_of(buf, n), NET_BAD);
  buf[39] = 13;
  CHECK_INT(kind_of(buf, n), NET_BAD);
}

static void test_arp(void)
{
  uint8_t arp[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0,    0,    0,   2, 8, 6,
                     0,    1,    8,    0,    6,    4,    0,    1,    0x52, 0x54, 0,   0, 0, 2,
                     192,  0,    0,    2,    0,    0,    0,    0,    0,    0,    192, 0, 0, 1};
  CHECK_INT(kind_of(arp, sizeof arp), NET_ARP);
  arp[41] = 4;
  CHECK_INT(kind_of(arp, sizeof arp), NET_BAD);
  arp[41] = 3;
  CHECK_INT(kind_of(arp, sizeof arp), NET_ARP);
  arp[31] = 5; /* says that it is someone else */
  CHECK_INT(kind_of(arp, sizeof arp), NET_BAD);
  CHECK_INT(kind_of(arp, 41), NET_BAD);
}

/* The sum over a header with its checksum is all ones. */
static unsigned ones(const uint8_t *p, size_t len, unsigned start)
{
  unsigned sum = start;
  for (size_t i = 0; i < len; i++) sum += i % 2 ? p[i] : (unsigned)p[i] << 8;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

static unsigned pseudo(const uint8_t *frame, unsigned protocol, size_t len)
{
  return ones(frame + 26, 8, protocol + (unsigned)len);
}

static void test_reset(void)
{
  static uint8_t out[NET_FRAME_MAX];
  uint8_t buf[256];
  struct net_frame f;
  net_frame_parse(&f, buf, make(buf, 6, syn, sizeof syn));
  CHECK_INT(net_frame_reset(&f, out), 54);
  CHECK(memcmp(out, head + 6, 6) == 0 && memcmp(out + 6, head, 6) == 0);
  CHECK_INT(ones(out + 14, 20, 0), 0xffff);
  CHECK_INT(ones(out + 34, 20, pseudo(out, 6, 20)), 0xffff);
  CHECK(memcmp(out + 26, "\xcb\x00\x71\x05\xc0\x00\x00\x02", 8) == 0);
  CHECK_INT(out[34 + 13], NET_TCP_RST | NET_TCP_ACK);
  CHECK_INT(out[34 + 11], 10); /* acknowledges the SYN */
  CHECK_INT(out[34 + 1], 80);
  buf[34 + 13] = NET_TCP_RST;
  net_frame_parse(&f, buf, 54);
  CHECK_INT(net_frame_reset(&f, out), 0);
}

static void test_segment(void)
{
  static uint8_t out[NET_FRAME_MAX], data[NET_SEGMENT_MAX + 1] = {'a', 'b'};
  uint8_t buf[256];
  struct net_frame f, back;
  net_frame_parse(&f, buf, make(buf, 6, syn, sizeof syn));
  CHECK_INT(f.tcp_window, 0xffff);
  struct net_segment s = {.seq = 7, .ack = 10, .window = 99, .data = data, .len = 3};
  s.flags = NET_TCP_ACK | NET_TCP_PSH;
  CHECK_INT(net_frame_segment(&f, &s, out), 57);
  CHECK_INT(ones(out + 34, 23, pseudo(out, 6, 23)), 0xffff);
  /* Read as if the box had sent it. */
  memcpy(out + 6, NET_MAC, 6);
  memcpy(out + 26, "\xc0\x00\x00\x02", 4);
  net_frame_parse(&back, out, 57);
  CHECK_INT(back.kind, NET_TCP);
  CHECK(back.tcp_seq == 7 && back.tcp_ack == 10 && back.tcp_window == 99);
  CHECK(back.sport == f.dport && back.dport == f.sport && back.tcp_flags == s.flags);
  CHECK(back.payload_len == 3 && memcmp(back.payload, "ab", 3) == 0);
  s.len = sizeof data;
  CHECK_INT(net_frame_segment(&f, &s, out), 0);
}

static void test_unreachable(void)
{
  static uint8_t out[NET_FRAME_MAX];
  uint8_t buf[256];
  struct net_frame f;
  net_frame_parse(&f, buf, make(buf, 17, udp, sizeof udp));
  size_t n = net_frame_unreachable(&f, NET_ICMP_PROHIBITED, out);
  CHECK_INT(n, 14 + 20 + 8 + 28);
  CHECK_INT(ones(out + 14, 20, 0), 0xffff);
  CHECK_INT(ones(out + 34, n - 34, 0), 0xffff);
  CHECK(out[34] == 3 && out[35] == 13);
  CHECK(memcmp(out + 42, buf + 14, 28) == 0);
  net_frame_parse(&f, buf, make(buf, 1, "\x03\0\0\0\0\0\0\0", 8));
  CHECK_INT(net_frame_unreachable(&f, 13, out), 0); /* no error about an error */
  net_frame_parse(&f, buf, make(buf, 1, "\x08\0\0\0\0\0\0\0", 8));
  CHECK(net_frame_unreachable(&f, 13, out) > 0);
}

static void test_answer(void)
{
  static uint8_t out[NET_FRAME_MAX], big[NET_MTU];
  uint8_t buf[256];
  struct net_frame f;
  net_frame_parse(&f, buf, make(buf, 17, udp, sizeof udp));
  CHECK_INT(net_frame_answer(&f, "xyz", 3, out), 45);
  CHECK_INT(ones(out + 34, 11, pseudo(out, 17, 11)), 0xffff);
  CHECK(out[35] == 53 && memcmp(out + 42, "xyz", 3) == 0);
  CHECK_INT(net_frame_answer(&f, big, sizeof big, out), 0);
  CHECK(net_frame_answer(&f, big, NET_MTU - 28, out) == NET_FRAME_MAX);
}

/* ---- names ---- */

static const uint8_t query[] = {0x12, 0x34, 1,   0,   0, 1,   0,   0, 0, 0, 0, 0,
                                3,    'A',  'p', 'i', 2, 'x', 'y', 0, 0, 1, 0, 1};

static void test_question(void)
{
  struct dns_question q;
  CHECK(dns_parse_question(&q, query, sizeof query));
  CHECK_STR(q.name, "api.xy");
  CHECK_INT(q.type, DNS_TYPE_A);
  CHECK_INT(q.id, 0x1234);
  CHECK_INT(q.end, sizeof query);
  for (size_t cut = 0; cut < sizeof query; cut++) CHECK(!dns_parse_question(&q, query, cut));
  static const struct {
    size_t at;
    uint8_t value;
  } changes[] = {{2, 0x81}, {2, 0x09},  {5, 0},    {5, 2},  {7, 1},
                 {9, 1},    {12, 0xc0}, {13, '.'}, {13, 0}, {13, 0xe4}};
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    uint8_t msg[sizeof query];
    memcpy(msg, query, sizeof msg);
    msg[changes[i].at] = changes[i].value;
    CHECK(!dns_parse_question(&q, msg, sizeof msg));
  }
}

static void test_query(void)
{
  struct dns_question q;
  uint8_t out[256];
  dns_parse_question(&q, query, sizeof query);
  size_t n = dns_make_query(&q, query, sizeof query, 0x7788, out, sizeof out);
  CHECK_INT(n, sizeof query + 11);
  CHECK(out[0] == 0x77 && out[1] == 0x88 && out[11] == 1 && out[sizeof query + 2] == 41);
  CHECK(dns_parse_question(&q, out, n)); /* and with its own room it stays as it is */
  CHECK_INT(dns_make_query(&q, out, n, 1, out, sizeof out), n);
  CHECK_INT(dns_make_query(&q, query, sizeof query, 1, out, 20), 0);
  n = dns_make_empty(&q, query, DNS_NO_NAME, out, sizeof out);
  CHECK_INT(n, sizeof query);
  CHECK(out[2] == 0x81 && out[3] == 0x83 && memcmp(out + 12, query + 12, n - 12) == 0);
}

static struct {
  uint32_t addr, ttl;
  int n;
} seen;

static void see(void *data, uint32_t addr, uint32_t ttl)
{
  (void)data;
  seen.addr = addr;
  seen.ttl = ttl;
  seen.n++;
}

static void test_addresses(void)
{
  static const uint8_t records[] = {0xc0, 12, 0, 5,  0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 16, /* CNAME */
                                    0xc0, 16, 0, 1,  0, 1, 0, 0, 1, 0,  0, 4, 203,  0,  113,
                                    5,    0,  0, 28, 0, 1, 0, 0, 0, 9,  0, 1, 7}; /* a short AAAA */
  uint8_t msg[sizeof query + sizeof records];
  memcpy(msg, query, sizeof query);
  memcpy(msg + sizeof query, records, sizeof records);
  msg[2] = 0x81;
  msg[7] = 3;
  memset(&seen, 0, sizeof seen);
  dns_each_address(msg, sizeof msg, see, NULL);
  CHECK_INT(seen.n, 1);
  CHECK_INT(seen.addr, 0xcb007105);
  CHECK_INT(seen.ttl, 256);
  CHECK(dns_is_answer(msg, sizeof msg, query, sizeof query));
  CHECK(!dns_is_cut(msg));
  msg[2] |= 2;
  CHECK(dns_is_cut(msg));
  msg[2] = 0x81;
  msg[13] = 'a'; /* the case of names does not matter */
  CHECK(dns_is_answer(msg, sizeof msg, query, sizeof query));
  msg[13] = 'b';
  CHECK(!dns_is_answer(msg, sizeof msg, query, sizeof query));
  msg[13] = 'a';
  msg[0]++;
  CHECK(!dns_is_answer(msg, sizeof msg, query, sizeof query));
  for (size_t cut = 0; cut < sizeof msg; cut++) dns_each_address(msg, cut, see, NULL);
}

/* ---- flows ---- */

/* A datagram from outside to the box's port, as libslirp makes it. */
static size_t datagram(uint8_t *out, uint32_t addr, uint16_t port, uint16_t own_port)
{
  static const uint8_t inward[] = {[12] = 8, [14] = 0x45, [23] = 17};
  memset(out, 0, 64);
  memcpy(out, inward, sizeof inward);
  for (int i = 0; i < 4; i++) out[26 + i] = (uint8_t)(addr >> (24 - 8 * i));
  out[34] = (uint8_t)(port >> 8), out[35] = (uint8_t)port;
  out[36] = (uint8_t)(own_port >> 8), out[37] = (uint8_t)own_port;
  return 64;
}

static void test_flows(void)
{
  enum { QUIET = NET_FLOW_QUIET_MS };
  struct net_flows *flows = NULL;
  struct net_frame sent = {.kind = NET_UDP, .dst = 0xcb007105, .dport = 53, .sport = 4000};
  uint8_t in[64];
  size_t n = datagram(in, 0xcb007105, 53, 4000);
  CHECK(!net_flows_lets_in(flows, in, n, 1)); /* nothing was sent */
  net_flows_sent(&flows, &sent, 1);
  CHECK(net_flows_lets_in(flows, in, n, 2));
  static const struct {
    uint32_t addr;
    uint16_t port, own_port;
  } strangers[] = {{0xcb007106, 53, 4000}, {0xcb007105, 54, 4000}, {0xcb007105, 53, 4001}};
  for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
    datagram(in, strangers[i].addr, strangers[i].port, strangers[i].own_port);
    CHECK(!net_flows_lets_in(flows, in, n, 3));
  }
  datagram(in, 0xcb007105, 53, 4000);
  for (size_t cut = 34; cut < 42; cut++) CHECK(!net_flows_lets_in(flows, in, cut, 3));
  in[20] = 0x20; /* the first piece of several, and a later one */
  CHECK(!net_flows_lets_in(flows, in, n, 3));
  in[20] = 0, in[21] = 8;
  CHECK(!net_flows_lets_in(flows, in, n, 3));
  in[21] = 0;
  CHECK(net_flows_lets_in(flows, in, n, QUIET));          /* an answer keeps it open */
  CHECK(net_flows_lets_in(flows, in, n, 2 * QUIET));      /* as long again */
  CHECK(!net_flows_lets_in(flows, in, n, 3 * QUIET + 1)); /* and no longer */
  in[23] = 6;                                             /* TCP and ARP are not asked here */
  CHECK(net_flows_lets_in(flows, in, n, 3));
  in[13] = 6;
  CHECK(net_flows_lets_in(flows, in, n, 3));
  free(flows);
}

static void test_flows_are_bounded(void)
{
  struct net_flows *flows = NULL;
  struct net_frame sent = {.kind = NET_UDP, .dport = 53};
  uint8_t in[64];
  size_t known = 0, n = 64;
  for (uint32_t i = 0; i < 8 * NET_FLOWS_MAX; i++) {
    sent.dst = 0xcb000000 + i * 7;
    sent.sport = (uint16_t)(i * 13);
    net_flows_sent(&flows, &sent, i + 1);
    datagram(in, sent.dst, 53, sent.sport);
    CHECK(net_flows_lets_in(flows, in, n, i + 1)); /* the newest always */
  }
  for (uint32_t i = 0; i < 8 * NET_FLOWS_MAX; i++) {
    datagram(in, 0xcb000000 + i * 7, 53, (uint16_t)(i * 13));
    known += net_flows_lets_in(flows, in, n, 8 * NET_FLOWS_MAX);
  }
  CHECK(known <= NET_FLOWS_MAX);
  CHECK(known > NET_FLOWS_MAX / 2); /* rows fill evenly enough */
  free(flows);
}

/* ---- policies ---- */

static void test_policy(void)
{
  struct net_policy p;
  CHECK(net_policy_init(&p, false,
                        "api.example.com\n*.example.org:443\n10.1.2.0/24\n10.9.0.0/16:22"));
  CHECK_INT(p.rules_n, 4);
  CHECK(net_policy_knows(&p, "api.example.com"));
  CHECK(net_policy_knows(&p, "x.example.org"));
  CHECK(!net_policy_knows(&p, "example.org"));
  CHECK(net_policy_allows(&p, 0x0a010203, 80, 0));
  CHECK(net_policy_allows(&p, 0x0a090001, 22, 0));
  CHECK(!net_policy_allows(&p, 0x0a090001, 23, 0));
  CHECK(!net_policy_allows(&p, 0xcb007105, 443, 0));
  net_policy_learn(&p, "x.example.org", 0xcb007105, 10, 1000);
  CHECK(net_policy_allows(&p, 0xcb007105, 443, 1000));
  CHECK(!net_policy_allows(&p, 0xcb007105, 80, 1000));
  CHECK(net_policy_allows(&p, 0xcb007105, 443, 60000)); /* used: for 60 s more */
  CHECK(net_policy_allows(&p, 0xcb007105, 443, 119000));
  CHECK(!net_policy_allows(&p, 0xcb007105, 443, 180000));
  net_policy_learn(&p, "evil.com", 0xcb007106, 100, 0);
  CHECK(!net_policy_allows(&p, 0xcb007106, 443, 0));
  net_policy_done(&p);
  CHECK(!net_policy_init(&p, false, "fine.com\nnot fine"));
}

static void test_policy_is_bounded(void)
{
  struct net_policy p;
  CHECK(net_policy_init(&p, false, "*.example.org"));
  for (uint32_t i = 0; i < 3 * NET_LEARNT_MAX; i++)
    net_policy_learn(&p, "x.example.org", 0xcb000000 + i, 100 + i, 0);
  CHECK_INT(p.learnt_n, NET_LEARNT_MAX);
  CHECK(net_policy_allows(&p, 0xcb000000 + 3 * NET_LEARNT_MAX - 1, 1, 0));
  net_policy_learn(&p, "x.example.org", 1u << 30, 100, 1u << 30);
  CHECK_INT(p.learnt_n, NET_LEARNT_MAX);
  net_policy_done(&p);
}

/* Boxes that take all they get. */
static void test_share(void)
{
  enum { MAX = 4096, BOXES = 400 };
  size_t own[BOXES] = {0}, all = 0;
  for (size_t i = 0; i < BOXES; i++)
    for (; net_share(own[i], all, MAX); all++) own[i]++;
  CHECK_INT(own[0], NET_SHARE_MAX);
  CHECK(own[2] > 512);
  for (size_t i = 0; i < BOXES; i++) CHECK(own[i] >= NET_SHARE_FEW);
  CHECK(all < MAX + BOXES * NET_SHARE_FEW);
}

static void test_special(void)
{
  static const uint32_t special[] = {0,          0x7f000001, 0x7fffffff, 0xa9fea9fe,
                                     0xe0000001, 0xffffffff, NET_DNS,    NET_GATEWAY,
                                     0x646464c8, 0xa83f8110, 0xc00000c0};
  static const uint32_t plain[] = {0x01010101, 0x0a000001, 0xc0a80001, 0xa9fd0001, 0xc0000008};
  for (size_t i = 0; i < sizeof special / sizeof *special; i++) CHECK(net_is_special(special[i]));
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) CHECK(!net_is_special(plain[i]));
}

const struct test_case test_cases[] = {
    {"destinations are names, networks and ports", test_destinations},
    {"a destination covers another", test_covers},
    {"frames are taken apart", test_frames},
    {"what is not understood whole is bad", test_bad_frames},
    {"ARP asks for our two addresses alone", test_arp},
    {"a refused connection is reset", test_reset},
    {"the other side of a connection speaks", test_segment},
    {"a refused packet is told about", test_unreachable},
    {"a datagram is answered", test_answer},
    {"DNS questions", test_question},
    {"DNS queries and answers of our own", test_query},
    {"DNS addresses", test_addresses},
    {"datagrams come in as answers only", test_flows},
    {"flows are bounded", test_flows_are_bounded},
    {"policies", test_policy},
    {"what names open is bounded", test_policy_is_bounded},
    {"no box has all sockets", test_share},
    {"special addresses", test_special},
    {0},
};

/* Messages of the domain name system (RFC 1035, RFC 6891).
 *
 * Both sides are foreign: the box asks, some server answers. Names in questions are read label by
 * label and may not be compressed, so that the name that is judged is the one that is asked for;
 * names in answers are only skipped. */
#include "engine/local/net_dns.h"

#include <string.h>

#define HEAD_SIZE 12
#define FLAG_QR   0x80 /* third byte: an answer */
#define FLAG_TC   0x02 /* cut short */
#define FLAG_RD   0x01
#define FLAG_RA   0x80 /* fourth byte */
#define TYPE_OPT  41

static uint16_t get16(const uint8_t *p)
{
  return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, unsigned n)
{
  p[0] = (uint8_t)(n >> 8);
  p[1] = (uint8_t)n;
}

static char lower(uint8_t c)
{
  return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* The name at HEAD_SIZE as text: where it ends, 0 = it is none. */
static size_t read_name(const uint8_t *msg, size_t len, char name[256])
{
  size_t at = HEAD_SIZE, n = 0;
  for (;;) {
    if (at >= len) return 0;
    size_t label = msg[at++];
    if (label == 0) break;
    if (label > 63 || at + label > len || n + label + 1 > 254) return 0;
    if (n > 0) name[n++] = '.';
    for (size_t i = 0; i < label; i++) {
      uint8_t c = msg[at + i];
      if (c <= ' ' || c == '.' || c >= 0x7f) return 0;
      name[n++] = lower(c);
    }
    at += label;
  }
  name[n] = '\0';
  return at;
}

bool dns_parse_question(struct dns_question *q, const uint8_t *msg, size_t len)
{
  *q = (struct dns_question){0};
  if (len < 2) return false;
  q->id = get16(msg);
  if (len < HEAD_SIZE || len > DNS_SIZE_MAX) return false;
  /* A plain question: no answer, operation 0, one name asked for, nothing told. */
  if ((msg[2] & 0xf8) != 0 || get16(msg + 4) != 1 || get16(msg + 6) || get16(msg + 8)) return false;
  size_t end = read_name(msg, len, q->name);
  if (end == 0 || end + 4 > len) return false;
  q->type = get16(msg + end);
  q->class = get16(msg + end + 2);
  q->end = end + 4;
  return true;
}

size_t dns_make_query(const struct dns_question *q, const uint8_t *msg, size_t len, uint16_t id,
                      uint8_t *out, size_t size)
{
  static const uint8_t opt[11] = {0, 0, TYPE_OPT, DNS_SIZE_MAX >> 8, DNS_SIZE_MAX & 0xff};
  bool bare = get16(msg + 10) == 0;
  size_t all = bare ? q->end + sizeof opt : len;
  if (all > size) return 0;
  memcpy(out, msg, bare ? q->end : len);
  put16(out, id);
  if (!bare) return all;
  memcpy(out + q->end, opt, sizeof opt);
  put16(out + 10, 1);
  return all;
}

size_t dns_make_empty(const struct dns_question *q, const uint8_t *msg, enum dns_code code,
                      uint8_t *out, size_t size)
{
  size_t all = q->end > HEAD_SIZE ? q->end : HEAD_SIZE;
  if (all > size) return 0;
  memset(out, 0, HEAD_SIZE);
  if (q->end > HEAD_SIZE) memcpy(out, msg, q->end);
  put16(out, q->id);
  out[2] = (uint8_t)(FLAG_QR | (q->end ? msg[2] & FLAG_RD : 0));
  out[3] = (uint8_t)(FLAG_RA | code);
  put16(out + 4, q->end ? 1 : 0);
  memset(out + 6, 0, 6);
  return all;
}

bool dns_is_answer(const uint8_t *msg, size_t len, const uint8_t *query, size_t query_len)
{
  struct dns_question q;
  if (!dns_parse_question(&q, query, query_len) || len < q.end || get16(msg) != q.id) return false;
  if (!(msg[2] & FLAG_QR) || (msg[2] & 0x78) != 0 || get16(msg + 4) != 1) return false;
  for (size_t i = HEAD_SIZE; i < q.end; i++)
    if (lower(msg[i]) != lower(query[i])) return false;
  return true;
}

bool dns_is_cut(const uint8_t *msg)
{
  return (msg[2] & FLAG_TC) != 0;
}

/* Behind a name that may be compressed; 0 = there is none. */
static size_t skip_name(const uint8_t *msg, size_t len, size_t at)
{
  while (at < len) {
    uint8_t label = msg[at];
    if (label >= 0xc0) return at + 2;
    if (label > 63) return 0;
    at += 1u + label;
    if (label == 0) return at;
  }
  return 0;
}

void dns_each_address(const uint8_t *msg, size_t len,
                      void (*each)(void *data, uint32_t addr, uint32_t ttl_s), void *data)
{
  if (len < HEAD_SIZE) return;
  size_t at = HEAD_SIZE;
  for (unsigned i = get16(msg + 4); i > 0; i--) {
    at = skip_name(msg, len, at);
    if (at == 0 || at + 4 > len) return;
    at += 4;
  }
  for (unsigned i = get16(msg + 6); i > 0; i--) {
    at = skip_name(msg, len, at);
    if (at == 0 || at + 10 > len) return;
    const uint8_t *r = msg + at;
    size_t size = get16(r + 8);
    if (at + 10 + size > len) return;
    if (get16(r) == DNS_TYPE_A && get16(r + 2) == 1 && size == 4)
      each(data, (uint32_t)get16(r + 10) << 16 | get16(r + 12),
           (uint32_t)get16(r + 4) << 16 | get16(r + 6));
    at += 10 + size;
  }
}

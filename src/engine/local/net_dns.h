#ifndef REGOLITH_ENGINE_LOCAL_NET_DNS_H
#define REGOLITH_ENGINE_LOCAL_NET_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Messages of the domain name system: as much of them as a forwarder reads. Pure. */

#define DNS_SIZE_MAX 4096 /* that we ask servers to stay within */

enum { DNS_TYPE_A = 1, DNS_TYPE_AAAA = 28 };
enum dns_code { DNS_OK = 0, DNS_MALFORMED = 1, DNS_FAILURE = 2, DNS_NO_NAME = 3, DNS_REFUSED = 5 };

struct dns_question {
  char name[256]; /* lower case, without the dot at the end; "" = the root */
  uint16_t type, class;
  uint16_t id;
  size_t end; /* of the question in the message */
};

/* A question as a program asks it: one, with a name that can be written as text. false: it is none,
 * and ret->id is set if there are two bytes. */
bool dns_parse_question(struct dns_question *ret, const uint8_t *msg, size_t len);

/* The question as it is sent on: with another id, and room asked for. Returns its length; 0 = it
 * does not fit. */
size_t dns_make_query(const struct dns_question *q, const uint8_t *msg, size_t len, uint16_t id,
                      uint8_t *out, size_t size);

/* An answer of ours without any record. Returns its length. */
size_t dns_make_empty(const struct dns_question *q, const uint8_t *msg, enum dns_code code,
                      uint8_t *out, size_t size);

/* Is msg the answer to the question that was sent with this id? */
bool dns_is_answer(const uint8_t *msg, size_t len, const uint8_t *query, size_t query_len);

/* Was an answer (dns_is_answer) too long for the way it came? */
bool dns_is_cut(const uint8_t *msg);

/* Every IPv4 address (host order) in the answer, with how long it holds. Stops where the message
 * makes no sense. */
void dns_each_address(const uint8_t *msg, size_t len,
                      void (*each)(void *data, uint32_t addr, uint32_t ttl_s), void *data);

#endif

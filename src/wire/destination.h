#ifndef REGOLITH_WIRE_DESTINATION_H
#define REGOLITH_WIRE_DESTINATION_H

#include <stdbool.h>
#include <stdint.h>

/* Where a sandbox may connect to, as scripts and grants say it: "api.example.com", "*.example.org"
 * (what is below it, not itself), "10.1.2.3", "10.0.0.0/8", "[2001:db8::1]"; each may have ":PORT".
 */
enum destination_kind { DEST_NAME, DEST_NET4, DEST_NET6 };

struct destination {
  enum destination_kind kind;
  char name[256];   /* DEST_NAME: lower case, without "*." and a dot at the end */
  bool below;       /* "*." was in front */
  uint8_t addr[16]; /* network order, masked; DEST_NET4: the first 4 bytes */
  unsigned bits;    /* of addr that count */
  uint16_t port;    /* 0 = any */
};

/* false: text is none. */
bool destination_parse(struct destination *ret, const char *text);

bool destination_has_name(const struct destination *d, const char *name); /* name in lower case */
bool destination_has_addr4(const struct destination *d, uint32_t addr);   /* host order */

/* All that part stands for, whole stands for too. */
bool destination_covers(const struct destination *whole, const struct destination *part);

#endif

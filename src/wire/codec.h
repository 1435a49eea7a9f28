#ifndef REGOLITH_WIRE_CODEC_H
#define REGOLITH_WIRE_CODEC_H

#include <stddef.h>

#include "base/err.h"
#include "base/val.h"

struct buf;

/* Plain data as bytes: MessagePack, one value. Arguments and results of ops, chunks and events all
 * travel this way, between processes and, in debug builds, also inside one. Strings are raw bytes
 * (type str on the wire; bin is read too); there are no extension types. */

#define CODEC_MAX_DEPTH  64        /* containers within containers */
#define CODEC_MAX_VALUES (1 << 20) /* in one message, keys not counted */
#define CODEC_MAX_BYTES  (256u << 20)

/* Appends the bytes of v. Refuses what the other side would refuse; out is then as it was. */
int codec_encode(struct buf *out, const struct val *v, struct err *err);

/* Reads exactly one value of len bytes from anybody. Refuses: truncated and trailing bytes, depth,
 * count and size beyond the bounds, keys that are no strings, hold a NUL or come twice, integers
 * beyond int64. Takes memory only in proportion to what is really there. */
int codec_decode(struct val *ret, const void *bytes, size_t len, struct err *err);

/* Encodes, decodes and compares: for ops_set_check. */
int codec_check(const struct val *v, struct err *err);

#endif

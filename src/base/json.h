#ifndef REGOLITH_BASE_JSON_H
#define REGOLITH_BASE_JSON_H

#include <stddef.h>

#include "base/err.h"
#include "base/val.h"

struct buf;

#define JSON_MAX_DEPTH 64

/* Appends v as one line of JSON. Bytes that are not UTF-8 become U+FFFD, as do lone surrogates;
 * numbers that JSON lacks (inf, nan) become null; integral doubles keep a ".0". */
void json_print(struct buf *out, const struct val *v);

/* Parses exactly one JSON value of len bytes (no NUL needed). Refuses: anything behind it,
 * duplicate keys, depth beyond JSON_MAX_DEPTH, a NUL inside a key. Integers that fit become
 * VAL_INT. */
int json_parse(struct val *ret, const char *text, size_t len, struct err *err);

#endif

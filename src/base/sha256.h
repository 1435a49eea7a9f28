#ifndef REGOLITH_BASE_SHA256_H
#define REGOLITH_BASE_SHA256_H

#include <stddef.h>

#define SHA256_SIZE 32

/* SHA-256 of one piece of memory: for short things; image layers go through the library's. */
void sha256(const void *data, size_t len, unsigned char out[SHA256_SIZE]);

#endif

#ifndef REGOLITH_IMAGE_DOCUMENT_H
#define REGOLITH_IMAGE_DOCUMENT_H

#include <stddef.h>

#include "base/err.h"

struct val;

/* Parses JSON that a stranger wrote; what: "the image manifest", for the error. */
int image_document_parse(struct val *ret, const char *text, size_t len, const char *what,
                         struct err *err);

#endif

#ifndef REGOLITH_IMAGE_VERIFY_H
#define REGOLITH_IMAGE_VERIFY_H

#include "base/err.h"

struct image_verify_conf;

int image_verify(const struct image_verify_conf *conf, struct err *err);

#endif

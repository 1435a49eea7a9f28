#ifndef REGOLITH_IMAGE_PUSH_H
#define REGOLITH_IMAGE_PUSH_H

#include "base/err.h"

struct image_push;
struct image_push_conf;

int image_push_start(struct image_push **ret, const struct image_push_conf *conf, struct err *err);
void image_push_cancel(struct image_push *push);

#endif

#ifndef REGOLITH_IMAGE_PULL_H
#define REGOLITH_IMAGE_PULL_H

#include "base/err.h"

struct image_pull;
struct image_pull_conf;

int image_pull_start(struct image_pull **ret, const struct image_pull_conf *conf, struct err *err);
void image_pull_cancel(struct image_pull *pull);

#endif

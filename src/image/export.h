#ifndef REGOLITH_IMAGE_EXPORT_H
#define REGOLITH_IMAGE_EXPORT_H

#include "base/err.h"

struct image_export_conf;

int image_export(const struct image_export_conf *conf, char *ret_digest, struct err *err);

#endif

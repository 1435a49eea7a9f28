#ifndef REGOLITH_IMAGE_IMPORT_H
#define REGOLITH_IMAGE_IMPORT_H

#include "base/err.h"

struct image_commit_conf;
struct image_import_conf;

int image_import(const struct image_import_conf *conf, char *ret_digest, struct err *err);
int image_commit(const struct image_commit_conf *conf, char *ret_digest, struct err *err);

#endif

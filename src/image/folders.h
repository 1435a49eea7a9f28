#ifndef REGOLITH_IMAGE_FOLDERS_H
#define REGOLITH_IMAGE_FOLDERS_H

#include "base/err.h"

struct image_record;
struct image_store;

/* Gives the folders that a layer has only because something lies in them the attributes that the
 * layers below say. To be called once all layers are in, before the image is added. */
int image_folders_settle(struct image_store *store, const struct image_record *r, struct err *err);

#endif

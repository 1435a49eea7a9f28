/* The table of the part "image". */
#include "image/part.h"

#include "image/pull.h"

PART_EXPORT extern const struct image_part regolith_part;

const struct image_part regolith_part = {
    .head = {.name = "image",
             .version = REGOLITH_VERSION,
             .size = sizeof(struct image_part),
             .attach = part_attach_log},
    .pull = image_pull_start,
    .pull_cancel = image_pull_cancel,
};

/* The table of the part "image". */
#include "image/part.h"

#include "image/export.h"
#include "image/import.h"
#include "image/pull.h"
#include "image/push.h"
#include "image/verify.h"

PART_EXPORT extern const struct image_part regolith_part;

const struct image_part regolith_part = {
    .head = {.name = "image",
             .version = REGOLITH_VERSION,
             .size = sizeof(struct image_part),
             .attach = part_attach_log},
    .pull = image_pull_start,
    .pull_cancel = image_pull_cancel,
    .push = image_push_start,
    .push_cancel = image_push_cancel,
    .verify = image_verify,
    .import = image_import,
    .commit = image_commit,
    .export = image_export,
};

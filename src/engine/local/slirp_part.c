/* The table of the part "slirp". */
#include "engine/local/slirp_part.h"

PART_EXPORT extern const struct slirp_part regolith_part;

const struct slirp_part regolith_part = {
    .head = {.name = "slirp",
             .version = REGOLITH_VERSION,
             .size = sizeof(struct slirp_part),
             .attach = part_attach_log},
    .make = slirp_new,
    .cleanup = slirp_cleanup,
    .input = slirp_input,
    .poll_fill = slirp_pollfds_fill,
    .poll_done = slirp_pollfds_poll,
};

/* The table of the part "http". */
#include "net/part.h"

#include "net/httpc.h"
#include "net/url.h"

PART_EXPORT extern const struct http_part regolith_part;

const struct http_part regolith_part = {
    .head = {.name = "http",
             .version = REGOLITH_VERSION,
             .size = sizeof(struct http_part),
             .attach = part_attach_log},
    .client_new = httpc_new,
    .client_close = httpc_close,
    .start = http_start,
    .data = http_data,
    .header = http_header,
    .each_header = http_each_header,
    .resume = http_resume,
    .abort = http_abort,
    .url_join = url_join,
    .url_part = url_part,
};

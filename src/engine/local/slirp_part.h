#ifndef REGOLITH_ENGINE_LOCAL_SLIRP_PART_H
#define REGOLITH_ENGINE_LOCAL_SLIRP_PART_H

#include <slirp/libslirp.h>

#include "core/part.h"

/* The part "slirp": libslirp, a TCP/IP stack as a library. The functions are its own. */
struct slirp_part {
  struct part_head head;
  Slirp *(*make)(const SlirpConfig *cfg, const SlirpCb *callbacks, void *opaque);
  void (*cleanup)(Slirp *slirp);
  void (*input)(Slirp *slirp, const uint8_t *frame, int len);
  void (*poll_fill)(Slirp *slirp, uint32_t *timeout, SlirpAddPollCb add_poll, void *opaque);
  void (*poll_done)(Slirp *slirp, int select_error, SlirpGetREventsCb get_revents, void *opaque);
};

#endif

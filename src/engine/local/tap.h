#ifndef REGOLITH_ENGINE_LOCAL_TAP_H
#define REGOLITH_ENGINE_LOCAL_TAP_H

#include <sys/types.h>

#include "base/err.h"

/* Once, before the caller's /dev becomes another one: where devices are made. */
void tap_prepare(void);

/* Makes the network device "eth0" of a box, up, with its address and its way out (net_frame.h), in
 * the network namespace netns. Returns the tap, close-on-exec and non-blocking: who holds it is the
 * other end of the wire; the device goes when it is closed. The caller's namespaces stay as they
 * are. */
int tap_make(int netns, int *ret_tap, struct err *err);

/* Whether this machine lets us: 0, or a negative errno. */
int tap_usable(void);

#endif

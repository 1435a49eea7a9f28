#ifndef REGOLITH_ENGINE_REMOTE_REMOTE_H
#define REGOLITH_ENGINE_REMOTE_REMOTE_H

#include "base/err.h"

struct val;

/* Sandboxes of another machine, by its Compute API over HTTP: another regolith's, or a service's.
 * Options of engine_conf:
 *   url         where it is; with a path: the base of its operations, else they are below
 *               /v1/marketplace/compute
 *   key         what it knows us by, a secret
 *   ca_file     who to trust instead of the system's authorities
 *   few_fields  true: what nobody asked for is not sent, not even the network
 *   state       a folder of this user's, made when needed: what is there is noted in it, so that a
 *               later start can end what a kill of this process left
 *   plain_http  true: http:// also to other machines than this one, with the key in the clear */
extern const struct engine_ops remote_engine_ops;

/* What the environment says for an engine that no configuration names: "remote" is REGOLITH_URL and
 * REGOLITH_API_KEY, "jarvisclaw" has a URL of its own (JARVISCLAW_API_KEY, JARVISCLAW_BASE_URL).
 * false: no such name. *ret is the caller's. */
bool remote_preset(const char *name, struct val *ret);

/* Reads a key from a file that nobody but its owner may read. *ret is the caller's. */
int remote_read_key(const char *path, char **ret, struct err *err);

#endif

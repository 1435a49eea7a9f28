#ifndef REGOLITH_ENGINE_LOCAL_LOCAL_H
#define REGOLITH_ENGINE_LOCAL_LOCAL_H

struct engine_ops;
struct err;

/* The engine "local": sandboxes made of this machine's own kernel features.
 *
 * options (all optional): none yet. */
extern const struct engine_ops local_engine_ops;

/* Starts the helper that makes the sandboxes (the warden). Call it first thing in main, before
 * configuration, keys or libraries are loaded: the helper inherits nothing that is not there yet.
 * Without it the engine starts a helper at open, by running this program anew; there this call does
 * not return. So every program that opens the engine calls it, and calls it early. */
int local_engine_prefork(struct err *err);

#endif

#ifndef REGOLITH_CLI_ENGINES_H
#define REGOLITH_CLI_ENGINES_H

#include <stdbool.h>

#include "base/err.h"
#include "base/val.h"

/* What a name of an engine stands for. */
struct engine_choice {
  const struct engine_ops *type;
  struct val options; /* owned; holds the key */
  bool priced;        /* what is done there costs what wire/tier.h says */
};

/* Finds what `name` is: an engine that the configuration names, one of this program's types, or a
 * preset of the remote one. named is the configuration's `engines`, NULL = none; label is the
 * argument that says the name. */
int engines_choose(struct engine_choice *ret, const char *name, const struct val *named,
                   const char *label, struct err *err);
void engine_choice_done(struct engine_choice *c);

/* Of the `engines` of the user's configuration the one with this name, for whoever reads nothing
 * else of it; ret is the caller's. Reads no file where the name means something without one. */
int engines_configured(struct val *ret, const char *name, struct err *err);

/* The names of engines elsewhere: of the user's configuration, whose `engines` ret_named is then,
 * and of presets whose variables are set. Both are the caller's; ret_names is a list. */
int engines_elsewhere(struct val *ret_names, struct val *ret_named, struct err *err);

/* Registers the types of engines that this program is built with; again is no harm. */
void engines_register(void);

#endif

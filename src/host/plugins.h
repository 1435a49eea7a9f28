#ifndef REGOLITH_HOST_PLUGINS_H
#define REGOLITH_HOST_PLUGINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct files_grants;
struct loop;
struct ops;
struct plugins;
struct supervisor;
struct val;

/* Plugins: Lua of whoever runs this program, called for what scripts do with sandboxes. Each runs
 * in a script state of its own in this process; docs/plugins.md says what one looks like. Answers
 * the ops plugin.load declare next reply (of plugins) and plugin.call (of scripts), and comes in
 * front of sandbox.create. */
struct plugins_conf {
  struct loop *loop;
  struct ops *ops;        /* the supervisor's and the files' ops are registered */
  struct supervisor *sup; /* plugins are owners at it, and hear its events */
  const char *default_engine, *default_image; /* as the supervisor's; NULL: its defaults */
  /* What the owner is called; NULL: none of those that plugins look after. */
  const char *(*owner_name)(void *data, uint64_t owner);
  void *data;
};

struct plugin_conf {
  const char *name;   /* as asked for; a plugin may not call itself otherwise */
  const char *path;   /* of its file, NULL = embedded */
  const char *text;   /* copied */
  size_t len;         /* bytes */
  const char *option; /* what it gets as second argument, NULL = nothing */
};

struct plugins *plugins_new(const struct plugins_conf *conf);

/* Reads the text; nothing of it runs yet. Hooks of earlier ones are called first. */
int plugins_add(struct plugins *plugins, const struct plugin_conf *conf, struct err *err);

/* Runs the loop until each has said what it does, or one has failed. */
int plugins_load(struct plugins *plugins, struct err *err);

/* What the owner may do with files, if it is a plugin. */
bool plugins_grants(const struct plugins *plugins, uint64_t owner, struct files_grants *ret);

/* The module NAME or NAME.TOOL of a plugin, as script.module answers it. */
int plugins_module(void *plugins, const char *name, struct val *ret, struct err *err);

/* Lets them hear what they have not heard yet, a few seconds long, and ends them; then calls done
 * once, from the loop. After the supervisor's shutdown. */
void plugins_close(struct plugins *plugins, void (*done)(void *data), void *data);
void plugins_free(struct plugins *plugins); /* never loaded, or closed; NULL allowed */

#endif

/* Opens what `run` and `exec` share: the host and its engine. Registers the engines that this
 * program was built with; later ones are added to the table here and nowhere else. */
#include "cli/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/suggest.h"
#include "cli/cli.h"
#include "core/op.h"
#include "engine/engine.h"
#include "engine/local/local.h"
#include "host/grants.h"
#include "host/host.h"
#include "host/nursery.h"
#include "wire/op.h"

static const struct engine_ops *const engines[] = {&local_engine_ops};

enum { ENGINES_N = sizeof engines / sizeof *engines };

void session_prefork(const char *program, bool sandboxes, bool scripts)
{
  static const char helper[] = "regolith: ";
  bool is_helper = program && strncmp(program, helper, sizeof helper - 1) == 0;
  /* A failure shows again, and is reported, when the engine is opened. */
  if (sandboxes || is_helper) local_engine_prefork(NULL);
  if (scripts || is_helper) nursery_prefork(NULL);
}

static void register_engines(void)
{
  if (engine_count() > 0) return;
  for (size_t i = 0; i < ENGINES_N; i++) engine_register(engines[i]);
}

static int unknown_engine(const char *name, struct err *err)
{
  const char *names[ENGINES_N];
  for (size_t i = 0; i < ENGINES_N; i++) names[i] = engines[i]->name;
  int rc = err_arg(err, "--engine", "there is no engine \"%s\"", name);
  const char *near = suggest_nearest(name, names, ENGINES_N);
  err_hint(err, near ? "did you mean \"%s\"?" : "this build has \"%s\"", near ? near : names[0]);
  return rc;
}

int session_open_engine(struct engine **ret, const char *name, struct loop *loop, struct err *err)
{
  register_engines();
  if (!name) name = "local";
  const struct engine_ops *type = engine_find(name);
  if (!type) return unknown_engine(name, err);
  return type->open(ret, &(struct engine_conf){.name = name, .loop = loop}, err);
}

int session_open(struct host **ret, const char *engine, const struct host_conf *conf,
                 struct err *err)
{
  register_engines();
  const char *name = engine ? engine : "local";
  if (!engine_find(name)) return unknown_engine(name, err);
  struct host_conf with_engine = *conf;
  with_engine.default_engine = name;
  struct host *host;
  int rc = host_new(&host, &with_engine, err);
  if (rc < 0) return rc;
  struct engine *opened;
  rc = session_open_engine(&opened, name, host_loop(host), err);
  if (rc < 0) {
    host_free(host);
    return rc;
  }
  host_add_engine(host, opened);
  *ret = host;
  return 0;
}

int session_exit_status(const struct err *err)
{
  return err->kind == ERR_INVALID_ARGUMENT ? CLI_EXIT_USAGE : CLI_EXIT_NO_SANDBOXES;
}

int session_read_env(const struct cli_list *list, struct strv *ret, struct err *err)
{
  int rc = 0;
  for (size_t i = 0; i < list->n && rc == 0; i++)
    rc = grants_read_env(ret, list->v[i], "--env", err);
  return rc;
}

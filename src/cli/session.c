/* Opens what `run`, `repl` and `exec` share: the host and its engines. */
#include "cli/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "cli/cli.h"
#include "cli/engines.h"
#include "core/op.h"
#include "engine/engine.h"
#include "engine/local/local.h"
#include "host/grants.h"
#include "host/host.h"
#include "host/nursery.h"
#include "wire/op.h"

#define LOCAL "local"
enum { NAMED_MAX = 12 };

void session_prefork(const char *program, bool sandboxes, bool scripts)
{
  static const char helper[] = "regolith: ";
  bool is_helper = program && strncmp(program, helper, sizeof helper - 1) == 0;
  /* A failure shows again, and is reported, when the engine is opened. */
  if (sandboxes || is_helper) local_engine_prefork(NULL);
  if (scripts || is_helper) nursery_prefork(NULL);
}

int session_open_engine(struct engine **ret, const char *name, const struct val *named,
                        struct loop *loop, bool serves, bool *ret_priced, struct err *err)
{
  struct engine_choice choice;
  int rc = engines_choose(&choice, name, named, "--engine", err);
  if (rc < 0) return rc;
  struct engine_conf conf = {
      .name = name, .loop = loop, .options = &choice.options, .serves = serves};
  rc = choice.type->open(ret, &conf, err);
  *ret_priced = choice.priced;
  engine_choice_done(&choice);
  return rc;
}

static int add_engine(struct host *host, const char *name, const struct val *named, struct err *err)
{
  struct engine *opened;
  bool priced;
  int rc = session_open_engine(&opened, name, named, host_loop(host), false, &priced, err);
  if (rc < 0) return rc;
  host_add_engine(host, opened);
  host_set_priced(host, name, priced);
  return 0;
}

/* The default engine, the local one, and what the configuration names. */
static int add_engines(struct host *host, const char *chosen, const struct val *named,
                       struct err *err)
{
  bool has_local = strcmp(chosen, LOCAL) == 0 || val_get(named, LOCAL);
  size_t n = named && named->type == VAL_MAP ? named->map.n : 0;
  if (n > NAMED_MAX)
    return err_arg(err, "engines", "engines has %zu entries, and at most %d can be used", n,
                   NAMED_MAX);
  int rc = add_engine(host, chosen, named, err);
  if (rc == 0 && !has_local) rc = add_engine(host, LOCAL, named, err);
  for (size_t i = 0; rc == 0 && i < n; i++)
    if (strcmp(named->map.v[i].key, chosen) != 0)
      rc = add_engine(host, named->map.v[i].key, named, err);
  return rc;
}

int session_open(struct host **ret, const char *engine, const struct val *named,
                 const struct host_conf *conf, struct err *err)
{
  struct host *host;
  struct host_conf with_engine = *conf;
  with_engine.default_engine = engine ? engine : LOCAL;
  int rc = host_new(&host, &with_engine, err);
  if (rc < 0) return rc;
  rc = add_engines(host, with_engine.default_engine, named, err);
  if (rc < 0) {
    host_free(host);
    return rc;
  }
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

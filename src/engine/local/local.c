/* The local engine's host side. So far only its entry points: open says that nothing is there. */
#include "engine/local/local.h"

static int local_open(struct engine **ret, const struct engine_conf *conf, struct err *err)
{
  (void)ret, (void)conf;
  return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "the local engine is not built into this program");
}

const struct engine_ops local_engine_ops = {.name = "local", .open = local_open};

int local_engine_prefork(struct err *err)
{
  (void)err;
  return 0;
}

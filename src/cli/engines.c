/* Names of engines: what the configuration's `engines` says of them, and what is known without one.
 *
 *   engines = { ["gpu-box"] = { type = "remote", url = "https://gpu.example.com",
 *                               key_file = "/etc/regolith/gpu-box.key" },
 *               ["local"] = { type = "local", priced = true } }
 *
 * A key is never in the configuration itself: it comes from a variable or from a file that others
 * cannot read. The types of engines are named here and nowhere else. */
#include "cli/engines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/suggest.h"
#include "db/store.h"
#include "engine/engine.h"
#include "engine/local/local.h"
#include "engine/remote/remote.h"
#include "host/settings.h"
#include "wire/schema.h"

static const struct engine_ops *const types[] = {&local_engine_ops, &remote_engine_ops};
#define LOCAL "local"
static const char *const known[] = {LOCAL, "remote", "jarvisclaw"};

enum { TYPES_N = sizeof types / sizeof *types, KNOWN_N = sizeof known / sizeof *known };

struct named_engine {
  char *type, *url, *key_env, *key_file, *ca_file;
  bool plain_http, priced;
};

#define AT(member) offsetof(struct named_engine, member)
#define TEXT(member, bytes)                                                                        \
  {                                                                                                \
    .name = #member, .type = &field_text, .offset = AT(member), .min = 1, .max = (bytes)           \
  }
static const struct field fields[] = {
    {.name = "type",
     .type = &field_text,
     .offset = AT(type),
     .flags = FIELD_REQUIRED,
     .min = 1,
     .max = 31},
    TEXT(url, 2000),
    TEXT(key_env, 255),
    TEXT(key_file, 4095),
    TEXT(ca_file, 4095),
    {.name = "plain_http", .type = &field_bool, .offset = AT(plain_http)},
    {.name = "priced", .type = &field_bool, .offset = AT(priced)},
};
#undef TEXT
#undef AT
static const struct schema schema = {"engines", SCHEMA_FIELDS(fields), NULL};

void engines_register(void)
{
  if (engine_count() > 0) return;
  for (size_t i = 0; i < TYPES_N; i++) engine_register(types[i]);
}

void engine_choice_done(struct engine_choice *c)
{
  struct val *key = val_get_mut(&c->options, "key");
  if (key && key->type == VAL_STR) explicit_bzero(key->s.p, key->s.len);
  val_free(&c->options);
}

static int unknown(const char *name, const struct val *named, const char *label, struct err *err)
{
  size_t n = 0, more = named && named->type == VAL_MAP ? named->map.n : 0;
  const char **names = xcalloc(KNOWN_N + more, sizeof *names);
  for (size_t i = 0; i < KNOWN_N; i++) names[n++] = known[i];
  for (size_t i = 0; i < more; i++) names[n++] = named->map.v[i].key;
  int rc = err_arg(err, label, "there is no engine \"%.60s\"", name);
  const char *near = suggest_nearest(name, names, n);
  if (near)
    err_hint(err, "did you mean \"%s\"?", near);
  else
    err_hint(err, "this build has \"local\" and \"remote\"; others are named in the configuration: "
                  "engines = { NAME = { type = \"remote\", url = … } }");
  free(names);
  return rc;
}

/* nil where there is no configuration, or it names none. */
static int load_named(struct val *ret, struct err *err)
{
  struct val settings = {0};
  cleanup_free char *file = NULL;
  *ret = (struct val){0};
  int rc = settings_load(&settings, NULL, &file, err);
  const struct val *all = rc == 0 ? val_get(&settings, "engines") : NULL;
  if (all && all->type != VAL_MAP) {
    rc = field_wrong(err, "engines", all, "{ NAME = { type = \"remote\", url = … } }");
    err_wrap(err, "%s", file);
  } else if (all) {
    *ret = val_copy(all);
  }
  val_free(&settings);
  return rc;
}

int engines_configured(struct val *ret, const char *name, struct err *err)
{
  struct val all;
  *ret = (struct val){0};
  if (!name || strcmp(name, LOCAL) == 0)
    return 0; /* but its price, which one command has no use for */
  int rc = load_named(&all, err);
  const struct val *said = val_get(&all, name);
  if (said) {
    *ret = val_map();
    val_add(ret, name, val_copy(said));
  }
  val_free(&all);
  return rc;
}

int engines_elsewhere(struct val *ret_names, struct val *ret_named, struct err *err)
{
  *ret_names = val_list();
  int rc = load_named(ret_named, err);
  for (size_t i = 0; ret_named->type == VAL_MAP && i < ret_named->map.n; i++)
    if (strcmp(ret_named->map.v[i].key, LOCAL) != 0)
      val_push(ret_names, val_str(ret_named->map.v[i].key));
  for (size_t i = 0; i < KNOWN_N; i++) { /* one with an address of its own is used by its key */
    struct val preset = {0};
    if (!val_get(ret_named, known[i]) && remote_preset(known[i], &preset) &&
        val_get(&preset, val_get(&preset, "few_fields") ? "key" : "url"))
      val_push(ret_names, val_str(known[i]));
    val_free(&preset);
  }
  return rc;
}

static int take_key(const struct named_engine *n, struct val *options, struct err *err)
{
  if (n->key_env && n->key_file)
    return err_arg(err, "key_file", "either key_env or key_file says the key, not both");
  if (n->key_env) {
    const char *value = getenv(n->key_env);
    if (!value || !*value) return err_arg(err, "key_env", "%s is not set", n->key_env);
    val_add(options, "key", val_str(value));
  }
  if (!n->key_file) return 0;
  char *key = NULL;
  int rc = remote_read_key(n->key_file, &key, err);
  if (rc < 0) return rc;
  val_add(options, "key", val_str(key));
  explicit_bzero(key, strlen(key));
  free(key);
  return 0;
}

static int no_inline_key(const struct val *said, struct err *err)
{
  if (!val_get(said, "key")) return 0;
  int rc = err_arg(err, "key", "a key does not stand in the configuration");
  err_hint(err, "key_env = \"NAME\" names a variable, key_file = \"PATH\" a file of mode 0600");
  return rc;
}

static int check_ca_file(const char *path, struct err *err)
{
  if (!path || access(path, R_OK) == 0) return 0;
  return err_arg(err, "ca_file", "ca_file = \"%.200s\": %s", path, strerror(errno));
}

static int take_remote(const struct named_engine *n, struct val *options, struct err *err)
{
  if (strcmp(n->type, remote_engine_ops.name) != 0)
    return err_arg(err, "type", "type must be \"remote\", not \"%.40s\"", n->type);
  *options = val_map();
  if (n->url) val_add(options, "url", val_str(n->url));
  if (n->ca_file) val_add(options, "ca_file", val_str(n->ca_file));
  val_add(options, "plain_http", val_bool(n->plain_http));
  int rc = check_ca_file(n->ca_file, err);
  return rc < 0 ? rc : take_key(n, options, err);
}

/* Of this machine nothing can be said but whether what is done on it has a price. */
static int check_local(const struct named_engine *n, struct err *err)
{
  if (strcmp(n->type, LOCAL) != 0)
    err_arg(err, "type", "\"local\" is this machine and no other");
  else if (n->url || n->key_env || n->key_file || n->ca_file || n->plain_http)
    err_arg(err, "url", "\"local\" is this machine: it has no address and no key");
  else
    return 0;
  err_hint(err, "engines.local takes { type = \"local\", priced = true }; give another engine "
                "another name");
  return -EINVAL;
}

static void add_state(struct val *options)
{
  cleanup_free char *dir = store_state_dir("away");
  val_set(options, "state", val_str(dir));
}

static int choose_named(struct engine_choice *ret, const char *name, const struct val *said,
                        struct err *err)
{
  bool local = strcmp(name, LOCAL) == 0;
  struct named_engine n = {.priced = !local};
  int rc = no_inline_key(said, err);
  if (rc == 0) rc = schema_parse(&schema, "", said, &n, err);
  if (rc < 0) return rc;
  ret->type = local ? &local_engine_ops : &remote_engine_ops;
  ret->priced = n.priced;
  rc = local ? check_local(&n, err) : take_remote(&n, &ret->options, err);
  schema_free(&schema, &n);
  if (rc == 0 && !local) add_state(&ret->options);
  if (rc < 0) engine_choice_done(ret);
  return rc;
}

int engines_choose(struct engine_choice *ret, const char *name, const struct val *named,
                   const char *label, struct err *err)
{
  *ret = (struct engine_choice){0};
  engines_register();
  const struct val *said = val_get(named, name);
  if (said) {
    int rc = choose_named(ret, name, said, err);
    if (rc < 0) err_wrap(err, "engines.%s", name);
    return rc;
  }
  if (remote_preset(name, &ret->options)) {
    add_state(&ret->options);
    ret->type = &remote_engine_ops;
    ret->priced = true;
    return 0;
  }
  ret->type = engine_find(name);
  return ret->type ? 0 : unknown(name, named, label, err);
}

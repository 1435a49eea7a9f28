/* Grants: how they are read. The table is grants.def; what it means is in grants_check.c.
 *
 * Values come from the command line as texts and from the configuration file as plain data; the
 * types of wire/schema.h read both, so that both get the same messages. Directories are resolved
 * when they are granted, so that nobody can make them mean something else later. Secrets are read
 * from our own environment by name, and leave only in requests to their host. */
#include "host/grants_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/suggest.h"
#include "base/val.h"
#include "host/hostname.h"
#include "host/settings.h"
#include "wire/destination.h"
#include "wire/schema.h"

/* ---- types ---- */

/* A text, or a list of texts, each handed to add. */
static int each_text(const struct field *f, const char *path, const struct val *v,
                     int (*add)(const struct field *f, const char *path, const char *text,
                                void *dst, struct err *err),
                     void *dst, struct err *err)
{
  bool list = v->type == VAL_LIST;
  int rc = 0;
  for (size_t i = 0; i < (list ? v->list.n : 1) && rc == 0; i++) {
    const struct val *item = list ? &v->list.v[i] : v;
    char at[FIELD_PATH_SIZE];
    if (list)
      field_path_at(at, path, i);
    else
      snprintf(at, sizeof at, "%s", path);
    if (item->type != VAL_STR || item->s.len == 0 || strlen(item->s.p) != item->s.len)
      return field_wrong(err, at, item, "a text that is not empty");
    if ((int64_t)item->s.len > f->max)
      return err_arg(err, at, "%s must be at most %lld bytes long", at, (long long)f->max);
    rc = add(f, at, item->s.p, dst, err);
  }
  return rc;
}

static int add_text(const struct field *f, const char *path, const char *text, void *dst,
                    struct err *err)
{
  (void)f, (void)path, (void)err;
  strv_add(dst, text);
  return 0;
}

static int list_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                      struct err *err)
{
  return each_text(f, path, v, add_text, dst, err);
}

static void list_release(void *dst)
{
  strv_free(dst);
}

static const struct field_type grant_list = {.parse = list_parse, .release = list_release};

static int add_dir(const struct field *f, const char *path, const char *text, void *dst,
                   struct err *err)
{
  (void)f;
  struct stat st;
  cleanup_free char *real = realpath(text, NULL);
  if (!real || stat(real, &st) < 0)
    return err_arg(err, path, "%s: %s: %s", path, text, strerror(errno));
  if (!S_ISDIR(st.st_mode)) return err_arg(err, path, "%s: %s is not a directory", path, text);
  strv_add(dst, real);
  return 0;
}

static int dirs_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                      struct err *err)
{
  return each_text(f, path, v, add_dir, dst, err);
}

static const struct field_type grant_dirs = {.parse = dirs_parse, .release = list_release};

/* Directories that may be written may be read. */
static int write_dirs_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                            struct err *err)
{
  struct grants *g = (struct grants *)((char *)dst - f->offset);
  int rc = each_text(f, path, v, add_dir, &g->write_dirs, err);
  return rc < 0 ? rc : each_text(f, path, v, add_dir, &g->read_dirs, err);
}

static const struct field_type grant_write_dirs = {.parse = write_dirs_parse,
                                                   .release = list_release};

static int add_network(const struct field *f, const char *path, const char *text, void *dst,
                       struct err *err)
{
  (void)f;
  struct destination d;
  if (strcmp(text, "open") != 0 && !destination_parse(&d, text)) {
    int rc = err_arg(err, path, "%s: \"%.200s\" is not a destination", path, text);
    err_hint(err, "write open, api.example.com, *.example.org:443 or 10.0.0.0/8");
    return rc;
  }
  strv_add(dst, text);
  return 0;
}

static int networks_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                          struct err *err)
{
  return each_text(f, path, v, add_network, dst, err);
}

static const struct field_type grant_networks = {.parse = networks_parse, .release = list_release};

static int add_host(const struct field *f, const char *path, const char *text, void *dst,
                    struct err *err)
{
  (void)f;
  struct host_pattern p;
  if (!host_pattern_parse(&p, text)) {
    int rc = err_arg(err, path, "%s: \"%.200s\" is not a host", path, text);
    err_hint(err, "write api.example.com, *.example.com, 127.0.0.1:8080 or [::1]:8080, without "
                  "http:// in front");
    return rc;
  }
  strv_add(dst, text);
  return 0;
}

static int hosts_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                       struct err *err)
{
  return each_text(f, path, v, add_host, dst, err);
}

static const struct field_type grant_hosts = {.parse = hosts_parse, .release = list_release};

/* HOST=VARIABLE. The host is granted by it. */
static int add_secret(const struct field *f, const char *path, const char *text, void *dst,
                      struct err *err)
{
  struct grants *g = (struct grants *)((char *)dst - f->offset);
  const char *equals = strchr(text, '=');
  if (!equals || equals == text || !equals[1])
    return err_arg(err, path, "%s: \"%.200s\" is not HOST=VARIABLE", path, text);
  cleanup_free char *host = xmemdup(text, (size_t)(equals - text) + 1);
  host[equals - text] = '\0';
  struct host_pattern p;
  if (!host_pattern_parse(&p, host) || p.any || p.below)
    return err_arg(err, path, "%s: \"%.200s\" is not one host", path, host);
  const char *token = getenv(equals + 1);
  if (!token || !*token) {
    int rc = err_arg(err, path, "%s: %.200s is not set here", path, equals + 1);
    err_hint(err, "the option takes the name of a variable, not the secret itself");
    return rc;
  }
  if (token[strcspn(token, "\r\n")])
    return err_arg(err, path, "%s: %.200s holds a line break, which no token has", path,
                   equals + 1);
  struct buf pair = {0};
  buf_printf(&pair, "%s=%s", host, token);
  strv_add(&g->secrets, pair.data);
  buf_free(&pair);
  strv_add(&g->http, host);
  return 0;
}

/* In a file also { ["HOST"] = "VARIABLE" }. */
static int secrets_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                         struct err *err)
{
  if (v->type != VAL_MAP) return each_text(f, path, v, add_secret, dst, err);
  int rc = 0;
  for (size_t i = 0; i < v->map.n && rc == 0; i++) {
    char at[FIELD_PATH_SIZE];
    const struct val *variable = &v->map.v[i].val;
    snprintf(at, sizeof at, "%.80s[\"%.60s\"]", path, v->map.v[i].key);
    if (variable->type != VAL_STR)
      return field_wrong(err, at, variable, "the name of an environment variable");
    struct buf pair = {0};
    buf_printf(&pair, "%s=%s", v->map.v[i].key, variable->s.p);
    rc = add_secret(f, at, pair.data, dst, err);
    buf_free(&pair);
  }
  return rc;
}

static const struct field_type grant_secrets = {.parse = secrets_parse, .release = list_release};

/* "DIR:ro" to DIR, and whether it said so. */
static bool take_mode(char *dir)
{
  char *colon = strrchr(dir, ':');
  bool readonly = colon && strcmp(colon, ":ro") == 0;
  if (readonly || (colon && strcmp(colon, ":rw") == 0)) *colon = '\0';
  return readonly;
}

/* NAME=DIR[:ro]. The name hides a volume of ours that has it too. */
static int add_volume(const struct field *f, const char *path, const char *text, void *dst,
                      struct err *err)
{
  (void)f;
  struct stat st;
  struct strv *dirs = dst;
  size_t len = strcspn(text, "=");
  if (len == 0 || len > 64 || !text[len])
    return err_arg(err, path, "%s: \"%.200s\" is not NAME=DIR or NAME=DIR:ro", path, text);
  cleanup_free char *name = strndup(text, len), *dir = xstrdup(text + len + 1);
  bool readonly = take_mode(dir);
  if (name && strv_map_get(dirs, name))
    return err_arg(err, path, "%s: there are two volumes named %s", path, name);
  cleanup_free char *real = realpath(dir, NULL);
  if (!real || stat(real, &st) < 0)
    return err_arg(err, path, "%s: %s: %s", path, dir, strerror(errno));
  if (!S_ISDIR(st.st_mode)) return err_arg(err, path, "%s: %s is not a directory", path, dir);
  struct buf entry = {0};
  buf_printf(&entry, "%s=%s:%s", name, readonly ? "ro" : "rw", real);
  strv_add(dirs, entry.data);
  buf_free(&entry);
  return 0;
}

/* In a file also { ["NAME"] = "DIR:ro" }. */
static int volumes_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                         struct err *err)
{
  if (v->type != VAL_MAP) return each_text(f, path, v, add_volume, dst, err);
  int rc = 0;
  for (size_t i = 0; i < v->map.n && rc == 0; i++) {
    char at[FIELD_PATH_SIZE];
    const struct val *dir = &v->map.v[i].val;
    struct buf entry = {0};
    snprintf(at, sizeof at, "%.80s[\"%.60s\"]", path, v->map.v[i].key);
    if (dir->type != VAL_STR) return field_wrong(err, at, dir, "a directory");
    buf_printf(&entry, "%s=%s", v->map.v[i].key, dir->s.p);
    rc = add_volume(f, at, entry.data, dst, err);
    buf_free(&entry);
  }
  return rc;
}

static const struct field_type grant_volumes = {.parse = volumes_parse, .release = list_release};

int grants_read_env(struct strv *ret, const char *entry, const char *label, struct err *err)
{
  size_t name_len = strcspn(entry, "=");
  if (name_len == 0) return err_arg(err, label, "%s: \"%s\" names no variable", label, entry);
  if (entry[name_len]) {
    strv_add(ret, entry);
    return 0;
  }
  const char *value = getenv(entry);
  if (!value) {
    int rc = err_arg(err, label, "%s: %s is not set here", label, entry);
    err_hint(err, "export it first, or write %s=VALUE", entry);
    return rc;
  }
  struct buf pair = {0};
  buf_printf(&pair, "%s=%s", entry, value);
  strv_add(ret, pair.data);
  buf_free(&pair);
  return 0;
}

static int add_env(const struct field *f, const char *path, const char *text, void *dst,
                   struct err *err)
{
  (void)f;
  return grants_read_env(dst, text, path, err);
}

static int env_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                     struct err *err)
{
  return each_text(f, path, v, add_env, dst, err);
}

static const struct field_type grant_env = {.parse = env_parse, .release = list_release};

static int usd_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                     struct err *err)
{
  struct grant_cost *cost = dst;
  int rc = field_microusd.parse(f, path, v, &cost->microusd, err);
  if (rc == 0) cost->set = true;
  return rc;
}

static const struct field_type grant_usd = {.parse = usd_parse};

/* "1000/s" or 1000. */
static int rate_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                      struct err *err)
{
  int64_t n;
  struct val bare = val_copy(v);
  if (bare.type == VAL_STR && bare.s.len > 2 && strcmp(bare.s.p + bare.s.len - 2, "/s") == 0)
    bare.s.p[bare.s.len -= 2] = '\0';
  bool ok = field_integer(&bare, &n) && n >= f->min && n <= f->max;
  val_free(&bare);
  if (!ok)
    return field_wrong(err, path, v, "a number per second from %lld to %lld, such as 1000/s",
                       (long long)f->min, (long long)f->max);
  *(uint32_t *)dst = (uint32_t)n;
  return 0;
}

static const struct field_type grant_rate = {.parse = rate_parse};

/* ---- the table ---- */

static const struct grant {
  const char *option;
  struct field field;
} table[] = {
#define G(title)
#define X(member, kind, option, letter, value, least, most, help)                                  \
  {option,                                                                                         \
   {.name = option,                                                                                \
    .type = &kind,                                                                                 \
    .offset = offsetof(struct grants, member),                                                     \
    .min = least,                                                                                  \
    .max = most}},
#include "host/grants.def"
#undef X
#undef G
};

enum { GRANTS_N = sizeof table / sizeof *table };

static bool same_name(const char *option, const char *key)
{
  for (; *option && *key; option++, key++)
    if ((*option == '-' ? '_' : *option) != *key) return false;
  return *option == *key;
}

static int set(struct grants *g, const struct grant *grant, const struct val *v, const char *label,
               struct err *err)
{
  return grant->field.type->parse(&grant->field, label, v, (char *)g + grant->field.offset, err);
}

/* ---- profiles ---- */

static void be_agent(struct grants *g)
{
  strv_add(&g->engines, "local");
  strv_add(&g->images, "host");
}

static void be_trusted(struct grants *g)
{
  static const char *const here[] = {"*", "localhost", "127.0.0.1", "[::1]"};
  strv_add(&g->engines, "*");
  strv_add(&g->images, "*");
  strv_add(&g->networks, "open");
  strv_add(&g->volumes, "*");
  strv_add(&g->commits, "*");
  strv_add(&g->gpus, "*");
  strv_add(&g->ports, "*");
  strv_add(&g->dir_images, "/");
  strv_add(&g->read_dirs, "/");
  strv_add(&g->write_dirs, "/");
  for (size_t i = 0; i < sizeof here / sizeof *here; i++) strv_add(&g->http, here[i]);
  for (char **e = environ; *e; e++)
    if (strchr(*e, '=') && **e != '=') strv_add(&g->env, *e);
}

static const struct profile {
  const char *name;
  void (*fill)(struct grants *g);
} profiles[] = {{"agent", be_agent}, {"trusted", be_trusted}};

static int take_profile(struct grants *g, const char *name, const char *label, struct err *err)
{
  for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++)
    if (strcmp(profiles[i].name, name) == 0) {
      profiles[i].fill(g);
      return 0;
    }
  struct val shown = val_str(name);
  int rc = field_wrong(err, label, &shown, "\"agent\" or \"trusted\"");
  val_free(&shown);
  return rc;
}

/* ---- the configuration file ---- */

static int unknown_setting(const char *file, const char *key, struct err *err)
{
  char keys[GRANTS_N + 1][32];
  const char *names[GRANTS_N + 1];
  for (size_t i = 0; i <= GRANTS_N; i++) {
    snprintf(keys[i], sizeof keys[i], "%s", i < GRANTS_N ? table[i].option : "profile");
    for (char *c = keys[i]; *c; c++)
      if (*c == '-') *c = '_';
    names[i] = keys[i];
  }
  const char *near = suggest_nearest(key, names, GRANTS_N + 1);
  int rc = err_arg(err, key, "%s: there is no setting \"%.60s\"", file, key);
  if (near)
    err_hint(err, "did you mean \"%s\"?", near);
  else
    err_hint(err, "the settings are the options of regolith run, with _ for -");
  return rc;
}

/* What is in them is for whoever opens engines. */
static int take_engines(struct grants *g, const char *file, const struct val *v, struct err *err)
{
  bool ok = v->type == VAL_MAP;
  for (size_t i = 0; ok && i < v->map.n; i++)
    ok = v->map.v[i].val.type == VAL_MAP && strlen(v->map.v[i].key) < 32;
  if (ok) {
    g->named = val_copy(v);
    return 0;
  }
  int rc = field_wrong(err, "engines", v, "{ NAME = { type = \"remote\", url = … } }");
  err_wrap(err, "%s", file);
  return rc;
}

static int take_setting(struct grants *g, const char *file, const struct val_pair *p,
                        struct err *err)
{
  if (strcmp(p->key, "profile") == 0) return 0;
  if (strcmp(p->key, "engines") == 0) return take_engines(g, file, &p->val, err);
  for (size_t i = 0; i < GRANTS_N; i++) {
    if (!same_name(table[i].option, p->key)) continue;
    int rc = set(g, &table[i], &p->val, p->key, err);
    if (rc < 0) err_wrap(err, "%s", file);
    return rc;
  }
  return unknown_setting(file, p->key, err);
}

/* The profile, wherever it is named, and what the file says beyond it. */
static int take_settings(struct grants *g, const char *profile, const char *file,
                         const struct val *settings, struct err *err)
{
  const struct val *named = val_get(settings, "profile");
  int rc = 0;
  if (profile) {
    rc = take_profile(g, profile, "--profile", err);
  } else if (named && named->type != VAL_STR) {
    rc = field_wrong(err, "profile", named, "\"agent\" or \"trusted\"");
    err_wrap(err, "%s", file);
  } else {
    rc = take_profile(g, named ? named->s.p : "agent", "profile", err);
    if (rc < 0) err_wrap(err, "%s", file);
  }
  for (size_t i = 0; settings->type == VAL_MAP && i < settings->map.n && rc == 0; i++)
    rc = take_setting(g, file, &settings->map.v[i], err);
  return rc;
}

static int take_choice(struct grants *g, const struct grant_choice *c, struct err *err)
{
  for (size_t i = 0; i < GRANTS_N; i++) {
    if (strcmp(table[i].option, c->option) != 0) continue;
    char label[40];
    snprintf(label, sizeof label, "--%s", c->option);
    struct val v = val_str(c->value);
    int rc = set(g, &table[i], &v, label, err);
    val_free(&v);
    return rc;
  }
  return err_set(err, ERR_INTERNAL, EINVAL, "there is no grant --%s", c->option);
}

/* What is named as default is granted by that. */
static void grant_defaults(struct grants *g)
{
  if (g->engine) strv_add(&g->engines, g->engine);
  if (!g->image) return;
  if (strncmp(g->image, "dir:", 4) != 0) strv_add(&g->images, g->image);
}

int grants_new(struct grants **ret, const char *profile, const char *config,
               const struct grant_choice *choices, size_t choices_n, struct err *err)
{
  struct grants *g = xcalloc(1, sizeof *g);
  struct val settings = {0};
  cleanup_free char *file = NULL;
  int rc = settings_load(&settings, config, &file, err);
  if (rc == 0) rc = take_settings(g, profile, file ? file : "", &settings, err);
  for (size_t i = 0; i < choices_n && rc == 0; i++) rc = take_choice(g, &choices[i], err);
  val_free(&settings);
  if (rc < 0) {
    grants_free(g);
    return rc;
  }
  grant_defaults(g);
  *ret = g;
  return 0;
}

void grants_free(struct grants *g)
{
  if (!g) return;
  val_free(&g->named);
  for (size_t i = 0; i < GRANTS_N; i++)
    if (table[i].field.type->release)
      table[i].field.type->release((char *)g + table[i].field.offset);
  free(g);
}

/* ---- reading them ---- */

const char *grants_engine(const struct grants *g)
{
  return g->engine;
}

const struct val *grants_engines(const struct grants *g)
{
  return &g->named;
}

const char *grants_image(const struct grants *g)
{
  return g->image;
}

const struct strv *grants_env(const struct grants *g)
{
  return &g->env;
}

const struct strv *grants_read_dirs(const struct grants *g)
{
  return &g->read_dirs;
}

const struct strv *grants_write_dirs(const struct grants *g)
{
  return &g->write_dirs;
}

void grants_bounds(const struct grants *g, struct grant_bounds *ret)
{
  *ret = (struct grant_bounds){
      .max_sandboxes = g->max_sandboxes,
      .max_timeout_s = g->max_timeout_s,
      .ops_per_s = g->ops_per_s,
      .cost_capped = g->max_cost.set,
      .max_microusd = g->max_cost.microusd,
      .mem_bytes = g->mem_bytes,
      .timeout_ms = g->timeout_ms,
      .grace_ms = g->grace_ms,
      .cpu_ms = g->cpu_ms,
  };
}

/* The arguments and results of the sandbox ops, as tables of fields.
 *
 * One table per op says name, type, range and default of each field. What comes in is plain data
 * from a script, a worker process or the HTTP API; what goes out is the typed struct that the
 * supervisor and the engines use, checked once and never again. Limits that the kernel would answer
 * with a bare errno much later (the length of one argument, a NUL in a path) are answered here, by
 * field. Nothing in this file allocates by a number that a stranger chose. */
#include "wire/op.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "wire/destination.h"
#include "wire/schema.h"
#include "wire/tier.h"

#define ARG_MAX_BYTES   131071    /* MAX_ARG_STRLEN less the NUL */
#define ARGS_MAX_BYTES  (6 << 20) /* the kernel's ceiling for arguments and environment together */
#define ARGS_MAX        65536
#define ENV_MAX         4096
#define TAGS_MAX        64
#define TAG_KEY_MAX     128
#define TAG_VALUE_MAX   1024
#define PORTS_MAX       64
#define VOLUMES_MAX     32
#define VOLUME_NAME_MAX 64
#define ALLOW_MAX       256
#define GPU_CHOICES_MAX 8
#define STDIN_MAX       (64 << 20)
#define DAY_S           86400

/* ---- strings ---- */

void strv_add(struct strv *s, const char *item)
{
  /* Capacity is the next power of two, so that it needs no field. */
  if ((s->n & (s->n - 1)) == 0)
    s->v = xrealloc(s->v, (s->n ? s->n * 2 : 1) * sizeof *s->v + sizeof *s->v);
  s->v[s->n++] = xstrdup(item);
  s->v[s->n] = NULL;
}

void strv_free(struct strv *s)
{
  for (size_t i = 0; i < s->n; i++) free(s->v[i]);
  free(s->v);
  *s = (struct strv){0};
}

const char *strv_map_get(const struct strv *map, const char *key)
{
  size_t len = strlen(key);
  for (size_t i = 0; i < map->n; i++)
    if (strncmp(map->v[i], key, len) == 0 && map->v[i][len] == '=') return map->v[i] + len + 1;
  return NULL;
}

struct val strv_to_map(const struct strv *map)
{
  struct val out = val_map();
  for (size_t i = 0; i < map->n; i++) {
    const char *eq = strchr(map->v[i], '=');
    cleanup_free char *key = strndup(map->v[i], (size_t)(eq - map->v[i]));
    if (key) val_add(&out, key, val_str(eq + 1));
  }
  return out;
}

static struct val strv_to_list(const struct strv *s)
{
  if (s->n == 0) return (struct val){0};
  struct val list = val_list();
  for (size_t i = 0; i < s->n; i++) val_push(&list, val_str(s->v[i]));
  return list;
}

static void strv_release(void *dst)
{
  strv_free(dst);
}

static bool is_plain(const char *s, size_t len)
{
  for (size_t i = 0; i < len; i++)
    if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) return false;
  return true;
}

static bool is_absolute(const char *s, size_t len)
{
  (void)len;
  return s[0] == '/';
}

/* Letters, digits and . _ - with a letter or digit in front. */
static bool is_label(const char *s, size_t len)
{
  static const char alnum[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  if (!strchr(alnum, s[0])) return false;
  for (size_t i = 0; i < len; i++)
    if (!strchr(alnum, s[i]) && !strchr("._-", s[i])) return false;
  return true;
}

static bool is_word(const char *s, size_t len)
{
  return is_plain(s, len) && !memchr(s, ' ', len);
}

/* An empty map stands for an empty list: a script's {} is both. */
static bool is_empty_table(const struct val *v)
{
  return (v->type == VAL_MAP && v->map.n == 0) || (v->type == VAL_LIST && v->list.n == 0);
}

static int check_argument(const char *path, const struct val *v, struct err *err)
{
  if (v->type != VAL_STR) return field_wrong(err, path, v, "a string");
  if (memchr(v->s.p, 0, v->s.len))
    return err_arg(err, path, "%s must not contain a NUL byte", path);
  if (v->s.len > ARG_MAX_BYTES)
    return err_arg(err, path,
                   "%s is %zu bytes long: one argument may have %d at most (the kernel's limit); "
                   "pass more through stdin or a file",
                   path, v->s.len, ARG_MAX_BYTES);
  return 0;
}

/* A list of arguments; max of them. */
static int argv_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                      struct err *err)
{
  struct strv *s = dst;
  if (is_empty_table(v) && f->min == 0) return 0;
  if (v->type != VAL_LIST || is_empty_table(v)) return field_wrong(err, path, v, "%s", f->must);
  if ((int64_t)v->list.n > f->max)
    return err_arg(err, path, "%s has %zu items: %lld are the most", path, v->list.n,
                   (long long)f->max);
  size_t total = 0;
  for (size_t i = 0; i < v->list.n; i++) {
    char at[FIELD_PATH_SIZE];
    field_path_at(at, path, i);
    int rc = check_argument(at, &v->list.v[i], err);
    if (rc < 0) return rc;
    total += v->list.v[i].s.len + 1 + sizeof(char *);
    strv_add(s, v->list.v[i].s.p);
  }
  if (total > ARGS_MAX_BYTES)
    return err_arg(err, path,
                   "%s has %zu bytes in all: the kernel takes %d at most; pass more through stdin "
                   "or a file",
                   path, total, ARGS_MAX_BYTES);
  return 0;
}

static struct val strv_print(const struct field *f, const void *src)
{
  (void)f;
  return strv_to_list(src);
}

static const struct field_type type_argv = {argv_parse, strv_print, strv_release};

/* The command of an exec: a list is argv, a text runs under /bin/sh -c. */
static int command_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                         struct err *err)
{
  if (v->type != VAL_STR) return argv_parse(f, path, v, dst, err);
  int rc = check_argument(path, v, err);
  if (rc < 0) return rc;
  if (v->s.len == 0) return field_wrong(err, path, v, "%s", f->must);
  strv_add(dst, "/bin/sh");
  strv_add(dst, "-c");
  strv_add(dst, v->s.p);
  return 0;
}

static const struct field_type type_command = {command_parse, NULL, strv_release};

/* ---- maps of strings: env and tags ---- */

static int map_entry(const struct field *f, const char *path, const struct val_pair *p,
                     struct strv *dst, struct err *err)
{
  char at[FIELD_PATH_SIZE];
  field_path(at, path, p->key);
  size_t key_len = strlen(p->key), most = (size_t)f->min;
  if (key_len == 0 || strchr(p->key, '=') || !f->ok(p->key, key_len)) {
    struct val key = val_str(p->key);
    int rc = field_wrong(err, path, &key, "a table whose names are %s", f->must);
    val_free(&key);
    return rc;
  }
  if (p->val.type != VAL_STR) {
    char shown[FIELD_SHOW_SIZE];
    field_show(&p->val, shown);
    bool number = p->val.type == VAL_INT || p->val.type == VAL_NUM;
    return field_wrong(err, at, &p->val, number ? "a string (\"%s\")" : "a string", shown);
  }
  if (memchr(p->val.s.p, 0, p->val.s.len))
    return err_arg(err, at, "%s must not contain a NUL byte", at);
  if (key_len + 1 + p->val.s.len > most)
    return err_arg(err, at, "%s is too long: name and value may have %zu bytes together", at,
                   most - 1);
  struct buf entry = {0};
  buf_printf(&entry, "%s=%s", p->key, p->val.s.p);
  strv_add(dst, entry.data);
  buf_free(&entry);
  return 0;
}

/* min: the longest entry; max: how many. */
static int map_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                     struct err *err)
{
  if (is_empty_table(v)) return 0;
  if (v->type != VAL_MAP)
    return field_wrong(err, path, v, "a table of strings by name ({ A = \"1\" })");
  if ((int64_t)v->map.n > f->max)
    return err_arg(err, path, "%s has %zu entries: %lld are the most", path, v->map.n,
                   (long long)f->max);
  int rc = 0;
  for (size_t i = 0; i < v->map.n && rc == 0; i++) rc = map_entry(f, path, &v->map.v[i], dst, err);
  return rc;
}

static const struct field_type type_map = {map_parse, NULL, strv_release};

/* ---- gpu, network, ports, volumes, stdin ---- */

static int gpu_add(const char *path, const struct val *v, struct strv *dst, struct err *err)
{
  const struct tier *tier;
  unsigned units;
  if (v->type != VAL_STR || memchr(v->s.p, 0, v->s.len))
    return field_wrong(err, path, v, "a GPU (\"T4\", \"A100:2\") or a list in order of preference");
  int rc = tier_parse_gpu(v->s.p, path, &tier, &units, err);
  if (rc < 0) return rc;
  char text[TIER_NAME_MAX + 8];
  const char *name = tier == tier_further() ? v->s.p : tier->name;
  int len =
      tier == tier_further() && units > 1 ? (int)(strrchr(name, ':') - name) : (int)strlen(name);
  snprintf(text, sizeof text, units > 1 ? "%.*s:%u" : "%.*s", len, name, units);
  strv_add(dst, text);
  return 0;
}

static int gpu_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                     struct err *err)
{
  (void)f;
  if (v->type != VAL_LIST) return gpu_add(path, v, dst, err);
  if (v->list.n > GPU_CHOICES_MAX)
    return err_arg(err, path, "%s names %zu choices: %d are the most", path, v->list.n,
                   GPU_CHOICES_MAX);
  int rc = 0;
  for (size_t i = 0; i < v->list.n && rc == 0; i++) {
    char at[FIELD_PATH_SIZE];
    field_path_at(at, path, i);
    rc = gpu_add(at, &v->list.v[i], dst, err);
  }
  return rc;
}

static struct val gpu_print(const struct field *f, const void *src)
{
  (void)f;
  const struct strv *s = src;
  return s->n == 1 ? val_str(s->v[0]) : strv_to_list(s);
}

static const struct field_type type_gpu = {gpu_parse, gpu_print, strv_release};

static int allow_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                       struct err *err)
{
  int rc = argv_parse(f, path, v, dst, err);
  const struct strv *s = dst;
  for (size_t i = 0; rc == 0 && i < s->n; i++) {
    char at[FIELD_PATH_SIZE];
    field_path_at(at, path, i);
    struct destination d;
    if (!destination_parse(&d, s->v[i]))
      return field_wrong(err, at, &v->list.v[i],
                         "a destination (\"*.example.org\", \"10.0.0.0/8:443\")");
  }
  return rc;
}

static const struct field_type type_allow = {allow_parse, strv_print, strv_release};

static const struct field network_fields[] = {
    {.name = "allow",
     .type = &type_allow,
     .flags = FIELD_SHOWN | FIELD_REQUIRED,
     .max = ALLOW_MAX,
     .must = "a list of destinations ({ \"*.example.org\", \"10.0.0.0/8:443\" })"},
};
static const struct schema network_schema = {.name = "network", SCHEMA_FIELDS(network_fields)};

/* dst is the whole struct: mode and list are two members. */
static int network_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                         struct err *err)
{
  struct create_args *a = dst;
  if (v->type == VAL_STR && strcmp(v->s.p, "none") == 0) {
    a->network = NETWORK_NONE;
  } else if (v->type == VAL_STR && strcmp(v->s.p, "open") == 0) {
    a->network = NETWORK_OPEN;
  } else if (v->type == VAL_MAP && v->map.n > 0) {
    a->network = NETWORK_ALLOW;
    return schema_parse(f->sub, path, v, &a->network_allow, err);
  } else {
    return field_wrong(err, path, v, "\"none\", \"open\" or { allow = { \"*.example.org\" } }");
  }
  return 0;
}

static struct val network_print(const struct field *f, const void *src)
{
  const struct create_args *a = src;
  if (a->network == NETWORK_NONE) return val_str("none");
  if (a->network == NETWORK_OPEN) return val_str("open");
  return schema_print(f->sub, &a->network_allow);
}

static void network_release(void *dst)
{
  strv_free(&((struct create_args *)dst)->network_allow);
}

static const struct field_type type_network = {network_parse, network_print, network_release};

/* Count and array sit side by side in create_args under two names; this view joins them. */
struct ports_view {
  uint16_t **v;
  size_t *n;
};

static struct ports_view ports_view(const struct field *f, const void *args)
{
  struct create_args *a = (struct create_args *)(uintptr_t)args;
  return f->name[0] == 'e' ? (struct ports_view){&a->encrypted_ports, &a->encrypted_ports_n}
                           : (struct ports_view){&a->unencrypted_ports, &a->unencrypted_ports_n};
}

static int ports_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                       struct err *err)
{
  struct ports_view ports = ports_view(f, dst);
  if (is_empty_table(v)) return 0;
  if (v->type != VAL_LIST || v->list.n > PORTS_MAX)
    return field_wrong(err, path, v, "a list of up to %d ports ({ 8000 })", PORTS_MAX);
  *ports.v = xcalloc(v->list.n, sizeof **ports.v);
  for (size_t i = 0; i < v->list.n; i++) {
    char at[FIELD_PATH_SIZE];
    field_path_at(at, path, i);
    int rc =
        field_port.parse(&(struct field){.name = f->name}, at, &v->list.v[i], &(*ports.v)[i], err);
    if (rc < 0) return rc;
    *ports.n = i + 1;
  }
  return 0;
}

static struct val ports_print(const struct field *f, const void *src)
{
  struct ports_view ports = ports_view(f, src);
  if (*ports.n == 0) return (struct val){0};
  struct val list = val_list();
  for (size_t i = 0; i < *ports.n; i++) val_push(&list, val_int((*ports.v)[i]));
  return list;
}

static void ports_release(void *dst)
{
  struct create_args *a = dst;
  free(a->encrypted_ports);
  free(a->unencrypted_ports);
  a->encrypted_ports = a->unencrypted_ports = NULL;
  a->encrypted_ports_n = a->unencrypted_ports_n = 0;
}

static const struct field_type type_ports = {ports_parse, ports_print, ports_release};

static bool is_below(const char *path, const char *dir)
{
  size_t n = strlen(dir);
  while (path[0] == '/' && path[1] == '/') path++;
  return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static bool is_target(const char *s, size_t len)
{
  return is_absolute(s, len) && strspn(s, "/") < len && !strstr(s, "/../") && !strstr(s, "/./") &&
         !(len >= 3 && strcmp(s + len - 3, "/..") == 0) && !is_below(s, "/proc") &&
         !is_below(s, "/sys") && !is_below(s, "/dev");
}

static const struct field volume_fields[] = {
    {.name = "source",
     .type = &field_text,
     .offset = offsetof(struct volume_spec, source),
     .flags = FIELD_REQUIRED | FIELD_SHOWN,
     .max = VOLUME_NAME_MAX,
     .ok = is_label,
     .must = "the name of a volume (letters, digits, \".\", \"_\" and \"-\")"},
    {.name = "target",
     .type = &field_text,
     .offset = offsetof(struct volume_spec, target),
     .flags = FIELD_REQUIRED | FIELD_SHOWN,
     .max = 4095,
     .ok = is_target,
     .must = "an absolute path below / without \"..\", not in /proc, /sys or /dev"},
    {.name = "readonly",
     .type = &field_bool,
     .offset = offsetof(struct volume_spec, readonly),
     .flags = FIELD_SHOWN},
};
static const struct schema volume_schema = {.name = "a volume", SCHEMA_FIELDS(volume_fields)};

static int volumes_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                         struct err *err)
{
  struct create_args *a = dst;
  if (is_empty_table(v)) return 0;
  if (v->type != VAL_LIST || v->list.n > VOLUMES_MAX)
    return field_wrong(err, path, v,
                       "a list of up to %d volumes ({ { source = \"data\", target = \"/data\" } })",
                       VOLUMES_MAX);
  a->volumes = xcalloc(v->list.n, sizeof *a->volumes);
  for (size_t i = 0; i < v->list.n; i++) {
    char at[FIELD_PATH_SIZE];
    field_path_at(at, path, i);
    if (v->list.v[i].type != VAL_MAP)
      return field_wrong(err, at, &v->list.v[i], "a table with source and target");
    int rc = schema_parse(f->sub, at, &v->list.v[i], &a->volumes[i], err);
    if (rc < 0) return rc;
    a->volumes_n = i + 1;
  }
  return 0;
}

static struct val volumes_print(const struct field *f, const void *src)
{
  const struct create_args *a = src;
  if (a->volumes_n == 0) return (struct val){0};
  struct val list = val_list();
  for (size_t i = 0; i < a->volumes_n; i++) val_push(&list, schema_print(f->sub, &a->volumes[i]));
  return list;
}

static void volumes_release(void *dst)
{
  struct create_args *a = dst;
  for (size_t i = 0; i < a->volumes_n; i++) {
    schema_free(&volume_schema, &a->volumes[i]);
    free(a->volumes[i].path);
  }
  free(a->volumes);
  a->volumes = NULL;
  a->volumes_n = 0;
}

static const struct field_type type_volumes = {volumes_parse, volumes_print, volumes_release};

/* dst is the whole struct: bytes and length are two members. */
static int stdin_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                       struct err *err)
{
  struct exec_args *a = dst;
  if (v->type != VAL_STR) return field_wrong(err, path, v, "a string");
  if ((int64_t)v->s.len > f->max)
    return err_arg(err, path, "%s has %zu bytes: %lld are the most", path, v->s.len,
                   (long long)f->max);
  free(a->stdin_data);
  a->stdin_data = xmemdup(v->s.p, v->s.len + 1);
  a->stdin_len = v->s.len;
  return 0;
}

static void stdin_release(void *dst)
{
  struct exec_args *a = dst;
  free(a->stdin_data);
  a->stdin_data = NULL;
  a->stdin_len = 0;
}

static const struct field_type type_stdin = {stdin_parse, NULL, stdin_release};

/* ---- sandbox.create ---- */

static const struct field ready_fields[] = {
    {.name = "tcp", .type = &field_port, .flags = FIELD_REQUIRED | FIELD_SHOWN},
};
static const struct schema ready_schema = {.name = "ready", SCHEMA_FIELDS(ready_fields)};

#define AT(member)   .offset = offsetof(struct create_args, member)
#define ID_MUST      "a sandbox id (\"sb_…\")"
#define LABEL_MUST   "a name of letters, digits, \".\", \"_\" and \"-\""
#define USER_MUST    "a user name or number (\"nobody\", \"1000:1000\")"
#define COMMAND_MUST "a text for /bin/sh or a list of arguments that is not empty"

static const struct field create_fields[] = {
    {.name = "engine",
     .type = &field_text,
     AT(engine),
     .flags = FIELD_SHOWN,
     .max = 31,
     .ok = is_label,
     .must = "the name of an engine"},
    {.name = "image",
     .type = &field_text,
     AT(image),
     .flags = FIELD_SHOWN,
     .max = 4096,
     .ok = is_word,
     .must = "the name of an image (\"host\", \"python:3.11\")"},
    {.name = "gpu", .type = &type_gpu, AT(gpu), .flags = FIELD_SHOWN},
    {.name = "cpu",
     .type = &field_milli,
     AT(cpu_milli),
     .flags = FIELD_SHOWN,
     .min = 125,
     .max = 1024000,
     .fallback = "1"},
    {.name = "memory",
     .type = &field_mib,
     AT(mem_mib),
     .flags = FIELD_SHOWN,
     .min = 128,
     .max = 16 << 20,
     .fallback = "1024"},
    {.name = "disk",
     .type = &field_mib,
     AT(disk_mib),
     .flags = FIELD_SHOWN,
     .min = 1,
     .max = 64 << 20,
     .fallback = "1024"},
    {.name = "pids",
     .type = &field_u32,
     AT(pids),
     .flags = FIELD_SHOWN,
     .min = 1,
     .max = 4194304,
     .fallback = "512"},
    {.name = "timeout",
     .type = &field_seconds,
     AT(timeout_s),
     .flags = FIELD_SHOWN,
     .min = 1,
     .max = DAY_S,
     .fallback = "300"},
    {.name = "idle_timeout",
     .type = &field_seconds,
     AT(idle_timeout_s),
     .flags = FIELD_SHOWN,
     .min = 0,
     .max = DAY_S,
     .fallback = "0"},
    {.name = "entrypoint",
     .type = &type_argv,
     AT(entrypoint),
     .flags = FIELD_SHOWN,
     .max = ARGS_MAX,
     .must = "a list of arguments ({ \"python\", \"-m\", \"http.server\" })"},
    {.name = "ready",
     .type = &field_table,
     AT(ready_tcp),
     .flags = FIELD_SHOWN,
     .sub = &ready_schema,
     .must = "a table with a port ({ tcp = 8000 })"},
    {.name = "env",
     .type = &type_map,
     AT(env),
     .min = ARG_MAX_BYTES,
     .max = ENV_MAX,
     .ok = is_word,
     .must = "not empty and without \"=\" and blanks"},
    {.name = "cwd",
     .type = &field_text,
     AT(cwd),
     .flags = FIELD_SHOWN,
     .max = 4095,
     .ok = is_absolute,
     .must = "an absolute path"},
    {.name = "user",
     .type = &field_text,
     AT(user),
     .flags = FIELD_SHOWN | FIELD_FROM_INT,
     .max = 255,
     .ok = is_word,
     .must = USER_MUST},
    {.name = "network", .type = &type_network, .flags = FIELD_SHOWN, .sub = &network_schema},
    {.name = "unencrypted_ports", .type = &type_ports, .flags = FIELD_SHOWN},
    {.name = "encrypted_ports", .type = &type_ports, .flags = FIELD_SHOWN},
    {.name = "volumes", .type = &type_volumes, .flags = FIELD_SHOWN, .sub = &volume_schema},
    {.name = "tags",
     .type = &type_map,
     AT(tags),
     .min = TAG_KEY_MAX + 1 + TAG_VALUE_MAX,
     .max = TAGS_MAX,
     .ok = is_plain,
     .must = "not empty and without \"=\""},
    {.name = "app_id",
     .type = &field_text,
     AT(app_id),
     .max = 64,
     .ok = is_label,
     .fallback = "default",
     .must = LABEL_MUST},
    {.name = "name", .type = &field_text, AT(name), .max = 64, .ok = is_label, .must = LABEL_MUST},
};
#undef AT

static const struct schema create_schema = {.name = "sandbox.create", SCHEMA_FIELDS(create_fields)};

static int default_text(char **dst, const char *text, const char *fallback)
{
  if (!*dst) *dst = xstrdup(text ? text : fallback);
  return 0;
}

int create_args_parse(const struct val *args, const struct create_defaults *defaults,
                      struct create_args *ret, struct err *err)
{
  static const struct create_defaults none;
  if (!defaults) defaults = &none;
  *ret = (struct create_args){0};
  if (defaults->network && strcmp(defaults->network, "open") == 0) ret->network = NETWORK_OPEN;
  int rc = schema_parse(&create_schema, "", args, ret, err);
  if (rc < 0) return rc;
  default_text(&ret->engine, defaults->engine, "local");
  default_text(&ret->image, defaults->image, "host");
  return 0;
}

void create_args_free(struct create_args *a)
{
  schema_free(&create_schema, a);
}

struct val create_args_config(const struct create_args *a)
{
  return schema_print(&create_schema, a);
}

struct val create_args_again(const struct create_args *a)
{
  struct val v = create_args_config(a);
  val_set(&v, "env", strv_to_map(&a->env));
  val_set(&v, "tags", strv_to_map(&a->tags));
  val_set(&v, "app_id", val_str(a->app_id));
  return v;
}

/* ---- sandbox.exec ---- */

static const char *const overflow_names[] = {"truncate", "kill", NULL};

#define AT(member) .offset = offsetof(struct exec_args, member)
static const struct field exec_fields[] = {
    {.name = "sandbox_id",
     .type = &field_text,
     AT(sandbox_id),
     .flags = FIELD_REQUIRED,
     .max = 4096,
     .must = ID_MUST},
    {.name = "command",
     .type = &type_command,
     AT(argv),
     .flags = FIELD_REQUIRED,
     .min = 1,
     .max = ARGS_MAX,
     .must = COMMAND_MUST},
    {.name = "timeout", .type = &field_millis, AT(timeout_ms), .min = 1, .max = DAY_S * 1000},
    {.name = "cwd",
     .type = &field_text,
     AT(cwd),
     .max = 4095,
     .ok = is_absolute,
     .must = "an absolute path"},
    {.name = "user",
     .type = &field_text,
     AT(user),
     .flags = FIELD_FROM_INT,
     .max = 255,
     .ok = is_word,
     .must = USER_MUST},
    {.name = "env",
     .type = &type_map,
     AT(env),
     .min = ARG_MAX_BYTES,
     .max = ENV_MAX,
     .ok = is_word,
     .must = "not empty and without \"=\" and blanks"},
    {.name = "stdin", .type = &type_stdin, .max = STDIN_MAX},
    {.name = "max_output",
     .type = &field_size_bytes,
     AT(max_output),
     .min = 0,
     .max = 1024ll << 20,
     .fallback = "8MiB"},
    {.name = "on_overflow", .type = &field_choice, AT(on_overflow), .choices = overflow_names},
    /* the last two are exec's alone */
    {.name = "stdin_stream", .type = &field_bool, AT(stdin_stream)},
    {.name = "stream", .type = &field_bool, AT(stream)},
};
#undef AT

/* What the script library takes for itself and never sends. */
static const char *const exec_also[] = {"on_stdout", "on_stderr", "check", NULL};

static const struct schema exec_schema = {
    .name = "sandbox.exec", SCHEMA_FIELDS(exec_fields), .also = exec_also};

static const struct schema spawn_schema = {
    .name = "sandbox.spawn",
    .fields = exec_fields,
    .n = sizeof exec_fields / sizeof *exec_fields - 2,
    .also = exec_also,
};

int exec_args_parse(const struct val *args, struct exec_args *ret, struct err *err)
{
  *ret = (struct exec_args){0};
  int rc = schema_parse(&exec_schema, "", args, ret, err);
  if (rc == 0 && ret->stdin_stream && ret->stdin_data) {
    exec_args_free(ret);
    rc = err_arg(err, "stdin", "stdin is either a string or streamed, not both");
  }
  return rc;
}

void exec_args_free(struct exec_args *a)
{
  schema_free(&exec_schema, a);
}

/* ---- sandbox.spawn and what follows it ---- */

int spawn_args_parse(const struct val *args, struct exec_args *ret, struct err *err)
{
  *ret = (struct exec_args){0};
  int rc = schema_parse(&spawn_schema, "", args, ret, err);
  if (rc == 0) ret->stdin_stream = !ret->stdin_data;
  return rc;
}

/* "SIGTERM", "TERM", "SIGRTMIN+1", 15. */
static int signal_of(const struct val *v)
{
  int64_t n;
  if (v->type != VAL_STR) return field_integer(v, &n) && n >= 1 && n <= SIGRTMAX ? (int)n : 0;
  const char *name = strncasecmp(v->s.p, "SIG", 3) == 0 ? v->s.p + 3 : v->s.p;
  for (int i = 1; i <= SIGRTMAX; i++) {
    char known[24];
    signal_name(i, known);
    if (known[0] == 'S' && strcasecmp(name, known + 3) == 0) return i;
  }
  return field_integer(v, &n) && n >= 1 && n <= SIGRTMAX ? (int)n : 0;
}

static int signal_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                        struct err *err)
{
  (void)f;
  *(int *)dst = signal_of(v);
  return *(int *)dst ? 0
                     : field_wrong(err, path, v, "a signal (\"SIGTERM\", \"TERM\" or its number)");
}

static const struct field_type type_signal = {.parse = signal_parse};
static const char *const stream_names[] = {"stdout", "stderr", NULL};

#define AT(member) .offset = offsetof(struct process_args, member)
#define F_PROCESS                                                                                  \
  {.name = "sandbox_id",                                                                           \
   .type = &field_text,                                                                            \
   AT(sandbox_id),                                                                                 \
   .flags = FIELD_REQUIRED,                                                                        \
   .max = 4096,                                                                                    \
   .must = ID_MUST},                                                                               \
  {                                                                                                \
    .name = "exec", .type = &field_u32, AT(exec), .flags = FIELD_REQUIRED, .min = 1,               \
    .max = UINT32_MAX, .must = "the number of a spawned command"                                   \
  }
static const struct field process_fields[] = {F_PROCESS};
static const struct field kill_fields[] = {F_PROCESS,
                                           {.name = "signal", .type = &type_signal, AT(signal)}};
static const struct field output_fields[] = {
    F_PROCESS,
    {.name = "stream", .type = &field_choice, AT(stream), .choices = stream_names},
    {.name = "max",
     .type = &field_size_bytes,
     AT(max),
     .min = 1,
     .max = 1 << 20,
     .fallback = "64KiB"}};
static const struct field input_fields[] = {F_PROCESS,
                                            {.name = "close", .type = &field_bool, AT(close)}};
#undef AT

static const struct schema process_schemas[PROCESS_OPS] = {
    [PROCESS_WAIT] = {.name = "sandbox.wait", SCHEMA_FIELDS(process_fields)},
    [PROCESS_KILL] = {.name = "sandbox.kill", SCHEMA_FIELDS(kill_fields)},
    [PROCESS_OUTPUT] = {.name = "sandbox.output", SCHEMA_FIELDS(output_fields)},
    [PROCESS_INPUT] = {.name = "sandbox.input", SCHEMA_FIELDS(input_fields)},
};

int process_args_parse(enum process_op op, const struct val *args, struct process_args *ret,
                       struct err *err)
{
  *ret = (struct process_args){0};
  return schema_parse(&process_schemas[op], "", args, ret, err);
}

void process_args_free(struct process_args *a)
{
  schema_free(&process_schemas[PROCESS_WAIT], a);
}

/* ---- the small ones ---- */

static const struct field target_fields[] = {
    {.name = "sandbox_id",
     .type = &field_text,
     .offset = offsetof(struct target_args, sandbox_id),
     .flags = FIELD_REQUIRED,
     .max = 4096,
     .must = ID_MUST},
    {.name = "engine",
     .type = &field_text,
     .offset = offsetof(struct target_args, engine),
     .max = 31,
     .ok = is_label,
     .must = "the name of an engine"},
};

int target_args_parse(const char *op, const struct val *args, struct target_args *ret,
                      struct err *err)
{
  const struct schema s = {.name = op, SCHEMA_FIELDS(target_fields)};
  *ret = (struct target_args){0};
  return schema_parse(&s, "", args, ret, err);
}

void target_args_free(struct target_args *a)
{
  schema_free(&(struct schema){.name = "", SCHEMA_FIELDS(target_fields)}, a);
}

static bool is_state(const char *s, size_t len)
{
  static const char *const names[] = {"created", "scheduled", "started",    "ready", "finished",
                                      "pending", "running",   "terminated", NULL};
  (void)len;
  for (const char *const *p = names; *p; p++)
    if (strcmp(*p, s) == 0) return true;
  return false;
}

#define AT(member) .offset = offsetof(struct list_args, member)
static const struct field list_fields[] = {
    {.name = "tags",
     .type = &type_map,
     AT(tags),
     .min = TAG_KEY_MAX + 1 + TAG_VALUE_MAX,
     .max = TAGS_MAX,
     .ok = is_plain,
     .must = "not empty and without \"=\""},
    {.name = "app_id",
     .type = &field_text,
     AT(app_id),
     .max = 64,
     .ok = is_label,
     .must = LABEL_MUST},
    {.name = "state",
     .type = &field_text,
     AT(state),
     .max = 16,
     .ok = is_state,
     .must = "\"pending\", \"running\", \"terminated\", or one of the finer states \"created\", "
             "\"scheduled\", \"started\", \"ready\", \"finished\""},
    {.name = "name", .type = &field_text, AT(name), .max = 64, .ok = is_label, .must = LABEL_MUST},
    {.name = "engine",
     .type = &field_text,
     AT(engine),
     .max = 31,
     .ok = is_label,
     .must = "the name of an engine"},
};
#undef AT
static const struct schema list_schema = {.name = "sandbox.list", SCHEMA_FIELDS(list_fields)};

int list_args_parse(const struct val *args, struct list_args *ret, struct err *err)
{
  *ret = (struct list_args){0};
  return schema_parse(&list_schema, "", args, ret, err);
}

void list_args_free(struct list_args *a)
{
  schema_free(&list_schema, a);
}

static const struct field extend_fields[] = {
    {.name = "sandbox_id",
     .type = &field_text,
     .offset = offsetof(struct extend_args, sandbox_id),
     .flags = FIELD_REQUIRED,
     .max = 4096,
     .must = ID_MUST},
    {.name = "seconds",
     .type = &field_seconds,
     .offset = offsetof(struct extend_args, seconds),
     .flags = FIELD_REQUIRED,
     .min = 1,
     .max = DAY_S,
     .must = "the seconds to add"},
};
static const struct schema extend_schema = {.name = "sandbox.extend", SCHEMA_FIELDS(extend_fields)};

int extend_args_parse(const struct val *args, struct extend_args *ret, struct err *err)
{
  *ret = (struct extend_args){0};
  return schema_parse(&extend_schema, "", args, ret, err);
}

void extend_args_free(struct extend_args *a)
{
  schema_free(&extend_schema, a);
}

static const struct field wait_fields[] = {
    {.name = "sandbox_id",
     .type = &field_text,
     .offset = offsetof(struct wait_args, sandbox_id),
     .flags = FIELD_REQUIRED,
     .max = 4096,
     .must = ID_MUST},
    {.name = "timeout",
     .type = &field_millis,
     .offset = offsetof(struct wait_args, timeout_ms),
     .min = 1,
     .max = DAY_S * 1000},
};
static const struct schema wait_schema = {.name = "sandbox.wait_ready", SCHEMA_FIELDS(wait_fields)};

int wait_args_parse(const struct val *args, struct wait_args *ret, struct err *err)
{
  *ret = (struct wait_args){0};
  return schema_parse(&wait_schema, "", args, ret, err);
}

void wait_args_free(struct wait_args *a)
{
  schema_free(&wait_schema, a);
}

#define IMAGE_MUST "the name of an image (\"mine/tools:1\")"

static const struct field snapshot_fields[] = {
    {.name = "sandbox_id",
     .type = &field_text,
     .offset = offsetof(struct snapshot_args, sandbox_id),
     .flags = FIELD_REQUIRED,
     .max = 4096,
     .must = ID_MUST},
    {.name = "name",
     .type = &field_text,
     .offset = offsetof(struct snapshot_args, name),
     .max = 255,
     .ok = is_word,
     .must = IMAGE_MUST},
};

int snapshot_args_parse(const char *op, const struct val *args, struct snapshot_args *ret,
                        struct err *err)
{
  const struct schema s = {.name = op, SCHEMA_FIELDS(snapshot_fields)};
  *ret = (struct snapshot_args){0};
  return schema_parse(&s, "", args, ret, err);
}

void snapshot_args_free(struct snapshot_args *a)
{
  schema_free(&(struct schema){.name = "", SCHEMA_FIELDS(snapshot_fields)}, a);
}

static const struct field fork_fields[] = {
    {.name = "image",
     .type = &field_text,
     .offset = offsetof(struct fork_args, image),
     .flags = FIELD_REQUIRED,
     .max = 255,
     .ok = is_word,
     .must = IMAGE_MUST},
    {.name = "sandbox_id",
     .type = &field_text,
     .offset = offsetof(struct fork_args, sandbox_id),
     .flags = FIELD_REQUIRED,
     .max = 4096,
     .must = ID_MUST},
};
static const struct schema fork_schema = {.name = "sandbox.fork", SCHEMA_FIELDS(fork_fields)};

int fork_args_parse(const struct val *args, struct fork_args *ret, struct err *err)
{
  *ret = (struct fork_args){0};
  return schema_parse(&fork_schema, "", args, ret, err);
}

int forget_args_parse(const struct val *args, struct fork_args *ret, struct err *err)
{
  const struct schema s = {.name = "sandbox.forget", .fields = fork_fields, .n = 1};
  *ret = (struct fork_args){0};
  return schema_parse(&s, "", args, ret, err);
}

void fork_args_free(struct fork_args *a)
{
  schema_free(&fork_schema, a);
}

static const struct field price_fields[] = {
    {.name = "engine",
     .type = &field_text,
     .offset = offsetof(struct price_args, engine),
     .max = 31,
     .ok = is_label,
     .must = "the name of an engine"},
    {.name = "gpu", .type = &type_gpu, .offset = offsetof(struct price_args, gpu)},
    {.name = "timeout",
     .type = &field_seconds,
     .offset = offsetof(struct price_args, timeout_s),
     .min = 1,
     .max = DAY_S,
     .fallback = "300"},
};
static const struct schema price_schema = {.name = "sandbox.price", SCHEMA_FIELDS(price_fields)};

int price_args_parse(const struct val *args, struct price_args *ret, struct err *err)
{
  *ret = (struct price_args){0};
  return schema_parse(&price_schema, "", args, ret, err);
}

void price_args_free(struct price_args *a)
{
  schema_free(&price_schema, a);
}

static const struct field budget_fields[] = {
    {.name = "usd",
     .type = &field_microusd,
     .offset = offsetof(struct budget_args, microusd),
     .max = INT64_C(1000000) * 1000000},
    {.name = "seconds",
     .type = &field_millis,
     .offset = offsetof(struct budget_args, ms),
     .max = INT64_C(1000000000) * 1000},
    {.name = "sandboxes",
     .type = &field_u32,
     .offset = offsetof(struct budget_args, sandboxes),
     .max = 1000000000},
};
static const struct schema budget_schema = {.name = "budget", SCHEMA_FIELDS(budget_fields)};

static bool names(const struct val *args, const char *field)
{
  const struct val *v = val_get(args, field);
  return v && v->type != VAL_NIL;
}

int budget_args_parse(const struct val *args, struct budget_args *ret, struct err *err)
{
  *ret = (struct budget_args){.has_usd = names(args, "usd"),
                              .has_seconds = names(args, "seconds"),
                              .has_sandboxes = names(args, "sandboxes")};
  int rc = schema_parse(&budget_schema, "", args, ret, err);
  if (rc == 0 && !ret->has_usd && !ret->has_seconds && !ret->has_sandboxes)
    rc = err_arg(err, "limits", "budget needs at least one of usd, seconds and sandboxes");
  return rc;
}

static int body_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                      struct err *err)
{
  struct http_args *a = (struct http_args *)((char *)dst - f->offset);
  if (v->type != VAL_STR) return field_wrong(err, path, v, "a string");
  if ((int64_t)v->s.len > f->max)
    return err_arg(err, path, "%s has %zu bytes: %lld are the most", path, v->s.len,
                   (long long)f->max);
  free(a->body);
  a->body = xmemdup(v->s.p, v->s.len + 1);
  a->body_len = v->s.len;
  return 0;
}

static void body_release(void *dst)
{
  free(*(char **)dst);
  *(char **)dst = NULL;
}

static const struct field_type type_body = {body_parse, NULL, body_release};

static const struct field http_fields[] = {
    {.name = "url",
     .type = &field_text,
     .offset = offsetof(struct http_args, url),
     .flags = FIELD_REQUIRED,
     .max = 8192,
     .must = "a URL (\"https://api.example.com/\")"},
    {.name = "method",
     .type = &field_text,
     .offset = offsetof(struct http_args, method),
     .max = 64,
     .fallback = "GET"},
    {.name = "headers",
     .type = &type_map,
     .offset = offsetof(struct http_args, headers),
     .min = 16384,
     .max = 100,
     .ok = is_word,
     .must = "names of headers"},
    {.name = "body",
     .type = &type_body,
     .offset = offsetof(struct http_args, body),
     .max = INT64_C(16) << 20},
    {.name = "timeout",
     .type = &field_millis,
     .offset = offsetof(struct http_args, timeout_ms),
     .min = 1,
     .max = INT64_C(3600) * 1000,
     .fallback = "30"},
};
static const struct schema http_schema = {.name = "http.request", SCHEMA_FIELDS(http_fields)};

int http_args_parse(const struct val *args, struct http_args *ret, struct err *err)
{
  *ret = (struct http_args){0};
  return schema_parse(&http_schema, "", args, ret, err);
}

void http_args_free(struct http_args *a)
{
  schema_free(&http_schema, a);
}

int no_args_parse(const char *op, const struct val *args, struct err *err)
{
  const struct schema s = {.name = op};
  char nothing[1];
  return schema_parse(&s, "", args, nothing, err);
}

/* ---- outcomes ---- */

const char *reason_name(enum outcome_reason reason)
{
  static const char *const names[] = {"exited",       "signal",     "timeout",         "oom",
                                      "output_limit", "terminated", "sandbox_timeout", "cancelled",
                                      "unknown"};
  return names[reason];
}

const char *signal_name(int signal, char out[24])
{
  const char *abbrev = sigabbrev_np(signal);
  if (abbrev)
    snprintf(out, 24, "SIG%s", abbrev);
  else if (signal >= SIGRTMIN && signal <= SIGRTMAX)
    snprintf(out, 24, "SIGRTMIN+%d", signal - SIGRTMIN);
  else
    snprintf(out, 24, "%d", signal);
  return out;
}

void outcome_free(struct outcome *o)
{
  free(o->out);
  free(o->err);
  *o = (struct outcome){0};
}

static struct val take_output(char **p, size_t *len)
{
  struct val v = *p ? val_take_bytes(*p, *len) : val_bytes("", 0);
  *p = NULL;
  *len = 0;
  return v;
}

struct val outcome_print(struct outcome *o)
{
  char name[24];
  struct val r = val_map(), truncated = val_map(), usage = val_map();
  val_add(&r, "ok", val_bool(o->reason == REASON_EXITED && o->exit_code == 0));
  val_add(&r, "reason", val_str(reason_name(o->reason)));
  if (o->reason == REASON_EXITED) val_add(&r, "exit_code", val_int(o->exit_code));
  if (o->reason == REASON_SIGNAL && o->signal)
    val_add(&r, "signal", val_str(signal_name(o->signal, name)));
  val_add(&r, "stdout", take_output(&o->out, &o->out_len));
  val_add(&r, "stderr", take_output(&o->err, &o->err_len));
  val_add(&truncated, "stdout", val_bool(o->out_truncated));
  val_add(&truncated, "stderr", val_bool(o->err_truncated));
  val_add(&r, "truncated", truncated);
  val_add(&r, "stdout_bytes", val_int((int64_t)o->out_bytes));
  val_add(&r, "stderr_bytes", val_int((int64_t)o->err_bytes));
  val_add(&r, "duration_ms", val_int((int64_t)o->duration_ms));
  val_add(&usage, "cpu_ms", val_int((int64_t)o->cpu_ms));
  val_add(&usage, "max_rss_mib", val_int(o->max_rss_mib));
  val_add(&r, "usage", usage);
  return r;
}

/* Settings of images: which registries have mirrors, private authorities or plain http, and how
 * large the store may grow.
 *
 *   { "registries": { "docker.io": { "mirrors": ["https://mirror.example.org"] },
 *                     "127.0.0.1:5000": { "plain_http": true } },
 *     "max_size": "20GiB", "pull": "missing" }
 *
 * Unknown members are errors: a misspelt "ca" must not mean "trust the system's". */
#include "image/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/val.h"

#define FILE_MAX (1024 * 1024)

int image_size_parse(const char *text, uint64_t *ret, struct err *err)
{
  static const struct {
    const char *unit;
    int shift;
  } units[] = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
  char *end;
  errno = 0;
  unsigned long long n = strtoull(text, &end, 10);
  if (errno == 0 && end != text && text[0] != '-')
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
      if (strcmp(end, units[i].unit) == 0 && n <= UINT64_MAX >> units[i].shift) {
        *ret = (uint64_t)n << units[i].shift;
        return 0;
      }
  return err_arg(err, "max_size", "\"%.40s\" is no size: say bytes, \"500MiB\" or \"20GiB\"", text);
}

int image_policy_parse(const char *text, enum image_policy *ret, struct err *err)
{
  static const char *const names[] = {"missing", "always", "never"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(text, names[i]) == 0) {
      *ret = (enum image_policy)i;
      return 0;
    }
  return err_arg(err, "pull", "\"%.40s\" is not one of missing, always, never", text);
}

static int parse_mirrors(struct image_registry *r, const struct val *v, struct err *err)
{
  if (v->type != VAL_LIST) return err_arg(err, "mirrors", "mirrors is a list of URLs");
  for (size_t i = 0; i < v->list.n; i++) {
    const struct val *url = &v->list.v[i];
    if (url->type != VAL_STR ||
        (strncmp(url->s.p, "http://", 7) != 0 && strncmp(url->s.p, "https://", 8) != 0))
      return err_arg(err, "mirrors", "a mirror is a URL: https://HOST, or http://HOST for plain");
    image_strings_add(&r->mirrors, url->s.p);
  }
  return 0;
}

static int parse_registry(struct image_registry *r, const struct val *v, struct err *err)
{
  if (v->type != VAL_MAP) return err_arg(err, "registries", "a registry is an object");
  for (size_t i = 0; i < v->map.n; i++) {
    const char *key = v->map.v[i].key;
    const struct val *item = &v->map.v[i].val;
    int rc = 0;
    if (strcmp(key, "mirrors") == 0)
      rc = parse_mirrors(r, item, err);
    else if (strcmp(key, "plain_http") == 0 && item->type == VAL_BOOL)
      r->plain_http = item->b;
    else if (strcmp(key, "ca") == 0 && item->type == VAL_STR)
      r->ca = xstrdup(item->s.p);
    else
      rc = err_arg(err, key,
                   "registry \"%s\": \"%s\" is not one of mirrors (URLs), plain_http (true, "
                   "false), ca (a file)",
                   r->domain, key);
    if (rc < 0) return rc;
  }
  return 0;
}

static int parse_registries(struct image_settings *s, const struct val *v, struct err *err)
{
  if (v->type != VAL_MAP) return err_arg(err, "registries", "registries is an object");
  s->registries = xcalloc(v->map.n + 1, sizeof *s->registries);
  for (size_t i = 0; i < v->map.n; i++) {
    struct image_registry *r = &s->registries[s->registries_n++];
    r->domain = xstrdup(v->map.v[i].key);
    int rc = parse_registry(r, &v->map.v[i].val, err);
    if (rc < 0) return rc;
  }
  return 0;
}

static int parse_max_size(struct image_settings *s, const struct val *v, struct err *err)
{
  if (v->type == VAL_STR) return image_size_parse(v->s.p, &s->max_bytes, err);
  if (v->type != VAL_INT || v->i < 0)
    return err_arg(err, "max_size", "max_size is bytes, or a text as \"20GiB\"");
  s->max_bytes = (uint64_t)v->i;
  return 0;
}

static int parse_root(struct image_settings *s, const struct val *v, struct err *err)
{
  if (v->type != VAL_MAP) return err_arg(err, "", "the settings are one object");
  int rc = 0;
  for (size_t i = 0; rc == 0 && i < v->map.n; i++) {
    const char *key = v->map.v[i].key;
    if (strcmp(key, "registries") == 0)
      rc = parse_registries(s, &v->map.v[i].val, err);
    else if (strcmp(key, "max_size") == 0)
      rc = parse_max_size(s, &v->map.v[i].val, err);
    else if (strcmp(key, "pull") == 0 && v->map.v[i].val.type == VAL_STR)
      rc = image_policy_parse(v->map.v[i].val.s.p, &s->policy, err);
    else
      rc = err_arg(err, key, "\"%s\" is not one of registries, max_size, pull", key);
  }
  return rc;
}

int image_settings_parse(struct image_settings *ret, const char *text, size_t len, struct err *err)
{
  *ret = (struct image_settings){0};
  struct val v = {0};
  int rc = json_parse(&v, text, len, err);
  if (rc == 0) rc = parse_root(ret, &v, err);
  val_free(&v);
  if (rc < 0) image_settings_free(ret);
  return rc;
}

/* The file that counts, or "" when there is none. */
static void find_file(struct buf *out)
{
  const char *own = getenv("REGOLITH_IMAGES_JSON"), *config = getenv("XDG_CONFIG_HOME"),
             *home = getenv("HOME");
  if (own) {
    buf_puts(out, own);
    return;
  }
  if (config && config[0] == '/')
    buf_printf(out, "%s/regolith/images.json", config);
  else if (home && home[0] == '/')
    buf_printf(out, "%s/.config/regolith/images.json", home);
  if (out->len > 0 && access(out->data, F_OK) == 0) return;
  out->len = 0;
  buf_puts(out, "/etc/regolith/images.json");
  if (access(out->data, F_OK) < 0) buf_free(out);
}

static int load_file(struct image_settings *ret, struct err *err)
{
  struct buf path = {0}, text = {0};
  find_file(&path);
  if (path.len == 0) return 0;
  int rc = 0;
  cleanup_close int fd = open(path.data, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : 1;
  while (n > 0 && text.len < FILE_MAX) {
    buf_reserve(&text, 4096);
    n = read(fd, text.data + text.len, 4096);
    if (n > 0) text.len += (size_t)n;
  }
  if (n < 0)
    rc = err_set(err, ERR_INVALID_ARGUMENT, errno, "cannot read: %s", strerror(errno));
  else
    rc = image_settings_parse(ret, text.data, text.len, err);
  if (rc < 0) err_wrap(err, "%s", path.data);
  buf_free(&text);
  buf_free(&path);
  return rc;
}

int image_settings_load(struct image_settings *ret, struct err *err)
{
  *ret = (struct image_settings){0};
  const char *policy = getenv("REGOLITH_PULL");
  int rc = load_file(ret, err);
  if (rc < 0 || !policy) return rc;
  rc = image_policy_parse(policy, &ret->policy, err);
  if (rc < 0) {
    err_wrap(err, "REGOLITH_PULL");
    image_settings_free(ret);
  }
  return rc;
}

void image_settings_free(struct image_settings *s)
{
  for (size_t i = 0; i < s->registries_n; i++) {
    free(s->registries[i].domain);
    free(s->registries[i].ca);
    image_strings_free(&s->registries[i].mirrors);
  }
  free(s->registries);
  *s = (struct image_settings){0};
}

const struct image_registry *image_settings_find(const struct image_settings *s, const char *domain)
{
  for (size_t i = 0; i < s->registries_n; i++)
    if (strcmp(s->registries[i].domain, domain) == 0) return &s->registries[i];
  return NULL;
}

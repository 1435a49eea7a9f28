/* Grants: what they allow. Asked by the supervisor before a sandbox is made and by the host before
 * a request leaves; scripts never see them.
 *
 * Every refusal is `denied` and says in its hint which option would grant what was asked for. What
 * a create leaves open is lowered to the bounds instead of being refused: a script that does not
 * say how much memory it wants gets what there is for it. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/val.h"
#include "host/grants_internal.h"
#include "host/hostname.h"
#include "wire/destination.h"

/* ---- patterns ---- */

/* "*" is any run of bytes without a slash. */
static bool glob(const char *pattern, const char *text)
{
  const char *star = NULL, *tried = NULL;
  while (*text) {
    if (*pattern == '*') {
      star = pattern++;
      tried = text;
    } else if (*pattern == *text) {
      pattern++;
      text++;
    } else if (star && *tried != '/') {
      pattern = star + 1;
      text = ++tried;
    } else {
      return false;
    }
  }
  while (*pattern == '*') pattern++;
  return *pattern == '\0';
}

static bool matches_any(const struct strv *patterns, const char *text)
{
  for (size_t i = 0; i < patterns->n; i++)
    if (strcmp(patterns->v[i], "*") == 0 || glob(patterns->v[i], text)) return true;
  return false;
}

static bool has_text(const struct strv *list, const char *text)
{
  for (size_t i = 0; i < list->n; i++)
    if (strcmp(list->v[i], text) == 0) return true;
  return false;
}

static int denied(struct err *err, const char *field, const char *option, const char *value,
                  const char *what)
{
  int rc = err_set(err, ERR_DENIED, 0, "%s was not granted", what);
  if (err) snprintf(err->field, sizeof err->field, "%s", field);
  err_hint(err, "regolith run --%s %.150s grants it", option, value);
  return rc;
}

/* ---- sandboxes ---- */

static int check_engine(const struct grants *g, const struct create_args *a, struct err *err)
{
  char what[96];
  if (matches_any(&g->engines, a->engine)) return 0;
  snprintf(what, sizeof what, "engine = \"%.40s\"", a->engine);
  return denied(err, "engine", "allow-engine", a->engine, what);
}

static bool below_any(const struct strv *dirs, const char *path)
{
  cleanup_free char *real = realpath(path, NULL);
  for (size_t i = 0; real && i < dirs->n; i++) {
    size_t n = strlen(dirs->v[i]);
    if (n > 0 && dirs->v[i][n - 1] == '/') n--;
    if (strncmp(real, dirs->v[i], n) == 0 && (real[n] == '/' || real[n] == '\0')) return true;
  }
  return false;
}

static int check_image(const struct grants *g, const struct create_args *a, struct err *err)
{
  char what[256];
  bool dir = strncmp(a->image, "dir:", 4) == 0;
  if (a->image_made || (g->image && strcmp(g->image, a->image) == 0)) return 0;
  if (dir ? below_any(&g->dir_images, a->image + 4) : matches_any(&g->images, a->image)) return 0;
  snprintf(what, sizeof what, "image = \"%.200s\"", a->image);
  return dir ? denied(err, "image", "allow-dir-image", a->image + 4, what)
             : denied(err, "image", "allow-image", a->image, what);
}

int grants_admit_name(void *grants, const char *name, struct err *err)
{
  const struct grants *g = grants;
  char what[256];
  if (matches_any(&g->commits, name)) return 0;
  snprintf(what, sizeof what, "keeping an image as \"%.200s\"", name);
  return denied(err, "name", "allow-commit", name, what);
}

static bool covers(const char *grant, const char *item)
{
  struct destination have, want;
  return destination_parse(&have, grant) && destination_parse(&want, item) &&
         destination_covers(&have, &want);
}

static int check_network(const struct grants *g, const struct create_args *a, struct err *err)
{
  if (a->network == NETWORK_NONE || has_text(&g->networks, "open")) return 0;
  if (a->network == NETWORK_OPEN)
    return denied(err, "network", "allow-network", "open", "network = \"open\"");
  for (size_t i = 0; i < a->network_allow.n; i++) {
    const char *item = a->network_allow.v[i];
    char what[256];
    bool covered = false;
    for (size_t k = 0; k < g->networks.n && !covered; k++) covered = covers(g->networks.v[k], item);
    if (covered) continue;
    snprintf(what, sizeof what, "network access to \"%.180s\"", item);
    return denied(err, "network", "allow-network", item, what);
  }
  return 0;
}

/* A directory of the host: what was granted read-only is so where the script did not say. */
static int take_dir(struct volume_spec *v, const char *grant, const struct val *asked,
                    struct err *err)
{
  bool readonly = strncmp(grant, "ro:", 3) == 0;
  const struct val *said = asked ? val_get(asked, "readonly") : NULL;
  if (readonly && !v->readonly && said && said->type == VAL_BOOL) {
    char what[160];
    snprintf(what, sizeof what, "writing to the volume \"%.64s\"", v->source);
    int rc = denied(err, "volumes", "volume", v->source, what);
    err_hint(err, "it was granted with :ro; leave readonly out, or run with --volume %s=DIR",
             v->source);
    return rc;
  }
  if (readonly) v->readonly = true;
  free(v->path);
  v->path = xstrdup(grant + 3);
  return 0;
}

static int check_volumes(const struct grants *g, const struct val *asked, struct create_args *a,
                         struct err *err)
{
  const struct val *list = val_get(asked, "volumes");
  int rc = 0;
  for (size_t i = 0; i < a->volumes_n && rc == 0; i++) {
    struct volume_spec *v = &a->volumes[i];
    const char *dir = strv_map_get(&g->volume_dirs, v->source);
    bool in_list = list && list->type == VAL_LIST && i < list->list.n;
    if (dir) {
      rc = take_dir(v, dir, in_list ? &list->list.v[i] : NULL, err);
    } else if (!matches_any(&g->volumes, v->source)) {
      char what[128];
      snprintf(what, sizeof what, "the volume \"%.64s\"", v->source);
      rc = denied(err, "volumes", "allow-volume", v->source, what);
      err_hint(err,
               "regolith run --allow-volume %s grants it, --volume %s=DIR makes it a "
               "directory of this machine",
               v->source, v->source);
    }
  }
  return rc;
}

/* "A100" grants any number of them, "A100:2" up to two for one sandbox. */
static bool covers_gpu(const char *grant, const char *asked)
{
  const char *most = strrchr(grant, ':'), *want = strrchr(asked, ':');
  char kind[256], name[256];
  bool counted = most && most[1] >= '0' && most[1] <= '9';
  snprintf(kind, sizeof kind, "%.*s", counted ? (int)(most - grant) : 255, grant);
  snprintf(name, sizeof name, "%.*s", want ? (int)(want - asked) : 255, asked);
  for (char *p = kind; *p; p++) *p = (char)tolower((unsigned char)*p);
  for (char *p = name; *p; p++) *p = (char)tolower((unsigned char)*p);
  if (strcmp(kind, "*") != 0 && !glob(kind, name)) return false;
  return !counted || (want ? atoi(want + 1) : 1) <= atoi(most + 1);
}

/* Of a list in order of preference each one has to be granted. */
static int check_ports(const struct grants *g, const struct create_args *a, struct err *err)
{
  for (size_t i = 0; i < a->unencrypted_ports_n; i++) {
    char port[8], what[48];
    snprintf(port, sizeof port, "%u", a->unencrypted_ports[i]);
    if (matches_any(&g->ports, port)) continue;
    snprintf(what, sizeof what, "unencrypted_ports = { %s }", port);
    return denied(err, "unencrypted_ports", "allow-port", port, what);
  }
  return 0;
}

static int check_gpus(const struct grants *g, const struct create_args *a, struct err *err)
{
  for (size_t i = 0; i < a->gpu.n; i++) {
    char what[160];
    bool covered = false;
    for (size_t k = 0; k < g->gpus.n && !covered; k++)
      covered = covers_gpu(g->gpus.v[k], a->gpu.v[i]);
    if (covered) continue;
    snprintf(what, sizeof what, "gpu = \"%.100s\"", a->gpu.v[i]);
    return denied(err, "gpu", "allow-gpu", a->gpu.v[i], what);
  }
  return 0;
}

/* ---- sizes ---- */

static int check_size(const char *field, uint32_t max, double unit, const char *option,
                      const char *suffix, const struct val *asked, uint32_t *value, struct err *err)
{
  const struct val *said = val_get(asked, field);
  if (max == 0 || *value <= max) return 0;
  if (!said || said->type == VAL_NIL) {
    *value = max;
    return 0;
  }
  int rc = err_set(err, ERR_DENIED, 0, "%s = %.10g%s was not granted: at most %.10g%s", field,
                   *value / unit, suffix, max / unit, suffix);
  if (err) snprintf(err->field, sizeof err->field, "%s", field);
  err_hint(err, "a higher regolith run --%s grants it", option);
  return rc;
}

int grants_admit_create(void *grants, const struct val *asked, struct create_args *a,
                        struct err *err)
{
  const struct grants *g = grants;
  int rc = check_engine(g, a, err);
  if (rc == 0) rc = check_image(g, a, err);
  if (rc == 0) rc = check_network(g, a, err);
  if (rc == 0) rc = check_volumes(g, asked, a, err);
  if (rc == 0) rc = check_gpus(g, a, err);
  if (rc == 0) rc = check_ports(g, a, err);
  if (rc == 0)
    rc = check_size("cpu", g->max_cpu_milli, 1000, "max-cpu", "", asked, &a->cpu_milli, err);
  if (rc == 0)
    rc = check_size("memory", g->max_mem_mib, 1, "max-memory", " MiB", asked, &a->mem_mib, err);
  if (rc == 0)
    rc = check_size("disk", g->max_disk_mib, 1, "max-disk", " MiB", asked, &a->disk_mib, err);
  if (rc == 0)
    rc = check_size("timeout", g->max_timeout_s, 1, "max-timeout", " s", asked, &a->timeout_s, err);
  return rc;
}

/* ---- http.request ---- */

int grants_admit_http(const struct grants *g, const char *host, uint16_t port, struct err *err)
{
  char what[256];
  for (size_t i = 0; g && i < g->http.n; i++) {
    struct host_pattern p;
    if (host_pattern_parse(&p, g->http.v[i]) && host_pattern_matches(&p, host, port)) return 0;
  }
  snprintf(what, sizeof what, "http.request to %.200s", host);
  return denied(err, "url", "allow-http", host, what);
}

bool grants_admit_address(const struct grants *g, const struct sockaddr *addr, uint16_t port)
{
  if (address_is_public(addr)) return true;
  for (size_t i = 0; g && i < g->http.n; i++) {
    struct host_pattern p;
    if (host_pattern_parse(&p, g->http.v[i]) && (!p.port || p.port == port) &&
        host_pattern_is_address(&p, addr))
      return true;
  }
  return false;
}

const char *grants_secret(const struct grants *g, const char *host, uint16_t port)
{
  for (size_t i = 0; g && i < g->secrets.n; i++) {
    const char *token = strchr(g->secrets.v[i], '=') + 1;
    size_t len = (size_t)(token - 1 - g->secrets.v[i]);
    char name[260];
    struct host_pattern p;
    if (len >= sizeof name) continue;
    snprintf(name, sizeof name, "%.*s", (int)len, g->secrets.v[i]);
    if (host_pattern_parse(&p, name) && host_pattern_matches(&p, host, port)) return token;
  }
  return NULL;
}

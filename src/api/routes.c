/* Which request is whose: one table. The Compute API stands under two names; the second family is
 * that of the Modal schema. */
#include "api/api_internal.h"

#include <stdlib.h>
#include <string.h>

#include "net/http1.h"

#define SANDBOXES "/v1/sandboxes"

/* clang-format off */
#define COMPUTE(base)                                                                              \
  {"POST", base "/sandbox/create",    "/sandbox/create",    ROUTE_JSON | ROUTE_IDEM, call_create},  \
  {"POST", base "/sandbox/exec",      "/sandbox/exec",      ROUTE_JSON | ROUTE_IDEM, call_exec},    \
  {"POST", base "/sandbox/status",    "/sandbox/status",    ROUTE_JSON, call_status},               \
  {"POST", base "/sandbox/terminate", "/sandbox/terminate", ROUTE_JSON, call_terminate}

const struct route routes[] = {
    COMPUTE("/v1/marketplace/compute"),
    COMPUTE("/v1/modal"),
    {"GET",    SANDBOXES,               "/v1/sandboxes",               ROUTE_QUERY, call_list},
    {"POST",   SANDBOXES,               "/v1/sandboxes",               ROUTE_JSON | ROUTE_IDEM, call_create_modal},
    {"GET",    SANDBOXES "/*",          "/v1/sandboxes/{id}",          0, call_get_modal},
    {"DELETE", SANDBOXES "/*",          "/v1/sandboxes/{id}",          0, call_delete_modal},
    {"POST",   SANDBOXES "/*/snapshot", "/v1/sandboxes/{id}/snapshot", ROUTE_JSON, call_snapshot},
    {"GET",    SANDBOXES "/*/tunnels",  "/v1/sandboxes/{id}/tunnels",  0, call_tunnels},
    {"GET",    SANDBOXES "/*/execs",    "/v1/sandboxes/{id}/execs",    0, call_execs},
    {"GET",    "/v1/console",           "/v1/console",                 0, call_console},
    {"GET",    "/v1/costs",             "/v1/costs",                   ROUTE_QUERY, call_costs},
    {"GET",    "/healthz",              "/healthz",                    ROUTE_OPEN, call_healthz},
    {"GET",    "/readyz",               "/readyz",                     ROUTE_OPEN, call_readyz},
    {"GET",    "/metrics",              "/metrics",                    ROUTE_OPEN, call_metrics},
    {"GET",    "/openapi.json",         "/openapi.json",               ROUTE_OPEN, call_openapi},
    {"GET",    "/",                     "/",                           ROUTE_OPEN, call_page},
};
/* clang-format on */

size_t routes_count(void)
{
  return sizeof routes / sizeof *routes;
}

/* Does the path fit? *ret_at and *ret_len then say where "*" was. */
static bool fits(const char *pattern, const char *path, const char **ret_at, size_t *ret_len)
{
  *ret_at = NULL;
  while (*pattern) {
    if (*pattern != '*') {
      if (*pattern++ != *path++) return false;
      continue;
    }
    pattern++;
    *ret_at = path;
    *ret_len = strcspn(path, "/");
    path += *ret_len;
    if (*ret_len == 0) return false;
  }
  return *path == '\0';
}

const struct route *route_find(const char *method, const char *path, char **ret_segment,
                               struct buf *ret_allow)
{
  const char *asked = strcmp(method, "HEAD") == 0 ? "GET" : method, *at;
  size_t len;
  *ret_segment = NULL;
  for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
    const struct route *r = &routes[i];
    if (!fits(r->path, path, &at, &len)) continue;
    if (strcmp(r->method, asked) == 0) {
      ret_allow->len = 0;
      if (at && !(*ret_segment = http1_decode(at, len, false))) return NULL;
      return r;
    }
    buf_printf(ret_allow, "%s%s", ret_allow->len ? ", " : "", r->method);
  }
  return NULL;
}

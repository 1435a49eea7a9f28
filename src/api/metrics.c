/* /metrics, in the text format of Prometheus: requests by route, and what the process holds. No
 * name of a tenant, a sandbox or a key is in it. */
#include "api/api_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "sandbox/supervisor.h"

static const uint64_t bucket_us[METRICS_BUCKETS] = {
    100, 250, 500, 1000, 2500, 5000, 25000, 100000, 500000, 2500000, 10000000, 60000000};

static size_t index_of(const struct route *route)
{
  return route ? (size_t)(route - routes) : routes_count();
}

void metrics_count(struct api *api, const struct route *route, const struct httpd_record *record)
{
  struct counters *n = &api->counters[index_of(route)];
  n->by_class[record->status / 100 % 6]++;
  n->duration_us += record->duration_us;
  for (size_t i = 0; i < METRICS_BUCKETS; i++)
    if (record->duration_us <= bucket_us[i]) {
      n->buckets[i]++;
      break;
    }
}

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
  buf_printf(out, "# HELP regolith_%s %s\n# TYPE regolith_%s %s\n", name, help, name, type);
}

static void one(struct buf *out, const char *name, const char *type, const char *help, double value)
{
  head(out, name, type, help);
  buf_printf(out, "regolith_%s %.17g\n", name, value);
}

/* Aliases count as one. */
static void sum(const struct api *api, size_t at, struct counters *ret)
{
  *ret = (struct counters){0};
  const char *name = at < routes_count() ? routes[at].name : "";
  for (size_t i = 0; i <= routes_count(); i++) {
    const struct counters *n = &api->counters[i];
    bool same = at == i ||
                (at < routes_count() && i < routes_count() && strcmp(routes[i].name, name) == 0 &&
                 strcmp(routes[i].method, routes[at].method) == 0);
    if (!same) continue;
    ret->duration_us += n->duration_us;
    for (size_t k = 0; k < 6; k++) ret->by_class[k] += n->by_class[k];
    for (size_t k = 0; k < METRICS_BUCKETS; k++) ret->buckets[k] += n->buckets[k];
  }
}

static bool is_first(size_t at)
{
  for (size_t i = 0; i < at && at < routes_count(); i++)
    if (strcmp(routes[i].name, routes[at].name) == 0 &&
        strcmp(routes[i].method, routes[at].method) == 0)
      return false;
  return true;
}

static void labels(size_t at, char *out, size_t size)
{
  if (at < routes_count())
    snprintf(out, size, "method=\"%s\",route=\"%s\"", routes[at].method, routes[at].name);
  else
    snprintf(out, size, "method=\"\",route=\"\"");
}

static void print_requests(const struct api *api, struct buf *out)
{
  struct counters n;
  char who[96];
  head(out, "http_requests_total", "counter", "Requests answered, by route and class of status.");
  for (size_t i = 0; i <= routes_count(); i++) {
    if (!is_first(i)) continue;
    sum(api, i, &n);
    labels(i, who, sizeof who);
    for (size_t k = 1; k < 6; k++)
      if (n.by_class[k])
        buf_printf(out, "regolith_http_requests_total{%s,status=\"%zuxx\"} %llu\n", who, k,
                   (unsigned long long)n.by_class[k]);
  }
  head(out, "http_request_duration_seconds", "histogram",
       "From a request's head to the last byte of its answer.");
  for (size_t i = 0; i <= routes_count(); i++) {
    if (!is_first(i)) continue;
    sum(api, i, &n);
    labels(i, who, sizeof who);
    unsigned long long total = 0, below = 0;
    for (size_t k = 0; k < 6; k++) total += n.by_class[k];
    if (total == 0) continue;
    for (size_t k = 0; k < METRICS_BUCKETS; k++) {
      below += n.buckets[k];
      buf_printf(out, "regolith_http_request_duration_seconds_bucket{%s,le=\"%g\"} %llu\n", who,
                 (double)bucket_us[k] / 1e6, below);
    }
    buf_printf(out, "regolith_http_request_duration_seconds_bucket{%s,le=\"+Inf\"} %llu\n", who,
               total);
    buf_printf(out, "regolith_http_request_duration_seconds_sum{%s} %.6f\n", who,
               (double)n.duration_us / 1e6);
    buf_printf(out, "regolith_http_request_duration_seconds_count{%s} %llu\n", who, total);
  }
}

static void print_server(const struct api *api, struct buf *out)
{
  struct httpd_stats s;
  httpd_stats(api->httpd, &s);
  one(out, "http_connections", "gauge", "Connections open now.", (double)s.connections);
  one(out, "http_requests_in_flight", "gauge", "Requests being read or answered now.",
      (double)s.exchanges);
  one(out, "http_held_bytes", "gauge", "Bodies and answers held in memory.", (double)s.held);
  one(out, "http_connections_total", "counter", "Connections accepted.", (double)s.accepted);
  one(out, "http_faults_total", "counter", "Requests that were not HTTP, or broke a limit.",
      (double)s.faults);
  one(out, "http_evicted_total", "counter", "Connections closed to make room.", (double)s.evicted);
}

static void print_sandboxes(const struct api *api, struct buf *out)
{
  struct supervisor_stats s;
  if (!api->conf.sup) return;
  supervisor_stats(api->conf.sup, &s);
  one(out, "sandboxes", "gauge", "Sandboxes alive now.", (double)s.live);
  one(out, "execs", "gauge", "Commands running now.", (double)s.execs);
  one(out, "output_held_bytes", "gauge", "Output of running commands held in memory.",
      (double)s.captured);
  one(out, "sandboxes_created_total", "counter", "Sandboxes created.", (double)s.created);
  one(out, "sandboxes_ended_total", "counter", "Sandboxes ended.", (double)s.ended);
}

static void print_process(const struct api *api, struct buf *out)
{
  struct timespec cpu;
  long pages = 0;
  FILE *f = fopen("/proc/self/statm", "re");
  if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
  if (f) fclose(f);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  one(out, "process_cpu_seconds_total", "counter", "Processor time of this process.",
      (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
  one(out, "process_resident_bytes", "gauge", "Memory of this process.",
      (double)pages * (double)sysconf(_SC_PAGESIZE));
  one(out, "uptime_seconds", "gauge", "Since this server started.",
      (double)(clock_mono_ms() - api->started_ms) / 1e3);
}

void call_metrics(struct call *c)
{
  struct api *api = c->api;
  struct buf out = {0};
  print_server(api, &out);
  print_requests(api, &out);
  print_sandboxes(api, &out);
  print_process(api, &out);
  if (api->conf.metrics) api->conf.metrics(api->conf.data, &out);
  call_answer(c, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}

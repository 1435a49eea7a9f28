/* The access log: one line of JSON per request, without keys, bodies or queries.
 *
 * Lines are gathered and written once in FLUSH_MS, or when FLUSH_BYTES are there: a write per
 * request would cost as much as the request. A log that cannot be written is said once, and the
 * requests go on. */
#include "api/api_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

#define FLUSH_MS    200
#define FLUSH_BYTES (64u << 10)

void access_flush(struct api *api)
{
  size_t at = 0;
  timer_stop(api->loop, &api->log_timer);
  while (at < api->log.len) {
    ssize_t n = write(api->conf.access_log, api->log.data + at, api->log.len - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      static bool said;
      if (!said) log_error("cannot write the access log: %s", strerror(errno));
      said = true;
      break;
    }
    at += (size_t)n;
  }
  api->log.len = 0;
}

void access_log(struct api *api, const struct call *c, struct httpd_exchange *x,
                const struct httpd_record *record)
{
  char text[64];
  if (api->conf.access_log < 0) return;
  struct val v = val_map();
  clock_format_iso(clock_wall_s(), text);
  val_add(&v, "time", val_str(text));
  httpd_peer(x, text, sizeof text);
  val_add(&v, "peer", val_str(text));
  val_add(&v, "method", val_str(httpd_method(x)));
  val_add(&v, "path", val_str(httpd_path(x)));
  val_add(&v, "status", val_int(record->status));
  val_add(&v, "received", val_int((int64_t)record->received));
  val_add(&v, "sent", val_int((int64_t)record->sent));
  val_add(&v, "duration_us", val_int((int64_t)record->duration_us));
  if (c && c->has_account) val_add(&v, "key", val_str(c->account.name));
  if (c && c->sandbox_id[0]) val_add(&v, "sandbox_id", val_str(c->sandbox_id));
  json_print(&api->log, &v);
  buf_putc(&api->log, '\n');
  val_free(&v);
  if (api->log.len >= FLUSH_BYTES)
    access_flush(api);
  else if (!timer_running(&api->log_timer))
    timer_start(api->loop, &api->log_timer, FLUSH_MS);
}

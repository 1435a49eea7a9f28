/* The HTTP server: listeners, limits, and the end.
 *
 * Owns its listeners and, through httpd_conn.c, every connection. Why not a library: what hostile
 * clients do has to be answered in one shape (JSON), a client that hangs up has to be noticed while
 * its command runs, and memory has to stay flat under thousands of slow ones; docs/server.md says
 * which libraries were looked at. Invariants: past max_connections the connection that has been
 * without a request for the longest is closed for the new one, and when all are at work new ones
 * wait in the kernel's queue; bodies and waiting answers together stay below max_held, or the
 * slowest reader is cut.
 *
 * open → (draining) → closing → freed */
#include "net/httpd_internal.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define BACKLOG 4096

static void on_drained(struct defer *d)
{
  struct httpd *h = d->data;
  void (*done)(void *) = h->on_drained;
  h->on_drained = NULL;
  if (done) done(h->on_drained_data);
}

static void on_closed(struct defer *d)
{
  struct httpd *h = d->data;
  void (*done)(void *) = h->on_closed;
  void *data = h->on_closed_data;
  loop_defer_cancel(h->loop, &h->drained);
  if (h->tls) h->tls->server_free(h->tls_server);
  buf_free(&h->head);
  buf_free(&h->plain);
  buf_free(&h->wire);
  free((char *)(uintptr_t)h->conf.tls_cert);
  free((char *)(uintptr_t)h->conf.tls_key);
  free(h);
  if (done) done(data);
}

static void fill_in(struct httpd_conf *c)
{
  if (!c->max_connections) c->max_connections = 1024;
  if (!c->max_body) c->max_body = 10u << 20;
  if (!c->max_held) c->max_held = 256u << 20;
  if (!c->head_ms) c->head_ms = 15 * 1000;
  if (!c->idle_ms) c->idle_ms = 75 * 1000;
  if (!c->stall_ms) c->stall_ms = 20 * 1000;
  if (!c->body_ms) c->body_ms = 300 * 1000;
}

static int open_tls(struct httpd *h, struct err *err)
{
  const struct part_head *head;
  int rc = part_open("tls", sizeof(struct tls_part), &head, err);
  if (rc < 0) return rc;
  h->tls = (const struct tls_part *)head;
  return h->tls->server_new(&h->tls_server, h->conf.tls_cert, h->conf.tls_key, err);
}

int httpd_new(struct httpd **ret, const struct httpd_conf *conf, struct err *err)
{
  struct httpd *h = xcalloc(1, sizeof *h);
  h->conf = *conf;
  h->loop = conf->loop;
  fill_in(&h->conf);
  h->conf.tls_cert = conf->tls_cert ? xstrdup(conf->tls_cert) : NULL;
  h->conf.tls_key = conf->tls_key ? xstrdup(conf->tls_key) : NULL;
  list_init(&h->listeners);
  list_init(&h->conns);
  list_init(&h->idle);
  list_init(&h->flushing);
  h->drained = (struct defer){.cb = on_drained, .data = h};
  h->closed = (struct defer){.cb = on_closed, .data = h};
  int rc = h->conf.tls_cert ? open_tls(h, err) : 0;
  if (rc < 0) {
    on_closed(&h->closed);
    return rc;
  }
  *ret = h;
  return 0;
}

int httpd_reload(struct httpd *h, struct err *err)
{
  struct tls_server *server;
  if (!h->tls_server) return 0;
  int rc = h->tls->server_new(&server, h->conf.tls_cert, h->conf.tls_key, err);
  if (rc < 0) return rc;
  h->tls->server_free(h->tls_server);
  h->tls_server = server;
  return 0;
}

void httpd_stats(const struct httpd *h, struct httpd_stats *ret_stats)
{
  *ret_stats = h->stats;
}

/* ---- listening ---- */

static void check_ended(struct httpd *h)
{
  if (h->draining && list_empty(&h->listeners) && h->stats.connections == 0 && h->on_drained)
    loop_defer(h->loop, &h->drained);
  if (h->closing && h->handles == 0) loop_defer(h->loop, &h->closed);
}

static void on_listener_closed(uv_handle_t *handle)
{
  struct listener *l = (struct listener *)handle;
  struct httpd *h = l->h;
  free(l);
  h->handles--;
  check_ended(h);
}

static void close_listener(struct listener *l)
{
  list_remove(&l->node);
  uv_close((uv_handle_t *)&l->tcp, on_listener_closed);
}

/* Room for one more, made by closing whichever has been idle for the longest. */
static bool make_room(struct httpd *h)
{
  if (h->stats.connections < h->conf.max_connections) return true;
  if (list_empty(&h->idle)) return false;
  h->stats.evicted++;
  conn_close(list_entry(h->idle.next, struct conn, idle_node));
  return true;
}

static void on_connection(uv_stream_t *stream, int status)
{
  struct listener *l = (struct listener *)stream;
  if (status < 0) {
    log_warn("cannot accept a connection: %s", uv_strerror(status));
    return;
  }
  l->waiting = !make_room(l->h);
  if (!l->waiting) conn_open(l->h, l);
}

/* libuv asks a listener for nothing more until what it has is accepted. */
void httpd_conn_gone(struct httpd *h)
{
  h->handles--;
  LIST_FOREACH_SAFE (it, &h->listeners) {
    struct listener *l = list_entry(it, struct listener, node);
    if (!l->waiting || !make_room(h)) continue;
    l->waiting = false;
    conn_open(h, l);
  }
  check_ended(h);
}

static int bad_address(const char *address, const char *why, struct err *err)
{
  int rc = err_arg(err, "listen", "cannot listen on \"%s\": %s", address, why);
  err_hint(err, "write 127.0.0.1:8080, [::1]:8080, or :8080 for every address");
  return rc;
}

static int resolve(const char *address, struct addrinfo **ret, struct err *err)
{
  char host[256] = "";
  const char *colon = strrchr(address, ':');
  size_t len = colon ? (size_t)(colon - address) : 0;
  if (!colon || !colon[1] || len >= sizeof host) return bad_address(address, "no port", err);
  if (strspn(colon + 1, "0123456789") != strlen(colon + 1) || strtoul(colon + 1, NULL, 10) > 65535)
    return bad_address(address, "a port is a number up to 65535", err);
  bool v6 = len >= 2 && address[0] == '[' && address[len - 1] == ']';
  memcpy(host, address + v6, len - 2 * v6);
  host[len - 2 * v6] = '\0';
  if (!v6 && strchr(host, ':')) return bad_address(address, "an IPv6 address goes in [ ]", err);
  struct addrinfo want = {
      .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
  int rc = getaddrinfo(*host ? host : NULL, colon + 1, &want, ret);
  return rc == 0 ? 0 : bad_address(address, gai_strerror(rc), err);
}

static unsigned port_of(const struct listener *l)
{
  struct sockaddr_storage addr;
  int len = sizeof addr;
  if (uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&addr, &len) < 0) return 0;
  return ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                          : ((struct sockaddr_in *)&addr)->sin_port);
}

int httpd_listen(struct httpd *h, const char *address, unsigned *ret_port, struct err *err)
{
  struct addrinfo *found = NULL;
  int rc = resolve(address, &found, err);
  if (rc < 0) return rc;
  struct listener *l = xcalloc(1, sizeof *l);
  l->h = h;
  uv_tcp_init(loop_uv(h->loop), &l->tcp);
  h->handles++;
  list_append(&h->listeners, &l->node);
  rc = uv_tcp_bind(&l->tcp, found->ai_addr, 0);
  freeaddrinfo(found);
  if (rc == 0) rc = uv_tcp_nodelay(&l->tcp, 1); /* connections inherit it */
  if (rc == 0) rc = uv_listen((uv_stream_t *)&l->tcp, BACKLOG, on_connection);
  if (rc < 0) {
    close_listener(l);
    return err_set(err, ERR_INVALID_ARGUMENT, -rc, "cannot listen on \"%s\": %s", address,
                   uv_strerror(rc));
  }
  if (ret_port) *ret_port = port_of(l);
  return 0;
}

/* ---- the end ---- */

static void close_listeners(struct httpd *h)
{
  while (!list_empty(&h->listeners))
    close_listener(list_entry(h->listeners.next, struct listener, node));
}

void httpd_drain(struct httpd *h, void (*on_drained_fn)(void *data), void *data)
{
  h->draining = true;
  h->on_drained = on_drained_fn;
  h->on_drained_data = data;
  close_listeners(h);
  LIST_FOREACH_SAFE (it, &h->conns) conn_drain(list_entry(it, struct conn, node));
  check_ended(h);
}

void httpd_close(struct httpd *h, void (*done)(void *data), void *data)
{
  if (!h) return;
  h->closing = h->draining = true;
  h->on_drained = NULL;
  h->on_closed = done;
  h->on_closed_data = data;
  close_listeners(h);
  while (!list_empty(&h->conns)) conn_cut(list_entry(h->conns.next, struct conn, node));
  check_ended(h);
}

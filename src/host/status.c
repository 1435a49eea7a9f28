/* The status socket: one question, one answer (see status.h).
 *
 * The server owns the listening socket and the few channels that are still being written to; a
 * client that does not read is closed after a second. What a client sends is ignored. The kernel's
 * word (SO_PEERCRED) says who asks; sandboxes have a network namespace of their own, where this
 * name does not exist. */
#include "host/status.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/list.h"
#include "core/channel.h"
#include "core/loop.h"

enum { MAX_CLIENTS = 16, CLIENT_MS = 1000, HEADER = 4, MAX_ANSWER = 64 << 20 };

struct client {
  struct status_server *server;
  struct list node; /* server->clients */
  struct channel *channel;
  struct timer timer;
};

struct status_server {
  struct loop *loop;
  int fd; /* owned */
  uv_poll_t poll;
  struct list clients; /* struct client.node */
  size_t clients_n;
  struct val (*snapshot)(void *data);
  void *data;
  void (*closed)(void *data);
  void *closed_data;
  bool closing, poll_closed;
};

static socklen_t make_address(struct sockaddr_un *a, uid_t uid, pid_t pid)
{
  *a = (struct sockaddr_un){.sun_family = AF_UNIX};
  int n = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "regolith/%u/%d", uid, pid);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static void maybe_closed(struct status_server *s)
{
  if (!s->poll_closed || s->clients_n > 0) return;
  void (*closed)(void *) = s->closed;
  void *data = s->closed_data;
  close(s->fd);
  free(s);
  if (closed) closed(data);
}

static void on_client_closed(void *data)
{
  struct client *c = data;
  struct status_server *s = c->server;
  s->clients_n--;
  free(c);
  if (s->closing) maybe_closed(s);
}

static void drop(struct client *c)
{
  if (!c->channel) return;
  struct channel *channel = c->channel;
  c->channel = NULL;
  list_remove(&c->node);
  timer_stop(c->server->loop, &c->timer);
  channel_close(channel, on_client_closed, c);
}

static void on_timer(struct timer *t)
{
  drop(t->data);
}

static void on_frame(void *data, const char *bytes, size_t len)
{
  (void)data, (void)bytes, (void)len;
}

static void on_end(void *data, const struct err *err)
{
  (void)err;
  drop(data);
}

static void on_drain(void *data)
{
  drop(data);
}

static const struct channel_events client_events = {
    .on_frame = on_frame, .on_end = on_end, .on_drain = on_drain};

static bool may_ask(int fd)
{
  struct ucred who;
  socklen_t len = sizeof who;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0) return false;
  return who.uid == geteuid() || who.uid == 0;
}

static void answer(struct status_server *s, int fd)
{
  struct client *c = xcalloc(1, sizeof *c);
  *c = (struct client){.server = s, .timer = {.cb = on_timer, .data = c}};
  if (channel_new(&c->channel, s->loop, fd, HEADER, &client_events, c, NULL) < 0) {
    free(c);
    return;
  }
  list_append(&s->clients, &c->node);
  s->clients_n++;
  timer_start(s->loop, &c->timer, CLIENT_MS);
  struct val v = s->snapshot(s->data);
  struct buf text = {0};
  json_print(&text, &v);
  channel_send(c->channel, text.data, text.len);
  if (channel_backlog(c->channel) == 0) drop(c);
  buf_free(&text);
  val_free(&v);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
  struct status_server *s = poll->data;
  (void)status, (void)events;
  int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  if (may_ask(fd) && s->clients_n < MAX_CLIENTS)
    answer(s, fd);
  else
    close(fd);
}

int status_serve(struct status_server **ret, struct loop *loop, struct val (*snapshot)(void *),
                 void *data, struct err *err)
{
  struct sockaddr_un address;
  socklen_t len = make_address(&address, geteuid(), getpid());
  cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 4) < 0)
    return err_set(err, ERR_INTERNAL, errno, "cannot listen for regolith ps: %s", strerror(errno));
  struct status_server *s = xcalloc(1, sizeof *s);
  *s = (struct status_server){.loop = loop, .fd = take_fd(&fd), .snapshot = snapshot, .data = data};
  list_init(&s->clients);
  uv_poll_init(loop_uv(loop), &s->poll, s->fd);
  s->poll.data = s;
  uv_poll_start(&s->poll, UV_READABLE, on_poll);
  uv_unref((uv_handle_t *)&s->poll);
  *ret = s;
  return 0;
}

static void on_poll_closed(uv_handle_t *handle)
{
  struct status_server *s = handle->data;
  s->poll_closed = true;
  maybe_closed(s);
}

void status_close(struct status_server *s, void (*closed)(void *data), void *data)
{
  if (!s || s->closing) return;
  s->closing = true;
  s->closed = closed;
  s->closed_data = data;
  LIST_FOREACH_SAFE (node, &s->clients) drop(list_entry(node, struct client, node));
  uv_close((uv_handle_t *)&s->poll, on_poll_closed);
}

/* ---- asking ---- */

static bool read_all(int fd, char *into, size_t len)
{
  for (size_t at = 0; at < len;) {
    ssize_t n = recv(fd, into + at, len - at, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += (size_t)n;
  }
  return true;
}

static bool ask(uid_t uid, pid_t pid, struct val *ret)
{
  struct sockaddr_un address;
  socklen_t len = make_address(&address, uid, pid);
  cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct timeval patience = {.tv_sec = CLIENT_MS / 1000};
  unsigned char head[HEADER];
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
    return false;
  if (connect(fd, (struct sockaddr *)&address, len) < 0) return false;
  if (!read_all(fd, (char *)head, HEADER)) return false;
  size_t size = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
  if (size > MAX_ANSWER) return false;
  cleanup_free char *text = xmalloc(size + 1);
  return read_all(fd, text, size) && json_parse(ret, text, size, NULL) == 0;
}

int status_ask_all(void (*on_answer)(void *data, pid_t pid, const struct val *snapshot), void *data,
                   struct err *err)
{
  FILE *f = fopen("/proc/net/unix", "re");
  if (!f)
    return err_set(err, ERR_INTERNAL, errno, "cannot read /proc/net/unix: %s", strerror(errno));
  char line[512];
  while (fgets(line, sizeof line, f)) {
    unsigned uid;
    int pid;
    const char *name = strstr(line, " @regolith/");
    if (!name || sscanf(name, " @regolith/%u/%d", &uid, &pid) != 2) continue;
    if (!strstr(line, " 00010000 ")) continue; /* listening; answers under way carry the name too */
    if (uid != geteuid() && geteuid() != 0) continue;
    struct val v;
    if (!ask(uid, pid, &v)) continue;
    on_answer(data, pid, &v);
    val_free(&v);
  }
  fclose(f);
  return 0;
}

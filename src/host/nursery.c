/* The host's side of the nursery: asks for workers, and hears how each ended.
 *
 * Owns the socket to the helper process and the table of children by token. The helper is forked
 * while this process is small; if it dies, its workers die with it (the kernel sees to that), their
 * exits are reported from here, and the next worker starts a new helper.
 *
 * forked → open → (lost → open again) → closing → closed */
#include "host/nursery.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/idmap.h"
#include "base/list.h"
#include "core/helper.h"
#include "core/loop.h"
#include "host/nursery_internal.h"

static const char helper_name[] = "nursery";
static struct helper prefork = {.fd = -1}; /* forked, and not yet opened */

struct nursery {
  struct loop *loop;
  struct helper helper;  /* fd -1: lost */
  uv_poll_t *poll;       /* owned; NULL: lost */
  struct idmap children; /* token → struct nursery_child, whose exit is still to come */
  struct list unsent;    /* struct request.node: the socket was full */
  uint64_t next_token;
  bool closing;
  void (*closed)(void *data);
  void *closed_data;
};

struct request {
  struct list node; /* nursery.unsent */
  struct nursery_message message;
  int fd; /* owned; -1 = none */
};

int nursery_prefork(struct err *err)
{
  helper_enter(helper_name, nursery_process_main);
  return helper_fork(helper_name, nursery_process_main, &prefork, err);
}

static int send_now(const struct nursery *n, const struct request *r)
{
  struct iovec iov = {(void *)(uintptr_t)&r->message, sizeof r->message};
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
  if (r->fd >= 0) {
    msg.msg_control = &control;
    msg.msg_controllen = sizeof control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    *c = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &r->fd, sizeof r->fd);
  }
  ssize_t sent;
  while ((sent = sendmsg(n->helper.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0 && errno == EINTR) {}
  return sent < 0 ? -errno : 0;
}

static void free_request(struct request *r)
{
  list_remove(&r->node);
  if (r->fd >= 0) close(r->fd);
  free(r);
}

static void drop_unsent(struct nursery *n)
{
  LIST_FOREACH_SAFE (node, &n->unsent) free_request(list_entry(node, struct request, node));
}

static void on_poll(uv_poll_t *poll, int status, int events);

/* In order, as far as the socket takes them; the rest when it is writable. A failure that is not
 * "full" means that the helper is gone, which reading reports. */
static void send_unsent(struct nursery *n)
{
  while (!list_empty(&n->unsent)) {
    struct request *r = list_entry(n->unsent.next, struct request, node);
    if (send_now(n, r) == -EAGAIN) break;
    free_request(r);
  }
  uv_poll_start(n->poll, UV_READABLE | (list_empty(&n->unsent) ? 0 : UV_WRITABLE), on_poll);
}

static void request(struct nursery *n, const struct nursery_message *m, int fd)
{
  struct request *r = xmalloc(sizeof *r);
  *r = (struct request){.message = *m, .fd = fd};
  list_append(&n->unsent, &r->node);
  if (n->unsent.next == &r->node) send_unsent(n);
}

static void free_poll(uv_handle_t *handle)
{
  free(handle);
}

static void finish_closing(uv_handle_t *handle)
{
  struct nursery *n = handle->data;
  void (*closed)(void *) = n->closed;
  void *data = n->closed_data;
  idmap_free(&n->children);
  free(handle);
  free(n);
  if (closed) closed(data);
}

static void report_exit(struct nursery_child *child, const struct nursery_exit *how)
{
  child->token = 0;
  child->on_exit(child, how);
}

/* The helper is gone, and with it every worker. */
static void lose(struct nursery *n)
{
  drop_unsent(n);
  uv_poll_stop(n->poll);
  uv_close((uv_handle_t *)n->poll, free_poll);
  n->poll = NULL;
  close(n->helper.fd);
  kill(n->helper.pid, SIGKILL);
  int status = 0;
  waitpid(n->helper.pid, &status, 0);
  n->helper.fd = -1;
  struct nursery_exit how = {.signal = SIGKILL};
  if (WIFEXITED(status) && WEXITSTATUS(status) == NURSERY_NO_WALLS)
    how = (struct nursery_exit){.code = NURSERY_NO_WALLS};
  size_t at = 0;
  for (struct nursery_child *c; (c = idmap_next(&n->children, &at)); at = 0) {
    idmap_remove(&n->children, c->token);
    report_exit(c, &how);
  }
}

static void take(struct nursery *n, const struct nursery_message *m)
{
  struct nursery_child *child = idmap_get(&n->children, m->token);
  if (!child) return;
  if (m->verb == NURSERY_STARTED) {
    child->on_start(child);
    return;
  }
  idmap_remove(&n->children, m->token);
  struct nursery_exit how = {.signal = m->signal,
                             .code = m->start_failed ? 125 : m->code,
                             .cpu_us = m->cpu_us,
                             .max_rss_kib = m->max_rss_kib};
  report_exit(child, &how);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
  struct nursery *n = poll->data;
  (void)status;
  if (events & UV_WRITABLE) send_unsent(n);
  for (int i = 0; i < 64 && n->poll == poll && !n->closing; i++) {
    struct nursery_message m;
    ssize_t got = recv(n->helper.fd, &m, sizeof m, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got != (ssize_t)sizeof m) {
      lose(n);
      return;
    }
    take(n, &m);
  }
}

static int watch(struct nursery *n, struct err *err)
{
  n->poll = xcalloc(1, sizeof *n->poll);
  int rc = uv_poll_init(loop_uv(n->loop), n->poll, n->helper.fd);
  if (rc < 0) {
    free(n->poll);
    n->poll = NULL;
    return err_set(err, ERR_INTERNAL, -rc, "cannot watch the nursery: %s", uv_strerror(rc));
  }
  n->poll->data = n;
  return uv_poll_start(n->poll, UV_READABLE, on_poll);
}

static int start_again(struct nursery *n, struct err *err)
{
  int rc = helper_respawn(helper_name, &n->helper, err);
  return rc < 0 ? rc : watch(n, err);
}

int nursery_open(struct nursery **ret, struct loop *loop, struct err *err)
{
  struct nursery *n = xcalloc(1, sizeof *n);
  *n = (struct nursery){.loop = loop, .helper = prefork, .next_token = 1};
  list_init(&n->unsent);
  prefork.fd = -1;
  int rc = n->helper.fd >= 0 ? watch(n, err) : start_again(n, err);
  if (rc < 0) {
    free(n);
    return rc;
  }
  *ret = n;
  return 0;
}

void nursery_close(struct nursery *n, void (*closed)(void *data), void *data)
{
  if (!n) return;
  n->closing = true;
  n->closed = closed;
  n->closed_data = data;
  drop_unsent(n);
  if (!n->poll) { /* nothing to wait for, but never call back from inside */
    n->poll = xcalloc(1, sizeof *n->poll);
    uv_idle_init(loop_uv(n->loop), (uv_idle_t *)n->poll);
    n->poll->data = n;
    uv_close((uv_handle_t *)n->poll, finish_closing);
    return;
  }
  uv_poll_stop(n->poll);
  close(n->helper.fd); /* end of file: the helper kills what is left and goes */
  waitpid(n->helper.pid, NULL, 0);
  uv_close((uv_handle_t *)n->poll, finish_closing);
}

int nursery_spawn(struct nursery *n, struct nursery_child *child, int fd, const char *name,
                  const struct nursery_limits *limits, struct err *err)
{
  int rc = n->poll ? 0 : start_again(n, err);
  struct nursery_message m = {.verb = NURSERY_SPAWN,
                              .token = n->next_token,
                              .mem_bytes = limits->mem_bytes,
                              .cpu_s = limits->cpu_s};
  snprintf(m.name, sizeof m.name, "%s", name);
  if (rc < 0) {
    close(fd);
    return rc;
  }
  request(n, &m, fd);
  child->nursery = n;
  child->token = n->next_token++;
  idmap_set(&n->children, child->token, child);
  return 0;
}

size_t nursery_population(const struct nursery *n)
{
  return n->children.n;
}

void nursery_kill(struct nursery_child *child)
{
  if (!child->token || !child->nursery->poll) return;
  struct nursery_message m = {.verb = NURSERY_KILL, .token = child->token};
  request(child->nursery, &m, -1);
}

/* A box as the host sees it: a record that the words of warden and agent move on.
 *
 *   creating ──READY──▶ running ──(warden: ENDED)──▶ dead ──(kill done)──▶ released
 *       └──CREATE_FAILED, FAILED, ENDED, a kill──────▶ dead ──────────────▶ released
 *
 * A box is dead when its last process is: the warden says so, or, when the warden is gone, the
 * agent's pidfd. Nothing else counts, least of all the end of the agent's socket, which only starts
 * the kill. A record is freed on a later turn than its last callback, so that callbacks may call
 * back into the engine. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "engine/local/local_internal.h"

#define AGENT_BATCH 64

/* --- release ---------------------------------------------------------------------------------- */

static void release_volumes(struct engine_box *b)
{
  while (b->volumes_n > 0) volume_release(&b->volumes[--b->volumes_n]);
  free(b->volumes);
  b->volumes = NULL;
}

static void free_box(struct engine_box *b)
{
  list_remove(&b->node);
  idmap_remove(&b->engine->boxes_by_id, b->id);
  release_volumes(b);
  gpu_release(&b->gpus);
  image_use_unref(b->image);
  strv_free(&b->env);
  free(b->cwd);
  free(b->user);
  free(b->dir);
  free(b);
}

static void run_kill_done(struct defer *d)
{
  struct kill_req *k = d->data;
  struct local *e = k->engine;
  struct kill_op *op = k->op;
  bool released = k->release != NULL;
  if (released) {
    free_box(k->release);
    kept_check(e);
  }
  free(k);
  if (op) op->on_done(op, NULL);
  if (released) local_box_gone(e);
}

void kill_done_later(struct local *e, struct kill_op *op, struct engine_box *release)
{
  struct kill_req *k = xcalloc(1, sizeof *k);
  *k = (struct kill_req){.op = op, .engine = e};
  if (release && !release->released) {
    release->released = true;
    k->release = release;
  }
  k->defer = (struct defer){.cb = run_kill_done, .data = k};
  list_init(&k->node);
  loop_defer(e->loop, &k->defer);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void close_sock(struct engine_box *b)
{
  if (b->sock < 0) return;
  watch_stop(b->engine->watcher, &b->sock_watch);
  close(b->sock);
  b->sock = -1;
  outq_drop(&b->out);
}

static void close_pidfd(struct engine_box *b)
{
  if (b->pidfd < 0) return;
  watch_stop(b->engine->watcher, &b->pidfd_watch);
  close(b->pidfd);
  b->pidfd = -1;
}

static void close_upper(struct engine_box *b)
{
  if (b->upper >= 0) close(b->upper);
  b->upper = -1;
}

static void fail_create(struct engine_box *b, enum box_end why)
{
  struct create_op *op = b->create;
  struct err err = b->create_err;
  b->create = NULL;
  if (b->kill_sent && err.kind == ERR_NONE)
    err_set(&err, ERR_CANCELLED, ECANCELED, "the sandbox was ended before it was ready");
  if (err.kind == ERR_NONE && why == BOX_END_OOM)
    err_set(&err, ERR_CAPACITY, ENOMEM, "the sandbox ran out of memory before it was ready");
  if (err.kind == ERR_NONE)
    err_set(&err, ERR_ENGINE_UNAVAILABLE, 0, "the sandbox ended before it was ready");
  op->on_done(op, &err);
}

static void read_agent(struct engine_box *b);

static void end_probe(struct engine_box *b, bool open)
{
  struct probe_op *op = b->probe;
  b->probe = NULL;
  if (op) op->on_done(op, open);
}

void box_finish(struct engine_box *b, enum box_end why)
{
  struct local *e = b->engine;
  if (b->state == BOX_DEAD) return;
  read_agent(b); /* what it said before it died */
  bool was_running = b->state == BOX_RUNNING;
  b->state = BOX_DEAD;
  close_sock(b);
  close_pidfd(b);
  close_upper(b);
  net_leave(b);
  ports_close(b);
  run_end_all(b, why == BOX_END_OOM);
  end_probe(b, false);
  bool failed = b->create != NULL;
  if (failed) fail_create(b, why);
  bool wanted = !list_empty(&b->kills) || b->kill_sent;
  while (!list_empty(&b->kills)) {
    struct kill_req *k = list_entry(b->kills.next, struct kill_req, node);
    list_remove(&k->node);
    kill_done_later(e, k->op, b);
    free(k);
  }
  if (was_running && !wanted && b->on_end) b->on_end(b->data, why);
  if (failed || e->closing) kill_done_later(e, NULL, b);
}

static void end_unplaced(struct defer *d)
{
  box_finish(d->data, BOX_END_LOST);
}

static void send_kill(struct engine_box *b)
{
  if (b->state == BOX_DEAD || b->kill_sent) return;
  b->kill_sent = true;
  if (b->finding) {
    gpus_cancel(&b->gpu_wait);
    b->unwanted = (struct defer){.cb = end_unplaced, .data = b};
    loop_defer(b->engine->loop, &b->unwanted);
    return;
  }
  if (b->resolving) {
    image_resolve_cancel(&b->resolve);
    return;
  }
  if (b->pidfd >= 0 && syscall(SYS_pidfd_send_signal, b->pidfd, SIGKILL, NULL, 0) == 0) return;
  struct proto_box msg = {.type = PROTO_KILL, .box = b->id};
  if (b->engine->warden.fd >= 0) local_tell_warden(b->engine, &msg, sizeof msg, -1, NULL);
}

/* The agent is not what it should be, or not there any more: what is left of the box must go. The
 * end that follows counts as one that nobody asked for. */
void box_lose(struct engine_box *b)
{
  bool asked = b->kill_sent;
  close_sock(b);
  send_kill(b);
  b->kill_sent = asked;
}

void box_end(struct engine_box *b)
{
  if (b->state == BOX_DEAD)
    kill_done_later(b->engine, NULL, b);
  else
    send_kill(b);
}

int box_kill(struct local *e, struct engine_box *b, struct kill_op *op, struct err *err)
{
  (void)err;
  if (b->state == BOX_DEAD) {
    kill_done_later(e, op, b);
    return 0;
  }
  struct kill_req *k = xcalloc(1, sizeof *k);
  k->op = op;
  list_append(&b->kills, &k->node);
  send_kill(b);
  return 0;
}

static void on_pidfd(struct watch *watch, uint32_t events)
{
  (void)events;
  box_finish(watch->data, BOX_END_LOST);
}

void box_on_warden_gone(struct engine_box *b)
{
  struct local *e = b->engine;
  if (b->state == BOX_DEAD || b->resolving || b->finding) return;
  if (b->create && b->create_err.kind == ERR_NONE && !b->kill_sent) b->create_err = e->warden_err;
  read_agent(b);
  close_sock(b);
  if (b->pidfd >= 0) {
    syscall(SYS_pidfd_send_signal, b->pidfd, SIGKILL, NULL, 0);
    b->pidfd_watch = (struct watch){.cb = on_pidfd, .data = b};
    if (watch_set(e->watcher, &b->pidfd_watch, b->pidfd, EPOLLIN) == 0) return;
  }
  box_finish(b, BOX_END_LOST);
}

/* --- the agent's words ------------------------------------------------------------------------ */

static void be_running(struct engine_box *b)
{
  struct create_op *op = b->create;
  b->state = BOX_RUNNING;
  b->create = NULL;
  op->ret_box = b;
  op->on_done(op, NULL);
}

static bool on_ready(struct engine_box *b, size_t len)
{
  if (len != sizeof(struct proto_ready) || b->state != BOX_CREATING || b->ready) return false;
  b->ready = true;
  if (b->kill_sent) return true; /* too late: its end is under way */
  if (!b->networked)
    be_running(b);
  else if (b->tap >= 0)
    net_enter(b);
  return true;
}

void box_on_net(struct engine_box *b, const struct err *err)
{
  if (b->state != BOX_CREATING || b->kill_sent) return;
  if (!err) {
    be_running(b);
    return;
  }
  b->create_err = *err;
  box_lose(b);
}

static bool on_failed(struct engine_box *b, const struct proto_failed *msg, size_t len)
{
  if (len != sizeof *msg || b->state != BOX_CREATING) return false;
  b->create_err = msg->err;
  if ((unsigned)msg->err.kind >= ERR_KIND_COUNT) b->create_err.kind = ERR_INTERNAL;
  b->create_err.msg[sizeof msg->err.msg - 1] = '\0';
  b->create_err.hint[sizeof msg->err.hint - 1] = '\0';
  b->create_err.field[0] = b->create_err.sandbox_id[0] = b->create_err.engine[0] = '\0';
  return true;
}

static bool on_probed(struct engine_box *b, const struct proto_probe *msg, size_t len)
{
  if (len != sizeof *msg || !b->probe) return false;
  end_probe(b, msg->open == 1);
  return true;
}

int box_probe(struct engine_box *b, struct probe_op *op, struct err *err)
{
  struct proto_probe msg = {.type = PROTO_PROBE, .port = op->port};
  struct proto_piece piece = {&msg, sizeof msg};
  if (b->state != BOX_RUNNING || b->kill_sent || b->sock < 0 || box_send(b, &piece, 1, NULL, 0) < 0)
    return err_set(err, ERR_SANDBOX_TERMINATED, ESRCH, "the sandbox has ended");
  b->probe = op;
  return 0;
}

static union {
  uint32_t type;
  struct proto_failed failed;
  struct proto_refused refused;
  struct proto_started started;
  struct proto_exited exited;
  struct proto_probe probe;
  struct proto_connect connect;
} from_agent;

/* Only a connection that was asked for comes with a descriptor. */
static bool dispatch(struct engine_box *b, size_t len, int fd)
{
  if (len < sizeof from_agent.type) return false;
  if (from_agent.type == PROTO_CONNECT && len == sizeof from_agent.connect)
    return ports_on_connected(b, &from_agent.connect, fd);
  if (fd >= 0) close(fd);
  if (fd >= 0) return false;
  switch (from_agent.type) {
  case PROTO_READY: return on_ready(b, len);
  case PROTO_FAILED: return on_failed(b, &from_agent.failed, len);
  case PROTO_REFUSED:
    return len == sizeof from_agent.refused && run_on_refused(b, &from_agent.refused);
  case PROTO_STARTED:
    return len == sizeof from_agent.started && run_on_started(b, &from_agent.started);
  case PROTO_EXITED: return len == sizeof from_agent.exited && run_on_exited(b, &from_agent.exited);
  case PROTO_PROBED: return on_probed(b, &from_agent.probe, len);
  default: return false;
  }
}

static void read_agent(struct engine_box *b)
{
  for (int i = 0; i < AGENT_BATCH && b->sock >= 0; i++) {
    int fds[PROTO_FDS_MAX];
    size_t fds_n = 0;
    ssize_t n = proto_recv(b->sock, &from_agent, sizeof from_agent, fds, &fds_n, false);
    if (n == -EAGAIN) return;
    for (size_t k = 1; k < fds_n; k++) close(fds[k]);
    int fd = fds_n > 0 ? fds[0] : -1;
    if (n <= 0 && fd >= 0) close(fd);
    if (n <= 0 || !dispatch(b, (size_t)n, fd)) box_lose(b);
  }
}

static void on_sock(struct watch *watch, uint32_t events)
{
  struct engine_box *b = watch->data;
  if (events & EPOLLOUT && outq_flush(&b->out, b->sock) == 0)
    watch_set(b->engine->watcher, watch, b->sock, EPOLLIN);
  if (events & ~(uint32_t)EPOLLOUT) read_agent(b);
}

int box_send(struct engine_box *b, const struct proto_piece *pieces, size_t n, const int *fds,
             size_t fds_n)
{
  int rc = outq_send(&b->out, b->sock, pieces, n, fds, fds_n);
  if (rc == 1) rc = watch_set(b->engine->watcher, &b->sock_watch, b->sock, EPOLLIN | EPOLLOUT);
  return rc;
}

/* --- the warden's words ----------------------------------------------------------------------- */

static void on_created(struct engine_box *b, const struct proto_created *msg, const int *fds,
                       size_t fds_n)
{
  size_t n = 0;
  b->pidfd = n < fds_n ? fds[n++] : -1;
  b->upper = msg->has_upper && n < fds_n ? fds[n++] : -1;
  b->tap = msg->has_tap && n < fds_n ? fds[n++] : -1;
  b->first = msg->first;
  b->rest = msg->rest;
  if (b->ready && b->tap >= 0 && b->state == BOX_CREATING && !b->kill_sent) net_enter(b);
}

void box_on_warden_message(struct local *e, const struct proto_box *msg, const void *full,
                           const int *fds, size_t fds_n)
{
  const struct proto_failed *failed = full;
  struct engine_box *b = idmap_get(&e->boxes_by_id, msg->box);
  if (b && b->state != BOX_DEAD && msg->type == PROTO_CREATED) {
    on_created(b, full, fds, fds_n);
    return;
  }
  for (size_t i = 0; i < fds_n; i++) close(fds[i]);
  if (!b) return;
  if (msg->type == PROTO_CREATE_FAILED && b->create_err.kind == ERR_NONE && !b->kill_sent)
    b->create_err = failed->err;
  if (msg->type == PROTO_CREATE_FAILED || msg->type == PROTO_ENDED)
    box_finish(b, msg->type == PROTO_ENDED && msg->oom ? BOX_END_OOM : BOX_END_LOST);
}

/* --- creation --------------------------------------------------------------------------------- */

static int unsupported(struct err *err, const char *field, const char *what)
{
  err_set(err, ERR_UNSUPPORTED, ENOTSUP, "the local engine has no %s", what);
  if (err) snprintf(err->field, sizeof err->field, "%s", field);
  return -ENOTSUP;
}

static int check_args(const struct create_args *a, struct err *err)
{
  int cpus = get_nprocs();
  if (a->cpu_milli > (uint32_t)cpus * 1000) {
    err_set(err, ERR_CAPACITY, ENODEV, "cpu = %.14g is more than this machine has (%d)",
            a->cpu_milli / 1000.0, cpus);
    if (err) snprintf(err->field, sizeof err->field, "cpu");
    return -ENODEV;
  }
  if (a->encrypted_ports_n) {
    unsupported(err, "encrypted_ports", "certificates for ports");
    err_hint(err, "unencrypted_ports are reached on this machine's loopback");
    return -ENOTSUP;
  }
  return 0;
}

static int parse_image(const char *image, struct proto_create *req, struct err *err)
{
  req->image = IMAGE_LAYERS;
  if (strcmp(image, "host") == 0) req->image = IMAGE_HOST;
  if (strncmp(image, "dir:", 4) == 0) {
    const char *path = image + 4;
    if (*path != '/') return err_arg(err, "image", "\"%s\": dir: wants an absolute path", image);
    if (strlen(path) >= sizeof req->path) return err_arg(err, "image", "the path is too long");
    req->image = IMAGE_DIR;
    strcpy(req->path, path); /* fits, see above */
  }
  return 0;
}

/* The layers of an image, as overlay wants them: topmost first. */
static int fill_layers(const struct local *e, const struct image_record *r,
                       struct proto_create *req, struct err *err)
{
  size_t at = 0;
  if (r->layers_n == 0)
    return err_set(err, ERR_UNSUPPORTED, 0, "the image is empty: it has no layers");
  if (r->layers_n * IMAGE_LAYER_ID_SIZE > sizeof req->layers)
    return err_set(err, ERR_UNSUPPORTED, 0, "the image has %zu layers, at most %zu can be mounted",
                   r->layers_n, sizeof req->layers / IMAGE_LAYER_ID_SIZE);
  for (size_t i = r->layers_n; i-- > 0;) {
    image_layer_id(r->layers[i], req->layers + at);
    at += strlen(req->layers + at);
    req->layers[at++] = ':';
  }
  req->layers[at - 1] = '\0';
  if ((size_t)snprintf(req->path, sizeof req->path, "%s", image_resolver_layers(e->images)) >=
      sizeof req->path)
    return err_set(err, ERR_UNSUPPORTED, ENAMETOOLONG, "the path of the image store is too long");
  return 0;
}

/* One inode for 8 KiB: what file systems on disk give. */
static void fill_limits(const struct create_args *a, struct proto_create *req)
{
  req->mem_bytes = (uint64_t)a->mem_mib << 20;
  req->disk_bytes = (uint64_t)a->disk_mib << 20;
  req->inodes = req->disk_bytes / 8192;
  if (req->inodes < 4096) req->inodes = 4096;
  req->cpu_milli = a->cpu_milli;
  req->pids = a->pids ? a->pids + 1 : 0; /* and the agent */
}

static struct engine_box *new_box(struct local *e, struct create_op *op)
{
  struct engine_box *b = xcalloc(1, sizeof *b);
  b->engine = e;
  b->id = e->next_id++;
  b->create = op;
  b->on_end = op->on_end;
  b->data = op->data;
  b->sock = b->pidfd = b->upper = b->tap = -1;
  b->owner = op->owner;
  b->networked = op->args->network != NETWORK_NONE;
  b->on_refused = op->on_refused;
  b->disk_bytes = (uint64_t)op->args->disk_mib << 20;
  if (strncmp(op->args->image, "dir:", 4) == 0) b->dir = xstrdup(op->args->image + 4);
  b->sock_watch = (struct watch){.cb = on_sock, .data = b};
  snprintf(b->sandbox_id, sizeof b->sandbox_id, "%s", op->sandbox_id);
  for (size_t i = 0; i < op->args->env.n; i++) strv_add(&b->env, op->args->env.v[i]);
  b->cwd = op->args->cwd ? xstrdup(op->args->cwd) : NULL;
  b->user = op->args->user ? xstrdup(op->args->user) : NULL;
  list_init(&b->kills);
  list_init(&b->execs);
  list_init(&b->ports);
  list_init(&b->links);
  outq_init(&b->out);
  list_append(&e->boxes, &b->node);
  idmap_set(&e->boxes_by_id, b->id, b);
  return b;
}

static int connect_agent(struct engine_box *b, int *ret_theirs, struct err *err)
{
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return err_set(err, ERR_CAPACITY, errno, "cannot make a socket pair: %s", strerror(errno));
  b->sock = pair[0];
  *ret_theirs = pair[1];
  int rc = watch_set(b->engine->watcher, &b->sock_watch, b->sock, EPOLLIN);
  if (rc == 0) return 0;
  close(pair[1]);
  return err_set(err, ERR_INTERNAL, -rc, "cannot watch a socket: %s", strerror(-rc));
}

static bool names(const char *entry, const char *other)
{
  size_t n = strcspn(entry, "=");
  return strncmp(entry, other, n) == 0 && other[n] == '=';
}

/* What the image says, where create said nothing. */
static void apply_image(struct engine_box *b, const struct image_config *c)
{
  struct strv env = {0};
  for (size_t i = 0; i < c->env.n; i++) {
    bool overridden = false;
    for (size_t k = 0; k < b->env.n; k++) overridden |= names(c->env.v[i], b->env.v[k]);
    if (!overridden) strv_add(&env, c->env.v[i]);
  }
  for (size_t k = 0; k < b->env.n; k++) strv_add(&env, b->env.v[k]);
  strv_free(&b->env);
  b->env = env;
  if (!b->cwd && c->working_dir) b->cwd = xstrdup(c->working_dir);
  if (!b->user && c->user) b->user = xstrdup(c->user);
}

/* A volume of the engine's own is made where it is not there yet. */
static int find_volume(struct engine_box *b, const struct volume_spec *v, const char **ret_path,
                       struct err *err)
{
  *ret_path = v->path;
  if (v->path) return 0;
  int rc = volume_acquire(v->source, &b->volumes[b->volumes_n], err);
  if (rc == 0) *ret_path = b->volumes[b->volumes_n++].path;
  return rc;
}

static int send_volumes(struct engine_box *b, struct err *err)
{
  static struct proto_volume msg;
  const struct create_args *a = b->create->args;
  if (a->volumes_n > 0) b->volumes = xcalloc(a->volumes_n, sizeof *b->volumes);
  for (size_t i = 0; i < a->volumes_n; i++) {
    const char *path;
    msg = (struct proto_volume){.type = PROTO_VOLUME,
                                .kind = BIND_VOLUME,
                                .box = b->id,
                                .readonly = a->volumes[i].readonly};
    int rc = find_volume(b, &a->volumes[i], &path, err);
    if (rc < 0) return rc;
    snprintf(msg.target, sizeof msg.target, "%s", a->volumes[i].target);
    if ((size_t)snprintf(msg.path, sizeof msg.path, "%s", path) >= sizeof msg.path)
      return err_arg(err, "volumes", "the path of volume %s is too long", a->volumes[i].source);
    rc = local_tell_warden(b->engine, &msg, sizeof msg, -1, err);
    if (rc < 0) return rc;
  }
  return 0;
}

/* Asks the warden. On failure the box is as it was before. */
static int order_box(struct engine_box *b, struct proto_create *req, struct err *err)
{
  req->box = b->id;
  memcpy(req->sandbox_id, b->sandbox_id, sizeof req->sandbox_id);
  int theirs = -1;
  int rc = connect_agent(b, &theirs, err);
  if (rc == 0) {
    rc = box_send_gpus(b, &req->devices_n, &req->volumes_n, err);
    req->volumes_n += (uint32_t)b->create->args->volumes_n;
    if (rc == 0) rc = send_volumes(b, err);
    if (rc < 0) close(theirs);
  }
  if (rc == 0) rc = local_tell_warden(b->engine, req, sizeof *req, theirs, err);
  if (rc < 0) {
    release_volumes(b);
    close_sock(b);
  }
  return rc;
}

static struct proto_create new_request(const struct create_args *a)
{
  struct proto_create req = {.type = PROTO_CREATE, .network = a->network != NETWORK_NONE};
  fill_limits(a, &req);
  return req;
}

static void on_resolved(struct image_resolve *resolve, struct image_use *use,
                        const struct err *failure)
{
  struct engine_box *b = resolve->data;
  static struct proto_create req;
  b->resolving = false;
  b->image = use;
  struct err err = {0};
  if (b->kill_sent) {
    box_finish(b, BOX_END_LOST);
    return;
  }
  if (failure) {
    err = *failure;
    snprintf(err.field, sizeof err.field, "image");
  } else {
    req = new_request(b->create->args);
    req.image = IMAGE_LAYERS;
    apply_image(b, &use->config);
    if (fill_layers(b->engine, &use->record, &req, &err) == 0) order_box(b, &req, &err);
  }
  if (err.kind == ERR_NONE) return;
  b->create_err = err;
  box_finish(b, BOX_END_LOST);
}

static int resolve_image(struct engine_box *b, const char *image, struct err *err)
{
  b->resolve = (struct image_resolve){.on_done = on_resolved, .data = b};
  int rc = image_resolve_start(b->engine->images, &b->resolve, image, err);
  b->resolving = rc == 0;
  if (rc < 0 && err && !err->field[0]) snprintf(err->field, sizeof err->field, "image");
  return rc;
}

int box_place(struct engine_box *b, struct err *err)
{
  static struct proto_create req;
  const struct create_args *a = b->create->args;
  req = new_request(a);
  int rc = parse_image(a->image, &req, err);
  if (rc < 0) return rc;
  return req.image == IMAGE_LAYERS ? resolve_image(b, a->image, err) : order_box(b, &req, err);
}

int box_create(struct local *e, struct create_op *op, struct err *err)
{
  static struct proto_create req;
  int rc = check_args(op->args, err);
  if (rc == 0) rc = parse_image(op->args->image, &req, err); /* before any waiting */
  if (rc < 0) return rc;
  if (e->closing) return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "the engine is closing");
  struct engine_box *b = new_box(e, op);
  rc = ports_open(b, op, err);
  if (rc == 0 && b->networked) rc = net_join(b, err);
  if (rc == 0) rc = op->args->gpu.n > 0 ? box_find_gpus(b, err) : box_place(b, err);
  if (rc < 0) {
    net_leave(b);
    ports_close(b);
    free_box(b);
    return rc;
  }
  op->engine_data = b;
  return 0;
}

/* The local engine's host side: the vtable, and the link to the warden.
 *
 * Everything here runs on the loop and never waits: boxes and execs are records that messages move
 * on. Sandboxes are made by the warden (warden.c) and talk to the host over one socket each
 * (local_box.c, local_exec.c). When the warden dies, its boxes end with it, and a new one is
 * started by running this program anew: by then the host may be too big to fork. */
#include "engine/local/local.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/local/local_internal.h"
#include "engine/local/net.h"
#include "engine/local/warden.h"

/* What prefork made, until the first open takes it. */
static struct helper preforked = {.fd = -1};

int local_engine_prefork(struct err *err)
{
  helper_enter(WARDEN_NAME, warden_main);
  helper_enter(GPU_HELPER, gpu_helper_main);
  helper_enter(NET_HELPER, net_main);
  return preforked.fd >= 0 ? 0 : helper_fork(WARDEN_NAME, warden_main, &preforked, err);
}

/* --- the warden ------------------------------------------------------------------------------- */

static void on_warden(struct watch *watch, uint32_t events);

static void set_nonblocking(int fd)
{
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static int adopt_warden(struct local *e, struct helper warden, struct err *err)
{
  e->warden = warden;
  e->greeted = false;
  e->warden_watch = (struct watch){.cb = on_warden, .data = e};
  set_nonblocking(warden.fd);
  int rc = watch_set(e->watcher, &e->warden_watch, warden.fd, EPOLLIN);
  if (rc == 0) return 0;
  close(warden.fd);
  e->warden.fd = -1;
  return err_set(err, ERR_INTERNAL, -rc, "cannot watch the warden: %s", strerror(-rc));
}

static int start_warden(struct local *e, struct err *err)
{
  struct helper warden;
  int rc = helper_respawn(WARDEN_NAME, &warden, err);
  return rc < 0 ? rc : adopt_warden(e, warden, err);
}

int local_tell_warden(struct local *e, const void *msg, size_t len, int fd, struct err *err)
{
  int rc = e->warden.fd >= 0 ? 0 : start_warden(e, err);
  if (rc < 0) {
    if (fd >= 0) close(fd);
    return rc;
  }
  struct proto_piece piece = {msg, len};
  rc = outq_send(&e->warden_out, e->warden.fd, &piece, 1, &fd, fd >= 0);
  if (rc == 1) rc = watch_set(e->watcher, &e->warden_watch, e->warden.fd, EPOLLIN | EPOLLOUT);
  if (rc >= 0) return 0;
  return err_set(err, ERR_ENGINE_UNAVAILABLE, -rc, "the warden is gone: %s", strerror(-rc));
}

static void finish_close(void *data)
{
  struct local *e = data;
  void (*done)(void *) = e->on_closed;
  void *done_data = e->closed_data;
  idmap_free(&e->boxes_by_id);
  free(e->chunk);
  free(e);
  done(done_data);
}

static void close_images(void *data)
{
  struct local *e = data;
  image_resolver_close(e->images, finish_close, e);
}

/* The last step: no box, no warden, no job. */
static void close_watcher(struct local *e)
{
  if (!list_empty(&e->boxes) || !list_empty(&e->jobs) || e->warden.fd >= 0) return;
  gpus_free(e->gpus);
  e->gpus = NULL;
  net_close_all(e);
  watcher_close(e->watcher, close_images, e);
}

static void on_warden_gone(struct local *e)
{
  watch_stop(e->watcher, &e->warden_watch);
  close(e->warden.fd);
  e->warden.fd = -1;
  outq_drop(&e->warden_out);
  waitpid(e->warden.pid, NULL, __WALL); /* it is past its last descriptor: it does not take long */
  if (e->warden_err.kind == ERR_NONE || e->greeted)
    err_set(&e->warden_err, ERR_ENGINE_UNAVAILABLE, 0, "the warden ended unexpectedly");
  LIST_FOREACH_SAFE (it, &e->boxes) box_on_warden_gone(list_entry(it, struct engine_box, node));
  if (e->closing) {
    close_watcher(e);
  } else if (e->greeted) {
    start_warden(e, NULL); /* it sweeps what is left; a failure shows at the next create */
  }
}

static union {
  uint32_t type;
  struct proto_box box;
  struct proto_created created;
  struct proto_failed failed;
  struct proto_hello hello;
} from_warden;

static void on_hello(struct local *e, const struct proto_hello *hello)
{
  e->hello = *hello;
  e->greeted = hello->err.kind == ERR_NONE;
  e->warden_err = hello->err;
}

static void on_warden(struct watch *watch, uint32_t events)
{
  struct local *e = watch->data;
  if (events & EPOLLOUT && outq_flush(&e->warden_out, e->warden.fd) == 0)
    watch_set(e->watcher, watch, e->warden.fd, EPOLLIN);
  if (!(events & ~(uint32_t)EPOLLOUT)) return;
  int fds[PROTO_FDS_MAX];
  size_t fds_n = 0;
  ssize_t n = proto_recv(e->warden.fd, &from_warden, sizeof from_warden, fds, &fds_n, false);
  if (n == -EAGAIN) return;
  if (n <= 0) {
    on_warden_gone(e);
    return;
  }
  if (from_warden.type == PROTO_HELLO)
    on_hello(e, &from_warden.hello);
  else
    box_on_warden_message(e, &from_warden.box, &from_warden, fds, fds_n);
}

enum { DESCRIPTORS_MIN = 64 };

/* --- the vtable ------------------------------------------------------------------------------- */

/* Each exec takes up to six descriptors for a moment, each box one or two for its life. The
 * warden and the agents have the same limit. */
static int raise_descriptor_limit(struct err *err)
{
  struct rlimit rl;
  if (getrlimit(RLIMIT_NOFILE, &rl) < 0) return 0;
  if (rl.rlim_max < DESCRIPTORS_MIN) {
    err_set(err, ERR_ENGINE_UNAVAILABLE, EMFILE,
            "this process may have %llu open files, and sandboxes take at least %d",
            (unsigned long long)rl.rlim_max, DESCRIPTORS_MIN);
    err_hint(err, "ulimit -n 1024, or LimitNOFILE=1024 in its unit file");
    return -EMFILE;
  }
  rl.rlim_cur = rl.rlim_max;
  setrlimit(RLIMIT_NOFILE, &rl);
  return 0;
}

static int local_open(struct engine **ret, const struct engine_conf *conf, struct err *err)
{
  int rc = raise_descriptor_limit(err);
  if (rc < 0) return rc;
  struct local *e = xcalloc(1, sizeof *e);
  rc = watcher_new(&e->watcher, conf->loop, err);
  if (rc < 0) {
    free(e);
    return rc;
  }
  /* A command that closes its stdin must not end us. */
  if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) abort();
  e->base.ops = &local_engine_ops;
  memcpy(e->base.name, conf->name, strnlen(conf->name, sizeof e->base.name - 1));
  e->loop = conf->loop;
  e->next_id = 1;
  e->warden.fd = -1;
  e->chunk = xmalloc(LOCAL_CHUNK);
  e->images = image_resolver_new(e->loop, conf->serves);
  e->gpus = gpus_new(e->loop, e->watcher);
  if (gpu_maybe()) e->base.caps = ENGINE_CAP_GPU;
  list_init(&e->boxes);
  list_init(&e->jobs);
  list_init(&e->nets);
  list_init(&e->kept);
  outq_init(&e->warden_out);
  struct helper warden = preforked;
  preforked.fd = -1;
  rc = warden.fd >= 0 ? adopt_warden(e, warden, err) : start_warden(e, err);
  if (rc < 0) {
    /* Opening must not fail over it: a create will try again and say why. */
    e->warden_err = err ? *err : (struct err){.kind = ERR_ENGINE_UNAVAILABLE};
  }
  *ret = &e->base;
  return 0;
}

static int local_create(struct engine *engine, struct create_op *op, struct err *err)
{
  return box_create((struct local *)engine, op, err);
}

static int local_exec(struct engine *engine, struct exec_op *op, struct err *err)
{
  (void)engine;
  return run_start(op->box, op, err);
}

static int local_kill(struct engine *engine, struct kill_op *op, struct err *err)
{
  struct local *e = (struct local *)engine;
  if (op->create) return box_kill(e, op->create->engine_data, op, err);
  return op->exec ? run_kill(op->box, op->exec, op, err) : box_kill(e, op->box, op, err);
}

static void local_exec_input(struct engine *engine, struct exec_op *op, const void *data,
                             size_t len)
{
  (void)engine;
  run_input(op, data, len);
}

static void local_exec_flow(struct engine *engine, struct exec_op *op, bool paused)
{
  (void)engine;
  run_flow(op, paused);
}

static int local_probe(struct engine *engine, struct probe_op *op, struct err *err)
{
  (void)engine;
  return box_probe(op->box, op, err);
}

static int local_diff(struct engine *engine, struct changes_op *op, struct err *err)
{
  (void)engine;
  return changes_diff(op->box, op, err);
}

static int local_snapshot(struct engine *engine, struct changes_op *op, struct err *err)
{
  (void)engine;
  return changes_snapshot(op->box, op, err);
}

static void local_changes_cancel(struct engine *engine, struct changes_op *op)
{
  (void)engine;
  changes_cancel(op);
}

static void local_image_drop(struct engine *engine, const char *image)
{
  kept_drop((struct local *)engine, image);
}

struct list_req {
  struct defer defer;
  struct local *engine;
  struct list_op *op;
};

static void answer_list(struct defer *d)
{
  struct list_req *req = d->data;
  struct list_op *op = req->op;
  LIST_FOREACH (it, &req->engine->boxes) {
    const struct engine_box *b = list_entry(it, struct engine_box, node);
    if (b->state == BOX_RUNNING) op->on_box(op, b->sandbox_id, "");
  }
  free(req);
  op->on_done(op, NULL);
}

/* Boxes do not outlive the host: there are only those of this process. */
static int local_list(struct engine *engine, struct list_op *op, struct err *err)
{
  (void)err;
  struct list_req *req = xcalloc(1, sizeof *req);
  req->engine = (struct local *)engine;
  req->op = op;
  req->defer = (struct defer){.cb = answer_list, .data = req};
  loop_defer(req->engine->loop, &req->defer);
  return 0;
}

void local_box_gone(struct local *e)
{
  if (!e->closing || !list_empty(&e->boxes)) return;
  struct proto_box quit = {.type = PROTO_QUIT};
  jobs_close(e); /* images of ours that no box needs any more are removed by then */
  if (!list_empty(&e->jobs)) return;
  if (e->warden.fd < 0)
    close_watcher(e);
  else
    local_tell_warden(e, &quit, sizeof quit, -1, NULL); /* the rest follows its end-of-file */
}

static void local_close(struct engine *engine, void (*done)(void *data), void *data)
{
  struct local *e = (struct local *)engine;
  e->closing = true;
  e->on_closed = done;
  e->closed_data = data;
  if (list_empty(&e->boxes)) {
    local_box_gone(e);
    return;
  }
  LIST_FOREACH_SAFE (it, &e->boxes) box_end(list_entry(it, struct engine_box, node));
}

const struct engine_ops local_engine_ops = {
    .name = "local",
    .caps = ENGINE_CAP_NETWORK | ENGINE_CAP_PORTS | ENGINE_CAP_VOLUMES | ENGINE_CAP_SNAPSHOT |
            ENGINE_CAP_FILES | ENGINE_CAP_SPAWN,
    .open = local_open,
    .create = local_create,
    .exec = local_exec,
    .kill = local_kill,
    .list = local_list,
    .exec_input = local_exec_input,
    .exec_flow = local_exec_flow,
    .probe = local_probe,
    .diff = local_diff,
    .snapshot = local_snapshot,
    .changes_cancel = local_changes_cancel,
    .image_drop = local_image_drop,
    .gpus = local_gpus,
    .close = local_close,
};

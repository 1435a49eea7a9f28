/* Resolving images for engines.
 *
 * Owns the open store, the images in use and the one used last, and one child process per name that
 * is being pulled, with all requests that wait for it. A request for an image that the store has is
 * answered on the next turn of the loop without any process; when the image is in use already, or
 * was last, all that is asked of the store is whether the name still means it. The child's stdout
 * is a pipe that carries one JSON object, its result; its end is the end of the child. Progress
 * bars are the child's own, on our stderr, when that is a terminal.
 *
 * request: started → (pulling) → answered      child: running → output ended → reaped → gone */
#include "image/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/log.h"
#include "base/val.h"
#include "image/settings.h"

#define OUTPUT_MAX (1024 * 1024)
#define LINGER_MAX 8 /* pulls under way that nobody waits for */

extern char **environ;

struct image_pulling {
  uv_poll_t poll; /* first: freed through it */
  struct image_resolver *resolver;
  struct list node;    /* in image_resolver.pulls */
  struct list waiting; /* struct image_resolve.node */
  char *name;          /* owned: as the first request said it */
  struct buf output;
  pid_t pid;
  int fd;     /* the read end of its stdout */
  bool ended; /* told to end: nothing for new requests */
};

struct image_resolver {
  struct loop *loop;
  struct image_store *store; /* opened with the first request */
  char *layers;              /* owned: path of its layers */
  struct image_settings settings;
  struct list pulls;      /* struct image_pulling.node */
  struct list uses;       /* struct image_use.node: images with a lease, those with refs and idle */
  struct image_use *idle; /* given back last: kept, with its lease, for whoever asks next */
  size_t closing_polls;
  bool linger, closing;
  struct defer closed;
  void (*done)(void *data);
  void *done_data;
};

static void drop_use(struct image_use *use)
{
  if (!use) return;
  list_remove(&use->node);
  image_record_free(&use->record);
  image_config_free(&use->config);
  image_lease_free(use->lease);
  free(use);
}

void image_use_unref(struct image_use *use)
{
  if (!use || --use->refs > 0) return;
  drop_use(use->resolver->idle);
  use->resolver->idle = use;
}

void image_use_drop(struct image_use *use)
{
  if (use && --use->refs == 0) drop_use(use);
}

bool image_use_shared(const struct image_use *use)
{
  return use->refs > 1;
}

static void on_closed(struct defer *d)
{
  struct image_resolver *r = d->data;
  void (*done)(void *) = r->done;
  void *data = r->done_data;
  drop_use(r->idle);
  image_store_close(r->store);
  image_settings_free(&r->settings);
  free(r->layers);
  free(r);
  done(data);
}

struct image_resolver *image_resolver_new(struct loop *loop, bool linger)
{
  struct image_resolver *r = xcalloc(1, sizeof *r);
  r->loop = loop;
  r->linger = linger;
  r->closed = (struct defer){.cb = on_closed, .data = r};
  list_init(&r->pulls);
  list_init(&r->uses);
  return r;
}

static void close_if_idle(struct image_resolver *r)
{
  if (r->closing && list_empty(&r->pulls) && r->closing_polls == 0) loop_defer(r->loop, &r->closed);
}

static void end_pull(struct image_pulling *p)
{
  if (!p->ended) kill(p->pid, SIGTERM);
  p->ended = true;
}

void image_resolver_close(struct image_resolver *r, void (*done)(void *data), void *data)
{
  r->closing = true;
  r->done = done;
  r->done_data = data;
  LIST_FOREACH (it, &r->pulls) end_pull(list_entry(it, struct image_pulling, node));
  close_if_idle(r);
}

const char *image_resolver_layers(const struct image_resolver *r)
{
  return r->layers;
}

static int open_store(struct image_resolver *r, struct err *err)
{
  if (r->store) return 0;
  image_settings_free(&r->settings);
  int rc = image_settings_load(&r->settings, err);
  if (rc == 0) rc = image_store_open(&r->store, NULL, err);
  if (rc < 0) return rc;
  struct buf path = {0};
  buf_printf(&path, "%s/layers", image_store_root(r->store));
  r->layers = buf_take(&path, NULL);
  return 0;
}

/* The image that the name means, when it is leased already. */
static struct image_use *find_use(struct image_resolver *r, const char *name)
{
  struct image_record now;
  struct image_use *found = NULL;
  if (list_empty(&r->uses) || image_store_find(r->store, name, &now, NULL) < 0) return NULL;
  LIST_FOREACH (it, &r->uses) {
    struct image_use *use = list_entry(it, struct image_use, node);
    if (strcmp(use->record.digest, now.digest) == 0) found = use;
  }
  image_record_free(&now);
  return found;
}

static int take_image(struct image_resolver *r, const char *name, struct image_use **ret,
                      struct err *err)
{
  struct image_use *use = find_use(r, name);
  if (!use) {
    use = xcalloc(1, sizeof *use);
    use->resolver = r;
    list_init(&use->node);
    int rc = image_store_acquire(r->store, name, &use->record, &use->lease, err);
    if (rc == 0) rc = image_store_config(r->store, &use->record, &use->config, err);
    if (rc < 0) {
      drop_use(use);
      return rc;
    }
    list_append(&r->uses, &use->node);
  }
  if (use == r->idle) r->idle = NULL;
  use->refs++;
  *ret = use;
  return 0;
}

struct image_use *image_resolver_take(struct image_resolver *r, const char *name, struct err *err)
{
  struct image_use *use = NULL;
  int rc = open_store(r, err);
  if (rc == 0) take_image(r, name, &use, err);
  return use;
}

static void on_answer(struct defer *d)
{
  struct image_resolve *req = d->data;
  req->on_done(req, req->use, req->use ? NULL : &req->err);
}

static void answer(struct image_resolve *req, struct image_use *use, const struct err *err)
{
  list_remove(&req->node);
  req->pulling = NULL;
  req->use = use;
  if (err) req->err = *err;
  loop_defer(req->resolver->loop, &req->answer);
}

/* --- the child --- */

static void on_poll_closed(uv_handle_t *handle)
{
  struct image_pulling *p = (struct image_pulling *)handle;
  struct image_resolver *r = p->resolver;
  close(p->fd);
  buf_free(&p->output);
  free(p->name);
  free(p);
  r->closing_polls--;
  close_if_idle(r);
}

/* What the child says went wrong. */
static void read_failure(const struct image_pulling *p, struct err *err)
{
  struct val v = {0};
  struct err ignored;
  const struct val *failure = NULL;
  if (p->output.len && json_parse(&v, p->output.data, p->output.len, &ignored) == 0)
    failure = val_get(&v, "error");
  if (!failure) {
    err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "pulling \"%s\" ended without a result", p->name);
    return;
  }
  enum err_kind kind = err_kind_from_code(val_get_str(failure, "code", ""));
  err_set(err, kind, 0, "%s", val_get_str(failure, "message", "no reason given"));
  const char *hint = val_get_str(failure, "hint", "");
  if (kind == ERR_ENGINE_UNAVAILABLE)
    err_hint(err,
             "without network: image = \"host\" is this machine itself; or bring the image: "
             "regolith image import docker-archive:FILE %s",
             p->name);
  else if (*hint)
    err_hint(err, "%s", hint);
  val_free(&v);
}

static void on_child_end(struct image_pulling *p)
{
  struct image_resolver *r = p->resolver;
  int status = -1;
  while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR) continue;
  bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  struct err failure = {0};
  if (!well) read_failure(p, &failure);
  if (list_empty(&p->waiting) && !p->ended)
    log_info("pulling image %s, which nobody waits for: %s", p->name, well ? "done" : failure.msg);
  while (!list_empty(&p->waiting)) {
    struct image_resolve *req = list_entry(p->waiting.next, struct image_resolve, node);
    struct image_use *use = NULL;
    struct err err = failure;
    if (well) take_image(r, p->name, &use, &err);
    answer(req, use, &err);
  }
  list_remove(&p->node);
  uv_poll_stop(&p->poll);
  r->closing_polls++;
  uv_close((uv_handle_t *)&p->poll, on_poll_closed);
}

static void on_output(uv_poll_t *poll, int status, int events)
{
  (void)status, (void)events;
  struct image_pulling *p = (struct image_pulling *)poll;
  char chunk[4096];
  ssize_t n = read(p->fd, chunk, sizeof chunk);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0 && p->output.len + (size_t)n <= OUTPUT_MAX)
    buf_append(&p->output, chunk, (size_t)n);
  else if (n <= 0)
    on_child_end(p);
}

/* Beside this one, which may be another, a test's. */
void image_find_program(char *out)
{
  ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - sizeof "regolith");
  out[n > 0 ? n : 0] = '\0';
  char *slash = strrchr(out, '/');
  if (slash) strcpy(slash + 1, "regolith"); /* fits, see above */
  if (!slash || access(out, X_OK) < 0) strcpy(out, "/proc/self/exe");
}

static int spawn(struct image_pulling *p, struct err *err)
{
  char program[PATH_MAX];
  image_find_program(program);
  int out[2];
  if (pipe2(out, O_CLOEXEC) < 0) return err_set(err, ERR_CAPACITY, errno, "cannot make a pipe");
  char words[][12] = {"regolith", "image", "pull", "--json", "--quiet", "--"};
  bool bars = isatty(2) && log_level() <= LOG_WARN;
  char *argv[8] = {words[0], words[1], words[2], words[3]};
  size_t n = 4;
  if (!bars) argv[n++] = words[4];
  argv[n++] = words[5];
  argv[n++] = p->name;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawnattr_t attr;
  sigset_t none, defaults;
  sigemptyset(&none);
  sigfillset(&defaults);
  posix_spawnattr_init(&attr);
  posix_spawnattr_setsigmask(&attr, &none);
  posix_spawnattr_setsigdefault(&attr, &defaults);
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  int rc = posix_spawn(&p->pid, program, &actions, &attr, argv, environ);
  posix_spawnattr_destroy(&attr);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  p->fd = out[0];
  if (rc == 0) return 0;
  close(out[0]);
  return err_set(err, ERR_ENGINE_UNAVAILABLE, rc, "cannot start a pull: %s", strerror(rc));
}

static int start_pull(struct image_resolver *r, const char *name, struct image_pulling **ret,
                      struct err *err)
{
  LIST_FOREACH (it, &r->pulls) {
    struct image_pulling *p = list_entry(it, struct image_pulling, node);
    if (strcmp(p->name, name) != 0 || p->ended) continue;
    *ret = p;
    return 0;
  }
  struct image_pulling *p = xcalloc(1, sizeof *p);
  p->resolver = r;
  p->name = xstrdup(name);
  list_init(&p->waiting);
  int rc = spawn(p, err);
  if (rc < 0) {
    free(p->name);
    free(p);
    return rc;
  }
  fcntl(p->fd, F_SETFL, O_NONBLOCK);
  uv_poll_init(loop_uv(r->loop), &p->poll, p->fd);
  uv_poll_start(&p->poll, UV_READABLE, on_output);
  list_append(&r->pulls, &p->node);
  log_info("pulling image %s", name);
  *ret = p;
  return 0;
}

int image_resolve_start(struct image_resolver *r, struct image_resolve *req, const char *name,
                        struct err *err)
{
  req->resolver = r;
  req->pulling = NULL;
  req->use = NULL;
  req->answer = (struct defer){.cb = on_answer, .data = req};
  list_init(&req->node);
  struct image_use *use = NULL;
  int rc = open_store(r, err);
  if (rc < 0) return rc;
  const char *hex; /* what a digest names never changes */
  bool always = r->settings.policy == IMAGE_PULL_ALWAYS && !image_digest_prefix(name, &hex);
  rc = always ? -ENOENT : take_image(r, name, &use, err);
  if (rc == 0) {
    answer(req, use, NULL);
    return 0;
  }
  if (!always && !(err && err->kind == ERR_IMAGE_NOT_FOUND)) return rc;
  struct image_ref ref; /* a digest alone says no registry */
  rc = image_ref_parse(&ref, name, err);
  if (rc < 0) return rc;
  image_ref_free(&ref);
  if (r->settings.policy == IMAGE_PULL_NEVER) {
    err_set(err, ERR_IMAGE_NOT_FOUND, ENOENT, "the image \"%s\" is not in the store", name);
    err_hint(err, "fetch it: regolith image pull %s", name);
    return -ENOENT;
  }
  rc = start_pull(r, name, &req->pulling, err);
  if (rc == 0) list_append(&req->pulling->waiting, &req->node);
  return rc;
}

static bool may_linger(const struct image_resolver *r)
{
  size_t alone = 0;
  LIST_FOREACH (it, &r->pulls) {
    const struct image_pulling *p = list_entry(it, struct image_pulling, node);
    alone += list_empty(&p->waiting) && !p->ended;
  }
  return r->linger && alone <= LINGER_MAX;
}

void image_resolve_cancel(struct image_resolve *req)
{
  struct image_pulling *p = req->pulling;
  if (!p) return; /* answered: on_done is on its way */
  struct err err = {0};
  err_set(&err, ERR_CANCELLED, ECANCELED, "the pull was cancelled");
  answer(req, NULL, &err);
  if (list_empty(&p->waiting) && !may_linger(p->resolver)) end_pull(p);
}

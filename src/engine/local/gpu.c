/* The host's side of GPUs: asks a helper process what there is, and keeps count of who has what.
 *
 * A card is had by whoever holds its lock: a socket bound to an abstract name made of the card's
 * id. Abstract names are gone with the last descriptor, however their owner ended, and they are the
 * same for all users of the machine. The host passes the lock on with the create, and the warden
 * keeps it until the last process of the sandbox is dead: so a card is not free before. (Processes
 * in different network namespaces do not see each other's.) */
#include "engine/local/gpu.h"

#include <errno.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "wire/op.h"
#include "core/helper.h"
#include "core/loop.h"
#include "engine/local/watch.h"

#define FRESH_MS   60000
#define ANSWER_MS  30000 /* a driver may have to start its cards first */
#define ANSWER_MAX (256u * 1024)

struct gpus {
  struct loop *loop;
  struct watcher *watcher;
  struct helper helper; /* fd -1: there is none */
  bool asking;          /* it has not said all yet */
  struct watch watch;
  struct timer late;
  struct defer defer;
  struct list waits;
  uint64_t known_ms; /* when it was found out; 0 = never */
  struct gpu_card card[GPU_CARDS_MAX];
  size_t n;
  struct val notes;
  char *answer; /* owned while asking */
};

/* --- asking ----------------------------------------------------------------------------------- */

static const char *setting(const char *name, const char *usual)
{
  const char *v = getenv(name);
  return v ? v : usual;
}

static bool has_specs(const char *folders)
{
  char pattern[1024];
  while (*folders) {
    size_t len = strcspn(folders, ":");
    glob_t g;
    snprintf(pattern, sizeof pattern, "%.*s/*.[jy]*", (int)len, folders);
    if (glob(pattern, GLOB_NOSORT, NULL, &g) == 0) {
      globfree(&g);
      return true;
    }
    folders += len + (folders[len] == ':');
  }
  return false;
}

bool gpu_maybe(void)
{
  return access("/dev/nvidiactl", F_OK) == 0 || getenv(GPU_NVML_VAR) ||
         has_specs(setting(GPU_CDI_VAR, GPU_CDI_DIRS));
}

static void forget_cards(struct gpus *g)
{
  while (g->n > 0) val_free(&g->card[--g->n].card);
  val_free(&g->notes);
}

static void answer_waits(struct gpus *g, const struct err *err)
{
  LIST_FOREACH_SAFE (it, &g->waits) {
    struct gpu_wait *w = list_entry(it, struct gpu_wait, node);
    gpus_cancel(w);
    w->cb(w, err);
  }
}

/* ended: it is past its last descriptor, so its end is near. Else it may hang in a driver, where no
 * signal reaches it, and is not waited for. */
static void drop_helper(struct gpus *g, bool ended)
{
  if (g->helper.fd < 0) return;
  if (g->loop) timer_stop(g->loop, &g->late);
  if (g->watcher) watch_stop(g->watcher, &g->watch);
  close(g->helper.fd);
  if (!ended) kill(g->helper.pid, SIGKILL);
  waitpid(g->helper.pid, NULL, ended ? 0 : WNOHANG);
  g->helper.fd = -1;
  g->asking = false;
  free(g->answer);
  g->answer = NULL;
}

static int no_answer(struct err *err, bool late)
{
  int rc = err_set(
      err, ERR_ENGINE_UNAVAILABLE, 0, "cannot find out which GPUs this machine has: %s",
      late ? "the driver does not answer" : "the helper that asks the driver ended unexpectedly");
  if (err) snprintf(err->field, sizeof err->field, "gpu");
  return rc;
}

static void give_up(struct gpus *g, bool late)
{
  struct err err = {0};
  drop_helper(g, false);
  no_answer(&err, late);
  err_hint(&err, "regolith doctor tells more");
  answer_waits(g, &err);
}

static void take_card(struct gpus *g, struct val *v)
{
  if (g->n == GPU_CARDS_MAX) return;
  struct gpu_card *c = &g->card[g->n++];
  *c = (struct gpu_card){.card = *v};
  *v = (struct val){0};
  snprintf(c->name, sizeof c->name, "%s", val_get_str(&c->card, "name", ""));
  snprintf(c->id, sizeof c->id, "%s", val_get_str(&c->card, "id", ""));
  snprintf(c->why, sizeof c->why, "%s", val_get_str(&c->card, "why", ""));
}

/* false: that was the last one. */
static bool take_answer(struct gpus *g, struct val *v)
{
  struct val *notes = val_get_mut(v, "notes");
  if (!notes) {
    take_card(g, v);
    return true;
  }
  g->notes = *notes;
  *notes = (struct val){0};
  return false;
}

/* One message. Negative: there is none, or none that makes sense. */
static int read_answer(struct gpus *g)
{
  int fds[PROTO_FDS_MAX];
  size_t fds_n = 0;
  struct val v = {0};
  ssize_t n = proto_recv(g->helper.fd, g->answer, ANSWER_MAX, fds, &fds_n, false);
  if (n == -EAGAIN) return 0;
  if (n <= 0 || json_parse(&v, g->answer, (size_t)n, NULL) < 0) return -1;
  if (!take_answer(g, &v)) {
    g->asking = false;
    g->known_ms = clock_mono_ms();
  }
  val_free(&v);
  return 0;
}

static void on_helper(struct watch *watch, uint32_t events)
{
  struct gpus *g = watch->data;
  bool asking = g->asking;
  (void)events;
  if (read_answer(g) < 0) {
    if (asking)
      give_up(g, false);
    else
      drop_helper(g, true);
    return;
  }
  if (!asking || g->asking) return;
  timer_stop(g->loop, &g->late);
  answer_waits(g, NULL);
}

static void on_late(struct timer *t)
{
  give_up(t->data, true);
}

static int send_request(struct gpus *g, struct err *err)
{
  struct buf text = {0};
  drop_helper(g, false);
  int rc = helper_respawn(GPU_HELPER, &g->helper, err);
  if (rc < 0) {
    g->helper.fd = -1;
    return rc;
  }
  forget_cards(g);
  g->known_ms = 0;
  g->asking = true;
  g->answer = xmalloc(ANSWER_MAX);
  struct val v = val_map();
  val_add(&v, "cdi", val_str(setting(GPU_CDI_VAR, GPU_CDI_DIRS)));
  val_add(&v, "nvml", val_str(setting(GPU_NVML_VAR, GPU_NVML)));
  json_print(&text, &v);
  struct proto_piece piece = {text.data, text.len};
  rc = proto_send(g->helper.fd, &piece, 1, NULL, 0);
  if (rc < 0) no_answer(err, false);
  val_free(&v);
  buf_free(&text);
  return rc;
}

static int ask(struct gpus *g, struct err *err)
{
  int rc = send_request(g, err);
  if (rc == 0 && (rc = watch_set(g->watcher, &g->watch, g->helper.fd, EPOLLIN)) < 0)
    err_set(err, ERR_INTERNAL, -rc, "cannot watch a socket: %s", strerror(-rc));
  if (rc == 0)
    timer_start(g->loop, &g->late, ANSWER_MS);
  else
    drop_helper(g, false);
  return rc;
}

static void on_known(struct defer *d)
{
  answer_waits(d->data, NULL);
}

int gpus_wait(struct gpus *g, struct gpu_wait *w, struct err *err)
{
  bool fresh = g->known_ms && clock_mono_ms() - g->known_ms < FRESH_MS;
  int rc = fresh || g->asking ? 0 : ask(g, err);
  if (rc < 0) return rc;
  list_append(&g->waits, &w->node);
  w->queued = true;
  if (fresh) loop_defer(g->loop, &g->defer);
  return 0;
}

void gpus_cancel(struct gpu_wait *w)
{
  if (w->queued) list_remove(&w->node);
  w->queued = false;
}

struct gpus *gpus_new(struct loop *loop, struct watcher *watcher)
{
  struct gpus *g = xcalloc(1, sizeof *g);
  g->loop = loop;
  g->watcher = watcher;
  g->helper.fd = -1;
  g->watch = (struct watch){.cb = on_helper, .data = g};
  g->late = (struct timer){.cb = on_late, .data = g};
  g->defer = (struct defer){.cb = on_known, .data = g};
  list_init(&g->waits);
  return g;
}

void gpus_free(struct gpus *g)
{
  if (!g) return;
  if (!list_empty(&g->waits)) give_up(g, false);
  drop_helper(g, false);
  if (g->loop) loop_defer_cancel(g->loop, &g->defer);
  forget_cards(g);
  free(g);
}

int gpus_look(struct gpus *g, struct err *err)
{
  uint64_t deadline = clock_mono_ms() + ANSWER_MS;
  int rc = send_request(g, err);
  while (rc == 0 && g->asking) {
    uint64_t now = clock_mono_ms();
    struct pollfd p = {.fd = g->helper.fd, .events = POLLIN};
    if (now >= deadline || (poll(&p, 1, (int)(deadline - now)) > 0 && read_answer(g) < 0))
      rc = no_answer(err, now >= deadline);
  }
  drop_helper(g, rc == 0);
  return rc;
}

const char *gpus_first_note(const struct gpus *g)
{
  for (size_t i = 0; i < g->n; i++)
    if (g->card[i].why[0]) return g->card[i].why;
  return g->notes.type == VAL_LIST && g->notes.list.n ? g->notes.list.v[0].s.p : NULL;
}

/* --- who has what ----------------------------------------------------------------------------- */

/* The lock of a card; -1: somebody has it. */
static int lock_card(const struct gpu_card *c)
{
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  /* The name begins with a NUL and ends with the address. */
  int len = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "regolith/gpu/%s", c->id);
  if (len >= (int)sizeof a.sun_path - 1) len = (int)sizeof a.sun_path - 2;
  cleanup_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
  if (fd < 0 || bind(fd, (struct sockaddr *)&a, size) < 0) return -1;
  return take_fd(&fd);
}

void gpu_release(struct gpu_grant *grant)
{
  while (grant->n > 0) {
    close(grant->lock[--grant->n]);
    val_free(&grant->card[grant->n]);
  }
}

/* "A100:2" is two of "A100". */
static size_t split(const char *choice, unsigned *ret_n)
{
  const char *colon = strrchr(choice, ':');
  *ret_n = colon ? (unsigned)strtoul(colon + 1, NULL, 10) : 1;
  return colon ? (size_t)(colon - choice) : strlen(choice);
}

static bool is_called(const struct gpu_card *c, const char *name, size_t len)
{
  return strlen(c->name) == len && strncasecmp(c->name, name, len) == 0;
}

static bool take_choice(struct gpus *g, const char *choice, struct gpu_grant *ret)
{
  unsigned want;
  size_t len = split(choice, &want);
  for (size_t i = 0; i < g->n && ret->n < want && want <= PROTO_CARDS_MAX; i++) {
    const struct gpu_card *c = &g->card[i];
    if (c->why[0] || !is_called(c, choice, len)) continue;
    int lock = lock_card(c);
    if (lock < 0) continue;
    ret->card[ret->n] = val_copy(&c->card);
    ret->lock[ret->n++] = lock;
  }
  if (ret->n == want) return true;
  gpu_release(ret);
  return false;
}

void gpus_count(struct gpus *g,
                void (*fn)(void *data, const char *name, unsigned count, unsigned free_n),
                void *data)
{
  for (size_t i = 0; i < g->n; i++) {
    const char *name = g->card[i].name;
    unsigned count = 0, free_n = 0;
    bool before = false;
    for (size_t k = 0; k < g->n; k++) {
      if (!is_called(&g->card[k], name, strlen(name))) continue;
      if (k < i) before = true;
      if (g->card[k].why[0]) continue;
      count++;
      cleanup_close int lock = lock_card(&g->card[k]);
      if (lock >= 0) free_n++;
    }
    if (!before) fn(data, name, count, free_n);
  }
}

static void describe(void *data, const char *name, unsigned count, unsigned free_n)
{
  struct buf *text = data;
  if (count == 0) return;
  buf_printf(text, "%s%u %s (%u free)", text->len ? ", " : "", count, name, free_n);
}

static int no_card(struct gpus *g, const struct strv *choices, struct err *err)
{
  struct buf has = {0}, asked = {0};
  const char *why = NULL;
  gpus_count(g, describe, &has);
  for (size_t i = 0; i < choices->n; i++) {
    unsigned n;
    size_t len = split(choices->v[i], &n);
    buf_printf(&asked, "%s\"%s\"", i ? ", " : "", choices->v[i]);
    for (size_t k = 0; k < g->n; k++)
      if (is_called(&g->card[k], choices->v[i], len) && g->card[k].why[0]) why = g->card[k].why;
  }
  if (has.len)
    err_set(err, ERR_CAPACITY, EBUSY, "no GPU is free for gpu = %s: this machine has %s",
            asked.data, has.data);
  else
    err_set(err, ERR_CAPACITY, ENODEV, "this machine has no GPU%s, so it cannot give gpu = %s",
            why ? " that can be used" : "", asked.data);
  if (err) snprintf(err->field, sizeof err->field, "gpu");
  if (why)
    err_hint(err, "a card of that name is there, but %s", why);
  else
    err_hint(err,
             has.len
                 ? "wait for one with retry { on = { \"capacity\" } }, or name others in order of "
                   "preference"
                 : "name an engine that has one");
  buf_free(&has);
  buf_free(&asked);
  return err_errno(err);
}

int gpus_take(struct gpus *g, const struct strv *choices, struct gpu_grant *ret,
              unsigned *ret_choice, struct err *err)
{
  *ret = (struct gpu_grant){0};
  for (size_t i = 0; i < choices->n; i++) {
    if (!take_choice(g, choices->v[i], ret)) continue;
    *ret_choice = (unsigned)i;
    return 0;
  }
  return no_card(g, choices, err);
}

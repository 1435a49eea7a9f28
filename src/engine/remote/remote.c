/* The engine "remote": sandboxes of a Compute API.
 *
 * Owns one HTTP client per server, opened with the first request, so that a run that does not use
 * it pays nothing for it. What its sandboxes live on is the server's: they outlive this process
 * until their time-out, and the supervisor ends those that nobody detached. */
#include "engine/remote/remote.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/remote/remote_internal.h"

enum { KEY_MAX = 4096 };

/* ---- options ---- */

static int bad_url(const struct remote *e, const char *url, const char *why, struct err *err)
{
  int rc = err_arg(err, "url", "engine \"%s\": \"%.200s\" %s", e->base.name, url, why);
  err_hint(err, "an address is https://HOST[:PORT], or http:// of this machine");
  return rc;
}

static bool is_loopback(const char *host, size_t len)
{
  char text[64];
  struct in_addr addr;
  snprintf(text, sizeof text, "%.*s", (int)(len < 63 ? len : 63), host);
  if (strcmp(text, "[::1]") == 0 || strcasecmp(text, "localhost") == 0) return true;
  return inet_pton(AF_INET, text, &addr) == 1 && ntohl(addr.s_addr) >> 24 == 127;
}

static size_t host_len(const char *host)
{
  return *host == '[' ? strcspn(host, "]/") + (strchr(host, ']') != NULL) : strcspn(host, ":/");
}

/* What is not plainly an address is refused, so that what is judged here is what is connected to.
 */
static int take_url(struct remote *e, const char *url, bool plain_http, struct err *err)
{
  bool plain = strncasecmp(url, "http://", 7) == 0;
  if (!plain && strncasecmp(url, "https://", 8) != 0)
    return bad_url(e, url, "does not begin with https://", err);
  const char *host = strchr(url, ':') + 3;
  for (const char *p = host; *p; p++)
    if (!isalnum((unsigned char)*p) && !strchr(".-_~:[]/%", *p))
      return bad_url(e, host, "has a character that no address has", err);
  size_t len = host_len(host);
  if (len == 0) return bad_url(e, url, "has no host", err);
  if (plain && !plain_http && !is_loopback(host, len)) {
    int rc = err_arg(err, "url", "engine \"%s\": http:// would send the key to %.*s in the clear",
                     e->base.name, (int)len, host);
    err_hint(err, "use https://, or say plain_http = true in the configuration of this engine");
    return rc;
  }
  struct buf b = {0};
  const char *path = strchr(host, '/');
  buf_puts(&b, url);
  while (b.len > 0 && b.data[b.len - 1] == '/') b.data[--b.len] = '\0';
  if (!path || strspn(path, "/") == strlen(path)) buf_puts(&b, REMOTE_OPERATIONS);
  e->base_url = buf_take(&b, NULL);
  e->plain_http = plain;
  return 0;
}

char *remote_list_url(const struct remote *e)
{
  const char *operations = strstr(e->base_url, REMOTE_OPERATIONS);
  if (e->few_fields || !operations) return NULL;
  struct buf b = {0};
  buf_printf(&b, "%.*s/v1/sandboxes", (int)(operations - e->base_url), e->base_url);
  return buf_take(&b, NULL);
}

static int take_key(struct remote *e, const char *key, struct err *err)
{
  for (const char *p = key; *p; p++)
    if (*p <= ' ' || *p > '~')
      return err_arg(err, "key", "engine \"%s\": its key has a space or control character",
                     e->base.name);
  if (*key) e->key = xstrdup(key);
  return 0;
}

static int no_url(const struct remote *e, struct err *err)
{
  int rc = err_arg(err, "url", "engine \"%s\" has no address", e->base.name);
  err_hint(err, "REGOLITH_URL=https://… and REGOLITH_API_KEY=sk-… name it, or the configuration: "
                "engines = { NAME = { type = \"remote\", url = … } }");
  return rc;
}

static int take_options(struct remote *e, const struct val *options, struct err *err)
{
  const char *url = val_get_str(options, "url", NULL), *ca = val_get_str(options, "ca_file", NULL);
  const char *state = val_get_str(options, "state", NULL);
  if (!url || !*url) return no_url(e, err);
  int rc = take_url(e, url, val_get_bool(options, "plain_http", false), err);
  if (rc == 0) rc = take_key(e, val_get_str(options, "key", ""), err);
  if (rc == 0 && ca) e->ca_file = xstrdup(ca);
  if (rc == 0 && state) e->state = xstrdup(state);
  e->few_fields = val_get_bool(options, "few_fields", false);
  return rc;
}

static void set_env(struct val *options, const char *field, const char *name)
{
  const char *value = getenv(name);
  if (value && *value) val_set(options, field, val_str(value));
}

bool remote_preset(const char *name, struct val *ret)
{
  bool service = strcmp(name, "jarvisclaw") == 0;
  if (!service && strcmp(name, "remote") != 0) return false;
  *ret = val_map();
  if (service) val_add(ret, "few_fields", val_bool(true));
  if (service) val_add(ret, "url", val_str("https://api.jarvisclaw.ai" REMOTE_OPERATIONS));
  set_env(ret, "url", service ? "JARVISCLAW_BASE_URL" : "REGOLITH_URL");
  set_env(ret, "key", service ? "JARVISCLAW_API_KEY" : "REGOLITH_API_KEY");
  return true;
}

static int bad_key_file(const char *path, int sys_errno, const char *why, struct err *err)
{
  int rc = err_arg(err, "key_file", "%.200s %s", path, why);
  if (err) err->sys_errno = sys_errno;
  return sys_errno ? -sys_errno : rc;
}

int remote_read_key(const char *path, char **ret, struct err *err)
{
  char text[KEY_MAX + 1];
  struct stat st;
  cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 || fstat(fd, &st) < 0) return bad_key_file(path, errno, strerror(errno), err);
  if (!S_ISREG(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0))
    return bad_key_file(path, 0, "is not a file of yours", err);
  if (st.st_mode & 077) {
    int rc = bad_key_file(path, 0, "may be read by others", err);
    err_hint(err, "chmod 600 %.200s", path);
    return rc;
  }
  ssize_t n = read(fd, text, KEY_MAX);
  while (n > 0 && isspace((unsigned char)text[n - 1])) n--;
  if (n <= 0) return bad_key_file(path, 0, "has no key in it", err);
  text[n] = '\0';
  *ret = xstrdup(text);
  return 0;
}

/* ---- the vtable ---- */

static void remote_free(struct remote *e)
{
  if (e->key) explicit_bzero(e->key, strlen(e->key));
  free(e->key);
  free(e->base_url);
  free(e->ca_file);
  remote_orphans_free(e);
  remote_journal_close(e);
  free(e->state);
  free(e);
}

static int open_remote(struct engine **ret, const struct engine_conf *conf, struct err *err)
{
  struct remote *e = xcalloc(1, sizeof *e);
  e->base.ops = &remote_engine_ops;
  memcpy(e->base.name, conf->name, strnlen(conf->name, sizeof e->base.name - 1));
  e->loop = conf->loop;
  list_init(&e->calls);
  list_init(&e->boxes);
  list_init(&e->left_folders);
  list_init(&e->orphans);
  e->journal = -1;
  int rc = take_options(e, conf->options, err);
  if (rc < 0) {
    remote_free(e);
    return rc;
  }
  remote_orphans_start(e);
  *ret = &e->base;
  return 0;
}

static int create(struct engine *e, struct create_op *op, struct err *err)
{
  return remote_create((struct remote *)e, op, err);
}

static int exec(struct engine *e, struct exec_op *op, struct err *err)
{
  (void)e;
  return remote_exec(op->box, op, err);
}

static int kill_remote(struct engine *e, struct kill_op *op, struct err *err)
{
  (void)e;
  if (op->create) return remote_cancel(op->create, op, err);
  if (op->leave) return remote_leave(op->box, op, err);
  return op->exec ? remote_exec_kill(op->exec, op, err) : remote_terminate(op->box, op, err);
}

static int look(struct engine *e, struct look_op *op, struct err *err)
{
  (void)e;
  return remote_look(op->box, op, err);
}

static int check(struct engine *e, struct check_op *op, struct err *err)
{
  return remote_check((struct remote *)e, op, err);
}

static void detached(struct engine *e, struct engine_box *b)
{
  remote_journal_over((struct remote *)e, b->idem);
}

static void flow(struct engine *e, struct exec_op *op, bool paused)
{
  (void)e;
  remote_exec_flow(op, paused);
}

static void on_closed(void *engine)
{
  struct remote *e = engine;
  void (*done)(void *) = e->done;
  void *data = e->done_data;
  remote_free(e);
  done(data);
}

static void close_remote(struct engine *engine, void (*done)(void *data), void *data)
{
  struct remote *e = (struct remote *)engine;
  e->done = done;
  e->done_data = data;
  remote_calls_close(e, on_closed);
  LIST_FOREACH_SAFE (it, &e->boxes) {
    struct engine_box *b = list_entry(it, struct engine_box, node);
    remote_look_drop(b);
    remote_runs_drop(b);
    remote_box_free(b);
  }
}

const struct engine_ops remote_engine_ops = {
    .name = "remote",
    .caps = ENGINE_CAP_GPU | ENGINE_CAP_NETWORK | ENGINE_CAP_OUTLIVES_HOST | ENGINE_CAP_VOLUMES |
            ENGINE_CAP_ENTRYPOINT,
    .open = open_remote,
    .create = create,
    .exec = exec,
    .kill = kill_remote,
    .exec_flow = flow,
    .look = look,
    .check = check,
    .detached = detached,
    .close = close_remote,
};

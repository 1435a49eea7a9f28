/* Credentials for registries, and what registries ask for.
 *
 * Files are read each time: they are small and change under us. A helper is the program
 * docker-credential-NAME, found in PATH, asked with "get": the registry's name on its stdin, JSON
 * on its stdout. It gets 30 seconds. Secrets are wiped before their memory is freed, and appear in
 * no message. */
#include "image/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/val.h"

#define FILE_MAX_BYTES    (1024 * 1024)
#define HELPER_TIMEOUT_MS 30000
#define HUB_KEY           "https://index.docker.io/v1/"

extern char **environ;

static void wipe(char *secret)
{
  if (!secret) return;
  explicit_bzero(secret, strlen(secret));
  free(secret);
}

void image_credential_free(struct image_credential *c)
{
  free(c->user);
  wipe(c->password);
  wipe(c->identity_token);
  *c = (struct image_credential){0};
}

static int base64_value(char c)
{
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes "user:password". */
static int decode_auth(const char *text, struct image_credential *ret)
{
  char *out = xmalloc(strlen(text) + 1);
  size_t n = 0;
  unsigned bits = 0, have = 0;
  for (const char *p = text; *p && *p != '='; p++) {
    int v = base64_value(*p);
    if (v < 0) break;
    bits = bits << 6 | (unsigned)v;
    have += 6;
    if (have < 8) continue;
    have -= 8;
    out[n++] = (char)(bits >> have);
  }
  out[n] = '\0';
  char *colon = strchr(out, ':');
  if (colon) {
    *colon = '\0';
    ret->user = xstrdup(out);
    ret->password = xstrdup(colon + 1);
    explicit_bzero(colon + 1, strlen(colon + 1));
  }
  explicit_bzero(out, n);
  free(out);
  return colon ? 0 : -EINVAL;
}

/* Whether a key of "auths" is the registry: keys may be URLs. */
static bool key_matches(const char *key, const char *domain)
{
  if (strcmp(domain, "docker.io") == 0 && strcmp(key, HUB_KEY) == 0) return true;
  const char *host = strstr(key, "://");
  host = host ? host + 3 : key;
  size_t len = strcspn(host, "/");
  if (len != strlen(domain) || strncmp(host, domain, len) != 0) return false;
  return host[len] == '\0' || strcmp(host + len, "/") == 0 || strncmp(host + len, "/v", 2) == 0;
}

static int take_auth(const struct val *entry, struct image_credential *ret, struct err *err)
{
  const char *token = val_get_str(entry, "identitytoken", "");
  const char *auth = val_get_str(entry, "auth", "");
  const char *user = val_get_str(entry, "username", "");
  if (*token) {
    ret->identity_token = xstrdup(token);
  } else if (*auth) {
    if (decode_auth(auth, ret) < 0)
      return err_set(err, ERR_INVALID_ARGUMENT, 0, "an \"auth\" is not base64 of user:password");
  } else if (*user) {
    ret->user = xstrdup(user);
    ret->password = xstrdup(val_get_str(entry, "password", ""));
  }
  return 0;
}

int image_credential_parse(const char *text, size_t len, const char *domain,
                           struct image_credential *ret, char **ret_helper, struct err *err)
{
  *ret = (struct image_credential){0};
  *ret_helper = NULL;
  struct val v = {0};
  int rc = json_parse(&v, text, len, err);
  if (rc < 0) return rc;
  const struct val *helpers = val_get(&v, "credHelpers"), *auths = val_get(&v, "auths");
  const char *helper = NULL;
  for (size_t i = 0; helpers && helpers->type == VAL_MAP && i < helpers->map.n; i++)
    if (key_matches(helpers->map.v[i].key, domain) && helpers->map.v[i].val.type == VAL_STR)
      helper = helpers->map.v[i].val.s.p;
  for (size_t i = 0; !helper && auths && auths->type == VAL_MAP && i < auths->map.n; i++)
    if (key_matches(auths->map.v[i].key, domain)) {
      rc = take_auth(&auths->map.v[i].val, ret, err);
      break;
    }
  if (!helper && !ret->user && !ret->identity_token) helper = val_get_str(&v, "credsStore", NULL);
  if (rc == 0 && helper && *helper) *ret_helper = xstrdup(helper);
  val_free(&v);
  if (rc < 0) image_credential_free(ret);
  return rc;
}

/* Starts the helper; its stdin is what we write, its stdout what we read. */
static int spawn_helper(const char *helper, pid_t *ret_pid, int *ret_in, int *ret_out)
{
  int in[2], out[2];
  char program[256];
  snprintf(program, sizeof program, "docker-credential-%.200s", helper);
  if (strchr(helper, '/')) return -EINVAL;
  if (pipe2(in, O_CLOEXEC) < 0) return -errno;
  if (pipe2(out, O_CLOEXEC) < 0) {
    int rc = -errno;
    close(in[0]);
    close(in[1]);
    return rc;
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  char get[] = "get";
  char *argv[] = {program, get, NULL};
  int rc = posix_spawnp(ret_pid, program, &actions, NULL, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  *ret_in = in[1];
  *ret_out = out[0];
  if (rc == 0) return 0;
  close(in[1]);
  close(out[0]);
  return -rc;
}

static int read_until_deadline(int fd, struct buf *out)
{
  uint64_t until = clock_mono_ms() + HELPER_TIMEOUT_MS;
  for (;;) {
    uint64_t now = clock_mono_ms();
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n = now < until ? poll(&p, 1, (int)(until - now)) : 0;
    if (n == 0) return -ETIMEDOUT;
    if (n < 0 && errno != EINTR) return -errno;
    if (n < 0) continue;
    buf_reserve(out, 4096);
    ssize_t got = read(fd, out->data + out->len, 4096);
    if (got == 0) return 0;
    if (got < 0) return -errno;
    out->len += (size_t)got;
    if (out->len > FILE_MAX_BYTES) return -EFBIG;
  }
}

static int parse_helper_answer(const struct buf *text, struct image_credential *ret,
                               struct err *err)
{
  struct val v = {0};
  int rc = json_parse(&v, text->data ? text->data : "", text->len, err);
  if (rc < 0) return rc;
  const char *user = val_get_str(&v, "Username", ""), *secret = val_get_str(&v, "Secret", "");
  if (strcmp(user, "<token>") == 0) {
    ret->identity_token = xstrdup(secret);
  } else if (*user) {
    ret->user = xstrdup(user);
    ret->password = xstrdup(secret);
  }
  val_free(&v);
  return 0;
}

static int ask_helper(const char *helper, const char *domain, struct image_credential *ret,
                      struct err *err)
{
  pid_t pid;
  int in = -1, out = -1, status = 0;
  int rc = spawn_helper(helper, &pid, &in, &out);
  if (rc < 0)
    return err_set(err, ERR_UNAUTHORIZED, -rc, "cannot run docker-credential-%.100s: %s", helper,
                   strerror(-rc));
  const char *key = strcmp(domain, "docker.io") == 0 ? HUB_KEY : domain;
  ssize_t n = write(in, key, strlen(key));
  close(in);
  struct buf text = {0};
  rc = n < 0 ? -errno : read_until_deadline(out, &text);
  close(out);
  if (rc < 0) kill(pid, SIGKILL);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (rc < 0)
    rc = err_set(err, ERR_UNAUTHORIZED, -rc, "docker-credential-%.100s failed: %s", helper,
                 strerror(-rc));
  else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    rc = parse_helper_answer(&text, ret, err);
  /* any other end means that the helper has nothing for this registry: anonymous */
  if (text.data) explicit_bzero(text.data, text.len);
  buf_free(&text);
  return rc;
}

/* One file, if it exists. */
static int try_file(const char *path, const char *domain, struct image_credential *ret,
                    struct err *err)
{
  cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  struct buf text = {0};
  ssize_t n = 1;
  while (n > 0 && text.len < FILE_MAX_BYTES) {
    buf_reserve(&text, 4096);
    n = read(fd, text.data + text.len, 4096);
    if (n > 0) text.len += (size_t)n;
  }
  char *helper = NULL;
  int rc = n < 0 ? err_set(err, ERR_UNAUTHORIZED, errno, "cannot read: %s", strerror(errno))
                 : image_credential_parse(text.data, text.len, domain, ret, &helper, err);
  if (rc == 0 && helper) rc = ask_helper(helper, domain, ret, err);
  if (rc < 0) err_wrap(err, "%s", path);
  free(helper);
  explicit_bzero(text.data, text.len);
  buf_free(&text);
  return rc;
}

int image_credential_find(const char *domain, struct image_credential *ret, struct err *err)
{
  static const struct {
    const char *variable, *name;
  } places[] = {{"REGISTRY_AUTH_FILE", ""},
                {"XDG_RUNTIME_DIR", "/containers/auth.json"},
                {"DOCKER_CONFIG", "/config.json"},
                {"HOME", "/.docker/config.json"}};
  *ret = (struct image_credential){0};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    const char *value = getenv(places[i].variable);
    if (!value || !*value) continue;
    /* DOCKER_CONFIG takes the place of ~/.docker */
    if (strcmp(places[i].variable, "HOME") == 0 && getenv("DOCKER_CONFIG")) continue;
    struct buf path = {0};
    buf_printf(&path, "%s%s", value, places[i].name);
    int rc = try_file(path.data, domain, ret, err);
    buf_free(&path);
    if (rc < 0 || ret->user || ret->identity_token) return rc;
  }
  return 0;
}

/* name=value or name="value" at *p; moves *p behind it. */
static bool next_parameter(const char **p, struct buf *name, struct buf *value)
{
  const char *at = *p + strspn(*p, " \t,");
  size_t len = strcspn(at, " \t,=\"");
  if (len == 0 || at[len] != '=') return false;
  name->len = value->len = 0;
  buf_append(name, at, len);
  at += len + 1;
  if (*at == '"') {
    for (at++; *at && *at != '"'; at++) {
      if (*at == '\\' && at[1]) at++;
      buf_putc(value, *at);
    }
    if (*at == '"') at++;
  } else {
    len = strcspn(at, " \t,");
    buf_append(value, at, len);
    at += len;
  }
  buf_puts(value, "");
  *p = at;
  return true;
}

static void keep(char **slot, const struct buf *value)
{
  free(*slot);
  *slot = xstrdup(value->data ? value->data : "");
}

void image_challenge_parse(const char *header, struct image_challenge *ret)
{
  *ret = (struct image_challenge){0};
  struct buf name = {0}, value = {0};
  bool in_bearer = false;
  for (const char *p = header; *p;) {
    p += strspn(p, " \t,");
    if (next_parameter(&p, &name, &value)) {
      if (!in_bearer) continue;
      if (strcasecmp(name.data, "realm") == 0) keep(&ret->realm, &value);
      if (strcasecmp(name.data, "service") == 0) keep(&ret->service, &value);
      if (strcasecmp(name.data, "scope") == 0) keep(&ret->scope, &value);
      continue;
    }
    size_t len = strcspn(p, " \t,");
    if (len == 0) break;
    in_bearer = len == 6 && strncasecmp(p, "Bearer", 6) == 0;
    ret->bearer |= in_bearer;
    ret->basic |= len == 5 && strncasecmp(p, "Basic", 5) == 0;
    p += len;
  }
  buf_free(&name);
  buf_free(&value);
}

void image_challenge_free(struct image_challenge *c)
{
  free(c->realm);
  free(c->service);
  free(c->scope);
  *c = (struct image_challenge){0};
}

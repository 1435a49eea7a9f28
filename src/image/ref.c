/* References: how an image is named, from what people type to the full form.
 *
 * The grammar is that of the distribution project: [domain/]path[:tag][@digest]. The first part is
 * a domain when it holds a dot or a colon, has capitals, or is "localhost"; without one the domain
 * is docker.io, where a path of one part lives under "library/". Only sha256 digests are known.
 * Lengths are bounded as registries bound them, so that a reference always fits a path. */
#include "image/ref.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define NAME_MAX_LEN   255
#define TAG_MAX_LEN    128
#define DIGEST_HEX_LEN 64
#define PREFIX_MIN_LEN 6

static bool is_lower_alnum(char c)
{
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
  return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

static bool is_hex(const char *s, size_t len)
{
  for (size_t i = 0; i < len; i++)
    if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f'))) return false;
  return true;
}

bool image_digest_valid(const char *digest)
{
  return digest && strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == 7 + DIGEST_HEX_LEN &&
         is_hex(digest + 7, DIGEST_HEX_LEN);
}

bool image_digest_prefix(const char *text, const char **ret_hex)
{
  bool marked = strncmp(text, "sha256:", 7) == 0;
  const char *hex = marked ? text + 7 : text;
  size_t len = strlen(hex);
  *ret_hex = hex;
  return len >= (marked ? 1u : PREFIX_MIN_LEN) && len <= DIGEST_HEX_LEN && is_hex(hex, len);
}

/* One part of a path: runs of [a-z0-9], parted by one '.', one or two '_', or any number of '-'. */
static bool path_part_valid(const char *s, size_t len)
{
  if (len == 0 || !is_lower_alnum(s[0]) || !is_lower_alnum(s[len - 1])) return false;
  for (size_t i = 1; i < len; i++) {
    if (is_lower_alnum(s[i]) || s[i] == '-') continue;
    if (s[i] != '.' && s[i] != '_') return false;
    if (s[i - 1] == '-' || s[i + 1] == '-' || s[i - 1] == '.') return false;
    if (s[i] == '.' && s[i - 1] == '_') return false;
    if (s[i] == '_' && s[i - 1] == '_' && s[i - 2] == '_') return false;
  }
  return true;
}

static bool path_valid(const char *path)
{
  for (;;) {
    size_t len = strcspn(path, "/");
    if (!path_part_valid(path, len)) return false;
    if (path[len] == '\0') return true;
    path += len + 1;
  }
}

static bool domain_label_valid(const char *s, size_t len)
{
  if (len == 0 || !is_alnum(s[0]) || !is_alnum(s[len - 1])) return false;
  for (size_t i = 0; i < len; i++)
    if (!is_alnum(s[i]) && s[i] != '-') return false;
  return true;
}

static bool port_valid(const char *s)
{
  size_t len = strlen(s);
  return len > 0 && len <= 5 && strspn(s, "0123456789") == len && atoi(s) > 0 && atoi(s) <= 65535;
}

/* host[:port], where host is labels parted by dots, or [IPv6]. */
static bool domain_valid(const char *domain)
{
  if (domain[0] == '[') {
    size_t len = strspn(domain + 1, "0123456789abcdefABCDEF:.");
    const char *end = domain + 1 + len;
    if (len < 2 || *end != ']') return false;
    return end[1] == '\0' || (end[1] == ':' && port_valid(end + 2));
  }
  const char *p = domain;
  for (;;) {
    size_t len = strcspn(p, ".:");
    if (!domain_label_valid(p, len)) return false;
    p += len;
    if (*p == '\0') return true;
    if (*p++ == ':') return port_valid(p);
  }
}

static bool tag_valid(const char *tag)
{
  size_t len = strlen(tag);
  if (len == 0 || len > TAG_MAX_LEN || tag[0] == '.' || tag[0] == '-') return false;
  for (size_t i = 0; i < len; i++)
    if (!is_alnum(tag[i]) && !strchr("_.-", tag[i])) return false;
  return true;
}

static bool looks_like_domain(const char *s, size_t len)
{
  if (len == 9 && strncmp(s, "localhost", 9) == 0) return true;
  for (size_t i = 0; i < len; i++)
    if (s[i] == '.' || s[i] == ':' || (s[i] >= 'A' && s[i] <= 'Z')) return true;
  return false;
}

/* Splits name into domain and path, with the defaults of Docker Hub. */
static void split_name(struct image_ref *ref, const char *name)
{
  size_t first = strcspn(name, "/");
  if (name[first] == '/' && looks_like_domain(name, first)) {
    ref->domain = strndup(name, first);
    ref->path = xstrdup(name + first + 1);
  } else {
    ref->domain = xstrdup("docker.io");
    ref->path = xstrdup(name);
  }
  if (!ref->domain) abort();
  if (strcmp(ref->domain, "index.docker.io") == 0) {
    free(ref->domain);
    ref->domain = xstrdup("docker.io");
  }
  if (strcmp(ref->domain, "docker.io") == 0 && !strchr(ref->path, '/')) {
    struct buf full = {0};
    buf_printf(&full, "library/%s", ref->path);
    free(ref->path);
    ref->path = buf_take(&full, NULL);
  }
}

static int check(const struct image_ref *ref, const char *text, struct err *err)
{
  if (ref->digest && !image_digest_valid(ref->digest))
    return err_arg(err, "image", "\"%s\": a digest is sha256: and 64 hex digits", text);
  if (ref->tag && !tag_valid(ref->tag))
    return err_arg(err, "image", "\"%s\": a tag is 1 to 128 of letters, digits and _ . -", text);
  if (!domain_valid(ref->domain))
    return err_arg(err, "image", "\"%s\": \"%s\" is no host name", text, ref->domain);
  for (const char *p = ref->path; *p; p++)
    if (*p >= 'A' && *p <= 'Z')
      return err_arg(err, "image", "\"%s\": image names have no capitals", text);
  if (!path_valid(ref->path))
    return err_arg(err, "image",
                   "\"%s\" is no image name: [registry/]name[:tag][@sha256:…], as in python:3.11",
                   text);
  if (strlen(ref->domain) + 1 + strlen(ref->path) > NAME_MAX_LEN)
    return err_arg(err, "image", "the image name is over %d characters", NAME_MAX_LEN);
  return 0;
}

int image_ref_parse(struct image_ref *ret, const char *text, struct err *err)
{
  *ret = (struct image_ref){0};
  if (strlen(text) > NAME_MAX_LEN + TAG_MAX_LEN + IMAGE_DIGEST_SIZE + 2)
    return err_arg(err, "image", "the image name is over %d characters", NAME_MAX_LEN);
  char *name = xstrdup(text);
  char *at = strchr(name, '@');
  if (at) {
    *at = '\0';
    ret->digest = xstrdup(at + 1);
  }
  char *colon = strrchr(name, ':');
  if (colon && !strchr(colon, '/')) {
    *colon = '\0';
    ret->tag = xstrdup(colon + 1);
  }
  split_name(ret, name);
  free(name);
  if (!ret->tag && !ret->digest) ret->tag = xstrdup("latest");
  int rc = check(ret, text, err);
  if (rc < 0) image_ref_free(ret);
  return rc;
}

void image_ref_free(struct image_ref *ref)
{
  free(ref->domain);
  free(ref->path);
  free(ref->tag);
  free(ref->digest);
  *ref = (struct image_ref){0};
}

void image_ref_copy(struct image_ref *ret, const struct image_ref *ref)
{
  ret->domain = xstrdup(ref->domain);
  ret->path = xstrdup(ref->path);
  ret->tag = ref->tag ? xstrdup(ref->tag) : NULL;
  ret->digest = ref->digest ? xstrdup(ref->digest) : NULL;
}

void image_ref_print(struct buf *out, const struct image_ref *ref)
{
  buf_printf(out, "%s/%s", ref->domain, ref->path);
  if (ref->tag) buf_printf(out, ":%s", ref->tag);
  if (ref->digest) buf_printf(out, "@%s", ref->digest);
}

const char *image_ref_selector(const struct image_ref *ref)
{
  return ref->digest ? ref->digest : ref->tag;
}

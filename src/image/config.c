/* The image configuration: parsed from JSON that a stranger wrote.
 *
 * Everything is optional but rootfs.diff_ids, which must be digests. A member of another type than
 * the specification says is an error and not a default: an image whose Cmd is a number was made by
 * a broken tool, and running something else than it meant would be worse. Sizes are bounded by the
 * caller (a configuration is at most 4 MiB). Values with a NUL cannot occur: JSON parsing refuses
 * them in keys, and here in values. */
#include "image/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/val.h"
#include "image/document.h"
#include "image/ref.h"

#define LAYERS_MAX      500
#define WORD_MAX        20
#define WORD_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

void image_strings_add(struct image_strings *s, const char *item)
{
  if ((s->n & (s->n - 1)) == 0) /* room is a power of two */
    s->v = xrealloc(s->v, (s->n ? 2 * s->n : 1) * sizeof *s->v);
  s->v[s->n++] = xstrdup(item);
}

void image_strings_free(struct image_strings *s)
{
  for (size_t i = 0; i < s->n; i++) free(s->v[i]);
  free(s->v);
  *s = (struct image_strings){0};
}

static int bad(struct err *err, const char *key, const char *want)
{
  return err_set(err, ERR_INVALID_ARGUMENT, 0, "the image configuration is malformed: %s is not %s",
                 key, want);
}

static bool plain(const struct val *v)
{
  return v->type == VAL_STR && strlen(v->s.p) == v->s.len;
}

static const struct val *member(const struct val *map, const char *key)
{
  const struct val *v = map ? val_get(map, key) : NULL;
  return v && v->type != VAL_NIL ? v : NULL;
}

static int get_string(char **ret, const struct val *map, const char *key, struct err *err)
{
  const struct val *v = member(map, key);
  if (!v) return 0;
  if (!plain(v)) return bad(err, key, "a string");
  if (v->s.len > 0) *ret = xstrdup(v->s.p);
  return 0;
}

/* What machines are called by: shown in lists, and compared. */
static int get_word(char **ret, const struct val *map, const char *key, struct err *err)
{
  int rc = get_string(ret, map, key, err);
  size_t len = rc == 0 && *ret ? strlen(*ret) : 0;
  if (len > WORD_MAX || (len && strspn(*ret, WORD_CHARACTERS) != len))
    return bad(err, key, "a word of at most 20 letters and digits");
  return rc;
}

static int get_strings(struct image_strings *ret, const struct val *map, const char *key,
                       struct err *err)
{
  const struct val *v = member(map, key);
  if (!v) return 0;
  if (v->type == VAL_STR && plain(v)) { /* Docker's old shell form */
    image_strings_add(ret, "/bin/sh");
    image_strings_add(ret, "-c");
    image_strings_add(ret, v->s.p);
    return 0;
  }
  if (v->type != VAL_LIST) return bad(err, key, "a list of strings");
  for (size_t i = 0; i < v->list.n; i++) {
    if (!plain(&v->list.v[i])) return bad(err, key, "a list of strings");
    image_strings_add(ret, v->list.v[i].s.p);
  }
  return 0;
}

/* Env entries without "=" or with an empty name would confuse every reader of an environment. */
static int get_env(struct image_strings *ret, const struct val *map, struct err *err)
{
  const struct val *v = member(map, "Env");
  if (!v) return 0;
  if (v->type != VAL_LIST) return bad(err, "Env", "a list of strings");
  for (size_t i = 0; i < v->list.n; i++) {
    const struct val *item = &v->list.v[i];
    if (!plain(item)) return bad(err, "Env", "a list of strings");
    if (item->s.p[0] == '=' || !strchr(item->s.p, '=')) continue;
    image_strings_add(ret, item->s.p);
  }
  return 0;
}

static int get_keys(struct image_strings *ret, const struct val *map, const char *key,
                    struct err *err)
{
  const struct val *v = member(map, key);
  if (!v) return 0;
  if (v->type != VAL_MAP) return bad(err, key, "an object");
  for (size_t i = 0; i < v->map.n; i++) image_strings_add(ret, v->map.v[i].key);
  return 0;
}

static int get_labels(struct image_strings *ret, const struct val *map, struct err *err)
{
  const struct val *v = member(map, "Labels");
  if (!v) return 0;
  if (v->type != VAL_MAP) return bad(err, "Labels", "an object");
  for (size_t i = 0; i < v->map.n; i++) {
    if (!plain(&v->map.v[i].val)) return bad(err, "Labels", "an object of strings");
    struct buf item = {0};
    buf_printf(&item, "%s=%s", v->map.v[i].key, v->map.v[i].val.s.p);
    image_strings_add(ret, item.data);
    buf_free(&item);
  }
  return 0;
}

static int get_layers(struct image_config *ret, const struct val *root, struct err *err)
{
  const struct val *rootfs = member(root, "rootfs");
  if (!rootfs || rootfs->type != VAL_MAP) return bad(err, "rootfs", "an object");
  const struct val *ids = member(rootfs, "diff_ids");
  if (!ids) return 0;
  if (ids->type != VAL_LIST || ids->list.n > LAYERS_MAX)
    return bad(err, "rootfs.diff_ids", "a list of at most 500 digests");
  for (size_t i = 0; i < ids->list.n; i++) {
    const struct val *id = &ids->list.v[i];
    if (!plain(id) || !image_digest_valid(id->s.p))
      return bad(err, "rootfs.diff_ids", "a list of sha256 digests");
    image_strings_add(&ret->diff_ids, id->s.p);
  }
  return 0;
}

static int get_all(struct image_config *ret, const struct val *root, struct err *err)
{
  if (root->type != VAL_MAP) return bad(err, "the whole", "an object");
  const struct val *run = member(root, "config");
  if (run && run->type != VAL_MAP) return bad(err, "config", "an object");
  int rc = get_word(&ret->os, root, "os", err);
  if (rc == 0) rc = get_word(&ret->architecture, root, "architecture", err);
  if (rc == 0) rc = get_word(&ret->variant, root, "variant", err);
  if (rc == 0) rc = get_string(&ret->created, root, "created", err);
  if (rc == 0) rc = get_layers(ret, root, err);
  if (rc == 0) rc = get_env(&ret->env, run, err);
  if (rc == 0) rc = get_strings(&ret->entrypoint, run, "Entrypoint", err);
  if (rc == 0) rc = get_strings(&ret->cmd, run, "Cmd", err);
  if (rc == 0) rc = get_string(&ret->working_dir, run, "WorkingDir", err);
  if (rc == 0) rc = get_string(&ret->user, run, "User", err);
  if (rc == 0) rc = get_string(&ret->stop_signal, run, "StopSignal", err);
  if (rc == 0) rc = get_keys(&ret->ports, run, "ExposedPorts", err);
  if (rc == 0) rc = get_labels(&ret->labels, run, err);
  return rc;
}

int image_config_parse(struct image_config *ret, const char *text, size_t len, struct err *err)
{
  *ret = (struct image_config){0};
  struct val root = {0};
  int rc = image_document_parse(&root, text, len, "the image configuration", err);
  if (rc < 0) return rc;
  rc = get_all(ret, &root, err);
  val_free(&root);
  if (rc < 0) image_config_free(ret);
  return rc;
}

void image_config_free(struct image_config *config)
{
  free(config->os);
  free(config->architecture);
  free(config->variant);
  free(config->created);
  free(config->working_dir);
  free(config->user);
  free(config->stop_signal);
  image_strings_free(&config->env);
  image_strings_free(&config->entrypoint);
  image_strings_free(&config->cmd);
  image_strings_free(&config->ports);
  image_strings_free(&config->labels);
  image_strings_free(&config->diff_ids);
  *config = (struct image_config){0};
}

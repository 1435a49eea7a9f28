/* Manifests and indexes: OCI and Docker schema 2, parsed from JSON that a stranger wrote.
 *
 * The two families differ in names of types only. What a document is follows from its own mediaType
 * where it has one, else from what the server said, else from its members. Sizes and digests are
 * checked here, so that everything behind works with well-formed descriptors. */
#include "image/manifest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/buf.h"
#include "base/val.h"
#include "image/document.h"
#include "image/ref.h"

#define ENTRIES_MAX   1000
#define BLOB_MAX_SIZE (INT64_C(1) << 40) /* 1 TiB: a size beyond it is a lie */

static int bad(struct err *err, const char *what)
{
  return err_set(err, ERR_INVALID_ARGUMENT, 0, "the image manifest is malformed: %s", what);
}

static char *copy_string(const struct val *map, const char *key)
{
  const char *s = map ? val_get_str(map, key, NULL) : NULL;
  return s && *s ? xstrdup(s) : NULL;
}

static int parse_desc(struct image_desc *ret, const struct val *v, struct err *err)
{
  if (!v || v->type != VAL_MAP) return bad(err, "a descriptor is not an object");
  const char *digest = val_get_str(v, "digest", "");
  if (!image_digest_valid(digest)) return bad(err, "a descriptor has no sha256 digest");
  const struct val *size = val_get(v, "size");
  if (!size || size->type != VAL_INT || size->i < 0 || size->i > BLOB_MAX_SIZE)
    return bad(err, "a descriptor has no valid size");
  ret->media_type = copy_string(v, "mediaType");
  ret->digest = xstrdup(digest);
  ret->size = size->i;
  const struct val *platform = val_get(v, "platform");
  ret->os = copy_string(platform, "os");
  ret->architecture = copy_string(platform, "architecture");
  ret->variant = copy_string(platform, "variant");
  return 0;
}

static void desc_free(struct image_desc *d)
{
  free(d->media_type);
  free(d->digest);
  free(d->os);
  free(d->architecture);
  free(d->variant);
}

static int parse_entries(struct image_manifest *ret, const struct val *list, struct err *err)
{
  if (!list || list->type != VAL_LIST) return bad(err, "it lists neither layers nor manifests");
  if (list->list.n > ENTRIES_MAX) return bad(err, "it lists over 1000 entries");
  ret->entries = xcalloc(list->list.n + 1, sizeof *ret->entries);
  for (size_t i = 0; i < list->list.n; i++) {
    int rc = parse_desc(&ret->entries[ret->entries_n++], &list->list.v[i], err);
    if (rc < 0) return rc;
  }
  return 0;
}

/* Layers we cannot use, by name: the error must not come from the decompressor. */
static int check_layer(const struct image_desc *layer, struct err *err)
{
  const char *type = layer->media_type ? layer->media_type : "";
  if (strstr(type, "encrypted"))
    return err_set(err, ERR_UNSUPPORTED, 0, "the image has encrypted layers (%s)", type);
  if (strstr(type, "foreign"))
    return err_set(err, ERR_UNSUPPORTED, 0, "the image has layers of another vendor's server (%s)",
                   type);
  if (!strstr(type, "tar"))
    return err_set(err, ERR_UNSUPPORTED, 0, "not a container image: it has a layer of type \"%s\"",
                   type);
  return 0;
}

static int parse_manifest(struct image_manifest *ret, const struct val *root, struct err *err)
{
  int rc = parse_desc(&ret->config, val_get(root, "config"), err);
  if (rc == 0) rc = parse_entries(ret, val_get(root, "layers"), err);
  if (rc < 0) return rc;
  const char *type = ret->config.media_type ? ret->config.media_type : "";
  if (strcmp(type, IMAGE_TYPE_OCI_CONFIG) != 0 &&
      strcmp(type, "application/vnd.docker.container.image.v1+json") != 0)
    return err_set(err, ERR_UNSUPPORTED, 0,
                   "not a container image: its configuration is of type \"%s\"", type);
  for (size_t i = 0; i < ret->entries_n && rc == 0; i++) rc = check_layer(&ret->entries[i], err);
  return rc;
}

static int parse_root(struct image_manifest *ret, const struct val *root, const char *content_type,
                      struct err *err)
{
  if (root->type != VAL_MAP) return bad(err, "it is not an object");
  int64_t version = val_get_int(root, "schemaVersion", 2);
  if (version == 1)
    return err_set(err, ERR_UNSUPPORTED, 0,
                   "the registry has this image in Docker's schema 1 only, which ended in 2019");
  if (version != 2) return bad(err, "its schemaVersion is not 2");
  const char *type = val_get_str(root, "mediaType", content_type ? content_type : "");
  bool says_index =
      strcmp(type, IMAGE_TYPE_OCI_INDEX) == 0 || strcmp(type, IMAGE_TYPE_V2_LIST) == 0;
  bool has_index = val_get(root, "manifests") != NULL, has_layers = val_get(root, "layers") != NULL;
  /* A document that is both has been used to show different things to different clients. */
  if (has_index && has_layers) return bad(err, "it is a manifest and an index at once");
  ret->is_index = says_index || has_index;
  if (ret->is_index) return parse_entries(ret, val_get(root, "manifests"), err);
  return parse_manifest(ret, root, err);
}

int image_manifest_parse(struct image_manifest *ret, const char *text, size_t len,
                         const char *content_type, struct err *err)
{
  *ret = (struct image_manifest){0};
  struct val root = {0};
  int rc = image_document_parse(&root, text, len, "the image manifest", err);
  if (rc < 0) return rc;
  rc = parse_root(ret, &root, content_type, err);
  val_free(&root);
  if (rc < 0) image_manifest_free(ret);
  return rc;
}

void image_manifest_free(struct image_manifest *m)
{
  desc_free(&m->config);
  for (size_t i = 0; i < m->entries_n; i++) desc_free(&m->entries[i]);
  free(m->entries);
  *m = (struct image_manifest){0};
}

void image_platform_host(struct image_platform *ret)
{
  static const struct {
    const char *machine, *architecture, *variant;
  } known[] = {{"x86_64", "amd64", NULL},
               {"aarch64", "arm64", "v8"},
               {"armv7l", "arm", "v7"},
               {"i686", "386", NULL},
               {"ppc64le", "ppc64le", NULL}};
  static struct utsname uts;
  uname(&uts);
  *ret = (struct image_platform){.os = "linux", .architecture = uts.machine};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcmp(uts.machine, known[i].machine) == 0) {
      ret->architecture = known[i].architecture;
      ret->variant = known[i].variant;
    }
}

static bool same(const char *a, const char *b)
{
  return strcmp(a ? a : "", b ? b : "") == 0;
}

const struct image_desc *image_manifest_select(const struct image_manifest *index,
                                               const struct image_platform *platform)
{
  const struct image_desc *any = NULL;
  for (size_t i = 0; i < index->entries_n; i++) {
    const struct image_desc *e = &index->entries[i];
    if (!same(e->os, platform->os) || !same(e->architecture, platform->architecture)) continue;
    if (same(e->variant, platform->variant)) return e;
    if (!any) any = e;
  }
  return any;
}

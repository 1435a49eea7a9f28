/* regolith image import, export and verify: images from and to files, and the store against its own
 * lists. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/plain.h"
#include "base/val.h"
#include "cli/cli.h"
#include "cli/cmd_image.h"
#include "image/part.h"
#include "image/store.h"

static int open_part(const struct image_part **ret, struct err *err)
{
  const struct part_head *head;
  int rc = part_open("image", sizeof **ret, &head, err);
  if (rc == 0) *ret = (const struct image_part *)head;
  return rc;
}

/* --- import --- */

static void say_layer(void *data, const char *diff_id)
{
  (void)data;
  fprintf(stderr, "%.12s: unpacked\n", diff_id + 7);
}

struct import_options {
  bool quiet;
};

static const struct cli_option import_table[] = {
    {"quiet", 'q', CLI_FLAG, offsetof(struct import_options, quiet), NULL, "Show no progress"},
    {0}};

static int compare_ref(void *data, const char *ref, const char *digest, struct err *err)
{
  (void)ref, (void)err;
  return strcmp(digest, data) == 0; /* 1: found, which ends the walk */
}

static bool is_named(struct image_store *store, char *digest)
{
  return image_store_each_ref(store, compare_ref, digest, NULL) == 1;
}

static int run_import(int argc, char **argv)
{
  struct import_options o = {0};
  struct err err = {0};
  int first, dashes, rc = cli_parse(&cmd_image_import, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  if (argc - first < 1 || argc - first > 2) {
    err_arg(&err, "", "image import takes a source and a name: rootfs:/some/dir my/image:1");
    return cli_usage_err(&cmd_image_import, &err);
  }
  const struct image_part *part = NULL;
  struct image_store *store = NULL;
  char digest[IMAGE_DIGEST_SIZE];
  rc = image_open(&store, true, &err);
  if (rc == 0) rc = image_store_tidy(store, &err);
  if (rc == 0) rc = open_part(&part, &err);
  if (rc == 0) {
    struct image_import_conf conf = {.store = store,
                                     .source = argv[first],
                                     .name = argc - first == 2 ? argv[first + 1] : NULL,
                                     .on_layer = o.quiet ? NULL : say_layer};
    rc = part->import(&conf, digest, &err);
  }
  if (rc == 0) puts(digest);
  if (rc == 0 && !is_named(store, digest))
    fprintf(stderr, "regolith: it has no name: `regolith image gc` will remove it; say one as "
                    "the last operand\n");
  image_store_close(store);
  return rc == 0 ? CLI_EXIT_OK : image_fail(&err);
}

const struct cli_command cmd_image_import = {
    .name = "image import",
    .summary = "Take in an image from files",
    .usage = "SOURCE [NAME]",
    .options = import_table,
    .details = "SOURCE is one of\n"
               "  oci:DIR[:TAG]         an OCI layout\n"
               "  docker-archive:FILE   what docker save writes\n"
               "  rootfs:DIR            a folder with a root file system, or a tar of one\n"
               "Without NAME the archive's own name counts, if it has one.\n",
    .run = run_import,
};

/* --- export --- */

static int run_export(int argc, char **argv)
{
  struct err err = {0};
  int first, dashes, rc = cli_parse(&cmd_image_export, argc, argv, NULL, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  if (argc - first != 2) {
    err_arg(&err, "", "image export takes an image and where to: python:3.11 oci:DIR");
    return cli_usage_err(&cmd_image_export, &err);
  }
  const struct image_part *part = NULL;
  struct image_store *store = NULL;
  struct image_record r = {0};
  struct image_lease *lease = NULL;
  struct image_ref ref = {0};
  char digest[IMAGE_DIGEST_SIZE];
  rc = image_open(&store, true, &err);
  if (rc == 0) rc = image_store_acquire(store, argv[first], &r, &lease, &err);
  if (rc == 0) rc = open_part(&part, &err);
  if (rc == 0) {
    bool named = image_ref_parse(&ref, argv[first], NULL) == 0 && ref.tag;
    struct image_export_conf conf = {
        .store = store, .record = &r, .target = argv[first + 1], .tag = named ? ref.tag : NULL};
    rc = part->export(&conf, digest, &err);
  }
  if (rc == 0) puts(digest);
  image_ref_free(&ref);
  image_lease_free(lease);
  image_record_free(&r);
  image_store_close(store);
  return rc == 0 ? CLI_EXIT_OK : image_fail(&err);
}

const struct cli_command cmd_image_export = {
    .name = "image export",
    .summary = "Write an image as an OCI layout",
    .usage = "NAME oci:DIR",
    .details = "Layers are packed anew, so the exported image has digests of its own.\n",
    .run = run_export,
};

/* --- verify --- */

struct verify_all {
  const struct image_part *part;
  struct image_store *store;
  size_t faults, images;
};

static void print_fault(void *data, const char *text)
{
  (void)data;
  cleanup_free char *line = xstrdup(text);
  plain(line);
  puts(line);
}

static int verify_one(void *data, const struct image_record *r, struct err *err)
{
  struct verify_all *all = data;
  struct image_verify_conf conf = {
      .store = all->store, .record = r, .on_fault = print_fault, .ret_faults = &all->faults};
  all->images++;
  return all->part->verify(&conf, err);
}

static int verify_named(struct verify_all *all, const char *name, struct err *err)
{
  struct image_record r = {0};
  struct image_lease *lease = NULL;
  int rc = image_store_acquire(all->store, name, &r, &lease, err);
  if (rc == 0) rc = verify_one(all, &r, err);
  image_lease_free(lease);
  image_record_free(&r);
  return rc;
}

static int run_verify(int argc, char **argv)
{
  struct err err = {0};
  int first, dashes, rc = cli_parse(&cmd_image_verify, argc, argv, NULL, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct verify_all all = {0};
  rc = image_open(&all.store, true, &err);
  if (rc == 0) rc = open_part(&all.part, &err);
  if (rc == 0 && first >= argc) rc = image_store_each(all.store, verify_one, &all, &err);
  for (int i = first; rc == 0 && i < argc; i++) rc = verify_named(&all, argv[i], &err);
  image_store_close(all.store);
  if (rc < 0) return image_fail(&err);
  printf("%zu image%s verified, %zu fault%s\n", all.images, all.images == 1 ? "" : "s", all.faults,
         all.faults == 1 ? "" : "s");
  if (all.faults)
    fprintf(stderr,
            "regolith: mend damaged images with: regolith image rm NAME, then pull again\n");
  return all.faults ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

const struct cli_command cmd_image_verify = {
    .name = "image verify",
    .summary = "Check every file of images against its digest",
    .usage = "[NAME...]",
    .run = run_verify,
};

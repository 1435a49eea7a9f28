/* regolith image: the commands about images.
 *
 * Each is a command of its own with a table of options; this file picks one and has those that only
 * look at the store. Commands that write or remove layers first enter the user's own user namespace
 * (image/ids.c), because layers hold files of many owners. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/plain.h"
#include "base/val.h"
#include "cli/cli.h"
#include "cli/cmd_image.h"
#include "image/config.h"
#include "image/ids.h"
#include "image/settings.h"
#include "image/store.h"
#include "wire/op.h"

static const struct cli_command *const subcommands[] = {
    &cmd_image_pull,    &cmd_image_push,   &cmd_image_import, &cmd_image_export, &cmd_image_ls,
    &cmd_image_inspect, &cmd_image_verify, &cmd_image_rm,     &cmd_image_gc,     NULL,
};

/* Run by the engine, and not listed. */
static const struct cli_command *const internal[] = {&cmd_image_upper_diff, &cmd_image_upper_commit,
                                                     NULL};

void image_err_plain(struct err *err)
{
  plain(err->msg);
  plain(err->hint);
}

int image_fail(const struct err *err)
{
  struct err said = *err;
  image_err_plain(&said);
  cli_print_err(&said);
  /* A malformed image is no mistake of the command line. */
  if (err->kind == ERR_INVALID_ARGUMENT && !err->field[0]) return CLI_EXIT_FAILED;
  return err_info(err->kind)->cli_exit;
}

int image_open(struct image_store **ret, bool writes, struct err *err)
{
  int rc = writes ? image_ids_enter(err) : 0;
  return rc < 0 ? rc : image_store_open(ret, NULL, err);
}

static void add_words(struct strv *out, const struct image_strings *words)
{
  for (size_t i = 0; i < words->n; i++) strv_add(out, words->v[i]);
}

int image_default_command(const char *name, struct strv *ret, struct err *err)
{
  struct image_store *store = NULL;
  struct image_record r = {0};
  struct image_config c = {0};
  int rc = image_open(&store, false, err);
  if (rc == 0) rc = image_store_find(store, name, &r, err);
  if (rc == 0) rc = image_store_config(store, &r, &c, err);
  if (rc == 0) {
    add_words(ret, &c.entrypoint);
    add_words(ret, &c.cmd);
    if (ret->n == 0) {
      rc = err_set(err, ERR_INVALID_ARGUMENT, 0, "the image %s names no command", name);
      err_hint(err, "say one: regolith exec --image %s -- COMMAND ARGUMENT...", name);
    }
  }
  image_config_free(&c);
  image_record_free(&r);
  image_store_close(store);
  return rc;
}

/* --- ls --- */

struct list_options {
  bool json, quiet;
};

struct listing {
  struct image_store *store;
  struct image_strings refs, digests; /* side by side */
  struct val rows;
  const struct list_options *options;
};

static int note_ref(void *data, const char *ref, const char *digest, struct err *err)
{
  (void)err;
  struct listing *l = data;
  image_strings_add(&l->refs, ref);
  image_strings_add(&l->digests, digest);
  return 0;
}

static uint64_t image_bytes(struct image_store *store, const struct image_record *r)
{
  uint64_t total = 0;
  for (size_t i = 0; i < r->layers_n; i++) {
    uint64_t bytes;
    image_store_layer_size(store, r->layers[i], &bytes, NULL);
    total += bytes;
  }
  return total;
}

static void add_row(struct listing *l, const struct image_record *r, const char *ref)
{
  char when[CLOCK_ISO_SIZE];
  struct val row = val_map();
  val_add(&row, "name", val_str(ref));
  val_add(&row, "digest", val_str(r->digest));
  val_add(&row, "platform", val_str(r->platform));
  val_add(&row, "layers", val_int((int64_t)r->layers_n));
  val_add(&row, "bytes", val_int((int64_t)image_bytes(l->store, r)));
  clock_format_iso(r->added_at, when);
  val_add(&row, "added_at", val_str(when));
  clock_format_iso(r->used_at, when);
  val_add(&row, "used_at", val_str(when));
  val_push(&l->rows, row);
}

static int list_image(void *data, const struct image_record *r, struct err *err)
{
  (void)err;
  struct listing *l = data;
  bool named = false;
  for (size_t i = 0; i < l->refs.n; i++) {
    if (strcmp(l->digests.v[i], r->digest) != 0) continue;
    add_row(l, r, l->refs.v[i]);
    named = true;
  }
  if (!named) add_row(l, r, NULL);
  return 0;
}

static int compare_rows(const void *a, const void *b)
{
  return strcmp(val_get_str(a, "name", "~"), val_get_str(b, "name", "~"));
}

/* docker.io/library/python:3.11 is python:3.11 to people. */
static const char *short_name(const char *ref)
{
  if (strncmp(ref, "docker.io/library/", 18) == 0) return ref + 18;
  return strncmp(ref, "docker.io/", 10) == 0 ? ref + 10 : ref;
}

static void print_rows(const struct listing *l)
{
  if (!l->options->quiet)
    printf("%-44s %-14s %-12s %6s %10s  %s\n", "NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE",
           "ADDED");
  for (size_t i = 0; i < l->rows.list.n; i++) {
    const struct val *row = &l->rows.list.v[i];
    const char *digest = val_get_str(row, "digest", "") + 7;
    if (l->options->quiet) {
      printf("sha256:%s\n", digest);
      continue;
    }
    printf("%-44s %-14.12s %-12s %6lld %6.1f MiB  %s\n",
           short_name(val_get_str(row, "name", "(no name)")), digest,
           val_get_str(row, "platform", ""), (long long)val_get_int(row, "layers", 0),
           (double)val_get_int(row, "bytes", 0) / 1048576.0, val_get_str(row, "added_at", ""));
  }
}

/* JSON may hold C1 controls as they are; terminals need not see them. */
static void print_json(const struct val *v)
{
  struct buf line = {0};
  json_print(&line, v);
  for (const unsigned char *p = (const unsigned char *)line.data; *p; p++)
    if (p[0] == 0xC2 && p[1] < 0xA0)
      printf("\\u%04x", *++p);
    else
      putchar(*p);
  putchar('\n');
  buf_free(&line);
}

static const struct cli_option list_table[] = {
    {"json", 0, CLI_FLAG, offsetof(struct list_options, json), NULL, "Print one JSON array"},
    {"quiet", 'q', CLI_FLAG, offsetof(struct list_options, quiet), NULL, "Print digests only"},
    {0},
};

static int run_ls(int argc, char **argv)
{
  struct list_options o = {0};
  int first, dashes, rc = cli_parse(&cmd_image_ls, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  struct listing l = {.rows = val_list(), .options = &o};
  rc = image_open(&l.store, false, &err);
  if (rc == 0) rc = image_store_each_ref(l.store, note_ref, &l, &err);
  if (rc == 0) rc = image_store_each(l.store, list_image, &l, &err);
  if (rc == 0 && l.rows.list.n)
    qsort(l.rows.list.v, l.rows.list.n, sizeof *l.rows.list.v, compare_rows);
  if (rc == 0 && o.json) print_json(&l.rows);
  if (rc == 0 && !o.json) print_rows(&l);
  image_strings_free(&l.refs);
  image_strings_free(&l.digests);
  val_free(&l.rows);
  image_store_close(l.store);
  return rc == 0 ? CLI_EXIT_OK : image_fail(&err);
}

const struct cli_command cmd_image_ls = {
    .name = "image ls",
    .summary = "List the images in the store",
    .usage = "",
    .options = list_table,
    .run = run_ls,
};

/* --- inspect --- */

static struct val strings_val(const struct image_strings *s)
{
  struct val list = val_list();
  for (size_t i = 0; i < s->n; i++) val_push(&list, val_str(s->v[i]));
  return list;
}

static struct val layers_val(struct image_store *store, const struct image_record *r)
{
  struct val layers = val_list();
  for (size_t i = 0; i < r->layers_n; i++) {
    uint64_t bytes, entries;
    char id[IMAGE_LAYER_ID_SIZE];
    struct buf path = {0};
    image_store_layer_size(store, r->layers[i], &bytes, &entries);
    image_layer_id(r->layers[i], id);
    buf_printf(&path, "%s/layers/%s", image_store_root(store), id);
    struct val layer = val_map();
    val_add(&layer, "diff_id", val_str(r->layers[i]));
    val_add(&layer, "bytes", val_int((int64_t)bytes));
    val_add(&layer, "entries", val_int((int64_t)entries));
    val_add(&layer, "path", val_str(path.data));
    val_push(&layers, layer);
    buf_free(&path);
  }
  return layers;
}

static struct val describe(struct image_store *store, const struct image_record *r,
                           const struct image_config *c)
{
  struct val v = val_map();
  val_add(&v, "digest", val_str(r->digest));
  val_add(&v, "config", val_str(r->config));
  val_add(&v, "platform", val_str(r->platform));
  val_add(&v, "created", val_str(c->created));
  val_add(&v, "env", strings_val(&c->env));
  val_add(&v, "entrypoint", strings_val(&c->entrypoint));
  val_add(&v, "cmd", strings_val(&c->cmd));
  val_add(&v, "working_dir", val_str(c->working_dir));
  val_add(&v, "user", val_str(c->user));
  val_add(&v, "stop_signal", val_str(c->stop_signal));
  val_add(&v, "ports", strings_val(&c->ports));
  val_add(&v, "labels", strings_val(&c->labels));
  val_add(&v, "layers", layers_val(store, r));
  return v;
}

static int operand(const struct cli_command *cmd, int argc, int first, const char *what)
{
  if (argc - first == 1) return CLI_GO_ON;
  struct err err = {0};
  err_arg(&err, "", "%s takes one operand: %s", cmd->name, what);
  return cli_usage_err(cmd, &err);
}

static int run_inspect(int argc, char **argv)
{
  int first, dashes, rc = cli_parse(&cmd_image_inspect, argc, argv, NULL, &first, &dashes);
  if (rc == CLI_GO_ON) rc = operand(&cmd_image_inspect, argc, first, "the image's name or digest");
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  struct image_store *store = NULL;
  struct image_record r = {0};
  struct image_config c = {0};
  rc = image_open(&store, false, &err);
  if (rc == 0) rc = image_store_find(store, argv[first], &r, &err);
  if (rc == 0) rc = image_store_config(store, &r, &c, &err);
  if (rc == 0) {
    struct val v = describe(store, &r, &c);
    print_json(&v);
    val_free(&v);
  }
  image_config_free(&c);
  image_record_free(&r);
  image_store_close(store);
  return rc == 0 ? CLI_EXIT_OK : image_fail(&err);
}

const struct cli_command cmd_image_inspect = {
    .name = "image inspect",
    .summary = "Show what is known about an image, as JSON",
    .usage = "NAME",
    .run = run_inspect,
};

/* --- rm, gc --- */

static void print_freed(const struct image_gc_result *r)
{
  printf("removed %zu image%s and %zu layer%s, %.1f MiB\n", r->images, r->images == 1 ? "" : "s",
         r->layers, r->layers == 1 ? "" : "s", (double)r->bytes / 1048576.0);
}

static int run_rm(int argc, char **argv)
{
  int first, dashes, rc = cli_parse(&cmd_image_rm, argc, argv, NULL, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  if (first >= argc) {
    err_arg(&err, "", "image rm needs the names or digests of images");
    return cli_usage_err(&cmd_image_rm, &err);
  }
  struct image_store *store = NULL;
  struct image_gc_result total = {0};
  int status = CLI_EXIT_OK;
  rc = image_open(&store, true, &err);
  if (rc < 0) return image_fail(&err);
  for (int i = first; i < argc; i++) {
    struct image_gc_result one;
    struct err why = {0};
    if (image_store_rm(store, argv[i], &one, &why) < 0) {
      status = image_fail(&why);
      continue;
    }
    total.images += one.images;
    total.layers += one.layers;
    total.bytes += one.bytes;
    if (one.in_use)
      fprintf(stderr,
              "regolith: %s lost its name; a sandbox uses it: `regolith image gc` removes "
              "it later\n",
              argv[i]);
  }
  if (status == CLI_EXIT_OK || total.images) print_freed(&total);
  image_store_close(store);
  return status;
}

const struct cli_command cmd_image_rm = {
    .name = "image rm",
    .summary = "Remove images by name or digest",
    .usage = "NAME...",
    .run = run_rm,
};

struct gc_options {
  const char *max_size;
};

static const struct cli_option gc_table[] = {
    {"max-size", 0, CLI_STR, offsetof(struct gc_options, max_size), "SIZE",
     "Also remove the least recently used images until the layers fit, as in 20GiB"},
    {0},
};

static int run_gc(int argc, char **argv)
{
  struct gc_options o = {0};
  int first, dashes, rc = cli_parse(&cmd_image_gc, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  struct err err = {0};
  struct image_settings settings = {0};
  struct image_store *store = NULL;
  struct image_gc_result result = {0};
  uint64_t max_bytes = 0;
  if (o.max_size && image_size_parse(o.max_size, &max_bytes, &err) < 0)
    return cli_usage_err(&cmd_image_gc, &err);
  rc = image_settings_load(&settings, &err);
  if (rc == 0 && !o.max_size) max_bytes = settings.max_bytes;
  if (rc == 0) rc = image_open(&store, true, &err);
  if (rc == 0) rc = image_store_gc(store, max_bytes, &result, &err);
  if (rc == 0) print_freed(&result);
  if (rc == 0 && result.in_use)
    fprintf(stderr, "regolith: what is left is in use and larger than the limit\n");
  image_settings_free(&settings);
  image_store_close(store);
  return rc == 0 ? CLI_EXIT_OK : image_fail(&err);
}

const struct cli_command cmd_image_gc = {
    .name = "image gc",
    .summary = "Remove what nothing uses: images without a name, layers without an image",
    .usage = "",
    .options = gc_table,
    .run = run_gc,
};

/* --- the command itself --- */

static void print_overview(void)
{
  printf("usage: regolith image COMMAND [OPTION]... [OPERAND]...\n\n"
         "Container images: what sandboxes are made of.\n\ncommands:\n");
  for (const struct cli_command *const *c = subcommands; *c; c++)
    printf("  %-10s %s\n", (*c)->name + strlen("image "), (*c)->summary);
  printf("\n`regolith image COMMAND --help` shows one command.\n");
}

static int run_image(int argc, char **argv)
{
  if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
    print_overview();
    return argc < 2 ? CLI_EXIT_USAGE : CLI_EXIT_OK;
  }
  for (const struct cli_command *const *c = subcommands; *c; c++)
    if (strcmp((*c)->name + strlen("image "), argv[1]) == 0) return (*c)->run(argc - 1, argv + 1);
  for (const struct cli_command *const *c = internal; *c; c++)
    if (strcmp((*c)->name + strlen("image "), argv[1]) == 0) return (*c)->run(argc - 1, argv + 1);
  struct err err = {0};
  err_arg(&err, "", "there is no command \"image %s\"", argv[1]);
  return cli_usage_err(&cmd_image, &err);
}

const struct cli_command cmd_image = {
    .name = "image",
    .summary = "Pull, list and remove container images",
    .usage = "COMMAND",
    .details =
        "commands: pull push import export ls inspect verify rm gc; `regolith image --help` says "
        "what they do\n",
    .run = run_image,
};

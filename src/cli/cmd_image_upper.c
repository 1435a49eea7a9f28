/* What the local engine runs for sb:diff and sb:snapshot, as a process of its own: it reads the
 * sandbox's upper folder, a hostile tree, and for an ordinary user it has to be in the user
 * namespace whose ids own the files. Not for people: descriptor 3 is that folder.
 *
 *   image upper-diff     prints one change after another: A, M or D, its type, its path, a NUL
 *   image upper-commit   prints one JSON object: { "digest": … } or { "error": … }, and keeps the
 *                        image until its reader has a lease of its own and hangs up
 *
 * An error of upper-diff is an E, "-" and the same JSON object. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/val.h"
#include "cli/cli.h"
#include "cli/cmd_image.h"
#include "image/diff.h"
#include "image/part.h"
#include "image/settings.h"
#include "image/store.h"

enum { UPPER_FD = 3 };

struct upper_options {
  const char *base, *dir, *name, *note;
  uint32_t first, rest;
  uint64_t max_bytes;
};

#define AT(member) offsetof(struct upper_options, member)
static const struct cli_option table[] = {
    {"base", 0, CLI_STR, AT(base), "DIGEST", "The image below"},
    {"dir", 0, CLI_STR, AT(dir), "DIR", "The folder below"},
    {"first", 0, CLI_UINT, AT(first), "ID", "Owner of root's files"},
    {"rest", 0, CLI_UINT, AT(rest), "ID", "Owner of the files of user 1, and so on"},
    {"max-size", 0, CLI_SIZE, AT(max_bytes), "SIZE", "Of all files in it, holes counted"},
    {"name", 0, CLI_STR, AT(name), "NAME", "Of the new image"},
    {"note", 0, CLI_STR, AT(note), "TEXT", "For its history"},
    {0},
};
#undef AT

static void print_json(struct val v)
{
  struct buf line = {0};
  json_print(&line, &v);
  puts(line.data);
  buf_free(&line);
  val_free(&v);
}

static int fail(struct err *err)
{
  struct val v = val_map(), e = val_map();
  image_err_plain(err);
  val_add(&e, "code", val_str(err_info(err->kind)->code));
  val_add(&e, "message", val_str(err->msg));
  if (err->hint[0]) val_add(&e, "hint", val_str(err->hint));
  val_add(&v, "error", e);
  print_json(v);
  return CLI_EXIT_FAILED;
}

static bool is_upper(void)
{
  struct stat st;
  return fstat(UPPER_FD, &st) == 0 && S_ISDIR(st.st_mode);
}

static int parse(const struct cli_command *cmd, int argc, char **argv, struct upper_options *ret)
{
  struct err err = {0};
  int first, dashes, rc = cli_parse(cmd, argc, argv, ret, &first, &dashes);
  if (rc != CLI_GO_ON || (is_upper() && first == argc && (ret->base || ret->dir))) return rc;
  err_arg(&err, "", "%s is run by regolith itself", cmd->name);
  return cli_usage_err(cmd, &err);
}

/* --- upper-diff --- */

static int print_change(void *data, enum diff_kind kind, char type, const char *path,
                        struct err *err)
{
  (void)data;
  if (printf("%c%c%s%c", "AMD"[kind], type, path, '\0') > 0) return 0;
  return err_set(err, ERR_INTERNAL, errno, "cannot write: %s", strerror(errno));
}

struct lower {
  int *fds; /* owned, topmost first */
  size_t n;
};

static int open_layers(struct image_store *store, const struct image_record *r, struct lower *ret,
                       struct err *err)
{
  ret->fds = xcalloc(r->layers_n + 1, sizeof *ret->fds);
  for (size_t i = r->layers_n; i-- > 0;) {
    int fd = image_store_open_layer(store, r->layers[i], err);
    if (fd < 0) return fd;
    ret->fds[ret->n++] = fd;
  }
  return 0;
}

static int open_dir(const char *path, struct lower *ret, struct err *err)
{
  ret->fds = xcalloc(1, sizeof *ret->fds);
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return err_set(err, ERR_NOT_FOUND, errno, "cannot open %s", path);
  ret->fds[ret->n++] = fd;
  return 0;
}

static int diff(const struct upper_options *o, struct err *err)
{
  struct image_store *store = NULL;
  struct image_record r = {0};
  struct lower lower = {0};
  int rc = image_open(&store, true, err);
  if (rc == 0 && o->base) rc = image_store_find(store, o->base, &r, err);
  if (rc == 0) rc = o->base ? open_layers(store, &r, &lower, err) : open_dir(o->dir, &lower, err);
  if (rc == 0) {
    struct diff_conf conf = {.upper_fd = UPPER_FD,
                             .lower = lower.fds,
                             .lower_n = lower.n,
                             .user_xattrs = image_store_user_xattrs(store),
                             .root_owner = o->first,
                             .on_change = print_change};
    rc = image_diff(&conf, err);
  }
  while (lower.n > 0) close(lower.fds[--lower.n]);
  free(lower.fds);
  image_record_free(&r);
  image_store_close(store);
  return rc;
}

static int run_diff(int argc, char **argv)
{
  struct upper_options o = {0};
  struct err err = {0};
  int rc = parse(&cmd_image_upper_diff, argc, argv, &o);
  if (rc != CLI_GO_ON) return rc;
  if (diff(&o, &err) == 0) return CLI_EXIT_OK;
  fputs("E-", stdout);
  fail(&err);
  putchar('\0');
  return CLI_EXIT_FAILED;
}

const struct cli_command cmd_image_upper_diff = {
    .name = "image upper-diff",
    .summary = "What a sandbox changed; run by regolith itself",
    .usage = "",
    .options = table,
    .run = run_diff,
};

/* --- upper-commit --- */

enum { HOLD_MS = 30000 };

/* Until the other end of stdout is closed. */
static void hold(void)
{
  struct pollfd p = {.fd = STDOUT_FILENO};
  fflush(stdout);
  while (poll(&p, 1, HOLD_MS) < 0 && errno == EINTR) continue;
}

static void print_digest(const char *digest)
{
  struct val v = val_map();
  val_add(&v, "digest", val_str(digest));
  print_json(v);
}

/* The limit of the settings holds after every commit; what was made is in use meanwhile. */
static int keep(struct image_store *store, const struct image_settings *settings,
                const char *digest, struct err *err)
{
  struct image_record made = {0};
  struct image_lease *lease = NULL;
  int rc = image_store_acquire(store, digest, &made, &lease, err);
  if (rc == 0 && settings->max_bytes) rc = image_store_gc(store, settings->max_bytes, NULL, err);
  if (rc == 0) {
    print_digest(digest);
    hold();
  }
  image_lease_free(lease);
  image_record_free(&made);
  return rc;
}

static int commit(const struct upper_options *o, struct err *err)
{
  const struct part_head *head;
  const struct image_part *part;
  struct image_settings settings = {0};
  struct image_store *store = NULL;
  struct image_record base = {0};
  char digest[IMAGE_DIGEST_SIZE];
  int rc = image_settings_load(&settings, err);
  if (rc == 0) rc = image_open(&store, true, err);
  if (rc == 0) rc = image_store_tidy(store, err);
  if (rc == 0) rc = image_store_find(store, o->base, &base, err);
  if (rc == 0) rc = part_open("image", sizeof *part, &head, err);
  if (rc == 0) {
    part = (const struct image_part *)head;
    struct image_commit_conf conf = {.store = store,
                                     .base = &base,
                                     .upper_fd = UPPER_FD,
                                     .first = o->first,
                                     .rest = o->rest,
                                     .max_bytes = o->max_bytes,
                                     .name = o->name,
                                     .note = o->note};
    rc = part->commit(&conf, digest, err);
  }
  if (rc == 0) rc = keep(store, &settings, digest, err);
  image_record_free(&base);
  image_store_close(store);
  image_settings_free(&settings);
  return rc;
}

static int run_commit(int argc, char **argv)
{
  struct upper_options o = {0};
  struct err err = {0};
  int rc = parse(&cmd_image_upper_commit, argc, argv, &o);
  if (rc != CLI_GO_ON) return rc;
  if (!o.base) return CLI_EXIT_USAGE;
  return commit(&o, &err) < 0 ? fail(&err) : CLI_EXIT_OK;
}

const struct cli_command cmd_image_upper_commit = {
    .name = "image upper-commit",
    .summary = "An image of what a sandbox changed; run by regolith itself",
    .usage = "",
    .options = table,
    .run = run_commit,
};

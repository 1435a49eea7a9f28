/* Unpacking a layer while it arrives.
 *
 * Two readers of libarchive, one behind the other: the outer takes off the compression (as format
 * "raw"), the inner reads the tar; between them the plain archive is hashed, before them the blob.
 * Nothing is buffered but libarchive's own blocks, so memory does not grow with the layer. The
 * files themselves are written by tree.c; libarchive's own writer is not used. Everything to the
 * end of the stream is read and hashed, also what lies behind the end of the archive.
 *
 * Each entry is also noted in the layer's list, one line, in the order of the archive (the last
 * line of a path counts; "-" stands for a device left out, "i" for a folder no entry mentioned):
 *   TYPE MODE UID GID SIZE MTIME DIGEST PATH[ LINK]     paths percent-encoded
 * The list is what `verify` holds the layer against, and where times of folders are taken from once
 * all is written. Runs on a thread of its own, with a locale of its own: libarchive converts names
 * by the thread's, and names must stay the bytes they are. */
#include "image/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "image/digest.h"
#include "image/list.h"
#include "image/store.h"
#include "image/tree.h"

struct unpack {
  const struct unpack_conf *conf;
  struct unpack_result *result;
  struct archive *outer, *inner;            /* owned */
  struct image_digest *blob, *plain, *file; /* owned */
  struct tree *tree;                        /* owned */
  struct list_writer *list;                 /* owned; NULL = none wanted */
  bool padded;                              /* the end of the plain archive was reached */
  struct err err;                           /* what a callback could only report as "failed" */
};

static int fail_archive(struct unpack *u, struct archive *a, struct err *err)
{
  if (u->err.kind != ERR_NONE) {
    if (err) *err = u->err;
    return err_errno(&u->err);
  }
  const char *text = archive_error_string(a);
  return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG, "the layer is not a valid tar archive: %s",
                 text ? text : "no reason given");
}

static la_ssize_t read_blob(struct archive *a, void *data, const void **ret)
{
  struct unpack *u = data;
  ssize_t n = u->conf->read(u->conf->source, ret, &u->err);
  if (n < 0) {
    archive_set_error(a, EIO, "%s", u->err.msg);
    return ARCHIVE_FATAL;
  }
  image_digest_add(u->blob, *ret, (size_t)n);
  u->result->blob_bytes += (uint64_t)n;
  return n;
}

static la_ssize_t read_plain(struct archive *a, void *data, const void **ret)
{
  struct unpack *u = data;
  size_t len = 0;
  la_int64_t offset;
  int rc = archive_read_data_block(u->outer, ret, &len, &offset);
  if (rc == ARCHIVE_EOF) { /* some tools leave out the padding of the last file */
    static const char zeros[512];
    size_t missing = (512 - u->result->archive_bytes % 512) % 512;
    *ret = zeros;
    if (u->padded) return 0;
    u->padded = true;
    return (la_ssize_t)missing;
  }
  if (rc < ARCHIVE_WARN) {
    fail_archive(u, u->outer, &u->err);
    archive_set_error(a, EIO, "%s", u->err.msg);
    return ARCHIVE_FATAL;
  }
  image_digest_add(u->plain, *ret, len);
  u->result->archive_bytes += len;
  return (la_ssize_t)len;
}

static int open_outer(struct unpack *u, struct err *err)
{
  u->outer = archive_read_new();
  u->inner = archive_read_new();
  if (!u->outer || !u->inner) return err_set(err, ERR_CAPACITY, ENOMEM, "out of memory");
  archive_read_support_filter_gzip(u->outer);
  archive_read_support_filter_zstd(u->outer);
  archive_read_support_format_raw(u->outer);
  archive_read_support_format_empty(u->outer);
  archive_read_support_format_tar(u->inner);
  archive_read_support_format_empty(u->inner);
  if (archive_read_open(u->outer, u, NULL, read_blob, NULL) != ARCHIVE_OK)
    return fail_archive(u, u->outer, err);
  return 0;
}

/* What comes before the first plain byte. An empty blob has no entry at all. */
static int open_inner(struct unpack *u, struct err *err)
{
  struct archive_entry *entry;
  int rc = archive_read_next_header(u->outer, &entry);
  if (rc == ARCHIVE_EOF)
    return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG,
                   "the layer is not a valid tar archive: "
                   "it is empty");
  if (rc < ARCHIVE_WARN) return fail_archive(u, u->outer, err);
  if (archive_read_open(u->inner, u, NULL, read_plain, NULL) != ARCHIVE_OK)
    return fail_archive(u, u->inner, err);
  return 0;
}

static int over_limit(struct err *err, const char *what)
{
  return err_set(err, ERR_PAYLOAD_TOO_LARGE, EFBIG, "the layer is refused: it has too many %s",
                 what);
}

/* Holes stay holes on disk; the digest covers them as the zeros they read as. */
static void hash_hole(struct unpack *u, uint64_t len)
{
  static const char zeros[65536];
  while (len > 0) {
    size_t n = len < sizeof zeros ? (size_t)len : sizeof zeros;
    image_digest_add(u->file, zeros, n);
    len -= n;
  }
}

static int write_at(int fd, const char *data, size_t len, off_t at)
{
  while (len > 0) {
    ssize_t n = pwrite(fd, data, len, at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    data += n;
    at += n;
    len -= (size_t)n;
  }
  return 0;
}

static int write_data(struct unpack *u, const struct tree_entry *e, int fd, uint64_t size,
                      struct err *err)
{
  uint64_t at = 0; /* hashed so far */
  for (;;) {
    const void *data;
    size_t len;
    la_int64_t offset;
    int rc = archive_read_data_block(u->inner, &data, &len, &offset);
    if (rc == ARCHIVE_EOF) break;
    if (rc < ARCHIVE_WARN) return fail_archive(u, u->inner, err);
    if (len == 0) continue;
    if (u->padded)
      return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG,
                     "the layer is not a valid tar archive: it ends in the middle of \"%.200s\"",
                     e->path);
    if ((uint64_t)offset < at || (uint64_t)offset + len > size)
      return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG,
                     "the layer is refused: \"%.200s\" has data outside its size", e->path);
    hash_hole(u, (uint64_t)offset - at);
    image_digest_add(u->file, data, len);
    at = (uint64_t)offset + len;
    rc = write_at(fd, data, len, (off_t)offset);
    if (rc < 0) {
      err_set(err, ERR_ENGINE_UNAVAILABLE, -rc, "cannot write \"%.200s\" of the layer: %s", e->path,
              strerror(-rc));
      if (rc == -ENOSPC || rc == -EDQUOT)
        err_hint(err, "make room: regolith image gc, or regolith image rm NAME");
      return rc;
    }
  }
  if (at == size) return 0;
  hash_hole(u, size - at);
  if (ftruncate(fd, (off_t)size) < 0)
    return err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot write \"%.200s\" of the layer: %s",
                   e->path, strerror(errno));
  return 0;
}

static int add_file(struct unpack *u, struct archive_entry *ae, const struct tree_entry *e,
                    char digest[IMAGE_DIGEST_SIZE], uint64_t *ret_size, struct err *err)
{
  la_int64_t size = archive_entry_size_is_set(ae) ? archive_entry_size(ae) : 0;
  if (size < 0 || (uint64_t)size > u->conf->limits.max_bytes - u->result->bytes)
    return over_limit(err, "bytes");
  cleanup_close int fd = -1;
  int rc = tree_file(u->tree, e, &fd, err);
  if (rc == 0) rc = write_data(u, e, fd, (uint64_t)size, err);
  if (rc == 0) rc = tree_file_end(u->tree, e, fd, err);
  image_digest_end(u->file, digest);
  u->result->bytes += (uint64_t)size;
  *ret_size = (uint64_t)size;
  return rc;
}

static int add_xattrs(struct unpack *u, struct archive_entry *ae, const char *path, struct err *err)
{
  const char *name;
  const void *value;
  size_t len;
  archive_entry_xattr_reset(ae);
  while (archive_entry_xattr_next(ae, &name, &value, &len) == ARCHIVE_OK) {
    int rc = name ? tree_xattr(u->tree, path, name, value, len, err) : 0;
    if (rc < 0) return rc;
  }
  return 0;
}

/* Whiteouts. ret_done: the entry was one, or is aufs bookkeeping without meaning. */
static int add_whiteout(struct unpack *u, const char *path, bool *ret_done, struct err *err)
{
  const char *slash = strrchr(path, '/');
  const char *name = slash ? slash + 1 : path;
  *ret_done = strncmp(name, ".wh.", 4) == 0;
  if (!*ret_done) return 0;
  char hidden[PATH_MAX];
  int stem = slash ? (int)(slash - path) : 0;
  snprintf(hidden, sizeof hidden, "%.*s", stem, path);
  if (strcmp(name, ".wh..wh..opq") == 0) return tree_opaque(u->tree, hidden, err);
  if (strncmp(name, ".wh..wh.", 8) == 0) return 0;
  name += 4;
  if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
    return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG,
                   "the layer is refused: \"%.200s\" is no valid whiteout", path);
  snprintf(hidden, sizeof hidden, "%.*s%s%s", stem, path, slash ? "/" : "", name);
  return tree_whiteout(u->tree, hidden, err);
}

/* Writes what the entry is; line gets what the list is to say. */
static int add_by_type(struct unpack *u, struct archive_entry *ae, const struct tree_entry *e,
                       struct list_line *line, struct err *err)
{
  int rc;
  switch (e->mode & S_IFMT) {
  case S_IFDIR: rc = tree_folder(u->tree, e, err); break;
  case S_IFLNK: rc = tree_symlink(u->tree, e, err); break;
  case S_IFREG: rc = add_file(u, ae, e, line->digest, &line->size, err); break;
  case S_IFIFO: rc = tree_fifo(u->tree, e, err); break;
  case S_IFCHR:
  case S_IFBLK:
    u->result->devices++;
    line->type = '-';
    return 0;
  default:
    return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG,
                   "the layer is refused: \"%.200s\" is of no known type", e->path);
  }
  return rc < 0 ? rc : add_xattrs(u, ae, e->path, err);
}

static char type_letter(mode_t mode)
{
  return S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : S_ISFIFO(mode) ? 'p' : 'f';
}

static int check_ids(struct archive_entry *ae, const char *path, struct err *err)
{
  la_int64_t uid = archive_entry_uid(ae), gid = archive_entry_gid(ae);
  if (uid >= 0 && uid < UINT32_MAX && gid >= 0 && gid < UINT32_MAX) return 0;
  return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG,
                 "the layer is refused: \"%.200s\" has an impossible owner", path);
}

/* What file systems can hold (ext4: to 2446), so that what is there later is what the list says. */
static struct timespec time_of(struct archive_entry *ae)
{
  static const int64_t oldest = INT32_MIN, latest = 0x37FFFFFFF;
  int64_t s = archive_entry_mtime(ae);
  if (s < oldest || s > latest) return (struct timespec){.tv_sec = s < oldest ? oldest : latest};
  return (struct timespec){s, archive_entry_mtime_nsec(ae)};
}

static int add_entry(struct unpack *u, struct archive_entry *ae, struct err *err)
{
  char path[PATH_MAX], target[PATH_MAX];
  const char *raw = archive_entry_pathname(ae);
  if (!raw) raw = archive_entry_pathname_utf8(ae);
  if (!raw)
    return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG,
                   "the layer is refused: an entry lacks a name");
  if (++u->result->entries > u->conf->limits.max_entries) return over_limit(err, "entries");
  int rc = tree_path(raw, target, err);
  if (rc == 0) rc = check_ids(ae, target, err);
  if (rc == 0) rc = tree_resolve(u->tree, target, path, err);
  if (rc < 0) return rc;
  const char *hard = archive_entry_hardlink(ae);
  struct tree_entry e = {.path = path,
                         .link = hard ? hard : archive_entry_symlink(ae),
                         .mode = archive_entry_mode(ae),
                         .uid = (uid_t)archive_entry_uid(ae),
                         .gid = (gid_t)archive_entry_gid(ae),
                         .mtime = time_of(ae)};
  struct list_line line = {.type = type_letter(e.mode),
                           .mode = e.mode & 07777,
                           .uid = u->conf->chown ? e.uid : geteuid(),
                           .gid = u->conf->chown ? e.gid : getegid(),
                           .mtime = e.mtime,
                           .path = path,
                           .link = e.link};
  bool done = false;
  if (hard) {
    line.type = 'h';
    line.link = target;
    rc = tree_hardlink(u->tree, &e, target, err);
  } else {
    rc = add_whiteout(u, path, &done, err);
    if (rc == 0 && !done) rc = add_by_type(u, ae, &e, &line, err);
  }
  if (rc == 0 && !done && u->list) rc = list_write(u->list, &line, err);
  return rc;
}

static int add_all(struct unpack *u, struct err *err)
{
  for (;;) {
    struct archive_entry *ae;
    int rc = archive_read_next_header(u->inner, &ae);
    if (rc == ARCHIVE_EOF) return 0;
    if (rc < ARCHIVE_WARN) return fail_archive(u, u->inner, err);
    rc = add_entry(u, ae, err);
    if (rc < 0) return rc;
  }
}

/* What is left behind the archive's end belongs to both digests. */
static int drain(struct unpack *u, struct err *err)
{
  const void *data;
  la_ssize_t n;
  while ((n = read_plain(u->inner, u, &data)) > 0) continue;
  if (n == 0)
    while ((n = read_blob(u->outer, u, &data)) > 0) continue;
  if (n == 0) return 0;
  if (err) *err = u->err;
  return err_errno(&u->err);
}

static int set_folder_time(void *data, const struct list_line *line, struct err *err)
{
  struct unpack *u = data;
  return line->type == 'd' || line->type == 'i'
             ? tree_folder_time(u->tree, line->path, &line->mtime, err)
             : 0;
}

static int note_implied(void *data, const char *path, struct err *err)
{
  struct unpack *u = data;
  struct list_line line = {
      .type = 'i', .mode = 0755, .uid = geteuid(), .gid = getegid(), .path = path};
  return u->list ? list_write(u->list, &line, err) : 0;
}

static int run(struct unpack *u, struct err *err)
{
  int rc = note_implied(u, "", err); /* the root, until an entry says something */
  if (rc == 0) rc = open_outer(u, err);
  if (rc == 0) rc = open_inner(u, err);
  if (rc == 0) rc = add_all(u, err);
  if (rc == 0) rc = drain(u, err);
  if (rc < 0) return rc;
  image_digest_end(u->blob, u->result->blob);
  image_digest_end(u->plain, u->result->diff_id);
  if (!u->list) return 0;
  rc = list_flush(u->list, err);
  return rc < 0 ? rc : list_read(u->conf->list_fd, set_folder_time, u, err);
}

int image_unpack(const struct unpack_conf *conf, struct unpack_result *ret, struct err *err)
{
  *ret = (struct unpack_result){0};
  struct unpack u = {.conf = conf, .result = ret};
  locale_t names = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
  locale_t before = names ? uselocale(names) : (locale_t)0;
  u.blob = image_digest_new();
  u.plain = image_digest_new();
  u.file = image_digest_new();
  u.tree = tree_new(&(struct tree_conf){.root_fd = conf->tree_fd,
                                        .user_xattrs = conf->user_xattrs,
                                        .chown = conf->chown,
                                        .on_implied = note_implied,
                                        .data = &u});
  if (conf->list_fd >= 0) u.list = list_writer_new(conf->list_fd);
  int rc = run(&u, err);
  if (u.inner) archive_read_free(u.inner);
  if (u.outer) archive_read_free(u.outer);
  image_digest_free(u.blob);
  image_digest_free(u.plain);
  image_digest_free(u.file);
  tree_free(u.tree);
  list_writer_free(u.list);
  if (names) {
    uselocale(before);
    freelocale(names);
  }
  return rc;
}

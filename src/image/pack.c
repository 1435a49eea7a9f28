/* Packing a folder into a layer.
 *
 * Two writers of libarchive, one behind the other, as in unpack.c: the inner writes the tar, the
 * outer compresses it; the plain archive is hashed between them, the blob behind them. Entries come
 * in the order of their names, a folder before its content, and carry what unpack.c would restore:
 * type, mode, owner, time, extended attributes, hard links. Sockets and device nodes are left out,
 * but for the whiteouts of a layer of the store, which become ".wh." entries again. */
#include "image/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "image/digest.h"

#define READ_BYTES (256 * 1024)
#define DEPTH_MAX  256 /* as in tree.c: no layer could hold more */

struct pack {
  const struct pack_conf *conf;
  struct pack_result *result;
  struct archive *outer, *inner;     /* owned */
  struct image_digest *blob, *plain; /* owned */
  void *inodes;                      /* tsearch tree of struct seen, owned */
  char *chunk;                       /* READ_BYTES, owned */
  int write_errno;                   /* why a callback failed */
  unsigned depth;                    /* of the folder at hand */
  uint64_t bytes;                    /* of the files so far */
};

/* A file with more than one name, and the first of them. */
struct seen {
  dev_t dev;
  ino_t ino;
  char *path; /* owned */
};

static int failed(struct err *err, const char *path, int e)
{
  return err_set(err, ERR_INTERNAL, e, "cannot pack /%s: %s", path, strerror(e));
}

static int fail_archive(const struct pack *p, struct archive *a, struct err *err)
{
  int e = p->write_errno ? p->write_errno : archive_errno(a);
  const char *text = p->write_errno ? strerror(e) : archive_error_string(a);
  return err_set(err, ERR_INTERNAL, e > 0 ? e : EIO, "cannot write the layer: %s",
                 text ? text : "no reason given");
}

static la_ssize_t write_blob(struct archive *a, void *data, const void *bytes, size_t len)
{
  (void)a;
  struct pack *p = data;
  ssize_t n;
  do n = write(p->conf->out_fd, bytes, len);
  while (n < 0 && errno == EINTR);
  if (n < 0) {
    p->write_errno = errno;
    return -1;
  }
  image_digest_add(p->blob, bytes, (size_t)n);
  p->result->blob_bytes += (uint64_t)n;
  return n;
}

static la_ssize_t write_plain(struct archive *a, void *data, const void *bytes, size_t len)
{
  (void)a;
  struct pack *p = data;
  image_digest_add(p->plain, bytes, len);
  return archive_write_data(p->outer, bytes, len);
}

static int by_inode(const void *a, const void *b)
{
  const struct seen *x = a, *y = b;
  if (x->ino != y->ino) return x->ino < y->ino ? -1 : 1;
  return x->dev < y->dev ? -1 : x->dev > y->dev;
}

static void free_seen(void *item)
{
  struct seen *s = item;
  free(s->path);
  free(s);
}

/* The first name of the same file, or NULL: this is the first. */
static const char *first_name(struct pack *p, const struct stat *st)
{
  if (st->st_nlink < 2 || S_ISDIR(st->st_mode)) return NULL;
  struct seen key = {st->st_dev, st->st_ino, NULL};
  struct seen **found = tfind(&key, &p->inodes, by_inode);
  return found ? (*found)->path : NULL;
}

static void remember(struct pack *p, const struct stat *st, const char *path)
{
  if (st->st_nlink < 2 || S_ISDIR(st->st_mode)) return;
  struct seen *s = xcalloc(1, sizeof *s);
  *s = (struct seen){st->st_dev, st->st_ino, xstrdup(path)};
  if (!tsearch(s, &p->inodes, by_inode)) abort();
}

/* --- owners and attributes that carry them --- */

static uint32_t map_id(const struct pack_ids *ids, uint32_t id)
{
  if (!ids) return id;
  if (id == ids->first) return 0;
  return id >= ids->rest ? id - ids->rest + 1 : 65534;
}

/* struct posix_acl_xattr: a version, then entries of tag, permissions, id. */
static void map_acl(const struct pack_ids *ids, char *value, size_t len)
{
  for (size_t at = 4; ids && at + 8 <= len; at += 8) {
    uint16_t tag;
    uint32_t id;
    memcpy(&tag, value + at, sizeof tag);
    memcpy(&id, value + at + 4, sizeof id);
    if (tag != 0x02 && tag != 0x08) continue; /* a named user, a named group */
    id = map_id(ids, id);
    memcpy(value + at + 4, &id, sizeof id);
  }
}

/* File capabilities given in a user namespace name its root; those of an image do not. */
static size_t map_capability(const struct pack_ids *ids, char *value, size_t len)
{
  enum { VERSION_2 = 0x02000000, VERSION_3 = 0x03000000, VERSION_MASK = 0xff000000u, SIZE_2 = 20 };
  uint32_t magic;
  if (!ids || len <= SIZE_2) return len;
  memcpy(&magic, value, sizeof magic);
  if ((magic & VERSION_MASK) != VERSION_3) return len;
  magic = (magic & ~VERSION_MASK) | VERSION_2;
  memcpy(value, &magic, sizeof magic);
  return SIZE_2;
}

static void add_xattrs(const struct pack *p, int fd, struct archive_entry *ae, bool *ret_opaque)
{
  char names[8192], value[65536];
  *ret_opaque = false;
  ssize_t n = flistxattr(fd, names, sizeof names);
  for (ssize_t at = 0; at < n; at += (ssize_t)strlen(names + at) + 1) {
    const char *name = names + at;
    ssize_t len = fgetxattr(fd, name, value, sizeof value);
    if (len < 0) continue;
    const char *opaque = p->conf->user_xattrs ? "user.overlay.opaque" : "trusted.overlay.opaque";
    if (p->conf->overlay && strcmp(name, opaque) == 0) *ret_opaque = true;
    bool user = strncmp(name, "user.", 5) == 0 && strncmp(name, "user.overlay.", 13) != 0;
    bool capability = strcmp(name, "security.capability") == 0;
    bool acl = strncmp(name, "system.posix_acl_", 17) == 0;
    if (capability) len = (ssize_t)map_capability(p->conf->ids, value, (size_t)len);
    if (acl) map_acl(p->conf->ids, value, (size_t)len);
    if (user || capability || acl) archive_entry_xattr_add_entry(ae, name, value, (size_t)len);
  }
}

static int write_header(struct pack *p, struct archive_entry *ae, struct err *err)
{
  return archive_write_header(p->inner, ae) < ARCHIVE_WARN ? fail_archive(p, p->inner, err) : 0;
}

static int write_content(struct pack *p, int fd, const char *path, uint64_t size, struct err *err)
{
  while (size > 0) {
    size_t want = size < READ_BYTES ? (size_t)size : READ_BYTES;
    ssize_t n = read(fd, p->chunk, want);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(err, path, errno);
    if (n == 0 && p->conf->live) {
      n = (ssize_t)want;
      memset(p->chunk, 0, want);
    }
    if (n == 0) return err_set(err, ERR_CONFLICT, 0, "/%s shrank while it was packed", path);
    if (archive_write_data(p->inner, p->chunk, (size_t)n) < 0)
      return fail_archive(p, p->inner, err);
    size -= (uint64_t)n;
  }
  return 0;
}

/* An empty file with this name: how layers say that something is hidden. */
static int write_mark(struct pack *p, const char *folder, const char *prefix, const char *name,
                      struct err *err)
{
  struct buf path = {0};
  buf_printf(&path, "%s%s%s%s", folder, *folder ? "/" : "", prefix, name);
  struct archive_entry *ae = archive_entry_new();
  archive_entry_set_pathname(ae, path.data);
  archive_entry_set_mode(ae, S_IFREG | 0600);
  archive_entry_set_size(ae, 0);
  archive_entry_set_mtime(ae, 0, 0);
  int rc = write_header(p, ae, err);
  archive_entry_free(ae);
  buf_free(&path);
  return rc;
}

enum { LEFT_OUT = 1 };

/* Is it somebody else's doing that the entry is not what it was a moment ago? */
static bool gone(const struct pack *p)
{
  return p->conf->live &&
         (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EINVAL);
}

static int count_bytes(struct pack *p, const char *path, uint64_t size, struct err *err)
{
  p->bytes += size;
  if (p->conf->max_bytes == 0 || (size <= p->conf->max_bytes && p->bytes <= p->conf->max_bytes))
    return 0;
  return err_set(err, ERR_PAYLOAD_TOO_LARGE, EFBIG,
                 "the files are larger than %llu MiB in all, holes counted: at /%.100s",
                 (unsigned long long)(p->conf->max_bytes >> 20), path);
}

static int write_file(struct pack *p, struct archive_entry *ae, int dir_fd, const char *name,
                      const char *path, struct err *err)
{
  cleanup_close int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  struct stat now;
  bool opaque;
  if (fd < 0) return gone(p) ? LEFT_OUT : failed(err, path, errno);
  if (fstat(fd, &now) < 0) return failed(err, path, errno);
  if (!S_ISREG(now.st_mode)) /* replaced since it was looked at */
    return p->conf->live ? LEFT_OUT : failed(err, path, EBUSY);
  add_xattrs(p, fd, ae, &opaque);
  archive_entry_set_size(ae, now.st_size);
  int rc = count_bytes(p, path, (uint64_t)now.st_size, err);
  if (rc == 0) rc = write_header(p, ae, err);
  return rc < 0 ? rc : write_content(p, fd, path, (uint64_t)now.st_size, err);
}

static int write_link(struct pack *p, struct archive_entry *ae, int dir_fd, const char *name,
                      const char *path, struct err *err)
{
  char target[PATH_MAX];
  ssize_t n = readlinkat(dir_fd, name, target, sizeof target - 1);
  if (n < 0) return gone(p) ? LEFT_OUT : failed(err, path, errno);
  target[n] = '\0';
  archive_entry_set_symlink(ae, target);
  return write_header(p, ae, err);
}

static int walk(struct pack *p, int fd, const char *path, struct err *err);

static int write_folder(struct pack *p, struct archive_entry *ae, int dir_fd, const char *name,
                        const char *path, struct err *err)
{
  cleanup_close int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  bool opaque;
  if (fd < 0) return gone(p) ? LEFT_OUT : failed(err, path, errno);
  if (p->depth == DEPTH_MAX)
    return err_set(err, ERR_UNSUPPORTED, ENAMETOOLONG,
                   "cannot pack folders nested deeper than %d: /%.100s…", DEPTH_MAX, path);
  add_xattrs(p, fd, ae, &opaque);
  int rc = write_header(p, ae, err);
  if (rc == 0 && opaque) rc = write_mark(p, path, ".wh..wh..opq", "", err);
  p->depth++;
  if (rc == 0) rc = walk(p, fd, path, err);
  p->depth--;
  return rc;
}

static int write_entry(struct pack *p, int dir_fd, const char *name, const char *folder,
                       const char *path, struct err *err)
{
  struct stat st;
  if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return gone(p) ? LEFT_OUT : failed(err, path, errno);
  if (S_ISCHR(st.st_mode) && st.st_rdev == 0 && p->conf->overlay)
    return write_mark(p, folder, ".wh.", name, err);
  struct archive_entry *ae = archive_entry_new();
  archive_entry_set_pathname(ae, *path ? path : "./");
  st.st_uid = map_id(p->conf->ids, st.st_uid);
  st.st_gid = map_id(p->conf->ids, st.st_gid);
  archive_entry_copy_stat(ae, &st);
  archive_entry_unset_size(ae);
  archive_entry_set_size(ae, 0);
  archive_entry_unset_atime(ae);
  archive_entry_unset_ctime(ae);
  const char *first = first_name(p, &st);
  int rc = 0;
  if (first) {
    archive_entry_set_hardlink(ae, first);
    rc = write_header(p, ae, err);
  } else if (S_ISREG(st.st_mode)) {
    rc = write_file(p, ae, dir_fd, name, path, err);
  } else if (S_ISLNK(st.st_mode)) {
    rc = write_link(p, ae, dir_fd, name, path, err);
  } else if (S_ISDIR(st.st_mode)) {
    rc = write_folder(p, ae, dir_fd, name, path, err);
  } else if (S_ISFIFO(st.st_mode)) {
    rc = write_header(p, ae, err);
  }
  archive_entry_free(ae);
  if (rc == 0 && !first) remember(p, &st, path);
  return rc == LEFT_OUT ? 0 : rc;
}

static int no_dots(const struct dirent *e)
{
  return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
  return strcmp((*a)->d_name, (*b)->d_name);
}

static int walk(struct pack *p, int fd, const char *path, struct err *err)
{
  struct dirent **names;
  int n = scandirat(fd, ".", &names, no_dots, by_name), rc = 0;
  if (n < 0) return gone(p) ? 0 : failed(err, path, errno);
  for (int i = 0; i < n; i++) {
    struct buf below = {0};
    buf_printf(&below, "%s%s%s", path, *path ? "/" : "", names[i]->d_name);
    if (rc == 0) rc = write_entry(p, fd, names[i]->d_name, path, below.data, err);
    buf_free(&below);
    free(names[i]);
  }
  free(names);
  return rc;
}

static int open_writers(struct pack *p, struct err *err)
{
  p->outer = archive_write_new();
  p->inner = archive_write_new();
  if (!p->outer || !p->inner) return err_set(err, ERR_CAPACITY, ENOMEM, "out of memory");
  archive_write_set_format_raw(p->outer);
  if (p->conf->gzip) {
    archive_write_add_filter_gzip(p->outer);
    archive_write_set_filter_option(p->outer, "gzip", "timestamp", NULL); /* the same bytes again */
  }
  archive_write_set_bytes_per_block(p->outer, 0);
  archive_write_set_bytes_in_last_block(p->outer, 1);
  archive_write_set_format_pax(p->inner);
  archive_write_set_bytes_per_block(p->inner, 65536);
  archive_write_set_bytes_in_last_block(p->inner, 1);
  struct archive_entry *ae = archive_entry_new();
  archive_entry_set_mode(ae, S_IFREG);
  int rc = archive_write_open(p->outer, p, NULL, write_blob, NULL) < ARCHIVE_WARN ||
                   archive_write_header(p->outer, ae) < ARCHIVE_WARN
               ? fail_archive(p, p->outer, err)
               : 0;
  archive_entry_free(ae);
  if (rc == 0 && archive_write_open(p->inner, p, NULL, write_plain, NULL) < ARCHIVE_WARN)
    rc = fail_archive(p, p->inner, err);
  return rc;
}

static int run(struct pack *p, struct err *err)
{
  int rc = open_writers(p, err);
  if (rc == 0) rc = write_entry(p, p->conf->tree_fd, ".", "", "", err);
  if (rc == 0 && archive_write_close(p->inner) < ARCHIVE_WARN) rc = fail_archive(p, p->inner, err);
  if (rc == 0 && archive_write_close(p->outer) < ARCHIVE_WARN) rc = fail_archive(p, p->outer, err);
  if (rc < 0) return rc;
  image_digest_end(p->blob, p->result->blob);
  image_digest_end(p->plain, p->result->diff_id);
  return 0;
}

int image_pack(const struct pack_conf *conf, struct pack_result *ret, struct err *err)
{
  *ret = (struct pack_result){0};
  struct pack p = {.conf = conf,
                   .result = ret,
                   .blob = image_digest_new(),
                   .plain = image_digest_new(),
                   .chunk = xmalloc(READ_BYTES)};
  locale_t names = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
  locale_t before = names ? uselocale(names) : (locale_t)0;
  int rc = run(&p, err);
  /* a writer that failed must not write on when it is freed */
  if (rc < 0 && p.inner) archive_write_fail(p.inner);
  if (rc < 0 && p.outer) archive_write_fail(p.outer);
  if (p.inner) archive_write_free(p.inner);
  if (p.outer) archive_write_free(p.outer);
  image_digest_free(p.blob);
  image_digest_free(p.plain);
  tdestroy(p.inodes, free_seen);
  free(p.chunk);
  if (names) {
    uselocale(before);
    freelocale(names);
  }
  return rc;
}

/* Reads a tree and makes a stream of it.
 *
 * The tree may change meanwhile, and may belong to an enemy: every entry is opened relative to its
 * directory and never through a link, what it is counts when it is open, and a pipe or a device is
 * never waited for. An entry that is gone by the time it is looked at was never there. A stack of
 * open directories is all the state there is; it is TREE_DEPTH_MAX deep at most.
 *
 * fresh → (in a file | between entries) → over */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mode.h"
#include "core/tree_internal.h"

struct tree_source {
  int root; /* until it was announced; -1 afterwards */
  DIR *dirs[TREE_DEPTH_MAX];
  size_t depth;
  int file; /* being read; -1 = none */
  bool over;
  struct buf path;
  struct tree_report report;
};

struct tree_source *tree_source_new(int root)
{
  struct stat st;
  if (fstat(root, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))) {
    close(root);
    errno = ENXIO;
    return NULL;
  }
  struct tree_source *s = xcalloc(1, sizeof *s);
  s->root = root;
  s->file = -1;
  return s;
}

static void put_simple(struct buf *out, enum tree_record type)
{
  tree_put(out, (struct tree_head){.type = type}, "", NULL);
}

static void begin_file(struct tree_source *s, struct buf *out, const char *name, int fd,
                       const struct stat *st)
{
  tree_put(out,
           (struct tree_head){
               .type = TREE_FILE, .mode = st->st_mode & 0777, .mtime = st->st_mtim.tv_sec},
           name, NULL);
  s->file = fd;
  s->report.files++;
}

static int begin_dir(struct tree_source *s, struct buf *out, const char *name, int fd,
                     const struct stat *st)
{
  DIR *d = s->depth < TREE_DEPTH_MAX ? fdopendir(fd) : NULL;
  if (!d) {
    int e = s->depth < TREE_DEPTH_MAX ? errno : EOVERFLOW;
    close(fd);
    return -e;
  }
  tree_put(out, (struct tree_head){.type = TREE_DIR, .mode = st->st_mode & 0777}, name, NULL);
  s->dirs[s->depth++] = d;
  s->report.dirs++;
  return 1;
}

static int begin_root(struct tree_source *s, struct buf *out)
{
  struct stat st;
  int root = take_fd(&s->root);
  if (fstat(root, &st) < 0) st.st_mode = 0;
  if (S_ISDIR(st.st_mode)) return begin_dir(s, out, "", root, &st);
  begin_file(s, out, "", root, &st);
  return 1;
}

static int end_root(struct tree_source *s, struct buf *out)
{
  put_simple(out, TREE_END);
  s->over = true;
  return 0;
}

static int read_file(struct tree_source *s, struct buf *out)
{
  size_t head_at = out->len;
  tree_put(out, (struct tree_head){.type = TREE_DATA}, "", NULL);
  buf_reserve(out, TREE_PIECE + 1);
  ssize_t n = read(s->file, out->data + out->len, TREE_PIECE);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) n = 0;
  if (n < 0) return -errno;
  if (n > 0) {
    struct tree_head head = {.type = TREE_DATA, .len = (uint64_t)n};
    memcpy(out->data + head_at, &head, sizeof head);
    out->len += (size_t)n;
    out->data[out->len] = '\0';
    s->report.bytes += (uint64_t)n;
    return 1;
  }
  out->len = head_at;
  out->data[out->len] = '\0';
  put_simple(out, TREE_CLOSE);
  close(take_fd(&s->file));
  if (s->depth == 0) return end_root(s, out);
  tree_path_pop(&s->path);
  return 1;
}

static void skip(struct tree_source *s, struct buf *out, const char *name, uint32_t mode,
                 const char *what)
{
  tree_put(out, (struct tree_head){.type = TREE_SKIP, .mode = mode}, name, NULL);
  tree_note_skipped(&s->report, what, s->path.data);
}

static int put_link(struct tree_source *s, struct buf *out, int dir, const char *name)
{
  char target[PATH_MAX];
  ssize_t n = readlinkat(dir, name, target, sizeof target);
  if (n < 0) return -errno;
  if ((size_t)n == sizeof target) return -ENAMETOOLONG;
  tree_put(out, (struct tree_head){.type = TREE_LINK, .len = (uint64_t)n}, name, target);
  s->report.links++;
  return 0;
}

/* 1: it is being read now; 0: it is done with; negative errno. The path names it. */
static int put_entry(struct tree_source *s, struct buf *out, int dir, const char *name)
{
  struct stat st;
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return -errno;
  if (S_ISLNK(st.st_mode)) return put_link(s, out, dir, name);
  if (S_ISDIR(st.st_mode)) {
    int fd = tree_open_dir(dir, name);
    if (fd >= 0) return begin_dir(s, out, name, fd, &st);
    if (errno != EXDEV) return -errno;
    skip(s, out, name, st.st_mode, "mount");
    return 0;
  }
  int fd = S_ISREG(st.st_mode)
               ? openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
               : -1;
  if (S_ISREG(st.st_mode) && fd < 0) return -errno;
  if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
    if (fd >= 0) close(fd);
    skip(s, out, name, st.st_mode, mode_type_name(st.st_mode));
    return 0;
  }
  begin_file(s, out, name, fd, &st);
  return 1;
}

static int leave_dir(struct tree_source *s, struct buf *out)
{
  closedir(s->dirs[--s->depth]);
  put_simple(out, TREE_UP);
  if (s->depth == 0) return end_root(s, out);
  tree_path_pop(&s->path);
  return 1;
}

static int next_entry(struct tree_source *s, struct buf *out)
{
  DIR *d = s->dirs[s->depth - 1];
  errno = 0;
  const struct dirent *e = readdir(d);
  if (!e) return errno ? -errno : leave_dir(s, out);
  if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) return 1;
  tree_path_push(&s->path, e->d_name);
  int rc = put_entry(s, out, dirfd(d), e->d_name);
  if (rc < 0 && rc != -ENOENT) return rc;
  if (rc <= 0) tree_path_pop(&s->path);
  return 1;
}

int tree_source_read(struct tree_source *s, struct buf *out)
{
  size_t start = out->len;
  int rc = s->over ? 0 : 1;
  while (rc > 0 && out->len - start < TREE_PIECE) {
    if (s->root >= 0)
      rc = begin_root(s, out);
    else
      rc = s->file >= 0 ? read_file(s, out) : next_entry(s, out);
  }
  return rc;
}

const char *tree_source_path(const struct tree_source *s)
{
  return s->path.len ? s->path.data : "";
}

const struct tree_report *tree_source_report(const struct tree_source *s)
{
  return &s->report;
}

void tree_source_free(struct tree_source *s)
{
  if (!s) return;
  while (s->depth > 0) closedir(s->dirs[--s->depth]);
  if (s->file >= 0) close(s->file);
  if (s->root >= 0) close(s->root);
  buf_free(&s->path);
  buf_free(&s->report.skipped);
  free(s);
}

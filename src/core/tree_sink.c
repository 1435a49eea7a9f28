/* Writes a tree from a stream that may come from an enemy.
 *
 * What keeps it inside: names are single components, directories are opened relative to their
 * parent and never through a link, and links are made but not used. A link of a tame sink may
 * climb, at the front of its target, no higher than the root; as every directory above it is a real
 * one, it then ends inside the tree whatever other links there are.
 *
 * A file is written without a name, or under one of ours, and takes its place when it is complete.
 * What is there already gives way if it is a file or a link; a directory is filled further.
 *
 * root awaited → (in a file | between entries) → ended */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mode.h"
#include "core/tree_internal.h"

#define NAME_LEN_MAX 255

struct level {
  int fd;
  bool made; /* by us: it gets its mode when it is left */
  uint32_t mode;
};

struct tree_sink {
  struct tree_sink_conf conf; /* dir: owned */
  char *name;                 /* owned */
  struct level levels[TREE_DEPTH_MAX];
  size_t depth;
  bool started, ended;
  struct buf in;      /* of a record that is not complete */
  uint64_t data_left; /* of the DATA record that is coming in */
  int file;           /* being written; -1 = none */
  int file_dir;       /* where it belongs: not owned */
  char file_name[NAME_LEN_MAX + 1];
  char temp[40];         /* its name until then; "" = none */
  struct tree_head head; /* of the file */
  struct buf path;
  struct tree_report report;
};

struct tree_sink *tree_sink_new(const struct tree_sink_conf *conf)
{
  struct tree_sink *s = xcalloc(1, sizeof *s);
  s->conf = *conf;
  s->name = conf->name ? xstrdup(conf->name) : NULL;
  s->file = -1;
  return s;
}

/* ---- files ---- */

static void temp_name(char out[40])
{
  static unsigned counter;
  snprintf(out, 40, ".regolith-%d-%u", (int)getpid(), counter++);
}

/* Without a name where the file system can do that: then nothing of it is left, however we end. */
static int open_temp(struct tree_sink *s)
{
  int fd = openat(s->file_dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT))
    return fd;
  for (int i = 0; i < 100; i++) {
    temp_name(s->temp);
    fd = openat(s->file_dir, s->temp, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0 || errno != EEXIST) break;
  }
  if (fd < 0) s->temp[0] = '\0';
  return fd;
}

static int begin_file(struct tree_sink *s, int dir, const char *name, const struct tree_head *head)
{
  struct stat st;
  s->file_dir = dir;
  snprintf(s->file_name, sizeof s->file_name, "%s", name);
  s->head = *head;
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode) &&
      !S_ISLNK(st.st_mode))
    return S_ISDIR(st.st_mode) ? -EISDIR : -ENXIO;
  s->file = open_temp(s);
  if (s->file < 0) return -errno;
  s->report.files++;
  return 0;
}

/* Whose file it was and what it allowed stays, as far as that is for us to say. */
static int dress(const struct tree_sink *s)
{
  struct stat old, new;
  uint32_t mode = s->head.mode;
  if (fstat(s->file, &new) < 0) return -errno;
  bool was =
      fstatat(s->file_dir, s->file_name, &old, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(old.st_mode);
  if (mode == TREE_MODE_KEEP) mode = was ? old.st_mode & 0777 : 0644;
  if (was && (old.st_uid != new.st_uid || old.st_gid != new.st_gid) &&
      fchown(s->file, old.st_uid, old.st_gid) < 0 && errno != EPERM && errno != EINVAL)
    return -errno;
  if (fchmod(s->file, s->conf.tame ? (mode & 0755) | 0600 : mode & 0777) < 0) return -errno;
  const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = s->head.mtime}};
  if (s->head.mtime != TREE_TIME_NOW && futimens(s->file, times) < 0) return -errno;
  return 0;
}

static int name_temp(struct tree_sink *s)
{
  char self[40];
  snprintf(self, sizeof self, "/proc/self/fd/%d", s->file);
  for (int i = 0; i < 100; i++) {
    temp_name(s->temp);
    if (linkat(AT_FDCWD, self, s->file_dir, s->temp, AT_SYMLINK_FOLLOW) == 0) return 0;
    if (errno != EEXIST) break;
  }
  s->temp[0] = '\0';
  return -errno;
}

static int close_file(struct tree_sink *s)
{
  int rc = dress(s);
  if (rc == 0 && !s->temp[0]) rc = name_temp(s);
  if (rc == 0 && renameat(s->file_dir, s->temp, s->file_dir, s->file_name) < 0) rc = -errno;
  if (rc < 0) return rc;
  s->temp[0] = '\0';
  close(take_fd(&s->file));
  return 0;
}

static void drop_file(struct tree_sink *s)
{
  if (s->file >= 0) close(take_fd(&s->file));
  if (s->temp[0]) unlinkat(s->file_dir, s->temp, 0);
  s->temp[0] = '\0';
}

static int write_data(struct tree_sink *s, const char *data, size_t len)
{
  s->report.bytes += len;
  if (s->conf.max_bytes && s->report.bytes > s->conf.max_bytes) return -EFBIG;
  while (len > 0) {
    ssize_t n = write(s->file, data, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    data += n;
    len -= (size_t)n;
  }
  return 0;
}

/* ---- directories and links ---- */

static int push_level(struct tree_sink *s, int fd, bool made, uint32_t mode)
{
  if (s->depth == TREE_DEPTH_MAX) {
    close(fd);
    return -EOVERFLOW;
  }
  s->levels[s->depth++] = (struct level){.fd = fd, .made = made, .mode = mode};
  s->report.dirs++;
  return 0;
}

static int begin_dir(struct tree_sink *s, int dir, const char *name, uint32_t mode)
{
  bool made = mkdirat(dir, name, 0700) == 0;
  if (!made && errno != EEXIST) return -errno;
  int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno == ELOOP ? -ENOTDIR : -errno;
  return push_level(s, fd, made, mode);
}

static int leave_dir(struct tree_sink *s)
{
  const struct level *l = &s->levels[--s->depth];
  uint32_t mode = s->conf.tame ? (l->mode & 0755) | 0700 : l->mode & 0777;
  int rc = l->made && fchmod(l->fd, mode) < 0 ? -errno : 0;
  close(l->fd);
  return rc;
}

/* "../" only in front, and no more of them than directories above the link. */
static bool is_tame(const char *target, size_t above)
{
  bool climbing = true;
  if (*target == '/' || *target == '\0') return false;
  for (const char *p = target; *p;) {
    size_t n = strcspn(p, "/");
    bool up = n == 2 && p[0] == '.' && p[1] == '.';
    if (up && (!climbing || above-- == 0)) return false;
    if (!up && n > 0 && !(n == 1 && *p == '.')) climbing = false;
    p += n;
    while (*p == '/') p++;
  }
  return true;
}

static int make_link(struct tree_sink *s, int dir, const char *name, const char *target)
{
  struct stat st;
  char temp[40];
  if (s->conf.tame && !is_tame(target, s->depth - 1)) {
    tree_note_skipped(&s->report, "link", s->path.data);
    return 0;
  }
  s->report.links++;
  if (symlinkat(target, dir, name) == 0) return 0;
  if (errno != EEXIST) return -errno;
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) return -EISDIR;
  temp_name(temp);
  if (symlinkat(target, dir, temp) < 0) return -errno;
  if (renameat(dir, temp, dir, name) == 0) return 0;
  int rc = -errno;
  unlinkat(dir, temp, 0);
  return rc;
}

/* ---- records ---- */

static bool is_name(const char *name, size_t len)
{
  return len > 0 && !memchr(name, '/', len) && !memchr(name, '\0', len) && strcmp(name, ".") != 0 &&
         strcmp(name, "..") != 0;
}

static int begin_root(struct tree_sink *s, const struct tree_head *head)
{
  if (head->name_len != 0 || (head->type != TREE_FILE && head->type != TREE_DIR)) return -EBADMSG;
  s->started = true;
  if (head->type == TREE_FILE) return s->name ? begin_file(s, s->conf.dir, s->name, head) : -EISDIR;
  if (s->name) return begin_dir(s, s->conf.dir, s->name, head->mode);
  int fd = openat(s->conf.dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return fd < 0 ? -errno : push_level(s, fd, false, 0);
}

static int count_thing(const struct tree_sink *s)
{
  const struct tree_report *r = &s->report;
  uint64_t n = r->files + r->dirs + r->links + r->skipped_n;
  return s->conf.max_things && n >= s->conf.max_things ? -EFBIG : 0;
}

/* A record that names an entry of the directory we are in. */
static int take_entry(struct tree_sink *s, const struct tree_head *head, const char *name,
                      const char *target)
{
  if (s->depth == 0 || !is_name(name, head->name_len)) return -EBADMSG;
  int dir = s->levels[s->depth - 1].fd;
  tree_path_push(&s->path, name);
  int rc = count_thing(s);
  if (rc < 0) return rc;
  if (head->type == TREE_FILE) return begin_file(s, dir, name, head);
  if (head->type == TREE_DIR) return begin_dir(s, dir, name, head->mode);
  if (head->type == TREE_LINK) {
    if (strlen(target) != head->len) return -EBADMSG;
    rc = make_link(s, dir, name, target);
  } else {
    tree_note_skipped(&s->report, S_ISDIR(head->mode) ? "mount" : mode_type_name(head->mode),
                      s->path.data);
  }
  tree_path_pop(&s->path);
  return rc;
}

static int take_record(struct tree_sink *s, const struct tree_head *head, const char *name,
                       const char *target)
{
  int rc;
  if (s->ended) return -EBADMSG;
  if (!s->started) return begin_root(s, head);
  switch ((enum tree_record)head->type) {
  case TREE_DATA: return s->file >= 0 ? 0 : -EBADMSG;
  case TREE_CLOSE:
    if (s->file < 0) return -EBADMSG;
    rc = close_file(s);
    if (rc == 0) tree_path_pop(&s->path);
    return rc;
  case TREE_UP:
    if (s->file >= 0 || s->depth == 0) return -EBADMSG;
    rc = leave_dir(s);
    if (rc == 0) tree_path_pop(&s->path);
    return rc;
  case TREE_END:
    if (s->file >= 0 || s->depth > 0) return -EBADMSG;
    s->ended = true;
    return 0;
  case TREE_FILE:
  case TREE_DIR:
  case TREE_LINK:
  case TREE_SKIP: return s->file < 0 ? take_entry(s, head, name, target) : -EBADMSG;
  }
  return -EBADMSG;
}

/* Takes one record off the front of what came; 1: done, 0: it is not complete yet. */
static int next_record(struct tree_sink *s)
{
  struct tree_head head;
  char name[NAME_LEN_MAX + 1], target[PATH_MAX];
  if (s->in.len < sizeof head) return 0;
  memcpy(&head, s->in.data, sizeof head);
  size_t tail = head.type == TREE_LINK ? head.len : 0;
  if (head.name_len > NAME_LEN_MAX || tail >= sizeof target) return -EBADMSG;
  if (head.len > 0 && head.type != TREE_LINK && head.type != TREE_DATA) return -EBADMSG;
  if (s->in.len < sizeof head + head.name_len + tail) return 0;
  memcpy(name, s->in.data + sizeof head, head.name_len);
  name[head.name_len] = '\0';
  memcpy(target, s->in.data + sizeof head + head.name_len, tail);
  target[tail] = '\0';
  int rc = take_record(s, &head, name, target);
  if (rc < 0) return rc;
  if (head.type == TREE_DATA) s->data_left = head.len;
  buf_consume(&s->in, sizeof head + head.name_len + tail);
  return 1;
}

int tree_sink_write(struct tree_sink *s, const void *data, size_t len)
{
  const char *p = data;
  int rc = 1;
  while (rc > 0) {
    size_t n = s->data_left < s->in.len ? (size_t)s->data_left : s->in.len;
    if (n > 0) { /* data that came behind a record */
      rc = write_data(s, s->in.data, n);
      s->data_left -= n;
      buf_consume(&s->in, n);
    } else if (s->data_left > 0) {
      n = s->data_left < len ? (size_t)s->data_left : len;
      if (n == 0) return 0;
      rc = write_data(s, p, n);
      s->data_left -= n;
      p += n;
      len -= n;
    } else {
      /* Enough for any record without its data; no more, so that data is not copied. */
      n = sizeof(struct tree_head) + NAME_LEN_MAX + PATH_MAX;
      n = s->in.len < n ? n - s->in.len : 0;
      if (n > len) n = len;
      buf_append(&s->in, p, n);
      p += n;
      len -= n;
      rc = next_record(s);
      if (rc == 0) return len > 0 ? -EBADMSG : 0;
      continue;
    }
    if (rc == 0) rc = 1;
  }
  return rc;
}

bool tree_sink_ended(const struct tree_sink *s)
{
  return s->ended;
}

const char *tree_sink_path(const struct tree_sink *s)
{
  return s->path.len ? s->path.data : "";
}

const struct tree_report *tree_sink_report(const struct tree_sink *s)
{
  return &s->report;
}

void tree_sink_free(struct tree_sink *s)
{
  if (!s) return;
  drop_file(s);
  while (s->depth > 0) leave_dir(s);
  if (s->conf.dir >= 0) close(s->conf.dir);
  free(s->name);
  buf_free(&s->in);
  buf_free(&s->path);
  buf_free(&s->report.skipped);
  free(s);
}

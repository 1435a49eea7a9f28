/* Images: unpacking layers, above all those that mean harm. Each case unpacks an archive made by
 * hand into a fresh folder that lies beside a "victim" nothing may touch. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/err.h"
#include "image/digest.h"
#include "image/list.h"
#include "image/store.h"
#include "image/unpack.h"
#include "image_tar.h"

static char top[64];
static int tree_fd = -1, list_fd = -1;
static struct unpack_result result;
static struct err err;

struct source {
  const char *data;
  size_t len, at, step;
};

static ssize_t read_some(void *data, const void **ret, struct err *e)
{
  (void)e;
  struct source *s = data;
  size_t n = s->len - s->at < s->step ? s->len - s->at : s->step;
  *ret = s->data + s->at;
  s->at += n;
  return (ssize_t)n;
}

static void begin(void)
{
  strcpy(top, "/tmp/regolith-unpack.XXXXXX");
  if (!mkdtemp(top)) abort();
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/victim", top);
  int fd = open(path, O_WRONLY | O_CREAT, 0600);
  if (write(fd, "safe", 4) != 4) abort();
  close(fd);
  snprintf(path, sizeof path, "%s/tree", top);
  mkdir(path, 0755);
  tree_fd = open(path, O_RDONLY | O_DIRECTORY);
  snprintf(path, sizeof path, "%s/list", top);
  list_fd = open(path, O_RDWR | O_CREAT, 0600);
}

static void end(void)
{
  char path[PATH_MAX], text[8] = "";
  struct stat st;
  snprintf(path, sizeof path, "%s/victim", top);
  int fd = open(path, O_RDONLY);
  CHECK(fd >= 0 && read(fd, text, 7) == 4);
  CHECK_STR(text, "safe");
  CHECK(fstat(fd, &st) == 0 && st.st_nlink == 1 && (st.st_mode & 07777) == 0600);
  close(fd);
  close(tree_fd);
  close(list_fd);
  CHECK_INT(image_tree_remove(AT_FDCWD, top, NULL), 0);
}

static int unpack_bytes(const struct buf *tar, size_t step)
{
  err = (struct err){0};
  struct source s = {.data = tar->data, .len = tar->len, .step = step};
  struct unpack_conf conf = {.read = read_some,
                             .source = &s,
                             .tree_fd = tree_fd,
                             .list_fd = list_fd,
                             .user_xattrs = geteuid() != 0,
                             .chown = geteuid() == 0,
                             .limits = {1 << 30, 100000}};
  return image_unpack(&conf, &result, &err);
}

static int unpack(struct buf *tar)
{
  tar_end(tar);
  int rc = unpack_bytes(tar, 1000);
  buf_free(tar);
  return rc;
}

static void add(struct buf *tar, char type, const char *name, const char *link_or_text)
{
  struct tar_header h = {.name = name, .type = type};
  bool file = type == '0';
  if (!file) h.link = link_or_text;
  tar_add(tar, &h, file ? link_or_text : NULL, file && link_or_text ? strlen(link_or_text) : 0);
}

static bool is(const char *path, mode_t type)
{
  struct stat st;
  return fstatat(tree_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && (st.st_mode & S_IFMT) == type;
}

static bool absent(const char *path)
{
  return faccessat(tree_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

static bool whiteout(const char *path)
{
  struct stat st;
  return fstatat(tree_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISCHR(st.st_mode) &&
         st.st_rdev == 0;
}

static bool opaque(const char *path)
{
  char value = 0;
  int fd = openat(tree_fd, path, O_RDONLY | O_DIRECTORY);
  bool yes = fd >= 0 && (fgetxattr(fd, "trusted.overlay.opaque", &value, 1) == 1 ||
                         fgetxattr(fd, "user.overlay.opaque", &value, 1) == 1);
  if (fd >= 0) close(fd);
  return yes && value == 'y';
}

static const char *content(const char *path)
{
  static char text[256];
  int fd = openat(tree_fd, path, O_RDONLY);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  text[n < 0 ? 0 : n] = '\0';
  return n < 0 ? "(none)" : text;
}

static void plain_entries(void)
{
  begin();
  struct buf tar = {0};
  add(&tar, '5', "./", NULL);
  tar_add(&tar, &(struct tar_header){.name = "a/", .type = '5', .mode = 01777, .mtime = 5}, NULL,
          0);
  tar_add(&tar,
          &(struct tar_header){.name = "a/f", .type = '0', .mode = 04751, .uid = 12, .gid = 34},
          "hello", 5);
  add(&tar, '2', "a/s", "f");
  add(&tar, '1', "a/h", "a/f");
  add(&tar, '6', "a/p", NULL);
  add(&tar, '0', "deep/er/file", "x");
  CHECK_INT(unpack(&tar), 0);
  struct stat st;
  CHECK_INT(fstatat(tree_fd, "a", &st, 0), 0);
  CHECK_INT(st.st_mode & 07777, 01777);
  CHECK_INT(st.st_mtim.tv_sec, 5);
  CHECK_INT(fstatat(tree_fd, "a/f", &st, 0), 0);
  CHECK_INT(st.st_mode & 07777, 04751);
  CHECK_INT(st.st_nlink, 2);
  CHECK_INT(st.st_mtim.tv_sec, 1000000000);
  if (geteuid() == 0) CHECK(st.st_uid == 12 && st.st_gid == 34);
  CHECK_STR(content("a/s"), "hello");
  CHECK(is("a/p", S_IFIFO));
  CHECK(is("deep/er", S_IFDIR));
  CHECK_INT(result.entries, 7);
  CHECK_INT(result.bytes, 6);
  end();
}

static void paths_stay_inside(void)
{
  static const char *const out[] = {"../victim", "a/../../victim", "..", "a/..", "./../victim"};
  for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
    begin();
    struct buf tar = {0};
    add(&tar, '0', out[i], "pwned");
    CHECK(unpack(&tar) < 0);
    CHECK(strstr(err.msg, "leads out of it"));
    end();
  }
  begin();
  struct buf tar = {0};
  char path[128];
  snprintf(path, sizeof path, "%s/victim", top);
  add(&tar, '0', path, "pwned"); /* absolute: taken as below the root */
  CHECK_INT(unpack(&tar), 0);
  CHECK_STR(content(path + 1), "pwned");
  end();
}

static void links_lead_nowhere(void)
{
  char path[128];
  static const char *const targets[] = {"..", "../..", "/", NULL};
  for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
    begin();
    struct buf tar = {0};
    add(&tar, '2', "esc", targets[i] ? targets[i] : top);
    add(&tar, '0', "esc/victim", "pwned");
    CHECK_INT(unpack(&tar), 0); /* written below the root, wherever the link says */
    end();
  }
  begin(); /* a file through a link as its last part replaces the link */
  struct buf tar = {0};
  snprintf(path, sizeof path, "%s/victim", top);
  add(&tar, '2', "f", path);
  add(&tar, '0', "f", "mine");
  CHECK_INT(unpack(&tar), 0);
  CHECK(is("f", S_IFREG));
  CHECK_STR(content("f"), "mine");
  end();
  begin(); /* links in a ring */
  add(&tar, '2', "x", "y");
  add(&tar, '2', "y", "x");
  add(&tar, '0', "x/f", "1");
  CHECK(unpack(&tar) < 0);
  end();
  begin(); /* a ring that the kernel does not see, for a part of it is missing */
  add(&tar, '2', "x", "missing/../x");
  add(&tar, '0', "x/f", "1");
  CHECK(unpack(&tar) < 0);
  CHECK(strstr(err.msg, "in a loop"));
  end();
  begin(); /* out of the root, to what is not there */
  add(&tar, '2', "esc", "../../nowhere");
  add(&tar, '0', "esc/f", "1");
  CHECK_INT(unpack(&tar), 0);
  CHECK_STR(content("nowhere/f"), "1");
  end();
  begin(); /* a link to what only a lower layer has */
  add(&tar, '2', "lib", "usr/lib");
  add(&tar, '0', "lib/f", "1");
  CHECK_INT(unpack(&tar), 0);
  CHECK_STR(content("usr/lib/f"), "1");
  CHECK(is("lib", S_IFLNK));
  end();
}

/* A link may lead to what is deeper than any name, and on and on. */
static void links_lead_nowhere_deep(void)
{
  char *deep = xmalloc(4096), path[600];
  for (size_t i = 0; i < 4000; i += 2) memcpy(deep + i, "a/", 2);
  begin(); /* to 1,600 folders that are not there */
  struct buf tar = {0};
  tar_pax(&tar, "linkpath", deep, 3200);
  add(&tar, '2', "s", "x");
  add(&tar, '0', "s/f", "1");
  CHECK(unpack(&tar) < 0);
  CHECK(strstr(err.msg, "is too long"));
  end();
  begin(); /* to folders that are there, and folders in them: end() has to get rid of it */
  tar_pax(&tar, "path", deep, 400);
  add(&tar, '5', "x", NULL);
  tar_pax(&tar, "linkpath", deep, 400);
  add(&tar, '2', "s", "x");
  snprintf(path, sizeof path, "s/%.400sf", deep);
  tar_pax(&tar, "path", path, strlen(path));
  add(&tar, '0', "x", "1");
  CHECK(unpack(&tar) < 0);
  CHECK(strstr(err.msg, "is too long"));
  end();
  free(deep);
}

static void hard_links_stay_inside(void)
{
  static const char *const targets[] = {"../victim", "missing", "/../victim", "esc/victim", "d"};
  static const char *const why[] = {"leads out of it", "does not have", "leads out of it",
                                    "does not have", "to a folder"};
  for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
    begin();
    struct buf tar = {0};
    add(&tar, '2', "esc", "..");
    add(&tar, '5', "d", NULL);
    add(&tar, '1', "h", targets[i]);
    CHECK(unpack(&tar) < 0);
    CHECK(strstr(err.msg, why[i]));
    end();
  }
  begin(); /* to a whiteout: that would be one more */
  struct buf tar = {0};
  add(&tar, '0', ".wh.x", NULL);
  add(&tar, '1', "h", "x");
  CHECK(unpack(&tar) < 0);
  end();
  begin(); /* to a link: the link itself, never what it names */
  char path[128];
  snprintf(path, sizeof path, "%s/victim", top);
  add(&tar, '2', "s", path);
  add(&tar, '1', "h", "s");
  add(&tar, '1', "h2", "s");
  tar_add(&tar, &(struct tar_header){.name = "h", .type = '0', .mode = 0777}, "mine", 4);
  CHECK_INT(unpack(&tar), 0);
  CHECK_STR(content("h"), "mine");
  CHECK(is("h2", S_IFLNK));
  end();
}

static void devices_are_left_out(void)
{
  begin();
  struct buf tar = {0};
  tar_add(&tar, &(struct tar_header){.name = "sda", .type = '4', .major = 8}, NULL, 0);
  tar_add(&tar, &(struct tar_header){.name = "mem", .type = '3', .major = 1, .minor = 1}, NULL, 0);
  tar_add(&tar, &(struct tar_header){.name = "hidden", .type = '3'}, NULL, 0); /* a bare whiteout */
  add(&tar, '0', "f", "1");
  CHECK_INT(unpack(&tar), 0);
  CHECK(absent("sda") && absent("mem") && absent("hidden"));
  CHECK_INT(result.devices, 3);
  end();
}

static void whiteouts_hide_lower_layers(void)
{
  begin();
  struct buf tar = {0};
  add(&tar, '0', "gone/.wh.f", NULL);
  add(&tar, '0', "d/.wh..wh..opq", NULL);
  add(&tar, '0', "d/new", "1");
  add(&tar, '0', ".wh.file_again", NULL);
  add(&tar, '0', "file_again", "2");
  add(&tar, '0', "kept", "3");
  add(&tar, '0', ".wh.kept", NULL); /* same layer: concerns lower layers only */
  add(&tar, '0', ".wh.dir_again", NULL);
  add(&tar, '0', "dir_again/x", "4");
  add(&tar, '0', "dir_before/y", "5");
  add(&tar, '0', ".wh.dir_before", NULL);
  add(&tar, '0', ".wh..wh.plnk", NULL);
  CHECK_INT(unpack(&tar), 0);
  CHECK(whiteout("gone/f"));
  CHECK(opaque("d") && is("d/new", S_IFREG));
  CHECK_STR(content("file_again"), "2");
  CHECK_STR(content("kept"), "3");
  CHECK(opaque("dir_again") && is("dir_again/x", S_IFREG));
  CHECK(opaque("dir_before") && is("dir_before/y", S_IFREG));
  CHECK(absent(".wh..wh.plnk") && absent(".wh.plnk") && absent(".wh.kept"));
  end();
  static const char *const bad[] = {".wh.", ".wh..", "a/.wh..."};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    begin();
    add(&tar, '0', bad[i], NULL);
    CHECK(unpack(&tar) < 0);
    end();
  }
}

static void later_entries_replace_earlier(void)
{
  begin();
  struct buf tar = {0};
  add(&tar, '0', "a", "1");
  add(&tar, '0', "a", "22");
  add(&tar, '5', "b", NULL);
  add(&tar, '0', "b/c/d", "1");
  add(&tar, '0', "b", "file now");
  add(&tar, '0', "e", "1");
  add(&tar, '5', "e", NULL);
  add(&tar, '0', "e/f", "2");
  add(&tar, '2', "g", "a");
  add(&tar, '5', "g", NULL);
  CHECK_INT(unpack(&tar), 0);
  CHECK_STR(content("a"), "22");
  CHECK_STR(content("b"), "file now");
  CHECK_STR(content("e/f"), "2");
  CHECK(opaque("e")); /* the file before it hid what lower layers have there */
  CHECK(is("g", S_IFDIR));
  end();
  begin(); /* a file is not a folder */
  add(&tar, '0', "a", "1");
  add(&tar, '0', "a/b", "2");
  CHECK(unpack(&tar) < 0);
  end();
  begin(); /* nor is the root a file */
  add(&tar, '2', "./", "/etc");
  CHECK(unpack(&tar) < 0);
  CHECK(strstr(err.msg, "is not a folder"));
  end();
}

static void overlay_marks_are_dropped(void)
{
  begin();
  struct buf tar = {0};
  tar_pax(&tar, "SCHILY.xattr.trusted.overlay.redirect", "/etc", 4);
  add(&tar, '5', "a", NULL);
  tar_pax(&tar, "SCHILY.xattr.user.overlay.opaque", "y", 1);
  add(&tar, '5', "b", NULL);
  tar_pax(&tar, "SCHILY.xattr.trusted.overlay.opaque", "y", 1);
  add(&tar, '5', "c", NULL);
  tar_pax(&tar, "SCHILY.xattr.user.kept", "v\0w", 3);
  add(&tar, '0', "d", "1");
  CHECK_INT(unpack(&tar), 0);
  char value[16];
  int fd = openat(tree_fd, "a", O_RDONLY);
  CHECK(fgetxattr(fd, "trusted.overlay.redirect", value, sizeof value) < 0);
  close(fd);
  CHECK(!opaque("b") && !opaque("c"));
  fd = openat(tree_fd, "d", O_RDONLY);
  CHECK_INT(fgetxattr(fd, "user.kept", value, sizeof value), 3);
  CHECK(memcmp(value, "v\0w", 3) == 0);
  close(fd);
  end();
}

static void names_are_bytes(void)
{
  begin();
  struct buf tar = {0};
  tar_pax(&tar, "path", "na\xC3\xAFve \xF0\x9F\x8C\x99", 12);
  add(&tar, '0', "short", "1");
  add(&tar, '0', "raw\xFF\xFE", "2");
  tar_pax(&tar, "linkpath", "z\xC3\xBCrich", 7);
  add(&tar, '2', "to", "short");
  add(&tar, '0', "new\nline %41 space", "3");
  CHECK_INT(unpack(&tar), 0);
  CHECK_STR(content("na\xC3\xAFve \xF0\x9F\x8C\x99"), "1");
  CHECK_STR(content("raw\xFF\xFE"), "2");
  char target[16] = "";
  CHECK_INT(readlinkat(tree_fd, "to", target, sizeof target - 1), 7);
  CHECK_STR(target, "z\xC3\xBCrich");
  CHECK_STR(content("new\nline %41 space"), "3");
  end();
}

/* A sparse file as GNU tar writes it: "data" at `at`, the rest of `size` bytes is a hole. */
static void add_sparse(struct buf *tar, const char *at, const char *size)
{
  struct buf body = {0}, records = {0};
  buf_printf(&body, "1\n%s\n4\n", at);
  while (body.len < 512) buf_putc(&body, '\0');
  buf_puts(&body, "data");
  tar_pax_record(&records, "GNU.sparse.major", "1", 1);
  tar_pax_record(&records, "GNU.sparse.minor", "0", 1);
  tar_pax_record(&records, "GNU.sparse.name", "sparse", 6);
  tar_pax_record(&records, "GNU.sparse.realsize", size, strlen(size));
  tar_pax_add(tar, &records);
  tar_add(tar, &(struct tar_header){.name = "GNUSparseFile.0/sparse", .type = '0'}, body.data,
          body.len);
  buf_free(&body);
}

static void sizes_are_bounded(void)
{
  begin(); /* says far more than it has */
  struct buf tar = {0};
  tar_add(&tar, &(struct tar_header){.name = "big", .type = '0', .size = 077777777777ULL}, "x", 1);
  CHECK(unpack(&tar) < 0);
  CHECK_INT(err.kind, ERR_PAYLOAD_TOO_LARGE);
  end();
  begin(); /* a sparse file of 8 EiB */
  add_sparse(&tar, "0", "9000000000000000000");
  CHECK(unpack(&tar) < 0);
  CHECK_INT(err.kind, ERR_PAYLOAD_TOO_LARGE);
  end();
  begin(); /* a name of 2 MiB */
  char *name = xmalloc(2 << 20);
  memset(name, 'a', 2 << 20);
  tar_pax(&tar, "path", name, 2 << 20);
  add(&tar, '0', "x", "1");
  CHECK(unpack(&tar) < 0);
  end();
  begin(); /* too deep */
  for (size_t i = 0; i < 1200; i += 2) memcpy(name + i, "a/", 2);
  tar_pax(&tar, "path", name, 1200);
  add(&tar, '0', "x", "1");
  CHECK(unpack(&tar) < 0);
  end();
  begin(); /* deepest allowed, and removable again */
  tar_pax(&tar, "path", name, 511);
  add(&tar, '0', "x", "1");
  CHECK_INT(unpack(&tar), 0);
  end();
  begin(); /* one part too long */
  memset(name, 'a', 256);
  tar_pax(&tar, "path", name, 256);
  add(&tar, '0', "x", "1");
  CHECK(unpack(&tar) < 0);
  CHECK(strstr(err.msg, "is too long"));
  end();
  free(name);
}

static void bombs_are_refused(void)
{
  begin(); /* 10 MiB of zeros in 10 KiB: an archive that ends at once, read to its end */
  struct buf tar = {0};
  FILE *f = popen("head -c 10485760 /dev/zero | gzip -c", "r");
  char chunk[4096];
  size_t n;
  while ((n = fread(chunk, 1, sizeof chunk, f)) > 0) buf_append(&tar, chunk, n);
  pclose(f);
  CHECK_INT(unpack_bytes(&tar, 512), 0);
  CHECK_INT(result.archive_bytes, 10 << 20);
  CHECK_INT(result.entries, 0);
  buf_free(&tar);
  end();
  begin(); /* too many entries */
  for (int i = 0; i < 20; i++) add(&tar, '0', "same", "1");
  tar_end(&tar);
  struct source s = {.data = tar.data, .len = tar.len, .step = 4096};
  struct unpack_conf conf = {
      .read = read_some, .source = &s, .tree_fd = tree_fd, .list_fd = -1, .limits = {1 << 20, 10}};
  err = (struct err){0};
  CHECK(image_unpack(&conf, &result, &err) < 0);
  CHECK_INT(err.kind, ERR_PAYLOAD_TOO_LARGE);
  buf_free(&tar);
  end();
}

static void broken_archives_are_refused(void)
{
  struct buf tar = {0};
  begin();
  for (int i = 0; i < 1000; i++) buf_puts(&tar, "this is no archive at all; ");
  CHECK(unpack_bytes(&tar, 100) < 0);
  buf_free(&tar);
  end();
  begin(); /* nothing */
  CHECK(unpack_bytes(&tar, 100) < 0);
  CHECK(strstr(err.msg, "it is empty"));
  end();
  begin(); /* cut in the middle of a file */
  tar_add(&tar, &(struct tar_header){.name = "f", .type = '0', .size = 100000}, "half", 4);
  CHECK(unpack_bytes(&tar, 100) < 0);
  buf_free(&tar);
  end();
  begin(); /* cut within the last block of a file */
  tar_add(&tar, &(struct tar_header){.name = "f", .type = '0'}, "0123456789", 10);
  tar.len = 512 + 9;
  CHECK(unpack_bytes(&tar, 100) < 0);
  tar.len = 512 + 10; /* whole, without the padding: some tools write that */
  CHECK(unpack_bytes(&tar, 100) == 0);
  CHECK_STR(content("f"), "0123456789");
  CHECK_INT(result.archive_bytes, 522);
  buf_free(&tar);
  end();
  begin(); /* an impossible owner */
  tar_pax(&tar, "uid", "99999999999", 11);
  add(&tar, '0', "f", "1");
  CHECK(unpack(&tar) < 0);
  end();
}

static int count_line(void *data, const struct list_line *line, struct err *e)
{
  (void)e;
  int *seen = data;
  seen[0]++;
  if (line->type == 'f' && strcmp(line->path, "a b%") == 0) {
    char want[IMAGE_DIGEST_SIZE];
    image_digest_of("xyz", 3, want);
    CHECK_STR(line->digest, want);
    CHECK_INT(line->size, 3);
    seen[1]++;
  }
  if (line->type == 'l') {
    CHECK_STR(line->link, "to here");
    seen[1]++;
  }
  return 0;
}

static int check_sparse(void *data, const struct list_line *line, struct err *e)
{
  (void)e;
  static char want[100000];
  char digest[IMAGE_DIGEST_SIZE];
  memcpy(want + 4096, "data", 4);
  image_digest_of(want, sizeof want, digest);
  if (strcmp(line->path, "sparse") != 0) return 0;
  CHECK_STR(line->digest, digest);
  ++*(int *)data;
  return 0;
}

static void holes_are_zeros(void)
{
  struct buf tar = {0};
  struct stat st;
  int seen = 0;
  begin();
  add_sparse(&tar, "4096", "100000");
  CHECK_INT(unpack(&tar), 0);
  CHECK_INT(fstatat(tree_fd, "sparse", &st, 0), 0);
  CHECK_INT(st.st_size, 100000);
  CHECK(st.st_blocks * 512 < 50000);
  CHECK_INT(list_read(list_fd, check_sparse, &seen, &err), 0);
  CHECK_INT(seen, 1);
  end();
  begin(); /* data behind the end */
  add_sparse(&tar, "4096", "1000");
  CHECK(unpack(&tar) < 0);
  end();
}

static void digests_and_lists_are_right(void)
{
  begin();
  struct buf tar = {0};
  add(&tar, '0', "a b%", "xyz");
  add(&tar, '2', "s", "to here");
  tar_end(&tar);
  buf_puts(&tar, "behind the end");
  char want[IMAGE_DIGEST_SIZE];
  image_digest_of(tar.data, tar.len, want);
  CHECK_INT(unpack_bytes(&tar, 7), 0);
  CHECK_STR(result.blob, want);
  CHECK_STR(result.diff_id, want);
  CHECK_INT(result.blob_bytes, tar.len);
  int seen[2] = {0};
  CHECK_INT(list_read(list_fd, count_line, seen, &err), 0);
  CHECK_INT(seen[0], 3); /* the implied root too */
  CHECK_INT(seen[1], 2);
  buf_free(&tar);
  end();
}

static int check_real(void *data, const struct list_line *line, struct err *e)
{
  (void)e;
  if (line->type == 'h') CHECK_STR(line->link, "usr/lib/f");
  if (line->type != 'l' && *line->path) CHECK(strncmp(line->path, "usr", 3) == 0);
  ++*(int *)data;
  return 0;
}

/* The list says where things are, not by which links they came there: verify looks for them. */
static void lists_know_no_links(void)
{
  struct buf tar = {0};
  int seen = 0;
  begin();
  add(&tar, '2', "lib", "usr/lib");
  add(&tar, '0', "lib/f", "1");
  add(&tar, '0', "lib/implied/g", "1");
  add(&tar, '1', "lib/h", "lib/f");
  CHECK_INT(unpack(&tar), 0);
  CHECK_INT(list_read(list_fd, check_real, &seen, &err), 0);
  CHECK_INT(seen, 8);
  end();
}

static int check_time(void *data, const struct list_line *line, struct err *e)
{
  (void)e;
  struct stat st;
  if (line->type != 'f') return 0;
  CHECK_INT(fstatat(tree_fd, line->path, &st, 0), 0);
  CHECK_INT(st.st_mtim.tv_sec, line->mtime.tv_sec);
  CHECK(line->mtime.tv_sec >= INT32_MIN && line->mtime.tv_sec <= 0x37FFFFFFF);
  ++*(int *)data;
  return 0;
}

static void times_are_what_can_be(void)
{
  static const char *const times[] = {"99999999999999", "-99999999999999", "-5.5", "1.99999999999"};
  struct buf tar = {0};
  int seen = 0;
  begin();
  for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
    char name[2] = {(char)('a' + i), '\0'};
    tar_pax(&tar, "mtime", times[i], strlen(times[i]));
    add(&tar, '0', name, "1");
  }
  CHECK_INT(unpack(&tar), 0);
  CHECK_INT(list_read(list_fd, check_time, &seen, &err), 0);
  CHECK_INT(seen, 4);
  end();
}

/* Every single-byte change of a valid archive is unpacked or refused, and nothing gets out. */
static void mutations_do_no_harm(void)
{
  struct buf tar = {0};
  add(&tar, '2', "l", "..");
  add(&tar, '0', "l/victim", "x");
  tar_pax(&tar, "path", "some/longer/path", 16);
  add(&tar, '0', "f", "content");
  add(&tar, '1', "h", "f");
  add(&tar, '0', "d/.wh.x", NULL);
  tar_end(&tar);
  unsigned seed = 1;
  for (int i = 0; i < 400; i++) {
    begin();
    struct buf copy = {0};
    buf_append(&copy, tar.data, tar.len);
    for (int k = 0; k < 3; k++) {
      seed = seed * 1103515245 + 12345;
      copy.data[(seed >> 8) % copy.len] = (char)(seed >> 4);
    }
    unpack_bytes(&copy, 333);
    buf_free(&copy);
    end();
  }
  buf_free(&tar);
}

const struct test_case test_cases[] = {
    {"plain_entries", plain_entries},
    {"paths_stay_inside", paths_stay_inside},
    {"links_lead_nowhere", links_lead_nowhere},
    {"links_lead_nowhere_deep", links_lead_nowhere_deep},
    {"hard_links_stay_inside", hard_links_stay_inside},
    {"devices_are_left_out", devices_are_left_out},
    {"whiteouts_hide_lower_layers", whiteouts_hide_lower_layers},
    {"later_entries_replace_earlier", later_entries_replace_earlier},
    {"overlay_marks_are_dropped", overlay_marks_are_dropped},
    {"names_are_bytes", names_are_bytes},
    {"sizes_are_bounded", sizes_are_bounded},
    {"bombs_are_refused", bombs_are_refused},
    {"broken_archives_are_refused", broken_archives_are_refused},
    {"holes_are_zeros", holes_are_zeros},
    {"digests_and_lists_are_right", digests_and_lists_are_right},
    {"lists_know_no_links", lists_know_no_links},
    {"times_are_what_can_be", times_are_what_can_be},
    {"mutations_do_no_harm", mutations_do_no_harm},
    {0}};

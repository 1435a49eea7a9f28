/* core/tree: trees travel whole, and a hostile stream gets nowhere. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/tree.h"

static char base[64];

static int open_dir(const char *name)
{
  char path[256];
  snprintf(path, sizeof path, "%s/%s", base, name);
  mkdir(path, 0755);
  return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void put_file(int dir, const char *name, const char *text, size_t len, mode_t mode)
{
  int fd = openat(dir, name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  CHECK(fd >= 0 && write(fd, text, len) == (ssize_t)len);
  fchmod(fd, mode);
  close(fd);
}

/* NULL: there is no such file. */
static const char *text_of(int dir, const char *name)
{
  static char text[4096];
  int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
  if (fd >= 0) close(fd);
  text[n < 0 ? 0 : n] = '\0';
  return n < 0 ? NULL : text;
}

static unsigned mode_of(int dir, const char *name)
{
  struct stat st;
  return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_mode & 07777u : 0;
}

static size_t count(int dir)
{
  size_t n = 0;
  int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fdopendir(copy);
  while (readdir(d)) n++;
  closedir(d);
  return n - 2;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
  (void)st, (void)flag, (void)ftw;
  return remove(path);
}

static void begin(void)
{
  snprintf(base, sizeof base, "/tmp/regolith-tree.%d", (int)getpid());
  CHECK_INT(mkdir(base, 0755), 0);
}

static void end(void)
{
  nftw(base, remove_one, 64, FTW_DEPTH | FTW_PHYS);
}

/* The whole stream of what is in dir. */
static struct buf pack(int dir, const char *name)
{
  struct buf out = {0};
  struct tree_source *s = tree_source_new(openat(dir, name, O_RDONLY | O_CLOEXEC));
  int rc = s ? 1 : -errno;
  while (rc > 0) rc = tree_source_read(s, &out);
  CHECK_INT(rc, 0);
  tree_source_free(s);
  return out;
}

static struct tree_sink *sink(int dir, const char *name, bool tame)
{
  return tree_sink_new(&(struct tree_sink_conf){.dir = dup(dir), .name = name, .tame = tame});
}

static int feed(struct tree_sink *s, const struct buf *in, size_t step)
{
  int rc = 0;
  for (size_t at = 0; at < in->len && rc == 0; at += step)
    rc = tree_sink_write(s, in->data + at, step < in->len - at ? step : in->len - at);
  return rc;
}

static struct buf big_text(void)
{
  struct buf b = {0};
  for (int i = 0; i < 40000; i++) buf_printf(&b, "%d\n", i);
  return b;
}

static void round_trip(void)
{
  static const size_t steps[] = {1, 7, 33, 4096, 65536, 10 << 20};
  begin();
  int a = open_dir("a");
  struct buf big = big_text();
  put_file(a, "big", big.data, big.len, 0640);
  put_file(a, "empty", "", 0, 0755);
  put_file(a, "\n\x01 odd", "odd", 3, 0444);
  mkdirat(a, "sub", 0700);
  int sub = openat(a, "sub", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  put_file(sub, "f", "in sub", 6, 04755);
  mkdirat(sub, "none", 0755);
  CHECK_INT(symlinkat("sub/f", a, "link"), 0);
  CHECK_INT(symlinkat("/etc/passwd", a, "out"), 0);
  CHECK_INT(mkfifoat(a, "fifo", 0600), 0);
  struct buf stream = pack(a, ".");
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    char name[16];
    snprintf(name, sizeof name, "b%zu", i);
    int into = open_dir(name);
    struct tree_sink *s = sink(into, "tree", false);
    CHECK_INT(feed(s, &stream, steps[i]), 0);
    CHECK(tree_sink_ended(s));
    const struct tree_report *r = tree_sink_report(s);
    CHECK_INT(r->files, 4);
    CHECK_INT(r->dirs, 3);
    CHECK_INT(r->links, 2);
    CHECK_INT(r->bytes, big.len + 9);
    CHECK_INT(r->skipped_n, 1);
    CHECK_STR(r->skipped.data, "fifo fifo");
    tree_sink_free(s);
    CHECK_STR(text_of(into, "tree/sub/f"), "in sub");
    CHECK_INT(mode_of(into, "tree/sub/f"), 0755);
    CHECK_INT(mode_of(into, "tree/sub"), 0700);
    CHECK_INT(mode_of(into, "tree/big"), 0640);
    CHECK_STR(text_of(into, "tree/\n\x01 odd"), "odd");
    char link[32] = {0};
    CHECK_INT(readlinkat(into, "tree/link", link, sizeof link), 5);
    struct buf again = pack(into, "tree/big"), first = pack(a, "big");
    CHECK(again.len == first.len && memcmp(again.data, first.data, first.len) == 0);
    buf_free(&again);
    buf_free(&first);
    close(into);
  }
  buf_free(&stream);
  buf_free(&big);
  close(sub);
  close(a);
  end();
}

static void replaces_as_a_whole(void)
{
  begin();
  int d = open_dir("d");
  put_file(d, "f", "old", 3, 0604);
  put_file(d, "target", "precious", 8, 0644);
  CHECK_INT(symlinkat("target", d, "link"), 0);
  struct buf in = {0};
  struct tree_head file = {.type = TREE_FILE, .mode = TREE_MODE_KEEP, .mtime = TREE_TIME_NOW};
  tree_put(&in, file, "", NULL);
  tree_put(&in, (struct tree_head){.type = TREE_DATA, .len = 3}, "", "new");
  struct tree_sink *s = sink(d, "f", false);
  CHECK_INT(feed(s, &in, 1000), 0);
  CHECK(!tree_sink_ended(s));
  CHECK_STR(text_of(d, "f"), "old");
  tree_sink_free(s);
  CHECK_STR(text_of(d, "f"), "old");
  CHECK_INT(count(d), 3); /* and no trace of the new one */
  tree_put(&in, (struct tree_head){.type = TREE_CLOSE}, "", NULL);
  tree_put(&in, (struct tree_head){.type = TREE_END}, "", NULL);
  s = sink(d, "f", false);
  CHECK_INT(feed(s, &in, 1000), 0);
  tree_sink_free(s);
  CHECK_STR(text_of(d, "f"), "new");
  CHECK_INT(mode_of(d, "f"), 0604);
  s = sink(d, "link", false); /* a link gives way, what it led to stays */
  CHECK_INT(feed(s, &in, 1000), 0);
  tree_sink_free(s);
  CHECK_STR(text_of(d, "link"), "new");
  CHECK_STR(text_of(d, "target"), "precious");
  CHECK_INT(mkfifoat(d, "fifo", 0600), 0);
  s = sink(d, "fifo", false);
  CHECK_INT(feed(s, &in, 1000), -ENXIO);
  tree_sink_free(s);
  s = sink(d, NULL, false);
  CHECK_INT(feed(s, &in, 1000), -EISDIR);
  tree_sink_free(s);
  buf_free(&in);
  close(d);
  end();
}

static const struct tree_head dir_head = {.type = TREE_DIR, .mode = 0755};

static struct buf dir_with(struct tree_head head, const char *name, const char *data)
{
  struct buf in = {0};
  tree_put(&in, dir_head, "", NULL);
  tree_put(&in, head, name, data);
  return in;
}

static int try(int d, const struct buf *in, bool tame)
{
  struct tree_sink *s = sink(d, "t", tame);
  int rc = feed(s, in, 1 << 20);
  tree_sink_free(s);
  return rc;
}

static void names_are_components(void)
{
  static const char *const names[] = {"..", ".", "", "a/b", "/etc", "../x", "a/../../x"};
  static const uint32_t types[] = {TREE_FILE, TREE_DIR, TREE_LINK};
  begin();
  int d = open_dir("d");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    for (size_t k = 0; k < 3; k++) {
      struct tree_head head = {.type = types[k], .len = types[k] == TREE_LINK ? 1 : 0};
      struct buf in = dir_with(head, names[i], "x");
      CHECK_INT(try(d, &in, false), -EBADMSG);
      buf_free(&in);
    }
  struct buf in = {0}; /* a NUL in the name */
  tree_put(&in, dir_head, "", NULL);
  struct tree_head head = {.type = TREE_DIR, .mode = 0755, .name_len = 3};
  buf_append(&in, &head, sizeof head);
  buf_append(&in, "a\0b", 3);
  CHECK_INT(try(d, &in, false), -EBADMSG);
  buf_free(&in);
  CHECK_INT(count(d), 1);
  close(d);
  end();
}

static void links_are_not_entered(void)
{
  begin();
  int d = open_dir("d"), out = open_dir("outside");
  struct tree_head link = {.type = TREE_LINK, .len = strlen("../../outside")};
  struct buf in = dir_with(link, "l", "../../outside");
  tree_put(&in, dir_head, "l", NULL); /* what the link leads to, as a directory */
  CHECK_INT(try(d, &in, false), -ENOTDIR);
  buf_free(&in);
  in = dir_with(link, "l", "../../outside");
  tree_put(&in, (struct tree_head){.type = TREE_FILE, .mode = 0644}, "l", NULL);
  tree_put(&in, (struct tree_head){.type = TREE_CLOSE}, "", NULL);
  CHECK_INT(try(d, &in, false), 0);
  CHECK_STR(text_of(d, "t/l"), "");
  CHECK_INT(count(out), 0);
  buf_free(&in);
  close(out);
  close(d);
  end();
}

static void tame_links_stay_inside(void)
{
  static const struct {
    const char *target;
    bool kept;
  } cases[] = {{"f", true},          {"./f", true},    {"a/b/c", true},    {"../f", true},
               {"..", true},         {"../", true},    {"../../f", false}, {"/etc", false},
               {"a/../f", false},    {"./../f", true}, {"../../", false},  {"a/..", false},
               {"../a/../b", false}, {"...", true},    {"..a/b", true}};
  begin();
  int d = open_dir("d");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct buf in = dir_with(dir_head, "sub", NULL);
    struct tree_head head = {.type = TREE_LINK, .len = strlen(cases[i].target)};
    tree_put(&in, head, "l", cases[i].target);
    struct tree_sink *s = sink(d, "t", true);
    CHECK_INT(feed(s, &in, 1 << 20), 0);
    if (tree_sink_report(s)->links != cases[i].kept) fprintf(stderr, "%s\n", cases[i].target);
    CHECK_INT(tree_sink_report(s)->links, cases[i].kept);
    CHECK_INT(tree_sink_report(s)->skipped_n, !cases[i].kept);
    tree_sink_free(s);
    buf_free(&in);
  }
  close(d);
  end();
}

static void tame_modes(void)
{
  begin();
  int d = open_dir("d");
  struct buf in = dir_with((struct tree_head){.type = TREE_FILE, .mode = 06777}, "f", NULL);
  tree_put(&in, (struct tree_head){.type = TREE_CLOSE}, "", NULL);
  tree_put(&in, (struct tree_head){.type = TREE_DIR, .mode = 0}, "none", NULL);
  tree_put(&in, (struct tree_head){.type = TREE_UP}, "", NULL);
  CHECK_INT(try(d, &in, true), 0);
  CHECK_INT(mode_of(d, "t/f"), 0755);
  CHECK_INT(mode_of(d, "t/none"), 0700);
  buf_free(&in);
  close(d);
  end();
}

static void limits(void)
{
  begin();
  int d = open_dir("d");
  struct buf in = dir_with((struct tree_head){.type = TREE_FILE}, "f", NULL);
  tree_put(&in, (struct tree_head){.type = TREE_DATA, .len = 5}, "", "12345");
  for (uint64_t max = 1; max < 8; max++) {
    struct tree_sink *s =
        tree_sink_new(&(struct tree_sink_conf){.dir = dup(d), .name = "t", .max_bytes = max});
    CHECK_INT(feed(s, &in, 1), max < 5 ? -EFBIG : 0);
    tree_sink_free(s);
  }
  buf_free(&in);
  in = (struct buf){0};
  tree_put(&in, dir_head, "", NULL);
  for (int i = 0; i < 5; i++) tree_put(&in, (struct tree_head){.type = TREE_SKIP}, "s", NULL);
  struct tree_sink *s =
      tree_sink_new(&(struct tree_sink_conf){.dir = dup(d), .name = "t", .max_things = 4});
  CHECK_INT(feed(s, &in, 1), -EFBIG);
  tree_sink_free(s);
  buf_free(&in);
  in = (struct buf){0};
  tree_put(&in, dir_head, "", NULL);
  for (int i = 0; i <= TREE_DEPTH_MAX; i++) tree_put(&in, dir_head, "d", NULL);
  CHECK_INT(try(d, &in, false), -EOVERFLOW);
  buf_free(&in);
  close(d);
  end();
}

/* A good stream with some bytes changed: whatever it then says, it says it inside. */
static void random_streams(void)
{
  begin();
  int a = open_dir("a"), out = open_dir("outside");
  put_file(a, "f", "some text", 9, 0644);
  put_file(out, "kept", "as it was", 9, 0644);
  mkdirat(a, "sub", 0755);
  CHECK_INT(symlinkat("../outside", a, "link"), 0);
  CHECK_INT(symlinkat("../../outside/kept", a, "sub/link"), 0);
  struct buf good = pack(a, ".");
  unsigned seed = 1;
  size_t whole = 0;
  for (int i = 0; i < 4000; i++) {
    struct buf in = {0};
    buf_append(&in, good.data, good.len);
    for (unsigned n = 1 + (seed >> 16) % 4; n > 0; n--) {
      seed = seed * 1103515245u + 12345u;
      size_t at = (seed >> 8) % in.len;
      seed = seed * 1103515245u + 12345u;
      in.data[at] = (seed >> 16) % 3 ? (char)((seed >> 20) % 10) : "./\0a"[(seed >> 20) % 4];
    }
    int into = open_dir("into");
    struct tree_sink *s = tree_sink_new(&(struct tree_sink_conf){
        .dir = dup(into), .name = "t", .tame = true, .max_bytes = 1 << 20, .max_things = 100});
    feed(s, &in, 1 + seed % 50);
    whole += tree_sink_ended(s);
    tree_sink_free(s);
    CHECK(count(into) <= 1);
    close(into);
    if (i % 50 == 0) {
      char path[128];
      snprintf(path, sizeof path, "%s/into", base);
      nftw(path, remove_one, 64, FTW_DEPTH | FTW_PHYS);
    }
    buf_free(&in);
  }
  CHECK(whole > 100 && whole < 3900); /* both kinds were seen */
  CHECK_INT(count(out), 1);
  CHECK_STR(text_of(out, "kept"), "as it was");
  buf_free(&good);
  close(out);
  close(a);
  end();
}

const struct test_case test_cases[] = {{"round trip", round_trip},
                                       {"replaces as a whole", replaces_as_a_whole},
                                       {"names are components", names_are_components},
                                       {"links are not entered", links_are_not_entered},
                                       {"tame links stay inside", tame_links_stay_inside},
                                       {"tame modes", tame_modes},
                                       {"limits", limits},
                                       {"random streams", random_streams},
                                       {NULL, NULL}};

/* Images: the store without any registry: what is found, what is kept, what a collection takes,
 * what a crash leaves. Layers here are empty folders under made-up digests. */
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "image/config.h"
#include "image/folders.h"
#include "image/list.h"
#include "image/store.h"

static char top[64];
static struct image_store *store;
static struct err err;

static void begin(void)
{
  strcpy(top, "/tmp/regolith-store.XXXXXX");
  if (!mkdtemp(top)) abort();
  CHECK_INT(image_store_open(&store, top, &err), 0);
}

static void end(void)
{
  image_store_close(store);
  CHECK_INT(image_tree_remove(AT_FDCWD, top, NULL), 0);
}

/* "sha256:" and one digit 64 times: a name for a layer, a blob or an image. */
static const char *digest(char digit)
{
  static char text[4][IMAGE_DIGEST_SIZE];
  static unsigned turn;
  char *d = text[turn++ % 4];
  strcpy(d, "sha256:");
  memset(d + 7, digit, 64);
  d[71] = '\0';
  return d;
}

static void add_layer(char digit)
{
  struct image_stage stage;
  CHECK_INT(image_stage_new(store, &stage, &err), 0);
  int fd = openat(stage.tree_fd, "file", O_WRONLY | O_CREAT, 0600);
  CHECK(write(fd, &digit, 1) == 1);
  close(fd);
  CHECK_INT(image_stage_commit(store, &stage, digest(digit), 1000, 1, &err), 0);
}

/* An image of these layers, named after its own digit. */
static int add_image(char digit, const char *layers, const char *name)
{
  struct image_record r = {.layers_n = strlen(layers)};
  struct image_ref ref = {0};
  strcpy(r.digest, digest(digit));
  strcpy(r.config, digest((char)(digit + 1)));
  r.layers = xcalloc(r.layers_n + 1, sizeof *r.layers);
  for (size_t i = 0; layers[i]; i++) strcpy(r.layers[i], digest(layers[i]));
  if (name) CHECK_INT(image_ref_parse(&ref, name, &err), 0);
  CHECK_INT(image_store_put_blob(store, r.digest, "{}", 2, &err), 0);
  CHECK_INT(image_store_put_blob(store, r.config, "{\"rootfs\":{}}", 13, &err), 0);
  int rc = image_store_add(store, &r, name ? &ref : NULL, &err);
  image_ref_free(&ref);
  image_record_free(&r);
  return rc;
}

static bool has(const char *path)
{
  char full[256];
  snprintf(full, sizeof full, "%s/%s", top, path);
  return access(full, F_OK) == 0;
}

static bool has_layer(char digit)
{
  char path[64] = "layers/";
  image_layer_id(digest(digit), path + 7);
  return has(path);
}

static bool finds(const char *name, char digit)
{
  struct image_record r;
  if (image_store_find(store, name, &r, &err) < 0) return false;
  bool same = strcmp(r.digest, digest(digit)) == 0;
  image_record_free(&r);
  return same;
}

static void names_and_digests_find_images(void)
{
  begin();
  add_layer('a');
  CHECK_INT(add_image('1', "a", "x/y:1"), 0);
  CHECK_INT(add_image('3', "a", "x/y:2"), 0);
  CHECK(finds("x/y:1", '1') && finds("docker.io/x/y:2", '3'));
  CHECK(finds("111111", '1') && finds("sha256:3", '3') && finds(digest('3'), '3'));
  CHECK(!finds("x/y", '1'));
  CHECK_INT(err.kind, ERR_IMAGE_NOT_FOUND);
  CHECK(!finds("222222", '1'));
  CHECK(!finds("Bad:Name", '1'));
  CHECK_INT(err.kind, ERR_INVALID_ARGUMENT);
  /* a name goes on to another image */
  CHECK_INT(add_image('5', "a", "x/y:1"), 0);
  CHECK(finds("x/y:1", '5') && finds("111111", '1'));
  end();
}

static void an_image_needs_its_layers(void)
{
  begin();
  add_layer('a');
  CHECK(add_image('1', "ab", "x:1") < 0);
  CHECK(!finds("x:1", '1'));
  end();
}

static void collections_take_what_nobody_names(void)
{
  begin();
  struct image_gc_result result;
  for (const char *l = "abcd"; *l; l++) add_layer(*l);
  CHECK_INT(add_image('1', "ab", "x:1"), 0);
  CHECK_INT(add_image('3', "bc", "x:2"), 0);
  CHECK_INT(add_image('5', "c", NULL), 0);
  CHECK_INT(image_store_gc(store, 0, &result, &err), 0);
  CHECK_INT(result.images, 1);
  CHECK_INT(result.layers, 1);
  CHECK_INT(result.bytes, 1000);
  CHECK(has_layer('a') && has_layer('b') && has_layer('c') && !has_layer('d'));
  CHECK_INT(image_store_rm(store, "x:1", &result, &err), 0);
  CHECK(!has_layer('a') && has_layer('b'));
  CHECK_INT(image_store_rm(store, digest('3'), &result, &err), 0);
  CHECK(!has_layer('b') && !has_layer('c'));
  CHECK(image_store_rm(store, "x:2", &result, &err) < 0);
  end();
}

static void two_names_are_two_reasons_to_stay(void)
{
  begin();
  struct image_gc_result result;
  struct image_ref ref;
  add_layer('a');
  CHECK_INT(add_image('1', "a", "x:1"), 0);
  image_ref_parse(&ref, "other:2", NULL);
  CHECK_INT(image_store_tag(store, &ref, digest('1'), &err), 0);
  image_ref_free(&ref);
  CHECK_INT(image_store_rm(store, "x:1", &result, &err), 0);
  CHECK_INT(result.images, 0);
  CHECK(finds("other:2", '1'));
  CHECK_INT(image_store_rm(store, "other:2", &result, &err), 0);
  CHECK_INT(result.images, 1);
  CHECK(!has("refs/docker.io"));
  end();
}

static void leases_keep_layers(void)
{
  begin();
  struct image_gc_result result;
  struct image_record r;
  struct image_lease *lease;
  add_layer('a');
  add_layer('b');
  CHECK_INT(add_image('1', "a", "x:1"), 0);
  CHECK_INT(image_store_acquire(store, "x:1", &r, &lease, &err), 0);
  CHECK_INT(image_store_gc(store, 1, &result, &err), 0); /* over the limit: cannot be helped */
  CHECK(result.in_use && finds("x:1", '1') && has_layer('a') && !has_layer('b'));
  CHECK_INT(image_store_rm(store, "x:1", &result, &err), 0);
  CHECK(result.in_use && finds(digest('1'), '1') && has_layer('a'));
  CHECK_INT(image_store_gc(store, 1, &result, &err), 0);
  CHECK(finds(digest('1'), '1') && has_layer('a'));
  image_lease_free(lease);
  image_record_free(&r);
  CHECK_INT(image_store_gc(store, 0, &result, &err), 0);
  CHECK(!has_layer('a'));
  /* a layer under way is leased before it exists */
  bool present = true;
  CHECK_INT(image_lease_new(store, &lease, &err), 0);
  CHECK_INT(image_lease_layer(lease, digest('c'), &present, &err), 0);
  CHECK(!present);
  add_layer('c');
  CHECK_INT(image_store_gc(store, 0, &result, &err), 0);
  CHECK(has_layer('c'));
  image_lease_free(lease);
  end();
}

static void the_dead_hold_nothing(void)
{
  begin();
  add_layer('a');
  CHECK_INT(add_image('1', "a", "x:1"), 0);
  int ready[2];
  CHECK_INT(pipe(ready), 0);
  pid_t pid = fork();
  if (pid == 0) { /* leases, unpacks, and dies in the middle */
    struct image_store *own;
    struct image_record r;
    struct image_lease *lease;
    struct image_stage stage;
    if (image_store_open(&own, top, NULL) < 0 ||
        image_store_acquire(own, "x:1", &r, &lease, NULL) < 0 ||
        image_stage_new(own, &stage, NULL) < 0 || write(ready[1], "x", 1) != 1)
      _exit(1);
    for (;;) pause();
  }
  char c;
  CHECK(read(ready[0], &c, 1) == 1);
  struct image_gc_result result;
  CHECK_INT(image_store_rm(store, "x:1", &result, &err), 0);
  CHECK(result.in_use && has_layer('a'));
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  CHECK_INT(image_store_gc(store, 0, &result, &err), 0);
  CHECK(!has_layer('a'));
  char path[128];
  snprintf(path, sizeof path, "%s/tmp", top);
  CHECK_INT(rmdir(path), 0); /* it is empty */
  snprintf(path, sizeof path, "%s/leases", top);
  CHECK_INT(rmdir(path), 0);
  close(ready[0]);
  close(ready[1]);
  end();
}

static void limits_take_the_least_recently_used(void)
{
  begin();
  struct image_gc_result result;
  for (const char *l = "abc"; *l; l++) add_layer(*l);
  CHECK_INT(add_image('1', "a", "x:1"), 0);
  CHECK_INT(add_image('3', "b", "x:2"), 0);
  CHECK_INT(add_image('5', "c", "x:3"), 0);
  static const char order[] = "351"; /* oldest use first */
  for (size_t i = 0; order[i]; i++) {
    char path[256];
    struct timespec times[2] = {{.tv_sec = 1000 + (time_t)i}, {.tv_sec = 1000 + (time_t)i}};
    snprintf(path, sizeof path, "%s/images/%s", top, digest(order[i]) + 7);
    CHECK_INT(utimensat(AT_FDCWD, path, times, 0), 0);
  }
  struct image_record r;
  struct image_lease *lease;
  CHECK_INT(image_store_acquire(store, "x:3", &r, &lease, &err), 0); /* a use: now the newest */
  image_lease_free(lease);
  image_record_free(&r);
  CHECK_INT(image_store_gc(store, 2000, &result, &err), 0);
  CHECK(!finds("x:2", '3') && finds("x:1", '1') && finds("x:3", '5'));
  CHECK_INT(image_store_gc(store, 1000, &result, &err), 0);
  CHECK(!finds("x:1", '1') && finds("x:3", '5'));
  end();
}

static void layers_of_another_boot_do_not_count(void)
{
  begin();
  add_layer('a');
  char id[IMAGE_LAYER_ID_SIZE], script[512];
  image_layer_id(digest('a'), id);
  snprintf(script, sizeof script, "cd %s/lists && mv %s~* %s~0000000000000000", top, id, id);
  CHECK_INT(system(script), 0);
  CHECK(add_image('1', "a", "x:1") < 0);
  add_layer('a'); /* takes the place of what is left */
  CHECK_INT(add_image('1', "a", "x:1"), 0);
  struct image_gc_result result;
  CHECK_INT(image_store_gc(store, 0, &result, &err), 0);
  snprintf(script, sizeof script, "test $(ls %s/lists) = %s", top, id);
  CHECK_INT(system(script), 0);
  end();
}

/* Whoever comes second with a layer leaves alone what may be mounted already. */
static void the_first_of_two_stays(void)
{
  begin();
  char path[256], id[IMAGE_LAYER_ID_SIZE];
  struct stat before, after;
  add_layer('a');
  image_layer_id(digest('a'), id);
  snprintf(path, sizeof path, "%s/layers/%s", top, id);
  CHECK_INT(stat(path, &before), 0);
  add_layer('a');
  CHECK_INT(stat(path, &after), 0);
  CHECK(before.st_ino == after.st_ino);
  snprintf(path, sizeof path, "%s/tmp", top);
  CHECK_INT(rmdir(path), 0);
  end();
}

/* As many folders as a layer of a megabyte can name. The square of that takes minutes. */
static void folders_by_the_hundred_thousand_are_settled(void)
{
  begin();
  struct image_stage stage;
  CHECK_INT(image_stage_new(store, &stage, &err), 0);
  struct list_writer *w = list_writer_new(stage.list_fd);
  char path[16];
  for (int i = 0; i < 200000; i++) {
    snprintf(path, sizeof path, "%c%d", "id"[i % 2], i);
    list_write(w, &(struct list_line){.type = "id"[i % 2], .path = path}, &err);
  }
  CHECK_INT(list_flush(w, &err), 0);
  list_writer_free(w);
  CHECK_INT(image_stage_commit(store, &stage, digest('b'), 1, 1, &err), 0);
  add_layer('a');
  struct image_record r = {.layers_n = 2};
  r.layers = xcalloc(r.layers_n, sizeof *r.layers);
  strcpy(r.layers[0], digest('a'));
  strcpy(r.layers[1], digest('b'));
  alarm(300);
  CHECK_INT(image_folders_settle(store, &r, &err), 0);
  alarm(0);
  image_record_free(&r);
  end();
}

static void an_opaque_root_hides_what_is_below(void)
{
  begin();
  struct image_stage stage;
  const char *name =
      image_store_user_xattrs(store) ? "user.overlay.opaque" : "trusted.overlay.opaque";
  struct stat before, st;
  char value = 0;
  CHECK_INT(image_stage_new(store, &stage, &err), 0);
  CHECK_INT(mkdirat(stage.tree_fd, "d", 0755), 0);
  CHECK_INT(image_stage_commit(store, &stage, digest('b'), 1, 1, &err), 0);
  CHECK_INT(image_stage_new(store, &stage, &err), 0);
  CHECK_INT(mkdirat(stage.tree_fd, "d", 0755), 0);
  CHECK_INT(mkdirat(stage.tree_fd, "own", 0755), 0);
  bool can = fsetxattr(stage.tree_fd, name, "y", 1, 0) == 0;
  CHECK_INT(image_stage_commit(store, &stage, digest('c'), 1, 1, &err), 0);
  add_layer('a');
  struct image_record r = {.layers_n = 3};
  r.layers = xcalloc(r.layers_n, sizeof *r.layers);
  for (size_t i = 0; i < 3; i++) strcpy(r.layers[i], digest((char)('a' + i)));
  int fd = image_store_open_layer(store, digest('c'), &err);
  CHECK_INT(fstat(fd, &before), 0);
  for (int i = 0; can && i < 2; i++) {
    CHECK_INT(image_folders_settle(store, &r, &err), 0);
    CHECK_INT(fstatat(fd, "file", &st, AT_SYMLINK_NOFOLLOW), 0);
    CHECK(S_ISCHR(st.st_mode) && st.st_rdev == 0);
    int d = openat(fd, "d", O_RDONLY | O_DIRECTORY);
    CHECK(fgetxattr(d, name, &value, 1) == 1 && value == 'y');
    close(d);
    CHECK(fstat(fd, &st) == 0 && st.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
  }
  close(fd);
  image_record_free(&r);
  end();
}

static void a_prefix_is_not_a_layer(void)
{
  begin();
  add_layer('a');
  bool present;
  struct image_lease *lease;
  char other[IMAGE_DIGEST_SIZE];
  strcpy(other, digest('a'));
  other[70] = 'b'; /* the same folder name, another layer */
  CHECK_INT(image_lease_new(store, &lease, &err), 0);
  CHECK_INT(image_lease_layer(lease, other, &present, &err), 0);
  CHECK(!present);
  image_lease_free(lease);
  end();
}

/* What image_store_add does to lists, one layer after the other, in the order of their names. */
static void settle_slowly(void)
{
  char lists[128];
  struct dirent **names;
  snprintf(lists, sizeof lists, "%s/lists", top);
  int dir_fd = open(lists, O_RDONLY | O_DIRECTORY);
  int n = scandir(lists, &names, NULL, alphasort);
  for (int i = 0; i < n; i++) {
    char lasting[64];
    snprintf(lasting, sizeof lasting, "%.*s", (int)strcspn(names[i]->d_name, "~"),
             names[i]->d_name);
    if (strcmp(lasting, names[i]->d_name) == 0) continue;
    usleep(50);
    if (renameat(dir_fd, names[i]->d_name, dir_fd, lasting) < 0) _exit(1);
  }
  _exit(0);
}

/* The list of a layer goes on to its lasting name while others look for it: at no moment does
 * anyone find neither. (Who did took the layer for absent and unpacked it again, or said that it
 * had vanished.) */
static void a_layer_that_settles_is_there_all_the_time(void)
{
  enum { LAYERS = 400 };
  static char layers[LAYERS][IMAGE_DIGEST_SIZE];
  begin();
  for (int i = 0; i < LAYERS; i++) {
    struct image_stage stage;
    snprintf(layers[i], sizeof layers[i], "sha256:%028d%036d", i, 0);
    CHECK_INT(image_stage_new(store, &stage, &err), 0);
    CHECK_INT(image_stage_commit(store, &stage, layers[i], 0, 0, &err), 0);
  }
  pid_t pid = fork();
  if (pid == 0) settle_slowly();
  int missed = 0, status = -1;
  for (int i = 0; i < LAYERS; i++) {
    char path[64] = "lists/";
    image_layer_id(layers[i], path + strlen("lists/"));
    for (bool settled = false; !settled && waitpid(pid, &status, WNOHANG) == 0;) {
      settled = has(path);
      int fd = image_store_open_list(store, layers[i], NULL);
      missed += fd < 0;
      if (fd >= 0) close(fd);
    }
  }
  waitpid(pid, &status, 0);
  CHECK_INT(status, 0);
  CHECK_INT(missed, 0);
  end();
}

/* Processes that add, find, lease and collect at once: nothing that is leased ever goes. */
static void processes_share_a_store(void)
{
  begin();
  pid_t pids[6];
  for (int p = 0; p < 6; p++) {
    pids[p] = fork();
    if (pids[p] > 0) continue;
    test_failed_checks = 0;
    CHECK_INT(image_store_open(&store, top, &err), 0);
    for (int i = 0; i < 25; i++) {
      struct image_lease *lease;
      bool present;
      char layer = (char)('a' + (p + i) % 3);
      char layers[2] = {layer, '\0'}, name[8];
      snprintf(name, sizeof name, "x:%c", layer);
      CHECK_INT(image_lease_new(store, &lease, &err), 0);
      CHECK_INT(image_lease_layer(lease, digest(layer), &present, &err), 0);
      if (!present) add_layer(layer);
      CHECK(has_layer(layer));
      CHECK_INT(add_image((char)(layer - 'a' + '1'), layers, name), 0);
      if (i % 5 == p % 5) CHECK_INT(image_store_gc(store, 1, NULL, &err), 0);
      CHECK(has_layer(layer));
      image_lease_free(lease);
    }
    _exit(test_failed_checks ? 1 : 0);
  }
  for (int p = 0; p < 6; p++) {
    int status;
    waitpid(pids[p], &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  end();
}

static void another_version_is_refused(void)
{
  begin();
  char script[256];
  snprintf(script, sizeof script, "echo 'regolith image store 2' >%s/format", top);
  CHECK_INT(system(script), 0);
  struct image_store *other;
  CHECK(image_store_open(&other, top, &err) < 0);
  CHECK_INT(err.kind, ERR_CONFLICT);
  end();
}

const struct test_case test_cases[] = {
    {"names_and_digests_find_images", names_and_digests_find_images},
    {"an_image_needs_its_layers", an_image_needs_its_layers},
    {"collections_take_what_nobody_names", collections_take_what_nobody_names},
    {"two_names_are_two_reasons_to_stay", two_names_are_two_reasons_to_stay},
    {"leases_keep_layers", leases_keep_layers},
    {"the_dead_hold_nothing", the_dead_hold_nothing},
    {"limits_take_the_least_recently_used", limits_take_the_least_recently_used},
    {"layers_of_another_boot_do_not_count", layers_of_another_boot_do_not_count},
    {"the_first_of_two_stays", the_first_of_two_stays},
    {"folders_by_the_hundred_thousand_are_settled", folders_by_the_hundred_thousand_are_settled},
    {"an_opaque_root_hides_what_is_below", an_opaque_root_hides_what_is_below},
    {"a_prefix_is_not_a_layer", a_prefix_is_not_a_layer},
    {"a_layer_that_settles_is_there_all_the_time", a_layer_that_settles_is_there_all_the_time},
    {"processes_share_a_store", processes_share_a_store},
    {"another_version_is_refused", another_version_is_refused},
    {0}};

/* libFuzzer harness for unpacking: any bytes are a layer or are refused, and whichever it is, the
 * file beside the layer's folder stays as it was and nothing else appears there.
 *
 *   make fuzz FUZZ_SECONDS=60 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "image/store.h"
#include "image/unpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char top[64] = "/dev/shm/regolith-fuzz.XXXXXX";
static int top_fd = -1;

static void clean_up(void)
{
  image_tree_remove(AT_FDCWD, top, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
  (void)argc, (void)argv;
  if (!mkdtemp(top)) abort();
  top_fd = open(top, O_RDONLY | O_DIRECTORY);
  int fd = openat(top_fd, "victim", O_WRONLY | O_CREAT, 0600);
  if (fd < 0 || write(fd, "safe", 4) != 4) abort();
  close(fd);
  atexit(clean_up);
  return 0;
}

struct source {
  const uint8_t *data;
  size_t len, at;
};

static ssize_t read_some(void *data, const void **ret, struct err *err)
{
  (void)err;
  struct source *s = data;
  size_t n = s->len - s->at < 700 ? s->len - s->at : 700;
  *ret = s->data + s->at;
  s->at += n;
  return (ssize_t)n;
}

static void check_surroundings(void)
{
  struct stat st;
  char text[8] = "";
  int fd = openat(top_fd, "victim", O_RDONLY), names = 0;
  if (fd < 0 || read(fd, text, 7) != 4 || strcmp(text, "safe") != 0) abort();
  if (fstat(fd, &st) < 0 || st.st_nlink != 1 || (st.st_mode & 07777) != 0600) abort();
  close(fd);
  DIR *d = opendir(top);
  while (d && readdir(d)) names++;
  if (d) closedir(d);
  if (names != 4) abort(); /* . .. victim tree */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
  struct source s = {.data = data, .len = len};
  struct unpack_result result;
  struct err err = {0};
  if (mkdirat(top_fd, "tree", 0755) < 0) abort();
  int tree = openat(top_fd, "tree", O_RDONLY | O_DIRECTORY);
  struct unpack_conf conf = {.read = read_some,
                             .source = &s,
                             .tree_fd = tree,
                             .list_fd = -1,
                             .chown = geteuid() == 0,
                             .limits = {1 << 20, 1000}};
  image_unpack(&conf, &result, &err);
  close(tree);
  check_surroundings();
  if (image_tree_remove(top_fd, "tree", &err) < 0) abort();
  return 0;
}

/* Opening the parts of the program that are not always needed.
 *
 * A part is linked with its own copy of base and core: their objects are position independent and
 * hidden, so the copies never meet, and nothing has to be exported from the program. That is
 * correct because base and core keep their state in structs that callers pass (a struct loop made
 * here works with the part's copy of the same code); the one exception is the log, which
 * part_attach_log points back here. Parts are never closed: their libraries register handlers that
 * must not vanish. Version and table size are compared, so that a stale file is an error and not a
 * crash. */
#include "core/part.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct {
  char name[16];
  const struct part_head *head;
} opened[8];

static void host_log(enum log_level level, const char *text, void *data)
{
  (void)data;
  log_write(level, "%s", text);
}

void part_attach_log(const struct part_host *host)
{
  log_set_level(host->level);
  log_set_sink(host->log, NULL);
}

/* The folder of the program, without a final slash. */
static int program_folder(char out[PATH_MAX], struct err *err)
{
  ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
  if (n < 0) return err_set(err, ERR_INTERNAL, errno, "cannot find this program in /proc");
  out[n] = '\0';
  char *slash = strrchr(out, '/');
  if (slash) *slash = '\0';
  return 0;
}

static void *load(const char *name, struct err *err)
{
  static const char *const places[] = {"parts", "../lib/regolith", "../parts"};
  char folder[PATH_MAX], path[PATH_MAX + 64];
  if (program_folder(folder, err) < 0) return NULL;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    snprintf(path, sizeof path, "%s/%s/%s.so", folder, places[i], name);
    if (access(path, F_OK) < 0) continue;
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (so) return so;
    err_set(err, ERR_UNSUPPORTED, ENOENT, "cannot open %s: %s", path, dlerror());
    err_hint(err, "install the library it names");
    return NULL;
  }
  err_set(err, ERR_UNSUPPORTED, ENOENT, "this installation lacks its part \"%s\" (%s/%s/%s.so)",
          name, folder, places[0], name);
  err_hint(err, "`make` builds it beside the program, `make install` installs it");
  return NULL;
}

int part_open(const char *name, size_t size, const struct part_head **ret, struct err *err)
{
  size_t slot = 0;
  for (; slot < sizeof opened / sizeof *opened && opened[slot].head; slot++) {
    if (strcmp(opened[slot].name, name) != 0) continue;
    *ret = opened[slot].head;
    return 0;
  }
  if (slot == sizeof opened / sizeof *opened)
    return err_set(err, ERR_INTERNAL, ENFILE, "too many parts are open");
  void *so = load(name, err);
  if (!so) return err_errno(err);
  const struct part_head *head = dlsym(so, PART_SYMBOL);
  if (!head || strcmp(head->name, name) != 0 || strcmp(head->version, REGOLITH_VERSION) != 0 ||
      head->size != size) {
    dlclose(so);
    return err_set(err, ERR_UNSUPPORTED, EINVAL,
                   "the part \"%s\" beside this program is of another build: build again", name);
  }
  head->attach(&(struct part_host){.level = log_level(), .log = host_log});
  snprintf(opened[slot].name, sizeof opened[slot].name, "%s", name);
  opened[slot].head = head;
  *ret = head;
  return 0;
}

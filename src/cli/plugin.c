/* Finds what --plugin names: a file by its path, or a name, looked up in
 * $XDG_DATA_HOME/regolith/plugins (NAME.lua or NAME/init.lua) and then among those that the program
 * carries. What stands behind the first "=" is the plugin's own option. */
#include "cli/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/embedded.h"
#include "cli/cli.h"
#include "host/host.h"
#include "host/plugins.h"

enum { MAX_TEXT = 1 << 20 };

struct found {
  char *name, *path, *text; /* owned; path NULL where embedded */
  size_t len;
};

static void found_free(struct found *f)
{
  free(f->name);
  free(f->path);
  free(f->text);
}

static bool ends_in(const char *text, const char *end)
{
  size_t n = strlen(text), m = strlen(end);
  return n > m && strcmp(text + n - m, end) == 0;
}

/* 0, or -ENOENT where there is no such file: the only failure that is worth another try. */
static int read_file(const char *path, struct found *ret, struct err *err)
{
  cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0)
    return err_arg(err, "--plugin", "--plugin: cannot read %s: %s", path, strerror(errno)),
           errno == ENOENT ? -ENOENT : -EINVAL;
  if (!S_ISREG(st.st_mode) || st.st_size > MAX_TEXT)
    return err_arg(err, "--plugin", "--plugin: %s is not a file of at most 1 MiB", path);
  ret->text = xmalloc((size_t)st.st_size + 1);
  ssize_t n = read(fd, ret->text, (size_t)st.st_size);
  if (n < 0) return err_arg(err, "--plugin", "--plugin: cannot read %s: %s", path, strerror(errno));
  ret->text[n] = '\0';
  ret->len = (size_t)n;
  ret->path = xstrdup(path);
  return 0;
}

/* "x/audit.lua" and "x/audit/init.lua" are called audit. */
static char *name_of(const char *path)
{
  cleanup_free char *copy = xstrdup(path);
  size_t n = strlen(copy);
  if (ends_in(copy, "/init.lua"))
    copy[n - strlen("/init.lua")] = '\0';
  else if (ends_in(copy, ".lua"))
    copy[n - strlen(".lua")] = '\0';
  const char *slash = strrchr(copy, '/');
  return xstrdup(slash ? slash + 1 : copy);
}

static int find_in_folder(const char *name, struct found *ret, struct err *err)
{
  static const char *const ends[] = {".lua", "/init.lua"};
  const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
  int rc = -ENOENT;
  for (size_t i = 0; i < 2 && rc == -ENOENT; i++) {
    struct buf path = {0};
    if (data && *data == '/')
      buf_printf(&path, "%s/regolith/plugins/%s%s", data, name, ends[i]);
    else if (home && *home)
      buf_printf(&path, "%s/.local/share/regolith/plugins/%s%s", home, name, ends[i]);
    rc = path.len ? read_file(path.data, ret, err) : -ENOENT;
    buf_free(&path);
  }
  return rc;
}

static const struct embedded_file *next_embedded(const struct embedded_file *f)
{
  while (f->name && strncmp(f->name, "plugins/", 8) != 0) f++;
  return f;
}

static int find_embedded(const char *name, struct found *ret, struct err *err)
{
  const char *names[32];
  size_t n = 0;
  for (const struct embedded_file *f = next_embedded(embedded_files); f->name;
       f = next_embedded(f + 1)) {
    cleanup_free char *own = name_of(f->name);
    if (strcmp(own, name) == 0) {
      ret->text = xmemdup(f->data, f->len + 1);
      ret->len = f->len;
      return 0;
    }
    if (n < 32) names[n++] = f->name;
  }
  int rc = err_arg(err, "--plugin", "--plugin: there is no plugin \"%s\"", name);
  struct buf all = {0};
  for (size_t i = 0; i < n; i++) {
    cleanup_free char *own = name_of(names[i]);
    buf_printf(&all, "%s%s", i ? ", " : "", own);
  }
  err_hint(err,
           "built in are %s; others are files, or lie in ~/.local/share/regolith/plugins as %s.lua",
           all.data ? all.data : "none", name);
  buf_free(&all);
  return rc;
}

static int find(const char *what, struct found *ret, struct err *err)
{
  if (strchr(what, '/') || ends_in(what, ".lua")) {
    ret->name = name_of(what);
    return read_file(what, ret, err) < 0 ? -EINVAL : 0;
  }
  ret->name = xstrdup(what);
  int rc = *what ? find_in_folder(what, ret, err) : -ENOENT;
  return rc == -ENOENT ? find_embedded(what, ret, err) : rc;
}

static int add(struct host *host, const char *argument, struct err *err)
{
  cleanup_free char *what = xstrdup(argument);
  char *option = strchr(what, '=');
  if (option) *option++ = '\0';
  struct found f = {0};
  int rc = find(what, &f, err);
  if (rc == 0)
    rc = host_add_plugin(
        host,
        &(struct plugin_conf){
            .name = f.name, .path = f.path, .text = f.text, .len = f.len, .option = option},
        err);
  found_free(&f);
  return rc;
}

int plugin_add_all(struct host *host, const struct cli_list *list, struct err *err)
{
  int rc = 0;
  for (size_t i = 0; i < list->n && rc == 0; i++) rc = add(host, list->v[i], err);
  return rc < 0 ? rc : host_load_plugins(host, err);
}

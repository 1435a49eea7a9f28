#include "base/dirs.h"

#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"

void dirs_make_parents(const char *path, mode_t mode)
{
  cleanup_free char *part = xstrdup(path);
  for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    mkdir(part, mode);
    *slash = '/';
  }
}

#ifndef REGOLITH_BASE_MODE_H
#define REGOLITH_BASE_MODE_H

#include <stdint.h>
#include <sys/stat.h>

/* What a file is, by its mode, in the words of the API. */
static inline const char *mode_type_name(uint32_t mode)
{
  switch (mode & S_IFMT) {
  case S_IFREG: return "file";
  case S_IFDIR: return "directory";
  case S_IFLNK: return "link";
  case S_IFIFO: return "fifo";
  case S_IFSOCK: return "socket";
  default: return "device";
  }
}

#endif

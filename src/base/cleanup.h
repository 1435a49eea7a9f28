#ifndef REGOLITH_BASE_CLEANUP_H
#define REGOLITH_BASE_CLEANUP_H

/* Scope-bound release (gcc and clang's cleanup attribute; the idea is crun's).
 *   cleanup_free char *p = …;   cleanup_close int fd = -1;
 * take_fd(&fd) and take_ptr(&p) hand the value on and disarm the cleanup. */

#include <stdlib.h>
#include <unistd.h>
#include <errno.h>

static inline void cleanup_freep(void *p)
{
  free(*(void **)p);
}

static inline void cleanup_closep(const int *fd)
{
  if (*fd >= 0) {
    int saved = errno;
    close(*fd);
    errno = saved;
  }
}

static inline int take_fd(int *fd)
{
  int v = *fd;
  *fd = -1;
  return v;
}

#define take_ptr(pp)                                                                               \
  ({                                                                                               \
    __typeof__(*(pp)) v_ = *(pp);                                                                  \
    *(pp) = NULL;                                                                                  \
    v_;                                                                                            \
  })

#define cleanup_free  __attribute__((cleanup(cleanup_freep)))
#define cleanup_close __attribute__((cleanup(cleanup_closep)))

#endif

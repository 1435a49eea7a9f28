#ifndef REGOLITH_IMAGE_LIST_H
#define REGOLITH_IMAGE_LIST_H

#include <stdint.h>
#include <time.h>

#include "base/err.h"
#include "image/ref.h"

/* The list of a layer's entries (see unpack.c for the format). */
struct list_line {
  char type; /* f d i(mplied folder) l h(ard link) p(ipe) -(nothing) */
  unsigned mode, uid, gid;
  uint64_t size;
  struct timespec mtime;
  char digest[IMAGE_DIGEST_SIZE]; /* of a file's content, else "" */
  const char *path, *link;        /* link: of types l and h */
};

struct list_writer;
struct list_writer *list_writer_new(int fd); /* writes from IMAGE_LIST_HEAD on */
int list_write(struct list_writer *w, const struct list_line *line, struct err *err);
int list_flush(struct list_writer *w, struct err *err);
void list_writer_free(struct list_writer *w);

/* Calls fn for every line, in order. The line's strings are valid during the call. */
int list_read(int fd, int (*fn)(void *data, const struct list_line *line, struct err *err),
              void *data, struct err *err);

#endif

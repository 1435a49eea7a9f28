#ifndef REGOLITH_HOST_OUT_H
#define REGOLITH_HOST_OUT_H

#include <stdbool.h>
#include <stddef.h>

struct loop;
struct out;

/* Writes to a descriptor that may be slow, stalled or closed, without ever blocking the loop. */
struct out_conf {
  struct loop *loop;
  int fd; /* the caller's; not closed, its flags not changed */
  /* The queue has grown past its mark (true) or shrunk again (false). May be NULL. */
  void (*on_full)(void *data, bool full);
  /* Once, from the loop: nobody reads any more. What is queued and what follows is dropped. */
  void (*on_broken)(void *data, int sys_errno);
  void *data;
};

struct out *out_new(const struct out_conf *conf);

/* Queues bytes; they are written together at the next turn of the loop. */
void out_append(struct out *out, const void *data, size_t len);

/* Writes now what goes without blocking. */
void out_flush(struct out *out);
size_t out_queued(const struct out *out);
bool out_is_full(const struct out *out); /* between on_full(true) and on_full(false) */

/* Forgets what is queued, and what follows. */
void out_abandon(struct out *out);

/* Writes what is queued, however long the reader takes, then calls done once, from the loop;
 * out_abandon, also afterwards, makes it soon. */
void out_close(struct out *out, void (*done)(void *data), void *data);
void out_free(struct out *out); /* from done on */

#endif

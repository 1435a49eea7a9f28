#ifndef REGOLITH_IMAGE_LAYER_INTERNAL_H
#define REGOLITH_IMAGE_LAYER_INTERNAL_H

#include <stdint.h>

#include "base/err.h"
#include "core/loop.h"
#include "core/work.h"
#include "image/fetch.h"
#include "image/store.h"
#include "image/unpack.h"

struct image_desc;

/* One layer on its way: fetched on the loop, unpacked on a thread, a pipe between. */
struct layer_job {
  /* the caller's, set before layer_start */
  struct loop *loop;
  struct registry *registry;
  struct image_store *store;
  const struct image_desc *desc;
  const char *diff_id;
  uint64_t max_bytes;                                            /* of its files */
  void (*on_bytes)(struct layer_job *job);                       /* fetched grew */
  void (*on_done)(struct layer_job *job, const struct err *err); /* once; on success it is stored */
  void *data;

  uint64_t fetched; /* bytes of the blob so far */

  /* private */
  struct fetch fetch;
  struct work work;
  struct image_stage stage;
  struct unpack_result result;
  struct err fetch_err, work_err;
  int pipe_in, pipe_out;   /* ends of the pipe: ours, the thread's */
  struct layer_poll *poll; /* waits for room in the pipe */
  struct buf rest;         /* taken, and not yet in the pipe */
  bool fetching, working;
  char *read_buf; /* the thread's */
};

int layer_start(struct layer_job *job, struct err *err);
void layer_cancel(struct layer_job *job, const struct err *err); /* on_done follows */

#endif

#ifndef REGOLITH_WIRE_FRAME_H
#define REGOLITH_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/val.h"

struct buf;

/* clang-format off */
/* What a worker process and its host say to each other. A frame is one MessagePack array
 *   [kind, id, num, name, body]
 * of an integer, a 64-bit integer, a 64-bit integer, a string and any plain data; the table says what
 * they mean per kind. The length in front of it is core/channel's.
 *
 *   kind      from    id    num              name       body
 *   OP        worker  op    time-out, ms     op name    arguments
 *   CANCEL    worker  op    error kind
 *   INPUT     worker  op                                bytes; none = the end
 *   FLOW      worker  op    1 paused, 0 not
 *   OUTPUT    worker                                    bytes of print and io.write
 *   LOG       worker        level                       text
 *   PROGRESS  worker                                    { done, total, text }
 *   TASK      worker  task  parent task      task name  outcome, or nil at its start
 *   WHERE     worker                                    "file:line", now and then while it computes
 *   PONG      worker                                    { mem_bytes =, tasks =, … }: it is well
 *   END       worker        enum script_end             { error =, traceback =, stats = }
 *   START     host                           name       the script and its limits
 *   CHUNK     host    op    stream                      bytes
 *   FULL      host    op    1 full, 0 not               its input piles up: send no more until 0
 *   DONE      host    op    1 failed, 0 not             result or error
 *   PING      host                                      asks for a PONG
 *   STOP      host    1 =   enum script_end             error, or nil
 *                     forced */
/* clang-format on */
enum frame_kind {
  FRAME_OP = 1,
  FRAME_CANCEL,
  FRAME_INPUT,
  FRAME_FLOW,
  FRAME_OUTPUT,
  FRAME_LOG,
  FRAME_PROGRESS,
  FRAME_TASK,
  FRAME_WHERE,
  FRAME_PONG,
  FRAME_END,
  FRAME_START,
  FRAME_CHUNK,
  FRAME_FULL,
  FRAME_PING,
  FRAME_DONE,
  FRAME_STOP,
  FRAME_KIND_END
};

struct frame {
  enum frame_kind kind;
  uint64_t id;
  int64_t num;
  const char *name; /* "" when unused; a decoded one lives in `whole`; at most 255 bytes */
  struct val body;  /* encoding only reads it */
  struct val whole; /* private: what decode keeps alive */
};

/* Appends the frame's bytes; refuses a body that the other side would refuse (see codec_encode),
 * and leaves out as it was then. */
int frame_encode(struct buf *out, const struct frame *frame, struct err *err);

/* A frame whose body is a byte string, without copying it into a val first. */
void frame_encode_bytes(struct buf *out, enum frame_kind kind, uint64_t id, int64_t num,
                        const void *data, size_t len);

/* The bytes may come from an enemy: fails with INVALID_ARGUMENT where they are no frame. */
int frame_decode(struct frame *ret, const char *bytes, size_t len, struct err *err);
void frame_done(struct frame *frame); /* frees what decode took */

/* An error as plain data, and back. What is not understood reads as INTERNAL. */
struct val frame_err_val(const struct err *err); /* nil where err is NULL or none */
void frame_err_read(const struct val *v, struct err *ret_err);

#endif

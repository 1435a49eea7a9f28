#ifndef REGOLITH_CORE_TREE_H
#define REGOLITH_CORE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

/* A file, or a directory with all below it, as one stream of bytes: how files travel into and out
 * of sandboxes. One side reads a tree (the source), the other writes one (the sink), piece by piece
 * and in bounded memory. Each side believes nothing of the other: a name is one component of a
 * path, nothing is ever opened through a link, and a file that is replaced is replaced as a whole.
 *
 * A stream is a row of records, each a tree_head, name_len bytes of name, and len bytes more for
 * LINK (its target) and DATA. The first is the FILE or DIR that the tree is, without a name.
 *
 *   tree = FILE DATA* CLOSE END | DIR entry* UP END
 *   entry = FILE DATA* CLOSE | DIR entry* UP | LINK | SKIP
 *
 * Both ends run on one machine and are one build: heads are plain memory. */
enum tree_record {
  TREE_FILE = 1,
  TREE_DATA,
  TREE_CLOSE,
  TREE_DIR,
  TREE_UP,
  TREE_LINK,
  TREE_SKIP, /* something that does not travel; mode says what it is */
  TREE_END
};

#define TREE_MODE_KEEP UINT32_MAX /* FILE: as the file that is replaced, or 0644 */
#define TREE_TIME_NOW  INT64_MIN
#define TREE_DEPTH_MAX 200 /* directories in directories */
#define TREE_PIECE     (64 * 1024)

struct tree_head {
  uint32_t type;     /* enum tree_record */
  uint32_t mode;     /* permission bits; SKIP: of stat */
  uint64_t len;      /* bytes behind the name */
  int64_t mtime;     /* FILE: seconds */
  uint32_t name_len; /* at most 255 */
  uint32_t reserved;
};

/* Appends one record; data has head->len bytes. */
void tree_put(struct buf *out, struct tree_head head, const char *name, const void *data);

/* What was read or written. */
struct tree_report {
  uint64_t files, dirs, links, bytes;
  uint64_t skipped_n;
  struct buf skipped; /* of the first TREE_SKIPPED_MAX: "WHAT PATH", each with its NUL; owned */
};
#define TREE_SKIPPED_MAX 100

/* The reading side. Other file systems below the root are skipped, not entered. */
struct tree_source;

/* root: an open file or directory; taken over. NULL: neither of them (errno is ENXIO), or not
 * readable. */
struct tree_source *tree_source_new(int root);
/* Appends up to TREE_PIECE bytes and a little more. 1: there is more, 0: that was the end, negative
 * errno: of the file that tree_source_path names. */
int tree_source_read(struct tree_source *s, struct buf *out);
const char *tree_source_path(const struct tree_source *s); /* relative to the root; "" = the root */
const struct tree_report *tree_source_report(const struct tree_source *s);
void tree_source_free(struct tree_source *s);

/* The writing side. */
struct tree_sink;
struct tree_sink_conf {
  int dir;          /* where; taken over */
  const char *name; /* in dir; NULL: the directory itself becomes the tree's root */
  /* Links that lead out of the tree are skipped, and nobody but the owner may write. */
  bool tame;
  uint64_t max_bytes;  /* of data; 0 = no limit */
  uint64_t max_things; /* files, directories and links; 0 = no limit */
};
struct tree_sink *tree_sink_new(const struct tree_sink_conf *conf);
/* 0, or a negative errno: EBADMSG for what is no tree, EFBIG beyond a limit, EOVERFLOW beyond
 * TREE_DEPTH_MAX (the source's too), or of the file that tree_sink_path names. */
int tree_sink_write(struct tree_sink *s, const void *data, size_t len);
bool tree_sink_ended(const struct tree_sink *s); /* END has come: all is in place */
const char *tree_sink_path(const struct tree_sink *s);
const struct tree_report *tree_sink_report(const struct tree_sink *s);
void tree_sink_free(struct tree_sink *s); /* a file that is not complete leaves no trace */

/* Opens a directory below dir, not through a link and not on another file system (EXDEV). */
int tree_open_dir(int dir, const char *name);

#endif

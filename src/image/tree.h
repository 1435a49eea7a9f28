#ifndef REGOLITH_IMAGE_TREE_H
#define REGOLITH_IMAGE_TREE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"

struct tree; /* one layer being written, file by file, from untrusted descriptions */

/* What an archive says about one entry; strings are borrowed. */
struct tree_entry {
  const char *path; /* of tree_resolve */
  const char *link; /* target of a symbolic or hard link */
  mode_t mode;      /* type and permissions */
  uid_t uid;
  gid_t gid;
  struct timespec mtime;
};

struct tree_conf {
  int root_fd;      /* the caller's */
  bool user_xattrs; /* see unpack_conf */
  bool chown;
  /* A folder that no entry mentioned was made. May be NULL. */
  int (*on_implied)(void *data, const char *path, struct err *err);
  void *data;
};

struct tree *tree_new(const struct tree_conf *conf);
void tree_free(struct tree *t);

/* The path as entries of a layer are named: no leading "/" or "./", no empty parts. "" is the root.
 * Refuses "..", too deep or too long ones. out has PATH_MAX bytes. */
int tree_path(const char *path, char *out, struct err *err);

/* The same entry by a path without links, whose folders exist now. Everything below takes such. */
int tree_resolve(struct tree *t, const char *path, char out[PATH_MAX], struct err *err);

/* Each replaces what the layer already has at the path. */
int tree_folder(struct tree *t, const struct tree_entry *e, struct err *err);
int tree_symlink(struct tree *t, const struct tree_entry *e, struct err *err);
/* e->link is as in the archive; ret_target: what it means. To itself: nothing is done. */
int tree_hardlink(struct tree *t, const struct tree_entry *e, char ret_target[PATH_MAX],
                  struct err *err);
int tree_fifo(struct tree *t, const struct tree_entry *e, struct err *err);
/* A regular file, open for writing; tree_file_end sets what the entry says, last. */
int tree_file(struct tree *t, const struct tree_entry *e, int *ret_fd, struct err *err);
int tree_file_end(struct tree *t, const struct tree_entry *e, int fd, struct err *err);

/* Hides what lower layers have at the path, or all they have in the folder. */
int tree_whiteout(struct tree *t, const char *path, struct err *err);
int tree_opaque(struct tree *t, const char *path, struct err *err);

/* An extended attribute of the entry written last; those that could reach beyond it are dropped. */
int tree_xattr(struct tree *t, const char *path, const char *name, const void *value, size_t len,
               struct err *err);

/* Times of folders, once their content is complete. */
int tree_folder_time(struct tree *t, const char *path, const struct timespec *mtime,
                     struct err *err);

#endif

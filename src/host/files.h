#ifndef REGOLITH_HOST_FILES_H
#define REGOLITH_HOST_FILES_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct files;
struct ops;
struct strv;
struct val;

/* What scripts see of this machine's files: the ops
 *   file.open { path, mode } → { file }          file.read { file, max } → { data } (none: the end)
 *   file.write { file, data } → { }              file.seek { file, whence, offset } → { position }
 *   file.close { file } → { }                    script.module { name } → { text, path }
 *                                                (of a plugin's function: { plugin, tool })
 * and nothing that was not granted. */
struct files_grants {
  const char *dir; /* where modules lie, NULL = nowhere */
  /* Folders, with all below them, and single files; NULL = none. */
  const struct strv *read_dirs, *write_dirs;
};

/* grants: what the owner of an op may do; false: nothing. */
struct files *files_new(struct ops *ops,
                        bool (*grants)(void *data, uint64_t owner, struct files_grants *ret),
                        void *data);
/* Who is asked for a module that is not beside the script: 0 and the answer of script.module, or
 * NOT_FOUND. */
void files_set_modules(struct files *files,
                       int (*module)(void *data, const char *name, struct val *ret,
                                     struct err *err),
                       void *data);
void files_end_owner(struct files *files, uint64_t owner); /* closes what it left open */
void files_free(struct files *files);

/* For sandbox.upload and sandbox.download, within what owner may: a descriptor, or a negative errno
 * with DENIED or what the kernel says. The source is a file or a directory, open for reading; of
 * the target it is the directory in which it has ret_name (the caller frees), or which it is
 * itself: then ret_name is NULL. */
int files_open_source(const struct files *files, uint64_t owner, const char *path, struct err *err);
int files_open_target(const struct files *files, uint64_t owner, const char *path, char **ret_name,
                      struct err *err);

/* The text of a file below dir; path must not lead out of it. */
int files_read_text(const char *dir, const char *path, struct val *ret, struct err *err);

/* Opens path, relative to dir, so that neither ".." nor a link leads out of dir. flags as for
 * open(2). A descriptor, or -1 with errno. */
int files_open_beneath(int dir, const char *path, int flags, unsigned mode);

#endif

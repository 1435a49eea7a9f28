#ifndef REGOLITH_HOST_FILES_H
#define REGOLITH_HOST_FILES_H

#include <stdbool.h>
#include <stdint.h>

struct files;
struct ops;
struct strv;

/* What scripts see of this machine's files: the ops
 *   file.open { path, mode } → { file }          file.read { file, max } → { data } (none: the end)
 *   file.write { file, data } → { }              file.seek { file, whence, offset } → { position }
 *   file.close { file } → { }                    script.module { name } → { text, path }
 * and nothing that was not granted. */
struct files_grants {
  const char *dir;                           /* where modules lie, NULL = nowhere */
  const struct strv *read_dirs, *write_dirs; /* absolute, NULL = none */
};

/* grants: what the owner of an op may do; false: nothing. */
struct files *files_new(struct ops *ops,
                        bool (*grants)(void *data, uint64_t owner, struct files_grants *ret),
                        void *data);
void files_end_owner(struct files *files, uint64_t owner); /* closes what it left open */
void files_free(struct files *files);

/* Opens path, relative to dir, so that neither ".." nor a link leads out of dir. flags as for
 * open(2). A descriptor, or -1 with errno. */
int files_open_beneath(int dir, const char *path, int flags, unsigned mode);

#endif

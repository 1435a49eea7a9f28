#ifndef REGOLITH_WIRE_FILE_H
#define REGOLITH_WIRE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/val.h"

/* The ops on files of a sandbox, and what an engine and the supervisor say to each other about
 * them.
 *
 *   sandbox.read        { path, max } → { bytes }, the data as chunks
 *   sandbox.write       { path, mode } → { bytes }, the data as input
 *   sandbox.list_files  { path } → { { name, type, size, mode, mtime, uid, gid, target } … }
 *   sandbox.stat        { path, follow } → one such
 *   sandbox.mkdir       { path, mode } → { }         sandbox.remove { path } → { }
 *   sandbox.pack        { path } → { }, a tree (core/tree.h) as chunks
 *   sandbox.unpack      { path } → { }, a tree as input
 * each with sandbox_id, user and timeout as sandbox.exec has them. A relative path begins in the
 * sandbox's working directory. */
enum file_kind {
  FILE_READ,
  FILE_WRITE, /* engines see an unpack */
  FILE_LIST,
  FILE_STAT,
  FILE_MKDIR,
  FILE_REMOVE,
  FILE_PACK,
  FILE_UNPACK,
  FILE_KINDS
};

#define FILE_PATH_MAX  4095
#define FILE_LIST_MAX  100000 /* entries of one directory */
#define FILE_MODE_KEEP UINT32_MAX

struct file_args {
  enum file_kind kind;
  char *sandbox_id, *path; /* owned */
  char *user;              /* owned; NULL = the sandbox's */
  uint64_t timeout_ms;     /* 0 = none */
  uint64_t max;            /* READ: bytes */
  uint32_t mode;           /* WRITE, MKDIR: permission bits; FILE_MODE_KEEP = not said */
  bool follow;             /* STAT: of what a link leads to */
};

const char *file_op_name(enum file_kind kind); /* "sandbox.read" */
int file_args_parse(enum file_kind kind, const struct val *args, struct file_args *ret,
                    struct err *err);
void file_args_free(struct file_args *a);

/* sandbox.upload and sandbox.download: { sandbox_id, source, target, user, timeout, max } */
struct transfer_args {
  char *sandbox_id, *source, *target, *user;
  uint64_t timeout_ms;
  uint64_t max; /* download: bytes */
};

int transfer_args_parse(bool download, const struct val *args, struct transfer_args *ret,
                        struct err *err);
void transfer_args_free(struct transfer_args *a);

/* LIST and STAT come from the engine as rows of this head, a name and the target of a link. */
struct file_row {
  uint32_t mode, uid, gid;
  uint32_t name_len, target_len;
  uint32_t reserved;
  uint64_t size;
  int64_t mtime; /* seconds */
};

/* Adds a map for each row; false: these are no rows. */
bool file_rows_read(const char *data, size_t len, struct val *list);

/* "cannot DOING PATH: …", with the kind that this errno is for files. */
int file_error(struct err *err, const char *field, const char *doing, const char *path, int error);

#endif

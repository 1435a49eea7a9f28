/* The arguments, rows and errors of the ops on files. Paths are bytes: the kernel inside the
 * sandbox says what they mean, and only what no path can be is refused here. */
#include "wire/file.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/mode.h"
#include "wire/schema.h"

#define DAY_MS (INT64_C(86400) * 1000)

/* ---- fields ---- */

/* "0644", or the number itself (420). */
static int mode_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                      struct err *err)
{
  (void)f;
  int64_t mode = -1;
  if (v->type == VAL_STR && v->s.len > 0 && v->s.len <= 5 && strspn(v->s.p, "01234567") == v->s.len)
    mode = strtol(v->s.p, NULL, 8);
  else if (v->type == VAL_INT || v->type == VAL_NUM)
    field_integer(v, &mode);
  if (mode < 0 || mode > 0777)
    return field_wrong(err, path, v, "permission bits, as octal text (\"0644\", \"0755\")");
  *(uint32_t *)dst = (uint32_t)mode;
  return 0;
}

static const struct field_type type_mode = {.parse = mode_parse};

static bool is_user(const char *s, size_t len)
{
  for (size_t i = 0; i < len; i++)
    if ((unsigned char)s[i] <= 0x20 || s[i] == 0x7f) return false;
  return true;
}

#define AT(type, member) .offset = offsetof(struct type, member)
#define F_ID(s)                                                                                    \
  {                                                                                                \
    .name = "sandbox_id", .type = &field_text, AT(s, sandbox_id), .flags = FIELD_REQUIRED,         \
    .max = 4096, .must = "a sandbox id (\"sb_…\")"                                               \
  }
#define F_PATH_AS(s, field_name, member)                                                           \
  {                                                                                                \
    .name = field_name, .type = &field_text, AT(s, member), .flags = FIELD_REQUIRED,               \
    .max = FILE_PATH_MAX, .must = "a path"                                                         \
  }
#define F_USER(s)                                                                                  \
  {                                                                                                \
    .name = "user", .type = &field_text, AT(s, user), .flags = FIELD_FROM_INT, .max = 255,         \
    .ok = is_user, .must = "a user name or number (\"nobody\", \"1000:1000\")"                     \
  }
#define F_TIMEOUT(s)                                                                               \
  {                                                                                                \
    .name = "timeout", .type = &field_millis, AT(s, timeout_ms), .min = 1, .max = DAY_MS           \
  }
#define F_MODE                                                                                     \
  {                                                                                                \
    .name = "mode", .type = &type_mode, AT(file_args, mode)                                        \
  }
#define F_COMMON                                                                                   \
  F_ID(file_args), F_PATH_AS(file_args, "path", path), F_USER(file_args), F_TIMEOUT(file_args)

static const struct field read_fields[] = {F_COMMON,
                                           {.name = "max",
                                            .type = &field_size_bytes,
                                            AT(file_args, max),
                                            .min = 0,
                                            .max = INT64_C(1) << 40,
                                            .fallback = "16MiB"}};
static const struct field mode_fields[] = {F_COMMON, F_MODE};
static const struct field plain_fields[] = {F_COMMON};
static const struct field stat_fields[] = {
    F_COMMON, {.name = "follow", .type = &field_bool, AT(file_args, follow)}};

/* What the script library takes for itself and never sends. */
static const char *const read_also[] = {"on_data", NULL};

static const struct schema schemas[FILE_KINDS] = {
    [FILE_READ] = {.name = "sandbox.read", SCHEMA_FIELDS(read_fields), .also = read_also},
    [FILE_WRITE] = {.name = "sandbox.write", SCHEMA_FIELDS(mode_fields)},
    [FILE_LIST] = {.name = "sandbox.list_files", SCHEMA_FIELDS(plain_fields)},
    [FILE_STAT] = {.name = "sandbox.stat", SCHEMA_FIELDS(stat_fields)},
    [FILE_MKDIR] = {.name = "sandbox.mkdir", SCHEMA_FIELDS(mode_fields)},
    [FILE_REMOVE] = {.name = "sandbox.remove", SCHEMA_FIELDS(plain_fields)},
    [FILE_PACK] = {.name = "sandbox.pack", SCHEMA_FIELDS(plain_fields)},
    [FILE_UNPACK] = {.name = "sandbox.unpack", SCHEMA_FIELDS(plain_fields)},
};

const char *file_op_name(enum file_kind kind)
{
  return schemas[kind].name;
}

int file_args_parse(enum file_kind kind, const struct val *args, struct file_args *ret,
                    struct err *err)
{
  *ret = (struct file_args){.kind = kind, .mode = FILE_MODE_KEEP, .follow = true};
  return schema_parse(&schemas[kind], "", args, ret, err);
}

void file_args_free(struct file_args *a)
{
  schema_free(&schemas[a->kind], a);
}

#define F_TRANSFER                                                                                 \
  F_ID(transfer_args), F_PATH_AS(transfer_args, "source", source),                                 \
      F_PATH_AS(transfer_args, "target", target), F_USER(transfer_args), F_TIMEOUT(transfer_args)

static const struct field upload_fields[] = {F_TRANSFER};
static const struct field download_fields[] = {F_TRANSFER,
                                               {.name = "max",
                                                .type = &field_size_bytes,
                                                AT(transfer_args, max),
                                                .min = 1,
                                                .max = INT64_C(1) << 50,
                                                .fallback = "1GiB"}};
static const struct schema upload_schema = {.name = "sandbox.upload", SCHEMA_FIELDS(upload_fields)};
static const struct schema download_schema = {.name = "sandbox.download",
                                              SCHEMA_FIELDS(download_fields)};

int transfer_args_parse(bool download, const struct val *args, struct transfer_args *ret,
                        struct err *err)
{
  *ret = (struct transfer_args){0};
  return schema_parse(download ? &download_schema : &upload_schema, "", args, ret, err);
}

void transfer_args_free(struct transfer_args *a)
{
  schema_free(&upload_schema, a);
}

/* ---- rows ---- */

static struct val row_val(const struct file_row *row, const char *name, const char *target)
{
  char mode[8];
  struct val v = val_map();
  snprintf(mode, sizeof mode, "%04o", row->mode & 07777);
  val_add(&v, "name", val_bytes(name, row->name_len));
  val_add(&v, "type", val_str(mode_type_name(row->mode)));
  val_add(&v, "size", val_int((int64_t)(row->size & INT64_MAX)));
  val_add(&v, "mode", val_str(mode));
  val_add(&v, "mtime", val_int(row->mtime));
  val_add(&v, "uid", val_int(row->uid));
  val_add(&v, "gid", val_int(row->gid));
  if (S_ISLNK(row->mode)) val_add(&v, "target", val_bytes(target, row->target_len));
  return v;
}

bool file_rows_read(const char *data, size_t len, struct val *list)
{
  struct file_row row;
  while (len > 0) {
    if (len < sizeof row || list->list.n >= FILE_LIST_MAX) return false;
    memcpy(&row, data, sizeof row);
    data += sizeof row;
    len -= sizeof row;
    if (row.name_len > FILE_PATH_MAX || row.target_len > FILE_PATH_MAX) return false;
    size_t tail = (size_t)row.name_len + row.target_len;
    if (len < tail) return false;
    val_push(list, row_val(&row, data, data + row.name_len));
    data += tail;
    len -= tail;
  }
  return true;
}

/* ---- errors ---- */

static enum err_kind kind_of(int error)
{
  switch (error) {
  case ENOENT: return ERR_NOT_FOUND;
  case EACCES:
  case EPERM:
  case EROFS: return ERR_DENIED;
  case EEXIST:
  case EISDIR:
  case ENOTDIR:
  case ENOTEMPTY:
  case EBUSY:
  case ELOOP:
  case EXDEV:
  case ETXTBSY: return ERR_CONFLICT;
  case EFBIG:
  case EOVERFLOW:
  case ENOSPC:
  case EDQUOT: return ERR_PAYLOAD_TOO_LARGE;
  case EINVAL:
  case ENXIO:
  case ENAMETOOLONG:
  case EILSEQ: return ERR_INVALID_ARGUMENT;
  case ENOMEM:
  case EMFILE:
  case ENFILE: return ERR_CAPACITY;
  default: return ERR_INTERNAL;
  }
}

static const char *reason_of(int error)
{
  switch (error) {
  case ENXIO: return "it is neither a file nor a directory";
  case EFBIG: return "it is larger than was allowed";
  case EOVERFLOW: return "it is nested too deep";
  case ELOOP: return "it leads through too many links, or through one of /proc";
  case EBADMSG: return "what came is no tree of files";
  case EXDEV: return "another file system is mounted there";
  default: return strerror(error);
  }
}

int file_error(struct err *err, const char *field, const char *doing, const char *path, int error)
{
  char shown[300];
  size_t n = 0;
  for (; path[n] && n + 1 < sizeof shown; n++)
    shown[n] = (unsigned char)path[n] < 0x20 || path[n] == 0x7f ? '?' : path[n];
  shown[n] = '\0';
  int rc = err_set(err, kind_of(error), error, "cannot %s %s: %s", doing, shown, reason_of(error));
  if (err) snprintf(err->field, sizeof err->field, "%s", field);
  return rc;
}

#ifndef REGOLITH_WIRE_SCHEMA_H
#define REGOLITH_WIRE_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/val.h"

/* Tables of fields: how one struct of typed arguments is read from plain data, filled with
 * defaults, shown, and released. The same table words every message about a field. */

struct field;

/* What a field may hold. path names the value in messages: "timeout", "volumes[2].target". */
struct field_type {
  int (*parse)(const struct field *f, const char *path, const struct val *v, void *dst,
               struct err *err);
  struct val (*print)(const struct field *f, const void *src); /* nil: unset. NULL: never shown */
  void (*release)(void *dst);                                  /* NULL: nothing owned */
};

enum field_flags {
  FIELD_REQUIRED = 1 << 0,
  FIELD_SHOWN = 1 << 1,    /* part of what schema_print shows */
  FIELD_FROM_INT = 1 << 2, /* a text that may also be written as an integer: user = 1000 */
};

struct field {
  const char *name;
  const struct field_type *type;
  size_t offset;        /* of the destination in the struct */
  unsigned flags;       /* enum field_flags */
  int64_t min, max;     /* value, length or count, in the unit of the type */
  const char *fallback; /* default, as a user would write it; NULL: stays zero */
  const char *must;     /* "an absolute path": ends the sentence "NAME must be …" */
  bool (*ok)(const char *s, size_t len); /* further test of a text, NULL = none */
  const char *const *choices;            /* of field_choice: NULL-terminated, index = value */
  const struct schema *sub;              /* of nested tables */
};

struct schema {
  const char *name; /* of the op, for messages: "sandbox.create" */
  const struct field *fields;
  size_t n;
  const char *const *also; /* names that others of us handle, for "did you mean"; NULL = none */
};

#define SCHEMA_FIELDS(array) (array), sizeof(array) / sizeof *(array)

/* Fills dst (zeroed by the caller) from a map, nil, or an empty list; nil values count as absent.
 * On failure dst is released. prefix leads the paths in messages ("" at the top). */
int schema_parse(const struct schema *s, const char *prefix, const struct val *args, void *dst,
                 struct err *err);
struct val schema_print(const struct schema *s, const void *src); /* a map of the shown fields */
void schema_free(const struct schema *s, void *dst);

/* "PATH must be WHAT, not VALUE" as INVALID_ARGUMENT. */
int field_wrong(struct err *err, const char *path, const struct val *v, const char *what, ...)
    __attribute__((format(printf, 4, 5)));

#define FIELD_SHOW_SIZE 96
/* A value as a message shows it: quoted, cut, without control bytes. */
void field_show(const struct val *v, char out[FIELD_SHOW_SIZE]);

#define FIELD_PATH_SIZE 160
/* "PREFIX.NAME" or "PREFIX[AT]". */
void field_path(char out[FIELD_PATH_SIZE], const char *prefix, const char *name);
void field_path_at(char out[FIELD_PATH_SIZE], const char *prefix, size_t at);

/* Reads an integer (also "42" and 42.0); false: something else, or beyond 2^53. */
bool field_integer(const struct val *v, int64_t *ret);

extern const struct field_type field_text;       /* char *: a text of min..max bytes, no NUL */
extern const struct field_type field_bool;       /* bool */
extern const struct field_type field_u32;        /* uint32_t: an integer */
extern const struct field_type field_port;       /* uint16_t */
extern const struct field_type field_seconds;    /* uint32_t: a duration in whole seconds */
extern const struct field_type field_millis;     /* uint64_t: a duration, min and max in ms */
extern const struct field_type field_mib;        /* uint32_t: a size in whole MiB */
extern const struct field_type field_size_bytes; /* uint64_t: a size, plain numbers are MiB */
extern const struct field_type field_milli;      /* uint32_t: a number in thousandths */
extern const struct field_type field_microusd;   /* int64_t: US dollars in millionths */
extern const struct field_type field_choice;     /* int: index into choices */
extern const struct field_type field_table;      /* a struct in place, by sub, which owns nothing */

#endif

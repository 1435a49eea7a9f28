#ifndef REGOLITH_BASE_ERR_H
#define REGOLITH_BASE_ERR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

enum err_kind {
  ERR_NONE = 0,
#define X(kind, code, http, exit, retryable) ERR_##kind,
#include "base/err.def"
#undef X
  ERR_KIND_COUNT
};

/* What a kind means on each surface. */
struct err_info {
  const char *code; /* err.code in Lua, error.code in JSON */
  int http_status;  /* 0: scripts only */
  int cli_exit;     /* exit status of the command line */
  bool retryable;   /* the same request may succeed later */
};

/* One failure, by value and without heap, so that reporting one cannot fail.
 * Zero-initialised means "no error". */
struct err {
  enum err_kind kind;
  int sys_errno;       /* positive errno behind it, 0 if none */
  char field[64];      /* the argument at fault, "" if none */
  char sandbox_id[64]; /* the sandbox concerned, "" if none */
  char engine[32];     /* the engine concerned, "" if none */
  char msg[512];       /* one sentence a user can act on, no final newline */
  char hint[256];      /* a way out, "" if none */
};

const struct err_info *err_info(enum err_kind kind);

/* The kind with this code; ERR_INTERNAL for one we do not know. */
enum err_kind err_kind_from_code(const char *code);

/* Fills err (NULL allowed) and returns a negative errno: -sys_errno, or -EINVAL where that is 0. */
int err_set(struct err *err, enum err_kind kind, int sys_errno, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
int err_vset(struct err *err, enum err_kind kind, int sys_errno, const char *fmt, va_list ap)
    __attribute__((format(printf, 4, 0)));

/* As err_set with INVALID_ARGUMENT, naming the field. */
int err_arg(struct err *err, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Prepends "context: " to the message of an error that is set. */
void err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void err_hint(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The value a function that failed with err returns. */
int err_errno(const struct err *err);

#endif

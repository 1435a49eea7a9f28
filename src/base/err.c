/* Errors: one closed list of kinds (err.def) and one value that carries a failure.
 *
 * Owns nothing. A struct err is plain memory of fixed size: it can be copied, sent, and filled when
 * the heap is exhausted. Text that does not fit is cut, never split inside a UTF-8 sequence.
 * Functions that fail return a negative errno and fill the err; the errno is for C callers that
 * branch, the kind is what users see. */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct err_info infos[ERR_KIND_COUNT] = {
    [ERR_NONE] = {"ok", 200, 0, false},
#define X(kind, code, http, exit, retryable) [ERR_##kind] = {code, http, exit, retryable},
#include "base/err.def"
#undef X
};

const struct err_info *err_info(enum err_kind kind)
{
  return &infos[kind < ERR_KIND_COUNT ? kind : ERR_INTERNAL];
}

enum err_kind err_kind_from_code(const char *code)
{
  for (int k = ERR_NONE + 1; k < ERR_KIND_COUNT; k++)
    if (strcmp(infos[k].code, code) == 0) return (enum err_kind)k;
  return ERR_INTERNAL;
}

/* Drops a UTF-8 sequence that was cut at the end of a full buffer. */
static void trim_utf8(char *s, size_t size, int wanted)
{
  if (wanted < 0 || (size_t)wanted < size) return;
  size_t n = strlen(s);
  size_t i = n;
  while (i > 0 && n - i < 4 && ((unsigned char)s[i - 1] & 0xC0) == 0x80) i--;
  if (i > 0 && (unsigned char)s[i - 1] >= 0xC0) s[i - 1] = '\0';
}

int err_vset(struct err *err, enum err_kind kind, int sys_errno, const char *fmt, va_list ap)
{
  if (err) {
    *err = (struct err){.kind = kind, .sys_errno = sys_errno};
    trim_utf8(err->msg, sizeof err->msg, vsnprintf(err->msg, sizeof err->msg, fmt, ap));
  }
  return sys_errno ? -sys_errno : -EINVAL;
}

int err_set(struct err *err, enum err_kind kind, int sys_errno, const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  int rc = err_vset(err, kind, sys_errno, fmt, ap);
  va_end(ap);
  return rc;
}

int err_arg(struct err *err, const char *field, const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  int rc = err_vset(err, ERR_INVALID_ARGUMENT, EINVAL, fmt, ap);
  va_end(ap);
  if (err)
    trim_utf8(err->field, sizeof err->field, snprintf(err->field, sizeof err->field, "%s", field));
  return rc;
}

void err_wrap(struct err *err, const char *fmt, ...)
{
  if (!err || err->kind == ERR_NONE) return;
  char old[sizeof err->msg];
  memcpy(old, err->msg, sizeof old);
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
  va_end(ap);
  if (n < 0 || (size_t)n >= sizeof err->msg) return;
  size_t left = sizeof err->msg - (size_t)n;
  trim_utf8(err->msg, sizeof err->msg, n + snprintf(err->msg + n, left, ": %s", old));
}

void err_hint(struct err *err, const char *fmt, ...)
{
  if (!err) return;
  va_list ap;
  va_start(ap, fmt);
  trim_utf8(err->hint, sizeof err->hint, vsnprintf(err->hint, sizeof err->hint, fmt, ap));
  va_end(ap);
}

int err_errno(const struct err *err)
{
  if (err->kind == ERR_NONE) return 0;
  return err->sys_errno ? -err->sys_errno : -EINVAL;
}

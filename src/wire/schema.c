/* Tables of fields and the types that most of them share.
 *
 * Values that differ only in form are taken ("300" for 300, "5m" for 300 seconds); whatever else is
 * wrong is refused with one sentence that names the field, says what would be right and shows what
 * came instead. Numbers are compared exactly: quantities are read into millionths of their unit, so
 * that 1.5 never becomes 1 or 2 on the way. */
#include "wire/schema.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/suggest.h"

#define MICRO 1000000

/* ---- messages ---- */

static void show_text(const char *s, size_t len, char *out, size_t size)
{
  size_t o = 0, room = size - 8;
  out[o++] = '"';
  size_t i = 0;
  for (; i < len && o < room; i++)
    out[o++] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
  /* A cut never leaves half a UTF-8 sequence. */
  while (i < len && o > 1 && ((unsigned char)s[i] & 0xC0) == 0x80) i--, o--;
  snprintf(out + o, size - o, i < len ? "...\"" : "\"");
}

void field_show(const struct val *v, char out[FIELD_SHOW_SIZE])
{
  switch (v->type) {
  case VAL_BOOL: snprintf(out, FIELD_SHOW_SIZE, "%s", v->b ? "true" : "false"); break;
  case VAL_INT: snprintf(out, FIELD_SHOW_SIZE, "%lld", (long long)v->i); break;
  case VAL_NUM: snprintf(out, FIELD_SHOW_SIZE, "%.14g", v->n); break;
  case VAL_STR: show_text(v->s.p, v->s.len, out, FIELD_SHOW_SIZE); break;
  case VAL_LIST:
    snprintf(out, FIELD_SHOW_SIZE, v->list.n ? "a list of %zu" : "an empty table", v->list.n);
    break;
  case VAL_MAP: snprintf(out, FIELD_SHOW_SIZE, v->map.n ? "a table" : "an empty table"); break;
  case VAL_NIL: snprintf(out, FIELD_SHOW_SIZE, "nil"); break;
  }
}

int field_wrong(struct err *err, const char *path, const struct val *v, const char *what, ...)
{
  char must[256], shown[FIELD_SHOW_SIZE];
  va_list ap;
  va_start(ap, what);
  vsnprintf(must, sizeof must, what, ap);
  va_end(ap);
  field_show(v, shown);
  return err_arg(err, path, "%s must be %s, not %s", path, must, shown);
}

void field_path(char out[FIELD_PATH_SIZE], const char *prefix, const char *name)
{
  char shown[FIELD_SHOW_SIZE];
  snprintf(shown, sizeof shown, "%s", name);
  for (char *p = shown; *p; p++)
    if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
  snprintf(out, FIELD_PATH_SIZE, *prefix ? "%.60s.%s" : "%.0s%s", prefix, shown);
}

void field_path_at(char out[FIELD_PATH_SIZE], const char *prefix, size_t at)
{
  snprintf(out, FIELD_PATH_SIZE, "%.100s[%zu]", prefix, at + 1);
}

static int unknown_field(const struct schema *s, const char *prefix, const char *key,
                         struct err *err)
{
  const char *names[64];
  size_t n = 0;
  for (size_t i = 0; i < s->n && n < 56; i++) names[n++] = s->fields[i].name;
  for (const char *const *p = s->also; p && *p && n < 64; p++) names[n++] = *p;
  char path[FIELD_PATH_SIZE], shown[FIELD_PATH_SIZE];
  field_path(path, prefix, key);
  field_path(shown, "", key);
  const char *near = suggest_nearest(key, names, n);
  int rc = err_arg(err, path,
                   near ? "%s has no field \"%s\": did you mean \"%s\"?" : "%s has no field \"%s\"",
                   *prefix ? prefix : s->name, shown, near);
  if (near || !err) return rc;
  char all[sizeof err->hint - 16] = "";
  for (size_t i = 0, o = 0; i < n && o + strlen(names[i]) + 6 < sizeof all; i++)
    o += (size_t)snprintf(all + o, sizeof all - o, "%s%s", i ? " " : "", names[i]);
  err_hint(err, "it has %s", all);
  return rc;
}

/* ---- schemas ---- */

static const struct field *find_field(const struct schema *s, const char *name)
{
  for (size_t i = 0; i < s->n; i++)
    if (strcmp(s->fields[i].name, name) == 0) return &s->fields[i];
  return NULL;
}

static int parse_field(const struct schema *s, const struct field *f, const char *prefix,
                       const struct val *args, void *dst, struct err *err)
{
  char path[FIELD_PATH_SIZE];
  field_path(path, prefix, f->name);
  const struct val *v = val_get(args, f->name);
  if (v && v->type != VAL_NIL) {
    int rc = f->type->parse(f, path, v, (char *)dst + f->offset, err);
    /* err.field is the argument, the message says where inside it. */
    if (rc < 0 && err && !*prefix) snprintf(err->field, sizeof err->field, "%s", f->name);
    return rc;
  }
  if (f->flags & FIELD_REQUIRED)
    return err_arg(err, path, "%s needs %s: %s is missing", s->name, f->must ? f->must : f->name,
                   path);
  if (!f->fallback) return 0;
  struct val text = val_str(f->fallback);
  int rc = f->type->parse(f, path, &text, (char *)dst + f->offset, err);
  val_free(&text);
  return rc;
}

int schema_parse(const struct schema *s, const char *prefix, const struct val *args, void *dst,
                 struct err *err)
{
  bool empty = args->type == VAL_NIL || (args->type == VAL_LIST && args->list.n == 0);
  if (args->type != VAL_MAP && !empty)
    return field_wrong(err, *prefix ? prefix : s->name, args, "a table of named fields");
  int rc = 0;
  for (size_t i = 0; !empty && i < args->map.n && rc == 0; i++)
    if (!find_field(s, args->map.v[i].key)) rc = unknown_field(s, prefix, args->map.v[i].key, err);
  for (size_t i = 0; i < s->n && rc == 0; i++)
    rc = parse_field(s, &s->fields[i], prefix, args, dst, err);
  if (rc < 0) schema_free(s, dst);
  return rc;
}

struct val schema_print(const struct schema *s, const void *src)
{
  struct val map = val_map();
  for (size_t i = 0; i < s->n; i++) {
    const struct field *f = &s->fields[i];
    if (!(f->flags & FIELD_SHOWN) || !f->type->print) continue;
    struct val v = f->type->print(f, (const char *)src + f->offset);
    if (v.type != VAL_NIL) val_add(&map, f->name, v);
  }
  return map;
}

void schema_free(const struct schema *s, void *dst)
{
  for (size_t i = 0; i < s->n; i++)
    if (s->fields[i].type->release) s->fields[i].type->release((char *)dst + s->fields[i].offset);
}

/* ---- numbers ---- */

/* Reads "12.5" into millionths, rounded up so that a remainder never vanishes. */
static bool read_decimal(const char *s, const char **ret_end, int64_t *ret_micro)
{
  int64_t whole = 0, part = 0, scale = MICRO / 10;
  bool rest = false;
  if (!isdigit((unsigned char)*s)) return false;
  for (; isdigit((unsigned char)*s); s++) {
    whole = whole * 10 + (*s - '0');
    if (whole > 1000000000000) return false;
  }
  if (*s == '.' && !isdigit((unsigned char)s[1])) return false;
  if (*s == '.') {
    for (s++; isdigit((unsigned char)*s); s++, scale /= 10) {
      if (scale == 0 && *s != '0') rest = true;
      part += (*s - '0') * scale;
    }
  }
  *ret_end = s;
  *ret_micro = whole * MICRO + part + rest;
  return true;
}

static bool read_double(double n, int64_t *ret_micro)
{
  if (!(n >= 0 && n <= 1e12)) return false;
  double whole = floor(n);
  int64_t part = llround((n - whole) * MICRO);
  if (part == 0 && n > whole) part = 1;
  if (part == MICRO && n < whole + 1) part = MICRO - 1;
  *ret_micro = (int64_t)whole * MICRO + part;
  return true;
}

/* A non-negative number in millionths, and the text behind it ("" for a bare number). */
static bool read_number(const struct val *v, int64_t *ret_micro, const char **ret_unit)
{
  *ret_unit = "";
  if (v->type == VAL_STR)
    return strlen(v->s.p) == v->s.len && read_decimal(v->s.p, ret_unit, ret_micro);
  if (v->type == VAL_NUM) return read_double(v->n, ret_micro);
  if (v->type != VAL_INT || v->i < 0 || v->i > 1000000000000) return false;
  *ret_micro = v->i * MICRO;
  return true;
}

struct unit {
  const char *name;
  int64_t mul, div; /* in base units */
};

/* Scales to base units of which ret is the count; false where it is not a whole number of them. */
static bool read_scaled(const struct val *v, const struct unit *units, int64_t *ret, bool round_up)
{
  int64_t micro;
  const char *unit;
  if (!read_number(v, &micro, &unit)) return false;
  for (; units->name; units++)
    if (strcasecmp(units->name, unit) == 0) break;
  if (!units->name) return false;
  __int128 scaled = (__int128)micro * units->mul;
  __int128 per = (__int128)MICRO * units->div;
  if (!round_up && scaled % per != 0) return false;
  scaled = (scaled + per - 1) / per;
  if (scaled > INT64_MAX) return false;
  *ret = (int64_t)scaled;
  return true;
}

bool field_integer(const struct val *v, int64_t *ret)
{
  static const struct unit none[] = {{"", 1, 1}, {0}};
  return read_scaled(v, none, ret, false);
}

static bool in_range(const struct field *f, int64_t n)
{
  return n >= f->min && n <= f->max;
}

static int u32_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                     struct err *err)
{
  int64_t n;
  if (!field_integer(v, &n) || !in_range(f, n))
    return field_wrong(err, path, v, "an integer from %lld to %lld", (long long)f->min,
                       (long long)f->max);
  *(uint32_t *)dst = (uint32_t)n;
  return 0;
}

static struct val u32_print(const struct field *f, const void *src)
{
  (void)f;
  return val_int(*(const uint32_t *)src);
}

const struct field_type field_u32 = {.parse = u32_parse, .print = u32_print};

static int port_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                      struct err *err)
{
  (void)f;
  int64_t n;
  if (!field_integer(v, &n) || n < 1 || n > 65535)
    return field_wrong(err, path, v, "a port from 1 to 65535");
  *(uint16_t *)dst = (uint16_t)n;
  return 0;
}

static struct val port_print(const struct field *f, const void *src)
{
  (void)f;
  uint16_t port = *(const uint16_t *)src;
  return port ? val_int(port) : (struct val){0};
}

const struct field_type field_port = {.parse = port_parse, .print = port_print};

static const struct unit duration_units_s[] = {{"", 1, 1},   {"s", 1, 1},    {"ms", 1, 1000},
                                               {"m", 60, 1}, {"h", 3600, 1}, {0}};
static const struct unit duration_units_ms[] = {{"", 1000, 1},   {"s", 1000, 1},    {"ms", 1, 1},
                                                {"m", 60000, 1}, {"h", 3600000, 1}, {0}};

static int seconds_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                         struct err *err)
{
  int64_t n;
  if (!read_scaled(v, duration_units_s, &n, false) || !in_range(f, n))
    return field_wrong(err, path, v,
                       "whole seconds from %lld to %lld (300, \"90s\", \"5m\", \"2h\")",
                       (long long)f->min, (long long)f->max);
  *(uint32_t *)dst = (uint32_t)n;
  return 0;
}

const struct field_type field_seconds = {.parse = seconds_parse, .print = u32_print};

static int millis_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                        struct err *err)
{
  int64_t n;
  if (!read_scaled(v, duration_units_ms, &n, true) || !in_range(f, n))
    return field_wrong(err, path, v,
                       "a duration from %lld ms to %lld s (seconds as a number, or \"250ms\", "
                       "\"90s\", \"5m\", \"2h\")",
                       (long long)f->min, (long long)f->max / 1000);
  *(uint64_t *)dst = (uint64_t)n;
  return 0;
}

const struct field_type field_millis = {.parse = millis_parse};

#define MIB (1ll << 20)

static const struct unit size_units[] = {{"", MIB, 1},
                                         {"B", 1, 1},
                                         {"KiB", 1024, 1},
                                         {"MiB", MIB, 1},
                                         {"GiB", MIB * 1024, 1},
                                         {"TiB", MIB * 1024 * 1024, 1},
                                         {0}};

static int mib_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                     struct err *err)
{
  int64_t n;
  if (!read_scaled(v, size_units, &n, false) || n % MIB != 0 || !in_range(f, n / MIB))
    return field_wrong(err, path, v,
                       "an integer of MiB from %lld to %lld (1024, \"512MiB\", \"2GiB\")",
                       (long long)f->min, (long long)f->max);
  *(uint32_t *)dst = (uint32_t)(n / MIB);
  return 0;
}

const struct field_type field_mib = {.parse = mib_parse, .print = u32_print};

static int size_bytes_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                            struct err *err)
{
  int64_t n;
  if (!read_scaled(v, size_units, &n, false) || !in_range(f, n))
    return field_wrong(err, path, v,
                       "a size from %lld B to %lld MiB (MiB as an integer, or \"64KiB\", "
                       "\"8MiB\", \"1GiB\")",
                       (long long)f->min, (long long)(f->max / MIB));
  *(uint64_t *)dst = (uint64_t)n;
  return 0;
}

const struct field_type field_size_bytes = {.parse = size_bytes_parse};

static int milli_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                       struct err *err)
{
  static const struct unit milli[] = {{"", 1000, 1}, {0}};
  int64_t n;
  if (!read_scaled(v, milli, &n, true) || !in_range(f, n))
    return field_wrong(err, path, v, "a number from %.14g to %.14g", (double)f->min / 1000,
                       (double)f->max / 1000);
  *(uint32_t *)dst = (uint32_t)n;
  return 0;
}

static struct val milli_print(const struct field *f, const void *src)
{
  (void)f;
  uint32_t n = *(const uint32_t *)src;
  return n % 1000 ? val_num(n / 1000.0) : val_int(n / 1000);
}

const struct field_type field_milli = {.parse = milli_parse, .print = milli_print};

static int microusd_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                          struct err *err)
{
  int64_t micro;
  const char *unit;
  if (!read_number(v, &micro, &unit) || *unit || !in_range(f, micro))
    return field_wrong(err, path, v, "an amount of US dollars from %.14g to %.14g",
                       (double)f->min / MICRO, (double)f->max / MICRO);
  *(int64_t *)dst = micro;
  return 0;
}

const struct field_type field_microusd = {.parse = microusd_parse};

/* ---- texts, choices, tables ---- */

static int text_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                      struct err *err)
{
  char number[24];
  const char *s = v->type == VAL_STR ? v->s.p : number;
  size_t len = v->type == VAL_STR ? v->s.len : 0;
  if (v->type == VAL_INT && (f->flags & FIELD_FROM_INT))
    len = (size_t)snprintf(number, sizeof number, "%lld", (long long)v->i);
  else if (v->type != VAL_STR)
    return field_wrong(err, path, v, "%s", f->must ? f->must : "a string");
  if (memchr(s, 0, len)) return err_arg(err, path, "%s must not contain a NUL byte", path);
  if (len == 0 || (f->ok && !f->ok(s, len)))
    return field_wrong(err, path, v, "%s", f->must ? f->must : "a string that is not empty");
  if ((int64_t)len > f->max)
    return err_arg(err, path, "%s must be at most %lld bytes long, not %zu", path,
                   (long long)f->max, len);
  free(*(char **)dst);
  *(char **)dst = xmemdup(s, len + 1);
  return 0;
}

static struct val text_print(const struct field *f, const void *src)
{
  (void)f;
  return val_str(*(char *const *)src);
}

static void text_release(void *dst)
{
  free(*(char **)dst);
  *(char **)dst = NULL;
}

const struct field_type field_text = {
    .parse = text_parse, .print = text_print, .release = text_release};

static int bool_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                      struct err *err)
{
  (void)f;
  if (v->type != VAL_BOOL) return field_wrong(err, path, v, "true or false");
  *(bool *)dst = v->b;
  return 0;
}

static struct val bool_print(const struct field *f, const void *src)
{
  (void)f;
  return val_bool(*(const bool *)src);
}

const struct field_type field_bool = {.parse = bool_parse, .print = bool_print};

static int choice_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                        struct err *err)
{
  size_t n = 0;
  char all[160] = "";
  for (; f->choices[n]; n++) {
    if (v->type == VAL_STR && strcmp(v->s.p, f->choices[n]) == 0 && v->s.len == strlen(v->s.p)) {
      *(int *)dst = (int)n;
      return 0;
    }
    size_t o = strlen(all);
    snprintf(all + o, sizeof all - o, "%s\"%s\"",
             n == 0              ? ""
             : f->choices[n + 1] ? ", "
                                 : " or ",
             f->choices[n]);
  }
  return field_wrong(err, path, v, "%s", all);
}

static struct val choice_print(const struct field *f, const void *src)
{
  return val_str(f->choices[*(const int *)src]);
}

const struct field_type field_choice = {.parse = choice_parse, .print = choice_print};

static int table_parse(const struct field *f, const char *path, const struct val *v, void *dst,
                       struct err *err)
{
  if (v->type != VAL_MAP) return field_wrong(err, path, v, "%s", f->must ? f->must : "a table");
  return schema_parse(f->sub, path, v, dst, err);
}

static struct val table_print(const struct field *f, const void *src)
{
  struct val map = schema_print(f->sub, src);
  if (map.map.n == 0) val_free(&map);
  return map;
}

const struct field_type field_table = {.parse = table_parse, .print = table_print};

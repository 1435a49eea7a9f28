/* JSON: cJSON reads it, plain data comes out; a small printer writes plain data.
 *
 * cJSON holds strings as NUL-terminated text, so a NUL inside one is refused on the way in. The
 * printer is our own because our strings are bytes: a NUL is escaped and what is not UTF-8 becomes
 * U+FFFD, one per maximal invalid part (Unicode 15, 3.9, "substitution of maximal subparts"). */
#include "base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* Length of the valid UTF-8 sequence at p, or 0; *ret_skip is then the bytes one U+FFFD stands for.
 */
static size_t utf8_len(const unsigned char *p, size_t left, size_t *ret_skip)
{
  static const struct {
    unsigned char lo, hi, second_lo, second_hi, len;
  } rows[] = {
      {0x00, 0x7F, 0, 0, 1},       {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
      {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
      {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
  *ret_skip = 1;
  for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
    if (p[0] < rows[r].lo || p[0] > rows[r].hi) continue;
    for (size_t i = 1; i < rows[r].len; i++) {
      unsigned char lo = i == 1 ? rows[r].second_lo : 0x80, hi = i == 1 ? rows[r].second_hi : 0xBF;
      if (i >= left || p[i] < lo || p[i] > hi) {
        *ret_skip = i;
        return 0;
      }
    }
    return rows[r].len;
  }
  return 0;
}

static void print_string(struct buf *out, const char *s, size_t len)
{
  const unsigned char *p = (const unsigned char *)s;
  buf_putc(out, '"');
  size_t plain = 0; /* start of the run that needs no escape */
  size_t i = 0;
  while (i < len) {
    size_t skip;
    size_t n = utf8_len(p + i, len - i, &skip);
    if (n > 0 && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\' && p[i] != 0x7F) {
      i += n;
      continue;
    }
    buf_append(out, s + plain, i - plain);
    if (n == 0)
      buf_puts(out, "\xEF\xBF\xBD");
    else if (p[i] == '\n')
      buf_puts(out, "\\n");
    else if (p[i] == '"' || p[i] == '\\')
      buf_printf(out, "\\%c", p[i]);
    else
      buf_printf(out, "\\u%04x", p[i]);
    i += n ? n : skip;
    plain = i;
  }
  buf_append(out, s + plain, len - plain);
  buf_putc(out, '"');
}

static void print_number(struct buf *out, double n)
{
  if (!isfinite(n)) {
    buf_puts(out, "null");
    return;
  }
  char text[40];
  snprintf(text, sizeof text, "%.15g", n);
  if (strtod(text, NULL) != n) snprintf(text, sizeof text, "%.17g", n);
  buf_puts(out, text);
  if (!strpbrk(text, ".e")) buf_puts(out, ".0");
}

void json_print(struct buf *out, const struct val *v)
{
  switch (v->type) {
  case VAL_NIL: buf_puts(out, "null"); break;
  case VAL_BOOL: buf_puts(out, v->b ? "true" : "false"); break;
  case VAL_INT: buf_printf(out, "%lld", (long long)v->i); break;
  case VAL_NUM: print_number(out, v->n); break;
  case VAL_STR: print_string(out, v->s.p, v->s.len); break;
  case VAL_LIST:
    buf_putc(out, '[');
    for (size_t i = 0; i < v->list.n; i++) {
      if (i) buf_putc(out, ',');
      json_print(out, &v->list.v[i]);
    }
    buf_putc(out, ']');
    break;
  case VAL_MAP:
    buf_putc(out, '{');
    for (size_t i = 0; i < v->map.n; i++) {
      if (i) buf_putc(out, ',');
      print_string(out, v->map.v[i].key, strlen(v->map.v[i].key));
      buf_putc(out, ':');
      json_print(out, &v->map.v[i].val);
    }
    buf_putc(out, '}');
    break;
  }
}

static int compare_keys(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorting keeps a hostile object of a million keys from costing a million squared. */
static const char *find_duplicate(const cJSON *object, size_t n)
{
  if (n < 2) return NULL;
  const char **keys = xcalloc(n, sizeof *keys);
  size_t i = 0;
  for (const cJSON *c = object->child; c; c = c->next) keys[i++] = c->string;
  qsort(keys, n, sizeof *keys, compare_keys);
  const char *duplicate = NULL;
  for (i = 1; i < n && !duplicate; i++)
    if (strcmp(keys[i - 1], keys[i]) == 0) duplicate = keys[i];
  free(keys);
  return duplicate;
}

static int convert(struct val *ret, const cJSON *j, int depth, struct err *err);

static int convert_container(struct val *ret, const cJSON *j, int depth, struct err *err)
{
  if (depth >= JSON_MAX_DEPTH)
    return err_set(err, ERR_INVALID_ARGUMENT, 0, "JSON is nested deeper than %d levels",
                   JSON_MAX_DEPTH);
  bool is_map = cJSON_IsObject(j);
  size_t n = 0;
  for (const cJSON *c = j->child; c; c = c->next) n++;
  const char *duplicate = is_map ? find_duplicate(j, n) : NULL;
  if (duplicate)
    return err_arg(err, duplicate, "the key \"%.60s\" stands twice in one object", duplicate);
  *ret = is_map ? val_map() : val_list();
  for (const cJSON *c = j->child; c; c = c->next) {
    struct val v = {0};
    int rc = convert(&v, c, depth + 1, err);
    if (rc < 0) {
      val_free(&v); /* it may hold what came before the fault */
      return rc;
    }
    if (is_map)
      val_add(ret, c->string, v);
    else
      val_push(ret, v);
  }
  return 0;
}

static int convert(struct val *ret, const cJSON *j, int depth, struct err *err)
{
  *ret = (struct val){0};
  if (cJSON_IsObject(j) || cJSON_IsArray(j)) return convert_container(ret, j, depth, err);
  if (cJSON_IsBool(j)) *ret = val_bool(cJSON_IsTrue(j));
  if (cJSON_IsString(j)) *ret = val_str(j->valuestring);
  if (cJSON_IsNumber(j)) {
    double n = j->valuedouble;
    bool whole = fabs(n) <= 9007199254740992.0 && n == floor(n);
    *ret = whole ? val_int((int64_t)n) : val_num(n);
  }
  return 0;
}

/* True when an escape \u0000 or a raw NUL stands in the text. */
static bool has_nul(const char *text, size_t len)
{
  if (memchr(text, '\0', len)) return true;
  for (size_t i = 0; i + 1 < len; i++) {
    if (text[i] != '\\') continue;
    if (i + 6 <= len && memcmp(text + i, "\\u0000", 6) == 0) return true;
    i++; /* what the backslash escapes cannot begin an escape */
  }
  return false;
}

static size_t skip_space(const char *text, size_t at, size_t len)
{
  while (at < len && strchr(" \t\r\n", text[at]) && text[at]) at++;
  return at;
}

int json_parse(struct val *ret, const char *text, size_t len, struct err *err)
{
  *ret = (struct val){0};
  if (has_nul(text, len))
    return err_set(err, ERR_INVALID_ARGUMENT, 0,
                   "JSON holds a NUL character, which no field takes");
  const char *end = text;
  cJSON *j = len ? cJSON_ParseWithLengthOpts(text, len, &end, 0) : NULL;
  if (!j)
    return err_set(err, ERR_INVALID_ARGUMENT, 0, "malformed JSON at byte %zu",
                   (size_t)(end - text) + 1);
  size_t tail = skip_space(text, (size_t)(end - text), len);
  int rc = 0;
  if (tail < len)
    rc = err_set(err, ERR_INVALID_ARGUMENT, 0, "unexpected text behind the JSON value at byte %zu",
                 tail + 1);
  if (rc == 0) rc = convert(ret, j, 0, err);
  if (rc < 0) val_free(ret);
  cJSON_Delete(j);
  return rc;
}

/* MessagePack: packed by libmsgpack, read by ourselves.
 *
 * The library's reader sizes its arrays by the count in a header, before it has seen whether so
 * much is there: five bytes from a stranger ask it for gigabytes. This reader holds every count
 * against the bytes that are left and against one budget of values for the whole message, and nests
 * by a bounded recursion. The tests hold it against the library's on everything that both accept.
 */
#include "wire/codec.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <msgpack.h>

#include "base/buf.h"

/* ---- writing ---- */

struct writer {
  msgpack_packer pk;
  size_t values; /* budget left */
  size_t bytes;  /* likewise */
  bool over;
};

static int append(void *data, const char *bytes, size_t len)
{
  buf_append(data, bytes, len);
  return 0;
}

static bool spend(struct writer *w, size_t bytes)
{
  if (w->values == 0 || bytes > w->bytes) {
    w->over = true;
    return false;
  }
  w->values--;
  w->bytes -= bytes;
  return true;
}

static void pack_text(struct writer *w, const char *p, size_t len)
{
  msgpack_pack_str(&w->pk, len);
  if (len > 0) msgpack_pack_str_body(&w->pk, p, len);
}

static void pack(struct writer *w, const struct val *v, int depth)
{
  bool box = v->type == VAL_LIST || v->type == VAL_MAP;
  if (box && depth == CODEC_MAX_DEPTH) w->over = true;
  if (w->over || !spend(w, v->type == VAL_STR ? v->s.len : 0)) return;
  switch (v->type) {
  case VAL_NIL: msgpack_pack_nil(&w->pk); break;
  case VAL_BOOL: v->b ? msgpack_pack_true(&w->pk) : msgpack_pack_false(&w->pk); break;
  case VAL_INT: msgpack_pack_int64(&w->pk, v->i); break;
  case VAL_NUM: msgpack_pack_double(&w->pk, v->n); break;
  case VAL_STR: pack_text(w, v->s.p, v->s.len); break;
  case VAL_LIST:
    msgpack_pack_array(&w->pk, v->list.n);
    for (size_t i = 0; i < v->list.n && !w->over; i++) pack(w, &v->list.v[i], depth + 1);
    break;
  case VAL_MAP:
    msgpack_pack_map(&w->pk, v->map.n);
    for (size_t i = 0; i < v->map.n && !w->over; i++) {
      pack_text(w, v->map.v[i].key, strlen(v->map.v[i].key));
      pack(w, &v->map.v[i].val, depth + 1);
    }
    break;
  }
}

int codec_encode(struct buf *out, const struct val *v, struct err *err)
{
  size_t start = out->len;
  struct writer w = {.values = CODEC_MAX_VALUES, .bytes = CODEC_MAX_BYTES};
  msgpack_packer_init(&w.pk, out, append);
  pack(&w, v, 0);
  if (!w.over && out->len - start <= CODEC_MAX_BYTES) return 0;
  out->len = start;
  if (out->data) out->data[start] = '\0';
  return err_set(err, ERR_INVALID_ARGUMENT, E2BIG,
                 "the data is too large or too deep: %d levels, %d values and %u MiB are the most",
                 CODEC_MAX_DEPTH, CODEC_MAX_VALUES, CODEC_MAX_BYTES >> 20);
}

/* ---- reading ---- */

struct reader {
  const unsigned char *at, *end;
  size_t values;   /* budget left */
  const char *why; /* the first fault */
};

static bool fail(struct reader *r, const char *why)
{
  if (!r->why) r->why = why;
  return false;
}

static size_t left(const struct reader *r)
{
  return (size_t)(r->end - r->at);
}

/* An unsigned big-endian number of 1, 2, 4 or 8 bytes. */
static bool take_number(struct reader *r, size_t size, uint64_t *ret)
{
  if (left(r) < size) return fail(r, "it ends too early");
  uint64_t n = 0;
  for (size_t i = 0; i < size; i++) n = n << 8 | *r->at++;
  *ret = n;
  return true;
}

static bool take_unsigned(struct reader *r, size_t size, struct val *ret)
{
  uint64_t n;
  if (!take_number(r, size, &n)) return false;
  if (n > INT64_MAX) return fail(r, "an integer is too large");
  *ret = val_int((int64_t)n);
  return true;
}

static bool take_signed(struct reader *r, size_t size, struct val *ret)
{
  uint64_t n;
  if (!take_number(r, size, &n)) return false;
  unsigned shift = 64 - 8 * (unsigned)size;
  *ret = val_int((int64_t)(n << shift) >> shift);
  return true;
}

static bool take_float(struct reader *r, size_t size, struct val *ret)
{
  uint64_t n;
  if (!take_number(r, size, &n)) return false;
  uint32_t n32 = (uint32_t)n;
  float f;
  double d;
  memcpy(&f, &n32, sizeof f);
  memcpy(&d, &n, sizeof d);
  *ret = val_num(size == 4 ? (double)f : d);
  return true;
}

static bool take_text(struct reader *r, size_t len, struct val *ret)
{
  if (left(r) < len) return fail(r, "a string is longer than what is left");
  *ret = val_bytes(r->at, len);
  r->at += len;
  return true;
}

static bool take_value(struct reader *r, int depth, struct val *ret);

/* Both need room for n values of at least `each` bytes. */
static bool check_count(struct reader *r, size_t n, size_t each, int depth)
{
  if (depth >= CODEC_MAX_DEPTH) return fail(r, "it is nested too deep");
  if (n > left(r) / each) return fail(r, "a count is larger than what is left");
  if (n > r->values) return fail(r, "it has too many values");
  return true;
}

static bool take_list(struct reader *r, size_t n, int depth, struct val *ret)
{
  if (!check_count(r, n, 1, depth)) return false;
  *ret = val_list();
  for (size_t i = 0; i < n; i++) {
    struct val item = {0};
    bool ok = take_value(r, depth + 1, &item);
    val_push(ret, item);
    if (!ok) return false;
  }
  return true;
}

static int compare_keys(const void *a, const void *b)
{
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool check_unique(struct reader *r, const struct val *map)
{
  size_t n = map->map.n;
  if (n < 2) return true;
  const char **keys = xmalloc(n * sizeof *keys);
  for (size_t i = 0; i < n; i++) keys[i] = map->map.v[i].key;
  qsort(keys, n, sizeof *keys, compare_keys);
  bool unique = true;
  for (size_t i = 1; i < n && unique; i++) unique = strcmp(keys[i - 1], keys[i]) != 0;
  free(keys);
  return unique || fail(r, "a key comes twice");
}

static bool take_key(struct reader *r, struct val *ret)
{
  if (!take_value(r, CODEC_MAX_DEPTH, ret)) return false;
  r->values++; /* keys are not counted */
  if (ret->type != VAL_STR) return fail(r, "a key is no string");
  return strlen(ret->s.p) == ret->s.len || fail(r, "a key holds a NUL");
}

static bool take_map(struct reader *r, size_t n, int depth, struct val *ret)
{
  if (!check_count(r, n, 2, depth)) return false;
  *ret = val_map();
  for (size_t i = 0; i < n; i++) {
    struct val key = {0}, value = {0};
    bool ok = take_key(r, &key) && take_value(r, depth + 1, &value);
    if (key.type == VAL_STR && strlen(key.s.p) == key.s.len)
      val_add(ret, key.s.p, value);
    else
      val_free(&value);
    val_free(&key);
    if (!ok) return false;
  }
  return check_unique(r, ret);
}

/* A length or count of 1, 2 or 4 bytes, then what it counts. */
static bool take_counted(struct reader *r, unsigned char tag, int depth, struct val *ret)
{
  uint64_t n;
  switch (tag) {
  case 0xc4:
  case 0xd9: return take_number(r, 1, &n) && take_text(r, n, ret);
  case 0xc5:
  case 0xda: return take_number(r, 2, &n) && take_text(r, n, ret);
  case 0xc6:
  case 0xdb: return take_number(r, 4, &n) && take_text(r, n, ret);
  case 0xdc: return take_number(r, 2, &n) && take_list(r, n, depth, ret);
  case 0xdd: return take_number(r, 4, &n) && take_list(r, n, depth, ret);
  case 0xde: return take_number(r, 2, &n) && take_map(r, n, depth, ret);
  case 0xdf: return take_number(r, 4, &n) && take_map(r, n, depth, ret);
  default: return fail(r, "it has a type that does not belong here");
  }
}

/* On failure *ret holds what was read so far, for the caller to free. */
static bool take_value(struct reader *r, int depth, struct val *ret)
{
  if (left(r) == 0) return fail(r, "it ends too early");
  if (r->values == 0) return fail(r, "it has too many values");
  r->values--;
  unsigned char tag = *r->at++;
  if (tag <= 0x7f || tag >= 0xe0) {
    *ret = val_int((signed char)tag);
    return true;
  }
  if (tag <= 0x8f) return take_map(r, tag & 0x0f, depth, ret);
  if (tag <= 0x9f) return take_list(r, tag & 0x0f, depth, ret);
  if (tag <= 0xbf) return take_text(r, tag & 0x1f, ret);
  switch (tag) {
  case 0xc0: return true; /* nil */
  case 0xc2:
  case 0xc3: *ret = val_bool(tag == 0xc3); return true;
  case 0xca: return take_float(r, 4, ret);
  case 0xcb: return take_float(r, 8, ret);
  case 0xcc: return take_unsigned(r, 1, ret);
  case 0xcd: return take_unsigned(r, 2, ret);
  case 0xce: return take_unsigned(r, 4, ret);
  case 0xcf: return take_unsigned(r, 8, ret);
  case 0xd0: return take_signed(r, 1, ret);
  case 0xd1: return take_signed(r, 2, ret);
  case 0xd2: return take_signed(r, 4, ret);
  case 0xd3: return take_signed(r, 8, ret);
  default: return take_counted(r, tag, depth, ret);
  }
}

int codec_decode(struct val *ret, const void *bytes, size_t len, struct err *err)
{
  struct reader r = {.at = bytes, .values = CODEC_MAX_VALUES};
  r.end = r.at + len;
  *ret = (struct val){0};
  bool ok = len <= CODEC_MAX_BYTES || fail(&r, "it is too long");
  ok = ok && take_value(&r, 0, ret) && (left(&r) == 0 || fail(&r, "bytes are left over"));
  if (ok) return 0;
  val_free(ret);
  return err_set(err, ERR_INVALID_ARGUMENT, EBADMSG, "not a valid message: %s", r.why);
}

int codec_check(const struct val *v, struct err *err)
{
  struct buf bytes = {0};
  struct val again = {0};
  int rc = codec_encode(&bytes, v, err);
  if (rc == 0) rc = codec_decode(&again, bytes.data, bytes.len, err);
  if (rc == 0 && !val_equal(v, &again))
    rc = err_set(err, ERR_INTERNAL, 0, "a message changed on its way through the codec");
  val_free(&again);
  buf_free(&bytes);
  return rc;
}

/* wire/codec: round trips, bounds, hostile bytes, and agreement with libmsgpack's own reader. */
#include "test.h"

#include <math.h>
#include <msgpack.h>
#include <time.h>

#include "base/buf.h"
#include "base/json.h"
#include "wire/codec.h"

static unsigned seed;

static unsigned rnd(unsigned n)
{
  seed = seed * 1103515245u + 12345u;
  return n ? (seed >> 16) % n : 0;
}

static struct val random_val(int depth)
{
  static const int64_t edges[] = {
      0,     1,         -1,        127,       128,  -32,  -33,       255,        256,    65535,
      65536, INT32_MAX, INT32_MIN, INT64_MAX, -128, -129, INT64_MIN, 4294967296, -32768, -32769};
  char text[70000];
  size_t n;
  struct val v;
  switch (rnd(depth > 4 ? 5 : 7)) {
  case 0: return (struct val){0};
  case 1: return val_bool(rnd(2));
  case 2: return val_int(edges[rnd(sizeof edges / sizeof *edges)]);
  case 3: return val_num(rnd(4) ? rnd(1000) / 7.0 : rnd(2) ? INFINITY : -0.0);
  case 4:
    n = rnd(20) ? rnd(40) : rnd(300) * 233;
    for (size_t i = 0; i < n; i++) text[i] = (char)rnd(256);
    return val_bytes(text, n);
  case 5:
    v = val_list();
    for (n = rnd(8) ? rnd(6) : rnd(300); n > 0; n--) val_push(&v, random_val(depth + 2));
    return v;
  default:
    v = val_map();
    for (n = rnd(8) ? rnd(6) : rnd(100); n > 0; n--) {
      snprintf(text, sizeof text, "key%zu%.*s", n, (int)rnd(30),
               "abcdefghijklmnopqrstuvwxyz012345");
      val_set(&v, text, random_val(depth + 2));
    }
    return v;
  }
}

/* What libmsgpack read, as a val. */
static struct val from_lib(const msgpack_object *o)
{
  struct val v;
  switch ((int)o->type) {
  case MSGPACK_OBJECT_BOOLEAN: return val_bool(o->via.boolean);
  case MSGPACK_OBJECT_POSITIVE_INTEGER: return val_int((int64_t)o->via.u64);
  case MSGPACK_OBJECT_NEGATIVE_INTEGER: return val_int(o->via.i64);
  case MSGPACK_OBJECT_FLOAT32:
  case MSGPACK_OBJECT_FLOAT64: return val_num(o->via.f64);
  case MSGPACK_OBJECT_STR: return val_bytes(o->via.str.ptr, o->via.str.size);
  case MSGPACK_OBJECT_BIN: return val_bytes(o->via.bin.ptr, o->via.bin.size);
  case MSGPACK_OBJECT_ARRAY:
    v = val_list();
    for (uint32_t i = 0; i < o->via.array.size; i++) val_push(&v, from_lib(&o->via.array.ptr[i]));
    return v;
  case MSGPACK_OBJECT_MAP:
    v = val_map();
    for (uint32_t i = 0; i < o->via.map.size; i++) {
      char *key = strndup(o->via.map.ptr[i].key.via.str.ptr, o->via.map.ptr[i].key.via.str.size);
      val_add(&v, key, from_lib(&o->via.map.ptr[i].val));
      free(key);
    }
    return v;
  default: return (struct val){0};
  }
}

static void check_with_lib(const struct buf *b, const struct val *ours)
{
  msgpack_unpacked u;
  msgpack_unpacked_init(&u);
  size_t off = 0;
  CHECK_INT(msgpack_unpack_next(&u, b->data, b->len, &off), MSGPACK_UNPACK_SUCCESS);
  CHECK_INT(off, b->len);
  struct val theirs = from_lib(&u.data);
  CHECK(val_equal(ours, &theirs));
  val_free(&theirs);
  msgpack_unpacked_destroy(&u);
}

static void round_trips(void)
{
  seed = (unsigned)time(NULL);
  unsigned first = seed;
  for (int i = 0; i < 300; i++) {
    struct val v = random_val(0), again;
    struct buf b = {0};
    struct err e = {0};
    CHECK_INT(codec_encode(&b, &v, &e), 0);
    CHECK_INT(codec_decode(&again, b.data, b.len, &e), 0);
    CHECK(val_equal(&v, &again));
    check_with_lib(&b, &v);
    CHECK_INT(codec_check(&v, &e), 0);
    /* Cut anywhere it is refused, and never read beyond its end. */
    for (int k = 0; k < 4 && b.len > 0; k++) {
      size_t n = rnd((unsigned)b.len);
      char *cut = xmemdup(b.data, n);
      struct val part;
      CHECK(codec_decode(&part, cut, n, &e) < 0);
      free(cut);
    }
    val_free(&v);
    val_free(&again);
    buf_free(&b);
  }
  if (test_failed_checks) fprintf(stderr, "seed %u\n", first);
}

/* Any bytes: refused, or accepted and stable from then on. */
static void hostile_bytes(void)
{
  seed = (unsigned)time(NULL) * 31u;
  unsigned first = seed;
  for (int i = 0; i < 20000; i++) {
    size_t n = rnd(40);
    unsigned char *bytes = xmalloc(n);
    for (size_t k = 0; k < n; k++) bytes[k] = (unsigned char)(rnd(3) ? 0x80 + rnd(0x80) : rnd(256));
    struct val v, again;
    struct err e = {0};
    if (codec_decode(&v, bytes, n, &e) == 0) {
      struct buf b = {0};
      CHECK_INT(codec_encode(&b, &v, &e), 0);
      CHECK_INT(codec_decode(&again, b.data, b.len, &e), 0);
      CHECK(val_equal(&v, &again));
      val_free(&again);
      buf_free(&b);
    } else {
      CHECK(e.kind == ERR_INVALID_ARGUMENT && v.type == VAL_NIL);
    }
    val_free(&v);
    free(bytes);
  }
  if (test_failed_checks) fprintf(stderr, "seed %u\n", first);
}

static void refuses(void)
{
#define BYTES(s) s, sizeof(s) - 1
  static const struct {
    const char *bytes;
    size_t len;
    const char *says;
  } r[] = {
      {BYTES(""), "ends too early"},
      {BYTES("\xc1"), "type"},
      {BYTES("\x01\x02"), "left over"},
      {BYTES("\xdd\xff\xff\xff\xff"), "larger than what is left"},
      {BYTES("\xdf\xff\xff\xff\xff"), "larger than what is left"},
      {BYTES("\xdb\xff\xff\xff\xffxx"), "longer than what is left"},
      {BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), "too large"},
      {BYTES("\x81\x01\x02"), "no string"},
      {BYTES("\x81\x90\x02"), "nested too deep"},
      {BYTES("\x81\xa2x\0\x02"), "NUL"},
      {BYTES("\x82\xa1x\x01\xa1x\x02"), "twice"},
      {BYTES("\xd4\x01\x02"), "type"},
      {BYTES("\xcd\x01"), "ends too early"},
  };
  for (size_t i = 0; i < sizeof r / sizeof *r; i++) {
    struct val v;
    struct err e = {0};
    CHECK(codec_decode(&v, r[i].bytes, r[i].len, &e) < 0);
    if (!strstr(e.msg, r[i].says)) {
      fprintf(stderr, "case %zu: %s\n", i, e.msg);
      CHECK(false);
    }
  }
}

static void bounds(void)
{
  struct val deep = val_int(1);
  struct buf b = {0};
  struct err e = {0};
  for (int i = 0; i < CODEC_MAX_DEPTH; i++) {
    struct val l = val_list();
    val_push(&l, deep);
    deep = l;
  }
  CHECK_INT(codec_check(&deep, &e), 0);
  struct val l = val_list();
  val_push(&l, deep);
  buf_puts(&b, "before");
  CHECK(codec_encode(&b, &l, &e) < 0);
  CHECK_STR(b.data, "before");
  buf_free(&b);
  val_free(&l);

  char bytes[CODEC_MAX_DEPTH + 2];
  memset(bytes, 0x91, sizeof bytes);
  bytes[CODEC_MAX_DEPTH] = 0x01;
  struct val v;
  CHECK_INT(codec_decode(&v, bytes, CODEC_MAX_DEPTH + 1, &e), 0);
  val_free(&v);
  bytes[CODEC_MAX_DEPTH] = (char)0x91;
  bytes[CODEC_MAX_DEPTH + 1] = 0x01;
  CHECK(codec_decode(&v, bytes, sizeof bytes, &e) < 0);

  /* One value too many, in a list that is really there. */
  size_t n = CODEC_MAX_VALUES;
  char *many = xcalloc(1, n + 5);
  memcpy(many, "\xdd\x00\x10\x00\x00", 5);
  CHECK(codec_decode(&v, many, n + 5, &e) < 0);
  CHECK(strstr(e.msg, "too many values") != NULL);
  memcpy(many, "\xdd\x00\x0f\xff\xff", 5);
  CHECK_INT(codec_decode(&v, many, n + 4, &e), 0);
  CHECK_INT(codec_check(&v, &e), 0);
  val_push(&v, val_int(1));
  CHECK(codec_check(&v, &e) < 0);
  val_free(&v);
  free(many);
}

const struct test_case test_cases[] = {{"round_trips", round_trips},
                                       {"hostile_bytes", hostile_bytes},
                                       {"refuses", refuses},
                                       {"bounds", bounds},
                                       {0}};

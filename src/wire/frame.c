/* Frames between a worker process and its host: encoding and decoding.
 *
 * Stateless. The bytes are MessagePack (https://github.com/msgpack/msgpack, spec.md); the library
 * packs and unpacks, by way of wire/codec, which bounds depth and size. What comes from a worker is
 * hostile: a frame with a kind that is not known, a field of another type, or anything behind it,
 * is refused whole. */
#include "wire/frame.h"

#include <msgpack.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "wire/codec.h"

enum { FIELDS = 5, NAME_MAX_LEN = 255 };

static int write_buf(void *data, const char *bytes, size_t len)
{
  buf_append(data, bytes, len);
  return 0;
}

static void put_head(msgpack_packer *pk, const struct frame *f)
{
  size_t name_len = f->name ? strlen(f->name) : 0;
  msgpack_pack_array(pk, FIELDS);
  msgpack_pack_int(pk, (int)f->kind);
  msgpack_pack_int64(pk, (int64_t)f->id);
  msgpack_pack_int64(pk, f->num);
  msgpack_pack_str(pk, name_len);
  msgpack_pack_str_body(pk, f->name ? f->name : "", name_len);
}

int frame_encode(struct buf *out, const struct frame *f, struct err *err)
{
  size_t before = out->len;
  msgpack_packer pk;
  msgpack_packer_init(&pk, out, write_buf);
  put_head(&pk, f);
  int rc = codec_encode(out, &f->body, err);
  if (rc < 0) out->len = before;
  return rc;
}

void frame_encode_bytes(struct buf *out, enum frame_kind kind, uint64_t id, int64_t num,
                        const void *data, size_t len)
{
  struct frame f = {.kind = kind, .id = id, .num = num};
  msgpack_packer pk;
  buf_reserve(out, len + 64);
  msgpack_packer_init(&pk, out, write_buf);
  put_head(&pk, &f);
  msgpack_pack_bin(&pk, len);
  msgpack_pack_bin_body(&pk, data, len);
}

static bool is_frame(const struct val *v)
{
  if (v->type != VAL_LIST || v->list.n != FIELDS) return false;
  const struct val *f = v->list.v;
  return f[0].type == VAL_INT && f[0].i > 0 && f[0].i < FRAME_KIND_END && f[1].type == VAL_INT &&
         f[2].type == VAL_INT && f[3].type == VAL_STR && f[3].s.len <= NAME_MAX_LEN &&
         strlen(f[3].s.p) == f[3].s.len;
}

int frame_decode(struct frame *ret, const char *bytes, size_t len, struct err *err)
{
  *ret = (struct frame){0};
  struct val v = {0};
  int rc = codec_decode(&v, bytes, len, err);
  if (rc < 0) return rc;
  if (!is_frame(&v)) {
    val_free(&v);
    return err_set(err, ERR_INVALID_ARGUMENT, 0, "not a frame");
  }
  struct val *f = v.list.v;
  *ret = (struct frame){.kind = (enum frame_kind)f[0].i,
                        .id = (uint64_t)f[1].i,
                        .num = f[2].i,
                        .name = f[3].s.p,
                        .body = f[4]};
  f[4] = (struct val){0};
  ret->whole = v;
  return 0;
}

void frame_done(struct frame *f)
{
  val_free(&f->body);
  val_free(&f->whole);
  *f = (struct frame){0};
}

struct val frame_err_val(const struct err *err)
{
  if (!err || err->kind == ERR_NONE) return (struct val){0};
  struct val v = val_map();
  val_add(&v, "code", val_str(err_info(err->kind)->code));
  val_add(&v, "errno", val_int(err->sys_errno));
  val_add(&v, "field", val_str(err->field));
  val_add(&v, "sandbox_id", val_str(err->sandbox_id));
  val_add(&v, "engine", val_str(err->engine));
  val_add(&v, "message", val_str(err->msg));
  val_add(&v, "hint", val_str(err->hint));
  return v;
}

static void read_text(const struct val *v, const char *key, char *out, size_t size)
{
  snprintf(out, size, "%s", val_get_str(v, key, ""));
}

void frame_err_read(const struct val *v, struct err *ret)
{
  *ret = (struct err){.kind = err_kind_from_code(val_get_str(v, "code", ""))};
  ret->sys_errno = (int)val_get_int(v, "errno", 0);
  read_text(v, "field", ret->field, sizeof ret->field);
  read_text(v, "sandbox_id", ret->sandbox_id, sizeof ret->sandbox_id);
  read_text(v, "engine", ret->engine, sizeof ret->engine);
  read_text(v, "message", ret->msg, sizeof ret->msg);
  read_text(v, "hint", ret->hint, sizeof ret->hint);
}

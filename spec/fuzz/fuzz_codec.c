/* libFuzzer harness for wire/codec: bytes from a stranger are refused, or read into a value that
 * encodes and decodes to itself, and that every parser of arguments survives.
 *
 *   make fuzz FUZZ_SECONDS=60 */
#include <stdint.h>
#include <stdlib.h>

#include "base/buf.h"
#include "wire/codec.h"
#include "wire/op.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void parse_all(const struct val *v)
{
  struct err e = {0};
  struct create_args create;
  struct exec_args exec;
  struct list_args list;
  struct target_args target;
  struct price_args price;
  struct extend_args extend;
  if (create_args_parse(v, NULL, &create, &e) == 0) {
    struct val config = create_args_config(&create);
    val_free(&config);
    create_args_free(&create);
  }
  if (exec_args_parse(v, &exec, &e) == 0) exec_args_free(&exec);
  if (list_args_parse(v, &list, &e) == 0) list_args_free(&list);
  if (target_args_parse("sandbox.status", v, &target, &e) == 0) target_args_free(&target);
  if (price_args_parse(v, &price, &e) == 0) price_args_free(&price);
  if (extend_args_parse(v, &extend, &e) == 0) extend_args_free(&extend);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
  struct val v, again;
  struct buf b = {0};
  if (codec_decode(&v, data, len, NULL) < 0) return 0;
  if (codec_encode(&b, &v, NULL) < 0) abort();
  if (codec_decode(&again, b.data, b.len, NULL) < 0 || !val_equal(&v, &again)) abort();
  parse_all(&v);
  val_free(&v);
  val_free(&again);
  buf_free(&b);
  return 0;
}

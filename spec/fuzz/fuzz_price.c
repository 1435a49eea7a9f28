/* libFuzzer harness for amounts of money as people type them: --credit, topup, --max-cost. What is
 * accepted prints, and reads back as itself.
 *
 *   make fuzz FUZZ_SECONDS=60 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "wire/price.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
  struct err err = {0};
  int64_t amount, again;
  char printed[PRICE_TEXT_SIZE];
  char *text = xmalloc(len + 1);
  memcpy(text, data, len);
  text[len] = '\0';
  if (price_parse(text, "--credit", &amount, &err) == 0) {
    if (price_parse(price_print(amount, printed), "--credit", &again, &err) < 0 || again != amount)
      abort();
  } else if (err.kind != ERR_INVALID_ARGUMENT || !strstr(err.msg, "--credit")) {
    abort();
  }
  free(text);
  return 0;
}

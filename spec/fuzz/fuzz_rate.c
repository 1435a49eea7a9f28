/* libFuzzer harness for rates as people type them: key add --rate. What is accepted prints, and
 * reads back as itself.
 *
 *   make fuzz FUZZ_SECONDS=60 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "ledger/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
  struct err err = {0};
  struct key_rate rate, again;
  char printed[32];
  char *text = xmalloc(len + 1);
  memcpy(text, data, len);
  text[len] = '\0';
  if (key_rate_parse(text, &rate, &err) == 0) {
    key_rate_print(&rate, printed);
    if (rate.count == 0 || rate.period_ms == 0 || key_rate_parse(printed, &again, &err) < 0 ||
        again.count != rate.count || again.period_ms != rate.period_ms)
      abort();
  } else if (err.kind != ERR_INVALID_ARGUMENT || !strstr(err.msg, "rate")) {
    abort();
  }
  free(text);
  return 0;
}

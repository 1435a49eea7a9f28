/* Manifests, indexes and configurations as JSON, before anything is known about them.
 *
 * Four megabytes of JSON can be two million values, which take a quarter of a gigabyte and most of
 * a second, in a process that serves others. So what could be a value is counted first; the largest
 * honest documents have some thousands. */
#include "image/document.h"

#include <errno.h>

#include "base/json.h"
#include "base/val.h"

#define VALUES_MAX 100000

int image_document_parse(struct val *ret, const char *text, size_t len, const char *what,
                         struct err *err)
{
  size_t values = 0;
  for (size_t i = 0; i < len; i++) values += text[i] == ',' || text[i] == '[' || text[i] == '{';
  if (values > VALUES_MAX)
    return err_set(err, ERR_PAYLOAD_TOO_LARGE, E2BIG, "%s is malformed: it holds too many values",
                   what);
  int rc = json_parse(ret, text, len, err);
  if (rc == 0 || !err) return rc;
  err_wrap(err, "%s is malformed", what);
  err->field[0] = '\0'; /* no argument of the user's */
  return rc;
}

/* net/http1: any bytes as a request's head, and as a body in chunks, whole and in pieces. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "net/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_head(const char *bytes, size_t size)
{
  struct http1_head head;
  struct http1_fault fault = {0};
  size_t n = http1_head_length(bytes, size, 0);
  if (n == 0 || n == SIZE_MAX) return;
  if (n > size) abort();
  if (!http1_head_parse(&head, bytes, n, &fault)) {
    if (fault.status < 400 || !fault.text) abort();
    return;
  }
  /* What is accepted has one end, and no byte that a second reader could take for another one. */
  if (head.path[0] != '/' || (head.chunked && head.content_length)) abort();
  for (size_t i = 0; i < head.fields_n; i++) {
    const char *name = head.text + head.fields[i].name, *value = head.text + head.fields[i].value;
    if (strpbrk(name, " \t\r\n:") || strpbrk(value, "\r\n")) abort();
    if (http1_head_get(&head, name) == NULL) abort();
  }
  free(http1_query_get(head.query, "tag"));
  http1_head_done(&head);
}

static int read_body(const char *bytes, size_t size, size_t step, struct buf *out)
{
  struct http1_chunks c = {0};
  struct http1_fault fault = {0};
  for (size_t at = 0; at < size && c.state != CHUNK_DONE && !fault.status;) {
    size_t n = size - at < step ? size - at : step;
    size_t used = http1_chunks_read(&c, bytes + at, n, out, 4096, &fault);
    if (used > n || out->len > 4096) abort();
    at += used;
  }
  return fault.status ? fault.status : (int)c.state;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct buf whole = {0}, pieces = {0};
  char *bytes = malloc(size ? size : 1);
  if (size) memcpy(bytes, data, size);
  read_head(bytes, size);
  int one = read_body(bytes, size, size ? size : 1, &whole);
  int many = read_body(bytes, size, 1, &pieces);
  if (one != many || whole.len != pieces.len) abort();
  if (whole.len && memcmp(whole.data, pieces.data, whole.len) != 0) abort();
  buf_free(&whole);
  buf_free(&pieces);
  free(bytes);
  return 0;
}

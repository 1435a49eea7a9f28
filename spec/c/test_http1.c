/* net/http1: what is a request and what two readers could take for two, bodies in chunks, queries.
 * valgrind: yes */
#include "test.h"

#include "base/buf.h"
#include "net/http1.h"

#define HOST "Host: a\r\n"
#define GET  "GET / HTTP/1.1\r\n" HOST

/* The status of a head's fault, 0 = it is a good one, -1 = it is not complete. */
static int status_of(const char *bytes, size_t len)
{
  struct http1_head head;
  struct http1_fault f = {0};
  size_t n = http1_head_length(bytes, len, 0);
  if (n == 0) return -1;
  if (n == SIZE_MAX) return 431;
  /* An exact copy, so that a sanitizer sees any read behind it. */
  char *copy = malloc(n);
  memcpy(copy, bytes, n);
  bool ok = http1_head_parse(&head, copy, n, &f);
  free(copy);
  if (!ok) return f.text && *f.text ? f.status : -2;
  http1_head_done(&head);
  return 0;
}

static void heads(void)
{
  static const struct {
    const char *text;
    int want;
  } rows[] = {
      {GET "\r\n", 0},
      {"GET / HTTP/1.0\r\n\r\n", 0},
      {"PATCH /a?b=c&d HTTP/1.1\r\n" HOST "\r\n", 0},
      {"GET http://a/x HTTP/1.1\r\n" HOST "\r\n", 0},
      {GET "X-Empty:\r\nX-Tab:\ta\tb \r\n\r\n", 0},
      {GET "Content-Length: 5\r\n\r\n", 0},
      {GET "Transfer-Encoding: chunked\r\n\r\n", 0},
      {GET "transfer-encoding: CHUNKED\r\n\r\n", 0},
      {GET "X: \xc3\xa9\r\n\r\n", 0},
      {GET, -1},
      {"GET / HTTP/1.1\n\n", 400},
      {"GET / HTTP/1.1\n", 400},
      {"\n", 400},
      {GET "\n", 400},
      {"GET / HTTP/1.1\r\n" HOST "\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400}, /* no Host */
      {GET HOST "\r\n", 400},          /* two */
      {GET "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
      {GET "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
      {GET "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {GET "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400},
      {GET "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {GET "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
      {GET "Transfer-Encoding: xchunked\r\n\r\n", 501},
      {GET "Transfer-Encoding: \x0b"
           "chunked\r\n\r\n",
       400},
      {GET "Transfer-Encoding : chunked\r\n\r\n", 400},
      {GET " Transfer-Encoding: chunked\r\n\r\n", 400},
      {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {GET "Content-Length: -1\r\n\r\n", 400},
      {GET "Content-Length: +1\r\n\r\n", 400},
      {GET "Content-Length: 0x10\r\n\r\n", 400},
      {GET "Content-Length: 5, 5\r\n\r\n", 400},
      {GET "Content-Length: 5 5\r\n\r\n", 400},
      {GET "Content-Length:\r\n\r\n", 400},
      {GET "Content-Length: 99999999999999999999999\r\n\r\n", 413},
      {GET "X: a\r\n b\r\n\r\n", 400}, /* folded */
      {GET "X\r\n\r\n", 400},
      {GET ": a\r\n\r\n", 400},
      {GET "X Y: a\r\n\r\n", 400},
      {GET "X: a\rb\r\n\r\n", 400},
      {GET "X: a\nY: b\r\n\r\n", 400},
      {GET "X: \x01\r\n\r\n", 400},
      {GET "X: \x7f\r\n\r\n", 400},
      {GET "Authorization: Bearer a\r\nX: b\r\nauthorization: Bearer c\r\n\r\n", 400},
      {GET "Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n", 400},
      {GET "Idempotency-Key: a\r\nIDEMPOTENCY-KEY: b\r\n\r\n", 400},
      {GET "Accept: a/b\r\nAccept: c/d\r\nAuthorization: Bearer a\r\n\r\n", 0},
      {GET "Expect: 200-maybe\r\n\r\n", 417},
      {GET "Expect: 100-Continue\r\n\r\n", 0},
      {"GET /\r\n" HOST "\r\n", 400},
      {"GET\r\n" HOST "\r\n", 400},
      {"/ HTTP/1.1\r\n" HOST "\r\n", 400},
      {"GET  / HTTP/1.1\r\n" HOST "\r\n", 400},
      {"GET / HTTP/1.1 \r\n" HOST "\r\n", 400},
      {"GET a HTTP/1.1\r\n" HOST "\r\n", 400},
      {"GET http://a HTTP/1.1\r\n" HOST "\r\n", 400},
      {"CONNECT a:80 HTTP/1.1\r\n" HOST "\r\n", 400},
      {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 400},
      {"GET /\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n", 400},
      {"GET /a#b HTTP/1.1\r\n" HOST "\r\n", 400},
      {"GET /\t HTTP/1.1\r\n" HOST "\r\n", 400},
      {"GET / HTTP/2.0\r\n" HOST "\r\n", 505},
      {"PRI * HTTP/2.0\r\n\r\n", 505},
      {"GET / HTTP/1.2\r\n" HOST "\r\n", 505},
      {"GET / FTP/1.1\r\n" HOST "\r\n", 400},
      {"G(T / HTTP/1.1\r\n" HOST "\r\n", 400},
      {"\x16\x03\x01\x02\r\n\r\n", 400}, /* TLS */
      {"\r\n\r\n", 400},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int got = status_of(rows[i].text, strlen(rows[i].text));
    if (got != rows[i].want) fprintf(stderr, "%s\n", rows[i].text);
    CHECK_INT(got, rows[i].want);
  }
  static const char nul[] = GET "X: a\0b\r\n\r\n", nul_name[] = GET "X\0: a\r\n\r\n";
  CHECK_INT(status_of(nul, sizeof nul - 1), 400);
  CHECK_INT(status_of(nul_name, sizeof nul_name - 1), 400);
}

static void bounds(void)
{
  struct buf b = {0};
  buf_puts(&b, "GET /");
  for (int i = 0; i < HTTP1_TARGET_MAX; i++) buf_putc(&b, 'a');
  buf_puts(&b, " HTTP/1.1\r\n" HOST "\r\n");
  CHECK_INT(status_of(b.data, b.len), 414);
  b.len = 0;
  buf_puts(&b, GET);
  for (int i = 0; i < HTTP1_FIELDS_MAX - 1; i++) buf_printf(&b, "X-%d: a\r\n", i);
  size_t most = b.len;
  buf_puts(&b, "\r\n");
  CHECK_INT(status_of(b.data, b.len), 0);
  b.len = most;
  buf_puts(&b, "One: more\r\n\r\n");
  CHECK_INT(status_of(b.data, b.len), 431);
  b.len = 0;
  buf_puts(&b, GET "X: ");
  while (b.len < HTTP1_HEAD_MAX - 4) buf_putc(&b, 'a');
  buf_puts(&b, "\r\n\r\n");
  CHECK_INT(status_of(b.data, b.len), 0);
  b.len -= 4;
  buf_puts(&b, "a\r\n\r\n");
  CHECK_INT(status_of(b.data, b.len), 431);
  b.len = 0;
  for (int i = 0; i < HTTP1_HEAD_MAX; i++) buf_putc(&b, 'a');
  CHECK_INT(status_of(b.data, b.len), 431);
  CHECK_INT(status_of(b.data, b.len - 1), -1);
  buf_free(&b);
}

/* The end of a head is found whatever the pieces it comes in. */
static void pieces(void)
{
  static const char text[] = "POST /p HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc";
  size_t head = strlen(text) - 3;
  for (size_t step = 1; step < sizeof text; step++) {
    size_t from = 0, found = 0;
    for (size_t len = step; len < sizeof text + step && !found; len += step) {
      size_t have = len < sizeof text - 1 ? len : sizeof text - 1;
      found = http1_head_length(text, have, from);
      from = have;
    }
    CHECK_INT(found, head);
  }
}

static void what_a_head_says(void)
{
  static const char text[] = "POST http://x.test/a%20b?q=1&r HTTP/1.1\r\nHost: x.test\r\n"
                             "X-One:  two \r\nConnection: keep-alive, Close\r\n"
                             "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
  struct http1_head h;
  struct http1_fault f;
  CHECK(http1_head_parse(&h, text, sizeof text - 1, &f));
  CHECK_STR(h.method, "POST");
  CHECK_STR(h.path, "/a%20b");
  CHECK_STR(h.query, "q=1&r");
  CHECK_STR(http1_head_get(&h, "x-one"), "two");
  CHECK(!http1_head_get(&h, "x-two"));
  CHECK(!h.keep_alive && h.chunked && h.expects);
  http1_head_done(&h);
  static const struct {
    const char *text;
    bool keep;
  } rows[] = {{GET "\r\n", true},
              {GET "Connection: close\r\n\r\n", false},
              {GET "Connection: x, close, y\r\n\r\n", false},
              {GET "Connection: closer\r\n\r\n", true},
              {"GET / HTTP/1.0\r\n\r\n", false},
              {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    CHECK(http1_head_parse(&h, rows[i].text, strlen(rows[i].text), &f));
    CHECK_INT(h.keep_alive, rows[i].keep);
    http1_head_done(&h);
  }
}

/* Feeds a body in pieces of `step`; the status of its fault, 0 = whole, -1 = more is needed. */
static int read_chunks(const char *text, size_t step, size_t max, struct buf *out, size_t *ret_used)
{
  struct http1_chunks c = {0};
  struct http1_fault f = {0};
  size_t len = strlen(text), at = 0;
  while (at < len && c.state != CHUNK_DONE && !f.status) {
    size_t n = len - at < step ? len - at : step;
    at += http1_chunks_read(&c, text + at, n, out, max, &f);
  }
  *ret_used = at;
  return f.status ? f.status : c.state == CHUNK_DONE ? 0 : -1;
}

static void chunks(void)
{
  static const struct {
    const char *text, *body;
    int want;
  } rows[] = {
      {"3\r\nabc\r\n0\r\n\r\n", "abc", 0},
      {"3\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n", "abc0123456789", 0},
      {"0\r\n\r\n", "", 0},
      {"3;a=b;c=\"d\"\r\nabc\r\n0\r\nX: y\r\nZ: z\r\n\r\n", "abc", 0},
      {"3 \r\nabc\r\n0\r\n\r\n", "abc", 0},
      {"3\r\nab", "ab", -1},
      {"3\r\nabc\r\n0\r\n", "abc", -1},
      {"\r\n", NULL, 400},
      {"3\nabc\r\n", NULL, 400},
      {"3\r\nabcd\r\n", NULL, 400},
      {"3\r\nabc\n", NULL, 400},
      {"-3\r\nabc", NULL, 400},
      {"0x3\r\nabc", NULL, 400},
      {"g\r\n", NULL, 400},
      {";\r\n", NULL, 400},
      {"3\r\r\n", NULL, 400},
      {"3;\x01\r\n", NULL, 400},
      {"ffffffffffffffff\r\n", NULL, 413},
      {"11111111111111111111\r\n", NULL, 413},
      {"65\r\n", NULL, 413},
      {"0\r\nX: \x01\r\n\r\n", NULL, 400},
      {"0\r\nX: y\n\r\n", NULL, 400},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    for (size_t step = 1; step < 40; step += 3) {
      struct buf out = {0};
      size_t used;
      int got = read_chunks(rows[i].text, step, 100, &out, &used);
      if (got != rows[i].want) fprintf(stderr, "%s\n", rows[i].text);
      CHECK_INT(got, rows[i].want);
      if (rows[i].body) CHECK_STR(out.data ? out.data : "", rows[i].body);
      buf_free(&out);
    }
  }
  /* What follows the last chunk is the next request's. */
  struct buf out = {0};
  size_t used;
  CHECK_INT(read_chunks("1\r\na\r\n0\r\n\r\nGET /", 100, 100, &out, &used), 0);
  CHECK_INT(used, strlen("1\r\na\r\n0\r\n\r\n"));
  buf_free(&out);
  /* Chunks of one byte with long extensions, and trailers without end, come to an end. */
  struct buf long_one = {0};
  for (int i = 0; i < 100; i++) buf_printf(&long_one, "1;%0500d\r\na\r\n", i);
  CHECK_INT(read_chunks(long_one.data, 4096, 1000, &out, &used), 400);
  buf_free(&out);
  long_one.len = 0;
  buf_puts(&long_one, "0\r\n");
  for (int i = 0; i < 5000; i++) buf_puts(&long_one, "a: b\r\n");
  CHECK_INT(read_chunks(long_one.data, 4096, 1000, &out, &used), 431);
  buf_free(&out);
  buf_free(&long_one);
}

static void queries(void)
{
  static const struct {
    const char *query, *name, *want;
  } rows[] = {{"a=1&b=2", "b", "2"},     {"a=1&b=2", "c", NULL}, {"", "a", NULL},
              {"a=%41+%2b", "a", "A +"}, {"a=", "a", ""},        {"aa=1&a=2", "a", "2"},
              {"a=%4", "a", NULL},       {"a=%zz", "a", NULL},   {"a=%00", "a", NULL},
              {"a", "a", NULL},          {"a=1=2", "a", "1=2"},  {"&&a=1", "a", "1"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char *got = http1_query_get(rows[i].query, rows[i].name);
    if (rows[i].want)
      CHECK_STR(got, rows[i].want);
    else
      CHECK(!got);
    free(got);
  }
}

const struct test_case test_cases[] = {
    {"heads", heads},   {"bounds", bounds},
    {"pieces", pieces}, {"what a head says", what_a_head_says},
    {"chunks", chunks}, {"queries", queries},
    {NULL, NULL},
};

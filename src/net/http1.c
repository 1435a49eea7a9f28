/* The reader of HTTP/1.1 requests.
 *
 * RFC 9112 with every leniency left out that lets a proxy in front of us and us disagree on where a
 * request ends: a line ends in CR LF, never in a bare LF; no white space before a colon; no folded
 * lines; one Host; one Content-Length of digits alone, never together with Transfer-Encoding, which
 * is "chunked" or refused. A head is first found whole, by its empty line, and then read once, so
 * that a client that sends byte by byte costs one comparison a byte. */
#include "net/http1.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"

#define CHUNK_LINE_MAX  1024
#define CHUNK_EXTRA_MAX 8192

static bool fault(struct http1_fault *f, int status, const char *text)
{
  *f = (struct http1_fault){status, text};
  return false;
}

size_t http1_head_length(const char *bytes, size_t len, size_t from)
{
  const char *p = bytes + (from > 3 ? from - 3 : 0), *end = bytes + len;
  while ((p = memchr(p, '\n', (size_t)(end - p)))) {
    size_t at = (size_t)(p - bytes);
    bool bare = at == 0 || p[-1] != '\r'; /* wrong, so that no more need come to say so */
    if (bare || (at >= 3 && memcmp(p - 3, "\r\n\r", 3) == 0))
      return at + 1 <= HTTP1_HEAD_MAX ? at + 1 : SIZE_MAX;
    p++;
  }
  return len < HTTP1_HEAD_MAX ? 0 : SIZE_MAX;
}

static bool is_token_char(unsigned char c)
{
  static const char others[] = "!#$%&'*+-.^_`|~";
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c && strchr(others, c));
}

static size_t token_length(const char *p)
{
  size_t n = 0;
  while (is_token_char((unsigned char)p[n])) n++;
  return n;
}

static bool is_version(const char *s)
{
  return strlen(s) == 8 && strncmp(s, "HTTP/", 5) == 0 && s[5] >= '0' && s[5] <= '9' &&
         s[6] == '.' && s[7] >= '0' && s[7] <= '9';
}

/* The request line, which ends in a NUL. An absolute target loses its scheme and authority. */
static bool read_request_line(struct http1_head *h, char *line, struct http1_fault *f)
{
  size_t n = token_length(line);
  if (n == 0 || line[n] != ' ')
    return fault(f, 400, "the request line does not begin with a method");
  line[n] = '\0';
  h->method = line;
  char *target = line + n + 1, *end = strchr(target, ' ');
  if (!end) return fault(f, 400, "the request line has no HTTP version");
  *end = '\0';
  if (strcmp(end + 1, "HTTP/1.1") == 0)
    h->minor = 1;
  else if (strcmp(end + 1, "HTTP/1.0") != 0)
    return is_version(end + 1) ? fault(f, 505, "only HTTP/1.1 and 1.0 are spoken here")
                               : fault(f, 400, "the request line has no HTTP version");
  if (end - target > HTTP1_TARGET_MAX) return fault(f, 414, "the request's path is too long");
  for (const char *p = target; *p; p++)
    if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f || *p == '#')
      return fault(f, 400, "the request's path has a character that must be percent-encoded");
  if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
    char *path = strchr(strchr(target, ':') + 3, '/');
    if (!path) return fault(f, 400, "the request names a host and no path");
    target = path;
  }
  if (*target != '/') return fault(f, 400, "the request's path does not begin with \"/\"");
  h->path = target;
  char *query = strchr(target, '?');
  h->query = query ? query + 1 : "";
  if (query) *query = '\0';
  return true;
}

static bool read_field(struct http1_head *h, char *line, size_t len, struct http1_fault *f)
{
  if (h->fields_n == HTTP1_FIELDS_MAX)
    return fault(f, 431, "the request has too many header fields");
  if (*line == ' ' || *line == '\t')
    return fault(f, 400, "a header field is folded over two lines");
  size_t n = token_length(line);
  if (n == 0 || line[n] != ':') return fault(f, 400, "a header field has no proper name");
  for (size_t i = 0; i < n; i++)
    if (line[i] >= 'A' && line[i] <= 'Z') line[i] = (char)(line[i] + 32);
  char *value = line + n + 1, *end = line + len;
  for (const char *p = value; p < end; p++)
    if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f)
      return fault(f, 400, "a header field has a control character in its value");
  line[n] = '\0';
  while (*value == ' ' || *value == '\t') value++;
  while (end > value && (end[-1] == ' ' || end[-1] == '\t')) *--end = '\0';
  h->fields[h->fields_n++] =
      (struct http1_field){(uint16_t)(line - h->text), (uint16_t)(value - h->text)};
  return true;
}

/* Cuts the head into lines, each of which ends in CR LF. */
static bool read_lines(struct http1_head *h, size_t len, struct http1_fault *f)
{
  static const char no_line[] = "a line of the request does not end in CR LF";
  if (len < 4 || memcmp(h->text + len - 4, "\r\n\r\n", 4) != 0) return fault(f, 400, no_line);
  char *p = h->text, *end = h->text + len - 2; /* of the last line that is not empty */
  for (bool first = true; p < end; first = false) {
    char *eol = memchr(p, '\r', (size_t)(end - p));
    if (!eol || eol[1] != '\n' || memchr(p, '\n', (size_t)(eol - p))) return fault(f, 400, no_line);
    *eol = '\0';
    if (strlen(p) != (size_t)(eol - p)) return fault(f, 400, "the request has a NUL byte");
    if (first ? !read_request_line(h, p, f) : !read_field(h, p, (size_t)(eol - p), f)) return false;
    p = eol + 2;
  }
  return h->path ? true : fault(f, 400, "the request has no request line");
}

static bool read_length(struct http1_head *h, const char *text, struct http1_fault *f)
{
  size_t digits = strspn(text, "0123456789");
  if (digits == 0 || text[digits]) return fault(f, 400, "Content-Length is not a number of bytes");
  if (digits > 15) return fault(f, 413, "the request's body is too large");
  h->content_length = strtoull(text, NULL, 10);
  return true;
}

static void read_connection(struct http1_head *h, const char *text)
{
  while (*text) {
    size_t n = strcspn(text, ", \t");
    if (n == 5 && strncasecmp(text, "close", 5) == 0) h->keep_alive = false;
    if (n == 10 && strncasecmp(text, "keep-alive", 10) == 0 && h->minor == 0) h->keep_alive = true;
    text += n + strspn(text + n, ", \t");
  }
}

/* The fields that say where the request ends. */
static bool read_framing(struct http1_head *h, struct http1_fault *f)
{
  size_t hosts = 0, lengths = 0, codings = 0;
  bool closes = false;
  h->keep_alive = h->minor == 1;
  for (size_t i = 0; i < h->fields_n; i++) {
    const char *name = h->text + h->fields[i].name, *value = h->text + h->fields[i].value;
    if (strcmp(name, "host") == 0) {
      hosts++;
    } else if (strcmp(name, "content-length") == 0) {
      lengths++;
      if (!read_length(h, value, f)) return false;
    } else if (strcmp(name, "transfer-encoding") == 0) {
      codings++;
      h->chunked = strcasecmp(value, "chunked") == 0;
      if (!h->chunked) return fault(f, 501, "the only Transfer-Encoding taken is \"chunked\"");
    } else if (strcmp(name, "connection") == 0) {
      read_connection(h, value);
      closes = closes || !h->keep_alive;
    } else if (strcmp(name, "expect") == 0) {
      h->expects = strcasecmp(value, "100-continue") == 0;
      if (!h->expects) return fault(f, 417, "the only Expect taken is \"100-continue\"");
    }
  }
  if (closes && h->minor == 1) h->keep_alive = false;
  if (hosts > 1 || (hosts == 0 && h->minor == 1))
    return fault(f, 400, "a request has exactly one Host");
  if (lengths > 1) return fault(f, 400, "the request has more than one Content-Length");
  if (codings > 1) return fault(f, 400, "the request has more than one Transfer-Encoding");
  if (codings > 0 && lengths > 0)
    return fault(f, 400, "the request has both Content-Length and Transfer-Encoding");
  if (codings > 0 && h->minor == 0) return fault(f, 400, "HTTP/1.0 has no Transfer-Encoding");
  return true;
}

/* Fields that have one value (RFC 9110, 5.3): which of two would count, readers do not agree on. */
static bool check_single(const struct http1_head *h, struct http1_fault *f)
{
  static const struct {
    const char *name, *fault;
  } single[] = {{"authorization", "the request has more than one Authorization"},
                {"content-type", "the request has more than one Content-Type"},
                {"idempotency-key", "the request has more than one Idempotency-Key"}};
  for (size_t s = 0; s < sizeof single / sizeof *single; s++) {
    size_t n = 0;
    for (size_t i = 0; i < h->fields_n; i++)
      n += strcmp(h->text + h->fields[i].name, single[s].name) == 0;
    if (n > 1) return fault(f, 400, single[s].fault);
  }
  return true;
}

bool http1_head_parse(struct http1_head *ret, const char *bytes, size_t len,
                      struct http1_fault *ret_fault)
{
  ret->path = NULL;
  ret->minor = 0;
  ret->fields_n = 0;
  ret->chunked = ret->expects = false;
  ret->content_length = 0;
  ret->text = xmalloc(len + 1);
  memcpy(ret->text, bytes, len);
  ret->text[len] = '\0';
  if (read_lines(ret, len, ret_fault) && read_framing(ret, ret_fault) &&
      check_single(ret, ret_fault))
    return true;
  http1_head_done(ret);
  return false;
}

void http1_head_done(struct http1_head *head)
{
  free(head->text);
  head->text = NULL;
}

const char *http1_head_get(const struct http1_head *head, const char *name)
{
  for (size_t i = 0; i < head->fields_n; i++)
    if (strcmp(head->text + head->fields[i].name, name) == 0)
      return head->text + head->fields[i].value;
  return NULL;
}

static int hex_digit(unsigned char c)
{
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *http1_decode(const char *text, size_t len, bool form)
{
  char *out = xmalloc(len + 1);
  size_t n = 0;
  for (size_t i = 0; i < len; i++) {
    int c = (unsigned char)text[i];
    if (c == '%') {
      int a = i + 1 < len ? hex_digit((unsigned char)text[i + 1]) : -1;
      int b = i + 2 < len ? hex_digit((unsigned char)text[i + 2]) : -1;
      c = a < 0 || b < 0 ? 0 : a * 16 + b;
      i += 2;
    } else if (c == '+' && form) {
      c = ' ';
    }
    if (c == 0) {
      free(out);
      return NULL;
    }
    out[n++] = (char)c;
  }
  out[n] = '\0';
  return out;
}

char *http1_query_get(const char *query, const char *name)
{
  size_t name_len = strlen(name);
  while (*query) {
    size_t n = strcspn(query, "&");
    if (n > name_len && strncmp(query, name, name_len) == 0 && query[name_len] == '=')
      return http1_decode(query + name_len + 1, n - name_len - 1, true);
    query += n + (query[n] == '&');
  }
  return NULL;
}

/* ---- chunks ---- */

/* One byte of the line with a chunk's size. */
static bool size_byte(struct http1_chunks *c, unsigned char b, struct http1_fault *f)
{
  if (++c->line > CHUNK_LINE_MAX) return fault(f, 400, "the line of a chunk's size is too long");
  if (c->cr) {
    if (b != '\n' || !c->digits) return fault(f, 400, "a chunk's size is malformed");
    c->state = c->left ? CHUNK_DATA : CHUNK_TRAILER;
    c->line = 0;
    c->digits = c->extension = c->cr = false;
    return true;
  }
  if (b == '\r') {
    c->cr = true;
    return true;
  }
  if (c->extension) {
    if ((b < 0x20 && b != '\t') || b == 0x7f) return fault(f, 400, "a chunk's size is malformed");
    if (++c->extra > CHUNK_EXTRA_MAX) return fault(f, 400, "the chunks have too many extensions");
    return true;
  }
  int digit = hex_digit(b);
  if (digit >= 0) {
    if (c->left >> 56) return fault(f, 413, "the request's body is too large");
    c->left = c->left * 16 + (unsigned)digit;
    c->digits = true;
    return true;
  }
  if (!c->digits || (b != ';' && b != ' ' && b != '\t'))
    return fault(f, 400, "a chunk's size is malformed");
  c->extension = true;
  return true;
}

static bool end_byte(struct http1_chunks *c, unsigned char b, struct http1_fault *f)
{
  if (b != (c->cr ? '\n' : '\r')) return fault(f, 400, "a chunk is longer than its size says");
  if (c->cr) c->state = CHUNK_SIZE;
  c->cr = !c->cr;
  return true;
}

/* Trailers are read over: nothing here asks for them. */
static bool trailer_byte(struct http1_chunks *c, unsigned char b, struct http1_fault *f)
{
  if (++c->extra > CHUNK_EXTRA_MAX) return fault(f, 431, "the request's trailer is too long");
  if (c->cr) {
    if (b != '\n') return fault(f, 400, "the request's trailer is malformed");
    if (c->line == 0) c->state = CHUNK_DONE;
    c->line = 0;
    c->cr = false;
  } else if (b == '\r') {
    c->cr = true;
  } else if ((b < 0x20 && b != '\t') || b == 0x7f) {
    return fault(f, 400, "the request's trailer is malformed");
  } else {
    c->line++;
  }
  return true;
}

size_t http1_chunks_read(struct http1_chunks *c, const char *bytes, size_t len, struct buf *out,
                         size_t max, struct http1_fault *ret_fault)
{
  size_t at = 0;
  bool ok = true;
  while (ok && at < len && c->state != CHUNK_DONE) {
    unsigned char b = (unsigned char)bytes[at];
    switch (c->state) {
    case CHUNK_SIZE:
      ok = size_byte(c, b, ret_fault);
      if (ok && c->state == CHUNK_DATA && c->left > max - out->len)
        ok = fault(ret_fault, 413, "the request's body is too large");
      break;
    case CHUNK_END: ok = end_byte(c, b, ret_fault); break;
    case CHUNK_TRAILER: ok = trailer_byte(c, b, ret_fault); break;
    case CHUNK_DATA: {
      size_t n = len - at < c->left ? len - at : (size_t)c->left;
      buf_append(out, bytes + at, n);
      c->left -= n;
      at += n;
      if (c->left == 0) c->state = CHUNK_END;
      continue;
    }
    case CHUNK_DONE: break;
    }
    at++;
  }
  return at;
}

const char *http1_reason(int status)
{
  static const struct {
    int status;
    const char *reason;
  } reasons[] = {{200, "OK"},
                 {201, "Created"},
                 {204, "No Content"},
                 {304, "Not Modified"},
                 {400, "Bad Request"},
                 {401, "Unauthorized"},
                 {402, "Payment Required"},
                 {403, "Forbidden"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {406, "Not Acceptable"},
                 {408, "Request Timeout"},
                 {409, "Conflict"},
                 {410, "Gone"},
                 {413, "Content Too Large"},
                 {414, "URI Too Long"},
                 {415, "Unsupported Media Type"},
                 {417, "Expectation Failed"},
                 {422, "Unprocessable Content"},
                 {429, "Too Many Requests"},
                 {431, "Request Header Fields Too Large"},
                 {500, "Internal Server Error"},
                 {501, "Not Implemented"},
                 {503, "Service Unavailable"},
                 {505, "HTTP Version Not Supported"}};
  for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
    if (reasons[i].status == status) return reasons[i].reason;
  return "Unknown";
}

/* The events of a run, kept for --report.
 *
 * Owns their JSON text, separated by commas. What scripts print is not kept; a run of more than
 * MAX_BYTES of events keeps the first ones and says so in the last. The page is web/report.html
 * with the events put in place of its mark, so it needs nothing but a browser. */
#include "host/record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/embedded.h"
#include "base/err.h"
#include "base/id.h"
#include "base/json.h"
#include "base/val.h"
#include "host/events.h"

enum { MAX_BYTES = 256 << 20 };

struct record {
  struct events *events; /* owned */
  struct buf text;       /* JSON objects, ",\n" between them */
  size_t dropped;
};

static void keep(void *data, const struct val *event)
{
  struct record *r = data;
  if (r->text.len > MAX_BYTES) {
    r->dropped++;
    return;
  }
  if (r->text.len > 0) buf_puts(&r->text, ",\n");
  json_print(&r->text, event);
}

struct record *record_new(const char *const *names, size_t names_n)
{
  struct record *r = xcalloc(1, sizeof *r);
  r->events = events_new(&(struct events_conf){names, names_n, false, keep, r});
  return r;
}

struct events *record_events(struct record *r)
{
  return r->events;
}

void record_free(struct record *r)
{
  if (!r) return;
  events_free(r->events);
  buf_free(&r->text);
  free(r);
}

static void put_events(struct buf *out, const struct record *r)
{
  buf_putc(out, '[');
  buf_append(out, r->text.data, r->text.len);
  if (r->dropped) buf_printf(out, ",\n{\"event\":\"events_dropped\",\"count\":%zu}", r->dropped);
  buf_puts(out, "]");
}

/* Inside a page no text may end the script element that carries it. */
static void put_escaped(struct buf *out, const struct buf *json)
{
  for (size_t i = 0; i < json->len; i++) {
    if (json->data[i] == '<')
      buf_puts(out, "\\u003c");
    else
      buf_putc(out, json->data[i]);
  }
}

static void put_page(struct buf *out, const struct record *r)
{
  static const char mark[] = "@EVENTS@";
  const struct embedded_file *page = embedded_files;
  while (strcmp(page->name, "report.html") != 0) page++;
  const char *at = strstr(page->data, mark);
  struct buf json = {0};
  put_events(&json, r);
  buf_append(out, page->data, (size_t)(at - page->data));
  put_escaped(out, &json);
  buf_puts(out, at + sizeof mark - 1);
  buf_free(&json);
}

static bool is_page(const char *path)
{
  const char *dot = strrchr(path, '.');
  return dot && (strcmp(dot, ".html") == 0 || strcmp(dot, ".htm") == 0);
}

static bool write_whole(int fd, const struct buf *b)
{
  for (size_t at = 0; at < b->len;) {
    ssize_t n = write(fd, b->data + at, b->len - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    at += (size_t)n;
  }
  return true;
}

/* A whole file or none: written beside it, then renamed. */
static bool replace_file(const char *path, const struct buf *b)
{
  char suffix[9];
  id_random(suffix, sizeof suffix - 1);
  struct buf temporary = {0};
  buf_printf(&temporary, "%s.%s", path, suffix);
  cleanup_close int fd = open(temporary.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  bool fine = fd >= 0 && write_whole(fd, b) && rename(temporary.data, path) == 0;
  int why = errno;
  if (!fine && fd >= 0) unlink(temporary.data);
  buf_free(&temporary);
  errno = why;
  return fine;
}

/* A device, a pipe or a link is never replaced. A pipe that nobody reads is an error, not a wait.
 */
static bool write_into(const char *path, const struct buf *b)
{
  cleanup_close int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) return false;
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 && write_whole(fd, b);
}

static int write_file(const char *path, const struct buf *b, struct err *err)
{
  struct stat st;
  bool plain = lstat(path, &st) < 0 || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode);
  if (plain ? replace_file(path, b) : write_into(path, b)) return 0;
  return err_set(err, ERR_INTERNAL, errno, "cannot write the report to %s: %s", path,
                 strerror(errno));
}

int record_write(const struct record *r, const char *path, struct err *err)
{
  struct buf out = {0};
  if (is_page(path)) {
    put_page(&out, r);
  } else {
    buf_puts(&out, "{\"events\":");
    put_events(&out, r);
    buf_puts(&out, "}\n");
  }
  int rc = write_file(path, &out, err);
  buf_free(&out);
  return rc;
}

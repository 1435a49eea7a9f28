/* The list of a layer's entries: a text file, one line each, written while unpacking and read to
 * verify. Names are percent-encoded where a byte is a space, a control or "%", so that every line
 * has the same fields; an empty field is "." (a real name "." cannot occur). */
#include "image/list.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "image/store.h"

#define FLUSH_AT 65536

struct list_writer {
  int fd; /* the caller's */
  off_t at;
  struct buf out;
};

struct list_writer *list_writer_new(int fd)
{
  struct list_writer *w = xcalloc(1, sizeof *w);
  w->fd = fd;
  w->at = IMAGE_LIST_HEAD;
  return w;
}

void list_writer_free(struct list_writer *w)
{
  if (!w) return;
  buf_free(&w->out);
  free(w);
}

int list_flush(struct list_writer *w, struct err *err)
{
  size_t done = 0;
  while (done < w->out.len) {
    ssize_t n = pwrite(w->fd, w->out.data + done, w->out.len - done, w->at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot write the list of the layer: %s",
                     strerror(errno));
    done += (size_t)n;
    w->at += n;
  }
  w->out.len = 0;
  return 0;
}

static void put_name(struct buf *out, const char *name)
{
  if (!name || !*name) {
    buf_putc(out, '.');
    return;
  }
  for (const unsigned char *p = (const unsigned char *)name; *p; p++)
    if (*p <= ' ' || *p == '%' || *p == 0x7F)
      buf_printf(out, "%%%02X", *p);
    else
      buf_putc(out, (char)*p);
}

int list_write(struct list_writer *w, const struct list_line *line, struct err *err)
{
  buf_printf(&w->out, "%c %o %u %u %" PRIu64 " %lld.%09ld %s ", line->type, line->mode, line->uid,
             line->gid, line->size, (long long)line->mtime.tv_sec, line->mtime.tv_nsec,
             line->digest[0] ? line->digest : ".");
  put_name(&w->out, line->path);
  buf_putc(&w->out, ' ');
  put_name(&w->out, line->link);
  buf_putc(&w->out, '\n');
  return w->out.len >= FLUSH_AT ? list_flush(w, err) : 0;
}

static void decode(char *name)
{
  if (strcmp(name, ".") == 0) *name = '\0';
  char *to = name;
  for (const char *p = name; *p; p++) {
    unsigned byte;
    if (*p == '%' && sscanf(p + 1, "%2X", &byte) == 1) {
      *to++ = (char)byte;
      p += 2;
    } else {
      *to++ = *p;
    }
  }
  *to = '\0';
}

static int parse(char *text, struct list_line *line)
{
  long long sec;
  int path = 0, link = 0;
  char digest[IMAGE_DIGEST_SIZE];
  *line = (struct list_line){0};
  int n =
      sscanf(text, "%c %o %u %u %" SCNu64 " %lld.%ld %71s %n%*s %n", &line->type, &line->mode,
             &line->uid, &line->gid, &line->size, &sec, &line->mtime.tv_nsec, digest, &path, &link);
  if (n != 8 || path == 0 || link == 0) return -EINVAL;
  line->mtime.tv_sec = sec;
  if (strcmp(digest, ".") != 0) memcpy(line->digest, digest, sizeof digest);
  text[link - 1] = '\0';
  text[strcspn(text + link, "\n") + (size_t)link] = '\0';
  decode(text + path);
  decode(text + link);
  line->path = text + path;
  line->link = text + link;
  return 0;
}

int list_read(int fd, int (*fn)(void *data, const struct list_line *line, struct err *err),
              void *data, struct err *err)
{
  int own = dup(fd);
  FILE *f = own < 0 ? NULL : fdopen(own, "re");
  if (!f) {
    if (own >= 0) close(own);
    return err_set(err, ERR_INTERNAL, errno, "cannot read the list of a layer");
  }
  int rc = fseeko(f, IMAGE_LIST_HEAD, SEEK_SET) < 0 ? -errno : 0;
  char *text = NULL;
  size_t cap = 0;
  while (rc == 0 && getline(&text, &cap, f) > 0) {
    struct list_line line;
    if (parse(text, &line) < 0)
      rc = err_set(err, ERR_INTERNAL, EINVAL, "the list of a layer is damaged");
    else
      rc = fn(data, &line, err);
  }
  free(text);
  fclose(f);
  return rc;
}

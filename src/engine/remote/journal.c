/* What is made on the server is noted before it is asked for, so that the next start can end what a
 * kill of this process left there.
 *
 * A folder for each process, below the state folder, locked for as long as the process lives; in it
 * a file for each sandbox, named by the Idempotency-Key of its create:
 *
 *   server URL     of the engine, whoever's configuration named it
 *   until SECONDS  of the wall clock: it has ended by itself
 *   asked SECONDS  …: the create was asked for
 *   id ID          added when the create was answered
 *
 * The file goes when the sandbox is gone, or was detached. It withstands the death of the process,
 * not of the machine: nothing is synced. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/dirs.h"
#include "base/id.h"
#include "base/log.h"
#include "engine/remote/remote_internal.h"

enum { SPARE_S = 60, TRIES = 3, NAME_SIZE = 13 };

/* A folder that is new may be taken for one that was left, until it is locked: then it is gone, and
 * another is made. */
static int make_own(const char *path)
{
  struct stat st;
  if (mkdir(path, 0700) < 0) return -1;
  cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0 || st.st_nlink == 0)
    return -1;
  return take_fd(&fd);
}

static int open_own(struct remote *e)
{
  dirs_make_parents(e->state, 0755);
  mkdir(e->state, 0700);
  for (int i = 0; i < TRIES && e->journal < 0; i++) {
    char name[NAME_SIZE];
    struct buf path = {0};
    id_random(name, sizeof name - 1);
    buf_printf(&path, "%s/%s", e->state, name);
    e->journal = make_own(path.data);
    if (e->journal >= 0)
      e->journal_path = buf_take(&path, NULL);
    else
      buf_free(&path);
  }
  return e->journal;
}

static int append(int folder, const char *key, int flags, const struct buf *line)
{
  cleanup_close int fd = openat(folder, key, O_WRONLY | O_APPEND | O_CLOEXEC | flags, 0600);
  if (fd < 0) return -1;
  ssize_t n = write(fd, line->data, line->len);
  if (n >= 0 && (size_t)n < line->len) errno = ENOSPC;
  return n == (ssize_t)line->len ? 0 : -1;
}

/* Said once: what cannot be noted is made all the same, and has its time-out. */
static void complain(struct remote *e)
{
  if (!e->journal_failed)
    log_warn("engine \"%s\": cannot note in %s what is made there: %s; a kill of this process "
             "leaves it to its time-out",
             e->base.name, e->state, strerror(errno));
  e->journal_failed = true;
}

void remote_journal_begin(struct remote *e, const char *key, unsigned timeout_s)
{
  int64_t now = clock_wall_s();
  if (!e->state) return;
  struct buf lines = {0};
  buf_printf(&lines, "server %s\nuntil %lld\nasked %lld\n", e->base_url,
             (long long)now + timeout_s + SPARE_S, (long long)now);
  if ((e->journal < 0 && open_own(e) < 0) || append(e->journal, key, O_CREAT | O_EXCL, &lines) < 0)
    complain(e);
  buf_free(&lines);
}

void remote_journal_made(struct remote *e, const char *key, const char *id)
{
  if (e->journal < 0) return;
  struct buf line = {0};
  buf_printf(&line, "id %s\n", id);
  if (append(e->journal, key, 0, &line) < 0 && errno != ENOENT) complain(e);
  buf_free(&line);
}

void remote_journal_over(struct remote *e, const char *key)
{
  if (e->journal >= 0) unlinkat(e->journal, key, 0);
}

/* What is still in it stays for the next start. */
void remote_journal_close(struct remote *e)
{
  if (e->journal < 0) return;
  rmdir(e->journal_path);
  close(e->journal);
  free(e->journal_path);
}

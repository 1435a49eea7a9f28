/* What earlier processes left on the server is ended at the start of the next one.
 *
 * The folders of journal.c whose processes are gone can be locked; what stands in them about this
 * server is asked to end. A create that was never answered is looked for by the tag it carried; one
 * that is not found once it can no longer be under way was not made. What could not be ended stays
 * where it is for the next start, until its own time-out has passed. Its entry is the last to go,
 * so that another death in between loses nothing.
 *
 * waiting → (sought) → ending → gone */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/remote/remote_internal.h"

enum {
  AT_ONCE = 16,
  END_MS = 5000,   /* a run that is over waits no longer for it */
  SETTLED_S = 660, /* after it was asked for, a create is done or was never begun */
  ENTRY_MAX = 8192
};

struct left_folder {
  struct list node; /* remote.left_folders */
  char *path;       /* owned */
  int fd;           /* owned, locked */
};

struct orphan {
  struct list node; /* remote.orphans, until it is asked about */
  struct remote *e;
  int folder; /* where its entry is; not owned */
  char key[REMOTE_KEY_SIZE];
  char id[REMOTE_ID_SIZE]; /* empty: its create was not answered */
  int64_t until_s, asked_s;
};

static void next(struct remote *e);

/* ---- asking ---- */

static void report(struct remote *e)
{
  if (e->orphans_ended > 0)
    log_warn("engine \"%s\": %u sandbox%s that an earlier regolith had left there %s ended",
             e->base.name, e->orphans_ended, e->orphans_ended == 1 ? "" : "es",
             e->orphans_ended == 1 ? "was" : "were");
  if (e->orphans_kept > 0)
    log_warn("engine \"%s\": %u sandbox%s that an earlier regolith had left there could not be "
             "ended; the next start asks again",
             e->base.name, e->orphans_kept, e->orphans_kept == 1 ? "" : "es");
  e->orphans_ended = e->orphans_kept = 0;
}

static void orphan_done(struct orphan *o, bool over)
{
  struct remote *e = o->e;
  if (over) unlinkat(o->folder, o->key, 0);
  free(o);
  e->orphans_asked--;
  next(e);
  if (e->orphans_asked == 0) report(e);
}

static void on_ended(struct remote_call *c, const struct err *err, int status,
                     const struct val *answer)
{
  struct orphan *o = c->conf.data;
  bool over = !err || status == 404 || status == 408 || status == 410;
  (void)answer;
  if (!over) log_warn("sandbox %s: %s", o->id, err->msg);
  if (!over) o->e->orphans_kept++;
  if (!err) o->e->orphans_ended++;
  orphan_done(o, over);
}

static int end(struct orphan *o)
{
  struct remote_call *c;
  struct remote_call_conf conf = {.op = "terminate",
                                  .again = REMOTE_SAFE,
                                  .total_ms = END_MS,
                                  .lingers = true,
                                  .on_done = on_ended,
                                  .data = o};
  return remote_call_about(o->e, o->id, conf, &c, NULL);
}

static void on_found(struct remote_call *c, const struct err *err, int status,
                     const struct val *answer)
{
  struct orphan *o = c->conf.data;
  const struct val *list = val_get(answer, "sandboxes");
  bool listed = !err && list && list->type == VAL_LIST;
  (void)status;
  if (listed && list->list.n > 0) {
    const char *id = val_get_str(&list->list.v[0], "sandbox_id", "");
    if (strlen(id) < sizeof o->id) strcpy(o->id, id);
    if (o->id[0] && end(o) == 0) return;
  }
  orphan_done(o, listed && list->list.n == 0 && clock_wall_s() > o->asked_s + SETTLED_S);
}

/* Servers of another kind have no lists to look in. */
static int seek(struct orphan *o)
{
  cleanup_free char *list = remote_list_url(o->e);
  if (!list) return -ENOTSUP;
  struct remote_call *c;
  struct buf url = {0};
  buf_printf(&url, "%s?tag=%s=%s", list, REMOTE_TAG, o->key);
  int rc = remote_call_start(o->e,
                             &(struct remote_call_conf){.op = url.data,
                                                        .again = REMOTE_SAFE,
                                                        .total_ms = END_MS,
                                                        .lingers = true,
                                                        .on_done = on_found,
                                                        .data = o},
                             &c, NULL);
  buf_free(&url);
  return rc;
}

/* An engine that closes has END_MS for them; what was not begun by then is left for the next start.
 */
static void next(struct remote *e)
{
  bool late = e->on_closed && loop_now_ms(e->loop) > e->closing_ms + END_MS;
  while (!late && e->orphans_asked < AT_ONCE && !list_empty(&e->orphans)) {
    struct orphan *o = list_entry(e->orphans.next, struct orphan, node);
    list_remove(&o->node);
    e->orphans_asked++;
    if ((o->id[0] ? end(o) : seek(o)) == 0) continue;
    e->orphans_asked--;
    free(o);
  }
}

void remote_orphans_add(struct remote *e, const char *key)
{
  if (e->journal < 0) return;
  struct orphan *o = xcalloc(1, sizeof *o);
  *o = (struct orphan){.e = e, .folder = e->journal, .asked_s = clock_wall_s()};
  snprintf(o->key, sizeof o->key, "%s", key);
  list_init(&o->node);
  list_append(&e->orphans, &o->node);
  next(e);
}

/* ---- reading what was left ---- */

static bool parse(char *text, const char *server, struct orphan *o)
{
  bool ours = false;
  char *rest = text;
  for (char *line = strsep(&rest, "\n"); line && rest; line = strsep(&rest, "\n")) {
    char *value = strchr(line, ' ');
    if (!value) return false;
    *value++ = '\0';
    if (strcmp(line, "server") == 0) ours = strcmp(value, server) == 0;
    if (strcmp(line, "until") == 0) o->until_s = strtoll(value, NULL, 10);
    if (strcmp(line, "asked") == 0) o->asked_s = strtoll(value, NULL, 10);
    if (strcmp(line, "id") == 0 && strlen(value) < sizeof o->id) strcpy(o->id, value);
  }
  return ours;
}

/* Whether the entry is about this server; what has outlived itself, or cannot be read, goes. */
static bool read_entry(int folder, const char *key, const char *server, struct orphan *ret)
{
  char text[ENTRY_MAX];
  cleanup_close int fd = openat(folder, key, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  ssize_t n = read(fd, text, sizeof text - 1);
  *ret = (struct orphan){.folder = folder};
  text[n > 0 ? n : 0] = '\0';
  snprintf(ret->key, sizeof ret->key, "%s", key);
  bool ours = parse(text, server, ret);
  if (clock_wall_s() <= ret->until_s) return ours;
  unlinkat(folder, key, 0);
  return false;
}

static unsigned take_entries(struct remote *e, int folder)
{
  unsigned n = 0;
  int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    if (fd >= 0) close(fd);
    return 0;
  }
  for (struct dirent *d = readdir(dir); d; d = readdir(dir)) {
    struct orphan found;
    if (d->d_name[0] == '.' || strlen(d->d_name) >= sizeof found.key) continue;
    if (!read_entry(folder, d->d_name, e->base_url, &found)) continue;
    struct orphan *o = xmemdup(&found, sizeof found);
    o->e = e;
    list_init(&o->node);
    list_append(&e->orphans, &o->node);
    n++;
  }
  closedir(dir);
  return n;
}

static void left_folder_free(struct left_folder *f)
{
  list_remove(&f->node);
  rmdir(f->path); /* unless something is in it */
  close(f->fd);
  free(f->path);
  free(f);
}

/* One that is of another server is let go at once, for that one's engine to take. */
static void take_folder(struct remote *e, const char *name)
{
  struct buf path = {0};
  buf_printf(&path, "%s/%s", e->state, name);
  cleanup_close int fd = open(path.data, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
    buf_free(&path);
    return;
  }
  struct left_folder *f = xcalloc(1, sizeof *f);
  *f = (struct left_folder){.path = buf_take(&path, NULL), .fd = take_fd(&fd)};
  list_init(&f->node);
  list_append(&e->left_folders, &f->node);
  if (take_entries(e, f->fd) == 0) left_folder_free(f);
}

void remote_orphans_start(struct remote *e)
{
  DIR *dir = e->state ? opendir(e->state) : NULL;
  if (!dir) return;
  for (struct dirent *d = readdir(dir); d; d = readdir(dir))
    if (d->d_name[0] != '.') take_folder(e, d->d_name);
  closedir(dir);
  next(e);
}

void remote_orphans_free(struct remote *e)
{
  LIST_FOREACH_SAFE (it, &e->orphans) {
    list_remove(it);
    free(list_entry(it, struct orphan, node));
  }
  LIST_FOREACH_SAFE (it, &e->left_folders)
    left_folder_free(list_entry(it, struct left_folder, node));
}

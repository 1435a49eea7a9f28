/* What boxes changed: told, or made an image of.
 *
 * A box's upper folder is a hostile tree of any size, so reading it is a job: a process of its own,
 * this program run anew (cmd_image_upper.c), which gets the folder as a descriptor and says its
 * findings on a pipe. It goes on when the box ends: the folder lives as long as it is open. For
 * ordinary users it also enters the user namespace that the files belong to.
 *
 * An image without a name would be removed by the next collection: it is kept by a lease of ours
 * until somebody drops it, and then until the last box made of it is gone, when it is removed.
 *
 * job: running → all said → reaped → told, gone */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/val.h"
#include "engine/local/local_internal.h"

#define OUTPUT_MAX (1024 * 1024) /* between two changes */
#define READS_MAX  16            /* in one turn of the loop */

extern char **environ;

struct job {
  struct list node; /* local.jobs */
  struct local *engine;
  struct changes_op *op; /* NULL: nobody waits */
  bool diff;
  bool cancelled;
  pid_t pid;
  int fd; /* the read end of its stdout */
  struct watch watch;
  struct buf output;  /* what is not told yet */
  struct err failure; /* of a diff, as it says */
};

struct kept {
  struct list node; /* local.kept */
  struct image_use *use;
  bool dropped; /* nobody needs it any more but boxes */
};

/* --- images without a name -------------------------------------------------------------------- */

static int start_job(struct local *e, struct changes_op *op, bool diff, int upper, char **argv,
                     struct err *err);

static void remove_kept(struct local *e, struct kept *k)
{
  char digest[80];
  char words[][8] = {"regolith", "image", "rm"};
  snprintf(digest, sizeof digest, "%s", k->use->record.digest);
  char *argv[] = {words[0], words[1], words[2], digest, NULL};
  image_use_drop(k->use);
  list_remove(&k->node);
  free(k);
  start_job(e, NULL, false, -1, argv, NULL); /* what stays is for the next collection */
}

void kept_check(struct local *e)
{
  LIST_FOREACH_SAFE (it, &e->kept) {
    struct kept *k = list_entry(it, struct kept, node);
    if (k->dropped && !image_use_shared(k->use)) remove_kept(e, k);
  }
}

void kept_drop(struct local *e, const char *image)
{
  LIST_FOREACH (it, &e->kept) {
    struct kept *k = list_entry(it, struct kept, node);
    if (strcmp(k->use->record.digest, image) == 0) k->dropped = true;
  }
  kept_check(e);
}

void jobs_close(struct local *e)
{
  LIST_FOREACH (it, &e->kept) list_entry(it, struct kept, node)->dropped = true;
  kept_check(e);
  LIST_FOREACH (it, &e->jobs) {
    struct job *j = list_entry(it, struct job, node);
    if (j->op) changes_cancel(j->op);
  }
}

static int keep(struct local *e, const char *image, struct err *err)
{
  struct image_use *use = image_resolver_take(e->images, image, err);
  if (!use) return -ENOENT;
  struct kept *k = xcalloc(1, sizeof *k);
  k->use = use;
  list_append(&e->kept, &k->node);
  return 0;
}

/* --- what a job says -------------------------------------------------------------------------- */

static void read_failure(const struct val *v, struct err *err)
{
  const struct val *e = val_get(v, "error");
  if (!e) return;
  err_set(err, err_kind_from_code(val_get_str(e, "code", "")), 0, "%s",
          val_get_str(e, "message", "no reason given"));
  err_hint(err, "%s", val_get_str(e, "hint", ""));
}

/* One change: kind, type, path. "E-" and JSON is an error. */
static void tell_change(struct job *j, const char *text)
{
  struct val v = {0};
  struct err ignored;
  if (text[0] == 'E') {
    if (json_parse(&v, text + 2, strlen(text + 2), &ignored) == 0) read_failure(&v, &j->failure);
    val_free(&v);
    return;
  }
  const char *kind = text[0] == 'A' ? "added" : text[0] == 'M' ? "modified" : "deleted";
  if (j->op && !j->cancelled && text[1]) j->op->on_change(j->op, kind, text[1], text + 2);
}

static void tell_changes(struct job *j)
{
  size_t at = 0;
  for (const char *end;
       j->output.len > at && (end = memchr(j->output.data + at, 0, j->output.len - at));) {
    tell_change(j, j->output.data + at);
    at = (size_t)(end - j->output.data) + 1;
  }
  if (at == 0) return;
  memmove(j->output.data, j->output.data + at, j->output.len - at);
  j->output.len -= at;
}

/* The result of a snapshot. */
static int take_image(struct job *j, struct err *err)
{
  struct val v = {0};
  struct err ignored;
  if (j->output.len > 0) json_parse(&v, j->output.data, j->output.len, &ignored);
  const char *digest = v.type == VAL_MAP ? val_get_str(&v, "digest", "") : "";
  int rc = 0;
  if (image_digest_valid(digest)) {
    snprintf(j->op->ret_image, sizeof j->op->ret_image, "%s", digest);
    if (!j->op->name) rc = keep(j->engine, digest, err);
  } else {
    if (v.type == VAL_MAP) read_failure(&v, err);
    rc = -EIO;
  }
  val_free(&v);
  return rc;
}

static void job_free(struct job *j)
{
  struct local *e = j->engine;
  list_remove(&j->node);
  buf_free(&j->output);
  free(j);
  if (e->closing) local_box_gone(e);
}

static void finish_job(struct job *j)
{
  struct changes_op *op = j->op;
  struct err err = j->failure;
  int status = -1;
  bool well = !op || j->diff || j->cancelled || take_image(j, &err) == 0;
  watch_stop(j->engine->watcher, &j->watch);
  close(j->fd); /* whoever made an image holds it until here */
  while (waitpid(j->pid, &status, 0) < 0 && errno == EINTR) continue;
  well = well && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (j->cancelled) err_set(&err, ERR_CANCELLED, ECANCELED, "it was cancelled");
  if (!well && err.kind == ERR_NONE)
    err_set(&err, ERR_ENGINE_UNAVAILABLE, 0, "reading what the sandbox changed ended unexpectedly");
  if (op) {
    op->engine_data = NULL;
    op->on_done(op, err.kind == ERR_NONE ? NULL : &err);
  }
  job_free(j);
}

static void on_output(struct watch *watch, uint32_t events)
{
  struct job *j = watch->data;
  (void)events;
  for (int i = 0; i < READS_MAX; i++) {
    ssize_t n = read(j->fd, j->engine->chunk, LOCAL_CHUNK);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      finish_job(j);
      return;
    }
    if (j->output.len + (size_t)n <= OUTPUT_MAX)
      buf_append(&j->output, j->engine->chunk, (size_t)n);
    if (j->diff) tell_changes(j);
    if (j->op && !j->diff && memchr(j->engine->chunk, '\n', (size_t)n)) {
      finish_job(j);
      return;
    }
  }
}

/* --- starting one ----------------------------------------------------------------------------- */

static int spawn(struct job *j, int upper, char **argv)
{
  char program[PATH_MAX];
  int out[2];
  image_find_program(program);
  if (pipe2(out, O_CLOEXEC) < 0) return errno;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  /* By way of a number that is neither: the source could be 3 itself, and keep its close-on-exec.
   */
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  if (upper >= 0) {
    posix_spawn_file_actions_adddup2(&actions, upper, 4);
    posix_spawn_file_actions_adddup2(&actions, 4, 3);
    posix_spawn_file_actions_addclose(&actions, 4);
  }
  posix_spawnattr_t attr;
  sigset_t none, defaults;
  sigemptyset(&none);
  sigfillset(&defaults);
  posix_spawnattr_init(&attr);
  posix_spawnattr_setsigmask(&attr, &none);
  posix_spawnattr_setsigdefault(&attr, &defaults);
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  int rc = posix_spawn(&j->pid, program, &actions, &attr, argv, environ);
  posix_spawnattr_destroy(&attr);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  j->fd = out[0];
  fcntl(j->fd, F_SETFL, O_NONBLOCK);
  if (rc != 0) close(j->fd);
  return rc;
}

static int start_job(struct local *e, struct changes_op *op, bool diff, int upper, char **argv,
                     struct err *err)
{
  struct job *j = xcalloc(1, sizeof *j);
  *j = (struct job){.engine = e, .op = op, .diff = diff};
  j->watch = (struct watch){.cb = on_output, .data = j};
  int rc = spawn(j, upper, argv);
  if (rc != 0) {
    free(j);
    return err_set(err, ERR_CAPACITY, rc, "cannot start a process: %s", strerror(rc));
  }
  rc = watch_set(e->watcher, &j->watch, j->fd, EPOLLIN);
  if (rc < 0) abort(); /* out of kernel memory for a watch: nobody would ever be answered */
  list_append(&e->jobs, &j->node);
  if (op) op->engine_data = j;
  return 0;
}

static int check_box(const struct engine_box *b, bool snapshot, struct err *err)
{
  if (b->state != BOX_RUNNING || b->kill_sent)
    return err_set(err, ERR_SANDBOX_TERMINATED, ESRCH, "the sandbox has ended");
  int rc = 0;
  if (b->upper < 0) {
    rc = err_set(
        err, ERR_UNSUPPORTED, ENOTSUP,
        "image = \"host\" is this machine itself: there is nothing that its sandboxes' files "
        "could be compared with or put upon");
    err_hint(err, "make the sandbox of an image: regolith image pull debian, or regolith image "
                  "import rootfs:DIR NAME");
  } else if (snapshot && b->dir) {
    rc = err_set(err, ERR_UNSUPPORTED, ENOTSUP,
                 "a folder (dir:PATH) is no image that another could be put upon");
    err_hint(err, "regolith image import rootfs:%.200s NAME makes it one", b->dir);
  }
  return rc;
}

#define ARGS_MAX 16

/* Arguments of a job: NAME VALUE. All of it is owned, and freed by args_free. */
struct args {
  char *v[ARGS_MAX + 1];
  size_t n;
};

__attribute__((format(printf, 2, 3))) static void args_add(struct args *a, const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  if (a->n == ARGS_MAX || vasprintf(&a->v[a->n], fmt, ap) < 0) abort();
  va_end(ap);
  a->n++;
}

static void args_free(struct args *a)
{
  while (a->n > 0) free(a->v[--a->n]);
}

static struct args upper_args(const struct engine_box *b, const char *command)
{
  struct args a = {0};
  args_add(&a, "regolith");
  args_add(&a, "image");
  args_add(&a, "%s", command);
  if (b->dir)
    args_add(&a, "--dir=%s", b->dir);
  else
    args_add(&a, "--base=%s", b->image->record.digest);
  args_add(&a, "--first=%u", b->first);
  args_add(&a, "--rest=%u", b->rest);
  return a;
}

int changes_diff(struct engine_box *b, struct changes_op *op, struct err *err)
{
  int rc = check_box(b, false, err);
  if (rc < 0) return rc;
  struct args a = upper_args(b, "upper-diff");
  rc = start_job(b->engine, op, true, b->upper, a.v, err);
  args_free(&a);
  return rc;
}

int changes_snapshot(struct engine_box *b, struct changes_op *op, struct err *err)
{
  int rc = check_box(b, true, err);
  if (rc < 0) return rc;
  struct args a = upper_args(b, "upper-commit");
  if (op->name) args_add(&a, "--name=%s", op->name);
  /* Numbered, so that no two have one digest: what is without a name is removed by that. */
  args_add(&a, "--note=regolith snapshot %u of %s", ++b->snapshots, b->sandbox_id);
  args_add(&a, "--max-size=%lluMiB", (unsigned long long)(b->disk_bytes >> 20) * 2);
  rc = start_job(b->engine, op, false, b->upper, a.v, err);
  args_free(&a);
  return rc;
}

void changes_cancel(struct changes_op *op)
{
  struct job *j = op->engine_data;
  if (!j || j->cancelled) return;
  j->cancelled = true;
  kill(j->pid, SIGTERM);
}

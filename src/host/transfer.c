/* Copies between this machine and a sandbox, one turn of the loop a piece.
 *
 * A transfer is an op of the script and, behind it, one that the supervisor answers: a tree that
 * flows out of a source into the op's input, or out of the op's chunks into a sink (core/tree.h).
 * What is opened here lies in a granted directory and is never reached through a link that leads
 * out of it; what a sandbox sends is made as the sink of a stranger's tree makes it. Whichever side
 * fails first ends the other, and says why.
 *
 * running → (failed here: inner cancelled) → inner done → answered */
#include "host/transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "core/loop.h"
#include "core/op.h"
#include "core/tree.h"
#include "host/files.h"
#include "wire/file.h"

#define THINGS_MAX 1000000 /* files, directories and links of one download */

struct transfers {
  struct loop *loop;
  struct ops *ops;
  struct files *files;
};

struct transfer {
  struct transfers *all;
  struct op *op, *inner;
  struct transfer_args args;  /* owned */
  struct tree_source *source; /* owned; of an upload */
  struct tree_sink *sink;     /* owned; of a download */
  bool full;                  /* the sandbox takes no more now */
  struct defer pump;
  struct err err; /* what failed on this side */
};

static void transfer_free(struct transfer *t)
{
  loop_defer_cancel(t->all->loop, &t->pump);
  tree_source_free(t->source);
  tree_sink_free(t->sink);
  transfer_args_free(&t->args);
  free(t);
}

/* ---- the answer ---- */

static struct val skipped_list(const struct tree_report *r)
{
  struct val list = val_list();
  for (size_t at = 0; at < r->skipped.len; at += strlen(r->skipped.data + at) + 1) {
    const char *type = r->skipped.data + at, *path = strchr(type, ' ');
    struct val v = val_map();
    val_add(&v, "type", val_bytes(type, (size_t)(path - type)));
    val_add(&v, "path", val_str(path + 1));
    val_push(&list, v);
  }
  return list;
}

static struct val report_val(const struct tree_report *r)
{
  struct val v = val_map();
  val_add(&v, "files", val_int((int64_t)r->files));
  val_add(&v, "directories", val_int((int64_t)r->dirs));
  val_add(&v, "links", val_int((int64_t)r->links));
  val_add(&v, "bytes", val_int((int64_t)r->bytes));
  val_add(&v, "skipped", skipped_list(r));
  val_add(&v, "skipped_total", val_int((int64_t)r->skipped_n));
  return v;
}

/* In the words of this op: the sandbox's side calls it path. */
static void rename_field(const struct transfer *t, struct err *err)
{
  if (strcmp(err->field, "path") == 0) strcpy(err->field, t->source ? "target" : "source");
}

static void on_done(struct op *inner, const struct err *failure)
{
  struct transfer *t = inner->client_data;
  struct op *op = t->op;
  struct err err = t->err;
  if (err.kind == ERR_NONE && failure) {
    err = *failure;
    rename_field(t, &err);
  }
  if (err.kind == ERR_NONE && t->sink && !tree_sink_ended(t->sink))
    file_error(&err, "source", "read", t->args.source, EBADMSG);
  if (err.kind == ERR_NONE)
    op->result = report_val(t->source ? tree_source_report(t->source) : tree_sink_report(t->sink));
  op->handler_data = NULL;
  transfer_free(t);
  op_free(inner);
  op_finish(op, err.kind != ERR_NONE ? &err : NULL);
}

/* This side failed; the other has to end before that is said. */
static void fail(struct transfer *t, const char *field, const char *doing, const char *root,
                 const char *below, int rc)
{
  struct buf path = {0};
  buf_puts(&path, root);
  if (*below) buf_printf(&path, "/%s", below);
  file_error(&t->err, field, doing, path.data, -rc);
  if (rc == -EFBIG && t->sink)
    err_hint(&t->err, "a larger max, or fewer files at once (%d at most)", THINGS_MAX);
  buf_free(&path);
  op_cancel(t->inner, ERR_CANCELLED);
}

/* ---- upload ---- */

static void on_pump(struct defer *d)
{
  struct transfer *t = d->data;
  if (t->full || t->err.kind != ERR_NONE) return;
  struct buf piece = {0};
  int rc = tree_source_read(t->source, &piece);
  if (rc < 0)
    fail(t, "source", "read", t->args.source, tree_source_path(t->source), rc);
  else if (op_input(t->inner, piece.data, piece.len, NULL) < 0)
    rc = -ECANCELED; /* it has ended, and says why */
  else if (rc == 0)
    op_input(t->inner, NULL, 0, NULL);
  else
    loop_defer(t->all->loop, &t->pump);
  buf_free(&piece);
}

static void on_full(struct op *inner, bool full)
{
  struct transfer *t = inner->client_data;
  if (!t->source || t->full == full) return;
  t->full = full;
  if (!full) loop_defer(t->all->loop, &t->pump);
}

/* ---- download ---- */

static void on_chunk(struct op *inner, enum op_stream stream, const void *data, size_t len)
{
  struct transfer *t = inner->client_data;
  (void)stream;
  if (!t->sink || t->err.kind != ERR_NONE) return;
  int rc = tree_sink_write(t->sink, data, len);
  if (rc < 0) fail(t, "target", "write", t->args.target, tree_sink_path(t->sink), rc);
}

/* ---- start ---- */

static const struct op_client client = {
    .on_chunk = on_chunk, .on_input_full = on_full, .on_done = on_done};

static int open_source(struct transfer *t, struct err *err)
{
  int fd = files_open_source(t->all->files, t->op->owner, t->args.source, err);
  if (fd < 0) return fd;
  t->source = tree_source_new(fd);
  return t->source ? 0 : file_error(err, "source", "read", t->args.source, errno);
}

static int open_sink(struct transfer *t, struct err *err)
{
  cleanup_free char *name = NULL;
  int dir = files_open_target(t->all->files, t->op->owner, t->args.target, &name, err);
  if (dir < 0) return dir;
  t->sink = tree_sink_new(&(struct tree_sink_conf){
      .dir = dir, .name = name, .tame = true, .max_bytes = t->args.max, .max_things = THINGS_MAX});
  return 0;
}

static int start_inner(struct transfer *t, struct err *err)
{
  struct op *inner = op_new(t->source ? "sandbox.unpack" : "sandbox.pack");
  inner->args = val_map();
  val_add(&inner->args, "sandbox_id", val_str(t->args.sandbox_id));
  val_add(&inner->args, "path", val_str(t->source ? t->args.target : t->args.source));
  if (t->args.user) val_add(&inner->args, "user", val_str(t->args.user));
  if (t->args.timeout_ms)
    val_add(&inner->args, "timeout", val_num((double)t->args.timeout_ms / 1000));
  inner->owner = t->op->owner;
  inner->client = &client;
  inner->client_data = t;
  t->inner = inner;
  int rc = op_submit(t->all->ops, inner, err);
  if (rc == 0) return 0;
  op_free(inner);
  if (err) rename_field(t, err);
  return rc;
}

static int start(struct op *op, struct transfers *all, bool download, struct err *err)
{
  struct transfer *t = xcalloc(1, sizeof *t);
  t->all = all;
  t->op = op;
  t->pump = (struct defer){.cb = on_pump, .data = t};
  int rc = transfer_args_parse(download, &op->args, &t->args, err);
  if (rc == 0) rc = download ? open_sink(t, err) : open_source(t, err);
  if (rc == 0) rc = start_inner(t, err);
  if (rc < 0) {
    transfer_free(t);
    return rc;
  }
  op->handler_data = t;
  if (t->source) loop_defer(all->loop, &t->pump);
  return 0;
}

static int start_upload(struct op *op, void *ctx, struct err *err)
{
  return start(op, ctx, false, err);
}

static int start_download(struct op *op, void *ctx, struct err *err)
{
  return start(op, ctx, true, err);
}

static void cancel(struct op *op, void *ctx)
{
  (void)ctx;
  struct transfer *t = op->handler_data;
  if (t) op_cancel(t->inner, op->cancel_why);
}

static const struct op_handler handlers[] = {
    {.name = "sandbox.upload", .start = start_upload, .cancel = cancel},
    {.name = "sandbox.download", .start = start_download, .cancel = cancel}};

struct transfers *transfers_new(struct loop *loop, struct ops *ops, struct files *files)
{
  struct transfers *t = xcalloc(1, sizeof *t);
  *t = (struct transfers){.loop = loop, .ops = ops, .files = files};
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    ops_register(ops, &handlers[i], t);
  return t;
}

void transfers_free(struct transfers *t)
{
  free(t);
}

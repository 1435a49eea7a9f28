/* Operations on files: the engine runs each as it would run a command of the sandbox, so that it
 * has the same user, limits, time-outs and ends, and its output is the answer. It is no command to
 * whoever counts or listens.
 *
 * What comes out of a sandbox is its enemy's word: lists and sizes are bounded here as well, rows
 * are checked, and names reach messages without control bytes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/op.h"
#include "core/tree.h"
#include "sandbox/supervisor_internal.h"

#define ROWS_MAX  (64u << 20) /* bytes of rows */
#define WHERE_MAX 4096        /* bytes of the name of what failed */

static const char *const doing[FILE_KINDS] = {
    [FILE_READ] = "read",    [FILE_WRITE] = "write",    [FILE_LIST] = "list",
    [FILE_STAT] = "look at", [FILE_MKDIR] = "make",     [FILE_REMOVE] = "remove",
    [FILE_PACK] = "read",    [FILE_UNPACK] = "write to"};

/* ---- answers ---- */

static void too_much(struct exec *x)
{
  x->overflown = true;
  sandbox_exec_kill(x, REASON_OUTPUT_LIMIT);
}

static void file_chunk(struct exec *x, enum exec_stream which, const void *data, size_t len)
{
  if (which == EXEC_STDERR) {
    stream_write(&x->err, data, len);
    return;
  }
  if (x->overflown) return;
  x->out.total += len;
  if (x->file.kind == FILE_READ && x->out.total > x->file.max) {
    too_much(x);
  } else if (x->file.kind == FILE_READ || x->file.kind == FILE_PACK) {
    if (x->op) op_chunk(x->op, OP_STDOUT, data, len);
  } else if (x->rows.len + len > ROWS_MAX) {
    too_much(x);
  } else {
    buf_append(&x->rows, data, len);
  }
}

static int by_name(const void *a, const void *b)
{
  return strcmp(val_get_str(a, "name", ""), val_get_str(b, "name", ""));
}

static int read_rows(struct exec *x, struct val *ret, struct err *err)
{
  struct val rows = val_list();
  bool fine = file_rows_read(x->rows.data, x->rows.len, &rows);
  if (!fine || (x->file.kind == FILE_STAT && rows.list.n != 1)) {
    val_free(&rows);
    return err_set(err, ERR_INTERNAL, EBADMSG, "sandbox %s answered with something else than files",
                   x->sb->id);
  }
  if (x->file.kind == FILE_STAT) {
    *ret = rows.list.v[0];
    rows.list.v[0] = (struct val){0};
    val_free(&rows);
  } else {
    if (rows.list.n > 1) qsort(rows.list.v, rows.list.n, sizeof *rows.list.v, by_name);
    *ret = rows;
  }
  return 0;
}

static int make_result(struct exec *x, struct val *ret, struct err *err)
{
  if (x->file.kind == FILE_LIST || x->file.kind == FILE_STAT) return read_rows(x, ret, err);
  *ret = val_map();
  if (x->file.kind == FILE_READ || x->file.kind == FILE_WRITE)
    val_add(ret, "bytes", val_int((int64_t)x->out.total));
  return 0;
}

/* It failed by itself: errno tells, and stderr where below the path. */
static void own_error(struct exec *x, struct err *err)
{
  size_t len;
  char *where = stream_take(&x->err, &len);
  struct buf path = {0};
  buf_puts(&path, x->file.path);
  if (len) buf_printf(&path, "/%s", where);
  file_error(err, "path", doing[x->file.kind], path.data, x->run.ret_code);
  if (x->run.ret_code == ENOSPC)
    err_hint(err, "the sandbox was created with disk = %u MiB", x->sb->args.disk_mib);
  if (x->run.ret_code == EFBIG && x->file.kind == FILE_READ)
    err_hint(err, "read it with a larger max, or in pieces with on_data");
  if (x->run.ret_code == ENOENT && (x->file.kind == FILE_WRITE || x->file.kind == FILE_UNPACK))
    err_hint(err, "the directory it is to be in is made with sb:mkdir");
  buf_free(&path);
  free(where);
}

static void ended_error(struct exec *x, struct err *err)
{
  const char *name = file_op_name(x->file.kind);
  if (x->overflown)
    file_error(err, "path", doing[x->file.kind], x->file.path, EFBIG);
  else if (x->why == REASON_TIMEOUT)
    err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s took too long and was ended", name);
  else if (x->why == REASON_CANCELLED)
    err_set(err, ERR_CANCELLED, ECANCELED, "%s was cancelled", name);
  else if (x->sb->end != END_NONE)
    sandbox_ended_err(x->sb, err);
  else if (x->run.ret_end == EXEC_END_OOM)
    err_set(err, ERR_CAPACITY, ENOMEM, "%s: the sandbox ran out of memory", name);
  else
    err_set(err, ERR_EXEC_FAILED, EINTR, "%s was ended from within the sandbox", name);
}

static void file_answer(struct exec *x)
{
  struct op *op = x->op;
  struct err err = {0};
  if (!op) return;
  x->op = NULL;
  op->handler_data = NULL;
  if (x->failed)
    err = x->done_err;
  else if (x->run.ret_end != EXEC_END_EXITED || x->overflown)
    ended_error(x, &err);
  else if (x->run.ret_code != 0)
    own_error(x, &err);
  else
    make_result(x, &op->result, &err);
  if (err.kind != ERR_NONE) {
    strcpy(err.sandbox_id, x->sb->id);
    strcpy(err.engine, x->sb->engine->name);
  }
  op_finish(op, err.kind != ERR_NONE ? &err : NULL);
}

static const struct exec_job file_job = {.chunk = file_chunk, .answer = file_answer};

/* ---- input ---- */

static void send_tree(struct exec *x, struct buf *tree)
{
  sandbox_exec_input(x, tree->data, tree->len);
  buf_free(tree);
}

/* What is written travels as the tree that a single file is. */
static void write_begin(struct exec *x)
{
  struct buf tree = {0};
  struct tree_head head = {.type = TREE_FILE, .mode = x->file.mode, .mtime = TREE_TIME_NOW};
  _Static_assert(FILE_MODE_KEEP == TREE_MODE_KEEP, "one mark for both");
  tree_put(&tree, head, "", NULL);
  send_tree(x, &tree);
}

static void write_more(struct exec *x, const void *data, size_t len)
{
  struct buf tree = {0};
  if (len > 0) {
    tree_put(&tree, (struct tree_head){.type = TREE_DATA, .len = len}, "", data);
    x->out.total += len;
  } else {
    tree_put(&tree, (struct tree_head){.type = TREE_CLOSE}, "", NULL);
    tree_put(&tree, (struct tree_head){.type = TREE_END}, "", NULL);
  }
  send_tree(x, &tree);
}

static void file_input(struct op *op, void *ctx, const void *data, size_t len)
{
  (void)ctx;
  struct exec *x = op->handler_data;
  if (!x || x->input_ended) return;
  x->input_ended = len == 0;
  if (x->file.kind == FILE_WRITE) write_more(x, data, len);
  if (x->file.kind == FILE_UNPACK && len > 0) sandbox_exec_input(x, data, len);
  if (len == 0) sandbox_exec_input(x, NULL, 0);
}

/* ---- start ---- */

static enum file_kind kind_of(const char *op)
{
  enum file_kind k = 0;
  while (k + 1 < FILE_KINDS && strcmp(file_op_name(k), op) != 0) k++;
  return k;
}

static int launch(struct sandbox *sb, struct op *op, struct file_args *args, struct err *err)
{
  struct exec *x = exec_new(sb, op, &file_job);
  x->file = *args;
  *args = (struct file_args){0};
  stream_init(&x->err, WHERE_MAX);
  x->asked = x->file;
  if (x->asked.kind == FILE_WRITE) x->asked.kind = FILE_UNPACK;
  x->run.file = &x->asked;
  int rc = exec_launch(x, x->file.timeout_ms, err);
  if (rc < 0) return rc;
  sandbox_touch(sb);
  if (x->file.kind == FILE_WRITE) write_begin(x);
  return 0;
}

static int file_start(struct op *op, void *ctx, struct err *err)
{
  struct file_args args;
  int rc = file_args_parse(kind_of(op->name), &op->args, &args, err);
  if (rc < 0) return rc;
  struct sandbox *sb = sandbox_find(ctx, op->owner, args.sandbox_id, err);
  rc = sb ? handlers_check_alive(sb, err) : -ENOENT;
  if (rc == 0 && !(sb->engine->caps & ENGINE_CAP_FILES))
    rc = handlers_lacks(sb->engine, "engine", "operations on files", err);
  if (rc == 0) rc = handlers_check_room(sb, err);
  if (rc == 0) rc = launch(sb, op, &args, err);
  if (rc < 0 && sb && err) {
    strcpy(err->sandbox_id, sb->id);
    strcpy(err->engine, sb->engine->name);
  }
  file_args_free(&args);
  return rc;
}

#define HANDLER(op)                                                                                \
  {                                                                                                \
    .name = "sandbox." op, .start = file_start, .cancel = exec_op_cancel, .input = file_input,     \
    .flow = exec_op_flow                                                                           \
  }

static const struct op_handler handlers[FILE_KINDS] = {
    HANDLER("read"),  HANDLER("write"),  HANDLER("list_files"), HANDLER("stat"),
    HANDLER("mkdir"), HANDLER("remove"), HANDLER("pack"),       HANDLER("unpack")};

void file_handlers_register(struct supervisor *sup)
{
  for (size_t i = 0; i < FILE_KINDS; i++) ops_register(sup->ops, &handlers[i], sup);
}

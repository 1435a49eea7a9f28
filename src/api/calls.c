/* The operations, as requests name them.
 *
 * The bodies of requests are the arguments of ops, whose tables check every field and word every
 * message; what stands here is what HTTP adds: which status, whose client has left, and the second
 * family's shape. */
#include "api/api_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/embedded.h"
#include "net/http1.h"
#include "wire/compute.h"
#include "wire/op.h"

#define OUTPUT   "5000000B" /* kept of each stream where the request does not say: both fit */
#define LIST_MAX 1000       /* sandboxes in one answer */

static struct val take_body(struct call *c)
{
  struct val body = c->body;
  c->body = (struct val){0};
  return body;
}

static void note_sandbox(struct call *c, const char *id)
{
  snprintf(c->sandbox_id, sizeof c->sandbox_id, "%s", id);
}

/* An error, or the op's result as it is. */
static void on_result(struct call *c, struct op *op, const struct err *err)
{
  if (err)
    call_error(c, err);
  else
    call_json(c, 200, &op->result);
}

void call_gone(struct call *c)
{
  if (c->feed) feed_gone(c);
  /* A create with a key goes on: whoever asks again finds what came of it. */
  if (c->op && !(c->idem && strcmp(c->op->name, "sandbox.create") == 0))
    op_cancel(c->op, ERR_CANCELLED);
}

/* ---- create ---- */

static void on_unwanted_ended(struct call *c, struct op *op, const struct err *err)
{
  (void)op;
  (void)err;
  call_check_free(c);
}

/* Whoever asked for it left while it was made, and nobody knows its id. */
static void end_unwanted(struct call *c, const struct val *view)
{
  struct val args = val_map();
  val_add(&args, "sandbox_id", val_str(val_get_str(view, "sandbox_id", "")));
  call_op(c, "sandbox.terminate", args, 0, on_unwanted_ended);
}

static bool is_unwanted(const struct call *c, const struct err *err)
{
  return !err && !c->x && !c->idem;
}

/* For an image that is being pulled: clients give up after a minute. */
static uint64_t create_ms(const struct call *c)
{
  return c->api->conf.create_ms ? c->api->conf.create_ms : 55000;
}

/* A pull goes on by itself: whoever tries again later finds the image here. */
static void create_error(struct call *c, const struct err *err)
{
  struct err late = *err;
  if (err->kind == ERR_TIMEOUT) {
    err_set(&late, ERR_ENGINE_UNAVAILABLE, 0,
            "the sandbox could not be made within %d s; its image may still be on its way",
            (int)((create_ms(c) + 999) / 1000));
    err_hint(&late, "try again in a moment");
  }
  call_error(c, &late);
}

static void on_created(struct call *c, struct op *op, const struct err *err)
{
  if (is_unwanted(c, err))
    end_unwanted(c, &op->result);
  else if (err)
    create_error(c, err);
  else
    call_json(c, 200, &op->result);
}

void call_create(struct call *c)
{
  call_op(c, "sandbox.create", take_body(c), create_ms(c), on_created);
}

/* ---- exec ---- */

/* An exec that its sandbox's end has ended is an error with what it had printed. */
static bool ended_with_sandbox(const struct val *result, const char *id, struct err *err)
{
  const char *reason = val_get_str(result, "reason", "");
  if (strcmp(reason, "terminated") == 0)
    err_set(err, ERR_SANDBOX_TERMINATED, 0, "sandbox %s ended while the command ran", id);
  else if (strcmp(reason, "sandbox_timeout") == 0)
    err_set(err, ERR_SANDBOX_TIMEOUT, 0,
            "sandbox %s reached the end of its life-time while the command ran", id);
  return err->kind != ERR_NONE;
}

void call_note_end(struct call *c, const struct val *outcome, const char *why)
{
  struct recent_exec *x = c->noted;
  c->noted = NULL;
  if (x) recent_end(c->api->recent, x, outcome, why);
}

static void note_output(struct call *c, const struct val *result)
{
  const struct val *out = val_get(result, "stdout"), *err = val_get(result, "stderr");
  if (!c->noted) return;
  if (out && out->type == VAL_STR) recent_output(c->noted, false, out->s.p, out->s.len);
  if (err && err->type == VAL_STR) recent_output(c->noted, true, err->s.p, err->s.len);
}

static void on_executed(struct call *c, struct op *op, const struct err *err)
{
  struct err ended = {0};
  struct buf body = {0};
  if (!err) note_output(c, &op->result);
  call_note_end(c, err ? NULL : &op->result, err ? err_info(err->kind)->code : NULL);
  if (err) {
    call_error(c, err);
  } else if (ended_with_sandbox(&op->result, c->sandbox_id, &ended)) {
    call_error_with(c, &ended, &op->result);
  } else {
    compute_print_exec(&body, c->sandbox_id, &op->result, c->base64, COMPUTE_ANSWER_MAX);
    call_answer(c, 200, "application/json", &body);
  }
}

/* More than an answer can hold is kept for nobody. */
static int check_output(const struct call *c, struct err *err)
{
  struct exec_args args;
  if (!val_get(&c->body, "max_output")) return 0;
  int rc = exec_args_parse(&c->body, &args, err);
  if (rc < 0) return rc;
  if (args.max_output > COMPUTE_ANSWER_MAX)
    rc = err_arg(err, "max_output", "max_output must be %d bytes at most: no answer holds more",
                 COMPUTE_ANSWER_MAX);
  exec_args_free(&args);
  return rc;
}

void call_exec(struct call *c)
{
  struct err err = {0};
  note_sandbox(c, val_get_str(&c->body, "sandbox_id", ""));
  if (compute_exec_request(&c->body, &c->base64, &err) < 0) {
    call_error(c, &err);
    return;
  }
  bool feed = feed_wanted(c);
  if (!feed && check_output(c, &err) < 0) {
    call_error(c, &err);
    return;
  }
  c->noted =
      recent_begin(c->api->recent, c->account.id, c->sandbox_id, val_get(&c->body, "command"));
  if (feed) {
    feed_start(c, take_body(c));
    return;
  }
  struct val args = take_body(c);
  if (!val_get(&args, "max_output")) val_set(&args, "max_output", val_str(OUTPUT));
  call_op(c, "sandbox.exec", args, 0, on_executed);
}

/* ---- status, terminate ---- */

void call_status(struct call *c)
{
  note_sandbox(c, val_get_str(&c->body, "sandbox_id", ""));
  call_op(c, "sandbox.status", take_body(c), 0, on_result);
}

void call_terminate(struct call *c)
{
  note_sandbox(c, val_get_str(&c->body, "sandbox_id", ""));
  call_op(c, "sandbox.terminate", take_body(c), 0, on_result);
}

/* ---- the second family ---- */

static void answer_modal(struct call *c, int status, const struct val *view)
{
  struct val v = compute_modal(view);
  call_json(c, status, &v);
  val_free(&v);
}

static void on_created_modal(struct call *c, struct op *op, const struct err *err)
{
  if (is_unwanted(c, err))
    end_unwanted(c, &op->result);
  else if (err)
    create_error(c, err);
  else
    answer_modal(c, 201, &op->result);
}

void call_create_modal(struct call *c)
{
  call_op(c, "sandbox.create", take_body(c), create_ms(c), on_created_modal);
}

static struct val target(struct call *c)
{
  struct val args = val_map();
  note_sandbox(c, c->segment);
  val_add(&args, "sandbox_id", val_str(c->segment));
  return args;
}

static void on_got(struct call *c, struct op *op, const struct err *err)
{
  if (err)
    call_error(c, err);
  else
    answer_modal(c, 200, &op->result);
}

void call_get_modal(struct call *c)
{
  call_op(c, "sandbox.get", target(c), 0, on_got);
}

/* Ended before is ended too. */
static void on_deleted(struct call *c, struct op *op, const struct err *err)
{
  (void)op;
  if (err && err->kind != ERR_SANDBOX_TERMINATED && err->kind != ERR_SANDBOX_TIMEOUT)
    call_error(c, err);
  else
    call_op(c, "sandbox.get", target(c), 0, on_got);
}

void call_delete_modal(struct call *c)
{
  call_op(c, "sandbox.terminate", target(c), 0, on_deleted);
}

static void on_snapshot(struct call *c, struct op *op, const struct err *err)
{
  if (err)
    call_error(c, err);
  else
    call_json(c, 201, &op->result);
}

void call_snapshot(struct call *c)
{
  struct val args = take_body(c);
  note_sandbox(c, c->segment);
  val_set(&args, "sandbox_id", val_str(c->segment));
  call_op(c, "sandbox.snapshot", args, 0, on_snapshot);
}

/* A sandbox has a tunnel for each port that it was created with. */
static void on_tunnels(struct call *c, struct op *op, const struct err *err)
{
  if (err) {
    call_error(c, err);
    return;
  }
  const struct val *known = val_get(&op->result, "tunnels");
  struct val v = val_map();
  val_add(&v, "sandbox_id", val_str(c->sandbox_id));
  val_add(&v, "tunnels", known ? val_copy(known) : val_list());
  call_json(c, 200, &v);
  val_free(&v);
}

void call_tunnels(struct call *c)
{
  call_op(c, "sandbox.get", target(c), 0, on_tunnels);
}

/* ---- lists ---- */

/* One parameter, which is consumed; a tag is KEY=VALUE, all that are given have to match. */
static int list_param(const char *name, const char *value, struct val *args, int64_t *ret_limit,
                      char **ret_after, struct err *err)
{
  static const char *const texts[] = {"app_id", "state", "name"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    if (strcmp(name, texts[i]) != 0) continue;
    val_set(args, name, val_str(value));
    return 0;
  }
  if (strcmp(name, "tag") == 0) {
    const char *eq = strchr(value, '=');
    if (!eq || eq == value)
      return err_arg(err, "tag", "tag must be KEY=VALUE, not \"%.80s\"", value);
    char *key = strndup(value, (size_t)(eq - value));
    struct val *tags = val_get_mut(args, "tags");
    val_set(tags, key, val_str(eq + 1));
    free(key);
    return 0;
  }
  if (strcmp(name, "limit") == 0) {
    char *end;
    long n = strtol(value, &end, 10);
    if (*end || n < 1 || n > LIST_MAX)
      return err_arg(err, "limit", "limit must be 1 to %d, not \"%.40s\"", LIST_MAX, value);
    *ret_limit = n;
    return 0;
  }
  if (strcmp(name, "after") == 0) {
    free(*ret_after);
    *ret_after = xstrdup(value);
    return 0;
  }
  return err_arg(err, name,
                 "there is no parameter \"%.40s\": tag, app_id, state, name, limit, after", name);
}

static int list_params(const char *query, struct val *args, int64_t *ret_limit, char **ret_after,
                       struct err *err)
{
  int rc = 0;
  while (*query && rc == 0) {
    size_t n = strcspn(query, "&"), eq = strcspn(query, "=&");
    char *name = http1_decode(query, eq, true);
    char *value = http1_decode(query + eq + (eq < n), n - eq - (eq < n), true);
    if (!name || !value)
      rc = err_set(err, ERR_INVALID_ARGUMENT, 0, "a query parameter is not percent-encoded well");
    else if (n > 0)
      rc = list_param(name, value, args, ret_limit, ret_after, err);
    free(name);
    free(value);
    query += n + (query[n] == '&');
  }
  return rc;
}

/* An empty page would be taken for the end. */
static void lost_place(struct call *c, const char *after)
{
  struct err err = {0};
  err_arg(&err, "after", "sandbox %.63s is not in this list: it may have ended meanwhile", after);
  err_hint(&err, "ask again without after");
  call_error(c, &err);
}

static void on_list(struct call *c, struct op *op, const struct err *err)
{
  if (err) {
    call_error(c, err);
    return;
  }
  int64_t limit = val_get_int(&c->body, "limit", LIST_MAX);
  const char *after = val_get_str(&c->body, "after", NULL);
  struct val v, list = val_list();
  bool more = false, found = !after;
  for (size_t i = 0; i < op->result.list.n; i++) {
    const struct val *view = &op->result.list.v[i];
    if (!found) {
      found = strcmp(val_get_str(view, "sandbox_id", ""), after) == 0;
      continue;
    }
    more = (int64_t)list.list.n == limit;
    if (more) break;
    val_push(&list, compute_modal(view));
  }
  if (!found) {
    val_free(&list);
    lost_place(c, after);
    return;
  }
  v = val_map();
  val_add(&v, "sandboxes", list);
  val_add(&v, "has_more", val_bool(more));
  call_json(c, 200, &v);
  val_free(&v);
}

void call_list(struct call *c)
{
  struct err err = {0};
  struct val args = val_map();
  int64_t limit = LIST_MAX;
  char *after = NULL;
  val_add(&args, "tags", val_map());
  int rc = list_params(httpd_query(c->x), &args, &limit, &after, &err);
  c->body = val_map();
  val_add(&c->body, "limit", val_int(limit));
  if (after) val_add(&c->body, "after", val_str(after));
  free(after);
  if (rc == 0) {
    call_op(c, "sandbox.list", args, 0, on_list);
    return;
  }
  val_free(&args);
  call_error(c, &err);
}

/* ---- what needs no key ---- */

static void answer_word(struct call *c, const char *word)
{
  struct val v = val_map();
  val_add(&v, "status", val_str(word));
  call_json(c, 200, &v);
  val_free(&v);
}

void call_healthz(struct call *c)
{
  answer_word(c, "ok");
}

void call_readyz(struct call *c)
{
  const struct api_conf *conf = &c->api->conf;
  struct err err = {0};
  if (conf->ready && conf->ready(conf->data, &err) < 0)
    call_error(c, &err);
  else
    answer_word(c, "ready");
}

static const struct embedded_file *file_named(const char *name)
{
  for (const struct embedded_file *f = embedded_files; f->name; f++)
    if (strcmp(f->name, name) == 0) return f;
  return NULL;
}

static void answer_file(struct call *c, const struct embedded_file *f, const char *type)
{
  struct buf body = {0};
  buf_append(&body, f->data, f->len);
  call_answer(c, 200, type, &body);
}

void call_openapi(struct call *c)
{
  answer_file(c, file_named("openapi.json"), "application/json");
}

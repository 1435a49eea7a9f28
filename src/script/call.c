/* Ops of a task: submit, hand chunks to the script in order, give back the result or raise.
 *
 * A call belongs to the task that made it and to the script until the router is done with its op.
 * Chunks are queued as they come and given to on_chunk by the calling task; while more than 256 KiB
 * wait, the handler is told to pause. Cancel, and an error in on_chunk, cancel the op; the task
 * goes on only when the op has ended, so that nothing of it is left behind.
 *
 *   in flight → done → consumed (its result is on the Lua stack) → freed
 *   in flight → dropped (the task will never come back) → freed when the op is done */
#include "script/task_internal.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "wire/codec.h"

#define QUEUE_HIGH ((size_t)256 << 10)
#define QUEUE_LOW  ((size_t)64 << 10)
#define CALLS_MAX  20000 /* in flight, of one script */

struct chunk {
  struct list node;
  enum op_stream stream;
  size_t len;
  char data[];
};

struct call {
  struct list node; /* struct task.calls */
  struct list all;  /* struct script.calls, until the op is done */
  struct script *script;
  struct task *task;  /* NULL once dropped */
  struct op *op;      /* owned once done */
  struct list chunks; /* struct chunk.node */
  size_t queued;      /* bytes in chunks */
  size_t charged;     /* bytes the script answers for: arguments until done, then the result */
  bool wants_chunks;  /* on_chunk was given, and has not failed */
  bool paused;        /* the handler was told so */
  bool feeding;       /* opts.input has more to give */
  bool input_full;    /* … but not now, says the handler */
  bool done, consumed;
  bool failed;    /* on_chunk raised an error: it is at stack index CALL_ERROR */
  struct err err; /* of the op, once done */
};

/* The Lua stack of core.call. */
enum { CALL_NAME = 1, CALL_ARGS, CALL_OPTS, CALL_ON_CHUNK, CALL_ERROR };

static void set_charge(struct call *c, size_t bytes)
{
  script_refund(c->script, c->charged);
  c->charged = bytes;
  script_charge(c->script, bytes);
}

static void free_chunk(struct call *c, struct chunk *chunk)
{
  list_remove(&chunk->node);
  c->queued -= chunk->len;
  script_refund(c->script, chunk->len);
  free(chunk);
}

static void drop_chunks(struct call *c)
{
  while (!list_empty(&c->chunks)) free_chunk(c, list_entry(c->chunks.next, struct chunk, node));
}

/* Its op is no longer in flight. */
static void leave(struct call *c)
{
  if (list_empty(&c->all)) return;
  list_remove(&c->all);
  c->script->calls_n--;
}

static void call_free(struct call *c)
{
  drop_chunks(c);
  set_charge(c, 0);
  list_remove(&c->node);
  leave(c);
  op_free(c->op);
  free(c);
}

void call_cancel(struct call *c, enum err_kind why)
{
  if (!c->done) op_cancel(c->op, why);
}

void call_drop_all(struct task *t)
{
  while (!list_empty(&t->calls)) {
    struct call *c = list_entry(t->calls.next, struct call, node);
    list_remove(&c->node);
    c->task = NULL;
    if (c->done) {
      call_free(c);
    } else {
      drop_chunks(c);
      op_cancel(c->op, ERR_CANCELLED);
    }
  }
}

/* Results that were handed over, or whose hand-over failed for want of memory. */
static void free_consumed(struct task *t)
{
  LIST_FOREACH_SAFE (it, &t->calls) {
    struct call *c = list_entry(it, struct call, node);
    if (c->consumed) call_free(c);
  }
}

/* --- From the loop --- */

static void wake(struct call *c)
{
  if (c->task->blocked_on == c) task_wake(c->task);
}

static void on_chunk(struct op *op, enum op_stream stream, const void *data, size_t len)
{
  struct call *c = op->client_data;
  if (!c->task || !c->wants_chunks || len == 0) return;
  struct chunk *chunk = xmalloc(sizeof *chunk + len);
  chunk->stream = stream;
  chunk->len = len;
  memcpy(chunk->data, data, len);
  list_append(&c->chunks, &chunk->node);
  c->queued += len;
  script_charge(c->script, len);
  if (c->queued > QUEUE_HIGH && !c->paused) {
    c->paused = true;
    op_flow(op, true);
  }
  wake(c);
}

static void on_done(struct op *op, const struct err *err)
{
  struct call *c = op->client_data;
  struct script *s = c->script;
  c->done = true;
  if (err) c->err = *err;
  set_charge(c, script_val_bytes(&op->result));
  leave(c);
  if (c->task)
    wake(c);
  else
    call_free(c);
  script_settle(s);
}

static void on_input_full(struct op *op, bool full)
{
  struct call *c = op->client_data;
  c->input_full = full;
  if (c->task && !full) wake(c);
}

static const struct op_client client = {
    .on_chunk = on_chunk, .on_input_full = on_input_full, .on_done = on_done};

/* --- In the task --- */

static int call_run(lua_State *L, int status, lua_KContext ctx);
static int feed(lua_State *L, struct call *c);

/* The callback is over; an error in it ends the op. */
static int chunk_handled(lua_State *L, int status, lua_KContext ctx)
{
  struct call *c = (struct call *)ctx;
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_replace(L, CALL_ERROR);
    c->failed = true;
    c->wants_chunks = c->feeding = false;
    drop_chunks(c);
    call_cancel(c, ERR_CANCELLED);
  }
  lua_settop(L, CALL_ERROR);
  return call_run(L, LUA_OK, ctx);
}

static void push_chunk(lua_State *L, enum op_stream stream, const char *data, size_t len)
{
  if (stream != OP_EVENT) {
    lua_pushstring(L, stream == OP_STDOUT ? "stdout" : "stderr");
    lua_pushlstring(L, data, len);
    return;
  }
  struct err err = {0};
  lua_pushliteral(L, "event");
  struct val *v = script_push_scratch(L);
  if (codec_decode(v, data, len, &err) < 0) script_raise(L, &err);
  script_push_val(L, v, NULL_SKIP);
  lua_remove(L, -2);
}

static int call_chunk(lua_State *L)
{
  struct call *c = lua_touserdata(L, 2);
  struct chunk *chunk = list_entry(c->chunks.next, struct chunk, node);
  push_chunk(L, chunk->stream, chunk->data, chunk->len);
  free_chunk(c, chunk);
  if (c->paused && c->queued < QUEUE_LOW) {
    c->paused = false;
    op_flow(c->op, false);
  }
  lua_remove(L, 2);
  lua_callk(L, 2, 0, 0, task_results);
  return 0;
}

static int take_chunk(lua_State *L, struct call *c)
{
  lua_pushcfunction(L, call_chunk);
  lua_pushvalue(L, CALL_ON_CHUNK);
  lua_pushlightuserdata(L, c);
  int status = lua_pcallk(L, 2, 0, 0, (lua_KContext)c, chunk_handled);
  return chunk_handled(L, status, (lua_KContext)c);
}

static int call_ended(lua_State *L, struct call *c)
{
  struct err err = c->err;
  bool failed = c->failed, cancelled = task_must_raise(c->task);
  if (failed || cancelled || err.kind != ERR_NONE) {
    call_free(c);
    if (cancelled) return task_raise_cancel(L);
    if (!failed) return script_raise(L, &err);
    lua_settop(L, CALL_ERROR);
    return lua_error(L);
  }
  c->consumed = true;
  script_push_val(L, &c->op->result, NULL_SKIP);
  call_free(c);
  return 1;
}

/* A piece was given, or nil for the end. Whether it is too much shows in the loop's next turn. */
static int input_given(lua_State *L, int status, lua_KContext ctx)
{
  struct call *c = (struct call *)ctx;
  if (status != LUA_OK && status != LUA_YIELD) return chunk_handled(L, status, ctx);
  size_t len = 0;
  struct err err = {0};
  const char *data = lua_tolstring(L, -1, &len);
  if (!data && !lua_isnil(L, -1)) {
    err_arg(&err, "data", "what is written must be strings, not a %s", luaL_typename(L, -1));
    script_push_err(L, &err);
    return chunk_handled(L, LUA_ERRRUN, ctx);
  }
  if (!data) c->feeding = false;
  if (!c->done && (!data || len > 0)) op_input(c->op, data ? data : "", len, &err);
  lua_settop(L, CALL_ERROR);
  if (err.kind != ERR_NONE && err.kind != ERR_CONFLICT) {
    script_push_err(L, &err);
    return chunk_handled(L, LUA_ERRRUN, ctx);
  }
  if (err.kind != ERR_NONE) c->feeding = false; /* it ends already, and says why */
  if (!c->feeding) return call_run(L, LUA_OK, ctx);
  return task_block(L, 0, true, ctx, call_run);
}

/* opts.input: a string goes at once, a function is asked for more until it gives nil. */
static int feed(lua_State *L, struct call *c)
{
  lua_KContext ctx = (lua_KContext)c;
  lua_getfield(L, CALL_OPTS, "input");
  if (lua_isfunction(L, -1)) return input_given(L, lua_pcallk(L, 0, 1, 0, ctx, input_given), ctx);
  lua_pushnil(L);
  lua_setfield(L, CALL_OPTS, "input"); /* given once; then comes the end */
  return input_given(L, LUA_OK, ctx);
}

/* What there is to do for the call now; runs again after each chunk and each wake-up. */
static int call_run(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  struct call *c = (struct call *)ctx;
  if (c->script->stage == STAGE_STOPPED) return task_block(L, UINT64_MAX, false, ctx, call_run);
  if (task_must_raise(c->task)) {
    drop_chunks(c);
    c->wants_chunks = c->feeding = false;
    call_cancel(c, c->task->why);
  }
  if (!list_empty(&c->chunks)) return take_chunk(L, c);
  if (c->done) return call_ended(L, c);
  if (c->feeding && !c->input_full) return feed(L, c);
  c->task->blocked_on = c;
  return task_block(L, UINT64_MAX, true, ctx, call_run);
}

static struct call *call_new(lua_State *L, const char *name, struct val *args, double timeout_s)
{
  struct task *t = task_current(L);
  struct call *c = xcalloc(1, sizeof *c);
  c->script = t->script;
  c->task = t;
  list_init(&c->node);
  list_init(&c->all);
  list_init(&c->chunks);
  c->op = op_new(name);
  c->op->args = *args;
  c->op->owner = t->script->owner;
  c->op->timeout_ms = timeout_s > 0 ? (uint64_t)(timeout_s * 1000 + 0.5) : 0;
  c->op->client = &client;
  c->op->client_data = c;
  return c;
}

/* The call is in flight from here on. */
static int submit(lua_State *L, struct call *c, struct err *err)
{
  struct task *t = task_current(L);
  set_charge(c, script_val_bytes(&c->op->args));
  c->wants_chunks = !lua_isnil(L, CALL_ON_CHUNK);
  int rc =
      t->script->calls_n < CALLS_MAX
          ? op_submit(t->script->ops, c->op, err)
          : err_set(err, ERR_LIMIT, 0,
                    "%d operations are under way, which is the most a script may have", CALLS_MAX);
  if (rc < 0) {
    call_free(c);
    return rc;
  }
  list_append(&t->calls, &c->node);
  list_append(&t->script->calls, &c->all);
  t->script->calls_n++;
  return 0;
}

/* core.call(name, args, opts) */
int call_start(lua_State *L)
{
  const char *name = luaL_checkstring(L, CALL_NAME);
  lua_settop(L, CALL_OPTS);
  if (!lua_isnoneornil(L, CALL_OPTS)) luaL_checktype(L, CALL_OPTS, LUA_TTABLE);
  task_check_blocking(L, name);
  free_consumed(task_current(L));
  double timeout_s = 0;
  if (lua_istable(L, CALL_OPTS)) {
    lua_getfield(L, CALL_OPTS, "timeout");
    timeout_s = luaL_optnumber(L, -1, 0);
    lua_pop(L, 1);
    lua_getfield(L, CALL_OPTS, "on_chunk");
  } else {
    lua_pushnil(L);
  }
  lua_pushnil(L); /* CALL_ERROR */
  struct val args = {0};
  struct err err = {0};
  if (!lua_isnil(L, CALL_ARGS) && script_to_val(L, CALL_ARGS, &args, &err) < 0)
    return script_raise(L, &err);
  size_t bytes = script_val_bytes(&args);
  if (!script_memory_fits(L, bytes)) {
    val_free(&args);
    script_check_memory(L, bytes); /* raises */
  }
  struct call *c = call_new(L, name, &args, timeout_s);
  if (submit(L, c, &err) < 0) return script_raise(L, &err);
  lua_pushnil(L);
  lua_replace(L, CALL_ARGS); /* they may be big */
  if (lua_istable(L, CALL_OPTS)) {
    lua_getfield(L, CALL_OPTS, "input");
    c->feeding = !lua_isnil(L, -1);
    lua_pop(L, 1);
  }
  return call_run(L, LUA_OK, (lua_KContext)c);
}

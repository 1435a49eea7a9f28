/* The Compute API's objects: where they differ from the arguments and results of our ops.
 *
 * The one thing an answer must never do is grow beyond what clients take, so output is measured as
 * JSON will write it before it is printed, and cut in the middle, as a stream that overflows is.
 * Clients written for typed languages read a missing or null exit code as 0, a success: every exec
 * that is answered has an integer, and `reason` says what it stands for. */
#include "wire/compute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/json.h"
#include "wire/op.h"

/* ---- base64 ---- */

static const char digits64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct buf *out, const void *data, size_t len)
{
  const unsigned char *p = data;
  buf_reserve(out, (len + 2) / 3 * 4);
  char *o = out->data + out->len;
  for (size_t i = 0; i < len; i += 3) {
    unsigned n = (unsigned)p[i] << 16;
    if (i + 1 < len) n |= (unsigned)p[i + 1] << 8;
    if (i + 2 < len) n |= p[i + 2];
    *o++ = digits64[n >> 18];
    *o++ = digits64[n >> 12 & 63];
    *o++ = i + 1 < len ? digits64[n >> 6 & 63] : '=';
    *o++ = i + 2 < len ? digits64[n & 63] : '=';
  }
  *o = '\0';
  out->len = (size_t)(o - out->data);
}

static int digit64(unsigned char c)
{
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct buf *out, const char *text, size_t len)
{
  if (len % 4 != 0) return false;
  size_t pad =
      len == 0 ? 0 : (text[len - 1] == '=') + (text[len - 1] == '=' && text[len - 2] == '=');
  buf_reserve(out, len / 4 * 3);
  out->data[out->len] = '\0';
  for (size_t i = 0; i < len; i += 4) {
    size_t given = i + 4 == len ? 4 - pad : 4;
    unsigned n = 0;
    for (size_t k = 0; k < 4; k++) {
      int d = k < given ? digit64((unsigned char)text[i + k]) : 0;
      if (d < 0) return false;
      n = n << 6 | (unsigned)d;
    }
    if (given == 2 && (n & 0xffff)) return false; /* bits that no byte has */
    if (given == 3 && (n & 0xff)) return false;
    char bytes[3] = {(char)(n >> 16), (char)(n >> 8), (char)n};
    buf_append(out, bytes, given - 1);
  }
  return true;
}

/* ---- requests ---- */

static int no_field(const char *name, struct err *err)
{
  return err_arg(err, name, "sandbox.exec has no field \"%s\" over HTTP", name);
}

int compute_exec_request(struct val *body, bool *ret_base64, struct err *err)
{
  *ret_base64 = false;
  if (body->type != VAL_MAP) return 0; /* the op says what is wrong with it */
  if (val_get(body, "stream")) {
    int rc = no_field("stream", err);
    err_hint(err, "ask for output as it comes with the header Accept: text/event-stream");
    return rc;
  }
  if (val_get(body, "stdin_stream")) return no_field("stdin_stream", err);
  const struct val *encoding = val_get(body, "encoding");
  if (!encoding) return 0;
  const char *name = val_get_str(body, "encoding", "");
  *ret_base64 = strcmp(name, "base64") == 0;
  if (!*ret_base64 && strcmp(name, "utf-8") != 0 && encoding->type != VAL_NIL)
    return err_arg(err, "encoding", "encoding must be \"base64\" or \"utf-8\", not \"%.40s\"",
                   name);
  val_remove(body, "encoding");
  const struct val *in = val_get(body, "stdin");
  if (!*ret_base64 || !in || in->type != VAL_STR) return 0;
  struct buf bytes = {0};
  if (!base64_decode(&bytes, in->s.p, in->s.len)) {
    buf_free(&bytes);
    return err_arg(err, "stdin", "stdin is not base64, which \"encoding\":\"base64\" says it is");
  }
  val_set(body, "stdin", val_bytes(bytes.data ? bytes.data : "", bytes.len));
  buf_free(&bytes);
  return 0;
}

struct val compute_create_body(const struct create_args *a)
{
  struct val v = create_args_config(a);
  val_remove(&v, "engine"); /* the server's engines are its own */
  if (a->env.n > 0) val_add(&v, "env", strv_to_map(&a->env));
  if (a->tags.n > 0) val_add(&v, "tags", strv_to_map(&a->tags));
  if (a->app_id) val_add(&v, "app_id", val_str(a->app_id));
  if (a->name) val_add(&v, "name", val_str(a->name));
  return v;
}

struct val compute_exec_body(const char *sandbox_id, const struct exec_args *a)
{
  struct val v = val_map(), command = val_list();
  for (size_t i = 0; i < a->argv.n; i++) val_push(&command, val_str(a->argv.v[i]));
  val_add(&v, "sandbox_id", val_str(sandbox_id));
  val_add(&v, "command", command);
  val_add(&v, "encoding", val_str("base64"));
  if (a->timeout_ms) val_add(&v, "timeout", val_num((double)a->timeout_ms / 1000));
  if (a->cwd) val_add(&v, "cwd", val_str(a->cwd));
  if (a->user) val_add(&v, "user", val_str(a->user));
  if (a->env.n > 0) val_add(&v, "env", strv_to_map(&a->env));
  if (a->stdin_data && a->stdin_len > 0) {
    struct buf text = {0};
    base64_encode(&text, a->stdin_data, a->stdin_len);
    size_t len;
    char *p = buf_take(&text, &len);
    val_add(&v, "stdin", val_take_bytes(p, len));
  }
  return v;
}

/* ---- outcomes as integers ---- */

static int signal_number(const char *name)
{
  char text[24];
  for (int n = 1; name && n <= 64; n++)
    if (strcmp(signal_name(n, text), name) == 0) return n;
  return 0;
}

int compute_exit_code(const char *reason, int64_t exit_code, const char *signal)
{
  static const struct {
    const char *reason;
    int code;
  } codes[] = {{"timeout", 124},    {"oom", 137},       {"output_limit", 137},
               {"terminated", 137}, {"cancelled", 137}, {"sandbox_timeout", 137}};
  if (strcmp(reason, "exited") == 0) return (int)exit_code;
  if (strcmp(reason, "signal") == 0) return 128 + signal_number(signal);
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
    if (strcmp(reason, codes[i].reason) == 0) return codes[i].code;
  return 255;
}

/* ---- cutting output to size ---- */

/* At most how many bytes JSON takes for this one. */
static size_t cost_of(unsigned char c)
{
  if (c >= 0x80) return 3; /* not UTF-8: U+FFFD */
  if (c == '\n' || c == '"' || c == '\\') return 2;
  return c < 0x20 || c == 0x7f ? 6 : 1;
}

static size_t json_cost(const char *p, size_t len, bool base64)
{
  size_t cost = 0;
  if (base64) return (len + 2) / 3 * 4;
  for (size_t i = 0; i < len; i++) cost += cost_of((unsigned char)p[i]);
  return cost;
}

static bool continues(char c)
{
  return ((unsigned char)c & 0xc0) == 0x80;
}

/* How many bytes at the front, or the back, cost at most `max`; no character is cut in two. */
static size_t fitting(const char *p, size_t len, size_t max, bool back)
{
  size_t n = 0, cost = 0;
  while (n < len) {
    size_t at = back ? len - 1 - n : n;
    cost += cost_of((unsigned char)p[at]);
    if (cost > max) break;
    n++;
  }
  while (n > 0 && n < len && continues(back ? p[len - n] : p[n])) n--;
  return n;
}

/* The first and the last of it, in about max bytes of JSON. */
static void print_cut(struct buf *out, const char *p, size_t len, size_t max, bool base64)
{
  size_t head = base64 ? max / 4 * 3 / 2 : fitting(p, len, max / 2, false);
  size_t tail = base64 ? max / 4 * 3 / 2 : fitting(p, len, max / 2, true);
  buf_append(out, p, head);
  buf_append(out, p + len - tail, tail);
}

static void add_stream(struct val *v, const char *name, const struct val *result, size_t max,
                       bool base64, bool *ret_cut)
{
  const struct val *s = val_get(result, name);
  const char *p = s && s->type == VAL_STR ? s->s.p : "";
  size_t len = s && s->type == VAL_STR ? s->s.len : 0;
  struct buf kept = {0};
  *ret_cut = json_cost(p, len, base64) > max;
  if (*ret_cut) {
    print_cut(&kept, p, len, max, base64);
    p = kept.data ? kept.data : "";
    len = kept.len;
  }
  struct buf text = {0};
  if (base64)
    base64_encode(&text, p, len);
  else
    buf_append(&text, p, len);
  buf_free(&kept);
  char *taken = buf_take(&text, &len);
  val_add(v, name, val_take_bytes(taken, len));
}

static size_t stream_cost(const struct val *result, const char *name, bool base64)
{
  const struct val *s = val_get(result, name);
  return s && s->type == VAL_STR ? json_cost(s->s.p, s->s.len, base64) : 0;
}

/* Both streams and whether they are whole; each gets half of the room, or what the other leaves. */
static void add_output(struct val *v, const struct val *result, bool base64, size_t max)
{
  size_t room = max > 8192 ? max - 8192 : 0;
  size_t out = stream_cost(result, "stdout", base64), err = stream_cost(result, "stderr", base64);
  size_t out_max = err < room / 2 ? room - err : room / 2;
  size_t err_max = out < room / 2 ? room - out : room / 2;
  bool out_cut, err_cut;
  add_stream(v, "stdout", result, out_max, base64, &out_cut);
  add_stream(v, "stderr", result, err_max, base64, &err_cut);
  if (base64) val_add(v, "encoding", val_str("base64"));
  const struct val *was = val_get(result, "truncated");
  struct val truncated = val_map();
  val_add(&truncated, "stdout", val_bool(out_cut || val_get_bool(was, "stdout", false)));
  val_add(&truncated, "stderr", val_bool(err_cut || val_get_bool(was, "stderr", false)));
  val_add(v, "truncated", truncated);
}

static void add_copy(struct val *v, const char *name, const struct val *from)
{
  const struct val *field = val_get(from, name);
  if (field) val_add(v, name, val_copy(field));
}

/* ---- answers ---- */

static void add_exec(struct val *v, const struct val *result, bool base64, size_t max)
{
  add_output(v, result, base64, max);
  add_copy(v, "stdout_bytes", result);
  add_copy(v, "stderr_bytes", result);
  add_copy(v, "duration_ms", result);
  add_copy(v, "reason", result);
  add_copy(v, "signal", result);
  add_copy(v, "usage", result);
  add_copy(v, "refused", result);
}

void compute_print_exec(struct buf *out, const char *sandbox_id, const struct val *result,
                        bool base64, size_t max)
{
  struct val v = val_map();
  int code =
      compute_exit_code(val_get_str(result, "reason", "unknown"),
                        val_get_int(result, "exit_code", 0), val_get_str(result, "signal", NULL));
  val_add(&v, "sandbox_id", val_str(sandbox_id));
  val_add(&v, "exit_code", val_int(code));
  val_add(&v, "returncode", val_int(code));
  add_exec(&v, result, base64, max);
  json_print(out, &v);
  val_free(&v);
}

int compute_status(const struct err *err)
{
  int status = err_info(err->kind)->http_status;
  if (status) return status;
  if (err->kind == ERR_LIMIT) return 429;
  return err->kind == ERR_TIMEOUT || err->kind == ERR_CANCELLED ? 503 : 500;
}

/* The class of an error, as clients of such services know it. */
static const char *type_of(int status)
{
  static const struct {
    int status;
    const char *type;
  } types[] = {{401, "authentication_error"},
               {402, "payment_error"},
               {403, "permission_error"},
               {404, "not_found_error"},
               {429, "rate_limit_error"}};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (types[i].status == status) return types[i].type;
  return status >= 500 ? "server_error" : "invalid_request_error";
}

/* Scripts know kinds that no client of the API does. */
static const char *code_of(const struct err *err)
{
  if (err_info(err->kind)->http_status) return err_info(err->kind)->code;
  if (err->kind == ERR_LIMIT) return err_info(ERR_RATE_LIMITED)->code;
  if (err->kind == ERR_TIMEOUT || err->kind == ERR_CANCELLED)
    return err_info(ERR_ENGINE_UNAVAILABLE)->code;
  return err_info(ERR_INTERNAL)->code;
}

static void add_text(struct val *v, const char *name, const char *text)
{
  if (text && *text) val_add(v, name, val_str(text));
}

void compute_print_error(struct buf *out, const struct err *err, int status, const char *sandbox_id,
                         const struct val *result, bool base64)
{
  struct val v = val_map(), e = val_map();
  val_add(&e, "code", val_str(code_of(err)));
  val_add(&e, "message", val_str(err->msg));
  val_add(&e, "type", val_str(type_of(status)));
  add_text(&e, "field", err->field);
  add_text(&e, "hint", err->hint);
  bool unpaid = err->kind == ERR_PAYMENT_REQUIRED;
  if (unpaid && result && result->type == VAL_MAP) val_add(&e, "payment", val_copy(result));
  val_add(&v, "error", e);
  add_text(&v, "sandbox_id", sandbox_id && *sandbox_id ? sandbox_id : err->sandbox_id);
  if (result && !unpaid) add_exec(&v, result, base64, COMPUTE_ANSWER_MAX);
  json_print(out, &v);
  val_free(&v);
}

struct val compute_modal(const struct val *view)
{
  static const char *const own[] = {"sandbox_id", "app_id", "state"};
  static const char *const config[] = {"image",        "entrypoint",      "gpu",
                                       "cpu",          "memory",          "timeout",
                                       "idle_timeout", "encrypted_ports", "unencrypted_ports"};
  static const char *const rest[] = {"tags", "created_at", "expires_at", "name", "returncode"};
  const struct val *c = val_get(view, "config"), *gpu = val_get(c, "gpu");
  struct val v = val_map();
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) add_copy(&v, own[i], view);
  for (size_t i = 0; i < sizeof config / sizeof *config; i++) add_copy(&v, config[i], c);
  /* A list of preferences is shown as the one that comes first: the schema has one text. */
  if (gpu && gpu->type == VAL_LIST && gpu->list.n > 0)
    val_set(&v, "gpu", val_copy(&gpu->list.v[0]));
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) add_copy(&v, rest[i], view);
  return v;
}

/* ---- reading answers ---- */

static int read_stream(const struct val *answer, const char *name, bool base64, char **ret,
                       size_t *ret_len, struct err *err)
{
  const struct val *s = val_get(answer, name);
  struct buf bytes = {0};
  if (!s || s->type == VAL_NIL) {
    *ret = buf_take(&bytes, ret_len);
    return 0;
  }
  bool ok = s->type == VAL_STR;
  if (ok && base64)
    ok = base64_decode(&bytes, s->s.p, s->s.len);
  else if (ok)
    buf_append(&bytes, s->s.p, s->s.len);
  if (!ok) {
    buf_free(&bytes);
    return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "the server's answer has an odd \"%s\"", name);
  }
  *ret = buf_take(&bytes, ret_len);
  return 0;
}

static bool read_reason(const char *text, enum outcome_reason *ret)
{
  for (int r = REASON_EXITED; text && r <= REASON_UNKNOWN; r++) {
    if (strcmp(reason_name((enum outcome_reason)r), text) != 0) continue;
    *ret = (enum outcome_reason)r;
    return true;
  }
  return false;
}

static const struct val *integer(const struct val *answer, const char *name)
{
  const struct val *v = val_get(answer, name);
  return v && v->type == VAL_INT ? v : NULL;
}

/* Only an integer that the server said is an exit code. */
static void read_end(const struct val *answer, struct outcome *o)
{
  const struct val *code = integer(answer, "exit_code");
  if (!code) code = integer(answer, "returncode");
  o->reason = REASON_UNKNOWN;
  if (!read_reason(val_get_str(answer, "reason", NULL), &o->reason) && code)
    o->reason = REASON_EXITED;
  if (o->reason == REASON_EXITED && !code) o->reason = REASON_UNKNOWN;
  if (o->reason == REASON_EXITED) o->exit_code = (int)code->i;
  if (o->reason == REASON_SIGNAL) o->signal = signal_number(val_get_str(answer, "signal", NULL));
}

static bool is_cut(const struct val *answer, const char *name)
{
  const struct val *t = val_get(answer, "truncated");
  return t && t->type == VAL_BOOL ? t->b : val_get_bool(t, name, false);
}

int compute_read_exec(const struct val *answer, uint64_t measured_ms, struct outcome *ret,
                      struct err *err)
{
  *ret = (struct outcome){0};
  if (!answer || answer->type != VAL_MAP)
    return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "the server's answer to an exec is no object");
  bool base64 = strcmp(val_get_str(answer, "encoding", ""), "base64") == 0;
  int rc = read_stream(answer, "stdout", base64, &ret->out, &ret->out_len, err);
  if (rc == 0) rc = read_stream(answer, "stderr", base64, &ret->err, &ret->err_len, err);
  if (rc < 0) {
    outcome_free(ret);
    return rc;
  }
  read_end(answer, ret);
  int64_t ms = val_get_int(answer, "duration_ms", -1);
  const struct val *usage = val_get(answer, "usage");
  ret->duration_ms = ms >= 0 ? (uint64_t)ms : measured_ms;
  ret->out_truncated = is_cut(answer, "stdout");
  ret->err_truncated = is_cut(answer, "stderr");
  ret->out_bytes = (uint64_t)val_get_int(answer, "stdout_bytes", (int64_t)ret->out_len);
  ret->err_bytes = (uint64_t)val_get_int(answer, "stderr_bytes", (int64_t)ret->err_len);
  ret->cpu_ms = (uint64_t)val_get_int(usage, "cpu_ms", 0);
  ret->max_rss_mib = (uint32_t)val_get_int(usage, "max_rss_mib", 0);
  return 0;
}

/* What a status alone says, where the answer has no code that we know. */
static enum err_kind kind_of(int status)
{
  for (int k = ERR_NONE + 1; k < ERR_KIND_COUNT; k++)
    if (err_info((enum err_kind)k)->http_status == status && k != ERR_EXEC_FAILED)
      return (enum err_kind)k;
  if (status >= 500) return ERR_ENGINE_UNAVAILABLE;
  return status >= 400 ? ERR_INVALID_ARGUMENT : ERR_INTERNAL;
}

static void copy_text(char *to, size_t size, const char *from)
{
  snprintf(to, size, "%s", from ? from : "");
}

int64_t compute_read_time(const char *text)
{
  struct tm tm = {0};
  const char *p = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
  if (!p) return 0;
  if (*p == '.') p += 1 + strspn(p + 1, "0123456789");
  int hours = 0, minutes = 0, used = 0;
  char sign = '+';
  if (strcmp(p, "Z") != 0 && (sscanf(p, "%c%2d:%2d%n", &sign, &hours, &minutes, &used) != 3 ||
                              p[used] || (sign != '+' && sign != '-') || hours < 0 || minutes < 0))
    return 0;
  int64_t offset = hours * 3600 + minutes * 60;
  int64_t s = timegm(&tm) - (sign == '-' ? -offset : offset);
  return s > 0 ? s : 0;
}

void compute_read_error(int status, const struct val *answer, struct err *ret)
{
  const struct val *e = val_get(answer, "error");
  const char *code = val_get_str(e, "code", "");
  const char *message = val_get_str(e, "message", NULL);
  if (!message) message = val_get_str(answer, "error", NULL); /* {"error":"…"} */
  if (!message) message = val_get_str(answer, "message", NULL);
  enum err_kind kind = err_kind_from_code(code);
  if (kind == ERR_INTERNAL && strcmp(code, err_info(ERR_INTERNAL)->code) != 0)
    kind = kind_of(status);
  err_set(ret, kind, 0, "%.400s", message ? message : "the server gave no reason");
  if (!message) err_wrap(ret, "HTTP status %d", status);
  copy_text(ret->field, sizeof ret->field, val_get_str(e, "field", NULL));
  copy_text(ret->hint, sizeof ret->hint, val_get_str(e, "hint", NULL));
  copy_text(ret->sandbox_id, sizeof ret->sandbox_id, val_get_str(answer, "sandbox_id", NULL));
}

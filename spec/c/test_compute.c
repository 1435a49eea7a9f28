/* wire/compute: exit codes, output that fits, both families of answers, errors both ways, base64.
 * valgrind: yes */
#include "test.h"

#include "base/buf.h"
#include "base/json.h"
#include "wire/compute.h"
#include "wire/op.h"

static struct val parse(const char *text)
{
  struct val v;
  struct err err = {0};
  CHECK_INT(json_parse(&v, text, strlen(text), &err), 0);
  if (err.msg[0]) fprintf(stderr, "%s: %s\n", text, err.msg);
  return v;
}

static void check_base64(const char *plain, const char *text)
{
  struct buf out = {0}, back = {0};
  base64_encode(&out, plain, strlen(plain));
  CHECK_STR(out.data ? out.data : "", text);
  CHECK(base64_decode(&back, text, strlen(text)));
  CHECK_STR(back.data ? back.data : "", plain);
  buf_free(&out);
  buf_free(&back);
}

/* The vectors of RFC 4648, 10, and what is no base64. */
static void base64(void)
{
  check_base64("", "");
  check_base64("f", "Zg==");
  check_base64("fo", "Zm8=");
  check_base64("foo", "Zm9v");
  check_base64("foob", "Zm9vYg==");
  check_base64("fooba", "Zm9vYmE=");
  check_base64("foobar", "Zm9vYmFy");
  static const char *const bad[] = {"Z",    "Zg",       "Zg=",  "Zg===", "====", "Z===",  "Zh==",
                                    "Zm9=", "Zg==Zg==", "Zm9 ", "Zm\n=", "Zm9_", "Zm9vZ", "=m9v"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct buf out = {0};
    CHECK(!base64_decode(&out, bad[i], strlen(bad[i])));
    buf_free(&out);
  }
  unsigned char all[256];
  struct buf text = {0}, back = {0};
  for (int i = 0; i < 256; i++) all[i] = (unsigned char)i;
  base64_encode(&text, all, sizeof all);
  CHECK(base64_decode(&back, text.data, text.len));
  CHECK(back.len == sizeof all && memcmp(back.data, all, sizeof all) == 0);
  buf_free(&text);
  buf_free(&back);
}

static void exit_codes(void)
{
  static const struct {
    const char *reason, *signal;
    int exit_code, want;
  } rows[] = {{"exited", NULL, 0, 0},         {"exited", NULL, 7, 7},
              {"exited", NULL, 127, 127},     {"signal", "SIGKILL", 0, 137},
              {"signal", "SIGSEGV", 0, 139},  {"signal", "SIGRTMIN+3", 0, 128 + 37},
              {"timeout", NULL, 0, 124},      {"oom", NULL, 0, 137},
              {"output_limit", NULL, 0, 137}, {"terminated", NULL, 0, 137},
              {"cancelled", NULL, 0, 137},    {"sandbox_timeout", NULL, 0, 137},
              {"unknown", NULL, 0, 255},      {"something else", NULL, 0, 255}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    CHECK_INT(compute_exit_code(rows[i].reason, rows[i].exit_code, rows[i].signal), rows[i].want);
}

static void requests(void)
{
  struct err err = {0};
  bool b64;
  struct val v = parse("{\"sandbox_id\":\"sb_1\",\"command\":\"x\",\"stdin\":\"AAH/\","
                       "\"encoding\":\"base64\"}");
  CHECK_INT(compute_exec_request(&v, &b64, &err), 0);
  CHECK(b64);
  CHECK(!val_get(&v, "encoding"));
  const struct val *in = val_get(&v, "stdin");
  CHECK(in && in->s.len == 3 && memcmp(in->s.p, "\0\1\xff", 3) == 0);
  val_free(&v);
  static const char *const bad[] = {"{\"encoding\":\"utf-16\"}", "{\"encoding\":1}",
                                    "{\"encoding\":\"base64\",\"stdin\":\"***\"}",
                                    "{\"stream\":true}", "{\"stdin_stream\":true}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    v = parse(bad[i]);
    CHECK(compute_exec_request(&v, &b64, &err) < 0);
    CHECK_INT(err.kind, ERR_INVALID_ARGUMENT);
    CHECK(err.field[0]);
    val_free(&v);
  }
}

static struct val result_with(size_t out, size_t err_n, char byte)
{
  struct val r = parse("{\"reason\":\"exited\",\"exit_code\":3,\"duration_ms\":5,"
                       "\"truncated\":{\"stdout\":false,\"stderr\":false}}");
  char *a = xmalloc(out + 1), *b = xmalloc(err_n + 1);
  memset(a, byte, out);
  memset(b, 'e', err_n);
  a[out] = b[err_n] = '\0';
  if (out > 2) {
    a[0] = 'A';
    a[out - 1] = 'Z';
  }
  val_add(&r, "stdout", val_take_bytes(a, out));
  val_add(&r, "stderr", val_take_bytes(b, err_n));
  return r;
}

/* Whatever was printed, the answer fits, is JSON, and keeps the first and the last of it. */
static void answers_fit(void)
{
  static const struct {
    size_t out, err;
    char byte;
    bool base64, cut_out, cut_err;
  } rows[] = {{100, 10, 'x', false, false, false},      {200000, 10, 'x', false, true, false},
              {60000, 20000, 'x', false, false, false}, {90000, 90000, 'x', false, true, true},
              {40000, 10, '\1', false, true, false},    {40000, 10, '\xff', false, true, false},
              {60000, 10, 'x', true, false, false},     {90000, 90000, 'x', true, true, true},
              {10, 200000, '\n', false, false, true}};
  const size_t max = 100000;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct val r = result_with(rows[i].out, rows[i].err, rows[i].byte);
    struct buf text = {0};
    compute_print_exec(&text, "sb_1", &r, rows[i].base64, max);
    CHECK(text.len <= max);
    struct val v = parse(text.data);
    const struct val *t = val_get(&v, "truncated");
    CHECK_INT(val_get_bool(t, "stdout", false), rows[i].cut_out);
    CHECK_INT(val_get_bool(t, "stderr", false), rows[i].cut_err);
    CHECK_INT(val_get_int(&v, "exit_code", -1), 3);
    CHECK_INT(val_get_int(&v, "returncode", -1), 3);
    struct outcome o;
    struct err err = {0};
    CHECK_INT(compute_read_exec(&v, 0, &o, &err), 0);
    CHECK(o.out_len > 0 && o.out[0] == 'A' && o.out[o.out_len - 1] == 'Z');
    CHECK_INT(o.out_truncated, rows[i].cut_out);
    if (!rows[i].cut_out && (unsigned char)rows[i].byte < 0x80) CHECK_INT(o.out_len, rows[i].out);
    /* What fits is used: most of the room is filled where something was cut. */
    if (rows[i].cut_out && rows[i].byte == 'x') CHECK(text.len > max * 8 / 10);
    outcome_free(&o);
    val_free(&v);
    val_free(&r);
    buf_free(&text);
  }
}

/* A cut never splits a character. */
static void cuts_between_characters(void)
{
  struct val r = parse("{\"reason\":\"exited\",\"exit_code\":0}");
  struct buf euros = {0}, text = {0};
  for (int i = 0; i < 30000; i++) buf_puts(&euros, "\xe2\x82\xac");
  size_t len;
  char *p = buf_take(&euros, &len);
  val_add(&r, "stdout", val_take_bytes(p, len));
  compute_print_exec(&text, "sb_1", &r, false, 50000);
  CHECK(text.len <= 50000);
  CHECK(!strstr(text.data, "\xef\xbf\xbd"));
  val_free(&r);
  buf_free(&text);
}

static void reads_both_families(void)
{
  static const struct {
    const char *text;
    enum outcome_reason reason;
    int code, signal;
    uint64_t ms;
  } rows[] = {
      {"{\"exit_code\":2,\"stdout\":\"a\",\"stderr\":\"\",\"duration_ms\":45}", REASON_EXITED, 2, 0,
       45},
      {"{\"returncode\":0,\"stdout\":\"a\"}", REASON_EXITED, 0, 0, 77},
      {"{\"exit_code\":137,\"reason\":\"oom\"}", REASON_OOM, 0, 0, 77},
      {"{\"exit_code\":143,\"reason\":\"signal\",\"signal\":\"SIGTERM\"}", REASON_SIGNAL, 0, 15,
       77},
      {"{\"exit_code\":null,\"stdout\":\"\"}", REASON_UNKNOWN, 0, 0, 77},
      {"{\"stdout\":\"\"}", REASON_UNKNOWN, 0, 0, 77},
      {"{\"exit_code\":\"0\"}", REASON_UNKNOWN, 0, 0, 77},
      {"{\"reason\":\"exited\"}", REASON_UNKNOWN, 0, 0, 77},
      {"{\"reason\":\"no such thing\",\"returncode\":4}", REASON_EXITED, 4, 0, 77},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct val v = parse(rows[i].text);
    struct outcome o;
    struct err err = {0};
    CHECK_INT(compute_read_exec(&v, 77, &o, &err), 0);
    CHECK_INT(o.reason, rows[i].reason);
    CHECK_INT(o.exit_code, rows[i].code);
    CHECK_INT(o.signal, rows[i].signal);
    CHECK_INT(o.duration_ms, rows[i].ms);
    outcome_free(&o);
    val_free(&v);
  }
  static const char *const bad[] = {"[]", "1", "{\"stdout\":1}",
                                    "{\"stdout\":\"***\",\"encoding\":\"base64\"}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct val v = parse(bad[i]);
    struct outcome o;
    struct err err = {0};
    CHECK(compute_read_exec(&v, 0, &o, &err) < 0);
    CHECK_INT(err.kind, ERR_ENGINE_UNAVAILABLE);
    val_free(&v);
  }
}

/* Every kind that HTTP knows comes back as itself. */
static void errors_both_ways(void)
{
  for (int k = ERR_NONE + 1; k < ERR_KIND_COUNT; k++) {
    struct err err = {0}, back = {0};
    struct buf text = {0};
    err_set(&err, (enum err_kind)k, 0, "what went wrong");
    err_hint(&err, "a way out");
    strcpy(err.field, "gpu");
    strcpy(err.sandbox_id, "sb_1");
    int status = compute_status(&err);
    CHECK(status >= 400 && status < 600);
    compute_print_error(&text, &err, status, NULL, NULL, false);
    struct val v = parse(text.data);
    compute_read_error(status, &v, &back);
    if (err_info((enum err_kind)k)->http_status) CHECK_INT(back.kind, k);
    CHECK_STR(back.msg, "what went wrong");
    CHECK_STR(back.hint, "a way out");
    CHECK_STR(back.field, "gpu");
    CHECK_STR(back.sandbox_id, "sb_1");
    val_free(&v);
    buf_free(&text);
  }
}

static void foreign_errors(void)
{
  static const struct {
    int status;
    const char *text;
    enum err_kind kind;
    const char *message;
  } rows[] = {
      {404, "{\"error\":{\"code\":\"sandbox_not_found\",\"message\":\"m\"}}", ERR_SANDBOX_NOT_FOUND,
       "m"},
      {410, "{\"error\":\"gone\"}", ERR_SANDBOX_TERMINATED, "gone"},
      {408, "{\"message\":\"late\"}", ERR_SANDBOX_TIMEOUT, "late"},
      {500, "{\"error\":{\"code\":\"odd\"}}", ERR_INTERNAL, NULL},
      {502, NULL, ERR_ENGINE_UNAVAILABLE, NULL},
      {429, "[]", ERR_RATE_LIMITED, NULL},
      {402, "{\"error\":{\"code\":402}}", ERR_PAYMENT_REQUIRED, NULL},
      {422, "null", ERR_INVALID_ARGUMENT, NULL},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct val v = {0};
    struct err err = {0};
    if (rows[i].text) v = parse(rows[i].text);
    compute_read_error(rows[i].status, rows[i].text ? &v : NULL, &err);
    CHECK_INT(err.kind, rows[i].kind);
    if (rows[i].message) CHECK_STR(err.msg, rows[i].message);
    CHECK(err.msg[0]);
    val_free(&v);
  }
}

/* What a client prints, our own ops read. */
static void bodies_are_read_by_the_ops(void)
{
  struct create_args a, again;
  struct exec_args x, x_again;
  struct err err = {0};
  bool b64;
  struct val v = parse("{\"image\":\"python:3.11\",\"gpu\":[\"T4\",\"A100:2\"],\"cpu\":0.5,"
                       "\"memory\":256,\"timeout\":90,\"idle_timeout\":5,\"env\":{\"A\":\"1\"},"
                       "\"tags\":{\"t\":\"u\"},\"network\":{\"allow\":[\"*.example.org\"]},"
                       "\"entrypoint\":[\"a\",\"b\"],\"unencrypted_ports\":[80],\"name\":\"db\","
                       "\"volumes\":[{\"source\":\"data\",\"target\":\"/data\"}]}");
  CHECK_INT(create_args_parse(&v, &(struct create_defaults){0}, &a, &err), 0);
  val_free(&v);
  v = compute_create_body(&a);
  CHECK(!val_get(&v, "engine"));
  CHECK_INT(create_args_parse(&v, &(struct create_defaults){0}, &again, &err), 0);
  if (err.msg[0]) fprintf(stderr, "%s\n", err.msg);
  struct val one = create_args_config(&a), two = create_args_config(&again);
  CHECK(val_equal(&one, &two));
  CHECK_STR(strv_map_get(&again.env, "A"), "1");
  CHECK_STR(strv_map_get(&again.tags, "t"), "u");
  val_free(&one);
  val_free(&two);
  val_free(&v);
  create_args_free(&a);
  create_args_free(&again);

  v = parse("{\"sandbox_id\":\"sb_1\",\"command\":[\"a\",\"\",\"c d\"],\"timeout\":1.5,"
            "\"env\":{\"B\":\"2\"},\"cwd\":\"/x\"}");
  val_add(&v, "stdin", val_bytes("\0\xff", 2));
  CHECK_INT(exec_args_parse(&v, &x, &err), 0);
  val_free(&v);
  v = compute_exec_body("sb_2", &x);
  CHECK_INT(compute_exec_request(&v, &b64, &err), 0);
  CHECK(b64);
  CHECK_INT(exec_args_parse(&v, &x_again, &err), 0);
  CHECK_STR(x_again.sandbox_id, "sb_2");
  CHECK_INT(x_again.argv.n, 3);
  CHECK_STR(x_again.argv.v[1], "");
  CHECK_INT(x_again.timeout_ms, 1500);
  CHECK(x_again.stdin_len == 2 && memcmp(x_again.stdin_data, "\0\xff", 2) == 0);
  val_free(&v);
  exec_args_free(&x);
  exec_args_free(&x_again);
}

static void times_are_read(void)
{
  static const struct {
    const char *text;
    int64_t want;
  } rows[] = {{"1970-01-01T00:00:01Z", 1},
              {"2026-05-01T12:00:00Z", 1777636800},
              {"2026-05-01T12:00:00.123456Z", 1777636800},
              {"2026-05-01T14:00:00+02:00", 1777636800},
              {"2026-05-01T05:30:00.5-06:30", 1777636800},
              {"2026-05-01T12:00:00", 0},
              {"2026-05-01 12:00:00Z", 0},
              {"2026-05-01T12:00:00+2", 0},
              {"2026-05-01T12:00:00+02:00x", 0},
              {"2026-13-01T12:00:00Z", 0},
              {"soon", 0},
              {"", 0}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    CHECK_INT(compute_read_time(rows[i].text), rows[i].want);
}

const struct test_case test_cases[] = {
    {"base64", base64},
    {"exit codes", exit_codes},
    {"requests", requests},
    {"answers fit", answers_fit},
    {"cuts between characters", cuts_between_characters},
    {"reads both families", reads_both_families},
    {"errors both ways", errors_both_ways},
    {"foreign errors", foreign_errors},
    {"bodies are read by the ops", bodies_are_read_by_the_ops},
    {"times are read", times_are_read},
    {NULL, NULL},
};

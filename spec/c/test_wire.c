/* wire/op: what each field takes, what it refuses, and in which words. Cases are JSON, the plain
 * data that Lua and HTTP clients both arrive as. */
#include "test.h"

#include "base/buf.h"
#include "base/json.h"
#include "wire/file.h"
#include "wire/op.h"
#include "wire/schema.h"

static struct val parse(const char *json)
{
  struct val v = {0};
  struct err e = {0};
  if (json_parse(&v, json, strlen(json), &e) < 0) {
    fprintf(stderr, "bad test JSON %s: %s\n", json, e.msg);
    abort();
  }
  return v;
}

static int create(const char *json, struct create_args *a, struct err *e)
{
  struct val v = parse(json);
  *e = (struct err){0};
  int rc = create_args_parse(&v, NULL, a, e);
  val_free(&v);
  return rc;
}

static int exec(const char *json, struct exec_args *a, struct err *e)
{
  struct val v = parse(json);
  *e = (struct err){0};
  int rc = exec_args_parse(&v, a, e);
  val_free(&v);
  return rc;
}

static void defaults_are_filled_in(void)
{
  struct create_args a;
  struct err e;
  CHECK_INT(create("{}", &a, &e), 0);
  struct val config = create_args_config(&a);
  struct buf out = {0};
  json_print(&out, &config);
  CHECK_STR(out.data, "{\"engine\":\"local\",\"image\":\"host\",\"cpu\":1,\"memory\":1024,"
                      "\"disk\":1024,\"pids\":512,\"timeout\":300,\"idle_timeout\":0,"
                      "\"network\":\"none\"}");
  CHECK_STR(a.app_id, "default");
  CHECK(a.name == NULL && a.env.n == 0 && a.gpu.n == 0);
  buf_free(&out);
  val_free(&config);
  create_args_free(&a);

  struct val none = {0}, list = val_list();
  CHECK_INT(create_args_parse(&none, NULL, &a, &e), 0);
  create_args_free(&a);
  const struct create_defaults serve = {"gpu-box", "python:3.11", "open"};
  CHECK_INT(create_args_parse(&list, &serve, &a, &e), 0);
  CHECK_STR(a.engine, "gpu-box");
  CHECK_STR(a.image, "python:3.11");
  CHECK_INT(a.network, NETWORK_OPEN);
  create_args_free(&a);
}

static void every_create_field(void)
{
  struct create_args a;
  struct err e;
  CHECK_INT(
      create("{\"engine\":\"remote\",\"image\":\"python:3.11\",\"gpu\":[\"t4\",\"A100:2\"],"
             "\"cpu\":0.5,\"memory\":\"2GiB\",\"disk\":\"512MiB\",\"pids\":64,\"timeout\":\"5m\","
             "\"idle_timeout\":\"90s\",\"entrypoint\":[\"sleep\",\"1\"],\"ready\":{\"tcp\":8000},"
             "\"env\":{\"A\":\"1\",\"B\":\"x=y\"},\"cwd\":\"/srv\",\"user\":1000,"
             "\"network\":{\"allow\":[\"*.example.org\",\"10.0.0.0/8:443\",\"[::1]:80\"]},"
             "\"unencrypted_ports\":[8000,\"8001\"],\"encrypted_ports\":[443],"
             "\"volumes\":[{\"source\":\"data\",\"target\":\"/data\",\"readonly\":true}],"
             "\"tags\":{\"run\":\"42\"},\"app_id\":\"my-app\",\"name\":\"db\"}",
             &a, &e),
      0);
  CHECK_STR(e.msg, "");
  CHECK_INT(a.gpu.n, 2);
  CHECK_STR(a.gpu.v[0], "T4");
  CHECK_STR(a.gpu.v[1], "A100:2");
  CHECK(a.gpu.v[2] == NULL);
  CHECK_INT(a.cpu_milli, 500);
  CHECK_INT(a.mem_mib, 2048);
  CHECK_INT(a.disk_mib, 512);
  CHECK_INT(a.timeout_s, 300);
  CHECK_INT(a.idle_timeout_s, 90);
  CHECK_INT(a.ready_tcp, 8000);
  CHECK_STR(strv_map_get(&a.env, "B"), "x=y");
  CHECK(strv_map_get(&a.env, "C") == NULL);
  CHECK_STR(a.user, "1000");
  CHECK_INT(a.network, NETWORK_ALLOW);
  CHECK_INT(a.network_allow.n, 3);
  CHECK_INT(a.unencrypted_ports_n, 2);
  CHECK_INT(a.unencrypted_ports[1], 8001);
  CHECK_INT(a.encrypted_ports[0], 443);
  CHECK_INT(a.volumes_n, 1);
  CHECK_STR(a.volumes[0].target, "/data");
  CHECK(a.volumes[0].readonly);
  CHECK_STR(strv_map_get(&a.tags, "run"), "42");

  /* What config shows is accepted as arguments again, and means the same. */
  struct val config = create_args_config(&a), again;
  struct create_args b;
  CHECK_INT(create_args_parse(&config, NULL, &b, &e), 0);
  again = create_args_config(&b);
  CHECK(val_equal(&config, &again));
  CHECK(val_get(&config, "env") == NULL);
  val_free(&config);
  val_free(&again);
  create_args_free(&b);
  create_args_free(&a);
}

static void forms_are_accepted(void)
{
  static const struct {
    const char *json;
    uint32_t timeout, memory, cpu;
  } same[] = {
      {"{\"timeout\":300}", 300, 1024, 1000},      {"{\"timeout\":\"300\"}", 300, 1024, 1000},
      {"{\"timeout\":300.0}", 300, 1024, 1000},    {"{\"timeout\":\"2h\"}", 7200, 1024, 1000},
      {"{\"timeout\":\"1.5m\"}", 90, 1024, 1000},  {"{\"timeout\":\"2000ms\"}", 2, 1024, 1000},
      {"{\"timeout\":86400}", 86400, 1024, 1000},  {"{\"timeout\":null}", 300, 1024, 1000},
      {"{\"memory\":\"512\"}", 300, 512, 1000},    {"{\"memory\":\"1.5GiB\"}", 300, 1536, 1000},
      {"{\"memory\":\"512mib\"}", 300, 512, 1000}, {"{\"memory\":128}", 300, 128, 1000},
      {"{\"cpu\":0.125}", 300, 1024, 125},         {"{\"cpu\":\"2\"}", 300, 1024, 2000},
      {"{\"cpu\":0.12501}", 300, 1024, 126},       {"{\"tags\":[],\"env\":{}}", 300, 1024, 1000},
      {"{\"entrypoint\":{}}", 300, 1024, 1000},
  };
  for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
    struct create_args a;
    struct err e;
    if (create(same[i].json, &a, &e) < 0) {
      fprintf(stderr, "%s: %s\n", same[i].json, e.msg);
      CHECK(false);
      continue;
    }
    CHECK_INT(a.timeout_s, same[i].timeout);
    CHECK_INT(a.mem_mib, same[i].memory);
    CHECK_INT(a.cpu_milli, same[i].cpu);
    create_args_free(&a);
  }
}

struct refusal {
  const char *json, *field, *says;
};

static void check_refusals(const struct refusal *r, size_t n, bool is_exec)
{
  for (size_t i = 0; i < n; i++) {
    struct create_args c;
    struct exec_args x;
    struct err e;
    int rc = is_exec ? exec(r[i].json, &x, &e) : create(r[i].json, &c, &e);
    /* err.field is the argument; where inside it is in the message. */
    char field[64];
    snprintf(field, sizeof field, "%.*s", (int)strcspn(r[i].field, ".["), r[i].field);
    if (strchr(r[i].field, '[') && !strstr(e.msg, r[i].field)) CHECK_STR(e.msg, r[i].field);
    if (strcmp(r[i].field, "sandbox.create") == 0) strcpy(field, "sandbox.create");
    if (rc >= 0 || e.kind != ERR_INVALID_ARGUMENT || strcmp(e.field, field) != 0 ||
        !strstr(e.msg, r[i].says)) {
      fprintf(stderr, "%s: rc %d, field \"%s\": %s\n", r[i].json, rc, e.field, e.msg);
      CHECK(false);
    }
  }
}

static void create_refuses(void)
{
  static const struct refusal r[] = {
      {"{\"timout\":5}", "timout", "did you mean \"timeout\""},
      {"{\"Memory\":512}", "Memory", "did you mean \"memory\""},
      {"{\"idel_timeout\":5}", "idel_timeout", "did you mean \"idle_timeout\""},
      {"{\"zzzzzz\":5}", "zzzzzz", "has no field \"zzzzzz\""},
      {"[1]", "sandbox.create", "a table of named fields, not a list of 1"},
      {"\"x\"", "sandbox.create", "a table of named fields, not \"x\""},
      {"{\"timeout\":0}", "timeout",
       "timeout must be whole seconds from 1 to 86400 (300, \"90s\", \"5m\", \"2h\"), not 0"},
      {"{\"timeout\":86401}", "timeout", "not 86401"},
      {"{\"timeout\":1.5}", "timeout", "not 1.5"},
      {"{\"timeout\":\"1.5\"}", "timeout", "not \"1.5\""},
      {"{\"timeout\":1.0000000001}", "timeout", "whole seconds"},
      {"{\"timeout\":\"1500ms\"}", "timeout", "whole seconds"},
      {"{\"timeout\":-1}", "timeout", "not -1"},
      {"{\"timeout\":\"5 m\"}", "timeout", "not \"5 m\""},
      {"{\"timeout\":\"\"}", "timeout", "not \"\""},
      {"{\"timeout\":\"0x10\"}", "timeout", "not \"0x10\""},
      {"{\"timeout\":\"1e2\"}", "timeout", "not \"1e2\""},
      {"{\"timeout\":\"5.\"}", "timeout", "not \"5.\""},
      {"{\"timeout\":true}", "timeout", "not true"},
      {"{\"timeout\":{}}", "timeout", "an empty table"},
      {"{\"timeout\":1e300}", "timeout", "not 1e+300"},
      {"{\"timeout\":\"99999999999999999999\"}", "timeout", "whole seconds"},
      {"{\"idle_timeout\":-0.5}", "idle_timeout", "from 0 to"},
      {"{\"cpu\":0.1}", "cpu", "a number from 0.125 to"},
      {"{\"cpu\":0}", "cpu", "not 0"},
      {"{\"memory\":127}", "memory", "an integer of MiB from 128 to"},
      {"{\"memory\":512.5}", "memory", "not 512.5"},
      {"{\"memory\":\"512M\"}", "memory", "\"512MiB\""},
      {"{\"memory\":\"200000KiB\"}", "memory", "an integer of MiB"},
      {"{\"disk\":0}", "disk", "from 1 to"},
      {"{\"pids\":0}", "pids", "an integer from 1 to"},
      {"{\"pids\":1.5}", "pids", "not 1.5"},
      {"{\"gpu\":\"T5\"}", "gpu", "one of T4, L4, A10G, A100, H100"},
      {"{\"gpu\":\"A100:9\"}", "gpu", "not \"A100:9\""},
      {"{\"gpu\":\"A100:0\"}", "gpu", "not \"A100:0\""},
      {"{\"gpu\":\"A100:\"}", "gpu", "not \"A100:\""},
      {"{\"gpu\":\"cpu\"}", "gpu", "not \"cpu\""},
      {"{\"gpu\":[\"T4\",\"nope\"]}", "gpu[2]", "gpu[2] must be"},
      {"{\"gpu\":7}", "gpu", "not 7"},
      {"{\"network\":\"closed\"}", "network", "\"none\", \"open\" or { allow ="},
      {"{\"network\":{\"alow\":[]}}", "network",
       "network has no field \"alow\": did you mean \"allow\""},
      {"{\"network\":{\"allow\":[\"a b\"]}}", "network.allow[1]", "a destination"},
      {"{\"network\":{\"allow\":[\"ok\",\"x:99999\"]}}", "network.allow[2]", "a destination"},
      {"{\"network\":{\"allow\":[\"a*.org\"]}}", "network.allow[1]", "a destination"},
      {"{\"unencrypted_ports\":[0]}", "unencrypted_ports[1]", "a port from 1 to 65535, not 0"},
      {"{\"encrypted_ports\":[80,65536]}", "encrypted_ports[2]", "not 65536"},
      {"{\"encrypted_ports\":80}", "encrypted_ports", "a list of up to"},
      {"{\"ready\":{}}", "ready.tcp", "ready.tcp is missing"},
      {"{\"ready\":8000}", "ready", "a table with a port"},
      {"{\"volumes\":[{\"source\":\"a\"}]}", "volumes[1].target", "is missing"},
      {"{\"volumes\":[{\"source\":\"a\",\"target\":\"/x/../y\"}]}", "volumes[1].target",
       "without \"..\""},
      {"{\"volumes\":[{\"source\":\"a\",\"target\":\"/\"}]}", "volumes[1].target", "below /"},
      {"{\"volumes\":[{\"source\":\"a\",\"target\":\"/d\",\"readonly\":1}]}", "volumes[1].readonly",
       "true or false, not 1"},
      {"{\"volumes\":[\"data\"]}", "volumes[1]", "a table with source and target"},
      {"{\"tags\":{\"n\":42}}", "tags.n", "tags.n must be a string (\"42\"), not 42"},
      {"{\"tags\":{\"n\":true}}", "tags.n", "must be a string, not true"},
      {"{\"tags\":[\"a\"]}", "tags", "a table of strings by name"},
      {"{\"tags\":\"a\"}", "tags", "a table of strings by name"},
      {"{\"env\":{\"A B\":\"1\"}}", "env", "without \"=\" and blanks, not \"A B\""},
      {"{\"env\":{\"A=B\":\"1\"}}", "env", "not \"A=B\""},
      {"{\"env\":{\"\":\"1\"}}", "env", "not \"\""},
      {"{\"cwd\":\"srv\"}", "cwd", "an absolute path, not \"srv\""},
      {"{\"cwd\":\"\"}", "cwd", "an absolute path"},
      {"{\"user\":\"a b\"}", "user", "a user name or number"},
      {"{\"user\":1.5}", "user", "not 1.5"},
      {"{\"image\":\"\"}", "image", "the name of an image"},
      {"{\"image\":5}", "image", "not 5"},
      {"{\"name\":\"a/b\"}", "name", "a name of letters"},
      {"{\"entrypoint\":\"sleep\"}", "entrypoint", "a list of arguments"},
      {"{\"entrypoint\":[\"sleep\",1]}", "entrypoint[2]", "a string, not 1"},
  };
  check_refusals(r, sizeof r / sizeof *r, false);
}

static void exec_takes(void)
{
  struct exec_args a;
  struct err e;
  CHECK_INT(exec("{\"sandbox_id\":\"sb_x\",\"command\":\"echo hi | wc\"}", &a, &e), 0);
  CHECK_INT(a.argv.n, 3);
  CHECK_STR(a.argv.v[0], "/bin/sh");
  CHECK_STR(a.argv.v[1], "-c");
  CHECK_STR(a.argv.v[2], "echo hi | wc");
  CHECK(a.argv.v[3] == NULL);
  CHECK_INT(a.timeout_ms, 0);
  CHECK_INT(a.max_output, 8 << 20);
  CHECK_INT(a.on_overflow, OVERFLOW_TRUNCATE);
  exec_args_free(&a);

  CHECK_INT(exec("{\"sandbox_id\":\"sb_x\",\"command\":[\"a\",\"\",\"b\"],\"timeout\":\"250ms\","
                 "\"cwd\":\"/\",\"user\":\"nobody\",\"env\":{\"A\":\"1\"},\"stdin\":\"x\","
                 "\"max_output\":\"64KiB\",\"on_overflow\":\"kill\",\"stream\":true}",
                 &a, &e),
            0);
  CHECK_INT(a.argv.n, 3);
  CHECK_STR(a.argv.v[1], "");
  CHECK_INT(a.timeout_ms, 250);
  CHECK_INT(a.max_output, 65536);
  CHECK_INT(a.on_overflow, OVERFLOW_KILL);
  CHECK_INT(a.stdin_len, 1);
  CHECK(a.stream && !a.stdin_stream);
  exec_args_free(&a);

  CHECK_INT(exec("{\"sandbox_id\":\"x\",\"command\":\"x\",\"timeout\":0.0001}", &a, &e), 0);
  CHECK_INT(a.timeout_ms, 1);
  exec_args_free(&a);
  CHECK_INT(exec("{\"sandbox_id\":\"x\",\"command\":\"x\",\"max_output\":2}", &a, &e), 0);
  CHECK_INT(a.max_output, 2 << 20);
  exec_args_free(&a);
}

static void exec_refuses(void)
{
  static const struct refusal r[] = {
      {"{\"command\":\"x\"}", "sandbox_id", "sandbox_id is missing"},
      {"{\"sandbox_id\":\"x\"}", "command", "command is missing"},
      {"{\"sandbox_id\":\"x\",\"command\":\"\"}", "command", "that is not empty, not \"\""},
      {"{\"sandbox_id\":\"x\",\"command\":[]}", "command", "not an empty table"},
      {"{\"sandbox_id\":\"x\",\"command\":{}}", "command", "not an empty table"},
      {"{\"sandbox_id\":\"x\",\"command\":5}", "command", "not 5"},
      {"{\"sandbox_id\":\"x\",\"command\":[\"a\",{}]}", "command[2]", "a string"},
      {"{\"sandbox_id\":\"x\",\"command\":\"x\",\"timeout\":0}", "timeout", "a duration from 1 ms"},
      {"{\"sandbox_id\":\"x\",\"command\":\"x\",\"timeout\":86401}", "timeout", "86400 s"},
      {"{\"sandbox_id\":\"x\",\"command\":\"x\",\"cwd\":\"a\"}", "cwd", "an absolute path"},
      {"{\"sandbox_id\":\"x\",\"command\":\"x\",\"stdin\":5}", "stdin", "a string"},
      {"{\"sandbox_id\":\"x\",\"command\":\"x\",\"stdin\":\"\",\"stdin_stream\":true}", "stdin",
       "not both"},
      {"{\"sandbox_id\":\"x\",\"command\":\"x\",\"on_overflow\":\"stop\"}", "on_overflow",
       "\"truncate\" or \"kill\", not \"stop\""},
      {"{\"sandbox_id\":\"x\",\"command\":\"x\",\"on_stdot\":1}", "on_stdot",
       "did you mean \"on_stdout\""},
      {"{\"sandbox_id\":\"x\",\"command\":\"x\",\"max_output\":\"2GiB\"}", "max_output",
       "1024 MiB"},
  };
  check_refusals(r, sizeof r / sizeof *r, true);
}

static struct val exec_of(struct val arg)
{
  struct val v = val_map(), command = val_list();
  val_push(&command, val_str("echo"));
  val_push(&command, arg);
  val_set(&v, "sandbox_id", val_str("sb_x"));
  val_set(&v, "command", command);
  return v;
}

static struct val letters(size_t n)
{
  char *p = xmalloc(n + 1);
  memset(p, 'x', n);
  p[n] = '\0';
  return val_take_bytes(p, n);
}

static void kernel_limits_are_ours(void)
{
  struct exec_args a;
  struct err e = {0};
  struct val v = exec_of(letters(131071));
  CHECK_INT(exec_args_parse(&v, &a, &e), 0);
  exec_args_free(&a);
  val_free(&v);

  v = exec_of(letters(131072));
  CHECK(exec_args_parse(&v, &a, &e) < 0);
  CHECK_STR(e.field, "command");
  CHECK(strncmp(e.msg, "command[2] is", 13) == 0);
  CHECK(strstr(e.msg, "131072 bytes long: one argument may have 131071") != NULL);
  val_free(&v);

  v = exec_of(val_bytes("a\0b", 3));
  CHECK(exec_args_parse(&v, &a, &e) < 0);
  CHECK_STR(e.msg, "command[2] must not contain a NUL byte");
  val_free(&v);

  v = exec_of(val_str("x"));
  val_set(&v, "command", letters(131072));
  CHECK(exec_args_parse(&v, &a, &e) < 0);
  CHECK_STR(e.field, "command");
  val_set(&v, "command", val_bytes("a\0b", 3));
  CHECK(exec_args_parse(&v, &a, &e) < 0);
  CHECK_STR(e.field, "command");
  val_set(&v, "command", val_str("true"));
  val_set(&v, "cwd", val_bytes("/a\0b", 4));
  CHECK(exec_args_parse(&v, &a, &e) < 0);
  CHECK_STR(e.msg, "cwd must not contain a NUL byte");
  val_remove(&v, "cwd");
  struct val env = val_map();
  val_set(&env, "A", val_bytes("a\0b", 3));
  val_set(&v, "env", env);
  CHECK(exec_args_parse(&v, &a, &e) < 0);
  CHECK_STR(e.msg, "env.A must not contain a NUL byte");
  val_set(val_get_mut(&v, "env"), "A", letters(131070));
  CHECK(exec_args_parse(&v, &a, &e) < 0);
  CHECK_STR(e.field, "env");
  CHECK(strncmp(e.msg, "env.A is", 8) == 0);
  val_set(val_get_mut(&v, "env"), "A", letters(131069));
  CHECK_INT(exec_args_parse(&v, &a, &e), 0);
  exec_args_free(&a);
  val_free(&v);

  /* 1 MiB of arguments passes, more than the kernel could take does not. */
  v = exec_of(val_str("x"));
  for (int i = 0; i < 10; i++) val_push(val_get_mut(&v, "command"), letters(100000));
  CHECK_INT(exec_args_parse(&v, &a, &e), 0);
  exec_args_free(&a);
  for (int i = 0; i < 60; i++) val_push(val_get_mut(&v, "command"), letters(100000));
  CHECK(exec_args_parse(&v, &a, &e) < 0);
  CHECK(strstr(e.msg, "bytes in all") != NULL);
  val_free(&v);
}

static void messages_stay_readable(void)
{
  struct val v = val_map();
  struct create_args a;
  struct err e = {0};
  val_set(&v, "image", letters(5000));
  CHECK(create_args_parse(&v, NULL, &a, &e) < 0);
  CHECK_STR(e.msg, "image must be at most 4096 bytes long, not 5000");
  val_set(&v, "image", val_str("a\x1b[31m\nb c"));
  CHECK(create_args_parse(&v, NULL, &a, &e) < 0);
  CHECK(!strpbrk(e.msg, "\x1b\n"));
  val_remove(&v, "image");
  /* A long name is cut, never overflows, and is no field's misspelling. */
  char *name = xcalloc(1, 100001);
  memset(name, 't', 100000);
  val_set(&v, name, val_int(1));
  CHECK(create_args_parse(&v, NULL, &a, &e) < 0);
  CHECK(strlen(e.msg) < 300 && !strstr(e.msg, "did you mean"));
  free(name);
  val_free(&v);
  v = val_map();
  val_set(&v, "cpu\n\x1b", val_int(1));
  CHECK(create_args_parse(&v, NULL, &a, &e) < 0);
  CHECK(!strpbrk(e.msg, "\x1b\n"));
  val_free(&v);
}

static void small_ops(void)
{
  struct err e = {0};
  struct target_args t;
  struct val v = parse("{\"sandbox_id\":\"sb_x\",\"engine\":\"local\"}");
  CHECK_INT(target_args_parse("sandbox.status", &v, &t, &e), 0);
  CHECK_STR(t.sandbox_id, "sb_x");
  target_args_free(&t);
  val_free(&v);
  v = parse("{\"sandbox_di\":\"x\"}");
  CHECK(target_args_parse("sandbox.status", &v, &t, &e) < 0);
  CHECK_STR(e.msg, "sandbox.status has no field \"sandbox_di\": did you mean \"sandbox_id\"?");
  val_free(&v);

  struct list_args l;
  v = parse("{\"tags\":{\"a\":\"b\"},\"state\":\"running\"}");
  CHECK_INT(list_args_parse(&v, &l, &e), 0);
  list_args_free(&l);
  val_free(&v);
  v = parse("{\"state\":\"dead\"}");
  CHECK(list_args_parse(&v, &l, &e) < 0);
  CHECK_STR(e.field, "state");
  val_free(&v);

  struct extend_args x;
  v = parse("{\"sandbox_id\":\"x\",\"seconds\":\"5m\"}");
  CHECK_INT(extend_args_parse(&v, &x, &e), 0);
  CHECK_INT(x.seconds, 300);
  extend_args_free(&x);
  val_free(&v);
  v = parse("{\"sandbox_id\":\"x\",\"seconds\":0}");
  CHECK(extend_args_parse(&v, &x, &e) < 0);
  val_free(&v);

  struct price_args p;
  v = parse("{\"gpu\":\"t4\",\"timeout\":\"90m\"}");
  CHECK_INT(price_args_parse(&v, &p, &e), 0);
  CHECK_INT(p.timeout_s, 5400);
  price_args_free(&p);
  val_free(&v);

  v = parse("{\"x\":1}");
  CHECK(no_args_parse("sandbox.engines", &v, &e) < 0);
  CHECK_STR(e.msg, "sandbox.engines has no field \"x\"");
  val_free(&v);
  v = parse("{}");
  CHECK_INT(no_args_parse("sandbox.engines", &v, &e), 0);
  val_free(&v);
}

static void file_ops(void)
{
  static const struct {
    enum file_kind kind;
    const char *json, *field;
  } wrong[] = {{FILE_READ, "{\"sandbox_id\":\"sb_1\"}", "path"},
               {FILE_READ, "{\"path\":\"/f\"}", "sandbox_id"},
               {FILE_READ, "{\"sandbox_id\":\"sb_1\",\"path\":\"\"}", "path"},
               {FILE_READ, "{\"sandbox_id\":\"sb_1\",\"path\":\"/f\",\"max\":\"x\"}", "max"},
               {FILE_READ, "{\"sandbox_id\":\"sb_1\",\"path\":\"/f\",\"mode\":\"0644\"}", "mode"},
               {FILE_WRITE, "{\"sandbox_id\":\"sb_1\",\"path\":\"/f\",\"mode\":\"0888\"}", "mode"},
               {FILE_WRITE, "{\"sandbox_id\":\"sb_1\",\"path\":\"/f\",\"mode\":\"4755\"}", "mode"},
               {FILE_WRITE, "{\"sandbox_id\":\"sb_1\",\"path\":\"/f\",\"mode\":-1}", "mode"},
               {FILE_STAT, "{\"sandbox_id\":\"sb_1\",\"path\":\"/f\",\"follow\":1}", "follow"},
               {FILE_MKDIR, "{\"sandbox_id\":\"sb_1\",\"path\":\"/f\",\"user\":\"a b\"}", "user"}};
  struct file_args a;
  struct err e = {0};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    struct val v = parse(wrong[i].json);
    CHECK(file_args_parse(wrong[i].kind, &v, &a, &e) < 0);
    CHECK_STR(e.field, wrong[i].field);
    val_free(&v);
  }
  struct val v = parse("{\"sandbox_id\":\"sb_1\",\"path\":\"/f\",\"mode\":\"0751\",\"user\":1000}");
  CHECK_INT(file_args_parse(FILE_WRITE, &v, &a, &e), 0);
  CHECK_INT(a.mode, 0751);
  CHECK_STR(a.user, "1000");
  file_args_free(&a);
  val_free(&v);
  v = parse("{\"sandbox_id\":\"sb_1\",\"path\":\"f\"}");
  CHECK_INT(file_args_parse(FILE_STAT, &v, &a, &e), 0);
  CHECK(a.follow && a.mode == FILE_MODE_KEEP);
  file_args_free(&a);
  val_free(&v);
}

/* Rows come out of a sandbox: whatever the bytes, nothing beyond them is read. */
static void file_rows(void)
{
  struct file_row row = {.mode = 0120777, .name_len = 2, .target_len = 3, .size = 3, .mtime = 7};
  struct buf b = {0};
  buf_append(&b, &row, sizeof row);
  buf_puts(&b, "ab../");
  struct val list = val_list();
  CHECK(!file_rows_read(b.data, b.len - 1, &list));
  b.len -= 1;
  buf_puts(&b, "x");
  row = (struct file_row){.mode = 0100644, .size = UINT64_MAX};
  buf_append(&b, &row, sizeof row);
  val_free(&list);
  list = val_list();
  CHECK(file_rows_read(b.data, b.len, &list));
  CHECK_INT(list.list.n, 2);
  CHECK_STR(val_get_str(&list.list.v[0], "type", ""), "link");
  CHECK_STR(val_get_str(&list.list.v[0], "target", ""), "..x");
  CHECK_STR(val_get_str(&list.list.v[0], "mode", ""), "0777");
  CHECK_STR(val_get_str(&list.list.v[1], "type", ""), "file");
  CHECK(val_get_int(&list.list.v[1], "size", -1) >= 0);
  val_free(&list);
  for (size_t cut = 1; cut < b.len; cut++) {
    char *exact = xmemdup(b.data, cut); /* sanitizers see a byte too many */
    list = val_list();
    CHECK(file_rows_read(exact, cut, &list) == (cut == sizeof row + 5));
    val_free(&list);
    free(exact);
  }
  row.name_len = UINT32_MAX;
  list = val_list();
  CHECK(!file_rows_read((const char *)&row, sizeof row, &list));
  val_free(&list);
  buf_free(&b);
}

static void outcomes_print(void)
{
  struct outcome o = {.reason = REASON_EXITED,
                      .out = xstrdup("hi\n"),
                      .out_len = 3,
                      .out_bytes = 3,
                      .duration_ms = 7,
                      .cpu_ms = 2,
                      .max_rss_mib = 1};
  struct val v = outcome_print(&o);
  struct buf b = {0};
  json_print(&b, &v);
  CHECK_STR(b.data, "{\"ok\":true,\"reason\":\"exited\",\"exit_code\":0,\"stdout\":\"hi\\n\","
                    "\"stderr\":\"\",\"truncated\":{\"stdout\":false,\"stderr\":false},"
                    "\"stdout_bytes\":3,\"stderr_bytes\":0,\"duration_ms\":7,"
                    "\"usage\":{\"cpu_ms\":2,\"max_rss_mib\":1}}");
  val_free(&v);
  buf_free(&b);
  outcome_free(&o);
  o = (struct outcome){.reason = REASON_SIGNAL, .signal = 9};
  v = outcome_print(&o);
  CHECK_STR(val_get_str(&v, "signal", ""), "SIGKILL");
  CHECK(val_get(&v, "exit_code") == NULL);
  CHECK(!val_get_bool(&v, "ok", true));
  val_free(&v);
  char name[24];
  CHECK_STR(signal_name(15, name), "SIGTERM");
  CHECK_STR(signal_name(36, name), "SIGRTMIN+2");
  CHECK_STR(reason_name(REASON_SANDBOX_TIMEOUT), "sandbox_timeout");
  CHECK_STR(reason_name(REASON_UNKNOWN), "unknown");
}

const struct test_case test_cases[] = {{"defaults_are_filled_in", defaults_are_filled_in},
                                       {"every_create_field", every_create_field},
                                       {"forms_are_accepted", forms_are_accepted},
                                       {"create_refuses", create_refuses},
                                       {"exec_takes", exec_takes},
                                       {"exec_refuses", exec_refuses},
                                       {"kernel_limits_are_ours", kernel_limits_are_ours},
                                       {"messages_stay_readable", messages_stay_readable},
                                       {"small_ops", small_ops},
                                       {"file_ops", file_ops},
                                       {"file_rows", file_rows},
                                       {"outcomes_print", outcomes_print},
                                       {0}};

/* sandbox/supervisor, case by case, over an engine in memory. */
#include "supervisor_world.h"

static void create_exec_terminate(void)
{
  set_up(NULL);
  struct call c = {0};
  CHECK(call(&c, "sandbox.create", "{\"tags\":{\"run\":\"42\"},\"name\":\"db\",\"timeout\":60}"));
  snprintf(id, sizeof id, "%s", val_get_str(&c.result, "sandbox_id", "?"));
  CHECK_INT(strlen(id), 13);
  CHECK_STR(val_get_str(&c.result, "status", ""), "running");
  CHECK_STR(val_get_str(&c.result, "state", ""), "started");
  CHECK_STR(val_get_str(&c.result, "name", ""), "db");
  CHECK_STR(val_get_str(&c.result, "app_id", ""), "default");
  CHECK_STR(val_get_str(val_get(&c.result, "tags"), "run", ""), "42");
  CHECK_INT(val_get_int(val_get(&c.result, "config"), "timeout", 0), 60);
  CHECK(val_get_num(&c.result, "cost", -1) == 0);
  CHECK_INT(strlen(val_get_str(&c.result, "created_at", "")), 20);
  CHECK(strcmp(val_get_str(&c.result, "created_at", ""), val_get_str(&c.result, "expires_at", "")) <
        0);

  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"3\",\"1\"]}", id));
  CHECK_STR(reason(&c), "exited");
  CHECK_INT(val_get_int(&c.result, "exit_code", -1), 3);
  CHECK(!val_get_bool(&c.result, "ok", true));
  CHECK_INT(val_get_int(&c.result, "duration_ms", -1), 1);
  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"signal\",\"11\"]}", id));
  CHECK_STR(val_get_str(&c.result, "signal", ""), "SIGSEGV");
  CHECK(val_get(&c.result, "exit_code") == NULL);
  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"oom\"]}", id));
  CHECK_STR(reason(&c), "oom");
  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"lost\"]}", id));
  CHECK_STR(reason(&c), "unknown");
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"badcwd\"]}", id));
  CHECK_STR(c.err.field, "cwd");

  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_INT(val_get_int(&c.result, "commands_executed", -1), 5);
  CHECK(val_get(&c.result, "reason") == NULL);
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "status", ""), "terminated");
  CHECK_INT(fake.boxes_n, 0);
  CHECK(!call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&c), "sandbox_terminated");
  CHECK_STR(c.err.sandbox_id, id);
  CHECK_STR(c.err.engine, "local");
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
  CHECK_STR(code(&c), "sandbox_terminated");
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "status", ""), "terminated");
  CHECK_STR(val_get_str(&c.result, "reason", ""), "terminated");
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"sb_nope\",\"command\":\"x\"}"));
  CHECK_STR(code(&c), "sandbox_not_found");
  call_clear(&c);
  tear_down();
}

static void ops_of_others_are_not_found(void)
{
  set_up(NULL);
  create("{}");
  uint64_t other = supervisor_owner_new(sup, &(struct owner_conf){.name = "other"});
  static const char *const names[] = {"sandbox.status", "sandbox.terminate", "sandbox.get",
                                      "sandbox.detach"};
  struct call c = {0};
  char json[128];
  snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\"}", id);
  for (size_t i = 0; i < 4; i++) {
    CHECK(!submit_as(&c, other, names[i], json));
    CHECK_STR(code(&c), "sandbox_not_found");
  }
  CHECK(!submit_as(&c, 0, "sandbox.status", json));
  CHECK(!submit_as(&c, 12345, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "cancelled");
  submit_as(&c, other, "sandbox.list", "{}");
  finish(&c);
  CHECK_INT(c.result.list.n, 0);
  call_clear(&c);
  tear_down();
}

static void clocks_end_sandboxes(void)
{
  set_up(NULL);
  struct call c = {0}, x = {0};
  create("{\"timeout\":1}");
  CHECK(submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id));
  finish(&x);
  CHECK_STR(reason(&x), "sandbox_timeout");
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
  CHECK_STR(code(&c), "sandbox_timeout");
  CHECK(!call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&c), "sandbox_timeout");
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(reason(&c), "sandbox_timeout");

  /* A running command keeps it busy, a status does not. */
  create("{\"idle_timeout\":1}");
  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"0\",\"1300\"]}",
             id));
  CHECK_STR(reason(&c), "exited");
  run_ms(600);
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "status", ""), "running");
  run_ms(600);
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
  CHECK_STR(code(&c), "sandbox_timeout");
  CHECK(strstr(c.err.msg, "idle") != NULL);
  call_clear(&c);
  call_clear(&x);
  tear_down();
}

static void exec_time_outs(void)
{
  set_up(NULL);
  struct call c = {0};
  create("{}");
  fake.kill_first = false;
  for (int order = 0; order < 2; order++) {
    fake.kill_first = order;
    CHECK(call(&c, "sandbox.exec",
               "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"],\"timeout\":\"20ms\"}", id));
    CHECK_STR(reason(&c), "timeout");
  }
  /* It exits while the kill is on its way: it exited. */
  fake.kill_exec_ms = 60;
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"7\",\"30\"],\"timeout\":\"10ms\"}",
             id));
  CHECK_STR(reason(&c), "exited");
  CHECK_INT(val_get_int(&c.result, "exit_code", -1), 7);
  /* A kill that fails is tried again. */
  fake.kill_exec_ms = 1;
  fake.fail_kills = 1;
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"],\"timeout\":\"10ms\"}", id));
  CHECK_STR(reason(&c), "timeout");
  call_clear(&c);
  tear_down();
}

/* Many that print much: one owner has a quarter of the bound, each command its two ends. */
static void output_of_all_is_bounded(void)
{
  set_up(&(struct supervisor_conf){.output_max = 256 << 10});
  struct call c = {0}, many[20] = {0};
  create("{}");
  for (int i = 0; i < 20; i++)
    CHECK(submit(&many[i], "sandbox.exec",
                 "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"100000\"]}", id));
  struct supervisor_stats stats;
  size_t most = 0;
  for (int i = 0; i < 20; i++)
    while (!many[i].done) {
      run_ms(1);
      supervisor_stats(sup, &stats);
      if (stats.captured > most) most = stats.captured;
    }
  /* What all may have, 20 × 2 streams × 2 halves × 4 KiB, is more than their 64 KiB. */
  CHECK(most >= 64 << 10 && most <= 20 * 4 * 4096 + (64 << 10));
  for (int i = 0; i < 20; i++) {
    const struct val *r = &many[i].result;
    CHECK(val_get(r, "stdout")->s.len >= 8192 && val_get(r, "stdout")->s.len < 30000);
    CHECK(val_get_bool(val_get(r, "truncated"), "stdout", false));
    CHECK_INT(val_get_int(r, "stdout_bytes", 0) + val_get_int(r, "stderr_bytes", 0), 100000);
    call_clear(&many[i]);
  }
  supervisor_stats(sup, &stats);
  CHECK_INT(stats.captured, 0);
  /* One alone has all it asks for. */
  CHECK(call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"20000\"]}", id));
  CHECK(!val_get_bool(val_get(&c.result, "truncated"), "stdout", true));
  /* It is no limit of the command's own that memory is short. */
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"200000\"],"
             "\"on_overflow\":\"kill\"}",
             id));
  CHECK_STR(reason(&c), "exited");
  CHECK(val_get_bool(val_get(&c.result, "truncated"), "stdout", false));
  call_clear(&c);
  tear_down();
}

static void output_is_bounded(void)
{
  set_up(NULL);
  struct call c = {0};
  create("{}");
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"5000\"],\"max_output\":\"1000B\"}",
             id));
  CHECK_STR(reason(&c), "exited");
  const struct val *out = val_get(&c.result, "stdout"), *err = val_get(&c.result, "stderr");
  CHECK(out->s.len == 1000 && err->s.len == 1000);
  CHECK_INT(val_get_int(&c.result, "stdout_bytes", 0) + val_get_int(&c.result, "stderr_bytes", 0),
            5000);
  CHECK(val_get_bool(val_get(&c.result, "truncated"), "stdout", false));
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"100000\"],\"max_output\":\"1KiB\","
             "\"on_overflow\":\"kill\"}",
             id));
  CHECK_STR(reason(&c), "output_limit");
  CHECK(val_get_int(&c.result, "stdout_bytes", 0) < 50000);
  /* What exits on its own beyond its limit has broken it all the same. */
  fake.kill_exec_ms = 100;
  CHECK(call(&c, "sandbox.exec",
             "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"3000\"],\"max_output\":\"1KiB\","
             "\"on_overflow\":\"kill\"}",
             id));
  CHECK_STR(reason(&c), "output_limit");
  call_clear(&c);
  tear_down();
}

static void streams_flow_and_input(void)
{
  set_up(NULL);
  struct call c = {.pause_after = 3};
  create("{}");
  submit(&c, "sandbox.exec",
         "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"2000\"],\"stream\":true}", id);
  run_ms(50);
  CHECK_INT(c.done, 0);
  CHECK_INT(c.chunks, 3);
  CHECK_INT(fake.flows_paused, 1);
  op_flow(c.op, false);
  finish(&c);
  CHECK_INT(c.chunk_bytes, 2000);
  CHECK_STR(reason(&c), "exited");

  /* Ending a paused command lets its output flow. */
  c.pause_after = 2;
  submit(&c, "sandbox.exec",
         "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"2000\"],\"stream\":true}", id);
  run_ms(30);
  CHECK_INT(c.done, 0);
  op_cancel(c.op, ERR_CANCELLED);
  finish(&c);
  CHECK(fake.flows_resumed >= 2);

  c.pause_after = 0;
  submit(&c, "sandbox.exec",
         "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"0\",\"5000\"],\"stdin_stream\":true}", id);
  run_ms(10);
  struct err e = {0};
  CHECK_INT(op_input(c.op, "hello", 5, &e), 0);
  CHECK_INT(op_input(c.op, "", 0, &e), 0);
  finish(&c);
  CHECK_INT(fake.inputs, 5);
  CHECK_STR(reason(&c), "exited");
  call_clear(&c);
  tear_down();
}

static void exec_races_terminate(void)
{
  for (int order = 0; order < 2; order++) {
    set_up(NULL);
    struct call c = {0}, x = {0}, y = {0}, late = {0};
    create("{}");
    fake.kill_first = order;
    fake.kill_ms = 20;
    submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
    submit(&y, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"5\",\"8\"]}", id);
    submit(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
    /* From here on nothing new starts. */
    CHECK(!submit(&late, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
    CHECK_STR(code(&late), "sandbox_terminated");
    finish(&c);
    CHECK(c.ok && x.done == 1 && y.done == 1);
    CHECK_STR(reason(&x), "terminated");
    CHECK_STR(reason(&y), "exited");
    call_clear(&c);
    call_clear(&x);
    call_clear(&y);
    tear_down();
  }
}

static void terminate_twice_at_once(void)
{
  set_up(NULL);
  struct call a = {0}, b = {0}, gone = {0};
  create("{}");
  fake.kill_ms = 30;
  submit(&a, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  submit(&b, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  submit(&gone, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  run_ms(5);
  CHECK(!a.done && !b.done); /* both wait for the last process */
  op_cancel(gone.op, ERR_CANCELLED);
  run_ms(5);
  CHECK_INT(gone.done, 1);
  CHECK_STR(code(&gone), "cancelled");
  finish(&a);
  CHECK(a.ok && b.done == 1);
  CHECK_STR(code(&b), "sandbox_terminated");
  CHECK_INT(fake.kills, 1);
  call_clear(&a);
  call_clear(&b);
  tear_down();
}

static void boxes_that_end_by_themselves(void)
{
  static const struct {
    enum box_end why;
    const char *reason, *status;
  } ends[] = {{BOX_END_OOM, "oom", "oom"}, {BOX_END_LOST, "unknown", "unknown"}};
  for (size_t i = 0; i < 2; i++) {
    set_up(NULL);
    struct call c = {0}, x = {0};
    create("{}");
    submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
    struct fbox *b = list_entry(fake.boxes.next, struct fbox, node);
    b->end_why = ends[i].why;
    timer_start(loop, &b->end, 5);
    finish(&x);
    CHECK_STR(reason(&x), ends[i].reason);
    run_ms(20);
    CHECK_INT(fake.boxes_n, 0);
    CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
    CHECK_STR(val_get_str(&c.result, "status", ""), "terminated");
    CHECK_STR(reason(&c), ends[i].status);
    CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
    CHECK_STR(code(&c), "sandbox_terminated");
    call_clear(&c);
    call_clear(&x);
    tear_down();
  }
}

static void creates_fail_and_are_cancelled(void)
{
  set_up(NULL);
  struct call c = {0};
  fake.refuse_create = true;
  CHECK(!submit(&c, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "unsupported");
  fake.refuse_create = false;
  fake.fail_create = true;
  CHECK(!call(&c, "sandbox.create", "{\"name\":\"a\"}"));
  CHECK_STR(code(&c), "capacity");
  CHECK_STR(c.err.engine, "local");
  fake.fail_create = false;

  /* The cancel is heard … */
  fake.create_ms = 50;
  submit(&c, "sandbox.create", "{\"name\":\"a\"}");
  run_ms(5);
  op_cancel(c.op, ERR_CANCELLED);
  finish(&c);
  CHECK_STR(code(&c), "cancelled");
  CHECK_INT(fake.boxes_n, 0);
  /* … or not: the box is made, and killed. */
  fake.ignore_cancel = true;
  submit(&c, "sandbox.create", "{\"name\":\"a\"}");
  run_ms(5);
  op_cancel(c.op, ERR_TIMEOUT);
  finish(&c);
  CHECK_STR(code(&c), "timeout");
  CHECK_INT(fake.boxes_n, 0);
  CHECK_INT(fake.kills, 3);
  /* Nothing of it is left: not the name, not the count. */
  fake.create_ms = 1;
  create("{\"name\":\"a\"}");
  call_clear(&c);
  tear_down();
}

static void caps_and_names(void)
{
  set_up(&(struct supervisor_conf){.max_sandboxes = 3});
  struct call c = {0};
  uint64_t small =
      supervisor_owner_new(sup, &(struct owner_conf){.name = "small.lua", .max_sandboxes = 1});
  submit_as(&c, small, "sandbox.create", "{\"name\":\"db\"}");
  finish(&c);
  CHECK(c.ok);
  CHECK(!submit_as(&c, small, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "limit");
  CHECK(strstr(c.err.msg, "small.lua may have 1 sandboxes") != NULL);
  create("{\"name\":\"db\"}"); /* unique per owner only */
  CHECK(!submit(&c, "sandbox.create", "{\"name\":\"db\"}"));
  CHECK_STR(code(&c), "conflict");
  CHECK_STR(c.err.field, "name");
  CHECK_STR(c.err.sandbox_id, id);
  submit(&c, "sandbox.create", "{}");
  finish(&c);
  CHECK(!submit(&c, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "capacity");
  CHECK(strstr(c.err.msg, "3 sandboxes") != NULL);
  call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  create("{\"name\":\"db\"}");
  call_clear(&c);
  tear_down();
}

static void nothing_asked_is_ignored(void)
{
  set_up(NULL);
  fake_ops.probe = NULL;
  static const struct {
    const char *json, *code, *field;
  } r[] = {
      {"{\"network\":\"open\"}", "unsupported", "network"},
      {"{\"network\":{\"allow\":[\"a.org\"]}}", "unsupported", "network"},
      {"{\"volumes\":[{\"source\":\"d\",\"target\":\"/d\"}]}", "unsupported", "volumes"},
      {"{\"unencrypted_ports\":[80]}", "unsupported", "unencrypted_ports"},
      {"{\"encrypted_ports\":[80]}", "unsupported", "encrypted_ports"},
      {"{\"ready\":{\"tcp\":80}}", "unsupported", "ready"},
      {"{\"gpu\":\"T4\"}", "capacity", "gpu"},
      {"{\"engine\":\"locla\"}", "invalid_argument", "engine"},
      {"{\"image\":\"dir:/srv\"}", "denied", "image"},
      {"{\"timeout\":1.5}", "invalid_argument", "timeout"},
  };
  struct call c = {0};
  for (size_t i = 0; i < sizeof r / sizeof *r; i++) {
    CHECK(!submit(&c, "sandbox.create", "%s", r[i].json));
    CHECK_STR(code(&c), r[i].code);
    CHECK_STR(c.err.field, r[i].field);
  }
  CHECK(!submit(&c, "sandbox.create", "{\"engine\":\"locla\"}"));
  CHECK(strstr(c.err.msg, "did you mean \"local\"") != NULL);
  CHECK_STR(c.err.hint, "engines here: \"local\"");
  fake_ops.probe = fake_probe;
  submit_as(&c, 0, "sandbox.create", "{\"image\":\"dir:/srv\"}"); /* the host itself may */
  finish(&c);
  CHECK(c.ok);
  call_clear(&c);
  tear_down();
}

static void owners_take_theirs_along(void)
{
  set_up(NULL);
  struct call c[4] = {{0}};
  create("{}");
  submit(&c[0], "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  create("{}");
  fake.create_ms = 30;
  submit(&c[1], "sandbox.create", "{}");
  run_ms(5);
  int ended = 0;
  fake.ignore_cancel = true;
  supervisor_owner_end(sup, owner, count_done, &ended);
  CHECK_INT(ended, 0);
  CHECK(!submit(&c[2], "sandbox.create", "{}"));
  CHECK_STR(code(&c[2]), "cancelled");
  for (int i = 0; i < 20 && !ended; i++) run_ms(10);
  CHECK_INT(ended, 1);
  CHECK_INT(fake.boxes_n, 0);
  CHECK_STR(reason(&c[0]), "terminated");
  CHECK_STR(code(&c[1]), "cancelled");
  /* One without anything ends too, later than the call. */
  uint64_t empty = supervisor_owner_new(sup, &(struct owner_conf){0});
  supervisor_owner_end(sup, empty, count_done, &ended);
  CHECK_INT(ended, 1);
  run_ms(5);
  CHECK_INT(ended, 2);
  for (size_t i = 0; i < 4; i++) call_clear(&c[i]);
  tear_down();
}

static void kills_that_fail(void)
{
  set_up(NULL);
  struct call c = {0};
  create("{}");
  fake.fail_kills = 2;
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_INT(fake.kills, 3);
  call_clear(&c);
  tear_down();
}

static void shutdown_gives_up(void)
{
  set_up(NULL);
  struct call c = {0}, x = {0}, t = {0};
  create("{}");
  submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  fake.never_kill = true;
  submit(&t, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  struct err e = {0};
  supervisor_shutdown(sup, 30, on_closed, &e);
  CHECK(!submit(&c, "sandbox.create", "{}"));
  CHECK_STR(code(&c), "engine_unavailable");
  loop_run(loop);
  CHECK_INT(e.kind, ERR_ENGINE_UNAVAILABLE);
  CHECK(strstr(e.msg, "1 sandboxes have not ended") != NULL);
  CHECK_INT(x.done, 1);
  CHECK_INT(t.done, 1);
  CHECK_STR(code(&x), "engine_unavailable");
  CHECK_INT(ops_in_flight(ops), 0);
  supervisor_free(sup);
  ops_free(ops);
  loop_free(loop);
}

static void lists_and_extends(void)
{
  set_up(NULL);
  struct call c = {0};
  create("{\"tags\":{\"a\":\"1\",\"b\":\"2\"},\"app_id\":\"x\"}");
  create("{\"tags\":{\"a\":\"1\"},\"timeout\":60}");
  static const struct {
    const char *json;
    size_t n;
  } lists[] = {{"{}", 2},
               {"{\"tags\":{\"a\":\"1\"}}", 2},
               {"{\"tags\":{\"a\":\"1\",\"b\":\"2\"}}", 1},
               {"{\"tags\":{\"a\":\"2\"}}", 0},
               {"{\"app_id\":\"x\"}", 1},
               {"{\"state\":\"running\"}", 2},
               {"{\"state\":\"started\"}", 2},
               {"{\"state\":\"pending\"}", 0},
               {"{\"state\":\"terminated\"}", 0},
               {"{\"engine\":\"local\"}", 2}};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    CHECK(call(&c, "sandbox.list", "%s", lists[i].json));
    CHECK_INT(c.result.list.n, lists[i].n);
  }
  CHECK(call(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":\"5m\"}", id));
  CHECK_INT(val_get_int(val_get(&c.result, "config"), "timeout", 0), 360);
  CHECK(!call(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":86041}", id));
  CHECK_STR(c.err.field, "seconds");
  CHECK(strstr(c.err.msg, "86040 more at most") != NULL);
  CHECK(call(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":86040}", id));
  CHECK(!call(&c, "sandbox.detach", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&c), "unsupported");
  CHECK(strstr(c.err.hint, "serve") != NULL);
  CHECK(call(&c, "sandbox.get", "{\"sandbox_id\":\"%s\",\"engine\":\"local\"}", id));
  CHECK(!call(&c, "sandbox.get", "{\"sandbox_id\":\"%s\",\"engine\":\"other\"}", id));
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK(call(&c, "sandbox.list", "{\"state\":\"terminated\"}"));
  CHECK_INT(c.result.list.n, 1);
  CHECK(call(&c, "sandbox.list", "{}"));
  CHECK_INT(c.result.list.n, 1);

  CHECK(call(&c, "sandbox.engines", "{}"));
  CHECK_STR(val_get_str(&c.result.list.v[0], "name", ""), "local");
  CHECK(call(&c, "sandbox.gpus", "{}"));
  CHECK_INT(c.result.list.n, 5);
  CHECK(call(&c, "sandbox.price", "{\"gpu\":\"T4\",\"timeout\":\"90m\"}"));
  CHECK_INT(val_get_int(&c.result, "microusd", -1), 0);
  supervisor_set_priced(sup, "local", true);
  CHECK(call(&c, "sandbox.price", "{\"gpu\":\"T4\",\"timeout\":\"90m\"}"));
  CHECK_INT(val_get_int(&c.result, "microusd", -1), 2250000);
  create("{}");
  CHECK(call(&c, "sandbox.extend", "{\"sandbox_id\":\"%s\",\"seconds\":3300}", id));
  CHECK(val_get_num(&c.result, "cost", 0) == 0.1);
  call_clear(&c);
  tear_down();
}

static void ended_ids_are_kept_for_a_while(void)
{
  set_up(&(struct supervisor_conf){.retain_ms = 40});
  struct call c = {0};
  create("{}");
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  run_ms(60);
  CHECK(!call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&c), "sandbox_not_found");
  call_clear(&c);
  tear_down();
}

static void entrypoints(void)
{
  set_up(NULL);
  struct call c = {0}, x = {0};
  /* It is no activity, no counted command, and ends the sandbox when it ends. */
  create("{\"entrypoint\":[\"exit\",\"4\",\"60\"]}");
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_INT(val_get_int(&c.result, "commands_executed", -1), 0);
  CHECK(val_get(val_get(&c.result, "config"), "entrypoint") != NULL);
  submit(&x, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  finish(&x);
  CHECK_STR(reason(&x), "terminated");
  run_ms(20);
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "state", ""), "finished");
  CHECK_STR(val_get_str(&c.result, "status", ""), "terminated");
  CHECK_INT(val_get_int(&c.result, "returncode", -1), 4);
  CHECK(call(&c, "sandbox.list", "{\"state\":\"finished\"}"));
  CHECK_INT(c.result.list.n, 1);

  create("{\"entrypoint\":[\"hang\"],\"idle_timeout\":1}");
  run_ms(1100);
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(reason(&c), "sandbox_timeout");

  fake.refuse_exec = true;
  CHECK(!call(&c, "sandbox.create", "{\"entrypoint\":[\"hang\"]}"));
  CHECK_STR(code(&c), "exec_failed");
  fake.refuse_exec = false;
  create("{\"entrypoint\":[\"badcwd\"]}");
  run_ms(20);
  CHECK(!call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":\"x\"}", id));
  CHECK_STR(code(&c), "sandbox_terminated");
  CHECK(strstr(c.err.msg, "entrypoint could not be started") != NULL);
  call_clear(&c);
  call_clear(&x);
  tear_down();
}

static void readiness(void)
{
  set_up(NULL);
  struct call c = {0}, w = {0};
  fake.open_after = 3;
  create("{\"ready\":{\"tcp\":8000}}");
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "state", ""), "started");
  submit(&w, "sandbox.wait_ready", "{\"sandbox_id\":\"%s\"}", id);
  CHECK(call(&c, "sandbox.wait_ready", "{\"sandbox_id\":\"%s\",\"timeout\":5}", id));
  CHECK_STR(val_get_str(&c.result, "state", ""), "ready");
  CHECK_STR(val_get_str(&c.result, "status", ""), "running");
  CHECK_INT(w.done, 1);
  CHECK(w.ok);
  struct fbox *b = list_entry(fake.boxes.next, struct fbox, node);
  CHECK_INT(b->probes, 4);
  run_ms(300);
  CHECK_INT(b->probes, 4); /* yes is for good */
  CHECK(call(&c, "sandbox.wait_ready", "{\"sandbox_id\":\"%s\"}", id));

  /* Without a check it is ready at once, and is not asked. */
  create("{}");
  CHECK(call(&c, "sandbox.wait_ready", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "state", ""), "started");

  fake.open_after = -1;
  create("{\"ready\":{\"tcp\":8000}}");
  CHECK(!call(&c, "sandbox.wait_ready", "{\"sandbox_id\":\"%s\",\"timeout\":0.05}", id));
  CHECK_STR(code(&c), "timeout");
  CHECK(strstr(c.err.msg, "port 8000") != NULL);
  submit(&w, "sandbox.wait_ready", "{\"sandbox_id\":\"%s\"}", id);
  op_cancel(w.op, ERR_CANCELLED);
  finish(&w);
  CHECK_STR(code(&w), "cancelled");
  submit(&w, "sandbox.wait_ready", "{\"sandbox_id\":\"%s\"}", id);
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  finish(&w);
  CHECK_STR(code(&w), "sandbox_terminated");

  /* Its entrypoint ends first. */
  create("{\"ready\":{\"tcp\":8000},\"entrypoint\":[\"print\",\"20000\",\"4\"]}");
  CHECK(!call(&w, "sandbox.wait_ready", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&w), "sandbox_terminated");
  CHECK(strstr(w.err.hint, "ended with 4; it printed last: ") != NULL);
  run_ms(20);
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  const struct val *entry = val_get(&c.result, "entrypoint");
  CHECK(entry != NULL);
  CHECK_INT(val_get(entry, "stdout")->s.len, 8192);
  CHECK(val_get(entry, "truncated")->b);
  CHECK(!val_get(entry, "running")->b);

  call_clear(&c);
  call_clear(&w);
  tear_down();
}

static int admit_none(void *data, const struct val *asked, struct create_args *args,
                      struct err *err)
{
  (void)data, (void)asked;
  if (args->image_made || strcmp(args->image, "host") == 0) return 0;
  return err_set(err, ERR_DENIED, 0, "not granted");
}

static int admit_mine(void *data, const char *name, struct err *err)
{
  (void)data;
  return strcmp(name, "mine") == 0 ? 0 : err_set(err, ERR_DENIED, 0, "not granted");
}

static void images_of_sandboxes(void)
{
  set_up(NULL);
  struct call c = {0}, w = {0};
  owner = supervisor_owner_new(
      sup, &(struct owner_conf){.name = "careful", .admit = admit_none, .admit_name = admit_mine});
  create("{\"env\":{\"A\":\"1\"},\"name\":\"one\",\"memory\":256,\"tags\":{\"t\":\"2\"}}");
  CHECK(call(&c, "sandbox.diff", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_INT(c.result.list.n, 2);
  CHECK_STR(val_get_str(&c.result.list.v[1], "kind", ""), "deleted");
  CHECK_STR(val_get_str(&c.result.list.v[1], "type", ""), "directory");

  /* What it made it may use, whatever else it may. */
  CHECK(!call(&c, "sandbox.create", "{\"image\":\"sha256:1\"}"));
  CHECK(call(&c, "sandbox.snapshot", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(val_get_str(&c.result, "image", ""), "sha256:1");
  CHECK(call(&c, "sandbox.create", "{\"image\":\"sha256:1\"}"));
  CHECK(call(&c, "sandbox.fork", "{\"sandbox_id\":\"%s\",\"image\":\"sha256:1\"}", id));
  const struct val *config = val_get(&c.result, "config");
  CHECK_INT(val_get_int(config, "memory", 0), 256);
  CHECK_STR(val_get_str(val_get(&c.result, "tags"), "t", ""), "2");
  CHECK(!val_get(&c.result, "name"));
  CHECK(call(&c, "sandbox.forget", "{\"image\":\"sha256:1\"}"));
  CHECK_INT(fake.dropped, 1);
  CHECK(!call(&c, "sandbox.fork", "{\"sandbox_id\":\"%s\",\"image\":\"sha256:1\"}", id));
  CHECK_STR(code(&c), "denied");

  CHECK(!call(&c, "sandbox.commit", "{\"sandbox_id\":\"%s\",\"name\":\"other\"}", id));
  CHECK_STR(code(&c), "denied");
  CHECK(!call(&c, "sandbox.commit", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(c.err.field, "name");
  CHECK(call(&c, "sandbox.commit", "{\"sandbox_id\":\"%s\",\"name\":\"mine\"}", id));
  CHECK(call(&c, "sandbox.create", "{\"image\":\"mine\"}"));

  /* Sixteen without a name, those in the making included; a name costs none. */
  for (int i = 0; i < 15; i++) CHECK(call(&c, "sandbox.snapshot", "{\"sandbox_id\":\"%s\"}", id));
  CHECK(submit(&w, "sandbox.snapshot", "{\"sandbox_id\":\"%s\"}", id));
  CHECK(!submit(&c, "sandbox.snapshot", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_STR(code(&c), "limit");
  op_cancel(w.op, ERR_CANCELLED);
  finish(&w);
  CHECK_STR(code(&w), "cancelled");

  /* Its owner ends meanwhile: nobody is left to keep the image for. */
  CHECK(submit(&w, "sandbox.snapshot", "{\"sandbox_id\":\"%s\"}", id));
  int ended = 0, dropped = fake.dropped;
  supervisor_owner_end(sup, owner, count_done, &ended);
  finish(&w);
  CHECK_INT(ended, 1);
  CHECK_INT(fake.dropped, dropped + 16);
  owner = supervisor_owner_new(sup, &(struct owner_conf){.name = "script"});
  call_clear(&c);
  call_clear(&w);
  tear_down();
}

static void detached_sandboxes_live_on(void)
{
  fake_caps = ENGINE_CAP_OUTLIVES_HOST | ENGINE_CAP_ENTRYPOINT;
  set_up(NULL);
  struct call c = {0}, x = {0};
  create("{\"entrypoint\":[\"hang\"]}");
  CHECK_INT(fake.execs_n, 0); /* this engine runs entrypoints itself */
  uint64_t other = supervisor_owner_new(sup, &(struct owner_conf){.name = "other"});
  submit_as(&x, other, "sandbox.create", "{}");
  finish(&x);
  CHECK(call(&c, "sandbox.detach", "{\"sandbox_id\":\"%s\"}", id));
  CHECK(!call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id)); /* no longer its own */
  int ended = 0;
  supervisor_owner_end(sup, owner, count_done, &ended);
  run_ms(5);
  CHECK_INT(ended, 1);
  CHECK_INT(fake.boxes_n, 2);
  char json[128];
  snprintf(json, sizeof json, "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  submit_as(&x, 0, "sandbox.exec", json);
  struct err e = {0};
  supervisor_shutdown(sup, 5000, on_closed, &e);
  loop_run(loop);
  CHECK_INT(e.kind, ERR_NONE);
  CHECK_STR(reason(&x), "cancelled");
  CHECK_INT(fake.boxes_n, 0);
  CHECK_INT(fake.left_n, 1); /* the other's was ended, this one was not */
  supervisor_free(sup);
  ops_free(ops);
  loop_free(loop);
  call_clear(&c);
  call_clear(&x);
  fake_caps = 0;
}

static void adopted_sandboxes_are_left(void)
{
  fake_caps = ENGINE_CAP_OUTLIVES_HOST;
  set_up(NULL);
  struct call c = {0};
  CHECK(!call(&c, "sandbox.get", "{\"sandbox_id\":\"sb_elsewhere0\"}")); /* it may not */
  CHECK_INT(fake.boxes_n, 0);
  owner = supervisor_owner_new(
      sup, &(struct owner_conf){.name = "s", .may_adopt = true, .max_sandboxes = 1});
  CHECK(call(&c, "sandbox.get", "{\"sandbox_id\":\"sb_elsewhere0\"}"));
  CHECK_STR(val_get_str(&c.result, "sandbox_id", ""), "sb_elsewhere0");
  CHECK(call(&c, "sandbox.get", "{\"sandbox_id\":\"sb_elsewhere0\"}")); /* known by now */
  CHECK_INT(fake.boxes_n, 1);
  CHECK(!call(&c, "sandbox.get", "{\"sandbox_id\":\"sb_elsewhere1\"}")); /* beyond its cap */
  CHECK(
      call(&c, "sandbox.exec", "{\"sandbox_id\":\"sb_elsewhere0\",\"command\":[\"exit\",\"0\"]}"));
  int ended = 0;
  supervisor_owner_end(sup, owner, count_done, &ended);
  run_ms(5);
  CHECK_INT(ended, 1);
  CHECK_INT(fake.left_n, 1);
  owner = supervisor_owner_new(sup, &(struct owner_conf){.name = "t", .may_adopt = true});
  CHECK(call(&c, "sandbox.get", "{\"sandbox_id\":\"sb_elsewhere0\"}"));
  CHECK(call(&c, "sandbox.terminate", "{\"sandbox_id\":\"sb_elsewhere0\"}"));
  CHECK_INT(fake.left_n, 1); /* this one was asked to end */
  call_clear(&c);
  tear_down();
  fake_caps = 0;
}

static struct buf events;

static void operations_on_files(void)
{
  static const struct {
    int error;
    const char *code;
  } errors[] = {{2, "not_found"},
                {13, "denied"},
                {30, "denied"},
                {17, "conflict"},
                {20, "conflict"},
                {21, "conflict"},
                {28, "payload_too_large"},
                {27, "payload_too_large"},
                {36, "invalid_argument"},
                {12, "capacity"},
                {5, "internal"}};
  struct call c = {0};
  set_up(NULL);
  create("{}");
  CHECK(!call(&c, "sandbox.read", "{\"sandbox_id\":\"%s\",\"path\":\"/0\"}", id));
  CHECK_STR(code(&c), "unsupported");
  CHECK_STR(c.err.engine, "local");
  tear_down();
  fake_caps = ENGINE_CAP_FILES;
  set_up(NULL);
  fake_caps = 0;
  create("{\"idle_timeout\":1}");
  CHECK(call(&c, "sandbox.read", "{\"sandbox_id\":\"%s\",\"path\":\"/0\"}", id));
  CHECK_INT(c.chunk_bytes, 4);
  CHECK_INT(val_get_int(&c.result, "bytes", 0), 4);
  CHECK(!call(&c, "sandbox.read", "{\"sandbox_id\":\"%s\",\"path\":\"/0\",\"max\":\"3B\"}", id));
  CHECK_STR(code(&c), "payload_too_large"); /* whatever the engine sends */
  CHECK_INT(c.chunk_bytes, 0);
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    CHECK(!call(&c, "sandbox.write", "{\"sandbox_id\":\"%s\",\"path\":\"/%d\"}", id,
                errors[i].error));
    CHECK_STR(code(&c), errors[i].code);
    CHECK_STR(c.err.field, "path");
    CHECK_STR(c.err.sandbox_id, id);
  }
  /* No row for a stat is no answer. */
  CHECK(!call(&c, "sandbox.stat", "{\"sandbox_id\":\"%s\",\"path\":\"/0\"}", id));
  CHECK_STR(code(&c), "internal");
  CHECK(call(&c, "sandbox.list_files", "{\"sandbox_id\":\"%s\",\"path\":\"/0\"}", id));
  CHECK_INT(c.result.list.n, 0);
  /* A write travels as a tree: three records and their bytes. */
  fake.inputs = 0;
  submit(&c, "sandbox.write", "{\"sandbox_id\":\"%s\",\"path\":\"/hang\"}", id);
  CHECK_INT(op_input(c.op, "abc", 3, NULL), 0);
  CHECK_INT(op_input(c.op, "", 0, NULL), 0);
  CHECK_INT(op_input(c.op, "late", 4, NULL), 0);
  CHECK_INT(fake.inputs, 4 * 32 + 3);
  finish(&c);
  CHECK_STR(code(&c), "ok");
  CHECK_INT(val_get_int(&c.result, "bytes", 0), 3);
  /* They end by time-out and by cancel, they are no commands, and they are activity. */
  CHECK(!call(&c, "sandbox.read",
              "{\"sandbox_id\":\"%s\",\"path\":\"/hang\",\"timeout\":\"1200ms\"}", id));
  CHECK_STR(code(&c), "timeout");
  submit(&c, "sandbox.read", "{\"sandbox_id\":\"%s\",\"path\":\"/hang\"}", id);
  run_ms(5);
  op_cancel(c.op, ERR_CANCELLED);
  finish(&c);
  CHECK_STR(code(&c), "cancelled");
  CHECK(call(&c, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_INT(val_get_int(&c.result, "commands_executed", -1), 0);
  CHECK_STR(val_get_str(&c.result, "status", ""), "running");
  submit(&c, "sandbox.read", "{\"sandbox_id\":\"%s\",\"path\":\"/hang\"}", id);
  struct call t = {0};
  call(&t, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  finish(&c);
  CHECK_STR(code(&c), "sandbox_terminated");
  call_clear(&t);
  call_clear(&c);
  tear_down();
}

static void spawned_commands(void)
{
  struct call c = {0}, w = {0};
  set_up(NULL);
  create("{}");
  CHECK(!call(&c, "sandbox.spawn", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id));
  CHECK_STR(code(&c), "unsupported");
  tear_down();
  fake_caps = ENGINE_CAP_SPAWN;
  set_up(NULL);
  fake_caps = 0;
  create("{}");
  CHECK(call(&c, "sandbox.spawn", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id));
  CHECK_INT(val_get_int(&c.result, "pid", 0), 7);
  CHECK_INT(val_get_int(&c.result, "exec", 0), 1);
  CHECK(!call(&c, "sandbox.spawn", "{\"sandbox_id\":\"%s\",\"command\":[\"badcwd\"]}", id));
  CHECK_STR(c.err.field, "cwd");
  CHECK(!call(&c, "sandbox.wait", "{\"sandbox_id\":\"%s\",\"exec\":2}", id)); /* never was one */
  CHECK_STR(code(&c), "not_found");
  CHECK(!call(&c, "sandbox.kill", "{\"sandbox_id\":\"%s\",\"exec\":1,\"signal\":\"TREM\"}", id));
  CHECK_STR(c.err.field, "signal");
  CHECK(call(&c, "sandbox.kill", "{\"sandbox_id\":\"%s\",\"exec\":1,\"signal\":\"term\"}", id));
  /* Output that was printed before anybody asked, and then none until the end. */
  CHECK(call(&c, "sandbox.spawn",
             "{\"sandbox_id\":\"%s\",\"command\":[\"print\",\"900\",\"3\"],"
             "\"max_output\":\"100B\"}",
             id));
  CHECK(call(&w, "sandbox.wait", "{\"sandbox_id\":\"%s\",\"exec\":3}", id));
  CHECK_INT(val_get_int(&w.result, "exit_code", -1), 3);
  CHECK_INT(strlen(val_get_str(&w.result, "stdout", "")), 100);
  CHECK(val_get_bool(val_get(&w.result, "truncated"), "stdout", false));
  CHECK(call(&c, "sandbox.output", "{\"sandbox_id\":\"%s\",\"exec\":3}", id));
  CHECK_INT(strlen(val_get_str(&c.result, "data", "")), val_get_int(&w.result, "stdout_bytes", 0));
  CHECK(call(&c, "sandbox.output", "{\"sandbox_id\":\"%s\",\"exec\":3}", id));
  CHECK(c.ok && !val_get(&c.result, "data"));
  /* A number that was guessed before the command failed to start: that fails too. */
  submit(&c, "sandbox.spawn", "{\"sandbox_id\":\"%s\",\"command\":[\"badcwd\"]}", id);
  submit(&w, "sandbox.wait", "{\"sandbox_id\":\"%s\",\"exec\":4}", id);
  finish(&c);
  finish(&w);
  CHECK_STR(code(&w), "invalid_argument");
  /* Two readers of one stream, and one that gives up. */
  submit(&c, "sandbox.output", "{\"sandbox_id\":\"%s\",\"exec\":1}", id);
  CHECK(!call(&w, "sandbox.output", "{\"sandbox_id\":\"%s\",\"exec\":1}", id));
  CHECK_STR(code(&w), "conflict");
  op_cancel(c.op, ERR_CANCELLED);
  finish(&c);
  CHECK_STR(code(&c), "cancelled");
  /* All that waits is answered by the end, the sandbox's too, and can be asked again. */
  submit(&c, "sandbox.output", "{\"sandbox_id\":\"%s\",\"exec\":1}", id);
  submit(&w, "sandbox.wait", "{\"sandbox_id\":\"%s\",\"exec\":1}", id);
  run_ms(5);
  struct call t = {0};
  CHECK(call(&t, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id));
  finish(&w);
  finish(&c);
  CHECK_STR(reason(&w), "terminated");
  CHECK(c.ok && !val_get(&c.result, "data"));
  CHECK(call(&w, "sandbox.wait", "{\"sandbox_id\":\"%s\",\"exec\":1}", id));
  CHECK_STR(reason(&w), "terminated");
  CHECK(call(&t, "sandbox.kill", "{\"sandbox_id\":\"%s\",\"exec\":1}", id));
  CHECK(!call(&t, "sandbox.input", "{\"sandbox_id\":\"%s\",\"exec\":1}", id));
  CHECK_STR(code(&t), "conflict");
  CHECK(call(&t, "sandbox.status", "{\"sandbox_id\":\"%s\"}", id));
  CHECK_INT(val_get_int(&t.result, "commands_executed", 0), 4);
  call_clear(&t);
  call_clear(&w);
  call_clear(&c);
  tear_down();
}

static void on_event(void *data, uint64_t who, const struct val *v)
{
  CHECK(data == &events && who == owner);
  CHECK_STR(val_get_str(v, "owner", ""), "script");
  buf_printf(&events, "%s:%s ", val_get_str(v, "event", "?"), val_get_str(v, "reason", ""));
}

static void events_come_in_order(void)
{
  set_up(NULL);
  struct call c = {0};
  supervisor_subscribe(sup, on_event, &events);
  create("{}");
  call(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"exit\",\"0\"]}", id);
  submit(&c, "sandbox.exec", "{\"sandbox_id\":\"%s\",\"command\":[\"hang\"]}", id);
  struct call t = {0};
  call(&t, "sandbox.terminate", "{\"sandbox_id\":\"%s\"}", id);
  CHECK_STR(events.data, "sandbox_created: exec_started: exec_done:exited exec_started: "
                         "exec_done:terminated sandbox_ended:terminated ");
  supervisor_unsubscribe(sup, on_event, &events);
  create("{}");
  CHECK(strlen(events.data) < 200);
  buf_free(&events);
  call_clear(&c);
  call_clear(&t);
  tear_down();
}

const struct test_case test_cases[] = {
    {"create_exec_terminate", create_exec_terminate},
    {"ops_of_others_are_not_found", ops_of_others_are_not_found},
    {"clocks_end_sandboxes", clocks_end_sandboxes},
    {"exec_time_outs", exec_time_outs},
    {"output_is_bounded", output_is_bounded},
    {"output_of_all_is_bounded", output_of_all_is_bounded},
    {"streams_flow_and_input", streams_flow_and_input},
    {"exec_races_terminate", exec_races_terminate},
    {"terminate_twice_at_once", terminate_twice_at_once},
    {"boxes_that_end_by_themselves", boxes_that_end_by_themselves},
    {"creates_fail_and_are_cancelled", creates_fail_and_are_cancelled},
    {"caps_and_names", caps_and_names},
    {"nothing_asked_is_ignored", nothing_asked_is_ignored},
    {"owners_take_theirs_along", owners_take_theirs_along},
    {"kills_that_fail", kills_that_fail},
    {"shutdown_gives_up", shutdown_gives_up},
    {"lists_and_extends", lists_and_extends},
    {"ended_ids_are_kept_for_a_while", ended_ids_are_kept_for_a_while},
    {"entrypoints", entrypoints},
    {"readiness", readiness},
    {"images_of_sandboxes", images_of_sandboxes},
    {"detached_sandboxes_live_on", detached_sandboxes_live_on},
    {"adopted_sandboxes_are_left", adopted_sandboxes_are_left},
    {"spawned_commands", spawned_commands},
    {"operations_on_files", operations_on_files},
    {"events_come_in_order", events_come_in_order},
    {0}};

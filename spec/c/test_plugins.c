/* Plugins over a supervisor with an engine in memory: who may call their ops, cancels at random
 * moments, a plugin that dies with creates waiting, one that never listens. */
#include "supervisor_world.h"

#include "base/buf.h"
#include "base/clock.h"
#include "host/files.h"
#include "host/plugins.h"

static struct plugins *plugins;
static struct buf warnings;
static const char *want_warning; /* at the end */

static void on_warning(enum log_level level, const char *text, void *data)
{
  (void)level, (void)data;
  buf_printf(&warnings, "%s\n", text);
}

static const char *owner_name(void *data, uint64_t who)
{
  (void)data;
  return who == owner ? "script" : NULL;
}

static void open_plugins(void)
{
  set_up(NULL);
  log_set_level(LOG_WARN);
  log_set_sink(on_warning, NULL);
  plugins = plugins_new(
      &(struct plugins_conf){.loop = loop, .ops = ops, .sup = sup, .owner_name = owner_name});
}

static bool add(const char *name, const char *text, struct err *err)
{
  return plugins_add(plugins,
                     &(struct plugin_conf){.name = name, .text = text, .len = strlen(text)},
                     err) == 0;
}

static void load(const char *name, const char *text)
{
  struct err err = {0};
  CHECK(add(name, text, &err));
  if (plugins_load(plugins, &err) < 0) fprintf(stderr, "load: %s\n", err.msg);
  CHECK_STR(err.msg, "");
}

static void on_plugins_closed(void *data)
{
  ++*(int *)data;
  loop_stop(loop);
}

/* As a run ends: the supervisor, then the plugins. */
static void close_plugins(void)
{
  struct err e = {0};
  int closed = 0;
  supervisor_shutdown(sup, 5000, on_closed, &e);
  loop_run(loop);
  CHECK_INT(e.kind, ERR_NONE);
  plugins_close(plugins, on_plugins_closed, &closed);
  for (int i = 0; i < 100 && !closed; i++) run_ms(100);
  CHECK_INT(closed, 1);
  if (want_warning) CHECK(warnings.data && strstr(warnings.data, want_warning));
  want_warning = NULL;
  CHECK_INT(ops_in_flight(ops), 0);
  CHECK_INT(calls_open, 0);
  CHECK_INT(fake.boxes_n, 0);
  plugins_free(plugins);
  supervisor_free(sup);
  ops_free(ops);
  loop_free(loop);
  log_set_sink(NULL, NULL);
  buf_free(&warnings);
}

static void asks_and_hands_on(void)
{
  open_plugins();
  load("p",
       "return { on = { before_create = function(o, info)\n"
       "  if o.cpu == 4 then error { code = 'rate_limited', message = 'slow', field = 'cpu' } end\n"
       "  if info.script == 'script' then o.cpu = info.config.cpu / 2 end end } }");
  struct call c = {0};
  CHECK(call(&c, "sandbox.create", "{\"cpu\":2}"));
  CHECK(val_get_num(val_get(&c.result, "config"), "cpu", 0) == 1);
  CHECK(!call(&c, "sandbox.create", "{\"cpu\":4}"));
  CHECK_STR(code(&c), "rate_limited");
  CHECK_STR(c.err.field, "cpu");
  /* What makes no sense is no plugin's to judge. */
  CHECK(!call(&c, "sandbox.create", "{\"cpu\":\"many\"}"));
  CHECK_STR(code(&c), "invalid_argument");
  /* The host's own creates go by. */
  submit_as(&c, 0, "sandbox.create", "{\"cpu\":4}");
  finish(&c);
  CHECK(c.ok);
  call_clear(&c);
  close_plugins();
}

static void keeps_its_ops_to_itself(void)
{
  static const char *const names[] = {"plugin.load", "plugin.declare", "plugin.next",
                                      "plugin.reply"};
  open_plugins();
  load("p", "return { tools = { f = function() end } }");
  struct call c = {0};
  for (size_t i = 0; i < 4; i++) {
    CHECK(!call(&c, names[i], "{\"id\":1,\"queue\":\"calls\",\"value\":{}}"));
    CHECK_STR(code(&c), "denied");
  }
  static const char *const bad[] = {"{}", "{\"plugin\":\"p\"}", "{\"plugin\":\"p\",\"tool\":\"g\"}",
                                    "{\"plugin\":1,\"tool\":[]}"};
  for (size_t i = 0; i < 4; i++) {
    CHECK(!call(&c, "plugin.call", "%s", bad[i]));
    CHECK_STR(code(&c), "not_found");
  }
  CHECK(!call(&c, "plugin.call", "{\"plugin\":\"p\",\"tool\":\"f\",\"args\":7}"));
  CHECK_STR(code(&c), "invalid_argument");
  CHECK(call(&c, "plugin.call", "{\"plugin\":\"p\",\"tool\":\"f\",\"args\":[null,1]}"));
  call_clear(&c);
  struct files_grants g;
  CHECK(!plugins_grants(plugins, owner, &g));
  struct val v = {0};
  struct err err = {0};
  static const char *const modules[] = {"", ".", "p.", "p.g", "p.f.f", "q", "q.f"};
  for (size_t i = 0; i < 7; i++) CHECK(plugins_module(plugins, modules[i], &v, &err) < 0);
  CHECK_INT(plugins_module(plugins, "p.f", &v, &err), 0);
  CHECK_STR(val_get_str(&v, "tool", ""), "f");
  val_free(&v);
  close_plugins();
}

/* Creates and tools that are cancelled whenever, with a plugin that takes its time: each is
 * answered once, and nothing is left. */
static void cancels_at_random(void)
{
  enum { N = 300 };
  static struct call calls[N];
  open_plugins();
  load("p", "local task, n = require 'task', 0\n"
            "local function slow() n = n + 1 task.sleep(n % 7 / 1000)\n"
            "  if n % 5 == 0 then error { code = 'denied', message = 'fifth' } end end\n"
            "return { on = { before_create = slow, created = function() task.sleep(0.001) end },\n"
            "  tools = { slow = slow } }");
  memset(calls, 0, sizeof calls);
  for (int i = 0; i < N; i++) {
    submit_as(&calls[i], owner, i % 3 ? "sandbox.create" : "plugin.call",
              i % 3 ? "{}" : "{\"plugin\":\"p\",\"tool\":\"slow\"}");
    struct call *victim = &calls[rnd((unsigned)i + 1)];
    if (victim->op && rnd(2)) op_cancel(victim->op, ERR_CANCELLED);
    if (i % 8 == 0) run_ms(1 + rnd(4));
  }
  int made = 0, refused = 0, cancelled = 0;
  for (int i = 0; i < 100 && calls_open > 0; i++) run_ms(50);
  for (int i = 0; i < N; i++) {
    CHECK_INT(calls[i].done, 1);
    made += calls[i].ok;
    refused += strcmp(code(&calls[i]), "denied") == 0;
    cancelled += strcmp(code(&calls[i]), "cancelled") == 0;
    call_clear(&calls[i]);
  }
  CHECK(made > 0 && refused > 0 && cancelled > 0);
  CHECK_INT(made + refused + cancelled, N);
  close_plugins();
}

static void dies_with_creates_waiting(void)
{
  enum { N = 20 };
  static struct call calls[N];
  open_plugins();
  load("p", "local task, n = require 'task', 0\n"
            "return { on = { before_create = function() n = n + 1\n"
            "  if n < 20 then task.sleep(100) end\n"
            "  local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end end } }");
  memset(calls, 0, sizeof calls);
  for (int i = 0; i < N; i++) submit_as(&calls[i], owner, "sandbox.create", "{}");
  for (int i = 0; i < 100 && calls_open > 0; i++) run_ms(100);
  for (int i = 0; i < N; i++) {
    CHECK_INT(calls[i].done, 1);
    CHECK_STR(code(&calls[i]), "denied");
    CHECK(strstr(calls[i].err.msg, "plugin p"));
    call_clear(&calls[i]);
  }
  struct call c = {0};
  CHECK(!call(&c, "sandbox.create", "{}"));
  CHECK(strstr(c.err.msg, "plugin p has ended"));
  call_clear(&c);
  CHECK(warnings.data && strstr(warnings.data, "plugin p has ended: the script holds"));
  close_plugins();
}

/* A plugin that never comes back from its first event does not hold up the end for long. */
static void never_listens(void)
{
  open_plugins();
  load("p", "return { timeout = 300, on = { created = function() while true do end end,\n"
            "  terminated = function() end } }");
  struct call c = {0};
  for (int i = 0; i < 3; i++) CHECK(call(&c, "sandbox.create", "{}"));
  call_clear(&c);
  uint64_t start = clock_mono_ms();
  want_warning = "plugin p did not hear of";
  close_plugins();
  CHECK(clock_mono_ms() - start < 9000);
}

static void loads_or_says_why(void)
{
  struct err err = {0};
  open_plugins();
  CHECK(!add("a b", "return {}", &err) && !add("", "return {}", &err));
  CHECK(add("one", "return {}", &err) && !add("one", "return {}", &err));
  CHECK(add("two", "return { on = { created = 1 } }", &err));
  CHECK(add("hangs", "while true do end", &err));
  err = (struct err){0};
  CHECK(plugins_load(plugins, &err) < 0);
  CHECK_STR(err.msg, "plugin two: on.created must be a function, not a number");
  close_plugins();
}

const struct test_case test_cases[] = {{"asks_and_hands_on", asks_and_hands_on},
                                       {"keeps_its_ops_to_itself", keeps_its_ops_to_itself},
                                       {"cancels_at_random", cancels_at_random},
                                       {"dies_with_creates_waiting", dies_with_creates_waiting},
                                       {"never_listens", never_listens},
                                       {"loads_or_says_why", loads_or_says_why},
                                       {0}};

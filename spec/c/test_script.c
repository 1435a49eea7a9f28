/* script: scripts from strings, on a loop, with small ops of their own to call. */
#include "script_run.h"

static void prints(void)
{
  expect("print('hello', 1, nil, ...)", "hello\t1\tnil\tone\ttwo\n");
  expect("io.write('a', 1, 2.5, '\\n'):write('b\\n')", "a12.5\nb\n");
  expect("#!/usr/bin/env -S regolith run\nprint(args[1], arg[2], #args)", "one\ttwo\t2\n");
}

static void sleeps_and_spawns(void)
{
  expect("local t = task.now()\n"
         "local a = task.spawn(function(x) task.sleep('20ms') print('a', x) return 1, nil, 3 end, "
         "'x')\n"
         "local b = task.spawn(function() task.sleep(0.005) print('b') end)\n"
         "print('main')\n"
         "print(a:wait())\n"
         "b:wait()\n"
         "print(task.now() - t >= 0.02)\n",
         "main\nb\na\tx\n1\tnil\t3\ntrue\n");
}

static void ops_answer(void)
{
  expect(
      "local r = core.call('test.echo', { a = 1, list = { 1, 'x', true }, deep = { s = '\\0' } })\n"
      "print(r.a, #r.list, r.list[2], #r.deep.s)\n"
      "local ok, e = pcall(core.call, 'test.echo', { fail = true })\n"
      "print(ok, e.code, e.status, e.retryable, e.message, tostring(e))\n"
      "ok, e = pcall(core.call, 'test.nowhere')\n"
      "print(ok, e.code)\n",
      "1\t3\tx\t1\n"
      "false\tcapacity\t503\ttrue\tthe machine is full\tcapacity: the machine is full (wait)\n"
      "false\tunsupported\n");
}

static void cancel_runs_cleanup(void)
{
  struct run r;
  set_up();
  CHECK(begin(&r, "local x <close> = setmetatable({}, { __close = function(_, e)\n"
                  "  print('closing', e.code) task.sleep(0.01) print('closed') end })\n"
                  "on_exit(function(why) print('exit', why.kind, why.error.message) end)\n"
                  "while true do pcall(task.sleep, 10) end\n"));
  kill_after(&r, 20, SCRIPT_TIMEOUT, false);
  loop_run(loop);
  CHECK_STR(r.out.data, "closing\ttimeout\nclosed\nexit\ttimeout\ttime to go\n");
  CHECK_INT(r.end, SCRIPT_TIMEOUT);
  finish(&r);
  tear_down();
}

const struct test_case test_cases[] = {{"prints", prints},
                                       {"sleeps_and_spawns", sleeps_and_spawns},
                                       {"ops_answer", ops_answer},
                                       {"cancel_runs_cleanup", cancel_runs_cleanup},
                                       {0}};

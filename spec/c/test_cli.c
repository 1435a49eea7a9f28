/* The command line without its engines: option parsing, suggestions, output framing, back-pressure.
 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/suggest.h"
#include "base/val.h"
#include "base/json.h"
#include "cli/cli.h"
#include "core/loop.h"
#include "host/host.h"
#include "host/out.h"
#include "host/report.h"

/* --- options ------------------------------------------------------------------------------------
 */

struct opts {
  bool loud, json;
  const char *text;
  struct cli_list list;
  uint64_t ms, bytes;
  uint32_t n, milli;
};

#define AT(member) offsetof(struct opts, member)
static const struct cli_option table[] = {
    {"loud", 'l', CLI_FLAG, AT(loud), NULL, "Flag"},
    {"json", 'j', CLI_FLAG, AT(json), NULL, "Flag"},
    {"text", 'x', CLI_STR, AT(text), "TEXT", "Text"},
    {"env", 'e', CLI_LIST, AT(list), "ENV", "List"},
    {"timeout", 't', CLI_DURATION, AT(ms), "DURATION", "Duration"},
    {"memory", 'm', CLI_SIZE, AT(bytes), "SIZE", "Size"},
    {"count", 'c', CLI_UINT, AT(n), "N", "Count"},
    {"cpu", 0, CLI_MILLI, AT(milli), "N", "Cpu"},
    {0},
};

static const struct cli_command permuting = {.name = "test", .options = table};
static const struct cli_command stopping = {
    .name = "test", .options = table, .flags = CLI_STOPS_AT_OPERAND};

static struct opts got;
static struct err failure;
static char *words[32];
static int words_n, first, dashes;

/* Parses a blank-separated command line; the operands are words[first] up to words[words_n - 1]. */
static int parse(const struct cli_command *cmd, const char *line)
{
  static char copy[512];
  snprintf(copy, sizeof copy, "%s", line);
  words_n = 0;
  words[words_n++] = (char *)(uintptr_t) "test";
  for (char *w = strtok(copy, " "); w; w = strtok(NULL, " ")) words[words_n++] = w;
  words[words_n] = NULL;
  cli_list_free(&got.list);
  got = (struct opts){0};
  failure = (struct err){0};
  return cli_parse_quiet(cmd, words_n, words, &got, &first, &dashes, &failure);
}

static void test_forms(void)
{
  CHECK_INT(parse(&permuting, "--text a -xb --text=c --env A=1 -e B --loud -ljt5s"), 0);
  CHECK_STR(got.text, "c");
  CHECK_INT(got.list.n, 2);
  CHECK_STR(got.list.v[1], "B");
  CHECK(got.loud && got.json);
  CHECK_INT(got.ms, 5000);
  CHECK_INT(first, words_n);
  CHECK_INT(parse(&permuting, "--text="), 0);
  CHECK_STR(got.text, "");
}

static void test_operands(void)
{
  CHECK_INT(parse(&permuting, "a.lua --loud b.lua -- --json c"), 0);
  CHECK(got.loud && !got.json);
  CHECK_INT(words_n - first, 4);
  CHECK_STR(words[first], "a.lua");
  CHECK_INT(dashes - first, 2);
  CHECK_STR(words[dashes], "--json");
  CHECK_INT(parse(&permuting, "-- s.lua x"), 0);
  CHECK_INT(dashes, first);
  CHECK_INT(parse(&permuting, "- a"), 0);
  CHECK_STR(words[first], "-");
  CHECK_INT(dashes, words_n);
}

static void test_stops(void)
{
  CHECK_INT(parse(&stopping, "--loud sh --json -c x"), 0);
  CHECK(got.loud && !got.json);
  CHECK_STR(words[first], "sh");
  CHECK_INT(words_n - first, 4);
  CHECK_INT(parse(&stopping, "-- sh -- x"), 0);
  CHECK_INT(words_n - first, 3);
  CHECK_STR(words[first + 1], "--");
}

static void test_mistakes(void)
{
  CHECK(parse(&permuting, "--tiemout 3s") < 0);
  CHECK(strstr(failure.msg, "--tiemout"));
  CHECK_STR(failure.hint, "did you mean --timeout?");
  CHECK(parse(&permuting, "--time 3s") < 0);
  CHECK_STR(failure.hint, "did you mean --timeout?");
  CHECK(parse(&permuting, "--zzzzzzzz") < 0);
  CHECK_STR(failure.hint, "");
  CHECK(parse(&permuting, "-z") < 0);
  CHECK(strstr(failure.msg, "-z"));
  CHECK(parse(&permuting, "--text") < 0);
  CHECK(strstr(failure.msg, "--text TEXT"));
  CHECK(parse(&permuting, "--loud=1") < 0);
  CHECK(strstr(failure.msg, "takes no value"));
  CHECK(parse(&permuting, "-c x") < 0);
  CHECK_STR(failure.field, "--count");
  CHECK(parse(&permuting, "-c -1") < 0);
  CHECK(parse(&permuting, "-c 4294967296") < 0);
  CHECK_INT(parse(&permuting, "-c 4294967295"), 0);
  CHECK_INT(parse(&permuting, "--help"), 1);
  CHECK_INT(parse(&permuting, "-h"), 1);
  CHECK_INT(parse(&stopping, "sh --help"), 0);
}

static void test_units(void)
{
  static const struct {
    const char *text;
    uint64_t ms;
  } durations[] = {{"1", 1000},    {"250ms", 250},  {"1.5s", 1500}, {"90s", 90000},
                   {"5m", 300000}, {"2h", 7200000}, {"0.001", 1},   {".5s", 500}};
  for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
    uint64_t ms = 0;
    CHECK_INT(cli_read_duration(&ms, durations[i].text, "--t", &failure), 0);
    CHECK_INT(ms, durations[i].ms);
  }
  static const char *const bad[] = {"",       "s",   "-1s", "1d",  "1 s",  "0",
                                    "0.0001", "1e3", "inf", "0x5", "1..2", "99999999999999999999",
                                    "5sm"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    uint64_t ms;
    CHECK(cli_read_duration(&ms, bad[i], "--t", &failure) < 0);
    CHECK_STR(failure.field, "--t");
  }
  uint64_t bytes;
  CHECK_INT(cli_read_size(&bytes, "64", "--m", &failure), 0);
  CHECK_INT(bytes, 64 << 20);
  CHECK_INT(cli_read_size(&bytes, "2GiB", "--m", &failure), 0);
  CHECK_INT(bytes, 2ll << 30);
  CHECK_INT(cli_read_size(&bytes, "1kib", "--m", &failure), 0);
  CHECK_INT(bytes, 1024);
  CHECK(cli_read_size(&bytes, "1XB", "--m", &failure) < 0);
  CHECK(cli_read_size(&bytes, "0", "--m", &failure) < 0);
  CHECK_INT(parse(&permuting, "--cpu 0.125"), 0);
  CHECK_INT(got.milli, 125);
}

static void test_suggest(void)
{
  static const char *const names[] = {"run", "exec", "doctor", "check", "api", "idle-timeout"};
  const size_t n = sizeof names / sizeof *names;
  CHECK_STR(suggest_nearest("rnu", names, n), "run");
  CHECK_STR(suggest_nearest("docter", names, n), "doctor");
  CHECK_STR(suggest_nearest("EXEC", names, n), "exec");
  CHECK_STR(suggest_nearest("idle_timeout", names, n), "idle-timeout");
  CHECK_STR(suggest_nearest("doc", names, n), "doctor");
  CHECK(!suggest_nearest("xyzzy", names, n));
  CHECK(!suggest_nearest("", names, n));
  char big[4096];
  memset(big, 'a', sizeof big - 1);
  big[sizeof big - 1] = '\0';
  CHECK(!suggest_nearest(big, names, n));
}

static void test_names(void)
{
  static const char *const paths[] = {"x/a.lua", "b.lua", "y/a.lua", "b.lua", "c/d.lua", "b.lua"};
  char *names[6];
  report_names(paths, 6, names);
  static const char *const want[] = {"x/a.lua", "b.lua", "y/a.lua", "b.lua#2", "d.lua", "b.lua#3"};
  for (int i = 0; i < 6; i++) {
    CHECK_STR(names[i], want[i]);
    free(names[i]);
  }
}

/* --- what comes out -----------------------------------------------------------------------------
 */

struct rig {
  struct loop *loop;
  struct report *report;
  int out[2], err[2]; /* pipes */
  bool closed, full;
  int broken, fulls;
  char text[1 << 16];
};

static void on_full(void *data, bool full)
{
  struct rig *rig = data;
  rig->full = full;
  rig->fulls++;
}

static void on_broken(void *data, int sys_errno)
{
  ((struct rig *)data)->broken = sys_errno;
}

static void on_closed(void *data)
{
  ((struct rig *)data)->closed = true;
}

static void rig_open(struct rig *rig, struct report_conf conf)
{
  static const char *const names[] = {"a.lua", "b.lua"};
  memset(rig, 0, sizeof *rig);
  signal(SIGPIPE, SIG_IGN);
  CHECK_INT(loop_new(&rig->loop, NULL), 0);
  CHECK(pipe2(rig->out, O_CLOEXEC) == 0 && pipe2(rig->err, O_CLOEXEC) == 0);
  conf.loop = rig->loop;
  conf.out_fd = rig->out[1];
  conf.err_fd = rig->err[1];
  conf.names = names;
  conf.on_full = on_full;
  conf.on_broken = on_broken;
  conf.data = rig;
  rig->report = report_new(&conf);
}

static void rig_close(struct rig *rig)
{
  report_close(rig->report, on_closed, rig);
  loop_run(rig->loop);
  CHECK(rig->closed);
  loop_free(rig->loop);
  for (int i = 0; i < 2; i++) {
    close(rig->out[i]);
    close(rig->err[i]);
  }
}

/* All that is in the pipe now. */
static const char *drain(struct rig *rig, int fd)
{
  size_t len = 0;
  struct pollfd p = {.fd = fd, .events = POLLIN};
  while (len < sizeof rig->text - 1 && poll(&p, 1, 0) == 1 && (p.revents & POLLIN)) {
    ssize_t n = read(fd, rig->text + len, sizeof rig->text - 1 - len);
    if (n <= 0) break;
    len += (size_t)n;
  }
  rig->text[len] = '\0';
  return rig->text;
}

static void stop(struct timer *t)
{
  loop_stop(t->data);
}

static void run_for(struct rig *rig, uint64_t ms)
{
  struct timer t = {.cb = stop, .data = rig->loop};
  timer_start(rig->loop, &t, ms);
  loop_run(rig->loop);
  timer_stop(rig->loop, &t);
}

static void print(struct rig *rig, size_t script, const char *text)
{
  report_hooks.on_output(rig->report, script, text, strlen(text));
}

static void end(struct rig *rig, size_t script)
{
  struct host_result ok = {.outcome = "ok", .ok = true};
  report_hooks.on_end(rig->report, script, &ok);
}

static void test_one_script_passes_bytes(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 1});
  print(&rig, 0, "no newline, ");
  report_hooks.on_output(rig.report, 0, "a\0b\xff\n", 5);
  print(&rig, 0, "end");
  end(&rig, 0);
  loop_run(rig.loop);
  drain(&rig, rig.out[0]);
  CHECK(memcmp(rig.text, "no newline, a\0b\xff\nend", 20) == 0);
  CHECK_STR(drain(&rig, rig.err[0]), "");
  rig_close(&rig);
}

static void test_several_scripts_keep_lines_whole(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 2});
  print(&rig, 0, "one ");
  print(&rig, 1, "uno\ndos");
  print(&rig, 0, "line\n\ntail");
  end(&rig, 0);
  end(&rig, 1);
  loop_run(rig.loop);
  CHECK_STR(drain(&rig, rig.out[0]),
            "b.lua| uno\na.lua| one line\na.lua| \na.lua| tail\nb.lua| dos\n");
  rig_close(&rig);
}

static void test_endless_line_is_split(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 2});
  char piece[1024];
  memset(piece, 'x', sizeof piece);
  for (int i = 0; i < 100; i++) report_hooks.on_output(rig.report, 0, piece, sizeof piece);
  run_for(&rig, 5);
  /* A pipe holds 64 KiB, so this is the first line as far as it fits. */
  drain(&rig, rig.out[0]);
  CHECK(strncmp(rig.text, "a.lua| xxx", 10) == 0);
  end(&rig, 0);
  report_abandon(rig.report);
  rig_close(&rig);
}

static void test_logs_and_levels(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 2});
  report_hooks.on_log(rig.report, 1, LOG_WARN, "two\nlines", 9);
  report_hooks.on_log(rig.report, 1, LOG_DEBUG, "hidden", 6);
  loop_run(rig.loop);
  CHECK_STR(drain(&rig, rig.err[0]), "b.lua| warn: two\nb.lua| warn: lines\n");
  rig_close(&rig);
  rig_open(&rig, (struct report_conf){.names_n = 1, .quiet = true});
  report_hooks.on_log(rig.report, 0, LOG_WARN, "hidden", 6);
  report_hooks.on_log(rig.report, 0, LOG_ERROR, "shown", 5);
  report_hooks.on_progress(rig.report, 0, 1, 2, "hidden");
  loop_run(rig.loop);
  CHECK_STR(drain(&rig, rig.err[0]), "error: shown\n");
  rig_close(&rig);
}

static void test_progress_lines(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 1});
  for (int i = 0; i <= 1000; i++) report_hooks.on_progress(rig.report, 0, i, 1000, "work");
  report_hooks.on_progress(rig.report, 0, 7, -1, NULL);
  loop_run(rig.loop);
  drain(&rig, rig.err[0]);
  int lines = 0;
  for (const char *p = rig.text; *p; p++) lines += *p == '\n';
  CHECK_INT(lines, 102);
  CHECK(strstr(rig.text, "progress: 10/1000 work\n"));
  CHECK(strstr(rig.text, "progress: 7\n"));
  rig_close(&rig);
}

static void test_terminal_line_gives_way(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 1, .tty = true});
  report_hooks.on_progress(rig.report, 0, 1, 2, "half\nway");
  loop_run(rig.loop);
  CHECK_STR(drain(&rig, rig.err[0]), "\r[##########----------] 1/2 half way\033[K");
  print(&rig, 0, "out\n");
  /* Gone before the text is written, and back soon after. */
  CHECK_STR(drain(&rig, rig.err[0]), "\r\033[K");
  loop_run(rig.loop);
  CHECK_STR(drain(&rig, rig.out[0]), "out\n");
  CHECK(strstr(drain(&rig, rig.err[0]), "1/2 half way"));
  rig_close(&rig);
}

static void test_failure_message(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 1, .quiet = true});
  struct host_result result = {.outcome = "error",
                               .traceback = "a.lua:3: in f\n  a.lua:9: in main"};
  err_set(&result.err, ERR_INVALID_ARGUMENT, 0, "a.lua:3: cpu must be a number");
  err_hint(&result.err, "write cpu = 1");
  report_hooks.on_end(rig.report, 0, &result);
  loop_run(rig.loop);
  CHECK_STR(drain(&rig, rig.err[0]), "regolith: a.lua:3: cpu must be a number\n"
                                     "  a.lua:3: in f\n  a.lua:9: in main\n"
                                     "  hint: write cpu = 1\n");
  rig_close(&rig);
}

/* The line'th JSON event of the text, which must be one. */
static struct val event_at(const char *text, int line)
{
  struct val v = {0};
  while (line-- > 0 && text) text = (text = strchr(text, '\n')) ? text + 1 : NULL;
  struct err err = {0};
  CHECK(text && json_parse(&v, text, strcspn(text, "\n"), &err) == 0);
  return v;
}

static void test_json_events(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 2, .json = true});
  report_hooks.on_start(rig.report, 0);
  report_hooks.on_output(rig.report, 0, "x\xff\ny", 4);
  report_hooks.on_task(rig.report, 0, 2, 1, "child", NULL);
  report_hooks.on_task(rig.report, 0, 2, 1, "child", "ok");
  report_hooks.on_log(rig.report, 1, LOG_DEBUG, "d", 1);
  report_hooks.on_progress(rig.report, 1, 1, 3, "t");
  struct val created = val_map();
  val_set(&created, "event", val_str("sandbox_created"));
  val_set(&created, "owner", val_int(1));
  val_set(&created, "sandbox_id", val_str("sb_0123456789"));
  report_hooks.on_sandbox(rig.report, 1, &created);
  val_free(&created);
  end(&rig, 0);
  struct host_result bad = {.outcome = "timeout", .timed_out = true, .duration_ms = 5};
  err_set(&bad.err, ERR_TIMEOUT, 0, "late");
  report_hooks.on_end(rig.report, 1, &bad);
  report_run_end(rig.report, 124);
  loop_run(rig.loop);
  drain(&rig, rig.out[0]);
  static const char *const want[] = {
      "script_started",  "output", "task_started", "task_ended",   "log",      "progress",
      "sandbox_created", "output", "script_ended", "script_ended", "run_ended"};
  for (int i = 0; i < 11; i++) {
    struct val v = event_at(rig.text, i);
    CHECK_STR(val_get_str(&v, "event", ""), want[i]);
    CHECK_INT(strlen(val_get_str(&v, "time", "")), 24);
    if (i == 1) CHECK_STR(val_get_str(&v, "text", ""), "x\xef\xbf\xbd\n");
    if (i == 5) CHECK_INT(val_get_int(&v, "total", 0), 3);
    if (i == 6) CHECK(!val_get(&v, "owner"));
    if (i == 6) CHECK_STR(val_get_str(&v, "script", ""), "b.lua");
    if (i == 7) CHECK_STR(val_get_str(&v, "text", ""), "y");
    if (i == 8) CHECK_STR(val_get_str(&v, "outcome", ""), "ok");
    if (i == 9) CHECK_STR(val_get_str(val_get(&v, "error"), "code", ""), "timeout");
    if (i == 10) CHECK_INT(val_get_int(&v, "exit_status", 0), 124);
    val_free(&v);
  }
  CHECK(strstr(drain(&rig, rig.err[0]), "regolith: b.lua: late\n"));
  rig_close(&rig);
}

/* --- slow and closed readers --------------------------------------------------------------------
 */

static void fill(struct rig *rig, size_t bytes)
{
  static char block[1 << 16];
  memset(block, 'y', sizeof block);
  block[sizeof block - 1] = '\n';
  for (; bytes >= sizeof block; bytes -= sizeof block)
    report_hooks.on_output(rig->report, 0, block, sizeof block);
}

static void test_slow_reader(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 1});
  fill(&rig, 4 << 20);
  CHECK(rig.full);
  /* The loop goes on while nobody reads, and the queue is kept. */
  run_for(&rig, 20);
  CHECK(rig.full);
  CHECK((fcntl(rig.out[1], F_GETFL) & O_NONBLOCK) == 0);
  size_t total = 0;
  for (int i = 0; i < 2000 && total < 4 << 20; i++) {
    total += strlen(drain(&rig, rig.out[0]));
    run_for(&rig, 1);
  }
  CHECK_INT(total, 4 << 20);
  CHECK(!rig.full);
  CHECK_INT(rig.fulls, 2);
  rig_close(&rig);
}

static void test_closed_reader(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 1});
  fill(&rig, 2 << 20);
  run_for(&rig, 5);
  CHECK(rig.full);
  close(rig.out[0]);
  rig.out[0] = -1;
  run_for(&rig, 50);
  CHECK_INT(rig.broken, EPIPE);
  CHECK(!rig.full);
  fill(&rig, 8 << 20);
  CHECK(!rig.full);
  rig_close(&rig);
}

static void test_stalled_reader_can_be_left(void)
{
  struct rig rig;
  rig_open(&rig, (struct report_conf){.names_n = 1});
  fill(&rig, 2 << 20);
  report_close(rig.report, on_closed, &rig);
  run_for(&rig, 20);
  CHECK(!rig.closed);
  report_abandon(rig.report);
  loop_run(rig.loop);
  CHECK(rig.closed);
  loop_free(rig.loop);
  for (int i = 0; i < 2; i++) {
    close(rig.out[i]);
    close(rig.err[i]);
  }
}

const struct test_case test_cases[] = {
    {"options: every form", test_forms},
    {"options: operands and --", test_operands},
    {"options: exec stops at its command", test_stops},
    {"options: mistakes name what would be right", test_mistakes},
    {"options: durations and sizes", test_units},
    {"suggestions", test_suggest},
    {"names of scripts are told apart", test_names},
    {"one script's bytes pass unchanged", test_one_script_passes_bytes},
    {"several scripts never share a line", test_several_scripts_keep_lines_whole},
    {"a line without end is split", test_endless_line_is_split},
    {"logs by level", test_logs_and_levels},
    {"progress as lines", test_progress_lines},
    {"progress on a terminal", test_terminal_line_gives_way},
    {"a failure, its traceback and the way out", test_failure_message},
    {"JSON events", test_json_events},
    {"a slow reader", test_slow_reader},
    {"a closed reader", test_closed_reader},
    {"a stalled reader can be left", test_stalled_reader_can_be_left},
    {0},
};

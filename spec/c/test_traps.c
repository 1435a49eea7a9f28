/* script: what a hostile or broken script may try, one section of spec/traps/(name).lua each. Every
 * one runs beside an innocent script that has to be done on time: the processor time that goes by
 * until then is bounded, and so is each gap between two of its steps. */
#include "script_run.h"

#include <dirent.h>
#include <sys/stat.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define SLOWER 6
#else
#define SLOWER 1
#endif

#define INNOCENT_CPU_MS (700 * SLOWER) /* until it is done; it sleeps 10 times */
#define INNOCENT_GAP_MS (250 * SLOWER) /* processor time between two of its steps */
#define HOSTILE_CPU_MS  (6000 * SLOWER)

static const char innocent_source[] = "for i = 1, 10 do task.sleep(0.01) print(i) end";

struct trap {
  char name[64];
  char source[16384], output[8192], err[64];
  unsigned kill_ms, mem_mib;
  bool force;
  char end[16];
};

static uint64_t innocent_last_ns, innocent_gap_ns, innocent_done_ns, start_ns;

static uint64_t cpu_ns(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void innocent_output(void *data, const char *text, size_t len)
{
  uint64_t now = cpu_ns();
  (void)text, (void)len, (void)data;
  if (now - innocent_last_ns > innocent_gap_ns) innocent_gap_ns = now - innocent_last_ns;
  innocent_last_ns = now;
}

static void innocent_done(void *data, const struct script_result *result)
{
  struct run *r = data;
  r->done = true;
  r->end = result->end;
  r->err = result->err;
  innocent_done_ns = cpu_ns();
}

static const struct script_hooks innocent_hooks = {.on_output = innocent_output,
                                                   .on_done = innocent_done};

static void begin_innocent(struct run *r)
{
  *r = (struct run){0};
  innocent_gap_ns = 0;
  innocent_last_ns = start_ns = cpu_ns();
  struct script_conf conf = {.name = "innocent",
                             .source = innocent_source,
                             .source_len = sizeof innocent_source - 1,
                             .loop = loop,
                             .ops = ops,
                             .hooks = &innocent_hooks,
                             .hooks_data = r};
  CHECK(script_new(&r->script, &conf, &r->err) == 0);
  script_start(r->script);
}

static void run_trap(const struct trap *t)
{
  struct run hostile, innocent;
  int failed_before = test_failed_checks;
  alarm(120);
  set_up();
  mem_bytes = (size_t)t->mem_mib << 20;
  begin_innocent(&innocent);
  if (!begin(&hostile, t->source)) {
    fprintf(stderr, "%s does not load: %s\n", t->name, hostile.err.msg);
    abort();
  }
  if (t->kill_ms) kill_after(&hostile, t->kill_ms, SCRIPT_TIMEOUT, false);
  if (t->force) kill_again(&hostile, t->kill_ms + 5);
  loop_run(loop);
  uint64_t spent_ms = (cpu_ns() - start_ns) / 1000000;
  CHECK(innocent.done && innocent.end == SCRIPT_OK);
  CHECK((innocent_done_ns - start_ns) / 1000000 < INNOCENT_CPU_MS);
  CHECK(innocent_gap_ns / 1000000 < INNOCENT_GAP_MS);
  CHECK(spent_ms < HOSTILE_CPU_MS);
  CHECK_STR(script_end_name(hostile.end), t->end);
  CHECK_STR(hostile.out.data ? hostile.out.data : "", t->output);
  if (*t->err) CHECK(strstr(hostile.err.msg, t->err) != NULL);
  if (test_failed_checks != failed_before)
    fprintf(stderr,
            "^ trap %s: innocent after %llu ms, longest gap %llu ms; all %llu ms of CPU; ended as "
            "%s: %s\n%s\n",
            t->name, (unsigned long long)((innocent_done_ns - start_ns) / 1000000),
            (unsigned long long)(innocent_gap_ns / 1000000), (unsigned long long)spent_ms,
            script_end_name(hostile.end), hostile.err.msg, hostile.traceback);
  finish(&hostile);
  script_free(innocent.script);
  tear_down();
}

/* --- Reading the sections --- */

static void append(char *to, size_t size, const char *text)
{
  size_t len = strlen(to);
  if (len + strlen(text) + 1 > size) abort();
  strcpy(to + len, text);
}

static void read_directives(struct trap *t, char *line)
{
  *t = (struct trap){.end = "ok"};
  char *rest = strchr(line, ' ');
  if (rest) *rest++ = '\0';
  snprintf(t->name, sizeof t->name, "%.60s", line);
  while (rest && *rest) {
    char *word = rest;
    if (strncmp(word, "err=", 4) == 0) {
      snprintf(t->err, sizeof t->err, "%.60s", word + 4);
      return;
    }
    rest = strchr(word, ' ');
    if (rest) *rest++ = '\0';
    if (strncmp(word, "kill=", 5) == 0)
      t->kill_ms = (unsigned)atoi(word + 5);
    else if (strncmp(word, "mem=", 4) == 0)
      t->mem_mib = (unsigned)atoi(word + 4);
    else if (strncmp(word, "end=", 4) == 0)
      snprintf(t->end, sizeof t->end, "%.15s", word + 4);
    else if (strcmp(word, "force") == 0)
      t->force = true;
    else
      abort();
  }
}

static const char *only; /* run sections whose name contains it */

static void run_file(const char *path)
{
  static struct trap t;
  char line[2048];
  FILE *f = fopen(path, "r");
  if (!f) {
    perror(path);
    abort();
  }
  bool open = false;
  int ran = 0;
  for (bool more = true; more;) {
    more = fgets(line, sizeof line, f) != NULL;
    if (open && (!more || strncmp(line, "--## ", 5) == 0)) {
      if (!only || strstr(t.name, only)) run_trap(&t);
      ran++;
    }
    if (!more) break;
    if (strncmp(line, "--## ", 5) == 0) {
      line[strcspn(line, "\n")] = '\0';
      read_directives(&t, line + 5);
      open = true;
    } else if (strncmp(line, "--> ", 4) == 0) {
      append(t.output, sizeof t.output, line + 4);
    } else {
      append(t.source, sizeof t.source, line);
    }
  }
  fclose(f);
  CHECK(ran > 5);
}

static void cancel_traps(void)
{
  run_file("spec/traps/cancel.lua");
}

static void hide_traps(void)
{
  run_file("spec/traps/hide.lua");
}

static void memory_traps(void)
{
  run_file("spec/traps/memory.lua");
}

static void tasks(void)
{
  run_file("spec/traps/tasks.lua");
}

static void refusals(void)
{
  strv_add(&granted_env, "GIVEN=yes");
  run_file("spec/traps/refuse.lua");
}

__attribute__((constructor)) static void choose(void)
{
  only = getenv("TRAP");
}

const struct test_case test_cases[] = {
    {"cancel_traps", cancel_traps}, {"hide_traps", hide_traps}, {"memory_traps", memory_traps},
    {"refusals", refusals},         {"tasks", tasks},           {0}};

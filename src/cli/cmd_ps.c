/* regolith ps: what the regoliths of this user (root: of everybody) are doing right now. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/val.h"
#include "cli/cli.h"
#include "host/status.h"

struct ps_options {
  bool json;
};

static const struct cli_option options[] = {
    {"json", 'j', CLI_FLAG, offsetof(struct ps_options, json), NULL,
     "Print one JSON object per regolith"},
    {0},
};

struct ps {
  struct ps_options opt;
  size_t found;
};

static const char *text(const struct val *v, const char *key)
{
  return val_get_str(v, key, "");
}

/* Memory and processor time of a process, from /proc; 0 where it tells nothing. */
static void read_usage(pid_t pid, double *ret_cpu_s, long *ret_rss_kib)
{
  char path[64], stat[1024];
  unsigned long utime = 0, stime = 0;
  long rss = 0;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *f = fopen(path, "re");
  const char *end = f && fgets(stat, sizeof stat, f) ? strrchr(stat, ')') : NULL;
  if (end)
    sscanf(
        end + 2,
        "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld",
        &utime, &stime, &rss);
  if (f) fclose(f);
  *ret_cpu_s = (double)(utime + stime) / (double)sysconf(_SC_CLK_TCK);
  *ret_rss_kib = rss * (sysconf(_SC_PAGESIZE) / 1024);
}

static void print_command(const struct val *command)
{
  const struct val *argv = val_get(command, "command");
  struct buf line = {0};
  for (size_t i = 0; argv && argv->type == VAL_LIST && i < argv->list.n; i++)
    if (argv->list.v[i].type == VAL_STR)
      buf_printf(&line, "%s%s", i ? " " : "", argv->list.v[i].s.p);
  for (size_t i = 0; i < line.len; i++)
    if ((unsigned char)line.data[i] < 0x20) line.data[i] = ' ';
  printf("      %7.1f s  %.100s\n", val_get_num(command, "seconds", 0), line.data ? line.data : "");
  buf_free(&line);
}

static void print_box(const struct val *box)
{
  const struct val *commands = val_get(box, "commands");
  printf("    %s  %7.1f s  image %s, engine %s\n", text(box, "sandbox_id"),
         val_get_num(box, "seconds", 0), text(box, "image"), text(box, "engine"));
  for (size_t i = 0; commands && i < commands->list.n; i++) print_command(&commands->list.v[i]);
}

static void print_count(const struct val *script, const char *one, const char *many)
{
  int64_t n = val_get_int(script, many, 0);
  if (n > 0) printf("  %lld %s", (long long)n, n == 1 ? one : many);
}

static void print_script(const struct val *script, const struct val *boxes)
{
  const char *name = text(script, "name");
  double mem_bytes = val_get_num(script, "mem_bytes", 0);
  printf("  %-24s %7.1f s", name, val_get_num(script, "seconds", 0));
  if (mem_bytes > 0) /* else it has not told yet */
    printf("  %.1f s CPU  %.1f MiB", val_get_num(script, "cpu_seconds", 0), mem_bytes / (1 << 20));
  print_count(script, "task", "tasks");
  print_count(script, "sandbox", "sandboxes");
  print_count(script, "command", "commands");
  putchar('\n');
  for (size_t i = 0; boxes && i < boxes->list.n; i++)
    if (strcmp(text(&boxes->list.v[i], "script"), name) == 0) print_box(&boxes->list.v[i]);
}

/* Those that run, and how many do not. */
static void print_scripts(const struct val *scripts, const struct val *boxes)
{
  size_t waiting = 0, ended = 0;
  for (size_t i = 0; scripts && i < scripts->list.n; i++) {
    const struct val *script = &scripts->list.v[i];
    if (strcmp(text(script, "state"), "running") == 0)
      print_script(script, boxes);
    else if (strcmp(text(script, "state"), "waiting") == 0)
      waiting++;
    else
      ended++;
  }
  if (waiting || ended) printf("  and %zu that wait, %zu that have ended\n", waiting, ended);
}

static void on_answer(void *data, pid_t pid, const struct val *snapshot)
{
  struct ps *ps = data;
  const struct val *scripts = val_get(snapshot, "scripts"), *boxes = val_get(snapshot, "sandboxes");
  double cpu_s;
  long rss_kib;
  read_usage(pid, &cpu_s, &rss_kib);
  ps->found++;
  if (ps->opt.json) {
    struct buf line = {0};
    struct val whole = val_copy(snapshot);
    val_set(&whole, "cpu_seconds", val_num(cpu_s));
    val_set(&whole, "rss_kib", val_int(rss_kib));
    json_print(&line, &whole);
    puts(line.data);
    buf_free(&line);
    val_free(&whole);
    return;
  }
  printf("regolith %d  since %s  %.1f s CPU  %.1f MiB\n", pid, text(snapshot, "started_at"), cpu_s,
         (double)rss_kib / 1024);
  print_scripts(scripts, boxes);
}

static int run(int argc, char **argv)
{
  struct ps ps = {0};
  struct err err = {0};
  int first, dashes;
  int status = cli_parse(&cmd_ps, argc, argv, &ps.opt, &first, &dashes);
  if (status != CLI_GO_ON) return status;
  if (first < argc) {
    err_arg(&err, "", "regolith ps takes no operands");
    return cli_usage_err(&cmd_ps, &err);
  }
  if (status_ask_all(on_answer, &ps, &err) < 0) {
    cli_print_err(&err);
    return CLI_EXIT_FAILED;
  }
  if (ps.found == 0 && !ps.opt.json) puts("no regolith is running scripts");
  return CLI_EXIT_OK;
}

const struct cli_command cmd_ps = {
    .name = "ps",
    .summary = "Show the scripts, sandboxes and commands that run now",
    .usage = "",
    .details = "Asks every `regolith run` of the same user; root asks those of all users.\n",
    .options = options,
    .run = run,
};

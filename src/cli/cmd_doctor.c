/* regolith doctor: what this machine offers, one line per thing, with what is lost where it offers
 * less and the command that mends it.
 *
 * The lines about the kernel come from the local engine's probe; this file adds the Lua that runs
 * the scripts, and the proof: it runs `regolith exec -- true`, the same way a user does, and says
 * how that ended. Exit status 0: sandboxes can be made; 3: they cannot. */
#include <errno.h>
#include <fcntl.h>
#include <lua.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/val.h"
#include "cli/cli.h"
#include "cli/doctor.h"
#include "engine/local/probe.h"

extern char **environ;

struct doctor_options {
  bool json;
};

static const struct cli_option options[] = {
    {"json", 'j', CLI_FLAG, offsetof(struct doctor_options, json), NULL,
     "Print one JSON object instead of text"},
    {0},
};

struct probe_item *doctor_add(struct probe *p, const char *name)
{
  if (p->n == PROBE_ITEMS_MAX) abort();
  struct probe_item *it = &p->items[p->n++];
  *it = (struct probe_item){.name = name, .state = PROBE_OK};
  return it;
}

/* --- Lua -------------------------------------------------------------------------------------- */

/* The version of the library that is really loaded, not of the header. */
static void lua_release(int *ret_minor, int *ret_patch)
{
  const char *at = strstr(lua_ident, "Lua 5.");
  if (!at || sscanf(at, "Lua 5.%d.%d", ret_minor, ret_patch) != 2) *ret_minor = *ret_patch = 0;
}

static void check_lua(struct probe *p)
{
  struct probe_item *it = doctor_add(p, "Lua");
  int minor, patch;
  lua_release(&minor, &patch);
  snprintf(it->found, sizeof it->found, "5.%d.%d", minor, patch);
  if (minor > 4 || (minor == 4 && patch >= 8)) return;
  it->state = PROBE_DEGRADED;
  snprintf(it->found + strlen(it->found), sizeof it->found - strlen(it->found),
           ", with faults mended in 5.4.8: use after free when memory runs out beside weak tables, "
           "stack "
           "overflow in coroutine.close, a miscompiled break");
  snprintf(it->lost, sizeof it->lost,
           "nothing in workers, where a script that breaks out of Lua finds an empty process; with "
           "--trust "
           "the guards of the script runtime go around these faults, and are the only wall");
  snprintf(it->mend, sizeof it->mend,
           "make clean all LUA=NAME, with the pkg-config name of Lua 5.4.8 or later");
}

/* --- the proof -------------------------------------------------------------------------------- */

static bool have_command(const char *name)
{
  for (const struct cli_command *const *c = cli_commands(); *c; c++)
    if (strcmp((*c)->name, name) == 0) return true;
  return false;
}

/* Runs this program's `exec -- true`; its stderr goes to text. Returns the exit status, or -1. */
static int run_true(char *text, size_t size)
{
  char *const argv[] = {(char[]){"regolith"},
                        (char[]){"exec"},
                        (char[]){"--timeout"},
                        (char[]){"20s"},
                        (char[]){"--"},
                        (char[]){"true"},
                        NULL};
  int fds[2], status;
  pid_t pid;
  if (pipe2(fds, O_CLOEXEC) < 0) return -1;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, fds[1], 2);
  int rc = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(fds[1]);
  size_t len = 0;
  for (ssize_t n; rc == 0 && len < size - 1; len += (size_t)n)
    if ((n = read(fds[0], text + len, size - 1 - len)) <= 0) break;
  text[len] = 0;
  close(fds[0]);
  if (rc != 0) return -1;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void check_sandbox(struct probe *p)
{
  struct probe_item *it = doctor_add(p, "a sandbox");
  it->required = true;
  char text[512];
  uint64_t start = clock_mono_ns();
  int status = run_true(text, sizeof text);
  double ms = (double)(clock_mono_ns() - start) / 1e6;
  if (status == 0) {
    snprintf(it->found, sizeof it->found, "made, used and ended in %.1f ms", ms);
    return;
  }
  text[strcspn(text, "\n")] = 0;
  const char *why = strncmp(text, "regolith: ", 10) == 0 ? text + 10 : text;
  it->state = PROBE_MISSING;
  snprintf(it->found, sizeof it->found, "failed with status %d: %.150s", status, why);
  snprintf(it->lost, sizeof it->lost, "scripts cannot create sandboxes on this machine");
  snprintf(it->mend, sizeof it->mend, "mend what is missing above");
}

/* --- output ----------------------------------------------------------------------------------- */

static void print_text(const struct probe *p, const struct probe_item *blocker)
{
  for (size_t i = 0; i < p->n; i++) {
    const struct probe_item *it = &p->items[i];
    printf("%-9s %-19s %s\n", probe_state_name(it->state), it->name, it->found);
    if (it->lost[0]) printf("%-9s %-19s lost: %s\n", "", "", it->lost);
    if (it->mend[0]) printf("%-9s %-19s mend: %s\n", "", "", it->mend);
  }
  if (blocker)
    printf("\nThis machine cannot make sandboxes: %s.\n", blocker->name);
  else
    printf("\nSandboxes can be made here.\n");
}

static void print_json(const struct probe *p, bool ok)
{
  struct val checks = val_list(), out = val_map();
  for (size_t i = 0; i < p->n; i++) {
    const struct probe_item *it = &p->items[i];
    struct val v = val_map();
    val_add(&v, "name", val_str(it->name));
    val_add(&v, "status", val_str(probe_state_name(it->state)));
    val_add(&v, "required", val_bool(it->required));
    val_add(&v, "found", val_str(it->found));
    if (it->lost[0]) val_add(&v, "lost", val_str(it->lost));
    if (it->mend[0]) val_add(&v, "mend", val_str(it->mend));
    val_push(&checks, v);
  }
  val_add(&out, "ok", val_bool(ok));
  val_add(&out, "version", val_str(REGOLITH_VERSION));
  val_add(&out, "checks", checks);
  struct buf text = {0};
  json_print(&text, &out);
  printf("%s\n", text.data);
  buf_free(&text);
  val_free(&out);
}

static int run(int argc, char **argv)
{
  struct doctor_options opt = {0};
  int first, dashes, rc = cli_parse(&cmd_doctor, argc, argv, &opt, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  if (first < argc) {
    struct err err;
    err_arg(&err, "", "doctor takes no operands: \"%s\"", argv[first]);
    return cli_usage_err(&cmd_doctor, &err);
  }
  struct probe *p = xcalloc(1, sizeof *p);
  probe_machine(p);
  check_lua(p);
  doctor_engines(p);
  if (have_command("exec") && !probe_blocker(p)) check_sandbox(p);
  const struct probe_item *blocker = probe_blocker(p);
  if (opt.json)
    print_json(p, !blocker);
  else
    print_text(p, blocker);
  rc = blocker ? CLI_EXIT_NO_SANDBOXES : CLI_EXIT_OK;
  free(p);
  return rc;
}

const struct cli_command cmd_doctor = {
    .name = "doctor",
    .summary = "Say what this machine offers, and how to mend what is missing",
    .usage = "",
    .details =
        "Each line starts with ok, degraded (something is lost) or missing. Engines on other\n"
        "machines that the configuration or the environment names are asked whether they are\n"
        "there and know the key. The last line makes a sandbox and ends it. Exit status: 0\n"
        "sandboxes can be made, 3 they cannot.\n",
    .options = options,
    .run = run,
};

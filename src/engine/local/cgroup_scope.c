/* Control groups: a delegated scope from systemd.
 *
 * On a machine whose groups systemd manages, the way to a group of one's own is to ask for it: a
 * transient scope unit with Delegate=yes, into which systemd moves the processes named. Root asks
 * the system manager, an ordinary user the user's own. The scope ends by itself with its last
 * process.
 *
 * libsystemd speaks the bus and is opened here, in a child process that lives for this one call: a
 * warden never maps it. The bus is tried first, then the manager's private socket (machines without
 * a bus daemon).
 *
 * That the call succeeded only means that a job was queued; what counts is that our group changed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/local/cgroup_internal.h"

#define SCOPE_WAIT_MS 8000 /* a busy manager takes its time; a hung one must not stop us */

/* What we use of sd-bus.h. */
struct sd_bus;
struct sd_bus_message;
struct bus_api {
  int (*create)(struct sd_bus **);
  int (*set_address)(struct sd_bus *, const char *);
  int (*set_bus_client)(struct sd_bus *, int);
  int (*start)(struct sd_bus *);
  int (*new_call)(struct sd_bus *, struct sd_bus_message **, const char *, const char *,
                  const char *, const char *);
  int (*append)(struct sd_bus_message *, const char *, ...);
  int (*call)(struct sd_bus *, struct sd_bus_message *, uint64_t, void *, struct sd_bus_message **);
};

static bool open_api(struct bus_api *api)
{
  void *lib = dlopen("libsystemd.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!lib) return false;
  const struct {
    const char *name;
    void *slot;
  } symbols[] = {{"sd_bus_new", &api->create},
                 {"sd_bus_set_address", &api->set_address},
                 {"sd_bus_set_bus_client", &api->set_bus_client},
                 {"sd_bus_start", &api->start},
                 {"sd_bus_message_new_method_call", &api->new_call},
                 {"sd_bus_message_append", &api->append},
                 {"sd_bus_call", &api->call}};
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
    void *f = dlsym(lib, symbols[i].name);
    if (!f) return false;
    memcpy(symbols[i].slot, &f, sizeof f); /* a function pointer, by way of its bytes */
  }
  return true;
}

static int connect_to(const struct bus_api *api, const char *path, bool daemon,
                      struct sd_bus **ret_bus)
{
  char address[256];
  struct sd_bus *bus;
  if (access(path, F_OK) != 0) return -errno;
  snprintf(address, sizeof address, "unix:path=%s", path);
  int r = api->create(&bus);
  if (r >= 0) r = api->set_address(bus, address);
  if (r >= 0) r = api->set_bus_client(bus, daemon);
  if (r >= 0) r = api->start(bus);
  *ret_bus = bus;
  return r;
}

static int ask(const struct bus_api *api, struct sd_bus *bus, const char *name, pid_t a, pid_t b)
{
  struct sd_bus_message *m;
  int r = api->new_call(bus, &m, "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                        "org.freedesktop.systemd1.Manager", "StartTransientUnit");
  if (r < 0) return r;
  r = api->append(m, "ss", name, "fail");
  if (r >= 0 && b > 0)
    r = api->append(m, "a(sv)", 4, "PIDs", "au", 2, (uint32_t)a, (uint32_t)b, "Delegate", "b", 1,
                    "Description", "s", "regolith: sandboxes", "CollectMode", "s",
                    "inactive-or-failed");
  else if (r >= 0)
    r = api->append(m, "a(sv)", 4, "PIDs", "au", 1, (uint32_t)a, "Delegate", "b", 1, "Description",
                    "s", "regolith: sandboxes", "CollectMode", "s", "inactive-or-failed");
  if (r >= 0) r = api->append(m, "a(sa(sv))", 0);
  return r < 0 ? r : api->call(bus, m, SCOPE_WAIT_MS * 1000ull, NULL, NULL);
}

/* The user as the machine knows it: the warden may be root of a user namespace already. */
static unsigned outer_uid(void)
{
  FILE *f = fopen("/proc/self/uid_map", "re");
  unsigned inside, outside, count, uid = (unsigned)geteuid();
  while (f && fscanf(f, "%u %u %u", &inside, &outside, &count) == 3)
    if (geteuid() >= inside && geteuid() - inside < count) uid = outside + (geteuid() - inside);
  if (f) fclose(f);
  return uid;
}

static int ask_somebody(const char *name, pid_t a, pid_t b)
{
  struct bus_api api;
  if (!open_api(&api)) return -EOPNOTSUPP;
  unsigned uid = outer_uid();
  char bus_path[64] = "/run/dbus/system_bus_socket", private_path[64] = "/run/systemd/private";
  if (uid != 0) {
    snprintf(bus_path, sizeof bus_path, "/run/user/%u/bus", uid);
    snprintf(private_path, sizeof private_path, "/run/user/%u/systemd/private", uid);
  }
  struct sd_bus *bus;
  int r = connect_to(&api, bus_path, true, &bus);
  if (r >= 0) r = ask(&api, bus, name, a, b);
  if (r >= 0) return 0;
  r = connect_to(&api, private_path, false, &bus);
  return r < 0 ? r : ask(&api, bus, name, a, b);
}

/* One that is gone counts as moved. */
static bool in_scope(const char *name, pid_t pid)
{
  char path[64], text[4096];
  if (pid <= 0) return true;
  snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
  int n = cg_read_at(AT_FDCWD, path, text, sizeof text);
  return n > 0 ? strstr(text, name) != NULL : n == -ENOENT || n == -ESRCH;
}

static int reap(pid_t pid, uint64_t deadline_ms)
{
  for (;;) {
    int status;
    pid_t r = waitpid(pid, &status, WNOHANG);
    if (r == pid) return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EOPNOTSUPP;
    if (r < 0 && errno != EINTR) return -errno;
    if (clock_mono_ms() >= deadline_ms) {
      kill(pid, SIGKILL);
      waitpid(pid, NULL, 0);
      return -ETIMEDOUT;
    }
    nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
  }
}

int cg_scope_take(pid_t host_pid)
{
  if (access("/run/systemd/system", F_OK) != 0) return -EOPNOTSUPP;
  char name[64];
  pid_t self = getpid();
  uint64_t deadline = clock_mono_ms() + SCOPE_WAIT_MS;
  snprintf(name, sizeof name, "regolith-%d.scope", (int)self);
  pid_t pid = fork();
  if (pid < 0) return -errno;
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit(ask_somebody(name, self, host_pid) < 0);
  }
  int r = reap(pid, deadline);
  /* Both: they are moved one after the other. */
  while (r == 0 && !(in_scope(name, self) && in_scope(name, host_pid))) {
    if (clock_mono_ms() >= deadline) return -ETIMEDOUT;
    nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
  }
  return r;
}

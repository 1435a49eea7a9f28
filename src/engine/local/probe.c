/* Probing: what this machine offers, what is lost where it offers less, and how to mend it.
 *
 * One function per line of `regolith doctor`, in the order in which things build on each other. The
 * trials themselves are in probe_try.c; here is what their answers mean. Only what no sandbox can
 * do without is `required`; all else has a fallback that the line names as lost. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/buf.h"
#include "engine/local/cgroup.h"
#include "engine/local/gpu.h"
#include "engine/local/probe.h"
#include "engine/local/probe_internal.h"
#include "engine/local/tap.h"

#define SANDBOX_IDS 65536

const char *probe_state_name(enum probe_state state)
{
  switch (state) {
  case PROBE_OK: return "ok";
  case PROBE_DEGRADED: return "degraded";
  case PROBE_MISSING: return "missing";
  }
  return "?";
}

#define PRINTF(f, a) __attribute__((format(printf, f, a)))

static struct probe_item *add(struct probe *p, const char *name)
{
  if (p->n == PROBE_ITEMS_MAX) abort();
  struct probe_item *it = &p->items[p->n++];
  *it = (struct probe_item){.name = name, .state = PROBE_OK};
  return it;
}

PRINTF(2, 3) static void found(struct probe_item *it, const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(it->found, sizeof it->found, fmt, ap);
  va_end(ap);
}

/* mend may be "". */
static void worse(struct probe_item *it, enum probe_state state, const char *lost, const char *mend)
{
  it->state = state;
  snprintf(it->lost, sizeof it->lost, "%s", lost);
  snprintf(it->mend, sizeof it->mend, "%s", mend);
}

static long read_number(const char *path, long fallback)
{
  FILE *f = fopen(path, "re");
  long v = fallback;
  if (f && fscanf(f, "%ld", &v) != 1) v = fallback;
  if (f) fclose(f);
  return v;
}

/* The number behind "Key:" in /proc/self/status, base 16; 0 if there is none. */
static unsigned long long own_status(const char *key)
{
  FILE *f = fopen("/proc/self/status", "re");
  char line[256];
  unsigned long long v = 0;
  while (f && fgets(line, sizeof line, f))
    if (strncmp(line, key, strlen(key)) == 0) v = strtoull(line + strlen(key), NULL, 16);
  if (f) fclose(f);
  return v;
}

static bool in_container(void)
{
  return access("/.dockerenv", F_OK) == 0 || access("/run/.containerenv", F_OK) == 0;
}

#define CONTAINER_FLAGS                                                                            \
  "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "               \
  "--security-opt systempaths=unconfined ..."

/* --- kernel and namespaces -------------------------------------------------------------------- */

static void probe_kernel(struct probe *p)
{
  struct probe_item *it = add(p, "kernel");
  struct utsname u;
  int major = 0, minor = 0;
  uname(&u);
  sscanf(u.release, "%d.%d", &major, &minor);
  found(it, "Linux %.64s, %.32s", u.release, u.machine);
  int version = major * 1000 + minor;
  if (version < 5011)
    worse(it, PROBE_DEGRADED,
          "kernels before 5.11 are not tested and lack several of the lines below",
          "install a newer kernel");
  else if (version < 5014)
    worse(it, PROBE_DEGRADED,
          "ending what a command started takes longer (no cgroup.kill before 5.14)",
          "install a newer kernel");
}

/* Why user namespaces cannot be made, as far as it can be told. */
static void explain_no_userns(struct probe_item *it, int e)
{
  if (read_number("/proc/sys/kernel/unprivileged_userns_clone", 1) == 0 && geteuid() != 0) {
    found(it, "switched off for ordinary users (kernel.unprivileged_userns_clone)");
    snprintf(it->mend, sizeof it->mend, "sudo sysctl -w kernel.unprivileged_userns_clone=1");
  } else if (read_number("/proc/sys/user/max_user_namespaces", 1) == 0) {
    found(it, "none may be made (user.max_user_namespaces)");
    snprintf(it->mend, sizeof it->mend, "sudo sysctl -w user.max_user_namespaces=15000");
  } else if (e == ENOSPC || e == EUSERS) {
    found(it, "too many exist, or they are nested too deeply (user.max_user_namespaces)");
    snprintf(it->mend, sizeof it->mend, "sudo sysctl -w user.max_user_namespaces=15000");
  } else if (e == ENOSYS || e == EINVAL) {
    found(it, "the kernel was built without them");
  } else if (own_status("Seccomp:") == 2) {
    found(it, "a seccomp filter forbids them%s", in_container() ? ", as in a plain container" : "");
    snprintf(it->mend, sizeof it->mend, "%s", CONTAINER_FLAGS);
  } else if (e == EPERM) {
    found(it, "not permitted: we run in a chroot, or a security module forbids them");
  } else {
    found(it, "%s", strerror(e));
  }
}

static bool probe_userns(struct probe *p)
{
  static const char none[] =
      "no sandboxes: they are what keeps root inside from being root outside";
  struct probe_item *it = add(p, "user namespaces");
  it->required = true;
  int e = probe_try_userns();
  if (e) {
    explain_no_userns(it, e);
    char mend[sizeof it->mend];
    snprintf(mend, sizeof mend, "%s", it->mend);
    worse(it, PROBE_MISSING, none, mend);
    return false;
  }
  e = probe_try_userns_power();
  if (e == 0) {
    found(it, "available%s", geteuid() == 0 ? "" : " to this user");
    return true;
  }
  bool apparmor = read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) == 1;
  found(it, "%s", apparmor ? "AppArmor takes their capabilities away" : "without capabilities");
  worse(it, PROBE_MISSING, none,
        apparmor ? "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" : "");
  return false;
}

static const struct {
  const char *name;
  int flag;
  bool required;
  const char *lost;
} namespaces[] = {
    {"mount namespaces", CLONE_NEWNS, true, "no sandboxes: files could not be kept apart"},
    {"pid namespaces", CLONE_NEWPID, true, "no sandboxes: processes could not be kept apart"},
    {"ipc namespaces", CLONE_NEWIPC, true, "no sandboxes: shared memory could not be kept apart"},
    {"uts namespaces", CLONE_NEWUTS, true, "no sandboxes: they have host names of their own"},
    {"network namespaces", CLONE_NEWNET, true, "no sandboxes: networks could not be kept apart"},
    {"cgroup namespaces", CLONE_NEWCGROUP, true, "no sandboxes: paths of the host would show"},
};

static bool probe_namespaces(struct probe *p)
{
  bool all = true;
  for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
    struct probe_item *it = add(p, namespaces[i].name);
    it->required = namespaces[i].required;
    int e = probe_try_namespace(namespaces[i].flag);
    if (e == 0) {
      found(it, "available");
      continue;
    }
    all = false;
    found(it, "%s", e == EINVAL ? "the kernel was built without them" : strerror(e));
    worse(it, PROBE_MISSING, namespaces[i].lost, in_container() ? CONTAINER_FLAGS : "");
  }
  return all;
}

static void probe_proc(struct probe *p)
{
  struct probe_item *it = add(p, "/proc in a sandbox");
  it->required = true;
  int e = probe_try_proc();
  if (e == 0) {
    found(it, "can be mounted");
    return;
  }
  found(it, "%s",
        e == EPERM ? "our own /proc is partly masked, as in a plain container, and the kernel "
                     "then allows no other"
                   : strerror(e));
  worse(it, PROBE_MISSING, "no sandboxes: programs need /proc",
        "docker run --security-opt systempaths=unconfined ...");
}

/* --- ids -------------------------------------------------------------------------------------- */

/* How many ids our own user namespace has. */
static unsigned long long own_ids(void)
{
  FILE *f = fopen("/proc/self/uid_map", "re");
  unsigned long long inside, outside, count, sum = 0;
  while (f && fscanf(f, "%llu %llu %llu", &inside, &outside, &count) == 3) sum += count;
  if (f) fclose(f);
  return sum;
}

/* The ids that a file like /etc/subuid gives this user. */
static unsigned long long subordinate_ids(const char *path, const char *name)
{
  FILE *f = fopen(path, "re");
  char line[512], uid[32];
  unsigned long long best = 0;
  snprintf(uid, sizeof uid, "%u", (unsigned)getuid());
  while (f && fgets(line, sizeof line, f)) {
    char *start = strchr(line, ':'), *count = start ? strchr(start + 1, ':') : NULL;
    if (!count) continue;
    *start = 0;
    unsigned long long n = strtoull(count + 1, NULL, 10);
    if ((strcmp(line, name) == 0 || strcmp(line, uid) == 0) && n > best) best = n;
  }
  if (f) fclose(f);
  return best;
}

static bool on_path(const char *program)
{
  char path[256];
  static const char *const dirs[] = {"/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"};
  for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
    snprintf(path, sizeof path, "%s/%s", dirs[i], program);
    if (access(path, X_OK) == 0) return true;
  }
  return false;
}

static void probe_root_ids(struct probe_item *it)
{
  unsigned long long ids = own_ids();
  if (ids > 0x78000000) {
    found(it, "root: each sandbox has %d ids that no other has", SANDBOX_IDS);
    return;
  }
  found(it, "root of a user namespace with %llu ids", ids);
  worse(it, PROBE_DEGRADED, "sandboxes share ids: files that one leaves behind could be another's",
        "run as root of the machine itself");
}

static void probe_ids(struct probe *p)
{
  struct probe_item *it = add(p, "subordinate ids");
  if (geteuid() == 0) {
    probe_root_ids(it);
    return;
  }
  const struct passwd *pw = getpwuid(getuid());
  const char *name = pw ? pw->pw_name : "";
  unsigned long long uids = subordinate_ids("/etc/subuid", name);
  unsigned long long gids = subordinate_ids("/etc/subgid", name);
  char mend[sizeof it->mend] = "";
  bool helpers = on_path("newuidmap") && on_path("newgidmap");
  if (!helpers)
    snprintf(mend, sizeof mend, "sudo apt-get install -y uidmap");
  else if (uids < SANDBOX_IDS || gids < SANDBOX_IDS)
    snprintf(mend, sizeof mend,
             "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %.64s",
             *name ? name : "$USER");
  if (!*mend) {
    found(it, "%llu for this user, shared by its sandboxes", uids < gids ? uids : gids);
    return;
  }
  found(it, "%s",
        helpers ? "/etc/subuid and /etc/subgid have none (or too few) for this user"
                : "newuidmap is not installed");
  worse(it, PROBE_DEGRADED,
        "one id in a sandbox: no other users than root, and apt, tar and the like cannot chown",
        mend);
}

/* --- files ------------------------------------------------------------------------------------ */

static void probe_overlay(struct probe *p)
{
  struct probe_item *it = add(p, "overlayfs");
  int e = probe_try_overlay();
  if (e) {
    found(it, "%s", e == ENODEV ? "the kernel has none" : strerror(e));
    worse(it, PROBE_MISSING, "images (all but \"host\") cannot be used",
          e == ENODEV ? "sudo modprobe overlay"
          : geteuid() ? "run as root, or Linux 5.11 or later"
                      : "");
    return;
  }
  e = probe_try_overlay_replace();
  if (e) {
    found(it, "works, but not for replacing directories: %s", strerror(e));
    worse(it, PROBE_DEGRADED, "deleting directories of an image fails",
          "Linux 6.6 or later, or root");
    return;
  }
  found(it, "works on a tmpfs");
}

/* Where images will lie: $XDG_STATE_HOME/regolith, or the nearest directory above it. */
static void state_dir(char *out, size_t size, bool existing)
{
  const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  if (xdg && *xdg == '/')
    snprintf(out, size, "%s/regolith", xdg);
  else
    snprintf(out, size, "%s/.local/state/regolith", home && *home == '/' ? home : "");
  while (existing && access(out, F_OK) != 0) {
    char *slash = strrchr(out, '/');
    if (!slash || slash == out) {
      snprintf(out, size, "/");
      return;
    }
    *slash = 0;
  }
}

static void probe_idmap(struct probe *p)
{
  struct probe_item *it = add(p, "idmapped mounts");
  char path[1024];
  if (geteuid() != 0) {
    found(it, "not needed as an ordinary user");
    return;
  }
  state_dir(path, sizeof path, true);
  int e = probe_try_idmap(path);
  if (e == 0) {
    found(it, "work for %.150s", path);
    return;
  }
  found(it, "not for %.100s: %s", path, e == EINVAL ? "its file system cannot do it" : strerror(e));
  worse(it, PROBE_DEGRADED, "files of images have odd owners inside sandboxes",
        "put $XDG_STATE_HOME on ext4, xfs or btrfs, with Linux 5.12 or later");
}

static void probe_tmpfs(struct probe *p)
{
  struct probe_item *it = add(p, "tmpfs attributes");
  int e = probe_try_tmpfs_xattr();
  if (e == 0) {
    found(it, "user.* attributes work");
    return;
  }
  found(it, "no user.* attributes (Linux 6.6 has them)");
  if (geteuid() == 0) return; /* root's overlay uses trusted.* */
  worse(it, PROBE_DEGRADED, "the writable layer lies on disk, without a size limit",
        "Linux 6.6 or later");
}

static void probe_state_dir(struct probe *p)
{
  struct probe_item *it = add(p, "state directory");
  char path[1024], there[1024];
  state_dir(path, sizeof path, false);
  state_dir(there, sizeof there, true);
  struct statvfs fs;
  double gib = statvfs(there, &fs) == 0
                   ? (double)fs.f_bavail * (double)fs.f_frsize / (1024.0 * 1024 * 1024)
                   : 0;
  if (access(there, W_OK | X_OK) != 0) {
    found(it, "%.120s: %s", path, strerror(errno));
    worse(it, PROBE_DEGRADED, "no images can be stored",
          "export XDG_STATE_HOME=/a/writable/directory");
    return;
  }
  found(it, "%.120s, %.1f GiB free", path, gib);
  if (gib < 1)
    worse(it, PROBE_DEGRADED, "little room for images", "free some space, or set $XDG_STATE_HOME");
}

/* --- control groups --------------------------------------------------------------------------- */

static const char *mode_name(enum cgroup_mode mode)
{
  switch (mode) {
  case CGROUP_NONE: return "none usable";
  case CGROUP_V1: return "version 1";
  case CGROUP_HYBRID: return "version 1 with version 2 beside it";
  case CGROUP_V2: return "version 2";
  }
  return "?";
}

static void probe_cgroups(struct probe *p)
{
  struct cgroup_info info;
  cgroup_probe(&info);
  struct probe_item *it = add(p, "control groups");
  static const struct {
    unsigned cap;
    const char *name;
  } limits[] = {{CGROUP_CAP_CPU, "cpu"}, {CGROUP_CAP_MEMORY, "memory"}, {CGROUP_CAP_PIDS, "pids"}};
  char have[64] = "", lack[64] = "";
  for (size_t i = 0; i < 3; i++) {
    char *list = info.caps & limits[i].cap ? have : lack;
    snprintf(list + strlen(list), sizeof have - strlen(list), "%s%s", *list ? ", " : "",
             limits[i].name);
  }
  bool reason = *lack && info.why[0];
  found(it, "%s%s%s%s%.100s", mode_name(info.mode), *have ? ": " : "", have, reason ? "; " : "",
        reason ? info.why : "");
  if (*lack) {
    char lost[sizeof it->lost];
    snprintf(lost, sizeof lost, "limits on %s are per process only (rlimits), or none", lack);
    worse(it, info.caps & CGROUP_CAP_MEMORY ? PROBE_DEGRADED : PROBE_MISSING, lost, info.mend);
  } else if (!(info.caps & CGROUP_CAP_SWAP)) {
    worse(it, PROBE_DEGRADED, "sandboxes can use swap beyond their memory limit",
          "boot with swapaccount=1, or sudo swapoff -a");
  }

  it = add(p, "exec groups");
  if (info.caps & CGROUP_CAP_LEAVES) {
    found(it, "each exec has a group of its own, with cgroup.kill%s",
          info.caps & CGROUP_CAP_LEAF_OOM ? " and memory events" : "");
  } else {
    found(it, "no cgroup2 that we may write to%s",
          info.mode == CGROUP_V2 ? ", or no cgroup.kill" : "");
    worse(it, PROBE_DEGRADED, "execs are told apart by marks, which takes longer to end them",
          info.mend);
  }
}

/* --- walls ------------------------------------------------------------------------------------ */

static void probe_seccomp(struct probe *p)
{
  struct probe_item *it = add(p, "seccomp");
  int e = probe_try_seccomp();
  if (e == 0) {
    found(it, "the filter loads and refuses");
    return;
  }
  it->required = true;
  found(it, "%s", e == EINVAL || e == ENOSYS ? "the kernel has no filters" : strerror(e));
  worse(it, PROBE_MISSING, "no sandboxes: the kernel would stand open", "");
}

static void probe_landlock(struct probe *p)
{
  struct probe_item *it = add(p, "landlock");
  int abi = probe_landlock_abi();
  if (abi >= 2) {
    found(it, "version %d", abi);
    return;
  }
  if (abi == 1)
    found(it, "version 1, which refuses ordinary renames: not used");
  else
    found(it, "not in this kernel, or not switched on");
  worse(it, PROBE_DEGRADED, "one wall less behind the mount namespace",
        "boot with lsm=landlock,... (Linux 5.19 or later)");
}

/* --- extras ----------------------------------------------------------------------------------- */

static bool loadable(const char *library)
{
  void *h = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
  if (h) dlclose(h);
  return h != NULL;
}

static void probe_network_helper(struct probe *p)
{
  struct probe_item *it = add(p, "network helper");
  bool slirp = loadable("libslirp.so.0");
  int tun = tap_usable();
  found(it, "%s, %s", slirp ? "libslirp" : "no libslirp",
        tun == 0         ? "/dev/net/tun"
        : tun == -EACCES ? "/dev/net/tun is not for you"
                         : "no /dev/net/tun");
  if (!slirp || tun < 0)
    worse(it, PROBE_DEGRADED, "sandboxes have no network but their own loopback",
          !slirp           ? "sudo apt-get install -y libslirp0"
          : tun == -EACCES ? "sudo chmod 666 /dev/net/tun"
                           : "sudo modprobe tun");
}

static void count_gpu(void *data, const char *name, unsigned count, unsigned free_n)
{
  struct probe_item *it = data;
  size_t len = strlen(it->found);
  snprintf(it->found + len, sizeof it->found - len, "%s%u %s (%u free)", len ? ", " : "", count,
           name, free_n);
}

/* The driver is asked by a helper, and only where something hints at a card. */
static void probe_gpus(struct probe *p)
{
  struct probe_item *it = add(p, "GPUs");
  struct gpus *gpus = gpu_maybe() ? gpus_new(NULL, NULL) : NULL;
  struct err err = {0};
  if (!gpus) {
    found(it, "none");
    worse(it, PROBE_MISSING, "sandboxes with a GPU", "");
    return;
  }
  if (gpus_look(gpus, &err) < 0) {
    found(it, "%s", err.msg);
    worse(it, PROBE_DEGRADED, "sandboxes with a GPU", "");
  } else {
    gpus_count(gpus, count_gpu, it);
    const char *note = gpus_first_note(gpus);
    if (!it->found[0]) found(it, "none");
    if (note) worse(it, PROBE_DEGRADED, note, "");
  }
  gpus_free(gpus);
}

void probe_machine(struct probe *ret)
{
  ret->n = 0;
  probe_kernel(ret);
  if (probe_userns(ret) && probe_namespaces(ret)) {
    probe_proc(ret);
    probe_ids(ret);
    probe_overlay(ret);
  }
  probe_idmap(ret);
  probe_tmpfs(ret);
  probe_state_dir(ret);
  probe_cgroups(ret);
  probe_seccomp(ret);
  probe_landlock(ret);
  probe_network_helper(ret);
  probe_gpus(ret);
}

const struct probe_item *probe_blocker(const struct probe *probe)
{
  for (size_t i = 0; i < probe->n; i++)
    if (probe->items[i].required && probe->items[i].state == PROBE_MISSING) return &probe->items[i];
  return NULL;
}

bool probe_explain(struct err *err)
{
  struct probe *p = xcalloc(1, sizeof *p);
  probe_machine(p);
  const struct probe_item *it = probe_blocker(p);
  if (it) {
    err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "this machine cannot make sandboxes: %s: %s", it->name,
            it->found);
    err_hint(err, "%s%sregolith doctor tells more", it->mend, it->mend[0] ? "; " : "");
  }
  free(p);
  return it != NULL;
}

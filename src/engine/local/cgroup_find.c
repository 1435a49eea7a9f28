/* Control groups: what is mounted, where we are in it, and where our directories can go.
 *
 * /proc/self/mountinfo says which hierarchies exist and where; /proc/self/cgroup says which group
 * of each we are in. Our own group in every hierarchy is the place to build under, so that limits
 * somebody set on us (a container, a service, a login session) hold for our boxes too.
 *
 * v1 lets groups with processes have children, so there the own group always does if we may write.
 * v2 does not, once controllers are on for the children ("no internal processes"). Places for v2,
 * in order of preference:
 *   1. our own group, when host and warden are alone in it: both move to a leaf of it
 *   2. a scope that systemd delegates (cgroup_scope.c), which then is 1.
 *   3. the true root group, which is exempt from the rule (root only; what a systemd machine offers
 *      when its manager cannot be asked)
 *   4. our own group without controllers: leaves only, no limits
 * This file only looks: it makes nothing and moves nothing. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/cgroup_internal.h"

enum { OWN_MAX = 32 << 10 }; /* bytes of /proc/self/cgroup: a line per hierarchy */

static const struct {
  const char *name;
  unsigned ctl;
} controllers[] = {{"cpu", CG_CPU},
                   {"memory", CG_MEMORY},
                   {"pids", CG_PIDS},
                   {"cpuacct", CG_CPUACCT},
                   {"devices", CG_DEVICES}};

unsigned cg_parse_controllers(const char *list, char separator)
{
  unsigned ctl = 0;
  const char ends[] = {separator, ':', '\n', 0};
  while (*list && *list != ':' && *list != '\n') {
    size_t len = strcspn(list, ends);
    for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++)
      if (strlen(controllers[i].name) == len && strncmp(list, controllers[i].name, len) == 0)
        ctl |= controllers[i].ctl;
    list += len;
    if (*list == separator) list++;
  }
  return ctl;
}

bool cg_machine_has_swap(void)
{
  char text[512];
  if (cg_read_at(AT_FDCWD, "/proc/swaps", text, sizeof text) < 0) return true;
  char *line = strchr(text, '\n');
  return line && line[1];
}

/* mountinfo writes space, tab, newline and backslash as three octal digits. */
static void unescape(char *s)
{
  char *out = s;
  for (; *s; s++) {
    if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
      *out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
      s += 3;
    } else {
      *out++ = *s;
    }
  }
  *out = 0;
}

/* Our path in the hierarchy with these controllers (0: in cgroup2), as /proc/self/cgroup, which is
 * `own`, has it. */
static bool own_path(const char *own, unsigned ctl, char out[CG_PATH])
{
  for (const char *line = own; *line; line += strcspn(line, "\n") + 1) {
    const char *list = strchr(line, ':');
    const char *path = list ? strchr(list + 1, ':') : NULL;
    if (!path) return false;
    bool found =
        ctl ? (cg_parse_controllers(list + 1, ',') & ctl) == ctl : strncmp(line, "0::", 3) == 0;
    path++;
    if (found) return snprintf(out, CG_PATH, "%.*s", (int)strcspn(path, "\n"), path) < CG_PATH;
  }
  return false;
}

/* The directory of `path` in a mount that shows the hierarchy from `root` on. */
static bool path_in_mount(const char *mount, const char *root, const char *path, char out[CG_PATH])
{
  size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);
  if (strncmp(path, "/..", 3) == 0 || strncmp(path, root, n) != 0) return false;
  if (path[n] && path[n] != '/') return false;
  const char *rest = strcmp(path + n, "/") == 0 ? "" : path + n;
  return snprintf(out, CG_PATH, "%s%s", mount, rest) < CG_PATH;
}

/* One line of mountinfo: id parent major:minor root mount options … - type source super-options */
static bool parse_mount(char *line, const char *own, struct cg_tree *t)
{
  char *tail = strstr(line, " - ");
  if (!tail) return false;
  *tail = 0;
  char type[32], super[512], root[CG_PATH], mount[CG_PATH];
  if (sscanf(tail + 3, "%31s %*s %511s", type, super) != 2) return false;
  if (strcmp(type, "cgroup") != 0 && strcmp(type, "cgroup2") != 0) return false;
  if (sscanf(line, "%*s %*s %*s %1023s %1023s", root, mount) != 2) return false;
  unescape(root);
  unescape(mount);
  *t = (struct cg_tree){.v2 = type[6] == '2', .warden_fd = -1, .plain_fd = -1};
  if (!t->v2) {
    t->ctl = cg_parse_controllers(super, ',');
    if (!t->ctl) return false;
  }
  char path[CG_PATH];
  snprintf(t->mount, sizeof t->mount, "%s", mount);
  return own_path(own, t->v2 ? 0 : t->ctl, path) && path_in_mount(mount, root, path, t->own);
}

static size_t find_mounts(struct cg_tree trees[CG_TREES_MAX])
{
  char own[OWN_MAX];
  if (cg_read_at(AT_FDCWD, "/proc/self/cgroup", own, sizeof own) < 0) return 0;
  FILE *f = fopen("/proc/self/mountinfo", "re");
  if (!f) return 0;
  char *line = NULL;
  size_t cap = 0, n = 0;
  while (n < CG_TREES_MAX && getline(&line, &cap, f) > 0) {
    if (!parse_mount(line, own, &trees[n])) continue;
    bool again = false;
    for (size_t i = 0; i < n; i++)
      if (trees[i].v2 == trees[n].v2 && trees[i].ctl == trees[n].ctl) again = true;
    if (!again) n++;
  }
  free(line);
  fclose(f);
  return n;
}

static bool can_make_below(const char *dir)
{
  char procs[CG_PATH + 16];
  snprintf(procs, sizeof procs, "%s/cgroup.procs", dir);
  return access(dir, W_OK | X_OK) == 0 && access(procs, W_OK) == 0;
}

/* Is everything in the group one of these two processes? */
static bool alone_in(const char *dir, pid_t host_pid)
{
  char path[CG_PATH + 16];
  snprintf(path, sizeof path, "%s/cgroup.procs", dir);
  FILE *f = fopen(path, "re");
  if (!f) return false;
  long pid;
  bool alone = true;
  while (fscanf(f, "%ld", &pid) == 1)
    if (pid != getpid() && pid != host_pid) alone = false;
  fclose(f);
  return alone;
}

static bool is_true_root(const char *dir)
{
  char path[CG_PATH + 16]; /* every group but the root has this file */
  snprintf(path, sizeof path, "%s/cgroup.events", dir);
  return access(path, F_OK) != 0;
}

static unsigned v2_controllers(const char *dir)
{
  char path[CG_PATH + 24], text[256];
  snprintf(path, sizeof path, "%s/cgroup.controllers", dir);
  if (cg_read_at(AT_FDCWD, path, text, sizeof text) < 0) return 0;
  return cg_parse_controllers(text, ' ');
}

/* Where an earlier warden of this host moved us to, BASE/regolith/WARDEN/host, stands for its BASE:
 * else every new warden would nest one deeper. */
static bool leave_host_leaf(struct cg_tree *t)
{
  char *at = strstr(t->own, "/regolith/w-");
  size_t len = strlen(t->own);
  if (!at || len < 5 || strcmp(t->own + len - 5, "/host") != 0) return false;
  *at = 0;
  return true;
}

/* Chooses BASE; an empty one means that the tree is of no use. */
static void choose_v2_base(struct cg_tree *t, pid_t host_pid, struct cgroup_info *info)
{
  t->move = leave_host_leaf(t);
  bool own = can_make_below(t->own);
  t->ctl = v2_controllers(t->own);
  if (own && (t->move || !t->ctl || is_true_root(t->own) || alone_in(t->own, host_pid))) {
    if (t->ctl && !is_true_root(t->own)) t->move = true;
    snprintf(t->base, sizeof t->base, "%s", t->own);
    return;
  }
  if (is_true_root(t->mount) && can_make_below(t->mount)) {
    t->ctl = v2_controllers(t->mount);
    snprintf(t->base, sizeof t->base, "%s", t->mount);
    return;
  }
  if (own) {
    t->ctl = 0;
    snprintf(t->base, sizeof t->base, "%s", t->own);
    snprintf(
        info->why, sizeof info->why,
        "other processes share our control group, so that its controllers cannot be passed on");
    snprintf(
        info->mend, sizeof info->mend,
        "start regolith in a group of its own: systemd-run --scope -p Delegate=yes regolith …");
    return;
  }
  t->ctl = 0;
  bool read_only = access(t->own, W_OK) != 0 && errno == EROFS;
  snprintf(info->why, sizeof info->why, "%s",
           read_only ? "cgroup2 is mounted read-only here, as in a container"
                     : "our control group belongs to somebody else (no delegation)");
  snprintf(info->mend, sizeof info->mend, "%s",
           read_only ? "docker run --cgroupns=private -v /sys/fs/cgroup:/sys/fs/cgroup:rw …"
                     : "systemd-run --user --scope -p Delegate=yes regolith …");
}

/* Keeps the v1 trees that have something we use; cpuacct by itself only where cgroup2 cannot tell
 * CPU time instead. */
static bool choose_v1_base(struct cg_tree *t, bool have_v2, struct cgroup_info *info)
{
  if (t->ctl == CG_CPUACCT && have_v2) return false;
  if (t->ctl != CG_DEVICES) t->ctl &= ~(unsigned)CG_DEVICES; /* not among others */
  if (!t->ctl || (t->ctl == CG_DEVICES && geteuid() != 0)) return false;
  if (!can_make_below(t->own)) {
    bool read_only = access(t->own, W_OK) != 0 && errno == EROFS;
    snprintf(
        info->why, sizeof info->why, "%s",
        read_only
            ? "control groups are mounted read-only here, as in a container"
            : "version 1 control groups can only be used by root, or where root made us a group");
    snprintf(info->mend, sizeof info->mend, "%s",
             read_only ? "docker run -v /sys/fs/cgroup:/sys/fs/cgroup:rw …"
                       : "run as root, or boot with systemd.unified_cgroup_hierarchy=1");
    return false;
  }
  snprintf(t->base, sizeof t->base, "%s", t->own);
  return true;
}

/* On a machine with nothing but v2, unless our group is our own already. */
bool cg_wants_scope(const struct cg_tree *trees, size_t n)
{
  bool v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
  for (size_t i = 0; i < n; i++)
    if (!trees[i].v2 || trees[i].move) return false;
  return v2;
}

/* cgroup2, which is opened first; that of devices last: processes are not looked up there. */
static int rank(const struct cg_tree *t)
{
  return t->v2 ? 0 : t->ctl == CG_DEVICES ? 2 : 1;
}

static void sort(struct cg_tree *trees, size_t n)
{
  for (size_t i = 1; i < n; i++) {
    if (rank(&trees[i]) >= rank(&trees[i - 1])) continue;
    struct cg_tree t = trees[i];
    size_t to = i;
    for (; to > 0 && rank(&trees[to - 1]) > rank(&t); to--) trees[to] = trees[to - 1];
    trees[to] = t;
  }
}

size_t cg_find_trees(struct cg_tree trees[CG_TREES_MAX], pid_t host_pid, struct cgroup_info *info)
{
  size_t found = find_mounts(trees), n = 0;
  bool have_v2 = false;
  for (size_t i = 0; i < found; i++) {
    if (!trees[i].v2) continue;
    choose_v2_base(&trees[i], host_pid, info);
    if (trees[i].base[0]) have_v2 = true;
  }
  for (size_t i = 0; i < found; i++) {
    if (trees[i].v2 ? !trees[i].base[0] : !choose_v1_base(&trees[i], have_v2, info)) continue;
    struct cg_tree keep = trees[i];
    trees[n++] = keep;
  }
  sort(trees, n);
  if (!found) {
    snprintf(info->why, sizeof info->why, "no control groups are mounted");
    snprintf(info->mend, sizeof info->mend, "mount -t cgroup2 none /sys/fs/cgroup");
  }
  return n;
}

/* Control groups: the warden's directories and the boxes in them, across all hierarchies in use.
 *
 * Invariants:
 *   - A warden's directory is locked (flock on the directory) from before its first box until the
 *     process ends; only who gets that lock may remove it. The kernel drops the lock however the
 *     warden ends, so the sweep never has to guess whether a pid is the same process.
 *   - No descriptor is kept per box: boxes are found by name.
 *   - A box is made in all trees or in none.
 * It does not decide limits, does not know sandboxes, and waits only where a header says so. */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "engine/local/cgroup_internal.h"

#define PARENT      "regolith"
#define OPEN_TRIES  5 /* another warden may be removing the shared parent meanwhile */
#define SWEEP_DEPTH 8
#define SWEEP_DIRS  4096 /* groups looked at at most, per tree */
#define DIR_FLAGS   (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

/* --- what there is ---------------------------------------------------------------------------- */

/* Before the trees are open: as far as it can be told. */
static bool devices_walled(const struct cgroups *cg)
{
  for (size_t i = 0; i < cg->n; i++) {
    const struct cg_tree *t = &cg->tree[i];
    if (t->plain_fd >= 0) return true;
    if (t->warden_fd < 0 && (t->ctl == CG_DEVICES || (t->v2 && cg_devices_can_load()))) return true;
  }
  return false;
}

static void derive_info(struct cgroups *cg)
{
  struct cgroup_info *info = &cg->info;
  unsigned ctl = 0;
  bool v1 = false, v2 = false;
  info->caps = 0;
  for (size_t i = 0; i < cg->n; i++) {
    struct cg_tree *t = &cg->tree[i];
    ctl |= t->ctl;
    if (t->ctl != CG_DEVICES) *(t->v2 ? &v2 : &v1) = true;
    if (t->has_kill) info->caps |= CGROUP_CAP_LEAVES | CGROUP_CAP_INTO;
    if (t->has_kill && (t->ctl & CG_MEMORY)) info->caps |= CGROUP_CAP_LEAF_OOM;
    if ((!info->base[0] && t->ctl != CG_DEVICES) || (t->ctl & CG_MEMORY))
      snprintf(info->base, sizeof info->base, "%s", t->base);
  }
  if (ctl & CG_CPU) info->caps |= CGROUP_CAP_CPU;
  if (ctl & CG_MEMORY) info->caps |= CGROUP_CAP_MEMORY;
  if (ctl & CG_PIDS) info->caps |= CGROUP_CAP_PIDS;
  if (devices_walled(cg)) info->caps |= CGROUP_CAP_DEVICES;
  info->mode = v1 ? (v2 ? CGROUP_HYBRID : CGROUP_V1) : v2 ? CGROUP_V2 : CGROUP_NONE;
  if (info->mode == CGROUP_V2 && !(ctl & (CG_CPU | CG_MEMORY | CG_PIDS)) && !info->why[0]) {
    snprintf(info->why, sizeof info->why, "without controllers");
    snprintf(info->mend, sizeof info->mend, "boot with systemd.unified_cgroup_hierarchy=1");
  }
  unsigned all = CGROUP_CAP_CPU | CGROUP_CAP_MEMORY | CGROUP_CAP_PIDS | CGROUP_CAP_LEAVES;
  if ((info->caps & all) == all) info->why[0] = info->mend[0] = 0;
}

static bool exists_in(const char *dir, const char *file)
{
  char path[CG_PATH + 64];
  snprintf(path, sizeof path, "%s/%s", dir, file);
  return access(path, F_OK) == 0;
}

/* cgroup.kill is in every group but the root. */
static bool kernel_has_kill(const struct cg_tree *t)
{
  if (exists_in(t->own, "cgroup.kill")) return true;
  return exists_in(t->own, "cgroup.pressure"); /* 6.1, in the root too */
}

static bool swap_is_limited(const struct cg_tree *t)
{
  if (!cg_machine_has_swap()) return true;
  return exists_in(t->own, t->v2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes");
}

/* Finds the trees, after asking for a scope where that is the way to one. */
static size_t find_trees(struct cgroups *cg, bool take_host)
{
  size_t n = cg_find_trees(cg->tree, cg->host_pid, &cg->info);
  if (!cg_wants_scope(cg->tree, n) || cg_scope_take(take_host ? cg->host_pid : 0) < 0) return n;
  cg->info = (struct cgroup_info){0};
  return cg_find_trees(cg->tree, cg->host_pid, &cg->info);
}

static void probe_here(struct cgroup_info *ret_info)
{
  struct cgroups cg = {.host_pid = getppid()};
  cg.n = find_trees(&cg, false);
  for (size_t i = 0; i < cg.n; i++)
    cg.tree[i].has_kill = cg.tree[i].v2 && kernel_has_kill(&cg.tree[i]);
  derive_info(&cg);
  for (size_t i = 0; i < cg.n; i++)
    if ((cg.tree[i].ctl & CG_MEMORY) && swap_is_limited(&cg.tree[i]))
      cg.info.caps |= CGROUP_CAP_SWAP;
  *ret_info = cg.info;
}

/* In a child: a scope would move the caller. */
void cgroup_probe(struct cgroup_info *ret_info)
{
  int fds[2];
  *ret_info = (struct cgroup_info){0};
  if (pipe2(fds, O_CLOEXEC) < 0) return;
  pid_t pid = fork();
  if (pid == 0) {
    struct cgroup_info info;
    probe_here(&info);
    _exit(write(fds[1], &info, sizeof info) != sizeof info);
  }
  close(fds[1]);
  if (read(fds[0], ret_info, sizeof *ret_info) != sizeof *ret_info)
    *ret_info = (struct cgroup_info){.why = "looking for control groups failed"};
  close(fds[0]);
  while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
}

/* --- the warden's directories ----------------------------------------------------------------- */

/* Locks the directory and makes sure that it is still the one of that name. */
static bool lock_dir(int parent_fd, const char *name, int fd)
{
  struct stat mine, there;
  return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &mine) == 0 &&
         fstatat(parent_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && mine.st_ino == there.st_ino;
}

/* BASE/regolith/WARDEN, made and locked. */
static int make_warden_dir(struct cg_tree *t, const char *warden)
{
  cleanup_close int base = open(t->base, DIR_FLAGS);
  if (base < 0) return -errno;
  for (int try = 0; try < OPEN_TRIES; try++) {
    if (mkdirat(base, PARENT, 0755) < 0 && errno != EEXIST) return -errno;
    cleanup_close int parent = openat(base, PARENT, DIR_FLAGS);
    if (parent < 0 || (mkdirat(parent, warden, 0755) < 0 && errno != EEXIST)) {
      if (errno == ENOENT) continue;
      return -errno;
    }
    cleanup_close int fd = openat(parent, warden, DIR_FLAGS);
    if (fd < 0 || !lock_dir(parent, warden, fd)) continue;
    t->warden_fd = take_fd(&fd);
    return 0;
  }
  return -EAGAIN;
}

/* Out of BASE, so that its controllers can be passed on; with `back`, into it again. */
static int move_procs(struct cg_tree *t, const struct cgroups *cg, bool back)
{
  char path[CG_PATH + 16];
  snprintf(path, sizeof path, "%s/cgroup.procs", t->base);
  int dir = back ? AT_FDCWD : t->warden_fd;
  const char *procs = back ? path : "host/cgroup.procs";
  if (!back && mkdirat(t->warden_fd, "host", 0755) < 0 && errno != EEXIST) return -errno;
  int r = cg_write_at(dir, procs, "0");
  if (cg->host_pid > 0) {
    int r2 = cg_write_u64_at(dir, procs, (uint64_t)cg->host_pid);
    if (r == 0 && r2 != -ESRCH) r = r2;
  }
  return r;
}

/* From BASE down to the warden's directory. */
static void enable_controllers(struct cg_tree *t)
{
  cleanup_close int base = open(t->base, DIR_FLAGS);
  cleanup_close int parent = base < 0 ? -1 : openat(base, PARENT, DIR_FLAGS);
  if (parent < 0) {
    t->ctl = 0;
    return;
  }
  t->ctl = cg_v2_enable(base, t->ctl);
  t->ctl = cg_v2_enable(parent, t->ctl);
  t->ctl = cg_v2_enable(t->warden_fd, t->ctl);
}

static void disable_controllers(struct cg_tree *t)
{
  static const char *const off[] = {"-cpu", "-memory", "-pids"};
  char parent[CG_PATH + 16];
  snprintf(parent, sizeof parent, "%s/" PARENT, t->base);
  const char *const dirs[] = {".", parent, t->base};
  for (size_t i = 0; i < 3; i++) {
    cleanup_close int fd = i ? open(dirs[i], DIR_FLAGS) : dup(t->warden_fd);
    for (size_t k = 0; fd >= 0 && k < 3; k++) cg_write_at(fd, "cgroup.subtree_control", off[k]);
  }
}

static int open_tree(struct cgroups *cg, struct cg_tree *t)
{
  int r = make_warden_dir(t, cg->warden);
  if (r < 0) return r;
  if (!t->v2) return cg->root && t->ctl == CG_DEVICES ? cg_devices_open(t) : 0;
  t->has_kill = faccessat(t->warden_fd, "cgroup.kill", F_OK, 0) == 0;
  if (t->move && move_procs(t, cg, false) < 0) t->ctl = 0;
  if (t->ctl) enable_controllers(t);
  return 0;
}

static void close_tree(struct cgroups *cg, struct cg_tree *t)
{
  if (t->warden_fd < 0) return;
  if (t->move) {
    disable_controllers(t);
    move_procs(t, cg, true);
  }
  cleanup_close int base = open(t->base, DIR_FLAGS);
  cleanup_close int parent = base < 0 ? -1 : openat(base, PARENT, DIR_FLAGS);
  if (parent >= 0) cg_remove_at(parent, cg->warden);
  if (base >= 0) unlinkat(base, PARENT, AT_REMOVEDIR); /* the last one out */
  if (t->plain_fd >= 0) close(t->plain_fd);
  close(t->warden_fd);
  t->warden_fd = t->plain_fd = -1;
}

static void name_warden(char *out, size_t size)
{
  char boot[64] = "", rnd[7];
  cg_read_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", boot, sizeof boot);
  id_random(rnd, 6);
  snprintf(out, size, "w-%u-%d-%.8s-%s", (unsigned)geteuid(), (int)getpid(), boot, rnd);
}

static void use_tree(struct cgroups *cg, struct cg_tree t)
{
  int r = open_tree(cg, &t);
  if (r < 0) {
    snprintf(cg->info.why, sizeof cg->info.why, "cannot make a group in %.180s: %s", t.base,
             strerror(-r));
    close_tree(cg, &t);
    return;
  }
  if ((t.ctl & CG_MEMORY) && swap_is_limited(&t)) cg->swap = true;
  cg->tree[cg->n++] = t;
}

int cgroup_open(struct cgroups **ret, const struct cgroup_conf *conf, struct err *err)
{
  (void)err;
  struct cgroups *cg = xcalloc(1, sizeof *cg);
  cg->host_pid = conf->host_pid;
  cg->root = geteuid() == 0;
  name_warden(cg->warden, sizeof cg->warden);
  cg->found = find_trees(cg, true);
  while (cg->at < cg->found && cg->tree[cg->at].v2) use_tree(cg, cg->tree[cg->at++]);
  if (cg->n > 0 && cg->tree[0].has_kill) cg->info.caps = CGROUP_CAP_INTO;
  *ret = cg;
  return 0;
}

void cgroup_open_rest(struct cgroups *cg)
{
  if (cg->rest_open) return;
  cg->rest_open = true;
  for (size_t i = 0; i < cg->n && cg->root; i++) cg_devices_open(&cg->tree[i]);
  for (; cg->at < cg->found; cg->at++) {
    const struct cg_tree *t = &cg->tree[cg->at];
    if (t->ctl == CG_DEVICES && devices_walled(cg)) continue; /* comes last: cgroup2 does it */
    use_tree(cg, *t);
  }
  derive_info(cg);
  if (cg->swap) cg->info.caps |= CGROUP_CAP_SWAP;
}

const struct cgroup_info *cgroup_info(const struct cgroups *cg)
{
  return &cg->info;
}

/* --- boxes ------------------------------------------------------------------------------------ */

static bool box_name_ok(const char *box)
{
  return *box && *box != '.' && !strchr(box, '/') && strcmp(box, "host") != 0 && strlen(box) < 128;
}

static void entry_clear(struct cgroup_entry *e)
{
  e->into_fd = e->box_fd = e->oom_fd = -1;
  e->ns_per_exec = false;
  for (size_t i = 0; i < CGROUP_V1_TREES; i++) e->v1_tasks_fd[i] = -1;
}

void cgroup_entry_done(struct cgroup_entry *entry)
{
  if (entry->into_fd >= 0 && entry->into_fd != entry->box_fd) close(entry->into_fd);
  if (entry->box_fd >= 0) close(entry->box_fd);
  if (entry->oom_fd >= 0) close(entry->oom_fd);
  for (size_t i = 0; i < CGROUP_V1_TREES; i++)
    if (entry->v1_tasks_fd[i] >= 0) close(entry->v1_tasks_fd[i]);
  entry_clear(entry);
}

static void add_tasks(struct cgroup_entry *e, int fd)
{
  size_t slot = 0;
  while (e->v1_tasks_fd[slot] >= 0) slot++;
  e->v1_tasks_fd[slot] = fd;
}

static int make_v1(const struct cg_tree *t, const char *box, struct cgroup_entry *e)
{
  if (t->ctl == CG_DEVICES) return 0; /* cgroup_box_devices */
  if (mkdirat(t->warden_fd, box, 0755) < 0) return -errno;
  char path[160];
  snprintf(path, sizeof path, "%s/tasks", box);
  int tasks = openat(t->warden_fd, path, O_WRONLY | O_CLOEXEC);
  if (tasks < 0) return -errno;
  add_tasks(e, tasks);
  if (!(t->ctl & CG_MEMORY)) return 0;
  snprintf(path, sizeof path, "%s/memory.oom_control", box);
  e->oom_fd = openat(t->warden_fd, path, O_RDONLY | O_CLOEXEC);
  return 0;
}

int cgroup_box_devices(struct cgroups *cg, const char *box, const struct cgroup_device *extra,
                       size_t n, struct cgroup_entry *entry, struct err *err)
{
  for (size_t i = 0; i < cg->n; i++) {
    const struct cg_tree *t = &cg->tree[i];
    if (t->plain_fd < 0) continue;
    int r = cg_devices_box(t, box, extra, n);
    if (r < 0)
      return err_set(err, ERR_INTERNAL, -r, "cannot limit the devices of a sandbox: %s",
                     strerror(-r));
    if (!t->v2) add_tasks(entry, r);
  }
  return 0;
}

/* Gives the agent what it needs to make and enter leaves: the directory, and its cgroup.procs,
 * which is the common ancestor of the agent's group and of every leaf. */
static int give_to_agent(int box_fd, uid_t uid, gid_t gid)
{
  char text[16];
  snprintf(text, sizeof text, "%d", CGROUP_LEAF_MAX + 1);
  cg_write_at(box_fd, "cgroup.max.descendants", text);
  if (fchown(box_fd, uid, gid) < 0 || fchownat(box_fd, "cgroup.procs", uid, gid, 0) < 0)
    return -errno;
  return 0;
}

static int make_v2(const struct cg_tree *t, const char *box, uid_t uid, gid_t gid,
                   struct cgroup_entry *e)
{
  if (mkdirat(t->warden_fd, box, 0755) < 0) return -errno;
  e->box_fd = e->into_fd = openat(t->warden_fd, box, DIR_FLAGS);
  if (e->box_fd < 0) return -errno;
  if (!t->has_kill) { /* it still limits and counts; leaves would be no use */
    e->box_fd = -1;
    return 0;
  }
  int r = give_to_agent(e->box_fd, uid, gid);
  if (r < 0 || !(t->ctl & CG_MEMORY)) return r;
  /* Leaves count their own OOM kills; a group with such children may not hold processes itself. */
  cg_v2_enable(e->box_fd, CG_MEMORY);
  if (mkdirat(e->box_fd, "agent", 0755) < 0) return -errno;
  int fd = openat(e->box_fd, "agent", DIR_FLAGS);
  if (fd < 0) return -errno;
  e->into_fd = fd;
  e->ns_per_exec = true;
  return 0;
}

static int no_group(const struct cg_tree *t, int r, struct err *err)
{
  return err_set(err, ERR_INTERNAL, -r, "cannot make a control group in %s: %s", t->base,
                 strerror(-r));
}

int cgroup_box_make(struct cgroups *cg, const char *box, uid_t agent_uid, gid_t agent_gid,
                    struct cgroup_entry *ret_entry, struct err *err)
{
  entry_clear(ret_entry);
  if (!box_name_ok(box)) return err_set(err, ERR_INTERNAL, EINVAL, "\"%s\" names no box", box);
  for (size_t i = 0; i < cg->n && cg->tree[i].v2; i++) {
    const struct cg_tree *t = &cg->tree[i];
    int r = make_v2(t, box, agent_uid, agent_gid, ret_entry);
    if (r == 0) continue;
    cgroup_entry_done(ret_entry);
    size_t made = r == -EEXIST ? i : i + 1; /* another box of that name is not ours to remove */
    for (size_t k = 0; k < made; k++) cg_remove_at(cg->tree[k].warden_fd, box);
    return no_group(t, r, err);
  }
  return 0;
}

int cgroup_box_make_rest(struct cgroups *cg, const char *box, struct cgroup_entry *entry,
                         struct err *err)
{
  for (size_t i = 0; i < cg->n; i++) {
    int r = cg->tree[i].v2 ? 0 : make_v1(&cg->tree[i], box, entry);
    if (r < 0) return no_group(&cg->tree[i], r, err);
  }
  return 0;
}

int cgroup_entry_join(const struct cgroup_entry *entry, bool into)
{
  for (size_t i = 0; i < CGROUP_V1_TREES && entry->v1_tasks_fd[i] >= 0; i++)
    if (write(entry->v1_tasks_fd[i], "0", 1) != 1) return -errno;
  if (into || entry->into_fd < 0) return 0;
  return cg_write_at(entry->into_fd, "cgroup.procs", "0");
}

int cgroup_box_limit(struct cgroups *cg, const char *box, const struct cgroup_limits *limits,
                     struct err *err)
{
  for (size_t i = 0; i < cg->n; i++) {
    const struct cg_tree *t = &cg->tree[i];
    if (t->ctl == CG_DEVICES) continue;
    cleanup_close int fd = openat(t->warden_fd, box, DIR_FLAGS);
    if (fd < 0) return err_set(err, ERR_INTERNAL, errno, "the control group of %s is gone", box);
    int r = t->v2 ? cg_v2_limit(t, fd, limits, err) : cg_v1_limit(t, fd, limits, err);
    if (r < 0) return r;
  }
  return 0;
}

void cgroup_box_usage(struct cgroups *cg, const char *box, struct cgroup_usage *ret_usage)
{
  *ret_usage = (struct cgroup_usage){0};
  for (size_t i = 0; i < cg->n; i++) {
    const struct cg_tree *t = &cg->tree[i];
    cleanup_close int fd = openat(t->warden_fd, box, DIR_FLAGS);
    if (fd < 0) continue;
    if (t->v2)
      cg_v2_usage(t, fd, ret_usage);
    else
      cg_v1_usage(t, fd, ret_usage);
  }
}

uint64_t cgroup_box_oom_kills(struct cgroups *cg, const char *box)
{
  char path[128], text[1024];
  for (size_t i = 0; i < cg->n; i++) {
    const struct cg_tree *t = &cg->tree[i];
    if (!(t->ctl & CG_MEMORY)) continue;
    snprintf(path, sizeof path, "%s/%s", box, t->v2 ? "memory.events" : "memory.oom_control");
    if (cg_read_at(t->warden_fd, path, text, sizeof text) < 0) return 0;
    int64_t kills = cg_find_key(text, "oom_kill");
    return kills < 0 ? 0 : (uint64_t)kills;
  }
  return 0;
}

/* A group by its directory: at once where the kernel can, else one by one. */
static void kill_group(const struct cg_tree *t, int fd)
{
  if (!t->v2 || cg_write_at(fd, "cgroup.kill", "1") < 0) cg_kill_procs(fd);
}

/* The tree that kills best: cgroup.kill where there is one. */
static const struct cg_tree *kill_tree(const struct cgroups *cg)
{
  for (size_t i = 0; i < cg->n; i++)
    if (cg->tree[i].has_kill) return &cg->tree[i];
  return cg->n ? &cg->tree[0] : NULL;
}

int cgroup_box_kill(struct cgroups *cg, const char *box)
{
  const struct cg_tree *t = kill_tree(cg);
  if (!t) return -EOPNOTSUPP;
  cleanup_close int fd = openat(t->warden_fd, box, DIR_FLAGS);
  if (fd < 0) return -errno;
  kill_group(t, fd);
  return 0;
}

static bool group_is_empty(int fd)
{
  char text[16];
  return cg_read_at(fd, "cgroup.procs", text, sizeof text) <= 0;
}

/* Pages of files outlive the processes that read them, and keep the memory of a removed group's
 * record. Most boxes have none, and a reclaim that finds none takes a hundred times as long as
 * looking. Scratch (shmem) goes with its mount. */
static bool holds_page_cache(const struct cg_tree *t, int fd)
{
  char text[8192];
  if (cg_read_at(fd, "memory.stat", text, sizeof text) < 0) return true;
  return cg_find_key(text, t->v2 ? "file" : "cache") > cg_find_key(text, "shmem");
}

static int remove_in_tree(const struct cg_tree *t, int dirfd, const char *name)
{
  if (t->ctl & CG_MEMORY) {
    cleanup_close int fd = openat(dirfd, name, DIR_FLAGS);
    if (fd < 0) return errno == ENOENT ? 0 : -errno;
    if (!holds_page_cache(t, fd)) return cg_remove_at(dirfd, name);
    if (t->v2)
      cg_v2_reclaim(t, fd);
    else if (group_is_empty(fd)) /* else it would only take time: v1 cannot be forced then */
      cg_v1_reclaim(t, fd);
  }
  return cg_remove_at(dirfd, name);
}

int cgroup_box_remove(struct cgroups *cg, const char *box)
{
  int ret = 0;
  for (size_t i = 0; i < cg->n; i++) {
    int r = remove_in_tree(&cg->tree[i], cg->tree[i].warden_fd, box);
    if (r < 0) ret = r;
  }
  return ret;
}

/* --- ending and sweeping ---------------------------------------------------------------------- */

/* Kills and removes every box below a warden's directory; false while something is left. */
static bool clear_warden_dir(const struct cg_tree *t, int warden_fd)
{
  int fd = openat(warden_fd, ".", DIR_FLAGS);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    if (fd >= 0) close(fd);
    return true;
  }
  bool clear = true;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_type != DT_DIR || e->d_name[0] == '.' || strcmp(e->d_name, "host") == 0) continue;
    cleanup_close int box = openat(warden_fd, e->d_name, DIR_FLAGS);
    if (box < 0) continue;
    kill_group(t, box);
    if (remove_in_tree(t, warden_fd, e->d_name) < 0) clear = false;
  }
  closedir(d);
  return clear;
}

static void nap(void)
{
  nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static bool clear_until(const struct cg_tree *t, int warden_fd, uint64_t deadline_ms)
{
  while (!clear_warden_dir(t, warden_fd)) {
    if (clock_mono_ms() >= deadline_ms) return false;
    nap();
  }
  return true;
}

int cgroup_close(struct cgroups *cg, unsigned wait_ms)
{
  if (!cg) return 0;
  bool clear = true;
  uint64_t deadline = clock_mono_ms() + wait_ms;
  for (size_t i = 0; i < cg->n; i++) {
    if (!clear_until(&cg->tree[i], cg->tree[i].warden_fd, deadline)) clear = false;
    close_tree(cg, &cg->tree[i]);
  }
  free(cg);
  return clear ? 0 : -EBUSY;
}

struct sweep {
  const struct cg_tree *tree;
  unsigned looked; /* directories seen */
  int swept;
};

/* Removes the directories of dead wardens below one "regolith". */
static void sweep_parent(struct sweep *s, int parent_fd)
{
  int fd = openat(parent_fd, ".", DIR_FLAGS);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    if (fd >= 0) close(fd);
    return;
  }
  for (struct dirent *e; (e = readdir(d));) {
    struct stat st;
    if (e->d_type != DT_DIR || strncmp(e->d_name, "w-", 2) != 0) continue;
    cleanup_close int warden = openat(parent_fd, e->d_name, DIR_FLAGS);
    if (warden < 0 || fstat(warden, &st) < 0) continue;
    if ((geteuid() != 0 && st.st_uid != geteuid()) || !lock_dir(parent_fd, e->d_name, warden))
      continue;
    if (clear_until(s->tree, warden, clock_mono_ms() + 500) &&
        cg_remove_at(parent_fd, e->d_name) == 0)
      s->swept++;
  }
  closedir(d);
}

static void sweep_below(struct sweep *s, int dirfd, int depth)
{
  int fd = openat(dirfd, ".", DIR_FLAGS);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    if (fd >= 0) close(fd);
    return;
  }
  for (struct dirent *e; s->looked < SWEEP_DIRS && (e = readdir(d));) {
    if (e->d_type != DT_DIR || e->d_name[0] == '.') continue;
    s->looked++;
    cleanup_close int child = openat(dirfd, e->d_name, DIR_FLAGS);
    if (child < 0) continue;
    if (strcmp(e->d_name, PARENT) == 0) {
      sweep_parent(s, child);
      unlinkat(dirfd, PARENT, AT_REMOVEDIR);
    } else if (depth < SWEEP_DEPTH) {
      sweep_below(s, child, depth + 1);
    }
  }
  closedir(d);
}

int cgroup_sweep(struct cgroups *cg)
{
  int swept = 0;
  for (size_t i = 0; i < cg->n; i++) {
    struct sweep s = {.tree = &cg->tree[i]};
    cleanup_close int fd = open(cg->tree[i].mount, DIR_FLAGS);
    if (fd >= 0) sweep_below(&s, fd, 0);
    if (s.swept > swept) swept = s.swept;
  }
  return swept;
}

/* engine/local/probe: what it says about this machine holds, also when parts of the machine are
 * taken away from it, and it leaves nothing behind. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/local/probe.h"
#include "engine/local/walls.h"

static struct probe here;

static const struct probe_item *item(const struct probe *p, const char *name)
{
  for (size_t i = 0; i < p->n; i++)
    if (strcmp(p->items[i].name, name) == 0) return &p->items[i];
  return NULL;
}

static char *read_all(const char *path)
{
  static char text[1 << 16];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  size_t n = 0;
  ssize_t r;
  while (fd >= 0 && n < sizeof text - 1 && (r = read(fd, text + n, sizeof text - 1 - n)) > 0)
    n += (size_t)r;
  if (fd >= 0) close(fd);
  text[n] = 0;
  return strdup(text);
}

static void lines_are_whole(void)
{
  char *mounts = read_all("/proc/self/mountinfo");
  probe_machine(&here);
  char *after = read_all("/proc/self/mountinfo");
  CHECK_STR(after, mounts);
  free(mounts);
  free(after);
  CHECK_INT(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
  CHECK(here.n > 10);
  for (size_t i = 0; i < here.n; i++) {
    const struct probe_item *it = &here.items[i];
    CHECK(it->found[0] != 0);
    CHECK(it->state == PROBE_OK ? !it->lost[0] : it->lost[0] != 0);
    if (it->state != PROBE_OK)
      printf("%s: %s: %s\n", probe_state_name(it->state), it->name, it->found);
  }
}

/* --- machines that lack something ------------------------------------------------------------- */

/* Probes in a child that first takes something away; false: it could not. */
static bool probe_without(bool (*take_away)(void), struct probe *ret, struct err *ret_err)
{
  int fds[2];
  if (pipe(fds) < 0) abort();
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    struct err err = {0};
    if (!take_away()) _exit(1);
    probe_machine(ret);
    probe_explain(&err);
    /* names are static strings, at the same address in both of us */
    if (write(fds[1], ret, sizeof *ret) != sizeof *ret || write(fds[1], &err, sizeof err) < 0)
      _exit(2);
    _exit(0);
  }
  close(fds[1]);
  size_t got = 0, want = sizeof *ret + sizeof *ret_err;
  char *buf = calloc(1, want);
  for (ssize_t n; got < want && (n = read(fds[0], buf + got, want - got)) > 0;) got += (size_t)n;
  close(fds[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  memcpy(ret, buf, sizeof *ret);
  memcpy(ret_err, buf + sizeof *ret, sizeof *ret_err);
  free(buf);
  if (got != want) printf("skipped: it could not be taken away here\n");
  return got == want;
}

static bool write_file(const char *path, const char *text)
{
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  if (fd >= 0) close(fd);
  return ok;
}

static bool enter_userns(int flags)
{
  char uids[64], gids[64];
  snprintf(uids, sizeof uids, "0 %u 1", (unsigned)geteuid());
  snprintf(gids, sizeof gids, "0 %u 1", (unsigned)getegid());
  return unshare(CLONE_NEWUSER | flags) == 0 && write_file("/proc/self/setgroups", "deny") &&
         write_file("/proc/self/uid_map", uids) && write_file("/proc/self/gid_map", gids);
}

static bool take_userns(void)
{
  return enter_userns(0) && write_file("/proc/sys/user/max_user_namespaces", "0");
}

static void sees_that_user_namespaces_are_off(void)
{
  struct probe p;
  struct err err = {0};
  if (!probe_without(take_userns, &p, &err)) return;
  const struct probe_item *it = item(&p, "user namespaces");
  CHECK_INT(it->state, PROBE_MISSING);
  CHECK(strstr(it->mend, "user.max_user_namespaces") != NULL);
  CHECK(probe_blocker(&p) == it);
  CHECK_INT(err.kind, ERR_ENGINE_UNAVAILABLE);
  CHECK(strstr(err.msg, "user namespaces") && strstr(err.hint, "regolith doctor"));
  CHECK_INT(err_info(err.kind)->cli_exit, 3);
}

static bool take_unshare(void)
{
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && walls_load_seccomp() == 0;
}

static void sees_a_seccomp_filter(void)
{
  struct probe p;
  struct err err = {0};
  if (!probe_without(take_unshare, &p, &err)) return;
  const struct probe_item *it = item(&p, "user namespaces");
  CHECK_INT(it->state, PROBE_MISSING);
  CHECK(strstr(it->found, "seccomp") != NULL);
  CHECK(strstr(it->mend, "seccomp=unconfined") != NULL);
}

/* Masks a file in every proc of this mount namespace: the kernel asks for one that shows all, and
 * takes any, also what somebody mounted for a root of his own. */
static bool take_proc(void)
{
  int flags = CLONE_NEWNS;
  if (geteuid() == 0 ? unshare(flags) < 0 : !enter_userns(flags)) return false;
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return false;
  FILE *mounts = setmntent("/proc/self/mounts", "r");
  if (!mounts) return false;
  bool masked = false;
  for (struct mntent *m; (m = getmntent(mounts));) {
    char version[PATH_MAX];
    if (strcmp(m->mnt_type, "proc") != 0) continue;
    snprintf(version, sizeof version, "%s/version", m->mnt_dir);
    bool done = mount("/dev/null", version, NULL, MS_BIND, NULL) == 0;
    if (strcmp(m->mnt_dir, "/proc") == 0) masked = done;
  }
  endmntent(mounts);
  return masked;
}

static void sees_that_proc_is_masked(void)
{
  struct probe p;
  struct err err = {0};
  if (!item(&here, "/proc in a sandbox") || item(&here, "/proc in a sandbox")->state != PROBE_OK) {
    puts("skipped: /proc is masked already");
    return;
  }
  if (!probe_without(take_proc, &p, &err)) return;
  const struct probe_item *it = item(&p, "/proc in a sandbox");
  CHECK_INT(it->state, PROBE_MISSING);
  CHECK(strstr(it->mend, "systempaths=unconfined") != NULL);
  CHECK(strstr(err.msg, "/proc") != NULL);
}

static bool take_ids(void)
{
  return geteuid() == 0 && setresgid(58123, 58123, 58123) == 0 &&
         setresuid(58123, 58123, 58123) == 0 &&
         prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0; /* else /proc/self would not be ours */
}

static void sees_an_ordinary_user(void)
{
  struct probe p;
  struct err err = {0};
  if (!probe_without(take_ids, &p, &err)) return;
  const struct probe_item *it = item(&p, "subordinate ids");
  if (!it) {
    puts("skipped: no user namespaces");
    return;
  }
  CHECK_INT(it->state, PROBE_DEGRADED);
  CHECK(strstr(it->mend, "usermod") || strstr(it->mend, "uidmap"));
  CHECK_STR(item(&p, "idmapped mounts")->found, "not needed as an ordinary user");
}

/* Does something to every file system of control groups, in a mount namespace of ours. */
static bool change_cgroup_mounts(bool (*change)(const struct mntent *))
{
  if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0) return false;
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return false;
  FILE *mounts = setmntent("/proc/self/mounts", "r");
  bool done = mounts != NULL;
  for (struct mntent *m; done && (m = getmntent(mounts));)
    if (strncmp(m->mnt_type, "cgroup", 6) == 0) done = change(m);
  if (mounts) endmntent(mounts);
  return done;
}

static bool make_read_only(const struct mntent *m)
{
  return mount(NULL, m->mnt_dir, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0;
}

static bool take_cgroup_writes(void)
{
  return change_cgroup_mounts(make_read_only);
}

static bool unmount_it(const struct mntent *m)
{
  return umount2(m->mnt_dir, MNT_DETACH) == 0 || errno == EINVAL; /* gone with the one above it */
}

static bool take_cgroups(void)
{
  return change_cgroup_mounts(unmount_it);
}

static void tells_why_there_are_no_control_groups(void)
{
  const struct probe_item *it = item(&here, "control groups");
  if (!it || it->state == PROBE_MISSING) {
    puts("skipped: there are none here");
    return;
  }
  struct probe p;
  struct err err = {0};
  if (!probe_without(take_cgroup_writes, &p, &err)) return;
  it = item(&p, "control groups");
  CHECK_INT(it->state, PROBE_MISSING);
  CHECK(strstr(it->found, "read-only") != NULL);
  if (!probe_without(take_cgroups, &p, &err)) return;
  it = item(&p, "control groups");
  CHECK_INT(it->state, PROBE_MISSING);
  CHECK(strstr(it->found, "no control groups are mounted") != NULL);
}

const struct test_case test_cases[] = {
    {"lines are whole", lines_are_whole},
    {"sees that user namespaces are off", sees_that_user_namespaces_are_off},
    {"sees a seccomp filter", sees_a_seccomp_filter},
    {"sees that /proc is masked", sees_that_proc_is_masked},
    {"sees an ordinary user", sees_an_ordinary_user},
    {"tells why there are no control groups", tells_why_there_are_no_control_groups},
    {0},
};

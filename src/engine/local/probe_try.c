/* Probing: the things that are tried for real.
 *
 * Each trial is one child process that ends by reporting an errno through its exit status; what it
 * mounts or unshares goes with it. Mounts are made on a tmpfs in a private mount namespace, so that
 * nothing outside changes even for a moment. */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/probe_internal.h"
#include "engine/local/walls.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

/* Runs fn in a child; its errno, or EPROTO when it died. */
static int in_child(int (*fn)(const void *arg), const void *arg)
{
  fflush(NULL); /* the child must not write our buffers again */
  pid_t pid = fork();
  if (pid < 0) return errno;
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    int e = fn(arg);
    _exit(e < 0 || e > 255 ? EPROTO : e);
  }
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return errno;
  return WIFEXITED(status) ? WEXITSTATUS(status) : EPROTO;
}

static int write_file(const char *path, const char *text)
{
  cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : errno;
}

/* Makes the caller root of a user namespace of its own, with one id. */
static int enter_userns(int more_flags)
{
  char uids[64], gids[64];
  snprintf(uids, sizeof uids, "0 %u 1", (unsigned)geteuid());
  snprintf(gids, sizeof gids, "0 %u 1", (unsigned)getegid());
  if (unshare(CLONE_NEWUSER | more_flags) < 0) return errno;
  int e = write_file("/proc/self/setgroups", "deny");
  if (e == 0 || e == ENOENT) e = write_file("/proc/self/uid_map", uids);
  return e ? e : write_file("/proc/self/gid_map", gids);
}

/* The mount namespace in which an overlay will be mounted: root's own, or a user's. */
static int enter_mountns(void)
{
  int e = geteuid() == 0 ? (unshare(CLONE_NEWNS) < 0 ? errno : 0) : enter_userns(CLONE_NEWNS);
  if (e) return e;
  return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? errno : 0;
}

static int userns_child(const void *arg)
{
  (void)arg;
  return enter_userns(0);
}

int probe_try_userns(void)
{
  return in_child(userns_child, NULL);
}

/* AppArmor's restriction lets the namespace be made and takes all capabilities away in it. */
static int userns_power_child(const void *arg)
{
  (void)arg;
  int e = enter_userns(0);
  if (e) return e;
  return unshare(CLONE_NEWUTS) < 0 || sethostname("probe", 5) < 0 ? errno : 0;
}

int probe_try_userns_power(void)
{
  return in_child(userns_power_child, NULL);
}

static int namespace_child(const void *arg)
{
  return unshare(CLONE_NEWUSER | *(const int *)arg) < 0 ? errno : 0;
}

int probe_try_namespace(int flag)
{
  return in_child(namespace_child, &flag);
}

static int mount_proc(const void *arg)
{
  (void)arg;
  return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ? errno : 0;
}

static int proc_child(const void *arg)
{
  (void)arg;
  int e = enter_userns(CLONE_NEWNS | CLONE_NEWPID);
  if (e) return e;
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return errno;
  return in_child(mount_proc, NULL); /* the first process of the new pid namespace */
}

int probe_try_proc(void)
{
  return in_child(proc_child, NULL);
}

/* Directories for an overlay, in a tmpfs over some directory that every machine has. */
static int make_layers(void)
{
  int e = enter_mountns();
  if (e) return e;
  if (mount("tmpfs", "/proc", "tmpfs", 0, "mode=755") < 0) return errno;
  if (chdir("/proc") < 0 || mkdir("lower", 0755) < 0 || mkdir("lower/dir", 0755) < 0 ||
      mkdir("upper", 0755) < 0 || mkdir("work", 0755) < 0 || mkdir("merged", 0755) < 0)
    return errno;
  return 0;
}

static int overlay_child(const void *arg)
{
  bool user = geteuid() != 0;
  int e = make_layers();
  if (e) return e;
  if (mount("overlay", "merged", "overlay", 0,
            user ? "lowerdir=lower,upperdir=upper,workdir=work,userxattr"
                 : "lowerdir=lower,upperdir=upper,workdir=work") < 0)
    return errno;
  if (!*(const bool *)arg) return 0;
  if (rmdir("merged/dir") < 0 || mkdir("merged/dir", 0755) < 0) return errno;
  return rename("merged/dir", "merged/other") < 0 ? errno : 0;
}

int probe_try_overlay(void)
{
  return in_child(overlay_child, &(bool){false});
}

int probe_try_overlay_replace(void)
{
  return in_child(overlay_child, &(bool){true});
}

/* A user namespace with 65,536 mapped ids, held open by its descriptor; -errno on failure. */
static int open_mapped_userns(void)
{
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) return -errno;
  pid_t pid = fork();
  if (pid == 0) {
    close(fds[0]);
    char ready = unshare(CLONE_NEWUSER) == 0;
    if (write(fds[1], &ready, 1) == 1) pause();
    _exit(0);
  }
  close(fds[1]);
  char ready = 0, path[64];
  int fd = -EPERM;
  if (pid > 0 && read(fds[0], &ready, 1) == 1 && ready) {
    snprintf(path, sizeof path, "/proc/%d/uid_map", (int)pid);
    int e = write_file(path, "0 1879048192 65536");
    snprintf(path, sizeof path, "/proc/%d/gid_map", (int)pid);
    if (e == 0) e = write_file(path, "0 1879048192 65536");
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
    fd = e ? -e : open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1) fd = -errno;
  }
  close(fds[0]);
  if (pid > 0) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
  }
  return fd;
}

static int idmap_child(const void *path)
{
  int userns = open_mapped_userns();
  if (userns < 0) return -userns;
  int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (tree < 0) return errno;
  struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns};
  return syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0 ? errno : 0;
}

int probe_try_idmap(const char *path)
{
  return in_child(idmap_child, path);
}

/* A memfd is a file on the kernel's own tmpfs. */
int probe_try_tmpfs_xattr(void)
{
  cleanup_close int fd = memfd_create("probe", MFD_CLOEXEC);
  if (fd < 0) return errno;
  return fsetxattr(fd, "user.probe", "1", 1, 0) < 0 ? errno : 0;
}

static int seccomp_child(const void *arg)
{
  (void)arg;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return errno;
  int r = walls_load_seccomp();
  if (r < 0) return -r;
  return getppid() > 0 && syscall(SYS_keyctl, ~0) < 0 && errno == EPERM ? 0 : EPROTO;
}

int probe_try_seccomp(void)
{
  return in_child(seccomp_child, NULL);
}

int probe_landlock_abi(void)
{
  long abi =
      syscall(SYS_landlock_create_ruleset, NULL, 0, 1u /* LANDLOCK_CREATE_RULESET_VERSION */);
  return abi < 0 ? 0 : (int)abi;
}

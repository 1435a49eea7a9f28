/* The file system of a box: image, scratch space, /dev, /proc, /etc.
 *
 * Everything a box writes lands in one tmpfs, the scratch, whose size and inode limits are the disk
 * quota and which ends with the box's mount namespace: nothing to delete, whatever happens.
 *
 *   host     root is a directory of the scratch, with this machine's /usr (and /bin, /lib… where
 *            they are directories) bound read-only, and an /etc made up here. Built by the agent.
 *   dir:PATH root is an overlay: PATH below, read-only and with mapped ids, the scratch above.
 *            Mounted by the warden from its own namespace (a box's root cannot set the attributes
 *            that overlay keeps), and taken by the agent.
 *   layers   the same with the layers of an image below. One mapped bind of the folder that holds
 *            all layers serves for all of them; the overlay names them relative to it, so that no
 *            path of the host shows in the box.
 *
 * Volumes are directories of the host: cloned with the mounts below them and, for root, with mapped
 * ids by the warden, put onto their targets by the agent, last, when nothing runs in the box yet.
 *
 * Mounts are staged on the empty directories /dev/shm and /dev/pts of the warden's own /dev: older
 * kernels neither clone nor overlay what is not attached anywhere. No target of ours is ever looked
 * up through a symbolic link of the image; targets of volumes are, within the box's root. */
#include "engine/local/net_frame.h"
#include "engine/local/rootfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/ids.h"
#include "engine/local/proto.h"

#define STAGE       "/dev/shm"
#define STAGE_LAYER "/dev/pts"
#define SHARE       "/etc" /* the warden's own is what boxes may see of it */

static int fail(struct err *err, const char *what)
{
  int e = errno;
  bool forbidden = e == EPERM || e == EACCES || e == ENOSYS;
  int rc = err_set(err, forbidden ? ERR_ENGINE_UNAVAILABLE : ERR_INTERNAL, e, "cannot %s: %s", what,
                   strerror(e));
  if (forbidden)
    err_hint(err, "run \"regolith doctor\"; inside a container, start that one with --privileged");
  return rc;
}

static int move_to(int fd, int dirfd, const char *path)
{
  return move_mount(fd, "", dirfd, path, MOVE_MOUNT_F_EMPTY_PATH);
}

/* A private, detached copy of a mounted tree with these attributes added. */
static int clone_tree(int dirfd, const char *path, uint64_t attr, unsigned flags)
{
  int fd = open_tree(dirfd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_NO_AUTOMOUNT | flags);
  if (fd < 0) return -1;
  struct mount_attr ma = {.attr_set = attr, .propagation = MS_PRIVATE};
  if (mount_setattr(fd, "", AT_EMPTY_PATH | (flags & AT_RECURSIVE), &ma, sizeof ma) == 0) return fd;
  int e = errno;
  close(fd);
  errno = e;
  return -1;
}

struct fs_option {
  const char *key, *value; /* value NULL: a flag */
};

static int new_fs(const char *type, const struct fs_option *options, uint64_t attr)
{
  cleanup_close int ctx = fsopen(type, FSOPEN_CLOEXEC);
  if (ctx < 0) return -1;
  for (const struct fs_option *o = options; o && o->key; o++) {
    unsigned cmd = o->value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
    if (fsconfig(ctx, cmd, o->key, o->value, 0) < 0) return -1;
  }
  if (fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) return -1;
  return fsmount(ctx, FSMOUNT_CLOEXEC, (unsigned)attr);
}

/* --- the warden's namespace ------------------------------------------------------------------- */

static const struct {
  const char *name;
  unsigned major, minor;
} dev_nodes[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                 {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
#define DEV_NODES (sizeof dev_nodes / sizeof *dev_nodes)

/* A user cannot make device nodes: he binds those that are there. (Only then are they cloned: to
 * close a clone that was attached nowhere takes the kernel long.) */
static bool nodes_are_bound;

/* The host's own, which replace_dev covers: for nodes of GPUs. */
static int host_dev = -1;

static int make_nodes(int dev)
{
  for (size_t i = 0; i < DEV_NODES; i++) {
    dev_t rdev = makedev(dev_nodes[i].major, dev_nodes[i].minor);
    if (mknodat(dev, dev_nodes[i].name, S_IFCHR | 0666, rdev) < 0) return -1;
  }
  return 0;
}

static int clone_nodes(int nodes[DEV_NODES])
{
  for (size_t i = 0; i < DEV_NODES; i++) {
    char path[32];
    snprintf(path, sizeof path, "/dev/%s", dev_nodes[i].name);
    nodes[i] = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (nodes[i] < 0) return -1;
  }
  return 0;
}

static int attach_nodes(int dev, const int nodes[DEV_NODES])
{
  for (size_t i = 0; i < DEV_NODES; i++) {
    const char *name = dev_nodes[i].name;
    cleanup_close int file = openat(dev, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
    if (file < 0 || move_to(nodes[i], dev, name) < 0) return -1;
    close(nodes[i]);
  }
  return 0;
}

static int fill_dev(int dev)
{
  static const char *const links[][2] = {{"/proc/self/fd", "fd"},
                                         {"/proc/self/fd/0", "stdin"},
                                         {"/proc/self/fd/1", "stdout"},
                                         {"/proc/self/fd/2", "stderr"},
                                         {"pts/ptmx", "ptmx"}};
  for (size_t i = 0; i < sizeof links / sizeof *links; i++)
    if (symlinkat(links[i][0], dev, links[i][1]) < 0) return -1;
  return mkdirat(dev, "shm", 0755) < 0 || mkdirat(dev, "pts", 0755) < 0 ? -1 : 0;
}

static int replace_dev(void)
{
  static const struct fs_option options[] = {
      {"size", "64k"}, {"nr_inodes", "64"}, {"mode", "0755"}, {0}};
  int nodes[DEV_NODES];
  cleanup_close int dev = new_fs("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  if (dev < 0) return -1;
  nodes_are_bound = make_nodes(dev) < 0;
  if (nodes_are_bound && clone_nodes(nodes) < 0) return -1;
  if (move_to(dev, AT_FDCWD, "/dev") < 0) return -1;
  if (nodes_are_bound && attach_nodes(dev, nodes) < 0) return -1;
  return fill_dev(dev);
}

static const char etc_bound_glob[] = "java-*";

/* Of the host's own /etc: public by nature, and programs in /usr do not start without. One tree of
 * mounts, made once at SHARE; a box gets it whole, in one step, and symbolic links into it. */
static const char *const etc_copied[] = {"ld.so.cache", "services", "protocols"};
static const char *const etc_linked[] = {"localtime", "os-release"}; /* as links */
static const char *const etc_bound[] = {
    "alternatives",           "fonts",          "ssl/certs", "pki/tls/certs",
    "pki/ca-trust/extracted", "crypto-policies"};

#define SHARE_NAME ".host"

static int write_at(int dir, const char *name, const void *data, size_t len)
{
  cleanup_close int fd =
      openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
  return fd >= 0 && write(fd, data, len) == (ssize_t)len ? 0 : -1;
}

/* What is absent, or not readable here, is left out. */
static int copy_at(int from, int to, const char *name)
{
  cleanup_close int in = openat(from, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat st;
  if (in < 0 || fstat(in, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > 1 << 20) return 0;
  cleanup_free char *data = malloc((size_t)st.st_size + 1);
  ssize_t n = data ? read(in, data, (size_t)st.st_size) : -1;
  if (n < 0) return 0;
  return write_at(to, name, data, (size_t)n);
}

/* Read-only, at the same path. A directory that is not there is left out. */
static int bind_dir(int from, int to, const char *path)
{
  struct stat st;
  if (fstatat(from, path, &st, 0) < 0 || !S_ISDIR(st.st_mode)) return 0;
  cleanup_close int tree = clone_tree(
      from, path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, AT_RECURSIVE);
  if (tree < 0 || (mkdirat(to, path, 0755) < 0 && errno != EEXIST)) return -1;
  return move_to(tree, to, path);
}
static int link_as_host(int from, int to, const char *name)
{
  char target[256];
  ssize_t n = readlinkat(from, name, target, sizeof target - 1);
  if (n <= 0) return 0;
  target[n] = '\0';
  return symlinkat(target, to, name);
}

/* The directories above the last part of path. */
static int make_parents(int at, const char *path)
{
  char part[128];
  for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
    snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
    if (mkdirat(at, part, 0755) < 0 && errno != EEXIST) return -1;
  }
  return 0;
}

static int share_globbed(int from, int to)
{
  DIR *d = fdopendir(openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int rc = 0;
  for (struct dirent *e; d && rc == 0 && (e = readdir(d));)
    if (fnmatch(etc_bound_glob, e->d_name, 0) == 0) rc = bind_dir(from, to, e->d_name) < 0 ? -1 : 0;
  if (d) closedir(d);
  return rc;
}

static int fill_share(int from, int to)
{
  for (size_t i = 0; i < sizeof etc_copied / sizeof *etc_copied; i++)
    if (copy_at(from, to, etc_copied[i]) < 0) return -1;
  for (size_t i = 0; i < sizeof etc_linked / sizeof *etc_linked; i++)
    if (link_as_host(from, to, etc_linked[i]) < 0) return -1;
  for (size_t i = 0; i < sizeof etc_bound / sizeof *etc_bound; i++)
    if (make_parents(to, etc_bound[i]) < 0 || bind_dir(from, to, etc_bound[i]) < 0) return -1;
  return share_globbed(from, to);
}

/* The host's own /etc, which the share covers. */
static int host_etc = -1;

static int make_share(void)
{
  static const struct fs_option options[] = {{"nr_inodes", "64"}, {"mode", "0755"}, {0}};
  cleanup_close int from = open("/etc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  cleanup_close int to = new_fs("tmpfs", options, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID);
  if (from < 0 || to < 0 || move_to(to, AT_FDCWD, SHARE) < 0) return -1;
  int rc = fill_share(from, to);
  host_etc = take_fd(&from);
  return rc;
}

int rootfs_prepare_host(struct err *err)
{
  static bool made;
  if (made) return 0;
  made = make_share() == 0;
  return made ? 0 : fail(err, "gather what is public in /etc");
}

/* --- /dev with nodes of its own, in the warden -------------------------------------------------
 */

static int device_fail(struct err *err, const struct proto_device *d, int e)
{
  int rc =
      err_set(err, ERR_ENGINE_UNAVAILABLE, e, "the device node %.200s: %s", d->path, strerror(e));
  snprintf(err->field, sizeof err->field, "gpu");
  return rc;
}

static int bind_node(int dev, const char *name, const struct proto_device *d)
{
  bool below = strncmp(d->path, "/dev/", 5) == 0;
  cleanup_close int node = open_tree(below ? host_dev : AT_FDCWD, d->path + (below ? 5 : 0),
                                     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  struct stat st;
  if (node < 0 || fstat(node, &st) < 0) return -1;
  if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(d->major, d->minor)) {
    errno = ENODEV; /* another one by now */
    return -1;
  }
  cleanup_close int file = openat(dev, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
  return file < 0 ? -1 : move_to(node, dev, name);
}

/* Made anew where that is allowed: the box's root is its owner then. */
static int add_node(int dev, const struct proto_device *d, const struct ids *ids, uid_t root)
{
  const char *name = d->target + strlen("/dev/");
  if (make_parents(dev, name) < 0) return -1;
  if (ids->mode == IDS_BLOCKS &&
      mknodat(dev, name, S_IFCHR | (d->mode & 0777), makedev(d->major, d->minor)) == 0)
    return fchownat(dev, name, root, root, AT_SYMLINK_NOFOLLOW);
  return bind_node(dev, name, d);
}

static int fill_own_dev(int dev, const struct proto_device *devices, size_t n,
                        const struct ids *ids, uid_t root, struct err *err)
{
  int nodes[DEV_NODES];
  if (nodes_are_bound ? clone_nodes(nodes) < 0 || attach_nodes(dev, nodes) < 0
                      : make_nodes(dev) < 0)
    return fail(err, "make device nodes");
  if (fill_dev(dev) < 0) return fail(err, "make a /dev");
  for (size_t i = 0; i < n; i++)
    if (add_node(dev, &devices[i], ids, root) < 0) return device_fail(err, &devices[i], errno);
  return 0;
}

int rootfs_dev(const struct proto_device *devices, size_t n, const struct ids *ids,
               const struct ids_block *block, struct err *err)
{
  static const struct fs_option options[] = {
      {"size", "256k"}, {"nr_inodes", "256"}, {"mode", "0755"}, {0}};
  cleanup_close int dev = new_fs("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  if (dev < 0 || move_to(dev, AT_FDCWD, STAGE) < 0) return fail(err, "make a /dev");
  int rc = fill_own_dev(dev, devices, n, ids, block->first, err);
  if (rc == 0) {
    rc = clone_tree(AT_FDCWD, STAGE, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                    AT_RECURSIVE);
    if (rc < 0) rc = fail(err, "take a /dev");
  }
  umount2(STAGE, MNT_DETACH);
  return rc;
}

int rootfs_prepare(struct err *err)
{
  if (unshare(CLONE_NEWNS) < 0) {
    int rc = err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot make a mount namespace: %s",
                     strerror(errno));
    err_hint(err, "run \"regolith doctor\"; inside a container, start that one with --privileged");
    return rc;
  }
  if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) return fail(err, "detach from mounts");
  umask(0);
  host_dev = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
  return replace_dev() < 0 ? fail(err, "make a minimal /dev") : 0;
}

/* --- scratch ---------------------------------------------------------------------------------- */

/* Attaches a fresh tmpfs at STAGE. */
static int stage_scratch(uint64_t bytes, uint64_t inodes)
{
  char size[32], count[32];
  snprintf(size, sizeof size, "%llu", (unsigned long long)bytes);
  snprintf(count, sizeof count, "%llu", (unsigned long long)inodes);
  const struct fs_option options[] = {{"size", size}, {"nr_inodes", count}, {"mode", "0755"}, {0}};
  cleanup_close int fd = new_fs("tmpfs", options, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID);
  if (fd < 0 || move_to(fd, AT_FDCWD, STAGE) < 0) return -1;
  return take_fd(&fd);
}

/* The umask of both warden and agent is 0 while they furnish. */
static int make_dir(int at, const char *name, mode_t mode, uid_t owner)
{
  if (mkdirat(at, name, mode) < 0) return -1;
  return owner == (uid_t)-1 ? 0 : fchownat(at, name, owner, owner, AT_SYMLINK_NOFOLLOW);
}

/* --- dir:PATH and layers, in the warden ------------------------------------------------------- */

static int map_layer(int layer, int userns_fd, const char *path, struct err *err)
{
  struct mount_attr ma = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns_fd};
  if (mount_setattr(layer, "", AT_EMPTY_PATH, &ma, sizeof ma) == 0) return 0;
  int rc = err_set(err, ERR_UNSUPPORTED, errno, "the file system of %s cannot map user ids: %s",
                   path, strerror(errno));
  err_hint(err, "unpack the image on ext4, xfs or btrfs");
  return rc;
}

static int open_layer(const struct proto_create *req, struct stat *ret_st, struct err *err)
{
  cleanup_close int fd = open(req->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, ret_st) < 0) {
    int e = errno,
        rc = err_set(err, ERR_IMAGE_NOT_FOUND, e, "no image at dir:%s: %s", req->path, strerror(e));
    snprintf(err->field, sizeof err->field, "image");
    return rc;
  }
  int layer =
      clone_tree(fd, "", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, AT_EMPTY_PATH);
  return layer < 0 ? fail(err, "bind the image") : layer;
}

/* mount(2) and not fsconfig, whose strings end at 256 bytes (kernels before 6.7 cannot append). The
 * working directory is the folder of layers, which is on STAGE_LAYER: the overlay covers it there,
 * is cloned, and uncovers it again. */
static int mount_layers(const char *layers, int layer, int scratch, const struct ids *ids,
                        struct err *err)
{
  char options[4096];
  int n = snprintf(options, sizeof options,
                   "lowerdir=%s,upperdir=/proc/self/fd/%d/upper,workdir=/proc/self/fd/%d/work%s",
                   layers, scratch, scratch,
                   ids->mode == IDS_BLOCKS ? ",redirect_dir=nofollow,metacopy=off" : ",userxattr");
  if (n < 0 || (size_t)n >= sizeof options)
    return err_set(err, ERR_UNSUPPORTED, E2BIG, "the image has too many layers");
  int rc = fchdir(layer) < 0
               ? -1
               : mount("overlay", STAGE_LAYER, "overlay", MS_NODEV | MS_NOSUID, options);
  int saved = errno;
  if (chdir("/") < 0) return fail(err, "leave the layers");
  errno = saved;
  if (rc < 0) return fail(err, "mount the overlay");
  int fd = open_tree(AT_FDCWD, STAGE_LAYER, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  rc = fd < 0 ? fail(err, "take the overlay") : fd;
  umount2(STAGE_LAYER, MNT_DETACH);
  return rc;
}

static int mount_overlay(int layer, int scratch, const struct ids *ids, struct err *err)
{
  char lower[64], upper[64], work[64];
  snprintf(lower, sizeof lower, "/proc/self/fd/%d", layer);
  snprintf(upper, sizeof upper, "/proc/self/fd/%d/upper", scratch);
  snprintf(work, sizeof work, "/proc/self/fd/%d/work", scratch);
  /* Whatever the kernel's defaults: the upper folder says all by whiteouts and opaque folders. */
  const struct fs_option as_root[] = {{"lowerdir", lower}, {"upperdir", upper},
                                      {"workdir", work},   {"redirect_dir", "nofollow"},
                                      {"metacopy", "off"}, {0}};
  const struct fs_option as_user[] = {
      {"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}, {"userxattr", NULL}, {0}};
  const struct fs_option *options = ids->mode == IDS_BLOCKS ? as_root : as_user;
  int fd = new_fs("overlay", options, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID);
  return fd < 0 ? fail(err, "mount the overlay") : fd;
}

static int build_overlay(const struct proto_create *req, const struct ids *ids,
                         const struct ids_block *block, int userns_fd, int layer,
                         const struct stat *st, int ret_fds[2], int *ret_upper, struct err *err)
{
  if (ids->mode == IDS_BLOCKS) {
    int rc = map_layer(layer, userns_fd, req->path, err);
    if (rc < 0) return rc;
  }
  if (move_to(layer, AT_FDCWD, STAGE_LAYER) < 0) return fail(err, "stage the image");
  cleanup_close int scratch = stage_scratch(req->disk_bytes, req->inodes);
  if (scratch < 0) return fail(err, "make scratch space");
  uid_t root = block->first;
  if (make_dir(scratch, "upper", st->st_mode & 07777, root) < 0 ||
      make_dir(scratch, "shm", 01777, root) < 0 || make_dir(scratch, "work", 0755, 0) < 0)
    return fail(err, "prepare scratch space");
  cleanup_close int changes = openat(scratch, "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (changes < 0) return fail(err, "open scratch space");
  int overlay = req->image == IMAGE_LAYERS ? mount_layers(req->layers, layer, scratch, ids, err)
                                           : mount_overlay(layer, scratch, ids, err);
  if (overlay < 0) return overlay;
  int shm = clone_tree(scratch, "shm", MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, 0);
  if (shm < 0) {
    int rc = fail(err, "bind /dev/shm");
    close(overlay);
    return rc;
  }
  ret_fds[0] = overlay;
  ret_fds[1] = shm;
  *ret_upper = take_fd(&changes);
  return 0;
}

static int give_share(int ret_fds[ROOTFS_MOUNTS_MAX], size_t *ret_n, struct err *err)
{
  int rc = rootfs_prepare_host(err);
  if (rc < 0) return rc;
  ret_fds[0] = clone_tree(AT_FDCWD, SHARE, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID,
                          AT_RECURSIVE);
  if (ret_fds[0] < 0) return fail(err, "bind what is public in /etc");
  *ret_n = 1;
  return 0;
}

int rootfs_make(const struct proto_create *req, const struct ids *ids,
                const struct ids_block *block, int userns_fd, int ret_fds[ROOTFS_MOUNTS_MAX],
                size_t *ret_n, int *ret_upper, struct err *err)
{
  *ret_n = 0;
  *ret_upper = -1;
  if (req->image == IMAGE_HOST) return give_share(ret_fds, ret_n, err);
  struct stat st;
  cleanup_close int layer = open_layer(req, &st, err);
  if (layer < 0) return layer;
  if (req->image == IMAGE_LAYERS) { /* the root is what its topmost layer says */
    char top[64];
    snprintf(top, sizeof top, "%.*s", (int)strcspn(req->layers, ":"), req->layers);
    if (fstatat(layer, top, &st, AT_SYMLINK_NOFOLLOW) < 0) return fail(err, "find the layers");
  }
  int rc = build_overlay(req, ids, block, userns_fd, layer, &st, ret_fds, ret_upper, err);
  umount2(STAGE, MNT_DETACH); /* the overlay holds on to both; EINVAL where not staged */
  umount2(STAGE_LAYER, MNT_DETACH);
  if (rc == 0) *ret_n = 2;
  return rc;
}

/* --- volumes, in the warden ------------------------------------------------------------------- */

static int open_beneath(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
  struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
  return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

/* The path was free of links when it was granted: one that is there now leads elsewhere. */
static int open_host_dir(const char *path)
{
  const uint64_t flags = O_PATH | O_DIRECTORY;
  size_t n = sizeof SHARE - 1;
  if (host_etc >= 0 && strncmp(path, SHARE, n) == 0 && (path[n] == '/' || path[n] == '\0'))
    return open_beneath(host_etc, path[n] ? path + n + 1 : ".", flags, RESOLVE_NO_SYMLINKS);
  return open_beneath(AT_FDCWD, path, flags, RESOLVE_NO_SYMLINKS);
}

/* The files belong to nobody inside, as those of image host do. */
static int driver_file(const struct proto_volume *v, struct err *err)
{
  int fd =
      clone_tree(AT_FDCWD, v->path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, 0);
  if (fd >= 0) return fd;
  int rc = err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "the GPU driver's file %.200s: %s", v->path,
                   strerror(errno));
  snprintf(err->field, sizeof err->field, "gpu");
  return rc;
}

static int volume_fail(struct err *err, const struct proto_volume *v, int e)
{
  int rc =
      err_set(err, ERR_INVALID_ARGUMENT, e, "the directory for the volume at %.200s: %s", v->target,
              e == ELOOP ? "a part of its path is a symbolic link now" : strerror(e));
  snprintf(err->field, sizeof err->field, "volumes");
  return rc;
}

int rootfs_volume(const struct proto_volume *v, const struct ids *ids, int userns_fd,
                  struct err *err)
{
  if (v->kind == BIND_DRIVER) return driver_file(v, err);
  cleanup_close int dir = open_host_dir(v->path);
  if (dir < 0) return volume_fail(err, v, errno);
  cleanup_close int tree = clone_tree(
      dir, "", MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | (v->readonly ? MOUNT_ATTR_RDONLY : 0),
      AT_EMPTY_PATH | AT_RECURSIVE);
  if (tree < 0) return volume_fail(err, v, errno);
  struct mount_attr ma = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns_fd};
  if (ids->mode != IDS_BLOCKS ||
      mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &ma, sizeof ma) == 0)
    return take_fd(&tree);
  int rc =
      err_set(err, ERR_UNSUPPORTED, errno,
              "the volume at %.200s: its file system, or one mounted below it, cannot map user "
              "ids: %s",
              v->target, strerror(errno));
  snprintf(err->field, sizeof err->field, "volumes");
  err_hint(err, "ext4, xfs, btrfs and tmpfs can; without root no mapping is needed");
  return rc;
}

/* --- image host, in the agent ----------------------------------------------------------------- */

static const char etc_passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                                 "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
                                 "bin:x:2:2:bin:/bin:/usr/sbin/nologin\n"
                                 "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
static const char etc_group[] = "root:x:0:\ndaemon:x:1:\nbin:x:2:\ntty:x:5:\nusers:x:100:\n"
                                "nogroup:x:65534:\n";
static const char etc_nsswitch[] = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
                                   "services: files\nprotocols: files\n";
static const char etc_hosts[] = "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n";

static const struct {
  const char *name, *text;
} etc_files[] = {{"passwd", etc_passwd},
                 {"group", etc_group},
                 {"nsswitch.conf", etc_nsswitch},
                 {"hosts", etc_hosts},
                 {"hostname", "sandbox\n"}};

/* /etc/ssl/certs → ../.host/ssl/certs, where the share has it. */
static int link_shared(int etc, int share, const char *path)
{
  char target[512] = "";
  if (faccessat(share, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0) return 0;
  if (make_parents(etc, path) < 0) return -1;
  size_t n = 0;
  for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/'))
    n += (size_t)snprintf(target + n, sizeof target - n, "../");
  snprintf(target + n, sizeof target - n, SHARE_NAME "/%s", path);
  return symlinkat(target, etc, path);
}

static int link_globbed(int etc, int share)
{
  DIR *d = fdopendir(openat(share, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int rc = 0;
  for (struct dirent *e; d && rc == 0 && (e = readdir(d));)
    if (fnmatch(etc_bound_glob, e->d_name, 0) == 0) rc = link_shared(etc, share, e->d_name);
  if (d) closedir(d);
  return rc;
}

static int fill_etc(int root, int share)
{
  if (mkdirat(root, "etc", 0755) < 0) return -1;
  cleanup_close int to = openat(root, "etc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (to < 0) return -1;
  for (size_t i = 0; i < sizeof etc_files / sizeof *etc_files; i++)
    if (write_at(to, etc_files[i].name, etc_files[i].text, strlen(etc_files[i].text)) < 0)
      return -1;
  if (symlinkat("/proc/self/mounts", to, "mtab") < 0) return -1;
  if (mkdirat(to, SHARE_NAME, 0755) < 0 || move_to(share, to, SHARE_NAME) < 0) return -1;
  for (size_t i = 0; i < sizeof etc_copied / sizeof *etc_copied; i++)
    if (link_shared(to, share, etc_copied[i]) < 0) return -1;
  for (size_t i = 0; i < sizeof etc_bound / sizeof *etc_bound; i++)
    if (link_shared(to, share, etc_bound[i]) < 0) return -1;
  for (size_t i = 0; i < sizeof etc_linked / sizeof *etc_linked; i++)
    if (link_as_host(share, to, etc_linked[i]) < 0) return -1;
  return link_globbed(to, share);
}

static int fill_host_root(int root, int share)
{
  static const struct {
    const char *name;
    mode_t mode;
  } dirs[] = {{"dev", 0755},     {"proc", 0555},      {"sys", 0555},    {"root", 0700},
              {"home", 0755},    {"run", 0755},       {"mnt", 0755},    {"opt", 0755},
              {"srv", 0755},     {"var", 0755},       {"tmp", 01777},   {"var/tmp", 01777},
              {"var/lib", 0755}, {"var/cache", 0755}, {"var/log", 0755}};
  static const char *const system[] = {"usr",   "bin",   "sbin",   "lib",
                                       "lib32", "lib64", "libx32", "nix/store"};
  for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
    if (make_dir(root, dirs[i].name, dirs[i].mode, (uid_t)-1) < 0) return -1;
  cleanup_close int host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (host < 0 || symlinkat("../run", root, "var/run") < 0) return -1;
  for (size_t i = 0; i < sizeof system / sizeof *system; i++) {
    struct stat st;
    if (fstatat(host, system[i], &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
    int rc =
        S_ISLNK(st.st_mode) ? link_as_host(host, root, system[i]) : bind_dir(host, root, system[i]);
    if (rc < 0) return -1;
  }
  return fill_etc(root, share);
}

/* --- what every box has, in the agent --------------------------------------------------------- */

/* A directory of the root, made where missing, never a link that the image put there. */
static int open_dir(int root, const char *name)
{
  if (mkdirat(root, name, 0755) < 0 && errno != EEXIST) return -1;
  return openat(root, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int mount_on_dir(int root, const char *name, int tree)
{
  cleanup_close int dir = open_dir(root, name);
  if (dir < 0) return -1;
  return move_mount(tree, "", dir, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static int mask_proc(int root, int empty)
{
  /* The kernel's command line says what its operator wrote there, interrupts time what others do,
   * locks names the files that everybody holds locks on, by inode. The rest is root's alone, and
   * root outside is nobody inside: for the worst of it this is the second wall.
   */
  static const char *const files[] = {"cmdline", "interrupts", "locks",       "kcore",
                                      "keys",    "timer_list", "sched_debug", "sysrq-trigger"};
  static const char *const dirs[] = {"acpi", "scsi"};
  cleanup_close int proc = openat(root, "proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (proc < 0) return -1;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    if (faccessat(proc, files[i], F_OK, AT_SYMLINK_NOFOLLOW) < 0) continue;
    cleanup_close int null = clone_tree(root, "dev/null", MOUNT_ATTR_RDONLY, 0);
    if (null < 0 || move_to(null, proc, files[i]) < 0) return -1;
  }
  for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
    if (faccessat(proc, dirs[i], F_OK, AT_SYMLINK_NOFOLLOW) < 0) continue;
    cleanup_close int dir = clone_tree(empty, "", MOUNT_ATTR_RDONLY, AT_EMPTY_PATH);
    if (dir < 0 || move_to(dir, proc, dirs[i]) < 0) return -1;
  }
  cleanup_close int sys = clone_tree(proc, "sys", MOUNT_ATTR_RDONLY, 0);
  return sys < 0 || move_to(sys, proc, "sys") < 0 ? -1 : 0;
}

/* Inside there are no further user namespaces: most kernel holes begin with one. */
static int forbid_user_namespaces(int root)
{
  cleanup_close int fd =
      openat(root, "proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  return fd >= 0 && write(fd, "0", 1) == 1 ? 0 : -1;
}

static int mount_system(const struct proto_dress *d, int root, int dev, int shm, struct err *err)
{
  const uint64_t quiet = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
  const struct fs_option pts_options[] = {{"newinstance", NULL},
                                          {"ptmxmode", "0666"},
                                          {"mode", "0620"},
                                          {d->mapped > 5 ? "gid" : NULL, "5"},
                                          {0}};
  cleanup_close int proc = new_fs("proc", NULL, quiet | MOUNT_ATTR_NODEV);
  if (proc < 0 || mount_on_dir(root, "proc", proc) < 0) return fail(err, "mount /proc");
  if (mount_on_dir(root, "dev", dev) < 0) return fail(err, "mount /dev");
  if (forbid_user_namespaces(root) < 0) return fail(err, "forbid further user namespaces");
  /* The template's shm is an empty directory for as long as nothing covers it. */
  cleanup_close int empty = openat(dev, "shm", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (empty < 0 || mask_proc(root, empty) < 0) return fail(err, "mask /proc");
  if (move_to(shm, dev, "shm") < 0) return fail(err, "mount /dev/shm");
  cleanup_close int pts = new_fs("devpts", pts_options, quiet);
  if (pts < 0 || move_to(pts, dev, "pts") < 0) return fail(err, "mount /dev/pts");
  cleanup_close int sys = open_dir(root, "sys");
  if (sys < 0) return fail(err, "make /sys");
  if (make_dir(root, "tmp", 01777, (uid_t)-1) < 0 && errno != EEXIST) return fail(err, "make /tmp");
  return 0;
}

/* --- volumes, in the agent -------------------------------------------------------------------- */

/* Within the box's root, whatever links the image has, and on no other mount than that. */
static int open_in_root(int root, const char *path)
{
  return open_beneath(root, path, O_PATH | O_DIRECTORY,
                      RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV);
}

/* Makes what is missing of it. Each step starts at the root, so that links mean what they say. */
static int open_target(int root, const char *path)
{
  char part[PATH_MAX];
  int dir = -1;
  for (const char *end = path; *end;) {
    end += strspn(end, "/");
    const char *name = end;
    end = strchrnul(end, '/');
    snprintf(part, sizeof part, "%.*s", (int)(end - path), path);
    int next = *name ? open_in_root(root, part) : dir < 0 ? open_in_root(root, "/") : dup(dir);
    if (next < 0 && errno == ENOENT) {
      snprintf(part, sizeof part, "%.*s", (int)(end - name), name);
      if (mkdirat(dir < 0 ? root : dir, part, 0755) < 0) break;
      snprintf(part, sizeof part, "%.*s", (int)(end - path), path);
      next = open_in_root(root, part);
    }
    int e = errno;
    if (dir >= 0) close(dir);
    errno = e;
    dir = next;
    if (dir < 0) return -1;
  }
  return dir;
}

static int mount_volume(int root, const struct rootfs_volume *v, struct err *err)
{
  cleanup_close int dir = open_target(root, v->target);
  if (dir >= 0 &&
      move_mount(v->fd, "", dir, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) == 0)
    return 0;
  int e = errno;
  const char *why = e == EXDEV     ? "it lies in another volume, or in a part of the image that is "
                                     "mounted read-only"
                    : e == ENOTDIR ? "the image has something there that is not a directory"
                    : e == EEXIST  ? "the image has a symbolic link there that leads nowhere"
                                   : strerror(e);
  return err_set(err, ERR_INVALID_ARGUMENT, e, "cannot put a volume at %.200s: %s", v->target, why);
}

/* --- driver files, in the agent --------------------------------------------------------------- */

/* The directory of path in the box, made where missing; *ret_name is what comes behind it. */
static int open_parent(int root, const char *path, const char **ret_name)
{
  char parent[PATH_MAX];
  const char *slash = strrchr(path, '/');
  snprintf(parent, sizeof parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
  *ret_name = slash + 1;
  struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                         .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
  int fd = (int)syscall(SYS_openat2, root, parent, &how, sizeof how);
  return fd < 0 && errno == ENOENT ? open_target(root, parent) : fd;
}

static bool same_file(int a, int b)
{
  struct stat x, y;
  return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int mount_driver(int root, const struct rootfs_volume *v, const char *name, int parent)
{
  struct stat st;
  if (fstat(v->fd, &st) < 0) return -1;
  cleanup_close int made =
      S_ISDIR(st.st_mode)
          ? mkdirat(parent, name, 0755)
          : openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0444);
  int why = made < 0 ? errno : 0;
  if (S_ISDIR(st.st_mode)) made = -1;
  cleanup_close int at =
      open_beneath(root, v->target, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
  if (at < 0) {
    if (why && errno == ENOENT) errno = why;
    return -1;
  }
  if (same_file(at, v->fd)) return 0;
  return move_mount(v->fd, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* A link that the image's own files make unnecessary, or impossible, stays away. */
static int make_link(const struct rootfs_volume *v, const char *name, int parent)
{
  if (symlinkat(v->link, parent, name) == 0 || errno == EEXIST || errno == EROFS) return 0;
  return -1;
}

static int add_driver(int root, const struct rootfs_volume *v, struct err *err)
{
  const char *name;
  cleanup_close int parent = open_parent(root, v->target, &name);
  if (parent >= 0 && (v->kind == BIND_LINK ? make_link(v, name, parent)
                                           : mount_driver(root, v, name, parent)) == 0)
    return 0;
  int e = errno;
  return err_set(err, ERR_UNSUPPORTED, e, "cannot put the GPU driver's file at %.200s: %s",
                 v->target, strerror(e));
}

static int mount_volumes(const struct proto_dress *d, int root, const struct rootfs_volume *volumes,
                         struct err *err)
{
  int rc = 0;
  for (uint32_t i = 0; i < d->volumes_n && rc == 0; i++) {
    const struct rootfs_volume *v = &volumes[i];
    rc = v->kind == BIND_VOLUME ? mount_volume(root, v, err) : add_driver(root, v, err);
  }
  return rc;
}

static int move_in(int root, struct err *err)
{
  if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
    return fail(err, "make the image the root");
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) return fail(err, "leave the host's root");
  return 0;
}

int rootfs_resize(uint64_t bytes, uint64_t inodes, struct err *err)
{
  char size[32], count[32];
  snprintf(size, sizeof size, "%llu", (unsigned long long)bytes);
  snprintf(count, sizeof count, "%llu", (unsigned long long)inodes);
  cleanup_close int ctx = fspick(AT_FDCWD, "/", FSPICK_CLOEXEC);
  if (ctx < 0 || fsconfig(ctx, FSCONFIG_SET_STRING, "size", size, 0) < 0 ||
      fsconfig(ctx, FSCONFIG_SET_STRING, "nr_inodes", count, 0) < 0 ||
      fsconfig(ctx, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
    return fail(err, "size the scratch space");
  return 0;
}

/* root and shm of image host, out of a scratch of the agent's own. */
static int open_host(const struct proto_dress *d, int *ret_root, int *ret_shm, struct err *err)
{
  cleanup_close int scratch = stage_scratch(d->disk_bytes, d->inodes);
  if (scratch < 0) return fail(err, "make scratch space");
  if (make_dir(scratch, "root", 0755, (uid_t)-1) < 0 ||
      make_dir(scratch, "shm", 01777, (uid_t)-1) < 0)
    return fail(err, "prepare scratch space");
  const uint64_t attr = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID;
  *ret_root = clone_tree(scratch, "root", attr, 0);
  *ret_shm = clone_tree(scratch, "shm", attr, 0);
  return *ret_root < 0 || *ret_shm < 0 ? fail(err, "bind scratch space") : 0;
}

int rootfs_enter(const struct proto_dress *d, const int *mounts, size_t mounts_n, int own_dev,
                 struct rootfs_volume *volumes, struct err *err)
{
  bool host = d->image == IMAGE_HOST;
  cleanup_close int first = mounts_n > 0 ? mounts[0] : -1, second = mounts_n > 1 ? mounts[1] : -1;
  cleanup_close int share = host ? take_fd(&first) : -1;
  cleanup_close int root = take_fd(&first), shm = take_fd(&second);
  /* Before anything is staged there: what is bound to a box is the bare template. */
  cleanup_close int dev =
      own_dev >= 0
          ? own_dev
          : clone_tree(AT_FDCWD, "/dev", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                       nodes_are_bound ? AT_RECURSIVE : 0);
  if (dev < 0) return fail(err, "bind /dev");
  int rc = host ? open_host(d, &root, &shm, err) : 0;
  if (rc < 0) return rc;
  if (root < 0 || shm < 0) return err_set(err, ERR_INTERNAL, EBADF, "the image's mounts are lost");
  if (move_to(root, AT_FDCWD, STAGE_LAYER) < 0) return fail(err, "stage the root");
  if (host && fill_host_root(root, share) < 0) return fail(err, "furnish the image \"host\"");
  rc = mount_system(d, root, dev, shm, err);
  if (rc == 0) rc = mount_volumes(d, root, volumes, err);
  for (uint32_t i = 0; i < d->volumes_n; i++)
    if (volumes[i].fd >= 0) close(volumes[i].fd);
  return rc < 0 ? rc : move_in(root, err);
}

int rootfs_name_server(struct err *err)
{
  char text[64];
  cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0 || (mkdirat(root, "etc", 0755) < 0 && errno != EEXIST))
    return fail(err, "make a folder for resolv.conf");
  cleanup_close int etc = open_beneath(root, "etc", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
  if (etc < 0) return fail(err, "open the image's /etc");
  if (unlinkat(etc, "resolv.conf", 0) < 0 && errno != ENOENT)
    return fail(err, "replace the image's /etc/resolv.conf");
  snprintf(text, sizeof text, "nameserver %u.%u.%u.%u\n", NET_DNS >> 24, NET_DNS >> 16 & 255,
           NET_DNS >> 8 & 255, NET_DNS & 255);
  return write_at(etc, "resolv.conf", text, strlen(text)) < 0 ? fail(err, "write /etc/resolv.conf")
                                                              : 0;
}

/* User ids of boxes.
 *
 * As root each box gets 65,536 host ids that nobody else has, of ranges that no distribution hands
 * out: blocks of 0x70000000–0x7FFDFFFF, and where these are taken, of 0x80000000–0x8FFDFFFF (which
 * tools that hold ids as signed numbers show as negative ones). A block is taken by a lock on one
 * byte of /run/regolith/ids, so that several regolith processes never share one, and a dead one
 * holds none. The file goes with its last user.
 *
 * As an ordinary user the warden enters an outer user namespace: 0 is the user, 1… are his
 * subordinate ids (newuidmap writes the map). Boxes nest in it and share those ids. Without
 * subordinate ids there is one id, and agent and commands share it.
 *
 * The last id of a block is the agent's and is not mapped inside. */
#include "engine/local/ids.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/securebits.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BLOCK_SIZE  65536u
#define BLOCK_LOW   0x7000u
#define BLOCK_HIGH  0x8000u
#define BLOCK_HALF  0x0FFEu /* up to 0x7FFD0000: what follows is systemd's */
#define BLOCK_COUNT (2 * BLOCK_HALF)
#define LOCK_DIR    "/run/regolith"
#define LOCK_PATH   LOCK_DIR "/ids"

static int write_file(const char *path, const char *text)
{
  cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
  size_t n = strlen(text);
  if (fd < 0) return -errno;
  return write(fd, text, n) == (ssize_t)n ? 0 : -errno;
}

/* --- subordinate ids of an ordinary user ------------------------------------------------------ */

struct range {
  uint32_t start, count;
};

/* The largest range that the file gives to the user, by name or number. */
static struct range find_range(const char *path, const char *name, uid_t uid)
{
  struct range best = {0};
  char uid_text[16], line[512];
  snprintf(uid_text, sizeof uid_text, "%u", (unsigned)uid);
  FILE *f = fopen(path, "re");
  if (!f) return best;
  while (fgets(line, sizeof line, f)) {
    char *save = NULL, *who = strtok_r(line, ":\n", &save);
    char *start = strtok_r(NULL, ":\n", &save), *count = strtok_r(NULL, ":\n", &save);
    if (!count || (strcmp(who, uid_text) != 0 && (!name || strcmp(who, name) != 0))) continue;
    unsigned long s = strtoul(start, NULL, 10), c = strtoul(count, NULL, 10);
    if (s == 0 || s > UINT32_MAX || c > UINT32_MAX || c <= best.count) continue;
    best = (struct range){(uint32_t)s, (uint32_t)c};
  }
  fclose(f);
  return best;
}

/* newuidmap TARGET 0 ID 1 1 START COUNT, as a child in the namespace that the target left. */
static int run_mapper(const char *tool, pid_t target, uint32_t own, struct range r)
{
  char num[5][16];
  snprintf(num[0], sizeof num[0], "%d", (int)target);
  snprintf(num[1], sizeof num[1], "%u", own);
  snprintf(num[2], sizeof num[2], "%u", r.start);
  snprintf(num[3], sizeof num[3], "%u", r.count);
  char tool_arg[16], zero[] = "0", one_a[] = "1", one_b[] = "1";
  snprintf(tool_arg, sizeof tool_arg, "%s", tool);
  char *argv[] = {tool_arg, num[0], zero, num[1], one_a, one_b, num[2], num[3], NULL};
  char path[] = "PATH=/usr/bin:/bin:/usr/sbin:/sbin:/run/wrappers/bin:/usr/local/bin";
  char *envp[] = {path, NULL};
  static const char *const dirs[] = {"/usr/bin", "/run/wrappers/bin", "/bin", "/usr/local/bin"};
  for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
    char full[64];
    snprintf(full, sizeof full, "%s/%s", dirs[i], tool);
    pid_t pid;
    int status, rc = posix_spawn(&pid, full, NULL, NULL, argv, envp);
    if (rc == ENOENT) continue;
    if (rc != 0) return -rc;
    if (waitpid(pid, &status, 0) < 0) return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
  }
  return -ENOENT;
}

/* A child that stays outside and maps the parent once the parent has unshared. */
static pid_t start_mapper(struct range u, struct range g, int *ret_go)
{
  int go[2];
  if (pipe2(go, O_CLOEXEC) < 0) return -1;
  /* Bare: handlers that libraries run at fork know nothing of the descriptors closed since. */
  pid_t target = getpid(), pid = _Fork();
  if (pid == 0) {
    char c;
    close(go[1]);
    if (read(go[0], &c, 1) != 1) _exit(1);
    int rc = run_mapper("newuidmap", target, getuid(), u);
    if (rc == 0) rc = run_mapper("newgidmap", target, getgid(), g);
    _exit(rc == 0 ? 0 : rc == -ENOENT ? 2 : 3);
  }
  close(go[0]);
  *ret_go = go[1];
  return pid;
}

static int map_self_only(uid_t uid, gid_t gid)
{
  char text[64];
  int rc = write_file("/proc/self/setgroups", "deny");
  snprintf(text, sizeof text, "0 %u 1", (unsigned)uid);
  if (rc == 0) rc = write_file("/proc/self/uid_map", text);
  snprintf(text, sizeof text, "0 %u 1", (unsigned)gid);
  if (rc == 0) rc = write_file("/proc/self/gid_map", text);
  return rc;
}

static int no_namespace(struct err *err, int e)
{
  int rc = err_set(err, ERR_ENGINE_UNAVAILABLE, e,
                   "this machine lets an ordinary user make no user namespaces: %s", strerror(e));
  err_hint(err, "run \"regolith doctor\": it names the setting that forbids them");
  return rc;
}

static int enter_as_user(struct ids *ids, struct err *err)
{
  uid_t uid = getuid();
  gid_t gid = getgid();
  struct passwd *pw = getpwuid(uid);
  struct range u = find_range("/etc/subuid", pw ? pw->pw_name : NULL, uid);
  struct range g = find_range("/etc/subgid", pw ? pw->pw_name : NULL, uid);
  uint32_t count = u.count < g.count ? u.count : g.count;
  int go = -1;
  pid_t mapper = -1;
  u.count = g.count = count;
  if (count > 0) mapper = start_mapper(u, g, &go);
  if (unshare(CLONE_NEWUSER) < 0) {
    int e = errno;
    if (go >= 0) close(go);
    if (mapper > 0) waitpid(mapper, NULL, 0);
    return no_namespace(err, e);
  }
  int status = -1;
  if (mapper > 0) {
    if (write(go, "g", 1) < 0) status = -1;
    close(go);
    if (waitpid(mapper, &status, 0) < 0) status = -1;
  }
  if (mapper > 0 && status == 0) {
    ids->mode = IDS_SHARED;
    ids->n = count + 1;
  } else {
    snprintf(ids->why, sizeof ids->why, "%s",
             count == 0                                      ? "no subordinate ids for this user"
             : WIFEXITED(status) && WEXITSTATUS(status) == 2 ? "newuidmap is not installed"
                                                             : "newuidmap failed");
    int rc = map_self_only(uid, gid);
    if (rc < 0) return no_namespace(err, -rc);
    ids->mode = IDS_SINGLE;
    ids->n = 1;
  }
  if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
    return no_namespace(err, errno);
  if (ids->mode == IDS_SHARED) setgroups(0, NULL);
  return 0;
}

/* --- root ------------------------------------------------------------------------------------- */

/* How many ids, from 0 on, this user namespace has: all of them in the first one. */
static uint32_t ids_here(const char *path)
{
  unsigned long inside, outside, count, end = 0;
  FILE *f = fopen(path, "re");
  if (!f) return 0;
  while (fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3)
    if (inside == end) end += count;
  fclose(f);
  return end > UINT32_MAX ? UINT32_MAX : (uint32_t)end;
}

static int enter_as_root(struct ids *ids, struct err *err)
{
  uint32_t u = ids_here("/proc/self/uid_map"), g = ids_here("/proc/self/gid_map");
  if (setgroups(0, NULL) < 0 && errno != EPERM)
    return err_set(err, ERR_INTERNAL, errno, "cannot give up groups: %s", strerror(errno));
  ids->n = u < g ? u : g;
  ids->mode = ids->n == UINT32_MAX ? IDS_BLOCKS : ids->n > 1 ? IDS_SHARED : IDS_SINGLE;
  if (ids->mode != IDS_BLOCKS)
    snprintf(ids->why, sizeof ids->why, "root of a user namespace with %u ids", ids->n);
  /* Changing ids (ids_become) must not cost capabilities. */
  if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0 && ids->mode == IDS_BLOCKS)
    return err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "root lacks CAP_SETPCAP here");
  return 0;
}

int ids_enter(struct ids *ret, struct err *err)
{
  *ret = (struct ids){.lock_fd = -1};
  if (geteuid() == 0) return enter_as_root(ret, err);
  int rc = enter_as_user(ret, err);
  if (rc == 0) prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0);
  return rc;
}

/* Opens the lock file; a file that was removed between open and lock is opened anew by the caller.
 */
static int open_lock(struct ids *ids, struct err *err)
{
  if (ids->lock_fd >= 0) return 0;
  mkdir(LOCK_DIR, 0755);
  ids->lock_fd = open(LOCK_PATH, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (ids->lock_fd >= 0) {
    ids->next = (uint32_t)getpid() % BLOCK_HALF; /* spreads several regolith processes */
    return 0;
  }
  return err_set(err, ERR_ENGINE_UNAVAILABLE, errno, "cannot open %s: %s", LOCK_PATH,
                 strerror(errno));
}

static struct flock byte_lock(short type, uint32_t at, uint32_t len)
{
  return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = len};
}

static bool lock_file_gone(int fd)
{
  struct stat st;
  return fstat(fd, &st) < 0 || st.st_nlink == 0;
}

/* The i-th block to look at: the low half from next on, then the high one. */
static uint32_t candidate(const struct ids *ids, uint32_t i)
{
  uint32_t half = i < BLOCK_HALF ? 0 : BLOCK_HALF;
  return half + (ids->next + i) % BLOCK_HALF;
}

/* Locks one free byte: 1 and its number, 0 when none is free, or a negative errno. */
static int try_blocks(struct ids *ids, uint32_t *ret_block, struct err *err)
{
  int rc = open_lock(ids, err);
  if (rc < 0) return rc;
  for (uint32_t i = 0; i < BLOCK_COUNT; i++) {
    uint32_t b = candidate(ids, i);
    if (ids->used[b / 8] & (1u << b % 8)) continue;
    struct flock lock = byte_lock(F_WRLCK, b, 1);
    if (fcntl(ids->lock_fd, F_OFD_SETLK, &lock) < 0) continue;
    if (lock_file_gone(ids->lock_fd)) break;
    ids->used[b / 8] |= (uint8_t)(1u << b % 8);
    ids->next = (b + 1) % BLOCK_HALF;
    *ret_block = b;
    return 1;
  }
  return 0;
}

static int take_block(struct ids *ids, uint32_t *ret_block, struct err *err)
{
  for (int tries = 0; tries < 5; tries++) {
    int rc = try_blocks(ids, ret_block, err);
    if (rc != 0) return rc < 0 ? rc : 0;
    /* Its last user is removing the file, all locked: whoever comes now locks another one. */
    if (tries > 0) usleep(1000);
    if (!lock_file_gone(ids->lock_fd)) continue;
    close(ids->lock_fd);
    ids->lock_fd = -1;
  }
  return err_set(err, ERR_CAPACITY, EAGAIN, "all %u blocks of user ids are in use", BLOCK_COUNT);
}

int ids_take(struct ids *ids, bool own_root, struct ids_block *ret, struct err *err)
{
  *ret = (struct ids_block){.mapped = 1};
  if (ids->mode == IDS_SINGLE) return 0;
  if (ids->mode == IDS_SHARED) {
    uint32_t n = ids->n < BLOCK_SIZE + 1 ? ids->n : BLOCK_SIZE + 1; /* 0 is the user */
    ret->agent = n - 1;
    ret->first = own_root ? 0 : 1;
    ret->rest = own_root ? 1 : 2;
    ret->mapped = own_root ? n - 1 : n - 2;
    /* Too few subordinate ids for root and agent: root is the user. */
    if (ret->mapped == 0) *ret = (struct ids_block){.rest = 1, .mapped = 1, .agent = n - 1};
    return 0;
  }
  int rc = take_block(ids, &ret->block, err);
  if (rc < 0) return rc;
  uint32_t b = ret->block;
  ret->first = (b < BLOCK_HALF ? BLOCK_LOW + b : BLOCK_HIGH + b - BLOCK_HALF) * BLOCK_SIZE;
  ret->rest = ret->first + 1;
  ret->mapped = BLOCK_SIZE - 1;
  ret->agent = ret->first + BLOCK_SIZE - 1;
  return 0;
}

void ids_give(struct ids *ids, const struct ids_block *block)
{
  if (ids->mode != IDS_BLOCKS || ids->lock_fd < 0) return;
  struct flock lock = byte_lock(F_UNLCK, block->block, 1);
  fcntl(ids->lock_fd, F_OFD_SETLK, &lock);
  ids->used[block->block / 8] &= (uint8_t) ~(1u << block->block % 8);
}

int ids_map(const struct ids *ids, const struct ids_block *b, pid_t pid, struct err *err)
{
  char path[64], text[96];
  int rc = 0;
  if (ids->mode == IDS_SINGLE) {
    snprintf(path, sizeof path, "/proc/%d/setgroups", (int)pid);
    rc = write_file(path, "deny");
  }
  int n = snprintf(text, sizeof text, "0 %u 1\n", b->first);
  if (b->mapped > 1)
    snprintf(text + n, sizeof text - (size_t)n, "1 %u %u\n", b->rest, b->mapped - 1);
  static const char *const maps[] = {"uid_map", "gid_map"};
  for (size_t i = 0; rc == 0 && i < 2; i++) {
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, maps[i]);
    rc = write_file(path, text);
  }
  if (rc == 0) return 0;
  return err_set(err, ERR_INTERNAL, -rc, "cannot write %s: %s", path, strerror(-rc));
}

int ids_become(const struct ids *ids, uint32_t id)
{
  if (ids->mode == IDS_SINGLE) return 0;
  /* Back to 0 the uid goes first or last alike: capabilities stay (ids_enter). */
  if (syscall(SYS_setresgid, id, id, id) < 0) return -errno;
  if (syscall(SYS_setresuid, id, id, id) < 0) return -errno;
  return 0;
}

void ids_done(struct ids *ids)
{
  if (ids->lock_fd < 0) return;
  /* First without our own: of two that leave at once the later one must find the file unused. */
  struct flock none = byte_lock(F_UNLCK, 0, BLOCK_COUNT);
  struct flock all = byte_lock(F_WRLCK, 0, BLOCK_COUNT);
  fcntl(ids->lock_fd, F_OFD_SETLK, &none);
  if (fcntl(ids->lock_fd, F_OFD_SETLK, &all) == 0 && !lock_file_gone(ids->lock_fd)) {
    unlink(LOCK_PATH);
    rmdir(LOCK_DIR);
  }
  close(ids->lock_fd);
  ids->lock_fd = -1;
}

/* User and group ids for the image store of an ordinary user.
 *
 * Layers hold files of many owners, and a user may own files by subordinate ids only from inside a
 * user namespace that maps them. Commands that write or remove layers enter one: id 0 is the user,
 * 1 to N are the range that /etc/subuid and /etc/subgid grant (the largest counts).
 * newuidmap has to be run from outside for a process inside, so a child forked before does that.
 * Without a grant, or without newuidmap, only id 0 is mapped: files then all belong to the user. */
#include "image/ids.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define IDS_WANTED 65536

struct id_range {
  unsigned long first, count; /* count 0 = none */
};

/* The lines of /proc/self/uid_map: how many ids there are, and whether they are the machine's. */
static void read_map(unsigned long *ret_count, bool *ret_identity)
{
  *ret_count = 0;
  *ret_identity = false;
  FILE *f = fopen("/proc/self/uid_map", "re");
  unsigned long inside, outside, count;
  while (f && fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3) {
    *ret_count += count;
    *ret_identity = inside == 0 && outside == 0 && count == 4294967295UL;
  }
  if (f) fclose(f);
}

bool image_ids_first(void)
{
  unsigned long count;
  bool identity;
  read_map(&count, &identity);
  return identity;
}

bool image_ids_many(void)
{
  unsigned long count;
  bool identity;
  read_map(&count, &identity);
  return geteuid() == 0 && count >= IDS_WANTED;
}

/* The largest range that /etc/subuid or /etc/subgid gives the user, by name or number: the one that
 * sandboxes get too. */
static struct id_range find_range(const char *path, const char *name, uid_t uid)
{
  struct id_range best = {0};
  char number[16], *line = NULL;
  size_t cap = 0;
  snprintf(number, sizeof number, "%u", uid);
  FILE *f = fopen(path, "re");
  while (f && getline(&line, &cap, f) > 0) {
    char *colon = strchr(line, ':');
    if (!colon) continue;
    *colon = '\0';
    if (strcmp(line, number) != 0 && (!name || strcmp(line, name) != 0)) continue;
    struct id_range found;
    if (sscanf(colon + 1, "%lu:%lu", &found.first, &found.count) == 2 && found.count > best.count)
      best = found;
  }
  free(line);
  if (f) fclose(f);
  return best;
}

static int write_file(const char *path, const char *text)
{
  cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
  return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static int run_map_tool(const char *tool, pid_t pid, unsigned self, struct id_range range)
{
  char target[16], own[16], first[24], count[24];
  snprintf(target, sizeof target, "%d", pid);
  snprintf(own, sizeof own, "%u", self);
  snprintf(first, sizeof first, "%lu", range.first);
  snprintf(count, sizeof count, "%lu", range.count);
  pid_t child = fork();
  if (child == 0) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 2);
    execlp(tool, tool, target, "0", own, "1", "1", first, count, (char *)NULL);
    _exit(127);
  }
  int status = -1;
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* The child that stays outside: waits for the word, maps, and says how it went by its status. */
static void map_from_outside(pid_t pid, int go, struct id_range uids, struct id_range gids)
{
  char word;
  if (read(go, &word, 1) != 1) _exit(1);
  if (run_map_tool("newuidmap", pid, getuid(), uids) < 0) _exit(1);
  _exit(run_map_tool("newgidmap", pid, getgid(), gids) < 0 ? 1 : 0);
}

static int map_self_alone(uid_t uid, gid_t gid)
{
  char map[64];
  snprintf(map, sizeof map, "0 %u 1", uid);
  int rc = write_file("/proc/self/uid_map", map);
  if (rc == 0) rc = write_file("/proc/self/setgroups", "deny");
  snprintf(map, sizeof map, "0 %u 1", gid);
  return rc < 0 ? rc : write_file("/proc/self/gid_map", map);
}

int image_ids_enter(struct err *err)
{
  uid_t uid = geteuid();
  gid_t gid = getegid();
  if (uid == 0) return 0;
  const struct passwd *pw = getpwuid(uid);
  struct id_range uids = find_range("/etc/subuid", pw ? pw->pw_name : NULL, uid);
  struct id_range gids = find_range("/etc/subgid", pw ? pw->pw_name : NULL, uid);
  int go[2], status = 1;
  if (pipe2(go, O_CLOEXEC) < 0) return err_set(err, ERR_CAPACITY, errno, "cannot make a pipe");
  pid_t self = getpid(), helper = uids.count && gids.count ? fork() : -1;
  if (helper == 0) {
    close(go[1]);
    map_from_outside(self, go[0], uids, gids);
  }
  close(go[0]);
  int rc = unshare(CLONE_NEWUSER) < 0 ? -errno : 0;
  if (rc == 0 && helper > 0 && write(go[1], "g", 1) != 1) status = 1;
  close(go[1]);
  while (helper > 0 && waitpid(helper, &status, 0) < 0 && errno == EINTR) continue;
  if (rc == 0 && (helper < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0))
    rc = map_self_alone(uid, gid);
  if (rc == 0 && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)) rc = -errno;
  if (rc == 0) return 0;
  err_set(err, ERR_ENGINE_UNAVAILABLE, -rc, "cannot make a user namespace: %s", strerror(-rc));
  err_hint(err, "`regolith doctor` says what blocks it on this machine");
  return rc;
}

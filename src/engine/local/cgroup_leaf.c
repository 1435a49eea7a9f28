/* Control groups, the agent's side: a pool of cgroup2 leaves, one per running exec.
 *
 * A leaf is the directory eN in the box's cgroup2 directory; the agent owns that directory and
 * makes the leaves itself. What an exec started can be ended with one write (cgroup.kill) and
 * counted empty with one read, whatever it did with sessions, process groups and parents.
 *
 *   unmade → in use → idle (open, empty) → in use …
 *                   ↘ lingering (processes left behind, closed) → in use
 *                   ↘ spent (killed) → removed: unmade
 *
 * Only spent leaves are removed here: empty groups are cheap, and the warden removes the whole box.
 * The agent is a fork without exec: no malloc, no stdio, only system calls. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/cgroup_internal.h"

enum leaf_state { LEAF_UNMADE, LEAF_IN_USE, LEAF_IDLE, LEAF_LINGERING, LEAF_SPENT };

#define HUNT_STEPS 4 /* lingering leaves looked at per take */

void cgroup_leaves_init(struct cgroup_leaves *pool, int box_fd, int oom_fd)
{
  memset(pool, 0, sizeof *pool);
  pool->box_fd = box_fd;
  pool->oom_fd = oom_fd;
}

static void leaf_name(uint16_t n, char out[8])
{
  char digits[8];
  int len = 0;
  do {
    digits[len++] = (char)('0' + n % 10);
    n /= 10;
  } while (n);
  *out++ = 'e';
  while (len) *out++ = digits[--len];
  *out = 0;
}

static int64_t leaf_oom_total(const struct cgroup_leaf *leaf)
{
  char text[512];
  int r = cg_read_at(leaf->fd, "memory.events.local", text, sizeof text);
  if (r < 0) return r == -ENOENT ? -EOPNOTSUPP : r;
  int64_t n = cg_find_key(text, "oom_kill");
  return n < 0 ? -EOPNOTSUPP : n;
}

static int leaf_open(const struct cgroup_leaves *pool, uint16_t n, bool make,
                     struct cgroup_leaf *ret_leaf)
{
  char name[8];
  leaf_name(n, name);
  if (make && mkdirat(pool->box_fd, name, 0755) < 0 && errno != EEXIST) return -errno;
  int fd = openat(pool->box_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  *ret_leaf = (struct cgroup_leaf){.fd = fd, .n = n};
  return 0;
}

static int leaf_make(struct cgroup_leaves *pool, struct cgroup_leaf *ret_leaf)
{
  uint16_t n = 0;
  while (n < CGROUP_LEAF_MAX && pool->state[n] != LEAF_UNMADE) n++;
  if (n == CGROUP_LEAF_MAX) return -EAGAIN;
  return leaf_open(pool, n, true, ret_leaf);
}

/* Its number can be made anew once its last process is gone. */
static void leaf_remove(struct cgroup_leaves *pool, uint16_t n)
{
  char name[8];
  leaf_name(n, name);
  bool gone = unlinkat(pool->box_fd, name, AT_REMOVEDIR) == 0;
  pool->state[n] = gone ? LEAF_UNMADE : LEAF_SPENT;
}

/* A lingering leaf whose processes are gone by now. Spent ones on the way are removed. */
static int leaf_hunt(struct cgroup_leaves *pool, struct cgroup_leaf *ret_leaf)
{
  int looked = 0;
  for (int i = 0; i < CGROUP_LEAF_MAX && looked < HUNT_STEPS; i++) {
    uint16_t n = pool->hunt = (uint16_t)((pool->hunt + 1) % CGROUP_LEAF_MAX);
    if (pool->state[n] != LEAF_LINGERING && pool->state[n] != LEAF_SPENT) continue;
    looked++;
    if (pool->state[n] == LEAF_SPENT) {
      leaf_remove(pool, n);
      continue;
    }
    struct cgroup_leaf leaf;
    if (leaf_open(pool, n, false, &leaf) < 0) continue;
    if (cgroup_leaf_populated(&leaf) == 0) {
      *ret_leaf = leaf;
      return 0;
    }
    close(leaf.fd);
  }
  return -EAGAIN;
}

int cgroup_leaf_take(struct cgroup_leaves *pool, struct cgroup_leaf *ret_leaf)
{
  *ret_leaf = (struct cgroup_leaf){.fd = -1};
  if (pool->box_fd < 0) return -EOPNOTSUPP;
  if (pool->idle_n)
    *ret_leaf = pool->idle[--pool->idle_n];
  else if (leaf_hunt(pool, ret_leaf) < 0) {
    int r = leaf_make(pool, ret_leaf);
    if (r < 0) return r;
  }
  pool->state[ret_leaf->n] = LEAF_IN_USE;
  int64_t seen = pool->no_leaf_oom ? -EOPNOTSUPP : leaf_oom_total(ret_leaf);
  pool->no_leaf_oom = seen == -EOPNOTSUPP;
  pool->leaf_oom = seen >= 0;
  ret_leaf->oom_seen = seen < 0 ? 0 : (uint64_t)seen;
  return 0;
}

void cgroup_leaf_give(struct cgroup_leaves *pool, struct cgroup_leaf *leaf)
{
  if (leaf->fd < 0) return;
  bool empty = !leaf->spent && cgroup_leaf_populated(leaf) == 0;
  if (leaf->spent) {
    close(leaf->fd);
    leaf_remove(pool, leaf->n);
  } else if (empty && pool->idle_n < CGROUP_LEAF_IDLE) {
    pool->state[leaf->n] = LEAF_IDLE;
    pool->idle[pool->idle_n++] = *leaf;
  } else {
    pool->state[leaf->n] = LEAF_LINGERING;
    close(leaf->fd);
  }
  leaf->fd = -1;
}

void cgroup_leaves_fill(struct cgroup_leaves *pool, unsigned n)
{
  if (n > CGROUP_LEAF_IDLE) n = CGROUP_LEAF_IDLE;
  while (pool->box_fd >= 0 && pool->idle_n < n) {
    struct cgroup_leaf leaf;
    if (leaf_make(pool, &leaf) < 0) return;
    pool->state[leaf.n] = LEAF_IDLE;
    pool->idle[pool->idle_n++] = leaf;
  }
}

int cgroup_leaf_kill(struct cgroup_leaf *leaf)
{
  leaf->spent = true;
  return cg_write_at(leaf->fd, "cgroup.kill", "1");
}

int cgroup_leaf_populated(const struct cgroup_leaf *leaf)
{
  char text[128];
  int r = cg_read_at(leaf->fd, "cgroup.events", text, sizeof text);
  if (r < 0) return r;
  return cg_find_key(text, "populated") == 1;
}

int64_t cgroup_leaf_oom_kills(const struct cgroup_leaves *pool, const struct cgroup_leaf *leaf)
{
  if (!pool->leaf_oom) return -EOPNOTSUPP;
  int64_t total = leaf_oom_total(leaf);
  return total < 0 ? total : total - (int64_t)leaf->oom_seen;
}

int64_t cgroup_leaves_box_oom_kills(const struct cgroup_leaves *pool)
{
  char text[256];
  ssize_t n;
  if (pool->oom_fd < 0 || (n = pread(pool->oom_fd, text, sizeof text - 1, 0)) < 0)
    return -EOPNOTSUPP;
  text[n] = 0;
  int64_t kills = cg_find_key(text, "oom_kill");
  return kills < 0 ? -EOPNOTSUPP : kills;
}

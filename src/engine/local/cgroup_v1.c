/* Control groups, version 1: limits and usage of one box in one hierarchy.
 *
 * CPU is a bandwidth quota per period of 100 ms. Memory is limited together with swap where the
 * kernel counts both. A controller may share its hierarchy with others (cpu,cpuacct): each function
 * does what the tree's mask says. */
#include <errno.h>
#include <string.h>

#include "engine/local/cgroup_internal.h"

#define PERIOD_US    100000
#define QUOTA_MIN_US 1000

static int limit_cpu(int boxfd, uint32_t cpu_milli, struct err *err)
{
  int r;
  if (!cpu_milli) {
    r = cg_write_at(boxfd, "cpu.cfs_quota_us", "-1");
  } else {
    uint64_t quota = (uint64_t)cpu_milli * PERIOD_US / 1000;
    r = cg_write_u64_at(boxfd, "cpu.cfs_quota_us", quota < QUOTA_MIN_US ? QUOTA_MIN_US : quota);
    /* More than an ancestor has: what the ancestor has is the limit, which is what is meant. */
    if (r == -EINVAL) r = cg_write_at(boxfd, "cpu.cfs_quota_us", "-1");
  }
  if (r < 0)
    err_set(err, ERR_INTERNAL, -r, "cannot limit the CPU time of a sandbox: %s", strerror(-r));
  return r;
}

/* The plain limit may never exceed the one with swap: the order depends on the direction. */
static int limit_memory(int boxfd, uint64_t bytes, struct err *err)
{
  int64_t value = bytes ? (int64_t)bytes : INT64_MAX;
  int r = cg_write_u64_at(boxfd, "memory.limit_in_bytes", (uint64_t)value);
  int swap = cg_write_u64_at(boxfd, "memory.memsw.limit_in_bytes", (uint64_t)value);
  if (r == -EINVAL && swap == 0)
    r = cg_write_u64_at(boxfd, "memory.limit_in_bytes", (uint64_t)value);
  if (swap == -ENOENT) cg_write_at(boxfd, "memory.swappiness", "0");
  if (r == 0 && swap < 0 && swap != -ENOENT) r = swap;
  if (r < 0)
    err_set(err, ERR_INTERNAL, -r, "cannot limit the memory of a sandbox to %llu bytes: %s",
            (unsigned long long)bytes, strerror(-r));
  return r;
}

static int limit_pids(int boxfd, uint32_t pids, struct err *err)
{
  int r = pids ? cg_write_u64_at(boxfd, "pids.max", pids) : cg_write_at(boxfd, "pids.max", "max");
  if (r < 0)
    err_set(err, ERR_INTERNAL, -r, "cannot limit the processes of a sandbox: %s", strerror(-r));
  return r;
}

int cg_v1_limit(const struct cg_tree *t, int boxfd, const struct cgroup_limits *limits,
                struct err *err)
{
  int r = 0;
  if (t->ctl & CG_CPU) r = limit_cpu(boxfd, limits->cpu_milli, err);
  if (r == 0 && (t->ctl & CG_MEMORY)) r = limit_memory(boxfd, limits->mem_bytes, err);
  if (r == 0 && (t->ctl & CG_PIDS)) r = limit_pids(boxfd, limits->pids, err);
  return r;
}

static uint64_t known(int64_t v)
{
  return v < 0 ? 0 : (uint64_t)v;
}

void cg_v1_usage(const struct cg_tree *t, int boxfd, struct cgroup_usage *usage)
{
  char text[256];
  if (t->ctl & CG_CPUACCT) usage->cpu_us = known(cg_read_u64_at(boxfd, "cpuacct.usage")) / 1000;
  if (t->ctl & CG_PIDS) usage->pids = (uint32_t)known(cg_read_u64_at(boxfd, "pids.current"));
  if (!(t->ctl & CG_MEMORY)) return;
  usage->mem_bytes = known(cg_read_u64_at(boxfd, "memory.usage_in_bytes"));
  usage->mem_peak_bytes = known(cg_read_u64_at(boxfd, "memory.max_usage_in_bytes"));
  if (cg_read_at(boxfd, "memory.oom_control", text, sizeof text) > 0)
    usage->oom_kills = known(cg_find_key(text, "oom_kill"));
}

void cg_v1_reclaim(const struct cg_tree *t, int boxfd)
{
  if (t->ctl & CG_MEMORY) cg_write_at(boxfd, "memory.force_empty", "0");
}

/* Control groups, version 2: limits and usage of one box.
 *
 * Also serves the cgroup2 tree of a hybrid machine, which has no controllers of ours but still
 * tells CPU time and pressure. Swap is off for boxes: their memory limit is what it says. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/local/cgroup_internal.h"

#define PERIOD_US    100000
#define QUOTA_MIN_US 1000

unsigned cg_v2_enable(int dirfd, unsigned ctl)
{
  char text[256];
  /* One by one, so that one which is not there does not keep the others out. */
  if (ctl & CG_CPU) cg_write_at(dirfd, "cgroup.subtree_control", "+cpu");
  if (ctl & CG_MEMORY) cg_write_at(dirfd, "cgroup.subtree_control", "+memory");
  if (ctl & CG_PIDS) cg_write_at(dirfd, "cgroup.subtree_control", "+pids");
  if (cg_read_at(dirfd, "cgroup.subtree_control", text, sizeof text) < 0) return 0;
  return cg_parse_controllers(text, ' ') & ctl;
}

static int limit_cpu(int boxfd, uint32_t cpu_milli)
{
  if (!cpu_milli) return cg_write_at(boxfd, "cpu.max", "max");
  char text[64];
  uint64_t quota = (uint64_t)cpu_milli * PERIOD_US / 1000;
  snprintf(text, sizeof text, "%llu %d",
           (unsigned long long)(quota < QUOTA_MIN_US ? QUOTA_MIN_US : quota), PERIOD_US);
  return cg_write_at(boxfd, "cpu.max", text);
}

static int limit_memory(int boxfd, uint64_t bytes)
{
  int r =
      bytes ? cg_write_u64_at(boxfd, "memory.max", bytes) : cg_write_at(boxfd, "memory.max", "max");
  if (r < 0) return r;
  r = cg_write_at(boxfd, "memory.swap.max", bytes ? "0" : "max");
  return r == -ENOENT ? 0 : r; /* a kernel without swap accounting, or without swap */
}

static int limit_pids(int boxfd, uint32_t pids)
{
  return pids ? cg_write_u64_at(boxfd, "pids.max", pids) : cg_write_at(boxfd, "pids.max", "max");
}

int cg_v2_limit(const struct cg_tree *t, int boxfd, const struct cgroup_limits *limits,
                struct err *err)
{
  const char *what = "CPU time";
  int r = t->ctl & CG_CPU ? limit_cpu(boxfd, limits->cpu_milli) : 0;
  if (r == 0 && (t->ctl & CG_MEMORY)) {
    what = "memory";
    r = limit_memory(boxfd, limits->mem_bytes);
  }
  if (r == 0 && (t->ctl & CG_PIDS)) {
    what = "processes";
    r = limit_pids(boxfd, limits->pids);
  }
  if (r < 0)
    err_set(err, ERR_INTERNAL, -r, "cannot limit the %s of a sandbox: %s", what, strerror(-r));
  return r;
}

static uint64_t known(int64_t v)
{
  return v < 0 ? 0 : (uint64_t)v;
}

void cg_v2_usage(const struct cg_tree *t, int boxfd, struct cgroup_usage *usage)
{
  char text[4096];
  if (cg_read_at(boxfd, "cpu.stat", text, sizeof text) > 0)
    usage->cpu_us = known(cg_find_key(text, "usage_usec"));
  if (t->ctl & CG_PIDS) usage->pids = (uint32_t)known(cg_read_u64_at(boxfd, "pids.current"));
  if (!(t->ctl & CG_MEMORY)) return;
  usage->mem_bytes = known(cg_read_u64_at(boxfd, "memory.current"));
  usage->mem_peak_bytes = known(cg_read_u64_at(boxfd, "memory.peak"));
  if (cg_read_at(boxfd, "memory.events", text, sizeof text) > 0)
    usage->oom_kills = known(cg_find_key(text, "oom_kill"));
}

void cg_v2_reclaim(const struct cg_tree *t, int boxfd)
{
  if (!(t->ctl & CG_MEMORY)) return;
  int64_t now = cg_read_u64_at(boxfd, "memory.current");
  if (now > 0) cg_write_u64_at(boxfd, "memory.reclaim", (uint64_t)now);
}

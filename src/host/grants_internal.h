#ifndef REGOLITH_HOST_GRANTS_INTERNAL_H
#define REGOLITH_HOST_GRANTS_INTERNAL_H

/* What grants.c fills and grants_check.c reads. */

#include "host/grants.h"
#include "wire/op.h"

struct grant_cost {
  bool set;
  int64_t microusd;
};

struct grants {
  char *engine, *image; /* owned; defaults of sandboxes that name none; NULL = not chosen */
  struct val named;     /* owned; the configuration's `engines`: a map of tables, or nil */
  /* Patterns: "*" is any, and else stands for anything but a slash. */
  struct strv engines, images, volumes, commits, gpus, ports;
  struct strv volume_dirs;           /* NAME=ro:DIR or NAME=rw:DIR, absolute and without links */
  struct strv networks;              /* "open", or hosts as in http */
  struct strv dir_images;            /* absolute directories, without links */
  struct strv http;                  /* NAME, *.NAME, ADDRESS, each with :PORT or not */
  struct strv secrets;               /* HOST=TOKEN; never shown, sent to that host only */
  struct strv env;                   /* NAME=VALUE */
  struct strv read_dirs, write_dirs; /* absolute directories, without links */
  struct grant_cost max_cost;
  uint32_t max_sandboxes, max_timeout_s, ops_per_s;
  uint32_t max_cpu_milli, max_mem_mib, max_disk_mib;
  uint64_t mem_bytes, timeout_ms, grace_ms, cpu_ms;
};

#endif

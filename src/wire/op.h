#ifndef REGOLITH_WIRE_OP_H
#define REGOLITH_WIRE_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/val.h"

struct buf;

/* The typed arguments and results of the ops, and their conversion from and to plain data. One
 * table of fields per struct (wire/op.c) drives parsing, defaults, messages and printing: the same
 * misspelt field gets the same answer from Lua and over HTTP. */

/* A NULL-terminated array of strings, owned. Maps (env, tags) are "KEY=VALUE" entries, in order. */
struct strv {
  char **v;
  size_t n;
};

void strv_add(struct strv *s, const char *item); /* copies */
void strv_free(struct strv *s);
const char *strv_map_get(const struct strv *map, const char *key); /* value, or NULL */

struct volume_spec {
  char *source, *target;
  bool readonly;
};

enum network_mode { NETWORK_NONE, NETWORK_OPEN, NETWORK_ALLOW };

/* sandbox.create */
struct create_args {
  char *engine, *image; /* never NULL after defaults */
  struct strv gpu;      /* preference list, "T4", "A100:2"; empty = CPU tier */
  uint32_t cpu_milli;   /* 1000 = one CPU */
  uint32_t mem_mib, disk_mib;
  uint32_t pids;
  uint32_t timeout_s;      /* life-time from running, 1..86400 */
  uint32_t idle_timeout_s; /* 0 = never */
  struct strv entrypoint;
  uint16_t ready_tcp; /* 0 = no readiness check */
  struct strv env;    /* KEY=VALUE */
  char *cwd, *user;   /* NULL = the image's */
  enum network_mode network;
  struct strv network_allow; /* for NETWORK_ALLOW */
  uint16_t *unencrypted_ports, *encrypted_ports;
  size_t unencrypted_ports_n, encrypted_ports_n;
  struct volume_spec *volumes;
  size_t volumes_n;
  struct strv tags;    /* KEY=VALUE */
  char *app_id, *name; /* app_id never NULL after defaults; name NULL = none */
};

void create_args_free(struct create_args *a);

/* sandbox.exec */
enum overflow_mode { OVERFLOW_TRUNCATE, OVERFLOW_KILL };

struct exec_args {
  struct strv argv;    /* a string command is { "/bin/sh", "-c", command } */
  uint64_t timeout_ms; /* 0 = the sandbox's remaining life */
  char *cwd, *user;    /* NULL = the sandbox's */
  struct strv env;     /* over the sandbox's */
  char *stdin_data;    /* owned; NULL = empty */
  size_t stdin_len;
  bool stdin_stream;   /* stdin comes as op input instead */
  uint64_t max_output; /* bytes kept per stream */
  enum overflow_mode on_overflow;
  bool stream; /* send chunks as they come */
};

void exec_args_free(struct exec_args *a);

enum outcome_reason {
  REASON_EXITED,
  REASON_SIGNAL,
  REASON_TIMEOUT,
  REASON_OOM,
  REASON_OUTPUT_LIMIT,
  REASON_TERMINATED,
  REASON_SANDBOX_TIMEOUT,
  REASON_CANCELLED,
  REASON_UNKNOWN
};

const char *reason_name(enum outcome_reason reason); /* "exited", … */

/* How a command ended. Never guessed: exit_code counts only with REASON_EXITED. */
struct outcome {
  enum outcome_reason reason;
  int exit_code;   /* REASON_EXITED */
  int signal;      /* number, REASON_SIGNAL; 0 otherwise unknown */
  char *out, *err; /* captured, owned, may hold any bytes */
  size_t out_len, err_len;
  bool out_truncated, err_truncated;
  uint64_t out_bytes, err_bytes; /* written by the command, kept or not */
  uint64_t duration_ms, cpu_ms;
  uint32_t max_rss_mib;
};

void outcome_free(struct outcome *o);

#endif

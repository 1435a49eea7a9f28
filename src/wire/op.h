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
  /* Owned, never from whoever asks: the directory of the host that the name stands for, as
   * admission says; NULL = a volume of the engine's own by that name. */
  char *path;
};

enum network_mode { NETWORK_NONE, NETWORK_OPEN, NETWORK_ALLOW };

/* sandbox.create: the fields of API.md by their names there */
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
  bool image_made; /* not from whoever asks: the image was made of a sandbox of the same owner */
};

/* What stands in where the caller says nothing. */
struct create_defaults {
  const char *engine, *image, *network; /* NULL: "local", "host", "none" */
};

/* Every parse function fills *ret, which the caller frees; a failure leaves nothing to free. */
int create_args_parse(const struct val *args, const struct create_defaults *defaults,
                      struct create_args *ret, struct err *err);
void create_args_free(struct create_args *a);

/* What `config` shows: engine image gpu cpu memory disk pids timeout idle_timeout … with defaults
 * filled in, without env (it may carry secrets), tags, app_id and name. */
struct val create_args_config(const struct create_args *a);

/* All of it but the name, as somebody would ask for the same once more. */
struct val create_args_again(const struct create_args *a);

/* { KEY = "VALUE" } of a strv map. */
struct val strv_to_map(const struct strv *map);

/* sandbox.exec: { sandbox_id, command = text | list, timeout, cwd, env, user, stdin, max_output,
 * on_overflow, stream = bool, stdin_stream = bool } */
enum overflow_mode { OVERFLOW_TRUNCATE, OVERFLOW_KILL };

struct exec_args {
  char *sandbox_id;
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

int exec_args_parse(const struct val *args, struct exec_args *ret, struct err *err);
void exec_args_free(struct exec_args *a);

/* sandbox.spawn takes what sandbox.exec takes, but stream and stdin_stream: its stdin is open until
 * it is closed, unless stdin says what is in it. */
int spawn_args_parse(const struct val *args, struct exec_args *ret, struct err *err);

/* What asks for one spawned command: sandbox.wait { sandbox_id, exec }, sandbox.kill { …, signal },
 * sandbox.output { …, stream, max }, sandbox.input { …, close }. */
struct process_args {
  char *sandbox_id;
  uint32_t exec; /* as sandbox.spawn numbered it */
  int signal;    /* kill: 0 = end it and all that it started */
  int stream;    /* output: 0 stdout, 1 stderr */
  uint64_t max;  /* output: bytes */
  bool close;    /* input: it is the last */
};

enum process_op { PROCESS_WAIT, PROCESS_KILL, PROCESS_OUTPUT, PROCESS_INPUT, PROCESS_OPS };
int process_args_parse(enum process_op op, const struct val *args, struct process_args *ret,
                       struct err *err);
void process_args_free(struct process_args *a);

/* status, terminate, get, detach: { sandbox_id, engine } */
struct target_args {
  char *sandbox_id;
  char *engine; /* NULL: whichever has it */
};

int target_args_parse(const char *op, const struct val *args, struct target_args *ret,
                      struct err *err);
void target_args_free(struct target_args *a);

/* sandbox.list: { tags, app_id, state, name, engine }, each NULL or empty: any */
struct list_args {
  struct strv tags;
  char *app_id, *state, *name, *engine;
};

int list_args_parse(const struct val *args, struct list_args *ret, struct err *err);
void list_args_free(struct list_args *a);

/* sandbox.extend: { sandbox_id, seconds } */
struct extend_args {
  char *sandbox_id;
  uint32_t seconds; /* to add */
};

int extend_args_parse(const struct val *args, struct extend_args *ret, struct err *err);
void extend_args_free(struct extend_args *a);

/* sandbox.wait_ready: { sandbox_id, timeout } */
struct wait_args {
  char *sandbox_id;
  uint64_t timeout_ms; /* 0 = the sandbox's remaining life */
};

int wait_args_parse(const struct val *args, struct wait_args *ret, struct err *err);
void wait_args_free(struct wait_args *a);

/* sandbox.snapshot, commit: { sandbox_id, name }; fork: { sandbox_id, image }; forget: { image } */
struct snapshot_args {
  char *sandbox_id;
  char *name; /* NULL = none; of a commit never */
};

int snapshot_args_parse(const char *op, const struct val *args, struct snapshot_args *ret,
                        struct err *err);
void snapshot_args_free(struct snapshot_args *a);

struct fork_args {
  char *sandbox_id, *image;
};

int fork_args_parse(const struct val *args, struct fork_args *ret, struct err *err);
int forget_args_parse(const struct val *args, struct fork_args *ret, struct err *err);
void fork_args_free(struct fork_args *a);

/* sandbox.price: { engine, gpu, timeout } */
struct price_args {
  char *engine; /* NULL: the default one */
  struct strv gpu;
  uint32_t timeout_s;
};

int price_args_parse(const struct val *args, struct price_args *ret, struct err *err);
void price_args_free(struct price_args *a);

/* budget.set: { usd, seconds, sandboxes }, at least one of them */
struct budget_args {
  bool has_usd, has_seconds, has_sandboxes;
  int64_t microusd;
  uint64_t ms; /* of sandbox life */
  uint32_t sandboxes;
};

int budget_args_parse(const struct val *args, struct budget_args *ret, struct err *err);

/* http.request: { url, method, headers, body, timeout } */
struct http_args {
  char *url, *method;  /* method never NULL after defaults */
  struct strv headers; /* "Name=value" */
  char *body;          /* owned, any bytes; NULL = none */
  size_t body_len;
  uint64_t timeout_ms;
};

int http_args_parse(const struct val *args, struct http_args *ret, struct err *err);
void http_args_free(struct http_args *a);

/* Ops without arguments (sandbox.engines, sandbox.gpus): refuses any field. */
int no_args_parse(const char *op, const struct val *args, struct err *err);

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

/* { ok, reason, exit_code, signal, stdout, stderr, truncated = { stdout, stderr }, stdout_bytes,
 * stderr_bytes, duration_ms, usage = { cpu_ms, max_rss_mib } }. Moves the captured output out. */
struct val outcome_print(struct outcome *o);

/* "SIGKILL", "SIGRTMIN+3"; out has at least 24 bytes. */
const char *signal_name(int signal, char out[24]);

#endif

#ifndef REGOLITH_ENGINE_ENGINE_H
#define REGOLITH_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct val;
struct create_args;
struct exec_args;
struct file_args;

/* One way to get sandboxes. Time-outs, ownership, quotas, prices, capture limits and cleanup are
 * the supervisor's, once, for every engine; an engine makes boxes, runs commands in them and ends
 * them.
 *
 * The asynchronous rule holds for every slot: a start that fails never calls back; one that
 * returned 0 calls on_done exactly once, from the loop, never before it returned. */

enum engine_caps {
  ENGINE_CAP_GPU = 1 << 0,
  ENGINE_CAP_NETWORK = 1 << 1,       /* network = "open" or an allow list */
  ENGINE_CAP_OUTLIVES_HOST = 1 << 2, /* boxes live on when this process ends */
  ENGINE_CAP_SNAPSHOT = 1 << 3,
  ENGINE_CAP_VOLUMES = 1 << 4,
  ENGINE_CAP_PORTS = 1 << 5,
  ENGINE_CAP_ENTRYPOINT =
      1 << 6,                /* runs args->entrypoint itself; else the supervisor does, by exec */
  ENGINE_CAP_FILES = 1 << 7, /* exec takes operations on files */
  ENGINE_CAP_SPAWN = 1 << 8, /* on_started, exec_input, exec_flow, and kills with a signal */
};

struct engine_ops;
struct engine_box; /* one sandbox inside its engine */

/* First member of every engine's own struct. */
struct engine {
  const struct engine_ops *ops;
  char name[32]; /* as scripts say it: "local", "gpu-box" */
  unsigned caps; /* enum engine_caps that depend on the machine, beyond ops->caps; set by open */
};

struct engine_conf {
  const char *name;
  struct loop *loop;
  const struct val *options; /* the engine's own settings, NULL = none */
  /* For clients that ask again: the pull of an image goes on when nobody waits for it any more. */
  bool serves;
};

#define ENGINE_ID_SIZE   64 /* of a sandbox's id, the NUL included */
#define ENGINE_PORTS_MAX 16 /* of one sandbox */

/* Why a box ended without being asked to. */
enum box_end {
  BOX_END_OOM,
  BOX_END_LOST, /* agent or helper gone, unknown why */
  BOX_END_ENTRYPOINT,
  BOX_END_LIFE,       /* the engine's own clock was first */
  BOX_END_TERMINATED, /* by somebody else who may */
};

/* Somebody in a box wanted to connect where it may not. Texts are valid during the call. */
struct connect_refused {
  const char *name;    /* that was asked for, or NULL */
  const char *address; /* or NULL */
  uint16_t port;       /* 0 = none */
  bool udp;
  uint32_t times; /* so many since the last call about this box; this was one of them */
};

struct create_op {
  const char *sandbox_id;
  /* With ENGINE_CAP_OUTLIVES_HOST: no box is made, the one that the engine knows by sandbox_id is
   * used from here on. Fails, and changes nothing, where there is none that is alive. */
  bool adopt;
  uint64_t owner;                 /* boxes of different owners share nothing */
  const struct create_args *args; /* complete; valid until on_done */
  /* What the caller said of them, NULL = all; valid until create returns. The rest are defaults,
   * which an engine with better ones need not follow. */
  const struct val *asked;
  void (*on_done)(struct create_op *op, const struct err *err);
  /* At most once, after a successful on_done and before a kill of the box completed: the box ended
   * by itself; its execs finish too. The box still has to be killed to be released. */
  void (*on_end)(void *data, enum box_end why);
  /* As often as it happens, but not for each of many; between a successful on_done and the end of
   * a kill of the box. May be NULL. */
  void (*on_refused)(void *data, const struct connect_refused *refused);
  void *data;
  struct engine_box *ret_box; /* set on success; valid until a kill of it completed */
  unsigned ret_gpu;           /* which of args->gpu it got, the first unless set */
  /* What the engine calls it, where ids are the engine's own; else empty. */
  char ret_id[ENGINE_ID_SIZE];
  /* What it took where that was open: any of image, cpu, memory and gpu; NULL: what args say. Valid
   * during on_done. */
  const struct val *ret_config;
  /* Where args->unencrypted_ports are reached, on 127.0.0.1; in the same order. */
  uint16_t ret_ports[ENGINE_PORTS_MAX];
  /* Of an on_end with BOX_END_ENTRYPOINT: its exit code, or -1 where nobody knows. */
  int ret_entry_code;
  int64_t ret_created_s, ret_expires_s; /* of one that was adopted, wall clock; 0 = not told */
  int64_t ret_commands;                 /* … run in it by then; -1 = not told */
  void *engine_data;                    /* the engine's while in flight */
};

enum exec_stream { EXEC_STDOUT = 1, EXEC_STDERR = 2 };

struct exec_op {
  struct engine_box *box;
  const struct exec_args *args; /* valid until on_done */
  /* Instead of args, with ENGINE_CAP_FILES: an operation on files (wire/file.h), run as the
   * sandbox's user and within its limits, as a command of it would be. Its stdout is what was
   * asked for: bytes (READ), rows (LIST, STAT), a tree of core/tree.h (PACK); exec_input gives it
   * the tree of an UNPACK. It exits with 0 or the errno of what failed, the name of which, below
   * the path, is its stderr. */
  const struct file_args *file;
  /* With ENGINE_CAP_SPAWN, may be NULL: it runs, as this process of its sandbox (0: nobody knows).
   * At most once, before on_done; never for what could not be executed. */
  void (*on_started)(struct exec_op *op, int64_t pid);
  /* In order, before on_done; data is valid during the call only. */
  void (*on_chunk)(struct exec_op *op, enum exec_stream stream, const void *data, size_t len);
  /* What exec_input queues has grown past 256 KiB (true), or is below 64 KiB again (false): a stdin
   * that the command does not read must not fill this process. May be NULL. */
  void (*on_input_full)(struct exec_op *op, bool full);
  /* err: nothing ran (exec_failed), or an argument was wrong (a bad cwd or user). NULL: it ran, or
   * could not be executed as a shell would say it (exit 126 and 127), and the fields below say how
   * it ended. */
  void (*on_done)(struct exec_op *op, const struct err *err);
  void *data;
  /* Set by whoever takes the chunks, [stream - 1]: what comes from now on is only counted,
   * so that the engine may read it at its leisure and let the command wait. */
  bool only_counted[2];
  void *engine_data; /* the engine's while in flight */

  /* TIMEOUT: the engine itself ended it at args->timeout_ms. */
  enum { EXEC_END_EXITED, EXEC_END_SIGNAL, EXEC_END_OOM, EXEC_END_LOST, EXEC_END_TIMEOUT } ret_end;
  int ret_code;             /* exit code or signal number */
  uint64_t ret_duration_us; /* start to end of the command */
  uint64_t ret_cpu_us;      /* user + system */
  uint64_t ret_max_rss_kib;
  uint64_t ret_left_out[2]; /* bytes of stdout and stderr that came to no chunk */
};

/* Ends a box, or one exec with everything it started. Idempotent: on a box that is gone it
 * succeeds. */
struct kill_op {
  struct engine_box *box;
  struct exec_op *exec; /* NULL: the whole box, which is released when on_done comes */
  struct create_op
      *create; /* instead of box: a create still in flight; its on_done then fails with CANCELLED */
  /* With the box, and ENGINE_CAP_OUTLIVES_HOST: its commands are ended, and it lives on without us.
   */
  bool leave;
  int signal; /* with exec: sent to the command alone; 0 = end it and all it started */
  void (*on_done)(struct kill_op *op, const struct err *err);
  void *data;
  void *engine_data;
};

/* Asks once whether something in the box accepts connections on a port of its loopback. */
struct probe_op {
  struct engine_box *box;
  uint16_t port;
  /* Before a kill of the box completed, whatever happens; open is false when the box is ending. */
  void (*on_done)(struct probe_op *op, bool open);
  void *data;
};

/* Asks the engine what it knows of a box that lives elsewhere. */
struct look_op {
  struct engine_box *box;
  /* Before a kill of the box completed, whatever happens. err: it could not be asked, or the box is
   * gone, which on_end has told before. */
  void (*on_done)(struct look_op *op, const struct err *err);
  void *data;
  int64_t ret_expires_s; /* wall clock; 0 = not told */
  int64_t ret_commands;  /* run there so far, by whomever; -1 = not told */
};

/* Asks whether an engine elsewhere is there and takes what we identify ourselves by. Makes nothing.
 */
struct check_op {
  void (*on_done)(struct check_op *op, const struct err *err);
  void *data;
};

/* What a box changed against its image: told, or made an image of. The box goes on running; it may
 * end meanwhile. */
struct changes_op {
  struct engine_box *box;
  const char *name; /* snapshot: of the new image; NULL = none */
  /* diff: kind is one of "added", "modified", "deleted", type as in `ls -l`; in the order of paths,
   * before on_done; valid during the call only. */
  void (*on_change)(struct changes_op *op, const char *kind, char type, const char *path);
  void (*on_done)(struct changes_op *op, const struct err *err);
  void *data;
  void *engine_data;  /* the engine's while in flight */
  char ret_image[80]; /* snapshot: what create takes as image */
};

struct list_op {
  void (*on_box)(struct list_op *op, const char *sandbox_id, const char *owner_tag);
  void (*on_done)(struct list_op *op, const struct err *err);
  void *data;
  void *engine_data;
};

/* Which GPUs the engine has itself. */
struct gpus_op {
  void (*on_gpu)(struct gpus_op *op, const char *name, unsigned count, unsigned free_n);
  void (*on_done)(struct gpus_op *op, const struct err *err);
  void *data;
  void *engine_data;
};

struct engine_ops {
  const char *name; /* the type: "local", "remote" */
  unsigned caps;    /* enum engine_caps */
  int (*open)(struct engine **ret, const struct engine_conf *conf, struct err *err);
  int (*create)(struct engine *e, struct create_op *op, struct err *err);
  int (*exec)(struct engine *e, struct exec_op *op, struct err *err);
  int (*kill)(struct engine *e, struct kill_op *op, struct err *err);
  int (*list)(struct engine *e, struct list_op *op, struct err *err);
  /* Bytes for the stdin of an exec with stdin_stream; len 0 closes it. Never fails: a reader that
   * is gone swallows them. NULL: unsupported. */
  void (*exec_input)(struct engine *e, struct exec_op *op, const void *data, size_t len);
  /* Stops and resumes reading the command's output, so that a slow consumer slows the command. */
  void (*exec_flow)(struct engine *e, struct exec_op *op, bool paused);
  /* One at a time for each box. NULL: unsupported. */
  int (*probe)(struct engine *e, struct probe_op *op, struct err *err);
  /* One at a time for each box. NULL: nothing is known there that is not known here. */
  int (*look)(struct engine *e, struct look_op *op, struct err *err);
  /* NULL: it is here. */
  int (*check)(struct engine *e, struct check_op *op, struct err *err);
  /* The box is to be left when this process ends, however that ends. NULL: as all are. */
  void (*detached)(struct engine *e, struct engine_box *box);
  /* NULL: unsupported. An image without a name is kept until image_drop, and then for as long as
   * boxes are made of it. */
  int (*diff)(struct engine *e, struct changes_op *op, struct err *err);
  int (*snapshot)(struct engine *e, struct changes_op *op, struct err *err);
  void (*changes_cancel)(struct engine *e, struct changes_op *op); /* on_done follows soon */
  void (*image_drop)(struct engine *e, const char *image);
  /* NULL: what it has is not known here. */
  int (*gpus)(struct engine *e, struct gpus_op *op, struct err *err);
  /* Ends every box that there still is, then calls done; with ENGINE_CAP_OUTLIVES_HOST they stay,
   * and nothing of theirs is called back any more. */
  void (*close)(struct engine *e, void (*done)(void *data), void *data);
};

/* Known engines by type name; cli registers them. */
const struct engine_ops *engine_find(const char *type);
void engine_register(const struct engine_ops *ops);
size_t engine_count(void);
const struct engine_ops *engine_at(size_t i);

#endif

#ifndef REGOLITH_ENGINE_LOCAL_LOCAL_INTERNAL_H
#define REGOLITH_ENGINE_LOCAL_LOCAL_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/idmap.h"
#include "base/list.h"
#include "core/helper.h"
#include "core/loop.h"
#include "engine/engine.h"
#include "engine/local/gpu.h"
#include "engine/local/proto.h"
#include "engine/local/volumes.h"
#include "engine/local/watch.h"
#include "image/resolve.h"
#include "wire/op.h"

/* Shared by the local*.c files; nobody else includes this. */

/* Messages that a socket could not take yet, in order. Owns them and their descriptors. */
struct outq {
  struct list msgs;
};
void outq_init(struct outq *q);
/* Sends, or queues and returns 1. Takes the descriptors. Negative errno: the other end is gone. */
int outq_send(struct outq *q, int sock, const struct proto_piece *pieces, size_t n, const int *fds,
              size_t fds_n);
/* 0: empty now, 1: some are left, negative errno. */
int outq_flush(struct outq *q, int sock);
void outq_drop(struct outq *q);

struct local {
  struct engine base;
  struct loop *loop;
  struct watcher *watcher;
  struct helper warden; /* fd -1: there is none */
  struct watch warden_watch;
  struct outq warden_out;
  bool greeted; /* its HELLO came, and is good */
  struct proto_hello hello;
  struct err warden_err;         /* why the last one could do nothing */
  struct list boxes;             /* struct engine_box.node, owned */
  struct idmap boxes_by_id;      /* the same, by engine_box.id */
  uint64_t next_id;              /* of boxes and execs */
  char *chunk;                   /* owned: where output is read to; LOCAL_CHUNK bytes */
  struct image_resolver *images; /* owned */
  struct list jobs;              /* struct job.node, owned: processes of ours at work on images */
  struct list kept;              /* struct kept.node, owned: images without a name */
  struct gpus *gpus;             /* owned */
  struct list nets;              /* struct net_helper.node, owned */
  bool closing;
  void (*on_closed)(void *data);
  void *closed_data;
};

#define LOCAL_CHUNK (64 * 1024)

enum box_state { BOX_CREATING, BOX_RUNNING, BOX_DEAD };

struct engine_box {
  struct list node;
  struct local *engine;
  uint64_t id;
  enum box_state state;
  char sandbox_id[PROTO_ID_SIZE];
  int sock; /* to the agent; -1 = closed */
  struct watch sock_watch;
  struct outq out;
  int pidfd;                /* of the agent; -1 = not known */
  int upper;                /* the upper folder of its overlay; -1 = none */
  uint64_t owner;           /* whose it is */
  bool networked;           /* it gets a way out */
  struct net_helper *net;   /* that has its tap, or will have it; NULL = none (any more) */
  int tap;                  /* until the helper has it; -1 = none */
  struct list ports, links; /* struct port.node, struct link.node, owned (local_ports.c) */
  size_t links_n;
  uint32_t links_made;
  uint32_t first, rest;     /* owners in there: of root, and of user 1 and so on */
  uint32_t snapshots;       /* made of it so far */
  uint64_t disk_bytes;      /* its quota */
  struct watch pidfd_watch; /* runs only when the warden is gone */
  struct create_op *create; /* until its on_done */
  void (*on_end)(void *data, enum box_end why);
  void (*on_refused)(void *data, const struct connect_refused *refused);
  void *data;            /* for both */
  struct list kills;     /* struct kill_req.node of the whole box */
  bool kill_sent;        /* the end of the box was asked for */
  bool ready;            /* its agent waits for work */
  bool released;         /* a deferred call will free it */
  struct err create_err; /* why set-up failed, as the agent says it */
  struct list execs;     /* struct exec.node */
  struct strv env;       /* owned copy */
  char *cwd, *user;      /* owned, NULL = default */
  struct image_resolve resolve;
  struct probe_op *probe;  /* in flight, or NULL */
  bool resolving;          /* its image is being looked for: the warden knows nothing of it yet */
  struct image_use *image; /* owned; NULL: not an image of the store */
  char *dir;               /* owned: of dir:PATH; NULL: not such an image */
  struct volume_use *volumes; /* owned: the engine's own volumes that it uses */
  size_t volumes_n;
  bool finding; /* its GPUs are being looked for: the warden knows nothing of it yet */
  struct gpu_wait gpu_wait;
  struct gpu_grant gpus;
  struct defer unwanted; /* ends it while it is being found GPUs */
};

/* A kill_op in flight. */
struct kill_req {
  struct list node;
  struct kill_op *op;
  struct engine_box *release; /* freed when done; NULL = none */
  struct local *engine;
  struct defer defer;
};

/* local_box.c */
int box_create(struct local *e, struct create_op *op, struct err *err);
int box_kill(struct local *e, struct engine_box *b, struct kill_op *op, struct err *err);
void box_end(struct engine_box *b);  /* ends it, without anyone to tell */
void box_lose(struct engine_box *b); /* its agent is not what it should be: ends it, as lost */
void box_on_warden_message(struct local *e, const struct proto_box *msg, const void *full,
                           const int *fds, size_t fds_n);
void box_on_warden_gone(struct engine_box *b);           /* may free it */
void box_finish(struct engine_box *b, enum box_end why); /* all its processes are dead; may free */
int box_probe(struct engine_box *b, struct probe_op *op, struct err *err);
int box_send(struct engine_box *b, const struct proto_piece *pieces, size_t n, const int *fds,
             size_t fds_n);
/* The answer to a kill_op, from the next turn of the loop. release is freed with it, or NULL. */
void kill_done_later(struct local *e, struct kill_op *op, struct engine_box *release);

/* local_net.c */
int net_join(struct engine_box *b, struct err *err); /* finds it a helper */
void net_enter(struct engine_box *b);                /* gives its tap there; then box_on_net */
void net_leave(struct engine_box *b);
void net_close_all(struct local *e);
/* local_box.c: the box has a network, or why not. */
void box_on_net(struct engine_box *b, const struct err *err);

/* local_ports.c */
int ports_open(struct engine_box *b, struct create_op *op, struct err *err); /* fills ret_ports */
void ports_close(struct engine_box *b);
/* false: the agent's word makes no sense. fd is taken; -1 = none. */
bool ports_on_connected(struct engine_box *b, const struct proto_connect *msg, int fd);

/* local_gpu.c */
int box_find_gpus(struct engine_box *b, struct err *err); /* then box_place */
int box_send_gpus(struct engine_box *b, uint32_t *ret_devices, uint32_t *ret_files,
                  struct err *err);
int local_gpus(struct engine *engine, struct gpus_op *op, struct err *err);
/* local_box.c: goes on with a create that has its GPUs. */
int box_place(struct engine_box *b, struct err *err);

/* local_exec.c */
int run_start(struct engine_box *b, struct exec_op *op, struct err *err);
int run_kill(struct engine_box *b, struct exec_op *op, struct kill_op *kill, struct err *err);
void run_input(struct exec_op *op, const void *data, size_t len);
void run_flow(struct exec_op *op, bool paused);
/* false: the agent's word makes no sense. */
bool run_on_refused(struct engine_box *b, const struct proto_refused *msg);
bool run_on_started(struct engine_box *b, const struct proto_started *msg);
bool run_on_exited(struct engine_box *b, const struct proto_exited *msg);
/* The box is dead: all its execs end, as OOM or LOST where no report came. */
void run_end_all(struct engine_box *b, bool oom);

/* local_changes.c */
int changes_diff(struct engine_box *b, struct changes_op *op, struct err *err);
int changes_snapshot(struct engine_box *b, struct changes_op *op, struct err *err);
void changes_cancel(struct changes_op *op);
void kept_drop(struct local *e, const char *image);
void kept_check(struct local *e); /* a box was released: an image may be needed no more */
void jobs_close(struct local *e); /* the last box is gone: drops all that is kept */

/* local.c: tells the warden; starts one where there is none. */
int local_tell_warden(struct local *e, const void *msg, size_t len, int fd, struct err *err);
void local_box_gone(struct local *e); /* a box was released: closing may go on */

#endif

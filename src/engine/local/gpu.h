#ifndef REGOLITH_ENGINE_LOCAL_GPU_H
#define REGOLITH_ENGINE_LOCAL_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/val.h"
#include "engine/local/proto.h"

struct loop;
struct strv;
struct watcher;

/* The GPUs of this machine: what there is, and who has which. */

#define GPU_HELPER    "gpus"
#define GPU_NAME_SIZE 96
#define GPU_CARDS_MAX 64
#define GPU_CDI_DIRS  "/etc/cdi:/var/run/cdi"
#define GPU_CDI_VAR   "REGOLITH_CDI_DIRS" /* directories, by colons; instead of these */
#define GPU_NVML_VAR  "REGOLITH_NVML"     /* the library, instead of the driver's; "" = none */
#define GPU_NVML      "libnvidia-ml.so.1"

/* What a product is called in sandbox.create: the tier's name, else the product's own. */
void gpu_name(const char *product, char ret[GPU_NAME_SIZE]);

/* May this machine have GPUs at all? A look at a few names, for whoever asks on every start. */
bool gpu_maybe(void);

/* --- the helper (gpu_find.c) ------------------------------------------------------------------ */

/* Main of the helper process: reads one request, answers with one message for each card and one at
 * the end, and ends. Libraries of drivers are loaded there and nowhere else. */
int gpu_helper_main(int sock);

/* --- the host's side (gpu.c) ------------------------------------------------------------------ */

struct gpu_card {
  char name[GPU_NAME_SIZE]; /* as gpu_name */
  char id[128];             /* names its lock: the same in every process */
  char why[200];            /* why it cannot be given to anyone, "" = it can */
  struct val card;          /* as the helper told it: nodes, files, links, env */
};

struct gpus;
struct gpus *gpus_new(struct loop *loop, struct watcher *watcher);
void gpus_free(struct gpus *g); /* who still waits is answered; NULL allowed */

/* Waits for what is known of this machine to be fresh; then cb, from the loop, unless cancelled
 * before. err: it cannot be found out. */
struct gpu_wait {
  struct list node; /* private */
  bool queued;      /* private */
  void (*cb)(struct gpu_wait *w, const struct err *err);
  void *data;
};
int gpus_wait(struct gpus *g, struct gpu_wait *w, struct err *err);
void gpus_cancel(struct gpu_wait *w); /* idempotent */

/* Cards that one sandbox has, until gpu_release. */
struct gpu_grant {
  size_t n;
  struct val card[PROTO_CARDS_MAX]; /* owned: nodes, files, links, env, driver */
  int lock[PROTO_CARDS_MAX];
};

/* The first of these choices ("T4", "A100:2") for which enough cards are free. CAPACITY says what
 * this machine has. */
int gpus_take(struct gpus *g, const struct strv *choices, struct gpu_grant *ret,
              unsigned *ret_choice, struct err *err);
void gpu_release(struct gpu_grant *grant);

/* By name, in the order in which they were found: how many there are, and how many are free. */
void gpus_count(struct gpus *g,
                void (*fn)(void *data, const char *name, unsigned count, unsigned free_n),
                void *data);
/* For doctor: asks, and waits for the answer. The loop and the watcher may be NULL then. */
int gpus_look(struct gpus *g, struct err *err);
/* Why a card cannot be given to sandboxes, or a specification could not be read; NULL: no reason.
 */
const char *gpus_first_note(const struct gpus *g);

#endif

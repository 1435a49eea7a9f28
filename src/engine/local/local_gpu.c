/* GPUs of a box, on the host's side: found before its create goes on, told to the warden ahead of
 * it, and held until the box is dead. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/local_internal.h"

/* --- finding them ----------------------------------------------------------------------------- */

/* Variables that the driver wants, where neither create nor image said otherwise. */
static void add_env(struct engine_box *b, const struct val *list)
{
  for (size_t i = 0; i < list->list.n; i++) {
    const char *entry = list->list.v[i].s.p;
    size_t n = strcspn(entry, "=");
    bool said = entry[n] != '=';
    for (size_t k = 0; k < b->env.n && !said; k++) said = strncmp(b->env.v[k], entry, n + 1) == 0;
    if (!said) strv_add(&b->env, entry);
  }
}

/* A card that no specification describes brings no driver files: image "host" has them. */
static int check_driver(const struct engine_box *b, const struct val *card, struct err *err)
{
  if (val_get_bool(card, "driver", false) || strcmp(b->create->args->image, "host") == 0) return 0;
  int rc = err_set(err, ERR_UNSUPPORTED, ENOTSUP,
                   "which files image \"%.100s\" would need for the %s is not known: no CDI "
                   "specification describes it",
                   b->create->args->image, val_get_str(card, "product", "GPU"));
  if (err) snprintf(err->field, sizeof err->field, "gpu");
  err_hint(err, "nvidia-ctk cdi generate --format=json --output=/etc/cdi/nvidia.json; or use image "
                "= \"host\"");
  return rc;
}

static int take(struct engine_box *b, struct err *err)
{
  int rc = gpus_take(b->engine->gpus, &b->create->args->gpu, &b->gpus, &b->create->ret_gpu, err);
  for (size_t i = 0; rc == 0 && i < b->gpus.n; i++) {
    rc = check_driver(b, &b->gpus.card[i], err);
    add_env(b, val_get(&b->gpus.card[i], "env"));
  }
  return rc;
}

static void on_known(struct gpu_wait *w, const struct err *failure)
{
  struct engine_box *b = w->data;
  struct err err = {0};
  b->finding = false;
  if (failure)
    err = *failure;
  else if (take(b, &err) == 0)
    box_place(b, &err);
  if (err.kind == ERR_NONE) return;
  b->create_err = err;
  box_finish(b, BOX_END_LOST);
}

int box_find_gpus(struct engine_box *b, struct err *err)
{
  b->gpu_wait = (struct gpu_wait){.cb = on_known, .data = b};
  int rc = gpus_wait(b->engine->gpus, &b->gpu_wait, err);
  b->finding = rc == 0;
  return rc;
}

/* --- telling the warden ----------------------------------------------------------------------- */

static bool is_before(const struct engine_box *b, size_t card, const char *key, const char *target)
{
  for (size_t i = 0; i < card; i++) {
    const struct val *list = val_get(&b->gpus.card[i], key);
    for (size_t k = 0; k < list->list.n; k++)
      if (strcmp(val_get_str(&list->list.v[k], "target", ""), target) == 0) return true;
  }
  return false;
}

/* Several cards share some of their nodes. The lock of a card goes with the first that is its own.
 */
static int send_nodes(struct engine_box *b, size_t card, uint32_t *ret_n, struct err *err)
{
  const struct val *list = val_get(&b->gpus.card[card], "nodes");
  int lock = b->gpus.lock[card], rc = 0;
  for (size_t i = 0; rc == 0 && i < list->list.n; i++) {
    const struct val *v = &list->list.v[i];
    struct proto_device msg = {.type = PROTO_DEVICE,
                               .mode = (uint32_t)val_get_int(v, "mode", 0666),
                               .box = b->id,
                               .major = (uint32_t)val_get_int(v, "major", 0),
                               .minor = (uint32_t)val_get_int(v, "minor", 0)};
    const char *path = val_get_str(v, "path", ""), *target = val_get_str(v, "target", "");
    if (is_before(b, card, "nodes", target)) continue;
    if ((size_t)snprintf(msg.target, sizeof msg.target, "%s", target) >= sizeof msg.target ||
        (size_t)snprintf(msg.path, sizeof msg.path, "%s", path) >= sizeof msg.path ||
        ++*ret_n > PROTO_DEVICES_MAX)
      return err_set(err, ERR_UNSUPPORTED, E2BIG,
                     "the GPU has too many device nodes, or too long names");
    rc = local_tell_warden(b->engine, &msg, sizeof msg, lock < 0 ? -1 : dup(lock), err);
    lock = -1;
  }
  return rc;
}

static int send_files(struct engine_box *b, size_t card, const char *key, enum bind_kind kind,
                      uint32_t *ret_n, struct err *err)
{
  static struct proto_volume msg;
  const struct val *list = val_get(&b->gpus.card[card], key);
  int rc = 0;
  for (size_t i = 0; rc == 0 && i < list->list.n; i++) {
    const struct val *v = &list->list.v[i];
    const char *path = val_get_str(v, "path", ""), *target = val_get_str(v, "target", "");
    if (is_before(b, card, key, target)) continue;
    msg = (struct proto_volume){
        .type = PROTO_VOLUME, .kind = (uint16_t)kind, .readonly = 1, .box = b->id};
    if ((size_t)snprintf(msg.target, sizeof msg.target, "%s", target) >= sizeof msg.target ||
        (size_t)snprintf(msg.path, sizeof msg.path, "%s", path) >= sizeof msg.path ||
        ++*ret_n > PROTO_DRIVER_MAX)
      return err_set(err, ERR_UNSUPPORTED, E2BIG,
                     "the GPU's driver has too many files, or too long names");
    rc = local_tell_warden(b->engine, &msg, sizeof msg, -1, err);
  }
  return rc;
}

int box_send_gpus(struct engine_box *b, uint32_t *ret_devices, uint32_t *ret_files, struct err *err)
{
  int rc = 0;
  *ret_devices = *ret_files = 0;
  for (size_t i = 0; rc == 0 && i < b->gpus.n; i++) {
    rc = send_nodes(b, i, ret_devices, err);
    if (rc == 0) rc = send_files(b, i, "files", BIND_DRIVER, ret_files, err);
    if (rc == 0) rc = send_files(b, i, "links", BIND_LINK, ret_files, err);
  }
  return rc;
}

/* --- sandbox.gpus ----------------------------------------------------------------------------- */

struct gpus_req {
  struct gpu_wait wait;
  struct gpus *gpus;
  struct gpus_op *op;
};

static void on_count(void *data, const char *name, unsigned count, unsigned free_n)
{
  struct gpus_op *op = data;
  op->on_gpu(op, name, count, free_n);
}

static void on_list(struct gpu_wait *w, const struct err *err)
{
  struct gpus_req *req = w->data;
  struct gpus_op *op = req->op;
  if (!err) gpus_count(req->gpus, on_count, op);
  free(req);
  op->on_done(op, err);
}

int local_gpus(struct engine *engine, struct gpus_op *op, struct err *err)
{
  struct gpus_req *req = xcalloc(1, sizeof *req);
  *req = (struct gpus_req){.gpus = ((struct local *)engine)->gpus, .op = op};
  req->wait = (struct gpu_wait){.cb = on_list, .data = req};
  int rc = gpus_wait(req->gpus, &req->wait, err);
  if (rc < 0) free(req);
  return rc;
}

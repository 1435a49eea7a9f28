/* What a tenant may create.
 *
 * Images are a registry's, or the machine's own where the operator allows it; a directory of the
 * machine is never one, and an image of a sandbox is its tenant's. A volume is a name that the
 * operator gave: what it stands for is filled in here and shown to nobody. The tier bounds
 * processors and memory: what was not asked for is the smaller of its envelope and the machine,
 * what is beyond the envelope is a wrong argument, and what is within it and beyond the machine is
 * a lack of capacity. */
#include "api/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/val.h"
#include "wire/op.h"
#include "wire/tier.h"

static int denied(struct err *err, const char *field, const char *text, const char *hint)
{
  int rc = err_set(err, ERR_DENIED, 0, "%s", text);
  if (err) snprintf(err->field, sizeof err->field, "%s", field);
  if (hint) err_hint(err, "%s", hint);
  return rc;
}

/* ---- volumes ---- */

int policy_check_volume(const char *entry, struct err *err)
{
  const char *eq = strchr(entry, '=');
  if (eq && eq > entry && eq[1] == '/') return 0;
  int rc = err_arg(err, "--volume", "--volume: \"%.200s\" names no directory", entry);
  err_hint(err, "write --volume NAME=/DIR, or NAME=/DIR:ro for reading only");
  return rc;
}

static int take_volume(const struct policy *p, struct volume_spec *v, struct err *err)
{
  const char *dir = p->volumes ? strv_map_get(p->volumes, v->source) : NULL;
  char text[200];
  snprintf(text, sizeof text, "there is no volume \"%.64s\" here", v->source);
  if (!dir) return denied(err, "volumes", text, "volumes have names that the operator gives");
  size_t len = strlen(dir);
  bool readonly = len > 3 && strcmp(dir + len - 3, ":ro") == 0;
  free(v->path);
  v->path = strndup(dir, readonly ? len - 3 : len);
  v->readonly = v->readonly || readonly;
  return 0;
}

/* ---- images ---- */

/* A digest names an image whoever made it: it is its maker's alone. */
static int check_image(const struct policy *p, const struct create_args *a, struct err *err)
{
  const char *image = a->image;
  if (a->image_made) return 0;
  if (strncmp(image, "sha256:", 7) == 0)
    return err_set(err, ERR_IMAGE_NOT_FOUND, 0, "there is no image %.80s", image);
  static const char hint[] = "name an image of a registry, such as python:3.11";
  if (strncmp(image, "dir:", 4) == 0)
    return denied(err, "image", "a directory of this machine is no image here", hint);
  if (strcmp(image, "host") == 0 && !p->host_image)
    return denied(err, "image", "image = \"host\" is not offered here", hint);
  return 0;
}

/* ---- the tier ---- */

struct bound {
  const char *field;
  uint32_t *value;            /* as asked, or the default */
  uint32_t envelope, machine; /* machine 0 = unknown */
  double unit;                /* of the value, for messages */
};

static int bound(const struct bound *b, const struct val *asked, const char *tier, struct err *err)
{
  uint32_t least = b->machine && b->machine < b->envelope ? b->machine : b->envelope;
  const struct val *said = val_get(asked, b->field);
  if (!said || said->type == VAL_NIL) *b->value = least;
  if (*b->value > b->envelope)
    return err_arg(err, b->field, "%s is more than tier %s has: %g at most", b->field, tier,
                   b->envelope / b->unit);
  if (*b->value <= least) return 0;
  int rc = err_set(err, ERR_CAPACITY, 0, "%s is more than this machine has: %g at most", b->field,
                   least / b->unit);
  if (err) snprintf(err->field, sizeof err->field, "%s", b->field);
  return rc;
}

static int take_tier(const struct policy *p, const struct val *asked, struct create_args *a,
                     struct err *err)
{
  const struct tier *tier = tier_cpu();
  unsigned units = 1;
  int rc = a->gpu.n > 0 ? tier_parse_gpu(a->gpu.v[0], "gpu", &tier, &units, err) : 0;
  bool here = strcmp(a->engine, "local") == 0;
  struct bound cpu = {"cpu", &a->cpu_milli, tier->cpu_milli * units,
                      here ? p->machine_cpu_milli : 0, 1000};
  struct bound memory = {"memory", &a->mem_mib, tier->mem_mib * units,
                         here ? p->machine_mem_mib : 0, 1};
  if (rc == 0) rc = bound(&cpu, asked, tier->name, err);
  if (rc == 0) rc = bound(&memory, asked, tier->name, err);
  return rc;
}

int policy_admit(void *policy, const struct val *asked, struct create_args *args, struct err *err)
{
  const struct policy *p = policy;
  int rc = check_image(p, args, err);
  for (size_t i = 0; i < args->volumes_n && rc == 0; i++)
    rc = take_volume(p, &args->volumes[i], err);
  if (rc == 0) rc = take_tier(p, asked, args, err);
  return rc;
}

/* Names are everybody's: one tenant's would be another's image. */
int policy_admit_name(void *policy, const char *name, struct err *err)
{
  (void)policy;
  (void)name;
  return denied(err, "name", "images of sandboxes have no names here",
                "leave name out; the answer's image is for creates with the same key");
}

/* Finds the GPUs of this machine: from specifications of the container device interface (CDI),
 * which say what a container needs of each device, and from the driver's management library (NVML),
 * which says what each card is. Runs in a process of its own that ends when it has answered: a
 * driver's library opens devices, starts threads, and may hang.
 *
 * A card is a device of a CDI kind "VENDOR/gpu" whose own nodes are no others' nodes and more:
 * "all" and the second name of a card are thus seen through. Which card it is, is told by NVML (by
 * the number in /dev/nvidiaN, or the UUID that is its name), by the driver's files in /proc, or by
 * the annotation "regolith/product" of the device; unnamed ones go by their CDI name. A card that
 * only NVML knows has the nodes that NVIDIA's driver is known to need, and no driver files.
 *
 * Hooks are programs that a container engine runs as root. None is run here: symbolic links are
 * made by us, folders of libraries become LD_LIBRARY_PATH, hooks that change what sandboxes do not
 * have anyway are left out, and any other makes the card unusable, by name. */
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "engine/local/gpu.h"
#include "wire/op.h"
#include "wire/tier.h"

#define SPEC_MAX    (4u << 20)
#define DEVICES_MAX 512
#define MESSAGE_MAX (192u * 1024)

/* One device of a CDI specification. */
struct device {
  struct val spec; /* owned: all of the file; shared by copies */
  const struct val *self;
  char name[GPU_NAME_SIZE]; /* vendor/gpu=0 */
  struct strv own;          /* its own nodes, on the host */
  bool card;
};

static struct found {
  int sock;
  struct device device[DEVICES_MAX];
  size_t n;
  struct val notes;
} found;

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
  char text[400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  val_push(&found.notes, val_str(text));
}

/* --- names ------------------------------------------------------------------------------------ */

/* A product is of a tier when one of its words is the tier's name: "NVIDIA A100-SXM4-40GB". Slices
 * of cards ("GRID A100-10C", "... MIG 1g.5gb") are not. */
void gpu_name(const char *product, char ret[GPU_NAME_SIZE])
{
  static const char between[] = " -_/,";
  snprintf(ret, GPU_NAME_SIZE, "%s", product);
  if (strncasecmp(product, "GRID ", 5) == 0 || strstr(product, " MIG")) return;
  for (const char *word = product; *word;) {
    word += strspn(word, between);
    size_t len = strcspn(word, between);
    for (size_t i = 1; i < tier_count(); i++) {
      const char *name = tier_at(i)->name;
      if (strlen(name) != len || strncasecmp(name, word, len) != 0) continue;
      snprintf(ret, GPU_NAME_SIZE, "%s", name);
      return;
    }
    word += len;
  }
}

/* --- NVML ------------------------------------------------------------------------------------- */

#define NVML_CARDS 64

static struct nvml {
  size_t n;
  struct {
    char product[GPU_NAME_SIZE], uuid[GPU_NAME_SIZE];
    unsigned minor;
    bool used; /* a CDI device is this card */
  } card[NVML_CARDS];
} nvml;

struct nvml_api {
  int (*init)(void);
  int (*shutdown)(void);
  int (*count)(unsigned *n);
  int (*handle)(unsigned i, void **ret);
  int (*name)(void *device, char *out, unsigned size);
  int (*uuid)(void *device, char *out, unsigned size);
  int (*number)(void *device, unsigned *ret);
};

static bool load_nvml(void *so, struct nvml_api *api)
{
  const struct {
    const char *name;
    void *slot;
  } symbols[] = {{"nvmlInit_v2", &api->init},
                 {"nvmlShutdown", &api->shutdown},
                 {"nvmlDeviceGetCount_v2", &api->count},
                 {"nvmlDeviceGetHandleByIndex_v2", &api->handle},
                 {"nvmlDeviceGetName", &api->name},
                 {"nvmlDeviceGetUUID", &api->uuid},
                 {"nvmlDeviceGetMinorNumber", &api->number}};
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
    void *f = dlsym(so, symbols[i].name);
    if (!f) return false;
    memcpy(symbols[i].slot, &f, sizeof f);
  }
  return true;
}

static void ask_nvml(const struct nvml_api *api)
{
  unsigned n = 0;
  if (api->count(&n) != 0) return;
  for (unsigned i = 0; i < n && nvml.n < NVML_CARDS; i++) {
    void *device;
    unsigned size = GPU_NAME_SIZE;
    if (api->handle(i, &device) != 0 || api->name(device, nvml.card[nvml.n].product, size) != 0 ||
        api->uuid(device, nvml.card[nvml.n].uuid, size) != 0 ||
        api->number(device, &nvml.card[nvml.n].minor) != 0)
      continue;
    nvml.n++;
  }
}

static void find_nvml(const char *library)
{
  struct nvml_api api;
  void *so = *library ? dlopen(library, RTLD_NOW | RTLD_LOCAL) : NULL;
  if (!so) return;
  int rc = load_nvml(so, &api) ? api.init() : -1;
  if (rc != 0) {
    note("%s says %d: the driver is not there, or not this library's", library, rc);
    return;
  }
  ask_nvml(&api);
  api.shutdown();
}

/* --- CDI specifications ----------------------------------------------------------------------- */

static const struct val *list_at(const struct val *map, const char *key)
{
  static const struct val none = {.type = VAL_LIST};
  const struct val *v = map ? val_get(map, key) : NULL;
  return v && v->type == VAL_LIST ? v : &none;
}

/* Where a node lies on the host. */
static const char *node_path(const struct val *node)
{
  const char *host = val_get_str(node, "hostPath", "");
  return *host ? host : val_get_str(node, "path", "");
}

static const struct val *edits_of(const struct val *v)
{
  return val_get(v, "containerEdits");
}

static struct device *find_device(const char *name)
{
  for (size_t i = 0; i < found.n; i++)
    if (strcmp(found.device[i].name, name) == 0) return &found.device[i];
  return NULL;
}

static void free_device(struct device *d)
{
  val_free(&d->spec);
  strv_free(&d->own);
}

/* A later folder's specification replaces an earlier one's device of the same name. */
static void add_device(const struct val *spec, size_t at, const char *kind)
{
  char name[GPU_NAME_SIZE];
  const char *bare = val_get_str(&list_at(spec, "devices")->list.v[at], "name", "");
  if (!*bare || (size_t)snprintf(name, sizeof name, "%s=%s", kind, bare) >= sizeof name) return;
  struct device *d = find_device(name);
  if (d) {
    free_device(d);
  } else if (found.n == DEVICES_MAX) {
    note("more than %d devices: %s is left out", DEVICES_MAX, name);
    return;
  } else {
    d = &found.device[found.n++];
  }
  *d = (struct device){.spec = val_copy(spec)};
  d->self = &list_at(&d->spec, "devices")->list.v[at];
  snprintf(d->name, sizeof d->name, "%s", name);
  const struct val *nodes = list_at(edits_of(d->self), "deviceNodes");
  for (size_t i = 0; i < nodes->list.n; i++)
    if (*node_path(&nodes->list.v[i])) strv_add(&d->own, node_path(&nodes->list.v[i]));
}

static void read_spec(const char *path)
{
  struct stat st;
  struct err err = {0};
  struct val spec = {0};
  cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > SPEC_MAX) {
    note("%s: cannot be read, or is no file of at most %u MiB", path, SPEC_MAX >> 20);
    return;
  }
  cleanup_free char *text = xmalloc((size_t)st.st_size + 1);
  ssize_t n = read(fd, text, (size_t)st.st_size);
  const char *kind = "", *class = NULL;
  if (n < 0 || json_parse(&spec, text, (size_t)n, &err) < 0)
    note("%s: %s", path, n < 0 ? strerror(errno) : err.msg);
  else
    kind = val_get_str(&spec, "kind", "");
  class = strrchr(kind, '/');
  if (class && strcmp(class, "/gpu") == 0)
    for (size_t i = 0; i < list_at(&spec, "devices")->list.n; i++) add_device(&spec, i, kind);
  val_free(&spec);
}

static void read_folder(const char *folder)
{
  static const char *const unread[] = {"yaml", "yml"};
  char pattern[1024];
  glob_t g;
  snprintf(pattern, sizeof pattern, "%s/*.json", folder);
  if (glob(pattern, 0, NULL, &g) == 0) {
    for (size_t i = 0; i < g.gl_pathc; i++) read_spec(g.gl_pathv[i]);
    globfree(&g);
  }
  for (size_t k = 0; k < 2; k++) {
    snprintf(pattern, sizeof pattern, "%s/*.%s", folder, unread[k]);
    if (glob(pattern, 0, NULL, &g) != 0) continue;
    note("%s is not read: only JSON is (nvidia-ctk cdi generate --format=json)", g.gl_pathv[0]);
    globfree(&g);
  }
}

static void read_folders(char *folders)
{
  char *save = NULL;
  for (char *f = strtok_r(folders, ":", &save); f; f = strtok_r(NULL, ":", &save)) read_folder(f);
}

/* --- which devices are cards ------------------------------------------------------------------ */

static bool has_node(const struct device *d, const char *path)
{
  for (size_t i = 0; i < d->own.n; i++)
    if (strcmp(d->own.v[i], path) == 0) return true;
  return false;
}

/* Are all nodes of a also nodes of b? */
static bool within(const struct device *a, const struct device *b)
{
  for (size_t i = 0; i < a->own.n; i++)
    if (!has_node(b, a->own.v[i])) return false;
  return true;
}

static bool is_all(const struct device *d)
{
  return strcmp(strchr(d->name, '=') + 1, "all") == 0;
}

/* Of two names of one card the first that is not "all". */
static bool gives_way(const struct device *d, const struct device *other)
{
  if (!within(other, d)) return false;
  if (!within(d, other)) return true; /* it is the other and more */
  return is_all(d) != is_all(other) ? is_all(d) : other < d;
}

static void choose_cards(void)
{
  for (size_t i = 0; i < found.n; i++) {
    struct device *d = &found.device[i];
    d->card = d->own.n > 0;
    for (size_t k = 0; k < found.n && d->card; k++)
      if (k != i && found.device[k].own.n > 0 && gives_way(d, &found.device[k])) d->card = false;
  }
}

/* --- what a card is --------------------------------------------------------------------------- */

static bool minor_of(const struct device *d, unsigned *ret)
{
  for (size_t i = 0; i < d->own.n; i++) {
    int end = 0;
    const char *base = strrchr(d->own.v[i], '/');
    if (base && sscanf(base, "/nvidia%u%n", ret, &end) == 1 && !base[end]) return true;
  }
  return false;
}

/* "Model: Tesla T4" of the card with "Device Minor: 0". */
static bool ask_driver(unsigned minor, char product[GPU_NAME_SIZE])
{
  glob_t g;
  bool mine = false;
  if (glob("/proc/driver/nvidia/gpus/*/information", 0, NULL, &g) != 0) return false;
  for (size_t i = 0; i < g.gl_pathc && !mine; i++) {
    char line[256];
    unsigned number;
    FILE *f = fopen(g.gl_pathv[i], "re");
    while (f && fgets(line, sizeof line, f)) {
      if (sscanf(line, "Model: %95[^\n]", product) == 1) continue;
      if (sscanf(line, "Device Minor: %u", &number) == 1) mine = number == minor;
    }
    if (f) fclose(f);
  }
  globfree(&g);
  return mine;
}

static void identify(const struct device *d, char product[GPU_NAME_SIZE], char id[GPU_NAME_SIZE])
{
  unsigned minor = 0;
  bool numbered = minor_of(d, &minor), known = false;
  const char *bare = strchr(d->name, '=') + 1;
  snprintf(id, GPU_NAME_SIZE, "%s", d->name);
  for (size_t i = 0; i < nvml.n && !known; i++) {
    known = strcmp(nvml.card[i].uuid, bare) == 0 || (numbered && nvml.card[i].minor == minor);
    if (!known) continue;
    snprintf(product, GPU_NAME_SIZE, "%s", nvml.card[i].product);
    nvml.card[i].used = true;
    if (d->own.n > 0 && !strchr(bare, ':')) snprintf(id, GPU_NAME_SIZE, "%s", nvml.card[i].uuid);
  }
  const char *said = val_get_str(val_get(d->self, "annotations"), "regolith/product", "");
  if (*said)
    snprintf(product, GPU_NAME_SIZE, "%s", said);
  else if (!known && !(numbered && ask_driver(minor, product)))
    snprintf(product, GPU_NAME_SIZE, "%s", d->name);
  size_t len = strlen(product);
  if (strchr(bare, ':') && len + 5 < GPU_NAME_SIZE)
    strcpy(product + len, " MIG"); /* a slice of it */
}

/* --- what a card needs ------------------------------------------------------------------------ */

struct needs {
  struct val nodes, files, links, env;
  char folders[1024]; /* LD_LIBRARY_PATH */
  char why[200];
};

static void unusable(struct needs *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void unusable(struct needs *n, const char *fmt, ...)
{
  if (n->why[0]) return;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(n->why, sizeof n->why, fmt, ap);
  va_end(ap);
}

static bool is_there(const struct val *list, const char *key, const char *text)
{
  for (size_t i = 0; i < list->list.n; i++)
    if (strcmp(val_get_str(&list->list.v[i], key, ""), text) == 0) return true;
  return false;
}

static void need_node(struct needs *n, const char *host, const char *target, int64_t mode)
{
  struct stat st;
  if (is_there(&n->nodes, "target", target)) return;
  if (strncmp(target, "/dev/", 5) != 0 || strstr(target, "..")) {
    unusable(n, "its node %.120s is not below /dev", target);
    return;
  }
  if (stat(host, &st) < 0 || !S_ISCHR(st.st_mode)) {
    unusable(n, "its node %.120s is not there, or no character device", host);
    return;
  }
  struct val v = val_map();
  val_add(&v, "path", val_str(host));
  val_add(&v, "target", val_str(target));
  val_add(&v, "major", val_int(major(st.st_rdev)));
  val_add(&v, "minor", val_int(minor(st.st_rdev)));
  val_add(&v, "mode", val_int(mode));
  val_push(&n->nodes, v);
}

/* Sockets lead to daemons of the host: they stay outside, and a note says so. */
static void need_file(struct needs *n, const struct val *mount, const char *card)
{
  struct stat st;
  const char *path = val_get_str(mount, "hostPath", ""),
             *target = val_get_str(mount, "containerPath", "");
  if (is_there(&n->files, "target", target)) return;
  if (*path != '/' || *target != '/' || strstr(target, "/../")) {
    unusable(n, "its specification mounts \"%.60s\" at \"%.60s\"", path, target);
  } else if (stat(path, &st) < 0) {
    unusable(n, "its file %.120s is not there", path);
  } else if (S_ISSOCK(st.st_mode)) {
    note("%s: the socket %s leads to a service of the host and stays outside", card, path);
  } else {
    struct val v = val_map();
    val_add(&v, "path", val_str(path));
    val_add(&v, "target", val_str(target));
    val_push(&n->files, v);
  }
}

static void need_link(struct needs *n, const char *text)
{
  const char *sep = strstr(text, "::");
  if (!sep || sep[2] != '/' || strstr(sep, "/../")) {
    unusable(n, "its specification makes the link \"%.100s\"", text);
    return;
  }
  if (is_there(&n->links, "target", sep + 2)) return;
  cleanup_free char *path = strndup(text, (size_t)(sep - text));
  struct val v = val_map();
  val_add(&v, "path", val_str(path));
  val_add(&v, "target", val_str(sep + 2));
  val_push(&n->links, v);
}

static void need_folder(struct needs *n, const char *folder)
{
  size_t len = strlen(n->folders);
  if (strstr(n->folders, folder)) return;
  if (len + strlen(folder) + 2 > sizeof n->folders)
    unusable(n, "its specification names too many folders of libraries");
  else
    sprintf(n->folders + len, "%s%s", len ? ":" : "", folder);
}

/* The name of what nvidia-ctk would do: "nvidia-cdi-hook update-ldcache --folder DIR", or
 * "nvidia-ctk hook update-ldcache". */
static void need_hook(struct needs *n, const struct val *hook)
{
  static const char *const harmless[] = {
      "chmod",              /* of nodes: they have the modes that the specification says */
      "enable-cuda-compat", /* newer libraries of the image over older ones of the driver */
      "disable-device-node-modification", /* nobody inside can make nodes */
  };
  const struct val *args = list_at(hook, "args");
  const char *what = "", *option = NULL;
  for (size_t i = 1; i < args->list.n; i++) {
    const struct val *a = &args->list.v[i];
    const char *text = a->type == VAL_STR ? a->s.p : "";
    bool equals = strncmp(text, "--link=", 7) == 0 || strncmp(text, "--folder=", 9) == 0;
    if (option || equals) {
      bool link = strncmp(option ? option : text, "--link", 6) == 0;
      const char *value = option ? text : strchr(text, '=') + 1;
      if (link)
        need_link(n, value);
      else
        need_folder(n, value);
      option = NULL;
    } else if (strcmp(text, "--link") == 0 || strcmp(text, "--folder") == 0) {
      option = text;
    } else if (!*what && *text != '-' && strcmp(text, "hook") != 0) {
      what = text;
    }
  }
  if (strcmp(what, "create-symlinks") == 0 || strcmp(what, "update-ldcache") == 0) return;
  for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
    if (strcmp(what, harmless[i]) == 0) return;
  unusable(n, "its specification runs a hook that regolith does not know: %.60s %.60s",
           val_get_str(hook, "path", ""), what);
}

static void need_edits(struct needs *n, const struct val *edits, const char *card)
{
  const struct val *list = list_at(edits, "deviceNodes");
  for (size_t i = 0; i < list->list.n; i++) {
    const struct val *v = &list->list.v[i];
    need_node(n, node_path(v), val_get_str(v, "path", ""), val_get_int(v, "fileMode", 0666));
  }
  list = list_at(edits, "mounts");
  for (size_t i = 0; i < list->list.n; i++) need_file(n, &list->list.v[i], card);
  list = list_at(edits, "hooks");
  for (size_t i = 0; i < list->list.n; i++) need_hook(n, &list->list.v[i]);
  list = list_at(edits, "env");
  for (size_t i = 0; i < list->list.n; i++)
    if (list->list.v[i].type == VAL_STR) val_push(&n->env, val_copy(&list->list.v[i]));
  static const char *const others[] = {"intelRdt", "netDevices"};
  for (size_t i = 0; edits && i < 2; i++)
    if (val_get(edits, others[i])) unusable(n, "its specification wants %s", others[i]);
}

/* --- answers ---------------------------------------------------------------------------------- */

static bool say(const struct val *v)
{
  struct buf text = {0};
  json_print(&text, v);
  struct proto_piece piece = {text.data, text.len};
  bool ok = text.len <= MESSAGE_MAX && proto_send(found.sock, &piece, 1, NULL, 0) == 0;
  buf_free(&text);
  return ok;
}

static void tell_card(const char *product, const char *id, struct needs *n, bool driver)
{
  char name[GPU_NAME_SIZE];
  gpu_name(product, name);
  if (n->folders[0]) {
    struct buf env = {0};
    buf_printf(&env, "LD_LIBRARY_PATH=%s", n->folders);
    val_push(&n->env, val_str(env.data));
    buf_free(&env);
  }
  if (n->nodes.list.n > PROTO_DEVICES_MAX / PROTO_CARDS_MAX * 4)
    unusable(n, "its specification has %zu nodes", n->nodes.list.n);
  struct val v = val_map();
  val_add(&v, "name", val_str(name));
  val_add(&v, "product", val_str(product));
  val_add(&v, "id", val_str(id));
  val_add(&v, "why", val_str(n->why));
  val_add(&v, "driver", val_bool(driver));
  val_add(&v, "nodes", n->nodes);
  val_add(&v, "files", n->files);
  val_add(&v, "links", n->links);
  val_add(&v, "env", n->env);
  if (!say(&v)) note("%s: its specification is too long", id);
  val_free(&v);
}

static struct needs no_needs(void)
{
  return (struct needs){
      .nodes = val_list(), .files = val_list(), .links = val_list(), .env = val_list()};
}

static void tell_devices(void)
{
  for (size_t i = 0; i < found.n; i++) {
    const struct device *d = &found.device[i];
    char product[GPU_NAME_SIZE], id[GPU_NAME_SIZE];
    if (!d->card) continue;
    identify(d, product, id);
    struct needs n = no_needs();
    need_edits(&n, edits_of(d->self), d->name);
    need_edits(&n, edits_of(&d->spec), d->name);
    tell_card(product, id, &n, true);
  }
}

/* Cards without a specification: the nodes are known, the files are not. */
static void tell_bare_cards(void)
{
  static const char *const shared[] = {"/dev/nvidiactl", "/dev/nvidia-uvm",
                                       "/dev/nvidia-uvm-tools"};
  for (size_t i = 0; i < nvml.n; i++) {
    char path[32];
    if (nvml.card[i].used) continue;
    struct needs n = no_needs();
    snprintf(path, sizeof path, "/dev/nvidia%u", nvml.card[i].minor);
    need_node(&n, path, path, 0666);
    for (size_t k = 0; k < sizeof shared / sizeof *shared; k++)
      if (access(shared[k], F_OK) == 0) need_node(&n, shared[k], shared[k], 0666);
    tell_card(nvml.card[i].product, nvml.card[i].uuid, &n, false);
  }
}

int gpu_helper_main(int sock)
{
  static char request[8192];
  struct val ask = {0};
  int fds[PROTO_FDS_MAX];
  size_t fds_n = 0;
  found.sock = sock;
  found.notes = val_list();
  ssize_t n = proto_recv(sock, request, sizeof request, fds, &fds_n, true);
  if (n <= 0 || json_parse(&ask, request, (size_t)n, NULL) < 0) return 1;
  find_nvml(val_get_str(&ask, "nvml", ""));
  cleanup_free char *folders = xstrdup(val_get_str(&ask, "cdi", ""));
  read_folders(folders);
  choose_cards();
  tell_devices();
  tell_bare_cards();
  struct val end = val_map();
  val_add(&end, "end", val_bool(true));
  val_add(&end, "notes", found.notes);
  bool ok = say(&end);
  val_free(&end);
  val_free(&ask);
  for (size_t i = 0; i < found.n; i++) free_device(&found.device[i]);
  return ok ? 0 : 1;
}

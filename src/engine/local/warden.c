/* The warden: makes boxes, and is the janitor.
 *
 * It is a small process, forked before the host loads anything, that does all that needs privilege
 * or a cheap clone: user ids, control groups, mounts, namespaces, and the clone that becomes a
 * box's agent. It never waits for a box: an agent moves in by itself and tells the host when it is
 * ready. Per box it keeps a record and no descriptor.
 *
 * When its socket ends, however the host ended, it kills every box, removes their groups, gives
 * back ids, and exits. Scratch space needs no removal: it goes with the box's mount namespace. If
 * the warden itself dies, the kernel ends the boxes (each agent's parent-death signal); their
 * groups are then empty and the next warden sweeps them.
 *
 * A box: made → (agent ends) → dead: reported → its groups removed → forgotten */
#include "engine/local/warden.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/idmap.h"
#include "base/list.h"
#include "engine/local/agent.h"
#include "engine/local/cgroup.h"
#include "engine/local/ids.h"
#include "engine/local/proto.h"
#include "engine/local/rootfs.h"
#include "engine/local/tap.h"

#define SWEEP_AFTER_MS 50
#define REST_MS        2
#define REMOVE_POLL_MS 5
#define LEAVING_MANY   64
#define SLOTS_MAX      8
#define SLOTS_PER_CPU  4
#define SLOTS_REST_MS  1000
#define PER_CREATE     2 /* groups removed by a create, where there are many: more than it makes */
#define CLOSE_WAIT_MS  2000
#define CARD_TRIES     100
#define CARD_WAIT_US   200

struct wbox {
  struct list node;
  uint64_t box;
  pid_t pid;    /* the agent; 0 = reaped */
  bool silent;  /* its making failed: the host knows, and hears no more of it */
  bool blank;   /* nobody's yet: a slot */
  bool dressed; /* it has been told what it is made of: for image host, and plain */
  struct ids_block ids;
  char name[32]; /* of its control group */
  /* Until GO, then closed. */
  int sync, pidfd; /* -1 = none */
  struct cgroup_entry entry;
  int cards[PROTO_CARDS_MAX]; /* locks of GPUs, until its last process is dead */
  size_t cards_n;
};

static struct warden {
  int host;    /* socket */
  int signals; /* signalfd: SIGCHLD */
  struct ids ids;
  struct cgroups *cg;
  struct list living;  /* struct wbox.node, owned: an agent is in it, or dying */
  struct list leaving; /* likewise: its agent is reaped, its groups are still there */
  size_t leaving_n;
  struct idmap by_pid;           /* the living */
  struct idmap by_box;           /* the living that the host knows */
  uint64_t made;                 /* boxes, slots included: numbers their groups */
  uint64_t creates;              /* asked for */
  struct wbox *slots[SLOTS_MAX]; /* blank boxes, the oldest first */
  size_t slots_n;
  size_t ahead, ahead_max; /* how many slots there should be, and at most */
  bool plain;              /* so was the last create: dressed slots are for these */
  unsigned refusals;       /* slots that could not be made since the last create that worked */
  bool busy;               /* the last removal found a process still dying */
  bool swept;
  /* Of the create that is about to come (extras_of), owned. */
  uint64_t extras_of;
  struct proto_volume *volumes;
  size_t volumes_n;
  struct proto_device *devices;
  size_t devices_n;
  int cards[PROTO_CARDS_MAX];
  size_t cards_n;
} warden;

static void tell(const void *msg, size_t len, int fd)
{
  /* A host that is gone is noticed by the loop. */
  proto_send_one(warden.host, msg, len, fd);
}

/* --- ends ------------------------------------------------------------------------------------- */

/* What is needed only until the agent goes. */
static void drop_boot(struct wbox *b)
{
  if (b->sync >= 0) {
    close(b->sync);
    cgroup_entry_done(&b->entry);
  }
  if (b->pidfd >= 0) close(b->pidfd);
  b->sync = b->pidfd = -1;
}

static void forget(struct wbox *b)
{
  drop_boot(b);
  list_remove(&b->node);
  ids_give(&warden.ids, &b->ids);
  free(b);
}

static void remove_groups(struct wbox *b)
{
  warden.busy = cgroup_box_remove(warden.cg, b->name) == -EBUSY;
  if (warden.busy) {
    list_remove(&b->node); /* the others first */
    list_append(&warden.leaving, &b->node);
    return;
  }
  warden.leaving_n--;
  forget(b);
}

static void free_cards(int *cards, size_t *n)
{
  while (*n > 0) close(cards[--*n]);
}

/* Whoever is told of the end may want the card at once: but an agent that was cloned a moment ago
 * still has a copy of its lock, until it first runs. */
static void give_back_cards(struct wbox *b)
{
  while (b->cards_n > 0) {
    struct sockaddr_un name;
    socklen_t len = sizeof name;
    int fd = b->cards[--b->cards_n];
    bool named = getsockname(fd, (struct sockaddr *)&name, &len) == 0;
    close(fd);
    for (int i = 0; named && i < CARD_TRIES; i++) {
      cleanup_close int again = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
      if (again < 0 || bind(again, (struct sockaddr *)&name, len) == 0) break;
      usleep(CARD_WAIT_US);
    }
  }
}

static void remove_slot(const struct wbox *b)
{
  size_t i = 0;
  while (i < warden.slots_n && warden.slots[i] != b) i++;
  if (i == warden.slots_n) return;
  warden.slots_n--;
  memmove(&warden.slots[i], &warden.slots[i + 1], (warden.slots_n - i) * sizeof b);
}

static void on_agent_end(struct wbox *b)
{
  give_back_cards(b);
  struct proto_box ended = {.type = PROTO_ENDED, .box = b->box};
  ended.oom = cgroup_box_oom_kills(warden.cg, b->name) > 0;
  b->pid = 0;
  idmap_remove(&warden.by_box, b->box);
  remove_slot(b);
  if (!b->silent && !b->blank) tell(&ended, sizeof ended, -1);
  drop_boot(b);
  list_remove(&b->node);
  list_append(&warden.leaving, &b->node);
  warden.leaving_n++;
}

static void reap(void)
{
  struct signalfd_siginfo info;
  while (read(warden.signals, &info, sizeof info) > 0) continue;
  for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0;) {
    struct wbox *b = idmap_remove(&warden.by_pid, (uint64_t)pid);
    if (b) on_agent_end(b);
  }
}

/* Does anyone wait for an answer? */
static bool is_wanted(void)
{
  struct pollfd p[2] = {{.fd = warden.host, .events = POLLIN},
                        {.fd = warden.signals, .events = POLLIN}};
  return poll(p, 2, 0) > 0;
}

static void remove_some(size_t most)
{
  for (size_t n = warden.leaving_n < most ? warden.leaving_n : most; n > 0; n--)
    remove_groups(list_entry(warden.leaving.next, struct wbox, node));
}

static void remove_while_idle(void)
{
  bool busy = false;
  for (size_t n = warden.leaving_n; n > 0 && !is_wanted(); n--) {
    remove_some(1);
    busy |= warden.busy;
  }
  warden.busy = busy;
}

static void on_kill(const struct proto_box *req)
{
  struct wbox *b = idmap_get(&warden.by_box, req->box);
  if (b) kill(b->pid, SIGKILL);
}

/* --- making one ------------------------------------------------------------------------------- */

static int limit_groups(const struct proto_create *req, const struct wbox *b, struct err *err)
{
  struct cgroup_limits limits = {.cpu_milli = req->cpu_milli,
                                 .mem_bytes = req->mem_bytes + req->disk_bytes,
                                 .pids = req->pids};
  return cgroup_box_limit(warden.cg, b->name, &limits, err);
}

/* The clone is made under the agent's id: that is the id it keeps, and the owner of its user
 * namespace. */
static pid_t clone_agent(const struct wbox *b, struct agent_boot *boot, int into_fd, int *ret_pidfd)
{
  struct clone_args args = {
      .flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_PIDFD, /* the rest: be_blank */
      .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
      .exit_signal = SIGCHLD,
  };
  boot->into = into_fd >= 0 && (cgroup_info(warden.cg)->caps & CGROUP_CAP_INTO) != 0;
  if (boot->into) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = (uint64_t)into_fd;
  }
  int rc = ids_become(&warden.ids, b->ids.agent);
  if (rc < 0) {
    errno = -rc;
    return -1;
  }
  /* A change of ids takes this away, and with it a user's right to write the clone's maps. */
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
  if (pid == 0) agent_main(boot);
  int e = errno;
  if (ids_become(&warden.ids, 0) < 0) _exit(1); /* cannot be: it holds the capability */
  errno = e;
  return pid;
}

static int no_clone(struct err *err, int e)
{
  if (e == EAGAIN || e == ENOSPC || e == ENOMEM)
    return err_set(err, ERR_CAPACITY, e, "this machine has no room for another sandbox: %s",
                   strerror(e));
  int rc = err_set(err, ERR_ENGINE_UNAVAILABLE, e, "cannot make namespaces: %s", strerror(e));
  err_hint(err, "run \"regolith doctor\": it names what forbids them");
  return rc;
}

static struct proto_dress dress_message(const struct proto_create *req, const struct wbox *b)
{
  return (struct proto_dress){.type = PROTO_DRESS,
                              .image = req->image,
                              .disk_bytes = req->disk_bytes,
                              .inodes = req->inodes,
                              .mapped = b->ids.mapped,
                              .volumes_n = req->volumes_n};
}

/* Where no group counts, limits per process must do. */
static struct proto_go go_message(const struct proto_create *req)
{
  unsigned caps = cgroup_info(warden.cg)->caps;
  struct proto_go go = {.type = PROTO_GO,
                        .disk_bytes = req->disk_bytes,
                        .inodes = req->inodes,
                        .network = req->network,
                        .nproc = caps & CGROUP_CAP_PIDS ? 0 : req->pids,
                        .as_bytes = caps & CGROUP_CAP_MEMORY ? 0 : req->mem_bytes};
  memcpy(go.sandbox_id, req->sandbox_id, sizeof go.sandbox_id);
  return go;
}

/* Descriptors that go with a message. */
struct parcel {
  int fds[PROTO_FDS_MAX];
  size_t n;
};

static uint8_t add_fd(struct parcel *p, int fd)
{
  if (fd < 0) return 0;
  p->fds[p->n++] = fd;
  return 1;
}

static int open_userns(const struct wbox *b)
{
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/user", (int)b->pid);
  return open(path, O_RDONLY | O_CLOEXEC);
}

static int pack_mounts(struct parcel *p, struct proto_dress *dress, const struct proto_create *req,
                       const struct wbox *b, int *ret_upper, struct err *err)
{
  cleanup_close int userns = req->image == IMAGE_HOST ? -1 : open_userns(b);
  size_t n = 0;
  int rc = rootfs_make(req, &warden.ids, &b->ids, userns, p->fds, &n, ret_upper, err);
  p->n = n;
  dress->mounts_n = (uint32_t)n;
  if (rc < 0 || req->devices_n == 0) return rc;
  int dev = rootfs_dev(warden.devices, warden.devices_n, &warden.ids, &b->ids, err);
  dress->has_dev = add_fd(p, dev);
  return dev < 0 ? dev : 0;
}

/* Makes one that only waits to be told: the group it is born in, namespaces, ids. Its network
 * namespace, which takes longest, is then being made by the agent itself. */
static int make_blank(bool own_root, struct wbox *b, struct err *err)
{
  int sync[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sync) < 0)
    return err_set(err, ERR_CAPACITY, errno, "cannot make a socket pair: %s", strerror(errno));
  cleanup_close int ours = sync[0], theirs = sync[1];
  int rc = ids_take(&warden.ids, own_root, &b->ids, err);
  if (rc < 0) return rc;
  /* The agent works on files as root of the box (agent.c), and makes its leaves as that. */
  rc = cgroup_box_make(warden.cg, b->name, b->ids.first, b->ids.first, &b->entry, err);
  if (rc == 0) {
    struct agent_boot boot = {.sync_fd = theirs};
    b->pid = clone_agent(b, &boot, b->entry.into_fd, &b->pidfd);
    if (b->pid > 0) {
      idmap_set(&warden.by_pid, (uint64_t)b->pid, b);
      b->sync = take_fd(&ours);
      return ids_map(&warden.ids, &b->ids, b->pid, err);
    }
    rc = no_clone(err, errno);
    b->pid = 0;
    cgroup_entry_done(&b->entry);
    cgroup_box_remove(warden.cg, b->name);
  }
  ids_give(&warden.ids, &b->ids);
  return rc;
}

/* NULL: it could not be made; what there is of it goes away by itself. */
static struct wbox *new_blank(bool own_root, struct err *err)
{
  struct wbox *b = xcalloc(1, sizeof *b);
  b->sync = b->pidfd = -1;
  snprintf(b->name, sizeof b->name, "box-%llu", (unsigned long long)++warden.made);
  list_append(&warden.living, &b->node);
  int rc = make_blank(own_root, b, err);
  b->blank = rc == 0;
  if (rc == 0) return b;
  if (b->pid > 0) {
    b->silent = true;
    kill(b->pid, SIGKILL);
  } else {
    list_remove(&b->node);
    free(b);
  }
  return NULL;
}

/* What came ahead of a create. */
static void forget_extras(void)
{
  free(warden.volumes);
  free(warden.devices);
  warden.volumes = NULL;
  warden.devices = NULL;
  warden.volumes_n = warden.devices_n = 0;
  free_cards(warden.cards, &warden.cards_n);
}

/* Those of another box are of one whose create never came. */
static void begin_extras(uint64_t box)
{
  if (warden.extras_of != box) forget_extras();
  warden.extras_of = box;
}

/* The volumes of a box, as mounts. fds are the caller's, also on failure. */
static int make_volumes(const struct proto_create *req, const struct wbox *b,
                        int fds[PROTO_BINDS_MAX], struct err *err)
{
  for (size_t i = 0; i < warden.volumes_n; i++) fds[i] = -1;
  if (req->volumes_n != warden.volumes_n)
    return err_set(err, ERR_INTERNAL, EPROTO, "the volumes of a sandbox are lost");
  cleanup_close int userns = open_userns(b);
  for (size_t i = 0; i < warden.volumes_n; i++) {
    if (warden.volumes[i].kind == BIND_LINK) continue;
    fds[i] = rootfs_volume(&warden.volumes[i], &warden.ids, userns, err);
    if (fds[i] < 0) return fds[i];
  }
  return 0;
}

static int send_volumes(const struct wbox *b, size_t n, const int *fds)
{
  int rc = 0;
  for (size_t i = 0; i < n && rc == 0; i++) {
    const struct proto_volume *v = &warden.volumes[i];
    bool link = v->kind == BIND_LINK;
    size_t len = offsetof(struct proto_volume, target) + strlen(v->target) + 1;
    struct proto_piece piece = {v, link ? sizeof *v : len};
    rc = proto_send(b->sync, &piece, 1, &fds[i], link ? 0 : 1);
  }
  return rc;
}

/* The network namespace of a blank box, once it is there; -1 = it never will be. */
static int wait_netns(const struct wbox *b)
{
  struct proto_blank blank = {.type = PROTO_BLANK};
  struct stat own, its;
  char path[64];
  int fds[PROTO_FDS_MAX];
  size_t fds_n = 0;
  if (proto_send_one(b->sync, &blank, sizeof blank, -1) < 0) return -1;
  if (proto_recv(b->sync, &blank, sizeof blank, fds, &fds_n, true) != sizeof blank) return -1;
  for (size_t i = 0; i < fds_n; i++) close(fds[i]);
  snprintf(path, sizeof path, "/proc/%d/ns/net", (int)b->pid);
  cleanup_close int fd = blank.ok == 1 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  bool other = fd >= 0 && fstat(fd, &its) == 0 && stat("/proc/self/ns/net", &own) == 0 &&
               its.st_ino != own.st_ino;
  return other ? take_fd(&fd) : -1;
}

/* A box that has no namespace says why itself: there is then no tap, and no error here. */
static int make_tap(const struct proto_create *req, const struct wbox *b, int *ret_tap,
                    struct err *err)
{
  cleanup_close int netns = req->network ? wait_netns(b) : -1;
  return netns < 0 ? 0 : tap_make(netns, ret_tap, err);
}

static void tell_created(const struct wbox *b, int upper, int tap)
{
  struct proto_created created = {.type = PROTO_CREATED,
                                  .pid = b->pid,
                                  .box = b->box,
                                  .first = b->ids.first,
                                  .rest = b->ids.rest,
                                  .has_upper = upper >= 0,
                                  .has_tap = tap >= 0};
  struct proto_piece piece = {&created, sizeof created};
  int fds[3] = {b->pidfd};
  size_t n = 1;
  if (upper >= 0) fds[n++] = upper;
  if (tap >= 0) fds[n++] = tap;
  proto_send(warden.host, &piece, 1, fds, n);
}

static int ended_at_once(struct err *err, int rc)
{
  return err_set(err, ERR_INTERNAL, -rc, "a sandbox's first process ended at once");
}

static int limit_devices(struct wbox *b, struct err *err)
{
  struct cgroup_device devices[PROTO_DEVICES_MAX];
  for (size_t i = 0; i < warden.devices_n; i++)
    devices[i] = (struct cgroup_device){warden.devices[i].major, warden.devices[i].minor};
  return cgroup_box_devices(warden.cg, b->name, devices, warden.devices_n, &b->entry, err);
}

/* The box keeps the locks of its cards. */
static int take_devices(const struct proto_create *req, struct wbox *b, struct err *err)
{
  if (req->devices_n != warden.devices_n)
    return err_set(err, ERR_INTERNAL, EPROTO, "the devices of a sandbox are lost");
  memcpy(b->cards, warden.cards, sizeof b->cards);
  b->cards_n = warden.cards_n;
  warden.cards_n = 0;
  return limit_devices(b, err);
}

/* Tells a blank box what it is made of. ret_upper: for the host, owned; -1 = none. */
static int dress(const struct proto_create *req, struct wbox *b, int *ret_upper, struct err *err)
{
  struct parcel p = {.n = 0};
  struct proto_dress msg = dress_message(req, b);
  int rc = 0;
  int volumes[PROTO_BINDS_MAX];
  size_t volumes_n = req->volumes_n ? warden.volumes_n : 0;
  if (volumes_n > 0) rc = make_volumes(req, b, volumes, err);
  if (rc == 0) rc = pack_mounts(&p, &msg, req, b, ret_upper, err);
  if (rc == 0) {
    struct proto_piece piece = {&msg, sizeof msg};
    rc = proto_send(b->sync, &piece, 1, p.fds, p.n);
    if (rc == 0) rc = send_volumes(b, req->volumes_n, volumes);
    if (rc < 0) ended_at_once(err, rc);
  }
  while (p.n > 0) close(p.fds[--p.n]);
  for (size_t i = 0; i < volumes_n; i++)
    if (volumes[i] >= 0) close(volumes[i]);
  b->dressed = rc == 0;
  return rc;
}

static int send_entry(const struct wbox *b)
{
  const struct cgroup_entry *entry = &b->entry;
  struct parcel p = {.n = 0};
  struct proto_join msg = {.type = PROTO_JOIN, .ns_per_exec = entry->ns_per_exec};
  msg.has_into = add_fd(&p, entry->into_fd);
  for (int i = 0; i < CGROUP_V1_TREES; i++)
    msg.tasks_n = (uint8_t)(msg.tasks_n + add_fd(&p, entry->v1_tasks_fd[i]));
  msg.has_box = add_fd(&p, entry->box_fd);
  msg.has_oom = add_fd(&p, entry->oom_fd);
  struct proto_piece piece = {&msg, sizeof msg};
  return proto_send(b->sync, &piece, 1, p.fds, p.n);
}

/* Makes the groups that it is not born in, while it builds what it was dressed as. */
static int join(const struct proto_create *req, struct wbox *b, struct err *err)
{
  cgroup_open_rest(warden.cg);
  int rc = cgroup_box_make_rest(warden.cg, b->name, &b->entry, err);
  if (rc == 0) rc = take_devices(req, b, err);
  if (rc < 0) return rc;
  rc = send_entry(b);
  return rc < 0 ? ended_at_once(err, rc) : 0;
}

/* Limits, and the word to go. */
static int start(const struct proto_create *req, struct wbox *b, int box_sock, int upper, int tap,
                 struct err *err)
{
  struct proto_go go = go_message(req);
  int rc = limit_groups(req, b, err);
  if (rc < 0) return rc;
  rc = proto_send_one(b->sync, &go, sizeof go, box_sock);
  if (rc < 0) return ended_at_once(err, rc);
  tell_created(b, upper, tap);
  drop_boot(b);
  return 0;
}

static int make_box(const struct proto_create *req, struct wbox *b, int box_sock, struct err *err)
{
  cleanup_close int tap = -1, upper = -1;
  int rc = make_tap(req, b, &tap, err);
  if (rc == 0 && !b->dressed) {
    rc = dress(req, b, &upper, err);
    if (rc == 0) rc = join(req, b, err);
  }
  return rc < 0 ? rc : start(req, b, box_sock, upper, tap, err);
}

/* --- slots ------------------------------------------------------------------------------------
 *
 * Boxes that are made ahead of the creates that take them. The first waits for the create that is
 * about to come; others follow once creates come more than once: as many as creates found missing,
 * and fewer again when there are none. A slot is a box that nobody has been in; it is used once. */

/* Made like any other box of image host, as long as nobody says what else is in it. */
static bool is_plain(const struct proto_create *req)
{
  return req->image == IMAGE_HOST && req->volumes_n == 0 && req->devices_n == 0;
}

static void drop_slot(struct wbox *b)
{
  remove_slot(b);
  b->silent = true;
  kill(b->pid, SIGKILL);
}

/* NULL: there is none for such a box. */
static struct wbox *take_slot(bool plain)
{
  struct wbox *found = NULL;
  for (size_t i = 0; i < warden.slots_n; i++) {
    struct wbox *b = warden.slots[i];
    if (b->dressed ? plain && !(found && found->dressed) : !found) found = b;
  }
  if (found)
    remove_slot(found);
  else if (warden.slots_n > 0)
    drop_slot(warden.slots[0]); /* makes room for one that fits */
  return found;
}

static void expect_more(void)
{
  warden.ahead = warden.ahead * 2 < warden.ahead_max ? warden.ahead * 2 : warden.ahead_max;
}

static void expect_fewer(void)
{
  warden.ahead /= 2;
  while (warden.slots_n > warden.ahead) drop_slot(warden.slots[0]);
}

/* Not between the volumes of a create and the create: dress would take them. */
static bool wants_slot(void)
{
  bool idle = warden.volumes_n == 0 && warden.devices_n == 0;
  return idle && warden.slots_n < warden.ahead && warden.creates != 1 && warden.refusals == 0;
}

static int dress_slot(struct wbox *b)
{
  static const struct proto_create host = {
      .image = IMAGE_HOST, .disk_bytes = 1u << 30, .inodes = 1u << 17};
  int none = -1;
  int rc = dress(&host, b, &none, NULL);
  return rc < 0 ? rc : join(&host, b, NULL);
}

/* A failure is no news: the create that follows meets it again. */
static void fill_slot(void)
{
  struct wbox *b = new_blank(false, NULL);
  if (b) warden.slots[warden.slots_n++] = b;
  if (b && warden.plain && dress_slot(b) < 0) {
    drop_slot(b);
    b = NULL;
  }
  if (!b) warden.refusals++;
}

static struct wbox *take_blank(const struct proto_create *req, struct err *err)
{
  /* Volumes are the user's: so is the root that uses them. Slots are for images of the host; where
   * that matters, others need other maps. */
  bool own_root = req->image != IMAGE_HOST || req->volumes_n > 0;
  bool fits = !own_root || warden.ids.mode != IDS_SHARED;
  warden.plain = is_plain(req);
  struct wbox *b = fits ? take_slot(warden.plain) : NULL;
  if (!b && fits) expect_more();
  return b ? b : new_blank(own_root, err);
}

static int try_create(const struct proto_create *req, int box_sock, struct err *err)
{
  struct wbox *b = take_blank(req, err);
  if (!b) return err_errno(err);
  b->blank = false;
  b->box = req->box;
  idmap_set(&warden.by_box, b->box, b);
  int rc = make_box(req, b, box_sock, err);
  if (rc == 0) return 0;
  b->silent = true; /* its end is no news: the failure is */
  kill(b->pid, SIGKILL);
  return rc;
}

static void on_create(const struct proto_create *req, int box_sock)
{
  struct proto_failed failed = {.type = PROTO_CREATE_FAILED, .box = req->box};
  warden.creates++;
  begin_extras(req->box);
  if (try_create(req, box_sock, &failed.err) < 0)
    tell(&failed, sizeof failed, -1);
  else
    warden.refusals = 0;
  forget_extras();
  if (warden.leaving_n > LEAVING_MANY) remove_some(PER_CREATE);
}

/* Those of a box come one after another, right before its create. */
static void on_volume(const struct proto_volume *v)
{
  begin_extras(v->box);
  if (warden.volumes_n == PROTO_BINDS_MAX) return;
  warden.volumes = xrealloc(warden.volumes, (warden.volumes_n + 1) * sizeof *v);
  warden.volumes[warden.volumes_n++] = *v;
}

/* Likewise, ahead of the volumes. card: its lock, -1 = sent already. */
static void on_device(const struct proto_device *d, int card)
{
  begin_extras(d->box);
  if (warden.devices_n == PROTO_DEVICES_MAX || warden.cards_n == PROTO_CARDS_MAX) return;
  warden.devices = xrealloc(warden.devices, (warden.devices_n + 1) * sizeof *d);
  warden.devices[warden.devices_n++] = *d;
  if (card >= 0) warden.cards[warden.cards_n++] = dup(card);
}

/* --- the loop --------------------------------------------------------------------------------- */

static void remove_all(const struct list *boxes)
{
  LIST_FOREACH (it, boxes) cgroup_box_remove(warden.cg, list_entry(it, struct wbox, node)->name);
}

/* Kills and removes all that is left, then ends. */
static void leave(int status) __attribute__((noreturn));
static void leave(int status)
{
  LIST_FOREACH (it, &warden.living) kill(list_entry(it, struct wbox, node)->pid, SIGKILL);
  while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR) continue;
  if (warden.cg) {
    remove_all(&warden.living);
    remove_all(&warden.leaving);
    if (!warden.swept) cgroup_sweep(warden.cg); /* a short life must not skip it */
    cgroup_close(warden.cg, CLOSE_WAIT_MS);
  }
  ids_done(&warden.ids);
  _exit(status);
}

static union {
  uint32_t type;
  struct proto_create create;
  struct proto_volume volume;
  struct proto_device device;
  struct proto_box box;
} request;

static void on_request(void)
{
  int fds[PROTO_FDS_MAX];
  size_t fds_n = 0;
  ssize_t n = proto_recv(warden.host, &request, sizeof request, fds, &fds_n, false);
  if (n == -EAGAIN) return;
  if (n <= 0 || request.type == PROTO_QUIT) leave(0);
  if (request.type == PROTO_CREATE && n == sizeof request.create && fds_n == 1)
    on_create(&request.create, fds[0]);
  else if (request.type == PROTO_VOLUME && n == sizeof request.volume)
    on_volume(&request.volume);
  else if (request.type == PROTO_DEVICE && n == sizeof request.device)
    on_device(&request.device, fds_n ? fds[0] : -1);
  else if (request.type == PROTO_KILL && n == sizeof request.box)
    on_kill(&request.box);
  for (size_t i = 0; i < fds_n; i++) close(fds[i]);
}

/* Milliseconds until something has to be done unasked. Removing groups takes as long as making a
 * box does: it waits for a moment of rest. Where that never comes, creates pay for it (on_create),
 * ends do not: when thousands are ended at once, all of them are dead before the first group goes.
 */
static int idle_ms(void)
{
  if (wants_slot()) return 0;
  if (warden.leaving_n) return warden.busy ? REMOVE_POLL_MS : REST_MS;
  if (!warden.swept) return SWEEP_AFTER_MS;
  return warden.ahead > 1 ? SLOTS_REST_MS : -1;
}

static void on_idle(void)
{
  if (wants_slot()) {
    fill_slot();
  } else if (warden.leaving_n) {
    remove_while_idle();
  } else if (!warden.swept) {
    warden.swept = true;
    cgroup_sweep(warden.cg);
  } else if (warden.ahead > 1) {
    expect_fewer();
  }
}

static void serve(void) __attribute__((noreturn));
static void serve(void)
{
  struct pollfd p[2] = {{.fd = warden.host, .events = POLLIN},
                        {.fd = warden.signals, .events = POLLIN}};
  for (;;) {
    int n = poll(p, 2, idle_ms());
    if (n < 0 && errno != EINTR) leave(1);
    if (n == 0) on_idle();
    if (n <= 0) continue;
    if (p[1].revents) reap();
    if (p[0].revents) on_request();
  }
}

static int set_up(struct err *err)
{
  struct cgroup_conf conf = {.host_pid = getppid()};
  int rc = cgroup_open(&warden.cg, &conf, err);
  if (rc == 0) rc = ids_enter(&warden.ids, err);
  tap_prepare();
  if (rc == 0) rc = rootfs_prepare(err);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  if (rc == 0 && sigprocmask(SIG_BLOCK, &child, NULL) < 0)
    rc = err_set(err, ERR_INTERNAL, errno, "cannot block SIGCHLD: %s", strerror(errno));
  warden.signals = rc == 0 ? signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK) : -1;
  if (rc == 0 && warden.signals < 0)
    rc = err_set(err, ERR_INTERNAL, errno, "cannot make a signalfd: %s", strerror(errno));
  return rc;
}

int warden_main(int sock)
{
  struct proto_hello hello = {.type = PROTO_HELLO};
  list_init(&warden.living);
  list_init(&warden.leaving);
  warden.ahead = 1;
  warden.host = sock;
  warden.ids.lock_fd = -1;
  set_up(&hello.err);
  if (hello.err.kind == ERR_NONE)
    fill_slot(); /* as early as can be: a failure shows at the create */
  tell(&hello, sizeof hello, -1);
  if (hello.err.kind != ERR_NONE) leave(3);
  /* While the agent and the host are still busy with themselves. */
  rootfs_prepare_host(NULL);
  warden.ahead_max = SLOTS_PER_CPU * (size_t)get_nprocs();
  if (warden.ahead_max > SLOTS_MAX) warden.ahead_max = SLOTS_MAX;
  serve();
}

/* Which device nodes open in a box: a second wall, which only root can build. The first one is that
 * a box has no other nodes, cannot make any, and has `nodev` on every mount that it can write to.
 *
 * Version 1: the group `plain` of the warden serves all boxes without devices of their own; a box
 * with some gets a group beside it. Version 2: a program of the kernel's virtual machine, attached
 * to the group of each box: the shared one, or one made for the box. Making nodes is refused by
 * both. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/cgroup_internal.h"

#define PLAIN "plain"
#define ANY   UINT32_MAX

static const struct cgroup_device usual[] = {
    {1, 3} /* null */,    {1, 5} /* zero */, {1, 7} /* full */, {1, 8} /* random */,
    {1, 9} /* urandom */, {5, 0} /* tty */,  {5, 2} /* ptmx */, {136, ANY} /* pts */};
#define USUAL_N (sizeof usual / sizeof *usual)

/* --- version 1 -------------------------------------------------------------------------------- */

static int allow(int group, const struct cgroup_device *d)
{
  char text[48], minor[16] = "*";
  if (d->minor != ANY) snprintf(minor, sizeof minor, "%u", d->minor);
  snprintf(text, sizeof text, "c %u:%s rw", d->major, minor);
  return cg_write_at(group, "devices.allow", text);
}

/* The group, made and limited; returns its tasks file. */
static int make_group(const struct cg_tree *t, const char *name, const struct cgroup_device *extra,
                      size_t n)
{
  if (mkdirat(t->warden_fd, name, 0755) < 0) return -errno;
  cleanup_close int group = openat(t->warden_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (group < 0) return -errno;
  int r = cg_write_at(group, "devices.deny", "a");
  for (size_t i = 0; i < USUAL_N && r == 0; i++) r = allow(group, &usual[i]);
  for (size_t i = 0; i < n && r == 0; i++) r = allow(group, &extra[i]);
  int tasks = r < 0 ? r : openat(group, "tasks", O_WRONLY | O_CLOEXEC);
  if (r == 0 && tasks < 0) tasks = -errno;
  if (tasks < 0) cg_remove_at(t->warden_fd, name);
  return tasks;
}

/* --- version 2 -------------------------------------------------------------------------------- */

#define DEVICES_MAX 72
#define PROGRAM_MAX (12 + 4 * DEVICES_MAX)

struct program {
  struct bpf_insn insn[PROGRAM_MAX];
  size_t n;
};

static void emit(struct program *p, uint8_t code, uint8_t dst, uint8_t src, int16_t off,
                 int32_t imm)
{
  p->insn[p->n++] = (struct bpf_insn){
      .code = code, .dst_reg = dst & 15, .src_reg = src & 15, .off = off, .imm = imm};
}

/* return value; */
static void emit_return(struct program *p, int32_t value)
{
  emit(p, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, value);
  emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static void emit_allow(struct program *p, const struct cgroup_device *d)
{
  bool any = d->minor == ANY;
  emit(p, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_4, 0, any ? 2 : 3, (int32_t)d->major);
  if (!any) emit(p, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_5, 0, 2, (int32_t)d->minor);
  emit_return(p, 1);
}

/* r2: type and access, r4: major, r5: minor. */
static void write_program(struct program *p, const struct cgroup_device *extra, size_t n)
{
  const uint8_t load = BPF_LDX | BPF_MEM | BPF_W;
  emit(p, load, BPF_REG_2, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, access_type), 0);
  emit(p, load, BPF_REG_4, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, major), 0);
  emit(p, load, BPF_REG_5, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, minor), 0);
  emit(p, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_2, 0, 0);
  emit(p, BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_3, 0, 0, 0xffff | BPF_DEVCG_ACC_MKNOD << 16);
  emit(p, BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_3, 0, 2, BPF_DEVCG_DEV_CHAR);
  emit_return(p, 0);
  for (size_t i = 0; i < USUAL_N; i++) emit_allow(p, &usual[i]);
  for (size_t i = 0; i < n; i++) emit_allow(p, &extra[i]);
  emit_return(p, 0);
}

static int load_program(const struct cgroup_device *extra, size_t n)
{
  struct program p = {0};
  if (n > DEVICES_MAX - USUAL_N) return -E2BIG;
  write_program(&p, extra, n);
  union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
                         .insn_cnt = (uint32_t)p.n,
                         .insns = (uint64_t)(uintptr_t)p.insn,
                         .license = (uint64_t)(uintptr_t) "MIT"};
  int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
  return fd < 0 ? -errno : fd;
}

/* Programs of the groups above are asked as well: all have to agree. */
static int attach(int group, int program)
{
  union bpf_attr attr = {.target_fd = (uint32_t)group,
                         .attach_bpf_fd = (uint32_t)program,
                         .attach_type = BPF_CGROUP_DEVICE,
                         .attach_flags = BPF_F_ALLOW_MULTI};
  return syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr) < 0 ? -errno : 0;
}

static int attach_to(const struct cg_tree *t, const char *name, int program)
{
  cleanup_close int group = openat(t->warden_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return group < 0 ? -errno : attach(group, program);
}

/* --- both ------------------------------------------------------------------------------------- */

bool cg_devices_can_load(void)
{
  cleanup_close int fd = geteuid() == 0 ? load_program(NULL, 0) : -1;
  return fd >= 0;
}

int cg_devices_open(struct cg_tree *t)
{
  int fd = t->v2 ? load_program(NULL, 0) : make_group(t, PLAIN, NULL, 0);
  if (fd >= 0 && t->v2) { /* loading may be allowed where attaching is not */
    int r = mkdirat(t->warden_fd, PLAIN, 0755) < 0 ? -errno : attach_to(t, PLAIN, fd);
    cg_remove_at(t->warden_fd, PLAIN);
    if (r < 0) {
      close(fd);
      fd = r;
    }
  }
  t->plain_fd = fd < 0 ? -1 : fd;
  return fd < 0 ? fd : 0;
}

int cg_devices_box(const struct cg_tree *t, const char *box, const struct cgroup_device *extra,
                   size_t n)
{
  if (!t->v2 && n > 0) return make_group(t, box, extra, n);
  if (!t->v2) {
    int fd = fcntl(t->plain_fd, F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? -errno : fd;
  }
  if (n == 0) return attach_to(t, box, t->plain_fd);
  cleanup_close int program = load_program(extra, n);
  return program < 0 ? program : attach_to(t, box, program);
}

/* seccomp_gen: turns seccomp_table.def into BPF programs, at build time.
 *
 * Prints a header with one program per architecture. libseccomp only says which number a name has
 * on which architecture; the program is ours: neighbouring numbers with the same answer are one
 * range, and a binary search finds the range. That is a third of the instructions of a list, which
 * is what loading it costs, and the kernel can tell for nearly every allowed call that it is
 * allowed whatever its arguments, and then skips the filter.
 *
 *   architecture not native → kill      (32-bit programs on a 64-bit machine)
 *   number ≥ 2^30 on x86    → ENOSYS    (x32, as a kernel without it says)
 *   else                    → binary search → ALLOW | EPERM | ENOSYS | look at arguments
 *
 * Only the low 32 bits of an argument are compared, because the kernel only uses those: comparing
 * all 64 would let a caller past by setting the others. Before anything is printed each program is
 * run here against the table, for every number and for arguments at every edge. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define NR_LIMIT                                                                                   \
  1024 /* numbers looked at; the program answers ENOSYS from the last known one on                 \
        */
#define X32_BIT   0x40000000u
#define AGENT_PID 1u

enum action {
  ACT_ENOSYS, /* the default */
  ACT_ALLOW,
  ACT_EPERM,
  CHECK_CLONE_FLAGS,
  CHECK_MKNOD,
  CHECK_MKNODAT,
  CHECK_SOCKET,
  CHECK_SOCKETPAIR,
  CHECK_IOCTL,
  CHECK_PERSONALITY,
  CHECK_PRLIMIT,
};

struct arch {
  const char *macro; /* what the compiler defines for it */
  uint32_t scmp;     /* libseccomp's name */
  uint32_t audit;    /* the kernel's */
  bool is_x86;
};

static const struct arch arches[] = {
    {"__x86_64__", SCMP_ARCH_X86_64, AUDIT_ARCH_X86_64, true},
    {"__aarch64__", SCMP_ARCH_AARCH64, AUDIT_ARCH_AARCH64, false},
};

enum only { ON_ALL, ON_X86 };

static const struct row {
  const char *name;
  int nr; /* -1: ask libseccomp */
  enum action action;
  enum only only;
} table[] = {
#define ALLOW(name)             {#name, -1, ACT_ALLOW, ON_ALL},
#define ALLOW_NR(name, nr)      {#name, nr, ACT_ALLOW, ON_ALL},
#define ALLOW_NR_X86(name, nr)  {#name, nr, ACT_ALLOW, ON_X86},
#define CHECK_ARGS(name, check) {#name, -1, check, ON_ALL},
#define REFUSE(name)            {#name, -1, ACT_EPERM, ON_ALL},
#include "engine/local/seccomp_table.def"
};

static _Noreturn void die(const char *what, const char *name)
{
  fprintf(stderr, "seccomp_gen: %s: %s\n", what, name);
  exit(1);
}

/* --- programs --------------------------------------------------------------------------------- */

struct code {
  struct sock_filter v[4096];
  size_t n;
};

static void emit(struct code *c, unsigned op, unsigned jt, unsigned jf, uint32_t k)
{
  if (c->n == sizeof c->v / sizeof *c->v || jt > 255 || jf > 255) die("too long", "program");
  c->v[c->n++] = (struct sock_filter){(uint16_t)op, (uint8_t)jt, (uint8_t)jf, k};
}

static void emit_ret(struct code *c, uint32_t k)
{
  emit(c, BPF_RET | BPF_K, 0, 0, k);
}

static void emit_errno(struct code *c, int e)
{
  emit_ret(c, SECCOMP_RET_ERRNO | (uint32_t)e);
}

static void emit_load_arg(struct code *c, unsigned arg)
{
  emit(c, BPF_LD | BPF_W | BPF_ABS, 0, 0,
       (uint32_t)(offsetof(struct seccomp_data, args) + 8 * arg));
}

/* Allowed when the loaded word is one of these, else the errno. */
static void emit_one_of(struct code *c, const uint32_t *allowed, size_t n, int e)
{
  for (size_t i = 0; i < n; i++)
    emit(c, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(n - i), 0, allowed[i]);
  emit_errno(c, e);
  emit_ret(c, SECCOMP_RET_ALLOW);
}

/* All namespaces; CLONE_NEWTIME has no bit here, as clone keeps the exit signal there. */
#define CLONE_NAMESPACES 0x7e020000u

static const uint32_t personalities[] = {0, 0x0008, 0x20000, 0x20008, 0xffffffff};
static const uint32_t inet_protocols[] = {
    0 /* default */, 1 /* ICMP */,       6 /* TCP */,   17 /* UDP */,
    58 /* ICMPv6 */, 136 /* UDP-Lite */, 255 /* raw */, 262 /* MPTCP */};
static const uint32_t netlink_protocols[] = {0 /* route */, 4 /* sock_diag */, 15 /* uevent */};
static const uint32_t refused_ioctls[] = {0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */,
                                          0x5423 /* TIOCSETD */};

static const uint32_t device_types[] = {S_IFCHR, S_IFBLK};

#define LEN(a) (sizeof(a) / sizeof *(a))

static void emit_socket(struct code *c)
{
  struct code inet = {.n = 0}, netlink = {.n = 0};
  emit_load_arg(&inet, 2);
  emit_one_of(&inet, inet_protocols, LEN(inet_protocols), EPROTONOSUPPORT);
  emit_load_arg(&netlink, 2);
  emit_one_of(&netlink, netlink_protocols, LEN(netlink_protocols), EPROTONOSUPPORT);

  emit_load_arg(c, 0);
  emit(c, BPF_JMP | BPF_JEQ | BPF_K, 4, 0, AF_UNIX);
  emit(c, BPF_JMP | BPF_JEQ | BPF_K, 4, 0, AF_INET);
  emit(c, BPF_JMP | BPF_JEQ | BPF_K, 3, 0, AF_INET6);
  emit(c, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(2 + inet.n), 0, AF_NETLINK);
  emit_errno(c, EAFNOSUPPORT);
  emit_ret(c, SECCOMP_RET_ALLOW);
  for (size_t i = 0; i < inet.n; i++) c->v[c->n++] = inet.v[i];
  for (size_t i = 0; i < netlink.n; i++) c->v[c->n++] = netlink.v[i];
}

/* A mode is not of these types. */
static void emit_mode(struct code *c, unsigned arg)
{
  emit_load_arg(c, arg);
  emit(c, BPF_ALU | BPF_AND | BPF_K, 0, 0, S_IFMT);
  for (size_t i = 0; i < LEN(device_types); i++)
    emit(c, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(LEN(device_types) - i), 0, device_types[i]);
  emit_ret(c, SECCOMP_RET_ALLOW);
  emit_errno(c, EPERM);
}

static void emit_action(struct code *c, enum action action)
{
  switch (action) {
  case ACT_ENOSYS: emit_errno(c, ENOSYS); break;
  case ACT_ALLOW: emit_ret(c, SECCOMP_RET_ALLOW); break;
  case ACT_EPERM: emit_errno(c, EPERM); break;
  case CHECK_CLONE_FLAGS:
    emit_load_arg(c, 0);
    emit(c, BPF_JMP | BPF_JSET | BPF_K, 0, 1, CLONE_NAMESPACES);
    emit_errno(c, EPERM);
    emit_ret(c, SECCOMP_RET_ALLOW);
    break;
  case CHECK_MKNOD: emit_mode(c, 1); break;
  case CHECK_MKNODAT: emit_mode(c, 2); break;
  case CHECK_SOCKET: emit_socket(c); break;
  case CHECK_SOCKETPAIR:
    emit_load_arg(c, 0);
    emit_one_of(c, (const uint32_t[]){AF_UNIX}, 1, EAFNOSUPPORT);
    break;
  case CHECK_IOCTL:
    emit_load_arg(c, 1);
    for (size_t i = 0; i < LEN(refused_ioctls); i++)
      emit(c, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(LEN(refused_ioctls) - i), 0, refused_ioctls[i]);
    emit_ret(c, SECCOMP_RET_ALLOW);
    emit_errno(c, EPERM);
    break;
  case CHECK_PERSONALITY:
    emit_load_arg(c, 0);
    emit_one_of(c, personalities, LEN(personalities), EPERM);
    break;
  case CHECK_PRLIMIT:
    emit_load_arg(c, 0);
    emit(c, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AGENT_PID);
    emit_ret(c, SECCOMP_RET_ALLOW);
    emit_errno(c, EPERM);
    break;
  }
}

/* A range of numbers with one answer: from start to the next range's start. */
struct range {
  uint32_t start;
  enum action action;
};

static void append(struct code *c, const struct code *more)
{
  for (size_t i = 0; i < more->n; i++)
    emit(c, more->v[i].code, more->v[i].jt, more->v[i].jf, more->v[i].k);
}

static void emit_search(struct code *c, const struct range *r, size_t n)
{
  if (n == 1) {
    emit_action(c, r->action);
    return;
  }
  struct code *low = calloc(1, sizeof *low);
  if (!low) die("memory", "none left");
  emit_search(low, r, n / 2);
  if (low->n <= 255) {
    emit(c, BPF_JMP | BPF_JGE | BPF_K, (unsigned)low->n, 0, r[n / 2].start);
  } else {
    emit(c, BPF_JMP | BPF_JGE | BPF_K, 0, 1, r[n / 2].start);
    emit(c, BPF_JMP | BPF_JA, 0, 0, (uint32_t)low->n);
  }
  append(c, low);
  free(low);
  emit_search(c, r + n / 2, n - n / 2);
}

static void emit_program(struct code *c, const struct arch *arch, const enum action *want)
{
  struct range ranges[NR_LIMIT + 2];
  size_t n = 0;
  for (uint32_t nr = 0; nr < NR_LIMIT; nr++)
    // cppcheck-suppress uninitvar  ; n counts those that are set
    if (n == 0 || ranges[n - 1].action != want[nr]) ranges[n++] = (struct range){nr, want[nr]};

  emit(c, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
  emit(c, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, arch->audit);
  emit_ret(c, SECCOMP_RET_KILL_PROCESS);
  emit(c, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
  emit_search(c, ranges, n); /* x32 numbers lie in the last range, which answers ENOSYS */
}

/* --- the table, read plainly ------------------------------------------------------------------ */

static void fill_actions(const struct arch *arch, enum action *want)
{
  for (size_t i = 0; i < NR_LIMIT; i++) want[i] = ACT_ENOSYS;
  for (size_t i = 0; i < LEN(table); i++) {
    if (table[i].only == ON_X86 && !arch->is_x86) continue;
    int nr = table[i].nr;
    if (nr < 0) {
      if (seccomp_syscall_resolve_name(table[i].name) == __NR_SCMP_ERROR)
        die("no such call", table[i].name);
      nr = seccomp_syscall_resolve_name_arch(arch->scmp, table[i].name);
      if (nr < 0) continue; /* not on this architecture */
    }
    if (nr >= NR_LIMIT - 1) die("number out of range", table[i].name);
    if (want[nr] != ACT_ENOSYS) die("listed twice", table[i].name);
    want[nr] = table[i].action;
  }
}

static bool is_in(const uint32_t *list, size_t n, uint32_t v)
{
  for (size_t i = 0; i < n; i++)
    if (list[i] == v) return true;
  return false;
}

/* What the filter should answer, said without BPF. */
static uint32_t expected(enum action action, const __u64 *args)
{
  uint32_t a0 = (uint32_t)args[0], a1 = (uint32_t)args[1], a2 = (uint32_t)args[2];
  int e = 0;
  switch (action) {
  case ACT_ENOSYS: e = ENOSYS; break;
  case ACT_ALLOW: break;
  case ACT_EPERM: e = EPERM; break;
  case CHECK_CLONE_FLAGS: e = a0 & CLONE_NAMESPACES ? EPERM : 0; break;
  case CHECK_MKNOD: e = is_in(device_types, LEN(device_types), a1 & S_IFMT) ? EPERM : 0; break;
  case CHECK_MKNODAT: e = is_in(device_types, LEN(device_types), a2 & S_IFMT) ? EPERM : 0; break;
  case CHECK_SOCKETPAIR: e = a0 == AF_UNIX ? 0 : EAFNOSUPPORT; break;
  case CHECK_IOCTL: e = is_in(refused_ioctls, LEN(refused_ioctls), a1) ? EPERM : 0; break;
  case CHECK_PERSONALITY: e = is_in(personalities, LEN(personalities), a0) ? 0 : EPERM; break;
  case CHECK_PRLIMIT: e = a0 == AGENT_PID ? EPERM : 0; break;
  case CHECK_SOCKET:
    if (a0 == AF_INET || a0 == AF_INET6)
      e = is_in(inet_protocols, LEN(inet_protocols), a2) ? 0 : EPROTONOSUPPORT;
    else if (a0 == AF_NETLINK)
      e = is_in(netlink_protocols, LEN(netlink_protocols), a2) ? 0 : EPROTONOSUPPORT;
    else
      e = a0 == AF_UNIX ? 0 : EAFNOSUPPORT;
    break;
  }
  return e ? SECCOMP_RET_ERRNO | (uint32_t)e : SECCOMP_RET_ALLOW;
}

/* The kernel's interpreter, as far as our programs need it. */
static uint32_t run(const struct code *c, const struct seccomp_data *data)
{
  uint32_t a = 0;
  for (size_t pc = 0; pc < c->n; pc++) {
    const struct sock_filter *f = &c->v[pc];
    switch (f->code) {
    case BPF_LD | BPF_W | BPF_ABS: memcpy(&a, (const char *)data + f->k, sizeof a); break;
    case BPF_ALU | BPF_AND | BPF_K: a &= f->k; break;
    case BPF_JMP | BPF_JA: pc += f->k; break;
    case BPF_JMP | BPF_JEQ | BPF_K: pc += a == f->k ? f->jt : f->jf; break;
    case BPF_JMP | BPF_JGE | BPF_K: pc += a >= f->k ? f->jt : f->jf; break;
    case BPF_JMP | BPF_JSET | BPF_K: pc += a & f->k ? f->jt : f->jf; break;
    case BPF_RET | BPF_K: return f->k;
    default: die("unknown instruction", "program");
    }
  }
  die("runs off its end", "program");
}

/* Every argument value at which some check changes its mind, and beside it. */
static void check_arguments(const struct code *c, const struct arch *arch, uint32_t nr,
                            enum action action)
{
  static const uint32_t edges[] = {
      0,      1,      2,       3,          4,        5,          6,         7,
      8,      9,      10,      15,         16,       17,         18,        33,
      38,     40,     46,      57,         58,       59,         132,       136,
      254,    255,    256,     262,        263,      0x5411,     0x5412,    0x5413,
      0x541b, 0x541c, 0x541d,  0x5422,     0x5423,   0x5424,     0x20000,   0x20008,
      0x2000, 0x61b6, 0x81b6,  0x11b6,     0xc1b6,   0x421b6,    0xa1ff,    0x41ed,
      0x80,   0x11,   0x40000, 0x10000000, 0x3d0f00, 0x7e020000, 0xffffffff};
  for (size_t i = 0; i < LEN(edges); i++)
    for (size_t k = 0; k < LEN(edges); k++)
      for (int high = 0; high < 2; high++) {
        struct seccomp_data d = {.nr = (int)nr, .arch = arch->audit};
        uint64_t top = high ? 0xdeadbeef00000000u : 0;
        d.args[0] = edges[i] | top;
        d.args[1] = d.args[2] = edges[k] | top;
        if (run(c, &d) != expected(action, d.args)) die("wrong answer", arch->macro);
      }
}

static void check_program(const struct code *c, const struct arch *arch, const enum action *want)
{
  for (uint32_t nr = 0; nr < NR_LIMIT; nr++) check_arguments(c, arch, nr, want[nr]);
  check_arguments(c, arch, NR_LIMIT, ACT_ENOSYS);
  check_arguments(c, arch, X32_BIT, ACT_ENOSYS);
  check_arguments(c, arch, X32_BIT | 59, ACT_ENOSYS);
  check_arguments(c, arch, 0xffffffff, ACT_ENOSYS);
  struct seccomp_data d = {.nr = 0, .arch = AUDIT_ARCH_I386};
  if (run(c, &d) != SECCOMP_RET_KILL_PROCESS) die("lets foreign calls in", arch->macro);
}

static void print_program(const struct code *c)
{
  printf("static const struct sock_filter seccomp_program[] = {\n");
  for (size_t i = 0; i < c->n; i++)
    printf("    {0x%02x, %u, %u, 0x%08x},\n", c->v[i].code, c->v[i].jt, c->v[i].jf, c->v[i].k);
  printf("};\n");
}

int main(void)
{
  static struct code code;
  static enum action want[NR_LIMIT];
  printf("/* Made by seccomp_gen from seccomp_table.def. */\n");
  for (size_t i = 0; i < LEN(arches); i++) {
    code.n = 0;
    fill_actions(&arches[i], want);
    emit_program(&code, &arches[i], want);
    check_program(&code, &arches[i], want);
    printf("#%s defined(%s) /* %zu instructions */\n", i ? "elif" : "if", arches[i].macro, code.n);
    print_program(&code);
  }
  printf("#else\n#error \"no seccomp program for this architecture\"\n#endif\n");
  return 0;
}

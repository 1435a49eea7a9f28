#ifndef REGOLITH_CORE_SECCOMP_H
#define REGOLITH_CORE_SECCOMP_H

/* Words for small system call filters that the preprocessor compiles: no library is needed for one
 * short list. A program begins with SECCOMP_BEGIN and ends with what becomes of the rest. */

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define SECCOMP_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define SECCOMP_ARCH AUDIT_ARCH_AARCH64
#else
#error "core/seccomp.h knows x86-64 and aarch64; add the AUDIT_ARCH of this machine"
#endif

#define LOAD(field)  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define ON(nr, what) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), RETURN(what)
#define ALLOW(name)  ON(__NR_##name, SECCOMP_RET_ALLOW)
#define LACK(name)   ON(__NR_##name, SECCOMP_RET_ERRNO | ENOSYS)

/* The low word of argument 2 of mmap and mprotect: PROT_…; the kernel looks at no other bit that
 * counts. */
#define ALLOW_UNLESS_EXEC(name)                                                                    \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 4), LOAD(args[2]),                           \
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1), RETURN(SECCOMP_RET_ERRNO | EACCES),   \
      RETURN(SECCOMP_RET_ALLOW)

/* A call that is for one purpose: argument `at` is `value`; else it fails with ENOSYS. */
#define ALLOW_WITH(name, at, value)                                                                \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 4), LOAD(args[at]),                          \
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1), RETURN(SECCOMP_RET_ALLOW),                 \
      RETURN(SECCOMP_RET_ERRNO | ENOSYS)

/* … or for two. */
#define ALLOW_WITH_2(name, at, one, other)                                                         \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 5), LOAD(args[at]),                          \
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, one, 1, 0),                                              \
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, other, 0, 1), RETURN(SECCOMP_RET_ALLOW),                 \
      RETURN(SECCOMP_RET_ERRNO | ENOSYS)

#define SECCOMP_BEGIN                                                                              \
  LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SECCOMP_ARCH, 1, 0),                             \
      RETURN(SECCOMP_RET_KILL_PROCESS), LOAD(nr)

/* With no_new_privs set. Returns 0 or a negative errno. */
static inline int seccomp_load(const struct sock_filter *program, size_t n)
{
  struct sock_fprog p = {.len = (unsigned short)n,
                         .filter = (struct sock_filter *)(unsigned long)program};
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p) < 0 ? -errno : 0;
}

#endif

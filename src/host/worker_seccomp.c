/* The system call filter of worker processes.
 *
 * One list, compiled into a BPF program by the preprocessor; no library is needed for a filter this
 * small. What is not listed kills the process: nothing that a script can say leads there, so
 * whoever makes such a call has broken out of Lua. A few calls that libraries try, and can do
 * without, fail with ENOSYS instead. Memory can be mapped, but never executable. There is no call
 * in the list that names another process, a file by path, or a network. */
#include "host/worker_seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "worker_seccomp.c knows x86-64 and aarch64; add the AUDIT_ARCH of this machine"
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

/* ioctl for one purpose: a socket that does not block. */
#define ALLOW_REQUEST(name, request)                                                               \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 4), LOAD(args[1]),                           \
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, request, 0, 1), RETURN(SECCOMP_RET_ALLOW),               \
      RETURN(SECCOMP_RET_ERRNO | ENOSYS)

static const struct sock_filter program[] = {
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0),
    RETURN(SECCOMP_RET_KILL_PROCESS),
    LOAD(nr),
    /* the socket to the host, and the loop around it */
    ALLOW(sendmsg),
    ALLOW(sendto),
    ALLOW(recvfrom),
    ALLOW(recvmsg),
    ALLOW(epoll_create1),
    ALLOW(epoll_ctl),
    ALLOW(epoll_pwait),
    ALLOW(eventfd2),
    ALLOW(pipe2),
    ALLOW_REQUEST(ioctl, FIONBIO),
    ALLOW(read),
    ALLOW(write),
    ALLOW(close),
#ifdef __NR_epoll_wait
    ALLOW(epoll_wait),
#endif
    /* time, and the slice timer */
    ALLOW(clock_gettime),
    ALLOW(clock_getres),
    ALLOW(gettimeofday),
    ALLOW(timer_create),
    ALLOW(timer_settime),
    ALLOW(timer_gettime),
    ALLOW(timer_delete),
    ALLOW(rt_sigaction),
    ALLOW(rt_sigprocmask),
    ALLOW(rt_sigreturn),
    ALLOW(restart_syscall),
    ALLOW(gettid),
    ALLOW(getpid),
    /* memory */
    ALLOW(brk),
    ALLOW(munmap),
    ALLOW(mremap),
    ALLOW(madvise),
    ALLOW(futex),
    ALLOW(getrandom),
    ALLOW_UNLESS_EXEC(mmap),
    ALLOW_UNLESS_EXEC(mprotect),
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    ALLOW(sigaltstack),
    ALLOW(sched_yield),
#endif
    /* the end */
    ALLOW(exit_group),
    ALLOW(exit),
    /* what libraries ask for and do without */
    LACK(sysinfo),
    LACK(prlimit64),
    LACK(openat),
    LACK(newfstatat),
    LACK(fcntl),
    LACK(io_uring_setup),
    LACK(tgkill), /* abort(): ends with a fault instead */
    LACK(prctl),
#ifdef __NR_time
    ALLOW(time),
#endif
    RETURN(SECCOMP_RET_KILL_PROCESS),
};

int worker_seccomp_load(void)
{
  struct sock_fprog p = {.len = sizeof program / sizeof *program,
                         .filter = (struct sock_filter *)(unsigned long)program};
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p) < 0 ? -errno : 0;
}

/* The system call filter of worker processes.
 *
 * What is not listed kills the process: nothing that a script can say leads there, so
 * whoever makes such a call has broken out of Lua. A few calls that libraries try, and can do
 * without, fail with ENOSYS instead. Memory can be mapped, but never executable. There is no call
 * in the list that names another process, a file by path, or a network. */
#include "host/worker_seccomp.h"

#include <sys/ioctl.h>

#include "core/seccomp.h"

static const struct sock_filter program[] = {
    SECCOMP_BEGIN,
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
    ALLOW_WITH(ioctl, 1, FIONBIO),
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
  return seccomp_load(program, sizeof program / sizeof *program);
}

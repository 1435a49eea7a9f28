/* Starts one command: clone with vfork semantics, set-up in the child, exec. Operations on files
 * (agent_file.c) start the same way, as a copy that executes nothing.
 *
 * The child shares the agent's memory until it has executed: it touches nothing but its own stack
 * and the launch record, and uses bare system calls where the C library would involve other
 * threads. The parent sleeps meanwhile. The child is born in its leaf, so that nothing of it ever
 * runs outside; without leaves it is born in a UTS namespace of its own, which marks all that
 * descends from it.
 *
 * Until exec the child is as undumpable as the agent: nobody inside can trace it. */
#include "engine/local/agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static char child_stack[64 * 1024] __attribute__((aligned(64)));

/* fn runs on the new stack and does not return. Without a way to do that (other machines) the child
 * is a copy instead: slower, and the record must then be shared memory, which it is (agent.c). */
static long clone_call(struct clone_args *args, void (*fn)(struct agent_launch *),
                       struct agent_launch *arg)
{
#ifdef __SANITIZE_ADDRESS__
  /* The last child left this stack by exec, with the marks of its frames still on it. */
  __asan_unpoison_memory_region(child_stack, sizeof child_stack);
#endif
  args->flags |= CLONE_VM | CLONE_VFORK;
  args->stack = (uint64_t)(uintptr_t)child_stack;
  args->stack_size = sizeof child_stack;
#if defined(__x86_64__)
  long ret;
  register struct agent_launch *r12 __asm__("r12") = arg;
  register void (*r13)(struct agent_launch *) __asm__("r13") = fn;
  __asm__ volatile("syscall\n\t"
                   "testq %%rax, %%rax\n\t"
                   "jnz 1f\n\t"
                   "xorl %%ebp, %%ebp\n\t"
                   "movq %%r12, %%rdi\n\t"
                   "callq *%%r13\n\t"
                   "hlt\n"
                   "1:"
                   : "=a"(ret)
                   : "0"((long)SYS_clone3), "D"(args), "S"(sizeof *args), "r"(r12), "r"(r13)
                   : "rcx", "r11", "memory", "cc");
  if (ret >= 0) return ret;
  errno = (int)-ret;
  return -1;
#elif defined(__aarch64__)
  register long x0 __asm__("x0") = (long)args;
  register long x1 __asm__("x1") = (long)sizeof *args;
  register long x8 __asm__("x8") = SYS_clone3;
  register struct agent_launch *x19 __asm__("x19") = arg;
  register void (*x20)(struct agent_launch *) __asm__("x20") = fn;
  __asm__ volatile("svc #0\n\t"
                   "cbnz x0, 1f\n\t"
                   "mov x29, #0\n\t"
                   "mov x0, x19\n\t"
                   "blr x20\n\t"
                   "brk #0\n"
                   "1:"
                   : "+r"(x0)
                   : "r"(x1), "r"(x8), "r"(x19), "r"(x20)
                   : "memory", "cc", "x30");
  if (x0 >= 0) return x0;
  errno = (int)-x0;
  return -1;
#else
#error "agent_launch.c: say here how this machine calls a function on the stack of a vfork child"
#endif
}

/* Does not return, and does not say so: before calls that do, sanitizers look at the stack, which
 * here is not the one they know. */
static void end_child(int status)
{
  syscall(SYS_exit_group, status);
}

/* A copy cannot write into the record: its exit code tells. */
static void refuse(struct agent_launch *l, enum refused_why why, int error)
{
  if (l->file) end_child(error);
  l->ret_refused = (int)why;
  l->ret_errno = error;
  end_child(125);
}

static const char *get_env(char *const *envp, const char *key)
{
  size_t n = strlen(key);
  for (; *envp; envp++)
    if (strncmp(*envp, key, n) == 0 && (*envp)[n] == '=') return *envp + n + 1;
  return NULL;
}

/* A text file without a #! line is a shell script to execvp, and so it is to us. */
static void exec_script(const char *path, char **argv, char *const *envp)
{
  size_t n = 0;
  while (argv[n]) n++;
  char shell[] = "/bin/sh", file[4200];
  if (n > 4096) return;
  char *args[4100];
  snprintf(file, sizeof file, "%s", path);
  args[0] = shell;
  args[1] = file;
  memcpy(args + 2, argv + 1, n * sizeof *argv); /* with the NULL */
  execve(shell, args, envp);
}

static void try_exec(struct agent_launch *l, const char *path)
{
  execve(path, l->argv, l->envp);
  if (errno == ENOEXEC) exec_script(path, l->argv, l->envp);
}

/* Returns the errno that says best why nothing could be executed. */
static int exec_along_path(struct agent_launch *l)
{
  const char *name = l->argv[0];
  if (strchr(name, '/')) {
    try_exec(l, name);
    return errno;
  }
  const char *path = get_env(l->envp, "PATH");
  int seen = ENOENT;
  if (!path) path = DEFAULT_PATH;
  if (!*name) return ENOENT;
  for (const char *end; *path; path = *end ? end + 1 : end) {
    char file[4200];
    end = strchrnul(path, ':');
    int n = snprintf(file, sizeof file, "%.*s/%s", (int)(end - path), path, name);
    if (n < 0 || (size_t)n >= sizeof file) continue;
    try_exec(l, file);
    if (errno == EACCES || errno == E2BIG || (errno != ENOENT && errno != ENOTDIR)) seen = errno;
    if (seen != ENOENT && seen != EACCES) break;
  }
  return seen;
}

static void set_ids(struct agent_launch *l)
{
  const struct agent_user *u = &l->user;
  if (syscall(SYS_setgroups, u->groups_n, u->groups) < 0 && errno != EPERM)
    refuse(l, REFUSED_OTHER, errno);
  if (syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0) refuse(l, REFUSED_USER, errno);
  if (syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0) refuse(l, REFUSED_USER, errno);
}

static void enter_cwd(struct agent_launch *l)
{
  if (*l->cwd) {
    if (chdir(l->cwd) < 0) refuse(l, REFUSED_CWD, errno);
  } else if (chdir(l->user.home) < 0 && chdir("/") < 0) {
    refuse(l, REFUSED_OTHER, errno);
  }
}

static void child(struct agent_launch *l)
{
  struct stat st;
  enum walls_step step;
  setsid();
  if (l->cgroup_fd < 0 && stat("/proc/self/ns/uts", &st) == 0) l->ret_mark = st.st_ino;
  for (int fd = 0; fd < 3; fd++)
    if (dup2(l->fds[fd], fd) < 0) refuse(l, REFUSED_OTHER, errno);
  set_ids(l);
  enter_cwd(l);
  int rc = walls_close_command(l->limits, &step);
  if (rc < 0) refuse(l, REFUSED_OTHER, -rc);
  int e = exec_along_path(l);
  if (e == E2BIG) refuse(l, REFUSED_ARGS, e);
  l->ret_errno = e;
  l->ret_exit_code = e == ENOENT || e == ENOTDIR ? 127 : 126;
  end_child(l->ret_exit_code);
}

/* What exec does for a command: root of the box has the box's capabilities, others none. */
static void drop_capabilities(struct agent_launch *l)
{
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2];
  if (syscall(SYS_capget, &head, data) < 0) refuse(l, REFUSED_OTHER, errno);
  for (int i = 0; i < 2; i++) {
    uint32_t keep = l->user.uid == 0 ? (uint32_t)(WALLS_CAPABILITIES >> (32 * i)) : 0;
    data[i].permitted &= keep;
    data[i].effective = data[i].permitted;
    data[i].inheritable = 0;
  }
  if (syscall(SYS_capset, &head, data) < 0) refuse(l, REFUSED_OTHER, errno);
}

static void file_child(struct agent_launch *l)
{
  enum walls_step step;
  setsid();
  for (int fd = 0; fd < 3; fd++)
    if (dup2(l->fds[fd], fd) < 0) refuse(l, REFUSED_OTHER, errno);
  syscall(SYS_close_range, 3, ~0U, 0);
  set_ids(l);
  drop_capabilities(l);
  if (l->argv[1][0] != '/') enter_cwd(l);
  int rc = walls_close_command(l->limits, &step);
  if (rc < 0) refuse(l, REFUSED_OTHER, -rc);
  end_child(agent_file(l->argv));
}

static long clone_copy(struct clone_args *args, struct agent_launch *l)
{
  long pid = syscall(SYS_clone3, args, sizeof *args);
  if (pid == 0) file_child(l);
  return pid;
}

/* What a shell says, where a shell would say it. */
static void complain(const struct agent_launch *l)
{
  char text[512];
  const char *why = l->ret_exit_code == 127 && !strchr(l->argv[0], '/') ? "command not found"
                                                                        : strerror(l->ret_errno);
  int n = snprintf(text, sizeof text, "regolith: %.400s: %s\n", l->argv[0], why);
  if (n > 0 && write(l->fds[2], text, (size_t)n) < 0) return; /* a reader that is gone */
}

static void set_defaults(struct agent_launch *l, char *path, char *home, size_t home_size)
{
  if (!get_env(l->envp, "PATH")) l->envp[l->envc++] = path;
  l->envp[l->envc] = NULL;
  if (get_env(l->envp, "HOME")) return;
  snprintf(home, home_size, "HOME=%s", l->user.home);
  l->envp[l->envc++] = home;
  l->envp[l->envc] = NULL;
}

/* The child inherits the score; the agent itself must be the last to go. */
static void set_oom_adj(int fd, const char *value)
{
  if (fd >= 0 && pwrite(fd, value, strlen(value), 0) < 0) return;
}

void agent_launch(struct agent_launch *l)
{
  char path[] = "PATH=" DEFAULT_PATH, home[300];
  set_defaults(l, path, home, sizeof home);
  l->ret_refused = l->ret_exit_code = -1;
  l->ret_errno = 0;
  l->ret_mark = 0;
  struct clone_args args = {.exit_signal = SIGCHLD};
  if (l->cgroup_fd >= 0) {
    args.flags = CLONE_INTO_CGROUP;
    args.cgroup = (uint64_t)l->cgroup_fd;
  } else if (!l->file) {
    args.flags = CLONE_NEWUTS;
  }
  if (l->cgroup_ns) args.flags |= CLONE_NEWCGROUP;
  set_oom_adj(l->oom_adj_fd, "1000");
  long pid = l->file ? clone_copy(&args, l) : clone_call(&args, child, l);
  int e = errno;
  set_oom_adj(l->oom_adj_fd, "0");
  l->ret_pid = (pid_t)pid;
  if (pid < 0) {
    l->ret_refused = e == EAGAIN ? REFUSED_PIDS : REFUSED_OTHER;
    l->ret_errno = e;
    return;
  }
  if (l->ret_refused < 0 && l->ret_exit_code < 0) return;
  waitpid(l->ret_pid, NULL, __WALL);
  if (l->ret_exit_code >= 0) complain(l);
}

#ifndef REGOLITH_ENGINE_LOCAL_AGENT_INTERNAL_H
#define REGOLITH_ENGINE_LOCAL_AGENT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/local/cgroup.h"
#include "engine/local/proto.h"
#include "engine/local/walls.h"

/* Shared by the agent*.c files; nobody else includes this. */

#define AGENT_GROUPS_MAX 64

/* Whom a command runs as. */
struct agent_user {
  uint32_t uid, gid;
  uint32_t groups[AGENT_GROUPS_MAX];
  size_t groups_n;
  char home[256];
};

/* Looks a user up in the box's /etc/passwd and /etc/group: "", NAME, NUMBER, and either with
 * :GROUP. Only ids below mapped exist. 0 or a negative errno. */
int agent_user_find(const char *spec, uint32_t mapped, struct agent_user *ret);

/* Does something in the box accept connections on this port of its loopback? Takes a few
 * milliseconds at most. */
bool agent_port_open(uint16_t port);
/* A connection to it, the caller's; -1: there is none. */
int agent_port_connect(uint16_t port);

/* One command to start. */
struct agent_launch {
  char **argv, **envp; /* NULL-terminated; envp has room for two more */
  size_t envc;
  const char *cwd; /* "": the user's home, or "/" where that cannot be entered */
  struct agent_user user;
  int fds[3]; /* stdin, stdout, stderr: taken for the call only */
  const struct walls_limits *limits;
  bool tell;      /* the host wants to know that it runs */
  bool file;      /* argv is for agent_file, in a copy of this process, and nothing is executed */
  bool cgroup_ns; /* the command gets a cgroup namespace of its own */
  int cgroup_fd;  /* leaf to be born in; -1: none, the command gets a UTS namespace as its mark */
  int oom_adj_fd; /* this process's oom_score_adj; -1 = none */

  pid_t ret_pid;
  uint64_t ret_mark; /* inode of the UTS namespace; 0 = none */
  /* When it could not be executed; how = -1 otherwise. */
  int ret_refused;   /* enum refused_why, -1 = was not refused */
  int ret_exit_code; /* 126 or 127, -1 = is running */
  int ret_errno;
};

/* Starts it with vfork and exec. Nothing is left behind when it did not start. */
void agent_launch(struct agent_launch *l);

/* Runs an operation on files (proto.h's EXEC_FILE) in this process: 0 or a positive errno. */
int agent_file(char **argv);

#endif
